#!/usr/bin/python3
"""lint_layers.py - a file includes only its own floor's headers or those of a floor below

The floors, lowest first, are the folders of src/ (src/README.md); main.c stands on top. What
belongs to another program stands beside them. Includes are written from src/. The headers' graph
must have no cycle either, and src/README.md, the map, must have a line for each module. Exits 1 and
names what breaks a rule.
"""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
SRC = ROOT / "src"
FLOORS = ["tables", "base", "config", "resp", "cache", "upstream", "coherence", "proxy", "admin",
          "main"]
# Folders of programs of their own: they may use floors up to this one, and nobody uses them.
PROGRAMS = {"top": "base"}


def floor_of(path):
    """The number of the floor that a path below src/ belongs to; None if there is no such one."""
    name = path.parts[0] if len(path.parts) > 1 else path.stem
    if name in PROGRAMS:
        return FLOORS.index(PROGRAMS[name])
    return FLOORS.index(name) if name in FLOORS else None


def includes_of(file):
    """Yields (line number, path) for each include of ours."""
    for number, line in enumerate(file.read_text().splitlines(), 1):
        match = re.match(r'\s*#\s*include\s+"([^"]+)"', line)
        if match:
            yield number, pathlib.PurePosixPath(match.group(1))


def find_cycle(graph):
    """A list of names that lead back to the first, or None."""
    done, path = set(), []

    def visit(name):
        if name in path:
            return path[path.index(name):] + [name]
        if name in done:
            return None
        path.append(name)
        for other in sorted(graph.get(name, ())):
            cycle = visit(other)
            if cycle:
                return cycle
        path.pop()
        done.add(name)
        return None

    for name in sorted(graph):
        cycle = visit(name)
        if cycle:
            return cycle
    return None


def check_map(problems):
    """Every module has its line in the map, and every line its module."""
    floor, lines = None, set()
    for line in (SRC / "README.md").read_text().splitlines():
        match = re.match(r"\| (?:\*\*(\w+)/\*\*|(\w+)(?:\.def)?) \|", line)
        if match and match.group(1):
            floor = match.group(1)
        elif match and floor and match.group(2) != "module":
            lines.add(f"{floor}/{match.group(2)}")
        if line.startswith("## "):
            break
    modules = {f"{file.parent.name}/{file.stem}" for floor in [*FLOORS, *PROGRAMS]
               for file in (SRC / floor).glob("*.*") if file.suffix in (".c", ".h", ".def")}
    problems += [f"src/README.md: no line for {name}" for name in sorted(modules - lines)]
    problems += [f"src/README.md: there is no {name}" for name in sorted(lines - modules)]


def main():
    problems, graph = [], {}
    check_map(problems)
    for file in sorted(SRC.rglob("*.[ch]")) + sorted(SRC.rglob("*.def")):
        name = file.relative_to(SRC)
        mine = floor_of(name)
        if mine is None:
            problems.append(f"src/{name}: its folder is no floor of scripts/lint_layers.py")
            continue
        for number, included in includes_of(file):
            where = f"src/{name}:{number}"
            theirs = floor_of(included)
            if theirs is None or not (SRC / included).exists():
                problems.append(f'{where}: "{included}" is no path below src/')
            elif included.parts[0] in PROGRAMS and included.parts[0] != name.parts[0]:
                problems.append(f'{where}: "{included}" belongs to a program of its own')
            elif theirs > mine:
                problems.append(f'{where}: "{included}" stands above {FLOORS[mine]}')
            elif file.suffix == ".h":
                graph.setdefault(str(name), set()).add(str(included))
    cycle = find_cycle(graph)
    if cycle:
        problems.append("headers include each other: " + " -> ".join(cycle))
    for text in problems:
        print(text)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
