//! A repository as the search for a base sees it: [`History`] of what is at hand.

use std::collections::BTreeSet;

use gix::{
    hash::Prefix, objs::Kind, revision::walk::Sorting,
    traverse::commit::simple::CommitTimeOrder::NewestFirst,
};

use super::{
    GitError, ObjectId, Repository,
    resolve::{History, NotFetched},
};

impl History for Repository {
    fn has(&self, id: ObjectId) -> bool {
        self.has_commit(id)
    }

    fn with_prefix(&self, digits: &str) -> Option<ObjectId> {
        let prefix = Prefix::from_hex(digits).ok()?;
        self.with(|repository| {
            let mut all = std::collections::HashSet::new();
            let found = repository.objects.lookup_prefix(prefix, Some(&mut all));
            let _ = found.ok()??;
            let is_commit = |id: &gix::ObjectId| {
                let header = repository.try_find_header(*id).ok().flatten();
                header.is_some_and(|header| header.kind() == Kind::Commit)
            };
            let mut commits = all.into_iter().filter(is_commit);
            // Of two, neither is the one that was meant.
            match (commits.next(), commits.next()) {
                (Some(id), None) => Some(ObjectId(id)),
                _ => None,
            }
        })
    }

    fn reference(&self, name: &str) -> Option<ObjectId> {
        let id = self.with(|repository| {
            let mut reference = repository.try_find_reference(name).ok().flatten()?;
            reference.peel_to_id().ok().map(|id| ObjectId(id.detach()))
        })?;
        self.has_commit(id).then_some(id)
    }

    fn remote(&self) -> String {
        let names = self.remotes();
        match names.as_slice() {
            [name] => name.clone(),
            _ => "origin".to_owned(),
        }
    }

    fn default_branches(&self) -> Vec<String> {
        self.default_branch_candidates()
    }

    fn parents(&self, id: ObjectId) -> Result<Vec<ObjectId>, GitError> {
        Ok(self.commit_of(id)?.parents)
    }

    fn merge_base(&self, one: ObjectId, other: ObjectId) -> Result<Option<ObjectId>, GitError> {
        Repository::merge_base(self, one, other)
    }

    fn tag_behind(&self, head: ObjectId) -> Result<Option<ObjectId>, GitError> {
        let cut = self.shallow_commits();
        let parents = match cut.contains(&head) {
            true => return Ok(None),
            false => self.commit_of(head)?.parents,
        };
        self.with(|repository| {
            let unreadable = |source| GitError::Tags {
                path: self.git_dir().to_owned(),
                source: Box::new(source),
            };
            let tags = tagged(repository).map_err(unreadable)?;
            if tags.is_empty() {
                return Ok(None);
            }
            let walk = repository
                .rev_walk(parents.iter().map(|id| id.0))
                .sorting(Sorting::ByCommitTime(NewestFirst))
                .all();
            for commit in walk.map_err(unreadable)? {
                let id = commit.map_err(unreadable)?.id;
                if tags.contains(&ObjectId(id)) {
                    return Ok(Some(ObjectId(id)));
                }
            }
            Ok(None)
        })
    }

    fn is_shallow(&self) -> bool {
        Repository::is_shallow(self)
    }

    fn fetch_commit(&self, id: ObjectId) -> Result<(), NotFetched> {
        self.may_fetch()?;
        self.ensure_commit(id).map(drop).map_err(failed)
    }

    fn fetch_branch(&self, name: &str) -> Result<(), NotFetched> {
        self.may_fetch()?;
        Repository::fetch_branch(self, name).map_err(failed)
    }

    fn fetch_merge_base(&self, one: ObjectId, other: ObjectId) -> Result<(), NotFetched> {
        self.may_fetch()?;
        self.ensure_merge_base(one, other).map(drop).map_err(failed)
    }
}

impl Repository {
    fn may_fetch(&self) -> Result<(), NotFetched> {
        self.settings().map(drop).ok_or(NotFetched::Off)
    }
}

fn failed(error: GitError) -> NotFetched {
    NotFetched::Failed(error.to_string())
}

/// What the tags of the repository lead to; a tag that leads nowhere is none.
fn tagged(repository: &gix::Repository) -> Result<BTreeSet<ObjectId>, gix::Error> {
    let references = repository.references()?;
    let tags = references.tags()?;
    let ids = tags.filter_map(|tag| Some(ObjectId(tag.ok()?.peel_to_id().ok()?.detach())));
    Ok(ids.collect())
}
