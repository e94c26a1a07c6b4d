//! From arguments and configuration to a graph and the images to write.
//!
//! What is to be built becomes a list of [`Recipe`]s: one Dockerfile for one platform each,
//! with its own [`Settings`]. Their base images are resolved, then all are lowered to one graph.

pub(super) mod bake;
mod contexts;
mod layers;
mod remote;
mod settings;
mod single;
mod steps;
mod words;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use super::{CliError, Context, build::BuildArgs, config, images::BaseImages};
use crate::{
    bake::Plan,
    config::{Config, DEFAULT_VARIANT, TargetName},
    dockerfile::Dockerfile,
    event::Events,
    export::ImageJob,
    graph::{
        BuildGraph, ImageTable, MissingSource, SourceTable,
        lower::{LowerInput, LowerWarning, NamedContext, Parent, lower, needed_images},
    },
    oci::Platform,
    plan::TargetInfo,
    remote::Sources,
};
pub(super) use remote::NOT_FETCHED;
use settings::Settings;
pub(super) use words::build_args;

/// Everything that is decided before a step is looked at.
pub(super) struct Prepared {
    pub(super) graph: BuildGraph,
    pub(super) jobs: Vec<ImageJob>,
    pub(super) warnings: Vec<LowerWarning>,
    /// Secrets for steps, as `--secret` takes them.
    pub(super) secrets: Vec<String>,
    /// SSH agents and keys for steps, as `--ssh` takes them.
    pub(super) agents: Vec<String>,
    /// Proxy variables for steps.
    pub(super) proxies: BTreeMap<String, String>,
    /// The targets, as the graph has them.
    pub(super) targets: Vec<TargetInfo>,
    /// Keeps what was fetched as long as the build runs.
    pub(super) sources: Arc<Sources>,
}

/// One Dockerfile to be lowered for one platform.
pub(super) struct Recipe {
    pub(super) name: String,
    /// What names of steps start with: the target of a bake file, or the layer; may be empty.
    pub(super) prefix: String,
    pub(super) dockerfile: Dockerfile,
    stage: Option<String>,
    platform: Platform,
    args: BTreeMap<String, String>,
    pub(super) context: usize,
    /// The build argument and the target that it stands for.
    pub(super) parent: Option<(String, TargetName)>,
    /// Contexts that are results of other recipes, by name.
    links: Vec<(String, TargetName)>,
    /// Under what others find its result.
    pub(super) own: Option<TargetName>,
    /// The age from which it is built anew.
    refresh: Option<Duration>,
    settings: Settings,
}

impl Recipe {
    /// What a plan says about it. Which images it is part of is told by [`name_images`].
    fn info(&self, all: &[Self]) -> TargetInfo {
        let parents = self.parent.iter().chain(&self.links).map(|(_, name)| name);
        let needs = parents.filter_map(|wanted| {
            let is_it = |recipe: &&Self| recipe.own.as_ref() == Some(wanted);
            Some(all.iter().find(is_it)?.name.clone())
        });
        TargetInfo {
            name: self.name.clone(),
            layer: match &self.own {
                Some(own) => own.layer.clone(),
                None => "image".to_owned(),
            },
            variant: match &self.own {
                Some(own) => own.variant.clone(),
                None => DEFAULT_VARIANT.to_owned(),
            },
            platform: self.platform.clone(),
            needs: needs.collect(),
            tags: Vec::new(),
            requested: false,
            refresh: self.refresh,
        }
    }
}

/// Tells the targets which images they are part of: those are the ones that were asked for.
fn name_images(targets: &mut [TargetInfo], jobs: &[ImageJob]) {
    for job in jobs {
        for number in &job.targets {
            if let Some(target) = targets.get_mut(*number) {
                target.requested = true;
                target.tags.extend(job.tags.iter().cloned());
            }
        }
    }
}

