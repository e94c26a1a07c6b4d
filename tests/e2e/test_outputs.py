"""What a build's result is written as: tars, directories and images for Docker hold what the image holds."""

import hashlib
import json
import os
import shutil
import signal
import stat
import subprocess
import tarfile
import time

import builders
import cases
import images
import known_differences
import support

# Cases whose root file systems have everything that there is: links, devices, attributes, deletions.
CASES = (
    "copy-chown-chmod", "copy-special-from-stage", "run-deep-and-many", "run-hard-link-to-lower", "run-hard-links",
    "run-metadata-changes", "run-replaces-kinds", "run-special-files", "run-whiteouts",
)  # fmt: skip
KINDS = {
    stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "symlink", stat.S_IFIFO: "fifo",
    stat.S_IFCHR: "character device", stat.S_IFBLK: "block device",
}  # fmt: skip


def tar_listing(path):
    tree = {}
    with open(path, "rb") as file:
        images.apply_layer(tree, file)
    return tree


def directory_listing(root):
    """`path -> Node` of a directory, as `images` has it of a layout."""
    tree, inodes = {}, {}
    for parent, directories, files in os.walk(root):
        for name in directories + files:
            path = os.path.join(parent, name)
            status = os.lstat(path)
            inode = (status.st_dev, status.st_ino)
            if inode not in inodes:
                inodes[inode] = node_of(path, status)
            tree[os.path.relpath(path, root)] = inodes[inode]
    return tree


def node_of(path, status):
    node = images.Node(KINDS[stat.S_IFMT(status.st_mode)], stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)
    if node.type == "file":
        with open(path, "rb") as file:
            node.sha256 = hashlib.sha256(file.read()).hexdigest()
        node.size = status.st_size
    elif node.type == "symlink":
        node.target = os.readlink(path)
    elif node.type.endswith("device"):
        node.device = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
    if node.type in ("file", "directory"):
        node.xattrs = {name: os.getxattr(path, name).hex() for name in os.listxattr(path)}
    return node


def owned(tree, uid, gid):
    """The listing with another owner; hard links stay together."""
    copies = {id(node): images.dataclasses.replace(node, uid=uid, gid=gid) for node in tree.values()}
    return {path: copies[id(node)] for path, node in tree.items()}


