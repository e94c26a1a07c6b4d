//! What ADD fetches.

use super::*;
use crate::graph::{FileAction, LocalContext, ModeChange, RemoteSource, SourceTable};

const TEXT: &str = "FROM scratch AS unused\n\
    ADD https://h/unused /\n\
    FROM scratch\n\
    ARG TOKEN\n\
    ADD a https://u:$TOKEN@h/f[1].txt git@h:r.git#v1:d b /x/\n\
    ADD --chmod=u+x https://h/g /y\n";

fn lower_with(sources: SourceTable) -> (BuildGraph, Lowered) {
    let dockerfile = parse("Dockerfile", TEXT).unwrap();
    let mut graph = graph();
    graph.contexts.extend((0..3).map(|n| LocalContext {
        name: format!("fetched {n}"),
        dir: format!("/fetched-{n}").into(),
        ignore: String::new(),
    }));
    let input = LowerInput {
        sources,
        build_args: args(&[("TOKEN", "secret")]),
        ..input(&dockerfile)
    };
    let lowered = try_lower(&mut graph, &input).unwrap();
    (graph, lowered)
}

#[test]
fn what_a_target_needs_is_fetched_first_and_is_a_context_then() {
    let (_, lowered) = lower_with(SourceTable::new());
    let shown: Vec<_> = lowered
        .missing
        .iter()
        .map(|m| (m.source.shown().into_owned(), m.location.start))
        .collect();
    assert_eq!(
        shown,
        [
            ("https://u:***@h/f[1].txt".to_owned(), 5),
            ("git@h:r.git#v1:d".to_owned(), 5),
            ("https://h/g".to_owned(), 6),
        ]
    );
    let table = lowered.missing.into_iter().zip(2..);
    let (graph, lowered) = lower_with(table.map(|(m, n)| (m.source, n)).collect());
    assert_eq!(lowered.missing, []);
    let mut copies = Vec::new();
    for vertex in &graph.vertices {
        assert!(!vertex.name.contains("secret"), "{}", vertex.name);
        if let Op::File(op) = &vertex.op {
            for action in &op.actions {
                let FileAction::Copy(copy) = action else {
                    continue;
                };
                let Op::Context(context) = graph.vertex(copy.from).op else {
                    panic!("{copy:?}");
                };
                copies.push((
                    context,
                    copy.sources.join(" "),
                    copy.unpack,
                    copy.mode.clone(),
                ));
            }
        }
    }
    let mode = |text: &str| Some(ModeChange::Symbolic(text.to_owned()));
    assert_eq!(
        copies,
        [
            (0, "a".to_owned(), true, None),
            (2, "f\\[1\\].txt".to_owned(), false, mode("u=rw,go=")),
            (3, ".".to_owned(), false, None),
            (0, "b".to_owned(), true, None),
            (4, "g".to_owned(), false, mode("u=rw,go=,u+x")),
        ]
    );
    let history = &graph.targets[lowered.target].config.history;
    let adds = history.iter().filter_map(|h| h.created_by.as_deref());
    let adds: Vec<_> = adds.filter(|by| by.starts_with("ADD")).collect();
    assert_eq!(
        adds,
        [
            "ADD a https://u:***@h/f[1].txt git@h:r.git#v1:d b /x/ # memobuild-ci",
            "ADD --chmod=u+x https://h/g /y # memobuild-ci",
        ]
    );
}

#[test]
fn a_git_source_says_all_that_flags_and_address_say() {
    let flags = "--keep-git-dir --checksum=abc";
    let text = format!("FROM scratch\nADD {flags} https://h/r.git?submodules=0#v1 /\n");
    let (_, lowered) = build(&text, &[]);
    let RemoteSource::Git(source) = &lowered.missing[0].source else {
        panic!("{lowered:?}");
    };
    assert_eq!(source.remote, "https://h/r.git");
    assert_eq!(source.reference, "v1");
    assert_eq!(source.checksum.as_deref(), Some("abc"));
    assert!(source.keep_git_dir && !source.submodules);
}
