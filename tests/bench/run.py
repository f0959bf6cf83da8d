#!/usr/bin/python3
"""run.py - the benchmarks of nearcached: every figure is measured in this run

    tests/bench/run.py [--full] [--only NAME,...] [--list] [--subject redis] [--rounds N]

Compares CPU time per request (user and system, all threads, from /proc) with redis-server and
nutcracker, in rounds that take turns; the median of the rounds counts. Servers stand on one core,
the load generator on another; behind a proxy whose relaying is measured, the backend shares the
generator's core. README.md explains the rows. Prints a table and writes build/bench.json.

Status: 0; 1 when something could not be measured or an answer was wrong; with --strict also when a
target was missed.
"""

import argparse
import contextlib
import json
import lzma
import math
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

from harness import (
    CLIENT_CORE, EVERYWHERE, ROOT, SERVER_CORE, Failed, FakeProxy, Memcached, Nearcached,
    Nutcracker, RssSampler, Skipped, Tools, address_of, cpu_seconds, have, machine_facts, on_cores,
    pid_of, read_logfmt, rss_bytes, start_cluster, start_redis)

MIB = 1 << 20
KEY_BYTES = 24
FIXED_OVERHEAD_MAX = 24 * MIB
# Redis forgets tracked keys at random above this; 0: no limit.
TRACK_ALL = [("tracking-table-max-keys", 0)]
BYPASS_CONFIG = '[namespace "raw"]\nmatch = raw:*\ncache = off\n'


def value_name(value_bytes):
    return f"{value_bytes // 1024} KiB" if value_bytes % 1024 == 0 else f"{value_bytes} B"


class Bench:
    """The settings of this run and the rows so far."""

    def __init__(self, arguments, directory):
        self.is_full = arguments.full
        self.is_fake = arguments.subject == "redis"
        self.binary = os.path.abspath(arguments.nearcached)
        self.rounds = arguments.rounds or (7 if self.is_full else 5)
        self.seconds = arguments.seconds or (2.0 if self.is_full else 0.8)
        self.tools = Tools(arguments.tools)
        self.directory = directory
        self.rows = []
        self.section = ""

    # -- rows --

    def row(self, what, *, value, unit, peer=None, peer_name="", target=None,
            higher_is_better=False, ratio=None, judged=None, note=""):
        """The target holds for judged: unless given, the ratio where there is one, or the value."""
        if judged is None:
            judged = ratio if ratio is not None else value
        verdict = "-"
        if target is not None:
            is_met = judged >= target if higher_is_better else judged <= target
            verdict = "pass" if is_met else "MISS"
        self.rows.append({
            "section": self.section, "what": what, "value": value, "unit": unit, "peer": peer,
            "peer_name": peer_name, "ratio": ratio, "target": target,
            "higher_is_better": higher_is_better, "verdict": verdict, "note": note})
        print_row(self.rows[-1])

    def must_be_zero(self, what, value, note=""):
        self.row(what, value=value, unit="", target=0, note=note)
        if value:
            self.rows[-1]["verdict"] = "FAIL"

    # -- servers --

    def subject(self, stack, backend, options=(), config=None, cores=None):
        """nearcached in front of a RedisProcess or a Cluster."""
        if self.is_fake:
            server = FakeProxy(os.path.join(self.directory, f"fake-{time.monotonic_ns()}"),
                               [("maxclients", 11000)])
        else:
            url = backend.url() if hasattr(backend, "url") else f"redis://{address_of(backend)}"
            server = Nearcached(self.directory, self.binary, url, options, config)
        with on_cores(cores or SERVER_CORE):
            server.start()
        stack.callback(server.stop)
        return server

    def redis(self, stack, cores, options=()):
        return start_redis(stack, self.directory, options, cores)

    def nutcracker(self, stack, backend):
        if not have("nutcracker"):
            raise Skipped("nutcracker is not installed (Debian: apt-get install nutcracker)")
        with on_cores(SERVER_CORE):
            server = Nutcracker(self.directory, backend.port).start()
        stack.callback(server.stop)
        return server

    def preload(self, backend, subject, *flags):
        """Fills the backend, and what stands in the subject's place."""
        self.tools.preload(backend, *flags)
        if subject is not None and subject.is_fake:
            self.tools.preload(subject, *flags)

    # -- CPU time --

    def cpu_us(self, server, *flags):
        """One run against a server: CPU microseconds per request, and the generator's figures."""
        before = cpu_seconds(pid_of(server))
        result = self.tools.loadgen(address_of(server), "--seconds", self.seconds, *flags)
        return (cpu_seconds(pid_of(server)) - before) * 1e6 / result["requests"], result

    def compare(self, what, subject, peer, peer_name, target, flags, must_hit=False):
        """Rounds in turn; a row with the medians and their ratio."""
        costs, rates = ([], []), ([], [])
        before = subject.metrics()
        n_reads = 0
        for number in range(self.rounds):
            for side, server in enumerate((subject, peer)):
                cost, result = self.cpu_us(server, *flags, "--seed", number + 1)
                costs[side].append(cost)
                rates[side].append(result["ops"])
                n_reads += result["requests"] if side == 0 else 0
        mine, others = map(statistics.median, costs)
        each = [a / b for a, b in zip(*costs)]
        note = (f"{statistics.median(rates[0]) / 1e3:.0f} : {statistics.median(rates[1]) / 1e3:.0f}"
                f" k/s; rounds {min(each):.2f} to {max(each):.2f}")
        if must_hit and before:
            after = subject.metrics()
            misses = after.get("misses_total", 0) - before.get("misses_total", 0)
            if misses > n_reads * 0.001:
                note += f"; {misses:.0f} reads were no hits"
        self.row(what, value=mine, unit="us", peer=others, peer_name=peer_name,
                 ratio=mine / others, target=target, note=note)


