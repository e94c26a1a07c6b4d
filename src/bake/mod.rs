//! Bake files and compose files as sources of targets.
//!
//! [`read`] takes the texts of `docker-bake.hcl`, `docker-bake.json` and compose files, merges
//! them, evaluates what they say, and gives a [`Plan`]: the groups and targets that were asked
//! for, as `docker buildx bake --print` has them. It reads nothing but what its [`Inputs`] hand
//! it, so a plan depends on them alone.
//!
//! Syntax and evaluation of HCL: <https://github.com/hashicorp/hcl>; what the blocks mean:
//! <https://docs.docker.com/build/bake/reference/>; compose files:
//! <https://github.com/compose-spec/compose-spec>. What is supported is listed in
//! `docs/reference/bake.md`.

mod compose;
mod convert;
mod csv;
mod decode;
mod entries;
mod error;
mod eval;
mod function;
mod functions;
mod json;
mod module;
mod overrides;
mod resolve;
mod syntax;
mod target;
mod template;
mod type_constraint;
mod value;
mod variables;

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, time::SystemTime};

use serde::Serialize;

pub use entries::{AttestEntry, Attrs, CacheEntry, OutputEntry, SecretEntry, SshEntry};
pub use error::{BakeError, Problem};
pub use target::{Group, Target, Texts};

use error::{Fault, Place};
use functions::Outside;
use module::{Module, Surroundings};
use resolve::Definitions;

/// Names of files that are read where only a directory is given, in order: those that are
/// there are merged.
pub const DEFAULT_FILES: [&str; 8] = [
    "compose.yaml",
    "compose.yml",
    "docker-compose.yml",
    "docker-compose.yaml",
    "docker-bake.json",
    "docker-bake.hcl",
    "docker-bake.override.json",
    "docker-bake.override.hcl",
];

/// A file that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// As the user named it.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// What a plan is made from.
pub struct Inputs<'a> {
    /// The files; later ones win.
    pub files: Vec<File>,
    /// What to build; all that group or target `default` names if empty.
    pub targets: Vec<String>,
    /// `TARGET.KEY=VALUE` each.
    pub overrides: Vec<String>,
    /// An environment variable.
    pub env: &'a (dyn Fn(&str) -> Option<String> + Sync),
    /// The text of another file that a compose file names: `.env`, `env_file`, `extends`;
    /// none if it isn't there.
    pub read: &'a (dyn Fn(&str) -> Result<Option<String>, String> + Sync),
    /// What `BAKE_LOCAL_PLATFORM` is.
    pub local_platform: String,
    /// What `timestamp()` gives.
    pub now: SystemTime,
    /// What `homedir()` gives.
    pub home: String,
}

/// What is built.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The groups that were asked for; `default` holds what was named.
    #[serde(rename = "group", skip_serializing_if = "BTreeMap::is_empty")]
    pub groups: BTreeMap<String, Group>,
    /// The targets, and those that they use as contexts.
    #[serde(rename = "target")]
    pub targets: BTreeMap<String, Target>,
    /// What is odd.
    #[serde(skip)]
    pub warnings: Vec<Warning>,
}

/// Something odd in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// What.
    pub message: String,
    /// `file:line:column`.
    pub place: Option<String>,
    /// What may help.
    pub hint: Option<String>,
}

impl Plan {
    /// The plan as `docker buildx bake --print` writes it.
    pub fn to_json(&self) -> String {
        let text = serde_json::to_string_pretty(self).unwrap_or_default();
        // As Go does, so that the text can stand in HTML.
        text.replace('<', "\\u003c")
            .replace('>', "\\u003e")
            .replace('&', "\\u0026")
            .replace('\u{2028}', "\\u2028")
            .replace('\u{2029}', "\\u2029")
    }
}

/// Makes the plan.
pub fn read(mut inputs: Inputs<'_>) -> Result<Plan, BakeError> {
    for file in &mut inputs.files {
        if file.text.starts_with('\u{feff}') {
            file.text.drain(..3);
        }
    }
    // Expressions are evaluated by functions that call each other: how deep is limited, and
    // there is room for as much.
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("bake".to_owned())
            .stack_size(eval::STACK);
        let plan = thread.spawn_scoped(scope, || {
            plan(&inputs).map_err(|fault| fault.in_files(&inputs.files))
        });
        let failed = |message: String| {
            BakeError::without_place(
                Problem::Read {
                    path: "bake files".to_owned(),
                    message,
                },
                None,
            )
        };
        match plan.map(std::thread::ScopedJoinHandle::join) {
            Ok(Ok(plan)) => plan,
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            Err(error) => Err(failed(error.to_string())),
        }
    })
}

