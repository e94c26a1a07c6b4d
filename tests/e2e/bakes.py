#!/usr/bin/env python3
"""Plans of bake and compose files, `bake/<name>/`, compared with what `docker buildx bake --print` gives.

    bakes.py [-k PATTERN] [--record]

A case is a directory of bake files. `case.json` may say what is asked of them: `files` (default: those
that are read by default), `targets`, `set`, `env`. `expected.json` is buildx's answer, which
`--record` writes: the plan, or `{"fails": message}`. A plan is compared as JSON; the order in groups
that a matrix of several dimensions makes is random in buildx and left out. Where buildx fails, we must
fail too, with the message in `expected.txt`, which `--record` writes from ours.

The oracle is the program `buildx` in the directory that `scripts/setup-oracle buildx` prints.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile

import builders

DIRECTORY = os.path.join(builders.HERE, "bake")
KEYS = {"files", "targets", "set", "env", "covers"}
# What neither program may take from the environment of the test.
KEPT = {"PATH", "SSH_AUTH_SOCK"}


class Bake:
    def __init__(self, name):
        self.name = name
        self.directory = os.path.join(DIRECTORY, name)
        self.options = {}
        path = os.path.join(self.directory, "case.json")
        if os.path.exists(path):
            with open(path) as file:
                self.options = json.load(file)
        if unknown := set(self.options) - KEYS:
            raise ValueError(f"bake/{name}/case.json: unknown keys {sorted(unknown)}")

    def expected(self):
        with open(os.path.join(self.directory, "expected.json")) as file:
            return json.load(file)

    def message(self):
        with open(os.path.join(self.directory, "expected.txt")) as file:
            return file.read()

    def environment(self):
        env = {name: os.environ[name] for name in KEPT if name in os.environ}
        return env | {"HOME": "/home/nobody", "BUILDX_CONFIG": tempfile.gettempdir()} | self.options.get("env", {})

    def run(self, command, files):
        for item in self.options.get("set", []):
            command += ["--set", item]
        for name in self.options.get("files", []) or files:
            command += [files_option(command), name]
        command += self.options.get("targets", [])
        return subprocess.run(
            command, cwd=self.directory, env=self.environment(), capture_output=True, text=True, timeout=60
        )

    def ours(self, binary):
        return self.run([binary, "build", "--print"], ["."])

    def theirs(self):
        with socket.socket(socket.AF_UNIX) as agent, tempfile.TemporaryDirectory() as directory:
            # buildx looks at the agent even when it only prints.
            agent.bind(os.path.join(directory, "agent"))
            os.environ["SSH_AUTH_SOCK"] = agent.getsockname()
            return self.run([os.path.join(builders.CACHE, "bin", "buildx"), "bake", "--print"], [])

    def record(self, binary):
        done = self.theirs()
        if done.returncode == 0:
            expected = json.loads(done.stdout)
        else:
            said = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
            expected = {"fails": "\n".join(said).removeprefix("ERROR: ")}
            ours = self.ours(binary)
            with open(os.path.join(self.directory, "expected.txt"), "w") as file:
                file.write(ours.stderr)
        with open(os.path.join(self.directory, "expected.json"), "w") as file:
            json.dump(expected, file, indent=2, ensure_ascii=False)
            file.write("\n")

    def problem(self, binary):
        """What is wrong with our answer, or None."""
        expected = self.expected()
        ours = self.ours(binary)
        if "fails" in expected:
            if ours.returncode not in (2, 21):
                return f"exit code {ours.returncode}, but buildx says: {expected['fails']}\n{ours.stdout}"
            if ours.stderr != self.message():
                return f"expected the message\n{self.message()}but got\n{ours.stderr}"
            return None
        if ours.returncode != 0:
            return f"exit code {ours.returncode}: {ours.stderr}"
        got = json.loads(ours.stdout)
        if ordered(got) != ordered(expected):
            return f"buildx plans\n{shown(expected)}\nwe plan\n{shown(got)}"
        return None


def files_option(command):
    return "-f" if "bake" in command[1:2] else "--bake"


def ordered(plan):
    plan = json.loads(json.dumps(plan))
    for group in plan.get("group", {}).values():
        group["targets"].sort()
    return plan


def shown(plan):
    return json.dumps(ordered(plan), indent=1, sort_keys=True)


def names(pattern=""):
    return sorted(name for name in os.listdir(DIRECTORY) if pattern in name)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-k", default="", metavar="PATTERN", help="only cases whose names hold this")
    parser.add_argument("--record", action="store_true", help="write what buildx answers")
    options = parser.parse_args()
    binary = os.path.abspath(os.environ["MEMOBUILD_CI_BIN"])
    failed = 0
    for name in names(options.k):
        bake = Bake(name)
        if options.record:
            bake.record(binary)
        if problem := bake.problem(binary):
            failed += 1
            print(f"{name}: {problem}")
    print(f"{len(names(options.k))} cases, {failed} differ")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
