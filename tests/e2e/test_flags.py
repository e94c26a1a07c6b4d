"""Flags of `docker buildx build` around the image: labels, annotations, ids, and those that do nothing."""

import json
import os

import builders
import images
import support

DOCKERFILE = "FROM busybox AS one\nRUN echo one > /one\nLABEL a=dockerfile b=dockerfile\nFROM one AS two\nRUN echo two > /two\n"


class Flags(support.EndToEnd):
    def test_labels_and_annotations(self):
        options = ["--label", "b=option", "--label", "c=with=equals", "--annotation", "org.opencontainers.image.title=An app"]
        image = self.build(self.context(DOCKERFILE), *options, "--annotation", "manifest-descriptor:where=index.json")
        self.assertEqual(image.config["config"]["Labels"], {"a": "dockerfile", "b": "option", "c": "with=equals"})
        self.assertEqual(image.manifest["annotations"], {"org.opencontainers.image.title": "An app"})
        self.assertEqual(image.descriptor["annotations"]["where"], "index.json")

    def test_annotations_are_those_of_buildkit(self):
        if not (builders.Buildkit.available() and os.environ.get("MEMOBUILD_TEST_BUILDKIT")):
            self.skipTest("compares with a live BuildKit: MEMOBUILD_TEST_BUILDKIT=1")
        context = self.context("FROM scratch\nCOPY Dockerfile /\n")
        fields = "annotation.a=1,annotation[linux/arm64].a=2,annotation-manifest-descriptor[linux/arm64].b=3,annotation-index.c=4,annotation-index-descriptor.d=5"
        output = f"type=oci,tar=false,{fields}"
        recipe = builders.Recipe(os.path.join(context, "Dockerfile"), context)
        platforms = "linux/amd64,linux/arm64"
        buildkit = support.shared(builders.Buildkit)
        buildkit.build_only(recipe, "--opt", f"platform={platforms}", f"--output={output},dest={self.path('theirs')}")
        self.memobuild("build", "--platform", platforms, "-o", f"{output},dest={self.path('ours')}", context)
        self.assertEqual(self.annotations("ours"), self.annotations("theirs"))

    def annotations(self, layout):
        """The annotations of all documents of an image, by place, without the time of the export."""
        image = images.Image(self.path(layout))
        [top] = image.index["manifests"]
        index = json.loads(image.blob(top))
        found = {"top": top.get("annotations", {}), "index": index.get("annotations")}
        for entry in index["manifests"]:
            platform = entry["platform"]["architecture"]
            found[platform] = (entry.get("annotations"), json.loads(image.blob(entry)).get("annotations"))
        for name in ("org.opencontainers.image.created", "org.opencontainers.image.ref.name"):
            found["top"].pop(name, None)
        return found

    def test_id_files(self):
        """The id is the same whatever is written, and the digest of the configuration."""
        context = self.context(DOCKERFILE)
        image = self.build(context, "--iidfile", self.path("iid"), "--metadata-file", self.path("metadata"), "-t", "app", "-t", "host:5000/a/b:c")
        with open(self.path("iid")) as file:
            id_of_image = file.read()
        self.assertEqual(id_of_image, image.manifest["config"]["digest"])
        with open(self.path("metadata")) as file:
            metadata = json.load(file)
        self.assertEqual(metadata["image.name"], "docker.io/library/app:latest,host:5000/a/b:c")
        self.assertEqual(metadata["containerimage.config.digest"], id_of_image)
        self.assertEqual(metadata["containerimage.digest"], image.digest)
        self.assertEqual(metadata["containerimage.descriptor"]["digest"], image.digest)
        self.assertEqual([d["annotations"]["io.containerd.image.name"] for d in image.index["manifests"]], metadata["image.name"].split(","))
        for output in ("type=cacheonly", self.path("out"), f"type=oci,compression=gzip,dest={self.path('a.tar')}"):
            said = self.memobuild("build", *self.base_options(), "-q", "-o", output, context)
            self.assertEqual(said.stdout, id_of_image + "\n", output)
            self.assertEqual(said.stderr, "", output)

    def test_no_cache_and_its_filter(self):
        context = self.context(DOCKERFILE)
        self.build(context)
        for options, ran in [((), 0), (("--no-cache-filter", "TWO"), 1), (("--no-cache-filter=one",), 1), (("--no-cache-filter=one,two",), 2), (("--no-cache",), 2)]:
            result = self.build(context, *options).result
            self.assertEqual(self.steps(result)[0], ran, options)

    def test_flags_without_effect(self):
        context = self.context(DOCKERFILE)
        first = self.build(context)
        image = self.build(context, "--pull", "--rm", "--force-rm", "--memory=1g", "--builder", "x", "--provenance=false", "--sbom=false")
        self.assertEqual(image.digest, first.digest)
        self.assertIn("warning: no effect: `--builder`", image.result.stderr)
        self.assertIn("warning: no effect: limits of memory", image.result.stderr)

    def test_flags_that_are_not_there_say_what_to_do(self):
        context = self.context(DOCKERFILE)
        for words, told in [
            (["--push"], "-t HOST/NAME:TAG"),
            (["-o", "type=image"], "push=true"),
            (["--cache-from", "type=inline"], "type=registry,ref=NAME"),
            (["--cache-to", "type=s3,bucket=b,secret_access_key=x"], "AWS_SECRET_ACCESS_KEY"),
            (["--provenance=mode=max"], "no attestations are made yet"),
            (["--squash"], "FROM scratch"),
            (["--annotation", "index:a=b"], "build for several platforms"),
        ]:
            said = self.build_fails(2, context, *words)
            self.assertIn(told, said, words)
            self.assertNotIn("unexpected argument", said)
