//! What changes the keys of selections and plans, and what doesn't.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    time::SystemTime,
};

use super::*;
use crate::{context, engine::files::select, graph::LocalContext, key::CacheKey};

/// The key of what `COPY d x* /` selects from the directory.
fn selected(dir: &Path) -> CacheKey {
    let local = LocalContext {
        name: "context".to_owned(),
        dir: dir.to_owned(),
        ignore: "*.log\n".to_owned(),
    };
    let scanned = context::scan(&local, &[LayerPath::ROOT], None).unwrap();
    let source = source(Arc::new(Tree::new(vec![Arc::new(scanned.index)])));
    let copy = copy(&["d", "x*"], "/");
    select(&source, &copy).unwrap().key(&source)
}

/// A change of a directory, and its name.
type Change = (&'static str, fn(&Path));

fn context() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("d/sub")).unwrap();
    for name in ["d/f", "d/sub/g", "x1", "unused"] {
        fs::write(dir.path().join(name), name).unwrap();
    }
    symlink("f", dir.path().join("d/l")).unwrap();
    dir
}

#[test]
fn what_is_selected_changes_the_key() {
    let changes: &[Change] = &[
        ("nothing", |_| ()),
        ("content", |dir| fs::write(dir.join("d/f"), "F/d").unwrap()),
        ("content to nothing", |dir| {
            fs::write(dir.join("d/f"), "").unwrap()
        }),
        ("a path", |dir| {
            fs::rename(dir.join("d/f"), dir.join("d/e")).unwrap()
        }),
        ("a match's name", |dir| {
            fs::rename(dir.join("x1"), dir.join("x2")).unwrap()
        }),
        ("a file more", |dir| fs::write(dir.join("d/n"), "").unwrap()),
        ("a directory more", |dir| {
            fs::create_dir(dir.join("d/n")).unwrap()
        }),
        ("a match more", |dir| {
            fs::write(dir.join("x2"), "x1").unwrap()
        }),
        ("a file less", |dir| {
            fs::remove_file(dir.join("d/sub/g")).unwrap()
        }),
        ("the executable bit", |dir| {
            fs::set_permissions(dir.join("d/f"), Permissions::from_mode(0o755)).unwrap();
        }),
        ("a symlink's target", |dir| {
            fs::remove_file(dir.join("d/l")).unwrap();
            symlink("sub", dir.join("d/l")).unwrap();
        }),
        ("a file for a symlink", |dir| {
            fs::remove_file(dir.join("d/l")).unwrap();
            fs::write(dir.join("d/l"), "f").unwrap();
        }),
        ("a directory for a file", |dir| {
            fs::remove_file(dir.join("d/f")).unwrap();
            fs::create_dir(dir.join("d/f")).unwrap();
        }),
    ];
    let mut seen = std::collections::BTreeMap::new();
    for (name, change) in changes {
        let dir = context();
        change(dir.path());
        if let Some(other) = seen.insert(selected(dir.path()), name) {
            panic!("`{name}` has the key of `{other}`");
        }
    }
}

#[test]
fn what_git_does_not_keep_changes_nothing() {
    let plain = context();
    let changes: &[Change] = &[
        ("another directory", |_| ()),
        ("times", |dir| {
            for name in ["d/f", "d/sub", "x1"] {
                let file = fs::File::open(dir.join(name)).unwrap();
                file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
            }
        }),
        ("permissions", |dir| {
            for (name, mode) in [("d/f", 0o600), ("d/sub", 0o700), ("x1", 0o666)] {
                fs::set_permissions(dir.join(name), Permissions::from_mode(mode)).unwrap();
            }
        }),
        ("other files", |dir| {
            fs::write(dir.join("unused"), "x").unwrap()
        }),
        ("ignored files", |dir| {
            fs::write(dir.join("x.log"), "x").unwrap()
        }),
        ("sockets", |dir| {
            std::os::unix::net::UnixListener::bind(dir.join("d/socket")).unwrap();
        }),
    ];
    for (name, change) in changes {
        let dir = context();
        change(dir.path());
        assert_eq!(selected(dir.path()), selected(plain.path()), "{name}");
    }
}

#[test]
fn everything_in_a_plan_changes_its_key() {
    let file = |f: fn(&mut Plan)| {
        let stage = ["d/ @755 1 2", "d/f @644 1 2", "d/h => d/f", "d/l -> f"];
        let op = op(vec![FileAction::Copy(copy(&["."], "/"))]);
        let mut plan = plan(&op, &tree(&[]), &[Some(source(tree(&stage)))]).unwrap();
        assert_eq!(plan.entries.len(), 4);
        f(&mut plan);
        plan.key()
    };
    fn kind(plan: &mut Plan, n: usize, kind: EntryKind) {
        plan.entries[n].entry.kind = kind;
    }
    let keys = [
        file(|_| ()),
        file(|p| p.entries[1].entry.path = LayerPath::new("d/g").unwrap()),
        file(|p| p.entries[1].entry.mode = 0o600),
        file(|p| p.entries[1].entry.uid = 9),
        file(|p| p.entries[1].entry.gid = 9),
        file(|p| p.entries[1].entry.mtime = 9),
        file(|p| {
            drop(
                p.entries[1]
                    .entry
                    .xattrs
                    .insert("user.a".into(), b"1".into()),
            )
        }),
        file(|p| {
            drop(
                p.entries[1]
                    .entry
                    .xattrs
                    .insert("user.a".into(), b"2".into()),
            )
        }),
        file(|p| p.entries[1].content = Content::Bytes(b"d/g"[..].into())),
        file(|p| drop(p.entries.pop())),
        file(|p| kind(p, 3, EntryKind::Symlink { target: "g".into() })),
        file(|p| kind(p, 3, EntryKind::Fifo)),
        file(|p| kind(p, 3, EntryKind::Whiteout)),
        file(|p| kind(p, 3, EntryKind::CharDevice { major: 1, minor: 2 })),
        file(|p| kind(p, 3, EntryKind::BlockDevice { major: 1, minor: 2 })),
        file(|p| {
            kind(
                p,
                3,
                EntryKind::CharDevice {
                    major: 12,
                    minor: 0,
                },
            )
        }),
        file(|p| {
            kind(
                p,
                2,
                EntryKind::Hardlink {
                    target: LayerPath::new("d/l").unwrap(),
                },
            )
        }),
    ];
    let distinct: std::collections::BTreeSet<_> = keys.iter().collect();
    assert_eq!(distinct.len(), keys.len());
    // Where the bytes come from is nothing to it.
    let same = file(|p| p.entries[1].content = Content::Bytes(b"d/f"[..].into()));
    assert_eq!(same, keys[0]);
}
