//! `simulate --history N`: commits from Git's objects alone.

use std::fmt::Write as _;

use rayon::iter::{IntoParallelRefIterator as _, ParallelIterator as _};

use super::{SimulateArgs, no_repository};
use crate::{
    cache::DiskStore,
    cli::{
        CliError, Context, ExitCode, answer,
        images::BaseImages,
        plan::{Maker, Place},
    },
    event::Events,
    fs::{self, Files as _},
    git::{Commit, Repository},
    key::KeyKind,
    plan::{
        ChangedFiles, SelectionMemo, Side,
        files::CommitFiles,
        lock::{self, Lock},
    },
    simulate::{self, Costs, History, Moment, Replay},
    ui,
};

/// Commits that are read before any of them is played: what bounds the memory.
const CHUNK: usize = 16;

/// Most threads that read commits: each holds the rows of a context.
const MOST_THREADS: usize = 4;

/// Invalidations that the table shows.
const MOST_SHOWN: usize = 10;

/// Plays the last `n` commits.
pub(super) fn run(context: &Context, args: &SimulateArgs, n: usize) -> Result<ExitCode, CliError> {
    let history = play(context, args, n)?;
    if let Some(path) = &args.html {
        fs::write_to(path, simulate::page(&history).as_bytes())?;
    }
    answer(&match args.json {
        true => format!("{}\n", serde_json::to_string_pretty(&history)?),
        false => table(&history),
    })?;
    Ok(ExitCode::Success)
}

fn play(context: &Context, args: &SimulateArgs, n: usize) -> Result<History, CliError> {
    let repository = Repository::discover(&fs::absolute(".")?)?.ok_or_else(no_repository)?;
    let head = repository.commit(args.head.as_deref().unwrap_or("HEAD"))?;
    // The one before is what the cache starts with.
    let mut commits = repository.history(&head, n.saturating_add(1))?;
    commits.reverse();
    let start = commits.len().saturating_sub(n);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(CliError::Runtime)?;
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get().min(MOST_THREADS));
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .map_err(|error| CliError::Runtime(std::io::Error::other(error)))?;
    let reader = Reader {
        context,
        args,
        repository: &repository,
        runtime: runtime.handle().clone(),
        memo: SelectionMemo::default(),
        events: Events::silent(),
    };
    let mut replay = Replay::new(
        repository.work_dir().unwrap_or(repository.git_dir()),
        reader.costs(),
    );
    for from in (0..commits.len()).step_by(CHUNK) {
        let numbers: Vec<usize> = (from..commits.len().min(from + CHUNK)).collect();
        let read = |number: &usize| {
            let before = number.checked_sub(1).map(|n| &commits[n]);
            (*number, reader.read(before, &commits[*number]))
        };
        let sides: Vec<_> = pool.install(|| numbers.par_iter().map(read).collect());
        for (number, read) in sides {
            let commit = &commits[number];
            let moment = Moment {
                commit: commit.id.to_string(),
                subject: commit.subject().to_owned(),
                time: commit.time,
                counted: number >= start,
            };
            match read {
                Ok((side, changed)) => replay.play(moment, Ok(side), &changed),
                Err(error) => replay.play(moment, Err(told(&error)), &ChangedFiles::new()),
            }
        }
    }
    runtime.shutdown_background();
    Ok(replay.finish())
}

/// What reads commits, from several threads.
struct Reader<'c> {
    context: &'c Context,
    args: &'c SimulateArgs,
    repository: &'c Repository,
    runtime: tokio::runtime::Handle,
    memo: SelectionMemo,
    events: Events,
}

