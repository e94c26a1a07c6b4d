//! `--call outline`: what a target takes from outside.
//!
//! Registries aren't asked: an image that is not at hand counts as empty. Its variables and its
//! ONBUILD triggers then don't show in values and lists.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::{json as fields, table};
use crate::{
    cli::{
        CliError, images,
        prepare::{self, Asked},
    },
    config::Config,
    dockerfile::{Source, Span},
    graph::{
        ImageTable,
        lower::{Needed, Outline, Parent, lower, needed_images},
    },
};

/// The outline of one target.
pub(super) struct TargetOutline {
    name: String,
    source: std::sync::Arc<Source>,
    outline: Outline,
}

/// The outlines of all targets.
pub(super) fn outlines(
    asked: Asked,
    configuration: Option<&Config>,
) -> Result<Vec<TargetOutline>, CliError> {
    let Asked {
        mut graph, recipes, ..
    } = asked;
    let references = prepare::parent_references(&recipes, configuration);
    let mut results = HashMap::new();
    let mut outlines = Vec::new();
    for recipe in &recipes {
        let input = prepare::input(recipe, &references, &results);
        let mut images = ImageTable::new();
        loop {
            let wanted = needed_images(&input, &images)?;
            if wanted.is_empty() {
                break;
            }
            for (reference, platform) in wanted {
                let image = images::stand_in(&reference, &platform)?;
                images.insert((reference, platform), image);
            }
        }
        let lowered = lower(&mut graph, &input, &images)?;
        outlines.push(TargetOutline {
            name: recipe.name.clone(),
            source: recipe.dockerfile.source.clone(),
            outline: lowered.outline,
        });
        if let Some(own) = &recipe.own {
            let parent = Parent {
                target: graph.targets[lowered.target].clone(),
                clock: lowered.clock,
            };
            results.insert(own.clone(), parent);
        }
    }
    Ok(outlines)
}

/// Tables for people.
pub(super) fn text(outlines: &[TargetOutline]) -> String {
    let mut out = String::new();
    for target in outlines {
        if outlines.len() > 1 {
            out.push_str(&format!("{}:\n\n", target.name));
        }
        out.push_str(&one_text(&target.outline));
    }
    out
}

fn one_text(outline: &Outline) -> String {
    let mut parts = Vec::new();
    let row = |cells: &[&str]| cells.iter().map(|c| (*c).to_owned()).collect::<Vec<_>>();
    if outline.name.is_some() {
        let name = outline.name.as_deref().unwrap_or_default();
        let mut rows = vec![row(&["TARGET:", name])];
        if let Some(text) = &outline.description {
            rows.push(row(&["DESCRIPTION:", text]));
        }
        parts.push(table(1, &rows));
    }
    if !outline.args.is_empty() {
        let mut rows = vec![row(&["BUILD ARG", "VALUE", "DESCRIPTION"])];
        for arg in &outline.args {
            let value = arg.value.as_deref().unwrap_or_default();
            let description = arg.description.as_deref().unwrap_or_default();
            rows.push(row(&[&arg.name, value, description]));
        }
        parts.push(table(3, &rows));
    }
    for (head, list) in [("SECRET", &outline.secrets), ("SSH", &outline.ssh)] {
        if list.is_empty() {
            continue;
        }
        let mut rows = vec![row(&[head, "REQUIRED"])];
        for needed in list {
            rows.push(row(&[
                &needed.id,
                if needed.required { "true" } else { "" },
            ]));
        }
        parts.push(table(3, &rows));
    }
    parts.iter().map(|part| format!("{part}\n")).collect()
}

/// What BuildKit's subrequest `frontend.outline` answers, by target.
pub(super) fn json(outlines: &[TargetOutline]) -> Vec<(String, Value)> {
    outlines
        .iter()
        .map(|target| (target.name.clone(), one_json(target)))
        .collect()
}

fn one_json(target: &TargetOutline) -> Value {
    let outline = &target.outline;
    let mut object = Map::new();
    fields::set(&mut object, "name", outline.name.clone());
    fields::set(&mut object, "description", outline.description.clone());
    let args = outline.args.iter().map(|arg| {
        let mut object = named(&arg.name, arg.span);
        fields::set(&mut object, "description", arg.description.clone());
        fields::set(&mut object, "value", arg.value.clone());
        Value::Object(object)
    });
    fields::set(&mut object, "args", args.collect::<Vec<_>>());
    let needed = |needed: &Needed| {
        let mut object = named(&needed.id, needed.span);
        fields::set(&mut object, "required", needed.required);
        Value::Object(object)
    };
    let secrets: Vec<Value> = outline.secrets.iter().map(needed).collect();
    fields::set(&mut object, "secrets", secrets);
    let ssh: Vec<Value> = outline.ssh.iter().map(needed).collect();
    fields::set(&mut object, "ssh", ssh);
    let sources = json!([fields::data(&target.source)]);
    fields::set(&mut object, "sources", sources);
    Value::Object(object)
}

fn named(name: &str, span: Span) -> Map<String, Value> {
    let mut object = Map::new();
    object.insert("name".to_owned(), json!(name));
    let location = fields::location(0, span.start, span.end);
    object.insert("location".to_owned(), location);
    object
}
