//! The rules that the source holds to, checked on the source itself.
//!
//! - A module uses only modules that the table in `src/lib.rs` lists above it.
//! - Every file starts with `//!` and has no more than [`MAX_LINES`] lines of code,
//!   tests aside; no file has one of the [`FORBIDDEN_NAMES`].
//! - What is listed in [`BANS`] stands only where it may.
//! - Every file in `tests/it/` is declared in its `main.rs`.
//!
//! The checks read text, not syntax: comments, string contents and test modules are
//! blanked first, so line numbers stay.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Lines of code in a file, without tests, comments and empty lines.
const MAX_LINES: usize = 600;

/// Names that say nothing about what a file holds.
const FORBIDDEN_NAMES: &[&str] = &[
    "utils", "util", "common", "helpers", "types", "manager", "imp",
];

/// A text that is banned from `src/`, and the paths there that may have it.
struct Ban {
    text: &'static str,
    allowed: &'static [&'static str],
    reason: &'static str,
}

const BANS: &[Ban] = &[
    Ban {
        text: "std::fs",
        allowed: &[
            "fs/",
            "sys.rs",
            "cache/",
            "oci/layout",
            "snapshot/",
            "userns/",
            "sandbox/",
        ],
        reason: "files are opened by `crate::fs`, whose errors name the path",
    },
    Ban {
        text: "std::env::",
        allowed: &["config/env.rs"],
        reason: "environment variables are declared and read in `config/env.rs`",
    },
    Ban {
        text: "process::exit",
        allowed: &["main.rs"],
        reason: "the library returns; `main` exits",
    },
    Ban {
        text: "tokio::spawn",
        allowed: &[],
        reason: "tasks belong to a `JoinSet`, so that they end with their owner",
    },
    Ban {
        text: "unsafe",
        allowed: &["sys.rs"],
        reason: "unsafe code stands in `sys.rs`, each call with its argument",
    },
    Ban {
        text: "todo!",
        allowed: &[],
        reason: "what is not there is an error, not a panic",
    },
];

/// Uses of a banned text that are none: of `std::env` those that read no variable, of
/// `std::fs` the type of an open file, however it was opened.
const EXCEPTIONS: &[(&str, &[&str])] = &[
    (
        "std::env::",
        &[
            "consts",
            "current_dir",
            "current_exe",
            "set_current_dir",
            "args",
            "split_paths",
        ],
    ),
    (
        "std::fs",
        &["::File>", "::File)", "::File,", "::File ", "::File::from("],
    ),
];

#[test]
fn the_source_is_tidy() {
    let problems = check(Path::new(env!("CARGO_MANIFEST_DIR")));
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

/// All that is wrong in the tree at `root`, each as `file:line: problem`.
fn check(root: &Path) -> Vec<String> {
    let src = root.join("src");
    let lib = read(&src.join("lib.rs"));
    let order = modules(&lib);
    let mut problems = Vec::new();
    for (line, text) in (1..).zip(lib.lines()) {
        let declared = text.strip_prefix("pub mod ").or(text.strip_prefix("mod "));
        if let Some(module) = declared.and_then(|m| m.strip_suffix(';'))
            && !order.iter().any(|m| m == module)
        {
            problems.push(format!(
                "src/lib.rs:{line}: the table of modules has no `{module}`"
            ));
        }
    }
    for path in rust_files(&src) {
        let name = path.strip_prefix(&src).unwrap().to_str().unwrap();
        let text = read(&path);
        let file = File {
            name,
            text: &text,
            code: code(&text),
        };
        file.head(&mut problems);
        // A module's tests may lie in files of their own.
        if name.ends_with("/tests.rs") || name.contains("/tests/") {
            continue;
        }
        file.size(&mut problems);
        file.bans(&mut problems);
        file.order(&order, &mut problems);
    }
    undeclared_tests(root, &mut problems);
    problems
}

/// The modules in the order of the table in `lib.rs`, with its rows like
/// ``//! | formats | [`oci`], [`dockerfile`] |``. Their declarations can't say the order:
/// rustfmt sorts them.
fn modules(lib: &str) -> Vec<String> {
    lib.lines()
        .filter_map(|line| line.strip_prefix("//! | ")?.split_once(" | ["))
        .flat_map(|(_, modules)| modules.split('`').skip(1).step_by(2))
        .map(str::to_owned)
        .collect()
}

/// A file below `src/`.
struct File<'a> {
    /// Path from `src/`.
    name: &'a str,
    text: &'a str,
    /// The text with comments, strings and tests blanked.
    code: String,
}

