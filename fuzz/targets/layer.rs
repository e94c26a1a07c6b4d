//! Any bytes as a layer: its entries are listed, or it is refused; the content of files can be
//! read again through the index.
//!
//! The first byte chooses the compression, or that the bytes are an index.
#![no_main]

use std::{
    io::{self, Read as _, Write as _},
    sync::Arc,
};

use libfuzzer_sys::{Corpus, fuzz_target};
use memobuild_ci::oci::layer::{
    EntryKind, LayerContent, LayerIndex, LayerPath, TarEntries, Tree, decompress, scan,
};

/// Bytes of content that are read of one input.
const MOST: u64 = 16 << 20;

const MEDIA_TYPES: [&str; 3] = [
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
];

fuzz_target!(|data: &[u8]| -> Corpus {
    let Some((&variant, blob)) = data.split_first() else {
        return Corpus::Reject;
    };
    let Some(media_type) = MEDIA_TYPES.get(usize::from(variant) % (MEDIA_TYPES.len() + 1)) else {
        if let Ok(index) = LayerIndex::decode(blob) {
            let encoded = index.encode().expect("an index can be written");
            assert_eq!(LayerIndex::decode(&encoded).expect("and read"), index);
        }
        return Corpus::Keep;
    };
    // A bomb is unpacked by nobody without a bound.
    let Ok(tar) = decompress(blob, media_type) else {
        return Corpus::Keep;
    };
    let Ok(unpacked) = io::copy(&mut tar.take(MOST + 1), &mut io::sink()) else {
        return Corpus::Keep;
    };
    if unpacked > MOST {
        return Corpus::Reject;
    }
    let listed = list(decompress(blob, media_type).expect("it was opened before"));
    match scan(blob, media_type) {
        Ok(scanned) => {
            assert!(listed.is_some());
            assert_eq!(scanned.tar_size, unpacked);
            check(blob, media_type, scanned.index);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    Corpus::Keep
});

/// How many entries a tar has; none if it is refused.
fn list(tar: impl io::Read) -> Option<usize> {
    let mut entries = TarEntries::new(tar);
    let mut count = 0;
    while let Some(mut item) = entries.next_entry().ok()? {
        if let EntryKind::Regular { size } = item.entry.kind {
            let read = io::copy(&mut item, &mut io::sink()).ok()?;
            assert_eq!(read, size);
        }
        count += 1;
    }
    Some(count)
}

/// The index survives its encoding, and leads to the contents.
fn check(blob: &[u8], media_type: &str, index: LayerIndex) {
    let encoded = index.encode().expect("an index can be written");
    assert_eq!(LayerIndex::decode(&encoded).expect("and read"), index);
    let index = Arc::new(index);
    let mut file = tempfile::tempfile().expect("a temporary file");
    file.write_all(blob).expect("it can be written");
    let content = LayerContent::open(file, media_type, Arc::clone(&index)).expect("it was scanned");
    for row in &index.entries {
        if let EntryKind::Regular { size } = row.entry.kind {
            let read = content
                .read(row)
                .and_then(|mut reader| Ok(io::copy(&mut reader, &mut io::sink()).ok()));
            assert_eq!(read.ok().flatten(), Some(size), "{}", row.entry.path);
        }
    }
    let tree = Tree::new(vec![index]);
    let root = LayerPath::new("/").expect("the root");
    for found in tree.walk(&root).take(1000) {
        let _ = found;
    }
}
