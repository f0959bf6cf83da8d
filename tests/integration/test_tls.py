"""TLS with clients and with the backend: who gets in, who does not and what is said about it;
certificates that change; sessions that are resumed; everything else works as without."""

import contextlib
import ctypes
import os
import pathlib
import select
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import threading
import time

import pytest
import redis

from harness.resp import encode
from harness.sentinels import Sentinel
from harness.servers import RedisProcess, SLOTS, free_port, wait_for
from harness.tls import Authority, TlsClient, TlsRedis, client_context, redis_options
from harness.waiting import SCALE, wait_until

pytestmark = pytest.mark.needs_proxy

FAST = {"reconnect-min": "20ms", "reconnect-max": "200ms", "topology-interval": "200ms"}


class World:
    """One CA, certificates of it, and of others."""

    def __init__(self, directory):
        self.authority = Authority(directory / "ca")
        self.ca = str(self.authority.cert)
        self.server = self.authority.issue("server")
        self.client = self.authority.issue("client")
        self.expired = self.authority.issue("expired", days=-1)
        self.misnamed = self.authority.issue("misnamed", "DNS:elsewhere.example")
        self.stranger = Authority(directory / "other", "other-ca").issue("stranger")

    def listen(self, **more):
        """Options of a proxy with a TLS port for clients that have a certificate."""
        port = free_port()
        options = {"tls-listen": f"127.0.0.1:{port}", "tls-cert-file": self.server.cert,
                   "tls-key-file": self.server.key, "tls-ca-file": self.ca}
        return port, {**FAST, **options, **{k.replace("_", "-"): v for k, v in more.items()}}

    def backend(self, certificate="client", **more):
        options = {"backend-tls-ca-file": self.ca}
        if certificate:
            shown = getattr(self, certificate)
            options.update({"backend-tls-cert-file": shown.cert, "backend-tls-key-file": shown.key})
        return {**FAST, **options, **{k.replace("_", "-"): v for k, v in more.items()}}

    def context(self, certificate="client", version=None):
        return client_context(self.ca, getattr(self, certificate) if certificate else None, version)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def _standing_server(world, tmp_path_factory):
    server = TlsRedis(tmp_path_factory.mktemp("redis"), world.server).start()
    yield server
    server.stop()


@pytest.fixture
def server(_standing_server):
    _standing_server.ask("FLUSHALL")
    return _standing_server


@pytest.fixture
def both(start_proxy, world, server):
    """(proxy, its TLS port): mutual TLS on both sides."""
    port, options = world.listen()
    return start_proxy(server.tls_url(), {**options, **world.backend()}), port


def wait_log(proxy, *words):
    """A line of the log that holds all the words."""
    return wait_until(lambda: next((line for line in proxy.log().splitlines()
                                    if all(word in line for word in words)), None),
                      15, f"a line with {words} in the log")


def redis_py(world, port, **keywords):
    return redis.Redis("localhost", port, ssl=True, ssl_ca_certs=world.ca,
                       ssl_certfile=world.client.cert, ssl_keyfile=world.client.key,
                       socket_timeout=20 * SCALE, **keywords)


# ---- what works ----

