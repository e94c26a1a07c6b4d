//! An error as the user sees it, once, at the end.
//!
//! ```text
//! error: unknown key `dokerfile`
//!   --> memobuild.yml:5:5
//!  4 |   app:
//!  5 |     dokerfile: Dockerfile
//! hint: did you mean `dockerfile`?
//! ```

use std::error::Error;

use super::{style::Style, text::harmless};
use crate::{
    config::{ConfigError, InvalidConfig, SelectionError},
    dockerfile::DockerfileError,
};

/// Where an error is and what helps, for the errors that know.
#[derive(Default)]
struct Details {
    place: Option<String>,
    excerpt: Option<String>,
    hint: Option<String>,
}

/// The message for `error` and its causes, with a line feed at the end. An error in the
/// chain that knows its place adds it with the lines, the first that has a hint adds that;
/// `hint` is what the caller knows and goes before it.
pub fn report(error: &(dyn Error + 'static), hint: Option<&str>, color: bool) -> String {
    let style = Style::new(color);
    let mut details = Details::default();
    let mut messages: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        details.add(error);
        let message = lines(&message(error));
        // A transparent error says the same as its cause.
        if messages.last() != Some(&message) {
            messages.push(message);
        }
        next = error.source();
    }
    let mut messages = messages.into_iter();
    let first = messages.next().unwrap_or_default();
    let mut out = format!("{} {first}\n", style.bad("error:"));
    if let Some(place) = &details.place {
        out += &format!("  {} {}\n", style.faint("-->"), harmless(place));
    }
    for line in details.excerpt.iter().flat_map(|e| e.lines()) {
        // Excerpts keep their tabs: they are indented code.
        let line: Vec<String> = line.split('\t').map(harmless).collect();
        out += &format!("{}\n", line.join("\t"));
    }
    for cause in messages {
        out += &format!("  caused by: {cause}\n");
    }
    if let Some(hint) = hint.map(str::to_owned).or(details.hint) {
        out += &format!("{} {}\n", style.help("hint:"), lines(&hint));
    }
    out
}

/// The text of `error`, without its place where that is shown apart.
fn message(error: &(dyn Error + 'static)) -> String {
    match error.downcast_ref::<DockerfileError>() {
        Some(error) => error.problem.to_string(),
        None => error.to_string(),
    }
}

/// `text`, of one or more lines, made harmless.
fn lines(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(harmless).collect();
    lines.join("\n  ")
}

impl Details {
    /// Takes what `error` itself knows, and is not known yet.
    fn add(&mut self, error: &(dyn Error + 'static)) {
        let found = Self::of(error);
        if self.place.is_none() {
            self.place = found.place;
            self.excerpt = found.excerpt;
        }
        self.hint = self.hint.take().or(found.hint);
    }

    /// The errors that know more than a message. Others get their hint from the caller.
    fn of(error: &(dyn Error + 'static)) -> Self {
        if let Some(ConfigError::Invalid(error)) = error.downcast_ref() {
            return Self::of(error.as_ref());
        }
        if let Some(error) = error.downcast_ref::<InvalidConfig>() {
            return Self {
                place: Some(error.place()),
                excerpt: Some(error.excerpt().to_owned()),
                hint: error.hint.clone(),
            };
        }
        if let Some(error) = error.downcast_ref::<DockerfileError>() {
            let span = error.span;
            return Self {
                place: Some(format!("{}:{}:{}", error.file, span.start, span.column)),
                excerpt: Some(error.excerpt().to_owned()),
                hint: error.hint.clone(),
            };
        }
        if let Some(error) = error.downcast_ref::<SelectionError>() {
            return Self {
                hint: Some(error.hint().to_owned()),
                ..Self::default()
            };
        }
        Self::default()
    }
}
