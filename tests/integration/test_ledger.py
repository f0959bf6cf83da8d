"""The ledger at the backend when something is in its way.

Proves: a subject never leaves the registry while it has members, whenever a proxy ends while it
reviews, and whoever adds members meanwhile; two proxies that review the same take out what is gone
and nothing else; a master that is away keeps no other one's review waiting; a backend that does not
permit it, is loading, has no memory or is a replica is answered with its own words, at once or
within half of request-timeout, counted, and nothing is taken out then.
"""

import contextlib
import threading
import time

import pytest

from harness.servers import key_slot
from harness.waiting import SCALE, wait_until
from test_tags import cache, error_of, ledger_keys, text_of

pytestmark = pytest.mark.needs_proxy

GROUP = {"bus-group": "ledger", "bus-heartbeat": "100ms"}
REVIEW = {"ledger-review": "200ms", **GROUP}


def registry_of(server, tag):
    """The name of the registry of a tag that is in use."""
    members = next(key for key in ledger_keys(server) if key.endswith(f":{tag}"))
    return members[:-len(tag) - 1], members


# ---- the registry ----

def test_a_subject_never_leaves_while_it_has_members(start_proxy, redis_server):
    """
    Seen by the backend itself: every command of three proxies that review, while a tag gets a member
    and loses it all the time. What takes the subject out takes it by a time that an addition changes.
    """
    proxies = [start_proxy(redis_server.url(), REVIEW) for _ in range(3)]
    assert cache(proxies[0], "TAG", "k", "busy") == 1
    registry, members = registry_of(redis_server, "busy")
    end = time.monotonic() + 4
    lost, gone = [], 0
    with redis_server.client() as client, proxies[0].client() as one:
        client.ok("SET", "k", "v")
        while time.monotonic() < end:
            assert one.ok("CACHE", "TAG", "k", "busy") in (0, 1)
            # In one step of the backend's.
            client.pipeline([("MULTI",)])
            client.pipeline([("ZSCORE", registry, "busy"), ("ZCARD", members)])
            place, n = client.ok("EXEC")
            if n > 0 and place is None:
                lost.append(n)
            one.ok("CACHE", "UNTAG", "k", "busy")
            if len(lost) + gone < 20:
                with contextlib.suppress(AssertionError):
                    wait_until(lambda: client.ok("ZSCORE", registry, "busy") is None, 0.3, "gone")
                    gone += 1
    assert not lost and gone > 0


def test_a_proxy_that_ends_between_claiming_and_taking(start_proxy, redis_server):
    """What it leaves behind is a subject that is due: any proxy finds it, with or without members."""
    proxy = start_proxy(redis_server.url(), REVIEW)
    with redis_server.client() as client:
        client.ok("SET", "k", "v")
        for tag in ("full", "empty"):
            assert cache(proxy, "TAG", "k", tag) == 1
        places = {tag: registry_of(redis_server, tag) for tag in ("full", "empty")}
        proxy.kill()
        for tag, (registry, _) in places.items():
            client.ok("ZADD", registry, "XX", "-123456789", tag)
        client.ok("DEL", places["empty"][1])
        late = start_proxy(redis_server.url(), REVIEW)
        wait_until(lambda: client.ok("ZSCORE", places["empty"][0], "empty") is None, 20, "one to go")
        wait_until(lambda: float(client.ok("ZSCORE", places["full"][0], "full")) > 0, 20,
                   "the other one to be put off")
        assert cache(late, "MEMBERS", "full") == ["k"]
        client.ok("DEL", "k")
        wait_until(lambda: client.ok("ZSCORE", places["full"][0], "full") is None, 20, "it to go")
    assert [key for key in ledger_keys(redis_server) if not key.endswith("!")] == []


