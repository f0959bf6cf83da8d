"""One plain Redis in front of a cluster: routing, redirections, split commands, all-node commands,
and nodes that move slots, stop, die and come back."""

import time

import pytest

from harness.proxy import Proxy
from harness.resp import RawClient, RespError, decode, encode
from harness.servers import RedisCluster, free_port, key_slot
from harness.waiting import wait_until

pytestmark = pytest.mark.needs_proxy

CROSSSLOT = b"-CROSSSLOT Keys in request don't hash to the same slot\r\n"
FAST = {"reconnect-min": "20ms", "reconnect-max": "200ms", "request-timeout": "1s"}


def keys_everywhere(cluster, per_master=1, prefix="k"):
    """Keys that lie on every master, in turn."""
    masters = cluster.masters()
    found = {id(master): [] for master in masters}
    number = 0
    while any(len(keys) < per_master for keys in found.values()):
        key = f"{prefix}{number}"
        owner = id(cluster.owner(key_slot(key)))
        if len(found[owner]) < per_master:
            found[owner].append(key)
        number += 1
    return [key for row in zip(*found.values()) for key in row]


def fails(value):
    return isinstance(value, RespError)


def test_keys_of_every_node_are_served_and_cached(cluster, cluster_proxy):
    keys = keys_everywhere(cluster, 20)
    with cluster_proxy.client() as client:
        for key in keys:
            assert client.ok("SET", key, f"value of {key}") == b"OK"
        hits = cluster_proxy.metrics().get("hits_total")
        for _ in range(3):
            for key in keys:
                assert client.ok("GET", key) == f"value of {key}".encode()
        assert cluster_proxy.metrics().get("hits_total") - hits == 2 * len(keys)
        for key in keys:
            assert cluster.owner(key_slot(key)).ask("GET", key) == f"value of {key}".encode()
    assert cluster_proxy.metrics().get("backend_nodes") >= 3


def test_a_pipeline_over_all_nodes_keeps_its_order(cluster, cluster_proxy):
    keys = keys_everywhere(cluster, 10)
    commands = []
    for number, key in enumerate(keys * 5):
        commands += [("SET", key, number), ("GET", key), ("INCR", key), ("GET", key)]
    with cluster_proxy.client() as client:
        replies = [decode(frame) for frame in client.pipeline(commands)]
    expected = []
    for number in range(len(keys) * 5):
        expected += [b"OK", str(number).encode(), number + 1, str(number + 1).encode()]
    assert replies == expected


def test_foreign_writes_on_every_node_are_seen(cluster, cluster_proxy):
    keys = keys_everywhere(cluster, 3)
    direct = cluster.client()
    with cluster_proxy.client() as client:
        for key in keys:
            assert client.ok("GET", key) is None
            direct.ok("SET", key, "foreign")
            wait_until(lambda: client.ok("GET", key) == b"foreign", 5, "the foreign write")
    direct.close()


# --- split and merge ------------------------------------------------------------------------------

@pytest.mark.parametrize("protocol", [2, 3])
def test_split_commands(cluster, cluster_proxy, protocol):
    a, b, c, d, e, f = keys_everywhere(cluster, 2)
    with cluster_proxy.client(protocol) as client:
        assert client.ok("MSET", a, "1", b, "2", c, "3", d, "4") == b"OK"
        for _ in range(2):
            assert client.ok("MGET", a, b, c, d, e) == [b"1", b"2", b"3", b"4", None]
            assert client.ok("MGET", a, b, a, e, b, a) == [b"1", b"2", b"1", None, b"2", b"1"]
            assert client.ok("EXISTS", a, a, b, e, a) == 4
        assert client.ok("TOUCH", a, b, e, f, a) == 3
        # Again what is cached in part.
        client.ok("GET", a)
        client.ok("SET", b, "20")
        assert client.ok("MGET", c, b, a) == [b"3", b"20", b"1"]
        client.ok("RPUSH", e, "x")
        assert client.ok("MGET", a, e, b) == [b"1", None, b"20"]
        assert client.ok("TYPE", e) == b"list"
        assert fails(client.value("GET", e))
        assert client.ok("MGET", e, e) == [None, None]
        assert client.ok("DEL", a, b, a, f) == 2
        assert client.ok("MGET", a, b, c) == [None, None, b"3"]
        assert client.ok("UNLINK", c, d, e, f) == 3
        assert client.ok("EXISTS", a, b, c, d, e, f) == 0
        assert client.ok("MSET", a, "first", a, "second", b, "x") == b"OK"
        assert client.ok("MGET", a, b) == [b"second", b"x"]


