"""Many clients want what is not there: single flight, leases of missing keys over one and several
proxies and in a cluster, early refresh, and what may be shown behind its deadline.

Proves (docs/coherence.md, "Missing keys with leases" and after): one of many computes; the others
have its value when it is written, in the order of their pipelines; whatever goes wrong (nobody
writes, clients, proxies and locks that are lost) costs the lease's time or a second computation,
never an error; nothing that was written is shown late.
"""

import random
import re
import signal
import socket
import threading
import time

import pytest

from harness.consistency import Workload
from harness.crowd import Crowd
from harness.resp import RawClient, decode, encode
from harness.servers import key_slot
from harness.waiting import SCALE, wait_until

from test_consistency import MAX_STALENESS, OPTIONS

pytestmark = pytest.mark.needs_proxy

NIL = b"$-1\r\n"
VALUE = b"$5\r\nvalue\r\n"
LONG = "30s"  # a lease that no test waits for


def lease_config(lease=LONG, **options):
    return {'namespace "leased"': {"match": "m:*", "miss-lease": lease, **options}}


def calls(server, command):
    """How often the server has executed it."""
    for line in server.ask("INFO", "commandstats").decode().splitlines():
        if line.startswith(f"cmdstat_{command}:"):
            return int(line.split("calls=")[1].split(",")[0])
    return 0


class Reads:
    """Counts the GETs of one key at the server (the proxy has keys of its own to ask for)."""

    def __init__(self, server, key):
        self._server, self._key = server, key

    def __enter__(self):
        self._monitor = self._server.client()
        self._monitor.ok("MONITOR")
        return self

    def __exit__(self, *error):
        self._monitor.close()

    def count(self):
        """Since the last count."""
        self._server.ask("ECHO", "the end")
        wanted, n = f'"get" "{self._key}"', 0
        while True:
            line = self._monitor.read().decode().lower()
            if '"echo" "the end"' in line:
                return n
            n += line.rstrip().endswith(wanted)


@pytest.fixture
def start_listening(start_proxy):
    """Starts a proxy whose tracking links are up: a key that is relayed has no lease."""
    def start(url, options=None, n_nodes=1, mode="tracking", **keywords):
        proxy = start_proxy(url, options, **keywords)
        proxy.wait_metric("coherence_links", 2 * n_nodes, mode=mode)
        return proxy
    return start


@pytest.fixture
def leased(start_listening, redis_server):
    """(proxies, server): that many in front of one server, with leases for m:*."""
    def start(n=1, lease=LONG, options=None, **namespace):
        return [start_listening(redis_server.url(), options, config=lease_config(lease, **namespace))
                for _ in range(n)], redis_server
    return start


def held(proxies, n):
    wait_until(lambda: sum(each.metrics().get("miss_lease_waiting") for each in proxies) == n, 20,
               f"{n} readers to be held")


def total(proxies, name, **labels):
    return sum(each.metrics().get(name, **labels) for each in proxies)


# --- single flight --------------------------------------------------------------------------------

def test_a_thousand_clients_of_one_cold_key_cost_one_read(start_listening, start_redis, start_relay):
    """The tracking link's replies are held until all wait, so nobody can come late."""
    server = start_redis()
    relay = start_relay(server.address)
    proxy = start_listening(f"redis://127.0.0.1:{relay.address[1]}",
                        {"flight-timeout": "1m", "max-staleness": "1m", "link-timeout": "1m",
                         "fence-interval": "1s"})
    server.ask("SET", "cold", "value")
    with Reads(server, "cold") as reads, Crowd([proxy.address], 1000) as crowd:
        relay.hold("tracking")
        crowd.send(encode("GET", "cold"))
        wait_until(lambda: proxy.metrics().get("coalesced_total") == 999, 20, "all to wait")
        relay.flow()
        crowd.wait(1000)
        assert len(crowd.with_reply(VALUE)) == 1000
        assert reads.count() == 1


