//! GitHub Actions, and Gitea's and Forgejo's, which use the same variables and the same
//! description of the event ([`Payload`]).
//!
//! `GITHUB_REF` alone doesn't say whose code a job builds: `pull_request_target`, `workflow_run` and
//! `issue_comment` run for the base branch, with its rights, and often check out the code of a
//! pull request; `repository_dispatch` may. So whatever names a pull request counts as its build, and only for the
//! events in [`OF_THE_REF`] the ref is taken for what is built.
//!
//! `GITHUB_REF_PROTECTED` is GitHub's alone. Gitea and Forgejo say nothing of the kind, so that there
//! no build is `protected` unless its job asks for that scope.
//!
//! | event | base |
//! |---|---|
//! | `push` of a branch | `before`; where that is zeros, or gone after a push by force, the merge base with the default branch |
//! | `push` of a tag, `create` of one | what the tag was before, else the nearest tag behind it |
//! | `pull_request` | the first parent of the merge commit, if that is checked out; else the merge base with the base branch |
//! | `pull_request_target` | the merge base of what is checked out with the base branch |
//! | `merge_group` | its `base_sha` |
//! | `workflow_dispatch` | the input `base`, else the merge base with the default branch |
//! | `schedule` and all others | none |

use super::{CiContext, Event, Payload, Platform, PullRequest, request};
use crate::{
    config::env::Env,
    git::base::{BasePlace, BaseReason, BaseRequest, Other},
};

/// Events whose jobs build what their ref says.
const OF_THE_REF: [&str; 6] = [
    "push",
    "create",
    "merge_group",
    "release",
    "schedule",
    "workflow_dispatch",
];

/// How a job gets all history.
const FULL_CLONE: &str = "`fetch-depth: 0` for `actions/checkout`";

/// What the variables of a job of Actions say.
pub(super) fn detect(platform: Platform, env: &Env) -> CiContext {
    let text = |name| env.platform(name).map(str::to_owned);
    let name = text("GITHUB_EVENT_NAME").unwrap_or_default();
    let (payload, trouble) = match Payload::read(env) {
        Ok(payload) => (payload, None),
        Err(error) => (Payload::default(), Some(error)),
    };
    let git_ref = text("GITHUB_REF");
    let pull_request = pull_request(&name, &payload, git_ref.as_deref(), env);
    let of_the_ref = OF_THE_REF.contains(&name.as_str());
    let mut context = CiContext {
        repository: text("GITHUB_REPOSITORY"),
        protected: platform == Platform::GitHub
            && env.platform("GITHUB_REF_PROTECTED") == Some("true"),
        foreign_code: git_ref.is_none() || !(of_the_ref || pull_request.is_some()),
        event: event(&name, &payload, git_ref.as_deref()),
        head: text("GITHUB_SHA"),
        default_branch: payload.text("/repository/default_branch"),
        target_branch: match &pull_request {
            Some(request) => request.base.clone(),
            None => payload
                .text("/merge_group/base_ref")
                .map(|name| short(&name)),
        },
        messages: messages(&payload),
        event_name: Some(name).filter(|name| !name.is_empty()),
        run: run(env),
        git_ref,
        pull_request,
        trouble: trouble.into_iter().collect(),
        ..CiContext::unknown(platform)
    };
    context.base = BaseRequest {
        head: context.head.clone(),
        full_clone: FULL_CLONE,
        ..base(&context, &payload)
    };
    context
}

/// The name of a branch that is given in full or not.
fn short(name: &str) -> String {
    name.strip_prefix("refs/heads/").unwrap_or(name).to_owned()
}

fn event(name: &str, payload: &Payload, git_ref: Option<&str>) -> Event {
    match name {
        "push" if payload.is("/deleted") => Event::Delete,
        "push" | "create" => Event::push_of(git_ref),
        "pull_request" => Event::PullRequest,
        "pull_request_target" => Event::PullRequestTarget,
        "merge_group" => Event::MergeGroup,
        "schedule" => Event::Schedule,
        "workflow_dispatch" | "repository_dispatch" => Event::Dispatch,
        "release" => Event::Release,
        "deployment" | "deployment_status" => Event::Deployment,
        "delete" => Event::Delete,
        name => Event::other(Some(name).filter(|name| !name.is_empty())),
    }
}

