//! Variables and quotes in a word, as BuildKit's shell lexer treats them.
//!
//! The forms are `$x`, `${x}`, `${x:-y}`, `${x-y}`, `${x:+y}`, `${x+y}`, `${x:?y}`,
//! `${x?y}`, `${x#p}`, `${x##p}`, `${x%p}`, `${x%%p}`, `${x/p/y}` and `${x//p/y}`.
//! Single quotes keep everything, double quotes everything but variables; the escape
//! character keeps the next character. See [`Expander`] for the variants in which
//! instructions use it.

use std::{
    collections::{BTreeMap, BTreeSet},
    iter::Peekable,
    str::Chars,
};

use super::shell_pattern::ShellPattern;

/// Substitutions inside substitutions that are followed.
const MAX_DEPTH: usize = 64;

/// Bytes that a word may have after expansion. Values that name themselves twice, line
/// after line, would otherwise fill the memory.
const MAX_LENGTH: usize = 4 << 20;

/// Characters of patterns times characters of values that one word may make us compare.
/// Patterns can hold values that substitutions have made long.
const MAX_COMPARED: usize = 1 << 24;

/// Where the values of variables come from.
pub trait Variables {
    /// The value of a variable; none if it isn't set.
    fn get(&self, name: &str) -> Option<&str>;
}

impl Variables for BTreeMap<String, String> {
    fn get(&self, name: &str) -> Option<&str> {
        BTreeMap::get(self, name).map(String::as_str)
    }
}

/// No variables at all.
impl Variables for () {
    fn get(&self, _: &str) -> Option<&str> {
        None
    }
}

/// Why a word can't be expanded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum ExpandError {
    #[error("the quote `{quote}` has no end")]
    OpenQuote { quote: char },
    #[error("`${{` has no `}}`")]
    OpenBrace,
    #[error("`${{name/pattern/text}}` has no second slash")]
    NoSlash,
    #[error("`${{` is not followed by a name")]
    NoName,
    #[error("`{modifier}` is not a modifier of a substitution")]
    Modifier { modifier: String },
    #[error("`{pattern}` is not a pattern: a backslash can stand before `*`, `?` and itself only")]
    Pattern { pattern: String },
    #[error("variable `{name}`: {message}")]
    Required { name: String, message: String },
    #[error("substitutions are nested more than {MAX_DEPTH} deep")]
    TooDeep,
    #[error("the result is longer than 4 MiB")]
    TooLong,
    #[error("patterns and values are too long to be compared")]
    TooMuch,
    #[error("all words of the Dockerfile together are longer than 32 MiB")]
    TooLongTogether,
}

/// An expanded word.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expansion {
    /// The text, quotes and escapes removed.
    pub text: String,
    /// Variables that were asked for and are set.
    pub used: BTreeSet<String>,
    /// Variables that were asked for and aren't set, whether or not `${name:-word}` says
    /// what to take instead.
    pub unset: BTreeSet<String>,
}

/// How to expand. [`Expander::new`] is how most instructions do it.
#[derive(Debug, Clone, Copy)]
pub struct Expander {
    /// The escape character of the Dockerfile.
    pub escape: char,
    /// Quotes stay in the result.
    pub keep_quotes: bool,
    /// Escape characters stay in the result.
    pub keep_escapes: bool,
    /// Quotes are ordinary characters (heredocs).
    pub plain_quotes: bool,
    /// Substitutions of variables that aren't set stay as written.
    pub keep_unset: bool,
}

impl Expander {
    /// Quotes and escapes are removed, variables that aren't set are empty.
    pub fn new(escape: char) -> Self {
        Self {
            escape,
            keep_quotes: false,
            keep_escapes: false,
            plain_quotes: false,
            keep_unset: false,
        }
    }

    /// For the content of a heredoc.
    pub fn heredoc() -> Self {
        Self {
            plain_quotes: true,
            ..Self::new('\\')
        }
    }

