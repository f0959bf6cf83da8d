"""A TCP relay between the proxy and a backend that delays, holds, swallows or cuts.

It runs as a process of its own (this file is also its program), so that the load of the tests does
not blur its delays. A connection whose first bytes from the proxy contain CLIENT TRACKING is a
"tracking" link, as is one that contains PSUBSCRIBE __keyspace@; every other one is "other". Each
fault names the kind that it concerns, or "all".
"""

import asyncio
import collections
import json
import subprocess
import sys

KINDS = ("tracking", "other")
SNIFF_BYTES = 8192
PONG = b"+PONG\r\n"


class TcpRelay:
    """Starts the relay in front of (host, port); .address is where to connect instead."""

    def __init__(self, target):
        from .servers import die_with_parent
        self._process = subprocess.Popen(
            [sys.executable, __file__, target[0], str(target[1])], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True, preexec_fn=die_with_parent)
        self.address = ("127.0.0.1", json.loads(self._process.stdout.readline())["port"])

    def _command(self, **command):
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def delay(self, kind="tracking", to_proxy=0.0, to_backend=0.0):
        """Holds back every byte by so many seconds, in order."""
        self._command(do="delay", kind=kind, to_proxy=to_proxy, to_backend=to_backend)

    def hold(self, kind="tracking"):
        """Passes nothing on in either direction and loses nothing; flow() lets it go."""
        self._command(do="mode", kind=kind, mode="hold")

    def swallow(self, kind="tracking"):
        """Loses everything in either direction, without closing: a partition."""
        self._command(do="mode", kind=kind, mode="swallow")

    def flow(self, kind="all"):
        """Ends hold(). A link that lost bytes to swallow() is cut."""
        self._command(do="mode", kind=kind, mode="flow")

    def cut(self, kind="all"):
        """Closes the connections of this kind; how many there were."""
        return self._command(do="cut", kind=kind)["count"]

    def lose_invalidations(self, *keys):
        """From now on cuts the messages that invalidate one of these keys, and that one alone, out
        of what tracking links carry, or the notification of a SET of it in database 0; none: no
        more."""
        frames = []
        for key in keys:
            frames.append(b">2\r\n$10\r\ninvalidate\r\n*1\r\n" + _bulk(key.encode()))
            frames.append(b">4\r\n$8\r\npmessage\r\n" + _bulk(b"__keyspace@*__:*")
                          + _bulk(b"__keyspace@0__:" + key.encode()) + _bulk(b"set"))
        self._command(do="lose", frames=[frame.decode("latin-1") for frame in frames])

    def overtake(self, is_on=True):
        """As a server may do it with BCAST: what was told before a PONG comes after it, and just
        before the next one. To be turned on when the link is up."""
        self._command(do="overtake", on=is_on)

    def lost(self):
        """How many messages were cut out so far."""
        return self._command(do="lost")["count"]

    def refuse(self, is_refused=True):
        """Closes new connections at once."""
        self._command(do="refuse", on=is_refused)

    def count(self, kind="all"):
        return self._command(do="count", kind=kind)["count"]

    def close(self):
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()


def _bulk(text):
    return b"$%d\r\n%s\r\n" % (len(text), text)


class _State:
    """What the faults are, and the connections they apply to."""

    def __init__(self):
        self.pairs = set()
        self.delays = {kind: {"to_proxy": 0.0, "to_backend": 0.0} for kind in KINDS}
        self.modes = dict.fromkeys(KINDS, "flow")
        self.changed = asyncio.Event()
        self.is_refusing = False
        self.is_overtaking = False
        self.lost_frames = []
        self.n_lost = 0

    def chosen(self, kind):
        return [pair for pair in self.pairs if kind in ("all", pair.kind)]

    def command(self, command):
        kinds = KINDS if command.get("kind") == "all" else [command.get("kind")]
        count = 0
        if command["do"] == "delay":
            for kind in kinds:
                self.delays[kind] = {name: command[name] for name in ("to_proxy", "to_backend")}
        elif command["do"] == "mode":
            for kind in kinds:
                self.modes[kind] = command["mode"]
            if command["mode"] == "flow":
                for pair in self.chosen(command["kind"]):
                    if pair.has_lost_bytes:
                        pair.close()
        elif command["do"] == "cut":
            chosen = self.chosen(command["kind"])
            count = len(chosen)
            for pair in chosen:
                pair.close()
        elif command["do"] == "refuse":
            self.is_refusing = command["on"]
        elif command["do"] == "overtake":
            self.is_overtaking = command["on"]
        elif command["do"] == "lose":
            self.lost_frames = [frame.encode("latin-1") for frame in command["frames"]]
        elif command["do"] == "lost":
            count = self.n_lost
        elif command["do"] == "count":
            count = len(self.chosen(command["kind"]))
        self.changed.set()
        self.changed = asyncio.Event()
        return {"count": count}


