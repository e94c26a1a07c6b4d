//! From arguments and configuration to a graph and the images to write.
//!
//! What is to be built becomes a list of [`Recipe`]s: one Dockerfile for one platform each,
//! with its own [`Settings`]. Their base images are resolved, then all are lowered to one graph.

pub(super) mod bake;
mod contexts;
mod layers;
mod settings;
mod single;
mod steps;
mod words;

use std::collections::{BTreeMap, HashMap};

use super::{CliError, Context, build::BuildArgs, config, images};
use crate::{
    config::{Config, TargetName},
    dockerfile::Dockerfile,
    export::ImageJob,
    graph::{
        BuildGraph, ImageTable,
        lower::{LowerInput, LowerWarning, NamedContext, Parent, lower, needed_images},
    },
    oci::Platform,
    registry::Registry,
};
use settings::Settings;

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
    /// Names of the targets, for the plan.
    pub(super) targets: Vec<String>,
}

/// One Dockerfile to be lowered for one platform.
struct Recipe {
    name: String,
    /// What names of steps start with; may be empty.
    prefix: String,
    dockerfile: Dockerfile,
    stage: Option<String>,
    platform: Platform,
    args: BTreeMap<String, String>,
    context: usize,
    /// The build argument and the target that it stands for.
    parent: Option<(String, TargetName)>,
    /// Contexts that are results of other recipes, by name.
    links: Vec<(String, TargetName)>,
    /// Under what others find its result.
    own: Option<TargetName>,
    settings: Settings,
}

/// Reads, parses and lowers everything that the command asks for.
pub(super) async fn prepare(
    context: &Context,
    args: &BuildArgs,
    configuration: Option<&Config>,
    registry: &Registry,
) -> Result<Prepared, CliError> {
    let mut graph = BuildGraph::default();
    let settings = settings::settings(context, args, configuration, &mut graph)?;
    let mut warnings = Vec::new();
    let (mut secrets, mut agents) = (args.secret.clone(), args.ssh.clone());
    let (recipes, jobs) = match (bake::source(args, configuration), configuration) {
        (Some(source), _) => {
            let plan = bake::plan(context, args, &source)?;
            warnings = bake::warnings(&plan);
            secrets = bake::secrets(&plan)?;
            agents = bake::agents(&plan)?;
            bake::recipes(context, args, &plan, &settings, &mut graph)?
        }
        (None, Some(config)) => layers::from_config(context, args, config, &settings, &mut graph)?,
        (None, None) => single::from_arguments(context, args, &settings, &mut graph)?,
    };
    let references = parent_references(&recipes, configuration);
    let mut images = base_images(&recipes, &references, registry).await?;
    let mut prepared = Prepared {
        graph,
        jobs,
        warnings,
        secrets,
        agents,
        proxies: BTreeMap::new(),
        targets: Vec::new(),
    };
    prepared
        .warnings
        .extend(configuration.and_then(layers::no_refresh));
    lower_all(&mut prepared, &recipes, &references, &mut images, registry).await?;
    Ok(prepared)
}

/// Resolves the base images of all recipes, and the images that their triggers name.
async fn base_images(
    recipes: &[Recipe],
    references: &HashMap<TargetName, String>,
    registry: &Registry,
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
        images.extend(images::resolve(registry, wanted).await?);
    }
}

/// Lowers the recipes, parents before their children, into one graph.
async fn lower_all(
    prepared: &mut Prepared,
    recipes: &[Recipe],
    references: &HashMap<TargetName, String>,
    images: &mut ImageTable,
    registry: &Registry,
) -> Result<(), CliError> {
    let mut results: HashMap<TargetName, Parent> = HashMap::new();
    let mut unused: Vec<LowerWarning> = Vec::new();
    for recipe in recipes {
        let input = input(recipe, references, &results);
        // The triggers of a parent are known only now.
        loop {
            let missing = needed_images(&input, images)?;
            if missing.is_empty() {
                break;
            }
            images.extend(images::resolve(registry, missing).await?);
        }
        let lowered = lower(&mut prepared.graph, &input, images)?;
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
        prepared.targets.push(recipe.name.clone());
    }
    for warning in &unused {
        let same = |w: &&LowerWarning| w.message == warning.message;
        let everywhere = unused.iter().filter(same).count() == recipes.len();
        if everywhere && !prepared.warnings.contains(warning) {
            prepared.warnings.push(warning.clone());
        }
    }
    Ok(())
}

/// What a child's FROM sees for each target that is somebody's parent.
fn parent_references(
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

fn input<'r>(
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
        build_platform: Platform::host(),
        build_args,
        labels: settings.labels.clone(),
        context: recipe.context,
        named_contexts,
        parents,
        network: settings.network,
        hosts: settings.hosts.clone(),
        steps: settings.steps.clone(),
        no_cache: settings.no_cache.clone(),
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
