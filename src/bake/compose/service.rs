//! What a compose file says of one service, as far as builds are concerned.

use std::collections::BTreeMap;

use super::{
    reader::joined,
    yaml::{Kind, Node},
};
use crate::{bake::entries::go_bool, dockerfile::nearest};

/// The keys of `build`.
const BUILD: &[&str] = &[
    "additional_contexts",
    "args",
    "cache_from",
    "cache_to",
    "context",
    "dockerfile",
    "dockerfile_inline",
    "entitlements",
    "extra_hosts",
    "isolation",
    "labels",
    "network",
    "no_cache",
    "no_cache_filter",
    "platforms",
    "privileged",
    "provenance",
    "pull",
    "sbom",
    "secrets",
    "shm_size",
    "ssh",
    "tags",
    "target",
    "ulimits",
];

/// A value that is not what it should be: what is wrong, line, column, hint.
#[derive(Debug)]
pub(super) struct Wrong {
    pub(super) message: String,
    pub(super) line: usize,
    pub(super) column: usize,
    pub(super) hint: Option<String>,
}

impl Wrong {
    pub(super) fn at(node: &Node, message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            line: node.line,
            column: node.column,
            hint: None,
        }
    }

    pub(super) fn expected(node: &Node, what: &str) -> Self {
        Self::at(node, format!("expected {what}, found {}", node.what()))
    }
}

type Result<T> = std::result::Result<T, Wrong>;

/// A service.
#[derive(Debug, Clone, Default)]
pub(super) struct Service {
    pub(super) image: Option<String>,
    pub(super) build: Option<Build>,
    pub(super) environment: BTreeMap<String, Option<String>>,
    /// Paths, and whether the file must be there.
    pub(super) env_files: Vec<(String, bool)>,
    pub(super) line: usize,
    pub(super) column: usize,
}

/// `build` of a service.
#[derive(Debug, Clone, Default)]
pub(super) struct Build {
    pub(super) context: Option<String>,
    pub(super) dockerfile: Option<String>,
    pub(super) dockerfile_inline: Option<String>,
    pub(super) args: BTreeMap<String, Option<String>>,
    pub(super) labels: BTreeMap<String, Option<String>>,
    pub(super) contexts: BTreeMap<String, Option<String>>,
    pub(super) cache_from: Vec<String>,
    pub(super) cache_to: Vec<String>,
    pub(super) network: Option<String>,
    pub(super) target: Option<String>,
    pub(super) shm_size: Option<String>,
    pub(super) ssh: BTreeMap<String, Option<String>>,
    pub(super) secrets: Vec<String>,
    pub(super) platforms: Vec<String>,
    pub(super) tags: Vec<String>,
    pub(super) extra_hosts: BTreeMap<String, Vec<String>>,
    pub(super) ulimits: BTreeMap<String, (i64, i64)>,
    pub(super) no_cache: Option<bool>,
    pub(super) pull: Option<bool>,
    pub(super) sbom: Option<String>,
    pub(super) provenance: Option<String>,
    pub(super) bake: XBake,
}

/// `x-bake` of a build.
#[derive(Debug, Clone, Default)]
pub(super) struct XBake {
    pub(super) tags: Vec<String>,
    pub(super) cache_from: Vec<String>,
    pub(super) cache_to: Vec<String>,
    pub(super) secrets: Vec<String>,
    pub(super) ssh: Vec<String>,
    pub(super) platforms: Vec<String>,
    pub(super) outputs: Vec<String>,
    pub(super) pull: Option<bool>,
    pub(super) no_cache: Option<bool>,
    pub(super) no_cache_filter: Vec<String>,
    pub(super) contexts: BTreeMap<String, Option<String>>,
}

fn replace<T>(own: &mut Option<T>, other: Option<T>) {
    if other.is_some() {
        *own = other;
    }
}

