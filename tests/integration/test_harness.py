"""The tests' own tools: a checker that finds nothing would make every consistency test pass.

Proves: frames are told apart exactly; each anomaly that the checker knows is found in a history
that has it and in none that lacks it; a stale cache (a replica behind a slow relay in the proxy's
place) is found out under real load; the relay delays, holds, swallows and cuts as it says.
"""

import socket
import time
import types

import pytest

from harness.consistency import KeyHistory, Read, Workload, check
from harness.metrics import Metrics
from harness.relay import TcpRelay
from harness.resp import RawClient, RespError, decode, elements, encode, frame_end
from harness.servers import RedisServer, key_slot
from harness.waiting import wait_until

FRAMES = [
    b"+OK\r\n", b"-ERR no\r\n", b":-12\r\n", b"$-1\r\n", b"$0\r\n\r\n", b"$4\r\na\r\nb\r\n",
    b"*-1\r\n", b"*0\r\n", b"*2\r\n$1\r\na\r\n*1\r\n:1\r\n", b"_\r\n", b"#t\r\n", b",1.5\r\n",
    b"%1\r\n$1\r\na\r\n~2\r\n:1\r\n:2\r\n", b"=7\r\ntxt:abc\r\n", b"(123456789012345678901\r\n",
    b"!5\r\nERR x\r\n", b">2\r\n+a\r\n*-1\r\n", b"|1\r\n+k\r\n+v\r\n*1\r\n:1\r\n",
]


@pytest.mark.parametrize("frame", FRAMES)
def test_a_frame_ends_at_its_last_byte(frame):
    assert frame_end(frame + b"+next\r\n") == len(frame)
    for cut in range(len(frame)):
        assert frame_end(frame[:cut]) == -1
    decode(frame)


def test_frames_decode():
    assert decode(FRAMES[8]) == [b"a", [1]]
    assert decode(b"%1\r\n$1\r\na\r\n:2\r\n") == {b"a": 2}
    assert decode(b"-ERR no\r\n") == RespError("ERR no")
    assert elements(b"*2\r\n:1\r\n*1\r\n_\r\n") == [b":1\r\n", b"*1\r\n_\r\n"]
    assert encode("GET", b"k", 5) == b"*3\r\n$3\r\nGET\r\n$1\r\nk\r\n$1\r\n5\r\n"


def test_slots_are_those_of_the_specification():
    assert key_slot("123456789") == 0x31C3
    assert key_slot("{user1000}.following") == key_slot("user1000")
    assert key_slot("foo{}{bar}") == key_slot(b"foo{}{bar}") != key_slot("bar")
    assert key_slot("foo{{bar}}zap") == key_slot("{bar")


def test_metrics_are_read_with_their_labels():
    found = Metrics("# HELP nearcached_x a\n# TYPE nearcached_x counter\n"
                    'nearcached_x{a="1",b="q\\"}"} 2\nnearcached_x{a="2"} 3\nnearcached_y 1e3\n')
    assert found.get("x") == 5 and found.get("x", a="2") == 3 and found.get("y") == 1000
    assert not found.has("z")
    with pytest.raises(ValueError):
        Metrics("nearcached_x\n")
    with pytest.raises(ValueError):
        Metrics("nearcached_x 1\nnearcached_x 2\n")


def history(*versions):
    """A key with versions (number, begun, acked, proxy)."""
    key = KeyHistory(b"k")
    for version in versions:
        key.add(*version)
    return key


def read(key, begun, number, connection="c", ended=None, proxy=0, **keywords):
    return Read(types.SimpleNamespace(name=connection, proxy=proxy), key, begun, ended or begun + 0.1, number, "GET", **keywords)


def kinds(reads, bound=1.0, **keywords):
    return [text.split(":")[0] for text in check(reads, bound, **keywords)]


