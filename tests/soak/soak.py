#!/usr/bin/python3
"""make soak: does anything grow that should not, under a load that uses everything?

Two proxies stand in front of a cluster of three masters; the actors of load.py put a steady load on
them. Every few seconds each proxy is sampled: resident memory, descriptors, threads, and every gauge
of /metrics, which has the size of every table. A prober asks one thing at a time, at each proxy and at a
node of the cluster, and keeps p50 and p99 of each period. drift.py compares the last third of the run with
the middle one. When all clients have gone, nothing of theirs may be left; then the proxies must end
with status 0.

    SOAK_SECONDS=1800 NEARCACHED_BIN=build/nearcached /usr/bin/python3 tests/soak/soak.py

Writes report.txt and report.json, the logs of the proxies beside them, to build/soak (--out). Status
1: something drifted, was left behind, failed, or answered wrongly. --quick is for the test suite: the
same without a judgement of drift, for which seconds are too few.
"""

import argparse
import json
import multiprocessing
import os
import pathlib
import shutil
import statistics
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT / "tests" / "integration"), str(HERE)]

import drift  # noqa: E402
import load  # noqa: E402
from harness.proxy import BINARY, Proxy  # noqa: E402
from harness.resp import RawClient  # noqa: E402
from harness.servers import RedisCluster, free_port, key_slot  # noqa: E402
from harness.tls import Authority  # noqa: E402
from harness.waiting import wait_until  # noqa: E402

N_PROXIES = 2
# Small, so that tier 1 is full, and evicts, before the first third is over.
OPTIONS = {"max-staleness": "1s", "maxmemory": "16mb", "ledger-review": "20s", "log-level": "warn",
           "unlink-rate": "100000", "audit-sample": "1000", "threads": "2", "bus-secret": "soak"}

MEMORY = drift.Tolerance(.03, 2 << 20)
BYTES = drift.Tolerance(.05, 1 << 20)
DESCRIPTORS = drift.Tolerance(.05, 8)
THREADS = drift.Tolerance(0, .5)
COUNT = drift.Tolerance(.25, 25)
# Timing on a machine that does other things: only what is plainly slower.
P50 = drift.Tolerance(.5, .0005)
P99 = drift.Tolerance(2.0, .010)

# Gauges that hold nothing: clocks, limits, ages, shares, flags, and what others on the machine hold.
NOT_JUDGED = {
    "uptime_seconds", "tls_certificate_expiry_timestamp_seconds", "max_clients",
    "memory_limit_bytes", "memory_budget_bytes", "memory_ceiling_bytes",
    "process_memory_limit_bytes", "process_memory_held_bytes", "cgroup_memory_limit_bytes",
    "memory_stalled_ratio", "memory_pressure_stage", "staleness_bound_seconds",
    "watermark_age_seconds", "stale_ratio", "ban_sweep_longest_lock_seconds",
    "ban_sweep_longest_slice_seconds",
}

# What belongs to clients is gone when they are.
LEFT_BEHIND = (
    ("clients", {}), ("blocked_clients", {}), ("subscriptions", {}), ("large_transfers", {}),
    ("client_tracking_clients", {}), ("client_tracking_keys", {}),
    ("leased_connections", {"state": "taken"}), ("miss_leases", {}), ("miss_lease_waiting", {}),
    ("tls_connections", {"side": "client"}), ("ledger_operations", {}), ("unlink_jobs", {}),
    ("audits_under_way", {}),
)
# Share of rounds that may end in an error reply.
ERRORS_SHARE = .01
LEFT_SECONDS = 30


# ---- sampling ----

def series_name(key):
    name, labels = key
    name = name.removeprefix("nearcached_")
    return name + ("{" + ",".join(f"{k}={v}" for k, v in sorted(labels)) + "}" if labels else "")


def gauges_of(metrics):
    kinds = dict(line.split()[2:4] for line in metrics.text.splitlines()
                 if line.startswith("# TYPE "))
    return {series_name(key): value for key, value in metrics.samples.items()
            if kinds.get(key[0]) == "gauge"
            and key[0].removeprefix("nearcached_") not in NOT_JUDGED}


