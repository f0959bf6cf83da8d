#!/usr/bin/python3
"""check_style.py - what the house style counts

    lines       at most 100 columns, no tab, no blank at the end, a newline at the end of the file
    functions   at most 60 lines from the opening brace to the closing one
    headers     begin with a comment that says what they are for; a guard NC_<FLOOR>_<NAME>_H
    words       unfinished work is an issue, not a mark in the code

Looks at C sources and headers, tables, Python and shell scripts, the Makefile. Exits 1 and names
each line. Needs no build.
"""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
COLUMNS = 100
FUNCTION_LINES = 60
# In two halves, so that this file does not name what it looks for.
MARKS = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK)\b")


def may_be_long(path):
    """Tables, whose readers take them line by line, and tests' lists of commands."""
    return path.suffix == ".def" or (path.suffix == ".py" and "tests" in path.parts)


problems = []


def problem(path, number, text):
    problems.append(f"{path.relative_to(ROOT)}:{number}: {text}")


def check_lines(path, text):
    for number, line in enumerate(text.split("\n"), 1):
        if "\t" in line and path.name != "Makefile":
            problem(path, number, "a tab")
        if len(line) > COLUMNS and not may_be_long(path):
            problem(path, number, f"{len(line)} columns (at most {COLUMNS})")
        if line != line.rstrip():
            problem(path, number, "blanks at the end of the line")
        if MARKS.search(line):
            problem(path, number, "an unfinished-work mark; open an issue instead")
    if not text.endswith("\n"):
        problem(path, text.count("\n") + 1, "no newline at the end of the file")


def check_functions(path, text):
    """Function bodies open and close with a brace in the first column, as clang-format has it."""
    begin, previous, name = None, "", ""
    for number, line in enumerate(text.splitlines(), 1):
        if line == "{":
            begin = number
            match = re.search(r"(\w+)\(", previous) or re.search(r"(\w+)\s*$", previous)
            name = match.group(1) if match else "function"
        elif line.startswith("}") and begin is not None:
            length = number - begin + 1
            if length > FUNCTION_LINES:
                problem(path, begin, f"{name}() has {length} lines (at most {FUNCTION_LINES})")
            begin = None
        # A declaration over several lines is named by its first one.
        if line and not line[0].isspace() and line[0] not in "{}/*#":
            previous = line


def check_head(path, text):
    if path.suffix != ".h":
        return
    if not text.startswith("/*"):
        problem(path, 1, "does not begin with a comment that says what it is for")
    if path.parts[len(ROOT.parts)] != "src":
        return
    floor, name = path.relative_to(ROOT / "src").parts
    guard = f"NC_{floor}_{pathlib.PurePath(name).stem}_H".upper()
    if f"#ifndef {guard}\n#define {guard}\n" not in text:
        problem(path, 1, f"the include guard is not {guard}")


def main():
    sources = [path for folder in ("src", "tests", "demo") for suffix in ("c", "h", "def")
               for path in sorted((ROOT / folder).rglob(f"*.{suffix}"))
               if "node_modules" not in path.parts]
    scripts = [path for folder in ("scripts", "tests", "demo") for suffix in ("py", "sh")
               for path in sorted((ROOT / folder).rglob(f"*.{suffix}"))
               if "node_modules" not in path.parts]
    for path in [*sources, *scripts, ROOT / "Makefile", ROOT / ".ci/run"]:
        text = path.read_text()
        check_lines(path, text)
        if path.suffix in (".c", ".h"):
            check_functions(path, text)
            check_head(path, text)
    for text in problems:
        print(text)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
