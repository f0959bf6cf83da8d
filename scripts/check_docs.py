#!/usr/bin/python3
"""Compares src/tables/*.def with what people read: conf/nearcached.conf, docs/ and the README.

Exits 1 and says what differs. Needs no build.
"""
import re
import sys

import gen_docs
from gen_docs import ROOT

# Flags that are no options (config/arguments.c).
OTHER_FLAGS = {"config", "test", "describe", "version", "help"}
# Told apart from options by the configuration's loader; read by nearcached-top.
OTHER_VARIABLES = {"NEARCACHED_CONFIG", "NEARCACHED_TOKEN"}
# Names in backticks that look like ours: of Redis, Prometheus, twemproxy, and of data.
OTHER_NAMES = {"maxmemory-clients", "maxmemory-policy", "notify-keyspace-events",
               "tracking-table-max-keys", "tls-replication",
               "container_cpu_cfs_throttled_seconds_total"}
# Whose members have such names as well: /v1/ as JSON.
STATUS_PAGE = "docs/status.md"

problems = []


def problem(text):
    problems.append(text)


def check_names(options):
    """Kubernetes sets such variables for a Service called nearcached (config/load.c)."""
    for option in options:
        if re.search(r"_SERVICE_HOST|_SERVICE_PORT|_PORT_|_PORT$", option.variable):
            problem(f"options.def: {option.name}: variables of this form are ignored")
    names = [o.name for o in options if not o.is_override and not o.section.startswith("event")]
    for name in sorted({n for n in names if names.count(n) > 1}):
        problem(f"options.def: {name} stands there twice")


def check_metric_lines():
    """Lines of one name stand together, and share type, labels and help."""
    seen, last = {}, None
    for macro, (identifier, name, labels, text) in gen_docs.table_lines("metrics.def"):
        label = labels.split("=")[0]
        if name in seen:
            if last != name:
                problem(f"metrics.def: {identifier}: lines of {name} do not stand together")
            if seen[name] != (macro, label, text):
                problem(f"metrics.def: {identifier}: differs from others of {name} "
                        "in type, label name or help")
        seen[name] = (macro, label, text)
        last = name


def conf_lines():
    """(line number, section, option, value) for each option line, commented out or not."""
    section = None
    for number, line in enumerate((ROOT / "conf/nearcached.conf").read_text().splitlines(), 1):
        match = re.fullmatch(r"#?\[([\w-]+)(?: \"[\w.:-]+\")?\]", line)
        if match:
            section = match.group(1)
            continue
        match = re.fullmatch(r"#?([a-z][a-z0-9-]*) =(?: (.*))?", line)
        if match:
            yield number, section, match.group(1), (match.group(2) or "").strip()


def check_conf(options):
    known = {(o.section, o.spelling): o for o in options}
    found = {}
    for number, section, name, value in conf_lines():
        where = f"conf/nearcached.conf:{number}: {name}"
        option = known.get((section, name))
        if option is None:
            problem(f"{where}: [{section}] has no such option")
            continue
        if section not in gen_docs.REPEATED and (section, name) in found:
            problem(f"{where}: also on line {found[(section, name)]}")
        found[(section, name)] = number
        if section not in gen_docs.REPEATED and value != option.initial:
            problem(f"{where} = {value}: the default is {option.initial!r}")
    for section, name in known:
        if (section, name) not in found:
            problem(f"conf/nearcached.conf: {name} of [{section}] is missing")


def prose():
    """(page, where, line) of all that people read."""
    pages = [ROOT / "README.md", ROOT / "demo/README.md", *sorted((ROOT / "docs").glob("*.md")),
             *sorted((ROOT / "docs").glob("*.[1-8]"))]
    for page in pages:
        name = str(page.relative_to(ROOT))
        for number, line in enumerate(page.read_text().replace("\\-", "-").splitlines(), 1):
            yield name, f"{name}:{number}", line


