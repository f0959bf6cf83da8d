"""What the proxy does when there is more work, or less memory, than it can take.

The cgroup tests make a group of their own below the one they run in, where the machine lets them;
they are skipped elsewhere.
"""

import contextlib
import errno
import pathlib
import resource
import select
import signal
import socket
import time

import pytest

from harness.hostile import hostile_mix
from harness.proxy import is_sanitized
from harness.resp import encode
from harness.waiting import SCALE, wait_until

pytestmark = pytest.mark.needs_proxy

MB = 1 << 20
OOM = "OOM nearcached: command not allowed when used memory > 'process-memory' of the proxy"
REFUSED = b"-ERR max number of clients reached\r\n"
needs_real_memory = pytest.mark.skipif(is_sanitized(), reason="a sanitizer's memory means nothing")


def stage(proxy):
    return proxy.metrics().get("memory_pressure_stage")


def anon_bytes(proxy):
    """Resident memory without that of files, which is charged to whoever read them first."""
    for line in pathlib.Path(f"/proc/{proxy.pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no RssAnon: the proxy is gone")


# --- in a cgroup and among hostile clients ---------------------------------------------------------

def start_in(group, start_proxy, backend, options, limit):
    """The proxy moves before it has taken much; what it is charged for is its own from then on."""
    group.set_limit(limit)
    proxy = start_proxy(backend, options, wait=None)
    group.add(proxy.pid)
    wait_until(proxy.is_ready, 15, "the proxy to be ready")
    proxy.wait_metric("cgroup_memory_limit_bytes", limit)
    return proxy


@needs_real_memory
def test_a_container_is_not_killed(group, start_proxy, redis_server):
    limit = 96 * MB
    with redis_server.client() as direct:
        direct.ok("SET", "big", b"b" * 200000)
        direct.ok("SET", "hot", b"warm")
    proxy = start_in(group, start_proxy, redis_server.url(), {
        "maxmemory": "64mb", "maxclients": 2000, "client-output-limit": "64mb"}, limit)
    most = 0
    with proxy.client() as client:
        assert client.ok("GET", "hot") == b"warm"
    with proxy.client() as client, hostile_mix(proxy) as crowd:
        until = time.monotonic() + 6
        while time.monotonic() < until:
            most = max(most, anon_bytes(proxy))
            # Tier 1 may have given it up by then, and the backend be as busy as the proxy.
            reply = client.ask("GET", "hot")
            assert reply == b"$4\r\nwarm\r\n" or reply.startswith(b"-"), reply
        assert group.n_kills() == 0
        assert proxy.metrics().get("memory_pressure_total", stage="shrink") >= 1
    print(f"sent {crowd.n_sent / MB:.0f} MB, closed {crowd.n_closed}, at most {most / MB:.1f} MB"
          f" resident of {limit / MB:.0f}, at the limit {group.n_failures()} times")
    assert most < limit
    wait_until(lambda: stage(proxy) == 0, 20, "the pressure to be over")
    with proxy.client() as client:
        # What the crowd had asked for is still answered by the backend, to nobody.
        wait_until(lambda: client.value("SET", "again", "1") == b"OK", 20, "the backend")
    assert "memory pressure is over" in proxy.log()
    proxy.assert_healthy()


