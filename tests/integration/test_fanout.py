"""Commands that every master of a cluster is asked: what the merged replies say. And those that go
on a connection of their own: past a busy script, and without holding up others."""

import threading
import time

import pytest

from harness.proxy import Proxy
from harness.resp import RespError, decode, encode
from harness.servers import key_slot
from harness.waiting import wait_until
from test_cluster import keys_everywhere

pytestmark = pytest.mark.needs_proxy


@pytest.fixture
def admin_proxy(_session_servers, cluster):
    proxy = _session_servers.get("fanout-proxy", lambda directory: Proxy(
        directory, cluster.url(), {"admin-commands": "on"}))
    wait_until(proxy.is_ready, 15, "the proxy to be ready")
    with proxy.client() as client:
        wait_until(lambda: client.ask("FLUSHALL") == b"+OK\r\n", 10, "FLUSHALL")
    yield proxy
    proxy.assert_healthy()


@pytest.fixture
def server_proxy(_session_servers, redis_server):
    proxy = _session_servers.get("fanout-server-proxy", lambda directory: Proxy(
        directory, redis_server.url(), {"admin-commands": "on"}))
    yield proxy
    proxy.assert_healthy()


def as_pairs(value):
    return value if isinstance(value, dict) else dict(zip(value[::2], value[1::2]))


# --- merged reports -------------------------------------------------------------------------------

@pytest.mark.parametrize("protocol", [2, 3])
def test_slowlog_is_one_list_the_newest_first(cluster, admin_proxy, protocol):
    masters = cluster.masters()
    with admin_proxy.client(protocol) as client:
        assert client.ok("SLOWLOG", "RESET") == b"OK"
        before = [master.ask("CONFIG", "GET", "slowlog-log-slower-than")[1] for master in masters]
        try:
            for master in masters:
                master.ask("CONFIG", "SET", "slowlog-log-slower-than", "0")
            for number in range(4):
                for master in masters:
                    master.ask("ECHO", f"slow{number}")
        finally:
            for master, value in zip(masters, before):
                master.ask("CONFIG", "SET", "slowlog-log-slower-than", value)
        entries = client.ok("SLOWLOG", "GET", "-1")
        echoed = [entry[3][1] for entry in entries if entry[3][0] == b"ECHO"]
        assert sorted(echoed) == sorted(b"slow%d" % number for number in range(4) for _ in masters)
        times = [entry[1] for entry in entries]
        assert times == sorted(times, reverse=True)
        assert len(client.ok("SLOWLOG", "GET", "5")) == 5
        assert len(client.ok("SLOWLOG", "GET")) == 10
        assert client.ok("SLOWLOG", "GET", "0") == []
        assert client.ok("SLOWLOG", "LEN") == sum(len(master.ask("SLOWLOG", "GET", "-1"))
                                                  for master in masters)
        assert client.ok("SLOWLOG", "RESET") == b"OK"
        assert client.ok("SLOWLOG", "LEN") == 0
        assert all(master.ask("SLOWLOG", "LEN") == 0 for master in masters)


@pytest.mark.parametrize("protocol", [2, 3])
def test_latency_events_of_all_masters(cluster, admin_proxy, protocol):
    masters = cluster.masters()
    with admin_proxy.client(protocol) as client:
        assert b"disabled in this Redis instance" in client.ok("LATENCY", "DOCTOR")
        client.ok("CONFIG", "SET", "latency-monitor-threshold", "1")
        try:
            client.ok("LATENCY", "RESET")
            for number, master in enumerate(masters):
                master.ask("DEBUG", "SLEEP", f"0.00{number + 3}")
            latest = {entry[0]: entry for entry in client.ok("LATENCY", "LATEST")}
            theirs = [entry for master in masters for entry in master.ask("LATENCY", "LATEST")
                      if entry[0] in (b"command", "command")]
            assert latest[b"command"][3] == max(entry[3] for entry in theirs)
            assert latest[b"command"][1] == max(entry[1] for entry in theirs)
            history = client.ok("LATENCY", "HISTORY", "command")
            assert len(history) == sum(len(master.ask("LATENCY", "HISTORY", "command"))
                                       for master in masters)
            assert [entry[0] for entry in history] == sorted(entry[0] for entry in history)
            graph = client.ok("LATENCY", "GRAPH", "command").decode()
            assert all(f"# 127.0.0.1:{master.port}\n" in graph for master in masters)
            doctor = client.ok("LATENCY", "DOCTOR").decode()
            assert all(f"# 127.0.0.1:{master.port}\n" in doctor for master in masters)
            # One master without samples is left out, none with samples is the server's error.
            masters[0].ask("LATENCY", "RESET")
            graph = client.ok("LATENCY", "GRAPH", "command").decode()
            assert f"# 127.0.0.1:{masters[0].port}\n" not in graph
            assert client.ok("LATENCY", "RESET", "command") == len(masters) - 1
            assert client.ask("LATENCY", "GRAPH", "command") == (
                b"-ERR No samples available for event 'command'\r\n")
        finally:
            client.ok("CONFIG", "SET", "latency-monitor-threshold", "0")