def test_waiters_of_a_fetch_are_bounded_in_number_and_time(start_listening, start_redis, start_relay):
    server = start_redis()
    relay = start_relay(server.address)
    proxy = start_listening(f"redis://127.0.0.1:{relay.address[1]}",
                        {"max-waiters": 5, "flight-timeout": "200ms", "link-timeout": "1m"})
    server.ask("SET", "cold", "value")
    with Crowd([proxy.address], 10) as crowd:
        relay.hold("tracking")
        crowd.send(encode("GET", "cold"))
        crowd.wait(10)
        assert len(crowd.with_reply(VALUE)) == 10
    relay.flow()
    proxy.wait_metric("waiters_refused_total", 1)
    proxy.wait_metric("flights_overdue_total", 1)


# --- leases ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("n_proxies", [1, 2])
def test_one_of_a_thousand_computes(leased, n_proxies):
    proxies, server = leased(n_proxies)
    addresses = [proxy.address for proxy in proxies]
    with Reads(server, "m:page") as reads, Crowd(addresses, 1000) as crowd:
        crowd.send(encode("GET", "m:page"))
        held(proxies, 999)
        crowd.take()
        told = crowd.with_reply(NIL)
        assert len(told) == 1 and crowd.n_answered() == 1
        reads.count()
        crowd.send(encode("SET", "m:page", "value"), told)
        crowd.wait(1000)
        assert len(crowd.with_reply(VALUE)) == 999
        # One fetch of each proxy; one more where the write's reply or the invalidation that
        # reaches each of the two workers makes the one before void.
        assert reads.count() <= 4 * n_proxies
    assert total(proxies, "miss_leases_total", kind="first") == 1
    assert total(proxies, "miss_leases_total", kind="again") == 0
    wait_until(lambda: total(proxies, "miss_leases_held") == 0, what="the leases to end")
    assert total(proxies, "miss_lease_wait_seconds_count") >= 999
    assert total(proxies, "miss_lease_passes_total") == 0
    wait_until(lambda: server.ask("KEYS", "nc:lease:*") == [], what="the lock to be given back")


def test_a_write_around_the_proxies_is_heard_of(leased):
    proxies, server = leased(2)
    with Crowd([proxy.address for proxy in proxies], 20) as crowd:
        crowd.send(encode("GET", "m:x"))
        held(proxies, 19)
        server.ask("SET", "m:x", "value")
        crowd.wait(20)
        assert len(crowd.with_reply(VALUE)) == 19


def test_a_lease_in_a_cluster(start_listening, cluster):
    proxies = [start_listening(cluster.url(), n_nodes=3, config=lease_config()) for _ in range(2)]
    for key in ("m:a", "m:{tag}b", "m:c"):
        with Crowd([proxy.address for proxy in proxies], 30) as crowd:
            crowd.send(encode("GET", key))
            held(proxies, 29)
            crowd.take()
            told = crowd.with_reply(NIL)
            assert len(told) == 1
            owner = cluster.owner(key_slot(key))
            assert len(owner.ask("KEYS", "nc:lease:*")) == 1
            crowd.send(encode("SET", key, "value"), told)
            crowd.wait(30)
            assert len(crowd.with_reply(VALUE)) == 29
    assert total(proxies, "miss_lease_locks_total", result="failed") == 0
    wait_until(lambda: all(node.ask("KEYS", "nc:lease:*") == [] for node in cluster.masters()),
               what="the locks to be given back")


def test_a_name_that_fits_no_hash_tag_has_a_lease_in_each_proxy(start_listening, cluster):
    proxies = [start_listening(cluster.url(), n_nodes=3, config=lease_config()) for _ in range(2)]
    with Crowd([proxy.address for proxy in proxies], 10) as crowd:
        crowd.send(encode("GET", "m:odd}name"))
        held(proxies, 8)
        crowd.take()
        assert len(crowd.with_reply(NIL)) == 2
        crowd.send(encode("SET", "m:odd}name", "value"), crowd.with_reply(NIL)[:1])
        crowd.wait(9)
    assert total(proxies, "miss_lease_locks_total", result="failed") == 2


