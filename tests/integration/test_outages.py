"""Nodes that die, freeze, load and refuse: circuit breakers, deadlines, stale-if-error, retries.

Real servers, stopped and killed. What is timed is timed with room: a refusal is far from a timeout.
"""

import contextlib
import signal
import statistics
import threading
import time

import pytest

from harness.metrics import http_get
from harness.resp import RespError, encode
from harness.servers import RedisCluster, key_slot
from harness.waiting import SCALE, wait_until

TIMEOUT = 0.4 * SCALE
OPTIONS = {"request-timeout": f"{int(TIMEOUT * 1000)}ms", "connect-timeout": "300ms",
           # More than a busy machine is late by.
           "breaker-latency": f"{int(800 * SCALE)}ms",
           "max-staleness": "300ms", "flight-timeout": "200ms", "link-timeout": "2s"}


def stale(bound="60s", **others):
    return {'namespace "kept"': {"match": "kept:*", "stale-if-error": bound, **others}}


def is_error(value, part=""):
    return isinstance(value, RespError) and part in str(value)


def breaker(proxy, state):
    return proxy.metrics().get("breaker_nodes", state=state)


def wait_closed(proxy):
    wait_until(lambda: breaker(proxy, "open") + breaker(proxy, "half-open") == 0, 10,
               "the breaker to close")


def wait_open(proxy, nodes=1):
    wait_until(lambda: breaker(proxy, "open") + breaker(proxy, "half-open") >= nodes, 10,
               "the breaker to open")


def warm(client, *keys):
    for key in keys:
        client.ok("SET", key, f"value of {key}")
        client.ok("GET", key)
        assert client.ok("GET", key) == f"value of {key}".encode()


def restart(server):
    """Its port may be somebody else's for a moment: others test on this machine."""
    for _ in range(20):
        try:
            return server.start()
        except RuntimeError:
            time.sleep(0.2)
    return server.start()


def transitions(proxy):
    metrics = proxy.metrics()
    return {to: metrics.get("breaker_transitions_total", to=to)
            for to in ("open", "half-open", "closed")}


# ---- the breaker ----


def test_a_frozen_node_is_asked_no_more_until_it_proves_itself(start_redis, start_proxy):
    server = start_redis()
    proxy = start_proxy(server.url(), OPTIONS)
    with proxy.client() as client:
        client.ok("SET", "n", "0")
        server.pause()
        began = time.monotonic()
        assert is_error(client.value("INCR", "n"), "did not answer in time")
        assert TIMEOUT * 0.9 < time.monotonic() - began < 2 * TIMEOUT + 0.3 * SCALE
        wait_open(proxy)
        took = []
        for _ in range(300):
            began = time.monotonic()
            assert is_error(client.value("INCR", "n"), "no connection to the backend")
            took.append(time.monotonic() - began)
        assert statistics.median(took) < TIMEOUT / 20
        assert proxy.metrics().get("breaker_refused_total") >= 300
        info = client.ok("CACHE", "INFO").decode()
        assert "breaker=open" in info or "breaker=half-open" in info
        assert "nearcached_nodes_closed:0" in info
        # Transactions and large requests are refused as well.
        assert is_error(client.value("WATCH", "n"), "no connection to the backend")
        assert is_error(client.value("SET", "big", "x" * 2_000_000), "no connection")
        server.resume()
        wait_closed(proxy)
        wait_until(lambda: not is_error(client.value("GET", "n")), 5, "an answer")
        # Not one of those that were refused was executed, and what was in doubt at most once.
        assert int(server.ask("GET", "n")) <= 1
        seen = transitions(proxy)
        assert seen["open"] >= 1 and seen["half-open"] >= 1 and seen["closed"] == 1
        assert "the node is not asked any more" in proxy.log()
        assert "the node is asked again" in proxy.log()


