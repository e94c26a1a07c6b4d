//! Which platform it is, and whose build.

use super::*;

fn of(pairs: &[(&str, &str)]) -> CiContext {
    detect(&Env::from_pairs(pairs))
}

#[test]
fn the_platform_is_the_first_that_says_so() {
    let all = [
        ("CI", "woodpecker", Platform::Woodpecker),
        ("DRONE", "true", Platform::Drone),
        ("FORGEJO_ACTIONS", "true", Platform::Forgejo),
        ("GITEA_ACTIONS", "true", Platform::Gitea),
        ("GITHUB_ACTIONS", "true", Platform::GitHub),
        ("GITLAB_CI", "false", Platform::GitLab),
        ("TF_BUILD", "True", Platform::Azure),
        ("BUILDKITE", "true", Platform::Buildkite),
        ("CIRCLECI", "true", Platform::Circle),
        ("CODEBUILD_BUILD_ID", "x:1", Platform::CodeBuild),
        ("JENKINS_URL", "http://j/", Platform::Jenkins),
        ("BITBUCKET_BUILD_NUMBER", "1", Platform::Bitbucket),
        ("GOOGLE_CLOUD_BUILD", "true", Platform::CloudBuild),
        ("TEAMCITY_VERSION", "2026", Platform::Other),
    ];
    for at in 0..all.len() {
        // All the later ones are set too.
        let pairs: Vec<_> = all[at..]
            .iter()
            .map(|(name, value, _)| (*name, *value))
            .collect();
        assert_eq!(of(&pairs).platform, all[at].2);
        let (name, value, platform) = all[at];
        assert_eq!(of(&[(name, value)]).platform, platform);
    }
    assert_eq!(of(&[("GITHUB_ACTIONS", "false")]).platform, Platform::None);
    assert_eq!(of(&[("CI", "1")]).platform, Platform::Other);
    assert_eq!(of(&[("CI", "false")]).platform, Platform::None);
    let mut words: Vec<_> = all.iter().map(|row| row.2.word()).collect();
    words.dedup();
    assert_eq!(words.len(), all.len());
}

#[test]
fn an_unknown_platform_saves_nothing() {
    for name in ELSEWHERE {
        let env = Env::from_pairs(&[
            (name, "1"),
            ("BRANCH_NAME", "main"),
            ("CI_COMMIT_BRANCH", "main"),
        ]);
        let context = detect(&env);
        assert_eq!(context.platform, Platform::Other, "{name}");
        assert_eq!(told(&context), "protected local -> local false");
    }
}

/// Event, ref and scopes.
fn row(pairs: &[(&str, &str)]) -> String {
    let context = of(pairs);
    let git_ref = context.git_ref.as_deref().unwrap_or("-");
    assert!(!context.protected && !context.producer().protected);
    format!("{} {git_ref}: {}", context.event, told(&context))
}

const NOBODYS: &str = "protected local -> local false";

