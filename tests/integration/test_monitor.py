"""MONITOR: the lines of all masters, between the client's replies."""

import pytest

from harness.resp import encode
from harness.servers import key_slot
from harness.waiting import wait_until


def lines_until(client, text):
    lines = []
    while not lines or text not in lines[-1]:
        lines.append(client.read())
    return lines


def leased(proxy):
    return proxy.metrics().get("leased_connections", state="taken")


@pytest.mark.parametrize("protocol", [2, 3])
def test_lines_come_as_the_backend_words_them(proxy, redis_server, protocol):
    with proxy.client(protocol) as monitor, proxy.client() as client, \
            redis_server.client() as direct:
        assert monitor.ask("MONITOR") == b"+OK\r\n"
        assert direct.ask("MONITOR") == b"+OK\r\n"
        client.ok("SET", "key", "a \"value\"\n")
        client.ok("EVAL", "return redis.call('GET', 'key')", 0)
        client.ok("SET", "last", "one")
        mine = lines_until(monitor, b'"last"')
        theirs = lines_until(direct, b'"last"')
        interesting = [line for line in theirs if b'"key"' in line or b"EVAL" in line]
        assert interesting and all(line in mine for line in interesting)
        # It may go on as a client.
        monitor.send(encode("GET", "key"))
        assert lines_until(monitor, b"a \"value\"")[-1] == b"$10\r\na \"value\"\n\r\n"
    wait_until(lambda: leased(proxy) == 0, 5, "its connection to be closed")


def test_reset_ends_it(proxy):
    with proxy.client() as monitor, proxy.client() as client:
        monitor.ask("MONITOR")
        monitor.send(encode("RESET"))
        lines_until(monitor, b"RESET")
        client.ok("SET", "k", "v")
        while monitor.ask("PING") != b"+PONG\r\n":
            pass
        assert monitor.ask("GET", "k") == b"$1\r\nv\r\n"
    assert leased(proxy) == 0


def test_a_lost_backend_ends_it(start_proxy, start_redis):
    server = start_redis()
    own = start_proxy(server.url())
    with own.client() as monitor:
        monitor.ask("MONITOR")
        server.kill()
        monitor.read_all()
    with own.client() as monitor:
        assert monitor.ask("MONITOR").startswith(b"-ERR nearcached: ")
        assert monitor.ask("PING") == b"+PONG\r\n"
    server.start()


def test_all_masters_of_a_cluster(cluster, cluster_proxy):
    with cluster_proxy.client() as monitor, cluster_proxy.client() as client:
        assert monitor.ask("MONITOR") == b"+OK\r\n"
        assert leased(cluster_proxy) == len(cluster.masters())
        keys = [f"seen{number}" for number in range(9)]
        assert len({id(cluster.owner(key_slot(key))) for key in keys}) == len(cluster.masters())
        for key in keys:
            client.ok("SET", key, "v")
        missing = set(keys)
        while missing:
            line = monitor.read()
            missing -= {key for key in missing if b'"%s"' % key.encode() in line}
    wait_until(lambda: leased(cluster_proxy) == 0, 5, "its connections to be closed")


def words(lines):
    """What was asked for, by connections and not by scripts."""
    return [line.partition(b'] "')[2].partition(b'"')[0] for line in lines]


@pytest.mark.parametrize("protocol", [2, 3])
def test_what_the_proxy_asks_for_itself_is_left_out(start_proxy, start_redis, protocol):
    server = start_redis()
    proxy = start_proxy(server.url(), {"fence-interval": "1ms"})
    with proxy.client() as monitor, proxy.client(protocol) as client, server.client() as direct:
        direct.ask("MONITOR")
        monitor.ask("MONITOR")
        client.ok("SELECT", 3)
        client.ok("SET", "key", "v")
        client.ok("GET", "key")
        client.send(encode("Multi") + encode("INCR", "n") + encode("SELECT", 1) + encode("Exec"))
        client.send(encode("MULTI") + encode("INCR", "n") + encode("Discard"))
        assert all(client.read()[:1] in b"+*" for _ in range(7))
        client.ok("BLPOP", "none", "0.01")
        client.ok("EVAL", "return redis.call('PTTL', 'key')", 0)
        client.ok("PTTL", "last")
        theirs = words(lines_until(direct, b'"last"'))
        mine = words(lines_until(monitor, b'"last"'))
    own = {b"CLIENt", b"MULTi", b"DISCARd", b"SELECt", b"PTTl", b"PINg"}
    assert own <= set(theirs)
    assert mine == [b"SELECT", b"SET", b"get", b"Multi", b"INCR", b"SELECT", b"Exec", b"MULTI",
                    b"Discard", b"BLPOP", b"EVAL", b"PTTL", b"PTTL"]
    assert [word for word in theirs if word in mine] == mine
