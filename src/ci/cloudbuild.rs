//! Google Cloud Build.
//!
//! It sets no variables by itself. A step that wants to be known has `GOOGLE_CLOUD_BUILD=true` among
//! its `env`, and hands on what it likes of the build's substitutions by their own names:
//! `COMMIT_SHA=$COMMIT_SHA`, `_PR_NUMBER=$_PR_NUMBER`.
//!
//! Whoever hands on the branch and not the number makes a pull request look like a branch. So
//! nothing but a number says what is built, and a branch's name is never taken for it.

use super::{CiContext, Event, Platform, PullRequest, request};
use crate::{
    config::env::Env,
    git::base::{BaseReason, BaseRequest},
};

/// What a step of Cloud Build was handed on.
pub(super) fn detect(env: &Env) -> CiContext {
    let text = |name| env.platform(name).map(str::to_owned);
    let pull_request = text("_PR_NUMBER").map(|number| PullRequest {
        number: Some(number),
        base: text("_BASE_BRANCH"),
        source: text("_HEAD_BRANCH").or_else(|| text("BRANCH_NAME")),
        ..PullRequest::default()
    });
    let git_ref = match &pull_request {
        Some(_) => None,
        None => request::full_name(text("TAG_NAME"), text("BRANCH_NAME")),
    };
    let event = match &pull_request {
        Some(_) => Event::PullRequest,
        None if git_ref.is_some() => Event::push_of(git_ref.as_deref()),
        None => Event::Unknown,
    };
    let mut context = CiContext {
        repository: text("REPO_FULL_NAME").or_else(|| text("REPO_NAME")),
        foreign_code: true,
        event,
        head: text("COMMIT_SHA").or_else(|| text("REVISION_ID")),
        target_branch: request::target(pull_request.as_ref()),
        run: text("BUILD_ID"),
        git_ref,
        pull_request,
        ..CiContext::unknown(Platform::CloudBuild)
    };
    context.base = BaseRequest {
        head: context.head.clone(),
        full_clone: "a step before with `git fetch --unshallow`",
        ..base(&context)
    };
    context
}

fn base(context: &CiContext) -> BaseRequest {
    match context.event {
        Event::PullRequest => {
            let request = BaseRequest::none(BaseReason::Unreachable);
            request::pull_request(request, None, context.target_branch.as_deref())
        }
        Event::Push => request::push(context, None, BaseReason::PushBefore, None),
        _ => request::none_for(&context.event),
    }
}
