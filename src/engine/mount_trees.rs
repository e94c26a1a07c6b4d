//! The trees of cache mounts in the tiers: restored before a step needs them, saved after the build.
//!
//! A tree is an entry of [`KeyKind::CacheMount`] under a key made of what tells one cache mount from
//! another, and its layer is the packed directory. The key says nothing of the content: the newest
//! entry of a scope counts, and what a mount holds is in no key of a step. Both only happen where
//! [`mount_limit`](super::EngineOptions::mount_limit) is set.
//!
//! Invariants: a directory has its name only when all of its tree was found right; a directory is
//! packed only while no step uses it. Trouble is an empty cache, or one that isn't saved, and a warning.

use std::{
    collections::BTreeMap,
    io::{self, Read},
    ops::Range,
    path::PathBuf,
    sync::{Arc, PoisonError},
    time::Instant,
};

use super::{
    BuildError, Session, VertexResult,
    attempt::{Attempt, millis, unix_now},
    bytes::layer_error,
    exec::Runtime,
    mount_dirs,
    mount_state::KnownTree,
    mounts::LOCK_POLL,
    session::blocking,
};
use crate::{
    cache::{
        ActionResult, DiskStore, FoundAction, RECORD_VERSION, SaveJob, Saver, Scope, StepInfo,
    },
    digest::{Blake3Digest, Sha256Digest},
    event::BuildEvent,
    fs::{self, FileLock},
    graph::{FileOwner, MountOp, VertexId},
    key::{CacheKey, KeyKind, KeyRecipe},
    oci::{
        Platform,
        layer::{
            ChainId, DiffId, LayerBlob, LayerBuilder, LayerError, LayerOptions, LayerPath,
            decompress,
        },
    },
    snapshot::SnapshotError,
};

/// What tells one cache mount from another: id and platform, so that architectures don't mix; a
/// cache that starts with other files, or with another owner, is another one.
#[derive(Debug, Clone)]
pub(super) struct MountIdentity {
    id: String,
    platform: Platform,
    from: Option<ChainId>,
    owner: Option<FileOwner>,
}

impl MountIdentity {
    /// That of a cache mount of `vertex`; none for other mounts.
    pub(super) fn of(
        attempt: &Attempt,
        vertex: VertexId,
        inputs: &[(VertexId, Arc<VertexResult>)],
        mount: &MountOp,
    ) -> Option<Self> {
        let MountOp::Cache {
            id, from, owner, ..
        } = mount
        else {
            return None;
        };
        let from = inputs.iter().find(|(input, _)| Some(*input) == *from);
        Some(Self {
            id: id.clone(),
            platform: (*attempt.session.graph.vertex(vertex).platform).clone(),
            from: from.map(|(_, result)| result.chain),
            owner: *owner,
        })
    }

    /// The name of its directory in the local store.
    pub(super) fn dir_name(&self) -> String {
        let mut text = format!("{}\n{}", self.platform, self.id);
        if let Some(chain) = self.from {
            text.push_str(&format!("\nfrom {}", chain.0));
        }
        if let Some(FileOwner { mode, uid, gid }) = self.owner {
            text.push_str(&format!("\nowner {mode:o} {uid} {gid}"));
        }
        Blake3Digest::of(text.as_bytes()).hex()
    }

    /// The recipe of its key in the tiers.
    fn recipe(&self) -> KeyRecipe {
        let mut recipe = KeyRecipe::new(KeyKind::CacheMount);
        recipe
            .display("platform", &self.platform)
            .part("id", &self.id);
        if let Some(chain) = self.from {
            recipe.display("from", chain.0);
        }
        if let Some(FileOwner { mode, uid, gid }) = self.owner {
            recipe.part("owner", format!("{mode:o} {uid} {gid}"));
        }
        recipe
    }
}

/// A cache mount that a step has used.
#[derive(Debug, Clone)]
pub(super) struct UsedMount {
    identity: MountIdentity,
    step: StepInfo,
}

/// A directory of a cache mount, packed into the local store.
#[derive(Debug)]
struct PackedTree {
    layer: LayerBlob,
    ends: Vec<u64>,
}

/// What the tiers have of a cache mount.
#[derive(Debug, Default)]
struct Known {
    diff_id: Option<DiffId>,
    /// Numbers of the tiers before the one that has it, if one of them may be given it.
    nearer: Option<Range<usize>>,
}

impl Known {
    /// What was found. Nearer tiers are given only what is of the scope that this build writes: it
    /// vouches for no other.
    fn of(found: Option<FoundAction>, own: &Scope, saver: &Saver) -> Self {
        let Some(FoundAction { result, tier }) = found else {
            return Self::default();
        };
        let nearer = 0..tier.unwrap_or_default();
        let wanted = result.scope == *own && saver.reaches(&nearer);
        Self {
            diff_id: result.layer.map(|layer| layer.diff_id),
            nearer: wanted.then_some(nearer),
        }
    }
}

