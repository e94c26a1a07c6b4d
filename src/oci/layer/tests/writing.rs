//! The canonical tar and its frames.

use std::io::{Read, Write};

use proptest::prelude::*;

use super::samples::*;
use crate::{
    digest::Sha256Digest,
    oci::layer::{
        Compression, EntryKind, LayerBuilder, LayerError, LayerOptions, decompress, scan,
    },
};

const ALL: [Compression; 3] = [Compression::None, Compression::Gzip, Compression::Zstd];

fn options(compression: Compression) -> LayerOptions {
    LayerOptions {
        compression,
        level: None,
    }
}

proptest! {
    #[test]
    fn entries_come_back_from_the_tar(items in any_items()) {
        let tar = tar_of(&items);
        prop_assert_eq!(tar.len() % 512, 0);
        let read = read_tar(&tar);
        prop_assert_eq!(&read, &items);
        prop_assert_eq!(tar_of(&read), tar);
    }

    #[test]
    fn blobs_decompress_to_the_same_tar_and_scan_to_the_same_index(items in any_items()) {
        let tar = tar_of(&items);
        for compression in ALL {
            let (blob, layer) = build_with(&items, options(compression), 2);
            let mut read = Vec::new();
            decompress(blob.as_slice(), &layer.media_type).unwrap().read_to_end(&mut read).unwrap();
            prop_assert_eq!(&read, &tar);
            prop_assert_eq!(layer.diff_id.0, Sha256Digest::of(&tar));
            prop_assert_eq!(layer.digest, Sha256Digest::of(&blob));
            prop_assert_eq!(layer.tar_size, tar.len() as u64);
            let scanned = scan(blob.as_slice(), &layer.media_type).unwrap();
            prop_assert_eq!(scanned.index, layer.index);
            prop_assert_eq!(scanned.digest, layer.digest);
            prop_assert_eq!(scanned.size, blob.len() as u64);
        }
    }

    #[test]
    fn the_tar_crate_reads_what_we_write(mut items in any_items()) {
        // The crate ends a record at any newline in it.
        for (entry, _) in &mut items {
            entry.xattrs.values_mut().flatten().for_each(|b| *b |= 0x80);
        }
        let tar = tar_of(&items);
        let mut archive = tar::Archive::new(tar.as_slice());
        let read: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                let mut content = Vec::new();
                entry.read_to_end(&mut content).unwrap();
                (entry.path_bytes().into_owned(), content)
            })
            .collect();
        prop_assert_eq!(read.len(), items.len());
        for ((name, content), (entry, expected)) in read.iter().zip(&items) {
            prop_assert_eq!(content, expected);
            if !matches!(entry.kind, EntryKind::Whiteout | EntryKind::Opaque) {
                let name = name.strip_suffix(b"/").unwrap_or(name);
                prop_assert_eq!(name, entry.path.as_bytes());
            }
        }
    }
}

/// About 40 MB: small files, a large one in the middle, small files.
fn large_layer(middle: Vec<u8>, large: Vec<u8>) -> Items {
    let mut items = Items::new();
    for n in 0..1500usize {
        let content = noise(n as u64, 20_000 + (n * 37) % 3000);
        let content = if n == 700 { middle.clone() } else { content };
        items.push((file(&format!("a/{n:05}"), content.len()), content));
    }
    items.push((file("b/large", large.len()), large));
    items.push((file("c", 5), b"hello".to_vec()));
    items
}

/// The frames as (digest, content) of the blob.
fn frames(items: &Items) -> Vec<Sha256Digest> {
    let (blob, layer) = build_with(items, options(Compression::None), 2);
    let at = |offset: u64| usize::try_from(offset).unwrap();
    let part = |offset: u64, size: u64| &blob[at(offset)..at(offset + size)];
    layer
        .index
        .frames
        .iter()
        .map(|frame| Sha256Digest::of(part(frame.blob_offset, frame.blob_size)))
        .collect()
}

