//! `--call check`: all Dockerfiles are lowered for their warnings, and nothing is run.

use std::{collections::HashMap, error::Error, fmt::Write as _, io::Write as _, sync::Arc};

use serde_json::{Map, Value, json};

use super::{Format, annotations, json as fields};
use crate::{
    cli::{
        CliError, Context, ExitCode, images,
        prepare::{self, Asked, Recipe},
    },
    config::{Config, TargetName},
    context::ContextError,
    dockerfile::{
        DockerfileError, Source, Span,
        ignore::Ignore,
        lint::{Rule, check_unparsed, rule},
    },
    engine::BuildError,
    graph::{
        BuildGraph, ImageTable,
        lower::{Check, LowerError, LowerInput, LowerWarning, Parent},
    },
    registry::Registry,
    ui,
};

/// What the checks of all Dockerfiles found.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) sources: Vec<Arc<Source>>,
    /// By file and line.
    pub(super) violations: Vec<Violation>,
    pub(super) failures: Vec<Failure>,
}

/// A violation.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Violation {
    pub(super) rule: &'static Rule,
    pub(super) message: String,
    pub(super) hint: Option<String>,
    /// Position in `Report::sources`.
    pub(super) source: usize,
    /// Lines, from 1, inclusive.
    pub(super) start: usize,
    pub(super) end: usize,
}

/// What keeps a Dockerfile from being checked to its end.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: CliError,
    /// Position in `Report::sources`.
    pub(super) source: usize,
    pub(super) place: Option<Span>,
}

/// Checks everything that was asked for, or what is of `only` this target of a bake file.
pub(super) async fn check(
    asked: Asked,
    configuration: Option<&Config>,
    registry: &Registry,
    only: Option<&str>,
) -> Report {
    let Asked {
        mut graph, recipes, ..
    } = asked;
    let references = prepare::parent_references(&recipes, configuration);
    let mut results: HashMap<TargetName, Parent> = HashMap::new();
    let mut known = ImageTable::new();
    let mut report = Report::default();
    for recipe in &recipes {
        let input = prepare::input(recipe, &references, &results);
        let is_meant = only.is_none_or(|name| name == recipe.prefix);
        let report = match is_meant {
            true => &mut report,
            false => &mut Report::default(),
        };
        let source = report.source(&recipe.dockerfile.source);
        let ready = match &recipe.parent {
            Some((_, parent)) => results.contains_key(parent),
            None => true,
        };
        match check_one(&mut graph, &input, recipe, ready, registry, &mut known).await {
            Ok((warnings, Some(parent))) => {
                report.add(source, warnings);
                if let Some(own) = &recipe.own {
                    results.insert(own.clone(), parent);
                }
            }
            Ok((warnings, None)) => report.add(source, warnings),
            Err(failed) => {
                let (warnings, failure, place) = *failed;
                report.add(source, warnings);
                report.fail(source, failure, place);
            }
        }
    }
    report.sorted()
}

/// Warnings with what went wrong, and where if the error itself doesn't know.
type Failed = Box<(Vec<LowerWarning>, CliError, Option<Span>)>;

/// The warnings of one Dockerfile, and what others can start from. A file whose parent could not
/// be checked (`ready`) is checked as a file only.
async fn check_one(
    graph: &mut BuildGraph,
    input: &LowerInput<'_>,
    recipe: &Recipe,
    ready: bool,
    registry: &Registry,
    known: &mut ImageTable,
) -> Result<(Vec<LowerWarning>, Option<Parent>), Failed> {
    let check = Check::new(input).map_err(|e| Box::new((Vec::new(), e.into(), None)))?;
    if !ready {
        return Ok((check.warnings(), None));
    }
    let result = lower(&check, graph, recipe, registry, known).await;
    match result {
        Ok(parent) => Ok((check.warnings(), Some(parent))),
        Err((error, image)) => {
            let place = image.and_then(|reference| check.place_of(&reference, known));
            Err(Box::new((check.warnings(), error, place)))
        }
    }
}

