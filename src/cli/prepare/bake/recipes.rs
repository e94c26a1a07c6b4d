//! From the targets of a plan to recipes, and to the images that are written.

use std::{
    collections::{BTreeMap, HashSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    super::{
        Recipe, Settings,
        remote::{self, Given},
        steps, words,
    },
    EPOCH, joined, linked,
};
use crate::{
    bake::{self, Plan, Target},
    cli::{CliError, Context, build::BuildArgs, output},
    config::{DEFAULT_VARIANT, TargetName},
    dockerfile::{self, Dockerfile},
    export::{ImageJob, Output},
    fs::{self, Files},
    graph::{BuildGraph, NetworkMode, lower::NoCache},
    oci::{Platform, reference::Reference},
    remote::Sources,
};

/// What stands before paths that are those of the command even if the bake file is elsewhere.
const CWD: &str = "cwd://";

/// The recipes of the plan's targets, those that others use first, and the images to write.
pub(in crate::cli::prepare) async fn recipes(
    context: &Context,
    args: &BuildArgs,
    plan: &Plan,
    settings: &Settings,
    sources: &Arc<Sources>,
    graph: &mut BuildGraph,
) -> Result<(Vec<Recipe>, Vec<ImageJob>), CliError> {
    let mut recipes: Vec<Recipe> = Vec::new();
    let mut jobs: Vec<ImageJob> = Vec::new();
    for name in order(plan) {
        let target = &plan.targets[name];
        let first = recipes.len();
        let base = base(context, args, (name, target), settings, sources, graph).await?;
        for platform in platforms(target)? {
            recipes.push(recipe(plan, name, platform, &base)?);
        }
        if target.linked {
            continue;
        }
        let outputs = outputs(context, name, target)?;
        let paths = |outputs: &[Output]| -> Vec<PathBuf> {
            let paths = outputs.iter().filter_map(Output::path);
            paths.map(Path::to_owned).collect()
        };
        let own = paths(&outputs);
        if let Some(other) = jobs
            .iter()
            .find(|job| paths(&job.outputs).iter().any(|path| own.contains(path)))
        {
            return Err(CliError::usage_hint(
                format!(
                    "targets `{}` and `{name}` would be written to the same place",
                    other.name
                ),
                "give each a tag or an `output` of its own",
            ));
        }
        jobs.push(ImageJob {
            name: name.to_owned(),
            targets: (first..recipes.len()).collect(),
            outputs,
            tags: target.tags.clone().unwrap_or_default(),
            annotations: output::annotations(target.annotations.as_deref().unwrap_or_default())?,
            multi_platform: words::multi_platform(&target.args)?,
            epoch: recipes[first].settings.epoch,
        });
    }
    Ok((recipes, jobs))
}

/// The names of the targets, after those of the targets that they use as contexts.
fn order(plan: &Plan) -> Vec<&str> {
    fn visit<'p>(
        plan: &'p Plan,
        name: &'p str,
        seen: &mut HashSet<&'p str>,
        out: &mut Vec<&'p str>,
    ) {
        let Some((name, target)) = plan.targets.get_key_value(name) else {
            return;
        };
        if !seen.insert(name) {
            return;
        }
        // There is no cycle: the plan was checked for that.
        for (_, linked) in linked(target) {
            visit(plan, linked, seen, out);
        }
        out.push(name);
    }
    let (mut seen, mut out) = (HashSet::new(), Vec::new());
    for name in plan.targets.keys() {
        visit(plan, name, &mut seen, &mut out);
    }
    out
}

fn platforms(target: &Target) -> Result<Vec<Platform>, CliError> {
    let mut out = Vec::new();
    for text in target.platforms.iter().flatten() {
        let platform = match text.as_str() {
            "local" => Platform::host(),
            text => text.parse()?,
        };
        if !out.contains(&platform) {
            out.push(platform);
        }
    }
    if out.is_empty() {
        out.push(Platform::host());
    }
    Ok(out)
}

