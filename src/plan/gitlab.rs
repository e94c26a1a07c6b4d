//! A plan as a child pipeline of GitLab CI.
//!
//! One job for each target with work that was asked for, with `needs` on the jobs of the targets that it is built on, so that
//! a child starts when its parent is done. A pipeline without jobs fails: where there is no work, one job
//! says so.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{Plan, Reason, matrix};

/// Most jobs that a pipeline should have.
const MOST_JOBS: usize = 500;

/// What the jobs are made with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pipeline {
    /// The image that jobs run in; none for the runner's default.
    pub image: Option<String>,
    /// Labels of runners by platform; `*` is for all others.
    pub runners: BTreeMap<String, String>,
    /// What is put behind `memobuild-ci build`, as one argument each.
    pub arguments: Vec<String>,
}

/// The pipeline as YAML (JSON, which is YAML too).
pub fn pipeline(plan: &Plan, with: &Pipeline) -> Result<String, matrix::TooManyJobs> {
    let jobs = matrix::jobs(plan, &with.runners);
    if jobs.len() > MOST_JOBS {
        return Err(matrix::TooManyJobs { jobs: jobs.len() });
    }
    let mut file = Map::new();
    let depths: std::collections::BTreeSet<usize> = jobs.iter().map(|job| job.depth).collect();
    let stage = |depth: usize| format!("layer-{depth}");
    let mut stages: Vec<Value> = depths.iter().map(|depth| json!(stage(*depth))).collect();
    if stages.is_empty() {
        stages.push(json!("nothing-to-do"));
    }
    file.insert("stages".to_owned(), Value::Array(stages));
    let wanted: Vec<_> = plan.work().filter(|target| target.requested).collect();
    for (job, target) in jobs.iter().zip(&wanted) {
        let needs: Vec<Value> = target
            .needs
            .iter()
            .filter_map(|name| wanted.iter().find(|other| other.name == *name))
            .map(|needed| json!(matrix::job_name(needed)))
            .collect();
        let mut command = vec!["memobuild-ci".to_owned(), "build".to_owned()];
        command.extend(["--target".to_owned(), job.target.clone()]);
        if job.variant != crate::config::DEFAULT_VARIANT {
            command.extend(["--variant".to_owned(), job.variant.clone()]);
        }
        command.extend(["--platform".to_owned(), job.platform.clone()]);
        // What was asked for would otherwise be found in the cache.
        if target.reason == Reason::Forced {
            command.extend(["--no-cache-filter".to_owned(), job.target.clone()]);
        }
        command.extend(with.arguments.iter().cloned());
        let mut body = Map::new();
        body.insert("stage".to_owned(), json!(stage(job.depth)));
        if let Some(image) = &with.image {
            body.insert("image".to_owned(), json!(image));
        }
        if let Some(label) = with
            .runners
            .get(&job.platform)
            .or_else(|| with.runners.get("*"))
        {
            body.insert("tags".to_owned(), json!([label]));
        }
        body.insert("needs".to_owned(), Value::Array(needs));
        let line: Vec<String> = command.iter().map(|word| quoted(word)).collect();
        body.insert("script".to_owned(), json!([line.join(" ")]));
        file.insert(job.name.clone(), Value::Object(body));
    }
    if jobs.is_empty() {
        let script = "echo 'memobuild-ci: no target has work'";
        file.insert(
            "nothing-to-do".to_owned(),
            json!({"stage": "nothing-to-do", "script": [script]}),
        );
    }
    // A map of plain values has no way to fail.
    let text = serde_json::to_string_pretty(&Value::Object(file)).unwrap_or_default();
    Ok(format!("{text}\n"))
}

/// A word for a POSIX shell. GitLab expands nothing within a script's lines but the shell does.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@,+".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}
