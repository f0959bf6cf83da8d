#!/usr/bin/python3
"""gen_commands_doc.py - writes the lists of docs/commands.md from src/tables/commands.def

    scripts/gen_commands_doc.py            bring docs/commands.md up to date
    scripts/gen_commands_doc.py --check    change nothing; exit 1 and say what is out of date

The words around the lists are the page's own. A list stands between two marks,

    <!-- commands: CLASS [selection]: begin -->
    <!-- commands: end -->

CLASS is one of enum command_class; a selection narrows it down to lines with that merge (SUM,
LATER ...), that flag (WRITES) or, after an exclamation mark, without it. Every command must stand
in exactly one list.
"""

import difflib
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/commands.md"
TABLE = ROOT / "src/tables/commands.def"
COLUMNS = 98

LINE = re.compile(r'(COMMAND|CONTAINER|SUBCOMMAND)\(\s*"([^"]+)",\s*(-?\d+),\s*CLASS_(\w+),\s*'
                  r"(\w+(?:\([^)]*\))?),\s*([\w\s|]+?),\s*(\w+),\s*(\w+),\s*(\w+)\)")
LIST = re.compile(r"(<!-- commands: (\w+)((?: !?\w+)*): begin -->\n)(.*?)(<!-- commands: end -->)",
                  re.S)


class Command:
    def __init__(self, groups):
        self.kind, self.name, _, self.group = groups[:4]
        flags = {flag.strip().replace("COMMAND_", "") for flag in groups[5].split("|")}
        self.traits = flags | {groups[6]}

    def fits(self, group, selection):
        return self.group == group and all(
            (word[1:] not in self.traits) if word.startswith("!") else (word in self.traits)
            for word in selection)

    def text(self):
        name = self.name.upper()
        # A container has a line for calls without a known subcommand.
        return f"`{name}` (alone)" if self.kind == "CONTAINER" and self.name != "cache" \
            else f"`{name}`"


def read_commands():
    text = re.sub(r"/\*.*?\*/", "", TABLE.read_text(), flags=re.S)
    commands = [Command(match.groups()) for match in LINE.finditer(text)]
    rest = LINE.sub("", text).strip()
    if rest:
        sys.exit(f"{TABLE.name}: not understood: {rest.splitlines()[0]}")
    return commands


def wrapped(words):
    """Words with commas in between, in lines of at most COLUMNS."""
    lines, line = [], ""
    for position, word in enumerate(words):
        word += "," if position + 1 < len(words) else ""
        if line and len(line) + 1 + len(word) > COLUMNS:
            lines.append(line)
            line = ""
        line = f"{line} {word}".lstrip()
    return "\n".join([*lines, line]) + "\n"


def regenerated(old, commands):
    """The page as it should be; exits when a command is in no list, or in two."""
    places = {}

    def fill(match):
        begin, group, selection, _, end = match.groups()
        chosen = [c for c in commands if c.fits(group, selection.split())]
        if not chosen:
            sys.exit(f"{PAGE.name}: the list {group}{selection} is empty")
        for command in chosen:
            if command.name in places:
                sys.exit(f"{PAGE.name}: {command.name} is in {places[command.name]} and in "
                         f"{group}{selection}")
            places[command.name] = group + selection
        return begin + wrapped([c.text() for c in chosen]) + end

    new = LIST.sub(fill, old)
    missing = [c.name for c in commands if c.name not in places]
    if missing:
        sys.exit(f"{PAGE.name}: in no list: {', '.join(missing)}")
    return new


def main():
    is_check = sys.argv[1:] == ["--check"]
    if sys.argv[1:] and not is_check:
        sys.exit(__doc__)
    old = PAGE.read_text()
    new = regenerated(old, read_commands())
    if old == new:
        return 0
    if not is_check:
        PAGE.write_text(new)
        print(f"{PAGE.relative_to(ROOT)} written")
        return 0
    sys.stdout.writelines(difflib.unified_diff(
        old.splitlines(True), new.splitlines(True), "docs/commands.md", "src/tables/commands.def"))
    print("docs/commands.md is out of date: run scripts/gen_commands_doc.py")
    return 1


if __name__ == "__main__":
    sys.exit(main())
