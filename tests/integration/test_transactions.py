"""MULTI, EXEC, WATCH on connections of their own: the replies of Redis, the coherence of tier 1
around them, and nothing left behind when clients or servers go."""

import pathlib

import pytest

from harness.resp import RawClient, RespError, decode, encode
from harness.servers import key_slot
from harness.waiting import wait_until

SCRIPTS = {
    "plain": ["MULTI", "SET a 1", "INCR a", "GET a", "EXEC", "GET a"],
    "empty": ["MULTI", "EXEC", "MULTI", "DISCARD", "PING"],
    "without": ["EXEC", "DISCARD", "UNWATCH", "GET a"],
    "nested": ["MULTI", "MULTI", "WATCH a", "SET a 1", "EXEC", "GET a"],
    "unknown command": ["MULTI", "SET a 1", "FOO bar", "EXEC", "GET a"],
    "wrong arity": ["MULTI", "SET a", "SET a 1", "EXEC", "GET a"],
    "wrong arity of exec": ["MULTI", "SET a 1", "EXEC now", "EXEC", "GET a"],
    "error inside": ["SET a x", "MULTI", "INCR a", "SET b 2", "EXEC", "GET b"],
    "discard": ["SET a 1", "MULTI", "SET a 2", "DISCARD", "GET a", "EXEC"],
    "watch kept": ["SET a 1", "WATCH a", "GET a", "MULTI", "SET a 2", "EXEC", "GET a"],
    "watch broken by itself": ["WATCH a", "SET a 1", "MULTI", "SET a 2", "EXEC", "GET a"],
    "unwatch": ["WATCH a", "SET a 1", "UNWATCH", "MULTI", "SET a 2", "EXEC", "GET a"],
    "unwatch inside": ["WATCH a", "SET a 1", "MULTI", "UNWATCH", "SET a 2", "EXEC", "GET a"],
    "watch ends at exec": ["WATCH a", "MULTI", "EXEC", "SET a 1", "MULTI", "GET a", "EXEC"],
    "watch ends at discard": ["WATCH a", "SET a 1", "MULTI", "DISCARD", "MULTI", "GET a", "EXEC"],
    "two watches": ["WATCH a", "WATCH b c", "SET c 1", "MULTI", "GET a", "EXEC"],
    "watch, missing, deleted": ["WATCH none", "DEL none", "MULTI", "PING", "EXEC"],
    "keys of all kinds": ["MULTI", "RPUSH l 1 2", "SADD s x", "HSET h f v", "ZADD z 1 m",
                          "XADD x 1-1 f v", "LRANGE l 0 -1", "SMEMBERS s", "HGETALL h",
                          "ZRANGE z 0 -1 WITHSCORES", "XRANGE x - +", "EXEC"],
    "blocking does not block": ["MULTI", "BLPOP none 0", "XREAD BLOCK 0 STREAMS none $",
                                "WAIT 0 0", "EXEC", "PING"],
    "scripts": ["MULTI", "EVAL \"return redis.call('set','u','v')\" 0", "EXEC", "GET u"],
    "select stays": ["MULTI", "SELECT 3", "SET a three", "EXEC", "GET a", "SELECT 0", "GET a"],
    "select discarded": ["MULTI", "SELECT 3", "DISCARD", "SET a zero", "SELECT 3", "GET a"],
    "select refused": ["MULTI", "SELECT 99", "SET a 1", "EXEC", "GET a"],
    "flush": ["SET a 1", "GET a", "MULTI", "FLUSHALL", "SET b 1", "EXEC", "GET a", "GET b"],
    "publish": ["MULTI", "PUBLISH c m", "EXEC"],
    "reset": ["WATCH a", "MULTI", "SET a 1", "RESET", "EXEC", "GET a"],
    "local ones": ["MULTI", "PING", "ECHO x", "TIME extra", "EXEC"],
}


def split(line):
    """Words; what stands in double quotes is one."""
    outside = line.split('"')
    words = []
    for number, text in enumerate(outside):
        words += [text] if number % 2 else text.split()
    return words


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("name", SCRIPTS)
def test_answers_are_those_of_redis(proxy, reference, name, protocol):
    commands = [split(line) for line in SCRIPTS[name]]
    for in_one_piece in (False, True):
        answers = []
        for target in (reference, proxy):
            with target.client(protocol) as client:
                client.ok("FLUSHALL")
                client.ok("GET", "a")
                answers.append(client.pipeline(commands) if in_one_piece
                               else [client.ask(*command) for command in commands])
        assert answers[0] == answers[1]


