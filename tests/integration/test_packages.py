"""What people install the daemon with says what is so: make install, make dist, the systemd units,
debian/, the Dockerfile, conf/kubernetes.

Proves: install puts the same files everywhere and uninstall takes them away; the tarball has the same
bytes wherever it is made; the units pass systemd-analyze, with an exposure of at most 2.0; every
package, path, port, flag, variable, option, probe and user that the Dockerfile and the manifests name
exists, and the configurations among them load. tests/packages builds and installs for real.
"""

import configparser
import json
import os
import pathlib
import re
import shutil
import subprocess

import pytest
import yaml

from harness import dockerfile, metrics
from harness.proxy import BINARY, run_binary
from harness.servers import ROOT, free_port
from harness.waiting import SCALE

pytestmark = pytest.mark.needs_proxy

KUBERNETES = ROOT / "conf" / "kubernetes"
VARIANTS = ("sidecar", "daemonset")
MAX_EXPOSURE = 2.0
DEBIAN_12 = pathlib.Path("/etc/debian_version")


def version():
    text = (ROOT / "src/base/version.h").read_text()
    return re.search(r'#define NC_VERSION "(.*)"', text).group(1)


def options():
    """{name: (section, default)} of --describe."""
    found, section = {}, None
    for line in run_binary("--describe", "config").stdout.splitlines():
        if match := re.fullmatch(r"\[(\S+).*\]", line):
            section = match.group(1)
        elif match := re.fullmatch(r"([a-z][a-z0-9-]*) = ?(.*)", line):
            found[match.group(1)] = (section, match.group(2))
    assert len(found) > 50
    return found


def is_variable(name, known):
    return name.startswith("NEARCACHED_") and \
        name[len("NEARCACHED_"):].lower().replace("_", "-") in known


def http_paths():
    """Paths of the admin port, from the table that answers them."""
    text = (ROOT / "src/admin/http.c").read_text()
    table = re.search(r"pages\[\] = \{(.*?)\n\};", text, re.S).group(1)
    paths = re.findall(r'^\s*\{"(/[^"]*)"', table, re.M)
    assert "/metrics" in paths
    return paths


# --- make install, make dist ----------------------------------------------------------------------

def make(*arguments, cwd=ROOT):
    """The program is not built again: -o takes it, and what it is made of, as new."""
    environment = {name: value for name, value in os.environ.items()
                   if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "FLAVOUR")}
    return subprocess.run(["make", "-s", "-o", "all", *arguments], cwd=cwd, env=environment,
                          check=True, capture_output=True, text=True, timeout=60 * SCALE)


def files_below(folder):
    return {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}


def install(folder, *arguments):
    # Those of another flavour will do: what is looked at is where things go.
    programs = f"PROGRAMS={shutil.which(BINARY)} {shutil.which(f'{BINARY}-top')}"
    make("install", f"DESTDIR={folder}", programs, *arguments)
    return files_below(folder)


def test_install_and_uninstall_are_about_the_same_files(tmp_path):
    found = install(tmp_path, "PREFIX=/usr")
    expected = {"usr/bin/nearcached", "usr/bin/nearcached-top",
                "etc/nearcached/nearcached.conf"}
    expected |= {f"usr/lib/systemd/system/{path.name}" for path in (ROOT / "systemd").iterdir()}
    expected |= {f"usr/share/man/man{path.suffix[1:]}/{path.name}"
                 for path in (ROOT / "docs").glob("*.[1-8]")}
    documents = "usr/share/doc/nearcached/"
    expected |= {documents + path.name for path in (ROOT / "docs").glob("*.md")}
    expected |= {documents + name for name in ("README.md", "CHANGELOG.md", "LICENSE")}
    expected |= {f"{documents}examples/{path.relative_to(ROOT / 'conf')}"
                 for path in (ROOT / "conf").glob("*/**/*") if path.is_file()}
    assert set(found) == expected
    for name, path in found.items():
        assert path.stat().st_mode & 0o777 == (0o755 if "/bin/" in name else 0o644), name

    make("uninstall", f"DESTDIR={tmp_path}", "PREFIX=/usr")
    assert not files_below(tmp_path)


