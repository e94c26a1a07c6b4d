//! The lists of a target whose entries are texts or objects: caches, outputs, secrets, keys,
//! attestations.
//!
//! The text form is that of the options of `docker buildx build`: comma-separated
//! `key=value`. Source: <https://docs.docker.com/build/bake/reference/>.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer, ser::SerializeMap as _};

use super::{
    convert::{self, convert},
    csv,
    error::Problem,
    value::{Type, Value},
};

/// Attributes by name.
pub type Attrs = BTreeMap<String, String>;

/// One kind of entry.
pub(super) trait Entry: Sized + Clone + PartialEq {
    /// The entries that a text stands for.
    fn parse(text: &str) -> Result<Vec<Self>, String>;
    /// The entry that an object stands for.
    fn from_map(map: Attrs) -> Result<Self, String>;
    fn to_map(&self) -> Attrs;
    /// Leaves each entry once.
    fn normalise(entries: Vec<Self>) -> Vec<Self>;
}

/// Where a cache comes from, or goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheEntry {
    /// `registry`, `local`, `gha` and so on.
    pub kind: String,
    /// The rest.
    pub attrs: Attrs,
}

/// Where a result goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputEntry {
    /// `oci`, `docker`, `local`, `tar`, `image`, `registry`, `cacheonly`.
    pub kind: String,
    /// A path, for those that have one.
    pub dest: Option<String>,
    /// The rest.
    pub attrs: Attrs,
}

/// An attestation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttestEntry {
    /// `provenance` or `sbom`.
    pub kind: String,
    /// Whether it is turned off.
    pub disabled: bool,
    /// The rest.
    pub attrs: Attrs,
}

/// A secret, from a file or the environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SecretEntry {
    /// Under what steps find it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// Path of its file.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub src: String,
    /// Name of the environment variable.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub env: String,
}

/// Agents or keys for SSH.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SshEntry {
    /// Under what steps find it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// Sockets of agents, or key files; none for the agent of the environment.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
}

impl CacheEntry {
    fn make(mut attrs: Attrs, from: &str) -> Result<Self, String> {
        match attrs.remove("type").filter(|kind| !kind.is_empty()) {
            Some(kind) => Ok(Self { kind, attrs }),
            None => Err(format!("`{from}` has no `type`")),
        }
    }
}

impl Entry for CacheEntry {
    fn parse(text: &str) -> Result<Vec<Self>, String> {
        let fields = csv::fields(text)?;
        if !text.contains('=') {
            // References alone, one or more.
            let of = |reference| Self {
                kind: "registry".to_owned(),
                attrs: Attrs::from([("ref".to_owned(), reference)]),
            };
            return Ok(fields.into_iter().map(of).collect());
        }
        let mut attrs = Attrs::new();
        for (key, value) in pairs(&fields)? {
            attrs.insert(key.to_lowercase(), value.to_owned());
        }
        Ok(vec![Self::make(attrs, text)?])
    }

    fn from_map(map: Attrs) -> Result<Self, String> {
        Self::make(map, "the cache")
    }

    fn to_map(&self) -> Attrs {
        with(&self.attrs, [("type", self.kind.clone())])
    }

    fn normalise(entries: Vec<Self>) -> Vec<Self> {
        without_equal(entries)
    }
}

impl OutputEntry {
    fn make(mut attrs: Attrs) -> Result<Self, String> {
        let dest = attrs.remove("dest").filter(|dest| !dest.is_empty());
        match attrs.remove("type").filter(|kind| !kind.is_empty()) {
            Some(kind) => Ok(Self { kind, dest, attrs }),
            None => Err("an output has no `type`".to_owned()),
        }
    }
}

impl Entry for OutputEntry {
    fn parse(text: &str) -> Result<Vec<Self>, String> {
        let fields = csv::fields(text)?;
        if fields.len() == 1 && fields[0] == text && !text.starts_with("type=") {
            return Ok(vec![Self {
                kind: if text == "-" { "tar" } else { "local" }.to_owned(),
                dest: Some(text.to_owned()),
                attrs: Attrs::new(),
            }]);
        }
        let mut attrs = Attrs::new();
        for (key, value) in pairs(&fields)? {
            attrs.insert(key.trim().to_lowercase(), value.to_owned());
        }
        Ok(vec![Self::make(attrs)?])
    }

    fn from_map(map: Attrs) -> Result<Self, String> {
        Self::make(map)
    }

