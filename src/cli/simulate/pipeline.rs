//! An event, the plan for it, the build: what a job of the platform would do, by the code that it
//! would run.

use std::{path::PathBuf, sync::Arc, time::Instant};

use super::{
    SimulateArgs, Simulation, facts, files, no_repository,
    timeline::{Clocked, Timeline},
};
use crate::{
    ci,
    cli::{CliError, Context, ExitCode, answer, build, build::BuildArgs, plan, prepare},
    fs,
    git::{self, Commit, Repository},
    simulate::{NoSuchEvent, SyntheticEvent, synthesize},
    ui::{self, ProgressMode},
};

/// Plays the event.
pub(super) fn run(context: &Context, args: &SimulateArgs) -> Result<ExitCode, CliError> {
    let began = Instant::now();
    let elapsed = || u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let (platform, image_platforms) = facts::platforms(&args.build.platform)?;
    let kind = facts::kind(args.event.as_deref())?;
    let repository = Repository::discover(&fs::absolute(".")?)?.ok_or_else(no_repository)?;
    let head = repository.commit(args.head.as_deref().unwrap_or("HEAD"))?;
    let base = match &args.base {
        Some(text) => Some(repository.commit(text)?),
        None => None,
    };
    let facts = facts::facts(&repository, kind, &head, base.as_ref())?;
    let unknown = |error: NoSuchEvent| CliError::usage_hint(error.to_string(), error.hint());
    let mut event = synthesize(platform, kind, &facts).map_err(unknown)?;
    let out = match &args.out {
        Some(out) => fs::absolute(out)?,
        // It stays: its files are what was asked for.
        None => fs::temp_dir_in(context.env.temp_dir())?.keep(),
    };
    fs::create_dir_all(&out)?;
    let out = fs::canonicalize(out)?;
    describe(&mut event, &out)?;

    let timeline = Arc::new(Timeline::default());
    let ci_env = event.env(&context.env);
    timeline.note(elapsed(), told(&event, &ci::detect(&ci_env), args));
    let job = Job::new(context, args, image_platforms, &out)?;
    let of_event = |simulation| Context {
        global: context.global.clone(),
        env: ci_env.with("MEMOBUILD_OUTPUT", out.join("images")),
        color: context.color,
        files: Arc::clone(&context.files),
        simulation: Some(Arc::new(simulation)),
    };

    let planning = of_event(job.simulation(Vec::new()));
    let planned = plan::on_runtime(plan::planned(
        &planning,
        job.build.clone(),
        args.head.clone(),
    ))?;
    let written = files::write(&out, platform, &planned)?;
    timeline.note(elapsed(), "plan".to_owned());
    for line in planned.table.lines().filter(|line| !line.is_empty()) {
        timeline.note(elapsed(), format!("  {line}"));
    }
    let mut built = Ok(ExitCode::Success);
    if !args.dry_run {
        let ndjson = fs::create(out.join("events.ndjson"))?;
        let clocked = Clocked {
            timeline: Arc::clone(&timeline),
            offset: elapsed(),
        };
        let building = of_event(job.simulation(vec![
            ui::Progress::new(ProgressMode::Json, false, Box::new(ndjson)),
            Arc::new(clocked),
        ]));
        let _tree = checked_out(args, &repository, &head, context)?;
        built = build::run(&building, &job.build);
    }
    timeline.note(
        elapsed(),
        format!("files    {} in {}", written.join(", "), out.display()),
    );
    answer(&match args.json {
        true => planned.json,
        false => timeline.text(),
    })?;
    built
}

/// The event in one line.
fn told(event: &SyntheticEvent, ci: &ci::CiContext, args: &SimulateArgs) -> String {
    let what = ci.git_ref.as_deref().unwrap_or("a change");
    let note = match &args.base {
        Some(_) if !event.tells_base => "; it tells of no base, so that `--base` has no effect",
        _ => "",
    };
    format!(
        "event    {} of {what} on {}, cache scope `{}`{note}",
        event.kind.word(),
        event.platform.name(),
        ci.scope()
    )
}

/// Writes the description of the event, and the variables for whoever wants to see them.
fn describe(event: &mut SyntheticEvent, out: &std::path::Path) -> Result<(), CliError> {
    if let Some(payload) = &event.payload {
        let path = out.join("event.json");
        let text = serde_json::to_string_pretty(payload)?;
        fs::write_to(&path, format!("{text}\n").as_bytes())?;
        event
            .variables
            .insert("GITHUB_EVENT_PATH", path.display().to_string());
    }
    let text = files::environment(event);
    fs::write_to(out.join("environment"), text.as_bytes())?;
    Ok(())
}

/// What the job builds, and with which caches.
struct Job {
    build: BuildArgs,
    cache: Option<(PathBuf, crate::simulate::Fault)>,
    /// The cache of a runner that has nothing.
    _empty: Option<tempfile::TempDir>,
}

impl Job {
    fn new(
        context: &Context,
        args: &SimulateArgs,
        platforms: Vec<String>,
        out: &std::path::Path,
    ) -> Result<Self, CliError> {
        let mut build = args.build.clone();
        build.platform = platforms;
        for file in [&mut build.iidfile, &mut build.metadata_file]
            .into_iter()
            .flatten()
        {
            *file = fs::absolute(&*file)?;
        }
        let configured = prepare::configuration(context, &args.build).ok().flatten();
        let local = match &args.build.cache_dir {
            Some(dir) => dir.clone(),
            None => context.env.cache_dir(configured.and_then(|c| c.cache.dir)),
        };
        let local = fs::absolute(local)?;
        let empty = match args.cold || args.fault.is_some() {
            true => Some(fs::temp_dir_in(out)?),
            false => None,
        };
        // The build may run in another directory.
        build.cache_dir = Some(match &empty {
            Some(empty) => empty.path().to_owned(),
            None => local.clone(),
        });
        Ok(Self {
            build,
            cache: args.fault.map(|fault| (local, fault.fault())),
            _empty: empty,
        })
    }

    fn simulation(&self, sinks: Vec<Arc<dyn crate::event::EventSink>>) -> Simulation {
        Simulation {
            sinks,
            cache: self.cache.clone(),
        }
    }
}

/// Writes the commit that is asked for to a directory of its own and works there from now on; gives
/// what keeps it.
fn checked_out(
    args: &SimulateArgs,
    repository: &Repository,
    head: &Commit,
    context: &Context,
) -> Result<Option<tempfile::TempDir>, CliError> {
    if args.head.is_none() {
        return Ok(None);
    }
    let here = fs::absolute(".")?;
    let below = repository.relative(&here).unwrap_or_default();
    let dir = fs::temp_dir_in(context.env.temp_dir())?;
    let tree = dir.path().join("tree");
    fs::create_dir(&tree)?;
    git::write_out(&head.files(repository)?, &tree)?;
    let work = tree.join(below.as_path());
    std::env::set_current_dir(&work).map_err(|source| CliError::Directory {
        dir: work.clone(),
        source,
    })?;
    Ok(Some(dir))
}
