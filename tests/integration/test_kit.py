"""What several proxies and the HTTP side do with the invalidation kit.

Proves: POST /v1/tags, /v1/dependencies and /v1/events do what CACHE TAG, DEPEND and SUBSCRIBE do, and
take it back; arrays of orders are carried out in order, each with its own answer, one that failed
too; a ban by a tag of a rule drops and keeps out what has it, and one by a tag of applications is
refused; standing bans reach proxies that start later, that missed them and that were away, change
nothing where they stand, and stay away where they were removed, in whatever order that is heard.
"""

import json
import signal
import urllib.error
import urllib.request

import pytest

from harness.resp import RespError
from harness.waiting import SCALE, wait_until
from test_bus import BAN, KEY, Thief, fill, gaps, is_kept, listener, message, record, seen  # noqa: F401
from test_bus import _origins, start_fleet
from test_tags import cache, held, warm

pytestmark = pytest.mark.needs_proxy

GROUP = {"bus-group": "tests", "bus-heartbeat": "100ms"}
CONFIG = {"namespace session": {"match": "session:{1}:*", "tags": "user:{1} sessions"}}
RULES = {"cache-command": "password", "cache-password": "sesame"}


def post(proxy, path, body, token=None):
    request = urllib.request.Request(
        "http://%s:%d%s" % (*proxy.admin_address, path), json.dumps(body).encode(),
        {"Content-Type": "application/json"})
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=20 * SCALE) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def standing(proxy):
    return proxy.metrics().get("bans", state="standing")


def wait_standing(proxies, n):
    wait_until(lambda: [standing(each) for each in proxies] == [n] * len(proxies), 15,
               f"{n} bans each")


# ---- HTTP ----

@pytest.mark.parametrize("backend", ["redis_server", "cluster"])
def test_tags_by_http(start_proxy, request, backend):
    own = start_proxy(request.getfixturevalue(backend).url(), GROUP)
    assert post(own, "/v1/tags", {"key": "a", "tags": ["red", "blue"]}) == (200, {"changed": 2})
    assert sorted(cache(own, "MEMBERS", "red")) == ["a"]
    warm(own, ["a", "b"])
    assert post(own, "/v1/invalidate", {"tags": ["red"]})[1]["entries"] == 1
    assert held(own, ["a", "b"]) == ["b"]
    assert post(own, "/v1/tags", {"key": "a", "tags": ["red", "none"], "remove": True}) == (
        200, {"changed": 1})
    assert cache(own, "MEMBERS", "red") == [] and cache(own, "MEMBERS", "blue") == ["a"]


@pytest.mark.parametrize("backend", ["redis_server", "cluster"])
def test_dependencies_by_http(start_proxy, request, backend):
    server = request.getfixturevalue(backend)
    own = start_proxy(server.url(), GROUP)
    path = "/v1/dependencies"
    assert post(own, path, {"derived": "page", "sources": ["user", "menu"]}) == (
        200, {"changed": 2})
    warm(own, ["page", "other"])
    with own.client() as client:
        client.ok("SET", "menu", "new")
    assert held(own, ["page", "other"]) == ["other"]
    assert post(own, path, {"derived": "page", "sources": ["menu"], "remove": True}) == (
        200, {"changed": 1})
    wait_until(lambda: cache(own, "DEPENDS", "page")["sources"] == ["user"], 10, "its end")
    assert post(own, path, {"derived": "page", "remove": True}) == (200, {"changed": 1})
    wait_until(lambda: cache(own, "DEPENDS", "page")["sources"] == [], 10, "the end of all")
    assert post(own, path, {"derived": "page", "remove": True}) == (200, {"changed": 0})
    status, answer = post(own, path, {"derived": "page", "sources": ["page"]})
    assert (status, answer["field"]) == (400, "sources") and "itself" in answer["error"]


@pytest.mark.parametrize("backend", ["redis_server", "cluster"])
def test_events_by_http_are_subscribed(start_proxy, request, backend):
    own = start_proxy(request.getfixturevalue(backend).url(), GROUP)
    assert post(own, "/v1/events", {"event": "deploy", "names": ["a", "b"]}) == (
        200, {"changed": 2})
    warm(own, ["a", "b", "c"])
    assert post(own, "/v1/invalidate", {"event": "deploy"})[1]["entries"] == 2
    assert held(own, ["a", "b", "c"]) == ["c"]
    assert post(own, "/v1/events", {"event": "deploy", "names": ["a"], "remove": True}) == (
        200, {"changed": 1})
    assert post(own, "/v1/events", {"event": "deploy", "remove": True}) == (200, {"changed": 1})
    assert cache(own, "EVENTS") == []


