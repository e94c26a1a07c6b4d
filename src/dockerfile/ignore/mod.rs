//! `.dockerignore`: which files of a context a build doesn't see.
//!
//! The meaning is that of moby/patternmatcher as BuildKit uses it while walking: a
//! pattern that matches a directory matches everything in it; of the patterns that
//! match, the last decides; `!` turns a decision around; `**` matches any number of
//! directories. [`Ignore::child`] decides a path from its directory's [`Verdict`].
//!
//! A pattern is matched as text where it has no wildcards but `**` at one end, otherwise
//! by an automaton without backtracking: time is the product of the lengths of pattern
//! and path.

mod expression;

use std::{os::unix::ffi::OsStrExt, path::Path};

use super::pattern;
use expression::{BadExpression, Expression, translate};

/// A line that is not a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the ignore file: `{text}` is not a pattern")]
pub struct IgnoreError {
    /// Line, from 1.
    pub line: usize,
    /// The pattern, as it is written.
    pub text: String,
}

/// The patterns of an ignore file, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ignore {
    rules: Vec<Rule>,
}

/// What is decided about a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the build doesn't see it. A directory that is ignored can still hold
    /// files that are not.
    pub ignored: bool,
    /// For each rule, whether it matched the path or a directory above.
    matched: Vec<bool>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    /// Whether it starts with `!`.
    exception: bool,
    matcher: Matcher,
}

/// What a pattern matches; most need no automaton.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Matcher {
    /// This path.
    Exact(String),
    /// `dir/**`: what starts with this.
    Prefix(String),
    /// `**/name`: what ends with this.
    Suffix(String),
    /// Anything else.
    Expression(Expression),
}

impl Ignore {
    /// Reads an ignore file. Lines that start with `#` and empty lines mean nothing.
    pub fn parse(text: &str) -> Result<Self, IgnoreError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut rules = Vec::new();
        for (line, raw) in (1..).zip(text.lines()) {
            let trimmed = raw.trim();
            if raw.starts_with('#') || trimmed.is_empty() {
                continue;
            }
            let (mark, pattern) = match trimmed.strip_prefix('!') {
                Some(rest) => ("!", rest.trim()),
                None => ("", trimmed),
            };
            let mut cleaned = match pattern {
                "" => String::new(),
                pattern => clean(pattern),
            };
            // A slash at the start means nothing.
            if cleaned.len() > 1 && cleaned.starts_with('/') {
                cleaned.remove(0);
            }
            let error = |()| IgnoreError {
                line,
                text: trimmed.to_owned(),
            };
            if let Some(rule) = Rule::new(&format!("{mark}{cleaned}")) {
                rules.push(rule.map_err(error)?);
            }
        }
        Ok(Self { rules })
    }

    /// Patterns that are not lines of a file, as `--exclude` has them: there are no comments,
    /// and a slash at the start is part of the pattern. The line of an error is the
    /// pattern's position.
    pub fn new(patterns: &[String]) -> Result<Self, IgnoreError> {
        let mut rules = Vec::new();
        for (line, pattern) in (1..).zip(patterns) {
            let error = |()| IgnoreError {
                line,
                text: pattern.clone(),
            };
            if let Some(rule) = Rule::new(pattern) {
                rules.push(rule.map_err(error)?);
            }
        }
        Ok(Self { rules })
    }

    /// Whether there are no patterns.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The verdict on the context's root, where a walk starts.
    pub fn root(&self) -> Verdict {
        Verdict {
            ignored: false,
            matched: vec![false; self.rules.len()],
        }
    }

    /// The verdict on `path`, relative to the context's root, whose directory has the
    /// verdict `parent`.
    pub fn child(&self, parent: &Verdict, path: &Path) -> Verdict {
        let path = String::from_utf8_lossy(path.as_os_str().as_bytes());
        let mut verdict = self.root();
        for (index, rule) in self.rules.iter().enumerate() {
            // A rule that can't change the decision needn't be looked at, and then isn't
            // known to match for what lies below either.
            let matched = parent.matched[index]
                || (rule.exception == verdict.ignored && rule.matcher.matches(&path));
            verdict.matched[index] = matched;
            if matched {
                verdict.ignored = !rule.exception;
            }
        }
        verdict
    }

    /// Whether nothing below the directory `dir`, which has this verdict, can be seen:
    /// it is ignored, and no exception can match below it.
    pub fn may_skip(&self, verdict: &Verdict, dir: &Path) -> bool {
        if !verdict.ignored {
            return false;
        }
        let mut path = String::from_utf8_lossy(dir.as_os_str().as_bytes()).into_owned();
        path.push('/');
        let exceptions = self.rules.iter().filter(|r| r.exception);
        !exceptions
            .into_iter()
            .any(|rule| rule.matcher.may_match_behind(&path))
    }

    /// Whether the build doesn't see `path`. For single paths; a walk uses
    /// [`Ignore::child`].
    pub fn is_ignored(&self, path: &Path) -> bool {
        let mut verdict = self.root();
        let mut ancestors: Vec<&Path> = path.ancestors().collect();
        ancestors.reverse();
        for path in ancestors {
            if !path.as_os_str().is_empty() {
                verdict = self.child(&verdict, path);
            }
        }
        verdict.ignored
    }

    /// Whether there are exceptions, patterns with `!`.
    pub fn has_exceptions(&self) -> bool {
        self.rules.iter().any(|rule| rule.exception)
    }

    /// Whether a pattern, exception or not, matches this very text.
    pub fn has_match(&self, path: &str) -> bool {
        self.rules.iter().any(|rule| rule.matcher.matches(path))
    }

    /// Whether a pattern is `*`, `**` or `**/*`.
    pub fn hides_everything(&self) -> bool {
        let all = ["*", "**", "**/*"].map(Matcher::new);
        let is_one = |rule: &Rule| all.iter().flatten().any(|m| *m == rule.matcher);
        self.rules.iter().any(is_one)
    }
}

