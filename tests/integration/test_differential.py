"""Every command that handles keys, generated, through the proxy and to a Redis of the same state.

Two servers get the same commands: one directly, one through the proxy. Replies are compared byte by
byte, in RESP2 and RESP3, each read twice in each (so that the later ones come from memory), for
cached and bypassed namespaces, one by one and in pipelines, in front of a server and a cluster.

Where two servers of the same state need not answer the same bytes, the comparison is:

    unordered  the same elements: the order of a hash table depends on a seed of the process
    near       numbers that follow the clock: equal to within two seconds
    random     the same type and number of elements
    scan       complete replies as unordered, others by type
    backend    the bytes that the proxy's own backend answers to the same question
    number     the type
    shape      the same with every number masked: idle times

NEARCACHED_TEST_STEPS sets the number of commands of a sequence, NEARCACHED_TEST_SEED the seed.
"""

import os
import pathlib
import random
import re

import pytest

from harness.commands import (COMPARE, LIBRARY, SCRIPTS, Form, Generator, all_forms, command_name)
from harness.proxy import IS_FAKE, Proxy
from harness.resp import RawClient, decode, elements, encode
from harness.servers import ROOT
from harness.waiting import wait_until

STEPS = int(os.environ.get("NEARCACHED_TEST_STEPS") or 1500)
SEED = int(os.environ.get("NEARCACHED_TEST_SEED") or 1)
MAX_DIFFERENCES = 8
CONFIG = {"cache": {"maxmemory": "64mb"}, 'namespace "bypassed"': {"match": "by:*", "cache": "off"}}


# --- comparing -----------------------------------------------------------------------------------

def is_aggregate(frame):
    return frame[:1] in b"*~%>" and not frame.startswith(b"*-1")


def header(frame):
    return frame[:frame.index(b"\r\n")]


def same_unordered(one, other):
    return (is_aggregate(one) and is_aggregate(other) and header(one) == header(other)
            and sorted(elements(one)) == sorted(elements(other)))


def same_near(one, other):
    first, second = decode(one), decode(other)
    return (isinstance(first, int) and isinstance(second, int) and first > 0 and second > 0
            and abs(first - second) <= (2000 if max(first, second) > 10 ** 6 else 2))


def same_random(one, other):
    return one[:1] == other[:1] and (not is_aggregate(one) or header(one) == header(other))


def same_scan(one, other):
    if one[:1] != b"*" or other[:1] != b"*":
        return False
    (cursor, found), (other_cursor, other_found) = elements(one), elements(other)
    if decode(cursor) == decode(other_cursor) == b"0":
        return same_unordered(found, other_found)
    return True


def same_number(one, other):
    return one[:1] == other[:1]


def same_shape(one, other):
    def masked(frame):
        return re.sub(rb":\d+\r\n", b":#\r\n", frame)
    return masked(one) == masked(other)


SAME = {"exact": lambda one, other: False, "backend": lambda one, other: False,
        "unordered": same_unordered, "near": same_near, "random": same_random, "scan": same_scan,
        "number": same_number, "shape": same_shape}


def short(data, size=160):
    return repr(data if len(data) <= size else data[:size] + b"...")


# --- the two sides --------------------------------------------------------------------------------

class Sides:
    """A reference server and the proxy, each on a RESP2 and a RESP3 connection."""

    def __init__(self, reference, proxy, ask_backend):
        self.direct = {protocol: reference.client(protocol) for protocol in (2, 3)}
        self.proxied = {protocol: RawClient(proxy.address, protocol) for protocol in (2, 3)}
        self._ask_backend = ask_backend
        self.differences = []
        self.n_compared = 0

    def close(self):
        for client in (*self.direct.values(), *self.proxied.values()):
            client.close()

    def load_scripts(self):
        for client in (self.direct[2], self.proxied[2]):
            for text in SCRIPTS.values():
                client.ask("SCRIPT", "LOAD", text)
            assert client.ok("FUNCTION", "LOAD", "REPLACE", LIBRARY) == b"nctest"

    def compare(self, where, command, expected, got, protocol):
        self.n_compared += 1
        if expected == got:
            return
        how = COMPARE.get(command_name(command), "exact")
        if SAME[how](expected, got):
            return
        if how in ("backend", "unordered", "scan"):
            truth = self._ask_backend(protocol, command)
            if truth == got or same_unordered(truth, got):
                return
        self.differences.append(f"{where} RESP{protocol} {short(encode(*command), 300)}\n"
                                f"      expected {short(expected)}\n      got      {short(got)}")

    def write(self, where, command, protocol):
        self.compare(where, command, self.direct[protocol].ask(*command),
                     self.proxied[protocol].ask(*command), protocol)
        if command_name(command) == "SPOP" and len(command) > 1:
            # Each server popped what it liked.
            for client in (self.direct[2], self.proxied[2]):
                client.ask("DEL", command[1])

    def read(self, where, command, rng):
        expected = {protocol: self.direct[protocol].ask(*command) for protocol in (2, 3)}
        order = [2, 3, 2, 3]
        rng.shuffle(order)
        for number, protocol in enumerate(order):
            self.compare(f"{where} read {number + 1}", command, expected[protocol],
                         self.proxied[protocol].ask(*command), protocol)

    def populate(self, commands):
        for client in (self.direct[2], self.proxied[2]):
            for command, frame in zip(commands, client.pipeline(commands)):
                assert not frame.startswith(b"-"), (command[:3], frame)

    def assert_same(self, least):
        assert not self.differences, (
            f"{len(self.differences)} differences in {self.n_compared} replies\n"
            + "\n".join(self.differences[:MAX_DIFFERENCES]))
        assert self.n_compared >= least, f"only {self.n_compared} replies compared"


