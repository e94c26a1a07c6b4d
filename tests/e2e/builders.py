"""The builders that the tests run: the product and the reference builders.

Each has `build(case) -> Image` and keeps its state in a directory of the test run.
"""

import dataclasses
import functools
import json
import os
import shutil
import signal
import subprocess
import time

import images

HERE = os.path.dirname(os.path.abspath(__file__))
PROJECT = os.path.dirname(os.path.dirname(HERE))
# Devices that the reference builder and the cases know.
CDI = os.path.join(HERE, "cdi")
CACHE = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "memobuild-test")


class BuildFailed(Exception):
    """A builder that ended with another code than 0; carries what it said."""

    def __init__(self, result):
        self.result = result
        super().__init__(f"exit code {result.returncode}\n{result.stdout}\n{result.stderr}")


def run(command, timeout=600, check=True, stdin="", **options):
    """Runs a program, with the file `stdin` as its standard input, and captures what it says as text."""
    result = subprocess.run(
        [str(word) for word in command],
        stdin=open(stdin or os.devnull, "rb"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        timeout=timeout,
        **options,
    )
    if check and result.returncode != 0:
        raise BuildFailed(result)
    return result


@dataclasses.dataclass
class Recipe:
    """What to build: a Dockerfile, its context, and the options all builders know."""

    dockerfile: str
    context: str
    args: dict = dataclasses.field(default_factory=dict)
    """Build arguments; None takes the value from the environment."""
    target: str = ""
    bases: dict = dataclasses.field(default_factory=dict)
    """Name in FROM -> OCI layout."""
    contexts: dict = dataclasses.field(default_factory=dict)
    """Name of a further context -> directory."""
    platform: str = ""
    labels: dict = dataclasses.field(default_factory=dict)
    network: str = ""
    add_hosts: dict = dataclasses.field(default_factory=dict)
    shm_size: str = ""
    ulimits: list = dataclasses.field(default_factory=list)
    allow: list = dataclasses.field(default_factory=list)
    secrets: dict = dataclasses.field(default_factory=dict)
    """Secret id -> file."""
    secret_env: dict = dataclasses.field(default_factory=dict)
    """Secret id -> name of an environment variable."""
    env: dict = dataclasses.field(default_factory=dict)
    """Environment of the builder's command."""
    ssh: str = ""
    """Socket of an agent, handed on with the id `default`."""
    remote: str = ""
    """URL of the context, instead of the directory."""
    file: str = ""
    """Name of the Dockerfile in `remote`; `-` for standard input."""
    stdin: str = ""
    """What the product is given on standard input, instead of `remote` if there is one."""
    base: "Recipe | None" = None
    """What each builder builds first, and the recipe then knows as the image `base`."""

    def environment(self):
        return {**os.environ, "MEMOBUILD_CDI_DIRS": CDI, **self.env}

    def words_for_secrets(self):
        """`--secret` and `--allow`, which are written alike for all builders."""
        words = []
        for name, path in self.secrets.items():
            words += ["--secret", f"id={name},src={path}"]
        for name, variable in self.secret_env.items():
            words += ["--secret", f"id={name},env={variable}"]
        if self.ssh:
            words += ["--ssh", f"default={self.ssh}"]
        for entitlement in self.allow:
            words += ["--allow", entitlement]
        return words


def with_base(builder, recipe):
    """The recipe, with its `base` built by this builder."""
    if recipe.base is None:
        return recipe
    layout = builder.build(recipe.base).layout
    return dataclasses.replace(recipe, base=None, bases={**recipe.bases, "base": layout})


def bytes_of(size):
    """The number that `64m` and its like stand for."""
    units = {"b": 0, "k": 10, "m": 20, "g": 30}
    return int(size[:-1]) << units[size[-1]] if size[-1] in units else int(size)


class Memobuild:
    """The product, at the path in MEMOBUILD_CI_BIN."""

    name = "memobuild"

    def __init__(self, binary, state):
        self.binary = os.path.abspath(binary)
        self.cache = os.path.join(state, "memobuild-cache")
        self.output = os.path.join(state, "memobuild-output")
        os.makedirs(self.output, exist_ok=True)
        self.count = 0

    def command(self, recipe, dest, *options):
        command = [self.binary, "build", "--cache-dir", self.cache, "--progress", "plain"]
        file = recipe.file or ("" if recipe.remote or recipe.stdin else recipe.dockerfile)
        command += ["-f", file] if file else []
        for name, layout in recipe.bases.items():
            command += ["--build-context", f"{name}=oci-layout://{layout}"]
        for name, directory in recipe.contexts.items():
            command += ["--build-context", f"{name}={directory}"]
        for name, value in recipe.args.items():
            command += ["--build-arg", name if value is None else f"{name}={value}"]
        if recipe.target:
            command += ["--target", recipe.target]
        if recipe.platform:
            command += ["--platform", recipe.platform]
        for name, value in recipe.labels.items():
            command += ["--label", f"{name}={value}"]
        if recipe.network:
            command += ["--network", recipe.network]
        for name, address in recipe.add_hosts.items():
            command += ["--add-host", f"{name}:{address}"]
        if recipe.shm_size:
            command += ["--shm-size", recipe.shm_size]
        for limit in recipe.ulimits:
            command += ["--ulimit", limit]
        command += recipe.words_for_secrets()
        context = recipe.remote or recipe.context
        if recipe.stdin and recipe.file != "-":
            context = "-"
        return [*command, "-o", f"type=oci,dest={dest},tar=false", *options, context]

    def fresh_output(self):
        self.count += 1
        return os.path.join(self.output, f"image-{self.count}")

    def build(self, recipe, *options, **settings):
        recipe = with_base(self, recipe)
        dest = self.fresh_output()
        self.last = run(self.command(recipe, dest, *options), env=recipe.environment(), stdin=recipe.stdin, **settings)
        return images.Image(dest)

    def close(self):
        shutil.rmtree(self.cache, ignore_errors=True)
        shutil.rmtree(self.output, ignore_errors=True)


class Buildah:
    """Debian's buildah, with its storage in the test's directory and runc as the runtime."""

    name = "buildah"

    def __init__(self, state):
        self.state = os.path.join(state, "buildah")
        self.output = os.path.join(state, "buildah-output")
        os.makedirs(self.output, exist_ok=True)
        self.prefix = [
            "buildah", "--root", os.path.join(self.state, "root"), "--runroot", os.path.join(self.state, "run"),
            "--storage-driver", "overlay",
        ]  # fmt: skip
        self.pulled = {}
        self.count = 0

    @staticmethod
    def available():
        return bool(shutil.which("buildah") and shutil.which("runc")) and os.geteuid() == 0

    def import_base(self, name, layout):
        """Makes `FROM name` mean the layout."""
        if self.pulled.get(name) == layout:
            return
        store = f"[overlay@{self.state}/root+{self.state}/run]localhost/{name}:latest"
        run(["skopeo", "--insecure-policy", "copy", "-q", f"oci:{layout}:latest", f"containers-storage:{store}"])
        self.pulled[name] = layout

    def build_only(self, recipe, *options):
        for name, layout in recipe.bases.items():
            self.import_base(name, layout)
        self.count += 1
        command = [
            *self.prefix, "bud", "--runtime", "runc", "--isolation", "oci", "--network", "host", "--pull-never",
            "--format", "oci", "-f", recipe.dockerfile, "-t", "result",
        ]  # fmt: skip
        for name, value in recipe.args.items():
            command += ["--build-arg", f"{name}={value}"]
        if recipe.target:
            command += ["--target", recipe.target]
        self.last = run([*command, *options, recipe.context])

    def build(self, recipe, *options):
        self.build_only(recipe, *options)
        dest = os.path.join(self.output, f"image-{self.count}")
        run([*self.prefix, "push", "-q", "result", f"oci:{dest}:latest"])
        return images.Image(dest)

    def close(self):
        subprocess.run([*self.prefix, "rmi", "-a", "-f"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        subprocess.run(["umount", os.path.join(self.state, "root", "overlay")], stderr=subprocess.DEVNULL)
        shutil.rmtree(self.state, ignore_errors=True)
        shutil.rmtree(self.output, ignore_errors=True)


class Buildkit:
    """BuildKit from the test cache (`scripts/setup-oracle`) or from PATH, on a socket of its own."""

    name = "buildkit"

    def __init__(self, state):
        self.state = os.path.join(state, "buildkit")
        self.output = os.path.join(state, "buildkit-output")
        os.makedirs(self.state, exist_ok=True)
        os.makedirs(self.output, exist_ok=True)
        self.address = f"unix://{self.state}/socket"
        self.buildctl = self.find("buildctl")
        self.count = 0
        with open(os.path.join(self.state, "config.toml"), "w") as config:
            config.write("")
        self.log = open(os.path.join(self.state, "log"), "w")
        self.daemon = subprocess.Popen(
            [
                self.find("buildkitd"), "--config", os.path.join(self.state, "config.toml"),
                "--root", os.path.join(self.state, "root"), "--addr", self.address,
                "--oci-worker-binary", shutil.which("runc"), "--oci-worker-net", "host",
                "--oci-worker-snapshotter", "overlayfs",
                "--allow-insecure-entitlement", "security.insecure", "--allow-insecure-entitlement", "network.host",
                "--allow-insecure-entitlement", "device", "--cdi-spec-dir", CDI,
            ],
            # A proxy is no way to servers on loopback.
            env={**os.environ, "NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost"},
            stdout=self.log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while run([self.buildctl, "--addr", self.address, "debug", "workers"], check=False).returncode != 0:
            if time.monotonic() > deadline or self.daemon.poll() is not None:
                self.daemon.kill()
                with open(self.log.name) as log:
                    raise RuntimeError("buildkitd doesn't answer:\n" + log.read())
            time.sleep(0.1)

    @staticmethod
    def find(program):
        path = os.path.join(CACHE, "bin", program)
        return path if os.access(path, os.X_OK) else shutil.which(program)

    @classmethod
    def available(cls):
        return bool(cls.find("buildkitd") and cls.find("buildctl") and shutil.which("runc")) and os.geteuid() == 0

    @classmethod
    def version(cls):
        return run([cls.find("buildctl"), "--version"]).stdout.split()[2]

    def build(self, recipe, *options):
        recipe = with_base(self, recipe)
        self.count += 1
        dest = os.path.join(self.output, f"image-{self.count}")
        self.build_only(recipe, f"--output=type=oci,dest={dest},tar=false", *options)
        return images.Image(dest)

    def build_only(self, recipe, *options):
        directory, name = os.path.split(recipe.dockerfile)
        command = [
            self.buildctl, "--addr", self.address, "build", "--progress", "plain", "--frontend", "dockerfile.v0",
        ]  # fmt: skip
        if recipe.remote:
            command += ["--opt", f"context={recipe.remote}"]
        else:
            command += ["--local", f"context={recipe.context}"]
        if recipe.remote and recipe.file != "-":
            command += ["--opt", f"filename={recipe.file}"] if recipe.file else []
        else:
            command += ["--local", f"dockerfile={directory}", "--opt", f"filename={name}", "--opt", "dockerfilekey=dockerfile"]
        for number, (base, layout) in enumerate(recipe.bases.items()):
            digest = images.Image(layout).digest
            command += ["--oci-layout", f"base{number}={layout}", "--opt", f"context:{base}=oci-layout://base{number}@{digest}"]
        for name, directory in recipe.contexts.items():
            if "://" in directory:
                command += ["--opt", f"context:{name}={directory}"]
            else:
                command += ["--local", f"{name}={directory}", "--opt", f"context:{name}=local:{name}"]
        options_of_the_frontend = {
            **{f"build-arg:{key}": recipe.env[key] if value is None else value for key, value in recipe.args.items()},
            **{f"label:{key}": value for key, value in recipe.labels.items()},
            "target": recipe.target,
            "platform": recipe.platform,
            "force-network-mode": recipe.network,
            "add-hosts": ",".join(f"{name}={address}" for name, address in recipe.add_hosts.items()),
            "shm-size": recipe.shm_size and bytes_of(recipe.shm_size),
            "ulimit": ",".join(recipe.ulimits),
        }
        with open(recipe.dockerfile, "rb") as file:
            if b"docker/dockerfile" in file.read(1000):
                # It is the frontend already, and isn't to be fetched.
                options_of_the_frontend["cmdline"] = "docker/dockerfile"
        for key, value in options_of_the_frontend.items():
            if value or ":" in key:
                command += ["--opt", f"{key}={value}"]
        command += recipe.words_for_secrets()
        self.last = run([*command, *options], env=recipe.environment())

    def prune(self, everything=False):
        """Forgets earlier contexts (equal size and time would be taken for equal content), or everything."""
        run([self.buildctl, "--addr", self.address, "prune", *(["--all"] if everything else ["--filter", "type==source.local"])])

    def close(self):
        self.daemon.send_signal(signal.SIGTERM)
        try:
            self.daemon.wait(20)
        except subprocess.TimeoutExpired:
            self.daemon.kill()
            self.daemon.wait()
        self.log.close()
        shutil.rmtree(self.state, ignore_errors=True)
        shutil.rmtree(self.output, ignore_errors=True)


class Agent:
    """An ssh agent with a key made for it."""

    def __init__(self, state):
        self.directory = os.path.join(state, "ssh")
        os.makedirs(self.directory, mode=0o700)
        self.socket = os.path.join(self.directory, "agent")
        key = os.path.join(self.directory, "key")
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", key])
        # In the foreground, so that it is ours to end.
        self.process = subprocess.Popen(
            ["ssh-agent", "-D", "-a", self.socket], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
        )
        deadline = time.monotonic() + 20
        while run(["ssh-add", "-q", key], check=False, env={**os.environ, "SSH_AUTH_SOCK": self.socket}).returncode != 0:
            if time.monotonic() > deadline or self.process.poll() is not None:
                self.close()
                raise RuntimeError("ssh-agent doesn't answer")
            time.sleep(0.02)

    def close(self):
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)


@functools.cache
def base_image(name):
    """The OCI layout of a base image: `busybox` (tiny, also for unprivileged users) or `debian`."""
    script = {"busybox": "tiny-image", "debian": "base-image"}[name]
    layout = os.path.join(CACHE, "layouts", name)
    os.makedirs(os.path.dirname(layout), exist_ok=True)
    run([os.path.join(PROJECT, "scripts", script), layout])
    return layout


def write_json(path, value):
    with open(path, "w") as file:
        json.dump(value, file, indent=1, sort_keys=True)
        file.write("\n")
