//! `cache push`: what the local store has, to the remote caches.

use std::{sync::Arc, time::Duration};

use super::inspect;
use crate::{
    cache::{ActionResult, DiskStore, Pushed, SaveReport, TieredStore},
    cli::{
        CliError, Context, ExitCode, answer, build,
        caches::{self, Asked, Named},
    },
    config::CacheSettings,
    event::{BuildEvent, EventSink, Events},
    ui::{self, ProgressMode, bytes},
};

/// How long it may take. Whoever gives up before ends the program, and the journal keeps the rest.
const PATIENCE: Duration = Duration::from_secs(30 * 24 * 3600);

/// What to send where.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct PushArgs {
    /// Keys, their first digits, or parts of names of steps [default: what builds have left unsaved]
    #[arg(value_name = "KEY|STEP")]
    wanted: Vec<String>,
    /// Send everything
    #[arg(long, conflicts_with = "wanted")]
    all: bool,
    /// A remote cache, named as for `build --cache-to`; can be given more than once (default: `MEMOBUILD_REMOTE_URL`, `cache.remote`)
    #[arg(long, value_name = "CACHE")]
    to: Vec<String>,
    /// The trust scope whose entries are sent [default: what the CI platform says about the job]
    #[arg(long, value_name = "SCOPE")]
    cache_scope: Option<String>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// Shows warnings; what was sent is the answer.
struct Warnings(Arc<dyn EventSink>);

impl EventSink for Warnings {
    fn event(&self, ms: u64, event: &BuildEvent) {
        if matches!(event, BuildEvent::Warning { .. }) {
            self.0.event(ms, event);
        }
    }
}

pub(super) fn push(
    context: &Context,
    store: DiskStore,
    settings: &CacheSettings,
    args: &PushArgs,
) -> Result<ExitCode, CliError> {
    let called = inspect::called(&args.wanted);
    let is_wanted = |entry: &ActionResult| args.all || called.iter().any(|is| is(entry));
    let known = store.actions()?;
    for (wanted, is) in args.wanted.iter().zip(&called) {
        if !known.iter().any(|stored| is(&stored.result)) {
            let wanted = wanted.clone();
            return Err(CliError::NoEntry { wanted });
        }
    }
    // What is being sent must not be collected meanwhile.
    let _lease = store.lease()?;
    let out = Box::new(std::io::stderr());
    let progress = ui::Progress::new(ProgressMode::Quiet, context.color, out);
    let events = Events::new(Arc::new(Warnings(progress)));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(CliError::Runtime)?;
    let sent = runtime.block_on(async {
        let registry = Arc::new(build::registry(context, settings)?);
        let to = args.to.iter();
        let asked = Asked {
            flags: to.map(|text| Named::written("--to", text)).collect(),
            scope: args.cache_scope.as_deref(),
            ..Asked::default()
        };
        let caches = caches::caches(context, &asked, settings, &registry, &events)?;
        if !caches.saves {
            return Err(CliError::usage_hint(
                "this job saves nothing in remote caches",
                "jobs for other people's code don't; others can name the scope with `--cache-scope`",
            ));
        }
        if !caches.tiers.iter().any(|tier| tier.access.write) {
            return Err(CliError::usage_hint(
                "there is no remote cache to send to",
                "name one with `--to`, with `MEMOBUILD_REMOTE_URL` or under `cache.remote`",
            ));
        }
        let store = Arc::new(store);
        let tiered = TieredStore::new(
            store,
            caches.tiers,
            caches.scopes,
            caches.vouching,
            events.clone(),
        );
        let resumed = tiered.saver().resume().await;
        let pushed = tiered.push(is_wanted).await?;
        let report = tiered.saver().finish(PATIENCE).await;
        Ok((resumed, pushed, report.unwrap_or_default()))
    });
    runtime.shutdown_background();
    let (resumed, pushed, report) = sent?;
    let refused = (resumed + pushed.results).saturating_sub(report.results + report.left);
    answer(&text(&pushed, &report, refused, args.json)?)?;
    Ok(match (report.left, refused) {
        (0, 0) => ExitCode::Success,
        (0, _) => ExitCode::Denied,
        _ => ExitCode::Transient,
    })
}

fn text(
    pushed: &Pushed,
    report: &SaveReport,
    refused: usize,
    json: bool,
) -> Result<String, CliError> {
    if json {
        let value = serde_json::json!({
            "schema_version": 1,
            "results": report.results,
            "bytes": report.bytes,
            "new_bytes": report.new_bytes,
            "left": report.left,
            "refused": refused,
            "left_out": {
                "other_scopes": pushed.other_scopes,
                "unsigned": pushed.unsigned,
                "incomplete": pushed.incomplete,
            },
        });
        return Ok(format!("{}\n", serde_json::to_string_pretty(&value)?));
    }
    let mut text = format!(
        "sent {} results, {} ({} new)\n",
        report.results,
        bytes(report.bytes),
        bytes(report.new_bytes)
    );
    for (number, what) in [
        (
            report.left,
            "results could not be sent now; the next build or `cache push` tries again",
        ),
        (refused, "results were refused"),
        (
            pushed.other_scopes,
            "entries left out: they are of other scopes",
        ),
        (
            pushed.unsigned,
            "entries left out: they are not signed as needed",
        ),
        (
            pushed.incomplete,
            "entries left out: their blobs are not here",
        ),
    ] {
        if number > 0 {
            text += &format!("{number} {what}\n");
        }
    }
    Ok(text)
}
