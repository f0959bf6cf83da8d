"""Publish/subscribe: Redis's words, one subscription at the backend for all clients, and messages that
go on after links, nodes and slots have moved."""

import pytest
import redis

from harness.resp import RawClient, RespError, decode, encode
from harness.servers import key_slot
from harness.waiting import wait_until

SCRIPTS = {
    "subscribe": ["SUBSCRIBE a b a", "PING", "PING x", "UNSUBSCRIBE a", "UNSUBSCRIBE none",
                  "UNSUBSCRIBE", "GET k"],
    "patterns": ["PSUBSCRIBE a* b?", "SUBSCRIBE c", "PUNSUBSCRIBE a*", "UNSUBSCRIBE", "PUNSUBSCRIBE"],
    "none": ["UNSUBSCRIBE", "PUNSUBSCRIBE x y", "SUNSUBSCRIBE", "GET k"],
    "shards": ["SSUBSCRIBE s", "SUBSCRIBE a", "SSUBSCRIBE s", "SUNSUBSCRIBE s", "UNSUBSCRIBE"],
    "not allowed": ["SUBSCRIBE a", "GET k", "CLIENT GETNAME", "MULTI", "DISCARD", "FOO", "GET",
                    "PUBLISH b x", "HELLO 9", "PING a b", "UNSUBSCRIBE", "GET k"],
    "arity": ["SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE", "PUBLISH a", "PUBSUB", "PUBSUB CHANNELS a b",
              "PUBSUB NOPE"],
    "reset": ["SUBSCRIBE a", "PSUBSCRIBE b*", "RESET", "GET k"],
    "reports": ["PUBSUB CHANNELS", "PUBSUB NUMSUB", "PUBSUB NUMSUB a b", "PUBSUB NUMPAT",
                "PUBSUB SHARDCHANNELS", "PUBSUB SHARDNUMSUB s", "PUBLISH a x", "SPUBLISH s x"],
}


def replies(client, commands):
    """All that comes for the commands, ended by a PING that both protocols answer."""
    frames = b""
    for command in commands:
        client.send(encode(*command.split()))
    client.send(encode("PING", "the end of it"))
    while b"the end of it" not in frames:
        frames += client.read()
    return frames


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("name", SCRIPTS)
def test_answers_are_those_of_redis(proxy, reference, name, protocol):
    answers = []
    for target in (reference, proxy):
        with target.client(protocol) as client:
            answers.append(replies(client, SCRIPTS[name]))
    assert answers[0] == answers[1]


def subscribers_at(server, channel):
    return server.ask("PUBSUB", "NUMSUB", channel)[1]


@pytest.mark.parametrize("protocol", [2, 3])
def test_messages_arrive_from_both_sides(proxy, redis_server, protocol):
    with proxy.client(protocol) as first, proxy.client(protocol) as second, proxy.client() as other:
        kind = b">" if protocol == 3 else b"*"
        for client in (first, second):
            client.ask("SUBSCRIBE", "news")
        second.ask("PSUBSCRIBE", "n*")
        message = kind + b"3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$5\r\nhello\r\n"
        by_pattern = kind + b"4\r\n$8\r\npmessage\r\n$2\r\nn*\r\n$4\r\nnews\r\n$5\r\nhello\r\n"
        assert subscribers_at(redis_server, "news") == 1
        assert other.ok("PUBLISH", "news", "hello") == 3
        assert first.read() == message
        assert {second.read(), second.read()} == {message, by_pattern}
        assert redis_server.ask("PUBLISH", "news", "hello") == 2  # the proxy's channel and pattern
        assert first.read() == message
        assert {second.read(), second.read()} == {message, by_pattern}
        assert other.ok("PUBSUB", "NUMSUB", "news", "none") == [b"news", 2, b"none", 0]
        assert other.ok("PUBSUB", "NUMPAT") == 1
        assert other.ok("PUBSUB", "CHANNELS") == [b"news"]
        assert other.ok("PUBLISH", "zero", "x") == 0
        with redis_server.client() as direct:
            direct.ask("SUBSCRIBE", "news")
            assert other.ok("PUBLISH", "news", "hello") == 4
        assert proxy.metrics().get("subscriptions") == 3
    wait_until(lambda: subscribers_at(redis_server, "news") == 0
               and redis_server.ask("PUBSUB", "NUMPAT") == 0, 10, "the last one to unsubscribe")