def dumps_of(client):
    """Payloads for RESTORE, from the reference itself."""
    client.ok("SET", "dump:s", "restored")
    client.ok("RPUSH", "dump:l", "1", "2", "3")
    payloads = [client.ok("DUMP", "dump:s"), client.ok("DUMP", "dump:l"), b"garbage", b""]
    client.ok("DEL", "dump:s", "dump:l")
    return payloads


def run_sequence(sides, rng, forms, prefixes, one_slot, steps, is_cluster=False):
    generator = Generator(rng, prefixes, one_slot, dumps_of(sides.direct[2]))
    sides.load_scripts()
    families = sorted(set(prefixes) | set(one_slot or ()))
    # By name, so that a command of many forms is not asked more often than others.
    by_name = {}
    for form in forms:
        by_name.setdefault(form.name, []).append(form)
    names = sorted(by_name)
    for step in range(steps):
        if step % 120 == 0:
            for prefix in families:
                sides.populate(generator.populate(prefix))
        form = rng.choice(by_name[rng.choice(names)])
        command = generator.make(form)
        # A cluster words a spoilt key of several as CROSSSLOT, where one server executes it.
        if rng.random() < 0.12 and not (is_cluster and form.needs_one_slot):
            command = generator.wrong(command)
        where = f"step {step}"
        if form.is_read:
            sides.read(where, command, rng)
        else:
            sides.write(where, command, rng.choice((2, 3)))
        if len(sides.differences) >= MAX_DIFFERENCES:
            break


def run_pipelines(sides, rng, forms, prefixes, one_slot, steps, is_cluster=False):
    """Whole pipelines, reads and writes mixed, without replies that need a second look."""
    usable = [form for form in forms if form.compare in ("exact", "unordered", "near")]
    generator = Generator(rng, prefixes, one_slot, dumps_of(sides.direct[2]))
    sides.load_scripts()
    families = sorted(set(prefixes) | set(one_slot or ()))
    done = 0
    while done < steps and len(sides.differences) < MAX_DIFFERENCES:
        if done % 300 < 40:
            for prefix in families:
                sides.populate(generator.populate(prefix))
        batch = []
        for _ in range(rng.choice((2, 5, 20, 40))):
            form = rng.choice(usable)
            command = generator.make(form)
            if rng.random() < 0.1 and not (is_cluster and form.needs_one_slot):
                command = generator.wrong(command)
            batch.append(command)
            if form.is_read and rng.random() < 0.3:
                batch.append(command)
        protocol = rng.choice((2, 3))
        expected = sides.direct[protocol].pipeline(batch)
        got = sides.proxied[protocol].pipeline(batch)
        for number, command in enumerate(batch):
            sides.compare(f"command {done + number}, place {number + 1} of {len(batch)}", command,
                          expected[number], got[number], protocol)
        done += len(batch)


# --- fixtures -------------------------------------------------------------------------------------

@pytest.fixture
def differing_proxy(_session_servers, redis_server):
    """A proxy with a bypassed namespace, its cache empty."""
    proxy = _session_servers.get(
        "differential-proxy", lambda path: Proxy(path, redis_server.url(), config=CONFIG))
    if not proxy.is_fake:
        with proxy.client() as client:
            client.ok("FLUSHALL")
    yield proxy
    proxy.assert_healthy()