def test_the_holder_is_not_held_by_its_own_lease(leased):
    (proxy,), _ = leased()
    with proxy.client() as holder, proxy.client() as other:
        assert holder.ask("GET", "m:x") == NIL
        assert holder.ask("GET", "m:x") == NIL
        assert holder.ask("HGETALL", "m:x") == b"*0\r\n"
        other.send(encode("GET", "m:x"))
        held([proxy], 1)
        assert holder.ask("GET", "m:x") == NIL
        holder.ok("SET", "m:x", "value")
        assert other.read() == VALUE
        assert holder.ask("GET", "m:x") == VALUE


def test_a_pipeline_keeps_its_order_behind_a_held_reader(leased):
    (proxy,), server = leased()
    server.ask("SET", "other", "1")
    with proxy.client() as holder, proxy.client() as reader:
        assert holder.ask("GET", "m:x") == NIL
        reader.send(b"".join([encode("GET", "other"), encode("GET", "m:x"), encode("GET", "other"),
                              encode("APPEND", "m:x", "!"), encode("GET", "m:x"),
                              encode("PING")]))
        assert reader.read() == b"$1\r\n1\r\n"
        held([proxy], 1)
        holder.ok("SET", "m:x", "value")
        assert [reader.read() for _ in range(5)] == [
            VALUE, b"$1\r\n1\r\n", b":6\r\n", b"$6\r\nvalue!\r\n", b"+PONG\r\n"]


def test_pipelines_that_read_the_same_missing_keys_do_not_wait_for_each_other(leased):
    """Each would hold one of the keys and wait for the other; nobody would compute."""
    (proxy,), _ = leased()
    for n in range(10):
        keys = [f"m:{n}:{i}" for i in range(4)]
        with proxy.client() as a, proxy.client() as b:
            a.send(b"".join(encode("GET", key) for key in keys))
            b.send(b"".join(encode("GET", key) for key in reversed(keys)))
            answered = []

            def whole():
                for client in (a, b):
                    client.socket.settimeout(0.05)
                    try:
                        client.buffer += client.socket.recv(4096)
                    except TimeoutError:
                        pass
                    if client.buffer.count(NIL) == 4 and client not in answered:
                        answered.append(client)
                return answered
            computes = wait_until(whole, 10, "one pipeline to be answered")[0]
            computes.buffer.clear()
            computes.socket.settimeout(10 * SCALE)
            for key in keys:
                computes.ok("SET", key, "value")
            other = b if computes is a else a
            other.socket.settimeout(10 * SCALE)
            if other not in answered:
                assert {other.read() for _ in keys} <= {NIL, VALUE}


def test_a_lease_that_nobody_serves_costs_its_time(leased):
    proxies, _ = leased(2, lease="500ms")
    with Crowd([proxy.address for proxy in proxies], 20) as crowd:
        crowd.send(encode("GET", "m:x"))
        crowd.wait(20)
        assert len(crowd.with_reply(NIL)) == 20
    assert total(proxies, "miss_lease_passes_total", reason="time") >= 1
    wait_until(lambda: total(proxies, "miss_leases_held") == 0, what="the leases to end")


def test_a_holder_that_goes_hands_its_lease_on(leased):
    proxies, _ = leased(2)
    with Crowd([proxy.address for proxy in proxies], 20) as crowd:
        for n in range(3):
            if n == 0:
                crowd.send(encode("GET", "m:x"))
            held(proxies, 19 - n)
            crowd.wait(n + 1)
            told = [i for i in crowd.with_reply(NIL) if crowd.clients[i].socket.fileno() >= 0]
            assert len(told) == 1
            if n < 2:
                crowd.clients[told[0]].close()
        crowd.send(encode("SET", "m:x", "value"), told)
        crowd.wait(20)
        assert len(crowd.with_reply(VALUE)) == 17
    assert total(proxies, "miss_leases_ended_total", by="client") == 2


