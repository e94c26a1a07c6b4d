"""The Dockerfile cases of the comparison: `cases/<name>/`.

| file | meaning |
|---|---|
| `Dockerfile` | what to build, `FROM busybox`, `FROM debian` or `FROM scratch` |
| `context/` | the build context (absent: empty); modes are set to 644 and 755 as in a Git checkout |
| `prepare` | a script that runs in a copy of the context: archives, links, empty directories |
| `case.json` | `args`, `target`; `oracles` when a reference builder can't build it |
| `expected.json` | BuildKit's result relative to the base image, written by `differential.py --record` |
"""

import json
import os
import shutil
import subprocess

import builders

DIRECTORY = os.path.join(builders.HERE, "cases")


class Case:
    def __init__(self, name):
        self.name = name
        self.directory = os.path.join(DIRECTORY, name)
        self.options = {}
        if os.path.exists(self.path("case.json")):
            with open(self.path("case.json")) as file:
                self.options = json.load(file)
        with open(self.path("Dockerfile")) as file:
            text = file.read()
        self.bases = [name for name in ("busybox", "debian") if name in text]
        # The last stage's base decides what the recording is relative to; `scratch` has none.
        last = [line.split() for line in text.splitlines() if line.lower().startswith("from ")][-1]
        self.recorded_base = None if "scratch" in last else self.bases[0]

    def path(self, name):
        return os.path.join(self.directory, name)

    def oracles(self):
        return self.options.get("oracles", ["buildkit", "buildah"])

    def recipe(self, work):
        """Copies the case below `work` and returns what to build."""
        directory = os.path.join(work, self.name)
        context = os.path.join(directory, "context")
        if os.path.isdir(self.path("context")):
            shutil.copytree(self.path("context"), context, symlinks=True)
        else:
            os.makedirs(context)
        for parent, _, files in os.walk(context):
            os.chmod(parent, 0o755)
            for name in files:
                os.chmod(os.path.join(parent, name), 0o644)
        if os.path.exists(self.path("prepare")):
            subprocess.run(["sh", self.path("prepare")], cwd=context, check=True, umask=0o022)
        for name in ("Dockerfile", "Dockerfile.dockerignore"):
            if os.path.exists(self.path(name)):
                shutil.copy(self.path(name), directory)
        return builders.Recipe(
            dockerfile=os.path.join(directory, "Dockerfile"),
            context=context,
            args=self.options.get("args", {}),
            target=self.options.get("target", ""),
            bases={name: builders.base_image(name) for name in self.bases},
        )

    def expected(self):
        """The recorded result, or None."""
        if not os.path.exists(self.path("expected.json")):
            return None
        with open(self.path("expected.json")) as file:
            return json.load(file)


def load(pattern=""):
    """All cases whose name contains the pattern, by name."""
    return [Case(name) for name in sorted(os.listdir(DIRECTORY)) if pattern in name]
