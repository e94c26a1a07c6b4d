//! Targets of bake and compose files.
//!
//! Paths are relative to the working directory, as for `docker buildx bake`.

use std::{
    collections::{BTreeMap, HashSet},
    io::Write as _,
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::{
    Recipe, Settings,
    contexts::{add_context, ignore_file, read_dockerfile},
    steps, words,
};
use crate::{
    bake::{self, File, Inputs, Plan, Target},
    cli::{CliError, Context, build::BuildArgs, output},
    config::{self, Config, DEFAULT_VARIANT, TargetName},
    dockerfile::{self, Dockerfile},
    export::{ImageJob, Output},
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
    let flags = [
        (args.no_cache, "no-cache"),
        (args.pull, "pull"),
        (args.load, "load"),
    ];
    for (on, key) in flags {
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
        let hint = warning.hint.map(|hint| format!("\nhint: {hint}"));
        let text = format!("warning: {}{}", warning.message, hint.unwrap_or_default());
        // The plan goes to stdout; a closed stderr is no reason to keep it back.
        let _ = writeln!(std::io::stderr(), "{text}");
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

/// The secrets of all targets, in the form of the option: a step finds them by id, so targets
/// of one build can't mean different ones by the same id.
pub(super) fn secrets(plan: &Plan) -> Result<Vec<String>, CliError> {
    let mut known: BTreeMap<&str, (&str, &bake::SecretEntry)> = BTreeMap::new();
    for (name, target) in &plan.targets {
        for secret in target.secrets.iter().flatten() {
            match known.get(secret.id.as_str()) {
                Some((other, same)) if *same != secret => {
                    return Err(two_meanings("secret", &secret.id, other, name));
                }
                _ => drop(known.insert(&secret.id, (name, secret))),
            }
        }
    }
    let text = |(_, secret): (_, &bake::SecretEntry)| {
        let fields = [
            ("id", &secret.id),
            ("src", &secret.src),
            ("env", &secret.env),
        ];
        let given = fields.into_iter().filter(|(_, value)| !value.is_empty());
        joined(given.map(|(key, value)| format!("{key}={value}")))
    };
    Ok(known.into_values().map(text).collect())
}

/// The same for SSH agents and keys.
pub(super) fn agents(plan: &Plan) -> Result<Vec<String>, CliError> {
    let mut known: BTreeMap<&str, (&str, &bake::SshEntry)> = BTreeMap::new();
    for (name, target) in &plan.targets {
        for agent in target.ssh.iter().flatten() {
            match known.get(agent.id.as_str()) {
                Some((other, same)) if *same != agent => {
                    return Err(two_meanings("SSH agent", &agent.id, other, name));
                }
                _ => drop(known.insert(&agent.id, (name, agent))),
            }
        }
    }
    let text = |(_, agent): (_, &bake::SshEntry)| match agent.paths.is_empty() {
        true => agent.id.clone(),
        false => format!("{}={}", agent.id, agent.paths.join(",")),
    };
    Ok(known.into_values().map(text).collect())
}

fn two_meanings(what: &str, id: &str, one: &str, other: &str) -> CliError {
    CliError::usage_hint(
        format!("targets `{one}` and `{other}` mean different things by {what} `{id}`"),
        "build them one after the other, or give the two different ids",
    )
}

/// Comma-separated fields, quoted where they need it.
fn joined(fields: impl Iterator<Item = String>) -> String {
    let quoted = fields.map(|field| match field.contains([',', '"', '\n']) {
        true => format!("\"{}\"", field.replace('"', "\"\"")),
        false => field,
    });
    quoted.collect::<Vec<_>>().join(",")
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
        for linked in target.contexts.values() {
            if let Some(linked) = linked.strip_prefix("target:") {
                visit(plan, linked, seen, out);
            }
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

/// Fails for what can't be built as it is meant.
fn supported(name: &str, target: &Target) -> Result<(), CliError> {
    match target.call.as_deref() {
        None | Some("" | "build") => Ok(()),
        Some(call) => Err(CliError::usage_hint(
            format!("`call = \"{call}\"` of target `{name}` is not supported"),
            "use `memobuild-ci build --call` with the Dockerfile",
        )),
    }
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
    Ok(output::outputs(&texts, false)?.unwrap_or_else(default))
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
