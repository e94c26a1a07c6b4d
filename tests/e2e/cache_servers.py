"""Real caches for the tests, each on a port of loopback: `address(port)` is what users write, `place` where it listens."""

import json
import os
import subprocess
import time
import urllib.error
import urllib.request

import support


def start(test, command, port, path="/", **options):
    """Starts a server and waits until it answers over HTTP."""
    log = open(test.path(f"server-{port}.log"), "w")
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **options)
    test.addCleanup(log.close)
    test.addCleanup(process.wait)
    test.addCleanup(process.kill)
    deadline = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5).close()
            return process
        except urllib.error.HTTPError:
            return process
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                with open(log.name) as said:
                    test.fail(f"`{' '.join(command)}` doesn't answer:\n{said.read()}")
            time.sleep(0.05)


class Cache:
    environment = {}

    def __init__(self, test):
        self.port = support.free_port()
        self.place = ("127.0.0.1", self.port)
        self.run(test)


class Server(Cache):
    """The cache server of memobuild-ci."""

    def run(self, test):
        command = [support.BINARY, "serve", "--listen", f"127.0.0.1:{self.port}", "--data", test.path("server-data")]
        self.process = start(test, command, self.port, "/healthz")

    def address(self, port=None):
        return f"http://127.0.0.1:{port or self.port}"


class Registry(Cache):
    """Debian's docker-registry."""

    def run(self, test):
        test.need("docker-registry")
        config = {
            "version": "0.1",
            "log": {"level": "error", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": test.path("registry")}, "delete": {"enabled": True}},
            # Uploads continue where the client reached the registry, not where it believes to be.
            "http": {"addr": f"127.0.0.1:{self.port}", "relativeurls": True},
        }
        self.process = start(test, ["docker-registry", "serve", test.write("registry.json", json.dumps(config))], self.port, "/v2/")

    def address(self, port=None):
        return f"oci://127.0.0.1:{port or self.port}/team/cache"


class S3(Cache):
    """moto's server with one bucket, `cache`."""

    environment = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}

    def run(self, test):
        program = moto(test)
        self.process = start(test, [program, "-H", "127.0.0.1", "-p", str(self.port)], self.port, "/moto-api/")
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/cache", method="PUT")
        urllib.request.urlopen(request, timeout=10).close()

    def address(self, port=None):
        return f"s3://cache/ci?region=us-east-1&endpoint=http://127.0.0.1:{port or self.port}"


def moto(test):
    """The program of moto's server, which `scripts/setup-test` installs."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    program = os.path.join(cache, "memobuild-test/python/bin/moto_server")
    if not os.access(program, os.X_OK):
        test.missing("moto's server (scripts/setup-test installs it)")
    return program
