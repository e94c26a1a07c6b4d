//! Jenkins.
//!
//! What is built is a matter of plugins. A job of a multibranch project has the name of its branch
//! in `BRANCH_NAME`, or is that of a change (`CHANGE_ID`); the plugins for GitHub's pull requests,
//! GitLab's merge requests and Gerrit's changes have variables of their own. In any other job
//! `GIT_BRANCH` is what the job was told to fetch, which may be anybody's: it isn't taken for what
//! is built. Nothing says whether a branch is protected, or what started the job; a
//! fork is known where it is one.

use super::{CiContext, Event, Platform, PullRequest, request};
use crate::{
    config::env::Env,
    git::base::{BasePlace, BaseReason, BaseRequest},
};

/// What the variables of a build of Jenkins say.
pub(super) fn detect(env: &Env) -> CiContext {
    let text = |name| env.platform(name).map(str::to_owned);
    let pull_request = change(env);
    let branch = text("BRANCH_NAME");
    let known = text("TAG_NAME").is_some() || branch.is_some();
    let fetched = text("GIT_LOCAL_BRANCH").or_else(|| {
        let name = text("GIT_BRANCH")?;
        Some(name.strip_prefix("origin/").unwrap_or(&name).to_owned())
    });
    let git_ref = match &pull_request {
        Some(_) => None,
        None => request::full_name(text("TAG_NAME"), branch.or(fetched)),
    };
    let event = match &pull_request {
        Some(_) => Event::PullRequest,
        None if git_ref.is_some() => Event::push_of(git_ref.as_deref()),
        None => Event::Unknown,
    };
    let mut context = CiContext {
        repository: env.platform("GIT_URL").and_then(request::slug),
        foreign_code: !known && pull_request.is_none(),
        event,
        head: text("GIT_COMMIT"),
        target_branch: request::target(pull_request.as_ref()),
        run: text("BUILD_URL"),
        git_ref,
        pull_request,
        ..CiContext::unknown(Platform::Jenkins)
    };
    context.base = BaseRequest {
        head: context.head.clone(),
        full_clone: "no shallow clone in the job's Git settings",
        ..base(&context, env)
    };
    context
}

/// The change that the job builds, by the variables of whichever plugin.
fn change(env: &Env) -> Option<PullRequest> {
    let text = |name| env.platform(name).map(str::to_owned);
    let of = |number, base, source, is_fork| {
        Some(PullRequest {
            number: Some(text(number)?),
            base: text(base),
            source: text(source),
            is_fork,
            labels: Vec::new(),
        })
    };
    let is_fork = env.platform("CHANGE_FORK").is_some().then_some(true);
    of("CHANGE_ID", "CHANGE_TARGET", "CHANGE_BRANCH", is_fork)
        .or_else(|| {
            of(
                "ghprbPullId",
                "ghprbTargetBranch",
                "ghprbSourceBranch",
                None,
            )
        })
        .or_else(|| {
            let (base, source) = ("gitlabTargetBranch", "gitlabSourceBranch");
            of("gitlabMergeRequestIid", base, source, None)
        })
        .or_else(|| {
            let (base, source) = ("gitlabTargetBranch", "gitlabSourceBranch");
            of("gitlabMergeRequestId", base, source, None)
        })
        .or_else(|| {
            of(
                "GERRIT_CHANGE_NUMBER",
                "GERRIT_BRANCH",
                "GERRIT_TOPIC",
                None,
            )
        })
}

fn base(context: &CiContext, env: &Env) -> BaseRequest {
    match context.event {
        Event::PullRequest => {
            let request = BaseRequest::none(BaseReason::Unreachable);
            request::pull_request(request, None, context.target_branch.as_deref())
        }
        Event::Push => {
            let previous = |name| {
                let id = env.platform(name)?;
                Some(BasePlace::Commit(id.to_owned()))
            };
            let last = previous("GIT_PREVIOUS_COMMIT");
            BaseRequest {
                branch: context.branch().map(str::to_owned),
                ..BaseRequest::none(BaseReason::NoPreviousBuild)
                    .or_some(
                        previous("GIT_PREVIOUS_SUCCESSFUL_COMMIT"),
                        BaseReason::PreviousBuild,
                    )
                    .or_some(last, BaseReason::PreviousBuild)
                    .or(request::left(None), BaseReason::DefaultBranch)
            }
        }
        _ => request::none_for(&context.event),
    }
}
