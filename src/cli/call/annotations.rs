//! Violations in the forms that code hosts show beside the code.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::check::{Report, Violation};
use crate::{cli::CliError, digest::Blake3Digest};

/// Workflow commands of GitHub Actions, Gitea and Forgejo, a line each.
pub(super) fn github(report: &Report) -> String {
    let mut out = String::new();
    for violation in &report.violations {
        let place = Place {
            file: &report.sources[violation.source].name,
            lines: Some((violation.start, violation.end)),
        };
        out += &place.command("warning", violation.rule.name, &violation.message);
    }
    for failure in &report.failures {
        let place = Place {
            file: &report.sources[failure.source].name,
            lines: failure.place.map(|span| (span.start, span.end)),
        };
        out += &place.command("error", "build error", &failure.message());
    }
    out
}

struct Place<'a> {
    file: &'a str,
    lines: Option<(usize, usize)>,
}

impl Place<'_> {
    fn command(&self, level: &str, title: &str, message: &str) -> String {
        let mut properties = format!("file={}", property(self.file));
        if let Some((start, end)) = self.lines {
            properties += &format!(",line={start},endLine={end}");
        }
        let title = property(title);
        format!("::{level} {properties},title={title}::{}\n", text(message))
    }
}

/// The text of a command: a line break would end it.
fn text(text: &str) -> String {
    text.replace('%', "%25")
        .replace('\r', "%0D")
        .replace('\n', "%0A")
}

/// The value of a property of a command.
fn property(value: &str) -> String {
    text(value).replace(':', "%3A").replace(',', "%2C")
}

/// GitLab's code quality report, an `artifacts:reports:codequality`.
pub(super) fn gitlab(report: &Report) -> Result<String, CliError> {
    let mut seen = HashMap::new();
    let mut issues: Vec<Value> = Vec::new();
    for violation in &report.violations {
        let path = &report.sources[violation.source].name;
        // Equal violations of equal lines are told apart by their number, so that a
        // fingerprint stays when lines above it change.
        let identity = identity(report, violation);
        let number = seen.entry(identity.clone()).or_insert(0_usize);
        let fingerprint = Blake3Digest::of(format!("{number}\0{identity}").as_bytes());
        *number += 1;
        issues.push(issue(
            violation.rule.name,
            &format!("{}: {}", violation.rule.name, violation.message),
            &fingerprint,
            "minor",
            (path, violation.start, violation.end),
        ));
    }
    for failure in &report.failures {
        let path = &report.sources[failure.source].name;
        let message = failure.message();
        let fingerprint = Blake3Digest::of(format!("{path}\0{message}").as_bytes());
        let (start, end) = failure.place.map_or((1, 1), |span| (span.start, span.end));
        let place = (path.as_str(), start, end);
        issues.push(issue(
            "BuildError",
            &message,
            &fingerprint,
            "blocker",
            place,
        ));
    }
    Ok(serde_json::to_string_pretty(&issues)? + "\n")
}

/// What makes a violation the same after an edit elsewhere.
fn identity(report: &Report, violation: &Violation) -> String {
    let source = &report.sources[violation.source];
    let count = violation.end + 1 - violation.start;
    let lines = source.text.lines().skip(violation.start - 1).take(count);
    let lines: Vec<&str> = lines.collect();
    let (rule, message) = (violation.rule.name, &violation.message);
    format!("{rule}\0{}\0{message}\0{}", source.name, lines.join("\n"))
}

fn issue(
    name: &str,
    description: &str,
    fingerprint: &Blake3Digest,
    severity: &str,
    (path, start, end): (&str, usize, usize),
) -> Value {
    json!({
        "check_name": name,
        "description": description,
        "fingerprint": fingerprint.hex(),
        "severity": severity,
        "location": { "path": path, "lines": { "begin": start, "end": end } },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_escaped() {
        let place = Place {
            file: "a:b,c/Dockerfile",
            lines: Some((2, 3)),
        };
        assert_eq!(
            place.command("warning", "Rule", "50 %\nof, all: it"),
            "::warning file=a%3Ab%2Cc/Dockerfile,line=2,endLine=3,title=Rule::50 %25%0Aof, all: it\n"
        );
    }
}
