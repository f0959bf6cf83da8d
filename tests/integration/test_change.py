"""Change without harm: options, modes, reloads, upgrades and the end, while clients go on.

Proves: a reload says what differs and keeps what needs a restart; CACHE CONFIG SET takes all or
nothing, with the file's words; listeners come and go; every mode does what docs/operations.md says,
from its reply on; an upgrade costs no client an error, keeps every connection that can be kept, and
one that fails costs nothing; sockets of systemd, its notifications, drain-delay, kill -9.
"""

import contextlib
import ctypes
import fcntl
import os
import pathlib
import re
import resource
import signal
import socket
import struct
import subprocess
import threading
import time

import pytest
import redis

from harness.metrics import http_get, scrape
from harness.proxy import BINARY, clean_environment, run_binary
from harness.resp import RawClient, RespError, decode, encode
from harness.servers import free_port
from harness.tls import Authority, TlsClient, client_context
from harness.waiting import SCALE, wait_until

pytestmark = pytest.mark.needs_proxy

PR_SET_CHILD_SUBREAPER = 36


@pytest.fixture(autouse=True, scope="module")
def adopt_orphans():
    """Successors become children of this process when their predecessor ends: it reaps them."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    yield
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 0)


def mapping(reply):
    return {key.decode(): value.decode() for key, value in zip(reply[::2], reply[1::2])}


def config_get(client, *patterns):
    return mapping(client.ok("CACHE", "CONFIG", "GET", *patterns))


def reload(proxy, counter="config_reloads_total"):
    before = proxy.metrics().get(counter)
    proxy.signal(signal.SIGHUP)
    proxy.wait_metric(counter, before + 1)


def accepts(address):
    try:
        with RawClient(address) as client:
            return client.ask("PING") == b"+PONG\r\n"
    except (OSError, EOFError):
        return False


class Load:
    """Clients of several kinds that count what goes wrong, and never forgive."""

    def __init__(self, address, n_pooled=3, n_raw=2):
        self._address = address
        self._stop = threading.Event()
        self.errors = []
        self.n_requests = 0
        self._threads = [threading.Thread(target=self._guard, args=(self._pooled, number))
                         for number in range(n_pooled)]
        self._threads += [threading.Thread(target=self._guard, args=(self._raw, number))
                          for number in range(n_raw)]

    def _guard(self, run, number):
        try:
            run(number)
        except Exception as error:  # pylint: disable=broad-except
            self.errors.append(f"{run.__name__} {number}: {error!r}")

    def _pooled(self, number):
        """redis-py, one connection of its pool after the other: a counter that only grows."""
        client = redis.Redis(*self._address, socket_timeout=20)
        key, written = f"load:{number}", 0
        while not self._stop.is_set():
            written += 1
            assert client.set(key, written)
            for _ in range(3):
                assert int(client.get(key)) == written
            self.n_requests += 4
        client.close()

    def _raw(self, number):
        """One connection for all of it, with requests always under way and cut in the middle."""
        key, written = f"raw:{number}", 0
        with RawClient(self._address, timeout=20) as client:
            while not self._stop.is_set():
                written += 1
                batch = encode("SET", key, written) + encode("GET", key) * 9
                client.send(batch[:37])
                client.send(batch[37:])
                assert client.read() == b"+OK\r\n"
                for _ in range(9):
                    assert decode(client.read()) == str(written).encode()
                self.n_requests += 10

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        self.goes_on()
        return self

    def goes_on(self, n=300):
        """Waits for so many further requests."""
        before = self.n_requests
        wait_until(lambda: self.errors or self.n_requests >= before + n, 30, "the load to go on")
        assert not self.errors, self.errors

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join(30)
        assert not self.errors, self.errors


# --- reload ---------------------------------------------------------------------------------------

def test_a_reload_says_what_differs_and_keeps_what_needs_a_restart(start_proxy, redis_server):
    config = {"server": {"threads": 2, "requirepass": "first-word"},
              "cache": {"max-ttl": "1m"}, 'namespace "a"': {"match": "a:*"}}
    proxy = start_proxy(redis_server.url(), config=config)
    config["server"] = {"threads": 3, "requirepass": "second-word"}
    config["cache"] = {"max-ttl": "2m"}
    config['namespace "a"'] = {"match": "a:*", "max-ttl": "3s"}
    config['namespace "b"'] = {"match": "b:*"}
    proxy.write_config(config)
    reload(proxy)
    log = proxy.log()
    assert "option=max-ttl from=1m to=2m by=reload" in log
    assert "option=namespace.a.max-ttl from=1m to=3s" in log
    assert "option=namespace.b.match from=(none) to=b:*" in log
    assert "namespace.default.max-ttl" not in log  # it follows max-ttl, which is told
    assert "option=requirepass from=(hidden) to=(hidden)" in log and "-word" not in log
    assert re.search(r"not changed, as it needs a restart.*threads = 3.*in force is 2", log)
    with proxy.client(password="second-word") as client:
        assert config_get(client, "threads", "max-ttl", "requirepass") == {
            "threads": "2", "max-ttl": "2m", "requirepass": "(hidden)"}


def test_options_are_set_one_by_one(start_proxy, redis_server, tmp_path):
    proxy = start_proxy(redis_server.url(), config={
        "cache": {"max-ttl": "1m", "negative-ttl": "1s"},
        'namespace "my.session"': {"match": "session:*"}})
    with proxy.client() as client:
        def set_(*pairs):
            return client.value("CACHE", "CONFIG", "SET", *pairs)

        assert set_("max-ttl", "5s", "Namespace.my.session.MAX-TTL", "7s") == b"OK"
        assert config_get(client, "max-ttl", "namespace.*.max-ttl") == {
            "max-ttl": "5s", "namespace.default.max-ttl": "5s",
            "namespace.my.session.max-ttl": "7s"}
        client.ok("SET", "session:1", "v", "EX", 100)
        client.ok("GET", "session:1")
        assert b"ttl-left-ms" in b" ".join(str(each).encode() for each in
                                            client.ok("CACHE", "GET", "session:1"))
        # All or nothing, in the words of the file.
        bad = tmp_path / "bad.conf"
        bad.write_text("[cache]\nnegative-ttl = never\n")
        words = run_binary("--config", bad, "-t").stderr.split(": ", 1)[1].strip()
        error = set_("max-ttl", "9s", "negative-ttl", "never")
        assert isinstance(error, RespError) and words in str(error)
        assert config_get(client, "max-ttl", "negative-ttl") == {
            "max-ttl": "5s", "negative-ttl": "1s"}
        for pairs, word in ((("threads", "9"), "needs a restart, in force is 2"),
                            (("max-tll", "9s"), "did you mean max-ttl?"),
                            (("namespace.none.max-ttl", "9s"), "there is no namespace none"),
                            (("max-ttl", "9s", "max-ttl", "8s"), "twice"),
                            (("reconnect-min", "9s"), "must not be above reconnect-max"),
                            (("max-ttl",), "syntax error"),
                            (("max-ttl", "9s\0"), "zero byte")):
            assert word in str(set_(*pairs)), pairs
        assert set_("requirepass", "") == b"OK"
        assert proxy.metrics().get("config_sets_total") == 2
        # A reload brings back what the file says.
        reload(proxy)
        assert config_get(client, "max-ttl", "namespace.my.session.max-ttl") == {
            "max-ttl": "1m", "namespace.my.session.max-ttl": "1m"}


def test_who_may_set_options(start_proxy, redis_server):
    proxy = start_proxy(redis_server.url(), {"cache-command": "password",
                                             "cache-password": "word"})
    with proxy.client() as client:
        for command in (("CONFIG", "SET", "max-ttl", "1s"), ("CONFIG", "GET", "*"),
                        ("MODE", "off")):
            assert str(client.value("CACHE", *command)).startswith("NOAUTH")
        client.ok("CACHE", "AUTH", "word")
        client.ok("CACHE", "CONFIG", "SET", "cache-command", "off")
        assert "switched off" in str(client.value("CACHE", "MODE", "off"))


def test_listeners_come_and_go(start_proxy, redis_server, tmp_path):
    first, second, admin = free_port(), free_port(), free_port()
    path = tmp_path / "s.sock"
    proxy = start_proxy(redis_server.url(), {"listen": [f"127.0.0.1:{first}"]})
    taken = socket.create_server(("127.0.0.1", 0))
    with proxy.client() as client, Load(proxy.address) as load:
        base = f"127.0.0.1:{proxy.port}"
        client.ok("CACHE", "CONFIG", "SET", "listen", f"{base} 127.0.0.1:{second} unix:{path}",
                  "unix-socket-mode", "0700")
        assert accepts(("127.0.0.1", second)) and not accepts(("127.0.0.1", first))
        assert path.stat().st_mode & 0o777 == 0o700
        client.ok("CACHE", "CONFIG", "SET", "unix-socket-mode", "0770")
        assert path.stat().st_mode & 0o777 == 0o770
        # One that cannot be opened leaves everything as it was.
        error = client.value("CACHE", "CONFIG", "SET", "max-ttl", "9s", "listen",
                             f"{base} 127.0.0.1:{first} 127.0.0.1:{taken.getsockname()[1]}")
        assert "cannot listen: Address already in use" in str(error)
        assert accepts(("127.0.0.1", second)) and not accepts(("127.0.0.1", first))
        assert config_get(client, "max-ttl")["max-ttl"] == "1h"
        client.ok("CACHE", "CONFIG", "SET", "listen", base, "admin", f"127.0.0.1:{admin}")
        assert not accepts(("127.0.0.1", second)) and not path.exists()
        assert http_get(("127.0.0.1", admin), "/healthz")[0] == 200
        with pytest.raises(OSError):
            http_get(proxy.admin_address, "/healthz")
        client.ok("CACHE", "CONFIG", "SET", "admin",
                  f"{proxy.admin_address[0]}:{proxy.admin_address[1]}")
        load.goes_on()
    taken.close()


def test_changes_under_load(start_proxy, redis_server):
    config = {"cache": {"max-ttl": "1m"}, 'namespace "raw"': {"match": "raw:*"}}
    proxy = start_proxy(redis_server.url(), config=config)
    with proxy.client() as client, Load(proxy.address) as load:
        for number in range(12):
            config["cache"]["max-ttl"] = f"{10 + number}s"
            proxy.write_config(config)
            reload(proxy)
            client.ok("CACHE", "CONFIG", "SET", "namespace.raw.max-ttl", f"{5 + number}s",
                      "dry-run", "on" if number % 3 == 0 else "off")
            client.ok("CACHE", "MODE", "bypass", "raw")
            load.goes_on(40)
            client.ok("CACHE", "MODE", "on", "raw")
            client.ok("CACHE", "MODE", "bypass" if number % 2 else "on")
            load.goes_on(40)
    assert proxy.metrics().get("hits_total") > 0


def test_a_client_sees_its_writes_while_modes_flip(start_proxy, redis_server):
    """Workers do not change at the same moment: none may keep what another's writes do not drop."""
    proxy = start_proxy(redis_server.url(), config={'namespace "raw"': {"match": "raw:*"}})
    with proxy.client() as client, Load(proxy.address) as load:
        for number in range(120):
            space = (["default"] if number // 2 % 3 == 0 else [])
            client.ok("CACHE", "MODE", "on" if number % 2 else "bypass", *space)
            load.goes_on(25)


# --- modes ----------------------------------------------------------------------------------------

def hits(proxy):
    return proxy.metrics().get("hits_total")


def test_bypass_serves_nothing_from_memory_from_its_reply_on(start_proxy, redis_server):
    proxy = start_proxy(redis_server.url(), config={'namespace "a"': {"match": "a:*"}})
    with proxy.client() as client:
        for key in ("a:1", "b:1"):
            client.ok("SET", key, "v")
            client.ok("GET", key)
            client.ok("GET", key)
        assert hits(proxy) == 2
        # Pipelined behind the command: already relayed.
        client.send(encode("CACHE", "MODE", "bypass", "a") + encode("GET", "a:1") * 3)
        assert [client.read() for _ in range(4)] == [b"+OK\r\n"] + [b"$1\r\nv\r\n"] * 3
        assert hits(proxy) == 2 and client.ok("GET", "b:1") == b"v" and hits(proxy) == 3
        assert proxy.metrics().get("mode", namespace="a") == 1
        assert mapping(client.ok("CACHE", "MODE"))["namespace.a"] == "bypass"
        assert re.search(rb"\na:match=a:\*,cache=off,.*,mode=bypass\r", client.ok("CACHE", "INFO"))
        # It outlives a reload; what was kept before does not come back.
        reload(proxy)
        before = hits(proxy)
        client.ok("GET", "a:1")
        assert hits(proxy) == before
        redis_server.ask("SET", "a:1", "w")
        client.ok("CACHE", "MODE", "on", "a")
        assert client.ok("GET", "a:1") == b"w" and client.ok("GET", "a:1") == b"w"
        assert hits(proxy) == before + 1
        client.ok("CACHE", "MODE", "bypass")
        before = hits(proxy)
        assert [client.ok("GET", key) for key in ("a:1", "b:1") * 2] == [b"w", b"v"] * 2
        assert hits(proxy) == before and b"nearcached_mode:bypass" in client.ok("INFO")
        assert "mode changed" in proxy.log() and http_get(proxy.admin_address, "/readyz")[0] == 200


def test_readonly_refuses_writes_alone(start_proxy, redis_server):
    proxy = start_proxy(redis_server.url(), config={"server": {"large-request": "64kb"}})
    with proxy.client() as client, proxy.client() as other:
        client.ok("SET", "k", "v")
        client.ok("GET", "k")
        # A transaction that was begun before, and would write.
        other.ok("MULTI")
        other.ok("SET", "k", "x")
        client.ok("CACHE", "MODE", "readonly")
        assert str(other.value("EXEC")).startswith("EXECABORT")
        before = hits(proxy)
        assert client.ok("GET", "k") == b"v" and hits(proxy) == before + 1
        for command in (("SET", "k", "x"), ("DEL", "k"), ("MSET", "k", "x"), ("FLUSHALL",),
                        ("EVAL", "return redis.call('set', KEYS[1], 1)", 1, "k"),
                        ("SET", "k", "x" * 200000), ("BLPOP", "l", 0), ("NOSUCH", "k"),
                        ("FUNCTION", "FLUSH"), ("GETEX", "k", "EX", "1")):
            assert str(client.value(*command)).startswith("READONLY"), command
        for command in (("EVAL_RO", "return 1", 0), ("MGET", "k", "l"), ("PUBLISH", "c", "m"),
                        ("EVAL", "#!lua flags=no-writes\nreturn 1", 0), ("PING",),
                        ("PFCOUNT", "p"), ("CONFIG", "GET", "save")):
            assert not isinstance(client.value(*command), RespError), command
        client.ok("MULTI")
        assert str(client.value("SET", "k", "x")).startswith("READONLY")
        assert str(client.value("EXEC")).startswith("EXECABORT")
        client.ok("MULTI")
        client.ok("GET", "k")
        assert client.ok("EXEC") == [b"v"]
        assert proxy.metrics().get("errors_total", kind="mode") >= 10
        assert redis_server.ask("GET", "k") == b"v"
        client.ok("CACHE", "MODE", "on")
        assert client.ok("SET", "k", "y") == b"OK" and client.ok("GET", "k") == b"y"


def test_off_refuses_what_reaches_a_key(start_proxy, redis_server):
    proxy = start_proxy(redis_server.url(), config={
        'namespace "a"': {"match": "a:*", "mode": "off"}})
    with proxy.client() as client:
        for command in (("GET", "a:1"), ("SET", "a:1", "x"), ("MGET", "b:1", "a:1"),
                        ("FLUSHALL",)):
            assert "(CACHE MODE off, namespace a)" in str(client.value(*command)), command
        assert client.ok("SET", "b:1", "v") == b"OK" and client.ok("GET", "b:1") == b"v"
        assert http_get(proxy.admin_address, "/readyz")[0] == 200
        client.ok("CACHE", "MODE", "off")
        for command in (("GET", "b:1"), ("SUBSCRIBE", "c"), ("KEYS", "*"), ("PUBLISH", "c", "m"),
                        ("CONFIG", "GET", "save"), ("EVAL", "return 1", 0)):
            assert "switched off (CACHE MODE off)" in str(client.value(*command)), command
        assert client.ok("PING") == b"PONG" and client.ok("SELECT", "1") == b"OK"
        assert b"nearcached_mode:off" in client.ok("INFO")
        assert http_get(proxy.admin_address, "/readyz")[0] == 503
        assert http_get(proxy.admin_address, "/healthz")[0] == 200
        client.ok("CACHE", "MODE", "on")
        client.ok("CACHE", "MODE", "on", "a")
        assert client.ok("SET", "a:1", "v") == b"OK"
        # What was pulled wins over the file, also behind a reload.
        reload(proxy)
        assert client.ok("GET", "a:1") == b"v"


def test_a_transaction_that_only_reads_ends_with_its_namespace(start_proxy, redis_server):
    proxy = start_proxy(redis_server.url(), config={'namespace "a"': {"match": "a:*"}})
    with proxy.client() as client, proxy.client() as other:
        client.ok("SET", "a:1", "v")
        client.ok("MULTI")
        client.ok("GET", "a:1")
        other.ok("CACHE", "MODE", "readonly", "a")
        assert client.ok("EXEC") == [b"v"]
        client.ok("MULTI")
        client.ok("GET", "a:1")
        other.ok("CACHE", "MODE", "off", "a")
        assert str(client.value("EXEC")).startswith("EXECABORT")


# --- upgrade --------------------------------------------------------------------------------------

class Upgrade:
    """The successor of a proxy, which takes its place in this object."""

    def __init__(self, proxy):
        self.proxy = proxy
        self.pids = []

    def begin(self, pid=None):
        seen = self._started()
        os.kill(pid or self.pid(), signal.SIGUSR2)
        wait_until(lambda: len(self._started()) > len(seen), 20, "a successor")
        self.pids.append(self._started()[-1])
        return self.pids[-1]

    def _started(self):
        return [int(pid) for pid in re.findall(r'"a successor was started" pid=(\d+)',
                                               self.proxy.log())]

    def pid(self):
        return self.pids[-1] if self.pids else self.proxy.pid

    def take_over(self):
        n = self.proxy.log().count("taken over from the predecessor")
        pid = self.begin()
        wait_until(lambda: self.proxy.log().count("taken over from the predecessor") > n, 30,
                   "the successor to take over")
        return pid

    def first_has_ended(self, seconds=20):
        self.proxy.is_expected_to_be_gone = True
        return self.proxy.process.wait(seconds * SCALE)

    def stop(self):
        for pid in self.pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        statuses = [wait_for(pid) for pid in self.pids]
        self.proxy.assert_log_clean()
        return statuses


def wait_for(pid, seconds=20):
    """The status of an adopted process; None when somebody else has it."""
    ended = []

    def has_ended():
        try:
            found, status = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            return not pathlib.Path(f"/proc/{pid}").exists()
        if found:
            ended.append(os.waitstatus_to_exitcode(status))
        return found

    wait_until(has_ended, seconds, f"process {pid} to end")
    return ended[0] if ended else None


@pytest.fixture
def upgrades():
    started = []

    def make(proxy):
        started.append(Upgrade(proxy))
        return started[-1]

    yield make
    for upgrade in started:
        assert all(status in (0, None) for status in upgrade.stop())


def test_upgrades_under_load(start_proxy, redis_server, upgrades):
    proxy = start_proxy(redis_server.url())
    upgrade = upgrades(proxy)
    with Load(proxy.address, n_pooled=4, n_raw=4) as load:
        upgrade.take_over()
        assert upgrade.first_has_ended() == 0  # no client was left behind
        load.goes_on(400)
        first = upgrade.pid()
        upgrade.take_over()
        assert wait_for(first) == 0
        load.goes_on(400)
    assert proxy.metrics().get("clients_adopted_total") >= 5


def test_a_connection_keeps_its_state(start_proxy, redis_server, upgrades):
    proxy = start_proxy(redis_server.url(), {"requirepass": "word", "cache-password": "other",
                                             "cache-command": "password"})
    upgrade = upgrades(proxy)
    with RawClient(proxy.address, 3, password="word") as client, \
            RawClient(proxy.address, password="word") as half, \
            RawClient(proxy.address, password="word") as silent:
        client.ok("SELECT", 3)
        client.ok("CLIENT", "SETNAME", "somebody")
        client.ok("CACHE", "AUTH", "other")
        number = client.ok("CLIENT", "ID")
        client.ok("SET", "k", "in three")
        half.send(encode("SET", "h", "whole")[:17])
        silent.send(encode("CLIENT", "REPLY", "OFF"))
        wait_until(lambda: "qbuf=17" in client.ok("CLIENT", "LIST").decode(), 10, "half a request")
        newest = int(re.findall(r"id=(\d+)", client.ok("CLIENT", "LIST").decode())[-1])
        upgrade.take_over()
        assert upgrade.first_has_ended() == 0
        assert client.ok("GET", "k") == b"in three"
        assert client.ok("CLIENT", "ID") == number
        assert client.ok("CLIENT", "GETNAME") == b"somebody"
        assert client.ask("HGETALL", "none") == b"%0\r\n"  # still RESP3
        assert client.ok("CACHE", "CLEAR") is not None
        half.send(encode("SET", "h", "whole")[17:])
        assert half.read() == b"+OK\r\n" and half.ok("GET", "h") == b"whole"
        silent.send(encode("SET", "s", "v") + encode("CLIENT", "REPLY", "ON"))
        assert silent.read() == b"+OK\r\n" and silent.ok("GET", "s") == b"v"
        with RawClient(proxy.address, password="word") as late:
            assert late.ok("CLIENT", "ID") > newest  # no id is given twice


def test_who_cannot_be_handed_over_is_served_to_the_end(start_proxy, redis_server, upgrades,
                                                         tmp_path):
    authority = Authority(tmp_path)
    certificate = authority.issue("proxy")
    tls_port = free_port()
    proxy = start_proxy(redis_server.url(), {
        "tls-listen": f"127.0.0.1:{tls_port}", "tls-cert-file": certificate.cert,
        "tls-key-file": certificate.key})
    upgrade = upgrades(proxy)
    with proxy.client() as blocked, proxy.client() as listener, proxy.client() as buyer, \
            TlsClient(("127.0.0.1", tls_port), client_context(authority.cert)) as secret:
        secret.ok("SET", "t", "v")
        buyer.ok("WATCH", "w")
        buyer.ok("MULTI")
        buyer.ok("SET", "w", "bought")
        listener.send(encode("SUBSCRIBE", "c"))
        assert decode(listener.read())[0] == b"subscribe"
        blocked.send(encode("BLPOP", "l", 0))
        wait_until(lambda: proxy.metrics().get("blocked_clients") == 1, 10, "BLPOP to wait")
        upgrade.take_over()
        assert proxy.process.poll() is None
        assert buyer.ok("EXEC") == [b"OK"]  # it may go now
        assert buyer.ok("GET", "w") == b"bought"
        with proxy.client() as late:
            late.ok("PUBLISH", "c", "news")
            assert decode(listener.read())[2] == b"news"
            late.ok("RPUSH", "l", "item")
            assert decode(blocked.read()) == [b"l", b"item"]
            assert blocked.ok("GET", "t") == b"v" and secret.ok("GET", "t") == b"v"
            late.ok("SET", "t", "w")
            wait_until(lambda: secret.ok("GET", "t") == b"w", 10, "the other process's write")
        assert proxy.process.poll() is None
    assert upgrade.first_has_ended() == 0  # with its last client
    with TlsClient(("127.0.0.1", tls_port), client_context(authority.cert)) as late:
        assert late.ok("GET", "t") == b"w"


def test_who_computes_a_missing_key_stays_until_it_is_written(start_proxy, redis_server, upgrades):
    """If it went, its lease would go on to one who waits, and the key be computed twice."""
    proxy = start_proxy(redis_server.url(), config={
        'namespace "leased"': {"match": "m:*", "miss-lease": "1m"}})
    upgrade = upgrades(proxy)
    proxy.wait_metric("coherence_links", 2, mode="tracking")
    with proxy.client() as holder, proxy.client() as reader:
        assert holder.ok("GET", "m:x") is None
        reader.send(encode("GET", "m:x"))
        proxy.wait_metric("miss_lease_waiting", 1)
        upgrade.take_over()
        with proxy.client() as late:
            late.send(encode("GET", "m:x"))
            # The lock is still the predecessor's.
            proxy.wait_metric("miss_lease_waiting", 1)
            holder.ok("SET", "m:x", "value")
            assert decode(reader.read()) == b"value"
            assert decode(late.read()) == b"value"
            assert holder.ok("GET", "m:x") == b"value"
        assert upgrade.first_has_ended() == 0  # now they have gone
        assert proxy.metrics().get("miss_leases_total") == 0
        assert reader.ok("GET", "m:x") == b"value"


def test_those_left_behind_are_drained_in_the_end(start_proxy, redis_server, upgrades):
    proxy = start_proxy(redis_server.url(), {"handover-timeout": "300ms"})
    upgrade = upgrades(proxy)
    with proxy.client() as listener:
        listener.send(encode("SUBSCRIBE", "c"))
        listener.read()
        upgrade.take_over()
        assert upgrade.first_has_ended() == 0
        with pytest.raises((EOFError, OSError)):
            listener.read()
    assert accepts(proxy.address)


def test_attributes_outlive_an_upgrade(start_proxy, start_redis, upgrades):
    server = start_redis()
    proxy = start_proxy(server.url(), config={"cache": {"stale-if-error": "1m"}})
    upgrade = upgrades(proxy)
    with proxy.client(3) as client:
        client.ok("SET", "k", "v")
        client.ok("CACHE", "ATTRIBUTES", "on")
        upgrade.take_over()
        assert upgrade.first_has_ended() == 0
        assert client.ok("GET", "k") == b"v"
        server.kill()
        assert client.ask("GET", "k").startswith(b"|1\r\n$5\r\nstale\r\n:")


def test_a_successor_that_fails_costs_nothing(start_proxy, redis_server, upgrades):
    proxy = start_proxy(redis_server.url(), config={"cache": {"max-ttl": "1m"}})
    upgrade = upgrades(proxy)
    with Load(proxy.address) as load:
        proxy.write_config("[cache]\nmax-ttl = nonsense\n")
        pid = upgrade.begin()
        wait_until(lambda: "the successor failed" in proxy.log(), 20, "its failure")
        load.goes_on()
        wait_until(lambda: not pathlib.Path(f"/proc/{pid}").exists(), 10, "it to be reaped")
        proxy.write_config("[cache]\nmax-ttl = 2m\n")
        assert proxy.metrics().get("upgrade_failures_total") == 1
        upgrade.pids.clear()
        upgrade.take_over()
        assert upgrade.first_has_ended() == 0
        load.goes_on()
    with proxy.client() as client:
        assert config_get(client, "max-ttl")["max-ttl"] == "2m"


def test_a_successor_that_dies_later_is_replaced_by_its_predecessor(start_proxy, redis_server,
                                                                     upgrades):
    proxy = start_proxy(redis_server.url())
    upgrade = upgrades(proxy)
    with proxy.client() as listener:
        listener.send(encode("SUBSCRIBE", "c"))
        listener.read()
        pid = upgrade.take_over()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: "this process goes on" in proxy.log(), 10, "the predecessor")
        upgrade.pids.clear()
        with proxy.client() as client:
            assert client.ok("PING") == b"PONG"
            assert proxy.metrics().get("upgrade_failures_total") == 1
            client.ok("PUBLISH", "c", "news")
            assert decode(listener.read())[2] == b"news"
            # And the next one may try.
            upgrade.take_over()
            assert client.ok("PING") == b"PONG"


