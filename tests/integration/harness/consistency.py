"""Concurrent writers and readers whose values carry versions, and the checker of what was read.

History:    every key has one line of versions. A writer holds the key's lock while it writes, so
            the versions' order is the order of execution. A version is a value or "missing" (DEL,
            FLUSHALL, expiry), with the times before the request was sent and after its
            acknowledgement, and which proxy it went through, if any. Times are CLOCK_BOOTTIME.
Unknown:    after an error or a lost connection a write may still be executed at any later time.
            Its key is retired: what is read of it from then on is not judged, a fresh key follows.
Checks:     each read must show at least (I1) the newest version acknowledged through its own proxy
            before the read began, (I3) the newest version acknowledged anywhere `bound` seconds
            before it began, (I4) what its connection has seen of the key; (I5) after a deadline no
            value; (I8) nothing that its own connection wrote after it; and nothing that was not
            begun when the read ended.
Rollbacks:  a failover may lose acknowledged writes. Versions acknowledged within such a window
            bind nobody. Blind windows: reads that touch them are judged by nothing but I4, for
            the time in which the backend itself is known to serve old data.

The result is a list of anomalies, each a sentence; empty is a pass.
"""

import bisect
import collections
import random
import threading
import time

from .resp import BadFrame, RawClient, RespError, decode
from .waiting import SCALE, now, scenario_seconds

# Redis counts in milliseconds of a clock that it reads once per command.
CLOCK_SLACK = 0.005
MAX_ANOMALIES = 20

LOST = (OSError, EOFError, BadFrame)


# Instead of a proxy's number: through each of them, as far as I1 goes; and around them all.
ALL_PROXIES = -1
NO_PROXY = None


class Version:
    """One state of one key. acked None: never acknowledged; number None: missing."""

    __slots__ = ("number", "begun", "acked", "proxy", "is_binding")

    def __init__(self, number, begun, acked, proxy, is_binding=True):
        self.number = number
        self.begun = begun
        self.acked = acked
        self.proxy = proxy
        self.is_binding = is_binding


class KeyHistory:
    """The versions of one key, oldest first. Guarded by the lock of the slot that it is in."""

    def __init__(self, name, is_hash=False):
        self.name = name
        self.is_hash = is_hash
        self.versions = [Version(None, float("-inf"), float("-inf"), ALL_PROXIES)]
        self.last_number = 0
        self.retired_at = float("inf")
        self.expiry = None  # (earliest, latest) time at which the newest version goes by itself

    def next_number(self):
        self.last_number += 1
        return self.last_number

    def settle_expiry(self, begun, acked):
        """Enters the expiry of the former version, if it came before the write begun..acked."""
        if self.expiry is None:
            return
        earliest, latest = self.expiry
        self.expiry = None
        if latest < begun:
            self.versions.append(Version(None, earliest, latest, ALL_PROXIES))
        elif acked is None or earliest <= acked:
            self.versions.append(Version(None, earliest, None, ALL_PROXIES, is_binding=False))

    def add(self, number, begun, acked, proxy, expiry=None):
        self.settle_expiry(begun, acked)
        self.versions.append(Version(number, begun, acked, proxy))
        self.expiry = expiry

    def retire(self, begun):
        self.settle_expiry(begun, None)
        self.retired_at = min(self.retired_at, begun)


class Read:
    """One answered read. below/at_least: version numbers set by its own connection's pipeline."""

    __slots__ = ("connection", "proxy", "key", "begun", "ended", "number", "below", "at_least",
                 "what")

    def __init__(self, link, key, begun, ended, number, what, below=None, at_least=None):
        self.connection = link.name
        self.proxy = link.proxy
        self.key = key
        self.begun = begun
        self.ended = ended
        self.number = number
        self.what = what
        self.below = below
        self.at_least = at_least


