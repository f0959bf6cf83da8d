"""The load of `make soak`: actors that between them use everything, at a steady pace.

An actor is a generator: each round ends in a yield, behind which it pauses. It runs in a thread of
one of a few processes until it is told to stop; what it holds open is closed then. What must hold of
an answer is asserted, so that a load which no longer works fails the run. Error replies that a busy
proxy may give are counted instead (`Kind`), by text; soak.py judges their share.

Everything is bounded, keys, tags, events and channels alike: after a while the proxies hold as much
as they ever will.
"""

import collections
import contextlib
import json
import multiprocessing
import os
import queue
import random
import select
import signal
import threading
import time
import traceback
import types
import urllib.request

from harness.crowd import Crowd
from harness.resp import RawClient, RespError, decode, encode
from harness.servers import ClusterClient
from harness.tls import TlsClient, client_context

N_PAGES = 12000
N_PROCESSES = 3
NIL = b"$-1\r\n"
PATIENCE_S = 30.0

# name -> (function, pause, copies)
ACTORS = {}

# Sections of the proxies' configuration beside the options that soak.py gives.
SECTIONS = {
    'namespace "page"': {"match": "page:{n}:*", "max-ttl": "1m", "ttl-jitter": "20",
                         "tags": "page:{n} pages"},
    'namespace "hot"': {"match": "hot:*", "early-refresh": "1s", "stale-while-revalidate": "1s"},
    'namespace "leased"': {"match": "lease:*", "miss-lease": "2s"},
    'namespace "off"': {"match": "off:*", "cache": "off"},
    'dependency "profile"': {"source": "user:{1}", "derived": "profile:{1} view:{1}:*"},
    'dependency "often"': {"source": "often:{1}", "derived": "seldom:{1}", "debounce": "300ms"},
    'event "deploy"': {"match": "deploy.{n}", "invalidate": "page:{n}:*", "tags": "page:{n}"},
    'event-source "app"': {"channel": "app:{what}", "event": "{what}.{payload}"},
    'event-source "log"': {"stream": "soak:events"},
}


def actor(pause, copies=1):
    def register(function):
        ACTORS[function.__name__] = (function, pause, copies)
        return function
    return register