impl File<'_> {
    fn say(&self, line: usize, problem: &str, problems: &mut Vec<String>) {
        problems.push(format!("src/{}:{line}: {problem}", self.name));
    }

    /// The first line and the name.
    fn head(&self, problems: &mut Vec<String>) {
        if !self.text.starts_with("//! ") {
            self.say(1, "starts without `//!` and what it is for", problems);
        }
        let stem = Path::new(self.name).file_stem().unwrap().to_str().unwrap();
        if FORBIDDEN_NAMES.contains(&stem) {
            let problem = format!("`{stem}` says nothing about what it holds");
            self.say(1, &problem, problems);
        }
    }

    fn size(&self, problems: &mut Vec<String>) {
        let lines = self.code.lines().filter(|l| !l.trim().is_empty()).count();
        if lines > MAX_LINES {
            let problem = format!("has {lines} lines of code, more than {MAX_LINES}");
            self.say(1, &problem, problems);
        }
    }

    fn bans(&self, problems: &mut Vec<String>) {
        for ban in BANS {
            if ban.allowed.iter().any(|path| self.name.starts_with(path)) {
                continue;
            }
            for (number, line) in (1..).zip(self.code.lines()) {
                if uses(line, ban.text) {
                    let problem = format!("`{}`: {}", ban.text, ban.reason);
                    self.say(number, &problem, problems);
                }
            }
        }
    }

    /// Whether all modules it uses stand above its own.
    fn order(&self, order: &[String], problems: &mut Vec<String>) {
        let own = self.name.split(['/', '.']).next().unwrap();
        // The root and the program may use everything.
        if matches!(own, "lib" | "main") {
            return;
        }
        let Some(own_rank) = order.iter().position(|m| m == own) else {
            self.say(
                1,
                &format!("`lib.rs` does not list module `{own}`"),
                problems,
            );
            return;
        };
        for (line, used) in crate_uses(&self.code) {
            match order.iter().position(|m| *m == used) {
                None => {
                    let problem = format!("uses `crate::{used}`, which `lib.rs` does not list");
                    self.say(line, &problem, problems);
                }
                Some(rank) if rank > own_rank => {
                    let problem = format!("`{own}` uses `{used}`, which `lib.rs` lists below it");
                    self.say(line, &problem, problems);
                }
                Some(_) => {}
            }
        }
    }
}

/// Whether `line` has `text` as whole words.
fn uses(line: &str, text: &str) -> bool {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(text).any(|(at, _)| {
        let after = &line[at + text.len()..];
        let excepted = |(ban, uses): &(&str, &[&str])| {
            *ban == text && uses.iter().any(|u| after.starts_with(u))
        };
        if EXCEPTIONS.iter().any(excepted) {
            return false;
        }
        let ends = text.ends_with(':') || !after.starts_with(word);
        // `unsafe_code` and `r#unsafe` are other words.
        ends && !line[..at].ends_with(word)
    })
}

/// The modules after `crate::`, with their lines; groups are taken apart.
fn crate_uses(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, start) in code.match_indices("crate::") {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = at + start.len();
        if code[rest..].starts_with('{') {
            let mut depth = 0;
            let mut expects = false;
            for (i, c) in code[rest..].char_indices() {
                match c {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    _ => {}
                }
                if depth == 0 {
                    break;
                }
                if depth == 1 && expects && !c.is_whitespace() {
                    found.extend(named(code, rest + i));
                    expects = false;
                }
                expects |= depth == 1 && (c == '{' || c == ',');
            }
        } else {
            found.extend(named(code, rest));
        }
    }
    found
}

