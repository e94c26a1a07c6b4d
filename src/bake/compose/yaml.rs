//! YAML whose values know where they stand, and whether they take the place of earlier ones.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::{MessageFormatter as _, Spanned, Tagged, UserMessageFormatter};

use crate::bake::error::{Fault, Place, Problem};

/// A value and its line and column, from 1.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) kind: Kind,
    pub(super) line: usize,
    pub(super) column: usize,
    tag: Option<Tag>,
}

/// What is done with the value that an earlier file has in the same place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tag {
    /// `!reset`: it is removed.
    Reset,
    /// `!override`: it is replaced instead of merged.
    Override,
}

/// The keys that lead to a value.
pub(super) type Path = Vec<String>;

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

    /// Removes values with the tag `!reset`. Gives the paths of those with one of the tags: what
    /// earlier files have there goes.
    pub(super) fn take_tags(&mut self) -> Vec<Path> {
        let mut paths = Vec::new();
        self.take_tags_below(&mut Vec::new(), &mut paths);
        paths
    }

    fn take_tags_below(&mut self, path: &mut Path, out: &mut Vec<Path>) {
        match &mut self.kind {
            Kind::Map(entries) => entries.retain_mut(|(key, value)| {
                path.push(key.scalar().unwrap_or_default());
                match value.tag {
                    Some(_) => out.push(path.clone()),
                    None => value.take_tags_below(path, out),
                }
                path.pop();
                value.tag != Some(Tag::Reset)
            }),
            // Items have no names by which a later file could mean them.
            Kind::List(values) => values.retain_mut(|value| {
                value.take_tags_below(path, &mut Vec::new());
                value.tag != Some(Tag::Reset)
            }),
            _ => {}
        }
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

/// Reads all documents of a file, one at least.
pub(super) fn read(text: &str, file: usize) -> Result<Vec<Node>, Fault> {
    let options = serde_saphyr::options! {
        strict_booleans: true,
        with_snippet: false,
    };
    let read = serde_saphyr::from_multiple_with_options(text, options.clone());
    let read = read.and_then(|documents: Vec<Node>| match documents.is_empty() {
        true => Ok(vec![serde_saphyr::from_str_with_options(text, options)?]),
        false => Ok(documents),
    });
    read.map_err(|error| {
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
        let Tagged(spanned, tag): Tagged<Spanned<Kind>> = Tagged::deserialize(deserializer)?;
        let number = |n: u64| usize::try_from(n).unwrap_or(1);
        Ok(Self {
            tag: match tag.as_deref() {
                Some("!reset") => Some(Tag::Reset),
                Some("!override") => Some(Tag::Override),
                _ => None,
            },
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The paths of tagged values, and what is left of the document.
    fn tags(text: &str) -> (Vec<String>, String) {
        let mut node = read(text, 0).unwrap().remove(0);
        let paths = node.take_tags();
        let paths = paths.iter().map(|path| path.join("."));
        (paths.collect(), shown(&node))
    }

    fn shown(node: &Node) -> String {
        let list = |texts: Vec<String>| texts.join(" ");
        match &node.kind {
            Kind::List(values) => format!("[{}]", list(values.iter().map(shown).collect())),
            Kind::Map(entries) => {
                let entry =
                    |(key, value): &(Node, Node)| format!("{}={}", shown(key), shown(value));
                format!("{{{}}}", list(entries.iter().map(entry).collect()))
            }
            _ => node.scalar().unwrap_or_default(),
        }
    }

    #[test]
    fn tags_are_seen_wherever_they_stand() {
        for (text, paths, left) in [
            ("a: !reset null\nb: 1\n", &["a"][..], "{b=1}"),
            ("a: !reset\nb: 1\n", &["a"], "{b=1}"),
            ("a: !reset []\n", &["a"], "{}"),
            ("a:\n  b: !reset\n    c: d\n", &["a.b"], "{a={}}"),
            (
                "a: {b: !reset null, c: !override {d: e}}\n",
                &["a.b", "a.c"],
                "{a={c={d=e}}}",
            ),
            ("a: !override\n  - x\n  - y\n", &["a"], "{a=[x y]}"),
            ("- !reset x\n- a: !reset y\n- z\n", &[], "[{} z]"),
            (
                "\"a\": !override \"x\"\n'b c': !reset 1\n",
                &["a", "b c"],
                "{a=x}",
            ),
            ("a: &x !override [1]\nb: *x\n", &["a", "b"], "{a=[1] b=[1]}"),
            (
                "a: &x {b: !reset 1, c: 2}\nd:\n  <<: *x\n",
                &["a.b", "d.b"],
                "{a={c=2} d={c=2}}",
            ),
            // Texts that look like it, and other tags.
            ("a: |\n  b: !reset null\n", &[], "{a=b: !reset null\n}"),
            (
                "a: \"!reset\" # b: !reset x\nb: '!override'\n",
                &[],
                "{a=!reset b=!override}",
            ),
            ("a: !mine x\nb: !!str 5\n", &[], "{a=x b=5}"),
        ] {
            let (found, rest) = tags(text);
            assert_eq!(
                (found, rest.as_str()),
                (paths.iter().map(|p| (*p).to_owned()).collect(), left),
                "{text}"
            );
        }
    }
}
