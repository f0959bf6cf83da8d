"""Large values stream: any size through bounded memory, and nobody else waits for them.

Most tests use a few ten megabytes: more than sockets and windows hold, so that a client that does
not read, or does not write on, really stops its transfer half-way. What others are answered
meanwhile is the proof, not how long it takes.
"""

import hashlib
import itertools
import os
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from random import Random

import pytest

from harness.proxy import is_sanitized
from harness.resp import RespError, decode, elements, encode
from harness.servers import free_port, key_slot
from harness.tls import Authority, TlsClient, TlsRedis, client_context
from harness.waiting import wait_until

pytestmark = pytest.mark.needs_proxy

MB = 1 << 20
PIECE = os.urandom(MB)
WHOLE = 512 * MB
STUCK = 48 * MB  # more than all buffers between a backend and a client


def pieces(size):
    while size > 0:
        yield PIECE[:size]
        size -= len(PIECE)


def digest(size):
    found = hashlib.blake2b()
    for piece in pieces(size):
        found.update(piece)
    return found.hexdigest()


def value(size):
    return b"".join(pieces(size))


def begin_set(client, key, size):
    client.send(b"*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n" % (len(key), key.encode(), size))


def send_value(client, size):
    for piece in pieces(size):
        client.send(piece)
    client.send(b"\r\n")


def read_header(client):
    """The first line of a reply; what follows it stays in client.buffer."""
    while b"\r\n" not in client.buffer:
        data = client.socket.recv(4096)
        assert data, "closed"
        client.buffer += data
    line, _, rest = bytes(client.buffer).partition(b"\r\n")
    client.buffer[:] = rest
    return line


def read_bulk(client, size):
    """The payload of a bulk whose header was read: its digest."""
    found, left = hashlib.blake2b(), size
    while left > 0:
        if not client.buffer:
            data = client.socket.recv(MB)
            assert data, "closed"
            client.buffer += data
        part = bytes(client.buffer[:left])
        del client.buffer[:len(part)]
        found.update(part)
        left -= len(part)
    while len(client.buffer) < 2:
        client.buffer += client.socket.recv(64)
    assert client.buffer[:2] == b"\r\n"
    del client.buffer[:2]
    return found.hexdigest()


def assert_small(proxy, base, limit=32 * MB):
    """Freed memory is kept aside by sanitizers: nothing can be said there."""
    if not is_sanitized():
        assert proxy.rss_bytes() - base < limit


def slow_client(proxy, protocol=2):
    return proxy.client(protocol, receive_buffer=64 * 1024, timeout=60)


def run_together(functions):
    """Each in a thread of its own; the first failure is raised."""
    with ThreadPoolExecutor(len(functions)) as pool:
        for future in [pool.submit(function) for function in functions]:
            future.result()


def is_stuck(proxy, direction="reply"):
    before = proxy.metrics()
    return before.get("large_stalls_total", direction=direction) > 0 and before.get(
        "large_transfers") > 0


def wait_stuck(proxy, direction="reply"):
    wait_until(lambda: is_stuck(proxy, direction), 20, "the transfer to be held back")


def assert_at_rest(proxy):
    """Nothing large is on its way, and no connection is held for it."""
    def at_rest():
        found = proxy.metrics()
        return (found.get("large_transfers") == 0
                and found.get("leased_connections", state="taken") == 0)
    wait_until(at_rest, 20, "all transfers to end")


def assert_others_are_served(proxy, protocol=2, keys=20):
    """Hits, misses, writes, pipelines, transactions of another client of the same worker."""
    with proxy.client(protocol) as other:
        for number in range(keys):
            key = f"other{number}"
            assert other.ok("SET", key, number) == b"OK"
            assert other.ok("GET", key) == other.ok("GET", key) == str(number).encode()
            assert other.ok("INCR", key) == number + 1
            assert other.ok("GET", key) == str(number + 1).encode()
        assert other.pipeline([("SET", "p", 1), ("GET", "p"), ("INCR", "p"), ("GET", "p"),
                               ("PTTL", "p"), ("GETDEL", "p"), ("GET", "p")])[3] == b"$1\r\n2\r\n"
        assert other.pipeline([("MULTI",), ("INCR", "t"), ("EXEC",)])[2] == b"*1\r\n:1\r\n"
        assert other.ok("DEL", "t") == 1
        assert other.ok("EVAL", "return redis.call('get', KEYS[1])", 1, "other1") == b"2"


@pytest.fixture
def one(start_proxy, redis_server):
    """One worker, so that everybody shares it. Keys that begin with raw: are not cached."""
    return start_proxy(redis_server.url(), threads=1,
                       config={"namespace raw": {"match": "raw:*", "cache": "off"}})


