"""Coherence mode pubsub: the backend tells of no writes, the proxies of a group tell each other.

Proves (docs/coherence.md, "Modes"): a write through one proxy is seen through the others, long before
an entry's limit; a lost message, link or proxy drops what depended on it; what is written around the
proxies is seen by the limit; without the bus the mode is ttl.
"""

import signal

import pytest

from harness import consistency
from harness.consistency import Workload
from harness.waiting import wait_until

from test_bus import Thief, fill, gaps, is_kept, wait_peers
from test_consistency import MAX_STALENESS, OPTIONS, every, run

pytestmark = pytest.mark.needs_proxy

# No limit helps: only what the others tell can be in time.
FOREVER = {**OPTIONS, "coherence": "pubsub", "pubsub-mode-max": "1h", "bus-group": "pubsub-tests",
           "bus-heartbeat": "100ms", "reconnect-max": "100ms"}


def wait_mode(proxies, mode, n_links=2):
    for each in proxies:
        wait_until(lambda each=each: each.metrics().get("coherence_links", mode=mode) == n_links,
                   10, mode)


def start_pair(start_proxy, url, options=None, second_url=None, n_links=2):
    pair = [start_proxy(each, {**FOREVER, **(options or {})}) for each in (url, second_url or url)]
    wait_peers(pair, 1)
    wait_mode(pair, "pubsub", n_links)
    # What a newcomer was not told of has been dropped by now.
    wait_until(lambda: all(each.metrics().get("bus_heartbeats_total", direction="received") >= 2
                           for each in pair), 10, "heartbeats")
    return pair


WRITES = {
    "SET": [["SET", "k", "new"]], "MSET": [["MSET", "k", "new", "other", "x"]],
    "DEL": [["DEL", "k", "other"]], "EXPIRE": [["PEXPIRE", "k", "1"]],
    "EXEC": [["MULTI"], ["SET", "k", "new"], ["EXEC"]],
    "EVAL": [["EVAL", "return redis.call('SET', KEYS[1], 'new')", 1, "k"]],
    "RENAME": [["SET", "other", "new"], ["RENAME", "other", "k"]],
    "FLUSHALL": [["FLUSHALL"]], "SWAPDB": [["SWAPDB", 0, 1]],
}


def test_writes_through_one_are_seen_through_the_other(start_proxy, redis_server):
    first, second = start_pair(start_proxy, redis_server.url())
    with first.client() as writer, second.client() as reader, redis_server.client() as direct:
        for name, commands in WRITES.items():
            fill(reader, "k", "other")
            for command in commands:
                writer.ok(*command)
            wait_until(lambda: reader.value("GET", "k") != b"value", 5, f"{name} to be seen")
            assert reader.value("GET", "k") == direct.value("GET", "k")
        direct.ok("RPUSH", "list", "a")
        assert reader.value("LRANGE", "list", 0, -1) == [b"a"]
        assert writer.value("BLPOP", "list", 1) == [b"list", b"a"]
        wait_until(lambda: reader.value("LRANGE", "list", 0, -1) == [], 5, "BLPOP to be seen")
        told = first.metrics().get("bus_writes_total")
        for command in (["GET", "k"], ["EXISTS", "k"], ["OBJECT", "ENCODING", "k"],
                        ["XREAD", "STREAMS", "none", "0"]):
            writer.ask(*command)
        assert first.metrics().get("bus_writes_total") == told > 0, "reads tell nobody"
    assert gaps(first) == 0


def test_what_is_written_around_them_is_seen_by_the_limit(start_proxy, redis_server):
    own = start_proxy(redis_server.url(), {**FOREVER, "pubsub-mode-max": "300ms"})
    wait_mode([own], "pubsub")
    assert own.metrics().get("staleness_bound_seconds") == pytest.approx(0.3)
    with own.client() as client:
        assert b"nearcached_coherence:pubsub\r\n" in client.ok("INFO", "nearcached")
        fill(client, "k")
        redis_server.ask("SET", "k", "around")
        wait_until(lambda: client.value("GET", "k") == b"around", 5, "the end of the entry")


def test_readers_and_writers_of_two(start_proxy, redis_server):
    """Judged as in mode tracking: nothing is older than its bound, though no entry ever ends."""
    first, second = start_pair(start_proxy, redis_server.url())
    load = Workload(first.address, second.client, bound=MAX_STALENESS, n_direct_writers=2,
                    ops=consistency.SIMPLE + consistency.REMOVING)

    def faults(until):
        every(0.4, until, lambda: redis_server.ask("CLIENT", "KILL", "TYPE", "pubsub"))

    run(first, load, 1.5, least_share=0.05)
    load = Workload(first.address, second.client, bound=MAX_STALENESS, n_direct_writers=2,
                    ops=consistency.SIMPLE, are_errors_allowed=True)
    run(first, load, 1.5, faults, least_share=0.01)


