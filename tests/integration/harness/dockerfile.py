"""The Dockerfile as data: [Stage], each with its steps. No more of the language than the file uses."""

import dataclasses
import fnmatch
import json
import pathlib
import re
import shlex


@dataclasses.dataclass
class Stage:
    image: str
    name: str
    steps: list  # (instruction, text)

    def texts(self, instruction):
        return [text for found, text in self.steps if found == instruction]

    def text(self, instruction):
        """Of an instruction that counts once: the last."""
        found = self.texts(instruction)
        assert found, f"no {instruction} in the stage of {self.image}"
        return found[-1]

    def environment(self):
        found = {}
        for text in self.texts("ENV"):
            found.update(word.split("=", 1) for word in shlex.split(text))
        return found

    def health_command(self):
        text = self.text("HEALTHCHECK")
        return json.loads(text[text.index("CMD") + len("CMD"):])

    def apt_packages(self):
        """What RUN lines install."""
        found = []
        for text in self.texts("RUN"):
            for command in re.split(r"&&|;", text):
                words = shlex.split(command)
                if words[:1] == ["apt-get"] and "install" in words:
                    found += [word for word in words[words.index("install") + 1:]
                              if not word.startswith("-")]
        return found


def read(path):
    lines = [line for line in pathlib.Path(path).read_text().splitlines()
             if not line.lstrip().startswith("#")]
    stages = []
    for line in re.sub(r"\\\n", " ", "\n".join(lines)).splitlines():
        if not line.strip():
            continue
        instruction, text = line.split(None, 1)
        if instruction == "FROM":
            words = text.split()
            stages.append(Stage(words[0], words[2] if len(words) == 3 else "", []))
        else:
            stages[-1].steps.append((instruction, text.strip()))
    return stages


def copies(text):
    """COPY's (stage or None, sources, destination)."""
    words = shlex.split(text)
    origin = None
    if words[0].startswith("--from="):
        origin = words.pop(0).split("=", 1)[1]
    return origin, words[:-1], words[-1]


def targets(text):
    """Where COPY puts what it copies: in a folder if that is what it names."""
    _, sources, destination = copies(text)
    if destination.endswith("/"):
        return [destination + pathlib.PurePosixPath(source).name for source in sources]
    return [destination]


def context_files(root):
    """Files that .dockerignore lets into the build, by their path below root."""
    rules = [line.strip() for line in (root / ".dockerignore").read_text().splitlines()
             if line.strip() and not line.startswith("#")]
    found = []
    for path in sorted(root.rglob("*")):
        relative = path.relative_to(root)
        if relative.parts[0] in (".git", "build") or not path.is_file():
            continue
        is_out = False
        for rule in rules:
            pattern = rule.lstrip("!")
            for part in (relative, *relative.parents):
                if fnmatch.fnmatch(str(part), pattern) and str(part) != ".":
                    is_out = not rule.startswith("!")
        if not is_out:
            found.append(str(relative))
    return found
