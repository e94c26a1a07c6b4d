"""Root file systems and configs equal those that the reference builders make from the same Dockerfiles."""

import copy
import os
import unittest

import builders
import cases
import differential
import images
import known_differences
import support


class Product(support.EndToEnd):
    """One test for each case and reference; the recorded results of BuildKit are always compared."""

    def compare(self, case, reference):
        names = ["memobuild", reference]
        made = {"memobuild": support.shared(builders.Memobuild, support.BINARY)}
        kind = {"buildkit": builders.Buildkit, "buildah": builders.Buildah}.get(reference)
        if kind and not kind.available():
            self.missing(f"`{reference}` and `runc`")
        if kind:
            made[reference] = support.shared(kind)
        found = differential.compare_case(case, *names, made, case.recipe(self.directory))
        if found:
            self.fail(f"{len(found)} differences from {reference}:\n" + "\n".join(map(str, found[:40])))


    def test_a_stage_number_is_a_target(self):
        context = self.context("FROM scratch AS a\nLABEL which=a\nFROM scratch AS b\nLABEL which=b\nFROM scratch\n")
        for target, which in (("0", "a"), ("1", "b"), ("b", "b")):
            image = self.build(context, "--target", target, dest=self.path(f"image-{target}"))
            self.assertEqual(image.run_config()["Labels"], {"which": which})


class Harness(support.EndToEnd):
    """The comparison itself: it sees what differs, and nothing where nothing does."""

    needs_binary = False

    def test_buildah_equals_buildah(self):
        if not builders.Buildah.available():
            self.missing("buildah and runc")
        buildah = support.shared(builders.Buildah)
        for name in ("multi-stage", "run-hard-links"):
            recipe = cases.Case(name).recipe(self.path(name))
            self.assertEqual(images.compare(buildah.build(recipe), buildah.build(recipe)), [])

    def test_buildah_equals_the_recorded_results_of_buildkit(self):
        if not builders.Buildah.available():
            self.missing("buildah and runc")
        made = {"buildah": support.shared(builders.Buildah)}
        for name in ("copy-basics", "copy-symlinked-destination", "run-whiteouts", "run-replaces-kinds", "workdir-user"):
            case = cases.Case(name)
            found = differential.compare_case(case, "buildah", "recorded", made, case.recipe(self.directory))
            self.assertEqual(found, [], name)

    def test_a_recording_gives_the_image_back(self):
        tree = images.Image(builders.base_image("busybox")).listing()
        changed = dict(tree)
        del changed["etc/group"]
        changed["new"] = changed["new-link"] = images.Node("file", 0o644, 1, 2, 3, "abc", xattrs={"user.a": "00ff"})
        image, base = Made(changed), Made(tree)
        again, config = images.patched(images.record(image, base), base)
        self.assertEqual(images.compare_trees(changed, again), [])
        self.assertEqual(config, image.run_config())

    def test_planted_differences_are_found(self):
        tree = images.Image(builders.base_image("busybox")).listing()
        plants = {
            "mode": lambda t: setattr(t["etc/passwd"], "mode", 0o600),
            "uid": lambda t: setattr(t["home/app"], "uid", 0),
            "gid": lambda t: setattr(t["home/app"], "gid", 0),
            "size": lambda t: setattr(t["etc/passwd"], "size", 1),
            "sha256": lambda t: setattr(t["etc/passwd"], "sha256", "0"),
            "target": lambda t: setattr(t["bin/ls"], "target", "elsewhere"),
            "type": lambda t: setattr(t["etc/group"], "type", "fifo"),
            "xattrs": lambda t: t["bin/busybox"].xattrs.update({"security.capability": "01"}),
            "presence": lambda t: t.pop("var/log"),
            "hard links": lambda t: t.update({"etc/group": t["etc/passwd"]}),
        }
        for field, plant in plants.items():
            other = copy.deepcopy(tree)
            plant(other)
            found = images.compare_trees(tree, other)
            self.assertIn(field, [difference.field for difference in found])
            self.assertEqual(known_differences.unexplained(found, "any", "memobuild", "recorded"), found)
        self.assertEqual(images.compare_trees(tree, copy.deepcopy(tree)), [])
        self.assertEqual(len(images.compare_configs({"Cmd": ["a"]}, {"Cmd": ["b"], "User": "x"})), 2)

    def test_every_case_has_a_recorded_result(self):
        all_cases = cases.load()
        self.assertGreaterEqual(len(all_cases), 30)
        missing = [case.name for case in all_cases if case.expected() is None and "buildkit" in case.oracles()]
        self.assertEqual(missing, [])
        silent = [case.name for case in all_cases if not case.oracles() and not case.options.get("reason")]
        self.assertEqual(silent, [], "a case that no reference builds says why")


class Made:
    """An image that is only a listing."""

    def __init__(self, tree):
        self.tree = tree

    def listing(self):
        return self.tree

    def run_config(self):
        return {"architecture": "amd64", "os": "linux", "Cmd": ["x"]}


def add_tests():
    for case in cases.load():
        references = ["recorded"]
        # The recordings are BuildKit's; a live one is asked when it is at hand.
        if builders.Buildkit.available() and os.environ.get("MEMOBUILD_TEST_BUILDKIT"):
            references.append("buildkit")
        references += [name for name in ("buildah",) if name in case.oracles()]
        for reference in references:

            def test(self, case=case, reference=reference):
                self.compare(case, reference)

            setattr(Product, f"test_{case.name.replace('-', '_')}_as_{reference}", test)


add_tests()

if __name__ == "__main__":
    unittest.main()
