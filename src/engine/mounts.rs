//! What a RUN sees besides its root file system.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{
    BuildError, VertexResult, attempt::Attempt, exec::Runtime, mount_trees::MountIdentity,
    session::blocking,
};
use crate::{
    fs::{self, FileLock},
    graph::{CacheSharing, ExecOp, FileOwner, MountOp, VertexId},
    oci::layer::Tree,
    sandbox::{Mount, MountKind, Scratch},
    snapshot::WorkDir,
    ssh::Relay,
};

/// Where `--ca-certificates` shows the bundle.
pub(super) const CA_BUNDLE: &str = "/run/memobuild/ca-certificates.crt";

/// The variables by which programs find a CA bundle: OpenSSL, curl, Git, Python's
/// requests and pip, Node.js, cargo, the AWS tools.
pub(super) const CA_VARIABLES: [&str; 8] = [
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
    "NODE_EXTRA_CA_CERTS",
    "CARGO_HTTP_CAINFO",
    "AWS_CA_BUNDLE",
];

/// The mounts of one step, with what must live as long as they do.
#[derive(Debug, Default)]
pub(super) struct StepMounts {
    mounts: Vec<Mount>,
    /// Directories of the cache mounts, by their names.
    caches: BTreeMap<String, CacheDir>,
    scratch: Vec<WorkDir>,
    relays: Vec<Relay>,
}

/// The directory of a cache mount, held as long as the step runs.
#[derive(Debug)]
struct CacheDir {
    path: PathBuf,
    _lock: Option<FileLock>,
    private: Option<tempfile::TempDir>,
    /// What it is, if the step may change it for those that come after it.
    kept: Option<MountIdentity>,
}

impl StepMounts {
    /// Unpacks, locks and makes what the step's mounts need.
    pub(super) async fn prepare(
        attempt: &Arc<Attempt>,
        id: VertexId,
        runtime: &Arc<Runtime>,
        op: &ExecOp,
        inputs: &[(VertexId, Arc<VertexResult>)],
    ) -> Result<Self, BuildError> {
        let mut this = Self::default();
        if let Some(bundle) = &attempt.session.engine.options.ca_certificates {
            this.mounts.push(Mount {
                target: CA_BUNDLE.to_owned(),
                kind: MountKind::Bind {
                    source: bundle.clone(),
                    readonly: true,
                },
            });
        }
        this.take_caches(attempt, id, runtime, op, inputs).await?;
        for mount in &op.mounts {
            match mount {
                MountOp::Bind {
                    from,
                    source,
                    target,
                    writable,
                } => {
                    let scratch = match writable {
                        true => Some(this.scratch(runtime).await?),
                        false => None,
                    };
                    let lowers = lowers(attempt, id, runtime, inputs, *from).await?;
                    let kind = MountKind::Overlay {
                        lowers,
                        source: source.clone(),
                        scratch,
                    };
                    this.add(target, kind);
                }
                MountOp::Cache { .. } => this.cache(attempt, id, runtime, inputs, mount).await?,
                MountOp::Tmpfs {
                    target,
                    size,
                    readonly,
                } => {
                    let (size, readonly) = (*size, *readonly);
                    this.add(target, MountKind::Tmpfs { size, readonly });
                }
                MountOp::Secret {
                    id: secret,
                    target,
                    required,
                    owner,
                } => match attempt.session.engine.options.secrets.get(secret) {
                    Some(content) => {
                        let (content, owner) = (content.clone(), *owner);
                        this.add(target, MountKind::Secret { content, owner });
                    }
                    None if *required => return Err(attempt.missing_secret(id, secret)),
                    None => {}
                },
                MountOp::Ssh {
                    id: agent,
                    target,
                    required,
                    owner,
                } => this.agent(attempt, id, agent, target, *required, *owner)?,
            }
        }
        this.devices(op);
        Ok(this)
    }