def test_additions_move_the_subject(start_proxy, redis_server):
    """A claim is a time: whoever adds makes it another one, by so little that nothing is put off."""
    proxy = start_proxy(redis_server.url(), GROUP)
    cache(proxy, "TAG", "k", "t")
    registry, _ = registry_of(redis_server, "t")
    with redis_server.client() as client:
        before = float(client.ok("ZSCORE", registry, "t"))
        cache(proxy, "TAG", "other", "t")
        assert 0 < float(client.ok("ZSCORE", registry, "t")) - before < 0.01
        for claim in (-1, -(1 << 40)):
            client.ok("ZADD", registry, claim, "t")
            cache(proxy, "TAG", "k", "t")
            assert client.ok("ZREMRANGEBYSCORE", registry, claim, claim) == 0


# ---- nodes that are away ----

def test_one_master_away_keeps_no_other_waiting(start_proxy, cluster):
    """Its registries fail, and are asked again in time; what is gone elsewhere is taken out."""
    proxy = start_proxy(cluster.url(), {"request-timeout": "1s", "ledger-review": "2s", **GROUP})
    tags = [f"t{i}" for i in range(60)]
    with proxy.client() as client:
        client.pipeline([("CACHE", "TAG", f"{tag}:never", tag) for tag in tags])
    dead = cluster.masters()[0]
    keys = {key: cluster.owner(key_slot(key)) for key in ledger_keys(cluster)
            if not key.endswith("!")}
    # A member at the dead node cannot be asked for.
    mine = [key for key, node in keys.items() if node is not dead and key.split(":")[-1] in tags
            and cluster.owner(key_slot(key.split(":")[-1] + ":never")) is not dead]
    assert len(mine) > 5
    for node in cluster.masters():
        node.ask("CONFIG", "SET", "cluster-require-full-coverage", "no")
    dead.pause()
    try:
        proxy.wait_metric("ledger_review_failures_total", 1, 20)
        wait_until(lambda: not any(keys[key].ask("EXISTS", key) for key in mine), 40,
                   "the other masters' to be reviewed")
    finally:
        dead.resume()
        for node in cluster.masters():
            node.ask("CONFIG", "SET", "cluster-require-full-coverage", "yes")
    wait_until(lambda: [key for key in ledger_keys(cluster) if not key.endswith("!")] == [], 60,
               "the rest")


# ---- a backend that cannot ----

def refused(proxy, words, what):
    before = proxy.metrics().get("ledger_operations_total", result="failed")
    began = time.monotonic()
    error = error_of(proxy, *words)
    assert what in error and "-" + what not in error, error
    assert time.monotonic() - began < 5 * SCALE
    assert proxy.metrics().get("ledger_operations_total", result="failed") == before + 1


def test_no_memory(start_proxy, start_redis):
    server = start_redis()
    proxy = start_proxy(server.url(), REVIEW)
    with server.client() as client:
        client.ok("SET", "k", "v")
        assert cache(proxy, "TAG", "k", "t") == 1
        client.ok("CONFIG", "SET", "maxmemory", "1")
        refused(proxy, ("TAG", "other", "t"), "OOM")
        refused(proxy, ("UNTAG", "k", "t"), "OOM")
        assert cache(proxy, "MEMBERS", "t") == ["k"]
        assert cache(proxy, "INVALIDATE", "TAG", "t")["members"] == 1
        proxy.wait_metric("ledger_review_failures_total", 2, 20)
        client.ok("CONFIG", "SET", "maxmemory", "0")
        assert cache(proxy, "MEMBERS", "t") == ["k"]
        client.ok("DEL", "k")
    wait_until(lambda: cache(proxy, "MEMBERS", "t") == [], 20, "it to be taken out")


