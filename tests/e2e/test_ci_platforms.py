"""What the program makes of CI platforms, compared with the npm package env-ci, and with GitHub's own examples of webhooks."""

import glob
import json
import os
import shutil

import builders
import support

# Runs env-ci in each of a list of environments.
ORACLE = """
import envCi from %s;
import { readFileSync } from "node:fs";
const rows = JSON.parse(readFileSync(process.argv[2], "utf-8"));
process.stdout.write(JSON.stringify(rows.map((row) => envCi(row))));
"""

# Names of the same platform, theirs and ours.
PLATFORMS = {"azurePipelines": "azure"}
FIELDS = ("platform", "commit", "branch", "tag", "isPr", "pr", "prBranch", "slug")

GITHUB = {"CI": "true", "GITHUB_ACTIONS": "true", "GITHUB_REPOSITORY": "acme/service", "GITHUB_SHA": "SHA"}
GITLAB = {"CI": "true", "GITLAB_CI": "true", "CI_PROJECT_PATH": "acme/service", "CI_COMMIT_SHA": "SHA"}
DRONE = {"CI": "true", "DRONE": "true", "DRONE_REPO": "acme/service", "DRONE_REPO_OWNER": "acme", "DRONE_REPO_NAME": "service", "DRONE_COMMIT_SHA": "SHA"}
WOODPECKER = {"CI": "woodpecker", "CI_REPO": "acme/service", "CI_REPO_OWNER": "acme", "CI_REPO_NAME": "service", "CI_COMMIT_SHA": "SHA"}
AZURE = {"TF_BUILD": "True", "BUILD_BUILDURI": "vstfs:///Build/Build/9", "BUILD_SOURCEVERSION": "SHA"}
BUILDKITE = {"CI": "true", "BUILDKITE": "true", "BUILDKITE_REPO": "git@github.com:acme/service.git", "BUILDKITE_COMMIT": "SHA", "BUILDKITE_SOURCE": "webhook"}
CIRCLE = {"CI": "true", "CIRCLECI": "true", "CIRCLE_PROJECT_USERNAME": "acme", "CIRCLE_PROJECT_REPONAME": "service", "CIRCLE_SHA1": "SHA"}
CODEBUILD = {"CI": "true", "CODEBUILD_BUILD_ID": "service:1", "CODEBUILD_RESOLVED_SOURCE_VERSION": "SHA"}
JENKINS = {"JENKINS_URL": "http://jenkins.example/", "GIT_COMMIT": "SHA"}
BITBUCKET = {"CI": "true", "BITBUCKET_BUILD_NUMBER": "1", "BITBUCKET_REPO_FULL_NAME": "acme/service", "BITBUCKET_COMMIT": "SHA"}
REQUEST = {
    "number": 7,
    "repository": {"full_name": "acme/service"},
    "pull_request": {
        "number": 7,
        "base": {"ref": "main", "repo": {"full_name": "acme/service"}},
        "head": {"ref": "fix", "repo": {"full_name": "acme/service"}},
    },
}

# Why we answer something else than env-ci.
A_TAG_IS_NO_BRANCH = "a tag is a tag, and no branch"
THE_BRANCH_IT_COMES_FROM = "a pull request comes from a branch, not from the ref that is checked out"
THE_NUMBER_PEOPLE_SEE = "the number within the repository, which is the one in addresses"
MORE_IS_KNOWN = "the platform says it"
OUR_NAME = "Gitea's and Forgejo's differ from GitHub's"
NO_PLATFORM = "outside of CI nothing is said about the build; the repository is read when it is needed"
NOTHING_KNOWN = "of this platform only its name is known: nothing it says is relied on"

