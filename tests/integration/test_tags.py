"""Tags: given by applications (CACHE TAG) and by rules of the configuration; the ledger behind.

Proves: what has a tag is dropped at every proxy, one that was started later too, and with ALL at the
backend, by RESP and HTTP, in front of a server and of a cluster; tags follow their keys: they stay
while the key is there, and leave no trace when it is gone; a thousand tags of rules drop nothing
else; whoever was told that a key is invalidated is shown nothing older by that proxy, under load,
and by the others soon; limits; what the backend does not permit, or cannot do, is answered with an
error; the ledger's keys are not cached, and clients' jobs do not remove them.
"""

import contextlib
import json
import socket
import threading
import urllib.error
import urllib.request

import pytest

from harness.resp import RespError
from harness.servers import key_slot
from harness.waiting import SCALE, wait_until

pytestmark = pytest.mark.needs_proxy

GROUP = {"bus-group": "tags", "bus-heartbeat": "100ms"}
CONFIG = {"namespace session": {"match": "session:{1}:*", "tags": "user:{1} sessions"},
          "namespace cart": {"match": "cart:{who}:{what}", "tags": "user:{who} {what}-{who}"}}
# Entries live until somebody drops them: what writes pass the proxies by, nothing tells.
DEAF = {"coherence": "ttl", "ttl-mode-max": "1h", **GROUP}


def post(proxy, body, token=None):
    """(status, answer) of POST /v1/invalidate."""
    url = f"http://{proxy.admin_address[0]}:{proxy.admin_address[1]}/v1/invalidate"
    request = urllib.request.Request(url, json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=20 * SCALE) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def text_of(value):
    if isinstance(value, (bytes, RespError)):
        return value.decode() if isinstance(value, bytes) else str(value)
    if isinstance(value, dict):
        return {text_of(name): text_of(each) for name, each in value.items()}
    return [text_of(each) for each in value] if isinstance(value, list) else value


def cache(proxy, *words):
    with proxy.client(3) as client:
        return text_of(client.ok("CACHE", *words))


def error_of(proxy, *words):
    with proxy.client() as client:
        answer = client.value("CACHE", *words)
        assert isinstance(answer, RespError), answer
        return str(answer)


def held(proxy, keys):
    with proxy.client(3) as client:
        return [key for key in keys
                if any(view["live"] for view in text_of(client.ok("CACHE", "GET", key))["views"])]


def warm(proxy, keys):
    """The keys exist, and are in tier 1."""
    def read():
        for key in keys:
            client.ok("GET", key)
        return held(proxy, keys) == list(keys)

    with proxy.client() as client:
        for key in keys:
            if client.ok("GET", key) is None:
                client.ok("SET", key, "v")
        wait_until(read, 10, "the keys to be in tier 1")


def wait_peers(proxies):
    def are_up():
        for proxy in proxies:
            with proxy.client() as client:
                lines = client.ok("INFO", "Nearcached").decode().splitlines()
            if f"nearcached_bus_peers:{len(proxies) - 1}" not in lines or (
                    "nearcached_bus:up" not in lines):
                return False
        return True

    wait_until(are_up, 15, "the proxies to hear each other")


@pytest.fixture(params=["server", "cluster"])
def backend(request):
    return request.getfixturevalue("redis_server" if request.param == "server" else "cluster")


@pytest.fixture
def fleet(start_proxy, backend):
    """Two proxies of a group with rules."""
    proxies = [start_proxy(backend.url(), GROUP, config=CONFIG) for _ in range(2)]
    wait_peers(proxies)
    return proxies


def ledger_keys(backend):
    nodes = backend.masters() if hasattr(backend, "masters") else [backend]
    return [key for node in nodes for key in text_of(node.ask("KEYS", "nc:*"))]


# --- told tags ------------------------------------------------------------------------------------

