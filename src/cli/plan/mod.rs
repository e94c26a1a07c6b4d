//! `plan` and `graph`: what a change affects, without building.

mod show;
mod sides;
mod touch;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::SystemTime};

use clap::{Args, ValueEnum};

use super::{
    CliError, Context, ExitCode, answer,
    build::{self, BuildArgs},
    images::BaseImages,
    prepare,
};
use crate::{
    event::Events,
    fs,
    git::{Commit, Repository},
    plan::{
        ChangedFiles, Forced, Known, Plan, Revision, Side, decide, gitlab,
        graph::Drawing,
        lock::{self, Lock, MovedImage},
        matrix,
        trailers::Asked,
    },
    ui,
};
use sides::{Maker, Place};

#[derive(Debug, Args)]
pub(super) struct PlanArgs {
    /// Compare with this revision [default: what the CI platform's event says, else the merge base with the default branch]
    #[arg(long, value_name = "REVISION", help_heading = "Planning")]
    base: Option<String>,
    /// Plan for this commit, as it lies in the repository [default: what is checked out]
    #[arg(long, value_name = "REVISION", help_heading = "Planning")]
    head: Option<String>,
    /// Tell what a change of this path would affect; can be given more than once
    #[arg(long, value_name = "PATH", help_heading = "Planning", conflicts_with_all = ["base", "head"])]
    touch: Vec<PathBuf>,
    /// Don't ask the caches, nor the registries of base images: plan from Git alone
    #[arg(long, help_heading = "Planning")]
    no_cache_lookup: bool,
    /// Build these layers or targets, whatever changed; `*` is all
    #[arg(
        long,
        value_name = "NAME",
        value_delimiter = ',',
        help_heading = "Planning"
    )]
    rebuild: Vec<String>,
    /// Leave these layers or targets out
    #[arg(
        long,
        value_name = "NAME",
        value_delimiter = ',',
        help_heading = "Planning"
    )]
    skip: Vec<String>,
    /// Pin all base images to what their registries have now, in `memobuild.lock`
    #[arg(long, help_heading = "Planning", conflicts_with_all = ["no_cache_lookup", "head"])]
    update_lock: bool,
    /// The form of the answer
    #[arg(
        long,
        value_enum,
        default_value_t,
        value_name = "FORMAT",
        help_heading = "Planning"
    )]
    format: Format,
    /// The same as `--format json`
    #[arg(long, help_heading = "Planning")]
    json: bool,
    /// Label of the runners for a platform, in matrices and pipelines: `linux/arm64=LABEL`, or `LABEL` for all others
    #[arg(long, value_name = "[PLATFORM=]LABEL", help_heading = "Planning")]
    runner: Vec<String>,
    /// End with exit code 10 if a target is to be built or reused
    #[arg(long, help_heading = "Planning")]
    exit_code: bool,
    #[command(flatten)]
    build: BuildArgs,
}

#[derive(Debug, Args)]
pub(super) struct GraphArgs {
    /// The form of the answer
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    format: GraphFormat,
    /// The same as `--format json`
    #[arg(long)]
    json: bool,
    /// Don't ask registries: an empty image stands for each base image
    #[arg(long)]
    offline: bool,
    #[command(flatten)]
    build: BuildArgs,
}

/// How a plan is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    #[default]
    Table,
    /// The whole plan
    Json,
    /// Lines for the file of `GITHUB_OUTPUT`: `matrix`, `has_work`, `plan_digest`
    Github,
    /// A child pipeline
    Gitlab,
}

/// How a graph is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum GraphFormat {
    /// One line a vertex
    #[default]
    Text,
    /// A flow chart for Markdown pages
    Mermaid,
    /// For Graphviz
    Dot,
    /// For programs
    Json,
}

fn on_runtime(act: impl Future<Output = Result<ExitCode, CliError>>) -> Result<ExitCode, CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(CliError::Runtime)?;
    let result = runtime.block_on(act);
    runtime.shutdown_background();
    result
}

