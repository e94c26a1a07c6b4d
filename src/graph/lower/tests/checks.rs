//! Build checks that need lowering, and outlines.

use super::*;
use crate::{
    dockerfile::lint::RULES,
    graph::lower::{Check, Outline},
};

/// Rules with their lines, and whether lowering went well. `*.log` is ignored.
fn check(
    text: &str,
    build_args: &[(&str, &str)],
    change: impl FnOnce(&mut ImageTable),
) -> (Vec<(&'static str, usize)>, Result<Lowered, LowerError>) {
    let dockerfile = parse("Dockerfile", text).unwrap();
    let input = LowerInput {
        build_args: args(build_args),
        ..input(&dockerfile)
    };
    let mut graph = graph();
    graph.contexts[0].ignore = "*.log\n".to_owned();
    let check = Check::new(&input).unwrap();
    let mut table = images(&check.images(&ImageTable::new()).unwrap());
    change(&mut table);
    let lowered = check.run(&mut graph, &table);
    let found = check.warnings();
    let place = |w: &crate::graph::lower::LowerWarning| w.location.as_ref().unwrap().start;
    (found.iter().map(|w| (w.rule, place(w))).collect(), lowered)
}

fn rules(text: &str) -> Vec<(&'static str, usize)> {
    check(text, &[], |_| {}).0
}

#[test]
fn the_examples_of_each_rule_show_it() {
    let all = [
        ("BUILDKIT_DOCKERFILE_CHECK", "experimental=all"),
        ("TAG", "latest"),
    ];
    let names = |text: &str| -> Vec<&str> {
        let (found, lowered) = check(text, &all, |_| {});
        assert!(lowered.is_ok(), "{text}: {lowered:?}");
        found.iter().map(|(rule, _)| *rule).collect()
    };
    for rule in RULES {
        if rule.name == "InvalidBaseImagePlatform" {
            assert_eq!((rule.bad, rule.good), ("", ""));
            continue;
        }
        assert_eq!(names(rule.bad), [rule.name]);
        assert_eq!(names(rule.good), [""; 0], "{}", rule.name);
    }
}

#[test]
fn base_images_for_another_platform() {
    let text = "FROM a\nCOPY --from=b / /\nFROM --platform=$BUILDPLATFORM c\nFROM d\n";
    let change = |table: &mut ImageTable| {
        for ((reference, _), image) in table.iter_mut() {
            if reference != "d" {
                image.config.architecture = "s390x".to_owned();
            }
        }
    };
    let rule = "InvalidBaseImagePlatform";
    assert_eq!(
        check(text, &[], change).0,
        [(rule, 1), (rule, 2), (rule, 3)]
    );
    assert_eq!(rules(text), []);
}

#[test]
fn all_stages_are_checked_unless_one_is_named() {
    let text = "FROM scratch AS unused\nLABEL a=$X\nFROM scratch AS used\nLABEL a=$Y\n";
    assert_eq!(rules(text), [("UndefinedVar", 2), ("UndefinedVar", 4)]);
    let dockerfile = parse("Dockerfile", text).unwrap();
    let input = LowerInput {
        target_stage: Some("used".to_owned()),
        ..input(&dockerfile)
    };
    let check = Check::new(&input).unwrap();
    check.run(&mut graph(), &ImageTable::new()).unwrap();
    assert_eq!(check.warnings().len(), 1);
}

#[test]
fn what_was_found_before_a_failure_is_kept() {
    let (found, lowered) = check("FROM scratch\nLABEL a b\nSTOPSIGNAL NOPE\n", &[], |_| {});
    assert_eq!(found, [("LegacyKeyValueFormat", 2)]);
    assert!(lowered.unwrap_err().to_string().contains("NOPE"));
}

#[test]
fn violations_are_errors_when_the_file_says_so() {
    let text = "# check=error=true\nFROM scratch\nCMD a\nLABEL a b\n";
    let message = "build checks of `Dockerfile` failed: \
                   JSONArgsRecommended (line 3), LegacyKeyValueFormat (line 4)";
    let (found, lowered) = check(text, &[], |_| {});
    assert_eq!(found.len(), 2);
    assert_eq!(lowered.unwrap_err().to_string(), message);
    let dockerfile = parse("Dockerfile", text).unwrap();
    let error = try_lower(&mut graph(), &input(&dockerfile)).unwrap_err();
    assert_eq!(error.to_string(), message);
    // What no rule is about isn't a violation.
    let text = "# check=error=true\nFROM scratch\n";
    let unused = [("UNUSED", "1")];
    assert!(check(text, &unused, |_| {}).1.is_ok());
}

#[test]
fn settings_that_cannot_be_read_are_errors() {
    let dockerfile = parse(
        "Dockerfile",
        "#syntax=docker/dockerfile\n# check=a\nFROM a\n",
    )
    .unwrap();
    let error = try_lower(&mut graph(), &input(&dockerfile)).unwrap_err();
    let message = "Dockerfile:2: can't read `# check=`: `a` is not \
                   `skip=…`, `experimental=…` or `error=…`";
    assert_eq!(error.to_string(), message);
    // The build argument replaces them.
    let build_args = args(&[("BUILDKIT_DOCKERFILE_CHECK", "skip=all")]);
    let input = LowerInput {
        build_args,
        ..input(&dockerfile)
    };
    assert!(try_lower(&mut graph(), &input).is_ok());
}

#[test]
fn an_outline_has_what_the_target_needs() {
    let text = "\
# A is global
ARG A=a
ARG B=${A}b
ARG UNUSED
FROM scratch${B:+} AS base
# C counts
ARG C=c
FROM scratch AS other
ARG D
# last of all
FROM base AS last
ARG A
ARG C=again
";
    let outline = |text: &str| -> Outline { build(text, &[("B", "")]).1.outline };
    let found = outline(text);
    let args: Vec<(&str, Option<&str>, Option<&str>, usize)> = found
        .args
        .iter()
        .map(|a| {
            let (value, words) = (a.value.as_deref(), a.description.as_deref());
            (a.name.as_str(), value, words, a.span.start)
        })
        .collect();
    assert_eq!(
        args,
        [
            ("A", Some("a"), Some("is global"), 2),
            ("B", Some(""), None, 3),
            ("C", Some("again"), None, 13),
        ]
    );
    assert_eq!(found.name.as_deref(), Some("last"));
    assert_eq!(found.description.as_deref(), Some("of all"));
}
