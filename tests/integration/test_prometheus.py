"""conf/prometheus and conf/grafana against the real thing: promtool checks the rules and tests the
alerts; a Prometheus scrapes two busy proxies, and every query has an answer there."""

import json
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request

import pytest

from harness.servers import ROOT, RedisCluster, die_with_parent, free_port
from harness.waiting import wait_until

RULES = sorted((ROOT / "conf" / "prometheus").glob("*.yml"))
pytestmark = pytest.mark.skipif(shutil.which("prometheus") is None,
                                reason="Debian's package prometheus is not installed")


def promtool(*arguments):
    return subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True,
                          timeout=120, check=False)


def test_rules_are_well_formed():
    checked = promtool("check", "rules", *RULES)
    assert checked.returncode == 0 and "SUCCESS" in checked.stdout, checked.stdout + checked.stderr


def test_alerts_come_when_they_should_and_only_then():
    tests = ROOT / "tests" / "prometheus" / "alerts_test.yml"
    tested = promtool("test", "rules", tests)
    assert tested.returncode == 0, tested.stdout + tested.stderr
    alerts = re.findall(r"alert: (\w+)", "".join(path.read_text() for path in RULES))
    assert len(alerts) >= 20
    for alert in alerts:  # none is without a test, nor without a section in the runbook
        assert re.search(rf"alertname: {alert}, eval_time: \w+, exp_alerts: \[{{",
                         tests.read_text()), alert
        assert f"\n## {alert}\n" in (ROOT / "docs" / "runbook.md").read_text(), alert


class Prometheus:
    """Debian's, with our rules, and a day of history for what compares with the day before."""

    def __init__(self, directory, targets):
        self._address = f"127.0.0.1:{free_port()}"
        data = directory / "data"
        data.mkdir()
        self._backfill(directory, data)
        config = directory / "prometheus.yml"
        config.write_text(json.dumps({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(path) for path in RULES],
            "scrape_configs": [{"job_name": "nearcached", "static_configs": [
                {"targets": targets}]}]}))
        self._process = subprocess.Popen(
            ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={data}",
             f"--web.listen-address={self._address}", "--log.level=error"],
            preexec_fn=die_with_parent)
        wait_until(lambda: self.get("/-/ready"), 30, "Prometheus")

    @staticmethod
    def _backfill(directory, data):
        now = int(time.time())
        lines = []
        for name in ("cache_hit_rate", "cache_eviction_rate"):
            lines.append(f"# TYPE {name} gauge")
            lines += [f'{name}{{job="nearcached",namespace="page"}} 0.5 {at}'
                      for at in range(now - 26 * 3600, now - 1800, 120)]
        history = directory / "history"
        history.write_text("\n".join([*lines, "# EOF\n"]))
        made = promtool("tsdb", "create-blocks-from", "openmetrics", history, data)
        assert made.returncode == 0, made.stderr

    def get(self, path):
        with urllib.request.urlopen(f"http://{self._address}{path}", timeout=10) as reply:
            return reply.read()

    def ask(self, query):
        """The series that answer it."""
        path = "/api/v1/query?" + urllib.parse.urlencode({"query": query})
        reply = json.loads(self.get(path))
        assert reply["status"] == "success", reply
        return reply["data"]["result"]

    def stop(self):
        self._process.terminate()
        self._process.wait(20)


class Load:
    """Hits, misses, relayed requests and errors through all proxies, until it is stopped."""

    def __init__(self, proxies):
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(proxy,)) for proxy in proxies]
        for thread in self._threads:
            thread.start()

    def _run(self, proxy):
        with proxy.client() as client:
            n = 0
            while not self._is_over.wait(0.01):
                n += 1
                client.ask("SET", f"page:{n % 50}", "x" * 100)
                for i in range(20):
                    client.ask("GET", f"page:{i}")
                client.ask("GET", f"missing:{n}")
                client.ask("INCR", "counter")

    def stop(self):
        self._is_over.set()
        for thread in self._threads:
            thread.join()