/// Removes the entry with this name, or all.
fn remove_from<T>(map: &mut BTreeMap<String, T>, name: &[&str]) {
    match name {
        [] => map.clear(),
        [name] => drop(map.remove(*name)),
        _ => {}
    }
}

fn append<T: PartialEq>(own: &mut Vec<T>, other: Vec<T>) {
    for item in other {
        if !own.contains(&item) {
            own.push(item);
        }
    }
}

impl Service {
    /// Takes over what `other`, of a later file, says.
    pub(super) fn merge(&mut self, other: Self) {
        replace(&mut self.image, other.image);
        match (&mut self.build, other.build) {
            (Some(own), Some(other)) => own.merge(other),
            (own, other) => replace(own, other),
        }
        self.environment.extend(other.environment);
        append(&mut self.env_files, other.env_files);
    }

    /// Removes what stands at a path.
    pub(super) fn remove<S: AsRef<str>>(&mut self, path: &[S]) {
        let path: Vec<&str> = path.iter().map(AsRef::as_ref).collect();
        match path.as_slice() {
            ["image"] => self.image = None,
            ["build"] => self.build = None,
            ["build", inside @ ..] => {
                if let Some(build) = &mut self.build {
                    build.remove(inside);
                }
            }
            ["environment", name @ ..] => remove_from(&mut self.environment, name),
            ["env_file"] => self.env_files.clear(),
            _ => {}
        }
    }

    /// Makes paths that start in `dir` start where `dir` does.
    pub(super) fn move_to(&mut self, dir: &str) {
        for (path, _) in &mut self.env_files {
            *path = joined(dir, path);
        }
        if let Some(build) = &mut self.build {
            let contexts = build.contexts.values_mut().flatten();
            for path in contexts.chain(&mut build.context) {
                *path = joined(dir, path);
            }
        }
    }

    /// Reads a service.
    pub(super) fn read(node: &Node) -> Result<Self> {
        let mut out = Self {
            line: node.line,
            column: node.column,
            ..Self::default()
        };
        if matches!(node.kind, Kind::Null) {
            return Ok(out);
        }
        for (key, value) in entries(node)? {
            match key.as_str() {
                "image" => out.image = text(value)?,
                "build" => out.build = Build::read(value)?,
                "environment" => out.environment = pairs(value, &['='])?,
                "env_file" => out.env_files = env_files(value)?,
                _ => {}
            }
        }
        Ok(out)
    }
}

impl Build {
    fn merge(&mut self, other: Self) {
        replace(&mut self.context, other.context);
        replace(&mut self.dockerfile, other.dockerfile);
        replace(&mut self.dockerfile_inline, other.dockerfile_inline);
        self.args.extend(other.args);
        self.labels.extend(other.labels);
        self.contexts.extend(other.contexts);
        append(&mut self.cache_from, other.cache_from);
        append(&mut self.cache_to, other.cache_to);
        replace(&mut self.network, other.network);
        replace(&mut self.target, other.target);
        replace(&mut self.shm_size, other.shm_size);
        self.ssh.extend(other.ssh);
        append(&mut self.secrets, other.secrets);
        append(&mut self.platforms, other.platforms);
        append(&mut self.tags, other.tags);
        self.extra_hosts.extend(other.extra_hosts);
        self.ulimits.extend(other.ulimits);
        replace(&mut self.no_cache, other.no_cache);
        replace(&mut self.pull, other.pull);
        replace(&mut self.sbom, other.sbom);
        replace(&mut self.provenance, other.provenance);
        let (own, other) = (&mut self.bake, other.bake);
        append(&mut own.tags, other.tags);
        append(&mut own.cache_from, other.cache_from);
        append(&mut own.cache_to, other.cache_to);
        append(&mut own.secrets, other.secrets);
        append(&mut own.ssh, other.ssh);
        append(&mut own.platforms, other.platforms);
        append(&mut own.outputs, other.outputs);
        replace(&mut own.pull, other.pull);
        replace(&mut own.no_cache, other.no_cache);
        append(&mut own.no_cache_filter, other.no_cache_filter);
        own.contexts.extend(other.contexts);
    }