def test_a_cluster(start_proxy, cluster):
    first, second = start_pair(start_proxy, cluster.url(), n_links=6)
    with first.client() as writer, second.client() as reader:
        for number in range(20):
            fill(reader, f"k{number}")
        for number in range(20):
            writer.ok("SET", f"k{number}", "new")
        for number in range(20):
            wait_until(lambda number=number: reader.value("GET", f"k{number}") == b"new", 5,
                       "the write to be seen")


def test_a_lost_message_drops_what_depended_on_it(start_proxy, redis_server):
    thief = Thief(redis_server)
    first, second = start_pair(start_proxy, redis_server.url(), second_url=thief.url)
    with first.client() as writer, second.client() as reader:
        fill(reader, "k", "kept")
        thief.is_armed = True
        writer.ok("SET", "k", "new")
        wait_until(lambda: thief.n_taken == 1, 10, "the theft")
        wait_until(lambda: reader.value("GET", "k") == b"new", 10, "the gap")
        assert not is_kept(reader, "kept")
        assert gaps(second, cause="number") == 1
    thief.close()


def test_without_the_bus_it_is_ttl_and_back(start_proxy, redis_server):
    pair = [start_proxy(redis_server.url(), config={
        "coherence": {"coherence": "pubsub", "pubsub-mode-max": "1h", "ttl-mode-max": "300ms"},
        "bus": {"bus-group": "pubsub-tests", "bus": "on"}}) for _ in range(2)]
    wait_peers(pair, 1)
    wait_mode(pair, "pubsub")

    def reload(is_on):
        pair[1].write_config({
            "coherence": {"coherence": "pubsub", "pubsub-mode-max": "1h",
                          "ttl-mode-max": "300ms"},
            "bus": {"bus-group": "pubsub-tests", "bus": is_on}})
        pair[1].signal(signal.SIGHUP)

    with pair[0].client() as writer, pair[1].client() as reader:
        fill(reader, "k")
        reload("off")
        wait_mode(pair[1:], "ttl")
        assert pair[1].metrics().get("staleness_bound_seconds") == pytest.approx(0.3)
        assert b"nearcached_coherence:ttl\r\n" in reader.ok("INFO", "nearcached")
        assert "the bus is not up" in pair[1].log()
        writer.ok("SET", "k", "unheard")
        wait_until(lambda: reader.value("GET", "k") == b"unheard", 5, "the end of the entry")
        reload("on")
        wait_mode(pair[1:], "pubsub")
        wait_peers(pair, 1)
        fill(reader, "k")
        writer.ok("SET", "k", "heard")
        wait_until(lambda: reader.value("GET", "k") == b"heard", 5, "the write to be seen")


def test_auto_comes_to_it_where_the_backend_tells_nothing(start_proxy, start_redis):
    server = start_redis()
    server.ask("ACL", "SETUSER", "default", "-client|tracking")
    first, second = start_pair(start_proxy, server.url(), {"coherence": "auto"})
    with first.client() as writer, second.client() as reader:
        fill(reader, "k")
        writer.ok("SET", "k", "new")
        wait_until(lambda: reader.value("GET", "k") == b"new", 5, "the write to be seen")
        server.ask("CONFIG", "SET", "notify-keyspace-events", "KA")
        wait_mode([first, second], "keyspace")
        server.ask("CONFIG", "SET", "notify-keyspace-events", "")
        wait_mode([first, second], "pubsub")
        server.ask("ACL", "SETUSER", "default", "+client|tracking")
        wait_mode([first, second], "tracking")
        told = first.metrics().get("bus_writes_total")
        writer.ok("SET", "k", "tracked")
        wait_until(lambda: reader.value("GET", "k") == b"tracked", 5, "the write to be seen")
        assert first.metrics().get("bus_writes_total") == told, "the backend tells of it"


def test_a_namespace_of_its_own(start_proxy, redis_server):
    config = {"coherence": {"coherence": "tracking", "pubsub-mode-max": "1h"},
              "bus": {"bus-group": "pubsub-tests", "bus-heartbeat": "100ms"},
              'namespace "ours"': {"match": "ours:*", "coherence": "pubsub"}}
    pair = [start_proxy(redis_server.url(), config=config) for _ in range(2)]
    wait_peers(pair, 1)
    with pair[0].client() as writer, pair[1].client() as reader:
        fill(reader, "ours:1", "1")
        told = pair[0].metrics().get("bus_writes_total")
        for key in ("ours:1", "1"):
            writer.ok("SET", key, "new")
            wait_until(lambda key=key: reader.value("GET", key) == b"new", 5, "the write")
        assert pair[0].metrics().get("bus_writes_total") == told + 1
