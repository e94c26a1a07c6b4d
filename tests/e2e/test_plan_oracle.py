"""Plans over a generated history whose affected targets are known by construction.

A model holds what is in the repository and what each layer is made of. From it come the commits, and what a plan must
say between any two of them. Nothing is ever skipped wrongly; what is built without need is in UNNEEDED, with its reason.
"""

import concurrent.futures
import copy
import json
import os
import random
import subprocess

import builders
import support

COMMITS = 500
PAIRS = 60
LAYERS = ("base", "ml", "app", "tools", "data")
PARENTS = {"ml": "base", "app": "ml"}

# Mutations after which a layer is built though its image would be the same, and why that is accepted.
UNNEEDED = {
    # Files are told apart by their objects and by how they are converted: what a conversion would leave as it is isn't known.
    "attributes": {"app"},
}


class Model:
    """What is in the repository."""

    def __init__(self):
        self.files = {
            "README.md": ("100644", "words\n"),
            "base/certs.pem": ("100644", "certs\n"),
            "requirements/ml.txt": ("100644", "numpy\n"),
            "requirements/app.txt": ("100644", "flask\n"),
            "src/main.py": ("100644", "main\n"),
            "src/link": ("120000", "main.py"),
            "src/ignored/notes.txt": ("100644", "notes\n"),
            "scripts/run.sh": ("100755", "run\n"),
            "scripts/notes.txt": ("100644", "notes\n"),
            "data-1/one": ("100644", "one\n"),
            "data-2/two": ("100644", "two\n"),
            "current": ("120000", "data-1"),
        }
        self.ignore = [".git", "*.md", "src/ignored"]
        self.values = {
            "comment": 0,
            "config comment": 0,
            "blank": 0,
            "base run": 0,
            "base env": 0,
            "greeting": 0,
            "unused": 0,
            "cmd": 0,
            "label": 0,
            "attributes": 0,
        }

    # What Git has.

    def tree(self):
        v = self.values
        blank = "\n" * v["blank"]
        tree = dict(self.files)
        texts = {
            "memobuild.yml": f"""\
# {v["config comment"]}
version: 1
image: example/service
layers:
  base: {{dockerfile: docker/Dockerfile.base}}
  ml: {{from: base, dockerfile: docker/Dockerfile.ml}}
  app: {{from: ml, dockerfile: docker/Dockerfile.app, args: {{GREETING: "{v["greeting"]}", UNUSED: "{v["unused"]}"}}}}
  tools: {{dockerfile: docker/Dockerfile.tools}}
  data: {{dockerfile: docker/Dockerfile.data}}
variants:
  cpu: {{platforms: [linux/amd64]}}
""",
            "docker/Dockerfile.base": f"# {v['comment']}\nFROM busybox\n{blank}ENV LEVEL={v['base env']}\nCOPY base/ /base/\nRUN echo {v['base run']} > /made\n",
            "docker/Dockerfile.ml": f"ARG BASE_IMAGE\nFROM ${{BASE_IMAGE}}\nCOPY requirements/ml.txt /tmp/\nRUN cat /tmp/ml.txt\nLABEL stamp={v['label']}\n",
            "docker/Dockerfile.app": f'ARG BASE_IMAGE\nFROM ${{BASE_IMAGE}}\nARG GREETING\nCOPY src/ /srv/\nRUN echo $GREETING\nCMD ["{v["cmd"]}"]\n',
            "docker/Dockerfile.tools": "FROM busybox\nCOPY scripts/*.sh /opt/\n",
            "docker/Dockerfile.data": "FROM scratch\nCOPY current/ /data/\n",
            ".dockerignore": "\n".join(self.ignore) + "\n",
        }
        if v["attributes"]:
            texts[".gitattributes"] = "*.py text\n"
        for path, text in texts.items():
            tree[path] = ("100644", text)
        return tree

    # What the layers are made of: their steps, and what only their configuration says.

    def seen(self, path):
        hidden = path == ".git" or ("/" not in path and path.endswith(".md"))
        hidden = hidden or any(path == name or path.startswith(name + "/") for name in self.ignore)
        return not hidden

    def below(self, directory):
        start = directory + "/"
        return frozenset((path[len(start) :], *entry) for path, entry in self.files.items() if path.startswith(start) and self.seen(path))

    def steps(self, layer):
        v = self.values
        own = {
            "base": lambda: (v["base env"], v["base run"], self.below("base")),
            "ml": lambda: self.files.get("requirements/ml.txt"),
            "app": lambda: (self.below("src"), v["greeting"]),
            "tools": lambda: frozenset(row for row in self.below("scripts") if row[0].endswith(".sh") and "/" not in row[0]),
            "data": lambda: self.below(self.files["current"][1]),
        }[layer]()
        parent = PARENTS.get(layer)
        return (own, self.steps(parent) if parent else None)

    def image(self, layer):
        v = self.values
        # Configuration is inherited.
        metadata = {"ml": (v["label"],), "app": (v["label"], v["cmd"])}.get(layer)
        return (self.steps(layer), metadata)