# ---- sections ----

def bench_hit(bench, stack):
    """GET and MGET answered from memory, against redis-server answering the same."""
    backend = bench.redis(stack, CLIENT_CORE, TRACK_ALL)
    peer = bench.redis(stack, SERVER_CORE)
    subject = bench.subject(stack, backend, [("maxmemory", "1gb")])
    targets = {100: {1: 0.95, 16: 0.70, 100: 0.50}, 2048: {1: 0.90, 16: 0.75, 100: 0.65}}
    mget_targets = {1: 0.75, 16: 0.45, 100: None}
    for value_bytes, by_pipeline in targets.items():
        flags = ["--value-size", value_bytes]
        bench.preload(backend, subject, *flags)
        bench.preload(peer, None, *flags)
        bench.tools.scan(subject, *flags)
        for pipeline, target in by_pipeline.items():
            bench.compare(f"hit GET {value_name(value_bytes)}, pipeline {pipeline}", subject, peer,
                          "redis-server", target, flags + ["--pipeline", pipeline], must_hit=True)
        if value_bytes == 100:
            for pipeline, target in mget_targets.items():
                bench.compare(f"hit MGET of 10, pipeline {pipeline}", subject, peer,
                              "redis-server", target,
                              flags + ["--workload", "mget", "--pipeline", pipeline], must_hit=True)


def relayed_rows(bench, name, subject, peer, targets):
    for workload in ("set", "get"):
        for pipeline, target in targets.items():
            bench.compare(f"{name} {workload.upper()} 100 B, pipeline {pipeline}", subject, peer,
                          "nutcracker", target,
                          ["--prefix", "raw:", "--workload", workload, "--pipeline", pipeline])


def bench_relayed(bench, stack):
    """SET, and GET of a namespace that is not cached, against nutcracker on the same server."""
    backend = bench.redis(stack, CLIENT_CORE)
    peer = bench.nutcracker(stack, backend)
    subject = bench.subject(stack, backend, config=BYPASS_CONFIG)
    bench.preload(backend, subject, "--prefix", "raw:")
    relayed_rows(bench, "relayed", subject, peer, {1: 0.85, 16: 0.60, 100: None})


def bench_relayed_cluster(bench, stack):
    """The same with three masters behind; nutcracker still has its one server."""
    backend = bench.redis(stack, CLIENT_CORE)
    cluster = start_cluster(stack, bench.directory, cores=CLIENT_CORE)
    peer = bench.nutcracker(stack, backend)
    subject = bench.subject(stack, cluster, config=BYPASS_CONFIG)
    bench.preload(backend, None, "--prefix", "raw:")
    bench.preload(cluster, subject, "--prefix", "raw:")
    relayed_rows(bench, "relayed to a cluster", subject, peer, {1: 1.00, 16: 0.70, 100: None})


