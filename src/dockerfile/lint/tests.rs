//! Settings, and the rules that need only the file.

use super::*;
use crate::dockerfile::parse;

fn found(text: &str, settings: &str) -> Vec<(&'static str, usize)> {
    let dockerfile = parse("Dockerfile", text).unwrap();
    let settings = Settings::parse(settings).unwrap();
    check_file(&dockerfile, &settings)
        .iter()
        .map(|v| (v.rule, v.span.start))
        .collect()
}

#[test]
fn settings_are_read_as_buildkit_reads_them() {
    let settings = Settings::parse(" skip = StageNameCasing, FromAsCasing ;error= true").unwrap();
    assert!(settings.error);
    let has = |settings: &Settings, name| settings.has(rule(name).unwrap());
    assert!(!has(&settings, "StageNameCasing"));
    assert!(!has(&settings, "FromAsCasing"));
    assert!(has(&settings, "UndefinedVar"));
    assert!(!has(&settings, "InvalidDefinitionDescription"));
    let settings = Settings::parse("skip=all;experimental=all").unwrap();
    assert!(!has(&settings, "UndefinedVar"));
    assert!(has(&settings, "InvalidDefinitionDescription"));
    assert_eq!(Settings::parse("").unwrap(), Settings::default());
    for (text, message) in [
        (
            "skip",
            "`skip` is not `skip=…`, `experimental=…` or `error=…`",
        ),
        (
            "a=b",
            "`a=b` is not `skip=…`, `experimental=…` or `error=…`",
        ),
        ("error=yes", "`yes` in `error=yes` is not `true` or `false`"),
    ] {
        assert_eq!(Settings::parse(text).unwrap_err().to_string(), message);
    }
}

#[test]
fn the_directive_stands_at_the_top() {
    for (text, found) in [
        ("# check=skip=A\nFROM x", Some((1, "skip=A"))),
        ("#syntax=x\n#CHECK = skip=A, B\n", Some((2, "skip=A,"))),
        (
            "\u{feff}#!/bin/x\n# check=error=true",
            Some((2, "error=true")),
        ),
        ("# a comment\n# check=skip=A", None),
        ("\n# check=skip=A", None),
        ("# other=1\n# check=skip=A", None),
        ("FROM x", None),
    ] {
        assert_eq!(Settings::directive(text), found, "{text}");
    }
}

#[test]
fn comments_before_an_instruction_count_for_it_alone() {
    let text = "FROM scratch\n# check=skip=MaintainerDeprecated\nMAINTAINER a\nMAINTAINER b\n";
    assert_eq!(found(text, ""), [("MaintainerDeprecated", 4)]);
    // A setting that can't be read changes nothing.
    let text = "FROM scratch\n# check=skip\nMAINTAINER a\n";
    assert_eq!(found(text, ""), [("MaintainerDeprecated", 3)]);
    let text = "# words\n# check=experimental=InvalidDefinitionDescription\nARG A\nFROM scratch\n";
    assert_eq!(found(text, ""), [("InvalidDefinitionDescription", 3)]);
}

#[test]
fn places_are_those_of_buildkit() {
    let text = "FROM scratch AS A\nLABEL a=1 \\\n\n # c\n  b=1\nlabel c=1\nFROM a as context\n";
    assert_eq!(
        found(text, ""),
        [
            ("NoEmptyContinuation", 5),
            ("StageNameCasing", 1),
            ("FromAsCasing", 7),
            ("ReservedStageName", 7),
            ("ConsistentInstructionCasing", 6),
        ]
    );
}

fn found_before_the_error(text: &str, argument: Option<&str>) -> Vec<(&'static str, usize)> {
    let error = parse("Dockerfile", text).unwrap_err();
    let found = check_unparsed(&error, argument);
    found.iter().map(|v| (v.rule, v.span.start)).collect()
}

#[test]
fn an_unparsed_file_has_the_violations_before_its_error() {
    // What needs all stages isn't looked at: the letter case of keywords, names given twice.
    let text = "FROM scratch AS A\nMAINTAINER a\nlabel a=1\nFROM scratch AS a\nRUNN x\nMAINTAINER b\n                LABEL a \\\n\n  b\n";
    assert_eq!(
        found_before_the_error(text, None),
        [
            ("NoEmptyContinuation", 9),
            ("StageNameCasing", 1),
            ("MaintainerDeprecated", 2),
        ]
    );
    let skip = Some("skip=StageNameCasing,NoEmptyContinuation");
    assert_eq!(
        found_before_the_error(text, skip),
        [("MaintainerDeprecated", 2)]
    );
    let own = format!("# check=skip=all\n{text}");
    assert_eq!(found_before_the_error(&own, None), []);
    assert_eq!(found_before_the_error(&own, Some("")).len(), 3);
    assert_eq!(found_before_the_error(text, Some("skip")), []);
}

#[test]
fn the_instruction_with_the_error_is_looked_at() {
    for (text, found) in [
        (
            "FROM --platfrm=x scratch as A\n",
            vec![("StageNameCasing", 1), ("FromAsCasing", 1)],
        ),
        ("FROM scratch as A b\n", vec![("FromAsCasing", 1)]),
        ("FROM scratch AS A!\n", vec![("StageNameCasing", 1)]),
        (
            "FROM scratch\nMAINTAINER\n",
            vec![("MaintainerDeprecated", 2)],
        ),
        ("MAINTAINER a\n", vec![("MaintainerDeprecated", 1)]),
        ("FROM scratch\n# check=skip=all\nMAINTAINER\n", vec![]),
        ("ARG A \\\n\n  B\n", vec![("NoEmptyContinuation", 3)]),
    ] {
        assert_eq!(found_before_the_error(text, None), found, "{text}");
    }
}

#[test]
fn an_error_of_form_hides_the_violations() {
    let start = "FROM scratch AS A\nMAINTAINER a\n";
    for wrong in [
        "RUN [\"a\", 1]",
        "ENV A",
        "LABEL a=1 b",
        "ONBUILD ENV A",
        "COPY <<EOF /",
    ] {
        let text = format!("{start}{wrong}\n");
        assert_eq!(found_before_the_error(&text, None), [], "{wrong}");
    }
    for wrong in ["ENV", "LABEL =1", "ONBUILD FROM a"] {
        let text = format!("{start}{wrong}\n");
        assert_eq!(found_before_the_error(&text, None).len(), 2, "{wrong}");
    }
}

#[test]
fn the_table_is_complete_and_without_repeats() {
    for (number, rule) in RULES.iter().enumerate() {
        assert!(!RULES[..number].iter().any(|r| r.name == rule.name));
        let anchor = rule.name.to_ascii_lowercase();
        assert!(
            rule.url()
                .ends_with(&format!("/docs/reference/checks.md#{anchor}"))
        );
    }
    assert_eq!(RULES.len(), 22);
}
