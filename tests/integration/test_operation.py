"""The daemon as an operator meets it: metrics, health, configuration, reload, drain, CACHE.

Proves: every line of tables/metrics.def is on /metrics and the format is Prometheus's; readiness
follows the backend, also from a start without one; -t, --describe and --version; a reload takes
effect or changes nothing; SIGTERM finishes what is under way, a second one does not wait; passwords
leave the command line; namespaces; CACHE and its locks; a backend that refuses tracking is served
within the bound of ttl mode, and tracking comes back by itself.
"""

import json
import re
import signal
import socket
import threading
import time

import pytest

from harness.metrics import http_get
from harness.proxy import config_text, run_binary
from harness.resp import RawClient, RespError, decode, encode
from harness.servers import ROOT, RedisServer, free_port
from harness.waiting import wait_until

pytestmark = pytest.mark.needs_proxy


def flatten(value):
    """All texts and numbers of a reply, as one list of texts."""
    if isinstance(value, dict):
        value = [each for pair in value.items() for each in pair]
    if isinstance(value, list):
        return [each for item in value for each in flatten(item)]
    return [value.decode(errors="replace") if isinstance(value, bytes) else str(value)]


def cache(client, *args):
    """A CACHE reply as one text."""
    return "\n".join(flatten(client.ok("CACHE", *args)))


# --- metrics and health ---------------------------------------------------------------------------

def metric_table():
    """[(kind, name, labels, help)] of tables/metrics.def."""
    text = (ROOT / "src" / "tables" / "metrics.def").read_text()
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
    return [(kind, name, labels.replace('\\"', '"'), description) for kind, name, labels,
            description in re.findall(
                r'^(\w+)\(\w+, "((?:[^"\\]|\\.)*)", "((?:[^"\\]|\\.)*)",\s*"((?:[^"\\]|\\.)*)"\)',
                text, re.M)]


def test_metrics_follow_the_format_and_the_table(proxy):
    with proxy.client() as client:
        client.ok("SET", "k", "v")
        for _ in range(3):
            client.ok("GET", "k")
            client.ok("GET", "none")
    metrics = proxy.metrics()
    helps, types, current, seen = {}, {}, None, set()
    for line in metrics.text.splitlines():
        if line.startswith("# HELP "):
            _, _, name, text = line.split(" ", 3)
            assert name not in helps, f"{name} is explained twice"
            helps[name] = text
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name in helps and name not in types
            types[name] = kind
            current = name
        elif line:
            name = re.match(r"[a-zA-Z0-9_:]+", line).group()
            if types.get(current) == "histogram":
                name = re.sub(r"_(bucket|sum|count)$", "", name)
            assert name == current, f"{line!r} stands under {current}"
            seen.add(name)
    assert metrics.text.endswith("\n") and seen == set(types)
    table = metric_table()
    assert len(table) > 80
    for kind, name, labels, description in table:
        full = name if kind.startswith("STANDARD_") else "nearcached_" + name
        plain = re.sub(r"^(NS_READ_|NS_|READ_|STANDARD_)|_LIST$", "", kind).lower()
        assert types.get(full) == plain, full
        assert helps[full] == description
        if kind.startswith("STANDARD_"):
            assert f"\n{full} " in metrics.text
            continue
        if kind.endswith("_LIST"):
            assert f"\n{full}{{" in metrics.text
            continue
        wanted = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        if kind.startswith("NS_"):
            wanted["namespace"] = "default"
        assert metrics.has(name + ("_count" if plain == "histogram" else ""), **wanted), (
            full, wanted)
    assert set(types) == {("" if kind.startswith("STANDARD_") else "nearcached_") + name
                          for kind, name, _, _ in table}


def test_metrics_count_what_happens(start_proxy, redis_server):
    proxy = start_proxy(redis_server.url())

    def figures():
        metrics = proxy.metrics()
        return {name: metrics.get(name) for name in (
            "hits_total", "misses_total", "negative_hits_total", "fetches_total", "fills_total",
            "commands_total", "commands_relayed_total", "entries", "client_connections_total")}

    with proxy.client() as client:
        before = figures()
        client.ok("SET", "k", "v")
        for _ in range(5):
            client.ok("GET", "k")
            client.ok("GET", "none")
        after = figures()
    change = {name: after[name] - before[name] for name in before}
    assert change["hits_total"] == 8 and change["misses_total"] == 2
    assert change["negative_hits_total"] == 4
    assert change["fetches_total"] == change["fills_total"] == 2
    assert change["commands_total"] == 11 and change["commands_relayed_total"] == 1
    assert change["entries"] == 2 and change["client_connections_total"] == 0
    with proxy.client() as client:
        dropped = proxy.metrics().get("invalidations_total")
        client.ok("SET", "k", "w")
        assert proxy.metrics().get("invalidations_total") > dropped