    fn remove(&mut self, path: &[&str]) {
        let (key, inside) = match path {
            [key, inside @ ..] => (*key, inside),
            [] => return,
        };
        match key {
            "args" => remove_from(&mut self.args, inside),
            "labels" => remove_from(&mut self.labels, inside),
            "additional_contexts" => remove_from(&mut self.contexts, inside),
            "ssh" => remove_from(&mut self.ssh, inside),
            "extra_hosts" => remove_from(&mut self.extra_hosts, inside),
            "ulimits" => remove_from(&mut self.ulimits, inside),
            "x-bake" => match inside {
                [] => self.bake = XBake::default(),
                ["contexts", name @ ..] => remove_from(&mut self.bake.contexts, name),
                [key] => self.bake.remove(key),
                _ => {}
            },
            // An item of a list has no name.
            _ if !inside.is_empty() => {}
            "context" => self.context = None,
            "dockerfile" => self.dockerfile = None,
            "dockerfile_inline" => self.dockerfile_inline = None,
            "cache_from" => self.cache_from.clear(),
            "cache_to" => self.cache_to.clear(),
            "network" => self.network = None,
            "target" => self.target = None,
            "shm_size" => self.shm_size = None,
            "secrets" => self.secrets.clear(),
            "platforms" => self.platforms.clear(),
            "tags" => self.tags.clear(),
            "no_cache" => self.no_cache = None,
            "pull" => self.pull = None,
            "sbom" => self.sbom = None,
            "provenance" => self.provenance = None,
            _ => {}
        }
    }

    fn read(node: &Node) -> Result<Option<Self>> {
        let mut out = Self::default();
        match &node.kind {
            Kind::Null => return Ok(None),
            Kind::Text(context) => {
                out.context = Some(context.clone());
                return Ok(Some(out));
            }
            _ => {}
        }
        for (key, value) in entries(node)? {
            match key.as_str() {
                "context" => out.context = text(value)?,
                "dockerfile" => out.dockerfile = text(value)?,
                "dockerfile_inline" => out.dockerfile_inline = text(value)?,
                "args" => out.args = pairs(value, &['='])?,
                "labels" => out.labels = pairs(value, &['='])?,
                "additional_contexts" => out.contexts = pairs(value, &['='])?,
                "cache_from" => out.cache_from = texts(value)?,
                "cache_to" => out.cache_to = texts(value)?,
                "network" => out.network = text(value)?,
                "target" => out.target = text(value)?,
                "shm_size" => out.shm_size = size(value)?,
                "ssh" => out.ssh = pairs(value, &['='])?,
                "secrets" => out.secrets = secrets(value)?,
                "platforms" => out.platforms = texts(value)?,
                "tags" => out.tags = texts(value)?,
                "extra_hosts" => out.extra_hosts = hosts(value)?,
                "ulimits" => out.ulimits = ulimits(value)?,
                "no_cache" => out.no_cache = flag(value)?.filter(|on| *on),
                "pull" => out.pull = flag(value)?.filter(|on| *on),
                "sbom" => out.sbom = text(value)?,
                "provenance" => out.provenance = text(value)?,
                "x-bake" => out.bake = XBake::read(value)?,
                // What buildx doesn't take over from compose files either.
                "entitlements" | "isolation" | "privileged" | "no_cache_filter" => {}
                key if key.starts_with("x-") => {}
                key => {
                    let hint = match nearest(key, BUILD.iter().copied()) {
                        Some(near) => format!("did you mean `{near}`?"),
                        None => format!("known here: {}", BUILD.join(", ")),
                    };
                    return Err(Wrong {
                        hint: Some(hint),
                        ..Wrong::at(value, format!("`build` has no `{key}`"))
                    });
                }
            }
        }
        Ok(Some(out))
    }
}

