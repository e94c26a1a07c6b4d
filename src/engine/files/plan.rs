//! The plan of a layer: from instruction and metadata to entries.

use std::collections::BTreeMap;

use super::{
    Content, Contents, FileError, Plan, Planned, Source,
    archive::{self, Archive},
    mode,
    select::{Match, select},
    view::Destination,
};
use crate::{
    engine::user::UserDatabase,
    graph::{CopyAction, FileAction, FileOp, ModeChange},
    oci::layer::{Entry, EntryKind, LayerPath, Tree},
};

/// Decides what the layer of `op` on `root` holds. `sources[n]` is where action
/// number `n` copies from; none for actions that don't copy.
pub fn plan(op: &FileOp, root: &Tree, sources: &[Option<Source>]) -> Result<Plan, FileError> {
    let database = UserDatabase {
        passwd: inline(root, "etc/passwd"),
        group: inline(root, "etc/group"),
    };
    // `--link`: the layer stands by itself, whatever the image has at the destination.
    let nothing = Tree::new(Vec::new());
    let linked = |action: &FileAction| matches!(action, FileAction::Copy(copy) if copy.link);
    let alone = op.actions.iter().any(linked);
    let mut planner = Planner {
        dest: Destination::new(if alone { &nothing } else { root }),
        archives: Vec::new(),
        copies: 0,
    };
    for (n, action) in op.actions.iter().enumerate() {
        match action {
            FileAction::Copy(copy) => {
                if let Some(source) = sources.get(n).and_then(Option::as_ref) {
                    let owner = copy.owner.as_deref().map(|text| database.owner(text));
                    planner.copy(n, source, copy, owner)?;
                }
            }
            FileAction::Write {
                dest,
                name,
                content,
                owner: text,
                mode,
            } => {
                let owner = text.as_deref().map(|text| database.owner(text));
                planner.write(dest, name, content, owner, mode.as_ref())?;
            }
            FileAction::MakeDir { path, owner: text } => {
                let owner = text.as_deref().map(|text| database.owner(text));
                let path = planner.dest.resolve(path)?;
                planner.dest.make_dir_all(&path, 0o755, owner)?;
            }
        }
    }
    let mut plan = planner.finish(op.mtime);
    for action in &op.actions {
        let owner = match action {
            FileAction::Copy(copy) => copy.owner.as_deref(),
            FileAction::Write { owner, .. } | FileAction::MakeDir { owner, .. } => owner.as_deref(),
        };
        if let Some(name) = owner.and_then(|text| database.unknown(text)) {
            plan.unknown_owners.push(name.to_owned());
        }
    }
    Ok(plan)
}

fn inline<'t>(root: &'t Tree, path: &str) -> &'t [u8] {
    LayerPath::new(path)
        .ok()
        .and_then(|p| root.resolve(&p, true).ok())
        .and_then(|p| root.inline_file(&p))
        .unwrap_or_default()
}

struct Planner<'a> {
    dest: Destination<'a>,
    archives: Vec<Archive>,
    /// Number of source paths copied so far: hard links are kept within one of them.
    copies: usize,
}

/// Mode and owner of directories that are made on the way to a destination.
type Made = (u32, Option<(u32, u32)>);

/// Mode of directories that a copy makes on the way.
fn made_mode(change: Option<&ModeChange>) -> u32 {
    match change {
        Some(ModeChange::Exact(mode)) => *mode & 0o777,
        _ => 0o755,
    }
}

/// What stays the same while one source path is copied.
struct Copying<'c> {
    /// Position of the source among the sources.
    number: usize,
    /// Number of this copy, part of the hard links' identity.
    copy: usize,
    source: &'c Source,
    owner: Option<(u32, u32)>,
    mode: Option<&'c ModeChange>,
}

