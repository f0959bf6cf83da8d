"""Clients that send without end and read nothing, and others that take memory of a proxy."""

import contextlib
import select
import socket
import threading

from .resp import encode


class HostileCrowd:
    """Connections that send without end and read nothing, driven by one thread."""

    def __init__(self, address):
        self.address = address
        self.jobs = {}
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.n_sent = self.n_closed = 0

    def add(self, begin, again, count):
        """count connections that send `begin`, then `again` for ever."""
        for _ in range(count):
            with contextlib.suppress(OSError):
                each = socket.create_connection(self.address, timeout=10)
                each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                each.setblocking(False)
                self.jobs[each.fileno()] = [each, begin, again]

    def run(self):
        poller = select.epoll()
        for number in self.jobs:
            poller.register(number, select.EPOLLOUT | select.EPOLLHUP)
        while not self.stopping.is_set() and self.jobs:
            for number, _ in poller.poll(0.1):
                job = self.jobs[number]
                try:
                    n = job[0].send(job[1][:1 << 16])
                    self.n_sent += n
                    job[1] = job[1][n:] or job[2]
                    if not job[1]:
                        poller.unregister(number)
                except BlockingIOError:
                    pass
                except OSError:
                    poller.unregister(number)
                    self.jobs.pop(number)[0].close()
                    self.n_closed += 1
        poller.close()

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        self.thread.join()
        for each, _, _ in self.jobs.values():
            each.close()


def hostile_mix(proxy):
    """Everything that is known to take memory of a proxy."""
    crowd = HostileCrowd(proxy.address)
    many = encode("GET", "big") * 20
    crowd.add(many, many, 40)                                          # never reads
    crowd.add(encode("SET", "x", b"v" * 100) * 500,
              encode("SET", "x", b"v" * 100) * 500, 20)                # pipelines
    for _ in range(20):                                                # half requests, big ones
        crowd.add(b"*3\r\n$3\r\nSET\r\n$1\r\nh\r\n$30000000\r\n" + b"h" * 900000, b"h" * 65536, 1)
    crowd.add(b"*100000\r\n$4\r\nMGET\r\n", b"$10\r\nkkkkkkkkkk\r\n" * 1000, 20)
    crowd.add(encode("MULTI"), encode("SET", "q", b"q" * 10000), 20)   # MULTI without EXEC
    crowd.add(encode("MONITOR"), b"", 10)
    crowd.add(encode("SUBSCRIBE", "news"), b"", 20)
    crowd.add(encode("PUBLISH", "news", b"n" * 5000), encode("PUBLISH", "news", b"n" * 5000), 5)
    crowd.add(encode("HELLO", 3) + encode("CLIENT", "TRACKING", "ON"),
              b"".join(encode("GET", f"t{i}") for i in range(2000)), 10)
    crowd.add(encode("MGET", *["big"] * 50), encode("MGET", *["big"] * 50), 10)
    crowd.add(b"", b"", 200)
    return crowd
