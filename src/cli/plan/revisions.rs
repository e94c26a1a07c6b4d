//! What is planned for, and what it is compared with.

use std::path::PathBuf;

use super::{PlanArgs, sides::Place};
use crate::{
    ci::CiContext,
    cli::CliError,
    event::Events,
    fs,
    git::{
        Commit, Repository, WorktreeChange, WorktreeState,
        base::{BaseReason, BaseRequest},
        resolve::resolve,
    },
    oci::layer::LayerPath,
    plan::Revision,
};

/// What is planned for.
pub(super) struct Head {
    pub(super) place: Place,
    pub(super) commit: Option<Commit>,
    pub(super) revision: Revision,
    /// The paths in which the working directory differs from the commit.
    pub(super) changed: Vec<LayerPath>,
}

pub(super) fn head(args: &PlanArgs, repository: Option<&Repository>) -> Result<Head, CliError> {
    let named = |text: &str, reason: &str| -> Result<Head, CliError> {
        let repository = repository.ok_or_else(no_repository)?;
        let commit = repository.commit(text)?;
        Ok(Head {
            place: Place::Commit(Box::new(commit.files(repository)?)),
            revision: Revision {
                commit: Some(commit.id.to_string()),
                reason: reason.to_owned(),
                dirty: false,
            },
            commit: Some(commit),
            changed: Vec::new(),
        })
    };
    match (&args.head, repository) {
        (Some(text), _) => named(text, "asked-for"),
        (None, Some(repository)) if repository.is_bare() => named("HEAD", "head"),
        (None, repository) => {
            // A repository without commits has files all the same.
            let commit = repository.and_then(|repository| repository.commit("HEAD").ok());
            let state = match (repository, &commit) {
                (Some(repository), Some(commit)) => {
                    repository.worktree_state(commit, &LayerPath::ROOT)?
                }
                _ => WorktreeState::new(),
            };
            let is_dirty = |change: &WorktreeChange| *change != WorktreeChange::Ignored;
            Ok(Head {
                place: Place::Disk,
                revision: Revision {
                    commit: commit.as_ref().map(|commit| commit.id.to_string()),
                    reason: match repository {
                        Some(_) => "checked-out".to_owned(),
                        None => "no-repository".to_owned(),
                    },
                    dirty: state.values().any(is_dirty),
                },
                changed: state.into_keys().collect(),
                commit,
            })
        }
    }
}

fn no_repository() -> CliError {
    CliError::usage_hint(
        "there is no Git repository here",
        "work in one with `-C DIR`, or leave `--base` and `--head` out",
    )
}

/// What the head is compared with.
pub(super) struct Base {
    pub(super) place: Option<Place>,
    pub(super) commit: Option<Commit>,
    pub(super) revision: Revision,
    /// Why there is none, for people.
    pub(super) told: String,
}

/// Finds the base: the one that was asked for, else the one that follows from the event.
pub(super) fn base(
    args: &PlanArgs,
    ci: &CiContext,
    repository: Option<&Repository>,
    head: &Head,
    events: &Events,
) -> Result<Base, CliError> {
    let none = |reason: &str, told: String| Base {
        place: None,
        commit: None,
        revision: Revision {
            commit: None,
            reason: reason.to_owned(),
            dirty: false,
        },
        told,
    };
    let Some(repository) = repository else {
        return match &args.base {
            Some(_) => Err(no_repository()),
            None => Ok(none(
                "no-repository",
                "there is no Git repository".to_owned(),
            )),
        };
    };
    let Some(to) = &head.commit else {
        return match &args.base {
            Some(_) => Err(repository.commit("HEAD").map(|_| no_repository())?),
            None => Ok(none(
                "no-commits",
                "the repository has no commits yet".to_owned(),
            )),
        };
    };
    let request = match &args.base {
        // Whoever is at the keyboard may write `HEAD~3` too.
        Some(text) => match repository.commit(text) {
            Ok(commit) => BaseRequest::asked(&commit.id.to_string()),
            Err(_) => BaseRequest::asked(text),
        },
        None => ci.base.clone(),
    };
    let found = resolve(repository, to.id, &request);
    if let Some(mismatch) = found.mismatch.as_ref().filter(|_| args.head.is_none()) {
        events.warn(mismatch.to_string(), None);
    }
    for tried in &found.tried {
        tracing::debug!(place = %tried.candidate.place, why_not = %tried.why_not, "not the base");
    }
    let Some(id) = found.commit else {
        let tried = found.tried.first();
        let why = tried.map(|tried| format!("{}: {}", tried.candidate.place, tried.why_not));
        if let (Some(text), Some(tried)) = (&args.base, tried) {
            return Err(CliError::usage_hint(
                format!("`--base {text}` names no commit: {}", tried.why_not),
                found
                    .hint
                    .unwrap_or_else(|| "name a commit, a branch or a tag".to_owned()),
            ));
        }
        let told = why.unwrap_or_else(|| "the event has none".to_owned());
        if matches!(found.reason, BaseReason::Shallow | BaseReason::Unreachable) {
            let message =
                format!("there is nothing to compare with, so all counts as changed: {told}");
            events.warn(message, found.hint);
        }
        return Ok(none(
            found.reason.word(),
            format!("no base ({}): {told}", found.reason),
        ));
    };
    let commit = repository.commit_of(id)?;
    Ok(Base {
        place: Some(Place::Commit(Box::new(commit.files(repository)?))),
        revision: Revision {
            commit: Some(id.to_string()),
            reason: found.reason.word().to_owned(),
            dirty: false,
        },
        commit: Some(commit),
        told: String::new(),
    })
}

/// Where paths are shown from.
pub(super) fn root(repository: Option<&Repository>) -> Result<PathBuf, CliError> {
    match repository {
        Some(repository) => Ok(repository
            .work_dir()
            .unwrap_or(repository.git_dir())
            .to_owned()),
        None => Ok(fs::absolute(".")?),
    }
}
