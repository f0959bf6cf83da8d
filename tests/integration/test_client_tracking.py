"""CLIENT TRACKING for clients of the proxy: Redis's words, and caches of applications that stay true
whatever way a key was read, changed, evicted, or lost with a link."""

import random
import threading

import pytest

from harness.resp import RawClient, RespError, decode, encode
from harness.servers import key_slot
from harness.waiting import wait_until

SCRIPTS = {
    "options": ["CLIENT TRACKING", "CLIENT TRACKING maybe", "CLIENT TRACKING on nope",
                "CLIENT TRACKING on REDIRECT", "CLIENT TRACKING on REDIRECT x",
                "CLIENT TRACKING on REDIRECT 0", "CLIENT TRACKING on REDIRECT 999999",
                "CLIENT TRACKING on PREFIX a", "CLIENT TRACKING on BCAST OPTIN",
                "CLIENT TRACKING on OPTIN OPTOUT", "CLIENT TRACKING off BCAST",
                "CLIENT TRACKINGINFO x", "CLIENT GETREDIR x", "CLIENT CACHING"],
    "off": ["CLIENT TRACKINGINFO", "CLIENT GETREDIR", "CLIENT CACHING yes", "CLIENT TRACKING off"],
    "on": ["CLIENT TRACKING on", "CLIENT TRACKINGINFO", "CLIENT GETREDIR", "CLIENT CACHING yes",
           "CLIENT CACHING no", "CLIENT CACHING x", "CLIENT TRACKING on BCAST",
           "CLIENT TRACKING on NOLOOP", "CLIENT TRACKINGINFO", "CLIENT TRACKING off",
           "CLIENT TRACKINGINFO"],
    "optin": ["CLIENT TRACKING on OPTIN", "CLIENT TRACKING on OPTOUT", "CLIENT TRACKINGINFO",
              "CLIENT CACHING no", "CLIENT CACHING yes", "CLIENT TRACKINGINFO", "GET k",
              "CLIENT TRACKINGINFO"],
    "optout": ["CLIENT TRACKING on OPTOUT", "CLIENT CACHING yes", "CLIENT CACHING no",
               "CLIENT TRACKINGINFO", "MULTI", "GET k", "EXEC", "CLIENT TRACKINGINFO"],
    "broadcast": ["CLIENT TRACKING on BCAST PREFIX b: PREFIX a:", "CLIENT TRACKINGINFO",
                  "CLIENT TRACKING on BCAST PREFIX a:b", "CLIENT TRACKING on BCAST PREFIX c PREFIX cc",
                  "CLIENT TRACKING on BCAST PREFIX c", "CLIENT TRACKINGINFO", "CLIENT TRACKING on",
                  "CLIENT TRACKING off", "CLIENT TRACKING on BCAST", "CLIENT TRACKINGINFO",
                  "CLIENT TRACKING on BCAST NOLOOP", "CLIENT TRACKINGINFO"],
    "reset": ["CLIENT TRACKING on NOLOOP", "RESET", "CLIENT TRACKINGINFO"],
}


def ask_between(client, pushes, *command):
    """The reply; what is pushed before it goes to pushes."""
    client.send(encode(*command))
    frame = client.read()
    while frame.startswith(b">"):
        pushes.append(frame)
        frame = client.read()
    return frame


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("name", SCRIPTS)
def test_answers_are_those_of_redis(proxy, reference, name, protocol):
    answers = []
    for target in (reference, proxy):
        with target.client(protocol) as client:
            answers.append([ask_between(client, [], *command.split())
                            for command in SCRIPTS[name]])
    assert answers[0] == answers[1]


# -- one key --------------------------------------------------------------------------------------


def invalidation(*keys):
    return b">2\r\n$10\r\ninvalidate\r\n*%d\r\n" % len(keys) + b"".join(
        [b"$%d\r\n%s\r\n" % (len(key), key) for key in map(str.encode, keys)])


