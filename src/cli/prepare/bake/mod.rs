//! Targets of bake and compose files.
//!
//! Paths are relative to the working directory, as for `docker buildx bake`.

mod recipes;

pub(super) use recipes::recipes;

use std::{
    collections::BTreeMap,
    io::Write as _,
    path::{Path, PathBuf},
    time::SystemTime,
};

use crate::{
    bake::{self, File, Inputs, Plan, Target},
    cli::{CliError, Context, build::BuildArgs, call::Call},
    config::{self, Config},
    fs::Files,
    graph::lower::LowerWarning,
    oci::Platform,
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
pub(in crate::cli) fn plan(
    context: &Context,
    args: &BuildArgs,
    source: &Source,
    call: Option<Call>,
) -> Result<Plan, CliError> {
    refuse(args)?;
    let mut files = Vec::new();
    for path in &source.files {
        if context.files.is_dir(path) {
            files.extend(default_files(&*context.files, path)?);
        } else {
            files.push(file(&*context.files, path)?);
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
    overrides.extend(call.map(|call| format!("*.call={}", call.method())));
    for stage in &args.no_cache_filter {
        overrides.push(format!("*.no-cache-filter+={stage}"));
    }
    let mut plan = bake::read(Inputs {
        files,
        targets: source.targets.clone(),
        overrides,
        env: &config::env::build_arg,
        read: &|path| read(&*context.files, path),
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
pub(in crate::cli) fn print(plan: Option<&Plan>) -> Result<(), CliError> {
    let Some(plan) = plan else {
        return Err(CliError::usage_hint(
            "`--print` shows what a bake file plans",
            "name the file with `--bake`",
        ));
    };
    for warning in warnings(plan) {
        let hint = warning.hint.map(|hint| format!("\nhint: {hint}"));
        let text = format!("warning: {}{}", warning.message, hint.unwrap_or_default());
        // The plan goes to stdout; a closed stderr is no reason to keep it back.
        let _ = writeln!(std::io::stderr(), "{text}");
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", plan.to_json()).map_err(CliError::Answer)
}

/// The part of `plan` that has to do with the targets `roots`: these, and those that they use as
/// contexts, which have no result of their own then.
pub(in crate::cli) fn part(plan: &Plan, roots: &[&str]) -> Plan {
    let mut part = Plan {
        targets: BTreeMap::new(),
        ..plan.clone()
    };
    let mut next = roots.to_vec();
    while let Some(name) = next.pop() {
        if part.targets.contains_key(name) {
            continue;
        }
        let Some(target) = plan.targets.get(name) else {
            continue;
        };
        next.extend(linked(target).map(|(_, name)| name));
        let mut target = target.clone();
        target.linked |= !roots.contains(&name);
        part.targets.insert(name.to_owned(), target);
    }
    part
}

/// The targets that `target` uses, with the names of the contexts that they are.
fn linked(target: &Target) -> impl Iterator<Item = (&str, &str)> {
    let contexts = target.contexts.iter();
    contexts.filter_map(|(name, source)| Some((name.as_str(), source.strip_prefix("target:")?)))
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
        if target.attest.iter().flatten().any(|a| !a.disabled) {
            let message = format!("`attest` of target `{name}` has no effect yet");
            out.push(warning(message, None));
        }
    }
    out
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

fn file(files: &dyn Files, path: &Path) -> Result<File, CliError> {
    Ok(File {
        name: path.display().to_string(),
        text: files.read_to_string(path)?,
    })
}

/// The files in `dir` that have one of the names which are read by default.
fn default_files(files: &dyn Files, dir: &Path) -> Result<Vec<File>, CliError> {
    let mut found = Vec::new();
    for name in bake::DEFAULT_FILES {
        let path = match dir == Path::new(".") {
            true => Path::new(name).to_owned(),
            false => dir.join(name),
        };
        if files.exists(&path) {
            found.push(file(files, &path)?);
        }
    }
    if found.is_empty() {
        let problem = bake::Problem::NoFile {
            dir: dir.display().to_string(),
        };
        let hint = format!("these are looked for: {}", bake::DEFAULT_FILES.join(", "));
        return Err(bake::BakeError::without_place(problem, Some(hint)).into());
    }
    Ok(found)
}

/// A file that a compose file names.
fn read(files: &dyn Files, path: &str) -> Result<Option<String>, String> {
    match files.read_to_string(Path::new(path)) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.source.to_string()),
    }
}
