//! What two recipes differ in: [`KeyDiff`].
//!
//! The old recipe is what an entry stores, where long values are digests; [`OldPart`]s have
//! them again where they are known from elsewhere. Lists are taken apart, so that a difference names a
//! variable or a mount and not the list it stands in. Differences come in an order
//! in which the first is the one to look at: what the instruction says, then what it runs with,
//! then what it reads, then what it stands on.

use std::{borrow::Cow, collections::BTreeMap};

use super::{Difference, KeyRecipe, RecipePart, RecipeValue, Topic};
use crate::{digest::Blake3Digest, graph::lower::looks_secret};

/// A part of an old recipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OldPart {
    /// Its name.
    pub name: String,
    /// Its value, as far as it is known.
    pub value: OldValue,
}

/// The value of an [`OldPart`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OldValue {
    /// All of it.
    Text(String),
    /// The items of a list; those that were hidden are digests, see [`hidden_items`].
    Items(Vec<String>),
    /// Too long to be kept, or no text.
    Digest(Blake3Digest),
}

impl From<&RecipePart> for OldPart {
    fn from(part: &RecipePart) -> Self {
        Self {
            name: part.name.clone(),
            value: match &part.value {
                RecipeValue::Text(text) => OldValue::Text(text.clone()),
                RecipeValue::Digest(digest) => OldValue::Digest(*digest),
            },
        }
    }
}

/// All differences of two recipes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyDiff {
    /// The first is the one to look at.
    pub differences: Vec<Difference>,
}

impl KeyDiff {
    /// Compares an old recipe with a new one.
    pub fn between(old: &[OldPart], new: &KeyRecipe) -> Self {
        let new: Vec<(&str, &[u8])> = new.parts().collect();
        let old: Vec<(&str, &OldValue)> = old.iter().map(|p| (&p.name[..], &p.value)).collect();
        let mut this = Self::default();
        let kinds = (
            kind(old.iter().map(old_text)),
            kind(new.iter().map(new_text)),
        );
        if kinds.0 != kinds.1 {
            this.push("op", Topic::Kind, None, Some(kinds.0), Some(kinds.1));
            // The rest can't be compared, but for what every step has.
            let same = ["platform", "root", "mtime"];
            this.parts(&old, &new, |name| same.contains(&name));
        } else {
            this.mounts(&old, &new);
            this.parts(&old, &new, |name| !is_mount(name));
        }
        this.differences.sort_by_key(|difference| difference.topic);
        this
    }

    /// Compares part by part those whose names are `wanted`.
    fn parts(
        &mut self,
        old: &[(&str, &OldValue)],
        new: &[(&str, &[u8])],
        wanted: impl Fn(&str) -> bool,
    ) {
        for (name, value) in new.iter().filter(|(name, _)| wanted(name)) {
            let before = old.iter().find(|(known, _)| known == name);
            match before {
                Some((_, before)) => self.part(name, before, value),
                None => {
                    let value = OldValue::Text(text(value));
                    self.push(name, topic(name), None, None, Some(value.listed(name)));
                }
            }
        }
        for (name, value) in old.iter().filter(|(name, _)| wanted(name)) {
            if !new.iter().any(|(known, _)| known == name) {
                self.push(name, topic(name), None, Some(value.listed(name)), None);
            }
        }
    }

    fn part(&mut self, name: &str, old: &OldValue, new: &[u8]) {
        if old.is(new) {
            return;
        }
        let topic = topic(name);
        let items = match topic.is_list() {
            true => (old.items(), decode_list(new)),
            false => (None, None),
        };
        match (topic, items) {
            (Topic::Command, (Some(old), Some(new))) => self.command(name, &old, &new),
            (topic @ (Topic::Environment | Topic::Hosts), (Some(old), Some(new))) => {
                self.assignments(name, topic, &old, &new);
            }
            (topic, (Some(old), Some(new))) => {
                let (old, new) = (old.join(" "), new.join(" "));
                self.push(name, topic, None, Some(old), Some(new));
            }
            (Topic::Flag, _) => self.flags(name, &old.shown(), &text(new)),
            (Topic::Heredoc, _) => {
                let item = name.rsplit('.').next().map(str::to_owned);
                self.push(
                    name,
                    Topic::Heredoc,
                    item,
                    Some(old.shown()),
                    Some(text(new)),
                );
            }
            (Topic::Owner | Topic::Mode, _) => {
                let (old, new) = (optional(&old.shown()), optional(&text(new)));
                self.push(name, topic, None, old, new);
            }
            _ => self.push(name, topic, None, Some(old.shown()), Some(text(new))),
        }
    }

