"""What builds fetch: Git repositories over SSH, and sources for which the cache directory has no room."""

import os
import subprocess
import tarfile

import builders
import serve
import ssh_server
import support


def git(directory, *words):
    builders.run(["git", *words], cwd=directory, env=serve.git_environment())


class Ssh(support.EndToEnd):
    def setUp(self):
        super().setUp()
        self.need("ssh", "ssh-keygen")
        if not ssh_server.program():
            self.missing("the program `sshd` (scripts/setup-test unpacks it)")
        user = support.unprivileged_user()
        if not user:
            self.missing("an unprivileged user")
        self.write("served/project/Dockerfile", "FROM scratch\nCOPY file /\nCOPY sub/ /sub/\n")
        self.write("served/project/file", "of main\n")
        self.write("served/project/sub/below", "below\n")
        project = self.path("served", "project")
        git(project, "init", "-q")
        git(project, "add", ".")
        git(project, "commit", "-q", "-m", "one")
        git(project, "tag", "one")
        self.write("served/project/file", "changed\n")
        git(project, "commit", "-q", "-a", "-m", "two")
        self.repository = self.path("served", "project.git")
        git(self.directory, "clone", "-q", "--bare", project, self.repository)
        os.makedirs(self.path("server"))
        for parent, names, files in os.walk(self.path("served")):
            for path in [parent, *(os.path.join(parent, name) for name in names + files)]:
                os.lchown(path, user[1], user[2])
        self.server = ssh_server.Server(self.path("server"), user)
        self.addCleanup(self.server.close)
        self.url = f"ssh://{user[0]}@127.0.0.1:{self.server.port}{self.repository}"
        self.short = f"{user[0]}@127.0.0.1:{self.repository}"

    def environment(self, *options):
        command = self.server.command("-i", self.server.key, *options)
        return {**os.environ, "GIT_SSH_COMMAND": command}

    def assert_file(self, image, path, size):
        self.assertEqual(image.listing()[path].size, size)

    def test_context(self):
        image = self.build(self.url, env=self.environment())
        self.assert_file(image, "file", len("changed\n"))
        tagged = self.build(f"{self.url}#one", dest=self.path("tagged"), env=self.environment())
        self.assert_file(tagged, "file", len("of main\n"))
        # The other form of address has no place for a port.
        short = self.build(f"{self.short}#one", dest=self.path("short"), env=self.environment("-p", str(self.server.port)))
        self.assertEqual(short.digest, tagged.digest)

    def test_add(self):
        context = self.context(f"FROM scratch\nADD {self.url}#one:sub /a/\nADD {self.url} /b/\n")
        image = self.build(context, env=self.environment())
        self.assert_file(image, "a/below", len("below\n"))
        self.assert_file(image, "b/file", len("changed\n"))
        again = self.build(context, dest=self.path("again"), env=self.environment())
        self.assertEqual(self.steps(again.result)[0], 0)
        self.assertEqual(again.digest, image.digest)

    def test_the_key_of_an_agent(self):
        self.need("ssh-agent", "ssh-add")
        agent = builders.Agent(self.directory)
        self.addCleanup(agent.close)
        environment = {**os.environ, "SSH_AUTH_SOCK": agent.socket, "GIT_SSH_COMMAND": self.server.command()}
        said = self.build_fails(41, self.url, env=environment)
        self.assertIn("Permission denied (publickey)", said)
        builders.run(["ssh-add", "-q", self.server.key], env=environment)
        self.assert_file(self.build(self.url, env=environment), "file", len("changed\n"))

    def test_the_server_lets_nobody_in(self):
        other = self.path("other")
        ssh_server.keygen(other)
        environment = {**os.environ, "GIT_SSH_COMMAND": self.server.command("-i", other)}
        said = self.build_fails(41, self.url, env=environment)
        self.assertIn("Permission denied (publickey)", said)
        self.assertIn("`ssh-agent`", said)
        context = self.context(f"FROM scratch\nADD {self.url} /\n")
        said = self.build_fails(41, context, env=environment)
        self.assertIn(f"{context}/Dockerfile:2", said)

    def test_the_server_is_not_the_one_that_is_known(self):
        with open(self.server.known_hosts, "w"):
            pass
        said = self.build_fails(41, self.url, env=self.environment())
        self.assertIn("Host key verification failed", said)

    def test_there_is_no_such_repository(self):
        said = self.build_fails(42, self.url.replace("project.git", "nothing.git"), env=self.environment())
        self.assertIn("does not appear to be a git repository", said)