def test_who_hangs_up_waits_no_longer(leased):
    (proxy,), _ = leased()
    with proxy.client() as holder:
        assert holder.ask("GET", "m:x") == NIL
        gone = [proxy.client() for _ in range(3)]
        for client in gone:
            client.send(encode("GET", "m:x"))
        held([proxy], 3)
        gone[0].close()
        held([proxy], 2)
        gone[1].socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        gone[1].close()
        held([proxy], 1)
        # A half-closed one still gets what there is.
        gone[2].socket.shutdown(socket.SHUT_WR)
        assert gone[2].read() == NIL
        gone[2].close()


def test_a_proxy_that_dies_with_the_lock_costs_its_time(leased):
    proxies, server = leased(2, lease="1s")
    with proxies[0].client() as holder, proxies[1].client() as other:
        assert holder.ask("GET", "m:x") == NIL
        other.send(encode("GET", "m:x"))
        held(proxies[1:], 1)
        proxies[0].kill()
        assert other.read() == NIL
        other.ok("SET", "m:x", "value")
        assert other.ask("GET", "m:x") == VALUE
    proxies[0].is_expected_to_be_gone = True


def test_a_lock_that_nobody_needs_any_more_is_given_back(start_listening, start_redis, start_relay):
    """Its only reader goes while SET NX is under way; others need not wait until it runs out."""
    server = start_redis()
    relay = start_relay(server.address)
    proxy = start_listening(f"redis://127.0.0.1:{relay.address[1]}",
                            {"request-timeout": "1m", "breaker": "off"}, config=lease_config())
    with proxy.client() as other:
        other.ok("SET", "other", "1")  # a link for what is not read
        relay.hold("other")
        reader = proxy.client()
        reader.send(encode("GET", "m:x"))
        held([proxy], 1)
        reader.close()
        held([proxy], 0)
        relay.flow()
        proxy.wait_metric("miss_lease_locks_total", 1, result="got")
        # After a moment, should somebody still ask for the key.
        wait_until(lambda: proxy.metrics().get("miss_leases") == 0, 5, "the lease to end")
        wait_until(lambda: server.ask("KEYS", "nc:lease:*") == [], 5, "the lock to be given back")
    assert proxy.metrics().get("miss_leases_total") == 0


def test_a_lock_that_cannot_be_had_costs_a_second_computation(start_listening, start_redis):
    server = start_redis()
    for command in ("SET", "EVAL"):
        server.ask("ACL", "SETUSER", "default", f"-{command.lower()}")
    server.ask("ACL", "SETUSER", "writer", "on", "nopass", "~*", "&*", "+@all")
    proxies = [start_listening(server.url(), config=lease_config()) for _ in range(2)]
    with Crowd([proxy.address for proxy in proxies], 20) as crowd:
        crowd.send(encode("GET", "m:x"))
        held(proxies, 18)
        crowd.wait(2)
        assert len(crowd.with_reply(NIL)) == 2
        server.ask("ACL", "SETUSER", "default", "+set")
        server.ask("SET", "m:x", "value")
        crowd.wait(20)
        assert len(crowd.with_reply(VALUE)) == 18
    assert total(proxies, "miss_lease_locks_total", result="failed") == 2


def test_leases_without_a_lock_are_each_proxys_own(leased):
    proxies, server = leased(2, options={"miss-lease-lock": "off"})
    with Crowd([proxy.address for proxy in proxies], 20) as crowd:
        crowd.send(encode("GET", "m:x"))
        held(proxies, 18)
        crowd.wait(2)
        assert server.ask("KEYS", "nc:*") == []
        server.ask("SET", "m:x", "value")
        crowd.wait(20)