def test_modes_and_unix_sockets_outlive_an_upgrade(start_proxy, redis_server, upgrades, tmp_path):
    path = tmp_path / "s.sock"
    proxy = start_proxy(redis_server.url(), {"listen": [f"unix:{path}"]},
                        config={'namespace "a"': {"match": "a:*"}})
    upgrade = upgrades(proxy)
    with RawClient(str(path)) as client:
        client.ok("CACHE", "MODE", "readonly", "a")
        upgrade.take_over()
        assert upgrade.first_has_ended() == 0
        assert str(client.value("SET", "a:1", "v")).startswith("READONLY")
        assert path.exists()
        with RawClient(str(path)) as late:
            assert late.ok("SET", "b:1", "v") == b"OK"
    upgrade.stop()
    assert not path.exists()


# --- systemd --------------------------------------------------------------------------------------

class Notifications:
    def __init__(self, path):
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(20 * SCALE)
        self.words = []

    def wait_for(self, word):
        while not any(each.startswith(word) for each in self.words):
            self.words += self._socket.recv(4096).decode().split("\n")
        found = next(each for each in self.words if each.startswith(word))
        self.words.remove(found)
        return found


def test_systemd_is_told(start_proxy, redis_server, upgrades, tmp_path):
    told = Notifications(tmp_path / "notify")
    proxy = start_proxy(redis_server.url(), env={
        "NOTIFY_SOCKET": str(told.path), "WATCHDOG_USEC": "300000"})
    upgrade = upgrades(proxy)
    told.wait_for("READY=1")
    assert told.wait_for("MAINPID=") == f"MAINPID={proxy.pid}"
    told.wait_for("STATUS=serving")
    told.wait_for("WATCHDOG=1")
    proxy.signal(signal.SIGHUP)
    told.wait_for("RELOADING=1")
    at_us = int(told.wait_for("MONOTONIC_USEC=").split("=")[1])
    assert abs(at_us / 1e6 - time.clock_gettime(time.CLOCK_MONOTONIC)) < 60
    told.wait_for("READY=1")
    pid = upgrade.take_over()
    told.words.clear()
    assert upgrade.first_has_ended() == 0
    assert not any(each.startswith("STOPPING") for each in told.words)
    told.wait_for("WATCHDOG=1")  # of the successor
    os.kill(pid, signal.SIGTERM)
    told.wait_for("STOPPING=1")


