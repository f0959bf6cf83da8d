"""The demo's applications. Each is the same code with and without nearcached: only the address of
its Redis differs.

A workload has a name, a prefix of its keys (which is its namespace), tasks that run until they are
cancelled, and a Figures object in which it counts. Values carry the name of their key and a
version, so that every answer is judged: a wrong one ends the demo, an old one is counted.
"""

import asyncio
import bisect
import random
import time

from client import ReplyError

now = time.perf_counter


class Figures:
    """What one workload saw since the measurement began."""

    def __init__(self):
        self.begin()

    def begin(self):
        self.seconds = []        # of each request, computing included
        self.reads = 0           # keys asked for
        self.found = 0           # of them that Redis or nearcached had
        self.computed = 0
        self.stale = 0           # older than the bound allows
        self.oldest = 0.0        # how far behind, in seconds, the oldest answer was
        self.errors = {}

    def error(self, error):
        text = str(error)[:70]
        self.errors[text] = self.errors.get(text, 0) + 1


class Truth:
    """Which version of each key was acknowledged when."""

    def __init__(self, figures, bound):
        self._figures, self._bound = figures, bound
        self._history = {}

    def next_version(self, key):
        return self._history[key][1][-1] + 1 if key in self._history else 1

    def acknowledged(self, key, version):
        times, versions = self._history.setdefault(key, ([], []))
        times.append(now())
        versions.append(version)

    def judge(self, key, version, asked_at):
        """version 0: missing, which is never held against a key that may expire."""
        if key not in self._history or version == 0:
            return
        times, versions = self._history[key]
        newest = bisect.bisect_right(times, asked_at) - 1
        if newest < 0 or version >= versions[newest]:
            return
        # It was replaced by the first newer version.
        replaced = next(t for t, v in zip(times, versions) if v > version)
        behind = asked_at - replaced
        self._figures.oldest = max(self._figures.oldest, behind)
        self._figures.stale += behind > self._bound


def value(key, version, size):
    return b"%s %d " % (key, version) + b"x" * max(0, size - len(key) - 12)


def version_of(key, reply):
    """0 when it is missing. Another key's value is a wrong answer, which must not happen."""
    if reply is None:
        return 0
    name, version, _ = reply.split(b" ", 2)
    if name != key:
        raise SystemExit(f"demo: WRONG ANSWER: asked for {key!r}, got the value of {name!r}")
    return int(version)


class Engine:
    """What computes values: so many at a time, the others queue, as at a GPU or a database."""

    def __init__(self, seconds, at_once):
        self._seconds = seconds
        self._places = asyncio.Semaphore(at_once)

    async def compute(self, result):
        async with self._places:
            await asyncio.sleep(self._seconds)
        return result


class Workload:
    """What the workloads share. hosts: one function per host that opens a client there."""

    title, namespace = "", ""  # as the table has it, and demo/nearcached.conf
    prefix = b""
    bound = 1.0  # max-staleness of the proxies, in seconds

    def __init__(self, hosts, seed):
        self._hosts = hosts
        self.random = random.Random(seed)
        self.figures = Figures()
        self.truth = Truth(self.figures, self.bound)

    async def load(self, client):
        """What is there before anybody comes."""

    def tasks(self):
        """Coroutines, each with a client of its own."""
        raise NotImplementedError

    async def open(self, number):
        return await self._hosts[number % len(self._hosts)]()

    async def every(self, seconds, act):
        """act() again and again, the pauses at random around so many seconds."""
        while True:
            await asyncio.sleep(self.random.uniform(0.5, 1.5) * seconds)
            try:
                await act()
            except (OSError, ReplyError) as error:
                self.figures.error(error)

    async def get(self, client, key):
        """(version, reply), judged; the caller times the request."""
        asked_at = now()
        reply = await client.call(b"GET", key)
        version = version_of(key, reply)
        self.truth.judge(key, version, asked_at)
        self.figures.reads += 1
        self.figures.found += reply is not None
        return reply

    async def get_or_compute(self, client, key, ttl, engine, result):
        """result is the value as it is when the computation begins."""
        began = now()
        if await self.get(client, key) is None:
            self.figures.computed += 1
            await client.call(b"SETEX", key, ttl, await engine.compute(result()))
        self.figures.seconds.append(now() - began)


