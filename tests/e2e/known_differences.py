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
    ("memobuild", "add-git-keep-git-dir", "/*/.git/[dbhil][ereno][sagof]*", "presence", "a kept `.git` has no samples of hooks, logs and the like: they differ by machine"),
    ("memobuild", "add-git-keep-git-dir", "/*/.git/index", "*", "our index has no times of files, BuildKit's those of its checkout"),
    ("memobuild", "add-git-keep-git-dir", "/*/.git/config", "sha256", "it holds the server's address"),
    ("memobuild", "add-git-keep-git-dir", "/*/.git/objects/*", "mode", "modes are those of a checkout, as in every context"),
    ("memobuild", "add-git-keep-git-dir", "/light/.git/refs/heads/light", "presence", "BuildKit takes a tag without an object of its own for a branch"),
    ("memobuild", "context-*", "/*/context", "mode", "modes of contexts are those of a checkout; BuildKit gives the file of a URL 0600"),
    ("memobuild", "context-named-remote", "/archive.tar.gz", "mode", "as above"),
    ("memobuild", "add-git-submodules", "/*/.git", "presence", "BuildKit keeps the submodules' files that point to a `.git` which isn't there"),
    ("memobuild", "add-git-keep-git-dir", "/*/.git/refs/tags/*", "presence", "BuildKit keeps tags that earlier fetches brought along"),
    ("buildah", "run-hard-link-to-lower", "/*er", "hard links", "buildah's storage keeps a hard link to a lower layer together (overlay's index)"),
]

# Dockerfiles in `refused/` that BuildKit builds, or that fail there only when a step runs: why we refuse them.
REFUSED_BY_US = {
    "directive-frontend-behind-a-shebang": "only the standard frontend is built in",
    "directive-frontend-behind-slashes": "only the standard frontend is built in",
    "directive-frontend-in-json": "only the standard frontend is built in",
    "directive-misspelt-frontend": "only the standard frontend is built in",
    "directive-other-frontend": "only the standard frontend is built in",
    "onbuild-bad-flag": "BuildKit looks at a trigger only where it is used; here its author gets the error",
    "onbuild-misspelt": "BuildKit looks at a trigger only where it is used; here its author gets the error",
}


def unexplained(differences, case, *names):
    """The differences that no row explains."""
    rows = [row for row in ROWS if any(fnmatch.fnmatch(name, row[0]) for name in names) and fnmatch.fnmatch(case, row[1])]
    return [
        difference
        for difference in differences
        if not any(fnmatch.fnmatch(difference.path, row[2]) and fnmatch.fnmatch(difference.field, row[3]) for row in rows)
    ]
