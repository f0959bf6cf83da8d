#!/usr/bin/env python3
"""How long it takes until what is derived is gone, when its source is written around the proxies.

2 and 4 proxies in front of a cluster of three masters, on one machine. A client of the cluster
writes the source; then every proxy is asked, in turn, whether it still holds either of two derived
keys (one derived from the other), until none does; with scope ALL the backend is asked as well
whether the derived key exists. Prints a logfmt line per case: p50, p99 and the longest wait in
milliseconds, from the moment before the write is sent. The asking itself is part of it: about a
tenth of a millisecond per proxy.

    NEARCACHED_BIN=build/nearcached /usr/bin/python3 tests/bench/cascade_delay.py [rounds]
"""

import pathlib
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "integration"))

from harness.proxy import Proxy  # noqa: E402
from harness.servers import RedisCluster  # noqa: E402
from harness.waiting import wait_until  # noqa: E402

OPTIONS = {"bus-group": "cascade"}
RULES = {"dependency all": {"source": "user:{1}", "derived": "profile:{1}", "scope": "ALL"}}


def is_held(client, key):
    return any(view[b"live"] for view in client.ok("CACHE", "GET", key)[b"views"])


def warm(clients, keys):
    for client in clients:
        while not all(is_held(client, key) for key in keys):
            for key in keys:
                client.ok("GET", key)


def one_wait(around, clients, source, keys, at_backend):
    begun = time.monotonic()
    around.ok("SET", source, str(begun))
    for client in clients:
        while any(is_held(client, key) for key in keys):
            pass
    while at_backend and any(around.ok("EXISTS", key) for key in keys):
        pass
    return (time.monotonic() - begun) * 1000


def measure(name, n, rounds, wait, restore):
    waits = []
    for _ in range(rounds):
        restore()
        waits.append(wait())
    waits.sort()
    print(f"case={name} proxies={n} rounds={rounds} p50_ms={waits[rounds // 2]:.2f} "
          f"p99_ms={waits[int(rounds * 0.99)]:.2f} longest_ms={waits[-1]:.2f}", flush=True)


def run(cluster, directory, n, rounds):
    proxies = [Proxy(directory, cluster.url(), OPTIONS, config=RULES) for _ in range(n)]
    clients, around = [], cluster.client()
    try:
        for proxy in proxies:
            proxy.start()
        clients = [proxy.client(3) for proxy in proxies]
        for key in ("src", "page", "part", "user:1"):
            around.ok("SET", key, "v")
        clients[0].ok("CACHE", "DEPEND", "page", "src")
        clients[0].ok("CACHE", "DEPEND", "part", "page")
        for proxy in proxies:
            proxy.wait_metric("coherence_nodes", 3, mode="broadcast")
            proxy.wait_metric("dependency_sources", 2, state="watched")
            wait_until(lambda: proxy.metrics().get("dependency_sources", state="unheard") == 0, 10,
                       "sources to be heard of")

        measure("relations", n, rounds,
                lambda: one_wait(around, clients, "src", ("page", "part"), False),
                lambda: warm(clients, ("page", "part")))

        def make():
            around.ok("SET", "profile:1", "v")
            time.sleep(0.005)   # what the others still remove of the round before
            around.ok("SET", "profile:1", "v")
            warm(clients, ("profile:1",))

        measure("rule-all", n, rounds,
                lambda: one_wait(around, clients, "user:1", ("profile:1",), True), make)
    finally:
        for client in (*clients, around):
            client.close()
        for proxy in proxies:
            proxy.stop()


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    with tempfile.TemporaryDirectory() as name:
        directory = pathlib.Path(name)
        cluster = RedisCluster(directory, 3)
        try:
            cluster.start()
            for n in (2, 4):
                cluster.flush()
                run(cluster, directory, n, rounds)
        finally:
            cluster.stop()


if __name__ == "__main__":
    main()
