"""A layered repository: base, ml and app as a chain, cold, unchanged, after a change at each level."""

import os
import re
import shutil

import builders
import images
import support

CONFIG = """
version: 1
image: example/service
layers:
  base: {dockerfile: "docker/{variant}/Dockerfile.base"}
  ml: {from: base, dockerfile: "docker/{variant}/Dockerfile.ml"}
  app: {from: ml, dockerfile: "docker/{variant}/Dockerfile.app"}
variants:
  cpu: {platforms: [PLATFORM]}
"""
BASE = "ARG SYSTEM_IMAGE=busybox\nFROM ${SYSTEM_IMAGE}\nENV LEVEL=base\nRUN echo base > /base\n"
ML = "ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\nCOPY requirements/ml.txt /tmp/\nRUN cat /tmp/ml.txt /base > /ml\n"
APP = "ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\nWORKDIR /srv\nCOPY src/ ./\nRUN cat /ml *.py > /app\nCMD [\"cat\", \"/app\"]\n"


class Layered(support.EndToEnd):
    def setUp(self):
        super().setUp()
        import sys

        sys.path.insert(0, os.path.join(builders.PROJECT, "scripts"))
        import oci_pack

        self.write("repo/memobuild.yml", CONFIG.replace("PLATFORM", "linux/" + oci_pack.architecture()))
        for name, text in (("base", BASE), ("ml", ML), ("app", APP)):
            self.write(f"repo/docker/cpu/Dockerfile.{name}", text)
        self.write("repo/requirements/ml.txt", "numpy\n")
        self.write("repo/requirements/app.txt", "flask\n")
        self.write("repo/src/main.py", "main\n")
        self.write("repo/src/util.py", "util\n")

    def pipeline(self, *options, exit=0, **settings):
        system = f"SYSTEM_IMAGE=oci-layout://{builders.base_image('busybox')}"
        return self.memobuild("build", "--build-arg", system, *options, cwd=self.path("repo"), exit=exit, **settings)

    def outputs(self):
        directory = self.path("repo/.memobuild-output")
        return {name: images.Image(os.path.join(directory, name)) for name in sorted(os.listdir(directory))}

    def output(self, layer):
        found = [image for name, image in self.outputs().items() if name.endswith(layer)]
        self.assertEqual(len(found), 1, os.listdir(self.path("repo/.memobuild-output")))
        return found[0]

    def test_chain_is_built_and_a_second_build_runs_nothing(self):
        ran, hits = self.steps(self.pipeline())
        self.assertEqual(hits, 0)
        app = self.output("app")
        self.assertEqual(app.listing()["app"].size, len("numpy\nbase\nmain\nutil\n"))
        self.assertIn("LEVEL=base", app.config["config"]["Env"])
        self.assertEqual(app.config["config"]["Cmd"], ["cat", "/app"])
        below = self.output("ml").config["rootfs"]["diff_ids"]
        self.assertEqual(app.config["rootfs"]["diff_ids"][: len(below)], below)
        again = self.steps(self.pipeline())
        self.assertEqual(again, (0, ran))
        self.assertEqual(self.output("app").digest, app.digest)

    def test_one_source_file_reaches_only_the_app(self):
        self.pipeline()
        before = self.outputs()
        self.write("repo/src/util.py", "changed\n")
        ran, _ = self.steps(self.pipeline())
        self.assertEqual(ran, 2)
        after = self.outputs()
        changed = [name for name in after if after[name].digest != before[name].digest]
        self.assertEqual([name.endswith("app") for name in changed], [True])

    def test_requirements_reach_ml_and_app(self):
        self.pipeline()
        self.write("repo/requirements/ml.txt", "numpy scipy\n")
        ran, _ = self.steps(self.pipeline())
        self.assertEqual(ran, 3, "COPY and RUN of ml, RUN of app; its COPY and WORKDIR are the same")

    def test_an_unused_file_reaches_nothing(self):
        self.pipeline()
        self.write("repo/requirements/app.txt", "django\n")
        self.write("repo/README.md", "words\n")
        self.assertEqual(self.steps(self.pipeline())[0], 0)

    def test_times_modes_and_place_of_the_checkout_reach_nothing(self):
        self.pipeline()
        digest = self.output("app").digest
        shutil.copytree(self.path("repo"), self.path("elsewhere/repo"), copy_function=shutil.copyfile)
        shutil.rmtree(self.path("elsewhere/repo/.memobuild-output"))
        shutil.rmtree(self.path("repo"))
        os.rename(self.path("elsewhere/repo"), self.path("repo"))
        os.chmod(self.path("repo/src/main.py"), 0o664)
        self.assertEqual(self.steps(self.pipeline())[0], 0)
        self.assertEqual(self.output("app").digest, digest)

    def test_early_cut_off(self):
        """A step that runs again and makes the same content doesn't reach what is above it."""
        self.pipeline()
        self.write("repo/docker/cpu/Dockerfile.base", BASE.replace("echo base", "echo  base"))
        ran, _ = self.steps(self.pipeline())
        self.assertEqual(ran, 1)

    def test_no_cache_runs_everything(self):
        ran, _ = self.steps(self.pipeline())
        self.assertEqual(self.steps(self.pipeline("--no-cache"))[0], ran)

    def test_target_builds_what_it_needs(self):
        self.pipeline("--target", "ml")
        self.assertEqual([bool(re.search("app$", name)) for name in self.outputs()], [False] * len(self.outputs()))

    def test_failing_app_leaves_the_layers_below_cached(self):
        self.write("repo/docker/cpu/Dockerfile.app", APP.replace("RUN cat", "RUN false && cat"))
        said = self.pipeline(exit=30).stderr
        self.assertIn("docker/cpu/Dockerfile.app:", said)
        self.write("repo/docker/cpu/Dockerfile.app", APP)
        ran, hits = self.steps(self.pipeline())
        self.assertEqual(ran, 1)

    def test_json_progress(self):
        import json

        system = f"SYSTEM_IMAGE=oci-layout://{builders.base_image('busybox')}"
        command = [support.BINARY, "build", "--cache-dir", self.cache, "--progress", "json", "--build-arg", system]
        result = builders.run(command, cwd=self.path("repo"))
        lines = [json.loads(line) for line in result.stderr.splitlines() if line]
        self.assertGreater(len(lines), 5)
        self.assertTrue(all(isinstance(line, dict) for line in lines))

    def test_quiet_says_nothing(self):
        system = f"SYSTEM_IMAGE=oci-layout://{builders.base_image('busybox')}"
        command = [support.BINARY, "build", "--cache-dir", self.cache, "--progress", "quiet", "--build-arg", system]
        self.assertEqual(builders.run(command, cwd=self.path("repo")).stderr, "")


class Example(support.EndToEnd):
    """examples/layered-python with a real Debian base, apt and pip."""

    def test_cold_unchanged_and_one_file(self):
        self.need("mmdebstrap")
        repo = self.path("repo")
        shutil.copytree(os.path.join(builders.PROJECT, "examples", "layered-python"), repo)
        words = ["build", "--ca-certificates", "host", "--build-arg", f"SYSTEM_IMAGE=oci-layout://{builders.base_image('debian')}"]
        ran, hits = self.steps(self.memobuild(*words, cwd=repo, timeout=1200))
        self.assertEqual(hits, 0)
        self.assertEqual(self.steps(self.memobuild(*words, cwd=repo)), (0, ran))
        with open(os.path.join(repo, "src/shop/recommend.py"), "a") as file:
            file.write("# changed\n")
        self.assertEqual(self.steps(self.memobuild(*words, cwd=repo))[0], 2)
        self.verify_cache()
        directory = os.path.join(repo, ".memobuild-output")
        app = [images.Image(os.path.join(directory, name)) for name in os.listdir(directory) if name.endswith("app")][0]
        self.assertTrue(any(path.startswith("srv/shop/shop/__pycache__/recommend.") for path in app.listing()))
