//! The regular expressions that patterns stand for, and how they are matched.
//!
//! moby/patternmatcher makes a regular expression of a pattern character by character,
//! without regard to classes, and gives it to Go's `regexp`. So `[*]` is no class with a
//! star, and `\d` is a digit. [`Expression`] does the same: [`translate`] gives the text of
//! the expression, [`Expression::parse`] reads the part of RE2's syntax that can come out.
//! What it reads is an automaton that is run without backtracking: time is the product
//! of the lengths of expression and path.

use std::{iter::Peekable, str::Chars};

/// Text that `regexp` doesn't take, or an escape that is not supported here.
#[derive(Debug)]
pub(super) struct BadExpression;

/// An expression that must match a whole path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Expression {
    states: Vec<State>,
    /// What every path that matches starts with, and ends with.
    start: String,
    end: String,
}

/// A state of the automaton, with what it consumes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Char(char),
    /// `[…]`.
    Class(Class),
    /// `[…]*`.
    Repeat(Class),
    /// `.*`.
    Rest,
    /// `(.*/)?`, first half: either nothing (go on after the second half), or the second
    /// half.
    Enter,
    /// `(.*/)?`, second half: anything that ends with a slash.
    Directories,
    /// A place in the path, which consumes nothing.
    Place(Place),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Start,
    End,
    /// `\b` (true) and `\B`.
    WordBoundary(bool),
}

/// A set of characters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Class {
    negated: bool,
    ranges: Vec<(char, char)>,
}

impl Class {
    fn contains(&self, c: char) -> bool {
        self.ranges
            .iter()
            .any(|(low, high)| (*low..=*high).contains(&c))
            != self.negated
    }
}

/// What follows the characters that an automaton has read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Char(char),
    End,
    Unknown,
}

/// The expression of a pattern, as moby/patternmatcher writes it, without `^` and `$`.
pub(super) fn translate(pattern: &str) -> String {
    let mut expression = String::new();
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '*' if chars.next_if_eq(&'*').is_some() => {
                chars.next_if_eq(&'/');
                expression.push_str(match chars.peek() {
                    None => ".*",
                    Some(_) => "(.*/)?",
                });
            }
            '*' => expression.push_str("[^/]*"),
            '?' => expression.push_str("[^/]"),
            '.' | '+' | '(' | ')' | '|' | '{' | '}' | '$' => expression.extend(['\\', c]),
            '\\' => {
                expression.push('\\');
                expression.extend(chars.next());
            }
            c => expression.push(c),
        }
    }
    expression
}

