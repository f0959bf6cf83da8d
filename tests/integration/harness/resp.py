"""A raw RESP client: bytes out, whole reply frames in, as bytes.

The differential tests compare frames byte for byte, so this client never interprets what it
returns from read() and ask(). value() decodes for tests that look inside.
"""

import socket
import time

from .waiting import SCALE

CRLF = b"\r\n"
_BULK = b"$=!"
_SIMPLE = b"+-:_,#("
_AGGREGATE = {ord("*"): 1, ord("~"): 1, ord(">"): 1, ord("%"): 2, ord("|"): 2}


class BadFrame(Exception):
    """Bytes that are no RESP."""


class RespError(Exception):
    """A decoded error reply (a value, raised only by RawClient.ok())."""

    def __eq__(self, other):
        return isinstance(other, RespError) and str(self) == str(other)

    def __hash__(self):
        return hash(str(self))


def frame_end(buffer, start=0):
    """Where the frame that begins at start ends; -1 while it is incomplete."""
    at, pending = start, 1
    while pending:
        eol = buffer.find(CRLF, at)
        if eol < 0:
            if at < len(buffer) and buffer[at] not in _BULK + _SIMPLE + bytes(_AGGREGATE):
                raise BadFrame(bytes(buffer[at:at + 80]))
            return -1
        kind = buffer[at]
        if kind in _BULK:
            length = int(buffer[at + 1:eol])
            at = eol + 2 + (length + 2 if length >= 0 else 0)
            if at > len(buffer):
                return -1
            pending -= 1
        elif kind in _AGGREGATE:
            count = int(buffer[at + 1:eol])
            at = eol + 2
            # An attribute stands in front of the value that it describes.
            pending += max(count, 0) * _AGGREGATE[kind] - (kind != ord("|"))
        elif kind in _SIMPLE:
            at = eol + 2
            pending -= 1
        else:
            raise BadFrame(bytes(buffer[at:at + 80]))
    return at


def _decode(frame, at):
    eol = frame.index(CRLF, at)
    kind, line, after = frame[at], bytes(frame[at + 1:eol]), eol + 2
    if kind in _BULK:
        length = int(line)
        if length < 0:
            return None, after
        body = bytes(frame[after:after + length])
        after += length + 2
        if kind == ord("!"):
            return RespError(body.decode(errors="replace")), after
        return (body[4:] if kind == ord("=") else body), after
    if kind in _AGGREGATE:
        count = int(line)
        if count < 0:
            return None, after
        items = []
        for _ in range(count * _AGGREGATE[kind]):
            item, after = _decode(frame, after)
            items.append(item)
        if kind == ord("|"):
            return _decode(frame, after)
        if kind == ord("%"):
            return dict(zip(items[::2], items[1::2])), after
        return items, after
    if kind == ord("+"):
        return line, after
    if kind == ord("-"):
        return RespError(line.decode(errors="replace")), after
    if kind in b":(":
        return int(line), after
    if kind == ord(","):
        return float(line), after
    if kind == ord("#"):
        return line == b"t", after
    return None, after


def decode(frame):
    """A frame as Python: bytes, int, float, bool, None, list, dict or RespError."""
    return _decode(frame, 0)[0]


def elements(frame):
    """The direct elements of an aggregate frame, each as its own frame."""
    at = frame.index(CRLF) + 2
    found = []
    while at < len(frame):
        end = frame_end(frame, at)
        found.append(frame[at:end])
        at = end
    return found


def encode(*args):
    """A command as Redis clients send it. Texts are UTF-8, numbers decimal."""
    parts = [arg if isinstance(arg, bytes) else str(arg).encode() for arg in args]
    return b"*%d\r\n" % len(parts) + b"".join(
        [b"$%d\r\n%s\r\n" % (len(part), part) for part in parts])


class RawClient:
    """One connection. address is (host, port) or the path of a Unix socket.

    EOFError: the peer closed. TimeoutError: nothing came for `timeout` seconds (scaled).
    """

    def __init__(self, address, protocol=2, *, password=None, user=None, timeout=10.0,
                 receive_buffer=None):
        timeout *= SCALE
        if isinstance(address, str):
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        else:
            family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
            self.socket = socket.socket(family, socket.SOCK_STREAM)
        try:
            if receive_buffer:
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            self.socket.settimeout(timeout)
            self.socket.connect(address)
            if not isinstance(address, str):
                self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.buffer = bytearray()
            self.protocol = protocol
            if password is not None:
                self.ok("AUTH", *([user] if user else []), password)
            if protocol == 3:
                self.ok("HELLO", 3)
        except BaseException:
            self.socket.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def read(self):
        """The next whole frame, pushes included."""
        while True:
            end = frame_end(self.buffer) if self.buffer else -1
            if end >= 0:
                frame = bytes(self.buffer[:end])
                del self.buffer[:end]
                return frame
            data = self.socket.recv(1 << 18)
            if not data:
                raise EOFError(f"closed by peer; unread: {bytes(self.buffer[:200])!r}")
            self.buffer += data

    def ask(self, *args):
        """One command, its reply as a frame."""
        self.send(encode(*args))
        return self.read()

    def pipeline(self, commands):
        """Sends all commands in one piece; their replies as frames."""
        self.send(b"".join([encode(*command) for command in commands]))
        return [self.read() for _ in commands]

    def value(self, *args):
        """One command, its reply decoded."""
        return decode(self.ask(*args))

    def ok(self, *args):
        """One command that must not fail; its reply decoded."""
        value = self.value(*args)
        if isinstance(value, RespError):
            raise value
        return value

    def read_all(self, seconds=10.0):
        """Everything until the peer closes. TimeoutError when it does not within seconds."""
        deadline = time.monotonic() + seconds * SCALE
        received = bytes(self.buffer)
        self.buffer.clear()
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"still open; received {received[-200:]!r}")
            self.socket.settimeout(left)
            try:
                data = self.socket.recv(1 << 18)
            except ConnectionResetError:
                return received
            if not data:
                return received
            received += data