/// Where the base may be.
fn base(context: &CiContext, payload: &Payload) -> BaseRequest {
    let before = payload.text("/before");
    let default = context.default_branch.as_deref();
    match &context.event {
        Event::Delete => BaseRequest::none(BaseReason::Deleted),
        Event::Push => {
            let forced = payload.is("/forced");
            let reason = match forced {
                true => BaseReason::ForcePush,
                false => BaseReason::PushBefore,
            };
            let left = payload.text("/base_ref").map(|name| short(&name));
            let left = left.map(|name| request::left(Some(&name)));
            request::push(context, before, reason, default).or_some(left, BaseReason::NewBranch)
        }
        Event::Tag => {
            let moved = before.filter(|id| !request::is_zero(id));
            BaseRequest::none(BaseReason::Tag)
                .or_some(moved.map(BasePlace::Commit), BaseReason::ForcePush)
                .or(BasePlace::PreviousTag, BaseReason::PreviousTag)
        }
        Event::PullRequest | Event::PullRequestTarget => {
            // Gitea and older Forgejo build the proposal itself.
            let is_merge = |name: &str| name.ends_with("/merge");
            let merge = BasePlace::MergeCommitParent {
                merged: payload.text("/pull_request/head/sha"),
                merge: match context.git_ref.as_deref().is_some_and(is_merge) {
                    true => context.head.clone(),
                    false => None,
                },
            };
            let onto = payload.text("/pull_request/base/sha").map(Other::Commit);
            let request = match context.event {
                Event::PullRequest => BaseRequest::none(BaseReason::Unreachable)
                    .or(merge, BaseReason::MergeCommitParent),
                _ => BaseRequest::none(BaseReason::Unreachable),
            };
            request::pull_request(request, onto, context.target_branch.as_deref())
        }
        Event::MergeGroup => {
            let onto = payload.text("/merge_group/base_sha").map(BasePlace::Commit);
            let request =
                BaseRequest::none(BaseReason::Unreachable).or_some(onto, BaseReason::MergeGroup);
            request::pull_request(request, None, context.target_branch.as_deref())
        }
        Event::Dispatch if context.event_name.as_deref() == Some("workflow_dispatch") => {
            let asked = payload.text("/inputs/base").map(BasePlace::Revision);
            BaseRequest {
                branch: context.branch().map(str::to_owned),
                ..BaseRequest::none(BaseReason::Dispatch)
                    .or_some(asked, BaseReason::Asked)
                    .or(request::left(default), BaseReason::DefaultBranch)
            }
        }
        Event::Dispatch => BaseRequest::none(BaseReason::Dispatch),
        Event::Schedule => BaseRequest::none(BaseReason::Schedule),
        Event::Unknown => BaseRequest::none(BaseReason::NoEvent),
        Event::Release | Event::Deployment | Event::Other(_) => {
            BaseRequest::none(BaseReason::OtherEvent)
        }
    }
}

/// The messages of the commits that the event is about, the head's first.
fn messages(payload: &Payload) -> Vec<String> {
    let heads = ["/head_commit/message", "/merge_group/head_commit/message"];
    let head = heads.iter().find_map(|pointer| payload.text(pointer));
    let mut all: Vec<String> = head.into_iter().collect();
    for message in payload.texts("/commits", "message") {
        if !all.contains(&message) {
            all.push(message);
        }
    }
    all
}

/// The address of the run.
fn run(env: &Env) -> Option<String> {
    let id = env.platform("GITHUB_RUN_ID")?;
    let server = env.platform("GITHUB_SERVER_URL");
    let (Some(server), Some(repository)) = (server, env.platform("GITHUB_REPOSITORY")) else {
        return Some(id.to_owned());
    };
    let attempt = match env.platform("GITHUB_RUN_ATTEMPT") {
        None | Some("1") => String::new(),
        Some(attempt) => format!("/attempts/{attempt}"),
    };
    Some(format!("{server}/{repository}/actions/runs/{id}{attempt}"))
}

/// The pull request that the job may build.
fn pull_request(
    name: &str,
    payload: &Payload,
    git_ref: Option<&str>,
    env: &Env,
) -> Option<PullRequest> {
    let base = env.platform("GITHUB_BASE_REF").map(str::to_owned);
    let source = env.platform("GITHUB_HEAD_REF").map(str::to_owned);
    if payload.has("/pull_request") {
        return Some(described(payload, base, source));
    }
    if payload.has("/issue/pull_request") {
        return Some(PullRequest {
            number: payload.number("/issue/number"),
            labels: payload.texts("/issue/labels", "name"),
            ..PullRequest::default()
        });
    }
    let after = payload.text("/workflow_run/event");
    if let Some("pull_request" | "pull_request_target") = after.as_deref() {
        return Some(PullRequest {
            number: payload.number("/workflow_run/pull_requests/0/number"),
            ..PullRequest::default()
        });
    }
    // Without a description: `refs/pull/7/merge`, `refs/pull/7/head`.
    let number = git_ref.and_then(|name| name.strip_prefix("refs/pull/"));
    let number = number.and_then(|rest| rest.split('/').next());
    (number.is_some() || name.starts_with("pull_request")).then(|| PullRequest {
        number: number.map(str::to_owned),
        base,
        source,
        ..PullRequest::default()
    })
}

fn described(payload: &Payload, base: Option<String>, source: Option<String>) -> PullRequest {
    let own = payload.text("/pull_request/base/repo/full_name");
    let own = own.or_else(|| payload.text("/repository/full_name"));
    let head = payload.text("/pull_request/head/repo/full_name");
    // A fork that was deleted has no repository any more.
    let head = payload.has("/pull_request/head").then_some(head);
    PullRequest {
        number: payload.number("/pull_request/number"),
        base: base.or_else(|| payload.text("/pull_request/base/ref")),
        source: source.or_else(|| payload.text("/pull_request/head/ref")),
        is_fork: match (own, head) {
            (Some(own), Some(Some(head))) => Some(own != head),
            (Some(_), Some(None)) => Some(true),
            _ => None,
        },
        labels: payload.texts("/pull_request/labels", "name"),
    }
}
