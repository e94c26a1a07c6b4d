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
    graph::{CacheSharing, ExecOp, MountOp, VertexId},
    oci::layer::Tree,
    sandbox::{Mount, MountKind, Scratch},
    snapshot::WorkDir,
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
    _scratch: Vec<WorkDir>,
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
        this.take_caches(attempt, id, op).await?;
        for mount in &op.mounts {
            match mount {
                MountOp::Bind {
                    from,
                    source,
                    target,
                    writable,
                } => {
                    let kind = this
                        .bind(attempt, id, runtime, inputs, *from, source, *writable)
                        .await?;
                    this.mounts.push(Mount {
                        target: target.clone(),
                        kind,
                    });
                }
                MountOp::Cache {
                    id: cache,
                    target,
                    readonly,
                    ..
                } => {
                    let name = cache_name(attempt, id, cache);
                    let Some(dir) = this.caches.get(&name) else {
                        continue;
                    };
                    this.mounts.push(Mount {
                        target: target.clone(),
                        kind: MountKind::Bind {
                            source: dir.path.clone(),
                            readonly: *readonly,
                        },
                    });
                }
                MountOp::Tmpfs { target, size } => this.mounts.push(Mount {
                    target: target.clone(),
                    kind: MountKind::Tmpfs {
                        size: *size,
                        mode: 0o1777,
                    },
                }),
            }
        }
        Ok(this)
    }

    /// The mounts for the sandbox.
    pub(super) fn list(&self) -> Vec<Mount> {
        self.mounts.clone()
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one mount")]
    async fn bind(
        &mut self,
        attempt: &Arc<Attempt>,
        id: VertexId,
        runtime: &Arc<Runtime>,
        inputs: &[(VertexId, Arc<VertexResult>)],
        from: VertexId,
        source: &str,
        writable: bool,
    ) -> Result<MountKind, BuildError> {
        let layers = inputs
            .iter()
            .find(|(input, _)| *input == from)
            .map(|(_, result)| result.as_ref().clone())
            .unwrap_or_else(VertexResult::empty);
        let lowers = attempt.lower_dirs(id, runtime, &layers.layers).await?;
        let runtime = Arc::clone(runtime);
        let work = blocking(move || {
            Ok(match writable {
                true => Some(runtime.snapshots.work_dir(&Tree::new(Vec::new()))?),
                false => None,
            })
        })
        .await?;
        let scratch = work.as_ref().map(|work| Scratch {
            upper: work.upper.clone(),
            work: work.work.clone(),
        });
        self._scratch.extend(work);
        Ok(MountKind::Overlay {
            lowers,
            source: source.to_owned(),
            scratch,
        })
    }

    /// Takes the directories of all cache mounts in the order of their names, so that two
    /// steps never wait for each other. A directory that is mounted twice is taken once.
    async fn take_caches(
        &mut self,
        attempt: &Attempt,
        id: VertexId,
        op: &ExecOp,
    ) -> Result<(), BuildError> {
        let mut wanted = BTreeMap::new();
        for mount in &op.mounts {
            if let MountOp::Cache { id: cache, .. } = mount {
                wanted
                    .entry(cache_name(attempt, id, cache))
                    .or_insert(mount);
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

/// The name of a cache mount's directory: by id and platform, so that architectures don't
/// mix.
fn cache_name(attempt: &Attempt, vertex: VertexId, id: &str) -> String {
    let platform = &attempt.session.graph.vertex(vertex).platform;
    Blake3Digest::of(format!("{platform}\n{id}").as_bytes()).hex()
}

/// The directory of a cache mount in the local store; none while another step has it.
fn try_cache_dir(base: &Path, name: &str, mount: &MountOp) -> Result<Option<CacheDir>, BuildError> {
    let MountOp::Cache {
        sharing,
        mode,
        uid,
        gid,
        ..
    } = mount
    else {
        return Ok(None);
    };
    fs::create_dir_all(base)?;
    let lock_path = base.join(format!("{name}.lock"));
    let lock = match sharing {
        CacheSharing::Shared => FileLock::try_shared(&lock_path)?,
        CacheSharing::Locked | CacheSharing::Private => FileLock::try_exclusive(&lock_path)?,
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
        fs::create_dir_owned(&path, *mode, *uid, *gid)?;
    }
    Ok(Some(CacheDir {
        path,
        _lock: lock,
        _private: private,
    }))
}
