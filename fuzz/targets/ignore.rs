//! Ignore files and paths: decided as by a reference that follows the rules of
//! moby/patternmatcher word by word, with backtracking.
//!
//! Input: patterns, a line `--`, paths.
#![no_main]

use std::path::Path;

use libfuzzer_sys::{Corpus, fuzz_target};
use memobuild_ci::dockerfile::{ignore::Ignore, pattern::Pattern};

/// Steps of the reference's backtracking for one input; beyond, it is not asked.
const STEPS: u32 = 100_000;

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
        let mut steps = STEPS;
        let expected = reference::is_ignored(&rules, path, &mut steps);
        let ours = ignore.is_ignored(Path::new(path));
        if steps > 0 {
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

mod reference {
    use super::Pattern;

    pub(crate) struct Rule {
        exception: bool,
        pattern: String,
    }

    pub(crate) fn rules(text: &str) -> Vec<Rule> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let lines = lines.map(str::trim).filter(|line| !line.is_empty());
        let rule = |line: &str| {
            let (exception, pattern) = match line.strip_prefix('!') {
                Some(pattern) => (true, pattern.trim()),
                None => (false, line),
            };
            let pattern = clean(pattern);
            let pattern = match pattern.strip_prefix('/') {
                Some(rest) if !rest.is_empty() => rest.to_owned(),
                _ => pattern,
            };
            Rule { exception, pattern }
        };
        lines.map(rule).collect()
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

    /// The verdict on each directory on the way decides what the next one inherits.
    pub(crate) fn is_ignored(rules: &[Rule], path: &str, steps: &mut u32) -> bool {
        let mut inherited = vec![false; rules.len()];
        let mut ignored = false;
        let ends = path.match_indices('/').map(|(at, _)| at);
        for end in ends.chain([path.len()]) {
            ignored = false;
            for (rule, inherited) in rules.iter().zip(&mut inherited) {
                if !*inherited && rule.exception == ignored {
                    *inherited = rule.matches(&path[..end], steps);
                }
                if *inherited {
                    ignored = !rule.exception;
                }
            }
        }
        ignored
    }

    impl Rule {
        fn matches(&self, path: &str, steps: &mut u32) -> bool {
            // `**name` without another special character is a suffix.
            if let Some(rest) = self.pattern.strip_prefix("**")
                && !rest.is_empty()
                && !rest.contains(['*', '?', '[', ']', '\\'])
            {
                return path.ends_with(rest) || rest.strip_prefix('/') == Some(path);
            }
            let pattern: Vec<char> = self.pattern.chars().collect();
            let path: Vec<char> = path.chars().collect();
            matches(&pattern, &path, steps)
        }
    }

    fn matches(pattern: &[char], path: &[char], steps: &mut u32) -> bool {
        *steps = steps.saturating_sub(1);
        if *steps == 0 {
            return false;
        }
        match pattern {
            [] => path.is_empty(),
            ['*', '*', rest @ ..] => {
                let rest = rest.strip_prefix(&['/']).unwrap_or(rest);
                if rest.is_empty() {
                    return true;
                }
                // Nothing, or anything that ends with a slash.
                matches(rest, path, steps)
                    || (0..path.len())
                        .any(|at| path[at] == '/' && matches(rest, &path[at + 1..], steps))
            }
            ['*', rest @ ..] => {
                let longest = path.iter().position(|c| *c == '/').unwrap_or(path.len());
                (0..=longest).any(|length| matches(rest, &path[length..], steps))
            }
            ['?', rest @ ..] => {
                matches!(path, [c, ..] if *c != '/') && matches(rest, &path[1..], steps)
            }
            ['\\', c, rest @ ..] => path.first() == Some(c) && matches(rest, &path[1..], steps),
            ['[', ..] => {
                let length = class_length(pattern);
                let class: String = pattern[..length].iter().collect();
                let class = Pattern::new(&class).expect("a class");
                let inside = path
                    .first()
                    .is_some_and(|c| class.matches(c.to_string().as_ref()));
                inside && matches(&pattern[length..], &path[1..], steps)
            }
            [c, rest @ ..] => path.first() == Some(c) && matches(rest, &path[1..], steps),
        }
    }

    /// Length of the class at the start of a valid pattern.
    fn class_length(pattern: &[char]) -> usize {
        (2..=pattern.len())
            .find(|end| Pattern::new(&pattern[..*end].iter().collect::<String>()).is_ok())
            .expect("the pattern is valid")
    }
}
