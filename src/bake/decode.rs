//! From the values of attributes to a [`Target`].

use super::{
    convert::{self, convert},
    entries::{self, AttestEntry, CacheEntry, OutputEntry, SecretEntry, SshEntry},
    error::Problem,
    target::{Target, Texts},
    value::{Type, Value},
};

/// What an attribute holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Flag,
    List,
    Map,
    Attest,
    Cache,
    Output,
    Secret,
    Ssh,
}

/// The attributes of a target.
pub(super) const TARGET: &[(&str, Kind)] = &[
    ("description", Kind::Text),
    ("inherits", Kind::List),
    ("annotations", Kind::List),
    ("attest", Kind::Attest),
    ("context", Kind::Text),
    ("contexts", Kind::Map),
    ("dockerfile", Kind::Text),
    ("dockerfile-inline", Kind::Text),
    ("args", Kind::Map),
    ("labels", Kind::Map),
    ("tags", Kind::List),
    ("cache-from", Kind::Cache),
    ("cache-to", Kind::Cache),
    ("target", Kind::Text),
    ("secret", Kind::Secret),
    ("ssh", Kind::Ssh),
    ("platforms", Kind::List),
    ("output", Kind::Output),
    ("pull", Kind::Flag),
    ("no-cache", Kind::Flag),
    ("network", Kind::Text),
    ("no-cache-filter", Kind::List),
    ("shm-size", Kind::Text),
    ("ulimits", Kind::List),
    ("call", Kind::Text),
    ("entitlements", Kind::List),
    ("extra-hosts", Kind::Map),
];

/// The attributes of a group.
pub(super) const GROUP: &[(&str, Kind)] = &[("description", Kind::Text), ("targets", Kind::List)];

/// Attributes of buildx that change how a build runs and are refused.
pub(super) const REFUSED: [&str; 2] = ["resources", "policy"];

impl Kind {
    /// `value` as one of this kind, as other expressions see it.
    pub(super) fn typed(self, value: &Value) -> Result<Value, Problem> {
        match self {
            Self::Text => convert(value, &Type::String),
            Self::Flag => convert(value, &Type::Bool),
            Self::List => convert(value, &Type::List(Box::new(Type::String))),
            Self::Map => convert(value, &Type::Map(Box::new(Type::String))),
            Self::Attest => Ok(listed(entries::entries::<AttestEntry>(value)?)),
            Self::Cache => Ok(listed(entries::entries::<CacheEntry>(value)?)),
            Self::Output => Ok(listed(entries::entries::<OutputEntry>(value)?)),
            Self::Secret => Ok(listed(entries::entries::<SecretEntry>(value)?)),
            Self::Ssh => {
                // The paths are a list of their own.
                let list = entries::entries::<SshEntry>(value)?;
                let rows = list.unwrap_or_default().into_iter().map(|entry| {
                    Value::Object(
                        [
                            ("id".to_owned(), Value::String(entry.id)),
                            ("paths".to_owned(), Value::texts(entry.paths)),
                        ]
                        .into(),
                    )
                });
                Ok(Value::list(Type::Any, rows.collect()))
            }
        }
    }

    /// What an attribute that isn't set gives.
    pub(super) fn unset(self) -> Value {
        match self {
            Self::Text => Value::Null(Type::String),
            Self::Flag => Value::Null(Type::Bool),
            Self::List => Value::Null(Type::List(Box::new(Type::String))),
            Self::Map => Value::Null(Type::Map(Box::new(Type::String))),
            _ => Value::list(Type::Map(Box::new(Type::String)), Vec::new()),
        }
    }
}

fn listed<E: entries::Entry>(list: Option<Vec<E>>) -> Value {
    entries::to_value(list.as_deref())
}

/// Sets the attribute `name` of `target`.
pub(super) fn set(target: &mut Target, name: &str, value: &Value) -> Result<(), Problem> {
    match name {
        "description" => target.description = text(value)?.unwrap_or_default(),
        "inherits" => target.inherits = list(value)?.unwrap_or_default(),
        "annotations" => target.annotations = list(value)?,
        "attest" => target.attest = entries::entries(value)?,
        "context" => target.context = text(value)?,
        "contexts" => target.contexts = map(value)?,
        "dockerfile" => target.dockerfile = text(value)?,
        "dockerfile-inline" => target.dockerfile_inline = text(value)?,
        "args" => target.args = map(value)?,
        "labels" => target.labels = map(value)?,
        "tags" => target.tags = list(value)?,
        "cache-from" => target.cache_from = entries::entries(value)?,
        "cache-to" => target.cache_to = entries::entries(value)?,
        "target" => target.target = text(value)?,
        "secret" => target.secrets = entries::entries(value)?,
        "ssh" => target.ssh = entries::entries(value)?,
        "platforms" => target.platforms = list(value)?,
        "output" => target.outputs = entries::entries(value)?,
        "pull" => target.pull = flag(value)?,
        "no-cache" => target.no_cache = flag(value)?,
        "network" => target.network = text(value)?,
        "no-cache-filter" => target.no_cache_filter = list(value)?,
        "shm-size" => target.shm_size = text(value)?,
        "ulimits" => target.ulimits = list(value)?,
        "call" => target.call = text(value)?,
        "entitlements" => target.entitlements = list(value)?,
        "extra-hosts" => target.extra_hosts = map(value)?,
        _ => {
            return Err(Problem::Unsupported {
                attribute: name.to_owned(),
            });
        }
    }
    Ok(())
}

fn text(value: &Value) -> Result<Option<String>, Problem> {
    match value.is_null() {
        true => Ok(None),
        false => convert::string(value).map(Some),
    }
}

fn flag(value: &Value) -> Result<Option<bool>, Problem> {
    match value.is_null() {
        true => Ok(None),
        false => convert::bool(value).map(Some),
    }
}

/// The texts of a list.
pub(super) fn list(value: &Value) -> Result<Option<Vec<String>>, Problem> {
    if value.is_null() {
        return Ok(None);
    }
    let value = convert(value, &Type::List(Box::new(Type::String)))?;
    let values = value.elements().unwrap_or_default();
    let texts: Result<_, _> = values.iter().map(convert::string).collect();
    texts.map(Some)
}

/// The texts of a map; what is null is left out.
fn map(value: &Value) -> Result<Texts, Problem> {
    if value.is_null() {
        return Ok(Texts::new());
    }
    let value = convert(value, &Type::Map(Box::new(Type::String)))?;
    let entries = value.entries().into_iter().flatten();
    entries
        .filter(|(_, value)| !value.is_null())
        .map(|(name, value)| Ok((name.clone(), convert::string(value)?)))
        .collect()
}
