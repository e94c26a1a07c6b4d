"""`build --bake`: plans as buildx makes them, and builds of several targets as one graph."""

import hashlib
import json
import os
import shutil
import subprocess

import bakes
import serve
import support


class Plans(support.EndToEnd):
    needs_root = False

    def test_plans_are_those_of_buildx(self):
        names = bakes.names()
        self.assertGreater(len(names), 90)
        for name in names:
            with self.subTest(name):
                problem = bakes.Bake(name).problem(support.BINARY)
                if problem:
                    self.fail(problem)


HCL = """
variable "GREETING" { default = "hello" }
group "default" { targets = ["app", "tools"] }
target "base" {
  context = "lib"
  dockerfile-inline = <<EOT
FROM scratch AS files
COPY . /lib
FROM files
ENV FROM_BASE=1
EOT
}
target "app" {
  context = "app"
  contexts = { base = "target:base", res = "./lib" }
  args = { GREETING = GREETING }
  labels = { "com.example" = "x" }
  tags = ["example/app:1", "example/app:latest"]
}
target "tools" {
  inherits = ["app"]
  tags = []
  target = "tools"
  output = ["type=oci,dest=tools.tar", "type=local,dest=files"]
}
"""
DOCKERFILE = """
FROM base AS tools
ARG GREETING
COPY a.txt /a-$GREETING.txt
FROM tools
COPY --from=base /lib/x.txt /copied
COPY --from=res x.txt /res.txt
"""


