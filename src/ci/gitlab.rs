//! GitLab CI.
//!
//! A merge request's pipeline may run in the project that it comes from or in the one it goes to; in both
//! it has its number and the numbers of both projects. A pipeline that a merge request's pipeline starts inherits them.
//! `CI_COMMIT_REF_PROTECTED` is about the branch that is built; that of a merge request is somebody's.
//!
//! | pipeline | base |
//! |---|---|
//! | of a branch | `CI_COMMIT_BEFORE_SHA`; where that is zeros, the merge base with the default branch |
//! | of a merge request | `CI_MERGE_REQUEST_DIFF_BASE_SHA` |
//! | of its merged result, or a merge train | the first parent of the merge, `CI_MERGE_REQUEST_TARGET_BRANCH_SHA` |
//! | of another platform's pull request | the merge base with its target |
//! | that another one started | `CI_COMMIT_BEFORE_SHA`, if that isn't zeros |
//! | of a tag, on a schedule, started by somebody | none |

use super::{CiContext, Event, Platform, PullRequest, request};
use crate::{
    config::env::Env,
    git::base::{BasePlace, BaseReason, BaseRequest, Other},
};

/// How a job gets all history.
const FULL_CLONE: &str = "`GIT_DEPTH: 0` in its `variables`";

/// What the variables of a job of GitLab say.
pub(super) fn detect(env: &Env) -> CiContext {
    let text = |name| env.platform(name).map(str::to_owned);
    let name = text("CI_COMMIT_REF_NAME");
    let git_ref = match text("CI_COMMIT_TAG") {
        Some(tag) => Some(format!("refs/tags/{tag}")),
        None => name.map(|branch| match branch.starts_with("refs/") {
            // `refs/merge-requests/7/head`, as pipelines of merge requests have it.
            true => branch,
            false => format!("refs/heads/{branch}"),
        }),
    };
    let pull_request = merge_request(env).or_else(|| external(env));
    let event_name = text("CI_PIPELINE_SOURCE");
    let is_request =
        |event: &str| matches!(event, "merge_request_event" | "external_pull_request_event");
    let mut context = CiContext {
        repository: text("CI_PROJECT_PATH"),
        protected: env.platform("CI_COMMIT_REF_PROTECTED") == Some("true"),
        run: text("CI_PIPELINE_URL"),
        foreign_code: git_ref.is_none()
            || (pull_request.is_none() && event_name.as_deref().is_some_and(is_request)),
        event: event(
            event_name.as_deref(),
            env,
            pull_request.is_some(),
            git_ref.as_deref(),
        ),
        head: text("CI_COMMIT_SHA"),
        default_branch: text("CI_DEFAULT_BRANCH"),
        target_branch: pull_request
            .as_ref()
            .and_then(|request| request.base.clone()),
        messages: text("CI_COMMIT_MESSAGE").into_iter().collect(),
        git_ref,
        event_name,
        pull_request,
        ..CiContext::unknown(Platform::GitLab)
    };
    context.base = BaseRequest {
        head: context.head.clone(),
        full_clone: FULL_CLONE,
        ..base(&context, env)
    };
    context
}

fn event(name: Option<&str>, env: &Env, is_request: bool, git_ref: Option<&str>) -> Event {
    match name {
        Some("merge_request_event" | "external_pull_request_event" | "parent_pipeline")
            if is_request =>
        {
            match env.platform("CI_MERGE_REQUEST_EVENT_TYPE") {
                Some("merge_train") => Event::MergeGroup,
                _ => Event::PullRequest,
            }
        }
        Some("push") => Event::push_of(git_ref),
        Some("schedule") => Event::Schedule,
        Some("web" | "webide" | "api" | "trigger" | "pipeline" | "chat") => Event::Dispatch,
        name => Event::other(name),
    }
}

/// Where the base may be.
fn base(context: &CiContext, env: &Env) -> BaseRequest {
    let text = |name| env.platform(name).map(str::to_owned);
    let before = text("CI_COMMIT_BEFORE_SHA");
    match &context.event {
        Event::PullRequest | Event::MergeGroup => {
            let target = context.target_branch.as_deref();
            let mut request = BaseRequest::none(BaseReason::Unreachable);
            let kind = env.platform("CI_MERGE_REQUEST_EVENT_TYPE");
            if let Some("merged_result" | "merge_train") = kind {
                let merge = BasePlace::MergeCommitParent {
                    merged: text("CI_MERGE_REQUEST_SOURCE_BRANCH_SHA"),
                    merge: context.head.clone(),
                };
                let onto = text("CI_MERGE_REQUEST_TARGET_BRANCH_SHA").map(BasePlace::Commit);
                request = request
                    .or(merge, BaseReason::MergeCommitParent)
                    .or_some(onto, BaseReason::MergeGroup);
            }
            let diff = text("CI_MERGE_REQUEST_DIFF_BASE_SHA").map(BasePlace::Commit);
            let external = text("CI_EXTERNAL_PULL_REQUEST_TARGET_BRANCH_SHA").map(Other::Commit);
            let request = request.or_some(diff, BaseReason::PullRequest);
            request::pull_request(request, external, target)
        }
        Event::Push => request::push(
            context,
            before,
            BaseReason::PushBefore,
            context.default_branch.as_deref(),
        ),
        Event::Tag => BaseRequest::none(BaseReason::Tag),
        Event::Schedule => BaseRequest::none(BaseReason::Schedule),
        Event::Dispatch => BaseRequest::none(BaseReason::Dispatch),
        Event::Unknown => BaseRequest::none(BaseReason::NoEvent),
        _ if context.event_name.as_deref() == Some("parent_pipeline") => {
            let before = before.filter(|id| !request::is_zero(id));
            BaseRequest::none(BaseReason::OtherEvent)
                .or_some(before.map(BasePlace::Commit), BaseReason::PushBefore)
        }
        _ => BaseRequest::none(BaseReason::OtherEvent),
    }
}

fn merge_request(env: &Env) -> Option<PullRequest> {
    let text = |name| env.platform(name).map(str::to_owned);
    let from = env.platform("CI_MERGE_REQUEST_SOURCE_PROJECT_ID");
    let to = env.platform("CI_MERGE_REQUEST_PROJECT_ID");
    let labels = env.platform("CI_MERGE_REQUEST_LABELS");
    Some(PullRequest {
        number: Some(text("CI_MERGE_REQUEST_IID")?),
        base: text("CI_MERGE_REQUEST_TARGET_BRANCH_NAME"),
        source: text("CI_MERGE_REQUEST_SOURCE_BRANCH_NAME"),
        is_fork: from.zip(to).map(|(from, to)| from != to),
        labels: request::labels(labels),
    })
}

/// A pull request of another platform, whose repository GitLab mirrors.
fn external(env: &Env) -> Option<PullRequest> {
    let text = |name| env.platform(name).map(str::to_owned);
    let from = env.platform("CI_EXTERNAL_PULL_REQUEST_SOURCE_REPOSITORY");
    let to = env.platform("CI_EXTERNAL_PULL_REQUEST_TARGET_REPOSITORY");
    Some(PullRequest {
        number: Some(text("CI_EXTERNAL_PULL_REQUEST_IID")?),
        base: text("CI_EXTERNAL_PULL_REQUEST_TARGET_BRANCH_NAME"),
        source: text("CI_EXTERNAL_PULL_REQUEST_SOURCE_BRANCH_NAME"),
        is_fork: from.zip(to).map(|(from, to)| from != to),
        labels: Vec::new(),
    })
}