def test_a_tag_drops_its_keys_at_every_proxy(fleet, start_proxy, backend):
    one, other = fleet
    keys = ["a", "b", "c{x}", "d"]
    assert cache(one, "TAG", "a", "red", "blue") == 2
    assert cache(one, "TAG", "a", "red") == 0
    assert cache(other, "TAG", "b", "red") == 1
    assert cache(other, "TAG", "c{x}", "blue") == 1
    assert sorted(cache(other, "MEMBERS", "red")) == ["a", "b"]
    assert cache(one, "MEMBERS", "none") == []
    warm(one, keys)
    warm(other, keys)
    assert cache(other, "INVALIDATE", "TAG", "red") == {
        "entries": 2, "matched": "at-once", "members": 2, "proxies": 1}
    assert held(other, keys) == ["c{x}", "d"]
    wait_until(lambda: held(one, keys) == ["c{x}", "d"], 10, "the other proxy to have heard")
    assert other.metrics().get("invalidations_total", reason="tag") == 2
    assert one.metrics().get("invalidations_total", reason="bus") == 2
    assert one.metrics().get("invalidations_total", reason="tag") == 0
    # One that was not there when the tags were given.
    third = start_proxy(backend.url(), GROUP, config=CONFIG)
    wait_peers([*fleet, third])
    for proxy in (one, third):
        warm(proxy, keys)
    answer = cache(third, "INVALIDATE", "L1", "TAG", "red", "blue")
    assert (answer["members"], answer["entries"], answer["proxies"]) == (4, 3, 2)
    assert held(third, keys) == ["d"]
    wait_until(lambda: held(one, keys) == ["d"], 10, "the first proxy to have heard")
    # What was taken off stays.
    assert cache(one, "UNTAG", "a", "red", "blue", "green") == 2
    warm(one, keys)
    assert cache(one, "INVALIDATE", "TAG", "red", "blue")["members"] == 2
    assert held(one, keys) == ["a", "d"]


def test_http_does_the_same(fleet):
    one, other = fleet
    cache(one, "TAG", "a", "red")
    cache(one, "TAG", "b", "blue")
    warm(one, ["a", "b", "c"])
    warm(other, ["a", "b", "c"])
    assert post(other, {"tags": ["red", "none"]}) == (
        200, {"entries": 1, "matched": "at-once", "members": 1, "proxies": 1})
    assert held(other, ["a", "b", "c"]) == ["b", "c"]
    wait_until(lambda: held(one, ["a", "b", "c"]) == ["b", "c"], 10, "the other proxy")
    for body in ({"tags": []}, {"tags": "red"}, {"tags": [1]}, {"tags": ["x"] * 129}):
        assert post(other, body)[0] == 400
    status, answer = post(other, {"tags": [""]})
    assert (status, answer["field"]) == (503, "tags") and "empty" in answer["error"]


def test_all_removes_at_the_backend_what_has_the_tag_and_nothing_else(fleet, backend):
    one, other = fleet
    gone = ["a", "session:42:x", "session:42:y:z", "cart:42:fruit"]
    stay = ["b", "session:4:2:x", "session:421:x", "cart:4:2", "session:42"]
    cache(one, "TAG", "a", "user:42")
    warm(one, gone + stay)
    warm(other, gone + stay)
    answer = cache(one, "INVALIDATE", "ALL", "TAG", "user:42")
    assert answer["members"] == 1 and answer["matched"] == "lazily" and answer["entries"] is None

    def job():
        return next(each for each in cache(one, "JOB", "LIST") if each["id"] == answer["job"])

    wait_until(lambda: job()["state"] != "running", 10, "the job")
    assert (job()["state"], job()["match"], job()["name"]) == ("done", "tag", "user:42")
    assert job()["removed"] == len(gone)
    with contextlib.closing(backend.client()) as client:
        assert [key for key in gone if client.ok("EXISTS", key)] == []
        assert [key for key in stay if client.ok("EXISTS", key)] == stay
    for proxy in fleet:
        with proxy.client() as client:
            assert [client.ok("GET", key) for key in stay] == [b"v"] * len(stay)
            wait_until(lambda client=client: all(client.ok("GET", key) is None for key in gone), 10,
                       "the proxy to have heard")
    # Neither a tag nor a rule: nothing to be done.
    assert "job" not in cache(one, "INVALIDATE", "ALL", "TAG", "none")


