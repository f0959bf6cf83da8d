"""Configuration that documents show is accepted as it stands there."""
import re
from pathlib import Path

import pytest

from harness.proxy import run_binary

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def examples():
    """Indented blocks that begin with a section, without lines that show other ways to say it."""
    for page in PAGES:
        for block in re.findall(r"(?:^(?: {4}.*)?\n)+", page.read_text(), re.MULTILINE):
            lines = [line[4:] for line in block.strip("\n").split("\n")]
            if re.match(r'\[[a-z-]+(?: "[^"]+")?\]', lines[0]):
                kept = [line for line in lines if not re.match(r"NEARCACHED_|nearcached ", line)]
                name = lines[0].split(" #")[0].strip()
                yield pytest.param("\n".join(kept), id=f"{page.name} {name}")


def test_there_are_examples():
    assert len(list(examples())) >= 8


@pytest.mark.parametrize("text", examples())
def test_examples_are_good(tmp_path, text):
    # Certificates are read by the check, and are not there.
    text = re.sub(r"(?m)^(?:backend-)?tls-[\w-]+ = .*\n?", "", text)
    path = tmp_path / "example.conf"
    path.write_text(text + "\n")
    result = run_binary("--test", "--config", str(path))
    assert result.returncode == 0, result.stderr