#[test]
fn woodpecker() {
    let run = |event, more: &[(&'static str, &'static str)]| {
        let own = [("CI", "woodpecker"), ("CI_PIPELINE_EVENT", event)];
        row(&[&own, more].concat())
    };
    let main = &[
        ("CI_COMMIT_REF", "refs/heads/main"),
        ("CI_COMMIT_BRANCH", "main"),
    ];
    let branch = "refs/heads/main: protected branch/main -> branch/main true";
    assert_eq!(run("push", main), format!("push {branch}"));
    assert_eq!(run("cron", main), format!("schedule {branch}"));
    assert_eq!(run("manual", main), format!("dispatch {branch}"));
    assert_eq!(
        run("deployment", main),
        format!("deployment refs/heads/main: {NOBODYS}")
    );
    assert_eq!(
        run("novel", main),
        format!("novel refs/heads/main: {NOBODYS}")
    );
    assert_eq!(run("push", &[]), format!("push -: {NOBODYS}"));
    assert_eq!(
        run("tag", &[("CI_COMMIT_TAG", "v1")]),
        "tag refs/tags/v1: protected branch/tags/v1 -> branch/tags/v1 true"
    );
    let request = [
        ("CI_COMMIT_REF", "refs/pull/7/head"),
        ("CI_COMMIT_BRANCH", "main"),
        ("CI_COMMIT_TARGET_BRANCH", "main"),
        ("CI_COMMIT_SOURCE_BRANCH", "fix"),
        ("CI_COMMIT_PULL_REQUEST", "7"),
        ("CI_COMMIT_PULL_REQUEST_LABELS", "one, two,"),
    ];
    let scopes = "refs/pull/7/head: protected branch/main pull/7 -> pull/7 false";
    for event in ["pull_request", "pull_request_closed", "push", "deployment"] {
        assert_eq!(run(event, &request), format!("pull-request {scopes}"));
    }
    let context = of(&[&[("CI", "woodpecker")], &request[..]].concat());
    assert_eq!(
        context.pull_request.as_ref().unwrap().labels,
        ["one", "two"]
    );
    assert_eq!(context.source_branch(), Some("fix"));
    assert_eq!(context.target_branch.as_deref(), Some("main"));
    assert_eq!(context.branch(), None);
    // By its ref alone.
    assert_eq!(
        run("manual", &request[..1]),
        "pull-request refs/pull/7/head: protected pull/unknown -> pull/unknown false"
    );
}

#[test]
fn drone() {
    let run = |event, more: &[(&'static str, &'static str)]| {
        let own = [
            ("DRONE", "true"),
            ("CI", "true"),
            ("DRONE_BUILD_EVENT", event),
        ];
        row(&[&own, more].concat())
    };
    let main = &[("DRONE_COMMIT_REF", "refs/heads/main")];
    let branch = "refs/heads/main: protected branch/main -> branch/main true";
    assert_eq!(run("push", main), format!("push {branch}"));
    assert_eq!(run("cron", main), format!("schedule {branch}"));
    assert_eq!(
        run("custom", main),
        format!("dispatch refs/heads/main: {NOBODYS}")
    );
    assert_eq!(
        run("promote", main),
        format!("deployment refs/heads/main: {NOBODYS}")
    );
    assert_eq!(run("push", &[]), format!("push -: {NOBODYS}"));
    let request = [
        ("DRONE_COMMIT_REF", "refs/pull/7/head"),
        ("DRONE_PULL_REQUEST", "7"),
        ("DRONE_BRANCH", "main"),
        ("DRONE_TARGET_BRANCH", "main"),
    ];
    let scopes = "refs/pull/7/head: protected branch/main pull/7 -> pull/7 false";
    assert_eq!(
        run("pull_request", &request),
        format!("pull-request {scopes}")
    );
    assert_eq!(run("promote", &request), format!("pull-request {scopes}"));
}

#[test]
fn azure() {
    let run = |reason, git_ref, more: &[(&'static str, &'static str)]| {
        let own = [
            ("TF_BUILD", "True"),
            ("BUILD_REASON", reason),
            ("BUILD_SOURCEBRANCH", git_ref),
        ];
        row(&[&own, more].concat())
    };
    let main = "refs/heads/main";
    let branch = "refs/heads/main: protected branch/main -> branch/main true";
    assert_eq!(run("IndividualCI", main, &[]), format!("push {branch}"));
    assert_eq!(run("BatchedCI", main, &[]), format!("push {branch}"));
    assert_eq!(run("Schedule", main, &[]), format!("schedule {branch}"));
    // Whose commit that is, nobody says.
    assert_eq!(
        run("Manual", main, &[]),
        format!("dispatch refs/heads/main: {NOBODYS}")
    );
    assert_eq!(
        run("ResourceTrigger", main, &[]),
        format!("ResourceTrigger refs/heads/main: {NOBODYS}")
    );
    let merge = "refs/pull/7/merge";
    let request = |fork| {
        let more = [
            ("SYSTEM_PULLREQUEST_PULLREQUESTID", "7"),
            ("SYSTEM_PULLREQUEST_TARGETBRANCH", "refs/heads/main"),
            ("SYSTEM_PULLREQUEST_ISFORK", fork),
        ];
        run("PullRequest", merge, &more)
    };
    let scopes = "pull-request refs/pull/7/merge: protected branch/main pull/7 -> pull/7";
    assert_eq!(request("False"), format!("{scopes} true"));
    assert_eq!(request("True"), format!("{scopes} false"));
    assert_eq!(request(""), format!("{scopes} false"));
    assert_eq!(
        run("Manual", merge, &[]),
        "pull-request refs/pull/7/merge: protected pull/unknown -> pull/unknown false"
    );
    let context = of(&[
        ("TF_BUILD", "True"),
        ("SYSTEM_PULLREQUEST_PULLREQUESTID", "123456"),
        ("SYSTEM_PULLREQUEST_PULLREQUESTNUMBER", "7"),
        ("BUILD_BUILDID", "9"),
        ("SYSTEM_COLLECTIONURI", "https://dev.azure.com/acme/"),
        ("SYSTEM_TEAMPROJECT", "the service"),
    ]);
    assert_eq!(context.scope(), Scope::pull("7"));
    assert_eq!(
        context.run.as_deref(),
        Some("https://dev.azure.com/acme/the%20service/_build/results?buildId=9")
    );
}

