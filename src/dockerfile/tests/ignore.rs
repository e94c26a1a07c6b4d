//! Ignore files: cases documented by moby and Docker, and a naive matcher.

use std::path::Path;

use proptest::prelude::*;

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
fn malformed_patterns_are_errors_with_their_line() {
    for (text, line) in [
        ("a\n[", 2),
        ("!", 1),
        ("a\\", 1),
        ("# c\n\n[]a]", 3),
        ("[a-]", 1),
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
