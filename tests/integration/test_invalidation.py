"""Invalidation by keys, patterns, namespaces, everything and bans: by CACHE and by POST /v1/invalidate.

Proves: each form drops what it names and nothing else, in front of a server and of a cluster; a
million entries are dropped while other clients are answered; bans keep out what is cached later,
until their time is over or they are removed; limits; who may (cache-command); ALL removes keys at
the backend, tells its progress, can be cancelled and tells errors; a fetch that was under way shows
its reply to who waits and is not kept.
"""

import contextlib
import json
import socket
import threading
import urllib.error
import urllib.request

import pytest

from harness.proxy import is_sanitized
from harness.resp import decode, encode
from harness.servers import key_slot
from harness.waiting import SCALE, wait_until

pytestmark = pytest.mark.needs_proxy

CONFIG = {"namespace session": {"match": "session:*"}}
KEYS = ["a:1", "a:2", "a:{x}", "b:1", "session:1", "session:2", "other"]


def post(proxy, body, token=None, content_type="application/json", path="/v1/invalidate",
         method=None):
    """(status, answer) of one request; body: what becomes JSON, or bytes."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    url = f"http://{proxy.admin_address[0]}:{proxy.admin_address[1]}{path}"
    request = urllib.request.Request(url, data, method=method)
    if content_type:
        request.add_header("Content-Type", content_type)
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=10 * SCALE) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        with error:
            text = error.read()
            return error.code, json.loads(text) if text[:1] == b"{" else text


def body_of_head(proxy, path):
    """What stands behind the header of the answer to HEAD."""
    with socket.create_connection(proxy.admin_address, 10 * SCALE) as connection:
        connection.sendall(f"HEAD {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ") and b"\r\nContent-Length: " in head, answer
    return body


def by_http(proxy, body):
    status, answer = post(proxy, body)
    assert status == 200, answer
    return answer


def text_of(value):
    """Bytes of a reply as text, everywhere."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, dict):
        return {text_of(name): text_of(each) for name, each in value.items()}
    return [text_of(each) for each in value] if isinstance(value, list) else value


def by_resp(proxy, *words):
    with proxy.client(3) as client:
        return text_of(client.ok("CACHE", *words))


def warm(proxy, keys=KEYS, must_be_held=True):
    """The keys exist, have been read, and are in tier 1."""
    def read():
        for key in keys:
            client.ok("GET", key)
        return not must_be_held or held(proxy, keys) == list(keys)

    with proxy.client() as client:
        for key in keys:
            if client.ok("GET", key) is None:
                client.ok("SET", key, "v")
        # What the backend tells of a write may come after a first fetch, and drop it.
        wait_until(read, 10, "the keys to be in tier 1")


def held(proxy, keys=KEYS):
    """Which of the keys tier 1 would answer."""
    with proxy.client(3) as client:
        return [key for key in keys
                if any(view["live"] for view in text_of(client.ok("CACHE", "GET", key))["views"])]


def missed_again(proxy, keys):
    """Reads the keys; which of them were not answered from tier 1."""
    found = []
    with proxy.client() as client:
        for key in keys:
            before = proxy.metrics().get("hits_total")
            assert client.ok("GET", key) == b"v"
            if proxy.metrics().get("hits_total") == before:
                found.append(key)
    return found


@pytest.fixture(params=["server", "cluster"])
def any_proxy(request, start_proxy):
    """A proxy with a namespace, in front of a server and of a cluster."""
    name = "redis_server" if request.param == "server" else "cluster"
    return start_proxy(request.getfixturevalue(name).url(), config=CONFIG)


# --- the forms ------------------------------------------------------------------------------------

FORMS = [
    (["KEYS", "a:1", "session:2", "none"], {"keys": ["a:1", "session:2", "none"]},
     ["a:1", "session:2"], 2),
    (["PREFIX", "a:"], {"prefix": "a:"}, ["a:1", "a:2", "a:{x}"], None),
    (["GLOB", "*:[12]"], {"glob": "*:[12]"}, ["a:1", "a:2", "b:1", "session:1", "session:2"], None),
    (["NAMESPACE", "session"], {"namespace": "session"}, ["session:1", "session:2"], 2),
    (["EVERYTHING"], {"everything": True}, KEYS, len(KEYS)),
]