class _Pair:
    """One relayed connection."""

    def __init__(self, state):
        self.state = state
        self.kind = "other"
        self.has_lost_bytes = False
        self.sniffed = b""
        self.cut_off = b""  # the beginning of what may become a message that is to be lost
        self.late, self.later = b"", b""  # overtaken by the last PONG; told since then
        self.writers = []
        self.tasks = []

    def sniff(self, data):
        if self.kind == "other" and len(self.sniffed) < SNIFF_BYTES:
            self.sniffed += data.upper()
            if (b"CLIENT" in self.sniffed and b"TRACKING" in self.sniffed
                    or b"__KEYSPACE@" in self.sniffed):
                self.kind = "tracking"

    def without_lost(self, data):
        if self.kind != "tracking" or not data or not (self.state.lost_frames or self.cut_off):
            return data
        data, self.cut_off = self.cut_off + data, b""
        for frame in self.state.lost_frames:
            self.state.n_lost += data.count(frame)
            data = data.replace(frame, b"")
        for frame in self.state.lost_frames:
            for length in range(min(len(frame) - 1, len(data)), len(self.cut_off), -1):
                if data.endswith(frame[:length]):
                    self.cut_off = data[-length:]
                    break
        return data[:len(data) - len(self.cut_off)]

    def with_overtaking(self, data):
        if b"BCAST" not in self.sniffed or not data:
            return data
        if not self.state.is_overtaking:
            data, self.late, self.later = self.late + self.later + data, b"", b""
            return data
        *told, self.later = (self.later + data).split(PONG)
        data = b""
        for messages in told:
            data += self.late + PONG
            self.late = messages
        return data

    def close(self):
        for task in self.tasks:
            task.cancel()
        for writer in self.writers:
            if writer.transport is not None:
                writer.transport.abort()

    async def pump(self, reader, writer, direction):
        loop = asyncio.get_running_loop()
        queue, arrived = collections.deque(), asyncio.Event()
        sender = asyncio.create_task(self.drain(queue, arrived, writer, direction))
        self.tasks.append(sender)
        while True:
            try:
                data = await reader.read(1 << 16)
            except OSError:
                data = b""
            if direction == "to_backend":
                self.sniff(data)
            else:
                data, was_data = self.with_overtaking(self.without_lost(data)), data
                if was_data and not data:
                    continue
            queue.append((loop.time(), data))
            arrived.set()
            if not data:
                await sender
                return

    async def drain(self, queue, arrived, writer, direction):
        loop = asyncio.get_running_loop()
        while True:
            while not queue:
                arrived.clear()
                await arrived.wait()
            came, data = queue[0]
            left = came + self.state.delays[self.kind][direction] - loop.time()
            if left > 0:
                await asyncio.sleep(left)
                continue
            mode = self.state.modes[self.kind]
            if mode == "hold":
                await self.state.changed.wait()
                continue
            queue.popleft()
            if not data:
                writer.close()
                return
            if mode == "swallow":
                self.has_lost_bytes = True
                continue
            writer.write(data)
            await writer.drain()


async def _serve(target_host, target_port):
    state = _State()

    async def on_connection(reader, writer):
        pair = _Pair(state)
        pair.writers.append(writer)
        if state.is_refusing:
            pair.close()
            return
        try:
            backend_reader, backend_writer = await asyncio.open_connection(
                target_host, target_port)
        except OSError:
            pair.close()
            return
        pair.writers.append(backend_writer)
        state.pairs.add(pair)
        pair.tasks += [
            asyncio.create_task(pair.pump(reader, backend_writer, "to_backend")),
            asyncio.create_task(pair.pump(backend_reader, writer, "to_proxy"))]
        # A pump ends when its side has closed; then the other side is closed as well.
        await asyncio.wait(pair.tasks[:2], return_when=asyncio.FIRST_COMPLETED)
        pair.close()
        state.pairs.discard(pair)

    server = await asyncio.start_server(on_connection, "127.0.0.1", 0)
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    commands = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    while True:
        line = await commands.readline()
        if not line:
            return
        print(json.dumps(state.command(json.loads(line))), flush=True)


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], int(sys.argv[2])))
