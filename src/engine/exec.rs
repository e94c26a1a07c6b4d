//! The execution of RUN: layers unpacked, the sandbox run, the difference taken.

use std::{sync::Arc, time::Instant};

use super::{
    BuildError, FailedStep, ProcessEnd, Session, VertexResult,
    attempt::{Attempt, Solved, millis},
    bytes::{finish_layer, layer_error},
    log::StepLog,
    mounts::StepMounts,
    session::blocking,
    unpack::Unpacking,
    user::{ProcessUser, UserDatabase},
};
use crate::{
    event::{Outcome, StepId, Stream},
    graph::{ExecOp, VertexId},
    key::{KeyOptions, exec_content_recipe},
    oci::layer::{LayerBlob, LayerBuilder, LayerPath, Tree},
    redact::SecretBytes,
    sandbox::{self, Exit, ProcessExtras, ProcessSpec, RootFs, Sandbox, SandboxError, Support},
    snapshot::{Access, DiffOptions, SnapshotError, Snapshots, WorkDir},
    userns::Program,
};

/// The host name that steps see, always the same.
const HOSTNAME: &str = "memobuild";

/// What executing needs; made when the first step must run.
#[derive(Debug)]
pub(super) struct Runtime {
    pub(super) sandbox: Sandbox,
    pub(super) snapshots: Snapshots,
    pub(super) unpacking: Unpacking,
}

/// Who touches the files of unpacked layers where steps run in `sandbox`.
pub fn snapshot_access(sandbox: &Sandbox) -> Access {
    match sandbox.userns() {
        None => Access::Root,
        Some(userns) => Access::UserNamespace(Arc::new(userns.clone())),
    }
}

impl Runtime {
    fn new(session: &Session) -> Result<Self, BuildError> {
        let program = Program::copy_of(&session.engine.options.program)?;
        let sandbox = Sandbox::detect(program).map_err(|error| match error {
            SandboxError::NoTier => BuildError::NoSandbox,
            error => BuildError::SandboxSetup(error),
        })?;
        let access = snapshot_access(&sandbox);
        let snapshots = Snapshots::open(&session.engine.store.snapshots_dir(), access)?;
        Ok(Self {
            sandbox,
            snapshots,
            unpacking: Unpacking::default(),
        })
    }
}

impl Attempt {
    /// Solves an Exec vertex whose inputs are solved.
    pub(super) async fn exec(
        self: &Arc<Self>,
        id: VertexId,
        op: &ExecOp,
        inputs: &[(VertexId, Arc<VertexResult>)],
    ) -> Result<Solved, BuildError> {
        let session = &self.session;
        let root = Arc::clone(&inputs[0].1);
        let options = KeyOptions {
            normalise: session.engine.options.normalise,
        };
        let platform = &session.graph.vertex(id).platform;
        let binds: Vec<_> = op
            .mounts
            .iter()
            .filter_map(|mount| inputs.iter().find(|(id, _)| Some(*id) == mount.from()))
            .map(|(_, result)| result.chain)
            .collect();
        let recipe = exec_content_recipe(op, platform, options, root.chain, &binds);
        if let Some(solved) = self.content_hit(id, &recipe, inputs).await? {
            return Ok(solved);
        }
        let support = {
            let platform = platform.clone();
            let temp_dir = session.engine.options.temp_dir.clone();
            blocking(move || Ok(sandbox::support(&platform, &temp_dir))).await?
        };
        if support != Support::Runs {
            return Err(BuildError::ForeignPlatform {
                step: self.failed_step(id),
                platform: platform.to_string(),
                support,
            });
        }
        // What the step stands on comes while others still run.
        self.unpack_inputs(id, inputs).await?;
        let _permit = self.permit().await?;
        self.announce_run(id).await;
        let started = Instant::now();
        let layer = self.run(id, op, &root, inputs).await?;
        self.record(id, &recipe, inputs, layer.as_ref(), millis(started))
            .await?;
        Ok(Solved {
            layer,
            outcome: Outcome::Ran,
            recorded_ms: None,
            tier: None,
        })
    }

    pub(super) fn failed_step(&self, id: VertexId) -> Box<FailedStep> {
        FailedStep::of(&self.session.graph, id)
    }

