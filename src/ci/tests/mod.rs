//! Builds on each platform, as its variables describe them.

mod bases;
mod history;
mod platforms;

use super::*;

/// The scopes that a build reads, what it writes and whether it saves, on one line.
fn told(context: &CiContext) -> String {
    let scopes = context.scopes(None, []).unwrap();
    let read: Vec<&str> = scopes.order.scopes().iter().map(Scope::as_str).collect();
    let own = scopes.order.own();
    format!("{} -> {own} {}", read.join(" "), scopes.saves)
}

fn github(more: &[(&str, &str)]) -> Env {
    let own = [
        ("CI", "true"),
        ("GITHUB_ACTIONS", "true"),
        ("GITHUB_REPOSITORY", "acme/service"),
        ("GITHUB_SERVER_URL", "https://github.com"),
        ("GITHUB_RUN_ID", "17"),
    ];
    let all: Vec<(&str, &str)> = own.iter().chain(more).copied().collect();
    Env::from_pairs(&all)
}

/// A job of `event` with this description and this ref, which is protected.
fn described(event: &str, git_ref: &str, json: &serde_json::Value) -> CiContext {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("event.json");
    crate::fs::write_atomic(&path, json.to_string().as_bytes()).unwrap();
    detect(&github(&[
        ("GITHUB_EVENT_NAME", event),
        ("GITHUB_REF", git_ref),
        ("GITHUB_REF_PROTECTED", "true"),
        ("GITHUB_EVENT_PATH", path.to_str().unwrap()),
    ]))
}

fn request(head: &serde_json::Value) -> serde_json::Value {
    serde_json::json!({
        "number": 7,
        "repository": {"full_name": "acme/service"},
        "pull_request": {
            "number": 7,
            "base": {"ref": "main", "repo": {"full_name": "acme/service"}},
            "head": {"ref": "fix", "repo": head},
        },
    })
}

#[test]
fn branches_and_tags_of_github() {
    let push = |name: &str, protected: &str| {
        told(&detect(&github(&[
            ("GITHUB_EVENT_NAME", "push"),
            ("GITHUB_REF", name),
            ("GITHUB_REF_PROTECTED", protected),
        ])))
    };
    assert_eq!(
        push("refs/heads/main", "true"),
        "protected -> protected true"
    );
    assert_eq!(
        push("refs/heads/fix/one", "false"),
        "protected branch/fix/one -> branch/fix/one true"
    );
    assert_eq!(push("refs/tags/v1", "true"), "protected -> protected true");
    assert_eq!(
        push("refs/tags/v1", "false"),
        "protected branch/tags/v1 -> branch/tags/v1 true"
    );
    assert_eq!(
        push("refs/heads/../protected", ""),
        format!("protected {0} -> {0} true", Scope::branch("../protected"))
    );
}

#[test]
fn pull_requests_of_github() {
    let request = |event: &str, head: serde_json::Value| {
        told(&described(event, "refs/pull/7/merge", &request(&head)))
    };
    let (own, fork) = (
        serde_json::json!({"full_name": "acme/service"}),
        serde_json::json!({"full_name": "mallory/service"}),
    );
    let scopes = "protected branch/main pull/7 -> pull/7";
    assert_eq!(request("pull_request", own), format!("{scopes} true"));
    assert_eq!(
        request("pull_request", fork.clone()),
        format!("{scopes} false")
    );
    assert_eq!(
        request("pull_request", serde_json::Value::Null),
        format!("{scopes} false"),
        "the fork is gone"
    );
    assert_eq!(
        request("pull_request_target", fork),
        format!("{scopes} false")
    );
    let env = github(&[
        ("GITHUB_EVENT_NAME", "pull_request"),
        ("GITHUB_REF", "refs/pull/8/merge"),
        ("GITHUB_BASE_REF", "dev"),
    ]);
    assert_eq!(
        told(&detect(&env)),
        "protected branch/dev pull/8 -> pull/8 false",
        "without a description"
    );
}

#[test]
fn events_that_run_for_the_base_branch_with_code_of_others() {
    let main = "refs/heads/main";
    let json = serde_json::json!({"issue": {"number": 9, "pull_request": {"url": "x"}}});
    assert_eq!(
        told(&described("issue_comment", main, &json)),
        "protected pull/9 -> pull/9 false"
    );
    let json = serde_json::json!({"issue": {"number": 9}});
    assert_eq!(
        told(&described("issue_comment", main, &json)),
        "protected local -> local false"
    );
    let json = serde_json::json!({"workflow_run": {"event": "pull_request", "pull_requests": []}});
    assert_eq!(
        told(&described("workflow_run", main, &json)),
        "protected pull/unknown -> pull/unknown false"
    );
    let json = serde_json::json!({"workflow_run": {"event": "push"}});
    assert_eq!(
        told(&described("workflow_run", main, &json)),
        "protected local -> local false"
    );
    let context = described("workflow_run", main, &json);
    assert!(!context.producer().protected);
}

