"""The constructs of the Dockerfile reference, and what of a build's options changes their meaning.

`covers` in a `case.json` (and in `refused/options.json`) names them by id; `support_page.py` makes
`docs/reference/dockerfile-support.md` of this table and of the cases. A construct is written as in a
Dockerfile where it has a form, else `INSTRUCTION: what of it`.
"""

import dataclasses

EQUAL = "equal"
DIFFERENT = "different"
REFUSED = "refused"
WINDOWS = "windows"


@dataclasses.dataclass(frozen=True)
class Construct:
    id: str
    state: str = EQUAL
    note: str = ""
    """Why it differs or is refused; may stand for equal ones too."""
    test: str = ""
    """A file of tests that proves it, where a case can't."""


def rows(*entries):
    return [entry if isinstance(entry, Construct) else Construct(entry) for entry in entries]


def different(id, note, test=""):
    return Construct(id, DIFFERENT, note, test)


def refused(id, note):
    return Construct(id, REFUSED, note)


def windows(id):
    return Construct(id, WINDOWS, "Windows images are not built")


def proved(id, test, note=""):
    return Construct(id, EQUAL, note, test)


SECTIONS = {
    "Format": rows(
        "format: comments",
        "format: comments inside continuations",
        "format: empty lines inside continuations",
        "format: continuations",
        "format: leading white space",
        "format: instructions in any case",
        "format: CRLF",
        "format: byte order mark",
        "format: long lines",
        "format: unknown instruction",
        "format: unknown flag",
        "format: repeated flag",
        "format: no FROM",
        "format: JSON form",
        "format: broken JSON is shell form",
    ),
    "Parser directives": rows(
        "# syntax=",
        refused("# syntax= of another frontend", "only the standard frontend is built in"),
        "# escape=",
        "# check=",
        "directives: place and case",
        "directives: repeated",
    ),
    "Environment replacement": rows(
        "expansion $x",
        "expansion ${x}",
        "expansion ${x:-y}",
        "expansion ${x-y}",
        "expansion ${x:+y}",
        "expansion ${x+y}",
        "expansion ${x:?y}",
        "expansion ${x?y}",
        "expansion ${x#y}",
        "expansion ${x##y}",
        "expansion ${x%y}",
        "expansion ${x%%y}",
        "expansion ${x/y/z}",
        "expansion ${x//y/z}",
        "expansion nested",
        "expansion quotes",
        "expansion escapes",
        "expansion with another escape character",
        "expansion one value per instruction",
        "expansion in ADD",
        "expansion in COPY",
        "expansion in ENV",
        "expansion in EXPOSE",
        "expansion in FROM",
        "expansion in LABEL",
        "expansion in STOPSIGNAL",
        "expansion in USER",
        "expansion in VOLUME",
        "expansion in WORKDIR",
        "expansion in ONBUILD",
        "expansion in RUN flags",
        "expansion not in CMD and ENTRYPOINT",
    ),
    ".dockerignore file": rows(
        ".dockerignore",
        ".dockerignore comments and blank lines",
        ".dockerignore *",
        ".dockerignore ?",
        ".dockerignore [class]",
        ".dockerignore **",
        ".dockerignore !",
        ".dockerignore escapes",
        ".dockerignore leading and trailing slash",
        ".dockerignore . and ..",
        ".dockerignore of the Dockerfile",
        ".dockerignore of itself",
        ".dockerignore of a named context",
        ".dockerignore CRLF and byte order mark",
        ".dockerignore invalid pattern",
        ".dockerignore and symlinks",
    ),
    "FROM": rows(
        "FROM image",
        "FROM image@digest",
        "FROM scratch",
        "FROM stage",
        "FROM named context",
        "FROM --platform",
        "FROM AS",
        "FROM: stage names in any case",
        "FROM: stage named like an image",
        "FROM: same stage name twice",
        "FROM: unused stages",
        "FROM: inherited configuration",
        "FROM: ARG before FROM",
        "build --target name",
        "build --target number",
    ),
    "RUN": rows(
        "RUN shell form",
        "RUN exec form",
        "RUN heredoc",
        "RUN: environment of the process",
        "RUN: files made for the step",
        "RUN: capabilities",
        "RUN: what a layer keeps",
        "RUN: exit code",
        "RUN --mount=type=bind",
        "RUN --mount=type=bind,from",
        "RUN --mount=type=bind,source",
        "RUN --mount=type=bind,rw",
        "RUN --mount=type=cache",
        "RUN --mount=type=cache,id",
        "RUN --mount=type=cache,ro",
        "RUN --mount=type=cache,sharing",
        "RUN --mount=type=cache,from",
        "RUN --mount=type=cache,source",
        "RUN --mount=type=cache,mode,uid,gid",
        "RUN --mount=type=tmpfs",
        "RUN --mount=type=tmpfs,size",
        "RUN --mount=type=secret",
        "RUN --mount=type=secret,target",
        "RUN --mount=type=secret,env",
        "RUN --mount=type=secret,required",
        "RUN --mount=type=secret,mode,uid,gid",
        "RUN --mount=type=ssh",
        "RUN --mount=type=ssh,id",
        "RUN --mount=type=ssh,target",
        "RUN --mount=type=ssh,required",
        "RUN --mount=type=ssh,mode,uid,gid",
        "RUN --mount: relative target",
        "RUN --mount: variables",
        "RUN --mount: several",
        "RUN --mount: mount points that stay",
        "RUN --network=default",
        "RUN --network=none",
        "RUN --network=host",
        "RUN --security=sandbox",
        "RUN --security=insecure",
        "RUN --device",
        "build --add-host",
        "build --network",
        "build --shm-size",
        "build --ulimit",
    ),
    "CMD": rows("CMD exec form", "CMD shell form", "CMD: the last one counts", "CMD: reset by ENTRYPOINT"),
    "LABEL": rows(
        "LABEL name=value",
        "LABEL name value",
        "LABEL several",
        "LABEL quotes and continuations",
        "LABEL: the last one counts",
        "build --label",
    ),
    "MAINTAINER": rows("MAINTAINER"),
    "EXPOSE": rows("EXPOSE", "EXPOSE protocol", "EXPOSE range", "EXPOSE variables"),
    "ENV": rows("ENV name=value", "ENV name value", "ENV several", "ENV quotes and escapes"),
    "ADD": rows(
        "ADD file",
        "ADD directory",
        "ADD archive",
        "ADD archive gzip",
        "ADD archive bzip2",
        "ADD archive xz",
        "ADD archive zstd",
        "ADD URL",
        "ADD URL: name of the file",
        "ADD URL: credentials",
        "ADD Git",
        "ADD Git: ref and subdirectory",
        "ADD Git: submodules",
        "ADD heredoc",
        "ADD --keep-git-dir",
        "ADD --checksum of a URL",
        "ADD --checksum of a commit",
        "ADD --chmod",
        "ADD --chown",
        "ADD --link",
        "ADD --unpack",
        "ADD --exclude",
    ),
    "COPY": rows(
        "COPY file",
        "COPY directory",
        "COPY several sources",
        "COPY JSON form",
        "COPY wildcards",
        "COPY wildcards: escapes and classes",
        "COPY wildcards: no match",
        "COPY: .. in sources",
        "COPY: symlinks in sources",
        "COPY: symlinks in the destination",
        "COPY: hard links",
        "COPY: special modes",
        "COPY: sparse files",
        "COPY: extended attributes",
        "COPY: odd file names",
        "COPY: what is there already",
        "COPY: relative destination",
        "COPY: trailing slashes",
        "COPY: missing source",
        "COPY: empty source or destination",
        "COPY: devices and pipes",
        "COPY: a URL",
        refused("COPY: names that start with .wh.", "readers of a layer take them for deletions"),
        "COPY heredoc",
        "COPY --from stage name",
        "COPY --from stage number",
        "COPY --from image",
        "COPY --from named context",
        "COPY --from a chain of stages",
        "COPY --chmod",
        "COPY --chmod symbolic",
        "COPY --chmod: malformed",
        "COPY --chown",
        "COPY --chown by name",
        "COPY --chown: unknown names",
        "COPY --link",
        "COPY --parents",
        "COPY --parents with a pivot",
        "COPY --parents with wildcards",
        "COPY --exclude",
        "COPY --exclude with !",
    ),
    "ENTRYPOINT": rows("ENTRYPOINT exec form", "ENTRYPOINT shell form", "ENTRYPOINT: the last one counts"),
    "VOLUME": rows("VOLUME words", "VOLUME JSON form", "VOLUME: changes to it stay"),
    "USER": rows("USER name", "USER uid", "USER user:group", "USER not in /etc/passwd"),
    "WORKDIR": rows("WORKDIR", "WORKDIR relative", "WORKDIR that exists", "WORKDIR with USER", windows("WORKDIR C:\\")),
    "ARG": rows(
        "ARG default",
        "ARG several",
        "ARG without value",
        "ARG scope: global",
        "ARG scope: stage",
        "ARG scope: inherited by FROM stage",
        "ARG: ENV wins",
        "ARG: proxies",
        "ARG: platform arguments",
        "ARG: BUILDKIT_ arguments",
        "build --build-arg",
        "build --build-arg without value",
        "build --platform",
    ),
    "ONBUILD": rows(
        "ONBUILD",
        "ONBUILD of a base image",
        "ONBUILD of a stage",
        "ONBUILD with COPY --from",
        "ONBUILD: forbidden triggers",
    ),
    "STOPSIGNAL": rows("STOPSIGNAL name", "STOPSIGNAL number"),
    "HEALTHCHECK": rows(
        "HEALTHCHECK CMD",
        "HEALTHCHECK NONE",
        "HEALTHCHECK --interval",
        "HEALTHCHECK --timeout",
        "HEALTHCHECK --start-period",
        "HEALTHCHECK --start-interval",
        "HEALTHCHECK --retries",
        "HEALTHCHECK: the last one counts",
    ),
    "SHELL": rows("SHELL", "SHELL: for CMD and ENTRYPOINT", windows("SHELL with PowerShell or cmd")),
    "Here-Documents": rows(
        "<<EOF",
        "<<-EOF",
        '<<"EOF"',
        "heredoc with an interpreter line",
        "heredoc as standard input of a command",
        "heredocs: several on a line",
        "heredocs: expansion",
    ),
    "Build contexts": rows(
        "context: directory",
        "context: Git",
        "context: tar on standard input",
        "context: Dockerfile on standard input",
        "context: URL",
        "build --build-context",
        different("context: modes of files", "as in Git: 0644, or 0755 where the owner may execute; umasks differ between machines"),
    ),
}  # fmt: skip


def by_id():
    """Construct by its id."""
    return {construct.id: construct for constructs in SECTIONS.values() for construct in constructs}