def bench_mget_cluster(bench, stack):
    """MGET of 10 keys in as many slots: relayed (split and merged), then from memory."""
    backend = bench.redis(stack, CLIENT_CORE)
    cluster = start_cluster(stack, bench.directory, TRACK_ALL, cores=CLIENT_CORE)
    peer = bench.nutcracker(stack, backend)
    subject = bench.subject(stack, cluster, [("maxmemory", "1gb")], BYPASS_CONFIG)
    for prefix in ("raw:", "key:"):
        bench.preload(backend, None, "--prefix", prefix)
        bench.preload(cluster, subject, "--prefix", prefix)
    for pipeline in (1, 16):
        bench.compare(f"relayed MGET of 10 across slots, pipeline {pipeline}", subject, peer,
                      "nutcracker", None,
                      ["--prefix", "raw:", "--workload", "mget", "--pipeline", pipeline])
    bench.tools.scan(subject)
    for pipeline in (1, 16):
        bench.compare(f"hit MGET of 10 across slots, pipeline {pipeline}", subject, peer,
                      "nutcracker", None, ["--workload", "mget", "--pipeline", pipeline],
                      must_hit=True)


def bench_memory(bench, stack):
    """What an entry costs beyond its key and value, at a million entries with a TTL."""
    n_keys, value_bytes, ttl_s = 1000000, 100, 86400
    flags = ["--keys", n_keys, "--value-size", value_bytes, "--ttl", ttl_s]
    payload = KEY_BYTES + value_bytes

    backend = bench.redis(stack, EVERYWHERE, TRACK_ALL)
    empty = int(backend.info("memory")["used_memory"]), rss_bytes(pid_of(backend))
    bench.tools.preload(backend, *flags)
    redis_own = (int(backend.info("memory")["used_memory"]) - empty[0]) / n_keys - payload
    redis_rss = (rss_bytes(pid_of(backend)) - empty[1]) / n_keys - payload

    memcached_rss = None
    if have("memcached"):
        memcached = Memcached(bench.directory).start()
        stack.callback(memcached.stop)
        empty_rss = rss_bytes(pid_of(memcached))
        memcached.preload(n_keys, value_bytes, ttl_s)
        time.sleep(1.5)  # its table grows in a thread of its own
        memcached_rss = (rss_bytes(pid_of(memcached)) - empty_rss) / n_keys - payload

    subject = bench.subject(stack, backend, [("maxmemory", "1gb")], cores=EVERYWHERE)
    empty_rss = rss_bytes(pid_of(subject))
    if subject.is_fake:
        bench.tools.preload(subject, *flags)
    bench.tools.scan(subject, *flags)
    time.sleep(1.5)
    rss = (rss_bytes(pid_of(subject)) - empty_rss) / n_keys - payload
    memory_rows(bench, subject, n_keys, payload)
    bench.row("memory per entry, RSS beyond key and value", value=rss, unit="B", peer=redis_rss,
              peer_name="redis-server", ratio=rss / redis_rss, judged=rss, target=65,
              note=f"redis-server's own figure: {redis_own:.0f} B")
    if memcached_rss is None:
        bench.row("the same against memcached", value=rss, unit="B",
                  note="skipped: memcached is not installed")
    else:
        bench.row("the same against memcached", value=rss, unit="B", peer=memcached_rss,
                  peer_name="memcached", ratio=rss / memcached_rss, judged=rss, target=65)


def memory_rows(bench, subject, n_keys, payload):
    """The cache's own account, where the subject has one."""
    metrics, stats = subject.metrics(), subject.cache_stats()
    if not metrics:
        return
    entries = metrics["entries"]
    if entries < n_keys * 0.999:
        raise Failed(f"{entries:.0f} of {n_keys} entries are in memory")
    accounted = metrics["memory_bytes"] / entries - payload
    metadata = next((value for name, value in stats.items() if "metadata" in name), None)
    if metadata is None:
        metadata = metrics.get("metadata_bytes")
    if metadata is None:
        bench.row("metadata per entry, own figure, with rounding", value=accounted, unit="B",
                  note="CACHE STATS names no metadata: rounding to size classes is in this figure")
    else:
        bench.row("metadata per entry, own figure", value=metadata / entries, unit="B", target=45,
                  note=f"with rounding to size classes {accounted:.0f} B")


def lru_hit_ratio(n_keys, capacity, hot_keys, hot_requests):
    """LRU under independent requests (Che's approximation): a yardstick for the same capacity."""
    classes = [(n_keys * hot_keys, hot_requests / (n_keys * hot_keys)),
               (n_keys * (1 - hot_keys), (1 - hot_requests) / (n_keys * (1 - hot_keys)))]
    low, high = 0.0, 1e12
    for _ in range(200):
        time_in_cache = (low + high) / 2
        held = sum(n * -math.expm1(-rate * time_in_cache) for n, rate in classes)
        low, high = (time_in_cache, high) if held < capacity else (low, time_in_cache)
    return sum(n * rate * -math.expm1(-rate * low) for n, rate in classes)


