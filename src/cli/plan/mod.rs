//! `plan` and `graph`: what a change affects, without building.

mod revisions;
mod show;
mod sides;
mod touch;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use clap::{Args, ValueEnum};

use super::{
    CliError, Context, ExitCode, answer,
    build::{self, BuildArgs},
    images::BaseImages,
    prepare,
};
use crate::{
    ci::{self, CiContext},
    event::Events,
    fs,
    git::{FetchSettings, Repository},
    plan::{
        ChangedFiles, Forced, Known, Plan, Side, decide, gitlab,
        graph::Drawing,
        lock::{self, Lock, MovedImage},
        matrix,
        trailers::Asked,
    },
    registry::Registry,
};
use revisions::{Base, Head, base, head, root};
pub(super) use sides::{Maker, Place};

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
    /// Don't fetch what a shallow or partial clone lacks
    #[arg(long, help_heading = "Planning")]
    no_fetch: bool,
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

/// How long one fetch of what a clone lacks may take.
const FETCH_TIMEOUT: Duration = Duration::from_secs(120);

pub(super) fn on_runtime<T>(act: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(CliError::Runtime)?;
    let result = runtime.block_on(act);
    runtime.shutdown_background();
    result
}

fn events(context: &Context, args: &BuildArgs) -> Events {
    context.events(build::progress_mode(context, args))
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
            false => BaseImages::of_registry(Arc::new(registry(context, &args.build)?), lock),
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

/// The client for registries. A configuration that can't be read is told of when it is read to be
/// planned.
fn registry(context: &Context, args: &BuildArgs) -> Result<Registry, CliError> {
    let configuration = prepare::configuration(context, args).ok().flatten();
    let settings = configuration.map(|configuration| configuration.cache);
    build::registry(context, &settings.unwrap_or_default())
}

async fn plan(context: &Context, args: &PlanArgs) -> Result<ExitCode, CliError> {
    let plan = decided(context, args, &events(context, &args.build)).await?;
    let format = match args.json {
        true => Format::Json,
        false => args.format,
    };
    answer(&written(&plan, format, &runners(args))?)?;
    Ok(match args.exit_code && plan.has_work {
        true => ExitCode::ChangesFound,
        false => ExitCode::Success,
    })
}

/// What is decided about the targets that `args` ask for.
async fn decided(context: &Context, args: &PlanArgs, events: &Events) -> Result<Plan, CliError> {
    let ci = ci::detect(&context.env);
    for trouble in &ci.trouble {
        events.warn(trouble.to_string(), None);
    }
    let repository = Repository::discover(&fs::absolute(".")?)?;
    let repository = match args.no_fetch {
        true => repository,
        false => repository.map(|repository| {
            repository.fetching(FetchSettings {
                env: context.env.for_git(),
                timeout: FETCH_TIMEOUT,
            })
        }),
    };
    let lock = build::lock(context)?;
    let registry = match args.no_cache_lookup {
        true => None,
        false => Some(Arc::new(registry(context, &args.build)?)),
    };
    let pinned = lock.clone().filter(|_| !args.update_lock);
    let bases = match &registry {
        Some(registry) => BaseImages::of_registry(Arc::clone(registry), pinned),
        None => BaseImages::stand_ins(pinned),
    };
    let mut maker = Maker::new(context, &args.build, &bases, events);
    maker.repository = repository
        .as_ref()
        .filter(|repository| !repository.is_bare());
    let head = head(args, repository.as_ref())?;
    maker.by_object_id = args.no_cache_lookup && matches!(head.place, Place::Commit(_));
    let side = maker.side("head", &head.place).await?;
    let moved = match (&registry, &lock) {
        (Some(registry), Some(lock)) => moved(registry, lock, &bases, events).await,
        _ => Vec::new(),
    };
    if args.update_lock {
        update_lock(&bases)?;
    }
    let mut plan = if args.touch.is_empty() {
        let mut known = base(args, &ci, repository.as_ref(), &head, events)?;
        let before = match &known.place {
            None => None,
            Some(place) => match maker.side("base", place).await {
                Ok(side) => Some(side),
                // What was wrong there, or is of another version, says nothing about the head.
                Err(error) => {
                    let shown = error.shown();
                    known.told = format!("the base can't be read: {shown}");
                    events.warn(format!("{}; all counts as changed", known.told), None);
                    None
                }
            },
        };
        let hits = match &registry {
            Some(registry) => Some(maker.look_up(&side, registry).await?),
            None => None,
        };
        let changed = changed(repository.as_ref(), &known, &head)?;
        let forced = forced(args, &ci, &side, &head, events)?;
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
    Ok(plan)
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
    let committed = changes.iter().map(|change| &change.path);
    let paths = committed.chain(&head.changed);
    Ok(paths.map(|path| top.join(path.as_path())).collect())
}

/// What options, the commit's message and labels ask for.
fn forced(
    args: &PlanArgs,
    ci: &CiContext,
    side: &Side,
    head: &Head,
    events: &Events,
) -> Result<Forced, CliError> {
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
    // A merge that the platform made says nothing of its own.
    for message in &ci.messages {
        asked.message(message);
    }
    for label in ci.pull_request.iter().flat_map(|request| &request.labels) {
        asked.label(label);
    }
    for name in asked.forced.unknown(side) {
        events.warn(
            format!("a commit message or label asks for target `{name}`, which there isn't"),
            None,
        );
    }
    for word in &asked.unknown {
        events.warn(
            format!("`{word}` in a commit message or label is not understood"),
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

/// The labels of runners by platform.
fn runners(args: &PlanArgs) -> BTreeMap<String, String> {
    let mut runners = BTreeMap::new();
    for text in &args.runner {
        let (platform, label) = text.split_once('=').unwrap_or(("*", text));
        runners.insert(platform.to_owned(), label.to_owned());
    }
    runners
}

fn written(
    plan: &Plan,
    format: Format,
    runners: &BTreeMap<String, String>,
) -> Result<String, CliError> {
    let too_many = |error: matrix::TooManyJobs| {
        CliError::usage_hint(
            error.to_string(),
            "choose targets with `--target` or `--variant`, or let one job build several",
        )
    };
    Ok(match format {
        Format::Table => show::table(plan),
        Format::Json => format!("{}\n", serde_json::to_string_pretty(plan)?),
        Format::Github => {
            let matrix = matrix::matrix(plan, runners).map_err(too_many)?;
            format!(
                "has_work={}\nplan_digest={}\nmatrix={}\n",
                !matrix.include.is_empty(),
                plan.plan_digest,
                serde_json::to_string(&matrix)?
            )
        }
        Format::Gitlab => {
            let with = gitlab::Pipeline {
                runners: runners.clone(),
                ..gitlab::Pipeline::default()
            };
            gitlab::pipeline(plan, &with).map_err(too_many)?
        }
    })
}

/// A plan with the forms that platforms take.
pub(super) struct Planned {
    pub(super) plan: Plan,
    /// For people.
    pub(super) table: String,
    /// `plan --json`.
    pub(super) json: String,
    /// `plan --format github`.
    pub(super) github: String,
    /// `plan --format gitlab`.
    pub(super) gitlab: String,
}

/// What `plan` with these options of `build` decides, for the commit `head` if that is given.
pub(super) async fn planned(
    context: &Context,
    build: BuildArgs,
    head: Option<String>,
) -> Result<Planned, CliError> {
    let args = PlanArgs {
        base: None,
        head,
        touch: Vec::new(),
        no_cache_lookup: false,
        no_fetch: false,
        rebuild: Vec::new(),
        skip: Vec::new(),
        update_lock: false,
        format: Format::Table,
        json: false,
        runner: Vec::new(),
        exit_code: false,
        build,
    };
    let plan = decided(context, &args, &events(context, &args.build)).await?;
    let runners = runners(&args);
    let form = |format| written(&plan, format, &runners);
    Ok(Planned {
        table: form(Format::Table)?,
        json: form(Format::Json)?,
        github: form(Format::Github)?,
        gitlab: form(Format::Gitlab)?,
        plan,
    })
}
