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
import support

DOCKERFILE = """
FROM busybox
COPY data /data
RUN seq 30000 | cat /data - > /first
"""

# Faults of the whole cache, those first in which builds wait. They run side by side, so many at a time.
FAULTS = ["silent", "trickle", "truncate", "429", "vanish", "refuse", "reset", "401", "403", "404", "500", "503", "corrupt", "garbage", "expire"]
FAULTS += ["tls-unknown", "tls-expired"]
AT_A_TIME = 5
# Those that may leave hits: what was read before them is good.
SOME_HITS = {"404", "corrupt", "vanish", "truncate", "expire"}
# What a dead cache may cost at most, in seconds.
COST = 5
# Two processors may be busy with something else.
NOISE = 4


class Faults:
    """The cases of one backend: `start` gives it."""

    def setUp(self):
        super().setUp()
        self.lock = threading.Lock()
        self.server = self.start_server()
        self.context_path = self.context(DOCKERFILE, {"data": "some data\n" * 50})

    def timed(self, address=None, name="build", variables=None):
        """A build on an empty machine: `(image, seconds)`."""
        cache, dest = self.path(name, "cache"), self.path(name, "image")
        shutil.rmtree(self.path(name), ignore_errors=True)
        environment = {**os.environ, **(variables or self.server.variables())}
        environment.pop("MEMOBUILD_REMOTE_URL", None)
        if address:
            environment["MEMOBUILD_REMOTE_URL"] = address
        start = time.monotonic()
        image = self.build(self.context_path, env=environment, cache=cache, dest=dest)
        return image, time.monotonic() - start

    def warnings(self, image):
        return [line for line in image.result.stderr.splitlines() if re.search(r"\bwarning\b", line)]

    def faulted(self, fault):
        """A build with a fault on the way to the cache: `(image, seconds)`."""
        scheme, certificate, more = "http", None, {}
        if fault.startswith("tls"):
            scheme, certificate = "https", self.certificate(is_expired=fault == "tls-expired")
            more = {} if fault == "tls-unknown" else {"SSL_CERT_FILE": self.path("ca.pem")}
        with faulty.Proxy(self.server.place, fault, certificate) as proxy:
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

    def harmless(self, fault, image, took):
        """What holds for a build with a fault."""
        said = image.result.stderr
        self.assertEqual(image.digest, self.plain.digest, said)
        self.assertLessEqual(took, self.seconds + COST + NOISE, said)
        self.assertLessEqual(len(self.warnings(image)), 4, said)
        if fault not in SOME_HITS:
            self.assertEqual(self.steps(image.result)[1], 0, said)
            self.assertGreaterEqual(len(self.warnings(image)), 1, said)

    def fill(self):
        """Fills the cache; a runner that starts empty has hits then."""
        self.plain, self.seconds = self.timed()
        filled, _ = self.timed(self.server.address())
        self.assertEqual((self.steps(filled.result), filled.digest), ((2, 0), self.plain.digest))
        self.all_hits(*self.timed(self.server.address()))

    def all_hits(self, image, _):
        said = image.result.stderr
        self.assertEqual((self.steps(image.result), image.digest), ((0, 2), self.plain.digest), said)
        self.assertEqual(self.warnings(image), [], said)

    def test_no_fault_fails_the_build_or_takes_long(self):
        self.fill()
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
        self.all_hits(*self.timed(self.server.address()))


class ServerFaults(Faults, support.EndToEnd):
    def start_server(self):
        return cache_servers.Server(self)


class RegistryFaults(Faults, support.EndToEnd):
    def start_server(self):
        return cache_servers.Registry(self)


class S3Faults(Faults, support.EndToEnd):
    def start_server(self):
        return cache_servers.S3(self)


class GcsFaults(Faults, support.EndToEnd):
    def start_server(self):
        return cache_servers.Gcs(self)


class AzureFaults(Faults, support.EndToEnd):
    def start_server(self):
        return cache_servers.Azure(self)


class ActionsFaults(Faults, support.EndToEnd):
    def start_server(self):
        return cache_servers.Actions(self)


class FirstActionsFaults(Faults, support.EndToEnd):
    def start_server(self):
        return cache_servers.FirstActions(self)
