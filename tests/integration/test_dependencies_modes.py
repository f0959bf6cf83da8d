"""Dependencies where little is kept or told: uncached sources, and modes without messages.

Proves (docs/coherence.md, "Dependencies"): a write through a proxy drops what is derived before its
reply is out, also when the source is of a namespace that is not cached; in mode pubsub relations and
rules count for writes through proxies, as in ttl, and nothing is dropped for no reason.
"""

import pytest

from harness.resp import RespError, encode
from harness.servers import RedisCluster, key_slot
from harness.waiting import wait_until

from test_bus import (CHANNEL, GROUP, KEY, _origins, bus_info, fill, is_kept, message, record)
from test_dependencies import (OPTIONS, RULES, ask, depend, fleet, is_held, set_all, wait_gone,
                               wait_heard, warm)

pytestmark = pytest.mark.needs_proxy

__all__ = ["fleet", "OPTIONS"]


def ledger_slots(source):
    """First and last of those that the ledger may keep it in: as ledger_keys.c has it."""
    value = 14695981039346656037 ^ 1
    for byte in source.encode():
        value = (value ^ byte) * 1099511628211 % (1 << 64)
    value ^= value >> 32
    value ^= value >> 16
    return value % 64 * 256, value % 64 * 256 + 255


DEPEND = 16

UNCACHED = {**RULES, "namespace sources": {"match": "user:*", "cache": "off"}}

WRITES = {
    "one": [["SET", "user:1", "new"]],
    "several": [["MSET", "user:1", "new", "user:2", "new"]],
    "large": [["SET", "user:1", "x" * 3000000]],
    "transaction": [["MULTI"], ["SET", "user:1", "new"], ["EXEC"]],
    "script": [["EVAL", "return redis.call('SET', KEYS[1], 'new')", 1, "user:1"]],
    "blocking": [["DEL", "user:1"], ["RPUSH", "user:1", "a", "b"], ["BLPOP", "user:1", 1],
                 ["DEL", "user:1"]],
}


@pytest.mark.parametrize("mode", ["auto", "ttl"])
def test_a_source_need_not_be_cached(fleet, mode):
    fleet = fleet(n=1, options={"coherence": mode, "ttl-mode-max": "1h"}, config=UNCACHED)
    proxy, = fleet.proxies
    set_all(proxy, "page", "user:1", "profile:1")
    depend(proxy, "page", "user:1")
    for name, commands in WRITES.items():
        with proxy.client() as client:
            for command in commands[:-1]:
                client.ok(*command)
            with proxy.client() as reader:
                def held():
                    reader.ok("GET", "page")
                    reader.ok("GET", "profile:1")
                    return is_held(proxy, "page") and is_held(proxy, "profile:1")

                wait_until(held, 10, "what is derived to be kept")
            client.ok(*commands[-1])
            assert not is_held(proxy, "page") and not is_held(proxy, "profile:1"), name


def test_in_mode_pubsub_writes_through_proxies_count(fleet):
    fleet = fleet(options={"coherence": "pubsub", "pubsub-mode-max": "1h", "max-staleness": "100ms"},
                  config=RULES)
    first, second = fleet.proxies
    for proxy in fleet.proxies:
        proxy.wait_metric("coherence_links", 2, mode="pubsub")
    set_all(first, "page", "src", "profile:1", "view:1:a", "user:1")
    depend(first, "page", "src")
    wait_heard(fleet.proxies, 1)
    before = [proxy.metrics().get("cascades_total") for proxy in fleet.proxies]
    warm(fleet.proxies, "page", "profile:1", "view:1:a")
    # Deaf sources would have been dropped for several times.
    heartbeats = second.metrics().get("bus_heartbeats_total", direction="received")
    wait_until(lambda: second.metrics().get("bus_heartbeats_total", direction="received") >=
               heartbeats + 5, 10, "time to pass")
    assert [proxy.metrics().get("cascades_total") for proxy in fleet.proxies] == before
    ask(first, "SET", "src", "new")
    assert not is_held(first, "page")
    wait_gone(fleet.proxies, "page")
    ask(second, "SET", "user:1", "new")
    assert not is_held(second, "profile:1")
    wait_gone(fleet.proxies, "profile:1", "view:1:a")


