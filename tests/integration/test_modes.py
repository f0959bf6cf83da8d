"""Coherence modes besides tracking: broadcast, keyspace notifications, what auto comes to, modes of
namespaces, and changes of mode by a reload.

Proves (docs/coherence.md, "Modes"): the invariants hold in them under the same faults as in
test_consistency.py, each within its own bound; one link per node hears of writes, and of no more
keys than are kept; what a mode cannot offer is refused.
"""

import signal
import socket
import threading
import time

import pytest

from harness import consistency
from harness.consistency import Workload
from harness.resp import RawClient, RespError, encode
from harness.servers import key_slot
from harness.waiting import wait_until

from test_consistency import (CLUSTER_OPS, CLUSTER_OPTIONS, MAX_STALENESS, OPTIONS, PATIENT,
                              assert_all_slots_served, assert_hits_again, cluster_workload, every,
                              run)

pytestmark = pytest.mark.needs_proxy

MODES = ("broadcast", "keyspace")
SECONDS = 1.0


@pytest.fixture
def in_front(start_proxy, start_redis, start_relay):
    """(proxy, server, relay): in this mode, when the node tells of writes."""
    def start(mode, options=None, has_relay=False, config=None):
        server = start_redis()
        server.ask("CONFIG", "SET", "notify-keyspace-events", "KA")
        relay = start_relay(server.address) if has_relay else None
        port = relay.address[1] if has_relay else server.port
        proxy = start_proxy(f"redis://127.0.0.1:{port}",
                            {**OPTIONS, "coherence": mode, "keyspace-poll": "200ms",
                             **(options or {})}, config=config)
        if mode in MODES:
            proxy.wait_metric("coherence_nodes", 1, mode=mode)
        return proxy, server, relay
    return start


def workload(proxy, server, **keywords):
    return Workload(proxy.address, server.client, bound=MAX_STALENESS, **keywords)


def hit(proxy, *request):
    """The reply once it comes from memory."""
    def answered():
        before = proxy.metrics().get("hits_total")
        with proxy.client() as client:
            client.ask(*request)
            reply = client.ask(*request)
        return reply if proxy.metrics().get("hits_total") > before else None
    return wait_until(answered, 10, "a hit")


# --- the scenarios of test_consistency.py ---------------------------------------------------------

@pytest.mark.parametrize("mode", MODES)
def test_plain(in_front, mode):
    proxy, server, _ = in_front(mode)
    run(proxy, workload(proxy, server, ops=consistency.SIMPLE + consistency.REMOVING
                        + consistency.EXPIRING), SECONDS, least_share=0.1)
    assert proxy.metrics().get("coherence_links", mode=mode) == 2


@pytest.mark.parametrize("mode", MODES)
def test_what_is_heard_comes_20_ms_late(in_front, mode):
    """Long after the replies: only the proxy's own drop can be in time."""
    proxy, server, relay = in_front(mode, has_relay=True)
    relay.delay("tracking", to_proxy=0.02)
    run(proxy, workload(proxy, server), SECONDS, least_share=0.05)


@pytest.mark.parametrize("mode", MODES)
def test_fetches_come_20_ms_late(in_front, mode):
    """What is heard overtakes the reply that shows the value of before."""
    proxy, server, relay = in_front(mode, has_relay=True)
    relay.delay("other", to_proxy=0.02)
    run(proxy, workload(proxy, server), SECONDS, least_share=0.02)


@pytest.mark.parametrize("mode", MODES)
def test_scripts_with_undeclared_keys_while_what_is_heard_comes_late(in_front, mode):
    proxy, server, relay = in_front(mode, has_relay=True)
    relay.delay("tracking", to_proxy=0.02)
    run(proxy, workload(proxy, server, ops=consistency.SCRIPTED, n_proxy_writers=3), SECONDS,
        least_share=0.02)
    assert proxy.metrics().get("fences_total") > 0