def test_a_clean_history_has_no_anomaly():
    key = history((1, 1, 2, 0), (2, 3, 4, None), (None, 5, 6, 0), (3, 7, 8, 0))
    assert kinds([read(key, 0, None), read(key, 1.5, None), read(key, 1.7, 1), read(key, 4.5, 1),
                  read(key, 4.6, 2), read(key, 6.5, None), read(key, 7.5, None),
                  read(key, 7.6, 3)]) == []


def test_a_read_older_than_a_proxied_write_is_found():
    key = history((1, 1, 2, 0), (2, 3, 4, 0))
    assert kinds([read(key, 4.1, 1)])[0].startswith("I1")
    assert kinds([read(key, 3.9, 1)]) == []
    assert kinds([read(key, 4.1, None)])[0].startswith("I1")


def test_a_write_through_another_proxy_binds_like_any_foreign_one():
    key = history((1, 1, 2, 0), (2, 3, 4, 1))
    assert kinds([read(key, 4.1, 1, proxy=0)]) == []
    assert kinds([read(key, 4.1, 1, proxy=1)])[0].startswith("I1")
    assert kinds([read(key, 5.1, 1, proxy=0)])[0].startswith("I3")


def test_a_read_older_than_the_bound_is_found():
    key = history((1, 1, 2, None), (2, 3, 4, None))
    assert kinds([read(key, 5.1, 1)])[0].startswith("I3")
    assert kinds([read(key, 4.9, 1)]) == []


def test_a_step_backwards_on_one_connection_is_found():
    key = history((1, 1, 2, None), (2, 3, 4, None))
    assert kinds([read(key, 4.1, 2), read(key, 4.2, 1)]) == ["I4 went backwards"]
    assert kinds([read(key, 4.1, 2), read(key, 4.2, 1, connection="other")]) == []
    assert kinds([read(key, 4.1, 2), read(key, 4.2, None)])[0].startswith("I4")


def test_a_value_after_its_deadline_is_found():
    key = history()
    key.add(1, 1, 2, 0, expiry=(3, 3.2))
    key.settle_expiry(100, None)
    assert kinds([read(key, 3.1, 1), read(key, 3.1, None)]) == []
    assert kinds([read(key, 3.3, 1)])[0].startswith("I1")
    assert kinds([read(key, 2.5, None)])[0].startswith("I1")


def test_an_expiry_that_a_write_forestalled_is_no_state():
    key = history()
    key.add(1, 1, 2, 0, expiry=(10, 11))
    key.add(2, 3, 4, None)
    assert len(key.versions) == 3
    assert kinds([read(key, 5.5, None)])[0].startswith("I3")


def test_a_removal_that_overlaps_an_expiry_is_a_state():
    key = history()
    key.add(1, 1, 2, 0, expiry=(4, 5))
    key.add(None, 3, 4.5, 0)
    assert kinds([read(key, 3.1, None)]) == []


def test_a_pipelined_read_of_a_later_write_is_found():
    key = history((1, 1, 2, 0), (2, 3, 4, 0))
    assert kinds([read(key, 3, 2, ended=4, below=2)]) == ["I8 shows what was sent after it"]
    assert kinds([read(key, 3, 1, ended=4, below=2)]) == []
    assert kinds([read(key, 3, 1, ended=4, at_least=2)])[0].startswith("I1")


def test_a_version_from_the_future_is_found():
    key = history((1, 1, 2, 0), (2, 3, 4, 0))
    assert kinds([read(key, 2.1, 2)]) == ["a version before it was written"]


def test_a_retired_key_is_judged_up_to_its_unknown_write():
    key = history((1, 1, 2, 0))
    key.retire(5)
    assert kinds([read(key, 6, 9), read(key, 4.95, 7)]) == []
    assert kinds([read(key, 3, None)])[0].startswith("I1")


def test_a_rollback_window_frees_what_was_acknowledged_in_it_and_nothing_else():
    key = history((1, 1, 2, 0), (2, 3, 4, 0), (3, 8, 9, 0))
    window = {"rollbacks": [(2.5, 5)]}
    assert kinds([read(key, 4.1, 2), read(key, 6, 1)], **window) == []
    assert kinds([read(key, 6, None)], **window)[0].startswith("I1")
    assert kinds([read(key, 9.5, 2)], **window)[0].startswith("I1")


