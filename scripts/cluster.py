#!/usr/bin/python3
"""cluster.py - a private Redis Cluster on free loopback ports

Starts redis-server processes in a directory of their own, joins them into a cluster and runs a
command in front of it, with NEARCACHED_BACKEND set to the cluster's URL. When the command ends, or
on Ctrl-C or SIGTERM, everything that was started ends with it. Without a command it prints the URL
and waits. Nothing is stored: persistence is off, and the directory is removed.

    scripts/cluster.py [--masters 3] [--replicas 0] [--dir DIR] [-- COMMAND ARGUMENT...]

The integration tests use the classes below. Standard library only, so that `make run` needs
nothing but redis-server. Processes must be started from the main thread: they die with the thread
that started them (PR_SET_PDEATHSIG), so that nothing is left behind even after a kill -9.
"""

import argparse
import ctypes
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

SLOTS = 16384
BUS_OFFSET = 10000
PR_SET_PDEATHSIG = 1

# Below the kernel's ephemeral range (from 32768), node and bus port alike, so that no outgoing
# connection takes a port between the moment it was found free and the moment it is bound.
PORT_FIRST, PORT_LAST = 11000, 22000

_handed_out = set()
_random = random.Random(os.getpid() ^ time.time_ns())
_libc = ctypes.CDLL(None, use_errno=True)


class ReplyError(Exception):
    """An error reply; str() is its text without the leading dash."""


def can_bind(port):
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_port(with_bus=False):
    """A TCP port of 127.0.0.1 that nobody listens on; with_bus: port + 10000 is free as well."""
    for _ in range(10000):
        port = _random.randrange(PORT_FIRST, PORT_LAST)
        wanted = {port, port + BUS_OFFSET} if with_bus else {port}
        if wanted & _handed_out or not all(can_bind(each) for each in wanted):
            continue
        _handed_out.update(wanted)
        return port
    raise RuntimeError(f"no free port between {PORT_FIRST} and {PORT_LAST}")