class _Line:
    """One key's versions, prepared for the questions that check() asks."""

    def __init__(self, key, rollbacks):
        self.name = key.name
        self.versions = key.versions
        self.at = {version.number: index for index, version in enumerate(key.versions)
                   if version.number is not None}
        self.missing = [index for index, version in enumerate(key.versions)
                        if version.number is None]
        self.is_firm = [
            version.is_binding and version.acked is not None and not any(
                version.acked >= first and version.begun <= last for first, last in rollbacks)
            for version in key.versions]
        self._all = self._by_time(lambda version: True)
        self._proxied = {}

    def _by_time(self, chosen):
        found = [(version.acked, index) for index, version in enumerate(self.versions)
                 if self.is_firm[index] and chosen(version)]
        found.sort()
        times, newest, highest = [], [], 0
        for acked, index in found:
            highest = max(highest, index)
            times.append(acked)
            newest.append(highest)
        return times, newest

    @staticmethod
    def _floor(table, before):
        times, newest = table
        position = bisect.bisect_left(times, before)
        return newest[position - 1] if position else 0

    def floor_anywhere(self, before):
        return self._floor(self._all, before)

    def floor_proxied(self, proxy, before):
        if proxy not in self._proxied:
            self._proxied[proxy] = self._by_time(
                lambda version: version.proxy in (proxy, ALL_PROXIES))
        return self._floor(self._proxied[proxy], before)

    def describe(self, index):
        version = self.versions[index]
        what = "missing" if version.number is None else f"v{version.number}"
        return (f"{what} ({'direct' if version.proxy is NO_PROXY else f'proxy {version.proxy}'}, begun {version.begun:.6f},"
                f" acked {version.acked if version.acked is None else round(version.acked, 6)})")

    def neighbours(self, index):
        first, last = max(index - 2, 0), min(index + 3, len(self.versions))
        return ", ".join(self.describe(each) for each in range(first, last))


def check(reads, bound, rollbacks=(), blind=()):
    """The anomalies among reads, which stand in order of reply per connection."""
    anomalies, lines, seen, reported = [], {}, {}, set()

    def report(kind, read, line, floor):
        # One wrong version is often read many times before it goes.
        case = (kind, read.connection, read.key, floor)
        if len(anomalies) < MAX_ANOMALIES and case not in reported:
            reported.add(case)
            shown = "missing" if read.number is None else f"v{read.number}"
            anomalies.append(
                f"{kind}: {read.what} of {line.name!r} on {read.connection} begun {read.begun:.6f}"
                f" ended {read.ended:.6f} showed {shown}; expected at least {line.describe(floor)}"
                f"; around it: {line.neighbours(floor)}")

    for read in reads:
        if read.ended >= read.key.retired_at:
            continue
        line = lines.get(read.key)
        if line is None:
            line = lines[read.key] = _Line(read.key, rollbacks)
        is_blind = any(read.ended >= first and read.begun <= last for first, last in blind)
        floors = [("I4 went backwards", seen.get((read.connection, read.key), 0))]
        if not is_blind:
            floors += [
                ("I1 older than what was written through the proxy",
                 line.floor_proxied(read.proxy, read.begun)),
                ("I3 older than the staleness bound", line.floor_anywhere(
                    read.begun - bound))]
            if read.at_least is not None and line.is_firm[line.at[read.at_least]]:
                floors.append(("I1 older than its own pipelined write", line.at[read.at_least]))
        kind, floor = max(floors, key=lambda item: item[1])
        index = _shown(read, line, floor)
        if index is None:
            report(kind + ", or a state that never was", read, line, floor)
            continue
        if index < floor:
            report(kind, read, line, floor)
        elif line.versions[index].begun > read.ended:
            report("a version before it was written", read, line, index)
        elif read.below is not None and index >= line.at.get(read.below, 1 << 60):
            report("I8 shows what was sent after it", read, line, index)
        if line.is_firm[index]:
            key = (read.connection, read.key)
            seen[key] = max(seen.get(key, 0), index)
    return anomalies


def _shown(read, line, floor):
    """Index of the version that the read showed; None if it matches none that is possible.

    "missing" matches the oldest such state not below the floor: the reader's benefit. A supposed
    expiry may stand before a removal that was begun earlier, so a few are looked at.
    """
    if read.number is not None:
        return line.at.get(read.number)
    position = bisect.bisect_left(line.missing, floor)
    for index in line.missing[position:position + 4]:
        if line.versions[index].begun <= read.ended:
            return index
    return None


# --- reads ---------------------------------------------------------------------------------------

def _number(value):
    """The version number that a value begins with; None for a missing one."""
    if not value:
        return None
    if isinstance(value, RespError):
        raise value
    return int(value.split(b":", 1)[0])


