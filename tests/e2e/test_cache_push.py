"""Local results that go to remote caches after the build, and the local cache looked at by scope."""

import json
import os
import shutil

import support

DOCKERFILE = """
    FROM scratch
    COPY a /a
    COPY b /b
"""


class Push(support.EndToEnd):
    needs_root = False

    def setUp(self):
        super().setUp()
        self.files = self.context(DOCKERFILE, {"a": "a\n" * 1000, "b": "b\n" * 1000})
        self.remote = f"file://{self.path('remote')}"

    def built(self, *options, **variables):
        """Builds and returns (ran, hits)."""
        image = self.build(self.files, *options, env={**os.environ, **variables})
        return self.steps(image.result)

    def on_an_empty_runner(self):
        shutil.rmtree(self.cache)
        return self.built("--cache-from", self.remote)

    def push(self, *words, exit=0, **variables):
        result = self.memobuild("cache", "push", "--json", *words, exit=exit, env={**os.environ, **variables})
        return json.loads(result.stdout), result.stderr

    def test_what_was_built_offline_is_sent_later(self):
        self.assertEqual(self.built(), (2, 0))
        report, _ = self.push("--to", self.remote)
        self.assertEqual((report["results"], report["left"]), (0, 0), "no build has left anything")
        report, _ = self.push("--all", "--to", self.remote)
        self.assertEqual((report["results"], report["refused"]), (2, 0), report)
        self.assertGreater(report["new_bytes"], 0)
        again, _ = self.push("--all", MEMOBUILD_REMOTE_URL=self.remote)
        self.assertEqual((again["results"], again["new_bytes"]), (2, 0), again)
        self.assertEqual(self.on_an_empty_runner(), (0, 2))

    def test_steps_are_named_by_key_or_by_name(self):
        self.built()
        report, _ = self.push("COPY a /a", "--to", f"type=local,dest={self.path('remote')}")
        self.assertEqual(report["results"], 1, report)
        self.assertEqual(self.on_an_empty_runner(), (1, 1))
        entries = json.loads(self.memobuild("cache", "ls", "--json").stdout)["actions"]
        key = next(entry["result"]["key"] for entry in entries if "COPY b" in entry["result"]["step"]["name"])
        self.push(key.removeprefix("blake3:")[:16], "--to", self.remote)
        self.memobuild("cache", "push", "no such step", "--to", self.remote, exit=42)

    def test_what_a_build_has_left_is_taken_up(self):
        # A directory that can't be made, as long as a file has its name.
        self.write("remote", "in the way")
        self.assertEqual(self.built(MEMOBUILD_REMOTE_URL=self.remote), (2, 0))
        os.remove(self.path("remote"))
        report, said = self.push(MEMOBUILD_REMOTE_URL=self.remote)
        self.assertEqual((report["results"], report["left"]), (2, 0), said)
        self.assertEqual(self.on_an_empty_runner(), (0, 2))

    def test_other_scopes_stay_where_they_are(self):
        self.built("--cache-scope", "pull/7")
        report, _ = self.push("--all", "--to", self.remote)
        self.assertEqual((report["results"], report["left_out"]["other_scopes"]), (0, 4), report)
        fork = {"CI": "true", "GITLAB_CI": "true", "CI_MERGE_REQUEST_IID": "7", "CI_MERGE_REQUEST_PROJECT_ID": "1", "CI_MERGE_REQUEST_SOURCE_PROJECT_ID": "2"}
        refused = self.memobuild("cache", "push", "--all", "--to", self.remote, exit=2, env={**os.environ, **fork})
        self.assertIn("this job saves nothing in remote caches", refused.stderr)
        report, _ = self.push("--all", "--to", self.remote, "--cache-scope", "pull/7")
        self.assertEqual(report["results"], 2, report)
        self.memobuild("cache", "push", "--all", exit=2)

    def test_trouble_is_told_by_the_exit_code(self):
        self.built()
        self.write("remote", "in the way")
        report, said = self.push("--all", "--to", self.remote, exit=None)
        self.assertEqual(report["results"], 0)
        self.assertEqual(report["left"] + report["refused"], 2, report)
        self.assertIn("warning", said)

    def test_scopes_are_looked_at_alone(self):
        self.built("--cache-scope", "protected")
        self.write("context/a", "another a\n")
        self.built("--cache-scope", "pull/7")
        count = lambda *words: len(json.loads(self.memobuild("cache", "ls", "--json", *words).stdout)["actions"])
        everything, of_pull = count(), count("--scope", "pull/7")
        self.assertGreater(of_pull, 0)
        self.assertEqual(everything, of_pull + count("--scope", "protected"))
        verified = lambda *words: json.loads(self.memobuild("cache", "verify", "--json", *words).stdout)["blobs"]
        self.assertLess(verified("--scope", "pull/7"), verified())
        # What was used within the hour stays.
        report = json.loads(self.memobuild("cache", "gc", "--max-size", "0", "--scope", "pull/7", "--json").stdout)
        self.assertEqual(report["actions"], 0)
        self.assertEqual(count(), everything)