    fn to_map(&self) -> Attrs {
        let dest = self.dest.clone().unwrap_or_default();
        with(&self.attrs, [("type", self.kind.clone()), ("dest", dest)])
    }

    fn normalise(entries: Vec<Self>) -> Vec<Self> {
        without_equal(entries)
    }
}

impl AttestEntry {
    fn make(mut attrs: Attrs) -> Result<Self, String> {
        let disabled = match attrs.remove("disabled") {
            Some(text) => go_bool(&text).ok_or_else(|| format!("`disabled={text}` is no bool"))?,
            None => false,
        };
        Ok(Self {
            kind: attrs.remove("type").unwrap_or_default(),
            disabled,
            attrs,
        })
    }

    /// What the options `--sbom` and `--provenance` mean: a bool, or attributes.
    pub(super) fn option(kind: &str, text: &str) -> String {
        match go_bool(text) {
            Some(on) => format!("type={kind},disabled={}", !on),
            None => format!("type={kind},{text}"),
        }
    }
}

impl Entry for AttestEntry {
    fn parse(text: &str) -> Result<Vec<Self>, String> {
        let fields = csv::fields(text)?;
        let mut attrs = Attrs::new();
        for (key, value) in pairs(&fields)? {
            let known = key.trim().to_lowercase();
            let key = match known.as_str() {
                "type" | "disabled" => known,
                _ => key.to_owned(),
            };
            attrs.insert(key, value.to_owned());
        }
        let entry = Self::make(attrs)?;
        match entry.kind.is_empty() {
            true => Err(format!("attestation `{text}` has no `type`")),
            false => Ok(vec![entry]),
        }
    }

    fn from_map(map: Attrs) -> Result<Self, String> {
        Self::make(map)
    }

    fn to_map(&self) -> Attrs {
        let disabled = self.disabled.then(|| ("disabled", "true".to_owned()));
        let named = [Some(("type", self.kind.clone())), disabled];
        with(&self.attrs, named.into_iter().flatten())
    }

    fn normalise(entries: Vec<Self>) -> Vec<Self> {
        last_of_each(entries, |entry| entry.kind.clone())
    }
}

impl Entry for SecretEntry {
    fn parse(text: &str) -> Result<Vec<Self>, String> {
        let fields = csv::fields(text)?;
        let mut entry = Self::from_map(Attrs::new())?;
        let mut from_env = false;
        for (key, value) in pairs(&fields)? {
            let value = value.to_owned();
            match key.to_lowercase().as_str() {
                "type" if value == "file" => from_env = false,
                "type" if value == "env" => from_env = true,
                "type" => return Err(format!("secrets of type `{value}` do not exist")),
                "id" => entry.id = value,
                "source" | "src" => entry.src = value,
                "env" => entry.env = value,
                _ => {
                    return Err(format!(
                        "a secret has no `{key}`; it has `id`, `src` and `env`"
                    ));
                }
            }
        }
        if from_env && entry.env.is_empty() {
            entry.env = std::mem::take(&mut entry.src);
        }
        Ok(vec![entry])
    }

    fn from_map(mut map: Attrs) -> Result<Self, String> {
        let mut take = |key| map.remove(key).unwrap_or_default();
        Ok(Self {
            id: take("id"),
            src: take("src"),
            env: take("env"),
        })
    }

    fn to_map(&self) -> Attrs {
        let named = [("id", &self.id), ("src", &self.src), ("env", &self.env)];
        with(
            &Attrs::new(),
            named.map(|(key, value)| (key, value.clone())),
        )
    }

    fn normalise(entries: Vec<Self>) -> Vec<Self> {
        last_of_each(entries, |entry| entry.id.clone())
    }
}

impl Entry for SshEntry {
    fn parse(text: &str) -> Result<Vec<Self>, String> {
        let (id, paths) = match text.split_once('=') {
            Some((id, paths)) => (id, paths.split(',').map(str::to_owned).collect()),
            None => (text, Vec::new()),
        };
        Ok(vec![Self {
            id: id.to_owned(),
            paths,
        }])
    }

    fn from_map(mut map: Attrs) -> Result<Self, String> {
        let paths = map.remove("paths").unwrap_or_default();
        Ok(Self {
            id: map.remove("id").unwrap_or_default(),
            paths: paths
                .split('\0')
                .filter(|path| !path.is_empty())
                .map(str::to_owned)
                .collect(),
        })
    }

    fn to_map(&self) -> Attrs {
        with(
            &Attrs::new(),
            [("id", self.id.clone()), ("paths", self.paths.join(","))],
        )
    }

