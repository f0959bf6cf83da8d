"""The Debian package in a Debian: a folder of the test's own, which is also booted.

Proves: lintian has nothing to say; the same sources make the same bytes elsewhere; an installed daemon
runs as its own user, and the unit's restrictions leave it what it needs; an upgrade keeps a changed
configuration and the clients, and does not end a daemon whose configuration the new one would refuse;
nothing is left after a purge; without systemd it can be installed and started as well.
"""

import re
import shutil
import subprocess
import time

import pytest

from building import build
from harness.waiting import wait_until

CONF = "/etc/nearcached/nearcached.conf"


def later(deb, version, folder, *, conf=None):
    """The package as a later version, with another configuration as it is shipped."""
    content = folder / f"content-{version}"
    subprocess.run(["dpkg-deb", "-R", str(deb), str(content)], check=True)
    control = content / "DEBIAN/control"
    control.write_text(re.sub(r"^Version: .*$", f"Version: {version}", control.read_text(),
                              flags=re.M))
    if conf is not None:
        path = content / CONF.lstrip("/")
        path.write_text(path.read_text() + conf)
    result = folder / f"nearcached_{version}.deb"
    subprocess.run(["dpkg-deb", "-b", "--root-owner-group", str(content), str(result)], check=True,
                   stdout=subprocess.DEVNULL)
    return result


def dpkg_install(root, deb, *options, status=0):
    shutil.copy(deb, root / "/root")
    return root.run(["dpkg", "-i", *options, f"/root/{deb.name}"], status=status)


def answers(root, *words, port=6380):
    return root.text(["redis-cli", "-p", str(port), *words], status=None)


def wait_for_answer(root):
    wait_until(lambda: answers(root, "PING") == "PONG", 20, "PONG from the proxy")


def remains(root):
    """What of the package is left, its name in the records of dpkg and the journal apart."""
    records = ("/var/log/", "/var/lib/dpkg/", "/var/cache/", "/root/")
    return sorted(path for path in root.files()
                  if "nearcached" in path and not path.startswith(records))


# --- the package as a file ------------------------------------------------------------------------

def test_lintian_has_nothing_to_say(debs):
    changes = next(debs["nearcached"].parent.glob("*.changes"))
    outcome = subprocess.run(
        ["lintian", "--allow-root", "--display-info", "--fail-on", "error,warning,info",
         str(changes)], capture_output=True, text=True, check=False)
    assert outcome.returncode == 0 and not outcome.stdout.strip(), outcome.stdout


def test_the_same_sources_make_the_same_packages(debs, tmp_path):
    """Elsewhere, under another umask, in another time zone and language."""
    folder = tmp_path / "other/place"
    other = build(folder, environment={"TZ": "Asia/Tokyo", "LC_ALL": "C"}, umask=0o077)
    assert set(other) == set(debs) == {"nearcached", "nearcached-dbgsym"}
    for name, path in debs.items():
        assert path.read_bytes() == other[name].read_bytes(), name


# --- without systemd ------------------------------------------------------------------------------

def test_installed_upgraded_and_purged_without_systemd(system, debs, tmp_path):
    before = system.files()
    dpkg_install(system, debs["nearcached"])
    assert system.text("getent passwd nearcached").endswith(":/nonexistent:/usr/sbin/nologin")
    assert system.text(f"stat -c '%a %U:%G' {CONF}") == "640 root:nearcached"
    # As the unit has it, by the user that the unit names.
    unit = (system / "lib/systemd/system/nearcached.service").read_text()
    command = re.search(r"^ExecStart=(.*)$", unit, re.M).group(1)
    outcome = system.text(
        "redis-server --port 6379 --save '' --daemonize yes >/dev/null; "
        "setpriv --reuid nearcached --regid nearcached --clear-groups "
        f"{command} & "
        "for i in $(seq 100); do [ \"$(redis-cli -p 6380 PING 2>&1)\" = PONG ] && break; "
        "sleep 0.1; done; redis-cli -p 6380 SET k v; redis-cli -p 6380 GET k; "
        "grep '^Uid' /proc/$!/status; id -u nearcached; kill $!; wait $!; echo status $?")
    lines = outcome.splitlines()
    assert lines[:2] == ["OK", "v"] and lines[-1] == "status 0", outcome
    assert set(lines[2].split()[1:]) == {lines[3]} and lines[3] != "0"

    conf = system / CONF
    conf.write_text(conf.read_text() + "[cache]\nmaxmemory = 77mb\n")
    newer = later(debs["nearcached"], "0.1.0+1", tmp_path, conf="\n# newer\n")
    dpkg_install(system, newer, "--force-confdef", "--force-confold")
    assert "maxmemory = 77mb" in conf.read_text()
    assert system.text(f"stat -c '%a %U:%G' {CONF}") == "640 root:nearcached"

    system.run("dpkg -r nearcached")
    assert "maxmemory = 77mb" in conf.read_text()
    assert not (system / "usr/bin/nearcached").exists()
    (system / "etc/nearcached/environment").write_text("NEARCACHED_REQUIREPASS=x\n")
    system.run("dpkg -P nearcached")
    assert not remains(system)
    assert not system.is_true("getent passwd nearcached || getent group nearcached")
    mine = {path for path in system.files() - before
            if not path.startswith(("/root/", "/var/log/", "/var/lib/dpkg/", "/var/lib/redis/"))}
    # adduser and dpkg keep copies of what they change.
    assert not {path for path in mine if not path.endswith("-") and not path.startswith("/var/cache")}


