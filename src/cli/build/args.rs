//! The options of `build`: those of `docker buildx build` by their names, and our own.

use std::{
    num::NonZero,
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};

use super::foreign::ForeignArgs;
use crate::cli::CliError;

#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct BuildArgs {
    /// Build this directory's Dockerfile; without it (and without `-f`), build from `memobuild.yml`
    ///
    /// Instead of a directory: a Git repository (`https://HOST/NAME.git#REF:DIRECTORY`), the URL of an archive or of a
    /// Dockerfile, or `-` for one of them on standard input.
    ///
    /// With `--bake`: the targets and groups to build.
    #[arg(value_name = "CONTEXT")]
    pub(in crate::cli) positional: Vec<PathBuf>,
    /// Name of the Dockerfile, its URL, or `-` for standard input [default: CONTEXT/Dockerfile]
    #[arg(short, long, value_name = "FILE")]
    pub(in crate::cli) file: Option<PathBuf>,
    /// Name of the image; can be given more than once
    #[arg(short, long, value_name = "NAME:TAG")]
    pub(in crate::cli) tag: Vec<String>,
    /// Build argument, `NAME=VALUE`, or `NAME` to take the value from the environment
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub(in crate::cli) build_arg: Vec<String>,
    /// The stage to build [default: the last]; with `memobuild.yml` the layers [default: all]
    #[arg(long, value_name = "STAGE|LAYER", value_delimiter = ',')]
    pub(in crate::cli) target: Vec<String>,
    /// The variants of `memobuild.yml` to build [default: all]
    #[arg(long, value_name = "VARIANT", value_delimiter = ',')]
    pub(in crate::cli) variant: Vec<String>,
    /// Platforms of the image, `os/arch[/variant]` each [default: this machine's]
    #[arg(long, value_name = "PLATFORM", value_delimiter = ',')]
    pub(in crate::cli) platform: Vec<String>,
    /// Another context, or an image by another name: `NAME=DIR`, `NAME=oci-layout://DIR`, `NAME=docker-image://REF`, `NAME=URL`, a Git repository
    #[arg(long, value_name = "NAME=SOURCE")]
    pub(in crate::cli) build_context: Vec<String>,
    /// Label of the image
    #[arg(long, value_name = "NAME=VALUE")]
    pub(in crate::cli) label: Vec<String>,
    /// Where the result goes: `type=oci|docker|tar|local[,dest=PATH][,…]`, `type=registry`, `DIR`, or `-` for a tar on stdout; can be given more than once (default: a layout in `.memobuild-output/<name>-<tag>`)
    #[arg(short, long, value_name = "OUTPUT")]
    pub(in crate::cli) output: Vec<String>,
    /// Load the image into the local Docker; the same as `-o type=docker`
    #[arg(long)]
    pub(in crate::cli) load: bool,
    /// Push the image to the registry of each of its names; the same as `-o type=registry`
    #[arg(long)]
    pub(in crate::cli) push: bool,
    /// Secret for `RUN --mount=type=secret`: `id=NAME,src=FILE` or `id=NAME,env=VARIABLE`
    #[arg(long, value_name = "SECRET")]
    pub(in crate::cli) secret: Vec<String>,
    /// SSH agent or keys for `RUN --mount=type=ssh`: `default`, `ID`, or `ID=SOCKET|KEY[,KEY]`
    #[arg(long, value_name = "ID[=SOCKET|KEY]")]
    pub(in crate::cli) ssh: Vec<String>,
    /// Let steps have more: `security.insecure`, `network.host`, `device`
    #[arg(long, value_name = "ENTITLEMENT")]
    pub(in crate::cli) allow: Vec<String>,
    /// Annotation of the image; the types are `manifest` (the default), `manifest-descriptor`, `index`, `index-descriptor`, each with `[PLATFORM]` or without
    #[arg(long, value_name = "[TYPE:]NAME=VALUE")]
    pub(in crate::cli) annotation: Vec<String>,
    /// Don't build: `check` the Dockerfile, or show its `outline` or its `targets`
    #[arg(long, value_name = "METHOD[,format=FORMAT]")]
    pub(in crate::cli) call: Option<String>,
    /// The same as `--call check`
    #[arg(long)]
    pub(in crate::cli) check: bool,
    /// Build the targets of a bake or compose file; can be given more than once
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) bake: Vec<PathBuf>,
    /// Override a value of a bake target: `TARGET.KEY=VALUE`
    #[arg(long, value_name = "TARGET.KEY=VALUE")]
    pub(in crate::cli) set: Vec<String>,
    /// Print what `--bake` would build as JSON, and build nothing
    #[arg(long)]
    pub(in crate::cli) print: bool,
    /// Has no effect: tags of base images are resolved at their registry in every build
    #[arg(long)]
    pub(in crate::cli) pull: bool,
    /// Run every step, whatever the cache has
    #[arg(long)]
    pub(in crate::cli) no_cache: bool,
    /// Run the steps of these stages, or of these layers of `memobuild.yml`, whatever the cache has
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    pub(in crate::cli) no_cache_filter: Vec<String>,
    /// Network of RUN steps: `host` or `none` [default: host]
    #[arg(long, value_name = "MODE")]
    pub(in crate::cli) network: Option<String>,
    /// Line for /etc/hosts of RUN steps
    #[arg(long, value_name = "NAME:ADDRESS")]
    pub(in crate::cli) add_host: Vec<String>,
    /// Size of /dev/shm in RUN steps, for instance `64m`
    #[arg(long, value_name = "SIZE")]
    pub(in crate::cli) shm_size: Option<String>,
    /// Limit of the processes of RUN steps, for instance `nofile=1024:2048`
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    pub(in crate::cli) ulimit: Vec<String>,
    /// Show RUN steps a bundle of CA certificates: `host`, or a PEM file
    #[arg(long, value_name = "host|FILE")]
    pub(in crate::cli) ca_certificates: Option<PathBuf>,
    /// Compression of the image's layers [default: zstd]
    #[arg(long, value_enum, value_name = "ALGORITHM")]
    pub(in crate::cli) compression: Option<CompressionArg>,
    /// Level of the compression: 1 to 22 for zstd [default: 3], 1 to 9 for gzip [default: 6]
    #[arg(long, value_name = "N")]
    pub(in crate::cli) compression_level: Option<i32>,
    /// Keep caches and logs that make layers differ between equal builds
    #[arg(long)]
    pub(in crate::cli) keep_noise: bool,
    /// Steps that run at the same time [default: number of processors]
    #[arg(short, long, value_name = "N")]
    pub(in crate::cli) jobs: Option<NonZero<usize>>,
    /// Longest time a RUN may take, for instance `10m`
    #[arg(long, value_name = "DURATION")]
    pub(in crate::cli) step_timeout: Option<String>,
    /// Directory of the local cache (default: `MEMOBUILD_CACHE_DIR`)
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) cache_dir: Option<PathBuf>,
    /// A remote cache to read: its address (`https://HOST`, `oci://HOST/NAME`, `s3://BUCKET/PREFIX`, …), or as `docker buildx build` takes it: `type=registry,ref=NAME`, `type=s3,bucket=NAME,region=REGION`, `type=gha`, `type=local,src=DIR`; can be given more than once (default: `MEMOBUILD_REMOTE_URL`)
    #[arg(long, value_name = "CACHE")]
    pub(in crate::cli) cache_from: Vec<String>,
    /// A remote cache to save results in, named as for `--cache-from` (`type=local,dest=DIR`); can be given more than once
    #[arg(long, value_name = "CACHE")]
    pub(in crate::cli) cache_to: Vec<String>,
    /// The trust scope to write under: `protected`, `branch/<name>`, `pull/<number>` or `local` [default: what the CI platform says about the build]
    #[arg(long, value_name = "SCOPE")]
    pub(in crate::cli) cache_scope: Option<String>,
    /// Keep the directories of cache mounts in the remote caches: `on`, `off`, or up to which size each, for instance `2GB` (default: `MEMOBUILD_CACHE_MOUNTS`, `cache.mounts`, else `off`)
    #[arg(long, value_name = "on|off|SIZE")]
    pub(in crate::cli) cache_mounts: Option<String>,
    /// How long to wait at the end for results that are still being saved [default: 60s]
    #[arg(long, value_name = "DURATION")]
    pub(in crate::cli) cache_save_timeout: Option<String>,
    /// Use no remote cache, whatever flags, environment and configuration say
    #[arg(long)]
    pub(in crate::cli) no_remote_cache: bool,
    /// How to show progress
    #[arg(long, value_enum, default_value_t, value_name = "MODE")]
    pub(in crate::cli) progress: ProgressArg,
    /// Write the image's id to this file: the digest of its configuration, or of the index of several platforms
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) iidfile: Option<PathBuf>,
    /// Write a description of the result to this file, as JSON
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) metadata_file: Option<PathBuf>,
    #[command(flatten)]
    pub(in crate::cli) foreign: ForeignArgs,
}

impl BuildArgs {
    /// The context that was named.
    pub(in crate::cli) fn context(&self) -> Option<&Path> {
        self.positional.first().map(PathBuf::as_path)
    }

    /// Fails for an option that is declared and has no effect yet.
    pub(in crate::cli) fn refuse_what_is_missing(&self) -> Result<(), CliError> {
        if self.positional.len() > 1 && self.bake.is_empty() {
            return Err(CliError::usage("only one CONTEXT can be built at a time"));
        }
        self.foreign.check()
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(in crate::cli) enum CompressionArg {
    Zstd,
    Gzip,
    #[value(name = "uncompressed")]
    None,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
pub(in crate::cli) enum ProgressArg {
    #[default]
    Auto,
    Tty,
    Plain,
    Json,
    Quiet,
}
