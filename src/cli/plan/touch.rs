//! `plan --touch PATH`: what a change of a path would affect.

use std::{collections::BTreeSet, path::PathBuf};

use crate::{
    cli::CliError,
    config::FILE_NAMES,
    fs,
    graph::{FileAction, Op, VertexId},
    plan::{
        Cause, CauseKind, Decided, Decision, Plan, PlannedTarget, Reason, Revision, Side,
        covers::Covered,
    },
};

/// The plan for a change of `paths`, whatever it is. What a change of the configuration would do
/// can't be told beforehand: it affects all.
pub(super) fn plan(side: &Side, paths: &[PathBuf], head: Revision) -> Result<Plan, CliError> {
    let mut touched: BTreeSet<(VertexId, String)> = BTreeSet::new();
    let mut all = Vec::new();
    for path in paths {
        let whole = fs::absolute(path)?;
        let shown = path.display().to_string();
        if whole
            .file_name()
            .and_then(|n| n.to_str())
            .is_some_and(|n| FILE_NAMES.contains(&n))
        {
            all.push(shown.clone());
        }
        for (n, vertex) in side.graph.vertices.iter().enumerate() {
            let id = VertexId(n);
            let written_there = match &vertex.location {
                Some(location) => fs::absolute(&*location.file)? == whole,
                None => false,
            };
            if written_there || copies(side, id, &whole) {
                touched.insert((id, shown.clone()));
            }
        }
    }
    let mut targets = Vec::new();
    for n in 0..side.targets.len() {
        let vertices = side.vertices(n);
        let mut run: BTreeSet<VertexId> = BTreeSet::new();
        for id in &vertices {
            let inputs = side.graph.vertex(*id).op.inputs();
            let is_touched = !all.is_empty() || touched.iter().any(|(touched, _)| touched == id);
            if is_touched || inputs.iter().any(|input| run.contains(input)) {
                run.insert(*id);
            }
        }
        let changed: Vec<Cause> = touched
            .iter()
            .filter(|(id, _)| vertices.contains(id))
            .map(|(id, path)| cause(side, *id, path))
            .collect();
        let steps = run.iter().filter(|id| side.graph.vertex(**id).op.is_step());
        let (decision, reason) = match (run.is_empty(), changed.first()) {
            (true, _) => (Decision::Skip, Reason::Unchanged),
            (false, Some(_)) => (Decision::Build, Reason::FilesChanged),
            (false, None) => (Decision::Build, Reason::SettingsChanged),
        };
        let detail = match (changed.first(), all.first()) {
            (Some(cause), _) => cause.sentence(),
            (None, Some(path)) => format!("what a change of {path} does can't be foreseen"),
            (None, None) => "nothing that it is made of is touched".to_owned(),
        };
        let mut target = PlannedTarget::of(side, n, (decision, reason, detail));
        target.steps.run = Some(steps.count());
        target.changed = changed;
        targets.push(target);
    }
    let base = Revision {
        commit: None,
        reason: "touch".to_owned(),
        dirty: false,
    };
    let decided = Decided {
        cache_lookup: false,
        targets,
    };
    Ok(Plan::new(base, head, decided))
}

/// Whether a vertex copies the file at this path from a local context.
fn copies(side: &Side, id: VertexId, path: &std::path::Path) -> bool {
    let Op::File(op) = &side.graph.vertex(id).op else {
        return false;
    };
    op.actions.iter().any(|action| match action {
        FileAction::Copy(copy) => match side.graph.vertex(copy.from).op {
            Op::Context(number) => Covered::of(&side.graph.contexts[number], copy).has(path),
            _ => false,
        },
        _ => false,
    })
}

fn cause(side: &Side, id: VertexId, path: &str) -> Cause {
    let vertex = side.graph.vertex(id);
    let place = vertex.location.as_ref();
    Cause {
        kind: CauseKind::Files,
        step: vertex.name.clone(),
        instruction: vertex.instruction.clone(),
        location: place.map(|place| format!("{}:{}", place.file, place.start)),
        files: vec![path.to_owned()],
        file_count: 1,
        difference: None,
    }
}