class Builds(support.EndToEnd):
    needs_root = False

    def setUp(self):
        super().setUp()
        self.put("docker-bake.hcl", HCL)
        self.put("app/Dockerfile", DOCKERFILE)
        self.put("app/a.txt", "a")
        self.put("lib/x.txt", "x")

    def put(self, path, text):
        path = os.path.join(self.directory, path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(text)

    def bake(self, *words, exit=0, **env):
        done = subprocess.run(
            [support.BINARY, "build", "--cache-dir", "cache", "--progress", "plain", *words],
            cwd=self.directory, env=os.environ | env, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        self.assertEqual(done.returncode, exit, done.stderr)
        return done

    def layout(self, name):
        layout = os.path.join(self.directory, ".memobuild-output", name)

        def blob(digest):
            with open(os.path.join(layout, "blobs", *digest.split(":"))) as file:
                return json.load(file)

        with open(os.path.join(layout, "index.json")) as file:
            index = json.load(file)
        manifest = blob(index["manifests"][0]["digest"])
        return index, manifest, blob(manifest["config"]["digest"])

    def test_targets_share_one_graph(self):
        said = self.bake("--bake", "docker-bake.hcl").stderr
        # Both targets are built on `base`, whose step runs once and is no image of its own.
        self.assertEqual(said.count("COPY . /lib"), 1, said)
        self.assertEqual(said.count("COPY a.txt"), 1, said)
        self.assertEqual(sorted(os.listdir(os.path.join(self.directory, ".memobuild-output"))), ["example-app-1"])
        _, manifest, config = self.layout("example-app-1")
        self.assertIn("FROM_BASE=1", config["config"]["Env"])
        self.assertEqual(config["config"]["Labels"], {"com.example": "x"})
        self.assertEqual(len(manifest["layers"]), 4)
        self.assertTrue(os.path.exists(os.path.join(self.directory, "tools.tar")))
        self.assertEqual(sorted(os.listdir(os.path.join(self.directory, "files"))), ["a-hello.txt", "lib"])

    def test_targets_overrides_and_environment(self):
        self.bake("--bake", ".", "tools", "--set", "tools.output=type=local,dest=other", GREETING="bye")
        self.assertEqual(sorted(os.listdir(os.path.join(self.directory, "other"))), ["a-bye.txt", "lib"])
        self.assertFalse(os.path.exists(os.path.join(self.directory, "tools.tar")))

    def test_a_linked_target_is_an_image_when_it_is_named(self):
        self.bake("--bake", ".", "app", "base")
        names = sorted(os.listdir(os.path.join(self.directory, ".memobuild-output")))
        self.assertEqual(names, ["base-latest", "example-app-1"])

    def test_platforms(self):
        self.bake("--bake", ".", "app", "--set", "*.platform=linux/amd64", "--set", "*.platform=linux/arm64")
        layout = os.path.join(self.directory, ".memobuild-output", "example-app-1")
        with open(os.path.join(layout, "index.json")) as file:
            digest = json.load(file)["manifests"][0]["digest"]
        with open(os.path.join(layout, "blobs", *digest.split(":"))) as file:
            manifests = json.load(file)["manifests"]
        self.assertEqual([m["platform"]["architecture"] for m in manifests], ["amd64", "arm64"])

    def test_caches_of_targets_are_caches_of_the_build(self):
        self.put("caches.hcl", """
            target "app" {
              cache-from = ["type=local,src=shared"]
              cache-to = ["type=local,dest=shared,mode=max", "type=inline"]
            }
            """)
        files = ["--bake", "docker-bake.hcl", "--bake", "caches.hcl"]
        said = self.bake(*files).stderr
        self.assertIn("no effect: `type=inline` in `cache-to` of the bake file", said)
        self.assertEqual(said.count("no effect: `mode`"), 1, said)
        self.assertTrue(os.path.exists(os.path.join(self.directory, "shared/v1/actions/local")))
        shutil.rmtree(os.path.join(self.directory, "cache"))
        said = self.bake(*files, "--set", "*.cache-to=").stderr
        self.assertIn("0 ran", said)
        self.assertIn("saves nothing", said)
        # Flags and the environment go before them, and what is wrong is said.
        shutil.rmtree(os.path.join(self.directory, "cache"))
        self.assertNotIn("0 ran", self.bake(*files, "--cache-from", "type=local,src=empty").stderr)
        said = self.bake(*files, "--set", "app.cache-to=type=s3,bukcet=x", exit=21).stderr
        self.assertIn("`bukcet` is not an attribute of `type=s3` in `cache-to` of the bake file", said)

    def test_memobuild_yml_names_the_file(self):
        self.put("memobuild.yml", "version: 1\nbake: {files: [docker-bake.hcl], targets: [tools]}\n")
        self.bake()
        self.assertTrue(os.path.exists(os.path.join(self.directory, "tools.tar")))
        self.assertFalse(os.path.exists(os.path.join(self.directory, ".memobuild-output")))
        for short in ("docker-bake.hcl", "[docker-bake.hcl]", "."):
            os.remove(os.path.join(self.directory, "tools.tar"))
            self.put("memobuild.yml", f"version: 1\nbake: {short}\n")
            self.bake("--target", "tools")
            self.assertTrue(os.path.exists(os.path.join(self.directory, "tools.tar")), short)
        self.assertFalse(os.path.exists(os.path.join(self.directory, ".memobuild-output")))
        self.bake("--target", "app")
        self.assertTrue(os.path.exists(os.path.join(self.directory, ".memobuild-output", "example-app-1")))

    def test_compose(self):
        self.put("compose.yaml", "services:\n  web:\n    image: example/web\n    build: {context: lib, dockerfile_inline: \"FROM scratch\\nCOPY . /\\n\"}\n")
        self.bake("--bake", "compose.yaml")
        self.layout("example-web-latest")

    def test_compose_includes(self):
        self.put("compose.yaml", "include: [sub/other.yaml]\nservices: {web: {build: !override {context: lib, dockerfile_inline: \"FROM scratch\\nCOPY x.txt /\"}}}\n")
        self.put("sub/other.yaml", "services: {web: {image: example/web, build: {target: none}}}\n")
        self.bake("--bake", "compose.yaml")
        self.layout("example-web-latest")

    def test_errors(self):
        said = self.bake("--bake", ".", "appp", exit=2).stderr
        self.assertIn("did you mean `app`?", said)
        said = self.bake("--bake", "nope.hcl", exit=42).stderr
        self.assertIn("nope.hcl", said)
        said = self.bake("--bake", ".", "-t", "x", exit=2).stderr
        self.assertIn("--set 'TARGET.tags=", said)
        said = self.bake("--bake", ".", "--set", "*.tags=same", "app", "base", exit=2).stderr
        self.assertIn("same place", said)
        said = self.bake("--bake", ".", "--set", "*.output=type=image,push=true", exit=2).stderr
        self.assertIn("no name to push it under", said)
        said = self.bake("--bake", ".", "--set", "*.entitlements=security.insecure", exit=2).stderr
        self.assertIn("--allow security.insecure", said)
        self.put("wrong.hcl", 'target "default" {\n  tags = [nope]\n}\n')
        said = self.bake("--bake", "wrong.hcl", exit=21).stderr
        self.assertIn("--> wrong.hcl:2:11", said)

    def test_a_configuration_has_layers_or_bake_files(self):
        self.put("memobuild.yml", "version: 1\nimage: example/x\nbake: {files: [docker-bake.hcl]}\n")
        said = self.bake(exit=21).stderr
        self.assertIn("--> memobuild.yml:3:7", said)
        self.put("memobuild.yml", "version: 1\nbake: {files: []}\n")
        self.assertIn("`files` is empty", self.bake(exit=21).stderr)
        self.put("memobuild.yml", "version: 1\nbake: []\n")
        said = self.bake(exit=21).stderr
        self.assertIn("`bake` is empty", said)
        self.assertIn("--> memobuild.yml:2:7", said)
        self.put("memobuild.yml", "version: 1\nbake: 5\n")
        said = self.bake(exit=21).stderr
        self.assertIn("expected a path, a list of paths, or a mapping", said)
        self.assertIn("--> memobuild.yml:2:1", said)
        self.put("memobuild.yml", "version: 1\nbake: {file: docker-bake.hcl}\n")
        self.assertIn("did you mean `files`?", self.bake(exit=21).stderr)

    def test_odd_files_are_told(self):
        self.put("odd.hcl", 'target "default" {\n  context = "lib"\n  dockerfil = "x"\n  dockerfile-inline = "FROM scratch\\nCOPY . /\\n"\n  attest = ["type=sbom"]\n}\n')
        said = self.bake("--bake", "odd.hcl").stderr
        self.assertIn("did you mean `dockerfile`?", said)
        self.assertIn("`attest` of target `default` has no effect yet", said)


class Calls(support.EndToEnd):
    """Targets that are asked about instead of built."""

    needs_root = False

    FILE = """
        group "default" { targets = ["app", "image"] }
        target "base" {
          context = "lib"
          dockerfile-inline = "FROM scratch\\nLABEL a b\\nCOPY . /base\\n"
        }
        target "app" {
          description = "What is served"
          contexts = { base = "target:base" }
          dockerfile = "app.dockerfile"
          output = ["type=registry"]
          call = "check"
        }
        target "image" {
          contexts = { base = "target:base" }
          dockerfile-inline = "FROM base\\nARG WHO=me\\n"
          output = ["image"]
        }
    """

    def setUp(self):
        super().setUp()
        self.write("docker-bake.hcl", self.FILE)
        self.write("lib/a", "a")
        self.write("app.dockerfile", "FROM base\nARG PORT=80\nCMD serve\nCOPY app.dockerfile /\n")

    def bake(self, *words, exit=0):
        return self.memobuild("build", "--bake", "docker-bake.hcl", *words, cwd=self.directory, exit=exit)

    def test_a_target_is_checked_and_another_built(self):
        said = self.bake(exit=11)
        self.assertTrue(os.path.isdir(self.path("image", "base")))
        self.assertTrue(said.stdout.startswith("app\nWhat is served\n\nwarning: JSONArgsRecommended"), said.stdout)
        self.assertNotIn("LegacyKeyValueFormat", said.stdout)
        self.assertNotIn("\nimage\n", said.stdout)
        self.assertNotIn("COPY app.dockerfile", said.stderr)
        # One that is only called builds nothing, whatever its output.
        shutil.rmtree(self.path("image"))
        self.bake("app", exit=11)
        self.assertFalse(os.path.exists(self.path("image")))
        self.bake("app", "--call", "check,ignorestatus=true")

    def test_all_are_checked(self):
        for option in (["--check"], ["--call", "check"]):
            said = self.bake(*option, exit=11).stdout
            parts = said.split("\n\n")
            self.assertEqual(parts[0], "app\nWhat is served")
            self.assertEqual([part.split("\n")[0] for part in parts if len(part.split()) == 1], ["base", "image"])
            self.assertIn("--> base.dockerfile-inline:2", said)
            self.assertTrue(said.endswith("image\n\nno violations\n"), said)
        self.assertFalse(os.path.exists(self.path("image")))
        annotated = self.bake("--call", "check,format=github", exit=11).stdout.splitlines()
        self.assertEqual([line.split(" ")[1].split(",")[0] for line in annotated], ["file=app.dockerfile", "file=base.dockerfile-inline"])

    def test_json_has_the_form_of_buildx(self):
        answer = json.loads(self.bake("--call", "check,format=json", exit=11).stdout)
        self.assertEqual(answer["group"], {"default": {"targets": ["app", "image"]}})
        self.assertEqual(sorted(answer["target"]), ["app", "base", "image"])
        app = answer["target"]["app"]
        self.assertEqual(app["build"]["call"], "lint")
        self.assertEqual([w["ruleName"] for w in app["check"]["warnings"]], ["JSONArgsRecommended"])
        self.assertEqual([w["ruleName"] for w in answer["target"]["base"]["check"]["warnings"]], ["LegacyKeyValueFormat"])

    def test_outlines_and_targets(self):
        said = self.bake("--call", "outline", "app", "image").stdout
        self.assertTrue(said.startswith("app\nWhat is served\n\nBUILD ARG   VALUE   DESCRIPTION\nPORT        80\n\n"), said)
        self.assertIn("\nbase\n\n\nimage\n\nBUILD ARG   VALUE   DESCRIPTION\nWHO         me\n", said)
        said = self.bake("--set", "*.call=targets", "image", "--call", "targets,format=json").stdout
        self.assertEqual(json.loads(said)["target"]["image"]["targets"]["targets"][0]["base"], "base")

    def test_a_dockerfile_that_cant_be_read_is_a_failure_of_its_target(self):
        self.write("app.dockerfile", "FROM base\nCOPPY a b\n")
        said = self.bake("--check", exit=20)
        self.assertIn("COPPY", said.stderr)
        self.assertIn("--> base.dockerfile-inline:2", said.stdout)

    def test_wrong_calls(self):
        said = self.bake("--set", "app.call=chek", exit=2).stderr
        self.assertIn('`chek` in `call = "chek"` of target `app` is unknown', said)
        self.assertEqual(json.loads(self.bake("--print", "--check").stdout)["target"]["image"]["call"], "lint")


class Remote(support.EndToEnd):
    """Contexts that are elsewhere."""

    needs_root = False

    SERVED = """
        mkdir work && cd work && git init -q && mkdir sub
        printf 'FROM scratch AS one\\nCOPY . /\\n' > Dockerfile
        printf 'FROM scratch\\nCOPY . /other/\\n' > sub/other.dockerfile
        echo repository > from.txt
        echo subdirectory > sub/deep.txt
        git add -A && git commit -qm one && cd ..
        git clone -q --mirror work repo.git
        tar -C work -cf context.tar Dockerfile from.txt
        tar -C work/sub -cf sub.tar .
        printf 'FROM scratch\\nCOPY --from=tree deep.txt /deep\\n' > Dockerfile
        rm -rf work
    """

    def setUp(self):
        super().setUp()
        script = self.write("prepare", self.SERVED)
        serve.prepare(None, script, self.path("served"))
        self.server = serve.Server(self.path("served"))
        self.addCleanup(self.server.close)

    def bake(self, text, *words, exit=0, env=None):
        self.write("docker-bake.hcl", text.replace("SERVER", self.server.address))
        environment = serve.git_environment() | (env or {})
        return self.memobuild("build", "--bake", "docker-bake.hcl", *words, cwd=self.directory, env=environment, exit=exit)

    def files(self, name):
        found = []
        for parent, _, files in os.walk(self.path(name)):
            found += [os.path.relpath(os.path.join(parent, file), self.path(name)) for file in files]
        return sorted(found)

    def test_repositories_and_archives(self):
        self.bake("""
            group "default" { targets = ["git", "sub", "tar", "file", "inline"] }
            target "git" {
              context = "SERVER/repo.git#main"
              output = ["git"]
            }
            target "sub" {
              context = "SERVER/repo.git#main:sub"
              dockerfile = "other.dockerfile"
              output = ["sub"]
            }
            target "tar" {
              context = "SERVER/context.tar"
              output = ["tar"]
            }
            target "file" {
              context = "SERVER/Dockerfile"
              contexts = { tree = "SERVER/repo.git#main:sub" }
              output = ["file"]
            }
            target "inline" {
              context = "SERVER/repo.git#main"
              contexts = { url = "SERVER/sub.tar", made = "target:git" }
              dockerfile-inline = <<EOT
            FROM scratch
            COPY sub/deep.txt /
            COPY --from=url context /archive
            COPY --from=made from.txt /made
            EOT
              output = ["inline"]
            }
        """)
        self.assertEqual(self.files("git"), ["Dockerfile", "from.txt", "sub/deep.txt", "sub/other.dockerfile"])
        self.assertEqual(self.files("sub"), ["other/deep.txt", "other/other.dockerfile"])
        self.assertEqual(self.files("tar"), ["Dockerfile", "from.txt"])
        self.assertEqual(self.files("file"), ["deep"])
        self.assertEqual(self.files("inline"), ["archive", "deep.txt", "made"])
        # What several targets name is asked for once.
        self.assertEqual(self.server.requests.count("GET /context.tar"), 1)
        asked = [request for request in self.server.requests if "/repo.git/info/refs" in request]
        self.server.requests.clear()
        self.bake('target "default" { context = "SERVER/repo.git#main" }', "--print")
        self.assertEqual(self.server.requests, [], "printing fetches nothing")
        self.assertEqual(len(asked), 4, asked)

    def test_a_local_dockerfile_builds_a_remote_context(self):
        self.write("local.dockerfile", "FROM scratch\nCOPY from.txt /\n")
        self.bake("""
            target "default" {
              context = "SERVER/repo.git"
              dockerfile = "cwd://local.dockerfile"
              platforms = ["linux/amd64", "linux/arm64"]
              output = ["type=local,dest=files"]
            }
        """)
        self.assertEqual(self.files("files"), ["linux_amd64/from.txt", "linux_arm64/from.txt"])

    def test_secrets_of_the_targets_open_repositories(self):
        text = """
            target "default" {
              context = "SERVER/token/sesame/repo.git"
              output = ["files"]
            }
        """
        said = self.bake(text, exit=None)
        self.assertEqual(said.returncode, 41, said.stderr)
        secret = '  secret = ["id=GIT_AUTH_TOKEN,env=TOKEN"]\n            }\n        '
        self.bake(text.rstrip().removesuffix("}") + secret, env={"TOKEN": "sesame"})
        self.assertIn("from.txt", self.files("files"))

    def test_what_is_not_there_and_standard_input(self):
        said = self.bake('target "default" { context = "SERVER/none.tar" }', exit=42).stderr
        self.assertIn("/none.tar", said)
        for attribute in ("context", "dockerfile"):
            said = self.bake(f'target "default" {{ {attribute} = "-" }}', exit=2).stderr
            self.assertIn("can't have standard input", said)
        said = self.bake('target "default" {\n contexts = { a = "-" }\n dockerfile-inline = "FROM scratch"\n}', exit=2).stderr
        self.assertIn("can't have standard input", said)


class Steps(support.EndToEnd):
    def test_settings_reach_the_steps_of_their_target(self):
        text = """
        group "default" { targets = ["one", "two"] }
        target "one" {
          dockerfile-inline = <<EOT
        FROM busybox AS run
        ARG WHO
        RUN --mount=type=secret,id=key cat /run/secrets/key > /secret && sha256sum /run/secrets/key > /sum && rm /secret
        RUN ulimit -n > /limit && grep -q db.example /etc/hosts && grep db.example /etc/hosts > /host && echo $WHO > /who
        FROM scratch
        COPY --from=run /sum /limit /host /who /
        EOT
          args = { WHO = "one" }
          secret = ["id=key,src=key.txt"]
          ulimits = ["nofile=123:456"]
          extra-hosts = { "db.example" = "10.1.2.3" }
          output = ["one"]
        }
        target "two" {
          inherits = ["one"]
          args = { WHO = "two" }
          ulimits = []
          extra-hosts = { "db.example" = "10.9.9.9" }
          output = ["two"]
        }
        """
        self.write("docker-bake.hcl", text)
        self.write("key.txt", "not to be seen")
        self.memobuild("build", *self.base_options(), "--bake", "docker-bake.hcl", cwd=self.directory)

        def read(*path):
            with open(os.path.join(self.directory, *path)) as file:
                return file.read().split()

        self.assertEqual([read(name, "who") for name in ("one", "two")], [["one"], ["two"]])
        self.assertEqual(read("one", "limit"), ["123"])
        self.assertEqual(read("one", "host")[0], "10.1.2.3")
        self.assertEqual(read("two", "host")[0], "10.9.9.9")
        self.assertEqual(read("one", "sum")[0], hashlib.sha256(b"not to be seen").hexdigest())