impl XBake {
    fn remove(&mut self, key: &str) {
        match key {
            "tags" => self.tags.clear(),
            "cache-from" => self.cache_from.clear(),
            "cache-to" => self.cache_to.clear(),
            "secret" => self.secrets.clear(),
            "ssh" => self.ssh.clear(),
            "platforms" => self.platforms.clear(),
            "output" => self.outputs.clear(),
            "pull" => self.pull = None,
            "no-cache" => self.no_cache = None,
            "no-cache-filter" => self.no_cache_filter.clear(),
            _ => {}
        }
    }

    fn read(node: &Node) -> Result<Self> {
        let mut out = Self::default();
        if matches!(node.kind, Kind::Null) {
            return Ok(out);
        }
        for (key, value) in entries(node)? {
            match key.as_str() {
                "tags" => out.tags = words(value)?,
                "cache-from" => out.cache_from = words(value)?,
                "cache-to" => out.cache_to = words(value)?,
                "secret" => out.secrets = words(value)?,
                "ssh" => out.ssh = words(value)?,
                "platforms" => out.platforms = words(value)?,
                "output" => out.outputs = words(value)?,
                "pull" => out.pull = flag(value)?,
                "no-cache" => out.no_cache = flag(value)?,
                "no-cache-filter" => out.no_cache_filter = words(value)?,
                "contexts" => out.contexts = pairs(value, &['='])?,
                _ => {}
            }
        }
        Ok(out)
    }
}

/// The entries of a mapping.
pub(super) fn entries(node: &Node) -> Result<Vec<(String, &Node)>> {
    let Kind::Map(entries) = &node.kind else {
        return Err(Wrong::expected(node, "a mapping"));
    };
    entries
        .iter()
        .map(|(key, value)| match key.scalar() {
            Some(name) => Ok((name, value)),
            None => Err(Wrong::expected(key, "a name")),
        })
        .collect()
}

fn text(node: &Node) -> Result<Option<String>> {
    match (&node.kind, node.scalar()) {
        (Kind::Null, _) => Ok(None),
        (_, Some(text)) => Ok(Some(text)),
        _ => Err(Wrong::expected(node, "a string")),
    }
}

fn flag(node: &Node) -> Result<Option<bool>> {
    match (text(node)?, &node.kind) {
        (None, _) => Ok(None),
        (Some(text), _) => match go_bool(&text) {
            Some(on) => Ok(Some(on)),
            None => Err(Wrong::at(node, format!("`{text}` is not true or false"))),
        },
    }
}

/// A list of texts, or one.
pub(super) fn texts(node: &Node) -> Result<Vec<String>> {
    match &node.kind {
        Kind::Null => Ok(Vec::new()),
        Kind::List(values) => values
            .iter()
            .map(|value| {
                value
                    .scalar()
                    .ok_or_else(|| Wrong::expected(value, "a string"))
            })
            .collect(),
        _ => match node.scalar() {
            Some(text) => Ok(vec![text]),
            None => Err(Wrong::expected(node, "a list of strings")),
        },
    }
}

/// A list of texts, or one text with spaces between them.
fn words(node: &Node) -> Result<Vec<String>> {
    match &node.kind {
        Kind::Text(text) => Ok(text.split_whitespace().map(str::to_owned).collect()),
        _ => texts(node),
    }
}

/// A mapping, or a list of `name=value`.
fn pairs(node: &Node, separators: &[char]) -> Result<BTreeMap<String, Option<String>>> {
    let mut out = BTreeMap::new();
    match &node.kind {
        Kind::Null => {}
        Kind::List(_) => {
            for item in texts(node)? {
                match item.split_once(separators) {
                    Some((name, value)) => out.insert(name.to_owned(), Some(value.to_owned())),
                    None => out.insert(item, None),
                };
            }
        }
        _ => {
            for (name, value) in entries(node)? {
                out.insert(name, text(value)?);
            }
        }
    }
    Ok(out)
}

