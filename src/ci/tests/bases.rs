//! What each platform's events are compared with, in a real repository.

use super::{history::History, *};

const ZERO: &str = "0000000000000000000000000000000000000000";
const GONE: &str = "dddddddddddddddddddddddddddddddddddddddd";

/// The context of these variables, in which `{A}` stands for commit A; `payload` is the
/// description of the event, if the platform has one.
fn context(history: &History, pairs: &[(&str, &str)], payload: &str) -> CiContext {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("event.json");
    let mut filled: Vec<(&str, String)> = Vec::new();
    for (name, value) in pairs {
        filled.push((name, history.fill(value)));
    }
    if !payload.is_empty() {
        crate::fs::write_atomic(&path, history.fill(payload).as_bytes()).unwrap();
        filled.push(("GITHUB_EVENT_PATH", path.to_str().unwrap().to_owned()));
    }
    let filled: Vec<(&str, &str)> = filled.iter().map(|(n, v)| (*n, v.as_str())).collect();
    detect(&Env::from_pairs(&filled))
}

/// A job of GitHub.
fn actions(history: &History, event: &str, git_ref: &str, sha: &str, payload: &str) -> CiContext {
    let payload = payload.replace(
        "REPOSITORY",
        r#""repository": {"full_name": "a/s", "default_branch": "main"}"#,
    );
    context(
        history,
        &[
            ("GITHUB_ACTIONS", "true"),
            ("GITHUB_EVENT_NAME", event),
            ("GITHUB_REF", git_ref),
            ("GITHUB_SHA", sha),
        ],
        &payload,
    )
}