class World:
    """What actors know: addresses, and how to connect."""

    def __init__(self, proxies, tls_ports, ca, cluster, pids):
        self.addresses = [proxy.address for proxy in proxies]
        self.admins = [proxy.admin_address for proxy in proxies]
        self.configs = [str(proxy.config_path) for proxy in proxies]
        self.tls_ports, self.ca, self.pids = tls_ports, ca, pids
        self.seeds = [types.SimpleNamespace(port=node.port) for node in cluster.nodes]
        self.errors = collections.Counter()  # of this process

    def running(self):  # as ClusterClient wants it
        return self.seeds

    def client(self, chance, protocol=2):
        return RawClient(chance.choice(self.addresses), protocol, timeout=PATIENCE_S)

    def direct(self):
        return contextlib.closing(ClusterClient(self, timeout=PATIENCE_S))

    def tls_client(self, chance, protocol=2):
        address = ("127.0.0.1", chance.choice(self.tls_ports))
        return TlsClient(address, client_context(self.ca), protocol, timeout=PATIENCE_S)

    def post(self, chance, path, body):
        host, port = chance.choice(self.admins)
        request = urllib.request.Request(f"http://{host}:{port}{path}", json.dumps(body).encode(),
                                         {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                self.errors[f"{path}: {error.code}"] += 1
                return None

    def fetch(self, chance, path):
        host, port = chance.choice(self.admins)
        with urllib.request.urlopen(f"http://{host}:{port}{path}", timeout=PATIENCE_S) as response:
            assert response.status == 200
            return response.read()

    def pipeline(self, client, commands):
        """The replies' frames; errors are counted."""
        frames = client.pipeline(commands)
        for words, frame in zip(commands, frames):
            if frame.startswith(b"-"):
                self.errors[f"{words[0]}: {frame[1:61].decode(errors='replace').strip()}"] += 1
        return frames

    def try_to(self, client, *words):
        """The decoded answer; an error is counted, and None."""
        value = client.value(*words)
        if isinstance(value, RespError):
            self.errors[f"{words[0]} {words[1]}: {str(value)[:60]}"] += 1
            return None
        return value


def page(chance):
    """Few are asked for often, many now and then."""
    number = int(N_PAGES * chance.random() ** 3)
    return f"page:{number % 200}:{number}"


def page_value(key, chance):
    return key.encode() + b" " + b"x" * chance.choice((100, 900, 2000, 4000))


def is_page_value(key, value):
    return value is None or value.startswith(key.encode() + b" ")


def holds(pages, values):
    assert all(is_page_value(key, value) for key, value in zip(pages, values)), \
        next((key, value[:80]) for key, value in zip(pages, values) if not is_page_value(key, value))


# ---- what applications do ----

@actor(pause=.06, copies=3)
def reading(world, chance):
    """Pages, one by one and together; who finds one missing writes it for a while."""
    with world.client(chance) as one, world.client(chance, 3) as other:
        while True:
            for client in (one, other):
                keys = [page(chance) for _ in range(20)]
                values = [decode(frame) for frame in
                          world.pipeline(client, [("GET", key) for key in keys])]
                holds(keys, values)
                missing = {key for key, value in zip(keys, values) if value is None}
                if missing:
                    world.pipeline(client, [("SET", key, page_value(key, chance), "PX",
                                             chance.randrange(5000, 90000)) for key in missing])
            keys = [page(chance) for _ in range(10)]
            holds(keys, one.ok("MGET", *keys))
            yield


@actor(pause=.1)
def writing_around(world, chance):
    with world.direct() as direct:
        while True:
            for _ in range(5):
                key = page(chance)
                direct.ok("SET", key, page_value(key, chance), "PX", chance.randrange(5000, 90000))
            direct.ok("DEL", page(chance))
            yield


@actor(pause=.05)
def hot_keys(world, chance):
    """Near their end they are renewed early, or shown behind it."""
    with world.client(chance) as client:
        while True:
            keys = [f"hot:{i}" for i in range(4)]
            frames = world.pipeline(client, [("GET", key) for key in keys for _ in range(5)])
            for i, key in enumerate(keys):
                if frames[i * 5] == NIL:
                    client.ok("SET", key, page_value(key, chance), "PX", 2000)
            yield


@actor(pause=.2)
def leases(world, chance):
    """Of those who miss a key one computes it, the others wait."""
    with Crowd(world.addresses, 8) as crowd, world.client(chance) as writer:
        while True:
            key = f"lease:{chance.randrange(20)}"
            writer.ok("DEL", key)
            crowd.send(encode("GET", key))
            crowd.wait(1)
            if chance.random() < .9:  # else it never comes, and the leases run out
                writer.ok("SET", key, "computed", "PX", 3000)
            crowd.wait(8)
            yield


@actor(pause=.1)
def collections_and_scripts(world, chance):
    """Other types, and what is passed on: read, written, scanned."""
    with world.client(chance) as client:
        while True:
            n = chance.randrange(200)
            world.pipeline(client, [
                ("HSET", f"hash:{n}", chance.randrange(20), "v" * 50),
                ("HGETALL", f"hash:{n}"), ("HGETALL", f"hash:{n}"), ("HGET", f"hash:{n}", 3),
                ("ZADD", f"zset:{n}", chance.random(), chance.randrange(30)),
                ("ZRANGE", f"zset:{n}", 0, 9, "WITHSCORES"), ("ZSCORE", f"zset:{n}", 3),
                ("LPUSH", f"list:{n}", "x"), ("LTRIM", f"list:{n}", 0, 20),
                ("LRANGE", f"list:{n}", 0, -1), ("SADD", f"set:{n}", chance.randrange(30)),
                ("SMEMBERS", f"set:{n}"), ("EXPIRE", f"set:{n}", 30),
                ("MSET", f"a:{n}", 1, f"b:{n}", 2), ("EXISTS", f"a:{n}", f"b:{n}"),
                ("DEL", f"a:{n}", f"c:{n}"), ("SET", f"off:{n}", "x"), ("GET", f"off:{n}"),
                ("EVAL", "return redis.call('incr', KEYS[1])", 1, f"count:{n}"),
                ("DBSIZE",), ("TYPE", f"hash:{n}"), ("RANDOMKEY",)])
            client.ok("SCAN", 0, "MATCH", "hash:*", "COUNT", 20)
            yield


@actor(pause=.1)
def transactions(world, chance):
    """Watched, run, discarded, left unfinished."""
    while True:
        with world.client(chance) as client:
            for _ in range(20):
                tag = f"{{t{chance.randrange(50)}}}"
                client.ok("WATCH", f"{tag}:a")
                client.ok("GET", f"{tag}:a")
                client.ok("MULTI")
                client.ok("SET", f"{tag}:a", chance.random())
                client.ok("INCR", f"{tag}:n")
                way = chance.random()
                if way < .8:
                    reply = client.ok("EXEC")
                    assert reply is None or len(reply) == 2, reply
                elif way < .95:
                    client.ok("DISCARD")
                else:
                    break
                yield
        yield


@actor(pause=.1)
def blocking(world, chance):
    """Waiting for items of lists and streams; some in vain, some hang up."""
    with world.client(chance) as giver:
        while True:
            with world.client(chance) as taker:
                for _ in range(10):
                    n = chance.randrange(50)
                    taker.send(encode("BLPOP", f"queue:{n}", 5))
                    giver.ok("RPUSH", f"queue:{n}", "item")
                    assert decode(taker.read())[1] == b"item"
                    assert taker.ok("BLPOP", f"empty:{n}", 0.05) is None
                    taker.send(encode("XREAD", "BLOCK", 5000, "STREAMS", f"stream:{n}", "$"))
                    while not select.select([taker.socket], [], [], .1)[0]:
                        giver.ok("XADD", f"stream:{n}", "MAXLEN", 50, "*", "f", "v")
                    assert decode(taker.read()) is not None
                    yield
                taker.send(encode("BLPOP", "never", 0))
            yield


@actor(pause=.1)
def channels(world, chance):
    """Subscribing, hearing what another proxy's client says, leaving."""
    while True:
        with world.client(chance, 3) as ear, world.client(chance) as mouth:
            for _ in range(10):
                n = chance.randrange(60)
                for word, name in (("SUBSCRIBE", f"chat:{n}"), ("PSUBSCRIBE", f"chat:{n}*")):
                    ear.send(encode(word, name))
                    assert decode(ear.read())[2] >= 1
                mouth.ok("PUBLISH", f"chat:{n}", "hello")
                assert [decode(ear.read())[-1] for _ in range(2)] == [b"hello"] * 2
                ear.send(encode("UNSUBSCRIBE", f"chat:{n}") + encode("PUNSUBSCRIBE", f"chat:{n}*"))
                ear.read(), ear.read()
                mouth.ok("PUBSUB", "NUMSUB", f"chat:{n}")
                yield
            ear.send(encode("SUBSCRIBE", "left:open"))


@actor(pause=10.0)
def monitor(world, chance):
    while True:
        with world.client(chance) as client:
            client.ok("MONITOR")
            for _ in range(50):
                assert client.read().startswith(b"+")
        yield


@actor(pause=.2, copies=2)
def client_tracking(world, chance):
    """Applications with caches of their own: each change of what they read is told."""
    while True:
        with world.client(chance, 3) as client, world.client(chance) as other:
            how = chance.choice(((), ("NOLOOP",), ("BCAST", "PREFIX", "track:"), ("OPTIN",)))
            client.ok("CLIENT", "TRACKING", "ON", *how)
            for _ in range(10):
                key = f"track:{chance.randrange(500)}"
                if "OPTIN" in how:
                    client.ok("CLIENT", "CACHING", "YES")
                read_past_pushes(client, "GET", key)
                other.ok("SET", key, chance.random(), "PX", 20000)
                deadline = time.monotonic() + PATIENCE_S
                while not tells_of(client.read(), key):
                    assert time.monotonic() < deadline, f"nobody told of {key}"
                yield
            if chance.random() < .5:
                client.send(encode("CLIENT", "TRACKING", "OFF"))
        yield


def tells_of(frame, key):
    """By name, or that everything may have changed (a reload, a lost link)."""
    return frame.startswith(b">") and (key.encode() in frame or frame.endswith(b"_\r\n"))


def read_past_pushes(client, *words):
    frame = client.ask(*words)
    while frame.startswith(b">"):
        frame = client.read()
    return frame


@actor(pause=.5)
def large_values(world, chance):
    """Up and down, whole, slowly, and left in the middle."""
    size = 3 << 20
    while True:
        with world.client(chance) as client:
            key = f"large:{chance.randrange(4)}"
            assert client.ok("SET", key, b"y" * size) == b"OK"
            assert len(client.ok("GET", key)) == size
            client.send(encode("GET", key))
            left = size // 2
            while left > 0:
                left -= len(client.socket.recv(1 << 16))
                time.sleep(.001)
        with world.client(chance) as client:
            client.send(b"*3\r\n$3\r\nSET\r\n$5\r\nbegun\r\n$3000000\r\n" + b"z" * 1500000)
        yield


@actor(pause=.2)
def tls(world, chance):
    with world.tls_client(chance, 3) as standing:
        while True:
            with world.tls_client(chance) as client:
                key = page(chance)
                assert client.ok("PING") == b"PONG"
                holds([key, key], [client.ok("GET", key), standing.ok("GET", key)])
            yield


@actor(pause=.1)
def coming_and_going(world, chance):
    """Connections that hardly begin, that end in the midst of a request or of a reply."""
    while True:
        for _ in range(5):
            with world.client(chance) as client:
                way = chance.randrange(5)
                if way == 0:
                    assert client.ok("PING") == b"PONG"
                elif way == 1:
                    client.send(b"*2\r\n$3\r\nGET\r\n$100\r\nhalf of a k")
                elif way == 2:
                    client.send(encode("GET", page(chance)) * 50)
                elif way == 3:
                    client.ok("HELLO", 3, "SETNAME", "comer")
                    client.ok("CLIENT", "ID")
                else:
                    client.send(b"*1\r\n$-5\r\nno request\r\n")
                    client.read_all(PATIENCE_S)
        yield


# ---- what is told about keys ----

@actor(pause=.1)
def tagging(world, chance):
    with world.client(chance) as client:
        while True:
            keys = [page(chance) for _ in range(3)]
            for key in keys:
                world.try_to(client, "CACHE", "TAG", key, f"user:{chance.randrange(100)}", "news")
            world.try_to(client, "CACHE", "UNTAG", keys[0], "news")
            if chance.random() < .2:
                world.try_to(client, "CACHE", "INVALIDATE", "TAG", f"user:{chance.randrange(100)}")
            if chance.random() < .05:
                world.try_to(client, "CACHE", "INVALIDATE", "TAG", f"page:{chance.randrange(200)}")
                world.try_to(client, "CACHE", "MEMBERS", "news", 20)
            yield


@actor(pause=.1)
def depending(world, chance):
    """By hand and by rules; some relations end, some lapse with their keys."""
    with world.client(chance) as client:
        while True:
            n, m = chance.randrange(300), chance.randrange(50)
            world.try_to(client, "CACHE", "DEPEND", f"made:{n}", f"source:{m}", "menu")
            made = [f"made:{n}", f"profile:{m}", f"view:{m}:1", f"seldom:{m}"]
            world.pipeline(client, [words for key in made for words in (
                ("SET", key, "x", "PX", 20000), ("GET", key))])
            world.pipeline(client, [("SET", f"{key}:{m}", value) for key, value in (
                ("source", "x"), ("user", "x"), ("often", "x"), ("often", "y"))])
            if chance.random() < .5:
                world.try_to(client, "CACHE", "UNDEPEND", f"made:{n}")
            if chance.random() < .1:
                world.try_to(client, "CACHE", "DEPENDS", f"made:{n}")
            yield


@actor(pause=.2)
def events(world, chance):
    """Subscribed, published by hand and by sources, taken back."""
    with world.client(chance) as client, world.direct() as direct:
        while True:
            n = chance.randrange(40)
            world.try_to(client, "CACHE", "SUBSCRIBE", f"release:{n}", page(chance), f"made:{n}*")
            world.try_to(client, "CACHE", "SUBSCRIBE", f"sale.*.{n}.{{id}}", "made:{id}")
            world.try_to(client, "CACHE", "PUBLISH", f"release:{chance.randrange(40)}")
            world.try_to(client, "CACHE", "PUBLISH", f"sale.eu.{n}.{n}")
            direct.ok("PUBLISH", "app:deploy", n)
            direct.ok("XADD", "soak:events", "MAXLEN", 100, "*", "event", f"release:{n}")
            if chance.random() < .7:
                world.try_to(client, "CACHE", "UNSUBSCRIBE", f"release:{n}")
                world.try_to(client, "CACHE", "UNSUBSCRIBE", f"sale.*.{n}.{{id}}")
            yield


# ---- what operators do ----

@actor(pause=1.0)
def operating(world, chance):
    with world.client(chance) as client:
        while True:
            n = chance.randrange(200)
            for words in (("STATS",), ("INFO",), ("AUDIT",), ("GET", page(chance)),
                          ("INVALIDATE", "KEYS", page(chance)),
                          ("INVALIDATE", "PREFIX", f"page:{n}:"),
                          ("INVALIDATE", "GLOB", f"page:*:*{n}"),
                          ("CLEAR", "hot"), ("EVENTS", "release:1*"), ("JOB", "LIST"),
                          ("CONFIG", "SET", "max-flights", 60000 + n)):
                world.try_to(client, "CACHE", *words)
            ban = world.try_to(client, "CACHE", "BAN", "ADD", "PREFIX", f"junk:{n}", "TTL", 60000)
            if ban is not None and chance.random() < .8:
                named = dict(zip(ban[::2], ban[1::2])) if isinstance(ban, list) else {b"id": ban}
                world.try_to(client, "CACHE", "BAN", "REMOVE", named[b"id"])
            if chance.random() < .3:
                world.pipeline(client, [("SET", f"junk:{i}", "x") for i in range(50)])
                world.try_to(client, "CACHE", "INVALIDATE", "ALL", "PREFIX", "junk:")
            client.ok("INFO")
            client.ok("CLIENT", "LIST")
            yield


@actor(pause=.5)
def by_http(world, chance):
    while True:
        n = chance.randrange(200)
        world.post(chance, "/v1/invalidate", [{"keys": [page(chance), page(chance)]},
                                              {"prefix": f"page:{n}:"}, {"tags": ["user:1"]},
                                              {"event": "release:1"}])
        world.post(chance, "/v1/tags", {"key": page(chance), "tags": [f"user:{n % 100}"]})
        world.post(chance, "/v1/dependencies", {"derived": f"made:{n}", "sources": ["menu"]})
        world.post(chance, "/v1/events", {"event": "release:2", "names": [page(chance)]})
        for path in ("/metrics", "/healthz", "/v1/bans", "/v1/jobs"):
            world.fetch(chance, path)
        yield


@actor(pause=5.0)
def reloading(world, chance):
    """Another value each time, in the file that SIGHUP has read anew."""
    n = 0
    while True:
        n += 1
        for path, pid in zip(world.configs, world.pids):
            with open(path, encoding="utf-8") as file:
                lines = file.read().splitlines()
            lines = [f"max-staleness = {900 + n % 2 * 100}ms" if line.startswith("max-staleness")
                     else line for line in lines]
            with open(f"{path}.new", "w", encoding="utf-8") as file:
                file.write("\n".join(lines) + "\n")
            os.replace(f"{path}.new", path)
            os.kill(pid, signal.SIGHUP)
        yield


# ---- running them ----

class _Runner(threading.Thread):
    """One actor until it is told to stop; one that failed begins anew a second later."""

    def __init__(self, world, name, number, pause_max, stop):
        super().__init__(daemon=True, name=f"{name}-{number}")
        self.actor, self._world, self._ending = name, world, stop
        self._pause_max = pause_max
        self._chance = random.Random(f"{name} {number}")
        self.n_rounds, self.failures = 0, []

    def run(self):
        function, pause, _ = ACTORS[self.actor]
        pause = min(pause, self._pause_max)
        while not self._ending.is_set():
            rounds = function(self._world, self._chance)
            try:
                for _ in rounds:
                    self.n_rounds += 1
                    if self._ending.wait(pause * self._chance.uniform(.5, 1.5)):
                        break
            except (OSError, EOFError, RespError) as error:
                # A machine that stands still may cost a connection: their share is judged.
                if not self._ending.is_set():
                    self._world.errors[f"{self.actor}: {type(error).__name__} "
                                       f"{str(error)[:60]}"] += 1
                    self._ending.wait(1)
            except Exception:  # whatever it is, it is told
                if not self._ending.is_set():
                    self.failures.append(f"{time.strftime('%T')} {traceback.format_exc()}")
                    self._ending.wait(1)
            finally:
                rounds.close()


def _work(world, share, pause_max, stop, results):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    runners = [_Runner(world, name, number, pause_max, stop) for name, number in share]
    for runner in runners:
        runner.start()
    for runner in runners:
        runner.join()
    results.put(([(r.actor, r.n_rounds, r.failures[:5], len(r.failures)) for r in runners],
                 dict(world.errors)))


class Load:
    """All actors, in processes. pause_max: no actor pauses for longer."""

    def __init__(self, world, pause_max=60.0):
        context = multiprocessing.get_context("fork")
        all_of_them = [(name, number) for name, (_, _, copies) in ACTORS.items()
                       for number in range(copies)]
        self._stop, self._results = context.Event(), context.Queue()
        self._processes = [
            context.Process(target=_work, daemon=True, args=(
                world, all_of_them[i::N_PROCESSES], pause_max, self._stop, self._results))
            for i in range(N_PROCESSES)]

    def start(self):
        for process in self._processes:
            process.start()

    def stop(self):
        """{actor: {rounds, failures, n_failures}}, and error replies by text."""
        self._stop.set()
        actors = {name: {"rounds": 0, "n_failures": 0, "failures": []} for name in ACTORS}
        errors = collections.Counter()
        for _ in self._processes:
            try:
                done, some = self._results.get(timeout=4 * PATIENCE_S)
            except queue.Empty:
                actors["reading"]["failures"].append("a process of the load did not end")
                actors["reading"]["n_failures"] += 1
                continue
            errors.update(some)
            for name, rounds, failures, n_failures in done:
                actors[name]["rounds"] += rounds
                actors[name]["failures"] += failures
                actors[name]["n_failures"] += n_failures
        for process in self._processes:
            process.join(5)
            if process.is_alive():
                process.kill()
        return actors, dict(errors)