# --- tags by rules --------------------------------------------------------------------------------

def test_rules_drop_what_they_name(fleet):
    one, other = fleet
    keys = ["session:42:a", "session:42:b:c", "session:43:a", "session:42", "cart:42:fruit",
            "cart:43:fruit", "other"]
    for tag, gone in (("user:42", ["session:42:a", "session:42:b:c", "cart:42:fruit"]),
                      ("sessions", ["session:42:a", "session:42:b:c", "session:43:a"]),
                      ("fruit-43", ["cart:43:fruit"]),
                      ("user:", []), ("42", [])):
        stay = [key for key in keys if key not in gone]
        warm(one, keys)
        warm(other, keys)
        if tag == "fruit-43":
            assert post(one, {"tags": [tag]})[0] == 200
        else:
            cache(one, "INVALIDATE", "TAG", tag)
        assert held(one, keys) == stay, tag
        wait_until(lambda stay=stay: held(other, keys) == stay, 10, tag)
    wait_until(lambda: one.metrics().get("bans", state="pending-tags") == 0, 20, "the sweep")
    assert one.metrics().get("invalidations_total", reason="tag") == 3 + 3 + 1
    assert one.metrics().get("bans_overflowed_total") == 0


def test_a_thousand_rule_tags_drop_nothing_else(start_proxy, redis_server):
    proxy = start_proxy(redis_server.url(), GROUP, config=CONFIG)
    keys = [f"session:{i}:x" for i in range(4000)]
    with redis_server.client() as client:
        client.ok("MSET", *[word for key in keys for word in (key, "v")])
    with proxy.client() as client:
        def read():
            client.ok("MGET", *keys)
            before = proxy.metrics().get("hits_total")
            client.ok("MGET", *keys)
            return proxy.metrics().get("hits_total") == before + len(keys)

        wait_until(read, 10, "the keys to be in tier 1")
        replies = client.pipeline([("CACHE", "INVALIDATE", "TAG", f"user:{i}")
                                   for i in range(0, 4000, 2)])
        assert len(replies) == 2000
        before = proxy.metrics().get("hits_total")
        for key in keys:
            assert client.ok("GET", key) == b"v"
        assert proxy.metrics().get("hits_total") == before + 2000
    assert proxy.metrics().get("bans_overflowed_total") == 0
    assert proxy.metrics().get("invalidations_total", reason="tag") == 2000


def test_rules_follow_a_reload(start_proxy, redis_server):
    proxy = start_proxy(redis_server.url(), GROUP, config=CONFIG)
    keys = ["session:42:a", "job:42"]
    warm(proxy, keys)
    proxy.write_config({"namespace job": {"match": "job:{n}", "tags": "user:{n}"}})
    proxy.signal(1)
    proxy.wait_metric("config_reloads_total", 1)
    proxy.wait_metric("flushes_total", 1, reason="reload")
    warm(proxy, keys)
    cache(proxy, "INVALIDATE", "TAG", "user:42")
    assert held(proxy, keys) == ["session:42:a"]
    # The same keys and words, but what the words stand for is another part of the name.
    for number, match in enumerate(["cart:{who}:{what}", "cart:{what}:{who}"], 2):
        proxy.write_config({"namespace cart": {"match": match, "tags": "user:{who}"}})
        proxy.signal(1)
        proxy.wait_metric("config_reloads_total", number)
        proxy.wait_metric("flushes_total", number, reason="reload")
        warm(proxy, ["cart:a:b"])
        cache(proxy, "INVALIDATE", "TAG", "user:b" if number == 2 else "user:a")
        assert held(proxy, ["cart:a:b"]) == ["cart:a:b"]
        cache(proxy, "INVALIDATE", "TAG", "user:a" if number == 2 else "user:b")
        assert held(proxy, ["cart:a:b"]) == []
    proxy.write_config({"namespace job": {"match": "job:{n}", "tags": "user:{m}"}})
    proxy.signal(1)
    proxy.wait_metric("config_reload_failures_total", 1)
    assert "{m} is no capture of job:{n}" in proxy.log()