EVERYTHING = b">2\r\n$10\r\ninvalidate\r\n_\r\n"


def nothing_more(client):
    """What was sent to the client before now, which is nothing."""
    client.send(encode("ECHO", "the end of it"))
    assert client.read() == b"$13\r\nthe end of it\r\n"


def tracker(proxy, *options, protocol=3):
    client = proxy.client(protocol)
    assert client.ok("CLIENT", "TRACKING", "on", *options) == b"OK"
    return client


READS = {
    "from tier 1": ("GET", "k"),
    "a view": ("STRLEN", "k"),
    "several keys": ("MGET", "k", "other"),
    "counted": ("EXISTS", "k", "other"),
    "relayed": ("TTL", "k"),
    "two keys, relayed": ("SINTER", "set", "other"),
    "a script that only reads": ("EVAL_RO", "return redis.call('get', KEYS[1])", 1, "k"),
}


@pytest.mark.parametrize("name", READS)
def test_a_key_that_was_shown_is_watched(proxy, redis_server, name):
    read = READS[name]
    key = "set" if "set" in read else "k"
    change = ("SADD", "set") if key == "set" else ("APPEND", "k")
    redis_server.ask("SET", "k", "v")
    with tracker(proxy) as client:
        for turn in range(5):
            client.ask(*read)
            nothing_more(client)
            client.ask(*read)
            nothing_more(client)
            redis_server.ask(*change, str(turn))
            assert client.read() == invalidation(key)
            nothing_more(client)


def test_a_change_through_the_proxy_is_told(proxy, redis_server):
    redis_server.ask("SET", "k", "v")
    with tracker(proxy) as client, proxy.client() as writer:
        assert client.ok("GET", "k") == b"v"
        writer.ok("SET", "k", "w")
        assert client.read() == invalidation("k")
        assert client.ok("GET", "k") == b"w"
        # Its own write: the answer first.
        assert client.ask("SET", "k", "x") == b"+OK\r\n"
        assert client.read() == invalidation("k")
        nothing_more(client)


def test_a_key_that_tier_1_has_evicted_is_watched(start_proxy, redis_server):
    proxy = start_proxy(redis_server.url(), {"maxmemory": "1mb"})
    for key in range(3000):
        redis_server.ask("SET", f"k{key}", "v" * 1000)
    with tracker(proxy) as client:
        for key in range(3000):
            client.ok("GET", f"k{key}")
        assert proxy.metrics().get("entries") < 2500
        for key in range(3000):
            redis_server.ask("APPEND", f"k{key}", "w")
        assert {client.read() for _ in range(3000)} == {
            invalidation(f"k{key}") for key in range(3000)}


@pytest.mark.parametrize("why", ["uncached", "large"])
def test_a_key_that_tier_1_never_holds_is_watched(start_proxy, redis_server, why):
    proxy = start_proxy(redis_server.url(), config={
        "cache": {"max-value": "64kb"},
        "namespace off": {"match": "off:*", "cache": "off"}})
    key = "off:k" if why == "uncached" else "k"
    with tracker(proxy) as client:
        for turn in range(3):
            redis_server.ask("SET", key, str(turn) * (100 if why == "uncached" else 200000))
            for command in (("GET", key), ("GET", key), ("MGET", key, key)):
                frames = client.ask(*command)
                if turn > 0 or command[0] == "GET":
                    assert str(turn).encode() in frames
            # What was read while it was not known that it is large was called changed at once.
            client.send(encode("ECHO", "the end of it"))
            while client.read() != b"$13\r\nthe end of it\r\n":
                pass
            client.ask("GET", key)
            nothing_more(client)
            redis_server.ask("DEL", key)
            assert client.read() == invalidation(key)


