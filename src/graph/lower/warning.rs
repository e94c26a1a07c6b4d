//! What is odd in a Dockerfile but doesn't stop a build.

use std::collections::BTreeSet;

use crate::{dockerfile::nearest, graph::Location};

/// Something odd but allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LowerWarning {
    /// BuildKit's name of the rule where it has one: `UndefinedVar`.
    pub rule: &'static str,
    /// What is odd.
    pub message: String,
    /// Where; none if it isn't about a line.
    pub location: Option<Location>,
    /// What may help.
    pub hint: Option<String>,
}

/// Whether a variable of this name probably holds a secret, which would stay readable
/// in the image.
pub(super) fn looks_secret(name: &str) -> bool {
    let words = [
        "apikey",
        "auth",
        "credential",
        "credentials",
        "key",
        "password",
        "pword",
    ];
    let more = ["passwd", "secret", "token"];
    let name = name.to_ascii_lowercase();
    // `PUBLIC_KEY` says of itself that it is none.
    !name.split('_').any(|part| part == "public")
        && name
            .split('_')
            .any(|part| words.contains(&part) || more.contains(&part))
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
