"""Reads from replicas: used where they are asked for, never behind what was shown before, gone with a
replica that lags or loses its master."""

import random
import threading

import pytest

from harness.resp import RawClient
from harness.servers import RedisCluster, key_slot
from harness.waiting import wait_until

pytestmark = pytest.mark.needs_proxy


def config(**more):
    return {"backend": {"topology-interval": "100ms"},
            "coherence": {"max-staleness": "500ms", "replica-max-lag": "2s", **more},
            "namespace shared": {"match": "r:*", "replica-reads": "on"}}


def uncached(**more):
    """Every read is a miss. (CACHE CLEAR would keep replicas from being asked for a while.)"""
    return {**config(**more), "cache": {"max-ttl": "1ms"}}


@pytest.fixture
def pair(start_redis):
    """A master with two replicas."""
    master = start_redis([("repl-diskless-sync-delay", "0")])
    replicas = [start_redis([("replicaof", f"127.0.0.1 {master.port}")]) for _ in range(2)]
    wait_until(lambda: master.info("replication").get("connected_slaves") in (2, "2"), 20,
               "the replicas to follow")
    return master, replicas


def reads_of(server):
    """How often GET was executed there."""
    line = server.info("commandstats").get("cmdstat_get", "calls=0")
    return int(str(line).split("calls=")[1].split(",")[0])


def replica_fetches(proxy):
    return proxy.metrics().get("replica_fetches_total")


def until_replicas_serve(proxy, key="r:probe"):
    """Reads of a key that nobody has written go to a replica, once it is proven to be near."""
    number = [0]

    def served():
        before = replica_fetches(proxy)
        number[0] += 1
        with proxy.client() as client:
            client.ok("GET", f"{key}{number[0]}")
        return replica_fetches(proxy) > before

    wait_until(served, 20, "a replica to serve a read")


def test_a_replica_is_read_where_it_is_asked_for(start_proxy, pair):
    master, replicas = pair
    for number in range(50):
        master.ask("MSET", f"r:{number}", number, f"m:{number}", number)
    proxy = start_proxy(master.url(), config=uncached())
    servers = (master, *replicas)

    def shares():
        """Who was asked for 50 keys of each namespace."""
        before = [reads_of(server) for server in servers]
        with proxy.client() as client:
            for number in range(50):
                assert client.ok("GET", f"r:{number}") == str(number).encode()
                assert client.ok("GET", f"m:{number}") == str(number).encode()
        return [reads_of(server) - count for server, count in zip(servers, before)]

    def are_shared():
        at_master, *at_replicas = shares()
        return at_master == 50 and sum(at_replicas) == 50 and min(at_replicas) > 5

    wait_until(are_shared, 20, "both replicas to serve")


def test_own_writes_are_read_at_once(start_proxy, pair):
    master, _ = pair
    proxy = start_proxy(master.url(), config=config())
    until_replicas_serve(proxy)
    with proxy.client() as client, proxy.client() as other:
        for turn in range(200):
            key = f"r:{turn % 7}"
            client.ok("SET", key, turn)
            assert client.ok("GET", key) == str(turn).encode()
            assert other.ok("STRLEN", key) == len(str(turn))


def test_a_change_at_the_master_reaches_what_a_replica_showed(start_proxy, pair):
    master, _ = pair
    master.ask("SET", "r:k", "before")
    proxy = start_proxy(master.url(), config=config())
    until_replicas_serve(proxy)
    with proxy.client() as client:
        assert client.ok("GET", "r:k") == b"before"
        master.ask("SET", "r:k", "after")
        wait_until(lambda: client.ok("GET", "r:k") == b"after", 10, "the replica's message")


def test_a_replica_that_stands_still_is_left(start_proxy, pair):
    """Its link to us is well: only its master knows that it hears nothing."""
    master, replicas = pair
    master.ask("SET", "r:k", "before")
    proxy = start_proxy(master.url(), config=config())
    until_replicas_serve(proxy)
    with proxy.client() as client:
        for number in range(20):
            assert client.ok("GET", "r:k") == b"before"
            client.ok("GET", f"r:{number}")
        for replica in replicas:
            # It follows a master that is not there: what it has stays, and is served.
            replica.ask("CONFIG", "SET", "replica-serve-stale-data", "yes")
            replica.ask("REPLICAOF", "127.0.0.1", "1")
        master.ask("SET", "r:k", "after")
        wait_until(lambda: client.ok("GET", "r:k") == b"after", 15, "what the replicas lack")
        for number in range(20):
            master.ask("SET", f"r:{number}", "new")
            assert client.ok("GET", f"r:{number}") == b"new"


def test_a_script_that_names_no_key_is_seen(start_proxy, pair):
    master, _ = pair
    proxy = start_proxy(master.url(), config=config())
    with proxy.client() as client:
        for turn in range(4):
            until_replicas_serve(proxy, f"r:probe{turn}-")
            client.ok("GET", "r:k")
            client.ok("EVAL", f"redis.call('set', 'r:k', '{turn}')", 0)
            assert client.ok("GET", "r:k") == str(turn).encode()


