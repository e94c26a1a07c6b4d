"""A server on loopback for what builds fetch: files over HTTP and Git repositories over smart HTTP.

| path | answer |
|---|---|
| `/PATH` | the file, with `ETag` and `Last-Modified`; 304 when the client has it |
| `/NAME.git/…` | Git's smart protocol for the bare repository |
| `/redirect/PATH` | 302 to `/PATH` |
| `/named/FILENAME/PATH` | the file with `Content-Disposition: attachment; filename=FILENAME` |
| `/token/TOKEN/PATH` | `/PATH` for who sends TOKEN as a bearer token or a basic password, else 401 |
| `/no-validators/PATH` | the file without `ETag` and `Last-Modified` |
"""

import base64
import contextlib
import email.utils
import hashlib
import http.server
import os
import posixpath
import shutil
import subprocess
import threading
import urllib.parse

# Modification time of all served files: 2024-02-03 04:05:06 UTC.
MTIME = 1706933106


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def handle(self):
        # Who has no room for an answer hangs up.
        with contextlib.suppress(ConnectionError):
            super().handle()

    def do_GET(self):
        self.answer()

    def do_HEAD(self):
        self.answer()

    def do_POST(self):
        self.answer()

    def answer(self):
        url = urllib.parse.urlsplit(self.path)
        self.server.requests.append(f"{self.command} {self.path}")
        path, headers, validators = url.path, {}, True
        while True:
            first, _, rest = path.lstrip("/").partition("/")
            if first == "redirect":
                return self.say(302, b"", {"Location": "/" + rest})
            if first == "named":
                name, _, path = rest.partition("/")
                headers["Content-Disposition"] = f'attachment; filename="{urllib.parse.unquote(name)}"'
            elif first == "token":
                token, _, path = rest.partition("/")
                if token not in self.tokens():
                    return self.say(401, b"a token is needed\n", {"WWW-Authenticate": 'Basic realm="test"'})
            elif first == "no-validators":
                path, validators = rest, False
            else:
                break
        path = "/" + posixpath.normpath(urllib.parse.unquote(path)).lstrip("/")
        if ".git/" in path + "/":
            return self.git(path, url.query)
        return self.file(os.path.join(self.server.root, path.lstrip("/")), headers, validators)

    def tokens(self):
        """What the client may have sent as its token."""
        kind, _, value = self.headers.get("Authorization", "").partition(" ")
        if kind.lower() != "basic":
            return [value]
        return base64.b64decode(value).decode().split(":", 1)[1:]

    def say(self, status, body, headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status != 304:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def file(self, path, headers, validators):
        if self.command == "POST" or not os.path.isfile(path):
            return self.say(404, b"not found\n", headers)
        with open(path, "rb") as file:
            body = file.read()
        etag = '"' + hashlib.sha256(body).hexdigest()[:32] + '"'
        if validators:
            modified = email.utils.formatdate(os.stat(path).st_mtime, usegmt=True)
            headers |= {"ETag": etag, "Last-Modified": modified}
            if etag in self.headers.get("If-None-Match", ""):
                return self.say(304, b"", headers)
        return self.say(200, body, {"Content-Type": "application/octet-stream", **headers})

    def body(self):
        """The request's body, sent whole or in chunks."""
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(parts)

    def git(self, path, query):
        environment = git_environment() | {
            "GIT_PROJECT_ROOT": self.server.root,
            "GIT_HTTP_EXPORT_ALL": "1",
            "REQUEST_METHOD": self.command,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "REMOTE_ADDR": "127.0.0.1",
        }
        body = self.body()
        result = subprocess.run(["git", "http-backend"], input=body, env=environment, stdout=subprocess.PIPE, check=False)
        head, _, answer = result.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line)
        status = int(headers.pop("Status", "200").split()[0])
        self.say(status, answer, headers)


class Server:
    """Serves a directory until `close`; `address` is its URL and `requests` what was asked."""

    def __init__(self, root):
        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.http.root = os.path.abspath(root)
        self.http.requests = self.requests = []
        self.address = f"http://127.0.0.1:{self.http.server_address[1]}"
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    def close(self):
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def git_environment():
    """An environment in which the same commands make the same commits, whatever the machine's configuration."""
    keep = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    settings = {"init.defaultBranch": "main", "safe.directory": "*", "protocol.file.allow": "always", "gc.auto": "0"}
    numbered = {}
    for number, (key, value) in enumerate(settings.items()):
        numbered |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    who = {}
    for role in ("AUTHOR", "COMMITTER"):
        who |= {f"GIT_{role}_NAME": "Test", f"GIT_{role}_EMAIL": "test@example.com", f"GIT_{role}_DATE": f"{MTIME} +0000"}
    return keep | who | numbered | {
        "GIT_CONFIG_COUNT": str(len(settings)),
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_SYSTEM": "/dev/null",
        "GIT_TERMINAL_PROMPT": "0",
    }  # fmt: skip


def prepare(source, script, directory):
    """Copies what is to be served, runs the script in the copy, and gives all files one time."""
    if source and os.path.isdir(source):
        shutil.copytree(source, directory, symlinks=True)
    else:
        os.makedirs(directory)
    if script and os.path.exists(script):
        subprocess.run(["sh", script], cwd=directory, env=git_environment(), check=True, umask=0o022, stdout=subprocess.DEVNULL)
    for parent, _, files in os.walk(directory):
        for name in files:
            os.utime(os.path.join(parent, name), (MTIME, MTIME), follow_symlinks=False)
