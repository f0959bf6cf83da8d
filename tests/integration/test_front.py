"""What a client meets: the protocol's forms and errors, limits, logins, the connection's commands.

Wherever a real server has an answer, it is asked the same bytes and both outputs are compared.
"""

import errno
import re
import resource
import select
import socket
import threading
import time

import pytest
import redis

from harness.proxy import is_sanitized
from harness.resp import RawClient, decode, encode
from harness.servers import free_port
from harness.waiting import SCALE, wait_until

needs_proxy = pytest.mark.needs_proxy


# --- the same bytes to both -----------------------------------------------------------------------

def conversation(address, data, sentinel=True, seconds=5.0):
    """Sends data on a new connection; (everything that comes back, whether the peer closed).

    With sentinel an ECHO follows, whose reply tells that all before it was answered.
    """
    mark = b"end-of-conversation"
    with RawClient(address) as client:
        received = b""
        try:
            client.send(data + (encode("ECHO", mark) if sentinel else b""))
        except ConnectionError:
            pass
        client.socket.settimeout(seconds * SCALE)
        while not (sentinel and received.endswith(mark + b"\r\n")):
            try:
                piece = client.socket.recv(1 << 16)
            except ConnectionResetError:
                return received, True
            if not piece:
                return received, True
            received += piece
        return received, False


def assert_same(reference, proxy, data, **keywords):
    expected = conversation(reference.address, data, **keywords)
    got = conversation(proxy.address, data, **keywords)
    assert got == expected, f"sent {data[:200]!r}"


ACCEPTED = {
    "inline": b"PING\r\n",
    "inline lower case": b"ping\r\n",
    "inline without CR": b"PING\n",
    "inline argument": b"PING hello\r\n",
    "inline spaces": b"   PING     hello   \r\n",
    "inline double quotes": b'SET k "a b\\x41\\n\\"c"\r\nGET k\r\n',
    "inline single quotes": b"SET k 'it\\'s'\r\nGET k\r\n",
    "inline empty argument": b'SET k ""\r\nGET k\r\n',
    "empty lines": b"\r\n\r\n\r\nPING\r\n",
    "empty array": b"*0\r\nPING\r\n",
    "null array": b"*-1\r\nPING\r\n",
    "inline and arrays mixed": b"SET k 1\r\n" + encode("GET", "k") + b"GET k\r\n",
    "binary": encode("SET", b"\x00k\r\n", b"\xff\r\n$1\r\n") + encode("GET", b"\x00k\r\n"),
    "case": encode("sEt", "k", "v") + encode("gEt", "k"),
    "pipeline": b"".join(encode("INCR", "n") for _ in range(500)) + encode("GET", "n"),
    "no arguments": encode("GET"),
    "too many": encode("GET", "a", "b"),
    "set alone": encode("SET", "k"),
    "unknown": encode("NOSUCHCOMMAND"),
    "unknown with arguments": encode("NOSUCHCOMMAND", "a", "b", "c d", b"\xff\r\n"),
    "unknown with long arguments": encode("NOSUCHCOMMAND", *["x" * 50] * 10),
    "unknown long name": encode("N" * 300, "a"),
    "empty command": encode(""),
    "unknown subcommand": encode("OBJECT", "NOSUCH", "k"),
    "unknown subcommand of XINFO": encode("XINFO", "NOSUCH"),
    "object alone": encode("OBJECT"),
    "wrong type": encode("LPUSH", "l", "a") + encode("GET", "l"),
    "ping": encode("PING") + encode("PING", "x") + encode("PING", "x", "y"),
    "echo": encode("ECHO", "x") + encode("ECHO") + encode("ECHO", "x", "y"),
    "hello 4": encode("HELLO", "4"),
    "hello 1": encode("HELLO", "1"),
    "hello text": encode("HELLO", "abc"),
    "hello with a bad option": encode("HELLO", "3", "NOSUCH"),
    "hello with half a login": encode("HELLO", "3", "AUTH", "default"),
    "hello with a wrong login": encode("HELLO", "3", "AUTH", "nobody", "x") + encode("PING"),
    "hello with a bad name": encode("HELLO", "2", "SETNAME", "a b"),
    "auth without a password set": encode("AUTH", "x") + encode("PING"),
    "auth with a wrong user": encode("AUTH", "nobody", "x"),
    "auth wrong arity": encode("AUTH") + encode("AUTH", "a", "b", "c"),
    "select": encode("SELECT", "1") + encode("SELECT", "0"),
    "select out of range": encode("SELECT", "99") + encode("SELECT", "-1"),
    "select text": encode("SELECT", "abc"),
    "select wrong arity": encode("SELECT"),
    "client name": encode("CLIENT", "SETNAME", "me") + encode("CLIENT", "GETNAME"),
    "client no name": encode("CLIENT", "GETNAME"),
    "client bad name": encode("CLIENT", "SETNAME", "a b") + encode("CLIENT", "GETNAME"),
    "client name taken back": encode("CLIENT", "SETNAME", "a") + encode("CLIENT", "SETNAME", "")
    + encode("CLIENT", "GETNAME"),
    "client arity": encode("CLIENT", "SETNAME"),
    "client reply bad": encode("CLIENT", "REPLY", "MAYBE"),
    "client reply off": encode("CLIENT", "REPLY", "OFF") + encode("PING") + encode("SET", "k", "v")
    + encode("GET", "k") + encode("NOSUCH") + encode("CLIENT", "REPLY", "ON") + encode("PING"),
    "client reply skip": encode("CLIENT", "REPLY", "SKIP") + encode("SET", "k", "v")
    + encode("GET", "k") + encode("CLIENT", "REPLY", "SKIP") + encode("PING") + encode("PING"),
    "client no-evict": encode("CLIENT", "NO-EVICT", "ON") + encode("CLIENT", "NO-EVICT", "OFF")
    + encode("CLIENT", "NO-EVICT", "X"),
    "client kill nobody": encode("CLIENT", "KILL", "127.0.0.1:1")
    + encode("CLIENT", "KILL", "ID", "123456789") + encode("CLIENT", "KILL", "ID", "x")
    + encode("CLIENT", "KILL", "NOSUCH", "x") + encode("CLIENT", "KILL", "TYPE", "nosuch"),
    "client setinfo of 7.2": encode("CLIENT", "SETINFO", "lib-name", "x") + encode("PING"),
    "client list bad": encode("CLIENT", "LIST", "TYPE", "nosuch"),
    "readonly": encode("READONLY") + encode("READWRITE") + encode("ASKING"),
    "cluster": encode("CLUSTER", "INFO") + encode("CLUSTER", "SLOTS"),
    "role of one server": encode("ROLE"),
    "command": encode("COMMAND", "COUNT") + encode("COMMAND", "INFO", "get", "nosuch")
    + encode("COMMAND", "GETKEYS", "MSET", "a", "1", "b", "2")
    + encode("COMMAND", "GETKEYSANDFLAGS", "SET", "a", "1") + encode("COMMAND", "GETKEYS", "PING")
    + encode("COMMAND", "DOCS", "get"),
    "object help": encode("OBJECT", "HELP"),
    "config": encode("CONFIG", "GET", "maxmemory-policy") + encode("CONFIG", "GET", "nosuch")
    + encode("CONFIG", "SET", "nosuch", "1") + encode("CONFIG", "NOSUCH"),
    "dbsize": encode("SET", "a", "1") + encode("DBSIZE"),
    "keys": encode("SET", "a", "1") + encode("KEYS", "*") + encode("RANDOMKEY"),
    "scan": encode("SET", "a", "1") + encode("SCAN", "0") + encode("SCAN", "x")
    + encode("SCAN", "0", "COUNT", "x"),
    "script": encode("SCRIPT", "LOAD", "return 1") + encode("SCRIPT", "EXISTS", "x" * 40)
    + encode("EVALSHA", "f" * 40, "0"),
    "flush": encode("SET", "a", "1") + encode("FLUSHALL", "SYNC") + encode("GET", "a")
    + encode("FLUSHDB", "NOSUCH") + encode("FLUSHALL", "NOSUCH"),
    "move and swapdb": encode("SET", "a", "1") + encode("MOVE", "a", "1") + encode("GET", "a")
    + encode("SWAPDB", "0", "1") + encode("GET", "a"),
    "reset": encode("CLIENT", "SETNAME", "x") + encode("SELECT", "1") + encode("RESET")
    + encode("CLIENT", "GETNAME") + encode("SET", "k", "v") + encode("GET", "k"),
}