def test_sockets_of_systemd(redis_server, tmp_path):
    sockets = {name: socket.create_server(("127.0.0.1", 0)) for name in ("plain", "admin")}
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(str(tmp_path / "s.sock"))
    unix.listen()
    given = [sockets["plain"], sockets["admin"], unix]
    fds = [each.fileno() for each in given]
    unused = free_port()

    def place():
        high = [os.dup2(fd, 100 + i) for i, fd in enumerate(fds)]
        for i, fd in enumerate(high):
            os.dup2(fd, 3 + i)

    with open(tmp_path / "log", "wb") as log:
        process = subprocess.Popen(
            ["/bin/sh", "-c", f'LISTEN_PID=$$ exec "{BINARY}" --backend {redis_server.url()} '
             f"--listen 127.0.0.1:{unused} --admin 127.0.0.1:{free_port()}"],
            env=clean_environment({"LISTEN_FDS": "3", "LISTEN_FDNAMES": "plain:admin:local"}),
            preexec_fn=place, close_fds=False, stdout=log, stderr=log)
    try:
        address = sockets["plain"].getsockname()
        with RawClient(address) as client, RawClient(str(tmp_path / "s.sock")) as local:
            wait_until(lambda: client.value("SET", "k", "v") == b"OK", 15, "the backend")
            assert local.ok("GET", "k") == b"v"
            assert not accepts(("127.0.0.1", unused))
            assert http_get(sockets["admin"].getsockname(), "/healthz")[0] == 200
            os.kill(process.pid, signal.SIGUSR2)
            process.wait(20 * SCALE)
            assert client.ok("GET", "k") == b"v" and accepts(address)
            log = (tmp_path / "log").read_text()
            pid = int(re.findall(r"was started. pid=(\d+)", log)[-1])
        os.kill(pid, signal.SIGTERM)
        assert wait_for(pid) == 0
        assert (tmp_path / "s.sock").exists()  # it is systemd's
    finally:
        process.kill()
        process.wait()
        for each in given:
            each.close()