def test_paths_in_the_unit_follow_the_prefix(tmp_path):
    for prefix, conf in (("/usr", "/etc"), ("/opt/x", "/opt/x/etc"), ("/usr/local", None)):
        conf = conf or "/usr/local/etc"
        found = install(tmp_path / prefix.strip("/").replace("/", "-"), f"PREFIX={prefix}")
        unit = found[f"{prefix[1:]}/lib/systemd/system/nearcached.service"].read_text()
        assert f"ExecStart={prefix}/bin/nearcached --config {conf}/nearcached/nearcached.conf" in unit
        assert f"{conf[1:]}/nearcached/nearcached.conf" in found
        assert f"EnvironmentFile=-{conf}/nearcached/environment" in unit


def test_a_changed_configuration_survives_install_and_uninstall(tmp_path):
    conf = install(tmp_path)["usr/local/etc/nearcached/nearcached.conf"]
    conf.write_text("[cache]\nmaxmemory = 77mb\n")
    found = install(tmp_path)
    assert conf.read_text() == "[cache]\nmaxmemory = 77mb\n"
    assert found["usr/local/etc/nearcached/nearcached.conf.new"].read_text() == \
        (ROOT / "conf/nearcached.conf").read_text()
    make("uninstall", f"DESTDIR={tmp_path}")
    assert "usr/local/etc/nearcached/nearcached.conf" in files_below(tmp_path)


def test_the_tarball_has_the_same_bytes_wherever_it_is_made(tmp_path):
    if subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True,
                      check=False).returncode != 0:
        pytest.skip("not a git checkout: make dist is of a commit")
    found = []
    for folder, umask, zone, language in (("here", 0o022, "UTC", "C"),
                                          ("far/away", 0o077, "Asia/Tokyo", "C.UTF-8")):
        path = tmp_path / folder
        environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TZ": zone,
                       "LC_ALL": language}
        # A checkout made and used under this umask, by whoever runs the tests.
        subprocess.run(
            ["sh", "-c", f"umask {umask:o} && git -c safe.directory='*' clone -q --shared "
             "\"$0\" \"$1\" && make -s -C \"$1\" dist", str(ROOT), str(path)],
            env=environment, check=True, capture_output=True, timeout=60 * SCALE)
        tarballs = list((path / "build").glob("*.tar.gz"))
        assert [tarball.name for tarball in tarballs] == [f"nearcached-{version()}.tar.gz"]
        found.append(tarballs[0].read_bytes())
    assert found[0] == found[1]


# --- systemd --------------------------------------------------------------------------------------

