"""Bad input: each has its error text and its exit code, and leaves the store intact."""

import json
import os
import shutil

import builders
import images
import support

CONFIG = """
version: 1
image: example/x
layers:
  base: {dockerfile: Dockerfile.base}
  app: {from: base, dockerfile: Dockerfile.app}
"""


class BadDockerfile(support.EndToEnd):
    needs_root = False

    def said(self, dockerfile, exit=20, files=None, options=()):
        return self.build_fails(exit, self.context(dockerfile, files), *options)

    def test_unknown_instruction(self):
        said = self.said("FROM busybox\nRUM echo x\n")
        self.assertIn("RUM", said)
        self.assertIn("Dockerfile:2", said)
        self.assertRegex(said, r"hint: .*RUN")

    def test_unknown_flag(self):
        self.assertIn("--chwon", self.said("FROM busybox\nCOPY --chwon=1 a /b\n", files={"a": ""}))

    def test_no_from(self):
        self.assertIn("FROM", self.said("RUN true\n"))

    def test_empty_file(self):
        self.said("\n")

    def test_unfinished_heredoc(self):
        self.assertIn("EOF", self.said("FROM busybox\nRUN <<EOF\necho x\n"))

    def test_copy_without_destination(self):
        self.assertIn("COPY", self.said("FROM busybox\nCOPY one\n"))

    def test_unknown_stage(self):
        self.assertIn("nostage", self.said("FROM busybox AS stage\n", exit=20, options=["--target", "nostage"]))

    def test_forward_reference(self):
        self.said("FROM busybox AS first\nCOPY --from=1 / /x\nFROM busybox\n", options=["--target", "first"])

    def test_what_is_not_allowed_says_what_allows_it(self):
        for line, hint in (("RUN --security=insecure true", "--allow security.insecure"), ("RUN --device=acme.com/gpu=all,required true", "acme.com/gpu")):
            said = self.said(f"FROM busybox\n{line}\n")
            self.assertIn(hint, said, line)
            self.assertIn("Dockerfile:2", said, line)

    def test_frontend_that_is_not_built_in(self):
        said = self.said("# syntax=example.com/other:1\nFROM busybox\n")
        self.assertIn("example.com/other:1", said)

    def test_corrupt_archives(self):
        import io
        import lzma
        import tarfile

        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            entry = tarfile.TarInfo("f")
            entry.size = 200_000
            archive.addfile(entry, io.BytesIO(os.urandom(entry.size)))
        self.write("context/x.tar.xz", lzma.compress(packed.getvalue())[:100_000])
        self.assertIn("x.tar.xz", self.said("FROM busybox\nADD x.tar.xz /x\n", exit=30))

    def test_binary_file(self):
        self.build_fails(20, self.write_binary())

    def write_binary(self):
        self.write("context/Dockerfile", bytes(range(256)) * 10)
        return self.path("context")

    def test_missing_dockerfile(self):
        os.mkdir(self.path("context"))
        result = self.memobuild("build", "-f", self.path("context/none"), self.path("context"), exit=None)
        self.assertIn(result.returncode, (2, 20, 42))
        self.assertIn("none", result.stderr)

    def test_bad_reference(self):
        self.assertIn("UPPER", self.said("FROM UPPER//x\n"))