# Name, variables, description of the event, and the intended differences: field -> (theirs, ours, why).
ROWS = [
    ("woodpecker push", {**WOODPECKER, "CI_PIPELINE_EVENT": "push", "CI_COMMIT_BRANCH": "main"}, None, {}),
    (
        "woodpecker pull request",
        {**WOODPECKER, "CI_PIPELINE_EVENT": "pull_request", "CI_COMMIT_BRANCH": "main", "CI_COMMIT_TARGET_BRANCH": "main", "CI_COMMIT_SOURCE_BRANCH": "fix", "CI_COMMIT_PULL_REQUEST": "7"},
        None,
        {},
    ),
    ("woodpecker tag", {**WOODPECKER, "CI_PIPELINE_EVENT": "tag", "CI_COMMIT_TAG": "v1"}, None, {}),
    ("drone push", {**DRONE, "DRONE_BUILD_EVENT": "push", "DRONE_BRANCH": "main"}, None, {}),
    (
        "drone pull request",
        {**DRONE, "DRONE_BUILD_EVENT": "pull_request", "DRONE_BRANCH": "main", "DRONE_TARGET_BRANCH": "main", "DRONE_SOURCE_BRANCH": "fix", "DRONE_PULL_REQUEST": "7", "DRONE_COMMIT_REF": "refs/pull/7/head"},
        None,
        {},
    ),
    ("drone tag", {**DRONE, "DRONE_BUILD_EVENT": "tag", "DRONE_TAG": "v1", "DRONE_BRANCH": "main"}, None, {"branch": ("main", None, A_TAG_IS_NO_BRANCH)}),
    ("github push", {**GITHUB, "GITHUB_EVENT_NAME": "push", "GITHUB_REF": "refs/heads/main"}, {"before": "0" * 40}, {}),
    ("github push of a deep branch", {**GITHUB, "GITHUB_EVENT_NAME": "push", "GITHUB_REF": "refs/heads/a/b"}, None, {}),
    (
        "github tag",
        {**GITHUB, "GITHUB_EVENT_NAME": "push", "GITHUB_REF": "refs/tags/v1"},
        None,
        {"branch": ("refs/tags/v1", None, A_TAG_IS_NO_BRANCH), "tag": (None, "v1", MORE_IS_KNOWN)},
    ),
    (
        "github pull request",
        {**GITHUB, "GITHUB_EVENT_NAME": "pull_request", "GITHUB_REF": "refs/pull/7/merge"},
        REQUEST,
        {"prBranch": ("refs/pull/7/merge", "fix", THE_BRANCH_IT_COMES_FROM)},
    ),
    (
        "github pull request target",
        {**GITHUB, "GITHUB_EVENT_NAME": "pull_request_target", "GITHUB_REF": "refs/heads/main"},
        REQUEST,
        {"prBranch": ("refs/pull/7/merge", "fix", THE_BRANCH_IT_COMES_FROM)},
    ),
    ("github merge queue", {**GITHUB, "GITHUB_EVENT_NAME": "merge_group", "GITHUB_REF": "refs/heads/gh-readonly-queue/main/pr-7"}, None, {}),
    ("gitea push", {**GITHUB, "GITEA_ACTIONS": "true", "GITHUB_EVENT_NAME": "push", "GITHUB_REF": "refs/heads/main"}, None, {"platform": ("github", "gitea", OUR_NAME)}),
    (
        "forgejo push",
        {**GITHUB, "GITEA_ACTIONS": "true", "FORGEJO_ACTIONS": "true", "GITHUB_EVENT_NAME": "push", "GITHUB_REF": "refs/heads/main"},
        None,
        {"platform": ("github", "forgejo", OUR_NAME)},
    ),
    ("gitlab push", {**GITLAB, "CI_PIPELINE_SOURCE": "push", "CI_COMMIT_REF_NAME": "main"}, None, {}),
    (
        "gitlab merge request",
        {
            **GITLAB,
            "CI_PIPELINE_SOURCE": "merge_request_event",
            "CI_COMMIT_REF_NAME": "fix",
            "CI_MERGE_REQUEST_ID": "4711",
            "CI_MERGE_REQUEST_IID": "7",
            "CI_MERGE_REQUEST_TARGET_BRANCH_NAME": "main",
            "CI_MERGE_REQUEST_SOURCE_BRANCH_NAME": "fix",
        },
        None,
        {"pr": ("4711", "7", THE_NUMBER_PEOPLE_SEE)},
    ),
    ("gitlab tag", {**GITLAB, "CI_PIPELINE_SOURCE": "push", "CI_COMMIT_REF_NAME": "v1", "CI_COMMIT_TAG": "v1"}, None, {"branch": ("v1", None, A_TAG_IS_NO_BRANCH)}),
    (
        "gitlab of another platform's pull request",
        {**GITLAB, "CI_PIPELINE_SOURCE": "external_pull_request_event", "CI_COMMIT_REF_NAME": "fix", "CI_EXTERNAL_PULL_REQUEST_IID": "7", "CI_EXTERNAL_PULL_REQUEST_TARGET_BRANCH_NAME": "main"},
        None,
        {"isPr": (False, True, MORE_IS_KNOWN), "pr": (None, "7", MORE_IS_KNOWN), "branch": ("fix", "main", MORE_IS_KNOWN)},
    ),
    ("azure push", {**AZURE, "BUILD_REASON": "IndividualCI", "BUILD_SOURCEBRANCH": "refs/heads/main"}, None, {}),
    (
        "azure pull request",
        {**AZURE, "BUILD_REASON": "PullRequest", "BUILD_SOURCEBRANCH": "refs/pull/7/merge", "SYSTEM_PULLREQUEST_PULLREQUESTID": "7", "SYSTEM_PULLREQUEST_TARGETBRANCH": "refs/heads/main", "SYSTEM_PULLREQUEST_SOURCEBRANCH": "refs/heads/fix"},
        None,
        {},
    ),
    (
        "azure pull request of github",
        {**AZURE, "BUILD_REASON": "PullRequest", "BUILD_SOURCEBRANCH": "refs/pull/7/merge", "SYSTEM_PULLREQUEST_PULLREQUESTID": "4711", "SYSTEM_PULLREQUEST_PULLREQUESTNUMBER": "7", "SYSTEM_PULLREQUEST_TARGETBRANCH": "main", "SYSTEM_PULLREQUEST_SOURCEBRANCH": "fix"},
        None,
        {"pr": ("4711", "7", THE_NUMBER_PEOPLE_SEE)},
    ),
    (
        "azure tag",
        {**AZURE, "BUILD_REASON": "IndividualCI", "BUILD_SOURCEBRANCH": "refs/tags/v1", "BUILD_REPOSITORY_NAME": "acme/service"},
        None,
        {"branch": ("refs/tags/v1", None, A_TAG_IS_NO_BRANCH), "tag": (None, "v1", MORE_IS_KNOWN), "slug": (None, "acme/service", MORE_IS_KNOWN)},
    ),
    ("buildkite push", {**BUILDKITE, "BUILDKITE_BRANCH": "main", "BUILDKITE_PULL_REQUEST": "false"}, None, {}),
    ("buildkite newest", {**BUILDKITE, "BUILDKITE_COMMIT": "HEAD", "BUILDKITE_BRANCH": "main", "BUILDKITE_PULL_REQUEST": "false"}, None, {}),
    ("buildkite pull request", {**BUILDKITE, "BUILDKITE_BRANCH": "fix", "BUILDKITE_PULL_REQUEST": "7", "BUILDKITE_PULL_REQUEST_BASE_BRANCH": "main"}, None, {}),
    ("buildkite tag", {**BUILDKITE, "BUILDKITE_BRANCH": "v1", "BUILDKITE_TAG": "v1", "BUILDKITE_PULL_REQUEST": "false"}, None, {"branch": ("v1", None, A_TAG_IS_NO_BRANCH)}),
    ("circleci push", {**CIRCLE, "CIRCLE_BRANCH": "main"}, None, {}),
    ("circleci pull request", {**CIRCLE, "CIRCLE_BRANCH": "fix", "CIRCLE_PULL_REQUEST": "https://github.com/acme/service/pull/7"}, None, {}),
    ("circleci fork", {**CIRCLE, "CIRCLE_BRANCH": "pull/7", "CIRCLE_PR_NUMBER": "7", "CIRCLE_PULL_REQUEST": "https://github.com/acme/service/pull/7"}, None, {}),
    ("circleci tag", {**CIRCLE, "CIRCLE_TAG": "v1"}, None, {}),
    ("codebuild push", {**CODEBUILD, "CODEBUILD_WEBHOOK_EVENT": "PUSH", "CODEBUILD_WEBHOOK_TRIGGER": "branch/main"}, None, {}),
    (
        "codebuild pull request",
        {**CODEBUILD, "CODEBUILD_WEBHOOK_EVENT": "PULL_REQUEST_CREATED", "CODEBUILD_WEBHOOK_TRIGGER": "pr/7", "CODEBUILD_WEBHOOK_BASE_REF": "refs/heads/main", "CODEBUILD_WEBHOOK_HEAD_REF": "refs/heads/fix"},
        None,
        {"isPr": (False, True, MORE_IS_KNOWN), "pr": (None, "7", MORE_IS_KNOWN), "prBranch": (None, "fix", MORE_IS_KNOWN)},
    ),
    ("jenkins job", {**JENKINS, "GIT_LOCAL_BRANCH": "main", "GIT_BRANCH": "origin/main"}, None, {}),
    ("jenkins fetched branch", {**JENKINS, "GIT_BRANCH": "origin/main"}, None, {"branch": ("origin/main", "main", "the branch, not that it was fetched")}),
    ("jenkins multibranch", {**JENKINS, "BRANCH_NAME": "main", "GIT_URL": "https://git.example/acme/service.git"}, None, {"slug": (None, "acme/service", MORE_IS_KNOWN)}),
    ("jenkins tag", {**JENKINS, "BRANCH_NAME": "v1", "TAG_NAME": "v1"}, None, {"branch": ("v1", None, A_TAG_IS_NO_BRANCH), "tag": (None, "v1", MORE_IS_KNOWN)}),
    (
        "jenkins change",
        {**JENKINS, "BRANCH_NAME": "PR-7", "CHANGE_ID": "7", "CHANGE_TARGET": "main", "CHANGE_BRANCH": "fix"},
        None,
        {"branch": (None, "main", MORE_IS_KNOWN), "prBranch": ("PR-7", "fix", THE_BRANCH_IT_COMES_FROM)},
    ),
    ("jenkins plugin for github", {**JENKINS, "ghprbPullId": "7", "ghprbTargetBranch": "main", "ghprbSourceBranch": "fix"}, None, {}),
    ("jenkins plugin for gitlab", {**JENKINS, "gitlabMergeRequestId": "7", "gitlabTargetBranch": "main", "gitlabSourceBranch": "fix"}, None, {}),
    ("bitbucket push", {**BITBUCKET, "BITBUCKET_BRANCH": "main"}, None, {}),
    ("bitbucket tag", {**BITBUCKET, "BITBUCKET_TAG": "v1"}, None, {}),
    (
        "bitbucket pull request",
        {**BITBUCKET, "BITBUCKET_BRANCH": "fix", "BITBUCKET_PR_ID": "7", "BITBUCKET_PR_DESTINATION_BRANCH": "main"},
        None,
        {"isPr": (False, True, MORE_IS_KNOWN), "pr": (None, "7", MORE_IS_KNOWN), "branch": ("fix", "main", MORE_IS_KNOWN), "prBranch": (None, "fix", MORE_IS_KNOWN)},
    ),
    ("git", {}, None, {"platform": (None, "none", NO_PLATFORM), "commit": ("SHA", None, NO_PLATFORM), "branch": ("main", None, NO_PLATFORM)}),
    ("git in an unknown place", {"CI": "true"}, None, {"platform": (None, "other", NO_PLATFORM), "commit": ("SHA", None, NOTHING_KNOWN), "branch": ("main", None, NOTHING_KNOWN)}),
]