class Files(support.EndToEnd):
    """Root file systems as a tar and as a directory."""

    def export(self, recipe, *outputs):
        """One build with all outputs besides the layout; returns the image."""
        product = support.shared(builders.Memobuild, support.BINARY)
        return product.build(recipe, *[word for output in outputs for word in ("-o", output)])

    def test_tar_and_directory_hold_what_the_image_holds(self):
        for name in CASES:
            with self.subTest(name):
                recipe = cases.Case(name).recipe(self.directory)
                tar, directory = self.path(f"{name}.tar"), self.path(f"{name}.directory")
                image = self.export(recipe, f"type=tar,dest={tar}", directory)
                self.assertEqual(images.compare_trees(image.listing(), tar_listing(tar)), [])
                expected = owned(image.listing(), os.geteuid(), os.getegid())
                self.assertEqual(images.compare_trees(expected, directory_listing(directory)), [])

    def test_times_and_order(self):
        context = self.context("FROM busybox\nRUN mkdir /z && echo 1 > /z/one && ln -s one /z/link\n")
        self.memobuild("build", *self.base_options(), "-o", f"type=tar,dest={self.path('a.tar')}", "-o", self.path("a"), context)
        with tarfile.open(self.path("a.tar")) as tar:
            members = tar.getmembers()
        paths = [member.name.split("/") for member in members]
        self.assertEqual(paths, sorted(paths))
        for member in members:
            self.assertEqual(os.lstat(self.path("a", member.name)).st_mtime, member.mtime, member.name)

    def test_equal_builds_give_equal_tars(self):
        context = self.context("FROM busybox\nRUN mkdir /z && echo 1 > /z/one\n")
        for name in ("one", "two"):
            words = ["build", *self.base_options(), "--no-cache", "-o", f"type=tar,dest={self.path(name)}", context]
            self.memobuild(*words, cache=self.path(f"cache-{name}"))
        with open(self.path("one"), "rb") as one, open(self.path("two"), "rb") as two:
            self.assertEqual(one.read(), two.read())

    def test_a_directory_again_and_again(self):
        """An earlier result is replaced, whatever it was; a planted symlink leads nowhere."""
        victim = self.write("outside/victim", "safe")
        out = self.path("out")
        first = self.context("FROM scratch\nCOPY f /d/\nCOPY links /\n", {"f": "one", "links/file": ""})
        os.symlink(os.path.dirname(victim), os.path.join(first, "links", "link"))
        self.memobuild("build", "-o", out, first)
        self.assertTrue(os.path.islink(os.path.join(out, "link")))
        second = self.context("FROM scratch\nCOPY f /d\nCOPY f /link/victim\n", {"f": "two"}, name="second")
        self.memobuild("build", "-o", out, second)
        self.assertEqual(sorted(directory_listing(out)), ["d", "file", "link", "link/victim"])
        with open(victim) as file:
            self.assertEqual(file.read(), "safe")

    def test_an_unprivileged_user_gets_files_of_their_own(self):
        user = support.unprivileged_user()
        if user is None:
            self.missing("a user to be")
        name, uid, gid = user
        context = self.context("FROM scratch\nCOPY --chown=1234:5678 --chmod=4750 f /d/\n", {"f": "x"})
        os.chown(self.directory, uid, gid)
        command = self.command("build", "-o", self.path("out"), "-o", f"type=tar,dest={self.path('a.tar')}", context)
        builders.run(["setpriv", "--reuid", uid, "--regid", gid, "--clear-groups", *command], env={**os.environ, "HOME": self.directory})
        made = os.stat(self.path("out/d/f"))
        self.assertEqual((made.st_uid, made.st_gid, stat.S_IMODE(made.st_mode)), (uid, gid, 0o4750))
        inside = tar_listing(self.path("a.tar"))["d/f"]
        self.assertEqual((inside.uid, inside.gid, inside.mode), (1234, 5678, 0o4750))

    def test_devices_need_root_or_a_tar(self):
        user = support.unprivileged_user()
        if user is None:
            self.missing("a user to be")
        _, uid, gid = user
        context = self.context("FROM scratch\nADD devices.tar /\n")
        with tarfile.open(os.path.join(context, "devices.tar"), "w") as tar:
            member = tarfile.TarInfo("null")
            member.type, member.devmajor, member.devminor, member.mode = tarfile.CHRTYPE, 1, 3, 0o666
            tar.addfile(member)
        os.chown(self.directory, uid, gid)
        user = ["setpriv", "--reuid", str(uid), "--regid", str(gid), "--clear-groups"]
        environment = {**os.environ, "HOME": self.directory}
        command = self.command("build", "-o", f"type=tar,dest={self.path('a.tar')}", context)
        builders.run([*user, *command], env=environment)
        self.assertEqual(tar_listing(self.path("a.tar"))["null"].device, "1:3")
        command = self.command("build", "-o", self.path("out"), context)
        result = builders.run([*user, *command], env=environment, check=False)
        self.assertEqual(result.returncode, 41, result.stderr)
        self.assertIn("can't create the device `/null`", result.stderr)
        self.assertFalse(os.path.exists(self.path("out")))

    def test_memory_is_bounded(self):
        context = self.context("FROM busybox\nRUN head -c 100000000 /dev/urandom > /big && cp /big /again\n")
        self.memobuild("build", *self.base_options(), "-o", "type=cacheonly", context)
        for output in (f"type=tar,dest={self.path('a.tar')}", self.path("out")):
            words = self.command("build", *self.base_options(), "-o", output, context)
            process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            self.assertEqual(process.returncode, 0)
            self.assertLess(usage.ru_maxrss, 130_000, f"{output}: KiB of memory")
        self.assertEqual(os.path.getsize(self.path("out/big")), 100_000_000)

    def test_an_interruption_leaves_nothing(self):
        context = self.context("FROM busybox\nRUN head -c 3000000 /dev/urandom > /big\n")
        self.memobuild("build", *self.base_options(), "-o", "type=cacheonly", context)
        # Nobody reads the first output: the build waits there, and the second is never begun.
        process = self.start("build", *self.base_options(), "-o", "-", "-o", self.path("out"), context)
        self.wait_for_line(process.stderr, "hit")
        time.sleep(0.5)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(20), 130)
        self.assertLess(time.monotonic() - began, 5)
        self.assertFalse(os.path.exists(self.path("out")))
        self.assertEqual([name for name in os.listdir(self.directory) if name.startswith(".tmp")], [])


