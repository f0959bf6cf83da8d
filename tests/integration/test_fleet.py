"""Several proxies over one cluster, writers through each of them and around them, readers
everywhere, while one fault after the other happens: the guarantees hold through each proxy, and
between them the bound.

`make fleet` runs every class of faults for FLEET_SECONDS (ten minutes by default) with two and with
four proxies; the test suite runs all classes in one run of about a minute.
"""

import itertools
import os
import random
import time

import pytest

from harness import consistency
from harness.consistency import Workload
from harness.servers import RedisCluster, key_slot
from harness.waiting import now, wait_until

pytestmark = pytest.mark.needs_proxy

SECONDS = float(os.environ.get("FLEET_SECONDS", "0"))  # 0: the short run only
MAX_STALENESS = 0.5
# After a failover or a move of slots: one refresh of the map on top.
BOUND = MAX_STALENESS + 1.2
OPTIONS = {"max-staleness": "500ms", "negative-ttl": "5s", "reconnect-min": "20ms",
           "reconnect-max": "200ms", "topology-interval": "500ms"}
OPS = consistency.SIMPLE + consistency.REMOVING + tuple(
    op for op in consistency.MOVING if op.name not in ("EVAL", "RENAME", "COPY"))


class Fleet:
    """Proxies over a cluster of 3 masters and 3 replicas; the last one goes through relays."""

    def __init__(self, start_proxy, start_relay, cluster, count):
        self.cluster = cluster
        self._relays = {node.port: start_relay(("127.0.0.1", node.port)) for node in cluster.nodes}
        relayed = " ".join(f"127.0.0.1:{port}=127.0.0.1:{relay.address[1]}"
                           for port, relay in self._relays.items())
        self.proxies = [start_proxy(cluster.url(), OPTIONS) for _ in range(count - 1)]
        self.proxies.append(start_proxy(cluster.url(), {**OPTIONS, "address-map": relayed}))
        self.workload = Workload(
            [proxy.address for proxy in self.proxies], cluster.client, bound=BOUND, ops=OPS,
            n_readers=max(4, count), n_proxy_writers=count, n_direct_writers=2,
            are_errors_allowed=True, client_timeout=20)
        self._chance = random.Random(1)
        self._n_moved = itertools.count()
        self._n_hits_gone = 0  # with proxies that were restarted

    # One fault each; it is over when the function returns.

    def kill_a_master(self):
        victim = self._chance.choice(self.cluster.masters())
        heir = self.cluster.replicas_of(victim)[0]
        killed = now()
        victim.kill()
        wait_until(lambda: heir in self.cluster.masters(), 90, "the failover")
        # What the old master had acknowledged and not yet passed on is lost.
        self.workload.rollbacks.append((killed - 0.5, now() + 0.2))
        time.sleep(1)
        victim.start()
        self._wait_for_replica(victim)

    def pause_a_master_until_it_is_replaced(self):
        victim = self._chance.choice(self.cluster.masters())
        heir = self.cluster.replicas_of(victim)[0]
        paused = now()
        victim.pause()
        wait_until(lambda: heir in self.cluster.masters(), 90, "the failover")
        resumed = now()
        victim.resume()
        self._wait_for_replica(victim)
        demoted = now()
        self.workload.rollbacks.append((paused - 0.5, demoted + 0.2))
        # Between the two it answers what was queued on it from its old memory.
        self.workload.blind.append((resumed - 0.2, demoted + 0.2))

    def pause_a_master_briefly(self):
        victim = self._chance.choice(self.cluster.masters())
        victim.pause()
        time.sleep(0.9)
        victim.resume()
        time.sleep(0.3)

    def fail_over(self):
        replica = self.cluster.replicas_of(self._chance.choice(self.cluster.masters()))[0]
        # A master that has not yet heard who follows it ignores the request, and Redis gives up
        # after 5 s: asked again until it is so.
        asked = float("-inf")

        def is_master():
            nonlocal asked
            if time.monotonic() - asked > 6:
                replica.ask("CLUSTER", "FAILOVER")
                asked = time.monotonic()
            return replica in self.cluster.masters()

        wait_until(is_master, 90, "the failover")
        time.sleep(0.5)

    def move_a_slot(self):
        keys = self.workload.keys
        slot = key_slot(keys[next(self._n_moved) % len(keys)].name)
        owner = self.cluster.owner(slot)
        target = self._chance.choice([node for node in self.cluster.masters() if node is not owner])
        self.cluster.move_slot(slot, target, between=lambda: time.sleep(0.03))
        time.sleep(0.1)

    def cut_links(self):
        for node in self.cluster.masters():
            node.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        time.sleep(0.7)

    def delay_links(self):
        """20 ms on the tracking links of one proxy, then on all its links."""
        for kind in ("tracking", "all"):
            for relay in self._relays.values():
                for each in ("tracking", "other") if kind == "all" else (kind,):
                    relay.delay(each, to_proxy=0.02, to_backend=0.02)
            time.sleep(0.7)
        for relay in self._relays.values():
            for each in ("tracking", "other"):
                relay.delay(each)

    def break_links_silently(self):
        """Half-open tracking links: nothing passes, nobody is told."""
        for relay in self._relays.values():
            relay.swallow("tracking")
        time.sleep(0.9)
        for relay in self._relays.values():
            relay.flow("tracking")
        time.sleep(0.3)

    def pause_a_proxy(self):
        proxy = self._chance.choice(self.proxies)
        proxy.pause()
        time.sleep(self._chance.choice((0.2, 0.9)))
        proxy.resume()
        time.sleep(0.3)

    def restart_a_proxy(self):
        proxy = self._chance.choice(self.proxies)
        self._n_hits_gone += proxy.metrics().get("hits_total")
        proxy.kill()
        proxy.start()
        time.sleep(0.5)

    def nothing(self):
        time.sleep(0.5)

    def _wait_for_replica(self, node):
        wait_until(lambda: node.info("replication")["role"] == "slave"
                   and node.info("replication")["master_link_status"] == "up", 90,
                   "the former master to follow the new one")
        # A replica that has not heard which slots its master has takes over from nobody.
        wait_until(self.cluster.is_ready, 60, "the nodes to agree")

    # The run

    def run(self, seconds, faults):
        """The faults in turn until the time is over; each at least once."""
        hits = self._hits()

        def happen(until):
            for fault in itertools.cycle(faults):
                fault(self)
                if time.monotonic() > until and fault is faults[-1]:
                    return

        report = self.workload.run(seconds, happen, settle=2)
        print(report.summary())
        assert not report.anomalies, "\n".join(report.anomalies[:10])
        assert report.n_reads > 1000 and report.n_writes > 100, report.summary()
        assert self._hits() - hits > 0.05 * report.n_reads
        for proxy in self.proxies:
            proxy.assert_healthy()

    def _hits(self):
        return self._n_hits_gone + sum(proxy.metrics().get("hits_total")
                                       for proxy in self.proxies)