@pytest.fixture
def sides(reference, redis_server, differing_proxy):
    clients = {protocol: redis_server.client(protocol) for protocol in (2, 3)}
    both = Sides(reference, differing_proxy,
                 lambda protocol, command: clients[protocol].ask(*command))
    yield both
    both.close()
    for client in clients.values():
        client.close()


@pytest.fixture
def cluster_sides(reference, cluster, _session_servers):
    if IS_FAKE:
        pytest.skip("NEARCACHED_FAKE=redis: there is no proxy")
    proxy = _session_servers.get(
        "differential-cluster-proxy", lambda path: Proxy(path, cluster.url(), config=CONFIG))
    wait_until(proxy.is_ready, 15, "the proxy to be ready")
    with proxy.client() as client:
        client.ok("FLUSHALL")
    clients = {protocol: cluster.client(protocol) for protocol in (2, 3)}
    both = Sides(reference, proxy, lambda protocol, command: (
        clients[protocol].ask(*command, key=command[1]) if len(command) > 1 else b""))
    yield both
    both.close()
    for client in clients.values():
        client.close()
    proxy.assert_healthy()


# --- tests ----------------------------------------------------------------------------------------

def test_every_command_with_keys_has_a_form():
    """tables/commands.def against harness/commands.py: a new command must be compared too."""
    table = pathlib.Path(ROOT / "src" / "tables" / "commands.def").read_text()
    listed = re.findall(r'^(?:SUB)?COMMAND\("([^"]+)",\s*-?\d+,\s*(CLASS_\w+)', table, re.M)
    forms = {(form.name.lower(), form.command_class) for form in all_forms()}
    classes = {form.command_class for form in all_forms()}
    wanted = {(name, each) for name, each in listed if each in classes}
    assert len(wanted) == 49 + 19 + 64 + 6 + 32 + 6
    assert wanted - forms == set() and forms - wanted == set()


@pytest.mark.parametrize("seed", range(SEED, SEED + 3))
def test_sequence(sides, seed):
    rng = random.Random(seed)
    run_sequence(sides, rng, all_forms(), [b"a:", b"by:"], None, STEPS)
    sides.assert_same(STEPS)


@pytest.mark.parametrize("seed", range(SEED, SEED + 2))
def test_pipelines(sides, seed):
    rng = random.Random(seed + 500)
    run_pipelines(sides, rng, all_forms(), [b"a:", b"by:"], None, STEPS)
    sides.assert_same(STEPS)


@pytest.mark.parametrize("seed", range(SEED, SEED + 2))
def test_cluster_sequence(cluster_sides, seed):
    rng = random.Random(seed + 1000)
    one_slot = [b"{t}:", b"by:{t}:"]
    run_sequence(cluster_sides, rng, all_forms(for_cluster=True), [b"a:", b"by:"] + one_slot,
                 one_slot, STEPS, is_cluster=True)
    cluster_sides.assert_same(STEPS)


def test_cluster_pipelines(cluster_sides):
    rng = random.Random(SEED + 1500)
    one_slot = [b"{t}:", b"by:{t}:"]
    run_pipelines(cluster_sides, rng, all_forms(for_cluster=True), [b"a:", b"by:"] + one_slot,
                  one_slot, STEPS, is_cluster=True)
    cluster_sides.assert_same(STEPS)


CACHED = [form for form in all_forms() if form.command_class == "CLASS_CACHED_READ"]


@pytest.mark.needs_proxy
@pytest.mark.parametrize("first", [2, 3], ids=["filled by RESP2", "filled by RESP3"])
def test_every_cached_read_is_answered_from_memory(redis_server, differing_proxy, first):
    """The same bytes as the backend's, and a hit from the second time on, in either protocol."""
    generator = Generator(random.Random(SEED), [b"a:"], dumps=[b"garbage"])
    backend = {protocol: redis_server.client(protocol) for protocol in (2, 3)}
    proxied = {protocol: differing_proxy.client(protocol) for protocol in (2, 3)}
    for command in generator.populate(b"a:"):
        proxied[2].ok(*command)
    second = 5 - first
    failures = []
    for form in CACHED:
        # The largest strings are above max-value, which is tested elsewhere.
        command = next(command for command in iter(lambda: generator.make(form, strict=True), None)
                       if b"a:str6" not in command
                       and not backend[2].ask(*command).startswith(b"-"))
        proxied[2].ok("CACHE", "INVALIDATE", command[1])
        expected = {protocol: backend[protocol].ask(*command) for protocol in (2, 3)}
        got = [proxied[first].ask(*command)]
        before = differing_proxy.metrics().get("hits_total")
        got += [proxied[first].ask(*command), proxied[second].ask(*command)]
        hits = differing_proxy.metrics().get("hits_total") - before
        if got != [expected[first], expected[first], expected[second]]:
            failures.append(f"{command}: expected {expected}, got {got}")
        if hits < 2:
            failures.append(f"{command}: {hits} hits of 2")
    for client in (*backend.values(), *proxied.values()):
        client.close()
    assert not failures, "\n".join(failures)