class Detection(Workload):
    """A detector's results. A new image is announced to all consumers at once; each of them
    wants its objects and those of the four before. Who misses them asks the detector, which takes
    30 ms for an image and does four at a time."""

    title, namespace = "object detection", "detection"
    prefix = b"det:"
    CONSUMERS, PER_SECOND, TTL, SIZE = 16, 5, 60, 1200

    def __init__(self, hosts, seed):
        super().__init__(hosts, seed)
        self._announced = asyncio.Condition()
        self._detector = Engine(0.030, at_once=4)
        self._images = [0]

    def tasks(self):
        yield self._camera()
        for number in range(self.CONSUMERS):
            yield self._consumer(number)

    async def _camera(self):
        async def announce():
            async with self._announced:
                self._images.append(self._images[-1] + 1)
                self._announced.notify_all()
        await self.every(1 / self.PER_SECOND, announce)

    async def _consumer(self, number):
        client = await self.open(number)
        while True:
            async with self._announced:
                await self._announced.wait()
                images = self._images[-5:]
            for image in reversed(images):
                key = b"det:%d" % image
                await self.get_or_compute(client, key, self.TTL, self._detector,
                                          lambda key=key: value(key, 1, self.SIZE))


class Config(Workload):
    """The settings of services: every request handler reads some, hardly anybody writes."""

    title, namespace = "service configuration", "config"
    prefix = b"config:"
    KEYS, READERS, PER_SECOND, SIZE = 60, 16, 50, 300

    async def load(self, client):
        for number in range(self.KEYS):
            key = b"config:%d" % number
            await client.call(b"SET", key, value(key, 1, self.SIZE))
            self.truth.acknowledged(key, 1)

    def tasks(self):
        for number in range(self.READERS):
            yield self._reader(number)

    async def _reader(self, number):
        client = await self.open(number)

        async def read():
            began = now()
            await self.get(client, b"config:%d" % self.random.randrange(self.KEYS))
            self.figures.seconds.append(now() - began)
        await self.every(1 / self.PER_SECOND, read)


class Frames(Workload):
    """Metadata of video frames: each is written three times within its first half second, and
    then looked at by everybody who shows the last minute of that camera."""

    title, namespace = "recent frames", "frames"
    prefix = b"frame:"
    CAMERAS, READERS, WINDOW, TTL, SIZE = 10, 20, 60, 90, 250

    def __init__(self, hosts, seed):
        super().__init__(hosts, seed)
        self._numbers = [0] * self.CAMERAS

    async def load(self, client):
        """The minute before, so that there is one to look at."""
        for camera in range(self.CAMERAS):
            for _ in range(self.WINDOW):
                await self._write(client, self._key(camera, self._numbers[camera]))
                self._numbers[camera] += 1

    @staticmethod
    def _key(camera, number):
        return b"frame:%d:%d" % (camera, number)

    def tasks(self):
        for camera in range(self.CAMERAS):
            yield self._camera(camera)
        for number in range(self.READERS):
            yield self._reader(number)

    async def _write(self, client, key):
        version = self.truth.next_version(key)
        await client.call(b"SETEX", key, self.TTL, value(key, version, self.SIZE))
        self.truth.acknowledged(key, version)

    async def _camera(self, camera):
        client = await self.open(camera)

        async def frame():
            key = self._key(camera, self._numbers[camera])
            await self._write(client, key)
            self._numbers[camera] += 1
            for pause in (0.1, 0.3):
                await asyncio.sleep(pause)
                await self._write(client, key)
        await self.every(0.6, frame)

    async def _reader(self, number):
        client = await self.open(number)

        async def look():
            camera = self.random.randrange(self.CAMERAS)
            last = self._numbers[camera]
            keys = [self._key(camera, at) for at in range(max(0, last - self.WINDOW), last)]
            began = now()
            replies = await client.get_many(keys)
            self.figures.seconds.append(now() - began)
            for key, reply in zip(keys, replies):
                self.truth.judge(key, version_of(key, reply), began)
                self.figures.reads += 1
                self.figures.found += reply is not None
        await self.every(1, look)