@pytest.mark.parametrize("mode", MODES)
def test_links_killed_again_and_again(in_front, mode):
    proxy, server, relay = in_front(
        mode, {"reconnect-min": "10ms", "reconnect-max": "50ms"}, has_relay=True)
    kinds = ["tracking", "tracking", "all"]

    def cut():
        relay.cut(kinds[0])
        kinds.append(kinds.pop(0))

    run(proxy, workload(proxy, server, are_errors_allowed=True), SECONDS + 1,
        lambda until: every(0.25, until, cut), least_share=0.02)
    assert_hits_again(proxy)


@pytest.mark.parametrize("mode", MODES)
def test_the_link_that_hears_is_half_open(in_front, mode):
    proxy, server, relay = in_front(
        mode, {"link-timeout": "1500ms", "reconnect-max": "200ms"}, has_relay=True)

    def faults(until):
        relay.hold("tracking")
        time.sleep(0.8)
        relay.flow("tracking")
        time.sleep(0.3)
        relay.swallow("tracking")
        time.sleep(0.8)
        relay.flow("tracking")

    run(proxy, workload(proxy, server, are_errors_allowed=True, n_direct_writers=2), SECONDS + 1.5,
        faults, least_share=0.02)
    assert_hits_again(proxy)


@pytest.mark.parametrize("mode", MODES)
def test_backend_stopped(in_front, mode):
    proxy, server, _ = in_front(mode, PATIENT)

    def faults(until):
        for seconds in (0.2, 0.9):
            server.pause()
            time.sleep(seconds)
            server.resume()
            time.sleep(0.2)

    run(proxy, workload(proxy, server, are_errors_allowed=True), SECONDS + 0.5, faults,
        least_share=0.02)
    assert_hits_again(proxy)


# --- broadcast ------------------------------------------------------------------------------------

def test_a_pong_overtakes_the_message_of_a_script(in_front):
    """Its reply waits for two of them, so that nobody is shown what was before."""
    proxy, _, relay = in_front("broadcast", has_relay=True)
    relay.overtake()
    with proxy.client() as reader, proxy.client() as writer:
        for number in range(20):
            writer.ok("EVAL", f"return redis.call('SET', 'k', {number})", 0)
            assert reader.ok("GET", "k") == str(number).encode()
            proxy.wait_metric("invalidation_messages_total", number + 1)
            hit(proxy, "GET", "k")


def test_every_pong_overtakes(in_front):
    proxy, server, relay = in_front("broadcast", has_relay=True)
    relay.overtake()
    run(proxy, workload(proxy, server, ops=consistency.SIMPLE + consistency.SCRIPTED), SECONDS,
        least_share=0.02)
    assert_hits_again(proxy)


def test_the_longest_pause_between_proofs_is_no_gap(in_front):
    """A proof takes two PINGs; still it is as young as in tracking."""
    proxy, server, _ = in_front("broadcast", {"fence-interval": "900ms", "max-staleness": "1500ms"})
    server.ask("SET", "k", "v")
    hit(proxy, "GET", "k")
    misses = proxy.metrics().get("misses_total")
    until = time.monotonic() + 3
    with proxy.client() as client:
        while time.monotonic() < until:
            assert client.ok("GET", "k") == b"v"
            time.sleep(0.01)
    assert proxy.metrics().get("misses_total") == misses


NAMESPACES = {'namespace "default"': {"cache": "off"}, 'namespace "user"': {"match": "user:*"},
              'namespace "one"': {"match": "user:1:*"}, 'namespace "item"': {"match": "item:?"}}


def test_one_link_per_node_hears_of_the_keys_that_are_kept(in_front):
    proxy, server, _ = in_front("broadcast", config=NAMESPACES)
    listing = server.ask("CLIENT", "LIST").decode()
    assert listing.count("flags=tB") == 1 and listing.count("flags=t ") == 0
    with proxy.client() as client:
        hit(proxy, "GET", "user:1:a")
        hit(proxy, "GET", "item:a")
        before = proxy.metrics().get("invalidation_messages_total")
        server.ask("SET", "other", 1)
        server.ask("SET", "user:1:a", 2)
        proxy.wait_metric("invalidation_messages_total", before + 1)
        assert client.ok("GET", "user:1:a") == b"2"
        assert client.ok("GET", "other") == b"1"
        assert proxy.metrics().get("invalidation_messages_total") == before + 1


