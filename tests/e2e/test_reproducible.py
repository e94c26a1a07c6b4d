"""Two cold builds on two machines give the same digest."""

import os
import shutil

import builders
import images
import support

EXAMPLE = os.path.join(builders.PROJECT, "examples", "reproducible")


class Reproducible(support.EndToEnd):
    def cold(self, name, prefix=(), environment=None, options=(), **settings):
        """A cold build of a copy of examples/reproducible at another place; returns the image."""
        source = self.path(name, "checkout")
        shutil.copytree(EXAMPLE, source)
        dest = self.path(name, "image")
        command = self.command(
            "build", "--build-arg", f"SYSTEM_IMAGE=oci-layout://{builders.base_image('busybox')}",
            "-o", f"type=oci,dest={dest},tar=false", *options, source, cache=self.path(name, "cache"),
        )  # fmt: skip
        builders.run([*prefix, *command], env=environment or dict(os.environ), **settings)
        return images.Image(dest)

    def test_same_digest_with_other_surroundings(self):
        plain = self.cold("one").digest
        other = {
            "PATH": "/usr/bin:/bin:/usr/local/bin:/usr/sbin:/sbin", "HOME": self.path(), "TZ": "Asia/Tokyo",
            "LANG": "C", "USER": "somebody", "RANDOM_VARIABLE": "x", "TMPDIR": self.directory,
        }  # fmt: skip
        self.assertEqual(self.cold("two", environment=other).digest, plain, "environment")
        self.assertEqual(self.cold("three", umask=0o077).digest, plain, "umask")
        self.assertEqual(self.cold("elsewhere/deep/er", cwd="/").digest, plain, "directory")
        self.assertEqual(self.cold("jobs", options=["--jobs", "1"]).digest, plain, "jobs")

    def test_same_digest_whatever_modes_and_times_the_checkout_has(self):
        plain = self.cold("one").digest
        source = self.path("two", "template")
        shutil.copytree(EXAMPLE, source)
        for number, name in enumerate(os.listdir(source)):
            os.chmod(os.path.join(source, name), 0o600)
            os.chown(os.path.join(source, name), 1000, 1000)
            os.utime(os.path.join(source, name), (number * 1e8, number * 1e8))
        dest = self.path("two", "image")
        self.memobuild(
            "build", "--build-arg", f"SYSTEM_IMAGE=oci-layout://{builders.base_image('busybox')}",
            "-o", f"type=oci,dest={dest},tar=false", source,
        )  # fmt: skip
        self.assertEqual(images.Image(dest).digest, plain)

    def test_same_digest_at_another_time(self):
        self.need("faketime")
        plain = self.cold("one").digest
        self.assertEqual(self.cold("two", prefix=["faketime", "-f", "+400d"]).digest, plain)

    def test_same_digest_as_another_user(self):
        user = support.unprivileged_user()
        if not user:
            self.missing("an unprivileged user")
        plain = self.cold("one").digest
        os.mkdir(self.path("two"), 0o755)
        os.chown(self.path("two"), user[1], user[2])
        self.need("setpriv", "newuidmap")
        source = self.path("two", "checkout")
        shutil.copytree(EXAMPLE, source)
        layout = self.path("two", "layout")
        shutil.copytree(builders.base_image("busybox"), layout)
        dest = self.path("two", "image")
        binary = readable_copy(self)
        words = [
            binary, "build", "--cache-dir", self.path("two", "cache"), "--progress", "plain",
            "--build-arg", f"SYSTEM_IMAGE=oci-layout://{layout}", "-o", f"type=oci,dest={dest},tar=false", source,
        ]  # fmt: skip
        builders.run(
            ["setpriv", f"--reuid={user[1]}", f"--regid={user[2]}", "--clear-groups", *words],
            env={"PATH": os.environ["PATH"], "HOME": self.path("two")},
        )
        self.assertEqual(images.Image(dest).digest, plain)

    def test_source_date_epoch_is_in_the_image_and_given_to_steps(self):
        context = self.context("FROM busybox\nRUN echo $SOURCE_DATE_EPOCH > /epoch\n")
        image = self.build(context, env={**os.environ, "SOURCE_DATE_EPOCH": "1600000000"})
        self.assertEqual(image.config["created"], "2020-09-13T12:26:40Z")
        node = image.listing()["epoch"]
        self.assertEqual(node.size, len("1600000000\n"))
        again = self.build(context, env={**os.environ, "SOURCE_DATE_EPOCH": "1600000000"}, cache=self.path("other"))
        self.assertEqual(again.digest, image.digest)


def readable_copy(test):
    """A copy of the binary that any user can run (a home directory may be closed)."""
    path = test.path("memobuild-ci")
    shutil.copy(support.BINARY, path)
    os.chmod(path, 0o755)
    return path
