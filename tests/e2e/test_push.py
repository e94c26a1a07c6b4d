"""Images pushed to Debian's docker-registry, with a cache in it."""

import glob
import json
import os
import shutil

import builders
import cache_servers
import support

DOCKERFILE = """
FROM busybox
RUN i=0; while [ $i -lt 30000 ]; do echo "line $i of the first step"; i=$((i+1)); done > /first
COPY data /data
RUN cat /data /first | md5sum > /second
"""


class Push(support.EndToEnd):
    def setUp(self):
        super().setUp()
        self.need("skopeo")
        self.registry = cache_servers.Registry(self)
        self.host = f"127.0.0.1:{self.registry.port}"
        self.directory = self.context(DOCKERFILE, {"data": "some data\n" * 50})

    def push(self, name, remote=True, **settings):
        """Pushes from an empty machine."""
        shutil.rmtree(self.cache, ignore_errors=True)
        environment = dict(os.environ)
        environment.pop("MEMOBUILD_REMOTE_URL", None)
        if remote:
            environment["MEMOBUILD_REMOTE_URL"] = self.registry.address()
        return self.memobuild(
            "build", *self.base_options("busybox"), "--push", "-t", f"{self.host}/{name}", self.directory,
            env=environment, **settings,
        )  # fmt: skip

    def inspect(self, name):
        return json.loads(builders.run(["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{self.host}/{name}"]).stdout)

    def blobs(self):
        """Digests of blobs in the local store with their sizes."""
        files = glob.glob(os.path.join(self.cache, "blobs/sha256/*/*"))
        return {"sha256:" + os.path.basename(file): os.path.getsize(file) for file in files}

    def test_an_unchanged_image_is_pushed_without_its_layers(self):
        self.push("team/app:1")
        first = self.inspect("team/app:1")
        again = self.push("team/other:2")
        self.assertEqual(self.inspect("team/other:2"), first)
        self.assertEqual(self.steps(again), (0, 3), again.stderr)
        # Of the base image there are bytes: it is a directory here.
        layers = {layer["digest"] for layer in first["layers"][1:]}
        self.assertEqual(len(layers), 3)
        self.assertEqual(layers & self.blobs().keys(), set(), "no layer of a step came here")
        builders.run(["skopeo", "--insecure-policy", "copy", "--src-tls-verify=false", f"docker://{self.host}/team/other:2", f"oci:{self.path('copied')}"])

    def test_entries_can_be_read_by_other_tools(self):
        self.push("team/app:1")
        tags = json.loads(builders.run(["skopeo", "list-tags", "--tls-verify=false", f"docker://{self.host}/team/cache"]).stdout)["Tags"]
        self.assertGreaterEqual(len(tags), 3)
        titles = set()
        for tag in tags:
            entry = self.inspect(f"team/cache:{tag}")
            self.assertEqual(entry["config"]["mediaType"], "application/vnd.memobuild.action.v1+json")
            titles.add(entry["annotations"]["org.opencontainers.image.title"])
        self.assertTrue(any("RUN cat /data /first" in title for title in titles), titles)
        self.assertTrue(any("COPY data /data" in title for title in titles), titles)

    def test_without_a_cache(self):
        self.push("team/app:1", remote=False)
        self.assertEqual(len(self.inspect("team/app:1")["layers"]), 4)


if __name__ == "__main__":
    support.unittest.main()
