#!/usr/bin/env python3
"""What many clients of one missing, or expiring, key cost.

lease: 1000 connections ask for one missing key of a namespace with miss-lease, through one proxy and
through two. The one that is told so writes it; how long after its SET was sent has each of the others
the value? Prints p50, p99 and the longest, in milliseconds, medians over the rounds, the longest of
all rounds, and how long this program takes to see a thousand replies that are there already.

hot: one key of 2 s time to live, asked for 5000 times a second by eight processes for a minute. Who
is told nil computes for 20 ms and writes it. With leases and early refresh through one proxy and through
two in turn, and without through one. Prints how often it was computed per life, the hit ratio, how many
reads reached the backend (fetches and what was relayed), on average and in the worst second, p99 in
milliseconds within 100 ms of a write (or of the end of a life) and otherwise, their ratio, and p99 of a
PING at the server in the same moments, which is what the machine itself takes.

    NEARCACHED_BIN=build/nearcached /usr/bin/python3 tests/bench/stampede.py [--only hot] [--seconds 60]

One logfmt line per case; `run.py --only stampede` makes rows of them.
"""

import argparse
import bisect
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


def reads_at(server):
    """GETs that the server has executed."""
    for line in server.ask("INFO", "commandstats").decode().splitlines():
        if line.startswith("cmdstat_get:"):
            return int(line.split("calls=")[1].split(",")[0])
    return 0


def watch_server(server, seconds):
    """Once a second: reads that it had since; every 5 ms: how long a PING takes."""
    counts, pings = [], []
    before = reads_at(server)
    with server.client() as client:
        end = time.monotonic() + seconds
        turn = time.monotonic() + 1
        while time.monotonic() < end:
            begun = time.monotonic()
            client.ask("PING")
            pings.append((begun, time.monotonic() - begun))
            if time.monotonic() > turn:
                count = reads_at(server)
                counts.append(count - before)
                before, turn = count, turn + 1
            time.sleep(.005)
    return counts, pings


def split(series, moments):
    """(within 100 ms of a moment, otherwise), in milliseconds."""
    near, far = [], []
    moments = sorted(moments)
    for at, took in series:
        place = bisect.bisect(moments, at)
        is_near = any(abs(at - moment) < .1 for moment in moments[max(0, place - 1):place + 1])
        (near if is_near else far).append(took * 1000)
    return near, far


def hot(directory, server, seconds, has_leases, n_proxies=1):
    proxies = [start(directory / str(i), server, LEASES if has_leases else None)
               for i in range(n_proxies)]
    key = "m:hot"
    server.ask("DEL", key)
    queue = multiprocessing.Queue()
    readers = [multiprocessing.Process(target=reader, args=(
        proxies[number % n_proxies].address, key, seconds, queue, number))
        for number in range(N_PROCESSES)]
    for each in readers:
        each.start()
    counts, pings = watch_server(server, seconds)
    seen, writes = [], []
    for _ in readers:
        some, written = queue.get()
        seen += some
        writes += written
    for each in readers:
        each.join()
    begun = min(at for at, _ in seen) + 1.0
    moments = writes + [at + LIFE_S for at in writes]
    near, far = split([one for one in seen if one[0] > begun], moments)
    ping_near, ping_far = split([one for one in pings if one[0] > begun], moments)
    metrics = [proxy.metrics() for proxy in proxies]
    hits = sum(each.get("hits_total") for each in metrics)
    misses = sum(each.get("misses_total") for each in metrics)
    counts = counts[1:] or counts  # the first one fills
    print(f"bench=hot leases={'on' if has_leases else 'off'} proxies={n_proxies} "
          f"seconds={seconds} requests={len(seen)} computed={len(writes)} "
          f"lives={seconds / LIFE_S:.0f} hit_ratio={hits / (hits + misses):.5f} "
          f"backend_reads_per_s={sum(counts) / len(counts):.2f} worst_second={max(counts)} "
          f"p99_near_ms={percentile(near, .99):.3f} p99_far_ms={percentile(far, .99):.3f} "
          f"near_to_far={percentile(near, .99) / percentile(far, .99):.2f} "
          f"p50_near_ms={percentile(near, .5):.3f} p50_far_ms={percentile(far, .5):.3f} "
          f"ping_p99_near_ms={percentile(ping_near, .99):.3f} "
          f"ping_p99_far_ms={percentile(ping_far, .99):.3f} max_ms={max(near + far):.1f} "
          f"early={sum(each.get('miss_leases_total', kind='early') for each in metrics):.0f} "
          f"held={sum(each.get('miss_lease_waits_total') for each in metrics):.0f}", flush=True)
    for proxy in proxies:
        proxy.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=("lease", "hot"))
    parser.add_argument("--seconds", type=float, default=60.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        directory = pathlib.Path(name)
        server = RedisServer(directory / "server").start()
        if arguments.only != "hot":
            for n_proxies in (1, 2):
                lease(directory / f"lease{n_proxies}", server, n_proxies)
        if arguments.only != "lease":
            for has_leases, n_proxies in ((True, 1), (True, 2), (False, 1)):
                hot(directory / f"hot{has_leases}{n_proxies}", server, arguments.seconds,
                    has_leases, n_proxies)
        server.stop()


if __name__ == "__main__":
    main()