def test_what_a_transaction_showed_is_watched(proxy, redis_server):
    redis_server.ask("MSET", "k", "v", "both", "1")
    with tracker(proxy) as client:
        for turn in range(3):
            replies = client.pipeline([("MULTI",), ("GET", "k"), ("SET", "other", "x"), ("EXEC",)])
            assert replies[-1].startswith(b"*2\r\n")
            nothing_more(client)
            redis_server.ask("APPEND", "k", str(turn))
            assert client.read() == invalidation("k")
        # Read and written by it: called changed behind its reply.
        replies = client.pipeline([("MULTI",), ("INCR", "both"), ("GET", "both"), ("EXEC",)])
        assert replies[-1] == b"*2\r\n:2\r\n$1\r\n2\r\n"
        assert client.read() == invalidation("both")
        nothing_more(client)


def test_what_is_read_blocking_is_not_kept(proxy, redis_server):
    redis_server.ask("XADD", "s", "1-1", "f", "v")
    with tracker(proxy) as client:
        for entry in range(2, 5):
            client.send(encode("XREAD", "BLOCK", 10000, "STREAMS", "s", f"{entry - 2}-1"))
            assert b"%d-1" % (entry - 1) in client.read()
            redis_server.ask("XADD", "s", f"{entry}-1", "f", "v")
            assert client.read() == invalidation("s")
            nothing_more(client)


def test_only_what_was_asked_for_is_watched(proxy, redis_server):
    redis_server.ask("MSET", "a", "1", "b", "1")
    with tracker(proxy, "OPTIN") as client:
        client.ok("GET", "a")
        client.ok("CLIENT", "CACHING", "yes")
        client.ok("GET", "b")
        redis_server.ask("MSET", "a", "2", "b", "2")
        assert client.read() == invalidation("b")
        nothing_more(client)
    with tracker(proxy, "OPTOUT") as client:
        client.ok("CLIENT", "CACHING", "no")
        client.ok("GET", "a")
        client.ok("GET", "b")
        redis_server.ask("MSET", "a", "3", "b", "3")
        assert client.read() == invalidation("b")
        nothing_more(client)


def test_own_writes_are_not_told_with_noloop(proxy, redis_server):
    redis_server.ask("MSET", "a", "1", "loop", "1", "b", "1", "count", "1")
    with tracker(proxy, "NOLOOP") as client:
        for _ in range(20):
            pushes = []
            ask_between(client, pushes, "MGET", "a", "loop", "b")
            ask_between(client, pushes, "GET", "count")
            assert not pushes
            redis_server.ask("INCR", "a")
            ask_between(client, pushes, "INCR", "count")
            ask_between(client, pushes, "SET", "loop", "1")
            redis_server.ask("INCR", "b")
            while len(pushes) < 2:
                pushes.append(client.read())
            assert pushes == [invalidation("a"), invalidation("b")]
            nothing_more(client)
            # Read again it is watched again, and not lost on a write that changes nothing.
            client.ok("GET", "loop")
            client.ok("SETNX", "loop", "2")
            redis_server.ask("INCR", "loop")
            assert client.read() == invalidation("loop")


# The reply looks as if it had changed something.
CHANGES_NOTHING = {
    "a bit that was set": (("SETBIT", "k", 7, 1), ("SETBIT", "k", 7, 1)),
    "a score that grows by nothing": (("ZADD", "k", 1, "x"), ("ZINCRBY", "k", 0, "x")),
    "the same by ZADD": (("ZADD", "k", 1, "x"), ("ZADD", "k", "INCR", 0, "x")),
    "a list that is none": (("DEL", "k"), ("LTRIM", "k", 0, 1)),
}


@pytest.mark.parametrize("options", [("NOLOOP",), ("BCAST", "NOLOOP")], ids=" ".join)
@pytest.mark.parametrize("name", CHANGES_NOTHING)
def test_own_writes_that_change_nothing_lose_no_message(proxy, redis_server, name, options):
    before, write = CHANGES_NOTHING[name]
    redis_server.ask(*before)
    redis_server.ask("SET", "other", "v")
    with tracker(proxy, *options, *(("PREFIX", "k") if "BCAST" in options else ())) as client:
        client.ok("TYPE", "k")
        client.ask(*write)
        nothing_more(client)
        redis_server.ask("RENAME", "other", "k")
        assert client.read() == invalidation("k")
        nothing_more(client)


