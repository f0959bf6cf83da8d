"""The bus between proxies: what one is told the others do, what is missed is noticed, and what is
forged changes nothing."""

import hashlib
import hmac
import itertools
import os
import socket
import struct
import threading
import time

import pytest

from harness.resp import RawClient, RespError, decode, encode, frame_end
from harness.sentinels import SentinelSet
from harness.servers import key_slot
from harness.waiting import wait_until

pytestmark = pytest.mark.needs_proxy

# Not the group of the proxies that other tests have left running.
GROUP = {"bus-group": "tests"}
HEARTBEAT = {"bus-heartbeat": "100ms", **GROUP}
CHANNEL = b"nc:tests:inv"
KEY, FLUSH, BAN = 1, 6, 9
SIGNED, IS_HEARTBEAT = 1, 2
_origins = itertools.count(int.from_bytes(os.urandom(6), "big") << 8)


# ---- the wire format, from its description ----

def varint(number):
    out = b""
    while number >= 0x80:
        out += bytes([number & 0x7f | 0x80])
        number >>= 7
    return out + bytes([number])


def record(kind, a=b"", b=b"", db=-1):
    second = varint(len(b)) + b if b else b""
    return struct.pack(">BBh", kind, 1 if b else 0, db) + varint(len(a)) + a + second


def message(origin, seq, *records, flags=0, version=1, secret=None, channel=CHANNEL):
    flags |= SIGNED if secret else 0
    text = b"NC" + bytes([version, flags]) + struct.pack(
        ">QQQH", origin, seq, int(time.time() * 1e6), len(records)) + b"".join(records)
    if secret:
        key = hmac.new(secret, channel, hashlib.sha256).digest()
        text += hmac.new(key, text, hashlib.sha256).digest()[:16]
    return text


# ---- what proxies say of themselves ----

def bus_info(proxy):
    with proxy.client() as client:
        lines = client.ok("INFO", "Nearcached").decode().splitlines()
    return {name[len("nearcached_"):]: value for name, _, value in
            (line.partition(":") for line in lines) if name.startswith("nearcached_bus")}


def wait_peers(proxies, n, seconds=10):
    wait_until(lambda: all(bus_info(each) == {**bus_info(each), "bus": "up", "bus_peers": str(n)}
                           for each in proxies), seconds, f"{n} peers each")


def flushes(proxy):
    return proxy.metrics().get("flushes_total", reason="bus")


def gaps(proxy, **labels):
    return proxy.metrics().get("bus_gaps_total", **labels)


def start_fleet(start_proxy, url, n, options=None):
    fleet = [start_proxy(url, {**HEARTBEAT, **(options or {})}) for _ in range(n)]
    wait_peers(fleet, n - 1)
    return fleet


def fill(client, *keys):
    """Keeps the keys in tier 1."""
    for key in keys:
        client.ok("SET", key, "value")
        wait_until(lambda key=key: client.value("GET", key) == b"value" and is_kept(client, key),
                   10, "the key to be kept")


def is_kept(client, key):
    reply = client.value("CACHE", "GET", key)
    views = reply[reply.index(b"views") + 1]
    return any(view[view.index(b"live") + 1] == 1 for view in views)


# ---- flushes of one are flushes of all ----

def commands_of(name):
    return {"SWAPDB": [["SWAPDB", "0", "1"]], "FLUSHALL": [["FLUSHALL"]], "FLUSHDB": [["FLUSHDB"]],
            "EXEC": [["MULTI"], ["SWAPDB", "0", "1"], ["EXEC"]], "CLEAR": [["CACHE", "CLEAR"]]}[name]


@pytest.mark.parametrize("n", [2, 4])
def test_what_one_flushes_the_others_forget(start_proxy, redis_server, n):
    fleet = start_fleet(start_proxy, redis_server.url(), n)
    clients = [each.client() for each in fleet]
    for name in ("SWAPDB", "FLUSHALL", "FLUSHDB", "EXEC", "CLEAR"):
        before = [flushes(each) for each in fleet]
        for command in commands_of(name):
            clients[0].ok(*command)
        for number, each in enumerate(fleet[1:], 1):
            wait_until(lambda: flushes(each) > before[number], 10, f"{name} to arrive")
        assert flushes(fleet[0]) == before[0], "its own message came back to it"
    fill(clients[0], "k")
    for client in clients[1:]:
        client.ok("GET", "k")
        assert is_kept(client, "k")
    clients[0].ok("CACHE", "CLEAR", "default")
    for client in clients:
        wait_until(lambda client=client: not is_kept(client, "k"), 10, "the namespace to be dropped")
    assert all(gaps(each) == 0 for each in fleet)
    for client in clients:
        client.close()


