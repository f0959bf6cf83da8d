"""present-as = cluster: the proxy as one node that owns every slot, as a real cluster of one node
words it, and as client libraries that insist on cluster mode want it."""

import re
import socket
import subprocess

import pytest

from harness.proxy import Proxy, run_binary
from harness.resp import decode
from harness.servers import RedisServer, free_port
from harness.waiting import wait_until

pytestmark = pytest.mark.needs_proxy


class OneNodeCluster(RedisServer):
    """A real server in cluster mode that owns all slots: the reference."""

    def __init__(self, directory):
        super().__init__(directory, cluster=True)

    def start(self):
        super().start()
        self.ask("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
        wait_until(lambda: b"cluster_state:ok" in self.ask("CLUSTER", "INFO"), 20, "the cluster")
        return self


@pytest.fixture
def one_node(_session_servers):
    server = _session_servers.get("one-node-cluster", OneNodeCluster)
    server.ask("FLUSHALL")
    return server


@pytest.fixture(params=["server", "cluster"])
def presented(request, _session_servers):
    """The proxy in front of either, and empty."""
    backend = request.getfixturevalue("redis_server" if request.param == "server" else "cluster")
    proxy = _session_servers.get(f"presented-{request.param}", lambda directory: Proxy(
        directory, backend.url(), {"present-as": "cluster"}))
    wait_until(proxy.is_ready, 15, "the proxy to be ready")
    with proxy.client() as client:
        wait_until(lambda: client.ask("FLUSHALL") == b"+OK\r\n", 10, "FLUSHALL")
    yield proxy
    proxy.assert_healthy()


SAME = """
CLUSTER SLOTS|CLUSTER SHARDS|CLUSTER NODES|CLUSTER INFO|CLUSTER MYID|CLUSTER LINKS
CLUSTER KEYSLOT foo|CLUSTER KEYSLOT {a}b|CLUSTER COUNTKEYSINSLOT 12182|CLUSTER COUNTKEYSINSLOT x
CLUSTER COUNTKEYSINSLOT 16384|CLUSTER COUNTKEYSINSLOT -1|CLUSTER GETKEYSINSLOT 12182 10
CLUSTER GETKEYSINSLOT 12182 0|CLUSTER GETKEYSINSLOT 1 10|CLUSTER GETKEYSINSLOT 1 -1
CLUSTER GETKEYSINSLOT 16384 1|CLUSTER GETKEYSINSLOT x 1|CLUSTER GETKEYSINSLOT 1 x
CLUSTER REPLICAS abc|CLUSTER REPLICAS me|CLUSTER SLAVES abc|CLUSTER SLAVES me
CLUSTER COUNT-FAILURE-REPORTS abc|CLUSTER COUNT-FAILURE-REPORTS me
CLUSTER|CLUSTER NOPE|CLUSTER NOPE x|CLUSTER KEYSLOT|CLUSTER SLOTS x|CLUSTER COUNTKEYSINSLOT
READONLY|READWRITE|ASKING|READONLY x|SELECT 0|SELECT 1|SELECT 99|SELECT -1|SELECT x
SELECT 99999999999|MOVE foo 1|SWAPDB 0 1|HELLO|HELLO 2|HELLO 3|DBSIZE|SCAN 0 COUNT 100
"""


def masked(frame, port):
    """Ids, the address (the reference does not know its own), client ids and lengths."""
    frame = re.sub(rb"[0-9a-f]{40}", b"ID", frame)
    frame = frame.replace(b"$9\r\n127.0.0.1\r\n", b"$0\r\n\r\n").replace(b" 127.0.0.1:", b" :")
    frame = frame.replace(b"%d" % (port + 10000), b"BUS").replace(b"%d" % port, b"PORT")
    frame = re.sub(rb"(\$2\r\nid\r\n):\d+", rb"\1:N", frame)
    return re.sub(rb"[$=]\d+\r\n", b"$\r\n", frame)


@pytest.mark.parametrize("protocol", [2, 3])
def test_it_answers_as_a_cluster_of_one_node(presented, one_node, protocol):
    with one_node.client(protocol) as direct, presented.client(protocol) as proxied:
        ids = [client.ok("CLUSTER", "MYID").decode() for client in (direct, proxied)]
        assert all(re.fullmatch("[0-9a-f]{40}", each) for each in ids)
        for client in (direct, proxied):
            client.ok("SET", "foo", "bar")
        cases = [case.split() for line in SAME.strip().splitlines() for case in line.split("|")]
        for case in cases:
            expected, got = [
                masked(client.ask(*[own if word == "me" else word for word in case]), port)
                for client, own, port in ((direct, ids[0], one_node.port),
                                          (proxied, ids[1], presented.port))]
            if case[0] == "SCAN":
                expected, got = expected[:1], got[:1]
            assert got == expected, case
            if case[0] == "HELLO":
                for client in (direct, proxied):
                    client.ok("HELLO", str(protocol))


def test_info_says_cluster(presented):
    with presented.client() as client:
        text = client.ok("INFO").decode()
        assert "redis_mode:cluster\r\n" in text and "cluster_enabled:1\r\n" in text
        assert text.count("redis_mode:") == text.count("cluster_enabled:") == 1


def test_what_would_change_the_cluster_is_refused(presented):
    with presented.client() as client:
        for command in ("ADDSLOTS 1", "DELSLOTS 1", "FLUSHSLOTS", "RESET", "FAILOVER", "FORGET x",
                        "MEET 1.2.3.4 5", "REPLICATE x", "SETSLOT 1 STABLE", "BUMPEPOCH",
                        "SAVECONFIG", "SET-CONFIG-EPOCH 1", "ADDSLOTSRANGE 1 2"):
            frame = client.ask("CLUSTER", *command.split())
            assert frame.startswith(b"-ERR command 'cluster"), (command, frame)
        assert client.ok("PING") == b"PONG"


def test_the_keys_of_a_slot(presented):
    with presented.client() as client:
        for number in range(20):
            client.ok("SET", "{t}%d" % number, "v")
            client.ok("SET", f"other{number}", "v")
        slot = client.ok("CLUSTER", "KEYSLOT", "t")
        assert client.ok("CLUSTER", "COUNTKEYSINSLOT", slot) == 20
        keys = client.ok("CLUSTER", "GETKEYSINSLOT", slot, 100)
        assert sorted(keys) == sorted(b"{t}%d" % number for number in range(20))
        assert len(client.ok("CLUSTER", "GETKEYSINSLOT", slot, 7)) == 7


def slots_of(client):
    return client.ok("CLUSTER", "SLOTS")[0][2][:2]


def test_the_address_is_the_one_that_the_client_uses(redis_server, start_proxy, tmp_path):
    port, path = free_port(), str(tmp_path / "client.sock")
    proxy = start_proxy(redis_server.url(), {"present-as": "cluster", "listen": [
        f"[::1]:{port}", f"unix:{path}"]})
    with proxy.client() as client:
        assert slots_of(client) == [b"127.0.0.1", proxy.port]
    with socket.create_connection(("::1", port)) as connection:
        connection.sendall(b"CLUSTER SLOTS\r\nCLUSTER NODES\r\n")
        received = b""
        while b"16383\n" not in received:
            received += connection.recv(65536)
        assert b"$3\r\n::1\r\n:%d\r\n" % port in received
        assert b" ::1:%d@%d myself,master" % (port, port + 10000) in received
    from harness.resp import RawClient
    with RawClient(path) as client:
        assert slots_of(client) == [b"", proxy.port]


@pytest.mark.parametrize("announced, host, port", [
    ("10.1.2.3:7777", b"10.1.2.3", 7777), ("cache.example:6380", b"cache.example", 6380),
    ("[2001:db8::1]:1", b"2001:db8::1", 1)])
def test_another_address_can_be_announced(redis_server, start_proxy, announced, host, port):
    proxy = start_proxy(redis_server.url(), {"present-as": "cluster",
                                             "announce-address": announced})
    with proxy.client(3) as client:
        assert slots_of(client) == [host, port]
        nodes = client.ok("CLUSTER", "NODES")
        assert b" %s:%d@%d" % (host, port, port + 10000) in nodes
        assert (b",cache.example myself" in nodes) == (host == b"cache.example")
        node = client.ok("CLUSTER", "SHARDS")[0][b"nodes"][0]
        assert node[b"ip"] == node[b"endpoint"] == host and node[b"port"] == port
        assert node.get(b"hostname") == (host if host == b"cache.example" else None)


@pytest.mark.parametrize("bad", ["host", "host:0", ":1", "ho st:1", "::1:1", "[::1]"])
def test_bad_addresses_are_refused_at_start(bad):
    done = run_binary("--announce-address", bad, "--test")
    assert done.returncode == 1 and "announce-address" in done.stderr


def test_standalone_stays_the_default(proxy):
    with proxy.client() as client:
        for command in ("CLUSTER SLOTS", "CLUSTER INFO", "CLUSTER HELP", "READONLY", "READWRITE",
                        "ASKING"):
            assert client.ask(*command.split()) == (
                b"-ERR This instance has cluster support disabled\r\n"), command
        assert b"redis_mode:standalone" in client.ok("INFO")


# --- clients that insist --------------------------------------------------------------------------

def test_redis_py_cluster(presented):
    from redis.cluster import RedisCluster
    client = RedisCluster("127.0.0.1", presented.port)
    other = RedisCluster("127.0.0.1", presented.port)
    for number in range(50):
        assert client.set(f"k{number}", number)
        assert other.get(f"k{number}") == str(number).encode()
    assert client.mget_nonatomic("k1", "k2", "none") == [b"1", b"2", None]
    assert client.dbsize() == 50
    assert sorted(client.scan_iter()) == sorted(b"k%d" % number for number in range(50))
    assert client.delete("k0", "k1") == 2 and other.get("k1") is None
    with client.pipeline() as pipeline:
        pipeline.incr("n").incr("n").get("n").hset("h", "f", "v").hgetall("h")
        assert pipeline.execute() == [1, 2, b"2", 1, {b"f": b"v"}]
    assert client.eval("return redis.call('GET', KEYS[1])", 1, "n") == b"2"
    assert client.get_primaries()[0].port == presented.port
    assert client.flushall()
    client.close()
    other.close()


def test_redis_cli(presented):
    def cli(*arguments):
        return subprocess.run(["redis-cli", "-p", str(presented.port), *arguments], text=True,
                              capture_output=True, timeout=20, check=True).stdout

    assert cli("-c", "SET", "k", "v") == "OK\n"
    assert cli("-c", "GET", "k") == "v\n"
    address = f"127.0.0.1:{presented.port}"
    assert "1 keys | 16384 slots" in cli("--cluster", "info", address)
    check = cli("--cluster", "check", address)
    assert "All 16384 slots covered" in check and "ERR" not in check


def test_the_id_is_the_same_on_all_connections(presented):
    ids = set()
    for _ in range(6):
        with presented.client() as client:
            ids.add(client.ok("CLUSTER", "MYID"))
            ids.add(decode(client.ask("CLUSTER", "SLOTS"))[0][2][2])
    assert len(ids) == 1
