#!/usr/bin/python3
"""demo.py - what nearcached is worth, measured on this machine

Starts a Redis Cluster of three masters, puts a network between it and "two hosts" (a relay that
delays every byte), and runs six workloads: first directly against the cluster, then the same code
through two proxies, one per host. Prints a table, and leaves proxies, load and Prometheus (where it
is installed) running to be looked at until Ctrl-C.

    demo/demo.py [--seconds 60] [--warm-up 20] [--round-trip 0.5] [--json FILE] [--once]

    --seconds     how long each of the two is measured
    --round-trip  milliseconds between the hosts and Redis; 0.5 is a usual figure between two zones
                  of one region. 0: none at all, everything on this machine
    --json FILE   the figures, for programs
    --once        ends after the table
"""

import argparse
import asyncio
import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT / "scripts"))

import cluster as redis_cluster  # noqa: E402  pylint: disable=wrong-import-position
import workloads                 # noqa: E402  pylint: disable=wrong-import-position
from client import Direct, Plain  # noqa: E402  pylint: disable=wrong-import-position
from prometheus import Prometheus  # noqa: E402  pylint: disable=wrong-import-position
from report import Report        # noqa: E402  pylint: disable=wrong-import-position
from watch import Commands       # noqa: E402  pylint: disable=wrong-import-position

BINARY = pathlib.Path(os.environ.pop("NEARCACHED_BIN", ROOT / "build" / "nearcached"))


# Built beside the daemon.
DISTANCE = next((path for path in (BINARY.parent / "demo" / "distance",
                                   ROOT / "build" / "demo" / "distance") if path.exists()), None)


def say(text):
    print(text, flush=True)


class Distance:
    """The relay between the hosts and the masters; .ports: a master's port to the relay's."""

    def __init__(self, masters, round_trip_ms):
        self.ports = {master.port: redis_cluster.free_port() for master in masters}
        pairs = [f"{near}:{far}" for far, near in self.ports.items()]
        if DISTANCE is None:
            raise SystemExit("demo: the relay is not built: run make demo")
        self._process = subprocess.Popen(
            [str(DISTANCE), str(round(round_trip_ms * 500)), *pairs],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=redis_cluster.die_with_parent)
        if self._process.stdout.readline() != b"ready\n":
            raise SystemExit("demo: the relay did not start")

    def stop(self):
        self._process.kill()
        self._process.wait()


class Proxy:
    """One nearcached, as it would run on one host."""

    def __init__(self, backend, ports, listen, admin):
        self.port, self.admin = listen, admin
        mapped = " ".join(f"127.0.0.1:{far}=127.0.0.1:{near}" for far, near in ports.items())
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            [str(BINARY), "--config", str(HERE / "nearcached.conf"), "--backend", backend,
             "--address-map", mapped, "--listen", f"127.0.0.1:{listen}",
             "--admin", f"127.0.0.1:{admin}"],
            stderr=self.log, preexec_fn=redis_cluster.die_with_parent)

    def ask(self, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}{path}", timeout=5) as reply:
            return reply.read().decode()

    def is_ready(self):
        if self.process.poll() is not None:
            self.log.seek(0)
            raise SystemExit("demo: the proxy did not start:\n" + self.log.read().decode())
        with contextlib.suppress(OSError):
            return self.ask("/readyz") is not None
        return False

    def counters(self):
        """{(metric, namespace): value}, summed over all other labels."""
        counters = {}
        for line in self.ask("/metrics").splitlines():
            if line.startswith("#"):
                continue
            name, _, number = line.rpartition(" ")
            name, _, labels = name.partition("{")
            namespace = labels.partition('namespace="')[2].partition('"')[0]
            at = (name, namespace)
            counters[at] = counters.get(at, 0.0) + float(number)
        return counters

    def cpu_seconds(self):
        stat = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text()
        fields = stat.rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self):
        self.process.terminate()
        self.process.wait()
        self.log.close()


def free_port_from(first):
    """The first free port from there on, as `make run` has it."""
    return next(port for port in range(first, first + 500) if redis_cluster.can_bind(port))


def redis_cpu_seconds(masters):
    total = 0.0
    for master in masters:
        cpu = master.info("cpu")
        total += float(cpu["used_cpu_user"]) + float(cpu["used_cpu_sys"])
    return total