def wait_for(condition, seconds, what):
    """Asks condition() until it is true; RuntimeError naming `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
            reason = "it is not so"
        except (OSError, ReplyError) as error:
            reason = str(error)
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited {seconds} s for {what}: {reason}")
        time.sleep(0.02)


class Connection:
    """A blocking RESP2 connection for control commands."""

    def __init__(self, address, password=None, timeout=5.0):
        if isinstance(address, str):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._socket.settimeout(timeout)
            self._socket.connect(address)
        else:
            self._socket = socket.create_connection(address, timeout=timeout)
        self._file = self._socket.makefile("rb")
        if password:
            self.ask("AUTH", password)

    def close(self):
        self._file.close()
        self._socket.close()

    def ask(self, *args):
        """Sends one command; its reply as bytes, int, None or list. ReplyError for an error."""
        parts = [arg if isinstance(arg, bytes) else str(arg).encode() for arg in args]
        request = b"*%d\r\n" % len(parts)
        request += b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
        self._socket.sendall(request)
        reply = self._read()
        if isinstance(reply, ReplyError):
            raise reply
        return reply

    def _read(self):
        line = self._file.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("connection closed")
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest
        if kind == b"-":
            return ReplyError(rest.decode(errors="replace"))
        if kind == b":":
            return int(rest)
        if kind == b"$":
            if rest == b"-1":
                return None
            return self._file.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return None if rest == b"-1" else [self._read() for _ in range(int(rest))]
        raise ConnectionError(f"not RESP2: {line!r}")


def die_with_parent():
    """For preexec_fn: the child is killed when the thread that started it ends."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class RedisProcess:
    """One redis-server on 127.0.0.1:port (and optionally a Unix socket), without persistence.

    options are (name, value) pairs of its configuration. The process is in a session of its own:
    a Ctrl-C at the terminal reaches only its owner, which then stops it in order.
    """

    def __init__(self, directory, options=(), *, port=None, password=None, cluster=False,
                 binary="redis-server"):
        self.port = port or free_port(with_bus=cluster)
        self.address = ("127.0.0.1", self.port)
        self.password = password
        self.directory = str(directory)
        self.binary = binary
        self.process = None
        self.is_paused = False
        self._connection = None
        self._options = [
            ("port", self.port), ("bind", "127.0.0.1"), ("protected-mode", "no"), ("save", ""),
            ("appendonly", "no"), ("daemonize", "no"), ("dir", self.directory),
            ("logfile", "redis.log"), ("repl-diskless-sync", "yes"),
            ("repl-diskless-sync-delay", "0"),
        ]
        if cluster:
            self._options += [("cluster-enabled", "yes"), ("cluster-config-file", "nodes.conf")]
        if password:
            self._options += [("requirepass", password), ("masterauth", password)]
        self._options += list(options)

    def start(self):
        os.makedirs(self.directory, exist_ok=True)
        command = [self.binary]
        for name, value in self._options:
            command += ["--" + name, str(value)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True, preexec_fn=die_with_parent)
        self.is_paused = False
        try:
            wait_for(self._is_answering, 20, f"redis-server on port {self.port}")
        except RuntimeError as error:
            self.kill()
            raise RuntimeError(f"{error}\n{self.log_tail()}") from None
        return self

    def _is_answering(self):
        if self.process.poll() is not None:
            raise RuntimeError(
                f"redis-server ended with status {self.process.returncode}\n{self.log_tail()}")
        return self.ask("PING") == b"PONG"

    def log_tail(self, size=3000):
        try:
            with open(os.path.join(self.directory, "redis.log"), "rb") as log:
                return log.read()[-size:].decode(errors="replace")
        except OSError:
            return ""

    def ask(self, *args):
        """One control command. A lost connection is opened again for the next one."""
        if self._connection is None:
            self._connection = Connection(self.address, self.password)
        try:
            return self._connection.ask(*args)
        except OSError:
            self.disconnect()
            raise

    def disconnect(self):
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def info(self, section):
        """INFO <section> as a dictionary of texts."""
        lines = self.ask("INFO", section).decode().splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def is_running(self):
        return self.process is not None and self.process.poll() is None

    def pause(self):
        self.process.send_signal(signal.SIGSTOP)
        self.is_paused = True

    def resume(self):
        self.process.send_signal(signal.SIGCONT)
        self.is_paused = False

    def kill(self):
        """kill -9."""
        self.disconnect()
        if self.is_running():
            self.process.kill()
        if self.process is not None:
            self.process.wait()

    def stop(self):
        self.disconnect()
        if self.is_running():
            if self.is_paused:
                self.resume()
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Cluster:
    """A Redis Cluster of private processes; roles may move between the nodes while it runs."""

    def __init__(self, directory, masters=3, replicas=0, *, node_timeout_ms=2000, options=(),
                 binary="redis-server"):
        self.n_masters = masters
        self.node_timeout_ms = node_timeout_ms
        options = [("cluster-node-timeout", node_timeout_ms)] + list(options)
        self.nodes = [
            RedisProcess(os.path.join(str(directory), f"node{number}"), options, cluster=True,
                         binary=binary)
            for number in range(masters * (1 + replicas))]

    def start(self):
        try:
            for node in self.nodes:
                node.start()
            self._join()
        except BaseException:
            self.stop()
            raise
        return self

    def _join(self):
        """Everybody meets everybody, which is faster than waiting for gossip to spread."""
        masters, replicas = self.nodes[:self.n_masters], self.nodes[self.n_masters:]
        for number, node in enumerate(self.nodes):
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for number, node in enumerate(masters):
            first = SLOTS * number // len(masters)
            last = SLOTS * (number + 1) // len(masters) - 1
            node.ask("CLUSTER", "ADDSLOTSRANGE", first, last)
        for number, node in enumerate(self.nodes):
            for other in self.nodes[number + 1:]:
                node.ask("CLUSTER", "MEET", "127.0.0.1", other.port)
        wait_for(self._all_have_met, 30, "the nodes to meet")
        for number, node in enumerate(replicas):
            node.ask("CLUSTER", "REPLICATE", self.node_id(masters[number % len(masters)]))
        self.wait_ready()

    def _all_have_met(self):
        for node in self.nodes:
            lines = node.ask("CLUSTER", "NODES").decode().splitlines()
            if len(lines) != len(self.nodes) or any("handshake" in line for line in lines):
                return False
        return True

    def wait_ready(self, seconds=40):
        wait_for(self.is_ready, seconds, "the cluster to be complete")

    def is_ready(self):
        """Every node runs, agrees on the owner of every slot, and replicas follow their masters."""
        views = set()
        for node in self.nodes:
            info = node.ask("CLUSTER", "INFO").decode()
            if "cluster_state:ok" not in info or f"cluster_size:{self.n_masters}\r" not in info:
                return False
            role = node.info("replication")
            if role["role"] == "slave" and role["master_link_status"] != "up":
                return False
            views.add(tuple(sorted((first, last, master[1]) for first, last, master, *_
                                   in node.ask("CLUSTER", "SLOTS"))))
        masters = [node for node in self.nodes if node.info("replication")["role"] == "master"]
        n_replicas = sum(int(node.info("replication")["connected_slaves"]) for node in masters)
        return len(views) == 1 and len(masters) + n_replicas == len(self.nodes)

    @staticmethod
    def node_id(node):
        return node.ask("CLUSTER", "MYID").decode()

    def url(self):
        return "redis://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def running(self):
        return [node for node in self.nodes if node.is_running() and not node.is_paused]

    def slot_owners(self, ask=None):
        """[(first, last, node)] as one running node (or `ask`) sees it."""
        ports = {node.port: node for node in self.nodes}
        slots = (ask or self.running()[0]).ask("CLUSTER", "SLOTS")
        return [(first, last, ports[master[1]]) for first, last, master, *_ in slots]

    def owner(self, slot, ask=None):
        for first, last, node in self.slot_owners(ask):
            if first <= slot <= last:
                return node
        return None

    def masters(self):
        """Nodes that own slots, in the order of the nodes."""
        owners = [node for _, _, node in self.slot_owners()]
        return [node for node in self.nodes if node in owners]

    def replicas_of(self, master):
        """Running replicas that follow this master."""
        return [node for node in self.running() if node is not master
                and node.info("replication").get("master_port") == str(master.port)]

    def move_slot(self, slot, target, between=lambda: None):
        """Migrates one slot with its keys. between() is called after each step on the way."""
        source = self.owner(slot)
        if source is target:
            return
        target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", self.node_id(source))
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", self.node_id(target))
        between()
        while True:
            keys = source.ask("CLUSTER", "GETKEYSINSLOT", slot, 10)
            if not keys:
                break
            source.ask("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
            between()
        target.ask("CLUSTER", "SETSLOT", slot, "NODE", self.node_id(target))
        source.ask("CLUSTER", "SETSLOT", slot, "NODE", self.node_id(target))
        for node in self.masters():
            if node is not target and node is not source:
                node.ask("CLUSTER", "SETSLOT", slot, "NODE", self.node_id(target))
        between()

    def heal(self):
        """Resumes what is paused, restarts what is dead and waits until all is well again."""
        for node in self.nodes:
            if node.is_running() and node.is_paused:
                node.resume()
            node.disconnect()
            if not node.is_running():
                node.start()
        self.wait_ready()

    def stop(self):
        for node in self.nodes:
            node.kill()


def _run_in_front(command, url):
    """Runs the command, passes SIGTERM on to it, and returns its exit status."""
    child = subprocess.Popen(command, env=dict(os.environ, NEARCACHED_BACKEND=url))
    # A Ctrl-C reaches the command by itself, being in the same foreground process group.
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    status = child.wait()
    return 128 - status if status < 0 else status


def main():
    parser = argparse.ArgumentParser(
        description="Runs a command in front of a private Redis Cluster on loopback.")
    parser.add_argument("--masters", type=int, default=3, help="masters (default 3)")
    parser.add_argument("--replicas", type=int, default=0, help="replicas per master (default 0)")
    parser.add_argument("--dir", help="where the nodes keep their files (default: a temporary one)")
    parser.add_argument("--redis-server", default="redis-server", help="the server to start")
    parser.add_argument("command", nargs="*", help="what to run; NEARCACHED_BACKEND is set for it")
    options = parser.parse_args()
    if shutil.which(options.redis_server) is None:
        sys.exit(f"cluster.py: {options.redis_server} not found"
                 " (Debian: apt-get install redis-server)")

    def interrupt(*_):
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    directory = options.dir or tempfile.mkdtemp(prefix="nearcached-cluster-")
    cluster = Cluster(directory, options.masters, options.replicas, node_timeout_ms=5000,
                      binary=options.redis_server)
    status = 0
    try:
        cluster.start()
        ports = " ".join(str(node.port) for node in cluster.nodes)
        print(f"cluster: {options.masters} masters on 127.0.0.1, ports {ports}", flush=True)
        if options.command:
            status = _run_in_front(options.command, cluster.url())
        else:
            print(cluster.url(), flush=True)
            signal.pause()
    except KeyboardInterrupt:
        pass
    except (RuntimeError, OSError) as error:
        print(f"cluster.py: {error}", file=sys.stderr)
        status = 1
    finally:
        cluster.stop()
        if not options.dir:
            shutil.rmtree(directory, ignore_errors=True)
    sys.exit(status)


if __name__ == "__main__":
    main()