# --- the end --------------------------------------------------------------------------------------

def post(address, path, headers=()):
    with socket.create_connection(address, timeout=10) as connection:
        lines = [f"POST {path} HTTP/1.1", "Host: x", "Content-Length: 0", "Connection: close",
                 *headers]
        connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        return int(connection.makefile("rb").readline().split()[1])


JSON = ("Content-Type: application/json",)


@pytest.mark.parametrize("by", ["signal", "http"])
def test_readiness_goes_first(start_proxy, redis_server, by):
    proxy = start_proxy(redis_server.url(), {"drain-delay": "2s"})
    with Load(proxy.address, n_pooled=2, n_raw=0) as load:
        begun = time.monotonic()
        if by == "signal":
            proxy.signal(signal.SIGTERM)
        else:
            assert post(proxy.admin_address, "/v1/drain") == 415  # no other site's page can do it
            assert post(proxy.admin_address, "/v1/drain", JSON) == 202
        wait_until(lambda: http_get(proxy.admin_address, "/readyz")[0] == 503, 10, "readiness")
        assert accepts(proxy.address)
        load.goes_on(100)
    assert proxy.wait_exit() == 0
    assert time.monotonic() - begun >= 1.9


def test_a_second_signal_does_not_wait(start_proxy, redis_server, tmp_path):
    path = tmp_path / "s.sock"
    proxy = start_proxy(redis_server.url(), {"drain-delay": "5m", "listen": [f"unix:{path}"]})
    proxy.signal(signal.SIGTERM)
    wait_until(lambda: "no longer ready" in proxy.log(), 10, "the drain")
    proxy.signal(signal.SIGTERM)
    assert proxy.wait_exit(10) == 0
    assert not path.exists()


