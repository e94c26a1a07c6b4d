//! Targets and groups: their attributes, and how two are merged.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

use super::entries::{AttestEntry, CacheEntry, Entry, OutputEntry, SecretEntry, SshEntry};

/// Texts by name.
pub type Texts = BTreeMap<String, String>;

/// A group: names of targets and other groups.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Group {
    /// What it is for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// What it holds.
    pub targets: Vec<String>,
}

/// A target. Lists that are none are not set; an empty one replaces what is inherited,
/// where lists replace.
///
/// Serialised it is what `docker buildx bake --print` writes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Target {
    /// What it is for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    #[serde(skip)]
    pub(super) inherits: Vec<String>,
    /// `key=value`, with what it is an annotation of before a colon.
    #[serde(skip_serializing_if = "empty", serialize_with = "escaped_list")]
    pub annotations: Option<Vec<String>>,
    /// Attestations.
    #[serde(skip_serializing_if = "empty")]
    pub attest: Option<Vec<AttestEntry>>,
    /// The context: a directory or an address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    /// Other contexts by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub contexts: Texts,
    /// The Dockerfile, from the context.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dockerfile: Option<String>,
    /// The Dockerfile's text.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "escaped")]
    pub dockerfile_inline: Option<String>,
    /// Build arguments.
    #[serde(
        skip_serializing_if = "BTreeMap::is_empty",
        serialize_with = "escaped_map"
    )]
    pub args: Texts,
    /// Labels of the image.
    #[serde(
        skip_serializing_if = "BTreeMap::is_empty",
        serialize_with = "escaped_map"
    )]
    pub labels: Texts,
    /// Names of the image.
    #[serde(skip_serializing_if = "empty")]
    pub tags: Option<Vec<String>>,
    /// Caches to read.
    #[serde(skip_serializing_if = "empty")]
    pub cache_from: Option<Vec<CacheEntry>>,
    /// Caches to write.
    #[serde(skip_serializing_if = "empty")]
    pub cache_to: Option<Vec<CacheEntry>>,
    /// The stage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Secrets.
    #[serde(rename = "secret", skip_serializing_if = "empty")]
    pub secrets: Option<Vec<SecretEntry>>,
    /// Agents and keys for SSH.
    #[serde(skip_serializing_if = "empty")]
    pub ssh: Option<Vec<SshEntry>>,
    /// Platforms, as they are written.
    #[serde(skip_serializing_if = "empty")]
    pub platforms: Option<Vec<String>>,
    /// Where the result goes.
    #[serde(rename = "output", skip_serializing_if = "empty")]
    pub outputs: Option<Vec<OutputEntry>>,
    /// Whether base images are looked up again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull: Option<bool>,
    /// Whether every step is run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_cache: Option<bool>,
    /// The network of RUN steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Stages whose steps are run.
    #[serde(skip_serializing_if = "empty")]
    pub no_cache_filter: Option<Vec<String>>,
    /// Size of `/dev/shm`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shm_size: Option<String>,
    /// `name=soft[:hard]` each.
    #[serde(skip_serializing_if = "empty")]
    pub ulimits: Option<Vec<String>>,
    /// `build`, `check`, `outline`, `targets`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call: Option<String>,
    /// What it needs to be allowed.
    #[serde(skip_serializing_if = "empty")]
    pub entitlements: Option<Vec<String>>,
    /// Addresses by host name.
    #[serde(
        skip_serializing_if = "BTreeMap::is_empty",
        serialize_with = "escaped_map"
    )]
    pub extra_hosts: Texts,
    /// Whether only other targets want it: it has no result of its own.
    #[serde(skip)]
    pub linked: bool,
}

fn empty<T>(list: &Option<Vec<T>>) -> bool {
    list.as_ref().is_none_or(Vec::is_empty)
}

/// So that the output can be read as a bake file.
fn escape(text: &str) -> String {
    text.replace("${", "$${").replace("%{", "%%{")
}

fn escaped<S: Serializer>(text: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
    text.as_deref().map(escape).serialize(serializer)
}

