//! What is odd in a Dockerfile but doesn't stop a build.

use std::collections::BTreeSet;

use crate::{dockerfile::nearest, graph::Location};

/// Something odd but allowed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LowerWarning {
    /// Name of the rule: one of `dockerfile::lint::RULES`, or one of our own:
    /// `UnusedBuildArg`, `MisspeltDirective`.
    pub rule: &'static str,
    /// What is odd.
    pub message: String,
    /// Where; none if it isn't about a line.
    pub location: Option<Location>,
    /// What may help.
    pub hint: Option<String>,
}

/// A `--build-arg` that no ARG declares.
pub(super) fn unused_build_arg(name: &str, declared: &BTreeSet<&str>) -> LowerWarning {
    let near = nearest(name, declared.iter().copied());
    LowerWarning {
        rule: "UnusedBuildArg",
        message: format!("build argument `{name}` is not used"),
        location: None,
        hint: near.map(|n| format!("did you mean `{n}`?")),
    }
}