def test_a_node_that_is_gone_and_comes_back(start_redis, start_proxy):
    server = start_redis()
    proxy = start_proxy(server.url(), OPTIONS)
    with proxy.client() as client:
        client.ok("SET", "k", "v")
        server.kill()
        wait_open(proxy)
        assert is_error(client.value("SET", "k", "w"), "no connection to the backend")
        restart(server)
        began = time.monotonic()
        wait_until(lambda: client.value("SET", "k", "w") == b"OK", 5, "the node to be asked again")
        assert time.monotonic() - began < 2 * SCALE
        assert transitions(proxy)["closed"] == 1


def test_where_it_is_off_each_request_is_tried(start_redis, start_proxy):
    server = start_redis()
    proxy = start_proxy(server.url(), {**OPTIONS, "breaker": "off"})
    with proxy.client() as client:
        client.ok("SET", "k", "v")
        server.pause()
        wait_open(proxy)  # it is watched all the same
        assert is_error(client.value("SET", "k", "w"))
        assert proxy.metrics().get("breaker_refused_total") == 0
        server.resume()
        wait_until(lambda: client.value("SET", "k", "x") == b"OK", 10, "an answer")


# ---- deadlines ----


def test_each_request_has_its_own_deadline(start_redis, start_relay, start_proxy):
    """One that is sent late is answered late, or in time: not with the one it stands behind."""
    server = start_redis()
    relay = start_relay(server.address)
    long = 1.0 * SCALE
    proxy = start_proxy(f"redis://127.0.0.1:{relay.address[1]}",
                        {**OPTIONS, "request-timeout": f"{int(long * 1000)}ms", "threads": 1,
                         "breaker-latency": "30s"})
    with proxy.client() as first, proxy.client() as second, proxy.client() as third:
        first.ok("SET", "a", "0")
        relay.hold("other")
        began = time.monotonic()
        first.send(encode("SET", "a", "1") + encode("INCR", "b") + encode("TTL", "c"))
        time.sleep(long * 0.5)
        late_began = time.monotonic()
        second.send(encode("SET", "d", "1"))
        third.send(encode("INCR", "e"))
        replies = [first.read() for _ in range(3)]
        assert all(b"did not answer in time" in reply for reply in replies)
        assert time.monotonic() - began >= long * 0.95
        # The link was not given up for it.
        assert proxy.metrics().get("requests_abandoned_total") >= 3
        lost = proxy.metrics().get("backend_connections_lost_total")
        relay.flow("other")
        if time.monotonic() - late_began < long * 0.9:
            assert second.read() == b"+OK\r\n"
            assert third.read() == b":1\r\n"
        assert first.ok("GET", "a") == b"1"  # late, once, and not mixed up with other replies
        assert first.ok("INCR", "b") == 2
        assert proxy.metrics().get("backend_connections_lost_total") == lost


def test_a_link_that_says_nothing_at_all_is_given_up(start_redis, start_relay, start_proxy):
    server = start_redis()
    relay = start_relay(server.address)
    proxy = start_proxy(f"redis://127.0.0.1:{relay.address[1]}",
                        {**OPTIONS, "breaker-failures": "1000"})
    with proxy.client() as client:
        client.ok("SET", "a", "0")
        relay.hold("other")
        assert is_error(client.value("SET", "a", "1"), "did not answer in time")
        wait_until(lambda: "no reply within twice request-timeout" in proxy.log(), 10, "the end")
        relay.flow("other")
        wait_until(lambda: client.value("SET", "a", "2") == b"OK", 10, "an answer")


@pytest.fixture(name="open_cluster", scope="module")
def _open_cluster(tmp_path_factory):
    cluster = RedisCluster(tmp_path_factory.mktemp("outages"), node_timeout_ms=2000,
                           options=[("cluster-require-full-coverage", "no")])
    with _stopping(cluster):
        cluster.wait_ready()
        yield cluster


@contextlib.contextmanager
def _stopping(cluster):
    try:
        yield cluster.start()
    finally:
        cluster.stop()


def keys_by_master(cluster, prefix):
    """{master: key}, one key for each."""
    found = {}
    number = 0
    while len(found) < len(cluster.masters()):
        key = f"{prefix}{number}"
        found.setdefault(cluster.owner(key_slot(key)), key)
        number += 1
    return found


