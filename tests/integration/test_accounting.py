"""Every kind of traffic, and what is counted of it: each request once by its outcome, each key of a
cacheable read once as hit, miss, bypassed or stale, whichever way it goes: pipelined behind others,
split, refused, muted, in transactions, of clients that leave midway. All views show the same."""

import json
import re
import signal
import socket
import struct
import subprocess
import threading
import urllib.request

import pytest

from harness.resp import encode
from harness.waiting import wait_until

from test_metrics import OPENMETRICS, samples_of, scrape_as
from test_outages import OPTIONS, wait_open
from test_top import TOP

pytestmark = pytest.mark.needs_proxy

CONFIG = {'namespace "hot"': {"match": "hot:*"},
          'namespace "cold"': {"match": "cold:*", "cache": "off"},
          'namespace "leased"': {"match": "leased:*", "miss-lease": "30s"},
          'namespace "kept"': {"match": "kept:*", "stale-if-error": "60s"}}
OUTCOMES = ("hit", "miss", "stale", "bypass", "relayed")


class Ledger:
    """What a step added to the counters, compared with what its clients know."""

    def __init__(self, proxy):
        self._proxy = proxy
        self._before = self._read()

    def _read(self):
        metrics = self._proxy.metrics()
        seen = {outcome: metrics.get("requests_total", outcome=outcome) for outcome in OUTCOMES}
        seen["hits"] = metrics.get("hits_total")
        seen["misses"] = metrics.get("misses_total")
        seen["bypassed"] = metrics.get("bypassed_total")
        seen["stale_served"] = metrics.get("stale_served_total")
        seen["errors"] = metrics.get("error_replies_total")
        return seen

    def _grown(self):
        now = self._read()
        return {name: int(now[name] - self._before[name]) for name in now
                if now[name] != self._before[name]}

    def expect(self, step, **wanted):
        """Counts may come a moment after the reply, never more of them."""
        try:
            wait_until(lambda: self._grown() == wanted, 3, step)
        except AssertionError:
            pass
        assert self._grown() == wanted, step
        self._before = self._read()


def pipeline(client, *commands):
    client.send(b"".join(encode(*command) for command in commands))
    return [client.read() for _ in commands]


def reset(client):
    """Who only ends what it sends is owed its replies; this one is gone."""
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def test_each_request_and_key_is_counted_once(start_proxy, redis_server):
    proxy = start_proxy(redis_server.url(), {"large-request": "64kb"}, config=CONFIG)
    with proxy.client() as client:
        pipeline(client, ("SET", "hot:a", "1"), ("SET", "hot:b", "x"))
        ledger = Ledger(proxy)
        pipeline(client, ("MGET", "hot:a", "hot:b"))
        ledger.expect("all missing", miss=1, misses=2)
        client.ok("MGET", "hot:a", "hot:b")
        ledger.expect("all held", hit=1, hits=2)
        pipeline(client, ("GET", "hot:1"), ("MGET", "hot:a", "hot:b"), ("GET", "hot:a"))
        ledger.expect("hits behind a miss", miss=1, misses=1, hit=2, hits=3)
        client.ok("MGET", "hot:a", "hot:2")
        ledger.expect("one of two", miss=1, hits=1, misses=1)
        client.ok("MGET", "cold:1", "cold:2")
        ledger.expect("a namespace that is not cached", bypass=1, bypassed=2)
        client.ok("MGET", "cold:1", "hot:a")
        ledger.expect("a held key and one of such", bypass=1, bypassed=1, hits=1)
        pipeline(client, ("SET", "cold:1", "v"), ("GET", "cold:1"), ("EXISTS", "cold:1"))
        ledger.expect("behind a write", relayed=1, bypass=2, bypassed=2)
        pipeline(client, ("SET", "hot:c", "v"), ("MGET", "hot:c", "cold:1"))
        ledger.expect("both", relayed=2, misses=1, bypassed=1)
        client.ok("EXISTS", "hot:b")
        client.ok("EXISTS", "hot:b")
        client.ok("EXISTS", "hot:b", "cold:1")
        ledger.expect("EXISTS", miss=1, misses=1, hit=1, hits=2, bypass=1, bypassed=1)
        # Nothing of these is an error that a client got.
        pipeline_of_muted = [("CLIENT", "REPLY", "OFF"), ("GET", "hot:a"), ("INCR", "hot:b"),
                             ("NOSUCH",), ("CLIENT", "REPLY", "ON")]
        client.send(b"".join(encode(*command) for command in pipeline_of_muted))
        assert client.read() == b"+OK\r\n"
        ledger.expect("muted", hit=1, hits=1, relayed=2)
        pipeline(client, ("INCR", "hot:b"), ("NOSUCH",), ("LPUSH", "hot:b", "x"))
        ledger.expect("errors", relayed=3, errors=3)
        client.ok("SET", "hot:large", "x" * 200_000)
        ledger.expect("passed on as it arrives", relayed=1)
        assert proxy.metrics().get("requests_total", namespace="hot", family="write") == 7
        client.ok("BLPOP", "nosuch", "0.01")
        ledger.expect("a blocked client", relayed=1)
        pipeline(client, ("MULTI",), ("GET", "hot:a"), ("GET", "cold:1"), ("EXEC",))
        ledger.expect("a transaction", relayed=3)
        client.ok("CACHE", "MODE", "bypass", "hot")
        pipeline(client, ("GET", "hot:a"), ("MGET", "hot:a", "hot:b"))
        ledger.expect("CACHE MODE bypass", bypass=2, bypassed=3)
        client.ok("CACHE", "MODE", "on", "hot")
        add_a_namespace(proxy, client, ledger)