# --- 512 MB ---------------------------------------------------------------------------------------

def test_half_a_gigabyte_in_both_directions(one):
    """In bounded memory, also while the client stands still in the middle."""
    with slow_client(one) as client:
        client.ok("SET", "warm", value(2 * MB))
        assert client.ok("GET", "warm") == value(2 * MB)
        base = one.rss_bytes()
        begin_set(client, "big", WHOLE)
        for number, piece in enumerate(pieces(WHOLE)):
            client.send(piece)
            if number == 256:
                assert_others_are_served(one)
                assert_small(one, base)
        client.send(b"\r\n")
        assert client.read() == b"+OK\r\n"
        assert_small(one, base)
        client.send(encode("GET", "big"))
        assert read_header(client) == b"$%d" % WHOLE
        wait_stuck(one)
        assert_others_are_served(one)
        assert_small(one, base)
        assert read_bulk(client, WHOLE) == digest(WHOLE)
        assert_small(one, base)
        assert client.ok("DEL", "big") == 1
    assert_at_rest(one)


# --- others, while one is slow --------------------------------------------------------------------

@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("key", ["big", "raw:big"])
def test_a_slow_reader_delays_nobody(one, redis_server, key, protocol):
    redis_server.ask("SET", key, value(STUCK))
    with slow_client(one, protocol) as client:
        for _ in range(2):  # its size is not known at first, then it is
            client.send(encode("GET", key))
            assert read_header(client) == b"$%d" % STUCK
            wait_stuck(one)
            assert_others_are_served(one, protocol)
            assert read_bulk(client, STUCK) == digest(STUCK)
            assert client.ok("PING") == b"PONG"
    assert_at_rest(one)


def test_several_slow_readers(one, redis_server):
    """Of one key, known and not known as large, of a cached namespace and not."""
    for key in ("big", "raw:big"):
        redis_server.ask("SET", key, value(STUCK))
    clients = [slow_client(one, 2 + number % 2) for number in range(8)]
    base = one.rss_bytes()
    for number, client in enumerate(clients):
        client.send(encode("GET", "big" if number < 4 else "raw:big"))
    for client in clients:
        assert read_header(client) == b"$%d" % STUCK
    wait_stuck(one)
    assert_others_are_served(one)
    assert_small(one, base, 64 * MB)
    for client in clients:
        assert read_bulk(client, STUCK) == digest(STUCK)
        client.close()
    assert_at_rest(one)


def test_a_slow_writer_delays_nobody(one):
    with one.client() as client, one.client() as reader:
        assert client.ok("SET", "big", "old") == b"OK" and reader.ok("GET", "big") == b"old"
        begin_set(client, "big", STUCK)
        for number, piece in enumerate(pieces(STUCK)):
            client.send(piece)
            if number % 20 == 5:
                assert_others_are_served(one, keys=5)
                assert reader.ok("GET", "big") == b"old"
        client.send(b"\r\n")
        assert client.read() == b"+OK\r\n"
        # What tier 1 held is gone before the answer.
        assert reader.ok("STRLEN", "big") == STUCK
        assert reader.ok("GETRANGE", "big", 0, 3) == PIECE[:4]
    assert_at_rest(one)


def test_a_stopped_backend_holds_back_one_client_only_so_far(start_proxy, start_redis):
    """The window fills, and the time that a node may take counts while bytes wait."""
    server = start_redis()
    proxy = start_proxy(server.url(), {"request-timeout": "1s", "coherence": "ttl"}, threads=1)
    with proxy.client() as client:
        client.ok("SET", "k", value(2 * MB))  # leaves a connection for the next large request
        client.ok("SET", "k", "v")
        server.pause()
        try:
            begin_set(client, "big", 100 * MB)
            client.socket.settimeout(60)
            send_value(client, 100 * MB)
            assert client.read().startswith(b"-ERR nearcached: the backend")
        finally:
            server.resume()
        assert proxy.metrics().get("large_stalls_total", direction="request") > 0
        wait_until(lambda: client.value("GET", "k") == b"v", 10, "the node to prove itself")
        assert client.ok("EXISTS", "big") == 0
    assert_at_rest(proxy)


