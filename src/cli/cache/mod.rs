//! `cache`: what the local store holds, carrying it elsewhere, cleaning it.

mod bundle;
mod inspect;
mod keygen;
mod push;

pub(super) use inspect::time;

use std::{collections::BTreeMap, path::PathBuf};

use clap::Subcommand;

use super::{CliError, Context, ExitCode, answer, caches, config};
use crate::{
    cache::{CacheError, DerivedData, DerivedUse, DiskStore, GcPolicy, GcReport, Scope},
    config::units,
    engine::{MountDirs, snapshot_access},
    remote::SourceStore,
    sandbox::Sandbox,
    snapshot::Snapshots,
    ui::bytes,
    userns::Program,
};

#[derive(Debug, Subcommand)]
pub(super) enum CacheCommand {
    /// List cached steps, the last used first
    Ls {
        /// Print them as JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        scopes: ScopeArgs,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Show what an entry states: key, layer, who made it, scope, signature, what the key was made of
    Inspect {
        /// The key, its first digits, or a part of the step's name
        #[arg(value_name = "KEY|STEP")]
        wanted: String,
        /// Print it as JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Write entries and blobs to a bundle, an OCI image layout
    Export {
        /// The directory, or a file whose name ends with `.tar`
        #[arg(value_name = "DIR|FILE.tar")]
        dest: PathBuf,
        /// Print the report as JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        scopes: ScopeArgs,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Take in the entries and blobs of a bundle
    Import {
        /// The directory or the tar
        #[arg(value_name = "DIR|FILE")]
        source: PathBuf,
        /// Print the report as JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        scopes: ScopeArgs,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Send entries and blobs to the remote caches: what builds have left unsaved, named steps, or everything
    Push {
        #[command(flatten)]
        args: push::PushArgs,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Make a pair of keys for signing entries: `NAME.pem` (private) and `NAME.pub.pem`; print the key's id
    Keygen {
        /// Path of the files without their endings
        #[arg(value_name = "NAME")]
        name: PathBuf,
    },
    /// Read everything and drop what is corrupt
    Verify {
        /// Print the report as JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        scopes: ScopeArgs,
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
        scopes: ScopeArgs,
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

#[derive(Debug, clap::Args)]
pub(super) struct ScopeArgs {
    /// Only entries of this trust scope; can be given more than once
    #[arg(long, value_name = "SCOPE", value_parser = scope)]
    scope: Vec<Scope>,
}

fn scope(text: &str) -> Result<Scope, crate::cache::ScopeError> {
    text.parse()
}

pub(super) fn run(context: &Context, command: &CacheCommand) -> Result<ExitCode, CliError> {
    match command {
        CacheCommand::Ls {
            json,
            scopes,
            store,
        } => ls(&open(context, store)?, &scopes.scope, *json),
        CacheCommand::Inspect {
            wanted,
            json,
            store,
        } => inspect::inspect(&open(context, store)?, &keyring(context)?, wanted, *json),
        CacheCommand::Export {
            dest,
            json,
            scopes,
            store,
        } => bundle::export(&open(context, store)?, dest, &scopes.scope, *json),
        CacheCommand::Import {
            source,
            json,
            scopes,
            store,
        } => bundle::import(
            &open(context, store)?,
            source,
            &keyring(context)?,
            &scopes.scope,
            *json,
        ),
        CacheCommand::Push { args, store } => {
            let settings = configured(context).unwrap_or_default();
            push::push(context, open(context, store)?, &settings, args)
        }
        CacheCommand::Keygen { name } => keygen::keygen(name),
        CacheCommand::Verify {
            json,
            scopes,
            store,
        } => verify(&open(context, store)?, &scopes.scope, *json),
        CacheCommand::Gc {
            max_size,
            max_age,
            json,
            scopes,
            store,
        } => gc(
            context,
            store,
            &scopes.scope,
            [max_size.as_deref(), max_age.as_deref()],
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

/// The keys whose signatures count, as a build has them.
fn keyring(context: &Context) -> Result<crate::cache::trust::Keyring, CliError> {
    let settings = configured(context).unwrap_or_default();
    Ok(caches::keyring(context, &settings)?)
}

fn ls(store: &DiskStore, scopes: &[Scope], json: bool) -> Result<ExitCode, CliError> {
    let mut actions = store.actions()?;
    actions.retain(|action| scopes.is_empty() || scopes.contains(&action.result.scope));
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
                "{}  {:>10}  {:<12}  {}\n",
                result.key.0.short(),
                bytes(size),
                result.scope.as_str(),
                result.step.name
            );
        }
        text += &by_scope(actions.iter().map(|action| &action.result.scope));
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

/// How many entries each scope has, a line each, where there is more than one.
fn by_scope<'a>(scopes: impl Iterator<Item = &'a Scope>) -> String {
    let mut counts: BTreeMap<&Scope, usize> = BTreeMap::new();
    for scope in scopes {
        *counts.entry(scope).or_default() += 1;
    }
    if counts.len() < 2 {
        return String::new();
    }
    let lines = counts.iter();
    lines
        .map(|(scope, count)| format!("scope {scope}: {count}\n"))
        .collect()
}

fn verify(store: &DiskStore, scopes: &[Scope], json: bool) -> Result<ExitCode, CliError> {
    let report = store.verify_of(scopes, &mut |_| {})?;
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
    scopes: &[Scope],
    [max_size, max_age]: [Option<&str>; 2],
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
        scopes: scopes.to_vec(),
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
            "removed {} entries, {} blobs, {} unpacked layers, sources and cache mounts: {} freed, {} kept\n",
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

/// Keeps the store within `policy`, with all that lies beside the blobs.
pub(super) fn collect(store: &DiskStore, policy: &GcPolicy) -> Result<GcReport, CliError> {
    let snapshots = unpacked(store)?;
    let derived = Derived {
        snapshots: snapshots.as_ref(),
        mounts: snapshots
            .as_ref()
            .and_then(|snapshots| MountDirs::existing(store, snapshots)),
        sources: SourceStore::existing(store.dir()),
    };
    Ok(store.gc(policy, &derived)?)
}

/// All that lies beside the blobs: what can be made again, and cache mounts, which steps can do without.
struct Derived<'s> {
    snapshots: Option<&'s Snapshots>,
    mounts: Option<MountDirs<'s>>,
    sources: Option<SourceStore>,
}

impl DerivedData for Derived<'_> {
    fn list(&self) -> Result<Vec<DerivedUse>, CacheError> {
        let mut all = Vec::new();
        if let Some(snapshots) = self.snapshots {
            all.extend(DerivedData::list(snapshots)?);
        }
        if let Some(mounts) = &self.mounts {
            all.extend(mounts.list()?);
        }
        if let Some(sources) = &self.sources {
            all.extend(sources.list()?);
        }
        Ok(all)
    }

    fn remove(&self, id: &str) -> Result<bool, CacheError> {
        match self {
            Self {
                sources: Some(sources),
                ..
            } if SourceStore::owns(id) => sources.remove(id),
            Self {
                mounts: Some(mounts),
                ..
            } if MountDirs::owns(id) => mounts.remove(id),
            Self {
                snapshots: Some(snapshots),
                ..
            } => DerivedData::remove(*snapshots, id),
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