def mutations(choose):
    """Name and act of each kind of change; numbers are drawn now, so that an act does the same wherever it is done."""
    number = choose.randrange(1_000_000)
    some = choose.random()

    def pick(model, directory):
        names = sorted(path for path in model.files if path.startswith(directory + "/") and model.files[path][0] != "120000")
        return names[int(some * len(names))] if names else None

    def write(path):
        return lambda model: model.files.update({path: ("100644", f"{number}\n")})

    def value(name):
        return lambda model: model.values.update({name: number})

    def edit(model):
        if path := pick(model, "src"):
            model.files[path] = (model.files[path][0], f"{number}\n")

    def mode(model):
        if path := pick(model, "src"):
            was, text = model.files[path]
            model.files[path] = ("100755" if was == "100644" else "100644", text)

    def rename(model):
        if path := pick(model, "src"):
            model.files[f"src/renamed-{number}.py"] = model.files.pop(path)

    def delete(model):
        path = pick(model, "src")
        if path and path != "src/main.py":
            del model.files[path]

    def hide(model):
        path = pick(model, "src")
        if path and path not in model.ignore and len(model.ignore) < 8:
            model.ignore.append(path)

    def unhide(model):
        del model.ignore[3:]

    return {
        "readme": write("README.md"),
        "source": write(f"src/module-{number % 7}.py"),
        "edit": edit,
        "ignored source": write("src/ignored/notes.txt"),
        "ml requirements": write("requirements/ml.txt"),
        "other requirements": write("requirements/app.txt"),
        "base file": write("base/certs.pem"),
        "base dockerfile": value("base run"),
        "base variable": value("base env"),
        "dockerfile comment": value("comment"),
        "dockerfile blank lines": lambda model: model.values.update({"blank": number % 5}),
        "configuration comment": value("config comment"),
        "mode": mode,
        "rename": rename,
        "deletion": delete,
        "ignore file": hide,
        "ignore file back": unhide,
        "ignore file without effect": lambda model: model.ignore.append(f"nothing-{number}") if len(model.ignore) < 8 else None,
        "symlink": lambda model: model.files.update({"src/link": ("120000", f"target-{number % 3}")}),
        "copied symlink": lambda model: model.files.update({"current": ("120000", f"data-{number % 2 + 1}")}),
        "data": write(f"data-{number % 2 + 1}/file-{number % 5}"),
        "build argument": lambda model: model.values.update({"greeting": number % 4}),
        "unused argument": value("unused"),
        "command": value("cmd"),
        "label": value("label"),
        "script": write(f"scripts/tool-{number % 3}.sh"),
        "no script": write("scripts/notes.txt"),
        "attributes": lambda model: model.values.update({"attributes": 1 - model.values["attributes"]}),
    }


