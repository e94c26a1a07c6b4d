"""What all end-to-end tests share: the product's binary, a work directory, base images, helpers.

A missing prerequisite skips a test and is counted; when CI is set it fails the test.
"""

import atexit
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
import unittest

import builders
import images

WORK = tempfile.mkdtemp(prefix="memobuild-e2e-")
os.chmod(WORK, 0o755)
BINARY = os.environ.get("MEMOBUILD_CI_BIN", "")
# Tests run it in directories of their own.
BINARY = BINARY and os.path.abspath(BINARY)
IN_CI = os.environ.get("CI", "") not in ("", "0", "false")
# The program is tested as on a developer's machine, wherever the tests run: what a CI platform says
# decides what a build saves. Tests of that set the variables themselves.
for _name in list(os.environ):
    _platform = _name in ("CI", "DRONE", "TF_BUILD", "BUILDKITE", "CIRCLECI", "GOOGLE_CLOUD_BUILD", "TRAVIS")
    _platform |= _name.startswith(("CI_", "GITHUB_", "GITLAB_", "GITEA_", "FORGEJO_", "ACTIONS_", "RUNNER_"))
    _platform |= _name.startswith(("CODEBUILD_", "JENKINS_", "BITBUCKET_", "TEAMCITY_"))
    if _platform or _name.startswith(("MEMOBUILD_CACHE_", "MEMOBUILD_REMOTE_")):
        del os.environ[_name]
_made = {}


def _close():
    for builder in _made.values():
        builder.close()
    shutil.rmtree(WORK, ignore_errors=True)


atexit.register(_close)


def shared(kind, *args):
    """The one builder of its kind in this run."""
    if kind not in _made:
        _made[kind] = kind(*args, WORK)
    return _made[kind]


class Failed(AssertionError):
    pass