def test_a_flush_around_the_proxy_is_heard_of(in_front):
    proxy, server, _ = in_front("broadcast")
    server.ask("SET", "k", "v")
    assert hit(proxy, "GET", "k") == b"$1\r\nv\r\n"
    server.ask("FLUSHALL")
    with proxy.client() as client:
        wait_until(lambda: client.ask("GET", "k") == b"$-1\r\n", 5, "the flush")
    assert proxy.metrics().get("flushes_total", reason="null-message") == 1


def test_broadcast_refused_keeps_nothing(in_front):
    """As with coherence = tracking: nothing is served that nothing keeps coherent."""
    proxy, server, _ = in_front("broadcast")
    server.ask("ACL", "SETUSER", "default", "-client|tracking")
    server.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    wait_until(lambda: proxy.metrics().get("coherence_nodes", mode="broadcast") == 0, 10,
               "the refusal")
    hits = proxy.metrics().get("hits_total")
    with proxy.client() as client:
        for _ in range(20):
            wait_until(lambda: client.ask("GET", "k") == b"$-1\r\n", 5, "an answer")
    assert proxy.metrics().get("hits_total") == hits
    server.ask("ACL", "SETUSER", "default", "+client|tracking")
    assert hit(proxy, "GET", "k") == b"$-1\r\n"


@pytest.mark.parametrize("mode", MODES)
def test_all_users_and_databases_are_heard_of(in_front, mode):
    proxy, server, _ = in_front(mode)
    server.ask("ACL", "SETUSER", "alice", "on", ">secret", "~*", "&*", "+@all")
    with RawClient(proxy.address, user="alice", password="secret") as alice, \
            proxy.client() as other, server.client() as around:
        for client in (other, around):
            client.ok("SELECT", 3)
        for value in ("1", "2"):
            for client in (alice, other):
                client.ok("SET", "k", value)
                hits = proxy.metrics().get("hits_total")
                wait_until(lambda: client.ok("GET", "k") and  # pylint: disable=cell-var-from-loop
                           proxy.metrics().get("hits_total") > hits, 10, "a hit")
            around.ok("SET", "k", "around")
            wait_until(lambda: other.ok("GET", "k") == b"around", 5, "the new value")
            server.ask("SET", "k", "around")
            wait_until(lambda: alice.ok("GET", "k") == b"around", 5, "the new value")


@pytest.mark.parametrize("mode", MODES)
def test_clients_with_a_cache_of_their_own_are_refused(in_front, mode):
    proxy, _, _ = in_front(mode)
    with proxy.client(3) as client:
        client.send(encode("CLIENT", "TRACKING", "ON"))
        assert client.read().startswith(b"-ERR")


# --- keyspace -------------------------------------------------------------------------------------

@pytest.mark.parametrize("command", [("FLUSHALL",), ("FLUSHDB",), ("SWAPDB", "0", "1")],
                         ids=lambda command: command[0])
def test_what_notifications_do_not_tell_is_asked_for(in_front, command):
    proxy, server, _ = in_front("keyspace")
    server.ask("SET", "k", "v")
    assert hit(proxy, "GET", "k") == b"$1\r\nv\r\n"
    server.ask(*command)
    with proxy.client() as client:
        wait_until(lambda: client.ask("GET", "k") == b"$-1\r\n", 5, "the flush to be noticed")
    proxy.wait_metric("flushes_total", 1, reason="poll")  # a late poll: the backend was asked before


