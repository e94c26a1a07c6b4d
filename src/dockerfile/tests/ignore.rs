//! Ignore files: cases documented by moby and Docker, and a naive matcher.

use std::path::Path;

use proptest::prelude::*;
use regex_automata::nfa::thompson::pikevm::PikeVM;
use rustix::time::{ClockId, clock_gettime};

use crate::dockerfile::ignore::Ignore;

#[test]
fn files_are_ignored_as_in_moby() {
    for (patterns, path, ignored) in [
        ("**", "file", true),
        ("**", "file/", true),
        ("**/", "file", true),
        ("**", "dir/file", true),
        ("**/", "dir/file", true),
        ("**/**", "dir/file", true),
        ("dir/**", "dir/file", true),
        ("dir/**", "dir/dir2/file", true),
        ("dir/**", "dirx/file", false),
        ("dir/**", "dir", false),
        ("**/dir2/*", "dir/dir2/file", true),
        ("**/dir2/*", "dir/dir2/dir2/file", true),
        ("**/dir2/**", "dir/dir2/dir2/file", true),
        ("**file", "file", true),
        ("**file", "dir/file", true),
        ("**file", "dir/dirfile", true),
        ("**/file", "dir/file", true),
        ("**/file", "dir/dir/file", true),
        ("**/file", "dir/notfile", false),
        ("**/file*", "dir/dir/file", true),
        ("**/file*", "dir/dir/file.txt", true),
        ("**/file*txt", "dir/dir/file.txt", true),
        ("**/file*.txt*", "dir/dir/file.txt", true),
        ("**/**/*.txt", "dir/dir/file.txt", true),
        ("**/**/*.txt2", "dir/dir/file.txt", false),
        ("**/*.txt", "file.txt", true),
        ("**/**/*.txt", "file.txt", true),
        ("a**/*.txt", "a/file.txt", true),
        ("a**/*.txt", "a/dir/file.txt", true),
        ("a/*.txt", "a/dir/file.txt", false),
        ("a/*.txt", "a/file.txt", true),
        ("a/*.txt**", "a/file.txt", true),
        ("a[b-d]e", "ae", false),
        ("a[b-d]e", "ace", true),
        ("a[^b-d]e", "aze", true),
        ("abc.def", "abcdef", false),
        ("abc.def", "abc.def", true),
        ("abc?def", "abcZdef", true),
        ("abc?def", "abcdef", false),
        ("a\\\\", "a\\", true),
        ("a\\*", "a*", true),
        ("a\\*", "ab", false),
        ("**/foo/bar", "foo/bar", true),
        ("**/foo/bar", "dir/foo/bar", true),
        ("abc/**", "abc/def", true),
        ("abc/**", "abc", false),
        ("**/.git", ".git/config", true),
        (".*", ".foo", true),
        (".*", "foo", false),
        ("a(b)c/def", "a(b)c/def", true),
        ("a.|)$(}+{bc", "a.|)$(}+{bc", true),
        (
            "dist/proxy.py-2.4.0rc3.dev36+g08acad9",
            "dist/proxy.py-2.4.0rc3.dev36+g08acad9",
            true,
        ),
        // Directories.
        ("dir", "dir/a/b", true),
        ("*/b", "a/b/c/d", true),
        ("/rooted", "rooted/x", true),
        ("./dot", "dot", true),
        ("a/../b/", "b/x", true),
        ("  spaced  ", "spaced", true),
        ("# comment", "# comment", false),
        (" # no comment", "# no comment", true),
        ("\u{feff}bom", "bom", true),
        ("crlf\r\nother", "crlf", true),
        (".", "x", false),
        ("/", "x", false),
        ("../x", "x", false),
        // The last that matches wins.
        ("*.md\n!README.md", "README.md", false),
        ("*.md\n!README.md", "a.md", true),
        (
            "*.md\n!README*.md\nREADME-secret.md",
            "README-secret.md",
            true,
        ),
        (
            "*.md\nREADME-secret.md\n!README*.md",
            "README-secret.md",
            false,
        ),
        ("dir\n!dir/keep", "dir/keep", false),
        ("dir\n!dir/keep", "dir/keep/below", false),
        ("dir\n!dir/keep", "dir/other", true),
        ("*\n!src", "src/main.rs", false),
        ("*\n! src", "src/main.rs", false),
        ("*\n!/src", "src/main.rs", false),
        ("*\n!src\nsrc/*.bak", "src/a.bak", true),
        ("!kept\n*", "kept", true),
        ("**\n!**/*.go", "a/b/c.go", false),
        ("**\n!**/*.go", "a/b/c.rs", true),
    ] {
        let ignore = Ignore::parse(patterns).unwrap();
        let path = Path::new(path.trim_end_matches('/'));
        assert_eq!(
            ignore.is_ignored(path),
            ignored,
            "{patterns:?} and {path:?}"
        );
    }
}