def test_each_form_drops_what_it_names(any_proxy):
    for words, body, gone, count in FORMS:
        for ask in (lambda: by_resp(any_proxy, "INVALIDATE", *words),
                    lambda: by_resp(any_proxy, "INVALIDATE", "L1", *words),
                    lambda: by_http(any_proxy, body),
                    lambda: by_http(any_proxy, {**body, "scope": "l1"})):
            warm(any_proxy)
            answer = ask()
            assert answer == {"entries": count, "proxies": 0,
                              "matched": "lazily" if count is None else "at-once"}, words
            assert held(any_proxy) == [key for key in KEYS if key not in gone], words
            assert missed_again(any_proxy, KEYS) == [key for key in KEYS if key in gone], words
            assert held(any_proxy) == KEYS
    metrics = any_proxy.metrics()
    wait_until(lambda: any_proxy.metrics().get("bans", state="pending") == 0, 20, "the sweep")
    metrics = any_proxy.metrics()
    assert metrics.get("invalidations_total", reason="pattern") == 4 * (3 + 5)
    assert metrics.get("invalidations_total", reason="admin") == 4 * (2 + 2 + len(KEYS))
    assert metrics.get("invalidation_orders_total", kind="namespace") == 8


def test_plain_keys_and_clear_answer_as_ever(any_proxy):
    warm(any_proxy)
    assert by_resp(any_proxy, "INVALIDATE", "a:1", "a:2", "none") == 2
    assert by_resp(any_proxy, "CLEAR", "session") == 2
    assert by_resp(any_proxy, "CLEAR") == len(KEYS) - 4
    assert by_resp(any_proxy, "CLEAR") == 0
    # One word alone is a key; with more behind it, it is named after KEYS.
    warm(any_proxy, ["PREFIX", "KEYS"])
    assert by_resp(any_proxy, "INVALIDATE", "PREFIX") == 1
    assert by_resp(any_proxy, "INVALIDATE", "KEYS", "KEYS")["entries"] == 1


def test_a_name_goes_in_every_database(start_proxy, redis_server):
    proxy = start_proxy(redis_server.url())
    with proxy.client() as client:
        for database in (0, 3):
            client.ok("SELECT", database)
            client.ok("SET", "a:1", "v")
            client.ok("GET", "a:1")
        before = proxy.metrics().get("hits_total")
        by_resp(proxy, "INVALIDATE", "PREFIX", "a:")
        client.ok("GET", "a:1")
        client.ok("SELECT", 0)
        client.ok("GET", "a:1")
    assert proxy.metrics().get("hits_total") == before


def test_clients_that_keep_values_are_told(start_proxy, redis_server):
    proxy = start_proxy(redis_server.url())
    warm(proxy, ["a:1"])
    with proxy.client(3) as keeper:
        keeper.ok("CLIENT", "TRACKING", "ON")
        for ask, told in (
                (lambda: by_resp(proxy, "INVALIDATE", "a:1"), [b"a:1"]),
                (lambda: by_http(proxy, {"keys": ["a:1"]}), [b"a:1"]),
                (lambda: by_resp(proxy, "INVALIDATE", "PREFIX", "a:"), None),
                (lambda: by_http(proxy, {"everything": True}), None)):
            assert keeper.ok("GET", "a:1") == b"v"
            ask()
            assert decode(keeper.read()) == [b"invalidate", told]


# --- many entries ---------------------------------------------------------------------------------

def load(server, proxy, count):
    """Keys m:0 and on at the server and in tier 1."""
    with server.client() as client:
        client.ok("EVAL", "for i = 0, ARGV[1] - 1 do redis.call('SET', 'm:' .. i, 'v') end", 0,
                  count)
    with proxy.client() as client:
        for start in range(0, count, 20000):
            batches = range(start, min(start + 20000, count), 500)
            client.send(b"".join(
                encode("MGET", *[f"m:{i}" for i in range(first, first + 500)])
                for first in batches))
            for _ in batches:
                client.read()