def test_keyspace_mode_ends_where_notifications_do(in_front):
    proxy, server, _ = in_front("keyspace")
    server.ask("SET", "k", "v")
    hit(proxy, "GET", "k")
    server.ask("CONFIG", "SET", "notify-keyspace-events", "KEx")
    wait_until(lambda: proxy.metrics().get("coherence_nodes", mode="keyspace") == 0, 10, "the end")
    server.ask("SET", "k", "w")
    with proxy.client() as client:
        assert client.ok("GET", "k") == b"w"
    server.ask("CONFIG", "SET", "notify-keyspace-events", "AK")
    assert hit(proxy, "GET", "k") == b"$1\r\nw\r\n"


def test_a_poll_that_is_answered_late_vouches_for_no_lost_link(in_front):
    """The polls and what is subscribed to travel on two connections."""
    proxy, server, relay = in_front("keyspace", has_relay=True)
    with proxy.client() as client:
        client.ok("EVAL", "return 1", 0)
        relay.hold("other")
        time.sleep(0.5)  # a poll is under way now, at the latest
        relay.refuse()
        relay.cut("tracking")
        proxy.wait_metric("coherence_nodes", 0, mode="keyspace")
        polls = server.info("commandstats")["cmdstat_config|get"]
        relay.flow("other")
        wait_until(lambda: server.info("commandstats")["cmdstat_config|get"] != polls, 5,
                   "the poll to arrive")
        # The fence does not wait for a link that is not there.
        assert client.ok("EVAL", "return 1", 0) == 1
        assert proxy.metrics().get("coherence_nodes", mode="keyspace") == 0
        relay.refuse(False)
        hit(proxy, "GET", "k")


def test_fences_end_with_keyspace_mode(in_front):
    """Nothing is left that they could prove."""
    proxy, server, relay = in_front("keyspace", {"max-staleness": "10s", "link-timeout": "10s"},
                                    has_relay=True)
    with proxy.client() as first, proxy.client() as second:
        relay.hold("tracking")
        time.sleep(0.1)  # a PING is under way
        first.send(encode("EVAL", "return 1", 0))
        second.send(encode("EVAL", "return 2", 0))
        wait_until(lambda: proxy.metrics().get("fences_total") == 2, 5, "both fences")
        server.ask("CONFIG", "SET", "notify-keyspace-events", "")
        assert first.read() == b":1\r\n" and second.read() == b":2\r\n"


def test_a_refused_subscription_is_tried_again(in_front):
    proxy, server, _ = in_front("keyspace")
    server.ask("ACL", "SETUSER", "default", "resetchannels")
    server.ask("CLIENT", "KILL", "TYPE", "pubsub")
    wait_until(lambda: proxy.metrics().get("coherence_nodes", mode="keyspace") == 0, 10,
               "the refusal")
    wait_until(lambda: "does not tell of writes" in proxy.log(), 10, "the reason")
    server.ask("ACL", "SETUSER", "default", "allchannels")
    assert hit(proxy, "GET", "k") == b"$-1\r\n"


def test_a_flush_is_not_shown_beyond_the_bound_when_polls_are_not_answered(in_front):
    proxy, server, relay = in_front("keyspace", {
        "keyspace-poll": "1s", "max-staleness": "300ms", "link-timeout": "20s"}, has_relay=True)
    server.ask("SET", "k", "v")
    hit(proxy, "GET", "k")
    bound = proxy.metrics().get("staleness_bound_seconds")
    assert bound == 1.3
    relay.hold("other")
    flushed = shown = time.monotonic()
    server.ask("FLUSHALL")
    with proxy.client(timeout=1) as client:
        try:
            while time.monotonic() < flushed + 5:
                assert client.ok("GET", "k") == b"v"
                shown = time.monotonic()
        except (TimeoutError, RespError):
            pass  # it is asked of the backend, and waits
    assert shown < flushed + bound + 0.5
    relay.flow("other")


def test_entries_of_keyspace_mode_live_for_its_limit(in_front):
    proxy, server, _ = in_front("keyspace", {"keyspace-mode-max": "300ms"})
    server.ask("SET", "k", "v")
    hit(proxy, "GET", "k")
    misses = proxy.metrics().get("misses_total")
    with proxy.client() as client:
        wait_until(lambda: client.ok("GET", "k") == b"v"
                   and proxy.metrics().get("misses_total") > misses, 5, "the entry to end")


