//! The patterns of `${name#pattern}`, `${name%pattern}` and `${name/pattern/text}`:
//! `*`, `?` and a backslash before either; no brackets.
//!
//! Matching fills one row of a table for each token, so its time is the product of
//! both lengths whatever the pattern is.

/// A part of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    /// `*`.
    Star,
    /// `?`.
    Any,
    /// This character.
    Char(char),
}

/// A pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ShellPattern(Vec<Token>);

impl ShellPattern {
    /// The pattern with this text; none if a backslash stands before something that
    /// needs none.
    pub(super) fn new(text: &str) -> Option<Self> {
        let mut tokens = Vec::new();
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            tokens.push(match c {
                '*' => Token::Star,
                '?' => Token::Any,
                // Inside `${}` these two are escaped for the substitution's sake only.
                '\\' if matches!(chars.peek(), Some('}' | '/')) => continue,
                '\\' => Token::Char(chars.next().filter(|c| matches!(c, '*' | '?' | '\\'))?),
                c => Token::Char(c),
            });
        }
        Some(Self(tokens))
    }

    /// `text` without its longest (`greedy`) or shortest prefix that matches.
    pub(super) fn trim_start(&self, text: &str, greedy: bool) -> String {
        let chars: Vec<char> = text.chars().collect();
        let end = ends(&self.0, &chars, greedy)[0].unwrap_or(0);
        chars[end..].iter().collect()
    }

    /// `text` without its longest (`greedy`) or shortest suffix that matches.
    pub(super) fn trim_end(&self, text: &str, greedy: bool) -> String {
        let tokens: Vec<Token> = self.0.iter().rev().copied().collect();
        let chars: Vec<char> = text.chars().rev().collect();
        let end = ends(&tokens, &chars, greedy)[0].unwrap_or(0);
        chars[end..].iter().rev().collect()
    }

    /// `text` with the first or all of what matches replaced, the longest at each place;
    /// none if that is longer than `limit` bytes.
    pub(super) fn replace(
        &self,
        text: &str,
        replacement: &str,
        all: bool,
        limit: usize,
    ) -> Option<String> {
        let chars: Vec<char> = text.chars().collect();
        let ends = ends(&self.0, &chars, true);
        let mut out = String::new();
        let (mut copied, mut search) = (0, 0);
        while let Some((start, end)) =
            (search..=chars.len()).find_map(|at| ends[at].map(|end| (at, end)))
        {
            out.extend(&chars[copied..start]);
            // An empty match right behind another match doesn't count.
            if end > copied || start == 0 {
                out.push_str(replacement);
            }
            copied = end;
            search = if end > search { end } else { search + 1 };
            if out.len() > limit {
                return None;
            }
            if !all {
                break;
            }
        }
        out.extend(&chars[copied..]);
        Some(out)
    }
}

/// For each position of `text` (its end included) where a match that starts there ends.
fn ends(tokens: &[Token], text: &[char], greedy: bool) -> Vec<Option<usize>> {
    let mut row: Vec<Option<usize>> = (0..=text.len()).map(Some).collect();
    for token in tokens.iter().rev() {
        let mut next = vec![None; row.len()];
        if *token == Token::Star {
            next[text.len()] = row[text.len()];
        }
        for at in (0..text.len()).rev() {
            next[at] = match *token {
                Token::Char(c) if text[at] == c => row[at + 1],
                Token::Any if text[at] != '\n' => row[at + 1],
                Token::Char(_) | Token::Any => None,
                Token::Star => {
                    let longer = next[at + 1].filter(|_| text[at] != '\n');
                    if greedy {
                        longer.or(row[at])
                    } else {
                        row[at].or(longer)
                    }
                }
            };
        }
        row = next;
    }
    row
}
