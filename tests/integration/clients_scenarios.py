"""Client libraries as they are: each runs a scenario of its own (tests/clients/) against plain Redis,
which shows that the scenario is right, and through the proxy in front of a server and of a cluster.
Those that insist on a cluster find the proxy presenting itself as one."""

import functools
import os
import pathlib
import re
import shutil
import subprocess

import pytest

from harness.proxy import Proxy, clean_environment
from harness.servers import ROOT, key_slot
from harness.waiting import SCALE, wait_until

PROGRAMS = ROOT / "tests" / "clients"
PYTHON = "/usr/bin/python3" if os.path.exists("/usr/bin/python3") else "python3"
# name: (command, arguments). What a name stands for is installed by scripts/install-deps.sh and
# `make clients`.
CLIENTS = {
    "redis-py": ([PYTHON, "-B", "python/redis_py.py"], []),
    "redis-cli": (["bash", "shell/redis-cli.sh"], []),
    "redis-cli -3": (["bash", "shell/redis-cli.sh"], ["--resp", "3"]),
    "php-redis": (["php", "php/scenario.php"], []),
    "ruby-redis": (["ruby", "ruby/scenario.rb"], []),
    "libredis-perl": (["perl", "perl/scenario.pl"], []),
    "ioredis": (["node", "node/ioredis.js"], []),
    "node-redis RESP2": (["node", "node/node-redis.js"], ["--resp", "2"]),
    "node-redis RESP3": (["node", "node/node-redis.js"], ["--resp", "3"]),
    "bullmq": (["node", "node/bullmq.js"], []),
}
CLUSTER_CLIENTS = {
    "redis-py RedisCluster": ([PYTHON, "-B", "python/redis_py.py"], ["--as-cluster"]),
    "ioredis.Cluster": (["node", "node/ioredis.js"], ["--as-cluster"]),
    "bullmq on ioredis.Cluster": (["node", "node/bullmq.js"], ["--as-cluster"]),
}
PROBES = {
    PYTHON: [PYTHON, "-c", "import redis.cluster"],
    "bash": ["redis-cli", "--version"],
    "php": ["php", "-r", "exit(extension_loaded('redis') && extension_loaded('pcntl') ? 0 : 1);"],
    "ruby": ["ruby", "-rredis", "-e", "exit"],
    "perl": ["perl", "-MRedis", "-e", "exit"],
    "node": ["node", "-e", "['ioredis', 'redis', 'bullmq'].forEach((name) => require(name))"],
}


@functools.lru_cache(maxsize=None)
def lacking(program):
    """Why clients of this program cannot run here, or None."""
    probe = PROBES[program]
    if shutil.which(probe[0]) is None:
        return f"{probe[0]} is not installed (scripts/install-deps.sh test)"
    done = subprocess.run(probe, cwd=PROGRAMS, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return (f"the {program} client library cannot be loaded (scripts/install-deps.sh test, "
                f"make clients): {' '.join(done.stderr.split())[:200]}")
    return None


def run_scenario(client, port, around, tag, *, is_cluster):
    """Runs all sub-scenarios; the program's lines say which of them failed."""
    (program, path), arguments = (client[0][0], client[0][1:]), client[1]
    reason = lacking(program)
    if reason:
        pytest.skip(reason)
    command = [program, *path]
    environment = clean_environment({"NEARCACHED_STEP_MS": str(int(10000 * SCALE))})
    steps = subprocess.run(command + ["--list"], cwd=PROGRAMS, env=environment, text=True,
                           capture_output=True, timeout=30 * SCALE, check=True).stdout.split()
    command += ["--port", str(port), "--around", str(around), "--tag", tag, *arguments]
    command += ["--cluster"] if is_cluster else []
    done = subprocess.run(command, cwd=PROGRAMS, env=environment, capture_output=True, text=True,
                          timeout=120 * SCALE, check=False)
    failed = [line for line in done.stdout.splitlines() if not line.startswith("ok ")]
    report = "\n".join([" ".join(command), *failed, done.stderr[-2000:]])
    assert not failed and done.returncode == 0, report
    assert sorted(done.stdout.split()[1::2]) == sorted(steps), report


def tag_of(name):
    return re.sub(r"\W", "", name)


def node_of(cluster, tag):
    """The port of the master that has the keys with this tag: around the proxy means there."""
    slot = key_slot(tag)
    return next(node.port for node in cluster.masters()
                if any(first <= slot <= last for first, last in slots_of(node)))


def slots_of(node):
    own = node.ask("CLUSTER", "MYID")
    return [(first, last) for first, last, master, *_ in node.ask("CLUSTER", "SLOTS")
            if master[2] == own]


@pytest.mark.parametrize("target", ["redis", "proxy", "proxy of a cluster"])
@pytest.mark.parametrize("name", CLIENTS)
def test_client(request, name, target):
    tag = tag_of(name)
    if target == "redis":
        server = request.getfixturevalue("reference")
        port = around = server.port
    elif target == "proxy":
        around = request.getfixturevalue("redis_server").port
        port = request.getfixturevalue("proxy").address[1]
    else:
        around = node_of(request.getfixturevalue("cluster"), tag)
        proxy = request.getfixturevalue("cluster_proxy")
        if proxy.is_fake:
            pytest.skip("NEARCACHED_FAKE=redis: there is no proxy")
        port = proxy.port
    run_scenario(CLIENTS[name], port, around, tag, is_cluster=target.endswith("cluster"))


def presented(servers, backend, kind):
    proxy = servers.get(f"presented-{kind}", lambda directory: Proxy(
        directory, backend.url(), {"present-as": "cluster"}))
    wait_until(proxy.is_ready, 15, "the proxy to be ready")
    with proxy.client() as client:
        wait_until(lambda: client.ask("FLUSHALL") == b"+OK\r\n", 10, "FLUSHALL")
    return proxy


@pytest.mark.needs_proxy
@pytest.mark.parametrize("target", ["cluster", "proxy", "proxy of a cluster"])
@pytest.mark.parametrize("name", CLUSTER_CLIENTS)
def test_client_that_insists_on_a_cluster(request, _session_servers, name, target):
    tag = tag_of(name)
    if target == "proxy":
        server = request.getfixturevalue("redis_server")
        around = server.port
        proxy = presented(_session_servers, server, "server")
    else:
        cluster = request.getfixturevalue("cluster")
        around = node_of(cluster, tag)
        proxy = None if target == "cluster" else presented(_session_servers, cluster, "cluster")
    port = cluster.masters()[0].port if proxy is None else proxy.port
    run_scenario(CLUSTER_CLIENTS[name], port, around, tag, is_cluster=True)
    if proxy is not None:
        proxy.assert_healthy()


def test_the_pins_are_whole():
    """Exact versions, no host of a registry, and programs that exist."""
    lock = (PROGRAMS / "package-lock.json").read_text(encoding="utf-8")
    assert '"resolved"' not in lock
    package = (PROGRAMS / "package.json").read_text(encoding="utf-8")
    pins = re.findall(r'"(?:ioredis|redis|bullmq)": "(.*)"', package)
    assert len(pins) == 3 and all(re.fullmatch(r"\d+\.\d+\.\d+", pin) for pin in pins)
    for command, _ in [*CLIENTS.values(), *CLUSTER_CLIENTS.values()]:
        assert pathlib.Path(PROGRAMS / command[-1]).exists()
