"""A master behind Sentinels: found by name, followed through failovers, never its predecessor."""

import pytest

from harness.resp import RespError
from harness.sentinels import SentinelSet
from harness.servers import free_port
from harness.waiting import wait_until

pytestmark = pytest.mark.needs_proxy

FAST = {"reconnect-min": "20ms", "reconnect-max": "200ms", "request-timeout": "1s",
        "max-staleness": "500ms", "topology-interval": "200ms"}


@pytest.fixture
def guarded_set(tmp_path):
    made = []

    def make(**keywords):
        made.append(SentinelSet(tmp_path / f"set{len(made)}", **keywords))
        return made[-1].start()

    yield make
    for one in made:
        one.stop()


def eventually(client, command, value, what):
    wait_until(lambda: client.value(*command) == value, 30, what)


@pytest.mark.long_test(120)
@pytest.mark.parametrize("how", ["asked for", "killed", "paused"])
def test_a_failover_is_followed(start_proxy, guarded_set, how):
    servers = guarded_set()
    old = servers.master()
    proxy = start_proxy(servers.url(), FAST)
    with proxy.client() as client:
        client.ok("SET", "k", "before")
        client.ok("SET", "kept", "before")
        for _ in range(3):
            assert client.ok("GET", "k") == b"before"
            assert client.ok("GET", "kept") == b"before"
        client.ok("WAIT", 2, 5000)
        if how == "asked for":
            servers.running_sentinel().ask("SENTINEL", "FAILOVER", servers.name)
        elif how == "killed":
            old.kill()
        else:
            old.pause()
        wait_until(lambda: servers.master() is not old, 30, "another master")
        new = servers.master()
        # Around the proxy, to the new master: tier 1 of the old one must be gone.
        wait_until(lambda: new.info("replication")["role"] == "master", 10, "its role")
        new.disconnect()  # a failover closes all connections
        new.ask("SET", "k", "after")
        eventually(client, ("GET", "k"), b"after", "the new master's value")
        eventually(client, ("SET", "w", "written"), b"OK", "writes to go on")
        assert new.ask("GET", "w") == b"written"
        assert client.ok("GET", "kept") == b"before"
        if how == "paused":
            old.resume()
            for _ in range(20):
                assert client.ok("GET", "k") == b"after"
    assert proxy.metrics().get("sentinel_switches_total") == 1
    assert "the Sentinels name the master" in proxy.log()


def test_one_living_sentinel_is_enough_and_tells_of_the_others(start_proxy, guarded_set):
    servers = guarded_set()
    url = servers.url(servers.sentinels[:1]).replace("sentinel://",
                                                     f"sentinel://127.0.0.1:{free_port()},")
    proxy = start_proxy(url, FAST)
    with proxy.client() as client:
        client.ok("SET", "k", "v")
        # The others were learnt: the configured one is no longer needed.
        def knows_all():
            return all(b"cmd=subscribe" in sentinel.ask("CLIENT", "LIST")
                       for sentinel in servers.sentinels)
        wait_until(knows_all, 20, "all Sentinels to be listened to")
        servers.sentinels[0].kill()
        old = servers.master()
        servers.running_sentinel().ask("SENTINEL", "FAILOVER", servers.name)
        wait_until(lambda: servers.master() is not old, 30, "another master")
        servers.master().disconnect()  # a failover closes all connections

        def is_written_there():
            return client.value("SET", "k", "w") == b"OK" and \
                servers.master().ask("GET", "k") == b"w"
        wait_until(is_written_there, 20, "writes to reach the new master")


def test_what_is_wrong_is_told(start_proxy, guarded_set):
    servers = guarded_set(n_replicas=0, n_sentinels=1, password="hidden-5521")
    for url, options, words in (
            (servers.url().replace("/main", "/other"), {"sentinel-password": "hidden-5521"},
             "No such master with that name"),
            (servers.url(), {"sentinel-password": "wrong"}, "WRONGPASS"),
            (servers.url(), {}, "NOAUTH"),
            (f"sentinel://127.0.0.1:{free_port()}/main", {}, "Connection refused")):
        proxy = start_proxy(url, {**FAST, **options}, wait="alive")
        wait_until(lambda: words in proxy.log(), 10, words)
        with proxy.client() as client:
            assert isinstance(client.value("GET", "k"), RespError)
        assert not proxy.is_ready()
        assert "hidden-5521" not in proxy.log()
    proxy = start_proxy(servers.url(), {**FAST, "sentinel-password": "hidden-5521"})
    with proxy.client() as client:
        wait_until(lambda: client.value("SET", "k", "v") == b"OK", 10, "the master")


def test_the_database_of_the_url_is_the_clients(start_proxy, guarded_set):
    servers = guarded_set(n_replicas=0, n_sentinels=1)
    proxy = start_proxy(servers.url() + "/3", FAST)
    with proxy.client() as client:
        wait_until(lambda: client.value("SET", "k", "v") == b"OK", 10, "the master")
    assert b"db3:keys=1" in servers.servers[0].ask("INFO", "keyspace")
