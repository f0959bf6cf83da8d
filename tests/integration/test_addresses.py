"""Nodes that announce names, or addresses at which they are not reached from here."""

import pytest

from harness.resp import RespError
from harness.servers import RedisCluster, key_slot
from harness.waiting import wait_until

pytestmark = pytest.mark.needs_proxy

NAMED = [("cluster-preferred-endpoint-type", "hostname")]


@pytest.fixture
def named_cluster(tmp_path):
    made = []

    def make(name):
        made.append(RedisCluster(tmp_path / name, 3, 0,
                                 options=NAMED + [("cluster-announce-hostname", name)]))
        return made[-1].start()

    yield make
    for cluster in made:
        cluster.stop()


def serves_all(proxy, cluster):
    with proxy.client() as client:
        for number in range(40):
            key = f"k{number}"
            wait_until(lambda: not isinstance(client.value("SET", key, number), RespError), 10, key)
            assert client.ok("GET", key) == str(number).encode()
            assert client.ok("GET", key) == str(number).encode()
        # A redirection names the target as the nodes call it.
        slot = key_slot("k1")
        target = next(node for node in cluster.masters() if node is not cluster.owner(slot))
        cluster.move_slot(slot, target)
        assert client.ok("SET", "k1", "moved") == b"OK"
        assert client.ok("GET", "k1") == b"moved"
        assert client.pipeline([("MULTI",), ("SET", "n", 1), ("EXEC",)])[2] == b"*1\r\n+OK\r\n"


def test_nodes_by_name(start_proxy, named_cluster):
    cluster = named_cluster("localhost")
    serves_all(start_proxy(cluster.url()), cluster)


def test_nodes_that_are_reached_elsewhere(start_proxy, named_cluster):
    """nodes.invalid is nobody's name: without the map no node is reached."""
    cluster = named_cluster("nodes.invalid")
    serves_all(start_proxy(cluster.url(), {"address-map": "nodes.invalid=127.0.0.1"}), cluster)
    ports = [node.port for node in cluster.nodes]
    each = " ".join(f"nodes.invalid:{port}=127.0.0.1:{port}" for port in ports)
    serves_all(start_proxy(cluster.url(), {"address-map": each}), cluster)