@pytest.fixture(scope="module")
def observed(module_proxies, tmp_path_factory):
    proxies = module_proxies
    load = Load(proxies)
    prometheus = Prometheus(tmp_path_factory.mktemp("prometheus"),
                            [f"127.0.0.1:{proxy.admin_address[1]}" for proxy in proxies])
    try:
        # Rates need two scrapes, rules one more round.
        wait_until(lambda: len(prometheus.ask("cache_hit_rate")) >= 2
                   and prometheus.ask("cache_hit_rate:avg1d"), 60, "the rules' first results")
        wait_until(lambda: prometheus.ask("nearcached_node_tracking_keys > 0"), 60,
                   "the backend's tracking table to be looked at again")
        yield prometheus, proxies
    finally:
        load.stop()
        prometheus.stop()


@pytest.fixture(scope="module")
def module_proxies(tmp_path_factory):
    from harness.proxy import Proxy
    cluster = RedisCluster(tmp_path_factory.mktemp("cluster"), masters=3)
    cluster.start()
    proxies = []
    try:
        for number in range(2):
            proxies.append(Proxy(tmp_path_factory.mktemp(f"proxy{number}"), cluster.url(),
                                 {"audit-sample": 10, "process-memory": "1gb",
                                  "bus-group": "prometheus"},
                                 config={'namespace "page"': {"match": "page:*"}}))
            proxies[-1].start()
        yield proxies
    finally:
        for proxy in proxies:
            proxy.kill()
        cluster.stop()


def panels():
    dashboard = json.loads((ROOT / "conf" / "grafana" / "nearcached.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]


def recorded():
    text = (ROOT / "conf" / "prometheus" / "nearcached.rules.yml").read_text()
    return sorted(set(re.findall(r"record: (\S+)", text)))


@pytest.mark.needs_proxy
@pytest.mark.long_test(180)
def test_every_query_of_the_dashboard_has_an_answer(observed):
    prometheus, _ = observed
    seen = 0
    for title, query in panels():
        for variable, value in (("$job", ".*"), ("$instance", ".*"), ("$__rate_interval", "10s")):
            query = query.replace(variable, value)
        assert wait_until(lambda query=query: prometheus.ask(query), 20, f"{title}: {query}")
        seen += 1
    assert seen >= 30


@pytest.mark.needs_proxy
@pytest.mark.long_test(180)
def test_every_rule_records_something_and_none_fails(observed):
    prometheus, _ = observed
    for name in recorded():
        wait_until(lambda name=name: prometheus.ask(name), 30, name)
    groups = json.loads(prometheus.get("/api/v1/rules"))["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) >= 30
    assert [rule["name"] for rule in rules if rule["health"] != "ok"] == []


@pytest.mark.needs_proxy
@pytest.mark.long_test(180)
def test_every_metric_of_the_alerts_exists(observed):
    prometheus, _ = observed
    text = (ROOT / "conf" / "prometheus" / "nearcached.alerts.yml").read_text()
    names = set(re.findall(r"\bnearcached_\w+", re.sub(r"#.*|runbook_url.*", "", text)))
    assert len(names) > 15
    for name in sorted(names):
        wait_until(lambda name=name: prometheus.ask(name), 20, name)


@pytest.mark.needs_proxy
@pytest.mark.long_test(180)
def test_the_hit_rate_is_what_the_proxies_count(observed):
    prometheus, _ = observed
    rate = next(float(series["value"][1]) for series in prometheus.ask("cache_hit_rate")
                if series["metric"]["namespace"] == "page")
    assert 0 < rate < 1
    assert {series["metric"]["quantile"] for series in
            prometheus.ask("cache_operation_latency_seconds")} == {"0.5", "0.95", "0.99"}


def test_the_dashboard_is_up_to_date():
    checked = subprocess.run([sys.executable, "-B", str(ROOT / "scripts" / "gen_dashboard.py"),
                              "--check"], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout
