"""Memory cgroups of our own, below the one that the tests run in."""

import pathlib


class Group:
    """A memory cgroup, version 1 or 2; processes are moved into it."""

    def __init__(self, path, is_v2):
        self.path, self.is_v2 = path, is_v2

    def set_limit(self, n_bytes):
        (self.path / ("memory.max" if self.is_v2 else "memory.limit_in_bytes")).write_text(
            str(n_bytes))

    def add(self, pid):
        (self.path / "cgroup.procs").write_text(str(pid))

    def n_kills(self):
        name = "memory.events" if self.is_v2 else "memory.oom_control"
        for line in (self.path / name).read_text().splitlines():
            word, _, value = line.partition(" ")
            if word == "oom_kill":
                return int(value)
        return 0

    def n_failures(self):
        """Times that the kernel had to look for memory at the limit."""
        if self.is_v2:
            return 0
        return int((self.path / "memory.failcnt").read_text())


def own_group():
    for line in pathlib.Path("/proc/self/cgroup").read_text().splitlines():
        number, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            return pathlib.Path("/sys/fs/cgroup/memory" + path), False
        if number == "0" and (pathlib.Path("/sys/fs/cgroup" + path) / "memory.current").exists():
            return pathlib.Path("/sys/fs/cgroup" + path), True
    return None, False