def test_limits_let_readers_pass(leased):
    (proxy,), _ = leased(options={"max-waiters": 5, "max-leases": 1})
    with Crowd([proxy.address], 19) as crowd, proxy.client() as holder:
        assert holder.ask("GET", "m:x") == NIL
        crowd.send(encode("GET", "m:x"))
        crowd.wait(14)
        held([proxy], 5)
        assert len(crowd.with_reply(NIL)) == 14
        passed = proxy.metrics()
        assert passed.get("miss_lease_passes_total", reason="limit") + \
            passed.get("waiters_refused_total") == 14
        with proxy.client() as other:
            assert other.ask("GET", "m:y") == NIL
            assert holder.ask("GET", "m:y") == NIL
        assert proxy.metrics().get("miss_lease_passes_total", reason="limit") - \
            passed.get("miss_lease_passes_total", reason="limit") == 2
        holder.ok("SET", "m:x", "value")
        crowd.wait(19)
        assert len(crowd.with_reply(VALUE)) == 5


def test_removing_a_missing_key_does_not_end_its_lease(leased):
    """DEL of it, a relayed read, a transaction: nobody has computed anything yet."""
    (proxy,), _ = leased()
    with proxy.client() as holder, proxy.client() as reader, proxy.client() as other:
        assert holder.ask("GET", "m:x") == NIL
        reader.send(encode("GET", "m:x"))
        held([proxy], 1)
        assert other.ok("DEL", "m:x") == 0
        assert other.ok("EXISTS", "m:x") == 0
        assert other.ok("MGET", "m:x", "m:x") == [None, None]
        assert other.pipeline([("MULTI",), ("GET", "m:x"), ("EXEC",)])[-1] == b"*1\r\n" + NIL
        # A key that comes and goes: the reader looks, and waits again.
        other.pipeline([("MULTI",), ("SET", "m:x", "1"), ("DEL", "m:x"), ("EXEC",)])
        held([proxy], 1)
        holder.ok("SET", "m:x", "value")
        assert reader.read() == VALUE
        assert proxy.metrics().get("miss_leases_total", kind="again") == 0


def test_another_type_is_told_as_such(leased):
    (proxy,), _ = leased()
    with proxy.client() as holder, proxy.client() as reader:
        assert holder.ask("GET", "m:h") == NIL
        reader.send(encode("GET", "m:h"))
        held([proxy], 1)
        holder.ok("HSET", "m:h", "f", "v")
        assert reader.read().startswith(b"-WRONGTYPE")


def test_a_lost_link_does_not_lose_who_waits(start_listening, start_redis, start_relay):
    server = start_redis()
    relay = start_relay(server.address)
    proxy = start_listening(f"redis://127.0.0.1:{relay.address[1]}", {"reconnect-max": "50ms"},
                        config=lease_config())
    with proxy.client() as holder, proxy.client() as reader:
        assert holder.ask("GET", "m:x") == NIL
        reader.send(encode("GET", "m:x"))
        held([proxy], 1)
        relay.hold("tracking")
        server.ask("SET", "m:x", "value")
        relay.cut("tracking")
        relay.flow()
        assert reader.read() == VALUE


def test_leases_end_when_a_reload_takes_them_away_and_at_the_drain(leased):
    (proxy,), _ = leased()
    with proxy.client() as holder, proxy.client() as reader:
        assert holder.ask("GET", "m:x") == NIL
        reader.send(encode("GET", "m:x"))
        held([proxy], 1)
        proxy.write_config({'namespace "leased"': {"match": "m:*"}})
        proxy.signal(signal.SIGHUP)
        assert reader.read() == NIL
        assert reader.ask("GET", "m:x") == NIL
    with proxy.client() as holder, proxy.client() as reader:
        proxy.write_config(lease_config())
        proxy.signal(signal.SIGHUP)
        wait_until(lambda: holder.ask("GET", "m:y") == NIL and
                   proxy.metrics().get("miss_leases_held") == 1, what="leases again")
        reader.send(encode("GET", "m:y"))
        held([proxy], 1)
        proxy.signal(signal.SIGTERM)
        assert reader.read() == NIL
    proxy.wait_exit()
    proxy.is_expected_to_be_gone = True


