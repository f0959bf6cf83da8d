"""The auditor: silent while tier 1 is coherent, however much is written, and finds an invalidation
that was lost. Dry runs: clients have the backend's bytes, and what tier 1 would have answered is
counted and compared."""

import random
import re
import signal
import threading
import time

import pytest

from harness.proxy import is_sanitized
from harness.resp import RawClient
from harness.waiting import wait_until

pytestmark = pytest.mark.needs_proxy

ALL = {"audit-sample": 1, "audit-rate": 1000000}


def audits(proxy, result):
    return proxy.metrics().get("audits_total", result=result)


def stale(proxy, **labels):
    return proxy.metrics().get("stale_total", **labels)


def settled(proxy):
    """The metrics, once no audit is on its way any more: those of a hit begin with its reply."""
    wait_until(lambda: proxy.metrics().get("audits_under_way") == 0, 20, "the audits to end")
    return proxy.metrics()


KEYS = 12
VIEWS = (
    lambda number: ("GET", f"s:{number}"),
    lambda number: ("STRLEN", f"s:{number}"),
    lambda number: ("HGETALL", f"h:{number}"),
    lambda number: ("HGET", f"h:{number}", "f1"),
    lambda number: ("SMEMBERS", f"m:{number}"),
    lambda number: ("ZRANGE", f"z:{number}", "0", "-1", "WITHSCORES"),
    lambda number: ("LRANGE", f"l:{number}", "0", "-1"),
    lambda number: ("TYPE", f"s:{number}"),
    lambda number: ("EXISTS", f"n:{number}"),
    lambda number: ("GET", f"n:{number}"),
    lambda number: ("GET", f"e:{number}"),
)
WRITES = (
    # The same few values come back: what is found again may be another entry.
    lambda rng, number: ("SET", f"s:{number}", str(rng.randrange(2))),
    lambda rng, number: ("HSET", f"h:{number}", f"f{rng.randrange(3)}", str(rng.randrange(3))),
    lambda rng, number: ("SADD", f"m:{number}", str(rng.randrange(50))),
    lambda rng, number: ("SREM", f"m:{number}", str(rng.randrange(50))),
    lambda rng, number: ("ZADD", f"z:{number}", str(rng.randrange(9)), str(rng.randrange(9))),
    lambda rng, number: ("RPUSH", f"l:{number}", str(rng.randrange(9))),
    lambda rng, number: ("LTRIM", f"l:{number}", "-5", "-1"),
    lambda rng, number: ("SET", f"n:{number}", "1", "PX", "20"),
    lambda rng, number: ("DEL", f"n:{number}"),
    lambda rng, number: ("SET", f"e:{number}", str(rng.randrange(2)), "PX", "30"),
    lambda rng, number: ("EVAL", "return redis.call('SET', KEYS[1], ARGV[1])", "1", f"s:{number}",
                         str(rng.randrange(2))),
)