/// What came of packing a directory.
#[derive(Debug)]
enum Packed {
    Tree(PackedTree),
    /// It is what a tier has, and wanted all the same.
    Same(PackedTree),
    /// It is what the tiers have, or empty.
    Unchanged,
    /// Another build uses it.
    Busy,
    TooLarge {
        bytes: u64,
    },
}

impl Attempt {
    /// Brings the trees of those of a step's cache mounts that are not on this machine. One
    /// that can't be had is left to be made empty.
    pub(super) async fn restore_mounts(
        &self,
        runtime: &Arc<Runtime>,
        mounts: impl Iterator<Item = &MountIdentity>,
    ) -> Result<(), BuildError> {
        let session = &self.session;
        let Some(limit) = session.engine.options.mount_limit else {
            return Ok(());
        };
        if !session.tiers.has_tiers() {
            return Ok(());
        }
        let base = session.mounts_dir();
        let missing: Vec<&MountIdentity> = mounts
            .filter(|mount| !fs::exists(base.join(mount.dir_name())))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        let keys: Vec<CacheKey> = missing.iter().map(|m| m.recipe().key()).collect();
        let found = tokio::select! {
            found = session.tiers.lookup_mounts(&keys) => found,
            () = self.halt.cancelled() => return Err(BuildError::Interrupted),
        };
        for (mount, found) in missing.into_iter().zip(found) {
            let Some(found) = found else { continue };
            match self.restore_mount(runtime, mount, &found, limit).await {
                Err(BuildError::Interrupted) => return Err(BuildError::Interrupted),
                Err(error) => {
                    let (id, why) = (&mount.id, with_causes(&error));
                    let message = format!("the cache mount `{id}` starts empty: {why}");
                    session.engine.events.warn(message, None);
                }
                Ok(()) => {}
            }
        }
        Ok(())
    }

    async fn restore_mount(
        &self,
        runtime: &Arc<Runtime>,
        mount: &MountIdentity,
        found: &FoundAction,
        limit: u64,
    ) -> Result<(), BuildError> {
        let Some(layer) = &found.result.layer else {
            return Ok(());
        };
        let started = Instant::now();
        let dest = self.session.mounts_dir().join(mount.dir_name());
        let lock_path = dest.with_extension("lock");
        fs::create_dir_all(self.session.mounts_dir())?;
        let _lock = loop {
            // Who is faster restores it, or makes it.
            if fs::exists(&dest) {
                return Ok(());
            }
            if let Some(lock) = FileLock::try_exclusive(&lock_path)? {
                break lock;
            }
            tokio::select! {
                () = tokio::time::sleep(LOCK_POLL) => {}
                () = self.halt.cancelled() => return Err(BuildError::Interrupted),
            }
        };
        if fs::exists(&dest) {
            return Ok(());
        }
        // Verified before a byte of it is unpacked.
        let fetched = tokio::select! {
            fetched = self.session.tiers.fetch(layer.digest, Some(layer.size)) => fetched?,
            () = self.halt.cancelled() => return Err(BuildError::Interrupted),
        };
        if fetched.is_none() {
            // What was wrong with it has been said.
            return Ok(());
        }
        let (runtime, store) = (Arc::clone(runtime), Arc::clone(&self.session.engine.store));
        let blob = layer.clone();
        blocking(move || {
            let unpacked = unpack(&runtime, &store, &blob, &dest, limit);
            // The directory is all that is wanted of it.
            let _ = store.discard_blob(&blob.digest);
            unpacked?;
            // At worst it is packed for nothing.
            let _ = KnownTree::note(&runtime.snapshots, &dest, blob.diff_id);
            Ok(())
        })
        .await?;
        let tier = found.tier.and_then(|n| self.session.tiers.tier_name(n));
        self.session.engine.events.send(BuildEvent::MountRestored {
            id: mount.id.clone(),
            tier: tier.unwrap_or_default().to_owned(),
            scope: found.result.scope.to_string(),
            bytes: layer.size,
            ms: millis(started),
        });
        Ok(())
    }

    /// Notes cache mounts of a step that has succeeded.
    pub(super) fn note_used(&self, id: VertexId, mounts: Vec<MountIdentity>) {
        let session = &self.session;
        if session.engine.options.mount_limit.is_none() {
            return;
        }
        let vertex = session.graph.vertex(id);
        let step = StepInfo {
            name: vertex.name.clone(),
            instruction: vertex.instruction.clone(),
            target: vertex.target.to_string(),
            platform: (*vertex.platform).clone(),
        };
        let mut used = session
            .used_mounts
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        used.extend(mounts.into_iter().map(|identity| {
            let step = step.clone();
            (identity.dir_name(), UsedMount { identity, step })
        }));
    }
}

