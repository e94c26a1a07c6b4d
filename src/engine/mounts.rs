//! What a RUN sees besides its root file system.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{BuildError, VertexResult, attempt::Attempt, exec::Runtime, session::blocking};
use crate::{
    digest::Blake3Digest,
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
    /// Directories of the cache mounts, by the name of their identity.
    caches: BTreeMap<String, CacheDir>,
    scratch: Vec<WorkDir>,
    relays: Vec<Relay>,
}

/// The directory of a cache mount, held as long as the step runs.
#[derive(Debug)]
struct CacheDir {
    path: PathBuf,
    _lock: Option<FileLock>,
    _private: Option<tempfile::TempDir>,
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
        this.take_caches(attempt, id, op, inputs).await?;
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
        let name = cache_name(attempt, id, inputs, mount);
        let Some(dir) = self.caches.get(&name).map(|cache| cache.path.clone()) else {
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
        op: &ExecOp,
        inputs: &[(VertexId, Arc<VertexResult>)],
    ) -> Result<(), BuildError> {
        let mut wanted = BTreeMap::new();
        for mount in &op.mounts {
            if matches!(mount, MountOp::Cache { .. }) {
                let name = cache_name(attempt, id, inputs, mount);
                wanted.entry(name).or_insert(mount);
            }
        }
        let base = attempt.session.engine.store.dir().join("mounts");
        for (name, mount) in wanted {
            let dir = loop {
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
            self.caches.insert(name, dir);
        }
        Ok(())
    }
}

/// How often a cache mount that another step has locked is asked for.
const LOCK_POLL: Duration = Duration::from_millis(50);

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

/// The name of a cache mount's directory: by id and platform, so that architectures don't
/// mix; a cache that starts with other files, or with another owner, is another one.
fn cache_name(
    attempt: &Attempt,
    vertex: VertexId,
    inputs: &[(VertexId, Arc<VertexResult>)],
    mount: &MountOp,
) -> String {
    let MountOp::Cache {
        id, from, owner, ..
    } = mount
    else {
        return String::new();
    };
    let platform = &attempt.session.graph.vertex(vertex).platform;
    let mut text = format!("{platform}\n{id}");
    if let Some((_, result)) = inputs.iter().find(|(input, _)| Some(*input) == *from) {
        text.push_str(&format!("\nfrom {}", result.chain.0));
    }
    if let Some(FileOwner { mode, uid, gid }) = owner {
        text.push_str(&format!("\nowner {mode:o} {uid} {gid}"));
    }
    Blake3Digest::of(text.as_bytes()).hex()
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
        _private: private,
    }))
}