impl Rule {
    /// A pattern as moby/patternmatcher takes it; none for one that is only spaces.
    fn new(text: &str) -> Option<Result<Self, ()>> {
        let text = text.trim();
        if text.is_empty() {
            return None;
        }
        let cleaned = clean(text);
        let (exception, pattern) = match cleaned.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, cleaned.as_str()),
        };
        if exception && pattern.is_empty() || pattern::Pattern::new(pattern).is_err() {
            return Some(Err(()));
        }
        let Ok(matcher) = Matcher::new(pattern) else {
            return Some(Err(()));
        };
        Some(Ok(Self { exception, matcher }))
    }
}

impl Matcher {
    fn new(pattern: &str) -> Result<Self, BadExpression> {
        let special = |text: &str| text.contains(['*', '?', '[', ']', '\\']);
        if !special(pattern) {
            return Ok(Self::Exact(pattern.to_owned()));
        }
        if let Some(suffix) = pattern.strip_prefix("**")
            && !special(suffix)
        {
            return Ok(Self::Suffix(suffix.to_owned()));
        }
        if let Some(prefix) = pattern.strip_suffix("**")
            && !special(prefix)
        {
            return Ok(Self::Prefix(prefix.to_owned()));
        }
        Expression::parse(&translate(pattern)).map(Self::Expression)
    }

    fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(text) => path == text,
            Self::Prefix(prefix) => path.starts_with(prefix),
            // `**/name` is also the `name` at the top.
            Self::Suffix(suffix) => {
                path.ends_with(suffix) || suffix.strip_prefix('/').is_some_and(|top| path == top)
            }
            Self::Expression(expression) => expression.matches(path),
        }
    }

    /// Whether it can match something that starts with `start` and is longer.
    fn may_match_behind(&self, start: &str) -> bool {
        match self {
            Self::Exact(text) => text.len() > start.len() && text.starts_with(start),
            Self::Prefix(prefix) => prefix.starts_with(start) || start.starts_with(prefix),
            Self::Suffix(_) => true,
            Self::Expression(expression) => expression.may_match_behind(start),
        }
    }
}

/// Go's `filepath.Clean`. A path that starts with a slash keeps it.
pub(crate) fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|p| *p != "..") => {
                parts.pop();
            }
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    match (rooted, parts.is_empty()) {
        (true, _) => format!("/{}", parts.join("/")),
        (false, true) => ".".to_owned(),
        (false, false) => parts.join("/"),
    }
}
