"""make demo, in a few seconds: it runs to its end, and what it prints is what it measured."""

import json
import subprocess
import sys

import pytest

from harness.proxy import BINARY
from harness.servers import ROOT

pytestmark = [pytest.mark.needs_proxy, pytest.mark.long_test(120)]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """(what it printed, what it wrote)"""
    figures = tmp_path_factory.mktemp("demo") / "figures.json"
    ended = subprocess.run(
        [sys.executable, "-B", str(ROOT / "demo" / "demo.py"), "--seconds", "4", "--warm-up", "3",
         "--round-trip", "0.2", "--once", "--json", str(figures)],
        env={"NEARCACHED_BIN": str(BINARY), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        capture_output=True, text=True, timeout=100, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout, json.loads(figures.read_text())


def test_every_workload_runs_on_both_ways(demo):
    text, figures = demo
    assert len(figures["workloads"]) == 6
    for title, sides in figures["workloads"].items():
        assert title in text
        for side in sides.values():
            assert side["requests"] > 0 and side["errors"] == {}, (title, side)


def test_no_answer_is_older_than_the_bound(demo):
    _, figures = demo
    for title, sides in figures["workloads"].items():
        # How soon an event is heard of has no bound that holds on a machine that is late itself.
        if title != "deployments":
            assert sides["nearcached"]["stale"] == 0, (title, sides)


def test_hits_are_reads_that_redis_never_saw(demo):
    _, figures = demo
    config = figures["workloads"]["service configuration"]
    assert config["direct"]["commands"] >= 0.9 * config["direct"]["reads"]
    hits = config["nearcached"]["hit_ratio"] * config["nearcached"]["reads"]
    # A read that missed costs two commands, PTTL and GET.
    assert config["nearcached"]["commands"] <= 2.2 * (config["nearcached"]["reads"] - hits) + 10
    assert hits > 0


def test_the_table_says_what_the_figures_say(demo):
    text, figures = demo
    assert f"{100 * figures['overall']['hit_ratio']:.1f} %" in text
    assert f"{figures['overall']['config_backend_reads']}" in text
