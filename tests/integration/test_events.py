"""Events: what is subscribed to them, what rules say, and where they come from.

Proves (docs/coherence.md, "Events"): a PUBLISH honours every subscription that was acknowledged
before, at whichever proxy; what an event drops is gone everywhere when, or a moment after, it is
answered; sources that may have missed something drop everything, and what is malformed changes
nothing.
"""

import json
import signal
import threading
import urllib.error
import urllib.request

import pytest

from harness.resp import RespError
from harness.servers import key_slot
from harness.waiting import wait_until

from test_bus import fill, is_kept, wait_peers

pytestmark = pytest.mark.needs_proxy

GROUP = {"bus-group": "event-tests", "bus-heartbeat": "100ms", "reconnect-max": "100ms"}


def section(**options):
    return {name.replace("_", "-"): value for name, value in options.items()}


def answered(reply):
    """A map in RESP2, as a dictionary of texts and numbers."""
    return {name.decode(): value for name, value in zip(reply[::2], reply[1::2])}


def publish(client, *words):
    return answered(client.value("CACHE", "PUBLISH", *words))


def start(start_proxy, url, n=1, options=None, config=None):
    fleet = [start_proxy(url, {**GROUP, **(options or {})}, config=config) for _ in range(n)]
    wait_peers(fleet, n - 1)
    return fleet


def hold(clients, *keys):
    """Keeps the keys in the memory of all of them: a write of one would drop the others'."""
    for key in keys:
        clients[0].ok("SET", key, "value")
        for client in clients:
            wait_until(lambda client=client, key=key: client.value("GET", key) == b"value"
                       and is_kept(client, key), 10, "the key to be kept")


def gone(client, *keys):
    for key in keys:
        wait_until(lambda key=key: not is_kept(client, key), 10, f"{key} to go")


def kept(client, *keys):
    assert all(is_kept(client, key) for key in keys)


def dropped(proxy):
    return proxy.metrics().get("invalidations_total", reason="event")


def gaps(proxy, **labels):
    return proxy.metrics().get("event_gaps_total", **labels)


def wait_sources(proxy, n=1):
    proxy.wait_metric("event_sources", n, state="up")
    # When a source is first heard everything is dropped.
    wait_until(lambda: proxy.metrics().get("event_sources", state="down") == 0, 10, "all sources")


def error_of(client, *words):
    with pytest.raises(RespError) as caught:
        client.ok("CACHE", *words)
    return str(caught.value)


# --- CACHE SUBSCRIBE, PUBLISH, UNSUBSCRIBE, EVENTS ------------------------------------------------

def test_an_event_drops_what_is_subscribed_to_it(start_proxy, redis_server):
    first, second = start(start_proxy, redis_server.url(), 2)
    with first.client() as one, second.client() as two:
        hold((one, two), "a", "b", "other", "g:1", "g:2")
        assert one.ok("CACHE", "SUBSCRIBE", "deploy", "a", "b") == 2
        assert two.ok("CACHE", "SUBSCRIBE", "deploy", "b", "g:*") == 1
        answer = publish(two, "deploy")
        assert answer == {"entries": None, "matched": b"lazily", "names": 3, "proxies": 1}
        assert not any(is_kept(two, key) for key in ("a", "b", "g:1", "g:2"))
        kept(two, "other")
        gone(one, "a", "b", "g:1", "g:2")
        kept(one, "other")
        fill(two, "a", "b")
        assert one.ok("CACHE", "UNSUBSCRIBE", "deploy", "b", "none") == 1
        assert one.ok("CACHE", "UNSUBSCRIBE", "deploy", "g:*") == 1
        answer = publish(two, "deploy")
        assert answer == {"entries": 1, "matched": b"at-once", "names": 1, "proxies": 1}
        kept(two, "b")
        assert publish(two, "nobody")["names"] == 0
    assert dropped(second) >= 2
    assert first.metrics().get("invalidations_total", reason="bus") >= 2