class EndToEnd(unittest.TestCase):
    """Base of the tests; each gets an empty directory `self.directory`."""

    maxDiff = None
    needs_binary = True
    needs_root = True

    def setUp(self):
        if self.needs_binary and not os.access(BINARY, os.X_OK):
            self.missing("the program under test: set MEMOBUILD_CI_BIN")
        if self.needs_root and os.geteuid() != 0:
            self.missing("root")
        self.directory = tempfile.mkdtemp(prefix="test-", dir=WORK)
        os.chmod(self.directory, 0o755)
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        self.cache = os.path.join(self.directory, "cache")

    def missing(self, what):
        if IN_CI:
            self.fail(f"missing in CI: {what}")
        self.skipTest(f"missing: {what}")

    def need(self, *programs):
        for program in programs:
            if not shutil.which(program):
                self.missing(f"the program `{program}` (scripts/setup-test installs it)")

    # Files.

    def path(self, *parts):
        return os.path.join(self.directory, *parts)

    def write(self, name, text, mode=0o644):
        path = self.path(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w" if isinstance(text, str) else "wb") as file:
            file.write(textwrap.dedent(text).lstrip("\n") if isinstance(text, str) else text)
        os.chmod(path, mode)
        return path

    def context(self, dockerfile, files=None, name="context"):
        """A context with a Dockerfile in it; returns its path."""
        self.write(f"{name}/Dockerfile", dockerfile)
        for path, text in (files or {}).items():
            self.write(f"{name}/{path}", text)
        return self.path(name)

    # The product.

    def command(self, *words, cache=None):
        """The command line of `memobuild-ci`; what builds or plans gets the test's cache and plain progress."""
        words = [str(word) for word in words]
        if words[0] in ("build", "plan", "graph"):
            words[1:1] = ["--cache-dir", cache or self.cache, "--progress", "plain"]
        elif words[0] == "cache":
            words[2:2] = ["--cache-dir", cache or self.cache]
        return [BINARY, *words]

    def memobuild(self, *words, exit=0, cache=None, timeout=300, **options):
        """Runs the product and checks its exit code (None: any)."""
        command = self.command(*words, cache=cache)
        result = builders.run(command, check=False, timeout=timeout, **options)
        if exit is not None and result.returncode != exit:
            raise Failed(f"`{' '.join(command)}`: exit code {result.returncode}, not {exit}\n{result.stdout}\n{result.stderr}")
        return result

    def base_options(self, *names):
        """Options that make `FROM busybox` (and others) mean the local layouts."""
        options = []
        for name in names or ("busybox",):
            options += ["--build-context", f"{name}=oci-layout://{builders.base_image(name)}"]
        return options

    def build_words(self, context, *options, dest=None):
        dest = dest or self.path("image")
        return ["build", *self.base_options(), "-o", f"type=oci,dest={dest},tar=false", *options, context], dest

    def build(self, context, *options, dest=None, **settings):
        """Builds a context; returns the image, with the run's result as `image.result`."""
        words, dest = self.build_words(context, *options, dest=dest)
        result = self.memobuild(*words, **settings)
        image = images.Image(dest)
        image.result = result
        return image

    def build_fails(self, exit, context, *options, **settings):
        """A build that must end with `exit`; returns what it said on stderr."""
        words, dest = self.build_words(context, *options)
        said = self.memobuild(*words, exit=exit, **settings).stderr
        self.assertFalse(os.path.exists(os.path.join(dest, "index.json")), "a failed build left an image")
        self.assertNotIn("panicked", said)
        return said

    def verify_cache(self, cache=None):
        """`cache verify` finds nothing wrong."""
        if not os.path.exists(cache or self.cache):
            return
        self.memobuild("cache", "verify", cache=cache)

    def steps(self, result):
        """(ran, hits) from the summary of a build."""
        found = re.search(r"(\d+) steps?: (\d+) ran, (\d+) hits?", result.stderr)
        if not found:
            raise Failed("no summary `N steps: R ran, H hits` in:\n" + result.stderr)
        return int(found[2]), int(found[3])

    def start(self, *words, **options):
        """Starts the product in a process group of its own; it is killed at the end of the test."""
        process = subprocess.Popen(
            self.command(*words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
            **options,
        )

        def stop():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            process.stdout.close()
            process.stderr.close()

        self.addCleanup(stop)
        return process

    def wait_for_line(self, stream, pattern, timeout=120):
        """Reads lines until one matches; returns what was read."""
        deadline = time.monotonic() + timeout
        seen = []
        for line in stream:
            seen.append(line)
            if re.search(pattern, line):
                return "".join(seen)
            if time.monotonic() > deadline:
                break
        raise Failed(f"no line matches `{pattern}` in:\n{''.join(seen)}")


def processes_with(marker):
    """The processes whose command line contains `marker`, without this one."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                line = file.read().replace(b"\0", b" ").decode(errors="replace")
            with open(f"/proc/{pid}/stat") as file:
                state = file.read().rsplit(")", 1)[1].split()[0]
            if marker in line and int(pid) != os.getpid() and state != "Z":
                found.append((int(pid), line))
    return found


def gone_within(marker, seconds):
    """Whether no process has `marker` in its command line any more before the time is over."""
    deadline = time.monotonic() + seconds
    while processes_with(marker):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def unprivileged_user():
    """A user for rootless tests, made on demand by root: `(name, uid, gid)` with subordinate ids, or None."""
    import pwd

    name = "memobuild-test"
    try:
        user = pwd.getpwnam(name)
    except KeyError:
        if os.geteuid() != 0:
            return None
        builders.run(["useradd", "--create-home", "--user-group", name])
        user = pwd.getpwnam(name)
    for file in ("/etc/subuid", "/etc/subgid"):
        lines = open(file).read().splitlines() if os.path.exists(file) else []
        if not any(line.split(":")[0] in (name, str(user.pw_uid)) for line in lines):
            start = max([int(l.split(":")[1]) + int(l.split(":")[2]) for l in lines if l.count(":") == 2] + [100000])
            with open(file, "a") as out:
                out.write(f"{name}:{start}:65536\n")
    return name, user.pw_uid, user.pw_gid
