#!/usr/bin/env python3
"""Compares what memobuild-ci and BuildKit's frontend make of generated Dockerfiles.

    language.py [--count N] [--seed S] [--keep DIR] [FILE...]

Nothing runs: acceptance or refusal, the image's configuration and every process (arguments,
environment, directory, user, network, mounts) are compared. BuildKit's side is
`tests/oracle`, built with Go; ours is the ignored test `language::answers`. With FILEs those are
compared instead of generated ones.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile

import builders

WORDS = ["A", "B", "E", "U", "PATH", "1", "_x", "AB"]
MODIFIERS = [":-", "-", ":+", "+", ":?", "?", "#", "##", "%", "%%", "/", "//", ":", "=", "!"]
STAGES = ["a", "b", "B", "stage-1", "0", "1", "base", "busybox", "x.y", "_z", "-q", "a b", "3x"]
BASES = ["scratch", "busybox", "a", "b", "$V", "${V}", "base", "busybox:1@sha256:" + "0" * 64, "BUSYBOX", "localhost:5000/x:$V"]
ARGS = [
    "ARG V", "ARG V=1", 'ARG V="a b"', "ARG W=$V", "ARG V=1 W=2", "ARG TARGETPLATFORM", "ARG BUILDPLATFORM=x", "ARG HTTP_PROXY",
    "ARG PATH", "ARG V=$BUILDARCH", "ARG A=${V:-d} B=$A", "ARG TARGETSTAGE", "ARG 1=2", "ARG", "ARG A-b=1",
]  # fmt: skip
DIRECTIVES = [
    "# syntax=docker/dockerfile:1\n", "#syntax = docker/dockerfile:1.7-labs\n", "# escape=\\\n", "# escape=`\n", "# check=skip=all\n",
    "# foo=bar\n", "\n# escape=`\n", "# comment\n# escape=`\n", "\ufeff", "#escape=x\n", "# escape=`\n# escape=`\n", "# Escape = `\n",
]  # fmt: skip
MOUNTS = [
    "type=bind,target=/x", "target=/x,from=a", "type=cache,target=$V", "type=cache,id=q,target=c,sharing=locked", "from=a",
    "type=cache,dst=/c,mode=0700,uid=3,gid=4,from=b", "type=tmpfs,target=/t,size=64m", "type=secret,id=s", "type=secret,id=s,env=S",
    "type=secret,target=/s,mode=0444,required", "type=ssh", "type=ssh,id=k,target=/k,required=true", "type=bind,source=a,target=b,rw",
    "type=bind,src=$V,dst=/y,readwrite=false", "type=bind,rw=maybe,target=/x", "type=secret", "type=secret,id=s,env",
    "required,type=ssh", "type=cache,target=/c,sharing=bad", "type=tmpfs,target=/x,mode=0700", "type=bind,target=/x,size=1",
    "type=nope,target=/x", "target=/", "type=cache,target=", '"type=cache","target=/a b"', "type=secret,id=s,src=x",
    "type=cache,target=/c,readonly", "TYPE=Cache,Target=/c", "type=bind,from=$V,target=/x", "type=secret,src=q", "type=ssh,target=rel",
]  # fmt: skip
COMMANDS = [
    "echo $V", '["echo","$V"]', '["echo" , 1]', "[ \"a\",'b' ]", "<<EOF\necho $V\nEOF", "<<EOF cat > /x\n$V\nEOF", "<<-EOF\n\techo\n\tEOF",
    "<<A cat <<B\n1\nA\n2\nB", '<<"E F"\nx\nE F', "<<'EOF' sh\n$V\nEOF", "<<EOF\n#!/bin/cat\nhello\nEOF", "a && \\\n b", "a \\\n# c\n b",
    "a \\\n\n b", 'echo "<<EOF"', "cat <<<x", "3<<EOF cat\nq\nEOF", "<<EOF\n\nEOF", "echo \\$V", "<<EOF\nx", "",
]  # fmt: skip
COPIES = [
    "a b", "a b c/", "a b c", '["a","b"]', '["a"]', "a", ". .", "$V /x", '"a b" c', "<<EOF /x\n$V\nEOF", "<<E <<F /x/\n1\nE\n2\nF",
    "a <<EOF /x/\n1\nEOF", "/etc/x ./", "../x y", "a* b?/", "a\\ b c", "[a] b", "x <<EOF\nq\nEOF", '"" /x', "$EMPTY /x",
]  # fmt: skip
COPY_FLAGS = [
    "--chown=1:2", "--chown=$V", "--chmod=755", "--chmod=u+x", "--chmod=$V", "--chmod=9", "--chmod=u+z", "--link", "--link=false",
    "--link=x", "--parents", "--exclude=*.md", "--exclude", "--keep-git-dir", "--unpack", "--unpack=false", "--from=", "--from=$V", "--foo=1",
]  # fmt: skip
OTHERS = [
    "ENV V=2", "ENV A $V b", "ENV V=", "ENV =x", "ENV a", "ENV a=b c", 'ENV "a b"=c', "env x=$V${W}", "WORKDIR x", "WORKDIR /x/$V", "WORKDIR",
    "WORKDIR a b", 'WORKDIR ""', "WORKDIR ..", "WORKDIR /a/./b//c/", 'WORKDIR "a b"', "USER a", "USER $V:1", "USER", "USER a b", 'USER ""',
    'SHELL ["a","-c"]', "SHELL a", "SHELL []", 'SHELL ["a"]', 'CMD ["$V"]', "CMD x $V", "ENTRYPOINT []", 'ENTRYPOINT ["a"]', "ENTRYPOINT x",
    "CMD []", "CMD", "ENTRYPOINT", "CMD ['a']", 'CMD ["a",]', "VOLUME a", 'VOLUME ["a","$V"]', "VOLUME a b", 'VOLUME ""', "VOLUME []",
    'VOLUME ["a b"] c', "VOLUME", "LABEL a=b", 'LABEL "a"="b c" d=e', "LABEL a b", "LABEL a", "LABEL a=$V\"$V\"'$V'", "HEALTHCHECK CMD x",
    'HEALTHCHECK --start-interval=1s --start-period=2s --retries=1 CMD ["a"]', "HEALTHCHECK none", "HEALTHCHECK --interval=1s NONE",
    "HEALTHCHECK --interval=0s CMD x", "HEALTHCHECK --interval=5us CMD x", "HEALTHCHECK --interval=1m30s --timeout=x CMD x",
    "HEALTHCHECK foo", "HEALTHCHECK --foo CMD x", "HEALTHCHECK CMD", "MAINTAINER a b", "MAINTAINER", "STOPSIGNAL SIGKILL", "STOPSIGNAL",
    "STOPSIGNAL a b", "STOPSIGNAL 999", "STOPSIGNAL x", "STOPSIGNAL SIGRTMIN+3", "EXPOSE 80 81/udp", "EXPOSE 1-3/TCP 4", "EXPOSE $V",
    "EXPOSE", "EXPOSE 1:2", "EXPOSE 99999", "EXPOSE 82-80", "EXPOSE 80/xyz", "# comment", "", "  # indented", "RUNN x", "copy a b",
    "  RUN indented", " \tENV q=1", "FROM", "ONBUILD RUN x", "ONBUILD FROM x", "ONBUILD ONBUILD RUN x", "ONBUILD", "ONBUILD MAINTAINER x",
    "ONBUILD foo bar", "ONBUILD COPY --from=a b c",
]  # fmt: skip


class Generator:
    """Dockerfiles of a few instructions, right and wrong ones."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    def any(self, options):
        return self.random.choice(options)

    def chance(self, share):
        return self.random.random() < share

    def variable(self):
        name = self.any(WORDS)
        if self.chance(0.5):
            return self.any(["$" + name, "${" + name + "}"])
        modifier = self.any(MODIFIERS)
        text = self.word(3)
        if modifier in ("/", "//") and self.chance(0.8):
            text += "/" + self.word(2)
        return "${" + name + modifier + text + ("}" if self.chance(0.95) else "")

    def word(self, most):
        out = ""
        for _ in range(self.random.randint(0, most)):
            kind = self.random.random()
            if kind < 0.4:
                out += self.any(["a", "b", "foo", "o", "*", "?", "ba", "/", ".", "-", "[ab]", "é", "z"])
            elif kind < 0.65:
                out += self.variable()
            elif kind < 0.75:
                out += "'" + self.any(["a b", "$A", "\\", ""]) + ("'" if self.chance(0.95) else "")
            elif kind < 0.87:
                out += '"' + self.any(["a b", "$A", "${B}", '\\"', "\\$A", "\\\\", '${U:-"x"}']) + ('"' if self.chance(0.95) else "")
            elif kind < 0.95:
                out += "\\" + self.any(["$", "a", "\\", '"', "'", " ", "*"])
            else:
                out += self.any(["{", "}", "$", "$$", ":", "#"])
        return out

    def expanded(self):
        """An instruction whose words are full of variables and quotes."""
        return self.any([
            f"ENV K={self.word(4)} L={self.word(2)}", f"LABEL k={self.word(4)}", f'LABEL k{self.word(2)}={self.word(3)} "m n"={self.word(2)}',
            f"ENV K {self.word(4)} {self.word(2)}", f"ARG Q={self.word(4)}\nENV QQ=$Q", f"CMD {self.word(4)}", f"USER {self.word(3)}",
            f"WORKDIR {self.word(4)}", f"VOLUME {self.word(4)}", f"RUN echo {self.word(4)}", f"STOPSIGNAL {self.word(2)}",
        ])  # fmt: skip

    def run(self):
        flags = ""
        for _ in range(self.any([0, 0, 1, 1, 2])):
            network = ["--network=none", "--network=host", "--network=default", "--network=bad", "--security=sandbox", "--security=x", "--foo"]
            flags += ("--mount=" + self.any(MOUNTS) if self.chance(0.7) else self.any(network)) + " "
        return "RUN " + flags + self.any(COMMANDS)

    def copy(self):
        flags = ""
        for _ in range(self.any([0, 0, 1, 1, 2])):
            flags += self.any([*COPY_FLAGS, "--from=" + self.any(STAGES)]) + " "
        return self.any(["COPY", "ADD"]) + " " + flags + self.any(COPIES)

    def stage(self):
        if self.chance(0.6):
            return "FROM " + self.any(["busybox", "scratch"]) + " AS " + self.any("abc")
        platforms = ["", "", "--platform=$BUILDPLATFORM ", "--platform=linux/arm64 ", "--platform=${X} ", "--platform=foo ", "--platform=linux/arm/v7 "]
        name = self.any(["", " AS " + self.any(STAGES), " as " + self.any(STAGES), " AS", " AS a extra"])
        return "FROM " + self.any(platforms) + self.any(BASES) + name

    def dockerfile(self):
        text = self.any(DIRECTIVES) if self.chance(0.15) else ""
        for _ in range(self.any([0, 0, 0, 1])):
            text += self.any(ARGS) + "\n"
        for _ in range(self.any([1, 1, 1, 2])):
            text += self.stage() + "\n"
            if self.chance(0.4):
                text += "ENV A=foo B=foobar/baz/foo E=\n"
            for _ in range(self.any([0, 1, 1, 2, 3])):
                line = self.any([self.run, self.run, self.copy, self.expanded, self.expanded, lambda: self.any(ARGS), lambda: self.any(OTHERS)])()
                if self.chance(0.05):
                    line = line.replace(" ", " \\\n# comment\n", 1)
                text += line + "\n"
        if "escape=`" in text and self.chance(0.8):
            text = text.replace("\\", "`")
        if self.chance(0.1):
            text = text.replace("\n", "\r\n")
        return text.rstrip("\n") if self.chance(0.1) else text