class BadContext(support.EndToEnd):
    def test_missing_copy_source(self):
        said = self.build_fails(42, self.context("FROM busybox\nCOPY missing.txt /\n"))
        self.assertIn("missing.txt", said)
        self.assertIn("Dockerfile:2", said)
        self.verify_cache()

    def test_copy_source_dropped_by_dockerignore(self):
        said = self.build_fails(42, self.context("FROM busybox\nCOPY dropped /\n", {"dropped": "d\n", ".dockerignore": "dropped\n"}))
        self.assertIn("dropped", said)
        self.assertIn(".dockerignore", said)

    def test_dots_stay_inside_the_context(self):
        self.write("secret", "outside\n")
        said = self.build_fails(42, self.context("FROM busybox\nCOPY ../secret /\n"))
        self.assertIn("secret", said)

    def test_symlinked_source_stays_inside_the_context(self):
        self.write("outside/secret", "outside\n")
        context = self.context("FROM busybox\nCOPY link/secret /\n", {"file": "f\n"})
        os.symlink("../outside", os.path.join(context, "link"))
        self.build_fails(42, context)
        os.unlink(os.path.join(context, "link"))
        os.symlink(self.path("outside"), os.path.join(context, "link"))
        self.build_fails(42, context)

    def test_missing_context(self):
        result = self.memobuild("build", self.path("nowhere"), exit=None)
        self.assertIn(result.returncode, (2, 42))
        self.assertIn("nowhere", result.stderr)

    def test_unknown_user_in_chown(self):
        said = self.build(self.context("FROM busybox\nCOPY --chown=nosuchuser f /\n", {"f": ""})).result.stderr
        self.assertRegex(said, r"warning: .*no user or group `nosuchuser`")

    def test_failing_step(self):
        said = self.build_fails(30, self.context("FROM busybox\n\nRUN echo before; \\\n  echo told on stderr >&2; \\\n  exit 7\nRUN true\n"))
        for part in ("Dockerfile:3", "told on stderr", "7", "RUN echo before"):
            self.assertIn(part, said)
        self.verify_cache()

    def test_program_that_is_not_there(self):
        said = self.build_fails(30, self.context('FROM busybox\nRUN ["/no/such/program"]\n'))
        self.assertIn("/no/such/program", said)

    def test_step_killed_by_a_signal(self):
        said = self.build_fails(30, self.context("FROM busybox\nRUN sh -c 'kill -9 $$'; exit $?\n"))
        self.assertIn("137", said)


