//! Which checks are made: `# check=…` at the top of the file or before one instruction, and the
//! build argument `BUILDKIT_DOCKERFILE_CHECK`.
//!
//! ```text
//! # check=skip=StageNameCasing,JSONArgsRecommended;error=true;experimental=all
//! ```

use std::{borrow::Cow, collections::BTreeSet};

use super::{super::lines, rules::Rule};

/// What is wrong with the text of a setting.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// Something else than `key=value`, or an unknown key.
    #[error("`{text}` is not `skip=…`, `experimental=…` or `error=…`")]
    Option {
        /// The part.
        text: String,
    },
    /// `error` is neither true nor false.
    #[error("`{value}` in `error={value}` is not `true` or `false`")]
    Boolean {
        /// The value.
        value: String,
    },
}

/// Rules by name, or all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Selection {
    all: bool,
    names: BTreeSet<String>,
}

/// The build argument that replaces `# check=`.
pub const SETTINGS_ARGUMENT: &str = "BUILDKIT_DOCKERFILE_CHECK";

/// Which checks are made, and whether a violation fails the build.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// Whether a violation is an error (`error=true`).
    pub error: bool,
    skip: Selection,
    experimental: Selection,
}

impl Selection {
    fn add(&mut self, value: &str) {
        match value.trim() {
            "all" => self.all = true,
            list => self
                .names
                .extend(list.split(',').map(|n| n.trim().to_owned())),
        }
    }

    fn has(&self, name: &str) -> bool {
        self.all || self.names.contains(name)
    }

    fn merge(&mut self, other: Self) {
        self.all |= other.all;
        self.names.extend(other.names);
    }
}

impl Settings {
    /// Reads `skip=A,B;error=true;experimental=C`, each part at most once, in any order.
    pub fn parse(text: &str) -> Result<Self, SettingsError> {
        let mut settings = Self::default();
        let text = text.trim();
        if text.is_empty() {
            return Ok(settings);
        }
        for part in text.splitn(3, ';') {
            let invalid = || SettingsError::Option {
                text: part.trim().to_owned(),
            };
            let (key, value) = part.split_once('=').ok_or_else(invalid)?;
            match key.trim() {
                "skip" => settings.skip.add(value),
                "experimental" => settings.experimental.add(value),
                "error" => settings.error = boolean(value.trim())?,
                _ => return Err(invalid()),
            }
        }
        Ok(settings)
    }

    /// The value of the directive `# check=` of a file, and its line.
    pub fn directive(text: &str) -> Option<(usize, &str)> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let interpreter = usize::from(text.starts_with("#!"));
        for (number, line) in (1..).zip(text.lines()).skip(interpreter) {
            let (name, value) = lines::directive(line, "#")?;
            if name == "check" {
                return Some((number, first_word(value)));
            }
        }
        None
    }

    /// These settings and those that the comments before an instruction add. A comment that
    /// can't be read adds nothing.
    pub fn with_comments(&self, comments: &[String]) -> Cow<'_, Self> {
        let added = comments.iter().find_map(|comment| {
            let (name, value) = comment.split_once('=')?;
            let is_check = name.trim().eq_ignore_ascii_case("check");
            (is_check && !value.trim().is_empty()).then(|| Self::parse(first_word(value)))
        });
        let Some(Ok(added)) = added else {
            return Cow::Borrowed(self);
        };
        let mut merged = self.clone();
        merged.skip.merge(added.skip);
        merged.experimental.merge(added.experimental);
        Cow::Owned(merged)
    }

    /// Whether this rule's violations are reported.
    pub fn has(&self, rule: &Rule) -> bool {
        if rule.experimental {
            self.experimental.has(rule.name)
        } else {
            !self.skip.has(rule.name)
        }
    }
}

/// What stands before the first space.
fn first_word(value: &str) -> &str {
    let value = value.trim();
    value.split_once(' ').map_or(value, |(first, _)| first)
}

/// A boolean in any of the forms that Go takes.
fn boolean(text: &str) -> Result<bool, SettingsError> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(SettingsError::Boolean {
            value: text.to_owned(),
        }),
    }
}
