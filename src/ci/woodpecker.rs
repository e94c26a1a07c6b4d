//! Woodpecker.
//!
//! Nothing says whether a branch is protected, or whether a pull request comes from a fork. A
//! deployment may be that of a pull request.
//!
//! `CI_PREV_COMMIT_SHA` is what the pipeline before this one built, which may have been that of a
//! pull request for the same branch: it counts after a push alone.

use super::{CiContext, Event, Platform, PullRequest, request};
use crate::{
    config::env::Env,
    git::base::{BasePlace, BaseReason, BaseRequest},
};

/// What the variables of a step of Woodpecker say.
pub(super) fn detect(env: &Env) -> CiContext {
    let text = |name| env.platform(name).map(str::to_owned);
    let event_name = text("CI_PIPELINE_EVENT");
    let tag = text("CI_COMMIT_TAG");
    let branch = text("CI_COMMIT_BRANCH");
    let git_ref = text("CI_COMMIT_REF").or_else(|| request::full_name(tag, branch));
    let is_request = |name: &str| name.starts_with("pull_request");
    let is_request = event_name.as_deref().is_some_and(is_request)
        || git_ref.as_deref().is_some_and(request::is_proposal);
    let number = text("CI_COMMIT_PULL_REQUEST");
    let pull_request = (is_request || number.is_some()).then(|| PullRequest {
        number,
        base: text("CI_COMMIT_TARGET_BRANCH"),
        source: text("CI_COMMIT_SOURCE_BRANCH"),
        is_fork: None,
        labels: request::labels(env.platform("CI_COMMIT_PULL_REQUEST_LABELS")),
    });
    let event = match event_name.as_deref() {
        _ if pull_request.is_some() => Event::PullRequest,
        Some("push") => Event::push_of(git_ref.as_deref()),
        Some("tag") => Event::Tag,
        Some("release") => Event::Release,
        Some("cron") => Event::Schedule,
        Some("manual") => Event::Dispatch,
        Some("deployment") => Event::Deployment,
        name => Event::other(name),
    };
    let own_code = matches!(
        event,
        Event::Push | Event::Tag | Event::Release | Event::Schedule | Event::Dispatch
    );
    let mut context = CiContext {
        repository: text("CI_REPO"),
        foreign_code: git_ref.is_none() || !(own_code || pull_request.is_some()),
        event,
        event_name,
        head: text("CI_COMMIT_SHA"),
        default_branch: text("CI_REPO_DEFAULT_BRANCH"),
        target_branch: request::target(pull_request.as_ref()),
        messages: text("CI_COMMIT_MESSAGE").into_iter().collect(),
        run: text("CI_PIPELINE_URL"),
        git_ref,
        pull_request,
        ..CiContext::unknown(Platform::Woodpecker)
    };
    context.base = BaseRequest {
        head: context.head.clone(),
        full_clone: "`depth: 0` and `partial: false` in the settings of the clone step",
        ..base(&context, env)
    };
    context
}

fn base(context: &CiContext, env: &Env) -> BaseRequest {
    let previous = match env.platform("CI_PREV_PIPELINE_EVENT") {
        Some("push") => env.platform("CI_PREV_COMMIT_SHA").map(str::to_owned),
        _ => None,
    };
    match context.event {
        Event::PullRequest => {
            let merge = BasePlace::MergeCommitParent {
                merged: context.head.clone(),
                merge: None,
            };
            let request =
                BaseRequest::none(BaseReason::Unreachable).or(merge, BaseReason::MergeCommitParent);
            request::pull_request(request, None, context.target_branch.as_deref())
        }
        Event::Push => request::push(
            context,
            previous,
            BaseReason::PreviousBuild,
            context.default_branch.as_deref(),
        ),
        _ => request::none_for(&context.event),
    }
}