def test_commands_values_and_pipelines_pass_both_ways(both, world, server):
    proxy, port = both
    client = redis_py(world, port)
    big = bytes(range(256)) * 20_000
    client.set("big", big)
    for _ in range(3):  # fetched, and from wherever the next ones come
        assert client.get("big") == big
    assert server.ask("STRLEN", "big") == len(big)
    pipe = client.pipeline(transaction=False)
    for number in range(5_000):
        pipe.set(f"k{number}", number)
    for number in range(5_000):
        pipe.get(f"k{number}")
    assert [int(value) for value in pipe.execute()[5_000:]] == list(range(5_000))
    pipe = client.pipeline(transaction=True)
    pipe.incr("counter").incr("counter")
    assert pipe.execute() == [1, 2]
    assert client.blpop("nothing", 0.05) is None
    # Who leaves while it blocks is gone at once, and takes nothing.
    with TlsClient(("127.0.0.1", port), world.context()) as blocked:
        blocked.send(encode("BLPOP", "queue", "0"))
        wait_until(lambda: proxy.metrics().get("blocked_clients") == 1, 10, "the wait")
    wait_until(lambda: proxy.metrics().get("blocked_clients") == 0, 10, "its end")
    client.rpush("queue", "item")
    assert server.ask("LLEN", "queue") == 1
    # So is who says farewell and waits for ours before the connection ends.
    with TlsClient(("127.0.0.1", port), world.context()) as blocked:
        blocked.send(encode("BLPOP", "empty", "0"))
        wait_until(lambda: proxy.metrics().get("blocked_clients") == 1, 10, "the wait")
        blocked.socket.unwrap().close()
    wait_until(lambda: proxy.metrics().get("blocked_clients") == 0, 10, "its end")
    done = subprocess.run(
        ["redis-cli", "-p", str(port), "--tls", "--cacert", world.ca, "--cert", world.client.cert,
         "--key", world.client.key, "STRLEN", "big"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(len(big))
    # The listener without TLS is another one, and has the same data.
    with proxy.client() as plain:
        assert plain.ok("GET", "counter") == b"2"
    client.connection_pool.disconnect()
    wait_until(lambda: proxy.metrics().get("tls_connections", side="client") == 0, 10, "its end")
    assert proxy.metrics().get("tls_connections", side="backend") >= 3
    assert "TLS handshake failed" not in proxy.log()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_both_versions_and_requests_cut_anywhere(both, world, version):
    _, port = both
    request = encode("SET", "cut", b"v" * 100) + encode("GET", "cut") + encode("PING", "x" * 40_000)
    expected = b"+OK\r\n$100\r\n" + b"v" * 100 + b"\r\n$40000\r\n" + b"x" * 40_000 + b"\r\n"
    with TlsClient(("127.0.0.1", port), world.context(version=version)) as client:
        assert client.socket.version() == version.name.replace("_", ".")
        for step in (7, 1000, 16_384, len(request)):  # each send is a record, or several
            for at in range(0, min(len(request), 700 if step == 7 else len(request)), step):
                client.send(request[at:at + step])
            if step == 7:
                client.send(request[at + 7:])
            assert b"".join(client.read() for _ in range(3)) == expected


def test_many_small_requests_in_large_records(both, world):
    """What OpenSSL has read already is not waited for: no event would come for it."""
    _, port = both
    with TlsClient(("127.0.0.1", port), world.context()) as client:
        n = 20_000
        client.send(encode("PING") * n)
        for _ in range(n):
            assert client.read() == b"+PONG\r\n"
        client.send(encode("PING", "last"))
        assert client.read() == b"$4\r\nlast\r\n"


def send_at_once(proxy, connection, data):
    proxy.pause()
    connection.sendall(data)
    proxy.resume()


class SplittingRelay:
    """TLS towards the proxy, none towards the server. Of a large reply it sends 40 KB first; when
    they were read, the rest while the proxy stands still, so that it finds all of it at once."""

    proxy = None

    def __init__(self, world, server):
        self._server = server
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(world.server.cert, world.server.key)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near):
        with contextlib.suppress(OSError, ssl.SSLError), \
                self._context.wrap_socket(near, server_side=True) as near, \
                socket.create_connection(self._server.address) as far:
            near.settimeout(0.001)
            while True:
                with contextlib.suppress(TimeoutError):
                    request = near.recv(1 << 16)
                    if not request:
                        return
                    far.sendall(request)
                reply = b""
                while select.select([far], [], [], 0.005)[0]:
                    part = far.recv(1 << 20)
                    if not part:
                        return
                    reply += part
                near.settimeout(10)
                if self.proxy is not None and len(reply) > 50_000:
                    before = self.proxy.metrics().get("backend_read_bytes_total")
                    near.sendall(reply[:40_000])
                    self.proxy.wait_metric("backend_read_bytes_total", before + 40_000)
                    send_at_once(self.proxy, near, reply[40_000:])
                else:
                    near.sendall(reply)
                near.settimeout(0.001)

    def close(self):
        self._listener.close()


def test_what_was_read_ahead_and_did_not_fit_is_read_on(start_proxy, world, server):
    """A buffer of 64 KiB with 40 KB in it has room for the next record and half of the one behind,
    which the socket then does not tell of."""
    value = bytes(range(256)) * 270
    relay = SplittingRelay(world, server)
    port, options = world.listen()
    # Nor does anything else come for a while that would wake the link.
    quiet = {"fence-interval": "9s", "max-staleness": "20s", "link-timeout": "30s",
             "flight-timeout": "1m"}
    proxy = start_proxy(f"rediss://127.0.0.1:{relay.port}", {**options, **world.backend(), **quiet})
    relay.proxy = proxy
    with contextlib.closing(relay), \
            TlsClient(("127.0.0.1", port), world.context(), timeout=5) as client:
        request = encode("SET", "v", value)
        before = proxy.metrics().get("client_read_bytes_total")
        client.send(request[:40_000])
        proxy.wait_metric("client_read_bytes_total", before + 40_000)
        send_at_once(proxy, client.socket, request[40_000:])
        assert client.read() == b"+OK\r\n"
        for command in ("GET", "GETEX"):  # over a tracking link and over a relay link
            assert client.ok(command, "v") == value


def test_a_slow_reader_gets_all_of_it(both, world):
    proxy, port = both
    value = bytes(range(256)) * 4_000
    with TlsClient(("127.0.0.1", port), world.context(), receive_buffer=8192) as client:
        client.ok("SET", "v", value)
        client.ok("GET", "v")
        before = proxy.metrics().get("client_written_bytes_total")
        client.send(encode("GET", "v") * 8)
        # The proxy is blocked in the middle of a record, with more behind it.
        wait_until(lambda: proxy.metrics().get("client_written_bytes_total") > before, 10, "output")
        for _ in range(8):
            assert client.read() == b"$%d\r\n%s\r\n" % (len(value), value)


def test_tracking_and_pubsub(both, world, server):
    _, port = both
    context = world.context()
    with TlsClient(("127.0.0.1", port), context, 3) as client, \
            TlsClient(("127.0.0.1", port), context, 3) as other:
        client.ok("SUBSCRIBE", "news")
        wait_until(lambda: server.ask("PUBSUB", "NUMSUB", "news")[1] == 1, 10, "the subscription")
        assert other.ok("PUBLISH", "news", "hello") == 1
        assert client.read() == b">3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$5\r\nhello\r\n"
        other.ok("SET", "t", "1")
        for _ in range(3):
            assert other.ok("GET", "t") == b"1"
        # A write around the proxy: the tracking link, by TLS, brings the invalidation.
        server.ask("SET", "t", "2")
        wait_until(lambda: other.ok("GET", "t") == b"2", 10, "the invalidation")
        # And a client that keeps what it has read hears of it too.
        client.ok("UNSUBSCRIBE", "news")
        client.ok("CLIENT", "TRACKING", "ON")
        client.ok("GET", "t")
        server.ask("SET", "t", "3")
        assert client.read() == b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nt\r\n"


def test_keys_are_updated_and_renegotiation_is_refused(both, world):
    """By openssl s_client, where a line of K asks for new keys and R renegotiates."""
    _, port = both

    def talk(version, text):
        with subprocess.Popen(
                ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", version, "-CAfile",
                 world.ca, "-cert", world.client.cert, "-key", world.client.key, "-quiet"][:-1],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            try:
                for line, answer in text:
                    process.stdin.write(line)
                    process.stdin.flush()
                    seen = b""
                    while answer not in seen:
                        part = process.stdout.read1(4096)
                        assert part, f"ended after {line}: {seen[-500:]}"
                        seen += part
            finally:
                process.kill()

    talk("-tls1_3", [(b"ECHO one\n", b"one\r\n"), (b"K\n", b"KEYUPDATE"),
                     (b"ECHO two\n", b"two\r\n"), (b"ECHO three\n", b"three\r\n")])
    talk("-tls1_2", [(b"ECHO one\n", b"one\r\n"), (b"R\n", b"no renegotiation")])


class KeyUpdater:
    """A client by OpenSSL itself that asks for new keys and reads nothing, so that the proxy's
    answers soon find no room."""

    def __init__(self, port, certificate):
        self._lib = lib = ctypes.CDLL("libssl.so.3")
        for name in ("TLS_client_method", "SSL_CTX_new", "SSL_new"):
            getattr(lib, name).restype = ctypes.c_void_p
        self._socket = socket.socket()
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 300)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        self._socket.connect(("127.0.0.1", port))
        self._context = ctypes.c_void_p(lib.SSL_CTX_new(ctypes.c_void_p(lib.TLS_client_method())))
        lib.SSL_CTX_use_certificate_chain_file(self._context, certificate.cert.encode())
        lib.SSL_CTX_use_PrivateKey_file(self._context, certificate.key.encode(), 1)
        self._ssl = ctypes.c_void_p(lib.SSL_new(self._context))
        lib.SSL_set_fd(self._ssl, self._socket.fileno())
        assert lib.SSL_connect(self._ssl) == 1
        self._socket.setblocking(False)

    def flood(self):
        """Far more than there is room for the answers to."""
        for number in range(20_000):
            self._lib.SSL_key_update(self._ssl, 1)
            self._lib.SSL_do_handshake(self._ssl)
            if number % 20 == 0:
                time.sleep(0.001)  # so many at once would be too many

    def close(self):
        self._lib.SSL_free(self._ssl)
        self._lib.SSL_CTX_free(self._context)
        self._socket.close()


