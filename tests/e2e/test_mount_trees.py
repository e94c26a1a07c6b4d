"""Trees of cache mounts in remote caches: runners that start empty find what others left."""

import os
import shutil

import support

SETTINGS = """
    version: 1
    image: example/app
    layers:
      app:
        dockerfile: Dockerfile
    cache:
      mounts:
        save: true
        max-size: {limit}
"""


class Runners(support.EndToEnd):
    """Two machines with one directory as their remote cache."""

    def setUp(self):
        super().setUp()
        self.remote = self.path("remote")

    def runner(self, name, script, scope=None, limit="1MiB"):
        """What a runner that starts empty says while it executes `script`, with `/m` as a cache mount."""
        self.context(f"FROM busybox\nRUN --mount=type=cache,target=/m {script}\n")
        self.write("context/memobuild.yml", SETTINGS.format(limit=limit))
        shutil.rmtree(self.path(name), ignore_errors=True)
        words = ["build", *self.base_options()]
        if scope:
            words.append(f"--cache-scope={scope}")
        result = self.memobuild(
            *words,
            cache=self.path(name),
            cwd=self.path("context"),
            env={**os.environ, "MEMOBUILD_REMOTE_URL": f"file://{self.remote}"},
        )
        self.verify_cache(self.path(name))
        self.result = result
        return result.stderr

    def test_the_second_runner_finds_what_the_first_left(self):
        said = self.runner("one", "echo kept by one > /m/file && touch -d @1500000000 /m/file")
        self.assertIn("saved 1 cache mount, ", said)
        said = self.runner("two", "cat /m/file && stat -c %Y /m/file")
        self.assertIn("kept by one", said)
        self.assertIn("1500000000", said)
        self.assertIn("restored 1 cache mount, ", said)
        self.assertNotIn("saved 1 cache mount", said)
        # What it holds is in no key.
        self.runner("three", "cat /m/file && stat -c %Y /m/file")
        self.assertEqual(self.steps(self.result), (0, 1), self.result.stderr)

    def test_a_pull_request_writes_its_own(self):
        self.runner("one", "echo local > /m/file")
        said = self.runner("two", "cat /m/file || echo starts empty; echo pull > /m/file", scope="pull/7")
        self.assertIn("starts empty", said)
        self.assertIn("saved 1 cache mount, ", said)
        self.assertIn("pull", self.runner("three", "cat /m/file # again", scope="pull/7"))
        self.assertIn("local", self.runner("four", "echo now $(cat /m/file)"))

    def test_a_damaged_tree_is_an_empty_cache(self):
        self.runner("one", "head -c 100000 /dev/urandom > /m/file")
        blobs = [os.path.join(place, name) for place, _, names in os.walk(self.remote) for name in names]
        large = [path for path in blobs if os.path.getsize(path) > 90_000]
        self.assertEqual(len(large), 1)
        with open(large[0], "r+b") as file:
            file.write(b"rot")
        said = self.runner("two", "ls /m | wc -l > /count; test ! -e /m/file")
        self.assertIn("warning:", said)
        self.assertNotIn("restored", said)

    def test_a_tree_above_the_limit_is_not_saved(self):
        said = self.runner("one", "head -c 2000000 /dev/zero > /m/file")
        self.assertIn("cache mount /m not saved: it has 2.0 MB, `cache.mounts.max-size` is 1.0 MB", said)
        self.assertNotIn("saved 1 cache mount", said)
