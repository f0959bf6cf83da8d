#!/usr/bin/python3
"""redis-py, as Debian packages it; with --as-cluster its RedisCluster."""

import argparse
import hashlib
import sys
import threading
import time
import traceback

import redis
from redis.cluster import RedisCluster


def parse_arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    parser.add_argument("--around", type=int)
    parser.add_argument("--tag", default="")
    parser.add_argument("--only")
    parser.add_argument("--cluster", action="store_true")
    parser.add_argument("--as-cluster", action="store_true")
    parser.add_argument("--list", action="store_true")
    return parser.parse_args()


OPTIONS = parse_arguments()
STEPS = {}


def step(function):
    STEPS[function.__name__.rstrip("_")] = function
    return function


def key(name):
    return f"{{{OPTIONS.tag}}}{name}"


def connect(**options):
    options = {"decode_responses": True, "socket_timeout": 8, **options}
    if OPTIONS.as_cluster:
        return RedisCluster("127.0.0.1", OPTIONS.port, **options)
    return redis.Redis("127.0.0.1", OPTIONS.port, **options)


def until(condition, what):
    end = time.monotonic() + 5
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"waited in vain for {what}")
        time.sleep(0.01)


def raises(text, function, *args):
    try:
        function(*args)
    except redis.RedisError as error:
        assert text in str(error) or text == type(error).__name__, repr(error)
    else:
        raise AssertionError(f"no error {text}")


@step
def connect_(a, _b, _around):
    if OPTIONS.as_cluster:
        assert a.get_primaries() and a.ping()
        assert a.keyslot(key("x")) == a.keyslot(key("y"))
        return
    named = connect(client_name="scenario", health_check_interval=1, socket_keepalive=True)
    assert named.client_getname() == "scenario"
    assert a.info("server")["redis_version"].startswith("7")
    pool = redis.BlockingConnectionPool.from_url(
        f"redis://127.0.0.1:{OPTIONS.port}/0?socket_timeout=5", max_connections=2)
    assert redis.Redis(connection_pool=pool).ping()
    assert [each["name"] for each in a.client_list() if each["name"] == "scenario"]
    assert named.client_info()["name"] == "scenario"


@step
def databases(a, _b, _around):
    if OPTIONS.cluster or OPTIONS.as_cluster:
        return
    second = connect(db=3)
    second.set(key("db"), "three")
    a.set(key("db"), "zero")
    assert second.get(key("db")) == "three" and a.get(key("db")) == "zero"
    second.delete(key("db"))


@step
def strings(a, _b, _around):
    assert a.set(key("s"), "one", ex=100, nx=True) is True
    assert a.set(key("s"), "two", nx=True) is None
    assert a.get(key("s")) == "one"
    assert a.incrby(key("n"), 41) == 41 and a.incrbyfloat(key("n"), 1.5) == 42.5
    assert a.mget(key("s"), key("none"), key("n")) == ["one", None, "42.5"]
    assert 90 < a.ttl(key("s")) <= 100
    raises("not an integer", a.incr, key("s"))
    raises("WRONGTYPE", a.lpush, key("s"), "x")


@step
def hashes(a, _b, _around):
    a.hset(key("h"), mapping={"f": "v", "n": 1})
    assert a.hgetall(key("h")) == {"f": "v", "n": "1"}
    assert a.hincrby(key("h"), "n", 4) == 5
    assert a.hmget(key("h"), "f", "none") == ["v", None]
    assert len(list(a.hscan_iter(key("h")))) == 2


@step
def lists(a, _b, _around):
    assert a.rpush(key("l"), "a", "b", "c") == 3
    assert a.lrange(key("l"), 0, -1) == ["a", "b", "c"]
    assert a.lmove(key("l"), key("l2"), "LEFT", "RIGHT") == "a"
    assert a.lpop(key("l")) == "b"


@step
def zsets(a, _b, _around):
    a.zadd(key("z"), {"one": 1, "two": 2.5})
    assert a.zrange(key("z"), 0, -1, withscores=True) == [("one", 1.0), ("two", 2.5)]
    assert a.zscore(key("z"), "two") == 2.5
    assert a.zpopmin(key("z")) == [("one", 1.0)]
    a.sadd(key("set"), "x", "y")
    assert a.smembers(key("set")) == {"x", "y"}


@step
def streams(a, b, _around):
    entry = a.xadd(key("x"), {"f": "v"})
    assert b.xrange(key("x")) == [(entry, {"f": "v"})]
    a.xgroup_create(key("x"), "g", "0")
    assert b.xreadgroup("g", "c", {key("x"): ">"}) == [[key("x"), [(entry, {"f": "v"})]]]
    assert a.xpending(key("x"), "g")["pending"] == 1
    assert a.xack(key("x"), "g", entry) == 1
    assert b.xread({key("x"): "$"}, block=50) == []


@step
def pipelines(a, _b, _around):
    pipeline = a.pipeline(transaction=False)
    for number in range(300):
        pipeline.set(key(f"p{number}"), number).get(key(f"p{number}"))
    replies = pipeline.execute()
    assert replies == [each for number in range(300) for each in (True, str(number))]


@step
def spread(a, _b, _around):
    names = [f"{OPTIONS.tag}:spread{number}" for number in range(200)]
    values = {name: str(number) for number, name in enumerate(names)}
    if OPTIONS.as_cluster:
        assert a.mset_nonatomic(values)
        assert a.mget_nonatomic(names) == list(values.values())
    else:
        assert a.mset(values) and a.mget(names) == list(values.values())
    assert a.exists(*names) == 200 and a.delete(*names) == 200


