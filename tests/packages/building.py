"""Debian packages of this tree."""

import os
import pathlib
import subprocess

import rootfs


def build(folder, **keywords):
    """Runs scripts/build_deb.sh; its packages by name."""
    environment = {**os.environ, "DEB_BUILD_OPTIONS": "nocheck", **keywords.pop("environment", {})}
    subprocess.run([str(rootfs.ROOT / "scripts/build_deb.sh"), str(folder)], env=environment,
                   check=True, stdout=subprocess.DEVNULL, **keywords)
    return {path.name.split("_")[0]: path for path in pathlib.Path(folder).glob("*.deb")}
