"""The Dockerfile cases of the comparison: `cases/<name>/`.

| file | meaning |
|---|---|
| `Dockerfile` | what to build, `FROM busybox`, `FROM debian` or `FROM scratch` |
| `base.Dockerfile` | built first by each builder from the same context; the image is then `FROM base` |
| `context/` | the build context (absent: empty); modes are set to 644 and 755 as in a Git checkout |
| `prepare` | a script that runs in a copy of the context: archives, links, empty directories |
| `serve/`, `prepare-serve` | files and bare Git repositories (`*.git`), and a script that runs in their copy; served on loopback (`serve.py`), the address is the build argument `SERVER` |
| `case.json` | the options below |
| `expected.json` | BuildKit's result relative to the base image, written by `differential.py --record` |

Options of `case.json`:

| option | meaning |
|---|---|
| `args` | build arguments; null takes the value from `env` |
| `env` | environment of the builder's command |
| `target`, `platform`, `labels`, `network`, `shm_size`, `ulimits`, `allow` | as on the command line |
| `add_hosts` | name to address |
| `secrets`, `secret_env` | id to content, given as a file or in a variable |
| `ssh` | true: an agent with a key of its own, with the id `default` |
| `contexts` | name to directory of the case, to `image:busybox`, or to `/PATH` on the case's server |
| `context` | `/PATH` on the case's server instead of the directory: an archive, a Dockerfile, a repository |
| `stdin` | a file in the served directory that we are given on standard input, for `context` or with `-f -` |
| `file` | the Dockerfile: its name in `context`, or `-` for standard input |
| `covers` | the constructs that the case proves, ids of `constructs.py` |
| `fails` | the build must fail: `exit` and `message` (text, or list of texts, of ours) |
| `oracles` | the reference builders to ask: `buildkit` (the default), `buildah`; none where we differ on purpose, with `reason` |
| `base` | the base image that the recording is relative to, where the last `FROM` doesn't say it |
"""

import atexit
import json
import os
import shutil
import subprocess
import tempfile

import builders
import serve

DIRECTORY = os.path.join(builders.HERE, "cases")
BASES = ("busybox", "debian")
OPTIONS = {
    "add_hosts", "allow", "args", "base", "context", "contexts", "covers", "env", "fails", "file", "labels", "network",
    "oracles", "platform", "stdin",
    "reason", "secret_env", "secrets", "shm_size", "ssh", "target", "ulimits",
}  # fmt: skip
_agents = {}


def agent():
    """The socket of this run's ssh agent, which outlives the case that asked for it first."""
    if not _agents:
        state = tempfile.mkdtemp(prefix="agent-")
        _agents["default"] = builders.Agent(state)
        atexit.register(shutil.rmtree, state, ignore_errors=True)
        atexit.register(_agents["default"].close)
    return _agents["default"].socket


def plain_modes(directory):
    """Gives a copied tree the modes of a fresh Git checkout."""
    for parent, _, files in os.walk(directory):
        os.chmod(parent, 0o755)
        for name in files:
            if not os.path.islink(os.path.join(parent, name)):
                os.chmod(os.path.join(parent, name), 0o644)