fn unpack(
    runtime: &Runtime,
    store: &DiskStore,
    layer: &LayerBlob,
    dest: &std::path::Path,
    limit: u64,
) -> Result<(), BuildError> {
    let gone = || BuildError::Internal {
        what: format!(
            "blob `{}` vanished right after it was fetched",
            layer.digest
        ),
    };
    let mut blob = store.open_blob_verified(&layer.digest)?.ok_or_else(gone)?;
    let mut tar = Limited {
        tar: decompress(&mut blob, &layer.media_type)?,
        left: limit,
        limit,
    };
    Ok(runtime
        .snapshots
        .unpack_to(dest, &layer.diff_id, &mut tar)?)
}

impl Session {
    pub(super) fn mounts_dir(&self) -> PathBuf {
        mount_dirs::place(&self.engine.store)
    }

    /// Packs the cache mounts that steps of this build have used and gives those that have changed to
    /// the saver; gives what it put into the local store for that.
    pub(super) async fn save_mounts(&self, deadline: Instant) -> Vec<Sha256Digest> {
        let used: BTreeMap<String, UsedMount> = {
            let mut used = self
                .used_mounts
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut used)
        };
        let saver = self.tiers.saver();
        let (Some(limit), Some(runtime)) = (self.engine.options.mount_limit, self.runtime.get())
        else {
            return Vec::new();
        };
        if used.is_empty() || !saver.is_active() || self.engine.stop.is_cancelled() {
            return Vec::new();
        }
        let recipes: Vec<KeyRecipe> = used.values().map(|m| m.identity.recipe()).collect();
        let keys: Vec<CacheKey> = recipes.iter().map(KeyRecipe::key).collect();
        let found = self.tiers.lookup_mounts(&keys).await;
        let mut packed = Vec::new();
        for (((name, mount), recipe), found) in used.into_iter().zip(recipes).zip(found) {
            let known = Known::of(found, self.engine.options.scopes.own(), saver);
            let nearer = known.nearer.clone();
            let id = mount.identity.id.clone();
            let (tree, tiers) = match self.pack(runtime, name, known, limit, deadline).await {
                Ok(Packed::Tree(tree)) => (tree, None),
                Ok(Packed::Same(tree)) => (tree, nearer),
                Ok(Packed::Unchanged) => continue,
                Ok(Packed::TooLarge { bytes }) => {
                    let event = BuildEvent::MountTooLarge { id, bytes, limit };
                    self.engine.events.send(event);
                    continue;
                }
                _ if self.engine.stop.is_cancelled() => break,
                Ok(Packed::Busy) => {
                    self.not_saved(&id, "another build is using it");
                    continue;
                }
                Err(_) if Instant::now() >= deadline => {
                    self.not_saved(&id, "the time for saving is up");
                    break;
                }
                Err(error) => {
                    self.not_saved(&id, &with_causes(&error));
                    continue;
                }
            };
            packed.push(tree.layer.digest);
            let job = SaveJob {
                entries: vec![self.mount_entry(&recipe, mount.step, tree.layer)],
                ends: tree.ends,
                tiers,
                source: None,
            };
            saver.save_anyway(job).await;
        }
        packed
    }

    fn not_saved(&self, id: &str, why: &str) {
        let message = format!("the cache mount `{id}` was not saved: {why}");
        self.engine.events.warn(message, None);
    }

    fn mount_entry(&self, recipe: &KeyRecipe, step: StepInfo, layer: LayerBlob) -> ActionResult {
        ActionResult {
            version: RECORD_VERSION,
            key: recipe.key(),
            kind: recipe.kind(),
            step,
            parent: ChainId::empty(),
            inputs: Vec::new(),
            layer: Some(layer),
            recipe: recipe.stored(),
            duration_ms: 0,
            created: unix_now(),
            producer: self.engine.options.producer.clone(),
            scope: self.engine.options.scopes.own().clone(),
            signature: None,
        }
    }

    /// Packs one directory into the local store, if it is wanted in a tier. `known` is what the tiers have.
    async fn pack(
        &self,
        runtime: &Arc<Runtime>,
        name: String,
        known: Known,
        limit: u64,
        deadline: Instant,
    ) -> Result<Packed, BuildError> {
        let dir = self.mounts_dir().join(name);
        let (runtime, store) = (Arc::clone(runtime), Arc::clone(&self.engine.store));
        let (options, stop) = (self.engine.options.layer, self.engine.stop.clone());
        blocking(move || {
            let Some(_lock) = FileLock::try_exclusive(dir.with_extension("lock"))? else {
                return Ok(Packed::Busy);
            };
            let size = runtime.snapshots.measure(&dir)?;
            // What is not worth packing. The tar is a little larger.
            if size.bytes > limit {
                return Ok(Packed::TooLarge { bytes: size.bytes });
            }
            // An empty directory is as good as none, and no reason to replace a full one.
            if size.entries <= 1 {
                return Ok(Packed::Unchanged);
            }
            let is = |known| KnownTree::read(&dir).is_some_and(|tree| tree.is(&size, known));
            if known.nearer.is_none() && known.diff_id.is_some_and(is) {
                return Ok(Packed::Unchanged);
            }
            let hurry = || stop.is_cancelled() || Instant::now() >= deadline;
            pack_tree(&runtime, &store, &dir, options, &known, limit, &hurry)
        })
        .await
    }
}