@pytest.fixture
def installed_units(tmp_path):
    """The units as installed, by name, with a root in which their programs are."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    found = install(tmp_path, "PREFIX=/usr")
    # verify looks whether the program is there: here.
    for name, path in found.items():
        if "/systemd/" in name:
            path.write_text(path.read_text().replace("/usr/bin/nearcached",
                                                     f"{tmp_path}/usr/bin/nearcached"))
    return tmp_path / "usr/lib/systemd/system"


def test_systemd_finds_nothing_wrong_with_the_units(installed_units):
    outcome = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *map(str, sorted(installed_units.iterdir()))],
        capture_output=True, text=True, timeout=60 * SCALE, check=False)
    # What it says of the machine's own units is not ours.
    ours = [line for line in outcome.stderr.splitlines() if "nearcached" in line]
    assert not ours
    assert outcome.returncode == 0, outcome.stderr


def test_the_exposure_of_the_unit_is_low(installed_units):
    outcome = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", f"--threshold={MAX_EXPOSURE * 10:g}",
         str(installed_units / "nearcached.service")],
        capture_output=True, text=True, timeout=60 * SCALE, check=False)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    exposure = float(re.search(r"exposure level for \S+: ([\d.]+)", outcome.stdout).group(1))
    assert exposure <= MAX_EXPOSURE


def test_the_unit_allows_what_the_daemon_does():
    """tests/packages starts it so; this says which lines must not be tightened without that."""
    unit = (ROOT / "systemd/nearcached.service").read_text()
    lines = [line for line in unit.splitlines() if "=" in line and not line.startswith("#")]
    # The successor of an upgrade says that it is the main process, and is started by exec.
    assert "NotifyAccess=all" in lines
    assert "SystemCallFilter=@system-service" in lines
    # Pressure is read in /proc/pressure, limits in /sys/fs/cgroup.
    assert not [line for line in lines if line.startswith(("ProcSubset", "NoExecPaths"))]
    assert "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX" in lines
    seconds = int(re.search(r"^TimeoutStopSec=(\d+)s", unit, re.M).group(1))
    assert seconds > int(options()["drain-timeout"][1].rstrip("s"))


# --- debian/ --------------------------------------------------------------------------------------

def stanzas(path):
    return [dict(re.findall(r"^(\S+):((?:.*)(?:\n[ \t].*)*)", text, re.M))
            for text in re.sub(r"^#.*\n", "", path.read_text(), flags=re.M).split("\n\n")]


def dependency_groups():
    text = (ROOT / "scripts/install-deps.sh").read_text()
    return {name: words.split() for name, words in
            re.findall(r'^\s+\[(\w+)\]="([^"]*)"', text, re.M)}


def test_debian_says_the_version_and_the_packages_that_are_true():
    first = (ROOT / "debian/changelog").read_text().splitlines()[0]
    assert first.split()[1] == f"({version()})"
    control = stanzas(ROOT / "debian/control")
    named = {word.split()[0] for word in control[0]["Build-Depends"].split(",") if word.strip()}
    # What every Debian has for building packages needs no mention.
    wanted = set(dependency_groups()["build"]) - {"gcc", "make", "libc6-dev"}
    assert named == wanted | {"debhelper-compat", "libcmocka-dev"}
    assert [each.get("Package", "").strip() for each in control[1:]] == ["nearcached"]


def test_every_unit_is_handled_by_the_packages_scripts():
    """A unit that debhelper is not told of would neither be stopped nor purged."""
    rules = (ROOT / "debian/rules").read_text()
    for unit in (ROOT / "systemd").iterdir():
        assert re.search(rf"(?<=\s){re.escape(unit.name)}", rules), unit.name
    user = re.search(r"^User=(\S+)$", (ROOT / "systemd/nearcached.service").read_text(), re.M)
    assert f"--gecos 'nearcached' {user.group(1)}" in (ROOT / "debian/nearcached.postinst").read_text()


def test_maintainer_scripts_are_posix_shell():
    for name in ("postinst", "prerm", "postrm"):
        path = ROOT / f"debian/nearcached.{name}"
        assert path.read_text().startswith("#!/bin/sh\n") and "#DEBHELPER#" in path.read_text()
        subprocess.run(["sh", "-n", str(path)], check=True)
        if shutil.which("shellcheck"):
            subprocess.run(["shellcheck", "-s", "sh", str(path)], check=True)


# --- Dockerfile -----------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def stages():
    return dockerfile.read(ROOT / "Dockerfile")


def debian_has(packages):
    """Those of packages that Debian 12 has not, by apt's lists."""
    if not DEBIAN_12.exists() or not DEBIAN_12.read_text().startswith("12"):
        pytest.skip("this machine's packages are not those of Debian 12")
    text = subprocess.run(["apt-cache", "pkgnames"], capture_output=True, text=True,
                          check=False).stdout
    status = subprocess.run(["dpkg-query", "-W", "-f", "${Package}\n", *packages],
                            capture_output=True, text=True, check=False).stdout
    known = set(text.split()) | set(status.split())
    if "redis-server" not in text.split():
        pytest.skip("apt has no lists of packages (apt-get update)")
    return [package for package in packages if package not in known]


