"""Debian's SSH server on loopback, for one unprivileged user and one key, without a service or a privileged port.

Each connection gets an `sshd -i` of its own, which runs as the user and can let in nobody else.
"""

import os
import shutil
import socket
import subprocess
import threading

import builders

PACKAGES = os.path.join(builders.CACHE, "packages")


def program():
    """The path of `sshd`, the machine's or the unpacked one; None without."""
    return shutil.which("sshd", path=os.environ["PATH"] + ":/usr/sbin:" + os.path.join(PACKAGES, "usr", "sbin"))


def keygen(path):
    builders.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", path])
    with open(f"{path}.pub") as file:
        return file.read()


class Server:
    """Serves until `close`; `port` is its port, `key` the file of the key that it lets in, `log` that of what it says.

    `directory` is one that `user` (name, uid, gid) owns. Run by root, the server changes to the user.
    """

    def __init__(self, directory, user):
        self.name, self.uid, self.gid = user
        self.directory, self.log = directory, os.path.join(directory, "log")
        self.program, self.parts = program(), "/usr/lib/openssh"
        self.environment = {"PATH": os.environ["PATH"]}
        if self.program.startswith(PACKAGES):
            # The user may not be let into the cache of whoever runs the tests.
            usr = os.path.join(directory, "usr")
            for part in ("sbin", "lib"):
                shutil.copytree(os.path.join(PACKAGES, "usr", part), os.path.join(usr, part), symlinks=True)
            self.program, self.parts = os.path.join(usr, "sbin", "sshd"), os.path.join(usr, "lib", "openssh")
            self.environment["LD_LIBRARY_PATH"] = os.path.join(usr, "lib", f"{os.uname().machine}-linux-gnu")
        self.key = os.path.join(directory, "key")
        known = keygen(os.path.join(directory, "host"))
        with open(os.path.join(directory, "authorized"), "w") as file:
            file.write(keygen(self.key))
        with open(os.path.join(directory, "config"), "w") as file:
            file.write(self.config())
        for name in ("host", "authorized", "config"):
            os.chown(os.path.join(directory, name), self.uid, self.gid)
        builders.run(self.words("-t"), **self.as_user())
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.known_hosts = os.path.join(directory, "known")
        with open(self.known_hosts, "w") as file:
            file.write(f"[127.0.0.1]:{self.port} {known}")
        self.served = []
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def config(self):
        lines = [
            f"HostKey {self.directory}/host",
            f"AuthorizedKeysFile {self.directory}/authorized",
            f"AllowUsers {self.name}",
            "AuthenticationMethods publickey",
            # The work directory is below one that all may write to.
            "StrictModes no",
            "UsePAM no",
            "PidFile none",
        ]
        # Since OpenSSH 9.8 parts of the server are programs of their own.
        for option, part in (("SshdSessionPath", "sshd-session"), ("SshdAuthPath", "sshd-auth")):
            path = os.path.join(self.parts, part)
            if os.path.exists(path):
                lines.append(f"{option} {path}")
        return "\n".join(lines) + "\n"

    def words(self, *options):
        return [self.program, "-f", os.path.join(self.directory, "config"), *options]

    def as_user(self):
        identity = {"user": self.uid, "group": self.gid, "extra_groups": []} if os.geteuid() == 0 else {}
        return {"env": self.environment, "cwd": "/", **identity}

    def serve(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection, open(self.log, "ab") as log:
                served = subprocess.Popen(self.words("-i", "-e"), stdin=connection, stdout=connection, stderr=log, **self.as_user())
            self.served.append(served)

    def command(self, *options):
        """The value of `GIT_SSH_COMMAND` that reaches the server and knows its key."""
        known = ["-F", "/dev/null", "-o", f"UserKnownHostsFile={self.known_hosts}", "-o", "StrictHostKeyChecking=yes"]
        return " ".join(["ssh", "-o", "BatchMode=yes", *known, *options])

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join()
        for served in self.served:
            served.kill()
            served.wait()
