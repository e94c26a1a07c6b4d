#!/usr/bin/env python3
"""Times the product against buildah and BuildKit, all in one run, and prints a Markdown table.

    run.py [--json FILE] [--markdown FILE] [--quick] [--runs N] [--soak-minutes N] [-k CASE]… [--builder NAME]…

The binary is taken from MEMOBUILD_CI_BIN (a release build). BuildKit takes part when
`scripts/setup-oracle` has built it. All state lies on a tmpfs (/dev/shm) and is wiped before each
cold build. Only ratios within one run mean something: absolute times depend on the machine.

Cases: `layered` (examples/layered-python: cold, unchanged, new checkout, one source file),
`context-N` (FROM scratch, COPY of N files: cold, unchanged, new checkout), `ignore-N-P` (the same with
an ignore file of P patterns that leave nothing out), `start` (what one more
RUN costs, beside runc's own start), `steps-N` (N RUN steps: cold, unchanged), `memory`, `bake-N` (the
plan of a bake file of N targets with inheritance, a matrix and functions; beside it that of buildx if
`scripts/setup-oracle buildx` has built it).

Shared caches (`caches.py`), on runners that start empty: `shared` (with a cache in a registry, on our server or in a
directory, and the image pushed: cold, unchanged, one source file; BuildKit with its cache in the registry; and a
cache that nobody listens at), `shared-steps-N` (unchanged chains of N steps), `restore` (a layer of 2 GB, beside curl),
`packages` (one package of a layer of 1 GB changed: what travels to our server), `save` (how long a cold
build goes on after its last step), `soak` (our server under load for `--soak-minutes`).
"""

import argparse
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "tests", "e2e"))
import builders
import caches
from measure import Measure, make_files, new_checkout, timed

# What the targets of `bake-N` have in common.
BAKE = """
variable "REGISTRY" { default = "registry.example" }
function "image" {
  params = [name]
  result = "${REGISTRY}/${lower(name)}:${formatdate("YYYY", "2026-01-01T00:00:00Z")}"
}
target "common" {
  args = { A = "a", B = "b" }
  labels = { team = "x" }
  platforms = ["linux/amd64", "linux/arm64"]
}
"""

class Memobuild:
    name = "memobuild-ci"

    def __init__(self, state):
        self.state = os.path.join(state, "memobuild")
        self.wipe()

    def wipe(self):
        shutil.rmtree(self.state, ignore_errors=True)
        os.makedirs(self.state)

    def close(self):
        shutil.rmtree(self.state, ignore_errors=True)

    def words(self):
        binary = os.path.abspath(os.environ["MEMOBUILD_CI_BIN"])
        return [binary, "build", "--progress", "plain", "--cache-dir", os.path.join(self.state, "cache")]

    def build(self, recipe):
        command = self.words() + ["-f", recipe.dockerfile]
        for name, layout in recipe.bases.items():
            command += ["--build-context", f"{name}=oci-layout://{layout}"]
        return timed([*command, "-o", f"type=oci,dest={self.state}/image,tar=false", recipe.context])

    def push(self, recipe, registry, cache):
        """Pushes to `registry` with a remote cache, or without one."""
        command = [*self.words(), "-f", recipe.dockerfile, "--push", "-t", f"{registry}/memobuild/app:1"]
        for name, layout in recipe.bases.items():
            command += ["--build-context", f"{name}=oci-layout://{layout}"]
        return timed([*command, recipe.context], env=self.environment(cache))

    def cached(self, recipe, cache, output):
        """Builds with a remote cache."""
        command = [*self.words(), "-f", recipe.dockerfile, "-o", output]
        for name, layout in recipe.bases.items():
            command += ["--build-context", f"{name}=oci-layout://{layout}"]
        return timed([*command, recipe.context], env=self.environment(cache))

    @staticmethod
    def environment(cache):
        """Variables as on a developer's machine, with a remote cache or without one."""
        environment = {name: value for name, value in os.environ.items() if name != "CI" and not name.startswith("MEMOBUILD_REMOTE")}
        if cache:
            environment["MEMOBUILD_REMOTE_URL"] = cache
        return environment

    def build_layered(self, repo, layout):
        environment = {**os.environ, "MEMOBUILD_OUTPUT": os.path.join(self.state, "output")}
        arg = f"SYSTEM_IMAGE=oci-layout://{layout}"
        return timed([*self.words(), "--ca-certificates", "host", "--build-arg", arg], cwd=repo, env=environment)