class NoRoom(support.EndToEnd):
    """The cache directory is on a disk that is too small for what is fetched: it is not kept, and the build goes on."""

    SIZE = 14_000_000

    def setUp(self):
        super().setUp()
        self.cache = os.path.join(self.tmpfs("small", "10m"), "cache")
        self.write("served/.keep", "")
        self.server = serve.Server(self.path("served"))
        self.addCleanup(self.server.close)

    def tmpfs(self, name, size):
        path = self.path(name)
        os.mkdir(path)
        if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path], stderr=subprocess.DEVNULL).returncode != 0:
            self.missing("the right to mount a tmpfs")
        self.addCleanup(subprocess.run, ["umount", "-l", path])
        return path

    def large(self, name, seed=0):
        """A file that compresses well: its layer has room."""
        return self.write(name, bytes([seed]) * self.SIZE)

    def assert_warned(self, image):
        """Once, in the words of the system or of Git."""
        self.assertRegex(image.result.stderr, r"warning: what this build fetches is not kept: .*(?i:no space|out of disk ?space)")
        self.assertEqual(image.result.stderr.count("is not kept"), 1)

    def assert_not_kept(self, image):
        self.assert_warned(image)
        sources = os.path.join(self.cache, "sources")
        self.assertEqual([os.listdir(os.path.join(sources, name)) for name in ("trees", "tmp")], [[], []])
        self.verify_cache()

    def test_files(self):
        """Several that are fetched at once all have to go elsewhere."""
        lines = []
        for number in range(4):
            self.large(f"served/zeros{number}", number)
            lines.append(f"ADD {self.server.address}/zeros{number} /\n")
        image = self.build(self.context("FROM scratch\n" + "".join(lines)))
        self.assertEqual([image.listing()[f"zeros{number}"].size for number in range(4)], [self.SIZE] * 4)
        self.assert_not_kept(image)

    def archive(self):
        self.large("tree/zeros")
        self.write("tree/Dockerfile", "FROM scratch\nCOPY small /\n")
        self.write("tree/small", "small\n")
        with tarfile.open(self.path("served", "context.tar.gz"), "w:gz") as tar:
            for name in ("Dockerfile", "small", "zeros"):
                tar.add(self.path("tree", name), name)

    def test_archive_as_context(self):
        self.archive()
        image = self.build(f"{self.server.address}/context.tar.gz")
        self.assertIn("small", image.listing())
        self.assert_no_trees(image)

    def assert_no_trees(self, image):
        """The archive itself had room, what is in it not."""
        self.assert_warned(image)
        self.assertEqual(os.listdir(os.path.join(self.cache, "sources", "tmp")), [])
        self.verify_cache()

    def repository(self, content):
        self.write("tree/large", content)
        self.write("tree/Dockerfile", "FROM scratch\nCOPY small /\n")
        self.write("tree/small", "small\n")
        git(self.path("tree"), "init", "-q")
        git(self.path("tree"), "add", ".")
        git(self.path("tree"), "commit", "-q", "-m", "one")
        git(self.directory, "clone", "-q", "--bare", self.path("tree"), self.path("served", "project.git"))
        return f"{self.server.address}/project.git"

    def test_objects_of_a_repository(self):
        image = self.build(self.repository(os.urandom(self.SIZE)))
        self.assertIn("small", image.listing())
        self.assert_not_kept(image)

    def test_checkout_of_a_repository(self):
        image = self.build(self.repository(b"\1" * self.SIZE))
        self.assertIn("small", image.listing())
        self.assert_not_kept(image)

    def test_repository_for_add(self):
        context = self.context(f"FROM scratch\nADD {self.repository(b'1' * self.SIZE)} /\n")
        image = self.build(context)
        self.assertEqual(image.listing()["large"].size, self.SIZE)
        self.assert_not_kept(image)

    def test_holes_for_which_there_is_no_room(self):
        """Git writes zeros as holes; reading them must not need room."""
        context = self.context(f"FROM scratch\nADD {self.repository(bytes(self.SIZE))} /\n")
        image = self.build(context)
        self.assertEqual(image.listing()["large"].size, self.SIZE)
        self.verify_cache()

    def test_no_room_anywhere(self):
        self.large("served/zeros")
        temporary = self.tmpfs("temporary", "4m")
        context = self.context(f"FROM scratch\nADD {self.server.address}/zeros /\n")
        said = self.build_fails(None, context, env={**os.environ, "TMPDIR": temporary})
        self.assertRegex(said, "(?i)no space")
        self.assertEqual(os.listdir(temporary), [])
        self.assertEqual(os.listdir(os.path.join(self.cache, "sources", "tmp")), [])
        self.verify_cache()
