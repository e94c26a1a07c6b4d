"""`build --call`: checks, outlines and targets, as BuildKit answers them."""

import json
import os

import builders
import checks
import support

VIOLATIONS = 11
INVALID = 20
NOT_FOUND = 42


class Recorded(support.EndToEnd):
    """All of `checks/` against what BuildKit answered."""

    needs_root = False

    def answer(self, check, method):
        layouts = {base: builders.base_image(base) for base in check.bases}
        context = self.path("empty")
        self.write("empty/.keep", "")
        words = check.words(layouts)
        if os.path.isdir(check.path("context")):
            context = check.path("context")
        result = self.memobuild("build", "--call", f"{method},format=json", *words, context, exit=None)
        return checks.comparable(method, json.loads(result.stdout)), result

    def test_answers_are_those_of_buildkit(self):
        selected = checks.load()
        self.assertGreater(len(selected), 80)
        for check in selected:
            expected = check.expected()
            for method in check.methods():
                with self.subTest(check=check.name, method=method):
                    answer, result = self.answer(check, method)
                    self.assertEqual(answer, expected[method], result.stderr)
                    if method == "check" and answer["error"] is None:
                        code = VIOLATIONS if answer["violations"] else 0
                        self.assertEqual(result.returncode, code, result.stderr)


