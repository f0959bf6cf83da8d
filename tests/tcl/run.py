#!/usr/bin/python3
"""Redis's own test suite in external mode: what plain Redis passes must pass through the proxy.

See README.md beside this file. Exit status: 0 as it should be, 1 tests failed that should not, or
passed although exceptions.txt lists them, 2 the suite could not be run.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import random
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT / "tests" / "integration"))
sys.path.insert(0, str(HERE))

from harness.proxy import clean_environment  # noqa: E402
from harness.resp import RawClient  # noqa: E402
from harness.servers import die_with_parent, free_port  # noqa: E402
from source import SourceError, redis_source  # noqa: E402

EXCEPTIONS = HERE / "exceptions.txt"
BINARY = os.environ.get("NEARCACHED_BIN") or str(ROOT / "build" / "nearcached")
# What Redis's own CI starts the server with that its suite talks to from outside, and the tags
# that it leaves out there.
SERVER_OPTIONS = ["--save", "", "--enable-protected-configs", "yes", "--enable-debug-command",
                  "yes", "--enable-module-command", "yes"]
FAST_TAGS = "-slow"
# What a client of the server itself may do, one of the proxy must be allowed; and nothing is cut
# off that the server would let pass.
PROXY_OPTIONS = {"admin-commands": "on", "config-command": "on", "admin": "", "threads": "2",
                 "client-input-limit": "1gb", "client-output-limit": "4gb",
                 "client-output-soft-limit": "0", "request-timeout": "10m", "log-level": "info"}
# Replies are judged, not speed; a unit that says nothing for this long hangs. The slowest test,
# one of unit/hyperloglog, takes 40 s.
SILENCE_SECONDS = 90
UNIT_SECONDS = 600  # with all its rounds
TOTAL_SECONDS = 3600  # units that did not begin by then are not run, and the suite has failed
# A hanging test costs SILENCE_SECONDS and is left out of the next round, up to this many rounds.
MAX_ROUNDS = 10
THE_END = b"The End\n"
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
RESULT = re.compile(r"^\[(ok|err|exception|ignore|skip|testing)\]: (.*)$")


@dataclasses.dataclass
class UnitRun:
    """What came of one unit: {test: status}, why tests failed, and what went wrong around them.

    A test's status is ok, err, hang, ignore. Names that occur again get " #2", " #3".
    """
    results: dict = dataclasses.field(default_factory=dict)
    details: dict = dataclasses.field(default_factory=dict)
    troubles: list = dataclasses.field(default_factory=list)

    def count(self, status):
        return sum(each == status for each in self.results.values())


# -- servers ------------------------------------------------------------------------------------


class Target:
    """A fresh server, with a fresh proxy in front of it or not."""

    def __init__(self, through_proxy, is_cluster):
        self._through_proxy = through_proxy
        self._is_cluster = is_cluster
        self._processes = []

    def __enter__(self):
        self._directory = tempfile.TemporaryDirectory(prefix="nearcached-tcl-")
        server = self.port = free_port()
        options = ["--cluster-enabled", "yes"] if self._is_cluster else ["--databases", "16"]
        self._start("redis", ["redis-server", "--port", str(server), "--dir",
                              self._directory.name, *SERVER_OPTIONS, *options])
        self._wait(server, ["PING"], b"+PONG")
        if self._is_cluster:
            with RawClient(("127.0.0.1", server)) as client:
                client.ok("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
            self._wait(server, ["CLUSTER", "INFO"], b"cluster_state:ok")
        if self._through_proxy:
            self.port = free_port()
            options = dict(PROXY_OPTIONS, listen=f"127.0.0.1:{self.port}",
                           backend=f"redis://127.0.0.1:{server}")
            if self._is_cluster:
                options["present-as"] = "cluster"
            self._start("proxy", [BINARY] + [word for name, value in options.items()
                                             for word in ("--" + name, value)])
            self._wait(self.port, ["SET", "nearcached-is-ready", "1"], b"+OK")
            self._wait(self.port, ["FLUSHALL"], b"+OK")
        return self

    def _start(self, name, command):
        with open(os.path.join(self._directory.name, name + ".log"), "w",
                  encoding="utf-8") as log:
            self._processes.append(subprocess.Popen(
                command, env=clean_environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, preexec_fn=die_with_parent))

    def _wait(self, port, command, expected):
        deadline = time.monotonic() + 30
        reply = None
        while time.monotonic() < deadline:
            try:
                with RawClient(("127.0.0.1", port)) as client:
                    reply = client.ask(*command)
                    if expected in reply:
                        return
            except (OSError, EOFError) as error:
                reply = error
            time.sleep(0.05)
        raise SystemExit(f"port {port} answers {' '.join(command)} with {reply!r}")

    def log(self, name):
        path = pathlib.Path(self._directory.name) / (name + ".log")
        return path.read_text(errors="replace") if path.exists() else ""

    def trouble(self):
        """How a process ended that should be running, or None."""
        for process in self._processes:
            if process.poll() is not None:
                return (f"{os.path.basename(process.args[0])} ended with status "
                        f"{process.returncode}")
        return None

    def __exit__(self, *_):
        for process in reversed(self._processes):
            process.kill()
            process.wait()
        self._directory.cleanup()


# -- the suite ----------------------------------------------------------------------------------


def all_units(tree):
    text = (tree / "tests" / "test_helper.tcl").read_text()
    return re.search(r"set ::all_tests \{(.*?)\}", text, re.S).group(1).split()


def suite_port():
    """Where the suite's own processes talk: it takes the first free port of 32, without care."""
    return random.randrange(10000, 20000)


