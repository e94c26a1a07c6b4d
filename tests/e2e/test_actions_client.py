"""The service that these tests have for `gha://`, under the npm client that actions use, and this program beside it."""

import hashlib
import json
import os
import shutil
import subprocess

import actions_service
import builders
import cache_servers
import support

DOCKERFILE = """
FROM busybox
COPY data /data
RUN cat /data > /copy
"""


class ActionsClient(support.EndToEnd):
    def setUp(self):
        super().setUp()
        self.need("node")
        self.client = os.path.join(cache_servers.installed(), "node-client")
        if not os.path.isdir(os.path.join(self.client, "node_modules/@actions/cache")):
            self.missing("the npm package `@actions/cache` (scripts/setup-test installs it)")
        self.write("workspace/files/data", "of the client\n")
        os.mkdir(self.path("temp"))
        self.files = self.context(DOCKERFILE, {"data": "some data\n" * 100})

    def serve(self, **how):
        service = actions_service.Service(**how)
        self.addCleanup(service.close)
        return service

    def acts(self, environment, *acts):
        """What the client gives for these acts, one after the other."""
        script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "actions_client.mjs")
        clean = {"PATH": os.environ["PATH"], "HOME": self.directory, "RUNNER_TEMP": self.path("temp"), "GITHUB_WORKSPACE": self.path("workspace")}
        results = self.path("results.json")
        command = ["node", script, self.client, results]
        ran = subprocess.run(
            command,
            input=json.dumps(acts),
            cwd=self.path("workspace"),
            env=clean | environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        self.assertEqual(ran.returncode, 0, ran.stdout + ran.stderr)
        with open(results) as file:
            return json.load(file)

    def round_trip(self, service, version):
        """The client saves, finds its key taken, restores by key and by prefix, and misses."""
        save = {"act": "save", "paths": ["files"], "key": "client-1"}
        read = {"act": "read", "file": "files/data"}
        remove = {"act": "remove", "path": "files"}
        tried = [("client-1", []), ("client-2", ["other-", "client-"]), ("other", ["memobuild-ci/"])]
        acts = [{"act": "available"}, save, save]
        for key, prefixes in tried:
            acts += [remove, {"act": "restore", "paths": ["files"], "key": key, "prefixes": prefixes}, read]
        available, first, second, *rest = self.acts(service.environment(version), *acts)
        self.assertTrue(available)
        self.assertGreater(first, 0)
        self.assertEqual(second, -1, "keys are given away once")
        text = "of the client\n"
        self.assertEqual(rest, [None, "client-1", text, None, "client-1", text, None, None, None])
        self.write("workspace/files/data", text)

    def built(self, environment):
        """A build on a runner that starts empty: steps that ran, hits."""
        shutil.rmtree(self.cache, ignore_errors=True)
        shutil.rmtree(self.path("image"), ignore_errors=True)
        image = self.build(self.files, env={**os.environ, **environment, "MEMOBUILD_REMOTE_URL": "gha://"})
        self.assertNotIn("warning", image.result.stderr)
        return self.steps(image.result)

    def test_the_service_does_what_the_client_expects(self):
        for version in (1, 2):
            with self.subTest(version=version):
                self.round_trip(self.serve(), version)

    def test_this_program_and_the_client_share_a_service(self):
        for version in (1, 2):
            with self.subTest(version=version):
                service = self.serve()
                environment = service.environment(version)
                self.assertEqual(self.built(environment), (2, 0))
                # Neither sees what the other has saved: their objects have different versions.
                self.round_trip(service, version)
                self.assertEqual(self.built(environment), (0, 2))
                ours = [key for key in service.keys() if key.startswith("memobuild-ci/")]
                self.assertEqual(len(ours), 2, "a pack and an index")
                self.assertEqual(service.keys()[-1], "client-1")

    def test_the_client_reads_what_this_program_has_saved(self):
        service = self.serve()
        environment = service.environment(2)
        self.built(environment)
        version = hashlib.sha256(b"memobuild-ci cache 1").hexdigest()
        file = self.path("object")
        acts = [{"act": "find", "key": prefix, "version": version, "prefixes": [prefix], "file": f"{file}-{n}"} for n, prefix in enumerate(["memobuild-ci/pack/1/", "memobuild-ci/index/1."])]
        pack, index = self.acts(environment, *acts)
        with open(f"{file}-0", "rb") as saved:
            self.assertEqual(pack, f"memobuild-ci/pack/1/{hashlib.sha256(saved.read()).hexdigest()}")
        self.assertRegex(index, r"^memobuild-ci/index/1\.\d+/local~0000000001$")
        text = builders.run(["zstd", "-dcq", f"{file}-1"]).stdout
        steps = {entry["step"]["instruction"] for entry in json.loads(text)["entries"]}
        self.assertLessEqual({"COPY data /data", "RUN cat /data > /copy"}, steps)

    def test_the_mode_of_the_job_is_kept_to_and_said_once(self):
        service = self.serve()
        environment = service.environment(2)
        for mode, steps, objects, said in [
            ("write-only", (2, 0), 2, "nothing is read from the cache"),
            ("read", (0, 2), 2, "nothing is saved to the cache"),
            ("none", (2, 0), 2, "no use is made of the cache"),
            ("write", (0, 2), 2, None),
        ]:
            with self.subTest(mode):
                shutil.rmtree(self.cache, ignore_errors=True)
                variables = {**os.environ, **environment, "ACTIONS_CACHE_MODE": mode, "MEMOBUILD_REMOTE_URL": "gha://"}
                before = len(service.requests)
                image = self.build(self.files, env=variables, dest=self.path(f"image-{mode}"))
                warnings = [line for line in image.result.stderr.splitlines() if "warning" in line]
                self.assertEqual(self.steps(image.result), steps)
                self.assertEqual(len(service.keys()), objects)
                self.assertEqual(len(warnings), 1 if said else 0, warnings)
                self.assertIn(said or "", "".join(warnings))
                if mode == "none":
                    self.assertEqual(len(service.requests), before)

    def test_a_taken_key_may_be_told_with_400(self):
        # Some servers of version 1 do; two runners that save at once get there.
        service = self.serve(taken=400)
        environment = service.environment(1)
        self.assertEqual(self.built(environment), (2, 0))
        # The index is gone, its pack isn't.
        with service.lock:
            service.objects = [object for object in service.objects if "/pack/" in object.key]
        self.assertEqual(self.built(environment), (2, 0))
        self.assertEqual(self.built(environment), (0, 2))