def test_a_million_entries_go_while_others_are_answered(start_proxy, start_redis):
    count = 50000 if is_sanitized() else 1000000
    server = start_redis()
    proxy = start_proxy(server.url(), {"maxmemory": "512mb"})
    with proxy.client() as client:
        client.ok("SET", "other", "v")

        def is_loaded():
            load(server, proxy, count)
            client.ok("GET", "other")
            return proxy.metrics().get("entries") > 0.95 * count

        # A machine that stands still may lose the link, and all that it vouched for.
        wait_until(is_loaded, 60, "the entries")
    answered, is_over = [], threading.Event()

    def read():
        with proxy.client() as client:
            while not is_over.is_set():
                assert client.ok("GET", "other") == b"v"
                assert client.ok("GET", f"m:{len(answered) % count}") == b"v"
                answered.append(None)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        wait_until(lambda: len(answered) > 100, 10, "the reader to read")
        assert by_resp(proxy, "INVALIDATE", "PREFIX", "m:")["matched"] == "lazily"
        before = len(answered)
        wait_until(lambda: proxy.metrics().get("bans", state="pending") == 0, 30, "the sweep")
        wait_until(lambda: len(answered) > before, 10, "the reader to go on")
    finally:
        is_over.set()
        reader.join()
    metrics = proxy.metrics()
    assert metrics.get("invalidations_total", reason="pattern") > 0.95 * count
    # What the reader fetched since is kept.
    assert 1 < metrics.get("entries") < 0.5 * count + 2
    assert 0 < metrics.get("ban_sweep_longest_lock_seconds")
    print("longest lock", metrics.get("ban_sweep_longest_lock_seconds"), "longest slice",
          metrics.get("ban_sweep_longest_slice_seconds"), "reads", len(answered) - before)


# --- bans -----------------------------------------------------------------------------------------

def test_a_ban_keeps_out_until_it_is_removed(any_proxy):
    for add, remove in (
            (lambda: by_resp(any_proxy, "BAN", "ADD", "PREFIX", "a:"),
             lambda ban: by_resp(any_proxy, "BAN", "REMOVE", ban)),
            (lambda: by_http(any_proxy, {"ban": {"glob": "a:*"}}),
             lambda ban: by_http(any_proxy, {"unban": ban})["removed"])):
        warm(any_proxy)
        answer = add()
        assert answer["proxies"] == 0 and len(answer["id"]) == 16
        assert held(any_proxy) == ["b:1", "session:1", "session:2", "other"]
        warm(any_proxy, must_be_held=False)
        assert held(any_proxy) == ["b:1", "session:1", "session:2", "other"]
        listed = by_resp(any_proxy, "BAN", "LIST")
        assert [ban["id"] for ban in listed] == [answer["id"]]
        # Three entries went, and what two rounds of reads had fetched was refused.
        assert listed[0]["matched"] == 9 and listed[0]["ttl-left-ms"] == -1
        _, bans = post(any_proxy, None, path="/v1/bans")
        assert [ban["id"] for ban in bans["bans"]] == [answer["id"]]
        assert remove(answer["id"]) in (1, True)
        assert remove(answer["id"]) in (0, False)
        assert by_resp(any_proxy, "BAN", "LIST") == []
        warm(any_proxy)
    assert any_proxy.metrics().get("fills_refused_total", reason="ban") == 12
    assert any_proxy.metrics().get("invalidations_total", reason="ban") == 6