def test_everything_goes_with_flushall_and_with_a_link(start_proxy, start_redis):
    server = start_redis()
    proxy = start_proxy(server.url())
    server.ask("SET", "k", "v")
    with tracker(proxy) as client, tracker(proxy) as idle:
        client.ok("GET", "k")
        server.ask("FLUSHALL")
        assert client.read() == EVERYTHING
        server.ask("SET", "k", "v")
        wait_until(lambda: client.ok("GET", "k") == b"v", 10, "the value")
        server.ask("CLIENT", "KILL", "TYPE", "normal")
        assert client.read() == EVERYTHING
        nothing_more(idle)  # it keeps nothing
        wait_until(lambda: not isinstance(decode(client.ask("GET", "k")), RespError), 10, "a link")


def test_keys_above_the_limit_are_called_changed(start_proxy, redis_server):
    proxy = start_proxy(redis_server.url(), {"client-tracking-keys": 1000}, threads=1)
    with tracker(proxy) as client:
        client.pipeline([("GET", f"k{key}") for key in range(900)])
        nothing_more(client)
        for key in range(900, 1200):
            client.send(encode("GET", f"k{key}"))
        frames = [client.read() for _ in range(300 + 199)]
        assert [frame for frame in frames if frame.startswith(b">")] == [
            invalidation(f"k{key}") for key in range(199)]
    assert proxy.metrics().get("client_tracking_evictions_total") == 199
    wait_until(lambda: proxy.metrics().get("client_tracking_keys") == 0, 10, "the table to empty")


def test_what_makes_room_for_itself_is_not_kept(start_proxy, redis_server):
    """Keys that one command shows are not called changed before it has shown them."""
    proxy = start_proxy(redis_server.url(), {"client-tracking-keys": 1000}, threads=1)
    keys = [f"k{key}" for key in range(1001)]  # as many as are remembered
    with tracker(proxy) as client:
        client.pipeline([("GET", key) for key in keys])
        pushes = []
        ask_between(client, pushes, "MGET", keys[0], "one more")
        assert pushes == [invalidation(keys[1])]
        redis_server.ask("SET", keys[0], "w")
        assert client.read() == invalidation(keys[0])
        nothing_more(client)
        # Of more keys than are remembered none may be kept.
        ask_between(client, [], "MGET", *keys, "one more", "and another")
        assert invalidation(*keys, "one more", "and another") in iter(client.read, None)


def test_a_client_that_is_closed_over_what_it_may_not_keep(start_proxy, redis_server):
    proxy = start_proxy(redis_server.url(), {
        "client-tracking-keys": 1000, "client-output-limit": "64kb",
        "client-output-soft-limit": 0}, threads=1)
    keys = [f"k{key}" for key in range(1002)]
    redis_server.ask("MSET", *[word for key in keys for word in (key, "v" * 100)])
    with proxy.client() as other:
        for first in range(0, len(keys), 100):
            other.ok("MGET", *keys[first:first + 100])
    with tracker(proxy) as client:
        client.send(encode("MGET", *keys))
        assert b"invalidate" not in client.read_all()
    assert proxy.metrics().get("client_closed_total", reason="output-limit") == 1


# -- redirection ----------------------------------------------------------------------------------


def test_messages_go_where_they_are_redirected(proxy, redis_server):
    """From and to either worker."""
    redis_server.ask("SET", "k", "v")
    for _ in range(4):
        with proxy.client(2) as listener, proxy.client(2) as client:
            number = listener.ok("CLIENT", "ID")
            listener.ok("SUBSCRIBE", "__redis__:invalidate")
            client.ok("CLIENT", "TRACKING", "on", "REDIRECT", number)
            assert client.ok("CLIENT", "GETREDIR") == number
            assert b"redir=%d " % number in client.ok("CLIENT", "INFO")
            assert b" flags=t " in client.ok("CLIENT", "INFO")
            client.ok("GET", "k")
            redis_server.ask("APPEND", "k", "w")
            assert decode(listener.read()) == [b"message", b"__redis__:invalidate", [b"k"]]
            client.ok("GET", "k")
            redis_server.ask("FLUSHALL")
            assert decode(listener.read()) == [b"message", b"__redis__:invalidate", None]