def test_who_does_not_take_our_answers_does_not_keep_us_busy(both, world):
    """What can be read stays in the socket until the answer before it has left."""
    proxy, port = both

    def cpu_seconds():
        fields = pathlib.Path(f"/proc/{proxy.process.pid}/stat").read_text().split()
        return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")

    with contextlib.closing(KeyUpdater(port, world.client)) as updater:
        updater.flood()  # it may be closed over this; what it may not is turn us in circles
        before = cpu_seconds()
        time.sleep(1)
        assert cpu_seconds() - before < 0.4
        with TlsClient(("127.0.0.1", port), world.context()) as client:
            assert client.ok("PING") == b"PONG"


# ---- who does not get in ----

def refused(world, port, certificate, version=None):
    """The alert comes with the handshake, or, in TLS 1.3, with what follows it."""
    with pytest.raises((ssl.SSLError, EOFError, ConnectionError)):
        with TlsClient(("127.0.0.1", port), world.context(certificate, version)) as client:
            client.ask("PING")


@pytest.mark.parametrize("certificate, reason", [
    ("stranger", "unable to get local issuer certificate, subject /CN=stranger"),
    ("expired", "certificate has expired, subject /CN=expired"),
    (None, "the client sent no certificate"),
])
def test_clients_are_refused_with_a_reason(both, world, certificate, reason):
    proxy, port = both
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        refused(world, port, certificate, version)
    line = wait_log(proxy, "TLS handshake failed", reason)
    assert "client=127.0.0.1:" in line and f"listener=127.0.0.1:{port}" in line
    proxy.wait_metric("tls_handshakes_total", 2, side="client", result="failed")
    with TlsClient(("127.0.0.1", port), world.context()) as client:
        assert client.ok("PING") == b"PONG"
    assert proxy.metrics().get("tls_handshakes_total", side="client", result="failed") == 2