def test_who_starts_later_honours_them(start_proxy, redis_server):
    first, = start(start_proxy, redis_server.url())
    with first.client() as one:
        one.ok("CACHE", "SUBSCRIBE", "deploy", "a")
        one.ok("CACHE", "SUBSCRIBE", "deploy.*.user.{id}", "profile:{id}", "user:{id}:*")
    first.stop()
    later, = start(start_proxy, redis_server.url())
    with later.client() as client:
        fill(client, "a", "profile:7", "user:7:x", "profile:8", "user:8:x")
        publish(client, "deploy")
        publish(client, "deploy.eu.user.7")
        assert not any(is_kept(client, key) for key in ("a", "profile:7", "user:7:x"))
        kept(client, "profile:8", "user:8:x")


def test_a_subscription_is_honoured_by_the_next_publish_anywhere(start_proxy, redis_server):
    """The copies of patterns are never behind what was acknowledged."""
    fleet = start(start_proxy, redis_server.url(), 2)
    # Connections on both workers of each, as every worker has a copy.
    clients = [each.client() for each in fleet for _ in range(2)]
    for number in range(40):
        subscriber, publisher = clients[number % 4], clients[(number * 3 + 1) % 4]
        key = f"k:{number}"
        fill(publisher, key)
        event, word = (f"e.{number}", "*") if number % 2 else (f"e.{number}.x", "{n}.x")
        subscriber.ok("CACHE", "SUBSCRIBE", event if number % 4 == 0 else f"e.{word}"
                      if word == "*" else "e.{n}.x", key)
        assert publish(publisher, event)["names"] >= 1
        assert not is_kept(publisher, key)
    for client in clients:
        client.close()


def test_braces_are_braces_where_nothing_is_captured(start_proxy, redis_server):
    own, = start(start_proxy, redis_server.url())
    with own.client() as client:
        fill(client, "user:{42}:a", "user:{42}:b")
        client.ok("CACHE", "SUBSCRIBE", "deploy", "user:{42}:a")
        client.ok("CACHE", "SUBSCRIBE", "a\\{b", "user:{42}:b")
        publish(client, "deploy")
        assert not is_kept(client, "user:{42}:a")
        publish(client, "a{b")
        assert not is_kept(client, "user:{42}:b")
        assert "key:" in error_of(client, "SUBSCRIBE", "x.{1}", "y:{2}")
        assert "event:" in error_of(client, "SUBSCRIBE", "x.{", "y")


def listing(client, *pattern):
    return sorted((row["event"].decode(), row["drops"].decode(), row["from"].decode())
                  for row in map(answered, client.value("CACHE", "EVENTS", *pattern)))


def test_subscriptions_are_listed_and_taken_back(start_proxy, redis_server):
    own, = start(start_proxy, redis_server.url(), config={
        'event "rule"': section(match="page.{n}", invalidate="page:{n}")})
    with own.client() as client:
        client.ok("CACHE", "SUBSCRIBE", "one", "a", "b")
        client.ok("CACHE", "SUBSCRIBE", "two", "a")
        client.ok("CACHE", "SUBSCRIBE", "page.{id}.x", "c:{id}", "d:{id}")
        client.ok("CACHE", "SUBSCRIBE", "page.*", "e")
        ours = [("one", "a", "subscription"), ("one", "b", "subscription"),
                ("page.*", "e", "subscription"), ("page.{id}.x", "c:{id}", "subscription"),
                ("page.{id}.x", "d:{id}", "subscription"), ("page.{n}", "page:{n}", "rule"),
                ("two", "a", "subscription")]
        assert listing(client) == ours
        assert listing(client, "page.*") == [row for row in ours if row[0].startswith("page")]
        assert client.ok("CACHE", "UNSUBSCRIBE", "one") == 2
        assert client.ok("CACHE", "UNSUBSCRIBE", "page.{id}.x") == 2
        assert client.ok("CACHE", "UNSUBSCRIBE", "page.{id}.x") == 0
        assert listing(client) == [ours[2], ours[5], ours[6]]


