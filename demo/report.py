"""The demo's figures: what was measured directly and through the proxies, side by side."""

COLUMNS = ("", "", "requests", "hits", "mean", "p50", "p95", "p99", "at Redis", "computed", "stale")


def percentile(values, share):
    return values[min(len(values) - 1, int(share * len(values)))] if values else 0.0


class Side:
    """One workload over one way to Redis."""

    def __init__(self, result, title, prefix, namespace):
        seen = result["workloads"][title]
        times = sorted(seen.seconds)
        self.requests, self.reads = len(times), seen.reads
        self.mean = sum(times) / len(times) if times else 0.0
        self.total = sum(times)
        self.p50, self.p95, self.p99 = (percentile(times, share) for share in (0.5, 0.95, 0.99))
        self.commands = result["commands"][prefix]
        self.computed, self.stale, self.oldest = seen.computed, seen.stale, seen.oldest
        self.errors = dict(seen.errors)
        self.hits = result["counters"].get(("nearcached_hits_total", namespace))
        self.misses = result["counters"].get(("nearcached_misses_total", namespace), 0.0)
        # Samples of hits that are compared with Redis, when their readers have long been answered.
        self.audits = int(result["counters"].get(("nearcached_audits_total", namespace), 0.0))

    def hit_ratio(self):
        if self.hits is None:
            return None
        return self.hits / max(1.0, self.hits + self.misses)

    def row(self, title, name):
        ratio = self.hit_ratio()
        return (title, name, f"{self.requests}", "-" if ratio is None else f"{100 * ratio:.1f} %",
                *(f"{1000 * t:.2f}" for t in (self.mean, self.p50, self.p95, self.p99)),
                f"{self.commands}", f"{self.computed}", f"{self.stale}")

    def figures(self):
        return {"requests": self.requests, "reads": self.reads, "hit_ratio": self.hit_ratio(),
                "mean_seconds": self.mean, "p50_seconds": self.p50, "p95_seconds": self.p95,
                "p99_seconds": self.p99, "commands": self.commands, "computed": self.computed,
                "stale": self.stale, "oldest_seconds": self.oldest, "errors": self.errors}


def less(before, after):
    """By how many percent."""
    return 100 * (1 - after / before) if before else 0.0


class Report:
    """direct and through are results of Phase.measure()."""

    def __init__(self, direct, through, kinds):
        self._direct, self._through = direct, through
        self._sides = {kind.title: tuple(
            Side(result, kind.title, kind.prefix.decode(), kind.namespace)
            for result in (direct, through)) for kind in kinds}

    def _sum(self, what, side):
        return sum(getattr(sides[side], what) for sides in self._sides.values())

    def _mean(self, side):
        return self._sum("total", side) / max(1, self._sum("requests", side))

    def _per_read(self, what, title=None):
        """(directly, through the proxies), each per key that was asked for."""
        if title is None:
            return tuple(sum(self._side(side)["commands"].values()) / self._sum("reads", side)
                         for side in (0, 1))
        return tuple(getattr(side, what) / max(1, side.reads) for side in self._sides[title])

    def _side(self, side):
        return (self._direct, self._through)[side]

    def figures(self):
        """Everything, for programs; times in seconds, cuts in percent."""
        hits = sum(sides[1].hits for sides in self._sides.values())
        misses = sum(sides[1].misses for sides in self._sides.values())
        detection = self._per_read("computed", "object detection")
        aggregates = self._per_read("computed", "aggregated events")
        config = self._sides["service configuration"][1]
        return {
            "seconds": self._through["seconds"],
            "workloads": {title: {"direct": sides[0].figures(), "nearcached": sides[1].figures()}
                          for title, sides in self._sides.items()},
            "commands": {"direct": self._direct["commands"],
                         "nearcached": self._through["commands"]},
            "redis_cpu_seconds": [self._direct["redis_cpu"], self._through["redis_cpu"]],
            "proxy_cpu_seconds": self._through["proxy_cpu"],
            "overall": {
                "hit_ratio": hits / max(1.0, hits + misses),
                "mean_seconds": [self._mean(0), self._mean(1)],
                "mean_cut_percent": less(self._mean(0), self._mean(1)),
                "backend_cut_percent": less(*self._per_read("commands")),
                "detection_cut_percent": less(*detection),
                "config_backend_reads": max(0, config.commands - config.audits),
                "config_audits": config.audits,
                "frames_hit_ratio": self._sides["recent frames"][1].hit_ratio(),
                "aggregates_factor": aggregates[0] / aggregates[1] if aggregates[1] else None,
                "stale": [self._sum("stale", 0), self._sum("stale", 1)],
            },
        }

    def _table(self):
        rows = [COLUMNS]
        for title, (direct, through) in self._sides.items():
            rows += [direct.row(title, "direct"), through.row("", "nearcached")]
        widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]
        for row in rows:
            yield "  ".join(cell.ljust(width) if i < 2 else cell.rjust(width)
                            for i, (cell, width) in enumerate(zip(row, widths))).rstrip()

    def _verdicts(self):
        overall = self.figures()["overall"]
        mean = [1000 * seconds for seconds in overall["mean_seconds"]]
        factor = overall["aggregates_factor"]
        yield "hit ratio", f"{100 * overall['hit_ratio']:.1f} %", "above 85 %", \
            overall["hit_ratio"] > 0.85
        yield "mean response time", f"{mean[0]:.2f} -> {mean[1]:.2f} ms, " \
            f"{overall['mean_cut_percent']:.0f} % less", "half", overall["mean_cut_percent"] > 50
        yield "commands at Redis", \
            f"{overall['backend_cut_percent']:.0f} % fewer per key asked for", \
            "70 %", overall["backend_cut_percent"] > 70
        yield "detections computed again", f"{overall['detection_cut_percent']:.0f} % fewer", \
            "90 %", overall["detection_cut_percent"] >= 90
        yield "backend reads of configuration", f"{overall['config_backend_reads']} " \
            f"(and {overall['config_audits']} by the auditor)", "0", \
            overall["config_backend_reads"] == 0
        yield "hits of the last minute's frames", f"{100 * overall['frames_hit_ratio']:.1f} %", \
            "95 %", overall["frames_hit_ratio"] >= 0.95
        yield "aggregates computed", f"{factor:.1f} times less" if factor else "-", "10 times", \
            bool(factor) and factor >= 10
        yield "stale answers beyond the bound", f"{overall['stale'][1]} " \
            f"(directly {overall['stale'][0]})", "0", overall["stale"][1] == 0

    def text(self):
        lines = list(self._table())
        lines += ["", "Times in ms, computing included; hits: reads that tier 1 answered; at Redis:"
                  " commands counted by", "MONITOR; stale: answers more than 1 s behind.", ""]
        for what, measured, goal, is_reached in self._verdicts():
            lines.append(f"  {what:<34}{measured:<34}goal {goal:<12}"
                         f"{'reached' if is_reached else 'NOT REACHED'}")
        lines += ["", f"  CPU: Redis {self._direct['redis_cpu']:.2f} s -> "
                  f"{self._through['redis_cpu']:.2f} s, the proxies "
                  f"{self._through['proxy_cpu']:.2f} s in {self._through['seconds']:.0f} s"]
        for title, sides in self._sides.items():
            for name, side in zip(("directly", "through nearcached"), sides):
                for text, count in side.errors.items():
                    lines.append(f"  {title}, {name}: {count} times: {text}")
        return "\n".join(lines)
