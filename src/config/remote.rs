//! Values under `cache:` that can be written in more than one form.
//!
//! Each form is told by the kind of the YAML value, so that what is wrong is said about the value
//! and not about a list of forms.

use std::{borrow::Cow, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};

use super::file::Remote;

/// One remote cache or several, each an address alone or with what builds may do with it.
#[derive(Debug)]
pub(super) struct Remotes(pub(super) Vec<OneRemote>);

/// A remote cache in either form.
#[derive(Debug)]
pub(super) enum OneRemote {
    /// Its address.
    Url(String),
    /// With settings.
    Full(Box<Remote>),
}

/// A text or a list of texts.
#[derive(Debug)]
pub(super) struct Texts(pub(super) Vec<String>);

/// Whether results are saved in a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Write {
    /// Where the build is not a stranger's.
    #[default]
    Auto,
    /// In any case.
    Yes,
    /// In no case.
    No,
}

impl<'de> Deserialize<'de> for OneRemote {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Form;
        impl<'de> Visitor<'de> for Form {
            type Value = OneRemote;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an address or a mapping with `url`")
            }

            fn visit_str<E: de::Error>(self, url: &str) -> Result<OneRemote, E> {
                Ok(OneRemote::Url(url.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<OneRemote, A::Error> {
                let remote = Remote::deserialize(MapAccessDeserializer::new(map))?;
                Ok(OneRemote::Full(Box::new(remote)))
            }
        }
        deserializer.deserialize_any(Form)
    }
}

impl<'de> Deserialize<'de> for Remotes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Form;
        impl<'de> Visitor<'de> for Form {
            type Value = Remotes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an address, a mapping with `url`, or a list of them")
            }

            fn visit_str<E: de::Error>(self, url: &str) -> Result<Remotes, E> {
                Ok(Remotes(vec![OneRemote::Url(url.to_owned())]))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Remotes, A::Error> {
                let remote = Remote::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Remotes(vec![OneRemote::Full(Box::new(remote))]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Remotes, A::Error> {
                let mut remotes = Vec::new();
                while let Some(remote) = list.next_element()? {
                    remotes.push(remote);
                }
                Ok(Remotes(remotes))
            }
        }
        deserializer.deserialize_any(Form)
    }
}

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Form;
        impl<'de> Visitor<'de> for Form {
            type Value = Texts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a list of texts")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Texts, E> {
                Ok(Texts(vec![text.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Texts, A::Error> {
                let mut texts = Vec::new();
                while let Some(text) = list.next_element()? {
                    texts.push(text);
                }
                Ok(Texts(texts))
            }
        }
        deserializer.deserialize_any(Form)
    }
}

impl<'de> Deserialize<'de> for Write {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Form;
        impl Visitor<'_> for Form {
            type Value = Write;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`true`, `false` or `auto`")
            }

            fn visit_bool<E: de::Error>(self, write: bool) -> Result<Write, E> {
                Ok(match write {
                    true => Write::Yes,
                    false => Write::No,
                })
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Write, E> {
                match text {
                    "auto" => Ok(Write::Auto),
                    other => Err(E::unknown_variant(other, &["true", "false", "auto"])),
                }
            }
        }
        deserializer.deserialize_any(Form)
    }
}

impl JsonSchema for Remotes {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Remotes".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let remote = generator.subschema_for::<Remote>();
        json_schema!({"anyOf": [
            {"type": "string"},
            remote,
            {"type": "array", "items": {"anyOf": [{"type": "string"}, remote]}},
        ]})
    }
}

impl JsonSchema for Texts {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Texts".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"anyOf": [
            {"type": "string"},
            {"type": "array", "items": {"type": "string"}},
        ]})
    }
}

impl JsonSchema for Write {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Write".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"anyOf": [{"type": "boolean"}, {"const": "auto"}]})
    }
}
