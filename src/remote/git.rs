//! Trees of Git repositories.
//!
//! The server is asked first which commit a name stands for ([`resolve`]); the commit, not
//! the name, decides which directory holds the tree. [`checkout`] then fetches that one
//! commit, and submodules as they are in it.

use std::path::Path;

use super::{
    RemoteError,
    git_program::{GitProgram, normalise},
    store::{NewTree, SourceKey},
};
use crate::{dockerfile::address::is_commit, fs, graph::GitSource, redact};

/// What a name stands for now.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Resolved {
    /// The full name of the branch or tag; none if a commit was named.
    name: Option<String>,
    /// The commit, or the tag's object.
    object: String,
    /// The commit that a tag's object stands for.
    commit: Option<String>,
}

impl Resolved {
    /// The commit, or what leads to it.
    fn commit(&self) -> &str {
        self.commit.as_ref().unwrap_or(&self.object)
    }

    /// The key of the tree of `source` at this commit.
    pub(super) fn key(&self, source: &GitSource) -> SourceKey {
        let switch = |on: bool| if on { "yes" } else { "no" };
        let keeps = keeps_git_dir(source);
        // A kept `.git` has the names, and of an annotated tag the object.
        let (name, object) = match keeps {
            true => (self.name.as_deref().unwrap_or_default(), &*self.object),
            false => ("", self.commit()),
        };
        SourceKey::of(
            "git",
            &[
                ("remote", &without_credentials(&source.remote)),
                ("object", object),
                ("name", name),
                ("subdir", &source.subdir),
                ("keep-git-dir", switch(keeps)),
                ("submodules", switch(source.submodules)),
            ],
        )
    }
}

/// `.git` is kept only with the whole tree, as BuildKit does it.
fn keeps_git_dir(source: &GitSource) -> bool {
    source.keep_git_dir && source.subdir.is_empty()
}

/// The commit that `source` means, checked against its checksum. `dir` is any directory.
pub(super) async fn resolve(
    git: &GitProgram,
    source: &GitSource,
    dir: &Path,
) -> Result<Resolved, RemoteError> {
    let named = |object: &str| Resolved {
        name: None,
        object: object.to_owned(),
        commit: None,
    };
    let resolved = if is_commit(&source.reference) {
        named(&source.reference)
    } else if let (true, Some(commit)) = (source.fetch_by_commit, &source.checksum) {
        named(commit)
    } else {
        ask(git, source, dir).await?
    };
    let Some(checksum) = &source.checksum else {
        return Ok(resolved);
    };
    let known = [Some(&resolved.object), resolved.commit.as_ref()];
    let checksum = checksum.to_ascii_lowercase();
    match known.iter().flatten().any(|id| id.starts_with(&checksum)) {
        true => Ok(resolved),
        false => Err(RemoteError::Checksum {
            what: source.shown().into_owned(),
            expected: checksum,
            actual: resolved.commit().to_owned(),
        }),
    }
}

/// Asks the server what the name stands for.
async fn ask(git: &GitProgram, source: &GitSource, dir: &Path) -> Result<Resolved, RemoteError> {
    let reference = match source.reference.as_str() {
        "" => "HEAD",
        reference => reference,
    };
    let peeled = format!("{reference}^{{}}");
    let mut args = vec!["ls-remote", "--symref", "--", &source.remote, reference];
    if reference != "HEAD" {
        args.push(&peeled);
    }
    let answer = git.run(dir, &args).await?;
    find(&answer, reference).ok_or_else(|| RemoteError::Reference {
        what: redact::url_credentials(&source.remote).into_owned(),
        reference: reference.to_owned(),
    })
}

/// What `reference` is in the answer of `git ls-remote --symref`: by its full name, else a
/// branch, else a tag.
fn find(answer: &str, reference: &str) -> Option<Resolved> {
    let rows = || answer.lines().filter_map(|line| line.split_once('\t'));
    let id = |name: &str| {
        let mut found = rows().filter(|(id, row)| *row == name && is_commit(id));
        found.next().map(|(id, _)| id.to_owned())
    };
    if reference == "HEAD" {
        let head = rows().find_map(|(what, row)| {
            let branch = what.strip_prefix("ref: ")?;
            (row == "HEAD").then(|| branch.to_owned())
        });
        return Some(Resolved {
            name: head,
            object: id("HEAD")?,
            commit: None,
        });
    }
    let full = |prefix: &str| format!("{prefix}{}", reference.trim_start_matches(prefix));
    for name in [full("refs/"), full("refs/heads/"), full("refs/tags/")] {
        if let Some(object) = id(&name) {
            let commit = id(&format!("{name}^{{}}"));
            return Some(Resolved {
                name: Some(name),
                object,
                commit,
            });
        }
    }
    None
}

