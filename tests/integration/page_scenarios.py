"""The status page in a real browser: tests/page/page.js drives headless Chromium; here is the proxy
that it looks at, which it may have stopped and started."""

import functools
import json
import os
import shutil
import signal
import subprocess

import pytest

from harness.proxy import Proxy, clean_environment
from harness.servers import ROOT
from harness.waiting import SCALE

PROGRAM = ROOT / "tests" / "page"
TOKEN = "correct horse"
CONFIG = {
    # Nothing goes by itself while the figures are compared.
    "cache": {"negative-ttl": "30m"},
    "coherence": {"audit-sample": 10},
    "admin": {"cache-command": "password", "cache-password": TOKEN},
    'namespace "session"': {"match": "session:*", "max-ttl": "30m"},
    'namespace "frames"': {"match": "frame:*"},
    'namespace "idle"': {"match": "idle:*"},
}


@functools.lru_cache(maxsize=None)
def lacking():
    """Why there is no browser to drive, or None."""
    if shutil.which("chromium") is None or shutil.which("node") is None:
        return "chromium or node is not installed (scripts/install-deps.sh page)"
    done = subprocess.run(["node", "-e", "require('playwright-core')"], cwd=PROGRAM,
                          capture_output=True, text=True, check=False)
    return "playwright-core is not installed (make page)" if done.returncode else None


def load(proxy):
    """Hits, misses, writes and invalidations, and then rest."""
    with proxy.client() as client:
        for i in range(40):
            client.ok("SET", f"session:{i}", "x" * 50)
            for _ in range(1 + i % 7):
                client.value("GET", f"session:{i}")
        for i in range(25):
            client.value("GET", f"frame:{i}")
            client.value("GET", f"other:{i}")
            client.value("GET", f"other:{i}")
        for i in range(5):
            client.ok("SET", f"session:{i}", "y")


class Owner:
    """Does what the page's visitor cannot do."""

    def __init__(self, proxy):
        self.proxy = proxy

    def stop(self):
        self.proxy.stop()

    def start(self):
        self.proxy.start()

    def off(self):
        self.proxy.write_config({**CONFIG, "admin": {"cache-command": "off"}})
        self.proxy.signal(signal.SIGHUP)
        self.proxy.wait_metric("config_reloads_total", 1)


def test_the_page_in_a_browser(tmp_path, redis_server):
    if lacking():
        pytest.skip(lacking())
    proxy = Proxy(tmp_path, redis_server.url(), config=CONFIG).start()
    load(proxy)
    owner, lines = Owner(proxy), []
    arguments = {"url": "http://{}:{}/".format(*proxy.admin_address), "token": TOKEN,
                 "directory": str(tmp_path), "chromium": shutil.which("chromium"),
                 "scale": SCALE}
    environment = clean_environment({"HOME": str(tmp_path), "TMPDIR": str(tmp_path),
                                     "PATH": os.environ["PATH"]})
    with subprocess.Popen(["node", "page.js", json.dumps(arguments)], cwd=PROGRAM, text=True,
                          env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as visit:
        try:
            for line in visit.stdout:
                if line.startswith("do "):
                    getattr(owner, line.split()[1])()
                    visit.stdin.write("done\n")
                    visit.stdin.flush()
                else:
                    lines.append(line.rstrip())
                    print(lines[-1], flush=True)
        finally:
            visit.kill()
    proxy.stop()
    failed = [line for line in lines if not line.startswith("ok ")]
    assert not failed, "\n".join(failed)
    assert len(lines) >= 14, "\n".join(lines)