def test_bans_by_namespace_size_and_age(any_proxy):
    warm(any_proxy)
    ban = by_resp(any_proxy, "BAN", "ADD", "NAMESPACE", "session", "LARGER", 1000)["id"]
    assert held(any_proxy) == KEYS
    with any_proxy.client() as client:
        for key in ("session:9", "other:9"):
            client.ok("SET", key, "v" * 2000)
            client.ok("GET", key)
    assert held(any_proxy, ["session:9", "other:9"]) == ["other:9"]
    by_resp(any_proxy, "BAN", "REMOVE", ban)
    # Whatever is there is ended by then, and so is what comes.
    by_resp(any_proxy, "BAN", "ADD", "PREFIX", "a:", "OLDER", 1000)
    wait_until(lambda: held(any_proxy) == ["b:1", "session:1", "session:2", "other"], 10,
               "the entries to be too old")


def test_a_ban_ends_with_its_time(any_proxy):
    by_http(any_proxy, {"ban": {"prefix": "a:", "ttl_ms": 1500}})
    warm(any_proxy, ["a:1", "b:1"], must_be_held=False)
    assert held(any_proxy, ["a:1", "b:1"]) == ["b:1"]
    assert 0 < by_resp(any_proxy, "BAN", "LIST")[0]["ttl-left-ms"] <= 1500
    wait_until(lambda: by_resp(any_proxy, "BAN", "LIST") == [], 10, "the ban to end")
    warm(any_proxy, ["a:1"])


def test_the_number_of_bans_is_limited(start_proxy, redis_server):
    proxy = start_proxy(redis_server.url(), {"max-bans": 3})
    for i in range(3):
        by_resp(proxy, "BAN", "ADD", "PREFIX", f"p{i}")
    with proxy.client() as client:
        reply = client.ask("CACHE", "BAN", "ADD", "PREFIX", "p3")
    assert reply == b"-ERR as many bans as max-bans allows stand already\r\n"
    status, answer = post(proxy, {"ban": {"prefix": "p3"}})
    assert status == 400 and answer["field"] == "ban"
    # More patterns than that, faster than the sweep: everything goes instead.
    warm(proxy)
    with proxy.client() as client:
        client.send(b"".join(encode("CACHE", "INVALIDATE", "PREFIX", f"n{i}") for i in range(500)))
        for _ in range(500):
            client.read()
    metrics = proxy.metrics()
    assert metrics.get("bans", state="standing") == 3
    if metrics.get("bans_overflowed_total") > 0:
        assert held(proxy) == []


# --- who may, and what is refused -----------------------------------------------------------------

def test_one_rule_for_both_sides(start_proxy, redis_server):
    proxy = start_proxy(redis_server.url(),
                        {"cache-command": "password", "cache-password": "open sesame"})
    warm(proxy)
    for words in (["INVALIDATE", "PREFIX", "a:"], ["BAN", "LIST"], ["JOB", "LIST"], ["CLEAR"]):
        with proxy.client() as client:
            assert client.ask("CACHE", *words).startswith(b"-NOAUTH ")
    for token in (None, "wrong", "open sesam", "open sesame!"):
        assert post(proxy, {"prefix": "a:"}, token)[0] == 401
        assert post(proxy, None, token, path="/v1/bans")[0] == 401
        assert post(proxy, None, token, path="/v1/jobs")[0] == 401
    assert held(proxy) == KEYS
    assert proxy.metrics().get("errors_total", kind="auth") == 16
    assert post(proxy, {"prefix": "a:"}, "open sesame")[0] == 200
    assert post(proxy, None, "open sesame", path="/v1/jobs") == (200, {"jobs": []})
    with proxy.client() as client:
        client.ok("CACHE", "AUTH", "open sesame")
        client.ok("CACHE", "INVALIDATE", "PREFIX", "b:")
    assert held(proxy) == ["session:1", "session:2", "other"]


def test_switched_off_is_off_for_both(start_proxy, redis_server):
    proxy = start_proxy(redis_server.url(), {"cache-command": "off"})
    status, answer = post(proxy, {"everything": True})
    assert status == 403 and "cache-command" in answer["error"]
    with proxy.client() as client:
        assert client.ask("CACHE", "BAN", "LIST").startswith(b"-ERR CACHE BAN is switched off")