/// Fetches the tree of `source` into `new`.
pub(super) async fn checkout(
    git: &GitProgram,
    source: &GitSource,
    resolved: &Resolved,
    new: &NewTree,
) -> Result<(), RemoteError> {
    let tree = new.tree();
    fetch(git, source, resolved, &tree).await?;
    let checkout = ["checkout", "--quiet", "--force", "--detach", "FETCH_HEAD"];
    git.run(&tree, &checkout).await?;
    if source.submodules && fs::exists(tree.join(".gitmodules")) {
        let update = ["submodule", "update", "--init", "--recursive", "--depth=1"];
        git.run(&tree, &update).await?;
    }
    if keeps_git_dir(source) {
        return normalise(git, &tree.join(".git")).await;
    }
    remove_git_dirs(&tree)?;
    if !source.subdir.is_empty() {
        take_subdir(source, new)?;
    }
    Ok(())
}

/// Makes a repository in `tree` and fetches the commit, alone if the server can.
async fn fetch(
    git: &GitProgram,
    source: &GitSource,
    resolved: &Resolved,
    tree: &Path,
) -> Result<(), RemoteError> {
    let format = match resolved.object.len() {
        64 => "--object-format=sha256",
        _ => "--object-format=sha1",
    };
    let init = [
        "init",
        "--quiet",
        "--template=",
        "--initial-branch=master",
        format,
    ];
    git.run(tree, &init).await?;
    // What the addresses of submodules are relative to.
    git.run(tree, &["remote", "add", "origin", &source.remote])
        .await?;
    let by_name = resolved.name.as_ref().map(|name| format!("+{name}:{name}"));
    let mut specs: Vec<&str> = by_name.iter().map(String::as_str).collect();
    specs.push(&resolved.object);
    let mut last = None;
    for spec in specs {
        match fetch_one(git, source, tree, spec).await {
            Ok(()) if is_there(git, tree, &resolved.object).await? => return Ok(()),
            // The branch has moved on since the server was asked: the commit itself, then.
            Ok(()) => {}
            Err(error) => last = Some(error),
        }
    }
    // A server that gives no commit by its id: everything, then.
    match last {
        Some(RemoteError::Git { said, .. })
            if said.contains("not our ref") || said.contains("unadvertised object") =>
        {
            let all = "+refs/*:refs/memobuild/*";
            git.run(
                tree,
                &["fetch", "--quiet", "--no-tags", "--", &source.remote, all],
            )
            .await?;
            set_fetch_head(git, source, tree, &resolved.object).await
        }
        Some(error) => Err(error),
        None => Err(missing(source, resolved)),
    }
}

fn missing(source: &GitSource, resolved: &Resolved) -> RemoteError {
    RemoteError::Reference {
        what: redact::url_credentials(&source.remote).into_owned(),
        reference: resolved.object.clone(),
    }
}

/// Fetches what `spec` names without its history; with it from servers that can't cut it.
async fn fetch_one(
    git: &GitProgram,
    source: &GitSource,
    tree: &Path,
    spec: &str,
) -> Result<(), RemoteError> {
    let remote = source.remote.as_str();
    let mut args = vec![
        "fetch",
        "--quiet",
        "--no-tags",
        "--depth=1",
        "--",
        remote,
        spec,
    ];
    match git.run(tree, &args).await {
        Err(RemoteError::Git { said, .. })
            if said.contains("--depth") || said.contains("shallow") =>
        {
            args.retain(|arg| *arg != "--depth=1");
            git.run(tree, &args).await.map(drop)
        }
        result => result.map(drop),
    }
}

/// Whether the last fetch brought `object`.
async fn is_there(git: &GitProgram, tree: &Path, object: &str) -> Result<bool, RemoteError> {
    let head = git.run(tree, &["rev-parse", "FETCH_HEAD"]).await?;
    Ok(head.trim() == object)
}

/// Makes `FETCH_HEAD` a commit that is among all that was fetched.
async fn set_fetch_head(
    git: &GitProgram,
    source: &GitSource,
    tree: &Path,
    commit: &str,
) -> Result<(), RemoteError> {
    let object = format!("{commit}^{{commit}}");
    if git.run(tree, &["cat-file", "-e", &object]).await.is_err() {
        return Err(RemoteError::Reference {
            what: redact::url_credentials(&source.remote).into_owned(),
            reference: commit.to_owned(),
        });
    }
    let path = tree.join(".git/FETCH_HEAD");
    Ok(fs::write_atomic(
        &path,
        format!("{commit}\t\t\n").as_bytes(),
    )?)
}

