//! What can't be lowered, with the whole message that users see; what is warned about.

use proptest::prelude::*;

use super::{build, execs, graph, input, try_lower};
use crate::{dockerfile::parse, graph::LowerError};

/// The message of the error that lowering gives, as users see it.
fn failure(text: &str) -> String {
    let dockerfile = parse("Dockerfile", text).unwrap();
    match try_lower(&mut graph(), &input(&dockerfile)) {
        Ok(_) => "ACCEPTED\n".to_owned(),
        Err(LowerError::Dockerfile(error)) => error.render(),
        Err(error) => format!("error: {error}\n"),
    }
}

#[test]
fn failures() {
    let mut out = String::new();
    for text in [
        "FROM $NOTHING\n",
        "FROM --platform=a/b/c/d x\n",
        "FROM ${A:?missing}\n",
        "FROM bad-triggers\n",
        "FROM scratch AS a\nONBUILD EXPOSE http\n\nFROM a\n",
        "FROM scratch AS a\nONBUILD COPY --from=Base x /\nFROM a\n",
        "FROM scratch\nCOPY --from=7 a /\nFROM scratch\n",
        "FROM scratch\nFROM scratch\nRUN --mount=from=0,target=/a x\n",
        "FROM Debian\n",
        "FROM scratch AS base\nFROM Base\n",
        "FROM debian:12:13\n",
        "FROM scratch\nRUN --mount=type=secret,id=x,target=/ cat /run/secrets/x\n",
        "FROM scratch\nARG I\nRUN --mount=type=secret,id=$I x\n",
        "FROM scratch\nRUN --security=insecure x\n",
        "FROM scratch\nRUN --device=v.example/gpu,required x\n",
        "FROM scratch\nRUN --mount=type=bind,target=/a/.. y\n",
        "FROM scratch\nARG T=cache\nRUN --mount=type=$T y\n",
        "FROM scratch\nADD https://u:secret@h/a.git?x=1 /\n",
        "FROM scratch\nADD --checksum=sha256:00 https://h/a /\n",
        "FROM scratch\nADD --checksum=sha256:00 a /\n",
        "FROM scratch\nADD --checksum=main https://h/a.git /\n",
        "FROM scratch\nADD --checksum=12 https://h/a https://h/b /\n",
        "FROM scratch\nADD --keep-git-dir=false https://h/a.git?keep-git-dir=1 /\n",
        "FROM scratch\nCOPY git@example.com:a/b.git /\n",
        "FROM scratch\nCOPY https://example.com/a /\n",
        "FROM scratch\nCOPY --from=1 a /\n",
        "FROM scratch\nCOPY --from=0 a /\n",
        "FROM scratch AS a\nCOPY --from=b x /\nFROM scratch AS b\nFROM a\n",
        "FROM scratch\nCOPY --chmod=999 a /\n",
        "FROM scratch\nCOPY --chmod=u+q a /\n",
        "FROM scratch\nENV A=${B\n",
        "FROM scratch\nEXPOSE http\n",
        "FROM scratch\nEXPOSE 90-80\n",
        "FROM scratch\nSTOPSIGNAL SIGNOPE\n",
        "FROM scratch\nVOLUME $UNSET\n",
    ] {
        out.push_str(&failure(text));
        out.push('\n');
    }
    insta::assert_snapshot!(out);
}

#[test]
fn what_is_not_needed_may_be_unsupported() {
    let text = "\
FROM triggers
RUN --mount=type=secret,id=x y
FROM scratch
RUN --security=sandbox x
";
    let (graph, _) = build(text, &[]);
    assert_eq!(execs(&graph).len(), 1);
}

#[test]
fn names_are_cut_and_secrets_warned_about() {
    let long = "é ".repeat(200);
    let text = format!("FROM scratch\nARG API_TOKEN\nENV PUBLIC_KEY=1\nRUN {long}\n");
    let (graph, lowered) = build(&text, &[]);
    let name = &graph.vertices[1].name;
    assert_eq!(name.chars().count(), 121);
    assert!(name.ends_with('…'), "{name}");
    let rules: Vec<&str> = lowered.warnings.iter().map(|w| w.rule).collect();
    assert_eq!(rules, ["SecretsUsedInArgOrEnv"]);
    assert_eq!(lowered.warnings[0].location.as_ref().unwrap().start, 2);
}

#[test]
fn an_epoch_must_be_a_number() {
    let dockerfile = parse("Dockerfile", "ARG SOURCE_DATE_EPOCH=today\nFROM a\n").unwrap();
    let error = try_lower(&mut graph(), &input(&dockerfile)).unwrap_err();
    assert!(matches!(error, LowerError::Epoch { text } if text == "today"));
}

proptest! {
    #[test]
    fn likely_text_never_panics(lines in prop::collection::vec(
        prop::sample::select(vec![
            "FROM a", "FROM scratch AS x", "FROM x", "FROM $A", "ARG A=1", "ARG A", "ENV A=${A:-b}",
            "RUN x", "RUN <<E\n$A\nE", "COPY . .", "COPY --from=x a /", "COPY --from=0 a ../..",
            "COPY <<E /\n${A%b}\nE", "WORKDIR ..", "WORKDIR $A", "EXPOSE $A", "USER $A", "CMD x",
            "RUN --mount=type=cache,target=$A x", "RUN --mount=from=x,target=/y x", "VOLUME $A",
            "LABEL $A=$A", "HEALTHCHECK CMD x", "STOPSIGNAL $A", "ONBUILD RUN x", "SHELL [\"s\"]",
        ]), 0..12,
    )) {
        if let Ok(dockerfile) = parse("Dockerfile", &lines.join("\n")) {
            let mut graph = graph();
            if try_lower(&mut graph, &input(&dockerfile)).is_ok() {
                for (id, vertex) in graph.vertices.iter().enumerate() {
                    prop_assert!(vertex.op.inputs().iter().all(|input| input.0 < id));
                }
                let target = &graph.targets[0];
                prop_assert!(target.history.len() <= target.config.history.len());
            }
        }
    }
}