class Layered:
    """The layered repository as one Dockerfile of three stages, for builders that know no layer targets."""

    @staticmethod
    def recipe(repo, layout):
        text = []
        for name, parent in (("base", "system"), ("ml", "base"), ("app", "ml")):
            with open(os.path.join(repo, "docker", "cpu", f"Dockerfile.{name}")) as file:
                lines = [line for line in file.read().splitlines() if not line.startswith(("ARG BASE_IMAGE", "ARG SYSTEM_IMAGE"))]
            text += [f"FROM {parent} AS {name}" if line.startswith("FROM") else line for line in lines]
        directory = os.path.join(os.path.dirname(repo), "one-file")
        os.makedirs(directory, exist_ok=True)
        with open(os.path.join(directory, "Dockerfile"), "w") as file:
            file.write("\n".join(text) + "\n")
        return builders.Recipe(os.path.join(directory, "Dockerfile"), repo, bases={"system": layout})


class Buildah:
    name = "buildah"

    def __init__(self, state):
        self.state = state
        self.inner = builders.Buildah(state)

    def wipe(self):
        self.inner.close()
        self.inner = builders.Buildah(self.state)

    def close(self):
        self.inner.close()

    def build(self, recipe):
        for name, layout in recipe.bases.items():
            self.inner.import_base(name, layout)
        command = [
            *self.inner.prefix, "bud", "--layers", "--runtime", "runc", "--isolation", "oci", "--network", "host",
            "--pull-never", "-f", recipe.dockerfile, "-t", "result", recipe.context,
        ]  # fmt: skip
        built = timed(command)
        pushed = timed([*self.inner.prefix, "push", "-q", "result", f"oci:{self.inner.output}/image:latest"])
        return Measure(built.seconds + pushed.seconds, built.cpu + pushed.cpu, max(built.peak, pushed.peak))

    def build_layered(self, repo, layout):
        return self.build(Layered.recipe(repo, layout))


class Buildkit:
    name = "BuildKit"

    def __init__(self, state):
        self.state = state
        self.inner = builders.Buildkit(state)

    def wipe(self):
        self.inner.close()
        self.inner = builders.Buildkit(self.state)

    def close(self):
        self.inner.close()

    def daemon(self):
        """CPU seconds (with ended children) and the peak memory of the daemon."""
        with open(f"/proc/{self.inner.daemon.pid}/stat") as file:
            ticks = sum(map(int, file.read().rsplit(")", 1)[1].split()[11:15]))
        with open(f"/proc/{self.inner.daemon.pid}/status") as file:
            peak = [int(line.split()[1]) for line in file if line.startswith("VmHWM")][0]
        return ticks / os.sysconf("SC_CLK_TCK"), peak * 1024

    def build(self, recipe):
        dest = os.path.join(self.inner.output, "image")
        return self.measured(recipe, f"--output=type=oci,dest={dest},tar=false,compression=zstd")

    def push(self, recipe, registry):
        """Pushes to `registry`, with a cache of all steps there."""
        cache = f"type=registry,ref={registry}/buildkit/cache:1,registry.insecure=true"
        image = f"type=image,name={registry}/buildkit/app:1,push=true,registry.insecure=true,compression=zstd"
        return self.measured(recipe, f"--output={image}", f"--import-cache={cache}", f"--export-cache={cache},mode=max,compression=zstd")

    def measured(self, recipe, *options):
        before, _ = self.daemon()
        began = time.monotonic()
        self.inner.build_only(recipe, *options)
        seconds = time.monotonic() - began
        after, peak = self.daemon()
        return Measure(seconds, after - before, peak)

    def build_layered(self, repo, layout):
        return self.build(Layered.recipe(repo, layout))