def test_a_key_of_any_length_is_dropped_by_all(start_proxy, redis_server):
    """What is too long for a record is told as a gap."""
    fleet = start_fleet(start_proxy, redis_server.url(), 2)
    with fleet[0].client() as client, fleet[1].client() as reader:
        for length in (1000, 65279, 65280, 65281, 65535):
            key = "k" * length
            client.ok("SET", key, "v")
            wait_until(lambda: reader.ok("GET", key) == b"v" and is_kept(reader, key), 10, "the key")
            client.ok("CACHE", "INVALIDATE", key)
            wait_until(lambda: not is_kept(reader, key), 10, f"{length} bytes to be dropped")


def test_a_swap_that_the_backend_tells_nobody_is_seen_through_all(start_proxy, redis_server):
    fleet = start_fleet(start_proxy, redis_server.url(), 2)
    other = redis_server.client()
    with fleet[0].client() as first, fleet[1].client() as second:
        other.ok("SELECT", 1)
        other.ok("SET", "k", "below")
        fill(second, "k")
        first.ok("SWAPDB", 0, 1)
        wait_until(lambda: second.value("GET", "k") == b"below", 10, "the value of the other database")
    other.close()


@pytest.mark.parametrize("n", [2, 4])
def test_flushes_pass_through_a_cluster(start_proxy, cluster, n):
    fleet = start_fleet(start_proxy, cluster.url(), n)
    before = [flushes(each) for each in fleet]
    with fleet[-1].client() as client:
        client.ok("CACHE", "CLEAR")
    for number, each in enumerate(fleet[:-1]):
        wait_until(lambda: flushes(each) == before[number] + 1, 10, "CACHE CLEAR to arrive")
    channels = {name for node in cluster.masters()
                for name in node.ask("PUBSUB", "SHARDCHANNELS", "nc:tests:*")}
    assert len(channels) == 64 and all(name.startswith(b"nc:tests:{") for name in channels)
    sent = fleet[-1].metrics().get("bus_messages_total", direction="sent")
    assert sent == 1, "one channel is enough for what concerns all keys"


# ---- records and numbers, spoken by hand ----

@pytest.fixture
def listener(start_proxy, redis_server):
    """A proxy, a client of it, and a function that publishes on its bus."""
    own = start_proxy(redis_server.url(), {"bus-heartbeat": "1m", **GROUP})
    wait_until(lambda: bus_info(own)["bus"] == "up", 10, "the bus")
    with own.client() as client:
        yield own, client, lambda text: redis_server.ask("PUBLISH", CHANNEL, text)


def seen(proxy, name, at_least, **labels):
    wait_until(lambda: proxy.metrics().get(name, **labels) >= at_least, 10, f"{name} {labels}")
    assert proxy.metrics().get(name, **labels) == at_least


def test_a_key_is_dropped_and_no_other(listener):
    own, client, publish = listener
    fill(client, "a", "b")
    publish(message(next(_origins), 1, record(KEY, b"a"), record(KEY, b"none")))
    seen(own, "invalidations_total", 1, reason="bus")
    assert not is_kept(client, "a") and is_kept(client, "b")
    assert own.metrics().get("bus_records_total", direction="received") == 2
    assert gaps(own) == 0


def test_a_key_of_a_cluster_is_dropped(start_proxy, cluster):
    own = start_proxy(cluster.url(), GROUP)
    wait_until(lambda: bus_info(own)["bus"] == "up", 10, "the bus")
    node = cluster.masters()[0]
    channel = node.ask("PUBSUB", "SHARDCHANNELS", "nc:tests:*")[0]
    with own.client() as client:
        fill(client, "a", "b")
        assert node.ask("SPUBLISH", channel, message(next(_origins), 1, record(KEY, b"a"))) == 1
        seen(own, "invalidations_total", 1, reason="bus")
        assert not is_kept(client, "a") and is_kept(client, "b")


