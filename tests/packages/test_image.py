"""The Dockerfile, step by step, where no container engine is: a folder per stage.

Proves: every RUN step works in a minimal Debian 12 with what .dockerignore lets through; what the
final stage starts, as its user and with nothing writable, serves, passes its own health check and
ends on SIGTERM; nothing that only builds is in it.
"""

import json
import pathlib
import shutil
import subprocess

import pytest

import rootfs
from harness import dockerfile
from harness.waiting import wait_until

# What the final stage may add to the image that it is made from.
MAX_ADDED_MB = 64


def copy_path(source, target):
    if source.is_dir():
        subprocess.run(["cp", "-a", f"{source}/.", str(target)], check=True)
    else:
        shutil.copy(source, target)


def copy_step(text, root, stages, directory):
    origin, sources, target = dockerfile.copies(text)
    place = root / str(pathlib.PurePosixPath(directory) / target)
    for source in sources:
        if origin is not None:
            found = stages[origin] / source
            (place if found.is_dir() else place.parent).mkdir(parents=True, exist_ok=True)
            copy_path(found, place)
            continue
        for name in dockerfile.context_files(rootfs.ROOT):
            if source in (".", name):
                path = place / (name if source == "." else pathlib.PurePath(name).name)
                path.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(rootfs.ROOT / name, path)


def make(stage, root, stages):
    directory = "/"
    for instruction, text in stage.steps:
        if instruction == "WORKDIR":
            directory = text
            (root / directory).mkdir(parents=True, exist_ok=True)
        elif instruction == "COPY":
            copy_step(text, root, stages, directory)
        elif instruction == "RUN":
            root.run(f"cd {directory}\n{text}", environment=stage.environment(), network=True)


def size_mb(root):
    text = subprocess.run(["du", "-sxm", str(root.folder)], capture_output=True, text=True,
                          check=True).stdout
    return int(text.split()[0])


@pytest.fixture
def roots():
    made = {}
    yield made
    for root in made.values():
        root.shut_down()
        root.remove()


def test_the_steps_of_the_dockerfile_make_an_image_that_serves(minimal, roots):
    stages = dockerfile.read(rootfs.ROOT / "Dockerfile")
    for number, stage in enumerate(stages):
        assert stage.image == "debian:12-slim"
        name = stage.name or str(number)
        roots[name] = minimal.copy_to(f"image-{name}")
        make(stage, roots[name], roots)
    final, root = stages[-1], roots[name]

    for tool in ("gcc", "make", "pkg-config"):
        assert not root.is_true(f"command -v {tool}"), tool
    assert size_mb(root) - size_mb(minimal) < MAX_ADDED_MB
    user, entry = final.text("USER"), json.loads(final.text("ENTRYPOINT"))
    assert user.split(":")[0] == root.text("id -u nearcached") != "0"

    root.contain(entry, final.environment(), user)
    wait_until(lambda: root.run(final.health_command(), user=user, status=None).returncode == 0, 20,
               "the image's own health check")
    ask = ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/6380; printf 'PING\\r\\n' >&3; "
           "read -r line <&3; echo \"$line\""]
    assert root.text(ask, user=user) == "+PONG"
    assert root.stop() == 0, root.log_path().read_text(errors="replace")
