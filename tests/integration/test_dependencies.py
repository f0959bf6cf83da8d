"""Dependencies: CACHE DEPEND and [dependency] rules. What is derived goes when its source is written.

Proves (docs/coherence.md, "Dependencies"): whoever writes a source, through a proxy or around all of
them, what is derived from it goes from the memory of every proxy, in front of a server and of a
cluster, also what is derived from that, in circles too; with scope ALL it goes from the backend; a
proxy that starts later honours what was told before; after a lost link, and when a slot moves,
nothing is taken for fresh; limits and refusals; a fetch under way is not kept.
"""

import re
import signal
import threading

import pytest

from harness.resp import RespError
from harness.servers import key_slot
from harness.waiting import now, wait_until

pytestmark = pytest.mark.needs_proxy

OPTIONS = {"bus-group": "dependencies", "bus-heartbeat": "100ms", "dependencies-poll": "200ms"}
RULES = {"dependency profile": {"source": "user:{1}", "derived": "profile:{1} view:{1}:*"}}


def text_of(value):
    """Bytes of a reply as text, everywhere."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, dict):
        return {text_of(name): text_of(each) for name, each in value.items()}
    return [text_of(each) for each in value] if isinstance(value, list) else value


def ask(proxy, *words):
    with proxy.client(3) as client:
        return text_of(client.ok(*words))


def is_held(proxy, key):
    return any(view["live"] for view in ask(proxy, "CACHE", "GET", key)["views"])


def warm(proxies, *keys):
    """All of them hold all keys."""
    for proxy in proxies:
        with proxy.client() as client:
            def held():
                for key in keys:
                    client.ok("GET", key)
                return all(is_held(proxy, key) for key in keys)

            wait_until(held, 10, f"{keys} to be in tier 1 of every proxy")


def wait_gone(proxies, *keys):
    wait_until(lambda: not any(is_held(proxy, key) for proxy in proxies for key in keys), 10,
               f"{keys} to be gone everywhere")


def wait_heard(proxies, n=None):
    """Every proxy hears of all sources, of n at least."""
    def heard():
        for proxy in proxies:
            metrics = proxy.metrics()
            if metrics.get("dependency_sources", state="unheard") != 0 or \
                    metrics.get("dependency_sources", state="watched") < (n or 0):
                return False
        return True

    wait_until(heard, 15, "every proxy to hear of all sources")


def wait_rules(proxies):
    """Writes to the sources of rules are heard of: nothing is dropped for their sake any more."""
    for proxy in proxies:
        proxy.wait_metric("coherence_nodes", 1, mode="broadcast")


class Fleet:
    def __init__(self, server, proxies):
        self.server, self.proxies = server, proxies

    def around(self, *words):
        client = self.server.client()
        try:
            return client.ok(*words)
        finally:
            client.close()


@pytest.fixture
def fleet(request, start_proxy):
    """Makes a fleet in front of a server of its own, or of the cluster."""
    def make(kind="server", n=2, options=None, config=None, server=None):
        server = server or request.getfixturevalue("redis_server" if kind == "server" else
                                                   "cluster")
        server.flush() if kind == "cluster" else server.ask("FLUSHALL")
        proxies = [start_proxy(server.url(), {**OPTIONS, **(options or {})}, config=config)
                   for _ in range(n)]
        for proxy in proxies:
            proxy.wait_metric("bus_peers", n - 1)
        return Fleet(server, proxies)
    return make


def set_all(proxy, *keys):
    with proxy.client() as client:
        for key in keys:
            client.ok("SET", key, "v")


def depend(proxy, derived, *sources):
    assert ask(proxy, "CACHE", "DEPEND", derived, *sources) == "OK"


# --- relations ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind,n", [("server", 2), ("server", 4), ("cluster", 2)])
def test_what_is_derived_goes_whoever_writes_the_source(fleet, kind, n):
    fleet = fleet(kind, n)
    first, last = fleet.proxies[0], fleet.proxies[-1]
    set_all(first, "page", "part", "other", "src1", "src2")
    depend(first, "page", "src1", "src2")
    depend(last, "part", "src2")
    wait_heard(fleet.proxies, 2)
    for source, derived in (("src1", ["page"]), ("src2", ["page", "part"])):
        for write in (fleet.around, first.client, last.client):
            warm(fleet.proxies, "page", "part", "other")
            if write == fleet.around:
                fleet.around("SET", source, "new")
            else:
                with write() as client:
                    client.ok("SET", source, "new")
                # Before the writer has its reply.
                for proxy in (first,) if write == first.client else (last,):
                    assert not any(is_held(proxy, key) for key in derived)
            wait_gone(fleet.proxies, *derived)
            assert all(is_held(proxy, "other") for proxy in fleet.proxies)
    assert first.metrics().get("invalidations_total", reason="dependency") > 0
    assert all(proxy.metrics().get("flushes_total", reason="dependency") == 0
               for proxy in fleet.proxies)


@pytest.mark.parametrize("write", [
    ["DEL", "src"], ["EXPIRE", "src", "100"], ["APPEND", "src", "x"], ["RENAME", "src", "src2"],
    ["EVAL", "return redis.call('SET', 'src', 'x')", "0"], ["MSET", "a", "1", "src", "2"],
    ["FLUSHALL"]], ids=lambda words: words[0])
def test_every_kind_of_write_counts(fleet, write):
    fleet = fleet(n=1)
    proxy, = fleet.proxies
    set_all(proxy, "src", "page")
    depend(proxy, "page", "src")
    warm([proxy], "page")
    ask(proxy, *write)
    assert not is_held(proxy, "page")


def test_reads_of_a_source_drop_nothing(fleet):
    fleet = fleet(n=1)
    proxy, = fleet.proxies
    set_all(proxy, "src", "page")
    depend(proxy, "page", "src")
    wait_heard(fleet.proxies)
    warm([proxy], "page")
    for words in (["GET", "src"], ["TTL", "src"], ["OBJECT", "ENCODING", "src"], ["EXISTS", "src"]):
        ask(proxy, *words)
    assert is_held(proxy, "page")


def test_transaction_drops_what_is_derived(fleet):
    fleet = fleet(n=1)
    proxy, = fleet.proxies
    set_all(proxy, "src", "page")
    depend(proxy, "page", "src")
    warm([proxy], "page")
    with proxy.client() as client:
        client.ok("MULTI")
        client.ok("SET", "src", "x")
        client.ok("EXEC")
        assert not is_held(proxy, "page")


@pytest.mark.parametrize("kind", ["server", "cluster"])
def test_chains_and_circles(fleet, kind):
    fleet = fleet(kind)
    first = fleet.proxies[0]
    set_all(first, "c1", "c2", "c3", "c4")
    for derived, source in (("c2", "c1"), ("c3", "c2"), ("c4", "c3"), ("c1", "c4")):
        depend(first, derived, source)
    wait_heard(fleet.proxies, 4)
    for source in ("c1", "c3"):
        warm(fleet.proxies, "c1", "c2", "c3", "c4")
        fleet.around("SET", source, "new")
        wait_gone(fleet.proxies, "c1", "c2", "c3", "c4")


def test_a_source_that_does_not_exist_is_heard_of_when_it_is_made(fleet):
    fleet = fleet("cluster")
    set_all(fleet.proxies[0], "page")
    depend(fleet.proxies[0], "page", "missing")
    wait_heard(fleet.proxies, 1)
    warm(fleet.proxies, "page")
    fleet.around("SET", "missing", "made")
    wait_gone(fleet.proxies, "page")


def test_what_is_known_is_shown_and_forgotten(fleet):
    fleet = fleet()
    first, second = fleet.proxies
    set_all(first, "page", "part")
    depend(first, "page", "a", "b")
    depend(first, "part", "page")
    wait_heard([second], 3)
    for proxy in fleet.proxies:
        shown = ask(proxy, "CACHE", "DEPENDS", "page")
        assert {name: sorted(names) for name, names in shown.items()} == {
            "sources": ["a", "b"], "derived": ["part"], "by-rules": []}
    assert ask(second, "CACHE", "UNDEPEND", "page", "a", "nothing") == 1
    for proxy in fleet.proxies:
        wait_until(lambda: ask(proxy, "CACHE", "DEPENDS", "page")["sources"] == ["b"], 10,
                   "one of them to be forgotten")
    assert ask(second, "CACHE", "UNDEPEND", "page") == 1
    assert ask(second, "CACHE", "UNDEPEND", "nothing") == 0
    for proxy in fleet.proxies:
        wait_until(lambda: ask(proxy, "CACHE", "DEPENDS", "page")["sources"] == [], 10,
                   "both to be forgotten")
    warm(fleet.proxies, "page")
    fleet.around("SET", "b", "new")
    warm(fleet.proxies, "part")
    fleet.around("SET", "page", "new")
    wait_gone(fleet.proxies, "part")


def test_a_proxy_that_starts_later_knows(fleet, start_proxy):
    fleet = fleet("cluster", 1)
    set_all(fleet.proxies[0], "page", "part", "src")
    depend(fleet.proxies[0], "page", "src")
    depend(fleet.proxies[0], "part", "page")
    fleet.proxies[0].stop()
    later = start_proxy(fleet.server.url(), OPTIONS)
    wait_heard([later], 2)
    warm([later], "page", "part")
    fleet.around("SET", "src", "new")
    wait_gone([later], "page", "part")


def test_relations_live_as_long_as_what_is_derived(fleet):
    fleet = fleet(options={"ledger-review": "50ms", "dependencies-poll": "100ms"})
    first, second = fleet.proxies
    set_all(first, "page", "stays")
    depend(first, "page", "src")
    depend(first, "stays", "src")
    second.wait_metric("dependencies", 2)
    fleet.around("DEL", "page")
    for proxy in fleet.proxies:
        wait_until(lambda: proxy.metrics().get("dependencies") == 1, 15,
                   "the relation to go with what is derived")
        assert ask(proxy, "CACHE", "DEPENDS", "src")["derived"] == ["stays"]


# --- limits and refusals --------------------------------------------------------------------------


def test_more_relations_than_may_be_are_refused(fleet):
    fleet = fleet(n=1, options={"max-dependencies": "2"})
    proxy, = fleet.proxies
    set_all(proxy, "page", "src")
    depend(proxy, "page", "a", "b")
    with pytest.raises(RespError, match="max-dependencies"):
        depend(proxy, "page", "c")
    depend(proxy, "page", "a")
    assert ask(proxy, "CACHE", "UNDEPEND", "page", "b") == 1
    proxy.wait_metric("dependency_orders_total", 1, kind="undepend")
    wait_until(lambda: proxy.metrics().get("dependencies") == 1, 10, "one to be forgotten")
    with pytest.raises(RespError, match="derived from itself"):
        depend(proxy, "page", "page")
    with pytest.raises(RespError, match="1024 bytes"):
        depend(proxy, "page", "x" * 1025)
    depend(proxy, "page", "d")
    metrics = proxy.metrics()
    assert metrics.get("dependencies_refused_total") == 1
    assert metrics.get("dependencies") == 2


def test_a_cascade_that_is_too_large_drops_everything(fleet):
    fleet = fleet(n=1, options={"max-cascade": "3"})
    proxy, = fleet.proxies
    set_all(proxy, "p1", "p2", "p3", "p4", "other", "src")
    for key in ("p1", "p2", "p3"):
        depend(proxy, key, "src")
    warm([proxy], "p1", "p2", "p3", "other")
    ask(proxy, "SET", "src", "new")
    assert not any(is_held(proxy, key) for key in ("p1", "p2", "p3")) and is_held(proxy, "other")
    depend(proxy, "p4", "src")
    warm([proxy], "p1", "p2", "p3", "p4", "other")
    before = proxy.metrics().get("cascades_overflowed_total")
    ask(proxy, "SET", "src", "new")
    assert not any(is_held(proxy, key) for key in ("p1", "p2", "p3", "p4", "other"))
    assert proxy.metrics().get("cascades_overflowed_total") > before


def test_who_may(fleet):
    fleet = fleet(n=1, options={"cache-command": "off"})
    proxy, = fleet.proxies
    for words in (["DEPEND", "page", "src"], ["UNDEPEND", "page"]):
        with pytest.raises(RespError, match="switched off"):
            ask(proxy, "CACHE", *words)
    assert ask(proxy, "CACHE", "DEPENDS", "page")["sources"] == []


# --- rules ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["server", "cluster"])
def test_rules_follow_writes_around_and_through(fleet, kind):
    fleet = fleet(kind, config=RULES)
    wait_rules(fleet.proxies)
    first, second = fleet.proxies
    keys = ("profile:1", "view:1:a", "view:1:b")
    set_all(first, *keys, "profile:2", "view:2:a", "user:1")
    for write in (fleet.around, lambda *words: ask(first, *words)):
        warm(fleet.proxies, *keys, "profile:2", "view:2:a")
        write("SET", "user:1", "new")
        if write != fleet.around:
            assert not any(is_held(first, key) for key in keys)
        wait_gone(fleet.proxies, *keys)
        assert all(is_held(proxy, key) for proxy in fleet.proxies
                   for key in ("profile:2", "view:2:a"))
    assert ask(second, "CACHE", "DEPENDS", "user:7")["by-rules"] == ["profile:7", "view:7:*"]


def test_rules_and_relations_follow_each_other(fleet):
    rules = {"dependency one": {"source": "user:{1}", "derived": "profile:{1} view:{1}:*"},
             "dependency two": {"source": "card:{x}", "derived": "deck:{x}"}}
    fleet = fleet(config=rules)
    wait_rules(fleet.proxies)
    first = fleet.proxies[0]
    set_all(first, "user:1", "profile:1", "card:9", "deck:9", "home", "view:1:a")
    depend(first, "card:9", "profile:1")    # a rule's name is the source of a relation
    depend(first, "home", "view:1:a")       # so is one that a rule's pattern stands for
    wait_heard(fleet.proxies, 2)
    warm(fleet.proxies, "profile:1", "card:9", "deck:9", "home", "view:1:a")
    fleet.around("SET", "user:1", "new")
    wait_gone(fleet.proxies, "profile:1", "card:9", "deck:9", "home", "view:1:a")


def test_names_that_a_rule_makes_longer_end(fleet):
    rules = {"dependency deeper": {"source": "user:{1}", "derived": "user:{1}:x"}}
    fleet = fleet(n=1, config=rules)
    proxy, = fleet.proxies
    wait_rules(fleet.proxies)
    set_all(proxy, "user:1", "user:1:x", "other")
    warm([proxy], "user:1:x", "other")
    ask(proxy, "SET", "user:1", "new")
    assert not is_held(proxy, "user:1:x") and is_held(proxy, "other")
    assert proxy.metrics().get("cascades_overflowed_total") == 0


@pytest.mark.parametrize("kind", ["server", "cluster"])
def test_scope_all_removes_at_the_backend(fleet, kind):
    rules = {"dependency all": {"source": "user:{1}", "derived": "profile:{1} view:{1}:*",
                                "scope": "ALL"},
             "dependency more": {"source": "profile:{1}", "derived": "page:{1}", "scope": "ALL"}}
    fleet = fleet(kind, config=rules)
    wait_rules(fleet.proxies)
    first = fleet.proxies[0]
    gone = ("profile:1", "page:1", "view:1:a", "view:1:b")
    stay = ("profile:2", "page:2", "view:2:a", "user:1", "user:2")

    def exists(keys):
        return [key for key in keys if fleet.around("EXISTS", key)]

    for write in (fleet.around, lambda *words: ask(first, *words)):
        make(first, fleet, gone + stay)
        warm(fleet.proxies, *gone)
        write("SET", "user:1", "new")
        wait_gone(fleet.proxies, *gone)
        wait_until(lambda: exists(gone) == [], 10, "the keys to be gone at the backend")
        assert exists(stay) == list(stay)
    assert first.metrics().get("dependency_unlinks_total", result="done") > 0
    assert first.metrics().get("dependency_unlinks_total", result="failed") == 0


def make(proxy, fleet, keys):
    """Making the sources removes what is derived: again until nothing goes any more."""
    def is_made():
        before = [each.metrics().get("dependency_unlinks_total", result="done")
                  for each in fleet.proxies]
        with proxy.client() as client:
            is_new = [client.ok("SETNX", key, "v") for key in keys]
        wait_until(lambda: all(each.metrics().get("unlink_jobs_running") == 0 for each in fleet.proxies),
                   10, "jobs to end")
        return not any(is_new) and before == [
            each.metrics().get("dependency_unlinks_total", result="done") for each in fleet.proxies]

    wait_until(is_made, 10, "the backend to keep what was written")


def test_a_reload_changes_rules(fleet):
    fleet = fleet(n=1, config={"dependency one": {"source": "user:{1}", "derived": "profile:{1}"}})
    proxy, = fleet.proxies
    wait_rules(fleet.proxies)
    set_all(proxy, "user:1", "card:1", "profile:1", "deck:1")

    def reload(rules, name="config_reloads_total"):
        before = proxy.metrics().get(name)
        proxy.write_config(rules)
        proxy.signal(signal.SIGHUP)
        proxy.wait_metric(name, before + 1)

    reload({"dependency two": {"source": "card:{1}", "derived": "deck:{1}"}})

    def follows():
        warm([proxy], "profile:1", "deck:1")
        fleet.around("SET", "user:1", "new")
        fleet.around("SET", "card:1", "new")
        wait_gone([proxy], "deck:1")
        return is_held(proxy, "profile:1")

    wait_until(follows, 10, "the new rule to hold, and the old one no more")
    for rules, text in [
            ({"dependency x": {"source": "*:{1}", "derived": "p:{1}"}}, "begins with text"),
            ({"dependency x": {"source": "u:{1}", "derived": "p:{2}"}}, "{2}"),
            ({"dependency x": {"source": "u:{1}"}}, "has no derived"),
            ({"dependency x": {"derived": "u"}}, "has no source"),
            ({"dependency x": {"source": "a:{1}", "derived": "b:{1}", "scope": "ALL"},
              "dependency y": {"source": "b:{1}", "derived": "a:{1}"}}, "circle"),
            ({"dependency x": {"source": "a:{1}", "derived": "a:{1}:*", "scope": "ALL"}},
             "expected scope = L1"),
            ({"dependency x": {"source": "u:{1}", "derived": "p", "scope": "some"}},
             "expected L1 or ALL"),
            ({"dependency x": {"sauce": "u:{1}"}}, "source, derived, scope and debounce")]:
        reload(rules, "config_reload_failures_total")
        wait_until(lambda: text in proxy.log(), 5, f"the log to say {text}")
        line = next(line for line in proxy.log().splitlines() if text in line)
        assert re.search(r"\.conf:\d+: ", line), line


# --- modes ----------------------------------------------------------------------------------------


def test_in_mode_ttl_the_bus_tells(fleet):
    fleet = fleet(options={"coherence": "ttl", "ttl-mode-max": "1h"}, config=RULES)
    first = fleet.proxies[0]
    set_all(first, "page", "src", "profile:1", "view:1:a", "user:1")
    depend(first, "page", "src")
    wait_heard(fleet.proxies, 1)
    warm(fleet.proxies, "page", "profile:1", "view:1:a")
    ask(first, "SET", "src", "new")
    wait_gone(fleet.proxies, "page")
    ask(first, "SET", "user:1", "new")
    wait_gone(fleet.proxies, "profile:1", "view:1:a")


@pytest.mark.parametrize("mode", ["broadcast", "keyspace"])
def test_one_link_that_hears_for_all_is_enough(fleet, start_redis, mode):
    server = start_redis()
    server.ask("CONFIG", "SET", "notify-keyspace-events", "KA")
    fleet = fleet(options={"coherence": mode, "keyspace-poll": "100ms"}, config=RULES, server=server)
    for proxy in fleet.proxies:
        proxy.wait_metric("coherence_nodes", 1, mode=mode)
    set_all(fleet.proxies[0], "page", "src", "profile:1", "user:1")
    depend(fleet.proxies[0], "page", "src")
    wait_heard(fleet.proxies, 1)
    warm(fleet.proxies, "page", "profile:1")
    fleet.around("SET", "src", "new")
    fleet.around("SET", "user:1", "new")
    wait_gone(fleet.proxies, "page", "profile:1")


def test_a_source_that_nobody_hears_of_is_refused(fleet):
    fleet = fleet(n=1, options={"coherence": "broadcast"},
                  config={"namespace default": {"cache": "off"},
                          "namespace page": {"match": "page:*"}})
    proxy, = fleet.proxies
    proxy.wait_metric("coherence_nodes", 1, mode="broadcast")
    depend(proxy, "page:1", "page:2")
    with pytest.raises(RespError, match="not heard of"):
        depend(proxy, "page:1", "elsewhere")


# --- faults ---------------------------------------------------------------------------------------


def test_a_lost_link_drops_what_is_derived(fleet, start_proxy, start_redis, start_relay):
    server = start_redis()
    relay = start_relay(server.address)
    proxy = start_proxy(f"redis://127.0.0.1:{relay.address[1]}", OPTIONS, config=RULES)
    wait_rules([proxy])
    set_all(proxy, "page", "src", "profile:1", "user:1")
    depend(proxy, "page", "src")
    warm([proxy], "page", "profile:1")
    before = proxy.metrics().get("cascades_total")
    relay.refuse()
    relay.cut()
    # Nobody tells of these.
    with server.client() as client:
        client.ok("SET", "src", "new")
        client.ok("SET", "user:1", "new")
    relay.refuse(False)
    wait_gone([proxy], "page", "profile:1")
    wait_until(lambda: proxy.metrics().get("cascades_total") > before, 10, "cascades")
    wait_heard([proxy], 1)
    wait_rules([proxy])
    warm([proxy], "page", "profile:1")
    with server.client() as client:
        client.ok("SET", "src", "newer")
        client.ok("SET", "user:1", "newer")
    wait_gone([proxy], "page", "profile:1")


def test_a_message_that_is_held_up_leaves_nothing_derived_for_long(start_proxy, start_redis,
                                                                   start_relay):
    """The link to the source's node is silent: what is derived goes every max-staleness."""
    servers = start_redis(), start_redis()
    relay = start_relay(servers[0].address)
    proxy = start_proxy(f"redis://127.0.0.1:{relay.address[1]}",
                        {**OPTIONS, "max-staleness": "200ms", "link-timeout": "60s"})
    set_all(proxy, "page", "src")
    depend(proxy, "page", "src")
    warm([proxy], "page")
    before = proxy.metrics().get("dependency_deaf_total", of="relation")
    relay.hold("tracking")
    proxy.wait_metric("dependency_deaf_total", before + 2, of="relation")
    relay.flow("tracking")
    wait_heard([proxy], 1)
    warm([proxy], "page")


