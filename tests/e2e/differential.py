#!/usr/bin/env python3
"""Compares the product's images with the reference builders' over all cases.

    differential.py [-k PATTERN] [--left BUILDER] [--right BUILDER] [--record]

Builders: memobuild (MEMOBUILD_CI_BIN), buildkit, buildah, recorded. By default memobuild is
compared with each of the others that is at hand. `--record` writes BuildKit's results to
`cases/*/expected.json`.
"""

import argparse
import os
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
        if expected is None:
            return None
        base = images.Image(builders.base_image(case.recorded_base)) if case.recorded_base else None
        return images.patched(expected, base)
    if name in ("buildah", "buildkit") and name not in case.oracles():
        return None
    image = builder.build(recipe)
    return image.listing(), image.run_config()


def compare_case(case, left, right, made, recipe):
    """The unexplained differences of one case, or None when a side can't build it."""
    one, other = (listing_of(name, made.get(name), case, recipe) for name in (left, right))
    if one is None or other is None:
        return None
    found = images.compare_configs(one[1], other[1]) + images.compare_trees(one[0], other[0])
    return known_differences.unexplained(found, case.name, left, right)


def record(selected, work):
    buildkit = builders.Buildkit(work)
    try:
        for case in selected:
            image = buildkit.build(case.recipe(work))
            base = images.Image(builders.base_image(case.recorded_base)) if case.recorded_base else None
            expected = images.record(image, base)
            expected["builder"] = f"BuildKit {buildkit.version()}"
            builders.write_json(case.path("expected.json"), expected)
            print(f"{case.name}: {len(expected['changed'])} changed, {len(expected['removed'])} removed")
    finally:
        buildkit.close()


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
            record(selected, work)
            return 0
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