def sample(proxy):
    """{figure: value}. What /metrics counts beside tier 1 is a figure of its own."""
    metrics = proxy.metrics()
    found = gauges_of(metrics)
    process = pathlib.Path(f"/proc/{proxy.pid}")
    found["rss_bytes"] = proxy.rss_bytes()
    found["descriptors"] = len(os.listdir(process / "fd"))
    found["threads"] = len(os.listdir(process / "task"))
    found["allocated_beside_tier_1_bytes"] = metrics.get("allocated_bytes") - metrics.get(
        "memory_bytes")
    return found


def tolerance_of(name):
    plain = name.split("{")[0].split("/")[-1]
    if plain in ("rss_bytes", "process_resident_bytes"):
        return MEMORY
    if plain == "threads":
        return THREADS
    if plain == "descriptors":
        return DESCRIPTORS
    return BYTES if plain.endswith("_bytes") else COUNT


# ---- latency ----

def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def _probe(proxies, node, key, period, stop, results):
    """Every few milliseconds one request of each kind; one line per kind and period."""
    clients = [RawClient(address, timeout=load.PATIENCE_S) for address in proxies]
    direct = RawClient(node, timeout=load.PATIENCE_S)
    kinds = [("backend", direct, ("GET", key))]
    for i, client in enumerate(clients):
        kinds += [(f"proxy{i}/hit", client, ("GET", key)),
                  (f"proxy{i}/relayed", client, ("GET", f"off:{{{key}}}"))]
    direct.ok("SET", key, "x" * 100)
    times = {name: [] for name, _, _ in kinds}
    end = time.monotonic() + period
    while not stop.is_set():
        for name, client, words in kinds:
            begun = time.monotonic()
            client.ask(*words)
            times[name].append(time.monotonic() - begun)
        if time.monotonic() > end:
            results.put((time.monotonic(), {
                name: (percentile(some, .5), percentile(some, .99)) for name, some in
                times.items() if some}))
            times = {name: [] for name in times}
            end = time.monotonic() + period
        time.sleep(.005)
    results.put(None)


class Prober:
    def __init__(self, proxies, cluster, period):
        context = multiprocessing.get_context("fork")
        self._stop, self._results = context.Event(), context.Queue()
        key = "probe"
        self._process = context.Process(target=_probe, daemon=True, args=(
            [proxy.address for proxy in proxies], cluster.owner(key_slot(key)).address, key, period,
            self._stop, self._results))

    def start(self):
        self._process.start()

    def stop(self):
        """{"proxy0/hit/p50": series, ...} in seconds, control series among them."""
        self._stop.set()
        series = {}
        while (one := self._results.get(timeout=60)) is not None:
            at, kinds = one
            for name, (p50, p99) in kinds.items():
                series.setdefault(f"{name}/p50", []).append((at, p50))
                series.setdefault(f"{name}/p99", []).append((at, p99))
        self._process.join()
        return series


# ---- the run ----