def test_split_commands_with_mistakes(cluster, cluster_proxy, reference):
    a, b, c = keys_everywhere(cluster)
    with cluster_proxy.client() as client, reference.client() as direct:
        for command in (("MSET", a), ("MSET", a, "1", b), ("MSET",), ("MGET",), ("DEL",),
                        ("EXISTS",), ("TOUCH",), ("UNLINK",)):
            assert client.ask(*command) == direct.ask(*command), command
        assert client.ok("EXISTS", a, b, c) == 0


def test_split_commands_of_a_thousand_keys(cluster, cluster_proxy):
    keys = [f"many{number}" for number in range(1000)]
    with cluster_proxy.client() as client:
        assert client.ok("MSET", *[each for key in keys for each in (key, "v" + key)]) == b"OK"
        for _ in range(2):
            assert client.ok("MGET", *keys) == [("v" + key).encode() for key in keys]
        assert client.ok("EXISTS", *keys, *keys) == 2000
        assert client.ok("DEL", *keys) == 1000
        assert client.ok("MGET", *keys) == [None] * 1000


def test_an_error_of_one_part_is_the_reply(cluster, cluster_proxy):
    """A part that the node refuses: out of memory there, fine elsewhere."""
    a, b, c = keys_everywhere(cluster)
    victim = cluster.owner(key_slot(b))
    victim.ask("CONFIG", "SET", "maxmemory", "1")
    try:
        with cluster_proxy.client() as client:
            error = client.value("MSET", a, "1", b, "2", c, "3")
            assert fails(error) and str(error).startswith("OOM"), error
            assert client.ok("PING") == b"PONG"
    finally:
        victim.ask("CONFIG", "SET", "maxmemory", "0")


def test_keys_of_several_slots_in_one_command(cluster, cluster_proxy):
    a, b, _ = keys_everywhere(cluster)
    commands = [("RENAME", a, b), ("SINTER", a, b), ("SUNIONSTORE", a, b, b),
                ("MSETNX", a, 1, b, 2),
                ("COPY", a, b), ("LMOVE", a, b, "LEFT", "LEFT"), ("LMPOP", 2, a, b, "LEFT"),
                ("PFMERGE", a, b), ("BITOP", "AND", a, b, b), ("ZINTERSTORE", a, 1, b),
                ("EVAL", "return 1", 2, a, b), ("SORT", a, "STORE", b), ("LCS", a, b),
                ("GEORADIUS", a, 1, 1, 1, "km", "STORE", b), ("SMOVE", a, b, "x")]
    with cluster_proxy.client() as client:
        refused = cluster_proxy.metrics().get("errors_total", kind="crossslot")
        for command in commands:
            assert client.ask(*command) == CROSSSLOT, command
        assert cluster_proxy.metrics().get("errors_total", kind="crossslot") - refused == len(
            commands)
        client.ok("SADD", "{tag}a", "1", "2")
        client.ok("SADD", "{tag}b", "2", "3")
        assert client.ok("SINTER", "{tag}a", "{tag}b") == [b"2"]
        assert client.ok("RENAME", "{tag}a", "{tag}c") == b"OK"
        assert client.ok("SUNIONSTORE", "{tag}d", "{tag}b", "{tag}c") == 3


def test_one_slot_renames_drop_both_ends(cluster, cluster_proxy):
    with cluster_proxy.client() as client:
        for number in range(50):
            client.ok("SET", "{r}source", number)
            client.ok("GET", "{r}source")
            client.ok("GET", "{r}target")
            client.ok("RENAME", "{r}source", "{r}target")
            assert client.ok("GET", "{r}target") == str(number).encode()
            assert client.ok("GET", "{r}source") is None


# --- all nodes ------------------------------------------------------------------------------------

