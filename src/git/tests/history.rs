//! Finding repositories, commits and what changed.

use super::*;
use crate::git::{ChangeKind, GitError, scan_inputs};

fn changes(fixture: &Fixture, base: &Commit, head: &Commit) -> Vec<(String, ChangeKind)> {
    let changed = fixture.open().changes(Some(base), head).unwrap();
    let name = |path: &LayerPath| path.as_path().display().to_string();
    changed.iter().map(|c| (name(&c.path), c.kind())).collect()
}

#[test]
fn a_repository_is_found_from_anywhere_in_its_work_tree() {
    if !has_git() {
        return;
    }
    let fixture = Fixture::new();
    fixture.write("a/b/file", "x");
    let commit = fixture.commit("one\n\nand more");
    assert_eq!(commit.subject(), "one");
    assert_eq!(commit.author, "A U Thor <author@example.com>");
    assert_eq!(commit.time, 1_700_000_000);
    let deep = open(&fixture.path().join("a/b"));
    assert_eq!(
        deep.work_dir(),
        Some(&*fixture.path().canonicalize().unwrap())
    );
    let of = |path: &str| deep.relative(&fixture.path().join(path));
    assert_eq!(of("a/b"), Some(layer_path("a/b")));
    assert_eq!(of("not/there"), Some(layer_path("not/there")));
    assert_eq!(of(""), Some(LayerPath::ROOT));
    assert_eq!(of(".."), None);
    assert!(Repository::discover(fixture.dir.path()).unwrap().is_none());

    let bare = fixture.beside("bare.git");
    let bare_text = bare.to_str().unwrap();
    fixture.git(&["clone", "-q", "--bare", ".", bare_text]);
    let bare = open(&bare);
    assert!(bare.is_bare());
    assert_eq!(bare.commit("HEAD").unwrap(), commit);
    assert_eq!(bare.relative(Path::new("a/b")), Some(layer_path("a/b")));

    let tree = fixture.beside("second");
    fixture.git(&[
        "worktree",
        "add",
        "-q",
        tree.to_str().unwrap(),
        "-b",
        "other",
    ]);
    assert_eq!(open(&tree).commit("HEAD").unwrap(), commit);
    assert_eq!(open(&tree).relative(&tree.join("a")), Some(layer_path("a")));
}

#[test]
fn texts_name_commits() {
    if !has_git() {
        return;
    }
    let fixture = Fixture::new();
    assert!(matches!(
        fixture.open().commit("HEAD"),
        Err(GitError::Unborn { .. })
    ));
    let one = fixture.commit("one");
    fixture.git(&["tag", "-a", "-m", "note", "v1"]);
    let two = fixture.commit("two");
    let repository = fixture.open();
    let named = |text: &str| repository.commit(text).unwrap().id;
    assert_eq!(named("v1"), one.id);
    assert_eq!(named("HEAD^1"), one.id);
    assert_eq!(named("refs/heads/main"), two.id);
    assert_eq!(named(&two.id.to_string()[..10]), two.id);
    for text in [
        "nothing",
        "$(touch x)",
        "a\nb",
        "",
        "--all",
        &"0".repeat(40),
    ] {
        let error = repository.commit(text).unwrap_err();
        assert!(matches!(error, GitError::Revision { .. }), "{error:?}");
    }
    assert!(repository.has_commit(one.id));
    assert!(!repository.has_commit(one.tree));
    assert!(!repository.has_commit("0".repeat(40).parse().unwrap()));
    let ids = |commits: Vec<Commit>| commits.into_iter().map(|c| c.id).collect::<Vec<_>>();
    assert_eq!(ids(repository.history(&two, 9).unwrap()), [two.id, one.id]);
    assert_eq!(ids(repository.history(&two, 1).unwrap()), [two.id]);
    assert_eq!(repository.default_branch_candidates(), ["refs/heads/main"]);
}