class Restless(threading.Thread):
    """A client that asks for a few missing keys, writes some, and hangs up at any moment."""

    def __init__(self, addresses, seed, is_over):
        super().__init__()
        self._addresses, self._random, self._is_over = addresses, random.Random(seed), is_over
        self.n_answered, self.longest, self.error = 0, 0.0, None

    def run(self):
        try:
            while not self._is_over.is_set():
                with RawClient(self._random.choice(self._addresses), timeout=20 * SCALE) as client:
                    self._use(client)
                    if self._random.random() < 0.5:
                        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                                 b"\1\0\0\0\0\0\0\0")
        except (OSError, EOFError) as error:
            self.error = error

    def _use(self, client):
        for _ in range(self._random.randrange(1, 8)):
            requests = [self._request() for _ in range(self._random.choice([1, 1, 2, 4]))]
            client.send(b"".join(requests))
            if self._random.random() < 0.15:
                return
            began = time.monotonic()
            for _ in requests:
                client.read()
                self.n_answered += 1
            self.longest = max(self.longest, time.monotonic() - began)

    def _request(self):
        key, what = f"m:{self._random.randrange(6)}", self._random.random()
        if what < 0.75:
            return encode("GET", key)
        if what < 0.85:
            return encode("SET", key, "value", "PX", self._random.choice([50, 300, 2000]))
        return encode("DEL", key) if what < 0.95 else encode("MGET", key, "m:0")


def test_clients_that_come_and_go_leave_nothing_behind(leased):
    proxies, server = leased(2, "500ms", {"max-leases": 4, "max-waiters": 8},
                             **{"early-refresh": "1s"})
    is_over = threading.Event()
    clients = [Restless([proxy.address for proxy in proxies], seed, is_over) for seed in range(16)]
    for client in clients:
        client.start()

    def enough():
        return total(proxies, "miss_leases_total") >= 100 and \
            total(proxies, "miss_leases_ended_total", by="client") >= 10
    try:
        wait_until(enough, 20, "leases and clients that leave them")
    finally:
        is_over.set()
        for client in clients:
            client.join()
    assert [client.error for client in clients if client.error is not None] == []
    # Four of a pipeline may each wait for their time.
    assert max(client.longest for client in clients) < (4 * 0.5 + 2) * SCALE
    wait_until(lambda: total(proxies, "miss_leases") == 0, what="the leases to end")
    assert total(proxies, "miss_lease_waiting") == 0
    wait_until(lambda: server.ask("KEYS", "nc:lease:*") == [], what="the locks to be given back")
    for proxy in proxies:
        metrics = proxy.metrics()
        assert metrics.get("miss_leases_total") == metrics.get("miss_leases_ended_total")


# --- before and behind the deadline ---------------------------------------------------------------

def test_an_entry_that_the_backend_keeps_is_renewed_before_its_end(start_listening, redis_server):
    """How many readers come in time depends on the machine: that some do does not."""
    proxy = start_listening(redis_server.url(), {"max-ttl": "300ms", "early-refresh": "250ms"})
    redis_server.ask("SET", "k", "value")
    with proxy.client() as client:
        assert client.ask("GET", "k") == VALUE

        def renewed():
            assert client.ask("GET", "k") == VALUE
            return proxy.metrics().get("refreshes_total") >= 3
        wait_until(renewed, 20, "three renewals", pause=0.0005)
    after = proxy.metrics()
    # A miss while a renewal is under way joins it.
    assert after.get("fetches_total") <= after.get("refreshes_total") + after.get("misses_total")


def test_a_time_to_live_of_its_own_is_not_asked_for_again_and_again(start_listening, redis_server):
    """Reading it again would not move its end."""
    proxy = start_listening(redis_server.url(), {"early-refresh": "10s"})
    redis_server.ask("SET", "k", "value", "PX", "1500")
    with proxy.client() as client:
        wait_until(lambda: client.ask("GET", "k") == NIL, 10, "the end of the key", pause=0.001)
    assert proxy.metrics().get("refreshes_total") == 0


