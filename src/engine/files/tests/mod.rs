//! Plans against small trees.

mod archives;
mod copy;
mod keys;
mod versions;

use std::sync::Arc;

use super::{Content, Contents, FileError, Plan, Source, plan};
use crate::{
    digest::{Blake3Digest, Sha256Digest},
    graph::{CopyAction, FileAction, FileOp, ModeChange, VertexId},
    oci::layer::{DiffId, Entry, EntryKind, IndexEntry, LayerIndex, LayerPath, Tree},
};

const MTIME: i64 = 1_700_000_000;

/// A tree from lines: `path/` with a slash at the end is a directory, `path -> target` a
/// symlink, `path => target` a hard link, all else a file whose content is its path. After
/// ` @` may stand `mode uid gid`. The files of the user database have their text.
fn tree(lines: &[&str]) -> Arc<Tree> {
    let rows = lines.iter().map(|line| row(line)).collect();
    Arc::new(Tree::new(vec![Arc::new(index(rows))]))
}

fn index(rows: Vec<IndexEntry>) -> LayerIndex {
    LayerIndex::new(DiffId(Sha256Digest::of(b"")), 0, rows, Vec::new())
}

fn row(line: &str) -> IndexEntry {
    let (line, attributes) = line.split_once(" @").unwrap_or((line, ""));
    let mut attributes = attributes.split(' ');
    let mode = attributes.next().filter(|text| !text.is_empty());
    let mut number = || attributes.next().map_or(0, |text| text.parse().unwrap());
    let (uid, gid) = (number(), number());
    let (path, kind, default) = if let Some((path, target)) = line.split_once(" -> ") {
        let target = target.into();
        (path, EntryKind::Symlink { target }, 0o777)
    } else if let Some((path, target)) = line.split_once(" => ") {
        let target = LayerPath::new(target).unwrap();
        (path, EntryKind::Hardlink { target }, 0o644)
    } else if let Some(path) = line.strip_suffix('/') {
        (path, EntryKind::Directory, 0o755)
    } else {
        let size = text_of(line).len() as u64;
        (line, EntryKind::Regular { size }, 0o644)
    };
    let text = text_of(path);
    let is_file = matches!(kind, EntryKind::Regular { .. });
    IndexEntry {
        entry: Entry {
            path: LayerPath::new(path).unwrap(),
            kind,
            mode: mode.map_or(default, |mode| u32::from_str_radix(mode, 8).unwrap()),
            uid,
            gid,
            mtime: 0,
            xattrs: Default::default(),
        },
        content: is_file.then(|| Blake3Digest::of(text.as_bytes())),
        offset: 0,
        inline: is_file.then(|| text.into()),
    }
}

fn text_of(path: &str) -> &str {
    match path {
        "etc/passwd" => "root:x:0:0::/root:/bin/sh\napp:x:10:20::/app:/bin/sh\n",
        "etc/group" => "root:x:0:\nweb:x:30:\n",
        path => path,
    }
}

fn source(tree: Arc<Tree>) -> Source {
    Source {
        name: "the build context".to_owned(),
        tree,
        contents: Contents::Absent,
    }
}

/// `COPY sources… dest`.
fn copy(sources: &[&str], dest: &str) -> CopyAction {
    CopyAction {
        from: VertexId(0),
        sources: sources.iter().map(|s| (*s).to_owned()).collect(),
        dest: dest.to_owned(),
        owner: None,
        mode: None,
        unpack: false,
        parents: false,
        exclude: Vec::new(),
        link: false,
    }
}

fn op(actions: Vec<FileAction>) -> FileOp {
    FileOp {
        root: VertexId(0),
        actions,
        mtime: MTIME,
    }
}

/// What a copy from `context` to `root` gives.
fn copied(root: &[&str], context: &[&str], copy: CopyAction) -> Result<Vec<String>, FileError> {
    let op = op(vec![FileAction::Copy(copy)]);
    let plan = plan(&op, &tree(root), &[Some(source(tree(context)))])?;
    Ok(show(&plan))
}

/// What an action that copies nothing gives.
fn done(root: &[&str], action: FileAction) -> Result<Vec<String>, FileError> {
    Ok(show(&plan(&op(vec![action]), &tree(root), &[None])?))
}

/// A line for each entry: type by a sign at the end, mode and owner where they are not
/// the usual ones, for files where the content is from.
fn show(plan: &Plan) -> Vec<String> {
    plan.entries
        .iter()
        .map(|planned| {
            let entry = &planned.entry;
            assert_eq!(entry.mtime, MTIME);
            let path = entry.path.to_string();
            let (mut line, usual) = match &entry.kind {
                EntryKind::Directory => (format!("{path}/"), 0o755),
                EntryKind::Symlink { target } => (format!("{path} -> {}", target.display()), 0o777),
                EntryKind::Hardlink { target } => (format!("{path} => {target}"), 0o644),
                EntryKind::Regular { .. } => (path, 0o644),
                kind => (format!("{path} {kind:?}"), 0o644),
            };
            match &planned.content {
                Content::None => {}
                Content::Bytes(bytes) => {
                    line += &format!(" = {:?}", String::from_utf8_lossy(bytes))
                }
                Content::File { path, .. } => line += &format!(" = {path}"),
                Content::Member { path, .. } => line += &format!(" = archive:{path}"),
            }
            if entry.mode != usual {
                line += &format!(" {:o}", entry.mode);
            }
            if (entry.uid, entry.gid) != (0, 0) {
                line += &format!(" {}:{}", entry.uid, entry.gid);
            }
            line
        })
        .collect()
}

fn exact(mode: u32) -> Option<ModeChange> {
    Some(ModeChange::Exact(mode))
}