def test_histograms_are_cumulative(proxy):
    with proxy.client() as client:
        client.ok("SET", "k", "v")
        for _ in range(20):
            client.ok("GET", "k")
    metrics = proxy.metrics()
    for outcome in ("hit", "miss", "relayed"):
        buckets = sorted(
            (float(dict(labels)["le"]), value) for (name, labels), value in metrics.samples.items()
            if name == "nearcached_request_duration_seconds_bucket"
            and dict(labels)["outcome"] == outcome)
        counts = [value for _, value in buckets]
        assert counts == sorted(counts) and buckets[-1][0] == float("inf")
        assert counts[-1] == metrics.get("request_duration_seconds_count", outcome=outcome) > 0
        assert metrics.get("request_duration_seconds_sum", outcome=outcome) > 0


def test_health(proxy):
    assert http_get(proxy.admin_address, "/healthz")[0] == 200
    assert http_get(proxy.admin_address, "/readyz")[0] == 200
    assert http_get(proxy.admin_address, "/nosuch")[0] == 404
    with socket.create_connection(proxy.admin_address) as slow:
        slow.sendall(b"GET /metr")
        assert http_get(proxy.admin_address, "/healthz")[0] == 200
    with socket.create_connection(proxy.admin_address) as head:
        head.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        reply = b"".join(iter(lambda: head.recv(1 << 16), b""))
    assert re.search(rb"content-type: text/plain; version=0\.0\.4", reply, re.I)


# --- the backend comes and goes -------------------------------------------------------------------

FAST = {"reconnect-min": "20ms", "reconnect-max": "200ms", "connect-timeout": "500ms",
        "request-timeout": "500ms"}


def test_start_without_a_backend_heals(start_proxy, tmp_path):
    port = free_port()
    proxy = start_proxy(f"redis://127.0.0.1:{port}", FAST, wait="alive")
    assert http_get(proxy.admin_address, "/healthz")[0] == 200
    assert http_get(proxy.admin_address, "/readyz")[0] == 503
    assert proxy.metrics().get("ready") == 0
    with proxy.client() as client:
        begun = time.monotonic()
        for command in (("GET", "k"), ("SET", "k", "v"), ("MGET", "a", "b"),
                        ("EVAL", "return 1", 0)):
            error = client.value(*command)
            assert isinstance(error, RespError) and re.match(r"[A-Z]+ .+", str(error)), error
        assert time.monotonic() - begun < 20
        assert client.ok("PING") == b"PONG"
        server = RedisServer(tmp_path / "late", port=port).start()
        try:
            wait_until(proxy.is_ready, 15, "readiness")
            assert client.ok("SET", "k", "v") == b"OK" and client.ok("GET", "k") == b"v"
            wait_until(lambda: client.ok("GET", "k") == b"v"
                       and proxy.metrics().get("hits_total") > 0, 10, "hits")
        finally:
            server.stop()


def test_the_backend_restarts(start_proxy, tmp_path):
    port = free_port()
    server = RedisServer(tmp_path / "first", port=port).start()
    proxy = start_proxy(server.url(), FAST)
    with proxy.client() as client:
        client.ok("SET", "k", "old")
        assert [client.ok("GET", "k") for _ in range(3)] == [b"old"] * 3
        server.kill()
        wait_until(lambda: not proxy.is_ready(), 15, "readiness to go")
        assert isinstance(client.value("SET", "k", "x"), RespError)
        assert proxy.metrics().get("errors_total") > 0
        server = RedisServer(tmp_path / "second", port=port).start()
        try:
            wait_until(proxy.is_ready, 15, "readiness")
            # The new server is empty: nothing of the old one may be left.
            assert client.ok("GET", "k") is None
            client.ok("SET", "k", "new")
            assert [client.ok("GET", "k") for _ in range(3)] == [b"new"] * 3
        finally:
            server.stop()