class History:
    """Commits with their models."""

    def __init__(self, seed):
        self.choose = random.Random(seed)
        self.stream = []
        self.marks = 0
        model = Model()
        # Along first parents: mark, model, names of what was done.
        self.line = [(self.commit(model, "start", []), model, [])]
        models = [model]
        while self.marks < COMMITS:
            model = copy.deepcopy(model)
            last = self.line[-1][0]
            kind = self.choose.random()
            if kind < 0.08:
                # Back to what was.
                model, done = copy.deepcopy(self.choose.choice(models[-30:])), ["revert", "attributes"]
                mark = self.commit(model, "revert", [last])
            elif kind < 0.2:
                side, acts, tip = copy.deepcopy(model), [], last
                for _ in range(self.choose.randrange(1, 4)):
                    name, act = self.draw()
                    act(side)
                    acts.append((name, act))
                    tip = self.commit(side, name, [tip])
                name, act = self.draw()
                act(model)
                last = self.commit(model, name, [last])
                self.line.append((last, copy.deepcopy(model), [name]))
                for _, act in acts:
                    act(model)
                done = [name for name, _ in acts]
                mark = self.commit(model, "merge " + ", ".join(done), [last, tip])
            else:
                done = []
                for _ in range(self.choose.choice((1, 1, 1, 2))):
                    name, act = self.draw()
                    act(model)
                    done.append(name)
                mark = self.commit(model, ", ".join(done), [last])
            self.line.append((mark, model, done))
            models.append(model)

    def draw(self):
        return self.choose.choice(sorted(mutations(self.choose).items(), key=lambda item: item[0]))

    def commit(self, model, message, parents):
        self.marks += 1
        out = self.stream
        out.append(f"commit refs/heads/main\nmark :{self.marks}\ncommitter t <t@example.com> {1700000000 + 60 * self.marks} +0000\n")
        out.append(f"data {len(message)}\n{message}\n")
        for word, parent in zip(("from", "merge"), parents):
            out.append(f"{word} :{parent}\n")
        out.append("deleteall\n")
        for path, (mode, text) in sorted(model.tree().items()):
            out.append(f"M {mode} inline {path}\ndata {len(text)}\n{text}\n")
        return self.marks

    def write(self, directory):
        """Makes the repository; returns the ids of the commits by their marks."""
        env = {"PATH": os.environ["PATH"], "HOME": directory, "GIT_CONFIG_NOSYSTEM": "1"}
        subprocess.run(["git", "init", "-q", "-b", "main", "repo"], cwd=directory, env=env, check=True)
        repo = os.path.join(directory, "repo")
        # The line must end at the branch.
        self.stream.append(f"reset refs/heads/main\nfrom :{self.line[-1][0]}\n\n")
        stream = "".join(self.stream).encode()
        subprocess.run(["git", "fast-import", "--quiet", "--force", "--export-marks=../marks"], cwd=repo, env=env, input=stream, check=True)
        with open(os.path.join(directory, "marks")) as file:
            rows = (row.split() for row in file)
            ids = {int(mark[1:]): commit for mark, commit in rows}
        subprocess.run(["git", "reset", "-q", "--hard"], cwd=repo, env=env, check=True)
        return ids


def layers(plan):
    return {target["layer"]: target for target in plan["targets"]}