/// Packs a directory into the local store, unless all tiers have it. Fails once `hurry` says so.
fn pack_tree(
    runtime: &Runtime,
    store: &DiskStore,
    dir: &std::path::Path,
    options: LayerOptions,
    known: &Known,
    limit: u64,
    hurry: &dyn Fn() -> bool,
) -> Result<Packed, BuildError> {
    let mut builder = LayerBuilder::new(store.writer()?, options);
    let packed = runtime.snapshots.pack(dir, &mut |entry, content| {
        if hurry() {
            return Err(out_of_time(&entry.path));
        }
        match content {
            Some(content) => builder.append(entry, Some(&mut Hurried { content, hurry })),
            None => builder.append(entry, None),
        }
    });
    match packed {
        Err(SnapshotError::Layer(error)) => return Err(layer_error(store, error)),
        packed => packed?,
    };
    let (out, built) = builder
        .finish()
        .map_err(|error| layer_error(store, error))?;
    // At worst it is packed again.
    let _ = KnownTree::note(&runtime.snapshots, dir, built.diff_id);
    let same = known.diff_id == Some(built.diff_id);
    if same && known.nearer.is_none() {
        return Ok(Packed::Unchanged);
    }
    if built.tar_size > limit {
        let bytes = built.tar_size;
        return Ok(Packed::TooLarge { bytes });
    }
    out.commit(Some(built.digest))?;
    let tree = PackedTree {
        // Nobody looks at single files of it.
        layer: built.blob(None),
        ends: built.index.frame_ends(),
    };
    Ok(match same {
        true => Packed::Same(tree),
        false => Packed::Tree(tree),
    })
}

/// A tar that fails to be read beyond the limit: what a blob unpacks to is not known before.
struct Limited<R> {
    tar: R,
    left: u64,
    limit: u64,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.tar.read(buf)?;
        self.left = self.left.checked_sub(n as u64).ok_or_else(|| {
            let message = format!("it is larger than the limit of {} bytes", self.limit);
            io::Error::new(io::ErrorKind::FileTooLarge, message)
        })?;
        Ok(n)
    }
}

/// Content that fails to be read once there is no time left.
struct Hurried<'a> {
    content: &'a mut dyn Read,
    hurry: &'a dyn Fn() -> bool,
}

impl Read for Hurried<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match (self.hurry)() {
            true => Err(io::ErrorKind::TimedOut.into()),
            false => self.content.read(buf),
        }
    }
}

fn out_of_time(path: &LayerPath) -> LayerError {
    LayerError::ReadContent {
        path: path.clone(),
        source: io::ErrorKind::TimedOut.into(),
    }
}

/// The error and its causes on one line.
fn with_causes(error: &BuildError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let next = error.to_string();
        // Some errors repeat what they were caused by.
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> MountIdentity {
        MountIdentity {
            id: "/root/.cache".to_owned(),
            platform: "linux/amd64".parse().unwrap(),
            from: None,
            owner: None,
        }
    }

    #[test]
    fn names_and_keys_tell_mounts_apart() {
        let owner = FileOwner {
            mode: 0o700,
            uid: 1,
            gid: 2,
        };
        let others = [
            identity(),
            MountIdentity {
                id: "other".to_owned(),
                ..identity()
            },
            MountIdentity {
                platform: "linux/arm64".parse().unwrap(),
                ..identity()
            },
            MountIdentity {
                from: Some(ChainId::empty()),
                ..identity()
            },
            MountIdentity {
                owner: Some(owner),
                ..identity()
            },
            MountIdentity {
                owner: Some(FileOwner { uid: 3, ..owner }),
                ..identity()
            },
        ];
        let names: std::collections::BTreeSet<_> = others.iter().map(|m| m.dir_name()).collect();
        assert_eq!(names.len(), others.len());
        let keys: std::collections::BTreeSet<_> = others.iter().map(|m| m.recipe().key()).collect();
        assert_eq!(keys.len(), others.len());
    }

    #[test]
    fn the_key_is_stable() {
        let key = identity().recipe().key();
        assert_eq!(
            key.0.hex(),
            "4580747777453b5c397eaec95990c2692bcb1a9da65520dafdb12be4a09599d5",
            "other machines have it"
        );
    }
}
