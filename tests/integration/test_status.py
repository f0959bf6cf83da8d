"""The JSON under /v1/ says what /metrics says, and orders by way of it do what CACHE does."""

import base64
import gzip
import hashlib
import http.client
import json
import urllib.error
import urllib.request

import pytest

from harness.metrics import http_get
from harness.resp import RespError
from harness.waiting import wait_until

CONFIG = {
    "cache": {"max-ttl": "1h"},
    'namespace "session"': {"match": "session:*", "max-ttl": "30s"},
    'namespace "plain"': {"match": "plain:*", "cache": "off"},
}


@pytest.fixture
def proxy(start_proxy, redis_server):
    return start_proxy(redis_server.url(), config=CONFIG)


def get(proxy, path):
    status, text = http_get(proxy.admin_address, path)
    assert status == 200, f"{path}: {status} {text[:200]}"
    return json.loads(text)


def post(proxy, path, body, **headers):
    """(status, answer)"""
    connection = http.client.HTTPConnection(*proxy.admin_address, timeout=20)
    try:
        connection.request("POST", path, json.dumps(body),
                           {"Content-Type": "application/json", **headers})
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def load(proxy):
    with proxy.client() as client:
        for i in range(20):
            client.ask("SET", f"session:{i}", "x" * i)
            client.ask("GET", f"session:{i}")
            client.ask("GET", f"session:{i}")
        for i in range(10):
            client.ask("GET", f"missing:{i}")
            client.ask("GET", f"missing:{i}")
            client.ask("GET", f"plain:{i}")
        client.ask("SET", "session:1", "y")


def key_of(name, labels, suffix="", **more):
    return name + suffix, frozenset({**labels, **more}.items())


def as_samples(metrics):
    """/v1/metrics as harness.metrics.Metrics has /metrics."""
    found = {}
    for metric in metrics["metrics"]:
        for sample in metric["samples"]:
            name, labels = metric["name"], sample["labels"]
            if metric["type"] != "histogram":
                found[key_of(name, labels)] = sample["value"]
                continue
            bounds = [f"{bound:g}" for bound in metric["bounds"]] + ["+Inf"]
            assert len(bounds) == len(sample["buckets"])
            for bound, count in zip(bounds, sample["buckets"]):
                found[key_of(name, labels, "_bucket", le=bound)] = count
            found[key_of(name, labels, "_sum")] = sample["sum"]
            found[key_of(name, labels, "_count")] = sample["count"]
    return found


def moves_by_itself(name):
    """What changes without requests: the clock, memory, PINGs, the scrape's own work."""
    return any(word in name for word in (
        "uptime", "watermark", "resident", "allocated", "stalled", "held", "backend_", "bus_",
        "fences", "process", "cpu", "lag", "scrape", "budget", "jemalloc"))


def test_metrics_as_json_are_those_of_metrics(proxy):
    load(proxy)
    differing = []

    def is_same():
        text, found = proxy.metrics().samples, as_samples(get(proxy, "/v1/metrics"))
        assert set(found) == set(text)
        compared = {key for key in text if not moves_by_itself(key[0])}
        assert len(compared) > 200
        differing[:] = [(key, found[key], text[key]) for key in compared if found[key] != text[key]]
        return not differing

    # The last invalidations may still be on their way.
    wait_until(is_same, 10, f"the same figures, not {differing}")


def test_metrics_by_name(proxy):
    chosen = get(proxy, "/v1/metrics?names=hits_total,nearcached_clients,nothing")
    assert [metric["name"] for metric in chosen["metrics"]] == [
        "nearcached_hits_total", "nearcached_clients"]


def test_status_sums_what_metrics_says(proxy):
    load(proxy)
    metrics, status = proxy.metrics(), get(proxy, "/v1/status")
    requests = status["requests"]
    assert requests["hits"] == metrics.get("hits_total") == 30
    assert requests["misses"] == metrics.get("misses_total") == 30
    assert requests["hit_ratio"] == 0.5
    assert requests["negative_hits"] == metrics.get("negative_hits_total") == 10
    assert requests["bypassed"] == metrics.get("bypassed_total") == 10
    assert requests["by_outcome"]["bypass"] == metrics.get("requests_total", outcome="bypass")
    assert requests["by_family"]["write"] == metrics.get("requests_total", family="write") == 21
    assert requests["commands"] == metrics.get("commands_total")
    assert requests["misses_by_reason"]["cold"] == metrics.get("misses_total", reason="cold")
    by_reason = status["invalidations"]["by_reason"]
    assert by_reason["write"] == metrics.get("invalidations_total", reason="write")
    # The reply of a write, or the message about it: whichever comes first.
    assert by_reason["write"] + by_reason["tracking"] >= 1
    assert status["memory"]["entries"] == metrics.get("entries")
    assert status["latency"]["miss"]["count"] == metrics.get("request_duration_seconds_count",
                                                             outcome="miss")
    assert status["ready"] and status["mode"] == "on" and status["workers"] == 2
    assert status["coherence"]["mode"] == "tracking"


