//! Commits.

use super::{GitError, ObjectId, Repository, Tree};

/// A commit: what was in the repository at one time, and what came before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Its name.
    pub id: ObjectId,
    /// The name of its root tree.
    pub tree: ObjectId,
    /// The commits before it, the mainline's first. As the commit says: in a shallow clone
    /// they may be absent.
    pub parents: Vec<ObjectId>,
    /// When it was committed, in seconds since 1970.
    pub time: i64,
    /// The whole message; bytes that aren't UTF-8 are replaced.
    pub message: String,
    /// `Name <address>` of the author.
    pub author: String,
}

impl Commit {
    /// The first line of the message.
    pub fn subject(&self) -> &str {
        self.message.trim_start().lines().next().unwrap_or_default()
    }

    /// The files of the commit in `repository`.
    pub fn files(&self, repository: &Repository) -> Result<Tree, GitError> {
        Tree::new(repository, self.tree, Some(self.id))
    }

    pub(super) fn decode(
        id: gix::ObjectId,
        commit: &gix::Commit<'_>,
    ) -> Result<Self, Box<gix::Error>> {
        let decoded = commit.decode()?;
        let author = decoded.author()?;
        Ok(Self {
            id: ObjectId(id),
            tree: ObjectId(decoded.tree()),
            parents: decoded.parents().map(ObjectId).collect(),
            time: decoded.time()?.seconds,
            message: decoded.message.to_string(),
            author: format!("{} <{}>", author.name, author.email),
        })
    }
}