/// Removes `.git` of the repository and of its submodules.
fn remove_git_dirs(tree: &Path) -> Result<(), RemoteError> {
    let mut open = vec![tree.to_owned()];
    while let Some(dir) = open.pop() {
        for name in fs::names(&dir)? {
            let path = dir.join(&name);
            if fs::is_symlink(&path) {
                continue;
            }
            // Git itself refuses to check out a file of this name.
            if name == ".git" {
                match path.is_dir() {
                    true => fs::remove_dir_all(path)?,
                    false => fs::remove_file(path)?,
                }
            } else if path.is_dir() {
                open.push(path);
            }
        }
    }
    Ok(())
}

/// Makes the directory that was asked for the tree.
fn take_subdir(source: &GitSource, new: &NewTree) -> Result<(), RemoteError> {
    let missing = || RemoteError::Subdir {
        what: redact::url_credentials(&source.remote).into_owned(),
        subdir: source.subdir.clone(),
    };
    let whole = new.dir.join("repository");
    fs::rename(new.tree(), &whole)?;
    let mut path = whole.clone();
    for name in source.subdir.split('/') {
        path.push(name);
        if fs::is_symlink(&path) || !path.is_dir() {
            return Err(missing());
        }
    }
    fs::rename(&path, new.tree())?;
    fs::remove_dir_all(&whole)?;
    Ok(())
}

/// A remote without user and password, for `.git/config` and keys. The user of an SSH
/// address is part of it.
pub(super) fn without_credentials(remote: &str) -> String {
    let Some((scheme, rest)) = remote.split_once("://") else {
        return remote.to_owned();
    };
    let host = rest.find('/').unwrap_or(rest.len());
    let Some(at) = rest[..host].rfind('@') else {
        return remote.to_owned();
    };
    let user = match scheme.eq_ignore_ascii_case("ssh") {
        true => rest[..at].split(':').next().map(|user| format!("{user}@")),
        false => None,
    };
    format!("{scheme}://{}{}", user.unwrap_or_default(), &rest[at + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

    #[test]
    fn names_are_branches_before_tags() {
        let answer = format!(
            "{A}\trefs/heads/x\n{B}\trefs/tags/x\n{B}\trefs/heads/other/x\n{A}\trefs/tags/x^{{}}\n"
        );
        let found = |reference| {
            let found = find(&answer, reference)?;
            Some((found.name?, found.object, found.commit))
        };
        let branch = ("refs/heads/x".to_owned(), A.to_owned(), None);
        let tag = ("refs/tags/x".to_owned(), B.to_owned(), Some(A.to_owned()));
        assert_eq!(found("x"), Some(branch.clone()));
        assert_eq!(found("heads/x"), Some(branch));
        assert_eq!(found("refs/tags/x"), Some(tag));
        assert_eq!(found("y"), None);
        let head = format!("ref: refs/heads/main\tHEAD\n{A}\tHEAD\n");
        assert_eq!(
            find(&head, "HEAD").unwrap().name.as_deref(),
            Some("refs/heads/main")
        );
    }

    #[test]
    fn credentials_are_no_part_of_a_repository() {
        for (remote, shown) in [
            ("https://u:p@h/x.git", "https://h/x.git"),
            ("https://h/x@y.git", "https://h/x@y.git"),
            ("ssh://git:pw@h/x", "ssh://git@h/x"),
            ("git@h:x", "git@h:x"),
        ] {
            assert_eq!(without_credentials(remote), shown);
        }
    }

    #[test]
    fn the_commit_decides_the_key_and_what_is_kept_of_it() {
        let source = GitSource {
            remote: "https://h/x.git".to_owned(),
            reference: "main".to_owned(),
            subdir: String::new(),
            checksum: None,
            keep_git_dir: false,
            submodules: true,
            fetch_by_commit: false,
        };
        let at = |object: &str, name: &str| Resolved {
            name: Some(name.to_owned()),
            object: object.to_owned(),
            commit: None,
        };
        let key = at(A, "refs/heads/main").key(&source);
        let with = |change: fn(&mut GitSource)| {
            let mut source = source.clone();
            change(&mut source);
            source
        };
        assert_eq!(at(A, "refs/heads/x").key(&source), key);
        assert_eq!(
            at(A, "x").key(&with(|s| s.remote = "https://t@h/x.git".to_owned())),
            key
        );
        assert_ne!(at(B, "refs/heads/main").key(&source), key);
        for other in [
            with(|s| s.subdir = "d".to_owned()),
            with(|s| s.submodules = false),
            with(|s| s.keep_git_dir = true),
            with(|s| s.remote = "https://h/y.git".to_owned()),
        ] {
            assert_ne!(at(A, "refs/heads/main").key(&other), key, "{other:?}");
        }
        let kept = with(|s| s.keep_git_dir = true);
        assert_ne!(
            at(A, "refs/heads/x").key(&kept),
            at(A, "refs/heads/y").key(&kept)
        );
    }
}
