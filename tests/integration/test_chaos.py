"""Bad days: one fault after the other under load, and what is left of it afterwards.

`make chaos` runs every class of faults for CHAOS_SECONDS (a minute by default); the test suite runs
each fault once. What is judged, and when, stands in harness/chaos.py; what clients and operators
see of each fault in docs/operations.md, "What bad days look like". Faults of clusters with several
proxies are test_fleet.py's.
"""

import contextlib
import errno
import fcntl
import itertools
import os
import pathlib
import random
import resource
import select
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time

import pytest

from harness import consistency
from harness.chaos import BOUND, CONFIG, GONE, OPTIONS, OUTAGE, PATIENT, SECONDS, WAITED, Arena
from harness.clocks import ShiftedClock, boottime_with_offset, offset_clocks
from harness.hostile import hostile_mix
from harness.metrics import http_get
from harness.nameserver import NameServer
from harness.proxy import is_sanitized
from harness.resp import encode
from harness.servers import RedisCluster, free_port, key_slot
from harness.waiting import SCALE, wait_until

pytestmark = [pytest.mark.needs_proxy, pytest.mark.long_test(150 + 3 * SECONDS)]

long_only = pytest.mark.skipif(SECONDS == 0, reason="make chaos")
IS_LONG = SECONDS > 0

# Written to the file before it is answered, so that kill -9 loses nothing that was acknowledged.
DURABLE = (("appendonly", "yes"), ("appendfsync", "no"), ("auto-aof-rewrite-percentage", "0"))

_chance = random.Random(7)


def hold(short, longest):
    """How long a fault lasts: in the test suite as short as it makes sense."""
    time.sleep(_chance.uniform(short, longest) if IS_LONG else short)


def restart(server):
    """Its port may be somebody else's for a moment: others test on this machine."""
    for _ in range(20):
        try:
            return server.start()
        except RuntimeError:
            time.sleep(0.2)
    return server.start()


# What hostile clients ask for is held by the server until the proxy reads it: else it would take all
# the memory of the machine. At its bound it cuts the link.
BOUNDED = (("client-output-buffer-limit", "normal 512mb 0 0"), ("maxmemory-clients", "1gb"))


def can_unshare(*flags):
    return subprocess.run(["unshare", *flags, "true"], capture_output=True,
                          check=False).returncode == 0


def own_mounts(script):
    """A command that runs `script` in a mount namespace of its own and becomes the daemon."""
    return ["unshare", "--mount", "sh", "-ec", script + '\nexec "$@"', "sh"]


needs_own_mounts = pytest.mark.skipif(
    shutil.which("unshare") is None or not can_unshare("--mount"),
    reason="no mount namespace can be made")


# ---- one server: it dies, hangs, crawls, refuses ------------------------------------------------