fn events(context: &Context, args: &BuildArgs) -> Events {
    let mode = build::progress_mode(context, args);
    Events::new(ui::Progress::new(
        mode,
        context.color,
        Box::new(std::io::stderr()),
    ))
}

/// `plan`.
pub(super) fn run(context: &Context, args: &PlanArgs) -> Result<ExitCode, CliError> {
    args.build.refuse_what_is_missing()?;
    on_runtime(plan(context, args))
}

/// `graph`.
pub(super) fn graph(context: &Context, args: &GraphArgs) -> Result<ExitCode, CliError> {
    args.build.refuse_what_is_missing()?;
    on_runtime(async {
        let events = events(context, &args.build);
        let lock = build::lock(context)?;
        let bases = match args.offline {
            true => BaseImages::stand_ins(lock),
            false => BaseImages::of_registry(Arc::new(build::registry(context)?), lock),
        };
        let maker = Maker::new(context, &args.build, &bases, &events);
        let side = maker.side("head", &Place::Disk).await?;
        let drawing = Drawing::of(&side, None);
        answer(&match (args.json, args.format) {
            (true, _) | (_, GraphFormat::Json) => {
                format!("{}\n", serde_json::to_string_pretty(&drawing)?)
            }
            (_, GraphFormat::Text) => drawing.text(),
            (_, GraphFormat::Mermaid) => drawing.mermaid(),
            (_, GraphFormat::Dot) => drawing.dot(),
        })?;
        Ok(ExitCode::Success)
    })
}

async fn plan(context: &Context, args: &PlanArgs) -> Result<ExitCode, CliError> {
    let events = events(context, &args.build);
    let repository = Repository::discover(&fs::absolute(".")?)?;
    let lock = build::lock(context)?;
    let registry = match args.no_cache_lookup {
        true => None,
        false => Some(Arc::new(build::registry(context)?)),
    };
    let pinned = lock.clone().filter(|_| !args.update_lock);
    let bases = match &registry {
        Some(registry) => BaseImages::of_registry(Arc::clone(registry), pinned),
        None => BaseImages::stand_ins(pinned),
    };
    let mut maker = Maker::new(context, &args.build, &bases, &events);
    let head = head(args, repository.as_ref())?;
    maker.by_object_id = args.no_cache_lookup && matches!(head.place, Place::Commit(_));
    let side = maker.side("head", &head.place).await?;
    let moved = match (&registry, &lock) {
        (Some(registry), Some(lock)) => moved(registry, lock, &bases, &events).await,
        _ => Vec::new(),
    };
    if args.update_lock {
        update_lock(&bases)?;
    }
    let mut plan = if args.touch.is_empty() {
        let known = base(args, repository.as_ref(), &head)?;
        let before = match &known.place {
            Some(place) => Some(maker.side("base", place).await?),
            None => None,
        };
        let hits = match &registry {
            Some(registry) => Some(maker.look_up(&side, registry).await?),
            None => None,
        };
        let changed = changed(repository.as_ref(), &known, &head)?;
        let forced = forced(args, &side, &head, &events)?;
        let decided = decide(&Known {
            head: &side,
            base: before.as_ref().ok_or_else(|| known.told.clone()),
            hits: hits.as_ref(),
            changed: &changed,
            root: root(repository.as_ref())?,
            forced: &forced,
            now: SystemTime::now(),
        });
        Plan::new(known.revision, head.revision, decided)
    } else {
        touch::plan(&side, &args.touch, head.revision)?
    };
    plan.moved_images = moved;
    for (id, why) in &side.unknown {
        let step = &side.graph.vertex(*id).instruction;
        events.warn(
            format!("`{step}`: {why}; what depends on it is built"),
            None,
        );
    }
    answer(&written(args, &plan)?)?;
    Ok(match args.exit_code && plan.has_work {
        true => ExitCode::ChangesFound,
        false => ExitCode::Success,
    })
}