#[test]
fn patterns_mean_what_their_expressions_mean_in_go() {
    for (pattern, path, ignored) in [
        // A star or question mark in a class is translated there too.
        ("[*]", "*", false),
        ("[*]", "[]", true),
        ("[*]", "^/]", true),
        ("[?]", "[]", true),
        ("[?]", "?", false),
        ("[a**b]", "*", true),
        ("\\d*", "7x", true),
        ("\\d*", "d", false),
        ("[\\D]x", "ax", true),
        ("[^\\D]x", "7x", true),
        ("\\w?", "_x", true),
        ("[[:alpha:]]*", "a1", true),
        ("[[:^digit:]]", "1", false),
        ("[[:^digit:]]", "a", true),
        ("a\\bb", "ab", false),
        ("*\\b.md", "x.md", true),
        ("*\\Bx", "ax", true),
        ("\\Aa", "a", true),
        ("a\\z", "a", true),
        ("\\101", "A", true),
        ("\\n*", "\nx", true),
        ("^a", "a", false),
        ("^a", "^a", true),
        ("^a*", "ab", true),
        ("a]b", "a]b", true),
        ("**/a*", "b\nc/ax", false),
        ("?", "\n", true),
    ] {
        let ignore = Ignore::parse(pattern).unwrap();
        let found = ignore.is_ignored(Path::new(path));
        assert_eq!(found, ignored, "{pattern:?} and {path:?}");
    }
}

#[test]
fn patterns_of_flags_have_no_comments_and_keep_their_slash() {
    let ignored = |patterns: &[&str], path: &str| {
        let patterns: Vec<String> = patterns.iter().map(|p| (*p).to_owned()).collect();
        Ignore::new(&patterns).unwrap().is_ignored(Path::new(path))
    };
    assert!(ignored(&["#x"], "#x"));
    assert!(!ignored(&["/x"], "x"));
    assert!(ignored(&[" x/ "], "x"));
    assert!(!ignored(&["x", "!x/y"], "x/y"));
    assert!(ignored(&["x", "! x/y"], "x/y"));
    assert!(Ignore::new(&["a".to_owned(), "[".to_owned()]).is_err());
}

#[test]
fn malformed_patterns_are_errors_with_their_line() {
    for (text, line) in [
        ("a\n[", 2),
        ("!", 1),
        ("a\\", 1),
        ("# c\n\n[]a]", 3),
        ("[a-]", 1),
        ("a\n[z-a]", 2),
        ("node\\modules", 1),
        ("!/", 1),
        ("a\\1", 1),
        ("[[:nothing:]]", 1),
    ] {
        assert_eq!(Ignore::parse(text).unwrap_err().line, line, "{text}");
    }
}

#[test]
fn directories_are_skipped_only_if_nothing_in_them_is_kept() {
    for (patterns, dir, skipped) in [
        ("target", "target", true),
        ("target", "src", false),
        ("*\n!src", "target", true),
        ("*\n!src", "src", false),
        ("*\n!src/main.rs", "src", false),
        ("*\n!src/main.rs", "srcs", true),
        ("*\n!*.md", "docs", true),
        ("*\n!**/*.md", "docs", false),
        ("*\n!docs/*/a", "docs", false),
        ("*\n!docs/*/a", "docs/x", false),
        ("*\n!docs/*/a", "docs/x/y", true),
        ("docs\n!docs", "docs", false),
    ] {
        let ignore = Ignore::parse(patterns).unwrap();
        let mut verdict = ignore.root();
        let mut ancestors: Vec<&Path> = Path::new(dir).ancestors().collect();
        ancestors.pop();
        for path in ancestors.into_iter().rev() {
            verdict = ignore.child(&verdict, path);
        }
        let skip = ignore.may_skip(&verdict, Path::new(dir));
        assert_eq!(skip, skipped, "{patterns:?} and {dir}");
    }
}