#[test]
fn pushes_on_github() {
    let history = History::new();
    let push = |branch: &str, checkout: &str, payload: &str| {
        let name = format!("refs/heads/{branch}");
        let sha = format!("{{{checkout}}}");
        let context = actions(&history, "push", &name, &sha, payload);
        history.base(&context, checkout, None)
    };
    for (branch, checkout, payload, base) in [
        (
            "main",
            "C",
            r#"{"before": "{A}", "after": "{C}", REPOSITORY}"#.to_owned(),
            "push-before A",
        ),
        (
            "feature",
            "F2",
            r#"{"before": "{F1}", "created": false, REPOSITORY}"#.to_owned(),
            "push-before F1",
        ),
        // A new branch.
        (
            "feature",
            "F2",
            format!(r#"{{"before": "{ZERO}", "created": true, REPOSITORY}}"#),
            "new-branch B",
        ),
        // The same where nobody says which branch is the default: the clone does.
        (
            "feature",
            "F2",
            format!(r#"{{"before": "{ZERO}", "created": true}}"#),
            "new-branch B",
        ),
        // A new branch with nothing in common with the others.
        (
            "other",
            "O",
            format!(r#"{{"before": "{ZERO}", "created": true, REPOSITORY}}"#),
            "new-branch: [Unrelated]",
        ),
        // The first push of all.
        (
            "main",
            "C",
            format!(r#"{{"before": "{ZERO}", "created": true, REPOSITORY}}"#),
            "new-branch: [OwnBranch]",
        ),
        // A new branch that has nothing new is built, as it has nothing to be compared with.
        (
            "release",
            "B",
            format!(r#"{{"before": "{ZERO}", "created": true, REPOSITORY}}"#),
            "new-branch: [SameAsHead]",
        ),
        (
            "feature",
            "F2",
            r#"{"before": "{O}", "forced": true, REPOSITORY}"#.to_owned(),
            "force-push O",
        ),
        // What was there before is gone.
        (
            "feature",
            "F2",
            format!(r#"{{"before": "{GONE}", "forced": true, REPOSITORY}}"#),
            "force-push B",
        ),
        (
            "main",
            "C",
            format!(r#"{{"before": "{GONE}", "forced": true, REPOSITORY}}"#),
            "force-push: [NotHere, OwnBranch]",
        ),
        (
            "main",
            "C",
            format!(r#"{{"before": "{GONE}", REPOSITORY}}"#),
            "unreachable: [NotHere, OwnBranch]",
        ),
        (
            "main",
            "C",
            format!(r#"{{"before": "{{A}}", "after": "{ZERO}", "deleted": true, REPOSITORY}}"#),
            "deleted",
        ),
        // Payloads that are no such thing.
        (
            "main",
            "C",
            r#"{"before": "$(touch x)\n", REPOSITORY}"#.to_owned(),
            "unreachable: [NoId, OwnBranch]",
        ),
        (
            "main",
            "C",
            r#"{"before": 7, "forced": "yes", REPOSITORY}"#.to_owned(),
            "no-previous-build: [OwnBranch]",
        ),
        (
            "main",
            "C",
            "[".to_owned(),
            "no-previous-build: [OwnBranch]",
        ),
        ("feature", "F2", "[]".to_owned(), "default-branch B"),
    ] {
        assert_eq!(push(branch, checkout, &payload), base, "{branch} {payload}");
    }
}

#[test]
fn tags_on_github() {
    let history = History::new();
    let push = |tag: &str, checkout: &str, before: &str| {
        let name = format!("refs/tags/{tag}");
        let payload = format!(r#"{{"before": "{before}", REPOSITORY}}"#);
        let context = actions(&history, "push", &name, "{C}", &payload);
        assert_eq!(context.event, Event::Tag);
        history.base(&context, checkout, None)
    };
    assert_eq!(push("v2", "C", ZERO), "previous-tag A");
    assert_eq!(push("v1", "A", ZERO), "tag: [NoTag]");
    assert_eq!(push("v2", "C", "{B}"), "force-push B", "the tag was moved");
}

/// The description of pull request 7.
const REQUEST: &str = r#"{
    "action": "synchronize", "number": 7, "before": "{F1}", "after": "{F2}", REPOSITORY,
    "pull_request": {
        "number": 7, "labels": [{"name": "rebuild"}, {"name": 3}],
        "base": {"ref": "main", "sha": "{C}", "repo": {"full_name": "a/s"}},
        "head": {"ref": "feature", "sha": "{F2}", "repo": {"full_name": "a/s"}}
    }
}"#;

#[test]
fn pull_requests_on_github() {
    let history = History::new();
    let request = |event: &str, sha: &str, checkout: &str, depth| {
        let name = match event {
            "pull_request" => "refs/pull/7/merge",
            _ => "refs/heads/main",
        };
        let context = actions(&history, event, name, sha, REQUEST);
        assert_eq!(context.pull_request.as_ref().unwrap().labels, ["rebuild"]);
        history.base(&context, checkout, depth)
    };
    let merge = "merge-commit-parent C";
    assert_eq!(request("pull_request", "{M}", "M", None), merge);
    assert_eq!(request("pull_request", "{M}", "M", Some(2)), merge);
    // Some jobs check the proposal itself out, whose first parent hides the first commit.
    let head = request("pull_request", "{M}", "F2", None);
    assert_eq!(head, "pull-request B");
    // Depth 1, as a checkout has it where nobody says otherwise.
    let shallow = "shallow: [NotHere, NotHere, NotHere]";
    assert_eq!(request("pull_request", "{M}", "M", Some(1)), shallow);
    let target = |checkout| request("pull_request_target", "{C}", checkout, None);
    assert_eq!(target("F2"), "pull-request B");
    assert_eq!(target("M"), "pull-request C");
    assert_eq!(target("C"), "unreachable: [SameAsHead, SameAsHead]");

    // Without a description.
    let merge = [
        ("GITHUB_ACTIONS", "true"),
        ("GITHUB_EVENT_NAME", "pull_request"),
        ("GITHUB_REF", "refs/pull/7/merge"),
        ("GITHUB_BASE_REF", "main"),
        ("GITHUB_SHA", "{M}"),
    ];
    let context = context(&history, &merge, "");
    assert_eq!(history.base(&context, "M", None), "merge-commit-parent C");
    assert_eq!(history.base(&context, "F2", None), "pull-request B");
}

#[test]
fn gitea_builds_the_proposal_itself() {
    let history = History::new();
    let pairs = [
        ("GITEA_ACTIONS", "true"),
        ("GITHUB_EVENT_NAME", "pull_request"),
        ("GITHUB_REF", "refs/pull/7/head"),
        ("GITHUB_SHA", "{R}"),
    ];
    let payload = REQUEST
        .replace("REPOSITORY", r#""repository": {"full_name": "a/s"}"#)
        .replace(r#""sha": "{F2}""#, r#""sha": "{R}""#);
    let context = context(&history, &pairs, &payload);
    assert_eq!(context.platform, Platform::Gitea);
    // The head is a merge by its author: its first parent is no base.
    assert_eq!(history.base(&context, "R", None), "pull-request C");
}

#[test]
fn other_events_on_github() {
    let history = History::new();
    let run = |event: &str, git_ref: &str, checkout: &str, payload: &str| {
        let sha = format!("{{{checkout}}}");
        let context = actions(&history, event, git_ref, &sha, payload);
        history.base(&context, checkout, None)
    };
    let (main, feature) = ("refs/heads/main", "refs/heads/feature");
    let queue = "refs/heads/gh-readonly-queue/main/pr-7";
    let group = r#"{"merge_group": {"base_ref": "refs/heads/main", "base_sha": "{C}", "head_sha": "{M}"}, REPOSITORY}"#;
    assert_eq!(run("merge_group", queue, "M", group), "merge-group C");
    let gone = group.replace("{C}", GONE);
    assert_eq!(run("merge_group", queue, "M", &gone), "pull-request C");
    assert_eq!(
        run(
            "schedule",
            main,
            "C",
            r#"{"schedule": "0 0 * * *", REPOSITORY}"#
        ),
        "schedule"
    );
    let inputs = |base: &str| format!(r#"{{"inputs": {{"base": "{base}"}}, REPOSITORY}}"#);
    for (git_ref, checkout, payload, base) in [
        (feature, "F2", inputs("{F1}"), "asked F1"),
        (feature, "F2", inputs("main"), "asked C"),
        (feature, "F2", inputs("v1"), "asked A"),
        // Who asks for it gets it.
        (main, "C", inputs("main"), "asked C"),
        (feature, "F2", inputs("no such"), "default-branch B"),
        (feature, "F2", "{REPOSITORY}".to_owned(), "default-branch B"),
        (
            main,
            "C",
            "{REPOSITORY}".to_owned(),
            "dispatch: [OwnBranch]",
        ),
        (
            main,
            "C",
            inputs("--upload-pack=x"),
            "dispatch: [NoName, OwnBranch]",
        ),
    ] {
        assert_eq!(
            run("workflow_dispatch", git_ref, checkout, &payload),
            base,
            "{payload}"
        );
    }
    for event in ["workflow_run", "release", "issue_comment", "deployment"] {
        assert_eq!(run(event, main, "C", "{REPOSITORY}"), "other-event");
    }
    assert_eq!(
        run("repository_dispatch", main, "C", "{REPOSITORY}"),
        "dispatch"
    );
    assert_eq!(run("", main, "C", ""), "no-event");
}

#[test]
fn pipelines_of_gitlab() {
    let history = History::new();
    let own = [
        ("GITLAB_CI", "true"),
        ("CI_DEFAULT_BRANCH", "main"),
        ("CI_COMMIT_REF_NAME", "feature"),
    ];
    let run = |checkout: &str, more: &[(&str, &str)]| {
        let all: Vec<_> = more.iter().chain(&own).copied().collect();
        history.base(&context(&history, &all, ""), checkout, None)
    };
    let push = ("CI_PIPELINE_SOURCE", "push");
    let before = |id| ("CI_COMMIT_BEFORE_SHA", id);
    assert_eq!(run("F2", &[push, before("{F1}")]), "push-before F1");
    assert_eq!(run("F2", &[push, before(ZERO)]), "new-branch B");
    assert_eq!(run("F2", &[push, before(GONE)]), "default-branch B");
    // As a local runner of GitLab's jobs has it.
    assert_eq!(run("F2", &[push]), "default-branch B");
    let main = ("CI_COMMIT_REF_NAME", "main");
    assert_eq!(
        run("C", &[main, push, before(ZERO)]),
        "new-branch: [OwnBranch]"
    );

    let request = [
        ("CI_PIPELINE_SOURCE", "merge_request_event"),
        ("CI_MERGE_REQUEST_IID", "7"),
        ("CI_MERGE_REQUEST_TARGET_BRANCH_NAME", "main"),
        ("CI_MERGE_REQUEST_DIFF_BASE_SHA", "{B}"),
        before(ZERO),
    ];
    assert_eq!(run("F2", &request), "pull-request B");
    let child = [&[("CI_PIPELINE_SOURCE", "parent_pipeline")], &request[1..]].concat();
    assert_eq!(run("F2", &child), "pull-request B");
    let merged = |kind, checkout: &str| {
        let more = [
            ("CI_MERGE_REQUEST_EVENT_TYPE", kind),
            ("CI_MERGE_REQUEST_SOURCE_BRANCH_SHA", "{F2}"),
            ("CI_MERGE_REQUEST_TARGET_BRANCH_SHA", "{C}"),
            ("CI_COMMIT_SHA", "{M}"),
        ];
        run(checkout, &[&request[..], &more[..]].concat())
    };
    assert_eq!(merged("merged_result", "M"), "merge-commit-parent C");
    assert_eq!(merged("merge_train", "M"), "merge-commit-parent C");
    // Something else than the merge is checked out.
    assert_eq!(merged("merge_train", "R"), "merge-group C");
    let no_base = &request[..3];
    assert_eq!(run("F2", no_base), "pull-request B", "by the branch");

    let external = [
        ("CI_PIPELINE_SOURCE", "external_pull_request_event"),
        ("CI_EXTERNAL_PULL_REQUEST_IID", "7"),
        ("CI_EXTERNAL_PULL_REQUEST_TARGET_BRANCH_NAME", "main"),
        ("CI_EXTERNAL_PULL_REQUEST_TARGET_BRANCH_SHA", "{C}"),
    ];
    assert_eq!(run("F2", &external), "pull-request B");

    let source = |name| ("CI_PIPELINE_SOURCE", name);
    assert_eq!(
        run("C", &[push, ("CI_COMMIT_TAG", "v2"), before(ZERO)]),
        "tag"
    );
    assert_eq!(run("F2", &[source("schedule"), before("{F1}")]), "schedule");
    for name in ["web", "api", "trigger", "pipeline", "chat"] {
        assert_eq!(run("F2", &[source(name), before(ZERO)]), "dispatch");
    }
    assert_eq!(
        run("F2", &[source("parent_pipeline"), before(ZERO)]),
        "other-event"
    );
    let child = [source("parent_pipeline"), before("{F1}")];
    assert_eq!(run("F2", &child), "push-before F1");
    assert_eq!(
        run("F2", &[source("security_orchestration_policy")]),
        "other-event"
    );
    assert_eq!(run("F2", &[]), "no-event");
}

#[test]
fn builds_elsewhere() {
    let history = History::new();
    let run = |checkout: &str, pairs: &[(&str, &str)]| {
        history.base(&context(&history, pairs, ""), checkout, None)
    };
    for (checkout, pairs, base) in [
        // Woodpecker.
        (
            "F2",
            &[
                ("CI", "woodpecker"),
                ("CI_PIPELINE_EVENT", "push"),
                ("CI_COMMIT_BRANCH", "feature"),
                ("CI_REPO_DEFAULT_BRANCH", "main"),
                ("CI_PREV_PIPELINE_EVENT", "push"),
                ("CI_PREV_COMMIT_SHA", "{F1}"),
            ][..],
            "previous-build F1",
        ),
        // What was built before was a pull request: for instance this one.
        (
            "C",
            &[
                ("CI", "woodpecker"),
                ("CI_PIPELINE_EVENT", "push"),
                ("CI_COMMIT_BRANCH", "main"),
                ("CI_REPO_DEFAULT_BRANCH", "main"),
                ("CI_PREV_PIPELINE_EVENT", "pull_request"),
                ("CI_PREV_COMMIT_SHA", "{F2}"),
            ],
            "no-previous-build: [OwnBranch]",
        ),
        (
            "F2",
            &[
                ("CI", "woodpecker"),
                ("CI_PIPELINE_EVENT", "pull_request"),
                ("CI_COMMIT_TARGET_BRANCH", "main"),
                ("CI_COMMIT_SHA", "{F2}"),
            ],
            "pull-request B",
        ),
        (
            "C",
            &[
                ("CI", "woodpecker"),
                ("CI_PIPELINE_EVENT", "tag"),
                ("CI_COMMIT_TAG", "v2"),
            ],
            "tag",
        ),
        // Drone.
        (
            "F2",
            &[
                ("DRONE", "true"),
                ("DRONE_BUILD_EVENT", "push"),
                ("DRONE_COMMIT_REF", "refs/heads/feature"),
                ("DRONE_COMMIT_BEFORE", "{F1}"),
                ("DRONE_REPO_BRANCH", "main"),
            ],
            "push-before F1",
        ),
        (
            "F2",
            &[
                ("DRONE", "true"),
                ("DRONE_BUILD_EVENT", "push"),
                ("DRONE_COMMIT_REF", "refs/heads/feature"),
                ("DRONE_COMMIT_BEFORE", ZERO),
                ("DRONE_REPO_BRANCH", "main"),
            ],
            "new-branch B",
        ),
        // It has merged the pull request itself.
        (
            "M",
            &[
                ("DRONE", "true"),
                ("DRONE_BUILD_EVENT", "pull_request"),
                ("DRONE_COMMIT_REF", "refs/pull/7/head"),
                ("DRONE_COMMIT_SHA", "{F2}"),
                ("DRONE_TARGET_BRANCH", "main"),
            ],
            "merge-commit-parent C",
        ),
        (
            "F2",
            &[("DRONE", "true"), ("DRONE_BUILD_EVENT", "cron")],
            "schedule",
        ),
        (
            "F2",
            &[("DRONE", "true"), ("DRONE_BUILD_EVENT", "promote")],
            "other-event",
        ),
        // Azure Pipelines.
        (
            "M",
            &[
                ("TF_BUILD", "True"),
                ("BUILD_REASON", "PullRequest"),
                ("BUILD_SOURCEBRANCH", "refs/pull/7/merge"),
                ("BUILD_SOURCEVERSION", "{M}"),
                ("SYSTEM_PULLREQUEST_TARGETBRANCH", "refs/heads/main"),
                ("SYSTEM_PULLREQUEST_SOURCECOMMITID", "{F2}"),
            ],
            "merge-commit-parent C",
        ),
        (
            "F2",
            &[
                ("TF_BUILD", "True"),
                ("BUILD_REASON", "PullRequest"),
                ("BUILD_SOURCEBRANCH", "refs/pull/7/merge"),
                ("BUILD_SOURCEVERSION", "{M}"),
                ("SYSTEM_PULLREQUEST_TARGETBRANCH", "main"),
            ],
            "pull-request B",
        ),
        (
            "F2",
            &[
                ("TF_BUILD", "True"),
                ("BUILD_REASON", "IndividualCI"),
                ("BUILD_SOURCEBRANCH", "refs/heads/feature"),
            ],
            "default-branch B",
        ),
        (
            "C",
            &[
                ("TF_BUILD", "True"),
                ("BUILD_REASON", "BatchedCI"),
                ("BUILD_SOURCEBRANCH", "refs/heads/main"),
            ],
            "no-previous-build: [OwnBranch]",
        ),
        (
            "C",
            &[
                ("TF_BUILD", "True"),
                ("BUILD_REASON", "Manual"),
                ("BUILD_SOURCEBRANCH", "refs/heads/main"),
            ],
            "dispatch",
        ),
        // Buildkite.
        (
            "F2",
            &[
                ("BUILDKITE", "true"),
                ("BUILDKITE_COMMIT", "HEAD"),
                ("BUILDKITE_BRANCH", "feature"),
                ("BUILDKITE_PULL_REQUEST", "7"),
                ("BUILDKITE_PULL_REQUEST_BASE_BRANCH", "main"),
            ],
            "pull-request B",
        ),
        (
            "F2",
            &[
                ("BUILDKITE", "true"),
                ("BUILDKITE_SOURCE", "webhook"),
                ("BUILDKITE_COMMIT", "HEAD"),
                ("BUILDKITE_BRANCH", "feature"),
                ("BUILDKITE_PULL_REQUEST", "false"),
                ("BUILDKITE_PIPELINE_DEFAULT_BRANCH", "main"),
            ],
            "default-branch B",
        ),
        (
            "C",
            &[
                ("BUILDKITE", "true"),
                ("BUILDKITE_SOURCE", "webhook"),
                ("BUILDKITE_BRANCH", "main"),
                ("BUILDKITE_PULL_REQUEST", "false"),
                ("BUILDKITE_PIPELINE_DEFAULT_BRANCH", "main"),
            ],
            "no-previous-build: [OwnBranch]",
        ),
        (
            "C",
            &[
                ("BUILDKITE", "true"),
                ("BUILDKITE_SOURCE", "schedule"),
                ("BUILDKITE_BRANCH", "main"),
            ],
            "schedule",
        ),
        // CircleCI.
        (
            "F2",
            &[
                ("CIRCLECI", "true"),
                ("CIRCLE_BRANCH", "feature"),
                ("PIPELINE_GIT_BASE_REVISION", "{F1}"),
            ],
            "previous-build F1",
        ),
        (
            "F2",
            &[("CIRCLECI", "true"), ("CIRCLE_BRANCH", "feature")],
            "default-branch B",
        ),
        (
            "F2",
            &[
                ("CIRCLECI", "true"),
                ("CIRCLE_BRANCH", "pull/7"),
                ("CIRCLE_PR_NUMBER", "7"),
            ],
            "default-branch B",
        ),
        ("C", &[("CIRCLECI", "true"), ("CIRCLE_TAG", "v2")], "tag"),
        // CodeBuild.
        (
            "F2",
            &[
                ("CODEBUILD_BUILD_ID", "x:1"),
                ("CODEBUILD_WEBHOOK_EVENT", "PUSH"),
                ("CODEBUILD_WEBHOOK_TRIGGER", "branch/feature"),
                ("CODEBUILD_WEBHOOK_PREV_COMMIT", "{F1}"),
            ],
            "push-before F1",
        ),
        (
            "F2",
            &[
                ("CODEBUILD_BUILD_ID", "x:1"),
                ("CODEBUILD_WEBHOOK_EVENT", "PULL_REQUEST_UPDATED"),
                ("CODEBUILD_WEBHOOK_TRIGGER", "pr/7"),
                ("CODEBUILD_WEBHOOK_BASE_REF", "refs/heads/main"),
            ],
            "pull-request B",
        ),
        (
            "F2",
            &[
                ("CODEBUILD_BUILD_ID", "x:1"),
                ("CODEBUILD_SOURCE_VERSION", "feature"),
            ],
            "dispatch",
        ),
        // Jenkins.
        (
            "F2",
            &[
                ("JENKINS_URL", "http://j/"),
                ("BRANCH_NAME", "feature"),
                ("GIT_PREVIOUS_SUCCESSFUL_COMMIT", "{B}"),
                ("GIT_PREVIOUS_COMMIT", "{F1}"),
            ],
            "previous-build B",
        ),
        (
            "F2",
            &[
                ("JENKINS_URL", "http://j/"),
                ("BRANCH_NAME", "feature"),
                ("GIT_PREVIOUS_SUCCESSFUL_COMMIT", GONE),
                ("GIT_PREVIOUS_COMMIT", "{F1}"),
            ],
            "previous-build F1",
        ),
        (
            "C",
            &[("JENKINS_URL", "http://j/"), ("BRANCH_NAME", "main")],
            "no-previous-build: [OwnBranch]",
        ),
        (
            "R",
            &[
                ("JENKINS_URL", "http://j/"),
                ("BRANCH_NAME", "PR-7"),
                ("CHANGE_ID", "7"),
                ("CHANGE_TARGET", "main"),
                ("GIT_COMMIT", "{F2}"),
                // That of another change.
                ("GIT_PREVIOUS_COMMIT", "{F1}"),
            ],
            "pull-request C",
        ),
        // Bitbucket.
        (
            "R",
            &[
                ("BITBUCKET_BUILD_NUMBER", "1"),
                ("BITBUCKET_COMMIT", "{F2}"),
                ("BITBUCKET_BRANCH", "feature"),
                ("BITBUCKET_PR_ID", "7"),
                ("BITBUCKET_PR_DESTINATION_BRANCH", "main"),
                ("BITBUCKET_PR_DESTINATION_COMMIT", "{C}"),
            ],
            "pull-request C",
        ),
        (
            "F2",
            &[
                ("BITBUCKET_BUILD_NUMBER", "1"),
                ("BITBUCKET_BRANCH", "feature"),
            ],
            "default-branch B",
        ),
        // Cloud Build.
        (
            "F2",
            &[
                ("GOOGLE_CLOUD_BUILD", "true"),
                ("BRANCH_NAME", "feature"),
                ("_PR_NUMBER", "7"),
                ("_BASE_BRANCH", "main"),
            ],
            "pull-request B",
        ),
        (
            "F2",
            &[("GOOGLE_CLOUD_BUILD", "true"), ("BRANCH_NAME", "feature")],
            "default-branch B",
        ),
        (
            "C",
            &[("GOOGLE_CLOUD_BUILD", "true"), ("TAG_NAME", "v2")],
            "tag",
        ),
        // A platform that isn't known, and somebody's machine.
        ("F2", &[("CI", "true")], "default-branch B"),
        ("C", &[("CI", "true")], "no-event: [SameAsHead]"),
        ("F2", &[], "default-branch B"),
        ("C", &[], "last-commit B"),
        ("A", &[], "no-event: [SameAsHead, NoParent]"),
    ] {
        assert_eq!(run(checkout, pairs), base, "{checkout} {pairs:?}");
    }
}

#[test]
fn a_shallow_clone_is_given_what_it_lacks() {
    let history = History::new();
    let push = |before: &str| {
        let payload = format!(r#"{{"before": "{before}", REPOSITORY}}"#);
        let name = "refs/heads/feature";
        let context = actions(&history, "push", name, "{F2}", &payload);
        history.fetched(&context, "F2")
    };
    // One commit where two trees are compared.
    assert_eq!(push("{F1}"), "push-before F1, 2 commits");
    assert_eq!(push("{O}"), "push-before O, 2 commits");
    // The tip of the default branch, and the history down to where both parted: by the
    // first step that is all there is.
    assert_eq!(push(ZERO), "new-branch B, 5 commits");
    assert_eq!(push(GONE), "default-branch B, 5 commits");

    let request = actions(
        &history,
        "pull_request",
        "refs/pull/7/merge",
        "{M}",
        REQUEST,
    );
    assert_eq!(
        history.fetched(&request, "M"),
        "merge-commit-parent C, 2 commits"
    );
    assert_eq!(history.fetched(&request, "F2"), "pull-request B, 5 commits");

    let tag = actions(&history, "push", "refs/tags/v2", "{C}", "{REPOSITORY}");
    assert_eq!(history.fetched(&tag, "C"), "shallow: [NoTag], 1 commits");

    let merge_request = [
        ("GITLAB_CI", "true"),
        ("CI_PIPELINE_SOURCE", "merge_request_event"),
        ("CI_MERGE_REQUEST_IID", "7"),
        ("CI_MERGE_REQUEST_DIFF_BASE_SHA", "{B}"),
    ];
    let merge_request = context(&history, &merge_request, "");
    assert_eq!(
        history.fetched(&merge_request, "F2"),
        "pull-request B, 2 commits"
    );
}

#[test]
fn a_remote_that_is_gone_leaves_a_shallow_clone_without_base() {
    let history = History::new();
    let name = "refs/heads/feature";
    let payload = r#"{"before": "{F1}", REPOSITORY}"#;
    let context = actions(&history, "push", name, "{F2}", payload);
    let clone = history.clone_at("F2", Some(1));
    history.lose_origin();
    let base = history.revision_in(&clone, &context);
    assert_eq!(base.commit, None);
    assert_eq!(base.reason, BaseReason::Shallow);
    let why: Vec<_> = base
        .tried
        .iter()
        .map(|tried| tried.why_not.to_string())
        .collect();
    assert!(
        why[0].starts_with("the clone doesn't have it, and it can't be fetched: "),
        "{why:?}"
    );
    assert_eq!(
        base.hint.as_deref(),
        Some("give the job all history: `fetch-depth: 0` for `actions/checkout`")
    );
}

#[test]
fn a_short_id_is_enough_where_the_commit_is_at_hand() {
    let history = History::new();
    let base = |id: &str| {
        let pairs = [
            ("BITBUCKET_BUILD_NUMBER", "1"),
            ("BITBUCKET_PR_ID", "7"),
            ("BITBUCKET_PR_DESTINATION_COMMIT", id),
        ];
        history.base(&context(&history, &pairs, ""), "F2", None)
    };
    assert_eq!(base(&history.id("C")[..12]), "pull-request B");
    assert_eq!(base(&history.id("C")[..6]), "unreachable: [NoId, NoId]");
    assert_eq!(base("ddddddddd"), "unreachable: [NotHere, NotHere]");
}

#[test]
fn what_is_checked_out_is_built_whatever_the_variables_say() {
    let history = History::new();
    let payload = r#"{"before": "{A}", REPOSITORY}"#;
    let mismatch = |sha: &str, checkout: &str| {
        let context = actions(&history, "push", "refs/heads/main", sha, payload);
        let base = history.revision(&context, checkout, None);
        assert_eq!(base.commit.unwrap().to_string(), history.id("A"));
        base.mismatch.map(|mismatch| mismatch.to_string())
    };
    assert_eq!(mismatch("{C}", "C"), None);
    assert_eq!(mismatch("HEAD", "C"), None);
    assert_eq!(mismatch(&history.id("C")[..8], "C"), None);
    assert_eq!(mismatch("{F2}", "M"), None, "a merge that was made since");
    for said in ["{B}", GONE, "", "$(x)\n", "é"] {
        let told = mismatch(said, "C");
        let head = history.id("C");
        match said {
            "" => assert_eq!(told, None, "an empty variable isn't set"),
            _ => assert!(
                told.unwrap()
                    .ends_with(&format!("`{head}` is checked out and so is built"))
            ),
        }
    }
}

#[test]
fn names_that_git_refuses_are_looked_up_by_nobody() {
    let history = History::new();
    for name in [
        "--upload-pack=touch x",
        "a b",
        "a\nb",
        "a..b",
        "$(touch x)~1",
        "main^",
        "main@{1}",
        "a//b",
        ".a",
        "a.lock",
        "refs/../../x",
        "",
    ] {
        let pairs = [
            ("GITLAB_CI", "true"),
            ("CI_PIPELINE_SOURCE", "push"),
            ("CI_COMMIT_REF_NAME", "feature"),
            ("CI_COMMIT_BEFORE_SHA", ZERO),
            ("CI_DEFAULT_BRANCH", name),
        ];
        let base = history.base(&context(&history, &pairs, ""), "F2", None);
        let expected = match name {
            // The clone says it.
            "" => "new-branch B",
            _ => "new-branch: [NoName]",
        };
        assert_eq!(base, expected, "{name}");
    }
    // Names that Git allows, and shells wouldn't like.
    for name in ["$(touch-x)", "a'b\"c", "a;b", "é", "a|b"] {
        history.git("origin", &["branch", "-f", name, history.id("B")]);
        let pairs = [
            ("GITLAB_CI", "true"),
            ("CI_PIPELINE_SOURCE", "merge_request_event"),
            ("CI_COMMIT_REF_NAME", "feature"),
            ("CI_MERGE_REQUEST_IID", "7"),
            ("CI_MERGE_REQUEST_TARGET_BRANCH_NAME", name),
        ];
        let clone = history.clone_at("F2", None);
        history.git(clone.to_str().unwrap(), &["fetch", "-q"]);
        let base = history.base(&context(&history, &pairs, ""), "F2", None);
        assert_eq!(base, "pull-request B", "{name}");
    }
}