    fn add(&mut self, target: &str, kind: MountKind) {
        self.mounts.push(Mount {
            target: target.to_owned(),
            kind,
        });
    }

    fn devices(&mut self, op: &ExecOp) {
        for device in &op.extras.devices {
            for node in &device.nodes {
                let kind = MountKind::Device {
                    source: node.host.clone(),
                    mode: node.mode,
                    uid: node.uid,
                    gid: node.gid,
                };
                self.add(&node.path, kind);
            }
            for mount in &device.mounts {
                let kind = MountKind::Bind {
                    source: mount.host.clone(),
                    readonly: mount.readonly,
                };
                self.add(&mount.target, kind);
            }
        }
    }

    /// A socket that leads to an agent as long as the step runs.
    fn agent(
        &mut self,
        attempt: &Attempt,
        id: VertexId,
        agent: &str,
        target: &str,
        required: bool,
        owner: FileOwner,
    ) -> Result<(), BuildError> {
        let options = &attempt.session.engine.options;
        let Some(socket) = options.agents.socket(agent) else {
            return match required {
                false => Ok(()),
                true => Err(BuildError::MissingAgent {
                    step: attempt.failed_step(id),
                    id: agent.to_owned(),
                }),
            };
        };
        let relay = Relay::start(socket, &options.temp_dir).map_err(|source| BuildError::Ssh {
            step: attempt.failed_step(id),
            source,
        })?;
        let source = relay.path().to_owned();
        self.relays.push(relay);
        self.add(target, MountKind::Socket { source, owner });
        Ok(())
    }

    /// A cache that was taken before. One that starts with somebody's files has them below
    /// what the steps changed.
    async fn cache(
        &mut self,
        attempt: &Arc<Attempt>,
        id: VertexId,
        runtime: &Arc<Runtime>,
        inputs: &[(VertexId, Arc<VertexResult>)],
        mount: &MountOp,
    ) -> Result<(), BuildError> {
        let MountOp::Cache {
            from,
            source,
            target,
            readonly,
            ..
        } = mount
        else {
            return Ok(());
        };
        let identity = MountIdentity::of(attempt, id, inputs, mount);
        let taken = identity.and_then(|identity| self.caches.get(&identity.dir_name()));
        let Some(dir) = taken.map(|cache| cache.path.clone()) else {
            return Ok(());
        };
        let kind = match from {
            None => MountKind::Inside {
                dir,
                path: source.clone(),
                readonly: *readonly,
            },
            Some(from) => {
                let scratch = Scratch {
                    upper: dir,
                    kept: true,
                    ..self.scratch(runtime).await?
                };
                MountKind::Overlay {
                    lowers: lowers(attempt, id, runtime, inputs, *from).await?,
                    source: source.clone(),
                    scratch: Some(scratch),
                }
            }
        };
        self.add(target, kind);
        Ok(())
    }

    /// The mounts for the sandbox.
    pub(super) fn list(&self) -> Vec<Mount> {
        self.mounts.clone()
    }

    /// The cache mounts that the step may have changed for those that come after it.
    pub(super) fn changed_caches(&self) -> Vec<MountIdentity> {
        let caches = self.caches.values();
        caches.filter_map(|cache| cache.kept.clone()).collect()
    }

    /// Directories for an overlay, until the step is over.
    async fn scratch(&mut self, runtime: &Arc<Runtime>) -> Result<Scratch, BuildError> {
        let runtime = Arc::clone(runtime);
        let work = blocking(move || Ok(runtime.snapshots.work_dir(&Tree::new(Vec::new()))?));
        let work = work.await?;
        let scratch = Scratch {
            upper: work.upper.clone(),
            work: work.work.clone(),
            kept: false,
        };
        self.scratch.push(work);
        Ok(scratch)
    }