def test_a_listener_that_has_gone_is_told_of(proxy, redis_server):
    redis_server.ask("SET", "k", "v")
    for _ in range(4):
        listener = proxy.client(3)
        number = listener.ok("CLIENT", "ID")
        with tracker(proxy, "REDIRECT", number) as client:
            client.ok("GET", "k")
            listener.close()
            wait_until(lambda: not client.ok("CLIENT", "LIST", "ID", number), 10, "it to be gone")
            redis_server.ask("APPEND", "k", "w")
            assert client.read() == b">2\r\n$21\r\ntracking-redir-broken\r\n:%d\r\n" % number
            assert b"broken_redirect" in decode(client.ask("CLIENT", "TRACKINGINFO"))[b"flags"]
            assert b" flags=tR " in client.ok("CLIENT", "INFO")


def test_a_listener_that_is_closed_over_a_message(start_proxy, redis_server):
    """It tracks as well, and may have been who is told next."""
    proxy = start_proxy(redis_server.url(), {
        "client-output-limit": "64kb", "client-output-soft-limit": 0}, threads=1)
    for _ in range(10):
        with tracker(proxy) as listener:
            number = listener.ok("CLIENT", "ID")
            with tracker(proxy, "BCAST", "REDIRECT", number) as client:
                redis_server.ask("SET", "k" * 100000, "v")
                assert listener.read_all() == b""
                redis_server.ask("SET", "k", "v")
                assert client.read() == b">2\r\n$21\r\ntracking-redir-broken\r\n:%d\r\n" % number


# -- BCAST ----------------------------------------------------------------------------------------


def test_prefixes_are_told_of_unread(proxy, redis_server):
    with tracker(proxy, "BCAST", "PREFIX", "a:", "PREFIX", "b:") as client, \
            tracker(proxy, "BCAST", "PREFIX", "a:", "PREFIX", "b:") as second, \
            tracker(proxy, "BCAST") as all_keys, proxy.client() as writer:
        writer.ok("SET", "a:1", "x")
        for each in (client, second, all_keys):
            assert each.read() == invalidation("a:1")
        redis_server.ask("SET", "c:1", "x")
        assert all_keys.read() == invalidation("c:1")
        redis_server.ask("SET", "b:1", "x")
        for each in (client, second, all_keys):
            assert each.read() == invalidation("b:1")
        client.ok("CLIENT", "TRACKING", "on", "BCAST", "PREFIX", "c:")
        redis_server.ask("SET", "c:2", "x")
        assert client.read() == all_keys.read() == invalidation("c:2")
        nothing_more(second)
        second.ok("CLIENT", "TRACKING", "off")
        redis_server.ask("FLUSHALL")
        assert client.read() == all_keys.read() == EVERYTHING
        nothing_more(second)