class Reader(threading.Thread):
    """Reads counters that only grow, in two views, on one connection: they never go back."""

    def __init__(self, address, keys, over):
        super().__init__()
        self._address, self._keys, self._over = address, keys, over
        self.problems, self.n = [], 0

    def run(self):
        seen = {}
        try:
            with RawClient(self._address, 3) as client:
                while not self._over.is_set():
                    key = random.choice(self._keys)
                    value = int(random.choice([
                        lambda: client.ok("GET", key),
                        lambda: client.ok("GETRANGE", key, 0, -1),
                        lambda: client.ok("MGET", key)[0]])() or 0)
                    if value < seen.get(key, 0):
                        self.problems.append((key, seen[key], value))
                    seen[key] = value
                    self.n += 1
        except Exception as error:  # pylint: disable=broad-except
            self.problems.append(repr(error))


@pytest.mark.long_test(120)
def test_no_connection_sees_a_key_go_back(start_proxy, pair):
    """With writes through the proxy and around it, replicas that pause, and links that break."""
    master, replicas = pair
    proxy = start_proxy(master.url(), config=config())
    until_replicas_serve(proxy)
    keys = [f"r:counter{number}" for number in range(6)]
    over = threading.Event()
    readers = [Reader(proxy.address, keys, over) for _ in range(4)]
    before = replica_fetches(proxy)
    for reader in readers:
        reader.start()
    with proxy.client() as through, master.client() as around:
        mine = {}
        for turn in range(1500):
            writer = through if turn % 3 == 0 else around
            key = random.choice(keys)
            value = writer.ok("INCR", key)
            mine[key] = value
            if writer is through and through.ok("GET", key) < str(value).encode() \
                    and int(through.ok("GET", key)) < value:
                readers[0].problems.append(("own write", key, value))
            if turn % 300 == 100:
                replicas[turn // 300 % 2].pause()
            if turn % 300 == 200:
                for replica in replicas:
                    replica.resume()
            if turn % 500 == 400:
                replicas[0].ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            if turn % 50 == 49:
                until_replicas_serve(proxy, f"r:probe{turn}-")
    for replica in replicas:
        replica.resume()
    over.set()
    for reader in readers:
        reader.join()
    assert [reader.problems[:3] for reader in readers] == [[]] * len(readers)
    assert sum(reader.n for reader in readers) > 1000
    assert replica_fetches(proxy) > before + 30


@pytest.mark.long_test(180)
def test_a_replica_that_starts_anew_is_proven_anew(start_proxy, tmp_path):
    """It shows what it had saved until it has synchronized, and its master takes its time."""
    cluster = RedisCluster(tmp_path / "cluster", masters=3, replicas=1, options=[
        ("repl-diskless-sync-delay", "0"), ("repl-backlog-size", "16kb")], node_timeout_ms=20000)
    cluster.start()
    try:
        proxy = start_proxy(cluster.url(), config={
            **uncached(**{"replica-max-lag": "20s"}),
            "backend": {"topology-interval": "100ms", "reconnect-min": "1ms", "reconnect-max": "10ms"}})
        master = cluster.owner(key_slot("t"))
        replica, = cluster.replicas_of(master)
        keys = [f"r:{number}{{t}}" for number in range(50)]

        with proxy.client() as client:
            def from_replica():
                before = replica_fetches(proxy)
                assert client.ok("MGET", *keys) == [b"after"] * len(keys)
                return replica_fetches(proxy) - before == len(keys)

            client.ok("MSET", *[word for key in keys for word in (key, "before")])
            assert master.ask("WAIT", 1, 10000) == 1
            replica.ask("SAVE")
            client.ok("MSET", *[word for key in keys for word in (key, "after")])
            master.ask("SET", "more than the backlog{t}", "x" * 100000)
            wait_until(from_replica, 20, "the written keys to be read from the replica")
            master.ask("CONFIG", "SET", "repl-diskless-sync-delay", 3600)
            replica.kill()
            replica.start()
            for _ in range(500):
                assert client.ok("MGET", *keys) == [b"after"] * len(keys)
            assert replica.info("replication")["master_link_status"] == "down"
            master.ask("CONFIG", "SET", "repl-diskless-sync-delay", 0)
    finally:
        cluster.stop()


@pytest.mark.long_test(180)
def test_replicas_of_a_cluster_and_a_failover(start_proxy, tmp_path):
    cluster = RedisCluster(tmp_path / "cluster", masters=3, replicas=1)
    cluster.start()
    try:
        proxy = start_proxy(cluster.url(), config=config())
        until_replicas_serve(proxy)
        with proxy.client() as client:
            for number in range(60):
                client.ok("SET", f"r:{number}", f"value {number}")

            def from_replicas():
                before = replica_fetches(proxy)
                for number in range(60):
                    assert client.ok("GET", f"r:{number}") == f"value {number}".encode()
                client.ok("CACHE", "CLEAR")
                return replica_fetches(proxy) - before >= 30

            wait_until(from_replicas, 20, "the written keys to be read from replicas")
            slot = key_slot("r:1")
            old = cluster.owner(slot)
            old.kill()

            def goes_on():
                return client.value("SET", "r:1", "after") == b"OK"

            wait_until(goes_on, 40, "the replica to take over")
            for _ in range(20):
                assert client.ok("GET", "r:1") == b"after"
            new = cluster.owner(slot)
            assert new is not old
            new.ask("SET", "r:1", "around")
            wait_until(lambda: client.ok("GET", "r:1") == b"around", 10, "the new master's message")
    finally:
        cluster.stop()