def test_packages_that_images_and_scripts_name_exist(stages):
    wanted = {package for stage in stages for package in stage.apt_packages()}
    assert len(wanted) > 5
    for group, names in dependency_groups().items():
        wanted |= set(names)
    assert not debian_has(sorted(wanted))


def test_the_image_has_the_libraries_of_the_program_and_no_others(stages):
    """By which packages the libraries are of that the programs are linked with."""
    if shutil.which("dpkg-query") is None or shutil.which("readelf") is None:
        pytest.skip("needs dpkg and readelf")
    paths = set()
    for program in (BINARY, f"{BINARY}-top"):
        text = subprocess.run(["readelf", "-d", program], capture_output=True, text=True,
                              check=True).stdout
        needed = set(re.findall(r"\(NEEDED\)\s+Shared library: \[(.*)\]", text))
        where = subprocess.run(["ldd", program], capture_output=True, text=True,
                               check=True).stdout
        paths |= {path for name, path in re.findall(r"(\S+) => (/\S+)", where)
                  if name in needed}
    # dpkg knows a file by one of its names: /lib is a link to /usr/lib.
    names = {name for path in paths
             for name in (path, path.removeprefix("/usr"), os.path.realpath(path))}
    owners = subprocess.run(["dpkg-query", "-S", *sorted(names)], capture_output=True, text=True,
                            check=False).stdout
    packages = set(re.findall(r"^([^:,\s]+)(?::\w+)?: ", owners, re.M))
    assert len(packages) > 5
    in_image = set(stages[-1].apt_packages()) - {"ca-certificates"}
    # libc6 and what bash needs are there already; sanitizers' runtimes are a flavour's.
    there = r"libc6|libtinfo6|lib[a-z]+san\d+|libgcc-s1"
    assert {name for name in packages if not re.fullmatch(there, name)} == in_image


def test_what_the_image_copies_is_there(stages, tmp_path):
    context = dockerfile.context_files(ROOT)
    installed = {"/stage/" + name for name in install(tmp_path, "PREFIX=/usr")}
    for stage in stages:
        for text in stage.texts("COPY"):
            origin, sources, _ = dockerfile.copies(text)
            for source in sources:
                if origin is None:
                    assert source == "." or source in context, source
                else:
                    assert origin in {each.name for each in stages}
                    assert any(name == source or name.startswith(source + "/")
                               for name in installed), source
    # What make install takes is let through by .dockerignore.
    for name in ("Makefile", "src/main.c", "systemd/nearcached.service", "docs/nearcached.8",
                 "LICENSE", "README.md", "CHANGELOG.md", "conf/nearcached.conf"):
        assert name in context, name
    assert not [name for name in context if name.startswith(("tests/", ".git/", "build/"))]


def test_the_image_starts_what_exists_as_nobody_important(stages, tmp_path):
    final, known = stages[-1], options()
    user = final.text("USER")
    assert re.fullmatch(r"([1-9]\d*):\1", user), "Kubernetes cannot check the name of a user"
    assert f"--uid {user.split(':')[0]} " in final.text("RUN")
    entry = json.loads(final.text("ENTRYPOINT"))
    targets = [path for text in final.texts("COPY") for path in dockerfile.targets(text)]
    assert entry[0] in targets
    assert entry[1] == "--config" and str(pathlib.Path(entry[2]).parent) in targets
    environment = final.environment()
    for name in environment:
        assert is_variable(name, known), name
    ports = {value.rsplit(":", 1)[1] for value in environment.values()}
    assert ports == set(final.text("EXPOSE").split())
    assert ports == {known[name][1].rsplit(":", 1)[1] for name in ("listen", "admin")}
    outcome = run_binary("--test", entry[1], ROOT / "conf/nearcached.conf", env=environment)
    assert outcome.returncode == 0, outcome.stderr


