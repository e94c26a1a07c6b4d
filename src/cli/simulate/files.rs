//! The files that a platform's job would leave.

use std::{fmt::Write as _, path::Path};

use crate::{
    ci::Platform,
    cli::{CliError, plan::Planned},
    fs,
    plan::Plan,
    simulate::SyntheticEvent,
    ui,
};

/// The variables of the event, a line each, as a shell takes them.
pub(super) fn environment(event: &SyntheticEvent) -> String {
    let mut text = String::new();
    for (name, value) in &event.variables {
        let _ = writeln!(text, "{name}='{}'", value.replace('\'', r"'\''"));
    }
    text
}

/// Writes what the platform takes of a plan; gives the names.
pub(super) fn write(
    dir: &Path,
    platform: Platform,
    planned: &Planned,
) -> Result<Vec<&'static str>, CliError> {
    let summary = summary(&planned.plan);
    let mut files: Vec<(&'static str, &str)> = vec![("plan.json", &planned.json)];
    let dotenv = format!(
        "HAS_WORK={}\nPLAN_DIGEST={}\n",
        planned.plan.has_work, planned.plan.plan_digest
    );
    match platform {
        Platform::GitHub | Platform::Gitea | Platform::Forgejo => {
            files.push(("github-output", &planned.github));
            files.push(("step-summary.md", &summary));
        }
        Platform::GitLab => {
            files.push(("plan.env", &dotenv));
            files.push(("child-pipeline.yml", &planned.gitlab));
        }
        _ => files.push(("summary.md", &summary)),
    }
    for (name, text) in &files {
        fs::write_to(dir.join(name), text.as_bytes())?;
    }
    Ok(files.into_iter().map(|(name, _)| name).collect())
}

/// The plan as a page of Markdown.
fn summary(plan: &Plan) -> String {
    let mut text = String::from("### Plan\n\n| target | decision | why |\n|---|---|---|\n");
    for target in &plan.targets {
        let _ = writeln!(
            text,
            "| {} | {} | {} |",
            cell(&target.name),
            target.decision.name(),
            cell(&target.detail)
        );
    }
    let _ = writeln!(text, "\nPlan digest `{}`", plan.plan_digest);
    text
}

/// Text as a cell of a table, without markup of its own.
fn cell(text: &str) -> String {
    let text = ui::harmless(text);
    let mut cell = String::new();
    for c in text.chars() {
        match c {
            '&' => cell.push_str("&amp;"),
            '<' => cell.push_str("&lt;"),
            '|' | '*' | '_' | '[' | ']' | '\\' | '!' | '@' | '#' => {
                cell.push('\\');
                cell.push(c);
            }
            c => cell.push(c),
        }
    }
    cell
}

#[cfg(test)]
mod tests {
    use super::cell;

    #[test]
    fn cells_have_no_markup() {
        assert_eq!(
            cell("a | <b> @x ![y](z)\n"),
            r"a \| &lt;b> \@x \!\[y\](z)".to_owned() + "\u{fffd}"
        );
    }
}
