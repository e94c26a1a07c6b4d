//! Random steps on a mounted overlay: the difference, applied to the lower layers, must
//! give the merged view; the normalised upper directory must equal the unpacked layer.

use std::{
    fs::{File, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::{
        fs::{DirBuilderExt, FileExt, FileTypeExt, OpenOptionsExt, PermissionsExt},
        net::UnixListener,
    },
};

use proptest::prelude::*;
use rustix::fs::{CWD, FileType, Mode, XattrFlags};

use super::*;

/// Something a step does to a path; acts that make no sense fail and change nothing.
#[derive(Debug, Clone)]
enum Act {
    Write { size: usize, fill: u8 },
    Append,
    OpenForWriting,
    Touch(i64),
    Sparse,
    MakeDir { mode: u32 },
    Remove,
    Recreate,
    Rename(String),
    Link(String),
    Symlink(String),
    Chmod(u32),
    ChmodBack,
    Chown(u32, u32),
    SetXattr(u8),
    RemoveXattr,
    SetCap,
    Fifo,
    Device,
    Socket,
}

fn path() -> impl Strategy<Value = String> {
    prop::collection::vec("[a-d]|a-b", 1..4).prop_map(|names| names.join("/"))
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (prop_oneof![Just(0usize), 1usize..9000], any::<u8>())
            .prop_map(|(size, fill)| Act::Write { size, fill }),
        2 => Just(Act::Append),
        3 => Just(Act::OpenForWriting),
        1 => (1_000_000i64..2_000_000).prop_map(Act::Touch),
        1 => Just(Act::Sparse),
        8 => prop_oneof![Just(0o755u32), Just(0o2775), Just(0o1777)]
            .prop_map(|mode| Act::MakeDir { mode }),
        4 => Just(Act::Remove),
        3 => Just(Act::Recreate),
        4 => path().prop_map(Act::Rename),
        4 => path().prop_map(Act::Link),
        2 => path().prop_map(Act::Symlink),
        2 => prop_oneof![Just(0o600u32), Just(0o4755), Just(0o777)].prop_map(Act::Chmod),
        1 => Just(Act::ChmodBack),
        2 => (0u32..3, 0u32..3).prop_map(|(uid, gid)| Act::Chown(uid, gid)),
        2 => any::<u8>().prop_map(Act::SetXattr),
        1 => Just(Act::RemoveXattr),
        1 => Just(Act::SetCap),
        1 => Just(Act::Fifo),
        1 => Just(Act::Device),
        1 => Just(Act::Socket),
    ]
}

fn acts() -> impl Strategy<Value = Vec<(String, Act)>> {
    // Acts on the root itself are rare and mostly impossible.
    let target = prop_oneof![30 => path(), 1 => Just(String::new())];
    prop::collection::vec((target, act()), 0..25)
}

fn perform(root: &Path, target: &str, act: &Act) -> io::Result<()> {
    let path = root.join(target);
    // Opening a pipe would wait for its other end.
    if std::fs::metadata(&path).is_ok_and(|metadata| metadata.file_type().is_fifo())
        && matches!(
            act,
            Act::Write { .. } | Act::Append | Act::OpenForWriting | Act::Touch(_) | Act::Sparse
        )
    {
        return Ok(());
    }
    let errno = |result: rustix::io::Result<()>| result.map_err(io::Error::from);
    match act {
        Act::Write { size, fill } => std::fs::write(&path, vec![*fill; *size]),
        Act::Append => OpenOptions::new()
            .append(true)
            .open(&path)?
            .write_all(b"more"),
        Act::OpenForWriting => OpenOptions::new().write(true).open(&path).map(drop),
        Act::Touch(seconds) => {
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(*seconds as u64);
            File::open(&path)?.set_modified(time)
        }
        Act::Sparse => {
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .open(&path)?;
            file.set_len(1 << 20)?;
            file.write_all_at(b"island", 300_000)
        }
        Act::MakeDir { mode } => {
            std::fs::DirBuilder::new().mode(0o755).create(&path)?;
            std::fs::set_permissions(&path, Permissions::from_mode(*mode))
        }
        Act::Remove => remove(&path),
        Act::Recreate => {
            remove(&path)?;
            std::fs::create_dir(&path)
        }
        Act::Rename(to) => std::fs::rename(&path, root.join(to)),
        Act::Link(to) => std::fs::hard_link(&path, root.join(to)),
        Act::Symlink(to) => std::os::unix::fs::symlink(to, &path),
        Act::Chmod(mode) => std::fs::set_permissions(&path, Permissions::from_mode(*mode)),
        Act::ChmodBack => {
            let mode = std::fs::metadata(&path)?.permissions();
            std::fs::set_permissions(&path, Permissions::from_mode(0o700))?;
            std::fs::set_permissions(&path, mode)
        }
        Act::Chown(uid, gid) => std::os::unix::fs::lchown(&path, Some(*uid), Some(*gid)),
        Act::SetXattr(value) => errno(rustix::fs::lsetxattr(
            &path,
            "user.test",
            &[*value],
            XattrFlags::empty(),
        )),
        Act::RemoveXattr => errno(rustix::fs::lremovexattr(&path, "user.test")),
        Act::SetCap => {
            let mut capability = vec![1, 0, 0, 2, 0, 4, 0, 0];
            capability.resize(20, 0);
            let flags = XattrFlags::empty();
            errno(rustix::fs::lsetxattr(
                &path,
                "security.capability",
                &capability,
                flags,
            ))
        }
        Act::Fifo => errno(rustix::fs::mknodat(
            CWD,
            &path,
            FileType::Fifo,
            Mode::from(0o640),
            0,
        )),
        Act::Device => {
            let device = rustix::fs::makedev(1, 3);
            let kind = FileType::CharacterDevice;
            errno(rustix::fs::mknodat(
                CWD,
                &path,
                kind,
                Mode::from(0o666),
                device,
            ))
        }
        Act::Socket => UnixListener::bind(&path).map(drop),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    if std::fs::symlink_metadata(path)?.is_dir() {
        std::fs::remove_dir_all(path)
    } else {
        std::fs::remove_file(path)
    }
}

/// Symlinks of the steps point inside the root file system only when relative: an act that
/// follows one must not leave the test.
fn perform_all(root: &Path, acts: &[(String, Act)]) {
    for (target, act) in acts {
        // Failures are part of the game.
        let _ = perform(root, target, act);
    }
}

fn check(dir: &Path, steps: &[Vec<(String, Act)>]) {
    let store = snapshots(&dir.join("store"));
    let fresh = snapshots(&dir.join("fresh"));
    let mut layers: Vec<Layer> = Vec::new();
    for (number, acts) in steps.iter().enumerate() {
        let chain: Vec<&Layer> = layers.iter().collect();
        let mut expected = Listing::new();
        let layer = step(&store, dir, &chain, |root| {
            perform_all(root, acts);
            expected = list(root, false);
        });
        layer.unpack(&fresh);
        let committed = store.layer(&layer.diff_id).join("fs");
        let unpacked = fresh.layer(&layer.diff_id).join("fs");
        assert_same(
            &format!(
                "step {number}: committed and unpacked, layer {:#?}",
                layer.summary()
            ),
            &list(&committed, true),
            &list(&unpacked, true),
        );
        layers.push(layer);
        let ids: Vec<_> = layers.iter().map(|layer| layer.diff_id).collect();
        let lowers = fresh.lower_dirs(&ids).unwrap();
        let tree = Tree::new(layers.iter().map(|layer| layer.index.clone()).collect());
        // A root's attributes come from the upper directory.
        let work = fresh.work_dir(&tree).unwrap();
        let mounted = mount(&dir.join("mnt"), &lowers, Some(&work));
        assert_same(
            &format!(
                "step {number}: merged views, layer {:#?}",
                layers[number].summary()
            ),
            &expected,
            &list(&mounted.0, false),
        );
        drop(mounted);
        // A step that does nothing changes nothing.
        let nothing = Layer::of_step(&fresh, &work, &tree);
        assert_eq!(nothing.summary(), Vec::<String>::new());
    }
}

/// Cases can be raised with `PROPTEST_CASES`.
fn config() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        max_shrink_iters: 2000,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]
    #[test]
    fn a_difference_is_exact(steps in prop::collection::vec(acts(), 1..5)) {
        as_root(|dir| check(dir, &steps));
    }
}