def test_the_image_checks_the_health_of_what_runs(stages, start_proxy, redis_server):
    proxy = start_proxy(redis_server.url())
    command = stages[-1].health_command()
    text = json.dumps(command)
    path = re.search(r"GET (/\S*) HTTP", text).group(1)
    assert path in http_paths()
    assert f"/127.0.0.1/{stages[-1].environment()['NEARCACHED_ADMIN'].rsplit(':', 1)[1]} " in text

    def check(port, path=path):
        words = [word.replace("/9380", f"/{port}").replace("GET /healthz", f"GET {path}")
                 for word in command]
        return subprocess.run(words, capture_output=True, timeout=10 * SCALE,
                              check=False).returncode

    assert check(proxy.admin_address[1]) == 0
    assert check(proxy.admin_address[1], "/no-such-page") != 0
    assert check(free_port()) != 0


# --- Kubernetes -----------------------------------------------------------------------------------

def documents(variant):
    """[(file name, document)] of a folder, kustomization apart."""
    found = []
    for path in sorted((KUBERNETES / variant).glob("*.yaml")):
        if path.name != "kustomization.yaml":
            found += [(path.name, each) for each in yaml.safe_load_all(path.read_text())]
    return found


def kustomization(variant):
    return yaml.safe_load((KUBERNETES / variant / "kustomization.yaml").read_text())


def workload(variant):
    """(document, container of the proxy)."""
    for _, document in documents(variant):
        if document["kind"] in ("Deployment", "DaemonSet"):
            pod = document["spec"]["template"]["spec"]
            for container in pod.get("initContainers", []) + pod["containers"]:
                if container["name"] == "nearcached":
                    return document, container
    raise AssertionError(f"no container nearcached in {variant}")


def secret(variant):
    return dict(line.split("=", 1) for line in
                (KUBERNETES / variant / "secret.env").read_text().splitlines()
                if line and not line.startswith("#"))


def environment_of(variant):
    _, container = workload(variant)
    return {**secret(variant), **{each["name"]: each["value"] for each in container["env"]}}


@pytest.mark.parametrize("variant", VARIANTS)
def test_manifests_have_what_their_kustomization_names(variant):
    top = kustomization(variant)
    files = {name for name, _ in documents(variant)}
    assert set(top["resources"]) <= files
    # What is not applied is named in a comment: it needs what not every cluster has.
    comments = (KUBERNETES / variant / "kustomization.yaml").read_text()
    for name in files - set(top["resources"]):
        assert f"# - {name}" in comments, name
    for generator in top["configMapGenerator"] + top["secretGenerator"]:
        for name in generator.get("files", []) + generator.get("envs", []):
            assert (KUBERNETES / variant / name).is_file(), name
    assert [(image["name"], image["newTag"]) for image in top["images"]] == \
        [("nearcached", version())]
    for name, document in documents(variant):
        assert document["apiVersion"] and document["kind"] and document["metadata"]["name"], name
    if shutil.which("kubectl"):
        # Standalone, without a cluster: the generated names must meet the references.
        outcome = subprocess.run(["kubectl", "kustomize", str(KUBERNETES / variant)],
                                 capture_output=True, text=True, timeout=60 * SCALE, check=False)
        assert outcome.returncode == 0, outcome.stderr
        built = list(yaml.safe_load_all(outcome.stdout))
        names = {document["metadata"]["name"] for document in built
                 if document["kind"] in ("ConfigMap", "Secret")}
        for reference in re.findall(r"(?:configMap|secretRef|secretKeyRef):\n(?:\s+key: .*\n)?"
                                    r"\s+name: (\S+)", outcome.stdout):
            assert reference in names


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_configuration_of_the_manifests_loads(variant, tmp_path):
    environment = environment_of(variant)
    known = options()
    for name in environment:
        assert is_variable(name, known), name
    path = KUBERNETES / variant / "nearcached.conf"
    outcome = run_binary("--test", "--config", path, env=environment)
    assert outcome.returncode == 0, outcome.stderr
    # A file that does not load is noticed by this test.
    broken = tmp_path / "nearcached.conf"
    broken.write_text(path.read_text() + "\n[cache]\nmaxmemroy = 1mb\n")
    assert run_binary("--test", "--config", broken, env=environment).returncode != 0


