"""Redis's sources from Debian's source package, unpacked below the build directory.

The system's own apt configuration stays as it is: its deb lines are copied, as deb-src, to a
configuration that nothing else reads.
"""

import pathlib
import re
import shutil
import subprocess

APT = pathlib.Path("/etc/apt")


class SourceError(Exception):
    """The suite cannot be run; says why."""


def _stanzas(text):
    """Stanzas of a .sources file as dicts; continued lines are joined."""
    for stanza in re.split(r"\n\s*\n", re.sub(r"(?m)^#.*\n?", "", text)):
        lines = re.sub(r"\n[ \t]+", " \x00", stanza).splitlines()
        fields = dict(line.split(":", 1) for line in lines if ":" in line)
        if fields:
            yield {name.strip().lower(): value.replace("\x00", "\n ").strip()
                   for name, value in fields.items()}


def _lines(text):
    """Lines of a .list file as such stanzas."""
    for line in text.splitlines():
        match = re.match(r"\s*deb\s+(?:\[(.*?)\]\s+)?(\S+)\s+(\S+)\s+(.+?)\s*$", line)
        if match:
            options, uri, suite, components = match.groups()
            stanza = {"uris": uri, "suites": suite, "components": components}
            signed = re.search(r"signed-by=(\S+)", options or "")
            if signed:
                stanza["signed-by"] = signed.group(1)
            yield stanza


def _deb_src(codename):
    """The distribution's own entries of the system's apt configuration, as deb-src stanzas."""
    found = []
    for path in [APT / "sources.list", *sorted((APT / "sources.list.d").glob("*"))]:
        if path.is_file() and path.suffix in (".list", ".sources"):
            read = _stanzas if path.suffix == ".sources" else _lines
            found += read(path.read_text(encoding="utf-8"))
    stanzas = []
    for stanza in found:
        suites = [suite for suite in stanza.get("suites", "").split()
                  if suite == codename or suite.startswith(codename + "-")]
        if suites:
            fields = {"Types": "deb-src", "URIs": stanza["uris"], "Suites": " ".join(suites),
                      "Components": stanza.get("components", "main"),
                      "Signed-By": stanza.get("signed-by")}
            stanzas.append("".join(f"{name}: {value}\n" for name, value in fields.items()
                                   if value))
    return "\n".join(stanzas)


def _codename():
    match = re.search(r"(?m)^VERSION_CODENAME=\"?(\w+)",
                      pathlib.Path("/etc/os-release").read_text(encoding="utf-8"))
    return match.group(1) if match else "?"


def _download(build):
    for program in ("apt-get", "dpkg-source"):
        if shutil.which(program) is None:
            raise SourceError(f"{program} is missing: sudo scripts/install-deps.sh tcl")
    stanzas = _deb_src(_codename())
    if not stanzas:
        raise SourceError(f"no packages of the distribution named in {APT}/sources.list")
    apt = build / "apt"
    for directory in ("sources.list.d", "lists/partial", "cache/archives/partial"):
        (apt / directory).mkdir(parents=True, exist_ok=True)
    (apt / "sources.list.d" / "source.sources").write_text(stanzas, encoding="utf-8")
    command = ["apt-get", "-qq"]
    for option in (f"Dir::Etc::SourceParts={apt}/sources.list.d", "Dir::Etc::SourceList=/dev/null",
                   f"Dir::State::Lists={apt}/lists", f"Dir::Cache={apt}/cache",
                   "APT::Sandbox::User=root"):
        command += ["-o", option]
    version = subprocess.run(["dpkg-query", "-W", "-f", "${source:Version}", "redis-server"],
                             capture_output=True, text=True, check=False).stdout.strip()
    subprocess.run(command + ["update"], check=True)
    # The version that is installed; where the archive has moved on, the one that it has.
    for package in ([f"redis={version}"] if version else []) + ["redis"]:
        done = subprocess.run(command + ["source", package], cwd=build, capture_output=True,
                              text=True, check=False)
        if done.returncode == 0:
            shutil.rmtree(apt)
            return
    raise SourceError(f"apt-get source redis: {done.stderr.strip()}")


def redis_source(build):
    """The unpacked tree; fetched on first use, and not half: the programs the suite calls are
    the installed ones."""
    stamp = build / "unpacked"
    if not stamp.exists():
        for old in build.glob("redis-*"):
            shutil.rmtree(old, ignore_errors=True)
        _download(build)
        stamp.write_text(next(build.glob("redis-*/runtest")).parent.name, encoding="utf-8")
    tree = build / stamp.read_text(encoding="utf-8").strip()
    for name in ("server", "cli", "benchmark", "check-aof", "check-rdb", "sentinel"):
        program, link = shutil.which(f"redis-{name}"), tree / "src" / f"redis-{name}"
        if program and not link.is_symlink():
            link.symlink_to(program)
    return tree