def test_one_is_told_early_and_the_others_are_served(leased):
    """The cost is measured at the first computation; from then on nobody waits, or all but one."""
    (proxy,), server = leased(1, **{"early-refresh": "10s"})
    with proxy.client() as writer, proxy.client() as reader:
        assert writer.ask("GET", "m:hot") == NIL
        time.sleep(0.2)  # what the computation costs
        writer.ok("SET", "m:hot", "value", "PX", "2000")
        wait_until(lambda: reader.ask("GET", "m:hot") == VALUE, what="the value")

        def told():
            return reader.ask("GET", "m:hot") == NIL
        wait_until(told, 10, "a reader to be told early", pause=0.001)
        assert proxy.metrics().get("miss_leases_total", kind="early") == 1
        assert server.ask("PTTL", "m:hot") > 0, "it was told after the end, not before"
        assert writer.ask("GET", "m:hot") == VALUE
        assert reader.ask("GET", "m:hot") == VALUE
        reader.ok("SET", "m:hot", "fresh", "PX", "60000")
        wait_until(lambda: writer.ask("GET", "m:hot") == b"$5\r\nfresh\r\n", what="the new value")
    wait_until(lambda: proxy.metrics().get("miss_leases_held") == 0, what="the lease to end")
    metrics = proxy.metrics()
    # Who was told early is a miss, as its request is.
    assert metrics.get("misses_total") + metrics.get("hits_total") == \
        metrics.get("requests_total", family="read")


def test_an_early_lease_without_messages_ends_with_the_write(start_listening, redis_server):
    """In mode ttl only the reply to the write tells; who asks later must not wait for more."""
    proxy = start_listening(redis_server.url(), {"coherence": "ttl", "ttl-mode-max": "200ms"},
                            mode="ttl", config=lease_config(**{"early-refresh": "10s"}))
    with proxy.client() as writer, proxy.client() as reader:
        assert writer.ask("GET", "m:hot") == NIL
        time.sleep(0.2)  # what the computation costs
        writer.ok("SET", "m:hot", "value", "PX", "1000")

        def told():
            if reader.ask("GET", "m:hot") == NIL and redis_server.ask("PTTL", "m:hot") > 0:
                return True
            if redis_server.ask("PTTL", "m:hot") < 0:
                writer.ok("SET", "m:hot", "value", "PX", "1000")
            return False
        wait_until(told, 20, "a reader to be told early", pause=0.001)
        reader.ok("SET", "m:hot", "fresh", "PX", "60000")
        end = time.monotonic() + 1.5  # the first value would have ended, and be fetched again
        while time.monotonic() < end:
            assert writer.ask("GET", "m:hot") == b"$5\r\nfresh\r\n"
    assert proxy.metrics().get("miss_lease_waits_total") == 0


def test_behind_the_end_the_old_value_is_shown_while_one_fetch_renews_it(
        start_listening, start_redis, start_relay):
    server = start_redis()
    relay = start_relay(server.address)
    proxy = start_listening(f"redis://127.0.0.1:{relay.address[1]}",
                        {"max-ttl": "100ms", "stale-while-revalidate": "1h",
                         "max-staleness": "30s", "link-timeout": "1m", "flight-timeout": "1m"})
    server.ask("SET", "k", "value")
    with proxy.client() as client:
        assert client.ask("STRLEN", "k") == b":5\r\n"
        relay.hold("tracking")
        reads = calls(server, "strlen")
        wait_until(lambda: client.ask("STRLEN", "k") == b":5\r\n" and
                   proxy.metrics().get("grace_hits_total") >= 5, what="hits in the grace")
        assert proxy.metrics().get("refreshes_total") == 1
        relay.flow()
        wait_until(lambda: calls(server, "strlen") - reads == 1, what="the renewal")
        assert client.ask("STRLEN", "k") == b":5\r\n"