/// Resolves what is needed and lowers. An error about an image comes with its reference.
async fn lower(
    check: &Check<'_>,
    graph: &mut BuildGraph,
    recipe: &Recipe,
    registry: &Registry,
    known: &mut ImageTable,
) -> Result<Parent, (CliError, Option<String>)> {
    let plain = |error: CliError| (error, None);
    check_ignore_file(graph, recipe).map_err(plain)?;
    // Triggers of an image may name further ones.
    loop {
        let wanted = check.images(known).map_err(|e| plain(e.into()))?;
        if wanted.is_empty() {
            break;
        }
        for key in wanted {
            let image = images::resolve_one(registry, &key.0, &key.1).await;
            let image = image.map_err(|error| (error, Some(key.0.clone())))?;
            known.insert(key, image);
        }
    }
    let lowered = check.run(graph, known).map_err(|e| plain(e.into()))?;
    Ok(Parent {
        target: graph.targets[lowered.target].clone(),
        clock: lowered.clock,
    })
}

/// The ignore file must be readable, though nothing is copied.
fn check_ignore_file(graph: &BuildGraph, recipe: &Recipe) -> Result<(), CliError> {
    let Some(context) = graph.contexts.get(recipe.context) else {
        return Ok(());
    };
    Ignore::parse(&context.ignore).map_err(|source| {
        let context = context.name.clone();
        BuildError::Context(ContextError::Ignore { context, source })
    })?;
    Ok(())
}

impl Report {
    /// For a Dockerfile that can't be parsed; other errors come back. `settings` is what the
    /// build argument for them says.
    pub(super) fn of_unparsed(error: CliError, settings: Option<&str>) -> Result<Self, CliError> {
        let CliError::Dockerfile(inner) = &error else {
            return Err(error);
        };
        let mut report = Self::default();
        let source = report.source(inner.source());
        for found in check_unparsed(inner, settings) {
            if let Some(rule) = rule(found.rule) {
                report.enter(rule, &found.message, found.hint, source, found.span);
            }
        }
        report.fail(source, error, None);
        Ok(report.sorted())
    }

    /// The position of a source, which is entered once.
    fn source(&mut self, source: &Arc<Source>) -> usize {
        let known = self.sources.iter().position(|s| s == source);
        known.unwrap_or_else(|| {
            self.sources.push(source.clone());
            self.sources.len() - 1
        })
    }

    fn add(&mut self, source: usize, warnings: Vec<LowerWarning>) {
        for warning in warnings {
            let (Some(rule), Some(location)) = (rule(warning.rule), warning.location) else {
                continue;
            };
            let span = Span {
                start: location.start,
                end: location.end,
                column: 1,
            };
            self.enter(rule, &warning.message, warning.hint, source, span);
        }
    }

    fn enter(
        &mut self,
        rule: &'static Rule,
        message: &str,
        hint: Option<String>,
        source: usize,
        span: Span,
    ) {
        let violation = Violation {
            rule,
            // Words of the file stand in it.
            message: ui::harmless(message),
            hint,
            source,
            start: span.start,
            end: span.end,
        };
        // One file may be built for several platforms.
        if !self.violations.contains(&violation) {
            self.violations.push(violation);
        }
    }

    fn sorted(mut self) -> Self {
        let place = |violation: &Violation| (violation.source, violation.start);
        self.violations.sort_by_key(place);
        self
    }

    fn fail(&mut self, source: usize, error: CliError, place: Option<Span>) {
        let place = place.or(match &error {
            CliError::Dockerfile(error) => Some(error.span),
            CliError::Lower(LowerError::Dockerfile(error)) => {
                let error: &DockerfileError = error;
                Some(error.span)
            }
            _ => None,
        });
        self.failures.push(Failure {
            error,
            source,
            place,
        });
    }

    /// Takes over what another report says.
    pub(super) fn extend(&mut self, other: Self) {
        let numbers: Vec<usize> = other.sources.iter().map(|s| self.source(s)).collect();
        for violation in other.violations {
            let violation = Violation {
                source: numbers[violation.source],
                ..violation
            };
            if !self.violations.contains(&violation) {
                self.violations.push(violation);
            }
        }
        for failure in other.failures {
            let source = numbers[failure.source];
            let message = failure.message();
            let same = |known: &Failure| known.source == source && known.message() == message;
            if !self.failures.iter().any(same) {
                self.failures.push(Failure { source, ..failure });
            }
        }
    }