/// The name that starts at byte `at` of `code`, with its line.
fn named(code: &str, at: usize) -> Option<(usize, String)> {
    let name: String = code[at..]
        .chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect();
    let line = 1 + code[..at].matches('\n').count();
    (!name.is_empty() && name != "self").then_some((line, name))
}

/// `text` without comments, contents of strings, and everything from the first
/// `#[cfg(test)]` at the start of a line; line ends stay.
fn code(text: &str) -> String {
    let end = text
        .match_indices("#[cfg(test)]")
        .find(|(at, _)| *at == 0 || text[..*at].ends_with('\n'))
        .filter(|(at, _)| text[*at..].contains('{'))
        .map_or(text.len(), |(at, _)| at);
    let mut out = String::with_capacity(end);
    let mut rest = &text[..end];
    while let Some(c) = rest.chars().next() {
        let length = match c {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |at| at + 2),
            'r' if !out.ends_with(|c: char| c.is_alphanumeric() || c == '_') => raw_string(rest),
            '"' => string(rest),
            '\'' => character(rest),
            _ => 0,
        };
        if length == 0 {
            out.push(c);
            rest = &rest[c.len_utf8()..];
        } else {
            let lines = rest[..length].matches('\n').count();
            // Something must stay, or a line of a string would count as empty.
            if c != '/' {
                out.push_str("\"\"");
            }
            out.extend(std::iter::repeat_n('\n', lines));
            rest = &rest[length..];
        }
    }
    out
}

/// Bytes of the string literal at the start of `text`.
fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Bytes of the raw string at the start of `text`, 0 if it is none.
fn raw_string(text: &str) -> usize {
    let hashes = text[1..].bytes().take_while(|b| *b == b'#').count();
    if !text[1 + hashes..].starts_with('"') {
        return 0;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    let body = 2 + hashes;
    text[body..]
        .find(&end)
        .map_or(text.len(), |at| body + at + end.len())
}

/// Bytes of the character literal at the start of `text`, 0 if it is a lifetime.
fn character(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => text[3..].find('\'').map_or(0, |at| at + 4),
        Some(_) => match chars.next() {
            Some((at, '\'')) => at + 1,
            _ => 0,
        },
        None => 0,
    }
}

/// Files of `tests/it/` that no `mod` brings in would never run.
fn undeclared_tests(root: &Path, problems: &mut Vec<String>) {
    let dir = root.join("tests/it");
    let main = read(&dir.join("main.rs"));
    for path in rust_files(&dir) {
        let name = path.strip_prefix(&dir).unwrap();
        // `x/mod.rs` is module `x`; deeper files are the module's own matter.
        let stem = match name.components().count() {
            1 => name.file_stem().unwrap().to_str().unwrap(),
            2 if name.ends_with("mod.rs") => name.parent().unwrap().to_str().unwrap(),
            _ => continue,
        };
        if stem != "main" && !main.lines().any(|l| l.trim() == format!("mod {stem};")) {
            problems.push(format!(
                "tests/it/{}:1: `main.rs` does not declare it, so it never runs",
                name.display()
            ));
        }
    }
}

/// All `.rs` files below `dir`, sorted.
fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("can't read `{}`: {e}", path.display()))
}

/// The problems of a tree with these files, beside a tidy `lib.rs` and `main.rs`.
fn problems_of(files: &[(&str, &str)]) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let lib = "//! Lib.\n//! | a | [`low`] |\n//! | b | [`mid`], [`high`] |\npub mod high;\npub mod low;\n";
    let own = [
        ("src/lib.rs", lib),
        ("tests/it/main.rs", "//! Tests.\nmod declared;\n"),
        ("tests/it/declared.rs", "//! Declared.\n"),
    ];
    for (name, text) in own.iter().chain(files) {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    check(dir.path())
}