    /// A shell and its text, or a program and its arguments.
    fn command(&mut self, name: &str, old: &[String], new: &[String]) {
        let (shells, scripts) = ((split(old).0, split(new).0), (split(old).1, split(new).1));
        if shells.0 != shells.1 {
            let (old, new) = (shells.0.join(" "), shells.1.join(" "));
            self.push(name, Topic::Shell, None, Some(old), Some(new));
        }
        if scripts.0 != scripts.1 {
            let (old, new) = (scripts.0.join(" "), scripts.1.join(" "));
            self.push(name, Topic::Command, None, Some(old), Some(new));
        }
    }

    /// Lists of `name=value`.
    fn assignments(&mut self, part: &str, topic: Topic, old: &[String], new: &[String]) {
        let pairs = |items: &[String]| -> BTreeMap<String, String> {
            let split = |item: &String| match item.split_once('=') {
                Some((name, value)) => (name.to_owned(), value.to_owned()),
                None => (item.clone(), String::new()),
            };
            items.iter().map(split).collect()
        };
        let before = self.differences.len();
        let (old_pairs, new_pairs) = (pairs(old), pairs(new));
        for (name, value) in &new_pairs {
            match old_pairs.get(name) {
                Some(known) if known == value || *known == hidden(value) => {}
                known => {
                    let shown = |value: &String| match looks_secret(name) {
                        true => "(hidden)".to_owned(),
                        false => value.clone(),
                    };
                    let (old, new) = (known.map(shown), Some(shown(value)));
                    self.push(part, topic, Some(name.clone()), old, new);
                }
            }
        }
        for (name, value) in old_pairs
            .iter()
            .filter(|(n, _)| !new_pairs.contains_key(*n))
        {
            let value = match looks_secret(name) {
                true => "(hidden)".to_owned(),
                false => value.clone(),
            };
            self.push(part, topic, Some(name.clone()), Some(value), None);
        }
        if self.differences.len() == before {
            let names = |items: &[String]| {
                let names = items
                    .iter()
                    .map(|i| i.split('=').next().unwrap_or_default());
                Some(names.collect::<Vec<_>>().join(" "))
            };
            self.push(
                part,
                topic,
                Some("order".to_owned()),
                names(old),
                names(new),
            );
        }
    }

    /// `unpack=false parents=false link=false`.
    fn flags(&mut self, part: &str, old: &str, new: &str) {
        for new in new.split(' ') {
            let Some((name, value)) = new.split_once('=') else {
                continue;
            };
            let mut known = old.split(' ').filter_map(|old| old.split_once('='));
            let known = known.find(|(old, _)| *old == name).map(|(_, value)| value);
            if known != Some(value) {
                let (old, new) = (known.map(str::to_owned), Some(value.to_owned()));
                self.push(part, Topic::Flag, Some(name.to_owned()), old, new);
            }
        }
    }

    /// Mounts are compared by what they are mounted on: one more must not make all that follow
    /// differ.
    fn mounts(&mut self, old: &[(&str, &OldValue)], new: &[(&str, &[u8])]) {
        let mut before = Mount::all(old.iter().map(|(name, value)| (*name, (*value).clone())));
        let after = Mount::all(new.iter().map(|(name, value)| {
            let value = match std::str::from_utf8(value) {
                Ok(text) => OldValue::Text(text.to_owned()),
                Err(_) => OldValue::Digest(Blake3Digest::of(value)),
            };
            (*name, value)
        }));
        let order = |mounts: &[Mount]| mounts.iter().map(|m| m.target.clone()).collect::<Vec<_>>();
        let (old_order, new_order) = (order(&before), order(&after));
        let count = self.differences.len();
        for (n, mount) in after.iter().enumerate() {
            let at = before.iter().position(|old| old.target == mount.target);
            // One that has moved: the same kind at the same place of the list.
            let moved = || {
                let unknown = |old: &Mount| !new_order.contains(&old.target);
                let same = |old: &Mount| old.number == n && old.kind == mount.kind && unknown(old);
                before.iter().position(same)
            };
            match at.or_else(moved) {
                Some(at) => {
                    let old = before.remove(at);
                    self.mount(&old, mount);
                }
                None => self.push(
                    &mount.part,
                    mount.topic(),
                    Some(mount.target.clone()),
                    None,
                    Some(mount.kind.clone()),
                ),
            }
        }
        for old in before {
            let (topic, item) = (old.topic(), Some(old.target.clone()));
            self.push(&old.part, topic, item, Some(old.kind.clone()), None);
        }
        if self.differences.len() == count && old_order != new_order {
            let shown = |order: &[String]| Some(order.join(" "));
            let item = Some("order".to_owned());
            let (old, new) = (shown(&old_order), shown(&new_order));
            self.push("mount", Topic::Mount, item, old, new);
        }
    }

