#!/usr/bin/env python3
"""The Dockerfiles whose build checks, outlines and targets are compared with BuildKit's: `checks/<name>/`.

    checks.py --record [-k PATTERN]       writes BuildKit's answers to checks/*/expected.json

| file | meaning |
|---|---|
| `Dockerfile` | `FROM busybox` or `FROM scratch` |
| `context/` | the build context (absent: empty) |
| `case.json` | `args`, `target`, `platform`; `methods` when others than `check` are asked, too |
| `expected.json` | BuildKit's answers |

The texts of rules are the product's own, so of a violation the rule and the lines are compared. Of
equal ones BuildKit reports each, the product one. Recording needs buildx, which asks BuildKit with
the requests of `docker buildx build --call`.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile

import builders

DIRECTORY = os.path.join(builders.HERE, "checks")


class Check:
    def __init__(self, name):
        self.name = name
        self.directory = os.path.join(DIRECTORY, name)
        self.options = {}
        if os.path.exists(self.path("case.json")):
            with open(self.path("case.json")) as file:
                self.options = json.load(file)
        with open(self.path("Dockerfile")) as file:
            self.bases = ["busybox"] if "busybox" in file.read() else []

    def path(self, name):
        return os.path.join(self.directory, name)

    def methods(self):
        return self.options.get("methods", ["check"])

    def words(self, layouts):
        """The options that `docker buildx build` and the product share, the context last."""
        words = ["-f", self.path("Dockerfile")]
        for base in self.bases:
            words += ["--build-context", f"{base}=oci-layout://{layouts[base]}"]
        for name, value in self.options.get("args", {}).items():
            words += ["--build-arg", f"{name}={value}"]
        for option in ("target", "platform"):
            if option in self.options:
                words += [f"--{option}", self.options[option]]
        return words

    def expected(self):
        with open(self.path("expected.json")) as file:
            return json.load(file)


def load(pattern=""):
    return [Check(name) for name in sorted(os.listdir(DIRECTORY)) if pattern in name]


def lines(location):
    """(first, last) of a location; None without one."""
    ranges = (location or {}).get("ranges") or []
    return [ranges[0]["start"]["line"], ranges[-1]["end"]["line"]] if ranges else None


def comparable(method, answer):
    """What of a method's JSON is compared."""
    if method != "check":
        kept = {key: value for key, value in answer.items() if key != "sources"}
        for name in ("args", "secrets", "ssh"):
            if name in kept:
                kept[name].sort(key=lambda item: (lines(item["location"]), item["name"]))
        return kept
    warnings = answer["warnings"] or []
    kept = {(w["ruleName"], w["detail"], *lines(w["location"])) for w in warnings}
    found = sorted([rule, first, last] for rule, _, first, last in kept)
    error = answer.get("buildError")
    return {"violations": found, "error": error and {"lines": lines(error.get("location"))}}


def record(selected, work):
    """Asks BuildKit through buildx."""
    buildx = builders.Buildkit.find("buildx")
    if not buildx:
        sys.exit("checks.py: `buildx` is missing")
    layouts = {"busybox": builders.base_image("busybox")}
    environment = {**os.environ, "BUILDX_CONFIG": os.path.join(work, "buildx")}
    empty = os.path.join(work, "empty")
    os.mkdir(empty)
    buildkit = builders.Buildkit(work)
    try:
        builders.run([buildx, "create", "--name", "oracle", "--driver", "remote", buildkit.address], env=environment)
        for check in selected:
            expected = {"builder": f"BuildKit {buildkit.version()}"}
            context = check.path("context") if os.path.isdir(check.path("context")) else empty
            for method in check.methods():
                command = [buildx, "--builder", "oracle", "build", "--call", f"{method},format=json", *check.words(layouts), context]
                result = builders.run(command, check=False, env=environment)
                try:
                    expected[method] = comparable(method, json.loads(result.stdout))
                except json.JSONDecodeError:
                    sys.exit(f"{check.name}: {method}: no JSON:\n{result.stdout}\n{result.stderr}")
            builders.write_json(check.path("expected.json"), expected)
            print(f"{check.name}: {expected}")
    finally:
        buildkit.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-k", dest="pattern", default="")
    parser.add_argument("--record", action="store_true", required=True)
    args = parser.parse_args()
    work = tempfile.mkdtemp(prefix="checks-")
    try:
        record(load(args.pattern), work)
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