class BadLayout(support.EndToEnd):
    """Base images from a damaged layout."""

    def damaged(self, damage):
        layout = self.path("layout")
        shutil.rmtree(layout, ignore_errors=True)
        shutil.copytree(builders.base_image("busybox"), layout)
        damage(layout, images.Image(layout))
        context = self.context("FROM base\nRUN true\n")
        result = self.memobuild(
            "build", "--build-context", f"base=oci-layout://{layout}", "-o", f"type=oci,dest={self.path('image')},tar=false", context, exit=None
        )
        self.assertNotIn("panicked", result.stderr)
        self.verify_cache()
        return result

    def test_truncated_layer(self):
        def damage(layout, image):
            path = image.blob_path(image.layers[0])
            os.truncate(path, os.path.getsize(path) // 2)

        result = self.damaged(damage)
        self.assertEqual(result.returncode, 43, result.stderr)

    def test_changed_layer(self):
        def damage(layout, image):
            with open(image.blob_path(image.layers[0]), "r+b") as blob:
                blob.seek(2000)
                blob.write(b"other bytes")

        self.assertEqual(self.damaged(damage).returncode, 43)

    def test_changed_config(self):
        def damage(layout, image):
            with open(image.blob_path(image.manifest["config"]), "ab") as blob:
                blob.write(b" ")

        self.assertEqual(self.damaged(damage).returncode, 43)

    def test_missing_layer(self):
        result = self.damaged(lambda layout, image: os.unlink(image.blob_path(image.layers[0])))
        self.assertIn(result.returncode, (42, 43))

    def test_no_layout(self):
        result = self.damaged(lambda layout, image: shutil.rmtree(layout))
        self.assertEqual(result.returncode, 42)

    def test_wrong_platform(self):
        context = self.context("FROM busybox\nCOPY f /\n", {"f": ""})
        said = self.build_fails(42, context, "--platform", "linux/s390x")
        self.assertIn("s390x", said)

    def test_layer_that_writes_outside(self):
        """A tar with `..` and with a symlink as a parent: refused or kept inside, never outside."""
        import io
        import sys
        import tarfile

        sys.path.insert(0, os.path.join(builders.PROJECT, "scripts"))
        import oci_pack

        outside = self.path("outside")
        os.mkdir(outside)
        up = "../" * 12
        for number, entries in enumerate(
            [
                [("file", f"{up}{outside[1:]}/dots", "")],
                [("link", "evil", outside), ("file", "evil/through", "")],
                [("link", "evil", f"{up}{outside[1:]}"), ("file", "evil/through", "")],
                [("hard", "evil", "/etc/passwd"), ("file", "evil", "")],
                [("hard", "evil", f"{up}etc/hostname")],
            ]
        ):
            out = io.BytesIO()
            with tarfile.open(fileobj=out, mode="w") as tar:
                for kind, name, link in entries:
                    info = tarfile.TarInfo(name)
                    info.type = {"file": tarfile.REGTYPE, "link": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE}[kind]
                    info.linkname = link
                    info.mode = 0o755
                    tar.addfile(info)
            out.seek(0)
            layout = self.path(f"layout{number}")
            oci_pack.pack(layout, out, {}, "hostile")
            context = self.context("FROM base\nCOPY --from=busybox /bin /bin\nRUN true\n")
            result = self.memobuild(*["build", *self.base_options(), "--build-context", f"base=oci-layout://{layout}",
                                      "-o", f"type=oci,dest={self.path('image')},tar=false", context], exit=None)  # fmt: skip
            self.assertNotIn("panicked", result.stderr)
            self.assertNotIn(result.returncode, (1, 134, 139), result.stderr)
            self.assertEqual(os.listdir(outside), [], entries)


class BadConfiguration(support.EndToEnd):
    needs_root = False

    def said(self, text, exit=21, files=("Dockerfile.base", "Dockerfile.app")):
        self.write("repo/memobuild.yml", text)
        for name in files:
            self.write(f"repo/{name}", "ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\n")
        result = self.memobuild("build", cwd=self.path("repo"), exit=exit)
        self.assertNotIn("panicked", result.stderr)
        self.assertIn("memobuild.yml", result.stderr)
        return result.stderr

    def test_malformed_yaml(self):
        self.assertRegex(self.said("version: 1\nlayers: [\n"), r"memobuild\.yml:\d+:\d+")

    def test_unknown_key(self):
        said = self.said(CONFIG.replace("dockerfile: Dockerfile.app", "dockerfil: Dockerfile.app"))
        self.assertIn("dockerfil", said)
        self.assertRegex(said, r"memobuild\.yml:\d+:\d+")

    def test_duplicate_key(self):
        self.said(CONFIG + "image: again\n")

    def test_missing_dockerfile(self):
        self.assertIn("Dockerfile.app", self.said(CONFIG, files=("Dockerfile.base",)))

    def test_cycle(self):
        self.assertRegex(self.said(CONFIG.replace("base: {", "base: {from: app, ")), "built from each other")

    def test_unknown_parent(self):
        self.assertIn("bse", self.said(CONFIG.replace("from: base", "from: bse")))

    def test_wrong_type(self):
        self.assertRegex(self.said(CONFIG.replace("version: 1", "version: [1]")), r"memobuild\.yml:\d+:\d+")

    def test_config_check_finds_the_same(self):
        self.write("repo/memobuild.yml", "version: 1\nlayers: [\n")
        self.assertEqual(self.memobuild("config", "check", cwd=self.path("repo"), exit=21).stdout, "")

    def test_config_schema_is_a_json_schema(self):
        schema = json.loads(self.memobuild("config", "schema").stdout)
        self.assertIn("$schema", schema)
        self.assertIn("layers", json.dumps(schema))


class BadUsage(support.EndToEnd):
    needs_root = False

    def test_unknown_option(self):
        self.memobuild("build", "--no-such-option", exit=2)

    def test_neither_configuration_nor_dockerfile(self):
        os.mkdir(self.path("empty"))
        result = self.memobuild("build", cwd=self.path("empty"), exit=None)
        self.assertIn(result.returncode, (2, 21, 42))
        self.assertIn("memobuild.yml", result.stderr)

    def test_bad_build_context(self):
        self.memobuild("build", "--build-context", "noequals", exit=2)

    def test_bad_output(self):
        context = self.context("FROM scratch\n")
        self.memobuild("build", "-o", "type=nonsense,dest=x", context, exit=2)

    def test_unknown_target_layer(self):
        self.write("repo/memobuild.yml", CONFIG)
        for name in ("Dockerfile.base", "Dockerfile.app"):
            self.write(f"repo/{name}", "FROM scratch\n")
        result = self.memobuild("build", "--target", "nosuch", cwd=self.path("repo"), exit=None)
        self.assertIn(result.returncode, (2, 21))
        self.assertIn("nosuch", result.stderr)
