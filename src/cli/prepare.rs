//! From arguments and configuration to a graph and the images to write.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
};

use super::{CliError, Context, build::BuildArgs, config, images, output};
use crate::{
    config::{Config, Network, Selection, TargetConfig, TargetName},
    dockerfile::{self, Dockerfile},
    export::{Destination, ImageJob},
    fs::{self, IoContext as _},
    graph::{
        BuildGraph, ImageTable, LocalContext, NetworkMode,
        lower::{LowerInput, LowerWarning, NamedContext, NoCache, Parent, lower, needed_images},
    },
    oci::{Platform, reference::Reference},
    registry::Registry,
};

/// Everything that is decided before a step is looked at.
pub(super) struct Prepared {
    pub(super) graph: BuildGraph,
    pub(super) jobs: Vec<ImageJob>,
    pub(super) warnings: Vec<LowerWarning>,
    /// Proxy variables for steps.
    pub(super) proxies: BTreeMap<String, String>,
    /// Names of the targets, for the plan.
    pub(super) targets: Vec<String>,
}

/// One Dockerfile to be lowered for one platform.
struct Recipe {
    name: String,
    prefix: String,
    dockerfile: Dockerfile,
    stage: Option<String>,
    platform: Platform,
    args: BTreeMap<String, String>,
    context: usize,
    /// The build argument and the target that it stands for.
    parent: Option<(String, TargetName)>,
    own: Option<TargetName>,
}

/// What all recipes share.
struct Settings {
    network: NetworkMode,
    hosts: Vec<(String, String)>,
    labels: BTreeMap<String, String>,
    named: BTreeMap<String, NamedContext>,
    no_cache: NoCache,
    epoch: Option<i64>,
}

/// Reads, parses and lowers everything that the command asks for.
pub(super) async fn prepare(
    context: &Context,
    args: &BuildArgs,
    configuration: Option<&Config>,
    registry: &Registry,
) -> Result<Prepared, CliError> {
    let mut graph = BuildGraph::default();
    let settings = settings(context, args, configuration, &mut graph)?;
    let (recipes, jobs) = match configuration {
        Some(config) => from_config(context, args, config, settings.epoch, &mut graph)?,
        None => from_arguments(context, args, settings.epoch, &mut graph)?,
    };
    let parents = parent_references(&recipes, configuration);
    let mut wanted = Vec::new();
    for recipe in &recipes {
        // A parent's result is not at hand yet; that there is one is enough here.
        let input = input(recipe, &settings, &parents, &HashMap::new());
        let reference = recipe.parent.as_ref().map(|(_, p)| parents[p].clone());
        for image in needed_images(&input)? {
            if Some(&image.0) != reference.as_ref() && !wanted.contains(&image) {
                wanted.push(image);
            }
        }
    }
    let images: ImageTable = images::resolve(registry, wanted).await?;
    let mut prepared = Prepared {
        graph,
        jobs,
        warnings: Vec::new(),
        proxies: BTreeMap::new(),
        targets: Vec::new(),
    };
    prepared.warnings.extend(configuration.and_then(no_refresh));
    let mut results: HashMap<TargetName, Parent> = HashMap::new();
    let mut unused: Vec<LowerWarning> = Vec::new();
    for recipe in &recipes {
        let input = input(recipe, &settings, &parents, &results);
        let lowered = lower(&mut prepared.graph, &input, &images)?;
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
        let everywhere = unused
            .iter()
            .filter(|w| w.message == warning.message)
            .count();
        if everywhere == recipes.len() && !prepared.warnings.contains(warning) {
            prepared.warnings.push(warning.clone());
        }
    }
    Ok(prepared)
}