@needs_real_memory
@pytest.mark.long_test(120)
def test_ten_thousand_at_once_in_a_small_container(group, start_proxy, redis_server):
    count, limit = 10000, 48 * MB
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count + 500:
        pytest.skip(f"the descriptor limit is {hard}, {count + 500} are needed")
    proxy = start_in(group, start_proxy, redis_server.url(),
                     {"maxmemory": "8mb", "maxclients": count + 100}, limit)
    sockets, served, refused, most = {}, 0, 0, 0
    poller = select.epoll()
    try:
        for _ in range(count):
            each = socket.socket()
            each.setblocking(False)
            assert each.connect_ex(proxy.address) in (0, errno.EINPROGRESS)
            sockets[each.fileno()] = each
            poller.register(each, select.EPOLLOUT)
        deadline = time.monotonic() + 40 * SCALE
        while served + refused < count:
            assert time.monotonic() < deadline, f"{served} served, {refused} refused of {count}"
            most = max(most, anon_bytes(proxy))
            for number, events in poller.poll(1):
                if events & select.EPOLLOUT:
                    with contextlib.suppress(ConnectionError):
                        sockets[number].send(b"PING\r\n")
                    poller.modify(number, select.EPOLLIN)
                    continue
                poller.unregister(number)
                try:
                    reply = sockets[number].recv(100)
                except ConnectionResetError:
                    reply = REFUSED  # what it said was lost: we had sent something as well
                assert reply in (b"+PONG\r\n", REFUSED), reply
                served += reply != REFUSED
                refused += reply == REFUSED
        print(f"{served} served, {refused} refused, at most {most / MB:.1f} MB resident")
        assert most < limit and group.n_kills() == 0
        shed = proxy.metrics().get("client_connections_shed_total")
        assert served + shed >= count  # each was one or the other
    finally:
        poller.close()
        for each in sockets.values():
            each.close()
    wait_until(lambda: stage(proxy) == 0, 20, "the pressure to be over")
    with proxy.client() as client:
        assert client.ok("PING") == b"PONG"


# --- the stages -----------------------------------------------------------------------------------

def set_budget(proxy, config, n_bytes):
    config.setdefault("server", {})["process-memory"] = n_bytes
    proxy.write_config(config)
    before = proxy.metrics().get("config_reloads_total")
    proxy.signal(signal.SIGHUP)
    proxy.wait_metric("config_reloads_total", before + 1)


def held(proxy):
    return int(proxy.metrics().get("process_memory_held_bytes"))


def test_new_work_is_refused_and_hits_go_on(start_proxy, redis_server):
    config = {}
    proxy = start_proxy(redis_server.url(), config=config)
    with proxy.client() as client, proxy.client() as other:
        client.ok("SET", "k", "v")
        assert client.ok("GET", "k") == b"v"
        assert other.ok("MULTI") == b"OK"
        hits = proxy.metrics().get("hits_total")
        set_budget(proxy, config, "1mb")
        wait_until(lambda: stage(proxy) == 3, 10, "the last stage")
        for request in (("SET", "k", "w"), ("GET", "none"), ("MGET", "none", "k"), ("BLPOP", "l", 1),
                        ("WATCH", "k"), ("SUBSCRIBE", "c"), ("EVAL", "return 1", 0), ("DBSIZE",)):
            assert client.ask(*request) == b"-" + OOM.encode() + b"\r\n", request
        # A transaction that has begun can be given up, and is not executed in part.
        assert other.ask("SET", "k", "w") == b"-" + OOM.encode() + b"\r\n"
        assert other.ask("EXEC").startswith(b"-EXECABORT")
        # What costs the backend nothing goes on.
        assert client.ok("GET", "k") == b"v" and client.ok("MGET", "k", "k") == [b"v", b"v"]
        assert proxy.metrics().get("hits_total") > hits
        assert client.ok("PING") == b"PONG"
        info = client.ok("INFO", "nearcached").decode()
        assert "nearcached_memory_pressure:shed" in info
        assert "nearcached_process_memory_limit_bytes:1048576" in info
        with socket.create_connection(proxy.address, timeout=10 * SCALE) as late:
            assert late.recv(100) == REFUSED
        metrics = proxy.metrics()
        assert metrics.get("errors_total", kind="memory") >= 9
        assert metrics.get("client_connections_shed_total") >= 1
        assert 'stage=shed' in proxy.log()
        set_budget(proxy, config, "0")
        wait_until(lambda: stage(proxy) == 0, 10, "the pressure to be over")
        assert client.ok("GET", "none") is None and client.ok("SET", "k", "w") == b"OK"
    with redis_server.client() as direct:
        assert direct.ok("GET", "k") == b"w"
    assert "memory pressure is over" in proxy.log()


