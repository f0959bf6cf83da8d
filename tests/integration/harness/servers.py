"""Real redis-server processes: the classes of scripts/cluster.py, with what tests need on top."""

import importlib.util
import pathlib
import time

from .resp import RawClient, RespError, decode

ROOT = pathlib.Path(__file__).resolve().parents[3]


def _load_cluster_script():
    path = ROOT / "scripts" / "cluster.py"
    spec = importlib.util.spec_from_file_location("nearcached_cluster_script", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_script = _load_cluster_script()
Cluster, RedisProcess, ReplyError = _script.Cluster, _script.RedisProcess, _script.ReplyError
die_with_parent, free_port, wait_for = _script.die_with_parent, _script.free_port, _script.wait_for
SLOTS = _script.SLOTS

# Sorted sets stay listpacks: what ZRANGEBYLEX finds among unequal scores is undefined, and in a
# skiplist random.
TEST_OPTIONS = (("enable-debug-command", "yes"), ("activerehashing", "no"),
                ("zset-max-listpack-value", "1000"), ("zset-max-listpack-entries", "1000"),
                ("maxclients", "15000"), ("loglevel", "notice"))


def crc16(data):
    """CRC16 XMODEM, as https://redis.io/docs/reference/cluster-spec/ prescribes it."""
    crc = 0
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ 0x1021 if crc & 0x8000 else crc << 1) & 0xFFFF
    return crc


def key_slot(key):
    key = key.encode() if isinstance(key, str) else key
    start = key.find(b"{")
    if start >= 0:
        end = key.find(b"}", start + 1)
        if end > start + 1:
            key = key[start + 1:end]
    return crc16(key) % SLOTS


class RedisServer(RedisProcess):
    """A standalone server with debug commands, on TCP and on a Unix socket."""

    def __init__(self, directory, options=(), **keywords):
        self.unix_path = str(pathlib.Path(directory) / "redis.sock")
        super().__init__(directory, list(TEST_OPTIONS) + [("unixsocket", self.unix_path)]
                         + list(options), **keywords)

    def url(self, database=None):
        login = f":{self.password}@" if self.password else ""
        return f"redis://{login}127.0.0.1:{self.port}" + (
            "" if database is None else f"/{database}")

    def client(self, protocol=2, **keywords):
        return RawClient(self.address, protocol, password=self.password, **keywords)


class RedisCluster(Cluster):
    """Cluster with the tests' options."""

    def __init__(self, directory, masters=3, replicas=0, *, options=(), **keywords):
        super().__init__(directory, masters, replicas,
                         options=list(TEST_OPTIONS) + list(options), **keywords)

    def flush(self):
        for node in self.masters():
            node.ask("FLUSHALL")

    def client(self, protocol=2):
        return ClusterClient(self, protocol)


class ClusterClient:
    """Writes around the proxy: one command at a time, routed by slot, redirections followed.

    The connection of a node is opened on first use. Not for threads to share.
    """

    MAX_REDIRECTS = 50

    def __init__(self, cluster, protocol=2, timeout=10.0):
        self._cluster = cluster
        self._protocol = protocol
        self._timeout = timeout
        self._clients = {}
        self._owners = {}

    def close(self):
        for client in self._clients.values():
            client.close()
        self._clients.clear()

    def _node(self, port):
        if port not in self._clients:
            self._clients[port] = RawClient(("127.0.0.1", port), self._protocol,
                                            timeout=self._timeout)
        return self._clients[port]

    def _forget(self, port):
        client = self._clients.pop(port, None)
        if client is not None:
            client.close()
        self._owners.clear()

    def ask(self, *args, key=None):
        """The reply's frame. key is the routing key; args[1] if not given.

        A lost connection raises: the command may have been executed.
        """
        slot = key_slot(args[1] if key is None else key)
        port = self._owners.get(slot) or self._cluster.running()[0].port
        is_asking = False
        for _ in range(self.MAX_REDIRECTS):
            try:
                client = self._node(port)
                if is_asking:
                    client.ok("ASKING")
                frame = client.ask(*args)
            except (OSError, EOFError):
                self._forget(port)
                raise
            is_asking = False
            if frame.startswith(b"-MOVED "):
                port = int(frame.rstrip().rsplit(b":", 1)[1])
                self._owners[slot] = port
            elif frame.startswith(b"-ASK "):
                port = int(frame.rstrip().rsplit(b":", 1)[1])
                is_asking = True
            elif frame.startswith(b"-TRYAGAIN"):
                time.sleep(0.01)
            else:
                return frame
        raise ConnectionError(f"no answer after {self.MAX_REDIRECTS} redirections: {frame!r}")

    def value(self, *args, key=None):
        return decode(self.ask(*args, key=key))

    def ok(self, *args, key=None):
        value = self.value(*args, key=key)
        if isinstance(value, RespError):
            raise value
        return value