class Case:
    def __init__(self, name):
        self.name = name
        self.directory = os.path.join(DIRECTORY, name)
        self.options = {}
        if os.path.exists(self.path("case.json")):
            with open(self.path("case.json")) as file:
                self.options = json.load(file)
        if unknown := set(self.options) - OPTIONS:
            raise ValueError(f"{name}/case.json: unknown options {sorted(unknown)}")
        text = self.read("Dockerfile")
        below = self.read("base.Dockerfile") if os.path.exists(self.path("base.Dockerfile")) else ""
        mentioned = text + below + str(self.options.get("contexts", "")) + str(self.options.get("args", ""))
        self.bases = [name for name in BASES if name in mentioned]
        self.recorded_base = self.options.get("base") or self.base_of(text) or self.base_of(below)
        if self.recorded_base == "scratch" or not self.bases:
            self.recorded_base = None
        elif self.recorded_base is None:
            self.recorded_base = self.bases[0]

    @staticmethod
    def base_of(text):
        """The base image that the last FROM names, if it names one."""
        froms = [line.split() for line in text.splitlines() if line.lower().startswith("from ")]
        return next((name for name in ("scratch", *BASES) if froms and name in froms[-1]), None)

    def path(self, name):
        return os.path.join(self.directory, name)

    def read(self, name):
        # Carriage returns are part of some cases.
        with open(self.path(name), newline="", errors="surrogateescape") as file:
            return file.read()

    def oracles(self):
        return self.options.get("oracles", ["buildkit"])

    def fails(self):
        """How the build must fail, or None."""
        return self.options.get("fails")

    def recipe(self, work):
        """Copies the case below `work` and returns what to build."""
        directory = os.path.join(work, self.name)
        context = os.path.join(directory, "context")
        if os.path.isdir(self.path("context")):
            shutil.copytree(self.path("context"), context, symlinks=True)
        else:
            os.makedirs(context)
        plain_modes(context)
        if os.path.exists(self.path("prepare")):
            environment = serve.git_environment()
            subprocess.run(["sh", self.path("prepare")], cwd=context, env=environment, check=True, umask=0o022)
        for name in ("Dockerfile", "Dockerfile.dockerignore", "base.Dockerfile"):
            if os.path.exists(self.path(name)):
                shutil.copy(self.path(name), directory)
        bases = {name: builders.base_image(name) for name in self.bases}
        contexts = {}
        for name, source in self.options.get("contexts", {}).items():
            if source.startswith("/"):
                contexts[name] = source
            elif source.startswith("image:"):
                bases[name] = builders.base_image(source.removeprefix("image:"))
            else:
                contexts[name] = os.path.join(directory, "contexts", name)
                shutil.copytree(self.path(source), contexts[name], symlinks=True)
                plain_modes(contexts[name])
        recipe = builders.Recipe(
            dockerfile=os.path.join(directory, "Dockerfile"),
            context=context,
            args=dict(self.options.get("args", {})),
            bases=bases,
            contexts=contexts,
            env=dict(self.options.get("env", {})),
        )
        for option in ("target", "platform", "labels", "network", "add_hosts", "shm_size", "ulimits", "allow"):
            if option in self.options:
                setattr(recipe, option, self.options[option])
        self.add_secrets(recipe, directory)
        if self.options.get("ssh"):
            recipe.ssh = agent()
        if os.path.isdir(self.path("serve")) or os.path.exists(self.path("prepare-serve")):
            served = os.path.join(directory, "serve")
            serve.prepare(self.path("serve"), self.path("prepare-serve"), served)
            recipe.args["SERVER"] = serve.Server(served).address
            self.add_served(recipe, served)
        if os.path.exists(self.path("base.Dockerfile")):
            recipe.base = builders.Recipe(
                dockerfile=os.path.join(directory, "base.Dockerfile"), context=context, args=recipe.args, bases=bases
            )
        return recipe

    def add_served(self, recipe, served):
        """Contexts and Dockerfiles that come from the server or from standard input."""
        address = recipe.args["SERVER"]
        recipe.contexts = {name: address + source if source.startswith("/") else source for name, source in recipe.contexts.items()}
        if "context" in self.options:
            recipe.remote = address + self.options["context"]
            recipe.file = self.options.get("file", "")
        elif self.options.get("file") == "-":
            recipe.file = "-"
        if "stdin" in self.options:
            recipe.stdin = os.path.join(served, self.options["stdin"])

    def add_secrets(self, recipe, directory):
        for number, (name, content) in enumerate(self.options.get("secrets", {}).items()):
            recipe.secrets[name] = os.path.join(directory, f"secret-{number}")
            with open(recipe.secrets[name], "w") as file:
                file.write(content)
            os.chmod(recipe.secrets[name], 0o600)
        for number, (name, content) in enumerate(self.options.get("secret_env", {}).items()):
            recipe.secret_env[name] = f"TEST_SECRET_{number}"
            recipe.env[f"TEST_SECRET_{number}"] = content

    def expected(self):
        """The recorded result, or None."""
        if not os.path.exists(self.path("expected.json")):
            return None
        with open(self.path("expected.json")) as file:
            return json.load(file)


def load(pattern=""):
    """All cases whose name contains the pattern, by name."""
    return [Case(name) for name in sorted(os.listdir(DIRECTORY)) if pattern in name and os.path.exists(os.path.join(DIRECTORY, name, "Dockerfile"))]
