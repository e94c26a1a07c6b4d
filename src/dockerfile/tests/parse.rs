//! Dockerfiles and their trees, a second opinion, and arbitrary text.

use proptest::prelude::*;

use crate::dockerfile::{
    ast::{CommandLine, CopySource, Instruction, InstructionKind},
    parse,
};

/// A file with everything the language has.
const EVERYTHING: &str = include_str!("everything.dockerfile");

fn instructions(text: &str) -> Vec<Instruction> {
    let text = format!("FROM scratch\n{text}");
    parse("Dockerfile", &text)
        .unwrap()
        .stages
        .remove(0)
        .instructions
}

fn only(text: &str) -> InstructionKind {
    let mut all = instructions(text);
    assert_eq!(all.len(), 1, "{text}");
    all.remove(0).kind
}

fn shell(text: &str) -> InstructionKind {
    InstructionKind::Cmd(CommandLine::Shell(text.to_owned()))
}

#[test]
fn everything() {
    let file = parse("Dockerfile", EVERYTHING).unwrap();
    insta::assert_debug_snapshot!((file.escape, file.syntax, file.global_args, file.stages));
}

#[test]
fn continued_lines_are_joined() {
    for (text, expected) in [
        ("CMD a \\\n  b", "a   b"),
        ("CMD a\\\nb", "ab"),
        ("CMD a \\\n# comment\n  # another\nb", "a b"),
        ("CMD a \\\n\n\nb", "a b"),
        ("CMD a \\  \nb", "a b"),
        ("CMD a \\\r\nb\r\n", "a b"),
        ("CMD a \\\\\nCMD b", "a \\\\"),
        ("cmd\ta", "a"),
        ("  CMD  a  ", "a"),
        ("CMD a # no comment", "a # no comment"),
        ("CMD \\\n a", "a"),
        ("CMD a \\", "a"),
        ("\\\n  CMD a", "a"),
        ("\\\n\\\n\\\nCMD a", "a"),
    ] {
        assert_eq!(instructions(text)[0].kind, shell(expected), "{text:?}");
    }
    let text = "\u{feff}# escape=`\nFROM scratch\nCMD a `\nb \\\n";
    let file = parse("Dockerfile", text).unwrap();
    assert_eq!(file.escape, '`');
    assert_eq!(file.stages[0].instructions[0].kind, shell("a b \\"));
}

#[test]
fn directives_end_at_the_first_other_line() {
    let file = parse("f", "# a comment\n# escape=`\nFROM scratch\nCMD a \\\nb").unwrap();
    assert_eq!(file.escape, '\\');
    let file = parse(
        "f",
        "#syntax = docker.io/docker/dockerfile:1.7 \n#check=skip=all\nFROM a",
    )
    .unwrap();
    assert_eq!(file.syntax.unwrap(), "docker.io/docker/dockerfile:1.7");
    for name in [
        "docker/dockerfile",
        "docker/dockerfile:1@sha256:0",
        "docker/dockerfile-upstream:master",
    ] {
        assert!(
            parse("f", &format!("# syntax={name}\nFROM a")).is_ok(),
            "{name}"
        );
    }
    assert!(parse("f", "# syntax=docker/other\nFROM a").is_err());
}

#[test]
fn forms_are_told_apart() {
    let exec = |args: &[&str]| {
        InstructionKind::Cmd(CommandLine::Exec(
            args.iter().map(|a| (*a).to_owned()).collect(),
        ))
    };
    assert_eq!(only("CMD [\"a\", \"b c\"]"), exec(&["a", "b c"]));
    assert_eq!(only("CMD [\"a\", \\\n \"b\" ]  "), exec(&["a", "b"]));
    assert_eq!(only("CMD []"), exec(&[]));
    assert_eq!(only("CMD ['a']"), shell("['a']"));
    assert_eq!(only("CMD [ -f x ] && y"), shell("[ -f x ] && y"));
    assert_eq!(only("CMD [\"a\"] x"), shell("[\"a\"] x"));
}

