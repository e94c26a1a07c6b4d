"""Benchmarks of shared caches: builds on runners that start empty, restoring, saving, the server over time.

Each function is a case of `run.py` and takes its `Bench`.
"""

import hashlib
import http.client
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
import urllib.request

import builders
import support
from measure import Measure, make_files, timed

MB = 1e6


class Servers:
    """Debian's docker-registry and our cache server on loopback, with their data below `state`."""

    def __init__(self, state):
        self.state = state
        self.processes = []
        self.data = os.path.join(state, "server")

    def __enter__(self):
        port = support.free_port()
        self.registry = f"127.0.0.1:{port}"
        config = {
            "version": "0.1", "log": {"level": "error", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": os.path.join(self.state, "registry")}},
            "http": {"addr": self.registry},
        }  # fmt: skip
        path = os.path.join(self.state, "registry.json")
        with open(path, "w") as file:
            json.dump(config, file)
        self.start(["docker-registry", "serve", path], f"http://{self.registry}/v2/")
        self.server = self.serve(self.data)
        return self

    def serve(self, data, *options):
        """Starts a cache server; gives its address."""
        address = f"127.0.0.1:{support.free_port()}"
        binary = os.path.abspath(os.environ["MEMOBUILD_CI_BIN"])
        self.start([binary, "serve", "--listen", address, "--data", data, *options], f"http://{address}/healthz")
        return f"http://{address}"

    def start(self, command, address):
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.processes.append(process)
        for _ in range(600):
            try:
                urllib.request.urlopen(address, timeout=5).close()
                return
            except OSError:
                time.sleep(0.05)
        raise RuntimeError(f"{command} doesn't answer")

    def caches(self):
        directory = os.path.join(self.state, "directory")
        os.makedirs(directory, exist_ok=True)
        return {"registry": f"oci://{self.registry}/memobuild/cache", "server": self.server, "directory": f"file://{directory}"}

    def __exit__(self, *_):
        for process in self.processes:
            process.terminate()
            process.wait()


def product(bench):
    """The product, if it takes part."""
    return next((builder for builder in bench.builders if builder.name == "memobuild-ci"), None)


def write(path, text, mode="w"):
    with open(path, mode) as file:
        file.write(text)


def fetched(measure):
    """What a build says that it fetched."""
    found = re.search(r"([0-9.]+ \w?B) fetched", measure.log)
    return found.group(1) if found else "nothing"


def shared(bench):
    """Builds on empty runners, pushed to Debian's docker-registry."""
    with tempfile.TemporaryDirectory(dir=bench.state) as state, Servers(state) as servers:
        context = os.path.join(state, "context")
        make_files(os.path.join(context, "src"), 1000, 4000)
        size = 30_000_000 if bench.args.quick else 300_000_000
        dockerfile = os.path.join(state, "Dockerfile")
        write(
            dockerfile,
            f"FROM busybox\nRUN head -c {size} /dev/urandom > /heavy\nCOPY src /src\nRUN find /src -type f | xargs cat | md5sum > /sum\n",
        )
        recipe = builders.Recipe(dockerfile, context, bases={"busybox": builders.base_image("busybox")})
        changes = 0

        def change():
            nonlocal changes
            changes += 1
            write(os.path.join(context, "src", "d0", "e0", "f0.py"), f"# Change {changes}.\n", "a")

        def times(case, lanes):
            """Takes turns, so that what else the machine does hits all alike."""
            for builder, build in lanes:
                builder.wipe()
                bench.note(case, "cold", builder.name, [build()])
            for part, prepare in (("unchanged", lambda: None), ("one source file", change)):
                measures = [[] for _ in lanes]
                for _ in range(bench.args.runs):
                    prepare()
                    for taken, (builder, build) in zip(measures, lanes):
                        builder.wipe()
                        taken.append(build())
                for taken, (builder, _) in zip(measures, lanes):
                    bench.note(case, part, builder.name, taken)
                    if builder.name == "memobuild-ci":
                        bench.tell(f"{case} {part}: {fetched(taken[-1])} fetched")

        ours = product(bench)
        others = [builder for builder in bench.builders if builder.name == "BuildKit"]
        caches = servers.caches() if ours else {"registry": None}
        for tier, address in caches.items():
            lanes = [(ours, lambda a=address: ours.push(recipe, servers.registry, a))] if ours else []
            if tier == "registry":
                lanes += [(builder, lambda b=builder: b.push(recipe, servers.registry)) for builder in others]
            times(f"shared-{tier}", lanes)
        if ours:
            parts = {"no cache": None, "a dead cache": "http://127.0.0.1:9"}
            measures = {part: [] for part in parts}
            for _ in range(bench.args.runs):
                # Nobody listens at that port.
                for part, address in parts.items():
                    ours.wipe()
                    measures[part].append(ours.push(recipe, servers.registry, address))
            for part, taken in measures.items():
                bench.note("shared-none", part, ours.name, taken)
        for builder in bench.builders:
            builder.wipe()


def shared_steps(bench, count):
    """Unchanged chains of RUN steps on an empty runner: what look-ups cost."""
    with tempfile.TemporaryDirectory(dir=bench.state) as state, Servers(state) as servers:
        recipe = bench.run_steps(count)
        for builder in bench.builders:
            if builder.name == "memobuild-ci":
                pushes = {
                    tier: lambda a=address: builder.push(recipe, servers.registry, a) for tier, address in servers.caches().items()
                }
            elif builder.name == "BuildKit":
                pushes = {"registry": lambda: builder.push(recipe, servers.registry)}
            else:
                continue
            for tier, push in pushes.items():
                measures = []
                # A long chain takes the peer long.
                runs = bench.args.runs if builder.name == "memobuild-ci" or count < 100 else 1
                for _ in range(runs + 1):
                    builder.wipe()
                    measures.append(push())
                bench.note(f"shared-steps-{count}-{tier}", "unchanged", builder.name, measures[1:])
            builder.wipe()


def restore(bench):
    """One large layer on an empty runner, beside curl and what else verifies and unpacks the same bytes."""
    builder = product(bench)
    if not builder:
        return
    size = 100_000_000 if bench.args.quick else 2_000_000_000
    with tempfile.TemporaryDirectory(dir=bench.state) as state, Servers(state) as servers:
        context = os.path.join(state, "context")
        os.makedirs(context)
        write(os.path.join(context, "number"), "0\n")
        dockerfile = os.path.join(state, "Dockerfile")
        write(dockerfile, f"FROM busybox\nRUN head -c {size} /dev/urandom > /large\nCOPY number /\nRUN cat /number > /copy\n")
        recipe = builders.Recipe(dockerfile, context, bases={"busybox": builders.base_image("busybox")})
        case = f"restore ({size / MB:.0f} MB layer)"
        builder.cached(recipe, servers.server, "type=cacheonly")
        builder.wipe()
        layout = os.path.join(builder.state, "image")
        to_layout = f"type=oci,dest={layout},tar=false"
        builder.cached(recipe, servers.server, to_layout)
        blobs = os.path.join(layout, "blobs", "sha256")
        digest = max(os.listdir(blobs), key=lambda name: os.path.getsize(os.path.join(blobs, name)))
        url = f"{servers.server}/v1/default/blobs/sha256:{digest}"
        directory = os.path.join(state, "curl")
        # What a script would do, and what it could do at best on two processors.
        scripts = {
            "export": {
                "curl, sha256sum": f"curl -sSf -o blob {url}; sha256sum blob",
                "curl to openssl": f"curl -sSf {url} | tee blob | openssl sha256",
            },
            "for a RUN": {
                "curl, sha256sum": f"curl -sSf -o blob {url}; sha256sum blob; mkdir layer; tar -x --zstd -f blob -C layer",
                "curl to openssl": f"mkdir layer; curl -sSf {url} | tee blob >(openssl sha256 >sum) | tar -x --zstd -C layer",
            },
        }
        for part, others in scripts.items():
            measures = {name: [] for name in [builder.name, *others]}
            for run in range(bench.args.runs):
                builder.wipe()
                output = to_layout
                if part != "export":
                    output = "type=cacheonly"
                    write(os.path.join(context, "number"), f"{run + 1}\n")
                measures[builder.name].append(builder.cached(recipe, servers.server, output))
                builder.wipe()
                for name, script in others.items():
                    os.makedirs(directory)
                    measures[name].append(timed(["bash", "-ec", script], cwd=directory))
                    shutil.rmtree(directory)
            for name, taken in measures.items():
                bench.note(case, part, name, taken)
            ours = statistics.median(m.seconds for m in measures[builder.name])
            for name in others:
                theirs = statistics.median(m.seconds for m in measures[name])
                bench.tell(f"{case} {part}: {theirs / ours:.0%} of the speed of `{name}`, {size / ours / MB:.0f} MB/s")


def packages(bench):
    """A layer of packages of which one changes: what travels to our server, which keeps frames."""
    builder = product(bench)
    if not builder:
        return
    count = 10 if bench.args.quick else 50
    with tempfile.TemporaryDirectory(dir=bench.state) as state, Servers(state) as servers:
        context = os.path.join(state, "context")

        def package(number, seed):
            """20 MB: one library, and 120 files."""
            choose = random.Random(seed)
            directory = os.path.join(context, "packages", f"package{number:02}")
            os.makedirs(directory, exist_ok=True)
            write(os.path.join(directory, "library.so"), choose.randbytes(8_000_000), "wb")
            for n in range(120):
                write(os.path.join(directory, f"module{n:03}.py"), choose.randbytes(100_000), "wb")

        for number in range(count):
            package(number, number)
        dockerfile = os.path.join(state, "Dockerfile")
        write(dockerfile, "FROM busybox\nRUN --mount=type=bind,target=/from cp -r /from/packages /site-packages\n")
        recipe = builders.Recipe(dockerfile, context, bases={"busybox": builders.base_image("busybox")})
        sizes = []
        for part in ("cold", "one package"):
            builder.wipe()
            measure = builder.cached(recipe, servers.server, "type=cacheonly")
            sizes.append(tree_size(os.path.join(servers.data, "frames")))
            bench.note(f"packages ({count * 20} MB layer)", part, builder.name, [measure])
            package(count // 2, "changed")
        new = sizes[1] - sizes[0]
        bench.tell(f"packages: of a layer of {sizes[0] / MB:.0f} MB {new / MB:.1f} MB travelled after 20 MB had changed ({new / sizes[0]:.1%})")
        builder.wipe()


def tree_size(directory):
    return sum(os.path.getsize(os.path.join(parent, name)) for parent, _, names in os.walk(directory) for name in names)


def save(bench):
    """Cold builds with a cache to save to: how long they go on after their last step."""
    builder = product(bench)
    if not builder:
        return
    with tempfile.TemporaryDirectory(dir=bench.state) as state, Servers(state) as servers:
        repo = os.path.join(state, "repo")
        shutil.copytree(os.path.join(builders.PROJECT, "examples", "layered-python"), repo)
        make_files(os.path.join(repo, "src", "shop", "generated"), 300 if bench.args.quick else 3000, 11000)
        base = f"SYSTEM_IMAGE=oci-layout://{builders.base_image('debian')}"
        words = ["json" if word == "plain" else word for word in builder.words()]
        words += ["--ca-certificates", "host", "--build-arg", base, "-o", "type=cacheonly"]
        for tier, cache in servers.caches().items():
            builder.wipe()
            environment = builder.environment(cache)
            began = time.time()
            measure = timed(words, cwd=repo, env=environment)
            ended = began + measure.seconds
            events = [json.loads(line) for line in measure.log.splitlines() if line.startswith("{")]
            last = max(event["ms"] for event in events if event["event"] == "step-finished")
            finished = next(event for event in events if event["event"] == "finished")
            saved = next(event for event in events if event["event"] == "saved")
            # Events count from the program's start; what follows the last one is its end.
            after = finished["ms"] - last + max(0, (ended - began) * 1000 - finished["ms"])
            bench.note(f"save-{tier}", "cold, layered", builder.name, [measure])
            bench.tell(
                f"save-{tier}: {after:.0f} ms from the last step to the end, {after / measure.seconds / 1000:.1%} of the build; "
                f"{saved['new_bytes'] / MB:.0f} MB saved, {saved['left']} results left"
            )
        builder.wipe()


def soak(bench):
    """Our server under load for `--soak-minutes`, with a limit so that it collects: its memory."""
    builder = product(bench)
    with tempfile.TemporaryDirectory(dir=bench.state) as state, Servers(state) as servers:
        address = servers.serve(os.path.join(state, "soaked"), "--max-size", "1GB", "--grace", "5s")
        process = servers.processes[-1]
        minutes = 0.2 if bench.args.quick else bench.args.soak_minutes
        deadline = time.monotonic() + minutes * 60
        counts, failures, times = [0] * 8, [], []
        context = os.path.join(state, "context")
        os.makedirs(context)

        def client(number):
            choose = random.Random(number)
            connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=60)
            known = []
            while time.monotonic() < deadline:
                body = choose.randbytes(choose.randrange(1000, 600_000))
                digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
                keys = [f"blake3:{choose.randbytes(32).hex()}" for _ in range(50)]
                requests = [
                    ("PUT", f"blobs/{digest}", body, (200, 201, 204, 507)),
                    ("POST", "actions/lookup", json.dumps({"scopes": ["protected", "branch/main"], "keys": keys}), (200,)),
                    ("POST", "blobs/missing", json.dumps({"digests": known[-50:]}), (200,)),
                    ("GET", f"blobs/{choose.choice(known or [digest])}", None, (200, 404)),
                ]
                known = [*known[-200:], digest]
                for method, path, content, expected in requests:
                    headers = {"Content-Type": "application/json"} if method == "POST" else {}
                    asked = time.monotonic()
                    connection.request(method, f"/v1/default/{path}", content, headers)
                    answer = connection.getresponse()
                    answer.read()
                    if method == "POST":
                        times.append(time.monotonic() - asked)
                    if answer.status not in expected:
                        failures.append(f"{method} {path}: {answer.status}")
                    counts[number] += 1

        def build():
            number = 0
            while builder and time.monotonic() < deadline:
                number += 1
                path = os.path.join(context, "Dockerfile")
                write(path, f"FROM busybox\nRUN echo {number} > /a\nRUN head -c 3000000 /dev/urandom > /b\n")
                builder.wipe()
                builder.cached(builders.Recipe(path, context, bases={"busybox": builders.base_image("busybox")}), address, "type=cacheonly")

        threads = [threading.Thread(target=client, args=(n,)) for n in range(len(counts))] + [threading.Thread(target=build)]
        for thread in threads:
            thread.start()
        sizes = []
        while any(thread.is_alive() for thread in threads):
            time.sleep(1)
            sizes.append(resident(process.pid))
        for thread in threads:
            thread.join()
        quarter = max(1, len(sizes) // 4)
        early, late = statistics.median(sizes[quarter : 2 * quarter]), statistics.median(sizes[-quarter:])
        bench.tell(
            f"soak: {minutes:g} minutes, {sum(counts)} requests by {len(counts)} clients and builds beside them, {len(failures)} unexpected answers "
            f"{sorted(set(failures))[:3]}; memory {early / MB:.1f} MB in the second quarter, {late / MB:.1f} MB in the last, at most {max(sizes) / MB:.1f} MB; "
            f"{tree_size(os.path.join(state, 'soaked')) / MB:.0f} MB on disk"
        )
        times.sort()
        peak = max(sizes)
        bench.note("soak", "a small request", "memobuild-ci", [Measure(statistics.median(times), 0, peak)])
        if builder:
            builder.wipe()


def resident(pid):
    """Resident bytes of a process."""
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmRSS"))


CASES = {
    "shared": shared,
    "shared-steps-10": lambda bench: shared_steps(bench, 10),
    "shared-steps-100": lambda bench: shared_steps(bench, 100),
    "restore": restore,
    "packages": packages,
    "save": save,
    "soak": soak,
}
