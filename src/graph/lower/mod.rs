//! Lowering: from a parsed Dockerfile to vertices of a [`BuildGraph`], and to the
//! image's configuration.
//!
//! Two steps, both pure. [`needed_images`] names the base images that the target
//! needs, so that they can be resolved, and again those that the triggers (ONBUILD) of the
//! resolved ones name, until none is missing; [`lower`] then makes the vertices. Only stages
//! that the target reaches get vertices, and equal vertices are made once, also across
//! targets and platforms. Semantics are those of BuildKit's Dockerfile frontend
//! (`dockerfile2llb`).
//!
//! # Image history
//!
//! Every instruction adds an entry as BuildKit does, with `# memobuild-ci` where
//! BuildKit says `# buildkit`: `RUN |1 V=1 /bin/sh -c make # memobuild-ci`. The comment
//! is `memobuild-ci.dockerfile.v1`.
//!
//! # Times
//!
//! All paths of a step's layer get one mtime, see [`Clock`].

mod check;
mod clock;
mod config;
mod copy;
mod cycles;
mod env;
mod error;
mod lists;
mod mount;
mod origin;
mod outline;
mod plan;
mod remote;
mod rules;
mod run;
mod stage;
mod triggers;
mod vertices;
mod warning;

#[cfg(test)]
mod tests;

pub use check::Check;
pub use clock::Clock;
pub use error::LowerError;
pub use outline::{Needed, Outline, OutlineArg};
pub use rules::looks_secret;
pub use warning::LowerWarning;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::{
    device::{AllowedDevices, DeviceRegistry},
    dockerfile::Dockerfile,
    graph::{BuildGraph, GraphTarget, ImageTable, MissingSource, NetworkMode, SourceTable, Ulimit},
    oci::Platform,
};

/// One Dockerfile, to be built for one platform.
#[derive(Debug, Clone)]
pub struct LowerInput<'a> {
    /// The Dockerfile; its name stands in errors and locations.
    pub dockerfile: &'a Dockerfile,
    /// `--target`: a stage's name or number; the last stage if none.
    pub target_stage: Option<String>,
    /// What the image is for.
    pub platform: Platform,
    /// Whether nobody asked for it: it is what the builder is, and the image is of the
    /// platform that its base has.
    pub implicit_platform: bool,
    /// What the builder is (`BUILDPLATFORM`).
    pub build_platform: Platform,
    /// `--build-arg`. Proxy variables among them come back in [`Lowered::proxies`].
    pub build_args: BTreeMap<String, String>,
    /// `--label`.
    pub labels: BTreeMap<String, String>,
    /// The main context: a position in `BuildGraph::contexts`.
    pub context: usize,
    /// `--build-context`, by name.
    pub named_contexts: BTreeMap<String, NamedContext>,
    /// Layer targets that FROM, COPY and mounts may name, by the text they use: what a
    /// build argument such as `BASE_IMAGE` holds.
    pub parents: BTreeMap<String, Parent>,
    /// What ADD fetches, as far as it has been fetched; [`Lowered::missing`] has the rest.
    pub sources: SourceTable,
    /// `--network`, for RUN without a flag of its own.
    pub network: NetworkMode,
    /// `--add-host`: name and address.
    pub hosts: Vec<(String, String)>,
    /// What else the options say about RUN.
    pub steps: StepSettings,
    /// `--no-cache` and `--no-cache-filter`.
    pub no_cache: NoCache,
    /// The age from which results of RUN are not used any more.
    pub refresh: Option<Duration>,
    /// `SOURCE_DATE_EPOCH`, if the user gave one: seconds since 1970.
    pub epoch: Option<i64>,
    /// Name of the target, for people: `ml (cpu, linux/amd64)`.
    pub target_name: String,
    /// What step names start with, before the stage's name: `ml`; may be empty.
    pub name_prefix: String,
}

