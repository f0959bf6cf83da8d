"""maxmemory is a promise about resident memory.

The short form runs always. NEARCACHED_TEST_LONG=1 runs ten million reads over three
million keys with 256 MB, and the shift of value sizes at that scale.
"""

import os
import random
import socket
import threading

import pytest

from harness.proxy import is_sanitized
from harness.resp import encode
from harness.waiting import wait_until

pytestmark = pytest.mark.needs_proxy

MB = 1 << 20
# Code, libraries, threads, buffers and the reserved range's page tables.
FIXED_BYTES = 24 * MB
IS_LONG = bool(os.environ.get("NEARCACHED_TEST_LONG"))


def read_at_random(address, n_reads, n_keys, seed, value_bytes, failures):
    """GETs in pipelines of 200. All values have one size, so replies are counted, not parsed."""
    rng = random.Random(seed)
    header = b"$%d\r\n" % value_bytes
    reply_bytes = len(header) + value_bytes + 2
    with socket.create_connection(address, timeout=60) as connection:
        for _ in range(n_reads // 200):
            request = b"".join(
                encode("GET", "key:%d" % rng.randrange(n_keys)) for _ in range(200))
            connection.sendall(request)
            wanted, received = 200 * reply_bytes, 0
            while received < wanted:
                data = connection.recv(1 << 18)
                if not data or (received == 0 and not data.startswith(header)):
                    failures.append(data[:100])
                    return
                received += len(data)


def load(proxy, n_reads, n_keys, value_bytes):
    failures = []
    threads = [threading.Thread(target=read_at_random, args=(
        proxy.address, n_reads // 2, n_keys, seed, value_bytes, failures)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures


def populate(server, n_keys, value_bytes):
    server.ask("FLUSHALL")
    server.disconnect()
    server.ask("DEBUG", "POPULATE", n_keys, "key", value_bytes)


def assert_within(proxy, limit):
    metrics = proxy.metrics()
    print(f"resident {proxy.rss_bytes() / MB:.1f} MB, accounted"
          f" {metrics.get('memory_bytes') / MB:.1f} MB, arena"
          f" {metrics.get('arena_resident_bytes') / MB:.1f} MB,"
          f" {metrics.get('entries'):.0f} entries, {metrics.get('evictions_total'):.0f} evictions")
    assert metrics.get("memory_bytes") <= limit
    if not is_sanitized():
        # The figure is corrected every second; a burst may stand above it until then.
        wait_until(lambda: proxy.rss_bytes() <= limit * 1.1 + FIXED_BYTES, 5,
                   f"resident memory below {(limit * 1.1 + FIXED_BYTES) / MB:.0f} MB")


@pytest.mark.long_test(1800)
def test_maxmemory_bounds_resident_memory(start_proxy, start_redis):
    limit, n_reads, n_keys = (256, 10 ** 7, 3 * 10 ** 6) if IS_LONG else (32, 300000, 400000)
    server = start_redis()
    populate(server, n_keys, 100)
    proxy = start_proxy(server.url(), {"maxmemory": f"{limit}mb"})
    fixed = proxy.rss_bytes()
    print(f"resident at start: {fixed / MB:.1f} MB")
    load(proxy, n_reads, n_keys, 100)
    assert_within(proxy, limit * MB)
    metrics = proxy.metrics()
    assert metrics.get("evictions_total") > 0
    # It is used, too: not a promise kept by keeping nothing.
    assert metrics.get("memory_bytes") > 0.7 * limit * MB


@pytest.mark.long_test(1800)
def test_a_shift_of_sizes_keeps_the_bound(start_proxy, start_redis):
    """100 B, then 900 B, then 300 B: slabs of the former size must be given back."""
    limit, n_reads, n_keys = (256, 3 * 10 ** 6, 10 ** 6) if IS_LONG else (32, 120000, 150000)
    server = start_redis()
    proxy = start_proxy(server.url(), {"maxmemory": f"{limit}mb"})
    for value_bytes in (100, 900, 300):
        populate(server, n_keys, value_bytes)
        load(proxy, n_reads, n_keys, value_bytes)
        assert_within(proxy, limit * MB)


def test_maxmemory_can_shrink(start_proxy, start_redis):
    server = start_redis()
    populate(server, 200000, 100)
    config = {"cache": {"maxmemory": "64mb"}}
    proxy = start_proxy(server.url(), config=config)
    load(proxy, 200000, 200000, 100)
    config["cache"]["maxmemory"] = "8mb"
    proxy.write_config(config)
    proxy.signal(1)
    proxy.wait_metric("config_reloads_total", 1)
    wait_until(lambda: proxy.metrics().get("memory_bytes") <= 8 * MB, 20, "the entries to go")
    assert_within(proxy, 8 * MB)
