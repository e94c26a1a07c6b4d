//! The layer targets of a `memobuild.yml`.

use std::collections::BTreeMap;

use super::{
    Recipe, Settings,
    contexts::{add_context, ignore_file, read_dockerfile},
    single::outputs,
    words,
};
use crate::{
    cli::{CliError, Context, build::BuildArgs, output},
    config::{Config, Selection, TargetConfig},
    export::{ImageJob, Output},
    graph::{BuildGraph, lower::NoCache},
};

/// The recipes and images of a configuration.
pub(super) fn from_config(
    context: &Context,
    args: &BuildArgs,
    config: &Config,
    settings: &Settings,
    graph: &mut BuildGraph,
) -> Result<(Vec<Recipe>, Vec<ImageJob>), CliError> {
    let selection = Selection {
        layers: args.target.clone(),
        variants: args.variant.clone(),
        platforms: words::platforms(args)?,
    };
    let extra = words::build_args(context, args)?;
    let files = &*context.files;
    let targets = config.targets(&selection)?;
    let mut recipes = Vec::new();
    let mut jobs: Vec<(String, ImageJob)> = Vec::new();
    for (number, target) in targets.iter().enumerate() {
        let dockerfile = read_dockerfile(files, graph, &target.dockerfile)?;
        let ignore = ignore_file(files, Some(&target.dockerfile), &target.context)?;
        let mut build_args: BTreeMap<String, String> = target.args.iter().cloned().collect();
        build_args.extend(extra.clone());
        recipes.push(Recipe {
            name: target.name.to_string(),
            prefix: target.name.layer.clone(),
            dockerfile,
            stage: target.stage.clone(),
            platform: target.name.platform.clone(),
            args: build_args,
            context: add_context(files, graph, "context", &target.context, Some(ignore))?,
            parent: target.parent.clone().map(|p| (target.base_arg.clone(), p)),
            links: Vec::new(),
            own: Some(target.name.clone()),
            refresh: target.refresh,
            settings: settings_of(args, target, settings),
        });
        if !target.requested {
            continue;
        }
        let reference = format!("{}:{}", config.image, target.tag);
        match jobs.iter_mut().find(|(known, _)| *known == reference) {
            Some((_, job)) => job.targets.push(number),
            None => {
                let job = config_job(context, args, target, &reference, number, settings.epoch)?;
                jobs.push((reference, job));
            }
        }
    }
    let outputs = jobs.first().map_or(&[][..], |(_, job)| &job.outputs);
    let one_place = |o: &Output| o.is_stdout() || o.path().is_some();
    if jobs.len() > 1 && !args.output.is_empty() && outputs.iter().any(one_place) {
        return Err(CliError::usage_hint(
            "`-o` names one place for several images",
            "select one with `--target` and `--variant`, or set `MEMOBUILD_OUTPUT` to a directory for all",
        ));
    }
    Ok((recipes, jobs.into_iter().map(|(_, job)| job).collect()))
}

/// `--no-cache-filter` names stages, or whole layers.
fn settings_of(args: &BuildArgs, target: &TargetConfig, settings: &Settings) -> Settings {
    let mut settings = settings.clone();
    if args.no_cache_filter.contains(&target.name.layer) {
        settings.no_cache = NoCache::All;
    }
    settings
}

fn config_job(
    context: &Context,
    args: &BuildArgs,
    target: &TargetConfig,
    reference: &str,
    number: usize,
    epoch: Option<i64>,
) -> Result<ImageJob, CliError> {
    Ok(ImageJob {
        name: target.name.to_string(),
        targets: vec![number],
        outputs: outputs(context, args, reference)?,
        tags: vec![reference.to_owned()],
        annotations: output::annotations(&args.annotation)?,
        multi_platform: words::multi_platform(&words::build_args(context, args)?)?,
        epoch,
    })
}
