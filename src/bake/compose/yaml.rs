//! YAML whose values know where they stand.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::{MessageFormatter as _, Spanned, UserMessageFormatter};

use crate::bake::error::{Fault, Place, Problem};

/// A value and its line and column, from 1.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) kind: Kind,
    pub(super) line: usize,
    pub(super) column: usize,
}

#[derive(Debug, Clone)]
pub(super) enum Kind {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
}

impl Node {
    /// What it is, for messages.
    pub(super) fn what(&self) -> &'static str {
        match self.kind {
            Kind::Null => "null",
            Kind::Bool(_) => "a bool",
            Kind::Number(_) => "a number",
            Kind::Text(_) => "a string",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a mapping",
        }
    }

    /// A scalar as text; null is none.
    pub(super) fn scalar(&self) -> Option<String> {
        match &self.kind {
            Kind::Bool(value) => Some(value.to_string()),
            Kind::Number(text) | Kind::Text(text) => Some(text.clone()),
            _ => None,
        }
    }

    /// The value of `key` of a mapping.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        let Kind::Map(entries) = &self.kind else {
            return None;
        };
        let found = entries
            .iter()
            .find(|(name, _)| name.scalar().as_deref() == Some(key));
        found.map(|(_, value)| value)
    }

    /// Applies `f` to every text that is not a key.
    pub(super) fn map_texts<E>(
        &mut self,
        f: &mut impl FnMut(&str) -> Result<String, E>,
    ) -> Result<(), (E, usize, usize)> {
        match &mut self.kind {
            Kind::Text(text) => {
                *text = f(text).map_err(|error| (error, self.line, self.column))?;
            }
            Kind::List(values) => {
                for value in values {
                    value.map_texts(f)?;
                }
            }
            Kind::Map(entries) => {
                for (_, value) in entries {
                    value.map_texts(f)?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// The bytes of `text` at a line and a column.
pub(super) fn place(text: &str, file: usize, line: usize, column: usize) -> Place {
    let before: usize = text
        .split_inclusive('\n')
        .take(line.saturating_sub(1))
        .map(str::len)
        .sum();
    let rest = text.get(before..).unwrap_or("");
    let inside = rest.char_indices().nth(column.saturating_sub(1));
    let at = before + inside.map_or(0, |(at, _)| at);
    Place {
        file,
        range: at..at,
    }
}

/// Where the value of a key has one of the tags that say how files are merged, and the tag. The
/// parser drops tags, so the lines are looked at.
fn merge_tag(text: &str) -> Option<(usize, usize, &'static str)> {
    text.lines().enumerate().find_map(|(number, line)| {
        let (key, value) = line.split_once(": ")?;
        let is_key = !key.trim().is_empty() && !key.trim_start().contains([' ', '#']);
        let tag = value.split_whitespace().next()?;
        let tag = ["!reset", "!override"].into_iter().find(|t| *t == tag)?;
        let column = line[..line.find(tag)?].chars().count() + 1;
        is_key.then_some((number + 1, column, tag))
    })
}

/// Reads one document.
pub(super) fn read(text: &str, file: usize) -> Result<Node, Fault> {
    if let Some((line, column, tag)) = merge_tag(text) {
        let problem = Problem::Yaml {
            message: format!("`{tag}` is not supported"),
        };
        let hint = "leave the value out of the first file, or change it with `--set`".to_owned();
        return Err(Fault::from(problem)
            .at(&place(text, file, line, column))
            .hint(Some(hint)));
    }
    let options = serde_saphyr::options! {
        strict_booleans: true,
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let error = error.without_snippet();
        let location = error.location();
        let number = |n: Option<u64>| n.and_then(|n| usize::try_from(n).ok()).unwrap_or(1);
        let line = number(location.map(|l| l.line()));
        let column = number(location.map(|l| l.column()));
        let problem = Problem::Yaml {
            message: UserMessageFormatter.format_message(error).into_owned(),
        };
        Fault::from(problem).at(&place(text, file, line, column))
    })
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned: Spanned<Kind> = Spanned::deserialize(deserializer)?;
        let number = |n: u64| usize::try_from(n).unwrap_or(1);
        Ok(Self {
            kind: spanned.value,
            line: number(spanned.referenced.line()),
            column: number(spanned.referenced.column()),
        })
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyKind)
    }
}

struct AnyKind;

impl<'de> Visitor<'de> for AnyKind {
    type Value = Kind;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Kind, E> {
        Ok(Kind::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Kind, E> {
        Ok(Kind::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Kind, D::Error> {
        Kind::deserialize(deserializer)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Kind, E> {
        Ok(Kind::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Kind, E> {
        Ok(Kind::Number(value.to_string()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Kind, E> {
        Ok(Kind::Number(value.to_string()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Kind, E> {
        Ok(Kind::Number(value.to_string()))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Kind, E> {
        Ok(Kind::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Kind, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = seq.next_element()? {
            values.push(value);
        }
        Ok(Kind::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Kind, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Kind::Map(entries))
    }
}