#[test]
fn an_overlay_form_is_what_the_kernel_makes() {
    as_root(|dir| {
        let store = snapshots(&dir.join("store"));
        let base = step(&store, dir, &[], |root| {
            std::fs::create_dir_all(root.join("d/sub")).unwrap();
            std::fs::write(root.join("d/sub/f"), "f").unwrap();
            std::fs::write(root.join("gone"), "x").unwrap();
            std::fs::write(root.join("same"), "same").unwrap();
        });
        let layer = step(&store, dir, &[&base], |root| {
            std::fs::remove_dir_all(root.join("d")).unwrap();
            std::fs::create_dir(root.join("d")).unwrap();
            std::fs::remove_file(root.join("gone")).unwrap();
            OpenOptions::new()
                .write(true)
                .open(root.join("same"))
                .unwrap();
            std::fs::hard_link(root.join("same"), root.join("link")).unwrap();
            OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(root.join("new"))
                .unwrap();
        });
        assert_eq!(
            layer.summary(),
            [
                "/d Directory",
                "/d Opaque",
                "/gone Whiteout",
                "/link Regular { size: 4 }",
                "/new Regular { size: 0 }",
                "/same Hardlink { target: \"/link\" }",
            ]
        );
        let fs = store.layer(&layer.diff_id).join("fs");
        let whiteout = std::fs::symlink_metadata(fs.join("gone")).unwrap();
        assert!(whiteout.file_type().is_char_device());
    });
}

#[test]
fn time_and_content_count_but_copying_up_does_not() {
    as_root(|dir| {
        let store = snapshots(&dir.join("store"));
        let names = ["nanoseconds", "opened", "rewritten", "same", "touched"];
        let base = step(&store, dir, &[], |root| {
            for name in names {
                std::fs::write(root.join(name), "content").unwrap();
            }
        });
        let layer = step(&store, dir, &[&base], |root| {
            let time = |nanoseconds| {
                std::time::UNIX_EPOCH + std::time::Duration::new(1_600_000_000, nanoseconds)
            };
            let set = |name: &str, time| {
                let file = OpenOptions::new()
                    .write(true)
                    .open(root.join(name))
                    .unwrap();
                file.set_modified(time).unwrap();
            };
            set("nanoseconds", time(1));
            set("touched", std::time::SystemTime::now());
            OpenOptions::new()
                .write(true)
                .open(root.join("opened"))
                .unwrap();
            // Only the content tells these from what they were.
            std::fs::write(root.join("same"), "content").unwrap();
            set("same", time(0));
            std::fs::write(root.join("rewritten"), "CONTENT").unwrap();
            set("rewritten", time(0));
        });
        assert_eq!(MTIME, 1_600_000_000);
        let changed = ["nanoseconds", "rewritten", "touched"];
        assert_eq!(
            layer.summary(),
            changed.map(|name| format!("/{name} Regular {{ size: 7 }}"))
        );
    });
}
