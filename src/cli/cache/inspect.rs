//! `cache inspect`: the statements that entries are.

use std::fmt::Write as _;

use crate::{
    cache::{ActionResult, DiskStore, StoredAction, trust::Keyring},
    cli::{CliError, ExitCode, answer},
    key::RecipeValue,
    ui::bytes,
};

/// Fewest digits by which a key is recognised.
const SHORTEST: usize = 6;

/// Shows the entries that `wanted` means: by their key or its first digits, else by a part of the step's name.
pub(super) fn inspect(
    store: &DiskStore,
    keyring: &Keyring,
    wanted: &str,
    json: bool,
) -> Result<ExitCode, CliError> {
    let actions = store.actions()?;
    let by_key = by_key(wanted);
    let mut found: Vec<&StoredAction> = actions.iter().filter(|a| by_key(&a.result)).collect();
    if found.is_empty() {
        let named = |a: &&StoredAction| a.result.step.name.contains(wanted);
        found = actions.iter().filter(named).collect();
    }
    if found.is_empty() {
        return Err(CliError::NoEntry {
            wanted: wanted.to_owned(),
        });
    }
    let text = match json {
        true => {
            let entries: Vec<_> = found
                .iter()
                .map(|a| {
                    serde_json::json!({
                        "used_ms": a.used,
                        "signature": keyring.signature(&a.result).name(),
                        "accepted": keyring.accept(&a.result).is_ok(),
                        "result": a.result,
                    })
                })
                .collect();
            let value = serde_json::json!({"schema_version": 1, "entries": entries});
            format!("{}\n", serde_json::to_string_pretty(&value)?)
        }
        false => {
            let texts = found.iter().map(|a| statement(&a.result, keyring));
            texts.collect::<Vec<_>>().join("\n")
        }
    };
    answer(&text)?;
    Ok(ExitCode::Success)
}

/// Whether an entry's key starts with the digits of `wanted`, if these are enough to be meant as such.
fn by_key(wanted: &str) -> impl Fn(&ActionResult) -> bool {
    let digits = wanted.strip_prefix("blake3:").unwrap_or(wanted);
    let is_key = digits.len() >= SHORTEST && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let digits = digits.to_ascii_lowercase();
    move |result| is_key && result.key.0.hex().starts_with(&digits)
}

/// For each of `wanted`, whether it means an entry: by its key or by a part of the step's name.
pub(super) fn called(wanted: &[String]) -> Vec<impl Fn(&ActionResult) -> bool> {
    let each = wanted.iter().map(|wanted| {
        let by_key = by_key(wanted);
        move |result: &ActionResult| by_key(result) || result.step.name.contains(wanted.as_str())
    });
    each.collect()
}

/// The statement for people.
fn statement(result: &ActionResult, keyring: &Keyring) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        // Writing to a string has no way to fail.
        let _ = writeln!(text, "{name:<11} {value}");
    };
    line("step", &result.step.name);
    line(
        "target",
        &format!("{} ({})", result.step.target, result.step.platform),
    );
    line("key", &format!("{} ({})", result.key, result.kind.name()));
    line("scope", result.scope.as_str());
    line("runs on", &result.parent.0.to_string());
    match &result.layer {
        Some(layer) => {
            line(
                "layer",
                &format!("{} ({})", layer.digest, bytes(layer.size)),
            );
            line("diff id", &layer.diff_id.0.to_string());
            if let Some(index) = &layer.index {
                line("index", &index.to_string());
            }
        }
        None => line("layer", "none: it changed nothing"),
    }
    let producer = &result.producer;
    line("made by", &producer.tool);
    let protected = match producer.protected {
        true => " (protected)",
        false => "",
    };
    let known = [
        ("repository", &producer.repository, ""),
        ("ref", &producer.git_ref, protected),
        ("event", &producer.event, ""),
        ("run", &producer.run, ""),
    ];
    for (name, value, more) in known {
        if let Some(value) = value {
            line(name, &format!("{value}{more}"));
        }
    }
    line("created", &time(result.created));
    line("took", &format!("{} ms", result.duration_ms));
    let state = keyring.signature(result).name();
    match &result.signature {
        Some(signature) => line("signature", &format!("{state}: {}", signature.key_id)),
        None => line("signature", state),
    }
    if let Err(refused) = keyring.accept(result) {
        line("refused", &refused.to_string());
    }
    for part in &result.recipe {
        let value = match &part.value {
            RecipeValue::Text(text) => text.replace('\n', "\\n"),
            RecipeValue::Digest(digest) => digest.to_string(),
        };
        line("recipe", &format!("{} = {value}", part.name));
    }
    text
}

/// Seconds since 1970 as people write times.
pub(in crate::cli) fn time(seconds: u64) -> String {
    use time::{OffsetDateTime, format_description::well_known::Rfc3339};
    let time = i64::try_from(seconds).ok();
    let time = time.and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    time.and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_else(|| seconds.to_string())
}