STRING_READS = (
    (lambda name: ("GET", name), lambda reply: reply),
    (lambda name: ("GET", name), lambda reply: reply),
    (lambda name: ("GETRANGE", name, 0, 20), lambda reply: reply),
    (lambda name: ("MGET", name), lambda reply: reply[0]),
    (lambda name: ("GETRANGE", name, 0, 12), lambda reply: reply),
)
HASH_READS = (
    (lambda name: ("HGET", name, "v"), lambda reply: reply),
    (lambda name: ("HMGET", name, "v", "w"), lambda reply: reply[0]),
    (lambda name: ("HGETALL", name), lambda reply: _field_v(reply)),
    (lambda name: ("HMGET", name, "none", "v"), lambda reply: reply[1]),
)


def _field_v(reply):
    if isinstance(reply, dict):
        return reply.get(b"v")
    return dict(zip(reply[::2], reply[1::2])).get(b"v")


def _value(number, rng):
    return b"%d:" % number + b"x" * rng.choice((8, 40, 40, 200, 3000))


# --- writes: each brings a key to the version `number` (or to missing) ----------------------------

class Op:
    """One way to write. is_missing: it removes the key. A hash op needs a hash key."""

    def __init__(self, name, run, is_missing=False, is_hash=False, through=("proxy", "direct")):
        self.name = name
        self.run = run
        self.is_missing = is_missing
        self.is_hash = is_hash
        self.through = through


def _set(link, key, value, _):
    link.ok("SET", key, value)


def _getset(link, key, value, _):
    link.ok("GETSET", key, value)


def _mset(link, key, value, _):
    link.ok("MSET", key, value)


def _setex(link, key, value, _):
    link.ok("SETEX", key, 1000, value)


def _rename(link, key, value, _):
    link.ok("SET", b"{%s}tmp" % key, value)
    link.ok("RENAME", b"{%s}tmp" % key, key)


def _copy(link, key, value, _):
    link.ok("SET", b"{%s}tmp" % key, value)
    link.ok("COPY", b"{%s}tmp" % key, key, "REPLACE")


def _eval(link, key, value, _):
    link.ok("EVAL", "return redis.call('SET', KEYS[1], ARGV[1])", 1, key, value, routing_key=key)


def _eval_undeclared(link, key, value, _):
    link.ok("EVAL", "return redis.call('SET', ARGV[1], ARGV[2])", 0, key, value, routing_key=key)


def _persist(link, key, value, _):
    link.ok("SET", key, value, "EX", 500)
    link.ok("PERSIST", key)


def _delete(link, key, *_):
    link.ok("DEL", key)


def _unlink(link, key, *_):
    link.ok("UNLINK", key)


def _expire_in_the_past(link, key, *_):
    link.ok("PEXPIREAT", key, 1000)


def _expire_soon(link, key, value, rng):
    px = rng.choice((60, 150, 400))
    begun = now()
    link.ok("SET", key, value, "PX", px)
    return begun, px


def _pexpire(link, key, value, rng):
    px = rng.choice((60, 150, 400))
    link.ok("SET", key, value)
    begun = now()
    link.ok("PEXPIRE", key, px)
    return begun, px


def _hset(link, key, value, _):
    link.ok("HSET", key, "v", value, "w", "second")


def _hset_again(link, key, value, _):
    link.ok("HMSET", key, "v", value)


def _transaction(link, key, value, rng):
    """MULTI ... EXEC, with WATCH and a read of the key inside in half of the cases."""
    is_watching = rng.random() < 0.5
    try:
        # A key that expires between WATCH and EXEC aborts, rightly: then once more.
        for _ in range(10):
            if is_watching:
                link.ok("WATCH", key)
                link.ok("GET", key)
            link.ok("MULTI")
            link.ok("SET", key, b"overwritten at once")
            link.ok("GET", key)
            link.ok("SET", key, value)
            if link.ok("EXEC") is not None:
                return
        raise RespError("ABORTED by WATCH, ten times")
    except RespError:
        link.close()  # it may still stand inside MULTI
        raise


SIMPLE = (Op("SET", _set), Op("GETSET", _getset), Op("SETEX", _setex), Op("MSET", _mset),
          Op("HSET", _hset, is_hash=True), Op("HMSET", _hset_again, is_hash=True))