def test_what_was_written_is_never_shown_from_the_grace(start_listening, redis_server):
    proxy = start_listening(redis_server.url(), {"max-ttl": "50ms", "stale-while-revalidate": "1h"})
    with proxy.client() as client:
        for number in range(300):
            redis_server.ask("SET", "k", number)
            before = client.value("GET", "k")
            client.ok("SET", "k", f"own {number}")
            assert client.value("GET", "k") == b"own %d" % number, before
        assert proxy.metrics().get("misses_total", reason="expired") == 0


def test_a_grace_has_an_end(start_listening, redis_server, start_relay):
    relay = start_relay(redis_server.address)
    proxy = start_listening(f"redis://127.0.0.1:{relay.address[1]}",
                        {"max-ttl": "100ms", "stale-while-revalidate": "200ms",
                         "max-staleness": "30s", "link-timeout": "1m", "flight-timeout": "100ms"})
    redis_server.ask("SET", "k", "value")
    with proxy.client() as client:
        assert client.ask("GET", "k") == VALUE
        relay.hold("tracking")
        wait_until(lambda: client.ask("GET", "k") == VALUE and
                   proxy.metrics().get("misses_total", namespace="default") >= 2,
                   what="the end of the grace")
        relay.flow()


def test_jitter_shortens_and_never_lengthens(start_listening, redis_server):
    proxy = start_listening(redis_server.url(), {"max-ttl": "1000s", "ttl-jitter": 50})
    left = []
    with proxy.client() as client, proxy.client(3) as operator:
        for number in range(50):
            redis_server.ask("SET", f"k{number}", "v")
            client.ok("GET", f"k{number}")
            found = str(operator.ok("CACHE", "GET", f"k{number}"))
            left.append(int(re.search(r"b'ttl-left-ms': (-?\d+)", found).group(1)) / 1000)
    assert max(left) <= 1000 and min(left) >= 490
    assert max(left) - min(left) > 100


def test_replies_of_held_readers_are_in_their_protocol(leased):
    (proxy,), _ = leased()
    with proxy.client(3) as holder, proxy.client(3) as reader, proxy.client(2) as old:
        assert holder.ask("HGETALL", "m:h") == b"%0\r\n"
        for client in (reader, old):
            client.send(encode("HGETALL", "m:h"))
        held([proxy], 2)
        holder.ok("HSET", "m:h", "f", "v")
        assert decode(reader.read()) == {b"f": b"v"}
        assert decode(old.read()) == [b"f", b"v"]


# --- the invariants -------------------------------------------------------------------------------

@pytest.mark.parametrize("case", ["leases", "two proxies", "late links", "broadcast", "renewal"])
def test_the_invariants_hold(start_listening, start_redis, start_relay, case):
    """I1 to I6 and I8 under load, with keys that come and go; leases so short that all happens."""
    options = {**OPTIONS, "miss-lease": "20ms"}
    if case == "renewal":
        options.update({"miss-lease": "0", "max-ttl": "30ms", "early-refresh": "20ms",
                        "negative-ttl": "10ms", "ttl-jitter": 50})
    server = start_redis()
    relay = start_relay(server.address)
    url = f"redis://127.0.0.1:{relay.address[1]}"
    if case == "broadcast":
        proxies = [start_listening(url, {**options, "coherence": "broadcast"}, mode="broadcast")]
    else:
        proxies = [start_listening(url, options) for _ in range(2 if case == "two proxies" else 1)]
    if case == "late links":
        relay.delay("tracking", to_proxy=0.02)
    workload = Workload([proxy.address for proxy in proxies], server.client, bound=MAX_STALENESS)
    report = workload.run(1.0)
    assert not report.anomalies, "\n".join(report.anomalies[:10])
    assert report.n_reads > 200 and report.n_writes > 20, report.summary()
    metrics = proxies[0].metrics()
    assert metrics.get("hits_total") > 0
    if case == "renewal":
        assert metrics.get("refreshes_total") > 0
    else:
        assert metrics.get("miss_leases_total") > 0 and metrics.get("miss_lease_waits_total") > 0
