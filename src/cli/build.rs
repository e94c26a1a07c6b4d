//! `build`: from arguments to images on disk, with what surrounds the engine: signals,
//! progress, the cache directory, the files that describe the result.

use std::{
    collections::BTreeMap,
    error::Error as _,
    io,
    num::NonZero,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicI32, Ordering},
    },
    time::Duration,
};

use clap::{Args, ValueEnum};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{
    CliError, Context, ExitCode, cache,
    prepare::{self, Prepared},
};
use crate::{
    cache::{DiskStore, GcPolicy, Producer},
    config::{self, BuildSettings, CaCertificates, Config, units},
    engine::{BuildError, Engine, EngineOptions, Session},
    event::{BuildEvent, Events},
    export::{ExportedImage, export},
    fs,
    oci::layer::{Compression, LayerOptions},
    redact::Redactor,
    registry::{Registry, RegistryOptions},
    ui::{self, ProgressMode},
};

/// Where hosts keep their CA bundle: Debian, Fedora, Alpine and openSUSE.
const HOST_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
    "/var/lib/ca-certificates/ca-bundle.pem",
];

#[derive(Debug, Args)]
pub(super) struct BuildArgs {
    /// Build this directory's Dockerfile; without it (and without `-f`), build from `memobuild.yml`
    #[arg(value_name = "CONTEXT")]
    pub(super) context: Option<PathBuf>,
    /// Name of the Dockerfile [default: CONTEXT/Dockerfile]
    #[arg(short, long, value_name = "FILE")]
    pub(super) file: Option<PathBuf>,
    /// Name of the image; can be given more than once
    #[arg(short, long, value_name = "NAME:TAG")]
    pub(super) tag: Vec<String>,
    /// Build argument, `NAME=VALUE`, or `NAME` to take the value from the environment
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub(super) build_arg: Vec<String>,
    /// The stage to build [default: the last]; with `memobuild.yml` the layers [default: all]
    #[arg(long, value_name = "STAGE|LAYER", value_delimiter = ',')]
    pub(super) target: Vec<String>,
    /// The variants of `memobuild.yml` to build [default: all]
    #[arg(long, value_name = "VARIANT", value_delimiter = ',')]
    pub(super) variant: Vec<String>,
    /// Platforms of the image, `os/arch[/variant]` each [default: this machine's]
    #[arg(long, value_name = "PLATFORM", value_delimiter = ',')]
    pub(super) platform: Vec<String>,
    /// Another context, or an image by another name: `NAME=DIR`, `NAME=oci-layout://DIR`, `NAME=docker-image://REF`
    #[arg(long, value_name = "NAME=SOURCE")]
    pub(super) build_context: Vec<String>,
    /// Label of the image
    #[arg(long, value_name = "NAME=VALUE")]
    pub(super) label: Vec<String>,
    /// Where the image goes: `type=oci,dest=PATH[,tar=false]` (default: `.memobuild-output/<name>-<tag>`)
    #[arg(short, long, value_name = "OUTPUT")]
    pub(super) output: Option<String>,
    /// Run every step, whatever the cache has
    #[arg(long)]
    pub(super) no_cache: bool,
    /// Run the steps of these stages, whatever the cache has
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    pub(super) no_cache_filter: Vec<String>,
    /// Network of RUN steps: `host` or `none` [default: host]
    #[arg(long, value_name = "MODE")]
    pub(super) network: Option<String>,
    /// Line for /etc/hosts of RUN steps
    #[arg(long, value_name = "NAME:ADDRESS")]
    pub(super) add_host: Vec<String>,
    /// Show RUN steps a bundle of CA certificates: `host`, or a PEM file
    #[arg(long, value_name = "host|FILE")]
    pub(super) ca_certificates: Option<PathBuf>,
    /// Compression of the image's layers [default: zstd]
    #[arg(long, value_enum, value_name = "ALGORITHM")]
    pub(super) compression: Option<CompressionArg>,
    /// Level of the compression: 1 to 22 for zstd [default: 3], 1 to 9 for gzip [default: 6]
    #[arg(long, value_name = "N")]
    pub(super) compression_level: Option<i32>,
    /// Keep caches and logs that make layers differ between equal builds
    #[arg(long)]
    pub(super) keep_noise: bool,
    /// Steps that run at the same time [default: number of processors]
    #[arg(short, long, value_name = "N")]
    pub(super) jobs: Option<NonZero<usize>>,
    /// Longest time a RUN may take, for instance `10m`
    #[arg(long, value_name = "DURATION")]
    pub(super) step_timeout: Option<String>,
    /// Directory of the local cache (default: `MEMOBUILD_CACHE_DIR`)
    #[arg(long, value_name = "DIR")]
    pub(super) cache_dir: Option<PathBuf>,
    /// How to show progress
    #[arg(long, value_enum, default_value_t, value_name = "MODE")]
    pub(super) progress: ProgressArg,
    /// Write the image's digest to this file
    #[arg(long, value_name = "FILE")]
    pub(super) iidfile: Option<PathBuf>,
    /// Write a description of the result to this file, as JSON
    #[arg(long, value_name = "FILE")]
    pub(super) metadata_file: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum CompressionArg {
    Zstd,
    Gzip,
    #[value(name = "uncompressed")]
    None,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
pub(super) enum ProgressArg {
    #[default]
    Auto,
    Tty,
    Plain,
    Json,
    Quiet,
}

pub(super) fn run(context: &Context, args: &BuildArgs) -> Result<ExitCode, CliError> {
    let configuration = prepare::configuration(context, args)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(CliError::Runtime)?;
    let result = runtime.block_on(build(context, args, configuration.as_ref()));
    // Blocking work that was interrupted must not hold the program up.
    runtime.shutdown_background();
    result.map(|()| ExitCode::Success)
}

async fn build(
    context: &Context,
    args: &BuildArgs,
    configuration: Option<&Config>,
) -> Result<(), CliError> {
    let events = Events::new(ui::Progress::new(
        progress_mode(context, args),
        context.color,
        Box::new(io::stderr()),
    ));
    let stop = CancellationToken::new();
    let mut watchers = JoinSet::new();
    let signalled = watch_signals(&mut watchers, &stop)?;
    let result = tokio::select! {
        result = build_until_done(context, args, configuration, &events, &stop) => result,
        () = async { stop.cancelled().await; tokio::time::sleep(GRACE).await } => {
            Err(BuildError::Interrupted.into())
        }
    };
    match (result, signalled.load(Ordering::SeqCst)) {
        (Err(CliError::Build(error)), signal)
            if signal != 0 && matches!(*error, BuildError::Interrupted) =>
        {
            Err(CliError::Signal { signal })
        }
        (result, _) => result,
    }
}

/// How long a build that was told to stop may take to do so.
const GRACE: Duration = Duration::from_secs(2);

async fn build_until_done(
    context: &Context,
    args: &BuildArgs,
    configuration: Option<&Config>,
    events: &Events,
    stop: &CancellationToken,
) -> Result<(), CliError> {
    let registry = Arc::new(Registry::new(RegistryOptions {
        docker_config: context.env.docker_config(),
        ..RegistryOptions::default()
    })?);
    let prepared = tokio::select! {
        prepared = prepare::prepare(context, args, configuration, &registry) => prepared?,
        () = stop.cancelled() => return Err(BuildError::Interrupted.into()),
    };
    let settings = configuration.map(|c| c.build.clone()).unwrap_or_default();
    let options = options(context, args, &settings, prepared.proxies.clone())?;
    warn(events, &prepared);
    let steps = prepared.graph.vertices.iter().filter(|v| v.op.is_step());
    events.send(BuildEvent::Planned {
        steps: steps.count(),
        targets: prepared.targets.clone(),
    });
    let (store, _temporary) = open_store(context, args, configuration, events)?;
    let lease = store.lease()?;
    let engine = Engine {
        store: Arc::new(store),
        registry,
        events: events.clone(),
        redactor: Arc::new(Redactor::new(context.env.secrets())),
        stop: stop.clone(),
        options,
    };
    let jobs = prepared.jobs;
    let session = Session::new(engine, prepared.graph).await?;
    let result = session
        .build(async |session, built| {
            let mut images = Vec::new();
            for job in &jobs {
                images.push(export(session, built, job).await?);
            }
            Ok(images)
        })
        .await;
    for warning in session.engine().store.take_warnings() {
        events.warn(warning.to_string(), None);
    }
    events.send(BuildEvent::Finished {
        ok: result.is_ok(),
        totals: session.totals(),
    });
    drop(lease);
    let images = result?;
    if let Some(config) = configuration {
        keep_limits(config, &session.engine().store, events);
    }
    write_files(args, &images)
}

/// Keeps the store within the configured limits. What the build has just used is recent and
/// stays; trouble costs disk space, not the build.
fn keep_limits(config: &Config, store: &DiskStore, events: &Events) {
    let policy = GcPolicy {
        max_bytes: config.cache.max_size,
        max_age: config.cache.max_age,
        ..GcPolicy::default()
    };
    if policy.max_bytes.is_none() && policy.max_age.is_none() {
        return;
    }
    if let Err(error) = cache::collect(store, &policy) {
        events.warn(format!("the cache was not cleaned: {error}"), None);
    }
}

fn warn(events: &Events, prepared: &Prepared) {
    for warning in &prepared.warnings {
        let place = match &warning.location {
            Some(location) => format!(" ({}:{})", location.file, location.start),
            None => String::new(),
        };
        events.warn(format!("{}{place}", warning.message), warning.hint.clone());
    }
}

pub(super) fn progress_mode(context: &Context, args: &BuildArgs) -> ProgressMode {
    if context.global.quiet {
        return ProgressMode::Quiet;
    }
    match args.progress {
        ProgressArg::Auto => {
            let bars = context.env.bars(io::IsTerminal::is_terminal(&io::stderr()));
            ProgressMode::Auto.resolve(bars)
        }
        ProgressArg::Tty => ProgressMode::Tty,
        ProgressArg::Plain => ProgressMode::Plain,
        ProgressArg::Json => ProgressMode::Json,
        ProgressArg::Quiet => ProgressMode::Quiet,
    }
}

/// Cancels `stop` at the first SIGINT or SIGTERM; at the second the program ends by it.
fn watch_signals(
    watchers: &mut JoinSet<()>,
    stop: &CancellationToken,
) -> Result<Arc<AtomicI32>, CliError> {
    let signalled = Arc::new(AtomicI32::new(0));
    for kind in [SignalKind::interrupt(), SignalKind::terminate()] {
        let mut stream = signal(kind).map_err(CliError::Runtime)?;
        let (stop, signalled) = (stop.clone(), Arc::clone(&signalled));
        let number = kind.as_raw_value();
        watchers.spawn(async move {
            while stream.recv().await.is_some() {
                if stop.is_cancelled() {
                    crate::sys::exit_now(128 + number);
                }
                signalled.store(number, Ordering::SeqCst);
                stop.cancel();
            }
        });
    }
    Ok(signalled)
}

/// The local store. One that can't be used is replaced by a temporary one, which the second
/// value removes: trouble with a cache costs hits, not the build.
fn open_store(
    context: &Context,
    args: &BuildArgs,
    configuration: Option<&Config>,
    events: &Events,
) -> Result<(DiskStore, Option<tempfile::TempDir>), CliError> {
    let configured = configuration.and_then(|c| c.cache.dir.clone());
    let dir = match &args.cache_dir {
        Some(dir) => dir.clone(),
        None => context.env.cache_dir(configured),
    };
    // Steps are started in other directories.
    let dir = fs::absolute(dir)?;
    let trouble = match DiskStore::open(&dir) {
        Ok(store) if store.is_writable() => return Ok((store, None)),
        Ok(_) => "it can't be written".to_owned(),
        Err(error) => match error.source() {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        },
    };
    events.warn(
        format!(
            "the cache directory `{}` can't be used ({trouble}); this build starts without a cache and keeps nothing",
            dir.display()
        ),
        Some("choose another directory with `--cache-dir` or `MEMOBUILD_CACHE_DIR`".to_owned()),
    );
    let temporary = fs::temp_dir_in(context.env.temp_dir())?;
    let store = DiskStore::open(temporary.path())?;
    Ok((store, Some(temporary)))
}

fn options(
    context: &Context,
    args: &BuildArgs,
    settings: &BuildSettings,
    proxies: BTreeMap<String, String>,
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
        normalise: !args.keep_noise,
        layer: LayerOptions {
            compression,
            level: args.compression_level,
        },
        step_timeout,
        ca_certificates: ca_certificates(context, args, settings)?,
        proxies: proxies.into_iter().collect(),
        producer: Producer {
            tool: concat!("memobuild-ci ", env!("CARGO_PKG_VERSION")).to_owned(),
            ..Producer::default()
        },
        scope: "local".to_owned(),
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

/// `--iidfile` and `--metadata-file`.
fn write_files(args: &BuildArgs, images: &[ExportedImage]) -> Result<(), CliError> {
    if let (Some(path), Some(image)) = (&args.iidfile, images.first()) {
        fs::write_atomic(path, image.digest.to_string().as_bytes())?;
    }
    let Some(path) = &args.metadata_file else {
        return Ok(());
    };
    let described: Vec<_> = images.iter().map(describe).collect();
    let value = match described.as_slice() {
        [one] => one.clone(),
        several => serde_json::json!({ "images": several }),
    };
    fs::write_atomic(path, serde_json::to_string_pretty(&value)?.as_bytes())?;
    Ok(())
}

/// The keys that `docker buildx build --metadata-file` writes, where they apply.
fn describe(image: &ExportedImage) -> serde_json::Value {
    serde_json::json!({
        "image.name": image.name,
        "containerimage.digest": image.digest,
        "containerimage.config.digest": image.config,
        "containerimage.descriptor": {
            "mediaType": image.media_type,
            "digest": image.digest,
            "size": image.size,
        },
        "memobuild.dest": image.dest.display().to_string(),
        "memobuild.layers": image.layers,
    })
}