    /// Takes the directories of all cache mounts in the order of their names, so that two
    /// steps never wait for each other. A directory that is mounted twice is taken once.
    async fn take_caches(
        &mut self,
        attempt: &Attempt,
        id: VertexId,
        runtime: &Arc<Runtime>,
        op: &ExecOp,
        inputs: &[(VertexId, Arc<VertexResult>)],
    ) -> Result<(), BuildError> {
        let mut wanted = BTreeMap::new();
        for mount in &op.mounts {
            if let Some(identity) = MountIdentity::of(attempt, id, inputs, mount) {
                let name = identity.dir_name();
                let (_, _, writable) = wanted.entry(name).or_insert((mount, identity, false));
                *writable |= !matches!(mount, MountOp::Cache { readonly: true, .. });
            }
        }
        let identities = wanted.values().map(|(_, identity, _)| identity);
        attempt.restore_mounts(runtime, identities).await?;
        let base = attempt.session.mounts_dir();
        for (name, (mount, identity, writable)) in wanted {
            let mut dir = loop {
                let (base, name, mount) = (base.clone(), name.clone(), mount.clone());
                if let Some(dir) = blocking(move || try_cache_dir(&base, &name, &mount)).await? {
                    break dir;
                }
                // Another build's step has it, which tells nobody when it ends.
                tokio::select! {
                    () = tokio::time::sleep(LOCK_POLL) => {}
                    () = attempt.halt.cancelled() => return Err(BuildError::Interrupted),
                }
            };
            dir.kept = (writable && dir.private.is_none()).then_some(identity);
            self.caches.insert(name, dir);
        }
        Ok(())
    }
}

/// How often a cache mount that another step has locked is asked for.
pub(super) const LOCK_POLL: Duration = Duration::from_millis(50);

/// The unpacked layers of an input.
async fn lowers(
    attempt: &Arc<Attempt>,
    id: VertexId,
    runtime: &Arc<Runtime>,
    inputs: &[(VertexId, Arc<VertexResult>)],
    from: VertexId,
) -> Result<Vec<PathBuf>, BuildError> {
    match inputs.iter().find(|(input, _)| *input == from) {
        Some((_, result)) => attempt.lower_dirs(id, runtime, &result.layers).await,
        None => Ok(Vec::new()),
    }
}

/// Mode and owner of a cache directory that was given none.
const CACHE_OWNER: FileOwner = FileOwner {
    mode: 0o755,
    uid: 0,
    gid: 0,
};

/// The directory of a cache mount in the local store; none while another step has it.
fn try_cache_dir(base: &Path, name: &str, mount: &MountOp) -> Result<Option<CacheDir>, BuildError> {
    let MountOp::Cache {
        sharing,
        owner,
        from,
        ..
    } = mount
    else {
        return Ok(None);
    };
    fs::create_dir_all(base)?;
    let lock_path = base.join(format!("{name}.lock"));
    let lock = match (sharing, from) {
        // Two overlays can't have one upper directory.
        (CacheSharing::Shared, Some(_)) => FileLock::try_exclusive(&lock_path)?,
        (CacheSharing::Shared, None) => FileLock::try_shared(&lock_path)?,
        (CacheSharing::Locked | CacheSharing::Private, _) => FileLock::try_exclusive(&lock_path)?,
    };
    if lock.is_some() {
        // A use that can't be noted makes it look older than it is.
        let _ = fs::touch(&lock_path);
    }
    let private = match (sharing, &lock) {
        (CacheSharing::Shared | CacheSharing::Locked, None) => return Ok(None),
        (CacheSharing::Private, None) => Some(fs::temp_dir_in(base)?),
        _ => None,
    };
    let path = private
        .as_ref()
        .map_or_else(|| base.join(name), |private| private.path().to_owned());
    if private.is_some() || !fs::exists(&path) {
        let FileOwner { mode, uid, gid } = owner.unwrap_or(CACHE_OWNER);
        fs::create_dir_owned(&path, mode, uid, gid)?;
    }
    Ok(Some(CacheDir {
        path,
        _lock: lock,
        private,
        kept: None,
    }))
}
