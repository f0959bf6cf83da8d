"""Redis clients of the demo's applications: RESP2 over asyncio, one request after the other.

Direct knows the cluster's slots, as the cluster clients of all languages do; Plain talks to one
address, as all other clients do. One task uses one client.
"""

import asyncio
import binascii
import collections


class ReplyError(Exception):
    """An error reply; str() is its text."""


class Incomplete(Exception):
    """The rest of the reply has not arrived."""


class Connection(asyncio.Protocol):
    """Pipelined requests and their replies, in order."""

    def __init__(self):
        self._input = bytearray()
        self._waiting = collections.deque()
        self._transport = None

    @classmethod
    async def open(cls, host, port):
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(cls, host, port)
        return connection

    def connection_made(self, transport):
        self._transport = transport

    def connection_lost(self, exc):
        for future in self._waiting:
            if not future.done():
                future.set_exception(exc or ConnectionError("the connection was closed"))
        self._waiting.clear()

    def data_received(self, data):
        self._input += data
        position = 0
        try:
            while position < len(self._input):
                reply, position = _parse(self._input, position)
                future = self._waiting.popleft()
                if not future.done():
                    future.set_result(reply)
        except Incomplete:
            pass
        del self._input[:position]

    def send(self, args):
        """Queues a request; its reply is the future's result, errors as ReplyError objects."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        self._transport.write(encode(args))
        return future

    def close(self):
        self._transport.close()


def encode(args):
    parts = [b"*%d\r\n" % len(args)]
    for arg in args:
        arg = arg if isinstance(arg, bytes) else str(arg).encode()
        parts.append(b"$%d\r\n%s\r\n" % (len(arg), arg))
    return b"".join(parts)


def _parse(data, start):
    """(reply, position behind it); Incomplete when it is not all there."""
    end = data.find(b"\r\n", start)
    if end < 0:
        raise Incomplete
    kind, line = data[start:start + 1], bytes(data[start + 1:end])
    position = end + 2
    if kind == b"+":
        return line, position
    if kind == b"-":
        return ReplyError(line.decode(errors="replace")), position
    if kind == b":":
        return int(line), position
    if kind == b"$":
        length = int(line)
        if length < 0:
            return None, position
        if len(data) < position + length + 2:
            raise Incomplete
        return bytes(data[position:position + length]), position + length + 2
    if kind == b"*":
        items = []
        for _ in range(int(line)):
            item, position = _parse(data, position)
            items.append(item)
        return items, position
    raise ValueError(f"not RESP2: {bytes(data[start:start + 20])!r}")


def slot_of(key):
    """The cluster's slot of a key, with its hash tag."""
    begin = key.find(b"{")
    if begin >= 0:
        end = key.find(b"}", begin + 1)
        if end > begin + 1:
            key = key[begin + 1:end]
    return binascii.crc_hqx(key, 0) % 16384


def _checked(reply):
    if isinstance(reply, ReplyError):
        raise reply
    return reply


class Plain:
    """One address, whatever stands behind it."""

    def __init__(self, connection):
        self._connection = connection

    @classmethod
    async def open(cls, host, port):
        return cls(await Connection.open(host, port))

    async def call(self, *args):
        return _checked(await self._connection.send(args))

    async def get_many(self, keys):
        return await self.call(b"MGET", *keys)

    def close(self):
        self._connection.close()


class Direct:
    """A cluster client: a connection to every master; owners says where each slot is."""

    def __init__(self, owners, connections):
        self._owners = owners
        self._connections = connections

    @classmethod
    async def open(cls, host, owners):
        """owners: [(last slot, port)], ascending."""
        connections = {port: await Connection.open(host, port) for _, port in owners}
        return cls(owners, connections)

    def _of(self, key):
        slot = slot_of(key)
        return self._connections[next(port for last, port in self._owners if slot <= last)]

    async def call(self, *args):
        return _checked(await self._of(args[1]).send(args))

    async def get_many(self, keys):
        """A cluster refuses MGET over several slots: one GET for each, all at once."""
        futures = [self._of(key).send((b"GET", key)) for key in keys]
        return [_checked(await future) for future in futures]

    def close(self):
        for connection in self._connections.values():
            connection.close()
