"""CLIENT PAUSE and UNPAUSE: the proxy's clients are held as those of a Redis are."""

import time

import pytest

from harness.resp import encode
from harness.waiting import SCALE, wait_until

pytestmark = pytest.mark.needs_proxy

LONG = "100000000"
QUIET_SECONDS = 0.15  # what was not held would have been answered long before


@pytest.fixture
def paused_proxy(redis_server, start_proxy):
    return start_proxy(redis_server.url(), threads=2)


def is_held(client):
    """True while nothing comes; the proxy counted that it holds something before."""
    client.socket.settimeout(QUIET_SECONDS)
    try:
        frame = client.read()
        raise AssertionError(f"answered: {frame!r}")
    except TimeoutError:
        return True
    finally:
        client.socket.settimeout(10 * SCALE)


def n_held(proxy):
    return proxy.metrics().get("client_stalls_total", reason="client-pause")


def send_held(proxy, client, *commands):
    """Sends commands of which the first is to be held; returns when the proxy has looked at it."""
    before = n_held(proxy)
    client.send(b"".join(b" ".join(each.encode() for each in command) + b"\r\n"
                         for command in commands))
    wait_until(lambda: n_held(proxy) > before, 10, "the request to be held")


HELD_WRITES = [("SET", "k", "v"), ("DEL", "k"), ("MSET", "a", "1"), ("INCR", "n"), ("FLUSHALL",),
               ("EVAL", "return(1)", "0"), ("FUNCTION", "FLUSH"), ("PFCOUNT", "h"),
               ("PUBLISH", "c", "m"), ("SORT", "l"), ("XADD", "s", "*", "f", "v"), ("RENAME", "a", "b")]
LET_THROUGH = [("GET", "k"), ("PING",), ("MGET", "a", "b"), ("EVAL_RO", "return 1", "0"),
               ("SCRIPT", "EXISTS", "x"), ("DBSIZE",), ("HELLO",), ("CLIENT", "LIST"), ("INFO",),
               ("PUBSUB", "CHANNELS"), ("NOSUCHCOMMAND",), ("SET", "k"), ("CONFIG", "GET", "port")]


def test_a_write_pause_holds_writes_and_only_those(paused_proxy, redis_server):
    clients = [paused_proxy.client() for _ in HELD_WRITES]
    with paused_proxy.client() as control:
        assert control.ok("CLIENT", "PAUSE", LONG, "WRITE") == b"OK"
        for command in LET_THROUGH:
            assert control.ask(*command)
            with redis_server.client() as direct:
                assert control.ask(*command)[:1] == direct.ask(*command)[:1], command
        for client, command in zip(clients, HELD_WRITES):
            send_held(paused_proxy, client, command)
        assert redis_server.ask("DBSIZE") == 0
        assert is_held(clients[0])
        assert control.ok("CLIENT", "UNPAUSE") == b"OK"
        for client, command in zip(clients, HELD_WRITES):
            assert client.read(), command
    for client in clients:
        client.close()


def test_a_pause_of_all_holds_everything_until_its_time(paused_proxy):
    with paused_proxy.client() as one, paused_proxy.client() as other, \
            paused_proxy.client(3) as third:
        began = time.monotonic()
        assert one.ok("CLIENT", "PAUSE", "400") == b"OK"
        send_held(paused_proxy, other, ("PING",), ("PING", "second"))
        send_held(paused_proxy, third, ("GET", "k"))
        send_held(paused_proxy, one, ("CLIENT", "UNPAUSE"))
        assert [other.read(), other.read()] == [b"+PONG\r\n", b"$6\r\nsecond\r\n"]
        assert third.read() == b"_\r\n"
        assert one.read() == b"+OK\r\n"
        assert time.monotonic() - began >= 0.39


def test_quit_and_cache_are_never_held(paused_proxy):
    with paused_proxy.client() as one, paused_proxy.client() as other:
        assert one.ok("CLIENT", "PAUSE", "600", "ALL") == b"OK"
        assert one.ok("CACHE", "INFO")
        assert other.ask("QUIT") == b"+OK\r\n"
        assert other.read_all() == b""


def test_what_is_pipelined_behind_pause_is_held(paused_proxy, redis_server):
    with paused_proxy.client() as one, paused_proxy.client() as other:
        before = n_held(paused_proxy)
        one.send(b"CLIENT PAUSE %s WRITE\r\nSET k v\r\n" % LONG.encode())
        assert one.read() == b"+OK\r\n"
        wait_until(lambda: n_held(paused_proxy) > before, 10, "SET to be held")
        assert is_held(one) and redis_server.ask("EXISTS", "k") == 0
        assert other.ok("CLIENT", "UNPAUSE") == b"OK"
        assert one.read() == b"+OK\r\n"
        assert redis_server.ask("GET", "k") == b"v"


def test_a_second_pause_is_never_laxer(paused_proxy):
    with paused_proxy.client() as one, paused_proxy.client() as other:
        assert one.ok("CLIENT", "PAUSE", "500", "ALL") == b"OK"
        # Held itself: it comes when the first is over, and then holds writes alone.
        send_held(paused_proxy, one, ("CLIENT", "PAUSE", LONG, "WRITE"))
        assert one.read() == b"+OK\r\n"
        assert other.ok("PING") == b"PONG"
        # Shorter and from a paused proxy: the longer one stays.
        assert one.ok("CLIENT", "PAUSE", "1", "WRITE") == b"OK"
        send_held(paused_proxy, other, ("SET", "k", "v"))
        assert is_held(other)
        assert one.ok("CLIENT", "UNPAUSE") == b"OK"
        assert other.read() == b"+OK\r\n"