    fn normalise(entries: Vec<Self>) -> Vec<Self> {
        last_of_each(entries, |entry| entry.id.clone())
    }
}

/// A bool as Go's `strconv.ParseBool` takes it.
pub(super) fn go_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

fn pairs(fields: &[String]) -> Result<Vec<(&str, &str)>, String> {
    fields
        .iter()
        .map(|field| {
            field
                .split_once('=')
                .ok_or_else(|| format!("`{field}` is not `key=value`"))
        })
        .collect()
}

fn with(attrs: &Attrs, more: impl IntoIterator<Item = (&'static str, String)>) -> Attrs {
    let mut out = attrs.clone();
    out.extend(more.into_iter().map(|(key, value)| (key.to_owned(), value)));
    out
}

/// Each entry once: later ones stay, in buildx's order.
fn without_equal<E: PartialEq>(mut entries: Vec<E>) -> Vec<E> {
    for at in (0..entries.len().saturating_sub(1)).rev() {
        if let Some(same) = (at + 1..entries.len()).find(|other| entries[*other] == entries[at]) {
            entries.swap_remove(same);
        }
    }
    entries
}

/// One entry for each name: the last, at the place of the first.
fn last_of_each<E>(entries: Vec<E>, name: impl Fn(&E) -> String) -> Vec<E> {
    let mut out: Vec<E> = Vec::new();
    for entry in entries {
        match out.iter_mut().find(|known| name(known) == name(&entry)) {
            Some(known) => *known = entry,
            None => out.push(entry),
        }
    }
    out
}

/// The entries of a list of texts and objects; none for null.
pub(super) fn entries<E: Entry>(value: &Value) -> Result<Option<Vec<E>>, Problem> {
    if value.is_null() {
        return Ok(None);
    }
    let list = match value {
        Value::List(_, values) | Value::Tuple(values) => values,
        other => {
            return Err(Problem::WrongType {
                expected: "a list of strings or objects".to_owned(),
                found: other.kind().to_owned(),
            });
        }
    };
    let mut out = Vec::new();
    for value in list {
        let wrong = |reason| Problem::Attribute {
            attribute: "entry".to_owned(),
            reason,
        };
        match value {
            Value::String(text) if text.is_empty() => {}
            Value::String(text) => out.extend(E::parse(text).map_err(wrong)?),
            value if value.is_null() => {}
            value => out.push(E::from_map(attrs(value)?).map_err(wrong)?),
        }
    }
    Ok(Some(out))
}

/// An object of texts; a list in it becomes one text with NUL bytes between its elements.
fn attrs(value: &Value) -> Result<Attrs, Problem> {
    let Some(entries) = value.entries() else {
        return Err(Problem::WrongType {
            expected: "a string or an object".to_owned(),
            found: value.kind().to_owned(),
        });
    };
    let mut out = Attrs::new();
    for (key, value) in entries.iter().filter(|(_, value)| !value.is_null()) {
        let text = match value.elements() {
            Some(_) if key == "paths" => {
                let list = convert(value, &Type::List(Box::new(Type::String)))?;
                let texts: Result<Vec<_>, _> = list
                    .elements()
                    .unwrap_or_default()
                    .iter()
                    .map(convert::string)
                    .collect();
                texts?.join("\0")
            }
            _ => convert::string(value)?,
        };
        out.insert(key.clone(), text);
    }
    Ok(out)
}

/// What a reference to the list gives: a list of maps.
pub(super) fn to_value<E: Entry>(entries: Option<&[E]>) -> Value {
    let of = Type::Map(Box::new(Type::String));
    let rows = entries.unwrap_or_default().iter().map(|entry| {
        let map = entry.to_map();
        Value::Map(
            Type::String,
            map.into_iter()
                .map(|(k, v)| (k, Value::String(v)))
                .collect(),
        )
    });
    Value::list(of, rows.collect())
}

impl Serialize for CacheEntry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_map().serialize(serializer)
    }
}

impl Serialize for OutputEntry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = self.to_map();
        if self.dest.is_none() {
            map.remove("dest");
        }
        map.serialize(serializer)
    }
}

impl Serialize for AttestEntry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let map = self.to_map();
        let mut out = serializer.serialize_map(Some(map.len()))?;
        for (key, value) in &map {
            match key.as_str() {
                "disabled" => out.serialize_entry(key, &true)?,
                _ => out.serialize_entry(key, value)?,
            }
        }
        out.end()
    }
}