def test_what_was_sent_behind_a_large_reply_is_answered(start_proxy, start_relay, redis_server):
    """Reads are asked again elsewhere, writes wait until the link has been read out; the large
    reply itself, for a client that does not read, comes over another connection."""
    relay = start_relay(redis_server.address)
    proxy = start_proxy(f"redis://127.0.0.1:{relay.address[1]}", threads=1,
                        config={"namespace raw": {"match": "raw:*", "cache": "off"}})
    redis_server.ask("SET", "raw:big", value(STUCK))
    redis_server.ask("SET", "raw:small", "small")
    with slow_client(proxy) as client, proxy.client() as writer, proxy.client() as reader, \
            proxy.client() as both:
        assert writer.ok("SET", "k", 1) == b"OK"  # the link is up
        relay.hold("other")
        for count, (who, commands) in enumerate([
                (client, [("GET", "raw:big")]), (writer, [("INCR", "k")]),
                (reader, [("GET", "raw:small")]),
                (both, [("INCR", "n"), ("GET", "raw:small"), ("INCR", "n")])]):
            before = proxy.metrics().get("commands_total")
            who.send(b"".join([encode(*command) for command in commands]))
            wait_until(lambda: proxy.metrics().get("commands_total") >= before + len(commands), 10,
                       f"request {count}")
        relay.flow("other")
        assert reader.read() == b"$5\r\nsmall\r\n"
        assert writer.read() == b":2\r\n"
        assert [both.read() for _ in range(3)] == [b":1\r\n", b"$5\r\nsmall\r\n", b":2\r\n"]
        assert read_header(client) == b"$%d" % STUCK
        wait_stuck(proxy)
        assert_others_are_served(proxy)
        assert read_bulk(client, STUCK) == digest(STUCK)
        found = proxy.metrics()
        assert found.get("large_replies_repeated_total", reason="large") == 1
        assert found.get("large_replies_repeated_total", reason="behind") == 2
        assert found.get("links_left_total") == 1
    assert_at_rest(proxy)


# --- order ----------------------------------------------------------------------------------------

@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("prefix", ["", "raw:"])
def test_a_pipeline_with_large_ones_in_it_keeps_its_order(one, reference, prefix, protocol):
    """Reads never show a write behind them, nor miss one before them, on whatever connection."""
    big, half = value(6 * MB), value(3 * MB)
    key, other = prefix + "big", prefix + "other"
    commands = [("SET", key, "first"), ("GET", key), ("SET", key, big), ("GET", key),
                ("STRLEN", key), ("GET", key), ("GET", other), ("SET", other, "x"),
                ("GETRANGE", key, 0, 3 * MB), ("SET", key, "small"), ("GET", key), ("GET", other),
                ("SET", key, half), ("APPEND", key, "end"), ("GET", key), ("STRLEN", key),
                ("MGET", key, other, key), ("GETDEL", key), ("GET", key), ("ECHO", "end")]
    for _ in range(3):
        with one.client(protocol) as client, reference.client(protocol) as direct:
            expected = direct.pipeline(commands)
            answers = client.pipeline(commands)
            for command, answer, right in zip(commands, answers, expected):
                assert answer == right, (command[:2], answer[:40], right[:40])
    assert_at_rest(one)


def test_a_client_that_sends_all_before_it_reads(one, redis_server):
    """Requests and replies that are both more than sockets hold: it gets a wider window."""
    redis_server.ask("SET", "big", value(5 * MB))
    commands = [("GET", "big"), ("GET", "big"), ("SET", "k", value(20 * MB)), ("STRLEN", "k"),
                ("GET", "big"), ("SET", "k", value(5 * MB)), ("STRLEN", "k")]
    with one.client(receive_buffer=64 * 1024, timeout=30) as client:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024)
        for _ in range(2):
            answers = client.pipeline(commands)
            assert [len(answer) for answer in answers] == [5242892] * 2 + [5, 11, 5242892, 5, 10]
    assert_at_rest(one)


def test_many_large_ones_in_one_pipeline(one, redis_server):
    """One at a time, whatever was asked for: the windows of one client are one window."""
    for number in range(12):
        redis_server.ask("SET", f"big{number}", value((2 + number) * MB))
    with slow_client(one) as client:
        base = one.rss_bytes()
        client.send(b"".join([encode("GET", f"big{number}") + encode("STRLEN", f"big{number}")
                              for number in range(12)]))
        wait_stuck(one)
        assert one.metrics().get("leased_connections", state="taken") <= 1
        assert_small(one, base)
        for number in range(12):
            size = (2 + number) * MB
            assert read_header(client) == b"$%d" % size
            assert read_bulk(client, size) == digest(size)
            assert client.read() == b":%d\r\n" % size
    assert_at_rest(one)


