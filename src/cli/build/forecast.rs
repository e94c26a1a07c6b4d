//! What a build with these arguments would do, for `explain`.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{BuildArgs, asked, lock, options, redactor, registry, store_dir};
use crate::{
    bake::Plan,
    cache::DiskStore,
    cli::{CliError, Context, caches, images::BaseImages, prepare},
    config::Config,
    engine::{
        Engine,
        explain::{self, CommitOf, Forecast},
    },
    event::Events,
    fs,
    redact::Redactor,
};

/// A forecast, and what it takes to tell it.
pub(in crate::cli) struct Told {
    pub(in crate::cli) forecast: Forecast,
    pub(in crate::cli) redactor: Arc<Redactor>,
    /// Names of the remote caches that were asked.
    pub(in crate::cli) tiers: Vec<String>,
}

/// Prepares as a build does, and asks the caches. Executes and saves nothing; an empty
/// directory stands for a local cache that isn't there.
pub(in crate::cli) async fn forecast(
    context: &Context,
    args: &BuildArgs,
    configuration: Option<&Config>,
    plan: Option<&Plan>,
    events: &Events,
    commit_of: CommitOf<'_>,
) -> Result<Told, CliError> {
    let cache_settings = configuration.map(|c| c.cache.clone()).unwrap_or_default();
    let registry = Arc::new(registry(context, &cache_settings)?);
    let bases = BaseImages::of_registry(Arc::clone(&registry), lock(context)?);
    let prepared = prepare::prepare(context, args, configuration, plan, &bases, events).await?;
    let settings = configuration.map(|c| c.build.clone()).unwrap_or_default();
    let asked = asked(args, plan);
    let caches = caches::caches(context, &asked, &cache_settings, &registry, events)?;
    let options = options::options(context, args, &settings, &prepared, &caches)?;
    let (store, _temporary) = store_to_read(context, args, configuration)?;
    let tiers = caches.tiers.iter().filter(|tier| tier.access.read);
    let tiers = tiers.map(|tier| tier.name.clone()).collect();
    let redactor = Arc::new(redactor(context, &options));
    let engine = Engine {
        store: Arc::new(store),
        tiers: caches.tiers,
        vouching: caches.vouching,
        registry,
        events: events.clone(),
        redactor: Arc::clone(&redactor),
        stop: CancellationToken::new(),
        options,
    };
    let forecast = explain::forecast(engine, prepared.graph, Some(commit_of)).await?;
    Ok(Told {
        forecast,
        redactor,
        tiers,
    })
}

fn store_to_read(
    context: &Context,
    args: &BuildArgs,
    configuration: Option<&Config>,
) -> Result<(DiskStore, Option<tempfile::TempDir>), CliError> {
    let dir = store_dir(context, args, configuration)?;
    if fs::exists(dir.join("VERSION")) {
        return Ok((DiskStore::open_read_only(dir)?, None));
    }
    let temporary = fs::temp_dir_in(context.env.temp_dir())?;
    Ok((DiskStore::open(temporary.path())?, Some(temporary)))
}
