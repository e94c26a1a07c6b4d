"""Trees of cache mounts in remote caches: runners that start empty find what others left."""

import os
import shutil

import cache_servers
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
        self.address = f"file://{self.remote}"
        self.environment = {}
        self.options = []

    def runner(self, name, script, **settings):
        """What a runner that starts empty says while it executes `script`, with `/m` as a cache mount."""
        shutil.rmtree(self.path(name), ignore_errors=True)
        return self.runner_again(name, script, **settings)

    def runner_again(self, name, script, scope=None, limit="1MiB"):
        """The same where it has built before."""
        self.context(f"FROM busybox\nRUN --mount=type=cache,target=/m {script}\n")
        self.write("context/memobuild.yml", SETTINGS.format(limit=limit))
        words = ["build", *self.base_options()]
        if scope:
            words.append(f"--cache-scope={scope}")
        words += self.options
        result = self.memobuild(
            *words,
            cache=self.path(name),
            cwd=self.path("context"),
            env={**os.environ, "MEMOBUILD_REMOTE_URL": self.address, **self.environment},
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

    def test_every_kind_of_cache_keeps_them(self):
        for kind in (cache_servers.Server, cache_servers.Registry, cache_servers.S3, cache_servers.Actions):
            with self.subTest(kind.__name__):
                cache = kind(self)
                self.address, self.environment = cache.address(), cache.variables()
                name = kind.__name__
                self.assertIn("saved 1 cache mount, ", self.runner(f"{name}-1", "head -c 700000 /dev/urandom > /m/file && md5sum < /m/file"))
                said = self.runner(f"{name}-2", "test $(wc -c < /m/file) = 700000 && echo more > /m/more")
                self.assertIn("restored 1 cache mount, ", said)
                self.assertIn("saved 1 cache mount, ", said)
                self.assertIn("file\n", self.runner(f"{name}-3", "cat /m/more && ls /m"))

    def test_flag_and_variable_go_before_the_configuration(self):
        self.options = ["--cache-mounts", "off"]
        self.assertNotIn("cache mount", self.runner("one", "echo one > /m/file"))
        self.options, self.environment = [], {"MEMOBUILD_CACHE_MOUNTS": "off"}
        self.assertNotIn("cache mount", self.runner("two", "echo two > /m/file"))
        self.options = ["--cache-mounts", "on"]
        self.assertIn("saved 1 cache mount, ", self.runner("three", "echo three > /m/file"))
        self.options = ["--cache-mounts=2kB"]
        self.assertIn("not saved: it has 10.0 kB", self.runner("four", "head -c 10000 /dev/zero > /m/file"))
        self.build_fails(2, self.path("context"), "--cache-mounts=much")

    def test_what_is_not_used_goes_from_the_machine(self):
        self.runner("one", "head -c 300000 /dev/urandom > /m/file")
        mounts = self.path("one", "mounts")
        collect = lambda *words: self.memobuild("cache", "gc", *words, cache=self.path("one")).stdout
        self.assertIn("0 unpacked layers, sources and cache mounts", collect("--max-size", "1kB"))
        self.assertTrue([name for name in os.listdir(mounts) if "." not in name], "what was used within the hour stays")
        for name in os.listdir(mounts):
            os.utime(os.path.join(mounts, name), (1600000000, 1600000000))
        os.mkdir(os.path.join(mounts, ".tmpabc"))
        os.utime(os.path.join(mounts, ".tmpabc"), (1600000000, 1600000000))
        said = collect("--max-age", "30d")
        self.assertIn("2 unpacked layers, sources and cache mounts: 300.0 kB freed", said)
        self.assertEqual([name for name in os.listdir(mounts) if not name.endswith(".lock")], [])
        self.assertIn("restored 1 cache mount", self.runner_again("one", "ls -l /m/file"))

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