class Phase:
    """All workloads over one way to Redis, for a while."""

    def __init__(self, name, hosts, masters, proxies=()):
        self.name, self._masters, self._proxies = name, masters, proxies
        self.workloads = [kind(hosts, seed) for seed, kind in enumerate(workloads.ALL)]
        self._hosts = hosts
        self._tasks = []

    async def start(self):
        loader = await self._hosts[0]()
        for workload in self.workloads:
            await workload.load(loader)
        loader.close()
        self._tasks = [asyncio.ensure_future(task)
                       for workload in self.workloads for task in workload.tasks()]

    async def go_on(self, seconds):
        """Lets it run; an error of the demo itself ends it."""
        done, _ = await asyncio.wait(self._tasks, timeout=seconds,
                                     return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    async def measure(self, seconds):
        """What is between now and then, as a dict."""
        for workload in self.workloads:
            workload.figures.begin()
        counters = [proxy.counters() for proxy in self._proxies]
        cpu = [proxy.cpu_seconds() for proxy in self._proxies]
        redis_cpu = redis_cpu_seconds(self._masters)
        commands = Commands(self._masters, [w.prefix.decode() for w in self.workloads])
        began = time.monotonic()
        await self.go_on(seconds)
        took = time.monotonic() - began
        asked = commands.stop()
        result = {
            "name": self.name, "seconds": took, "commands": asked,
            "redis_cpu": redis_cpu_seconds(self._masters) - redis_cpu,
            "proxy_cpu": sum(p.cpu_seconds() for p in self._proxies) - sum(cpu),
            "workloads": {w.title: w.figures for w in self.workloads},
            "counters": {},
        }
        for proxy, before in zip(self._proxies, counters):
            for at, count in proxy.counters().items():
                result["counters"][at] = (result["counters"].get(at, 0.0)
                                          + count - before.get(at, 0.0))
        return result

    async def stop(self):
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def measured(phase, options):
    await phase.start()
    say(f"  {options.warm_up:g} s to warm up ...")
    await phase.go_on(options.warm_up)
    say(f"  {options.seconds:g} s measured ...")
    return await phase.measure(options.seconds)


async def run(options, stack, directory):
    say("Starting a Redis Cluster of three masters ...")
    cluster = redis_cluster.Cluster(directory, masters=3)
    stack.callback(cluster.stop)
    cluster.start()
    masters = cluster.masters()
    distance = Distance(masters, options.round_trip)
    stack.callback(distance.stop)
    owners = [(last, distance.ports[node.port]) for _, last, node in sorted(
        cluster.slot_owners(), key=lambda owner: owner[0])]

    say(f"\n1. Directly; Redis is {options.round_trip:g} ms away")
    direct = Phase("direct", [lambda: Direct.open("127.0.0.1", owners)] * 2, masters)
    results = [await measured(direct, options)]
    await direct.stop()
    for master in masters:
        master.ask("FLUSHALL")

    say(f"\n2. Through two proxies, one per host; Redis is {options.round_trip:g} ms away")
    backend = f"redis://127.0.0.1:{next(iter(distance.ports.values()))}"
    proxies = []
    for _ in range(2):
        used = [(proxy.port, proxy.admin) for proxy in proxies]
        proxy = Proxy(backend, distance.ports,
                      free_port_from(max((port for port, _ in used), default=6379) + 1),
                      free_port_from(max((admin for _, admin in used), default=9379) + 1))
        stack.callback(proxy.stop)
        proxies.append(proxy)
        redis_cluster.wait_for(proxy.is_ready, 30, "the proxy to be ready")
    prometheus = Prometheus([proxy.admin for proxy in proxies], directory)
    stack.callback(prometheus.stop)
    through = Phase("nearcached",
                    [lambda proxy=proxy: Plain.open("127.0.0.1", proxy.port) for proxy in proxies],
                    masters, proxies)
    results.append(await measured(through, options))

    report = Report(*results, workloads.ALL)
    say("\n" + report.text())
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(report.figures(), indent=2) + "\n")
    if options.once:
        await through.stop()
        return
    say("\nThe load goes on. Look at it:\n")
    for number, proxy in enumerate(proxies, 1):
        say(f"    proxy {number}       http://127.0.0.1:{proxy.admin}/        "
            f"redis-cli -p {proxy.port} CACHE INFO")
    say(f"    Prometheus    {prometheus.where()}\n\nCtrl-C ends everything that was started here.")
    await through.go_on(None)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--warm-up", type=float, default=20)
    parser.add_argument("--round-trip", type=float, default=0.5, help="milliseconds")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--once", action="store_true")
    return parser.parse_args()


def main():
    options = arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    directory = tempfile.mkdtemp(prefix="nearcached-demo-")
    try:
        with contextlib.ExitStack() as stack:
            asyncio.run(run(options, stack, directory))
    except KeyboardInterrupt:
        say("")
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
