//! What a RUN sees besides its root file system.

use std::{path::PathBuf, sync::Arc};

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
    _scratch: Vec<WorkDir>,
    _locks: Vec<FileLock>,
    _private: Vec<tempfile::TempDir>,
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
                    target, readonly, ..
                } => {
                    let source = this.cache_dir(attempt, id, mount).await?;
                    this.mounts.push(Mount {
                        target: target.clone(),
                        kind: MountKind::Bind {
                            source,
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
        attempt.unpack(id, runtime, &layers.layers).await?;
        let runtime = Arc::clone(runtime);
        let (lowers, work) = blocking(move || {
            let lowers = runtime.snapshots.lower_dirs(&layers.diff_ids())?;
            let work = match writable {
                true => Some(runtime.snapshots.work_dir(&Tree::new(Vec::new()))?),
                false => None,
            };
            Ok((lowers, work))
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

    /// The directory of a cache mount in the local store: by id and platform, so that
    /// architectures don't mix.
    async fn cache_dir(
        &mut self,
        attempt: &Arc<Attempt>,
        vertex: VertexId,
        mount: &MountOp,
    ) -> Result<PathBuf, BuildError> {
        let MountOp::Cache {
            id,
            sharing,
            mode,
            uid,
            gid,
            ..
        } = mount.clone()
        else {
            return Err(BuildError::Internal {
                what: "not a cache mount".to_owned(),
            });
        };
        let platform = attempt.session.graph.vertex(vertex).platform.to_string();
        let name = Blake3Digest::of(format!("{platform}\n{id}").as_bytes()).hex();
        let base = attempt.session.engine.store.dir().join("mounts");
        let (dir, lock, private) = blocking(move || {
            fs::create_dir_all(&base)?;
            let dir = base.join(&name);
            let lock_path = base.join(format!("{name}.lock"));
            let (lock, private) = match sharing {
                CacheSharing::Shared => (Some(FileLock::shared(&lock_path)?), None),
                CacheSharing::Locked => (Some(FileLock::exclusive(&lock_path)?), None),
                CacheSharing::Private => match FileLock::try_exclusive(&lock_path)? {
                    Some(lock) => (Some(lock), None),
                    None => (None, Some(fs::temp_dir_in(&base)?)),
                },
            };
            let dir = private
                .as_ref()
                .map_or(dir, |private: &tempfile::TempDir| private.path().to_owned());
            if private.is_some() || !fs::exists(&dir) {
                fs::create_dir_owned(&dir, mode, uid, gid)?;
            }
            Ok((dir, lock, private))
        })
        .await?;
        self._locks.extend(lock);
        self._private.extend(private);
        Ok(dir)
    }
}
