//! Why a build did not succeed.

use std::time::Duration;

use super::files::FileError;
use super::user::UserError;
use crate::{
    cache::CacheError,
    context::ContextError,
    dockerfile::{Source, Span},
    fs::FsError,
    graph::{BuildGraph, Location, VertexId},
    oci::{layer::LayerError, layout::LayoutError},
    registry::RegistryError,
    sandbox::{SandboxError, Support},
    snapshot::SnapshotError,
    ssh::SshError,
};

/// The step that an error belongs to.
#[derive(Debug, Clone)]
pub struct FailedStep {
    /// `RUN pip install -r requirements.txt`.
    pub instruction: String,
    /// The stage's name or number.
    pub stage: String,
    /// Where it stands.
    pub location: Option<Location>,
    /// The lines there, numbered; empty if they are not at hand.
    pub excerpt: String,
}

impl FailedStep {
    /// The step that is vertex `id` of `graph`.
    pub fn of(graph: &BuildGraph, id: VertexId) -> Box<Self> {
        let vertex = graph.vertex(id);
        let excerpt = vertex.location.as_ref().and_then(|location| {
            let source = Source {
                name: location.file.to_string(),
                text: graph.dockerfiles.get(&*location.file)?.clone(),
            };
            Some(source.excerpt(Span {
                start: location.start,
                end: location.end,
                column: 1,
            }))
        });
        Box::new(Self {
            instruction: vertex.instruction.clone(),
            stage: vertex.stage.to_string(),
            location: vertex.location.clone(),
            excerpt: excerpt.unwrap_or_default(),
        })
    }
}

impl std::fmt::Display for FailedStep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "step `{}` failed in stage `{}`",
            self.instruction, self.stage
        )
    }
}

/// How a process ended that was expected to end with 0.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProcessEnd {
    /// With another code.
    #[error("process exited with code {0}")]
    Code(i32),
    /// By a signal that was not ours.
    #[error("process was killed by signal {0}")]
    Signal(i32),
}