def test_no_token_no_unlink_where_clients_log_in(start_proxy, redis_server):
    proxy = start_proxy(redis_server.url(), {"requirepass": "secret"})
    status, answer = post(proxy, {"everything": True, "scope": "all"})
    assert status == 403 and answer["field"] == "scope"
    assert post(proxy, {"everything": True})[0] == 200


def test_requests_that_are_refused(any_proxy):
    for body, field in (
            ({"prefx": "a:"}, "prefx"), ({}, None), ([], None), (b"{", None), (b"", None),
            ({"prefix": 1}, "prefix"), ({"prefix": "x" * 1025}, "prefix"), ({"keys": []}, "keys"),
            ({"keys": "a"}, "keys"), ({"keys": ["a", 1]}, "keys"), ({"keys": ["k"] * 10001}, "keys"),
            ({"namespace": "nowhere"}, "namespace"), ({"everything": False}, "everything"),
            ({"prefix": "a", "scope": "l2"}, "scope"), ({"prefix": "a", "db": -1}, "db"),
            ({"ban": {}}, "ban"), ({"ban": {"glob": "a", "prefix": "a"}}, "prefix"),
            ({"ban": {"prefix": "a", "ttl": 1}}, "ttl"), ({"ban": {"ttl_ms": 5}}, "ban"),
            ({"ban": {"older_ms": "1"}}, "older_ms"), ({"unban": "x"}, "unban"),
            ({"cancel": "1"}, "cancel"), ({"ban": {"prefix": "a"}, "scope": "all"}, "scope"),
            ({"cancel": 1, "db": 1}, "db"), (b'{"prefix":"a","prefix":"b"}', None)):
        status, answer = post(any_proxy, body)
        assert (status, answer["field"]) == (400, field), (body, answer)
        assert answer["error"]
    status, answer = post(any_proxy, {"prefix": "a", "keys": ["b"]})
    assert status == 400 and answer["error"] == "more than one thing to do"
    assert post(any_proxy, b'{"prefix":"a\xff"}')[0] == 400
    assert post(any_proxy, {"prefix": "a"}, content_type="text/plain")[0] == 415
    assert post(any_proxy, None, method="GET")[0] == 405
    for path in ("/v1/bans", "/v1/jobs", "/healthz"):
        assert body_of_head(any_proxy, path) == b""
    assert post(any_proxy, {"prefix": "a"}, method="PUT")[0] == 405
    assert post(any_proxy, {"bans": []}, path="/v1/bans")[0] == 405
    assert post(any_proxy, b" " * (256 * 1024 + 1))[0] == 413
    assert post(any_proxy, b" " * (256 * 1024 - 20) + b'{"prefix":"a"}')[0] == 200
    with any_proxy.client() as client:
        for words, error in (
                (["INVALIDATE", "PREFIX", "a", "b"],
                 b"-ERR wrong number of arguments for CACHE INVALIDATE PREFIX\r\n"),
                (["INVALIDATE", "NAMESPACE", "nowhere"], b"-ERR no such namespace\r\n"),
                (["INVALIDATE", "ALL", "KEYS"],
                 b"-ERR wrong number of arguments for CACHE INVALIDATE KEYS\r\n"),
                (["INVALIDATE", "ALL", "PREFX", "a"], b"-ERR syntax error\r\n"),
                (["INVALIDATE", "L1", "a"], b"-ERR syntax error\r\n"),
                (["BAN", "ADD", "PREFIX", "a", "GLOB", "b"], b"-ERR syntax error\r\n"),
                (["BAN", "ADD"], b"-ERR a ban needs PREFIX, GLOB, TAG, NAMESPACE, OLDER or LARGER\r\n"),
                (["BAN", "ADD", "PREFIX"], b"-ERR syntax error\r\n"),
                (["BAN", "ADD", "PREFIX", "a", "TTL", "x"],
                 b"-ERR value is not an integer or out of range\r\n"),
                (["JOB", "STOP"], b"-ERR syntax error\r\n")):
            assert client.ask("CACHE", *words) == error
        help_text = text_of(client.ok("CACHE", "HELP"))
    assert any(line.startswith("BAN ADD") for line in help_text)
    assert any(line.startswith("JOB LIST") for line in help_text)


