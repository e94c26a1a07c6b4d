//! Which steps are meant: by target, stage, place, name or key.

use std::collections::BTreeSet;

use crate::{
    cache::ActionResult,
    cli::{CliError, build::Told},
    engine::explain::Outlook,
    graph::VertexId,
};

/// Fewest digits by which a key is recognised.
const SHORTEST: usize = 6;

/// Most names in a list of what there is.
const LISTED: usize = 12;

/// What is to be explained.
pub(super) struct Asked<'a> {
    /// In the graph's order.
    pub(super) steps: Vec<&'a Outlook>,
    /// Whether single steps were asked for, and everything is to be said of them.
    pub(super) closely: bool,
    /// An entry that was asked for and that no step has now.
    pub(super) entry: Option<&'a ActionResult>,
}

/// Finds what `what` means.
pub(super) fn asked<'a>(told: &'a Told, what: Option<&str>) -> Result<Asked<'a>, CliError> {
    let steps = &told.forecast.steps;
    let Some(what) = what else {
        return Ok(whole(steps.iter().collect()));
    };
    if let Some(asked) = by_target(told, what) {
        return Ok(asked);
    }
    if let Some(asked) = by_key(told, what)? {
        return Ok(asked);
    }
    let named = |outlook: &&Outlook| name(told, outlook.id);
    let found: Vec<&Outlook> = steps
        .iter()
        .filter(|outlook| is_place(name(told, outlook.id), outlook.id, what))
        .collect();
    let found: Vec<&Outlook> = match found.is_empty() {
        false => found,
        true => {
            let part = |outlook: &&Outlook| name(told, outlook.id).contains(what);
            steps.iter().filter(part).collect()
        }
    };
    let names: BTreeSet<&str> = found.iter().map(named).collect();
    match names.len() {
        0 => Err(CliError::NothingToExplain {
            wanted: what.to_owned(),
            known: known(told),
        }),
        1 => Ok(closely(found)),
        _ => Err(CliError::usage_hint(
            format!("`{what}` means several steps"),
            listed(names.into_iter()),
        )),
    }
}

fn whole(steps: Vec<&Outlook>) -> Asked<'_> {
    Asked {
        steps,
        closely: false,
        entry: None,
    }
}

fn closely(steps: Vec<&Outlook>) -> Asked<'_> {
    Asked {
        closely: true,
        ..whole(steps)
    }
}

fn name(told: &Told, id: VertexId) -> &str {
    &told.forecast.graph.vertex(id).name
}

/// The steps of the targets that are called so, else those of the stage.
fn by_target<'a>(told: &'a Told, what: &str) -> Option<Asked<'a>> {
    let graph = &told.forecast.graph;
    let called = |name: &str| {
        let short = name.split(" (").next().unwrap_or(name);
        name.eq_ignore_ascii_case(what) || short.eq_ignore_ascii_case(what)
    };
    let targets = graph.targets.iter().filter(|target| called(&target.name));
    let mut open: Vec<VertexId> = targets.map(|target| target.root).collect();
    let mut below = BTreeSet::new();
    while let Some(id) = open.pop() {
        if below.insert(id) {
            open.extend(graph.vertex(id).op.inputs());
        }
    }
    let steps = told.forecast.steps.iter();
    let of_target: Vec<&Outlook> = steps.clone().filter(|o| below.contains(&o.id)).collect();
    if !of_target.is_empty() {
        return Some(whole(of_target));
    }
    let stage = |o: &&Outlook| graph.vertex(o.id).stage.eq_ignore_ascii_case(what);
    let is_number = what.bytes().all(|byte| byte.is_ascii_digit());
    let of_stage: Vec<&Outlook> = steps.filter(stage).collect();
    // Numbers are those of steps.
    (!of_stage.is_empty() && !is_number).then(|| whole(of_stage))
}

/// The steps or the entry whose key starts so.
fn by_key<'a>(told: &'a Told, what: &str) -> Result<Option<Asked<'a>>, CliError> {
    let digits = what.strip_prefix("blake3:").unwrap_or(what);
    let is_key = digits.len() >= SHORTEST && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_key {
        return Ok(None);
    }
    let digits = digits.to_ascii_lowercase();
    let forecast = &told.forecast;
    let steps: Vec<&Outlook> = forecast
        .steps
        .iter()
        .filter(|outlook| outlook.key.0.hex().starts_with(&digits))
        .collect();
    let entries: Vec<&ActionResult> = forecast
        .history
        .entries()
        .iter()
        .filter(|entry| entry.key.0.hex().starts_with(&digits))
        .collect();
    let keys: BTreeSet<_> = steps.iter().map(|step| step.key).collect();
    let others: BTreeSet<_> = entries.iter().map(|entry| entry.key).collect();
    let all: Vec<String> = keys.union(&others).map(ToString::to_string).collect();
    if all.len() > 1 {
        return Err(CliError::usage_hint(
            format!("`{what}` means several keys"),
            listed(all.iter().map(String::as_str)),
        ));
    }
    if !steps.is_empty() {
        return Ok(Some(closely(steps)));
    }
    let Some(entry) = entries.first().copied() else {
        return Ok(None);
    };
    let step = forecast.step_like(entry);
    Ok(Some(Asked {
        steps: step.into_iter().collect(),
        closely: true,
        entry: Some(entry),
    }))
}

/// Whether a step called `name` is at the place `what`: `#7`, `2`, `2/5`, `ml 2/5`, `ml 2`.
fn is_place(name: &str, id: VertexId, what: &str) -> bool {
    if let Some(number) = what.strip_prefix('#') {
        return number.parse() == Ok(id.0);
    }
    let what = what.trim_start_matches('[').trim_end_matches(']');
    let Some((inside, _)) = name.strip_prefix('[').and_then(|name| name.split_once(']')) else {
        return false;
    };
    let (label, place) = inside.rsplit_once(' ').unwrap_or(("", inside));
    let number = place.split('/').next().unwrap_or_default();
    let label = label.trim();
    let means = |text: &str| text == number || text == place;
    match what.rsplit_once(' ') {
        Some((wanted, text)) => means(text) && wanted.trim() == label,
        None => means(what),
    }
}

/// What there is to be asked for.
fn known(told: &Told) -> Vec<String> {
    let graph = &told.forecast.graph;
    let targets = graph.targets.iter().map(|target| target.name.as_str());
    let steps = told.forecast.steps.iter().map(|step| name(told, step.id));
    let names = targets.chain(steps).take(LISTED);
    names.map(|name| format!("`{name}`")).collect()
}

fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut names: Vec<String> = names.map(|name| format!("`{name}`")).collect();
    let more = names.len().saturating_sub(LISTED);
    names.truncate(LISTED);
    match more {
        0 => format!("say which: {}", names.join(", ")),
        more => format!("say which: {} and {more} more", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_can_be_written_in_several_ways() {
        let name = "[ml builder  2/15] RUN make";
        for what in [
            "2",
            "2/15",
            "ml builder 2/15",
            "ml builder 2",
            "[ml builder 2/15]",
            "#7",
        ] {
            assert!(is_place(name, VertexId(7), what), "{what}");
        }
        for what in ["15", "2/5", "ml 2/15", "builder 2", "#8", "", "RUN"] {
            assert!(!is_place(name, VertexId(7), what), "{what}");
        }
        assert!(is_place("[2/5] RUN make", VertexId(1), "2"));
    }
}
