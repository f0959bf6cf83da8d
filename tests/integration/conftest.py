"""Fixtures of the integration tests. Servers live as long as the session where state allows it;
every test begins with empty ones."""

import os
import pathlib
import resource
import signal
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from harness import proxy as proxy_module  # noqa: E402
from harness.groups import Group, own_group  # noqa: E402
from harness.proxy import Proxy  # noqa: E402
from harness.relay import TcpRelay  # noqa: E402
from harness.servers import RedisCluster, RedisServer  # noqa: E402
from harness.waiting import SCALE, wait_until  # noqa: E402

TEST_SECONDS = 150


def pytest_configure(config):
    config.addinivalue_line("markers", "needs_proxy: means nothing with NEARCACHED_FAKE=redis")
    config.addinivalue_line("markers", "long_test(seconds): this test may take that long")
    # 10 000 connections and their servers; both sides inherit it.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def pytest_collection_modifyitems(items):
    if proxy_module.IS_FAKE:
        skip = pytest.mark.skip(reason="NEARCACHED_FAKE=redis: there is no proxy")
        for item in items:
            if item.get_closest_marker("needs_proxy"):
                item.add_marker(skip)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item):
    """A test that hangs is interrupted: without it one lost reply would stop the whole run."""
    mark = item.get_closest_marker("long_test")
    seconds = (mark.args[0] if mark else TEST_SECONDS) * SCALE

    def on_alarm(*_):
        raise TimeoutError(f"the test took longer than {seconds:g} s")

    previous = signal.signal(signal.SIGALRM, on_alarm)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, previous)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Shows the logs of the proxies that ran when a test failed."""
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        for proxy in proxy_module.LIVE:
            report.sections.append((f"log of the proxy on port {proxy.port}", proxy.log()[-6000:]))
    if call.when == "teardown":
        proxy_module.LIVE[:] = [proxy for proxy in proxy_module.LIVE if proxy.is_running()]


@pytest.fixture(scope="session")
def _session_servers(tmp_path_factory):
    """The long-lived servers by name, started on first use; a dead proxy is started anew."""
    class Servers:
        def __init__(self):
            self._running = {}

        def get(self, name, make):
            if name not in self._running or not self._running[name].is_running():
                self._running[name] = make(tmp_path_factory.mktemp(name)).start()
            return self._running[name]

        def stop(self):
            failures = []
            for server in reversed(self._running.values()):
                try:
                    server.stop()
                except AssertionError as error:
                    failures.append(str(error))
            assert not failures, "\n".join(failures)

    servers = Servers()
    yield servers
    servers.stop()


@pytest.fixture
def redis_server(_session_servers):
    """An empty standalone server: the backend."""
    server = _session_servers.get("backend", RedisServer)
    server.ask("FLUSHALL")
    server.ask("SCRIPT", "FLUSH")
    server.ask("FUNCTION", "FLUSH")
    return server


@pytest.fixture
def reference(_session_servers):
    """An empty standalone server that nobody proxies: how Redis itself answers."""
    server = _session_servers.get("reference", RedisServer)
    server.ask("FLUSHALL")
    server.ask("SCRIPT", "FLUSH")
    server.ask("FUNCTION", "FLUSH")
    return server


def _clear_cache(proxy):
    """What the flush around the proxy makes the links tell it is waited for here, by asking."""
    if not proxy.is_fake:
        with proxy.client() as client:
            wait_until(lambda: client.ask("FLUSHALL") == b"+OK\r\n", 10, "FLUSHALL")


@pytest.fixture
def proxy(_session_servers, redis_server):
    """The proxy with default options in front of redis_server, its cache empty."""
    shared = _session_servers.get(
        "proxy", lambda directory: Proxy(directory, redis_server.url()))
    _clear_cache(shared)
    yield shared
    shared.assert_healthy()


class _StandingCluster(RedisCluster):
    def is_running(self):
        return True


@pytest.fixture
def cluster(_session_servers):
    """A whole and empty cluster of 3 masters and 3 replicas. Tests may break it: it is healed."""
    standing = _session_servers.get(
        "cluster", lambda directory: _StandingCluster(directory, 3, 1))
    try:
        is_ready = all(node.is_running() for node in standing.nodes) and standing.is_ready()
    except (OSError, RuntimeError):
        is_ready = False
    if not is_ready:
        standing.heal()
    standing.flush()
    return standing


@pytest.fixture
def cluster_proxy(_session_servers, cluster):
    """The proxy with default options in front of cluster, its cache empty."""
    shared = _session_servers.get(
        "cluster-proxy", lambda directory: Proxy(directory, cluster.url()))
    if not shared.is_fake:
        wait_until(shared.is_ready, 15, "the proxy to be ready")
    _clear_cache(shared)
    yield shared
    shared.assert_healthy()


@pytest.fixture
def start_proxy(tmp_path):
    """A function that starts a proxy with options of its own; it is stopped and checked after."""
    started = []

    def start(backend, options=None, **keywords):
        proxy = Proxy(tmp_path, backend, options, **keywords)
        started.append(proxy)
        return proxy.start()

    yield start
    failures = []
    for proxy in started:
        try:
            if proxy.is_expected_to_be_gone:
                proxy.assert_log_clean()
            else:
                proxy.stop()
        except AssertionError as error:
            failures.append(str(error))
    assert not failures, "\n".join(failures)


@pytest.fixture
def start_redis(tmp_path):
    """A function that starts a standalone server with options of its own."""
    started = []

    def start(options=(), **keywords):
        server = RedisServer(tmp_path / f"redis{len(started)}", options, **keywords)
        started.append(server)
        return server.start()

    yield start
    for server in started:
        server.stop()


@pytest.fixture
def start_relay():
    """A function that starts a TcpRelay in front of an address."""
    started = []

    def start(target):
        started.append(TcpRelay(target))
        return started[-1]

    yield start
    for relay in started:
        relay.close()


@pytest.fixture(name="group")
def fixture_group():
    parent, is_v2 = own_group()
    if parent is None:
        pytest.skip("no memory cgroup is to be seen")
    path = parent / f"nearcached-test-{os.getpid()}"
    try:
        path.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup can be made: {error}")
    group = Group(path, is_v2)
    try:
        group.set_limit(1 << 40)
    except OSError as error:
        path.rmdir()
        pytest.skip(f"its memory cannot be limited: {error}")
    yield group
    wait_until(lambda: not (path / "cgroup.procs").read_text().strip(), 20, "the group to be empty")
    path.rmdir()
