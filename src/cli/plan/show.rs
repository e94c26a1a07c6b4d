//! A plan for people.

use std::fmt::Write as _;

use crate::{
    plan::{Decision, Plan, PlannedTarget, Revision},
    ui,
};

/// The plan as a table, with reasons.
pub(super) fn table(plan: &Plan) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "base  {}", revision(&plan.base));
    let _ = writeln!(text, "head  {}\n", revision(&plan.head));
    let width = |cell: fn(&PlannedTarget) -> String| {
        let widths = plan
            .targets
            .iter()
            .map(|target| cell(target).chars().count());
        widths.max().unwrap_or(0)
    };
    let (names, steps_width) = (width(name), width(steps));
    for target in &plan.targets {
        let _ = writeln!(
            text,
            "{:<names$}  {:<5}  {:>steps_width$}  {}",
            name(target),
            target.decision.name(),
            steps(target),
            ui::harmless(&target.detail),
        );
        for cause in target.changed.iter().skip(1) {
            let indent = names + 2 + 5 + 2 + steps_width + 2;
            let _ = writeln!(text, "{:indent$}{}", "", ui::harmless(&cause.sentence()));
        }
    }
    for image in &plan.moved_images {
        let _ = writeln!(
            text,
            "\nbase image `{}` ({}) has moved: {} -> {}; `memobuild-ci plan --update-lock` pins it anew",
            image.reference, image.platform, image.old, image.new
        );
    }
    let _ = writeln!(
        text,
        "\n{} to build, {} to reuse, {} to skip; plan {}",
        plan.count(Decision::Build),
        plan.count(Decision::Reuse),
        plan.count(Decision::Skip),
        plan.plan_digest,
    );
    text
}

fn name(target: &PlannedTarget) -> String {
    target.name.clone()
}

fn steps(target: &PlannedTarget) -> String {
    match target.steps.run {
        Some(run) => format!("{run}/{}", target.steps.total),
        None => format!("{}", target.steps.total),
    }
}

fn revision(revision: &Revision) -> String {
    let dirty = if revision.dirty {
        " and changes that are not committed"
    } else {
        ""
    };
    match &revision.commit {
        Some(commit) => format!(
            "{}{dirty} ({})",
            &commit[..commit.len().min(12)],
            revision.reason
        ),
        None => format!("none ({})", revision.reason),
    }
}