def test_a_source_is_heard_of_where_its_slot_moves(fleet):
    fleet = fleet("cluster")
    cluster, first = fleet.server, fleet.proxies[0]
    set_all(first, "page", "{moving}src")
    depend(first, "page", "{moving}src")
    wait_heard(fleet.proxies, 1)
    slot = key_slot(b"{moving}src")
    source = cluster.owner(slot)
    target = next(node for node in cluster.masters() if node.port != source.port)
    try:
        warm(fleet.proxies, "page")
        cluster.move_slot(slot, target)
        target.ask("SET", "{moving}src", "new")     # and nobody is asked about it before
        wait_gone(fleet.proxies, "page")
        wait_heard(fleet.proxies, 1)
        warm(fleet.proxies, "page")
        target.ask("SET", "{moving}src", "newer")
        wait_gone(fleet.proxies, "page")
    finally:
        cluster.move_slot(slot, source)


def test_a_fetch_under_way_is_not_kept(start_proxy, start_redis, start_relay):
    server = start_redis()
    relay = start_relay(server.address)
    proxy = start_proxy(f"redis://127.0.0.1:{relay.address[1]}", OPTIONS)
    set_all(proxy, "page", "src")
    depend(proxy, "page", "src")
    wait_heard([proxy], 1)
    voided = proxy.metrics().get("fills_refused_total", reason="void", namespace="default")
    relay.delay("tracking", to_proxy=0.3)

    def read():
        with proxy.client() as client:
            client.ok("GET", "page")

    reader = threading.Thread(target=read)
    reader.start()
    wait_until(lambda: ask(proxy, "CACHE", "STATS")["n_flights"] == 1, 5, "the fetch to be sent")
    ask(proxy, "SET", "src", "new")
    reader.join()
    assert not is_held(proxy, "page")
    assert proxy.metrics().get("fills_refused_total", reason="void",
                               namespace="default") == voided + 1


