"""The daemon under test, as a process.

NEARCACHED_BIN names the binary (default build/nearcached). NEARCACHED_FAKE=redis puts the backend
itself in the proxy's place: tests that compare with Redis or check histories then test themselves.
"""

import os
import pathlib
import re
import shutil
import signal
import subprocess
import time
import zlib

import pytest

from . import metrics
from .resp import RawClient
from .servers import ROOT, die_with_parent, free_port
from .waiting import SCALE, wait_until

BINARY = os.environ.get("NEARCACHED_BIN") or str(ROOT / "build" / "nearcached")
IS_FAKE = os.environ.get("NEARCACHED_FAKE") == "redis"
SANITIZER_REPORT = re.compile(
    r"ERROR: \w+Sanitizer|WARNING: ThreadSanitizer|runtime error:|SUMMARY: \w+Sanitizer")

# Started and not yet reported; conftest shows their logs when a test fails.
LIVE = []


def is_sanitized():
    """True for an ASan or TSan build, whose memory figures mean nothing."""
    return "asan" in BINARY or "tsan" in BINARY


def clean_environment(extra=None):
    """Ours without NEARCACHED_*: each of those would be an option of the daemon."""
    environment = {name: value for name, value in os.environ.items()
                   if not name.startswith("NEARCACHED_")}
    environment.update(extra or {})
    return environment


def run_binary(*arguments, env=None, seconds=20):
    """Runs the daemon to its end; a CompletedProcess with texts."""
    return subprocess.run([BINARY, *map(str, arguments)], env=clean_environment(env),
                          capture_output=True, text=True, timeout=seconds * SCALE, check=False)


def config_text(sections):
    """{"server": {"threads": 2}, 'namespace "x"': {...}} as an INI file's text."""
    lines = []
    for section, options in sections.items():
        lines.append(f"[{section}]")
        lines += [f"{name} = {value}" for name, value in options.items()]
        lines.append("")
    return "\n".join(lines)


