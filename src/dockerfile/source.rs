//! The text of a Dockerfile, and places in it.

use std::fmt::Write as _;

/// Lines shown of an instruction that is longer.
const EXCERPT_LINES: usize = 8;

/// Lines of a Dockerfile. They count from 1; `end` is inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// First line.
    pub start: usize,
    /// Last line.
    pub end: usize,
    /// Column in `start`, in characters from 1.
    pub column: usize,
}

/// A Dockerfile as it was read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Source {
    /// The file as the user named it.
    pub name: String,
    /// The whole text.
    pub text: String,
}

impl Source {
    /// The part of `span` where `word` stands first behind the keyword, if it does: that
    /// line and column.
    pub fn find(&self, span: Span, word: &str) -> Option<Span> {
        if word.is_empty() || word.contains('\n') {
            return None;
        }
        let lines = (1..).zip(self.text.lines());
        for (number, line) in lines.skip(span.start.saturating_sub(1)) {
            if number > span.end {
                break;
            }
            let skipped = match number == span.start {
                true => after_keyword(line),
                false => 0,
            };
            let Some(at) = find_word(&line[skipped..], word) else {
                continue;
            };
            return Some(Span {
                start: number,
                end: if number == span.start {
                    span.end
                } else {
                    number
                },
                column: line[..skipped + at].chars().count() + 1,
            });
        }
        None
    }

    /// The lines of `span` with the one before, numbered:
    ///
    /// ```text
    ///  13 | COPY requirements.txt .
    ///  14 | RUN pip install -r requirements.txt
    /// ```
    ///
    /// Each line ends with a line feed. Of more than eight lines the middle is left out.
    pub fn excerpt(&self, span: Span) -> String {
        let first = span.start.saturating_sub(1).max(1);
        let width = span.end.to_string().len();
        let mut out = String::new();
        for (number, line) in (1..).zip(self.text.lines()).skip(first - 1) {
            if number > span.end {
                break;
            }
            let shown = number - first;
            if shown == EXCERPT_LINES && number != span.end {
                let _ = writeln!(out, " {:>width$} | …", "");
            }
            if shown < EXCERPT_LINES || number == span.end {
                let line = line.trim_end();
                // A control character could rewrite the terminal.
                let line: String = line.chars().map(visible).collect();
                let _ = writeln!(out, "{}", format!(" {number:>width$} | {line}").trim_end());
            }
        }
        out
    }
}

/// Where `word` stands in `text`: preferably not as a part of a longer word.
pub(super) fn find_word(text: &str, word: &str) -> Option<usize> {
    let part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let alone = |at: usize| {
        let (before, after) = (&text[..at], &text[at + word.len()..]);
        let starts = part(word.chars().next()) && part(before.chars().next_back());
        let ends = part(word.chars().next_back()) && part(after.chars().next());
        !starts && !ends
    };
    let mut places = text.match_indices(word).map(|(at, _)| at);
    places.find(|at| alone(*at)).or_else(|| text.find(word))
}

/// Where the first word of a line ends.
fn after_keyword(line: &str) -> usize {
    let start = line.len() - line.trim_start().len();
    let word = line[start..].find(char::is_whitespace);
    word.map_or(0, |length| start + length)
}

/// `c`, or the replacement character for what a terminal would act on.
fn visible(c: char) -> char {
    if c.is_control() && c != '\t' {
        char::REPLACEMENT_CHARACTER
    } else {
        c
    }
}
