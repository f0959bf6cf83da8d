"""/metrics as a dictionary."""

import re
import urllib.error
import urllib.request

from .waiting import SCALE

SAMPLE = re.compile(r'^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)(?: -?\d+)?$')
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"(?:,|$)')
PREFIX = "nearcached_"


def http_get(address, path):
    """(status, body as text) of GET path."""
    url = f"http://{address[0]}:{address[1]}{path}"
    try:
        with urllib.request.urlopen(url, timeout=10 * SCALE) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


class Metrics:
    """One scrape: {(name, frozenset of (label, value) pairs): number}."""

    def __init__(self, text):
        self.text = text
        self.samples = {}
        for line in text.splitlines():
            if not line or line.startswith("#"):
                continue
            match = SAMPLE.match(line)
            if match is None:
                raise ValueError(f"not a sample line: {line!r}")
            name, labels, value = match.groups()
            key = (name, frozenset(LABEL.findall(labels or "")))
            if key in self.samples:
                raise ValueError(f"the same sample twice: {line!r}")
            self.samples[key] = float(value)

    def get(self, name, **labels):
        """Sum over the samples of nearcached_<name> that carry these labels; 0 if there is none."""
        wanted = set(labels.items())
        return sum(value for (sample, found), value in self.samples.items()
                   if sample == PREFIX + name and wanted <= found)

    def has(self, name, **labels):
        wanted = set(labels.items())
        return any(sample == PREFIX + name and wanted <= found
                   for sample, found in self.samples)


def scrape(address):
    status, text = http_get(address, "/metrics")
    assert status == 200, f"/metrics answered {status}: {text[:200]}"
    return Metrics(text)