def test_a_reload_while_draining_opens_nothing(start_proxy, redis_server):
    proxy = start_proxy(redis_server.url())
    with proxy.client() as blocked:
        blocked.send(encode("BLPOP", "l", 0))
        wait_until(lambda: proxy.metrics().get("blocked_clients") == 1, 10, "BLPOP to wait")
        proxy.signal(signal.SIGTERM)
        wait_until(lambda: "draining" in proxy.log(), 10, "the drain")
        reload(proxy)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(proxy.address, 5)
        with redis_server.client() as backend:
            backend.ok("RPUSH", "l", "item")
        assert decode(blocked.read()) == [b"l", b"item"]
    assert proxy.wait_exit() == 0


def test_drain_by_http_follows_the_rule_of_invalidations(start_proxy, redis_server):
    proxy = start_proxy(redis_server.url(), {"cache-command": "password",
                                             "cache-password": "word"})
    assert post(proxy.admin_address, "/v1/drain", JSON) == 401
    assert accepts(proxy.address)
    assert post(proxy.admin_address, "/v1/drain", (*JSON, "Authorization: Bearer word")) == 202
    assert proxy.wait_exit() == 0


def test_kill_loses_nothing_but_memory(start_proxy, redis_server, tmp_path):
    path = tmp_path / "s.sock"
    options = {"listen": [f"unix:{path}"]}
    proxy = start_proxy(redis_server.url(), options)
    with RawClient(str(path)) as client:
        client.ok("SET", "k", "v")
    left = sorted(each.name for each in tmp_path.iterdir())
    proxy.kill()
    assert path.exists()  # what kill -9 leaves hinders nobody
    again = start_proxy(redis_server.url(), {
        "listen": [f"unix:{path}", f"127.0.0.1:{proxy.port}"]})
    with RawClient(str(path)) as client, RawClient(proxy.address) as other:
        assert client.ok("GET", "k") == b"v" and other.ok("GET", "k") == b"v"
    new = {each.name for each in tmp_path.iterdir()} - set(left)
    assert new == {again.log_path.name}