fn changed(old: &[Sha256Digest], new: &[Sha256Digest]) -> usize {
    new.iter().filter(|frame| !old.contains(frame)).count()
}

#[test]
fn a_changed_file_changes_few_frames() {
    let large = noise(1_000_000, 12 << 20);
    let old = frames(&large_layer(noise(700, 20_000), large.clone()));
    assert!(old.len() >= 15, "only {} frames", old.len());
    // The same length, another length: the frames of the other files stay.
    for length in [20_000, 31_234] {
        let new = frames(&large_layer(noise(9_999, length), large.clone()));
        let changed = changed(&old, &new);
        assert!((1..=2).contains(&changed), "{changed} of {}", new.len());
    }
    // Some bytes more in the large file.
    let mut edited = large;
    edited.splice(5_000_000..5_000_000, *b"more");
    let new = frames(&large_layer(noise(700, 20_000), edited));
    let changed = changed(&old, &new);
    assert!((1..=3).contains(&changed), "{changed} of {}", new.len());
}

#[test]
fn frames_have_bounded_sizes_and_cover_the_tar() {
    let items = large_layer(Vec::new(), noise(5, 17 << 20));
    let (blob, layer) = build_with(&items, options(Compression::None), 3);
    let frames = &layer.index.frames;
    assert!(frames.iter().all(|frame| frame.tar_size <= 9 << 20));
    assert!(
        frames[..frames.len() - 1]
            .iter()
            .all(|frame| frame.tar_size >= 256 << 10)
    );
    let end = frames.last().unwrap();
    assert_eq!(end.tar_offset + end.tar_size, blob.len() as u64);
    assert!(
        frames
            .windows(2)
            .all(|f| f[0].tar_offset + f[0].tar_size == f[1].tar_offset)
    );
}

#[test]
fn bytes_do_not_depend_on_the_number_of_threads() {
    let mut items = large_layer(Vec::new(), noise(4, 5 << 20));
    items.drain(100..1400);
    let fast_gzip = LayerOptions {
        compression: Compression::Gzip,
        level: Some(1),
    };
    // From level 5 on zstd's match finder is another one.
    let level_6 = LayerOptions {
        level: Some(6),
        ..LayerOptions::default()
    };
    for options in [LayerOptions::default(), level_6, fast_gzip] {
        let (one, layer) = build_with(&items, options, 1);
        for threads in [2, 5] {
            let (blob, other) = build_with(&items, options, threads);
            assert!(blob == one);
            assert_eq!(other, layer);
        }
    }
}

/// The cut rule, version 1: a change here changes the digests of blobs.
#[test]
fn known_layers_have_known_frames() {
    let items = large_layer(noise(3, 100), noise(4, 9 << 20));
    let (_, layer) = build_with(&items, options(Compression::None), 2);
    let ends: Vec<u64> = layer
        .index
        .frames
        .iter()
        .map(|frame| frame.tar_offset + frame.tar_size)
        .collect();
    assert_eq!(ends[..3], [1_779_200, 2_163_712, 2_799_616]);
    assert_eq!(
        ends[ends.len() - 4..],
        [35_543_746, 39_275_103, 41_814_977, 42_793_472]
    );
}

#[test]
fn a_blob_that_was_cut_off_is_refused() {
    let items = vec![(file("a", 3000), noise(1, 3000))];
    for compression in ALL {
        let (blob, layer) = build_with(&items, options(compression), 1);
        let whole = blob.len()
            - if compression == Compression::None {
                1024
            } else {
                0
            };
        for end in (1..whole).step_by(11) {
            let result = scan(&blob[..end], &layer.media_type);
            assert!(result.is_err(), "{compression:?} cut at {end}");
        }
    }
}

