"""Many clients that ask at once, over raw connections and one epoll."""

import select
import time

from .resp import RawClient, frame_end
from .waiting import SCALE


class Crowd:
    """n connections, in turn to these addresses. replies and came_at: by number of the client."""

    def __init__(self, addresses, n):
        self.clients = [RawClient(addresses[i % len(addresses)], timeout=30.0) for i in range(n)]
        self._poll = select.epoll()
        self._number = {}
        for number, client in enumerate(self.clients):
            client.socket.setblocking(False)
            self._poll.register(client.socket.fileno(), select.EPOLLIN)
            self._number[client.socket.fileno()] = number
        self.replies = [None] * n
        self.came_at = [None] * n

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._poll.close()
        for client in self.clients:
            client.close()

    def send(self, data, who=None):
        for number in range(len(self.clients)) if who is None else who:
            self.replies[number] = self.came_at[number] = None
            self.clients[number].socket.send(data)

    def n_answered(self):
        return sum(reply is not None for reply in self.replies)

    def take(self, seconds=0.0):
        """What has come within this time; the number of clients that it was the answer of."""
        n = 0
        for descriptor, _ in self._poll.poll(seconds):
            number = self._number[descriptor]
            client = self.clients[number]
            data = client.socket.recv(1 << 16)
            if not data:
                raise EOFError(f"client {number} was closed")
            client.buffer += data
            end = frame_end(client.buffer)
            if end >= 0:
                self.replies[number] = bytes(client.buffer[:end])
                self.came_at[number] = time.monotonic()
                del client.buffer[:end]
                n += 1
        return n

    def wait(self, n, seconds=20.0):
        """Until n clients have their answers."""
        deadline = time.monotonic() + seconds * SCALE
        while self.n_answered() < n:
            self.take(0.1)
            if time.monotonic() > deadline:
                raise AssertionError(f"{self.n_answered()} of {n} clients were answered")

    def with_reply(self, frame):
        return [number for number, reply in enumerate(self.replies) if reply == frame]