#[test]
fn buildkite() {
    let run = |source, more: &[(&'static str, &'static str)]| {
        let own = [
            ("BUILDKITE", "true"),
            ("BUILDKITE_SOURCE", source),
            ("BUILDKITE_BRANCH", "main"),
            ("BUILDKITE_REPO", "git@github.com:acme/service.git"),
        ];
        row(&[&own, more].concat())
    };
    let branch = "refs/heads/main: protected branch/main -> branch/main true";
    let none = &[("BUILDKITE_PULL_REQUEST", "false")];
    assert_eq!(run("webhook", none), format!("push {branch}"));
    assert_eq!(run("schedule", none), format!("schedule {branch}"));
    for source in ["ui", "api", "trigger_job"] {
        assert_eq!(
            run(source, none),
            format!("dispatch refs/heads/main: {NOBODYS}")
        );
    }
    assert_eq!(run("", none), format!("unknown refs/heads/main: {NOBODYS}"));
    let request = |from| {
        let more = [
            ("BUILDKITE_PULL_REQUEST", "7"),
            ("BUILDKITE_PULL_REQUEST_BASE_BRANCH", "dev"),
            ("BUILDKITE_PULL_REQUEST_REPO", from),
        ];
        run("webhook", &more)
    };
    let scopes = "pull-request refs/heads/main: protected branch/dev pull/7 -> pull/7";
    assert_eq!(
        request("https://github.com/acme/service.git"),
        format!("{scopes} true")
    );
    assert_eq!(
        request("git://GitHub.com/acme/service"),
        format!("{scopes} true")
    );
    for other in [
        "https://github.com/mallory/service.git",
        "https://github.com.mallory.example/acme/service.git",
        "https://u@mallory.example/acme/service.git",
        "x",
        "",
    ] {
        assert_eq!(request(other), format!("{scopes} false"), "{other}");
    }
}

#[test]
fn circle() {
    let run =
        |more: &[(&'static str, &'static str)]| row(&[&[("CIRCLECI", "true")], more].concat());
    // Which may be a fork's.
    assert_eq!(
        run(&[("CIRCLE_BRANCH", "main")]),
        format!("push refs/heads/main: {NOBODYS}")
    );
    assert_eq!(
        run(&[("CIRCLE_TAG", "v1")]),
        format!("tag refs/tags/v1: {NOBODYS}")
    );
    assert_eq!(run(&[]), format!("unknown -: {NOBODYS}"));
    let scopes = "protected pull/7 -> pull/7 false";
    for (branch, name, value) in [
        (
            "fix",
            "CIRCLE_PULL_REQUEST",
            "https://github.com/a/s/pull/7",
        ),
        ("pull/7", "CIRCLE_PR_NUMBER", "7"),
        ("pull/7", "CI", "true"),
        ("pull/7/head", "CI", "true"),
    ] {
        let told = run(&[("CIRCLE_BRANCH", branch), (name, value)]);
        assert_eq!(told, format!("pull-request refs/heads/{branch}: {scopes}"));
    }
}