/// What is planned for.
struct Head {
    place: Place,
    commit: Option<Commit>,
    revision: Revision,
}

fn head(args: &PlanArgs, repository: Option<&Repository>) -> Result<Head, CliError> {
    let named = |text: &str, reason: &str| -> Result<Head, CliError> {
        let repository = repository.ok_or_else(no_repository)?;
        let commit = repository.commit(text)?;
        Ok(Head {
            place: Place::Commit(Box::new(commit.files(repository)?)),
            revision: Revision {
                commit: Some(commit.id.to_string()),
                reason: reason.to_owned(),
                dirty: false,
            },
            commit: Some(commit),
        })
    };
    match (&args.head, repository) {
        (Some(text), _) => named(text, "asked-for"),
        (None, Some(repository)) if repository.is_bare() => named("HEAD", "head"),
        (None, repository) => {
            // A repository without commits has files all the same.
            let commit = repository.and_then(|repository| repository.commit("HEAD").ok());
            Ok(Head {
                place: Place::Disk,
                revision: Revision {
                    commit: commit.as_ref().map(|commit| commit.id.to_string()),
                    reason: match repository {
                        Some(_) => "checked-out".to_owned(),
                        None => "no-repository".to_owned(),
                    },
                    dirty: false,
                },
                commit,
            })
        }
    }
}

fn no_repository() -> CliError {
    CliError::usage_hint(
        "there is no Git repository here",
        "work in one with `-C DIR`, or leave `--base` and `--head` out",
    )
}

/// What the head is compared with.
struct Base {
    place: Option<Place>,
    commit: Option<Commit>,
    revision: Revision,
    /// Why there is none, for people.
    told: String,
}

fn base(args: &PlanArgs, repository: Option<&Repository>, head: &Head) -> Result<Base, CliError> {
    let none = |reason: &str, told: &str| Base {
        place: None,
        commit: None,
        revision: Revision {
            commit: None,
            reason: reason.to_owned(),
            dirty: false,
        },
        told: told.to_owned(),
    };
    let Some(repository) = repository else {
        return match &args.base {
            Some(_) => Err(no_repository()),
            None => Ok(none("no-repository", "there is no Git repository")),
        };
    };
    let Some(text) = &args.base else {
        let _ = head;
        return Ok(none("no-event", "nothing says what to compare with"));
    };
    let commit = repository.commit(text)?;
    Ok(Base {
        place: Some(Place::Commit(Box::new(commit.files(repository)?))),
        revision: Revision {
            commit: Some(commit.id.to_string()),
            reason: "asked-for".to_owned(),
            dirty: false,
        },
        commit: Some(commit),
        told: String::new(),
    })
}

/// Where paths are shown from.
fn root(repository: Option<&Repository>) -> Result<PathBuf, CliError> {
    match repository {
        Some(repository) => Ok(repository
            .work_dir()
            .unwrap_or(repository.git_dir())
            .to_owned()),
        None => Ok(fs::absolute(".")?),
    }
}

/// The paths that differ, to name them.
fn changed(
    repository: Option<&Repository>,
    base: &Base,
    head: &Head,
) -> Result<ChangedFiles, CliError> {
    let (Some(repository), Some(from), Some(to)) = (repository, &base.commit, &head.commit) else {
        return Ok(ChangedFiles::new());
    };
    let top = root(Some(repository))?;
    let changes = repository.changes(Some(from), to)?;
    Ok(changes
        .iter()
        .map(|change| top.join(change.path.as_path()))
        .collect())
}