/// What a file is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Syntax {
    Hcl,
    Json,
    Compose,
}

fn plan(inputs: &Inputs<'_>) -> Result<Plan, Fault> {
    let mut bodies = Vec::new();
    let mut composed = Vec::new();
    for (number, file) in inputs.files.iter().enumerate() {
        match syntax_of(file, inputs) {
            Syntax::Hcl => bodies.push(syntax::hcl(&file.text, number)?),
            Syntax::Json => bodies.push(syntax::json(&file.text, number)?),
            Syntax::Compose => composed.push(number),
        }
    }
    let mut warnings = Vec::new();
    let mut definitions = Definitions::default();
    if !composed.is_empty() {
        let found = compose::read(inputs, &composed)?;
        definitions.groups = vec![("default".to_owned(), found.group)];
        definitions.targets = found.targets;
        definitions.places = found.places;
        warnings.extend(found.warnings);
    }
    if !bodies.is_empty() {
        let around = Surroundings {
            env: &|name| (inputs.env)(name),
            builtins: BTreeMap::from([
                ("BAKE_CMD_CONTEXT".to_owned(), "cwd://".to_owned()),
                (
                    "BAKE_LOCAL_PLATFORM".to_owned(),
                    inputs.local_platform.clone(),
                ),
            ]),
            outside: Outside {
                now: inputs.now,
                home: inputs.home.clone(),
            },
        };
        let blocks = Module::new(bodies, around)?.evaluate()?;
        warnings.extend(
            blocks
                .unknown
                .into_iter()
                .map(|(place, name, near)| Warning {
                    message: format!("a target has no `{name}`; it is ignored"),
                    place: place_of(&place, inputs),
                    hint: near.map(|near| format!("did you mean `{near}`?")),
                }),
        );
        add(&mut definitions, blocks.groups, blocks.targets);
        definitions.places.extend(blocks.places);
    }
    let default = ["default".to_owned()];
    let wanted = match inputs.targets.as_slice() {
        [] => &default,
        wanted => wanted,
    };
    let env = |name: &str| (inputs.env)(name);
    let resolved = resolve::resolve(&definitions, wanted, &inputs.overrides, &env)?;
    Ok(Plan {
        groups: resolved.groups,
        targets: resolved.targets,
        warnings,
    })
}

/// What HCL files add to what compose files define.
fn add(
    definitions: &mut Definitions,
    groups: Vec<(String, Group)>,
    targets: Vec<(String, Target)>,
) {
    for (name, group) in groups {
        match definitions
            .groups
            .iter_mut()
            .find(|(known, _)| *known == name)
        {
            Some((_, known)) => *known = group,
            None => definitions.groups.push((name, group)),
        }
    }
    let mut at: BTreeMap<String, usize> = BTreeMap::new();
    for (number, (name, _)) in definitions.targets.iter().enumerate() {
        at.insert(name.clone(), number);
    }
    for (name, target) in targets {
        match at.get(&name) {
            Some(number) => definitions.targets[*number].1.merge(&target),
            None => definitions.targets.push((name, target)),
        }
    }
}

/// By the name's ending, else by trying.
fn syntax_of(file: &File, inputs: &Inputs<'_>) -> Syntax {
    let name = file.name.to_lowercase();
    let ends = |ending| name.ends_with(ending);
    if ends(".yml") || ends(".yaml") {
        return Syntax::Compose;
    }
    if ends(".json") {
        return Syntax::Json;
    }
    if ends(".hcl") {
        return Syntax::Hcl;
    }
    if compose::is_compose(&file.text, inputs) {
        return Syntax::Compose;
    }
    match syntax::hcl(&file.text, 0).is_err() && syntax::json(&file.text, 0).is_ok() {
        true => Syntax::Json,
        false => Syntax::Hcl,
    }
}

fn place_of(place: &Place, inputs: &Inputs<'_>) -> Option<String> {
    let fault = Fault::from(Problem::Matrix).at(place);
    fault.in_files(&inputs.files).place()
}