    /// Expands `text`.
    pub fn expand(&self, text: &str, variables: &dyn Variables) -> Result<Expansion, ExpandError> {
        let is_special = |c: char| matches!(c, '$' | '\'' | '"') || c == self.escape;
        if text.len() <= MAX_LENGTH && !text.contains(is_special) {
            return Ok(Expansion {
                text: text.to_owned(),
                ..Expansion::default()
            });
        }
        let mut run = self.start(text, variables);
        let text = run.until(None, self.keep_escapes)?;
        Ok(Expansion {
            text,
            used: run.used,
            unset: run.unset,
        })
    }

    /// Expands `text` and splits it at the spaces that weren't quoted.
    pub fn words(&self, text: &str, variables: &dyn Variables) -> Result<Vec<String>, ExpandError> {
        let mut run = self.start(text, variables);
        run.words = Some(Words::default());
        run.until(None, self.keep_escapes)?;
        Ok(run.words.map(Words::finish).unwrap_or_default())
    }

    fn start<'a>(&self, text: &'a str, variables: &'a dyn Variables) -> Run<'a> {
        Run {
            options: *self,
            variables,
            length: text.len(),
            chars: text.chars().peekable(),
            depth: 0,
            compared: 0,
            words: None,
            used: BTreeSet::new(),
            unset: BTreeSet::new(),
        }
    }
}

/// Words being collected: a space ends one unless it was quoted.
#[derive(Default)]
struct Words {
    done: Vec<String>,
    current: String,
    open: bool,
}

impl Words {
    fn push(&mut self, c: char) {
        if !c.is_whitespace() {
            self.push_raw(c);
        } else if self.open && !self.current.is_empty() {
            self.done.push(std::mem::take(&mut self.current));
            self.open = false;
        }
    }

    fn push_raw(&mut self, c: char) {
        self.current.push(c);
        self.open = true;
    }

    fn push_quoted(&mut self, text: &str) {
        if !text.is_empty() {
            self.current.push_str(text);
            self.open = true;
        }
    }

    fn finish(mut self) -> Vec<String> {
        if !self.current.is_empty() {
            self.done.push(self.current);
        }
        self.done
    }
}

struct Run<'a> {
    options: Expander,
    variables: &'a dyn Variables,
    /// Bytes of the text.
    length: usize,
    chars: Peekable<Chars<'a>>,
    depth: usize,
    compared: usize,
    /// Those of the text itself, if they are wanted; the words of a substitution are part of
    /// them.
    words: Option<Words>,
    used: BTreeSet<String>,
    unset: BTreeSet<String>,
}