#[test]
fn gitea_and_forgejo_know_no_protected_refs() {
    let of = |platform: &str| {
        github(&[
            ("GITEA_ACTIONS", "true"),
            (platform, "true"),
            ("GITHUB_EVENT_NAME", "push"),
            ("GITHUB_REF", "refs/heads/main"),
            ("GITHUB_REF_PROTECTED", "true"),
        ])
    };
    assert_eq!(detect(&of("GITEA_ACTIONS")).platform, Platform::Gitea);
    let forgejo = of("FORGEJO_ACTIONS");
    let context = detect(&forgejo);
    assert_eq!(context.platform, Platform::Forgejo);
    assert_eq!(told(&context), "protected branch/main -> branch/main true");
    let scopes = context.scopes(Some(Scope::protected()), []).unwrap();
    assert_eq!(scopes.order.own(), &Scope::protected());
    assert!(scopes.saves);
}

#[test]
fn gitlab() {
    let of = |more: &[(&str, &str)]| {
        let own = [("CI", "true"), ("GITLAB_CI", "true")];
        let all: Vec<(&str, &str)> = own.iter().chain(more).copied().collect();
        told(&detect(&Env::from_pairs(&all)))
    };
    let branch = ("CI_COMMIT_REF_NAME", "main");
    let protected = ("CI_COMMIT_REF_PROTECTED", "true");
    assert_eq!(of(&[branch, protected]), "protected -> protected true");
    assert_eq!(of(&[branch]), "protected branch/main -> branch/main true");
    assert_eq!(
        of(&[("CI_COMMIT_REF_NAME", "v1"), ("CI_COMMIT_TAG", "v1")]),
        "protected branch/tags/v1 -> branch/tags/v1 true"
    );
    let request = [
        ("CI_PIPELINE_SOURCE", "merge_request_event"),
        ("CI_COMMIT_REF_NAME", "fix"),
        protected,
        ("CI_MERGE_REQUEST_IID", "3"),
        ("CI_MERGE_REQUEST_TARGET_BRANCH_NAME", "main"),
        ("CI_MERGE_REQUEST_PROJECT_ID", "1"),
    ];
    let from = |id| {
        let mut all = request.to_vec();
        all.push(("CI_MERGE_REQUEST_SOURCE_PROJECT_ID", id));
        of(&all)
    };
    let scopes = "protected branch/main pull/3 -> pull/3";
    assert_eq!(from("1"), format!("{scopes} true"));
    assert_eq!(from("2"), format!("{scopes} false"));
    assert_eq!(of(&request), format!("{scopes} false"));
    assert_eq!(
        of(&[
            branch,
            protected,
            ("CI_PIPELINE_SOURCE", "merge_request_event")
        ]),
        "protected local -> local false",
        "a merge request without its number"
    );
    assert_eq!(
        of(&[
            branch,
            ("CI_EXTERNAL_PULL_REQUEST_IID", "4"),
            ("CI_EXTERNAL_PULL_REQUEST_SOURCE_REPOSITORY", "m/s"),
            ("CI_EXTERNAL_PULL_REQUEST_TARGET_REPOSITORY", "a/s"),
        ]),
        "protected pull/4 -> pull/4 false"
    );
    // As a local runner of GitLab's jobs does.
    let env = Env::from_pairs(&[("GITLAB_CI", "false"), branch]);
    assert_eq!(detect(&env).platform, Platform::GitLab);
}

#[test]
fn elsewhere() {
    assert_eq!(
        told(&detect(&Env::default())),
        "protected local -> local true"
    );
    let other = Env::from_pairs(&[("CI", "true")]);
    assert_eq!(told(&detect(&other)), "protected local -> local false");
    let chosen = detect(&other)
        .scopes(Some(Scope::branch("main")), [])
        .unwrap();
    assert!(chosen.saves, "who chooses a scope wants it to be used");
}

#[test]
fn a_pull_request_has_no_other_scope_than_its_own() {
    let head = serde_json::json!({"full_name": "acme/service"});
    let context = described("pull_request", "refs/pull/7/merge", &request(&head));
    for wanted in [
        Scope::protected(),
        Scope::branch("main"),
        Scope::pull("8"),
        // Developers read it.
        Scope::local(),
    ] {
        let refused = context.scopes(Some(wanted.clone()), []).unwrap_err();
        assert!(refused.to_string().contains(wanted.as_str()));
    }
    let own = context
        .scopes(Some(Scope::pull("7")), [Scope::pull("8")])
        .unwrap();
    assert_eq!(own.order.scopes().len(), 3, "{own:?}");
}

#[test]
fn the_producer_says_where_the_build_ran() {
    let env = github(&[
        ("GITHUB_EVENT_NAME", "push"),
        ("GITHUB_REF", "refs/heads/main"),
        ("GITHUB_REF_PROTECTED", "true"),
        ("GITHUB_RUN_ATTEMPT", "2"),
    ]);
    let producer = detect(&env).producer();
    assert_eq!(producer.repository.as_deref(), Some("acme/service"));
    assert_eq!(producer.git_ref.as_deref(), Some("refs/heads/main"));
    assert_eq!(producer.event.as_deref(), Some("push"));
    assert_eq!(
        producer.run.as_deref(),
        Some("https://github.com/acme/service/actions/runs/17/attempts/2")
    );
    assert!(producer.protected);
    assert!(producer.tool.starts_with("memobuild-ci "));
    assert_eq!(
        detect(&Env::default()).producer(),
        Producer {
            tool: TOOL.to_owned(),
            ..Producer::default()
        }
    );
}