def test_what_is_told_by_http_is_checked(start_proxy, redis_server):
    own = start_proxy(redis_server.url(), {**GROUP, **RULES})
    for path, body, field in (
            ("/v1/tags", {"key": "a"}, "tags"), ("/v1/tags", {"tags": ["a"]}, "key"),
            ("/v1/tags", {"key": "", "tags": ["a"]}, "key"),
            ("/v1/tags", {"key": "a", "remove": True}, "tags"),
            ("/v1/tags", {"key": "a", "tags": ["t"] * 129}, "tags"),
            ("/v1/tags", {"key": "a", "tags": ["t"], "remove": 1}, "remove"),
            ("/v1/tags", {"key": "a", "tags": ["t"], "scope": "all"}, "scope"),
            ("/v1/tags", {"key": "a", "tags": ["t"], "db": -1}, "db"),
            ("/v1/dependencies", {"derived": "a", "sources": [1]}, "sources"),
            ("/v1/dependencies", {"derived": "a"}, "sources"),
            ("/v1/events", {"event": "e", "names": "a"}, "names"),
            ("/v1/events", {"event": "e"}, "names"), ("/v1/events", [], None)):
        status, answer = post(own, path, body, "sesame")
        assert (status, answer["field"]) == (400, field), (body, answer)
    for path in ("/v1/tags", "/v1/dependencies", "/v1/events"):
        assert post(own, path, {})[0] == 401 and post(own, path, {}, "open")[0] == 401


def test_an_array_is_carried_out_in_order(start_proxy, redis_server):
    own = start_proxy(redis_server.url(), GROUP)
    cache(own, "TAG", "a", "red")
    warm(own, ["a", "b", "c:1", "d"])
    status, answer = post(own, "/v1/invalidate", [
        {"tags": ["red"]}, {"keys": ["b"]}, {"prefix": "c:"}, {"keys": ["a", "b"]}])
    assert status == 200 and answer["failed"] == 0
    assert [each["entries"] for each in answer["results"]] == [1, 1, None, 0]
    assert held(own, ["a", "b", "c:1", "d"]) == ["d"]
    # What failed is told, and what stands behind it is done.
    warm(own, ["a", "b"])
    status, answer = post(own, "/v1/invalidate",
                          [{"keys": ["a"]}, {"kys": ["a"]}, 7, {"keys": ["b"]}])
    assert status == 400 and answer["failed"] == 2
    assert [each.get("field", "done") for each in answer["results"]] == [
        "done", "kys", None, "done"]
    assert held(own, ["a", "b"]) == []
    status, answer = post(own, "/v1/tags", [{"key": f"k{i}", "tags": ["many"]} for i in range(1000)])
    assert status == 200 and len(answer["results"]) == 1000
    assert len(cache(own, "MEMBERS", "many", 2000)) == 1000
    assert post(own, "/v1/invalidate", [{"keys": ["a"]}] * 1001)[0] == 400
    assert post(own, "/v1/invalidate", [])[0] == 400


