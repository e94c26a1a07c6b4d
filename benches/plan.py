#!/usr/bin/env python3
"""Times `plan` and `simulate --history` on a large repository, beside `git diff`.

    plan.py [--files N] [--commits N] [--history N] [--runs N] [--repository DIR --base REV --head REV]

The binary is taken from MEMOBUILD_CI_BIN (a release build). Without `--repository` one is made below /dev/shm: N files in
packages, three layers (`COPY` of the system's list, of the requirements, of the packages) and N commits, of which six in ten change files of a package,
three documentation and one requirements. Figures are medians of wall clock and of processor time, and the peak of the resident
size. *memoised* is a plan of two commits that were planned before; *cold* one with an empty cache directory. With
`--no-cache-lookup` a plan comes from names of Git objects; *contents* reads and hashes the files too, as a
plan that asks the caches does.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
import time

DOCKERFILES = {
    "docker/Dockerfile.base": "FROM scratch\nCOPY system.txt /system.txt\n",
    "docker/Dockerfile.ml": "ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\nCOPY requirements/ /requirements/\n",
    "docker/Dockerfile.app": "ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\nCOPY packages/ /packages/\n",
    "memobuild.yml": "version: 1\nimage: bench/service\nlayers:\n"
    "  base: {dockerfile: docker/Dockerfile.base}\n"
    "  ml: {from: base, dockerfile: docker/Dockerfile.ml}\n"
    "  app: {from: ml, dockerfile: docker/Dockerfile.app}\n",
    ".dockerignore": "**/*.md\n**/.git\n",
    "system.txt": "ca-certificates\n",
    "requirements/app.txt": "requests\n",
}


def make_repository(directory, files, commits):
    """A bare repository, written as a stream for `git fast-import`."""
    subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch=main", directory], check=True)
    stream = subprocess.Popen(["git", "fast-import", "--quiet"], cwd=directory, stdin=subprocess.PIPE)
    out = stream.stdin

    def commit(number, changes):
        out.write(f"commit refs/heads/main\ncommitter B <b@example.com> {1_700_000_000 + number} +0000\n".encode())
        message = f"commit {number}".encode()
        out.write(b"data %d\n%s\n" % (len(message), message))
        for path, text in changes:
            body = text.encode()
            out.write(b"M 100644 inline %s\ndata %d\n%s\n" % (path.encode(), len(body), body))

    def package(n):
        return f"packages/p{n % 200:03}/m{n // 200 % 25:02}/file{n:06}.py"

    def text(n, version):
        return f"# file {n}, version {version}\n" + f"value = {n * version}\n" * (20 + n % 40)

    commit(0, [*DOCKERFILES.items(), *((package(n), text(n, 1)) for n in range(files))])
    for number in range(1, commits):
        kind = number % 10
        if kind < 6:
            changes = [(package((number * 7919 + k) % files), text(number, number)) for k in range(3)]
        elif kind < 9:
            changes = [(f"docs/page{number % 50}.md", f"version {number}\n")]
        else:
            changes = [("requirements/app.txt", f"requests=={number}\n")]
        commit(number, changes)
    out.close()
    if stream.wait() != 0:
        raise SystemExit("git fast-import failed")
    subprocess.run(["git", "repack", "--quiet", "-ad"], cwd=directory, check=True)


def timed(command, runs, before=lambda: None):
    """Medians of wall clock and processor time in seconds, and the largest resident size in MB."""
    walls, processor, peak = [], [], 0
    for _ in range(runs):
        before()
        start = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        said = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        walls.append(time.monotonic() - start)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            raise SystemExit(f"{' '.join(command)}: {said.decode()}")
        processor.append(usage.ru_utime + usage.ru_stime)
        peak = max(peak, usage.ru_maxrss / 1000)
    return statistics.median(walls), statistics.median(processor), peak


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--commits", type=int, default=5_000)
    parser.add_argument("--history", type=int, default=200)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--repository")
    parser.add_argument("--base", default="HEAD~1")
    parser.add_argument("--head", default="HEAD")
    args = parser.parse_args()
    program = os.environ["MEMOBUILD_CI_BIN"]
    with tempfile.TemporaryDirectory(dir="/dev/shm") as place:
        repository = args.repository
        if not repository:
            repository = os.path.join(place, "repository.git")
            make_repository(repository, args.files, args.commits)
        cache = os.path.join(place, "cache")
        options = ["--cache-dir", cache]
        pair = ["--base", args.base, "--head", args.head]
        plan = [program, "-C", repository, "plan", *options, *pair, "--no-remote-cache"]
        empty = lambda: shutil.rmtree(cache, ignore_errors=True)
        history = [program, "-C", repository, "simulate", *options, "--history", str(args.history)]
        rows = [
            ("`git diff --name-only`", timed(["git", "-C", repository, "diff", "--name-only", args.base, args.head], args.runs)),
            ("`plan --no-cache-lookup`, cold", timed([*plan, "--no-cache-lookup"], args.runs, empty)),
            ("the same, memoised", timed([*plan, "--no-cache-lookup"], args.runs)),
            ("`plan` with contents, cold", timed(plan, args.runs, empty)),
            ("the same, memoised", timed(plan, args.runs)),
            (f"`simulate --history {args.history}`, cold", timed(history, 1, empty)),
            ("the same, memoised", timed(history, args.runs)),
        ]
    print(f"| {args.files:,} files, {args.commits:,} commits | wall, s | processor, s | peak, MB | over `git diff` |")
    print("|---|---|---|---|---|")
    first = rows[0][1][0]
    for name, (wall, processor, peak) in rows:
        print(f"| {name} | {wall:.3f} | {processor:.3f} | {peak:.0f} | {wall / first:.1f} |")


if __name__ == "__main__":
    main()
