//! Build checks: what works in a Dockerfile but is likely a mistake.
//!
//! The rules ([`RULES`]), their names and the places they are reported at are those of BuildKit's
//! linter; the texts are ours. This module has what all rules share, the table and the
//! [`Settings`], and the rules that need only the parsed file ([`check_file`], or [`check_unparsed`]). Rules about what
//! words mean (variables, platforms, ports, paths) fire while lowering
//! (`graph::lower::check`), which knows the variables.

mod file;
mod rules;
mod settings;

pub use file::{check_file, check_unparsed};
pub use rules::{RULES, Rule, rule};
pub use settings::{SETTINGS_ARGUMENT, Settings, SettingsError};

use super::source::Span;

/// A place where a rule is not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Name of the rule in [`RULES`].
    pub rule: &'static str,
    /// What is odd.
    pub message: String,
    /// Where.
    pub span: Span,
    /// What may help.
    pub hint: Option<String>,
}

#[cfg(test)]
mod tests;
