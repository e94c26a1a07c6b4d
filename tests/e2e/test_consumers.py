"""Other programs take the images: skopeo reads them, umoci unpacks them, runc runs them, a registry keeps them."""

import json
import os

import builders
import images
import support

DOCKERFILE = """
    FROM busybox
    RUN echo "made by a step" > /made && chown 1000:50 /made && chmod 4755 /made
    COPY greeting.txt /srv/
    WORKDIR /srv
    ENV NAME=world
    ENTRYPOINT ["/bin/sh", "-c", "cat /srv/greeting.txt; echo \\"$NAME from $(pwd)\\"; id -u"]
    LABEL made.by=test
"""
FILES = {"greeting.txt": "hello\n"}


class Consumers(support.EndToEnd):
    def made(self, *options):
        return self.build(self.context(DOCKERFILE, FILES), "-t", "example/consumer:1.0", *options)

    def test_skopeo_inspects_both_compressions(self):
        self.need("skopeo")
        for compression in ("zstd", "gzip"):
            image = self.build(self.context(DOCKERFILE, FILES), "--compression", compression, dest=self.path(compression))
            told = json.loads(builders.run(["skopeo", "inspect", f"oci:{image.layout}"]).stdout)
            self.assertEqual(told["Digest"], image.digest)
            self.assertEqual(told["Labels"]["made.by"], "test")
            self.assertEqual(len(told["Layers"]), len(image.layers))

    def test_skopeo_copies_a_gzip_image_to_a_directory(self):
        self.need("skopeo")
        image = self.made("--compression", "gzip")
        builders.run(["skopeo", "--insecure-policy", "copy", f"oci:{image.layout}", f"dir:{self.path('dir')}"])

    def test_umoci_unpacks_and_runc_runs(self):
        self.need("umoci", "runc")
        image = self.made("--compression", "gzip")
        tag = image.descriptor.get("annotations", {}).get("org.opencontainers.image.ref.name")
        self.assertTrue(tag, "the index gives the image no name")
        bundle = self.path("bundle")
        # umoci takes a reference without a colon in it only: the copy names it `it`.
        builders.run(["skopeo", "--insecure-policy", "copy", f"oci:{image.layout}", f"oci:{self.path('named')}:it"])
        builders.run(["umoci", "unpack", "--image", f"{self.path('named')}:it", bundle])
        with open(os.path.join(bundle, "rootfs", "srv", "greeting.txt")) as file:
            self.assertEqual(file.read(), "hello\n")
        made = os.stat(os.path.join(bundle, "rootfs", "made"))
        self.assertEqual((made.st_mode & 0o7777, made.st_uid, made.st_gid), (0o4755, 1000, 50))
        with open(os.path.join(bundle, "config.json")) as file:
            config = json.load(file)
        config["process"]["terminal"] = False
        config["linux"]["namespaces"] = [n for n in config["linux"]["namespaces"] if n["type"] != "network"]
        with open(os.path.join(bundle, "config.json"), "w") as file:
            json.dump(config, file)
        name = "memobuild-e2e-" + os.path.basename(self.directory)
        said = builders.run(["runc", "--root", self.path("runc"), "run", "--bundle", bundle, name]).stdout
        self.assertEqual(said, "hello\nworld from /srv\n0\n")

    def test_buildah_takes_the_image_as_a_base(self):
        if not builders.Buildah.available():
            self.missing("buildah and runc")
        image = self.made()
        recipe = builders.Recipe(
            self.write("on-top/Dockerfile", "FROM product\nRUN cat /made > /copy\n"), self.path("on-top"),
            bases={"product": self.renamed(image)},
        )  # fmt: skip
        self.assertIn("copy", support.shared(builders.Buildah).build(recipe).listing())

    def renamed(self, image):
        """A copy of the layout in which the image is called `latest`."""
        builders.run(["skopeo", "--insecure-policy", "copy", f"oci:{image.layout}", f"oci:{self.path('renamed')}:latest"])
        return self.path("renamed")

    def test_tar_output_is_a_layout_in_one_file(self):
        self.need("skopeo", "tar")
        context = self.context(DOCKERFILE, FILES)
        archive = self.path("image.tar")
        self.memobuild("build", *self.base_options(), "-t", "example/consumer:1.0", "-o", f"type=oci,dest={archive}", context)
        os.mkdir(self.path("unpacked"))
        builders.run(["tar", "-xf", archive, "-C", self.path("unpacked")])
        image = images.Image(self.path("unpacked"))
        self.assertIn("made", image.listing())
        self.assertEqual(image.digest, self.build(context).digest)
        builders.run(["skopeo", "inspect", f"oci-archive:{archive}"])

    def test_iidfile_and_metadata_file(self):
        image = self.made("--iidfile", self.path("iid"), "--metadata-file", self.path("metadata"))
        with open(self.path("iid")) as file:
            self.assertIn(file.read().strip(), (image.digest, image.manifest["config"]["digest"]))
        with open(self.path("metadata")) as file:
            metadata = json.load(file)
        self.assertEqual(metadata["containerimage.digest"], image.digest)
        self.assertEqual(metadata["containerimage.config.digest"], image.manifest["config"]["digest"])

    def test_layers_are_canonical(self):
        """Sorted entries, no host names, one mtime per layer, and media types as the specification has them."""
        import tarfile

        image = self.made()
        self.assertEqual(image.manifest["mediaType"], "application/vnd.oci.image.manifest.v1+json")
        for descriptor in image.layers[1:]:
            self.assertEqual(descriptor["mediaType"], "application/vnd.oci.image.layer.v1.tar+zstd")
            with image.layer_tar(descriptor) as stream:
                members = list(tarfile.open(fileobj=stream, mode="r|"))
            self.assertEqual([(m.uname, m.gname) for m in members], [("", "")] * len(members))
            self.assertEqual(len({int(m.mtime) for m in members}), 1)
            paths = [m.name.rstrip("/").split("/") for m in members]
            self.assertEqual(paths, sorted(paths))
