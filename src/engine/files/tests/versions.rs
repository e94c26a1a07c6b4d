//! What COPY's rules give belongs to a version of the definition key: a layer that was found by
//! its definition alone must be the one that the rules of today would give.

use std::fmt::Write as _;

use super::*;
use crate::key::KeyKind;

/// The page that says which rules a version has.
const SPECIFICATION: &str = include_str!("../../../../docs/internals/cache-key-spec.md");

const ROOT: &[&str] = &[
    "etc/",
    "etc/passwd",
    "etc/group",
    "full/ @2750 5 6",
    "full/d/ @700 5 6",
    "full/d/e @600 5 6",
    "full/a @4711 5 6",
    "to -> full",
    "nowhere -> gone",
];

const CONTEXT: &[&str] = &[
    "a",
    "b.md",
    "d/ @1777 1 2",
    "d/e @755 1 2",
    "d/h => d/e",
    "d/s/ @700",
    "d/s/f.md",
    "d/s/g @4640 3 4",
    "d/.hidden",
    "l -> d/e",
    "dl -> d",
];

/// Copies that stand for COPY's rules: each form of source, each flag alone and flags together.
fn copies() -> Vec<CopyAction> {
    let symbolic = |text: &str| Some(ModeChange::Symbolic(text.to_owned()));
    let mut all = Vec::new();
    for sources in [
        &["a"][..],
        &["d"],
        &["."],
        &["*"],
        &["d/*", "l"],
        &["dl"],
        &["d/s/"],
        &["[ab]*"],
        &["d/./s/f.md"],
        &["**/*.md"],
    ] {
        for dest in ["/", "/new", "/new/", "/full", "/to/x/", "/nowhere/"] {
            all.push(copy(sources, dest));
        }
        let flags: [fn(&mut CopyAction); 6] = [
            |c| c.parents = true,
            |c| c.link = true,
            |c| c.exclude = vec!["**/*.md".to_owned(), "!d/s/f.md".to_owned()],
            |c| c.exclude = vec!["d".to_owned()],
            |c| c.owner = Some("app".to_owned()),
            |c| c.owner = Some("ghost:web".to_owned()),
        ];
        for flag in flags {
            for parents in [false, true] {
                let mut copy = copy(sources, "/full/new/");
                copy.parents = parents;
                flag(&mut copy);
                all.push(copy);
            }
        }
        for mode in [
            exact(0o640),
            exact(0o4755),
            symbolic("u+x,go-w"),
            symbolic("a=rX"),
            symbolic("g=u,+t"),
        ] {
            for dest in ["/full", "/new/x/"] {
                let mut copy = copy(sources, dest);
                copy.mode.clone_from(&mode);
                all.push(copy);
            }
        }
    }
    all
}

/// All that the copies give, as text.
fn results() -> String {
    let mut out = String::new();
    for (number, copy) in copies().into_iter().enumerate() {
        let given = match copied(ROOT, CONTEXT, copy) {
            Ok(lines) => lines.join("\n"),
            // Refused copies have no entries in any cache.
            Err(_) => continue,
        };
        let _ = writeln!(out, "{number}\n{given}");
    }
    let made = [
        FileAction::MakeDir {
            path: "/full/made/deep".to_owned(),
            owner: Some("app".to_owned()),
        },
        FileAction::Write {
            dest: "/full/made/".to_owned(),
            name: "name".to_owned(),
            content: b"text\n".to_vec(),
            owner: None,
            mode: exact(0o600),
        },
    ];
    for action in made {
        let given = done(ROOT, action).unwrap();
        let _ = writeln!(out, "{}", given.join("\n"));
    }
    out
}

#[test]
fn new_rules_have_a_new_version() {
    let results = results();
    assert!(results.lines().count() > 1000, "too few copies succeed");
    let digest = Blake3Digest::of(results.as_bytes()).hex();
    let context = KeyKind::Definition.context();
    let version = context.rsplit(' ').next().unwrap();
    let words = format!("as of definition key {version}, has the BLAKE3 digest\n`{digest}`");
    assert!(
        SPECIFICATION.contains(&words),
        "COPY gives other layers for the same definitions: raise the version in \
         `KeyKind::context`, enter the old one under \"Versions\" in cache-key-spec.md, \
         where it should say\n{words}"
    );
}