def test_a_message_counts_once(listener):
    own, client, publish = listener
    origin = next(_origins)
    publish(message(origin, 1, record(KEY, b"a")))
    publish(message(origin, 1, record(KEY, b"a")))
    publish(message(origin, 2, record(KEY, b"b")))
    seen(own, "bus_messages_total", 3, direction="received")
    assert own.metrics().get("bus_duplicates_total") == 1
    assert own.metrics().get("bus_records_total", direction="received") == 2
    assert gaps(own) == 0


@pytest.mark.parametrize("how", ["message", "heartbeat"])
def test_a_missing_number_flushes(listener, how):
    own, client, publish = listener
    origin = next(_origins)
    fill(client, "kept")
    publish(message(origin, 1, record(KEY, b"a")))
    seen(own, "bus_messages_total", 1, direction="received")
    assert gaps(own) == 0 and is_kept(client, "kept")
    if how == "message":
        publish(message(origin, 3, record(KEY, b"b")))
    else:
        publish(message(origin, 2, flags=IS_HEARTBEAT))
    seen(own, "bus_gaps_total", 1, cause="number")
    seen(own, "flushes_total", 1, reason="bus-gap")
    assert not is_kept(client, "kept")


def test_who_spoke_before_it_was_heard_flushes(listener):
    own, client, publish = listener
    fill(client, "kept")
    publish(message(next(_origins), 0, flags=IS_HEARTBEAT))
    seen(own, "bus_heartbeats_total", 1, direction="received")
    assert gaps(own) == 0 and is_kept(client, "kept")
    # Each of them, as soon after the start as it may be: what it said last may have been lost.
    for number in range(3):
        fill(client, "kept")
        publish(message(next(_origins), 9, flags=IS_HEARTBEAT))
        seen(own, "bus_gaps_total", number + 1, cause="first")
        wait_until(lambda: not is_kept(client, "kept"), 10, "the flush")


def test_a_newcomer_is_told_the_numbers(start_proxy, redis_server):
    slow = {"bus-heartbeat": "1m", **GROUP}
    first = start_proxy(redis_server.url(), slow)
    wait_until(lambda: bus_info(first)["bus"] == "up", 10, "the bus")
    with first.client() as client:
        client.ok("CACHE", "CLEAR")
    second = start_proxy(redis_server.url(), slow)
    wait_peers([first, second], 1)
    seen(second, "bus_gaps_total", 1, cause="first")
    assert gaps(first) == 0


@pytest.mark.parametrize("kind", [5, 7, BAN, 200])
def test_what_is_not_known_flushes(listener, kind):
    own, client, publish = listener
    fill(client, "kept")
    publish(message(next(_origins), 1, record(kind, b"x", b"y")))
    wait_until(lambda: not is_kept(client, "kept"), 10, "the flush")


def test_a_ban_by_a_namespace_that_is_not_known_holds_for_all(listener):
    own, client, publish = listener
    fill(client, "kept")
    publish(message(next(_origins), 1, record(BAN, b"0123456789abcdef 0 0 0 0 ", b"nowhere")))
    wait_until(lambda: not is_kept(client, "kept"), 10, "the ban")
    assert own.metrics().get("bans", state="standing") == 1 and gaps(own) == 0
    assert 'msg="a ban concerns a namespace that is not known here"' in own.log()
    publish(message(next(_origins), 1, record(BAN, b"0123456789abcdef -")))
    wait_until(lambda: own.metrics().get("bans", state="standing") == 0, 10, "its end")
    fill(client, "kept")


def test_another_version_flushes(listener):
    own, client, publish = listener
    fill(client, "kept")
    publish(message(next(_origins), 1, record(KEY, b"x"), version=2))
    seen(own, "bus_gaps_total", 1, cause="version")
    wait_until(lambda: not is_kept(client, "kept"), 10, "the flush")


def test_what_is_malformed_changes_nothing(listener):
    own, client, publish = listener
    fill(client, "kept")
    whole = message(next(_origins), 1, record(FLUSH), record(KEY, b"kept"))
    bad = [whole[:n] for n in range(len(whole))] + [whole + b"x", b"", b"x" * 70000]
    for text in bad:
        publish(text)
    seen(own, "bus_rejected_total", len(bad), reason="malformed")
    assert is_kept(client, "kept") and gaps(own) == 0
    assert "message of the bus rejected" in own.log()
    assert own.log().count("message of the bus rejected") < len(bad), "the log is not flooded"


