#!/usr/bin/python3
"""Writes the parts of docs/ that come from src/tables/*.def.

    scripts/gen_docs.py            bring docs/ up to date
    scripts/gen_docs.py --check    change nothing; exit 1 and say what is out of date

Each page keeps its own words; what stands between its two marks is generated.
"""
import difflib
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent

SECTIONS = {
    "server": "Clients, threads and their limits.",
    "backend": "The Redis or Redis Cluster behind.",
    "tls": "TLS with clients and with the backend. A reload reads all files again.",
    "cache": "Tier 1, the memory of the proxy.",
    "coherence": "How far a read may lag behind a write.",
    "bus": "What proxies that share a backend tell each other.",
    "ledger": "What applications told about keys: tags, dependencies, events; kept at the backend.",
    "admin": "The HTTP port and commands for operators.",
    "log": "What is written to stderr.",
    "event": "One section for each kind of event: what `CACHE PUBLISH` and event sources drop. "
             "Given as `[event \"NAME\"]`, any number of times.",
    "event-source": "One section for each place at the backend that events come from. Given as "
                    "`[event-source \"NAME\"]`, any number of times, the same at every proxy.",
    "namespace": "One section for each kind of key. Given as `[namespace \"NAME\"]`, any number of "
                 "times; an option that is not given there is as in `[cache]`.",
    "dependency": "One section for each rule that says what is derived from what. Given as "
                  "`[dependency \"NAME\"]`, any number of times.",
}


def table_lines(table):
    """Yields (macro, arguments) for every line of a table, string literals unquoted."""
    text = (ROOT / "src" / "tables" / table).read_text()
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        match = re.fullmatch(r"\s*([A-Z_]+)\((.*)\)\s*", line)
        if not match:
            if line.strip():
                sys.exit(f"{table}: not understood: {line}")
            continue
        arguments = []
        for quoted, bare in re.findall(r'"((?:[^"\\]|\\.)*)"|([^,\s]+)', match.group(2)):
            arguments.append(bare if bare else re.sub(r"\\(.)", r"\1", quoted))
        yield match.group(1), arguments


class Option:
    def __init__(self, section, name, kind, initial, low, high, reload, text):
        self.section, self.name, self.kind = section, name, kind
        self.initial, self.low, self.high = initial, low, high
        self.needs_restart = reload == "START"
        self.text = text
        self.spelling = name.replace("_", "-")
        self.variable = "NEARCACHED_" + name.upper()
        self.is_override = False

    def accepts(self, words):
        if self.kind.startswith("ENUM_"):
            return ", ".join(words[self.kind[5:]].split())
        plain = {"BOOL": "on, off", "TEXT": "text", "SECRET": "text, never shown", "LIST": "list"}
        if self.kind in plain:
            return plain[self.kind]
        unit = {"INT": "number", "SIZE": "size", "TIME": "time"}[self.kind]
        return f"{unit}, {self.low} to {self.high}"


def read_options():
    """All options in the table's order, and the word lists. What namespaces may override stands
    behind their own options."""
    options, overrides, words = [], [], {}
    for macro, arguments in table_lines("options.def"):
        if macro == "OPTION":
            options.append(Option(*arguments))
        elif macro == "OVERRIDE":
            overrides.append(arguments[0])
        elif macro == "WORDS":
            words[arguments[0]] = arguments[1]
        else:
            sys.exit(f"options.def: unknown macro {macro}")
    at = max(i for i, option in enumerate(options) if option.section == "namespace") + 1
    for i, name in enumerate(overrides):
        of = next(o for o in options if o.name == name and o.section != "namespace")
        option = Option("namespace", of.name, of.kind, "", of.low, of.high, "LIVE", of.text)
        option.is_override = True
        options.insert(at + i, option)
    for _, arguments in table_lines("events.def"):
        options.append(Option(arguments[0].replace("_", "-"), *arguments[1:]))
    return options, words


# Sections that are given any number of times, in the file alone.
REPEATED = ("namespace", "dependency", "event", "event-source")


class Metric:
    def __init__(self, macro, name, text):
        self.name = ("" if macro.startswith("STANDARD_") else "nearcached_") + name
        self.kind = re.sub(r"^(NS_READ_|NS_|READ_|STANDARD_)|_LIST$", "", macro).lower()
        self.is_by_namespace = macro.startswith("NS_")
        self.text = text
        self.labels = []


def read_metrics():
    metrics = []
    for macro, (_, name, labels, text) in table_lines("metrics.def"):
        metric = Metric(macro, name, text)
        if not metrics or metrics[-1].name != metric.name:
            metrics.append(metric)
        if labels:
            metrics[-1].labels.append(labels)
    return metrics


def markdown(text):
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_")