class Oracle(support.EndToEnd):
    needs_root = False

    def setUp(self):
        super().setUp()
        self.need("git")
        self.seed = int(os.environ.get("ORACLE_SEED", "20261121"))
        self.history = History(self.seed)
        self.ids = self.history.write(self.directory)
        self.repo = self.path("repo")

    def plan(self, base, head):
        command = [support.BINARY, "plan", "--no-cache-lookup", "--cache-dir", self.cache, "--json", "--base", base, "--head", head]
        return layers(json.loads(builders.run(command, cwd=self.repo).stdout))

    def wrong(self, before, after, done, found):
        """What is wrong in the plan between two models, and what is built without need."""
        wrong, unneeded = [], []
        accepted = set().union(*(UNNEEDED.get(name, set()) for name in done))
        for layer in LAYERS:
            affected = before.image(layer) != after.image(layer)
            decision = found[layer]["decision"]
            if affected and decision == "skip":
                wrong.append(f"{layer} is skipped")
            elif not affected and decision != "skip" and layer in accepted:
                unneeded.append(layer)
            elif not affected and decision != "skip":
                wrong.append(f"{layer} is built: {found[layer]['detail']}")
        return wrong, unneeded

    def test_plans_of_a_history(self):
        line, ids = self.history.line, self.ids
        pairs = [(n - 1, n, line[n][2]) for n in range(1, len(line))]
        choose = random.Random(self.seed)
        for _ in range(PAIRS):
            a, b = sorted(choose.sample(range(len(line)), 2))
            # In between, attributes may have come and gone.
            pairs.append((a, b, ["attributes"]))
            pairs.append((b, a, ["attributes"]))
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            plans = list(pool.map(lambda pair: self.plan(ids[line[pair[0]][0]], ids[line[pair[1]][0]]), pairs))
        problems, unneeded, affected = [], 0, 0
        for (a, b, done), plan in zip(pairs, plans):
            wrong, more = self.wrong(line[a][1], line[b][1], done, plan)
            unneeded += len(more)
            affected += sum(target["decision"] != "skip" for target in plan.values())
            problems += [f"commit {a} to {b} ({', '.join(done)}): {text}" for text in wrong]
        self.assertEqual(problems, [], f"seed {self.seed}")
        # The history says something.
        self.assertGreater(affected, len(pairs) // 2)
        self.assertLess(unneeded, len(pairs) // 5)

    def test_replay_of_the_history(self):
        line, ids = self.history.line, self.ids
        command = [support.BINARY, "simulate", "--history", str(len(line)), "--cache-dir", self.cache, "--json"]
        report = json.loads(builders.run(command, cwd=self.repo).stdout)
        self.assertEqual(report["schema_version"], 1)
        self.assertEqual([row["commit"] for row in reversed(report["commits"])], [ids[mark] for mark, _, _ in line])
        seen, before, problems, nothing = set(), None, [], 0
        for row, (_, model, done) in zip(reversed(report["commits"]), line):
            self.assertNotIn("error", row)
            found = {target["layer"]: target for target in row["targets"]}
            accepted = set().union(*(UNNEEDED.get(name, set()) for name in done))
            for layer in LAYERS:
                key = (layer, model.steps(layer))
                if key not in seen:
                    expected = "build"
                elif before.image(layer) != model.image(layer):
                    expected = "reuse"
                else:
                    expected = "skip"
                # What was built for nothing once is known afterwards, and so is what it looks like without.
                with_attributes = (layer, model.steps(layer), model.values["attributes"])
                decision = found[layer]["decision"]
                if decision != expected and not (layer in UNNEEDED["attributes"] and with_attributes not in seen or layer in accepted and expected == "skip"):
                    problems.append(f"{row['subject']}: {layer} is `{decision}`, not `{expected}`: {found[layer]['detail']}")
                if expected == "build" and decision != "build":
                    problems.append(f"{row['subject']}: {layer} has steps that never ran")
            nothing += all(target["decision"] != "build" for target in row["targets"])
            for layer in LAYERS:
                seen.add((layer, model.steps(layer)))
                seen.add((layer, model.steps(layer), model.values["attributes"]))
            before = model
        self.assertEqual(problems, [], f"seed {self.seed}")
        totals = report["totals"]
        self.assertEqual((totals["commits"], totals["unreadable"], totals["nothing"]), (len(line), 0, nothing))
        self.assertEqual(totals["ran"], sum(row["ran"] for row in report["commits"]))
        sentences = [found["sentence"] for found in report["invalidations"]]
        self.assertTrue(any("requirements/ml.txt invalidates ml through `COPY requirements/ml.txt /tmp/`" in text for text in sentences), sentences)