def test_one_dead_shard_does_not_slow_the_others(open_cluster, start_proxy):
    proxy = start_proxy(open_cluster.url(), OPTIONS)
    keys = keys_by_master(open_cluster, "shard:")
    victim = open_cluster.masters()[0]
    stuck_key = keys.pop(victim)
    with proxy.client() as stuck, proxy.client() as client:
        stuck.ok("SET", stuck_key, "0")
        for key in keys.values():
            client.ok("SET", key, "0")
        victim.pause()
        try:
            began = time.monotonic()
            stuck.send(encode("SET", stuck_key, "1") +
                       b"".join(encode("EXISTS", key) for key in keys.values()))
            took = []
            for _ in range(100):
                for key in keys.values():
                    at = time.monotonic()
                    assert client.ok("APPEND", key, "0")
                    took.append(time.monotonic() - at)
            assert statistics.median(took) < TIMEOUT / 20
            # On the one connection they wait for the stuck one, up to its deadline, in order.
            assert b"did not answer in time" in stuck.read()
            assert all(stuck.read().startswith(b":") for _ in keys)
            assert time.monotonic() - began < 2 * TIMEOUT + 1 * SCALE
            wait_open(proxy)
            assert is_error(stuck.value("SET", stuck_key, "2"), "no connection")
            assert breaker(proxy, "closed") == 2
        finally:
            victim.resume()
        wait_closed(proxy)
        wait_until(lambda: stuck.value("SET", stuck_key, "3") == b"OK", 10, "the shard")


# ---- what is asked again ----


def test_a_write_whose_connection_is_lost_is_not_sent_again(start_redis, start_relay, start_proxy):
    server = start_redis()
    relay = start_relay(server.address)
    proxy = start_proxy(f"redis://127.0.0.1:{relay.address[1]}", {**OPTIONS, "threads": 1})
    with proxy.client() as client, proxy.client(3) as other:
        for number in range(5):
            counter = f"n{number}"
            wait_until(lambda: client.value("SET", counter, "0") == b"OK", 5, "a link")
            wait_until(lambda: other.value("SET", counter, "0") == b"OK", 5, "a link")
            relay.delay("other", to_proxy=5.0)
            client.send(encode("INCR", counter))
            other.send(encode("EVAL", "return redis.call('incr', KEYS[1])", "1", counter))
            wait_until(lambda: int(server.ask("GET", counter)) == 2, 5, "both to be executed")
            relay.cut("other")
            relay.flow("other")
            relay.delay("other")
            assert b"may have been executed" in client.read()
            assert b"may have been executed" in other.read()
            wait_until(lambda: client.value("SET", "after", "1") == b"OK", 5, "a link")
            assert int(server.ask("GET", counter)) == 2
        # Within a transaction likewise.
        client.ok("SET", "t", "0")
        relay.delay("other", to_proxy=5.0)
        client.send(encode("MULTI") + encode("INCR", "t") + encode("EXEC"))
        with contextlib.suppress(AssertionError):
            wait_until(lambda: int(server.ask("GET", "t")) == 1, 0.5, "EXEC")
        relay.cut("all")
        relay.delay("other")
        client.read(), client.read()
        assert client.read().startswith(b"-")
        wait_until(lambda: client.value("SET", "after", "1") == b"OK", 5, "a link")
        assert int(server.ask("GET", "t")) <= 1