REMOVING = (Op("DEL", _delete, is_missing=True), Op("UNLINK", _unlink, is_missing=True),
            Op("DEL hash", _delete, is_missing=True, is_hash=True),
            Op("PEXPIREAT past", _expire_in_the_past, is_missing=True))
MOVING = (Op("RENAME", _rename), Op("COPY", _copy), Op("EVAL", _eval), Op("PERSIST", _persist))
PINNED = (Op("MULTI", _transaction, through=("proxy",)),)
EXPIRING = (Op("SET PX", _expire_soon), Op("PEXPIRE", _pexpire))
SCRIPTED = (Op("EVAL undeclared", _eval_undeclared, through=("proxy",)), Op("SET", _set))
ALL = SIMPLE * 2 + REMOVING + MOVING + EXPIRING + PINNED


class Link:
    """A connection that opens itself again, so that workers go on after a fault."""

    _number = 0

    def __init__(self, make, name, proxy=NO_PROXY):
        self._make = make
        self.proxy = proxy
        self._client = None
        self._base = name
        self.name = name

    def _connected(self):
        if self._client is None:
            # A new connection promises nothing about what the former one saw.
            Link._number += 1
            self.name = f"{self._base}#{Link._number}"
            try:
                self._client = self._make()
            except RespError as error:  # more clients than are allowed
                raise ConnectionRefusedError(str(error)) from None
        return self._client

    def ok(self, *args, routing_key=None):
        try:
            client = self._connected()
            if routing_key is not None and not isinstance(client, RawClient):
                return client.ok(*args, key=routing_key)
            return client.ok(*args)
        except LOST:
            self.close()
            raise

    def pipeline(self, commands):
        try:
            return self._connected().pipeline(commands)
        except LOST:
            self.close()
            raise

    def close(self):
        if self._client is not None:
            self._client.close()
            self._client = None


class Report:
    """What a run found."""

    def __init__(self):
        self.anomalies = []
        self.n_reads = 0
        self.n_writes = 0
        self.errors = collections.Counter()
        self.ops = collections.Counter()

    def summary(self):
        return (f"{self.n_reads} reads, {self.n_writes} writes, {sum(self.errors.values())} errors"
                f" {dict(self.errors.most_common(5))}")