def test_scope_all_in_mode_pubsub(fleet):
    fleet = fleet(n=1, options={"coherence": "pubsub", "pubsub-mode-max": "1h"},
                  config={"dependency profile": {**RULES["dependency profile"], "scope": "ALL",
                                                 "derived": "profile:{1}"}})
    proxy, = fleet.proxies
    set_all(proxy, "profile:1", "user:1")
    ask(proxy, "SET", "user:1", "new")
    wait_until(lambda: fleet.around("EXISTS", "profile:1") == 0, 5, "the backend to have it no more")


def test_without_the_backend_an_order_of_several_sources_says_why(fleet, start_redis):
    server = start_redis()
    fleet = fleet(n=1, options={"request-timeout": "300ms"}, server=server)
    proxy, = fleet.proxies
    depend(proxy, "page", "a")
    for words in (["DEPEND", "page", *map(str, range(50))], ["UNDEPEND", "page", "a", "b", "c"]):
        server.pause()
        try:
            with pytest.raises(RespError, match=r"ERR nearcached: [ -~]+$"):
                ask(proxy, "CACHE", *words)
        finally:
            server.resume()
        with proxy.client() as client:
            wait_until(lambda client=client: not isinstance(client.ask("GET", "page"), RespError),
                       10, "the backend to answer")
    depend(proxy, "page", "a", "b")


def test_what_had_no_room_is_read_when_there_is_some(fleet, start_proxy):
    fleet = fleet(n=1)
    first, = fleet.proxies
    depend(first, "page", *(f"s{i}" for i in range(20)))
    small = start_proxy(fleet.server.url(), {**OPTIONS, "max-dependencies": "2"})
    small.wait_metric("dependencies_incomplete", 1)
    small.wait_metric("dependencies", 2)
    known = set(ask(small, "CACHE", "DEPENDS", "page")["sources"])
    left = sorted({f"s{i}" for i in range(20)} - known)[0]
    ask(first, "CACHE", "UNDEPEND", "page", *(f"s{i}" for i in range(20) if f"s{i}" != left))
    wait_until(lambda: ask(small, "CACHE", "DEPENDS", "page")["sources"] == [left], 10,
               "the one that is left to be known")
    small.wait_metric("dependencies_incomplete", 0)


def test_who_goes_while_an_order_is_under_way(fleet, start_redis):
    """A client, and the proxy itself: at the ledger, and where sources are not heard of."""
    server = start_redis()
    fleet = fleet(n=1, options={"request-timeout": "1s"}, server=server)
    proxy, = fleet.proxies
    depend(proxy, "page", "a")
    clients = [proxy.client() for _ in range(8)]
    server.pause()
    for number, client in enumerate(clients):
        words = ["CACHE", "DEPEND", f"page:{number}", *(f"s{i}" for i in range(100))]
        client.send("".join([f"*{len(words)}\r\n", *(f"${len(word)}\r\n{word}\r\n"
                                                     for word in words)]).encode())
    wait_until(lambda: proxy.metrics().get("ledger_operations_running") > 0, 10, "orders to be under way")
    for client in clients[:4]:
        client.close()
    proxy.stop()
    server.resume()
    for client in clients[4:]:
        client.close()


def test_scope_all_removes_in_the_database_of_the_url(fleet, start_proxy, start_redis):
    server = start_redis()
    config = {"dependency one": {"source": "user:{1}", "derived": "profile:{1}", "scope": "ALL"},
              "dependency many": {"source": "menu:{1}", "derived": "page:{1}:*", "scope": "ALL"}}
    with server.client() as direct:
        for database in (0, 3):
            direct.ok("SELECT", database)
            direct.ok("MSET", "profile:1", "x", "page:1:a", "x")
        proxy = start_proxy(server.url() + "/3", OPTIONS, config=config)
        proxy.wait_metric("coherence_nodes", 1, mode="broadcast")
        with proxy.client() as client:
            client.ok("MSET", "user:1", "new", "menu:1", "new")
            wait_until(lambda: direct.ok("EXISTS", "profile:1", "page:1:a") == 0, 10,
                       "the backend to have them no more")
        direct.ok("SELECT", 0)
        assert direct.ok("EXISTS", "profile:1", "page:1:a") == 2