def scan_all(client, *options):
    cursor, found, cursors = b"0", [], []
    while True:
        cursor, keys = client.ok("SCAN", cursor, *options)
        found += keys
        cursors.append(int(cursor))
        if cursor == b"0":
            return found, cursors
        assert len(cursors) < 10000


def test_scan_walks_through_all_nodes(cluster, cluster_proxy):
    wanted = {f"scan{number}".encode() for number in range(700)}
    with cluster_proxy.client() as client:
        client.ok("MSET", *[each for key in wanted for each in (key, b"v")])
        client.ok("RPUSH", "list", "x")
        found, cursors = scan_all(client)
        assert set(found) == wanted | {b"list"} and max(cursors) < 2 ** 53
        assert set(scan_all(client, "COUNT", "1000")[0]) == wanted | {b"list"}
        assert set(scan_all(client, "MATCH", "scan1*")[0]) == {
            key for key in wanted if key.startswith(b"scan1")}
        assert scan_all(client, "TYPE", "list")[0] == [b"list"]
        assert fails(client.value("SCAN", "notanumber"))
        assert fails(client.value("SCAN", "0", "COUNT", "x"))


def test_keys_dbsize_randomkey_flush(cluster, cluster_proxy):
    keys = keys_everywhere(cluster, 5)
    with cluster_proxy.client() as client, cluster_proxy.client(3) as three:
        for key in keys:
            client.ok("SET", key, "v")
            client.ok("GET", key)
        assert client.ok("DBSIZE") == len(keys)
        assert sorted(client.ok("KEYS", "*")) == sorted(key.encode() for key in keys)
        assert sorted(three.ok("KEYS", "*")) == sorted(key.encode() for key in keys)
        assert client.ok("KEYS", "nosuch*") == []
        assert client.ok("RANDOMKEY").decode() in keys
        assert client.ok("FLUSHALL") == b"OK"
        assert client.ok("MGET", *keys) == [None] * len(keys)
        assert [client.ok("GET", key) for key in keys] == [None] * len(keys)
        assert client.ok("DBSIZE") == 0 and client.ok("RANDOMKEY") is None
        for key in keys:
            client.ok("SET", key, "v")
        assert client.ok("FLUSHDB", "SYNC") == b"OK" and client.ok("DBSIZE") == 0


def test_scripts_and_functions_are_on_every_node(cluster, cluster_proxy):
    keys = keys_everywhere(cluster, 2)
    with cluster_proxy.client() as client:
        client.ok("SCRIPT", "FLUSH")
        sha = client.ok("SCRIPT", "LOAD", "return redis.call('SET', KEYS[1], ARGV[1])")
        assert client.ok("SCRIPT", "EXISTS", sha, "0" * 40) == [1, 0]
        for key in keys:
            client.ok("GET", key)
            assert client.ok("EVALSHA", sha, 1, key, "by script") == b"OK"
            assert client.ok("GET", key) == b"by script"
        cluster.owner(key_slot(keys[0])).ask("SCRIPT", "FLUSH")
        assert str(client.value("EVALSHA", sha, 1, keys[0], "x")).startswith("NOSCRIPT")
        assert client.ok("SCRIPT", "EXISTS", sha) == [0]
        client.ok("SCRIPT", "FLUSH")
        assert str(client.value("EVALSHA", sha, 1, keys[1], "x")).startswith("NOSCRIPT")
        library = ("#!lua name=nclib\nredis.register_function('nccset', function(keys, args) "
                   "return redis.call('SET', keys[1], args[1]) end)")
        assert client.ok("FUNCTION", "LOAD", "REPLACE", library) == b"nclib"
        for key in keys:
            assert client.ok("FCALL", "nccset", 1, key, "by function") == b"OK"
            assert client.ok("GET", key) == b"by function"
        assert fails(client.value("FUNCTION", "LOAD", library))
        assert client.ok("FUNCTION", "DELETE", "nclib") == b"OK"
        assert all(fails(client.value("FCALL", "nccset", 1, key, "x")) for key in keys)