class Proxy:
    """One daemon in front of `backend` (a URL).

    options: {flag name: value}, later listeners as a list. config: sections of a configuration
    file. wait: "ready" (the backend can be reached), "alive" (it answers PING) or None.
    command: what the daemon is started by, as ("prlimit", "--nofile=64"); it must exec. before_exec():
    runs in the new process. stderr: a file or descriptor instead of the log file.
    """

    def __init__(self, directory, backend, options=None, *, config=None, env=None, threads=2,
                 wait="ready", command=(), before_exec=None, stderr=None):
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.backend = backend
        self.is_fake = IS_FAKE
        self.is_expected_to_be_gone = False  # set by a test that ends the process itself
        self.process = None
        self.port = free_port()
        self.admin_address = ("127.0.0.1", free_port())
        self.log_path = self.directory / f"proxy-{self.port}.log"
        self.config_path = self.directory / f"proxy-{self.port}.conf"
        self._env = env
        self._command = list(command)
        self._before_exec = before_exec
        self._stderr = stderr
        self._wait = wait
        self._options = {"listen": [f"127.0.0.1:{self.port}"], "backend": backend,
                         "admin": f"{self.admin_address[0]}:{self.admin_address[1]}",
                         "threads": threads, "maxmemory": "64mb", "log-level": "info",
                         # Those of one test are a group; what ends with others is nothing to them.
                         "bus-group": f"test-{zlib.crc32(str(self.directory).encode()):08x}"}
        for name, value in (options or {}).items():
            if name == "listen":
                self._options["listen"] += value if isinstance(value, list) else [value]
            else:
                self._options[name] = value
        # What the file sets is not given as a flag, which would win over it.
        for section in (config or {}).values():
            for name in section:
                if name not in (options or {}):
                    self._options.pop(name, None)
        self.address = ("127.0.0.1", self.port)
        if config is not None:
            self.write_config(config)
        self._has_config = config is not None
        if self.is_fake:
            host, port = backend.rsplit("@", 1)[-1].replace("redis://", "").split(",")[0].split(
                "/")[0].split(":")
            self.address = (host, int(port))

    def write_config(self, sections):
        self.config_path.write_text(
            sections if isinstance(sections, str) else config_text(sections))

    def arguments(self):
        found = ["--config", str(self.config_path)] if self._has_config else []
        for name, value in self._options.items():
            for each in value if isinstance(value, list) else [value]:
                if each is not None:
                    found += ["--" + name, str(each)]
        return found

    def start(self):
        if self.is_fake:
            return self
        if shutil.which(BINARY) is None:
            pytest.exit(f"{BINARY} is not built (make); NEARCACHED_BIN names another binary", 2)
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [*self._command, BINARY, *self.arguments()], env=clean_environment(self._env),
                stdout=log, stderr=log if self._stderr is None else self._stderr,
                stdin=subprocess.DEVNULL, preexec_fn=self._in_child)
        LIVE.append(self)
        if self._wait == "ready":
            wait_until(self.is_ready, 15, "the proxy to be ready")
        elif self._wait == "alive":
            wait_until(self._is_alive, 15, "the proxy to answer PING")
        return self

    def _in_child(self):
        die_with_parent()
        if self._before_exec is not None:
            self._before_exec()

    def _assert_running(self):
        status = self.process.poll()
        assert status is None, f"the proxy ended with status {status}:\n{self.log()[-4000:]}"

    def is_ready(self):
        self._assert_running()
        if not self._options.get("admin"):
            return self._is_alive()
        return metrics.http_get(self.admin_address, "/readyz")[0] == 200

    def _is_alive(self):
        self._assert_running()
        with self.client() as client:
            return client.ask("PING")

    @property
    def pid(self):
        return self.process.pid

    def log(self):
        try:
            return self.log_path.read_text(errors="replace")
        except OSError:
            return ""

    def client(self, protocol=2, **keywords):
        return RawClient(self.address, protocol, **keywords)

    def metrics(self):
        if self.is_fake:
            return metrics.Metrics("")
        return metrics.scrape(self.admin_address)

    def wait_metric(self, name, at_least, seconds=10, **labels):
        return wait_until(lambda: self.metrics().get(name, **labels) >= at_least, seconds,
                          f"metric {name}{labels or ''} >= {at_least}")

    def n_descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def cpu_seconds(self):
        """User and system time so far, of all threads."""
        fields = pathlib.Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss_bytes(self):
        for line in pathlib.Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no VmRSS: the proxy is gone")

    def signal(self, number):
        self.process.send_signal(number)

    def pause(self):
        self.signal(signal.SIGSTOP)

    def resume(self):
        self.signal(signal.SIGCONT)

    def is_running(self):
        return self.is_fake or (self.process is not None and self.process.poll() is None)

    def assert_healthy(self):
        """Still running, and no sanitizer had anything to say."""
        if not self.is_fake:
            self._assert_running()
            self.assert_log_clean()

    def assert_log_clean(self):
        report = SANITIZER_REPORT.search(self.log())
        assert report is None, f"sanitizer report:\n{self.log()[report.start() - 200:][:8000]}"

    def stop(self, seconds=15):
        """SIGTERM; asserts that it drains, exits 0 and that no sanitizer complained."""
        if self.process is None:
            return
        try:
            if self.process.poll() is None:
                self.resume()
                self.process.terminate()
                try:
                    self.process.wait(seconds * SCALE)
                except subprocess.TimeoutExpired:
                    self.process.send_signal(signal.SIGABRT)
                    time.sleep(0.2)
                    raise AssertionError(
                        f"the proxy did not end within {seconds * SCALE:g} s of SIGTERM") from None
            assert self.process.returncode == 0, (
                f"the proxy ended with status {self.process.returncode}:\n{self.log()[-4000:]}")
            self.assert_log_clean()
        finally:
            self.kill()

    def wait_exit(self, seconds=15):
        """Waits for an end that the test itself brought about; the exit status."""
        self.is_expected_to_be_gone = True
        return self.process.wait(seconds * SCALE)

    def kill(self):
        """kill -9, and no questions."""
        self.is_expected_to_be_gone = True
        if self.process is not None:
            if self.process.poll() is None:
                self.process.kill()
            self.process.wait()
