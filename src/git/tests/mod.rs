//! Repositories made by the program `git`, and what is read from them.

mod checkout;
mod clones;
mod history;
mod memo;
mod worktree;
mod write_out;

use std::{
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use super::{
    Commit, ContentIdentity, Repository, ScanOptions, ScannedTree, Surroundings, Tree, scan,
};
use crate::{
    context::{self, ScannedContext},
    graph::LocalContext,
    oci::layer::LayerPath,
};

/// Whether the program is there; a missing one is a failure in CI.
fn has_git() -> bool {
    let found = Command::new("git").arg("--version").output().is_ok();
    if !found {
        assert!(
            std::env::var_os("CI").is_none(),
            "the program `git` is missing"
        );
        eprintln!("skipped: needs the program `git`");
    }
    found
}

/// Runs `git` in `dir`, without any configuration but the repository's.
fn git(dir: &Path, args: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "protocol.file.allow=always"])
        .args(args)
        .current_dir(dir)
        .env_clear()
        .envs(git_env())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "git {args:?}: {said}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// The environment of every `git`.
fn git_env() -> Vec<(std::ffi::OsString, std::ffi::OsString)> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut env = vec![("PATH".into(), path)];
    for (name, value) in [
        ("HOME", "/nonexistent"),
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_ATTR_NOSYSTEM", "1"),
        ("GIT_AUTHOR_NAME", "A U Thor"),
        ("GIT_AUTHOR_EMAIL", "author@example.com"),
        ("GIT_COMMITTER_NAME", "C O Mitter"),
        ("GIT_COMMITTER_EMAIL", "committer@example.com"),
        ("GIT_AUTHOR_DATE", "1700000000 +0000"),
        ("GIT_COMMITTER_DATE", "1700000000 +0000"),
    ] {
        env.push((name.into(), value.into()));
    }
    env
}

/// A work tree that goes away.
struct Fixture {
    dir: tempfile::TempDir,
}

impl Fixture {
    /// An empty repository.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        git(dir.path(), &["init", "-q", "-b", "main", "repo"]);
        Self { dir }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("repo")
    }

    /// Another place beside the repository.
    fn beside(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn git(&self, args: &[&str]) -> String {
        git(&self.path(), args)
    }

    fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        write(&self.path(), path, content);
    }

    /// Commits all that is in the work tree.
    fn commit(&self, message: &str) -> Commit {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "--allow-empty", "-m", message]);
        self.open().commit("HEAD").unwrap()
    }

    fn open(&self) -> Repository {
        open(&self.path())
    }
}

fn write(dir: &Path, path: &str, content: impl AsRef<[u8]>) {
    let path = dir.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

fn executable(path: &Path) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

fn open(dir: &Path) -> Repository {
    let found = Repository::discover_in(dir, Surroundings::None).unwrap();
    found.unwrap()
}

fn layer_path(path: &str) -> LayerPath {
    LayerPath::new(path).unwrap()
}

fn local(dir: &Path, ignore: &str) -> LocalContext {
    LocalContext {
        name: "context".to_owned(),
        dir: dir.to_owned(),
        ignore: ignore.to_owned(),
    }
}

fn on_disk(dir: &Path, ignore: &str, prefixes: &[LayerPath]) -> ScannedContext {
    context::scan(&local(dir, ignore), prefixes, None).unwrap()
}

fn in_tree(tree: &Tree, dir: &str, ignore: &str, prefixes: &[LayerPath]) -> ScannedTree {
    let options = ScanOptions {
        identity: ContentIdentity::Content,
        memo_dir: None,
    };
    let context = local(Path::new("/nowhere"), ignore);
    scan(tree, &layer_path(dir), &context, prefixes, options).unwrap()
}

/// The rows of a scan, a line each, without what is at or below `unknown`.
fn rows(scanned: &ScannedContext, unknown: &[super::Unknown]) -> Vec<String> {
    let told = |path: &LayerPath| !unknown.iter().any(|u| path.starts_with(&u.path));
    let rows = scanned.index.entries.iter();
    rows.filter(|row| told(&row.entry.path))
        .map(|row| format!("{:?} {:?}", row.entry, row.content))
        .collect()
}