def test_it_looks_like_one_plain_redis(cluster, cluster_proxy):
    with cluster_proxy.client() as client, cluster_proxy.client(3) as three:
        assert client.ok("SELECT", 0) == b"OK"
        with RawClient(cluster.masters()[0].address) as direct:
            assert client.ask("SELECT", 1) == direct.ask("SELECT", 1)
        hello = three.ok("HELLO", 3)
        assert hello[b"mode"] == b"standalone" and hello[b"role"] == b"master"
        info = client.ok("INFO").decode()
        assert "redis_mode:standalone" in info and "role:master" in info
        assert client.ask("CLUSTER", "INFO") == (
            b"-ERR This instance has cluster support disabled\r\n")
        assert fails(client.value("READONLY"))
        assert client.ok("ROLE")[0] == b"master"
        assert client.ok("CONFIG", "GET", "maxmemory-policy") == [b"maxmemory-policy",
                                                                  b"noeviction"]
        assert client.ok("CONFIG", "SET", "maxmemory-samples", "6") == b"OK"
        assert {node.ask("CONFIG", "GET", "maxmemory-samples")[1]
                for node in cluster.masters()} == {b"6"}
        client.ok("CONFIG", "SET", "maxmemory-samples", "5")
        for command in ("NOSUCH a b", "GET", "GET a b", "SET a", "XINFO NOSUCH"):
            assert fails(client.value(*command.split()))
        assert client.ok("PING") == b"PONG"


# --- slots that move ------------------------------------------------------------------------------

def test_moved_slots_are_followed(cluster, cluster_proxy):
    slot = key_slot("{mv}0")
    source = cluster.owner(slot)
    target = next(node for node in cluster.masters() if node is not source)
    with cluster_proxy.client() as client:
        for number in range(20):
            client.ok("SET", f"{{mv}}{number}", number)
            client.ok("GET", f"{{mv}}{number}")
        redirects = cluster_proxy.metrics().get("redirects_total")
        cluster.move_slot(slot, target)
        for number in range(20):
            assert client.ok("GET", f"{{mv}}{number}") == str(number).encode()
            assert client.ok("INCR", f"{{mv}}{number}") == number + 1
            assert client.ok("GET", f"{{mv}}{number}") == str(number + 1).encode()
        wait_until(lambda: cluster_proxy.metrics().get("redirects_total") > redirects
                   or cluster_proxy.metrics().get("topology_changes_total") > 0, 10,
                   "the move to be noticed")

        def hits_again():
            before = cluster_proxy.metrics().get("hits_total")
            client.ok("GET", "{mv}1")
            client.ok("GET", "{mv}1")
            return cluster_proxy.metrics().get("hits_total") > before

        wait_until(hits_again, 10, "the slot to be cached again")
        # What the new owner is told directly is seen: the entry depends on its link now.
        target.ask("SET", "{mv}1", "foreign")
        wait_until(lambda: client.ok("GET", "{mv}1") == b"foreign", 5, "the foreign write")


def test_a_migration_is_followed_key_by_key(cluster, cluster_proxy):
    """ASK for what has gone, TRYAGAIN for what is half there, none of it for the client."""
    slot = key_slot("{as}0")
    source = cluster.owner(slot)
    target = next(node for node in cluster.masters() if node is not source)
    with cluster_proxy.client() as client:
        for number in range(30):
            client.ok("SET", f"{{as}}{number}", number)

        def all_there():
            for number in range(30):
                key = f"{{as}}{number}"
                assert client.ok("GET", key) == str(number).encode()
                assert client.ok("SET", key, number) == b"OK"
                assert client.ok("EXISTS", key) == 1
            assert client.ok("GET", "{as}none") is None
            # Known only at the target now: created there behind an ASK.
            client.ok("SET", "{as}new", "n")
            assert client.ok("GET", "{as}new") == b"n"

        all_there()
        cluster.move_slot(slot, target, between=all_there)
        all_there()
        assert client.ok("MGET", "{as}1", "{as}2") == [b"1", b"2"]
        metrics = cluster_proxy.metrics()
        assert metrics.get("redirects_total", kind="ask") > 0


