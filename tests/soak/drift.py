"""Does a figure grow? The judge of `make soak`, as pure functions.

A series is a list of (seconds, value). Its first third is the warm-up and is left out; of the rest
the last third is compared with the middle third. A figure drifts when three things agree:

- the median of the last third is above that of the middle third by more than is tolerated;
- so is the growth that the line through all points of both thirds comes to (Theil-Sen: the median
  of the slopes between all pairs of points; nearly a third of them may be wild);
- most pairs of points rise (Mann-Kendall), so that one step up and down again is none.

Latency also has a control: the same measured at the backend, in the same moments. Moments in which
the control is plainly slower than it usually is are left out, as the machine was busy with something else;
of the others, what the control grew by is taken off. Where too few are left nothing is judged.
"""

import dataclasses
import statistics

# Pairs of points that rise, less those that fall, as a share of all: random walks of noise stay
# well below, a steady leak under twice its own size of noise is above.
RISING_SHARE = 0.2
BUSY = 2.5
# Fewer points in a third say nothing.
POINTS_MIN = 5
# Pairs grow with the square: longer series are thinned to so many points by medians.
POINTS_MAX = 240


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """Growth that is none: the larger one of a share of the middle third's median and a floor."""

    share: float
    floor: float

    def of(self, level):
        return max(self.share * abs(level), self.floor)


@dataclasses.dataclass(frozen=True)
class Verdict:
    is_judged: bool
    has_drifted: bool
    middle: float = 0.0
    last: float = 0.0
    slope_per_hour: float = 0.0
    growth: float = 0.0  # by the slope, over both thirds
    tolerated: float = 0.0
    rising: float = 0.0


def thin(series, n_max=POINTS_MAX):
    """At most so many points: medians of runs."""
    if len(series) <= n_max:
        return list(series)
    run = -(-len(series) // n_max)
    parts = [series[i:i + run] for i in range(0, len(series), run)]
    return [(statistics.median(at for at, _ in part), statistics.median(v for _, v in part))
            for part in parts]


def thirds(series, begin=None, end=None):
    """(first, middle, last) by time. begin, end: of the whole run."""
    if not series:
        return [], [], []
    begin = series[0][0] if begin is None else begin
    end = series[-1][0] if end is None else end
    third = (end - begin) / 3
    return ([p for p in series if p[0] < begin + third],
            [p for p in series if begin + third <= p[0] < begin + 2 * third],
            [p for p in series if p[0] >= begin + 2 * third])


def slope_of(points):
    """Theil-Sen, per second, and the Mann-Kendall share from -1 to 1."""
    slopes, rising, falling = [], 0, 0
    for i, (at, value) in enumerate(points):
        for later, other in points[i + 1:]:
            if later > at:
                slopes.append((other - value) / (later - at))
                rising += other > value
                falling += other < value
    if not slopes:
        return 0.0, 0.0
    return statistics.median(slopes), (rising - falling) / len(slopes)


def judge(series, tolerance, begin=None, end=None):
    _, middle, last = thirds(thin(series), begin, end)
    if len(middle) < POINTS_MIN or len(last) < POINTS_MIN:
        return Verdict(False, False)
    level = statistics.median(value for _, value in middle)
    now = statistics.median(value for _, value in last)
    slope, rising = slope_of(middle + last)
    # Between the centres of the two thirds: half of what both take.
    growth = slope * (last[-1][0] - middle[0][0]) / 2
    tolerated = tolerance.of(level)
    has_drifted = now - level > tolerated and growth > tolerated and rising > RISING_SHARE
    return Verdict(True, has_drifted, level, now, slope * 3600, growth, tolerated, rising)


def without(series, control):
    """What is left of it when the control's changes since its middle third are taken off."""
    _, middle, _ = thirds(control)
    if not middle:
        return list(series)
    level = statistics.median(value for _, value in middle)
    by_time = dict(control)
    return [(at, value - max(0.0, by_time[at] - level)) for at, value in series if at in by_time]


def quiet(series, control):
    """The moments in which the control is not above BUSY times its lower quartile."""
    if len(control) < POINTS_MIN:
        return []
    usual = sorted(value for _, value in control)[len(control) // 4]
    moments = {at for at, value in control if value <= BUSY * usual}
    return [(at, value) for at, value in series if at in moments]


def judge_beside(series, control, tolerance, begin=None, end=None, machine=None):
    """As judge(); but what the control shows as well is no drift of this series.

    machine: of the same moments, what tells whether they are quiet; the control itself unless given.
    """
    machine = control if machine is None else machine
    begin = series[0][0] if begin is None and series else begin
    end = series[-1][0] if end is None and series else end
    series, control = quiet(series, machine), quiet(control, machine)
    plain = judge(series, tolerance, begin, end)
    beside = judge(without(series, control), tolerance, begin, end)
    return dataclasses.replace(plain, has_drifted=plain.has_drifted and beside.has_drifted)
