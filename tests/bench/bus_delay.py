#!/usr/bin/env python3
"""How long it takes until what one proxy is told to drop is gone from another.

Two proxies of one worker each in front of one server, on one machine. SWAPDB goes through the
first; a client of the second reads a key ten thousand times a second until it shows the value of the
other database. Prints a logfmt line per case: p50, p99 and the longest wait in milliseconds, from
the reply to SWAPDB; what the second proxy's own histogram says of messages, heartbeats included,
from sending to application (the bound of the bucket); and p99 of a PING straight at the server at
the same times: what the machine itself takes. Cases: idle; the second proxy, and then the first,
under as many reads as it can serve.

    make all bench-programs
    NEARCACHED_BIN=build/nearcached /usr/bin/python3 tests/bench/bus_delay.py [rounds]
"""

import pathlib
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "integration"))

from harness.proxy import Proxy  # noqa: E402
from harness.servers import RedisServer  # noqa: E402
from harness.waiting import wait_until  # noqa: E402

LOADGEN = ROOT / "build" / "bench" / "loadgen"


def load(proxy, seconds):
    """Fifty connections, pipelines of 16, reads of 1000 keys: hits, but for the flushes."""
    command = [LOADGEN, "--address", f"127.0.0.1:{proxy.port}", "--connections", "50", "--pipeline",
               "16", "--keys", "1000", "--seconds", str(seconds), "--allow-nil"]
    return subprocess.Popen([str(each) for each in command],
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def preload(server):
    """Keys for the load in one database, as missing keys are kept too; one key in both."""
    subprocess.run([str(LOADGEN), "--address", f"127.0.0.1:{server.port}", "--mode", "preload",
                    "--keys", "1000"], check=True, stdout=subprocess.DEVNULL)
    for database in ("0", "1"):
        with server.client() as client:
            client.ok("SELECT", database)
            client.ok("SET", "which", database)


def one_wait(writer, reader):
    former = reader.ok("GET", "which")
    reader.ok("GET", "which")
    writer.ok("SWAPDB", 0, 1)
    begun = time.monotonic()
    while reader.ok("GET", "which") == former:
        time.sleep(0.0001)
    return (time.monotonic() - begun) * 1000


def lag_buckets(proxy):
    found = {}
    for (name, labels), value in proxy.metrics().samples.items():
        if name == "nearcached_bus_lag_seconds_bucket":
            found[float(dict(labels)["le"].replace("+Inf", "inf"))] = value
    return found


def lag_p99_ms(before, after):
    n = after[float("inf")] - before[float("inf")]
    return min(le for le in after if after[le] - before[le] >= 0.99 * n) * 1000


def one_ping(client):
    begun = time.monotonic()
    client.ok("PING")
    return (time.monotonic() - begun) * 1000


def measure(name, server, first, second, rounds, process):
    waits, pings, before = [], [], lag_buckets(second)
    with first.client() as writer, second.client() as reader, server.client() as direct:
        for _ in range(rounds):
            waits.append(one_wait(writer, reader))
            pings.append(one_ping(direct))
            time.sleep(0.02)
    lag = lag_p99_ms(before, lag_buckets(second))
    waits.sort()
    pings.sort()
    print(f"bench=bus_delay case={name} rounds={rounds} p50_ms={waits[len(waits) // 2]:.3f} "
          f"p99_ms={waits[int(len(waits) * 0.99)]:.3f} max_ms={waits[-1]:.3f} "
          f"lag_p99_below_ms={lag:g} "
          f"server_ping_p99_ms={pings[int(len(pings) * 0.99)]:.3f}", flush=True)
    if process is not None:
        process.terminate()
        process.wait()


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    with tempfile.TemporaryDirectory() as directory:
        server = RedisServer(pathlib.Path(directory) / "server").start()
        proxies = [Proxy(pathlib.Path(directory), server.url(), {"bus-heartbeat": "50ms"},
                         threads=1).start() for _ in range(2)]
        try:
            wait_until(lambda: all(each.metrics().get("bus_peers") == 1 for each in proxies))
            preload(server)
            measure("idle", server, *proxies, rounds, None)
            for name, loaded in (("receiver-loaded", proxies[1]), ("sender-loaded", proxies[0])):
                process = load(loaded, 600)
                wait_until(lambda: loaded.metrics().get("hits_total") > 10000)
                measure(name, server, *proxies, rounds, process)
        finally:
            for each in proxies:
                each.stop()
            server.stop()


if __name__ == "__main__":
    main()
