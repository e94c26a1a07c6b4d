//! Directories are written whole, merged as BuildKit does it, and nothing is written elsewhere.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    path::{Path, PathBuf},
};

use super::*;
use crate::oci::layer::EntryKind;

fn path(text: &str) -> LayerPath {
    LayerPath::new(text).unwrap()
}

fn entry(at: &str, kind: EntryKind, mode: u32) -> Entry {
    Entry {
        path: path(at),
        kind,
        mode,
        uid: 4321,
        gid: 4321,
        mtime: 1_000_000,
        xattrs: BTreeMap::new(),
    }
}

/// Writes entries to `dest`: `NAME/`, `NAME=CONTENT`, `NAME->TARGET`, `NAME=>LINKED`.
fn write(dest: &Path, entries: &[&str], delete: bool) -> Result<(), ExportError> {
    let mut writer = Writer::create(dest)?;
    append(&mut writer, entries)?;
    writer.finish(delete)
}

fn append(writer: &mut Writer, entries: &[&str]) -> Result<(), ExportError> {
    for text in entries {
        if let Some((name, target)) = text.split_once("->") {
            let target = PathBuf::from(target);
            writer.append(&entry(name, EntryKind::Symlink { target }, 0o777), None)?;
        } else if let Some((name, target)) = text.split_once("=>") {
            let target = path(target);
            writer.append(&entry(name, EntryKind::Hardlink { target }, 0o640), None)?;
        } else if let Some((name, content)) = text.split_once('=') {
            let size = content.len() as u64;
            let regular = entry(name, EntryKind::Regular { size }, 0o640);
            writer.append(&regular, Some(&mut content.as_bytes()))?;
        } else {
            writer.append(&entry(text, EntryKind::Directory, 0o755), None)?;
        }
    }
    Ok(())
}

/// All paths below `dir`, each with its content, target, or nothing.
fn listing(dir: &Path) -> Vec<String> {
    let mut list = Vec::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(at) = todo.pop() {
        for item in fs::read_dir(&at).unwrap() {
            let path = item.unwrap().path();
            let name = path.strip_prefix(dir).unwrap().display().to_string();
            let meta = fs::symlink_metadata(&path).unwrap();
            if meta.is_dir() {
                list.push(format!("{name}/"));
                todo.push(path);
            } else if meta.is_symlink() {
                let target = fs::read_link(&path).unwrap();
                list.push(format!("{name}->{}", target.display()));
            } else {
                list.push(format!("{name}={}", fs::read_to_string(&path).unwrap()));
            }
        }
    }
    list.sort();
    list
}

#[test]
fn a_new_directory_has_what_the_image_has() {
    let dir = tempfile::tempdir().unwrap();
    let dest = dir.path().join("some/where/out");
    let entries = ["a/", "a/f=one", "a/g=>a/f", "a/s->../../etc", "b/"];
    write(&dest, &entries, false).unwrap();
    assert_eq!(
        listing(&dest),
        ["a/", "a/f=one", "a/g=one", "a/s->../../etc", "b/"]
    );
    let meta = |name: &str| fs::symlink_metadata(dest.join(name)).unwrap();
    assert_eq!(meta("a/f").ino(), meta("a/g").ino());
    assert_eq!(meta("a/f").mode() & 0o7777, 0o640);
    assert_eq!(meta("a").mode() & 0o7777, 0o755);
    assert_eq!(meta("").mode() & 0o700, 0o700);
    for name in ["a", "a/f", "a/s", "b"] {
        assert_eq!(meta(name).mtime(), 1_000_000, "{name}");
        assert_eq!(meta(name).uid(), rustix::process::geteuid().as_raw());
    }
    assert_eq!(fs::read_dir(dest.parent().unwrap()).unwrap().count(), 1);
}

