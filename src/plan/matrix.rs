//! A plan as a matrix of jobs, as GitHub Actions and Gitea Actions take it.
//!
//! `{"include": [{"target": "app", "variant": "cpu", "platform": "linux/amd64", "runner":
//! "ubuntu-latest", …}]}`, one entry for each target with work that was asked for. GitHub refuses more than
//! [`MOST_JOBS`] jobs, and an empty matrix: a workflow looks at `has_work` first.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Plan, PlannedTarget};

/// Most jobs of a matrix.
pub const MOST_JOBS: usize = 256;

/// One job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Job {
    /// A short name that no other job of the matrix has: `cpu-ml-linux-amd64`.
    pub name: String,
    /// The layer or bake target, for `build --target`.
    pub target: String,
    /// The variant, for `build --variant`; `default` where there is only one.
    pub variant: String,
    /// The platform, for `build --platform`.
    pub platform: String,
    /// The label of the runner.
    pub runner: String,
    /// What is to be done: `build` or `reuse`.
    pub decision: String,
    /// Why.
    pub reason: String,
    /// How many layers stand below it: jobs of a smaller number come first.
    pub depth: usize,
}

/// The jobs of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Matrix {
    /// The jobs.
    pub include: Vec<Job>,
}

/// A plan with more jobs than a matrix may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the plan has {jobs} jobs, and a matrix may have {MOST_JOBS}")]
pub struct TooManyJobs {
    /// How many it has.
    pub jobs: usize,
}

/// The matrix of a plan. `runners` has labels by platform; `*` is for all others.
pub fn matrix(plan: &Plan, runners: &BTreeMap<String, String>) -> Result<Matrix, TooManyJobs> {
    let include: Vec<Job> = jobs(plan, runners);
    match include.len() {
        jobs if jobs > MOST_JOBS => Err(TooManyJobs { jobs }),
        _ => Ok(Matrix { include }),
    }
}

/// The jobs of a plan, however many they are: one for each target with work that was asked for.
pub(super) fn jobs(plan: &Plan, runners: &BTreeMap<String, String>) -> Vec<Job> {
    let wanted = plan.work().filter(|target| target.requested);
    wanted.map(|target| job(plan, target, runners)).collect()
}

fn job(plan: &Plan, target: &PlannedTarget, runners: &BTreeMap<String, String>) -> Job {
    let runner = runners.get(&target.platform).or_else(|| runners.get("*"));
    Job {
        name: job_name(target),
        target: target.layer.clone(),
        variant: target.variant.clone(),
        platform: target.platform.clone(),
        runner: match runner {
            Some(label) => label.clone(),
            None => default_runner(&target.platform).to_owned(),
        },
        decision: target.decision.name().to_owned(),
        reason: target.reason.name().to_owned(),
        depth: depth(plan, target),
    }
}

/// A name for a job: `cpu-ml-linux-amd64`.
pub(super) fn job_name(target: &PlannedTarget) -> String {
    let platform = target.platform.replace('/', "-");
    match target.variant.as_str() {
        crate::config::DEFAULT_VARIANT => format!("{}-{platform}", target.layer),
        variant => format!("{variant}-{}-{platform}", target.layer),
    }
}

/// GitHub's hosted runners; others are named by `runners`.
fn default_runner(platform: &str) -> &'static str {
    match platform.split('/').nth(1) {
        Some("arm64") => "ubuntu-24.04-arm",
        _ => "ubuntu-latest",
    }
}

/// How many targets stand below this one.
pub(super) fn depth(plan: &Plan, target: &PlannedTarget) -> usize {
    let below = target.needs.iter().filter_map(|name| {
        let needed = plan.targets.iter().find(|other| other.name == *name)?;
        Some(depth(plan, needed) + 1)
    });
    below.max().unwrap_or(0)
}
