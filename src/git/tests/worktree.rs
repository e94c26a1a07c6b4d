//! Work trees: what differs from a commit, and scans that equal those of the disk.

use super::*;
use crate::git::{WorktreeChange, scan_worktree};

fn state(fixture: &Fixture, dir: &str) -> Vec<(String, WorktreeChange)> {
    let repository = fixture.open();
    let head = repository.commit("HEAD").unwrap();
    let state = repository.worktree_state(&head, &layer_path(dir)).unwrap();
    let name = |path: &LayerPath| path.as_path().display().to_string();
    state
        .iter()
        .map(|(path, change)| (name(path), *change))
        .collect()
}

/// Makes the index newer than all files.
fn settle(fixture: &Fixture) {
    let past = std::time::SystemTime::now() - std::time::Duration::from_secs(100);
    for path in fixture.git(&["ls-files"]).lines() {
        let path = fixture.path().join(path);
        if path.is_file() && !path.is_symlink() {
            std::fs::File::open(path)
                .unwrap()
                .set_modified(past)
                .unwrap();
        }
    }
    fixture.git(&["update-index", "-q", "--really-refresh"]);
    fixture.git(&["reset", "-q"]);
}

#[test]
fn every_difference_from_the_commit_is_told() {
    if !has_git() {
        return;
    }
    let fixture = Fixture::new();
    fixture.write(".gitignore", "*.log\nbuild/\n");
    for path in [
        "a/clean",
        "a/edited",
        "a/gone",
        "a/mode",
        "b/staged",
        "b/type",
        "c/crlf.txt",
    ] {
        fixture.write(path, "one\n");
    }
    fixture.write("c/.gitattributes", "* eol=crlf\n");
    std::os::unix::fs::symlink("a", fixture.path().join("link")).unwrap();
    fixture.commit("one");
    settle(&fixture);
    fixture.write("a/edited", "two\n");
    std::fs::remove_file(fixture.path().join("a/gone")).unwrap();
    executable(&fixture.path().join("a/mode"));
    fixture.write("b/staged", "two\n");
    fixture.git(&["add", "b/staged"]);
    fixture.write("b/new", "x");
    fixture.git(&["add", "b/new"]);
    std::fs::remove_file(fixture.path().join("b/type")).unwrap();
    std::os::unix::fs::symlink("new", fixture.path().join("b/type")).unwrap();
    fixture.write("untracked/deep/file", "x");
    fixture.write("a/x.log", "x");
    fixture.write("a/build/x", "x");
    fixture.write("c/crlf.txt", "one\r\n");
    use WorktreeChange::{Added, Deleted, Ignored, Modified};
    let expected = [
        ("a/build", Ignored),
        ("a/edited", Modified),
        ("a/gone", Deleted),
        ("a/mode", Modified),
        ("a/x.log", Ignored),
        ("b/new", Added),
        ("b/staged", Modified),
        ("b/type", Modified),
        ("untracked", Added),
    ];
    let expected = expected.map(|(path, change)| (path.to_owned(), change));
    assert_eq!(state(&fixture, ""), expected);
    assert_eq!(state(&fixture, "a"), expected[..5]);
}

#[test]
fn clean_files_are_not_read_and_the_rest_is() {
    if !has_git() {
        return;
    }
    let fixture = Fixture::new();
    for path in ["clean", "dir/clean", "dir/edited", "same-size", "racy"] {
        fixture.write(path, "one\n");
    }
    fixture.write("crlf/.gitattributes", "*.txt eol=crlf\n");
    fixture.write("crlf/a.txt", "one\n");
    fixture.write("crlf/b", "one\n");
    fixture.commit("one");
    settle(&fixture);
    fixture.write("untracked", "x");
    fixture.write("dir/edited", "longer\n");
    fixture.write("same-size", "two\n");
    let memos = tempfile::tempdir().unwrap();
    let scanned = |dir: &Path| {
        let context = local(dir, ".git");
        let root = [LayerPath::ROOT];
        scan_worktree(&fixture.open(), &context, &root, Some(memos.path())).unwrap()
    };
    let found = scanned(&fixture.path());
    let disk = on_disk(&fixture.path(), ".git", &[LayerPath::ROOT]);
    assert_eq!(rows(&found, &[]), rows(&disk, &[]));
    // Edited ones, the untracked one, and the one that a checkout converts.
    assert_eq!((disk.hashed, found.hashed), (9, 4));
    let found = scanned(&fixture.path().join("dir"));
    let disk = on_disk(&fixture.path().join("dir"), ".git", &[LayerPath::ROOT]);
    assert_eq!(rows(&found, &[]), rows(&disk, &[]));

    // A filter may have written anything.
    fixture.git(&["config", "filter.x.smudge", "cat"]);
    let other = tempfile::tempdir().unwrap();
    let context = local(&fixture.path(), ".git");
    let root = [LayerPath::ROOT];
    let found = scan_worktree(&fixture.open(), &context, &root, Some(other.path())).unwrap();
    assert_eq!(found.hashed, 9);
    fixture.git(&["config", "--unset", "filter.x.smudge"]);
    // So may an attribute that the commit doesn't have.
    fixture.write("crlf/.gitattributes", "");
    let other = tempfile::tempdir().unwrap();
    let found = scan_worktree(&fixture.open(), &context, &root, Some(other.path())).unwrap();
    assert_eq!(found.hashed, 8);
}

#[test]
fn a_sparse_work_tree_says_so() {
    if !has_git() {
        return;
    }
    let fixture = Fixture::new();
    fixture.write("in/file", "x");
    fixture.write("out/file", "x");
    fixture.commit("one");
    assert!(!fixture.open().is_sparse().unwrap());
    fixture.git(&["sparse-checkout", "set", "in"]);
    assert!(!fixture.path().join("out").exists());
    assert!(fixture.open().is_sparse().unwrap());
    assert_eq!(state(&fixture, ""), []);
}