/// Says that `refresh` does nothing yet, where the configuration has one.
fn no_refresh(config: &Config) -> Option<LowerWarning> {
    let targets = config.targets(&Selection::default()).ok()?;
    let target = targets.iter().find(|target| target.refresh.is_some())?;
    Some(LowerWarning {
        rule: "Refresh",
        message: format!(
            "`refresh` of layer `{}` has no effect yet",
            target.name.layer
        ),
        location: None,
        hint: Some("build with `--no-cache` when the layer should be made anew".to_owned()),
    })
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
    settings: &Settings,
    references: &HashMap<TargetName, String>,
    results: &HashMap<TargetName, Parent>,
) -> LowerInput<'r> {
    let mut build_args = recipe.args.clone();
    let mut parents = BTreeMap::new();
    if let Some((arg, parent)) = &recipe.parent {
        let reference = &references[parent];
        build_args.insert(arg.clone(), reference.clone());
        if let Some(result) = results.get(parent) {
            parents.insert(reference.clone(), result.clone());
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
        named_contexts: settings.named.clone(),
        parents,
        network: settings.network,
        hosts: settings.hosts.clone(),
        no_cache: settings.no_cache.clone(),
        epoch: settings.epoch,
        target_name: recipe.name.clone(),
        name_prefix: recipe.prefix.clone(),
    }
}

fn settings(
    context: &Context,
    args: &BuildArgs,
    configuration: Option<&Config>,
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
        let (name, value) = pair(text, "--build-context")?;
        let is_image = value.starts_with("oci-layout://") || value.starts_with("docker-image://");
        let source = match value {
            _ if is_image => NamedContext::Image(value.to_owned()),
            dir if dir.contains("://") => {
                return Err(CliError::usage_hint(
                    format!("build context `{dir}` is not supported yet"),
                    "name a directory, `oci-layout://DIR` or `docker-image://REF`",
                ));
            }
            dir => NamedContext::Local(add_context(graph, name, Path::new(dir), None)?),
        };
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
        network,
        hosts: hosts(&args.add_host)?,
        labels: pairs(&args.label, "--label")?,
        named,
        no_cache,
        epoch: epoch.map(|e| i64::try_from(e).unwrap_or(i64::MAX)),
    })
}

/// The layer targets of a configuration.
fn from_config(
    context: &Context,
    args: &BuildArgs,
    config: &Config,
    epoch: Option<i64>,
    graph: &mut BuildGraph,
) -> Result<(Vec<Recipe>, Vec<ImageJob>), CliError> {
    let selection = Selection {
        layers: args.target.clone(),
        variants: args.variant.clone(),
        platforms: platforms(args)?,
    };
    let extra = build_args(context, args)?;
    let targets = config.targets(&selection)?;
    let mut recipes = Vec::new();
    let mut jobs: Vec<(String, ImageJob)> = Vec::new();
    for (number, target) in targets.iter().enumerate() {
        let dockerfile = read_dockerfile(graph, &target.dockerfile)?;
        let ignore = ignore_file(&target.dockerfile, &target.context)?;
        let mut build_args: BTreeMap<String, String> = target.args.iter().cloned().collect();
        build_args.extend(extra.clone());
        recipes.push(Recipe {
            name: target.name.to_string(),
            prefix: target.name.layer.clone(),
            dockerfile,
            stage: target.stage.clone(),
            platform: target.name.platform.clone(),
            args: build_args,
            context: add_context(graph, "context", &target.context, Some(ignore))?,
            parent: target.parent.clone().map(|p| (target.base_arg.clone(), p)),
            own: Some(target.name.clone()),
        });
        if !target.requested {
            continue;
        }
        let reference = format!("{}:{}", config.image, target.tag);
        match jobs.iter_mut().find(|(known, _)| *known == reference) {
            Some((_, job)) => job.targets.push(number),
            None => {
                let job = config_job(context, args, target, &reference, number, epoch)?;
                jobs.push((reference, job));
            }
        }
    }
    if jobs.len() > 1 && args.output.is_some() {
        return Err(CliError::usage_hint(
            "`-o` names one place for several images",
            "select one with `--target` and `--variant`, or set `MEMOBUILD_OUTPUT` to a directory for all",
        ));
    }
    Ok((recipes, jobs.into_iter().map(|(_, job)| job).collect()))
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
        dest: destination(context, args, reference)?,
        tags: vec![reference.to_owned()],
        epoch,
    })
}