def test_a_stopped_backend_costs_errors_within_the_timeout(start_proxy, start_redis):
    server = start_redis()
    proxy = start_proxy(server.url(), {**FAST, "max-staleness": "300ms"})
    with proxy.client() as client:
        client.ok("SET", "k", "v")
        client.ok("GET", "k")
        server.pause()
        begun = time.monotonic()
        error = client.value("SET", "k", "w")
        seconds = time.monotonic() - begun
        assert isinstance(error, RespError), error
        assert 0.4 < seconds < 10
        assert client.ok("PING") == b"PONG"
        server.resume()

        def works():
            return client.value("SET", "k", "x") == b"OK" and client.value("GET", "k") == b"x"

        wait_until(works, 15, "commands to work again")


def test_an_unusable_backend_is_named_in_the_log(start_proxy, start_redis):
    server = start_redis(password="right")
    proxy = start_proxy(f"redis://:wrong@127.0.0.1:{server.port}", FAST, wait="alive")
    with proxy.client() as client:
        assert isinstance(client.value("GET", "k"), RespError)
    wait_until(lambda: "WRONGPASS" in proxy.log() or "level=warn" in proxy.log(), 10, "a warning")
    assert http_get(proxy.admin_address, "/readyz")[0] == 503
    assert "wrong@" not in proxy.log() and ":wrong" not in proxy.log()


# --- configuration --------------------------------------------------------------------------------

GOOD = """
[server]
listen = 127.0.0.1:7001
threads = 2
requirepass = hidden-word

[cache]
maxmemory = 64mb
max-ttl = 10m

[namespace "session"]
match = session:*
negative-ttl = 0
"""


def test_a_good_file_passes_the_test(tmp_path):
    path = tmp_path / "good.conf"
    path.write_text(GOOD)
    for flag in ("-t", "--test"):
        done = run_binary("--config", path, flag)
        assert done.returncode == 0, done.stderr
        assert "hidden-word" not in done.stdout + done.stderr


@pytest.mark.parametrize("line, number, words", [
    ("maxmemory = lots", 3, ["maxmemory", "lots", "1mb", "48gb"]),
    ("maxmemory = 1kb", 3, ["maxmemory", "1kb", "1mb", "48gb"]),
    ("max-ttl = 5 parsecs", 3, ["max-ttl", "parsecs", "1ms"]),
    ("multi-get-atomic = perhaps", 3, ["multi-get-atomic", "perhaps", "on", "off"]),
    ("nosuch-option = 1", 3, ["nosuch-option"]),
    ("negative-share = 200", 3, ["negative-share", "200", "0", "100"]),
])
def test_a_bad_file_is_explained(tmp_path, line, number, words):
    path = tmp_path / "bad.conf"
    path.write_text(f"[cache]\nnegative-ttl = 1s\n{line}\n")
    done = run_binary("--config", path, "-t")
    assert done.returncode not in (0, None) and done.returncode > 0
    message = done.stdout + done.stderr
    assert re.search(rf"bad\.conf:{number}\b", message), message
    for word in words:
        assert word in message, message


def test_all_errors_of_a_file_are_named(tmp_path):
    path = tmp_path / "bad.conf"
    path.write_text("[cache]\nmaxmemory = x\nmax-ttl = y\n\n[log]\nlog-level = z\n")
    message = run_binary("--config", path, "-t").stderr
    assert all(f"bad.conf:{number}" in message for number in (2, 3, 6)), message


def test_bad_flags_and_variables_are_explained(tmp_path):
    done = run_binary("--maxmemory", "x", "-t")
    assert done.returncode > 0 and "maxmemory" in done.stderr
    done = run_binary("--nosuch", "x", "-t")
    assert done.returncode > 0 and "nosuch" in done.stderr
    done = run_binary("-t", env={"NEARCACHED_MAX_TTL": "x"})
    assert done.returncode > 0 and "NEARCACHED_MAX_TTL" in done.stderr
    done = run_binary("--config", tmp_path / "nosuch.conf", "-t")
    assert done.returncode > 0 and "nosuch.conf" in done.stderr


def test_precedence_file_environment_flag(start_proxy, redis_server):
    proxy = start_proxy(
        redis_server.url(), {"maxclients": 30},
        config={"server": {"maxclients": 10, "client-idle-timeout": "1h"},
                "coherence": {"max-staleness": "700ms"}},
        env={"NEARCACHED_MAXCLIENTS": "20", "NEARCACHED_MAX_STALENESS": "800ms"})
    metrics = proxy.metrics()
    assert metrics.get("max_clients") == 30
    assert metrics.get("staleness_bound_seconds") == pytest.approx(0.8)


