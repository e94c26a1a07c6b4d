//! `cache export` and `cache import`: entries and blobs as a bundle.

use std::path::Path;

use crate::{
    cache::{
        ActionResult, DiskStore, Scope,
        bundle::{self, BundleReport},
        trust::Keyring,
    },
    cli::{CliError, ExitCode, answer},
    ui::bytes,
};

/// Writes what the store has, of `scopes` alone where there are any.
pub(super) fn export(
    store: &DiskStore,
    dest: &Path,
    scopes: &[Scope],
    json: bool,
) -> Result<ExitCode, CliError> {
    // What is being written must not be collected meanwhile.
    let _lease = store.lease()?;
    let entries: Vec<ActionResult> = store
        .actions()?
        .into_iter()
        .map(|stored| stored.result)
        .filter(|result| scopes.is_empty() || scopes.contains(&result.scope))
        .collect();
    let report = bundle::export(store, &entries, dest)?;
    told("exported", "whose blobs are not here", &report, json)
}

/// Takes in what a bundle has and `keyring` accepts.
pub(super) fn import(
    store: &DiskStore,
    source: &Path,
    keyring: &Keyring,
    scopes: &[Scope],
    json: bool,
) -> Result<ExitCode, CliError> {
    let _lease = store.lease()?;
    let accept = |result: &ActionResult| {
        (scopes.is_empty() || scopes.contains(&result.scope)) && keyring.accept(result).is_ok()
    };
    let report = bundle::import(store, source, &accept)?;
    told(
        "imported",
        "of other scopes or not signed as needed",
        &report,
        json,
    )
}

fn told(done: &str, why: &str, report: &BundleReport, json: bool) -> Result<ExitCode, CliError> {
    let text = match json {
        true => {
            let value = serde_json::json!({
                "schema_version": 1,
                "entries": report.entries,
                "left_out": report.left_out,
                "blobs": report.blobs,
                "bytes": report.bytes,
            });
            format!("{}\n", serde_json::to_string_pretty(&value)?)
        }
        false => {
            let left_out = match report.left_out {
                0 => String::new(),
                number => format!("; left out {number} {why}"),
            };
            format!(
                "{done} {} entries, {} blobs, {}{left_out}\n",
                report.entries,
                report.blobs,
                bytes(report.bytes)
            )
        }
    };
    answer(&text)?;
    Ok(ExitCode::Success)
}