def test_keys_of_a_transaction_leave_tier_1(proxy, redis_server):
    """W4: written and read keys alike, whoever had them cached; also where the script names none."""
    with proxy.client() as reader, proxy.client(3) as writer:
        for key in ("w", "r", "u"):
            redis_server.ask("SET", key, "old")
            assert reader.ok("GET", key) == b"old"
        writer.pipeline([("MULTI",), ("SET", "w", "new"), ("GET", "r"),
                         ("EVAL", "return redis.call('SET', 'u', 'new')", 0)])
        assert reader.ok("GET", "w") == b"old"
        writer.ok("EXEC")
        assert reader.ok("GET", "w") == b"new"
        assert reader.ok("GET", "u") == b"new"
        # Nothing that was queued but not executed drops anything.
        hits = proxy.metrics().get("hits_total")
        writer.pipeline([("MULTI",), ("SET", "w", "never"), ("DISCARD",)])
        assert reader.ok("GET", "w") == b"new"
        assert proxy.metrics().get("hits_total") == hits + 1


def test_a_slow_invalidation_does_not_matter(start_proxy, start_relay, redis_server):
    relay = start_relay(redis_server.address)
    slow = start_proxy(f"redis://127.0.0.1:{relay.address[1]}")
    relay.delay("tracking", to_proxy=0.2)
    with slow.client() as client:
        for number in range(5):
            client.ok("MULTI")
            client.ok("SET", "k", number)
            client.ok("EXEC")
            assert client.ok("GET", "k") == str(number).encode()
            assert client.ok("GET", "k") == str(number).encode()


def test_after_watch_nothing_comes_from_tier_1(proxy, redis_server):
    with proxy.client() as client:
        redis_server.ask("SET", "k", "v")
        client.ok("GET", "k")
        client.ok("MGET", "k", "k2")
        client.ok("WATCH", "k")
        before = proxy.metrics().get("hits_total")
        assert client.ok("GET", "k") == b"v"
        assert client.ok("MGET", "k", "k2") == [b"v", None]
        assert proxy.metrics().get("hits_total") == before
        client.ok("UNWATCH")
        client.ok("GET", "k")
        client.ok("GET", "k")
        assert proxy.metrics().get("hits_total") > before


@pytest.mark.parametrize("who", ["backend", "proxy"])
def test_a_foreign_write_aborts_a_watched_transaction(proxy, redis_server, who):
    with proxy.client() as client, proxy.client() as other:
        client.ok("WATCH", "k")
        if who == "backend":
            redis_server.ask("SET", "k", "foreign")
        else:
            other.ok("SET", "k", "foreign")
        client.ok("MULTI")
        client.ok("SET", "k", "mine")
        assert client.ask("EXEC") == b"*-1\r\n"
        assert client.ok("GET", "k") == b"foreign"


def test_increments_under_watch_are_never_lost(proxy):
    """Optimistic locking by several clients: each success counts once."""
    clients = [proxy.client() for _ in range(4)]
    done = 0
    for round_number in range(50):
        for client in clients:
            client.ok("WATCH", "n")
        values = [int(client.ok("GET", "n") or 0) for client in clients]
        for client, value in zip(clients, values):
            client.pipeline([("MULTI",), ("SET", "n", value + 1)])
        results = [client.ok("EXEC") for client in clients]
        assert sum(result is not None for result in results) == 1, round_number
        done += 1
    assert int(clients[0].ok("GET", "n")) == done
    for client in clients:
        client.close()


def leased(proxy):
    return proxy.metrics().get("leased_connections", state="taken")


def test_a_client_that_leaves_executes_nothing(proxy, redis_server):
    client = proxy.client()
    client.pipeline([("MULTI",), ("SET", "k", "v")])
    assert leased(proxy) == 1
    client.close()
    wait_until(lambda: leased(proxy) == 0, 5, "the connection to be given back")
    assert redis_server.ask("EXISTS", "k") == 0
    with proxy.client() as client:
        client.ok("WATCH", "k")
        assert leased(proxy) == 1
    wait_until(lambda: leased(proxy) == 0, 5, "the connection to be given back")


def test_connections_are_used_again(proxy, redis_server):
    with proxy.client() as client:
        client.pipeline([("MULTI",), ("PING",), ("EXEC",)])
        before = len(redis_server.ask("CLIENT", "LIST").splitlines())
        for _ in range(50):
            client.pipeline([("MULTI",), ("INCR", "n"), ("EXEC",)])
            client.pipeline([("WATCH", "n"), ("UNWATCH",)])
        assert len(redis_server.ask("CLIENT", "LIST").splitlines()) == before
        assert client.ok("GET", "n") == b"50"