#[test]
fn codebuild() {
    let run = |more: &[(&'static str, &'static str)]| {
        row(&[&[("CODEBUILD_BUILD_ID", "x:1")], more].concat())
    };
    let trigger = |name| ("CODEBUILD_WEBHOOK_TRIGGER", name);
    let event = |name| ("CODEBUILD_WEBHOOK_EVENT", name);
    assert_eq!(
        run(&[trigger("branch/fix/one"), event("PUSH")]),
        "push refs/heads/fix/one: protected branch/fix/one -> branch/fix/one true"
    );
    assert_eq!(
        run(&[trigger("tag/v1"), event("PUSH")]),
        "tag refs/tags/v1: protected branch/tags/v1 -> branch/tags/v1 true"
    );
    let scopes = "protected branch/main pull/7 -> pull/7 false";
    let base = ("CODEBUILD_WEBHOOK_BASE_REF", "refs/heads/main");
    assert_eq!(
        run(&[trigger("pr/7"), event("PULL_REQUEST_CREATED"), base]),
        format!("pull-request -: {scopes}")
    );
    let unnumbered = "pull-request -: protected pull/unknown -> pull/unknown false";
    assert_eq!(
        run(&[event("PULL_REQUEST_MERGED"), trigger("branch/main")]),
        unnumbered
    );
    assert_eq!(run(&[("CODEBUILD_SOURCE_VERSION", "pr/7")]), unnumbered);
    assert_eq!(
        run(&[("CODEBUILD_SOURCE_VERSION", "main")]),
        format!("dispatch -: {NOBODYS}")
    );
    assert_eq!(
        run(&[trigger("branch/main"), event("WORKFLOW_JOB_QUEUED")]),
        format!("WORKFLOW_JOB_QUEUED refs/heads/main: {NOBODYS}")
    );
}

#[test]
fn jenkins() {
    let run = |more: &[(&'static str, &'static str)]| {
        row(&[&[("JENKINS_URL", "http://j/")], more].concat())
    };
    assert_eq!(
        run(&[("BRANCH_NAME", "main"), ("GIT_BRANCH", "origin/main")]),
        "push refs/heads/main: protected branch/main -> branch/main true"
    );
    assert_eq!(
        run(&[("BRANCH_NAME", "v1"), ("TAG_NAME", "v1")]),
        "tag refs/tags/v1: protected branch/tags/v1 -> branch/tags/v1 true"
    );
    // Of any other job than a multibranch project's, nobody says whose code it is.
    assert_eq!(
        run(&[("GIT_BRANCH", "origin/main")]),
        format!("push refs/heads/main: {NOBODYS}")
    );
    assert_eq!(run(&[]), format!("unknown -: {NOBODYS}"));
    let scopes = "pull-request -: protected branch/main pull/7 -> pull/7 false";
    for names in [
        ["CHANGE_ID", "CHANGE_TARGET"],
        ["ghprbPullId", "ghprbTargetBranch"],
        ["gitlabMergeRequestIid", "gitlabTargetBranch"],
        ["gitlabMergeRequestId", "gitlabTargetBranch"],
        ["GERRIT_CHANGE_NUMBER", "GERRIT_BRANCH"],
    ] {
        let branch = [("BRANCH_NAME", "main"), ("GIT_BRANCH", "origin/main")];
        let told = run(&[&branch[..], &[(names[0], "7"), (names[1], "main")]].concat());
        assert_eq!(told, scopes, "{names:?}");
    }
    let fork = of(&[
        ("JENKINS_URL", "x"),
        ("CHANGE_ID", "7"),
        ("CHANGE_FORK", "mallory"),
    ]);
    assert_eq!(fork.pull_request.unwrap().is_fork, Some(true));
}

