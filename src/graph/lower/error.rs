//! Why a Dockerfile can't be lowered.

use std::sync::Arc;

use crate::{
    dockerfile::{DockerfileError, lint::SettingsError},
    oci::Platform,
};

/// Why a Dockerfile can't be lowered.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LowerError {
    /// Something in the Dockerfile; has the lines and a hint.
    #[error(transparent)]
    Dockerfile(Arc<DockerfileError>),
    /// `--target` names no stage.
    #[error("`{file}` has no stage `{stage}`")]
    UnknownStage {
        /// The Dockerfile.
        file: String,
        /// The name asked for.
        stage: String,
        /// A name that is near, or all names.
        hint: Option<String>,
    },
    /// `SOURCE_DATE_EPOCH` is set to something else than a number.
    #[error("`{text}` in `SOURCE_DATE_EPOCH` is not a number of seconds since 1970")]
    Epoch {
        /// The value.
        text: String,
    },
    /// `BUILDKIT_DOCKERFILE_CHECK` can't be read.
    #[error("can't read build argument `BUILDKIT_DOCKERFILE_CHECK={text}`")]
    CheckArgument {
        /// The value.
        text: String,
        /// What is wrong with it.
        source: SettingsError,
    },
    /// There are violations of build checks, which are errors here.
    #[error("build checks of `{file}` failed: {list}")]
    Violations {
        /// The Dockerfile.
        file: String,
        /// Rules with their lines.
        list: String,
    },
    /// `BUILDKIT_SYNTAX` names a frontend other than Docker's own.
    #[error("frontend `{name}` of `BUILDKIT_SYNTAX` is not built in")]
    Frontend {
        /// As given.
        name: String,
    },
    /// The caller didn't resolve an image that `needed_images` named.
    #[error("base image `{reference}` was not resolved for {platform}")]
    MissingImage {
        /// As in the Dockerfile, expanded.
        reference: String,
        /// For which platform.
        platform: Platform,
    },
}

impl From<DockerfileError> for LowerError {
    fn from(error: DockerfileError) -> Self {
        Self::Dockerfile(Arc::new(error))
    }
}

impl LowerError {
    /// What may help.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Dockerfile(error) => error.hint.as_deref(),
            Self::UnknownStage { hint, .. } => hint.as_deref(),
            Self::Violations { .. } => Some("`--check` shows each; `error=true` makes them errors"),
            Self::Frontend { .. } => Some("only `docker/dockerfile` is, of any version"),
            Self::Epoch { .. } | Self::CheckArgument { .. } | Self::MissingImage { .. } => None,
        }
    }
}