/// Reads, parses and lowers everything that the command asks for: the targets of `plan`, if there
/// is one.
pub(super) async fn prepare(
    context: &Context,
    args: &BuildArgs,
    configuration: Option<&Config>,
    plan: Option<&Plan>,
    bases: &BaseImages,
    events: &Events,
) -> Result<Prepared, CliError> {
    let Asked {
        mut graph,
        recipes,
        jobs,
        warnings,
        secrets,
        agents,
        sources,
    } = read(context, args, configuration, plan, events).await?;
    let references = parent_references(&recipes, configuration);
    let mut images = base_images(&recipes, &references, bases).await?;
    // What ADD fetches is known once the Dockerfiles are lowered, and is then there for
    // the next try.
    let mut fetched = SourceTable::new();
    loop {
        let mut prepared = Prepared {
            graph: graph.clone(),
            jobs: Vec::new(),
            warnings: warnings.clone(),
            secrets: secrets.clone(),
            agents: agents.clone(),
            proxies: BTreeMap::new(),
            targets: Vec::new(),
            sources: Arc::clone(&sources),
        };
        let lowering = lower_all(
            &mut prepared,
            &recipes,
            &references,
            &mut images,
            &fetched,
            bases,
        );
        let missing = lowering.await?;
        if missing.is_empty() {
            name_images(&mut prepared.targets, &jobs);
            prepared.jobs = jobs;
            return Ok(prepared);
        }
        if bases.asks_nobody() {
            remote::stand_in_for_missing(&missing, &mut graph, &mut fetched);
            continue;
        }
        remote::fetch_missing(&missing, &recipes, &sources, &mut graph, &mut fetched).await?;
    }
}

/// What a command asks for, read and parsed.
pub(super) struct Asked {
    pub(super) graph: BuildGraph,
    pub(super) recipes: Vec<Recipe>,
    jobs: Vec<ImageJob>,
    /// What is odd in what was read.
    warnings: Vec<LowerWarning>,
    secrets: Vec<String>,
    agents: Vec<String>,
    sources: Arc<Sources>,
}

/// Reads and parses everything that the command asks for.
pub(super) async fn read(
    context: &Context,
    args: &BuildArgs,
    configuration: Option<&Config>,
    plan: Option<&Plan>,
    events: &Events,
) -> Result<Asked, CliError> {
    let mut graph = BuildGraph::default();
    let mut warnings: Vec<LowerWarning> = Vec::new();
    let (secrets, agents) = match plan {
        Some(plan) => (bake::secrets(plan)?, bake::agents(plan)?),
        None => (args.secret.clone(), args.ssh.clone()),
    };
    let sources = remote::sources(context, args, configuration, &secrets, events)?;
    let settings = settings::settings(context, args, configuration, &sources, &mut graph).await?;
    let (recipes, jobs) = match (plan, configuration) {
        (Some(plan), _) => {
            warnings.extend(bake::warnings(plan));
            bake::recipes(context, args, plan, &settings, &sources, &mut graph).await?
        }
        (None, Some(config)) => layers::from_config(context, args, config, &settings, &mut graph)?,
        (None, None) => {
            single::from_arguments(context, args, &settings, &sources, &mut graph).await?
        }
    };
    Ok(Asked {
        graph,
        recipes,
        jobs,
        warnings,
        secrets,
        agents,
        sources,
    })
}

/// Resolves the base images of all recipes, and the images that their triggers name.
async fn base_images(
    recipes: &[Recipe],
    references: &HashMap<TargetName, String>,
    bases: &BaseImages,
) -> Result<ImageTable, CliError> {
    let mut images = ImageTable::new();
    loop {
        let mut wanted = Vec::new();
        for recipe in recipes {
            // A parent's result is not at hand yet; that there is one is enough here.
            let input = input(recipe, references, &HashMap::new());
            let reference = recipe.parent.as_ref().map(|(_, p)| references[p].clone());
            for image in needed_images(&input, &images)? {
                if Some(&image.0) != reference.as_ref() && !wanted.contains(&image) {
                    wanted.push(image);
                }
            }
        }
        if wanted.is_empty() {
            return Ok(images);
        }
        images.extend(bases.resolve(wanted).await?);
    }
}

