"""Secrets and SSH agents leave no trace: not in layers, logs, the cache, keys, or processes."""

import base64
import os
import subprocess
import urllib.parse

import builders
import support
from support import processes_with
from test_rootless import Rootless

SECRET = "pa55-w0rd of the test/run?"
LINES = "-----BEGIN KEY-----\nMIIEpAIBAAKCAQEA7y+first\nsecondLineOfTheKey==\n-----END KEY-----\n"

DOCKERFILE = """
    FROM busybox
    RUN --mount=type=secret,id=one --mount=type=secret,id=key,mode=0444,target=/deep/er/key --mount=type=secret,id=one,env=ONE \\
        cat /run/secrets/one /deep/er/key; echo "in a line: $ONE."; echo "$ONE" >&2; base64 /run/secrets/one; printf 'user:%s' "$ONE" | base64; cp /bin/true /made
"""


def files_below(*directories):
    for directory in directories:
        for parent, _, names in os.walk(directory):
            for name in names:
                path = os.path.join(parent, name)
                if os.path.isfile(path) and not os.path.islink(path):
                    yield path


def forms(secret):
    """What a search for the secret looks for: itself, its lines, and as programs encode it."""
    out = {secret.encode(), base64.b64encode(secret.encode()), urllib.parse.quote(secret).encode()}
    return out | {line.encode() for line in secret.splitlines() if len(line) >= 4}


class Secrets(support.EndToEnd):
    def options(self, one=SECRET, key=LINES):
        self.write("one.txt", one.encode())
        self.write("key.txt", key.encode())
        return ["--secret", f"id=one,src={self.path('one.txt')}", "--secret", f"id=key,src={self.path('key.txt')}"]

    def assert_no_trace(self, result, *secrets):
        said = (result.stdout + result.stderr).encode()
        places = [self.cache, self.path("image")]
        for form in set().union(*map(forms, secrets)):
            self.assertNotIn(form, said)
            for path in files_below(*places):
                with open(path, "rb") as file:
                    self.assertNotIn(form, file.read(), path)

    def test_no_trace_in_output_cache_and_image(self):
        """The search itself is tested: without masks and compression it would find the secret."""
        context = self.context(DOCKERFILE)
        image = self.build(context, *self.options(), "--compression", "uncompressed", "--metadata-file", self.path("image-metadata"))
        self.assertIn("***", image.result.stderr)
        self.assertIn("in a line: ***.", image.result.stderr)
        self.assert_no_trace(image.result, SECRET, LINES)
        self.assertEqual([path for path in image.listing() if "secrets" in path or "deep" in path], [])

    def test_the_search_finds_what_is_there(self):
        context = self.context("FROM busybox\nRUN --mount=type=secret,id=one cat /run/secrets/one > /stolen\n")
        image = self.build(context, *self.options(), "--compression", "uncompressed")
        with self.assertRaises(AssertionError):
            self.assert_no_trace(image.result, SECRET)

    def test_no_trace_in_json_and_failures(self):
        context = self.context('FROM busybox\nRUN --mount=type=secret,id=one,env=ONE echo "$ONE"; exit 3\n')
        for progress in ("json", "plain"):
            words, _ = self.build_words(context, *self.options(), "--progress", progress)
            words = [word for word in self.command(*words)]
            # The test's own `--progress plain` goes first.
            at = words.index("--progress")
            del words[at : at + 2]
            result = builders.run(words, check=False)
            self.assertEqual(result.returncode, 30)
            self.assertIn("***", result.stdout + result.stderr)
            self.assert_no_trace(result, SECRET)

    def test_a_long_line_is_masked_where_it_is_cut(self):
        """Lines without an end are cut at some length; a secret across the cut is one still."""
        context = self.context(
            f'FROM busybox\nRUN --mount=type=secret,id=one,env=ONE yes "$ONE" | tr -d "\\n" | head -c {4000 * len(SECRET)}\n'
        )
        words, _ = self.build_words(context, *self.options())
        result = self.memobuild(*words)
        for piece in (SECRET[:8], SECRET[8:16], SECRET[-8:]):
            self.assertNotIn(piece, result.stderr)

    def test_values_are_in_no_key_and_requests_are(self):
        dockerfile = "FROM busybox\nRUN --mount=type=secret,id=one{} true > /made\n"
        context = self.context(dockerfile.format(""))
        self.assertEqual(self.steps(self.build(context, *self.options()).result), (1, 0))
        self.assertEqual(self.steps(self.build(context, *self.options(one="another value")).result), (0, 1))
        # A hit needs no secret at all.
        self.assertEqual(self.steps(self.build(context).result), (0, 1))
        for number, more in enumerate((",target=/t", ",mode=0444", ",uid=5", ",required", ",env=ONE")):
            context = self.context(dockerfile.format(more), name=f"context-{number}")
            self.assertEqual(self.steps(self.build(context, *self.options()).result), (1, 0), more)

    def test_required_and_wrong_options(self):
        context = self.context("FROM busybox\nRUN --mount=type=secret,id=one,required true\n")
        said = self.build_fails(2, context)
        self.assertIn("needs secret `one`, which was not given", said)
        self.assertIn("--secret id=one,src=FILE", said)
        self.assertIn("Dockerfile:2", said)
        self.build_fails(42, context, "--secret", f"id=one,src={self.path('nothing')}")
        self.build_fails(2, context, "--secret", "one")
        self.build_fails(2, context, "--ssh", f"default={self.write('no-key', 'no key')}")
        self.build_fails(2, context, "--ssh", "default", env={**os.environ, "SSH_AUTH_SOCK": self.path("no-socket")})

    def test_the_forms_of_the_option(self):
        context = self.context("FROM busybox\nRUN --mount=type=secret,id=VALUE sha256sum < /run/secrets/VALUE | tee /sum\n")
        self.write("VALUE", b"of the file")
        environment = {**os.environ, "VALUE": "of the variable", "OTHER": "of the other"}
        sums = set()
        for option, variables in (
            (f"id=VALUE,src={self.path('VALUE')}", environment),
            ("id=VALUE", environment),
            ("id=VALUE,env=OTHER", environment),
            ("type=env,id=VALUE,src=OTHER", environment),
        ):
            image = self.build(context, "--secret", option, "--no-cache", env=variables)
            sums.add(image.listing()["sum"].sha256)
        self.assertEqual(len(sums), 3)
        without = {name: value for name, value in environment.items() if name != "VALUE"}
        words, _ = self.build_words(context, "--secret", "id=VALUE", "--no-cache", dest=self.path("by-name"))
        self.memobuild(*words, env=without, cwd=self.directory)