#[test]
fn what_is_there_stays_and_kinds_replace_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let dest = dir.path();
    fs::create_dir_all(dest.join("file/was/a/directory")).unwrap();
    fs::create_dir(dest.join("merged")).unwrap();
    fs::write(dest.join("merged/old"), "old").unwrap();
    fs::write(dest.join("merged/both"), "old").unwrap();
    fs::write(dest.join("directory"), "was a file").unwrap();
    fs::write(dest.join("kept"), "kept").unwrap();
    let entries = [
        "directory/",
        "directory/x=x",
        "file=f",
        "merged/",
        "merged/both=new",
    ];
    write(dest, &entries, false).unwrap();
    let merged = [
        "directory/",
        "directory/x=x",
        "file=f",
        "kept=kept",
        "merged/",
        "merged/both=new",
        "merged/old=old",
    ];
    assert_eq!(listing(dest), merged);
    assert_eq!(
        fs::metadata(dest.join("merged")).unwrap().mtime(),
        1_000_000
    );
    write(dest, &entries, true).unwrap();
    let exact = [
        "directory/",
        "directory/x=x",
        "file=f",
        "merged/",
        "merged/both=new",
    ];
    assert_eq!(listing(dest), exact);
}

#[test]
fn symlinks_in_the_destination_lead_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let (dest, outside) = (dir.path().join("out"), dir.path().join("outside"));
    fs::create_dir_all(outside.join("deep")).unwrap();
    fs::write(outside.join("deep/victim"), "safe").unwrap();
    // As an earlier image may have left them.
    write(
        &dest,
        &["a->../outside", "b->../outside/deep/victim"],
        false,
    )
    .unwrap();
    symlink(&outside, dest.join("c")).unwrap();
    let entries = [
        "a/",
        "a/deep/",
        "a/deep/victim=evil",
        "b=evil",
        "c/",
        "c/new=new",
    ];
    for delete in [false, true] {
        write(&dest, &entries, delete).unwrap();
        assert_eq!(listing(&outside), ["deep/", "deep/victim=safe"]);
        assert_eq!(
            listing(&dest),
            [
                "a/",
                "a/deep/",
                "a/deep/victim=evil",
                "b=evil",
                "c/",
                "c/new=new"
            ]
        );
        fs::remove_dir_all(dest.join("c")).unwrap();
        symlink(&outside, dest.join("c")).unwrap();
    }
    // Deleting removes a symlink, not what it names.
    write(&dest, &["b=evil"], true).unwrap();
    assert_eq!(listing(&dest), ["b=evil"]);
    assert_eq!(listing(&outside), ["deep/", "deep/victim=safe"]);
}

#[test]
fn directories_that_deny_writing_can_be_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let dest = dir.path().join("out");
    for content in ["one", "two"] {
        let mut writer = Writer::create(&dest).unwrap();
        let closed = entry("d", EntryKind::Directory, 0o555);
        writer.append(&closed, None).unwrap();
        append(&mut writer, &[&format!("d/f={content}")]).unwrap();
        writer.finish(false).unwrap();
        let mode = fs::metadata(dest.join("d")).unwrap().mode();
        assert_eq!(mode & 0o7777, 0o555);
        assert_eq!(listing(&dest), ["d/".to_owned(), format!("d/f={content}")]);
    }
    fs::set_permissions(dest.join("d"), fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn what_ends_early_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (new, old) = (dir.path().join("new"), dir.path().join("old"));
    fs::create_dir(&old).unwrap();
    fs::write(old.join("f"), "old").unwrap();
    for dest in [&new, &old] {
        let mut writer = Writer::create(dest).unwrap();
        append(&mut writer, &["f=new", "g/"]).unwrap();
        drop(writer);
    }
    assert_eq!(listing(dir.path()), ["old/", "old/f=old"]);
    assert!(matches!(
        Writer::create(&old.join("f")),
        Err(ExportError::NotADirectory { .. })
    ));
}

#[test]
fn a_path_may_be_deep_but_not_endless() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::create(&dir.path().join("out")).unwrap();
    let mut name = String::new();
    for _ in 0..MAX_DEPTH {
        name.push_str("d/");
        append(&mut writer, &[&name]).unwrap();
    }
    name.push('d');
    assert!(matches!(
        append(&mut writer, &[&name]),
        Err(ExportError::TooDeep { .. })
    ));
}