#[test]
fn hostile_patterns_take_no_time() {
    let pattern = "*a".repeat(200) + &"**/".repeat(200) + "b";
    let ignore = Ignore::parse(&pattern).unwrap();
    let path = "a".repeat(2_000);
    assert!(!ignore.is_ignored(Path::new(&path)));
}

/// Nanoseconds that this thread has computed.
fn processor_time() -> i64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

/// Eight times the patterns or the files take some eight times as long; were the time
/// quadratic in either, it would be 64 times as long.
#[test]
fn time_is_linear_in_patterns_and_in_files() {
    let time = |patterns: usize, files: usize| {
        let lines: Vec<String> = (0..patterns)
            .map(|n| match n % 5 {
                0 => format!("**/*.tmp{n}"),
                1 => format!("dir{n}/**/cache"),
                2 => format!("*{n}/build[0-9]?/*"),
                3 => format!("!src/keep{n}/**"),
                _ => format!("some/file{n}"),
            })
            .collect();
        let ignore = Ignore::parse(&lines.join("\n")).unwrap();
        let paths: Vec<String> = (0..files)
            .map(|n| format!("some/dir{n}/of/file{n}.rs"))
            .collect();
        let run = || {
            let began = processor_time();
            let ignored = paths
                .iter()
                .filter(|p| ignore.is_ignored(Path::new(p)))
                .count();
            assert_eq!(ignored, 0);
            processor_time() - began
        };
        (0..5).map(|_| run()).min().unwrap()
    };
    let base = time(25, 50);
    for (patterns, files) in [(200, 50), (25, 400)] {
        let ratio = time(patterns, files) / base;
        assert!(
            ratio < 32,
            "{patterns} patterns and {files} files take {ratio} times as long"
        );
    }
}

/// moby/patternmatcher, step by step: the kind of match, and the regular expression.
fn moby(pattern: &str, path: &str) -> bool {
    let mut expression = String::from("^");
    let mut kind = "exact";
    let chars: Vec<char> = pattern.chars().collect();
    let (mut at, mut first) = (0, true);
    while at < chars.len() {
        let c = chars[at];
        at += 1;
        match c {
            '*' if chars.get(at) == Some(&'*') => {
                at += 1;
                if chars.get(at) == Some(&'/') {
                    at += 1;
                }
                if at == chars.len() {
                    if kind == "exact" {
                        kind = "prefix";
                    } else {
                        kind = "regexp";
                        expression.push_str(".*");
                    }
                } else {
                    kind = "regexp";
                    expression.push_str("(.*/)?");
                }
                if first {
                    kind = "suffix";
                }
            }
            '*' | '?' => {
                kind = "regexp";
                expression.push_str(if c == '*' { "[^/]*" } else { "[^/]" });
            }
            '\\' => {
                kind = "regexp";
                expression.extend(['\\', chars[at]]);
                at += 1;
            }
            '[' | ']' => {
                kind = "regexp";
                expression.push(c);
            }
            '.' | '+' | '(' | ')' | '|' | '{' | '}' | '$' => expression.extend(['\\', c]),
            c => expression.push(c),
        }
        first = false;
    }
    match kind {
        "exact" => path == pattern,
        "prefix" => path.starts_with(&pattern[..pattern.len() - 2]),
        "suffix" => path.ends_with(&pattern[2..]) || pattern[2..].strip_prefix('/') == Some(path),
        _ => {
            let matcher = PikeVM::new(&format!("{expression}$")).unwrap();
            matcher.is_match(&mut matcher.create_cache(), path)
        }
    }
}

/// The meaning of one pattern by trying all ways.
fn naive(pattern: &[u8], path: &[u8]) -> bool {
    match (pattern, path) {
        ([], []) => true,
        ([b'*', b'*'] | [b'*', b'*', b'/'], _) => true,
        ([b'*', b'*', rest @ ..], _) => {
            let rest = rest.strip_prefix(b"/").unwrap_or(rest);
            naive(rest, path)
                || (0..path.len()).any(|i| path[i] == b'/' && naive(rest, &path[i + 1..]))
        }
        ([b'*', rest @ ..], _) => {
            let end = path.iter().position(|b| *b == b'/').unwrap_or(path.len());
            (0..=end).any(|i| naive(rest, &path[i..]))
        }
        ([b'?', rest @ ..], [c, tail @ ..]) => *c != b'/' && naive(rest, tail),
        ([p, rest @ ..], [c, tail @ ..]) => p == c && naive(rest, tail),
        _ => false,
    }
}