    async fn run(
        self: &Arc<Self>,
        id: VertexId,
        op: &ExecOp,
        root: &VertexResult,
        inputs: &[(VertexId, Arc<VertexResult>)],
    ) -> Result<Option<LayerBlob>, BuildError> {
        let runtime = self.runtime().await?;
        let lowers = self.lower_dirs(id, &runtime, &root.layers).await?;
        let tree = self.session.bytes.tree(&root.layers).await?;
        let user = process_user(&tree, &op.user).map_err(|source| BuildError::User {
            step: self.failed_step(id),
            source,
        })?;
        let env = self.environment(id, op, &user)?;
        let mounts = StepMounts::prepare(self, id, &runtime, op, inputs).await?;
        let work = {
            let (runtime, tree) = (Arc::clone(&runtime), Arc::clone(&tree));
            blocking(move || Ok(runtime.snapshots.work_dir(&tree)?)).await?
        };
        let spec = ProcessSpec {
            args: op.args.clone(),
            env,
            cwd: op.cwd.clone(),
            uid: user.uid,
            gid: user.gid,
            groups: user
                .groups
                .into_iter()
                .chain(op.extras.devices.iter().flat_map(|d| d.groups.clone()))
                .collect(),
            hostname: op
                .extras
                .hostname
                .clone()
                .unwrap_or_else(|| HOSTNAME.to_owned()),
            network: op.network,
            rootfs: RootFs {
                lowers,
                upper: work.upper.clone(),
                work: work.work.clone(),
            },
            mounts: mounts.list(),
            hosts: op.hosts.clone(),
            extras: ProcessExtras {
                insecure: op.extras.insecure,
                shm_size: op.extras.shm_size,
                limits: op.extras.ulimits.clone(),
            },
        };
        let stubs = self.run_process(id, &runtime, &spec).await?;
        let changed = mounts.changed_caches();
        drop(mounts);
        self.note_used(id, changed);
        let options = DiffOptions {
            mtime: op.mtime,
            normalise: self.session.engine.options.normalise,
            stubs,
        };
        self.take_difference(&runtime, work, tree, options).await
    }

    /// The sandbox and the snapshots, made once for a build.
    pub(super) async fn runtime(&self) -> Result<Arc<Runtime>, BuildError> {
        let session = Arc::clone(&self.session);
        self.session
            .runtime
            .get_or_try_init(|| blocking(move || Ok(Arc::new(Runtime::new(&session)?))))
            .await
            .cloned()
    }

    /// What the process sees: the instruction's variables, then what the executor adds
    /// where they are not set, then what proxies, devices and secrets set.
    fn environment(
        &self,
        id: VertexId,
        op: &ExecOp,
        user: &ProcessUser,
    ) -> Result<Vec<(String, String)>, BuildError> {
        let mut env = op.env.to_vec();
        let options = &self.session.engine.options;
        let mut add = |name: &str, value: &str| {
            if !env.iter().any(|(known, _)| known == name) {
                env.push((name.to_owned(), value.to_owned()));
            }
        };
        add("HOME", &user.home);
        add("SOURCE_DATE_EPOCH", &op.epoch.to_string());
        if options.ca_certificates.is_some() {
            for name in super::mounts::CA_VARIABLES {
                add(name, super::mounts::CA_BUNDLE);
            }
        }
        let mut set = |name: &str, value: String| {
            env.retain(|(known, _)| known != name);
            env.push((name.to_owned(), value));
        };
        for (name, value) in both_cases(&options.proxies) {
            set(&name, value.to_owned());
        }
        for (name, value) in op.extras.devices.iter().flat_map(|d| &d.env) {
            set(name, value.clone());
        }
        for variable in &op.extras.secret_variables {
            let value = match options.secrets.get(&variable.id) {
                Some(secret) => self.secret_text(id, &variable.id, secret)?,
                None if variable.required => return Err(self.missing_secret(id, &variable.id)),
                None => String::new(),
            };
            set(&variable.name, value);
        }
        Ok(env)
    }