def add_a_namespace(proxy, client, ledger):
    """Its figures begin at nothing, are its own, and stay when it goes, and when it comes back."""
    client.ok("GET", "more:1")
    ledger.expect("before it", miss=1, misses=1)
    for n, config in ((1, {**CONFIG, 'namespace "more"': {"match": "more:*"}}), (1, CONFIG),
                      (2, {**CONFIG, 'namespace "more"': {"match": "more:*"}})):
        former = proxy.metrics().get("config_reloads_total")
        proxy.write_config(config)
        proxy.signal(signal.SIGHUP)
        proxy.wait_metric("config_reloads_total", former + 1)
        client.ok("GET", f"more:of {n} {len(config)}")
        # A miss, or relayed: fetches rest until all workers have the configuration.
        wait_until(lambda: proxy.metrics().get("requests_total", namespace="more") == n, 5, "it")
        assert proxy.metrics().get("misses_total", namespace="more") == n


def test_clients_that_leave_midway_are_counted(start_redis, start_proxy):
    server = start_redis()
    # Nothing is given up while the server stands still, however long that takes here.
    proxy = start_proxy(server.url(), {"request-timeout": "60s", "flight-timeout": "30s",
                                       "link-timeout": "60s", "breaker": "off"}, config=CONFIG)
    ledger = Ledger(proxy)

    def open_clients():
        return proxy.metrics().get("clients")

    server.pause()
    try:
        clients = [proxy.client() for _ in range(2)]
        for client in clients:
            client.send(encode("GET", "hot:1") + encode("MGET", "hot:2", "hot:3") +
                        encode("MGET", "cold:1", "cold:2") + encode("SET", "cold:4", "v"))
        proxy.wait_metric("commands_total", 8)
        for client in clients:
            reset(client)
        wait_until(lambda: open_clients() == 0, 10, "both to be gone")
    finally:
        server.resume()
    ledger.expect("who waits for the backend", miss=4, misses=6, bypass=2, bypassed=4, relayed=2)
    # Three fetches: the second client joined them.
    assert proxy.metrics().get("fetches_total") == proxy.metrics().get("coalesced_total") == 3
    with proxy.client() as first:
        assert first.value("GET", "leased:1") is None
        with proxy.client() as second:
            second.send(encode("GET", "leased:1"))
            proxy.wait_metric("miss_lease_waits_total", 1)
            reset(second)
        wait_until(lambda: open_clients() == 1, 10, "the second to be gone")
    ledger.expect("who waits for a lease", miss=2, misses=2)


def test_what_is_shown_of_a_node_that_is_gone(start_redis, start_proxy):
    server = start_redis()
    proxy = start_proxy(server.url(), OPTIONS, config=CONFIG)
    with proxy.client() as client:
        pipeline(client, ("SET", "kept:a", "v"), ("SET", "kept:b", "v"))
        client.ok("MGET", "kept:a", "kept:b")
        server.kill()
        wait_until(lambda: client.value("GET", "hot:1") is not None, 5, "an error")
        wait_open(proxy)
        # What was served is no longer so by its own: the link's loss ended the entries' epoch.
        wait_until(lambda: proxy.metrics().get("links", state="up") == 0, 10, "the links to go")
        ledger = Ledger(proxy)
        client.ok("GET", "kept:a")
        client.ok("MGET", "kept:a", "kept:b")
        ledger.expect("stale-if-error", stale=2, stale_served=3)