class Call(support.EndToEnd):
    needs_root = False

    DOCKERFILE = """
        # base is empty
        FROM scratch AS base
        # PORT to listen on
        ARG PORT=80
        CMD serve $PORT
        LABEL a=$UNKNOWN
    """

    def call(self, method, context, *options, exit=0):
        return self.memobuild("build", "--call", method, *options, context, exit=exit)

    def test_text_for_people(self):
        context = self.context(self.DOCKERFILE)
        said = self.memobuild("build", "--check", context, exit=VIOLATIONS).stdout
        file = f"{context}/Dockerfile"
        self.assertEqual(
            said,
            f"warning: JSONArgsRecommended: CMD in shell form: the program gets no signals\n  --> {file}:5\n"
            " 4 | ARG PORT=80\n 5 | CMD serve $PORT\n"
            'hint: write it as a JSON array: `CMD ["program", "argument"]`\n\n'
            f"warning: UndefinedVar: variable `UNKNOWN` is not defined\n  --> {file}:6\n"
            " 5 | CMD serve $PORT\n 6 | LABEL a=$UNKNOWN\n\n"
            "2 violations; https://github.com/memobuild/memobuild-ci/blob/main/docs/reference/checks.md explains the rules\n",
        )
        clean = self.context("FROM scratch\n", name="clean")
        self.assertEqual(self.call("check", clean).stdout, "no violations\n")
        self.call("check,ignorestatus=true", context)

    def test_json_has_the_fields_of_buildkit(self):
        context = self.context("FROM scratch\nLABEL a \\\n  b\n")
        answer = json.loads(self.call("check,format=json", context, exit=VIOLATIONS).stdout)
        ranges = [{"start": {"line": n}, "end": {"line": n}} for n in (2, 3)]
        url = "https://github.com/memobuild/memobuild-ci/blob/main/docs/reference/checks.md#legacykeyvalueformat"
        self.assertEqual(
            answer,
            {
                "warnings": [
                    {
                        "ruleName": "LegacyKeyValueFormat",
                        "description": "ENV and LABEL have the form `name=value`",
                        "url": url,
                        "detail": "the form `name value` is old; write `name=value`",
                        "location": {"ranges": ranges},
                    }
                ],
                "sources": [
                    {"filename": f"{context}/Dockerfile", "language": "Dockerfile", "data": "RlJPTSBzY3JhdGNoCkxBQkVMIGEgXAogIGIK"}
                ],
            },
        )

    def test_annotations(self):
        context = self.context(self.DOCKERFILE)
        said = self.call("check,format=github", context, exit=VIOLATIONS).stdout
        file = f"{context}/Dockerfile"
        lines = said.splitlines()
        self.assertEqual(
            lines[1], f"::warning file={file},line=6,endLine=6,title=UndefinedVar::variable `UNKNOWN` is not defined"
        )
        issues = json.loads(self.call("check,format=gitlab", context, exit=VIOLATIONS).stdout)
        self.assertEqual(issues[1]["check_name"], "UndefinedVar")
        self.assertEqual(issues[1]["severity"], "minor")
        self.assertEqual(issues[1]["location"], {"path": file, "lines": {"begin": 6, "end": 6}})
        self.assertEqual(len({issue["fingerprint"] for issue in issues}), 2)
        # Lines above change nothing about an issue's identity.
        self.write("context/Dockerfile", "#\n#\n" + open(f"{context}/Dockerfile").read())
        moved = json.loads(self.call("check,format=gitlab", context, exit=VIOLATIONS).stdout)
        self.assertEqual([i["fingerprint"] for i in moved], [i["fingerprint"] for i in issues])
        self.assertEqual(moved[1]["location"]["lines"]["begin"], 8)

    def test_a_build_error_is_reported_with_the_violations(self):
        context = self.context("FROM scratch AS Base\nCOPY --from=5 / /\n")
        result = self.call("check", context, exit=INVALID)
        self.assertIn("warning: StageNameCasing", result.stdout)
        self.assertNotIn("violation", result.stderr)
        self.assertIn("error: ", result.stderr)
        said = self.call("check,format=github", context, exit=INVALID).stdout
        self.assertIn(f"::error file={context}/Dockerfile,line=2,endLine=2,title=build error::", said)
        answer = json.loads(self.call("check,format=json", context, exit=INVALID).stdout)
        self.assertEqual(answer["buildError"]["location"]["ranges"][0]["start"]["line"], 2)

    def test_a_file_that_does_not_parse(self):
        """It has the violations that stand before the error."""
        text = "FROM scratch AS Base\nMAINTAINER joe\nRUNN x\nMAINTAINER jane\n"
        context = self.context(text)
        result = self.call("check", context, exit=INVALID)
        self.assertIn(f"warning: StageNameCasing: stage name `Base` is not lower case\n  --> {context}/Dockerfile:1\n", result.stdout)
        self.assertIn("\n2 violations; ", result.stdout)
        self.assertIn("error: unknown instruction `RUNN`", result.stderr)
        answer = json.loads(self.call("check,format=json", context, exit=INVALID).stdout)
        self.assertEqual([w["ruleName"] for w in answer["warnings"]], ["StageNameCasing", "MaintainerDeprecated"])
        self.assertEqual(answer["buildError"]["location"]["ranges"], [{"start": {"line": 3}, "end": {"line": 3}}])
        self.assertEqual(answer["sources"][0]["filename"], f"{context}/Dockerfile")
        skip = ("--build-arg", "BUILDKIT_DOCKERFILE_CHECK=skip=StageNameCasing")
        said = self.call("check,format=github", context, *skip, exit=INVALID).stdout
        self.assertEqual([line.split(" ")[0] for line in said.splitlines()], ["::warning", "::error"], said)
        # A Dockerfile that is in no file is shown as well.
        words = ("--call", "check,format=json", "-f", "-", context)
        answer = json.loads(self.memobuild("build", *words, stdin=f"{context}/Dockerfile", exit=INVALID).stdout)
        self.assertEqual(len(answer["warnings"]), 2)
        self.assertEqual(answer["buildError"]["location"]["ranges"][0]["start"]["line"], 3)

    def test_a_base_image_that_is_not_there(self):
        """A check needs base images, and says where the missing one is wanted; the rest doesn't."""
        context = self.context("FROM scratch AS a\nARG A=1\nFROM gone AS b\nARG B=$A\n")
        layout = ("--build-context", f"gone=oci-layout://{self.directory}/nothing")
        answer = json.loads(self.call("check,format=json", context, *layout, exit=NOT_FOUND).stdout)
        self.assertEqual(answer["buildError"]["location"]["ranges"][0]["start"]["line"], 3)
        remote = self.context("FROM localhost:1/nothing\nARG B=1\n", name="remote")
        outline = json.loads(self.call("outline,format=json", remote).stdout)
        self.assertEqual(outline["args"][0]["name"], "B")
        self.assertEqual(len(json.loads(self.call("targets,format=json", context).stdout)["targets"]), 2)

    def test_outline_and_targets_for_people(self):
        context = self.context(self.DOCKERFILE + "        FROM base\n        ARG FLAG\n")
        self.assertEqual(
            self.call("outline", context).stdout,
            "BUILD ARG   VALUE   DESCRIPTION\nPORT        80      to listen on\nFLAG\n\n",
        )
        self.assertEqual(
            self.call("outline", context, "--target", "base").stdout,
            "TARGET:      base\nDESCRIPTION: is empty\n\nBUILD ARG   VALUE   DESCRIPTION\nPORT        80      to listen on\n\n",
        )
        self.assertEqual(self.call("targets", context).stdout, "TARGET     DESCRIPTION\nbase       is empty\n(default)\n")

    def test_usage(self):
        context = self.context("FROM scratch\n")
        for words, message in [
            (["--call", "lnt"], "`lnt`"),
            (["--call", "check,format=xml"], "`format=xml`"),
            (["--call", "targets,format=gitlab"], "`format`"),
            (["--check", "--call", "outline"], "different things"),
        ]:
            self.assertIn(message, self.memobuild("build", *words, context, exit=2).stderr)

    def test_layer_targets_are_checked_together(self):
        self.write("base/Dockerfile", "FROM scratch AS Base\nLABEL a=1\n")
        self.write("app/Dockerfile", "ARG BASE_IMAGE\nFROM ${BASE_IMAGE:-scratch}\nCMD a\n")
        self.write(
            "memobuild.yml",
            """
            version: 1
            image: example.com/app
            layers:
              base: {dockerfile: base/Dockerfile, context: base}
              app: {dockerfile: app/Dockerfile, context: app, from: base}
            """,
        )
        result = self.memobuild("-C", self.directory, "build", "--call", "check,format=json", exit=None)
        self.assertEqual(result.returncode, VIOLATIONS, result.stderr)


class Build(support.EndToEnd):
    """What checks mean to a build."""

    def test_a_build_warns(self):
        context = self.context("FROM busybox\nCMD a\nLABEL x=$Y\n")
        said = self.build(context).result.stderr
        self.assertIn("JSONArgsRecommended: CMD in shell form", said)
        self.assertIn("UndefinedVar: variable `Y` is not defined", said)
        self.assertIn(f"{context}/Dockerfile:3", said)

    def test_error_true_fails_before_anything_runs(self):
        context = self.context("# check=error=true\nFROM busybox\nRUN exit 3\nCMD a\nLABEL x=$Y\n")
        said = self.build_fails(VIOLATIONS, context)
        self.assertIn("JSONArgsRecommended (line 4), UndefinedVar (line 5)", said)
        self.assertNotIn("exit 3", said)
        skipped = ("--build-arg", "BUILDKIT_DOCKERFILE_CHECK=skip=all;error=true")
        self.assertIn("code 3", self.build_fails(30, context, *skipped))
        wrong = ("--build-arg", "BUILDKIT_DOCKERFILE_CHECK=skp=all")
        self.assertIn("BUILDKIT_DOCKERFILE_CHECK", self.build_fails(2, context, *wrong))