def test_a_tag_longer_than_a_rule_makes(start_proxy, redis_server):
    proxy = start_proxy(redis_server.url(), {"ledger-name-limit": "4kb", **GROUP}, config=CONFIG)
    long = "x" * 1500
    keys = [f"session:{long}:a", "session:42:a"]
    warm(proxy, keys)
    cache(proxy, "INVALIDATE", "TAG", f"user:{long}")
    assert held(proxy, keys) == keys[1:]
    warm(proxy, keys)
    job = cache(proxy, "INVALIDATE", "ALL", "TAG", f"user:{long}")
    assert job["job"] > 0
    proxy.wait_metric("unlink_jobs_total", 1, result="done")
    assert redis_server.ask("EXISTS", keys[0]) == 0
    assert redis_server.ask("EXISTS", keys[1]) == 1


# --- lifetime -------------------------------------------------------------------------------------

def test_tags_follow_their_keys(start_proxy, backend):
    proxies = [start_proxy(backend.url(), {"ledger-review": "200ms", **GROUP}) for _ in range(2)]
    keys = [f"k{i}" for i in range(40)]
    with contextlib.closing(backend.client()) as client:
        for key in keys:
            client.ok("SET", key, "v", "PX", 60000)
    for key in keys:
        assert cache(proxies[0], "TAG", key, "t", f"own:{key}") == 2
    cache(proxies[0], "TAG", "never", "t")

    def reviewed():
        return sum(each.metrics().get("ledger_reviewed_total") for each in proxies)

    wait_until(lambda: cache(proxies[1], "MEMBERS", "t", 1000).count("never") == 0, 20,
               "what never was to be taken out")
    # Looked at, more than once, and all are there still.
    seen = reviewed()
    wait_until(lambda: reviewed() > seen + 4 * len(keys), 20, "a second look")
    assert sorted(cache(proxies[1], "MEMBERS", "t", 1000)) == sorted(keys)
    # Written again, and with a longer life: still tagged.
    with contextlib.closing(backend.client()) as client:
        client.ok("SET", "k0", "again")
        client.ok("PEXPIRE", "k1", 120000)
        for key in keys[20:]:
            client.ok("DEL", key)
    wait_until(lambda: sorted(cache(proxies[1], "MEMBERS", "t", 1000)) == sorted(keys[:20]), 20,
               "what is gone to be taken out")
    with contextlib.closing(backend.client()) as client:
        for key in keys[:20]:
            client.ok("DEL", key)
    # Versions alone stay.
    wait_until(lambda: [key for key in ledger_keys(backend) if not key.endswith("!")] == [], 20,
               "the ledger to be empty")
    assert sum(each.metrics().get("ledger_review_failures_total") for each in proxies) == 0


def test_members_in_other_databases_are_looked_for_there(start_proxy, redis_server):
    proxy = start_proxy(redis_server.url(), {"ledger-review": "200ms", **GROUP})
    with proxy.client() as client:
        client.ok("SELECT", 3)
        client.ok("SET", "k", "v")
        client.ok("GET", "k")
        assert client.ok("CACHE", "TAG", "k", "t") == 1
        proxy.wait_metric("ledger_reviewed_total", 2, 20)
        assert client.ok("CACHE", "MEMBERS", "t") == [b"k"]
    assert cache(proxy, "MEMBERS", "t") == []
    assert cache(proxy, "INVALIDATE", "TAG", "t")["members"] == 1