def test_a_refused_transaction_leaves_no_watch_behind(start_proxy, redis_server):
    """Its connection goes to the next client."""
    proxy = start_proxy(redis_server.url(), threads=1)
    with proxy.client() as client, proxy.client() as other:
        for turn in range(3):
            client.ok("WATCH", "k")
            client.ok("MULTI")
            assert client.ask("SUBSCRIBE", "c").startswith(b"-ERR Command not allowed")
            assert client.ask("EXEC").startswith(b"-EXECABORT ")
            redis_server.ask("SET", "k", turn)
            other.ok("MULTI")
            other.ok("SET", "x", turn)
            assert other.ok("EXEC") == [b"OK"]


def test_a_refused_unwatch_leaves_no_watch_behind(start_proxy, start_redis):
    server = start_redis()
    server.ask("ACL", "SETUSER", "few", "on", ">secret", "~*", "&*", "+@all", "-unwatch")
    proxy = start_proxy(server.url().replace("redis://", "redis://few:secret@"), threads=1)
    with proxy.client() as client, proxy.client() as other:
        client.ok("WATCH", "k")
        assert client.ask("UNWATCH").startswith(b"-NOPERM ")
        server.ask("SET", "k", "v")
        other.ok("MULTI")
        other.ok("SET", "x", "v")
        assert other.ok("EXEC") == [b"OK"]


def test_a_lost_connection_aborts(proxy, redis_server):
    with proxy.client() as client:
        client.pipeline([("MULTI",), ("SET", "k", "v")])
        redis_server.ask("CLIENT", "KILL", "TYPE", "normal")
        wait_until(proxy.is_ready, 10, "the proxy to be back")
        answer = client.value("SET", "k2", "v")
        assert isinstance(answer, RespError)
        assert client.ask("EXEC").startswith(b"-EXECABORT ")
        wait_until(lambda: client.ask("GET", "k") == b"$-1\r\n", 10, "links to be up again")
        client.ok("WATCH", "k")
        redis_server.ask("CLIENT", "KILL", "TYPE", "normal")
        wait_until(lambda: client.ask("GET", "k") == b"$-1\r\n", 10, "links to be up again")
        client.ok("MULTI")
        client.ask("SET", "k", "v")
        assert client.ask("EXEC").startswith(b"-EXECABORT ")
        assert client.ok("GET", "k") is None
    assert leased(proxy) == 0


def test_a_client_that_is_closed_over_the_answer_to_watch(start_proxy, start_redis):
    """It does not read, and no connection is to be had for its WATCH."""
    server = start_redis()
    proxy = start_proxy("unix://" + server.unix_path, {
        "client-output-limit": "64kb", "client-output-soft-limit": 0})
    server.ask("SET", "k", "v" * 60000)
    with proxy.client() as client:
        client.ok("GET", "k")
        pathlib.Path(server.unix_path).rename(server.unix_path + ".away")
        client.send(encode("GET", "k") * 400 + encode("WATCH", "k"))
        wait_until(lambda: proxy.metrics().get("client_closed_total", reason="output-limit") == 1,
                   10, "the client to be closed")
    with proxy.client() as client:
        assert client.ok("PING") == b"PONG"


def test_where_multi_is_not_permitted_nothing_runs(start_proxy, start_redis):
    server = start_redis()
    server.ask("ACL", "SETUSER", "few", "on", ">secret", "~*", "&*", "+@all", "-multi")
    limited = start_proxy(server.url().replace("redis://", "redis://few:secret@"))
    with limited.client() as client:
        answers = client.pipeline([("MULTI",), ("SET", "k", "v"), ("EXEC",)])
        assert answers[1].startswith(b"-") and answers[2].startswith(b"-EXECABORT")
        answers = client.pipeline([("MULTI",), ("SET", "k", "v"), ("EXEC",)])
        assert answers[1].startswith(b"-") and answers[2].startswith(b"-EXECABORT")
        assert client.ok("GET", "k") is None


def test_leased_connections_are_limited(start_proxy, redis_server):
    small = start_proxy(redis_server.url(), {"leased-connections": "2"})
    with small.client() as first, small.client() as second, small.client() as third:
        for client in (first, second):
            client.pipeline([("MULTI",), ("INCR", "n")])
        assert third.pipeline([("MULTI",), ("INCR", "n"), ("EXEC",)])[1:] == [
            b"-ERR nearcached: all leased-connections are in use\r\n",
            b"-EXECABORT Transaction discarded because of previous errors.\r\n"]
        first.ok("EXEC")
        assert third.pipeline([("MULTI",), ("INCR", "n"), ("EXEC",)])[2] == b"*1\r\n:2\r\n"
    assert small.metrics().get("leases_refused_total") == 1


