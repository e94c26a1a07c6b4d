//! Bitbucket Pipelines.
//!
//! A pipeline builds commits of its own repository; a fork's run in the fork. Nothing says whether a
//! branch is protected, nor where a pull request comes from, so that is taken as not known.
//!
//! The target of a pull request is merged into what is checked out, so that its tip is the merge
//! base. What was built before a push isn't told.

use super::{CiContext, Event, Platform, PullRequest, request};
use crate::{
    config::env::Env,
    git::base::{BasePlace, BaseReason, BaseRequest, Other},
};

/// What the variables of a step of Bitbucket Pipelines say.
pub(super) fn detect(env: &Env) -> CiContext {
    let text = |name| env.platform(name).map(str::to_owned);
    let git_ref = request::full_name(text("BITBUCKET_TAG"), text("BITBUCKET_BRANCH"));
    let number = text("BITBUCKET_PR_ID");
    let pull_request = number.map(|number| PullRequest {
        number: Some(number),
        base: text("BITBUCKET_PR_DESTINATION_BRANCH"),
        source: text("BITBUCKET_BRANCH"),
        ..PullRequest::default()
    });
    let event = match &pull_request {
        Some(_) => Event::PullRequest,
        None if git_ref.is_some() => Event::push_of(git_ref.as_deref()),
        None => Event::Unknown,
    };
    let mut context = CiContext {
        repository: text("BITBUCKET_REPO_FULL_NAME"),
        foreign_code: git_ref.is_none() && pull_request.is_none(),
        event,
        head: text("BITBUCKET_COMMIT"),
        target_branch: request::target(pull_request.as_ref()),
        run: text("BITBUCKET_BUILD_NUMBER"),
        git_ref,
        pull_request,
        ..CiContext::unknown(Platform::Bitbucket)
    };
    context.base = BaseRequest {
        head: context.head.clone(),
        full_clone: "`depth: full` in `clone`",
        ..base(&context, env)
    };
    context
}

fn base(context: &CiContext, env: &Env) -> BaseRequest {
    match context.event {
        Event::PullRequest => {
            let onto = env.platform("BITBUCKET_PR_DESTINATION_COMMIT");
            let target = context.target_branch.as_deref();
            let request = BaseRequest::none(BaseReason::Unreachable);
            let common = onto.map(|id| Other::Commit(id.to_owned()));
            request::pull_request(request, common, target).or_some(
                onto.map(|id| BasePlace::Commit(id.to_owned())),
                BaseReason::PullRequest,
            )
        }
        Event::Push => request::push(context, None, BaseReason::PushBefore, None),
        _ => request::none_for(&context.event),
    }
}
