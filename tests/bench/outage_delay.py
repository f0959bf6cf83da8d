#!/usr/bin/env python3
"""What an outage costs those whom it does not concern, and what the others get.

    NEARCACHED_BIN=build/nearcached /usr/bin/python3 tests/bench/outage_delay.py [part] [seconds]

part "paused": three masters, one of them stopped five times for `seconds` (3). One client asks the
slots of the other two all the time, eight more the stopped one's. A logfmt line per pause, p50 and
p99 of the first client before and during it, and the medians of the five.

part "away": one server, stopped for `seconds` (30) under load. Readers of keys with
stale-if-error, readers and writers of others. Errors of each, how long the first ones took and
those once the breaker was open, when all was normal again, and old values shown after that.
"""

import multiprocessing
import pathlib
import statistics
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))

from harness.proxy import Proxy  # noqa: E402
from harness.resp import RawClient, encode  # noqa: E402
from harness.servers import RedisCluster, RedisServer, key_slot  # noqa: E402

PAUSES = 5
TIMEOUT_MS = 1000


def percentile(values, percent):
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]


def ask_on(address, keys, phase, waits, rest=0.002):
    """One request at a time, with a rest behind it; (phase, seconds) of each."""
    with RawClient(address, timeout=60) as client:
        commands = [encode("GET", key) for key in keys] + [encode("INCR", "n" + key)
                                                           for key in keys]
        while phase.value >= 0:
            for command in commands:
                began = time.perf_counter()
                client.send(command)
                client.read()
                waits.append((phase.value, time.perf_counter() - began))
                time.sleep(rest)  # the others' load is to be the same while they are refused


def measure(address, keys, phase, queue):
    waits = []
    ask_on(address, keys, phase, waits, 0.0002)
    queue.put(waits)


def keys_of(cluster, prefix):
    found = {node: [] for node in cluster.masters()}
    for number in range(3000):
        key = f"{{{prefix}{number}}}"
        found[cluster.owner(key_slot(key))].append(key)
    return {node: keys[:8] for node, keys in found.items()}


def pause_once(proxy, victim, keys, stuck_keys, seconds):
    phase, queue = multiprocessing.Value("i", 0), multiprocessing.Queue()
    measurer = multiprocessing.Process(target=measure, args=(proxy.address, keys, phase, queue))
    others = [multiprocessing.Process(target=ask_on, args=(proxy.address, [key], phase, []))
              for key in stuck_keys]
    for process in [measurer, *others]:
        process.start()
    time.sleep(0.5)
    phase.value = 1
    time.sleep(seconds)
    victim.pause()
    phase.value = 2
    time.sleep(seconds)
    phase.value = 3
    victim.resume()
    time.sleep(0.5)
    phase.value = -1
    waits = queue.get()
    for process in [measurer, *others]:
        process.join()
    return {when: [wait * 1e3 for at, wait in waits if at == number]
            for number, when in ((1, "before"), (2, "during"))}


def paused(directory, seconds):
    cluster = RedisCluster(directory, node_timeout_ms=60000,
                           options=[("cluster-require-full-coverage", "no")]).start()
    try:
        cluster.wait_ready()
        proxy = Proxy(directory, cluster.url(), {"request-timeout": f"{TIMEOUT_MS}ms"}).start()
        by_node = keys_of(cluster, "k")
        victim = cluster.masters()[0]
        stuck_keys = by_node.pop(victim)
        keys = [key for keys in by_node.values() for key in keys]
        rows = []
        for number in range(PAUSES):
            found = pause_once(proxy, victim, keys, stuck_keys, seconds)
            row = {f"{when}_{name}": percentile(found[when], percent)
                   for when in ("before", "during") for name, percent in (("p50", 50), ("p99", 99))}
            rows.append(row)
            print(f"pause={number} n_before={len(found['before'])} n_during={len(found['during'])} "
                  + " ".join(f"{name}_ms={value:.3f}" for name, value in row.items()), flush=True)
            time.sleep(2)
        medians = {name: statistics.median(row[name] for row in rows) for name in rows[0]}
        print("pause=median "
              + " ".join(f"{name}_ms={value:.3f}" for name, value in medians.items())
              + f" p50_ratio={medians['during_p50'] / medians['before_p50']:.3f}"
              + f" p99_ratio={medians['during_p99'] / medians['before_p99']:.3f}")
        proxy.stop()
    finally:
        cluster.stop()