class Agents(support.EndToEnd):
    SCRIPT = """
        use IO::Socket::UNIX;
        my $agent = IO::Socket::UNIX->new(Peer => $ENV{SSH_AUTH_SOCK}) or die "no agent: $!\\n";
        print $agent pack("N/a", "\\x0b");
        $agent->flush;
        read($agent, my $length, 4);
        read($agent, my $answer, unpack("N", $length));
        my ($type, $number) = unpack("CN", $answer);
        print "$type: $number keys\\n";
    """
    DOCKERFILE = "FROM debian\nCOPY ask.pl /\nRUN --mount=type=ssh,required perl /ask.pl | tee /answer\n"

    def setUp(self):
        super().setUp()
        self.need("ssh-agent", "ssh-keygen")

    def base_options(self, *names):
        return super().base_options("debian")

    def key(self, name, passphrase=""):
        path = self.path(name)
        builders.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", "of the test", "-f", path])
        return path

    def test_keys_are_loaded_into_an_agent_that_ends(self):
        context = self.context(self.DOCKERFILE, {"ask.pl": self.SCRIPT})
        one, two = self.key("one"), self.key("two")
        # A mode that a CI system may give its files.
        os.chmod(one, 0o644)
        temporary = self.path("tmp")
        os.mkdir(temporary)
        image = self.build(context, "--ssh", f"default={one},{two}", env={**os.environ, "TMPDIR": temporary})
        self.assertIn("12: 2 keys", image.result.stderr)
        self.assertEqual(os.listdir(temporary), [])
        self.assertEqual(processes_with(temporary), [])
        with open(one) as file:
            line = file.read().splitlines()[2].encode()
        for path in files_below(self.cache, self.path("image")):
            with open(path, "rb") as file:
                self.assertNotIn(line, file.read(), path)

    def test_a_key_with_a_passphrase_is_refused(self):
        context = self.context(self.DOCKERFILE, {"ask.pl": self.SCRIPT})
        said = self.build_fails(2, context, "--ssh", f"default={self.key('locked', 'secret words')}")
        self.assertIn("can't be loaded as an SSH key", said)
        self.assertIn("ssh-add", said)

    def test_a_socket_that_is_no_agent_is_refused(self):
        context = self.context(self.DOCKERFILE, {"ask.pl": self.SCRIPT})
        silent = subprocess.Popen(
            ["perl", "-MIO::Socket::UNIX", "-e", "my $s = IO::Socket::UNIX->new(Local => $ARGV[0], Listen => 1) or die; print qq(ready\\n); close STDOUT; $s->accept->close", self.path("silent")],
            stdout=subprocess.PIPE,
        )  # fmt: skip
        self.addCleanup(silent.wait)
        self.assertEqual(silent.stdout.readline(), b"ready\n")
        silent.stdout.close()
        said = self.build_fails(2, context, "--ssh", f"default={self.path('silent')}")
        self.assertIn("does not answer as an SSH agent", said)


class SecretsOfUsers(Rootless):
    """The same in a user namespace."""

    def test_secrets_and_agents_without_privilege(self):
        self.need("ssh-agent", "ssh-keygen")
        key = self.path("key")
        builders.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key])
        os.chown(key, self.user[1], self.user[2])
        secret = self.write("secret", SECRET.encode())
        context = self.context(
            """
            FROM busybox
            RUN --mount=type=secret,id=s,uid=1000,mode=0440 stat -c '%a %u:%g' /run/secrets/s > /owner
            RUN --mount=type=ssh,required,uid=1000 stat -c '%a %u:%g %F' $SSH_AUTH_SOCK > /socket
            RUN --mount=type=cache,target=/c,from=busybox,source=/etc ls /c > /cache && touch /c/x
            RUN df -k /dev/shm | tail -n 1 | awk '{print $2}' > /shm; ulimit -Sn > /limit
            USER app
            RUN --mount=type=secret,id=s,uid=1000 sha256sum < /run/secrets/s > /tmp/sum
            RUN --mount=type=ssh,uid=1000 test -w $SSH_AUTH_SOCK
        """
        )
        options = ["--secret", f"id=s,src={secret}", "--ssh", f"default={key}", "--shm-size", "4m", "--ulimit", "nofile=64:128"]
        as_user = self.build_as_user(context, *options)
        self.assertNotIn(SECRET, as_user.result.stderr)
        as_root = self.build(context, *options)
        self.assertEqual(as_root.digest, as_user.digest)

    def test_insecure_steps_have_all_capabilities_of_the_namespace(self):
        context = self.context("FROM busybox\nRUN --security=insecure mkdir /m && mount -t tmpfs none /m && umount /m && grep Seccomp: /proc/self/status\n")
        image = self.build_as_user(context, "--allow", "security.insecure")
        self.assertRegex(image.result.stderr, r"Seccomp:\s+0")


# The inherited tests run under their own name already.
del Rootless