def test_exec_of_writes_is_held_and_other_transactions_are_not(paused_proxy, redis_server):
    with paused_proxy.client() as writer, paused_proxy.client() as reader, \
            paused_proxy.client() as control:
        for client, command in ((writer, ("SET", "k", "v")), (reader, ("GET", "k"))):
            assert client.pipeline([("MULTI",), command]) == [b"+OK\r\n", b"+QUEUED\r\n"]
        assert control.ok("CLIENT", "PAUSE", LONG, "WRITE") == b"OK"
        assert reader.ok("EXEC") == [None]
        send_held(paused_proxy, writer, ("EXEC",))
        assert reader.ok("MULTI") == b"OK"
        send_held(paused_proxy, reader, ("SET", "k", "w"), ("DISCARD",))
        assert redis_server.ask("EXISTS", "k") == 0
        assert control.ok("CLIENT", "UNPAUSE") == b"OK"
        assert writer.read() == b"*1\r\n+OK\r\n"
        assert [reader.read(), reader.read()] == [b"+QUEUED\r\n", b"+OK\r\n"]


def test_scripts_that_say_no_writes_are_not_held(paused_proxy):
    reads = ["#!lua flags=no-writes\nreturn 1", "#!lua name=x flags=allow-oom,no-writes \nreturn 1"]
    writes = ["#!lua\nreturn 1", "#!lua flags=allow-oom\n-- flags=no-writes\nreturn 1",
              "-- flags=no-writes\nreturn 1"]
    clients = [paused_proxy.client() for _ in writes]
    with paused_proxy.client() as control:
        control.ok("CLIENT", "PAUSE", LONG, "WRITE")
        assert control.ok("EVAL", reads[0], 0) == 1
        assert control.ask("EVAL", reads[1], 0).startswith(b"-ERR ")  # not held: the backend says why
        for count, (client, script) in enumerate(zip(clients, writes), 1):
            client.send(encode("MULTI") + encode("EVAL", script, 0) + encode("EXEC"))
            wait_until(lambda: n_blocked(control) == count, 10, "the EXEC to be held")
        assert control.pipeline([("MULTI",), ("EVAL", reads[0], 0), ("EXEC",)])[2] == b"*1\r\n:1\r\n"
        control.ok("CLIENT", "UNPAUSE")
        for client in clients:
            assert [client.read() for _ in range(3)][2] == b"*1\r\n:1\r\n"
            client.close()


def n_blocked(client):
    return int(client.ok("INFO", "clients").partition(b"blocked_clients:")[2].split()[0])


def test_info_counts_those_that_are_held(paused_proxy):
    clients = [paused_proxy.client() for _ in range(3)]
    with paused_proxy.client() as control:
        control.ok("CLIENT", "PAUSE", LONG, "WRITE")
        for count, client in enumerate(clients, 1):
            client.send(encode("SET", "k", "v"))
            wait_until(lambda: n_blocked(control) == count, 10, "INFO to count it")
        clients[0].close()
        wait_until(lambda: n_blocked(control) == 2, 10, "the client to go")
        control.ok("CLIENT", "UNPAUSE")
        for client in clients[1:]:
            assert client.read() == b"+OK\r\n"
            client.close()
        assert n_blocked(control) == 0


def test_held_clients_that_hang_up_are_closed(paused_proxy):
    with paused_proxy.client() as control:
        assert control.ok("CLIENT", "PAUSE", LONG, "WRITE") == b"OK"
        client = paused_proxy.client()
        send_held(paused_proxy, client, ("SET", "k", "v"), ("PING",))
        assert paused_proxy.metrics().get("clients") == 2
        client.close()
        wait_until(lambda: paused_proxy.metrics().get("clients") == 1, 10, "the client to go")
        assert control.ok("CLIENT", "UNPAUSE") == b"OK"
        assert control.ok("GET", "k") is None


def test_a_paused_proxy_drains(redis_server, start_proxy):
    proxy = start_proxy(redis_server.url())
    client = proxy.client()
    assert client.ok("CLIENT", "PAUSE", LONG) == b"OK"
    send_held(proxy, client, ("PING",))
    proxy.stop(seconds=8)  # less than drain-timeout
    client.close()


def test_hits_go_on_under_a_write_pause(paused_proxy):
    with paused_proxy.client() as control, paused_proxy.client() as writer:
        control.ok("SET", "k", "v")
        control.ok("GET", "k")
        control.ok("CLIENT", "PAUSE", LONG, "WRITE")
        before = paused_proxy.metrics().get("hits_total")
        assert control.ok("GET", "k") == b"v"
        assert paused_proxy.metrics().get("hits_total") == before + 1
        send_held(paused_proxy, writer, ("SET", "k", "w"))
        assert control.ok("GET", "k") == b"v"
        control.ok("CLIENT", "UNPAUSE")
        assert writer.read() == b"+OK\r\n"
        assert control.ok("GET", "k") == b"w"
