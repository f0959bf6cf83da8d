"""Debian's Prometheus, where it is installed, with the project's rules."""

import pathlib
import shutil
import subprocess

import cluster as redis_cluster

RULES = pathlib.Path(__file__).resolve().parent.parent / "conf" / "prometheus"

CONFIG = """\
global:
  scrape_interval: 2s
  evaluation_interval: 2s
rule_files: [{rules}]
scrape_configs:
  - job_name: nearcached
    static_configs:
      - targets: [{targets}]
"""


class Prometheus:
    """Scrapes the proxies' admin ports until stop()."""

    def __init__(self, admin_ports, directory):
        self._process = None
        program = shutil.which("prometheus")
        if program is None:
            return
        home = pathlib.Path(directory) / "prometheus"
        home.mkdir()
        targets = ", ".join(f"'127.0.0.1:{port}'" for port in admin_ports)
        rules = ", ".join(f"'{path}'" for path in sorted(RULES.glob("*.rules.yml")))
        (home / "prometheus.yml").write_text(CONFIG.format(rules=rules, targets=targets))
        self.port = next(p for p in range(9090, 9590) if redis_cluster.can_bind(p))
        self._process = subprocess.Popen(
            [program, f"--config.file={home}/prometheus.yml", f"--storage.tsdb.path={home}/data",
             f"--web.listen-address=127.0.0.1:{self.port}", "--log.level=error"],
            preexec_fn=redis_cluster.die_with_parent)

    def where(self):
        if self._process is None:
            return "is not installed"
        return f"http://127.0.0.1:{self.port}/graph?g0.expr=cache_hit_rate&g0.tab=0"

    def stop(self):
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
