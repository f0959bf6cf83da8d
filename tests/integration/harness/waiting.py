"""Deadlines. Tests wait for a state, never for a time; a deadline only ends a wait in vain.

NEARCACHED_TEST_TIMESCALE stretches every deadline (sanitizer builds, slow machines).
NEARCACHED_TEST_SECONDS is how long one consistency scenario runs.
"""

import os
import time


def _default_scale():
    name = os.environ.get("NEARCACHED_BIN", "")
    return 5.0 if "asan" in name or "tsan" in name else 1.0


SCALE = float(os.environ.get("NEARCACHED_TEST_TIMESCALE") or _default_scale())


def scenario_seconds(default):
    """Length of one load scenario."""
    return float(os.environ.get("NEARCACHED_TEST_SECONDS") or default)


def now():
    """CLOCK_BOOTTIME in seconds: the proxy's own clock, the same for all processes."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def wait_until(condition, seconds=10.0, what="the condition", pause=0.02):
    """Returns the first true value of condition(); AssertionError after seconds (scaled).

    Refused and lost connections count as "not yet".
    """
    deadline = time.monotonic() + seconds * SCALE
    while True:
        try:
            value = condition()
            if value:
                return value
            reason = repr(value)
        except (OSError, EOFError) as error:
            reason = repr(error)
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds * SCALE:g} s for {what}; last seen: {reason}")
        time.sleep(pause)