# --- stages of an upgrade, one by one -------------------------------------------------------------

FORMAT = "READY 2734e43"


class Half:
    """One of the two processes of an upgrade, played by the test: it has the socket of words."""

    def __init__(self, directory, backend, options=()):
        self.log_path = directory / "successor.log"
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = self.listener.getsockname()
        self.words, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.words.settimeout(20 * SCALE)
        inherited = [self.listener.fileno(), theirs.fileno()]

        def hand_over():
            # Copies first: a number may be among the targets.
            for number, fd in enumerate([fcntl.fcntl(each, fcntl.F_DUPFD, 50)
                                         for each in inherited]):
                os.dup2(fd, 3 + number)

        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [BINARY, "--listen", "%s:%d" % self.address, "--backend", backend, "--threads", "2",
                 *options], stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                preexec_fn=hand_over, pass_fds=(3, 4), close_fds=True,
                env=clean_environment({"LISTEN_FDS": "2", "LISTEN_FDNAMES": "own.listen:own.words",
                                       "NC_HANDOVER": ""}))
        theirs.close()

    def hear(self):
        return self.words.recv(64).decode()

    def log(self):
        return self.log_path.read_text()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for each in (self.words, self.listener):
            each.close()
        if self.process.poll() is None:
            self.process.terminate()
        assert self.process.wait(20 * SCALE) in (0, 1), self.log()


def record_of(client_id):
    """A session between two requests, as proxy/handover.c writes it."""
    return struct.pack("<IIQqII7Bx", 0x02734E43, 0, client_id, 0, 0, 0, 2, 0, 1, 0, 0, 0, 0)


def pair_of_tcp():
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname(), timeout=20 * SCALE)
        return client, server.accept()[0]


def fails(address):
    try:
        socket.create_connection(address, timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_predecessor_that_gives_up_is_not_taken_over_from(redis_server, tmp_path):
    with Half(tmp_path, redis_server.url()) as half:
        assert half.hear() == FORMAT
        half.words.send(b"STOP")
        half.words.close()
        assert half.process.wait(20 * SCALE) == 1
        assert "taken over" not in half.log()


def test_a_predecessor_that_dies_before_it_says_go_is_replaced(redis_server, tmp_path):
    with Half(tmp_path, redis_server.url()) as half:
        assert half.hear() == FORMAT
        half.words.close()
        half.listener.close()
        wait_until(lambda: accepts(half.address), 10, "the successor to serve")
        assert "taken over" in half.log()


def test_a_successor_told_to_end_does_not_take_over(redis_server, tmp_path):
    with Half(tmp_path, redis_server.url(), ["--drain-delay", "20s"]) as half:
        assert half.hear() == FORMAT
        half.process.terminate()
        wait_until(lambda: "told to stop" in half.log(), 10, "the signal")
        half.words.send(b"GO 100")
        assert half.words.recv(64) == b""  # the predecessor goes on
        half.process.terminate()
        assert half.process.wait(20 * SCALE) == 0
        assert "taken over" not in half.log()


def test_no_client_is_lost_for_want_of_descriptors(redis_server, tmp_path):
    admin = free_port()
    with Half(tmp_path, redis_server.url(), ["--admin", f"127.0.0.1:{admin}"]) as half:
        assert half.hear() == FORMAT
        half.words.send(b"GO 100")
        wait_until(lambda: "taken over" in half.log(), 10, "the successor")
        pid = half.process.pid
        usual = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        highest = max(int(each) for each in os.listdir(f"/proc/{pid}/fd"))
        # Holes below the highest one are free.
        free = highest + 1 - len(os.listdir(f"/proc/{pid}/fd"))
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (highest + 1, usual[1]))
        clients = []
        for number in range(free + 3):
            client, server = pair_of_tcp()
            socket.send_fds(half.words, [record_of(10 + number)], [server.fileno()])
            server.close()
            client.sendall(b"PING\r\n")
            clients.append(client)
        wait_until(lambda: "out of descriptors" in half.log(), 10, "the limit to be met")
        resource.prlimit(pid, resource.RLIMIT_NOFILE, usual)
        for client in clients:
            assert client.recv(100) == b"+PONG\r\n"
            client.close()
        metrics = scrape(("127.0.0.1", admin))
        assert metrics.get("handover_stalls_total") == 1
        assert metrics.get("clients_lost_in_handover_total") == 0
        assert metrics.get("clients_adopted_total") == free + 3