def test_who_asks_for_little_is_answered_while_memory_is_short(start_proxy, redis_server):
    """Others hold all chunks there are, and no further ones are given out."""
    config = {"server": {"threads": 1}}
    proxy = start_proxy(redis_server.url(), config=config)
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(proxy.client())
        client.ok("SET", "k", "v")
        assert client.ok("GET", "k") == b"v"
        rounds = [[stack.enter_context(proxy.client()) for _ in range(25)] for _ in range(8)]
        wait_until(lambda: proxy.metrics().get("clients") == 201, 10, "all clients")
        set_budget(proxy, config, "1mb")
        wait_until(lambda: stage(proxy) == 3, 10, "the last stage")
        for clients in rounds:
            for each in clients:
                with contextlib.suppress(OSError):
                    each.send(b"*3\r\n$3\r\nSET\r\n$1\r\nh\r\n$30000\r\n" + b"h" * 25000)
            for _ in range(20):
                assert client.ok("GET", "k") == b"v" and client.ok("PING") == b"PONG"
        proxy.wait_metric("client_closed_total", 1, reason="memory")
        set_budget(proxy, config, "0")


def test_memory_gets_short_within_one_request(start_proxy, redis_server):
    """A request is let in, and its parts take what was left: that costs at most this client."""
    proxy = start_proxy(redis_server.url(), config={"server": {"threads": 1}})
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(proxy.client())
        others = [stack.enter_context(proxy.client()) for _ in range(6)]
        client.ok("SET", "k", "v")
        assert client.ok("GET", "k") == b"v"
        client.ok("CACHE", "CONFIG", "SET", "process-memory", "24mb")
        for number, other in enumerate(others):
            with contextlib.suppress(OSError, EOFError):
                other.ask("MGET", *[f"none:{number}:{i}" for i in range(40000)])
            assert client.ok("PING") == b"PONG"
        client.ok("CACHE", "CONFIG", "SET", "process-memory", "0")
        wait_until(lambda: stage(proxy) == 0, 10, "the pressure to be over")
        assert client.ok("MGET", *["k"] * 3000) == [b"v"] * 3000
    proxy.assert_healthy()


def test_hostile_clients_within_a_budget(start_proxy, start_redis):
    """Without a cgroup, and with the sanitizers' allocators, which give nothing back."""
    server = start_redis()
    with server.client() as direct:
        direct.ok("SET", "big", b"b" * 200000)
    config = {"server": {"maxclients": 2000}, "cache": {"maxmemory": "32mb"}}
    proxy = start_proxy(server.url(), config=config)
    budget = proxy.rss_bytes() + 64 * MB
    set_budget(proxy, config, budget)
    with hostile_mix(proxy) as crowd:
        wait_until(lambda: proxy.metrics().get("client_closed_total", reason="memory") >= 1
                   and proxy.metrics().get("errors_total", kind="memory") >= 1, 20,
                   "clients to be closed, and work refused")
        wait_until(lambda: crowd.n_sent > 100 * MB, 20, "the crowd to have sent much")
        if not is_sanitized():
            assert proxy.rss_bytes() < budget
    set_budget(proxy, config, 0)
    wait_until(lambda: stage(proxy) == 0, 10, "the pressure to be over")
    wait_until(lambda: proxy.metrics().get("clients") == 0, 20, "all clients to be gone")
    with proxy.client() as client:
        # What the crowd had asked for is still answered by the backend, to nobody.
        wait_until(lambda: client.value("SET", "k", "v") == b"OK", 20, "the backend")
        assert client.ok("GET", "k") == b"v"
    assert proxy.metrics().get("backend_connecting") == 0


