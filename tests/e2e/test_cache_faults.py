"""Remote caches in trouble: the build goes on as if there were none, and says so once."""

import os
import re
import shutil
import time

import cache_servers
import faulty
import support

DOCKERFILE = """
FROM busybox
RUN i=0; while [ $i -lt 30000 ]; do echo "line $i of the first step"; i=$((i+1)); done > /first
COPY data /data
RUN cat /data /first | md5sum > /second
"""

# Faults of the whole cache, and what a dead one may cost at most, in seconds.
FAULTS = ["refuse", "silent", "reset", "401", "403", "404", "429", "500", "503", "truncate", "corrupt", "trickle", "garbage", "vanish"]
COST = 5
# Two processors may be busy with something else.
NOISE = 4


class Faults:
    """The cases of one backend: `start` gives it."""

    def setUp(self):
        super().setUp()
        self.server = self.start_server()
        self.context_path = self.context(DOCKERFILE, {"data": "some data\n" * 50})

    def timed(self, address=None, **settings):
        """A build on an empty machine: `(image, seconds)`."""
        shutil.rmtree(self.cache, ignore_errors=True)
        shutil.rmtree(self.path("image"), ignore_errors=True)
        environment = {**os.environ, **self.server.environment}
        environment.pop("MEMOBUILD_REMOTE_URL", None)
        if address:
            environment["MEMOBUILD_REMOTE_URL"] = address
        start = time.monotonic()
        image = self.build(self.context_path, env=environment, **settings)
        return image, time.monotonic() - start

    def warnings(self, image):
        return [line for line in image.result.stderr.splitlines() if re.search(r"\bwarning\b", line)]

    def test_a_runner_that_starts_empty_has_hits(self):
        first, _ = self.timed(self.server.address())
        self.assertEqual(self.steps(first.result), (3, 0))
        again, _ = self.timed(self.server.address())
        self.assertEqual(self.steps(again.result), (0, 3), again.result.stderr)
        self.assertEqual(again.digest, first.digest)
        self.assertEqual(self.warnings(again), [])

    def test_no_fault_fails_the_build_or_takes_long(self):
        plain, seconds = self.timed()
        filled, _ = self.timed(self.server.address())
        self.assertEqual(filled.digest, plain.digest)
        for fault in FAULTS:
            with self.subTest(fault), faulty.Proxy(self.server.place, fault) as proxy:
                image, took = self.timed(self.server.address(proxy.port))
                said = image.result.stderr
                self.assertEqual(image.digest, plain.digest, said)
                self.assertLessEqual(took, seconds + COST + NOISE, said)
                self.assertLessEqual(len(self.warnings(image)), 4, said)
                if fault not in ("404", "corrupt", "vanish", "truncate"):
                    self.assertEqual(self.steps(image.result)[1], 0, said)
                    self.assertGreaterEqual(len(self.warnings(image)), 1, said)
                self.verify_cache()
        # Whatever was tried to be saved on the way, the cache is as good as before.
        again, _ = self.timed(self.server.address())
        self.assertEqual((self.steps(again.result), again.digest), ((0, 3), plain.digest), again.result.stderr)


class ServerFaults(Faults, support.EndToEnd):
    def start_server(self):
        return cache_servers.Server(self)


class RegistryFaults(Faults, support.EndToEnd):
    def start_server(self):
        return cache_servers.Registry(self)


class S3Faults(Faults, support.EndToEnd):
    def start_server(self):
        return cache_servers.S3(self)
