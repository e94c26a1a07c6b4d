"""Scarce resources: a read-only cache, a full disk, endless logs, processes left behind, memory."""

import os
import resource
import subprocess

import images
import support


class Resources(support.EndToEnd):
    def tmpfs(self, name, size):
        path = self.path(name)
        os.mkdir(path)
        if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path], stderr=subprocess.DEVNULL).returncode != 0:
            self.missing("the right to mount a tmpfs")
        self.addCleanup(subprocess.run, ["umount", "-l", path])
        return path

    def test_read_only_cache_directory(self):
        mount = self.tmpfs("mounted", "64m")
        subprocess.run(["mount", "-o", "remount,ro", mount], check=True)
        context = self.context("FROM busybox\nRUN echo x > /x\n")
        # No cache trouble fails a build: it warns, and keeps nothing.
        image = self.build(context, cache=os.path.join(mount, "cache"))
        self.assertIn("x", image.listing())
        self.assertRegex(image.result.stderr, f"warning: .*{mount}")
        self.assertEqual(os.listdir(mount), [])

    def test_cache_directory_that_turned_read_only(self):
        """What is in it still hits."""
        mount = self.tmpfs("mounted", "64m")
        cache = os.path.join(mount, "cache")
        context = self.context("FROM busybox\nRUN echo x > /x\n")
        first = self.build(context, cache=cache)
        subprocess.run(["mount", "-o", "remount,ro", mount], check=True)
        again = self.build(context, cache=cache, dest=self.path("again"))
        self.assertEqual(again.digest, first.digest)

    def test_relative_cache_directory(self):
        context = self.context("FROM busybox\nRUN echo x > /x\n")
        self.assertIn("x", self.build(context, cache="relative-cache", cwd=self.directory).listing())
        self.assertTrue(os.path.isdir(self.path("relative-cache")))

    def test_full_disk_fails_with_a_message_and_keeps_the_store(self):
        mount = self.tmpfs("small", "24m")
        cache = os.path.join(mount, "cache")
        # The first size fails in the step itself, the second when its layer is written.
        for size in (60_000_000, 15_000_000):
            context = self.context(f"FROM busybox\nRUN echo first > /first\nRUN head -c {size} /dev/urandom > /big\n")
            words, dest = self.build_words(context)
            result = self.memobuild(*words, cache=cache, exit=None)
            self.assertNotEqual(result.returncode, 0)
            self.assertNotIn("panicked", result.stderr)
            # The first is busybox's own message.
            self.assertRegex(result.stderr, r"(?i)I/O error" if size > 50_000_000 else r"(?i)no space")
            self.verify_cache(cache)
        self.write("context/Dockerfile", "FROM busybox\nRUN echo first > /first\n")
        image = self.build(context, cache=cache)
        self.assertIn("first", image.listing())
        self.assertEqual(self.steps(image.result), (0, 1))

    def test_full_disk_at_the_output(self):
        mount = self.tmpfs("small", "2m")
        context = self.context("FROM busybox\nRUN head -c 6000000 /dev/urandom > /big\n")
        words, _ = self.build_words(context, dest=os.path.join(mount, "image"))
        result = self.memobuild(*words, exit=None)
        self.assertNotEqual(result.returncode, 0)
        self.assertRegex(result.stderr, r"(?i)no space")
        self.assertFalse(os.path.exists(os.path.join(mount, "image", "index.json")))
        self.verify_cache()

    def test_a_gigabyte_of_log(self):
        context = self.context('FROM busybox\nRUN yes "a line of the log that goes on and on and on" | head -c 1000000000; echo done > /done\n')
        words, dest = self.build_words(context)
        with open(self.path("log"), "wb") as log:
            process = subprocess.Popen(self.command(*words), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        self.assertEqual(process.returncode, 0)
        self.assertIn("done", images.Image(dest).listing())
        self.assertLess(usage.ru_maxrss, 200 * 1024, "peak memory in KiB")
        self.assertLess(os.path.getsize(self.path("log")), 100_000_000, "the log is clipped")

    def test_one_endless_line(self):
        context = self.context("FROM busybox\nRUN head -c 300000000 /dev/zero | tr '\\0' x; echo done > /done\n")
        words, dest = self.build_words(context)
        with open(self.path("log"), "wb") as log:
            process = subprocess.Popen(self.command(*words), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        self.assertEqual(process.returncode, 0)
        self.assertLess(usage.ru_maxrss, 200 * 1024, "peak memory in KiB")

    def test_peak_memory_with_a_large_layer(self):
        context = self.context("FROM busybox\nRUN head -c 700000000 /dev/urandom > /large\nCOPY --from=busybox / /copy\n")
        words, dest = self.build_words(context)
        with open(self.path("log"), "wb") as log:
            process = subprocess.Popen(self.command(*words), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        self.assertEqual(process.returncode, 0, open(self.path("log")).read()[-2000:])
        self.assertLess(usage.ru_maxrss, 200 * 1024, "peak memory in KiB")

    def test_background_processes_end_with_the_step(self):
        context = self.context(
            "FROM busybox\nRUN (while true; do sleep 987657; done) & echo step > /step\nRUN setsid sleep 987657 >/dev/null 2>&1 & true\n"
        )
        image = self.build(context, timeout=60)
        self.assertIn("step", image.listing())
        self.assertTrue(support.gone_within("987657", 2))

    def test_files_limit_of_the_caller(self):
        """A low limit of open files doesn't break a build with many files and layers."""
        files = {f"files/{n}": "x\n" for n in range(600)}
        context = self.context("FROM busybox\n" + "".join(f"COPY files/{n} /f{n}\n" for n in range(30)) + "COPY files /files\nRUN ls /files | wc -l > /count\n", files)
        image = self.build(context, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256)))
        self.assertIn("count", image.listing())