def test_what_a_transaction_cannot_hold_is_refused(proxy):
    for command in ("CLIENT ID", "HELLO 3", "CACHE INFO", "SUBSCRIBE c", "SHUTDOWN"):
        with proxy.client() as client:
            answers = client.pipeline([("MULTI",), command.split(), ("EXEC",)])
            assert answers[1] == b"-ERR Command not allowed inside a transaction\r\n", command
            assert answers[2].startswith(b"-EXECABORT "), command


# --- clusters -------------------------------------------------------------------------------------

def test_the_first_key_picks_the_node(cluster, cluster_proxy):
    with cluster_proxy.client() as client:
        for tag in ("a", "b", "c", "d"):
            key = "{%s}k" % tag
            answers = client.pipeline([("MULTI",), ("PING",), ("SET", key, tag), ("GET", key),
                                       ("EXEC",)])
            assert answers[:4] == [b"+OK\r\n"] + [b"+QUEUED\r\n"] * 3
            assert decode(answers[4]) == [b"PONG", b"OK", tag.encode()]
            assert cluster.owner(key_slot(key)).ask("GET", key) == tag.encode()
            assert client.ok("GET", key) == tag.encode()
        assert client.pipeline([("MULTI",), ("ECHO", "x"), ("EXEC",)])[2] == b"*1\r\n$1\r\nx\r\n"
        assert client.pipeline([("MULTI",), ("EXEC",)])[1] == b"*0\r\n"


def test_another_slot_is_refused(cluster_proxy):
    crossslot = b"-CROSSSLOT Keys in request don't hash to the same slot\r\n"
    with cluster_proxy.client() as client:
        answers = client.pipeline([("MULTI",), ("SET", "{a}1", 1), ("SET", "{b}1", 1), ("EXEC",)])
        assert answers[2] == crossslot and answers[3].startswith(b"-EXECABORT ")
        assert client.ok("MGET", "{a}1", "{b}1") == [None, None]
        answers = client.pipeline([("WATCH", "{a}1"), ("MULTI",), ("SET", "{b}1", 1), ("EXEC",)])
        assert answers[2] == crossslot and answers[3].startswith(b"-EXECABORT ")
        assert client.ask("WATCH", "{a}1", "{b}1") == crossslot
        answers = client.pipeline([("MULTI",), ("FLUSHALL",), ("EXEC",)])
        assert answers[1].startswith(b"-ERR ") and answers[2].startswith(b"-EXECABORT ")
        answers = client.pipeline([("MULTI",), ("SET", "x"), ("EXEC",)])
        assert answers[1] == b"-ERR wrong number of arguments for 'set' command\r\n"
        assert answers[2].startswith(b"-EXECABORT ")


def test_watch_on_a_cluster(cluster, cluster_proxy):
    with cluster_proxy.client() as client, cluster_proxy.client() as other:
        client.ok("WATCH", "{a}1")
        assert client.ok("GET", "{b}elsewhere") is None
        other.ok("SET", "{a}1", "foreign")
        assert client.pipeline([("MULTI",), ("SET", "{a}1", "mine"), ("EXEC",)])[2] == b"*-1\r\n"
        client.ok("WATCH", "{a}1")
        assert client.pipeline([("MULTI",), ("SET", "{a}1", "mine"), ("EXEC",)])[2] == \
            b"*1\r\n+OK\r\n"
        assert other.ok("GET", "{a}1") == b"mine"


def test_a_moved_slot_aborts_and_the_next_try_succeeds(cluster, cluster_proxy):
    key = "{moving}k"
    slot = key_slot(key)
    with cluster_proxy.client() as client:
        client.ok("SET", key, "before")
        client.ok("WATCH", key)
        client.ok("MULTI")
        source = cluster.owner(slot)
        target = next(node for node in cluster.masters() if node is not source)
        cluster.move_slot(slot, target)

        def attempt():
            answers = client.pipeline([("SET", key, "after"), ("EXEC",), ("MULTI",)])
            return decode(answers[1]) == [b"OK"]

        assert not attempt()
        wait_until(attempt, 10, "the transaction to succeed at the new owner")
        client.ok("DISCARD")
        assert client.ok("GET", key) == b"after"