impl Expression {
    /// Reads what [`translate`] gives.
    pub(super) fn parse(text: &str) -> Result<Self, BadExpression> {
        let mut states = Vec::new();
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '^' => states.push(State::Place(Place::Start)),
                // The only group that there is: `(.*/)?`.
                '(' => {
                    chars.nth(4);
                    states.extend([State::Enter, State::Directories]);
                }
                '.' => {
                    chars.next();
                    states.push(State::Rest);
                }
                '[' => {
                    let class = read_class(&mut chars)?;
                    states.push(match chars.next_if_eq(&'*') {
                        Some(_) => State::Repeat(class),
                        None => State::Class(class),
                    });
                }
                '\\' => states.push(read_escape(&mut chars)?),
                c => states.push(State::Char(c)),
            }
        }
        let literal = |state: &State| match state {
            State::Char(c) => Some(*c),
            _ => None,
        };
        let end: Vec<char> = states.iter().rev().map_while(literal).collect();
        Ok(Self {
            start: states.iter().map_while(literal).collect(),
            end: end.into_iter().rev().collect(),
            states,
        })
    }

    pub(super) fn matches(&self, path: &str) -> bool {
        // Most patterns and paths part here.
        path.starts_with(&self.start)
            && path.ends_with(&self.end)
            && self.run(path, Next::End)[self.states.len()]
    }

    /// Whether it can match something that starts with `start` and is longer.
    pub(super) fn may_match_behind(&self, start: &str) -> bool {
        let states = self.run(start, Next::Unknown);
        states[..self.states.len()].iter().any(|alive| *alive)
    }

    /// The states that the automaton can be in behind `text`; the last one is the end.
    fn run(&self, text: &str, after: Next) -> Vec<bool> {
        let end = self.states.len();
        let (mut now, mut next) = (vec![false; end + 1], vec![false; end + 1]);
        now[0] = true;
        let mut chars = text.chars().peekable();
        let mut before = None;
        loop {
            let ahead = chars.peek().map_or(after, |c| Next::Char(*c));
            self.skip(&mut now, before, ahead);
            let Some(c) = chars.next() else {
                return now;
            };
            next.fill(false);
            for (at, state) in self.states.iter().enumerate() {
                if !now[at] {
                    continue;
                }
                match state {
                    State::Char(expected) => next[at + 1] |= c == *expected,
                    State::Class(class) => next[at + 1] |= class.contains(c),
                    State::Repeat(class) => next[at] |= class.contains(c),
                    // RE2's dot is not a new line.
                    State::Rest => next[at] |= c != '\n',
                    State::Directories => {
                        next[at] |= c != '\n';
                        next[at + 1] |= c == '/';
                    }
                    State::Enter | State::Place(_) => {}
                }
            }
            before = Some(c);
            std::mem::swap(&mut now, &mut next);
            if !now.contains(&true) {
                return now;
            }
        }
    }

    /// Adds the states that are reached without a character.
    fn skip(&self, states: &mut [bool], before: Option<char>, ahead: Next) {
        for (at, state) in self.states.iter().enumerate() {
            if !states[at] {
                continue;
            }
            match state {
                State::Repeat(_) | State::Rest => states[at + 1] = true,
                State::Enter => {
                    states[at + 1] = true;
                    states[at + 2] = true;
                }
                State::Place(place) => states[at + 1] |= place.holds(before, ahead),
                _ => {}
            }
        }
    }
}

impl Place {
    fn holds(self, before: Option<char>, ahead: Next) -> bool {
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        match (self, ahead) {
            (Self::Start, _) => before.is_none(),
            (_, Next::Unknown) => true,
            (Self::End, _) => ahead == Next::End,
            (Self::WordBoundary(expected), _) => {
                let behind = matches!(ahead, Next::Char(c) if word(c));
                (before.is_some_and(word) != behind) == expected
            }
        }
    }
}

/// An escape outside a class, whose backslash has been read.
fn read_escape(chars: &mut Peekable<Chars<'_>>) -> Result<State, BadExpression> {
    let place = match chars.peek() {
        Some('A') => Place::Start,
        Some('z') => Place::End,
        Some('b') => Place::WordBoundary(true),
        Some('B') => Place::WordBoundary(false),
        Some(c) => {
            if let Some(class) = perl_class(*c) {
                chars.next();
                return Ok(State::Class(class));
            }
            return escaped(chars).map(State::Char);
        }
        None => return Err(BadExpression),
    };
    chars.next();
    Ok(State::Place(place))
}

/// The character that an escape stands for.
fn escaped(chars: &mut Peekable<Chars<'_>>) -> Result<char, BadExpression> {
    let octal = |chars: &mut Peekable<Chars<'_>>| {
        chars.next_if(|c| c.is_digit(8)).and_then(|c| c.to_digit(8))
    };
    Ok(match chars.next().ok_or(BadExpression)? {
        'a' => '\x07',
        'f' => '\x0c',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\x0b',
        first @ '0'..='7' => {
            let second = octal(chars);
            // One digit other than 0 would be a reference to a group.
            if first != '0' && second.is_none() {
                return Err(BadExpression);
            }
            let first = first.to_digit(8).unwrap_or(0);
            let value = second.map_or(first, |second| first * 8 + second);
            let third = second.and_then(|_| octal(chars));
            let value = third.map_or(value, |third| value * 8 + third);
            char::from_u32(value).ok_or(BadExpression)?
        }
        c if c.is_ascii_alphanumeric() || !c.is_ascii() || c == '_' => return Err(BadExpression),
        c => c,
    })
}