/// Why a build did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A RUN ended with an error of its own.
    #[error("{step}")]
    Step {
        /// Which.
        step: Box<FailedStep>,
        /// The last lines it printed.
        tail: Vec<String>,
        /// How it ended.
        #[source]
        end: ProcessEnd,
    },
    /// A RUN took longer than `--step-timeout`.
    #[error("step `{}` in stage `{}` timed out after {} s", step.instruction, step.stage, after.as_secs())]
    StepTimeout {
        /// Which.
        step: Box<FailedStep>,
        /// The last lines it printed.
        tail: Vec<String>,
        /// The limit.
        after: Duration,
    },
    /// A COPY, ADD or WORKDIR can't be done.
    #[error("{step}")]
    Files {
        /// Which.
        step: Box<FailedStep>,
        /// Why.
        #[source]
        source: FileError,
    },
    /// USER names somebody the image does not have.
    #[error("{step}")]
    User {
        /// Which.
        step: Box<FailedStep>,
        /// Why.
        #[source]
        source: UserError,
    },
    /// A RUN needs a secret that the build was not given.
    #[error("step `{}` in stage `{}` needs secret `{id}`, which was not given", step.instruction, step.stage)]
    MissingSecret {
        /// Which.
        step: Box<FailedStep>,
        /// The secret.
        id: String,
    },
    /// A secret for a variable that no variable can hold.
    #[error(
        "secret `{id}` can't be the value of a variable: it is not UTF-8 text without NUL bytes"
    )]
    SecretText {
        /// The step.
        step: Box<FailedStep>,
        /// The secret.
        id: String,
    },
    /// A RUN needs an SSH agent that the build was not given.
    #[error("step `{}` in stage `{}` needs SSH agent `{id}`, which was not given", step.instruction, step.stage)]
    MissingAgent {
        /// Which.
        step: Box<FailedStep>,
        /// The agent.
        id: String,
    },
    /// A step's way to an SSH agent can't be made.
    #[error("{step}")]
    Ssh {
        /// Which.
        step: Box<FailedStep>,
        /// Why.
        #[source]
        source: SshError,
    },
    /// The sandbox could not be set up for a RUN.
    #[error("{step}")]
    Sandbox {
        /// Which.
        step: Box<FailedStep>,
        /// Why.
        #[source]
        source: SandboxError,
    },
    /// This machine allows no sandbox.
    #[error("RUN needs a sandbox, and this machine allows none")]
    NoSandbox,
    /// The sandbox can't be prepared.
    #[error(transparent)]
    SandboxSetup(SandboxError),
    /// A step for a platform whose programs don't run here.
    #[error("step `{}` in stage `{}` needs platform `{platform}`, which does not run here", step.instruction, step.stage)]
    ForeignPlatform {
        /// Which.
        step: Box<FailedStep>,
        /// The step's platform.
        platform: String,
        /// What there is instead.
        support: Support,
    },
    /// A build context can't be read.
    #[error(transparent)]
    Context(#[from] ContextError),
    /// A base image's layer can't be had.
    #[error("can't fetch a layer of base image `{reference}`")]
    BaseImage {
        /// As written in the Dockerfile.
        reference: String,
        /// Why.
        #[source]
        source: Box<RegistryError>,
    },
    /// A base image's layer in an OCI layout is not what its digest says.
    #[error("a layer of base image `{reference}` is not what its digest says")]
    BaseLayer {
        /// As written in the Dockerfile.
        reference: String,
        /// How it differs.
        #[source]
        source: CacheError,
    },
    /// The local store failed in a way that no other tier can make good.
    #[error("the local cache can't be used")]
    Store(#[from] CacheError),
    /// Unpacking or comparing layers failed.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// Reading or writing a layer failed.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// Writing an image failed.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// A file on the host failed.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// The build was told to stop.
    #[error("interrupted")]
    Interrupted,
    /// A task of the engine ended by a panic.
    #[error("internal error: {what}")]
    Internal {
        /// What happened.
        what: String,
    },
    /// The bytes of a layer that was taken for a hit are gone; the vertex must be
    /// executed again. Never leaves the engine.
    #[error("the bytes of the result of vertex {} are gone", .0.0)]
    Lost(VertexId),
}

impl BuildError {
    /// The step that failed, if one did.
    pub fn step(&self) -> Option<&FailedStep> {
        match self {
            Self::Step { step, .. }
            | Self::StepTimeout { step, .. }
            | Self::Files { step, .. }
            | Self::User { step, .. }
            | Self::MissingSecret { step, .. }
            | Self::SecretText { step, .. }
            | Self::MissingAgent { step, .. }
            | Self::Ssh { step, .. }
            | Self::Sandbox { step, .. }
            | Self::ForeignPlatform { step, .. } => Some(step),
            _ => None,
        }
    }

    /// The last lines that a failed process printed.
    pub fn tail(&self) -> &[String] {
        match self {
            Self::Step { tail, .. } | Self::StepTimeout { tail, .. } => tail,
            _ => &[],
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Files { source, .. } => source.hint(),
            Self::Sandbox { source, .. } | Self::SandboxSetup(source) => source.hint(),
            Self::MissingSecret { id, .. } => Some(format!(
                "give it with `--secret id={id},src=FILE` or `--secret id={id},env=VARIABLE`"
            )),
            Self::SecretText { .. } => {
                Some("mount it as a file: leave `env` out of `--mount=type=secret`".to_owned())
            }
            Self::MissingAgent { id, .. } => Some(format!(
                "give it with `--ssh {id}` for the running agent, or `--ssh {id}=SOCKET|KEY`"
            )),
            Self::Ssh { source, .. } => source.hint(),
            Self::NoSandbox => Some("`memobuild-ci doctor` says why, and what helps".to_owned()),
            Self::BaseImage { source, .. } => source.hint(),
            Self::Store(CacheError::Full { .. }) => {
                Some("free space with `memobuild-ci cache gc --max-size 5GB`".to_owned())
            }
            Self::ForeignPlatform {
                support: Support::NotFixed,
                ..
            } => Some(
                "register the emulator with flag `F` in binfmt_misc, so that steps find it"
                    .to_owned(),
            ),
            Self::ForeignPlatform { .. } => Some(
                "register an emulator (QEMU's user mode) in binfmt_misc, or build this platform on a machine that runs it"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}
