"""A thousand sessions that hold a backend connection each, opened and dropped at random under load:
afterwards the backend has no connection more, nothing was popped for a client that had gone, and no
transaction ran by half. The same on plain Redis, which shows that the test asks for what is due."""

import random
import socket
import struct
import threading

import pytest

from harness.resp import RawClient, decode, encode
from harness.waiting import wait_until

SESSIONS = 1000
ROUNDS = 5
# Alive at once; each is a descriptor or two on every side.
MOST_ALIVE = 150
COUNTERS = ("{counters}left", "{counters}right")


class Direct:
    """Plain Redis in the proxy's place."""

    def __init__(self, server):
        self.address, self._server = server.address, server

    def masters(self):
        return [self._server]

    def idle_leases(self):
        return 0


class Proxied:
    def __init__(self, proxy, masters):
        self.address, self._proxy, self._masters = proxy.address, proxy, masters

    def masters(self):
        return self._masters

    def idle_leases(self):
        """Clean connections that are kept for whoever needs one next."""
        metrics = self._proxy.metrics()
        assert metrics.get("leased_connections", state="taken") == 0
        return metrics.get("leased_connections", state="idle")


@pytest.fixture(params=["redis", "proxy", "proxy of a cluster"])
def target(request):
    if request.param == "redis":
        return Direct(request.getfixturevalue("reference"))
    if request.param == "proxy":
        server = request.getfixturevalue("redis_server")
        proxy = request.getfixturevalue("proxy")
        return Direct(server) if proxy.is_fake else Proxied(proxy, [server])
    cluster = request.getfixturevalue("cluster")
    proxy = request.getfixturevalue("cluster_proxy")
    if proxy.is_fake:
        pytest.skip("NEARCACHED_FAKE=redis: there is no proxy")
    return Proxied(proxy, cluster.masters())


# -- sessions -----------------------------------------------------------------------------------


class Session:
    """One client that pins a connection. Its keys are its own, so that it is known who got what."""

    is_blocked = False

    def __init__(self, target, number):
        self.key = f"own{number}"
        self._client = RawClient(target.address, 2)
        self._begin()

    def _begin(self):
        raise NotImplementedError

    def drop(self, manner):
        """Gone without a word of farewell, in one of the manners that clients go."""
        own = self._client.socket
        if manner == "midst of a command":
            own.sendall(b"*3\r\n$3\r\nSET\r\n$1\r\n")
        elif manner == "reset":
            own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif manner == "half":
            own.shutdown(socket.SHUT_WR)
            self._client.read_all()
        self._client.close()


MANNERS = ("close", "reset", "half", "midst of a command")


class Popper(Session):
    """Blocks for an item. served() is whether it got the one that push() added."""

    is_blocked = True

    def _begin(self):
        self._client.send(encode("BLPOP", self.key, 0))

    def push(self, client):
        client.ok("RPUSH", self.key, self.key)

    def left(self, client):
        """The items that nobody has taken."""
        return client.ok("LRANGE", self.key, 0, -1)

    def served(self):
        return decode(self._client.read()) == [self.key.encode(), self.key.encode()]


class Mover(Popper):
    def _begin(self):
        self._client.send(encode("BLMOVE", self.key, f"{{{self.key}}}to", "LEFT", "RIGHT", 0))

    def served(self):
        return decode(self._client.read()) == self.key.encode()


class ScoredPopper(Popper):
    def _begin(self):
        self._client.send(encode("BZPOPMIN", self.key, 0))

    def push(self, client):
        client.ok("ZADD", self.key, 1, self.key)

    def left(self, client):
        return client.ok("ZRANGE", self.key, 0, -1)

    def served(self):
        return decode(self._client.read()) == [self.key.encode(), self.key.encode(), b"1"]


class GroupReader(Popper):
    """Of a consumer group: an entry that is read for nobody would be pending for ever."""

    def _begin(self):
        self._client.ok("XGROUP", "CREATE", self.key, "group", "$", "MKSTREAM")
        self._client.send(encode("XREADGROUP", "GROUP", "group", "reader", "BLOCK", 0, "STREAMS",
                                 self.key, ">"))

    def push(self, client):
        client.ok("XADD", self.key, "1-1", "f", self.key)

    def left(self, client):
        pending = client.ok("XPENDING", self.key, "group")[0]
        return [self.key.encode()] * (client.ok("XLEN", self.key) - pending)

    def served(self):
        return decode(self._client.read()) == [
            [self.key.encode(), [[b"1-1", [b"f", self.key.encode()]]]]]


