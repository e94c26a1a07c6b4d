"""`plan` and `graph`: what a change affects, seen from commits and from a working directory."""

import json
import os
import subprocess
import time
import unittest

import builders
import cache_servers
import support

BASE = """
FROM busybox
COPY base.txt /base
RUN cat /base > /made
"""
ML = """
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
ARG LEVEL=1
COPY requirements/ /requirements/
RUN cat /requirements/* > /ml && echo ${LEVEL} >> /ml
"""
APP = """
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
COPY src/ /srv/
CMD ["sh", "/srv/main.sh"]
"""
CONFIG = """
version: 1
image: acme/service
layers:
  base: {dockerfile: docker/Dockerfile.base}
  ml: {from: base, dockerfile: docker/Dockerfile.ml}
  app: {from: ml, dockerfile: docker/Dockerfile.app}
"""


class Planning(support.EndToEnd):
    def setUp(self):
        super().setUp()
        self.need("git")
        self.repository = self.path("repository")
        files = {
            "docker/Dockerfile.base": BASE,
            "docker/Dockerfile.ml": ML,
            "docker/Dockerfile.app": APP,
            "memobuild.yml": CONFIG,
            ".dockerignore": "**/*.md\n",
            "base.txt": "base\n",
            "requirements/a.txt": "numpy\n",
            "src/main.sh": "echo hello\n",
            "src/notes.md": "not copied\n",
            "README.md": "a service\n",
        }
        for name, text in files.items():
            self.put(name, text)
        self.git("init", "--quiet", "--initial-branch=main")
        self.commit("first")

    def put(self, name, text, mode=0o644):
        self.write(os.path.join("repository", name), text, mode=mode)

    def git(self, *words, cwd=None):
        settings = ["-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "protocol.file.allow=always"]
        done = subprocess.run(
            ["git", *settings, *words], cwd=cwd or self.repository, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    def commit(self, message):
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "-m", message)
        return self.git("rev-parse", "HEAD")

    def plan(self, *words, cwd=None, exit=0, lookup=False, command="plan"):
        options = [*self.base_options("busybox"), *words]
        if not lookup and command == "plan":
            options.append("--no-cache-lookup")
        return self.memobuild(command, *options, exit=exit, cwd=cwd or self.repository)

    def decided(self, *words, **settings):
        """Decisions by layer: `{"app": ("build", "files-changed")}`, and the plan."""
        result = self.plan(*words, "--json", **settings)
        plan = json.loads(result.stdout)
        return {t["layer"]: (t["decision"], t["reason"]) for t in plan["targets"]}, plan

    def against_parent(self):
        return self.decided("--base", "HEAD~1", "--head", "HEAD")

    def test_a_change_reaches_what_copies_it_and_what_is_built_on_that(self):
        skip, parent = ("skip", "unchanged"), ("build", "parent-changed")
        cases = [
            ("README.md", "other\n", skip, skip, skip),
            ("src/notes.md", "ignored by the ignore file\n", skip, skip, skip),
            ("src/main.sh", "echo other\n", skip, skip, ("build", "files-changed")),
            ("src/new.sh", "echo new\n", skip, skip, ("build", "files-changed")),
            ("requirements/a.txt", "scipy\n", skip, ("build", "files-changed"), parent),
            ("base.txt", "other\n", ("build", "files-changed"), parent, parent),
            ("docker/Dockerfile.app", APP + "# only a comment\n", skip, skip, skip),
            ("docker/Dockerfile.app", APP.replace("/srv/main", "/srv/new"), skip, skip, ("build", "metadata-changed")),
            ("docker/Dockerfile.ml", ML.replace("LEVEL=1", "LEVEL=2"), skip, ("build", "dockerfile-changed"), parent),
            ("memobuild.yml", CONFIG + "# only a comment\n", skip, skip, skip),
            ("memobuild.yml", CONFIG.replace("ml, docker", "ml, context: src, docker"), skip, skip, None),
        ]
        for name, text, *expected in cases:
            with self.subTest(name=name, text=text[-40:]):
                self.put(name, text)
                self.commit("change")
                if expected[2] is None:
                    # Its COPY finds nothing in the other context: that is no reason to skip.
                    decided, _ = self.against_parent()
                    self.assertEqual(decided["app"], ("build", "inputs-unknown"))
                else:
                    decided, _ = self.against_parent()
                    self.assertEqual([decided[layer] for layer in ("base", "ml", "app")], expected)
                self.git("reset", "--quiet", "--hard", "HEAD~1")

    def test_modes_links_and_deletions_count(self):
        os.symlink("main.sh", os.path.join(self.repository, "src/link"))
        self.commit("a link")
        self.assertEqual(self.against_parent()[0]["app"], ("build", "files-changed"))
        os.unlink(os.path.join(self.repository, "src/link"))
        os.symlink("notes.md", os.path.join(self.repository, "src/link"))
        self.commit("another target")
        self.assertEqual(self.against_parent()[0]["app"], ("build", "files-changed"))
        os.chmod(os.path.join(self.repository, "src/main.sh"), 0o755)
        self.commit("executable")
        self.assertEqual(self.against_parent()[0]["app"], ("build", "files-changed"))
        self.git("rm", "--quiet", "src/link")
        self.commit("gone")
        decided, plan = self.against_parent()
        self.assertEqual(decided["app"], ("build", "files-changed"))
        self.assertEqual(plan["targets"][2]["changed"][0]["files"], ["src/link"])

    def test_the_caches_decide_between_build_and_reuse(self):
        decided, plan = self.decided("--base", "HEAD", lookup=True)
        self.assertEqual(decided["app"], ("build", "not-cached"))
        runs = {t["layer"]: t["steps"]["run"] for t in plan["targets"]}
        self.assertEqual(runs, {"base": 2, "ml": 4, "app": 5})
        result = self.memobuild("build", *self.base_options("busybox"), cwd=self.repository)
        self.assertEqual(self.steps(result), (5, 0))
        decided, plan = self.decided("--base", "HEAD", lookup=True)
        self.assertEqual(set(decided.values()), {("skip", "unchanged")})
        self.assertFalse(plan["has_work"])
        self.put("src/main.sh", "echo changed\n")
        decided, plan = self.decided("--base", "HEAD", lookup=True)
        self.assertEqual(decided["ml"], ("skip", "unchanged"))
        self.assertEqual(decided["app"], ("build", "files-changed"))
        self.assertEqual(plan["targets"][2]["steps"], {"total": 5, "run": 1})
        result = self.memobuild("build", *self.base_options("busybox"), cwd=self.repository)
        self.assertEqual(self.steps(result)[0], 1, "as the plan said")
        decided, _ = self.decided("--base", "HEAD", lookup=True)
        self.assertEqual(decided["app"], ("reuse", "files-changed"))
        self.plan("--base", "HEAD", "--exit-code", lookup=True, exit=10)
        self.commit("changed")
        self.plan("--base", "HEAD", "--exit-code", lookup=True)

    def test_a_key_from_the_commit_is_the_key_of_the_disk(self):
        self.put("src/windows.txt", "one\r\ntwo\r\n")
        self.put(".gitattributes", "*.txt text eol=crlf\n")
        self.commit("line endings")
        self.git("rm", "--quiet", "-r", "--cached", ".")
        self.git("reset", "--quiet", "--hard")
        _, disk = self.decided("--base", "HEAD", lookup=True)
        _, commit = self.decided("--base", "HEAD", "--head", "HEAD", lookup=True)
        keys = [[t["key"] for t in plan["targets"]] for plan in (disk, commit)]
        self.assertEqual(keys[0], keys[1])

    def test_equal_questions_have_equal_digests(self):
        digests = {self.against_or_head()["plan_digest"] for _ in range(2)}
        self.assertEqual(len(digests), 1)
        self.put("src/main.sh", "echo other\n")
        self.commit("other")
        self.assertNotIn(self.against_or_head()["plan_digest"], digests)

    def against_or_head(self):
        return self.decided("--base", "HEAD", "--head", "HEAD")[1]

    def test_no_base_means_everything(self):
        decided, plan = self.decided("--head", "HEAD")
        self.assertEqual({reason for _, reason in decided.values()}, {"no-base"})
        self.assertEqual({decision for decision, _ in decided.values()}, {"build"})
        self.assertIsNone(plan["base"]["commit"])

    def test_a_bare_repository_and_a_shallow_one(self):
        self.put("src/main.sh", "echo other\n")
        head = self.commit("other")
        bare = self.path("bare.git")
        self.git("clone", "--quiet", "--bare", self.repository, bare, cwd=self.path())
        decided, _ = self.decided("--base", "HEAD~1", cwd=bare)
        self.assertEqual(decided["app"], ("build", "files-changed"))
        self.assertEqual(decided["ml"], ("skip", "unchanged"))
        shallow = self.path("shallow")
        self.git("clone", "--quiet", "--depth=1", f"file://{self.repository}", shallow, cwd=self.path())
        self.assertEqual(self.git("rev-list", "--count", "HEAD", cwd=shallow), "1")
        decided, plan = self.decided("--no-fetch", cwd=shallow)
        self.assertEqual({reason for _, reason in decided.values()}, {"no-base"})
        decided, _ = self.decided("--base", self.git("rev-parse", "HEAD~1"), cwd=shallow)
        self.assertEqual(decided["ml"], ("skip", "unchanged"), "the one commit was fetched")
        self.assertEqual(decided["app"], ("build", "files-changed"))
        self.assertEqual(plan["head"]["commit"], head)

    def test_forced_and_left_out(self):
        decided, _ = self.decided("--base", "HEAD", "--head", "HEAD", "--rebuild", "ml", "--skip", "app")
        self.assertEqual(decided, {"base": ("skip", "unchanged"), "ml": ("build", "forced"), "app": ("skip", "left-out")})
        self.commit("please [memobuild rebuild=base]")
        decided, _ = self.decided("--base", "HEAD", "--head", "HEAD")
        self.assertEqual(decided["base"], ("build", "forced"))
        pipeline = json.loads(self.plan("--base", "HEAD", "--head", "HEAD", "--format", "gitlab").stdout)
        self.assertIn("--no-cache-filter base", pipeline["base-linux-amd64"]["script"][0])
        result = self.plan("--rebuild", "nothing", exit=2)
        self.assertIn("there is no target `nothing`", result.stderr)

    def test_touch(self):
        decided, plan = self.decided("--touch", "requirements/new.txt")
        self.assertEqual([decided[layer][0] for layer in ("base", "ml", "app")], ["skip", "build", "build"])
        runs = {t["layer"]: t["steps"]["run"] for t in plan["targets"]}
        self.assertEqual(runs, {"base": 0, "ml": 2, "app": 3})
        decided, _ = self.decided("--touch", "src/notes.md")
        self.assertEqual({decision for decision, _ in decided.values()}, {"skip"})
        decided, _ = self.decided("--touch", "docker/Dockerfile.app")
        self.assertEqual([decided[layer][0] for layer in ("base", "ml", "app")], ["skip", "skip", "build"])

    def test_matrices_and_pipelines(self):
        result = self.plan("--head", "HEAD", "--format", "github", "--runner", "linux/amd64=big")
        lines = dict(line.split("=", 1) for line in result.stdout.splitlines())
        self.assertEqual(lines["has_work"], "true")
        jobs = json.loads(lines["matrix"])["include"]
        self.assertEqual([(j["target"], j["runner"], j["depth"]) for j in jobs], [("base", "big", 0), ("ml", "big", 1), ("app", "big", 2)])
        result = self.plan("--base", "HEAD", "--head", "HEAD", "--format", "github")
        lines = dict(line.split("=", 1) for line in result.stdout.splitlines())
        self.assertEqual((lines["has_work"], json.loads(lines["matrix"])), ("false", {"include": []}))
        pipeline = json.loads(self.plan("--head", "HEAD", "--format", "gitlab").stdout)
        self.assertEqual(pipeline["app-linux-amd64"]["needs"], ["ml-linux-amd64"])
        self.assertIn("memobuild-ci build --target app", pipeline["app-linux-amd64"]["script"][0])
        empty = json.loads(self.plan("--base", "HEAD", "--head", "HEAD", "--format", "gitlab").stdout)
        self.assertEqual(sorted(empty), ["nothing-to-do", "stages"])

    def test_graphs(self):
        graph = json.loads(self.plan("--json", command="graph").stdout)
        self.assertEqual([t["name"].split()[0] for t in graph["targets"]], ["base", "ml", "app"])
        steps = [v for v in graph["vertices"] if v["kind"] == "step"]
        self.assertEqual(len(steps), 5)
        for form, start in (("text", "#"), ("mermaid", "flowchart TD\n"), ("dot", "digraph build {\n")):
            self.assertTrue(self.plan("--format", form, command="graph").stdout.startswith(start))

    def test_bad_input(self):
        result = self.plan("--base", "$(touch pwned)", exit=2)
        self.assertIn("names no commit", result.stderr)
        self.plan("--head", "nothing-of-that-name", exit=42)
        self.assertFalse(os.path.exists(os.path.join(self.repository, "pwned")))
        self.put("memobuild.lock", "{}")
        self.plan("--head", "HEAD", exit=21)
        os.unlink(os.path.join(self.repository, "memobuild.lock"))
        empty = self.path("empty")
        os.mkdir(empty)
        self.git("init", "--quiet", cwd=empty)
        for name in ("docker", "memobuild.yml", "requirements", "src", "base.txt"):
            os.symlink(os.path.join(self.repository, name), os.path.join(empty, name))
        decided, plan = self.decided(cwd=empty)
        self.assertEqual(plan["base"]["reason"], "no-commits")
        self.assertEqual({decision for decision, _ in decided.values()}, {"build"})

    def test_what_a_base_lacks_is_no_failure(self):
        self.git("rm", "--quiet", "memobuild.yml")
        self.git("commit", "--quiet", "-m", "no configuration")
        self.put("memobuild.yml", CONFIG)
        self.commit("again")
        decided, _ = self.against_parent()
        self.assertEqual({reason for _, reason in decided.values()}, {"no-base"})

    def test_refresh(self):
        self.put("memobuild.yml", CONFIG.replace("base, docker", "base, refresh: {max-age: 1s}, docker"))
        options = self.base_options("busybox")
        self.memobuild("build", *options, cwd=self.repository)
        end = time.monotonic() + 30
        while self.decided("--base", "HEAD", lookup=True)[0]["ml"][1] != "refresh-due":
            self.assertLess(time.monotonic(), end, "results get older")
        result = self.memobuild("build", *options, cwd=self.repository)
        self.assertEqual(self.steps(result), (1, 4), "only its RUN is made anew; it gave the same")
        self.assertNotRegex(result.stderr, r"warning.*refresh")

    def test_base_images_are_pinned(self):
        lock = os.path.join(self.repository, "memobuild.lock")
        self.need("skopeo")
        registry = cache_servers.Registry(self)
        image = f"127.0.0.1:{registry.port}/base:1"

        def push(layout):
            copy = ["skopeo", "copy", "--quiet", "--dest-tls-verify=false", f"oci:{layout}", f"docker://{image}"]
            subprocess.run(copy, check=True, capture_output=True)

        push(builders.base_image("busybox"))
        dockerfile = BASE.replace("FROM busybox", f"FROM {image}")
        self.put("docker/Dockerfile.base", dockerfile)
        self.commit("from a registry")
        self.memobuild("plan", "--update-lock", cwd=self.repository)
        with open(lock) as file:
            row = json.load(file)["images"][0]
        self.assertEqual(row["reference"], image)
        # Another image by the same name.
        self.build(self.context("FROM busybox\nRUN echo moved > /moved\n", name="other"))
        push(self.path("image"))
        result = self.memobuild("plan", "--json", cwd=self.repository)
        plan = json.loads(result.stdout)
        self.assertEqual([(m["old"], m["reference"]) for m in plan["moved_images"]], [(row["digest"], image)])
        before = plan["targets"][0]["key"]
        self.memobuild("plan", "--update-lock", cwd=self.repository)
        after = json.loads(self.memobuild("plan", "--json", cwd=self.repository).stdout)
        self.assertNotEqual(after["targets"][0]["key"], before)
        self.assertNotIn("moved_images", after)


if __name__ == "__main__":
    unittest.main()