def suite_output(tree, port, unit, options, left_out, deadline):
    """What the suite prints for one unit, until it ends by itself, hangs, or its time is over."""
    with tempfile.NamedTemporaryFile("w", prefix="nearcached-skip-", encoding="utf-8") as skip:
        skip.write("\n".join(left_out))
        skip.flush()
        command = ["tclsh8.6", str(HERE / "suite.tcl"), "--host", "127.0.0.1", "--port", str(port),
                   "--baseport", str(suite_port() + 32), "--single", unit, "--durable",
                   "--skipfile", skip.name]
        command += ["--tags", options.tags] if options.tags else []
        command += ["--cluster-mode"] if options.mode == "cluster" else []
        process = subprocess.Popen(command, cwd=tree, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                   start_new_session=True)
        try:
            return read_until_silence(process.stdout, options.silence, deadline)
        finally:
            # The suite's own children too: it leaves them behind when it gives up.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            process.stdout.close()


def read_until_silence(pipe, silence, deadline):
    """What comes until the end, or until nothing has come for so many seconds."""
    text = b""
    while time.monotonic() < deadline and select.select([pipe], [], [], silence)[0]:
        data = os.read(pipe.fileno(), 1 << 16)
        if not data:
            break
        text += data
        if THE_END in text:  # its children may outlive it, and keep the pipe open
            break
    return text.decode(errors="replace")


def parse(unit, text):
    """(UnitRun, the test that hung or None)"""
    run, seen, begun, current = UnitRun(), {}, {}, None
    whole, the_end, _ = text.partition(THE_END.decode())
    for line in whole.splitlines():
        line = COLOUR.sub("", line)
        match = RESULT.match(line)
        if match is None:
            if current is not None:
                run.details[current].append(line)
            continue
        status, rest = match.groups()
        if status == "testing":
            begun[rest] = begun.get(rest, 0) + 1
            continue
        current = None
        if status == "exception":
            run.troubles.append(rest)
            continue
        name = re.sub(r" \(\d+ ms\)$", "", rest) if status == "ok" else rest
        if status == "err":
            name, found, _ = rest.partition(f" in tests/{unit}.tcl")
            if not found:  # broke off between tests: the suite reports it without a name
                run.troubles.append(rest)
                continue
        elif status == "ignore":
            name = rest.rpartition(": ")[0]
        name = numbered(name, seen)
        if status != "skip":
            run.results[name] = status
        if status == "err":
            current = name
            run.details[current] = []
    if the_end:
        return run, None
    hung = next((name for name, count in begun.items() if seen.get(name, 0) < count), None)
    if hung is None:
        run.troubles.append(f"the suite broke off: {text.strip()[-300:]}")
    else:
        run.results[numbered(hung, seen)] = "hang"
    return run, hung


def numbered(name, seen):
    seen[name] = seen.get(name, 0) + 1
    return name if seen[name] == 1 else f"{name} #{seen[name]}"