# --- with systemd ---------------------------------------------------------------------------------

class Client:
    """A connection inside the system that stays: bash's own, as nothing else need be there."""

    SCRIPT = r"""exec 3<>/dev/tcp/127.0.0.1/6380
        while read -r command; do
            printf '%s\r\n' "$command" >&3; read -r -t 10 -u 3 line; echo "${line%$'\r'}"
        done"""

    def __init__(self, root):
        self.process = root.start(["bash", "-c", self.SCRIPT])

    def ask(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def close(self):
        self.process.stdin.close()
        self.process.wait(20)


def main_pid(root):
    return int(root.text("systemctl show --property=MainPID --value nearcached"))


def drop_in(root, text):
    folder = root / "etc/systemd/system/nearcached.service.d"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "test.conf").write_text(text)
    root.run("systemctl daemon-reload")


def metric(root, name):
    text = root.text(["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/9380; "
                      "printf 'GET /metrics HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3"])
    return float(re.search(rf"^{name} (\S+)$", text, re.M).group(1))


def test_a_booted_system_runs_it_and_the_unit_leaves_it_what_it_needs(system, debs):
    system.boot()
    dpkg_install(system, debs["nearcached"])
    assert system.text("systemctl is-active nearcached; systemctl is-enabled nearcached; "
                       "systemctl is-enabled nearcached.socket", status=None).split() == \
        ["active", "enabled", "disabled"]
    wait_for_answer(system)
    wait_until(lambda: answers(system, "SET", "k", "v") == "OK", 20, "the backend")
    assert answers(system, "GET", "k") == "v"

    status = system.text(f"cat /proc/{main_pid(system)}/status")
    uid = system.text("id -u nearcached")
    assert re.search(r"^Uid:\s+(.*)$", status, re.M).group(1).split() == [uid] * 4
    assert re.search(r"^CapEff:\s+0+$", status, re.M) and re.search(r"^NoNewPrivs:\s+1$", status, re.M)
    assert re.search(r"^Seccomp:\s+2$", status, re.M)

    # A Unix socket, TLS with a key that only the group may read, passwords in the environment file.
    system.run("cd /etc/nearcached && openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem "
               "-out cert.pem -subj /CN=localhost -days 2 2>/dev/null && "
               "chgrp nearcached key.pem && chmod 640 key.pem")
    (system / "etc/nearcached/environment").write_text("NEARCACHED_REQUIREPASS=secret\n")
    conf = system / CONF
    conf.write_text("[server]\nlisten = 127.0.0.1:6380 unix:/run/nearcached/nearcached.sock\n"
                    "[tls]\ntls-listen = 127.0.0.1:6390\ntls-cert-file = /etc/nearcached/cert.pem\n"
                    "tls-key-file = /etc/nearcached/key.pem\n")
    drop_in(system, "[Service]\nMemoryMax=200M\n")
    system.run("systemctl restart nearcached")
    wait_for = {"TLS": "redis-cli -p 6390 --tls --cacert /etc/nearcached/cert.pem --sni localhost "
                       "-a secret --no-auth-warning PING",
                "the socket": "redis-cli -s /run/nearcached/nearcached.sock -a secret "
                              "--no-auth-warning PING"}
    for name, command in wait_for.items():
        wait_until(lambda: system.text(command, status=None) == "PONG", 20, name)
    assert "NOAUTH" in answers(system, "GET", "k")
    # The sandbox does not hide the limits of its cgroup: the budget is what MemoryMax says, less a
    # margin, where the folder's systemd has a memory controller at all.
    if "memory" in system.text("cat /sys/fs/cgroup/cgroup.controllers 2>/dev/null || "
                               "ls /sys/fs/cgroup", status=None):
        limit = system.text("cat /sys/fs/cgroup/system.slice/nearcached.service/memory.max "
                            "/sys/fs/cgroup/memory/system.slice/nearcached.service/"
                            "memory.limit_in_bytes 2>/dev/null", status=None)
        if limit == str(200 << 20):
            wait_until(lambda: 0 < metric(system, "nearcached_process_memory_limit_bytes")
                       < 200 << 20, 10, "the cgroup's limit")

    # Reload, and what a kill -9 costs: nothing.
    conf.write_text(conf.read_text() + "[cache]\nmaxmemory = 33mb\n")
    system.run("systemctl reload nearcached")
    wait_until(lambda: "33mb" in system.text(
        "redis-cli -p 6380 -a secret --no-auth-warning CACHE CONFIG GET maxmemory"),
               20, "the reload")
    before = main_pid(system)
    system.run("systemctl kill -s KILL nearcached")
    wait_until(lambda: main_pid(system) not in (0, before), 20, "the restart")

    system.run("dpkg -P nearcached")
    assert system.text("systemctl is-active nearcached", status=None) != "active"
    assert not system.is_true("test -e /run/nearcached")