def test_asking_again_has_a_budget(tmp_path, start_proxy):
    """A cluster that is down: what waits for it does not hammer it."""
    cluster = RedisCluster(tmp_path / "budget", node_timeout_ms=500)
    with _stopping(cluster):
        cluster.wait_ready()
        proxy = start_proxy(cluster.url(), {**OPTIONS, "request-timeout": "2s",
                                            "retry-budget": "0", "threads": 1})
        victim, survivor = cluster.masters()[:2]
        key = keys_by_master(cluster, "b:")[survivor]
        clients = [proxy.client() for _ in range(4)]
        clients[0].ok("SET", key, "0")
        victim.kill()
        wait_until(lambda: is_error(asked(survivor.ask, "SET", key, "1"), "CLUSTERDOWN"), 10,
                   "CLUSTERDOWN")
        before = proxy.metrics().get("redirects_total", kind="wait")
        began = time.monotonic()
        for client in clients:
            client.send(encode("SET", key, "1") * 200)
        for client in clients:
            for _ in range(200):
                assert client.read().startswith(b"-CLUSTERDOWN")
        elapsed = time.monotonic() - began
        n_asked = proxy.metrics().get("redirects_total", kind="wait") - before
        assert proxy.metrics().get("retries_paced_total") > 0
        # What is saved up, what is free, and the last try of each; 25600 without a budget.
        assert n_asked <= 1000 + 1000 * (elapsed + 0.1) + 2 * 800
        for client in clients:
            client.close()


def asked(ask, *args):
    """The value, or the error as a value."""
    try:
        return ask(*args)
    except Exception as error:  # the small client's own kind
        return RespError(str(error))


# ---- stale-if-error ----


def test_what_was_held_is_shown_while_the_node_is_gone(start_redis, start_proxy):
    server = start_redis()
    proxy = start_proxy(server.url(), OPTIONS, config=stale())
    with proxy.client() as client, proxy.client(3) as three:
        warm(client, "kept:a", "kept:b", "other")
        client.ok("GET", "kept:none")
        three.ok("CACHE", "ATTRIBUTES", "on")
        server.kill()
        for _ in range(50):  # from the first moment on, whatever the breaker knows
            assert client.value("GET", "kept:a") == b"value of kept:a"
            assert is_error(client.value("GET", "other"))
        wait_open(proxy)
        assert client.value("GET", "kept:a") == b"value of kept:a"
        assert client.value("GET", "kept:none") is None
        assert client.value("MGET", "kept:a", "kept:b", "kept:none") == [
            b"value of kept:a", b"value of kept:b", None]
        assert is_error(client.value("GET", "other"), "no connection to the backend")
        assert is_error(client.value("GET", "kept:never seen"))
        # Not within a transaction, nor behind a write of the key that may still be executed.
        replies = client.pipeline([["MULTI"], ["GET", "kept:a"], ["EXEC"]])
        assert replies[1].startswith((b"-", b"+QUEUED")) and replies[2].startswith(b"-")
        assert client.pipeline([["WATCH", "w"], ["GET", "kept:a"]])[0].startswith(b"-")
        client.value("UNWATCH")
        frame = three.ask("GET", "kept:b")
        assert frame.startswith(b"|1\r\n$5\r\nstale\r\n:")
        left_ms = int(frame.split(b"\r\n")[3][1:])
        assert 0 < left_ms <= 60_000
        assert frame.endswith(b"$15\r\nvalue of kept:b\r\n")
        assert client.ask("GET", "kept:b").startswith(b"$15")
        three.ok("CACHE", "ATTRIBUTES", "off")
        assert three.ask("GET", "kept:b").startswith(b"$15")
        metrics = proxy.metrics()
        assert metrics.get("stale_served_total", namespace="kept") >= 55
        assert metrics.get("stale_served_total", namespace="default") == 0
        assert "stale_served=" in client.ok("CACHE", "INFO").decode()
        # The sweep goes round, and what is kept stays accounted.
        assert metrics.get("entries", namespace="kept") >= 3
        restart(server)
        wait_until(lambda: client.value("GET", "kept:a") is None, 5, "the node's own answer")
        assert three.ask("GET", "kept:b") == b"_\r\n"
        wait_until(lambda: proxy.metrics().get("entries", namespace="kept") <= 4, 10,
                   "old entries to be swept")