# --- ALL ------------------------------------------------------------------------------------------

def job_of(proxy, number):
    return next(job for job in by_resp(proxy, "JOB", "LIST") if job["id"] == number)


def wait_for_job(proxy, number):
    wait_until(lambda: job_of(proxy, number)["state"] != "running", 20, "the job to end")
    return job_of(proxy, number)


def test_all_removes_keys_at_the_backend(any_proxy):
    masters = 3 if "cluster" in any_proxy.log() or ",redis://" in any_proxy.backend else None
    for words, body, gone, _ in FORMS:
        for ask in (lambda: by_resp(any_proxy, "INVALIDATE", "ALL", *words),
                    lambda: by_http(any_proxy, {**body, "scope": "all"})):
            warm(any_proxy)
            job = wait_for_job(any_proxy, ask()["job"])
            assert job["state"] == "done" and job["error"] == "", job
            assert job["removed"] == len(gone) and job["masters-done"] == job["masters"] >= 1
            if masters and job["masters"] != 1:
                assert job["masters"] == masters
            with any_proxy.client() as client:
                left = [key for key in KEYS if client.ok("GET", key) is not None]
            assert left == [key for key in KEYS if key not in gone], words
    assert any_proxy.metrics().get("invalidation_orders_total") == 2 * len(FORMS)
    status, jobs = post(any_proxy, None, path="/v1/jobs")
    assert status == 200 and len(jobs["jobs"]) == 2 * len(FORMS)
    assert any_proxy.metrics().get("unlink_jobs_total", result="done") == 2 * len(FORMS)


def test_special_characters_of_a_prefix_mean_themselves(any_proxy):
    warm(any_proxy, ["p*[a]\\?:1", "p*[a]\\?:2", "pxa:1", "p"])
    job = wait_for_job(any_proxy, by_resp(any_proxy, "INVALIDATE", "ALL", "PREFIX", "p*[a]\\?")["job"])
    assert job["removed"] == 2
    assert held(any_proxy, ["pxa:1", "p"]) == ["pxa:1", "p"]


def test_a_job_is_slow_tells_its_progress_and_can_be_cancelled(start_proxy, cluster):
    proxy = start_proxy(cluster.url(), {"unlink-rate": 100, "unlink-jobs": 1})
    with proxy.client() as client:
        client.send(b"".join(encode("SET", f"j:{i}", "v") for i in range(3000)))
        for _ in range(3000):
            client.read()
    number = by_resp(proxy, "INVALIDATE", "ALL", "PREFIX", "j:")["job"]
    wait_until(lambda: job_of(proxy, number)["removed"] > 0, 20, "the job to begin")
    job = job_of(proxy, number)
    assert job["state"] == "running" and job["masters"] == 3 and job["scanned"] >= job["removed"]
    assert proxy.metrics().get("unlink_jobs_running") == 1
    with proxy.client() as client:
        assert client.ask("CACHE", "INVALIDATE", "ALL", "EVERYTHING").startswith(b"-ERR as many")
    assert post(proxy, {"cancel": number}) == (200, {"cancelled": True})
    job = wait_for_job(proxy, number)
    assert job["state"] == "cancelled" and 0 < job["removed"] < 3000
    assert by_resp(proxy, "JOB", "CANCEL", number) == 0
    assert proxy.metrics().get("unlink_jobs_total", result="cancelled") == 1
    assert proxy.metrics().get("unlinked_keys_total") == job["removed"]


def test_a_job_works_in_the_clients_database(start_proxy, redis_server):
    proxy = start_proxy(redis_server.url())
    with proxy.client() as client:
        for database in (0, 2):
            client.ok("SELECT", database)
            client.ok("SET", "a:1", "v")
        job = dict(zip(*[iter(text_of(client.ok("CACHE", "INVALIDATE", "ALL", "PREFIX", "a:")))] * 2))
        assert wait_for_job(proxy, job["job"])["db"] == 2
        assert client.ok("EXISTS", "a:1") == 0
        client.ok("SELECT", 0)
        assert client.ok("EXISTS", "a:1") == 1
    job = by_http(proxy, {"keys": ["a:1"], "scope": "all", "db": 0})["job"]
    assert wait_for_job(proxy, job)["removed"] == 1