def bytes_of(text):
    number, unit = re.fullmatch(r"(\d+)([a-zA-Z]+)", text).groups()
    return int(number) << {"mb": 20, "Mi": 20, "gb": 30, "Gi": 30}[unit]


def option_of(variant, name):
    text = (KUBERNETES / variant / "nearcached.conf").read_text()
    found = re.search(rf"^{name} = (.*)$", text, re.M)
    return found.group(1) if found else options()[name][1]


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_container_is_the_images(variant, stages):
    _, container = workload(variant)
    final = stages[-1]
    # Neither command nor args: what the image starts reads the file that is mounted here.
    assert "command" not in container and "args" not in container
    entry = json.loads(final.text("ENTRYPOINT"))
    mounts = {each["mountPath"] for each in container["volumeMounts"]}
    assert mounts == {str(pathlib.Path(entry[2]).parent)}
    context = container["securityContext"]
    assert f"{context['runAsUser']}:{context['runAsGroup']}" == final.text("USER")
    # Listeners of the image are replaced, all of them: its variables stand above the file.
    assert set(final.environment()) <= {each["name"] for each in container["env"]}


@pytest.mark.parametrize("variant", VARIANTS)
def test_ports_and_probes_are_those_of_the_daemon(variant):
    document, container = workload(variant)
    environment = environment_of(variant)
    listens = {name: int(environment[f"NEARCACHED_{name}".upper()].rsplit(":", 1)[1])
               for name in ("listen", "admin")}
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    assert ports["admin"] == listens["admin"] and ports.get("redis", 6380) == listens["listen"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        request = container[probe]["httpGet"]
        assert request["path"] in http_paths() and request["port"] in ports
    # A backend that is away restarts nobody.
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    notes = document["spec"]["template"]["metadata"]["annotations"]
    assert notes["prometheus.io/path"] in http_paths()
    assert int(notes["prometheus.io/port"]) == listens["admin"]
    known = set(listens.values())
    for _, other in documents(variant):
        if other["kind"] == "Service":
            assert {each["port"] for each in other["spec"]["ports"]} <= known
            assert {each["targetPort"] for each in other["spec"]["ports"]} <= set(ports)
            assert other["spec"]["internalTrafficPolicy"] == "Local"
        if other["kind"] in ("PodMonitor", "ServiceMonitor"):
            for end in other["spec"].get("podMetricsEndpoints") or other["spec"]["endpoints"]:
                assert end["path"] in http_paths() and end["port"] in ports
        if other["kind"] == "NetworkPolicy":
            ingress = {port["port"] for rule in other["spec"]["ingress"] for port in rule["ports"]}
            assert ingress <= known
            egress = {port["port"] for rule in other["spec"]["egress"] for port in rule["ports"]}
            backend = int(option_of(variant, "backend").rsplit(":", 1)[1])
            assert {53, backend} == egress


@pytest.mark.parametrize("variant", VARIANTS)
def test_selectors_meet_labels(variant):
    pods, services = [], []
    for _, document in documents(variant):
        if document["kind"] in ("Deployment", "DaemonSet"):
            labels = document["spec"]["template"]["metadata"]["labels"]
            assert document["spec"]["selector"]["matchLabels"].items() <= labels.items()
            pods.append(labels)
        if document["kind"] == "Service":
            services.append(document)
    for _, document in documents(variant):
        if document["kind"] == "Service":
            wanted = [document["spec"]["selector"]]
        elif document["kind"] == "NetworkPolicy":
            wanted = [document["spec"]["podSelector"]["matchLabels"]]
            for rule in document["spec"]["ingress"]:
                wanted += [each["podSelector"]["matchLabels"] for each in rule["from"]
                           if "podSelector" in each]
        elif document["kind"] == "PodMonitor":
            wanted = [document["spec"]["selector"]["matchLabels"]]
        elif document["kind"] == "ServiceMonitor":
            assert any(document["spec"]["selector"]["matchLabels"].items()
                       <= each["metadata"]["labels"].items() for each in services)
            continue
        else:
            continue
        for selector in wanted:
            assert any(selector.items() <= labels.items() for labels in pods), selector


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_container_is_restricted(variant):
    for name, document in documents(variant):
        if document["kind"] not in ("Deployment", "DaemonSet"):
            continue
        pod = document["spec"]["template"]["spec"]
        assert pod["securityContext"] == {"runAsNonRoot": True,
                                          "seccompProfile": {"type": "RuntimeDefault"}}, name
        assert pod["automountServiceAccountToken"] is False
        for container in pod.get("initContainers", []) + pod["containers"]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] is True
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert context["runAsUser"] > 0
            assert "memory" in container["resources"]["limits"]
            assert container["resources"]["limits"]["memory"] == \
                container["resources"]["requests"]["memory"]