class OneServer(Arena):
    """A durable server behind a relay."""

    def __init__(self, start_redis, start_relay, start_proxy, options=DURABLE):
        self.server = start_redis(list(options) + [
            ("key-load-delay", "1000"), ("loading-process-events-interval-bytes", "1024")])
        self.relay = start_relay(self.server.address)
        proxy = start_proxy("redis://127.0.0.1:%d" % self.relay.address[1], OPTIONS,
                            config=CONFIG)
        super().__init__(proxy, self.server.client)

    # One fault each; it is over when the function returns.

    def kill(self):
        self.server.kill()
        hold(0.4, 3)
        restart(self.server)

    def pause(self):
        self.server.pause()
        hold(1.2 * SCALE, 4)
        self.server.resume()

    def slow(self):
        """Every reply late by so much; then a command that takes its time."""
        self.relay.delay("all", to_proxy=_chance.uniform(0.05, 0.25))
        hold(0.3, 3)
        self.relay.delay("all")
        with self.server.client() as client:
            client.ok("DEBUG", "SLEEP", 0.4)

    def half_open(self):
        self.relay.swallow("all")
        hold(0.8, 4)
        self.relay.flow("all")

    def out_of_memory(self):
        refused = self._n_refused("OOM")
        self.server.ask("CONFIG", "SET", "maxmemory-policy", "noeviction", "maxmemory", "1")
        with self.proxy.client() as client:
            value = client.value("SET", "no room", "v")
            assert str(value).startswith("OOM command not allowed when used memory"), value
            assert client.ok("GET", "no room") is None
        wait_until(lambda: self._n_refused("OOM") > refused, 10, "writers to be refused")
        hold(0.2, 2)
        self.server.ask("CONFIG", "SET", "maxmemory", "0")

    def loading(self):
        """It comes back with much to read before it can answer."""
        self.server.ask("DEBUG", "POPULATE", "600", "filler", "200")
        # The file of the commands would be read at once: the keys come from the snapshot in it.
        self.server.ask("CONFIG", "SET", "aof-use-rdb-preamble", "yes")
        self.server.ask("BGREWRITEAOF")
        wait_until(lambda: self.server.info("persistence")["aof_rewrite_in_progress"] == "0"
                   and self.server.info("persistence")["aof_rewrite_scheduled"] == "0", 20,
                   "the rewrite")
        self.server.kill()
        restart(self.server)

    def read_only(self):
        """It is made the replica of a server that is not there: reads go on, writes do not."""
        refused = self._n_refused("READONLY")
        self.server.ask("REPLICAOF", "127.0.0.1", free_port())
        wait_until(lambda: self._n_refused("READONLY") > refused, 10, "writers to be refused")
        hold(0.2, 3)
        self.server.ask("REPLICAOF", "NO", "ONE")

    def master_down(self):
        """The same, where a replica without its master shows nothing at all."""
        self.server.ask("CONFIG", "SET", "replica-serve-stale-data", "no")
        self.server.ask("REPLICAOF", "127.0.0.1", free_port())
        with self.proxy.client() as client:
            wait_until(lambda: str(client.value("GET", f"k{time.monotonic()}")).startswith(
                "MASTERDOWN"), 10, "the error of the server")
        hold(0.2, 3)
        self.server.ask("REPLICAOF", "NO", "ONE")

    def _n_refused(self, word):
        return sum(n for text, n in list(self.workload.report.errors.items())
                   if "direct" not in text and f": {word}" in text)


ONE_SERVER = {
    # name: faults, errors, what the log says, metric that moves
    "killed": ([OneServer.kill], (), "node lost", ("backend_connections_lost_total", {})),
    "paused": ([OneServer.pause], (), "the node is not asked any more",
               ("breaker_transitions_total", {"to": "open"})),
    "slow": ([OneServer.slow], (), None, None),
    "half-open": ([OneServer.half_open], (), "link lost", ("backend_connections_lost_total", {})),
    "out of memory": ([OneServer.out_of_memory], ("OOM command not allowed",), None, None),
    "loading": ([OneServer.loading], ("LOADING ",), "node is not ready yet", None),
    "read-only": ([OneServer.read_only], ("READONLY You can't write",), None, None),
    "master down": ([OneServer.master_down], ("MASTERDOWN ", "READONLY "), None, None),
}


def one_server(arena, name, classes):
    faults = [fault for each in classes for fault in each[0]]
    allowed = OUTAGE + tuple(text for each in classes for text in each[1])
    before = arena.proxy.metrics()
    arena.run(name, faults, allowed)
    metrics, log = arena.proxy.metrics(), arena.proxy.log()
    for _, _, line, metric in classes:
        assert line is None or line in log, line
        assert metric is None or (metrics.get(metric[0], **metric[1])
                                  > before.get(metric[0], **metric[1])), metric


def test_one_server_in_all_ways(start_redis, start_relay, start_proxy):
    if IS_LONG:
        pytest.skip("each class on its own")
    one_server(OneServer(start_redis, start_relay, start_proxy), "one server",
               list(ONE_SERVER.values()))


@long_only
@pytest.mark.parametrize("name", ONE_SERVER)
def test_one_server(start_redis, start_relay, start_proxy, name):
    one_server(OneServer(start_redis, start_relay, start_proxy), name, [ONE_SERVER[name]])


# ---- a cluster that is down ---------------------------------------------------------------------