#[test]
fn heredocs_are_collected() {
    let heredocs = |text: &str| match only(text) {
        InstructionKind::Run(run) => run
            .heredocs
            .into_iter()
            .map(|h| (h.name.clone(), h.text(), h.expand))
            .collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    let doc = |name: &str, text: &str, expand| (name.to_owned(), text.to_owned(), expand);
    for (text, expected) in [
        (
            "RUN <<EOF\na\n# b\n\\\nEOF\n",
            vec![doc("EOF", "a\n# b\n\\\n", true)],
        ),
        ("RUN <<'EOF'\n$a\nEOF", vec![doc("EOF", "$a\n", false)]),
        ("RUN <<\"E F\"\nx\nE F", vec![doc("E F", "x\n", false)]),
        (
            "RUN <<-EOF\n\ta\n\t\tb\n\tEOF\n",
            vec![doc("EOF", "a\nb\n", true)],
        ),
        (
            "RUN cat <<A <<B\n1\nA\n2\nB\n",
            vec![doc("A", "1\n", true), doc("B", "2\n", true)],
        ),
        ("RUN 3<<EOF cat\nx\nEOF", vec![doc("EOF", "x\n", true)]),
        ("RUN << EOF\nx\nEOF", vec![doc("EOF", "x\n", true)]),
        (
            "RUN <<EOF\nx\n EOF\nEOF",
            vec![doc("EOF", "x\n EOF\n", true)],
        ),
        (
            "RUN python <<EOF > /out\nx\nEOF",
            vec![doc("EOF", "x\n", true)],
        ),
        ("RUN echo $((1<<2))", vec![]),
        ("RUN cat <<<word", vec![]),
        ("RUN echo '<<EOF'", vec![]),
        ("RUN [\"<<EOF\"]", vec![]),
        (
            "RUN --network=none <<EOF\nx\nEOF",
            vec![doc("EOF", "x\n", true)],
        ),
    ] {
        assert_eq!(heredocs(text), expected, "{text:?}");
    }
    let kind = only("COPY a <<b <<-'c' /d/\n1\nb\n\t2\nc\n");
    let InstructionKind::Copy(copy) = kind else {
        panic!("{kind:?}")
    };
    let names: Vec<String> = copy
        .sources
        .iter()
        .map(|s| match s {
            CopySource::Path(path) => path.clone(),
            CopySource::Heredoc(doc) => format!("{}={:?}", doc.name, doc.text()),
        })
        .collect();
    assert_eq!(names, ["a", "b=\"1\\n\"", "c=\"2\\n\""]);
    // A line that isn't an instruction with heredocs.
    assert_eq!(only("CMD cat <<EOF"), shell("cat <<EOF"));
}

#[test]
fn spans_cover_heredocs_and_continuations() {
    let all = instructions("RUN a \\\n b\n\nRUN <<EOF\nx\nEOF\nCMD y");
    let spans: Vec<(usize, usize)> = all.iter().map(|i| (i.span.start, i.span.end)).collect();
    assert_eq!(spans, [(2, 3), (5, 7), (8, 8)]);
}

#[test]
fn a_second_parser_sees_the_same_instructions() {
    for text in [
        EVERYTHING,
        "FROM a\nRUN b \\\n c\nENV A=1 B=2\nCOPY [\"x y\", \"/z\"]\nCMD [\"q\"]\n",
        "ARG V=1\nFROM a:$V AS b\nFROM b\nCOPY --from=b /x /y\nENTRYPOINT x y\n",
        "FROM a\nRUN <<EOF\nx\ny\nEOF\nRUN z\n",
    ] {
        let ours = parse("Dockerfile", text).unwrap();
        let theirs = parse_dockerfile::parse(text).unwrap();
        let mut keywords: Vec<&str> = Vec::new();
        keywords.extend(ours.global_args.iter().map(|i| i.kind.keyword()));
        for stage in &ours.stages {
            keywords.push("FROM");
            keywords.extend(stage.instructions.iter().map(|i| i.kind.keyword()));
        }
        let other: Vec<String> = theirs
            .instructions
            .iter()
            .map(|i| {
                let debug = format!("{i:?}");
                let name = debug.split(['(', ' ', '{']).next().unwrap_or_default();
                name.to_ascii_uppercase()
            })
            .collect();
        assert_eq!(keywords, other);
    }
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in any::<String>()) {
        if let Err(error) = parse("Dockerfile", &text) {
            error.render();
        }
    }

    #[test]
    fn likely_text_never_panics(words in prop::collection::vec(
        prop::sample::select(vec![
            "FROM", "RUN", "COPY", "ADD", "ENV", "ARG", "HEALTHCHECK", "ONBUILD", "CMD", "a", "é",
            "--mount=type=", "--from=", "--", "<<EOF", "EOF", "\\", "\n", "\r\n", " ", "\"", "'",
            "[", "]", ",", "=", "$", "${", "}", "#", "# escape=`\n", "`", "\t", "target=/x", "<<-'",
        ]), 0..40,
    )) {
        let text = words.concat();
        for text in [text.clone(), words.join(" "), format!("FROM a\n{text}")] {
            if let Err(error) = parse("Dockerfile", &text) {
                error.render();
            }
        }
    }
}

