//! Buildkite.
//!
//! Nothing says whether a branch is protected. A branch's name is taken for what is built only
//! where a push or a schedule started the build: who starts one by hand, by the interface for
//! programs or from another pipeline names branch and commit as they like. A pull
//! request's repository is told, so that a fork is known.
//!
//! What is built is the tip of the branch, for pull requests too. `BUILDKITE_COMMIT` may be `HEAD`.
//! What was built before isn't told.

use super::{CiContext, Event, Platform, PullRequest, request};
use crate::{
    config::env::Env,
    git::base::{BaseReason, BaseRequest},
};

/// What the variables of a job of Buildkite say.
pub(super) fn detect(env: &Env) -> CiContext {
    let text = |name| env.platform(name).map(str::to_owned);
    let git_ref = request::full_name(text("BUILDKITE_TAG"), text("BUILDKITE_BRANCH"));
    let number = text("BUILDKITE_PULL_REQUEST").filter(|number| number != "false");
    let pull_request = number.map(|number| PullRequest {
        number: Some(number),
        base: text("BUILDKITE_PULL_REQUEST_BASE_BRANCH"),
        source: text("BUILDKITE_BRANCH"),
        is_fork: is_fork(env),
        labels: request::labels(env.platform("BUILDKITE_PULL_REQUEST_LABELS")),
    });
    let event_name = text("BUILDKITE_SOURCE");
    let event = match event_name.as_deref() {
        _ if pull_request.is_some() => Event::PullRequest,
        Some("webhook") => Event::push_of(git_ref.as_deref()),
        Some("schedule") => Event::Schedule,
        Some("ui" | "api" | "trigger_job") => Event::Dispatch,
        name => Event::other(name),
    };
    let own_code = matches!(event, Event::Push | Event::Tag | Event::Schedule);
    let mut context = CiContext {
        repository: env.platform("BUILDKITE_REPO").and_then(request::slug),
        foreign_code: git_ref.is_none() || !(own_code || pull_request.is_some()),
        event,
        event_name,
        head: text("BUILDKITE_COMMIT"),
        default_branch: text("BUILDKITE_PIPELINE_DEFAULT_BRANCH"),
        target_branch: request::target(pull_request.as_ref()),
        messages: text("BUILDKITE_MESSAGE").into_iter().collect(),
        run: text("BUILDKITE_BUILD_URL"),
        git_ref,
        pull_request,
        ..CiContext::unknown(Platform::Buildkite)
    };
    context.base = BaseRequest {
        head: context.head.clone(),
        full_clone: "no `--depth` in `BUILDKITE_GIT_CLONE_FLAGS`",
        ..base(&context)
    };
    context
}

/// Whether the pull request's repository is another one.
fn is_fork(env: &Env) -> Option<bool> {
    let own = request::host_and_path(env.platform("BUILDKITE_REPO")?)?;
    let from = request::host_and_path(env.platform("BUILDKITE_PULL_REQUEST_REPO")?)?;
    Some(own != from)
}

fn base(context: &CiContext) -> BaseRequest {
    let default = context.default_branch.as_deref();
    match context.event {
        Event::PullRequest => {
            let request = BaseRequest::none(BaseReason::Unreachable);
            request::pull_request(request, None, context.target_branch.as_deref())
        }
        Event::Push => request::push(context, None, BaseReason::PushBefore, default),
        _ => request::none_for(&context.event),
    }
}