def test_connections_are_taken_also_from_one_that_has_ended(redis_server, tmp_path):
    """It has ended without having read our last word, which the kernel tells as an error."""
    with Half(tmp_path, redis_server.url()) as half:
        assert half.words.recv(64, socket.MSG_PEEK).decode() == FORMAT
        half.process.send_signal(signal.SIGSTOP)
        client, server = pair_of_tcp()
        half.words.send(b"GO 100")
        socket.send_fds(half.words, [record_of(10)], [server.fileno()])
        server.close()
        client.sendall(b"PING\r\n")
        half.words.close()
        half.process.send_signal(signal.SIGCONT)
        assert client.recv(100) == b"+PONG\r\n"
        client.close()


def test_three_processes_at_once(start_proxy, redis_server, upgrades):
    """The one in the middle ends when nobody is left there: that is no reason to come back."""
    proxy = start_proxy(redis_server.url())
    upgrade = upgrades(proxy)
    with proxy.client() as listener, proxy.client() as client:
        listener.send(encode("SUBSCRIBE", "c"))
        listener.read()
        second = upgrade.take_over()
        client.ok("SET", "k", "v")
        upgrade.take_over()
        assert client.ok("GET", "k") == b"v"
        assert wait_for(second) in (0, None)  # reaped here, or by the first
        client.ok("PUBLISH", "c", "news")
        assert decode(listener.read())[2] == b"news"
        listener.send(encode("UNSUBSCRIBE", "c"))
        listener.read()
        assert listener.ok("GET", "k") == b"v"  # still there
        client.ok("SET", "k", "w")
        wait_until(lambda: listener.ok("GET", "k") == b"w", 10, "the third one's write")
        assert accepts(proxy.address) and proxy.process.poll() is None
        assert "this process goes on" not in proxy.log()
    assert upgrade.first_has_ended() == 0
    assert accepts(proxy.address)


def test_the_one_in_the_middle_dies(start_proxy, redis_server, upgrades):
    proxy = start_proxy(redis_server.url())
    upgrade = upgrades(proxy)
    with proxy.client() as listener:
        listener.send(encode("SUBSCRIBE", "c"))
        listener.read()
        second = upgrade.take_over()
        with proxy.client() as other:  # keeps the second one
            other.send(encode("SUBSCRIBE", "c"))
            other.read()
            upgrade.take_over()
            os.kill(second, signal.SIGKILL)
            upgrade.pids.remove(second)
            wait_until(lambda: "the successor has ended, its own" in proxy.log(), 10, "its end")
        with proxy.client() as late:
            late.ok("PUBLISH", "c", "news")
        assert decode(listener.read())[2] == b"news"
        assert "this process goes on" not in proxy.log()
    assert upgrade.first_has_ended() == 0
    assert accepts(proxy.address)


def test_sockets_that_only_one_of_the_two_knows(start_proxy, redis_server, upgrades, tmp_path):
    """The successor goes by its file: what was set at run time is closed when it takes over, not
    left open with nobody behind it; and it is back when the predecessor is."""
    proxy = start_proxy(redis_server.url())
    upgrade = upgrades(proxy)
    path, port = tmp_path / "set.sock", free_port()
    with proxy.client() as listener, proxy.client() as client:
        listener.send(encode("SUBSCRIBE", "c"))
        listener.read()
        own = "%s:%d" % proxy.address
        client.ok("CACHE", "CONFIG", "SET", "listen", f"{own} unix:{path} 127.0.0.1:{port}")
        assert accepts(str(path)) and accepts(("127.0.0.1", port))
        pid = upgrade.take_over()
        wait_until(lambda: not path.exists() and fails(("127.0.0.1", port)), 10,
                   "the sockets to be closed")
        assert accepts(proxy.address)
        os.kill(pid, signal.SIGKILL)
        upgrade.pids.clear()
        wait_until(lambda: "this process goes on" in proxy.log(), 10, "the predecessor")
        assert accepts(str(path)) and accepts(("127.0.0.1", port)) and accepts(proxy.address)


def test_options_of_sockets_that_changed_behind_a_successor(start_proxy, redis_server, upgrades):
    ports = [free_port() for _ in range(2)]
    proxy = start_proxy(redis_server.url())
    upgrade = upgrades(proxy)
    own = "%s:%d" % proxy.address
    with proxy.client(3) as listener:
        listener.send(encode("SUBSCRIBE", "c"))
        listener.read()
        listener.ok("CACHE", "CONFIG", "SET", "listen", f"{own} 127.0.0.1:{ports[0]}")
        pid = upgrade.take_over()
        listener.ok("CACHE", "CONFIG", "SET", "listen", f"{own} 127.0.0.1:{ports[1]}")
        listener.ok("CACHE", "CONFIG", "SET", "maxclients", "5000")
        assert fails(("127.0.0.1", ports[1]))
        os.kill(pid, signal.SIGKILL)
        upgrade.pids.clear()
        wait_until(lambda: "this process goes on" in proxy.log(), 10, "the predecessor")
        assert accepts(("127.0.0.1", ports[1])) and fails(("127.0.0.1", ports[0]))
        assert accepts(proxy.address)


def test_a_reload_of_the_former_process_does_not_make_it_the_main_one(start_proxy, redis_server,
                                                                       upgrades, tmp_path):
    told = Notifications(tmp_path / "notify")
    proxy = start_proxy(redis_server.url(), env={"NOTIFY_SOCKET": str(told.path)})
    upgrade = upgrades(proxy)
    with proxy.client() as listener:
        listener.send(encode("SUBSCRIBE", "c"))
        listener.read()
        pid = upgrade.take_over()
        proxy.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "configuration reloaded" in proxy.log(), 10, "the reload")
    assert upgrade.first_has_ended() == 0
    os.kill(pid, signal.SIGTERM)
    told.wait_for("STOPPING=1")
    assert f"MAINPID={pid}" in told.words
    assert told.words[::-1].index(f"MAINPID={pid}") < told.words[::-1].index(
        f"MAINPID={proxy.pid}")


# --- files and words that are odd -----------------------------------------------------------------