def test_what_was_held_is_shown_while_the_node_is_frozen(start_redis, start_proxy):
    server = start_redis()
    proxy = start_proxy(server.url(), {**OPTIONS, "link-timeout": "1s"}, config=stale())
    with proxy.client() as client:
        warm(client, "kept:a", "other")
        server.pause()
        until = time.monotonic() + 2.2 * SCALE  # beyond link-timeout: the link is lost meanwhile
        while time.monotonic() < until:
            assert client.value("GET", "kept:a") == b"value of kept:a"
            time.sleep(0.02)
        assert is_error(client.value("GET", "other"))
        server.resume()
        wait_closed(proxy)
        wait_until(lambda: client.value("GET", "other") == b"value of other", 5, "the node")


def test_a_partition(start_redis, start_relay, start_proxy):
    """Nothing arrives on any connection, and no end of it either."""
    server = start_redis()
    relay = start_relay(server.address)
    proxy = start_proxy(f"redis://127.0.0.1:{relay.address[1]}", OPTIONS, config=stale())
    with proxy.client() as client:
        warm(client, "kept:a", "other")
        relay.swallow("all")
        assert is_error(client.value("SET", "n", "1"), "did not answer in time")
        wait_open(proxy)
        assert client.value("GET", "kept:a") == b"value of kept:a"
        wait_until(lambda: is_error(client.value("GET", "other"), "no connection"), 5, "the bound")
        assert client.value("GET", "kept:a") == b"value of kept:a"
        server.ask("SET", "kept:a", "newer")
        relay.flow("all")
        wait_closed(proxy)
        assert client.value("GET", "kept:a") == b"newer"


def test_a_read_behind_a_write_in_doubt(start_redis, start_relay, start_proxy):
    """The write is stuck, the breaker opens, the write succeeds: the read must not be older."""
    server = start_redis()
    relay = start_relay(server.address)
    proxy = start_proxy(f"redis://127.0.0.1:{relay.address[1]}",
                        {**OPTIONS, "request-timeout": f"{int(10 * SCALE)}s", "threads": 1},
                        config=stale())
    with proxy.client() as client, proxy.client() as other:
        warm(client, "kept:a")
        other.ok("GET", "kept:a")
        relay.hold("all")
        client.send(encode("SET", "kept:a", "newer"))
        wait_open(proxy)
        client.send(encode("GET", "kept:a"))
        # Nobody else is concerned by what was not acknowledged.
        assert other.value("GET", "kept:a") == b"value of kept:a"
        relay.flow("all")
        assert client.read() == b"+OK\r\n"
        assert client.read() != b"$15\r\nvalue of kept:a\r\n"
        wait_closed(proxy)
        assert other.value("GET", "kept:a") == client.value("GET", "kept:a") == b"newer"


def test_what_was_invalidated_or_written_is_not_shown(start_redis, start_proxy):
    server = start_redis()
    proxy = start_proxy(server.url(), OPTIONS, config=stale())
    with proxy.client() as client:
        warm(client, "kept:a", "kept:b", "kept:c", "kept:d")
        server.ask("SET", "kept:a", "newer")
        wait_until(lambda: client.ok("CACHE", "GET", "kept:a")[-1] == [], 5, "the message")
        server.pause()
        assert is_error(client.value("SET", "kept:b", "newer"))  # perhaps executed
        server.kill()
        wait_open(proxy)
        assert is_error(client.value("GET", "kept:a"))
        assert is_error(client.value("GET", "kept:b"))
        assert client.value("GET", "kept:c") == b"value of kept:c"
        client.ok("CACHE", "INVALIDATE", "kept:c")
        assert is_error(client.value("GET", "kept:c"))
        client.ok("CACHE", "CLEAR", "kept")
        assert is_error(client.value("GET", "kept:d"))


def test_a_deadline_passes_by_no_more_than_the_bound(start_redis, start_proxy):
    server = start_redis()
    bound = 2 * SCALE
    proxy = start_proxy(server.url(), OPTIONS, config=stale(f"{int(bound * 1000)}ms"))
    with proxy.client() as client:
        client.ok("SET", "kept:a", "v", "PX", str(int(500 * SCALE)))
        client.ok("GET", "kept:a")
        began = time.monotonic()
        server.kill()
        time.sleep(0.7 * SCALE)
        assert client.value("GET", "kept:a") == b"v"
        wait_until(lambda: is_error(client.value("GET", "kept:a")), 3 * bound, "the bound")
        assert bound - 0.7 * SCALE <= time.monotonic() - began <= bound + 1 * SCALE