class Workload:
    """One scenario's load. run() returns its Report.

    proxy: address to read from and to write to, or a list of several, which readers and writers take
    in turn. direct(): makes a client that goes around them.
    prefixes: what the names of keys begin with, in turn: so several namespaces are at work.
    bound: seconds after which a foreign write must be seen. are_errors_allowed: faults are at work,
    an error reply or a lost connection is no anomaly.
    """

    def __init__(self, proxy, direct, *, bound, ops=ALL, n_keys=24, n_readers=3, n_proxy_writers=2,
                 n_direct_writers=1, are_errors_allowed=False, has_flushall=False,
                 write_pause=0.002, seed=1, proxy_for_writes=None, client_timeout=6.0,
                 prefixes=(b"",)):
        self._proxies = proxy if isinstance(proxy, list) else [proxy]
        self._proxy_for_writes = proxy_for_writes
        self._direct = direct
        self._bound = bound
        self._ops = ops
        self._n_readers = n_readers
        self._n_proxy_writers = n_proxy_writers
        self._n_direct_writers = n_direct_writers
        self._are_errors_allowed = are_errors_allowed
        self._has_flushall = has_flushall
        self._write_pause = write_pause
        self._client_timeout = client_timeout
        self._seed = seed
        self._prefix = b"c%d" % random.Random().randrange(1 << 40)
        self._prefixes = prefixes
        self._n_names = 0
        self._names_lock = threading.Lock()
        self.rollbacks = []
        self.blind = []
        self.report = Report()
        self._report_lock = threading.Lock()
        self._stop = threading.Event()
        has_hashes = any(op.is_hash for op in ops)
        self.keys = [self._new_key(has_hashes and index % 4 == 3) for index in range(n_keys)]
        self._locks = [threading.Lock() for _ in range(n_keys)]
        self._failure = None

    def _new_key(self, is_hash):
        with self._names_lock:
            self._n_names += 1
            return KeyHistory(b"%s%s:%d" % (self._prefixes[self._n_names % len(self._prefixes)],
                                            self._prefix, self._n_names), is_hash)

    # Links

    def _proxy_link(self, name, number, protocol, address=None):
        proxy = number % len(self._proxies)
        return Link(lambda: RawClient(address or self._proxies[proxy], protocol,
                                      timeout=self._client_timeout), name, proxy)

    def _count_error(self, where, error):
        text = str(error) if isinstance(error, RespError) else type(error).__name__
        with self._report_lock:
            self.report.errors[f"{where}: {text[:80]}"] += 1

    # Writing

    def _writer(self, number, is_proxied):
        rng = random.Random(self._seed * 1000 + number)
        where = "proxy" if is_proxied else "direct"
        ops = [op for op in self._ops if where in op.through] or [Op("SET", _set)]
        if is_proxied:
            link = self._proxy_link(f"writer{number}", number, 2 + number % 2,
                                    self._proxy_for_writes)
            echo = self._proxy_link(f"echo{number}", number, 2 + (number + 1) % 2)
        else:
            link, echo = Link(self._direct, f"direct{number}"), None
        reads, flush_at = [], time.monotonic() + 0.3
        while not self._stop.is_set():
            if self._has_flushall and is_proxied and time.monotonic() > flush_at:
                flush_at = time.monotonic() + 0.4
                self._flush_all(link)
                continue
            slot = rng.randrange(len(self.keys))
            if not self._locks[slot].acquire(blocking=False):
                continue
            try:
                key = self.keys[slot]
                chosen = [op for op in ops if op.is_hash == key.is_hash]
                if chosen and is_proxied and not key.is_hash and rng.random() < 0.2:
                    is_done = self._pipelined_write(link, slot, key, rng, reads)
                elif chosen:
                    is_done = self._write(link, slot, key, rng.choice(chosen), rng)
                else:
                    is_done = True
            finally:
                self._locks[slot].release()
            if is_done and echo is not None and rng.random() < 0.5:
                self._read_batch(echo, [key], rng, reads)
            self._stop.wait(self._write_pause if is_done else 0.02)
        link.close()
        if echo is not None:
            echo.close()
        return reads

    def _write(self, link, slot, key, op, rng):
        number = None if op.is_missing else key.next_number()
        value = None if op.is_missing else _value(number, rng)
        begun = now()
        try:
            expiring = op.run(link, key.name, value, rng)
        except LOST + (RespError,) as error:
            self._retire(slot, key, begun, error,
                         "direct write" if link.proxy is NO_PROXY else "write")
            return False
        acked = now()
        expiry = None
        if expiring is not None:
            set_at, px = expiring
            expiry = (set_at + px / 1000 - CLOCK_SLACK, acked + px / 1000 + CLOCK_SLACK)
        key.add(number, begun, acked, link.proxy, expiry)
        with self._report_lock:
            self.report.n_writes += 1
            self.report.ops[op.name] += 1
        return True

    def _pipelined_write(self, link, slot, key, rng, reads):
        """GET, SET, GET in one packet: the first must not show the SET (I8), the second must."""
        number = key.next_number()
        begun = now()
        try:
            frames = link.pipeline([("GET", key.name), ("SET", key.name, _value(number, rng)),
                                    ("GETRANGE", key.name, 0, 20), ("GET", key.name)])
            before, written, part, after = [decode(frame) for frame in frames]
            for reply in (before, written, part, after):
                if isinstance(reply, RespError):
                    raise reply
        except LOST + (RespError,) as error:
            self._retire(slot, key, begun, error, "pipelined write")
            return False
        acked = now()
        key.add(number, begun, acked, link.proxy)
        reads += [
            Read(link, key, begun, acked, _number(before), "GET before SET", below=number),
            Read(link, key, begun, acked, _number(part), "GETRANGE behind SET",
                 at_least=number),
            Read(link, key, begun, acked, _number(after), "GET behind SET", at_least=number)]
        with self._report_lock:
            self.report.n_writes += 1
        return True

    def _flush_all(self, link):
        for lock in self._locks:
            lock.acquire()
        try:
            begun = now()
            try:
                link.ok("FLUSHALL")
            except LOST + (RespError,) as error:
                for slot, key in enumerate(self.keys):
                    self._retire(slot, key, begun, error, "FLUSHALL")
                return
            acked = now()
            for key in self.keys:
                key.add(None, begun, acked, link.proxy)
        finally:
            for lock in self._locks:
                lock.release()

    def _retire(self, slot, key, begun, error, where):
        self._count_error(where, error)
        key.retire(begun)
        self.keys[slot] = self._new_key(key.is_hash)

    # Reading

    def _reader(self, number):
        rng = random.Random(self._seed * 2000 + number)
        link = self._proxy_link(f"reader{number}", number, 2 + number // len(self._proxies) % 2)
        reads = []
        while not self._stop.is_set():
            count = rng.choice((1, 1, 2, 8, 16))
            if not self._read_batch(link, [rng.choice(self.keys) for _ in range(count)], rng,
                                    reads):
                self._stop.wait(0.01)
            elif rng.random() < 0.002:
                link.close()
        link.close()
        return reads

    def _read_batch(self, link, keys, rng, reads):
        chosen = [rng.choice(HASH_READS if key.is_hash else STRING_READS) for key in keys]
        commands = [form(key.name) for (form, _), key in zip(chosen, keys)]
        begun = now()
        try:
            frames = link.pipeline(commands)
        except LOST as error:
            self._count_error("read", error)
            return False
        ended = now()
        is_clean = True
        for key, command, (_, extract), frame in zip(keys, commands, chosen, frames):
            reply = decode(frame)
            if isinstance(reply, RespError):
                self._count_error("read", reply)
                is_clean = False
                continue
            reads.append(Read(link, key, begun, ended, _number(extract(reply)), command[0]))
        return is_clean

    # The run

    def _thread(self, work, results, *args):
        def body():
            try:
                results.append(work(*args))
            except BaseException as error:  # a bug of the tests must not pass for a quiet run
                self._failure = error
                raise
        thread = threading.Thread(target=body, daemon=True)
        thread.start()
        return thread

    def run(self, seconds=5.0, faults=None, settle=0.1):
        """Load for `seconds` (longer while faults(until) still runs), then the judgement.

        faults(until) runs in the calling thread; until is a time.monotonic() instant.
        settle: seconds beyond the bound after which proxy and backend must agree on every key.
        """
        seconds = scenario_seconds(seconds)
        results, threads = [], []
        until = time.monotonic() + seconds
        for number in range(self._n_readers):
            threads.append(self._thread(self._reader, results, number))
        for number in range(self._n_proxy_writers):
            threads.append(self._thread(self._writer, results, number, True))
        for number in range(self._n_direct_writers):
            threads.append(self._thread(self._writer, results, 100 + number, False))
        try:
            if faults is not None:
                faults(until)
            while time.monotonic() < until and self._failure is None:
                time.sleep(0.05)
        finally:
            self._stop.set()
            for thread in threads:
                thread.join(30 * SCALE)
        assert self._failure is None, f"the load itself failed: {self._failure!r}"
        assert not any(thread.is_alive() for thread in threads), "a client hangs"
        ended = now()
        for key in self.keys:
            key.settle_expiry(ended + 3600, None)
        time.sleep(self._bound + settle)
        report = self.report
        for reads in results:
            report.n_reads += len(reads)
            report.anomalies += check(reads, self._bound, self.rollbacks, self.blind)
        report.anomalies += self._compare_with_backend()
        if report.errors and not self._are_errors_allowed:
            report.anomalies.append(f"unexpected errors: {dict(report.errors)}")
        return report

    def _compare_with_backend(self):
        """Nothing is written any more: what the proxy says must be what the backend says."""
        return [difference for proxy in self._proxies
                for difference in self._compare_one_with_backend(proxy)]

    def _compare_one_with_backend(self, proxy):
        differences = []
        direct, link = self._direct(), RawClient(proxy, timeout=self._client_timeout)
        try:
            for key in self.keys:
                command = ("HGET", key.name, "v") if key.is_hash else ("GET", key.name)
                shown, truth = link.value(*command), direct.value(*command)
                if shown != truth and shown != direct.value(*command):
                    differences.append(f"at rest {key.name!r} reads {_head(shown)} through the"
                                       f" proxy and {_head(truth)} at the backend")
        finally:
            direct.close()
            link.close()
        return differences


def _head(value):
    return str(value) if isinstance(value, RespError) else repr(value and value[:20])