@needs_real_memory
def test_tier_one_gives_way_first(start_proxy, redis_server):
    config = {"cache": {"maxmemory": "64mb"}}
    proxy = start_proxy(redis_server.url(), config=config)
    with redis_server.client() as direct, proxy.client() as client:
        direct.send(b"".join(encode("SET", f"t{i}", b"v" * 1000) for i in range(40000)))
        for _ in range(40000):
            direct.read()
        for first in range(0, 40000, 1000):
            client.ok("MGET", *[f"t{i}" for i in range(first, first + 1000)])
        entries, before = proxy.metrics().get("entries"), held(proxy)
        assert entries > 35000 and before > 40 * MB
        # So that tier 1 has to go down by about a half, and no client has anything to give.
        limit = before * 3 // 5
        set_budget(proxy, config, limit)
        wait_until(lambda: proxy.metrics().get("entries") < entries * 0.7, 20, "tier 1 to shrink")
        wait_until(lambda: stage(proxy) == 0, 20, "the pressure to be over")
        assert held(proxy) < limit * 0.86
        metrics = proxy.metrics()
        assert metrics.get("memory_ceiling_bytes") < 45 * MB
        assert metrics.get("memory_limit_bytes") == 64 * MB  # maxmemory is what it was
        assert metrics.get("client_closed_total", reason="memory") == 0
        assert client.ok("GET", "t1") == b"v" * 1000
        set_budget(proxy, config, 0)
        wait_until(lambda: proxy.metrics().get("memory_ceiling_bytes") == 64 * MB, 10,
                   "the ceiling to be gone")


@needs_real_memory
def test_clients_that_hold_the_most_are_closed(start_proxy, redis_server):
    """Two that do not read, among others that hold little: they go, and nobody else."""
    config = {"server": {"client-output-limit": "512mb", "client-output-soft-limit": 0},
              "cache": {"maxmemory": "16mb"}}
    proxy = start_proxy(redis_server.url(), config=config)
    with redis_server.client() as direct:
        direct.ok("SET", "big", b"b" * 400000)
    with contextlib.ExitStack() as stack:
        others = [stack.enter_context(proxy.client()) for _ in range(20)]
        for other in others:
            assert other.ok("PING") == b"PONG"
        greedy = [stack.enter_context(proxy.client(receive_buffer=4096)) for _ in range(2)]
        for each in greedy:
            each.send(encode("GETEX", "big") * 100)
        wait_until(lambda: held(proxy) > 80 * MB, 20, "their replies to wait here")
        set_budget(proxy, config, 70 * MB)
        proxy.wait_metric("client_closed_total", 1, 20, reason="memory")
        wait_until(lambda: stage(proxy) == 0, 20, "the pressure to be over")
        for other in others:
            assert other.ok("GETEX", "big") == b"b" * 400000
        metrics = proxy.metrics()
        assert metrics.get("client_closed_total", reason="memory") <= 2
        assert "client closed: memory" in proxy.log()
        set_budget(proxy, config, 0)


@needs_real_memory
def test_a_burst_of_requests_leaves_no_memory_behind(start_proxy, start_redis):
    """They queue up on one link; when they have been answered, it gives back what they took."""
    server = start_redis()
    proxy = start_proxy(server.url(), {"threads": 1, "request-timeout": "60s",
                                       "breaker": "off"})

    def working():
        metrics = proxy.metrics()
        return metrics.get("allocated_bytes") - metrics.get("memory_bytes")

    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(proxy.client(timeout=60)) for _ in range(10)]
        for client in clients:
            client.ok("SET", "k", "v")
        before = working()
        server.pause()
        for number, client in enumerate(clients):
            client.send(b"".join(encode("SET", f"{number}:{i}", b"v" * 60000) for i in range(60)))
        wait_until(lambda: working() > before + 32 * MB, 20, "them to be queued")
        server.resume()
        for client in clients:
            assert all(client.read() == b"+OK\r\n" for _ in range(60))
        # But for 4 MB of buffers of each thread.
        wait_until(lambda: working() < before + 12 * MB, 10, "the memory to come back")