def test_no_permission_for_members(start_proxy, start_redis):
    """Who may not ask whether a key exists takes nothing out."""
    server = start_redis()
    with server.client() as client:
        client.ok("ACL", "SETUSER", "proxy", "on", ">pw", "~app:*", "~nc:*", "&*", "+@all")
        client.ok("SET", "app:1", "v")
        client.ok("SET", "secret", "v")
    proxy = start_proxy(server.url(), {"backend-user": "proxy", "backend-password": "pw", **REVIEW})
    for key in ("app:1", "secret", "app:gone"):
        assert cache(proxy, "TAG", key, "t") == 1
    wait_until(lambda: sorted(cache(proxy, "MEMBERS", "t")) == ["app:1", "secret"], 20, "one to go")
    seen = proxy.wait_metric("ledger_review_failures_total", 1, 20)
    proxy.wait_metric("ledger_review_failures_total", (seen or 1) + 5, 20)
    assert sorted(cache(proxy, "MEMBERS", "t")) == ["app:1", "secret"]
    with server.client() as client:
        client.ok("ACL", "SETUSER", "proxy", "resetkeys", "~app:*")
        refused(proxy, ("TAG", "app:1", "u"), "NOPERM")
        refused(proxy, ("UNTAG", "app:1", "t"), "NOPERM")
        refused(proxy, ("MEMBERS", "t"), "NOPERM")
        failures = proxy.metrics().get("ledger_review_failures_total")
        proxy.wait_metric("ledger_review_failures_total", failures + 3, 20)
        # One refusal pauses the node: far from all 128 registries in each round.
        assert client.ok("ZCARD", next(key for key in ledger_keys(server)
                                       if key.endswith(":t"))) == 2


def test_a_replica(start_proxy, start_redis):
    """It was the master when the map was made."""
    server = start_redis()
    proxy = start_proxy(server.url(), {"request-timeout": "1s", **REVIEW})
    assert cache(proxy, "TAG", "k", "t") == 1
    with server.client() as client:
        client.ok("REPLICAOF", "127.0.0.1", "1")
        error = error_of(proxy, "TAG", "other", "t")
        # The map may have told of it before.
        assert "READONLY" in error or "backend" in error, error
        client.ok("REPLICAOF", "NO", "ONE")
    wait_until(lambda: cache(proxy, "TAG", "k2", "t") in (0, 1), 20, "the master")


def test_loading(start_proxy, start_redis):
    """The backend says LOADING: it is asked again for a while, and then that is the answer."""
    server = start_redis(options=(("key-load-delay", "500000"),
                                  ("loading-process-events-interval-bytes", "1024")))
    proxy = start_proxy(server.url(), {"request-timeout": "1s", **REVIEW})
    assert cache(proxy, "TAG", "k", "t") == 1
    with server.client() as client:
        client.pipeline([("SET", f"x{i}", "v" * 2000) for i in range(20)])

    def reload():
        with contextlib.suppress(OSError, EOFError):
            server.ask("DEBUG", "RELOAD")

    thread = threading.Thread(target=reload, daemon=True)
    thread.start()
    try:
        error = error_of(proxy, "TAG", "other", "t")
        assert "LOADING" in error or "backend" in error, error
    finally:
        server.kill()
        thread.join(20)


# ---- two at once ----

@pytest.mark.parametrize("backend", ["redis_server", "cluster"])
def test_many_review_the_same(start_proxy, request, backend):
    """Keys come and go; tags of those that stay stay, the others go, whoever looks at them."""
    server = request.getfixturevalue(backend)
    proxies = [start_proxy(server.url(), REVIEW) for _ in range(3)]
    stay, go = [f"stay{i}" for i in range(150)], [f"go{i}" for i in range(150)]
    with proxies[0].client() as client:
        client.pipeline([("SET", key, "v") for key in stay + go])
        client.pipeline([("CACHE", "TAG", key, "t", "u" + key[-1]) for key in stay + go])
        for each in range(3):
            client.pipeline([("DEL", key) for key in go[each::3]])
            client.pipeline([("CACHE", "TAG", key, "v") for key in stay[each::3]])
    for tag in ("t", *(f"u{i}" for i in range(10))):
        wait_until(lambda tag=tag: not any(
            key.startswith("go") for key in cache(proxies[1], "MEMBERS", tag, 1000)), 30, tag)
    assert sorted(cache(proxies[2], "MEMBERS", "t", 1000)) == sorted(stay)
    assert sorted(cache(proxies[0], "MEMBERS", "v", 1000)) == sorted(stay)
    assert sum(each.metrics().get("ledger_review_failures_total") for each in proxies) == 0
    assert text_of(server.ask("PING") if hasattr(server, "ask") else b"PONG") == "PONG"
