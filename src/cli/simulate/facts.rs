//! What an event is about, from the repository that lies here.

use crate::{
    ci::Platform,
    cli::CliError,
    git::{Commit, Repository},
    redact,
    simulate::{EventKind, Facts, PLATFORMS},
};

/// The number of the pull request.
const NUMBER: u64 = 1;

/// The name of a branch, of a tag, where the repository has none that fits.
const BRANCH: &str = "simulated-change";
const TAG: &str = "simulated";

/// Where a repository without a remote is said to be.
const REMOTE: &str = "https://git.example/simulated/repository.git";

/// The platforms of the CI and those of images, of what `--platform` names.
pub(super) fn platforms(words: &[String]) -> Result<(Platform, Vec<String>), CliError> {
    let of = |word: &str| PLATFORMS.into_iter().find(|p| p.word() == word);
    let (ci, images): (Vec<&String>, Vec<&String>) =
        words.iter().partition(|word| of(word).is_some());
    let images = images.into_iter().cloned().collect();
    let hint = || {
        let words: Vec<String> = PLATFORMS
            .iter()
            .map(|p| format!("`{}`", p.word()))
            .collect();
        format!("`--platform` takes one of {}", words.join(", "))
    };
    match ci[..] {
        [word] => match of(word) {
            Some(platform) => Ok((platform, images)),
            None => Err(CliError::usage_hint("no CI platform is named", hint())),
        },
        [] => Err(CliError::usage_hint("no CI platform is named", hint())),
        _ => Err(CliError::usage_hint(
            "several CI platforms are named",
            hint(),
        )),
    }
}

/// The kind of event that `word` names.
pub(super) fn kind(word: Option<&str>) -> Result<EventKind, CliError> {
    let hint = || {
        let words: Vec<String> = EventKind::ALL
            .iter()
            .map(|kind| format!("`{}`", kind.word()))
            .collect();
        format!("`--event` takes one of {}", words.join(", "))
    };
    match word {
        None => Err(CliError::usage_hint(
            "no event is named, and no `--history`",
            hint(),
        )),
        Some(word) => EventKind::of(word)
            .ok_or_else(|| CliError::usage_hint(format!("there is no event `{word}`"), hint())),
    }
}

/// What an event of this kind would be about if `head` were pushed, proposed, tagged.
pub(super) fn facts(
    repository: &Repository,
    kind: EventKind,
    head: &Commit,
    base: Option<&Commit>,
) -> Result<Facts, CliError> {
    let known = repository.default_branch_candidates();
    let short = |name: &str| {
        let short = name.strip_prefix("refs/remotes/origin/");
        let short = short.or_else(|| name.strip_prefix("refs/heads/"));
        short.unwrap_or(name).to_owned()
    };
    let checked_out = repository.branch();
    let default_branch = match (known.first(), &checked_out) {
        (Some(name), _) => short(name),
        (None, Some(name)) => name.clone(),
        (None, None) => "main".to_owned(),
    };
    let proposes = matches!(
        kind,
        EventKind::PullRequest | EventKind::NewBranch | EventKind::MergeGroup
    );
    let branch = match checked_out {
        // What is proposed comes from another branch.
        Some(name) if !(proposes && name == default_branch) => name,
        None if !proposes => default_branch.clone(),
        _ => BRANCH.to_owned(),
    };
    let first_parent = || head.parents.first().map(ToString::to_string);
    let base = match (base, kind) {
        (Some(base), _) => Some(base.id.to_string()),
        (None, EventKind::Push | EventKind::ForcePush) => first_parent(),
        (None, EventKind::PullRequest | EventKind::MergeGroup) => {
            let tip = known.first().and_then(|name| repository.commit(name).ok());
            let left = match tip {
                Some(tip) => repository.merge_base(head.id, tip.id)?,
                None => None,
            };
            match left.filter(|id| *id != head.id) {
                Some(id) => Some(id.to_string()),
                None => first_parent(),
            }
        }
        (None, _) => None,
    };
    let remote = repository.remote_url();
    let remote = remote.map(|url| redact::url_credentials(&url).into_owned());
    let remote = remote.unwrap_or_else(|| REMOTE.to_owned());
    Ok(Facts {
        head: head.id.to_string(),
        parents: head.parents.iter().map(ToString::to_string).collect(),
        message: head.message.clone(),
        base,
        branch,
        default_branch,
        repository: slug(&remote),
        remote,
        tag: TAG.to_owned(),
        number: NUMBER,
    })
}

/// The last two parts of an address: `acme/service`.
fn slug(address: &str) -> String {
    let path = address.trim_end_matches('/');
    let path = path.strip_suffix(".git").unwrap_or(path);
    let mut parts = path.rsplit(['/', ':']).filter(|part| !part.is_empty());
    let name = parts.next().unwrap_or("repository");
    let owner = parts.next().unwrap_or("simulated");
    format!("{owner}/{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_are_named_after_their_addresses() {
        for (address, name) in [
            ("git@git.example:acme/service.git", "acme/service"),
            ("https://git.example/a/b/", "a/b"),
            ("service", "simulated/service"),
        ] {
            assert_eq!(slug(address), name);
        }
    }

    #[test]
    fn platforms_of_ci_stand_beside_those_of_images() {
        let words = |words: &[&str]| -> Vec<String> { words.iter().map(|w| (*w).into()).collect() };
        let found = platforms(&words(&["linux/arm64", "gitlab"])).unwrap();
        assert_eq!(found, (Platform::GitLab, words(&["linux/arm64"])));
        assert!(platforms(&words(&["linux/arm64"])).is_err());
        assert!(platforms(&words(&["gitlab", "github"])).is_err());
        assert!(kind(Some("merge-group")).is_ok() && kind(Some("x")).is_err());
    }
}