class Load:
    """Readers through the proxy, writers through it and around it."""

    def __init__(self, proxy, make_around, make_through=None):
        self.proxy = proxy
        self.until = None
        self.failures = []
        self.jobs = [(self._read, lambda: proxy.client(2)), (self._read, lambda: proxy.client(3)),
                     (self._write, make_through or proxy.client), (self._write, make_around)]

    def _read(self, client, rng):
        client.pipeline([rng.choice(VIEWS)(rng.randrange(KEYS)) for _ in range(30)])

    def _write(self, client, rng):
        client.ask(*rng.choice(WRITES)(rng, rng.randrange(KEYS)))
        time.sleep(0.001)

    def _work(self, job, make, seed):
        rng = random.Random(seed)
        try:
            client = make()
            while time.monotonic() < self.until:
                job(client, rng)
            client.close()
        except Exception as error:  # pylint: disable=broad-except
            self.failures.append(error)

    def run(self, seconds):
        self.until = time.monotonic() + seconds
        threads = [threading.Thread(target=self._work, args=(job, make, seed))
                   for seed, (job, make) in enumerate(self.jobs)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not self.failures, self.failures


def assert_silent(found, at_least=100):
    assert found.get("audits_total", result="stale") == 0
    assert found.get("stale_total") == 0
    assert found.get("audits_total", result="same") > at_least
    # Differences were met, and explained.
    assert found.get("audits_total", result="changed") > 0
    assert found.get("audits_skipped_total", reason="unproven") == 0
    assert found.get("stale_ratio") == 0


def test_no_staleness_is_reported_where_there_is_none(start_proxy, redis_server):
    proxy = start_proxy(redis_server.url(), ALL)
    Load(proxy, redis_server.client).run(4)
    assert_silent(settled(proxy))


@pytest.mark.parametrize("mode", ("broadcast", "keyspace"))
def test_nor_in_other_modes(start_proxy, start_redis, start_relay, mode):
    """What is heard comes late, over a link of its own; with BCAST a PONG overtakes it."""
    server = start_redis()
    server.ask("CONFIG", "SET", "notify-keyspace-events", "KA")
    relay, proxy = behind_relay(start_proxy, start_relay, server, {**ALL, "coherence": mode})
    proxy.wait_metric("coherence_nodes", 1, mode=mode)
    relay.overtake()
    relay.delay("tracking", to_proxy=0.005)
    Load(proxy, server.client).run(2)
    assert_silent(settled(proxy))


def test_nor_on_a_cluster(start_proxy, cluster):
    proxy = start_proxy(cluster.url(), ALL)
    Load(proxy, cluster.client).run(4)
    assert_silent(settled(proxy))


def test_nor_while_links_are_lost_and_everything_is_flushed(start_proxy, redis_server, start_relay):
    relay = start_relay(redis_server.address)
    proxy = start_proxy("redis://{}:{}".format(*relay.address), ALL)
    stop = threading.Event()

    def disturb():
        while not stop.wait(0.15):
            relay.cut("tracking")
            redis_server.ask("FLUSHALL")

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        Load(proxy, redis_server.client).run(3)
    finally:
        stop.set()
        thread.join()
    found = settled(proxy)
    assert found.get("stale_total") == 0
    assert found.get("audits_total", result="same") > 50


def test_the_order_of_members_is_no_difference(start_proxy, redis_server):
    """While a table is being rehashed each look-up moves some of it, and the order with it."""
    client = redis_server.client()
    count = 0

    def look_up():
        client.pipeline([("SISMEMBER", "big", "x"), ("HGET", "wide", "x")] * 20)

    def is_reordered():
        nonlocal count
        client.pipeline([("SADD", "big", f"member:{count + n}") for n in range(40)])
        client.pipeline([("HSET", "wide", f"field:{count + n}", str(n)) for n in range(40)])
        count += 40
        seen = set()
        for _ in range(2):
            seen.add(client.ask("SMEMBERS", "big"))
            look_up()
        return count > 600 and len(seen) > 1

    wait_until(is_reordered, 20, "the server to show another order", pause=0)
    proxy = start_proxy(redis_server.url(), {**ALL, "audit-max-value": "1mb"})
    for protocol in (2, 3):
        with proxy.client(protocol) as reader:
            for _ in range(20):
                for command in (("SMEMBERS", "big"), ("HGETALL", "wide"), ("HKEYS", "wide"),
                                ("HVALS", "wide")):
                    reader.ok(*command)
                look_up()
    found = settled(proxy)
    assert found.get("audits_total", result="same") > 100
    assert found.get("audits_total", result="changed") == 0
    assert found.get("stale_total") == 0


# ---- a message that is lost ----


def behind_relay(start_proxy, start_relay, server, options, **keywords):
    relay = start_relay(server.address)
    return relay, start_proxy("redis://{}:{}".format(*relay.address), options, **keywords)


def make_stale(proxy, server, relay, key, reader, how=("SET", "new")):
    """Tier 1 holds what `reader` saw last, and nothing will tell it."""
    hold(proxy, key, reader)
    lost = relay.lost()
    relay.lose_invalidations(key)
    server.ask(how[0], key, *how[1:])
    wait_until(lambda: relay.lost() > lost, 10, "the message to be lost")


def held(proxy, key):
    with proxy.client(3) as client:
        return len(client.value("CACHE", "GET", key)[b"views"]) > 0


def hold(proxy, key, reader):
    """Read until tier 1 holds it: the links of a proxy that has just started may not be up."""
    def is_held():
        reader.ok("GET", key)
        return held(proxy, key)
    wait_until(is_held, 10, f"{key} to be held")


def test_a_lost_invalidation_is_found_and_the_entry_goes(start_proxy, redis_server, start_relay):
    redis_server.ask("SET", "orders:7", "old")
    relay, proxy = behind_relay(start_proxy, start_relay, redis_server, None, config={
        "coherence": ALL, "namespace orders": {"match": "orders:*"}})
    with proxy.client() as reader:
        make_stale(proxy, redis_server, relay, "orders:7", reader)
        # The very next hit: it shows the old value, and is the one that tells.
        assert reader.ok("GET", "orders:7") == b"old"
        proxy.wait_metric("stale_total", 1, cause="tracking", namespace="orders")
        assert reader.ok("GET", "orders:7") == b"new"
        assert reader.ok("GET", "orders:7") == b"new"
        proxy.wait_metric("audits_total", 1, result="same")
    found = settled(proxy)
    assert found.get("audits_total", result="stale") == 1
    assert found.get("stale_total") == 1
    assert found.get("invalidations_total", reason="audit") == 1
    assert found.get("stale_age_seconds_count", cause="tracking") == 1
    assert 0 < found.get("stale_ratio") < 1
    lines = [line for line in proxy.log().splitlines() if "tier 1 held a stale entry" in line]
    assert len(lines) == 1
    assert "namespace=orders" in lines[0] and "cause=tracking" in lines[0]
    assert "orders:7" not in lines[0]
    with proxy.client(3) as client:
        report = client.value("CACHE", "AUDIT")
        assert report[b"stale"] == report[b"stale-tracking"] == 1
        assert report[b"same"] == found.get("audits_total", result="same")
        info = client.value("INFO", "nearcached")
        info = info.decode() if isinstance(info, bytes) else info
        assert re.search(r"nearcached_audits_stale:1\r", info)


@pytest.mark.parametrize("mode, cause", [("broadcast", "tracking"), ("keyspace", "keyspace")])
def test_a_message_lost_on_the_link_for_all_workers_is_found(start_proxy, start_redis, start_relay,
                                                             mode, cause):
    server = start_redis()
    server.ask("CONFIG", "SET", "notify-keyspace-events", "KA")
    server.ask("SET", "k", "old")
    relay, proxy = behind_relay(start_proxy, start_relay, server, {
        **ALL, "coherence": mode, "keyspace-mode-max": "1m"})
    proxy.wait_metric("coherence_nodes", 1, mode=mode)
    with proxy.client() as reader:
        make_stale(proxy, server, relay, "k", reader)
        assert reader.ok("GET", "k") == b"old"
        proxy.wait_metric("stale_total", 1, cause=cause)
        assert reader.ok("GET", "k") == b"new"
    found = settled(proxy)
    assert found.get("stale_total") == 1
    assert found.get("invalidations_total", reason="audit") == 1
    if mode == "keyspace":
        assert found.get("stale_age_seconds_bucket", cause=cause, le="10") == 1


def test_the_age_that_is_told_contains_the_true_one(start_proxy, redis_server, start_relay):
    redis_server.ask("SET", "k", "old")
    relay, proxy = behind_relay(start_proxy, start_relay, redis_server, {"audit-log-keys": "on"})
    with proxy.client(3) as reader:
        read_at = time.monotonic()
        make_stale(proxy, redis_server, relay, "k", reader)
        time.sleep(0.3)
        asked_at = time.monotonic()
        (view,) = reader.value("CACHE", "AUDIT", "k")
        answered_at = time.monotonic()
    assert view[b"result"] == b"stale" and view[b"cause"] == b"tracking"
    assert view[b"command"] == b"get" and view[b"args"] == []
    assert view[b"stale-for-at-least-ms"] <= (answered_at - asked_at) * 1000
    assert 300 <= view[b"read-at-most-ms-ago"] <= (answered_at - read_at) * 1000 + 17
    assert " key=k " in proxy.log()


def test_clients_with_caches_of_their_own_are_told(start_proxy, redis_server, start_relay):
    redis_server.ask("SET", "k", "old")
    relay, proxy = behind_relay(start_proxy, start_relay, redis_server, None)
    with proxy.client(3) as reader, proxy.client(3) as tracker:
        tracker.ok("CLIENT", "TRACKING", "ON")
        tracker.ok("GET", "k")
        make_stale(proxy, redis_server, relay, "k", reader)
        (view,) = reader.value("CACHE", "AUDIT", "k")
        assert view[b"result"] == b"stale"
        assert tracker.read() == b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n"


def test_all_views_of_a_key_on_demand(start_proxy, redis_server):
    redis_server.ask("HSET", "h", "a", "1", "b", "2")
    proxy = start_proxy(redis_server.url(), {"audit-sample": 0})
    with proxy.client(3) as client:
        assert client.value("CACHE", "AUDIT", "h") == []
        for _ in range(2):
            client.ok("HGETALL", "h")
            client.ok("HGET", "h", "b")
        views = client.value("CACHE", "AUDIT", "h")
        assert sorted((view[b"command"], view[b"args"]) for view in views) == [
            (b"hget", [b"b"]), (b"hgetall", [])]
        assert {view[b"result"] for view in views} == {b"same"}
        # Pipelined, it keeps its place.
        frames = client.pipeline([("SET", "x", "1"), ("CACHE", "AUDIT", "h"), ("GET", "x")])
        assert frames[0] == b"+OK\r\n" and frames[2] == b"$1\r\n1\r\n"
    assert audits(proxy, "same") == 4


def test_a_message_that_is_only_late_is_no_staleness(start_proxy, redis_server, start_relay):
    """The proof waits for the link of the entry, not for a while."""
    redis_server.ask("SET", "k", "old")
    relay, proxy = behind_relay(start_proxy, start_relay, redis_server, {
        **ALL, "max-staleness": "10s", "link-timeout": "10s"})
    with proxy.client() as reader:
        hold(proxy, "k", reader)
        relay.hold("tracking")
        redis_server.ask("SET", "k", "new")
        before = proxy.metrics()
        assert reader.ok("GET", "k") == b"old"
        time.sleep(0.5)  # ten fence intervals: who judged by time alone would call it stale
        found = proxy.metrics()
        for result in ("stale", "changed"):
            assert found.get("audits_total", result=result) == \
                before.get("audits_total", result=result)
        relay.flow("tracking")
        proxy.wait_metric("audits_total", 1, result="changed")
    assert stale(proxy) == 0


def test_a_link_that_dies_takes_the_suspicion_with_it(start_proxy, redis_server, start_relay):
    redis_server.ask("SET", "k", "old")
    relay, proxy = behind_relay(start_proxy, start_relay, redis_server, {
        **ALL, "max-staleness": "10s", "link-timeout": "10s"})
    with proxy.client() as reader:
        hold(proxy, "k", reader)
        relay.hold("tracking")
        redis_server.ask("SET", "k", "new")
        assert reader.ok("GET", "k") == b"old"
        proxy.wait_metric("audits_under_way", 1)
        relay.cut("tracking")
        relay.flow("tracking")
        proxy.wait_metric("audits_total", 1, result="changed")
        wait_until(lambda: reader.ok("GET", "k") == b"new", 10, "the new value")
    assert stale(proxy) == 0


# ---- where nothing tells of writes ----


def test_ttl_mode_shows_its_staleness_and_its_bound(start_proxy, redis_server):
    proxy = start_proxy(redis_server.url(), {**ALL, "coherence": "ttl", "ttl-mode-max": "500ms"})
    redis_server.ask("SET", "k", 0)
    number = 0

    def is_seen():
        nonlocal number
        with proxy.client() as reader:
            for _ in range(20):
                number += 1
                reader.ok("GET", "k")
                redis_server.ask("SET", "k", number)
                reader.ok("GET", "k")
        return stale(proxy, cause="ttl-mode") >= 20

    wait_until(is_seen, 20, "staleness to be seen")
    found = settled(proxy)
    assert found.get("stale_total", cause="tracking") == 0
    count = found.get("stale_age_seconds_count", cause="ttl-mode")
    assert count == found.get("stale_total", cause="ttl-mode")
    assert found.get("stale_age_seconds_bucket", cause="ttl-mode", le="0.5") == count
    assert "tier 1 held a stale entry" not in proxy.log()


def test_replicas_are_judged_by_how_far_they_are(start_proxy, start_redis, start_relay):
    master = start_redis([("repl-diskless-sync-delay", "0")])
    replica = start_redis([("replicaof", f"127.0.0.1 {master.port}")])
    relay = start_relay(replica.address)
    wait_until(lambda: master.info("replication").get("connected_slaves") in (1, "1"), 20,
               "the replica to follow")
    proxy = start_proxy(master.url(), config={
        "backend": {"topology-interval": "100ms", "address-map": "127.0.0.1:{}={}:{}".format(
            replica.port, *relay.address)},
        "coherence": {"max-staleness": "500ms", "replica-max-lag": "4s", **ALL},
        "cache": {"replica-reads": "on", "negative-ttl": "1h"}})
    number = 0

    def key_of_the_replica():
        nonlocal number
        number += 1
        before = proxy.metrics().get("replica_fetches_total")
        with proxy.client() as client:
            client.ok("GET", f"probe:{number}")
        return f"probe:{number}" \
            if proxy.metrics().get("replica_fetches_total") > before else None

    with proxy.client() as reader:
        for _ in range(6):
            key = wait_until(key_of_the_replica, 20, "the replica to serve")
            reader.pipeline([("GET", key)] * 3)
            master.ask("SET", key, "new")
            reader.pipeline([("GET", key)] * 3)
        found = settled(proxy)
        assert found.get("audits_total", result="same") >= 6
        assert found.get("stale_total") == 0
        # What the replica showed is told by its link. When that loses a message:
        key = wait_until(key_of_the_replica, 20, "the replica to serve")
        relay.lose_invalidations(key)
        master.ask("SET", key, "new")
        wait_until(lambda: relay.lost() > 0, 10, "the message to be lost")
        assert reader.ok("GET", key) is None
        proxy.wait_metric("stale_total", 1, cause="replica")
        assert reader.ok("GET", key) == b"new"


# ---- users ----


def test_entries_of_users_are_audited_as_the_proxy(start_proxy, start_redis, start_relay):
    server = start_redis()
    server.ask("ACL", "SETUSER", "alice", "on", ">secret", "~*", "+@all")
    server.ask("SET", "k", "old")
    relay, proxy = behind_relay(start_proxy, start_relay, server, ALL)
    with RawClient(proxy.address, user="alice", password="secret") as reader:
        reader.ok("GET", "k")
        wait_until(lambda: reader.ok("GET", "k") and audits(proxy, "same") > 0, 10, "a hit")
        lost = relay.lost()
        relay.lose_invalidations("k")
        server.ask("SET", "k", "new")
        wait_until(lambda: relay.lost() > lost, 10, "the message to be lost")
        reader.ok("GET", "k")
        proxy.wait_metric("stale_total", 1, cause="tracking")
        assert reader.ok("GET", "k") == b"new"


def test_what_the_proxy_may_not_read_is_left_out(start_proxy, start_redis):
    server = start_redis()
    server.ask("ACL", "SETUSER", "alice", "on", ">secret", "~*", "+@all")
    server.ask("ACL", "SETUSER", "boss", "on", ">pass", "+@all", "~public:*")
    proxy = start_proxy(f"redis://boss:pass@127.0.0.1:{server.port}", ALL)
    with RawClient(proxy.address, user="alice", password="secret") as reader:
        for _ in range(5):
            reader.ok("SET", "private", "1")
            reader.ok("GET", "private")
            reader.ok("GET", "private")
    proxy.wait_metric("audits_skipped_total", 1, reason="error")
    assert proxy.metrics().get("audits_total") == 0


# ---- limits, reload, cost ----


def warm_hits(proxy, key, count):
    with proxy.client() as client:
        client.ok("GET", key)
        for _ in range(count // 50):
            client.pipeline([("GET", key)] * 50)


def test_not_more_than_audit_rate(start_proxy, redis_server):
    redis_server.ask("SET", "k", "1")
    proxy = start_proxy(redis_server.url(), {"audit-sample": 1, "audit-rate": 10}, threads=1)
    began = time.monotonic()
    warm_hits(proxy, "k", 1000)
    found = settled(proxy)
    seconds = time.monotonic() - began + 1
    assert 0 < found.get("audits_total") <= 10 * (seconds + 1)
    assert found.get("audits_skipped_total", reason="rate") >= \
        found.get("hits_total") - 10 * (seconds + 1) > 500


def test_one_in_audit_sample(start_proxy, redis_server):
    redis_server.ask("SET", "k", "1")
    proxy = start_proxy(redis_server.url(), {"audit-sample": 100, "audit-rate": 1000000})
    warm_hits(proxy, "k", 20000)
    found = settled(proxy)
    # Each gap is uniform between 1 and 199: 200 of them sum up to 20 000 with a deviation of 816.
    assert 150 <= found.get("audits_total") + found.get("audits_skipped_total") <= 250


def test_large_replies_are_left_out(start_proxy, redis_server):
    redis_server.ask("SET", "large", "x" * 3000)
    redis_server.ask("SET", "small", "x" * 100)
    proxy = start_proxy(redis_server.url(), {**ALL, "audit-max-value": "2kb"})
    warm_hits(proxy, "large", 50)
    proxy.wait_metric("audits_skipped_total", 50, reason="large")
    assert proxy.metrics().get("audits_total") == 0
    warm_hits(proxy, "small", 50)
    proxy.wait_metric("audits_total", 50, result="same")


def test_a_value_that_has_grown_is_another_one(start_proxy, redis_server, start_relay):
    redis_server.ask("SET", "k", "small")
    relay, proxy = behind_relay(start_proxy, start_relay, redis_server, {"large-reply": "64kb"})
    with proxy.client(3) as reader:
        make_stale(proxy, redis_server, relay, "k", reader, how=("SET", "x" * 3000000))
        (view,) = reader.value("CACHE", "AUDIT", "k")
        assert view[b"result"] == b"stale"
        assert len(reader.ok("GET", "k")) == 3000000


def test_what_is_under_way_is_bounded_and_ends_with_its_link(start_proxy, redis_server,
                                                            start_relay):
    redis_server.ask("SET", "k", "1")
    relay, proxy = behind_relay(start_proxy, start_relay, redis_server, ALL, threads=1)
    warm_hits(proxy, "k", 50)
    proxy.wait_metric("audits_total", 50)
    relay.hold("other")
    with proxy.client() as client:
        # Hits go on, whatever becomes of the audits.
        for _ in range(20):
            assert client.pipeline([("GET", "k")] * 50) == [b"$1\r\n1\r\n"] * 50
    proxy.wait_metric("audits_skipped_total", 500, reason="busy")
    relay.cut("other")
    relay.flow("other")
    proxy.wait_metric("audits_skipped_total", 200, reason="link")
    wait_until(lambda: warm_hits(proxy, "k", 50) or audits(proxy, "same") > 60, 20,
               "audits to go on")


def test_a_reload_turns_it_on_and_off(start_proxy, redis_server):
    redis_server.ask("SET", "k", "1")
    proxy = start_proxy(redis_server.url(), None, config={"coherence": {"audit-sample": 0}})

    def reload(**options):
        before = proxy.metrics().get("config_reloads_total")
        proxy.write_config({"coherence": {name.replace("_", "-"): value
                                          for name, value in options.items()}})
        proxy.signal(signal.SIGHUP)
        proxy.wait_metric("config_reloads_total", before + 1)

    def asked():
        found = settled(proxy)
        return found.get("audits_total") + found.get("audits_skipped_total")

    warm_hits(proxy, "k", 500)
    assert asked() == 0
    reload(audit_sample=1)
    wait_until(lambda: warm_hits(proxy, "k", 50) or audits(proxy, "same") > 0, 10, "audits")
    reload(audit_sample=0)
    warm_hits(proxy, "k", 50)
    before = asked()
    warm_hits(proxy, "k", 500)
    assert asked() == before


def test_monitor_leaves_the_reads_of_the_auditor_out(start_proxy, redis_server):
    redis_server.ask("SET", "k", "1")
    proxy = start_proxy(redis_server.url(), ALL)
    with proxy.client() as monitor:
        monitor.ok("MONITOR")
        warm_hits(proxy, "k", 50)
        proxy.wait_metric("audits_total", 50)
        with proxy.client() as client:
            client.ok("SET", "end", "1")
        lines = []
        while not lines or b'"end"' not in lines[-1]:
            lines.append(monitor.read())
    assert sum(b'"k"' in line for line in lines) <= 3  # the fetch, not the hits and audits


# ---- dry run ----

DRY = {"dry-run": "on"}


def dry_totals(proxy):
    found = proxy.metrics()
    return found.get("dry_run_hits_total"), found.get("dry_run_misses_total")


def random_command(rng):
    kind = rng.random()
    number = rng.randrange(KEYS)
    if kind < 0.65:
        return rng.choice(VIEWS)(number)
    if kind < 0.8:
        return ("MGET", *(f"s:{rng.randrange(KEYS)}" for _ in range(rng.randrange(1, 5))))
    while True:
        command = rng.choice(WRITES)(rng, number)
        if "PX" not in command:  # two servers expire a key at two moments
            return command


@pytest.mark.parametrize("protocol", (2, 3))
def test_a_dry_run_answers_as_the_backend(start_proxy, redis_server, reference, protocol):
    proxy = start_proxy(redis_server.url(), DRY)
    rng = random.Random(protocol)
    direct = reference.client(protocol)
    with proxy.client(protocol) as client:
        for _ in range(150):
            batch = [random_command(rng) for _ in range(rng.randrange(1, 40))]
            assert client.pipeline(batch) == direct.pipeline(batch)
    found = settled(proxy)
    assert found.get("dry_run") == 1
    assert found.get("hits_total") == 0  # nobody was answered from memory
    assert found.get("dry_run_hits_total") > 300
    assert found.get("audits_total", result="same") > 200
    assert found.get("stale_total") == 0


def trace(count, seed=11):
    rng = random.Random(seed)
    for _ in range(count):
        number = min(int(rng.expovariate(0.02)), 499)
        kind = rng.random()
        if kind < 0.05:
            yield ("SET", f"t:{number}", str(rng.randrange(10)))
        elif kind < 0.15:
            yield ("MGET", *(f"t:{min(int(rng.expovariate(0.02)), 499)}" for _ in range(4)))
        else:
            yield ("GET", f"t:{number}")


def replay(proxy, count):
    """One request at a time, and now and then room for what is still under way."""
    with proxy.client() as client:
        for command in trace(count):
            client.ok(*command)


def test_the_hit_ratio_of_a_dry_run_is_that_of_a_real_one(start_proxy, redis_server):
    count = 1500 if is_sanitized() else 6000
    real = start_proxy(redis_server.url(), {"audit-sample": 0}, threads=1)
    replay(real, count)
    found = real.metrics()
    hits, misses = found.get("hits_total"), found.get("misses_total")
    real_ratio = hits / (hits + misses)
    redis_server.ask("FLUSHALL")
    dry = start_proxy(redis_server.url(), DRY, threads=1)
    replay(dry, count)
    hits, misses = dry_totals(dry)
    # A read may come while the fetch of the former one is still on its way: a client of a real run
    # would have waited for that.
    assert abs(hits / (hits + misses) - real_ratio) < 0.02
    with dry.client(3) as client:
        report = client.value("CACHE", "AUDIT")
    assert report[b"dry-run"] == b"on" and report[b"dry-run-hits"] == hits
    assert report[b"stale"] == 0


def test_a_dry_run_under_load_reports_no_staleness(start_proxy, redis_server):
    proxy = start_proxy(redis_server.url(), DRY)
    Load(proxy, redis_server.client).run(3)
    found = settled(proxy)
    assert_silent(found)
    assert found.get("dry_run_hits_total") > 100
    # On top of what clients ask, the backend is asked for what would have been missing only.
    assert found.get("fetches_total") <= found.get("dry_run_misses_total")


def test_a_dry_run_on_a_cluster(start_proxy, cluster):
    proxy = start_proxy(cluster.url(), DRY)
    with proxy.client() as client:
        for _ in range(20):
            client.ok("MSET", *(text for n in range(20) for text in (f"c:{n}", str(n))))
            for _ in range(3):
                assert client.value("MGET", *(f"c:{n}" for n in range(20))) == \
                    [str(n).encode() for n in range(20)]
                for n in range(20):
                    assert client.ok("GET", f"c:{n}") == str(n).encode()
    hits, misses = dry_totals(proxy)
    assert hits > misses > 0
    assert stale(proxy) == 0


def test_a_dry_run_finds_what_a_real_one_would_have_shown(start_proxy, redis_server, start_relay):
    redis_server.ask("SET", "k", "old")
    relay, proxy = behind_relay(start_proxy, start_relay, redis_server, DRY)
    with proxy.client() as reader:
        make_stale(proxy, redis_server, relay, "k", reader)
        assert reader.ok("GET", "k") == b"new"  # the backend's
        proxy.wait_metric("stale_total", 1, cause="tracking")
        assert reader.ok("GET", "k") == b"new"


def test_a_dry_run_knows_what_would_not_have_been_cached(start_proxy, redis_server):
    proxy = start_proxy(redis_server.url(), None, config={
        "cache": DRY, "namespace live": {"match": "live:*", "cache": "off"}})
    with proxy.client() as client:
        for _ in range(10):
            client.ok("GET", "live:1")
            client.pipeline([("SET", "k", "1"), ("GET", "k")])
    found = proxy.metrics()
    assert found.get("dry_run_hits_total", namespace="live") == 0
    assert found.get("bypassed_total", namespace="live") == 10
    # Behind a write of its own client each read is relayed, in earnest too.
    assert found.get("dry_run_hits_total") == 0
    assert found.get("dry_run_misses_total") == 10


def test_clients_that_leave_a_dry_run_leave_nothing(start_proxy, redis_server, start_relay):
    redis_server.ask("SET", "k", "1")
    relay, proxy = behind_relay(start_proxy, start_relay, redis_server, DRY, threads=1)
    with proxy.client() as client:
        hold(proxy, "k", client)
    relay.hold("other")
    clients = [proxy.client() for _ in range(10)]
    for client in clients:
        client.send(b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n" * 20)
    proxy.wait_metric("dry_run_hits_total", 200)
    for client in clients:
        client.close()
    relay.cut("other")
    relay.flow("other")
    proxy.wait_metric("audits_skipped_total", 200, reason="link")
    proxy.assert_healthy()


def test_a_dry_run_leaves_large_values_and_tracking_clients_alone(start_proxy, redis_server):
    values = {"middle": "m" * 12000, "large": "l" * 100000, "huge": "h" * 3000000}
    redis_server.ask("MSET", *(text for pair in values.items() for text in pair))
    proxy = start_proxy(redis_server.url(), {**DRY, "large-reply": "256kb"})
    with proxy.client(3) as client, proxy.client(3) as tracker:
        tracker.ok("CLIENT", "TRACKING", "ON")
        for _ in range(4):
            for key, value in values.items():
                assert client.ok("GET", key) == value.encode()
                assert client.value("MGET", key, "none") == [value.encode(), None]
            assert tracker.ok("GET", "middle") == values["middle"].encode()
        redis_server.ask("SET", "middle", "x")
        assert tracker.read() == b">2\r\n$10\r\ninvalidate\r\n*1\r\n$6\r\nmiddle\r\n"
        wait_until(lambda: client.ok("GET", "middle") == b"x", 10, "the new value")
    found = settled(proxy)
    assert found.get("audits_skipped_total", reason="large") > 0
    assert found.get("stale_total") == 0


def test_servers_without_resp3_are_compared_in_resp2(tmp_path, start_proxy, start_redis):
    (tmp_path / "no-hello.conf").write_text('rename-command HELLO ""\n')
    server = start_redis([("include", tmp_path / "no-hello.conf")])
    proxy = start_proxy(server.url(), {**ALL, "ttl-mode-max": "1h"})
    server.ask("SET", "k", "1")
    server.ask("ZADD", "z", "1.5", "a")
    views = (("GET", "k"), ("HGETALL", "none"), ("ZRANGE", "z", "0", "-1", "WITHSCORES"),
             ("GET", "none"), ("ZSCORE", "z", "a"))
    with proxy.client() as client:
        for view in views:  # in this mode a key has one view
            for _ in range(4):
                client.ok(*view)
        found = settled(proxy)
        assert found.get("audits_total", result="same") >= 10
        assert found.get("stale_total") == 0
        server.ask("SET", "none", "2")
        client.ok("GET", "none")
        proxy.wait_metric("stale_total", 1, cause="ttl-mode")
        assert client.ok("GET", "none") == b"2"
