//! Calls of the targets of a bake file: `call = "check"`, or `--call` for all of them.
//!
//! As in `docker buildx bake`, each target has an answer of its own: as text below its name, as
//! JSON with its definition. Annotations are those of all targets together.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{
    Call, Format, Method,
    check::{self, Report},
    outline, targets,
};
use crate::{
    bake::Plan,
    cli::{
        CliError, Context, ExitCode, answer,
        build::{self, BuildArgs},
        prepare,
    },
    config::Config,
    dockerfile::lint::SETTINGS_ARGUMENT,
    event::Events,
    registry::Registry,
};

/// The targets that are called instead of built.
pub(in crate::cli) struct TargetCalls {
    methods: BTreeMap<String, Method>,
    format: Format,
    ignore_status: bool,
}

/// What a target answers.
struct Answer {
    text: String,
    json: Value,
}

impl TargetCalls {
    /// What the targets of `plan` ask for, which `call` is already part of. The form of the
    /// answers is that of `call`.
    pub(in crate::cli) fn of(plan: &Plan, call: Option<Call>) -> Result<Self, CliError> {
        let mut methods = BTreeMap::new();
        for (name, target) in &plan.targets {
            let text = target.call.as_deref().unwrap_or_default();
            let place = format!("call = \"{text}\"` of target `{name}");
            if let Some(called) = Call::parse(text, &place)? {
                methods.insert(name.clone(), called.method);
            }
        }
        Ok(Self {
            methods,
            format: call.map_or(Format::Text, |call| call.format),
            ignore_status: call.is_some_and(|call| call.ignore_status),
        })
    }

    /// Whether this target is called.
    pub(in crate::cli) fn has(&self, target: &str) -> bool {
        self.methods.contains_key(target)
    }

    /// Whether all targets are built.
    pub(in crate::cli) fn is_empty(&self) -> bool {
        self.methods.is_empty()
    }

    /// Answers all calls.
    pub(in crate::cli) async fn run(
        &self,
        context: &Context,
        args: &BuildArgs,
        configuration: Option<&Config>,
        plan: &Plan,
    ) -> Result<ExitCode, CliError> {
        let settings = configuration.map(|c| c.cache.clone()).unwrap_or_default();
        let registry = build::registry(context, &settings)?;
        let mut all = Report::default();
        let mut answers = BTreeMap::new();
        for (name, method) in &self.methods {
            let mut part = prepare::bake::part(plan, &[name]);
            // Nothing is written.
            part.targets
                .values_mut()
                .for_each(|target| target.linked = true);
            let answer = match method {
                Method::Check => {
                    let report = check_target(context, args, configuration, &part, name, &registry);
                    let report = report.await?;
                    let answer = Answer {
                        text: report.answer(Format::Text)?,
                        json: report.json(),
                    };
                    all.extend(report);
                    answer
                }
                _ => {
                    let events = Events::silent();
                    let asked = prepare::read(context, args, configuration, Some(&part), &events);
                    describe(*method, asked.await?, configuration)?
                }
            };
            answers.insert(name.as_str(), answer);
        }
        match self.format {
            Format::Text => answer(&text(plan, &answers))?,
            Format::Json => answer(&self.json(plan, answers)?)?,
            Format::GitHub | Format::GitLab => answer(&all.answer(self.format)?)?,
        }
        all.outcome(context, self.ignore_status)
    }

    /// What `docker buildx bake --call METHOD,format=json` writes.
    fn json(&self, plan: &Plan, mut answers: BTreeMap<&str, Answer>) -> Result<String, CliError> {
        let mut targets = Map::new();
        for (name, target) in &plan.targets {
            let mut object = Map::new();
            object.insert("build".to_owned(), serde_json::to_value(target)?);
            if let (Some(method), Some(answer)) =
                (self.methods.get(name), answers.remove(name.as_str()))
            {
                let method = match method {
                    Method::Check => "check",
                    Method::Outline => "outline",
                    Method::Targets => "targets",
                };
                object.insert(method.to_owned(), answer.json);
            }
            targets.insert(name.clone(), Value::Object(object));
        }
        let mut out = Map::new();
        if !plan.groups.is_empty() {
            out.insert("group".to_owned(), serde_json::to_value(&plan.groups)?);
        }
        out.insert("target".to_owned(), json!(targets));
        Ok(serde_json::to_string_pretty(&out)? + "\n")
    }
}

/// Each answer below the name of its target.
fn text(plan: &Plan, answers: &BTreeMap<&str, Answer>) -> String {
    let mut parts = Vec::new();
    for (name, answer) in answers {
        let description = match plan.targets[*name].description.as_str() {
            "" => String::new(),
            description => format!("{description}\n"),
        };
        parts.push(format!("{name}\n{description}\n{}", answer.text));
    }
    parts.join("\n")
}

/// The report about one target. A Dockerfile that can't be parsed is a failure in it.
async fn check_target(
    context: &Context,
    args: &BuildArgs,
    configuration: Option<&Config>,
    part: &Plan,
    name: &str,
    registry: &Registry,
) -> Result<Report, CliError> {
    let events = Events::silent();
    match prepare::read(context, args, configuration, Some(part), &events).await {
        Ok(asked) => Ok(check::check(asked, configuration, registry, Some(name)).await),
        Err(error) => {
            let settings = part.targets[name].args.get(SETTINGS_ARGUMENT);
            Report::of_unparsed(error, settings.map(String::as_str))
        }
    }
}

/// The answer about the last recipe, which those before it are for.
fn describe(
    method: Method,
    asked: prepare::Asked,
    configuration: Option<&Config>,
) -> Result<Answer, CliError> {
    let (text, mut json) = match method {
        Method::Targets => {
            let recipe = last(&asked.recipes);
            (targets::text(recipe), targets::json(recipe))
        }
        _ => {
            let outlines = outline::outlines(asked, configuration)?;
            let outline = last(&outlines);
            (outline::text(outline), outline::json(outline))
        }
    };
    Ok(Answer {
        text,
        json: json.pop().map(|(_, json)| json).unwrap_or_default(),
    })
}

fn last<T>(list: &[T]) -> &[T] {
    &list[list.len().saturating_sub(1)..]
}
