"""Pipelines that are played here: the same plan as in a job of the platform, builds under faults, history."""

import json
import os
import re
import shlex
import subprocess
import sys

import builders
import images
import support

CONFIG = """
version: 1
image: example/service
layers:
  base: {dockerfile: docker/Dockerfile.base}
  app: {from: base, dockerfile: docker/Dockerfile.app}
variants:
  cpu: {platforms: [PLATFORM]}
"""
BASE = "ARG SYSTEM_IMAGE=busybox\nFROM ${SYSTEM_IMAGE}\nRUN echo base > /base\n"
APP = "ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\nCOPY src/ /srv/\nRUN cat /base /srv/main.py > /app\n"
PLATFORMS = ("github", "gitea", "forgejo", "gitlab", "jenkins", "azure", "buildkite", "circleci", "codebuild", "drone", "woodpecker", "bitbucket", "cloud-build")


class Simulate(support.EndToEnd):
    def setUp(self):
        super().setUp()
        self.need("git")
        sys.path.insert(0, os.path.join(builders.PROJECT, "scripts"))
        import oci_pack

        self.repo = self.path("repo")
        os.mkdir(self.repo)
        self.git("init", "-q", "-b", "main")
        self.write("repo/memobuild.yml", CONFIG.replace("PLATFORM", "linux/" + oci_pack.architecture()))
        self.write("repo/docker/Dockerfile.base", BASE)
        self.write("repo/docker/Dockerfile.app", APP)
        for number, text in enumerate(("one", "two", "three")):
            self.write("repo/src/main.py", f"{text}\n")
            self.write("repo/README.md", f"{number}\n")
            self.commit(text)

    def git(self, *words):
        env = dict(os.environ, HOME=self.directory, GIT_CONFIG_NOSYSTEM="1")
        command = ["git", "-c", "user.name=t", "-c", "user.email=t@example.com", *words]
        return subprocess.run(command, cwd=self.repo, env=env, check=True, capture_output=True, text=True).stdout.strip()

    def commit(self, message):
        self.git("add", "-A")
        self.git("commit", "-q", "-m", message)

    def system(self):
        return ["--build-arg", f"SYSTEM_IMAGE=oci-layout://{builders.base_image('busybox')}"]

    def simulate(self, platform, event, *options, out="out", cache=None, **settings):
        words = ["simulate", "--platform", platform, "--event", event, "--out", self.path(out), "--cache-dir", cache or self.cache]
        return self.memobuild(*words, "--progress", "plain", *self.system(), *options, cwd=self.repo, **settings)

    def out(self, name, out="out"):
        with open(self.path(out, name), encoding="utf-8") as file:
            return file.read()

    def plan_under(self, out, cache):
        """`plan` in a job with the variables that were written to `out`."""
        env = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        for word in shlex.split(self.out("environment", out)):
            name, value = word.split("=", 1)
            env[name] = value
        words = ["plan", "--json", *self.system()]
        return json.loads(self.memobuild(*words, cwd=self.repo, env=env, cache=cache).stdout)

    def test_the_plan_is_that_of_a_job(self):
        head, before = self.git("rev-parse", "HEAD"), self.git("rev-parse", "HEAD^")
        for platform in PLATFORMS:
            with self.subTest(platform):
                self.simulate(platform, "push", "--dry-run", out=platform)
                played = json.loads(self.out("plan.json", platform))
                job = self.plan_under(platform, self.cache)
                self.assertEqual(played["plan_digest"], job["plan_digest"])
                self.assertEqual(played["head"]["commit"], head)
                # Others say nothing of what was before, and this is the default branch.
                told = platform not in ("azure", "buildkite", "bitbucket", "cloud-build")
                self.assertEqual(played["base"]["commit"], before if told else None)
                self.assertFalse(os.path.exists(self.path(platform, "events.ndjson")))

    def test_events_of_one_platform(self):
        for event in ("push", "new-branch", "force-push", "pull_request", "tag", "schedule", "merge_group", "dispatch"):
            with self.subTest(event):
                self.simulate("gitlab", event, "--dry-run", out=event)
                played = json.loads(self.out("plan.json", event))
                self.assertEqual(played["plan_digest"], self.plan_under(event, self.cache)["plan_digest"])
        child = json.loads(self.out("child-pipeline.yml", "push"))
        self.assertIn("stages", child)
        self.assertIn("PLAN_DIGEST=", self.out("plan.env", "push"))

    def test_a_pipeline_is_built(self):
        result = self.simulate("github", "push")
        self.assertRegex(result.stdout, r"event    push of refs/heads/main on GitHub Actions, cache scope `branch/main`")
        self.assertRegex(result.stdout, r"step     ran +\[app")
        self.assertIn("step-summary.md", result.stdout)
        output = dict(line.split("=", 1) for line in self.out("github-output").splitlines())
        self.assertEqual(output["has_work"], "true")
        self.assertEqual(output["plan_digest"], json.loads(self.out("plan.json"))["plan_digest"])
        events = [json.loads(line) for line in self.out("events.ndjson").splitlines()]
        self.assertTrue(events[-1]["ok"])
        self.assertEqual(events[-1]["event"], "finished")
        app = [name for name in os.listdir(self.path("out/images")) if name.endswith("app")]
        self.assertEqual(len(app), 1)
        self.assertEqual(images.Image(self.path("out/images", app[0])).listing()["app"].size, len("base\nthree\n"))
        # The next push finds it, by the code that a job runs too.
        again = self.simulate("github", "push", out="again")
        self.assertRegex(again.stdout, r"build    done: 0 ran, ")
        self.assertEqual(json.loads(self.out("plan.json", "again"))["plan_digest"], self.plan_under("again", self.cache)["plan_digest"])
        cold = self.simulate("github", "push", "--cold", out="cold")
        self.assertRegex(cold.stdout, r"build    done: [1-9]\d* ran, 0 hits")
        self.assertEqual(os.listdir(self.repo).count(".memobuild-output"), 0)

    def test_faults_of_the_cache_fail_nothing(self):
        self.simulate("github", "push")
        want = self.images("out")
        for fault in ("cache-down", "cache-slow", "cache-corrupt"):
            with self.subTest(fault):
                result = self.simulate("github", "push", "--fault", fault, out=fault)
                self.assertEqual(self.images(fault), want)
                self.assertIn("caches   simulated-cache", result.stdout)
                ran = int(re.search(r"build    done: (\d+) ran", result.stdout)[1])
                if fault == "cache-slow":
                    self.assertEqual(ran, 0, result.stdout)
                else:
                    self.assertGreater(ran, 0, result.stdout)
        # What stood for the shared cache is as it was.
        self.verify_cache()
        self.assertRegex(self.simulate("github", "push", out="after").stdout, r"build    done: 0 ran, ")

    def images(self, out):
        found = self.path(out, "images")
        return {name: images.Image(os.path.join(found, name)).digest for name in sorted(os.listdir(found))}

    def test_a_commit_is_built_as_it_lies_in_the_repository(self):
        self.write("repo/src/main.py", "not committed\n")
        self.git("config", "core.hooksPath", self.path("hooks"))
        self.write("hooks/post-checkout", f"#!/bin/sh\ntouch {self.path('hook-ran')}\n", mode=0o755)
        self.simulate("github", "push", "--head", "HEAD^")
        app = [name for name in os.listdir(self.path("out/images")) if name.endswith("app")]
        self.assertEqual(images.Image(self.path("out/images", app[0])).listing()["app"].size, len("base\ntwo\n"))
        plan = json.loads(self.out("plan.json"))
        self.assertEqual(plan["head"]["commit"], self.git("rev-parse", "HEAD^"))
        self.assertFalse(os.path.exists(self.path("hook-ran")))

    def test_nothing_goes_to_remote_caches(self):
        remote = self.path("remote")
        os.mkdir(remote)
        env = dict(os.environ, MEMOBUILD_REMOTE_URL=f"file://{remote}")
        self.simulate("github", "push", env=env)
        self.assertEqual([files for _, _, files in os.walk(remote) if files], [])

    def test_what_there_is_not_is_refused(self):
        for words, said in (
            (["--platform", "jenkins", "--event", "schedule"], "there are `push`"),
            (["--platform", "nothing", "--event", "push"], "`--platform` takes one of `github`"),
            (["--platform", "github", "--event", "nothing"], "`--event` takes one of `push`"),
            (["--platform", "github"], "no `--history`"),
            (["--history", "0"], "a number from 1"),
        ):
            result = self.memobuild("simulate", *words, cwd=self.repo, exit=2)
            self.assertIn(said, result.stderr)
        os.mkdir(self.path("empty"))
        self.memobuild("simulate", "--history", "3", cwd=self.path("empty"), exit=2)

    def test_a_history_with_what_steps_took(self):
        self.memobuild("build", *self.system(), cwd=self.repo)
        self.write("repo/memobuild.yml", "version: [\n")
        self.commit("broken")
        self.git("revert", "--no-edit", "HEAD")
        page = self.path("report.html")
        words = ["simulate", "--history", "9", "--cache-dir", self.cache, "--html", page, "--json", *self.system()]
        report = json.loads(self.memobuild(*words, cwd=self.repo).stdout)
        totals = report["totals"]
        self.assertEqual((totals["commits"], totals["unreadable"], totals["nothing"]), (5, 1, 1))
        self.assertIn("memobuild.yml", report["commits"][1]["error"])
        self.assertGreater(totals["known"], 0)
        self.assertGreater(totals["bytes"], totals["ran_bytes"])
        found = report["invalidations"][0]
        self.assertEqual(
            found["sentence"],
            "src/main.py invalidates app through `COPY src/ /srv/` in docker/Dockerfile.app:3: twice in 5 commits",
        )
        with open(page, encoding="utf-8") as file:
            self.assertNotIn("<script", file.read())
        table = self.memobuild(*[word for word in words if word != "--json"], cwd=self.repo).stdout
        self.assertIn("5 commits, 1 of them need nothing", table)
        self.assertIn("1 commit can't be read", table)