def test_namespaces_have_their_own_figures_and_policy(proxy):
    load(proxy)
    metrics = proxy.metrics()
    rows = {row["name"]: row for row in get(proxy, "/v1/namespaces")["namespaces"]}
    assert set(rows) == {"default", "session", "plain"}
    for name, row in rows.items():
        assert row["requests"]["hits"] == metrics.get("hits_total", namespace=name)
        assert row["requests"]["misses"] == metrics.get("misses_total", namespace=name)
        assert row["entries"] == metrics.get("entries", namespace=name)
        assert row["bytes"] == metrics.get("entry_bytes", namespace=name)
        assert row["trend"]["direction"] == "unknown"
        latency = row["latency"]["relayed"]
        assert (latency["count"] if latency else 0) == metrics.get(
            "request_duration_seconds_count", namespace=name, outcome="relayed")
    assert rows["session"]["policy"]["max-ttl"] == "30s"
    assert rows["default"]["policy"]["max-ttl"] == "1h"
    assert rows["session"]["match"] == "session:*" and rows["default"]["match"] is None
    assert not rows["plain"]["cached"] and rows["plain"]["requests"]["bypassed"] == 10


def test_nodes_show_links_of_all_workers(start_proxy, start_redis):
    backend = start_redis()
    proxy = start_proxy(backend.url(), config=CONFIG)
    load(proxy)
    node, = get(proxy, "/v1/nodes")["nodes"]
    assert node["address"] == f"127.0.0.1:{backend.port}"
    assert node["role"] == "master" and node["breaker"]["state"] == "closed"
    assert node["links"]["tracking"]["up"] == 2
    assert node["coherence"]["mode"] == "tracking"
    backend.kill()
    wait_until(lambda: get(proxy, "/v1/nodes")["nodes"][0]["breaker"]["state"] != "closed", 15,
               "the breaker to open")
    wait_until(lambda: not get(proxy, "/v1/status")["ready"], 15, "readiness to say no")
    assert "unreachable" in get(proxy, "/v1/status")["ready_text"]


def sums_of(history):
    """{name: what came in all} of the counters."""
    n, sums = len(history["at_unix_ms"]), {}
    for series in history["series"]:
        values = series["count"] if series["type"] == "histogram" else series["values"]
        assert len(values) == n
        sums[series["name"]] = sums.get(series["name"], 0) + sum(values)
    return sums


def test_history_adds_up(proxy):
    """The first sample is that of the start; those behind it have what was done since."""
    load(proxy)
    wait_until(lambda: sums_of(get(proxy, "/v1/history"))["nearcached_hits_total"] == 30, 20,
               "the sample behind the last request")
    history = get(proxy, "/v1/history")
    assert sums_of(history)["nearcached_misses_total"] == 30
    assert sums_of(history)["nearcached_commands_total"] == proxy.metrics().get("commands_total")
    assert history["step_ms"] == 5000
    later = get(proxy, f"/v1/history?since={history['at_unix_ms'][-1]}")
    assert all(at > history["at_unix_ms"][-1] for at in later["at_unix_ms"])


def test_mode_is_set_and_answered_when_it_holds(proxy):
    with proxy.client() as client:
        assert post(proxy, "/v1/mode", {"mode": "readonly", "namespace": "session"}) == (
            200, {"mode": "readonly"})
        assert isinstance(client.value("SET", "session:1", "x"), RespError)
        client.ok("SET", "other", "x")
        rows = {row["name"]: row["mode"] for row in get(proxy, "/v1/namespaces")["namespaces"]}
        assert rows == {"default": "on", "session": "readonly", "plain": "on"}
        # One after the other, each in force before the next.
        status, answer = post(proxy, "/v1/mode", [{"mode": "off"}, {"mode": "on"}])
        assert status == 200 and answer["failed"] == 0
        assert client.value("GET", "other") == b"x"


@pytest.mark.parametrize("body, field", [
    ({}, "mode"), ({"mode": "fast"}, "mode"), ({"mode": 1}, "mode"),
    ({"mode": "off", "namespace": "nobody"}, "namespace"),
    ({"mode": "off", "namespace": 1}, "namespace"), ({"mode": "off", "ns": "x"}, "ns")])
def test_modes_that_make_no_sense_change_nothing(proxy, body, field):
    status, answer = post(proxy, "/v1/mode", body)
    assert status == 400 and answer["field"] == field
    assert get(proxy, "/v1/status")["mode"] == "on"


def test_orders_of_other_sites_pages_are_refused(proxy):
    own = "http://{}:{}".format(*proxy.admin_address)
    for origin, expected in ((own, 200), ("http://evil.example", 403), ("null", 403),
                             (own + "0", 403)):
        status, _ = post(proxy, "/v1/invalidate", {"everything": True}, Origin=origin)
        assert status == expected, origin
        assert post(proxy, "/v1/mode", {"mode": "on"}, Origin=origin)[0] == expected