#[test]
fn histories_part_at_their_merge_base() {
    if !has_git() {
        return;
    }
    let fixture = Fixture::new();
    let base = fixture.commit("base");
    let ours = fixture.commit("ours");
    fixture.git(&["checkout", "-q", "-b", "side", &base.id.to_string()]);
    let theirs = fixture.commit("theirs");
    fixture.git(&["checkout", "-q", "--orphan", "alone"]);
    let alone = fixture.commit("alone");
    let repository = fixture.open();
    let found = repository.merge_base(ours.id, theirs.id).unwrap();
    assert_eq!(found, Some(base.id));
    assert_eq!(repository.merge_base(ours.id, alone.id).unwrap(), None);
}

#[test]
fn every_kind_of_change_is_told() {
    if !has_git() {
        return;
    }
    let fixture = Fixture::new();
    for path in [
        "deleted",
        "dir/modified",
        "mode",
        "type",
        "dir-first",
        "same",
    ] {
        fixture.write(path, path);
    }
    let base = fixture.commit("base");
    std::fs::remove_file(fixture.path().join("deleted")).unwrap();
    fixture.write("added/deep", "x");
    fixture.write("dir/modified", "y");
    executable(&fixture.path().join("mode"));
    std::fs::remove_file(fixture.path().join("type")).unwrap();
    std::os::unix::fs::symlink("same", fixture.path().join("type")).unwrap();
    std::fs::remove_file(fixture.path().join("dir-first")).unwrap();
    fixture.write("dir-first/file", "x");
    let id = base.id.to_string();
    fixture.git(&["add", "-A"]);
    let link = format!("160000,{id},module");
    fixture.git(&["update-index", "--add", "--cacheinfo", &link]);
    fixture.git(&["commit", "-q", "-m", "head"]);
    let head = fixture.open().commit("HEAD").unwrap();
    let expected = [
        ("added/deep", ChangeKind::Added),
        ("deleted", ChangeKind::Deleted),
        ("dir/modified", ChangeKind::Modified),
        ("dir-first", ChangeKind::Deleted),
        ("dir-first/file", ChangeKind::Added),
        ("mode", ChangeKind::Mode),
        ("module", ChangeKind::Added),
        ("type", ChangeKind::Type),
    ];
    let expected = expected.map(|(path, kind)| (path.to_owned(), kind));
    assert_eq!(changes(&fixture, &base, &head), expected);

    let link = format!("160000,{},module", head.id);
    fixture.git(&["update-index", "--cacheinfo", &link]);
    fixture.git(&["commit", "-q", "-m", "bump"]);
    let bump = fixture.open().commit("HEAD").unwrap();
    let expected = [("module".to_owned(), ChangeKind::Submodule)];
    assert_eq!(changes(&fixture, &head, &bump), expected);

    let all = fixture.open().changes(Some(&base), &head).unwrap();
    assert_eq!(all.below(&layer_path("dir-first")).count(), 2);
    assert!(all.get(&layer_path("mode")).is_some());
    assert!(all.get(&layer_path("same")).is_none());
    let everything = fixture.open().changes(None, &base).unwrap();
    assert_eq!(everything.len(), 6);
}

#[test]
fn files_of_a_commit_are_read_as_they_would_be_on_disk() {
    if !has_git() {
        return;
    }
    let fixture = Fixture::new();
    fixture.write("docker/app/Dockerfile", "FROM scratch\n");
    fixture.write("docker/.gitattributes", "*.ps1 eol=crlf\n");
    fixture.write("docker/a.ps1", "one\ntwo\n");
    std::os::unix::fs::symlink("docker/app", fixture.path().join("link")).unwrap();
    std::os::unix::fs::symlink("../../outside", fixture.path().join("out")).unwrap();
    std::os::unix::fs::symlink("round", fixture.path().join("round")).unwrap();
    let commit = fixture.commit("files");
    // Nothing of it is read from the work tree.
    std::fs::remove_dir_all(fixture.path().join("docker")).unwrap();
    let files = commit.files(&fixture.open()).unwrap();
    let read = |path: &str| files.read(&layer_path(path)).unwrap();
    assert_eq!(read("link/Dockerfile").unwrap(), b"FROM scratch\n");
    assert_eq!(read("docker/a.ps1").unwrap(), b"one\r\ntwo\r\n");
    assert_eq!(read("docker"), None);
    assert_eq!(read("docker/none"), None);
    assert_eq!(read("docker/a.ps1/below"), None);
    assert!(files.is_dir(&layer_path("link")).unwrap());
    assert!(!files.is_dir(&layer_path("docker/a.ps1")).unwrap());
    for path in ["out", "round", "round/x"] {
        let error = files.read(&layer_path(path)).unwrap_err();
        assert!(matches!(error, GitError::Symlinks { .. }), "{error:?}");
    }
}