def test_no_own_write_hides_another_with_noloop(proxy, redis_server):
    """Redis tells once of all that one turn of its loop has written."""
    shown = {"own": 0, "foreign": 0}
    with tracker(proxy, "BCAST", "NOLOOP") as client, redis_server.client() as busy, \
            redis_server.client() as other:
        while min(shown.values()) < 3 and sum(shown.values()) < 60:
            turn = sum(shown.values())
            busy.send(encode("DEBUG", "SLEEP", "0.03"))
            for first in (turn % 2, 1 - turn % 2):
                if first:
                    client.send(encode("SET", "k", "own") * 3)
                else:
                    other.send(encode("SET", "k", "foreign"))
            busy.read()
            other.read()
            frames = []
            while frames.count(b"+OK\r\n") < 3:
                frames.append(client.read())
            redis_server.ask("SET", "fence", "x")
            while invalidation("fence") not in frames:
                frames.append(client.read())
            value = redis_server.ask("GET", "k").decode()
            shown[value] += 1
            # Behind the last answer to a write of its own, unless that was the last of all.
            answered = max(i for i, frame in enumerate(frames) if frame == b"+OK\r\n")
            assert value == "own" or invalidation("k") in frames[answered:]
            redis_server.ask("SET", "k", "x")
            assert client.read() == invalidation("k")
            nothing_more(client)
    assert shown["foreign"] > 0


def test_broadcast_survives_its_connection(start_proxy, start_redis):
    server = start_redis()
    proxy = start_proxy(server.url())
    with tracker(proxy, "BCAST") as client:
        server.ask("CLIENT", "KILL", "TYPE", "normal")
        assert client.read() == EVERYTHING

        def is_told():
            """Once it is there again, behind what makes what was read meanwhile void."""
            server.ask("SET", "k", "v")
            frame = client.read()
            assert frame in (EVERYTHING, invalidation("k"))
            return frame != EVERYTHING

        wait_until(is_told, 10, "the connection to be there again")
    wait_until(lambda: proxy.metrics().get("leased_connections", state="taken") == 0, 10,
               "the connections to be given back")


def test_no_connection_for_broadcast_is_an_error(start_proxy, start_redis):
    server = start_redis()
    proxy = start_proxy(server.url(), {"leased-connections": 1})
    with proxy.client() as holder, proxy.client(3) as client:
        holder.pipeline([("MULTI",), ("GET", "k")])
        error = client.ask("CLIENT", "TRACKING", "on", "BCAST")
        assert error.startswith(b"-ERR nearcached: no connection to the backend")
        assert decode(client.ask("CLIENT", "TRACKINGINFO"))[b"flags"] == [b"off"]


def test_messages_that_wait_count_as_output(start_proxy, start_relay, redis_server):
    relay = start_relay(redis_server.address)
    proxy = start_proxy(f"redis://127.0.0.1:{relay.address[1]}", {
        "client-output-limit": "64kb", "client-output-soft-limit": 0})
    with tracker(proxy, "BCAST") as client, redis_server.client() as writer:
        relay.hold("other")
        client.send(encode("TTL", "k"))
        for key in range(1000):
            writer.ok("SET", f"k{key}", "v")
        assert client.read_all() == b""
        assert proxy.metrics().get("client_closed_total", reason="output-limit") == 1
        relay.flow()


# -- many caches ----------------------------------------------------------------------------------


class CachingApplication:
    """A client with a cache of its own, coherent by CLIENT TRACKING alone."""

    def __init__(self, proxy, keys, chance, options=()):
        self._client = RawClient(proxy.address, 3)
        self._client.ok("CLIENT", "TRACKING", "on", *options)
        self._keys, self._chance = keys, chance
        self.cache, self.n_hits, self.n_told = {}, 0, 0
        self.problem = None

    def _take(self, frame):
        """A message is taken in and True; False: the frame is a reply."""
        if not frame.startswith(b">"):
            return False
        keys = decode(frame)[1]
        self.n_told += 1
        if keys is None:
            self.cache.clear()
        else:
            for key in keys:
                self.cache.pop(key.decode(), None)
        return True

    def _reply(self):
        frame = self._client.read()
        while self._take(frame):
            frame = self._client.read()
        return decode(frame)

    def settle(self):
        self._client.send(encode("ECHO", "x"))
        self._reply()

    def step(self):
        wanted = self._chance.sample(self._keys, self._chance.randrange(1, 6))
        ask = [key for key in wanted if key not in self.cache]
        self.n_hits += len(wanted) - len(ask)
        style = self._chance.randrange(3)
        if style == 0:
            for key in ask:
                self._client.send(encode("MGET", key))
        else:
            for key in ask:
                self._client.send(encode("GET", key))
        for key in ask:
            value = self._reply()
            value = value[0] if isinstance(value, list) else value
            if not isinstance(value, RespError):
                self.cache[key] = value
        if style == 2:
            key = self._chance.choice(self._keys)
            self._client.send(encode("INCR", key))
            self._client.send(encode("GET", key))
            self._reply()
            value = self._reply()
            if not isinstance(value, RespError):
                self.cache[key] = value


