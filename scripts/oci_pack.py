#!/usr/bin/env python3
"""Packs one root file system tar into an OCI image layout, deterministically.

    oci_pack.py LAYOUT [--cmd WORD]… [--env K=V]… < root.tar

Equal input gives equal bytes: one gzip layer without a timestamp, and a fixed `created`
($SOURCE_DATE_EPOCH, or 2023-11-14T22:13:20Z).
"""

import argparse
import datetime
import hashlib
import json
import os
import platform
import shutil
import sys
import tempfile
import zlib

EPOCH = 1700000000
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "ppc64le": "ppc64le", "s390x": "s390x"}
DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def architecture():
    """The OCI name of this machine's architecture."""
    machine = platform.machine()
    return ARCHITECTURES.get(machine, machine)


def put(layout, data):
    """Writes one blob and returns its digest."""
    digest = hashlib.sha256(data).hexdigest()
    with open(os.path.join(layout, "blobs", "sha256", digest), "wb") as out:
        out.write(data)
    return "sha256:" + digest


def put_layer(layout, stream):
    """Compresses a tar stream into the layout: (digest, size, diff id)."""
    plain = hashlib.sha256()
    packed = hashlib.sha256()
    size = 0
    blobs = os.path.join(layout, "blobs", "sha256")
    with tempfile.NamedTemporaryFile(dir=blobs, delete=False) as out:
        gzip = zlib.compressobj(6, zlib.DEFLATED, 31)

        def write(data):
            nonlocal size
            packed.update(data)
            size += len(data)
            out.write(data)

        while chunk := stream.read(1 << 20):
            plain.update(chunk)
            write(gzip.compress(chunk))
        write(gzip.flush())
    os.chmod(out.name, 0o644)
    os.replace(out.name, os.path.join(blobs, packed.hexdigest()))
    return "sha256:" + packed.hexdigest(), size, "sha256:" + plain.hexdigest()


def pack(layout, stream, config, created_by):
    """Makes the layout `layout` (replacing one that is there) from a tar stream."""
    layout = os.path.abspath(layout)
    os.makedirs(os.path.dirname(layout), exist_ok=True)
    work = tempfile.mkdtemp(prefix=os.path.basename(layout) + ".", dir=os.path.dirname(layout))
    os.chmod(work, 0o755)
    os.makedirs(os.path.join(work, "blobs", "sha256"))
    digest, size, diff_id = put_layer(work, stream)
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH", EPOCH))
    created = datetime.datetime.fromtimestamp(epoch, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    image = {
        "created": created,
        "architecture": architecture(),
        "os": "linux",
        "config": {"Env": [DEFAULT_PATH], **config},
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{"created": created, "created_by": created_by}],
    }
    image = json.dumps(image).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": put(work, image),
            "size": len(image),
        },
        "layers": [
            {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest, "size": size}
        ],
    }
    manifest = json.dumps(manifest).encode()
    index = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [
            {
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": put(work, manifest),
                "size": len(manifest),
                "platform": {"architecture": architecture(), "os": "linux"},
                "annotations": {"org.opencontainers.image.ref.name": "latest"},
            }
        ],
    }
    with open(os.path.join(work, "index.json"), "w") as out:
        json.dump(index, out)
    with open(os.path.join(work, "oci-layout"), "w") as out:
        out.write('{"imageLayoutVersion":"1.0.0"}')
    shutil.rmtree(layout, ignore_errors=True)
    os.rename(work, layout)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("layout")
    parser.add_argument("--cmd", action="append", default=[])
    parser.add_argument("--env", action="append", default=[])
    parser.add_argument("--created-by", default="imported root file system")
    args = parser.parse_args()
    config = {"Env": [DEFAULT_PATH, *args.env]}
    if args.cmd:
        config["Cmd"] = args.cmd
    pack(args.layout, sys.stdin.buffer, config, args.created_by)


if __name__ == "__main__":
    main()
