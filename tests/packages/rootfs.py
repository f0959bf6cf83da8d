"""Folders with a Debian system in them: commands there, and whole boots, by systemd-nspawn."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests/integration"))

from harness.servers import die_with_parent  # noqa: E402
from harness.waiting import wait_until  # noqa: E402

FOLDER = ROOT / "build" / "rootfs"
MIRROR = os.environ.get("DEBIAN_MIRROR", "http://deb.debian.org/debian")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Not: what the machine's own systemd may know of us. That is none of a test's business.
NSPAWN = ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit"]
COMMAND_SECONDS = 600


class Root:
    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self._machine = None
        self._leader = None

    def __truediv__(self, path):
        return self.folder / str(path).lstrip("/")

    # -- as a folder

    def copy_to(self, name):
        other = Root(FOLDER / name)
        other.remove()
        subprocess.run(["cp", "-a", "--reflink=auto", str(self.folder), str(other.folder)],
                       check=True)
        return other

    def remove(self):
        """Only what lies in our own folder, and nothing while something is mounted in it."""
        assert self.folder.parent == FOLDER
        mounts = pathlib.Path("/proc/self/mounts").read_text()
        assert f" {self.folder}/" not in mounts, f"mounted below {self.folder}"
        shutil.rmtree(self.folder, ignore_errors=True)

    def files(self):
        """What find sees, without what is not on the disk."""
        return {"/" + str(path.relative_to(self.folder)) for path in self.folder.rglob("*")
                if path.relative_to(self.folder).parts[0] not in ("proc", "sys", "dev", "run", "tmp")}

    # -- commands

    @staticmethod
    def _words(command, environment, user):
        words = {"PATH": PATH, "LC_ALL": "C.UTF-8", "HOME": "/root",
                 "DEBIAN_FRONTEND": "noninteractive", **(environment or {})}
        variables = [f"{name}={value}" for name, value in words.items()]
        shell = ["sh", "-c", command] if isinstance(command, str) else list(command)
        login = []
        if user:
            uid, gid = user.split(":")
            login = ["setpriv", "--reuid", uid, "--regid", gid, "--clear-groups"]
        return ["env", "-i", *variables, *login, *shell]

    def _arguments(self, command, environment, user, network):
        words = self._words(command, environment, user)
        if self._leader is not None:
            return ["nsenter", "-t", str(self._leader), "-m", "-u", "-i", "-n", "-p", "-C",
                    "--root", "--wd", *words]
        return [*NSPAWN, "-D", str(self.folder), "--pipe",
                *([] if network else ["--private-network"]), *words]

    def run(self, command, *, environment=None, user=None, network=False, status=0):
        """A CompletedProcess with texts; status: what it has to be, None: anything."""
        outcome = subprocess.run(
            self._arguments(command, environment, user, network), stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False)
        assert status is None or outcome.returncode == status, (
            f"{command}: status {outcome.returncode}\n{outcome.stdout[-4000:]}\n"
            f"{outcome.stderr[-4000:]}")
        return outcome

    def text(self, command, **keywords):
        return self.run(command, **keywords).stdout.strip()

    def is_true(self, command):
        return self.run(command, status=None).returncode == 0

    def start(self, command, **keywords):
        """A Popen with pipes."""
        return subprocess.Popen(
            self._arguments(command, keywords.get("environment"), keywords.get("user"), False),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            preexec_fn=die_with_parent)

    # -- containers, and boots: from then on commands run in there

    def contain(self, command, environment, user):
        """Starts command as process 1, with a root that it cannot write to."""
        self._start_machine(["--read-only", "--pipe", *self._words(command, environment, user)],
                            pathlib.Path(command[0]).name)
        return self

    def boot(self):
        """Starts its systemd, and waits until that has started all."""
        self._start_machine(["--boot"], "systemd")
        wait_until(lambda: self.text("systemctl is-system-running", status=None)
                   in ("running", "degraded"), 120, "the system to be up")
        return self

    def _start_machine(self, arguments, name):
        with open(self.log_path(), "wb") as log:
            self._machine = subprocess.Popen(
                [*NSPAWN, "-D", str(self.folder), "--private-network", *arguments],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=die_with_parent)
        self._leader = wait_until(lambda: self._find_leader(name), 30, f"{name} as process 1")

    def log_path(self):
        return FOLDER / (self.folder.name + ".log")

    def _find_leader(self, wanted):
        pid = self._machine.pid
        assert self._machine.poll() is None, "systemd-nspawn ended"
        children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for child in children:
            try:
                text = pathlib.Path(f"/proc/{child}/status").read_text()
                name = pathlib.Path(f"/proc/{child}/comm").read_text().strip()
            except OSError:
                continue
            ids = [line.split() for line in text.splitlines() if line.startswith("NSpid:")]
            if ids and ids[0][-1] == "1" and name == wanted[:15]:
                return int(child)
        return None

    def stop(self, seconds=30):
        """SIGTERM to process 1; its status."""
        os.kill(self._leader, signal.SIGTERM)
        status = self._machine.wait(seconds)
        self._machine = self._leader = None
        return status

    def shut_down(self):
        if self._machine is None:
            return
        if (self / "usr/bin/systemctl").exists():
            self.run("systemctl poweroff", status=None)
        else:
            os.kill(self._leader, signal.SIGKILL)
        try:
            self._machine.wait(60)
        except subprocess.TimeoutExpired:
            os.kill(self._leader, signal.SIGKILL)
            self._machine.wait(30)
        self._machine = self._leader = None


def bootstrap(name, packages, origin=None):
    """A minimal Debian 12, or a copy of origin with packages; made once, and again when these are
    others."""
    root = Root(FOLDER / name)
    stamp = FOLDER / (name + ".packages")
    wanted = " ".join(sorted(packages)) + "\n"
    if stamp.exists() and stamp.read_text() == wanted and root.folder.is_dir():
        return root
    FOLDER.mkdir(parents=True, exist_ok=True)
    root.remove()
    if origin is None:
        outcome = subprocess.run(
            ["debootstrap", "--variant=minbase", "bookworm", str(root.folder), MIRROR],
            capture_output=True, text=True, check=False)
        assert outcome.returncode == 0, outcome.stdout[-3000:] + outcome.stderr[-1000:]
    else:
        origin.copy_to(name)
        root.run("apt-get update -qq && apt-get install -y -qq --no-install-recommends "
                 + " ".join(packages), network=True)
    stamp.write_text(wanted)
    return root
