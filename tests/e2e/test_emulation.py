"""RUN for another architecture, by an emulator that is registered in a namespace of the test's own.

Linux 6.7 and later have a list of handlers (binfmt_misc) for each user namespace that mounts one, so
nothing is registered for the machine. Where that can't be had, the tests are skipped.
"""

import hashlib
import os
import shutil
import struct
import subprocess

import builders
import images
import support

EMULATOR = "qemu-aarch64-static"

# What the package `qemu-user-static` registers, without the flags.
HANDLER = (
    r":qemu-aarch64:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
    r":\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:{program}:{flags}"
)

# Says that it is there, waits for its ids, and runs the rest of its arguments beside the handler.
ENTER = """
echo; read -r _
mount -t binfmt_misc none /proc/sys/fs/binfmt_misc || exit 77
[ -z "$1" ] || printf %s "$1" > /proc/sys/fs/binfmt_misc/register || exit 78
shift
exec "$@" </dev/null
"""


def report():
    """An arm64 program that writes the machine's name, as uname(2) gives it, to `/machine`."""
    base, header = 0x400000, 64 + 56

    def mov(register, value):
        return 0xD2800000 | value << 5 | register

    def adr(register, at, address):
        offset = address - at
        return 0x10000000 | (offset & 3) << 29 | ((offset >> 2) & 0x7FFFF) << 5 | register

    svc = 0xD4000001
    minus_100 = 0x92800000 | 99 << 5  # x0: AT_FDCWD
    # Registers x0… are arguments, x8 is the call.
    path = 24 * 4
    names = path + 16
    code = []

    def here():
        return 4 * len(code)

    code += [adr(0, here(), names), mov(8, 160), svc]
    code += [minus_100]
    code += [adr(1, here(), path), mov(2, 0o1101), mov(3, 0o644), mov(8, 56), svc]
    # The fifth of six fields of 65 bytes, to the file that was just opened (x0).
    code += [adr(1, here(), names + 4 * 65), mov(2, 7), mov(8, 64), svc]
    code += [mov(0, 0), mov(8, 93), svc]
    body = struct.pack(f"<{len(code)}I", *code).ljust(path, b"\0") + b"/machine".ljust(16, b"\0")
    size = header + len(body)
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    elf = struct.pack("<HHIQQQIHHHHHH", 2, 183, 1, base + header, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    # Readable, writable and executable; the names come behind what is in the file.
    segment = struct.pack("<IIQQQQQQ", 1, 7, 0, base, base, size, size + 6 * 65, 0x10000)
    return ident + elf + segment + body


class Emulation(support.EndToEnd):
    DOCKERFILE = 'FROM scratch\nCOPY report /\nRUN ["/report"]\n'

    def setUp(self):
        super().setUp()
        self.need("unshare", "mount")
        self.emulator = shutil.which(EMULATOR) or os.path.join(builders.CACHE, "packages", "usr", "bin", EMULATOR)
        if not os.path.exists(self.emulator):
            self.missing(f"the program `{EMULATOR}` (scripts/setup-test unpacks it)")
        if os.uname().machine == "aarch64":
            self.skipTest("the programs of the test need no emulator here")

    def beside(self, flags, *words, prefix=()):
        """The exit code and what was said of the product, in a namespace with the handler; none if `flags` is None."""
        handler = "" if flags is None else HANDLER.format(program=self.emulator, flags=flags)
        command = ["unshare", "--user", "--mount", "sh", "-c", ENTER, "sh", handler, *prefix, *self.command(*words)]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace"
        )
        try:
            if not process.stdout.readline():
                self.skipTest(f"no user namespace can be made here: {process.stderr.read()}")
            for name in ("uid_map", "gid_map"):
                with open(f"/proc/{process.pid}/{name}", "w") as file:
                    file.write("0 0 4294967295\n")
            said = process.communicate("\n", timeout=120)[1]
        finally:
            process.kill()
            process.wait()
        if process.returncode == 77:
            self.skipTest(f"the kernel has no handlers for a namespace (Linux 6.7 does): {said.strip()}")
        self.assertNotEqual(process.returncode, 78, said)
        return process.returncode, said

    def arm64(self):
        context = self.context(self.DOCKERFILE)
        self.write("context/report", report(), mode=0o755)
        return self.build_words(context, "--platform", "linux/arm64")

    def test_run_for_another_architecture(self):
        words, dest = self.arm64()
        code, said = self.beside("F", *words)
        self.assertEqual(code, 0, said)
        image = images.Image(dest)
        self.assertEqual(image.config["architecture"], "arm64")
        self.assertEqual(image.listing()["machine"].sha256, hashlib.sha256(b"aarch64").hexdigest())
        # A hit needs no emulator.
        code, said = self.beside(None, *words)
        self.assertEqual(code, 0, said)
        self.assertIn("0 ran", said)

    def test_without_an_emulator(self):
        words, dest = self.arm64()
        code, said = self.beside(None, *words)
        self.assertEqual(code, 50, said)
        self.assertIn("register an emulator", said)
        self.assertFalse(os.path.exists(os.path.join(dest, "index.json")))

    def test_an_emulator_that_steps_cannot_reach(self):
        words, _ = self.arm64()
        code, said = self.beside("", *words)
        self.assertEqual(code, 50, said)
        self.assertIn("flag `F`", said)