CLASSES = {
    "none": [Fleet.nothing],
    "masters killed": [Fleet.kill_a_master],
    "masters paused and replaced": [Fleet.pause_a_master_until_it_is_replaced],
    "masters paused": [Fleet.pause_a_master_briefly],
    "failovers": [Fleet.fail_over],
    "slots that move": [Fleet.move_a_slot],
    "links cut": [Fleet.cut_links],
    "links delayed": [Fleet.delay_links],
    "links half-open": [Fleet.break_links_silently],
    "proxies paused": [Fleet.pause_a_proxy],
    "proxies restarted": [Fleet.restart_a_proxy],
}


@pytest.fixture
def fleet(start_proxy, start_relay, tmp_path):
    clusters = []

    def make(count):
        clusters.append(RedisCluster(tmp_path / "cluster", masters=3, replicas=1))
        clusters[0].start()
        return Fleet(start_proxy, start_relay, clusters[0], count)

    yield make
    for cluster in clusters:
        cluster.stop()


@pytest.mark.long_test(300)
def test_all_faults_in_turn(fleet):
    fleet(4).run(40, [fault for faults in CLASSES.values() for fault in faults])


@pytest.mark.skipif(SECONDS == 0, reason="make fleet: minutes per class of faults")
@pytest.mark.long_test(7200)
@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("name", CLASSES)
def test_one_class_of_faults(fleet, name, count):
    fleet(count).run(SECONDS, CLASSES[name])