class Bench:
    def __init__(self, args, state):
        self.args, self.state = args, state
        self.results = []
        self.facts = []
        self.builders = []
        wanted = args.builder or ["memobuild-ci", "buildah", "BuildKit"]
        if "memobuild-ci" in wanted:
            self.builders.append(Memobuild(state))
        if "buildah" in wanted and builders.Buildah.available():
            self.builders.append(Buildah(state))
        if "BuildKit" in wanted and builders.Buildkit.available():
            self.builders.append(Buildkit(state))

    def note(self, case, part, builder, measures):
        row = {
            "case": case, "part": part, "builder": builder,
            "seconds": statistics.median(m.seconds for m in measures),
            "cpu_seconds": statistics.median(m.cpu for m in measures),
            "peak_bytes": max(m.peak for m in measures), "runs": len(measures),
        }  # fmt: skip
        self.results.append(row)
        print(f"{case} {part} {builder}: {row['seconds']:.3f} s, {row['cpu_seconds']:.2f} CPU-s, {row['peak_bytes'] / 1e6:.0f} MB", file=sys.stderr, flush=True)

    def tell(self, fact):
        """What is no time."""
        self.facts.append(fact)
        print(fact, file=sys.stderr, flush=True)

    def parts(self, case, build, parts, cold_runs=1):
        """Times `cold` (wiped first) and then each part, whose preparation is called before every run."""
        for builder in self.builders:
            try:
                cold = []
                for _ in range(cold_runs):
                    builder.wipe()
                    cold.append(build(builder))
                self.note(case, "cold", builder.name, cold)
                for part, prepare in parts.items():
                    measures = []
                    for run in range(self.args.runs):
                        prepare(run)
                        measures.append(build(builder))
                    self.note(case, part, builder.name, measures)
            except (RuntimeError, builders.BuildFailed) as error:
                print(f"{case} {builder.name}: failed: {error}", file=sys.stderr)
            finally:
                builder.wipe()

    def layered(self):
        layout = builders.base_image("debian")
        repo = os.path.join(self.state, "layered", "repo")
        shutil.copytree(os.path.join(builders.PROJECT, "examples", "layered-python"), repo)
        # A source tree of a size that services have.
        make_files(os.path.join(repo, "src", "shop", "generated"), 300 if self.args.quick else 3000, 11000)

        def change(run):
            with open(os.path.join(repo, "src", "shop", "recommend.py"), "a") as file:
                file.write(f"# Change {time.monotonic_ns()}.\n")

        self.parts(
            "layered", lambda builder: builder.build_layered(repo, layout),
            {"unchanged": lambda run: None, "new checkout": lambda run: new_checkout(repo), "one source file": change},
            cold_runs=self.args.cold_runs,
        )  # fmt: skip

    def context(self, count, size, patterns=0):
        directory = os.path.join(self.state, f"context-{count}")
        make_files(os.path.join(directory, "context"), count, size)
        if patterns:
            forms = ("**/*.tmp{}", "dir{}/**/cache", "*{}/build[0-9]?/*", "!src/keep{}/**", "some/file{}")
            with open(os.path.join(directory, "context", ".dockerignore"), "w") as file:
                file.writelines(forms[n % len(forms)].format(n) + "\n" for n in range(patterns))
        with open(os.path.join(directory, "Dockerfile"), "w") as file:
            file.write("FROM scratch\nCOPY . /\n")
        recipe = builders.Recipe(os.path.join(directory, "Dockerfile"), os.path.join(directory, "context"))
        self.parts(
            f"ignore-{count}-{patterns}" if patterns else f"context-{count} ({count * size / 1e6:.0f} MB)", lambda builder: builder.build(recipe),
            {"unchanged": lambda run: None, "new checkout": lambda run: new_checkout(recipe.context)},
            cold_runs=self.args.cold_runs,
        )  # fmt: skip
        shutil.rmtree(directory)

    def run_steps(self, count):
        directory = os.path.join(self.state, f"steps-{count}")
        os.makedirs(os.path.join(directory, "context"), exist_ok=True)
        with open(os.path.join(directory, "Dockerfile"), "w") as file:
            file.write("FROM busybox\n" + "".join(f"RUN echo {n} > /step{n}\n" for n in range(count)))
        return builders.Recipe(
            os.path.join(directory, "Dockerfile"), os.path.join(directory, "context"), bases={"busybox": builders.base_image("busybox")}
        )

    def steps(self, count):
        recipe = self.run_steps(count)
        kept = self.builders
        if count > 100:
            # Overlay takes so many layers in no other builder.
            self.builders = [builder for builder in kept if builder.name == "memobuild-ci"]
        self.parts(f"steps-{count}", lambda builder: builder.build(recipe), {"unchanged": lambda run: None})
        self.builders = kept

    def start(self):
        """What one more `RUN true` costs: the slope between 1 and 21 of them; beside it runc's start."""
        for builder in self.builders:
            times = {}
            for count in (1, 21):
                directory = os.path.join(self.state, f"start-{count}")
                os.makedirs(os.path.join(directory, "context"), exist_ok=True)
                with open(os.path.join(directory, "Dockerfile"), "w") as file:
                    file.write("FROM busybox\n" + "".join(f"RUN true {n}\n" for n in range(count)))
                recipe = builders.Recipe(
                    os.path.join(directory, "Dockerfile"), os.path.join(directory, "context"),
                    bases={"busybox": builders.base_image("busybox")},
                )  # fmt: skip
                measures = []
                for _ in range(self.args.runs):
                    builder.wipe()
                    measures.append(builder.build(recipe))
                times[count] = measures
            slope = (statistics.median(m.seconds for m in times[21]) - statistics.median(m.seconds for m in times[1])) / 20
            cpu = (statistics.median(m.cpu for m in times[21]) - statistics.median(m.cpu for m in times[1])) / 20
            self.note("start", "one RUN true", builder.name, [Measure(slope, cpu, times[21][0].peak)])
        if shutil.which("runc") and shutil.which("umoci"):
            bundle = os.path.join(self.state, "bundle")
            builders.run(["umoci", "unpack", "--image", f"{builders.base_image('busybox')}:latest", bundle])
            path = os.path.join(bundle, "config.json")
            with open(path) as file:
                config = json.load(file)
            config["process"].update(terminal=False, args=["/bin/true"])
            config["linux"]["namespaces"] = [n for n in config["linux"]["namespaces"] if n["type"] != "network"]
            with open(path, "w") as file:
                json.dump(config, file)
            measures = [timed(["runc", "--root", os.path.join(self.state, "runc"), "run", "--bundle", bundle, f"bench-{n}"]) for n in range(20)]
            self.note("start", "one RUN true", "runc alone", measures)

    def memory(self):
        """Peak memory with one large layer made by a RUN."""
        directory = os.path.join(self.state, "memory")
        os.makedirs(os.path.join(directory, "context"))
        size = 100_000_000 if self.args.quick else 2_000_000_000
        with open(os.path.join(directory, "Dockerfile"), "w") as file:
            file.write(f"FROM busybox\nRUN head -c {size} /dev/urandom > /large\n")
        recipe = builders.Recipe(
            os.path.join(directory, "Dockerfile"), os.path.join(directory, "context"), bases={"busybox": builders.base_image("busybox")}
        )
        self.parts(f"memory ({size / 1e6:.0f} MB layer)", lambda builder: builder.build(recipe), {})

    def bake(self, count):
        directory = os.path.join(self.state, f"bake-{count}")
        os.makedirs(directory)
        rows = count // 5
        text = BAKE + f'target "m" {{\n  name = "m${{n}}"\n  matrix = {{ n = range({rows}) }}\n  inherits = ["common"]\n  tags = [image("M${{n}}")]\n}}\n'
        for n in range(count - rows):
            parent = f"t{n - n % 10}" if n % 10 else "common"
            text += f'target "t{n}" {{\n  inherits = ["{parent}"]\n  tags = [image("T{n}")]\n  args = {{ N = {n}, P = target.common.args.A }}\n}}\n'
        text += "group \"default\" { targets = " + json.dumps(["m", *(f"t{n}" for n in range(count - rows))]) + " }\n"
        with open(os.path.join(directory, "docker-bake.hcl"), "w") as file:
            file.write(text)
        commands = {"memobuild-ci": [os.path.abspath(os.environ["MEMOBUILD_CI_BIN"]), "build", "--bake", ".", "--print"]}
        buildx = os.path.join(builders.CACHE, "bin", "buildx")
        if os.access(buildx, os.X_OK):
            commands["buildx"] = [buildx, "bake", "--print"]
        for name, command in commands.items():
            environment = {**os.environ, "BUILDX_CONFIG": os.path.join(self.state, "buildx")}
            measures = [timed(command, cwd=directory, env=environment) for _ in range(max(self.args.runs, 10))]
            self.note(f"bake-{count}", "plan", name, measures)

    def run(self):
        contexts = [(1000, 4000), (10000, 4000)] if self.args.quick else [(1000, 4000), (10000, 4000), (50000, 20000), (100000, 4000)]
        cases = {"layered": self.layered}
        cases.update({f"context-{count}": lambda c=count, s=size: self.context(c, s) for count, size in contexts})
        sizes = [(1000, 200)] if self.args.quick else [(1000, 200), (1000, 1600), (8000, 200)]
        cases.update({f"ignore-{count}-{patterns}": lambda c=count, p=patterns: self.context(c, 100, p) for count, patterns in sizes})
        cases.update({name: lambda case=case: case(self) for name, case in caches.CASES.items()})
        cases["start"] = self.start
        cases.update({f"steps-{count}": lambda c=count: self.steps(c) for count in ([10, 100] if self.args.quick else [10, 100, 1000])})
        cases["memory"] = self.memory
        cases.update({f"bake-{count}": lambda c=count: self.bake(c) for count in (200, 2000)})
        for name, case in cases.items():
            if not self.args.patterns or any(pattern in name for pattern in self.args.patterns):
                try:
                    case()
                except (RuntimeError, builders.BuildFailed) as error:
                    self.tell(f"{name}: failed: {error}")

    def close(self):
        for builder in self.builders:
            builder.close()

    def report(self):
        return {"machine": machine(), "versions": versions(), "results": self.results, "facts": self.facts}


