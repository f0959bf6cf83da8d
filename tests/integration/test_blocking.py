"""Commands that wait at the backend: exact timeouts, nothing popped for nobody, CLIENT UNBLOCK, WAIT,
and tier 1 around them."""

import time

import pytest

from harness.resp import RespError, decode, encode
from harness.servers import key_slot
from harness.waiting import wait_until


def blocked(proxy):
    return proxy.metrics().get("blocked_clients")


def leased(proxy):
    return proxy.metrics().get("leased_connections", state="taken")


def wait_blocked(proxy, server, count=1):
    """Until the backend itself says that so many clients wait there."""
    def waits():
        info = server.ask("INFO", "clients").decode()
        return f"blocked_clients:{count}\r\n" in info and blocked(proxy) == count
    wait_until(waits, 10, "the clients to block")


COMMANDS = {
    "blpop": ("BLPOP l1 l2 0", "RPUSH l2 x y"),
    "brpop": ("BRPOP l1 l2 0", "RPUSH l1 x y"),
    "blmove": ("BLMOVE l1 l2 LEFT RIGHT 0", "RPUSH l1 x y"),
    "brpoplpush": ("BRPOPLPUSH l1 l2 0", "RPUSH l1 x y"),
    "blmpop": ("BLMPOP 0 2 l1 l2 LEFT COUNT 2", "RPUSH l2 x y"),
    "bzpopmin": ("BZPOPMIN z1 z2 0", "ZADD z2 1.5 x 2 y"),
    "bzpopmax": ("BZPOPMAX z1 z2 0", "ZADD z1 1 x 2.25 y"),
    "bzmpop": ("BZMPOP 0 2 z1 z2 MIN COUNT 2", "ZADD z2 1 x 2 y"),
    "xread": ("XREAD COUNT 1 BLOCK 0 STREAMS s1 s2 $ $", "XADD s2 1-1 f v"),
    "xreadgroup": ("XREADGROUP GROUP g c BLOCK 0 STREAMS s >", "XADD s 1-1 f v"),
}


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("name", COMMANDS)
def test_blocks_until_served(proxy, redis_server, reference, name, protocol):
    command, service = COMMANDS[name]
    for server in (redis_server, reference):
        server.ask("XGROUP", "CREATE", "s", "g", "$", "MKSTREAM")
    with proxy.client(protocol) as client, reference.client(protocol) as direct:
        for target in (client, direct):
            target.send(encode(*command.split()) + encode("ECHO", "behind"))
        wait_blocked(proxy, redis_server)
        wait_until(lambda: b"blocked_clients:1\r\n" in reference.ask("INFO", "clients"), 10,
                   "the client of the other server to block")
        redis_server.ask(*service.split())
        reference.ask(*service.split())
        assert client.read() == direct.read()
        assert client.read() == direct.read() == b"$6\r\nbehind\r\n"
    assert leased(proxy) == 0 and blocked(proxy) == 0


@pytest.mark.parametrize("protocol", [2, 3])
def test_timeouts_and_errors_are_those_of_redis(proxy, reference, protocol):
    commands = [("BLPOP", "none", "0.05"), ("BLMOVE", "none", "b", "LEFT", "LEFT", "0.05"),
                ("BZPOPMIN", "none", "0.05"), ("BLMPOP", "0.05", 1, "none", "LEFT"),
                ("XREAD", "BLOCK", 50, "STREAMS", "none", "$"), ("BLPOP", "none", "-1"),
                ("BLPOP", "none", "x"), ("BLPOP", "none"), ("BLMPOP", 0, 0, "k", "LEFT"),
                ("XREAD", "BLOCK", "x", "STREAMS", "s", "$"), ("BRPOPLPUSH", "a", "b", "x"),
                ("WAIT", 0, 0), ("WAIT", "x", 0), ("WAIT", 0, -1), ("SET", "text", "v"),
                ("BLPOP", "text", 0), ("RPUSH", "l", 1, 2, 3), ("BLPOP", "l", 0),
                ("XADD", "s", "1-1", "f", "v"), ("XREAD", "BLOCK", 0, "STREAMS", "s", "0"),
                ("XREAD", "COUNT", 1, "STREAMS", "s", "0"), ("LRANGE", "l", 0, -1)]
    with proxy.client(protocol) as client, reference.client(protocol) as direct:
        assert client.pipeline(commands) == direct.pipeline(commands)


def test_a_timeout_is_kept_beyond_all_timeouts_of_the_proxy(start_proxy, redis_server):
    hasty = start_proxy(redis_server.url(), {"request-timeout": "100ms",
                                             "client-idle-timeout": "100ms",
                                             "link-idle-timeout": "100ms"})
    with hasty.client() as client:
        began = time.monotonic()
        assert client.ask("BLPOP", "none", "1.2") == b"*-1\r\n"
        assert time.monotonic() - began >= 1.2
        client.send(encode("BLPOP", "l", 0))
        wait_blocked(hasty, redis_server)
        time.sleep(0.5)  # longer than any of them
        redis_server.ask("RPUSH", "l", "x")
        assert decode(client.read()) == [b"l", b"x"]


