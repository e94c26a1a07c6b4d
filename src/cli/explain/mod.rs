//! `explain`: why steps would run, hit or be skipped.

mod asked;
mod commits;
mod json;
mod text;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    CliError, Context, ExitCode, answer,
    build::{self, BuildArgs, Told},
    caches, prepare,
};
use crate::{
    cache::trust::Keyring,
    config::Config,
    engine::explain::{Outlook, Verdict},
    event::{BuildEvent, Events, Recorder},
    ui::{self, ProgressMode},
};
use asked::Asked;

#[derive(Debug, clap::Args)]
pub(super) struct ExplainArgs {
    /// A target or stage, a step, or a key [default: all targets]
    ///
    /// A step by its place (`2/5`, or `ml 2/5`), its number in the log (`#7`), or a part of its name; a key by its first
    /// digits. An argument that is a directory is the CONTEXT, unless `memobuild.yml` is what is built.
    #[arg(value_name = "TARGET|STEP|KEY")]
    what: Option<String>,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    build: BuildArgs,
}

pub(super) fn run(context: &Context, mut args: ExplainArgs) -> Result<ExitCode, CliError> {
    take_context(context, &mut args);
    args.build.refuse_what_is_missing()?;
    let configuration = prepare::configuration(context, &args.build)?;
    let configuration = configuration.as_ref();
    let source = prepare::bake::source(&args.build, configuration);
    let plan = match &source {
        Some(source) => Some(prepare::bake::plan(context, &args.build, source, None)?),
        None => None,
    };
    let settings = configuration.map(|c| c.cache.clone()).unwrap_or_default();
    let keyring = caches::keyring(context, &settings)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(CliError::Runtime)?;
    let recorder = Arc::new(Recorder::default());
    let events = Events::new(Arc::clone(&recorder) as _);
    let commits = commits::Commits::default();
    let commit_of = |dir: &Path, path: &str| commits.last(dir, path);
    let told = runtime.block_on(build::forecast(
        context,
        &args.build,
        configuration,
        plan.as_ref(),
        &events,
        &commit_of,
    ));
    runtime.shutdown_background();
    let warnings: Vec<BuildEvent> = recorder
        .events()
        .into_iter()
        .filter(|event| matches!(event, BuildEvent::Warning { .. }))
        .collect();
    let talk = ui::Progress::new(
        ProgressMode::Quiet,
        context.color,
        Box::new(std::io::stderr()),
    );
    for warning in &warnings {
        talk.event(0, warning);
    }
    let told = told?;
    let asked = asked::asked(&told, args.what.as_deref())?;
    let page = Page {
        told: &told,
        keyring: &keyring,
        asked,
    };
    answer(&match args.json {
        true => page.json(&warnings)?,
        false => page.text(),
    })?;
    Ok(ExitCode::Success)
}

/// A single argument is the context where that makes sense.
fn take_context(context: &Context, args: &mut ExplainArgs) {
    let is_configured = context.global.config.is_some()
        || Config::find(context.files.as_ref(), Path::new("")).is_some();
    let builds_configuration = is_configured && args.build.file.is_none();
    let is_context =
        |what: &String| what == "-" || what.contains("://") || Path::new(what).is_dir();
    if args.build.positional.is_empty()
        && args.build.bake.is_empty()
        && !builds_configuration
        && let Some(what) = args.what.take_if(|what| is_context(what))
    {
        args.build.positional.push(PathBuf::from(what));
    }
}

/// An answer.
struct Page<'a> {
    told: &'a Told,
    keyring: &'a Keyring,
    asked: Asked<'a>,
}

impl Page<'_> {
    /// The step to look at first: the first that is executed and doesn't follow from another one.
    fn first_cause(&self) -> Option<&Outlook> {
        use crate::engine::explain::Cause;
        let runs = |outlook: &&&Outlook| match &outlook.verdict {
            Verdict::Run(miss) => !matches!(miss.cause, Cause::Follows { .. }),
            Verdict::Hit { .. } | Verdict::Skip => false,
        };
        self.asked.steps.iter().find(runs).copied()
    }
}