@pytest.mark.parametrize("protocol", [2, 3])
def test_histograms_and_memory_are_added_up(cluster, admin_proxy, protocol):
    keys = keys_everywhere(cluster, 3)
    masters = cluster.masters()
    with admin_proxy.client(protocol) as client:
        client.ok("CONFIG", "RESETSTAT")
        for number, key in enumerate(keys):
            for _ in range(number + 1):
                client.ok("SET", key, "v")
        total = sum(range(1, len(keys) + 1))
        theirs = [as_pairs(as_pairs(master.ask("LATENCY", "HISTOGRAM", "set"))[b"set"])
                  for master in masters]
        assert sum(each[b"calls"] for each in theirs) == total
        found = as_pairs(as_pairs(client.ok("LATENCY", "HISTOGRAM", "set"))[b"set"])
        buckets = as_pairs(found[b"histogram_usec"])
        assert found[b"calls"] == total
        assert list(buckets) == sorted(buckets)
        assert list(buckets.values()) == sorted(buckets.values())
        assert list(buckets.values())[-1] == total
        assert set(buckets) == {bucket for each in theirs
                                for bucket in as_pairs(each[b"histogram_usec"])}
        first = min(buckets)
        assert buckets[first] == sum(as_pairs(each[b"histogram_usec"]).get(first, 0)
                                     for each in theirs)
        assert as_pairs(client.ok("LATENCY", "HISTOGRAM", "nope")) == {}

        stats = as_pairs(client.ok("MEMORY", "STATS"))
        assert stats[b"keys.count"] == len(keys) == client.ok("DBSIZE")
        startup = [as_pairs(master.ask("MEMORY", "STATS"))[b"startup.allocated"]
                   for master in masters]
        assert stats[b"startup.allocated"] == sum(startup)
        assert as_pairs(stats[b"db.0"])[b"overhead.hashtable.main"] > 0
        # Redis's own figure underflows where its clients take more than its data.
        assert float(stats[b"dataset.percentage"]) > 0
        assert client.ok("MEMORY", "PURGE") == b"OK"
        assert client.ok("MEMORY", "DOCTOR")
        malloc = client.ok("MEMORY", "MALLOC-STATS").decode()
        assert all(f"# 127.0.0.1:{master.port}\n" in malloc for master in masters)


def test_saving_is_every_master_s_work(cluster, admin_proxy):
    def saves():
        return [int(master.ask("LASTSAVE")) for master in cluster.masters()]

    with admin_proxy.client() as client:
        before = saves()
        assert client.ok("LASTSAVE") == min(before)
        # A tenth more, as Redis's clock is the coarse one, some milliseconds behind.
        wait_until(lambda: time.time() >= max(before) + 1.1, 5, "the next second")
        assert client.ok("SAVE") == b"OK"
        assert min(saves()) > max(before)
        assert client.ok("LASTSAVE") == min(saves())


def test_users_are_the_same_on_every_master(cluster, admin_proxy):
    masters = cluster.masters()
    with admin_proxy.client(3) as client:
        assert client.ok("ACL", "SETUSER", "nc", "on", ">pw", "~x", "+get") == b"OK"
        try:
            assert all("nc" in [str(name, "utf8") if isinstance(name, bytes) else name
                                for name in master.ask("ACL", "USERS")] for master in masters)
            assert client.ok("ACL", "WHOAMI") == b"default"
            assert client.ok("ACL", "LOG", "RESET") == b"OK"
            for master in masters:
                with pytest.raises(Exception, match="WRONGPASS"):
                    master.ask("AUTH", "nc", "wrong")
            entries = client.ok("ACL", "LOG")
            assert [entry[b"username"] for entry in entries] == [b"nc"] * len(masters)
            ages = [float(entry[b"age-seconds"]) for entry in entries]
            assert ages == sorted(ages)
            assert len(client.ok("ACL", "LOG", "2")) == 2
        finally:
            assert client.ok("ACL", "DELUSER", "nc") == 1
        assert all(len(master.ask("ACL", "USERS")) == 1 for master in masters)


