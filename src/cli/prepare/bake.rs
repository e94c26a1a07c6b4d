//! Targets of bake and compose files.
//!
//! Paths are relative to the working directory, as for `docker buildx bake`.

use std::{
    collections::BTreeMap,
    io::Write as _,
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::{
    Recipe, Settings,
    contexts::{add_context, ignore_file, read_dockerfile},
    single::layout,
    words,
};
use crate::{
    bake::{self, File, Inputs, Plan, Target},
    cli::{CliError, Context, build::BuildArgs, output},
    config::{self, Config, DEFAULT_VARIANT, TargetName},
    dockerfile::{self, Dockerfile},
    export::{Destination, ImageJob},
    fs,
    graph::{
        BuildGraph, NetworkMode,
        lower::{LowerWarning, NamedContext, NoCache},
    },
    oci::{Platform, reference::Reference},
};

/// Which files to read, and which of their targets to build.
pub(in crate::cli) struct Source {
    files: Vec<PathBuf>,
    targets: Vec<String>,
}

/// What `--bake` names, else what the configuration does; none if neither does.
pub(in crate::cli) fn source(args: &BuildArgs, configuration: Option<&Config>) -> Option<Source> {
    let words = args
        .positional
        .iter()
        .map(|word| word.display().to_string());
    let targets: Vec<String> = words.chain(args.target.iter().cloned()).collect();
    if !args.bake.is_empty() {
        return Some(Source {
            files: args.bake.clone(),
            targets,
        });
    }
    let configured = configuration?.bake.as_ref()?;
    Some(Source {
        files: configured.files.clone(),
        targets: match targets.is_empty() {
            true => configured.targets.clone(),
            false => targets,
        },
    })
}

/// What the files define and the options ask for.
pub(super) fn plan(context: &Context, args: &BuildArgs, source: &Source) -> Result<Plan, CliError> {
    refuse(args)?;
    let mut files = Vec::new();
    for path in &source.files {
        if path.is_dir() {
            files.extend(default_files(path)?);
        } else {
            files.push(file(path)?);
        }
    }
    let mut overrides = args.set.clone();
    for (on, key) in [(args.no_cache, "no-cache"), (args.pull, "pull")] {
        if on {
            overrides.push(format!("*.{key}=true"));
        }
    }
    for stage in &args.no_cache_filter {
        overrides.push(format!("*.no-cache-filter+={stage}"));
    }
    let mut plan = bake::read(Inputs {
        files,
        targets: source.targets.clone(),
        overrides,
        env: &config::env::build_arg,
        read: &read,
        local_platform: Platform::host().to_string(),
        now: SystemTime::now(),
        home: context
            .env
            .home()
            .map(|home| home.display().to_string())
            .unwrap_or_default(),
    })?;
    // As `docker buildx bake` does: every target is told the time that the caller wants.
    if let Some(epoch) = context.env.source_date_epoch()? {
        for target in plan.targets.values_mut() {
            let args = &mut target.args;
            args.entry(EPOCH.to_owned())
                .or_insert_with(|| epoch.to_string());
        }
    }
    Ok(plan)
}

const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// Options that the files have attributes for.
fn refuse(args: &BuildArgs) -> Result<(), CliError> {
    let given = [
        ("--tag", !args.tag.is_empty(), "tags"),
        ("--build-arg", !args.build_arg.is_empty(), "args.NAME"),
        ("--platform", !args.platform.is_empty(), "platform"),
        ("--label", !args.label.is_empty(), "labels.NAME"),
        (
            "--build-context",
            !args.build_context.is_empty(),
            "contexts.NAME",
        ),
        ("--output", !args.output.is_empty(), "output"),
        ("--network", args.network.is_some(), "network"),
        ("--add-host", !args.add_host.is_empty(), "extra-hosts.NAME"),
        ("--secret", !args.secret.is_empty(), "secret"),
        ("--ssh", !args.ssh.is_empty(), "ssh"),
        ("--annotation", !args.annotation.is_empty(), "annotations"),
        ("--shm-size", args.shm_size.is_some(), "shm-size"),
        ("--ulimit", !args.ulimit.is_empty(), "ulimits"),
        ("--file", args.file.is_some(), "dockerfile"),
    ];
    match given.into_iter().find(|(_, given, _)| *given) {
        Some((option, _, key)) => Err(CliError::usage_hint(
            format!("`{option}` is not for targets of a bake file"),
            format!("override an attribute with `--set 'TARGET.{key}=…'`; `*` is every target"),
        )),
        None => Ok(()),
    }
}

/// `--print`.
pub(in crate::cli) fn print(
    context: &Context,
    args: &BuildArgs,
    source: Option<&Source>,
) -> Result<(), CliError> {
    let Some(source) = source else {
        return Err(CliError::usage_hint(
            "`--print` shows what a bake file plans",
            "name the file with `--bake`",
        ));
    };
    let plan = plan(context, args, source)?;
    for warning in warnings(&plan) {
        tracing::warn!("{}", warning.message);
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", plan.to_json()).map_err(CliError::Answer)
}

/// What is odd in the files, and what the plan asks for in vain.
pub(super) fn warnings(plan: &Plan) -> Vec<LowerWarning> {
    let warning = |message: String, hint: Option<String>| LowerWarning {
        rule: "Bake",
        message,
        location: None,
        hint,
    };
    let mut out = Vec::new();
    for odd in &plan.warnings {
        let place = odd.place.iter().map(|place| format!(" ({place})"));
        let message = format!("{}{}", odd.message, place.collect::<String>());
        out.push(warning(message, odd.hint.clone()));
    }
    for (name, target) in &plan.targets {
        let is_set = |set: bool, what: &str| set.then(|| what.to_owned());
        let ignored: Vec<String> = [
            is_set(target.cache_from.is_some(), "`cache-from`"),
            is_set(target.cache_to.is_some(), "`cache-to`"),
            is_set(
                target.attest.iter().flatten().any(|a| !a.disabled),
                "`attest`",
            ),
        ]
        .into_iter()
        .flatten()
        .collect();
        if !ignored.is_empty() {
            let what = ignored.join(" and ");
            out.push(warning(
                format!("{what} of target `{name}` has no effect yet"),
                None,
            ));
        }
    }
    out
}

/// The recipes of the plan's targets, those that others use first, and the images to write.
pub(super) fn recipes(
    context: &Context,
    args: &BuildArgs,
    plan: &Plan,
    settings: &Settings,
    graph: &mut BuildGraph,
) -> Result<(Vec<Recipe>, Vec<ImageJob>), CliError> {
    let mut recipes: Vec<Recipe> = Vec::new();
    let mut jobs: Vec<ImageJob> = Vec::new();
    for name in order(plan) {
        let target = &plan.targets[name];
        supported(name, target)?;
        let first = recipes.len();
        for platform in platforms(target)? {
            let made = recipe(context, args, plan, name, platform, settings, graph)?;
            recipes.push(made);
        }
        if target.linked {
            continue;
        }
        let targets: Vec<usize> = (first..recipes.len()).collect();
        for dest in destinations(context, name, target)? {
            if let Some(other) = jobs.iter().find(|job| job.dest == dest) {
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
                targets: targets.clone(),
                dest,
                tags: target.tags.clone().unwrap_or_default(),
                epoch: recipes[first].settings.epoch,
            });
        }
    }
    Ok((recipes, jobs))
}

/// The names of the targets, after those of the targets that they use as contexts.
fn order(plan: &Plan) -> Vec<&str> {
    fn visit<'p>(plan: &'p Plan, name: &'p str, out: &mut Vec<&'p str>) {
        let Some((name, target)) = plan.targets.get_key_value(name) else {
            return;
        };
        if out.contains(&name.as_str()) {
            return;
        }
        // There is no cycle: the plan was checked for that.
        for linked in target.contexts.values() {
            if let Some(linked) = linked.strip_prefix("target:") {
                visit(plan, linked, out);
            }
        }
        out.push(name);
    }
    let mut out = Vec::new();
    for name in plan.targets.keys() {
        visit(plan, name, &mut out);
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

/// Fails for what can't be built as it is meant.
fn supported(name: &str, target: &Target) -> Result<(), CliError> {
    let call = target.call.as_deref();
    let missing = [
        ("secret", target.secrets.is_some()),
        ("ssh", target.ssh.is_some()),
        ("annotations", target.annotations.is_some()),
        ("shm-size", target.shm_size.is_some()),
        ("ulimits", target.ulimits.is_some()),
        ("call", call.is_some_and(|call| call != "build")),
    ];
    if let Some((key, _)) = missing.iter().find(|(_, set)| *set) {
        return Err(CliError::usage(format!(
            "`{key}` of target `{name}` is not supported yet"
        )));
    }
    // Steps have the host's network unless they are told otherwise.
    let needs = target.entitlements.iter().flatten();
    if let Some(need) = needs.into_iter().find(|need| *need != "network.host") {
        return Err(CliError::usage(format!(
            "entitlement `{need}` of target `{name}` is not supported yet"
        )));
    }
    Ok(())
}

fn recipe(
    context: &Context,
    args: &BuildArgs,
    plan: &Plan,
    name: &str,
    platform: Platform,
    settings: &Settings,
    graph: &mut BuildGraph,
) -> Result<Recipe, CliError> {
    let target = &plan.targets[name];
    let dir = local(name, target.context.as_deref().unwrap_or("."))?;
    let (dockerfile, path) = dockerfile(graph, name, target, dir)?;
    let ignore = ignore_file(&path, dir)?;
    let mut settings = settings.clone();
    settings.labels.extend(target.labels.clone());
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
    let mut links = Vec::new();
    for (context_name, source) in &target.contexts {
        match source.strip_prefix("target:") {
            Some(linked) => links.push((context_name.clone(), link(plan, linked, &platform)?)),
            None => {
                let source = named(graph, name, context_name, source)?;
                settings.named.insert(context_name.clone(), source);
            }
        }
    }
    // Proxies are predefined arguments; they come from the environment.
    let mut build_args = words::build_args(context, args)?;
    build_args.extend(target.args.clone());
    build_args.remove(EPOCH);
    let several = target.platforms.as_ref().is_some_and(|list| list.len() > 1);
    Ok(Recipe {
        name: match several {
            true => format!("{name} ({platform})"),
            false => name.to_owned(),
        },
        prefix: name.to_owned(),
        dockerfile,
        stage: target.target.clone().filter(|stage| !stage.is_empty()),
        args: build_args,
        context: add_context(graph, "context", dir, Some(ignore))?,
        parent: None,
        links,
        own: Some(own(name, &platform)),
        platform,
        settings,
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

/// A directory that a target names.
fn local<'t>(target: &str, text: &'t str) -> Result<&'t Path, CliError> {
    if text == "-" {
        return Err(CliError::usage(format!(
            "target `{target}` can't have standard input as context"
        )));
    }
    if text.contains("://") || text.starts_with("git@") || text.starts_with("github.com/") {
        return Err(CliError::usage_hint(
            format!("context `{text}` of target `{target}` is not supported yet"),
            "give a directory",
        ));
    }
    Ok(Path::new(text))
}

fn named(
    graph: &mut BuildGraph,
    target: &str,
    name: &str,
    source: &str,
) -> Result<NamedContext, CliError> {
    if source.starts_with("oci-layout://") || source.starts_with("docker-image://") {
        return Ok(NamedContext::Image(source.to_owned()));
    }
    let dir = local(target, source.strip_prefix("cwd://").unwrap_or(source))?;
    Ok(NamedContext::Local(add_context(graph, name, dir, None)?))
}

/// The Dockerfile of a target and its path; one inside the bake file has the path that it
/// would have.
fn dockerfile(
    graph: &mut BuildGraph,
    name: &str,
    target: &Target,
    dir: &Path,
) -> Result<(Dockerfile, PathBuf), CliError> {
    let file = target.dockerfile.as_deref().unwrap_or("Dockerfile");
    let path = match file.strip_prefix("cwd://") {
        Some(file) => PathBuf::from(file),
        None if dir == Path::new(".") => PathBuf::from(file),
        None => dir.join(file),
    };
    if let Some(text) = &target.dockerfile_inline {
        let source = format!("{name}.dockerfile-inline");
        let parsed = dockerfile::parse(&source, text)?;
        graph.dockerfiles.insert(source, text.clone());
        return Ok((parsed, path));
    }
    Ok((read_dockerfile(graph, &path)?, path))
}

/// Where the results of a target go: its outputs, else a layout in the output directory.
fn destinations(
    context: &Context,
    name: &str,
    target: &Target,
) -> Result<Vec<Destination>, CliError> {
    for tag in target.tags.iter().flatten() {
        tag.parse::<Reference>().map_err(|error| {
            CliError::usage(format!(
                "tag `{tag}` of target `{name}` is not an image name: {error}"
            ))
        })?;
    }
    let mut out = Vec::new();
    for entry in target.outputs.iter().flatten() {
        if entry.kind == "cacheonly" {
            continue;
        }
        let mut text = format!("type={}", entry.kind);
        if let Some(dest) = &entry.dest {
            text += &format!(",dest={dest}");
        }
        let attrs: &BTreeMap<String, String> = &entry.attrs;
        for (key, value) in attrs {
            text += &format!(",{key}={value}");
        }
        out.push(output::parse(&text)?);
    }
    if target.outputs.as_ref().is_none_or(Vec::is_empty) {
        let tag = target.tags.iter().flatten().next();
        out.push(layout(context, tag.map_or(name, String::as_str)));
    }
    Ok(out)
}

fn file(path: &Path) -> Result<File, CliError> {
    Ok(File {
        name: path.display().to_string(),
        text: fs::read_to_string(path)?,
    })
}

/// The files in `dir` that have one of the names which are read by default.
fn default_files(dir: &Path) -> Result<Vec<File>, CliError> {
    let mut files = Vec::new();
    for name in bake::DEFAULT_FILES {
        let path = match dir == Path::new(".") {
            true => Path::new(name).to_owned(),
            false => dir.join(name),
        };
        if fs::exists(&path) {
            files.push(file(&path)?);
        }
    }
    if files.is_empty() {
        let problem = bake::Problem::NoFile {
            dir: dir.display().to_string(),
        };
        let hint = format!("these are looked for: {}", bake::DEFAULT_FILES.join(", "));
        return Err(bake::BakeError::without_place(problem, Some(hint)).into());
    }
    Ok(files)
}

/// A file that a compose file names.
fn read(path: &str) -> Result<Option<String>, String> {
    match fs::read_to_string(Path::new(path)) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.source.to_string()),
    }
}