class Transaction(Session):
    """Queued and not executed: dropped, nothing of it may run."""

    def _begin(self):
        self._client.ok("MULTI")
        for counter in COUNTERS:
            assert self._client.ok("INCR", counter) == b"QUEUED"


class ExecutedUnread(Transaction):
    """Whole or not at all; which of them, nobody learns."""

    def drop(self, manner):
        self._client.send(encode("EXEC"))
        super().drop(manner)


class Watcher(Session):
    def _begin(self):
        self._client.ok("WATCH", *COUNTERS)


class WatchingTransaction(Session):
    def _begin(self):
        self._client.ok("WATCH", *COUNTERS)
        self._client.ok("MULTI")
        self._client.ok("INCR", COUNTERS[0])


class Subscriber(Session):
    def _begin(self):
        self._client.ok("SUBSCRIBE", self.key)


BLOCKED = (Popper, Mover, ScoredPopper, GroupReader)
KINDS = (*BLOCKED, *BLOCKED, Transaction, ExecutedUnread, Watcher, WatchingTransaction, Subscriber)


# -- load ---------------------------------------------------------------------------------------


class Load:
    """Threads that read, write and transact all the while; what they see go wrong is kept."""

    def __init__(self, target):
        self._target = target
        self._is_over = threading.Event()
        self.problems = []
        self.executed = 0
        self._threads = [threading.Thread(target=self._guard, args=(run,))
                         for run in (self._read_and_write, self._transact)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def _guard(self, run):
        try:
            with RawClient(self._target.address, 3) as client:
                while not self._is_over.is_set():
                    run(client)
        except Exception as error:  # pylint: disable=broad-except
            self.problems.append(f"{run.__name__}: {error!r}")

    def _read_and_write(self, client):
        key = f"load{random.randrange(200)}"
        client.ok("SET", key, "written")
        if client.ok("GET", key) != b"written":
            self.problems.append(f"{key} is not as it was written")

    def _transact(self, client):
        """Both counters by one; and never seen unequal."""
        client.pipeline([("MULTI",), ("INCR", COUNTERS[0]), ("INCR", COUNTERS[1])])
        client.ok("EXEC")
        self.executed += 1
        client.ok("MULTI")
        for counter in COUNTERS:
            client.ok("GET", counter)
        left, right = client.ok("EXEC")
        if left != right:
            self.problems.append(f"the counters were {left!r} and {right!r}")


# -- what the backend says ----------------------------------------------------------------------


def node_client(server):
    return RawClient(("127.0.0.1", server.port), 2)


def clients_of(server):
    """The lines of CLIENT LIST but our own and those of replicas, as dicts."""
    with node_client(server) as client:
        own = client.ok("CLIENT", "ID")
        lines = client.ok("CLIENT", "LIST").decode().splitlines()
    found = [dict(word.split("=", 1) for word in line.split(" ") if "=" in word)
             for line in lines]
    return [each for each in found
            if int(each["id"]) != own and not set("SM") & set(each["flags"])]


def count_of(target):
    return sum(len(clients_of(server)) for server in target.masters())


def blocked_at(target):
    def of(server):
        with node_client(server) as client:
            text = client.ok("INFO", "clients").decode()
        return int(text.split("blocked_clients:")[1].split("\r\n")[0])
    return sum(of(server) for server in target.masters())


def settled_count(target):
    """Connections at the backend, without the clean ones that are kept, when nobody holds one."""
    found = []

    def settle():
        try:
            found[:] = [count_of(target) - target.idle_leases()]
        except AssertionError:
            return False
        return True

    wait_until(settle, 20, "nobody to hold a connection")
    return found[0]


# -- the test -----------------------------------------------------------------------------------


def churn(target, chance, first, count):
    """Opens count sessions; drops at random those that are too many, and half of the rest.

    Returns (those alive, those dropped).
    """
    alive, dropped = [], []

    def drop_one():
        session = alive.pop(chance.randrange(len(alive)))
        session.drop(chance.choice(MANNERS))
        dropped.append(session)

    for number in range(first, first + count):
        alive.append(chance.choice(KINDS)(target, number))
        while len(alive) > MOST_ALIVE or (alive and chance.random() < 0.4):
            drop_one()
    for _ in range(len(alive) // 2):
        drop_one()
    return alive, dropped


def judge_pops(target, alive, dropped):
    """Every item goes to a client that is there, or stays.

    Who has gone is asked of the backend first: a client that closes while its item is on the way
    loses it with plain Redis too.
    """
    wait_until(lambda: blocked_at(target) == sum(session.is_blocked for session in alive), 20,
               "the backend to know who waits and who has gone")
    with RawClient(target.address, 2) as client:
        for session in [each for each in dropped if each.is_blocked]:
            session.push(client)
            assert session.left(client) == [session.key.encode()], (
                f"{session.key}: popped for nobody")
        for session in [each for each in alive if each.is_blocked]:
            session.push(client)
            assert session.served(), session.key
            assert session.left(client) == []


def judge_shared_queue(target, chance):
    """Many wait for one list and some go: every item reaches one of those that stayed."""
    waiters = [RawClient(target.address, 2) for _ in range(40)]
    for waiter in waiters:
        waiter.send(encode("BLPOP", "shared", 0))
    wait_until(lambda: blocked_at(target) == len(waiters), 20, "all to wait")
    chance.shuffle(waiters)
    for waiter in waiters[:25]:
        waiter.close()
    wait_until(lambda: blocked_at(target) == 15, 20, "the backend to know who has gone")
    items = [b"%d" % number for number in range(20)]
    with RawClient(target.address, 2) as client:
        for item in items:
            client.ok("RPUSH", "shared", item)
        got = []
        for waiter in waiters[25:]:
            got.append(decode(waiter.read())[1])
            waiter.close()
        assert sorted(got + client.ok("LRANGE", "shared", 0, -1)) == sorted(items)


def one_round(target, chance, first, count):
    """How many sessions sent an EXEC whose reply nobody read."""
    alive, dropped = churn(target, chance, first, count)
    judge_pops(target, alive, dropped)
    for session in alive:
        session.drop("close")
    wait_until(lambda: blocked_at(target) == 0, 20, "nobody to wait")
    return sum(isinstance(each, ExecutedUnread) for each in alive + dropped)


@pytest.mark.long_test(240)
def test_a_thousand_pinned_sessions_leave_nothing_behind(target):
    chance = random.Random(20240101)
    with RawClient(target.address, 2) as client:
        for counter in COUNTERS:
            client.ok("SET", counter, 0)
    # The first sessions make the proxy open what it keeps: links of each worker to each node.
    with Load(target) as warming:
        unread = one_round(target, chance, 0, 300)
    before = settled_count(target)
    with Load(target) as load:
        for turn in range(1, ROUNDS + 1):
            unread += one_round(target, chance, 1000 * turn, SESSIONS // ROUNDS)
        judge_shared_queue(target, chance)
    problems, executed = warming.problems + load.problems, warming.executed + load.executed
    assert not problems, problems[:5]
    assert load.executed > 0
    wait_until(lambda: settled_count(target) <= before, 20,
               f"the backend to have {before} clients again, the clean ones not counted")
    for server in target.masters():
        for each in clients_of(server):
            assert each["multi"] == "-1" and not set("bxd") & set(each["flags"]), each
    with RawClient(target.address, 2) as client:
        left, right = [int(client.ok("GET", counter)) for counter in COUNTERS]
    assert left == right
    assert executed <= left <= executed + unread


# -- the judgement itself -----------------------------------------------------------------------


def test_a_pop_for_nobody_is_found(reference):
    class Robbed(Popper):
        def push(self, client):
            super().push(client)
            client.ok("LPOP", self.key)

    target = Direct(reference)
    session = Robbed(target, 1)
    session.drop("close")
    with pytest.raises(AssertionError, match="popped for nobody"):
        judge_pops(target, [], [session])


def test_a_connection_left_behind_is_found(reference):
    target = Direct(reference)
    before = settled_count(target)
    session = Watcher(target, 1)
    assert settled_count(target) == before + 1
    session.drop("reset")
    wait_until(lambda: settled_count(target) == before, 20, "the session to be gone")
