"""Invalidations that name, or find, a great many keys.

Proves: they are done in slices, between which other clients of the same worker are answered; their
answers come in their places, say the same as those of few keys, and what a client sends behind them
waits; clients that leave meanwhile and a proxy that stops lose nothing; scope ALL removes every key
at the backend and leaves none in memory.
"""

import select

import pytest

from harness.resp import encode
from harness.waiting import wait_until
from test_invalidation import job_of
from test_tags import cache, held, text_of, warm

pytestmark = pytest.mark.needs_proxy

MANY = 300000
DEAF = {"coherence": "ttl", "ttl-mode-max": "1h"}


def names(n):
    return [f"many:{i:07d}" for i in range(n)]


def wait_done(proxy, number):
    wait_until(lambda: job_of(proxy, number)["state"] != "running", 30, "the job")
    return job_of(proxy, number)


@pytest.mark.parametrize("form", [["INVALIDATE"], ["INVALIDATE", "KEYS"],
                                  ["INVALIDATE", "L1", "KEYS"], ["INVALIDATE", "ALL", "KEYS"]])
def test_other_clients_are_answered_meanwhile(start_proxy, redis_server, form):
    proxy = start_proxy(redis_server.url(), threads=1)
    first, last = "many:0000001", "many:0299999"
    warm(proxy, [first, last, "many:x"])
    seen = []
    with proxy.client(3, timeout=60) as one, proxy.client(3) as other:
        one.send(encode("CACHE", *form, *names(MANY)) + encode("PING"))
        while not select.select([one.socket], [], [], 0)[0]:
            seen.append(tuple(b"live" in answer for answer in other.pipeline(
                [("CACHE", "GET", first), ("CACHE", "GET", last)])))
        # In the middle of it somebody else was answered.
        assert (False, True) in seen
        answer = one.read()
        if len(form) == 1:
            assert answer == b":2\r\n"
        else:
            assert b"entries\r\n:2\r\n" in answer
        assert one.read() == b"+PONG\r\n"
    assert held(proxy, [first, last, "many:x"]) == ["many:x"]


def test_what_follows_waits(start_proxy, redis_server):
    """The read behind it brings the key back into memory, and it stays."""
    proxy = start_proxy(redis_server.url(), DEAF, threads=1)
    warm(proxy, ["many:0000999"])
    with redis_server.client() as writer:
        writer.ok("SET", "many:0000999", "new")
    with proxy.client() as client:
        answers = client.pipeline([("CACHE", "INVALIDATE", *names(1000)), ("GET", "many:0000999")])
    assert answers == [b":1\r\n", b"$3\r\nnew\r\n"]


def test_clients_that_leave_and_a_proxy_that_stops(start_proxy, redis_server):
    proxy = start_proxy(redis_server.url(), threads=1)
    warm(proxy, ["many:0050000"])
    for scope in ("L1", "ALL"):
        client = proxy.client()
        client.send(encode("CACHE", "INVALIDATE", scope, "KEYS", *names(100000)))
        client.close()
    wait_until(lambda: held(proxy, ["many:0050000"]) == [], 20, "the keys to be dropped")
    client = proxy.client()
    client.send(encode("CACHE", "INVALIDATE", "ALL", "KEYS", *names(MANY)) * 3)
    proxy.stop()
    client.close()
    proxy.assert_log_clean()


@pytest.mark.parametrize("backend", ["redis_server", "cluster"])
def test_all_removes_and_drops_every_key(start_proxy, request, backend):
    server = request.getfixturevalue(backend)
    proxy = start_proxy(server.url(), {**DEAF, "unlink-rate": 100000})
    some = names(3000)
    with proxy.client() as client:
        client.pipeline([("SET", name, "v") for name in some])
        client.pipeline([("GET", name) for name in some])
    answer = cache(proxy, "INVALIDATE", "ALL", "KEYS", *some)
    job = wait_done(proxy, answer["job"])
    assert (job["state"], job["removed"]) == ("done", 3000), job
    with proxy.client() as client:
        assert set(client.pipeline([("GET", name) for name in some])) == {b"$-1\r\n"}


@pytest.mark.parametrize("backend", ["redis_server", "cluster"])
def test_a_tag_of_very_many_keys(start_proxy, request, backend):
    server = request.getfixturevalue(backend)
    proxy = start_proxy(server.url(), {**DEAF, "unlink-rate": 1000000}, threads=1)
    some = names(20000)
    with proxy.client() as client:
        client.pipeline([("SET", name, "v") for name in some])
        client.pipeline([("CACHE", "TAG", name, "big") for name in some])
    with proxy.client(3, timeout=60) as client:
        answer = text_of(client.ok("CACHE", "INVALIDATE", "ALL", "TAG", "big"))
    assert answer["members"] == 20000
    job = wait_done(proxy, answer["job"])
    assert (job["state"], job["removed"]) == ("done", 20000), job