def test_versions_of_a_key_never_go_back(start_proxy, redis_server):
    """Small and large versions in turn, over links that are left and joined again all the time.

    With the rules for links that are left switched off it finds versions that go back.
    """
    proxy = start_proxy(redis_server.url(),
                        {"large-request": "64kb", "large-reply": "64kb", "stream-window": "64kb"},
                        config={"namespace raw": {"match": "raw:*", "cache": "off"}})
    keys = ["a", "b", "raw:a", "raw:b"]
    end = time.monotonic() + 5
    acknowledged, wrong = dict.fromkeys(keys, 0), []
    for key in keys:
        redis_server.ask("SET", key, b"%010d" % 0)

    def write(key):
        random = Random(key)
        with proxy.client(timeout=30) as client:
            for number in itertools.count(1):
                if time.monotonic() > end:
                    return
                size = random.choice((10, 100, 50_000, 200_000, 2_000_000))
                client.ok("SET", key, (b"%010d" % number) * (size // 10))
                acknowledged[key] = number

    def read(seed):
        random, last = Random(seed), dict.fromkeys(keys, 0)
        with proxy.client(2 + seed % 2, timeout=30) as client:
            while time.monotonic() < end:
                floor, commands = dict(acknowledged), []
                for _ in range(random.randint(1, 8)):
                    key = random.choice(keys)
                    commands.append(random.choice([
                        ("GET", key), ("GETRANGE", key, 0, 9), ("GETRANGE", key, 0, 100_000),
                        ("EVAL_RO", "return redis.call('get', KEYS[1])", 1, key)]))
                for command, frame in zip(commands, client.pipeline(commands)):
                    key = command[-1] if command[0] == "EVAL_RO" else command[1]
                    found = decode(frame)
                    version = int(found[:10])
                    if (version < max(last[key], floor[key])
                            or found.count(found[:10]) != len(found) // 10):
                        wrong.append((command, version, last[key], floor[key]))
                    last[key] = version

    run_together([lambda key=key: write(key) for key in keys]
                 + [lambda seed=seed: read(seed) for seed in range(8)])
    assert not wrong, wrong[:5]
    assert proxy.metrics().get("links_left_total") > 0
    assert_at_rest(proxy)


# --- replies of every kind ------------------------------------------------------------------------

@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("prefix", ["", "raw:"])
def test_large_aggregates(one, redis_server, reference, prefix, protocol):
    long = [PIECE[at:at + 1000].hex() for at in range(0, 160_000, 40)]
    for server in (redis_server, reference):
        for at in range(0, len(long), 1000):
            part = long[at:at + 1000]
            server.ask("RPUSH", prefix + "list", *part)
            server.ask("HSET", prefix + "hash", *[text for each in part for text in (each[:30], each)])
            server.ask("ZADD", prefix + "zset", *[text for number, each in enumerate(part)
                                                  for text in (at + number, each)])
        server.ask("MSET", *[text for number in range(6)
                             for text in (f"{prefix}m{number}", value(3 * MB // 2))])
    commands = [("LRANGE", prefix + "list", 0, -1), ("HLEN", prefix + "hash"),
                ("ZRANGE", prefix + "zset", 0, -1, "WITHSCORES"), ("LLEN", prefix + "list"),
                ("MGET", *[f"{prefix}m{number}" for number in range(6)]),
                ("LRANGE", prefix + "list", 0, 5), ("DUMP", prefix + "list"),
                ("EVAL", "return redis.call('lrange', KEYS[1], 0, -1)", 1, prefix + "list"),
                ("MGET", *[f"{prefix}m{number}" for number in range(6)]),
                ("SORT", prefix + "list", "ALPHA"), ("LPOP", prefix + "list", 9999),
                ("LRANGE", prefix + "list", 0, -1)]
    with one.client(protocol, timeout=60) as client, reference.client(protocol) as direct:
        for _ in range(2):
            for command in commands[:-2]:
                assert client.ask(*command) == direct.ask(*command), command[0]
            # In whatever order the server has them.
            assert (set(elements(client.ask("HGETALL", prefix + "hash")))
                    == set(elements(direct.ask("HGETALL", prefix + "hash"))))
        assert client.pipeline(commands) == direct.pipeline(commands)
    assert_at_rest(one)


@pytest.mark.parametrize("protocol", [2, 3])
def test_in_a_transaction(one, redis_server, protocol):
    large = value(20 * MB)
    with slow_client(one, protocol) as client, one.client(protocol) as other:
        assert other.ok("GET", "k") is None
        answers = client.pipeline([("WATCH", "k"), ("MULTI",), ("SET", "k", large)])
        assert answers == [b"+OK\r\n", b"+OK\r\n", b"+QUEUED\r\n"]
        client.send(encode("GET", "k") + encode("GET", "k") + encode("EXEC") + encode("PING"))
        assert client.read() == client.read() == b"+QUEUED\r\n"
        assert read_header(client) == b"*3" and read_header(client) == b"+OK"
        wait_stuck(one)
        assert other.ok("STRLEN", "k") == len(large)
        for _ in range(2):
            assert read_header(client) == b"$%d" % len(large)
            assert read_bulk(client, len(large)) == digest(len(large))
        assert client.read() == b"+PONG\r\n"
        # Behind a WATCH it is passed on, and aborts what is watched.
        assert client.ok("WATCH", "k") == b"OK" and client.ok("SET", "k", large) == b"OK"
        assert client.pipeline([("MULTI",), ("GET", "k"), ("EXEC",)])[2] in (b"*-1\r\n", b"_\r\n")
        # More than is collected: EXEC executes nothing.
        client.send(encode("MULTI"))
        begin_set(client, "k", 100 * MB)
        send_value(client, 100 * MB)
        client.send(encode("EXEC") + encode("STRLEN", "k"))
        assert client.read() == b"+OK\r\n"
        assert client.read().startswith(b"-ERR nearcached: the request exceeds client-input-limit")
        assert client.read().startswith(b"-EXECABORT ")
        assert client.read() == b":%d\r\n" % len(large)
    assert_at_rest(one)


def test_a_blocking_command_with_a_large_element(one, redis_server):
    with slow_client(one) as client:
        client.send(encode("BLPOP", "l", 0))
        wait_until(lambda: one.metrics().get("blocked_clients") == 1, 10, "the client to block")
        with one.client() as other:
            assert other.ok("RPUSH", "l", value(STUCK)) == 1
        assert [read_header(client) for _ in range(2)] == [b"*2", b"$1"]
        assert read_header(client) == b"l" and read_header(client) == b"$%d" % STUCK
        wait_stuck(one)
        assert_others_are_served(one)
        assert read_bulk(client, STUCK) == digest(STUCK)
    assert_at_rest(one)


def test_mget_of_many_large_values(one, redis_server, cluster, cluster_proxy):
    """At first each key is a read of its own, a few large ones at a time; then it is passed on."""
    keys = [f"m{number}" for number in range(16)]
    expected = []
    with cluster_proxy.client() as client:
        for number, key in enumerate(keys):
            expected.append(value(2 * MB + number))
            redis_server.ask("SET", key, expected[-1])
            client.ok("SET", key, expected[-1])
    for proxy in (one, cluster_proxy):
        with proxy.client() as client:
            for _ in range(2):
                assert client.ok("MGET", *keys, "none", keys[0]) == expected + [None, expected[0]]
                assert client.ok("EXISTS", *keys) == len(keys)
            assert client.ok("DEL", *keys) == len(keys)
        assert_at_rest(proxy)


def test_a_script_with_a_large_reply(one, redis_server):
    """Its reply is not held to its end, and not shown before its fence."""
    redis_server.ask("SET", "big", value(STUCK))
    script = "redis.call('set', 'unnamed', ARGV[1]) return redis.call('get', KEYS[1])"
    with slow_client(one) as client, one.client() as other:
        for number in range(3):
            assert other.ok("GET", "unnamed") == other.ok("GET", "unnamed")
            client.send(encode("EVAL", script, 1, "big", number))
            assert read_header(client) == b"$%d" % STUCK
            assert other.ok("GET", "unnamed") == str(number).encode()
            wait_stuck(one)
            assert_others_are_served(one)
            assert read_bulk(client, STUCK) == digest(STUCK)
        client.send(encode("EVAL", script, 1, "big", "last"))
        read_header(client)
        wait_stuck(one)
    assert_at_rest(one)


def test_what_the_proxy_asks_for_itself_does_not_wait_behind_a_large_reply(one, redis_server):
    """A tag is kept at the backend, over the connection on which a large reply is on its way."""
    redis_server.ask("SET", "big", value(STUCK))
    slow = ("local t = redis.call('time')[1] repeat until redis.call('time')[1] - t >= 2 "
            "return redis.call('get', KEYS[1])")
    with slow_client(one) as client, one.client() as other:
        assert other.ok("SET", "raw:linked", "v") == b"OK"
        base = one.rss_bytes()
        client.send(encode("EVAL", slow, 1, "big"))
        time.sleep(0.2)  # it is sent before the tag
        other.send(encode("CACHE", "TAG", "key", "tag"))
        assert read_header(client) == b"$%d" % STUCK
        wait_stuck(one)
        assert_small(one, base)
        assert other.read() == b":1\r\n"
        assert read_bulk(client, STUCK) == digest(STUCK)
    assert_at_rest(one)


# --- requests of every kind -----------------------------------------------------------------------

@pytest.mark.parametrize("protocol", [2, 3])
def test_large_requests_are_answered_as_redis_does(one, reference, protocol):
    big = value(3 * MB)
    many = [f"member{number:07d}" for number in range(150_000)]
    commands = [("SET", "k", big), ("APPEND", "k", big), ("STRLEN", "k"),
                ("GETSET", "k", big), ("SET", "k", big, "GET"), ("SET", "k", big, "NX"),
                ("SETRANGE", "k", 10, big), ("SETEX", "k", 100, big), ("SETEX", "k", 0, big),
                ("RPUSH", "l", *many), ("LLEN", "l"), ("SADD", "s", *many), ("LPUSH", "k", big),
                ("SISMEMBER", "s", big), ("LPOS", "l", big), ("HSET", "h", "f", big, "g", "small"),
                ("HSET", "h", big, big), ("HGET", "h", "g"), ("HMGET", "h", big, "g"),
                ("EVAL", "return {#KEYS, #ARGV[1], redis.call('set', KEYS[1], ARGV[1])}", 1, "e", big),
                ("STRLEN", "e"), ("EVAL", "return #ARGV", 0, big), ("INCRBY", "k", big),
                ("SET", "k", big, "BAD", "OPTION"), ("GET", "k", big), ("PFADD", "p", *many),
                ("PFCOUNT", "p"), ("MSET", "a", big, "b", big), ("STRLEN", "b"), ("ECHO", big),
                ("NOSUCHCOMMAND", "k", big), ("XADD", "x", "1-1", "f", big), ("XLEN", "x"),
                ("PUBLISH", "c", big), ("ZADD", "z", 1, big, 2, "x"), ("ZSCORE", "z", "x")]
    with one.client(protocol, timeout=60) as client, reference.client(protocol) as direct:
        for command in commands:
            assert client.ask(*command) == direct.ask(*command), command[0]
        assert client.pipeline(commands) == direct.pipeline(commands)
    assert one.metrics().get("large_requests_total") >= 40
    assert_at_rest(one)


def test_silent_large_requests(one):
    with one.client() as client:
        big = value(2 * MB)
        client.send(encode("CLIENT", "REPLY", "SKIP") + encode("SET", "k", big) + encode("STRLEN", "k"))
        assert client.read() == b":%d\r\n" % len(big)
        client.send(encode("CLIENT", "REPLY", "OFF") + encode("APPEND", "k", big) +
                    encode("GET", "k") + encode("CLIENT", "REPLY", "ON"))
        assert client.read() == b"+OK\r\n"
        assert client.ok("STRLEN", "k") == 2 * len(big)
        client.send(encode("SET", "k", big) + encode("QUIT"))
        assert client.read_all() == b"+OK\r\n+OK\r\n"
    assert_at_rest(one)


@pytest.mark.parametrize("rest", [b"$x\r\n", b"$-1\r\n", b":1\r\n", b"$600000000\r\n"])
def test_what_is_no_request_any_more(one, reference, rest):
    begin = b"*4\r\n$3\r\nSET\r\n$1\r\nk\r\n$2000000\r\n" + b"x" * 2_000_000 + b"\r\n" + rest
    with one.client() as client, reference.client() as direct:
        client.send(begin)
        direct.send(begin)
        assert client.read_all() == direct.read_all()
    with one.client() as client:
        assert client.ok("EXISTS", "k") == 0
    assert_at_rest(one)


def test_one_user_may_and_another_may_not(start_proxy, start_redis):
    server = start_redis()
    for user, keys in (("alice", "a:*"), ("boss", "*")):
        server.ask("ACL", "SETUSER", user, "on", ">secret-" + user, "~" + keys, "&*", "+@all")
    proxy = start_proxy(server.url().replace("redis://", "redis://boss:secret-boss@"), threads=1)
    big = value(4 * MB)
    with proxy.client(user="alice", password="secret-alice") as alice:
        for key in ("a:1", "b:1"):
            alice.send(encode("SET", key, big))
        assert alice.read() == b"+OK\r\n" and alice.read().startswith(b"-NOPERM ")
        assert alice.ok("GET", "a:1") == alice.ok("GET", "a:1") == big
        assert alice.ask("GET", "b:1").startswith(b"-NOPERM ")
    with proxy.client() as own:
        assert own.ok("EXISTS", "b:1") == 0 and own.ok("GET", "a:1") == big
        assert alice.socket.fileno() == -1
    with proxy.client() as stranger:
        stranger.ok("CLIENT", "NO-EVICT", "off")
    assert_at_rest(proxy)


def test_clients_with_a_cache_are_told(one):
    """Of a large write by another; of one's own not, with NOLOOP."""
    with one.client(3) as writer, one.client(3) as reader:
        for client, options in ((writer, ["NOLOOP"]), (reader, [])):
            assert client.ok("CLIENT", "TRACKING", "ON", *options) == b"OK"
            assert client.ok("GET", "k") is None
        assert writer.ok("SET", "k", value(3 * MB)) == b"OK"
        assert decode(reader.read()) == [b"invalidate", [b"k"]]
        assert writer.ok("PING") == b"PONG"
        assert writer.ok("GET", "k") == reader.ok("GET", "k") == value(3 * MB)


def test_of_a_subscriber(one):
    """Messages come between replies, not within them."""
    with slow_client(one, 3) as client, one.client() as other:
        assert client.ok("SUBSCRIBE", "c") == [b"subscribe", b"c", 1]
        assert client.ok("SET", "k", value(STUCK)) == b"OK"
        client.send(encode("GET", "k"))
        assert read_header(client) == b"$%d" % STUCK
        wait_stuck(one)
        assert other.ok("PUBLISH", "c", "hello") == 1
        assert read_bulk(client, STUCK) == digest(STUCK)
        assert decode(client.read()) == [b"message", b"c", b"hello"]


@pytest.mark.parametrize("key", ["big", "raw:big"])
def test_through_tls_on_both_sides(start_proxy, tmp_path, key):
    """Records that were read and not taken yet are not forgotten when reading pauses."""
    authority = Authority(tmp_path / "ca")
    certificate = authority.issue("server")
    ca, port = str(authority.cert), free_port()
    server = TlsRedis(tmp_path / "redis", certificate).start()
    try:
        proxy = start_proxy(server.tls_url(), {
            "tls-listen": f"127.0.0.1:{port}", "tls-cert-file": certificate.cert,
            "tls-key-file": certificate.key, "tls-ca-file": ca, "backend-tls-ca-file": ca,
            "backend-tls-cert-file": certificate.cert, "backend-tls-key-file": certificate.key},
            threads=1, config={"namespace raw": {"match": "raw:*", "cache": "off"}})
        with TlsClient(("127.0.0.1", port), client_context(ca, certificate), timeout=60) as client:
            begin_set(client, key, STUCK)
            send_value(client, STUCK)
            assert client.read() == b"+OK\r\n"
            for _ in range(2):
                client.send(encode("GET", key))
                assert read_header(client) == b"$%d" % STUCK
                wait_stuck(proxy)
                assert_others_are_served(proxy, keys=5)
                assert read_bulk(client, STUCK) == digest(STUCK)
        assert_at_rest(proxy)
    finally:
        server.stop()


# --- ends in the middle ---------------------------------------------------------------------------

@pytest.mark.parametrize("how", ["close", "half-close"])
def test_a_writer_that_leaves_has_written_nothing(one, redis_server, how):
    with one.client() as other:
        other.ok("SET", "k", "old")
        client = one.client()
        begin_set(client, "k", STUCK)
        for piece in pieces(STUCK // 2):
            client.send(piece)
        wait_until(lambda: one.metrics().get("large_transfers") == 1, 10, "the transfer to begin")
        if how == "close":
            client.close()
        else:
            client.socket.shutdown(socket.SHUT_WR)
        assert_at_rest(one)
        assert other.ok("GET", "k") == b"old" == redis_server.ask("GET", "k")
        client.close()


@pytest.mark.parametrize("key", ["big", "raw:big"])
def test_a_reader_that_leaves_holds_nothing(one, redis_server, key):
    redis_server.ask("SET", key, value(STUCK))
    for _ in range(2):
        client = slow_client(one)
        client.send(encode("GET", key) + encode("INCR", "after"))
        read_header(client)
        wait_stuck(one)
        client.close()
        assert_at_rest(one)
    assert_others_are_served(one)


def test_a_pause_holds_large_requests(one, redis_server):
    with one.client() as client, one.client() as other:
        assert other.ok("CLIENT", "PAUSE", 100_000, "WRITE") == b"OK"
        begin_set(client, "k", 3 * MB)
        client.send(PIECE)
        wait_until(lambda: one.metrics().get("client_stalls_total", reason="client-pause") > 0, 10,
                   "the pause to hold it")
        assert one.metrics().get("large_transfers") == 0
        assert other.ok("CLIENT", "UNPAUSE") == b"OK"
        client.send(PIECE + PIECE + b"\r\n")
        assert client.read() == b"+OK\r\n"
        assert other.ok("STRLEN", "k") == 3 * MB


def test_a_request_under_way_is_taken_to_its_end(start_proxy, redis_server):
    """SIGTERM waits for it; other clients are gone by then."""
    proxy = start_proxy(redis_server.url(), {"drain-timeout": "20s"}, threads=1)
    with proxy.client() as client, proxy.client() as other:
        begin_set(client, "k", STUCK)
        client.send(PIECE)
        wait_until(lambda: proxy.metrics().get("large_transfers") == 1, 10, "the transfer")
        proxy.signal(signal.SIGTERM)
        assert other.read_all(20) == b""
        send_value(client, STUCK - MB)
        assert client.read_all(20) == b"+OK\r\n"
    assert proxy.wait_exit(20) == 0
    assert redis_server.ask("STRLEN", "k") == STUCK


def test_a_writer_that_stands_still_is_idle(start_proxy, redis_server):
    proxy = start_proxy(redis_server.url(), {"client-idle-timeout": "300ms",
                                             "request-timeout": "100ms"}, threads=1)
    with proxy.client() as client:
        begin_set(client, "k", STUCK)
        client.send(PIECE)
        assert client.read_all() == b""
    assert proxy.metrics().get("client_closed_total", reason="idle") == 1
    assert_at_rest(proxy)
    assert redis_server.ask("EXISTS", "k") == 0


def test_the_backend_dies_in_the_middle(start_proxy, start_redis):
    server = start_redis()
    proxy = start_proxy(server.url(), threads=1)
    with slow_client(proxy) as reader, proxy.client() as writer:
        writer.ok("SET", "big", value(STUCK))
        reader.send(encode("GET", "big"))
        read_header(reader)
        wait_stuck(proxy)
        begin_set(writer, "k", STUCK)
        writer.send(PIECE)
        server.kill()
        # The rest is taken and skipped; the answer comes in its place.
        for piece in pieces(STUCK - MB):
            writer.send(piece)
        writer.send(b"\r\n" + encode("ECHO", "behind"))
        assert writer.read().startswith(b"-ERR nearcached: no connection to the backend")
        assert writer.read() == b"$6\r\nbehind\r\n"
        # Half a reply cannot be taken back: the connection is closed.
        reader.read_all(30)
    assert_at_rest(proxy)


# --- clusters -------------------------------------------------------------------------------------

def test_a_slot_that_moves(cluster, cluster_proxy):
    """The node is asked before anything is sent: MOVED and ASK are followed also by what cannot be
    sent twice."""
    big = value(4 * MB)
    slot = key_slot("{lv}")
    source = cluster.owner(slot)
    target = next(node for node in cluster.masters() if node is not source)
    with cluster_proxy.client() as client:
        assert client.ok("SET", "{lv}", big) == b"OK"

        def meanwhile():
            assert client.ok("SET", "{lv}new", big) == b"OK"  # created behind an ASK
            assert client.ok("GET", "{lv}new") == big
            assert client.ok("GET", "{lv}") == big

        cluster.move_slot(slot, target, between=meanwhile)
        assert client.ok("SET", "{lv}", big + b"!") == b"OK"
        for _ in range(3):
            assert client.ok("GET", "{lv}") == big + b"!"
            assert client.ok("GET", "{lv}new") == big
        # It moves while the value is on its way: an error that clients may try again.
        begin_set(client, "{lv}", STUCK)
        for piece in pieces(STUCK // 2):
            client.send(piece)
        cluster.move_slot(slot, source)
        for piece in pieces(STUCK // 2):
            client.send(piece)
        client.send(b"\r\n")
        assert client.read().startswith(b"-TRYAGAIN ")
        assert client.ok("STRLEN", "{lv}") == len(big) + 1
        assert client.ok("SET", "{lv}", big) == b"OK"
        assert client.pipeline([("APPEND", "{lv}", big), ("STRLEN", "{lv}"), ("GET", "{lv}"),
                                ("DEL", "{lv}", "{lv}new")])[1] == b":%d\r\n" % (2 * len(big))
    assert_at_rest(cluster_proxy)


def test_large_replies_of_a_cluster(cluster, start_proxy):
    proxy = start_proxy(cluster.url(), threads=1,
                        config={"namespace raw": {"match": "raw:*", "cache": "off"}})
    cluster_client = cluster.client()
    for key in ("big", "raw:big"):
        cluster_client.ok("SET", key, value(STUCK))
    cluster_client.close()
    with slow_client(proxy) as client:
        for key in ("big", "raw:big"):
            for _ in range(2):
                client.send(encode("GET", key))
                assert read_header(client) == b"$%d" % STUCK
                wait_stuck(proxy)
                assert_others_are_served(proxy, keys=40)
                assert read_bulk(client, STUCK) == digest(STUCK)
    assert_at_rest(proxy)


def test_decode_sees_errors():
    """The helpers judge: a digest differs when a byte does."""
    assert isinstance(decode(b"-ERR x\r\n"), RespError)
    assert hashlib.blake2b(value(3 * MB)).hexdigest() == digest(3 * MB) != digest(3 * MB - 1)
