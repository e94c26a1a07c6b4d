//! Requests for bases as several platforms make them.

use super::{CiContext, Event, PullRequest};
use crate::git::base::{BasePlace, BaseReason, BaseRequest, Other};

/// Whether `id` is what platforms write where there is no commit.
pub(super) fn is_zero(id: &str) -> bool {
    id.bytes().all(|digit| digit == b'0')
}

/// The merge base with the default branch, by its name if that is known.
pub(super) fn left(default: Option<&str>) -> BasePlace {
    BasePlace::MergeBase(match default {
        Some(name) => Other::Branch(name.to_owned()),
        None => Other::DefaultBranch,
    })
}

/// The base of a push to the branch of `context`, which was at `before` until then: that, for
/// `reason`; else where the branch left the one called `default`. None for a branch without
/// anything before it that is the default branch itself.
pub(super) fn push(
    context: &CiContext,
    before: Option<String>,
    reason: BaseReason,
    default: Option<&str>,
) -> BaseRequest {
    let is_new = before.as_deref().is_some_and(is_zero);
    let (otherwise, why_left) = match &before {
        Some(_) if is_new => (BaseReason::NewBranch, BaseReason::NewBranch),
        Some(_) if reason == BaseReason::ForcePush => (reason, reason),
        Some(_) => (BaseReason::Unreachable, BaseReason::DefaultBranch),
        None => (BaseReason::NoPreviousBuild, BaseReason::DefaultBranch),
    };
    let before = before.filter(|_| !is_new).map(BasePlace::Commit);
    BaseRequest {
        branch: context.branch().map(str::to_owned),
        ..BaseRequest::none(otherwise)
            .or_some(before, reason)
            .or(left(default), why_left)
    }
}

/// `request`, and where that finds nothing the merge base of what is checked out with the target
/// of the pull request: with `onto`, one of its commits, or with the branch.
pub(super) fn pull_request(
    request: BaseRequest,
    onto: Option<Other>,
    target: Option<&str>,
) -> BaseRequest {
    let branch = target.map(|name| BasePlace::MergeBase(Other::Branch(name.to_owned())));
    request
        .or_some(onto.map(BasePlace::MergeBase), BaseReason::PullRequest)
        .or_some(branch, BaseReason::PullRequest)
}

/// The labels of a list that is divided by commas.
pub(super) fn labels(list: Option<&str>) -> Vec<String> {
    let labels = list.unwrap_or_default().split(',').map(str::trim);
    labels
        .filter(|label| !label.is_empty())
        .map(str::to_owned)
        .collect()
}

/// The full name of what is built: of the tag, else of the branch.
pub(super) fn full_name(tag: Option<String>, branch: Option<String>) -> Option<String> {
    match (tag, branch) {
        (Some(tag), _) => Some(format!("refs/tags/{tag}")),
        (None, Some(branch)) if branch.starts_with("refs/") => Some(branch),
        (None, branch) => Some(format!("refs/heads/{}", branch?)),
    }
}

/// The name of a branch that is given in full or not.
pub(super) fn short(name: &str) -> String {
    name.strip_prefix("refs/heads/").unwrap_or(name).to_owned()
}

/// Whether a ref is that of a pull or merge request.
pub(super) fn is_proposal(name: &str) -> bool {
    let places = ["refs/pull/", "refs/merge-requests/", "refs/pull-requests/"];
    places.iter().any(|place| name.starts_with(place))
}

/// The branch that a pull request is for.
pub(super) fn target(request: Option<&PullRequest>) -> Option<String> {
    request?.base.clone()
}

/// The repository that an address leads to: `acme/service` of `git@github.com:acme/service.git`.
pub(super) fn slug(address: &str) -> Option<String> {
    host_and_path(address).map(|(_, path)| path)
}

/// The host of an address, and the repository there.
pub(super) fn host_and_path(address: &str) -> Option<(String, String)> {
    let (host, path) = match address.split_once("://") {
        Some((_, rest)) => rest.split_once('/')?,
        // As `ssh` has it, with or without a port.
        None => {
            let (host, path) = address.split_once(':')?;
            let port = path.split_once('/').filter(|(port, _)| {
                !port.is_empty() && port.bytes().all(|digit| digit.is_ascii_digit())
            });
            (host, port.map_or(path, |(_, path)| path))
        }
    };
    let host = host.rsplit('@').next().unwrap_or(host);
    let host = host.split(':').next().unwrap_or(host).to_ascii_lowercase();
    let path = path.trim_matches('/');
    let path = path.strip_suffix(".git").unwrap_or(path);
    (!path.is_empty()).then(|| (host, path.to_owned()))
}

/// The request for an event that has no base.
pub(super) fn none_for(event: &Event) -> BaseRequest {
    BaseRequest::none(match event {
        Event::Tag => BaseReason::Tag,
        Event::Schedule => BaseReason::Schedule,
        Event::Dispatch => BaseReason::Dispatch,
        Event::Delete => BaseReason::Deleted,
        Event::Unknown => BaseReason::NoEvent,
        _ => BaseReason::OtherEvent,
    })
}