#[test]
fn damage_and_absence_are_told_apart() {
    if !has_git() {
        return;
    }
    let fixture = Fixture::new();
    fixture.write("file", "content of a file");
    let commit = fixture.commit("one");
    let files = commit.files(&fixture.open()).unwrap();
    let id = files
        .entry(&layer_path("file"))
        .unwrap()
        .unwrap()
        .id
        .to_string();
    let object = fixture
        .path()
        .join(".git/objects")
        .join(&id[..2])
        .join(&id[2..]);
    let read = || open(&fixture.path()).commit("HEAD").unwrap();
    std::fs::set_permissions(&object, std::fs::Permissions::from_mode(0o644)).unwrap();
    std::fs::write(&object, "nonsense").unwrap();
    let error = read()
        .files(&fixture.open())
        .unwrap()
        .read(&layer_path("file"));
    assert!(matches!(error, Err(GitError::Object { .. })), "{error:?}");
    std::fs::remove_file(&object).unwrap();
    let error = read()
        .files(&fixture.open())
        .unwrap()
        .read(&layer_path("file"));
    let error = error.unwrap_err();
    assert!(
        matches!(error, GitError::Missing { kind: "blob", .. }),
        "{error:?}"
    );
    assert!(error.hint().is_some());
    std::fs::remove_file(fixture.path().join(".git/HEAD")).unwrap();
    // Without its `HEAD` a directory is no repository.
    let found = Repository::discover_in(&fixture.path(), Surroundings::None);
    assert!(found.is_ok_and(|found| found.is_none()));
}

#[test]
fn what_a_scan_depends_on_differs_whenever_the_scan_does() {
    if !has_git() {
        return;
    }
    let fixture = Fixture::new();
    for path in ["src/deep/a.txt", "src/b.txt", "other.txt"] {
        fixture.write(path, "one\n");
    }
    let inputs = || {
        let commit = fixture.commit("a change");
        let repository = fixture.open();
        let tree = commit.files(&repository).unwrap();
        scan_inputs(&tree, &layer_path("src"), &[layer_path("deep")]).unwrap()
    };
    let mut seen = vec![inputs().unwrap()];
    fixture.write("other.txt", "two\n");
    fixture.write("src/b.txt", "two\n");
    assert_eq!(inputs(), Some(seen[0]), "nothing of it lies elsewhere");
    let mut differs = |what: &str| {
        let now = inputs().unwrap();
        assert!(!seen.contains(&now), "{what}");
        seen.push(now);
    };
    fixture.write("src/deep/a.txt", "two\n");
    differs("content");
    executable(&fixture.path().join("src/deep/a.txt"));
    differs("mode");
    fixture.write("src/deep/.gitattributes", "*.txt eol=crlf\n");
    differs("attributes within");
    fixture.write(".gitattributes", "*.txt text\n");
    differs("attributes of the root");
    fixture.write("src/.gitattributes", "*.txt ident\n");
    differs("attributes of the context");
    fixture.write(".git/info/attributes", "*.txt -text\n");
    differs("attributes of the repository");
    fixture.git(&["config", "core.autocrlf", "true"]);
    differs("settings");
    fixture.git(&["config", "--unset", "core.autocrlf"]);
    fixture.git(&["config", "core.symlinks", "false"]);
    differs("whether symlinks are made");
    fixture.git(&["config", "--unset", "core.symlinks"]);
    fixture.write(".gitmodules", "");
    assert_eq!(inputs(), None, "a submodule has settings of its own");
    std::fs::remove_file(fixture.path().join(".gitmodules")).unwrap();
    std::fs::rename(
        fixture.path().join("src/deep"),
        fixture.path().join("src/there"),
    )
    .unwrap();
    std::os::unix::fs::symlink("there", fixture.path().join("src/deep")).unwrap();
    assert_eq!(inputs(), None, "a symlink leads elsewhere");
}