#[test]
fn a_tidy_tree_has_no_problem() {
    let low = "//! Low: see crate::high.\n\
        /* crate::high */ const A: &str = \"crate::high std::fs\"; // unsafe\n\
        const B: &str = r#\"\"crate::high\"#; const C: char = '\"'; fn f<'a>() {}\n\
        #[cfg(test)]\nmod tests {\n    use crate::high;\n    use std::fs;\n}\n";
    let high = "//! High.\nuse crate::{low::{self, a}, low};\nfn f(x: std::fs::File) { std::env::consts::ARCH; }\n";
    let tests = "//! Tests.\nuse crate::high;\nuse std::fs;\n";
    let files = [
        ("src/low.rs", low),
        ("src/low/tests.rs", tests),
        ("src/high.rs", high),
    ];
    assert_eq!(problems_of(&files), Vec::<String>::new());
}

#[test]
fn each_rule_finds_its_offender() {
    let long = format!("//! Long.\n{}", "fn f() {}\n\n// c\n".repeat(601));
    let cases: &[(&str, &str, &str)] = &[
        (
            "src/low.rs",
            "//! Low.\n\nuse crate::high::X;\n",
            "src/low.rs:3: `low` uses `high`, which `lib.rs` lists below it",
        ),
        (
            "src/low/deep.rs",
            "//! Low.\nuse crate::{\n    low::{a, b},\n    high,\n};\n",
            "src/low/deep.rs:4: `low` uses `high`, which `lib.rs` lists below it",
        ),
        (
            "src/mid.rs",
            "//! Mid.\nuse crate::low;\nuse crate::high;\n",
            "src/mid.rs:3: `mid` uses `high`, which `lib.rs` lists below it",
        ),
        (
            "src/lib.rs",
            "//! | a | [`low`] |\npub mod low;\npub mod more;\n",
            "src/lib.rs:3: the table of modules has no `more`",
        ),
        (
            "src/low.rs",
            "//! Low.\nuse crate::gone;\n",
            "src/low.rs:2: uses `crate::gone`, which `lib.rs` does not list",
        ),
        (
            "src/other.rs",
            "//! Other.\n",
            "src/other.rs:1: `lib.rs` does not list module `other`",
        ),
        (
            "src/low.rs",
            "fn f() {}\n",
            "src/low.rs:1: starts without `//!` and what it is for",
        ),
        (
            "src/low/utils.rs",
            "//! Utils.\n",
            "src/low/utils.rs:1: `utils` says nothing about what it holds",
        ),
        (
            "src/low.rs",
            &long,
            "src/low.rs:1: has 601 lines of code, more than 600",
        ),
        (
            "src/low.rs",
            "//! Low.\nfn f() { std::fs::read(\"x\") }\n",
            "src/low.rs:2: `std::fs`: files are opened by `crate::fs`, whose errors name the path",
        ),
        (
            "src/low.rs",
            "//! Low.\nfn f() { std::env::var_os(\"x\") }\n",
            "src/low.rs:2: `std::env::`: environment variables are declared and read in `config/env.rs`",
        ),
        (
            "src/low.rs",
            "//! Low.\nfn f() { std::process::exit(1) }\n",
            "src/low.rs:2: `process::exit`: the library returns; `main` exits",
        ),
        (
            "src/low.rs",
            "//! Low.\nfn f() { tokio::spawn(x) }\n",
            "src/low.rs:2: `tokio::spawn`: tasks belong to a `JoinSet`, so that they end with their owner",
        ),
        (
            "src/low.rs",
            "//! Low.\nfn f() { unsafe { x() } }\n",
            "src/low.rs:2: `unsafe`: unsafe code stands in `sys.rs`, each call with its argument",
        ),
        (
            "tests/it/lost.rs",
            "//! Lost.\n",
            "tests/it/lost.rs:1: `main.rs` does not declare it, so it never runs",
        ),
    ];
    for (name, text, problem) in cases {
        assert_eq!(problems_of(&[(name, text)]), [*problem], "{name}");
    }
}