def test_an_item_is_not_taken_for_nobody(proxy, redis_server):
    for is_half_closed in (False, True):
        client = proxy.client()
        client.send(encode("BLPOP", "l", 0))
        wait_blocked(proxy, redis_server)
        if is_half_closed:
            client.socket.shutdown(1)
        else:
            client.close()
        wait_blocked(proxy, redis_server, 0)
        assert redis_server.ask("RPUSH", "l", "x") == 1
        assert redis_server.ask("LPOP", "l") == b"x"
        client.close()
    assert leased(proxy) == 0


def test_what_is_popped_leaves_tier_1(proxy, redis_server):
    """Source and destination, whoever pushes."""
    with proxy.client() as client, proxy.client() as reader:
        redis_server.ask("RPUSH", "b", "old")
        assert reader.ok("LRANGE", "a", 0, -1) == [] and reader.ok("LLEN", "b") == 1
        client.send(encode("BLMOVE", "a", "b", "LEFT", "RIGHT", 0))
        wait_blocked(proxy, redis_server)
        assert reader.ok("RPUSH", "a", "x") == 1
        assert client.read() == b"$1\r\nx\r\n"
        assert reader.ok("LRANGE", "a", 0, -1) == []
        assert reader.ok("LRANGE", "b", 0, -1) == [b"old", b"x"]


def test_client_unblock(proxy, redis_server):
    with proxy.client() as client, proxy.client(3) as other:
        number = client.ok("CLIENT", "ID")
        assert other.ok("CLIENT", "UNBLOCK", number) == 0
        for arguments, answer in ((("TIMEOUT",), b"*-1\r\n"), ((), b"*-1\r\n"),
                                  (("ERROR",), b"-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n")):
            client.send(encode("BLPOP", "l", 0))
            wait_blocked(proxy, redis_server)
            assert other.ok("CLIENT", "UNBLOCK", number, *arguments) == 1
            assert client.read() == answer
        assert other.ok("CLIENT", "UNBLOCK", 999999) == 0


def test_client_unblock_words_errors_as_redis(proxy, reference):
    commands = [("CLIENT", "UNBLOCK", "x"), ("CLIENT", "UNBLOCK", 1, "SOON"),
                ("CLIENT", "UNBLOCK", -1), ("CLIENT", "UNBLOCK"), ("CLIENT", "UNBLOCK", 1, 2, 3)]
    with proxy.client() as client, reference.client() as direct:
        assert client.pipeline(commands) == direct.pipeline(commands)


def test_info_counts_and_kill_ends_them(proxy, redis_server):
    with proxy.client() as client, proxy.client() as other:
        number = client.ok("CLIENT", "ID")
        client.send(encode("BZPOPMIN", "z", 0))
        wait_blocked(proxy, redis_server)
        assert b"blocked_clients:1\r\n" in other.ok("INFO", "clients")
        assert other.ok("CLIENT", "KILL", "ID", number) == 1
        client.read_all()
        wait_blocked(proxy, redis_server, 0)


def test_a_lost_backend_ends_the_wait_with_an_error(start_proxy, start_redis):
    server = start_redis()
    own = start_proxy(server.url())
    with own.client() as client:
        client.send(encode("BLPOP", "l", 0))
        wait_blocked(own, server)
        server.ask("CLIENT", "KILL", "TYPE", "normal")
        assert isinstance(decode(client.read()), RespError)
        wait_until(lambda: client.ask("PING") == b"+PONG\r\n", 5, "the client to go on")


# --- clusters -------------------------------------------------------------------------------------

def test_blocking_on_a_cluster(cluster, cluster_proxy):
    with cluster_proxy.client() as client, cluster_proxy.client() as other:
        for tag in ("a", "b", "c", "d"):
            client.send(encode("BLPOP", "{%s}l" % tag, "{%s}m" % tag, 0))
            wait_blocked(cluster_proxy, cluster.owner(key_slot("{%s}" % tag)))
            other.ok("RPUSH", "{%s}m" % tag, tag)
            assert decode(client.read()) == [b"{%s}m" % tag.encode(), tag.encode()]
        assert client.ask("BLPOP", "{a}l", "{b}l", 0).startswith(b"-CROSSSLOT ")


def test_a_wait_follows_its_slot(cluster, cluster_proxy):
    key = "{wandering}l"
    slot = key_slot(key)
    source = cluster.owner(slot)
    with cluster_proxy.client() as client, cluster_proxy.client() as other:
        client.send(encode("BLPOP", key, 0))
        wait_blocked(cluster_proxy, source)
        target = next(node for node in cluster.masters() if node is not source)
        cluster.move_slot(slot, target)
        wait_blocked(cluster_proxy, target)
        other.ok("RPUSH", key, "x")
        assert decode(client.read()) == [key.encode(), b"x"]


def test_wait_counts_the_replicas_of_every_master(cluster, cluster_proxy):
    with cluster_proxy.client() as client:
        for number in range(20):
            client.ok("SET", f"k{number}", number)
        assert client.ok("WAIT", 1, 0) == 1
        assert client.ok("WAIT", 2, 50) == 1
