//! AWS CodeBuild.
//!
//! Nothing says whether a branch is protected, or whether a pull request comes from a fork. Only a
//! webhook says which branch is built; without one somebody chose a version as they liked.

use super::{CiContext, Event, Platform, PullRequest, request};
use crate::{
    config::env::Env,
    git::base::{BaseReason, BaseRequest, Other},
};

/// What the variables of a build of CodeBuild say.
pub(super) fn detect(env: &Env) -> CiContext {
    let text = |name| env.platform(name).map(str::to_owned);
    // `branch/main`, `tag/v1`, `pr/7`.
    let trigger = text("CODEBUILD_WEBHOOK_TRIGGER");
    let of_kind = |kind: &str| {
        let name = trigger.as_deref()?.strip_prefix(kind)?;
        Some(name.to_owned())
    };
    let event_name = text("CODEBUILD_WEBHOOK_EVENT");
    let is_request = |name: &str| name.starts_with("PULL_REQUEST");
    let is_request = event_name.as_deref().is_some_and(is_request)
        || env
            .platform("CODEBUILD_SOURCE_VERSION")
            .is_some_and(|version| version.starts_with("pr/") || request::is_proposal(version));
    let short = |name| text(name).map(|name| request::short(&name));
    let number = of_kind("pr/");
    let pull_request = (is_request || number.is_some()).then(|| PullRequest {
        number,
        base: short("CODEBUILD_WEBHOOK_BASE_REF"),
        source: short("CODEBUILD_WEBHOOK_HEAD_REF"),
        ..PullRequest::default()
    });
    let git_ref = match &pull_request {
        Some(_) => None,
        None => request::full_name(of_kind("tag/"), of_kind("branch/")),
    };
    let event = match event_name.as_deref() {
        _ if pull_request.is_some() => Event::PullRequest,
        Some("PUSH") => Event::push_of(git_ref.as_deref()),
        None if git_ref.is_some() => Event::push_of(git_ref.as_deref()),
        None => Event::Dispatch,
        name => Event::other(name),
    };
    let own_code = matches!(event, Event::Push | Event::Tag);
    let mut context = CiContext {
        repository: env
            .platform("CODEBUILD_SOURCE_REPO_URL")
            .and_then(request::slug),
        foreign_code: pull_request.is_none() && (git_ref.is_none() || !own_code),
        event,
        event_name,
        head: text("CODEBUILD_RESOLVED_SOURCE_VERSION"),
        target_branch: request::target(pull_request.as_ref()),
        run: text("CODEBUILD_BUILD_ID"),
        git_ref,
        pull_request,
        ..CiContext::unknown(Platform::CodeBuild)
    };
    context.base = BaseRequest {
        head: context.head.clone(),
        full_clone: "`git-clone-depth: 0` in the source of the project",
        ..base(&context, env)
    };
    context
}

fn base(context: &CiContext, env: &Env) -> BaseRequest {
    let before = env
        .platform("CODEBUILD_WEBHOOK_PREV_COMMIT")
        .map(str::to_owned);
    match context.event {
        Event::PullRequest => {
            let request = BaseRequest::none(BaseReason::Unreachable);
            let onto = before.filter(|id| !request::is_zero(id));
            let target = context.target_branch.as_deref();
            request::pull_request(request, onto.map(Other::Commit), target)
        }
        Event::Push => request::push(context, before, BaseReason::PushBefore, None),
        _ => request::none_for(&context.event),
    }
}