class Readers:
    """Clients that go on asking; what each got, and when."""

    def __init__(self, address, commands, n):
        self.address, self.commands = address, commands
        self.results = []
        self.is_over = False
        self.threads = [threading.Thread(target=self._run, args=(i,)) for i in range(n)]
        for thread in self.threads:
            thread.start()

    def _run(self, offset):
        with RawClient(self.address, timeout=60) as client:
            at = offset
            while not self.is_over:
                command = self.commands[at % len(self.commands)]
                at += 1
                began = time.perf_counter()
                client.send(command)
                reply = client.read()
                self.results.append((began, time.perf_counter() - began, reply))
                time.sleep(0.001)

    def stop(self):
        self.is_over = True
        for thread in self.threads:
            thread.join()
        return sorted(self.results)


def refused_p99_us(before, after):
    """Upper bound of the bucket that holds the 99th percentile of relayed requests in between."""
    buckets = sorted(
        ((float("inf") if "+Inf" in str(labels) else float(dict(labels)["le"])),
         value - before.samples.get((name, labels), 0))
        for (name, labels), value in after.samples.items()
        if name.endswith("_bucket") and "relayed" in str(name) + str(labels))
    total = buckets[-1][1] if buckets else 0
    return next((bound * 1e6 for bound, n in buckets if total and n >= total * 0.99), 0)


def away(directory, seconds):
    server = RedisServer(directory / "server").start()
    proxy = Proxy(directory, server.url(), {"request-timeout": f"{TIMEOUT_MS}ms"},
                  config={'namespace "kept"': {"match": "kept:*", "stale-if-error": "5m"}}).start()
    keys = [f"kept:{number}" for number in range(200)]
    with proxy.client() as client:
        for key in keys:
            client.ok("SET", key, "old")
            client.ok("GET", key)
    kept = Readers(proxy.address, [encode("GET", key) for key in keys], 4)
    other = Readers(proxy.address, [encode("INCR", "n"), encode("GET", "other")], 4)
    time.sleep(1)
    server.pause()
    stopped = time.perf_counter()
    time.sleep(max(3.0, seconds / 3))
    before = proxy.metrics()
    time.sleep(seconds - max(3.0, seconds / 3))
    after = proxy.metrics()
    server.resume()
    returned = time.perf_counter()
    for key in keys:
        server.ask("SET", key, "new")
    time.sleep(3)
    kept, other = kept.stop(), other.stop()
    errors = [(began, took) for began, took, reply in other if reply.startswith(b"-")]
    first = [took for began, took in errors if began < stopped + 2 * TIMEOUT_MS / 1e3]
    later = [took for began, took in errors if began >= stopped + 2 * TIMEOUT_MS / 1e3]
    normal = max((began + took for began, took in errors), default=returned) - returned
    is_new = next((began for began, _, reply in kept if b"new" in reply), float("inf"))
    n_old = sum(1 for began, took, reply in kept if began > max(is_new, returned + normal)
                and b"new" not in reply)
    print(f"seconds={seconds:g} kept_reads={len(kept)} "
          f"kept_errors={sum(1 for *_, reply in kept if reply.startswith(b'-'))} "
          f"other_errors={len(errors)} first_errors_max_ms={max(first, default=0) * 1e3:.1f} "
          f"later_errors_p99_ms={percentile(later, 99) * 1e3 if later else 0:.3f} "
          f"proxy_p99_at_most_us={refused_p99_us(before, after):.0f} "
          f"normal_after_ms={normal * 1e3:.0f} old_after_return={n_old}")
    proxy.stop()
    server.stop()


def main():
    part = sys.argv[1] if len(sys.argv) > 1 else "both"
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else None
    with tempfile.TemporaryDirectory(prefix="nearcached-bench-") as directory:
        directory = pathlib.Path(directory)
        if part in ("paused", "both"):
            paused(directory / "paused", seconds or 3)
        if part in ("away", "both"):
            away(directory / "away", seconds or 30)


if __name__ == "__main__":
    main()