def test_members_are_those_of_the_callers_database(start_proxy, redis_server):
    """However many of others there are."""
    proxy = start_proxy(redis_server.url(), {"ledger-batch": 10, **GROUP})
    with proxy.client() as client:
        client.pipeline([("CACHE", "TAG", f"k{i}", "t") for i in range(1500)])
        client.ok("SELECT", 3)
        assert client.ok("CACHE", "TAG", "mine", "t") == 1
        assert client.ok("CACHE", "MEMBERS", "t") == [b"mine"]
        assert client.ok("CACHE", "MEMBERS", "t", 1) == [b"mine"]
    assert len(cache(proxy, "MEMBERS", "t")) == 100
    assert len(cache(proxy, "MEMBERS", "t", 10000)) == 1500


# --- order and races ------------------------------------------------------------------------------

def test_whoever_is_told_is_shown_nothing_older(start_proxy, redis_server):
    """Writers pass the proxies by; nothing but the tags tells them."""
    proxies = [start_proxy(redis_server.url(), {**DEAF, "max-staleness": "1h"}, config=CONFIG)
               for _ in range(2)]
    wait_peers(proxies)
    pairs = [(f"t{i}", f"told:{i}") for i in range(4)]
    pairs += [(f"session:{i}:x", f"user:{i}") for i in range(4)]
    acked = [{key: 0 for key, _ in pairs} for _ in proxies]
    with redis_server.client() as client:
        for key, _ in pairs:
            client.ok("SET", key, 0)
    found, n_reads = [], [0]
    stop = threading.Event()

    def write(number):
        mine = pairs[number::2]
        try:
            with redis_server.client() as direct, proxies[number].client() as client:
                for version in range(1, 60):
                    for key, tag in mine:
                        direct.ok("SET", key, version)
                        if tag.startswith("told") and version % 7 == 1:
                            client.ok("CACHE", "UNTAG", key, tag)
                            with proxies[1 - number].client() as other:
                                other.ok("CACHE", "TAG", key, tag)
                        client.ok("CACHE", "INVALIDATE", "TAG", tag)
                        acked[number][key] = version
        except Exception as error:  # pylint: disable=broad-except
            found.append(repr(error))

    def read(number):
        try:
            with proxies[number].client() as client:
                while not stop.is_set():
                    for key, _ in pairs:
                        floor = acked[number][key]
                        shown = int(client.ok("GET", key))
                        n_reads[0] += 1
                        if shown < floor:
                            found.append(f"{key}: {shown} below {floor} at proxy {number}")
        except Exception as error:  # pylint: disable=broad-except
            found.append(repr(error))

    readers = [threading.Thread(target=read, args=(number % 2,)) for number in range(4)]
    writers = [threading.Thread(target=write, args=(number,)) for number in range(2)]
    for thread in readers + writers:
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    for thread in readers:
        thread.join()
    assert found == []
    assert sum(each.metrics().get("hits_total") for each in proxies) > n_reads[0] / 10
    for proxy in proxies:
        with proxy.client() as client:
            wait_until(lambda client=client: all(client.ok("GET", key) == b"59"
                                                 for key, _ in pairs), 10, "the last ones")


def test_a_pipeline_keeps_its_order(start_proxy, redis_server):
    proxy = start_proxy(redis_server.url(), {**DEAF, "max-staleness": "1h"})
    with redis_server.client() as direct, proxy.client() as client:
        for version in range(50):
            direct.ok("SET", "k", version)
            replies = client.pipeline([
                ("CACHE", "TAG", "k", "t"), ("CACHE", "INVALIDATE", "TAG", "t"), ("GET", "k"),
                ("CACHE", "UNTAG", "k", "t"), ("CACHE", "MEMBERS", "t"), ("GET", "k")])
            shown = str(version).encode()
            assert shown in replies[2] and shown in replies[5]
            assert replies[3] == b":1\r\n" and replies[4] == b"*0\r\n"


# --- limits and refusals --------------------------------------------------------------------------

