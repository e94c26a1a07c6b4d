//! CircleCI.
//!
//! Whether a build is that of a pull request is told only in projects that GitHub's older
//! integration or Bitbucket drive, and nothing tells which those are: elsewhere a branch may be a fork's. So
//! a branch's name is never taken for what is built.
//!
//! What was built before on the branch is a value of the pipeline, no variable. The job can hand it
//! on: `environment: {PIPELINE_GIT_BASE_REVISION: << pipeline.git.base_revision >>}`.

use super::{CiContext, Event, Platform, PullRequest, request};
use crate::{
    config::env::Env,
    git::base::{BaseReason, BaseRequest},
};

/// What the variables of a job of CircleCI say.
pub(super) fn detect(env: &Env) -> CiContext {
    let text = |name| env.platform(name).map(str::to_owned);
    let branch = text("CIRCLE_BRANCH");
    let git_ref = request::full_name(text("CIRCLE_TAG"), branch.clone());
    let from_fork = text("CIRCLE_PR_NUMBER");
    // A pull request's address, of which the number is the end; forks' branches are `pull/7`.
    let address = env.platform("CIRCLE_PULL_REQUEST").map(|address| {
        let number = address.trim_end_matches('/').rsplit('/').next();
        number.unwrap_or_default().to_owned()
    });
    let branch_of_fork = branch.as_deref().and_then(|name| {
        let number = name.strip_prefix("pull/")?.split('/').next()?;
        Some(number.to_owned())
    });
    let is_fork = (from_fork.is_some() || branch_of_fork.is_some()).then_some(true);
    let number = from_fork.or(address).or(branch_of_fork);
    let pull_request = number.map(|number| PullRequest {
        number: Some(number).filter(|number| !number.is_empty()),
        source: branch.clone(),
        is_fork,
        ..PullRequest::default()
    });
    let event = match &pull_request {
        Some(_) => Event::PullRequest,
        None if git_ref.is_some() => Event::push_of(git_ref.as_deref()),
        None => Event::Unknown,
    };
    let repository = text("CIRCLE_PROJECT_USERNAME").zip(text("CIRCLE_PROJECT_REPONAME"));
    let mut context = CiContext {
        repository: repository.map(|(owner, name)| format!("{owner}/{name}")),
        foreign_code: true,
        event,
        head: text("CIRCLE_SHA1"),
        run: text("CIRCLE_BUILD_URL"),
        git_ref,
        pull_request,
        ..CiContext::unknown(Platform::Circle)
    };
    context.base = BaseRequest {
        head: context.head.clone(),
        full_clone: "`method: full` for its `checkout`",
        ..base(&context, env)
    };
    context
}

fn base(context: &CiContext, env: &Env) -> BaseRequest {
    let previous = env.platform("PIPELINE_GIT_BASE_REVISION");
    match context.event {
        Event::PullRequest | Event::Push => request::push(
            context,
            previous.map(str::to_owned),
            BaseReason::PreviousBuild,
            None,
        ),
        _ => request::none_for(&context.event),
    }
}
