//! `ci`: what the program makes of the CI platform it runs on.
//!
//! The JSON is of version 1, which only grows. Texts of the platform are shown with their control
//! characters escaped.

use std::{fmt::Write as _, path::Path};

use clap::Args;
use serde_json::{Value, json};

use super::{CliError, Context, ExitCode, answer};
use crate::{
    cache::Scope,
    ci::{self, BuildScopes, CiContext},
    git::{
        GitError, Repository,
        base::{BaseCandidate, BaseRevision},
        resolve::resolve,
    },
    ui,
};

#[derive(Debug, Args)]
pub(super) struct CiArgs {
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

/// What there is to tell.
struct Findings {
    ci: CiContext,
    scopes: BuildScopes,
    /// What is checked out, and what it is compared with; none outside of a repository.
    revision: Option<(String, BaseRevision)>,
    warnings: Vec<String>,
}

pub(super) fn run(context: &Context, args: &CiArgs) -> Result<ExitCode, CliError> {
    let ci = ci::detect(&context.env);
    let mut warnings: Vec<String> = ci.trouble.iter().map(|error| chain(error)).collect();
    let revision = match revision(&ci) {
        Ok(revision) => revision,
        Err(error) => {
            warnings.push(chain(&error));
            None
        }
    };
    if let Some(mismatch) = revision
        .as_ref()
        .and_then(|(_, base)| base.mismatch.clone())
    {
        warnings.push(mismatch.to_string());
    }
    let findings = Findings {
        scopes: ci.own_scopes(),
        revision,
        warnings,
        ci,
    };
    let text = match args.json {
        true => format!("{}\n", serde_json::to_string_pretty(&findings.json())?),
        false => findings.text(),
    };
    answer(&text)?;
    Ok(ExitCode::Success)
}

/// What is checked out in the current directory and what it is compared with, as far as the
/// clone knows: nothing is fetched.
fn revision(ci: &CiContext) -> Result<Option<(String, BaseRevision)>, GitError> {
    let Some(repository) = Repository::discover(Path::new("."))? else {
        return Ok(None);
    };
    let head = repository.commit("HEAD")?.id;
    Ok(Some((
        head.to_string(),
        resolve(&repository, head, &ci.base),
    )))
}

/// An error and its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}

impl Findings {
    fn json(&self) -> Value {
        let ci = &self.ci;
        let request = ci.pull_request.as_ref().map(|request| {
            json!({
                "number": request.number,
                "base": request.base,
                "source": request.source,
                "fork": request.is_fork,
                "labels": request.labels,
            })
        });
        let candidate =
            |c: &BaseCandidate| json!({"place": c.place.to_string(), "reason": c.reason});
        let revision = self.revision.as_ref().map(|(head, base)| {
            json!({
                "head": head,
                "commit": base.commit.map(|id| id.to_string()),
                "reason": base.reason,
                "found_by": base.found_by.as_ref().map(ToString::to_string),
                "tried": base.tried,
                "hint": base.hint,
            })
        });
        json!({
            "schema_version": 1,
            "platform": ci.platform.word(),
            "event": ci.event,
            "event_name": ci.event_name,
            "repository": ci.repository,
            "ref": ci.git_ref,
            "branch": ci.branch(),
            "tag": ci.tag(),
            "head": ci.head,
            "default_branch": ci.default_branch,
            "target_branch": ci.target_branch,
            "source_branch": ci.source_branch(),
            "pull_request": request,
            "messages": ci.messages,
            "run": ci.run,
            "cache": {
                "scope": self.scopes.order.own().as_str(),
                "reads": self.reads(),
                "saves": self.scopes.saves,
            },
            "base": {
                "candidates": ci.base.candidates.iter().map(candidate).collect::<Vec<_>>(),
                "otherwise": ci.base.otherwise,
            },
            "revision": revision,
            "warnings": self.warnings,
        })
    }

    fn reads(&self) -> Vec<&str> {
        let scopes = self.scopes.order.scopes();
        scopes.iter().map(Scope::as_str).collect()
    }

    fn text(&self) -> String {
        let ci = &self.ci;
        let mut text = String::new();
        let mut line = |name: &str, value: Option<&str>| {
            if let Some(value) = value {
                let _ = writeln!(text, "{name:15} {}", ui::inert(&ui::harmless(value)));
            }
        };
        line("platform", Some(ci.platform.name()));
        line("event", Some(ci.event.name()));
        line("repository", ci.repository.as_deref());
        line("ref", ci.git_ref.as_deref());
        line("head", ci.head.as_deref());
        let request = ci.pull_request.as_ref();
        let number = request.map(|request| {
            let number = request.number.as_deref().unwrap_or("unknown");
            match request.is_fork {
                Some(true) => format!("{number}, from a fork"),
                Some(false) => format!("{number}, from this repository"),
                None => format!("{number}, perhaps from a fork"),
            }
        });
        line("pull request", number.as_deref());
        line("source branch", request.and(ci.source_branch()));
        line("target branch", ci.target_branch.as_deref());
        let labels = request.map(|request| request.labels.join(", "));
        line(
            "labels",
            labels.as_deref().filter(|labels| !labels.is_empty()),
        );
        line("default branch", ci.default_branch.as_deref());
        line("run", ci.run.as_deref());
        line("cache scope", Some(self.scopes.order.own().as_str()));
        line("reads", Some(&self.reads().join(", ")));
        line(
            "saves",
            Some(match self.scopes.saves {
                true => "in the local cache and in remote caches",
                false => "in the local cache alone",
            }),
        );
        match &self.revision {
            None => {
                line("base", Some("unknown: this is no Git repository"));
                for candidate in &ci.base.candidates {
                    let place = format!("{} ({})", candidate.place, candidate.reason);
                    line("  perhaps", Some(&place));
                }
            }
            Some((head, base)) => {
                line("checked out", Some(head));
                let found = match (&base.commit, &base.found_by) {
                    (Some(commit), Some(place)) => format!("{commit}, {place} ({})", base.reason),
                    _ => format!("none ({})", base.reason),
                };
                line("base", Some(&found));
                for tried in &base.tried {
                    let why = format!("{}: {}", tried.candidate.place, tried.why_not);
                    line("  not", Some(&why));
                }
                line("hint", base.hint.as_deref());
            }
        }
        for warning in &self.warnings {
            line("warning", Some(warning));
        }
        text
    }
}