def labels_of(metrics):
    """By metric, its labels with the values that the table has, or None where it has none."""
    found = {}
    for metric in metrics:
        labels = {"namespace": None} if metric.is_by_namespace else {}
        for text in metric.labels:
            for label, value in re.findall(r'(\w+)(?:="([^"]*)")?(?:,|$)', text):
                if value and label in labels:
                    labels[label].add(value)
                else:
                    labels[label] = {value} if value else None
        if metric.kind == "histogram":
            for suffix in ("_bucket", "_sum", "_count"):
                found[metric.name + suffix] = {**labels, "le": None}
        found[metric.name] = labels
    return found


def check_selectors(metrics):
    """`metric{label="value"}`, and "`metric` by `label`"."""
    labels = labels_of(metrics)
    for _, where, line in prose():
        for name, selector in re.findall(r"\b(nearcached_\w+)\{([^}]*)\}", line):
            for label, values in re.findall(r'(\w+)=~?"([^"]*)"', selector):
                known = labels.get(name, {}).get(label, set())
                if known is not None and not set(values.split("|")) <= known:
                    problem(f"{where}: {name} has no {label}={values}")
        for name, text in re.findall(r"`(nearcached_\w+)` by "
                                     r"((?:`(?!nearcached)\w+`(?:, | and )?)+)", line):
            for label in re.findall(r"`(\w+)`", text):
                if label not in labels.get(name, {}):
                    problem(f"{where}: {name} has no label {label}")


def check_reasons(metrics):
    """A page that explains the values of a label explains all of them."""
    labels = labels_of(metrics)
    for page, name, label in (("metrics.md", "nearcached_misses_total", "reason"),
                              ("operations.md", "nearcached_invalidations_total", "reason"),
                              ("runbook.md", "nearcached_errors_total", "kind"),
                              ("coherence.md", "nearcached_bus_gaps_total", "cause")):
        text = (ROOT / "docs" / page).read_text().split("<!-- generated", 1)[0]
        for value in sorted(labels[name][label]):
            if f"`{value}`" not in text:
                problem(f"docs/{page}: explains {name}, but not {label}={value}")


def names_in_sources():
    """What stands in quotation marks somewhere: labels, fields of replies, reasons, rules of the
    model."""
    text = "\n".join(path.read_text() for folder in ("src", "tests/model")
                     for path in sorted((ROOT / folder).rglob("*.[ch]"))
                     + sorted((ROOT / folder).rglob("*.def")))
    return {name for quoted in re.findall(r'"((?:[^"\\\n]|\\.)*)"', text)
            for name in re.findall(r"[a-z][a-z0-9]*(?:[-_][a-z0-9]+)+", quoted)}


def check_backticks(options, metrics, words):
    """Options, with the value that is set, and names of metrics without what goes before them."""
    by_name = {o.spelling: o for o in options}
    known = names_in_sources() | OTHER_NAMES | set(by_name) | {"nearcached-top"}
    known |= {m.name for m in metrics}
    rules = (ROOT / "conf/prometheus/nearcached.rules.yml").read_text()
    known |= set(re.findall(r"record: (\w+)", rules))
    # A column for those of another program.
    foreign = re.compile(r"^\| `[^`]*`(?:, `[^`]*`)* \|.*\|$")
    for page, where, line in prose():
        if page == "docs/migration.md" and foreign.match(line):
            line = line.split("|", 2)[2]
        for name in re.findall(r"`([a-z][a-z0-9]*(?:-[a-z0-9]+)+)`", line):
            if name not in known:
                problem(f"{where}: no option or name {name}")
        for name in re.findall(r"`(\w+_(?:total|seconds|bytes|rate|ratio))\b", line):
            if name not in known and page != STATUS_PAGE:
                problem(f"{where}: no metric or rule {name}")
        for name, value in re.findall(r"`([a-z][a-z0-9]*(?:-[a-z0-9]+)*) = ([^`]*)`", line):
            option = by_name.get(name)
            if option is None:
                problem(f"{where}: no option {name}")
            elif option.kind.startswith("ENUM_") and value not in words[option.kind[5:]].split():
                problem(f"{where}: {name} is never {value}")
            elif option.kind == "BOOL" and value not in ("on", "off"):
                problem(f"{where}: {name} is on or off, not {value}")