def test_many_subscribers_one_subscription(proxy, redis_server):
    clients = [proxy.client(2 + number % 2) for number in range(40)]
    for client in clients:
        client.ask("SUBSCRIBE", "crowd")
    assert subscribers_at(redis_server, "crowd") == 1
    for number in range(20):
        assert redis_server.ask("PUBLISH", "crowd", number) == 1
    for client in clients:
        assert [decode(client.read())[2] for _ in range(20)] == [b"%d" % n for n in range(20)]
    for client in clients[1:]:
        client.close()
    redis_server.ask("PUBLISH", "crowd", "still")
    assert decode(clients[0].read())[2] == b"still"
    clients[0].ask("UNSUBSCRIBE", "crowd")
    wait_until(lambda: subscribers_at(redis_server, "crowd") == 0, 10, "the subscription to end")
    clients[0].close()


def test_redis_py_subscribes(proxy, redis_server):
    client = redis.Redis(port=proxy.port, decode_responses=True)
    channel = client.pubsub(ignore_subscribe_messages=True)
    channel.subscribe("a")
    channel.psubscribe("b*")
    wait_until(lambda: channel.get_message(timeout=0.1) is None, 5, "the confirmations")
    assert client.publish("a", "1") == 1 and client.publish("bb", "2") == 1
    found = []
    wait_until(lambda: found.append(channel.get_message(timeout=0.2)) or
               [one["data"] for one in found if one] == ["1", "2"], 5, "the messages")
    channel.close()
    client.close()


def test_a_confirmed_subscription_misses_nothing(proxy, redis_server):
    """The reply to SUBSCRIBE comes when the backend has it, not before."""
    with proxy.client() as client:
        for number in range(100):
            client.ask("SUBSCRIBE", f"c{number}")
            assert redis_server.ask("PUBLISH", f"c{number}", "at once") == 1
            assert decode(client.read()) == [b"message", b"c%d" % number, b"at once"]
            client.send(encode("UNSUBSCRIBE", f"c{number}"))
            assert decode(client.read())[0] == b"unsubscribe"


def test_messages_do_not_break_replies(proxy, redis_server):
    """RESP3: pushes come between replies, also while a large one is on its way."""
    with proxy.client(3) as client:
        large = b"x" * 3_000_000
        redis_server.ask("SET", "large", large)
        client.ask("SUBSCRIBE", "c")
        for _ in range(10):
            client.send(encode("GETRANGE", "large", 0, -1) + encode("PTTL", "large"))
            for number in range(20):
                redis_server.ask("PUBLISH", "c", number)
            frames = [client.read() for _ in range(22)]
            plain = [frame for frame in frames if not frame.startswith(b">")]
            assert [decode(frame) for frame in plain] == [large, -1]
            pushed = [decode(frame)[2] for frame in frames if frame.startswith(b">")]
            assert pushed == [b"%d" % number for number in range(20)]


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("mode", ["OFF", "SKIP"])
def test_messages_pass_where_replies_are_switched_off(proxy, reference, protocol, mode):
    commands = [("SUBSCRIBE", "c"), ("PSUBSCRIBE", "p*"), ("SSUBSCRIBE", "s"), ("UNSUBSCRIBE", "c"),
                ("PUNSUBSCRIBE",), ("SUNSUBSCRIBE", "s"), ("UNSUBSCRIBE",), ("SUBSCRIBE", "end")]
    answers = []
    for target in (reference, proxy):
        with target.client(protocol) as client, target.client() as other:
            if mode == "OFF":
                client.send(encode("CLIENT", "REPLY", mode) + encode("PING", "not answered"))
            frames = []
            for command in commands:
                if mode == "SKIP" and (protocol == 3 or command[0] == "SUBSCRIBE"):
                    client.send(encode("CLIENT", "REPLY", mode))
                client.send(encode(*command))
                frames.append(client.read())
            assert other.ok("PUBLISH", "end", "heard") == 1
            answers.append(frames + [client.read()])
    assert answers[0] == answers[1]


def test_messages_of_several_channels_stay_in_order(start_proxy, redis_server):
    names = [f"channel:{number}" for number in range(20)]
    proxy = start_proxy(redis_server.url(), threads=3)
    with proxy.client(3) as client, redis_server.client() as publisher:
        client.send(encode("SUBSCRIBE", *names) + encode("PSUBSCRIBE", "channel:*"))
        for _ in range(len(names) + 1):
            client.read()
        publisher.pipeline([("PUBLISH", name, turn) for turn in range(20) for name in names])
        heard = [decode(client.read())[-2:] for _ in range(2 * 20 * len(names))]
    expected = [[name.encode(), b"%d" % turn] for turn in range(20) for name in names]
    assert heard == [message for message in expected for _ in range(2)]


