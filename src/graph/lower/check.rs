//! Build checks while lowering: which are made, and what they found.
//!
//! A check is lowering for its warnings: [`Check::images`] says what is to be resolved,
//! [`Check::run`] lowers, [`Check::warnings`] has what was found, also when lowering failed.
//! The rules and their table are in `dockerfile::lint`; those that fire here are called from
//! where the words are expanded.

use std::{cell::RefCell, collections::HashSet};

use crate::{
    dockerfile::{
        DockerfileError, Problem, Span,
        lint::{SETTINGS_ARGUMENT, Settings, Violation, check_file, rule},
    },
    graph::{BuildGraph, ImageTable},
    oci::Platform,
};

use super::{LowerError, LowerInput, LowerWarning, Lowered, plan::Plan, stage::Lowering};

/// The checks of one Dockerfile, and what they found.
#[derive(Debug)]
pub(super) struct Checks {
    settings: Settings,
    /// Whether all stages are checked and not only those that the target needs.
    all_stages: bool,
    found: RefCell<Found>,
}

#[derive(Debug, Default)]
struct Found {
    list: Vec<LowerWarning>,
    seen: HashSet<LowerWarning>,
    /// The settings of the instruction at hand, if its comments change them.
    here: Option<Settings>,
    /// Where FROM stands, while triggers of its base are done.
    from: Option<Span>,
}

impl Checks {
    /// Those that the Dockerfile and the build arguments ask for.
    pub(super) fn new(input: &LowerInput<'_>, all_stages: bool) -> Result<Self, LowerError> {
        let checks = Self {
            settings: settings(input)?,
            all_stages,
            found: RefCell::default(),
        };
        for odd in &input.dockerfile.warnings {
            if rule(odd.rule).is_none() {
                checks.note(warning(
                    input,
                    odd.rule,
                    odd.message.clone(),
                    odd.span,
                    None,
                ));
            }
        }
        for violation in check_file(input.dockerfile, &checks.settings) {
            let Violation {
                rule,
                message,
                span,
                hint,
            } = violation;
            checks.note(warning(input, rule, message, span, hint));
        }
        Ok(checks)
    }

    pub(super) fn all_stages(&self) -> bool {
        self.all_stages
    }

    /// Reports a violation, if its rule is on here. It is kept once.
    pub(super) fn report(
        &self,
        input: &LowerInput<'_>,
        name: &'static str,
        message: String,
        span: Span,
        hint: Option<String>,
    ) {
        let is_on = rule(name).is_none_or(|rule| {
            let found = self.found.borrow();
            found.here.as_ref().unwrap_or(&self.settings).has(rule)
        });
        if is_on {
            let from = self.found.borrow().from;
            let span = from.unwrap_or(span);
            self.note(warning(input, name, message, span, hint));
        }
    }

    /// Keeps a warning.
    pub(super) fn note(&self, warning: LowerWarning) {
        let mut found = self.found.borrow_mut();
        if found.seen.insert(warning.clone()) {
            found.list.push(warning);
        }
    }

    /// From here on the comments of this instruction count.
    pub(super) fn enter(&self, comments: &[String]) {
        let merged = self.settings.with_comments(comments);
        self.found.borrow_mut().here = match merged {
            std::borrow::Cow::Borrowed(_) => None,
            std::borrow::Cow::Owned(settings) => Some(settings),
        };
    }

    /// From here on triggers are done, for which the place is that of FROM.
    pub(super) fn enter_triggers(&self, from: Span) {
        let mut found = self.found.borrow_mut();
        found.here = None;
        found.from = Some(from);
    }

    /// The file's settings count again.
    pub(super) fn leave(&self) {
        let mut found = self.found.borrow_mut();
        found.here = None;
        found.from = None;
    }

    /// All that was found, by line.
    pub(super) fn into_warnings(self) -> Vec<LowerWarning> {
        let mut list = self.found.into_inner().list;
        list.sort_by_key(|w| w.location.as_ref().map(|l| l.start));
        list
    }

    /// Fails if there are violations, and the file says that they are errors.
    pub(super) fn verdict(&self, input: &LowerInput<'_>) -> Result<(), LowerError> {
        let found = self.found.borrow();
        let mut violations: Vec<(usize, &str)> = found
            .list
            .iter()
            .filter(|w| rule(w.rule).is_some())
            .filter_map(|w| Some((w.location.as_ref()?.start, w.rule)))
            .collect();
        if !self.settings.error || violations.is_empty() {
            return Ok(());
        }
        violations.sort_unstable();
        let list: Vec<String> = violations
            .iter()
            .map(|(line, rule)| format!("{rule} (line {line})"))
            .collect();
        Err(LowerError::Violations {
            file: input.dockerfile.source.name.clone(),
            list: list.join(", "),
        })
    }
}

/// The file's settings, or those of the build argument, which replace them.
fn settings(input: &LowerInput<'_>) -> Result<Settings, LowerError> {
    if let Some(text) = input.build_args.get(SETTINGS_ARGUMENT) {
        return Settings::parse(text).map_err(|source| LowerError::CheckArgument {
            text: text.clone(),
            source,
        });
    }
    let source = &input.dockerfile.source;
    let Some((line, text)) = Settings::directive(&source.text) else {
        return Ok(Settings::default());
    };
    Settings::parse(text).map_err(|cause| {
        let span = Span {
            start: line,
            end: line,
            column: 1,
        };
        DockerfileError::new(source, span, Problem::Check { cause }).into()
    })
}

fn warning(
    input: &LowerInput<'_>,
    rule: &'static str,
    message: String,
    span: Span,
    hint: Option<String>,
) -> LowerWarning {
    LowerWarning {
        rule,
        message,
        location: Some(crate::graph::Location {
            file: input.dockerfile.source.name.as_str().into(),
            start: span.start,
            end: span.end,
        }),
        hint,
    }
}

/// A Dockerfile that is lowered for what is found on the way.
#[derive(Debug)]
pub struct Check<'a> {
    input: &'a LowerInput<'a>,
    checks: Checks,
}

impl<'a> Check<'a> {
    /// Checks the file by itself. All stages are checked, unless a target is named: then those
    /// that it needs, and of the others only what needs no variables.
    pub fn new(input: &'a LowerInput<'a>) -> Result<Self, LowerError> {
        let all_stages = input.target_stage.is_none();
        let checks = Checks::new(input, all_stages)?;
        Ok(Self { input, checks })
    }

    /// The images that [`Check::run`] wants and `images` lacks, as [`super::needed_images`].
    pub fn images(&self, images: &ImageTable) -> Result<Vec<(String, Platform)>, LowerError> {
        Ok(Plan::new(self.input, images, &self.checks)?.needed_images())
    }

    /// The FROM of the first stage that wants this image.
    pub fn place_of(&self, reference: &str, images: &ImageTable) -> Option<Span> {
        let plan = Plan::new(self.input, images, &self.checks).ok()?;
        plan.place_of(reference)
    }

    /// Lowers to `graph`, which is of use only for the next Dockerfile's parents. A file that says
    /// so fails for its violations.
    pub fn run(&self, graph: &mut BuildGraph, images: &ImageTable) -> Result<Lowered, LowerError> {
        let plan = Plan::new(self.input, images, &self.checks)?;
        let lowered = Lowering::new(graph, &plan).run()?;
        self.checks.verdict(self.input)?;
        Ok(lowered)
    }

    /// The violations, by line. What builds warn of besides isn't among them.
    pub fn warnings(self) -> Vec<LowerWarning> {
        let mut warnings = self.checks.into_warnings();
        warnings.retain(|w| rule(w.rule).is_some());
        warnings
    }
}
