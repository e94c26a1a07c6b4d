//! Settings of a recipe that come from options and from the configuration's `build:`.

use std::collections::BTreeMap;

use super::{remote, steps, words};
use crate::{
    cli::{CliError, Context, build::BuildArgs},
    config::{Config, Network},
    graph::{
        BuildGraph, NetworkMode,
        lower::{NamedContext, NoCache, StepSettings},
    },
    remote::Sources,
};

/// What the options say about a Dockerfile, whichever it is.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    /// Whether nobody asked for the platform.
    pub(super) implicit_platform: bool,
    pub(super) network: NetworkMode,
    pub(super) hosts: Vec<(String, String)>,
    pub(super) steps: StepSettings,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) named: BTreeMap<String, NamedContext>,
    pub(super) no_cache: NoCache,
    pub(super) epoch: Option<i64>,
}

pub(super) async fn settings(
    context: &Context,
    args: &BuildArgs,
    configuration: Option<&Config>,
    sources: &Sources,
    graph: &mut BuildGraph,
) -> Result<Settings, CliError> {
    let configured = configuration.map(|c| &c.build);
    let network = match args.network.as_deref() {
        Some("host" | "default") => NetworkMode::Host,
        Some("none") => NetworkMode::None,
        Some(other) => {
            return Err(CliError::usage_hint(
                format!("network `{other}` is not supported"),
                "use `host` or `none`",
            ));
        }
        None => match configured.and_then(|b| b.network) {
            Some(Network::None) => NetworkMode::None,
            Some(Network::Host) | None => NetworkMode::Host,
        },
    };
    let mut named = BTreeMap::new();
    for text in &args.build_context {
        let (name, value) = words::pair(text, "--build-context")?;
        let source = remote::named(&*context.files, name, value, sources, graph).await?;
        named.insert(name.to_owned(), source);
    }
    let no_cache = match (args.no_cache, args.no_cache_filter.is_empty()) {
        (true, _) => NoCache::All,
        (false, true) => NoCache::None,
        (false, false) => NoCache::Stages(args.no_cache_filter.clone()),
    };
    let epoch = match context.env.source_date_epoch()? {
        Some(epoch) => Some(epoch),
        None => configured.and_then(|b| b.source_date_epoch),
    };
    Ok(Settings {
        implicit_platform: configuration.is_none() && args.platform.is_empty(),
        network,
        hosts: words::hosts(&args.add_host)?,
        steps: steps::step_settings(context, args)?,
        labels: words::pairs(&args.label, "--label")?,
        named,
        no_cache,
        epoch: epoch.map(|e| i64::try_from(e).unwrap_or(i64::MAX)),
    })
}
