"""Users of the backend: who logs in as whom, and that tier 1 shows nobody what the backend would not."""

import pytest

from harness.resp import RawClient, RespError, encode
from harness.servers import key_slot
from harness.waiting import wait_until

SECRETS = {"alice": "wonderland-7391", "bob": "builder-5526", "boss": "control-8810"}


@pytest.fixture
def guarded(start_redis):
    """alice may only use keys that begin with a:; bob and boss all."""
    server = start_redis()
    server.ask("ACL", "SETUSER", "alice", "on", ">" + SECRETS["alice"], "~a:*", "&*", "+@all")
    for user in ("bob", "boss"):
        server.ask("ACL", "SETUSER", user, "on", ">" + SECRETS[user], "~*", "&*", "+@all")
    return server


def own_url(server, user="boss"):
    return server.url().replace("redis://", f"redis://{user}:{SECRETS[user]}@")


def log_in(proxy, user, protocol=2):
    return proxy.client(protocol, user=user, password=SECRETS[user])


def is_refused(frame):
    return frame.startswith(b"-NOPERM ")


@pytest.mark.parametrize("protocol", [2, 3])
def test_nobody_sees_what_its_rules_deny(start_proxy, guarded, protocol):
    proxy = start_proxy(own_url(guarded))
    guarded.ask("MSET", "a:1", "for all", "b:1", "secret")
    guarded.ask("HSET", "b:h", "f", "secret")
    with log_in(proxy, "bob", protocol) as bob, log_in(proxy, "alice", protocol) as alice, \
            proxy.client(protocol) as own:
        denied = [("GET", "b:1"), ("STRLEN", "b:1"), ("HGETALL", "b:h"), ("EXISTS", "b:1"),
                  ("MGET", "a:1", "b:1"), ("TTL", "b:1"), ("EVAL", "return 1", 1, "b:1")]
        for _ in range(3):
            for command in denied:
                assert not is_refused(bob.ask(*command))
                assert not is_refused(own.ask(*command))
                assert is_refused(alice.ask(*command)), command
            assert alice.ok("GET", "a:1") == b"for all"
        assert is_refused(alice.ask("SET", "b:1", "mine"))
        assert is_refused(alice.ask("BLPOP", "b:l", "0.01"))
        answers = alice.pipeline([("MULTI",), ("GET", "b:1"), ("EXEC",)])
        assert is_refused(answers[1]) and answers[2].startswith(b"-EXECABORT")
        assert own.ok("GET", "b:1") == b"secret"


def warm(proxy, client, key):
    """Until tier 1 answers this client; its links may still have to come up."""
    def is_hit():
        before = proxy.metrics().get("hits_total")
        client.ok("GET", key)
        return proxy.metrics().get("hits_total") > before
    wait_until(is_hit, 5, "a hit")


def test_users_have_hits_of_their_own(start_proxy, guarded):
    proxy = start_proxy(own_url(guarded))
    guarded.ask("SET", "a:1", "v")
    with log_in(proxy, "alice") as first, log_in(proxy, "alice", 3) as second, \
            proxy.client() as own:
        warm(proxy, first, "a:1")
        warm(proxy, own, "a:1")
        warm(proxy, first, "a:1")
        before = proxy.metrics().get("hits_total")
        assert second.ok("GET", "a:1") == b"v"
        assert own.ok("GET", "a:1") == b"v"
        assert proxy.metrics().get("hits_total") == before + 2
    assert proxy.metrics().get("users") == 1


