#!/usr/bin/env python3
"""How long small requests of one client take while another one moves 512 MB values.

One worker serves both. Prints a logfmt line per case: p50, p99 and the longest wait, in
milliseconds, through the proxy and straight at the server, whose own pauses are in both (a GET of
512 MB stops it for as long as it takes to copy them). The hits among them, which the proxy answers
alone, show its own part.

    NEARCACHED_BIN=build/nearcached /usr/bin/python3 tests/bench/large_delay.py [megabytes] [seconds]
"""

import multiprocessing
import pathlib
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))

from harness.proxy import Proxy  # noqa: E402
from harness.resp import RawClient, encode  # noqa: E402
from harness.servers import RedisServer  # noqa: E402

MB = 1 << 20


def move(address, what, size, stop, count):
    """Moves the value again and again; a slow client rests for a while after each piece."""
    client = RawClient(address, timeout=120, receive_buffer=64 * 1024 if "slow" in what else None)
    piece = bytes(MB)
    key = b"raw:big" if "uncached" in what else b"big"
    while not stop.is_set():
        if "SET" in what:
            client.send(b"*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n" % (len(key), key, size))
            for _ in range(size // MB):
                if stop.is_set():
                    return
                client.send(piece)
                time.sleep(0.02 if "slow" in what else 0)
            client.send(b"\r\n")
            client.read()
        else:
            client.send(encode("GET", key))
            left = size + len(b"$%d\r\n\r\n" % size)
            while left > 0 and not stop.is_set():
                left -= len(client.socket.recv(min(left, MB)))
                time.sleep(0.02 if "slow" in what else 0)
        count.value += 1


def measure(address, seconds):
    """Waits of GET (hit), GET (relayed), SET and INCR, in turn."""
    waits, hits = [], []
    with RawClient(address, timeout=60) as client:
        client.ok("SET", "small", "x" * 100)
        commands = [encode("GET", "small"), encode("GET", "raw:small"),
                    encode("SET", "other", "y" * 100), encode("INCR", "n")]
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for command in commands:
                began = time.perf_counter()
                client.send(command)
                client.read()
                waits.append(time.perf_counter() - began)
                if command is commands[0]:
                    hits.append(waits[-1])
            time.sleep(0.0005)
    waits.sort()
    hits.sort()
    return {"hit_p99_ms": hits[len(hits) * 99 // 100] * 1e3, "hit_max_ms": hits[-1] * 1e3, "n": len(waits), "p50_ms": waits[len(waits) // 2] * 1e3,
            "p99_ms": waits[len(waits) * 99 // 100] * 1e3,
            "p999_ms": waits[len(waits) * 999 // 1000] * 1e3, "max_ms": waits[-1] * 1e3}


def run(address, what, size, seconds):
    if what == "idle":
        return measure(address, seconds), 0
    stop, count = multiprocessing.Event(), multiprocessing.Value("i", 0)
    mover = multiprocessing.Process(target=move, args=(address, what, size, stop, count))
    mover.start()
    try:
        time.sleep(0.2)
        return measure(address, seconds), count.value
    finally:
        stop.set()
        mover.join(10)
        if mover.is_alive():
            mover.kill()


def main():
    size = (int(sys.argv[1]) if len(sys.argv) > 1 else 512) * MB
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 5
    with tempfile.TemporaryDirectory() as directory:
        server = RedisServer(pathlib.Path(directory) / "redis").start()
        proxy = Proxy(pathlib.Path(directory) / "proxy", server.url(), threads=1, config={
            "namespace raw": {"match": "raw:*", "cache": "off"}}).start()
        try:
            for key in ("big", "raw:big"):
                server.ask("SETRANGE", key, size - 1, "x")
            for where, address in (("server", server.address), ("proxy", proxy.address)):
                for what in ("idle", "GET", "uncached GET", "slow GET", "SET", "slow SET"):
                    found, count = run(address, what, size, seconds)
                    print(f'bench=large_delay through={where} beside="{what}" value_mb={size // MB} '
                          f"values_moved={count} " + " ".join(
                              f"{name}={number:.3f}" if isinstance(number, float)
                              else f"{name}={number}" for name, number in found.items()), flush=True)
            print(f"bench=large_delay rss_mb={proxy.rss_bytes() / MB:.1f}")
        finally:
            proxy.kill()
            server.stop()


if __name__ == "__main__":
    main()