/// `\d`, `\s`, `\w` and what they leave.
fn perl_class(c: char) -> Option<Class> {
    let ranges: &[(char, char)] = match c.to_ascii_lowercase() {
        'd' => &[('0', '9')],
        's' => &[('\t', '\n'), ('\x0c', '\r'), (' ', ' ')],
        'w' => &[('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')],
        _ => return None,
    };
    Some(Class {
        negated: c.is_ascii_uppercase(),
        ranges: ranges.to_vec(),
    })
}

/// `[:alpha:]` and the like, whose `[` has been read; none if it is something else.
fn posix_class(chars: &mut Peekable<Chars<'_>>) -> Option<Result<Class, BadExpression>> {
    let rest: String = chars.clone().collect();
    let (name, _) = rest.strip_prefix(':')?.split_once(":]")?;
    let (negated, bare) = match name.strip_prefix('^') {
        Some(bare) => (true, bare),
        None => (false, name),
    };
    let ranges: &[(char, char)] = match bare {
        "alnum" => &[('0', '9'), ('A', 'Z'), ('a', 'z')],
        "alpha" => &[('A', 'Z'), ('a', 'z')],
        "ascii" => &[('\0', '\x7f')],
        "blank" => &[('\t', '\t'), (' ', ' ')],
        "cntrl" => &[('\0', '\x1f'), ('\x7f', '\x7f')],
        "digit" => &[('0', '9')],
        "graph" => &[('!', '~')],
        "lower" => &[('a', 'z')],
        "print" => &[(' ', '~')],
        "punct" => &[('!', '/'), (':', '@'), ('[', '`'), ('{', '~')],
        "space" => &[('\t', '\r'), (' ', ' ')],
        "upper" => &[('A', 'Z')],
        "word" => &[('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')],
        "xdigit" => &[('0', '9'), ('A', 'F'), ('a', 'f')],
        _ => return Some(Err(BadExpression)),
    };
    chars.nth(name.chars().count() + 2);
    Some(Ok(Class {
        negated,
        ranges: ranges.to_vec(),
    }))
}

/// The ranges of a class that may be negated.
fn spread(class: &Class) -> Vec<(char, char)> {
    if !class.negated {
        return class.ranges.clone();
    }
    let mut from = Some('\0');
    let mut left = Vec::new();
    for (low, high) in &class.ranges {
        if let Some(start) = from.filter(|start| start < low) {
            left.extend((start..*low).next_back().map(|end| (start, end)));
        }
        from = (*high..).nth(1);
    }
    left.extend(from.map(|start| (start, char::MAX)));
    left
}

/// A class whose `[` has been read.
fn read_class(chars: &mut Peekable<Chars<'_>>) -> Result<Class, BadExpression> {
    let mut class = Class {
        negated: chars.next_if_eq(&'^').is_some(),
        ranges: Vec::new(),
    };
    let mut first = true;
    loop {
        if !first && chars.next_if_eq(&']').is_some() {
            return Ok(class);
        }
        first = false;
        let mut inner = chars.clone();
        match inner.next() {
            Some('[') => {
                if let Some(named) = posix_class(&mut inner) {
                    class.ranges.extend(spread(&named?));
                    *chars = inner;
                    continue;
                }
            }
            Some('\\') => {
                if let Some(perl) = inner.next().and_then(perl_class) {
                    class.ranges.extend(spread(&perl));
                    *chars = inner;
                    continue;
                }
            }
            _ => {}
        }
        let low = class_char(chars)?;
        let mut high = low;
        let mut ahead = chars.clone();
        // A dash right before the end is itself.
        if ahead.next() == Some('-') && ahead.peek().is_some_and(|c| *c != ']') {
            *chars = ahead;
            high = class_char(chars)?;
        }
        if high < low {
            return Err(BadExpression);
        }
        class.ranges.push((low, high));
    }
}

fn class_char(chars: &mut Peekable<Chars<'_>>) -> Result<char, BadExpression> {
    match chars.next() {
        None => Err(BadExpression),
        Some('\\') => escaped(chars),
        Some(c) => Ok(c),
    }
}
