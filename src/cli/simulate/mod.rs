//! `simulate`: what a CI pipeline would do, here.

mod facts;
mod files;
mod history;
mod pipeline;
mod timeline;

use std::{path::PathBuf, sync::Arc, time::Duration};

use clap::{Args, ValueEnum};

use super::{CliError, Context, ExitCode, build::BuildArgs};
use crate::{
    cache::{Access, CacheError, DiskStore, Tier},
    event::EventSink,
    simulate::{Fault, FaultyCache},
};

#[derive(Debug, Args)]
#[command(mut_arg("platform", |arg| arg.help(
    "The CI platform that is played: `github`, `gitea`, `forgejo`, `gitlab`, `jenkins`, `azure`, `buildkite`, `circleci`, `codebuild`, `drone`, `woodpecker`, `bitbucket`, `cloud-build`; besides it platforms of the image, as for `build`"
)))]
pub(super) struct SimulateArgs {
    /// The event that is played: `push`, `new-branch`, `force-push`, `pull_request`, `tag`, `schedule`, `merge_group`, `dispatch`
    #[arg(long, value_name = "EVENT", help_heading = "Simulation")]
    event: Option<String>,
    /// What the branch was before, or what the pull request starts from [default: the parent of the head, or where it left the default branch]
    #[arg(long, value_name = "REVISION", help_heading = "Simulation")]
    base: Option<String>,
    /// The commit that is built, as it lies in the repository [default: what is in the directory]
    #[arg(long, value_name = "REVISION", help_heading = "Simulation")]
    head: Option<String>,
    /// Plan, and build nothing
    #[arg(long, help_heading = "Simulation")]
    dry_run: bool,
    /// Start with an empty cache, as a runner without any does
    #[arg(long, help_heading = "Simulation")]
    cold: bool,
    /// Start with the local cache, which is the default
    #[arg(long, conflicts_with = "cold", help_heading = "Simulation")]
    warm: bool,
    /// Let the local cache stand for a shared one with this fault, on a runner that has nothing
    #[arg(
        long,
        value_enum,
        value_name = "FAULT",
        conflicts_with = "cold",
        help_heading = "Simulation"
    )]
    fault: Option<FaultArg>,
    /// Where the platform's files go, and the images: a directory that no build context has [default: a new temporary one]
    #[arg(long, value_name = "DIR", help_heading = "Simulation")]
    out: Option<PathBuf>,
    /// Replay this many commits, from the head back along first parents, and tell what would have been built
    #[arg(
        long,
        value_name = "N",
        conflicts_with_all = ["event", "base", "dry_run", "cold", "warm", "fault"],
        help_heading = "Simulation"
    )]
    history: Option<usize>,
    /// Print the report of `--history`, or the plan, as JSON
    #[arg(long, help_heading = "Simulation")]
    json: bool,
    /// Write the report of `--history` to this file, as one page
    #[arg(
        long,
        value_name = "FILE",
        requires = "history",
        help_heading = "Simulation"
    )]
    html: Option<PathBuf>,
    #[command(flatten)]
    build: BuildArgs,
}

/// What is wrong with the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FaultArg {
    /// It answers nothing
    CacheDown,
    /// It answers after two seconds, each time
    CacheSlow,
    /// The bytes that it gives are wrong
    CacheCorrupt,
}

/// How late a slow cache answers.
const SLOW: Duration = Duration::from_secs(2);

/// How the name of a simulated cache is shown.
const CACHE_NAME: &str = "simulated-cache";

impl FaultArg {
    fn fault(self) -> Fault {
        match self {
            Self::CacheDown => Fault::Down,
            Self::CacheSlow => Fault::Slow(SLOW),
            Self::CacheCorrupt => Fault::Corrupt,
        }
    }
}

/// What is otherwise in a simulated job.
pub(super) struct Simulation {
    /// Who is told of a build's events besides the user.
    sinks: Vec<Arc<dyn EventSink>>,
    /// The cache in place of all remote ones, and what is wrong with it.
    cache: Option<(PathBuf, Fault)>,
}

impl Simulation {
    /// A sink for `shown` and for whom else the simulation tells.
    pub(super) fn also_told(&self, shown: Arc<dyn EventSink>) -> Arc<dyn EventSink> {
        let all = std::iter::once(shown).chain(self.sinks.iter().cloned());
        Arc::new(timeline::All(all.collect()))
    }

    /// The caches of the job. Results of a simulated job are shown to nobody else.
    pub(super) fn tiers(&self, configured: Vec<Tier>) -> Result<Vec<Tier>, CacheError> {
        let Some((dir, fault)) = &self.cache else {
            let readable = configured.into_iter().filter(|tier| tier.access.read);
            return Ok(readable
                .map(|tier| Tier {
                    access: Access::READ,
                    ..tier
                })
                .collect());
        };
        let store = Arc::new(DiskStore::open(dir)?);
        let faulty = Arc::new(FaultyCache::new(store, *fault, CACHE_NAME));
        Ok(vec![Tier {
            name: CACHE_NAME.to_owned(),
            actions: Arc::<FaultyCache<DiskStore>>::clone(&faulty),
            blobs: faulty,
            access: Access::READ,
        }])
    }
}

pub(super) fn run(context: &Context, args: &SimulateArgs) -> Result<ExitCode, CliError> {
    args.build.refuse_what_is_missing()?;
    match args.history {
        Some(0) => Err(CliError::usage("`--history` takes a number from 1")),
        Some(n) => history::run(context, args, n),
        None => pipeline::run(context, args),
    }
}

fn no_repository() -> CliError {
    CliError::usage_hint(
        "there is no Git repository here",
        "work in one with `-C DIR`",
    )
}
