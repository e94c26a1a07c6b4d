"""Builds that are stopped, killed, or lose blobs on the way; several at once."""

import contextlib
import os
import random
import re
import signal
import subprocess
import time

import builders
import images
import support

STEPS = """
    FROM busybox AS side
    RUN i=0; while [ $i -lt 30 ]; do head -c 20000 /dev/urandom > /side$i; i=$((i + 1)); done
    FROM busybox
    RUN mkdir /one && i=0; while [ $i -lt 100 ]; do echo $i > /one/$i; i=$((i + 1)); done
    COPY files /files
    RUN head -c 3000000 /dev/urandom > /two
    RUN sleep 0.05; echo three > /three
    COPY --from=side / /side
    RUN echo four > /four
"""


class Interruption(support.EndToEnd):
    def steps_context(self):
        return self.context(STEPS, {f"files/f{n}": f"{n}\n" * 50 for n in range(200)})

    def test_kill_at_any_moment_leaves_the_cache_intact(self):
        context = self.steps_context()
        words, dest = self.build_words(context)
        began = time.monotonic()
        self.memobuild(*words, cache=self.path("timing"))
        cold = time.monotonic() - began
        choose = random.Random(20)
        for round in range(25):
            process = self.start(*words)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(choose.uniform(0.02, cold))
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            self.assertTrue(support.gone_within(self.directory, 5), support.processes_with(self.directory))
            if round % 5 == 4:
                self.verify_cache()
                # Change something, so that later rounds have steps to run again.
                self.write("context/files/f0", f"{round}\n")
        image = self.build(context)
        self.assertIn("four", image.listing())
        self.verify_cache()
        ran, _ = self.steps(self.build(context).result)
        self.assertEqual(ran, 0)

    def test_nothing_temporary_is_left_after_kills_and_gc(self):
        context = self.steps_context()
        words, _ = self.build_words(context)
        for pause in (0.1, 0.3, 0.5):
            process = self.start(*words)
            time.sleep(pause)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self.build(context)
        self.memobuild("cache", "gc", "--max-size", "1GB")
        mounts = open("/proc/self/mounts").read()
        self.assertNotIn(self.directory, mounts)

    def stop_with(self, number, code):
        context = self.context("FROM busybox\nRUN echo kept > /kept\nRUN echo started; sleep 987654 & sleep 987654\n")
        words, dest = self.build_words(context)
        process = self.start(*words)
        self.wait_for_line(process.stderr, r"\bstarted$")
        began = time.monotonic()
        process.send_signal(number)
        self.assertEqual(process.wait(10), code)
        self.assertLess(time.monotonic() - began, 2)
        self.assertTrue(support.gone_within("sleep 987654", 1), "a step's process is still there")
        self.assertNotIn(self.directory, open("/proc/self/mounts").read())
        self.assertFalse(os.path.exists(os.path.join(dest, "index.json")))
        self.verify_cache()
        # The finished step is kept.
        self.write("context/Dockerfile", "FROM busybox\nRUN echo kept > /kept\n")
        ran, hits = self.steps(self.build(context).result)
        self.assertEqual((ran, hits), (0, 1))

    def test_sigint_stops_within_two_seconds(self):
        self.stop_with(signal.SIGINT, 130)

    def test_sigterm_stops_within_two_seconds(self):
        self.stop_with(signal.SIGTERM, 143)

    def test_sigint_to_the_whole_group(self):
        """Control-C reaches every process of the foreground group at once."""
        context = self.context("FROM busybox\nRUN echo started; sleep 987655\n")
        process = self.start(*self.build_words(context)[0])
        self.wait_for_line(process.stderr, r"\bstarted$")
        os.killpg(process.pid, signal.SIGINT)
        self.assertEqual(process.wait(10), 130)
        self.assertTrue(support.gone_within("sleep 987655", 1))

    def blobs(self):
        """The files of the cache that are named by a SHA-256."""
        found = []
        for parent, _, files in os.walk(self.cache):
            found += [os.path.join(parent, name) for name in files if re.fullmatch(r"[0-9a-f]{62,64}(\..*)?", name)]
        return found

    def test_hits_whose_bytes_are_gone_are_executed_again(self):
        context = self.steps_context()
        first = self.build(context)
        blobs = self.blobs()
        self.assertTrue(blobs, "no blobs are found in the cache: the test must be mended")
        for path in blobs:
            os.unlink(path)
        again = self.build(context, dest=self.path("again"))
        self.assertEqual(sorted(again.listing()), sorted(first.listing()))
        self.verify_cache()

    def test_blobs_deleted_while_a_build_runs(self):
        context = self.steps_context()
        self.build(context)
        self.write("context/Dockerfile", STEPS.replace("echo three", "sleep 2; echo changed"))
        for round in range(3):
            self.write("context/Dockerfile", STEPS.replace("echo three", f"echo go; sleep 1; echo changed{round}"))
            process = self.start(*self.build_words(context)[0])
            self.wait_for_line(process.stderr, r"\bgo$")
            for path in self.blobs():
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
            said = process.stderr.read()
            self.assertEqual(process.wait(120), 0, said)
            image = images.Image(self.path("image"))
            self.assertIn("four", image.listing())
        self.verify_cache()

    def test_corrupt_blobs_are_seen_and_made_again(self):
        context = self.steps_context()
        # Read before the damage: a layout's blobs may be hard links of the cache's.
        first = self.build(context).listing()
        for path in self.blobs():
            os.chmod(path, 0o644)
            with open(path, "r+b") as file:
                file.seek(os.path.getsize(path) // 2)
                file.write(b"damage")
        self.assertNotEqual(self.memobuild("cache", "verify", exit=None).returncode, 0)
        # A changed last step needs the layers below, whose bytes are wrong now.
        self.write("context/Dockerfile", STEPS + "    RUN cat /one/5 > /five\n")
        again = self.build(context, dest=self.path("again"))
        self.assertEqual(set(again.listing()) - set(first), {"five"})

    def parallel_builds(self, context):
        count = 6
        processes = [self.start(*self.build_words(context, dest=self.path(f"image-{n}"))[0]) for n in range(count)]
        for process in processes:
            _, said = process.communicate(timeout=300)
            self.assertEqual(process.returncode, 0, said)
        for n in range(count):
            self.assertIn("four", images.Image(self.path(f"image-{n}")).listing())
        self.verify_cache()

    def test_parallel_builds_share_a_cache(self):
        """Builds that look for a result before another one has it both make it; all that counts is that they are the same."""
        context = self.context(STEPS.replace("/dev/urandom", "/dev/zero"), {f"files/f{n}": f"{n}\n" * 50 for n in range(200)})
        self.parallel_builds(context)
        self.assertEqual(self.steps(self.build(context).result)[0], 0)

    def test_parallel_builds_with_random_results(self):
        """What is found of two branches may be from two builds, so that none had what stands above both: that is made once."""
        context = self.steps_context()
        self.parallel_builds(context)
        result = self.build(context).result
        self.assertIn(self.steps(result)[0], (0, 1), result.stderr)
        if self.steps(result)[0]:
            self.assertRegex(result.stderr, r"#(\d+) \[.*\] RUN echo four > /four\n#\1 ran in")
        self.assertEqual(self.steps(self.build(context).result)[0], 0)

    def test_gc_beside_a_build(self):
        context = self.steps_context()
        process = self.start(*self.build_words(context)[0])
        while process.poll() is None:
            self.memobuild("cache", "gc", "--max-size", "1B", exit=None)
        self.assertEqual(process.returncode, 0, process.stderr.read())
        self.assertIn("four", images.Image(self.path("image")).listing())
        self.verify_cache()

    def test_parallel_steps_and_cancelling(self):
        """A failing step ends what runs beside it."""
        context = self.context(
            "FROM busybox AS slow\nRUN sleep 987656\nFROM busybox AS bad\nRUN sleep 0.5; exit 3\n"
            "FROM busybox\nCOPY --from=slow / /s\nCOPY --from=bad / /b\n"
        )
        began = time.monotonic()
        said = self.build_fails(30, context, "--jobs", "4")
        self.assertLess(time.monotonic() - began, 30)
        self.assertIn("exit", said)
        self.assertTrue(support.gone_within("sleep 987656", 2))