fn env_files(node: &Node) -> Result<Vec<(String, bool)>> {
    let one = |node: &Node| match (&node.kind, node.scalar()) {
        (Kind::Map(_), _) => {
            let path = node.get("path").and_then(Node::scalar);
            let required = node.get("required").map(flag).transpose()?.flatten();
            match path {
                Some(path) => Ok((path, required.unwrap_or(true))),
                None => Err(Wrong::at(node, "an environment file has no `path`")),
            }
        }
        (_, Some(path)) => Ok((path, true)),
        _ => Err(Wrong::expected(node, "a path")),
    };
    match &node.kind {
        Kind::Null => Ok(Vec::new()),
        Kind::List(values) => values.iter().map(one).collect(),
        _ => Ok(vec![one(node)?]),
    }
}

/// Names of secrets, or mappings with `source`.
fn secrets(node: &Node) -> Result<Vec<String>> {
    let Kind::List(values) = &node.kind else {
        return texts(node);
    };
    let one = |node: &Node| {
        let source = node.get("source").and_then(Node::scalar);
        source
            .or_else(|| node.scalar())
            .ok_or_else(|| Wrong::expected(node, "the name of a secret"))
    };
    values.iter().map(one).collect()
}

/// `host:address`, `host=address`, or a mapping of them.
fn hosts(node: &Node) -> Result<BTreeMap<String, Vec<String>>> {
    let mut out: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let bare = |address: &str| {
        address
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned()
    };
    if let Kind::Map(_) = node.kind {
        for (host, value) in entries(node)? {
            let list = texts(value)?;
            out.insert(host, list.iter().map(|address| bare(address)).collect());
        }
        return Ok(out);
    }
    for item in texts(node)? {
        let (host, address) = item
            .split_once('=')
            .or_else(|| item.split_once(':'))
            .ok_or_else(|| Wrong::at(node, format!("`{item}` is not `host=address`")))?;
        out.entry(host.to_owned()).or_default().push(bare(address));
    }
    Ok(out)
}

fn ulimits(node: &Node) -> Result<BTreeMap<String, (i64, i64)>> {
    let number = |node: Option<&Node>| {
        let text = node.and_then(Node::scalar);
        text.and_then(|text| text.parse::<i64>().ok())
    };
    let mut out = BTreeMap::new();
    for (name, value) in entries(node)? {
        let (soft, hard) = match value.kind {
            Kind::Map(_) => (number(value.get("soft")), number(value.get("hard"))),
            _ => (number(Some(value)), number(Some(value))),
        };
        match (soft, hard) {
            (Some(soft), Some(hard)) => out.insert(name, (soft, hard)),
            _ => return Err(Wrong::at(value, format!("limit `{name}` is not a number"))),
        };
    }
    Ok(out)
}

/// A size in bytes with a unit, in the form that Docker writes: `128MiB`.
fn size(node: &Node) -> Result<Option<String>> {
    let Some(text) = text(node)? else {
        return Ok(None);
    };
    let wrong = || Wrong::at(node, format!("`{text}` is not a size like `64m`"));
    let lower = text.trim().to_lowercase();
    let end = lower
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(lower.len());
    let number: f64 = lower[..end].parse().map_err(|_| wrong())?;
    let unit = lower[end..].trim();
    let unit = unit.strip_suffix('b').unwrap_or(unit);
    let power = match unit.strip_suffix('i').unwrap_or(unit) {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return Err(wrong()),
    };
    let mut value = (number * 1024_f64.powi(power)).floor();
    let mut unit = "B";
    for next in ["KiB", "MiB", "GiB", "TiB", "PiB"] {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    // Four digits that count.
    let digits = match value {
        v if v >= 1000.0 => 0,
        v if v >= 100.0 => 1,
        v if v >= 10.0 => 2,
        _ => 3,
    };
    let rounded: f64 = format!("{value:.digits$}").parse().unwrap_or(value);
    match value > 0.0 {
        true => Ok(Some(format!("{rounded}{unit}"))),
        false => Ok(None),
    }
}