/// Lowers the recipes, parents before their children, into one graph. Gives what has to be
/// fetched before that graph can be built.
async fn lower_all(
    prepared: &mut Prepared,
    recipes: &[Recipe],
    references: &HashMap<TargetName, String>,
    images: &mut ImageTable,
    fetched: &SourceTable,
    bases: &BaseImages,
) -> Result<Vec<MissingSource>, CliError> {
    let mut missing_sources: Vec<MissingSource> = Vec::new();
    let mut results: HashMap<TargetName, Parent> = HashMap::new();
    let mut unused: Vec<LowerWarning> = Vec::new();
    for recipe in recipes {
        let input = LowerInput {
            sources: fetched.clone(),
            ..input(recipe, references, &results)
        };
        // The triggers of a parent are known only now.
        loop {
            let missing = needed_images(&input, images)?;
            if missing.is_empty() {
                break;
            }
            images.extend(bases.resolve(missing).await?);
        }
        let lowered = lower(&mut prepared.graph, &input, images)?;
        for new in lowered.missing {
            let same = |known: &MissingSource| known.source == new.source;
            if !missing_sources.iter().any(same) {
                missing_sources.push(new);
            }
        }
        if let Some(own) = &recipe.own {
            let parent = Parent {
                target: prepared.graph.targets[lowered.target].clone(),
                clock: lowered.clock,
            };
            results.insert(own.clone(), parent);
        }
        for warning in lowered.warnings {
            // An argument is for the Dockerfiles that declare it; one is enough.
            if warning.rule == "UnusedBuildArg" {
                unused.push(warning);
            } else if !prepared.warnings.contains(&warning) {
                prepared.warnings.push(warning);
            }
        }
        prepared.proxies.extend(lowered.proxies);
        prepared.targets.push(recipe.info(recipes));
    }
    for warning in &unused {
        let same = |w: &&LowerWarning| w.message == warning.message;
        let everywhere = unused.iter().filter(same).count() == recipes.len();
        if everywhere && !prepared.warnings.contains(warning) {
            prepared.warnings.push(warning.clone());
        }
    }
    Ok(missing_sources)
}

/// What a child's FROM sees for each target that is somebody's parent.
pub(super) fn parent_references(
    recipes: &[Recipe],
    configuration: Option<&Config>,
) -> HashMap<TargetName, String> {
    let image = configuration.map_or("", |c| c.image.as_str());
    recipes
        .iter()
        .filter_map(|recipe| recipe.parent.as_ref())
        .map(|(_, parent)| {
            let platform = parent.platform.to_string().replace('/', "-");
            let text = format!("{image}:{}-{}-{platform}", parent.variant, parent.layer);
            (parent.clone(), text)
        })
        .collect()
}

pub(super) fn input<'r>(
    recipe: &'r Recipe,
    references: &HashMap<TargetName, String>,
    results: &HashMap<TargetName, Parent>,
) -> LowerInput<'r> {
    let settings = &recipe.settings;
    let mut build_args = recipe.args.clone();
    let mut parents = BTreeMap::new();
    if let Some((arg, parent)) = &recipe.parent {
        let reference = &references[parent];
        build_args.insert(arg.clone(), reference.clone());
        if let Some(result) = results.get(parent) {
            parents.insert(reference.clone(), result.clone());
        }
    }
    let mut named_contexts = settings.named.clone();
    for (name, link) in &recipe.links {
        // No reference of a Dockerfile looks like this.
        let key = format!("target://{link}");
        named_contexts.insert(name.clone(), NamedContext::Target(key.clone()));
        if let Some(result) = results.get(link) {
            parents.insert(key, result.clone());
        }
    }
    LowerInput {
        dockerfile: &recipe.dockerfile,
        target_stage: recipe.stage.clone(),
        platform: recipe.platform.clone(),
        implicit_platform: settings.implicit_platform,
        build_platform: Platform::host(),
        build_args,
        labels: settings.labels.clone(),
        context: recipe.context,
        named_contexts,
        parents,
        sources: SourceTable::new(),
        network: settings.network,
        hosts: settings.hosts.clone(),
        steps: settings.steps.clone(),
        no_cache: settings.no_cache.clone(),
        refresh: recipe.refresh,
        epoch: settings.epoch,
        target_name: recipe.name.clone(),
        name_prefix: recipe.prefix.clone(),
    }
}

/// Whether the command builds from a configuration.
pub(super) fn configuration(
    context: &Context,
    args: &BuildArgs,
) -> Result<Option<Config>, CliError> {
    if args.context().is_some() || args.file.is_some() || !args.bake.is_empty() {
        return Ok(None);
    }
    config::load(context).map(Some)
}