class Aggregates(Workload):
    """Sums over events: 100 ms of a database that runs eight such queries at a time, good for five
    seconds, and shown by dashboards that all refresh on the second."""

    title, namespace = "aggregated events", "aggregates"
    prefix = b"agg:"
    KINDS, DASHBOARDS, TTL, SIZE = 5, 24, 5, 2000

    def __init__(self, hosts, seed):
        super().__init__(hosts, seed)
        self._database = Engine(0.100, at_once=8)

    def tasks(self):
        for number in range(self.DASHBOARDS):
            yield self._dashboard(number)

    async def _dashboard(self, number):
        client = await self.open(number)
        while True:
            await asyncio.sleep(1 - time.time() % 1)
            for kind in range(self.KINDS):
                key = b"agg:%d" % kind
                await self.get_or_compute(client, key, self.TTL, self._database,
                                          lambda key=key: value(key, 1, self.SIZE))


class Deployments(Workload):
    """What an API says of deployments: the list for a minute, each status for half a minute. The
    controller that changes one publishes an event on a Redis channel. Without anybody who acts on
    it, readers see the old status until its time is over."""

    title, namespace = "deployments", "deployments"
    prefix = b"deploy:"
    DEPLOYMENTS, READERS, PER_SECOND, SIZE = 20, 10, 10, 400

    def __init__(self, hosts, seed):
        super().__init__(hosts, seed)
        self._api = Engine(0.010, at_once=8)

    def tasks(self):
        yield self._controller()
        for number in range(self.READERS):
            yield self._reader(number)

    async def load(self, client):
        for number in range(self.DEPLOYMENTS):
            self.truth.acknowledged(b"deploy:status:%d" % number, 1)
        self.truth.acknowledged(b"deploy:list", 1)

    async def _controller(self):
        client = await self.open(0)

        async def deploy():
            number = self.random.randrange(self.DEPLOYMENTS)
            # The API is what is true; Redis holds copies of what it said.
            for key in (b"deploy:status:%d" % number, b"deploy:list"):
                self.truth.acknowledged(key, self.truth.next_version(key))
            await client.call(b"PUBLISH", b"deployments", b"deployment.%d.ready" % number)
        await self.every(2, deploy)

    async def _reader(self, number):
        client = await self.open(number)

        async def read():
            if self.random.random() < 0.3:
                key, ttl = b"deploy:list", 60
            else:
                key, ttl = b"deploy:status:%d" % self.random.randrange(self.DEPLOYMENTS), 30
            await self.get_or_compute(
                client, key, ttl, self._api,
                lambda key=key: value(key, self.truth.next_version(key) - 1, self.SIZE))
        await self.every(1 / self.PER_SECOND, read)


class Items(Workload):
    """80 percent of the requests for 20 percent of the keys, one in twenty a write."""

    title, namespace = "80/20", "items"
    prefix = b"item:"
    KEYS, CLIENTS, PER_SECOND, WRITES, SIZE = 4000, 20, 30, 0.05, 200

    async def load(self, client):
        for number in range(self.KEYS):
            key = b"item:%d" % number
            await client.call(b"SET", key, value(key, 1, self.SIZE))
            self.truth.acknowledged(key, 1)

    def tasks(self):
        for number in range(self.CLIENTS):
            yield self._client(number)

    def _any(self):
        hot = self.KEYS // 5
        if self.random.random() < 0.8:
            return self.random.randrange(hot)
        return self.random.randrange(hot, self.KEYS)

    async def _client(self, number):
        client = await self.open(number)

        async def request():
            at = self._any()
            began = now()
            if self.random.random() < self.WRITES:
                # Each key has one writer, so that there is an order of its versions to judge by.
                key = b"item:%d" % (at - at % self.CLIENTS + number)
                version = self.truth.next_version(key)
                await client.call(b"SET", key, value(key, version, self.SIZE))
                self.truth.acknowledged(key, version)
            else:
                await self.get(client, b"item:%d" % at)
            self.figures.seconds.append(now() - began)
        await self.every(1 / self.PER_SECOND, request)


ALL = (Detection, Config, Frames, Aggregates, Deployments, Items)
