#!/usr/bin/python3
"""What really arrives at Redis: every command of every master, by the workload it is for.

    watch.py PORT,PORT,... PREFIX...

Prints "ready", counts by MONITOR until its input ends, and prints {prefix: count} as JSON; "other"
is what names no such key (PING, the bus). A process of its own, so that counting does not slow
those who are counted.
"""

import json
import selectors
import socket
import subprocess
import sys


class Commands:
    """Counts from its making to stop()."""

    def __init__(self, masters, prefixes):
        self._process = subprocess.Popen(
            [sys.executable, __file__, ",".join(str(master.port) for master in masters), *prefixes],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if self._process.stdout.readline() != "ready\n":
            raise SystemExit("demo: nobody counts the commands")

    def stop(self):
        """{prefix: count}"""
        return json.loads(self._process.communicate()[0])


def kind_of(line, marks):
    """1700000000.0 [0 127.0.0.1:5000] "GET" "det:1"; locks of leases hold the key in braces."""
    for kind, plain, braced in marks:
        if plain in line or braced in line:
            return kind
    return "other"


def main():
    ports, prefixes = sys.argv[1].split(","), sys.argv[2:]
    marks = [(p, b'"' + p.encode(), b"{" + p.encode()) for p in prefixes]
    counts = dict.fromkeys([*prefixes, "other"], 0)
    rests = {}
    selector = selectors.DefaultSelector()
    for port in ports:
        monitor = socket.create_connection(("127.0.0.1", int(port)))
        monitor.sendall(b"MONITOR\r\n")
        if monitor.recv(5) != b"+OK\r\n":
            sys.exit("watch.py: MONITOR is not permitted")
        rests[monitor] = b""
        selector.register(monitor, selectors.EVENT_READ)
    selector.register(sys.stdin, selectors.EVENT_READ)
    print("ready", flush=True)
    while True:
        for key, _ in selector.select():
            if key.fileobj is sys.stdin:
                print(json.dumps(counts))
                return
            lines = (rests[key.fileobj] + key.fileobj.recv(1 << 16)).split(b"\r\n")
            rests[key.fileobj] = lines.pop()
            for line in lines:
                counts[kind_of(line, marks)] += 1


if __name__ == "__main__":
    main()