def test_options_are_set_behind_a_file_that_needs_a_restart(start_proxy, redis_server):
    """The file has other threads than are in force: the lever works all the same."""
    config = {"server": {"threads": 2}, "cache": {"max-ttl": "1m"},
              'namespace "a"': {"match": "a:*"}}
    proxy = start_proxy(redis_server.url(), config=config)
    config["server"]["threads"] = 3
    config["cache"]["max-ttl"] = "2m"
    proxy.write_config(config)
    reload(proxy)
    with proxy.client() as client:
        client.ok("CACHE", "MODE", "bypass")
        client.ok("CACHE", "CONFIG", "SET", "negative-ttl", "7s", "namespace.a.max-ttl", "3s")
        assert config_get(client, "threads", "max-ttl", "negative-ttl", "namespace.a.max-ttl") == {
            "threads": "2", "max-ttl": "2m", "negative-ttl": "7s", "namespace.a.max-ttl": "3s"}
        # Asked for, it is still refused, and nothing of what came with it is done.
        error = client.value("CACHE", "CONFIG", "SET", "max-ttl", "9s", "threads", "4")
        assert "needs a restart, in force is 2" in str(error)
        assert config_get(client, "max-ttl")["max-ttl"] == "2m"
        client.ok("CACHE", "MODE", "on")


def test_files_that_cannot_be_taken_change_nothing(start_proxy, redis_server):
    proxy = start_proxy(redis_server.url(), config={"cache": {"max-ttl": "1m"}})
    path = proxy.config_path

    def is_refused(why):
        before = proxy.metrics().get("config_reload_failures_total")
        proxy.signal(signal.SIGHUP)
        proxy.wait_metric("config_reload_failures_total", before + 1)
        assert why in proxy.log()

    with proxy.client() as client:
        path.unlink()
        is_refused("No such file")
        path.mkdir()
        is_refused("is not a file any more")
        path.rmdir()
        os.mkfifo(path)  # nobody writes: whoever opened it would wait
        is_refused("is not a file any more")
        path.unlink()
        for text in ("[cache]\nmax-ttl = 2m\n[cac", "[cache]\nmax-ttl = 2m\nnegat",
                     "\x7fELF\x01\x02", "[cache]\nmax-ttl = 2m\n" + "x" * 5000):
            path.write_text(text)
            is_refused("reload refused")
        assert config_get(client, "max-ttl")["max-ttl"] == "1m"
        client.ok("CACHE", "MODE", "bypass")
        client.ok("CACHE", "MODE", "on")
        proxy.write_config({"cache": {"max-ttl": "2m"}})
        reload(proxy)
        assert config_get(client, "max-ttl")["max-ttl"] == "2m"


def test_many_change_options_at_once(start_proxy, redis_server):
    """Each SET stands on the one before, whoever sent it; reloads in between lose no answer."""
    proxy = start_proxy(redis_server.url(), config={
        "cache": {"max-ttl": "1m"}, **{f'namespace "n{i}"': {"match": f"n{i}:*"} for i in range(4)}})
    errors = []

    def change(number):
        try:
            with proxy.client() as client:
                for step in range(40):
                    client.ok("CACHE", "CONFIG", "SET", f"namespace.n{number}.max-ttl",
                              f"{step + 1}s", f"namespace.n{number}.mode",
                              "bypass" if step % 2 else "on")
                    if number == 0:
                        for _ in range(5):
                            proxy.signal(signal.SIGHUP)
        except Exception as error:  # pylint: disable=broad-except
            errors.append(repr(error))

    with proxy.client() as client, Load(proxy.address) as load:
        threads = [threading.Thread(target=change, args=(number,)) for number in range(4)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert not errors, errors
        # A signal may still be on its way.
        before = proxy.metrics().get("config_reloads_total")
        reload(proxy)
        wait_until(lambda: proxy.metrics().get("config_reloads_total") > before, 10, "the last one")
        # What a reload does not forget.
        assert {config_get(client, f"namespace.n{i}.mode")[f"namespace.n{i}.mode"]
                for i in range(4)} == {"bypass"}
        names = [word for i in range(4) for word in (f"namespace.n{i}.max-ttl", f"{i + 5}s")]
        client.ok("CACHE", "CONFIG", "SET", *names)
        assert config_get(client, "namespace.n?.max-ttl") == dict(zip(names[::2], names[1::2]))
        load.goes_on()
    assert proxy.metrics().get("config_reload_failures_total") == 0


def test_options_are_set_while_the_proxy_is_about_to_end(start_proxy, redis_server):
    proxy = start_proxy(redis_server.url(), {"drain-delay": "30s"})
    with proxy.client() as client:
        proxy.process.terminate()
        wait_until(lambda: "no longer ready" in proxy.log(), 10, "the signal")
        client.ok("CACHE", "CONFIG", "SET", "max-ttl", "5s")
        client.ok("CACHE", "MODE", "bypass")
        assert client.ok("SET", "k", "v") == b"OK"
        proxy.process.terminate()
        assert proxy.wait_exit() == 0


def test_clients_in_the_middle_of_something(start_proxy, redis_server, upgrades):
    """A reply that is half read, a request that is half sent, a reader whom a lease holds, one with
    a cache of its own: each is served to the end, and most go then."""
    big, n_bytes = b"b" * 40_000_000, 12_000_000
    proxy = start_proxy(redis_server.url(), config={
        'namespace "l"': {"match": "l:*", "miss-lease": "1m"}})
    redis_server.ask("SET", "big", big)
    upgrade = upgrades(proxy)
    with proxy.client() as reader, proxy.client() as sender, proxy.client() as computing, \
            proxy.client() as waiting, proxy.client(3) as keeper:
        assert computing.ok("GET", "l:1") is None
        waiting.send(encode("GET", "l:1"))
        proxy.wait_metric("miss_lease_waiting", 1)
        reader.send(encode("GET", "big"))
        sender.send(b"*3\r\n$3\r\nSET\r\n$2\r\nup\r\n$%d\r\n" % n_bytes + b"u" * (n_bytes // 2))
        keeper.ok("CLIENT", "TRACKING", "ON")
        assert keeper.ok("GET", "t") is None
        upgrade.take_over()
        assert decode(reader.read()) == big
        sender.send(b"u" * (n_bytes - n_bytes // 2) + b"\r\n")
        assert sender.read() == b"+OK\r\n"
        with proxy.client() as late:
            assert late.ok("STRLEN", "up") == n_bytes
            # Who computes stays with the former process, and so do those whom its lease holds.
            late.ok("SET", "l:1", "computed")
            assert decode(waiting.read()) == b"computed"
            late.ok("SET", "t", "w")
        assert keeper.read().startswith(b">2\r\n$10\r\ninvalidate")
        assert keeper.ok("GET", "t") == b"w"
        assert computing.ok("GET", "l:1") == b"computed"
        keeper.ok("CLIENT", "TRACKING", "OFF")
        for each in (reader, sender, computing, waiting, keeper):
            assert each.ok("PING") == b"PONG"
        assert upgrade.first_has_ended() == 0  # all have gone
        for each in (reader, sender, computing, waiting, keeper):
            assert each.ok("GET", "t") == b"w"
