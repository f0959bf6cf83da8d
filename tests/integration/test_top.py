"""nearcached-top: its figures are those of the admin port; the screen, driven by keys."""

import json
import os
import pathlib
import pty
import re
import select
import subprocess

import pyte
import pytest

from harness.proxy import BINARY
from harness.servers import ROOT
from harness.waiting import wait_until

pytestmark = pytest.mark.needs_proxy

TOP = pathlib.Path(BINARY).parent / "nearcached-top"
CONFIG = {'namespace "page"': {"match": "page:*"},
          'namespace "lock"': {"match": "lock:*", "cache": "off"}}


def top(*arguments, **keywords):
    return subprocess.run([str(TOP), *arguments], capture_output=True, text=True, timeout=30,
                          check=False, **keywords)


@pytest.fixture
def busy(start_proxy, redis_server):
    """A proxy that has answered 9 of 10 reads of page:1 from memory."""
    proxy = start_proxy(redis_server.url(), config=CONFIG)
    with proxy.client() as client:
        client.ok("SET", "page:1", "value")
        for _ in range(10):
            client.ok("GET", "page:1")
    return proxy


def admin(proxy):
    return f"127.0.0.1:{proxy.admin_address[1]}"


def test_json_is_what_the_metrics_say(busy):
    all_of_it = json.loads(top("--once", "--json", admin(busy)).stdout)
    metrics = busy.metrics()
    page = next(row for row in all_of_it["namespaces"] if row["name"] == "page")
    assert page["requests"]["hits"] == metrics.get("hits_total", namespace="page") == 9
    assert page["requests"]["misses"] == metrics.get("misses_total", namespace="page") == 1
    assert all_of_it["status"]["requests"]["hits"] == metrics.get("hits_total")
    assert [node["role"] for node in all_of_it["nodes"]] == ["master"]


def test_text_shows_the_same(busy):
    text = top("--once", admin(busy)).stdout
    assert re.search(r"hit ratio 90\.0 %", text), text
    row = next(line for line in text.splitlines() if line.startswith("page "))
    assert "90.0 %" in row
    assert "not cached" in next(line for line in text.splitlines() if line.startswith("lock "))
    assert "127.0.0.1" in top("--once", "--page", "nodes", admin(busy)).stdout
    assert re.search(r"miss +cold", top("--once", "-p", "reasons", admin(busy)).stdout)


def test_rows_are_sorted_by_any_column(busy):
    def names(*options):
        lines = top("--once", admin(busy), *options).stdout.splitlines()
        first = next(i for i, line in enumerate(lines) if line.startswith("NAMESPACE"))
        return [line.split()[0] for line in lines[first + 1:]]

    assert names()[0] == "page"
    assert names("--sort", "namespace") == ["default", "lock", "page"]
    assert names("-s", "NAMESPACE", "-r") == ["page", "lock", "default"]


@pytest.mark.parametrize("arguments, error", [
    (["nonsense"], "nonsense: expected HOST:PORT"),
    (["http://127.0.0.1"], "expected HOST:PORT"),
    (["--interval", "0"], "0: expected seconds from 0.2 to 60"),
    (["--page", "x"], "x: expected namespaces, nodes or reasons"),
    (["--sort", "x"], "x: the page has no such column"),
    (["--json"], "--json: goes with --once"),
    (["a:1", "b:2"], "b:2: one address is enough"),
    (["--token-file", "/nowhere"], "/nowhere: No such file or directory"),
    (["--nonsense"], "nonsense"),
])
def test_wrong_arguments_are_named(arguments, error):
    ended = top(*arguments)
    assert ended.returncode == 2 and error in ended.stderr and ended.stdout == ""


def test_nobody_there_is_an_error(start_proxy, redis_server):
    proxy = start_proxy(redis_server.url())
    where = admin(proxy)
    proxy.kill()
    ended = top("--once", where)
    assert ended.returncode == 1 and f"{where}: no answer" in ended.stderr


def test_another_server_is_told_apart(redis_server):
    ended = top("--once", f"127.0.0.1:{redis_server.port}")
    assert ended.returncode == 1 and "nearcached-top: 127.0.0.1:" in ended.stderr


def test_the_manual_knows_every_option():
    usage = top("--help").stdout
    manual = (ROOT / "docs" / "nearcached-top.1").read_text().replace("\\-", "-")
    options = re.findall(r"--[a-z-]+", usage)
    assert len(options) >= 9
    for option in options:
        assert option in manual, option


class Screen:
    """nearcached-top on a terminal of 24 lines of 140 characters."""

    def __init__(self, *arguments):
        pid, self._terminal = pty.fork()
        if pid == 0:
            os.environ.update(TERM="xterm", LINES="24", COLUMNS="140")
            os.execv(str(TOP), [str(TOP), *arguments])
        self._pid = pid
        self._screen = pyte.Screen(140, 24)
        self._stream = pyte.ByteStream(self._screen)

    def until(self, pattern):
        """Waits until it can be read on the screen."""
        def is_there():
            if select.select([self._terminal], [], [], 0.05)[0]:
                self._stream.feed(os.read(self._terminal, 65536))
            return re.search(pattern, "\n".join(self._screen.display))

        return wait_until(is_there, 20, f"{pattern} on the screen")

    def press(self, keys):
        os.write(self._terminal, keys.encode())

    def ended(self):
        """The exit status."""
        while True:
            try:
                if not os.read(self._terminal, 65536):
                    break
            except OSError:  # Linux' way to say that nobody holds the other end any more
                break
        os.close(self._terminal)
        return os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])


def test_the_screen_follows_the_keys(busy):
    screen = Screen("--interval", "0.2", admin(busy))
    screen.until(r"nearcached \S+ at 127\.0\.0\.1")
    screen.until("NAMESPACE")
    screen.press("2")
    screen.until("NODE")
    screen.press("3")
    screen.until("WHAT")
    screen.press("h")
    screen.until("scroll")
    screen.press("h1>r+-p")
    screen.until("PAUSED")
    screen.press("q")
    assert screen.ended() == 0


def test_the_screen_says_that_nobody_answers_and_goes_on_when_somebody_does(busy):
    screen = Screen("--interval", "0.2", admin(busy))
    screen.until("NAMESPACE")
    busy.kill()
    screen.until("no answer for")
    busy.start()
    screen.until("since the start")
    screen.press("q")
    assert screen.ended() == 0
