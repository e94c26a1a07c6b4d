"""Builds as an unprivileged user with subordinate ids."""

import os
import shutil
import time

import builders
import images
import support
from test_reproducible import readable_copy


class Rootless(support.EndToEnd):
    def setUp(self):
        super().setUp()
        self.need("newuidmap", "setpriv")
        self.user = support.unprivileged_user()
        if not self.user:
            self.missing("an unprivileged user with subordinate ids")
        os.chown(self.directory, self.user[1], self.user[2])
        self.binary = readable_copy(self)
        shutil.copytree(builders.base_image("busybox"), self.path("layout"))

    def as_user(self, *words, check=True, **options):
        prefix = ["setpriv", f"--reuid={self.user[1]}", f"--regid={self.user[2]}", "--clear-groups"]
        environment = {"PATH": os.environ["PATH"], "HOME": self.directory}
        return builders.run([*prefix, self.binary, *words], env=environment, check=check, **options)

    def build_as_user(self, context, *options):
        dest = self.path("image-of-user")
        shutil.rmtree(dest, ignore_errors=True)
        result = self.as_user(
            "build", "--cache-dir", self.path("user-cache"), "--progress", "plain",
            "--build-context", f"busybox=oci-layout://{self.path('layout')}",
            "-o", f"type=oci,dest={dest},tar=false", *options, context,
        )  # fmt: skip
        image = images.Image(dest)
        image.result = result
        return image

    CONTEXT = """
        FROM busybox
        RUN echo x > /x && chown 1000:50 /x && chmod 4755 /x && mkdir /d && chown 65534:65534 /d
        RUN rm -r /home/app && rm /bin/wget && mv /d /e
        COPY --chown=app f /f
        USER app
        RUN id -u > /tmp/uid && touch /tmp/mine
    """

    def test_same_image_as_root(self):
        context = self.context(self.CONTEXT, {"f": "f\n"})
        as_user = self.build_as_user(context)
        as_root = self.build(context)
        self.assertEqual([str(d) for d in images.compare(as_root, as_user)], [])
        self.assertEqual(as_root.digest, as_user.digest)

    def test_second_build_hits(self):
        context = self.context(self.CONTEXT, {"f": "f\n"})
        self.build_as_user(context)
        began = time.monotonic()
        again = self.build_as_user(context)
        self.assertEqual(self.steps(again.result)[0], 0)
        self.assertLess(time.monotonic() - began, 5)

    def test_step_cannot_read_what_the_user_cannot(self):
        context = self.context("FROM busybox\nRUN cat /proc/1/root/etc/shadow; cat /etc/shadow || true; mount -t tmpfs none /tmp && exit 1 || true\n")
        self.build_as_user(context)

    def test_trees_of_cache_mounts_travel(self):
        """With owners, and to a user who has other ids for them: root."""
        settings = f"""
            version: 1
            image: example/app
            layers:
              app:
                dockerfile: Dockerfile
            cache:
              remote: file://{self.path("remote")}
              mounts:
                save: true
            """
        base = f"busybox=oci-layout://{self.path('layout')}"
        scripts = {
            "one": "mkdir /m/d && echo kept > /m/d/f && chown -R 1000:50 /m/d && chmod 700 /m/d",
            "two": "stat -c '%u:%g %a' /m/d && cat /m/d/f",
            "root": "stat -c '%u:%g %a' /m/d && cat /m/d/f && true",
        }
        for machine, script in scripts.items():
            context = self.context(f"FROM busybox\nRUN --mount=type=cache,target=/m {script}\n", {"memobuild.yml": settings})
            words = ["build", "--cache-dir", self.path(machine), "--progress", "plain", "--build-context", base]
            # The file names the image's output directory, which is below the working directory.
            os.chown(context, self.user[1], self.user[2])
            if machine == "root":
                said = builders.run([self.binary, *words], cwd=context).stderr
            else:
                said = self.as_user(*words, cwd=context).stderr
            if machine == "one":
                self.assertIn("saved 1 cache mount, ", said)
            else:
                self.assertIn("1000:50 700", said)
                self.assertIn("kept", said)
                self.assertIn("restored 1 cache mount, ", said)
            self.assertNotIn("warning", said)

    def test_cache_can_be_removed_by_its_user(self):
        """Nothing in the cache needs more than `cache gc` or a removal in the user's own namespace."""
        context = self.context(self.CONTEXT, {"f": "f\n"})
        self.build_as_user(context)
        self.as_user("cache", "gc", "--cache-dir", self.path("user-cache"), "--max-size", "0B")

    def test_doctor_tells_the_tier(self):
        self.assertRegex(self.as_user("doctor").stdout, r"(?i)user namespace")
