"""Who made the entries of a cache, and whether they are relied on: scopes, signatures, statements, bundles."""

import json
import os
import shutil
import stat
import subprocess

import builders
import support

DOCKERFILE = """
    FROM scratch
    COPY a /a
    COPY b /b
"""
GITLAB = {"CI": "true", "GITLAB_CI": "true", "CI_PROJECT_PATH": "acme/app", "CI_COMMIT_REF_NAME": "main"}
PROTECTED = {**GITLAB, "CI_COMMIT_REF_PROTECTED": "true"}
REQUEST = {**GITLAB, "CI_MERGE_REQUEST_IID": "7", "CI_MERGE_REQUEST_PROJECT_ID": "1", "CI_MERGE_REQUEST_SOURCE_PROJECT_ID": "1"}
FORK = {**REQUEST, "CI_MERGE_REQUEST_SOURCE_PROJECT_ID": "2"}


class Trust(support.EndToEnd):
    needs_root = False

    def setUp(self):
        super().setUp()
        self.files = self.context(DOCKERFILE, {"a": "a\n" * 1000, "b": "b\n" * 1000})
        self.remote = f"file://{self.path('remote')}"

    def built(self, variables, *options):
        """Builds on an empty runner with these variables; returns (ran, hits) and what was said."""
        shutil.rmtree(self.cache, ignore_errors=True)
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("CI", "GITHUB_", "GITLAB_", "MEMOBUILD_"))}
        image = self.build(self.files, *options, env={**environment, "MEMOBUILD_REMOTE_URL": self.remote, **variables})
        return self.steps(image.result), image.result.stderr

    def keys(self, name="ci"):
        name = self.path(name)
        return name, builders.run([support.BINARY, "cache", "keygen", name]).stdout.strip()

    def test_keygen_writes_what_openssl_reads(self):
        self.need("openssl")
        name, key_id = self.keys()
        self.assertRegex(key_id, r"^[0-9a-f]{16}$")
        self.assertEqual(stat.S_IMODE(os.stat(f"{name}.pem").st_mode), 0o600)
        public = subprocess.run(["openssl", "pkey", "-in", f"{name}.pem", "-pubout"], check=True, capture_output=True, text=True).stdout
        with open(f"{name}.pub.pem") as file:
            self.assertEqual(file.read(), public)
        again = builders.run([support.BINARY, "cache", "keygen", name], check=False)
        self.assertEqual(again.returncode, 2)
        self.assertIn("is there already", again.stderr)

    def test_scopes_follow_from_the_platform(self):
        steps, said = self.built(PROTECTED)
        self.assertEqual(steps, (2, 0))
        self.assertIn("reads protected; saves as protected", said)
        steps, said = self.built(REQUEST)
        self.assertEqual(steps, (0, 2))
        self.assertIn("reads protected, pull/7; saves as pull/7", said)
        self.assertIn("saves nothing", self.built(FORK)[1])

    def test_nobody_else_reads_what_a_request_saved(self):
        self.assertEqual(self.built(REQUEST)[0], (2, 0))
        self.assertEqual(self.built(REQUEST)[0], (0, 2))
        self.assertEqual(self.built(PROTECTED)[0], (2, 0))
        shutil.rmtree(self.path("image"))
        said = self.build_fails(2, self.files, "--cache-scope", "protected", env={**os.environ, **REQUEST})
        self.assertIn("a build of a pull request can't have the cache scope `protected`", said)

    def test_signed_entries_are_relied_on_and_others_are_not(self):
        name, key_id = self.keys()
        trusted = {"MEMOBUILD_TRUSTED_KEYS": f"{name}.pub.pem"}
        self.assertEqual(self.built(PROTECTED)[0], (2, 0))
        steps, said = self.built({**PROTECTED, **trusted})
        self.assertEqual(steps, (2, 0))
        self.assertIn("it is not signed", said)
        self.built({**PROTECTED, **trusted, "MEMOBUILD_SIGNING_KEY": f"{name}.pem"})
        self.assertEqual(self.built({**PROTECTED, **trusted})[0], (0, 2))
        other, _ = self.keys("other")
        steps, said = self.built({**PROTECTED, "MEMOBUILD_TRUSTED_KEYS": f"{other}.pub.pem"})
        self.assertEqual(steps, (2, 0))
        self.assertIn(f"unknown key `{key_id}`", said)

    def test_a_statement_and_a_bundle(self):
        self.built(PROTECTED)
        shown = self.memobuild("cache", "inspect", "COPY a").stdout
        for line in ("scope       protected", "repository  acme/app", "ref         refs/heads/main (protected)", "signature   absent"):
            self.assertIn(line, shown)
        entry = json.loads(self.memobuild("cache", "inspect", "--json", "COPY a").stdout)["entries"][0]
        self.assertEqual(entry["result"]["scope"], "protected")
        key = entry["result"]["key"].removeprefix("blake3:")[:12]
        self.assertIn(key, self.memobuild("cache", "inspect", key).stdout)
        self.assertIn("cache ls", self.memobuild("cache", "inspect", "nosuch", exit=42).stderr)
        for bundle in (self.path("bundle"), self.path("bundle.tar")):
            written = json.loads(self.memobuild("cache", "export", "--json", bundle).stdout)
            fresh = self.path("fresh")
            shutil.rmtree(fresh, ignore_errors=True)
            read = json.loads(self.memobuild("cache", "import", "--json", bundle, cache=fresh).stdout)
            self.assertEqual(read, written)
            self.memobuild("cache", "verify", cache=fresh)
            image = self.build(self.files, env={**os.environ, **PROTECTED, "MEMOBUILD_REMOTE_URL": ""}, cache=fresh)
            self.assertEqual(self.steps(image.result), (0, 2))
