"""How the benchmarks measure a command, and what they make files of."""

import os
import random
import subprocess
import tempfile
import time

# Lines of Python of 12 bytes each, so that the files compile.
WORDS = [b"_%s=%d\n" % (bytes(random.Random(n).choices(b"abcdefghijklmnopqrstuvwxyz", k=5)), 1000 + n) for n in range(4000)]


class Measure:
    """Wall seconds, CPU seconds and peak memory of one build, and what it said."""

    def __init__(self, seconds, cpu, peak, log=""):
        self.seconds, self.cpu, self.peak, self.log = seconds, cpu, peak, log


def timed(command, **options):
    """Runs a command; CPU time and the largest resident size of it and its children (bytes)."""
    with tempfile.TemporaryFile() as log:
        began = time.monotonic()
        process = subprocess.Popen([str(w) for w in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log, **options)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        log.seek(0)
        said = log.read().decode(errors="replace")
    if process.returncode != 0:
        raise RuntimeError(f"{command}: exit code {process.returncode}\n" + said[-3000:])
    return Measure(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, said)


def make_files(directory, count, size):
    """`count` files of about `size` bytes of text that compresses like source code, always the same."""
    choose = random.Random(count)
    for number in range(count):
        parent = os.path.join(directory, f"d{number % 100}", f"e{number // 100 % 20}")
        if number < 2000:
            os.makedirs(parent, exist_ok=True)
        with open(os.path.join(parent, f"f{number}.py"), "wb") as file:
            file.write(b"%d\n" % number + b"".join(choose.choices(WORDS, k=size // 12)))


def new_checkout(directory):
    """New times on everything, as in a fresh clone."""
    now = time.time() + random.uniform(1, 1000)
    for parent, _, files in os.walk(directory):
        for name in files:
            os.utime(os.path.join(parent, name), (now, now))
        os.utime(parent, (now, now))