def bench_ratio(bench, stack):
    """80 % of the requests to 20 % of the keys, memory for a little more than those."""
    n_keys = 1000000 if bench.is_full else 300000
    memory = "48mb" if bench.is_full else "16mb"
    backend = bench.redis(stack, EVERYWHERE, TRACK_ALL)
    subject = bench.subject(stack, backend, [("maxmemory", memory)], cores=EVERYWHERE)
    if subject.is_fake:
        raise Skipped("redis-server stands in the subject's place and has no misses")
    bench.preload(backend, subject, "--keys", n_keys)
    flags = ["--keys", n_keys, "--hot", "80/20", "--pipeline", 16]
    bench.tools.loadgen(address_of(subject), "--requests", n_keys * 5, *flags, "--seed", 1)
    before = subject.metrics()
    bench.tools.loadgen(address_of(subject), "--requests", n_keys * 5, *flags, "--seed", 2)
    after = subject.metrics()
    hits, misses = (after[name] - before[name] for name in ("hits_total", "misses_total"))
    entries = after["entries"]
    best = 0.8 + 0.2 * max(0.0, entries - n_keys * 0.2) / (n_keys * 0.8)
    best = best if entries >= n_keys * 0.2 else 0.8 * entries / (n_keys * 0.2)
    lru = lru_hit_ratio(n_keys, entries, 0.2, 0.8)
    ratio = hits / (hits + misses)
    bench.row(f"hit ratio, 80/20 over {n_keys // 1000} k keys in {memory}", value=ratio, unit="",
              peer=lru, peer_name="LRU, as many entries", ratio=ratio / lru, target=1.0,
              higher_is_better=True,
              note=f"{entries:.0f} entries; the best possible with these is {best:.3f}")


def find_trace(name):
    """The trace's file: in the project, or beside it."""
    for directory in (os.path.join(ROOT, "tests", "data"),
                      os.path.join(ROOT, "..", "shared", "workloads")):
        path = os.path.join(directory, f"{name}.trace.xz")
        if os.path.exists(path):
            return os.path.normpath(path)
    return None


def unpack_trace(bench, name):
    path = find_trace(name)
    if path is None:
        raise Skipped(f"{name}.trace.xz is not here")
    raw = os.path.join(bench.directory, f"{name}.be32")
    if not os.path.exists(raw):
        with lzma.open(path) as packed, open(raw, "wb") as file:
            shutil.copyfileobj(packed, file)
    return raw


def bench_policy(bench, _stack):
    """The eviction policy through its own header on real traces, against the reference."""
    program = os.path.join(bench.tools.directory, "bench_policy")
    if not os.path.exists(program):
        raise Skipped(f"{os.path.relpath(program, ROOT)} is not built (make bench builds it)")
    for name in ("web12", "orm-busy"):
        if find_trace(name) is None:
            bench.row(f"miss ratio, {name}", value=None, unit="",
                      note=f"skipped: {name}.trace.xz is not here")
    directories = {os.path.dirname(path) for path in map(find_trace, ("web12", "orm-busy")) if path}
    done = subprocess.run([program, *sorted(directories)], capture_output=True, text=True,
                          timeout=600, check=False)
    if done.returncode != 0:
        raise Failed(f"bench_policy: {(done.stderr or done.stdout).strip()[-300:]}")
    seen = set()
    for line in done.stdout.splitlines():
        facts = read_logfmt(line)
        case = facts["trace"], facts["capacity"]
        if case in seen:  # a trace may stand in both places
            continue
        seen.add(case)
        mine, reference = facts["miss_ratio"], facts["reference"]
        # As good as the reference is within 1 % either way: a better policy is another policy.
        bench.row(f"miss ratio, {case[0]}, {case[1]:.0f} objects", value=mine, unit="",
                  peer=reference, peer_name="reference S3-FIFO", ratio=mine / reference,
                  judged=abs(facts["difference_percent"]) / 100, target=0.01,
                  note=f"LRU {facts['lru']:.4f}; the target is the difference, relative")