def test_what_one_user_writes_the_others_read(start_proxy, guarded):
    """Read-your-writes holds across users: by name, by script, by a flush, at the backend."""
    proxy = start_proxy(own_url(guarded))
    with log_in(proxy, "alice") as alice, log_in(proxy, "bob", 3) as bob, proxy.client() as own:
        def all_read(value):
            for client in (alice, bob, own):
                assert client.ok("GET", "a:k") == value

        writes = [(alice, ("SET", "a:k")), (bob, ("SET", "a:k")), (own, ("SET", "a:k")),
                  (bob, ("EVAL", "return redis.call('SET', 'a:k', ARGV[1])", 0))]
        for round_number in range(20):
            writer, command = writes[round_number % len(writes)]
            writer.ok(*command, f"v{round_number}")
            all_read(f"v{round_number}".encode())
            all_read(f"v{round_number}".encode())
        alice.pipeline([("MULTI",), ("SET", "a:k", "in a transaction"), ("EXEC",)])
        all_read(b"in a transaction")
        bob.ok("FLUSHALL")
        all_read(None)
        guarded.ask("SET", "a:k", "around")
        for client in (alice, bob, own):
            wait_until(lambda: client.ok("GET", "a:k") == b"around", 5, "the foreign write")


@pytest.mark.parametrize("protocol", [2, 3])
def test_logins_are_worded_by_the_backend(start_proxy, guarded, protocol):
    proxy = start_proxy(guarded.url())
    secret = SECRETS["alice"]
    commands = [("AUTH", "wrong"), ("AUTH", "alice", "wrong"), ("AUTH", "nobody", "x"),
                ("AUTH", "alice", ""), ("AUTH", "default", ""), ("AUTH", "alice", secret),
                ("GET", "b:1"), ("AUTH", "alice", "wrong"), ("GET", "b:1"), ("AUTH",),
                ("AUTH", "a", "b", "c"), ("HELLO", protocol, "AUTH", "alice", "wrong"),
                ("SET", "a:1", "x"), ("GET", "a:1"), ("RESET",), ("GET", "b:1")]
    with proxy.client(protocol) as client, guarded.client(protocol) as direct:
        for command in commands:
            assert client.ask(*command) == direct.ask(*command), command
    with proxy.client() as client:
        answers = client.pipeline([("AUTH", "alice", secret), ("GET", "b:1"), ("GET", "a:none"),
                                   ("HELLO", 3, "AUTH", "bob", SECRETS["bob"], "SETNAME", "me"),
                                   ("GET", "b:1"), ("CLIENT", "GETNAME")])
        assert answers[0] == b"+OK\r\n" and is_refused(answers[1])
        assert answers[2] == b"$-1\r\n" and answers[3].startswith(b"%7\r\n")
        assert answers[4] == b"_\r\n" and answers[5] == b"$2\r\nme\r\n"
        assert b" user=bob " in client.ask("CLIENT", "INFO")
        assert client.ask("ACL", "WHOAMI") == b"$3\r\nbob\r\n"
        with log_in(proxy, "alice") as alice, log_in(proxy, "boss") as boss:
            assert client.ok("CLIENT", "KILL", "USER", "alice") == 1
            alice.read_all()
            assert boss.ok("PING") == b"PONG"


def test_the_own_login_of_the_proxy_is_shared(start_proxy, guarded):
    proxy = start_proxy(own_url(guarded))
    guarded.ask("SET", "k", "v")
    with proxy.client() as own, log_in(proxy, "boss") as boss:
        warm(proxy, own, "k")
        before = proxy.metrics().get("hits_total")
        assert boss.ok("GET", "k") == b"v"
        assert proxy.metrics().get("hits_total") == before + 1
    assert proxy.metrics().get("users") == 0


def test_a_changed_rule_holds_within_acl_max_age(start_proxy, guarded):
    proxy = start_proxy(own_url(guarded), {"acl-max-age": "200ms"})
    guarded.ask("SET", "a:1", "v")
    with log_in(proxy, "alice") as alice:
        warm(proxy, alice, "a:1")
        guarded.ask("ACL", "SETUSER", "alice", "resetkeys", "~x:*")
        wait_until(lambda: is_refused(alice.ask("GET", "a:1")), 5, "the rule to hold")
        assert is_refused(alice.ask("GET", "a:1"))
        guarded.ask("ACL", "SETUSER", "alice", "~a:*")
        wait_until(lambda: alice.ask("GET", "a:1") == b"$1\r\nv\r\n", 5, "the rule to hold")