/// One Dockerfile, as `docker buildx build` takes it.
fn from_arguments(
    context: &Context,
    args: &BuildArgs,
    epoch: Option<i64>,
    graph: &mut BuildGraph,
) -> Result<(Vec<Recipe>, Vec<ImageJob>), CliError> {
    let dir = args.context.clone().unwrap_or_else(|| PathBuf::from("."));
    if let Some(text) = dir.to_str()
        && (text == "-" || text.contains("://"))
    {
        return Err(CliError::usage_hint(
            format!("context `{text}` is not supported yet"),
            "give a directory",
        ));
    }
    if args.target.len() > 1 {
        return Err(CliError::usage("a Dockerfile is built for one `--target`"));
    }
    if let Some(variant) = args.variant.first() {
        return Err(CliError::usage_hint(
            format!("`--variant {variant}` needs a `memobuild.yml`"),
            "leave CONTEXT and `-f` out to build from one",
        ));
    }
    for tag in &args.tag {
        tag.parse::<Reference>().map_err(|error| {
            CliError::usage(format!("`-t {tag}` is not an image name: {error}"))
        })?;
    }
    let file = match &args.file {
        Some(file) if file == Path::new("-") => {
            return Err(CliError::usage_hint(
                "a Dockerfile from standard input is not supported yet",
                "write it to a file and name that with `-f`",
            ));
        }
        Some(file) => file.clone(),
        None => dir.join("Dockerfile"),
    };
    let dockerfile = read_dockerfile(graph, &file)?;
    let ignore = ignore_file(&file, &dir)?;
    let number = add_context(graph, "context", &dir, Some(ignore))?;
    let mut platforms = platforms(args)?;
    if platforms.is_empty() {
        platforms.push(Platform::host());
    }
    let build_args = build_args(context, args)?;
    let several = platforms.len() > 1;
    let mut recipes = Vec::new();
    for platform in platforms {
        recipes.push(Recipe {
            name: match several {
                true => format!("image ({platform})"),
                false => "image".to_owned(),
            },
            prefix: String::new(),
            dockerfile: dockerfile.clone(),
            stage: args.target.first().cloned(),
            platform,
            args: build_args.clone(),
            context: number,
            parent: None,
            own: None,
        });
    }
    let reference = match args.tag.first() {
        Some(tag) => tag.clone(),
        None => default_name(&dir)?,
    };
    let job = ImageJob {
        name: match args.tag.first() {
            Some(tag) => tag.clone(),
            None => "image".to_owned(),
        },
        targets: (0..recipes.len()).collect(),
        dest: destination(context, args, &reference)?,
        tags: args.tag.clone(),
        epoch,
    };
    Ok((recipes, vec![job]))
}

/// `-o`, else `<output directory>/<name>-<tag>`.
fn destination(
    context: &Context,
    args: &BuildArgs,
    reference: &str,
) -> Result<Destination, CliError> {
    if let Some(text) = &args.output {
        return output::parse(text);
    }
    let mut name = reference.replace(['/', ':', '@'], "-");
    if !reference
        .rsplit('/')
        .next()
        .is_some_and(|last| last.contains(':'))
    {
        name.push_str("-latest");
    }
    Ok(Destination::Layout(context.env.output_dir().join(name)))
}

/// The name of an image that was given none: that of its directory.
fn default_name(dir: &Path) -> Result<String, CliError> {
    let dir = fs::canonicalize(dir)?;
    let name: String = dir
        .file_name()
        .map(|n| n.to_string_lossy().to_lowercase())
        .unwrap_or_default()
        .chars()
        .map(|c| match c {
            'a'..='z' | '0'..='9' | '-' | '_' | '.' => c,
            _ => '-',
        })
        .collect();
    let name = name.trim_matches(['-', '_', '.']);
    Ok(match name {
        "" => "image".to_owned(),
        name => name.to_owned(),
    })
}

fn read_dockerfile(graph: &mut BuildGraph, path: &Path) -> Result<Dockerfile, CliError> {
    let text = fs::read_to_string(path)?;
    let name = path.display().to_string();
    let parsed = dockerfile::parse(&name, &text)?;
    graph.dockerfiles.insert(name, text);
    Ok(parsed)
}