def test_publish_counts_right_behind_an_unsubscribe(proxy):
    with proxy.client() as client, proxy.client() as other:
        for number in range(100):
            client.send(encode("SUBSCRIBE", "c") + encode("UNSUBSCRIBE", "c"))
            client.read()
            client.read()
            assert other.ok("PUBLISH", "c", number) == 0
            assert other.ok("PUBSUB", "NUMSUB", "c") == [b"c", 0]


def test_a_lost_link_is_subscribed_again(proxy, redis_server):
    with proxy.client() as client:
        client.ask("SUBSCRIBE", "a")
        client.ask("PSUBSCRIBE", "b*")
        client.ask("SSUBSCRIBE", "s")
        redis_server.ask("CLIENT", "KILL", "TYPE", "pubsub")
        wait_until(lambda: subscribers_at(redis_server, "a") == 1
                   and redis_server.ask("PUBSUB", "NUMPAT") == 1
                   and redis_server.ask("PUBSUB", "SHARDNUMSUB", "s")[1] == 1, 10,
                   "the subscriptions to be back")
        for command, channel in (("PUBLISH", "a"), ("PUBLISH", "bb"), ("SPUBLISH", "s")):
            redis_server.ask(command, channel, "again")
            assert decode(client.read())[-1] == b"again"
    assert proxy.metrics().get("resubscriptions_total") >= 3


def test_a_backend_that_is_away_is_told(start_proxy, start_redis):
    server = start_redis()
    own = start_proxy(server.url(), {"request-timeout": "300ms"})
    server.kill()
    with own.client() as client:
        assert isinstance(client.value("SUBSCRIBE", "a"), RespError)
        assert client.ask("PING") == b"+PONG\r\n"
        server.start()
        wait_until(lambda: not isinstance(client.value("SUBSCRIBE", "a"), RespError), 10,
                   "the subscription")


def test_a_slow_subscriber_is_closed_and_the_others_are_not(start_proxy, redis_server):
    own = start_proxy(redis_server.url(), {"client-output-limit": "1mb",
                                             "client-output-soft-limit": "0"})
    slow = own.client(receive_buffer=4096)
    with own.client() as quick:
        for client in (slow, quick):
            client.ask("SUBSCRIBE", "c")
        for _ in range(100):
            redis_server.ask("PUBLISH", "c", b"x" * 100_000)
            assert len(decode(quick.read())[2]) == 100_000
        wait_until(lambda: own.metrics().get("subscriptions") == 1, 10, "the slow one to be closed")
    assert own.metrics().get("client_closed_total", reason="output-limit") == 1
    slow.close()


def test_idle_subscribers_stay(start_proxy, redis_server):
    own = start_proxy(redis_server.url(), {"client-idle-timeout": "300ms"})
    with own.client() as client, own.client() as idle:
        client.ask("SUBSCRIBE", "c")
        idle.read_all()
        redis_server.ask("PUBLISH", "c", "still here")
        assert decode(client.read())[2] == b"still here"


def test_the_limit_of_subscriptions(start_proxy, redis_server):
    own = start_proxy(redis_server.url(), {"client-subscriptions": "3"})
    with own.client() as client:
        client.pipeline([("SUBSCRIBE", "a"), ("SUBSCRIBE", "b")])
        assert isinstance(client.value("SUBSCRIBE", "c", "d"), RespError)
        assert decode(client.ask("PSUBSCRIBE", "c")) == [b"psubscribe", b"c", 3]


def test_clients_that_come_and_go_leave_nothing(proxy, redis_server):
    for number in range(300):
        client = proxy.client(2 + number % 2)
        client.send(encode("SUBSCRIBE", *[f"c{number % 7}.{i}" for i in range(20)])
                    + encode("PSUBSCRIBE", "p*"))
        if number % 3:
            client.read()
        client.close()
    wait_until(lambda: proxy.metrics().get("subscriptions") == 0, 10, "the census to be empty")
    wait_until(lambda: redis_server.ask("PUBSUB", "CHANNELS", "c*") == []
               and redis_server.ask("PUBSUB", "NUMPAT") == 0, 10, "the backend to be left")


