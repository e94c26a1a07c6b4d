//! What blobs hash to is remembered, and nothing wrong is believed.

use super::*;
use crate::{
    digest::Blake3Digest,
    git::{ObjectId, conversion::Conversion, memo::Memo},
};

fn id(n: u8) -> ObjectId {
    format!("{n:02x}").repeat(20).parse().unwrap()
}

fn learnt(n: u8) -> (ObjectId, Conversion, (u64, Blake3Digest)) {
    (id(n), Conversion::NONE, (n.into(), Blake3Digest::of(&[n])))
}

#[test]
fn rows_are_remembered_by_blob_and_conversion() {
    let dir = tempfile::tempdir().unwrap();
    let load = || Memo::load(Some(dir.path()));
    load().append(&[learnt(1), learnt(2)]).unwrap();
    // Two writers that read the same state add to each other.
    let (one, other) = (load(), load());
    one.append(&[learnt(3)]).unwrap();
    other.append(&[learnt(4)]).unwrap();
    let memo = load();
    for n in 1..=4 {
        assert_eq!(memo.get(id(n), Conversion::NONE), Some(learnt(n).2));
        assert_eq!(memo.get(id(n), Conversion::LFS), None);
    }
    assert_eq!(memo.get(id(5), Conversion::NONE), None);
}

#[test]
fn damage_costs_rows_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("git-blobs");
    let load = || Memo::load(Some(dir.path()));
    load().append(&[learnt(1), learnt(2)]).unwrap();
    let whole = std::fs::read(&file).unwrap();
    for n in 0..whole.len() {
        let mut bad = whole.clone();
        bad[n] ^= 1;
        std::fs::write(&file, &bad).unwrap();
        let memo = load();
        for n in [1, 2] {
            let found = memo.get(id(n), Conversion::NONE);
            assert!(found.is_none_or(|found| found == learnt(n).2));
        }
    }
    // A writer was killed amid a row.
    for n in 0..whole.len() {
        std::fs::write(&file, &whole[..n]).unwrap();
        load().append(&[learnt(3)]).unwrap();
        let memo = load();
        assert_eq!(memo.get(id(3), Conversion::NONE), Some(learnt(3).2), "{n}");
        let kept = n.saturating_sub(8) / 72;
        for row in 1..=u8::try_from(kept).unwrap() {
            assert_eq!(memo.get(id(row), Conversion::NONE), Some(learnt(row).2));
        }
    }
}

#[test]
fn a_second_scan_reads_no_blob() {
    if !has_git() {
        return;
    }
    let fixture = Fixture::new();
    fixture.write("a", "a");
    fixture.write("same", "a");
    fixture.write("b.txt", "b\n");
    fixture.write(".gitattributes", "*.txt eol=crlf\n");
    let commit = fixture.commit("one");
    let tree = commit.files(&fixture.open()).unwrap();
    let memos = tempfile::tempdir().unwrap();
    let options = ScanOptions {
        identity: ContentIdentity::Content,
        memo_dir: Some(memos.path()),
    };
    let context = local(Path::new("/nowhere"), ".git*");
    let scanned = || {
        scan(
            &tree,
            &LayerPath::ROOT,
            &context,
            &[LayerPath::ROOT],
            options,
        )
        .unwrap()
    };
    let first = scanned();
    assert_eq!((first.context.hashed, first.context.files), (2, 3));
    let second = scanned();
    assert_eq!(second.context.hashed, 0);
    assert_eq!(rows(&first.context, &[]), rows(&second.context, &[]));
}