@long_only  # once: test_outages.py, test_a_cluster_that_is_down
def test_a_cluster_that_lacks_slots(tmp_path, start_proxy):
    cluster = RedisCluster(tmp_path / "cluster", masters=3, node_timeout_ms=600,
                           options=list(DURABLE) + [("cluster-require-full-coverage", "yes")])
    try:
        cluster.start()
        proxy = start_proxy(cluster.url(), OPTIONS, config=CONFIG)
        ops = tuple(op for op in consistency.SIMPLE + consistency.REMOVING)
        # After the loss of a node the map is read again: one interval more.
        arena = Arena(proxy, cluster.client, bound=BOUND + 0.5, ops=ops)

        def lose_a_master(_):
            victim = _chance.choice(cluster.masters())
            other = next(node for node in cluster.nodes if node is not victim)
            key = next(f"k{n}" for n in itertools.count()
                       if cluster.owner(key_slot(f"k{n}")) is other)
            victim.kill()
            with proxy.client() as client:
                wait_until(lambda: str(client.value("SET", key, "v")).startswith("CLUSTERDOWN"), 20,
                           "CLUSTERDOWN")
            hold(0.2, 2)
            restart(victim)
            cluster.wait_ready()

        arena.run("cluster down", [lose_a_master], OUTAGE + ("CLUSTERDOWN ",))
        assert "node lost" in proxy.log()
    finally:
        cluster.stop()


# ---- names ---------------------------------------------------------------------------------------

@needs_own_mounts
def test_the_name_service_is_gone(tmp_path, start_redis, start_proxy):
    """Links are lost while nobody can say where the backend is: where it was is good enough."""
    server, names = start_redis(DURABLE), NameServer()
    try:
        (tmp_path / "resolv.conf").write_text(names.resolv_conf())
        (tmp_path / "hosts").write_text("127.0.0.1 localhost\n")
        proxy = start_proxy(
            f"redis://backend.test:{server.port}", OPTIONS, config=CONFIG, command=own_mounts(
                f"mount --bind '{tmp_path}/resolv.conf' /etc/resolv.conf\n"
                f"mount --bind '{tmp_path}/hosts' /etc/hosts"))
        arena = Arena(proxy, server.client)
        assert names.n_asked > 0

        def lose_links(mode, is_killed):
            def fault(_):
                failures = proxy.metrics().get("name_failures_total")
                names.mode = mode
                if is_killed:
                    server.kill()
                    hold(0.2, 1)
                    restart(server)
                else:
                    server.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
                # It is served again while the names are still away.
                proxy.wait_metric("name_failures_total", failures + 1, 20)
                arena.recover()
                hold(0, 2)
                names.mode = "answer"
            return fault

        arena.run("names gone", [lose_links("silent", False), lose_links("servfail", True),
                                 lose_links("nxdomain", False)], OUTAGE)
        assert "name cannot be resolved, its last address is tried" in proxy.log()
    finally:
        names.close()


# ---- the log -------------------------------------------------------------------------------------

class Logs(Arena):
    """All clients are served, whatever becomes of what the proxy has to say: no error at all."""

    def talk(self):
        """Each of these is a line at this level."""
        before = self.proxy.metrics().get("log_lines_dropped")
        for _ in range(60):
            self.talk_once()
        hold(0.1, 1)
        return self.proxy.metrics().get("log_lines_dropped") - before


    def talk_once(self):
        with self.proxy.client() as client:
            client.send(b"*1\r\n:no\r\n")
            assert client.read().startswith(b"-ERR Protocol error")


def logs(start_redis, start_proxy, **keywords):
    server = start_redis()
    proxy = start_proxy(server.url(), {**PATIENT, "log-level": "debug"}, config=CONFIG, **keywords)
    return Logs(proxy, server.client)


def test_nobody_reads_the_log(start_redis, start_proxy):
    reader, writer = os.pipe()
    fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(reader, False)
    try:
        arena = logs(start_redis, start_proxy, stderr=writer)

        def stop_reading(_):
            assert arena.talk() > 0

        def read_again(_):
            """It goes on with whole lines."""
            with contextlib.suppress(BlockingIOError):
                while os.read(reader, 65536):
                    pass
            arena.talk_once()
            assert wait_until(lambda: os.read(reader, 65536), 10, "a line").startswith(b"ts=")

        arena.run("log pipe full", [stop_reading, read_again], (), SECONDS / 2)
        os.close(reader)
        reader = -1
        # Its reader has gone: EPIPE, and no signal.
        assert arena.talk() > 0
        assert arena.is_well()
        arena.proxy.assert_healthy()
    finally:
        os.close(writer)
        if reader >= 0:
            os.close(reader)