# The variables by which env-ci knows the platforms that we know nothing else of.
ELSEWHERE = {
    "appveyor": "APPVEYOR",
    "bamboo": "bamboo_agentId",
    "bitrise": "BITRISE_IO",
    "buddy": "BUDDY_WORKSPACE_ID",
    "cirrus": "CIRRUS_CI",
    "cloudflarePages": "CF_PAGES",
    "codefresh": "CF_BUILD_ID",
    "codeship": "CI_NAME",
    "jetbrainsSpace": "JB_SPACE_EXECUTION_NUMBER",
    "netlify": "NETLIFY",
    "puppet": "DISTELLI_APPNAME",
    "sail": "SAILCI",
    "screwdriver": "SCREWDRIVER",
    "scrutinizer": "SCRUTINIZER",
    "semaphore": "SEMAPHORE",
    "shippable": "SHIPPABLE",
    "teamcity": "TEAMCITY_VERSION",
    "travis": "TRAVIS",
    "vela": "VELA",
    "vercel": "VERCEL",
    "wercker": "WERCKER_MAIN_PIPELINE_STARTED",
}
VALUES = {"CF_PAGES": "1", "CI_NAME": "codeship", "NETLIFY": "true"}


class CiPlatforms(support.EndToEnd):
    needs_root = False

    def setUp(self):
        super().setUp()
        self.need("git", "node")
        cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        self.modules = os.path.join(cache, "memobuild-test/node/node_modules")
        self.repository = self.path("repository")
        os.makedirs(self.repository)
        self.git("init", "-q", "-b", "main")
        self.git("commit", "-q", "--allow-empty", "-m", "one")
        self.sha = self.git("rev-parse", "HEAD")

    def git(self, *words):
        who = ["-c", "user.name=t", "-c", "user.email=t@example.com"]
        return builders.run(["git", *who, "-C", self.repository, *words]).stdout.strip()

    def module(self, name):
        path = os.path.join(self.modules, name)
        if not os.path.isdir(path):
            self.missing(f"the npm package {name} (scripts/setup-test installs it)")
        return path

    def environment(self, variables, payload):
        variables = {name: value.replace("SHA", self.sha) for name, value in variables.items()}
        if payload is not None:
            variables["GITHUB_EVENT_PATH"] = self.write("event.json", json.dumps(payload))
        return {"PATH": os.environ["PATH"], "HOME": self.directory, **variables}

    def ours(self, environment):
        """What the program says, checked to be an answer whatever the variables are."""
        result = builders.run([support.BINARY, "ci", "--json"], cwd=self.repository, env=environment)
        self.assertEqual(result.stderr, "")
        said = json.loads(result.stdout)
        self.assertEqual(said["schema_version"], 1)
        return said

    def comparable(self, said):
        """Our answer in the words of env-ci."""
        request = said["pull_request"]
        return {
            "platform": said["platform"],
            "commit": said["head"],
            "branch": said["target_branch"] if request else said["branch"],
            "tag": said["tag"],
            "isPr": request is not None,
            "pr": request and request["number"],
            "prBranch": said["source_branch"] if request else None,
            "slug": said["repository"],
        }

    def oracle(self, environments):
        index = os.path.join(self.module("env-ci"), "index.js")
        script = self.write("oracle.mjs", ORACLE % json.dumps(index))
        rows = self.write("rows.json", json.dumps([{"env": env, "cwd": self.repository} for env in environments]))
        answers = json.loads(builders.run(["node", script, rows]).stdout)
        for answer in answers:
            answer["platform"] = PLATFORMS.get(answer.get("service"), answer.get("service"))
            answer["isPr"] = bool(answer.get("isPr"))
            # Empty is absent; a number of a payload is a number; some names are put together of nothing.
            for name in FIELDS:
                value = answer.get(name)
                if name != "isPr" and (not value or str(value).startswith("undefined")):
                    answer[name] = None
                elif name == "pr":
                    answer[name] = str(value)
        return answers

    def test_env_ci_says_the_same(self):
        self.module("env-ci")
        environments, said = [], []
        for at, (_, variables, payload, _) in enumerate(ROWS):
            environment = self.environment(variables, payload)
            if payload is not None:
                # The oracle reads it later.
                environment["GITHUB_EVENT_PATH"] = shutil.copy(environment["GITHUB_EVENT_PATH"], self.path(f"event-{at}.json"))
            environments.append(environment)
            said.append(self.comparable(self.ours(environment)))
        for (name, _, _, intended), theirs, ours in zip(ROWS, self.oracle(environments), said):
            found = {field: (theirs.get(field), ours[field]) for field in FIELDS if theirs.get(field) != ours[field]}
            wanted = {field: tuple(v and v.replace("SHA", self.sha) if isinstance(v, str) else v for v in row[:2]) for field, row in intended.items()}
            self.assertEqual(found, wanted, name)

    def test_every_platform_of_env_ci_is_compared(self):
        services = {os.path.basename(path)[:-3] for path in glob.glob(os.path.join(self.module("env-ci"), "services/*.js"))}
        camel = {"".join([word if at == 0 else word.capitalize() for at, word in enumerate(name.split("-"))]) for name in services}
        known = {name.split()[0] for name, *_ in ROWS}
        compared = {theirs for theirs in camel if PLATFORMS.get(theirs, theirs) in known}
        self.assertEqual(camel - compared, set(ELSEWHERE))
        environments = [self.environment({name: VALUES.get(name, "x"), "REPOSITORY_URL": "a/b"}, None) for name in ELSEWHERE.values()]
        for service, environment, theirs in zip(ELSEWHERE, environments, self.oracle(environments)):
            self.assertEqual(theirs["service"], service)
            ours = self.ours(environment)
            self.assertEqual(ours["platform"], "other", NOTHING_KNOWN)
            self.assertEqual(ours["cache"], {"scope": "local", "reads": ["protected", "local"], "saves": False})

    def examples(self, event):
        path = os.path.join(self.module("@octokit/webhooks-examples"), "api.github.com/index.json")
        with open(path) as file:
            rows = [row for row in json.load(file) if row["name"] == event]
        self.assertTrue(rows and rows[0]["examples"])
        return rows[0]["examples"]

    def github(self, event, git_ref, payload, **more):
        variables = {**GITHUB, "GITHUB_EVENT_NAME": event, "GITHUB_REF": git_ref, "GITHUB_REF_PROTECTED": "true", **more}
        said = self.ours(self.environment(variables, payload))
        self.assertEqual(said["warnings"], [])
        return said, [(row["place"], row["reason"]) for row in said["base"]["candidates"]]

    def test_pushes_of_github(self):
        kinds = set()
        for payload in self.examples("push"):
            said, places = self.github("push", payload["ref"], payload)
            default = f"the merge base with branch `{payload['repository']['default_branch']}`"
            if payload["deleted"]:
                kinds.add("deleted")
                self.assertEqual((said["event"], places), ("delete", []))
                self.assertEqual(said["revision"]["reason"], "deleted")
            elif payload["ref"].startswith("refs/tags/"):
                kinds.add("tag")
                self.assertEqual((said["event"], said["branch"]), ("tag", None))
                self.assertEqual(places, [("the nearest tag behind the head", "previous-tag")])
            elif payload["created"]:
                kinds.add("created")
                self.assertEqual(places, [(default, "new-branch")])
            # None of the examples is one of these.
            for before, forced, reason in ("1" * 40, False, "push-before"), ("2" * 40, True, "force-push"):
                if payload["ref"].startswith("refs/heads/") and not payload["deleted"]:
                    changed = {**payload, "before": before, "created": False, "forced": forced}
                    _, places = self.github("push", payload["ref"], changed)
                    last = (default, reason if forced else "default-branch")
                    self.assertEqual(places, [(f"commit `{before}`", reason), last])
        self.assertEqual(kinds, {"deleted", "tag", "created"})

    def test_pull_requests_of_github(self):
        for payload in self.examples("pull_request"):
            request = payload["pull_request"]
            base, head = request["base"], request["head"]
            said, places = self.github("pull_request", f"refs/pull/{request['number']}/merge", payload)
            self.assertEqual(said["event"], "pull-request")
            fork = head["repo"] is None or head["repo"]["full_name"] != base["repo"]["full_name"]
            labels = [label["name"] for label in request["labels"]]
            told = {"number": str(request["number"]), "base": base["ref"], "source": head["ref"], "fork": fork, "labels": labels}
            self.assertEqual(said["pull_request"], told)
            self.assertEqual(said["cache"]["scope"], f"pull/{request['number']}")
            self.assertEqual(said["cache"]["saves"], not fork)
            self.assertEqual(
                places,
                [
                    ("the first parent of the pull request's merge commit", "merge-commit-parent"),
                    (f"the merge base with commit `{base['sha']}`", "pull-request"),
                    (f"the merge base with branch `{base['ref']}`", "pull-request"),
                ],
            )
            # None of it is here.
            self.assertIsNone(said["revision"]["commit"])
            self.assertEqual(said["revision"]["reason"], "unreachable")

    def test_merge_groups_and_dispatches_of_github(self):
        for payload in self.examples("merge_group"):
            group = payload["merge_group"]
            said, places = self.github("merge_group", group["head_ref"], payload)
            self.assertEqual((said["event"], said["target_branch"]), ("merge-group", "main"))
            self.assertEqual(places, [(f"commit `{group['base_sha']}`", "merge-group"), ("the merge base with branch `main`", "pull-request")])
            self.assertEqual(said["messages"], [group["head_commit"]["message"]])
        for payload in self.examples("workflow_dispatch"):
            default = payload["repository"]["default_branch"]
            said, places = self.github("workflow_dispatch", payload["ref"], payload)
            self.assertEqual((said["event"], said["default_branch"]), ("dispatch", default))
            self.assertEqual(places, [(f"the merge base with branch `{default}`", "default-branch")])
            _, places = self.github("workflow_dispatch", payload["ref"], {**payload, "inputs": {"base": "v1"}})
            self.assertEqual(places[0], ("`v1`", "asked"))

    def test_every_example_is_read_whatever_the_event_is_said_to_be(self):
        path = os.path.join(self.module("@octokit/webhooks-examples"), "api.github.com/index.json")
        with open(path) as file:
            rows = json.load(file)
        for row in rows:
            payload = row["examples"][0]
            for event in (row["name"], "push", "pull_request", "merge_group", "workflow_dispatch"):
                said, _ = self.github(event, "refs/heads/main", payload)
                # The head is the only commit: nothing can be its base.
                self.assertIsNone(said["revision"]["commit"], (row["name"], event))
                if said["pull_request"]:
                    self.assertTrue(said["cache"]["scope"].startswith("pull/"))

    def test_hostile_texts_do_nothing(self):
        texts = ["$(touch /tmp/x)", "`touch x`", "a'b\"c", "a\nb", "--upload-pack=touch x", "\x1b[31mred", "::error::x", "##[command]x", "\ufeff", "é" * 4000, "../../x", "0" * 39, "-1"]
        names = ["GITHUB_SHA", "GITHUB_REF", "GITHUB_EVENT_NAME", "GITHUB_BASE_REF", "GITHUB_HEAD_REF", "GITHUB_REPOSITORY"]
        pointers = [("before",), ("repository", "default_branch"), ("pull_request", "base", "sha"), ("pull_request", "base", "ref"), ("inputs", "base"), ("merge_group", "base_sha")]
        for text in texts:
            payload = {}
            for pointer in pointers:
                at = payload
                for name in pointer[:-1]:
                    at = at.setdefault(name, {})
                at[pointer[-1]] = text
            for event in ("push", "pull_request", "merge_group", "workflow_dispatch"):
                only = {"push": ("before", "repository"), "workflow_dispatch": ("inputs", "repository"), "merge_group": ("merge_group",), "pull_request": ("pull_request",)}[event]
                described = {name: payload[name] for name in only}
                variables = {**GITHUB, **{name: text for name in names}, "GITHUB_EVENT_NAME": event}
                environment = self.environment(variables, described)
                said = self.ours(environment)
                self.assertIsNone(said["revision"]["commit"], (event, text))
                shown = builders.run([support.BINARY, "ci"], cwd=self.repository, env=environment).stdout
                self.assertNotRegex(shown, r"(?m)[\x00-\x09\x0b-\x1f\x7f]|^(::|##)|##\[")
        self.assertEqual(os.listdir(self.repository), [".git"])

    def test_what_people_read(self):
        self.git("commit", "-q", "--allow-empty", "-m", "two")
        two = self.git("rev-parse", "HEAD")
        variables = {**GITHUB, "GITHUB_SHA": "1" * 40, "GITHUB_EVENT_NAME": "push", "GITHUB_REF": "refs/heads/main"}
        payload = {"before": self.sha, "repository": {"default_branch": "main"}}
        run = lambda payload: builders.run([support.BINARY, "ci"], cwd=self.repository, env=self.environment(variables, payload)).stdout
        self.assertEqual(
            run(payload).splitlines(),
            [
                "platform        GitHub Actions",
                "event           push",
                "repository      acme/service",
                "ref             refs/heads/main",
                f"head            {'1' * 40}",
                "default branch  main",
                "cache scope     branch/main",
                "reads           protected, branch/main",
                "saves           in the local cache and in remote caches",
                f"checked out     {two}",
                f"base            {self.sha}, commit `{self.sha}` (push-before)",
                f"warning         `{'1' * 40}` is said to be built, `{two}` is checked out and so is built",
            ],
        )
        payload["before"] = "2" * 40
        told = run(payload).splitlines()
        self.assertIn("base            none (unreachable)", told)
        self.assertIn(f"  not           commit `{'2' * 40}`: the clone doesn't have it", told)
        self.assertIn("  not           the merge base with branch `main`: it is the branch that is built", told)
        # The same in a clone without history: what to do about it.
        shallow = self.path("shallow")
        builders.run(["git", "clone", "-q", "--depth=1", f"file://{self.repository}", shallow])
        told = builders.run([support.BINARY, "-C", shallow, "ci"], env=self.environment(variables, {"before": self.sha})).stdout
        self.assertIn("base            none (shallow)", told)
        self.assertIn("hint            give the job all history: `fetch-depth: 0` for `actions/checkout`", told)
        # No repository, and one without commits.
        elsewhere = self.path("elsewhere")
        os.makedirs(elsewhere)
        told = builders.run([support.BINARY, "-C", elsewhere, "ci"], env=self.environment({}, None)).stdout
        self.assertIn("base            unknown: this is no Git repository", told)
        builders.run(["git", "init", "-q", elsewhere])
        told = builders.run([support.BINARY, "-C", elsewhere, "ci"], env=self.environment({}, None)).stdout
        self.assertRegex(told, r"warning         the Git repository `.*` has no commits yet")
