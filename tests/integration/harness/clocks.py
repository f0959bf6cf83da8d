"""Other clocks for one process: moved while it runs, or counting from elsewhere."""

import ctypes
import mmap
import os
import shlex
import struct
import subprocess
import sys

from .servers import ROOT

CLONE_NEWTIME = 0x80
_libc = ctypes.CDLL(None, use_errno=True)


class ShiftedClock:
    """environment(): for a process whose clocks set() moves. See tests/tools/clock_shift.c."""

    def __init__(self, directory):
        self._library = directory / "clock_shift.so"
        subprocess.run([*shlex.split(os.environ.get("CC", "cc")), "-std=gnu11", "-D_GNU_SOURCE",
                        "-O1", "-fPIC", "-shared", "-o", self._library,
                        ROOT / "tests/tools/clock_shift.c"], check=True)
        self._path = directory / "clock_shift"
        self._path.write_bytes(bytes(16))
        with open(self._path, "r+b") as file:
            self._shared = mmap.mmap(file.fileno(), 16)

    def environment(self):
        return {"LD_PRELOAD": str(self._library), "CLOCK_SHIFT_FILE": str(self._path)}

    def set(self, wall, since_boot=0):
        self._shared[:] = struct.pack("=qq", int(wall), int(since_boot))


def offset_clocks(seconds):
    """For before_exec: what is executed counts from another instant (time_namespaces(7))."""
    def enter():
        if _libc.unshare(CLONE_NEWTIME) != 0:
            raise OSError(ctypes.get_errno(), "unshare")
        with open("/proc/self/timens_offsets", "w", encoding="ascii") as offsets:
            offsets.write(f"monotonic {seconds} 0\nboottime {seconds} 0\n")
    return enter


def boottime_with_offset(seconds):
    """CLOCK_BOOTTIME as an executed program sees it; None where that cannot be had."""
    try:
        return float(subprocess.run(
            [sys.executable, "-c", "import time; print(time.clock_gettime(time.CLOCK_BOOTTIME))"],
            preexec_fn=offset_clocks(seconds), capture_output=True, text=True, check=True).stdout)
    except (OSError, subprocess.SubprocessError):
        return None
