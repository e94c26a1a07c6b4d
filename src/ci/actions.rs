//! GitHub Actions, and Gitea's and Forgejo's, which use the same variables and the same
//! description of the event, a JSON file of the form of GitHub's webhooks.
//!
//! `GITHUB_REF` alone doesn't say whose code a job builds: `pull_request_target`, `workflow_run` and
//! `issue_comment` run for the base branch, with its rights, and often check out the code of a
//! pull request; `repository_dispatch` may. So whatever names a pull request counts as its build, and only for the
//! events in [`OF_THE_REF`] the ref is taken for what is built.
//!
//! `GITHUB_REF_PROTECTED` is GitHub's alone. Gitea and Forgejo say nothing of the kind, so that there
//! no build is `protected` unless its job asks for that scope.

use serde::Deserialize;

use super::{CiContext, Platform, PullRequest};
use crate::{config::env::Env, fs};

/// Longest description of an event in bytes; GitHub's end at 25 MB.
const LONGEST: u64 = 32 << 20;

/// Events whose jobs build what their ref says.
const OF_THE_REF: [&str; 6] = [
    "push",
    "create",
    "merge_group",
    "release",
    "schedule",
    "workflow_dispatch",
];

/// What of the event's description says whose code is built. Whatever has another form than
/// expected counts as absent.
#[derive(Debug, Default, Deserialize)]
struct Event {
    #[serde(default)]
    pull_request: Option<Request>,
    #[serde(default)]
    repository: Option<Repository>,
    #[serde(default)]
    issue: Option<Issue>,
    #[serde(default)]
    workflow_run: Option<Run>,
}

#[derive(Debug, Deserialize)]
struct Request {
    number: Option<u64>,
    base: Option<Side>,
    head: Option<Side>,
}

#[derive(Debug, Deserialize)]
struct Side {
    #[serde(rename = "ref")]
    name: Option<String>,
    repo: Option<Repository>,
}

#[derive(Debug, Deserialize)]
struct Repository {
    full_name: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Issue {
    number: Option<u64>,
    pull_request: Option<serde_json::Value>,
}

#[derive(Debug, Deserialize)]
struct Run {
    event: Option<String>,
    #[serde(default)]
    pull_requests: Vec<Request>,
}

/// What the variables of a job of Actions say.
pub(super) fn detect(platform: Platform, env: &Env) -> CiContext {
    let text = |name| env.platform(name).map(str::to_owned);
    let name = text("GITHUB_EVENT_NAME").unwrap_or_default();
    let event = event(env).unwrap_or_default();
    let git_ref = text("GITHUB_REF");
    let pull_request = pull_request(&name, &event, git_ref.as_deref(), text("GITHUB_BASE_REF"));
    let of_the_ref = OF_THE_REF.contains(&name.as_str());
    CiContext {
        platform,
        repository: text("GITHUB_REPOSITORY"),
        protected: platform == Platform::GitHub
            && env.platform("GITHUB_REF_PROTECTED") == Some("true"),
        foreign_code: git_ref.is_none() || !(of_the_ref || pull_request.is_some()),
        git_ref,
        event: Some(name).filter(|name| !name.is_empty()),
        run: run(env),
        pull_request,
    }
}

/// The address of the run.
fn run(env: &Env) -> Option<String> {
    let id = env.platform("GITHUB_RUN_ID")?;
    let server = env.platform("GITHUB_SERVER_URL");
    let (Some(server), Some(repository)) = (server, env.platform("GITHUB_REPOSITORY")) else {
        return Some(id.to_owned());
    };
    let attempt = match env.platform("GITHUB_RUN_ATTEMPT") {
        None | Some("1") => String::new(),
        Some(attempt) => format!("/attempts/{attempt}"),
    };
    Some(format!("{server}/{repository}/actions/runs/{id}{attempt}"))
}

/// The description of the event, if it can be had.
fn event(env: &Env) -> Option<Event> {
    let path = env.platform("GITHUB_EVENT_PATH")?;
    if fs::size(path).ok()? > LONGEST {
        return None;
    }
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// The pull request that the job may build.
fn pull_request(
    name: &str,
    event: &Event,
    git_ref: Option<&str>,
    base: Option<String>,
) -> Option<PullRequest> {
    if let Some(request) = &event.pull_request {
        return Some(request.described(event.repository.as_ref(), base));
    }
    if let Some(issue) = &event.issue
        && issue.pull_request.is_some()
    {
        return Some(PullRequest {
            number: issue.number.map(|number| number.to_string()),
            base: None,
            is_fork: None,
        });
    }
    if let Some(run) = &event.workflow_run
        && let Some("pull_request" | "pull_request_target") = run.event.as_deref()
    {
        let number = run.pull_requests.first().and_then(|request| request.number);
        return Some(PullRequest {
            number: number.map(|number| number.to_string()),
            base: None,
            is_fork: None,
        });
    }
    // Without a description: `refs/pull/7/merge`, `refs/pull/7/head`.
    let number = git_ref.and_then(|name| name.strip_prefix("refs/pull/"));
    let number = number.and_then(|rest| rest.split('/').next());
    (number.is_some() || name.starts_with("pull_request")).then(|| PullRequest {
        number: number.map(str::to_owned),
        base,
        is_fork: None,
    })
}

impl Request {
    fn described(&self, repository: Option<&Repository>, base: Option<String>) -> PullRequest {
        let name = |repository: Option<&Repository>| repository?.full_name.clone();
        let head = self.head.as_ref();
        let own = name(self.base.as_ref().and_then(|side| side.repo.as_ref()));
        let own = own.or_else(|| name(repository));
        // A fork that was deleted has no repository any more.
        let head = head.map(|side| name(side.repo.as_ref()));
        PullRequest {
            number: self.number.map(|number| number.to_string()),
            base: base.or_else(|| self.base.as_ref()?.name.clone()),
            is_fork: match (own, head) {
                (Some(own), Some(Some(head))) => Some(own != head),
                (Some(_), Some(None)) => Some(true),
                _ => None,
            },
        }
    }
}
