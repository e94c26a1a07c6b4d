#!/usr/bin/env python3
"""Dockerfiles that must be refused, `refused/<name>.dockerfile`, and what both builders say of them.

    refused.py [-k PATTERN] [--record]

Ours (MEMOBUILD_CI_BIN) must end with exit code 20 and say what `refused/expected/<name>.txt` holds;
BuildKit's message is beside it in `<name>.buildkit.txt`. Where BuildKit builds the file, or fails
only when it runs a step, `known_differences.REFUSED_BY_US` says why we refuse it. `--record` writes
the messages of the builders at hand.

`refused/options.json` has build options by name, those of `case.json`: `args`, `target`, `platform`,
`labels`, `network`, `secrets`, and `files` (path in the context to text). A file with `FROM busybox`
gets the test image; `FROM scratch` is quicker.
"""

import argparse
import json
import os
import re
import shutil
import sys
import tempfile

import builders
import differential
import known_differences

DIRECTORY = os.path.join(builders.HERE, "refused")
EXPECTED = os.path.join(DIRECTORY, "expected")
EXIT = 20
# What BuildKit says when it has read the Dockerfile and fails at a step.
LATER = re.compile(r"did not complete successfully|failed to (compute|load) cache key|failed to resolve source metadata")
OPTIONS = {"args", "target", "platform", "labels", "network", "secrets", "files", "covers"}


class Refused:
    def __init__(self, name, options):
        self.name = name
        self.options = options
        if unknown := set(options) - OPTIONS:
            raise ValueError(f"refused/options.json: {name}: unknown options {sorted(unknown)}")

    def path(self):
        return os.path.join(DIRECTORY, f"{self.name}.dockerfile")

    def recipe(self, work):
        directory = os.path.join(work, self.name)
        context = os.path.join(directory, "context")
        os.makedirs(context)
        for path, text in self.options.get("files", {}).items():
            os.makedirs(os.path.dirname(os.path.join(context, path)), exist_ok=True)
            with open(os.path.join(context, path), "w") as file:
                file.write(text)
        dockerfile = os.path.join(directory, f"{self.name}.dockerfile")
        shutil.copy(self.path(), dockerfile)
        with open(dockerfile, "rb") as file:
            bases = ["busybox"] if b"busybox" in file.read() else []
        recipe = builders.Recipe(dockerfile, context, bases={name: builders.base_image(name) for name in bases})
        for option in ("args", "target", "platform", "labels", "network"):
            if option in self.options:
                setattr(recipe, option, self.options[option])
        for number, (name, content) in enumerate(self.options.get("secrets", {}).items()):
            recipe.secrets[name] = os.path.join(directory, f"secret-{number}")
            with open(recipe.secrets[name], "w") as file:
                file.write(content)
        return recipe

    def expected(self, kind="txt"):
        """The recorded message, or None."""
        path = os.path.join(EXPECTED, f"{self.name}.{kind}")
        if not os.path.exists(path):
            return None
        with open(path) as file:
            return file.read()

    def write(self, kind, text):
        path = os.path.join(EXPECTED, f"{self.name}.{kind}")
        if text is None:
            if os.path.exists(path):
                os.remove(path)
            return
        os.makedirs(EXPECTED, exist_ok=True)
        with open(path, "w") as file:
            file.write(text)

    def said_by_us(self, memobuild, work):
        """(exit code, whole message without this run's paths)."""
        recipe = self.recipe(work)
        try:
            memobuild.build(recipe)
        except builders.BuildFailed as error:
            said = error.result.stderr.replace(os.path.dirname(recipe.dockerfile), "DIR")
            return error.result.returncode, said
        return 0, memobuild.last.stderr

    def said_by_buildkit(self, buildkit, work):
        """BuildKit's message, or None when it builds the file or fails only at a step."""
        try:
            buildkit.build(self.recipe(work))
        except builders.BuildFailed as error:
            message = differential.last_error(error.result)
            return None if LATER.search(message) else message + "\n"
        return None


def load(pattern=""):
    """All files whose name contains the pattern, by name."""
    options = {}
    if os.path.exists(os.path.join(DIRECTORY, "options.json")):
        with open(os.path.join(DIRECTORY, "options.json")) as file:
            options = json.load(file)
    ending = ".dockerfile"
    names = sorted(name.removesuffix(ending) for name in os.listdir(DIRECTORY) if name.endswith(ending))
    if unknown := set(options) - set(names):
        raise ValueError(f"refused/options.json names files that aren't there: {sorted(unknown)}")
    return [Refused(name, options.get(name, {})) for name in names if pattern in name]


def problem_of(file, memobuild, work):
    """Why what we say of a file is wrong, or None."""
    code, said = file.said_by_us(memobuild, work)
    if code != EXIT or "panicked" in said:
        return f"exit code {code}, not {EXIT}:\n{said}"
    if file.expected() is None:
        return "the message isn't recorded (refused.py --record)"
    if file.expected() != said:
        return f"the message differs; recorded:\n{file.expected()}\nnow:\n{said}"
    return None


def problem_with_buildkit(file):
    """Why BuildKit's part of a recording is wrong, or None."""
    refuses, reason = file.expected("buildkit.txt") is not None, known_differences.REFUSED_BY_US.get(file.name)
    if refuses and reason:
        return "BuildKit refuses it too: drop it from known_differences.REFUSED_BY_US"
    if not refuses and not reason:
        return "BuildKit doesn't refuse it, and known_differences.REFUSED_BY_US has no reason"
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-k", dest="pattern", default="")
    parser.add_argument("--record", action="store_true")
    args = parser.parse_args()
    binary = os.environ.get("MEMOBUILD_CI_BIN")
    if not binary and not args.record:
        sys.exit("refused.py: set MEMOBUILD_CI_BIN")
    work = tempfile.mkdtemp(prefix="refused-")
    memobuild = builders.Memobuild(binary, os.path.join(work, "state")) if binary else None
    buildkit = builders.Buildkit(work) if args.record and builders.Buildkit.available() else None
    selected, bad = load(args.pattern), 0
    try:
        for file in selected:
            problem = None
            if args.record and buildkit:
                file.write("buildkit.txt", file.said_by_buildkit(buildkit, os.path.join(work, "buildkit-files")))
            if args.record and memobuild:
                code, said = file.said_by_us(memobuild, os.path.join(work, "our-files"))
                if code == EXIT:
                    file.write("txt", said)
                else:
                    problem = f"exit code {code}, not {EXIT}:\n{said}"
            elif memobuild:
                problem = problem_of(file, memobuild, work)
            problem = problem or (problem_with_buildkit(file) if file.expected() is not None else None)
            bad += problem is not None
            print(f"{file.name}: {problem or 'refused'}", flush=True)
        print(f"{len(selected)} files, {bad} problems")
        return 1 if bad else 0
    finally:
        for builder in filter(None, [memobuild, buildkit]):
            builder.close()
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
