//! GitLab CI.
//!
//! A merge request's pipeline may run in the project that it comes from or in the one it goes to; in both
//! it has its number and the numbers of both projects. A pipeline that a merge request's pipeline starts inherits them.
//! `CI_COMMIT_REF_PROTECTED` is about the branch that is built; that of a merge request is somebody's.

use super::{CiContext, Platform, PullRequest};
use crate::config::env::Env;

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
    let event = text("CI_PIPELINE_SOURCE");
    let is_request =
        |event: &str| matches!(event, "merge_request_event" | "external_pull_request_event");
    CiContext {
        platform: Platform::GitLab,
        repository: text("CI_PROJECT_PATH"),
        protected: env.platform("CI_COMMIT_REF_PROTECTED") == Some("true"),
        run: text("CI_PIPELINE_URL"),
        foreign_code: git_ref.is_none()
            || (pull_request.is_none() && event.as_deref().is_some_and(is_request)),
        git_ref,
        event,
        pull_request,
    }
}

fn merge_request(env: &Env) -> Option<PullRequest> {
    let number = env.platform("CI_MERGE_REQUEST_IID")?;
    let from = env.platform("CI_MERGE_REQUEST_SOURCE_PROJECT_ID");
    let to = env.platform("CI_MERGE_REQUEST_PROJECT_ID");
    Some(PullRequest {
        number: Some(number.to_owned()),
        base: env
            .platform("CI_MERGE_REQUEST_TARGET_BRANCH_NAME")
            .map(str::to_owned),
        is_fork: from.zip(to).map(|(from, to)| from != to),
    })
}

/// A pull request of another platform, whose repository GitLab mirrors.
fn external(env: &Env) -> Option<PullRequest> {
    let number = env.platform("CI_EXTERNAL_PULL_REQUEST_IID")?;
    let from = env.platform("CI_EXTERNAL_PULL_REQUEST_SOURCE_REPOSITORY");
    let to = env.platform("CI_EXTERNAL_PULL_REQUEST_TARGET_REPOSITORY");
    Some(PullRequest {
        number: Some(number.to_owned()),
        base: env
            .platform("CI_EXTERNAL_PULL_REQUEST_TARGET_BRANCH_NAME")
            .map(str::to_owned),
        is_fork: from.zip(to).map(|(from, to)| from != to),
    })
}
