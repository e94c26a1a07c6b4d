"""`gha://` in jobs that `act` runs, with act's own cache server (version 1 of the protocol)."""

import json
import os
import re

import builders
import cache_servers
import support

WORKFLOW = """
on: push
jobs:
  first:
    runs-on: here
    steps:
      - run: {build}
        env: {{MEMOBUILD_CACHE_DIR: {directory}/runner-1}}
  second:
    runs-on: here
    needs: first
    steps:
      - run: {build}
        env: {{MEMOBUILD_CACHE_DIR: {directory}/runner-2}}
  without-token:
    runs-on: here
    needs: second
    steps:
      - run: env -u ACTIONS_RUNTIME_TOKEN {build}
        env: {{MEMOBUILD_CACHE_DIR: {directory}/runner-3}}
"""


class ActionsCache(support.EndToEnd):
    def act(self, workflow):
        """Runs a workflow; returns for each job its result and what it said."""
        program = cache_servers.program(self, "python/bin/act")
        self.write(".config/act/actrc", "")
        self.write("repository/.github/workflows/build.yml", workflow)
        self.context("FROM busybox\nCOPY data /data\nRUN cat /data > /copy\n", {"data": "some data\n"}, name="repository")
        git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.com", "-C", self.path("repository")]
        builders.run([*git, "init", "-q", "-b", "main"])
        builders.run([*git, "add", "."])
        builders.run([*git, "commit", "-q", "-m", "all"])
        # act hands its environment on to steps: it gets nothing that a runner doesn't have.
        environment = {"HOME": self.directory, "PATH": os.environ["PATH"]}
        command = [program, "push", "--json", "-P", "here=-self-hosted", "-C", self.path("repository")]
        command += ["--cache-server-path", self.path("cache-server")]
        command += ["--cache-server-addr", "127.0.0.1", "--cache-server-port", str(support.free_port())]
        # With this server act hands tokens out.
        command += ["--artifact-server-path", self.path("artifact-server")]
        command += ["--artifact-server-addr", "127.0.0.1", "--artifact-server-port", str(support.free_port())]
        result = builders.run(command, check=False, env=environment, timeout=300)
        jobs = {}
        for line in result.stdout.splitlines():
            said = json.loads(line)
            job = jobs.setdefault(said.get("jobID"), {"text": "", "result": None})
            if said.get("raw_output"):
                job["text"] += said["msg"]
            job["result"] = said.get("jobResult", job["result"])
        return jobs, result

    def test_a_second_job_finds_what_the_first_has_built(self):
        words, _ = self.build_words(self.path("repository"), dest=self.path("image"))
        build = " ".join([support.BINARY, words[0], "--color", "never", "--progress", "plain", "--cache-from", "gha://", "--cache-to", "gha://", *words[1:]])
        jobs, result = self.act(WORKFLOW.format(build=build, directory=self.directory))
        for name, counts in {"first": ("2", "0"), "second": ("0", "2")}.items():
            self.assertEqual(jobs[name]["result"], "success", result.stdout + result.stderr)
            found = re.search(r"(\d+) steps?: (\d+) ran, (\d+) hits?", jobs[name]["text"])
            self.assertTrue(found, jobs[name]["text"])
            self.assertEqual((found[2], found[3]), counts, jobs[name]["text"])
            self.assertNotRegex(jobs[name]["text"], r"\bwarning\b")
        self.assertIn("ACTIONS_RUNTIME_TOKEN", jobs["without-token"]["text"])