def test_patterns_take_names_literally(in_front):
    """Names with the bytes that patterns give a meaning."""
    proxy, server, _ = in_front("keyspace", config={
        'namespace "default"': {"cache": "off"}, 'namespace "odd"': {"match": r"a\*b\[^c:*"}})
    for name in ("a*b[^c:1", "a*b[^c:*]"):
        server.ask("SET", name, "v")
        assert hit(proxy, "GET", name) == b"$1\r\nv\r\n"
        server.ask("SET", name, "w")
        with proxy.client() as client:
            wait_until(lambda: client.ok("GET", name) == b"w", 5, "the new value")


# --- what auto comes to, and namespaces -----------------------------------------------------------

def test_auto_goes_down_to_what_the_node_offers_and_up_again(in_front):
    proxy, server, _ = in_front("auto", {"reconnect-max": "100ms", "bus": "off"})

    def comes_to(mode):
        wait_until(lambda: proxy.metrics().get("coherence_links", mode=mode) == 2, 10, mode)
        server.ask("SET", "k", mode)
        wait_until(lambda: hit(proxy, "GET", "k") == b"$%d\r\n%s\r\n" % (
            len(mode), mode.encode()), 5, "the new value")
        with proxy.client() as client:
            assert f"nearcached_coherence:{mode}\r\n".encode() in client.ok("INFO", "nearcached")

    comes_to("tracking")
    server.ask("ACL", "SETUSER", "default", "-client|tracking")
    server.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    comes_to("keyspace")
    server.ask("CONFIG", "SET", "notify-keyspace-events", "")
    comes_to("ttl")
    server.ask("CONFIG", "SET", "notify-keyspace-events", "KA")
    comes_to("keyspace")
    server.ask("ACL", "SETUSER", "default", "+client|tracking")
    comes_to("tracking")
    assert proxy.metrics().get("coherence_mode_changes_total") > 0


def test_auto_comes_to_notifications_where_there_is_no_resp3(tmp_path, start_proxy, start_redis):
    (tmp_path / "no-hello.conf").write_text('rename-command HELLO ""\n')
    server = start_redis([("include", tmp_path / "no-hello.conf")])
    server.ask("CONFIG", "SET", "notify-keyspace-events", "KA")
    proxy = start_proxy(server.url(), {"keyspace-poll": "200ms"})
    wait_until(lambda: proxy.metrics().get("coherence_links", mode="keyspace") == 2, 10, "keyspace")
    server.ask("SET", "k", "v")
    assert hit(proxy, "GET", "k") == b"$1\r\nv\r\n"
    server.ask("SET", "k", "w")
    with proxy.client() as client:
        wait_until(lambda: client.ok("GET", "k") == b"w", 5, "the new value")


class DeafRelay:
    """Between proxy and backend: CLIENT TRACKING is answered OK, and nothing is ever told.

    It makes CLIENT NO-EVICT of it, which is as long.
    """

    def __init__(self, target):
        self.target = target
        self.is_deaf = True
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                near = self.listener.accept()[0]
            except OSError:
                return
            far = socket.create_connection(self.target)
            for source, sink, is_request in ((near, far, True), (far, near, False)):
                threading.Thread(target=self._pump, args=(source, sink, is_request),
                                 daemon=True).start()

    def _pump(self, source, sink, is_request):
        try:
            while data := source.recv(65536):
                if is_request and self.is_deaf:
                    data = data.replace(b"TRACKING", b"NO-EVICT")
                sink.sendall(data)
        except OSError:
            pass
        for each in (source, sink):
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self):
        self.listener.close()


