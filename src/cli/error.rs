//! What a command can fail with, and the exit code for it.

use std::{error::Error, io, path::PathBuf};

use super::{caches::CachesError, exit::ExitCode};
use crate::{
    bake::BakeError,
    cache::{CacheError, bundle::BundleError, trust::KeyError},
    config::{ConfigError, SelectionError, env::EnvError},
    dockerfile::DockerfileError,
    engine::{BuildError, files::FileError},
    export::ExportError,
    fs::FsError,
    git::GitError,
    graph::lower::LowerError,
    oci::{
        Platform, layout::LayoutError, platform::ParsePlatformError, reference::ParseReferenceError,
    },
    plan::lock::LockError,
    registry::{RegistryError, Trouble},
    remote::{FetchError, RemoteError},
    sandbox::{SandboxError, Step},
    server::{ServerError, auth::TokensError, store::StoreError},
    snapshot::SnapshotError,
    ssh::SshError,
    ui::{self, ReportOptions},
};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum CliError {
    /// The command line asks for something that makes no sense.
    #[error("{message}")]
    Usage {
        message: String,
        hint: Option<String>,
    },
    #[error("can't work in directory `{}`", dir.display())]
    Directory { dir: PathBuf, source: io::Error },
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Bake(Box<BakeError>),
    #[error(transparent)]
    Selection(#[from] SelectionError),
    #[error(transparent)]
    Env(#[from] EnvError),
    #[error(transparent)]
    Dockerfile(#[from] DockerfileError),
    #[error(transparent)]
    Lower(#[from] LowerError),
    #[error("can't use base image `{reference}`")]
    BaseImage {
        reference: String,
        source: Box<RegistryError>,
    },
    #[error("can't use base image `{reference}`")]
    BaseLayout {
        reference: String,
        source: LayoutError,
    },
    #[error("can't use base image `{reference}`")]
    BaseReference {
        reference: String,
        source: ParseReferenceError,
    },
    #[error("can't use base image `{reference}`")]
    BaseLayoutReference {
        reference: String,
        source: crate::oci::layout::ParseLayoutReferenceError,
    },
    #[error("base image `{reference}` is for {actual}, not for {wanted}")]
    BasePlatform {
        reference: String,
        actual: Box<Platform>,
        wanted: Box<Platform>,
    },
    #[error(transparent)]
    Registry(Box<RegistryError>),
    #[error(transparent)]
    Platform(#[from] ParsePlatformError),
    #[error(transparent)]
    Build(Box<BuildError>),
    #[error(transparent)]
    Export(Box<ExportError>),
    #[error(transparent)]
    Caches(Box<CachesError>),
    #[error(transparent)]
    Bundle(Box<BundleError>),
    #[error("no entry of the cache has a key that starts with `{wanted}` or a step of that name")]
    NoEntry { wanted: String },
    #[error("no target, step or key is called `{wanted}`")]
    NothingToExplain {
        wanted: String,
        /// What there is.
        known: Vec<String>,
    },
    #[error("can't make a key")]
    Keygen(#[from] KeyError),
    #[error("the build was interrupted")]
    Signal { signal: i32 },
    #[error("the local cache can't be used")]
    Cache(#[from] CacheError),
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error(transparent)]
    Ssh(#[from] SshError),
    #[error(transparent)]
    Fs(#[from] FsError),
    #[error(transparent)]
    Fetch(Box<FetchError>),
    #[error(transparent)]
    Remote(Box<RemoteError>),
    #[error("the context has no `{}`", file.display())]
    NoDockerfile { file: PathBuf },
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(transparent)]
    Git(Box<GitError>),
    #[error(transparent)]
    Server(#[from] ServerError),
    #[error("can't start the runtime")]
    Runtime(#[source] io::Error),
    #[error("can't write the answer to stdout")]
    Answer(#[source] io::Error),
    #[error("can't encode the answer as JSON")]
    Json(#[from] serde_json::Error),
}

impl From<RegistryError> for CliError {
    fn from(error: RegistryError) -> Self {
        Self::Registry(Box::new(error))
    }
}

impl From<GitError> for CliError {
    fn from(error: GitError) -> Self {
        Self::Git(Box::new(error))
    }
}

impl From<BakeError> for CliError {
    fn from(error: BakeError) -> Self {
        Self::Bake(Box::new(error))
    }
}

impl From<CachesError> for CliError {
    fn from(error: CachesError) -> Self {
        Self::Caches(Box::new(error))
    }
}

impl From<BundleError> for CliError {
    fn from(error: BundleError) -> Self {
        match error {
            BundleError::Store(error) => error.into(),
            BundleError::File(error) => error.into(),
            error => Self::Bundle(Box::new(error)),
        }
    }
}

impl From<FetchError> for CliError {
    fn from(error: FetchError) -> Self {
        Self::Fetch(Box::new(error))
    }
}

impl From<RemoteError> for CliError {
    fn from(error: RemoteError) -> Self {
        Self::Remote(Box::new(error))
    }
}

impl From<BuildError> for CliError {
    fn from(error: BuildError) -> Self {
        Self::Build(Box::new(error))
    }
}

impl From<ExportError> for CliError {
    fn from(error: ExportError) -> Self {
        match error {
            ExportError::Build(error) => error.into(),
            ExportError::Layout(error) => BuildError::from(error).into(),
            ExportError::Fs(error) => BuildError::from(error).into(),
            ExportError::Layer(error) => BuildError::from(error).into(),
            error => Self::Export(Box::new(error)),
        }
    }
}

impl CliError {
    /// A wrong command line.
    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self::Usage {
            message: message.into(),
            hint: None,
        }
    }

    /// A wrong command line, and what to write instead.
    pub(super) fn usage_hint(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Usage {
            message: message.into(),
            hint: Some(hint.into()),
        }
    }

    pub(super) fn exit(&self) -> ExitCode {
        match self {
            Self::Ssh(SshError::Key(error)) => file(error),
            Self::Usage { .. } | Self::Selection(_) | Self::Platform(_) | Self::Ssh(_) => {
                ExitCode::Usage
            }
            Self::Config(ConfigError::Read { source }) if source.is_not_found() => {
                ExitCode::NotFound
            }
            Self::Bake(error) => bake(error),
            Self::Caches(error) if error.is_usage() => ExitCode::Usage,
            Self::Caches(_) => ExitCode::InvalidConfiguration,
            Self::Bundle(error) => bundle(error),
            Self::NoEntry { .. } | Self::NothingToExplain { .. } => ExitCode::NotFound,
            Self::Cache(CacheError::Corrupt { .. }) => ExitCode::Integrity,
            Self::Lock(LockError::Fs(error)) => file(error),
            Self::Config(_) | Self::Env(_) | Self::Lock(_) => ExitCode::InvalidConfiguration,
            Self::Git(error) => git(error),
            Self::Lower(LowerError::Violations { .. }) => ExitCode::ViolationsFound,
            Self::Lower(LowerError::CheckArgument { .. }) => ExitCode::Usage,
            Self::Dockerfile(_)
            | Self::Lower(_)
            | Self::BaseReference { .. }
            | Self::BaseLayoutReference { .. } => ExitCode::InvalidDockerfile,
            Self::BaseImage { source, .. } | Self::Registry(source) => registry(source),
            Self::Fetch(error) => remote(&error.source),
            Self::Remote(error) => remote(error),
            Self::NoDockerfile { .. } => ExitCode::NotFound,
            Self::Server(error) => server(error),
            Self::BaseLayout { source, .. } => layout(source),
            Self::BasePlatform { .. } => ExitCode::NotFound,
            Self::Build(error) => build(error),
            Self::Export(error) => export(error),
            Self::Signal { signal: 15 } => ExitCode::Terminated,
            Self::Signal { .. } => ExitCode::Interrupted,
            Self::Directory { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                ExitCode::NotFound
            }
            // A Dockerfile or an ignore file that is no text.
            Self::Fs(error) if error.source.kind() == io::ErrorKind::InvalidData => {
                ExitCode::InvalidDockerfile
            }
            Self::Fs(error) => file(error),
            Self::Cache(CacheError::Transient { .. }) => ExitCode::Transient,
            Self::Cache(CacheError::Denied { .. }) => ExitCode::Denied,
            Self::Directory { .. }
            | Self::Cache(_)
            | Self::Snapshot(_)
            | Self::Runtime(_)
            | Self::Keygen(_)
            | Self::Answer(_)
            | Self::Json(_) => ExitCode::Internal,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Usage { hint, .. } => hint.clone(),
            Self::BaseImage { source, .. } | Self::Registry(source) => source.hint(),
            Self::Fetch(error) => error.source.hint().map(str::to_owned),
            Self::Remote(error) => error.hint().map(str::to_owned),
            Self::Server(error) => error.hint().map(str::to_owned),
            Self::NoDockerfile { .. } => Some("name the Dockerfile with `-f`".to_owned()),
            Self::Ssh(error) => error.hint(),
            Self::Caches(error) => error.hint(),
            Self::NothingToExplain { known, .. } => Some(format!("there are {}", known.join(", "))),
            Self::NoEntry { .. } => Some("`memobuild-ci cache ls` lists them".to_owned()),
            Self::Lower(error) => error.hint().map(str::to_owned),
            Self::Export(error) => error.hint(),
            Self::Git(error) => error.hint(),
            Self::Build(error) if matches!(**error, BuildError::StepTimeout { .. }) => {
                Some("give it more time with `--step-timeout`".to_owned())
            }
            Self::Cache(CacheError::Version { .. }) => Some(
                "use another directory with `MEMOBUILD_CACHE_DIR`, or remove this one".to_owned(),
            ),
            _ => None,
        }
    }

    /// The error as the user sees it, with up to `log_lines` lines of a failed step's output.
    pub(super) fn report(&self, log_lines: usize, color: bool) -> String {
        let hint = self.hint();
        let options = ReportOptions {
            hint: hint.as_deref(),
            log_lines,
            color,
        };
        ui::report(self.shown(), options)
    }

    /// The error that knows its details. One that only passes another on hides its type:
    /// the source of a transparent error is the source of what it wraps.
    pub(super) fn shown(&self) -> &(dyn Error + 'static) {
        match self {
            Self::Config(error) => error,
            Self::Bake(error) => error.as_ref(),
            Self::Selection(error) => error,
            Self::Dockerfile(error) => error,
            Self::Lower(error) => error,
            Self::Build(error) => error.as_ref(),
            Self::Fetch(error) => error.as_ref(),
            Self::Remote(error) => error.as_ref(),
            Self::Ssh(error) => error,
            Self::Git(error) => error.as_ref(),
            Self::Lock(error) => error,
            Self::Caches(error) => error.as_ref(),
            Self::Bundle(error) => error.as_ref(),
            Self::Export(error) => match error.as_ref() {
                ExportError::Annotation(error) => error,
                error => error,
            },
            error => error,
        }
    }
}

/// What was asked for doesn't exist, or the files are wrong.
fn bake(error: &BakeError) -> ExitCode {
    use crate::bake::Problem as P;
    match *error.problem {
        P::UnknownTarget { .. } | P::NoMatch { .. } | P::Override { .. } => ExitCode::Usage,
        P::NoFile { .. } => ExitCode::NotFound,
        _ => ExitCode::InvalidConfiguration,
    }
}

fn git(error: &GitError) -> ExitCode {
    match error {
        GitError::Unborn { .. } | GitError::Revision { .. } | GitError::Missing { .. } => {
            ExitCode::NotFound
        }
        GitError::Fs(error) => file(error),
        GitError::Object { .. } | GitError::UnsafeName { .. } => ExitCode::Integrity,
        _ => ExitCode::Internal,
    }
}

fn bundle(error: &BundleError) -> ExitCode {
    match error {
        BundleError::Layout(error) => layout(error),
        _ => ExitCode::Integrity,
    }
}

fn registry(error: &RegistryError) -> ExitCode {
    trouble(error.trouble())
}

fn remote(error: &RemoteError) -> ExitCode {
    match error {
        RemoteError::Fs(error) => file(error),
        error => trouble(error.trouble()),
    }
}

fn trouble(trouble: Trouble) -> ExitCode {
    match trouble {
        Trouble::Transient => ExitCode::Transient,
        Trouble::Denied => ExitCode::Denied,
        Trouble::NotFound => ExitCode::NotFound,
        Trouble::Integrity => ExitCode::Integrity,
        Trouble::Unsupported | Trouble::Local => ExitCode::Internal,
    }
}

fn layout(error: &LayoutError) -> ExitCode {
    match error {
        LayoutError::NotALayout { .. }
        | LayoutError::NotFound { .. }
        | LayoutError::NotOne { .. } => ExitCode::NotFound,
        LayoutError::File(error) => file(error),
        LayoutError::Occupied { .. } => ExitCode::Usage,
        _ => ExitCode::Integrity,
    }
}

fn server(error: &ServerError) -> ExitCode {
    match error {
        ServerError::Unprotected { .. } | ServerError::NoKeys => ExitCode::Usage,
        ServerError::Key { .. } => ExitCode::InvalidConfiguration,
        ServerError::Tokens { source, .. } => match source {
            TokensError::Read(error) => file(error),
            _ => ExitCode::InvalidConfiguration,
        },
        ServerError::Audit(error)
        | ServerError::KeyFile(error)
        | ServerError::Store(StoreError::Fs(error)) => file(error),
        ServerError::Listen { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
            ExitCode::Denied
        }
        ServerError::Store(_) | ServerError::Listen { .. } => ExitCode::Internal,
    }
}

fn file(error: &FsError) -> ExitCode {
    match error.source.kind() {
        io::ErrorKind::NotFound => ExitCode::NotFound,
        io::ErrorKind::PermissionDenied => ExitCode::Denied,
        _ => ExitCode::Internal,
    }
}

/// Layers that can't be unpacked: bad ones, or a host that doesn't allow it.
fn unpacking(error: &SnapshotError) -> ExitCode {
    match error {
        SnapshotError::Layer(_)
        | SnapshotError::DiffId { .. }
        | SnapshotError::NotADirectory { .. }
        | SnapshotError::HardLinkTarget { .. }
        | SnapshotError::TooDeep { .. } => ExitCode::Integrity,
        SnapshotError::Device { .. } | SnapshotError::OwnerNotMapped { .. } => {
            ExitCode::HostUnsupported
        }
        SnapshotError::Fs(error) => file(error),
        _ => ExitCode::Internal,
    }
}

fn export(error: &ExportError) -> ExitCode {
    match error {
        ExportError::Annotation(_)
        | ExportError::Overlap { .. }
        | ExportError::Platforms
        | ExportError::Nameless
        | ExportError::Name { .. }
        | ExportError::NotADirectory { .. }
        | ExportError::IsADirectory { .. } => ExitCode::Usage,
        ExportError::NoDocker { .. } => ExitCode::NotFound,
        ExportError::Push { source } => registry(source),
        ExportError::Device { .. } => ExitCode::Denied,
        ExportError::Build(error) => build(error),
        ExportError::Load { .. }
        | ExportError::TooDeep { .. }
        | ExportError::Fs(_)
        | ExportError::Layout(_)
        | ExportError::Layer(_) => ExitCode::Internal,
    }
}

fn build(error: &BuildError) -> ExitCode {
    match error {
        BuildError::Files { source, .. } => match source {
            FileError::NotFound { .. } | FileError::Outside { .. } => ExitCode::NotFound,
            _ => ExitCode::StepFailed,
        },
        BuildError::Step { .. } | BuildError::User { .. } => ExitCode::StepFailed,
        BuildError::StepTimeout { .. } => ExitCode::StepTimedOut,
        BuildError::MissingSecret { .. }
        | BuildError::MissingAgent { .. }
        | BuildError::SecretText { .. }
        | BuildError::Ssh { .. } => ExitCode::Usage,
        // What a mount names is not there.
        BuildError::Sandbox {
            source:
                SandboxError::Setup {
                    step: Step::Mount,
                    source,
                    ..
                },
            ..
        } if source.kind() == io::ErrorKind::NotFound => ExitCode::NotFound,
        BuildError::Sandbox { .. }
        | BuildError::SandboxSetup(_)
        | BuildError::NoSandbox
        | BuildError::ForeignPlatform { .. } => ExitCode::HostUnsupported,
        BuildError::Context(error) => match error.source().and_then(|e| e.downcast_ref()) {
            Some(error) => file(error),
            None => ExitCode::InvalidDockerfile,
        },
        BuildError::BaseImage { source, .. } => registry(source),
        BuildError::Layout(error) => layout(error),
        BuildError::Fs(error) => file(error),
        BuildError::Interrupted => ExitCode::Interrupted,
        BuildError::BaseLayer { .. } | BuildError::Layer(_) => ExitCode::Integrity,
        BuildError::Snapshot(error) => unpacking(error),
        BuildError::Store(_) | BuildError::Internal { .. } | BuildError::Lost(_) => {
            ExitCode::Internal
        }
    }
}