class Docker(support.EndToEnd):
    """Images for Docker."""

    DOCKERFILE = 'FROM busybox\nRUN echo made > /made && chown 1000:50 /made\nCOPY f /\nENTRYPOINT ["cat", "/made"]\n'

    def made(self, *options):
        context = self.context(self.DOCKERFILE, {"f": "f"})
        return self.build(context, "-t", "example/app:1.0", *options)

    def manifest(self, archive):
        with tarfile.open(archive) as tar:
            return json.load(tar.extractfile("manifest.json"))

    def test_skopeo_reads_the_archive(self):
        self.need("skopeo")
        for number, options in enumerate(("", ",oci-mediatypes=false", ",compression=uncompressed", ",compression=gzip,compression-level=9")):
            archive = self.path(f"{number}.tar")
            image = self.made("-o", f"type=docker,dest={archive}{options}")
            copy = self.path(f"copy-{number}")
            builders.run(["skopeo", "--insecure-policy", "copy", "-q", f"docker-archive:{archive}:docker.io/example/app:1.0", f"oci:{copy}:it"])
            self.assertEqual(images.compare_trees(image.listing(), images.Image(copy).listing()), [])
            builders.run(["skopeo", "inspect", f"oci-archive:{archive}"])
            [entry] = self.manifest(archive)
            self.assertEqual(entry["RepoTags"], ["example/app:1.0"])

    def test_layers_of_the_base_image_in_zstd_become_gzip(self):
        """The layout that is the base here has zstd layers, as this program makes them."""
        base = self.made().layout
        context = self.context("FROM base\nCOPY f /g\n", {"f": "g"}, name="on-top")
        for number, (options, kinds) in enumerate([
            ("type=docker", {"gzip"}),
            ("type=oci", {"zstd"}),
            ("type=oci,compression=gzip", {"zstd", "gzip"}),
            ("type=oci,compression=gzip,force-compression=true", {"gzip"}),
            ("type=oci,oci-mediatypes=false", {"gzip"}),
        ]):  # fmt: skip
            dest = self.path(f"image-{number}")
            words = ["build", "--build-context", f"base=oci-layout://{base}", "-o", f"{options},tar=false,dest={dest}", context]
            self.memobuild(*words)
            image = images.Image(dest)
            # The busybox layer below is gzip.
            found = {layer["mediaType"].replace(".", "+").rsplit("+", 1)[1] for layer in image.layers[1:]}
            self.assertEqual(found, kinds, options)
            self.assertIn("g", image.listing())

    def test_load_pipes_the_archive_into_docker(self):
        self.write("bin/docker", f"""
            #!/bin/sh
            echo "$@" >> {self.path('calls')}
            case " $* " in *" load ") cat > {self.path('loaded.tar')};; esac
            """, mode=0o755)  # fmt: skip
        environment = dict(os.environ, PATH=self.path("bin") + ":" + os.environ["PATH"])
        context = self.context(self.DOCKERFILE, {"f": "f"})
        said = self.memobuild("build", *self.base_options(), "--load", "-q", "-t", "app", context, env=environment)
        [entry] = self.manifest(self.path("loaded.tar"))
        self.assertEqual(entry["RepoTags"], ["app:latest"])
        self.assertEqual(said.stdout.strip(), "sha256:" + os.path.basename(entry["Config"]))
        self.memobuild("build", *self.base_options(), "-o", "type=docker,context=far", context, env=environment)
        with open(self.path("calls")) as file:
            calls = file.read().splitlines()
        self.assertEqual(calls, [
            "version --format {{.Server.Version}}", "load", "--context far version --format {{.Server.Version}}", "--context far load",
        ])  # fmt: skip

    def test_what_docker_says_is_told(self):
        context = self.context(self.DOCKERFILE, {"f": "f"})
        for script, exit, told in [
            ("echo no daemon >&2; exit 1", 42, "no daemon"),
            ('[ "$1" = version ] || { echo no space left >&2; exit 1; }', 1, "no space left"),
        ]:
            self.write("bin/docker", "#!/bin/sh\n" + script, mode=0o755)
            environment = dict(os.environ, PATH=self.path("bin") + ":" + os.environ["PATH"])
            result = self.memobuild("build", *self.base_options(), "--load", context, exit=exit, env=environment)
            self.assertIn(told, result.stderr)
            self.assertIn("hint: write a file with `-o type=docker,dest=FILE`", result.stderr)
            # Without a daemon nothing is built in vain.
            self.assertEqual("RUN" in result.stderr, exit != 42)


