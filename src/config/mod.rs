//! `memobuild.yml`, and the environment variables that the program reads.
//!
//! [`Config::load`] reads a file and gives the targets to build, a layer of a variant
//! on a platform each, in topological order ([`Config::targets`]). Whatever is wrong is
//! an [`InvalidConfig`] with file, line, column, excerpt and, where one is known, a
//! hint. [`schema`] is the JSON schema for editors. [`env`](mod@env) declares every
//! environment variable once.
//!
//! The format is described in `docs/reference/configuration.md`, which is generated
//! from the doc comments in `file.rs`. Its version is the number under `version`.

mod at;
mod cache;
mod check;
pub mod env;
mod error;
mod file;
mod platforms;
mod remote;
mod suggest;
mod target;
mod template;
pub mod units;
mod variables;
mod yaml;

use std::{
    num::NonZero,
    path::{Path, PathBuf},
    time::Duration,
};

pub use error::{ConfigError, InvalidConfig, Problem};
pub use file::{Compression, Network};
pub use remote::Write;
pub use target::{DEFAULT_VARIANT, Selection, SelectionError, TargetConfig, TargetName};

use crate::fs::{Disk, Files};

/// Names of the configuration file, in the order of look-up.
pub const FILE_NAMES: [&str; 2] = ["memobuild.yml", "memobuild.yaml"];

/// A configuration, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Name of the image, without a tag; empty where bake files are named.
    pub image: String,
    /// Bake files whose targets are built in place of layers.
    pub bake: Option<BakeSettings>,
    /// The local cache.
    pub cache: CacheSettings,
    /// Defaults for builds.
    pub build: BuildSettings,
    targets: Vec<TargetConfig>,
}

/// Bake files, and which of their targets to build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BakeSettings {
    /// The files; later ones win.
    pub files: Vec<PathBuf>,
    /// Targets and groups; none for `default`.
    pub targets: Vec<String>,
}

/// The caches, as far as the file speaks of them. Addresses, scopes and keys are texts here: what
/// they mean is the business of modules above this one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CacheSettings {
    /// Its directory.
    pub dir: Option<PathBuf>,
    /// Bytes above which the least recently used is removed.
    pub max_size: Option<u64>,
    /// Age since the last use at which an entry is removed.
    pub max_age: Option<Duration>,
    /// Remote caches, in order.
    pub remote: Vec<RemoteSettings>,
    /// The trust scope to write under.
    pub scope: Option<String>,
    /// Scopes to read besides.
    pub also_read: Vec<String>,
    /// The private key to sign with.
    pub sign: Option<SigningKey>,
    /// Whose entries are relied on.
    pub trust: TrustSettings,
    /// How long to wait at the end for what is being saved.
    pub save_timeout: Option<Duration>,
    /// The trees of cache mounts; none: they stay on the machine.
    pub mounts: Option<MountSettings>,
    /// Certificate authorities that caches and registries are trusted by, besides the system's.
    pub ca_certificates: Option<PathBuf>,
}

/// A remote cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteSettings {
    /// Its address.
    pub url: String,
    /// Whether it is read.
    pub read: bool,
    /// Whether results are saved there.
    pub write: Write,
}

/// Where a private key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SigningKey {
    /// In the environment variable of this name.
    Variable(String),
    /// In this file.
    File(PathBuf),
}

/// Whose signatures are known, and where they are needed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustSettings {
    /// Public keys.
    pub keys: Vec<TrustedKey>,
    /// Patterns of the scopes that must be signed; none: the default.
    pub require: Option<Vec<String>>,
}

/// A public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrustedKey {
    /// In this file.
    File(PathBuf),
    /// Itself.
    Text(String),
}

/// What is done with the trees of cache mounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MountSettings {
    /// Whether they are saved and restored.
    pub save: bool,
    /// Bytes of a tar of it above which one is neither saved nor restored.
    pub max_size: Option<u64>,
}

/// Defaults for builds, as far as the file gives them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BuildSettings {
    /// The network of RUN steps.
    pub network: Option<Network>,
    /// Certificate authorities for RUN steps.
    pub ca_certificates: Option<CaCertificates>,
    /// Compression of new layers.
    pub compression: Option<Compression>,
    /// Seconds since 1970.
    pub source_date_epoch: Option<u64>,
    /// Steps that run at the same time.
    pub jobs: Option<NonZero<usize>>,
}

/// Certificate authorities that RUN steps see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CaCertificates {
    /// Those of the host.
    Host,
    /// Those of a PEM file.
    File(PathBuf),
}

impl Config {
    /// The configuration file in `dir`, if there is one.
    pub fn find(files: &dyn Files, dir: &Path) -> Option<PathBuf> {
        FILE_NAMES
            .iter()
            .map(|name| dir.join(name))
            .find(|path| files.exists(path))
    }

    /// Reads the file at `path` and checks that all the files it names are there. They
    /// are looked for from its directory.
    pub fn load(files: &dyn Files, path: &Path) -> Result<Self, ConfigError> {
        let root = path.parent().unwrap_or_else(|| Path::new(""));
        Self::load_in(files, path, root)
    }

    /// The same for a configuration that lies elsewhere than the repository at `root`.
    pub fn load_in(files: &dyn Files, path: &Path, root: &Path) -> Result<Self, ConfigError> {
        let text = files
            .read_to_string(path)
            .map_err(|source| ConfigError::Read { source })?;
        Self::read(&path.to_string_lossy(), &text, root, Some(files))
    }

    /// The same for a configuration of the disk that is about the repository `files`, whose root
    /// is the working directory.
    pub fn load_about(files: &dyn Files, path: &Path) -> Result<Self, ConfigError> {
        let text = Disk
            .read_to_string(path)
            .map_err(|source| ConfigError::Read { source })?;
        Self::read(&path.to_string_lossy(), &text, Path::new(""), Some(files))
    }

    /// The configuration with this `text`, called `name` in messages. Nothing is looked
    /// for; paths are relative to the file's directory.
    pub fn parse(name: &str, text: &str) -> Result<Self, ConfigError> {
        Self::read(name, text, Path::new(""), None)
    }

    fn read(
        name: &str,
        text: &str,
        root: &Path,
        look: Option<&dyn Files>,
    ) -> Result<Self, ConfigError> {
        let config = || {
            let file = yaml::read(text)?;
            let config = Self {
                targets: check::targets(&file, root)?,
                cache: cache::settings(file.cache.as_ref(), root)?,
                build: check::build(file.build.as_ref(), root)?,
                bake: check::bake(&file, root),
                image: file
                    .image
                    .as_ref()
                    .map(|i| i.value.clone())
                    .unwrap_or_default(),
            };
            if let Some(files) = look {
                check::files(&file, &config.targets, files)?;
                check::certificates(&file, &config.build)?;
                cache::files(file.cache.as_ref(), &config.cache)?;
            }
            Ok(config)
        };
        config().map_err(|fault: error::Fault| fault.in_file(name, text))
    }

    /// The targets that `selection` names and those they are built on, in topological
    /// order.
    pub fn targets(&self, selection: &Selection) -> Result<Vec<TargetConfig>, SelectionError> {
        target::select(&self.targets, selection)
    }
}

/// The JSON schema of `memobuild.yml` (draft 2020-12).
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(file::File).to_value()
}