impl Run<'_> {
    /// Everything up to `stop`, which is consumed, or to the end.
    fn until(&mut self, stop: Option<char>, keep_escapes: bool) -> Result<String, ExpandError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(ExpandError::TooDeep);
        }
        let outer = std::mem::replace(&mut self.options.keep_escapes, keep_escapes);
        let result = match self.depth {
            1 => {
                let mut words = self.words.take();
                let result = self.until_inner(stop, words.as_mut());
                self.words = words;
                result
            }
            _ => self.until_inner(stop, None),
        };
        self.options.keep_escapes = outer;
        self.depth -= 1;
        result
    }

    fn until_inner(
        &mut self,
        stop: Option<char>,
        mut words: Option<&mut Words>,
    ) -> Result<String, ExpandError> {
        let mut text = String::new();
        if self.depth == 1 {
            text.reserve(self.length);
        }
        while let Some(c) = self.chars.next() {
            if text.len() > MAX_LENGTH {
                return Err(ExpandError::TooLong);
            }
            if Some(c) == stop {
                return Ok(text);
            }
            match c {
                '$' => {
                    let value = self.dollar()?;
                    if let Some(words) = &mut words {
                        value.chars().for_each(|c| words.push(c));
                    }
                    text.push_str(&value);
                }
                '\'' | '"' if !self.options.plain_quotes => {
                    let value = if c == '"' {
                        self.double_quoted()?
                    } else {
                        self.single_quoted()?
                    };
                    if let Some(words) = &mut words {
                        words.push_quoted(&value);
                        // An empty pair of quotes opens a word without making one.
                        words.open = true;
                    }
                    text.push_str(&value);
                }
                '<' => {
                    let value = self.heredoc_mark();
                    if let Some(words) = &mut words {
                        words.push_quoted(&value);
                    }
                    text.push_str(&value);
                }
                c if c == self.options.escape => {
                    let escaped = self.chars.next();
                    let escape = Some(c).filter(|_| self.options.keep_escapes);
                    // An escape at the very end means nothing.
                    for c in escape.into_iter().chain(escaped) {
                        if let Some(words) = &mut words {
                            words.push_raw(c);
                        }
                        text.push(c);
                    }
                }
                c => {
                    if let Some(words) = &mut words {
                        words.push(c);
                    }
                    text.push(c);
                }
            }
        }
        match stop {
            Some('/') => Err(ExpandError::NoSlash),
            Some(_) => Err(ExpandError::OpenBrace),
            None if text.len() > MAX_LENGTH => Err(ExpandError::TooLong),
            None => Ok(text),
        }
    }

    /// `<`, or `<<` with the spaces behind it, which belong to the heredoc's word.
    fn heredoc_mark(&mut self) -> String {
        let mut mark = String::from("<");
        if self.chars.next_if_eq(&'<').is_some() {
            mark.push('<');
            while let Some(space) = self.chars.next_if(|c| matches!(c, ' ' | '\t' | '\r')) {
                mark.push(space);
            }
        }
        mark
    }

    fn single_quoted(&mut self) -> Result<String, ExpandError> {
        let mut text = String::new();
        loop {
            match self.chars.next() {
                None => return Err(ExpandError::OpenQuote { quote: '\'' }),
                Some('\'') => return Ok(self.requoted('\'', text)),
                Some(c) => text.push(c),
            }
        }
    }

    fn double_quoted(&mut self) -> Result<String, ExpandError> {
        let mut text = String::new();
        loop {
            if text.len() > MAX_LENGTH {
                return Err(ExpandError::TooLong);
            }
            match self.chars.next() {
                None => return Err(ExpandError::OpenQuote { quote: '"' }),
                Some('"') => return Ok(self.requoted('"', text)),
                Some('$') => text.push_str(&self.dollar()?),
                Some(c) if c == self.options.escape => {
                    if self.options.keep_escapes {
                        text.push(c);
                    }
                    let escape = self.options.escape;
                    match self.chars.peek() {
                        None => {}
                        Some(&next) if next == '"' || next == '$' || next == escape => {
                            text.push(next);
                            self.chars.next();
                        }
                        Some(_) => text.push(c),
                    }
                }
                Some(c) => text.push(c),
            }
        }
    }

    fn requoted(&self, quote: char, text: String) -> String {
        if self.options.keep_quotes {
            format!("{quote}{text}{quote}")
        } else {
            text
        }
    }

    /// What stands behind a `$`, replaced.
    fn dollar(&mut self) -> Result<String, ExpandError> {
        if self.chars.next_if_eq(&'{').is_none() {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".to_owned());
            }
            return Ok(match self.value(&name) {
                None if self.options.keep_unset => format!("${name}"),
                value => value.unwrap_or_default(),
            });
        }
        match self.chars.peek() {
            None => return Err(ExpandError::OpenBrace),
            Some('{' | '}' | ':') => return Err(ExpandError::NoName),
            Some(_) => {}
        }
        let name = self.name();
        match self.chars.next() {
            None => Err(ExpandError::OpenBrace),
            Some('}') => Ok(match self.value(&name) {
                None if self.options.keep_unset => format!("${{{name}}}"),
                value => value.unwrap_or_default(),
            }),
            Some('/') => self.replaced(&name),
            Some(':') => match self.chars.next() {
                None => Err(ExpandError::OpenBrace),
                Some(modifier @ ('-' | '+' | '?')) => self.modified(&name, modifier, true),
                Some(other) => Err(ExpandError::Modifier {
                    modifier: format!(":{other}"),
                }),
            },
            Some(modifier @ ('-' | '+' | '?')) => self.modified(&name, modifier, false),
            Some(modifier @ ('#' | '%')) => self.trimmed(&name, modifier),
            Some(other) => Err(ExpandError::Modifier {
                modifier: other.to_string(),
            }),
        }
    }

    /// `${name-word}`, `${name+word}`, `${name?word}`; with a colon (`null_is_unset`)
    /// an empty value counts as none.
    fn modified(
        &mut self,
        name: &str,
        modifier: char,
        null_is_unset: bool,
    ) -> Result<String, ExpandError> {
        let word = self.until(Some('}'), false)?;
        let value = self.value(name);
        let colon = if null_is_unset { ":" } else { "" };
        if value.is_none() && self.options.keep_unset {
            return Ok(format!("${{{name}{colon}{modifier}{word}}}"));
        }
        let unset = value.is_none();
        let value = value.filter(|v| !(null_is_unset && v.is_empty()));
        match (modifier, value) {
            ('-', Some(value)) => Ok(value),
            ('-', None) | ('+', Some(_)) => Ok(word),
            ('+', None) => Ok(String::new()),
            (_, Some(value)) => Ok(value),
            (_, None) => Err(ExpandError::Required {
                name: name.to_owned(),
                message: match (word.is_empty(), unset) {
                    (false, _) => word,
                    (true, true) => "it must be set".to_owned(),
                    (true, false) => "it must not be empty".to_owned(),
                },
            }),
        }
    }

    /// `${name#pattern}` and its kin.
    fn trimmed(&mut self, name: &str, modifier: char) -> Result<String, ExpandError> {
        let word = self.until(Some('}'), true)?;
        let value = self.value(name);
        if value.is_none() && self.options.keep_unset {
            return Ok(format!("${{{name}{modifier}{word}}}"));
        }
        let value = value.unwrap_or_default();
        let (greedy, text) = match word.strip_prefix(modifier) {
            Some(rest) => (true, rest),
            None => (false, word.as_str()),
        };
        let pattern = self.pattern(text, &value)?;
        Ok(if modifier == '#' {
            pattern.trim_start(&value, greedy)
        } else {
            pattern.trim_end(&value, greedy)
        })
    }

    /// `${name/pattern/text}` and `${name//pattern/text}`.
    fn replaced(&mut self, name: &str) -> Result<String, ExpandError> {
        let all = self.chars.next_if_eq(&'/').is_some();
        let text = self.until(Some('/'), true)?;
        let replacement = self.until(Some('}'), true)?;
        let value = self.value(name);
        if value.is_none() && self.options.keep_unset {
            let slashes = if all { "//" } else { "/" };
            return Ok(format!("${{{name}{slashes}{text}/{replacement}}}"));
        }
        let value = value.unwrap_or_default();
        self.pattern(&text, &value)?
            .replace(&value, &replacement, all, MAX_LENGTH)
            .ok_or(ExpandError::TooLong)
    }

    /// A variable's name: letters, digits and `_`; digits only if it starts with one;
    /// or one of the shell's special parameters.
    fn name(&mut self) -> String {
        let mut name = String::new();
        if self.chars.peek().is_some_and(char::is_ascii_digit) {
            while let Some(c) = self.chars.next_if(char::is_ascii_digit) {
                name.push(c);
            }
            return name;
        }
        if let Some(c) = self
            .chars
            .next_if(|c| matches!(c, '@' | '*' | '#' | '?' | '-' | '$' | '!'))
        {
            return c.to_string();
        }
        while let Some(c) = self.chars.next_if(|c| c.is_alphanumeric() || *c == '_') {
            name.push(c);
        }
        name
    }

    fn value(&mut self, name: &str) -> Option<String> {
        let value = self.variables.get(name);
        let names = match value {
            Some(_) => &mut self.used,
            None => &mut self.unset,
        };
        names.insert(name.to_owned());
        value.map(str::to_owned)
    }

    /// The pattern `text`, to be compared with `value`.
    fn pattern(&mut self, text: &str, value: &str) -> Result<ShellPattern, ExpandError> {
        let compared = (text.len() + 1).saturating_mul(value.len() + 1);
        self.compared = self.compared.saturating_add(compared);
        if self.compared > MAX_COMPARED {
            return Err(ExpandError::TooMuch);
        }
        ShellPattern::new(text).ok_or_else(|| ExpandError::Pattern {
            pattern: text.to_owned(),
        })
    }
}
