"""A proxy under load while something goes wrong, and what must be so during it and afterwards.

An Arena has one proxy, its backend and a consistency.Workload. run() lets faults happen in turn and
then judges: no value that was wrong or older than the bound, no error of a kind that the documents
do not state for these faults, the proxy healthy, nothing left over (clients, waiters, buffers,
descriptors, memory), and after each fault an answer within RECOVERY seconds. That bound is waited
for and is wide; how long it took is printed.
"""

import os
import re
import time

from . import consistency
from .consistency import Workload
from .metrics import http_get
from .proxy import is_sanitized
from .resp import RespError
from .waiting import SCALE, wait_until

# make chaos: seconds per class of faults. 0: each fault once, as the test suite does.
SECONDS = float(os.environ.get("CHAOS_SECONDS", "0"))
RECOVERY = 30.0
MB = 1 << 20
# Each thread keeps 4 MB of buffers for the next ones that need some; and something for the rest.
POOLS = 3 * 4 * MB + 4 * MB

MAX_STALENESS = 0.5
# The clock of the test, and requests of a busy machine, on top.
BOUND = MAX_STALENESS + 0.3
OPTIONS = {"max-staleness": "500ms", "request-timeout": f"{int(1000 * SCALE)}ms",
           "connect-timeout": f"{int(500 * SCALE)}ms", "link-timeout": "2s",
           "reconnect-min": "20ms", "reconnect-max": "200ms", "topology-interval": "300ms",
           "negative-ttl": "5s"}
# Where nothing may fail at all: a busy machine keeps a server waiting for longer than a second.
PATIENT = {**OPTIONS, "request-timeout": f"{int(10 * SCALE)}s",
           "breaker-latency": f"{int(10 * SCALE)}s", "link-timeout": "10s"}
# Namespaces with policies of their own; none that may show what is older than the bound.
CONFIG = {'namespace "brief"': {"match": "brief:*", "max-ttl": "2s", "early-refresh": "500ms",
                                "ttl-jitter": "20"},
          'namespace "off"': {"match": "off:*", "cache": "off"},
          'namespace "held"': {"match": "held:*", "miss-lease": "60ms", "negative-ttl": "100ms"}}
PREFIXES = (b"", b"brief:", b"off:", b"held:")

# Through the proxy alone: the end of a version that went around it is known when the version is.
EXPIRING = tuple(consistency.Op(op.name, op.run, through=("proxy",)) for op in consistency.EXPIRING)

# What a client may be told; docs/operations.md, "What bad days look like".
AWAY = r"ERR nearcached: (no connection to the backend|the backend was not reached yet)"
LATE = r"ERR nearcached: the backend \S+ did not answer in time"
IN_DOUBT = (r"ERR nearcached: the connection to the backend( \S+)? was lost"
            r"|ERR nearcached: the connection of this transaction was lost"
            r"|ERR nearcached: a read could not be repeated")
ABORTED = r"EXECABORT |ABORTED by WATCH"
GONE = r"(ConnectionRefused|ConnectionReset|BrokenPipe|EOF|ConnectionAborted)Error"
WAITED = r"TimeoutError"
OUTAGE = (AWAY, LATE, IN_DOUBT, ABORTED)

QUIET = (("clients", {}), ("blocked_clients", {}), ("large_transfers", {}),
         ("leased_connections", {"state": "taken"}), ("miss_lease_waiting", {}),
         ("miss_leases", {}), ("backend_connecting", {}), ("memory_pressure_stage", {}),
         ("ledger_operations", {}), ("breaker_nodes", {"state": "open"}),
         ("breaker_nodes", {"state": "half-open"}), ("backend_away", {}))


class Level:
    """What a proxy holds while nobody asks anything."""

    def __init__(self, proxy):
        metrics = proxy.metrics()
        links = metrics.get("backend_links", state="up")
        leases = metrics.get("leased_connections", state="idle")
        self.descriptors = proxy.n_descriptors()
        self.others = self.descriptors - links - leases
        self.resident = proxy.rss_bytes()
        # Without tier 1: buffers, sessions, queues.
        self.working = metrics.get("allocated_bytes") - metrics.get("memory_bytes")
        self.noise = {name: metrics.get(*args, **labels) for name, (args, labels) in {
            f"{name}{labels or ''}": ((name,), labels) for name, labels in QUIET}.items()}

    def is_quiet(self):
        return not any(self.noise.values())

    def is_like(self, before):
        # One connection of the admin port may still be on its way out: that of the last look.
        return (self.is_quiet() and self.others <= before.others + 3
                and (is_sanitized() or (self.working <= before.working + POOLS
                                        and self.resident <= before.resident + 48 * MB)))

    def __repr__(self):
        return (f"{self.descriptors} descriptors ({self.others:g} without links),"
                f" {self.working / MB:.1f} MB without tier 1, {self.resident / MB:.0f} MB resident,"
                f" { {name: value for name, value in self.noise.items() if value} }")