def run_applications(applications, write, trouble, turns):
    """All step at once, each on a thread; write() goes on meanwhile, trouble(turn) now and then."""
    is_over = threading.Event()

    def drive(application):
        try:
            while not is_over.is_set():
                application.step()
        except Exception as error:  # pylint: disable=broad-except
            application.problem = repr(error)

    threads = [threading.Thread(target=drive, args=(each,)) for each in applications]
    for thread in threads:
        thread.start()
    turn = 0
    while turn < turns or (sum(each.n_hits for each in applications) < 200 and turn < 20 * turns):
        write()
        trouble(turn)
        turn += 1
    is_over.set()
    for thread in threads:
        thread.join()
    assert [each.problem for each in applications] == [None] * len(applications)


def assert_true_caches(applications, read):
    """As soon as the last messages are there, no cache holds what is not so."""
    wrong = []

    def are_true():
        wrong.clear()
        for number, application in enumerate(applications):
            application.settle()
            wrong.extend((number, key, value, read(key))
                         for key, value in application.cache.items() if value != read(key))
        return not wrong

    def fill():
        for application in applications:
            application.step()
        return are_true() and sum(len(application.cache) for application in applications) > 10

    for condition in (are_true, fill, are_true):
        try:
            wait_until(condition, 10, "true caches")
        except AssertionError:
            raise AssertionError(f"(application, key, cached, true): {wrong}") from None


@pytest.mark.parametrize("options", [(), ("NOLOOP",), ("BCAST",), ("BCAST", "NOLOOP")],
                         ids=lambda options: " ".join(options) or "default")
def test_caches_of_applications_stay_true(start_proxy, start_redis, options):
    chance = random.Random(7)
    server = start_redis()
    proxy = start_proxy(server.url(), config={
        "namespace off": {"match": "off:*", "cache": "off"}})
    keys = [f"k{n}" for n in range(20)] + [f"off:{n}" for n in range(5)]
    applications = [CachingApplication(proxy, keys, random.Random(n), options) for n in range(6)]

    with server.client() as writer:
        def trouble(turn):
            if turn % 150 == 75:
                writer.ok("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            if turn % 150 == 149:
                writer.ok("FLUSHALL")

        def write():
            writer.ok(*chance.choice([("INCR", chance.choice(keys)), ("DEL", chance.choice(keys))]))

        run_applications(applications, write, trouble, 3040)
        assert_true_caches(applications, lambda key: server.ask("GET", key))
    assert sum(each.n_hits for each in applications) > 100
    assert sum(each.n_told for each in applications) > 100


def test_caches_stay_true_while_slots_move(start_proxy, cluster):
    chance = random.Random(8)
    proxy = start_proxy(cluster.url())
    keys = [f"{{moving}}k{n}" for n in range(10)] + [f"k{n}" for n in range(10)]
    applications = [CachingApplication(proxy, keys, random.Random(n)) for n in range(4)]
    slot = key_slot("{moving}")

    def trouble(turn):
        if turn % 300 == 150:
            owner = cluster.owner(slot)
            cluster.move_slot(slot, next(node for node in cluster.masters() if node is not owner))

    with RawClient(proxy.address, 2) as writer:
        run_applications(applications, lambda: writer.ok("INCR", chance.choice(keys)), trouble, 1500)
        assert_true_caches(applications, lambda key: writer.ok("GET", key))
    assert sum(each.n_hits for each in applications) > 100