# --- how long it takes ----------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 4])
def test_a_cascade_is_over_soon(fleet, n, capsys):
    """Written around the proxies; the figure is printed, the bound is generous."""
    rules = {"dependency all": {"source": "user:{1}", "derived": "profile:{1}", "scope": "ALL"}}
    fleet = fleet("cluster", n, config=rules)
    wait_rules(fleet.proxies)
    first = fleet.proxies[0]
    set_all(first, "src", "page", "part", "user:1")
    depend(first, "page", "src")
    depend(first, "part", "page")
    wait_heard(fleet.proxies, 2)
    clients = [proxy.client(3) for proxy in fleet.proxies]
    around = fleet.server.client()

    def took(source, keys, at_backend):
        warm(fleet.proxies, *keys)
        began = now()
        around.ok("SET", source, "new")
        while any(view["live"] for client in clients for key in keys
                  for view in text_of(client.ok("CACHE", "GET", key))["views"]):
            assert now() - began < 30
        while at_backend and any(around.ok("EXISTS", key) for key in keys):
            assert now() - began < 30
        return now() - began

    in_memory = [took("src", ("page", "part"), False) for _ in range(5)]
    around.ok("SET", "profile:1", "v")
    everywhere = took("user:1", ("profile:1",), True)
    for client in (*clients, around):
        client.close()
    with capsys.disabled():
        print(f"\ncascade over {n} proxies: memory {max(in_memory) * 1e3:.1f} ms at most, with the "
              f"backend {everywhere * 1e3:.1f} ms")
    assert max(in_memory) < 5 and everywhere < 5