def test_tryagain_ends_with_the_migration(cluster, cluster_proxy):
    """A command of two keys while one of them has moved waits in vain, bounded, then works."""
    slot = key_slot("{ta}a")
    source = cluster.owner(slot)
    target = next(node for node in cluster.masters() if node is not source)
    with cluster_proxy.client() as client:
        client.ok("MSET", "{ta}a", "1", "{ta}b", "2")
        target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", cluster.node_id(source))
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", cluster.node_id(target))
        source.ask("MIGRATE", "127.0.0.1", target.port, "{ta}a", 0, 5000)
        begun = time.monotonic()
        value = client.value("PFCOUNT", "{ta}a", "{ta}b")
        assert fails(value) and time.monotonic() - begun < 20, value

        source.ask("MIGRATE", "127.0.0.1", target.port, "{ta}b", 0, 5000)
        for node in (target, source):
            node.ask("CLUSTER", "SETSLOT", slot, "NODE", cluster.node_id(target))
        wait_until(lambda: client.value("MGET", "{ta}a", "{ta}b") == [b"1", b"2"], 10,
                   "the migrated keys")
        assert client.ok("RENAME", "{ta}a", "{ta}c") == b"OK"


# --- nodes that go away ---------------------------------------------------------------------------

def works_everywhere(proxy, keys):
    def attempt():
        with proxy.client(timeout=20) as client:
            for key in keys:
                if client.value("SET", key, "again") != b"OK":
                    return False
                if client.value("GET", key) != b"again":
                    return False
        return True
    return attempt


@pytest.mark.long_test(200)
@pytest.mark.parametrize("how", ["kill", "pause", "failover"])
def test_a_node_goes_and_all_recovers(start_proxy, cluster, how):
    """Errors within the timeouts, the other nodes undisturbed, recovery without a restart."""
    proxy = start_proxy(cluster.url(), FAST)
    keys = keys_everywhere(cluster, 2)
    victim = cluster.masters()[0]
    heir = cluster.replicas_of(victim)[0]
    lost = [key for key in keys if cluster.owner(key_slot(key)) is victim]
    kept = [key for key in keys if key not in lost]
    with proxy.client(timeout=30) as client:
        for key in keys:
            client.ok("SET", key, "v")
            client.ok("GET", key)
        if how == "failover":
            heir.ask("CLUSTER", "FAILOVER")
        else:
            getattr(victim, how)()
        slowest = 0.0
        for _ in range(10):
            for key in kept:
                assert client.ok("GET", key) == b"v"
                assert client.ok("SET", key, "v") == b"OK"
            for key in lost:
                begun = time.monotonic()
                client.value("SET", key, "v")
                slowest = max(slowest, time.monotonic() - begun)
        # request-timeout, connect-timeout and a refresh of the map: not one of them twice over.
        assert slowest < 10, f"an answer took {slowest:.1f} s"
        wait_until(lambda: heir in cluster.masters(), 30, "the promotion")
        wait_until(works_everywhere(proxy, keys), 20, "all keys to work again")
    cluster.heal()
    wait_until(works_everywhere(proxy, keys), 20, "all keys to work after the node came back")
    proxy.assert_healthy()


def test_dead_seeds_do_not_matter(start_proxy, cluster):
    url = "redis://" + ",".join([f"127.0.0.1:{free_port()}" for _ in range(3)]
                                + [f"127.0.0.1:{cluster.nodes[-1].port}"])
    proxy = start_proxy(url, FAST)
    keys = keys_everywhere(cluster)
    assert works_everywhere(proxy, keys)()


def test_a_replica_as_the_only_seed(start_proxy, cluster):
    replica = next(node for node in cluster.nodes if node not in cluster.masters())
    proxy = start_proxy(f"redis://127.0.0.1:{replica.port}", FAST)
    assert works_everywhere(proxy, keys_everywhere(cluster))()


