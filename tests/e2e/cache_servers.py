"""Real caches for the tests, each on a port of loopback.

`address(port, scheme)` is what users write, `variables(port, scheme)` what their jobs have in the environment, `place` where
it listens.
"""

import base64
import email.utils
import hmac
import json
import os
import subprocess
import time
import urllib.error
import urllib.request

import actions_service
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

    def variables(self, port=None, scheme="http"):
        return self.environment

    def __init__(self, test):
        self.port = support.free_port()
        self.place = ("127.0.0.1", self.port)
        self.run(test)


class Server(Cache):
    """The cache server of memobuild-ci."""

    def run(self, test):
        command = [support.BINARY, "serve", "--listen", f"127.0.0.1:{self.port}", "--data", test.path("server-data")]
        self.process = start(test, command, self.port, "/healthz")

    def address(self, port=None, scheme="http"):
        return f"{scheme}://127.0.0.1:{port or self.port}"


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

    def address(self, port=None, scheme="http"):
        # Plain http is spoken with this machine, which another spelling doesn't look like.
        host = {"http": "127.0.0.1", "https": "127.1"}[scheme]
        return f"oci://{host}:{port or self.port}/team/cache"


class S3(Cache):
    """moto's server with one bucket, `cache`."""

    environment = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}

    def run(self, test):
        program = moto(test)
        self.process = start(test, [program, "-H", "127.0.0.1", "-p", str(self.port)], self.port, "/moto-api/")
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/cache", method="PUT")
        urllib.request.urlopen(request, timeout=10).close()

    def address(self, port=None, scheme="http"):
        return f"s3://cache/ci?region=us-east-1&endpoint={scheme}://127.0.0.1:{port or self.port}"


class Gcs(Cache):
    """An emulator of Google Cloud Storage with one bucket, `cache`."""

    def run(self, test):
        emulator = program(test, "python/bin/gcp-storage-emulator")
        command = [emulator, "start", "--host=127.0.0.1", f"--port={self.port}", "--in-memory", "--default-bucket=cache"]
        self.process = start(test, command, self.port)

    def address(self, port=None, scheme="http"):
        return f"gs://cache/ci?anonymous=true&endpoint={scheme}://127.0.0.1:{port or self.port}"


class Azure(Cache):
    """Azurite with one container, `cache`."""

    ACCOUNT = "devstoreaccount1"
    # Every copy of the emulator has it.
    KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
    environment = {"AZURE_STORAGE_KEY": KEY}

    def run(self, test):
        emulator = program(test, "node/node_modules/.bin/azurite-blob")
        os.makedirs(test.path("azurite"))
        command = [emulator, "--blobHost", "127.0.0.1", "--blobPort", str(self.port), "--silent", "--skipApiVersionCheck"]
        command += ["--location", test.path("azurite")]
        self.process = start(test, command, self.port)
        date = email.utils.formatdate(usegmt=True)
        signed = "PUT" + "\n" * 12 + f"x-ms-date:{date}\nx-ms-version:2021-08-06\n/{self.ACCOUNT}/{self.ACCOUNT}/cache\nrestype:container"
        signature = base64.b64encode(hmac.digest(base64.b64decode(self.KEY), signed.encode(), "sha256")).decode()
        headers = {"x-ms-date": date, "x-ms-version": "2021-08-06", "Authorization": f"SharedKey {self.ACCOUNT}:{signature}"}
        url = f"http://127.0.0.1:{self.port}/{self.ACCOUNT}/cache?restype=container"
        urllib.request.urlopen(urllib.request.Request(url, method="PUT", headers=headers), timeout=10).close()

    def address(self, port=None, scheme="http"):
        return f"azblob://cache/ci?account={self.ACCOUNT}&endpoint={scheme}://127.0.0.1:{port or self.port}/{self.ACCOUNT}"


class Actions(Cache):
    """The cache service of Actions; its address says nothing, the environment does."""

    version = 2

    def __init__(self, test):
        self.service = actions_service.Service()
        test.addCleanup(self.service.close)
        self.port = self.service.port
        self.place = ("127.0.0.1", self.port)

    def variables(self, port=None, scheme="http"):
        return self.service.environment(self.version, port, scheme)

    def address(self, port=None, scheme="http"):
        return "gha://"


class FirstActions(Actions):
    version = 1


def installed():
    """Where `scripts/setup-test` installs servers."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(cache, "memobuild-test")


def program(test, path):
    program = os.path.join(installed(), path)
    if not os.access(program, os.X_OK):
        test.missing(f"`{program}` (scripts/setup-test installs it)")
    return program


def moto(test):
    """The program of moto's server."""
    return program(test, "python/bin/moto_server")
