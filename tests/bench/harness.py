"""harness.py - what the benchmarks stand on: processes, cores, CPU time, memory, the generators

Servers are started with the helpers of scripts/cluster.py, die with this process, and live in a
temporary directory. CPU time and memory are the operating system's own figures from /proc.
"""

import contextlib
import http.client
import os
import platform
import shutil
import socket
import subprocess
import sys
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(ROOT, "scripts"))

from cluster import (  # noqa: E402 (the path is set above)
    Cluster, Connection, RedisProcess, die_with_parent, free_port, wait_for)

__all__ = [
    "Cluster", "Failed", "FakeProxy", "Memcached", "Nearcached", "Nutcracker", "RedisProcess",
    "RssSampler", "Skipped", "Tools", "cpu_seconds", "have", "machine_facts", "on_cores",
    "pid_of", "read_logfmt", "rss_bytes", "wait_for", "address_of", "start_redis", "start_cluster"]

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


class Failed(Exception):
    """A measurement that could not be taken, or whose answers were wrong."""


class Skipped(Exception):
    """A measurement that this machine cannot take; the text says why."""


def have(program):
    """Debian keeps some daemons in sbin, which is not on every user's path."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin"
    return shutil.which(program, path=path)


# ---- cores ----

ALL_CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE = {ALL_CORES[0]}
CLIENT_CORE = {ALL_CORES[1]} if len(ALL_CORES) > 1 else {ALL_CORES[0]}
EVERYWHERE = set(ALL_CORES)


@contextlib.contextmanager
def on_cores(cores):
    """Processes started inside inherit these cores, all their threads included."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


# ---- the operating system's accounting ----

def pid_of(server):
    return server.process.pid


def cpu_seconds(pid):
    """User and system time of all threads.

    schedstat counts the same time as utime + stime of /proc/PID/stat, in nanoseconds instead of
    ticks of 10 ms; where the kernel lacks it, the ticks are taken.
    """
    try:
        total = 0
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/schedstat", encoding="ascii") as stat:
                total += int(stat.read().split()[0])
        if total:
            return total / 1e9
    except (FileNotFoundError, IndexError):
        pass
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