def test_a_deleted_user_gets_nothing_more(start_proxy, guarded):
    proxy = start_proxy(own_url(guarded), {"acl-max-age": "1h"})
    guarded.ask("SET", "a:1", "v")
    with log_in(proxy, "alice") as alice, proxy.client() as own:
        warm(proxy, alice, "a:1")
        guarded.ask("ACL", "DELUSER", "alice")
        wait_until(lambda: isinstance(alice.value("GET", "a:1"), RespError), 5, "an error")
        assert own.ok("GET", "a:1") == b"v"
        with pytest.raises(RespError):
            log_in(proxy, "alice")


def test_everybody_must_log_in_where_the_backend_judges_all(start_proxy, guarded):
    proxy = start_proxy(own_url(guarded), {"auth": "backend"})
    with proxy.client() as client:
        assert client.ask("GET", "a:1") == b"-NOAUTH Authentication required.\r\n"
        client.ok("AUTH", "alice", SECRETS["alice"])
        assert client.ok("GET", "a:1") is None
        client.ok("RESET")
        assert client.ask("GET", "a:1") == b"-NOAUTH Authentication required.\r\n"


def test_requirepass_keeps_the_backend_out_of_it(start_proxy, guarded):
    proxy = start_proxy(own_url(guarded), {"requirepass": "simple"})
    with proxy.client() as client:
        assert client.ask("AUTH", "alice", SECRETS["alice"]).startswith(b"-WRONGPASS ")
        client.ok("AUTH", "simple")
        client.ok("SET", "b:1", "v")
        assert client.ok("GET", "b:1") == b"v"


def test_a_login_waits_for_a_backend_that_is_away_no_longer_than_it_may(start_proxy, guarded):
    proxy = start_proxy(own_url(guarded), {"connect-timeout": "300ms"})
    guarded.kill()
    with proxy.client() as client:
        assert client.ask("AUTH", "alice", SECRETS["alice"]).startswith(b"-ERR nearcached: ")
        assert client.ask("PING") == b"+PONG\r\n"
    guarded.start()


def test_any_password_of_a_user_is_the_same_user(start_proxy, guarded):
    """Where a user needs no password, any text is one: they do not add up."""
    proxy = start_proxy(own_url(guarded))
    with proxy.client() as client:
        for number in range(30):
            client.ok("AUTH", "default", f"anything {number}")
            assert client.ok("GET", "b:1") is None
        assert proxy.metrics().get("users") == 1
        guarded.ask("ACL", "SETUSER", "alice", ">second-password")
        for password in (SECRETS["alice"], "second-password"):
            client.ok("AUTH", "alice", password)
        assert proxy.metrics().get("users") == 2
        # The links of the user go on with the password that still holds.
        guarded.ask("ACL", "SETUSER", "alice", "<" + SECRETS["alice"])
        guarded.ask("CLIENT", "KILL", "USER", "alice")
        wait_until(lambda: client.ask("SET", "a:1", "v") == b"+OK\r\n", 5, "a link to be back")


def test_multi_without_discard_is_no_trap(start_proxy, guarded):
    guarded.ask("ACL", "SETUSER", "alice", "-discard")
    proxy = start_proxy(own_url(guarded))
    with log_in(proxy, "alice") as alice:
        assert alice.ask("BLPOP", "a:l", "0.01").startswith(b"-ERR nearcached: ")
        answers = alice.pipeline([("MULTI",), ("SET", "a:k", "v"), ("EXEC",)])
        assert answers[1].startswith(b"-") and answers[2].startswith(b"-EXECABORT")
        assert alice.ok("GET", "a:k") is None


