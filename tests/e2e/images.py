"""Reads images from OCI layouts and compares them.

The root file system is put together from the layers' tars in memory, without privilege: a listing
`path -> Node`, where names that are hard links of each other share one `Node`. Times are left out
on purpose: builders stamp them differently.
"""

import contextlib
import dataclasses
import gzip
import hashlib
import io
import json
import os
import subprocess
import tarfile

MANIFESTS = {
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
}
INDEXES = {
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
}
TYPES = {
    tarfile.REGTYPE: "file",
    tarfile.AREGTYPE: "file",
    tarfile.GNUTYPE_SPARSE: "file",
    tarfile.CONTTYPE: "file",
    tarfile.DIRTYPE: "directory",
    tarfile.SYMTYPE: "symlink",
    tarfile.CHRTYPE: "character device",
    tarfile.BLKTYPE: "block device",
    tarfile.FIFOTYPE: "fifo",
}
# Trees of first layers already read, by digest and diff id: base images are in many images.
FIRST_LAYERS = {}
CONFIG_FIELDS = [
    "User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "Labels",
    "StopSignal", "Healthcheck", "Shell", "OnBuild",
]  # fmt: skip


class InvalidImage(Exception):
    """A layout that breaks the image specification."""


@dataclasses.dataclass(eq=False)
class Node:
    """One inode of the merged root file system."""

    type: str
    mode: int
    uid: int
    gid: int
    size: int = 0
    sha256: str = ""
    target: str = ""
    device: str = ""
    xattrs: dict = dataclasses.field(default_factory=dict)

    def fields(self):
        return dataclasses.asdict(self)