/// What steps of `target` get. It has what it asks for only if the command allows it.
fn steps(name: &str, target: &Target, settings: &mut Settings) -> Result<(), CliError> {
    let allowed = settings.steps.clone();
    settings.steps.insecure = false;
    settings.steps.allowed_devices = Default::default();
    for need in target.entitlements.iter().flatten() {
        let (key, _) = need.split_once('=').unwrap_or((need, ""));
        let devices = &allowed.allowed_devices;
        let granted = match key {
            "security.insecure" => allowed.insecure,
            "device" => devices.all || !devices.names.is_empty(),
            _ => true,
        };
        if !granted {
            return Err(CliError::usage_hint(
                format!("target `{name}` asks for `{need}`, which isn't allowed"),
                format!("if you trust the bake file, add `--allow {need}`"),
            ));
        }
        steps::allow(&mut settings.steps, need)?;
    }
    if let Some(size) = &target.shm_size {
        settings.steps.shm_size = Some(steps::shm_size(size)?);
    }
    if let Some(limits) = &target.ulimits {
        settings.steps.ulimits = steps::ulimits(limits)?;
    }
    Ok(())
}

/// What all recipes of a target start from.
struct Base {
    dockerfile: Dockerfile,
    context: usize,
    settings: Settings,
    args: BTreeMap<String, String>,
}

/// Reads what a target names.
async fn base(
    context: &Context,
    args: &BuildArgs,
    (name, target): (&str, &Target),
    settings: &Settings,
    sources: &Arc<Sources>,
    graph: &mut BuildGraph,
) -> Result<Base, CliError> {
    let (place, dockerfile) = place(&*context.files, name, target, sources, graph).await?;
    let mut settings = settings.clone();
    settings.implicit_platform = target.platforms.as_ref().is_none_or(Vec::is_empty);
    settings.labels.extend(target.labels.clone());
    steps(name, target, &mut settings)?;
    settings.network = match target.network.as_deref() {
        None => settings.network,
        Some("" | "default" | "host") => NetworkMode::Host,
        Some("none") => NetworkMode::None,
        Some(other) => {
            return Err(CliError::usage_hint(
                format!("network `{other}` of target `{name}` is not supported"),
                "use `host` or `none`",
            ));
        }
    };
    let hosts: Vec<String> = target
        .extra_hosts
        .iter()
        .flat_map(|(host, addresses)| {
            addresses
                .split(',')
                .map(move |address| format!("{host}={address}"))
        })
        .collect();
    settings.hosts.extend(words::hosts(&hosts)?);
    if target.no_cache == Some(true) {
        settings.no_cache = NoCache::All;
    } else if let Some(stages) = target.no_cache_filter.clone().filter(|s| !s.is_empty()) {
        settings.no_cache = NoCache::Stages(stages);
    }
    if let Some(text) = target.args.get(EPOCH) {
        let epoch = text.parse().map_err(|_| {
            CliError::usage(format!("`{EPOCH}={text}` of target `{name}` is not a time"))
        })?;
        settings.epoch = Some(epoch);
    }
    let links: Vec<&str> = linked(target).map(|(name, _)| name).collect();
    for (context_name, source) in &target.contexts {
        if links.contains(&context_name.as_str()) {
            continue;
        }
        let source = source.strip_prefix(CWD).unwrap_or(source);
        no_stdin(name, source)?;
        let source = remote::named(&*context.files, context_name, source, sources, graph).await?;
        settings.named.insert(context_name.clone(), source);
    }
    // Proxies are predefined arguments; they come from the environment.
    let mut build_args = words::build_args(context, args)?;
    build_args.extend(target.args.clone());
    build_args.remove(EPOCH);
    Ok(Base {
        dockerfile,
        context: place,
        settings,
        args: build_args,
    })
}

/// The recipe of a target for one platform.
fn recipe(plan: &Plan, name: &str, platform: Platform, base: &Base) -> Result<Recipe, CliError> {
    let target = &plan.targets[name];
    let mut links = Vec::new();
    for (context_name, linked) in linked(target) {
        links.push((context_name.to_owned(), link(plan, linked, &platform)?));
    }
    let several = target.platforms.as_ref().is_some_and(|list| list.len() > 1);
    Ok(Recipe {
        name: match several {
            true => format!("{name} ({platform})"),
            false => name.to_owned(),
        },
        prefix: name.to_owned(),
        dockerfile: base.dockerfile.clone(),
        stage: target.target.clone().filter(|stage| !stage.is_empty()),
        args: base.args.clone(),
        context: base.context,
        parent: None,
        links,
        own: Some(own(name, &platform)),
        refresh: None,
        platform,
        settings: base.settings.clone(),
    })
}