def test_thousands_of_keys_of_one_event(start_proxy, redis_server):
    own, = start(start_proxy, redis_server.url())
    with own.client() as client:
        for start_at in range(0, 3000, 1000):
            client.ok("CACHE", "SUBSCRIBE", "many",
                      *[f"k:{number}" for number in range(start_at, start_at + 1000)])
        fill(client, "k:0", "k:1500", "k:2999", "other")
        answer = publish(client, "many")
        assert (answer["names"], answer["entries"]) == (3000, 3)
        kept(client, "other")
        assert client.ok("CACHE", "UNSUBSCRIBE", "many") == 3000
        assert publish(client, "many")["names"] == 0


def test_limits(start_proxy, redis_server):
    own, = start(start_proxy, redis_server.url(), options={"event-patterns": 3})
    with own.client() as client:
        client.ok("CACHE", "SUBSCRIBE", "a.*", "x", "y")
        assert "event-patterns" in error_of(client, "SUBSCRIBE", "b.*", "x", "y")
        client.ok("CACHE", "SUBSCRIBE", "b.*", "x")
        assert "event-patterns" in error_of(client, "SUBSCRIBE", "c.*", "x")
        client.ok("CACHE", "SUBSCRIBE", "exact", "x", "y")
        assert "512" in error_of(client, "PUBLISH", "x" * 513)
        assert "512" in error_of(client, "SUBSCRIBE", "x" * 513, "k")
        assert "1000" in error_of(client, "SUBSCRIBE", "x", *[str(n) for n in range(1001)])
        assert "syntax" in error_of(client, "PUBLISH", "BOTH", "x")
    # More than one proxy's copy may hold are read each time.
    small, = start(start_proxy, redis_server.url(), options={
        "event-patterns": 1, "bus-group": "small"})
    with small.client() as client:
        for _ in range(2):
            fill(client, "x", "y")
            publish(client, "a.1")
            assert not is_kept(client, "x") and not is_kept(client, "y")
    assert small.metrics().get("event_pattern_reads_total") == 2
    assert small.metrics().get("event_patterns") == 0


def test_who_may(start_proxy, redis_server):
    own, = start(start_proxy, redis_server.url(), options={"cache-command": "password",
                                                           "cache-password": "sesame"})
    with own.client() as client:
        for words in (("SUBSCRIBE", "e", "k"), ("PUBLISH", "e"), ("UNSUBSCRIBE", "e")):
            assert "NOAUTH" in error_of(client, *words)
        assert client.value("CACHE", "EVENTS") == []
        client.ok("CACHE", "AUTH", "sesame")
        client.ok("CACHE", "SUBSCRIBE", "e", "k")
        assert publish(client, "e")["names"] == 1


def test_without_the_backend_nothing_is_claimed(start_proxy, start_redis):
    server = start_redis()
    own, = start(start_proxy, server.url(), options={"request-timeout": "300ms"}, config={
        'event "rule"': section(match="e", invalidate="a")})
    with own.client() as client:
        fill(client, "a")
        server.pause()
        assert "nearcached" in error_of(client, "PUBLISH", "e")
        assert "nearcached" in error_of(client, "SUBSCRIBE", "e", "b")
        server.resume()
        assert not is_kept(client, "a")
    assert own.metrics().get("events_total", result="failed") == 1