def test_one_slow_reader_slows_nobody_else(start_proxy, redis_server):
    """On the same worker, over the same link: its replies wait for it, those of others do not."""
    proxy = start_proxy(redis_server.url(), {"client-output-limit": "512mb",
                                             "client-output-soft-limit": 0}, threads=1)
    with redis_server.client() as direct:
        direct.ok("SET", "big", b"b" * 300000)
    with proxy.client(receive_buffer=4096) as slow, proxy.client() as other:
        slow.send(encode("GETEX", "big") * 100 + encode("GET", "big") * 20)
        for number in range(300):
            assert other.ok("SET", "k", number) == b"OK"
            assert other.ok("GET", "k") == str(number).encode()
        assert len(other.ok("GETEX", "big")) == 300000
        # It is served all the same, when it reads.
        for _ in range(120):
            assert len(slow.read()) > 300000
    assert proxy.metrics().get("client_closed_total", reason="output-limit") == 0


# --- limits of rate and concurrency ---------------------------------------------------------------

def wait_commands(proxy, n_more, before):
    wait_until(lambda: proxy.metrics().get("commands_total") >= before + n_more, 10,
               "the requests to be taken")


def test_max_concurrency_of_a_namespace(start_proxy, start_redis):
    server = start_redis()
    proxy = start_proxy(server.url(), {"request-timeout": "30s", "link-timeout": "30s",
                                       "flight-timeout": "30s"}, config={
        'namespace "few"': {"match": "few:*", "max-concurrency": 2}})
    error = b"-ERR nearcached: the max-concurrency of namespace 'few' is reached\r\n"
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(proxy.client(timeout=30)) for _ in range(4)]
        for number in range(3):
            server.pause()
            before = proxy.metrics().get("commands_total")
            clients[0].send(encode("MGET", f"few:{number}", "few:x", "other"))
            clients[1].send(encode("APPEND", "few:b", "v"))
            wait_commands(proxy, 2, before)
            # Both are under way: a third is refused at once, of another namespace none is.
            assert clients[2].ask("GETEX", "few:c") == error
            assert clients[2].ask("GET", "few:d") == error
            clients[3].send(encode("GETEX", "other"))
            server.resume()
            assert clients[0].read() == b"*3\r\n$-1\r\n$-1\r\n$-1\r\n"
            assert clients[1].read() == b":%d\r\n" % (number + 1)
            assert clients[3].read() == b"$-1\r\n"
            assert clients[2].ok("GETEX", "few:c") is None  # there is room again
        assert proxy.metrics().get("limited_total", limit="max-concurrency") == 6
        # Who leaves gives its place back when the backend has answered.
        server.pause()
        before = proxy.metrics().get("commands_total")
        for client in clients[:2]:
            client.send(encode("APPEND", "few:b", "v"))
        wait_commands(proxy, 2, before)
        clients[0].close()
        clients[1].close()
        assert clients[2].ask("GETEX", "few:c") == error
        server.resume()
        wait_until(lambda: clients[2].ask("GETEX", "few:c") == b"$-1\r\n", 10, "room")


def test_rate_limit_of_a_namespace(start_proxy, redis_server):
    proxy = start_proxy(redis_server.url(), config={
        'namespace "slow"': {"match": "slow:*", "rate-limit": 5}})
    error = b"-ERR nearcached: the rate-limit of namespace 'slow' is reached\r\n"
    with proxy.client() as client:
        begun = time.monotonic()
        client.ok("SET", "slow:hot", "v")
        assert client.ok("GET", "slow:hot") == b"v"
        replies = [client.ask("GET", f"slow:{number}") for number in range(50)]
        seconds = time.monotonic() - begun
        n_served = replies.count(b"$-1\r\n")
        assert replies.count(error) == 50 - n_served
        assert 3 <= n_served <= 3 + 5 * seconds + 1
        assert proxy.metrics().get("limited_total", limit="rate-limit") == 50 - n_served
        for _ in range(100):
            assert client.ok("GET", "slow:hot") == b"v"  # hits are not counted
            assert client.ok("SET", "other", "v") == b"OK"
        wait_until(lambda: client.ask("GET", "slow:later") == b"$-1\r\n", 5, "a token")


