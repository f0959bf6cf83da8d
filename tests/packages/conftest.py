"""Fixtures of `make package-test`: packages of this tree, and systems to install them in."""

import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import rootfs  # noqa: E402
from building import build  # noqa: E402

# Beside what the package depends on: a system that boots, a backend, and a client.
SYSTEM = ["systemd", "systemd-sysv", "dbus", "adduser", "ca-certificates", "redis-server",
          "redis-tools", "openssl"]


def pytest_collection_modifyitems(items):
    if os.geteuid() == 0 and shutil.which("systemd-nspawn") and shutil.which("debootstrap"):
        return
    for item in items:
        if "system" in item.fixturenames or "minimal" in item.fixturenames:
            item.add_marker(pytest.mark.skip(
                reason="needs root, systemd-nspawn and debootstrap"))


@pytest.fixture(scope="session")
def debs():
    """The packages of this tree, built here and now."""
    return build(rootfs.ROOT / "build" / "deb")


@pytest.fixture(scope="session")
def minimal():
    """As debian:12-slim: nothing but what every Debian has. Not to be changed."""
    return rootfs.bootstrap("minimal", [])


@pytest.fixture(scope="session")
def _base(debs, minimal):
    text = subprocess.run(["dpkg-deb", "-f", str(debs["nearcached"]), "Depends"],
                          capture_output=True, text=True, check=True).stdout
    needed = {re.split(r"[ (|]", word.strip())[0] for word in text.split(",")}
    return rootfs.bootstrap("base", sorted({*SYSTEM, *needed} - {""}), minimal)


@pytest.fixture
def system(_base, request):
    """A Debian 12 with what the package depends on, of the test's own."""
    root = _base.copy_to(request.node.name.replace("test_", "")[:40])
    yield root
    root.shut_down()
    root.remove()
