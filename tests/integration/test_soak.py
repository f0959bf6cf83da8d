"""`make soak`: its judge can say no and can say yes, and a few seconds of the load run clean.

Proves: drift.py finds a leak in noise, steady growth of latency, and growth that comes late; it finds none in noise,
in waves, in a warm-up, in a step that goes back, in an outlier, nor where the machine became slower;
every actor of the load does its work, and nothing of the clients is left when they have gone.
"""

import json
import os
import pathlib
import random
import subprocess
import sys

import pytest

SOAK = pathlib.Path(__file__).resolve().parents[1] / "soak"
sys.path.insert(0, str(SOAK))

import drift  # noqa: E402
from harness.proxy import BINARY  # noqa: E402
from harness.waiting import SCALE  # noqa: E402

MB = float(1 << 20)
MEMORY = drift.Tolerance(.03, 2 * MB)
SLOW = drift.Tolerance(.5, .0005)


def series(value, n=300, period=6.0, noise=0.0, seed=1):
    """value(share of the run from 0 to 1), with Gaussian noise."""
    chance = random.Random(seed)
    return [(i * period, value(i / (n - 1)) + chance.gauss(0, 1) * noise) for i in range(n)]


GROWING = {
    "a leak": series(lambda x: 60 * MB + 10 * MB * x),
    "a leak in noise": series(lambda x: 60 * MB + 15 * MB * x, noise=3 * MB),
    "a leak behind a warm-up": series(lambda x: (60 * min(1, 5 * x) + 8 * x) * MB, noise=MB / 2),
    "a leak with outliers": series(lambda x: (60 + 12 * x + 500 * (int(x * 299) % 17 == 0)) * MB),
    "a leak that begins late": series(lambda x: (60 + max(0.0, x - .5) * 30) * MB, noise=MB / 2),
    "in steps": series(lambda x: (60 + int(x * 12)) * MB),
    "in few points": series(lambda x: (60 + 10 * x) * MB, n=30),
    "in very many": series(lambda x: (60 + 10 * x) * MB, n=5000, noise=MB),
}
STEADY = {
    "level": series(lambda x: 60 * MB),
    "noise": series(lambda x: 60 * MB, noise=3 * MB),
    "waves": series(lambda x: (60 + 8 * ((int(x * 300) // 20) % 2)) * MB),
    "a warm-up": series(lambda x: 60 * MB * min(1, 3.2 * x), noise=MB / 2),
    "falling": series(lambda x: (60 - 20 * x) * MB),
    "a step that goes back": series(lambda x: (60 + 30 * (.7 < x < .8)) * MB, noise=MB / 2),
    "the end alone": series(lambda x: (60 + 50 * (x > .97)) * MB),
    "less than is tolerated": series(lambda x: (60 + 1.5 * x) * MB),
}


@pytest.mark.parametrize("name", GROWING)
def test_growth_is_found(name):
    verdict = drift.judge(GROWING[name], MEMORY)
    assert verdict.is_judged and verdict.has_drifted, verdict
    assert verdict.slope_per_hour > 0


@pytest.mark.parametrize("name", STEADY)
def test_what_does_not_grow_is_left_alone(name):
    verdict = drift.judge(STEADY[name], MEMORY)
    assert verdict.is_judged and not verdict.has_drifted, verdict


def test_noise_is_hardly_ever_called_drift():
    found = [seed for seed in range(200) if drift.judge(
        series(lambda x: 100.0, noise=20, seed=seed), drift.Tolerance(.03, 1)).has_drifted]
    assert len(found) <= 4, found


def test_the_slope_is_that_of_the_line():
    slope, rising = drift.slope_of([(float(i), 3.0 * i + 5 + 900 * (i % 5 == 0)) for i in range(50)])
    assert slope == pytest.approx(3.0, abs=.5) and rising > .5


def test_latency_is_judged_beside_a_control():
    machine = series(lambda x: .0001 + .002 * x)
    proxy = series(lambda x: .0002 + .002 * x)
    own = series(lambda x: .0002 + .010 * x)
    level = series(lambda x: .0001)
    busy = series(lambda x: .0001 + .01 * (x > .7))
    hurt = series(lambda x: .0002 + .3 * (x > .7))
    slower = series(lambda x: .0001 + .0001 * x)
    assert drift.judge(proxy, SLOW).has_drifted
    assert not drift.judge_beside(proxy, machine, SLOW).has_drifted, "the machine became slower"
    assert not drift.judge_beside(hurt, busy, SLOW).has_drifted, "something else ran"
    assert drift.judge_beside(own, slower, SLOW).has_drifted, "the proxy did so beyond that"
    assert drift.judge_beside(own, level, SLOW).has_drifted
    assert not drift.judge_beside(level, machine, SLOW).has_drifted
    assert not drift.judge_beside(own, series(lambda x: .0001 + .01 * (x > .3)), SLOW).is_judged


def test_too_little_is_not_judged():
    assert not drift.judge([], MEMORY).is_judged
    assert not drift.judge(series(lambda x: x * 1e9, n=9), MEMORY).is_judged


def test_thirds_are_of_the_whole_run():
    """Samples that are missing at the beginning do not move what is called warm-up."""
    late = [(at, value) for at, value in series(lambda x: 60 * MB) if at > 700]
    first, middle, last = drift.thirds(late, 0, 1800)
    assert first == [] and middle[0][0] > 700 and middle[-1][0] < 1200 <= last[0][0]


@pytest.mark.needs_proxy
@pytest.mark.long_test(120)
def test_some_seconds_of_the_load_run_clean(tmp_path):
    seconds = 9 * min(SCALE, 2)
    done = subprocess.run(
        [sys.executable, str(SOAK / "soak.py"), "--quick", "--seconds", str(seconds), "--out",
         str(tmp_path / "out")], capture_output=True, text=True, timeout=110 * SCALE, check=False,
        env={**os.environ, "NEARCACHED_BIN": str(pathlib.Path(BINARY).resolve())})
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert all(actor["rounds"] > 0 for actor in report["actors"].values())
    assert report["problems"] == [] and not report["verdicts"]
    for figure in ("rss_bytes", "descriptors", "threads", "clients", "dependencies",
                   "client_tracking_keys", "hit/p99"):
        assert len(report["series"][f"proxy0/{figure}"]) >= 4, figure
