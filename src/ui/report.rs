//! An error as the user sees it, once, at the end.
//!
//! ```text
//! error: step `RUN pip install -r requirements.txt` failed in stage `ml`
//!   --> docker/cpu/Dockerfile.ml:14
//!  13 | COPY requirements.txt .
//!  14 | RUN pip install -r requirements.txt
//!   caused by: process exited with code 1
//!   the last 2 lines of its output:
//!   | ERROR: Could not find a version that satisfies the requirement nunpy
//!   | ERROR: No matching distribution found for nunpy
//! ```
//!
//! Messages, excerpts and output come from files, registries and steps: they are made
//! harmless to terminals, and no line begins with what a CI runner takes for a command.

use std::error::Error;

use super::{
    style::Style,
    text::{count, harmless, inert},
};
use crate::{
    bake::BakeError,
    config::{ConfigError, InvalidConfig, SelectionError},
    dockerfile::DockerfileError,
    engine::BuildError,
    graph::lower::LowerError,
    redact,
    remote::FetchError,
};

/// Messages of the HTTP client's layers that say less than those around them.
const EMPTY_CAUSES: [&str; 4] = [
    "error sending request",
    "client error (Connect)",
    "tcp connect error",
    "dns error",
];

/// How to report an error.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReportOptions<'a> {
    /// What helps, as the caller knows it; goes before what the error itself knows.
    pub hint: Option<&'a str>,
    /// How many of the last lines of a failed step's output to show.
    pub log_lines: usize,
    /// Whether to use colour.
    pub color: bool,
}

/// Where an error is and what helps, for the errors that know.
#[derive(Default)]
struct Details {
    place: Option<String>,
    excerpt: Option<String>,
    output: Vec<String>,
    hint: Option<String>,
}

/// The message for `error` and its causes, with a line feed at the end. An error in the
/// chain that knows its place adds it with the lines there, a failed step the end of its
/// output, and the first that has a hint adds that.
pub fn report(error: &(dyn Error + 'static), options: ReportOptions<'_>) -> String {
    let style = Style::new(options.color);
    let mut details = Details::default();
    let mut messages: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        details.add(error);
        let message = lines(&message(error));
        // A transparent error says the same as its cause.
        if messages.last() != Some(&message) && !EMPTY_CAUSES.contains(&message.as_str()) {
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
    out += &end_of_output(&details.output, options.log_lines, style);
    if let Some(hint) = options.hint.map(str::to_owned).or(details.hint) {
        out += &format!("{} {}\n", style.help("hint:"), lines(&hint));
    }
    let out = redact::url_credentials(&out);
    out.split_inclusive('\n').map(inert).collect()
}

/// The last `most` lines of a failed step's output, under a line that says so.
fn end_of_output(output: &[String], most: usize, style: Style) -> String {
    let shown = &output[output.len().saturating_sub(most)..];
    let title = match shown.len() {
        0 => return String::new(),
        1 => "the last line of its output:".to_owned(),
        n => format!("the last {} of its output:", count(n, "line")),
    };
    let mut out = format!("  {title}\n");
    for line in shown {
        out += &format!("  {} {}\n", style.faint("|"), harmless(line));
    }
    out
}

/// The text of `error`, without its place where that is shown apart.
fn message(error: &(dyn Error + 'static)) -> String {
    match in_dockerfile(error) {
        Some(error) => error.problem.to_string(),
        None => error.to_string(),
    }
}

/// The problem in a Dockerfile that `error` is, by itself or passed on by the lowering.
fn in_dockerfile<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e DockerfileError> {
    match error.downcast_ref() {
        Some(LowerError::Dockerfile(error)) => Some(error),
        _ => error.downcast_ref(),
    }
}

/// `text`, of one or more lines, made harmless.
fn lines(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(harmless).collect();
    lines.join("\n  | ")
}

impl Details {
    /// Takes what `error` itself knows, and is not known yet.
    fn add(&mut self, error: &(dyn Error + 'static)) {
        let found = Self::of(error);
        if self.place.is_none() {
            self.place = found.place;
            self.excerpt = found.excerpt;
        }
        if self.output.is_empty() {
            self.output = found.output;
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
                ..Self::default()
            };
        }
        if let Some(error) = error.downcast_ref::<BakeError>() {
            return Self {
                place: error.place(),
                excerpt: Some(error.excerpt().to_owned()),
                hint: error.hint.clone(),
                ..Self::default()
            };
        }
        if let Some(error) = in_dockerfile(error) {
            let span = error.span;
            return Self {
                place: Some(format!("{}:{}:{}", error.file, span.start, span.column)),
                excerpt: Some(error.excerpt()),
                hint: error.hint.clone(),
                ..Self::default()
            };
        }
        if let Some(error) = error.downcast_ref::<FetchError>() {
            return Self {
                place: Some(error.place.clone()),
                excerpt: Some(error.excerpt.clone()),
                ..Self::default()
            };
        }
        if let Some(error) = error.downcast_ref::<BuildError>() {
            return Self::of_build(error);
        }
        if let Some(error) = error.downcast_ref::<SelectionError>() {
            return Self {
                hint: Some(error.hint().to_owned()),
                ..Self::default()
            };
        }
        Self::default()
    }
    /// The place of the step that failed, and what it said last.
    fn of_build(error: &BuildError) -> Self {
        let step = error.step();
        let place = step.and_then(|step| step.location.as_ref());
        Self {
            place: place.map(|place| format!("{}:{}", place.file, place.start)),
            excerpt: step.map(|step| step.excerpt.clone()),
            output: error.tail().to_vec(),
            hint: error.hint(),
        }
    }
}
