//! The variables of each platform's jobs, as its documentation names them.
//!
//! What is built is the head itself. Platforms that build a merge of a pull request with its target
//! make that merge; here it is only taken for one where the head is such a merge already.

use serde_json::{Value, json};

use super::{EventKind, Facts};
use crate::ci::Platform;

/// What stands for no commit.
const ZERO: &str = "0000000000000000000000000000000000000000";

type Variables = Vec<(&'static str, String)>;

/// The variables, the description of the event, and whether they tell of the base. None for an event
/// that the platform doesn't have.
pub(super) fn of(
    platform: Platform,
    kind: EventKind,
    facts: &Facts,
) -> Option<(Variables, Option<Value>, bool)> {
    match platform {
        Platform::GitHub | Platform::Gitea | Platform::Forgejo => actions(platform, kind, facts),
        Platform::GitLab => plain(gitlab(kind, facts), told(kind)),
        Platform::Jenkins => plain(jenkins(kind, facts)?, kind == EventKind::Push),
        Platform::Azure => plain(azure(kind, facts)?, false),
        Platform::Buildkite => plain(buildkite(kind, facts)?, false),
        Platform::Circle => plain(circle(kind, facts)?, kind != EventKind::NewBranch),
        Platform::CodeBuild => plain(codebuild(kind, facts)?, told(kind)),
        Platform::Drone => plain(drone(kind, facts)?, pushed(kind)),
        Platform::Woodpecker => plain(woodpecker(kind, facts)?, pushed(kind)),
        Platform::Bitbucket => {
            let told = kind == EventKind::PullRequest;
            plain(bitbucket(kind, facts)?, told)
        }
        Platform::CloudBuild => plain(cloud_build(kind, facts)?, false),
        Platform::Other | Platform::None => None,
    }
}

#[expect(clippy::unnecessary_wraps, reason = "one arm of a match of options")]
fn plain(variables: Variables, told: bool) -> Option<(Variables, Option<Value>, bool)> {
    Some((variables, None, told))
}

/// Whether a platform that tells of bases does so for this event.
fn told(kind: EventKind) -> bool {
    use EventKind::{MergeGroup, PullRequest};
    pushed(kind) || matches!(kind, PullRequest | MergeGroup)
}

fn pushed(kind: EventKind) -> bool {
    matches!(kind, EventKind::Push | EventKind::ForcePush)
}

/// What the branch was before.
fn before(kind: EventKind, facts: &Facts) -> String {
    match (kind, &facts.base) {
        (EventKind::NewBranch, _) | (_, None) => ZERO.to_owned(),
        (_, Some(base)) => base.clone(),
    }
}

fn onto(facts: &Facts) -> String {
    facts.base.clone().unwrap_or_default()
}

/// The proposal's ref: of the merge, if the head is that.
fn proposal(facts: &Facts) -> String {
    let what = if facts.merged().is_some() {
        "merge"
    } else {
        "head"
    };
    format!("refs/pull/{}/{what}", facts.number)
}

/// The commit that a pull request proposes.
fn proposed(facts: &Facts) -> String {
    facts.merged().unwrap_or(&facts.head).to_owned()
}

fn number(facts: &Facts) -> String {
    facts.number.to_string()
}

/// Whether a kind is one of pushes, pull requests and tags, which all platforms have.
fn is_of_git(kind: EventKind) -> bool {
    use EventKind::{ForcePush, NewBranch, PullRequest, Push, Tag};
    matches!(kind, Push | NewBranch | ForcePush | PullRequest | Tag)
}

fn branch(kind: EventKind, facts: &Facts) -> String {
    match kind {
        EventKind::Tag => String::new(),
        EventKind::Schedule => facts.default_branch.clone(),
        _ => facts.branch.clone(),
    }
}

fn tag(kind: EventKind, facts: &Facts) -> String {
    match kind {
        EventKind::Tag => facts.tag.clone(),
        _ => String::new(),
    }
}

fn actions(
    platform: Platform,
    kind: EventKind,
    facts: &Facts,
) -> Option<(Variables, Option<Value>, bool)> {
    if kind == EventKind::MergeGroup && platform != Platform::GitHub {
        return None;
    }
    let name = match kind {
        EventKind::Push | EventKind::NewBranch | EventKind::ForcePush | EventKind::Tag => "push",
        EventKind::PullRequest => "pull_request",
        EventKind::Schedule => "schedule",
        EventKind::MergeGroup => "merge_group",
        EventKind::Dispatch => "workflow_dispatch",
    };
    let queue = format!(
        "gh-readonly-queue/{}/pr-{}-{}",
        facts.default_branch,
        facts.number,
        onto(facts)
    );
    let git_ref = match kind {
        EventKind::PullRequest => proposal(facts),
        EventKind::MergeGroup => format!("refs/heads/{queue}"),
        kind => facts.git_ref(kind),
    };
    let repository = json!({
        "full_name": facts.repository,
        "default_branch": facts.default_branch,
    });
    let mut payload = json!({ "repository": repository });
    let body = match kind {
        EventKind::Push | EventKind::NewBranch | EventKind::ForcePush | EventKind::Tag => json!({
            "ref": git_ref,
            "before": match kind {
                EventKind::Tag => ZERO.to_owned(),
                kind => before(kind, facts),
            },
            "after": facts.head,
            "created": matches!(kind, EventKind::NewBranch | EventKind::Tag),
            "deleted": false,
            "forced": kind == EventKind::ForcePush,
            "head_commit": {"id": facts.head, "message": facts.message},
            "commits": [{"id": facts.head, "message": facts.message}],
        }),
        EventKind::PullRequest => json!({
            "action": "synchronize",
            "number": facts.number,
            "pull_request": {
                "number": facts.number,
                "labels": [],
                "head": {
                    "ref": facts.branch,
                    "sha": proposed(facts),
                    "repo": {"full_name": facts.repository},
                },
                "base": {
                    "ref": facts.default_branch,
                    "sha": onto(facts),
                    "repo": {"full_name": facts.repository},
                },
            },
        }),
        EventKind::MergeGroup => json!({
            "action": "checks_requested",
            "merge_group": {
                "head_sha": facts.head,
                "head_ref": git_ref,
                "base_sha": onto(facts),
                "base_ref": format!("refs/heads/{}", facts.default_branch),
                "head_commit": {"id": facts.head, "message": facts.message},
            },
        }),
        EventKind::Schedule => json!({"schedule": "0 3 * * *"}),
        EventKind::Dispatch => json!({
            "ref": git_ref,
            "inputs": match &facts.base {
                Some(base) => json!({"base": base}),
                None => Value::Null,
            },
        }),
    };
    if let (Some(all), Value::Object(body)) = (payload.as_object_mut(), body) {
        all.extend(body);
    }
    let is_request = kind == EventKind::PullRequest;
    let of_request = |text: &str| match is_request {
        true => text.to_owned(),
        false => String::new(),
    };
    let mut set = vec![
        ("GITHUB_ACTIONS", "true".to_owned()),
        ("GITHUB_EVENT_NAME", name.to_owned()),
        ("GITHUB_REF", git_ref),
        ("GITHUB_SHA", facts.head.clone()),
        ("GITHUB_REPOSITORY", facts.repository.clone()),
        ("GITHUB_HEAD_REF", of_request(&facts.branch)),
        ("GITHUB_BASE_REF", of_request(&facts.default_branch)),
    ];
    let own = ("GITEA_ACTIONS", "true".to_owned());
    match platform {
        Platform::Gitea => set.push(own),
        Platform::Forgejo => set.extend([own, ("FORGEJO_ACTIONS", "true".to_owned())]),
        _ => {}
    }
    Some((
        set,
        Some(payload),
        told(kind) || kind == EventKind::Dispatch,
    ))
}

fn gitlab(kind: EventKind, facts: &Facts) -> Variables {
    let source = match kind {
        EventKind::PullRequest | EventKind::MergeGroup => "merge_request_event",
        EventKind::Schedule => "schedule",
        EventKind::Dispatch => "web",
        _ => "push",
    };
    let mut set = vec![
        ("GITLAB_CI", "true".to_owned()),
        ("CI_PIPELINE_SOURCE", source.to_owned()),
        ("CI_PROJECT_PATH", facts.repository.clone()),
        ("CI_DEFAULT_BRANCH", facts.default_branch.clone()),
        ("CI_COMMIT_SHA", facts.head.clone()),
        ("CI_COMMIT_MESSAGE", facts.message.clone()),
    ];
    if let EventKind::PullRequest | EventKind::MergeGroup = kind {
        let iid = number(facts);
        set.extend([
            ("CI_COMMIT_REF_NAME", facts.branch.clone()),
            ("CI_COMMIT_BEFORE_SHA", ZERO.to_owned()),
            ("CI_MERGE_REQUEST_IID", iid),
            ("CI_MERGE_REQUEST_SOURCE_BRANCH_NAME", facts.branch.clone()),
            (
                "CI_MERGE_REQUEST_TARGET_BRANCH_NAME",
                facts.default_branch.clone(),
            ),
            ("CI_MERGE_REQUEST_PROJECT_ID", "1".to_owned()),
            ("CI_MERGE_REQUEST_SOURCE_PROJECT_ID", "1".to_owned()),
            ("CI_MERGE_REQUEST_DIFF_BASE_SHA", onto(facts)),
        ]);
        let merge = match (kind, facts.merged()) {
            (EventKind::MergeGroup, _) => "merge_train",
            (_, Some(_)) => "merged_result",
            (_, None) => "detached",
        };
        set.push(("CI_MERGE_REQUEST_EVENT_TYPE", merge.to_owned()));
        if merge != "detached" {
            set.extend([
                ("CI_MERGE_REQUEST_SOURCE_BRANCH_SHA", proposed(facts)),
                ("CI_MERGE_REQUEST_TARGET_BRANCH_SHA", onto(facts)),
            ]);
        }
        return set;
    }
    let is_push = !matches!(
        kind,
        EventKind::Tag | EventKind::Schedule | EventKind::Dispatch
    );
    set.extend([
        ("CI_COMMIT_TAG", tag(kind, facts)),
        (
            "CI_COMMIT_BEFORE_SHA",
            match is_push {
                true => before(kind, facts),
                false => ZERO.to_owned(),
            },
        ),
    ]);
    match kind {
        EventKind::Tag => set.push(("CI_COMMIT_REF_NAME", facts.tag.clone())),
        kind => {
            let branch = branch(kind, facts);
            set.push(("CI_COMMIT_REF_NAME", branch.clone()));
            set.push(("CI_COMMIT_BRANCH", branch));
        }
    }
    set
}

fn jenkins(kind: EventKind, facts: &Facts) -> Option<Variables> {
    if !is_of_git(kind) {
        return None;
    }
    let mut set = vec![
        ("JENKINS_URL", "https://jenkins.example/".to_owned()),
        ("BUILD_ID", "1".to_owned()),
        ("GIT_URL", facts.remote.clone()),
        ("GIT_COMMIT", facts.head.clone()),
    ];
    match kind {
        EventKind::PullRequest => set.extend([
            ("BRANCH_NAME", format!("PR-{}", facts.number)),
            ("CHANGE_ID", number(facts)),
            ("CHANGE_BRANCH", facts.branch.clone()),
            ("CHANGE_TARGET", facts.default_branch.clone()),
        ]),
        EventKind::Tag => set.extend([
            ("BRANCH_NAME", facts.tag.clone()),
            ("TAG_NAME", facts.tag.clone()),
        ]),
        kind => {
            set.push(("BRANCH_NAME", facts.branch.clone()));
            if kind == EventKind::Push {
                set.extend([
                    ("GIT_PREVIOUS_COMMIT", onto(facts)),
                    ("GIT_PREVIOUS_SUCCESSFUL_COMMIT", onto(facts)),
                ]);
            }
        }
    }
    Some(set)
}

fn azure(kind: EventKind, facts: &Facts) -> Option<Variables> {
    let reason = match kind {
        EventKind::PullRequest => "PullRequest",
        EventKind::Schedule => "Schedule",
        EventKind::Dispatch => "Manual",
        EventKind::MergeGroup => return None,
        _ => "IndividualCI",
    };
    let mut set = vec![
        ("TF_BUILD", "True".to_owned()),
        ("BUILD_BUILDID", "1".to_owned()),
        ("BUILD_REASON", reason.to_owned()),
        ("BUILD_REPOSITORY_NAME", facts.repository.clone()),
        ("BUILD_SOURCEVERSION", facts.head.clone()),
        ("BUILD_SOURCEVERSIONMESSAGE", facts.message.clone()),
    ];
    match kind {
        EventKind::PullRequest => set.extend([
            ("BUILD_SOURCEBRANCH", proposal(facts)),
            ("SYSTEM_PULLREQUEST_PULLREQUESTID", number(facts)),
            (
                "SYSTEM_PULLREQUEST_TARGETBRANCH",
                format!("refs/heads/{}", facts.default_branch),
            ),
            (
                "SYSTEM_PULLREQUEST_SOURCEBRANCH",
                format!("refs/heads/{}", facts.branch),
            ),
            ("SYSTEM_PULLREQUEST_SOURCECOMMITID", proposed(facts)),
            ("SYSTEM_PULLREQUEST_ISFORK", "False".to_owned()),
        ]),
        kind => set.push(("BUILD_SOURCEBRANCH", facts.git_ref(kind))),
    }
    Some(set)
}

fn buildkite(kind: EventKind, facts: &Facts) -> Option<Variables> {
    let source = match kind {
        EventKind::Schedule => "schedule",
        EventKind::Dispatch => "ui",
        EventKind::MergeGroup => return None,
        _ => "webhook",
    };
    let is_request = kind == EventKind::PullRequest;
    let mut set = vec![
        ("BUILDKITE", "true".to_owned()),
        ("BUILDKITE_SOURCE", source.to_owned()),
        ("BUILDKITE_REPO", facts.remote.clone()),
        ("BUILDKITE_COMMIT", facts.head.clone()),
        ("BUILDKITE_MESSAGE", facts.message.clone()),
        // A build of a tag has its name for a branch too.
        (
            "BUILDKITE_BRANCH",
            match kind {
                EventKind::Tag => facts.tag.clone(),
                kind => branch(kind, facts),
            },
        ),
        ("BUILDKITE_TAG", tag(kind, facts)),
        (
            "BUILDKITE_PIPELINE_DEFAULT_BRANCH",
            facts.default_branch.clone(),
        ),
        (
            "BUILDKITE_PULL_REQUEST",
            match is_request {
                true => number(facts),
                false => "false".to_owned(),
            },
        ),
    ];
    if is_request {
        set.extend([
            (
                "BUILDKITE_PULL_REQUEST_BASE_BRANCH",
                facts.default_branch.clone(),
            ),
            ("BUILDKITE_PULL_REQUEST_REPO", facts.remote.clone()),
        ]);
    }
    Some(set)
}

fn circle(kind: EventKind, facts: &Facts) -> Option<Variables> {
    if !is_of_git(kind) {
        return None;
    }
    let (owner, name) = facts
        .repository
        .rsplit_once('/')
        .unwrap_or(("", &facts.repository));
    let mut set = vec![
        ("CIRCLECI", "true".to_owned()),
        ("CIRCLE_SHA1", facts.head.clone()),
        ("CIRCLE_PROJECT_USERNAME", owner.to_owned()),
        ("CIRCLE_PROJECT_REPONAME", name.to_owned()),
        ("CIRCLE_BRANCH", branch(kind, facts)),
        ("CIRCLE_TAG", tag(kind, facts)),
    ];
    // The job hands it on: it is a value of the pipeline, no variable.
    if !matches!(kind, EventKind::Tag | EventKind::NewBranch) {
        set.push(("PIPELINE_GIT_BASE_REVISION", onto(facts)));
    }
    if kind == EventKind::PullRequest {
        let address = format!(
            "https://github.com/{}/pull/{}",
            facts.repository, facts.number
        );
        set.push(("CIRCLE_PULL_REQUEST", address));
    }
    Some(set)
}

fn codebuild(kind: EventKind, facts: &Facts) -> Option<Variables> {
    let mut set = vec![
        ("CODEBUILD_BUILD_ID", "service:1".to_owned()),
        ("CODEBUILD_SOURCE_REPO_URL", facts.remote.clone()),
        ("CODEBUILD_RESOLVED_SOURCE_VERSION", facts.head.clone()),
    ];
    match kind {
        EventKind::PullRequest => set.extend([
            ("CODEBUILD_WEBHOOK_EVENT", "PULL_REQUEST_UPDATED".to_owned()),
            ("CODEBUILD_WEBHOOK_TRIGGER", format!("pr/{}", facts.number)),
            ("CODEBUILD_SOURCE_VERSION", format!("pr/{}", facts.number)),
            (
                "CODEBUILD_WEBHOOK_BASE_REF",
                format!("refs/heads/{}", facts.default_branch),
            ),
            (
                "CODEBUILD_WEBHOOK_HEAD_REF",
                format!("refs/heads/{}", facts.branch),
            ),
            ("CODEBUILD_WEBHOOK_PREV_COMMIT", onto(facts)),
        ]),
        EventKind::Tag => set.extend([
            ("CODEBUILD_WEBHOOK_EVENT", "PUSH".to_owned()),
            ("CODEBUILD_WEBHOOK_TRIGGER", format!("tag/{}", facts.tag)),
        ]),
        EventKind::Dispatch => set.push(("CODEBUILD_SOURCE_VERSION", facts.head.clone())),
        EventKind::Schedule | EventKind::MergeGroup => return None,
        kind => set.extend([
            ("CODEBUILD_WEBHOOK_EVENT", "PUSH".to_owned()),
            (
                "CODEBUILD_WEBHOOK_TRIGGER",
                format!("branch/{}", facts.branch),
            ),
            (
                "CODEBUILD_WEBHOOK_HEAD_REF",
                format!("refs/heads/{}", facts.branch),
            ),
            ("CODEBUILD_WEBHOOK_PREV_COMMIT", before(kind, facts)),
        ]),
    }
    Some(set)
}

fn drone(kind: EventKind, facts: &Facts) -> Option<Variables> {
    let event = match kind {
        EventKind::PullRequest => "pull_request",
        EventKind::Tag => "tag",
        EventKind::Schedule => "cron",
        EventKind::Dispatch => "custom",
        EventKind::MergeGroup => return None,
        _ => "push",
    };
    let mut set = vec![
        ("DRONE", "true".to_owned()),
        ("DRONE_BUILD_EVENT", event.to_owned()),
        ("DRONE_REPO", facts.repository.clone()),
        ("DRONE_REPO_BRANCH", facts.default_branch.clone()),
        ("DRONE_COMMIT_MESSAGE", facts.message.clone()),
    ];
    if kind == EventKind::PullRequest {
        set.extend([
            ("DRONE_COMMIT_SHA", proposed(facts)),
            (
                "DRONE_COMMIT_REF",
                format!("refs/pull/{}/head", facts.number),
            ),
            ("DRONE_PULL_REQUEST", number(facts)),
            ("DRONE_SOURCE_BRANCH", facts.branch.clone()),
            ("DRONE_TARGET_BRANCH", facts.default_branch.clone()),
        ]);
        return Some(set);
    }
    set.extend([
        ("DRONE_COMMIT_SHA", facts.head.clone()),
        ("DRONE_COMMIT_REF", facts.git_ref(kind)),
        ("DRONE_TAG", tag(kind, facts)),
    ]);
    if event == "push" {
        set.push(("DRONE_COMMIT_BEFORE", before(kind, facts)));
    }
    Some(set)
}

fn woodpecker(kind: EventKind, facts: &Facts) -> Option<Variables> {
    let event = match kind {
        EventKind::PullRequest => "pull_request",
        EventKind::Tag => "tag",
        EventKind::Schedule => "cron",
        EventKind::Dispatch => "manual",
        EventKind::MergeGroup => return None,
        _ => "push",
    };
    let mut set = vec![
        ("CI", "woodpecker".to_owned()),
        ("CI_PIPELINE_EVENT", event.to_owned()),
        ("CI_REPO", facts.repository.clone()),
        ("CI_REPO_DEFAULT_BRANCH", facts.default_branch.clone()),
        ("CI_COMMIT_MESSAGE", facts.message.clone()),
    ];
    if kind == EventKind::PullRequest {
        set.extend([
            ("CI_COMMIT_SHA", proposed(facts)),
            ("CI_COMMIT_REF", format!("refs/pull/{}/head", facts.number)),
            ("CI_COMMIT_BRANCH", facts.default_branch.clone()),
            ("CI_COMMIT_PULL_REQUEST", number(facts)),
            ("CI_COMMIT_SOURCE_BRANCH", facts.branch.clone()),
            ("CI_COMMIT_TARGET_BRANCH", facts.default_branch.clone()),
        ]);
        return Some(set);
    }
    set.extend([
        ("CI_COMMIT_SHA", facts.head.clone()),
        ("CI_COMMIT_REF", facts.git_ref(kind)),
        ("CI_COMMIT_BRANCH", branch(kind, facts)),
        ("CI_COMMIT_TAG", tag(kind, facts)),
    ]);
    if pushed(kind) {
        set.extend([
            ("CI_PREV_PIPELINE_EVENT", "push".to_owned()),
            ("CI_PREV_COMMIT_SHA", onto(facts)),
        ]);
    }
    Some(set)
}

fn bitbucket(kind: EventKind, facts: &Facts) -> Option<Variables> {
    if !is_of_git(kind) {
        return None;
    }
    let mut set = vec![
        ("BITBUCKET_BUILD_NUMBER", "1".to_owned()),
        ("BITBUCKET_REPO_FULL_NAME", facts.repository.clone()),
        ("BITBUCKET_COMMIT", facts.head.clone()),
        ("BITBUCKET_BRANCH", branch(kind, facts)),
        ("BITBUCKET_TAG", tag(kind, facts)),
    ];
    if kind == EventKind::PullRequest {
        set.extend([
            ("BITBUCKET_PR_ID", number(facts)),
            (
                "BITBUCKET_PR_DESTINATION_BRANCH",
                facts.default_branch.clone(),
            ),
            ("BITBUCKET_PR_DESTINATION_COMMIT", onto(facts)),
        ]);
    }
    Some(set)
}

fn cloud_build(kind: EventKind, facts: &Facts) -> Option<Variables> {
    if !is_of_git(kind) {
        return None;
    }
    let mut set = vec![
        ("GOOGLE_CLOUD_BUILD", "true".to_owned()),
        ("BUILD_ID", "1".to_owned()),
        ("REPO_FULL_NAME", facts.repository.clone()),
        ("COMMIT_SHA", facts.head.clone()),
        ("BRANCH_NAME", branch(kind, facts)),
        ("TAG_NAME", tag(kind, facts)),
    ];
    if kind == EventKind::PullRequest {
        set.extend([
            ("_PR_NUMBER", number(facts)),
            ("_HEAD_BRANCH", facts.branch.clone()),
            ("_BASE_BRANCH", facts.default_branch.clone()),
        ]);
    }
    Some(set)
}