fn escaped_list<S: Serializer>(
    list: &Option<Vec<String>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(list.iter().flatten().map(|text| escape(text)))
}

fn escaped_map<S: Serializer>(map: &Texts, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(map.iter().map(|(name, text)| (name, escape(text))))
}

/// Sets `own` to `other` if that is set.
fn replace<T: Clone>(own: &mut Option<T>, other: &Option<T>) {
    if other.is_some() {
        own.clone_from(other);
    }
}

/// Appends `other` if that is set.
fn append<T: Clone>(own: &mut Option<Vec<T>>, other: &Option<Vec<T>>) {
    if let Some(other) = other {
        own.get_or_insert_default().extend(other.iter().cloned());
    }
}

/// Appends `other` if that is set, and leaves each entry once.
pub(super) fn merge_entries<E: Entry>(own: &mut Option<Vec<E>>, other: &Option<Vec<E>>) {
    match (own.take(), other) {
        (own_entries, None) => *own = own_entries,
        (None, Some(other)) => *own = Some(other.clone()),
        (Some(mut entries), Some(other)) => {
            entries.extend(other.iter().cloned());
            *own = Some(E::normalise(entries));
        }
    }
}

/// Each text once, no empty ones.
pub(super) fn distinct(list: &mut Option<Vec<String>>) {
    if let Some(list) = list {
        let mut seen = std::collections::HashSet::new();
        list.retain(|text| !text.is_empty() && seen.insert(text.clone()));
    }
}

fn normalise<E: Entry>(list: &mut Option<Vec<E>>) {
    *list = list.take().map(E::normalise);
}

impl Target {
    /// Takes over what `other` sets: lists are replaced or appended, as buildx does.
    pub(super) fn merge(&mut self, other: &Self) {
        replace(&mut self.context, &other.context);
        replace(&mut self.dockerfile, &other.dockerfile);
        replace(&mut self.dockerfile_inline, &other.dockerfile_inline);
        self.args.extend(other.args.clone());
        self.contexts.extend(other.contexts.clone());
        self.labels.extend(other.labels.clone());
        self.extra_hosts.extend(other.extra_hosts.clone());
        replace(&mut self.tags, &other.tags);
        replace(&mut self.target, &other.target);
        replace(&mut self.call, &other.call);
        append(&mut self.annotations, &other.annotations);
        merge_entries(&mut self.attest, &other.attest);
        merge_entries(&mut self.secrets, &other.secrets);
        merge_entries(&mut self.ssh, &other.ssh);
        replace(&mut self.platforms, &other.platforms);
        merge_entries(&mut self.cache_from, &other.cache_from);
        replace(&mut self.cache_to, &other.cache_to);
        replace(&mut self.outputs, &other.outputs);
        replace(&mut self.pull, &other.pull);
        replace(&mut self.no_cache, &other.no_cache);
        replace(&mut self.network, &other.network);
        append(&mut self.no_cache_filter, &other.no_cache_filter);
        replace(&mut self.shm_size, &other.shm_size);
        append(&mut self.ulimits, &other.ulimits);
        append(&mut self.entitlements, &other.entitlements);
        if !other.description.is_empty() {
            self.description.clone_from(&other.description);
        }
        self.inherits.extend(other.inherits.iter().cloned());
    }

    /// Leaves everything once, and adds what follows from other attributes.
    pub(super) fn normalise(&mut self) {
        for list in [
            &mut self.annotations,
            &mut self.tags,
            &mut self.platforms,
            &mut self.no_cache_filter,
            &mut self.ulimits,
        ] {
            distinct(list);
        }
        normalise(&mut self.attest);
        normalise(&mut self.secrets);
        normalise(&mut self.ssh);
        normalise(&mut self.cache_from);
        normalise(&mut self.cache_to);
        normalise(&mut self.outputs);
        if self.network.as_deref() == Some("host") {
            append(
                &mut self.entitlements,
                &Some(vec!["network.host".to_owned()]),
            );
        }
        distinct(&mut self.entitlements);
        self.contexts.retain(|_, value| !value.is_empty());
    }
}