def normal(answer):
    """What is compared: unset and empty values are one."""
    if "error" in answer:
        return {"refused": True}
    config = {key: value for key, value in answer["config"].items() if value}
    config.pop("ArgsEscaped", None)
    processes = []
    for process in answer.get("processes") or []:
        process = {key: value for key, value in process.items() if value}
        process["cwd"] = os.path.normpath(process["cwd"])
        process.get("env", []).sort()
        processes.append(json.dumps(process, sort_keys=True))
    return {"config": config, "processes": sorted(processes)}


def intended(text, left, right):
    """Whether a difference is one that docs/limitations.md tells of."""
    said = right.get("error", "")
    if "error" in left or not said:
        return False
    in_mount = any(words in said for words in ("`--mount`", "mounts of type", "a mount of type"))
    trigger = "ONBUILD" in text.upper() and "unknown instruction" in said
    return trigger or (in_mount and text.upper().count("FROM ") > 1)


def lines(text):
    return {answer["name"]: answer for answer in map(json.loads, text.splitlines())}


def oracle(directory, names, work):
    binary = os.path.join(builders.CACHE, "bin", "language-oracle")
    source = os.path.join(builders.PROJECT, "tests", "oracle")
    builders.run(["go", "build", "-o", binary, "."], cwd=source, env={**os.environ, "CGO_ENABLED": "0"}, timeout=1200)
    out = ""
    for start in range(0, len(names), 1000):
        out += builders.run([binary, *(os.path.join(directory, name) for name in names[start : start + 1000])]).stdout
    return lines(out)