def test_clients_that_leave_during_a_login_leave_nothing(start_proxy, guarded):
    proxy = start_proxy(own_url(guarded))
    for _ in range(50):
        client = proxy.client()
        client.send(encode("AUTH", "alice", SECRETS["alice"]) + encode("GET", "a:1"))
        client.close()
    with proxy.client() as client:
        client.ok("PING")
    wait_until(lambda: guarded.ask("CLIENT", "LIST", "TYPE", "normal").count(b"user=alice") <= 6, 10,
               "the connections of logins to close")


def test_links_of_users_that_left_are_closed(start_proxy, guarded):
    proxy = start_proxy(own_url(guarded), {"link-idle-timeout": "300ms"})
    with log_in(proxy, "alice") as alice:
        alice.ok("GET", "a:1")
        alice.ok("SET", "a:1", "v")
    wait_until(lambda: b"user=alice" not in guarded.ask("CLIENT", "LIST"), 10, "alice's links to go")


def test_no_secret_is_told(start_proxy, guarded):
    proxy = start_proxy(own_url(guarded), {"log-level": "debug"})
    with log_in(proxy, "alice") as alice, proxy.client() as other:
        alice.ok("GET", "a:1")
        other.ask("AUTH", "alice", "not-it-4711")
        told = proxy.log() + alice.ok("INFO").decode() + alice.ok("CLIENT", "LIST").decode()
    for secret in list(SECRETS.values()) + ["not-it-4711"]:
        assert secret not in told


def test_users_on_a_cluster(start_proxy, cluster):
    for node in cluster.nodes:
        node.ask("ACL", "SETUSER", "alice", "on", ">" + SECRETS["alice"], "~a:*", "&*", "+@all")
    try:
        proxy = start_proxy(cluster.url())
        keys = [f"a:{number}" for number in range(30)]
        with log_in(proxy, "alice") as alice, proxy.client() as own:
            for key in keys:
                own.ok("SET", key, key)
                own.ok("SET", "b" + key, key)
                own.ok("GET", "b" + key)
            for _ in range(2):
                assert alice.ok("MGET", *keys) == [key.encode() for key in keys]
                for key in keys:
                    assert alice.ok("GET", key) == key.encode()
                    assert is_refused(alice.ask("GET", "b" + key))
            assert is_refused(alice.ask("MGET", "a:1", "ba:1"))
            target = next(node for node in cluster.masters()
                          if node is not cluster.owner(key_slot("a:1")))
            cluster.move_slot(key_slot("a:1"), target)
            alice.ok("SET", "a:1", "moved")
            assert own.ok("GET", "a:1") == b"moved"
            assert alice.ok("GET", "a:1") == b"moved"
    finally:
        for node in cluster.nodes:
            node.ask("ACL", "DELUSER", "alice")


def test_a_select_that_is_refused_runs_nothing(start_proxy, guarded):
    """What was queued behind it would else run in the database that the link stood in."""
    guarded.ask("ACL", "SETUSER", "alice", "-select")
    proxy = start_proxy(own_url(guarded))
    with proxy.client() as client:
        client.ok("SELECT", 9)
        client.ok("AUTH", "alice", SECRETS["alice"])
        for command in (("SET", "a:k", "v"), ("EVAL", "return redis.call('SET', KEYS[1], 'v')", 1, "a:k"),
                        ("BRPOPLPUSH", "a:l", "a:k", "0.01")):
            reply = client.ask(*command)
            assert reply.startswith(b"-ERR nearcached: no connection to the backend "), reply
            assert b"SELECT was refused: NOPERM " in reply
        answers = client.pipeline([("MULTI",), ("SET", "a:k", "v"), ("EXEC",)])
        assert answers[1].startswith(b"-") and answers[2].startswith(b"-EXECABORT")
        assert client.ask("GET", "a:k").startswith(b"-")
    for database in (0, 9):
        with guarded.client() as direct:
            direct.ok("SELECT", database)
            assert direct.ok("DBSIZE") == 0
    with log_in(proxy, "alice") as alice:
        wait_until(lambda: alice.ask("SET", "a:k", "v") == b"+OK\r\n", 5, "a link to be back")
