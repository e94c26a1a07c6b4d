//! `cache`: what the local store holds, and cleaning it.

use std::path::PathBuf;

use clap::Subcommand;

use super::{CliError, Context, ExitCode, answer, config};
use crate::{
    cache::{CacheError, DerivedData, DerivedUse, DiskStore, GcPolicy, GcReport},
    config::units,
    engine::snapshot_access,
    remote::SourceStore,
    sandbox::Sandbox,
    snapshot::Snapshots,
    ui::bytes,
    userns::Program,
};

#[derive(Debug, Subcommand)]
pub(super) enum CacheCommand {
    /// List cached steps, the least recently used first
    Ls {
        /// Print them as JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Read everything and drop what is corrupt
    Verify {
        /// Print the report as JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Remove what was not used lately
    Gc {
        /// Keep at most this much, for instance `20GB`
        #[arg(long, value_name = "SIZE")]
        max_size: Option<String>,
        /// Remove what was not used for this long, for instance `30d`
        #[arg(long, value_name = "DURATION")]
        max_age: Option<String>,
        /// Print the report as JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        store: StoreArgs,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct StoreArgs {
    /// Directory of the local cache (default: `MEMOBUILD_CACHE_DIR`)
    #[arg(long, value_name = "DIR")]
    cache_dir: Option<PathBuf>,
}

pub(super) fn run(context: &Context, command: &CacheCommand) -> Result<ExitCode, CliError> {
    match command {
        CacheCommand::Ls { json, store } => ls(&open(context, store)?, *json),
        CacheCommand::Verify { json, store } => verify(&open(context, store)?, *json),
        CacheCommand::Gc {
            max_size,
            max_age,
            json,
            store,
        } => gc(
            context,
            store,
            max_size.as_deref(),
            max_age.as_deref(),
            *json,
        ),
    }
}

fn open(context: &Context, args: &StoreArgs) -> Result<DiskStore, CliError> {
    let dir = match &args.cache_dir {
        Some(dir) => dir.clone(),
        None => context
            .env
            .cache_dir(configured(context).and_then(|c| c.dir)),
    };
    Ok(DiskStore::open(dir)?)
}

/// The cache settings of the configuration, if there is one that can be read.
fn configured(context: &Context) -> Option<crate::config::CacheSettings> {
    config::load(context).ok().map(|config| config.cache)
}

fn ls(store: &DiskStore, json: bool) -> Result<ExitCode, CliError> {
    let actions = store.actions()?;
    let mut text = String::new();
    if json {
        let rows: Vec<_> = actions
            .iter()
            .map(|a| serde_json::json!({"used_ms": a.used, "result": a.result}))
            .collect();
        let answer = serde_json::json!({"schema_version": 1, "actions": rows});
        text = format!("{}\n", serde_json::to_string_pretty(&answer)?);
    } else {
        for action in &actions {
            let result = &action.result;
            let size = result.layer.as_ref().map_or(0, |l| l.size);
            text += &format!(
                "{}  {:>10}  {}\n",
                result.key.0.short(),
                bytes(size),
                result.step.name
            );
        }
        let stats = store.stats()?;
        text += &format!(
            "{} entries, {} blobs, {}\n",
            stats.actions,
            stats.blobs,
            bytes(stats.blob_bytes)
        );
    }
    answer(&text)?;
    Ok(ExitCode::Success)
}

fn verify(store: &DiskStore, json: bool) -> Result<ExitCode, CliError> {
    let report = store.verify(&mut |_| {})?;
    let text = if json {
        let value = serde_json::json!({
            "schema_version": 1,
            "blobs": report.blobs,
            "bytes": report.bytes,
            "corrupt": report.corrupt,
            "unreadable": report.unreadable,
            "incomplete": report.incomplete,
        });
        format!("{}\n", serde_json::to_string_pretty(&value)?)
    } else {
        let mut text = format!(
            "{} blobs read, {}; {} corrupt, {} entries unreadable, {} entries without their blobs\n",
            report.blobs,
            bytes(report.bytes),
            report.corrupt.len(),
            report.unreadable,
            report.incomplete.len()
        );
        for digest in &report.corrupt {
            text += &format!("dropped corrupt blob {digest}\n");
        }
        text
    };
    answer(&text)?;
    Ok(match report.corrupt.is_empty() {
        true => ExitCode::Success,
        false => ExitCode::Integrity,
    })
}

fn gc(
    context: &Context,
    args: &StoreArgs,
    max_size: Option<&str>,
    max_age: Option<&str>,
    json: bool,
) -> Result<ExitCode, CliError> {
    let store = open(context, args)?;
    let configured = configured(context).unwrap_or_default();
    let bad = |option: &str, text: &str, error: &dyn std::fmt::Display| {
        CliError::usage(format!("`{option} {text}`: {error}"))
    };
    let mut policy = GcPolicy {
        max_bytes: configured.max_size,
        max_age: configured.max_age,
        ..GcPolicy::default()
    };
    if let Some(text) = max_size {
        policy.max_bytes = Some(units::parse_size(text).map_err(|e| bad("--max-size", text, &e))?);
    }
    if let Some(text) = max_age {
        policy.max_age = Some(units::parse_duration(text).map_err(|e| bad("--max-age", text, &e))?);
    }
    if policy.max_bytes.is_none() && policy.max_age.is_none() {
        return Err(CliError::usage_hint(
            "no limit is given",
            "give `--max-size` or `--max-age`, or set them under `cache:` in `memobuild.yml`",
        ));
    }
    let report = collect(&store, &policy)?;
    let text = if json {
        let value = serde_json::json!({
            "schema_version": 1,
            "skipped": report.skipped,
            "actions": report.actions,
            "blobs": report.blobs,
            "unpacked": report.derived,
            "freed_bytes": report.freed_bytes,
            "kept_bytes": report.kept_bytes,
        });
        format!("{}\n", serde_json::to_string_pretty(&value)?)
    } else if report.skipped {
        "another process is collecting garbage; nothing was done\n".to_owned()
    } else {
        format!(
            "removed {} entries, {} blobs, {} unpacked layers and sources: {} freed, {} kept\n",
            report.actions,
            report.blobs,
            report.derived,
            bytes(report.freed_bytes),
            bytes(report.kept_bytes)
        )
    };
    answer(&text)?;
    Ok(ExitCode::Success)
}

/// Keeps the store within `policy`, with unpacked layers and fetched sources.
pub(super) fn collect(store: &DiskStore, policy: &GcPolicy) -> Result<GcReport, CliError> {
    let derived = Derived {
        snapshots: unpacked(store)?,
        sources: SourceStore::existing(store.dir()),
    };
    Ok(store.gc(policy, &derived)?)
}

/// All that lies beside the blobs and can be made again.
struct Derived {
    snapshots: Option<Snapshots>,
    sources: Option<SourceStore>,
}

impl DerivedData for Derived {
    fn list(&self) -> Result<Vec<DerivedUse>, CacheError> {
        let mut all = match &self.snapshots {
            Some(snapshots) => DerivedData::list(snapshots)?,
            None => Vec::new(),
        };
        if let Some(sources) = &self.sources {
            all.extend(sources.list()?);
        }
        Ok(all)
    }

    fn remove(&self, id: &str) -> Result<bool, CacheError> {
        match (&self.sources, &self.snapshots) {
            (Some(sources), _) if SourceStore::owns(id) => sources.remove(id),
            (_, Some(snapshots)) => DerivedData::remove(snapshots, id),
            _ => Ok(false),
        }
    }
}

/// The unpacked layers beside the blobs; none where no sandbox works, because nobody can
/// have unpacked any.
fn unpacked(store: &DiskStore) -> Result<Option<Snapshots>, CliError> {
    let Ok(sandbox) = Sandbox::detect(Program::current()?) else {
        return Ok(None);
    };
    let access = snapshot_access(&sandbox);
    Ok(Some(Snapshots::open(&store.snapshots_dir(), access)?))
}