def test_describe_and_version():
    described = run_binary("--describe", "config")
    assert described.returncode == 0
    for name in ("maxmemory", "max-staleness", "client-output-limit", "negative-ttl", "match"):
        assert name in described.stdout
    described = run_binary("--describe", "metrics")
    assert described.returncode == 0 and "nearcached_hits_total" in described.stdout
    assert run_binary("--describe").returncode == 0
    version = run_binary("--version")
    assert version.returncode == 0 and re.search(r"nearcached \d+\.\d+", version.stdout)
    usage = run_binary("--help")
    assert usage.returncode == 0 and "--backend" in usage.stdout


def test_passwords_leave_the_command_line(start_proxy, start_redis):
    server = start_redis(password="backend-secret")
    proxy = start_proxy(f"redis://:backend-secret@127.0.0.1:{server.port}", {
        "requirepass": "front-secret", "cache-password": "cache-secret"})
    with open(f"/proc/{proxy.pid}/cmdline", "rb") as file:
        shown = file.read()
    assert b"secret" not in shown and b"--requirepass" in shown
    with open(f"/proc/{proxy.pid}/comm", "rb") as file:
        assert b"secret" not in file.read()
    with proxy.client(password="front-secret") as client:
        client.ok("SET", "k", "v")
        shown = client.ok("INFO") + cache(client, "INFO").encode()
        assert b"secret" not in shown
    assert "secret" not in proxy.log() + proxy.metrics().text


def test_a_taken_port_is_reported(start_proxy, proxy, redis_server):
    done = run_binary("--listen", f"127.0.0.1:{proxy.port}", "--backend", redis_server.url(),
                      "--admin", f"127.0.0.1:{free_port()}")
    assert done.returncode > 0
    assert str(proxy.port) in done.stderr and "level=error" in done.stderr


# --- reload ---------------------------------------------------------------------------------------

def reload(proxy, name):
    before = proxy.metrics().get(name)
    proxy.signal(signal.SIGHUP)
    proxy.wait_metric(name, before + 1)


def test_a_good_reload_takes_effect(start_proxy, redis_server):
    config = {"server": {"maxclients": 100}, "cache": {"maxmemory": "64mb"}}
    proxy = start_proxy(redis_server.url(), config=config)
    with proxy.client() as client:
        client.ok("SET", "session:1", "v")
        client.ok("GET", "session:1")
        assert proxy.metrics().get("max_clients") == 100
        config["server"] = {"maxclients": 50, "requirepass": "later"}
        config["cache"] = {"maxmemory": "32mb"}
        config['namespace "session"'] = {"match": "session:*", "cache": "off"}
        proxy.write_config(config)
        reload(proxy, "config_reloads_total")
        metrics = proxy.metrics()
        assert metrics.get("max_clients") == 50 and metrics.get("memory_limit_bytes") == 32 << 20
        # Who is in stays in; who comes must log in.
        hits = metrics.get("hits_total")
        assert [client.ok("GET", "session:1") for _ in range(3)] == [b"v"] * 3
        assert proxy.metrics().get("hits_total") == hits
        assert proxy.metrics().get("bypassed_total", namespace="session") >= 3
    with proxy.client() as client:
        assert str(client.value("GET", "k")).startswith("NOAUTH")
        assert client.ok("AUTH", "later") == b"OK"


@pytest.mark.parametrize("change, words", [
    ({"cache": {"maxmemory": "nonsense"}}, ["maxmemory", "nonsense"]),
    ({"server": {"maxclients": "40", "nosuch": "1"}}, ["nosuch"]),
], ids=["bad value", "unknown option"])
def test_a_bad_reload_changes_nothing_and_says_so(start_proxy, redis_server, change, words):
    config = {"server": {"threads": "2", "maxclients": "100"}, "cache": {"maxmemory": "64mb"}}
    proxy = start_proxy(redis_server.url(), config=config)
    with proxy.client() as client:
        client.ok("SET", "k", "v")
        client.ok("GET", "k")
        merged = {section: {**options, **change.get(section, {})}
                  for section, options in config.items()}
        proxy.write_config(merged)
        reload(proxy, "config_reload_failures_total")
        metrics = proxy.metrics()
        assert metrics.get("memory_limit_bytes") == 64 << 20 and metrics.get("max_clients") == 100
        assert metrics.get("config_reloads_total") == 0
        for word in words:
            assert word in proxy.log()
        hits = metrics.get("hits_total")
        assert client.ok("GET", "k") == b"v" and proxy.metrics().get("hits_total") == hits + 1
        # And the next good one is taken.
        config["server"]["maxclients"] = "60"
        proxy.write_config(config)
        reload(proxy, "config_reloads_total")
        assert proxy.metrics().get("max_clients") == 60


