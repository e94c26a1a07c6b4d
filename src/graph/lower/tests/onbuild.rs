//! Triggers: where they come from, what they do, where they are.

use super::{build, execs, files, images, input, platform};
use crate::{
    dockerfile::parse,
    graph::{FileAction, ImageTable, needed_images},
};

fn history(graph: &crate::graph::BuildGraph) -> Vec<&str> {
    let entries = graph.targets[0].config.history.iter();
    entries.filter_map(|h| h.created_by.as_deref()).collect()
}

#[test]
fn triggers_of_an_image_run_first_and_name_further_images() {
    let text = "FROM scratch AS stage\nFROM triggers\nRUN y\n";
    let dockerfile = parse("Dockerfile", text).unwrap();
    let amd64 = platform("linux/amd64");
    let first = needed_images(&input(&dockerfile), &ImageTable::new()).unwrap();
    assert_eq!(first, [("triggers".to_owned(), amd64.clone())]);
    let second = needed_images(&input(&dockerfile), &images(&first)).unwrap();
    assert_eq!(second, [("further".to_owned(), amd64)]);

    let (graph, _) = build(text, &[]);
    let names: Vec<&str> = graph.vertices.iter().map(|v| v.name.as_str()).collect();
    assert!(names.contains(&"[stage-1 2/5] ONBUILD RUN x"), "{names:?}");
    assert!(names.contains(&"[stage-1 5/5] RUN y"), "{names:?}");
    // Triggers stand where FROM does.
    let trigger = graph
        .vertices
        .iter()
        .find(|v| v.name.contains("ONBUILD RUN x"));
    assert_eq!(trigger.unwrap().location.as_ref().unwrap().start, 2);
    assert_eq!(
        history(&graph),
        [
            "base",
            "RUN /bin/sh -c x # memobuild-ci",
            "COPY a / # memobuild-ci",
            "COPY b / # memobuild-ci",
            "RUN /bin/sh -c y # memobuild-ci"
        ]
    );
    assert_eq!(graph.targets[0].config.config.on_build, None);
}

#[test]
fn triggers_of_a_stage_stand_where_they_are_written() {
    let text = "\
FROM scratch AS base
ONBUILD ARG V=1
ONBUILD COPY <<EOF /f
$V
EOF
ONBUILD CMD x
RUN base
FROM base AS child
ONBUILD RUN later
FROM child
";
    let (graph, _) = build(text, &[("V", "2")]);
    let write = files(&graph).into_iter().find_map(|f| match &f.actions[0] {
        FileAction::Write { content, .. } => Some(content.clone()),
        _ => None,
    });
    assert_eq!(write.unwrap(), b"2\n");
    let vertex = graph.vertices.iter().find(|v| v.name.contains("COPY"));
    assert_eq!(vertex.unwrap().location.as_ref().unwrap().start, 3);
    // Triggers are for the next stage only: `child` has its own, the last stage those of it.
    let runs: Vec<&str> = execs(&graph).iter().map(|e| e.args[2].as_str()).collect();
    assert_eq!(runs, ["base", "later"]);
    let config = &graph.targets[0].config.config;
    assert_eq!(config.on_build, None);
    assert_eq!(config.cmd.as_ref().unwrap()[2], "x");
}

#[test]
fn a_stage_keeps_its_own_triggers_in_the_image() {
    let (graph, _) = build("FROM triggers\nONBUILD RUN z\n", &[]);
    let triggers = graph.targets[0].config.config.on_build.clone();
    assert_eq!(triggers.unwrap(), ["RUN z"]);
}