impl Planner<'_> {
    fn copy(
        &mut self,
        number: usize,
        source: &Source,
        copy: &CopyAction,
        owner: Option<(u32, u32)>,
    ) -> Result<(), FileError> {
        let selection = select(source, copy)?;
        for matched in &selection.matches {
            self.copies += 1;
            let copying = Copying {
                number,
                copy: self.copies,
                source,
                owner,
                mode: copy.mode.as_ref(),
            };
            if copy.unpack && self.unpack(&copying, matched, &copy.dest)? {
                continue;
            }
            self.copy_match(&copying, matched, &copy.dest)?;
        }
        Ok(())
    }

    fn copy_match(
        &mut self,
        copying: &Copying<'_>,
        matched: &Match,
        dest: &str,
    ) -> Result<(), FileError> {
        let made = (made_mode(copying.mode), copying.owner);
        let target = self.target_dir(dest, made)?;
        let is_dir = copying.is_dir(&matched.at);
        let target = match self.dest.lstat(&target).map(|e| e.kind) {
            Some(EntryKind::Directory) if !is_dir => match matched.named.file_name() {
                Some(name) => target.join(name),
                None => target,
            },
            None if is_dir => {
                self.dest.make_dir_all(&target, made.0, made.1)?;
                target
            }
            _ => target,
        };
        if let Some(parent) = target.parent() {
            self.dest.make_dir_all(&parent, made.0, made.1)?;
        }
        self.copy_tree(copying, matched, &target)
    }

    /// Makes what must be a directory before a copy to `dest`, and gives the place
    /// that `dest` means.
    fn target_dir(&mut self, dest: &str, made: Made) -> Result<LayerPath, FileError> {
        let ensure = match dest.rsplit_once('/') {
            Some((dir, name)) if !name.is_empty() && name != "." => dir,
            _ => dest,
        };
        let dir = self.dest.resolve(ensure)?;
        self.dest.make_dir_all(&dir, made.0, made.1)?;
        self.dest.resolve(dest)
    }

    /// Copies the file or directory that `matched` means, and what the copy takes of what is
    /// below it.
    fn copy_tree(
        &mut self,
        copying: &Copying<'_>,
        matched: &Match,
        target: &LayerPath,
    ) -> Result<(), FileError> {
        for taken in matched.taken(copying.source) {
            let place = taken
                .below
                .components()
                .fold(target.clone(), |p, c| p.join(c));
            if taken.on_the_way {
                self.copy_on_the_way(copying, &taken.path, &place)?;
            } else {
                self.copy_one(copying, &taken.path, &place, !taken.below.is_root())?;
            }
        }
        Ok(())
    }

    /// Copies a directory only because of what is below it. One that exists takes the
    /// source's mode, whatever `--chmod` says, and keeps its owner.
    fn copy_on_the_way(
        &mut self,
        copying: &Copying<'_>,
        from: &LayerPath,
        target: &LayerPath,
    ) -> Result<(), FileError> {
        let Some(found) = copying.source.tree.get(from) else {
            return Ok(());
        };
        let mode = found.row.entry.mode;
        match self.dest.lstat(target) {
            Some(old) if old.kind == EntryKind::Directory && old.mode == mode => Ok(()),
            Some(mut old) if old.kind == EntryKind::Directory => {
                old.mode = mode;
                self.dest.put(Planned {
                    entry: old,
                    content: Content::None,
                    link: None,
                });
                Ok(())
            }
            _ => self.copy_one(copying, from, target, true),
        }
    }

    /// Copies one file or one directory without its contents. `overwrite` says whether
    /// an existing directory takes the source's mode and owner.
    fn copy_one(
        &mut self,
        copying: &Copying<'_>,
        from: &LayerPath,
        target: &LayerPath,
        overwrite: bool,
    ) -> Result<(), FileError> {
        let Some(found) = copying.source.tree.get(from) else {
            return Ok(());
        };
        let existing = self.dest.lstat(target);
        let mut planned = copying.planned(&found.row.entry, target)?;
        match (&planned.entry.kind, existing) {
            (EntryKind::Directory, Some(old)) if old.kind == EntryKind::Directory => {
                let new = &planned.entry;
                let same = (old.mode, old.uid, old.gid) == (new.mode, new.uid, new.gid)
                    && old.xattrs == new.xattrs;
                if !overwrite || same {
                    return Ok(());
                }
            }
            (EntryKind::Directory, Some(_)) => {
                return Err(FileError::NotADirectory {
                    path: target.to_string(),
                });
            }
            (_, Some(old)) if old.kind == EntryKind::Directory => {
                return Err(FileError::IsADirectory {
                    path: target.to_string(),
                });
            }
            _ => {}
        }
        // A hard link is copied as the file it names; names that meet again in one
        // copy become links of each other in `finish`.
        if let EntryKind::Regular { .. } | EntryKind::Hardlink { .. } = planned.entry.kind
            && let Some(real) = copying.source.tree.source(found)
        {
            let path = real.row.entry.path.clone();
            if let EntryKind::Regular { size } = real.row.entry.kind {
                planned.entry.kind = EntryKind::Regular { size };
            }
            planned.link = Some((copying.copy, real.layer, path.clone()));
            if let Some(digest) = real.row.content {
                planned.content = Content::File {
                    source: copying.number,
                    layer: real.layer,
                    path,
                    digest,
                };
            }
        }
        self.dest.put(planned);
        Ok(())
    }

    /// Unpacks the archive that ADD names; false if it is not an archive.
    fn unpack(
        &mut self,
        copying: &Copying<'_>,
        matched: &Match,
        dest: &str,
    ) -> Result<bool, FileError> {
        let Contents::Directory(dir) = &copying.source.contents else {
            return Ok(false);
        };
        // Only a file that is not empty has a digest.
        let found = copying.source.tree.get(&matched.at);
        let Some(digest) = found.and_then(|found| found.row.content) else {
            return Ok(false);
        };
        let Some(archive) = archive::open(dir, &matched.at, digest, &matched.named)? else {
            return Ok(false);
        };
        let base = self.dest.resolve(dest)?;
        let made = copying.owner;
        self.dest.make_dir_all(&base, 0o755, made)?;
        let number = self.archives.len();
        let rows = archive.rows().to_vec();
        self.archives.push(archive);
        for row in &rows {
            self.unpack_one(copying, number, row, &base, made)?;
        }
        Ok(true)
    }

    fn unpack_one(
        &mut self,
        copying: &Copying<'_>,
        archive: usize,
        row: &crate::oci::layer::IndexEntry,
        base: &LayerPath,
        made: Option<(u32, u32)>,
    ) -> Result<(), FileError> {
        let Some(name) = row.entry.path.file_name() else {
            return Ok(());
        };
        let inside = row.entry.path.parent().unwrap_or_default();
        // Directories on the way may be symlinks of the image.
        let parent = self
            .dest
            .resolve(&format!("{base}/{}", inside.as_path().display()))?;
        self.dest.make_dir_all(&parent, 0o755, made)?;
        let target = parent.join(name);
        let mut entry = row.entry.clone();
        entry.path = target.clone();
        if let Some((uid, gid)) = copying.owner {
            (entry.uid, entry.gid) = (uid, gid);
        }
        let existing = self.dest.lstat(&target).map(|e| e.kind);
        // As Docker unpacks: whatever is not a directory on a directory is replaced.
        match (&entry.kind, existing) {
            (EntryKind::Whiteout | EntryKind::Opaque, _) => return Ok(()),
            (EntryKind::Directory, _) => {}
            (_, Some(EntryKind::Directory)) => self.dest.forget_below(&target),
            _ => {}
        }
        let mut planned = Planned {
            entry,
            content: Content::None,
            link: None,
        };
        let first = match &row.entry.kind {
            EntryKind::Hardlink { target } => self.archives[archive].row(target),
            _ => Some(row),
        };
        if let Some(first) = first
            && let EntryKind::Regular { size } = first.entry.kind
        {
            let path = first.entry.path.clone();
            planned.entry.kind = EntryKind::Regular { size };
            planned.link = Some((copying.copy, archive, path.clone()));
            if let Some(digest) = first.content {
                planned.content = Content::Member {
                    archive,
                    path,
                    digest,
                };
            }
        }
        self.dest.put(planned);
        Ok(())
    }

    fn write(
        &mut self,
        dest: &str,
        name: &str,
        content: &[u8],
        owner: Option<(u32, u32)>,
        change: Option<&ModeChange>,
    ) -> Result<(), FileError> {
        let target = self.target_dir(dest, (made_mode(change), owner))?;
        let target = match self.dest.lstat(&target).map(|e| e.kind) {
            Some(EntryKind::Directory) => target.join(name.as_ref()),
            _ => target,
        };
        if let Some(EntryKind::Directory) = self.dest.lstat(&target).map(|e| e.kind) {
            return Err(FileError::IsADirectory {
                path: target.to_string(),
            });
        }
        let mode = match change {
            Some(change) => mode::apply(change, 0o644, false)?,
            None => 0o644,
        };
        let kind = EntryKind::Regular {
            size: content.len() as u64,
        };
        let mut planned = Planned::new(target, kind, mode, owner.unwrap_or((0, 0)));
        if !content.is_empty() {
            planned.content = Content::Bytes(content.into());
        }
        self.dest.put(planned);
        Ok(())
    }

    /// Turns further names of one source file into hard links of the first, and gives
    /// every entry the step's mtime. Directories above a change that exist already are
    /// entered as they are: overlayfs and other readers of a layer take a directory's
    /// attributes from the uppermost layer that has it.
    fn finish(mut self, mtime: i64) -> Plan {
        for dir in self.dest.unplanned_parents() {
            self.dest.put(dir);
        }
        let mut first: BTreeMap<_, LayerPath> = BTreeMap::new();
        let mut entries = Vec::new();
        for (path, mut planned) in self.dest.into_planned() {
            planned.entry.mtime = mtime;
            if let Some(key) = planned.link.take() {
                if let Some(target) = first.get(&key) {
                    planned.entry.kind = EntryKind::Hardlink {
                        target: target.clone(),
                    };
                    planned.content = Content::None;
                } else {
                    first.insert(key, path);
                }
            }
            entries.push(planned);
        }
        Plan {
            entries,
            archives: self.archives,
            unknown_owners: Vec::new(),
        }
    }
}

impl Copying<'_> {
    fn is_dir(&self, path: &LayerPath) -> bool {
        path.is_root()
            || self
                .source
                .tree
                .get(path)
                .is_some_and(|f| f.row.entry.kind == EntryKind::Directory)
    }

    /// The entry at `target` for the source's `entry`, content to be filled in.
    fn planned(&self, entry: &Entry, target: &LayerPath) -> Result<Planned, FileError> {
        let mut entry = entry.clone();
        entry.path = target.clone();
        if let Some((uid, gid)) = self.owner {
            (entry.uid, entry.gid) = (uid, gid);
        }
        if let Some(change) = self.mode
            && !matches!(entry.kind, EntryKind::Symlink { .. })
        {
            let directory = entry.kind == EntryKind::Directory;
            entry.mode = mode::apply(change, entry.mode, directory)?;
        }
        Ok(Planned {
            entry,
            content: Content::None,
            link: None,
        })
    }
}
