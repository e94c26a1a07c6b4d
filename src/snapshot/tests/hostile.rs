//! Layers that try to write outside, and layers that can't be unpacked.

use super::*;
use crate::snapshot::{SnapshotError, meta::Meta, unpack::Unpacker};

/// Applies entries one by one, as they would come from a tar that no builder wrote.
fn unpack(dir: &Path, flavour: Flavour, entries: &[Entry]) -> Result<Meta, SnapshotError> {
    let root = dir.join("root");
    std::fs::create_dir(&root).unwrap();
    let mut unpacker = Unpacker::new(&root, flavour).unwrap();
    for entry in entries {
        unpacker.apply(entry, &mut &b"evil"[..])?;
    }
    unpacker.finish()
}

fn symlink(path: &str, target: &str) -> Entry {
    let target = PathBuf::from(target);
    entry(path, EntryKind::Symlink { target })
}

fn regular(path: &str) -> Entry {
    entry(path, EntryKind::Regular { size: 4 })
}

fn hard_link(path: &str, target: &str) -> Entry {
    let target = LayerPath::new(target).unwrap();
    entry(path, EntryKind::Hardlink { target })
}

#[test]
fn nothing_is_written_through_a_symlink() {
    as_root(|dir| {
        let outside = dir.join("outside");
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("victim"), "good").unwrap();
        let absolute = outside.display().to_string();
        for target in [absolute.as_str(), "../outside", "../outside/../outside"] {
            for attack in [
                regular("link/new"),
                regular("link/victim"),
                entry("link/dir", EntryKind::Directory),
                entry("link/victim", EntryKind::Whiteout),
                entry("link", EntryKind::Opaque),
                entry("link/fifo", EntryKind::Fifo),
                symlink("link/symlink", "/"),
                hard_link("copy", "link/victim"),
            ] {
                let result = unpack(dir, Flavour::Root, &[symlink("link", target), attack]);
                assert!(
                    matches!(
                        result,
                        Err(SnapshotError::NotADirectory { .. }
                            | SnapshotError::HardLinkTarget { .. })
                    ),
                    "{result:?}"
                );
                std::fs::remove_dir_all(dir.join("root")).unwrap();
            }
        }
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1);
        assert_eq!(std::fs::read(outside.join("victim")).unwrap(), b"good");
    });
}

#[test]
fn a_file_in_place_of_a_symlink_leaves_its_target_alone() {
    as_root(|dir| {
        let victim = dir.join("victim");
        std::fs::write(&victim, "good").unwrap();
        let target = victim.display().to_string();
        unpack(dir, Flavour::Root, &[symlink("f", &target), regular("f")]).unwrap();
        assert_eq!(std::fs::read(&victim).unwrap(), b"good");
        assert_eq!(std::fs::read(dir.join("root/f")).unwrap(), b"evil");
    });
}

#[test]
fn a_directory_in_place_of_a_symlink_is_inside() {
    as_root(|dir| {
        let entries = [
            symlink("d", "/"),
            entry("d", EntryKind::Directory),
            regular("d/planted-by-a-test"),
            // And the other way round, with something in the directory.
            symlink("d", "/"),
        ];
        unpack(dir, Flavour::Root, &entries).unwrap();
        assert!(
            std::fs::symlink_metadata(dir.join("root/d"))
                .unwrap()
                .is_symlink()
        );
        assert!(!Path::new("/planted-by-a-test").exists());
    });
}

#[test]
fn overlayfs_attributes_and_whiteout_devices_are_refused() {
    as_root(|dir| {
        let mut marked = entry("d", EntryKind::Directory);
        for name in [
            "trusted.overlay.opaque",
            "trusted.overlay.redirect",
            "user.overlay.opaque",
        ] {
            marked.xattrs.insert(name.to_owned(), b"y".to_vec());
        }
        marked.xattrs.insert("user.fine".to_owned(), b"1".to_vec());
        unpack(dir, Flavour::Root, &[marked]).unwrap();
        let listing = list(&dir.join("root"), true);
        let text = &listing[&LayerPath::new("d").unwrap()];
        assert!(
            text.contains("user.fine") && !text.contains("overlay"),
            "{text}"
        );
        std::fs::remove_dir_all(dir.join("root")).unwrap();

        let device = entry("x", EntryKind::CharDevice { major: 0, minor: 0 });
        let result = unpack(dir, Flavour::Root, &[device]);
        assert!(
            matches!(result, Err(SnapshotError::Device { .. })),
            "{result:?}"
        );
        std::fs::remove_dir_all(dir.join("root")).unwrap();

        let device = entry("x", EntryKind::BlockDevice { major: 8, minor: 0 });
        let result = unpack(dir, Flavour::User, &[device]);
        assert!(
            matches!(result, Err(SnapshotError::Device { .. })),
            "{result:?}"
        );
    });
}