@pytest.mark.needs_proxy
def test_missing_keys_are_answered_from_memory(redis_server, differing_proxy):
    with redis_server.client(2) as two, redis_server.client(3) as three, \
            differing_proxy.client(2) as proxied_two, differing_proxy.client(3) as proxied_three:
        generator = Generator(random.Random(SEED), [b"a:"])
        before = differing_proxy.metrics().get("negative_hits_total")
        for form in CACHED:
            command = generator.make(form, strict=True)
            command[1] = b"a:missing0"
            for _ in range(2):
                assert proxied_two.ask(*command) == two.ask(*command), command
                assert proxied_three.ask(*command) == three.ask(*command), command
        assert differing_proxy.metrics().get("negative_hits_total") - before >= len(CACHED)


@pytest.mark.parametrize("size", [0, 1, 100, 1000, 4000, 4095, 4096, 4097, 16383, 65536, 500000,
                                  524288, 600000, 5000000])
def test_values_of_every_size(redis_server, differing_proxy, size):
    """Copied, sent by reference, above max-value, streamed: the bytes are the backend's."""
    value = random.Random(size).randbytes(size)
    with redis_server.client() as direct, differing_proxy.client(2) as two, \
            differing_proxy.client(3) as three:
        direct.ok("SET", "a:sized", value)
        direct.ok("HSET", "a:sized hash", "f", value)
        for client in (two, three, two, three):
            assert client.ok("GET", "a:sized") == value
            assert client.ok("HGET", "a:sized hash", "f") == value
            assert client.ok("MGET", "a:sized", "a:none", "a:sized") == [value, None, value]
        replies = three.pipeline([("GET", "a:sized"), ("SET", "a:sized", "new"), ("GET", "a:sized"),
                                  ("HGET", "a:sized hash", "f"), ("GET", "a:sized")])
        assert [decode(reply) for reply in replies] == [value, b"OK", b"new", value, b"new"]


@pytest.mark.parametrize("protocol", [2, 3])
def test_automatic_stream_ids(differing_proxy, protocol):
    with differing_proxy.client(protocol) as client:
        first = client.ok("XADD", "a:auto", "*", "f", "1")
        second = client.ok("XADD", "a:auto", "*", "f", "2")
        assert re.fullmatch(rb"\d+-\d+", first) and re.fullmatch(rb"\d+-\d+", second)
        assert [entry[0] for entry in client.ok("XRANGE", "a:auto", "-", "+")] == [first, second]
        third = client.ok("XADD", "a:auto", "*", "f", "3")
        assert [entry[0] for entry in client.ok("XRANGE", "a:auto", "-", "+")] == [
            first, second, third]


def test_forms_expand_to_what_redis_accepts(reference):
    """The generator itself: strict commands of every form are mostly no errors."""
    generator = Generator(random.Random(3), [b"a:"], dumps=[b"garbage"])
    with reference.client() as client:
        for text in SCRIPTS.values():
            client.ask("SCRIPT", "LOAD", text)
        client.ok("FUNCTION", "LOAD", "REPLACE", LIBRARY)
        useless = []
        for form in all_forms():
            assert isinstance(form, Form)
            for command in generator.populate(b"a:"):
                client.ok(*command)
            client.ok("XGROUP", "CREATE", "a:stream1", "g1", "0")
            client.ok("XGROUP", "CREATE", "a:stream1", "g2", "0")
            replies = [client.ask(*generator.make(form, strict=True)) for _ in range(30)]
            if all(reply.startswith(b"-") for reply in replies):
                useless.append((form.text, replies[0]))
        expected = ("EVAL <script_fail>", "EVAL <script_broken>", "EVALSHA <sha_unknown>",
                    "EVALSHA_RO <sha_unknown>", "FCALL nofunction", "EVAL_RO <script_set>",
                    "FCALL_RO ncset", "OBJECT FREQ", "RESTORE")
        assert [each for each in useless if not each[0].startswith(expected)] == []
