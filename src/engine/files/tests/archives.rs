//! ADD of local archives.

use std::path::Path;

use super::*;
use crate::{engine::files::write, oci::layer::LayerBuilder};

fn header(kind: tar::EntryType, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(5);
    header.set_gid(6);
    header.set_size(0);
    header
}

/// An archive with a file, a symlink, a hard link, and a directory that comes late.
fn archive() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut file = header(tar::EntryType::Regular, 0o640);
    file.set_size(4);
    tar.append_data(&mut file, "d/f", &b"text"[..]).unwrap();
    let mut link = header(tar::EntryType::Symlink, 0o777);
    tar.append_link(&mut link, "d/l", "f").unwrap();
    let mut hard = header(tar::EntryType::Link, 0o640);
    tar.append_link(&mut hard, "h", "d/f").unwrap();
    let mut dir = header(tar::EntryType::Directory, 0o750);
    tar.append_data(&mut dir, "d/", &b""[..]).unwrap();
    tar.into_inner().unwrap()
}

/// A context directory with the file `a.tar`.
fn context(dir: &Path, bytes: &[u8]) -> Source {
    std::fs::write(dir.join("a.tar"), bytes).unwrap();
    let mut entry = row("a.tar");
    entry.entry.kind = EntryKind::Regular {
        size: bytes.len() as u64,
    };
    entry.content = (!bytes.is_empty()).then(|| Blake3Digest::of(bytes));
    Source {
        name: "the build context".to_owned(),
        tree: Arc::new(Tree::new(vec![Arc::new(index(vec![entry]))])),
        contents: Contents::Directory(dir.to_owned()),
    }
}

fn add(dest: &str, owner: Option<&str>) -> FileOp {
    op(vec![FileAction::Copy(CopyAction {
        unpack: true,
        owner: owner.map(str::to_owned),
        ..copy(&["a.tar"], dest)
    })])
}

#[test]
fn archives_are_unpacked_with_their_owners() {
    let dir = tempfile::tempdir().unwrap();
    let source = context(dir.path(), &archive());
    let added = |root: &[&str], dest, owner| {
        show(&plan(&add(dest, owner), &tree(root), &[Some(source.clone())]).unwrap())
    };
    let all = [
        "/x/",
        "/x/d/ 750 5:6",
        "/x/d/f = archive:/d/f 640 5:6",
        "/x/d/l -> f 5:6",
        "/x/h => /x/d/f 640 5:6",
    ];
    assert_eq!(added(&[], "/x", None), all);
    assert_eq!(added(&[], "/x/", None), all);
    // A symlink of the image on the way is followed; a directory that exists takes the
    // archive's attributes.
    let shown = added(&["y/", "x -> y", "y/d/ @700 1 1"], "/x/", None);
    assert_eq!(shown[..2], ["/y/", "/y/d/ 750 5:6"]);
    let owned = added(&[], "/x", Some("1:2"));
    assert_eq!(owned[..2], ["/x/ 1:2", "/x/d/ 750 1:2"]);
}

#[test]
fn other_files_are_copied() {
    let dir = tempfile::tempdir().unwrap();
    for bytes in [&b"no archive"[..], b"", b"\x1f\x8bno gzip", &[0; 1024]] {
        let source = context(dir.path(), bytes);
        let plan = plan(&add("/x", None), &tree(&[]), &[Some(source)]).unwrap();
        assert_eq!(plan.entries.len(), 1);
        assert_eq!(plan.entries[0].entry.path.to_string(), "/x");
    }
}

#[test]
fn compressed_archives_are_unpacked() {
    use std::io::Write as _;
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bzip2.write_all(&archive()).unwrap();
    let bzip2 = bzip2.finish().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let sources = [Some(context(dir.path(), &bzip2))];
    let plan_of = |bytes: &[u8]| {
        let source = context(dir.path(), bytes);
        plan(&add("/x", None), &tree(&[]), &[Some(source)])
    };
    let plain = plan_of(&archive()).unwrap();
    let unpacked = plan_of(&bzip2).unwrap();
    assert_eq!(show(&unpacked), show(&plain));
    let mut builder = LayerBuilder::new(Vec::new(), Default::default());
    write(&unpacked, &sources, &mut builder, |_| ()).unwrap();
    // The beginning is that of a tar, the rest is missing.
    let broken = plan_of(&bzip2[..bzip2.len() - 8]);
    assert!(broken.is_err());
}

#[test]
fn an_archive_that_changed_since_it_was_hashed_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let source = context(dir.path(), &archive());
    let mut other = archive();
    other[513] ^= 1;
    std::fs::write(dir.path().join("a.tar"), other).unwrap();
    let changed = plan(&add("/x", None), &tree(&[]), &[Some(source)]);
    assert!(matches!(changed, Err(FileError::Changed { .. })));
}

#[test]
fn members_are_written() {
    let dir = tempfile::tempdir().unwrap();
    let sources = [Some(context(dir.path(), &archive()))];
    let plan = plan(&add("/x", None), &tree(&[]), &sources).unwrap();
    let mut builder = LayerBuilder::new(Vec::new(), Default::default());
    write(&plan, &sources, &mut builder, |_| ()).unwrap();
    let (_, layer) = builder.finish().unwrap();
    let file = layer.index.get(&LayerPath::new("x/d/f").unwrap()).unwrap();
    assert_eq!(file.content, Some(Blake3Digest::of(b"text")));
}