impl Reader<'_> {
    /// What a commit would build, and the paths that differ from the one before.
    fn read(
        &self,
        before: Option<&Commit>,
        commit: &Commit,
    ) -> Result<(Side, ChangedFiles), CliError> {
        let tree = commit.files(self.repository)?;
        let files = CommitFiles::new(tree.clone(), &fs::absolute(".")?);
        let lock_file = std::path::Path::new(lock::FILE_NAME);
        let lock = match files.exists(lock_file) {
            true => Lock::load(&files, lock_file)?,
            false => None,
        };
        let bases = BaseImages::stand_ins(lock);
        let mut maker = Maker::new(self.context, &self.args.build, &bases, &self.events);
        maker.by_object_id = true;
        maker.memo = Some(&self.memo);
        let name = commit.id.to_string();
        let place = Place::Commit(Box::new(tree));
        let side = self.runtime.block_on(maker.side(&name, &place))?;
        let top = self
            .repository
            .work_dir()
            .unwrap_or(self.repository.git_dir());
        let changed = match before {
            Some(before) => self.repository.changes(Some(before), commit)?,
            None => Default::default(),
        };
        let paths = changed.iter().map(|change| top.join(change.path.as_path()));
        Ok((side, paths.collect()))
    }

    /// What steps took, by the local cache. One that can't be read knows nothing.
    fn costs(&self) -> Costs {
        let bases = BaseImages::stand_ins(None);
        let maker = Maker::new(self.context, &self.args.build, &bases, &self.events);
        let entries = || {
            let dir = maker.store_dir().ok()?;
            if !fs::exists(&dir) {
                return None;
            }
            let store = DiskStore::open_read_only(dir).ok()?;
            store.actions_of(KeyKind::Definition).ok()
        };
        let entries = entries().unwrap_or_default();
        Costs::of(entries.into_iter().map(|entry| entry.result))
    }
}

/// An error and its causes on one line.
fn told(error: &CliError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}

/// The report for a terminal.
fn table(history: &History) -> String {
    let mut text = String::new();
    for commit in &history.commits {
        let built = commit.built();
        let what = match &commit.error {
            Some(error) => format!("can't be read: {error}"),
            None if built.is_empty() => "-".to_owned(),
            None => built.join(", "),
        };
        let _ = writeln!(
            text,
            "{}  {:>4}/{:<4}  {}  {}",
            short(&commit.commit),
            commit.amount.ran,
            commit.amount.steps,
            ui::inert(&ui::harmless(&what)),
            ui::inert(&ui::harmless(&commit.subject)),
        );
    }
    let width = history.targets.iter().map(|t| t.name.chars().count()).max();
    let width = width.unwrap_or(0).max("target".len());
    let _ = writeln!(
        text,
        "\n{:<width$}  built  reused  unchanged    hits  by bytes",
        "target"
    );
    for target in &history.targets {
        let bytes = match target.amount.byte_percent() {
            Some(percent) => format!("{percent:.1} %"),
            None => "-".to_owned(),
        };
        let _ = writeln!(
            text,
            "{:<width$}  {:>5}  {:>6}  {:>9}  {:>5.1} %  {bytes:>8}",
            target.name,
            target.builds,
            target.reuses,
            target.skips,
            target.amount.hit_percent(),
        );
    }
    if !history.invalidations.is_empty() {
        text.push_str("\nwhat made steps run:\n");
    }
    for found in history.invalidations.iter().take(MOST_SHOWN) {
        let steps = if found.steps == 1 { "step" } else { "steps" };
        let time = match found.ms {
            0 => String::new(),
            ms => format!(", {}", ui::millis(ms)),
        };
        let _ = writeln!(
            text,
            "  {} ({} {steps}{time})\n    fix: {}",
            ui::inert(&ui::harmless(&found.sentence)),
            found.steps,
            ui::inert(&ui::harmless(&found.fix)),
        );
    }
    let totals = &history.totals;
    let amount = &totals.amount;
    let commits = |n: usize| match n {
        1 => "1 commit".to_owned(),
        n => format!("{n} commits"),
    };
    let _ = writeln!(
        text,
        "\n{}, {} of them need nothing; {} of {} steps run, {:.1} % are hits",
        commits(totals.commits),
        totals.nothing,
        amount.ran,
        amount.steps,
        amount.hit_percent(),
    );
    if totals.unreadable > 0 {
        let _ = writeln!(text, "{} can't be read", commits(totals.unreadable));
    }
    match amount.known {
        0 => text.push_str("the local cache knows no times and sizes of such steps\n"),
        known => {
            let _ = writeln!(
                text,
                "{} of steps with a cache, {} without, as far as the local cache knows the steps: {known} of {}",
                ui::millis(amount.ran_ms),
                ui::millis(amount.ms),
                amount.steps,
            );
        }
    }
    text
}

fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}