def machine():
    with open("/proc/meminfo") as file:
        memory = int(file.readline().split()[1]) * 1024
    return {"cpus": os.cpu_count(), "memory_bytes": memory, "kernel": platform.release(), "arch": platform.machine(), "date": time.strftime("%Y-%m-%d")}


def versions():
    told = {"memobuild-ci": builders.run([os.environ["MEMOBUILD_CI_BIN"], "--version"], check=False).stdout.strip().split("\n")[0]}
    if builders.Buildah.available():
        told["buildah"] = builders.run(["buildah", "--version"]).stdout.strip()
        told["runc"] = builders.run(["runc", "--version"]).stdout.splitlines()[0]
    if builders.Buildkit.available():
        told["BuildKit"] = builders.Buildkit.version()
    return told


def markdown(report):
    """One row a case and part; times with the ratio of ours to each other builder's."""
    names = []
    for row in report["results"]:
        if row["builder"] not in names:
            names.append(row["builder"])
    others = [name for name in names if name != "memobuild-ci"]
    about = report["machine"]
    lines = [
        f"Measured {about['date']} on {about['cpus']} CPUs, {about['memory_bytes'] / 2**30:.0f} GiB, Linux {about['kernel']}, {about['arch']}; "
        + ", ".join(f"{name}: {version}" for name, version in report["versions"].items())
        + ". State on tmpfs; medians; seconds (CPU-seconds).",
        "",
        "| case | part | memobuild-ci | peak memory |" + "".join(f" {name} | ratio |" for name in others),
        "|---|---|---|---|" + "---|---|" * len(others),
    ]
    table = {}
    for row in report["results"]:
        table.setdefault((row["case"], row["part"]), {})[row["builder"]] = row
    for (case, part), row in table.items():
        ours = row.get("memobuild-ci")

        def cell(one):
            return f"{one['seconds']:.3g} ({one['cpu_seconds']:.3g})" if one else ""

        line = f"| {case} | {part} | {cell(ours)} | {ours['peak_bytes'] / 1e6:.0f} MB |" if ours else f"| {case} | {part} | | |"
        for name in others:
            other = row.get(name)
            ratio = f"{ours['seconds'] / other['seconds']:.2f}" if ours and other and other["seconds"] > 0 else ""
            line += f" {cell(other)} | {ratio} |"
        lines.append(line)
    lines += ["", *(f"- {fact}" for fact in report["facts"])]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json")
    parser.add_argument("--markdown")
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--cold-runs", type=int, default=1)
    parser.add_argument("--soak-minutes", type=float, default=3)
    parser.add_argument("-k", dest="patterns", action="append")
    parser.add_argument("--builder", action="append")
    args = parser.parse_args()
    state = tempfile.mkdtemp(prefix="memobuild-bench-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
    os.chmod(state, 0o755)
    bench = Bench(args, state)
    try:
        bench.run()
        report = bench.report()
    finally:
        bench.close()
        shutil.rmtree(state, ignore_errors=True)
    if args.json:
        builders.write_json(args.json, report)
    table = markdown(report)
    if args.markdown:
        with open(args.markdown, "w") as file:
            file.write(table)
    print(table)


if __name__ == "__main__":
    main()
