#!/usr/bin/env python3
"""What many clients of one missing, or expiring, key cost.

lease: 1000 connections ask for one missing key of a namespace with miss-lease, through one proxy and
through two. The one that is told so writes it; how long after its SET was sent has each of the others
the value? Prints p50, p99 and the longest, in milliseconds, medians over the rounds, the longest of
all rounds, and how long this program takes to see a thousand replies that are there already.

hot: one key of 2 s time to live, asked for 5000 times a second by eight processes for a minute. Who
is told nil computes for 20 ms and writes it. With leases and early refresh, and without. Prints how
often it was computed per life, the hit ratio, and p99 in milliseconds within 100 ms of a write (or of
the end of a life), and otherwise.

    NEARCACHED_BIN=build/nearcached /usr/bin/python3 tests/bench/stampede.py [seconds]
"""

import multiprocessing
import pathlib
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "integration"))

from harness.crowd import Crowd  # noqa: E402
from harness.proxy import Proxy  # noqa: E402
from harness.resp import RawClient, encode  # noqa: E402
from harness.servers import RedisServer  # noqa: E402
from harness.waiting import wait_until  # noqa: E402

N_CLIENTS = 1000
N_PROCESSES = 8
RATE = 5000
LIFE_S = 2.0
COMPUTE_S = 0.02
NIL = b"$-1\r\n"
LEASES = {'namespace "leased"': {"match": "m:*", "miss-lease": "10s", "early-refresh": "1s"}}


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


def median(rounds, share):
    return percentile([percentile(each, share) for each in rounds], .5)


def start(directory, server, config=None):
    proxy = Proxy(directory, server.url(), config=config).start()
    proxy.wait_metric("coherence_links", 2, mode="tracking")
    return proxy


def collect(sockets, expected):
    """When each of them can be read from, in order."""
    times = []
    import select
    poll = select.epoll()
    for each in sockets:
        poll.register(each.fileno(), select.EPOLLIN | select.EPOLLET)
    while len(times) < expected:
        ready = poll.poll(10)
        now = time.monotonic()
        assert ready, f"{len(times)} of {expected} were answered"
        times += [now] * len(ready)
    poll.close()
    return times


def lease(directory, server, n_proxies):
    proxies = [start(directory, server, LEASES) for _ in range(n_proxies)]
    took, own = [], []
    for number in range(10):
        key = f"m:{n_proxies}:{number}"
        with Crowd([proxy.address for proxy in proxies], N_CLIENTS) as crowd:
            crowd.send(encode("GET", key))
            wait_until(lambda: sum(proxy.metrics().get("miss_lease_waiting") for proxy in proxies)
                       == N_CLIENTS - 1, what="all to wait")
            crowd.wait(1)
            told = crowd.with_reply(NIL)
            assert len(told) == 1
            others = [client.socket for i, client in enumerate(crowd.clients) if i != told[0]]
            begun = time.monotonic()
            crowd.clients[told[0]].socket.send(encode("SET", key, "value"))
            took.append([(at - begun) * 1000 for at in collect(others, N_CLIENTS - 1)])
            begun = time.monotonic()
            collect(others, N_CLIENTS - 1)
            own.append((time.monotonic() - begun) * 1000)
    print(f"bench=lease proxies={n_proxies} clients={N_CLIENTS} rounds=10 "
          f"p50_ms={median(took, .5):.2f} p99_ms={median(took, .99):.2f} "
          f"max_ms={median(took, 1):.2f} worst_ms={max(map(max, took)):.2f} "
          f"program_ms={percentile(own, .5):.2f}", flush=True)
    for proxy in proxies:
        proxy.stop()


def reader(address, key, seconds, queue, number):
    """Open loop: requests have their times, whatever the last one took."""
    interval = N_PROCESSES / RATE
    seen, writes = [], []
    with RawClient(address) as client:
        due = time.monotonic() + interval * number / N_PROCESSES
        end = due + seconds
        while due < end:
            pause = due - time.monotonic()
            if pause > 0:
                time.sleep(pause)
            begun = time.monotonic()
            reply = client.ask("GET", key)
            seen.append((begun, time.monotonic() - begun))
            if reply == NIL:
                time.sleep(COMPUTE_S)
                client.ok("SET", key, "value", "PX", int(LIFE_S * 1000))
                writes.append(time.monotonic())
                due = time.monotonic()
            due += interval
    queue.put((seen, writes))


def hot(directory, server, seconds, has_leases):
    proxy = start(directory, server, LEASES if has_leases else None)
    key = "m:hot"
    server.ask("DEL", key)
    queue = multiprocessing.Queue()
    readers = [multiprocessing.Process(target=reader,
                                       args=(proxy.address, key, seconds, queue, number))
               for number in range(N_PROCESSES)]
    for each in readers:
        each.start()
    seen, writes = [], []
    for _ in readers:
        some, written = queue.get()
        seen += some
        writes += written
    for each in readers:
        each.join()
    begun = min(at for at, _ in seen) + 1.0
    moments = sorted(writes)
    moments += [at + LIFE_S for at in moments]
    near, far = [], []
    for at, took in seen:
        if at > begun:
            is_near = any(abs(at - moment) < 0.1 for moment in moments)
            (near if is_near else far).append(took * 1000)
    metrics = proxy.metrics()
    hits, misses = metrics.get("hits_total"), metrics.get("misses_total")
    print(f"bench=hot leases={'on' if has_leases else 'off'} seconds={seconds} "
          f"requests={len(seen)} computed={len(writes)} lives={seconds / LIFE_S:.0f} "
          f"hit_ratio={hits / (hits + misses):.5f} p99_near_ms={percentile(near, .99):.3f} "
          f"p99_far_ms={percentile(far, .99):.3f} max_ms={max(near + far):.1f} "
          f"early={metrics.get('miss_leases_total', kind='early'):.0f} "
          f"held={metrics.get('miss_lease_waits_total'):.0f}", flush=True)
    proxy.stop()


def main():
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    with tempfile.TemporaryDirectory() as name:
        directory = pathlib.Path(name)
        server = RedisServer(directory / "server").start()
        for n_proxies in (1, 2):
            lease(directory / f"lease{n_proxies}", server, n_proxies)
        for has_leases in (True, False):
            hot(directory / f"hot{has_leases}", server, seconds, has_leases)
        server.stop()


if __name__ == "__main__":
    main()
