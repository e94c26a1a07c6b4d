"""Base images from Debian's docker-registry on loopback, without and with authentication."""

import base64
import json
import os
import subprocess
import time
import urllib.error
import urllib.request

import builders
import images
import support


class Registry(support.EndToEnd):
    def setUp(self):
        super().setUp()
        self.need("docker-registry", "skopeo")

    def serve(self, credentials=None):
        """Starts a registry with the busybox base in it as `base:1`; returns `host:port`."""
        port = support.free_port()
        config = {
            "version": "0.1",
            "log": {"level": "error", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": self.path("registry")}, "delete": {"enabled": True}},
            "http": {"addr": f"127.0.0.1:{port}"},
        }
        if credentials:
            self.need("htpasswd")
            user, password = credentials
            line = builders.run(["htpasswd", "-Bbn", user, password]).stdout
            config["auth"] = {"htpasswd": {"realm": "test", "path": self.write("htpasswd", line)}}
        path = self.write("registry.json", json.dumps(config))
        server = subprocess.Popen(
            ["docker-registry", "serve", path], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.addCleanup(server.wait)
        self.addCleanup(server.kill)
        host = f"127.0.0.1:{port}"
        deadline = time.monotonic() + 20
        while True:
            try:
                urllib.request.urlopen(f"http://{host}/v2/", timeout=5).close()
                break
            except urllib.error.HTTPError:
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        login = [f"--dest-creds={':'.join(credentials)}"] if credentials else []
        layout = builders.base_image("busybox")
        builders.run(
            ["skopeo", "--insecure-policy", "copy", "--dest-tls-verify=false", *login, f"oci:{layout}:latest", f"docker://{host}/library/base:1"]
        )
        return host

    def pull(self, reference, exit=0, environment=None, cache=None):
        context = self.context(f"FROM {reference}\nRUN echo pulled > /pulled\n")
        dest = self.path("image")
        result = self.memobuild(
            "build", "-o", f"type=oci,dest={dest},tar=false", context,
            exit=exit, cache=cache, env={**os.environ, **(environment or {})},
        )  # fmt: skip
        return images.Image(dest) if exit == 0 else result.stderr

    def docker_config(self, host, user, password):
        auth = base64.b64encode(f"{user}:{password}".encode()).decode()
        self.write("docker/config.json", json.dumps({"auths": {host: {"auth": auth}}}))
        return {"DOCKER_CONFIG": self.path("docker")}

    def test_pull_by_tag_and_by_digest(self):
        host = self.serve()
        digest = images.Image(builders.base_image("busybox")).digest
        self.assertIn("pulled", self.pull(f"{host}/library/base:1").listing())
        by_digest = self.pull(f"{host}/library/base@{digest}", cache=self.path("other-cache"))
        self.assertIn("pulled", by_digest.listing())

    def test_pull_with_credentials(self):
        host = self.serve(("ci", "secret-word"))
        login = self.docker_config(host, "ci", "secret-word")
        self.assertIn("pulled", self.pull(f"{host}/library/base:1", environment=login).listing())

    def test_pull_denied(self):
        host = self.serve(("ci", "secret-word"))
        for environment in ({"DOCKER_CONFIG": self.path("none")}, self.docker_config(host, "ci", "wrong-word")):
            said = self.pull(f"{host}/library/base:1", exit=41, environment=environment)
            self.assertIn(host, said)
            self.assertNotIn("word", said.replace("password", ""))

    def test_unknown_tag_and_repository(self):
        host = self.serve()
        for reference in (f"{host}/library/base:none", f"{host}/none/such:1"):
            self.assertIn(reference.rsplit(":", 1)[0], self.pull(reference, exit=42))

    def test_blob_with_other_bytes_is_refused(self):
        host = self.serve()
        layer = images.Image(builders.base_image("busybox")).layers[0]["digest"].split(":")[1]
        path = self.path("registry/docker/registry/v2/blobs/sha256", layer[:2], layer, "data")
        for damage in ("truncated", "changed"):
            with open(path, "r+b") as blob:
                if damage == "truncated":
                    blob.truncate(os.path.getsize(path) // 2)
                else:
                    blob.seek(1000)
                    blob.write(b"damaged")
            said = self.pull(f"{host}/library/base:1", exit=43)
            self.assertIn(layer[:12], said)
            self.verify_cache()

    def test_a_check_tells_a_base_image_for_another_platform(self):
        """A check warns of what a build refuses."""
        host = self.serve()
        other = self.path("other")
        self.memobuild(
            "build", "--platform", "linux/s390x", "-o", f"type=oci,dest={other},tar=false", self.context("FROM scratch\nCOPY a /\n", {"a": ""})
        )
        builders.run(["skopeo", "--insecure-policy", "copy", "--dest-tls-verify=false", f"oci:{other}", f"docker://{host}/other:1"])
        context = self.context(f"FROM scratch AS a\nFROM {host}/other:1\n")
        said = self.memobuild("build", "--check", context, exit=11).stdout
        self.assertIn(f"InvalidBaseImagePlatform: base image `{host}/other:1` is for linux/s390x", said)
        self.assertIn("Dockerfile:2", said)
        self.assertIn("s390x", self.memobuild("build", context, exit=42).stderr)

    def test_unreachable_registry(self):
        said = self.pull(f"127.0.0.1:{support.free_port()}/library/base:1", exit=40)
        self.assertIn("127.0.0.1", said)

    def test_second_build_without_the_layer_bytes(self):
        """An unchanged build asks for the manifest only: the registry may lose the layers."""
        host = self.serve()
        first = self.pull(f"{host}/library/base:1")
        layer = first.layers[0]["digest"].split(":")[1]
        os.unlink(self.path("registry/docker/registry/v2/blobs/sha256", layer[:2], layer, "data"))
        self.assertEqual(self.pull(f"{host}/library/base:1").digest, first.digest)
