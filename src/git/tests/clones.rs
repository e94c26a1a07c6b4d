//! Clones that lack something: shallow, partial, sparse.

use std::time::Duration;

use super::*;
use crate::git::{FetchSettings, GitError, resolve::History};

fn settings() -> FetchSettings {
    FetchSettings {
        env: git_env(),
        timeout: Duration::from_secs(60),
    }
}

/// A repository with `n` commits on `main`, and a branch `side` that leaves it at the second.
fn long(n: usize) -> (Fixture, Vec<Commit>, Commit) {
    let fixture = Fixture::new();
    fixture.git(&["config", "uploadpack.allowFilter", "true"]);
    fixture.git(&["config", "uploadpack.allowAnySHA1InWant", "true"]);
    let mut commits = Vec::new();
    for n in 0..n {
        fixture.write("file", n.to_string());
        fixture.write(&format!("dir/{n}"), n.to_string());
        commits.push(fixture.commit(&n.to_string()));
    }
    fixture.git(&["checkout", "-q", "-b", "side", &commits[1].id.to_string()]);
    fixture.write("side", "x");
    let side = fixture.commit("side");
    fixture.git(&["checkout", "-q", "main"]);
    (fixture, commits, side)
}

fn clone(fixture: &Fixture, args: &[&str]) -> PathBuf {
    let to = fixture.beside("clone");
    let url = format!("file://{}", fixture.path().display());
    let mut all = vec!["clone", "-q"];
    all.extend(args);
    all.extend([&*url, to.to_str().unwrap()]);
    fixture.git(&all);
    to
}

#[test]
fn a_shallow_clone_is_deepened_by_what_is_needed() {
    if !has_git() {
        return;
    }
    let (fixture, commits, side) = long(8);
    let dir = clone(&fixture, &["--depth=2"]);
    let repository = open(&dir);
    assert!(repository.is_shallow());
    let head = repository.commit("HEAD").unwrap();
    assert_eq!(repository.history(&head, 100).unwrap().len(), 2);
    let error = repository.commit_of(commits[3].id).unwrap_err();
    assert!(
        error.hint().unwrap().contains("fetch-depth: 0"),
        "{error:?}"
    );
    let error = repository.commit("HEAD~5").unwrap_err();
    assert!(
        error.hint().unwrap().contains("fetch-depth: 0"),
        "{error:?}"
    );
    assert!(repository.ensure_commit(commits[3].id).is_err());

    let repository = repository.fetching(settings());
    let base = repository.ensure_commit(commits[3].id).unwrap();
    assert_eq!(base, commits[3]);
    assert!(!repository.has_commit(commits[4].id));
    assert!(!repository.has_commit(commits[2].id));
    assert_eq!(repository.history(&base, 100).unwrap().len(), 1);
    assert!(!repository.changes(Some(&base), &head).unwrap().is_empty());
    // Nothing else in the repository has moved.
    assert_eq!(git(&dir, &["status", "--porcelain"]), "");
    assert!(!dir.join(".git/FETCH_HEAD").exists());

    repository.ensure_commit(side.id).unwrap();
    assert_eq!(repository.merge_base(head.id, side.id).unwrap(), None);
    let found = repository.ensure_merge_base(head.id, side.id).unwrap();
    assert_eq!(found, Some(commits[1].id));
    let elsewhere = History::fetch_branch(&repository, "side");
    assert_eq!(elsewhere, Ok(()));
    let tip = repository.commit("refs/remotes/origin/side").unwrap();
    assert_eq!(tip.id, side.id);
    assert!(History::fetch_branch(&repository, "none").is_err());
    let nowhere = "1".repeat(40).parse().unwrap();
    let error = repository.ensure_commit(nowhere).unwrap_err();
    assert!(matches!(error, GitError::Fetch { .. }), "{error:?}");
}