    /// The report in the form asked for.
    pub(super) fn answer(&self, format: Format) -> Result<String, CliError> {
        Ok(match format {
            Format::Text => self.text(),
            Format::Json => serde_json::to_string_pretty(&self.json())? + "\n",
            Format::GitHub => annotations::github(self),
            Format::GitLab => annotations::gitlab(self)?,
        })
    }

    /// How the program ends: with the first failure, or with a code of its own if there are
    /// violations.
    pub(super) fn outcome(
        mut self,
        context: &Context,
        ignore_status: bool,
    ) -> Result<ExitCode, CliError> {
        if self.failures.is_empty() {
            return Ok(match self.violations.is_empty() || ignore_status {
                true => ExitCode::Success,
                false => ExitCode::ViolationsFound,
            });
        }
        let first = self.failures.remove(0);
        for failure in self.failures {
            let report = failure.error.report(0, context.color);
            // Nobody to tell if stderr is gone.
            let _ = std::io::stderr().write_all(report.as_bytes());
        }
        Err(first.error)
    }

    /// Excerpts for people.
    fn text(&self) -> String {
        let mut out = String::new();
        for violation in &self.violations {
            let source = &self.sources[violation.source];
            let span = Span {
                start: violation.start,
                end: violation.end,
                column: 1,
            };
            let (name, message) = (violation.rule.name, &violation.message);
            let _ = writeln!(out, "warning: {name}: {message}");
            let _ = writeln!(out, "  --> {}:{}", source.name, violation.start);
            out.push_str(&source.excerpt(span));
            if let Some(hint) = &violation.hint {
                let _ = writeln!(out, "hint: {hint}");
            }
            out.push('\n');
        }
        match self.violations.len() {
            0 if !self.failures.is_empty() => {}
            0 => out.push_str("no violations\n"),
            count => {
                let s = if count == 1 { "" } else { "s" };
                let url = self.violations[0].rule.url();
                let page = url.split('#').next().unwrap_or_default();
                let _ = writeln!(out, "{count} violation{s}; {page} explains the rules");
            }
        }
        out
    }

    /// What BuildKit's subrequest `frontend.lint` answers.
    pub(super) fn json(&self) -> Value {
        let warnings: Vec<Value> = self
            .violations
            .iter()
            .map(|v| {
                json!({
                    "ruleName": v.rule.name,
                    "description": v.rule.description,
                    "url": v.rule.url(),
                    "detail": v.message,
                    "location": fields::location(v.source, v.start, v.end),
                })
            })
            .collect();
        let sources: Vec<Value> = self
            .sources
            .iter()
            .map(|source| {
                json!({
                    "filename": source.name,
                    "data": fields::data(source),
                    "language": "Dockerfile",
                })
            })
            .collect();
        let mut report = Map::new();
        report.insert("warnings".to_owned(), Value::Array(warnings));
        report.insert("sources".to_owned(), Value::Array(sources));
        if let Some(failure) = self.failures.first() {
            let location = match failure.place {
                Some(span) => fields::location(failure.source, span.start, span.end),
                None => json!({}),
            };
            let error = json!({ "message": failure.message(), "location": location });
            report.insert("buildError".to_owned(), error);
        }
        Value::Object(report)
    }
}

impl Failure {
    /// The error and its causes on one line, without the place.
    pub(super) fn message(&self) -> String {
        let dockerfile = match &self.error {
            CliError::Dockerfile(error) => Some(error),
            CliError::Lower(LowerError::Dockerfile(error)) => Some(&**error),
            _ => None,
        };
        if let Some(error) = dockerfile {
            return error.problem.to_string();
        }
        let mut next: Option<&dyn Error> = Some(self.error.shown());
        let mut messages: Vec<String> = Vec::new();
        while let Some(error) = next {
            let message = error.to_string();
            if messages.last() != Some(&message) {
                messages.push(message);
            }
            next = error.source();
        }
        messages.join(": ")
    }
}
