#!/usr/bin/python3
"""Writes conf/grafana/nearcached.json from the panels below.

    scripts/gen_dashboard.py            bring it up to date
    scripts/gen_dashboard.py --check    change nothing; exit 1 when it is out of date

Either way every metric that a query of it, or of conf/prometheus, names must be in
src/tables/metrics.def.
"""
import json
import re
import sys

from gen_docs import ROOT, read_metrics

PAGE = ROOT / "conf" / "grafana" / "nearcached.json"

ALL = 'job=~"$job",instance=~"$instance"'

# (row, [(title, unit, description, [(legend, query)])])
ROWS = [
    ("Is it worth it?", [
        ("Hit ratio by namespace", "percentunit", "Reads that tier 1 answered.", [
            ("{{namespace}}",
             f"sum by (namespace) (rate(nearcached_hits_total{{{ALL}}}[$__rate_interval])) / "
             f"(sum by (namespace) (rate(nearcached_hits_total{{{ALL}}}[$__rate_interval])) + "
             f"sum by (namespace) (rate(nearcached_misses_total{{{ALL}}}[$__rate_interval])))")]),
        ("Requests by outcome", "reqps", "Each request once.", [
            ("{{outcome}}",
             f"sum by (outcome) (rate(nearcached_requests_total{{{ALL}}}[$__rate_interval]))")]),
        ("Commands at the backend", "reqps", "Sent, and saved by tier 1.", [
            ("sent", f"sum(rate(nearcached_backend_commands_total{{{ALL}}}[$__rate_interval]))"),
            ("saved",
             f"sum(rate(nearcached_backend_saved_commands_total{{{ALL}}}[$__rate_interval]))")]),
        ("Bytes saved", "Bps", "Replies that came from tier 1.", [
            ("{{namespace}}", "sum by (namespace) (rate("
             f"nearcached_backend_saved_bytes_total{{{ALL}}}[$__rate_interval]))")]),
    ]),
    ("How fast is it?", [
        (f"{outcome}: latency", "s", "From reading a request to queueing its reply.", [
            (f"p{round(100 * quantile)}",
             f"histogram_quantile({quantile}, sum by (le) (rate("
             f'nearcached_request_duration_seconds_bucket{{{ALL},outcome="{outcome}"}}'
             "[$__rate_interval])))") for quantile in (0.5, 0.95, 0.99)])
        for outcome in ("hit", "miss", "relayed")
    ] + [
        ("Workers' lag", "s", "How late timers were: requests may have waited for as long.", [
            ("{{instance}} worker {{worker}}", f"nearcached_worker_lag_max_seconds{{{ALL}}}")]),
    ]),
    ("Why are there misses?", [
        ("Misses by reason", "reqps", "docs/operations.md explains them.", [
            ("{{reason}}",
             f"sum by (reason) (rate(nearcached_misses_total{{{ALL}}}[$__rate_interval]))")]),
        ("Invalidations by reason", "ops", "Entries dropped.", [
            ("{{reason}}", "sum by (reason) (rate("
             f"nearcached_invalidations_total{{{ALL}}}[$__rate_interval]))")]),
        ("Evictions by namespace", "ops", "Entries dropped for space.", [
            ("{{namespace}}",
             f"sum by (namespace) (rate(nearcached_evictions_total{{{ALL}}}[$__rate_interval]))")]),
        ("Fetches, and readers that shared one", "ops", "", [
            ("fetches", f"sum(rate(nearcached_fetches_total{{{ALL}}}[$__rate_interval]))"),
            ("shared", f"sum(rate(nearcached_coalesced_total{{{ALL}}}[$__rate_interval]))"),
            ("held by leases",
             f"sum(rate(nearcached_miss_lease_waits_total{{{ALL}}}[$__rate_interval]))")]),
    ]),
    ("Is it coherent?", [
        ("Stale entries found by the auditor", "ops", "0 is right.", [
            ("{{cause}}",
             f"sum by (cause) (rate(nearcached_stale_total{{{ALL}}}[$__rate_interval]))")]),
        ("Samples compared", "ops", "", [
            ("{{result}}",
             f"sum by (result) (rate(nearcached_audits_total{{{ALL}}}[$__rate_interval]))")]),
        ("Age of watermarks", "s", "Near fence-interval; hits end above max-staleness.", [
            ("{{instance}} {{node}}", f"nearcached_node_watermark_age_seconds{{{ALL}}}")]),
        ("Invalidation lag p99", "s", "", [
            ("{{source}}", "histogram_quantile(0.99, sum by (source, le) (rate("
             f"nearcached_invalidation_lag_seconds_bucket{{{ALL}}}[$__rate_interval])))")]),
        ("Bus", "short", "Up, and how many other proxies are heard.", [
            ("{{instance}} up", f"nearcached_bus_up{{{ALL}}}"),
            ("{{instance}} peers", f"nearcached_bus_peers{{{ALL}}}")]),
    ]),
    ("Is the backend well?", [
        ("Links by state", "short", "", [
            ("{{state}}", f"sum by (state) (nearcached_backend_links{{{ALL}}})")]),
        ("Breakers by state", "short", "", [
            ("{{state}}", f"sum by (state) (nearcached_breaker_nodes{{{ALL}}})")]),
        ("Errors of the proxy", "reqps", "By kind; docs/runbook.md.", [
            ("{{kind}}",
             f"sum by (kind) (rate(nearcached_errors_total{{{ALL}}}[$__rate_interval]))")]),
        ("Keys in Redis's tracking table", "short", "Beyond the limit keys go at random.", [
            ("{{node}}", f"max by (node) (nearcached_node_tracking_keys{{{ALL}}})"),
            ("{{node}} limit",
             f"max by (node) (nearcached_node_tracking_keys_limit{{{ALL}}})")]),
    ]),
    ("Is there room?", [
        ("Tier 1", "bytes", "", [
            ("{{instance}} used", f"nearcached_memory_bytes{{{ALL}}}"),
            ("{{instance}} budget", f"nearcached_memory_budget_bytes{{{ALL}}}")]),
        ("Bytes by namespace", "bytes", "", [
            ("{{namespace}}", f"sum by (namespace) (nearcached_entry_bytes{{{ALL}}})")]),
        ("Process", "bytes", "", [
            ("{{instance}} resident", f"process_resident_memory_bytes{{{ALL}}}"),
            ("{{instance}} limit", f"nearcached_process_memory_limit_bytes{{{ALL}}} > 0")]),
        ("Memory pressure", "short", "0 none, 1 shrink, 2 close, 3 shed.", [
            ("{{instance}}", f"nearcached_memory_pressure_stage{{{ALL}}}")]),
        ("Clients", "short", "", [
            ("{{instance}}", f"nearcached_clients{{{ALL}}}")]),
        ("Processor", "percentunit", "Of one core.", [
            ("{{instance}}", f"rate(process_cpu_seconds_total{{{ALL}}}[$__rate_interval])")]),
    ]),
]

