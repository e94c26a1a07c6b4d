//! From arguments and configuration to the engine's options.

use std::{
    num::NonZero,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{BuildArgs, CompressionArg, ProgressArg, secrets};
use crate::{
    bake::Plan,
    cli::{
        CliError, Context,
        caches::{Asked, Caches, Named},
        prepare::Prepared,
    },
    config::{self, BuildSettings, CaCertificates, CacheSettings, units},
    engine::EngineOptions,
    fs,
    oci::layer::{Compression, LayerOptions},
};

/// Where hosts keep their CA bundle: Debian, Fedora, Alpine and openSUSE.
const HOST_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
    "/var/lib/ca-certificates/ca-bundle.pem",
];

/// How long a build waits at its end where nobody says it.
const SAVE_TIMEOUT: Duration = Duration::from_secs(60);

/// Bytes up to which the tree of a cache mount is saved and restored where nobody says it.
const MOUNT_LIMIT: u64 = 512 << 20;

/// What the options, and the bake targets that are built, say about caches.
pub(in crate::cli) fn asked<'a>(args: &'a BuildArgs, plan: Option<&'a Plan>) -> Asked<'a> {
    let from = args.cache_from.iter();
    let from = from.map(|text| Named::read("--cache-from", text));
    let to = args.cache_to.iter();
    let to = to.map(|text| Named::written("--cache-to", text));
    let targets = plan.iter().flat_map(|plan| plan.targets.values());
    let targets = targets.flat_map(|target| {
        let from = target.cache_from.iter().flatten();
        let to = target.cache_to.iter().flatten();
        from.map(|entry| Named::of_target(entry, false))
            .chain(to.map(|entry| Named::of_target(entry, true)))
    });
    Asked {
        flags: from.chain(to).collect(),
        targets: targets.collect(),
        scope: args.cache_scope.as_deref(),
        no_tiers: args.no_remote_cache,
    }
}

/// How long to wait at the end for what is being saved.
pub(super) fn save_timeout(
    args: &BuildArgs,
    settings: &CacheSettings,
) -> Result<Duration, CliError> {
    match &args.cache_save_timeout {
        Some(text) => units::parse_duration(text)
            .map_err(|error| CliError::usage(format!("`--cache-save-timeout {text}`: {error}"))),
        None => Ok(settings.save_timeout.unwrap_or(SAVE_TIMEOUT)),
    }
}

/// Bytes up to which the trees of cache mounts are saved and restored, if they are.
pub(super) fn mount_limit(
    context: &Context,
    args: &BuildArgs,
    settings: &CacheSettings,
) -> Result<Option<u64>, CliError> {
    let configured = settings.mounts.and_then(|mounts| mounts.max_size);
    let limit = configured.unwrap_or(MOUNT_LIMIT);
    let flag = args.cache_mounts.as_deref();
    let flag = flag.map(|text| ("--cache-mounts ", text));
    let variable = context.env.cache_mounts();
    let variable = variable.map(|text| ("MEMOBUILD_CACHE_MOUNTS=", text));
    match flag.or(variable) {
        None => Ok(settings.mounts.filter(|m| m.save).map(|_| limit)),
        Some((_, "on")) => Ok(Some(limit)),
        Some((_, "off")) => Ok(None),
        Some((who, text)) => units::parse_size(text).map(Some).map_err(|error| {
            CliError::usage_hint(
                format!("`{who}{text}`: {error}"),
                "say `on`, `off` or the size of the largest one, such as `2GB`",
            )
        }),
    }
}

pub(super) fn options(
    context: &Context,
    args: &BuildArgs,
    settings: &BuildSettings,
    prepared: &Prepared,
    caches: &Caches,
) -> Result<EngineOptions, CliError> {
    let compression = match (args.compression, settings.compression) {
        (Some(CompressionArg::Gzip), _) | (None, Some(config::Compression::Gzip)) => {
            Compression::Gzip
        }
        (Some(CompressionArg::None), _) => Compression::None,
        (Some(CompressionArg::Zstd), _) | (None, _) => Compression::Zstd,
    };
    let levels = match compression {
        Compression::Zstd => 1..=22,
        Compression::Gzip => 1..=9,
        Compression::None => 0..=0,
    };
    if let Some(level) = args.compression_level
        && !levels.contains(&level)
    {
        return Err(CliError::usage(format!(
            "`--compression-level {level}` is not from {} to {}",
            levels.start(),
            levels.end()
        )));
    }
    let step_timeout = match &args.step_timeout {
        Some(text) => Some(
            units::parse_duration(text)
                .map_err(|error| CliError::usage(format!("`--step-timeout {text}`: {error}")))?,
        ),
        None => None,
    };
    let processors = std::thread::available_parallelism().map_or(2, usize::from);
    Ok(EngineOptions {
        jobs: args.jobs.or(settings.jobs).map_or(processors, NonZero::get),
        explain: context.global.verbose > 0 || matches!(args.progress, ProgressArg::Json),
        normalise: !args.keep_noise,
        layer: LayerOptions {
            compression,
            level: args.compression_level,
        },
        step_timeout,
        ca_certificates: ca_certificates(context, args, settings)?,
        proxies: prepared.proxies.clone().into_iter().collect(),
        secrets: secrets::secrets(&prepared.secrets)?,
        agents: secrets::agents(context, &prepared.agents)?,
        program: PathBuf::from("/proc/self/exe"),
        temp_dir: secrets::temp_dir(context)?,
        producer: caches.producer.clone(),
        scopes: caches.scopes.clone(),
        mount_limit: None,
    })
}

/// The bundle that `--ca-certificates` or the configuration names.
fn ca_certificates(
    context: &Context,
    args: &BuildArgs,
    settings: &BuildSettings,
) -> Result<Option<PathBuf>, CliError> {
    let wanted = match &args.ca_certificates {
        Some(path) if path == Path::new("host") => CaCertificates::Host,
        Some(path) => CaCertificates::File(path.clone()),
        None => match &settings.ca_certificates {
            Some(configured) => configured.clone(),
            None => return Ok(None),
        },
    };
    match wanted {
        CaCertificates::File(path) => Ok(Some(fs::canonicalize(path)?)),
        CaCertificates::Host => context
            .env
            .ssl_cert_file()
            .into_iter()
            .chain(HOST_BUNDLES.map(PathBuf::from))
            .find_map(|path| fs::canonicalize(path).ok())
            .map(Some)
            .ok_or_else(|| {
                CliError::usage_hint(
                    "this host has no bundle of CA certificates",
                    "install `ca-certificates`, or name a PEM file with `--ca-certificates FILE`",
                )
            }),
    }
}