def test_only_what_is_signed_counts(start_proxy, redis_server):
    own = start_proxy(redis_server.url(), {"bus-secret": "sesame", **GROUP})
    wait_until(lambda: bus_info(own)["bus"] == "up", 10, "the bus")
    origin = next(_origins)
    signed = message(origin, 1, record(KEY, b"kept"), secret=b"sesame")
    changed = bytearray(signed)
    changed[40] ^= 1
    with own.client() as client:
        fill(client, "kept")
        for text in (message(origin, 1, record(FLUSH)), message(origin, 5, flags=IS_HEARTBEAT)):
            redis_server.ask("PUBLISH", CHANNEL, text)
        for text in (message(origin, 1, record(FLUSH), secret=b"another"), bytes(changed),
                     message(origin, 1, record(FLUSH), secret=b"sesame", channel=b"nc:other:inv")):
            redis_server.ask("PUBLISH", CHANNEL, text)
        redis_server.ask("PUBLISH", CHANNEL, signed[:-1])
        seen(own, "bus_rejected_total", 2, reason="unsigned")
        seen(own, "bus_rejected_total", 4, reason="forged")
        assert is_kept(client, "kept") and gaps(own) == 0
        redis_server.ask("PUBLISH", CHANNEL, signed)
        seen(own, "invalidations_total", 1, reason="bus")
        assert "sesame" not in own.log()


def test_a_fleet_with_a_secret_understands_itself(start_proxy, redis_server):
    fleet = start_fleet(start_proxy, redis_server.url(), 2, {"bus-secret": "sesame"})
    with fleet[0].client() as client:
        client.ok("CACHE", "CLEAR")
    seen(fleet[1], "flushes_total", 1, reason="bus")
    assert fleet[1].metrics().get("bus_rejected_total") == 0


# ---- losses ----

class Thief:
    """A relay in front of a server that, when armed, takes one message with records away."""

    def __init__(self, server):
        self._target = ("127.0.0.1", server.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}"
        self.is_armed = False
        self.n_taken = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(self._target)
            for work in ((self._forward, near, far), (self._back, far, near)):
                threading.Thread(target=work[0], args=work[1:], daemon=True).start()

    @staticmethod
    def _end(*ends):
        for each in ends:
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def _forward(self, near, far):
        try:
            while data := near.recv(1 << 16):
                far.sendall(data)
        except OSError:
            pass
        self._end(near, far)

    def _is_loot(self, frame):
        return self.is_armed and b"message" in frame[:20] and b"NC\x01\x00" in frame

    def _back(self, far, near):
        buffer = bytearray()
        try:
            while data := far.recv(1 << 16):
                buffer += data
                while buffer and (end := frame_end(buffer)) >= 0:
                    frame = bytes(buffer[:end])
                    del buffer[:end]
                    if self._is_loot(frame):
                        self.is_armed = False
                        self.n_taken += 1
                    else:
                        near.sendall(frame)
        except OSError:
            pass
        self._end(near, far)

    def close(self):
        self._listener.close()


def test_a_lost_message_is_noticed_by_the_next_heartbeat(start_proxy, redis_server):
    thief = Thief(redis_server)
    first = start_proxy(redis_server.url(), HEARTBEAT)
    second = start_proxy(thief.url, HEARTBEAT)
    wait_peers([first, second], 1)
    with first.client() as client, second.client() as reader:
        fill(reader, "kept")
        thief.is_armed = True
        client.ok("CACHE", "CLEAR")
        wait_until(lambda: thief.n_taken == 1, 10, "the theft")
        seen(second, "bus_gaps_total", 1, cause="number")
        wait_until(lambda: not is_kept(reader, "kept"), 10, "the flush")
        assert flushes(second) == 0, "the message itself was lost"
        client.ok("CACHE", "CLEAR")
        seen(second, "flushes_total", 1, reason="bus")
    assert gaps(second) == 1 and gaps(first) == 0
    thief.close()