# ---- all views ----

# What goes on without clients, or because somebody reads.
MOVING = re.compile(r"process_|nearcached_(bus|backend_(commands|read|written|conn)|flushes|fences|"
                    r"client_(read|written|conn)|worker_|commands_total|topology|invalidation_mess|"
                    r"audits|ledger|dependency)")


def load(proxy, seed):
    with proxy.client() as client:
        for i in range(200):
            key = f"hot:{(seed * 7 + i * i) % 23}"
            pipeline(client, ("GET", key), ("SET", key, "v"), ("MGET", key, "cold:1", "hot:none"),
                     ("EXISTS", "hot:0", key), ("INCR", key), ("GET", "leased:x"))
            if i == 0:
                client.ok("SET", "leased:x", "v")


def of_stats(samples):
    """The names of CACHE STATS for what /metrics has."""
    sums = {}
    for sample, value in samples.items():
        match = re.fullmatch(r"nearcached_(\w+)_total(?:\{(.*)\})?", sample)
        if match is None:
            continue
        labels = re.findall(r'(\w+)="([^"]*)"', match[2] or "")
        words = [value.replace("-", "_") for name, value in labels if name != "namespace"]
        for name in {match[1], "_".join([match[1], *words])}:
            sums[name] = sums.get(name, 0) + value
    return sums


def test_all_views_agree(start_proxy, redis_server):
    proxy = start_proxy(redis_server.url(), config=CONFIG)
    threads = [threading.Thread(target=load, args=(proxy, seed)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_until(lambda: proxy.metrics().get("clients") == 0, 10, "all clients to go")
    with proxy.client() as client:
        flat = client.ok("CACHE", "STATS")
    stats = {name.decode(): value for name, value in zip(flat[::2], flat[1::2])}
    host, port = proxy.admin_address
    metrics = proxy.metrics()
    ours = {sample: value for sample, value in samples_of(metrics.text).items()
            if "_total" in sample and not MOVING.match(sample)}
    assert len(ours) > 250
    _, text = scrape_as(proxy, OPENMETRICS)
    theirs = samples_of(text)
    assert {sample: theirs.get(sample) for sample in ours} == ours
    with urllib.request.urlopen(f"http://{host}:{port}/v1/metrics", timeout=30) as reply:
        families = json.load(reply)["metrics"]
    theirs = {}
    for family in families:
        for sample in family["samples"]:
            labels = ",".join(f'{name}="{value}"' for name, value in sample["labels"].items())
            theirs[family["name"] + (f"{{{labels}}}" if labels else "")] = sample.get("value")
    assert {sample: theirs.get(sample) for sample in ours} == ours
    wanted = {name: value for name, value in of_stats(ours).items() if name in stats}
    assert len(wanted) > 150
    assert {name: stats[name] for name in wanted} == wanted
    shown = json.loads(subprocess.run([str(TOP), "--once", "--json", f"{host}:{port}"], timeout=30,
                                      capture_output=True, text=True, check=True).stdout)
    rows = {row["name"]: row for row in shown["namespaces"]}
    for requests, labels in [(shown["status"]["requests"], {})] + [
            (rows[name]["requests"], {"namespace": name}) for name in rows]:
        for name in ("hits", "misses", "negative_hits", "stale_served", "bypassed"):
            assert requests[name] == metrics.get(f"{name}_total", **labels), (name, labels)
        for outcome in OUTCOMES:
            assert requests["by_outcome"][outcome] == metrics.get(
                "requests_total", outcome=outcome, **labels), (outcome, labels)
    # At rest each key is one thing: 3 clients with 200 rounds of 2 GETs, an MGET and an EXISTS.
    n_rounds = 3 * 200
    assert sum(metrics.get(f"{name}_total") for name in (
        "hits", "misses", "bypassed", "stale_served")) == n_rounds * (1 + 3 + 2 + 1)
    assert sum(metrics.get("requests_total", outcome=outcome)
               for outcome in OUTCOMES) == n_rounds * 6 + 3
    assert metrics.get("request_duration_seconds_count", outcome="hit") == metrics.get("hits_total")
    # A fill, or a reason why not, of each fetch; what is missing and has a lease is neither.
    assert 0 <= metrics.get("fetches_total") - metrics.get("fills_total") - metrics.get(
        "fills_refused_total") <= 3
