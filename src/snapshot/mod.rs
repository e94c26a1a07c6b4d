//! Unpacked layers for overlayfs, and the exact difference that a step makes.
//!
//! [`Snapshots`] keeps one directory per layer, named by its diff id. They are derived
//! data: all of it can be made again from blobs, nothing else refers to it. A step's
//! life: [`Snapshots::lower_dirs`] gives its lower directories,
//! [`Snapshots::work_dir`] an upper one; the sandbox runs the step on them;
//! [`Snapshots::diff`] reads from the upper directory what changed and makes a layer of
//! it; [`Snapshots::commit`] makes the upper directory the unpacked form of that layer.
//!
//! # On disk
//!
//! ```text
//! <dir>/<flavour>/               flavour = "root" or "user-<uid>": ids and marks differ
//!   layers/<hex of diff id>/     fs/ (the overlay form, see `overlay`), meta.json
//!   folds/<hex of chain id>/     the same for the lower part of a long chain
//!   empty/                       a lower directory for images without layers
//!   work/<random>/, <random>.lock  under construction; swept when the owner is gone
//! ```
//!
//! Invariants: a directory has its name only when it is complete and its tar had the
//! diff id; names appear by rename; nothing changes below a name afterwards, but the
//! time of last use (of `meta.json`). Processes may share the store.

mod access;
mod derived;
mod diff;
mod fold;
mod meta;
mod noise;
mod overlay;
mod packing;
mod sparse;
mod unpack;
mod workdir;
pub mod worker;

#[cfg(test)]
mod tests;

use std::{
    collections::HashSet,
    io::{self, Read},
    path::{Path, PathBuf},
    time::SystemTime,
};

use self::{
    meta::Meta,
    workdir::{Scratch, children},
};
use crate::{
    digest::{HashingReader, Sha256Digest},
    fs::{self, FsError, IoContext},
    oci::layer::{ChainId, DiffId, LayerError, LayerPath, Tree},
};

pub use access::{Access, Inside};
pub use diff::{DiffOptions, DiffSummary, Sink};
pub use packing::TreeMeasure;

/// Chains up to this length are given to overlayfs as they are.
const MAX_LOWERS: usize = 100;

/// Longer ones are folded in units of this many layers, so that steps that follow each
/// other share the fold.
const FOLD_UNIT: usize = 50;

/// A failure of the snapshot store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// A file or directory can't be had or changed.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// The layer's tar can't be read or written.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// The layer's tar is not the one asked for.
    #[error("layer has diff id `{actual}` instead of `{expected}`")]
    DiffId {
        /// What was asked for.
        expected: DiffId,
        /// What came.
        actual: DiffId,
    },
    /// The layer has a device node, which can't be made here.
    #[error("can't create device `{path}` ({major}, {minor})")]
    Device {
        /// The device.
        path: LayerPath,
        /// Its major number.
        major: u32,
        /// Its minor number.
        minor: u32,
    },
    /// The layer has an entry below something of its own that is no directory.
    #[error("`{path}` is used as a directory and is none")]
    NotADirectory {
        /// The path that is no directory.
        path: LayerPath,
    },
    /// The layer has a hard link to something that it doesn't have.
    #[error("hard link `{path}` points to `{target}`, which is no file of the layer")]
    HardLinkTarget {
        /// The link.
        path: LayerPath,
        /// What it points to.
        target: LayerPath,
    },
    /// The user namespace has no such owner.
    #[error("owner {uid}:{gid} of `{path}` doesn't exist in the user namespace")]
    OwnerNotMapped {
        /// The file.
        path: LayerPath,
        /// Its user.
        uid: u32,
        /// Its group.
        gid: u32,
    },
    /// A path has too many components.
    #[error("`{path}` lies deeper than {max} directories", max = unpack::MAX_DEPTH)]
    TooDeep {
        /// The path.
        path: LayerPath,
    },
    /// The layer is not unpacked.
    #[error("no unpacked layer at `{}`", path.display())]
    Missing {
        /// Where it would be.
        path: PathBuf,
    },
    /// A request to a helper, or its answer, can't be read.
    #[error("request or answer of a helper is damaged")]
    Protocol(#[source] serde_json::Error),
    /// A helper in the user namespace couldn't be started or talked to.
    #[error("can't run `{act}` in the user namespace")]
    Spawn {
        /// The hidden subcommand.
        act: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A helper in the user namespace failed.
    #[error("`{act}` failed in the user namespace: {message}")]
    Worker {
        /// The hidden subcommand.
        act: &'static str,
        /// Its error with all causes.
        message: String,
    },
}

/// The unpacked layers of one cache directory.
#[derive(Debug, Clone)]
pub struct Snapshots {
    dir: PathBuf,
    access: Access,
}

/// An unpacked layer, for garbage collection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Its name below the store: `layers/<hex>` or `folds/<hex>`.
    pub id: String,
    /// Bytes of file contents; those of folded layers are shared with others.
    pub bytes: u64,
    /// When it was used last.
    pub used: SystemTime,
}