#[test]
fn directives_are_found_where_buildkit_finds_them() {
    let escape = |text: &str| parse("Dockerfile", text).unwrap().escape;
    for text in [
        "# escape=`\nFROM a\n",
        "#ESCAPE = `\nFROM a\n",
        "  # check=skip=all\n# escape=`  \nFROM a\n",
        "# syntax=docker/dockerfile:1.4-labs\n# escape=`\nFROM a\n",
    ] {
        assert_eq!(escape(text), '`', "{text:?}");
    }
    for text in [
        "\n# escape=`\nFROM a\n",
        "# a comment\n# escape=`\nFROM a\n",
        "# unknown=1\n# escape=`\nFROM a\n",
        "#!/usr/bin/env x\n# escape=`\nFROM a\n",
        "FROM a\n# escape=`\n",
        "# escape=\nFROM a\n",
    ] {
        assert_eq!(escape(text), '\\', "{text:?}");
    }
}

#[test]
fn the_standard_frontend_has_many_names() {
    for (name, known) in [
        ("docker/dockerfile", true),
        ("docker/dockerfile:1", true),
        ("docker/dockerfile:experimental option", true),
        ("docker.io/docker/dockerfile-upstream:master-labs", true),
        (
            "mirror.example.com:5000/hub/docker/dockerfile:1.7@sha256:0",
            true,
        ),
        ("example.com/notdocker/dockerfile", false),
        ("docker/dockerfile/more", false),
        ("index.docker.io/docker/dockerfile:1.7", true),
        ("docker/dockerfile@sha256:0123", true),
        ("docker/dockerfiles", false),
        ("example.com/docker/dockerfile", true),
    ] {
        for text in [
            format!("# syntax={name}\nFROM a\n"),
            format!("#!/bin/x\n# syntax={name}\nFROM a\n"),
        ] {
            assert_eq!(parse("Dockerfile", &text).is_ok(), known, "{text:?}");
        }
    }
}

#[test]
fn a_misspelt_directive_is_warned_about() {
    let warnings = |text: &str| {
        let file = parse("Dockerfile", text).unwrap();
        let rules = file.warnings.iter().map(|w| (w.rule, w.span.start));
        rules.collect::<Vec<_>>()
    };
    let text = "# escape=`\n# sytnax=docker/dockerfile:1\nFROM a\n";
    assert_eq!(warnings(text), [("MisspeltDirective", 2)]);
    for text in [
        "# version=1\nFROM a\n",
        "# note: x = y\nFROM a\n",
        "FROM a\n# sytnax=1\n",
    ] {
        assert_eq!(warnings(text), [], "{text:?}");
    }
}

#[test]
fn some_instructions_ignore_flags() {
    for text in ["ARG --x A=1", "STOPSIGNAL --x=1 9", "HEALTHCHECK --x NONE"] {
        assert_eq!(instructions(text).len(), 1, "{text}");
    }
}

#[test]
fn an_escaped_quote_does_not_quote_a_heredoc() {
    for (word, name, expand) in [
        ("EOF", "EOF", true),
        ("'EOF'", "EOF", false),
        ("E\"O\"F", "EOF", false),
        ("E\\'F", "E'F", true),
    ] {
        let InstructionKind::Run(run) = only(&format!("RUN <<{word}\nx\n{name}\n")) else {
            panic!("{word}");
        };
        assert_eq!(
            (run.heredocs[0].name.as_str(), run.heredocs[0].expand),
            (name, expand)
        );
    }
}
