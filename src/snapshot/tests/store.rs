//! The store: names only for whole layers, folds, left-overs.

use super::*;
use crate::snapshot::{SnapshotError, fold_length};

/// A layer with a file of its own and one that all layers write.
fn numbered(number: usize) -> Layer {
    Layer::build(|builder| {
        builder
            .append(&entry("d", EntryKind::Directory), None)
            .unwrap();
        file(builder, &format!("d/{number:03}"), &number.to_string());
        file(builder, "last", &number.to_string());
        if number % 7 == 6 {
            let gone = format!("x/{:03}", number - 1);
            builder
                .append(&entry("x", EntryKind::Directory), None)
                .unwrap();
            builder
                .append(&entry(&gone, EntryKind::Whiteout), None)
                .unwrap();
        } else {
            builder
                .append(&entry("x", EntryKind::Directory), None)
                .unwrap();
            if number == 200 {
                builder
                    .append(&entry("x", EntryKind::Opaque), None)
                    .unwrap();
            }
            file(builder, &format!("x/{number:03}"), "x");
        }
    })
}

#[test]
fn a_long_chain_is_folded() {
    as_root(|dir| {
        let store = snapshots(dir);
        let layers: Vec<Layer> = (0..300).map(numbered).collect();
        let mut ids = Vec::new();
        for layer in &layers {
            layer.unpack(&store);
            ids.push(layer.diff_id);
        }
        let lowers = store.lower_dirs(&ids).unwrap();
        assert_eq!(lowers.len(), 51);
        let mounted = mount(&dir.join("mnt"), &lowers, None);
        let mut names: Vec<_> = list(&mounted.0.join("x"), false).into_keys().collect();
        names.retain(|name| !name.is_root());
        let expected: Vec<_> = (200..300)
            .filter(|n| n % 7 != 6 && n % 7 != 5)
            .chain([299])
            .map(|n| LayerPath::new(format!("{n:03}")).unwrap())
            .collect();
        assert_eq!(names, expected);
        assert_eq!(std::fs::read_dir(mounted.0.join("d")).unwrap().count(), 300);
        assert_eq!(std::fs::read(mounted.0.join("last")).unwrap(), b"299");
        drop(mounted);
        assert_eq!(store.lower_dirs(&ids).unwrap(), lowers);
        // The next step shares the fold.
        assert_eq!(store.lower_dirs(&ids[..299]).unwrap().len(), 100);
        assert_eq!(store.list().unwrap().len(), 302);
    });
}

#[test]
fn folds_leave_between_fifty_and_a_hundred_layers() {
    assert_eq!(fold_length(100), 0);
    for length in 101..2000 {
        let dirs = length - fold_length(length) + 1;
        assert!((51..=100).contains(&dirs), "{length}: {dirs}");
    }
}

#[test]
fn the_attributes_of_undescribed_directories_come_from_below() {
    as_root(|dir| {
        let store = snapshots(dir);
        let base = Layer::build(|builder| {
            let mut tmp = entry("tmp", EntryKind::Directory);
            tmp.mode = 0o1777;
            tmp.gid = 3;
            builder.append(&tmp, None).unwrap();
        });
        let over = Layer::build(|builder| file(builder, "tmp/f", "f"));
        base.unpack(&store);
        over.unpack(&store);
        let lowers = store.lower_dirs(&[base.diff_id, over.diff_id]).unwrap();
        let mounted = mount(&dir.join("mnt"), &lowers, None);
        let metadata = std::fs::metadata(mounted.0.join("tmp")).unwrap();
        assert_eq!((metadata.mode() & 0o7777, metadata.gid()), (0o1777, 3));
        assert!(mounted.0.join("tmp/f").exists());
    });
}

#[test]
fn an_opaque_root_cuts_the_chain() {
    as_root(|dir| {
        let store = snapshots(dir);
        let base = Layer::build(|builder| file(builder, "below", "b"));
        let over = Layer::build(|builder| {
            builder
                .append(&entry("", EntryKind::Directory), None)
                .unwrap();
            builder.append(&entry("", EntryKind::Opaque), None).unwrap();
            file(builder, "above", "a");
        });
        base.unpack(&store);
        over.unpack(&store);
        let lowers = store.lower_dirs(&[base.diff_id, over.diff_id]).unwrap();
        assert_eq!(lowers, [store.layer(&over.diff_id).join("fs")]);
        assert!(store.lower_dirs(&[]).unwrap()[0].ends_with("empty"));
    });
}

