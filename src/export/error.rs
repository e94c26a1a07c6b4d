//! Why a result could not be written.

use std::{io, path::PathBuf};

use super::AnnotationError;
use crate::{
    engine::BuildError,
    fs::FsError,
    oci::{
        layer::{LayerError, LayerPath},
        layout::LayoutError,
        reference::ParseReferenceError,
    },
    registry::RegistryError,
};

/// Why a result could not be written.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// Solving or fetching failed.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// A file on the host failed.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// Writing a layout failed.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// A layer can't be read, or a tar can't hold what is in it.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// An annotation has no place in the image.
    #[error(transparent)]
    Annotation(#[from] AnnotationError),
    /// The program `docker` is missing, or it has no daemon.
    #[error("the image can't be loaded into Docker")]
    NoDocker {
        /// What was tried.
        #[source]
        source: DockerFailure,
    },
    /// `docker load` failed.
    #[error("Docker didn't take the image")]
    Load {
        /// What it said.
        #[source]
        source: DockerFailure,
    },
    /// A registry didn't take the image.
    #[error("the image can't be pushed")]
    Push {
        /// Why.
        #[source]
        source: RegistryError,
    },
    /// A push needs a name.
    #[error("the image has no name to push it under")]
    Nameless,
    /// A name that no registry knows.
    #[error("the image can't be pushed as `{name}`")]
    Name {
        /// The name.
        name: String,
        /// Why.
        #[source]
        source: ParseReferenceError,
    },
    /// A device file where the user may not make one.
    #[error("can't create the device `{path}` in `{}`", dir.display())]
    Device {
        /// Its path in the image.
        path: LayerPath,
        /// The destination.
        dir: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Docker's archives hold one platform.
    #[error("`type=docker` holds an image of one platform only")]
    Platforms,
    /// Two platforms have something at one path, and both go to one directory.
    #[error("`{path}` is in the results for `{one}` and for `{other}`")]
    Overlap {
        /// The path.
        path: LayerPath,
        /// A platform.
        one: String,
        /// The other.
        other: String,
    },
    /// A path has too many components to be written.
    #[error("`{path}` lies deeper than {max} directories")]
    TooDeep {
        /// The path.
        path: LayerPath,
        /// The limit.
        max: usize,
    },
    /// Something else than a directory stands at the destination.
    #[error("`{}` is not a directory", path.display())]
    NotADirectory {
        /// The destination.
        path: PathBuf,
    },
    /// A directory stands where a file is to be written.
    #[error("`{}` is a directory", path.display())]
    IsADirectory {
        /// The destination.
        path: PathBuf,
    },
}

/// What happened to a `docker` command.
#[derive(Debug, thiserror::Error)]
pub enum DockerFailure {
    /// It could not be started.
    #[error("can't start `{command}`")]
    Start {
        /// The command.
        command: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It ended with an error.
    #[error("`{command}` failed: {said}")]
    Failed {
        /// The command.
        command: String,
        /// What it wrote to stderr, or how it ended.
        said: String,
    },
}

impl ExportError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Build(error) => error.hint(),
            Self::Annotation(error) => error.hint().map(str::to_owned),
            Self::NoDocker { .. } | Self::Load { .. } => Some(
                "write a file with `-o type=docker,dest=FILE` and load that with `docker load -i FILE` where Docker is"
                    .to_owned(),
            ),
            Self::Push { source } => source.hint(),
            Self::Nameless => Some("name it with `-t HOST/NAME:TAG`".to_owned()),
            Self::Device { .. } => Some(
                "build as root, or write a tar with `-o type=tar,dest=FILE`".to_owned(),
            ),
            Self::Platforms => Some(
                "write an OCI layout with `-o type=oci,dest=FILE`, or build for one platform"
                    .to_owned(),
            ),
            Self::Overlap { .. } => Some("leave `platform-split=false` out".to_owned()),
            Self::IsADirectory { .. } => {
                Some("name a file, or write a layout with `tar=false`".to_owned())
            }
            _ => None,
        }
    }
}
