"""README and the guides: every `sh` block of a page is run, one after the other, in an empty directory.

A block whose fence names a file (```yaml memobuild.yml) is written to that file instead, in the directory where
the page is by then. `text` and `console` blocks are for reading. Links between pages must lead somewhere.
"""

import glob
import json
import os
import re
import shlex
import unittest

import builders
import cache_servers
import support

ROOT = os.path.dirname(os.path.dirname(builders.HERE))
FENCE = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.M | re.S)
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


def pages(*patterns):
    return sorted(page for pattern in patterns for page in glob.glob(os.path.join(ROOT, pattern)))


def script(text):
    """What a reader of the page types and saves, as one script."""
    lines = ["set -eu"]
    for language, file, body in FENCE.findall(text):
        if file:
            lines.append(f"cat > {shlex.quote(file)} <<'END-OF-BLOCK'\n{body}END-OF-BLOCK")
        elif language == "sh":
            lines.append(body)
    return "\n".join(lines)


class Pages(support.EndToEnd):
    def run_page(self, page, **settings):
        self.need("skopeo")
        # The pages say `FROM busybox`; no registry is asked for it.
        options = shlex.join(self.base_options("busybox"))
        program = shlex.quote(support.BINARY)
        self.write(
            "bin/memobuild-ci",
            f"""
            #!/bin/sh
            case $1 in build | plan | graph | explain | simulate) command=$1; shift; exec {program} $command {options} "$@" ;; esac
            exec {program} "$@"
            """,
            mode=0o755,
        )
        os.mkdir(self.path("page"))
        environment = dict(os.environ, MEMOBUILD_CACHE_DIR=self.cache)
        environment.update(settings)
        environment["PATH"] = self.path("bin") + ":" + environment["PATH"]
        with open(page, encoding="utf-8") as file:
            text = script(file.read())
        self.assertIn("memobuild-ci build", text)
        result = builders.run(["sh", "-c", text], check=False, cwd=self.path("page"), env=environment, timeout=300)
        self.assertEqual(result.returncode, 0, f"{page}:\n{result.stdout}\n{result.stderr}")
        return result

    def test_readme(self):
        result = self.run_page(os.path.join(ROOT, "README.md"))
        ran = [int(number) for number in re.findall(r"steps?: (\d+) ran", result.stderr)]
        self.assertEqual(ran, [2, 0, 1], "as the comments in the example say")

    def test_getting_started(self):
        self.run_page(os.path.join(ROOT, "docs/guides/getting-started.md"))

    def test_outputs(self):
        self.assertIn("made\n", self.run_page(os.path.join(ROOT, "docs/guides/outputs.md")).stdout)

    def test_simulate(self):
        self.need("git")
        result = self.run_page(os.path.join(ROOT, "docs/guides/simulate.md"))
        self.assertIn("has_work=true", result.stdout)
        self.assertIn("requirements/app.txt invalidates ml through `COPY requirements/ /requirements/` in Dockerfile.ml:2: once in 3 commits", result.stdout)
        with open(self.path("page/report.html"), encoding="utf-8") as file:
            self.assertIn("another framework", file.read())

    def test_cache_in_your_registry(self):
        registry = cache_servers.Registry(self)
        # Only our own program takes loopback for a place without TLS by itself.
        self.write(
            "bin/skopeo",
            """
            #!/bin/sh
            command=$1; shift
            exec /usr/bin/skopeo "$command" --tls-verify=false "$@"
            """,
            mode=0o755,
        )
        page = os.path.join(ROOT, "docs/guides/cache-in-your-registry.md")
        result = self.run_page(page, REGISTRY=f"127.0.0.1:{registry.port}")
        ran = re.findall(r"(\d+) ran, (\d+) hits?", result.stderr)
        self.assertEqual(ran, [("3", "0"), ("0", "3")], result.stderr)
        self.assertIn('"org.opencontainers.image.title":"', result.stdout)

    def test_github_actions_cache(self):
        service = cache_servers.Actions(self)
        result = self.run_page(os.path.join(ROOT, "docs/guides/github-actions-cache.md"), **service.variables())
        ran = [int(number) for number in re.findall(r"steps?: (\d+) ran", result.stderr)]
        self.assertEqual(ran, [1, 0], "the second runner starts empty and runs nothing")

    def test_local_cache(self):
        result = self.run_page(os.path.join(ROOT, "docs/guides/local-cache.md"))
        ran = [int(number) for number in re.findall(r"steps?: (\d+) ran", result.stderr)]
        self.assertEqual(ran, [2, 0, 0], "what was carried elsewhere is found there")
        self.assertIn("sent 2 results, ", result.stdout)
        self.assertIn("exported 5 entries, ", result.stdout)

    def test_planning(self):
        result = self.run_page(os.path.join(ROOT, "docs/guides/planning.md"))
        self.assertIn("0 to build, 0 to reuse, 2 to skip", result.stdout)
        self.assertIn('matrix={"include":[{"name":"app-linux-amd64"', result.stdout)
        self.assertIn("`COPY requirements.txt /requirements.txt` in docker/Dockerfile.ml:2: requirements.txt", result.stdout)
        self.assertIn("flowchart TD", result.stdout)

    def test_bake(self):
        result = self.run_page(os.path.join(ROOT, "docs/guides/bake.md"))
        self.assertIn("example-app-dev", result.stdout)
        self.assertIn('"VERSION": "dev"', result.stdout)

    def test_object_storage(self):
        result = self.run_page(os.path.join(ROOT, "docs/guides/object-storage.md"))
        ran = [int(number) for number in re.findall(r"steps?: (\d+) ran", result.stderr)]
        self.assertEqual(ran, [1, 0], "the second runner starts empty and runs nothing")
        for name in ("protected-role", "pull-request-role", "lifecycle"):
            with open(self.path("page", f"{name}.json")) as file:
                json.load(file)

    def test_cache_server(self):
        result = self.run_page(os.path.join(ROOT, "docs/guides/cache-server.md"))
        ran = [int(number) for number in re.findall(r"steps?: (\d+) ran", result.stderr)]
        self.assertEqual(ran, [1, 0, 1], "the second runner starts empty and runs nothing; another namespace does")
        self.assertIn('"api_versions":["1"]', result.stdout)
        self.assertIn('"code":"unauthorized"', result.stdout)
        self.assertIn('"entries":{"branch":0,"local":0,"protected":', result.stdout)

    def test_layered_repositories(self):
        result = self.run_page(os.path.join(ROOT, "docs/guides/layered-repositories.md"))
        ran = [int(number) for number in re.findall(r"steps?: (\d+) ran", result.stderr)]
        self.assertEqual(ran[:2], [4, 1], "a change in `src/` reaches one COPY")


    def test_why_did_it_run(self):
        result = self.run_page(os.path.join(ROOT, "docs/guides/why-did-it-run.md"))
        file = r"file `src/b.txt` changed \(`blake3:\w{12}` -> `blake3:\w{12}`\)"
        self.assertRegex(result.stdout, rf"run   \[3/4\] COPY src /app/: {file}\n")
        self.assertRegex(result.stdout, r"hit +in the local cache, by its key\n")
        self.assertIn("environment variable `MODE` changed (`fast` -> `slow`)", result.stdout)
        self.assertRegex(result.stdout, rf"#3 miss: {file}\n")
        with open(self.path("page", "why.json")) as why:
            self.assertIsNone(json.load(why)["first_cause"], "it was built meanwhile")


class All(unittest.TestCase):
    def test_every_guide_has_its_test(self):
        for page in pages("docs/guides/*.md"):
            name = os.path.basename(page)[:-3].replace("-", "_")
            self.assertTrue(hasattr(Pages, f"test_{name}"), page)

    def test_links_lead_to_files(self):
        missing = []
        for page in pages("*.md", "docs/*.md", "docs/*/*.md", "examples/*/*.md"):
            with open(page, encoding="utf-8") as file:
                # Code is no place for links.
                text = FENCE.sub("", file.read())
            for link in LINK.findall(text):
                if not os.path.exists(os.path.join(os.path.dirname(page), link)):
                    missing.append((os.path.relpath(page, ROOT), link))
        self.assertEqual(missing, [])


if __name__ == "__main__":
    unittest.main()