class Soak:
    def __init__(self, directory, seconds, period):
        self.directory, self.seconds, self.period = directory, seconds, period
        self.figures = {}  # "proxy0/rss_bytes": series
        self.latency = {}
        self.problems = []
        self.actors, self.errors, self.idle = {}, {}, {}
        self.began = self.ended = 0.0

    def run(self):
        cluster = RedisCluster(self.directory / "cluster", masters=3)
        cluster.start()
        authority = Authority(self.directory / "ca")
        certificate = authority.issue("server")
        proxies, tls_ports = [], []
        try:
            for _ in range(N_PROXIES):
                tls_ports.append(free_port())
                proxies.append(self._start(cluster, certificate, tls_ports[-1]))
            for proxy in proxies:
                proxy.wait_metric("coherence_links", 6, mode="tracking")
                proxy.wait_metric("bus_peers", N_PROXIES - 1)
            world = load.World(proxies, tls_ports, str(authority.cert), cluster,
                               [proxy.pid for proxy in proxies])
            self._soak(proxies, cluster, world)
            self._wait_until_nothing_is_left(proxies)
        finally:
            for proxy in proxies:
                self._stop(proxy)
            cluster.stop()

    def _start(self, cluster, certificate, tls_port):
        options = dict(OPTIONS)
        sections = {"server": {"threads": options.pop("threads")},
                    "coherence": {"max-staleness": options.pop("max-staleness")},
                    "tls": {"tls-listen": f"127.0.0.1:{tls_port}",
                            "tls-cert-file": certificate.cert, "tls-key-file": certificate.key},
                    **load.SECTIONS}
        return Proxy(self.directory, cluster.url(), options, config=sections).start()

    def _soak(self, proxies, cluster, world):
        self._note_idle(proxies, "before")
        prober = Prober(proxies, cluster, self.period)
        actors = load.Load(world, pause_max=self.seconds / 10)
        prober.start()
        actors.start()
        self.began = time.monotonic()
        due = self.began
        while (due := due + self.period) < self.began + self.seconds:
            time.sleep(max(0.0, due - time.monotonic()))
            for i, proxy in enumerate(proxies):
                try:
                    self._keep(i, sample(proxy))
                except (OSError, AssertionError) as error:
                    self.problems.append(f"proxy{i} could not be sampled: {error}")
                    return self._end_load(actors, prober)
        self._end_load(actors, prober)

    def _end_load(self, actors, prober):
        self.ended = time.monotonic()
        self.actors, self.errors = actors.stop()
        self.latency = prober.stop()

    def _keep(self, number, found):
        at = time.monotonic()
        for name, value in found.items():
            self.figures.setdefault(f"proxy{number}/{name}", []).append((at, value))

    def _note_idle(self, proxies, when):
        for i, proxy in enumerate(proxies):
            found = sample(proxy)
            self.idle[f"proxy{i} {when}"] = {name: found[name] for name in (
                "rss_bytes", "descriptors", "threads", "allocated_beside_tier_1_bytes")}

    def _wait_until_nothing_is_left(self, proxies):
        for i, proxy in enumerate(proxies):
            try:
                wait_until(lambda proxy=proxy: not self._left(proxy), LEFT_SECONDS, "clients to go")
            except AssertionError:
                self.problems.append(f"proxy{i}: left when all clients had gone: "
                                     f"{self._left(proxy)}")
        self._note_idle(proxies, "after")

    @staticmethod
    def _left(proxy):
        metrics = proxy.metrics()
        return {name: metrics.get(name, **labels) for name, labels in LEFT_BEHIND
                if metrics.get(name, **labels) != 0}

    def _stop(self, proxy):
        try:
            proxy.stop()
        except AssertionError as error:
            self.problems.append(str(error)[:2000])

    # Judging

    def judge(self):
        """{figure: Verdict}; problems grow by what drifted."""
        verdicts = {}
        span = self.began, self.ended
        for name, series in self.figures.items():
            verdicts[name] = drift.judge(series, tolerance_of(name), *span)
        for name, series in self.latency.items():
            kind, which = name.rsplit("/", 1)
            if kind != "backend":
                verdicts[name] = drift.judge_beside(
                    series, self.latency[f"backend/{which}"], P50 if which == "p50" else P99, *span,
                    machine=self.latency["backend/p50"])
        self.problems += [f"{name} drifted: {told(verdict)}" for name, verdict in verdicts.items()
                          if verdict.has_drifted]
        self.problems += [f"{name}: too few samples to judge" for name in self.figures
                          if not verdicts[name].is_judged and self._was_always_there(name)]
        return verdicts

    def _was_always_there(self, name):
        """Not a namespace's figure that appears when it has entries, or a busy machine's latency."""
        return "{" not in name

    def check_load(self):
        n_rounds = sum(actor["rounds"] for actor in self.actors.values())
        for name, actor in self.actors.items():
            if actor["n_failures"]:
                self.problems.append(f"{name} failed {actor['n_failures']} times, first:\n"
                                     f"{(actor['failures'] or ['?'])[0]}")
            if actor["rounds"] == 0:
                self.problems.append(f"{name} did nothing")
        n_errors = sum(self.errors.values())
        if n_errors > ERRORS_SHARE * n_rounds:
            self.problems.append(f"{n_errors} error replies in {n_rounds} rounds: {self.errors}")