def configuration_page():
    options, words = read_options()
    lines, section = [], None
    for option in options:
        if option.section != section:
            section = option.section
            title = f'[{section} "NAME"]' if section in REPEATED else f"[{section}]"
            lines += ["", f"### {title}", "", SECTIONS[section], "",
                      "| option | accepts | default | change by | meaning |",
                      "| --- | --- | --- | --- | --- |"]
        initial = f"`{option.initial}`" if option.initial else "none"
        if option.is_override:
            initial = "as in `[cache]`"
        lines.append(f"| `{option.spelling}` | {option.accepts(words)} | {initial} "
                     f"| {'restart' if option.needs_restart else 'reload'} "
                     f"| {markdown(option.text)} |")
    return "\n".join(lines[1:]) + "\n"


def metrics_page():
    lines = ["| metric | type | labels | meaning |", "| --- | --- | --- | --- |"]
    for metric in read_metrics():
        labels = ["`namespace`"] if metric.is_by_namespace else []
        values = {}
        for label in metric.labels:
            if "=" not in label:
                labels += [f"`{name}`" for name in label.split(",")]
            for name, value in re.findall(r'(\w+)="([^"]*)"', label):
                values.setdefault(name, []).append(value)
        for name, of in values.items():
            labels.append(f"`{name}`: {', '.join(dict.fromkeys(of))}")
        lines.append(f"| `{metric.name}` | {metric.kind} | {'; '.join(labels)} "
                     f"| {markdown(metric.text)} |")
    return "\n".join(lines) + "\n"


def roff(text):
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return "\\&" + text if text.startswith((".", "'")) else text


def manual_page():
    options, words = read_options()
    lines, section = [], None
    for option in options:
        if option.section != section:
            section = option.section
            title = f'[{section} "NAME"]' if section in REPEATED else f"[{section}]"
            lines += [".SS " + title.replace('"', "\\(dq"),
                      roff(SECTIONS[section].replace("`", ""))]
        initial = f"default {option.initial}" if option.initial else "none by default"
        if option.is_override:
            initial = "as in [cache]"
        change = "; a change needs a restart" if option.needs_restart else ""
        is_url = "://" in option.text.split()[0]
        text = option.text if is_url else option.text[0].upper() + option.text[1:]
        lines += [".TP", f".B {roff(option.spelling)}", roff(text) + ".", ".br",
                  roff(f"({option.accepts(words)}; {initial}{change})")]
    return "\n".join(lines) + "\n"


# The flags that nearcached(8) explains; nearcached.conf(5) has them all.
COMMON_FLAGS = ("backend", "listen", "admin", "requirepass", "maxmemory", "threads", "coherence",
                "max-staleness", "process-memory", "dry-run", "log-level", "log-format")


def command_page():
    options, words = read_options()
    lines = []
    for spelling in COMMON_FLAGS:
        option = next(o for o in options if o.spelling == spelling and o.section != "namespace")
        text = option.text[0].upper() + option.text[1:]
        initial = f"default {option.initial}" if option.initial else "none by default"
        value = "" if option.kind == "BOOL" else ' " VALUE"'
        lines += [".TP", f".{'BI' if value else 'B'} {roff('--' + spelling)}{value}",
                  roff(text if "://" not in text.split()[0] else option.text) + ".", ".br",
                  roff(f"({option.accepts(words)}; {initial})")]
    return "\n".join(lines) + "\n"


PAGES = {
    "docs/configuration.md": ("<!-- generated from src/tables/options.def: begin -->\n",
                              "<!-- generated: end -->\n", configuration_page),
    "docs/metrics.md": ("<!-- generated from src/tables/metrics.def: begin -->\n",
                        "<!-- generated: end -->\n", metrics_page),
    "docs/nearcached.conf.5": ('.\\" generated from src/tables/options.def: begin\n',
                               '.\\" generated: end\n', manual_page),
    "docs/nearcached.8": ('.\\" generated from src/tables/options.def: begin\n',
                          '.\\" generated: end\n', command_page),
}


def regenerated(name):
    """(what the page says, what it should say)"""
    begin, end, generate = PAGES[name]
    old = (ROOT / name).read_text()
    if old.count(begin) != 1 or old.count(end) != 1 or old.index(begin) > old.index(end):
        sys.exit(f"{name}: expected one mark {begin.strip()} and after it one {end.strip()}")
    head, rest = old.split(begin)
    tail = rest.split(end)[1]
    return old, head + begin + generate() + end + tail


def main():
    is_check = sys.argv[1:] == ["--check"]
    if sys.argv[1:] and not is_check:
        sys.exit(__doc__)
    is_stale = False
    for name in PAGES:
        old, new = regenerated(name)
        if old == new:
            continue
        is_stale = True
        if is_check:
            sys.stdout.writelines(difflib.unified_diff(
                old.splitlines(True), new.splitlines(True), name, "src/tables"))
            print(f"{name} is out of date: run scripts/gen_docs.py")
        else:
            (ROOT / name).write_text(new)
            print(f"{name} written")
    return 1 if is_check and is_stale else 0


if __name__ == "__main__":
    sys.exit(main())