def test_an_upgrade_keeps_clients_and_configuration(system, debs, tmp_path):
    system.boot()
    dpkg_install(system, debs["nearcached"])
    wait_until(lambda: answers(system, "SET", "k", "v") == "OK", 20, "the backend")
    conf = system / CONF
    conf.write_text(conf.read_text() + "[cache]\nmaxmemory = 77mb\n")
    client = Client(system)
    assert client.ask("CLIENT SETNAME stays") == "+OK"
    number, pid = client.ask("CLIENT ID"), main_pid(system)

    newer = later(debs["nearcached"], "0.1.0+1", tmp_path, conf="\n# newer\n")
    begin = time.monotonic()
    dpkg_install(system, newer, "--force-confdef", "--force-confold")
    assert time.monotonic() - begin < 60
    assert main_pid(system) not in (0, pid)
    assert "maxmemory = 77mb" in conf.read_text() and "# newer" not in conf.read_text()
    assert client.ask("CLIENT ID") == number and client.ask("PING") == "+PONG"
    # The former process has nobody left and ends; systemd takes the new one for the main process.
    wait_until(lambda: not system.is_true(f"test -e /proc/{pid}"), 30, "the end of the former")
    assert client.ask("PING") == "+PONG"
    assert system.text("systemctl is-active nearcached", status=None) == "active"

    # A configuration that the new version refuses: the old one goes on, and dpkg says why.
    pid = main_pid(system)
    conf.write_text(conf.read_text() + "nonsense = 1\n")
    newest = later(debs["nearcached"], "0.1.0+2", tmp_path)
    outcome = dpkg_install(system, newest, "--force-confdef", "--force-confold")
    assert "the old one goes on" in outcome.stderr and "nonsense" in outcome.stderr
    assert main_pid(system) == pid and client.ask("PING") == "+PONG"
    client.close()

    # Sockets that somebody enabled end with the package, and are not enabled afterwards.
    conf.write_text(conf.read_text().replace("nonsense = 1\n", ""))
    system.run("systemctl stop nearcached && systemctl enable --now nearcached.socket && "
               "systemctl start nearcached")
    wait_for_answer(system)
    system.run("dpkg -r nearcached")
    assert "77mb" in conf.read_text()
    assert system.text("systemctl is-active nearcached.socket nearcached", status=None).split() == \
        ["inactive", "inactive"]
    system.run("dpkg -P nearcached")
    assert not remains(system)
    assert not system.is_true("getent passwd nearcached || getent group nearcached")


def test_a_daemon_that_was_disabled_stays_so(system, debs, tmp_path):
    system.boot()
    dpkg_install(system, debs["nearcached"])
    system.run("systemctl disable --now nearcached")
    dpkg_install(system, later(debs["nearcached"], "0.1.0+1", tmp_path))
    assert system.text("systemctl is-enabled nearcached; systemctl is-active nearcached",
                       status=None).split() == ["disabled", "inactive"]