def ours(directory, work):
    path = os.path.join(work, "ours.jsonl")
    env = {**os.environ, "MEMOBUILD_LANGUAGE_DIR": directory, "MEMOBUILD_LANGUAGE_OUT": path}
    command = ["cargo", "test", "--locked", "-q", "--test", "it", "language::answers", "--", "--ignored"]
    builders.run(command, cwd=builders.PROJECT, env=env, timeout=1800)
    with open(path) as file:
        return lines(file.read())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", metavar="DIR", help="write the Dockerfiles that differ here")
    parser.add_argument("files", nargs="*")
    args = parser.parse_args()
    work = tempfile.mkdtemp(prefix="language-")
    try:
        directory = os.path.join(work, "dockerfiles")
        os.mkdir(directory)
        for number, path in enumerate(args.files):
            shutil.copy(path, os.path.join(directory, f"{number:05}-{os.path.basename(path)}"))
        if not args.files:
            generator = Generator(args.seed)
            for number in range(args.count):
                with open(os.path.join(directory, f"{number:05}"), "w", newline="") as file:
                    file.write(generator.dockerfile())
        names = sorted(os.listdir(directory))
        theirs, mine = oracle(directory, names, work), ours(directory, work)
        bad = known = refused = 0
        for name in names:
            left, right = theirs[name], mine[name]
            refused += "error" in left
            if normal(left) == normal(right):
                continue
            with open(os.path.join(directory, name), errors="replace") as file:
                if intended(file.read(), left, right):
                    known += 1
                    continue
            bad += 1
            print(f"{name}:\n    BuildKit: {left.get('error') or normal(left)}\n    memobuild: {right.get('error') or normal(right)}")
            if args.keep:
                os.makedirs(args.keep, exist_ok=True)
                shutil.copy(os.path.join(directory, name), args.keep)
        print(f"{len(names)} Dockerfiles, {refused} of them refused by BuildKit, {known} intended differences, {bad} others")
        return 1 if bad else 0
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