    /// A secret as the value of a variable.
    fn secret_text(
        &self,
        id: VertexId,
        name: &str,
        secret: &SecretBytes,
    ) -> Result<String, BuildError> {
        let text = std::str::from_utf8(secret.expose()).ok();
        let text = text.filter(|text| !text.contains('\0'));
        text.map(str::to_owned)
            .ok_or_else(|| BuildError::SecretText {
                step: self.failed_step(id),
                id: name.to_owned(),
            })
    }

    pub(super) fn missing_secret(&self, id: VertexId, name: &str) -> BuildError {
        BuildError::MissingSecret {
            step: self.failed_step(id),
            id: name.to_owned(),
        }
    }

    async fn run_process(
        &self,
        id: VertexId,
        runtime: &Runtime,
        spec: &ProcessSpec,
    ) -> Result<Vec<LayerPath>, BuildError> {
        let engine = &self.session.engine;
        let mut log = StepLog::new(&engine.events, &engine.redactor, StepId(id.0));
        let timeout = engine.options.step_timeout;
        let finished = runtime
            .sandbox
            .run(
                spec,
                &mut |stream: Stream, bytes: &[u8]| log.write(stream, bytes),
                self.halt.cancelled(),
                timeout,
            )
            .await;
        let tail = log.finish();
        let finished = finished.map_err(|source| BuildError::Sandbox {
            step: self.failed_step(id),
            source,
        })?;
        let end = match finished.exit {
            Exit::Code(0) => return Ok(finished.stubs),
            Exit::Code(code) => ProcessEnd::Code(code),
            Exit::Signal(signal) => ProcessEnd::Signal(signal),
            Exit::Stopped => return Err(BuildError::Interrupted),
            Exit::TimedOut => {
                return Err(BuildError::StepTimeout {
                    step: self.failed_step(id),
                    tail,
                    after: timeout.unwrap_or_default(),
                });
            }
        };
        Err(BuildError::Step {
            step: self.failed_step(id),
            tail,
            end,
        })
    }

    /// Makes a layer of what the step changed, and the upper directory its unpacked form.
    async fn take_difference(
        &self,
        runtime: &Arc<Runtime>,
        work: WorkDir,
        tree: Arc<Tree>,
        options: DiffOptions,
    ) -> Result<Option<LayerBlob>, BuildError> {
        let store = Arc::clone(&self.session.engine.store);
        let layer_options = self.session.engine.options.layer;
        let runtime = Arc::clone(runtime);
        let made = blocking(move || {
            let mut builder = LayerBuilder::new(store.writer()?, layer_options);
            let summary = runtime
                .snapshots
                .diff(&work, &tree, &options, &mut |entry, content| {
                    builder.append(entry, content)
                });
            let summary = match summary {
                Err(SnapshotError::Layer(error)) => return Err(layer_error(&store, error)),
                summary => summary?,
            };
            if summary.entries == 0 {
                return Ok(None);
            }
            let (blob, index) = finish_layer(&store, builder)?;
            runtime.snapshots.commit(work, &blob.diff_id)?;
            Ok(Some((blob, index)))
        })
        .await?;
        Ok(made.map(|(blob, index)| {
            self.session.bytes.remember(&blob, index);
            blob
        }))
    }
}

/// Proxy variables under both their names, `HTTP_PROXY` and `http_proxy`, unless both
/// were given. Programs look at the one or the other.
fn both_cases(proxies: &[(String, String)]) -> Vec<(String, &str)> {
    let mut out: Vec<(String, &str)> = Vec::new();
    for (name, value) in proxies.iter().filter(|(_, value)| !value.is_empty()) {
        for written in [name.to_ascii_uppercase(), name.to_ascii_lowercase()] {
            let other = written != *name;
            if !other || !proxies.iter().any(|(n, v)| *n == written && !v.is_empty()) {
                out.push((written, value));
            }
        }
    }
    out
}

fn process_user(tree: &Tree, text: &str) -> Result<ProcessUser, super::UserError> {
    let file = |path: &str| {
        LayerPath::new(path)
            .ok()
            .and_then(|p| tree.resolve(&p, true).ok())
            .and_then(|p| tree.inline_file(&p))
            .unwrap_or_default()
    };
    UserDatabase {
        passwd: file("etc/passwd"),
        group: file("etc/group"),
    }
    .process_user(text)
}