/// The writable part of a step's root file system; removed when dropped.
#[derive(Debug)]
pub struct WorkDir {
    /// Overlayfs's upper directory.
    pub upper: PathBuf,
    /// Overlayfs's work directory.
    pub work: PathBuf,
    scratch: Scratch,
}

impl Snapshots {
    /// Opens the store in `dir`, which is made if needed, and sweeps what killed
    /// processes left.
    pub fn open(dir: &Path, access: Access) -> Result<Self, SnapshotError> {
        let flavour = match &access {
            Access::Root => "root".to_owned(),
            Access::UserNamespace(_) => format!("user-{}", rustix::process::getuid().as_raw()),
        };
        let dir = dir.join(flavour);
        for name in ["layers", "folds", "work", "empty"] {
            fs::create_dir_all(dir.join(name))?;
        }
        workdir::sweep(&dir, &access)?;
        Ok(Self { dir, access })
    }

    /// Whether the layer is unpacked. Counts as a use: garbage collection spares what a
    /// running build has used.
    pub fn contains(&self, diff_id: &DiffId) -> bool {
        let dir = self.layer(diff_id);
        Meta::touch(&dir);
        Meta::read(&dir).is_some()
    }

    /// Unpacks the uncompressed layer `tar`. Only if its SHA-256 is the diff id does the
    /// directory get its name. `progress` is told the bytes of tar read so far.
    pub fn unpack(
        &self,
        diff_id: &DiffId,
        tar: &mut dyn Read,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), SnapshotError> {
        let dest = self.layer(diff_id);
        if self.contains(diff_id) {
            return Ok(());
        }
        let scratch = Scratch::create(&self.dir, &self.access)?;
        let root = make_dir(scratch.path(), "fs")?;
        let mut tar = HashingReader::new(Watched {
            tar,
            read: 0,
            progress,
        });
        let meta = self.access.unpack(&root, &mut tar)?;
        let actual = DiffId(tar.hashes().sha256);
        if actual != *diff_id {
            return Err(SnapshotError::DiffId {
                expected: *diff_id,
                actual,
            });
        }
        meta.write(scratch.path())?;
        self.publish(scratch, &dest)
    }

    /// The lower directories of a chain for overlayfs, lowest first, at least one and at
    /// most about a hundred. All layers of the chain must be unpacked.
    pub fn lower_dirs(&self, chain: &[DiffId]) -> Result<Vec<PathBuf>, SnapshotError> {
        let mut layers = Vec::with_capacity(chain.len());
        for diff_id in topmost(chain) {
            let dir = self.layer(&diff_id);
            Meta::touch(&dir);
            let meta = Meta::read(&dir).ok_or(SnapshotError::Missing { path: dir.clone() })?;
            layers.push((diff_id, dir, meta));
        }
        // A layer that hides everything below is the lowest that counts.
        let lowest = layers.iter().rposition(|(_, _, meta)| meta.opaque_root);
        let layers = layers.split_off(lowest.unwrap_or(0));
        let incomplete = layers
            .iter()
            .rposition(|(_, _, meta)| !meta.implicit.is_empty());
        let folded = incomplete
            .map_or(0, |layer| layer + 1)
            .max(fold_length(layers.len()));
        let mut dirs = Vec::new();
        let mut rest = 0;
        // There is nothing to fold below a single layer.
        if folded > 1 {
            dirs.push(self.folded(&layers[..folded])?);
            rest = folded;
        }
        dirs.extend(layers[rest..].iter().map(|(_, dir, _)| dir.join("fs")));
        if dirs.is_empty() {
            dirs.push(self.dir.join("empty"));
        }
        Ok(dirs)
    }

    /// The directory that these layers are merged in.
    fn folded(&self, layers: &[(DiffId, PathBuf, Meta)]) -> Result<PathBuf, SnapshotError> {
        let chain_id = ChainId::of(layers.iter().map(|(diff_id, _, _)| *diff_id));
        let dest = self.dir.join("folds").join(chain_id.0.hex());
        if Meta::read(&dest).is_none() {
            let scratch = Scratch::create(&self.dir, &self.access)?;
            let root = make_dir(scratch.path(), "fs")?;
            let dirs: Vec<_> = layers.iter().map(|(_, dir, _)| dir.clone()).collect();
            let meta = self.access.fold(&root, &dirs)?;
            meta.write(scratch.path())?;
            self.publish(scratch, &dest)?;
        }
        Meta::touch(&dest);
        Ok(dest.join("fs"))
    }