def test_a_server_that_is_loading(start_redis, start_proxy):
    server = start_redis([("key-load-delay", "5000"), ("rdbcompression", "no"),
                          ("loading-process-events-interval-bytes", "1024")])
    proxy = start_proxy(server.url(), OPTIONS, config=stale())
    seen, wrong, is_over = set(), [], threading.Event()

    def read():
        with proxy.client() as client:
            while not is_over.is_set():
                kept, other = client.value("GET", "kept:a"), client.value("GET", "other")
                seen.add(str(other).split(" ", 1)[0])
                if kept != b"value of kept:a":
                    wrong.append(kept)
                time.sleep(0.005)

    with proxy.client() as client:
        server.ask("DEBUG", "POPULATE", "600", "filler", "100")
        warm(client, "kept:a", "other")
        server.ask("SAVE")
        reader = threading.Thread(target=read)
        reader.start()
        server.kill()
        restart(server)
        wait_until(lambda: "LOADING" in seen, 20, "an answer of the server that loads")
        wait_until(lambda: client.value("GET", "other") == b"value of other", 20, "the data")
        is_over.set()
        reader.join()
    assert wrong == []
    assert proxy.metrics().get("stale_served_total", namespace="kept") > 0


def test_a_cluster_that_is_down(tmp_path, start_proxy):
    cluster = RedisCluster(tmp_path / "down", node_timeout_ms=500)
    with _stopping(cluster):
        cluster.wait_ready()
        proxy = start_proxy(cluster.url(), OPTIONS, config=stale())
        victim, survivor = cluster.masters()[:2]
        keys, others = keys_by_master(cluster, "kept:"), keys_by_master(cluster, "other:")
        with proxy.client() as client:
            warm(client, *keys.values(), *others.values())
            victim.kill()
            down = wait_until(lambda: is_error(asked(survivor.ask, "GET", keys[survivor]),
                                               "CLUSTERDOWN"), 10, "CLUSTERDOWN")
            assert down
            wait_until(lambda: is_error(client.value("GET", others[survivor]), "CLUSTERDOWN"), 10,
                       "CLUSTERDOWN here")
            for key in keys.values():
                assert client.value("GET", key) == f"value of {key}".encode()
            survivor.disconnect()
            victim.start()
            wait_until(lambda: client.value("GET", others[survivor]) is not None and
                       not is_error(client.value("GET", others[survivor])), 20, "the cluster")
            # Written elsewhere and not heard of before: nothing old is shown any more.
            cluster.wait_ready()
            cluster.client().ok("SET", keys[survivor], "newer")
            wait_until(lambda: client.value("GET", keys[survivor]) == b"newer", 5, "the write")


def test_nothing_old_is_shown_after_the_return(start_redis, start_proxy):
    """Four connections, two workers: the first new value that anybody sees ends the old ones."""
    server = start_redis()
    proxy = start_proxy(server.url(), OPTIONS, config=stale())
    clients = [proxy.client() for _ in range(4)]
    keys = [f"kept:{number}" for number in range(16)]
    for round_number in range(2):
        for key in keys:
            clients[0].ok("SET", key, f"old {round_number}")
            for client in clients:
                client.ok("GET", key)
        server.kill()
        wait_open(proxy)
        assert all(client.value("GET", key) == f"old {round_number}".encode()
                   for client in clients for key in keys)
        restart(server)
        for key in keys:
            server.ask("SET", key, "new")
        is_back = False
        until = time.monotonic() + 3 * SCALE
        n_new = 0
        while n_new < 2000 and time.monotonic() < until:
            for key in keys:
                for client in clients:
                    value = client.value("GET", key)
                    if value == b"new":
                        is_back = True
                        n_new += 1
                    elif is_back:
                        raise AssertionError(f"{value} after the return, round {round_number}")
                    else:
                        assert value == f"old {round_number}".encode()
        assert is_back
    for client in clients:
        client.close()


