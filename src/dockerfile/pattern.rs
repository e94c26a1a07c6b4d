//! Go's `filepath.Match`, which COPY sources use.
//!
//! `*` and `?` don't match a slash, `[a-z]` and `[^a-z]` are classes, a backslash takes
//! the next character as it is. The whole name must match. Time is the product of both
//! lengths, whatever the pattern is.

use std::{iter::Peekable, os::unix::ffi::OsStrExt, path::Path, str::Chars};

/// A text that is not a pattern: an open class or a backslash at the end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{pattern}` is not a pattern: a class or an escape is incomplete")]
pub struct PatternError {
    /// The text.
    pub pattern: String,
}

/// A set of characters.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Class {
    negated: bool,
    ranges: Vec<(char, char)>,
}

impl Class {
    /// Reads a class whose `[` has been read; none if it is malformed.
    fn read(chars: &mut Peekable<Chars<'_>>) -> Option<Self> {
        let negated = chars.next_if_eq(&'^').is_some();
        let mut ranges = Vec::new();
        loop {
            if !ranges.is_empty() && chars.next_if_eq(&']').is_some() {
                return Some(Self { negated, ranges });
            }
            let low = Self::bound(chars)?;
            let high = if chars.next_if_eq(&'-').is_some() {
                Self::bound(chars)?
            } else {
                low
            };
            ranges.push((low, high));
        }
    }

    fn bound(chars: &mut Peekable<Chars<'_>>) -> Option<char> {
        match chars.next()? {
            '-' | ']' => None,
            '\\' => chars.next(),
            c => Some(c),
        }
    }

    fn contains(&self, c: char) -> bool {
        let inside = self
            .ranges
            .iter()
            .any(|(low, high)| (*low..=*high).contains(&c));
        inside != self.negated
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Star,
    Any,
    Class(Class),
    Char(char),
}

/// A pattern of `filepath.Match`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(Vec<Token>);

impl Pattern {
    /// The pattern with this text.
    pub fn new(text: &str) -> Result<Self, PatternError> {
        let error = || PatternError {
            pattern: text.to_owned(),
        };
        let mut tokens = Vec::new();
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            tokens.push(match c {
                '*' => Token::Star,
                '?' => Token::Any,
                '[' => Token::Class(Class::read(&mut chars).ok_or_else(error)?),
                '\\' => Token::Char(chars.next().ok_or_else(error)?),
                c => Token::Char(c),
            });
        }
        Ok(Self(tokens))
    }

    /// The only name it matches, if it has no wildcards.
    pub fn literal(&self) -> Option<String> {
        let chars = self.0.iter().map(|token| match token {
            Token::Char(c) => Some(*c),
            Token::Star | Token::Any | Token::Class(_) => None,
        });
        chars.collect()
    }

    /// Whether it matches all of `name`. Bytes that aren't UTF-8 count as U+FFFD.
    pub fn matches(&self, name: &Path) -> bool {
        let name = String::from_utf8_lossy(name.as_os_str().as_bytes());
        let name: Vec<char> = name.chars().collect();
        // Positions that the tokens so far can have reached.
        let mut reached = vec![false; name.len() + 1];
        reached[0] = true;
        for token in &self.0 {
            let mut next = vec![false; reached.len()];
            for at in 0..reached.len() {
                let Some(c) = name.get(at) else {
                    next[at] |= reached[at] && *token == Token::Star;
                    continue;
                };
                match token {
                    Token::Star => {
                        next[at] |= reached[at];
                        next[at + 1] |= next[at] && *c != '/';
                    }
                    Token::Any => next[at + 1] = reached[at] && *c != '/',
                    Token::Class(class) => next[at + 1] = reached[at] && class.contains(*c),
                    Token::Char(token) => next[at + 1] = reached[at] && c == token,
                }
            }
            reached = next;
        }
        reached[name.len()]
    }
}

/// Whether `text` has wildcards. A text without any is a plain name, in which a backslash
/// means itself.
pub fn is_pattern(text: &str) -> bool {
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => _ = chars.next(),
            '*' | '?' | '[' => return true,
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_as_in_go() {
        for (pattern, name, expected) in [
            ("abc", "abc", true),
            ("*", "abc", true),
            ("*c", "abc", true),
            ("a*", "a", true),
            ("a*", "abc", true),
            ("a*", "ab/c", false),
            ("a*/b", "abc/b", true),
            ("a*/b", "a/c/b", false),
            ("a*b*c*d*e*/f", "axbxcxdxe/f", true),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/f", true),
            ("a*b*c*d*e*/f", "axbxcxdxe/xxx/f", false),
            ("a*b?c*x", "abxbbxdbxebxczzx", true),
            ("a*b?c*x", "abxbbxdbxebxczzy", false),
            ("ab[c]", "abc", true),
            ("ab[b-d]", "abc", true),
            ("ab[e-g]", "abc", false),
            ("ab[^c]", "abc", false),
            ("ab[^e-g]", "abc", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "ab", false),
            ("a?b", "a☺b", true),
            ("a[^a]b", "a☺b", true),
            ("a???b", "a☺b", false),
            ("[a-ζ]*", "α", true),
            ("*[a-ζ]", "A", false),
            ("a?b", "a/b", false),
            ("a*b", "a/b", false),
            ("[\\]a]", "]", true),
            ("[\\-x]", "-", true),
            ("*x", "xxx", true),
            ("", "", true),
            ("*", "", true),
        ] {
            let result = Pattern::new(pattern).unwrap().matches(Path::new(name));
            assert_eq!(result, expected, "`{pattern}` and `{name}`");
        }
        for bad in [
            "[]a]", "[-]", "[x-]", "[-x]", "[", "[^", "a[", "[^bc", "\\", "a[\\",
        ] {
            assert!(Pattern::new(bad).is_err(), "{bad}");
        }
        assert_eq!(Pattern::new("a\\*b").unwrap().literal().unwrap(), "a*b");
        assert_eq!(Pattern::new("a?b").unwrap().literal(), None);
    }
}