class Image:
    """One image of an OCI layout, with all digests and sizes checked on the way."""

    def __init__(self, layout):
        self.layout = str(layout)
        with open(os.path.join(self.layout, "oci-layout")) as file:
            if json.load(file).get("imageLayoutVersion") != "1.0.0":
                raise InvalidImage("`imageLayoutVersion` isn't 1.0.0")
        with open(os.path.join(self.layout, "index.json")) as file:
            index = json.load(file)
        self.index = index
        self.descriptor = self._pick(index)
        self.digest = self.descriptor["digest"]
        self.manifest = json.loads(self.blob(self.descriptor))
        self.config = json.loads(self.blob(self.manifest["config"]))
        self.layers = self.manifest["layers"] or []
        diff_ids = self.config["rootfs"]["diff_ids"] or []
        if len(diff_ids) != len(self.layers):
            raise InvalidImage(f"{len(self.layers)} layers, but {len(diff_ids)} diff ids")
        history = self.config.get("history", [])
        filled = sum(not entry.get("empty_layer", False) for entry in history)
        if history and filled != len(self.layers):
            raise InvalidImage(f"{len(self.layers)} layers, but {filled} history entries with a layer")
        self.tree = None

    def _pick(self, index):
        """The descriptor of the (first) image manifest, through nested indexes; attestations are passed over."""
        for descriptor in index["manifests"]:
            if descriptor.get("platform", {}).get("architecture") == "unknown":
                continue
            if descriptor["mediaType"] in MANIFESTS:
                return descriptor
            if descriptor["mediaType"] in INDEXES:
                return self._pick(json.loads(self.blob(descriptor)))
        raise InvalidImage("the index has no image manifest")

    def blob_path(self, descriptor):
        algorithm, _, digest = descriptor["digest"].partition(":")
        return os.path.join(self.layout, "blobs", algorithm, digest)

    def blob(self, descriptor):
        """A small blob, verified."""
        with open(self.blob_path(descriptor), "rb") as file:
            data = file.read()
        if len(data) != descriptor["size"]:
            raise InvalidImage(f"blob {descriptor['digest']} has {len(data)} bytes, not {descriptor['size']}")
        if "sha256:" + hashlib.sha256(data).hexdigest() != descriptor["digest"]:
            raise InvalidImage(f"blob {descriptor['digest']} has other content")
        return data

    def check_layer_file(self, descriptor):
        digest = hashlib.sha256()
        with open(self.blob_path(descriptor), "rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
            size = file.tell()
        if size != descriptor["size"] or "sha256:" + digest.hexdigest() != descriptor["digest"]:
            raise InvalidImage(f"layer {descriptor['digest']} doesn't match its descriptor")

    @contextlib.contextmanager
    def layer_tar(self, descriptor):
        """The layer's tar as a stream that counts its diff id: `(stream, digest function)`."""
        path, kind = self.blob_path(descriptor), descriptor["mediaType"]
        self.check_layer_file(descriptor)
        if kind.endswith("zstd"):
            process = subprocess.Popen(["zstd", "-dcq", path], stdout=subprocess.PIPE)
            stream = Hashing(process.stdout)
            yield stream
            stream.drain()
            process.stdout.close()
            if process.wait() != 0:
                raise InvalidImage(f"layer {descriptor['digest']} isn't zstd")
        elif kind.endswith("gzip"):
            with gzip.open(path) as plain:
                stream = Hashing(plain)
                yield stream
                stream.drain()
        elif kind.endswith("tar"):
            with open(path, "rb") as plain:
                stream = Hashing(plain)
                yield stream
                stream.drain()
        else:
            raise InvalidImage(f"unknown layer media type `{kind}`")

    def listing(self):
        """`path -> Node` of the root file system (paths without leading slash, the root is absent unless a layer has it)."""
        if self.tree is None:
            tree, below = {}, ()
            for descriptor, diff_id in zip(self.layers, self.config["rootfs"]["diff_ids"] or []):
                below += ((descriptor["digest"], diff_id),)
                if below in FIRST_LAYERS:
                    self.check_layer_file(descriptor)
                    tree = dict(FIRST_LAYERS[below])
                    continue
                with self.layer_tar(descriptor) as stream:
                    apply_layer(tree, stream)
                if stream.digest() != diff_id:
                    raise InvalidImage(f"layer {descriptor['digest']} unpacks to {stream.digest()}, not {diff_id}")
                if len(below) == 1:
                    FIRST_LAYERS[below] = dict(tree)
            self.tree = tree
        return self.tree

    def run_config(self):
        """The config fields that say how to run the image; empty values are left out."""
        config = self.config.get("config") or {}
        fields = {name: config[name] for name in CONFIG_FIELDS if config.get(name)}
        fields["architecture"] = self.config["architecture"]
        fields["os"] = self.config["os"]
        return fields


class Hashing(io.RawIOBase):
    """Passes reads on and hashes what went through."""

    def __init__(self, inner):
        self.inner = inner
        self.hash = hashlib.sha256()

    def readable(self):
        return True

    def read(self, size=-1):
        data = self.inner.read(size)
        self.hash.update(data)
        return data

    def drain(self):
        while self.read(1 << 20):
            pass

    def digest(self):
        return "sha256:" + self.hash.hexdigest()


def clean(name):
    return os.path.normpath("/" + name).lstrip("/")


def remove(tree, path, with_self=True):
    """Takes a path and everything below it out of the tree."""
    prefix = path + "/" if path else ""
    for name in [name for name in tree if name.startswith(prefix) and name != ""]:
        del tree[name]
    if with_self:
        tree.pop(path, None)


def apply_layer(tree, stream):
    """Applies one layer's changeset to the tree, as the image specification tells it."""
    added = set()
    with tarfile.open(fileobj=stream, mode="r|") as tar:
        for member in tar:
            path = clean(member.name)
            parent, base = os.path.split(path)
            if base == ".wh..wh..opq":
                for name in [name for name in tree if name.startswith(parent + "/" if parent else "") and name]:
                    if name not in added:
                        del tree[name]
                continue
            if base.startswith(".wh."):
                hidden = os.path.join(parent, base[4:])
                if hidden not in added:
                    remove(tree, hidden)
                continue
            for ancestor in ancestors(path):
                node = tree.get(ancestor)
                if node is not None and node.type != "directory":
                    raise InvalidImage(f"layer entry `{path}` lies below `{ancestor}`, which is a {node.type}")
                if node is None:
                    tree[ancestor] = Node("directory", 0o755, 0, 0)
            added.add(path)
            if member.islnk():
                target = tree.get(clean(member.linkname))
                if target is None:
                    raise InvalidImage(f"hard link `{path}` to `{member.linkname}`, which isn't there")
                remove(tree, path)
                tree[path] = target
                continue
            node = make_node(tar, member)
            if not (node.type == "directory" and path in tree and tree[path].type == "directory"):
                remove(tree, path)
            tree[path] = node


def ancestors(path):
    parts = path.split("/")[:-1]
    return ["/".join(parts[: n + 1]) for n in range(len(parts))]


def make_node(tar, member):
    kind = TYPES.get(member.type)
    if kind is None:
        raise InvalidImage(f"layer entry `{member.name}` has the unknown type {member.type!r}")
    xattrs = {}
    for key, value in member.pax_headers.items():
        if key.startswith("SCHILY.xattr."):
            xattrs[key[len("SCHILY.xattr.") :]] = value.encode("utf-8", "surrogateescape").hex()
    node = Node(kind, member.mode & 0o7777, member.uid, member.gid, xattrs=xattrs)
    if kind == "file":
        digest = hashlib.sha256()
        content = tar.extractfile(member)
        while chunk := content.read(1 << 20):
            digest.update(chunk)
            node.size += len(chunk)
        node.sha256 = digest.hexdigest()
    elif kind == "symlink":
        node.target = member.linkname
        node.mode = 0o777
    elif kind.endswith("device"):
        node.device = f"{member.devmajor}:{member.devminor}"
    return node


def link_groups(tree):
    """path -> the sorted names of its inode, for inodes with several names."""
    names = {}
    for path, node in tree.items():
        names.setdefault(id(node), []).append(path)
    return {path: sorted(group) for group in names.values() if len(group) > 1 for path in group}


@dataclasses.dataclass(frozen=True)
class Difference:
    """One field of one path (or of the config) that differs: values of the left and of the right image."""

    path: str
    field: str
    left: object
    right: object

    def __str__(self):
        return f"{self.path}: {self.field}: {self.left!r} -> {self.right!r}"


def compare_trees(left, right):
    differences = []
    left_links, right_links = link_groups(left), link_groups(right)
    for path in sorted(set(left) | set(right)):
        name = "/" + path
        if path not in left or path not in right:
            kinds = [tree[path].type if path in tree else None for tree in (left, right)]
            differences.append(Difference(name, "presence", *kinds))
            continue
        one, other = left[path].fields(), right[path].fields()
        for field in one:
            if one[field] != other[field]:
                differences.append(Difference(name, field, one[field], other[field]))
        if left_links.get(path) != right_links.get(path):
            differences.append(Difference(name, "hard links", left_links.get(path), right_links.get(path)))
    return differences


def compare_configs(left, right):
    return [
        Difference("config", field, left.get(field), right.get(field))
        for field in sorted(set(left) | set(right))
        if left.get(field) != right.get(field)
    ]


def compare(left, right):
    """All differences between two images' root file systems and configs."""
    return compare_configs(left.run_config(), right.run_config()) + compare_trees(left.listing(), right.listing())


def record(image, base):
    """What the image is relative to its base, as JSON that `patched` turns back into a listing."""
    tree, under = image.listing(), base.listing() if base else {}
    changed, links = {}, link_groups(tree)
    for path, node in tree.items():
        if path not in under or under[path].fields() != node.fields():
            changed[path] = {name: value for name, value in node.fields().items() if value not in ("", {}) and (name, value) != ("size", 0)}
    groups = sorted({tuple(group) for group in links.values() if any(path in changed for path in group)})
    return {
        "config": image.run_config(),
        "changed": dict(sorted(changed.items())),
        "removed": sorted(set(under) - set(tree)),
        "links": [list(group) for group in groups],
    }


def patched(recorded, base):
    """The listing and config that a recording stands for, on top of today's base image."""
    tree = dict(base.listing()) if base else {}
    for path in recorded["removed"]:
        tree.pop(path, None)
    for path, fields in recorded["changed"].items():
        tree[path] = Node(**fields)
    for group in recorded["links"]:
        for path in group[1:]:
            tree[path] = tree[group[0]]
    return tree, recorded["config"]