def test_plain_text_on_the_tls_port_is_refused(both, world):
    proxy, port = both
    with socket.create_connection(("127.0.0.1", port)) as plain:
        plain.sendall(encode("PING"))
        with contextlib.suppress(ConnectionError):
            while plain.recv(4096):  # an alert, then the end
                pass
    wait_log(proxy, "TLS handshake failed", "plain text, not TLS")
    # Who only looks whether the port is open is no failure.
    n = proxy.metrics().get("tls_handshakes_total", side="client", result="failed")
    socket.create_connection(("127.0.0.1", port)).close()
    hasty = socket.create_connection(("127.0.0.1", port))
    hasty.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    hasty.close()
    with TlsClient(("127.0.0.1", port), world.context()) as client:
        client.ok("PING")
    wait_until(lambda: proxy.metrics().get("tls_connections", side="client") == 0, 10, "the ends")
    assert proxy.metrics().get("tls_handshakes_total", side="client", result="failed") == n
    # And a client that likes our certificate no more than we do theirs says so.
    with pytest.raises(ssl.SSLError):
        TlsClient(("127.0.0.1", port), client_context(world.stranger.ca, world.client))
    wait_log(proxy, "TLS handshake failed", "the client refused: unknown CA")


def test_certificates_may_be_optional_or_not_asked_for(start_proxy, world, server):
    port, options = world.listen(tls_auth_clients="optional")
    start_proxy(server.url(), options)
    refused(world, port, "stranger")
    for certificate in (None, "client"):
        with TlsClient(("127.0.0.1", port), world.context(certificate)) as client:
            assert client.ok("PING") == b"PONG"
    port, options = world.listen(tls_auth_clients="no", tls_protocols="TLSv1.3")
    start_proxy(server.url(), options)
    for certificate in (None, "client", "stranger"):
        with TlsClient(("127.0.0.1", port), world.context(certificate)) as client:
            assert client.ok("PING") == b"PONG"
    refused(world, port, "client", ssl.TLSVersion.TLSv1_2)


