#!/usr/bin/python3
"""Where a document points to is there: links and their anchors, paths of the tree, headings that
are named, targets of make; and docs/index.md names every document.

Exits 1 and says what is not there. Needs no build.
"""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
FOLDERS = "conf|debian|demo|docs|scripts|src|systemd|tests"

problems = []


def pages():
    """What people read, and what points to it."""
    found = [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md"),
             *(ROOT / "docs").glob("*.[1-8]"), *(ROOT / "conf").rglob("*.yml"),
             *(ROOT / "conf").rglob("*.yaml"), ROOT / "conf/nearcached.conf"]
    for folder in FOLDERS.split("|"):
        found += (ROOT / folder).rglob("README.md")
    return sorted({page for page in found if "node_modules" not in page.parts})


def without_code(text):
    """Indented and fenced blocks are no prose, but keep their lines."""
    lines, fenced = [], False
    for line in text.splitlines():
        fence = line.lstrip().startswith("```")
        fenced ^= fence
        lines.append("" if fence or fenced or line.startswith("    ") else line)
    return "\n".join(lines)


def headings(page):
    return re.findall(r"^#+ (.+)$", without_code(page.read_text()), re.MULTILINE)


def anchors(page):
    """As GitHub makes them of headings."""
    found = set()
    for heading in headings(page):
        anchor = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        while anchor in found:
            anchor += "-1"
        found.add(anchor)
    return found


def check_target(page, where, target):
    path, _, anchor = target.partition("#")
    to = (page.parent / path).resolve() if path else page
    if not to.exists():
        problems.append(f"{where}: {target} is not there")
    elif anchor and anchor not in anchors(to):
        problems.append(f"{where}: {to.relative_to(ROOT)} has no section #{anchor}")


def check_links(page, where, text):
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(text)):
        if not re.match(r"[a-z]+:", target):
            check_target(page, where, target)
    # Of rules and manifests, whose addresses are relative to the tree.
    for target in re.findall(r"\bdocs/[a-z-]+\.md#[\w-]+", text):
        check_target(ROOT / "README.md", where, target)


def is_made(path):
    """What is there only when something was built or installed."""
    return bool(re.search(r"node_modules|/build/", path))


def check_paths(page, where, text):
    for path in re.findall(rf"(?<![\w./-])(?:{FOLDERS})/[\w./*-]*[\w*]/?", text):
        # Relative to the page as well: src/README.md names its own folders.
        if (not any(ROOT.glob(path)) and not any(page.parent.glob(path))
                and not is_made(path)):
            problems.append(f"{where}: {path} is not there")


def check_sections(page, where, text):
    """(docs/x.md, "Heading"), or the heading without quotes at the end of the sentence's part."""
    text = re.sub(r"\s+", " ", text)
    for name, quoted, plain in re.findall(
            r"\b(?:docs/)?([a-z-]+\.md)\)?, (?:\"([^\"]+)\"|([A-Z][\w ]+)(?=[);.]))", text):
        to = ROOT / "docs" / name
        wanted = (quoted or plain).strip(",. ").lower()
        if not to.exists():
            continue
        known = [heading.lower() for heading in headings(to)]
        if not any(heading.startswith(wanted) for heading in known):
            problems.append(f"{where}: {to.relative_to(ROOT)} has no section {wanted!r}")


def check_targets(where, text):
    makefile = (ROOT / "Makefile").read_text()
    known = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    named = re.findall(r"`make ([a-z-]+)", text) + re.findall(r"^    make ([a-z-]+)", text,
                                                              re.MULTILINE)
    for target in named:
        if target not in known:
            problems.append(f"{where}: make has no target {target}")


def check_index():
    index = (ROOT / "docs/index.md").read_text()
    for page in sorted([*(ROOT / "docs").glob("*.md"), *(ROOT / "docs").glob("*.[1-8]")]):
        if page.name != "index.md" and f"]({page.name})" not in index:
            problems.append(f"docs/index.md does not name {page.name}")


def main():
    for page in pages():
        where, text = str(page.relative_to(ROOT)), page.read_text().replace("\\-", "-")
        if page.suffix == ".md":
            check_links(page, where, text)
            check_sections(page, where, text)
            check_targets(where, text)
        else:
            check_links(page, where, text)
        check_paths(page, where, text)
    check_index()
    for text in problems:
        print(text)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
