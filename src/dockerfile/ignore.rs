//! `.dockerignore`: which files of a context a build doesn't see.
//!
//! The meaning is that of moby/patternmatcher as BuildKit uses it while walking: a
//! pattern that matches a directory matches everything in it; of the patterns that
//! match, the last decides; `!` turns a decision around; `**` matches any number of
//! directories. [`Ignore::child`] decides a path from its directory's [`Verdict`].
//!
//! Patterns are small automata without backtracking: time is the product of the
//! lengths of pattern and path. Unlike in moby, where they go to a regular expression as
//! they are, characters inside `[…]` never have another meaning than in
//! COPY sources ([`pattern`]).

use std::{os::unix::ffi::OsStrExt, path::Path};

use super::pattern::{self, Class};

/// A line that is not a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the ignore file: `{text}` is not a pattern")]
pub struct IgnoreError {
    /// Line, from 1.
    pub line: usize,
    /// The pattern, cleaned.
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
    tokens: Vec<Token>,
}

/// A state of a rule's automaton, with what it consumes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    /// This character.
    Char(char),
    /// `?`: a character other than a slash.
    Any,
    /// A class.
    Class(Class),
    /// `*`: characters other than slashes.
    Star,
    /// `**` at the end: anything.
    Rest,
    /// `**`, first half: either nothing (go on after the second half), or the second
    /// half.
    Enter,
    /// `**`, second half: anything that ends with a slash.
    Directories,
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
            let (exception, pattern) = match trimmed.strip_prefix('!') {
                Some(rest) => (true, rest.trim()),
                None => (false, trimmed),
            };
            let cleaned = clean(pattern);
            if pattern.is_empty() || pattern::Pattern::new(&cleaned).is_err() {
                return Err(IgnoreError {
                    line,
                    text: trimmed.to_owned(),
                });
            }
            rules.push(Rule {
                exception,
                tokens: tokens(&cleaned),
            });
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
            let matched =
                parent.matched[index] || (rule.exception == verdict.ignored && rule.matches(&path));
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
            .any(|rule| rule.may_match_behind(&path))
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
        self.rules.iter().any(|rule| rule.matches(path))
    }

    /// Whether a pattern is `*`, `**` or `**/*`.
    pub fn hides_everything(&self) -> bool {
        let all = ["*", "**", "**/*"].map(tokens);
        self.rules.iter().any(|rule| all.contains(&rule.tokens))
    }
}

impl Rule {
    fn matches(&self, path: &str) -> bool {
        self.states(path)[self.tokens.len()]
    }

    /// Whether it can match something that starts with `start` and is longer.
    fn may_match_behind(&self, start: &str) -> bool {
        let states = self.states(start);
        states[..self.tokens.len()].iter().any(|alive| *alive)
    }

    /// The states that the automaton can be in behind `text`; the last one is the end.
    fn states(&self, text: &str) -> Vec<bool> {
        let end = self.tokens.len();
        let mut states = vec![false; end + 1];
        states[0] = true;
        self.skip(&mut states);
        for c in text.chars() {
            let mut next = vec![false; end + 1];
            for (at, token) in self.tokens.iter().enumerate() {
                if !states[at] {
                    continue;
                }
                match token {
                    Token::Char(expected) => next[at + 1] |= c == *expected,
                    Token::Any => next[at + 1] |= c != '/',
                    Token::Class(class) => next[at + 1] |= class.contains(c),
                    Token::Star => next[at] |= c != '/',
                    Token::Rest => next[at] = true,
                    Token::Enter => {}
                    Token::Directories => {
                        next[at] = true;
                        next[at + 1] |= c == '/';
                    }
                }
            }
            self.skip(&mut next);
            states = next;
        }
        states
    }

    /// Adds the states that are reached without a character.
    fn skip(&self, states: &mut [bool]) {
        for (at, token) in self.tokens.iter().enumerate() {
            if states[at] {
                match token {
                    Token::Star | Token::Rest => states[at + 1] = true,
                    Token::Enter => {
                        states[at + 1] = true;
                        states[at + 2] = true;
                    }
                    _ => {}
                }
            }
        }
    }
}

/// Go's `filepath.Clean`, then without a slash at the start.
fn clean(pattern: &str) -> String {
    let rooted = pattern.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in pattern.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|p| *p != "..") => {
                parts.pop();
            }
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    if parts.is_empty() {
        // Neither matches any file.
        return if rooted { "/" } else { "." }.to_owned();
    }
    parts.join("/")
}

fn tokens(pattern: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut chars = pattern.chars().peekable();
    // `**name` without any other wildcard means a suffix, not a directory.
    let suffix = pattern
        .strip_prefix("**")
        .is_some_and(|rest| !rest.starts_with('/') && !rest.contains(['*', '?', '[', ']', '\\']));
    if suffix {
        chars.next();
        chars.next();
        tokens.push(Token::Rest);
    }
    while let Some(c) = chars.next() {
        match c {
            '*' if chars.next_if_eq(&'*').is_some() => {
                chars.next_if_eq(&'/');
                if chars.peek().is_none() {
                    tokens.push(Token::Rest);
                } else {
                    tokens.extend([Token::Enter, Token::Directories]);
                }
            }
            '*' => tokens.push(Token::Star),
            '?' => tokens.push(Token::Any),
            '\\' => tokens.push(Token::Char(chars.next().unwrap_or('\\'))),
            '[' => match Class::read(&mut chars) {
                Some(class) => tokens.push(Token::Class(class)),
                // The syntax was checked before.
                None => tokens.push(Token::Char('[')),
            },
            c => tokens.push(Token::Char(c)),
        }
    }
    tokens
}
