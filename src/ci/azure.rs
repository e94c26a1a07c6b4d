//! Azure Pipelines.
//!
//! Nothing says whether a branch is protected. Of pull requests it is known whether they come from a
//! fork. Only for pushes and schedules a branch's name is taken for what is built: who starts a run
//! by hand chooses a commit too, and a run after another one may be that of a pull request.
//!
//! A pull request's run builds its merge with the target. What was built before a push isn't told.

use super::{CiContext, Event, Platform, PullRequest, request};
use crate::{
    config::env::Env,
    git::base::{BasePlace, BaseReason, BaseRequest},
};

/// What the variables of a job of Azure Pipelines say.
pub(super) fn detect(env: &Env) -> CiContext {
    let text = |name| env.platform(name).map(str::to_owned);
    let git_ref = text("BUILD_SOURCEBRANCH");
    let event_name = text("BUILD_REASON");
    // The first is GitHub's number, where that isn't the platform's own.
    let number = text("SYSTEM_PULLREQUEST_PULLREQUESTNUMBER")
        .or_else(|| text("SYSTEM_PULLREQUEST_PULLREQUESTID"));
    let is_request = event_name.as_deref() == Some("PullRequest")
        || git_ref.as_deref().is_some_and(request::is_proposal);
    let short = |name| text(name).map(|name| request::short(&name));
    let pull_request = (is_request || number.is_some()).then(|| PullRequest {
        number,
        base: short("SYSTEM_PULLREQUEST_TARGETBRANCH"),
        source: short("SYSTEM_PULLREQUEST_SOURCEBRANCH"),
        is_fork: match env.platform("SYSTEM_PULLREQUEST_ISFORK") {
            Some("True" | "true") => Some(true),
            Some("False" | "false") => Some(false),
            _ => None,
        },
        labels: Vec::new(),
    });
    let event = match event_name.as_deref() {
        _ if pull_request.is_some() => Event::PullRequest,
        Some("IndividualCI" | "BatchedCI") => Event::push_of(git_ref.as_deref()),
        Some("Schedule") => Event::Schedule,
        Some("Manual") => Event::Dispatch,
        name => Event::other(name),
    };
    let own_code = matches!(event, Event::Push | Event::Tag | Event::Schedule);
    let mut context = CiContext {
        repository: text("BUILD_REPOSITORY_NAME"),
        foreign_code: git_ref.is_none() || !(own_code || pull_request.is_some()),
        event,
        event_name,
        head: text("BUILD_SOURCEVERSION"),
        target_branch: request::target(pull_request.as_ref()),
        messages: text("BUILD_SOURCEVERSIONMESSAGE").into_iter().collect(),
        run: run(env),
        git_ref,
        pull_request,
        ..CiContext::unknown(Platform::Azure)
    };
    context.base = BaseRequest {
        head: context.head.clone(),
        full_clone: "`fetchDepth: 0` for its `checkout`",
        ..base(&context, env)
    };
    context
}

/// The address of the run.
fn run(env: &Env) -> Option<String> {
    let id = env.platform("BUILD_BUILDID")?;
    let server = env.platform("SYSTEM_COLLECTIONURI");
    let Some((server, project)) = server.zip(env.platform("SYSTEM_TEAMPROJECT")) else {
        return Some(id.to_owned());
    };
    let server = server.trim_end_matches('/');
    Some(format!(
        "{server}/{}/_build/results?buildId={id}",
        project.replace(' ', "%20")
    ))
}

fn base(context: &CiContext, env: &Env) -> BaseRequest {
    match context.event {
        Event::PullRequest => {
            let is_merge = |name: &str| name.ends_with("/merge");
            let merge = BasePlace::MergeCommitParent {
                merged: env
                    .platform("SYSTEM_PULLREQUEST_SOURCECOMMITID")
                    .map(str::to_owned),
                merge: match context.git_ref.as_deref().is_some_and(is_merge) {
                    true => context.head.clone(),
                    false => None,
                },
            };
            let request =
                BaseRequest::none(BaseReason::Unreachable).or(merge, BaseReason::MergeCommitParent);
            request::pull_request(request, None, context.target_branch.as_deref())
        }
        Event::Push => request::push(context, None, BaseReason::PushBefore, None),
        _ => request::none_for(&context.event),
    }
}
