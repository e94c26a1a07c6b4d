"""Remote caches in trouble: the build goes on as if there were none, and says so once."""

import concurrent.futures
import os
import re
import shutil
import threading
import time

import builders
import cache_servers
import faulty
import images
import support

DOCKERFILE = """
FROM busybox
COPY data /data
RUN seq 30000 | cat /data - > /first
"""

# Faults of the whole cache, those first in which builds wait. They run side by side, so many at a time.
FAULTS = ["silent", "trickle", "truncate", "429", "vanish", "refuse", "reset", "401", "403", "404", "500", "503", "corrupt", "garbage", "expire"]
FAULTS += ["tls-unknown", "tls-expired"]
AT_A_TIME = 6
# Those that may leave hits: what was read before them is good.
SOME_HITS = {"404", "corrupt", "vanish", "truncate", "expire"}
# What a dead cache may cost at most, in seconds.
COST = 5
# Two processors may be busy with something else.
NOISE = 4


class Builds(support.EndToEnd):
    """Builds of one Dockerfile on machines that start empty."""

    def setUp(self):
        super().setUp()
        self.context_path = self.context(DOCKERFILE, {"data": "some data\n" * 50})

    def timed(self, address=None, name="build", variables=None):
        """A build on an empty machine: the image, and the seconds that it took besides its steps."""
        cache, dest = self.path(name, "cache"), self.path(name, "image")
        shutil.rmtree(self.path(name), ignore_errors=True)
        environment = {**os.environ, **(variables or {})}
        environment.pop("MEMOBUILD_REMOTE_URL", None)
        if address:
            environment["MEMOBUILD_REMOTE_URL"] = address
        start = time.monotonic()
        image = self.build(self.context_path, env=environment, cache=cache, dest=dest)
        took = time.monotonic() - start
        # Steps wait for no cache, but for the processors that other builds have.
        return image, took - sum(map(float, re.findall(r"^#\d+ ran in ([\d.]+)s", image.result.stderr, re.MULTILINE)))

    def warnings(self, image):
        return [line for line in image.result.stderr.splitlines() if re.search(r"\bwarning\b", line)]

    def harmless(self, fault, image, took):
        """What holds for a build with a fault."""
        said = image.result.stderr
        self.assertEqual(image.digest, self.plain.digest, said)
        self.assertLessEqual(took, self.seconds + COST + NOISE, said)
        self.assertLessEqual(len(self.warnings(image)), 4, said)
        if fault not in SOME_HITS:
            self.assertEqual(self.steps(image.result)[1], 0, said)
            self.assertGreaterEqual(len(self.warnings(image)), 1, said)

    def fill(self, address, variables=None):
        """Fills the cache; a runner that starts empty has hits then."""
        self.plain, self.seconds = self.timed()
        filled, _ = self.timed(address, variables=variables)
        self.assertEqual((self.steps(filled.result), filled.digest), ((2, 0), self.plain.digest))
        self.all_hits(*self.timed(address, variables=variables))

    def all_hits(self, image, _):
        said = image.result.stderr
        self.assertEqual((self.steps(image.result), image.digest), ((0, 2), self.plain.digest), said)
        self.assertEqual(self.warnings(image), [], said)


class Faults:
    """The cases of one service: `start_server` gives it."""

    # Requests until it vanishes, or its token expires.
    requests = 3

    def setUp(self):
        super().setUp()
        self.lock = threading.Lock()
        self.server = self.start_server()

    def faulted(self, fault):
        """A build with a fault on the way to the cache: `(image, seconds)`."""
        scheme, certificate, more = "http", None, {}
        if fault.startswith("tls"):
            scheme, certificate = "https", self.certificate(is_expired=fault == "tls-expired")
            more = {} if fault == "tls-unknown" else {"SSL_CERT_FILE": self.path("ca.pem")}
        with faulty.Proxy(self.server.place, fault, certificate, self.requests) as proxy:
            variables = self.server.variables(proxy.port, scheme) | more
            image, took = self.timed(self.server.address(proxy.port, scheme), f"build-{fault}", variables)
        self.verify_cache(self.path(f"build-{fault}", "cache"))
        return image, took

    def certificate(self, is_expired):
        """A certificate for this machine with its key, by the authority `ca.pem`, which nobody knows."""
        self.need("openssl", "faketime")
        name = self.path("expired" if is_expired else "valid")
        with self.lock:
            if not os.path.exists(self.path("ca.pem")):
                new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "20000"]
                builders.run([*new, "-subj", "/CN=nobody's authority", "-keyout", self.path("ca.key"), "-out", self.path("ca.pem")])
            leaf = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30"]
            leaf += ["-CA", self.path("ca.pem"), "-CAkey", self.path("ca.key"), "-subj", "/CN=cache", "-addext", "subjectAltName=IP:127.0.0.1"]
            leaf += ["-addext", "basicConstraints=critical,CA:FALSE", "-keyout", f"{name}.key", "-out", f"{name}.crt"]
            builders.run(["faketime", "60 days ago", *leaf] if is_expired else leaf)
        with open(f"{name}.pem", "w") as both:
            for part in (f"{name}.key", f"{name}.crt"):
                with open(part) as file:
                    both.write(file.read())
        return f"{name}.pem"

    def test_no_fault_fails_the_build_or_takes_long(self):
        address, variables = self.server.address(), self.server.variables()
        self.fill(address, variables)
        with concurrent.futures.ThreadPoolExecutor(AT_A_TIME) as side_by_side:
            builds = {fault: side_by_side.submit(self.faulted, fault) for fault in [*FAULTS, "tls"]}
        for fault, build in builds.items():
            with self.subTest(fault):
                if fault == "tls":
                    # With a good certificate it is no fault.
                    self.all_hits(*build.result())
                else:
                    self.harmless(fault, *build.result())
        # Whatever was tried to be saved on the way, the cache is as good as before.
        self.all_hits(*self.timed(address, variables=variables))