#[test]
fn a_hard_link_needs_its_target_in_the_layer() {
    as_root(|dir| {
        let whiteout = entry("w", EntryKind::Whiteout);
        for target in ["missing", "w", ""] {
            let result = unpack(
                dir,
                Flavour::Root,
                &[whiteout.clone(), hard_link("l", target)],
            );
            assert!(
                matches!(result, Err(SnapshotError::HardLinkTarget { .. })),
                "{result:?}"
            );
            std::fs::remove_dir_all(dir.join("root")).unwrap();
        }
        let entries = [regular("f"), hard_link("f", "f"), hard_link("l", "f")];
        unpack(dir, Flavour::Root, &entries).unwrap();
        assert_eq!(std::fs::metadata(dir.join("root/l")).unwrap().nlink(), 2);
    });
}

#[test]
fn order_and_umask_do_not_matter() {
    as_root(|dir| {
        let mut default_acl = entry("d", EntryKind::Directory);
        default_acl.mode = 0o2775;
        default_acl.gid = 7;
        // Version 2: user rwx, group rwx, mask rwx, other r-x, and user 5 rwx.
        let mut acl = vec![2, 0, 0, 0];
        for (tag, permissions, id) in [
            (1u16, 7u16, -1i32),
            (2, 7, 5),
            (4, 7, -1),
            (16, 7, -1),
            (32, 5, -1),
        ] {
            acl.extend(tag.to_le_bytes());
            acl.extend(permissions.to_le_bytes());
            acl.extend(id.to_le_bytes());
        }
        default_acl
            .xattrs
            .insert("system.posix_acl_default".to_owned(), acl);
        let child = regular("d/e/f");
        let mut listings = Vec::new();
        for entries in [
            vec![default_acl.clone(), child.clone()],
            vec![child.clone(), default_acl.clone()],
        ] {
            let old = rustix::process::umask(rustix::fs::Mode::from(0o077));
            let meta = unpack(dir, Flavour::Root, &entries).unwrap();
            rustix::process::umask(old);
            assert_eq!(meta.implicit, [LayerPath::new("d/e").unwrap()]);
            listings.push(list(&dir.join("root"), true));
            std::fs::remove_dir_all(dir.join("root")).unwrap();
        }
        assert_same("orders", &listings[0], &listings[1]);
        let text = &listings[0][&LayerPath::new("d/e/f").unwrap()];
        assert!(
            text.starts_with("100644 0:0") && !text.contains("acl"),
            "{text}"
        );
    });
}

#[test]
fn a_whiteout_beside_its_own_path_hides_lower_layers_only() {
    as_root(|dir| {
        let directory = entry("d", EntryKind::Directory);
        let whiteout = entry("d", EntryKind::Whiteout);
        let child = regular("d/f");
        for entries in [
            vec![directory.clone(), child.clone(), whiteout.clone()],
            vec![whiteout.clone(), directory, child.clone()],
            vec![whiteout, child],
        ] {
            unpack(dir, Flavour::Root, &entries).unwrap();
            let listing = list(&dir.join("root"), true);
            assert!(listing[&LayerPath::new("d").unwrap()].contains("trusted.overlay.opaque"));
            assert!(listing.contains_key(&LayerPath::new("d/f").unwrap()));
            std::fs::remove_dir_all(dir.join("root")).unwrap();
        }
    });
}

#[test]
fn too_deep_is_an_error() {
    as_root(|dir| {
        let path = vec!["d"; 600].join("/");
        let result = unpack(dir, Flavour::Root, &[regular(&path)]);
        assert!(
            matches!(result, Err(SnapshotError::TooDeep { .. })),
            "{result:?}"
        );
    });
}