def test_limits(start_proxy, redis_server):
    proxy = start_proxy(redis_server.url(), {
        "ledger-members": 3, "ledger-name-limit": 20, "ledger-batch": 10, **GROUP})
    for key in ("a", "b", "c"):
        cache(proxy, "TAG", key, "t")
    assert "ledger-members" in error_of(proxy, "TAG", "d", "t")
    assert sorted(cache(proxy, "MEMBERS", "t")) == ["a", "b", "c"]
    assert len(cache(proxy, "MEMBERS", "t", 2)) == 2
    for words in (("TAG", "k" * 21, "t"), ("TAG", "k", "t" * 21), ("UNTAG", "k", "t" * 21),
                  ("INVALIDATE", "TAG", "t" * 21), ("MEMBERS", "t" * 21)):
        assert "ledger-name-limit" in error_of(proxy, *words)
    assert "empty" in error_of(proxy, "TAG", "", "t")
    assert "128" in error_of(proxy, "TAG", "k", *[f"t{i}" for i in range(129)])
    assert "range" in error_of(proxy, "MEMBERS", "t", 0)
    assert "wrong number" in error_of(proxy, "TAG", "k")
    assert "wrong number" in error_of(proxy, "INVALIDATE", "L1", "TAG")
    assert proxy.metrics().get("ledger_operations_total", result="refused") >= 5


def test_many_members_are_walked_in_batches(start_proxy, redis_server):
    proxy = start_proxy(redis_server.url(), {"ledger-batch": 50, **GROUP})
    with proxy.client() as client:
        client.pipeline([("CACHE", "TAG", f"k{i}", "t") for i in range(1000)])
    with proxy.client(3) as client:
        client.ok("MSET", *[word for i in range(1000) for word in (f"k{i}", "v")])
        client.ok("MGET", *[f"k{i}" for i in range(1000)])
    assert sorted(cache(proxy, "MEMBERS", "t", 10000)) == sorted(f"k{i}" for i in range(1000))
    warm(proxy, [f"k{i}" for i in range(0, 1000, 10)])
    assert cache(proxy, "INVALIDATE", "TAG", "t")["members"] >= 1000
    assert held(proxy, [f"k{i}" for i in range(0, 1000, 10)]) == []


def test_who_may(start_proxy, redis_server):
    proxy = start_proxy(redis_server.url(), {"cache-command": "password",
                                             "cache-password": "sesame", **GROUP})
    for words in (("TAG", "k", "t"), ("UNTAG", "k", "t"), ("MEMBERS", "t"),
                  ("INVALIDATE", "TAG", "t")):
        assert "CACHE AUTH" in error_of(proxy, *words)
    assert post(proxy, {"tags": ["t"]})[0] == 401
    assert post(proxy, {"tags": ["t"]}, "sesame")[0] == 200
    with proxy.client() as client:
        client.ok("CACHE", "AUTH", "sesame")
        assert client.ok("CACHE", "TAG", "k", "t") == 1


def test_a_backend_that_does_not_permit_it(start_proxy, start_redis):
    server = start_redis()
    with server.client() as client:
        client.ok("ACL", "SETUSER", "proxy", "on", ">secret", "+@all", "~app:*", "~session:*",
                  "&*")
    host, port = server.address if hasattr(server, "address") else ("127.0.0.1", server.port)
    proxy = start_proxy(f"redis://proxy:secret@{host}:{port}",
                        {"ledger-review": "200ms", **GROUP}, config=CONFIG)
    warm(proxy, ["app:1", "session:42:x"])
    for words in (("TAG", "app:1", "t"), ("MEMBERS", "t"), ("UNTAG", "app:1", "t"),
                  ("INVALIDATE", "TAG", "t"), ("INVALIDATE", "ALL", "TAG", "t")):
        assert "NOPERM" in error_of(proxy, *words), words
    status, answer = post(proxy, {"tags": ["t"]})
    assert status == 503 and "NOPERM" in answer["error"]
    assert held(proxy, ["app:1"]) == ["app:1"]
    with server.client() as client:
        assert client.ok("KEYS", "nc:*") == []