class ServerFaults(Faults, Builds):
    requests = 1

    def start_server(self):
        return cache_servers.Server(self)


class RegistryFaults(Faults, Builds):
    def start_server(self):
        return cache_servers.Registry(self)


class S3Faults(Faults, Builds):
    def start_server(self):
        return cache_servers.S3(self)


class GcsFaults(Faults, Builds):
    def start_server(self):
        return cache_servers.Gcs(self)


class AzureFaults(Faults, Builds):
    def start_server(self):
        return cache_servers.Azure(self)


class ActionsFaults(Faults, Builds):
    def start_server(self):
        return cache_servers.Actions(self)


class FirstActionsFaults(Faults, Builds):
    def start_server(self):
        return cache_servers.FirstActions(self)


class DirectoryFaults(Builds):
    """A directory has troubles of its own."""

    def setUp(self):
        super().setUp()
        self.need("mount")
        self.shared = self.path("shared")
        os.mkdir(self.shared)
        self.address = f"file://{self.shared}/ci"
        # It is a file system of its own, so that it can be full, read-only or away.
        self.mount("-t", "tmpfs", "-o", "size=16m", "none")
        self.fill(self.address)

    def mount(self, *options):
        """Mounts something over the directory."""
        builders.run(["mount", *options, self.shared])
        self.addCleanup(builders.run, ["umount", "--lazy", self.shared], check=False)

    def blobs(self):
        for parent, _, names in os.walk(f"{self.shared}/ci/v1/blobs"):
            for name in names:
                yield os.path.join(parent, name)

    def entries(self):
        for parent, _, names in os.walk(f"{self.shared}/ci/v1/actions"):
            for name in names:
                yield os.path.join(parent, name)

    def built(self, fault):
        image, took = self.timed(self.address)
        with self.subTest(fault):
            self.harmless(fault, image, took)
            self.verify_cache(self.path("build", "cache"))
        return image

    def again(self):
        """The cache is filled anew by the build after the trouble."""
        self.timed(self.address)
        self.all_hits(*self.timed(self.address))

    def test_blobs_that_are_wrong_cut_or_gone(self):
        for fault, act in {
            "corrupt": lambda text: text[:50] + bytes([text[50] ^ 1]) + text[51:],
            "truncate": lambda text: text[: len(text) // 2],
            "emptied": lambda text: b"",
        }.items():
            for path in self.blobs():
                with open(path, "rb") as file:
                    text = file.read()
                os.unlink(path)
                with open(path, "wb") as file:
                    file.write(act(text))
            image = self.built(fault)
            self.assertGreaterEqual(len(self.warnings(image)), 1, fault)
            self.again()
        shutil.rmtree(f"{self.shared}/ci/v1/blobs")
        self.built("404")
        self.again()

    def test_entries_that_are_garbage_or_something_else(self):
        for garbage in (b"", b"\0" * 500, b"{}", b"[" * 100000):
            for path in self.entries():
                with open(path, "wb") as file:
                    file.write(garbage)
            self.built("404")
            self.again()
        for path in self.entries():
            os.unlink(path)
            os.mkdir(path)
        self.built("directories")

    def test_a_directory_that_is_full(self):
        shutil.rmtree(f"{self.shared}/ci")
        with open(f"{self.shared}/other", "wb") as file:
            try:
                while True:
                    file.write(b"x" * 65536)
                    file.flush()
            except OSError:
                pass
        said = self.built("full").result.stderr
        self.assertIn("No space left on device", said)
        os.unlink(f"{self.shared}/other")
        self.again()

    def test_a_directory_that_may_not_be_written(self):
        self.mount("-o", "remount,ro")
        # What is there is read without a word; what isn't, can't be saved.
        self.all_hits(*self.timed(self.address))
        self.write("context/data", "other data\n")
        image, _ = self.timed(self.address)
        self.assertEqual(self.steps(image.result), (2, 0))
        self.assertEqual(len(self.warnings(image)), 1, image.result.stderr)
        self.assertIn("is read-only", image.result.stderr)

    def test_a_directory_that_is_something_else(self):
        shutil.rmtree(f"{self.shared}/ci")
        self.write("shared/ci", "a file")
        self.built("a file")

    def test_a_directory_that_goes_away_in_mid_build(self):
        slow = "RUN echo begun; sleep 2; seq 30000 | cat /data - > /first"
        self.write("context/Dockerfile", DOCKERFILE.replace("RUN seq 30000 | cat /data - > /first", slow))
        self.plain, _ = self.timed()
        words, _ = self.build_words(self.context_path, dest=self.path("image"))
        process = self.start(*words, env={**os.environ, "MEMOBUILD_REMOTE_URL": self.address})
        said = self.wait_for_line(process.stderr, "begun")
        self.mount("-t", "tmpfs", "-o", "ro,size=4k", "none")
        said += process.stderr.read()
        self.assertEqual(process.wait(), 0, said)
        self.assertIn("warning", said)
        self.assertEqual(images.Image(self.path("image")).digest, self.plain.digest)
