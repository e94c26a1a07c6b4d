//! `build`: from arguments to images on disk, with what surrounds the engine: signals,
//! progress, the cache directory, the files that describe the result.

mod args;
mod files;
mod forecast;
mod foreign;
mod options;
mod secrets;

pub(super) use args::{BuildArgs, CompressionArg, ProgressArg};
pub(super) use forecast::{Told, forecast};
pub(super) use options::asked;
pub(super) use secrets::secrets;

use std::{
    error::Error as _,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicI32, Ordering},
    },
    time::Duration,
};

use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{
    CliError, Context, ExitCode, cache, caches, call,
    images::BaseImages,
    prepare::{self, Prepared},
};
use crate::{
    bake::{Plan, Target},
    cache::{DiskStore, GcPolicy},
    config::{CacheSettings, Config},
    dockerfile::lint,
    engine::{BuildError, Engine, EngineOptions, Session},
    event::{BuildEvent, Events},
    export::{self, ExportError},
    fs,
    plan::lock::{self, Lock},
    redact::Redactor,
    registry::{Registry, RegistryOptions},
    ui::ProgressMode,
};

pub(super) fn run(context: &Context, args: &BuildArgs) -> Result<ExitCode, CliError> {
    args.refuse_what_is_missing()?;
    let configuration = prepare::configuration(context, args)?;
    let call = call::Call::of(args)?;
    let source = prepare::bake::source(args, configuration.as_ref());
    let plan = match &source {
        Some(source) => Some(prepare::bake::plan(context, args, source, call)?),
        None => None,
    };
    if args.print {
        prepare::bake::print(plan.as_ref())?;
        return Ok(ExitCode::Success);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(CliError::Runtime)?;
    let configuration = configuration.as_ref();
    let result = runtime.block_on(async {
        match (&plan, call) {
            (Some(plan), _) => build_plan(context, args, configuration, plan, call).await,
            (None, Some(call)) => call::run(context, args, configuration, call).await,
            (None, None) => {
                let built = build(context, args, configuration, None).await;
                built.map(|()| ExitCode::Success)
            }
        }
    });
    // Blocking work that was interrupted must not hold the program up.
    runtime.shutdown_background();
    result
}

/// Builds the targets of a bake file, then answers the calls of those that are called instead.
async fn build_plan(
    context: &Context,
    args: &BuildArgs,
    configuration: Option<&Config>,
    plan: &Plan,
    call: Option<call::Call>,
) -> Result<ExitCode, CliError> {
    let calls = call::TargetCalls::of(plan, call)?;
    let built = |(name, target): &(&String, &Target)| !target.linked && !calls.has(name);
    let built = plan.targets.iter().filter(built);
    let built: Vec<&str> = built.map(|(name, _)| name.as_str()).collect();
    if !built.is_empty() {
        let part = prepare::bake::part(plan, &built);
        build(context, args, configuration, Some(&part)).await?;
    }
    match calls.is_empty() {
        true => Ok(ExitCode::Success),
        false => calls.run(context, args, configuration, plan).await,
    }
}

async fn build(
    context: &Context,
    args: &BuildArgs,
    configuration: Option<&Config>,
    plan: Option<&Plan>,
) -> Result<(), CliError> {
    let events = context.events(progress_mode(context, args));
    let stop = CancellationToken::new();
    let mut watchers = JoinSet::new();
    let signalled = watch_signals(&mut watchers, &stop)?;
    let saving = CancellationToken::new();
    let result = tokio::select! {
        result = build_until_done(
            context, args, configuration, plan, &events, &stop, &saving,
        ) => result,
        () = overdue(&stop, &saving) => Err(BuildError::Interrupted.into()),
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

/// How long it may take then to save what it has made.
const SAVE_GRACE: Duration = Duration::from_secs(5);

/// Waits until a build that was told to stop should have done so. `saving` is cancelled once it
/// has nothing to do but to save.
async fn overdue(stop: &CancellationToken, saving: &CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(GRACE).await;
    if saving.is_cancelled() {
        tokio::time::sleep(SAVE_GRACE).await;
    }
}

/// Waits for what a build still has to save: no longer than the time it has, and a build that is
/// told to stop has little.
async fn finish_saving(
    session: &Session,
    limit: Duration,
    stop: &CancellationToken,
    saving: &CancellationToken,
) {
    saving.cancel();
    let hurry = async {
        stop.cancelled().await;
        tokio::time::sleep(SAVE_GRACE).await;
    };
    tokio::select! {
        () = session.finish_saving(limit) => {}
        () = hurry => session.finish_saving(Duration::ZERO).await,
    }
}

async fn build_until_done(
    context: &Context,
    args: &BuildArgs,
    configuration: Option<&Config>,
    plan: Option<&Plan>,
    events: &Events,
    stop: &CancellationToken,
    saving: &CancellationToken,
) -> Result<(), CliError> {
    let cache_settings = configuration.map(|c| c.cache.clone()).unwrap_or_default();
    let registry = Arc::new(registry(context, &cache_settings)?);
    let bases = BaseImages::of_registry(Arc::clone(&registry), lock(context)?);
    let prepared = tokio::select! {
        prepared = prepare::prepare(context, args, configuration, plan, &bases, events) => prepared?,
        () = stop.cancelled() => return Err(BuildError::Interrupted.into()),
    };
    let settings = configuration.map(|c| c.build.clone()).unwrap_or_default();
    let asked = asked(args, plan);
    let caches = caches::caches(context, &asked, &cache_settings, &registry, events)?;
    let mut options = options::options(context, args, &settings, &prepared, &caches)?;
    options.mount_limit = options::mount_limit(context, args, &cache_settings)?;
    let save_timeout = options::save_timeout(args, &cache_settings)?;
    warn(events, &prepared);
    args.foreign.warn(events);
    for job in &prepared.jobs {
        job.check(&prepared.graph)?;
    }
    files::check(args, &prepared.jobs)?;
    let steps = prepared.graph.vertices.iter().filter(|v| v.op.is_step());
    events.send(BuildEvent::Planned {
        steps: steps.count(),
        targets: prepared.targets.iter().map(|t| t.name.clone()).collect(),
    });
    let (store, _temporary) = open_store(context, args, configuration, events)?;
    let lease = store.lease()?;
    let engine = Engine {
        store: Arc::new(store),
        tiers: caches.tiers,
        vouching: caches.vouching,
        registry,
        events: events.clone(),
        redactor: Arc::new(redactor(context, &options)),
        stop: stop.clone(),
        options,
    };
    let jobs = prepared.jobs;
    let session = Session::new(engine, prepared.graph).await?;
    let result = session
        .build(async |session, built| {
            let mut prepared = Vec::new();
            for job in &jobs {
                prepared.push(export::prepare(session, built, job).await?);
            }
            Ok(prepared)
        })
        .await;
    let result = match result {
        Ok(prepared) => export::write(prepared, events, stop).await,
        Err(error) => Err(ExportError::Build(error)),
    };
    finish_saving(&session, save_timeout, stop, saving).await;
    for warning in session.engine().store.take_warnings() {
        events.warn(warning.to_string(), None);
    }
    events.send(BuildEvent::Finished {
        ok: result.is_ok(),
        totals: session.totals(),
    });
    drop(lease);
    drop(prepared.sources);
    let exported = result?;
    if let Some(config) = configuration {
        keep_limits(config, &session.engine().store, events);
    }
    files::write_files(args, &exported)?;
    files::print_ids(context, &jobs, &exported)
}

/// Hides the values of secret variables and of `--secret`.
fn redactor(context: &Context, options: &EngineOptions) -> Redactor {
    let values = options.secrets.values();
    let values = values.map(|secret| String::from_utf8_lossy(secret.expose()).into_owned());
    Redactor::new(context.env.secrets().into_iter().chain(values))
}

/// The client for registries, with the user's credentials.
pub(super) fn registry(context: &Context, settings: &CacheSettings) -> Result<Registry, CliError> {
    Ok(Registry::new(RegistryOptions {
        authorities: caches::authorities(context, settings)?,
        docker_config: context.env.docker_config(),
        ..RegistryOptions::default()
    })?)
}

/// What base images are pinned to, if the directory has a lock file.
pub(super) fn lock(context: &Context) -> Result<Option<Lock>, CliError> {
    Ok(Lock::load(&*context.files, Path::new(lock::FILE_NAME))?)
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
        let rule = match lint::rule(warning.rule) {
            Some(rule) => format!("{}: ", rule.name),
            None => String::new(),
        };
        let message = format!("{rule}{}{place}", warning.message);
        events.warn(message, warning.hint.clone());
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

/// Where the local store is.
pub(super) fn store_dir(
    context: &Context,
    args: &BuildArgs,
    configuration: Option<&Config>,
) -> Result<PathBuf, CliError> {
    let configured = configuration.and_then(|c| c.cache.dir.clone());
    let dir = match &args.cache_dir {
        Some(dir) => dir.clone(),
        None => context.env.cache_dir(configured),
    };
    // Steps are started in other directories.
    Ok(fs::absolute(dir)?)
}

/// The local store. One that can't be used is replaced by a temporary one, which the second
/// value removes: trouble with a cache costs hits, not the build.
pub(super) fn open_store(
    context: &Context,
    args: &BuildArgs,
    configuration: Option<&Config>,
    events: &Events,
) -> Result<(DiskStore, Option<tempfile::TempDir>), CliError> {
    let dir = store_dir(context, args, configuration)?;
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