def test_debug_finds_a_key_on_any_master_and_drops_what_is_cached(cluster, admin_proxy):
    with admin_proxy.client() as client:
        for key in keys_everywhere(cluster):
            client.ok("SET", key, "v")
            assert client.ok("DEBUG", "OBJECT", key).startswith(b"Value at:")
            client.ok("GET", key)
        assert client.ask("DEBUG", "OBJECT", "missing") == b"-ERR no such key\r\n"
        flushes = admin_proxy.metrics().get("flushes_total", reason="command")
        assert client.ok("DEBUG", "SLEEP", "0") == b"OK"
        assert admin_proxy.metrics().get("flushes_total", reason="command") > flushes


def test_a_cluster_has_one_database(cluster_proxy):
    with cluster_proxy.client() as client:
        assert client.ask("SWAPDB", "0", "1") == b"-ERR SWAPDB is not allowed in cluster mode\r\n"
        client.ok("SET", "k", "v")
        assert client.ask("MOVE", "k", "1") == b"-ERR MOVE is not allowed in cluster mode\r\n"


# --- connections of their own ---------------------------------------------------------------------

def run_busy_script(proxy, key):
    """A script that ends only when it is killed; (thread, its reply when it has ended)."""
    replies = []

    def run():
        with proxy.client(timeout=30) as client:
            try:
                replies.append(client.ask("EVAL", "while true do end", "1", key))
            except (OSError, EOFError) as error:
                replies.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, replies


def is_busy(server):
    with server.client() as direct:
        return direct.ask("GET", "x").startswith(b"-BUSY")


@pytest.mark.parametrize("protocol", [2, 3])
def test_script_kill_gets_past_a_busy_script(redis_server, server_proxy, protocol):
    redis_server.ask("CONFIG", "SET", "busy-reply-threshold", "50")
    try:
        with server_proxy.client(protocol) as client:
            assert client.ask("SCRIPT", "KILL").startswith(b"-NOTBUSY")
            thread, replies = run_busy_script(server_proxy, "k")
            wait_until(lambda: is_busy(redis_server), 10, "the script to keep the server busy")
            assert client.ok("SCRIPT", "KILL") == b"OK"
            thread.join(20)
        assert b"-ERR Error running script" in replies[0] or b"killed" in replies[0]
        assert server_proxy.metrics().get("leases_total") >= 2
    finally:
        redis_server.ask("CONFIG", "SET", "busy-reply-threshold", "5000")


def test_one_killed_script_is_enough_on_a_cluster(cluster, admin_proxy):
    """The other masters answer NOTBUSY; what cannot be killed says so."""
    for master in cluster.masters():
        master.ask("CONFIG", "SET", "busy-reply-threshold", "50")
    try:
        with admin_proxy.client() as client:
            thread, replies = run_busy_script(admin_proxy, "k")
            owner = cluster.owner(key_slot("k"))

            def is_owner_busy():
                try:
                    owner.ask("GET", "k")
                except Exception as error:  # whatever the script's client raises for an error
                    return "BUSY" in str(error)
                return False
            wait_until(is_owner_busy, 10, "the script to keep its node busy")
            assert client.ok("SCRIPT", "KILL") == b"OK"
            thread.join(20)
            assert len(replies) == 1
            assert client.ask("FUNCTION", "KILL").startswith(b"-NOTBUSY")
    finally:
        for master in cluster.masters():
            master.ask("CONFIG", "SET", "busy-reply-threshold", "5000")