def add_comparisons():
    """A live BuildKit is compared where it is at hand; the recordings have no directories and tars."""
    if not (builders.Buildkit.available() and os.environ.get("MEMOBUILD_TEST_BUILDKIT")):
        return
    for name in CASES:
        for kind, listing in (("tar", tar_listing), ("local", directory_listing)):

            def test(self, name=name, kind=kind, listing=listing):
                recipe = cases.Case(name).recipe(self.directory)
                ours, theirs = self.path("ours"), self.path("theirs")
                self.export(recipe, f"type={kind},dest={ours}")
                support.shared(builders.Buildkit).build_only(recipe, f"--output=type={kind},dest={theirs}")
                found = images.compare_trees(listing(ours), listing(theirs))
                self.assertEqual(known_differences.unexplained(found, name, "memobuild", "buildkit"), [])

            setattr(Files, f"test_{name.replace('-', '_')}_as_{kind}_of_buildkit", test)


def add_docker():
    """A real Docker daemon, where the program is at hand: no job of ours has one."""
    if not (shutil.which("dockerd") and shutil.which("docker") and os.geteuid() == 0):
        return

    def test_docker_loads_and_runs_the_image(self):
        socket = f"unix://{self.path('docker.sock')}"
        daemon = subprocess.Popen(
            [
                "dockerd", "-H", socket, "--data-root", self.path("data"), "--exec-root", self.path("exec"), "-p", self.path("pid"),
                "--iptables=false", "--ip-masq=false", "--bridge=none", "--storage-driver=vfs",
            ],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        self.addCleanup(daemon.wait)
        self.addCleanup(daemon.terminate)
        docker = ["docker", "-H", socket]
        deadline = time.monotonic() + 60
        while builders.run([*docker, "version"], check=False).returncode != 0:
            self.assertTrue(time.monotonic() < deadline and daemon.poll() is None, "dockerd doesn't answer")
            time.sleep(0.1)
        environment = dict(os.environ, DOCKER_HOST=socket)
        context = self.context(self.DOCKERFILE, {"f": "f"})
        said = self.memobuild("build", *self.base_options(), "--load", "-q", "-t", "example/app:1.0", context, env=environment)
        id_of = builders.run([*docker, "inspect", "--format", "{{.Id}}", "example/app:1.0"]).stdout
        self.assertEqual(said.stdout, id_of)
        self.assertEqual(builders.run([*docker, "run", "--rm", "--network=none", "example/app:1.0"]).stdout, "made\n")
        self.made("-o", f"type=docker,dest={self.path('a.tar')}")
        self.assertIn("example/app:1.0", builders.run([*docker, "load", "-i", self.path("a.tar")]).stdout)

    Docker.test_docker_loads_and_runs_the_image = test_docker_loads_and_runs_the_image


add_comparisons()
add_docker()