#[test]
fn bitbucket() {
    let run = |more: &[(&'static str, &'static str)]| {
        row(&[&[("BITBUCKET_BUILD_NUMBER", "1")], more].concat())
    };
    let branch = ("BITBUCKET_BRANCH", "fix");
    assert_eq!(
        run(&[branch]),
        "push refs/heads/fix: protected branch/fix -> branch/fix true"
    );
    assert_eq!(
        run(&[("BITBUCKET_TAG", "v1")]),
        "tag refs/tags/v1: protected branch/tags/v1 -> branch/tags/v1 true"
    );
    let request = [
        branch,
        ("BITBUCKET_PR_ID", "7"),
        ("BITBUCKET_PR_DESTINATION_BRANCH", "main"),
    ];
    assert_eq!(
        run(&request),
        "pull-request refs/heads/fix: protected branch/main pull/7 -> pull/7 false"
    );
    assert_eq!(run(&[]), format!("unknown -: {NOBODYS}"));
}

#[test]
fn cloud_build() {
    let run = |more: &[(&'static str, &'static str)]| {
        row(&[&[("GOOGLE_CLOUD_BUILD", "true")], more].concat())
    };
    // Which a pull request's build has too.
    let branch = ("BRANCH_NAME", "main");
    assert_eq!(run(&[branch]), format!("push refs/heads/main: {NOBODYS}"));
    assert_eq!(
        run(&[("TAG_NAME", "v1")]),
        format!("tag refs/tags/v1: {NOBODYS}")
    );
    assert_eq!(
        run(&[branch, ("_PR_NUMBER", "7"), ("_BASE_BRANCH", "main")]),
        "pull-request -: protected branch/main pull/7 -> pull/7 false"
    );
}

#[test]
fn repositories_of_addresses() {
    for (address, slug) in [
        ("git@github.com:acme/service.git", Some("acme/service")),
        (
            "ssh://git@github.com:22/acme/service.git",
            Some("acme/service"),
        ),
        ("git@github.com:22/acme/service.git", Some("acme/service")),
        ("https://u:p@github.com/acme/service", Some("acme/service")),
        ("https://github.com/", None),
        ("/srv/service.git", None),
        ("", None),
    ] {
        assert_eq!(request::slug(address).as_deref(), slug, "{address}");
    }
}

#[test]
fn descriptions_that_cant_be_read_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("event.json");
    let run = || {
        let context = detect(&github(&[
            ("GITHUB_EVENT_NAME", "push"),
            ("GITHUB_REF", "refs/heads/main"),
            ("GITHUB_EVENT_PATH", path.to_str().unwrap()),
        ]));
        assert_eq!(told(&context), "protected branch/main -> branch/main true");
        let told: Vec<_> = context
            .trouble
            .iter()
            .map(PayloadError::to_string)
            .collect();
        told.join("\n")
    };
    assert_eq!(run(), "can't read the description of the event");
    for bad in ["", "{", "\u{0}", &"[".repeat(100_000)] {
        crate::fs::write_atomic(&path, bad.as_bytes()).unwrap();
        assert!(run().ends_with("is no JSON"), "{bad:.9}");
    }
    for good in ["{}", "[]", "null", "7"] {
        crate::fs::write_atomic(&path, good.as_bytes()).unwrap();
        assert_eq!(run(), "");
    }
}

#[test]
fn messages_and_labels() {
    let json = serde_json::json!({
        "head_commit": {"message": "two\n\n[memobuild rebuild=ml]"},
        "commits": [{"message": "one"}, {"message": "two\n\n[memobuild rebuild=ml]"}, 7],
    });
    let context = described("push", "refs/heads/main", &json);
    assert_eq!(context.messages, ["two\n\n[memobuild rebuild=ml]", "one"]);
    let json = serde_json::json!({"merge_group": {"head_commit": {"message": "queued"}}});
    let context = described("merge_group", "refs/heads/x", &json);
    assert_eq!(context.messages, ["queued"]);
    let env = Env::from_pairs(&[
        ("GITLAB_CI", "true"),
        ("CI_COMMIT_MESSAGE", "one"),
        ("CI_MERGE_REQUEST_IID", "7"),
        ("CI_MERGE_REQUEST_LABELS", "a,b c"),
    ]);
    let context = detect(&env);
    assert_eq!(context.messages, ["one"]);
    assert_eq!(context.pull_request.unwrap().labels, ["a", "b c"]);
}
