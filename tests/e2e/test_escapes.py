"""A step that tries to reach the host: it can't, and the build says how the step ended."""

import os
import re

import support


class Escapes(support.EndToEnd):
    def outcome(self, script, *options):
        """Runs a script as a step that may fail; returns what it wrote to /out, through the build's log."""
        context = self.context("FROM busybox\nCOPY script.sh /script.sh\nRUN sh /script.sh 2>&1 | sed 's/^/said: /'\n", {"script.sh": script})
        said = self.build(context, "--no-cache", *options).result.stderr
        # A line of a step's log: its number, the seconds since its start, the text.
        return "\n".join(re.findall(r"(?m)^#\d+ [\d.]+ said: (.*)$", said)) + "\n"

    def test_device_nodes_are_harmless(self):
        said = self.outcome("mknod /disk b 254 0; dd if=/disk of=/dev/null count=1 || echo refused\nrm -f /disk\nmknod /mem c 1 1; cat /mem | head -c 1 || true; cat /mem >/dev/null || echo refused2; rm -f /mem\n")
        self.assertIn("refused\n", said)
        self.assertIn("refused2", said)

    def test_mount_is_refused(self):
        said = self.outcome("mkdir /m; mount -t tmpfs none /m && echo mounted || echo refused\nmount -o remount,rw /proc/sys && echo mounted || echo refused\numount /etc/hosts && echo unmounted || echo refused\n")
        self.assertEqual(said.count("refused"), 3, said)
        self.assertNotIn("mounted", said)

    def test_proc_and_sys_writes_are_refused(self):
        before = open("/proc/sys/kernel/hostname").read()
        said = self.outcome(
            "echo x > /proc/sys/vm/drop_caches && echo written\necho evil > /proc/sys/kernel/hostname && echo written\n"
            "echo c > /proc/sysrq-trigger && echo written\necho 1 > /sys/kernel/profiling && echo written\n"
            "mkdir /sys/fs/cgroup/evil && echo written\ncat /proc/kcore | head -c 8 | wc -c\ntrue\n"
        )
        self.assertNotIn("written", said)
        self.assertTrue(said.strip().endswith("0"), said)
        self.assertEqual(open("/proc/sys/kernel/hostname").read(), before)

    def test_host_processes_are_invisible_and_untouchable(self):
        said = self.outcome(f"ls -d /proc/[0-9]* | wc -l\nkill -9 {os.getpid()} || echo nothing\ncat /proc/{os.getpid()}/environ || echo hidden\necho pid $$\n")
        self.assertIn("nothing", said)
        self.assertIn("hidden", said)
        self.assertLess(int(said.split()[0]), 10)

    def test_chroot_escape_stays_inside(self):
        marker = self.write("host-marker", "host\n")
        said = self.outcome(f"mkdir /c; cd /; chroot /c /bin/true; ls ../../../../../..{marker} || echo inside\n")
        self.assertIn("inside", said)

    def test_the_host_environment_stays_outside(self):
        context = self.context("FROM busybox\nRUN env | sed 's/^/said: /'\n")
        result = self.build(context, env={**os.environ, "CI_SECRET_TOKEN": "do-not-leak"}).result
        self.assertNotIn("do-not-leak", result.stderr)

    def test_open_files_of_the_builder_stay_outside(self):
        said = self.outcome("ls /proc/self/fd /proc/1/fd | sort -un | tr '\\n' ' '\n")
        self.assertLess(max(int(word) for word in said.split() if word.isdigit()), 10, said)

    def test_new_namespaces_are_refused(self):
        said = self.outcome("unshare -m true && echo made || echo refused\nunshare -U true && echo made || echo refused\n")
        self.assertEqual(said.count("refused"), 2, said)

    def test_step_log_cannot_speak_to_the_ci_system(self):
        said = self.build(self.context("FROM busybox\nRUN printf '\\n::set-output name=x::y\\n\\033]0;title\\007\\033[2Jcleared\\n'\n")).result.stderr
        self.assertNotRegex(said, r"(?m)^::")
        self.assertNotIn("\033", said)

    def test_a_layer_cannot_redirect_a_copy_to_the_host(self):
        marker = self.path("outside")
        os.mkdir(marker)
        context = self.context(f"FROM busybox\nRUN ln -s {marker} /link && ln -s ../../../../..{marker} /up\nCOPY file /link/\nCOPY file /up/\n", {"file": "f\n"})
        image = self.build(context)
        self.assertEqual(os.listdir(marker), [])
        self.assertIn(marker.lstrip("/") + "/file", image.listing())