def test_limits_of_users(start_proxy, start_redis):
    server = start_redis()
    for user in ("ann", "bob"):
        server.ask("ACL", "SETUSER", user, "on", ">pw", "~*", "&*", "+@all")
    proxy = start_proxy(server.url(), {"auth": "backend", "user-rate-limit": 4,
                                       "user-max-concurrency": 100})
    with proxy.client(user="ann", password="pw") as ann, \
            proxy.client(user="ann", password="pw") as again, \
            proxy.client(user="bob", password="pw") as bob:
        begun = time.monotonic()
        replies = [client.ask("GETEX", "l") for _ in range(20) for client in (ann, again)]
        n_served = replies.count(b"$-1\r\n")
        assert replies.count(b"-ERR nearcached: the user-rate-limit of user 'ann' is reached\r\n") \
            == 40 - n_served
        assert 4 <= n_served <= 4 + 4 * (time.monotonic() - begun) + 1
        assert bob.ask("GETEX", "l") == b"$-1\r\n"  # a user of its own
        assert bob.ok("PING") == b"PONG"
    assert proxy.metrics().get("limited_total", limit="user-rate-limit") == 40 - n_served


# --- connections to a node ------------------------------------------------------------------------

def watch_all(stack, proxy, count):
    """Clients that each need a connection of their own at the backend."""
    clients = [stack.enter_context(proxy.client(timeout=30)) for _ in range(count)]
    for client in clients:
        client.send(encode("WATCH", "k"))
    return clients


def test_few_connections_are_made_at_once(start_proxy, start_relay, redis_server):
    relay = start_relay(redis_server.address)
    proxy = start_proxy("redis://%s:%d" % relay.address, {
        "connect-parallel": 8, "connect-timeout": "20s", "request-timeout": "30s"})
    with contextlib.ExitStack() as stack:
        # Those that all clients share are up.
        wait_until(lambda: proxy.metrics().get("bus_up") == 1
                   and proxy.metrics().get("coherence_tracking") == 1
                   and proxy.metrics().get("backend_connecting") == 0, 10, "the proxy's own links")
        before = relay.count("all")
        relay.hold("other")  # connections are accepted, and hear nothing
        clients = watch_all(stack, proxy, 40)
        # An eighth of the places is not for these.
        wait_until(lambda: relay.count("all") >= before + 7, 10, "seven connections")
        proxy.wait_metric("backend_connects_held_total", 33)
        assert 7 <= proxy.metrics().get("backend_connecting") <= 8
        assert relay.count("all") <= before + 10  # discovery may have asked again
        relay.flow()
        for client in clients:
            assert client.read() == b"+OK\r\n"
        wait_until(lambda: proxy.metrics().get("backend_connecting") == 0, 10, "all to be made")


def test_connections_per_second_after_a_node_s_return(start_proxy, start_redis):
    server = start_redis()
    proxy = start_proxy(server.url(), {"connect-rate": 20, "request-timeout": "30s",
                                       "connect-timeout": "5s", "reconnect-max": "100ms"})
    with contextlib.ExitStack() as stack:
        server.kill()
        wait_until(lambda: not proxy.is_ready(), 10, "the backend to be missed")
        server.start()
        wait_until(proxy.is_ready, 10, "the backend to be back")
        begun = time.monotonic()
        info = lambda: int(server.info("stats")["total_connections_received"])
        before = info()
        for client in watch_all(stack, proxy, 60):
            assert client.read() == b"+OK\r\n"
        seconds = time.monotonic() - begun
        # A second's worth at once, then the rate; discovery and this test have some of their own.
        assert 60 <= info() - before <= 20 + 20 * seconds + 8
        assert seconds > 1.5
        assert proxy.metrics().get("backend_connects_held_total") >= 30
