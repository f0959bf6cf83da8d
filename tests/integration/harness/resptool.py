"""tests/tools/resp_tool.c, built from the tree and kept running: what src/resp/ makes of bytes."""

import os
import shlex
import subprocess

from .resp import encode
from .servers import ROOT

BASE_SOURCES = ("bytes", "buffer", "mem", "check", "log", "clock")


class RespTool:
    def __init__(self, directory):
        binary = directory / "resp_tool"
        sources = [ROOT / "tests/tools/resp_tool.c", *sorted((ROOT / "src/resp").glob("*.c")),
                   *[ROOT / f"src/base/{name}.c" for name in BASE_SOURCES]]
        subprocess.run([*shlex.split(os.environ.get("CC", "cc")), "-std=gnu11", "-D_GNU_SOURCE",
                        "-O1", "-g", f"-I{ROOT / 'src'}", "-pthread", "-o", binary, *sources],
                       check=True)
        self._process = subprocess.Popen([binary], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def close(self):
        self._process.stdin.close()
        assert self._process.wait(10) == 0

    def ask(self, *args):
        self._process.stdin.write(encode(*args))
        self._process.stdin.flush()
        header = self._process.stdout.readline()
        assert header.startswith(b"$"), f"resp_tool died: {header!r}"
        return self._process.stdout.read(int(header[1:]) + 2)[:-2]

    def table(self, *args):
        """The lines of `table` or `learn`: {name: fields}."""
        names = ("name", "arity", "first", "last", "step", "keys", "class", "flags")
        rows = {}
        for line in self.ask(*(args or ("table",))).decode().splitlines():
            row = dict(zip(names, line.split("|")))
            for field in ("arity", "first", "last", "step", "keys", "flags"):
                row[field] = int(row[field])
            assert row["name"] not in rows, row
            rows[row["name"]] = row
        return rows