/// The bytes of the canonical form, version 1: a change here changes every diff id.
#[test]
fn known_layers_have_known_digests() {
    let mut attributes = file("usr/bin/ping", 4);
    attributes
        .xattrs
        .insert("security.capability".into(), vec![1, 0, b'\n', 2, 255]);
    attributes.mtime = -1;
    attributes.uid = u32::MAX;
    let long = format!("usr/share/{}/{}", "d".repeat(120), "f".repeat(80));
    let items = vec![
        (entry("", EntryKind::Directory), vec![]),
        (entry("etc/gone", EntryKind::Whiteout), vec![]),
        (entry("opt", EntryKind::Directory), vec![]),
        (entry("opt", EntryKind::Opaque), vec![]),
        (attributes, b"ping".to_vec()),
        (symlink("usr/bin/ping4", "ping"), vec![]),
        (file(&long, 0), vec![]),
        (file(&"x".repeat(101), 1), b"x".to_vec()),
    ];
    let (_, layer) = build(&items);
    assert_eq!(
        layer.diff_id.0.hex(),
        "63835a39aa05000864f1d146feb6c4360dd938adfbb750d20dbd1639bcd0772b"
    );
    let (_, empty) = build(&Items::new());
    assert_eq!(
        empty.diff_id.0.hex(),
        "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
    );
    assert_eq!(empty.index.frames.len(), 1);
}

#[test]
fn what_is_not_canonical_is_refused() {
    let append = |items: &[crate::oci::layer::Entry]| {
        let mut builder = LayerBuilder::new(Vec::new(), LayerOptions::default());
        items.iter().try_for_each(|e| builder.append(e, None))
    };
    let target = path("b");
    let mut host = entry("a", EntryKind::Directory);
    host.xattrs
        .insert("trusted.overlay.opaque".into(), b"y".to_vec());
    assert!(matches!(
        append(&[file("b", 0), file("a", 0)]),
        Err(LayerError::Order { .. })
    ));
    assert!(matches!(
        append(&[file("a", 0), file("a", 0)]),
        Err(LayerError::Order { .. })
    ));
    assert!(matches!(
        append(&[file("a", 0), entry("a", EntryKind::Opaque)]),
        Err(LayerError::Order { .. })
    ));
    assert!(matches!(
        append(&[file("a/.wh.b", 0)]),
        Err(LayerError::ReservedName { .. })
    ));
    assert!(matches!(
        append(&[file("", 0)]),
        Err(LayerError::ReservedName { .. })
    ));
    assert!(matches!(
        append(&[entry("a", EntryKind::Hardlink { target })]),
        Err(LayerError::LinkTarget { .. })
    ));
    assert!(matches!(append(&[host]), Err(LayerError::Xattr { .. })));
    assert!(matches!(
        append(&[entry(
            "n",
            EntryKind::CharDevice {
                major: 1 << 21,
                minor: 0
            }
        )]),
        Err(LayerError::DeviceNumber { .. })
    ));
    assert!(matches!(
        append(&[file("a", 1)]),
        Err(LayerError::ContentSize { longer: false, .. })
    ));
    let mut builder = LayerBuilder::new(Vec::new(), LayerOptions::default());
    assert!(matches!(
        builder.append(&file("a", 1), Some(&mut b"ab".as_slice())),
        Err(LayerError::ContentSize { longer: true, .. })
    ));
}

#[test]
fn a_failing_writer_is_an_error() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut builder = LayerBuilder::new(Full, LayerOptions::default());
    let content = noise(1, 9 << 20);
    builder
        .append(&file("a", content.len()), Some(&mut content.as_slice()))
        .unwrap();
    assert!(matches!(builder.finish(), Err(LayerError::Write(_))));
}

#[test]
fn a_canonical_tar_can_be_copied() {
    let items = vec![
        (file("a/b", 3), b"abc".to_vec()),
        (symlink("z", "a/b"), vec![]),
    ];
    let tar = tar_of(&items);
    let mut builder = LayerBuilder::new(Vec::new(), options(Compression::None));
    builder.append_tar(tar.as_slice()).unwrap();
    assert_eq!(builder.finish().unwrap().0, tar);
}