fn own(name: &str, platform: &Platform) -> TargetName {
    TargetName {
        layer: name.to_owned(),
        variant: DEFAULT_VARIANT.to_owned(),
        platform: platform.clone(),
    }
}

/// The result of target `name` that one for `platform` uses: that for the same platform, or
/// the only one.
fn link(plan: &Plan, name: &str, platform: &Platform) -> Result<TargetName, CliError> {
    let built = platforms(&plan.targets[name])?;
    let chosen = match built.as_slice() {
        [only] => only,
        several if several.contains(platform) => platform,
        _ => {
            return Err(CliError::usage_hint(
                format!("target `{name}` is used for {platform}, which it isn't built for"),
                "add the platform to its `platforms`",
            ));
        }
    };
    Ok(own(name, chosen))
}

/// The context of a target and its Dockerfile, which is looked for in the context unless the bake
/// file holds it.
async fn place(
    files: &dyn Files,
    name: &str,
    target: &Target,
    sources: &Arc<Sources>,
    graph: &mut BuildGraph,
) -> Result<(usize, Dockerfile), CliError> {
    let text = target.context.as_deref().unwrap_or(".");
    let dir = Path::new(text.strip_prefix(CWD).unwrap_or(text));
    no_stdin(name, &dir.to_string_lossy())?;
    let keep_git_dir = words::keep_git_dir(&target.args);
    let given = remote::given(files, dir, None, keep_git_dir, sources).await?;
    if let Some(text) = &target.dockerfile_inline {
        let source = format!("{name}.dockerfile-inline");
        let parsed = dockerfile::parse(&source, text)?;
        graph.dockerfiles.insert(source, text.clone());
        return Ok((given.enter(files, None, graph)?, parsed));
    }
    let file = target.dockerfile.as_deref().unwrap_or("Dockerfile");
    if file == "-" {
        return Err(CliError::usage(format!(
            "target `{name}` can't have standard input as Dockerfile"
        )));
    }
    let file = match (file.strip_prefix(CWD), &given) {
        (Some(file), Given::Local(_)) => PathBuf::from(file),
        (Some(file), _) => fs::absolute(file)?,
        (None, Given::Local(dir)) if dir != Path::new(".") => dir.join(file),
        (None, _) => PathBuf::from(file),
    };
    let (dockerfile, path) = given.dockerfile(files, Some(&file), sources, graph).await?;
    Ok((given.enter(files, path.as_deref(), graph)?, dockerfile))
}

/// Fails if `text` means standard input, which is nobody's own.
fn no_stdin(target: &str, text: &str) -> Result<(), CliError> {
    match text {
        "-" => Err(CliError::usage(format!(
            "target `{target}` can't have standard input as context"
        ))),
        _ => Ok(()),
    }
}

/// Where the results of a target go: its outputs, else a layout in the output directory.
fn outputs(context: &Context, name: &str, target: &Target) -> Result<Vec<Output>, CliError> {
    for tag in target.tags.iter().flatten() {
        tag.parse::<Reference>().map_err(|error| {
            CliError::usage(format!(
                "tag `{tag}` of target `{name}` is not an image name: {error}"
            ))
        })?;
    }
    let text = |entry: &bake::OutputEntry| {
        let kind = [("type", Some(&entry.kind)), ("dest", entry.dest.as_ref())];
        let kind = kind
            .into_iter()
            .filter_map(|(key, value)| Some((key, value?)));
        let attrs = entry.attrs.iter().map(|(key, value)| (key.as_str(), value));
        joined(
            kind.chain(attrs)
                .map(|(key, value)| format!("{key}={value}")),
        )
    };
    let texts: Vec<String> = target.outputs.iter().flatten().map(text).collect();
    let default = || {
        let tag = target.tags.iter().flatten().next();
        let reference = tag.map_or(name, String::as_str);
        vec![output::default_layout(&context.env.output_dir(), reference)]
    };
    Ok(output::outputs(&texts, false, false)?.unwrap_or_else(default))
}