def test_the_token_guards_orders_and_the_configuration(start_proxy, redis_server):
    proxy = start_proxy(redis_server.url(), {"cache-command": "password",
                                             "cache-password": "geheim"})
    bearer = {"Authorization": "Bearer geheim"}
    for headers, expected in (({}, 401), ({"Authorization": "Bearer falsch"}, 401), (bearer, 200)):
        assert post(proxy, "/v1/mode", {"mode": "on"}, **headers)[0] == expected
        request = urllib.request.Request(
            "http://{}:{}/v1/config".format(*proxy.admin_address), headers=headers)
        if expected == 200:
            with urllib.request.urlopen(request, timeout=20) as response:
                options = json.load(response)["options"]
            assert "geheim" not in json.dumps(options)
            assert options["cache-password"] == "(hidden)"
        else:
            with pytest.raises(urllib.error.HTTPError) as error:
                urllib.request.urlopen(request, timeout=20)
            assert error.value.code == 401
            error.value.close()
    # Reading figures needs none.
    assert get(proxy, "/v1/status")["actions"] == {"rule": "password"}
    get(proxy, "/v1/namespaces")


def test_modes_where_clients_log_in_need_the_token(start_proxy, redis_server):
    proxy = start_proxy(redis_server.url(), {"requirepass": "client"})
    status, answer = post(proxy, "/v1/mode", {"mode": "off"})
    assert status == 403 and "cache-command = password" in answer["error"]
    assert get(proxy, "/v1/status")["mode"] == "on"


def get_page(proxy, method="GET", **headers):
    connection = http.client.HTTPConnection(*proxy.admin_address, timeout=20)
    try:
        connection.request(method, "/", headers=headers)
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


def hash_of(page, tag):
    text = page.split(f"<{tag}>".encode(), 1)[1].split(f"</{tag}>".encode(), 1)[0]
    return "'sha256-" + base64.b64encode(hashlib.sha256(text).digest()).decode() + "'"


def test_the_page_may_run_its_own_script_and_nothing_else(proxy):
    response, page = get_page(proxy)
    assert response.status == 200 and len(page) == int(response.headers["Content-Length"])
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    policy = dict(part.strip().split(" ", 1)
                  for part in response.headers["Content-Security-Policy"].split(";"))
    assert policy == {"default-src": "'none'", "script-src": hash_of(page, "script"),
                      "style-src": hash_of(page, "style"), "img-src": "data:",
                      "connect-src": "'self'", "base-uri": "'none'", "form-action": "'none'",
                      "frame-ancestors": "'none'"}
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Referrer-Policy"] == "no-referrer"
    assert response.headers["X-Frame-Options"] == "DENY"
    for forbidden in (b" style=", b" onclick=", b"http://", b"https://", b"innerHTML", b"eval("):
        # The namespaces of SVG are names, not addresses.
        assert forbidden not in page.replace(b"http://www.w3.org/2000/svg", b""), forbidden


def test_the_page_is_sent_compressed_and_once(proxy):
    plain, page = get_page(proxy)
    packed, body = get_page(proxy, **{"Accept-Encoding": "br, gzip"})
    assert packed.headers["Content-Encoding"] == "gzip" and gzip.decompress(body) == page
    assert len(body) < len(page) / 2
    assert plain.headers["ETag"] != packed.headers["ETag"]
    for encoding, tag in (("identity", plain.headers["ETag"]), ("gzip", packed.headers["ETag"])):
        again, nothing = get_page(proxy, **{"Accept-Encoding": encoding, "If-None-Match": tag})
        assert (again.status, nothing) == (304, b"")
        assert again.headers["ETag"] == tag and again.headers["Content-Security-Policy"]
    other, again = get_page(proxy, **{"If-None-Match": '"0"', "Accept-Encoding": "gzip;q=0"})
    assert other.status == 200 and again == page
    head, nothing = get_page(proxy, method="HEAD")
    assert head.status == 200 and nothing == b""
    assert int(head.headers["Content-Length"]) == len(page)


def test_hot_keys_are_those_of_cache_hotkeys(start_proxy, redis_server):
    proxy = start_proxy(redis_server.url(), {"hot-keys-sample": 1, "cache-command": "password",
                                             "cache-password": "geheim"})
    with proxy.client() as client:
        for i in range(5):
            client.ok("SET", f"hot:{i}", "x" * 100 * (i + 1))
            for _ in range(10 * (i + 1)):
                client.value("GET", f"hot:{i}")
        assert http_get(proxy.admin_address, "/v1/hotkeys")[0] == 401
        request = urllib.request.Request(
            "http://{}:{}/v1/hotkeys".format(*proxy.admin_address),
            headers={"Authorization": "Bearer geheim"})
        with urllib.request.urlopen(request, timeout=20) as response:
            answer = json.load(response)
        client.ok("CACHE", "AUTH", "geheim")
        for kind in ("requests", "bytes", "misses", "invalidations"):
            shown = client.value("CACHE", "HOTKEYS", kind)
            assert [[one["key"].encode(), one["count"], one["error"]]
                    for one in answer["hotkeys"][kind]][:10] == shown
        assert answer["hotkeys"]["requests"][0]["key"] == "hot:4"
        assert answer["bigkeys"][0]["key"] == "hot:4" and answer["sample"] == 1
    assert get(proxy, "/v1/status")["hotkeys"] == {"on": True}