def run_unit(tree, unit, through_proxy, options, log, left_out=()):
    """Runs the unit to its end: a test that hangs is left out of the next round."""
    whole, left_out, deadline = UnitRun(), list(left_out), time.monotonic() + UNIT_SECONDS
    for _ in range(MAX_ROUNDS):
        with Target(through_proxy, options.mode == "cluster") as target:
            text = suite_output(tree, target.port, unit, options, left_out, deadline)
            run, hung = parse(unit, text)
            trouble = target.trouble()
            if trouble is None and through_proxy and "Sanitizer" in target.log("proxy"):
                trouble = "sanitizer report"
            if trouble is not None:
                run.troubles.append(trouble)
            log.write(f"===== {unit} {'proxy' if through_proxy else 'plain'}\n{text}\n")
            if through_proxy:
                log.write(f"----- log of the proxy\n{target.log('proxy')[-20000:]}\n")
            log.flush()
        # The first round knows best; later ones add what comes after the test that hung.
        whole.results = {**run.results, **whole.results}
        whole.details = {**run.details, **whole.details}
        whole.troubles += [each for each in run.troubles if each not in whole.troubles]
        if hung is None or hung in left_out or time.monotonic() >= deadline:
            break
        left_out.append(hung)
    return whole


# -- the judgement ------------------------------------------------------------------------------


# What exceptions.txt says of a test: it fails, is left out as it would hang or spoil what follows,
# or fails now and then. "trouble": what went wrong between tests, in part.
KINDS = ("fails", "skip", "varies", "trouble")


def read_exceptions(path):
    """{(unit, test): kind} of the lines "unit | test | kind | reason"."""
    found = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        parts = [part.strip() for part in line.split(" | ")]
        if len(parts) != 4 or not all(parts) or parts[2] not in KINDS:
            raise SourceError(f"{path}:{number}: not of the form 'unit | test | kind | reason'")
        if (parts[0], parts[1]) in found:
            raise SourceError(f"{path}:{number}: listed twice")
        found[parts[0], parts[1]] = parts[2]
    return found


def report(plain, proxied, again, listed):
    """Prints what came of it; True when it is as it should be.

    plain, proxied: {unit: UnitRun}. again: the second runs of units in which something failed.
    """
    passed = [(unit, name) for unit, run in plain.items()
              for name, status in run.results.items() if status == "ok"]
    good = {key for key in passed if proxied[key[0]].results.get(key[1]) == "ok"}
    flaky = {key for key in passed if key not in good and key[0] in again
             and again[key[0]].results.get(key[1]) == "ok"}
    bad = [key for key in passed if key not in good and key not in flaky]
    unexpected = [key for key in bad if key not in listed]
    needless = [key for key, kind in listed.items() if key in good and kind != "varies"]
    unknown = [key for key, kind in listed.items()
               if key[0] in plain and key not in passed and kind != "trouble"]
    troubles = [(unit, trouble) for unit, run in proxied.items() for trouble in run.troubles
                if trouble not in plain[unit].troubles]
    troubles = [(unit, trouble) for unit, trouble in troubles
                if not any(kind == "trouble" and of == unit and words in trouble
                           for (of, words), kind in listed.items())]
    skipped = [key for key in bad if listed.get(key) == "skip"]
    for unit, name in unexpected:
        status = proxied[unit].results.get(name, "not reached")
        print(f"\nFAIL  {unit} | {name}  ({status})")
        for line in proxied[unit].details.get(name, [])[:6]:
            print(f"        {line[:160]}")
    for unit, trouble in troubles:
        print(f"\nTROUBLE  {unit}: {trouble[:400]}")
    for unit, name in sorted(flaky):
        print(f"\nFLAKY  {unit} | {name}  (failed once, passed when the unit ran again)")
    for unit, name in needless:
        print(f"\nLISTED, BUT PASSES  {unit} | {name}")
    for unit, name in unknown:
        print(f"\nLISTED, BUT PLAIN REDIS DOES NOT PASS IT  {unit} | {name}")
    share = 100 * (len(good) + len(flaky)) / max(1, len(passed))
    print(f"\ntcl-suite: plain Redis passes {len(passed)} tests; through the proxy pass"
          f" {len(good) + len(flaky)} ({share:.1f} %), {len(flaky)} of them at the second try;"
          f" {len(bad) - len(unexpected)} do not as listed in exceptions.txt ({len(skipped)} of"
          f" them left out), {len(unexpected)} unexpectedly")
    return not unexpected and not needless and not unknown and not troubles


def failures(plain, proxied, listed, unit):
    return [name for name, status in plain[unit].results.items() if status == "ok"
            and proxied[unit].results.get(name) != "ok" and (unit, name) not in listed]