def test_the_seed_dies_and_the_rest_is_known(start_proxy, tmp_path):
    cluster = RedisCluster(tmp_path / "small", 3, 0,
                           options=[("cluster-require-full-coverage", "no")]).start()
    try:
        seed = cluster.nodes[0]
        proxy = start_proxy(f"redis://127.0.0.1:{seed.port}", FAST)
        keys = keys_everywhere(cluster)
        wait_until(works_everywhere(proxy, keys), 10, "all keys to work")
        others = [key for key in keys if cluster.owner(key_slot(key)) is not seed]
        seed.kill()
        with proxy.client(timeout=20) as client:
            for _ in range(5):
                for key in others:
                    assert client.ok("SET", key, "v") == b"OK"
                    assert client.ok("GET", key) == b"v"
                assert fails(client.value("SET", keys[0], "v"))
        seed.start()
        wait_until(works_everywhere(proxy, keys), 20, "the seed's keys to work again")
    finally:
        cluster.stop()


def test_start_with_the_whole_cluster_away(tmp_path):
    cluster = RedisCluster(tmp_path / "late", 3, 0)
    proxy = Proxy(tmp_path / "proxy", cluster.url(), FAST, wait="alive").start()
    try:
        with proxy.client(timeout=20) as client:
            assert fails(client.value("SET", "k", "v"))
        cluster.start()
        wait_until(proxy.is_ready, 20, "readiness")
        wait_until(works_everywhere(proxy, keys_everywhere(cluster)), 20, "all keys to work")
        proxy.stop()
    finally:
        proxy.kill()
        cluster.stop()


def test_a_node_that_is_cut_off_from_the_majority_is_not_believed(start_proxy, tmp_path):
    """It answers PING and says cluster_state:fail: a newer master may exist that nobody here sees."""
    small = RedisCluster(tmp_path / "small", 3, 0)
    small.start()
    try:
        own = start_proxy(small.url(), {**FAST, "max-staleness": "500ms"})
        keys = keys_everywhere(small)
        with own.client() as client:
            for key in keys:
                client.ok("SET", key, "v")
                client.ok("GET", key)
                assert client.ok("GET", key) == b"v"
            survivor = small.masters()[0]
            kept = next(key for key in keys if small.owner(key_slot(key)) is survivor)
            for node in small.masters()[1:]:
                node.kill()
            wait_until(lambda: b"cluster_state:fail" in survivor.ask("CLUSTER", "INFO"), 20,
                       "the survivor to notice")
            wait_until(lambda: fails(client.value("GET", kept)), 10, "tier 1 to stop answering")
            assert fails(client.value("GET", kept))
    finally:
        small.stop()


def test_a_missing_key_that_is_created_during_a_migration_is_seen(start_proxy, cluster):
    """Its source sends no message for what comes into being at the importing node."""
    own = start_proxy(cluster.url(), {"negative-ttl": "10m"})
    key = "{importing}k"
    slot = key_slot(key)
    target = next(node for node in cluster.masters() if node is not cluster.owner(slot))
    with own.client() as client:
        assert client.ok("GET", key) is None

        def create():
            with RawClient(("127.0.0.1", target.port)) as direct:
                direct.pipeline([("ASKING",), ("SET", key, "created")])
            wait_until(lambda: client.ok("GET", key) == b"created", 10, "the key to be seen")

        create_once = [create]
        cluster.move_slot(slot, target, lambda: create_once and create_once.pop()())
        assert client.ok("GET", key) == b"created"


def test_a_cold_read_waits_like_a_write_while_the_cluster_is_down(start_proxy, tmp_path):
    small = RedisCluster(tmp_path / "small", 3, 0)
    small.start()
    try:
        own = start_proxy(small.url(), {"request-timeout": "10s"})
        survivor = small.masters()[0]
        key = next(key for key in keys_everywhere(small)
                   if small.owner(key_slot(key)) is survivor)
        survivor.ask("SET", key, "v")
        with own.client() as client:
            assert client.ok("GET", "{%s}other" % key) is None
            for node in small.masters()[1:]:
                survivor.ask("CLUSTER", "FORGET", small.node_id(node))
            survivor.ask("CONFIG", "SET", "cluster-require-full-coverage", "yes")
            wait_until(lambda: b"cluster_state:fail" in survivor.ask("CLUSTER", "INFO"), 20,
                       "the node to be down")
            client.send(encode("GET", key))
            survivor.ask("CONFIG", "SET", "cluster-require-full-coverage", "no")
            assert decode(client.read()) == b"v"
    finally:
        small.stop()