def test_a_lost_subscription_is_made_again_and_flushes(start_proxy, redis_server):
    fleet = start_fleet(start_proxy, redis_server.url(), 2)
    with fleet[1].client() as reader, fleet[0].client() as client:
        fill(reader, "kept")
        assert redis_server.ask("CLIENT", "KILL", "TYPE", "pubsub") >= 2
        for each in fleet:
            wait_until(lambda: gaps(each, cause="link") >= 2, 10, "the loss and the return")
        wait_until(lambda: not is_kept(reader, "kept"), 10, "the flush")
        wait_peers(fleet, 1)
        before = flushes(fleet[1])
        client.ok("CACHE", "CLEAR")
        wait_until(lambda: flushes(fleet[1]) > before, 10, "CACHE CLEAR to arrive")


def test_alone_a_lost_subscription_costs_nothing(start_proxy, redis_server):
    own = start_proxy(redis_server.url(), {"reconnect-min": "1ms", "bus-heartbeat": "1m", **GROUP})
    wait_until(lambda: bus_info(own)["bus"] == "up", 10, "the bus")
    with own.client() as client:
        fill(client, "kept")
        redis_server.ask("CLIENT", "KILL", "TYPE", "pubsub")
        seen(own, "bus_resubscriptions_total", 1)
        wait_until(lambda: bus_info(own)["bus"] == "up", 10, "the bus")
        assert is_kept(client, "kept") and gaps(own) == 0


def test_leaving_is_no_loss_but_silence_is(start_proxy, redis_server):
    fleet = start_fleet(start_proxy, redis_server.url(), 4)
    fleet[3].stop()
    wait_peers(fleet[:3], 2)
    assert all(gaps(each) == 0 for each in fleet[:3])
    fleet[2].is_expected_to_be_gone = True
    fleet[2].kill()
    for each in fleet[:2]:
        wait_until(lambda: gaps(each, cause="silence") == 1, 10, "the silence to be noticed")
    wait_peers(fleet[:2], 1)


def test_a_paused_proxy_is_missed_and_comes_back(start_proxy, redis_server):
    fleet = start_fleet(start_proxy, redis_server.url(), 2)
    fleet[1].pause()
    wait_until(lambda: bus_info(fleet[0])["bus_peers"] == "0", 10, "the silence")
    with fleet[0].client() as client:
        client.ok("CACHE", "CLEAR")
    before = gaps(fleet[0], cause="silence")
    fleet[1].resume()
    wait_until(lambda: flushes(fleet[1]) + gaps(fleet[1]) >= 1, 10, "the news, or their loss")
    wait_peers(fleet, 1)
    assert before == 1, "its silence is noticed once"


def test_a_proxy_that_is_started_again_is_heard(start_proxy, redis_server):
    fleet = start_fleet(start_proxy, redis_server.url(), 2)
    with fleet[0].client() as client:
        client.ok("CACHE", "CLEAR")
    seen(fleet[1], "flushes_total", 1, reason="bus")
    fleet[0].stop()
    fleet[0].start()
    wait_peers(fleet, 1)
    with fleet[0].client() as client:
        client.ok("CACHE", "CLEAR")
    seen(fleet[1], "flushes_total", 2, reason="bus")
    assert gaps(fleet[1]) == 0, "a new process is not taken for the former one"
    fleet[0].stop()


# ---- moves ----

def used_channel(cluster, fleet):
    """One that messages are on: heartbeats are heard there."""
    for node in cluster.masters():
        with node_client(node) as client:
            names = node.ask("PUBSUB", "SHARDCHANNELS", "nc:tests:*")
            lowest = min(names, key=key_slot)
            client.ask("SSUBSCRIBE", lowest)
            if b"NC\x01" in client.read():
                return node, lowest
    raise AssertionError("no heartbeat on the lowest channel of any master")


def node_client(node):
    return RawClient(("127.0.0.1", node.port))


def wait_subscribed(cluster, channel, n):
    def count():
        owner = cluster.owner(key_slot(channel))
        return owner.ask("PUBSUB", "SHARDNUMSUB", channel)[1] == n
    wait_until(count, 20, f"{n} subscriptions at the owner")


def must_arrive(fleet):
    def news():
        return flushes(fleet[1]) + gaps(fleet[1], cause="number")

    before = news()
    with fleet[0].client() as client:
        client.ok("CACHE", "CLEAR")
    wait_until(lambda: news() > before, 10, "the news")