def rss_bytes(pid):
    with open(f"/proc/{pid}/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * PAGE


class RssSampler:
    """The largest resident size seen while it is entered, looked at every 20 ms."""

    def __init__(self, pid):
        self.pid = pid
        self.peak = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        while not self._stop.wait(0.02):
            with contextlib.suppress(OSError):
                self.peak = max(self.peak, rss_bytes(self.pid))

    def __enter__(self):
        self.peak = rss_bytes(self.pid)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()


def version_of(command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except OSError:
        return None
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[0] if lines else None


def machine_facts(nearcached):
    model = ""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as cpuinfo:
        model = next((line.split(":", 1)[1].strip() for line in cpuinfo
                      if line.startswith("model name")), "")
    return {
        "cores": len(ALL_CORES), "cpu": model, "kernel": platform.release(),
        "machine": platform.machine(), "load_average_at_start": os.getloadavg()[0],
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * PAGE,
        "python": platform.python_version(),
        "nearcached": version_of([nearcached, "--version"]),
        "redis-server": version_of(["redis-server", "--version"]),
        "nutcracker": version_of([have("nutcracker") or "nutcracker", "--version"]),
        "memcached": version_of(["memcached", "--version"]),
    }


# ---- servers ----

def address_of(server):
    return f"127.0.0.1:{server.port}"


def is_listening(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.5):
        return True
    return False


class Server:
    """A child process that listens on 127.0.0.1:port; subclasses say how it is started."""

    name = "server"

    def __init__(self, directory):
        self.port = free_port()
        self.directory = os.path.join(directory, f"{self.name}-{self.port}")
        os.makedirs(self.directory)
        self.log_path = os.path.join(self.directory, "log")
        self.process = None

    def command(self):
        raise NotImplementedError

    def is_ready(self):
        return is_listening(self.port)

    def start(self):
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, preexec_fn=die_with_parent)
        deadline = time.monotonic() + 20
        while not self.is_ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise Failed(f"{self.name} did not start:\n{self.log_tail()}")
            time.sleep(0.02)
        return self

    def log_tail(self):
        with open(self.log_path, "rb") as log:
            return log.read()[-2000:].decode(errors="replace")

    def stop(self):
        """Ends it and says with which status."""
        if self.process is None:
            return None
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        return self.process.returncode


class Nearcached(Server):
    """The subject. options are further (flag, value) pairs; config is the text of its file."""

    name = "nearcached"
    is_fake = False

    def __init__(self, directory, binary, backend, options=(), config=None):
        super().__init__(directory)
        self.binary = binary
        self.backend = backend
        self.admin_port = free_port()
        self.options = dict([("threads", 1), ("log-level", "warn")] + list(options))
        self.config_path = None
        if config is not None:
            self.config_path = os.path.join(self.directory, "nearcached.conf")
            with open(self.config_path, "w", encoding="utf-8") as file:
                file.write(config)

    def command(self):
        command = [self.binary]
        if self.config_path:
            command += ["--config", self.config_path]
        command += ["--backend", self.backend, "--listen", f"127.0.0.1:{self.port}",
                    "--admin", f"127.0.0.1:{self.admin_port}"]
        for name, value in self.options.items():
            command += ["--" + name, str(value)]
        return command

    def _get(self, path):
        connection = http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=5)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def is_ready(self):
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self._get("/readyz")[0] == 200
        return False

    def metrics(self):
        """Sums over labels: name without the prefix -> value."""
        values = {}
        for line in self._get("/metrics")[1].splitlines():
            if not line or line.startswith("#"):
                continue
            series, value = line.rsplit(" ", 1)
            name = series.split("{", 1)[0].removeprefix("nearcached_")
            values[name] = values.get(name, 0.0) + float(value)
        return values

    def cache_stats(self):
        """The lines "name:value" or pairs of CACHE STATS, as far as the values are numbers."""
        connection = Connection(("127.0.0.1", self.port))
        try:
            reply = connection.ask("CACHE", "STATS")
        finally:
            connection.close()
        if isinstance(reply, bytes):
            pairs = [line.split(":", 1) for line in reply.decode().splitlines() if ":" in line]
        else:
            texts = [item.decode() if isinstance(item, bytes) else str(item) for item in reply]
            pairs = zip(texts[::2], texts[1::2])
        stats = {}
        for name, value in pairs:
            with contextlib.suppress(ValueError):
                stats[name.strip()] = float(value)
        return stats


class FakeProxy(RedisProcess):
    """redis-server in the subject's place: the same benchmarks without a proxy.

    Every ratio must then be about 1, so it shows how much the machine's noise is worth; and it
    tests the benchmarks themselves.
    """

    is_fake = True

    def metrics(self):
        return {}

    def cache_stats(self):
        return {}


class Nutcracker(Server):
    """Debian's twemproxy: GET, SET, MGET and the like, one server behind."""

    name = "nutcracker"

    def __init__(self, directory, backend_port):
        super().__init__(directory)
        self.stats_port = free_port()
        self.config_path = os.path.join(self.directory, "nutcracker.yml")
        with open(self.config_path, "w", encoding="utf-8") as file:
            file.write(
                "bench:\n"
                f"  listen: 127.0.0.1:{self.port}\n"
                "  redis: true\n"
                "  hash: fnv1a_64\n"
                "  distribution: ketama\n"
                "  auto_eject_hosts: false\n"
                "  preconnect: true\n"
                "  backlog: 4096\n"
                "  servers:\n"
                f"   - 127.0.0.1:{backend_port}:1\n")

    def command(self):
        return [have("nutcracker"), "-c", self.config_path, "-s", str(self.stats_port),
                "-a", "127.0.0.1", "-p", os.path.join(self.directory, "pid"),
                "-o", os.path.join(self.directory, "nutcracker.log")]