def test_reloads_under_load(start_proxy, redis_server):
    config = {"cache": {"maxmemory": "64mb"}}
    proxy = start_proxy(redis_server.url(), config=config)
    stop, wrong = threading.Event(), []

    def load(number):
        with proxy.client() as client:
            while not stop.is_set():
                client.ok("SET", f"k{number}", "v")
                if client.ok("GET", f"k{number}") != b"v" or client.ok("GET", "none") is not None:
                    wrong.append(number)

    threads = [threading.Thread(target=load, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for number in range(15):
        config[f'namespace "n{number % 4}"'] = {"match": f"k{number % 4}*",
                                                  "max-ttl": f"{1 + number}s"}
        proxy.write_config(config)
        reload(proxy, "config_reloads_total")
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong


# --- the end --------------------------------------------------------------------------------------

def test_sigterm_finishes_what_is_under_way(start_proxy, start_redis):
    server = start_redis()
    proxy = start_proxy(server.url(), {"request-timeout": "20s", "link-timeout": "30s",
                                       "drain-timeout": "20s", "flight-timeout": "20s"})
    with proxy.client() as waiting, proxy.client() as idle:
        idle.ok("PING")
        waiting.ok("SET", "k", "v")
        server.pause()
        waiting.send(encode("INCR", "n") + encode("GET", "k2"))
        time.sleep(0.1)
        proxy.signal(signal.SIGTERM)
        wait_until(lambda: not accepts(proxy.address), 10, "the listener to be closed")
        assert proxy.process.poll() is None
        server.resume()
        assert decode(waiting.read()) == 1 and decode(waiting.read()) is None
    assert proxy.wait_exit() == 0
    assert "drain" in proxy.log()


def accepts(address):
    try:
        with RawClient(address) as client:
            return client.ask("PING") == b"+PONG\r\n"
    except (OSError, EOFError):
        return False


def test_the_drain_ends_at_its_limit(start_proxy, start_redis):
    server = start_redis()
    proxy = start_proxy(server.url(), {"request-timeout": "60s", "link-timeout": "60s",
                                       "drain-timeout": "500ms"})
    with proxy.client() as waiting:
        server.pause()
        waiting.send(encode("INCR", "n"))
        time.sleep(0.1)
        proxy.signal(signal.SIGTERM)
        assert proxy.wait_exit(10) == 0
    server.resume()


def test_a_second_signal_ends_at_once(start_proxy, start_redis):
    server = start_redis()
    proxy = start_proxy(server.url(), {"request-timeout": "60s", "link-timeout": "60s",
                                       "drain-timeout": "60s"})
    with proxy.client() as waiting:
        server.pause()
        waiting.send(encode("INCR", "n"))
        time.sleep(0.1)
        proxy.signal(signal.SIGTERM)
        wait_until(lambda: not accepts(proxy.address), 10, "the listener to be closed")
        assert proxy.process.poll() is None
        proxy.signal(signal.SIGTERM)
        proxy.wait_exit(5)
    server.resume()


def test_an_end_in_peace_warns_of_nothing(start_proxy, redis_server):
    proxy = start_proxy(redis_server.url())
    with proxy.client() as client:
        client.ok("SET", "k", "v")
        assert client.ask("GET", "k") == b"$1\r\nv\r\n"
    proxy.signal(signal.SIGTERM)
    assert proxy.wait_exit() == 0
    end = proxy.log().split('msg="told to stop"')[1]
    assert 'msg="stopped"' in end
    assert "level=warn" not in end and "level=error" not in end, end


def test_idle_clients_do_not_hold_up_the_end(start_proxy, redis_server):
    proxy = start_proxy(redis_server.url(), {"drain-timeout": "60s"})
    clients = [proxy.client() for _ in range(20)]
    for client in clients:
        client.ok("PING")
    proxy.signal(signal.SIGINT)
    assert proxy.wait_exit(10) == 0
    for client in clients:
        assert client.read_all(5) == b""
        client.close()


# --- CACHE ----------------------------------------------------------------------------------------

def test_cache_help_info_stats(proxy):
    with proxy.client() as client:
        text = cache(client, "HELP")
        for word in ("HELP", "INFO", "STATS", "GET", "INVALIDATE", "CLEAR"):
            assert word in text.upper()
        assert "tracking" in cache(client, "INFO")
        assert "default" in cache(client, "STATS") or "hits" in cache(client, "STATS")
        assert str(client.value("CACHE")).startswith("ERR wrong number")
        assert str(client.value("CACHE", "NOSUCH")).startswith("ERR ")
    with proxy.client(3) as client:
        for subcommand in ("HELP", "INFO", "STATS"):
            client.ok("CACHE", subcommand)


def test_cache_get_tells_what_tier_1_holds(proxy):
    with proxy.client() as client:
        assert "default" in cache(client, "GET", "h")
        client.ok("HSET", "h", "f", "v", "g", "w")
        client.ok("EXPIRE", "h", 1000)
        for _ in range(3):
            client.ok("HGET", "h", "f")
            client.ok("HGETALL", "h")
        text = cache(client, "GET", "h").lower()
        assert "hget" in text and "hgetall" in text and "default" in text
        client.ok("HSET", "h", "f", "x")
        text = cache(client, "GET", "h").lower()
        assert "hgetall" not in text


def test_cache_invalidate_and_clear_count(start_proxy, redis_server):
    proxy = start_proxy(redis_server.url(), config={
        "cache": {"max-ttl": "1h"}, 'namespace "user"': {"match": "user:*"}})
    with proxy.client() as client, redis_server.client() as direct:
        keys = [f"user:{number}" for number in range(4)]
        keys += [f"other:{number}" for number in range(3)]
        for key in keys:
            client.ok("SET", key, "v")

        def fill():
            for key in keys:
                assert client.ok("GET", key) == b"v"

        fill()
        assert client.ok("CACHE", "INVALIDATE", "user:0", "other:1", "nobody") == 2
        assert client.ok("CACHE", "INVALIDATE", "user:0") == 0
        fill()
        assert client.ok("CACHE", "CLEAR", "user") == 4
        assert client.ok("CACHE", "CLEAR", "user") == 0
        fill()
        assert client.ok("CACHE", "CLEAR") == 7
        wait_until(lambda: proxy.metrics().get("entries") == 0, 10, "the entries to go")
        assert isinstance(client.value("CACHE", "CLEAR", "nosuch"), RespError)
        fill()
        assert direct.ok("GET", "user:0") == b"v"


def test_cache_commands_switched_off(start_proxy, redis_server):
    proxy = start_proxy(redis_server.url(), {"cache-command": "off"})
    with proxy.client() as client:
        client.ok("SET", "k", "v")
        client.ok("GET", "k")
        for command in (("CACHE", "INVALIDATE", "k"), ("CACHE", "CLEAR")):
            assert isinstance(client.value(*command), RespError)
        assert proxy.metrics().get("entries") == 1
        cache(client, "INFO")


def test_cache_commands_behind_a_password(start_proxy, redis_server):
    proxy = start_proxy(redis_server.url(), {"cache-command": "password",
                                             "cache-password": "open"})
    with proxy.client() as client, proxy.client() as other:
        client.ok("SET", "k", "v")
        client.ok("GET", "k")
        assert isinstance(client.value("CACHE", "CLEAR"), RespError)
        assert isinstance(client.value("CACHE", "AUTH", "wrong"), RespError)
        assert isinstance(client.value("CACHE", "INVALIDATE", "k"), RespError)
        cache(client, "INFO")
        assert client.ok("CACHE", "AUTH", "open") == b"OK"
        assert client.ok("CACHE", "INVALIDATE", "k") == 1
        assert isinstance(other.value("CACHE", "CLEAR"), RespError)


# --- namespaces -----------------------------------------------------------------------------------

NAMESPACES = {
    "cache": {"negative-ttl": "1h", "max-ttl": "1h"},
    'namespace "bypass"': {"match": "b:*", "cache": "off"},
    'namespace "short"': {"match": "s:*", "max-ttl": "300ms"},
    'namespace "longer"': {"match": "s:long:*", "max-ttl": "1h"},
    'namespace "nonegative"': {"match": "n:*", "negative-ttl": "0"},
    'namespace "negative"': {"match": "m:*", "negative-ttl": "300ms"},
    'namespace "small"': {"match": "v:*", "max-value": "100"},
}


@pytest.fixture
def spaces(start_proxy, redis_server):
    proxy = start_proxy(redis_server.url(), config=NAMESPACES)
    with proxy.client() as client:
        yield proxy, client


def reads(proxy, client, key, namespace, times=4):
    """(hits, replies) of reading key some times."""
    before = proxy.metrics().get("hits_total", namespace=namespace)
    replies = [client.ok("GET", key) for _ in range(times)]
    return proxy.metrics().get("hits_total", namespace=namespace) - before, replies


def test_namespaces_cache_or_bypass(spaces):
    proxy, client = spaces
    for key, namespace, hits in (("b:1", "bypass", 0), ("plain", "default", 3),
                                 ("s:long:1", "longer", 3)):
        client.ok("SET", key, "v")
        assert reads(proxy, client, key, namespace) == (hits, [b"v"] * 4)
    assert proxy.metrics().get("bypassed_total", namespace="bypass") == 4


def test_namespaces_cap_the_ttl(spaces):
    proxy, client = spaces
    client.ok("SET", "s:1", "v")
    client.ok("GET", "s:1")
    assert "short" in cache(client, "GET", "s:1")

    def expired():
        before = proxy.metrics().get("misses_total", namespace="short", reason="expired")
        time.sleep(0.35)
        client.ok("GET", "s:1")
        return proxy.metrics().get("misses_total", namespace="short", reason="expired") > before

    wait_until(expired, 10, "the entry to expire")
    client.ok("SET", "s:long:1", "v")
    client.ok("GET", "s:long:1")
    time.sleep(0.4)
    assert reads(proxy, client, "s:long:1", "longer", 2)[0] == 2


def test_namespaces_cap_negative_entries(spaces):
    proxy, client = spaces
    assert reads(proxy, client, "n:none", "nonegative") == (0, [None] * 4)
    assert reads(proxy, client, "none", "default") == (3, [None] * 4)

    def expired():
        client.ok("GET", "m:none")
        before = proxy.metrics().get("misses_total", namespace="negative", reason="expired")
        time.sleep(0.35)
        client.ok("GET", "m:none")
        return proxy.metrics().get("misses_total", namespace="negative", reason="expired") > before

    wait_until(expired, 10, "the negative entry to expire")


def test_namespaces_cap_the_value(spaces):
    proxy, client = spaces
    client.ok("SET", "v:small", "x" * 50)
    client.ok("SET", "v:large", "x" * 500)
    client.ok("SET", "large", "x" * 500)
    assert reads(proxy, client, "v:small", "small")[0] == 3
    assert reads(proxy, client, "v:large", "small") == (0, [b"x" * 500] * 4)
    assert reads(proxy, client, "large", "default")[0] == 3
    assert proxy.metrics().get("fills_refused_total", namespace="small", reason="too-large") >= 1


# --- a backend without tracking -------------------------------------------------------------------

def test_a_user_without_tracking_gets_ttl_mode_and_comes_back(start_proxy, start_redis):
    server = start_redis()
    server.ask("ACL", "SETUSER", "app", "on", ">pw", "~*", "&*", "+@all", "-client|tracking")
    proxy = start_proxy(f"redis://app:pw@127.0.0.1:{server.port}",
                        {"ttl-mode-max": "400ms", "bus": "off", **FAST})
    with proxy.client() as client, server.client() as direct:
        wait_until(lambda: proxy.metrics().get("coherence_tracking") == 0, 10, "ttl mode")
        assert proxy.metrics().get("staleness_bound_seconds") == pytest.approx(0.4)
        assert "ttl" in client.ok("INFO", "nearcached").decode()
        assert "ttl" in cache(client, "INFO")
        assert "level=warn" in proxy.log() and "tracking" in proxy.log()
        direct.ok("SET", "k", "old")

        def is_hit():
            before = proxy.metrics().get("hits_total")
            client.ok("GET", "k")
            client.ok("GET", "k")
            return proxy.metrics().get("hits_total") > before

        wait_until(is_hit, 10, "hits in ttl mode")
        direct.ok("SET", "k", "new")
        written = time.monotonic()
        wait_until(lambda: client.ok("GET", "k") == b"new", 10, "the new value")
        assert time.monotonic() - written < 5
        # Its own writes are seen at once in any mode.
        for number in range(50):
            client.ok("SET", "own", number)
            assert client.ok("GET", "own") == str(number).encode()
        direct.ok("ACL", "SETUSER", "app", "+client|tracking")
        wait_until(lambda: proxy.metrics().get("coherence_tracking") == 1, 40, "tracking mode")
        assert proxy.metrics().get("staleness_bound_seconds") == pytest.approx(1)
        # Not bounded by the short time any more: a value stays, and an invalidation arrives.
        client.ok("GET", "k")
        time.sleep(0.5)
        before = proxy.metrics().get("hits_total")
        client.ok("GET", "k")
        assert proxy.metrics().get("hits_total") == before + 1
        direct.ok("SET", "k", "newest")
        wait_until(lambda: client.ok("GET", "k") == b"newest", 5, "the invalidation")


def test_tracking_demanded_from_a_backend_without_it(start_proxy, start_redis):
    """coherence = tracking never serves what nothing keeps coherent."""
    server = start_redis()
    server.ask("ACL", "SETUSER", "app", "on", ">pw", "~*", "&*", "+@all", "-client|tracking")
    proxy = start_proxy(f"redis://app:pw@127.0.0.1:{server.port}",
                        {"coherence": "tracking", **FAST}, wait="alive")
    with proxy.client() as client, server.client() as direct:
        for number in range(20):
            direct.ok("SET", "k", number)
            value = client.value("GET", "k")
            assert isinstance(value, RespError) or value == str(number).encode()


# --- logs -----------------------------------------------------------------------------------------

@pytest.mark.parametrize("form", ["logfmt", "json"])
def test_log_lines(start_proxy, redis_server, form):
    proxy = start_proxy(redis_server.url(), {"log-format": form, "log-level": "debug"})
    with proxy.client() as client:
        client.ok("SET", "the-key", "the-value")
        client.ok("GET", "the-key")
    proxy.stop()
    lines = [line for line in proxy.log().splitlines() if line]
    assert len(lines) >= 3
    for line in lines:
        if form == "json":
            fields = json.loads(line)
            assert {"ts", "level", "mod", "msg"} <= set(fields), line
        else:
            assert re.match(r'ts=\S+Z level=(error|warn|info|debug) mod=\w+ (worker=\d+ )?msg=',
                            line), line
    assert "the-value" not in proxy.log()


def test_an_admin_port_that_is_taken_ends_the_start_in_order():
    """It is opened when the workers run already: nothing may be taken from under them."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for _ in range(5):
            done = run_binary("--listen", f"127.0.0.1:{free_port()}", "--backend",
                              "redis://127.0.0.1:1", "--admin",
                              f"127.0.0.1:{taken.getsockname()[1]}")
            assert done.returncode == 1, done.stderr
            assert "cannot listen: Address already in use" in done.stderr


def test_config_text_is_what_inih_reads():
    assert config_text({"a": {"b": 1}, 'namespace "x"': {"match": "x:*"}}) == (
        '[a]\nb = 1\n\n[namespace "x"]\nmatch = x:*\n')


def test_a_server_without_hello_is_cached_by_time(start_proxy, start_redis, tmp_path):
    """As Redis before 6: RESP2 and no tracking, so `ttl` mode."""
    (tmp_path / "no-hello.conf").write_text('rename-command HELLO ""\n')
    server = start_redis(options=[("include", tmp_path / "no-hello.conf")])
    old = start_proxy(server.url(), {"ttl-mode-max": "1m"})
    with old.client() as client:
        client.ok("SET", "k", "v")
        client.ok("HSET", "h", "f", "v")
        client.ok("ZADD", "z", "1.5", "m")
        for command in (("GET", "k"), ("GET", "none"), ("HGETALL", "h"), ("ZSCORE", "z", "m"),
                        ("LRANGE", "none", 0, -1), ("MGET", "k", "none")):
            with server.client() as direct:
                expected = direct.ask(*command)
            assert client.ask(*command) == expected
            assert client.ask(*command) == expected
    assert old.metrics().get("hits_total") >= 5
    assert old.metrics().get("coherence_tracking") == 0


def test_a_server_that_is_full_says_so(start_proxy, start_redis):
    server = start_redis()
    own = start_proxy(server.url())
    server.ask("CONFIG", "SET", "maxclients", "1")
    server.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    with own.client() as client:
        def is_told():
            return b"max number of clients reached" in client.ask("SET", "k", "v")
        wait_until(is_told, 10, "the server's words")
    server.ask("CONFIG", "SET", "maxclients", "100")


def test_it_ends_while_metrics_are_asked_for(start_proxy, redis_server):
    """The workers' answers to some of the requests come home when most of it has gone."""
    proxy = start_proxy(redis_server.url())
    scrapers = [socket.create_connection(proxy.admin_address) for _ in range(40)]
    for scraper in scrapers:
        scraper.sendall(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n" * 20)
    proxy.stop()
    for scraper in scrapers:
        scraper.close()