WIDTH, HEIGHT, PER_LINE = 6, 7, 4
SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def panel(number, at, of):
    title, unit, description, queries = of
    return {
        "id": number, "type": "timeseries", "title": title, "description": description,
        "datasource": SOURCE,
        "gridPos": {"x": at[0], "y": at[1], "w": WIDTH, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0,
                                     "custom": {"fillOpacity": 8, "showPoints": "never"}},
                        "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"},
                    "tooltip": {"mode": "multi", "sort": "desc"}},
        "targets": [{"refId": chr(ord("A") + i), "datasource": SOURCE, "expr": query,
                     "legendFormat": legend} for i, (legend, query) in enumerate(queries)],
    }


def variable(name, query):
    return {"name": name, "label": name, "type": "query", "datasource": SOURCE, "query": query,
            "definition": query, "includeAll": True, "multi": True, "refresh": 2, "sort": 1,
            "current": {"text": "All", "value": "$__all"}}


def dashboard():
    panels, y = [], 0
    for title, of_row in ROWS:
        panels.append({"id": len(panels) + 1, "type": "row", "title": title, "collapsed": False,
                       "gridPos": {"x": 0, "y": y, "w": 24, "h": 1}, "panels": []})
        y += 1
        for i, each in enumerate(of_row):
            at = (i % PER_LINE * WIDTH, y + i // PER_LINE * HEIGHT)
            panels.append(panel(len(panels) + 1, at, each))
        y += (len(of_row) + PER_LINE - 1) // PER_LINE * HEIGHT
    return {
        "uid": "nearcached", "title": "nearcached", "tags": ["redis", "cache"], "editable": True,
        "schemaVersion": 38, "version": 1, "refresh": "10s", "graphTooltip": 1,
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [
            {"name": "datasource", "label": "datasource", "type": "datasource",
             "query": "prometheus", "current": {}},
            variable("job", "label_values(nearcached_build_info, job)"),
            variable("instance", 'label_values(nearcached_build_info{job=~"$job"}, instance)')]},
        "annotations": {"list": []},
        "panels": panels,
    }


def unknown_metrics(*texts):
    """Names in queries that no metric has."""
    known = set()
    for metric in read_metrics():
        known.add(metric.name)
        if metric.kind == "histogram":
            known |= {f"{metric.name}_{part}" for part in ("bucket", "sum", "count")}
    named = set()
    for text in texts:
        named |= set(re.findall(r"\b(?:nearcached|process)_[a-z_]+", text))
    return sorted(named - known)


def rules():
    """The rule files, without what only says where to read on."""
    for path in sorted((ROOT / "conf" / "prometheus").glob("*.yml")):
        yield re.sub(r"#.*|runbook_url.*", "", path.read_text())


def main():
    unknown = unknown_metrics(json.dumps(ROWS), *rules())
    if unknown:
        print("conf/: queries name metrics that are not there: " + ", ".join(unknown))
        return 1
    fresh = json.dumps(dashboard(), indent=2) + "\n"
    if sys.argv[1:] == ["--check"]:
        if not PAGE.exists() or PAGE.read_text() != fresh:
            print(f"{PAGE.relative_to(ROOT)} is out of date: run scripts/gen_dashboard.py")
            return 1
        return 0
    if sys.argv[1:]:
        sys.exit(__doc__)
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(fresh)
    return 0


if __name__ == "__main__":
    sys.exit(main())