@pytest.mark.parametrize("mode", ["ttl", "pubsub"])
def test_a_write_under_way_when_the_first_relation_is_made(start_proxy, tmp_path, request, mode):
    """
    Its node is paused, the ledger's is not: the write is executed behind the read of what is derived,
    and is answered when the process has long known of the relation.
    """
    # Nobody takes over from a node that is paused for long.
    cluster = RedisCluster(tmp_path / "cluster", masters=3, node_timeout_ms=120000)
    request.addfinalizer(cluster.stop)
    cluster.start()
    slow = cluster.masters()[0]
    names = [f"user:{i}" for i in range(2000)]
    # Of whatever group: the ledger's registries are spread over all slots.
    source = next(name for name in names if cluster.owner(key_slot(name)) is slow and
                  all(cluster.owner(slot) is not slow for slot in ledger_slots(name)))
    derived = next(name for name in (f"page:{i}" for i in range(2000))
                   if cluster.owner(key_slot(name)) is not slow)
    proxy = start_proxy(cluster.url(), {
        "coherence": mode, "ttl-mode-max": "1h", "pubsub-mode-max": "1h", "request-timeout": "30s",
        "breaker": "off"}, config={"namespace sources": {
            "match": "user:*", "cache": "off", "coherence": "ttl"}})
    with proxy.client() as writer, proxy.client() as reader:
        # Connections to all nodes are there before one of them is paused.
        for i in range(20):
            wait_until(lambda i=i: reader.value("CACHE", "MEMBERS", f"tag{i}") == [], 20, "links")
        for key in (source, derived):
            wait_until(lambda key=key: writer.value("SET", key, "old") == b"OK", 20, "links")
        slow.pause()
        try:
            writer.send(encode("SET", source, "new"))
            depend(proxy, derived, source)
            wait_until(lambda: reader.ok("GET", derived) == b"old" and is_held(proxy, derived), 10,
                       "what is derived to be kept")
        finally:
            slow.resume()
        assert writer.read() == b"+OK\r\n"
    wait_until(lambda: not is_held(proxy, derived), 5, "what is derived to go")


@pytest.mark.parametrize("mode", ["ttl", "pubsub", "tracking"])
def test_who_learns_of_a_relation_tells_what_it_drops(start_proxy, redis_server, mode):
    """
    A write through it may have come between the order at the other proxy and its message; where
    the backend tells of no writes, nobody else knows of that. Said once, for what is new.
    """
    own = start_proxy(redis_server.url(), {"coherence": mode, "bus-heartbeat": "1m", **GROUP})
    wait_until(lambda: bus_info(own)["bus"] == "up", 10, "the bus")
    with own.client() as client:
        fill(client, "page")
        # In mode pubsub of the write that filled it.
        before = 1 if mode == "pubsub" else 0
        own.wait_metric("bus_records_total", before, 10, direction="sent")
        origin = next(_origins)
        redis_server.ask("PUBLISH", CHANNEL, message(origin, 1, record(DEPEND, b"user:1", b"page")))
        wait_until(lambda: not is_kept(client, "page"), 10, "page to be dropped")
        sent = before + (mode != "tracking")
        wait_until(lambda: own.metrics().get("bus_records_total", direction="sent") == sent, 10,
                   "the others to be told")
        redis_server.ask("PUBLISH", CHANNEL, message(
            origin, 2, record(DEPEND, b"user:1", b"page"), record(KEY, b"end")))
        own.wait_metric("bus_records_total", 3, 10, direction="received")
        assert own.metrics().get("bus_records_total", direction="sent") == sent