/// What options, the commit's message and labels ask for.
fn forced(args: &PlanArgs, side: &Side, head: &Head, events: &Events) -> Result<Forced, CliError> {
    let options = Forced {
        rebuild: args.rebuild.iter().cloned().collect(),
        skip: args.skip.iter().cloned().collect(),
    };
    if let Some(name) = options.unknown(side).first() {
        let known: Vec<String> = side
            .targets
            .iter()
            .map(|t| format!("`{}`", t.layer))
            .collect();
        return Err(CliError::usage_hint(
            format!("there is no target `{name}`"),
            format!("there are {}", known.join(", ")),
        ));
    }
    let mut asked = Asked::default();
    if let Some(commit) = &head.commit {
        asked.message(&commit.message);
    }
    for name in asked.forced.unknown(side) {
        events.warn(
            format!("the commit's message asks for target `{name}`, which there isn't"),
            None,
        );
    }
    for word in &asked.unknown {
        events.warn(
            format!("`{word}` in the commit's message is not understood"),
            Some("there are `rebuild`, `rebuild=NAME` and `skip=NAME`".to_owned()),
        );
    }
    asked.forced.rebuild.extend(options.rebuild);
    asked.forced.skip.extend(options.skip);
    Ok(asked.forced)
}

/// The pinned images whose tags mean something else by now. What can't be asked is left out, with
/// a warning.
async fn moved(
    registry: &Arc<crate::registry::Registry>,
    lock: &Lock,
    bases: &BaseImages,
    events: &Events,
) -> Vec<MovedImage> {
    let used: Vec<_> = bases.known().keys().cloned().collect();
    let upstream = BaseImages::of_registry(Arc::clone(registry), None);
    let mut moved = Vec::new();
    for (reference, platform) in used {
        let shown = platform.to_string();
        let Some(old) = lock.get(&reference, &shown) else {
            continue;
        };
        match upstream.resolve(vec![(reference.clone(), platform)]).await {
            Ok(table) => {
                let new = table.values().map(|image| image.op.manifest).next();
                if let Some(new) = new.filter(|new| *new != old) {
                    moved.push(MovedImage {
                        reference,
                        platform: shown,
                        old: old.to_string(),
                        new: new.to_string(),
                    });
                }
            }
            Err(error) => events.warn(
                format!("whether `{reference}` has moved can't be told: {error}"),
                None,
            ),
        }
    }
    moved.sort_by(|a, b| (&a.reference, &a.platform).cmp(&(&b.reference, &b.platform)));
    moved
}

/// Writes what was resolved to the lock file.
fn update_lock(bases: &BaseImages) -> Result<(), CliError> {
    let mut lock = Lock::default();
    for ((reference, platform), image) in bases.known().iter() {
        let is_tag = matches!(image.op.origin, crate::graph::ImageOrigin::Registry { .. });
        if is_tag && !reference.contains('@') {
            lock.pin(reference, &platform.to_string(), image.op.manifest);
        }
    }
    lock.save(std::path::Path::new(lock::FILE_NAME))?;
    Ok(())
}

fn written(args: &PlanArgs, plan: &Plan) -> Result<String, CliError> {
    let mut runners = BTreeMap::new();
    for text in &args.runner {
        let (platform, label) = text.split_once('=').unwrap_or(("*", text));
        runners.insert(platform.to_owned(), label.to_owned());
    }
    let too_many = |error: matrix::TooManyJobs| {
        CliError::usage_hint(
            error.to_string(),
            "choose targets with `--target` or `--variant`, or let one job build several",
        )
    };
    let format = match args.json {
        true => Format::Json,
        false => args.format,
    };
    Ok(match format {
        Format::Table => show::table(plan),
        Format::Json => format!("{}\n", serde_json::to_string_pretty(plan)?),
        Format::Github => {
            let matrix = matrix::matrix(plan, &runners).map_err(too_many)?;
            format!(
                "has_work={}\nplan_digest={}\nmatrix={}\n",
                !matrix.include.is_empty(),
                plan.plan_digest,
                serde_json::to_string(&matrix)?
            )
        }
        Format::Gitlab => {
            let with = gitlab::Pipeline {
                runners,
                ..gitlab::Pipeline::default()
            };
            gitlab::pipeline(plan, &with).map_err(too_many)?
        }
    })
}