/// One decision after the other, down the path.
fn naive_ignored(rules: &[(bool, String)], path: &str) -> bool {
    let mut above = vec![false; rules.len()];
    let mut ignored = false;
    let ends = path
        .match_indices('/')
        .map(|(at, _)| at)
        .chain([path.len()]);
    for end in ends {
        ignored = false;
        for (index, (exception, pattern)) in rules.iter().enumerate() {
            let suffix = pattern.starts_with("**") && !pattern[2..].starts_with('/');
            let matches = || match pattern.strip_prefix("**") {
                Some(rest) if suffix && !rest.contains(['*', '?']) => path[..end].ends_with(rest),
                _ => naive(pattern.as_bytes(), &path.as_bytes()[..end]),
            };
            above[index] = above[index] || (*exception == ignored && matches());
            if above[index] {
                ignored = !exception;
            }
        }
    }
    ignored
}

proptest! {
    #[test]
    fn equals_the_naive_matcher(
        rules in prop::collection::vec((any::<bool>(), "[ab*?]{1,4}(/[ab*?]{1,4}){0,2}"), 0..5),
        paths in prop::collection::vec("[ab]{1,3}(/[ab]{1,3}){0,3}", 8),
    ) {
        let lines: Vec<String> = rules
            .iter()
            .map(|(exception, p)| format!("{}{p}", if *exception { "!" } else { "" }))
            .collect();
        let ignore = Ignore::parse(&lines.join("\n")).unwrap();
        for path in &paths {
            let expected = naive_ignored(&rules, path);
            prop_assert_eq!(ignore.is_ignored(Path::new(path)), expected, "{:?} {}", lines, path);
        }
    }

    #[test]
    fn one_pattern_equals_its_regular_expression(
        pattern in r"([ab.+^]|\*|\*\*|\?|\[[ab]\]|\[\^a\]|\[a-c\]|\\[*.?]){1,4}(/([ab.]|\*|\*\*|\?|\[\^b\]){1,3}){0,3}",
        paths in prop::collection::vec("[abc.+*^]{1,3}(/[abc.]{1,3}){0,3}", 12),
    ) {
        let ignore = Ignore::new(std::slice::from_ref(&pattern)).unwrap();
        // What moby matches is cleaned.
        prop_assume!(!pattern.split('/').any(|part| matches!(part, "." | ".." | "")));
        for path in &paths {
            let verdict = ignore.child(&ignore.root(), Path::new(path));
            prop_assert_eq!(verdict.ignored, moby(&pattern, path), "{} and {}", pattern, path);
        }
    }

    #[test]
    fn what_is_skipped_holds_nothing_that_is_kept(
        rules in prop::collection::vec((any::<bool>(), "[ab*?]{1,3}(/[ab*?]{1,3}){0,2}"), 1..5),
        dir in "[ab]{1,3}(/[ab]{1,3}){0,1}",
        below in prop::collection::vec("[ab]{1,3}(/[ab]{1,3}){0,1}", 8),
    ) {
        let lines: Vec<String> = rules
            .iter()
            .map(|(exception, p)| format!("{}{p}", if *exception { "!" } else { "" }))
            .collect();
        let ignore = Ignore::parse(&lines.join("\n")).unwrap();
        let mut verdict = ignore.root();
        for (at, _) in dir.match_indices('/').chain([(dir.len(), "")]) {
            verdict = ignore.child(&verdict, Path::new(&dir[..at]));
        }
        if ignore.may_skip(&verdict, Path::new(&dir)) {
            for path in below {
                prop_assert!(ignore.is_ignored(&Path::new(&dir).join(path)));
            }
        }
    }

    #[test]
    fn parsing_never_panics(text in any::<String>(), path in "\\PC*") {
        if let Ok(ignore) = Ignore::parse(&text) {
            ignore.is_ignored(Path::new(&path));
        }
    }
}