def test_a_pipeline_behind_an_event_sees_it(start_proxy, redis_server):
    own, = start(start_proxy, redis_server.url(), options={"coherence": "ttl",
                                                           "ttl-mode-max": "1h"})
    with own.client() as client:
        client.ok("CACHE", "SUBSCRIBE", "e", "k")
        for number in range(20):
            fill(client, "k")
            redis_server.ask("SET", "k", f"new{number}")
            client.send(b"*3\r\n$5\r\nCACHE\r\n$7\r\nPUBLISH\r\n$1\r\ne\r\n"
                        b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n")
            client.read()
            assert client.read().endswith(b"new%d\r\n" % number)


def test_in_a_cluster(start_proxy, cluster):
    first, second = start(start_proxy, cluster.url(), 2)
    keys = [f"k:{number}" for number in range(12)]
    with first.client() as one, second.client() as two:
        fill(one, *keys, "p:1", "p:2")
        two.ok("CACHE", "SUBSCRIBE", "e", *keys)
        two.ok("CACHE", "SUBSCRIBE", "page.{n}", "p:{n}")
        assert publish(one, "e")["entries"] == len(keys)
        assert not any(is_kept(one, key) for key in keys)
        publish(two, "page.1")
        gone(one, "p:1")
        kept(one, "p:2")


# --- scope ALL ------------------------------------------------------------------------------------

def test_scope_all_removes_at_the_backend(start_proxy, redis_server):
    first, second = start(start_proxy, redis_server.url(), 2, config={
        'event "rule"': section(match="wipe.{n}", invalidate="w:{n} wg:{n}:*", scope="all"),
        'event "soft"': section(match="soft.{n}", invalidate="w:{n}")})
    with first.client() as one, second.client() as two:
        one.ok("CACHE", "SUBSCRIBE", "e", "a", "b", "g:*")
        hold((one, two), "a", "b", "g:1", "w:1", "w:2", "wg:1:x", "other")
        answer = publish(one, "ALL", "e")
        assert answer["jobs"] == 2 and answer["job"] > 0
        wait_until(lambda: redis_server.ask("EXISTS", "a", "b", "g:1") == 0, 10, "the jobs")
        publish(two, "soft.2")
        answer = publish(one, "wipe.1")
        assert answer["jobs"] == 2
        wait_until(lambda: redis_server.ask("EXISTS", "w:1", "wg:1:x") == 0, 10, "the jobs")
        assert redis_server.ask("EXISTS", "w:2", "other") == 2
        wait_until(lambda: two.value("GET", "a") is None and two.value("GET", "w:1") is None, 10,
                   "the keys to be gone everywhere")


def test_scope_all_in_its_database(start_proxy, redis_server):
    own, = start(start_proxy, redis_server.url())
    with own.client() as client, redis_server.client() as direct:
        client.ok("SELECT", 3)
        client.ok("CACHE", "SUBSCRIBE", "e", "k")
        client.ok("SET", "k", "three")
        direct.ok("SET", "k", "zero")
        client.ok("SELECT", 0)
        publish(client, "ALL", "e")
        direct.ok("SELECT", 3)
        wait_until(lambda: direct.value("EXISTS", "k") == 0, 10, "the job")
        assert client.value("GET", "k") == b"zero"


# --- rules, HTTP ----------------------------------------------------------------------------------

RULES = {'event "deploy"': section(match="deployment.*.user.{id}",
                                   invalidate="profile:{id} user:{id}:*", tags="user:{id}"),
         'event "pages"': section(match="pages", namespaces="page"),
         'namespace "page"': section(match="page:*")}


def test_rules_of_the_configuration(start_proxy, redis_server):
    first, second = start(start_proxy, redis_server.url(), 2, config=RULES)
    keys = ("profile:1", "user:1:a", "profile:2", "page:1", "tagged")
    with first.client() as one, second.client() as two:
        hold((one, two), *keys)
        one.ok("CACHE", "TAG", "tagged", "user:1")
        answer = publish(two, "deployment.eu.user.1")
        assert answer["names"] == 3 and answer["proxies"] == 1
        for client in (one, two):
            gone(client, "profile:1", "user:1:a", "tagged")
            kept(client, "profile:2", "page:1")
        publish(one, "pages")
        for client in (one, two):
            gone(client, "page:1")
            kept(client, "profile:2")
    # Rules change while clients are served.
    second.write_config({'event "deploy"': section(match="other", invalidate="profile:2")})
    reloads = second.metrics().get("config_reloads_total")
    second.signal(signal.SIGHUP)
    second.wait_metric("config_reloads_total", reloads + 1)
    with second.client() as two:
        fill(two, "profile:1", "profile:2")
        publish(two, "deployment.eu.user.1")
        kept(two, "profile:1")
        publish(two, "other")
        assert not is_kept(two, "profile:2")


def post(proxy, body, token=None):
    request = urllib.request.Request(
        "http://%s:%d/v1/invalidate" % proxy.admin_address, json.dumps(body).encode(),
        {"Content-Type": "application/json",
         **({"Authorization": f"Bearer {token}"} if token else {})})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_events_by_http(start_proxy, redis_server):
    own, = start(start_proxy, redis_server.url(), config=RULES)
    with own.client() as client:
        client.ok("CACHE", "SUBSCRIBE", "deployment.*", "k")
        fill(client, "k", "profile:1")
        status, answer = post(own, {"event": "deployment.eu.user.1"})
        assert status == 200 and answer["names"] == 3 and answer["matched"] == "lazily"
        assert not is_kept(client, "k") and not is_kept(client, "profile:1")
        assert post(own, {"event": "deployment.x", "scope": "all"})[1]["job"] > 0
        wait_until(lambda: redis_server.ask("EXISTS", "k") == 0, 10, "the job")
    for body in ({"event": ""}, {"event": 7}, {"event": "x" * 513},
                 {"event": "x", "keys": ["y"]}, {"event": "x", "scope": "some"}):
        status, answer = post(own, body)
        assert status == 400 and answer["error"], body


def test_events_by_http_need_the_token(start_proxy, redis_server):
    own, = start(start_proxy, redis_server.url(), options={"cache-command": "password",
                                                           "cache-password": "sesame"})
    assert post(own, {"event": "x"})[0] == 401
    assert post(own, {"event": "x"}, "wrong")[0] == 401
    assert post(own, {"event": "x"}, "sesame")[0] == 200


# --- sources --------------------------------------------------------------------------------------

SOURCES = {'event "deploy"': section(match="user.{id}", invalidate="profile:{id}"),
           'event "table"': section(match="changed.{t}.{row}", invalidate="{t}:{row}"),
           'event-source "app"': section(channel="app.events"),
           'event-source "tables"': section(channel="db.{t}", event="changed.{t}.{payload}"),
           'event-source "log"': section(stream="app:log", field="what")}


def test_channels_and_streams_are_sources(start_proxy, redis_server):
    fleet = start(start_proxy, redis_server.url(), 2, config=SOURCES)
    for each in fleet:
        wait_sources(each, 3)
    clients = [each.client() for each in fleet]
    clients[0].ok("CACHE", "SUBSCRIBE", "subscribed", "k")
    for tell in (lambda: redis_server.ask("PUBLISH", "app.events", "user.1"),
                 lambda: redis_server.ask("PUBLISH", "db.profile", "1"),
                 lambda: redis_server.ask("XADD", "app:log", "*", "what", "user.1")):
        hold(clients, "profile:1", "profile:2")
        tell()
        for client in clients:
            gone(client, "profile:1")
            kept(client, "profile:2")
    hold(clients, "k")
    redis_server.ask("XADD", "app:log", "*", "x", "y", "what", "subscribed")
    for client in clients:
        gone(client, "k")
        client.close()
    assert all(gaps(each) == 0 for each in fleet)


def test_what_is_no_event_changes_nothing(start_proxy, redis_server):
    own, = start(start_proxy, redis_server.url(), config=SOURCES)
    wait_sources(own, 3)
    with own.client() as client:
        fill(client, "profile:1")
        redis_server.ask("PUBLISH", "app.events", "")
        redis_server.ask("PUBLISH", "app.events", "x" * 513)
        redis_server.ask("PUBLISH", "app.events", "x" * 1000000)
        redis_server.ask("XADD", "app:log", "*", "other", "user.1")
        redis_server.ask("PUBLISH", "app.events", b"\x00\xff{}*[")
        own.wait_metric("event_messages_total", 4, result="rejected")
        own.wait_metric("event_messages_total", 1, result="event")
        kept(client, "profile:1")
    assert gaps(own) == 0


def test_a_lost_subscription_drops_everything(start_proxy, redis_server):
    own, = start(start_proxy, redis_server.url(), config={
        'event-source "app"': section(channel="app.events"),
        'event "e"': section(match="e", invalidate="k")})
    wait_sources(own)
    with own.client() as client:
        fill(client, "k", "other")
        redis_server.ask("CLIENT", "KILL", "TYPE", "pubsub")
        wait_until(lambda: gaps(own, cause="link") == 1, 10, "the gap")
        gone(client, "k", "other")
        fill(client, "k", "other")
        redis_server.ask("PUBLISH", "app.events", "e")
        gone(client, "k")
        kept(client, "other")


STREAM = {'event-source "log"': section(stream="log"),
          'event "e"': section(match="e.{n}", invalidate="k:{n}")}


def test_a_stream_is_read_on_after_a_loss(start_proxy, redis_server, start_relay):
    redis_server.ask("XADD", "log", "*", "event", "e.0")
    relay = start_relay(redis_server.address)
    own, = start(start_proxy, "redis://127.0.0.1:%d" % relay.address[1],
                 options={"coherence": "ttl", "ttl-mode-max": "1h"}, config=STREAM)
    wait_sources(own)
    with own.client() as client:
        fill(client, "k:0", "k:1", "k:2")
        redis_server.ask("XADD", "log", "*", "event", "e.1")
        gone(client, "k:1")
        kept(client, "k:0", "k:2")
        relay.refuse()
        redis_server.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        own.wait_metric("event_sources", 1, state="down")
        for number in range(250):
            redis_server.ask("XADD", "log", "*", "event", f"e.{number + 3}")
        redis_server.ask("XADD", "log", "*", "event", "e.2")
        heard = own.metrics().get("event_messages_total", result="event")
        relay.refuse(False)
        wait_sources(own)
        own.wait_metric("event_messages_total", heard + 251, result="event")
        gone(client, "k:2")
    assert gaps(own) == 0
    assert own.metrics().get("event_messages_total", result="event") == heard + 251


def test_a_stream_trimmed_before_it_was_read_is_a_gap(start_proxy, redis_server):
    own, = start(start_proxy, redis_server.url(), config=STREAM)
    wait_sources(own)
    with own.client() as client, redis_server.client() as direct:
        fill(client, "k:1", "other")
        # What was read may be trimmed.
        for number in range(3):
            direct.ok("XADD", "log", "MAXLEN", "1", "*", "event", f"e.x{number}")
            own.wait_metric("event_messages_total", number + 1, result="event")
        assert gaps(own) == 0
        kept(client, "k:1", "other")
        direct.ok("MULTI")
        for number in range(3):
            direct.ask("XADD", "log", "MAXLEN", "1", "*", "event", f"e.y{number}")
        direct.ok("EXEC")
        wait_until(lambda: gaps(own, cause="trimmed") == 1, 10, "the gap")
        gone(client, "k:1", "other")
        fill(client, "k:1", "other")
        direct.ok("DEL", "log")
        wait_until(lambda: gaps(own, cause="trimmed") == 2, 10, "the gap")
        gone(client, "k:1", "other")
        fill(client, "k:1", "other")
        direct.ok("XADD", "log", "*", "event", "e.1")
        gone(client, "k:1")
        kept(client, "other")
    assert gaps(own) == 2


def test_sources_of_a_cluster(start_proxy, cluster):
    fleet = start(start_proxy, cluster.url(), 2, config={
        **STREAM, 'event-source "all"': section(channel="events"),
        'event-source "shard"': section(shard_channel="shard.events")})
    for each in fleet:
        wait_sources(each, 3)
    owner = cluster.owner(key_slot("shard.events"))
    clients = [each.client() for each in fleet]

    def tell(number):
        yield lambda: cluster.masters()[number % 3].ask("PUBLISH", "events", "e.1")
        yield lambda: owner.ask("SPUBLISH", "shard.events", "e.1")
        yield lambda: cluster.owner(key_slot("log")).ask("XADD", "log", "*", "event", "e.1")

    for number in range(2):
        for each in tell(number):
            hold(clients, "k:1", "k:2")
            each()
            for client in clients:
                gone(client, "k:1")
                kept(client, "k:2")
    assert all(gaps(each) == 0 for each in fleet)
    # The shard channel's slot moves: who listened may have missed something, and listens there.
    target = next(node for node in cluster.masters() if node is not owner)
    cluster.move_slot(key_slot("shard.events"), target)
    for each in fleet:
        wait_until(lambda each=each: gaps(each, cause="link") >= 1, 15, "the gap")
        wait_sources(each, 3)
    hold(clients, "k:1")
    target.ask("SPUBLISH", "shard.events", "e.1")
    for client in clients:
        gone(client, "k:1")
        client.close()


def test_sources_come_and_go_by_a_reload(start_proxy, redis_server):
    own, = start(start_proxy, redis_server.url(), config=STREAM)
    wait_sources(own)

    def reload(config):
        reloads = own.metrics().get("config_reloads_total")
        own.write_config(config)
        own.signal(signal.SIGHUP)
        own.wait_metric("config_reloads_total", reloads + 1)

    with own.client() as client:
        reload({**STREAM, 'event-source "app"': section(channel="app")})
        wait_sources(own, 2)
        fill(client, "k:1")
        redis_server.ask("PUBLISH", "app", "e.1")
        gone(client, "k:1")
        fill(client, "k:1")
        redis_server.ask("XADD", "log", "*", "event", "e.1")
        gone(client, "k:1")
        reload({'event "e"': STREAM['event "e"']})
        wait_until(lambda: own.metrics().get("event_sources", state="up") == 0, 10, "no source")
        wait_until(lambda: redis_server.ask("PUBLISH", "app", "e.1") == 0, 10, "nobody to listen")
    assert gaps(own) == 0


def test_a_source_that_is_refused_says_so(start_proxy, redis_server):
    redis_server.ask("SET", "log", "no stream")
    own, = start(start_proxy, redis_server.url(), config=STREAM)
    wait_until(lambda: "event source refused" in own.log(), 10, "the refusal")
    redis_server.ask("DEL", "log")
    wait_sources(own)
    assert own.log().count("event source refused") == 1


def test_more_events_than_may_be_under_way_count_as_missed(start_proxy, start_redis):
    server = start_redis()
    own, = start(start_proxy, server.url(), options={"event-queue": 1}, config={
        'event-source "app"': section(channel="app")})
    wait_sources(own)
    with own.client() as client, server.client() as direct:
        fill(client, "k")
        direct.ok("MULTI")
        for _ in range(200):
            direct.ask("PUBLISH", "app", "x")
        direct.ok("EXEC")
        wait_until(lambda: gaps(own, cause="overflow") > 0, 10, "the overflow")
        gone(client, "k")


def test_who_goes_while_an_event_is_under_way(start_proxy, start_redis):
    """Clients over both protocols, and the proxy itself."""
    server = start_redis()
    own, = start(start_proxy, server.url(), options={"request-timeout": "1s"}, config={
        **STREAM, 'event-source "app"': section(channel="app")})
    wait_sources(own, 2)
    with own.client() as client:
        client.ok("CACHE", "SUBSCRIBE", "e", "k")
    server.pause()
    gone_client = own.client()
    gone_client.send(b"*3\r\n$5\r\nCACHE\r\n$7\r\nPUBLISH\r\n$1\r\ne\r\n")
    hung = threading.Thread(target=lambda: post(own, {"event": "e"}), daemon=True)
    hung.start()
    gone_client.close()
    server.resume()
    hung.join(10)
    wait_until(lambda: own.metrics().get("events_total") >= 2, 10, "both to end")
    server.pause()
    late = own.client()
    late.send(b"*3\r\n$5\r\nCACHE\r\n$7\r\nPUBLISH\r\n$1\r\ne\r\n")
    own.stop()
    server.resume()
    late.close()


def test_in_other_states_of_a_client(start_proxy, redis_server):
    own, = start(start_proxy, redis_server.url())
    with own.client(3) as client:
        client.ok("CACHE", "SUBSCRIBE", "e", "k")
        assert client.ok("CACHE", "PUBLISH", "e")
        client.ok("MULTI")
        client.send(b"*3\r\n$5\r\nCACHE\r\n$7\r\nPUBLISH\r\n$1\r\ne\r\n*1\r\n$4\r\nEXEC\r\n"
                    b"*1\r\n$4\r\nPING\r\n")
        client.read()
        client.read()
        assert client.read() == b"+PONG\r\n"
        client.send(b"*3\r\n$6\r\nCLIENT\r\n$5\r\nREPLY\r\n$4\r\nSKIP\r\n"
                    b"*3\r\n$5\r\nCACHE\r\n$7\r\nPUBLISH\r\n$1\r\ne\r\n"
                    b"*2\r\n$4\r\nECHO\r\n$2\r\nhi\r\n")
        assert client.read() == b"$2\r\nhi\r\n"