def test_a_blind_window_leaves_monotonic_reads_in_force():
    key = history((1, 1, 2, 0), (2, 3, 4, 0))
    assert kinds([read(key, 4.1, 1)], blind=[(4, 5)]) == []
    assert kinds([read(key, 4.1, 2), read(key, 4.2, 1)], blind=[(4, 5)]) == ["I4 went backwards"]


def test_a_stale_cache_is_found_out_under_load(redis_server, tmp_path):
    """A replica that lags by 100 ms in the proxy's place, as a broken proxy would."""
    relay = TcpRelay(redis_server.address)
    replica = RedisServer(tmp_path / "replica", [("replicaof", f"127.0.0.1 {relay.address[1]}")])
    try:
        replica.start()
        wait_until(lambda: replica.info("replication")["master_link_status"] == "up", 20,
                   "the replica to be in step")
        relay.delay("all", to_proxy=0.1)
        report = Workload(replica.address, redis_server.client, bound=0.02,
                          proxy_for_writes=redis_server.address,
                          n_readers=2).run(1.5, settle=0.5)
        assert any(text.startswith("I1") for text in report.anomalies), report.summary()
        assert report.n_reads > 100 and report.n_writes > 50
    finally:
        replica.stop()
        relay.close()


def test_redis_itself_is_consistent_under_load(redis_server):
    report = Workload(redis_server.address, redis_server.client, bound=0.0,
                      has_flushall=True).run(2.5)
    assert report.anomalies == []
    assert report.n_reads > 500 and report.n_writes > 100


def test_the_cluster_client_follows_redirections(cluster):
    client = cluster.client()
    for number in range(50):
        client.ok("SET", f"key{number}", number)
    slot = key_slot("key7")
    target = next(node for node in cluster.masters() if node is not cluster.owner(slot))
    seen = []
    cluster.move_slot(slot, target, between=lambda: seen.append(client.ok("GET", "key7")))
    assert set(seen) == {b"7"} and len(seen) >= 3
    assert [client.ok("GET", f"key{number}") for number in range(50)] == [
        str(number).encode() for number in range(50)]
    client.close()


def tracking_client(relay):
    client = RawClient(relay.address, 3)
    client.ok("CLIENT", "TRACKING", "ON")
    return client


def test_the_relay_delays_tracking_links_only(redis_server, start_relay):
    relay = start_relay(redis_server.address)
    tracked, plain = tracking_client(relay), RawClient(relay.address)
    relay.delay("tracking", to_proxy=0.15)
    begun = time.monotonic()
    plain.ok("PING")
    between = time.monotonic()
    tracked.ok("PING")
    ended = time.monotonic()
    assert ended - between >= 0.15 and relay.count("tracking") == 1 and relay.count("other") == 1
    assert between - begun < ended - between
    tracked.close()
    plain.close()


def test_the_relay_holds_swallows_and_cuts(redis_server, start_relay):
    relay = start_relay(redis_server.address)
    tracked, plain = tracking_client(relay), RawClient(relay.address)
    tracked.socket.settimeout(0.2)
    relay.hold("tracking")
    tracked.send(encode("PING"))
    with pytest.raises(socket.timeout):
        tracked.read()
    relay.flow("tracking")
    tracked.socket.settimeout(10)
    assert tracked.read() == b"+PONG\r\n"
    relay.swallow("tracking")
    tracked.socket.settimeout(0.2)
    tracked.send(encode("PING"))
    with pytest.raises(socket.timeout):
        tracked.read()
    assert plain.ok("PING") == b"PONG"
    tracked.socket.settimeout(10)
    relay.flow("tracking")
    with pytest.raises((EOFError, ConnectionError)):
        tracked.read()
    assert relay.cut("other") == 1
    with pytest.raises((EOFError, ConnectionError)):
        plain.read()
    wait_until(lambda: relay.count() == 0, 5, "the relay to forget its connections")