def test_who_hangs_up_leaves_no_trace(start_proxy, redis_server):
    """The order under way ends; nothing is left of it (ASan would say so)."""
    import socket
    own = start_proxy(redis_server.url(), GROUP)
    body = json.dumps([{"tags": [f"t{i}"]} for i in range(500)]).encode()
    for _ in range(20):
        with socket.create_connection(own.admin_address) as http:
            http.sendall(b"POST /v1/invalidate HTTP/1.1\r\nHost: x\r\nContent-Type: "
                         b"application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    assert post(own, "/v1/invalidate", [{"tags": ["x"]}])[0] == 200


# ---- bans by tag ----

def test_a_ban_by_a_tag_of_a_rule(start_proxy, redis_server):
    fleet = [start_proxy(redis_server.url(), GROUP, config=CONFIG) for _ in range(2)]
    keys = ["session:1:a", "session:2:a", "other"]
    for each in fleet:
        warm(each, keys)
    wait_until(lambda: "bus_peers:1" in str(fleet[0].client().value("INFO", "Nearcached")), 10,
               "the other proxy")
    ban = cache(fleet[0], "BAN", "ADD", "TAG", "user:1")
    assert held(fleet[0], keys) == ["session:2:a", "other"]
    wait_standing(fleet, 1)
    for each in fleet:
        with each.client() as client:
            for _ in range(3):
                assert client.ok("GET", "session:1:a") == b"v"
        assert held(each, keys) == ["session:2:a", "other"], "it is kept out, too"
        assert each.metrics().get("fills_refused_total", reason="ban") == 3
    listed = post(fleet[0], "/v1/invalidate", {"unban": ban["id"]})
    assert listed == (200, {"removed": True, "proxies": 1})
    wait_standing(fleet, 0)
    warm(fleet[1], keys)
    # By all of the same rule, with another test beside it, over HTTP.
    status, _ = post(fleet[1], "/v1/invalidate", {"ban": {"tag": "sessions", "larger_bytes": 1}})
    assert status == 200 and held(fleet[1], keys) == ["other"]
    assert cache(fleet[1], "BAN", "LIST")[0]["match"] == "tag"


def test_a_ban_by_a_tag_of_applications_is_refused(start_proxy, redis_server):
    own = start_proxy(redis_server.url(), GROUP, config=CONFIG)
    cache(own, "TAG", "a", "red")
    with own.client() as client:
        answer = client.value("CACHE", "BAN", "ADD", "TAG", "red")
        assert isinstance(answer, RespError) and "no namespace gives this tag" in str(answer)
    status, answer = post(own, "/v1/invalidate", {"ban": {"tag": "red"}})
    assert (status, answer["field"]) == (400, "ban")
    status, answer = post(own, "/v1/invalidate", {"ban": {"tag": "sessions", "glob": "a"}})
    assert (status, answer["field"]) == (400, "glob")
    assert standing(own) == 0


# ---- bans that somebody missed ----

@pytest.mark.parametrize("backend", ["redis_server", "cluster"])
def test_a_proxy_that_starts_later_learns(start_proxy, request, backend):
    server = request.getfixturevalue(backend)
    fleet = start_fleet(start_proxy, server.url(), 3)
    for i in range(150):
        cache(fleet[i % 3], "BAN", "ADD", "PREFIX", f"p{i}:")
    cache(fleet[0], "BAN", "ADD", "GLOB", "g*", "OLDER", 5000, "LARGER", 100, "TTL", 600000)
    gone = cache(fleet[1], "BAN", "ADD", "PREFIX", "gone:", "TTL", 1)["id"]
    wait_until(lambda: all(gone not in str(cache(each, "BAN", "LIST")) for each in fleet), 10,
               "its end")
    late = start_proxy(server.url(), GROUP)
    wait_standing([*fleet, late], 151)
    found, known = (sorted(cache(each, "BAN", "LIST"), key=lambda ban: ban["id"])
                    for each in (late, fleet[0]))
    for mine, theirs in zip(found, known):
        for name in ("id", "match", "name", "namespace", "older-ms", "larger-bytes"):
            assert mine[name] == theirs[name]
        assert abs(mine["ttl-left-ms"] - theirs["ttl-left-ms"]) < 60000 * SCALE
    assert late.metrics().get("bans_learnt_total") == 151
    assert all(each.metrics().get("bans_learnt_total") == 0 for each in fleet)
    with late.client() as client:
        for _ in range(2):
            client.ok("GET", "p7:x")
    assert late.metrics().get("fills_refused_total", reason="ban") == 2


def test_a_ban_and_a_removal_that_were_missed_are_made_up_for(start_proxy, redis_server):
    thief = Thief(redis_server)
    first, third = (start_proxy(redis_server.url(), GROUP) for _ in range(2))
    second = start_proxy(thief.url, GROUP)
    fleet = [first, second, third]
    wait_until(lambda: all(b"nearcached_bus_peers:2\r" in each.client().value("INFO", "Nearcached")
                           for each in fleet), 15, "the fleet")
    thief.is_armed = True
    ban = cache(first, "BAN", "ADD", "PREFIX", "a:")["id"]
    wait_until(lambda: thief.n_taken == 1, 10, "the theft")
    wait_standing(fleet, 1)
    assert second.metrics().get("bans_learnt_total") == 1, "and not by the message that was lost"
    assert gaps(second, cause="number") == 1
    thief.is_armed = True
    assert cache(first, "BAN", "REMOVE", ban) == 1
    wait_until(lambda: thief.n_taken == 2, 10, "the theft")
    # Who starts now hears of it from one that knows of its end, and from one that may not.
    fourth = start_proxy(redis_server.url(), GROUP)
    wait_standing([*fleet, fourth], 0)
    seen(second, "bus_gaps_total", 2, cause="number")
    # All have been told again since: it stays away.
    before = first.metrics().get("bans_told_again_total")
    fifth = start_proxy(redis_server.url(), GROUP)
    wait_until(lambda: first.metrics().get("bans_told_again_total") > before, 15, "a lesson")
    wait_standing([*fleet, fourth, fifth], 0)
    thief.close()


def test_who_was_away_tells_what_it_has(start_proxy, redis_server):
    """Bans of a proxy whose subscription is lost are told when it is back."""
    fleet = start_fleet(start_proxy, redis_server.url(), 2)
    cache(fleet[0], "BAN", "ADD", "PREFIX", "a:")
    wait_standing(fleet, 1)
    before = [each.metrics().get("bans_told_again_total") for each in fleet]
    redis_server.ask("CLIENT", "KILL", "TYPE", "pubsub")
    wait_until(lambda: all(each.metrics().get("bans_told_again_total") > n
                           for each, n in zip(fleet, before)), 15, "the lessons")
    wait_standing(fleet, 1)


def test_what_stands_is_not_set_anew(listener):  # noqa: F811
    own, client, publish = listener
    origin = next(_origins)
    publish(message(origin, 1, record(BAN, b"0123456789abcdef 0 0 0 1 x:")))
    wait_standing([own], 1)
    fill(client, "kept")
    # The same id once more, for everything: were it set, the key would go.
    publish(message(origin, 2, record(BAN, b"0123456789abcdef 0 0 0 0 "), record(KEY, b"none")))
    seen(own, "bus_records_total", 3, direction="received")
    assert is_kept(client, "kept") and cache(own, "BAN", "LIST")[0]["name"] == "x:"


def test_a_removal_wins_in_whatever_order(listener):  # noqa: F811
    own, client, publish = listener
    origin = next(_origins)
    fill(client, "kept")
    publish(message(origin, 1, record(BAN, b"0123456789abcdef -")))
    publish(message(origin, 2, record(BAN, b"0123456789abcdef 0 0 0 0 ")))
    seen(own, "bus_records_total", 2, direction="received")
    assert standing(own) == 0 and is_kept(client, "kept") and gaps(own) == 0


def test_where_bans_are_too_many_a_lesson_drops_nothing(start_proxy, redis_server):
    full = start_proxy(redis_server.url(), {**GROUP, "max-bans": "1"})
    cache(full, "BAN", "ADD", "PREFIX", "mine:")
    other = start_proxy(redis_server.url(), GROUP)
    wait_standing([other], 1)
    cache(other, "BAN", "ADD", "PREFIX", "more:")
    seen(full, "bans_not_learnt_total", 1)
    with full.client() as client:
        fill(client, "kept")
        flushes = full.metrics().get("flushes_total", reason="bus")
        third = start_proxy(redis_server.url(), GROUP)
        wait_standing([third], 2)
        wait_until(lambda: full.metrics().get("bans_not_learnt_total") >= 2, 15, "the lesson")
        assert full.metrics().get("flushes_total", reason="bus") == flushes
        assert is_kept(client, "kept")


# ---- debounce ----

def debounced(proxy, result):
    return proxy.metrics().get("debounce_total", result=result)


def dependent(start_proxy, server, window):
    own = start_proxy(server.url(), GROUP, config={
        "dependency profile": {"source": "user:{1}", "derived": "profile:{1} view:{1}:*",
                               "debounce": window}})
    own.wait_metric("coherence_nodes", 1, mode="broadcast")
    return own


def test_a_rule_drops_at_once_and_holds_what_follows(start_proxy, redis_server):
    own = dependent(start_proxy, redis_server, "1m")
    warm(own, ["profile:1", "view:1:a", "profile:2"])
    redis_server.ask("SET", "user:1", "one")
    wait_until(lambda: held(own, ["profile:1", "view:1:a", "profile:2"]) == ["profile:2"], 10,
               "the first drop, at once")
    warm(own, ["profile:1", "view:1:a"])
    for i in range(5):
        redis_server.ask("SET", "user:1", i)
    redis_server.ask("SET", "user:2", "one")
    wait_until(lambda: held(own, ["profile:2"]) == [], 10, "another name, at once")
    wait_until(lambda: debounced(own, "held") == 2, 10, "the name and the pattern to be held")
    assert held(own, ["profile:1", "view:1:a"]) == ["profile:1", "view:1:a"]
    # Who asks for it is not held up.
    cache(own, "INVALIDATE", "KEYS", "user:1")
    assert held(own, ["profile:1", "view:1:a"]) == []


@pytest.mark.parametrize("through", [False, True])
def test_the_last_write_is_never_lost(start_proxy, redis_server, through):
    own = dependent(start_proxy, redis_server, "200ms")
    with own.client() as client:
        for i in range(40):
            warm(own, ["profile:1", "view:1:a"])
            if through:
                client.ok("SET", "user:1", i)
            else:
                redis_server.ask("SET", "user:1", i)
    wait_until(lambda: held(own, ["profile:1", "view:1:a"]) == [], 10, "the end of the window")
    assert debounced(own, "held") > 0 and debounced(own, "overflowed") == 0


@pytest.mark.parametrize("window", ["1m", "200ms"])
def test_events_of_sources_are_held(start_proxy, redis_server, window):
    own = start_proxy(redis_server.url(), GROUP, config={
        'event "user"': {"match": "user.{1}", "invalidate": "profile:{1} view:{1}:*",
                       "debounce": window},
        'event-source "app"': {"channel": "app"}})
    wait_until(lambda: redis_server.ask("PUBSUB", "NUMSUB", "app")[1] == 1, 10, "the source")
    for i in range(20):
        warm(own, ["profile:1", "view:1:a"])
        redis_server.ask("PUBLISH", "app", "user.1")
        if i == 0:
            wait_until(lambda: held(own, ["profile:1", "view:1:a"]) == [], 10, "the first")
    wait_until(lambda: debounced(own, "held") > 0, 10, "something to be held")
    if window == "1m":
        wait_until(lambda: debounced(own, "held") + debounced(own, "merged") == 19, 10, "all")
        assert held(own, ["profile:1", "view:1:a"]) == ["profile:1", "view:1:a"]
        # Who publishes waits for nothing.
        assert cache(own, "PUBLISH", "user.1")["names"] == 2
    wait_until(lambda: held(own, ["profile:1", "view:1:a"]) == [], 10, "the last")


@pytest.mark.parametrize("are_same", [True, False])
def test_what_is_held_over_a_change(start_proxy, redis_server, are_same):
    """By equal rules it is done as it was to be; by others everything goes, to be sure."""
    sections = {
        'event "user"': {"match": "user.{1}", "invalidate": "profile:{1}", "debounce": "2s"},
        'event-source "app"': {"channel": "app"}}
    own = start_proxy(redis_server.url(), GROUP, config=sections)
    wait_until(lambda: redis_server.ask("PUBSUB", "NUMSUB", "app")[1] == 1, 10, "the source")
    warm(own, ["profile:1", "other"])
    redis_server.ask("PUBLISH", "app", "user.1")
    wait_until(lambda: held(own, ["profile:1"]) == [], 10, "the first")
    warm(own, ["profile:1"])
    redis_server.ask("PUBLISH", "app", "user.1")
    wait_until(lambda: debounced(own, "held") > 0, 10, "the second to be held")
    if not are_same:
        sections['event "user"']["invalidate"] = "account:{1}"
        own.write_config(sections)
        before = own.metrics().get("config_reloads_total")
        own.signal(signal.SIGHUP)
        own.wait_metric("config_reloads_total", before + 1)
    for n in (5, 6, 7) if are_same else ():
        with own.client() as client:
            client.ok("CACHE", "CONFIG", "SET", "client-input-limit", f"{n}mb")
    assert held(own, ["other"]) == ["other"]
    wait_until(lambda: held(own, ["profile:1"]) == [], 10, "the end of the window")
    assert held(own, ["other"]) == (["other"] if are_same else [])


def test_debounce_is_not_for_scope_all(start_proxy, redis_server, tmp_path):
    import subprocess
    import os
    for text in ('[dependency "a"]\nsource = a:{1}\nderived = b:{1}\nscope = ALL\ndebounce = 1s\n',
                 '[event "a"]\nmatch = a\ninvalidate = b\nscope = ALL\ndebounce = 1s\n',
                 '[event "a"]\nmatch = a\ninvalidate = b\ndebounce = 2m\n',
                 '[event "a"]\nmatch = a\ninvalidate = b\ndebounce = soon\n'):
        path = tmp_path / "rules.conf"
        path.write_text(text)
        done = subprocess.run([os.environ["NEARCACHED_BIN"], "-t", "--config", str(path)],
                              capture_output=True, text=True, timeout=20 * SCALE)
        assert done.returncode != 0 and "debounce" in done.stdout + done.stderr, done
