//! Drone.
//!
//! Nothing says whether a branch is protected, or whether a pull request comes from a fork. A
//! promotion, a rollback and a build that a program asked for may be of any commit.
//!
//! For a pull request the commit that `DRONE_COMMIT_SHA` names is merged into the target as it is
//! cloned: what is checked out may be a merge that nobody else has.

use super::{CiContext, Event, Platform, PullRequest, request};
use crate::{
    config::env::Env,
    git::base::{BasePlace, BaseReason, BaseRequest},
};

/// What the variables of a step of Drone say.
pub(super) fn detect(env: &Env) -> CiContext {
    let text = |name| env.platform(name).map(str::to_owned);
    let event_name = text("DRONE_BUILD_EVENT");
    let git_ref = text("DRONE_COMMIT_REF")
        .or_else(|| request::full_name(text("DRONE_TAG"), text("DRONE_BRANCH")));
    let number = text("DRONE_PULL_REQUEST");
    let is_request = event_name.as_deref() == Some("pull_request")
        || git_ref.as_deref().is_some_and(request::is_proposal);
    let pull_request = (is_request || number.is_some()).then(|| PullRequest {
        number,
        base: text("DRONE_TARGET_BRANCH"),
        source: text("DRONE_SOURCE_BRANCH"),
        ..PullRequest::default()
    });
    let event = match event_name.as_deref() {
        _ if pull_request.is_some() => Event::PullRequest,
        Some("push") => Event::push_of(git_ref.as_deref()),
        Some("tag") => Event::Tag,
        Some("cron") => Event::Schedule,
        Some("custom") => Event::Dispatch,
        Some("promote" | "rollback") => Event::Deployment,
        name => Event::other(name),
    };
    let own_code = matches!(event, Event::Push | Event::Tag | Event::Schedule);
    let mut context = CiContext {
        repository: text("DRONE_REPO"),
        foreign_code: git_ref.is_none() || !(own_code || pull_request.is_some()),
        event,
        event_name,
        head: text("DRONE_COMMIT_SHA"),
        default_branch: text("DRONE_REPO_BRANCH"),
        target_branch: request::target(pull_request.as_ref()),
        messages: text("DRONE_COMMIT_MESSAGE").into_iter().collect(),
        run: text("DRONE_BUILD_LINK"),
        git_ref,
        pull_request,
        ..CiContext::unknown(Platform::Drone)
    };
    context.base = BaseRequest {
        head: context.head.clone(),
        full_clone: "no `depth` in `clone`",
        ..base(&context, env)
    };
    context
}

fn base(context: &CiContext, env: &Env) -> BaseRequest {
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
            env.platform("DRONE_COMMIT_BEFORE").map(str::to_owned),
            BaseReason::PushBefore,
            context.default_branch.as_deref(),
        ),
        _ => request::none_for(&context.event),
    }
}
