#!/usr/bin/env python3
"""Compares the product's images with the reference builders' over all cases.

    differential.py [-k PATTERN] [--left BUILDER] [--right BUILDER] [--record]

Builders: memobuild (MEMOBUILD_CI_BIN), buildkit, buildah, recorded. By default memobuild is
compared with the recordings, and with each of the others that is at hand. `--record` writes BuildKit's results to
`cases/*/expected.json`.
"""

import argparse
import os
import re
import shutil
import sys
import tempfile
import time

import builders
import cases
import images
import known_differences


def make(name, state):
    if name == "memobuild":
        return builders.Memobuild(os.environ["MEMOBUILD_CI_BIN"], state)
    return {"buildah": builders.Buildah, "buildkit": builders.Buildkit}[name](state)


def listing_of(name, builder, case, recipe):
    """(listing, config) of a case from a builder or from its recording; None where it can't build it."""
    if name == "recorded":
        expected = case.expected()
        if expected is None or "fails" in expected:
            return None
        base = images.Image(builders.base_image(case.recorded_base)) if case.recorded_base else None
        return images.patched(expected, base)
    if name in ("buildah", "buildkit") and name not in case.oracles():
        return None
    image = builder.build(recipe)
    return image.listing(), image.run_config()


def failure_of(name, builder, case, recipe):
    """Why the result of a case that must fail is wrong, or None."""
    if name == "recorded":
        recorded = case.expected() is not None and "fails" in case.expected()
        return None if recorded or not case.oracles() else "BuildKit's failure isn't recorded"
    try:
        builder.build(recipe)
    except builders.BuildFailed as error:
        result = error.result
    else:
        return "the build ends well, though it must fail"
    if name != "memobuild":
        return None
    if "panicked" in result.stderr:
        return f"panicked:\n{result.stderr}"
    expected = case.fails()
    if result.returncode != expected["exit"]:
        return f"exit code {result.returncode}, not {expected['exit']}:\n{result.stderr}"
    messages = expected["message"]
    missing = [text for text in ([messages] if isinstance(messages, str) else messages) if text not in result.stderr]
    return f"the message lacks {missing}:\n{result.stderr}" if missing else None


def compare_case(case, left, right, made, recipe):
    """The unexplained differences of one case, or None when a side can't build it."""
    if case.fails():
        asked = [name for name in (left, right) if name in ("memobuild", "recorded") or name in case.oracles()]
        found = [(name, failure_of(name, made.get(name), case, recipe)) for name in asked]
        return [f"{name}: {problem}" for name, problem in found if problem]
    one, other = (listing_of(name, made.get(name), case, recipe) for name in (left, right))
    if one is None or other is None:
        return None
    found = images.compare_configs(one[1], other[1]) + images.compare_trees(one[0], other[0])
    return known_differences.unexplained(found, case.name, left, right)


def last_error(result):
    """BuildKit's own message, without the vertices' output."""
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    return lines[-1].removeprefix("error: ") if lines else result.stderr.strip().splitlines()[-1]


def record_case(case, buildkit, work):
    """BuildKit's result as what `expected.json` holds, and a line that tells it."""
    recipe = case.recipe(work)
    if case.fails():
        try:
            buildkit.build(recipe)
        except builders.BuildFailed as error:
            message = last_error(error.result).replace(work, "DIR")
            if "SERVER" in recipe.args:
                message = message.replace(recipe.args["SERVER"], "SERVER")
            message = re.sub(r"ref \w{25}::\w{25}", "ref …", message)
            return {"fails": message}, f"fails: {message}"
        raise RuntimeError(f"{case.name}: BuildKit builds it, though `fails` says that it must not")
    image = buildkit.build(recipe)
    base = images.Image(builders.base_image(case.recorded_base)) if case.recorded_base else None
    expected = images.record(image, base)
    return expected, f"{len(expected['changed'])} changed, {len(expected['removed'])} removed"


def record(selected, work):
    """Writes the recordings of the cases; returns how many BuildKit can't give."""
    bad = 0
    buildkit = builders.Buildkit(work)
    try:
        for case in selected:
            if "buildkit" not in case.oracles():
                continue
            try:
                expected, said = record_case(case, buildkit, work)
            except (builders.BuildFailed, images.InvalidImage, RuntimeError) as error:
                bad += 1
                print(f"{case.name}: not recorded: {error}", flush=True)
                continue
            expected["builder"] = f"BuildKit {buildkit.version()}"
            builders.write_json(case.path("expected.json"), expected)
            print(f"{case.name}: {said}", flush=True)
    finally:
        buildkit.close()
    return bad


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-k", dest="pattern", default="")
    parser.add_argument("--left", default="memobuild")
    parser.add_argument("--right", action="append", default=[])
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--limit", type=int, default=12, help="differences shown per case")
    args = parser.parse_args()
    work = tempfile.mkdtemp(prefix="differential-")
    selected = cases.load(args.pattern)
    made = {}
    bad = 0
    try:
        if args.record:
            return 1 if record(selected, work) else 0
        others = args.right or ["recorded"] + [
            name for name, kind in (("buildkit", builders.Buildkit), ("buildah", builders.Buildah)) if kind.available()
        ]
        for name in {args.left, *others} - {"recorded"}:
            made[name] = make(name, work)
        for case in selected:
            recipe = case.recipe(work)
            for other in others:
                start = time.monotonic()
                try:
                    found = compare_case(case, args.left, other, made, recipe)
                except (builders.BuildFailed, images.InvalidImage) as error:
                    bad += 1
                    print(f"{case.name}: {args.left} and {other}: failed: {error}")
                    continue
                if found is None:
                    continue
                bad += bool(found)
                print(f"{case.name}: {args.left} and {other}: {len(found)} differences ({time.monotonic() - start:.1f} s)", flush=True)
                for difference in found[: args.limit]:
                    print(f"    {difference}")
        print(f"{len(selected)} cases, {bad} comparisons with differences")
        return 1 if bad else 0
    finally:
        for builder in made.values():
            builder.close()
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