def check_commands():
    """CACHE and its subcommands, as `CACHE HELP` has them."""
    source = (ROOT / "src/admin/cache_command.c").read_text()
    known = set(re.findall(r'^    \{"([A-Z]+)", ', source, re.MULTILINE))
    for _, where, line in prose():
        for name in re.findall(r"(?:`|-p 6380 )CACHE ([A-Z]+)\b", line):
            if name not in known:
                problem(f"{where}: no command CACHE {name}")


def check_terminal_view():
    """The flags of nearcached-top and its manual page."""
    source = (ROOT / "src/top/main.c").read_text()
    flags = set(re.findall(r'\{"([a-z-]+)", (?:required|no)_argument', source))
    page = (ROOT / "docs/nearcached-top.1").read_text().replace("\\-", "-")
    told = set(re.findall(r"--([a-z][a-z-]*)", page))
    for flag in sorted(flags ^ told):
        problem(f"docs/nearcached-top.1: --{flag} is not in both, the page and src/top/main.c")


def check_prose(options, metrics):
    """Names in the README and in docs/ exist."""
    flags = {o.spelling for o in options if o.section not in gen_docs.REPEATED} | OTHER_FLAGS
    variables = ({o.variable for o in options if o.section not in gen_docs.REPEATED}
                 | OTHER_VARIABLES)
    names = {m.name for m in metrics}
    for metric in metrics:
        if metric.kind == "histogram":
            names |= {metric.name + suffix for suffix in ("_bucket", "_sum", "_count")}
    for page, where, line in prose():
        for name in re.findall(r"\bnearcached_[a-z0-9_]+\b(?!\*)", line):
            if name not in names:
                problem(f"{where}: no metric {name}")
        for name in re.findall(r"\bNEARCACHED_[A-Z0-9_]+\b", line):
            if name not in variables:
                problem(f"{where}: no variable {name}")
        # Flags of other programs stand in the same pages: only those of a command line of the
        # daemon, and those that are named alone, are ours.
        ours = re.findall(r"`(--[a-z][a-z-]*)[^`]*`", line)
        command = re.search(r"\bnearcached (--?[a-z].*)", line)
        if command:
            ours += re.findall(r"(?<!\S)(--[a-z][a-z-]*)", command.group(1).split("`")[0])
        for flag in ours:
            if flag[2:] not in flags and not page.startswith("demo/"):
                problem(f"{where}: no flag {flag}")


def tests_that_exist():
    """Names of test functions and files."""
    names = set()
    for path in (ROOT / "tests").rglob("test_*"):
        if path.suffix == ".py":
            names |= set(re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE))
        if path.suffix == ".c":
            names |= set(re.findall(r"^static void (\w+)\(void \*\*state\)", path.read_text(),
                                    re.MULTILINE))
        names.add(path.stem)
    return names


def check_tests():
    """What a guarantee is said to be tested by exists, and each guarantee names a test."""
    known = tests_that_exist()
    for page in sorted((ROOT / "docs").glob("*.md")):
        for number, line in enumerate(page.read_text().splitlines(), 1):
            where = f"{page.relative_to(ROOT)}:{number}"
            named = re.findall(r"`(test_\w+)(?:\.py)?`", line)
            for text in re.findall(r"\btest_\w+: ((?:`\w+`(?:, )?)+)", line):
                named += re.findall(r"`(\w+)`", text)
            for name in named:
                if name not in known:
                    problem(f"{where}: no test {name}")
    proof = (ROOT / "docs/coherence.md").read_text()
    for guarantee in re.findall(r"^\| (I\d) \| \*\*", proof, re.MULTILINE):
        if not re.search(rf"^\| {guarantee} \| (?:[^|]*`test_|all scenarios)", proof, re.MULTILINE):
            problem(f"docs/coherence.md: {guarantee} names no test")


def main():
    options, words = gen_docs.read_options()
    metrics = gen_docs.read_metrics()
    check_tests()
    check_names(options)
    check_metric_lines()
    check_conf(options)
    check_prose(options, metrics)
    check_selectors(metrics)
    check_reasons(metrics)
    check_backticks(options, metrics, words)
    check_commands()
    check_terminal_view()
    for name in gen_docs.PAGES:
        old, new = gen_docs.regenerated(name)
        if old != new:
            problem(f"{name} is out of date: run scripts/gen_docs.py")
    for text in problems:
        print(text)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