def test_a_channel_whose_slot_moves_is_followed(start_proxy, cluster):
    fleet = start_fleet(start_proxy, cluster.url(), 2)
    owner, channel = used_channel(cluster, fleet)
    slot = key_slot(channel)
    target = next(node for node in cluster.masters() if node is not owner)
    try:
        cluster.move_slot(slot, target)
        wait_subscribed(cluster, channel, 2)
        for each in fleet:
            wait_until(lambda: each.metrics().get("bus_resubscriptions_total") >= 1, 10, "the move")
        wait_peers(fleet, 1)
        must_arrive(fleet)
    finally:
        cluster.move_slot(slot, owner)
    wait_peers(fleet, 1)


def test_channels_follow_a_failover(start_proxy, cluster):
    fleet = start_fleet(start_proxy, cluster.url(), 2,
                        {"reconnect-min": "20ms", "reconnect-max": "200ms"})
    owner, channel = used_channel(cluster, fleet)
    cluster.replicas_of(owner)[0].ask("CLUSTER", "FAILOVER")
    wait_until(lambda: cluster.owner(key_slot(channel)) is not owner, 20, "the failover")
    wait_subscribed(cluster, channel, 2)
    wait_peers(fleet, 1, 20)
    must_arrive(fleet)


def test_the_bus_follows_sentinels_to_another_master(start_proxy, tmp_path):
    servers = SentinelSet(tmp_path / "set").start()
    try:
        fleet = start_fleet(start_proxy, servers.url(), 2,
                            {"reconnect-min": "20ms", "reconnect-max": "200ms",
                             "topology-interval": "200ms"})
        former = servers.master()
        servers.running_sentinel().ask("SENTINEL", "FAILOVER", servers.name)
        wait_until(lambda: servers.master() is not former, 30, "another master")
        new = servers.master()
        new.disconnect()
        wait_until(lambda: new.ask("PUBSUB", "NUMSUB", CHANNEL)[1] == 2, 30, "the subscriptions")
        wait_peers(fleet, 1)
        must_arrive(fleet)
    finally:
        servers.stop()


# ---- groups, clients, permissions, reloads ----

def test_groups_are_apart(start_proxy, redis_server):
    left = [start_proxy(redis_server.url(), {**HEARTBEAT, "bus-group": "left"}) for _ in range(2)]
    right = [start_proxy(redis_server.url(), {**HEARTBEAT, "bus-group": "right"}) for _ in range(2)]
    wait_peers(left + right, 1)
    for fleet in (left, right, right):
        with fleet[0].client() as client:
            before = flushes(fleet[1])
            client.ok("CACHE", "CLEAR")
            wait_until(lambda: flushes(fleet[1]) == before + 1, 10, "CACHE CLEAR to arrive")
    assert flushes(left[1]) == 1 and flushes(right[1]) == 2
    assert all(gaps(each) == 0 for each in left + right)


@pytest.mark.parametrize("protocol", [2, 3])
def test_clients_are_not_shown_the_bus(start_proxy, redis_server, protocol):
    fleet = start_fleet(start_proxy, redis_server.url(), 2)
    with fleet[0].client(protocol) as client, fleet[1].client() as other:
        assert other.value("PUBSUB", "CHANNELS") == []
        client.ask("PSUBSCRIBE", "*")
        heard = fleet[0].metrics().get("bus_heartbeats_total", direction="received")
        other.ok("CACHE", "CLEAR")
        fleet[0].wait_metric("bus_heartbeats_total", heard + 3, direction="received")
        other.ok("PUBLISH", "nc:mine:inv", "of a client")
        assert decode(client.read())[2:] == [b"nc:mine:inv", b"of a client"]


def test_a_backend_that_does_not_permit_it(start_proxy, start_redis):
    server = start_redis()
    server.ask("ACL", "SETUSER", "app", "on", ">secret", "~*", "+@all", "-publish", "allchannels")
    url = f"redis://app:secret@127.0.0.1:{server.port}"
    fleet = [start_proxy(url, HEARTBEAT, config={}) for _ in range(2)]
    for each in fleet:
        wait_until(lambda: bus_info(each)["bus"] == "refused", 10, "the refusal")
        assert "the backend refuses the bus between proxies" in each.log()
    with fleet[0].client() as client:
        fill(client, "k")
        client.ok("CACHE", "CLEAR")
    server.ask("ACL", "SETUSER", "app", "+publish")
    for each in fleet:
        each.signal(1)
    wait_peers(fleet, 1)
    # What was to be told meanwhile was not: the other one knows that.
    wait_until(lambda: gaps(fleet[1]) >= 1, 10, "the gap")
    must_arrive(fleet)