def test_nobody_reads_the_log_socket(start_redis, start_proxy):
    """As under systemd, when its journal hangs."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        arena = logs(start_redis, start_proxy, stderr=theirs)

        def talk(_):
            assert arena.talk() > 0

        arena.run("log socket full", [talk], (), SECONDS / 4)


@needs_own_mounts
def test_the_disk_of_the_log_is_full(tmp_path, start_redis, start_proxy):
    disk = tmp_path / "disk"
    disk.mkdir()
    arena = logs(start_redis, start_proxy, command=own_mounts(
        f"mount -t tmpfs -o size=16k none '{disk}'\nexec 2>>'{disk}/log'"))
    log = pathlib.Path(f"/proc/{arena.proxy.pid}/root{disk}/log")

    def fill(_):
        wait_until(lambda: arena.talk() > 0, 20, "the disk to be full")
        hold(0.1, 1)
        log.write_text("")
        arena.talk_once()
        wait_until(lambda: "msg=" in log.read_text(), 10, "lines after the disk was cleared")

    arena.run("log disk full", [fill], (), SECONDS / 4)
    assert all(line.startswith("ts=") for line in log.read_text().splitlines()[1:])


# ---- descriptors ---------------------------------------------------------------------------------

def set_descriptors(proxy, n_more):
    """Allows so many more than are open; None: as at first."""
    hard = resource.prlimit(proxy.pid, resource.RLIMIT_NOFILE)[1]
    highest = max(map(int, os.listdir(f"/proc/{proxy.pid}/fd")))
    resource.prlimit(proxy.pid, resource.RLIMIT_NOFILE,
                     (hard if n_more is None else highest + 1 + n_more, hard))


def wait_refused(proxy, before):
    # Scraping needs a descriptor as well: seen in the log while there is none.
    wait_until(lambda: proxy.log().count("cannot accept") > before, 10, "accepting to rest")


def test_no_descriptors_are_left(start_redis, start_proxy):
    server = start_redis(DURABLE)
    proxy = start_proxy(server.url(), OPTIONS, config=CONFIG)
    arena = Arena(proxy, server.client, client_timeout=20)

    def exhaust(is_cut):
        def fault(_):
            lines = proxy.log().count("cannot accept")
            with contextlib.ExitStack() as stack:
                old = stack.enter_context(proxy.client())
                assert old.ok("PING") == b"PONG"
                set_descriptors(proxy, 2)
                crowd = []
                for _ in range(40):
                    crowd.append(stack.enter_context(socket.create_connection(proxy.address)))
                if lines < 3:  # the line comes five times in ten seconds at most
                    wait_refused(proxy, lines)
                else:
                    hold(0.3, 1)
                assert old.ok("PING") == b"PONG"
                if is_cut:
                    # Those who wait may take what the links held.
                    server.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
                hold(0.3, 2)
                assert old.ok("PING") == b"PONG"
                set_descriptors(proxy, None)
                # Who waited is served now.
                for each in crowd:
                    each.settimeout(20 * SCALE)
                    each.sendall(b"PING\r\n")
                    assert each.recv(100) == b"+PONG\r\n"
        return fault

    # Nothing else to do: it must not spin.
    with proxy.client() as client:
        client.ok("PING")
        set_descriptors(proxy, 0)
        with contextlib.ExitStack() as stack:
            for _ in range(20):
                stack.enter_context(socket.create_connection(proxy.address))
                stack.enter_context(socket.create_connection(proxy.admin_address))
            wait_refused(proxy, 0)
            used, begun = proxy.cpu_seconds(), time.monotonic()
            time.sleep(1)
            share = (proxy.cpu_seconds() - used) / (time.monotonic() - begun)
            assert client.ok("PING") == b"PONG"
            set_descriptors(proxy, None)
    print(f"{share * 100:.0f} % of a core while nothing can be accepted")
    assert share < (0.5 if is_sanitized() else 0.25)
    proxy.wait_metric("accept_failures_total", 1)
    arena.run("no descriptors", [exhaust(False), exhaust(True)],
              OUTAGE + (WAITED, r"ERR nearcached: .*Too many open files"))


# ---- clocks --------------------------------------------------------------------------------------

HOURS = 3600.0
no_preload = pytest.mark.skipif(
    is_sanitized(), reason="a sanitizer's runtime must come before what is preloaded")


def is_expiring_by_its_ttl(arena):
    """What has a TTL goes at its end and not before."""
    with arena.proxy.client() as client:
        begun = time.monotonic()
        client.ok("SET", "goes", "v", "PX", 1500)
        client.ok("SET", "stays", "v", "EX", 100)
        assert client.ok("GET", "goes") == client.ok("GET", "stays") == b"v"
        while time.monotonic() - begun < 1.0:
            value = client.ok("GET", "goes")
            assert value == b"v" or time.monotonic() - begun > 1.4, "gone before its end"
            time.sleep(0.05)
        wait_until(lambda: client.ok("GET", "goes") is None, 10, "the end of its life")
        assert client.ok("GET", "stays") == b"v"


@no_preload
def test_the_wall_clock_jumps(tmp_path, start_redis, start_proxy):
    """Hours forward and back, in the proxy alone: TTLs, entries, deadlines and watchdog stay."""
    clock = ShiftedClock(tmp_path)
    alive = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    alive.bind(str(tmp_path / "notify"))
    server = start_redis()
    proxy = start_proxy(server.url(), PATIENT, config=CONFIG, env={
        **clock.environment(), "NOTIFY_SOCKET": str(tmp_path / "notify"),
        "WATCHDOG_USEC": "600000"})
    arena = Arena(proxy, server.client)

    def jump(offset):
        def fault(_):
            flushes, lines = proxy.metrics().get("flushes_total"), proxy.log().count("\n")
            clock.set(offset)
            is_expiring_by_its_ttl(arena)
            assert proxy.metrics().get("flushes_total") == flushes, "everything was dropped"
            with proxy.client() as client:
                assert client.ok("CACHE", "GET", "entry")[-1] != [], "the entry was dropped"
                assert b"entry" in client.ok("CACHE", "MEMBERS", "tag")[-1]
            wait_for_life_sign(alive)
            assert proxy.log().count("\n") - lines < 50, "the log was flooded"
        return fault

    with alive:
        with proxy.client() as client:
            client.ok("SET", "entry", "v")
            client.ok("CACHE", "TAG", "entry", "tag")
            wait_until(lambda: client.ok("GET", "entry") == b"v"
                       and client.ok("CACHE", "GET", "entry")[-1] != [], 10, "the entry")
        arena.run("wall clock", [jump(6 * HOURS), jump(-6 * HOURS)] if not IS_LONG else
                  [jump(6 * HOURS), jump(0), jump(-6 * HOURS), jump(400 * 24 * HOURS)], ())
        year = time.gmtime(time.time() - 6 * HOURS).tm_year
        assert IS_LONG or f"ts={year}" in proxy.log()


def wait_for_life_sign(alive):
    """A fresh one: those that have been sent are taken out first."""
    alive.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while alive.recv(4096):
            pass
    alive.settimeout(10 * SCALE)
    while b"WATCHDOG=1" not in alive.recv(4096):
        pass


@no_preload
def test_the_machine_slept(tmp_path, start_redis, start_proxy):
    """The clock since boot goes on while a machine is suspended: what was held is too old."""
    clock = ShiftedClock(tmp_path)
    server = start_redis()
    proxy = start_proxy(server.url(), OPTIONS, config=CONFIG, env=clock.environment())
    arena = Arena(proxy, server.client)
    slept = itertools.count(1)

    def sleep(_):
        hours = next(slept)
        clock.set(hours * HOURS, hours * HOURS)
        # No sign of life for hours: links are made anew.
        arena.recover()
        is_expiring_by_its_ttl(arena)
        hold(0, 2)

    arena.run("sleep", [sleep], OUTAGE, SECONDS / 2)


@pytest.mark.parametrize("offset", [
    pytest.param(400 * 24 * 3600, id="a year up"),
    pytest.param(None, id="just booted", marks=long_only)])
def test_clocks_count_from_elsewhere(start_redis, start_proxy, offset):
    """A machine that was started a year, or no time at all, ago."""
    if offset is None:
        offset = -int(time.clock_gettime(time.CLOCK_MONOTONIC)) + 1
    seen = boottime_with_offset(offset)
    if seen is None or abs(seen - time.clock_gettime(time.CLOCK_BOOTTIME) - offset) > 5:
        pytest.skip("no time namespace can be made")
    server = start_redis()
    proxy = start_proxy(server.url(), OPTIONS, config=CONFIG, before_exec=offset_clocks(offset))
    arena = Arena(proxy, server.client)

    def cut(_):
        server.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        hold(0.1, 2)

    is_expiring_by_its_ttl(arena)
    arena.run("clocks elsewhere", [cut], OUTAGE, SECONDS / 2)


# ---- systemd -------------------------------------------------------------------------------------

def test_systemd_does_not_listen(tmp_path, start_redis, start_proxy):
    """Its queue is full, for a moment or for good: nothing waits for it, and nothing is lost."""
    heard = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    heard.bind(str(tmp_path / "notify"))
    server = start_redis()
    proxy = start_proxy(server.url(), PATIENT, config=CONFIG, env={
        "NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "30000"})
    arena = Arena(proxy, server.client)

    def hang(_):
        with heard.dup() as probe, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            probe.setblocking(False)
            other.setblocking(False)

            def is_full():
                try:
                    other.sendto(b"mine", str(tmp_path / "notify"))
                    return False
                except BlockingIOError:
                    return True

            wait_until(is_full, 10, "the queue to be full")
        hold(0.3, 3)
        reloads = proxy.metrics().get("config_reloads_total")
        proxy.signal(signal.SIGHUP)
        proxy.wait_metric("config_reloads_total", reloads + 1)
        heard.settimeout(10 * SCALE)
        words = []
        while not any(word.startswith(b"READY=1") for word in words):
            words.append(heard.recv(4096))
            if b"RELOADING" not in b"".join(words):
                words = [word for word in words if not word.startswith(b"READY=1")]
        wait_for_life_sign(heard)

    with heard:
        arena.run("systemd silent", [hang], (), SECONDS / 2)


# ---- clients -------------------------------------------------------------------------------------

# (what is sent, what the answer begins with or None: it is closed, or nothing comes)
GARBAGE = (
    (bytes(random.Random(3).randrange(256) for _ in range(4000)) + b"\r\n", None),
    (b"*1000000000\r\n$3\r\nGET\r\n", None),
    (b"*-5\r\nPING\r\n", b"+PONG"),
    (b"*2\r\n$999999999999\r\n", b"-ERR Protocol error: invalid bulk length"),
    (b"*2\r\n$-7\r\n", b"-ERR Protocol error: invalid bulk length"),
    (b"*1\r\n:5\r\n", b"-ERR Protocol error: expected '$'"),
    (b"x" * 70000, b"-ERR Protocol error: too big inline request"),
    (b"*3\r\n$3\r\n" + b"9" * 70000, b"-ERR Protocol error: too big bulk count string"),
    (b"*" + b"9" * 70000, b"-ERR Protocol error: too big mbulk count string"),
    (b'SET k "unbalanced\r\n', b"-ERR Protocol error: unbalanced quotes in request"),
    (b"GET / HTTP/1.1\r\nHost: proxy\r\n\r\n", None),
    (b"POST / HTTP/1.1\r\nHost: proxy\r\nContent-Length: 5\r\n\r\nhello", None),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 200, None),
    (b"\0" * 70000, None),
    (b"\r\n" * 30000 + b"PING\r\n", b"+PONG"),
)


def speak_garbage(arena):
    for request, answer in GARBAGE:
        with socket.create_connection(arena.proxy.address, timeout=10 * SCALE) as each:
            with contextlib.suppress(ConnectionError):
                each.sendall(request)
            if answer is not None:
                received = b""
                with contextlib.suppress(ConnectionResetError):
                    while len(received) < len(answer):
                        data = each.recv(4096)
                        if not data:
                            break
                        received += data
                # A reset may have overtaken the words: the rest of the input was never read.
                assert received == b"" or received.startswith(answer), (request[:40], received)


def leave_half_way(arena):
    """Requests that end in the middle, clients that vanish, with a reset too."""
    whole = encode("SET", "half", b"h" * 100000) + encode("GET", "half")
    for length in (1, 5, 17, 40, 50000, len(whole)):
        each = socket.create_connection(arena.proxy.address)
        each.sendall(whole[:length])
        if length % 2:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        each.close()


def read_byte_by_byte(arena):
    with arena.proxy.client() as client:
        client.ok("SET", "slowly", b"s" * 20000)
        client.send(encode("GET", "slowly") * 200 + encode("GETRANGE", "slowly", 0, 10) * 20)
        client.socket.settimeout(10 * SCALE)
        for _ in range(300):
            assert len(client.socket.recv(1)) == 1
            time.sleep(0.0005)
        # A request byte by byte.
        for byte in encode("GET", "slowly"):
            client.send(bytes([byte]))


def pipeline_a_million(arena):
    """And read nothing until the end, from another thread than the one that sends."""
    count = 1_000_000 if IS_LONG else 100_000
    request = b"PING\r\n" * 1000
    with arena.proxy.client(timeout=120) as client:
        sender = threading.Thread(target=lambda: [client.send(request)
                                                  for _ in range(count // 1000)], daemon=True)
        sender.start()
        time.sleep(0.2)
        left = count * len(b"+PONG\r\n")
        while left > 0:
            data = client.socket.recv(1 << 20)
            assert data and data.strip(b"+PONG\r\n") == b""
            left -= len(data)
        sender.join()
        assert left == 0
        assert client.ok("PING") == b"PONG"


@contextlib.contextmanager
def silent_clients(address, count):
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(socket.create_connection(address))
        yield


def be_hostile(arena):
    """Everything at once; the mix of test_overload.py in the long run."""
    with silent_clients(arena.proxy.address, 200):
        speak_garbage(arena)
        leave_half_way(arena)
        read_byte_by_byte(arena)
        pipeline_a_million(arena)
        if IS_LONG:
            with hostile_mix(arena.proxy):
                hold(1, 4)


def test_hostile_clients(start_redis, start_proxy):
    server = start_redis(BOUNDED)
    with server.client() as direct:
        direct.ok("SET", "big", b"b" * 200000)
    proxy = start_proxy(server.url(), {**PATIENT, "client-output-limit": "4mb",
                                       "client-output-soft-limit": "2mb",
                                       "client-input-limit": "4mb"}, config=CONFIG)
    # What hostile clients have asked of the backend takes its time: others wait for it.
    arena = Arena(proxy, server.client, recovery=60)
    arena.run("hostile clients", [be_hostile], OUTAGE if IS_LONG else ())
    assert proxy.metrics().get("errors_total", kind="protocol") >= 8


# Its port is the operators': nobody there may take anything from clients, or from each other.
ADMIN_GARBAGE = (
    b"\0" * 5000, b"GET /" + b"x" * 100000 + b" HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + b"X: " + b"y" * 100000 + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + b"".join(b"X%d: y\r\n" % n for n in range(5000)) + b"\r\n",
    b"POST /v1/invalidate HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 99999999999"
    b"\r\n\r\n{}", b"POST /v1/invalidate HTTP/1.1\r\nContent-Length: -1\r\n\r\n{}",
    b"POST /v1/invalidate HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n{}",
    b"*1\r\n$4\r\nPING\r\n", b"\r\n" * 10000, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 200,
)


def slow_loris(address, count):
    """Connections that are never done with their request, and say a little again and again."""
    found = []
    for _ in range(count):
        each = socket.create_connection(address, timeout=5)
        each.setblocking(False)
        each.send(b"GET /metrics HTTP/1.1\r\nX-Slow: ")
        found.append(each)
    return found


def drip(connections):
    """One byte more of each; how many are still open."""
    n = 0
    for each in connections:
        try:
            each.send(b"x")
            n += 1
        except (BlockingIOError, OSError):
            pass
    return n


def test_hostile_clients_of_the_admin_port(start_redis, start_proxy):
    server = start_redis()
    proxy = start_proxy(server.url(), PATIENT, config=CONFIG)
    arena = Arena(proxy, server.client)

    def be_hostile_to_operators(_):
        crowd = slow_loris(proxy.admin_address, 600)
        try:
            for garbage in ADMIN_GARBAGE:
                with socket.create_connection(proxy.admin_address, timeout=10) as each:
                    with contextlib.suppress(OSError):
                        each.sendall(garbage)
            for _ in range(5):
                drip(crowd)
                # Who asks properly is answered.
                assert http_get(proxy.admin_address, "/healthz")[0] == 200
                assert "nearcached_hits_total" in http_get(proxy.admin_address, "/metrics")[1]
                hold(0.05, 0.5)
            assert proxy.metrics().get("admin_connections") <= 130
            # Most of them were closed, and have noticed by the second byte.
            wait_until(lambda: drip(crowd) <= 130, 10, "the others to be closed")
        finally:
            for each in crowd:
                each.close()

    arena.run("hostile admin clients", [be_hostile_to_operators], ())
    assert proxy.metrics().get("admin_connections_closed_total") > 0


# ---- ten thousand at once ------------------------------------------------------------------------

def come_at_once(arena, count):
    sockets, served, refused = {}, 0, 0
    poller = select.epoll()
    try:
        for _ in range(count):
            each = socket.socket()
            each.setblocking(False)
            assert each.connect_ex(arena.proxy.address) in (0, errno.EINPROGRESS)
            sockets[each.fileno()] = each
            poller.register(each, select.EPOLLOUT)
        deadline = time.monotonic() + 60 * SCALE
        while served + refused < count:
            assert time.monotonic() < deadline, f"{served} served, {refused} refused of {count}"
            for number, events in poller.poll(1):
                if events & select.EPOLLOUT:
                    with contextlib.suppress(ConnectionError):
                        sockets[number].send(b"PING\r\n")
                    poller.modify(number, select.EPOLLIN)
                    continue
                poller.unregister(number)
                try:
                    reply = sockets[number].recv(100)
                except ConnectionResetError:
                    reply = b"-ERR max number of clients reached\r\n"
                assert reply in (b"+PONG\r\n", b"-ERR max number of clients reached\r\n"), reply
                served += reply == b"+PONG\r\n"
                refused += reply != b"+PONG\r\n"
    finally:
        poller.close()
        for each in sockets.values():
            each.close()
    return served, refused


def test_thousands_at_once(start_redis, start_proxy):
    count = 10000 if IS_LONG else 1500
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count + 1000:
        pytest.skip(f"the descriptor limit is {hard}, {count + 1000} are needed")
    server = start_redis()
    proxy = start_proxy(server.url(), {**PATIENT, "maxclients": count - 150}, config=CONFIG)
    arena = Arena(proxy, server.client, client_timeout=30)
    seen = []

    def fault(_):
        seen.append(come_at_once(arena, count))
        wait_until(lambda: proxy.metrics().get("clients") < 100, 20, "them to be gone")

    # Some are too many: the load's own clients may be among those that are refused.
    arena.run("thousands at once", [fault], ("ERR max number of clients reached", GONE))
    print(f"    served and refused: {seen[:5]}")
    assert all(refused > 0 and served > count // 2 for served, refused in seen)
    assert proxy.metrics().get("client_connections_refused_total") > 0


# ---- the proxy itself ----------------------------------------------------------------------------

def test_the_proxy_is_killed(start_redis, start_proxy):
    server = start_redis()
    proxy = start_proxy(server.url(), OPTIONS, config=CONFIG)
    arena = Arena(proxy, server.client)

    def kill(_):
        arena.proxies_gone += proxy.metrics().get("hits_total")
        proxy.kill()
        hold(0.1, 1)
        proxy.start()
        proxy.is_expected_to_be_gone = False

    arena.run("proxy killed", [kill], OUTAGE + (GONE,))


@long_only
@pytest.mark.skipif(is_sanitized(), reason="a sanitizer's memory means nothing")
def test_hostile_clients_in_a_container(group, start_redis, start_proxy):
    server = start_redis(BOUNDED)
    with server.client() as direct:
        direct.ok("SET", "big", b"b" * 200000)
    proxy = start_proxy(server.url(), {**OPTIONS, "maxmemory": "64mb", "maxclients": 2000},
                        config=CONFIG, wait=None)
    group.set_limit(96 << 20)
    group.add(proxy.pid)
    wait_until(proxy.is_ready, 15, "the proxy to be ready")
    proxy.wait_metric("cgroup_memory_limit_bytes", 96 << 20)  # it was moved there while it ran
    arena = Arena(proxy, server.client, recovery=60)

    def fault(_):
        with hostile_mix(proxy):
            hold(2, 6)
        wait_until(lambda: proxy.metrics().get("memory_pressure_stage") == 0, 30, "calm")

    arena.run("container", [fault], OUTAGE + ("OOM nearcached: ", "max number of clients", GONE,
                                              WAITED))
    assert group.n_kills() == 0
    assert proxy.metrics().get("memory_pressure_total", stage="shrink") >= 1
