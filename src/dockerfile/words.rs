//! Splitting the arguments of an instruction.

use std::borrow::Cow;

use super::expand::Expander;

/// Spaces that separate words; a no-break space doesn't.
pub(super) fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\u{b}' | '\u{c}' | '\r')
}

/// Words between spaces, quotes meaning nothing.
pub(super) fn plain_words(text: &str) -> Vec<String> {
    text.split(is_blank)
        .filter(|w| !w.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Words between spaces outside quotes. Quotes and escapes stay, because the words are
/// expanded later.
pub(super) fn quoted_words(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote: Option<char> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if quote.is_none() && c.is_whitespace() {
            if !word.is_empty() {
                words.push(std::mem::take(&mut word));
            }
            continue;
        }
        if c == escape && quote != Some('\'') {
            // An escape at the very end means nothing.
            if let Some(next) = chars.next() {
                word.push(c);
                word.push(next);
            }
            continue;
        }
        match quote {
            Some(open) if c == open => quote = None,
            None if c == '\'' || c == '"' => quote = Some(c),
            _ => {}
        }
        word.push(c);
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// The words of `text` with one space between two.
pub fn one_line(text: &str) -> Cow<'_, str> {
    let mut before = b' ';
    let is_single = text.bytes().all(|byte| {
        let is_letter = byte.is_ascii() && !char::from(byte).is_whitespace();
        let fits = is_letter || (byte == b' ' && before != b' ');
        before = byte;
        fits
    });
    if is_single && before != b' ' {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(word);
    }
    Cow::Owned(out)
}

/// Arguments in JSON form.
pub(super) enum Json {
    /// An array of strings.
    Strings(Vec<String>),
    /// An array with something else in it.
    Mixed,
    /// Anything else: the shell form is meant.
    No,
}

/// Reads arguments in JSON form.
pub(super) fn json(text: &str) -> Json {
    let text = text.trim();
    if !text.starts_with('[') {
        return Json::No;
    }
    match serde_json::from_str::<Vec<serde_json::Value>>(text) {
        Err(_) => Json::No,
        Ok(values) => values
            .into_iter()
            .map(|v| match v {
                serde_json::Value::String(s) => Some(s),
                _ => None,
            })
            .collect::<Option<Vec<String>>>()
            .map_or(Json::Mixed, Json::Strings),
    }
}

/// A word that starts a heredoc.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HeredocWord {
    /// The terminator, unquoted.
    pub(super) name: String,
    /// Whether no part of it was quoted.
    pub(super) expand: bool,
    /// Whether it is `<<-`.
    pub(super) chomp: bool,
}

/// The words of `line` that start heredocs, in order.
pub(super) fn heredoc_words(line: &str) -> Vec<HeredocWord> {
    let lexer = Expander {
        keep_quotes: true,
        keep_escapes: true,
        keep_unset: true,
        ..Expander::new('\\')
    };
    match lexer.words(line, &()) {
        Ok(words) => words.iter().filter_map(|w| heredoc(w)).collect(),
        // A line that isn't complete, such as one with an open quote, has none.
        Err(_) => Vec::new(),
    }
}

/// Whether a command line is one heredoc and nothing else: `<<EOF`.
pub fn is_heredoc(line: &str) -> bool {
    heredoc(line).is_some()
}

/// The heredoc that `word` starts: `[fd]<<[-]NAME`.
pub(super) fn heredoc(word: &str) -> Option<HeredocWord> {
    let rest = word.trim_start_matches(|c: char| c.is_ascii_digit());
    let rest = rest.strip_prefix("<<")?;
    let (chomp, rest) = match rest.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let rest = rest.trim_start();
    if rest.is_empty() || rest.contains('<') {
        return None;
    }
    let words = |keep_quotes| {
        let lexer = Expander {
            keep_unset: true,
            keep_quotes,
            ..Expander::new('\\')
        };
        lexer.words(rest, &()).ok()
    };
    let (unquoted, quoted) = (words(false)?, words(true)?);
    let ([name], [quoted]) = (unquoted.as_slice(), quoted.as_slice()) else {
        return None;
    };
    // Quotes that are gone quoted something; an escaped one is part of the name.
    let quotes = |word: &str| word.matches(['\'', '"']).count();
    Some(HeredocWord {
        name: name.clone(),
        expand: quotes(name) == quotes(quoted),
        chomp,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_spaces_become_one() {
        for (text, expected) in [
            ("RUN a b", "RUN a b"),
            (" RUN\ta  b\n", "RUN a b"),
            ("a\u{2003}b", "a b"),
            ("a ", "a"),
            ("", ""),
            (" ", ""),
        ] {
            assert_eq!(one_line(text), expected, "{text:?}");
        }
        assert!(matches!(one_line("RUN a b"), Cow::Borrowed(_)));
    }
}