def test_a_handshake_that_stops_half_way_costs_its_own_connection(start_proxy, world, server):
    port, options = world.listen(tls_handshake_timeout="300ms")
    proxy = start_proxy(server.url(), options)
    silent = socket.create_connection(("127.0.0.1", port))
    half = socket.create_connection(("127.0.0.1", port))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = world.context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    hello = outgoing.read()
    half.sendall(hello[:len(hello) // 2])
    with TlsClient(("127.0.0.1", port), world.context()) as client:
        for late in (silent, half):
            late.settimeout(10 * SCALE)
            assert late.recv(1) == b""
            late.close()
        assert client.ok("PING") == b"PONG"
    assert proxy.metrics().get("client_closed_total", reason="tls-handshake") == 2
    wait_log(proxy, "TLS handshake failed", "tls-handshake-timeout")


def test_many_that_come_at_once_are_all_let_in(both, world):
    """More than a worker's turn takes; and nothing is lost when the last flight comes with data."""
    proxy, port = both
    context = world.context()
    pairs = []
    for _ in range(200):
        plain = socket.create_connection(("127.0.0.1", port))
        plain.setblocking(False)
        pairs.append(context.wrap_socket(plain, server_hostname="localhost",
                                         do_handshake_on_connect=False))
    waiting = list(pairs)

    def all_shook_hands():
        for one in list(waiting):
            with contextlib.suppress(ssl.SSLWantReadError):
                one.do_handshake()
                one.sendall(encode("PING"))
                waiting.remove(one)
        return not waiting

    wait_until(all_shook_hands, 20, "all handshakes", pause=0)
    for one in pairs:
        one.settimeout(10 * SCALE)
        assert one.recv(100) == b"+PONG\r\n"
        one.close()
    assert proxy.metrics().get("tls_handshakes_total", side="client", result="full") == 200


# ---- the backend ----

@pytest.mark.parametrize("shown, by_us, reason", [
    ("server", "stranger", "the server refused: unknown CA"),
    ("server", "expired", "the server refused: certificate expired"),
    ("server", None, "the server refused: tlsv13 alert certificate required"),
    # Redis shows its CA as well.
    ("stranger", "client", "self-signed certificate in certificate chain, subject /CN=other-ca"),
    ("expired", "client", "certificate has expired, subject /CN=expired"),
    ("misnamed", "client", "IP address mismatch, subject /CN=misnamed"),
])
def test_backends_are_refused_with_a_reason(start_proxy, world, tmp_path, server, shown, by_us,
                                            reason):
    certificate = getattr(world, shown)
    one = server if shown == "server" else TlsRedis(tmp_path / "redis", certificate).start()
    try:
        proxy = start_proxy(one.tls_url(), world.backend(by_us), wait="alive")
        line = wait_log(proxy, "level=warn", reason)
        assert f"addr=127.0.0.1:{one.tls_port}" in line
        assert not proxy.is_ready()
        with proxy.client() as client:
            assert client.ask("GET", "k").startswith(b"-ERR nearcached: ")
        if shown == "misnamed":
            other = start_proxy(one.tls_url(), world.backend(
                by_us, backend_tls_server_name="elsewhere.example"))
            with other.client() as client:
                assert client.ok("SET", "k", "v") == b"OK"
        elif shown != "server":
            trusted = "stranger" if shown == "stranger" else by_us
            other = start_proxy(one.tls_url(), world.backend(trusted, backend_tls_verify="off"))
            assert "not verified" in wait_log(other, "level=warn", "backend-tls-verify = off")
        if shown != "server":
            assert proxy.metrics().get("tls_handshakes_total", side="backend", result="failed") > 0
    finally:
        if one is not server:
            one.stop()


def test_a_backend_without_tls_is_told_from_one_with(start_proxy, world, server):
    proxy = start_proxy(server.url(), world.backend())
    wait_log(proxy, "level=warn", "no TLS to the backend")
    with socket.create_server(("127.0.0.1", 0)) as speaker:
        def speak():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = speaker.accept()
                    connection.sendall(b"-ERR no TLS here\r\n")
                    connections.append(connection)

        connections = []
        threading.Thread(target=speak, daemon=True).start()
        proxy = start_proxy(f"rediss://127.0.0.1:{speaker.getsockname()[1]}", world.backend(),
                            wait="alive")
        wait_log(proxy, "the server speaks plain text, not TLS")
    for connection in connections:
        connection.close()
    # Redis waits for the rest of a line that never comes.
    proxy = start_proxy(f"rediss://127.0.0.1:{server.port}",
                        {**world.backend(), "connect-timeout": "200ms"}, wait="alive")
    wait_log(proxy, "level=warn", "no TLS handshake within 200 ms")


def test_backends_are_asked_for_by_name(start_proxy, world, tmp_path):
    """SNI, from the URL's host or from the option; a number is not sent."""
    names = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(world.server.cert, world.server.key)
    context.sni_callback = lambda sock, name, ctx: names.append(name)

    def serve(listener):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with contextlib.suppress(OSError), \
                        context.wrap_socket(connection, server_side=True) as tls:
                    tls.recv(100)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        port = listener.getsockname()[1]
        for host, option, expected in (("localhost", {}, "localhost"), ("127.0.0.1", {}, None),
                                       ("127.0.0.1", {"backend_tls_server_name": "localhost"},
                                        "localhost")):
            names.clear()
            proxy = start_proxy(f"rediss://{host}:{port}", world.backend(**option), wait="alive")
            wait_until(lambda: names, 10, "a handshake")
            proxy.stop()
            assert set(names) == {expected}


def test_a_cluster_by_tls(start_proxy, world, tmp_path):
    nodes = []
    for number in range(3):
        port = free_port(with_bus=True)
        node = RedisProcess(tmp_path / f"node{number}", [
            *redis_options(world.server, port), ("cluster-enabled", "yes"),
            ("cluster-config-file", "nodes.conf"), ("tls-cluster", "yes")])
        node.tls_port = port
        nodes.append(node)
    try:
        for number, node in enumerate(nodes):
            node.start()
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            node.ask("CLUSTER", "ADDSLOTSRANGE", SLOTS * number // 3, SLOTS * (number + 1) // 3 - 1)
        for node in nodes[1:]:
            nodes[0].ask("CLUSTER", "MEET", "127.0.0.1", node.tls_port)
        wait_for(lambda: all(b"cluster_state:ok" in node.ask("CLUSTER", "INFO")
                             and node.ask("CLUSTER", "NODES").count(b"connected") == 3
                             for node in nodes), 30, "the cluster")
        port, options = world.listen()
        proxy = start_proxy(f"rediss://127.0.0.1:{nodes[0].tls_port}",
                            {**options, **world.backend()})
        with TlsClient(("127.0.0.1", port), world.context()) as client:
            keys = [f"key{number}" for number in range(60)]
            client.ok("MSET", *[part for key in keys for part in (key, key)])
            assert client.ok("MGET", *keys) == [key.encode() for key in keys]
            assert client.ok("DBSIZE") == 60
        assert all(node.ask("DBSIZE") > 0 for node in nodes)
        for node in nodes:
            wait_log(proxy, "link up", f"addr=127.0.0.1:{node.tls_port}", "tracking=on")
    finally:
        for node in nodes:
            node.kill()


class TlsSentinel(Sentinel):
    def __init__(self, directory, certificate, master_port):
        super().__init__(directory, "main", master_port, 1)
        self.tls_port = free_port()
        self._lines += [f"{name} {value}"
                        for name, value in redis_options(certificate, self.tls_port)]
        self._lines.append("tls-replication yes")


@pytest.mark.long_test(120)
def test_a_master_behind_sentinels_by_tls(start_proxy, world, tmp_path):
    by_tls = [("tls-replication", "yes")]
    first = TlsRedis(tmp_path / "first", world.server, by_tls)
    second = TlsRedis(tmp_path / "second", world.server,
                      by_tls + [("replicaof", f"127.0.0.1 {first.tls_port}")])
    sentinel = TlsSentinel(tmp_path / "sentinel", world.server, first.tls_port)
    try:
        for process in (first, second, sentinel):
            process.start()

        def facts():
            fields = sentinel.ask("SENTINEL", "MASTER", "main")
            return dict(zip(fields[::2], fields[1::2]))

        wait_for(lambda: facts()[b"num-slaves"] == b"1"
                 and second.info("replication")["master_link_status"] == "up", 30, "the replica")
        proxy = start_proxy(f"sentinels://127.0.0.1:{sentinel.tls_port}/main", world.backend())
        # The master by TLS, its Sentinel in plain.
        mixed = start_proxy(f"sentinels://127.0.0.1:{sentinel.port}/main",
                            world.backend(sentinel_tls="off"))
        refused_one = start_proxy(f"sentinels://127.0.0.1:{sentinel.tls_port}/main",
                                  world.backend("stranger"), wait="alive")
        wait_log(refused_one, "sentinel", "the server refused: unknown CA")
        with proxy.client() as client, mixed.client() as other:
            client.ok("SET", "k", "v")
            assert other.ok("GET", "k") == b"v"
            client.ok("WAIT", 1, 5000)
            sentinel.ask("SENTINEL", "FAILOVER", "main")
            wait_until(lambda: second.info("replication")["role"] == "master", 30, "a failover")
            second.disconnect()
            for number, one in enumerate((client, other)):
                wait_until(lambda: one.value("SET", "k", number) == b"OK"
                           and second.ask("GET", "k") == b"%d" % number, 30, "writes to go on")
    finally:
        for process in (sentinel, second, first):
            process.kill()


def test_a_refused_sentinel_is_complained_of_once(start_proxy, world, tmp_path):
    certificate = Authority(tmp_path / "ca", "c" * 60 + "/O=" + "o" * 60).issue("sentinel")
    one = TlsRedis(tmp_path / "redis", certificate).start()
    try:
        proxy = start_proxy(f"sentinels://127.0.0.1:{one.tls_port}/main", world.backend(),
                            wait="alive")
        proxy.wait_metric("tls_handshakes_total", 4, side="backend", result="failed")
        assert proxy.log().count("self-signed certificate in certificate chain") == 1
    finally:
        one.stop()


# ---- what changes ----

def write_files(world, directory, name):
    """The named certificate where the configuration looks for it."""
    certificate = getattr(world, name) if isinstance(name, str) else name
    shutil.copy(certificate.cert, directory / "now.crt")
    shutil.copy(certificate.key, directory / "now.key")


def reload(proxy, metric):
    before = proxy.metrics().get(metric)
    proxy.signal(signal.SIGHUP)
    proxy.wait_metric(metric, before + 1)


def test_certificates_change_under_connected_clients(start_proxy, world, server, tmp_path):
    write_files(world, tmp_path, "server")
    port, options = world.listen(tls_cert_file=tmp_path / "now.crt",
                                 tls_key_file=tmp_path / "now.key")
    proxy = start_proxy(server.tls_url(), {**options, **world.backend()})
    address, context = ("127.0.0.1", port), world.context()
    with TlsClient(address, context) as early:
        assert early.peer_name() == "server"
        early.ok("SET", "k", "v")
        write_files(world, tmp_path, world.authority.issue("renewed"))
        reload(proxy, "config_reloads_total")
        with TlsClient(address, context) as late:
            assert late.peer_name() == "renewed"
            assert late.ok("GET", "k") == b"v"
            assert early.ok("GET", "k") == b"v"
            # Files that do not belong together: refused, with what is wrong and where.
            shutil.copy(world.client.key, tmp_path / "now.key")
            reload(proxy, "config_reload_failures_total")
            wait_log(proxy, "reload refused", f"tls-key-file = {tmp_path}/now.key",
                     "key values mismatch")
            (tmp_path / "now.crt").unlink()
            reload(proxy, "config_reload_failures_total")
            wait_log(proxy, "reload refused", f"tls-cert-file = {tmp_path}/now.crt",
                     "No such file or directory")
            with TlsClient(address, context) as latest:
                assert latest.peer_name() == "renewed"
            write_files(world, tmp_path, "server")
            reload(proxy, "config_reloads_total")
            with TlsClient(address, context) as latest:
                assert latest.peer_name() == "server"
            for client in (early, late):
                assert client.ok("GET", "k") == b"v"
    line = wait_log(proxy, "certificate in force", "/CN=renewed", "side=client")
    assert "not_after=" in line


def test_the_clients_that_are_let_in_change_too(start_proxy, world, server, tmp_path):
    """Nobody slips in by resuming a session of before."""
    both_cas = tmp_path / "cas.crt"
    both_cas.write_text(pathlib.Path(world.ca).read_text()
                        + pathlib.Path(world.stranger.ca).read_text())
    port, options = world.listen(tls_ca_file=both_cas)
    proxy = start_proxy(server.url(), options)
    context = world.context("stranger")
    with TlsClient(("127.0.0.1", port), context) as client:
        client.ok("PING")
        session = client.socket.session
    shutil.copy(world.ca, both_cas)
    reload(proxy, "config_reloads_total")
    with pytest.raises((ssl.SSLError, EOFError, ConnectionError)):
        TlsClient(("127.0.0.1", port), context, session=session).ask("PING")
    wait_log(proxy, "TLS handshake failed", "unable to get local issuer certificate")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_clients_resume_their_sessions(both, world, version):
    proxy, port = both
    context, session = world.context(version=version), None
    for number in range(3):
        with TlsClient(("127.0.0.1", port), context, session=session) as client:
            client.ok("PING")
            assert client.socket.session_reused == (number > 0)
            session = client.socket.session
    assert proxy.metrics().get("tls_handshakes_total", side="client", result="resumed") == 2
    assert proxy.metrics().get("tls_handshakes_total", side="client", result="full") == 1


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_session_ends_with_the_certificate(both, world, version):
    proxy, port = both
    brief, end = world.authority.shorten(world.authority.issue(f"brief{version}"), 4)
    context = client_context(world.ca, brief, version)
    with TlsClient(("127.0.0.1", port), context) as client:
        client.ok("PING")
        session = client.socket.session
    wait_until(lambda: time.time() > end + 1, 15, "the end of a certificate")
    with pytest.raises((ssl.SSLError, EOFError, ConnectionError)):
        TlsClient(("127.0.0.1", port), context, session=session).ask("PING")
    wait_log(proxy, "TLS handshake failed", "certificate has expired")


def test_sessions_are_resumed_at_the_backend(start_proxy, world, server):
    proxy = start_proxy(server.tls_url(), world.backend())
    with proxy.client() as client:
        client.ok("SET", "k", "v")
        full = proxy.metrics().get("tls_handshakes_total", side="backend", result="full")
        resumed = proxy.metrics().get("tls_handshakes_total", side="backend", result="resumed")
        server.ask("CLIENT", "KILL", "TYPE", "normal")
        server.disconnect()
        proxy.wait_metric("tls_handshakes_total", resumed + 3, side="backend", result="resumed")
        wait_until(lambda: client.value("GET", "k") == b"v", 10, "the links")
        assert proxy.metrics().get("tls_handshakes_total", side="backend", result="full") == full


def test_resumption_can_be_turned_off(start_proxy, world, server):
    port, options = world.listen(tls_session_resumption="off")
    proxy = start_proxy(server.tls_url(), {**options, **world.backend()})
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context, session = world.context(version=version), None
        for _ in range(2):
            with TlsClient(("127.0.0.1", port), context, session=session) as client:
                client.ok("SET", "k", "v")
                assert not client.socket.session_reused
                session = client.socket.session
    assert proxy.metrics().get("tls_handshakes_total", result="resumed") == 0


def test_the_certificate_is_chosen_by_the_name_asked_for(start_proxy, world, server):
    other = world.authority.issue("other", "DNS:other.example")
    secret = world.authority.issue("secret", "DNS:*.secret.example", password="hush-hush")
    port, options = world.listen(
        tls_cert_file=f"{world.server.cert} {other.cert} {secret.cert}",
        tls_key_file=f"{world.server.key} {other.key} {secret.key}")
    proxy = start_proxy(server.url(), options,
                        env={"NEARCACHED_TLS_KEY_FILE_PASSWORD": "hush-hush"})
    for host, name in (("localhost", "server"), ("other.example", "other"),
                       ("a.secret.example", "secret")):
        with TlsClient(("127.0.0.1", port), world.context(), host=host) as client:
            assert client.peer_name() == name
            assert client.ok("PING") == b"PONG"
    assert "hush-hush" not in proxy.log() + proxy.metrics().text