class Arena:
    """proxy: under test. direct(): a client around it."""

    def __init__(self, proxy, direct, *, bound=BOUND, ops=None, n_readers=3, client_timeout=12.0,
                 recovery=RECOVERY):
        self.proxy = proxy
        self.bound = bound
        self.recovery = recovery
        self.proxies_gone = 0  # hits of processes that were killed
        self.recoveries = []
        self.n_rounds = 0
        self._direct = direct
        self._load = {"ops": ops or (consistency.SIMPLE * 2 + consistency.REMOVING
                                     + EXPIRING + consistency.PINNED),
                      "n_readers": n_readers, "client_timeout": client_timeout}

    def _workload(self, bound):
        return Workload(self.proxy.address, self._direct, bound=bound, prefixes=PREFIXES,
                        are_errors_allowed=True, n_direct_writers=1, **self._load)

    def hits(self):
        return self.proxies_gone + self.proxy.metrics().get("hits_total")

    def warm_up(self):
        """Links of every kind come up; what is held then is the level to come back to."""
        self._workload(0.01).run(0.4, settle=0)  # not judged: the run that follows is
        wait_until(lambda: Level(self.proxy).is_quiet(), 20, "a quiet proxy")
        return Level(self.proxy)

    def is_well(self):
        """A new client writes and reads in each namespace, and operators are told the same."""
        with self.proxy.client(timeout=5) as client:
            for prefix in PREFIXES:
                key = prefix + b"is it well"
                for command in (("SET", key, "yes"), ("GET", key), ("GET", key), ("DEL", key)):
                    value = client.value(*command)
                    if isinstance(value, RespError):
                        raise ConnectionError(str(value))
        return http_get(self.proxy.admin_address, "/readyz")[0] == 200

    def recover(self):
        begun = time.monotonic()
        wait_until(self.is_well, self.recovery, "the proxy to serve again")
        self.recoveries.append(time.monotonic() - begun)

    def run(self, name, faults, allowed=(), seconds=None, least_hits=0.05):
        """The faults in turn, each at least once, until the time is over. Returns the Report."""
        seconds = SECONDS if seconds is None else seconds
        before = self.warm_up()
        workload = self._workload(self.bound)
        self.workload = workload
        hits = self.hits()

        def happen(until):
            while True:
                for fault in faults:
                    fault(self)
                    self.recover()
                    self.proxy.assert_healthy()
                    self.n_rounds += 1
                if time.monotonic() >= until:
                    return
                time.sleep(0.3)

        report = workload.run(seconds, happen)
        hits = self.hits() - hits
        after = self._quiet_again(before)
        kinds = self._kinds(report)
        print(f"\nchaos {name}: {self.n_rounds} faults, {report.n_reads} reads ({hits:.0f} hits),"
              f" {report.n_writes} writes, recovery {min(self.recoveries):.2f} to"
              f" {max(self.recoveries):.2f} s, errors {kinds or 'none'}\n"
              f"    before: {before!r}\n    after:  {after!r}")
        assert not report.anomalies, "\n".join(report.anomalies[:10])
        unknown = {kind: n for kind, n in kinds.items()
                   if not any(re.search(each, kind) for each in allowed)}
        assert not unknown, f"errors that nobody announced: {unknown}"
        assert report.n_reads > 50 and report.n_writes > 10, report.summary()
        assert hits > least_hits * report.n_reads
        return report

    @staticmethod
    def _kinds(report):
        """Errors through the proxy, by their texts; who goes around it is on its own."""
        kinds = {}
        for where, count in report.errors.items():
            place, _, text = where.partition(": ")
            if place != "direct write":
                text = re.sub(r"\d+\.\d+\.\d+\.\d+:\d+", "ADDR", text).split(" (")[0]
                kinds[text] = kinds.get(text, 0) + count
        return dict(sorted(kinds.items(), key=lambda item: -item[1]))

    def _quiet_again(self, before):
        level = before

        def is_like_before():
            nonlocal level
            level = Level(self.proxy)
            return level.is_like(before)

        try:
            wait_until(is_like_before, 30, "the proxy to hold what it held before", pause=0.1)
        except AssertionError as error:
            raise AssertionError(f"{error}\nbefore: {before!r}\nafter:  {level!r}") from None
        self.proxy.assert_healthy()
        return level