@pytest.mark.parametrize("data", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_answers_as_redis_does(reference, proxy, data):
    assert_same(reference, proxy, data)


@pytest.mark.parametrize("name", [name for name in ACCEPTED if "hello" not in name
                                  and "auth" not in name])
def test_answers_as_redis_does_in_resp3(reference, proxy, name):
    with RawClient(reference.address, 3) as expected, RawClient(proxy.address, 3) as got:
        for client in (expected, got):
            client.send(ACCEPTED[name] + encode("ECHO", "the end"))
        frames = {}
        for client in (expected, got):
            frames[client] = []
            while not frames[client] or frames[client][-1] != b"$7\r\nthe end\r\n":
                frames[client].append(client.read())
        assert frames[got] == frames[expected]


BROKEN = {
    "array count is text": b"*x\r\n",
    "array count is too large": b"*2147483648\r\n",
    "array count overflows": b"*99999999999999999999\r\n",
    "element is no bulk": b"*1\r\nPING\r\n",
    "element is a number": b"*2\r\n$3\r\nGET\r\n:5\r\n",
    "bulk length is text": b"*1\r\n$abc\r\n",
    "bulk length is negative": b"*1\r\n$-5\r\n",
    "bulk length is above 512 MB": b"*1\r\n$536870913\r\n",
    "bulk length overflows": b"*1\r\n$99999999999999999999\r\n",
    "unbalanced quotes": b'SET k "abc\r\n',
    "unbalanced quotes, text behind": b'SET k "abc"def\r\n',
    "inline too long": b"x" * 70000,
    "count too long": b"*" + b"1" * 70000,
    "bulk length too long": b"*1\r\n$" + b"1" * 70000,
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN.keys())
def test_protocol_errors_are_those_of_redis(reference, proxy, data):
    assert_same(reference, proxy, data, sentinel=False)
    # What was right before the broken frame is still answered.
    assert_same(reference, proxy, encode("SET", "k", "v") + encode("GET", "k") + data,
                sentinel=False)


@needs_proxy
def test_a_broken_frame_costs_only_its_own_connection(proxy):
    closed = proxy.metrics().get("client_closed_total", reason="protocol")
    with proxy.client() as bystander:
        bystander.ok("SET", "k", "v")
        for data in BROKEN.values():
            conversation(proxy.address, data, sentinel=False)
            assert bystander.ok("GET", "k") == b"v"
    proxy.wait_metric("client_closed_total", closed + len(BROKEN), reason="protocol")


# --- HELLO ----------------------------------------------------------------------------------------

def hello_fields(client, *args):
    reply = client.ok("HELLO", *args)
    return reply if isinstance(reply, dict) else dict(zip(reply[::2], reply[1::2]))


@pytest.mark.parametrize("args", [(), (2,), (3,), (3, "SETNAME", "me"),
                                  (3, "AUTH", "default", "any"), (2, "AUTH", "default", "x",
                                                                  "SETNAME", "you")])
def test_hello(reference, proxy, args):
    with reference.client() as direct, proxy.client() as client:
        expected, got = hello_fields(direct, *args), hello_fields(client, *args)
        assert isinstance(got.pop(b"id"), int) and expected.pop(b"id")
        assert got == expected
        assert got[b"mode"] == b"standalone" and got[b"role"] == b"master"
        assert client.ask("GET", "none") == direct.ask("GET", "none")
        assert client.ask("CLIENT", "GETNAME") == direct.ask("CLIENT", "GETNAME")
        # And back again.
        assert isinstance(client.value("HELLO", 2), list)
        assert client.ask("GET", "none") == b"$-1\r\n"


def test_the_protocol_changes_in_the_middle_of_a_pipeline(reference, proxy):
    commands = [("HSET", "h", "f", "v"), ("HGETALL", "h"), ("HELLO", "3", "SETNAME", "x"),
                ("HGETALL", "h"), ("GET", "none"), ("HELLO", "2"), ("HGETALL", "h"),
                ("GET", "none")]
    with reference.client() as direct, proxy.client() as client:
        expected, got = direct.pipeline(commands), client.pipeline(commands)
    for number in (0, 1, 3, 4, 6, 7):
        assert got[number] == expected[number]


# --- shapes of traffic ----------------------------------------------------------------------------

def test_a_pipeline_of_ten_thousand(proxy):
    commands = [("SET", "k", "start")]
    for number in range(2500):
        commands += [("INCR", "n"), ("GET", "n"), ("SET", "k", number), ("GET", "k")]
    with proxy.client() as client:
        # Sent while replies are read: neither side may need the other to collect it all.
        sender = threading.Thread(target=client.send, args=(
            b"".join(encode(*command) for command in commands),))
        sender.start()
        replies = [decode(client.read()) for _ in commands]
        sender.join()
    assert replies[1:] == [each for number in range(2500) for each in (
        number + 1, str(number + 1).encode(), b"OK", str(number).encode())]


def test_byte_by_byte(proxy):
    """A slow request holds up nobody: others are answered between any two of its bytes."""
    request = encode("SET", "slow", "v" * 100) + encode("GET", "slow")
    with proxy.client() as slow, proxy.client() as other:
        for at in range(len(request)):
            slow.send(request[at:at + 1])
            assert other.ok("INCR", "other") == at + 1
        assert decode(slow.read()) == b"OK" and decode(slow.read()) == b"v" * 100


def test_a_reply_read_byte_by_byte(proxy):
    with proxy.client(receive_buffer=4096) as slow, proxy.client() as other:
        other.ok("SET", "big", "b" * 300000)
        slow.send(encode("GET", "big") * 3)
        received = b""
        while len(received) < 3 * 300011:
            received += slow.socket.recv(1 if len(received) < 2000 else 5000)
            if len(received) % 10 == 0:
                assert other.ok("PING") == b"PONG"
        assert received == (b"$300000\r\n" + b"b" * 300000 + b"\r\n") * 3


@needs_proxy
def test_gigabytes_announced_cost_nothing(proxy):
    """Memory follows what arrives, never what is announced."""
    before = proxy.rss_bytes()
    clients = []
    for number in range(50):
        client = proxy.client()
        client.send((b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$536870912\r\n" if number % 2
                     else b"*1000000\r\n$100000000\r\n") + b"x" * 1000)
        clients.append(client)
    with proxy.client() as other:
        for _ in range(100):
            assert other.ok("PING") == b"PONG"
        if not is_sanitized():
            assert proxy.rss_bytes() - before < 24 << 20
    for client in clients:
        client.close()


@needs_proxy
def test_a_request_above_the_input_limit_is_refused_and_skipped(start_proxy, redis_server):
    """One that cannot be passed on as it arrives: a key comes behind the large value."""
    proxy = start_proxy(redis_server.url(), {"client-input-limit": "1mb"})
    with proxy.client() as client, proxy.client() as other:
        client.send(b"*5\r\n$4\r\nMSET\r\n$1\r\nk\r\n$30000000\r\n")
        assert client.read().startswith(b"-ERR nearcached: the request exceeds client-input-limit")
        assert other.ok("SET", "k", "x" * 500000) == b"OK"
        client.send(b"x" * 30000000 + b"\r\n$1\r\nl\r\n$1\r\nv\r\n" + encode("GET", "l"))
        assert client.read() == b"$-1\r\n"
        assert other.ok("STRLEN", "k") == 500000
    assert proxy.metrics().get("large_requests_refused_total") == 1


@needs_proxy
@pytest.mark.parametrize("hit", [True, False], ids=["hit", "relayed"])
def test_a_half_closed_client_gets_its_replies(proxy, hit):
    """It has said all it wanted to say, and still listens."""
    with proxy.client() as other:
        other.ok("SET", "k", "v")
        other.ok("GET", "k")
    with proxy.client() as client:
        client.send(encode("GET", "k") if hit else encode("INCR", "half"))
        client.socket.shutdown(socket.SHUT_WR)
        assert client.read_all(10) == (b"$1\r\nv\r\n" if hit else b":1\r\n")


@needs_proxy
def test_clients_that_vanish_leave_nothing_behind(proxy):
    wait_until(lambda: proxy.metrics().get("clients") == 0, 10, "earlier clients to be gone")
    for number in range(100):
        client = proxy.client()
        unfinished = b"*3\r\n$3\r\nGE"[:number % 9]
        client.send(encode("SET", "k", number) + encode("GET", "k") + unfinished)
        if number % 3 == 0:
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
    wait_until(lambda: proxy.metrics().get("clients") == 0, 10, "all clients to be gone")


@needs_proxy
@pytest.mark.parametrize("cached", [True, False], ids=["hits", "relayed"])
def test_a_client_that_never_reads_is_closed(start_proxy, redis_server, cached):
    proxy = start_proxy(redis_server.url(), {
        "client-output-limit": "1mb", "client-output-soft-limit": "0"})
    with proxy.client() as other, proxy.client(receive_buffer=4096) as greedy:
        other.ok("SET", "big", "b" * 200000)
        other.ok("GET", "big")
        greedy.socket.setblocking(False)
        request = encode(*(("GET", "big") if cached else ("GETEX", "big"))) * 100
        for _ in range(200):
            try:
                greedy.socket.send(request)
            except BlockingIOError:
                time.sleep(0.02)
            except ConnectionError:
                break
            assert other.ok("PING") == b"PONG"
            assert other.ok("GET", "big") == b"b" * 200000
            if proxy.metrics().get("client_closed_total", reason="output-limit"):
                break
        proxy.wait_metric("client_closed_total", 1, reason="output-limit")
        assert other.ok("GET", "big") == b"b" * 200000
        if not is_sanitized():
            assert proxy.rss_bytes() < 200 << 20


@needs_proxy
def test_a_client_above_the_soft_limit_is_closed_in_time(start_proxy, redis_server):
    proxy = start_proxy(redis_server.url(), {
        "client-output-limit": "512mb", "client-output-soft-limit": "64kb",
        "client-output-soft-time": "1s"})
    with proxy.client() as other, proxy.client(receive_buffer=4096) as greedy:
        other.ok("SET", "big", "b" * 400000)
        greedy.send(encode("GET", "big") * 60)
        proxy.wait_metric("client_closed_total", 1, 20, reason="output-limit")
        assert other.ok("PING") == b"PONG"


@needs_proxy
def test_maxclients(start_proxy, start_redis):
    server = start_redis([("maxclients", "5")])
    held = []
    try:
        for _ in range(6):
            held.append(RawClient(server.address))
        expected = held[-1].read_all(5)
    finally:
        for client in held:
            client.close()
    assert expected.startswith(b"-ERR max number of clients")
    server.ask("CONFIG", "SET", "maxclients", "1000")
    proxy = start_proxy(server.url(), {"maxclients": 5})
    clients = [proxy.client() for _ in range(5)]
    for client in clients:
        assert client.ok("PING") == b"PONG"
    with proxy.client() as sixth:
        assert sixth.read_all(10) == expected
    proxy.wait_metric("client_connections_refused_total", 1)
    clients.pop().close()
    wait_until(lambda: proxy.metrics().get("clients") == 4, 10, "a place to be free")
    with proxy.client() as again:
        assert again.ok("PING") == b"PONG"
    for client in clients:
        client.close()


@needs_proxy
def test_an_idle_client_is_closed(start_proxy, redis_server):
    proxy = start_proxy(redis_server.url(), {"client-idle-timeout": "500ms"})
    with proxy.client() as idle, proxy.client() as busy:
        idle.ok("PING")
        deadline = time.monotonic() + 10 * SCALE
        while not proxy.metrics().get("client_closed_total", reason="idle"):
            busy.ok("PING")
            time.sleep(0.05)
            assert time.monotonic() < deadline, "the idle client was not closed"
        assert idle.read_all(5) == b""
        assert busy.ok("PING") == b"PONG"


# --- listeners ------------------------------------------------------------------------------------

def ipv6_address():
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
        probe.bind(("::1", 0))


@needs_proxy
def test_unix_socket_listener(start_proxy, redis_server, tmp_path):
    path = tmp_path / "nc.sock"
    proxy = start_proxy(redis_server.url(), {"listen": f"unix:{path}",
                                             "unix-socket-mode": "0700"})
    assert path.stat().st_mode & 0o777 == 0o700
    with RawClient(str(path)) as client, proxy.client() as tcp:
        assert client.ok("SET", "k", "v") == b"OK" and tcp.ok("GET", "k") == b"v"
        assert b"addr=" in client.ok("CLIENT", "INFO")
    proxy.stop()
    assert not path.exists()


@needs_proxy
def test_a_socket_that_a_dead_proxy_left_is_taken_over(start_proxy, redis_server, tmp_path):
    path = tmp_path / "nc.sock"
    first = start_proxy(redis_server.url(), {"listen": f"unix:{path}"})
    first.kill()
    assert path.exists()
    start_proxy(redis_server.url(), {"listen": f"unix:{path}"})
    with RawClient(str(path)) as client:
        assert client.ok("PING") == b"PONG"


@needs_proxy
def test_ipv6_listener(start_proxy, redis_server):
    try:
        ipv6_address()
    except OSError as error:
        pytest.skip(f"no IPv6 on this machine: {error}")
    port = free_port()
    start_proxy(redis_server.url(), {"listen": f"[::1]:{port}"})
    with RawClient(("::1", port)) as client:
        assert client.ok("SET", "k", "v") == b"OK" and client.ok("GET", "k") == b"v"
        assert b"addr=[::1]:" in client.ok("CLIENT", "INFO")


# --- login ----------------------------------------------------------------------------------------

LOGINS = {
    "nothing allowed": encode("GET", "k") + encode("PING") + encode("SET", "k", "v")
    + encode("CLIENT", "ID"),
    "wrong password": encode("AUTH", "wrong") + encode("GET", "k"),
    "wrong user": encode("AUTH", "nobody", "secret") + encode("GET", "k"),
    "right password": encode("AUTH", "secret") + encode("SET", "k", "v") + encode("GET", "k"),
    "right user": encode("AUTH", "default", "secret") + encode("PING"),
    "wrong after right": encode("AUTH", "secret") + encode("AUTH", "wrong") + encode("PING"),
    "hello without login": encode("HELLO", "3"),
    "hello with a wrong login": encode("HELLO", "3", "AUTH", "default", "wrong") + encode("PING"),
    "arity": encode("AUTH"),
    "reset": encode("AUTH", "secret") + encode("RESET") + encode("GET", "k"),
    "quit": encode("QUIT"),
    "large array": b"*11\r\n$1\r\na\r\n",
    "large bulk": b"*2\r\n$3\r\nGET\r\n$16385\r\n",
}


@needs_proxy
def test_requirepass(start_proxy, start_redis, redis_server):
    protected = start_redis(password="secret")
    proxy = start_proxy(redis_server.url(), {"requirepass": "secret"})
    for data in LOGINS.values():
        closes = data.startswith((b"*11", b"*2\r\n$3\r\nGET\r\n$16385", encode("QUIT")))
        # ECHO, the sentinel, is refused before the login: a protocol-neutral one is used.
        expected = login_conversation(protected.address, data, closes)
        assert login_conversation(proxy.address, data, closes) == expected, data
    with proxy.client() as client:
        fields = hello_fields(client, 3, "AUTH", "default", "secret", "SETNAME", "in")
        assert fields[b"proto"] == 3
        assert client.ok("CLIENT", "GETNAME") == b"in"
    assert proxy.metrics().get("errors_total", kind="auth") > 0


def login_conversation(address, data, closes):
    with RawClient(address) as client:
        client.send(data)
        if closes:
            return client.read_all(10)
        received = b""
        count = data.count(b"*")
        while count:
            frame = client.read()
            received += re.sub(rb":\d+", b":#", frame) if frame[:1] in b"%*" else frame
            count -= 1
        return received


@needs_proxy
def test_backend_password_and_user(start_proxy, start_redis):
    server = start_redis(password="backpass")
    server.ask("ACL", "SETUSER", "app", "on", ">apppass", "~*", "&*", "+@all")
    for url in (f"redis://:backpass@127.0.0.1:{server.port}",
                f"redis://app:apppass@127.0.0.1:{server.port}"):
        proxy = start_proxy(url)
        with proxy.client() as client:
            assert client.ok("SET", "k", "v") == b"OK"
            assert [client.ok("GET", "k") for _ in range(3)] == [b"v"] * 3
        proxy.stop()
    proxy = start_proxy(f"redis://127.0.0.1:{server.port}",
                        env={"NEARCACHED_BACKEND_PASSWORD": "backpass"})
    with proxy.client() as client:
        assert client.ok("GET", "k") == b"v"


# --- CLIENT ---------------------------------------------------------------------------------------

def client_fields(line):
    return dict(field.split(b"=", 1) for field in line.split() if b"=" in field)


@needs_proxy
def test_client_info_and_list_are_of_the_proxys_clients(proxy):
    with proxy.client() as one, proxy.client(3) as two:
        one.ok("CLIENT", "SETNAME", "first")
        one.ok("SELECT", 2)
        mine = client_fields(one.ok("CLIENT", "INFO"))
        host, port = one.socket.getsockname()
        assert mine[b"addr"] == f"{host}:{port}".encode() and mine[b"name"] == b"first"
        assert mine[b"db"] == b"2" and int(mine[b"id"]) == one.ok("CLIENT", "ID")
        assert client_fields(two.ok("CLIENT", "INFO"))[b"resp"] == b"3"
        # The command that asks is the input, and no reply is owed yet.
        asked = {b"qbuf": b"26", b"oll": b"0", b"omem": b"0", b"cmd": b"client|list"}
        for line in two.ok("CLIENT", "LIST").splitlines():
            if client_fields(line)[b"id"] == b"%d" % two.ok("CLIENT", "ID"):
                assert asked.items() <= client_fields(line).items()
        assert one.ok("CLIENT", "ID") != two.ok("CLIENT", "ID")
        listed = [client_fields(line) for line in two.ok("CLIENT", "LIST").splitlines()]
        ids = {int(each[b"id"]) for each in listed}
        assert {one.ok("CLIENT", "ID"), two.ok("CLIENT", "ID")} <= ids
        chosen = two.ok("CLIENT", "LIST", "ID", one.ok("CLIENT", "ID"))
        assert [client_fields(line)[b"name"] for line in chosen.splitlines()] == [b"first"]


@needs_proxy
def test_client_kill(proxy):
    def victim():
        client = proxy.client()
        client.ok("PING")
        return client

    with proxy.client() as killer:
        for make in (lambda c: ("ID", c.ok("CLIENT", "ID")),
                     lambda c: ("ADDR", "%s:%d" % c.socket.getsockname())):
            client = victim()
            assert killer.ok("CLIENT", "KILL", *make(client)) == 1
            assert client.read_all(10) == b""
            client.close()
        client = victim()
        assert killer.ok("CLIENT", "KILL", "%s:%d" % client.socket.getsockname()) == b"OK"
        assert client.read_all(10) == b""
        client.close()
        clients = [victim() for _ in range(3)]
        assert killer.ok("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes") >= 3
        for client in clients:
            assert client.read_all(10) == b""
            client.close()
        assert killer.ok("PING") == b"PONG"
    with proxy.client() as client:
        mine = client.ok("CLIENT", "ID")
        assert client.ok("CLIENT", "KILL", "ID", mine) == 0
        client.send(encode("CLIENT", "KILL", "ID", mine, "SKIPME", "no"))
        assert client.read_all(10) == b":1\r\n"


def test_a_long_name_is_listed_whole(proxy):
    name = "n" * 5000
    with proxy.client() as client:
        client.ok("CLIENT", "SETNAME", name)
        line = client.ok("CLIENT", "LIST", "ID", client.ok("CLIENT", "ID"))
        assert b" name=%s age=" % name.encode() in line and b" resp=2" in line
        assert line.count(b"\n") == 1
        assert client.ok("CLIENT", "INFO").strip().endswith(b" resp=2")


def test_client_kill_takes_nobody_else(proxy, reference):
    """Subscribers are a type of their own, and no client has an empty address."""
    for target in (reference, proxy):
        with target.client() as killer, target.client() as plain, target.client() as subscriber:
            subscriber.ok("SUBSCRIBE", "c")
            assert plain.ok("PING") == b"PONG"
            for command in (("KILL", "ADDR", ""), ("KILL", "LADDR", ""), ("KILL", "TYPE", "replica")):
                assert killer.ok("CLIENT", *command) == 0, command
            assert killer.ask("CLIENT", "KILL", "") == b"-ERR No such client\r\n"
            assert killer.ok("CLIENT", "LIST", "TYPE", "pubsub").count(b"\n") == 1
            assert b" sub=1 " not in killer.ok("CLIENT", "LIST", "TYPE", "normal")
            assert killer.ok("CLIENT", "KILL", "TYPE", "pubsub") == 1
            assert subscriber.read_all() == b""
            assert plain.ok("PING") == b"PONG"


# --- databases, RESET, QUIT -----------------------------------------------------------------------

def test_databases_are_part_of_the_key(proxy, redis_server):
    with proxy.client() as client, redis_server.client() as direct:
        for database in (0, 1, 5):
            client.ok("SELECT", database)
            assert client.ok("GET", "k") is None
            client.ok("SET", "k", f"in {database}")
        for _ in range(2):
            for database in (0, 1, 5):
                client.ok("SELECT", database)
                assert client.ok("GET", "k") == f"in {database}".encode()
        direct.ok("SELECT", 5)
        direct.ok("SET", "k", "foreign")
        wait_until(lambda: client.ok("GET", "k") == b"foreign", 5, "the foreign write")
        client.ok("SELECT", 0)
        assert client.ok("GET", "k") == b"in 0"
        # In one pipeline as well.
        replies = client.pipeline([("SELECT", 1), ("GET", "k"), ("SELECT", 5), ("GET", "k"),
                                   ("SET", "k", "x"), ("SELECT", 0), ("GET", "k")])
        assert [decode(reply) for reply in replies] == [
            b"OK", b"in 1", b"OK", b"foreign", b"OK", b"OK", b"in 0"]
        client.ok("SELECT", 5)
        client.ok("FLUSHDB")
        assert client.ok("GET", "k") is None
        client.ok("SELECT", 1)
        assert client.ok("GET", "k") == b"in 1"


@needs_proxy
def test_a_database_in_the_backends_url(start_proxy, redis_server):
    proxy = start_proxy(redis_server.url(3))
    with proxy.client() as client, redis_server.client() as direct:
        client.ok("SET", "k", "three")
        assert client.ok("GET", "k") == b"three"
        assert direct.ok("GET", "k") is None
        direct.ok("SELECT", 3)
        assert direct.ok("GET", "k") == b"three"


def test_quit_ends_what_follows_it(proxy, reference):
    data = encode("SET", "k", "before") + encode("QUIT") + encode("SET", "k", "after")
    assert_same(reference, proxy, data, sentinel=False)
    with proxy.client() as client:
        assert client.ok("GET", "k") == b"before"


def test_reset_leaves_resp3_and_the_database(proxy):
    with proxy.client(3) as client:
        client.ok("SELECT", 4)
        client.ok("CLIENT", "SETNAME", "me")
        assert client.ask("GET", "none") == b"_\r\n"
        assert client.ask("RESET") == b"+RESET\r\n"
        assert client.ask("GET", "none") == b"$-1\r\n"
        assert client.ask("CLIENT", "GETNAME") == b"$-1\r\n"
        client.ok("SET", "k", "zero")
    with proxy.client() as client:
        assert client.ok("GET", "k") == b"zero"


# --- commands that are not for now, or never ------------------------------------------------------

REFUSED = ["SYNC", "PSYNC ? -1", "REPLCONF ACK 1", "REPLICAOF NO ONE", "SLAVEOF NO ONE",
           "FAILOVER", "SHUTDOWN NOSAVE", "MODULE LOAD x", "MODULE LOADEX x", "MODULE UNLOAD x",
           "MIGRATE h 1 k 0 1", "SCRIPT DEBUG YES"]


@needs_proxy
@pytest.mark.parametrize("command", REFUSED)
def test_what_a_proxy_must_not_do_is_refused(proxy, redis_server, command):
    with proxy.client() as client:
        frames = client.pipeline([command.split(), ("SET", "k", "v"), ("GET", "k")])
        assert frames[1:] == [b"+OK\r\n", b"$1\r\nv\r\n"]
        assert re.fullmatch(rb"-ERR command '[^']+' is not supported by nearcached\r\n",
                            frames[0], re.I), frames[0]
    assert redis_server.ask("PING") == b"PONG"


@needs_proxy
@pytest.mark.parametrize("command", ["DEBUG SLEEP 0", "ACL LIST", "ACL SETUSER x", "SAVE",
                                     "BGSAVE", "BGREWRITEAOF", "PFSELFTEST"])
def test_admin_commands_are_off_unless_switched_on(start_proxy, proxy, redis_server, command):
    with proxy.client() as client:
        assert client.ask(*command.split()).startswith(b"-")
        assert client.ok("PING") == b"PONG"
    if command in ("ACL LIST", "DEBUG SLEEP 0"):
        allowing = start_proxy(redis_server.url(), {"admin-commands": "on"})
        with allowing.client() as client:
            assert not client.ask(*command.split()).startswith(b"-")


# --- INFO, CONFIG, COMMAND ------------------------------------------------------------------------

@needs_proxy
def test_info(proxy, redis_server):
    with proxy.client() as client, redis_server.client() as direct:
        text = client.ok("INFO").decode()
        fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
        assert "# Nearcached" in text and "# Server" in text and "# Keyspace" in text
        assert fields["redis_version"] in direct.ok("INFO", "server").decode()
        assert fields["redis_mode"] == "standalone" and fields["role"] == "master"
        assert fields["tcp_port"] == str(proxy.port)
        assert int(fields["connected_clients"]) == proxy.metrics().get("clients")
        assert fields.get("loading", "0") == "0"
        own = client.ok("INFO", "nearcached").decode()
        assert own.startswith("# Nearcached") and "# Server" not in own
        assert "# Nearcached" not in client.ok("INFO", "memory").decode()
        assert "maxmemory_policy" in client.ok("INFO", "memory").decode()
        assert b"# Nearcached" in client.ok("INFO", "everything")
    with proxy.client(3) as client:
        assert client.ask("INFO").startswith(b"=")


@needs_proxy
@pytest.mark.parametrize("mode, may_get, may_set", [("on", True, True), ("get", True, False),
                                                    ("off", False, False)])
def test_config_command(start_proxy, redis_server, mode, may_get, may_set):
    proxy = start_proxy(redis_server.url(), {"config-command": mode})
    with proxy.client() as client:
        for allowed, command in ((may_get, ("CONFIG", "GET", "maxmemory-samples")),
                                 (may_set, ("CONFIG", "SET", "maxmemory-samples", "5")),
                                 (may_set, ("CONFIG", "RESETSTAT"))):
            assert client.ask(*command).startswith(b"-") == (not allowed), command
        assert client.ok("PING") == b"PONG"


@needs_proxy
def test_command_tables_are_the_backends(proxy, redis_server):
    with proxy.client() as client, redis_server.client() as direct:
        expected, got = direct.ok("COMMAND"), client.ok("COMMAND")
        assert sorted(each[0] for each in got) == sorted(each[0] for each in expected)
        assert sorted(client.ok("COMMAND", "LIST")) == sorted(direct.ok("COMMAND", "LIST"))
        for name in ("get", "xgroup", "client|list"):
            assert client.ask("COMMAND", "INFO", name) == direct.ask("COMMAND", "INFO", name)


def test_a_real_client_library(proxy):
    host, port = proxy.address
    client = redis.Redis(host, port, decode_responses=True)
    assert client.ping() and client.set("k", "v") and client.get("k") == "v"
    client.hset("h", mapping={"a": "1", "b": "2"})
    assert client.hgetall("h") == {"a": "1", "b": "2"} == client.hgetall("h")
    client.zadd("z", {"m": 1.5, "n": 2})
    assert client.zrange("z", 0, -1, withscores=True) == [("m", 1.5), ("n", 2.0)]
    client.rpush("l", *range(5))
    assert client.lrange("l", 0, -1) == ["0", "1", "2", "3", "4"]
    assert client.mget("k", "none", "k") == ["v", None, "v"]
    pipeline = client.pipeline(transaction=False)
    for number in range(100):
        pipeline.set(f"p{number}", number).get(f"p{number}")
    assert pipeline.execute()[1::2] == [str(number) for number in range(100)]
    assert sorted(client.scan_iter("p1*")) == sorted(
        f"p{number}" for number in range(100) if str(number).startswith("1"))
    assert client.eval("return {KEYS[1], ARGV[1]}", 1, "k", "x") == ["k", "x"]
    script = client.register_script("return redis.call('INCRBY', KEYS[1], ARGV[1])")
    assert script(keys=["n"], args=[5]) == 5
    assert "redis_version" in client.info() and client.dbsize() > 100
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        client.get("l")
    client.close()


@pytest.mark.parametrize("prelude", [(), (("MULTI",),), (("HELLO", 3), ("CLIENT", "TRACKING", "ON")),
                                     (("SUBSCRIBE", "c"),)], ids=str)
@needs_proxy
def test_http_costs_its_own_connection_and_no_link(proxy, prelude):
    """Redis closes who says so; the links to it are shared."""
    lost = proxy.metrics().get("backend_connections_lost_total")
    closed = proxy.metrics().get("client_closed_total", reason="protocol")
    requests = (b"POST / HTTP/1.1\r\nHost: proxy\r\n\r\n", b"Host: proxy\r\n", encode("pOsT"),
                b"GET / HTTP/1.1\r\nhost: proxy\r\n\r\nSET smuggled 1\r\n")
    for request in requests:
        with proxy.client() as client, proxy.client() as other:
            for command in prelude:
                client.ok(*command)
            client.send(request)
            assert b"unknown command" not in client.read_all()
            assert other.ok("SET", "k", "v") == b"OK"
            assert other.ok("EXISTS", "smuggled") == 0
    metrics = proxy.metrics()
    assert metrics.get("backend_connections_lost_total") == lost
    assert metrics.get("client_closed_total", reason="protocol") == closed + len(requests)
    assert "client closed: it speaks HTTP" in proxy.log()


# --- ten thousand ---------------------------------------------------------------------------------

@needs_proxy
def test_ten_thousand_connections(start_proxy, redis_server):
    count = 10000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count + 500:
        pytest.skip(f"the descriptor limit is {hard}, {count + 500} are needed")
    proxy = start_proxy(redis_server.url(), {"maxclients": count + 100})
    before = proxy.rss_bytes()
    sockets = {}
    poller = select.epoll()
    try:
        begun = time.monotonic()
        for _ in range(count):
            each = socket.socket()
            each.setblocking(False)
            error = each.connect_ex(proxy.address)
            assert error in (0, errno.EINPROGRESS), errno.errorcode[error]
            sockets[each.fileno()] = each
            poller.register(each, select.EPOLLOUT)
        waiting, answered = set(sockets), 0
        deadline = time.monotonic() + 30 * SCALE
        while answered < count:
            assert time.monotonic() < deadline, f"{answered} of {count} were answered"
            for number, events in poller.poll(1):
                if events & select.EPOLLOUT and number in waiting:
                    waiting.discard(number)
                    sockets[number].send(b"PING\r\n")
                    poller.modify(number, select.EPOLLIN)
                elif events & select.EPOLLIN:
                    reply = sockets[number].recv(100)
                    assert reply == b"+PONG\r\n", reply
                    answered += 1
                    poller.unregister(number)
        seconds = time.monotonic() - begun
        each = (proxy.rss_bytes() - before) / count
        print(f"{count} connections answered in {seconds:.2f} s, {each:.0f} bytes of memory each")
        assert proxy.metrics().get("clients") == count
        if not is_sanitized():
            assert each <= 4096
    finally:
        poller.close()
        for each in sockets.values():
            each.close()
    wait_until(lambda: proxy.metrics().get("clients") == 0, 20, "all clients to be gone")


@needs_proxy
def test_a_reply_that_breaks_off_closes_its_client(start_proxy, start_relay, redis_server):
    """The beginning has gone out: an error text would be taken for more of the value."""
    size = 60 << 20
    relay = start_relay(redis_server.address)
    proxy = start_proxy("redis://%s:%d" % relay.address, {
        "client-output-limit": "256mb", "client-output-soft-limit": "256mb"})
    with redis_server.client() as direct, proxy.client() as client:
        direct.ok("SET", "large", b"b" * size)
        client.send(encode("GETEX", "large"))
        whole = bytearray(client.socket.recv(1024))
        relay.cut()
        header = b"$%d\r\n" % size
        while len(whole) < len(header) + size:
            data = client.socket.recv(1 << 18)
            if not data:
                break
            whole += data
        assert whole.startswith(header)
        assert bytes(whole[len(header):len(header) + size]).strip(b"b") == b""
    proxy.assert_healthy()
