"""Differences between builders that are intended or not the product's to mend, with the reason.

One row: (builders, cases, paths, fields, reason), where the first three are shell patterns. A row
applies to a comparison in which one of its builders takes part.
"""

import fnmatch

ROWS = [
    ("buildah", "*", "/etc/hosts", "presence", "buildah leaves its mount points for RUN in the image"),
    ("buildah", "*", "/etc/hostname", "presence", "buildah leaves its mount points for RUN in the image"),
    ("buildah", "*", "/etc/resolv.conf", "presence", "buildah leaves its mount points for RUN in the image"),
    ("buildah", "*", "config", "Labels", "buildah adds the label `io.buildah.version`"),
    ("buildah", "env-forms", "config", "Env", "buildah moves a variable that is set again to the end"),
    ("buildah", "healthcheck*", "config", "Healthcheck", "buildah leaves it out of images in the OCI format"),
    ("buildah", "*", "config", "Shell", "buildah leaves it out of images in the OCI format"),
    ("buildah", "shell-instruction", "*", "*", "buildah 1.28 ignores SHELL for images in the OCI format"),
    ("buildah", "stage-inherits", "*", "*", "buildah 1.28 ignores SHELL for images in the OCI format"),
    ("buildah", "labels-ports-volumes", "config", "ExposedPorts", "buildah 1.28 keeps a range of ports as one name"),
    ("buildah", "add-archives", "/*", "[ug]id", "buildah gives the destination directory the owner of the archive's `.` entry"),
    ("buildah", "copy-chown-chmod", "/modes", "mode", "buildah 1.28 doesn't give --chmod to directories it makes for a file"),
    ("buildah", "copy-replaces", "/link", "*", "buildah replaces a symlink at the destination, BuildKit writes through it or keeps it"),
    ("buildah", "arg-scoping", "/f", "*", "buildah doesn't hand ARGs of a stage to stages made from it"),
    ("buildah", "run-capabilities", "/tmp/caps", "sha256", "buildah's default capabilities are fewer than Docker's"),
    ("buildah", "run-environment", "/caps", "sha256", "buildah's default capabilities are fewer than Docker's"),
    ("memobuild", "run-hard-link-to-lower", "/*er", "hard links", "the layer keeps a new link to a lower file a link; BuildKit makes a copy of it"),
    ("buildah", "run-hard-link-to-lower", "/*er", "hard links", "buildah's storage keeps a hard link to a lower layer together (overlay's index)"),
]

# Dockerfiles in `refused/` that BuildKit builds, or that fail there only when a step runs: why we refuse them.
REFUSED_BY_US = {
    "directive-other-frontend": "BuildKit fetches the frontend and runs it; here only the standard one is built in",
}


def unexplained(differences, case, *names):
    """The differences that no row explains."""
    rows = [row for row in ROWS if any(fnmatch.fnmatch(name, row[0]) for name in names) and fnmatch.fnmatch(case, row[1])]
    return [
        difference
        for difference in differences
        if not any(fnmatch.fnmatch(difference.path, row[2]) and fnmatch.fnmatch(difference.field, row[3]) for row in rows)
    ]