class Memcached(Server):
    name = "memcached"

    def command(self):
        command = [have("memcached"), "-l", "127.0.0.1", "-p", str(self.port), "-U", "0",
                   "-m", "2048", "-t", "1"]
        return command + (["-u", "nobody"] if os.geteuid() == 0 else [])

    def preload(self, n_keys, value_bytes, ttl_s):
        """Pipelined sets without replies, then one that is answered: all have been done."""
        value = b"x" * value_bytes
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as connection:
            for first in range(0, n_keys, 5000):
                last = min(first + 5000, n_keys)
                connection.sendall(b"".join(
                    b"set key:%020d 0 %d %d noreply\r\n%b\r\n" % (number, ttl_s, value_bytes, value)
                    for number in range(first, last)))
            connection.sendall(b"stats\r\n")
            reply = b""
            while not reply.endswith(b"END\r\n"):
                data = connection.recv(65536)
                if not data:
                    raise Failed("memcached closed the connection")
                reply += data
        stats = dict(line.split()[1:3] for line in reply.decode().splitlines()
                     if line.startswith("STAT "))
        if int(stats["curr_items"]) != n_keys:
            raise Failed(f"memcached holds {stats['curr_items']} of {n_keys} items")


def start_redis(stack, directory, options=(), cores=None):
    """A standalone redis-server that ends with the stack."""
    server = RedisProcess(os.path.join(directory, f"redis-{time.monotonic_ns()}"), options)
    with on_cores(cores or EVERYWHERE):
        server.start()
    stack.callback(server.stop)
    return server


def start_cluster(stack, directory, options=(), cores=None):
    """Three masters that end with the stack."""
    cluster = Cluster(os.path.join(directory, f"cluster-{time.monotonic_ns()}"), 3,
                      node_timeout_ms=15000, options=options)
    with on_cores(cores or EVERYWHERE):
        cluster.start()
    stack.callback(cluster.stop)
    return cluster


# ---- the generators ----

def read_logfmt(line):
    """name=value pairs; numbers become float."""
    fields = {}
    for word in line.split():
        name, value = word.split("=", 1)
        try:
            fields[name] = float(value)
        except ValueError:
            fields[name] = value
    return fields


class Tools:
    """loadgen and replay: built here when they are missing or older than their sources."""

    def __init__(self, directory):
        self.directory = directory

    def program(self, name):
        path = os.path.join(self.directory, name)
        sources = [os.path.join(HERE, name + ".c"), os.path.join(HERE, "bench_util.h")]
        newest = max(os.path.getmtime(source) for source in sources)
        if not os.path.exists(path) or os.path.getmtime(path) < newest:
            os.makedirs(self.directory, exist_ok=True)
            subprocess.run([os.environ.get("CC", "cc"), "-std=gnu11", "-D_GNU_SOURCE", "-O2", "-g",
                            "-o", path, sources[0]], check=True)
        return path

    def run(self, name, *flags, cores=None, is_failure_told=False, timeout=3600):
        """Runs a generator and returns its line as a dictionary. Failed when it says so."""
        with on_cores(cores or CLIENT_CORE):
            done = subprocess.run([self.program(name), *map(str, flags)], capture_output=True,
                                  text=True, timeout=timeout, check=False)
        if done.returncode != 0 and not (is_failure_told and done.stdout):
            raise Failed(f"{name} {' '.join(map(str, flags))}: "
                         f"{(done.stderr.strip() or done.stdout.strip())[-600:]}")
        result = read_logfmt(done.stdout.strip().splitlines()[-1])
        result["complaints"] = done.stderr.strip()
        return result

    def loadgen(self, address, *flags, **keywords):
        return self.run("loadgen", "--address", address, *flags, **keywords)

    def preload(self, server, *flags):
        """One SET per key, straight to a server or to the nodes of a cluster."""
        if isinstance(server, Cluster):
            for first, last, node in server.slot_owners():
                self.loadgen(address_of(node), "--mode", "preload", "--pipeline", 50,
                             "--connections", 4, "--slots", f"{first}-{last}", *flags)
        else:
            self.loadgen(address_of(server), "--mode", "preload", "--pipeline", 50,
                         "--connections", 8, *flags)

    def scan(self, server, *flags):
        """One GET per key: fills the proxy's memory."""
        return self.loadgen(address_of(server), "--mode", "scan", "--pipeline", 50,
                            "--connections", 8, *flags)