def test_a_long_debug_command_does_not_time_out_and_keeps_its_place(redis_server, start_proxy):
    proxy = start_proxy(redis_server.url(), {"admin-commands": "on", "request-timeout": "300ms",
                                             "breaker-latency": "5s"})
    with proxy.client() as client:
        frames = client.pipeline([("SET", "k", "1"), ("DEBUG", "SLEEP", "0.6"), ("GET", "k"),
                                  ("INCR", "k"), ("GET", "k")])
        assert [decode(frame) for frame in frames] == [b"OK", b"OK", b"1", 2, b"2"]
        # What stands behind it is not sent before it has been answered.
        frames = client.pipeline([("FLUSHALL",), ("DEBUG", "POPULATE", "50"), ("DBSIZE",),
                                  ("GET", "key:7"), ("DEL", "key:7"), ("DEBUG", "SLEEP", "0"),
                                  ("DBSIZE",)])
        assert [decode(frame) for frame in frames] == [b"OK", b"OK", 50, b"value:7", 1, b"OK", 49]


def test_what_an_administrator_leaves_behind_is_closed(redis_server, server_proxy):
    """The client goes while the server sleeps: its connection to the backend goes too."""
    before = server_proxy.metrics().get("leases_total")
    with server_proxy.client() as client:
        client.send(b"DEBUG SLEEP 0.3\r\n")
        server_proxy.wait_metric("leases_total", before + 1)
    wait_until(lambda: server_proxy.metrics().get("leased_connections", state="taken") == 0, 10,
               "the connection to be given up")
    wait_until(lambda: redis_server.ask("CLIENT", "LIST").count(b"cmd=debug") == 0, 10,
               "the connection to be closed")


def test_connections_of_administrators_are_not_used_again(redis_server, server_proxy):
    """They may be in a state that nobody else expects."""
    with server_proxy.client() as client:
        assert client.ok("DEBUG", "SLEEP", "0") == b"OK"
    wait_until(lambda: redis_server.ask("CLIENT", "LIST").count(b"cmd=debug") == 0, 10,
               "the connection to be closed")
    assert server_proxy.metrics().get("leased_connections", state="taken") == 0


def test_no_more_of_them_than_leased_connections_allows(redis_server, start_proxy):
    proxy = start_proxy(redis_server.url(), {"admin-commands": "on", "leased-connections": 5},
                        threads=1)
    clients = [proxy.client() for _ in range(8)]
    try:
        redis_server.pause()
        for client in clients:
            client.send(b"DEBUG SLEEP 0\r\n")
        proxy.wait_metric("leases_refused_total", 3)
        redis_server.resume()
        replies = [client.read() for client in clients]
        assert replies.count(b"+OK\r\n") == 5
        assert sum(b"leased-connections" in reply for reply in replies) == 3
    finally:
        redis_server.resume()
        for client in clients:
            client.close()


def test_errors_of_unreachable_backends_are_told(start_proxy):
    proxy = start_proxy("redis://127.0.0.1:1", {"admin-commands": "on"}, wait="alive")
    with proxy.client() as client:
        for command in (("SCRIPT", "KILL"), ("SAVE",), ("SLOWLOG", "GET")):
            value = client.value(*command)
            assert isinstance(value, RespError) and "nearcached" in str(value), (command, value)
        assert client.ok("PING") == b"PONG"


@pytest.mark.parametrize("kind", ["SCRIPT", "FUNCTION"])
def test_a_script_that_runs_for_ever_can_be_killed(start_proxy, start_redis, kind):
    """The links are busy with it, and the node answers BUSY: the command goes past them."""
    server = start_redis([("busy-reply-threshold", "1")])
    proxy = start_proxy(server.url(), threads=1)
    endless = "while true do end"
    with proxy.client() as victim, proxy.client() as other, proxy.client() as killer, \
            server.client() as direct:
        assert killer.ask(kind, "KILL").startswith(b"-NOTBUSY ")
        other.ok("FUNCTION", "LOAD", "#!lua name=l\n"
                 f"redis.register_function('f', function() {endless} end)")
        other.ok("SET", "k", "v")
        victim.send(encode(*(("EVAL", endless, 0) if kind == "SCRIPT" else ("FCALL", "f", 0))))
        wait_until(lambda: direct.ask("PING").startswith(b"-BUSY "), 10, "the script to run")
        other.send(encode("SET", "k", "w"))
        wrong = "FUNCTION" if kind == "SCRIPT" else "SCRIPT"
        assert killer.ask(wrong, "KILL").startswith(b"-BUSY ")
        assert killer.ok("PING") == b"PONG"  # the proxy's own: it is alive
        assert killer.ok(kind, "KILL") == b"OK"
        assert victim.read().startswith(b"-ERR Script killed by user ")
        assert other.read() == b"+OK\r\n"
        assert killer.ok("GET", "k") == b"w"
