"""A cache service of Actions on loopback, in both versions of its protocol, as far as clients see it.

`test_actions_client.py` holds it against the npm package `@actions/cache`, which runners' actions use.

| path | what |
|---|---|
| `/twirp/github.actions.results.api.v1.CacheService/METHOD` | version 2: `CreateCacheEntry`, `FinalizeCacheEntryUpload`, `GetCacheEntryDownloadURL` |
| `/_apis/artifactcache/cache`, `…/caches`, `…/caches/ID` | version 1 |
| `/bytes/ID?sig=SIGNATURE` | where bytes go and come from: block blobs as Azure has them, and no token |
"""

import hmac
import http.server
import json
import re
import secrets
import threading
import urllib.parse
import xml.etree.ElementTree

TWIRP = "/twirp/github.actions.results.api.v1.CacheService/"
FIRST = "/_apis/artifactcache/"


class Object:
    """What stands under a key and a version; never changes once it is done."""

    def __init__(self, number, key, version):
        self.number, self.key, self.version = number, key, version
        self.signature = secrets.token_hex(8)
        self.done = False
        self.pieces = {}
        self.bytes = b""


class Service:
    """Listens on `port` until `close`. Taken keys are answered with the status `taken` in version 1."""

    def __init__(self, taken=409):
        # Its form is that of a JWT, which clients take apart.
        self.token = ".".join(["eyJhbGciOiJub25lIn0", "eyJhYyI6IltdIn0", secrets.token_hex(8)])
        self.taken = taken
        # Ports of proxies that clients speak TLS with.
        self.secure = set()
        self.objects = []
        self.requests = []
        self.lock = threading.Lock()
        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.http.service = self
        self.port = self.http.server_address[1]
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    def close(self):
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()

    def environment(self, version, port=None, scheme="http"):
        """What a runner gives to its actions, for clients that come by way of `port`."""
        url = f"{scheme}://127.0.0.1:{port or self.port}/"
        if scheme == "https":
            self.secure.add(port)
        variables = {"ACTIONS_RUNTIME_TOKEN": self.token}
        if version == 1:
            return variables | {"ACTIONS_CACHE_URL": url}
        return variables | {"ACTIONS_RESULTS_URL": url, "ACTIONS_CACHE_SERVICE_V2": "true"}

    def keys(self):
        with self.lock:
            return [object.key for object in self.objects if object.done]

    def reserve(self, key, version):
        """A new object, or None if the key is taken, be it by one that was never finished."""
        with self.lock:
            if any((object.key, object.version) == (key, version) for object in self.objects):
                return None
            self.objects.append(Object(len(self.objects) + 1, key, version))
            return self.objects[-1]

    def find(self, keys, version):
        """The object under the first key, or the newest whose key begins with one of them, in their order."""
        with self.lock:
            ready = [object for object in reversed(self.objects) if object.done and object.version == version]
        for same in (lambda object: object.key == keys[0], *(lambda object, key=key: object.key.startswith(key) for key in keys)):
            for object in filter(same, ready):
                return object
        return None

    def numbered(self, number):
        with self.lock:
            return self.objects[number - 1] if 0 < number <= len(self.objects) else None


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def handle(self):
        try:
            super().handle()
        except ConnectionError:
            pass

    def body(self):
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def say(self, status, body=b"", headers=None):
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
        self.send_response(status)
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body))} | (headers or {})
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def answer(self):
        url = urllib.parse.urlsplit(self.path)
        self.query = dict(urllib.parse.parse_qsl(url.query))
        body = self.body()
        self.server.service.requests.append(f"{self.command} {url.path}")
        if url.path.startswith("/bytes/"):
            return self.store(url.path.removeprefix("/bytes/"), body)
        if not hmac.compare_digest(self.headers.get("Authorization", ""), f"Bearer {self.server.service.token}"):
            return self.say(401, {"code": "unauthenticated", "msg": "the token is not that of a job"})
        if url.path.startswith(TWIRP):
            return self.second(url.path.removeprefix(TWIRP), json.loads(body))
        if url.path.startswith(FIRST):
            return self.first(url.path.removeprefix(FIRST), body)
        return self.say(404, {"code": "bad_route", "msg": url.path})

    do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = answer

    def address(self, object):
        """Where the object's bytes are, on the way that the client came."""
        host = self.headers["Host"]
        scheme = "https" if int(host.rpartition(":")[2]) in self.server.service.secure else "http"
        return f"{scheme}://{host}/bytes/{object.number}?sv=2025&sig={object.signature}"

    def second(self, method, sent):
        service = self.server.service
        key, version = sent["key"], sent["version"]
        if method == "CreateCacheEntry":
            object = service.reserve(key, version)
            if not object:
                return self.say(409, {"code": "already_exists", "msg": f"cache entry `{key}` already exists"})
            return self.say(200, {"ok": True, "signed_upload_url": self.address(object)})
        if method == "FinalizeCacheEntryUpload":
            objects = [o for o in service.objects if (o.key, o.version) == (key, version)]
            size = int(sent.get("size_bytes") or sent.get("sizeBytes") or 0)
            if not objects or len(objects[0].bytes) != size:
                return self.say(400, {"code": "invalid_argument", "msg": "another size was sent"})
            objects[0].done = True
            return self.say(200, {"ok": True, "entry_id": str(objects[0].number)})
        if method == "GetCacheEntryDownloadURL":
            object = service.find([key, *(sent.get("restore_keys") or sent.get("restoreKeys") or [])], version)
            if not object:
                return self.say(200, {"ok": False})
            return self.say(200, {"ok": True, "signed_download_url": self.address(object), "matched_key": object.key})
        return self.say(404, {"code": "bad_route", "msg": method})

    def first(self, path, body):
        service = self.server.service
        if path == "cache":
            object = service.find(self.query["keys"].split(","), self.query["version"])
            if not object:
                return self.say(204)
            return self.say(200, {"archiveLocation": self.address(object), "cacheKey": object.key, "scope": "refs/heads/main"})
        if path == "caches" and self.command == "POST":
            sent = json.loads(body)
            object = service.reserve(sent["key"], sent["version"])
            if not object:
                return self.say(service.taken, {"message": "a cache of this key exists already"})
            return self.say(201, {"cacheId": object.number})
        found = re.fullmatch(r"caches/(\d+)", path)
        object = found and service.numbered(int(found[1]))
        if not object:
            return self.say(404, {"message": path})
        if self.command == "PATCH":
            start = int(re.match(r"bytes (\d+)-", self.headers["Content-Range"])[1])
            object.pieces[start] = body
            return self.say(204)
        whole = b"".join(piece for _, piece in sorted(object.pieces.items()))
        if len(whole) != json.loads(body)["size"]:
            return self.say(400, {"message": "another size was sent"})
        object.bytes, object.done = whole, True
        return self.say(204)

    def store(self, name, body):
        """Bytes: of a client that knows the signature and shows no token."""
        object = self.server.service.numbered(int(name))
        headers = {"x-ms-request-id": secrets.token_hex(8), "x-ms-version": "2025-01-05", "ETag": '"1"', "Content-Type": "application/octet-stream"}
        if not object or self.query.get("sig") != object.signature or "Authorization" in self.headers:
            return self.say(403, b"", headers)
        if self.command == "PUT":
            if object.done:
                return self.say(409, b"", headers)
            if self.query.get("comp") == "block":
                object.pieces[self.query["blockid"]] = body
            elif self.query.get("comp") == "blocklist":
                object.bytes = b"".join(object.pieces[part.text] for part in xml.etree.ElementTree.fromstring(body))
            elif self.headers.get("x-ms-blob-type") == "BlockBlob":
                object.bytes = body
            else:
                return self.say(400, b"", headers)
            return self.say(201, b"", headers)
        wanted = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("x-ms-range") or self.headers.get("Range") or "")
        if not wanted:
            return self.say(200, object.bytes, headers)
        first, last = int(wanted[1]), min(int(wanted[2] or len(object.bytes)), len(object.bytes) - 1)
        if first > last:
            return self.say(416, b"", headers | {"Content-Range": f"bytes */{len(object.bytes)}"})
        return self.say(206, object.bytes[first : last + 1], headers | {"Content-Range": f"bytes {first}-{last}/{len(object.bytes)}"})