# ---- the report ----

def told(verdict):
    return (f"{verdict.middle:g} -> {verdict.last:g}, {verdict.slope_per_hour:+g} an hour, growth "
            f"{verdict.growth:g} of {verdict.tolerated:g} tolerated, rising {verdict.rising:.2f}")


def report_text(soak, verdicts):
    lines = [f"soak: {soak.ended - soak.began:.0f} s, {N_PROXIES} proxies, "
             f"{sum(a['rounds'] for a in soak.actors.values())} rounds of {len(soak.actors)} actors",
             "", f"{'figure':60} {'middle':>12} {'last':>12} {'per hour':>12}"]
    for name, verdict in sorted(verdicts.items()):
        if verdict.middle or verdict.last or verdict.has_drifted:
            lines.append(f"{name:60} {verdict.middle:12.6g} {verdict.last:12.6g} "
                         f"{verdict.slope_per_hour:+12.4g}{'  DRIFT' * verdict.has_drifted}")
        elif not verdict.is_judged:
            lines.append(f"{name:60} not judged: the machine was busy, or too few samples")
    for name, series in sorted(soak.latency.items()):
        if name.startswith("backend/"):
            lines.append(f"{name:60} median {statistics.median(v for _, v in series):.6g} (control)")
    lines += ["", "without clients:"]
    lines += [f"  {name}: " + " ".join(f"{k}={v:.0f}" for k, v in figures.items())
              for name, figures in soak.idle.items()]
    lines += ["", "rounds: " + " ".join(f"{name}={actor['rounds']}"
                                        for name, actor in soak.actors.items())]
    lines += [f"error replies: {soak.errors or 'none'}", ""]
    lines += [f"PROBLEM: {problem}" for problem in soak.problems] or ["no drift, nothing left behind"]
    return "\n".join(lines) + "\n"


def write_report(out, soak, verdicts):
    out.mkdir(parents=True, exist_ok=True)
    text = report_text(soak, verdicts)
    (out / "report.txt").write_text(text)
    (out / "report.json").write_text(json.dumps({
        "seconds": soak.ended - soak.began, "period": soak.period, "problems": soak.problems,
        "verdicts": {name: vars(verdict) for name, verdict in verdicts.items()},
        "actors": soak.actors, "errors": soak.errors, "idle": soak.idle,
        "series": {name: [(round(at - soak.began, 3), value) for at, value in series]
                   for name, series in {**soak.figures, **soak.latency}.items()}}, indent=1))
    for log in soak.directory.glob("proxy-*.log"):
        shutil.copy(log, out)
    return text


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float,
                        default=float(os.environ.get("SOAK_SECONDS", "1800")))
    parser.add_argument("--period", type=float, help="between samples; else a 300th of the run")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "build" / "soak")
    parser.add_argument("--quick", action="store_true", help="no judgement of drift")
    arguments = parser.parse_args()
    period = arguments.period or max(.5, arguments.seconds / 300)
    print(f"soak of {BINARY}: {arguments.seconds:g} s, a sample every {period:g} s", flush=True)
    with tempfile.TemporaryDirectory(prefix="nearcached-soak-") as name:
        soak = Soak(pathlib.Path(name), arguments.seconds, period)
        soak.run()
        verdicts = {} if arguments.quick else soak.judge()
        soak.check_load()
        print(write_report(arguments.out, soak, verdicts), end="")
    return 1 if soak.problems else 0


if __name__ == "__main__":
    sys.exit(main())