def test_channels_that_a_user_may_not_hear(start_proxy, start_redis):
    server = start_redis()
    server.ask("ACL", "SETUSER", "alice", "on", ">secret-1", "~*", "&a:*", "+@all")
    own = start_proxy(server.url())
    with own.client(user="alice", password="secret-1") as alice, own.client() as free:
        free.ask("SUBSCRIBE", "b:1")
        assert alice.ask("SUBSCRIBE", "b:1").startswith(b"-NOPERM ")
        assert alice.ask("SUBSCRIBE", "a:1", "b:1").startswith(b"-NOPERM ")
        assert decode(alice.ask("SUBSCRIBE", "a:1")) == [b"subscribe", b"a:1", 1]
        server.ask("PUBLISH", "b:1", "for free")
        server.ask("PUBLISH", "a:1", "for alice")
        assert decode(free.read())[2] == b"for free"
        assert decode(alice.read())[2] == b"for alice"


# --- clusters -------------------------------------------------------------------------------------

def test_channels_of_a_cluster(cluster, cluster_proxy):
    channels = [f"channel{number}" for number in range(12)]
    with cluster_proxy.client(3) as client, cluster_proxy.client() as other:
        for channel in channels:
            client.ask("SUBSCRIBE", channel)
        client.ask("PSUBSCRIBE", "chan*")
        for channel in channels:
            assert other.ok("PUBLISH", channel, "through") == 2
            kinds = {decode(client.read())[0] for _ in range(2)}
            assert kinds == {b"message", b"pmessage"}
            cluster.masters()[0].ask("PUBLISH", channel, "around")
            assert {decode(client.read())[-1] for _ in range(2)} == {b"around"}
        assert sorted(other.ok("PUBSUB", "CHANNELS")) == sorted(c.encode() for c in channels)
        assert other.ok("PUBSUB", "NUMSUB", *channels[:2]) == [b"channel0", 1, b"channel1", 1]


def test_shard_channels_follow_their_slot(cluster, cluster_proxy):
    channel = "{shard}news"
    slot = key_slot(channel)
    with cluster_proxy.client() as client, cluster_proxy.client() as other:
        assert other.ask("SSUBSCRIBE", "{a}1", "{b}1").startswith(b"-CROSSSLOT ")
        assert decode(client.ask("SSUBSCRIBE", channel)) == [b"ssubscribe", channel.encode(), 1]
        assert other.ok("SPUBLISH", channel, "1") == 1
        assert decode(client.read())[2] == b"1"
        target = next(node for node in cluster.masters() if node is not cluster.owner(slot))
        cluster.move_slot(slot, target)
        wait_until(lambda: target.ask("PUBSUB", "SHARDNUMSUB", channel)[1] == 1, 10,
                   "the subscription at the new owner")
        assert other.ok("SPUBLISH", channel, "2") == 1
        assert decode(client.read())[2] == b"2"


def test_keyspace_events_of_all_masters(cluster, cluster_proxy):
    for node in cluster.masters():
        node.ask("CONFIG", "SET", "notify-keyspace-events", "KA")
    try:
        with cluster_proxy.client() as client, cluster_proxy.client() as other:
            client.ask("PSUBSCRIBE", "__keyspace@0__:*")
            keys = [f"event{number}" for number in range(12)]
            for key in keys:
                other.ok("SET", key, "v")
            heard = {decode(client.read())[2] for _ in keys}
            assert heard == {b"__keyspace@0__:" + key.encode() for key in keys}
            # What all nodes would deliver comes once.
            client.ask("PSUBSCRIBE", "*")
            other.ok("PUBLISH", "ordinary", "once")
            other.ok("PUBLISH", "ordinary", "the end")
            ordinary = [decode(client.read())[-1] for _ in range(2)]
            assert ordinary == [b"once", b"the end"]
    finally:
        for node in cluster.masters():
            node.ask("CONFIG", "SET", "notify-keyspace-events", "")


def test_subscriptions_survive_a_failover(start_proxy, cluster):
    own = start_proxy(cluster.url(), {"reconnect-min": "20ms", "reconnect-max": "200ms"})
    channel = "failing over"
    owner = cluster.owner(key_slot(channel))
    with own.client() as client:
        client.ask("SUBSCRIBE", channel)
        cluster.replicas_of(owner)[0].ask("CLUSTER", "FAILOVER")
        wait_until(lambda: cluster.owner(key_slot(channel)) is not owner, 20, "the failover")
        new = cluster.owner(key_slot(channel))
        wait_until(lambda: new.ask("PUBSUB", "NUMSUB", channel)[1] == 1, 20,
                   "the subscription at the new master")
        new.ask("PUBLISH", channel, "after")
        assert decode(client.read())[2] == b"after"