def test_reloads_are_followed(start_proxy, redis_server):
    fleet = [start_proxy(redis_server.url(), config={"bus": HEARTBEAT}) for _ in range(2)]
    wait_peers(fleet, 1)

    def reload(**options):
        for each in fleet:
            each.write_config({"bus": {**HEARTBEAT, **options}})
            each.signal(1)

    reload(bus="off")
    for each in fleet:
        wait_until(lambda: bus_info(each)["bus"] == "off", 10, "the bus to be off")
    wait_until(lambda: CHANNEL not in redis_server.ask("PUBSUB", "CHANNELS", "nc:*"), 10,
               "no subscription")
    reload(**{"bus-group": "other", "bus-secret": "sesame", "bus-window": "2ms"})
    wait_peers(fleet, 1)
    assert bus_info(fleet[0])["bus_group"] == "other"
    channels = redis_server.ask("PUBSUB", "CHANNELS", "nc:*")
    assert b"nc:other:inv" in channels and CHANNEL not in channels
    before = fleet[1].metrics().get("bus_messages_total", direction="received")
    with fleet[0].client() as client:
        for reply in client.pipeline([["CACHE", "CLEAR"]] * 50):
            assert not isinstance(decode(reply), RespError)
    fleet[1].wait_metric("bus_messages_total", before + 1, direction="received")
    sent = fleet[0].metrics()
    wait_until(lambda: fleet[0].metrics().get("bus_records_total", direction="sent")
               + fleet[0].metrics().get("bus_merged_total") == 50, 10, "all to be told or merged")
    assert sent.get("bus_rejected_total") == 0


def test_a_bus_that_is_off_costs_nothing(start_proxy, redis_server):
    own = start_proxy(redis_server.url(), {"bus": "off", **GROUP})
    assert bus_info(own)["bus"] == "off"
    with own.client() as client:
        client.ok("CACHE", "CLEAR")
    assert CHANNEL not in redis_server.ask("PUBSUB", "CHANNELS")
    assert own.metrics().get("bus_heartbeats_total") == 0


def test_switched_on_it_does_not_trust_what_it_kept_before(start_proxy, redis_server):
    own = start_proxy(redis_server.url(), config={"bus": {"bus": "off", **HEARTBEAT}})
    with own.client() as client:
        fill(client, "kept")
        own.write_config({"bus": HEARTBEAT})
        own.signal(1)
        wait_until(lambda: bus_info(own)["bus"] == "up", 10, "the bus")
        wait_until(lambda: not is_kept(client, "kept"), 10, "the flush")
    seen(own, "bus_gaps_total", 1, cause="link")


def test_a_backend_that_goes_and_comes(start_proxy, start_redis):
    server = start_redis()
    fleet = start_fleet(start_proxy, server.url(), 2, {"reconnect-max": "100ms"})
    server.kill()
    for each in fleet:
        wait_until(lambda: bus_info(each)["bus"] == "connecting", 10, "the loss")
    with fleet[0].client() as client:
        for _ in range(100):
            client.ok("CACHE", "CLEAR")
    server.start()
    wait_peers(fleet, 1, 20)
    wait_until(lambda: flushes(fleet[1]) + gaps(fleet[1]) >= 1, 10, "the news, or their loss")


def test_a_flush_that_is_unanswered_at_the_end_does_no_harm(start_proxy, start_redis):
    server = start_redis()
    proxy = start_proxy(server.url(), {**HEARTBEAT, "drain-timeout": "100ms"})
    with proxy.client() as client:
        client.ok("SET", "k", "v")
        server.pause()
        relayed = proxy.metrics().get("commands_relayed_total")
        client.send(encode("FLUSHALL"))
        proxy.wait_metric("commands_relayed_total", relayed + 1)
        proxy.stop()
    server.resume()