# -- from here on, the program ------------------------------------------------------------------


class Baseline:
    """What plain Redis passes, kept from run to run: it changes with the server's version only."""

    def __init__(self, path, key):
        self._path = path
        self._key = key
        self.runs = {}
        if path.exists():
            kept = json.loads(path.read_text(encoding="utf-8"))
            if kept.get("key") == key:
                self.runs = {unit: UnitRun(**run) for unit, run in kept["runs"].items()}

    def add(self, unit, run):
        self.runs[unit] = run
        self._path.write_text(json.dumps({"key": self._key, "runs": {
            name: dataclasses.asdict(each) for name, each in self.runs.items()}}, indent=1),
            encoding="utf-8")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--units", help="units apart by commas, such as unit/multi (default: all)")
    parser.add_argument("--mode", choices=["standalone", "cluster"], default="standalone",
                        help="cluster: a cluster of one node behind, present-as = cluster")
    parser.add_argument("--tags", default=FAST_TAGS, help=f"the suite's tags (default {FAST_TAGS})")
    parser.add_argument("--silence", type=int, default=SILENCE_SECONDS,
                        help="seconds without a result after which a test hangs")
    parser.add_argument("--plain-only", action="store_true", help="measure plain Redis only")
    parser.add_argument("--plain-again", action="store_true", help="forget what plain Redis passed")
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build" / "tcl")
    parser.add_argument("--list", action="store_true", help="the units' names")
    return parser.parse_args()


def without_number(name):
    """The suite leaves out all tests of a name."""
    return re.sub(r" #\d+$", "", name)


def run_all(tree, units, options, baseline, listed):
    proxied, again = {}, {}
    end = time.monotonic() + TOTAL_SECONDS
    with open(options.build / f"{options.mode}.log", "w", encoding="utf-8") as log:
        for unit in units:
            started = time.monotonic()
            if started > end:
                baseline.runs.setdefault(unit, UnitRun())
                proxied[unit] = UnitRun(troubles=["not run: the time was over"])
                continue
            if unit not in baseline.runs or options.plain_again:
                baseline.add(unit, run_unit(tree, unit, False, options, log))
            plain = baseline.runs[unit]
            line = f"{unit:34} plain {plain.count('ok'):4}"
            if not options.plain_only and plain.count("ok"):
                left_out = {without_number(name) for (of, name), kind in listed.items()
                            if of == unit and kind == "skip"}
                proxied[unit] = run_unit(tree, unit, True, options, log, left_out)
                if failures(baseline.runs, proxied, listed, unit):
                    left_out |= {without_number(name) for name, status
                                 in proxied[unit].results.items() if status == "hang"}
                    again[unit] = run_unit(tree, unit, True, options, log, left_out)
                line += f"  proxy {proxied[unit].count('ok'):4}"
            print(f"{line}  {time.monotonic() - started:5.0f} s", flush=True)
    return proxied, again


def main():
    options = parse_arguments()
    try:
        for program in ("tclsh8.6", "redis-server"):
            if shutil.which(program) is None:
                raise SourceError(f"{program} is missing: sudo scripts/install-deps.sh tcl")
        options.build = options.build.resolve()
        options.build.mkdir(parents=True, exist_ok=True)
        tree = redis_source(options.build)
        listed = {} if options.mode == "cluster" else read_exceptions(EXCEPTIONS)
        if options.list:
            print("\n".join(all_units(tree)))
            return 0
        if not options.plain_only and shutil.which(BINARY) is None:
            raise SourceError(f"{BINARY} is not built: make")
    except (SourceError, OSError, subprocess.CalledProcessError) as error:
        print(f"tcl-suite: {error}", file=sys.stderr)
        return 2
    units = options.units.split(",") if options.units else all_units(tree)
    version = subprocess.run(["redis-server", "--version"], capture_output=True, text=True,
                             check=True).stdout.strip()
    baseline = Baseline(options.build / f"plain-{options.mode}.json",
                        f"{version} {tree.name} {options.tags}")
    proxied, again = run_all(tree, units, options, baseline, listed)
    if options.plain_only:
        return 0
    return 0 if report({unit: baseline.runs[unit] for unit in proxied}, proxied, again,
                       {key: kind for key, kind in listed.items() if key[0] in units}) else 1


if __name__ == "__main__":
    sys.exit(main())
