//! Encoded indexes, and files read out of blobs.

use std::{
    fs::File,
    io::{Read, Write},
    sync::Arc,
};

use proptest::prelude::*;

use super::samples::*;
use crate::{
    digest::Blake3Digest,
    oci::layer::{
        Compression, EntryKind, LayerContent, LayerError, LayerIndex, LayerOptions, scan,
    },
};

fn temp_file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

/// Reads every file of the layer, in an order unlike the layer's.
fn assert_contents(items: &Items, blob: &[u8], media_type: &str, index: LayerIndex) {
    let index = Arc::new(index);
    let content = LayerContent::open(temp_file(blob), media_type, Arc::clone(&index)).unwrap();
    for (entry, expected) in items.iter().rev() {
        let Some(row) = index.get(&entry.path).filter(|row| row.entry == *entry) else {
            assert_eq!(entry.kind, EntryKind::Opaque);
            continue;
        };
        if !matches!(entry.kind, EntryKind::Regular { .. }) {
            assert!(matches!(
                content.read(row),
                Err(LayerError::NotRegular { .. })
            ));
            continue;
        }
        let mut read = Vec::new();
        content.read(row).unwrap().read_to_end(&mut read).unwrap();
        assert!(read == *expected, "{}", entry.path);
        let digest = (!expected.is_empty()).then(|| Blake3Digest::of(expected));
        assert_eq!(row.content, digest);
    }
}

proptest! {
    #[test]
    fn an_index_comes_back_from_its_encoding(items in any_items()) {
        let index = build(&items).1.index;
        let bytes = index.encode().unwrap();
        let decoded = LayerIndex::decode(&bytes).unwrap();
        prop_assert_eq!(&decoded, &index);
        prop_assert_eq!(decoded.encode().unwrap(), bytes);
    }

    #[test]
    fn a_damaged_index_is_an_error_or_an_index(items in any_items(), at: prop::sample::Index, with: u8) {
        let mut bytes = build(&items).1.index.encode().unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= with;
        let _ = LayerIndex::decode(&bytes);
        prop_assert!(LayerIndex::decode(&bytes[..at]).is_err());
    }

    #[test]
    fn small_files_are_read_from_any_blob(items in any_items()) {
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let options = LayerOptions { compression, level: Some(1) };
            let (blob, layer) = build_with(&items, options, 1);
            assert_contents(&items, &blob, &layer.media_type, layer.index);
        }
    }
}

#[test]
fn the_version_of_an_index_is_checked() {
    let mut bytes = build(&Items::new()).1.index.encode().unwrap();
    assert_eq!(&bytes[..8], b"mb-idx\0\x01");
    bytes[7] = 2;
    assert!(matches!(
        LayerIndex::decode(&bytes),
        Err(LayerError::IndexVersion {
            found: 2,
            expected: 1
        })
    ));
    assert!(LayerIndex::decode(b"{}").is_err());
}

/// The bytes of version 1.
#[test]
fn a_known_index_has_a_known_body() {
    let mut passwd = file("etc/passwd", 2);
    passwd.uid = 300;
    passwd.mtime = -2;
    passwd.xattrs.insert("user.a".into(), vec![0xff]);
    let link = entry(
        "ln",
        EntryKind::Hardlink {
            target: path("etc/passwd"),
        },
    );
    let items = vec![(passwd, b"r:".to_vec()), (link, vec![])];
    let options = LayerOptions {
        compression: Compression::None,
        level: None,
    };
    let index = build_with(&items, options, 1).1.index;
    let body = zstd::decode_all(&index.encode().unwrap()[8..]).unwrap();
    let content = Blake3Digest::of(b"r:");
    let expected = [
        index.diff_id.0.as_bytes().as_slice(),
        &[0x80, 0x1c],
        &[2],
        b"\x0aetc/passwd\x01\x02",
        &[0xa4, 0x03, 0xac, 0x02, 0, 3],
        b"\x01\x06user.a\x01\xff",
        &[3],
        content.as_bytes(),
        &[0x80, 0x0c],
        b"\x02r:",
        b"\x02ln\x03\x0aetc/passwd",
        &[0xa4, 0x03, 0, 0, 0x80, 0x98, 0xf5, 0xac, 0x02],
        &[0, 0],
        &[1, 0x80, 0x1c, 0, 0x80, 0x1c],
    ];
    assert_eq!(body, expected.concat());
}

#[test]
fn files_over_many_frames_are_read_from_framed_and_unframed_blobs() {
    let items: Items = [100, 300 << 10, 5 << 20, 7, 9 << 20, 600 << 10, 1]
        .into_iter()
        .enumerate()
        .map(|(n, size)| (file(&format!("f{n}"), size), noise(n as u64, size)))
        .collect();
    let (blob, layer) = build(&items);
    assert!(layer.index.frames.len() > 4);
    assert_contents(&items, &blob, &layer.media_type, layer.index.clone());

    // One long stream, as other tools write it.
    let tar = tar_of(&items);
    let whole =
        zstd::encode_all([tar.as_slice(), &vec![0; 40 << 20]].concat().as_slice(), 1).unwrap();
    let scanned = scan(whole.as_slice(), &layer.media_type).unwrap();
    assert_eq!(scanned.index.frames.len(), 1);
    assert_contents(&items, &whole, &layer.media_type, scanned.index);
}

#[test]
fn frames_are_found_again_among_skippable_ones() {
    let items: Items = vec![
        (file("a", 3 << 20), noise(1, 3 << 20)),
        (file("b", 3), b"abc".to_vec()),
    ];
    let (mut blob, layer) = build(&items);
    blob.extend_from_slice(&[0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4]);
    let scanned = scan(blob.as_slice(), &layer.media_type).unwrap();
    assert_eq!(scanned.index, layer.index);
    assert_eq!(scanned.size, blob.len() as u64);
    assert_contents(&items, &blob, &layer.media_type, scanned.index);
}

#[test]
fn a_damaged_frame_is_an_error() {
    let items: Items = vec![(file("a", 3 << 20), noise(1, 3 << 20))];
    let (mut blob, layer) = build(&items);
    let middle = blob.len() / 2;
    blob[middle] ^= 1;
    let index = Arc::new(layer.index);
    let content =
        LayerContent::open(temp_file(&blob), &layer.media_type, Arc::clone(&index)).unwrap();
    let row = index.get(&path("a")).unwrap();
    assert!(
        content
            .read(row)
            .unwrap()
            .read_to_end(&mut Vec::new())
            .is_err()
    );
    assert!(scan(blob.as_slice(), &layer.media_type).is_err());
}