    fn mount(&mut self, old: &Mount, new: &Mount) {
        let names: Vec<&str> = {
            let mut names: Vec<&str> = new.fields.iter().map(|(name, _)| *name).collect();
            names.extend(old.fields.iter().map(|(name, _)| *name));
            let mut seen = Vec::new();
            names.retain(|name| {
                !seen.contains(name) && {
                    seen.push(*name);
                    true
                }
            });
            names
        };
        if old.kind != new.kind {
            let item = Some(format!("{} type", new.target));
            let (before, after) = (Some(old.kind.clone()), Some(new.kind.clone()));
            self.push(&new.part, new.topic(), item, before, after);
            return;
        }
        for name in names {
            let field = |mount: &Mount| {
                let mut fields = mount.fields.iter();
                fields
                    .find(|(n, _)| *n == name)
                    .map(|(_, value)| value.clone())
            };
            let (before, after) = (field(old), field(new));
            if before == after {
                continue;
            }
            let (topic, item) = match name {
                "from" => (Topic::Input, new.target.clone()),
                name => (new.topic(), format!("{} {name}", new.target)),
            };
            let part = match name {
                "from" => format!("{}.from", new.part),
                _ => new.part.clone(),
            };
            self.push(&part, topic, Some(item), before, after);
        }
    }

    fn push(
        &mut self,
        part: &str,
        topic: Topic,
        item: Option<String>,
        old: Option<String>,
        new: Option<String>,
    ) {
        let difference = Difference::new(part, topic, item, old, new);
        self.differences.push(difference);
    }
}

/// A mount, or a variable with a secret's value, as a recipe has it.
struct Mount {
    part: String,
    number: usize,
    kind: String,
    target: String,
    fields: Vec<(&'static str, String)>,
}

impl Mount {
    fn all<'a>(parts: impl Iterator<Item = (&'a str, OldValue)>) -> Vec<Self> {
        let mut mounts: Vec<Self> = Vec::new();
        for (name, value) in parts.filter(|(name, _)| is_mount(name)) {
            if let Some(part) = name.strip_suffix(".from") {
                if let Some(mount) = mounts.iter_mut().find(|m| m.part == part) {
                    mount.fields.push(("from", value.shown()));
                }
                continue;
            }
            let number = name.rsplit('.').next().and_then(|n| n.parse().ok());
            let items = value.items().unwrap_or_else(|| vec![value.shown()]);
            mounts.push(Self::of(name, number.unwrap_or(0), items));
        }
        mounts
    }

    /// The lists are specified in `docs/internals/cache-key-spec.md`.
    fn of(part: &str, number: usize, mut items: Vec<String>) -> Self {
        let kind = match items.is_empty() {
            true => String::new(),
            false => items.remove(0),
        };
        let names: &[&'static str] = match kind.as_str() {
            "bind" => &["source", "target", "rw"],
            "cache" => &["id", "target", "readonly", "source"],
            "tmpfs" => &["target", "readonly"],
            "secret" | "ssh" => &["id", "target", "required", "mode", "uid", "gid"],
            "env" => &["id", "target", "required"],
            _ => &["target"],
        };
        let mut fields: Vec<(&'static str, String)> = names.iter().copied().zip(items).collect();
        let at = fields.iter().position(|(name, _)| *name == "target");
        let target = at.map_or_else(String::new, |at| fields[at].1.clone());
        // A mount that moved has the new target as a field that differs.
        fields.sort_by_key(|(name, _)| *name != "target");
        Self {
            part: part.to_owned(),
            number,
            kind,
            target,
            fields,
        }
    }

    fn topic(&self) -> Topic {
        match self.kind.as_str() {
            "env" => Topic::Secret,
            _ => Topic::Mount,
        }
    }
}

impl OldValue {
    /// Whether it is this value.
    fn is(&self, new: &[u8]) -> bool {
        match self {
            Self::Text(text) => text.as_bytes() == new,
            Self::Digest(digest) => *digest == Blake3Digest::of(new),
            Self::Items(items) => decode_list(new).is_some_and(|new| {
                let same = |(old, new): (&String, &String)| old == new || *old == hidden_item(new);
                items.len() == new.len() && items.iter().zip(&new).all(same)
            }),
        }
    }

    fn items(&self) -> Option<Vec<String>> {
        match self {
            Self::Text(text) => decode_list(text.as_bytes()),
            Self::Items(items) => Some(items.clone()),
            Self::Digest(_) => None,
        }
    }