def seconds_of(text):
    return int(re.fullmatch(r"(\d+)s", text).group(1)) if text != "0" else 0


@pytest.mark.parametrize("variant", VARIANTS)
def test_memory_and_times_fit_each_other(variant):
    document, container = workload(variant)
    limit = bytes_of(container["resources"]["limits"]["memory"])
    assert 0.5 * limit < bytes_of(option_of(variant, "maxmemory")) <= 0.7 * limit
    pod = document["spec"]["template"]["spec"]
    hooks = [each.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command")
             for each in pod["containers"]]
    waits = [int(command[1]) for command in hooks if command and command[0] == "sleep"]
    assert waits and shutil.which("sleep")
    assert pod["terminationGracePeriodSeconds"] > max(waits) + \
        seconds_of(option_of(variant, "drain-delay")) + seconds_of(option_of(variant, "drain-timeout"))


def test_the_sidecar_is_a_native_one():
    document, container = workload("sidecar")
    assert container in document["spec"]["template"]["spec"]["initContainers"]
    assert container["restartPolicy"] == "Always"
    # Stopped after the application, it has nothing to wait for.
    assert "lifecycle" not in container
    assert environment_of("sidecar")["NEARCACHED_LISTEN"].startswith("127.0.0.1:")


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_daemon_serves_with_the_configuration_of_the_manifests(variant, start_proxy,
                                                                   redis_server):
    """All but the addresses, which are the cluster's; probes and scrape are asked as the manifest
    says."""
    _, container = workload(variant)
    secrets = secret(variant)
    reader = configparser.ConfigParser(interpolation=None)
    reader.read(KUBERNETES / variant / "nearcached.conf")
    sections = {name: dict(reader[name]) for name in reader.sections()}
    sections["backend"]["backend"] = redis_server.url()
    sections["bus"]["bus-group"] += f"-{os.getpid()}"
    proxy = start_proxy(redis_server.url(), config=sections, env=secrets)
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        path = container[probe]["httpGet"]["path"]
        assert metrics.http_get(proxy.admin_address, path)[0] == 200
    password = secrets.get("NEARCACHED_REQUIREPASS")
    with proxy.client() as client:
        if password:
            assert client.ask("GET", "k").startswith(b"-NOAUTH")
            client.ok("AUTH", password)
        client.ok("SET", "k", "v")
        assert client.ask("GET", "k") == b"$1\r\nv\r\n"
        assert client.ask("CACHE", "CLEAR").startswith(b"-")
        client.ok("CACHE", "AUTH", secrets["NEARCACHED_CACHE_PASSWORD"])
        assert not client.ask("CACHE", "CLEAR").startswith(b"-")
