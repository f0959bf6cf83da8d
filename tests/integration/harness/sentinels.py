"""A master, its replicas and the Sentinels that watch over them: real processes on loopback."""

import os
import subprocess

from .servers import RedisProcess, RedisServer, die_with_parent, free_port, wait_for


class Sentinel(RedisProcess):
    """One redis-sentinel; it is configured by a file, which it rewrites itself."""

    def __init__(self, directory, name, master_port, quorum, password=None):
        super().__init__(directory, password=password)
        self._lines = [
            f"port {self.port}", "bind 127.0.0.1", "protected-mode no", f"dir {self.directory}",
            "logfile redis.log", f"sentinel monitor {name} 127.0.0.1 {master_port} {quorum}",
            f"sentinel down-after-milliseconds {name} 600",
            f"sentinel failover-timeout {name} 4000",
        ]
        if password:
            self._lines += [f"requirepass {password}", f"sentinel sentinel-pass {password}"]

    def start(self):
        os.makedirs(self.directory, exist_ok=True)
        path = os.path.join(self.directory, "sentinel.conf")
        if not os.path.exists(path):
            with open(path, "w", encoding="utf-8") as file:
                file.write("\n".join(self._lines) + "\n")
        self.process = subprocess.Popen(
            ["redis-sentinel", path], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True, preexec_fn=die_with_parent)
        self.is_paused = False
        wait_for(self._is_answering, 20, f"redis-sentinel on port {self.port}")
        return self


class SentinelSet:
    """One master, replicas, Sentinels. name: how the Sentinels call it."""

    def __init__(self, directory, n_replicas=2, n_sentinels=3, name="main", password=None):
        self.name = name
        first = RedisServer(directory / "server0", port=free_port())
        self.servers = [first] + [
            RedisServer(directory / f"server{number}",
                        [("replicaof", f"127.0.0.1 {first.port}")])
            for number in range(1, n_replicas + 1)]
        self.sentinels = [
            Sentinel(directory / f"sentinel{number}", name, first.port, n_sentinels // 2 + 1,
                     password)
            for number in range(n_sentinels)]

    def start(self):
        for server in self.servers + self.sentinels:
            server.start()
        wait_for(self.is_whole, 30, "the Sentinels to know each other and all servers")
        return self

    def is_whole(self):
        for sentinel in self.sentinels:
            fields = sentinel.ask("SENTINEL", "MASTER", self.name)
            facts = dict(zip(fields[::2], fields[1::2]))
            if (int(facts[b"num-slaves"]) < len(self.servers) - 1
                    or int(facts[b"num-other-sentinels"]) < len(self.sentinels) - 1
                    or facts[b"flags"] != b"master"):
                return False
        return all(server.info("replication").get("master_link_status", "up") == "up"
                   for server in self.servers)

    def master(self):
        _, port = self.running_sentinel().ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.name)
        return next(server for server in self.servers if server.port == int(port))

    def running_sentinel(self):
        return next(sentinel for sentinel in self.sentinels if sentinel.is_running())

    def url(self, sentinels=None):
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in sentinels or self.sentinels)
        return f"sentinel://{hosts}/{self.name}"

    def stop(self):
        for process in self.sentinels + self.servers:
            process.kill()
