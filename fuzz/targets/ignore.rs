//! Ignore files and paths: decided as by a reference that follows the rules of
//! moby/patternmatcher word by word and leaves the matching to the crate `regex`.
//!
//! Input: patterns, a line `--`, paths.
#![no_main]

use std::path::Path;

use libfuzzer_sys::{Corpus, fuzz_target};
use memobuild_ci::dockerfile::ignore::Ignore;

fuzz_target!(|data: &[u8]| -> Corpus {
    let Ok(text) = std::str::from_utf8(data) else {
        return Corpus::Reject;
    };
    let Some((patterns, paths)) = text.split_once("\n--\n") else {
        return Corpus::Reject;
    };
    let Ok(ignore) = Ignore::parse(patterns) else {
        return Corpus::Keep;
    };
    let rules = reference::rules(patterns);
    for path in paths.lines().filter(|path| is_path(path)) {
        if let Some(rules) = &rules {
            let expected = reference::is_ignored(rules, path);
            let ours = ignore.is_ignored(Path::new(path));
            assert_eq!(ours, expected, "{patterns:?} and {path:?}");
        }
        check_walk(&ignore, path);
    }
    Corpus::Keep
});

/// A path as a walk of a directory gives it.
fn is_path(path: &str) -> bool {
    !path.is_empty() && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// A walk that skips what may be skipped misses nothing that the build sees.
fn check_walk(ignore: &Ignore, path: &str) {
    let mut verdict = ignore.root();
    for (at, _) in path.match_indices('/') {
        let directory = Path::new(&path[..at]);
        verdict = ignore.child(&verdict, directory);
        if ignore.may_skip(&verdict, directory) {
            assert!(ignore.is_ignored(Path::new(path)), "skipped: {path:?}");
            return;
        }
    }
}

/// moby/patternmatcher, retold: every pattern becomes a regular expression.
mod reference {
    use regex::Regex;

    pub(crate) struct Rule {
        exception: bool,
        matcher: Matcher,
    }

    enum Matcher {
        Exact(String),
        Prefix(String),
        Suffix(String),
        Expression(Regex),
    }

    /// The rules of an ignore file; none if a pattern means another thing to our `regex`
    /// than to Go's, or is refused.
    pub(crate) fn rules(text: &str) -> Option<Vec<Rule>> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut rules = Vec::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let line = line.trim();
            if line.is_empty() {
                continue;
            }
            let (mark, pattern) = match line.strip_prefix('!') {
                Some(rest) => ("!", rest.trim()),
                None => ("", line),
            };
            let mut pattern = match pattern {
                "" => String::new(),
                pattern => clean(pattern),
            };
            if pattern.len() > 1 {
                pattern = pattern
                    .strip_prefix('/')
                    .map(str::to_owned)
                    .unwrap_or(pattern);
            }
            // What reading the file gives is read again when the patterns are made.
            let pattern = format!("{mark}{pattern}");
            let pattern = pattern.trim();
            if pattern.is_empty() {
                continue;
            }
            let pattern = clean(pattern);
            let (exception, pattern) = match pattern.strip_prefix('!') {
                Some(rest) => (true, rest),
                None => (false, pattern.as_str()),
            };
            let matcher = matcher(pattern)?;
            rules.push(Rule { exception, matcher });
        }
        Some(rules)
    }

    /// Go's `filepath.Clean`.
    fn clean(path: &str) -> String {
        let rooted = path.starts_with('/');
        let mut kept: Vec<&str> = Vec::new();
        for part in path.split('/') {
            match part {
                "" | "." => {}
                ".." => match kept.last() {
                    Some(&last) if last != ".." => {
                        kept.pop();
                    }
                    _ if rooted => {}
                    _ => kept.push(".."),
                },
                part => kept.push(part),
            }
        }
        match (rooted, kept.is_empty()) {
            (true, _) => format!("/{}", kept.join("/")),
            (false, true) => ".".to_owned(),
            (false, false) => kept.join("/"),
        }
    }

    fn matcher(pattern: &str) -> Option<Matcher> {
        let escaped = pattern
            .split('\\')
            .skip(1)
            .filter_map(|rest| rest.chars().next());
        let words = ["&&", "--", "~~", "[[", "[^["];
        if escaped
            .into_iter()
            .any(|c| c.is_alphanumeric() || matches!(c, '<' | '>'))
            || words.iter().any(|word| pattern.contains(word))
            || pattern.matches('[').count() > 1
        {
            return None;
        }
        // What stands in for a star or a question mark in a class is a nested class to `regex`.
        if let Some((_, class)) = pattern.split_once('[')
            && class.contains(['*', '?', '\\'])
        {
            return None;
        }
        let plain = |text: &str| !text.contains(['*', '?', '[', ']', '\\']);
        if plain(pattern) {
            return Some(Matcher::Exact(pattern.to_owned()));
        }
        if let Some(rest) = pattern.strip_prefix("**")
            && plain(rest)
            && !rest.is_empty()
            && rest != "/"
        {
            return Some(Matcher::Suffix(rest.to_owned()));
        }
        if let Some(start) = pattern.strip_suffix("**")
            && plain(start)
        {
            return Some(Matcher::Prefix(start.to_owned()));
        }
        let mut expression = String::from("^");
        let mut rest = pattern;
        while let Some(c) = rest.chars().next() {
            rest = &rest[c.len_utf8()..];
            match c {
                '*' if rest.starts_with('*') => {
                    rest = &rest[1..];
                    rest = rest.strip_prefix('/').unwrap_or(rest);
                    expression.push_str(if rest.is_empty() { ".*" } else { "(.*/)?" });
                }
                '*' => expression.push_str("[^/]*"),
                '?' => expression.push_str("[^/]"),
                '.' | '+' | '(' | ')' | '|' | '{' | '}' | '$' => expression.extend(['\\', c]),
                '\\' => {
                    let next = rest.chars().next()?;
                    rest = &rest[next.len_utf8()..];
                    expression.extend(['\\', next]);
                }
                c => expression.push(c),
            }
        }
        Regex::new(&format!("{expression}$"))
            .ok()
            .map(Matcher::Expression)
    }

    /// The verdict on each directory on the way decides what the next one inherits.
    pub(crate) fn is_ignored(rules: &[Rule], path: &str) -> bool {
        let mut inherited = vec![false; rules.len()];
        let mut ignored = false;
        let ends = path.match_indices('/').map(|(at, _)| at);
        for end in ends.chain([path.len()]) {
            ignored = false;
            for (rule, inherited) in rules.iter().zip(&mut inherited) {
                if !*inherited && rule.exception == ignored {
                    *inherited = rule.matcher.matches(&path[..end]);
                }
                if *inherited {
                    ignored = !rule.exception;
                }
            }
        }
        ignored
    }

    impl Matcher {
        fn matches(&self, path: &str) -> bool {
            match self {
                Self::Exact(text) => path == text,
                Self::Prefix(text) => path.starts_with(text),
                Self::Suffix(text) => path.ends_with(text) || text.strip_prefix('/') == Some(path),
                Self::Expression(regex) => regex.is_match(path),
            }
        }
    }
}
