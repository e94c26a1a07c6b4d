"""The other commands: doctor, cache, completions, help."""

import support


class Program(support.EndToEnd):
    needs_root = False

    def test_version_and_help(self):
        self.assertRegex(self.memobuild("--version").stdout, r"^memobuild-ci \d")
        said = self.memobuild("--help").stdout
        for word in ("build", "cache", "config", "doctor"):
            self.assertIn(word, said)

    def test_help_of_build_names_the_flags_of_buildx(self):
        said = self.memobuild("build", "--help").stdout
        for flag in ("--file", "--tag", "--build-arg", "--target", "--platform", "--build-context", "--output", "--no-cache", "--progress", "--iidfile", "--metadata-file"):
            self.assertIn(flag, said)

    def test_doctor(self):
        result = self.memobuild("doctor", exit=None)
        self.assertIn(result.returncode, (0, 50))
        self.assertTrue(result.stdout)

    def test_completions(self):
        for shell in ("bash", "zsh", "fish"):
            self.assertIn("memobuild-ci", self.memobuild("completions", shell).stdout)

    def test_cache_of_an_empty_directory(self):
        self.memobuild("cache", "ls")
        self.memobuild("cache", "verify")
        self.memobuild("cache", "gc", "--max-size", "0B")

    def test_gc_without_a_limit_is_a_usage_error(self):
        self.assertIn("--max-size", self.memobuild("cache", "gc", exit=2).stderr)

    def test_closed_stdout_is_no_panic(self):
        import subprocess

        process = subprocess.Popen([support.BINARY, "completions", "bash"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        process.stdout.close()
        said = process.stderr.read()
        process.wait()
        process.stderr.close()
        self.assertNotIn("panicked", said)