@pytest.mark.parametrize("flags, mode", [("KA", "keyspace"), ("", "ttl")])
def test_tracking_that_is_accepted_and_tells_nothing_is_found_out(start_proxy, start_redis, flags,
                                                                  mode):
    server = start_redis()
    server.ask("CONFIG", "SET", "notify-keyspace-events", flags)
    relay = DeafRelay(server.address)
    try:
        proxy = start_proxy(f"redis://127.0.0.1:{relay.port}",
                            {"coherence-probe": "on", "bus": "off"})
        wait_until(lambda: proxy.metrics().get("coherence_links", mode=mode) == 2, 10, mode)
        assert proxy.metrics().get("coherence_probe_failures_total") >= 2
        server.ask("SET", "k", "v")
        hit(proxy, "GET", "k")
        server.ask("SET", "k", "w")
        with proxy.client() as client:
            wait_until(lambda: client.ok("GET", "k") == b"w", 5, "the new value")
        assert server.ask("KEYS", "nearcached:*") == []
        relay.is_deaf = False
        server.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        wait_until(lambda: proxy.metrics().get("coherence_links", mode="tracking") == 2, 10,
                   "tracking")
    finally:
        relay.close()


def test_a_probe_is_told_of_and_leaves_nothing(start_proxy, start_redis):
    server = start_redis()
    proxy = start_proxy(server.url(), {"coherence-probe": "on", "coherence": "tracking",
                                       "coherence-probe-prefix": "mine:"})
    wait_until(lambda: proxy.metrics().get("coherence_links", mode="tracking") == 2, 10, "tracking")
    assert b"cmdstat_set:calls=2" in server.ask("INFO", "commandstats")
    wait_until(lambda: server.ask("DBSIZE") == 0, 2, "the keys to be removed")
    hit(proxy, "GET", "k")
    # Where nothing may be written, acceptance has to do.
    server.ask("ACL", "SETUSER", "default", "-set")
    server.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    hit(proxy, "GET", "k")
    assert proxy.metrics().get("coherence_probe_failures_total") == 0


def test_each_node_of_a_cluster_is_probed(start_proxy, cluster):
    proxy = start_proxy(cluster.url(), {"coherence-probe": "on"})
    wait_until(lambda: proxy.metrics().get("coherence_links", mode="tracking") == 6, 10, "tracking")
    assert proxy.metrics().get("coherence_probe_failures_total") == 0


@pytest.mark.parametrize("mode", MODES)
def test_a_cluster(start_proxy, cluster, mode):
    """Each node has a link that hears; slots that move and a failover are no gap."""
    for node in cluster.nodes:
        node.ask("CONFIG", "SET", "notify-keyspace-events", "KA")
    proxy = start_proxy(cluster.url(), {**CLUSTER_OPTIONS, "coherence": mode})
    proxy.wait_metric("coherence_nodes", 3, mode=mode)

    def faults(until):
        slot = key_slot(load.keys[0].name)
        owner = cluster.owner(slot)
        cluster.move_slot(slot, next(node for node in cluster.masters() if node is not owner))
        for node in cluster.masters():
            node.ask("CLIENT", "KILL", "TYPE", "pubsub" if mode == "keyspace" else "normal",
                     "SKIPME", "yes")
        heir = cluster.replicas_of(cluster.owner(slot))[0]
        heir.ask("CLUSTER", "FAILOVER")
        wait_until(lambda: heir in cluster.masters(), 20, "the failover")

    load = cluster_workload(proxy, cluster, are_errors_allowed=True, ops=tuple(
        op for op in CLUSTER_OPS if op.name not in ("RENAME", "COPY")))
    run(proxy, load, SECONDS + 1.5, faults, least_share=0.02, settle=1.0)
    assert_all_slots_served(proxy, cluster)
    proxy.wait_metric("coherence_nodes", 3, mode=mode)


MIXED = {"coherence": {"coherence": "tracking", "ttl-mode-max": "300ms"},
         'namespace "told"': {"match": "told:*", "coherence": "broadcast"},
         'namespace "old"': {"match": "old:*", "coherence": "ttl"}}