    /// Makes the writable part for a step on the layers of `lower`. Its root directory
    /// has the attributes that the layers give to the root.
    pub fn work_dir(&self, lower: &Tree) -> Result<WorkDir, SnapshotError> {
        let scratch = Scratch::create(&self.dir, &self.access)?;
        let upper = make_dir(scratch.path(), "fs")?;
        let work = make_dir(scratch.path(), "work")?;
        let root = lower.get(&LayerPath::ROOT);
        self.access
            .set_root(&upper, root.as_ref().map(|found| &found.row.entry))?;
        Ok(WorkDir {
            upper,
            work,
            scratch,
        })
    }

    /// Sends what the step changed to `sink`, as the entries of a layer in canonical
    /// order, and normalises the upper directory: afterwards it is what unpacking that
    /// layer would give. The overlay must not be mounted any more.
    pub fn diff(
        &self,
        work: &WorkDir,
        lower: &Tree,
        options: &DiffOptions,
        sink: &mut Sink<'_>,
    ) -> Result<DiffSummary, SnapshotError> {
        let summary = self.access.diff(&work.upper, lower, options, sink)?;
        let meta = Meta {
            bytes: summary.bytes,
            ..Meta::default()
        };
        meta.write(work.scratch.path())?;
        Ok(summary)
    }

    /// Makes a work directory whose difference has been taken the unpacked form of the
    /// layer, unless there is one.
    pub fn commit(&self, work: WorkDir, diff_id: &DiffId) -> Result<(), SnapshotError> {
        if Meta::read(work.scratch.path()).is_none() {
            return Err(SnapshotError::Missing { path: work.upper });
        }
        self.access.remove(&work.work)?;
        self.publish(work.scratch, &self.layer(diff_id))
    }

    /// All unpacked layers.
    pub fn list(&self) -> Result<Vec<Snapshot>, SnapshotError> {
        let mut out = Vec::new();
        for kind in ["layers", "folds"] {
            for path in children(&self.dir.join(kind))? {
                let (Some(name), Some(used)) = (path.file_name(), Meta::last_use(&path)) else {
                    continue;
                };
                out.push(Snapshot {
                    id: format!("{kind}/{}", name.to_string_lossy()),
                    bytes: Meta::read(&path).map_or(0, |meta| meta.bytes),
                    used,
                });
            }
        }
        Ok(out)
    }

    /// Removes one that [`list`](Self::list) gave; that it is not there is no error. The
    /// caller makes sure that no step uses it.
    pub fn remove(&self, id: &str) -> Result<(), SnapshotError> {
        let known = id.split_once('/').is_some_and(|(kind, hex)| {
            matches!(kind, "layers" | "folds") && Sha256Digest::from_hex(hex).is_ok()
        });
        let path = self.dir.join(id);
        if !known || !fs::exists(&path) {
            return Ok(());
        }
        self.discard(&path)
    }

    /// Gives a finished directory its name.
    fn publish(&self, scratch: Scratch, dest: &Path) -> Result<(), SnapshotError> {
        if fs::exists(dest) && Meta::read(dest).is_none() {
            // Of another version, or damaged.
            self.discard(dest)?;
        }
        scratch.publish(dest)
    }

    /// Removes a snapshot directory. The name goes first, so that nobody finds half of it.
    fn discard(&self, path: &Path) -> Result<(), SnapshotError> {
        let scratch = Scratch::create(&self.dir, &self.access)?;
        match fs::rename(path, scratch.path().join("removed")) {
            Err(error) if !error.is_not_found() => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn layer(&self, diff_id: &DiffId) -> PathBuf {
        self.dir.join("layers").join(diff_id.0.hex())
    }
}

/// Tells how many bytes have been read.
struct Watched<'a> {
    tar: &'a mut dyn Read,
    read: u64,
    progress: &'a mut dyn FnMut(u64),
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.tar.read(buffer)?;
        self.read += n as u64;
        (self.progress)(self.read);
        Ok(n)
    }
}

/// The chain with only the topmost of equal layers: overlayfs refuses a directory that
/// is given twice, and a lower one of two equal layers has nothing to add.
fn topmost(chain: &[DiffId]) -> Vec<DiffId> {
    let mut seen = HashSet::new();
    let mut out: Vec<_> = chain
        .iter()
        .rev()
        .filter(|diff_id| seen.insert(**diff_id))
        .copied()
        .collect();
    out.reverse();
    out
}

/// How many layers of a chain of `length` are folded because there are too many.
fn fold_length(length: usize) -> usize {
    if length <= MAX_LOWERS {
        return 0;
    }
    (length - FOLD_UNIT) / FOLD_UNIT * FOLD_UNIT
}

/// Makes a directory for its owner only.
fn make_dir(parent: &Path, name: &str) -> Result<PathBuf, SnapshotError> {
    let path = parent.join(name);
    rustix::fs::mkdir(&path, rustix::fs::Mode::RWXU).at("create directory", &path)?;
    Ok(path)
}
