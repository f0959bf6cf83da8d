#!/usr/bin/env python3
"""What reading the metrics takes: a proxy with fifty namespaces, idle and under load.

    NEARCACHED_BIN=build/nearcached /usr/bin/python3 tests/bench/scrape.py [scrapes]

A logfmt line for each: how long GET /metrics took at its client (p50, p99, worst), what the proxy's
own nearcached_scrape_duration_seconds has on average, and how large the page is.
"""

import pathlib
import sys
import tempfile
import threading
import time
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))

from harness.proxy import Proxy  # noqa: E402
from harness.resp import RawClient, encode  # noqa: E402
from harness.servers import RedisServer  # noqa: E402

NAMESPACES = 50
CLIENTS = 4


def load(proxy, is_over):
    with RawClient(proxy.address, timeout=60) as client:
        batch = [("GET", f"ns{number}:k") for number in range(NAMESPACES)]
        while not is_over.is_set():
            client.send(b"".join(encode(*command) for command in batch))
            for _ in batch:
                client.read()


def measure(proxy, what, n):
    host, port = proxy.admin_address
    took, size = [], 0
    before = proxy.metrics()
    for _ in range(n):
        began = time.perf_counter()
        with urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=30) as reply:
            size = len(reply.read())
        took.append((time.perf_counter() - began) * 1e3)
    after = proxy.metrics()
    own = [after.get(f"scrape_duration_seconds_{part}") - before.get(
        f"scrape_duration_seconds_{part}") for part in ("sum", "count")]
    took.sort()
    print(f"bench=scrape load={what} namespaces={NAMESPACES} bytes={size} n={n} "
          f"p50_ms={took[n // 2]:.2f} p99_ms={took[n * 99 // 100]:.2f} worst_ms={took[-1]:.2f} "
          f"own_mean_ms={own[0] / own[1] * 1e3:.2f}", flush=True)


def main():
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    with tempfile.TemporaryDirectory() as directory:
        directory = pathlib.Path(directory)
        (directory / "redis").mkdir()
        server = RedisServer(directory / "redis").start()
        proxy = Proxy(directory / "proxy", server.url(), config={
            f'namespace "ns{number}"': {"match": f"ns{number}:*"}
            for number in range(NAMESPACES)}).start()
        try:
            measure(proxy, "none", n)
            is_over = threading.Event()
            threads = [threading.Thread(target=load, args=(proxy, is_over))
                       for _ in range(CLIENTS)]
            for thread in threads:
                thread.start()
            measure(proxy, "hits", n)
            is_over.set()
            for thread in threads:
                thread.join()
        finally:
            proxy.stop()
            server.stop()


if __name__ == "__main__":
    main()