impl<'a> LowerInput<'a> {
    /// The last stage of a Dockerfile for `platform`, built on the same platform, with no
    /// other option given. The context is the graph's first.
    pub fn of(dockerfile: &'a Dockerfile, platform: Platform) -> Self {
        Self {
            dockerfile,
            target_stage: None,
            implicit_platform: false,
            build_platform: platform.clone(),
            platform,
            build_args: BTreeMap::new(),
            labels: BTreeMap::new(),
            context: 0,
            named_contexts: BTreeMap::new(),
            parents: BTreeMap::new(),
            sources: SourceTable::new(),
            network: NetworkMode::Host,
            hosts: Vec::new(),
            steps: StepSettings::default(),
            no_cache: NoCache::None,
            refresh: None,
            epoch: None,
            target_name: String::new(),
            name_prefix: String::new(),
        }
    }
}

/// What every RUN of a build gets or may ask for.
#[derive(Debug, Clone, Default)]
pub struct StepSettings {
    /// `--shm-size`, in bytes.
    pub shm_size: Option<u64>,
    /// `--ulimit`.
    pub ulimits: Vec<Ulimit>,
    /// `--allow security.insecure`.
    pub insecure: bool,
    /// `--allow device`.
    pub allowed_devices: AllowedDevices,
    /// The devices of this host.
    pub devices: Arc<DeviceRegistry>,
}

/// What `--build-context name=…` means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamedContext {
    /// A directory: a position in `BuildGraph::contexts`.
    Local(usize),
    /// An image, as the user wrote it: `docker-image://debian:12`, `oci-layout://dir`.
    /// It is handed to [`needed_images`] in this form.
    Image(String),
    /// The result of another target: a key of [`LowerInput::parents`], which may be missing
    /// for [`needed_images`].
    Target(String),
}

/// The result of a layer target, for another one to build on.
#[derive(Debug, Clone)]
pub struct Parent {
    /// The target.
    pub target: GraphTarget,
    /// Its clock, from [`Lowered::clock`].
    pub clock: Clock,
}

/// `--no-cache`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum NoCache {
    /// Cached results are used.
    #[default]
    None,
    /// No step's.
    All,
    /// Not those of the steps of these stages (`--no-cache-filter`).
    Stages(Vec<String>),
}

/// What lowering made.
#[derive(Debug, Clone)]
pub struct Lowered {
    /// Position of the new target in `BuildGraph::targets`.
    pub target: usize,
    /// The target's clock, for [`Parent`].
    pub clock: Clock,
    /// What is odd but allowed, by line. [`Check::warnings`] has it where it is what is wanted.
    pub warnings: Vec<LowerWarning>,
    /// What the target takes from outside.
    pub outline: Outline,
    /// Proxy variables given with `--build-arg`: every RUN of this target is to see them,
    /// but they aren't in `ExecOp::env` and must not enter keys. Names as given.
    pub proxies: BTreeMap<String, String>,
    /// What [`LowerInput::sources`] lacks. As long as there is something the graph can't be
    /// built: fetch it, and lower anew.
    pub missing: Vec<MissingSource>,
}

/// The images that [`lower`] will look for and that `images` lacks: references as the
/// Dockerfile has them after expansion (or as in [`NamedContext::Image`]) with the platform
/// to resolve them for. Each once, in order. Images that are at hand may name further ones
/// in their triggers, so this is called until nothing is missing.
pub fn needed_images(
    input: &LowerInput<'_>,
    images: &ImageTable,
) -> Result<Vec<(String, Platform)>, LowerError> {
    let checks = check::Checks::new(input, false)?;
    Ok(plan::Plan::new(input, images, &checks)?.needed_images())
}

/// Adds the vertices and the target to `graph`. Fails if `images` lacks an image that
/// [`needed_images`] names.
pub fn lower(
    graph: &mut BuildGraph,
    input: &LowerInput<'_>,
    images: &ImageTable,
) -> Result<Lowered, LowerError> {
    let checks = check::Checks::new(input, false)?;
    let plan = plan::Plan::new(input, images, &checks)?;
    let mut lowered = stage::Lowering::new(graph, &plan).run()?;
    checks.verdict(input)?;
    lowered.warnings = checks.into_warnings();
    Ok(lowered)
}
