//! Files of commits on disk, without a checkout.

use std::{collections::BTreeMap, os::unix::fs::PermissionsExt as _, path::Path};

use super::*;
use crate::git::write_out;

/// What is below `dir`, without `.git`: the path with the target of a symlink, or with the mode and
/// the content of a file.
fn listed(dir: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut open = vec![dir.to_owned()];
    while let Some(at) = open.pop() {
        for entry in std::fs::read_dir(&at).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(dir).unwrap().display().to_string();
            let metadata = path.symlink_metadata().unwrap();
            let told = if metadata.is_symlink() {
                std::fs::read_link(&path).unwrap().display().to_string()
            } else if metadata.is_dir() {
                if name != ".git" {
                    open.push(path);
                }
                continue;
            } else {
                let executable = metadata.permissions().mode() & 0o100;
                format!("{executable:o} {:?}", std::fs::read(&path).unwrap())
            };
            found.insert(name, told);
        }
    }
    found
}

fn written(
    repository: &Repository,
    tree: &Tree,
) -> Result<tempfile::TempDir, super::super::GitError> {
    assert_eq!(tree.repository().git_dir(), repository.git_dir());
    let dir = tempfile::tempdir().unwrap();
    write_out(tree, dir.path())?;
    Ok(dir)
}

#[test]
fn a_commit_is_written_as_a_checkout_writes_it() {
    if !has_git() {
        return;
    }
    let fixture = Fixture::new();
    fixture.write("src/main.py", "main\n");
    fixture.write("run.sh", "#!/bin/sh\n");
    executable(&fixture.path().join("run.sh"));
    fixture.write("win.bat", "echo\n");
    fixture.write(".gitattributes", "*.bat text eol=crlf\n");
    std::os::unix::fs::symlink("src/main.py", fixture.path().join("link")).unwrap();
    std::os::unix::fs::symlink("/nowhere", fixture.path().join("away")).unwrap();
    let commit = fixture.commit("all");
    // What `git` wrote is what the checkout has.
    fixture.git(&["rm", "-q", "--cached", "-r", "."]);
    fixture.git(&["reset", "-q", "--hard"]);
    let repository = fixture.open();
    let dir = written(&repository, &commit.files(&repository).unwrap()).unwrap();
    let expected = listed(&fixture.path());
    assert!(expected["win.bat"].contains("13"), "{expected:?}");
    assert_eq!(listed(dir.path()), expected);
}

#[test]
fn a_tree_that_git_would_not_make_leads_nowhere() {
    if !has_git() {
        return;
    }
    let fixture = Fixture::new();
    fixture.write("file", "text\n");
    fixture.commit("first");
    let blob = fixture.git(&["rev-parse", "HEAD:file"]);
    let raw = |id: &str| hex::decode(id).unwrap();
    let outside = fixture.beside("outside");
    std::fs::create_dir(&outside).unwrap();
    let target = fixture.beside("target");
    std::fs::write(&target, outside.to_str().unwrap()).unwrap();
    let link = fixture.git(&["hash-object", "-w", target.to_str().unwrap()]);
    let made = |entries: &[(&str, &str, &str)]| {
        let mut tree = Vec::new();
        for (mode, name, id) in entries {
            tree.extend(format!("{mode} {name}\0").into_bytes());
            tree.extend(raw(id));
        }
        let file = fixture.beside("tree");
        std::fs::write(&file, tree).unwrap();
        let file = file.to_str().unwrap().to_owned();
        fixture.git(&["hash-object", "-t", "tree", "--literally", "-w", &file])
    };
    let below = made(&[("100644", "escaped", &blob)]);
    for entries in [
        [("120000", "a", &*link), ("40000", "a", &*below)],
        [("100644", "b", &*blob), ("40000", "..", &*below)],
        [("100644", "b", &*blob), ("40000", ".GIT", &*below)],
    ] {
        let tree = made(&entries);
        let commit = fixture.git(&["commit-tree", "-m", "odd", &tree]);
        let repository = fixture.open();
        let commit = repository.commit(&commit).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let dest = dir.path().join("dest");
        std::fs::create_dir(&dest).unwrap();
        // Refused on reading or on writing, or left out: either will do.
        if let Ok(tree) = commit.files(&repository) {
            let _ = write_out(&tree, &dest);
        }
        assert!(!outside.join("escaped").exists());
        assert!(!dir.path().join("escaped").exists());
        assert!(!dest.join(".GIT").exists());
    }
}