def test_cached_keys_have_no_errors_under_load(start_redis, start_proxy):
    """The outage of the issue, shortened: readers from before it to after it."""
    server = start_redis()
    proxy = start_proxy(server.url(), OPTIONS, config=stale())
    keys = [f"kept:{number}" for number in range(50)]
    with proxy.client() as client:
        warm(client, *keys)
    failures, is_over, counts = [], threading.Event(), []

    def read(offset):
        with proxy.client() as client:
            n = 0
            while not is_over.is_set():
                value = client.value("GET", keys[(n + offset) % len(keys)])
                n += 1
                if isinstance(value, RespError):
                    failures.append(str(value))
            counts.append(n)

    readers = [threading.Thread(target=read, args=(13 * number,)) for number in range(4)]
    for reader in readers:
        reader.start()
    time.sleep(0.3)
    server.pause()
    time.sleep(1.5)
    server.resume()
    wait_closed(proxy)
    time.sleep(0.3)
    server.kill()
    time.sleep(1.0)
    restart(server)
    for key in keys:
        server.ask("SET", key, "again")
    wait_closed(proxy)
    time.sleep(0.3)
    is_over.set()
    for reader in readers:
        reader.join()
    assert failures == []
    assert min(counts) > 100


def test_tier_1_alone_is_told(start_redis, start_proxy):
    server = start_redis()
    proxy = start_proxy(server.url(), {**OPTIONS, "topology-interval": "200ms"}, config=stale())
    alone = start_proxy(server.url(), {**OPTIONS, "topology-interval": "200ms",
                                       "ready-without-backend": "on"}, config=stale())
    alone.wait_metric("ready", 1)  # /readyz does not wait for the backend
    with alone.client() as client:
        warm(client, "kept:a")
        server.kill()
        for each in (proxy, alone):
            each.wait_metric("backend_away", 1)
        assert http_get(proxy.admin_address, "/readyz")[0] == 503
        status, body = http_get(alone.admin_address, "/readyz")[:2]
        assert status == 200 and "backend unreachable" in str(body)
        assert proxy.metrics().get("ready") == 0
        assert alone.metrics().get("ready") == 1
        assert "nearcached_backend_away:1" in client.ok("CACHE", "INFO").decode()
        assert client.value("GET", "kept:a") == b"value of kept:a"
        restart(server)
        wait_until(lambda: alone.metrics().get("backend_away") == 0, 10, "the backend")
        wait_until(lambda: "the backend is back" in alone.log(), 5, "the log")
        assert alone.log().count("the backend is away, tier 1 answers alone") == 1


def test_a_reload_changes_it(start_redis, start_proxy):
    server = start_redis()
    proxy = start_proxy(server.url(), OPTIONS, config=stale())
    with proxy.client() as client:
        warm(client, "kept:a")
        server.kill()
        wait_open(proxy)
        assert client.value("GET", "kept:a") == b"value of kept:a"
        proxy.write_config(stale("0"))
        proxy.signal(signal.SIGHUP)
        wait_until(lambda: is_error(client.value("GET", "kept:a")), 5, "the reload")
        assert not proxy.metrics().get("stale_served_total", namespace="kept") == 0


def test_connections_that_are_cut_open_nothing(start_redis, start_proxy):
    """CLIENT KILL ends all at once; the node takes new ones the next moment."""
    server = start_redis()
    proxy = start_proxy(server.url(), OPTIONS)
    with proxy.client() as client, proxy.client(3) as other:
        for _ in range(5):
            wait_until(lambda: client.value("SET", "a", "1") == b"OK", 5, "a link")
            wait_until(lambda: other.value("SET", "a", "1") == b"OK", 5, "a link")
            server.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        wait_until(lambda: client.value("SET", "a", "1") == b"OK", 5, "a link")
    assert transitions(proxy)["open"] == 0