def test_a_job_tells_that_slots_moved_under_it(start_proxy, cluster):
    """From a master that was still to come to one that had been walked: its key is not found."""
    cluster.flush()
    proxy = start_proxy(cluster.url(), {"unlink-rate": 1, "topology-interval": "100ms"})
    masters = cluster.masters()
    keys = {cluster.owner(key_slot(key)): key for key in (f"m:{i}" for i in range(100))}
    with contextlib.closing(cluster.client()) as client:
        for key in keys.values():
            client.ok("SET", key, "v")
        number = by_resp(proxy, "INVALIDATE", "ALL", "PREFIX", "m:")["job"]
        wait_until(lambda: job_of(proxy, number)["masters-done"] >= 1, 20, "the first master")
        left = {node: key for node, key in keys.items() if client.ok("EXISTS", key) == 1}
        walked = next(node for node in masters if node not in left)
        source, key = next(iter(left.items()))
        try:
            cluster.move_slot(key_slot(key), walked)
            job = wait_for_job(proxy, number)
            assert client.ok("EXISTS", key) == 1 and job["removed"] == 2
            assert job["state"] == "failed" and "slots have moved" in job["error"], job
        finally:
            cluster.move_slot(key_slot(key), source)
            client.ok("DEL", key)
    number = by_http(proxy, {"everything": True, "scope": "all", "db": 3})["job"]
    job = wait_for_job(proxy, number)
    assert job["state"] == "failed" and "no database but 0" in job["error"]


def test_a_job_tells_errors(start_proxy, start_redis):
    server = start_redis()
    with server.client() as client:
        client.ok("ACL", "SETUSER", "proxy", "on", ">pw", "~*", "&*", "+@all", "-unlink")
    proxy = start_proxy(server.url(), {"backend-user": "proxy", "backend-password": "pw"})
    warm(proxy)
    job = wait_for_job(proxy, by_http(proxy, {"prefix": "a:", "scope": "all"})["job"])
    assert job["state"] == "failed" and job["errors"] == 3 and "NOPERM" in job["error"]
    assert proxy.metrics().get("unlink_jobs_total", result="failed") == 1


# --- fetches under way ----------------------------------------------------------------------------

@pytest.mark.parametrize("words", [["PREFIX", "a:"], ["GLOB", "?:1"], ["NAMESPACE", "default"],
                                   ["EVERYTHING"], ["KEYS", "a:1"]])
def test_a_fetch_under_way_is_not_kept(start_proxy, redis_server, start_relay, words):
    relay = start_relay(redis_server.address)
    proxy = start_proxy(f"redis://{relay.address[0]}:{relay.address[1]}",
                        {"threads": 1, "flight-timeout": "60s", "link-timeout": "60s",
                         "max-staleness": "60s", "request-timeout": "60s"})
    warm(proxy, ["b"])
    with redis_server.client() as direct:
        direct.ok("SET", "a:1", "v")
    with proxy.client() as waiting, proxy.client() as later:
        fetches = proxy.metrics().get("fetches_total")
        relay.hold()
        waiting.send(encode("GET", "a:1"))
        proxy.wait_metric("fetches_total", fetches + 1)
        by_resp(proxy, "INVALIDATE", *words)
        later.send(encode("GET", "a:1"))
        # A fetch of its own: that of before is not joined.
        proxy.wait_metric("fetches_total", fetches + 2)
        relay.flow()
        assert decode(waiting.read()) == b"v" and decode(later.read()) == b"v"
    assert proxy.metrics().get("fills_refused_total", reason="void") >= 1
    assert proxy.metrics().get("flights_voided_total") >= 1