def test_namespaces_have_modes_of_their_own(start_proxy, start_redis):
    server = start_redis()
    proxy = start_proxy(server.url(), config=MIXED)
    proxy.wait_metric("coherence_nodes", 1, mode="broadcast")
    for key in ("told:1", "old:1", "1"):
        server.ask("SET", key, "v")
        assert hit(proxy, "GET", key) == b"$1\r\nv\r\n"
        server.ask("SET", key, "w")
        with proxy.client() as client:
            wait_until(lambda: client.ok("GET", key) == b"w", 5, "the new value")
    with proxy.client() as client:
        assert b"nearcached_coherence:mixed\r\n" in client.ok("INFO", "nearcached")


def test_a_mode_that_no_namespace_has_is_none(start_proxy, start_redis):
    """Nothing is kept as the rest of the configuration says: nothing is said of it either."""
    proxy = start_proxy(start_redis().url(), config={
        'namespace "default"': {"cache": "off"},
        'namespace "told"': {"match": "told:*", "coherence": "broadcast"}})
    proxy.wait_metric("coherence_nodes", 1, mode="broadcast")
    hit(proxy, "GET", "told:1")
    found = proxy.metrics()
    assert found.get("coherence_links", mode="broadcast") == 2
    assert found.get("coherence_links", mode="ttl") == 0
    with proxy.client() as client:
        assert b"nearcached_coherence:broadcast\r\n" in client.ok("INFO", "nearcached")
    assert "refuses tracking" not in proxy.log()


def test_clients_keep_what_the_proxy_does_not(start_proxy, start_redis):
    """Nothing is cached here, and tracking is not asked for by any namespace."""
    server = start_redis()
    proxy = start_proxy(server.url(), config={'namespace "default"': {"cache": "off"}})
    with proxy.client(3) as client:
        wait_until(lambda: client.ask("CLIENT", "TRACKING", "ON") == b"+OK\r\n", 5, "tracking")
        client.ok("GET", "k")
        server.ask("SET", "k", "v")
        assert client.read() == b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n"


def test_the_bound_of_a_namespace_in_auto_follows_what_it_comes_to(start_proxy, start_redis):
    server = start_redis()
    server.ask("ACL", "SETUSER", "default", "-client|tracking")
    proxy = start_proxy(server.url(), config={
        "coherence": {"coherence": "ttl", "ttl-mode-max": "300ms", "keyspace-poll": "200ms"},
        "bus": {"bus": "off"}, 'namespace "a"': {"match": "a:*", "coherence": "auto"}})

    def bound_is(seconds):
        wait_until(lambda: proxy.metrics().get("staleness_bound_seconds") == seconds, 10,
                   f"the bound to be {seconds}")

    bound_is(1)  # as in tracking, which may come
    server.ask("CONFIG", "SET", "notify-keyspace-events", "KA")
    bound_is(1.2)


def test_a_reload_changes_the_mode_under_load(in_front):
    """Each change ends what was kept before; nothing is old at any moment."""
    proxy, server, _ = in_front(None, config={"coherence": {"coherence": "tracking"}})
    modes = ["broadcast", "keyspace", "auto", "broadcast", "tracking"]

    def reload(mode):
        reloads = proxy.metrics().get("config_reloads_total")
        proxy.write_config({"coherence": {"coherence": mode}})
        proxy.signal(signal.SIGHUP)
        proxy.wait_metric("config_reloads_total", reloads + 1)

    def faults(until):
        for mode in modes:
            reload(mode)
            time.sleep(0.3)

    run(proxy, workload(proxy, server, ops=consistency.SIMPLE + consistency.SCRIPTED), 2.5, faults,
        least_share=0.02)
    assert_hits_again(proxy)
    reload("broadcast")
    wait_until(lambda: server.ask("CLIENT", "LIST").count(b"flags=tB") == 1
               and server.ask("CLIENT", "LIST").count(b"flags=t ") == 0, 10, "the links to change")
    hit(proxy, "GET", "k")