#[test]
fn histories_without_a_common_commit_end_the_deepening() {
    if !has_git() {
        return;
    }
    let (fixture, _, _) = long(3);
    fixture.git(&["checkout", "-q", "--orphan", "alone"]);
    let alone = fixture.commit("alone");
    fixture.git(&["checkout", "-q", "main"]);
    let repository = open(&clone(&fixture, &["--depth=1"])).fetching(settings());
    let head = repository.commit("HEAD").unwrap();
    repository.ensure_commit(alone.id).unwrap();
    assert_eq!(
        repository.ensure_merge_base(head.id, alone.id).unwrap(),
        None
    );
}

#[test]
fn a_partial_clone_fetches_what_a_scan_needs() {
    if !has_git() {
        return;
    }
    let (fixture, commits, _) = long(4);
    std::os::unix::fs::symlink("file", fixture.path().join("link")).unwrap();
    fixture.write("dir/.gitattributes", "* eol=crlf\n");
    fixture.commit("attributes");
    let expected = fixture.open();
    let tree = expected.commit("HEAD").unwrap().files(&expected).unwrap();
    let whole = in_tree(&tree, "", ".git", &[LayerPath::ROOT]);
    for filter in ["--filter=blob:none", "--filter=tree:0"] {
        let dir = clone(&fixture, &["--no-checkout", filter]);
        let repository = open(&dir);
        let head = repository.commit("HEAD").unwrap();
        let options = ScanOptions {
            identity: ContentIdentity::Content,
            memo_dir: None,
        };
        let context = local(Path::new("/nowhere"), ".git");
        let scanned = |repository: &Repository| {
            let tree = head.files(repository)?;
            scan(
                &tree,
                &LayerPath::ROOT,
                &context,
                &[LayerPath::ROOT],
                options,
            )
        };
        let error = scanned(&repository).unwrap_err();
        assert!(matches!(error, GitError::Missing { .. }), "{error:?}");
        let repository = repository.fetching(settings());
        let found = scanned(&repository).unwrap();
        assert_eq!(
            rows(&found.context, &[]),
            rows(&whole.context, &[]),
            "{filter}"
        );
        // Contents of other commits were not fetched: that needs no network any more.
        assert!(repository.commit_of(commits[0].id).is_ok());
        std::fs::remove_dir_all(dir).unwrap();
    }
}

#[test]
fn a_sparse_checkout_is_read_whole_from_its_tree() {
    if !has_git() {
        return;
    }
    let (fixture, _, _) = long(3);
    let dir = clone(&fixture, &["--sparse"]);
    assert!(!dir.join("dir").exists());
    let repository = open(&dir);
    let tree = repository
        .commit("HEAD")
        .unwrap()
        .files(&repository)
        .unwrap();
    let whole = on_disk(&fixture.path(), ".git", &[LayerPath::ROOT]);
    let found = in_tree(&tree, "", ".git", &[LayerPath::ROOT]);
    assert_eq!(rows(&found.context, &[]), rows(&whole, &[]));
}

#[test]
fn the_configuration_of_a_repository_starts_nothing_while_fetching() {
    if !has_git() {
        return;
    }
    let (fixture, commits, _) = long(3);
    let dir = clone(&fixture, &["--depth=1"]);
    let mark = fixture.beside("ran");
    let touch = format!("touch {}", mark.display());
    let script = fixture.beside("script");
    std::fs::write(&script, format!("#!/bin/sh\n{touch}\nexit 1\n")).unwrap();
    executable(&script);
    let script = script.to_str().unwrap();
    for key in [
        "core.fsmonitor",
        "core.alternateRefsCommand",
        "remote.origin.uploadpack",
        "core.pager",
    ] {
        git(&dir, &["config", key, script]);
    }
    for hook in ["reference-transaction", "post-checkout", "pre-auto-gc"] {
        let hook = dir.join(".git/hooks").join(hook);
        std::fs::create_dir_all(hook.parent().unwrap()).unwrap();
        std::fs::copy(script, hook).unwrap();
    }
    let repository = open(&dir).fetching(settings());
    repository.ensure_commit(commits[0].id).unwrap();
    assert!(!mark.exists());

    git(&dir, &["config", "remote.origin.vcs", "evil"]);
    let repository = open(&dir).fetching(settings());
    let error = repository.ensure_commit(commits[1].id).unwrap_err();
    assert!(matches!(error, GitError::NoRemote { .. }), "{error:?}");
}