/// The text of the ignore file: the Dockerfile's own, else the context's.
fn ignore_file(dockerfile: &Path, context: &Path) -> Result<String, CliError> {
    let mut own = dockerfile.as_os_str().to_owned();
    own.push(".dockerignore");
    for path in [PathBuf::from(own), context.join(".dockerignore")] {
        match fs::read_to_string(&path) {
            Ok(text) => return Ok(text),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(String::new())
}

/// The position of a local context, which is entered once.
fn add_context(
    graph: &mut BuildGraph,
    name: &str,
    dir: &Path,
    ignore: Option<String>,
) -> Result<usize, CliError> {
    let dir = fs::canonicalize(dir)?;
    if !dir.is_dir() {
        let error: std::io::Result<usize> = Err(std::io::ErrorKind::NotADirectory.into());
        return Ok(error.at("use as build context", &dir)?);
    }
    let ignore = match ignore {
        Some(text) => text,
        None => ignore_file(&dir.join("Dockerfile"), &dir)?,
    };
    let context = LocalContext {
        name: name.to_owned(),
        dir,
        ignore,
    };
    if let Some(number) = graph.contexts.iter().position(|known| *known == context) {
        return Ok(number);
    }
    graph.contexts.push(context);
    Ok(graph.contexts.len() - 1)
}

fn platforms(args: &BuildArgs) -> Result<Vec<Platform>, CliError> {
    let mut platforms = Vec::new();
    for text in &args.platform {
        let platform: Platform = text.parse()?;
        if !platforms.contains(&platform) {
            platforms.push(platform);
        }
    }
    Ok(platforms)
}

/// `--build-arg NAME=VALUE`, or `NAME` for the value of the environment.
fn build_args(context: &Context, args: &BuildArgs) -> Result<BTreeMap<String, String>, CliError> {
    let mut out = BTreeMap::new();
    // Proxies are predefined arguments, as in `docker build`.
    for (name, value) in context.env.proxies() {
        out.insert(name.to_owned(), value);
    }
    for text in &args.build_arg {
        match text.split_once('=') {
            Some(("", _)) => {
                return Err(CliError::usage(format!("`--build-arg {text}` has no name")));
            }
            Some((name, value)) => {
                out.insert(name.to_owned(), value.to_owned());
            }
            None => {
                if let Some(value) = crate::config::env::build_arg(text) {
                    out.insert(text.clone(), value);
                }
            }
        }
    }
    Ok(out)
}

fn hosts(list: &[String]) -> Result<Vec<(String, String)>, CliError> {
    list.iter()
        .map(|text| {
            let (name, address) = text
                .split_once('=')
                .or_else(|| text.split_once(':'))
                .ok_or_else(|| {
                    CliError::usage(format!("`--add-host {text}` is not `NAME:ADDRESS`"))
                })?;
            let address = address.trim_start_matches('[').trim_end_matches(']');
            match address.parse::<std::net::IpAddr>() {
                Ok(_) => Ok((name.to_owned(), address.to_owned())),
                Err(_) => Err(CliError::usage(format!(
                    "`{address}` in `--add-host {text}` is not an IP address"
                ))),
            }
        })
        .collect()
}

fn pair<'t>(text: &'t str, option: &str) -> Result<(&'t str, &'t str), CliError> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name, value)),
        _ => Err(CliError::usage(format!(
            "`{option} {text}` is not `NAME=VALUE`"
        ))),
    }
}

fn pairs(list: &[String], option: &str) -> Result<BTreeMap<String, String>, CliError> {
    list.iter()
        .map(|text| pair(text, option).map(|(n, v)| (n.to_owned(), v.to_owned())))
        .collect()
}

/// Whether the command builds from a configuration.
pub(super) fn configuration(
    context: &Context,
    args: &BuildArgs,
) -> Result<Option<Config>, CliError> {
    if args.context.is_some() || args.file.is_some() {
        return Ok(None);
    }
    config::load(context).map(Some)
}