@step
def big(a, b, _around):
    value = "nearcached" * 600000
    a.set(key("big"), value)
    assert b.get(key("big")) == value and b.get(key("big")) == value
    a.rpush(key("biglist"), *range(20000))
    assert len(b.lrange(key("biglist"), 0, -1)) == 20000
    a.unlink(key("big"), key("biglist"))


@step
def scan(a, _b, _around):
    for number in range(300):
        a.set(f"{OPTIONS.tag}:scan:{number}", 1)
    assert len(set(a.scan_iter(f"{OPTIONS.tag}:scan:*", count=50))) == 300


@step
def scripts(a, b, around):
    around.script_flush()
    code = f"-- {OPTIONS.tag}\nreturn redis.call('INCRBY', KEYS[1], ARGV[1])"
    sha = hashlib.sha1(code.encode()).hexdigest()
    raises("NoScriptError", a.evalsha, sha, 1, key("script"), 5)
    if OPTIONS.as_cluster:
        assert a.script_load(code) == sha and a.evalsha(sha, 1, key("script"), 5) == 5
    else:
        assert a.register_script(code)(keys=[key("script")], args=[5]) == 5
    assert a.evalsha(sha, 1, key("script"), 5) == 10
    assert b.get(key("script")) == "10"


@step
def visible(a, b, around):
    for number in range(100):
        a.set(key("seen"), number)
        assert b.get(key("seen")) == str(number) and b.get(key("seen")) == str(number)
    assert around.get(key("seen")) == "99"
    for number in range(5):
        around.set(key("seen"), f"around{number}")
        until(lambda wanted=f"around{number}": b.get(key("seen")) == wanted, "the write around")


@step
def transactions(a, b, _around):
    if OPTIONS.as_cluster:  # RedisCluster of this version has none
        return
    a.set(key("t"), 1)
    assert a.pipeline().incr(key("t")).get(key("t")).execute() == [2, "2"]
    assert b.get(key("t")) == "2"
    with a.pipeline() as pipeline:
        pipeline.watch(key("t"))
        b.set(key("t"), "other")
        pipeline.multi()
        pipeline.set(key("t"), "mine")
        raises("WatchError", pipeline.execute)
    assert a.get(key("t")) == "other"
    a.set(key("t"), 0)

    def increment(pipeline):
        value = int(pipeline.get(key("t")))
        pipeline.multi()
        pipeline.set(key("t"), value + 1)

    threads = [threading.Thread(target=a.transaction, args=(increment, key("t")))
               for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert b.get(key("t")) == "10"
    with a.lock(key("lock"), timeout=5, blocking_timeout=1):
        assert not b.lock(key("lock"), timeout=5).acquire(blocking=False)


@step
def blocking(a, b, _around):
    pusher = threading.Thread(target=a.rpush, args=(key("q2"), "job"))
    pusher.start()
    assert b.blpop([key("q"), key("q2")], 5) == (key("q2"), "job")
    pusher.join()
    started = time.monotonic()
    assert b.blpop(key("q"), 0.2) is None
    assert time.monotonic() - started >= 0.19
    pusher = threading.Thread(target=a.zadd, args=(key("zq"), {"m": 7}))
    pusher.start()
    assert b.bzpopmin(key("zq"), 5) == (key("zq"), "m", 7.0)
    pusher.join()


@step
def pubsub(a, b, around):
    subscriber = b.pubsub(ignore_subscribe_messages=True)
    subscriber.subscribe(key("news"))
    subscriber.psubscribe(f"{OPTIONS.tag}.*")
    got = []

    def heard(wanted):
        message = subscriber.get_message(timeout=0.05)
        if message:
            got.append((message["type"], message["channel"], message["data"]))
        return wanted in got

    def through():
        a.publish(key("news"), "through")
        return heard(("message", key("news"), "through"))

    def pattern():
        a.publish(f"{OPTIONS.tag}.x", "p")
        return heard(("pmessage", f"{OPTIONS.tag}.x", "p"))

    until(through, "a message through")
    until(pattern, "a message for a pattern")
    around.publish(key("news"), "around")
    until(lambda: heard(("message", key("news"), "around")), "a message around")
    subscriber.close()


@step
def reconnect(a, b, _around):
    if OPTIONS.as_cluster:
        return
    a.set(key("r"), 1)
    identity = a.client_id()
    assert b.client_kill_filter(_id=identity) == 1
    assert a.incr(key("r")) == 2
    assert a.client_id() != identity


def main():
    if OPTIONS.list:
        print("\n".join(STEPS))
        return 0
    failures = 0
    for name in OPTIONS.only.split(",") if OPTIONS.only else STEPS:
        clients = []
        try:
            clients += [connect(), connect()]
            clients.append(redis.Redis("127.0.0.1", OPTIONS.around, decode_responses=True))
            STEPS[name](*clients)
            print(f"ok {name}", flush=True)
        except Exception as error:  # pylint: disable=broad-except
            failures += 1
            own = [frame for frame in traceback.extract_tb(error.__traceback__)
                   if frame.filename == __file__]
            text = " ".join(f"{type(error).__name__} {error}".split())[:300]
            print(f"FAIL {name}: {text} (line {own[-1].lineno})", flush=True)
        for client in clients:
            client.close()
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