def test_a_backend_that_is_away(start_proxy, start_redis):
    server = start_redis()
    proxy = start_proxy(server.url(), {"request-timeout": "1s", **GROUP})
    cache(proxy, "TAG", "k", "t")
    server.stop()
    for words in (("TAG", "k", "u"), ("INVALIDATE", "TAG", "t"), ("MEMBERS", "t")):
        assert "backend" in error_of(proxy, *words)
    assert post(proxy, {"tags": ["t"]})[0] == 503
    # Who leaves before the answer is no harm; nor is a proxy that stops meanwhile.
    with proxy.client() as client:
        client.send(b"*4\r\n$5\r\nCACHE\r\n$10\r\nINVALIDATE\r\n$3\r\nTAG\r\n$1\r\nt\r\n")
    body = json.dumps({"tags": ["t"]}).encode()
    for _ in range(2):
        with socket.create_connection(proxy.admin_address) as http:
            http.sendall(b"POST /v1/invalidate HTTP/1.1\r\nHost: x\r\nContent-Type: "
                         b"application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            failed = proxy.metrics().get("ledger_operations_total", result="failed")
    proxy.wait_metric("ledger_operations_total", failed + 1, result="failed")
    waiting = proxy.client()
    waiting.send(b"*4\r\n$5\r\nCACHE\r\n$10\r\nINVALIDATE\r\n$3\r\nTAG\r\n$1\r\nt\r\n")


def test_the_ledger_is_its_own(start_proxy, redis_server):
    proxy = start_proxy(redis_server.url(), {"ledger-prefix": "led:", **GROUP})
    cache(proxy, "TAG", "k", "t")
    with redis_server.client() as client:
        keys = text_of(client.ok("KEYS", "led:*"))
        assert len(keys) == 3 and client.ok("KEYS", "nc:*") == []
        # Each change has another version, what changed nothing too.
        version = next(key for key in keys if key.endswith("!"))
        versions = []
        for words in (("TAG", "k", "t"), ("TAG", "l", "t"), ("UNTAG", "l", "t"),
                      ("UNTAG", "l", "t")):
            versions.append(client.ok("GET", version))
            cache(proxy, *words)
        assert len({*versions, client.ok("GET", version)}) == 5
    # Never cached, not even by who asks for them.
    with proxy.client() as client:
        before = proxy.metrics().get("hits_total")
        for _ in range(3):
            client.ok("GET", next(key for key in keys if key.endswith("!")))
            client.ok("GET", "led:x")
        assert proxy.metrics().get("hits_total") == before
    assert held(proxy, keys + ["led:x"]) == []
    assert "own" in error_of(proxy, "TAG", keys[0], "t")
    # A job that removes everything leaves what it knows.
    cache(proxy, "INVALIDATE", "ALL", "EVERYTHING")
    proxy.wait_metric("unlink_jobs_total", 1, result="done")
    assert cache(proxy, "MEMBERS", "t") == ["k"]
    # What is in the way is told of.
    with redis_server.client() as client:
        members = next(key for key in keys if key.endswith(":t"))
        client.ok("SET", members, "mine")
    assert "WRONGTYPE" in error_of(proxy, "TAG", "other", "t")
    assert "WRONGTYPE" in error_of(proxy, "INVALIDATE", "TAG", "t")


def test_a_failover_in_between(start_proxy, cluster):
    """What was acknowledged and has reached the replica is there when that has taken over."""
    proxy = start_proxy(cluster.url(), {"topology-interval": "200ms", **GROUP})
    tags = [f"t{i}" for i in range(40)]
    for tag in tags:
        assert cache(proxy, "TAG", "k{1}", tag) == 1
    master = cluster.masters()[0]
    replica = cluster.replicas_of(master)[0]
    wait_until(lambda: len(replica.ask("KEYS", "nc:*")) == len(master.ask("KEYS", "nc:*")), 10,
               "the replica to have it")
    master.kill()

    def members(tag):
        with proxy.client() as client:
            return text_of(client.value("CACHE", "MEMBERS", tag))

    for tag in tags:
        wait_until(lambda tag=tag: members(tag) == ["k{1}"], 60, "the replica to have taken over")


def test_a_slot_of_the_ledger_moves(start_proxy, cluster):
    """Key by key: what has moved is asked for there, what has not is not; nothing is lost."""
    proxy = start_proxy(cluster.url(), {"topology-interval": "200ms", "request-timeout": "2s",
                                        **DEAF})
    assert cache(proxy, "TAG", "k{1}", "t") == 1
    parts = ledger_keys(cluster)
    slot = key_slot(parts[0])
    source = cluster.owner(slot)
    target = next(node for node in cluster.masters() if node is not source)
    members = next(key for key in parts if key.endswith(":t"))
    version = next(key for key in parts if key.endswith("!"))

    def works():
        assert cache(proxy, "MEMBERS", "t") == ["k{1}"]
        assert cache(proxy, "MEMBERS", "nobody") == []
        warm(proxy, ["k{1}"])
        assert cache(proxy, "INVALIDATE", "TAG", "t")["members"] == 1
        assert held(proxy, ["k{1}"]) == []

    def move(key):
        source.ask("MIGRATE", "127.0.0.1", target.port, key, 0, 5000)

    target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", cluster.node_id(source))
    source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", cluster.node_id(target))
    works()
    move(members)
    works()
    def changes(which):
        """Also of a tag that nobody has, whose members are nowhere yet."""
        for tag in ("t", f"new:{which}"):
            assert cache(proxy, "TAG", "other{1}", tag) == 1, which
            assert cache(proxy, "TAG", "other{1}", tag) == 0, which
            assert "other{1}" in cache(proxy, "MEMBERS", tag), which
            assert cache(proxy, "UNTAG", "other{1}", tag) == 1, which
        works()

    changes("members")
    move(version)
    changes("version")
    move(next(key for key in parts if key not in (members, version)))
    changes("all")
    assert proxy.metrics().get("ledger_apart_total") > 0
    for node in (target, source):
        node.ask("CLUSTER", "SETSLOT", slot, "NODE", cluster.node_id(target))
    works()
    assert cache(proxy, "TAG", "other{1}", "t") == 1
    assert sorted(cache(proxy, "MEMBERS", "t")) == ["k{1}", "other{1}"]
    # The registry has its place, wherever it was added.
    assert "t" in text_of(target.ask("ZRANGE", next(
        key for key in parts if key not in (members, version)), 0, -1))


def test_a_member_whose_slot_moves_stays(start_proxy, cluster):
    """It is there, wherever it is: whoever reviews the ledger asks the node that has it."""
    proxy = start_proxy(cluster.url(), {"topology-interval": "200ms", "ledger-review": "1s",
                                        **GROUP})
    keys = ["{mv}1", "{mv}2", "{mv}3"]
    slot = key_slot(keys[0])
    source = cluster.owner(slot)
    target = next(node for node in cluster.masters() if node is not source)
    for key in keys:
        source.ask("SET", key, "v")
        assert cache(proxy, "TAG", key, "t") == 1
    target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", cluster.node_id(source))
    source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", cluster.node_id(target))
    for key in keys[:2]:
        source.ask("MIGRATE", "127.0.0.1", target.port, key, 0, 5000)
    source.ask("DEL", keys[2])
    wait_until(lambda: sorted(cache(proxy, "MEMBERS", "t")) == keys[:2], 20, "one to be gone")
    reviewed = proxy.metrics().get("ledger_reviewed_total")
    wait_until(lambda: proxy.metrics().get("ledger_reviewed_total") > reviewed + 4, 20, "reviews")
    assert sorted(cache(proxy, "MEMBERS", "t")) == keys[:2]
    for node in (target, source):
        node.ask("CLUSTER", "SETSLOT", slot, "NODE", cluster.node_id(target))