def bench_idle(bench, stack):
    """One client, one request at a time: what a hit takes, against asking redis-server."""
    backend = bench.redis(stack, CLIENT_CORE, TRACK_ALL)
    peer = bench.redis(stack, SERVER_CORE)
    subject = bench.subject(stack, backend)
    flags = ["--keys", 10000, "--connections", 1]
    for server in (backend, peer):
        bench.tools.preload(server, "--keys", 10000)
    bench.preload(backend, subject, "--keys", 10000)
    bench.tools.scan(subject, "--keys", 10000)
    samples = ([], [])
    for number in range(bench.rounds):
        for side, server in enumerate((subject, peer)):
            result = bench.tools.loadgen(address_of(server), "--seconds", bench.seconds, *flags,
                                         "--seed", number + 1)
            samples[side].append((result["p50_us"], result["p99_us"]))
    (mine, mine_p99), (others, others_p99) = (
        [statistics.median(values) for values in zip(*side)] for side in samples)
    bench.row("idle hit, p50", value=mine, unit="us", peer=others, peer_name="redis-server",
              ratio=mine / others, target=1.05, note=f"p99 {mine_p99:.1f} : {others_p99:.1f} us")


def open_at_once(bench, address, n_conns):
    """Starts the generator's idle mode; returns it and the seconds until all had answered."""
    with on_cores(CLIENT_CORE):
        process = subprocess.Popen(
            [bench.tools.program("loadgen"), "--mode", "idle", "--address", address,
             "--connections", str(n_conns)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    line = process.stdout.readline()
    if not line:
        raise Failed(f"{n_conns} connections: {process.communicate()[1].strip()}")
    return process, float(re.search(r"seconds=([0-9.]+)", line).group(1))


def bench_connections(bench, stack):
    """10 000 connections at once, and what each costs while it idles."""
    n_conns = 10000
    import resource
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if limit != resource.RLIM_INFINITY and limit < n_conns + 200:
        raise Skipped(f"the descriptor limit is {limit}, {n_conns + 200} are needed")
    backend = bench.redis(stack, CLIENT_CORE)
    subject = bench.subject(stack, backend, [("maxclients", n_conns + 100)])
    if subject.is_fake:
        n_conns = 400  # redis-server's backlog is 511
    times = []
    per_connection = 0.0
    before = rss_bytes(pid_of(subject))
    for number in range(5):
        process, seconds = open_at_once(bench, address_of(subject), n_conns)
        times.append(seconds)
        if number == 0:
            time.sleep(0.5)
            per_connection = (rss_bytes(pid_of(subject)) - before) / n_conns
        process.communicate()
        time.sleep(0.3)
    bench.row(f"{n_conns} connections at once", value=statistics.median(times), unit="s",
              target=1.5, note=f"rounds {min(times):.2f} to {max(times):.2f} s")
    bench.row("memory per idle connection", value=per_connection, unit="B", target=4096,
              note="growth of RSS in the first round")


def bench_threads(bench, stack):
    """Hits with one and with two workers, free to run on every core; the generator has one."""
    backend = bench.redis(stack, CLIENT_CORE, TRACK_ALL)
    one, two = (bench.subject(stack, backend, [("threads", n), ("maxmemory", "1gb")],
                              cores=EVERYWHERE) for n in (1, 2))
    for server in (one, two):
        bench.preload(backend, server)
    for server in (one, two):
        bench.tools.scan(server)
    for pipeline in (1, 16):
        rates, costs = ([], []), ([], [])
        for number in range(bench.rounds):
            for side, server in enumerate((two, one)):
                cost, result = bench.cpu_us(server, "--pipeline", pipeline, "--seed", number + 1)
                rates[side].append(result["ops"] / 1e3)
                costs[side].append(cost)
        mine, others = map(statistics.median, rates)
        bench.row(f"hits with 2 threads, pipeline {pipeline}", value=mine, unit="k/s", peer=others,
                  peer_name="1 thread", ratio=mine / others,
                  note=f"CPU {statistics.median(costs[0]):.2f} : {statistics.median(costs[1]):.2f}"
                       " us per request")


def bench_visibility(bench, stack):
    """A write made at the backend shows through the proxy: how soon."""
    backend = bench.redis(stack, CLIENT_CORE, TRACK_ALL)
    subject = bench.subject(stack, backend)
    if subject.is_fake:
        subject = backend
    bench.tools.preload(backend, "--keys", 1000)
    result = bench.tools.loadgen(
        address_of(subject), "--mode", "visibility", "--backend", address_of(backend),
        "--keys", 1000, "--requests", 50000 if bench.is_full else 10000)
    bench.row("foreign write visible, p99", value=result["p99_us"], unit="us", target=1000,
              note=f"p50 {result['p50_us']:.0f}, p99.9 {result['p999_us']:.0f}, "
                   f"max {result['max_us']:.0f} us; one round trip is in it; at the first read "
                   f"{100 * result['at_first_read'] / result['samples']:.1f} %")


def bench_promise(bench, stack):
    """maxmemory is a promise about RSS: a random read load, then values that change their size."""
    backend = bench.redis(stack, EVERYWHERE, TRACK_ALL)
    if bench.is_full:
        memory_mb, n_keys, n_reads, n_shift_keys = 256, 3000000, 10000000, 1000000
    else:
        memory_mb, n_keys, n_reads, n_shift_keys = 48, 500000, 1500000, 150000
    bound = memory_mb * MIB * 1.10 + FIXED_OVERHEAD_MAX
    subject = bench.subject(stack, backend, [("maxmemory", f"{memory_mb}mb")], cores=EVERYWHERE)
    start = rss_bytes(pid_of(subject))
    bench.preload(backend, subject, "--keys", n_keys)
    # What is not the memory tier: the process as it starts, and the buffers of 50 clients.
    bench.row("RSS before the first entry", value=start / MIB, unit="MB",
              target=None if subject.is_fake else FIXED_OVERHEAD_MAX / MIB)
    with RssSampler(pid_of(subject)) as rss:
        bench.tools.loadgen(address_of(subject), "--keys", n_keys, "--requests", n_reads,
                            "--pipeline", 16)
        time.sleep(1)
    bench.row(f"peak RSS, {n_reads / 1e6:g} M reads over {n_keys / 1e6:g} M keys, "
              f"maxmemory {memory_mb}mb", value=rss.peak / MIB, unit="MB", target=bound / MIB,
              note=f"{subject.metrics().get('entries', 0):.0f} entries")

    with RssSampler(pid_of(subject)) as rss:
        for value_bytes in (100, 900, 300):
            flags = ["--keys", n_shift_keys, "--value-size", value_bytes]
            bench.preload(backend, subject, *flags)
            bench.tools.loadgen(address_of(subject), *flags, "--requests", n_shift_keys * 2,
                                "--pipeline", 16)
        time.sleep(1)
    bench.row("peak RSS, values of 100, then 900, then 300 B", value=rss.peak / MIB, unit="MB",
              target=bound / MIB,
              note=f"at the end {rss_bytes(pid_of(subject)) / MIB:.0f} MB, "
                   f"{subject.metrics().get('entries', 0):.0f} entries")


def backend_work(cluster):
    """Commands processed and CPU seconds of all nodes so far."""
    commands = sum(int(node.info("stats")["total_commands_processed"]) for node in cluster.nodes)
    return commands, sum(cpu_seconds(pid_of(node)) for node in cluster.nodes)


def replay_phase(bench, cluster, flags, phase, *more):
    """Everything back to version 0, then the trace; the line, and what the nodes did for it."""
    bench.tools.run("replay", "--phase", "preload", *flags, "--rate", 0, "--sessions", 16,
                    cores=EVERYWHERE)
    before = backend_work(cluster)
    result = bench.tools.run("replay", "--phase", phase, *flags, *more, cores=EVERYWHERE,
                             is_failure_told=True)
    if "requests" not in result:
        raise Failed(f"replay {phase}: {result['complaints'][-600:]}")
    after = backend_work(cluster)
    return result, after[0] - before[0], after[1] - before[1]


def replay_trace(bench, stack, name, memory, rate):
    trace = unpack_trace(bench, name)
    bound_ms = 100  # shorter than the default of 1 s: more answers are held against it
    cluster = start_cluster(stack, bench.directory, TRACK_ALL)
    flags = ["--trace", trace, "--rate", rate]
    for first, last, node in cluster.slot_owners():
        flags += ["--node", f"{address_of(node)}:{first}-{last}"]
    direct, direct_commands, direct_cpu = replay_phase(bench, cluster, flags, "direct")

    options = [("maxmemory", memory), ("max-staleness", f"{bound_ms}ms")]
    proxies = [bench.subject(stack, cluster, options, cores=EVERYWHERE) for _ in range(2)]
    proxied, commands, cpu = replay_phase(
        bench, cluster, flags, "proxied", "--bound-ms", bound_ms,
        *[word for proxy in proxies for word in ("--proxy", address_of(proxy))])
    totals = [proxy.metrics() for proxy in proxies]
    hits = sum(each["hits_total"] for each in totals)
    misses = sum(each["misses_total"] for each in totals)
    wrong = sum(proxied[kind] + direct[kind]
                for kind in ("wrong", "stale_own", "stale", "backwards"))

    def row(what, **facts):
        bench.row(f"{name}: {what}", **facts)

    row("hit ratio of the reads, two proxies", value=hits / (hits + misses), unit="",
        note=f"{proxied['requests']:.0f} requests, {proxied['objects']:.0f} objects, "
             f"{proxied['writes']:.0f} writes, {rate} per second, maxmemory {memory} each, cold")
    row("commands for the backend", value=commands, unit="", peer=direct_commands,
        peer_name="direct", ratio=commands / direct_commands,
        note=f"saved {100 * (1 - commands / direct_commands):.0f} %, PTTL with each fetch, PING "
             f"and cluster map included; the nodes' CPU {cpu:.2f} : {direct_cpu:.2f} s")
    for kind in ("read", "write"):
        for part in ("p50", "p99"):
            mine, others = proxied[f"{kind}_{part}_us"], direct[f"{kind}_{part}_us"]
            row(f"{kind}s, {part}", value=mine, unit="us", peer=others, peer_name="direct",
                ratio=mine / others)
    bench.must_be_zero(
        f"{name}: wrong or stale answers", wrong,
        f"of {proxied['reads']:.0f} reads; {proxied['behind']:.0f} were behind a write elsewhere, "
        f"by at most {proxied['lag_max_us'] / 1e3:.2f} ms (bound {bound_ms})")
    if wrong:
        print(proxied["complaints"], direct["complaints"], sep="\n", file=sys.stderr)


def bench_replay(bench, stack):
    """The real input: a real trace with writes, two proxies, a cluster, every answer checked."""
    if bench.is_fake:
        raise Skipped("redis-server stands in the subject's place and is no proxy")
    replay_trace(bench, stack, "web12", "2mb", 20000)
    if bench.is_full:
        replay_trace(bench, stack, "orm-busy", "16mb", 40000)


# ---- many clients of one key ----

def run_stampede(bench, *flags):
    """The lines of stampede.py, which uses the tests' harness: a process of its own."""
    done = subprocess.run(
        [sys.executable, os.path.join(ROOT, "tests", "bench", "stampede.py"), *map(str, flags)],
        capture_output=True, text=True, timeout=3600, check=False,
        env={**os.environ, "NEARCACHED_BIN": bench.binary})
    if done.returncode != 0:
        raise Failed(done.stderr.strip()[-600:])
    return [read_logfmt(line) for line in done.stdout.splitlines() if line.startswith("bench=")]


def bench_stampede(bench, _stack):
    """1000 clients of one missing key; a hot key of 2 s at 5000 requests/s for a minute."""
    if bench.is_fake:
        raise Skipped("redis-server stands in the subject's place and has no leases")
    for line in run_stampede(bench, "--only", "lease"):
        bench.row(f"1000 clients of a missing key, {line['proxies']:.0f} proxies: p99",
                  value=line["p99_ms"], unit="ms", target=20.0,
                  note=f"p50 {line['p50_ms']:.2f}, longest of all {line['worst_ms']:.1f}, of which "
                       f"this program {line['program_ms']:.1f}")
    for line in run_stampede(bench, "--only", "hot", "--seconds", 60):
        is_judged = line["leases"] == "on"
        name = f"hot key, {line['proxies']:.0f} proxies" + ("" if is_judged else ", no leases")
        bench.row(f"{name}: p99 near the end of a life", value=line["p99_near_ms"], unit="ms",
                  peer=line["p99_far_ms"], peer_name="ms otherwise", ratio=line["near_to_far"],
                  target=2.0 if is_judged else None,
                  note=f"PING at the server then: {line['ping_p99_near_ms']:.2f}, otherwise "
                       f"{line['ping_p99_far_ms']:.2f} ms")
        # Each life costs a read or two for each proxy; a burst would be hundreds.
        bench.row(f"{name}: reads at the backend, worst second", value=line["worst_second"],
                  unit="", target=10 * line["proxies"] if is_judged else None,
                  note=f"{line['backend_reads_per_s']:.1f} a second; computed "
                       f"{line['computed']:.0f} times in {line['lives']:.0f} lives")


SECTIONS = {
    "hit": bench_hit,
    "relayed": bench_relayed,
    "relayed-cluster": bench_relayed_cluster,
    "mget-cluster": bench_mget_cluster,
    "memory": bench_memory,
    "ratio": bench_ratio,
    "policy": bench_policy,
    "idle": bench_idle,
    "connections": bench_connections,
    "threads": bench_threads,
    "visibility": bench_visibility,
    "promise": bench_promise,
    "replay": bench_replay,
    "stampede": bench_stampede,
}


# ---- output ----

def number(value):
    if value is None:
        return ""
    if value == int(value) and abs(value) < 1e9:
        return f"{value:.0f}"
    digits = 1 if abs(value) >= 10 else 3 if abs(value) >= 1 else 4
    return f"{value:.{digits}f}"


def print_row(row):
    bound = ""
    if row["target"] is not None:
        bound = (">= " if row["higher_is_better"] else "<= ") + number(row["target"])
    peer = f"{number(row['peer'])} {row['peer_name']}" if row["peer"] is not None else ""
    ratio = f"{row['ratio']:.2f}" if row["ratio"] is not None else ""
    print(f"{row['what']:<54} {number(row['value']) + ' ' + row['unit']:>13} {peer:<30} "
          f"{ratio:>5} {bound:>9} {row['verdict']:<5} {row['note']}", flush=True)


def print_head():
    print(f"{'':<54} {'nearcached':>13} {'against':<30} {'ratio':>5} {'target':>9}")


def run_section(bench, name, function):
    bench.section = name
    print(f"\n# {name}: {function.__doc__}")
    begin = time.monotonic()
    with contextlib.ExitStack() as stack:
        try:
            function(bench, stack)
        except Skipped as reason:
            bench.rows.append({"section": name, "what": name, "verdict": "skipped",
                               "note": str(reason)})
            print(f"skipped: {reason}")
        except Exception as reason:  # whatever it is, the other sections are still worth running
            bench.rows.append({"section": name, "what": name, "verdict": "FAIL",
                               "note": f"{type(reason).__name__}: {reason}"})
            print(f"FAIL: {type(reason).__name__}: {reason}")
    print(f"({time.monotonic() - begin:.0f} s)", flush=True)


def report(bench, facts, path, seconds):
    counts = {}
    for row in bench.rows:
        counts[row["verdict"]] = counts.get(row["verdict"], 0) + 1
    print(f"\n{len(bench.rows)} rows in {seconds:.0f} s: "
          + ", ".join(f"{n} {'without target' if verdict == '-' else verdict}"
                      for verdict, n in sorted(counts.items())))
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        json.dump({"machine": facts, "full": bench.is_full, "subject_is_redis": bench.is_fake,
                   "rounds": bench.rounds, "seconds_per_run": bench.seconds,
                   "rows": bench.rows}, file, indent=1)
        file.write("\n")
    print(f"written to {os.path.relpath(path)}")
    return counts


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--full", action="store_true", help="longer runs, larger sets, all traces")
    parser.add_argument("--only", help="sections to run, comma-separated")
    parser.add_argument("--list", action="store_true", help="print the sections and exit")
    parser.add_argument("--subject", choices=("nearcached", "redis"), default="nearcached",
                        help="redis: redis-server in nearcached's place, to see the noise")
    parser.add_argument("--nearcached", default=os.path.join(ROOT, "build", "nearcached"))
    parser.add_argument("--tools", default=os.path.join(ROOT, "build", "bench"),
                        help="where loadgen, replay and bench_policy are (and are built)")
    parser.add_argument("--rounds", type=int, help="rounds of each comparison")
    parser.add_argument("--seconds", type=float, help="length of one run")
    parser.add_argument("--output", default=os.path.join(ROOT, "build", "bench.json"))
    parser.add_argument("--strict", action="store_true", help="a missed target is a failure")
    arguments = parser.parse_args()
    if arguments.list:
        for name, function in SECTIONS.items():
            print(f"{name:<16} {function.__doc__}")
        return 0
    names = arguments.only.split(",") if arguments.only else list(SECTIONS)
    unknown = [name for name in names if name not in SECTIONS]
    if unknown:
        parser.error(f"no section {', '.join(unknown)}; --list names them")
    if arguments.subject == "nearcached" and not os.path.exists(arguments.nearcached):
        sys.exit(f"{arguments.nearcached} is not built (make)")
    if not have("redis-server"):
        sys.exit("redis-server is not installed (Debian: apt-get install redis-server)")

    facts = machine_facts(arguments.nearcached)
    for name, value in facts.items():
        print(f"{name}: {value}")
    if CLIENT_CORE == SERVER_CORE:
        print("only one core: server and generator share it, so the ratios say little")
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="nearcached-bench-") as directory:
        bench = Bench(arguments, directory)
        print_head()
        for name in names:
            run_section(bench, name, SECTIONS[name])
    counts = report(bench, facts, arguments.output, time.monotonic() - begin)
    return 1 if counts.get("FAIL") or (arguments.strict and counts.get("MISS")) else 0


if __name__ == "__main__":
    sys.exit(main())
