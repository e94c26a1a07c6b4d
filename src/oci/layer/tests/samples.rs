//! Entries, contents and layers to test with.

use std::{collections::BTreeMap, io::Read, path::PathBuf};

use proptest::{collection, prelude::*};

use crate::oci::layer::{
    BuiltLayer, Compression, Entry, EntryKind, LayerBuilder, LayerOptions, LayerPath, TarEntries,
};

pub(super) fn path(text: &str) -> LayerPath {
    LayerPath::new(text).unwrap()
}

pub(super) fn entry(at: &str, kind: EntryKind) -> Entry {
    let mode = match kind {
        EntryKind::Whiteout | EntryKind::Opaque => 0,
        EntryKind::Symlink { .. } => 0o777,
        EntryKind::Directory => 0o755,
        _ => 0o644,
    };
    Entry {
        path: path(at),
        kind,
        mode,
        uid: 0,
        gid: 0,
        mtime: 315_532_800,
        xattrs: BTreeMap::new(),
    }
}

pub(super) fn file(at: &str, size: usize) -> Entry {
    let size = size as u64;
    entry(at, EntryKind::Regular { size })
}

pub(super) fn symlink(at: &str, target: &str) -> Entry {
    let target = PathBuf::from(target);
    entry(at, EntryKind::Symlink { target })
}

/// Bytes without pattern, the same for the same seed.
pub(super) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

pub(super) type Items = Vec<(Entry, Vec<u8>)>;

pub(super) fn build_with(
    items: &Items,
    options: LayerOptions,
    threads: usize,
) -> (Vec<u8>, BuiltLayer) {
    let mut builder = LayerBuilder::with_threads(Vec::new(), options, threads);
    for (entry, content) in items {
        builder
            .append(entry, Some(&mut content.as_slice()))
            .unwrap();
    }
    builder.finish().unwrap()
}

pub(super) fn build(items: &Items) -> (Vec<u8>, BuiltLayer) {
    build_with(items, LayerOptions::default(), 2)
}

/// The uncompressed tar.
pub(super) fn tar_of(items: &Items) -> Vec<u8> {
    let options = LayerOptions {
        compression: Compression::None,
        level: None,
    };
    build_with(items, options, 1).0
}

pub(super) fn read_tar(tar: &[u8]) -> Items {
    let mut entries = TarEntries::new(tar);
    let mut items = Items::new();
    while let Some(mut item) = entries.next_entry().unwrap() {
        let mut content = Vec::new();
        item.read_to_end(&mut content).unwrap();
        items.push((item.entry, content));
    }
    items
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => "[a-e-]{1,2}",
        1 => "[a-zäß日 ]{1,40}",
        1 => "[a-z]{90,255}",
    ]
}

fn any_path() -> impl Strategy<Value = LayerPath> {
    collection::vec(name(), 1..4).prop_map(|names| path(&names.join("/")))
}

fn kind() -> impl Strategy<Value = EntryKind> {
    prop_oneof![
        Just(EntryKind::Directory),
        Just(EntryKind::Regular { size: 0 }),
        Just(EntryKind::Regular { size: 0 }),
        "[a-z./]{1,150}".prop_map(|target| EntryKind::Symlink {
            target: target.into()
        }),
        (0..0o7_777_777u32, 0..0o7_777_777u32)
            .prop_map(|(major, minor)| EntryKind::CharDevice { major, minor }),
        (0..10u32, 0..10u32).prop_map(|(major, minor)| EntryKind::BlockDevice { major, minor }),
        Just(EntryKind::Fifo),
        Just(EntryKind::Whiteout),
    ]
}

prop_compose! {
    fn any_entry()(
        path in any_path(),
        kind in kind(),
        mode in 0..0o10000u32,
        uid in prop_oneof![0..2000u32, any::<u32>()],
        gid in prop_oneof![0..2000u32, any::<u32>()],
        mtime in prop_oneof![0..2_000_000_000i64, any::<i64>()],
        xattrs in prop_oneof![
            3 => Just(BTreeMap::new()),
            1 => collection::btree_map(
                "(user|security)\\.[a-z]{1,9}",
                collection::vec(any::<u8>(), 0..30),
                0..3,
            ),
        ],
        content in collection::vec(any::<u8>(), 0..1500),
    ) -> (Entry, Vec<u8>) {
        let mut entry = Entry { path, kind, mode, uid, gid, mtime, xattrs };
        match &mut entry.kind {
            EntryKind::Regular { size } => {
                *size = content.len() as u64;
                return (entry, content);
            }
            EntryKind::Symlink { .. } => entry.mode = 0o777,
            EntryKind::Whiteout => {
                (entry.mode, entry.uid, entry.gid) = (0, 0, 0);
                entry.mtime = entry.mtime.clamp(0, 1 << 32);
                entry.xattrs.clear();
            }
            _ => {}
        }
        (entry, Vec::new())
    }
}

/// Layers in canonical order, with opaque marks and hard links in between.
pub(super) fn any_items() -> impl Strategy<Value = Items> {
    let item = (any_entry(), any::<u8>());
    collection::vec(item, 0..25).prop_map(|items| {
        let by_path: BTreeMap<_, _> = items
            .into_iter()
            .map(|((entry, content), extra)| (entry.path.clone(), (entry, content, extra)))
            .collect();
        let mut out = Items::new();
        for (_, (mut entry, content, extra)) in by_path {
            let earlier = out
                .iter()
                .rev()
                .find(|(e, _)| matches!(e.kind, EntryKind::Regular { .. }))
                .map(|(e, _)| e.path.clone());
            if let (EntryKind::Fifo, Some(target)) = (&entry.kind, earlier) {
                entry.kind = EntryKind::Hardlink { target };
            }
            let mark = (entry.kind == EntryKind::Directory && extra % 3 == 0)
                .then(|| self::entry(entry.path.as_path().to_str().unwrap(), EntryKind::Opaque));
            out.push((entry, content));
            out.extend(mark.map(|mark| (mark, Vec::new())));
        }
        out
    })
}