    /// The value of the part of this name.
    fn listed(&self, name: &str) -> String {
        match self.items() {
            Some(items) if topic(name).is_list() => items.join(" "),
            _ => self.shown(),
        }
    }

    fn shown(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Items(items) => items.join(" "),
            Self::Digest(digest) => digest.to_string(),
        }
    }
}

/// The items of a list part as they may be kept: of variables whose names say that they hold secrets,
/// the digest instead of the value. None if the value is no list.
pub fn hidden_items(value: &[u8]) -> Option<Vec<String>> {
    let items = decode_list(value)?;
    Some(items.iter().map(|item| hidden_item(item)).collect())
}

fn hidden_item(item: &str) -> String {
    match item.split_once('=') {
        Some((name, value)) if looks_secret(name) => format!("{name}={}", hidden(value)),
        _ => item.to_owned(),
    }
}

fn hidden(value: &str) -> String {
    Blake3Digest::of(value.as_bytes()).to_string()
}

/// The items of a value that [`KeyRecipe::list`] made.
fn decode_list(value: &[u8]) -> Option<Vec<String>> {
    let mut rest = std::str::from_utf8(value).ok()?;
    let mut items = Vec::new();
    while !rest.is_empty() {
        let (length, after) = rest.split_once(':')?;
        let length: usize = length.parse().ok()?;
        let item = after.get(..length)?;
        rest = after.get(length..)?.strip_prefix('\n')?;
        items.push(item.to_owned());
    }
    Some(items)
}

fn is_mount(name: &str) -> bool {
    name.starts_with("mount.") || name.starts_with("secret.")
}

fn old_text<'a>((name, value): &'a (&str, &OldValue)) -> (&'a str, Cow<'a, str>) {
    (name, value.shown().into())
}

fn new_text<'a>((name, value): &'a (&str, &[u8])) -> (&'a str, Cow<'a, str>) {
    (name, String::from_utf8_lossy(value))
}

/// What kind of step has these parts.
fn kind<'a>(parts: impl Iterator<Item = (&'a str, Cow<'a, str>)>) -> String {
    let mut kinds: Vec<&str> = Vec::new();
    for (name, value) in parts {
        let kind = match name.split('.').next() {
            Some("op") if value == "exec" => "runs a process",
            Some("copy") => "copies files",
            Some("write") => "writes files",
            Some("mkdir") => "makes a directory",
            _ => continue,
        };
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    kinds.join(", ")
}

fn topic(part: &str) -> Topic {
    let suffix = part.rsplit('.').next().unwrap_or_default();
    match part {
        "op" => Topic::Kind,
        "platform" => Topic::Platform,
        "args" => Topic::Command,
        "env" => Topic::Environment,
        "cwd" => Topic::Workdir,
        "user" => Topic::User,
        "network" => Topic::Network,
        "hosts" => Topic::Hosts,
        "mtime" => Topic::Time,
        "epoch" => Topic::Epoch,
        "normalise" => Topic::Normalise,
        "security" => Topic::Security,
        "devices" => Topic::Devices,
        "ulimits" => Topic::Ulimits,
        "shm" => Topic::ShmSize,
        "hostname" => Topic::Hostname,
        "root" | "manifest" => Topic::Parent,
        _ if part.starts_with("write.") => match suffix {
            "owner" => Topic::Owner,
            "mode" => Topic::Mode,
            "dest" => Topic::Destination,
            _ => Topic::Heredoc,
        },
        _ if part.starts_with("copy.") || part.starts_with("mkdir.") => match suffix {
            "sources" => Topic::Sources,
            "dest" | "path" => Topic::Destination,
            "owner" => Topic::Owner,
            "mode" => Topic::Mode,
            "exclude" => Topic::Exclude,
            "flags" => Topic::Flag,
            "files" => Topic::Files,
            "from" => Topic::Input,
            _ => Topic::Other,
        },
        _ => Topic::Other,
    }
}

/// The shell, and what it is given: `/bin/sh -c` and the text. What is no shell has none.
fn split(args: &[String]) -> (&[String], &[String]) {
    let is_option = |arg: &String| arg.starts_with('-') || arg.starts_with('/');
    match args.len() {
        3.. if args[..args.len() - 1].iter().skip(1).all(is_option) => {
            args.split_at(args.len() - 1)
        }
        _ => args.split_at(0),
    }
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).into_owned()
}

/// The value of an optional part.
fn optional(text: &str) -> Option<String> {
    match text.strip_prefix("some:") {
        Some(value) => Some(value.to_owned()),
        None if text == "none" => None,
        None => Some(text.to_owned()),
    }
}
