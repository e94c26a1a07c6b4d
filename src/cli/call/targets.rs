//! `--call targets`: the stages of a Dockerfile. Nothing is expanded or resolved.

use serde_json::{Map, Value, json};

use super::{json as fields, table};
use crate::{
    cli::prepare::Recipe,
    dockerfile::{Dockerfile, ast::Stage},
};

/// The Dockerfiles, each once.
fn files(recipes: &[Recipe]) -> Vec<&Dockerfile> {
    let mut files: Vec<&Dockerfile> = Vec::new();
    for recipe in recipes {
        let name = &recipe.dockerfile.source.name;
        if !files.iter().any(|f| f.source.name == *name) {
            files.push(&recipe.dockerfile);
        }
    }
    files
}

fn description(stage: &Stage) -> &str {
    let described = stage.name.as_deref().map(|n| stage.written.description(n));
    described.flatten().unwrap_or_default()
}

/// A table for each Dockerfile.
pub(super) fn text(recipes: &[Recipe]) -> String {
    let files = files(recipes);
    let mut out = String::new();
    for file in &files {
        if files.len() > 1 {
            let space = if out.is_empty() { "" } else { "\n" };
            out.push_str(&format!("{space}{}:\n", file.source.name));
        }
        let mut rows = vec![vec!["TARGET".to_owned(), "DESCRIPTION".to_owned()]];
        for (number, stage) in file.stages.iter().enumerate() {
            let is_default = number + 1 == file.stages.len();
            let name = match (&stage.name, is_default) {
                (None, true) => "(default)".to_owned(),
                (None, false) => String::new(),
                (Some(name), true) => format!("{name} (default)"),
                (Some(name), false) => name.clone(),
            };
            rows.push(vec![name, description(stage).to_owned()]);
        }
        out.push_str(&table(2, &rows));
    }
    out
}

/// What BuildKit's subrequest `frontend.targets` answers, by Dockerfile.
pub(super) fn json(recipes: &[Recipe]) -> Vec<(String, Value)> {
    let one = |file: &Dockerfile| {
        let last = file.stages.len() - 1;
        let stages = file.stages.iter().enumerate();
        let targets: Vec<Value> = stages.map(|(n, s)| target(s, n == last)).collect();
        json!({ "targets": targets, "sources": [fields::data(&file.source)] })
    };
    files(recipes)
        .into_iter()
        .map(|file| (file.source.name.clone(), one(file)))
        .collect()
}

fn target(stage: &Stage, is_default: bool) -> Value {
    let mut target = Map::new();
    fields::set(&mut target, "name", stage.name.clone());
    fields::set(&mut target, "default", is_default);
    fields::set(&mut target, "description", description(stage));
    fields::set(&mut target, "base", stage.base.clone());
    fields::set(&mut target, "platform", stage.platform.clone());
    let location = fields::location(0, stage.span.start, stage.span.end);
    fields::set(&mut target, "location", location);
    Value::Object(target)
}