#[test]
fn a_tar_with_another_digest_leaves_nothing() {
    as_root(|dir| {
        let store = snapshots(dir);
        let (right, wrong) = (numbered(1), numbered(2));
        let result = store.unpack(&right.diff_id, &mut wrong.tar.as_slice(), &mut |_| {});
        assert!(
            matches!(result, Err(SnapshotError::DiffId { .. })),
            "{result:?}"
        );
        let truncated = &right.tar[..right.tar.len() / 2];
        let result = store.unpack(&right.diff_id, &mut { truncated }, &mut |_| {});
        assert!(result.is_err());
        assert!(!store.contains(&right.diff_id));
        assert_eq!(std::fs::read_dir(dir.join("root/work")).unwrap().count(), 0);
        let result = store.lower_dirs(&[right.diff_id]);
        assert!(
            matches!(result, Err(SnapshotError::Missing { .. })),
            "{result:?}"
        );
    });
}

#[test]
fn several_unpack_the_same_layer_at_once() {
    as_root(|dir| {
        let store = snapshots(dir);
        let layer = numbered(3);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| layer.unpack(&store));
            }
        });
        assert!(store.contains(&layer.diff_id));
        assert_eq!(store.list().unwrap().len(), 1);
        assert_eq!(std::fs::read_dir(dir.join("root/work")).unwrap().count(), 0);
        let id = store.list().unwrap()[0].id.clone();
        store.remove(&id).unwrap();
        store.remove(&id).unwrap();
        store.remove("../../etc").unwrap();
        assert!(!store.contains(&layer.diff_id));
        assert_eq!(std::fs::read_dir(dir.join("root/work")).unwrap().count(), 0);
    });
}

#[test]
fn what_killed_processes_left_is_swept() {
    as_root(|dir| {
        let store = snapshots(dir);
        let work = store.work_dir(&Tree::new(Vec::new())).unwrap();
        let left = dir.join("root/work/0123abcd");
        std::fs::create_dir(&left).unwrap();
        std::fs::write(left.join("f"), "f").unwrap();
        std::fs::write(dir.join("root/work/4567cdef.lock"), "").unwrap();
        let store = snapshots(dir);
        assert!(!left.exists());
        assert!(work.upper.exists(), "its owner lives");
        assert_eq!(std::fs::read_dir(dir.join("root/work")).unwrap().count(), 2);
        drop(work);
        assert_eq!(std::fs::read_dir(dir.join("root/work")).unwrap().count(), 0);
        drop(store);
    });
}

#[test]
fn noise_and_mount_points_are_left_out() {
    as_root(|dir| {
        let store = snapshots(&dir.join("store"));
        let base = step(&store, dir, &[], |root| {
            std::fs::create_dir_all(root.join("var/log")).unwrap();
            std::fs::write(root.join("var/log/dpkg.log"), "old").unwrap();
            std::fs::write(root.join("var/log/app.log"), "old").unwrap();
            std::fs::create_dir(root.join("etc")).unwrap();
        });
        assert!(base.summary().iter().all(|line| !line.contains("dpkg.log")));
        let lower = Tree::new(vec![base.index.clone()]);
        let work = store.work_dir(&lower).unwrap();
        let lowers = store.lower_dirs(&[base.diff_id]).unwrap();
        let mounted = mount(&dir.join("mnt"), &lowers, Some(&work));
        let root = &mounted.0;
        std::fs::write(root.join("var/log/dpkg.log"), "new").unwrap();
        std::fs::create_dir_all(root.join("run/secrets")).unwrap();
        std::fs::create_dir_all(root.join("mnt/used")).unwrap();
        std::fs::write(root.join("mnt/used/f"), "kept").unwrap();
        std::fs::write(root.join("etc/resolv.conf"), "").unwrap();
        std::fs::write(root.join("etc/hosts"), "written to").unwrap();
        drop(mounted);
        let mut options = options();
        options.stubs = [
            "run",
            "run/secrets",
            "mnt",
            "mnt/used",
            "etc/resolv.conf",
            "etc/hosts",
        ]
        .map(|path| LayerPath::new(path).unwrap())
        .to_vec();
        let mut paths = Vec::new();
        let summary = store
            .diff(&work, &lower, &options, &mut |entry, _| {
                paths.push(entry.path.to_string());
                Ok(())
            })
            .unwrap();
        assert_eq!(
            paths,
            ["/etc", "/etc/hosts", "/mnt", "/mnt/used", "/mnt/used/f"]
        );
        assert_eq!(summary.entries, 5);
    });
}

#[test]
fn noise_can_be_kept() {
    as_root(|dir| {
        let store = snapshots(&dir.join("store"));
        let lower = Tree::new(Vec::new());
        let work = store.work_dir(&lower).unwrap();
        std::fs::create_dir_all(work.upper.join("var/log")).unwrap();
        std::fs::write(work.upper.join("var/log/dpkg.log"), "log").unwrap();
        let mut options = options();
        options.normalise = false;
        let mut last = None;
        store
            .diff(&work, &lower, &options, &mut |entry, _| {
                last = Some(entry.path.to_string());
                Ok(())
            })
            .unwrap();
        assert_eq!(last.as_deref(), Some("/var/log/dpkg.log"));
    });
}
