//! `--set TARGET.KEY=VALUE`.
//!
//! Source: <https://docs.docker.com/reference/cli/docker/buildx/bake/#set>.

use std::collections::HashMap;

use super::{
    entries::{CacheEntry, Entry, OutputEntry, SecretEntry, go_bool},
    error::{Fault, Problem},
    target::{Target, distinct, merge_entries},
};
use crate::dockerfile::nearest;

/// Keys, by the name that all their spellings come down to.
const KEYS: &[&str] = &[
    "annotation",
    "arg",
    "attest",
    "cache-from",
    "cache-to",
    "call",
    "context",
    "contexts",
    "dockerfile",
    "entitlement",
    "extra-host",
    "label",
    "load",
    "network",
    "no-cache",
    "no-cache-filter",
    "output",
    "platform",
    "pull",
    "push",
    "secret",
    "shm-size",
    "ssh",
    "tag",
    "target",
    "ulimit",
];

/// Keys that hold lists: several values are collected, `+=` appends.
const LISTS: &[&str] = &[
    "annotation",
    "attest",
    "cache-from",
    "cache-to",
    "entitlement",
    "no-cache-filter",
    "output",
    "platform",
    "secret",
    "ssh",
    "tag",
    "ulimit",
];

/// Keys that need a name after them.
const NAMED: &[&str] = &["arg", "contexts", "extra-host", "label"];

/// One change of a target.
#[derive(Debug, Clone)]
pub(super) struct Override {
    key: &'static str,
    /// The name after the key.
    name: Option<String>,
    values: Vec<String>,
    append: bool,
    /// As it was given.
    text: String,
}

/// Reads the options; the changes of each target, in order.
pub(super) fn parse(
    set: &[String],
    targets: &[(String, Target)],
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<HashMap<String, Vec<Override>>, Fault> {
    let mut out: HashMap<String, Vec<Override>> = HashMap::new();
    for text in set {
        let Some((pattern, change)) = one(text, env)? else {
            continue;
        };
        let names: Vec<&String> = match targets.iter().find(|(name, _)| *name == pattern) {
            Some((name, _)) => vec![name],
            None => {
                let names = targets.iter().map(|(name, _)| name);
                names.filter(|name| matches(&pattern, name)).collect()
            }
        };
        if names.is_empty() {
            let near = nearest(&pattern, targets.iter().map(|(name, _)| name.as_str()));
            let hint = near.map(|near| format!("did you mean `{near}`?"));
            return Err(Fault::from(Problem::NoMatch { pattern }).hint(hint));
        }
        for name in names {
            let changes = out.entry(name.clone()).or_default();
            let same = changes
                .iter_mut()
                .find(|known| known.key == change.key && known.name == change.name);
            match same {
                Some(known) if change.name.is_none() && LISTS.contains(&change.key) => {
                    known.values.extend(change.values.iter().cloned());
                    known.append = change.append;
                }
                Some(known) => *known = change.clone(),
                None => changes.push(change.clone()),
            }
        }
    }
    Ok(out)
}

/// The pattern and the change of one option; none for an argument that the environment
/// doesn't have.
fn one(
    text: &str,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<(String, Override)>, Fault> {
    let wrong = |reason: &str, hint: Option<String>| {
        let problem = Problem::Override {
            text: text.to_owned(),
            reason: reason.to_owned(),
        };
        Fault::from(problem).hint(hint)
    };
    let (left, value) = match text.split_once('=') {
        Some((left, value)) => (left, Some(value)),
        None => (text, None),
    };
    let (left, append) = match left.strip_suffix('+') {
        Some(left) => (left, true),
        None => (left, false),
    };
    let mut parts = left.splitn(3, '.');
    let (Some(pattern), Some(given)) = (parts.next(), parts.next()) else {
        return Err(wrong("it is not `TARGET.KEY=VALUE`", None));
    };
    let name = parts.next().map(str::to_owned);
    let Some(key) = key(given) else {
        let near = nearest(given, KEYS.iter().copied());
        let hint = match near {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("keys are {}", KEYS.join(", ")),
        };
        return Err(wrong(&format!("`{given}` is not a key"), Some(hint)));
    };
    let takes_name = NAMED.contains(&key);
    if takes_name && name.is_none() {
        return Err(wrong(
            &format!("`{given}` needs a name, `{given}.NAME=VALUE`"),
            None,
        ));
    }
    if !takes_name && name.is_some() && key != "secret" {
        return Err(wrong(&format!("`{given}` takes no name"), None));
    }
    if append && (!LISTS.contains(&key) || name.is_some()) {
        return Err(wrong(&format!("`+=` is not for `{given}`"), None));
    }
    let value = match (value, &name) {
        (Some(value), _) => value.to_owned(),
        (None, Some(name)) if key == "arg" => match env(name) {
            Some(value) => value,
            None => return Ok(None),
        },
        (None, _) => return Err(wrong("it has no `=VALUE`", None)),
    };
    let change = Override {
        key,
        name,
        values: vec![value],
        append,
        text: text.to_owned(),
    };
    Ok(Some((pattern.to_owned(), change)))
}

fn key(given: &str) -> Option<&'static str> {
    let one = match given {
        "args" => "arg",
        "annotations" => "annotation",
        "entitlements" => "entitlement",
        "extra-hosts" => "extra-host",
        "labels" => "label",
        "platforms" => "platform",
        "secrets" => "secret",
        "tags" => "tag",
        "ulimits" => "ulimit",
        other => other,
    };
    KEYS.iter().find(|key| **key == one).copied()
}

impl Override {
    fn wrong(&self, reason: impl Into<String>) -> Problem {
        Problem::Override {
            text: self.text.clone(),
            reason: reason.into(),
        }
    }

    fn value(&self) -> String {
        self.values.last().cloned().unwrap_or_default()
    }

    fn flag(&self) -> Result<bool, Problem> {
        let value = self.value();
        go_bool(&value).ok_or_else(|| self.wrong(format!("`{value}` is not true or false")))
    }

    fn entries<E: Entry>(&self) -> Result<Option<Vec<E>>, Problem> {
        let mut out = Vec::new();
        for text in self.values.iter().filter(|text| !text.is_empty()) {
            out.extend(E::parse(text).map_err(|reason| self.wrong(reason))?);
        }
        Ok(Some(out))
    }

    /// Replaces or appends entries.
    fn merge<E: Entry>(&self, own: &mut Option<Vec<E>>) -> Result<(), Problem> {
        let new = self.entries()?;
        match self.append {
            true => merge_entries(own, &new),
            false => *own = new,
        }
        Ok(())
    }

    fn texts(&self, own: &mut Option<Vec<String>>, append: bool) {
        match append {
            true => own.get_or_insert_default().extend(self.values.clone()),
            false => *own = Some(self.values.clone()),
        }
        distinct(own);
    }

    /// Changes `target`.
    pub(super) fn apply(&self, target: &mut Target) -> Result<(), Problem> {
        let value = self.value();
        let name = self.name.clone().unwrap_or_default();
        match self.key {
            "context" => target.context = Some(value),
            "dockerfile" => target.dockerfile = Some(value),
            "arg" => drop(target.args.insert(name, value)),
            "contexts" => drop(target.contexts.insert(name, value)),
            "label" => drop(target.labels.insert(name, value)),
            "extra-host" => drop(target.extra_hosts.insert(name, value)),
            "tag" => self.texts(&mut target.tags, self.append),
            "cache-from" => self.merge::<CacheEntry>(&mut target.cache_from)?,
            "cache-to" => self.merge::<CacheEntry>(&mut target.cache_to)?,
            "target" => target.target = Some(value),
            "call" => target.call = Some(value),
            "secret" if self.name.is_some() => self.secret(target, &name)?,
            "secret" => self.merge::<SecretEntry>(&mut target.secrets)?,
            "ssh" => self.merge(&mut target.ssh)?,
            "platform" => self.texts(&mut target.platforms, self.append),
            "output" => self.merge::<OutputEntry>(&mut target.outputs)?,
            "entitlement" => self.texts(&mut target.entitlements, true),
            "annotation" => self.texts(&mut target.annotations, true),
            "attest" => {
                let new = self.entries()?;
                merge_entries(&mut target.attest, &new);
            }
            "no-cache" => target.no_cache = Some(self.flag()?),
            "no-cache-filter" => self.texts(&mut target.no_cache_filter, self.append),
            "shm-size" => target.shm_size = Some(value),
            "ulimit" => self.texts(&mut target.ulimits, self.append),
            "network" => target.network = Some(value),
            "pull" => target.pull = Some(self.flag()?),
            "push" => push(&mut target.outputs, self.flag()?),
            _ => load(&mut target.outputs, self.flag()?),
        }
        Ok(())
    }

    /// `secret.ID=…`: another source for a secret that the target has.
    fn secret(&self, target: &mut Target, id: &str) -> Result<(), Problem> {
        let new: Vec<SecretEntry> = self.entries()?.unwrap_or_default();
        let new = new.into_iter().next();
        let known = target.secrets.iter_mut().flatten().find(|s| s.id == id);
        match (known, new) {
            (Some(_), Some(new)) if !new.id.is_empty() && new.id != id => {
                Err(self.wrong(format!("it names secret `{}`", new.id)))
            }
            (Some(known), new) => {
                known.src = new.as_ref().map(|n| n.src.clone()).unwrap_or_default();
                known.env = new.map(|n| n.env).unwrap_or_default();
                Ok(())
            }
            (None, _) => Err(self.wrong(format!("the target has no secret `{id}`"))),
        }
    }
}

fn output(kind: &str, attrs: &[(&str, &str)]) -> OutputEntry {
    OutputEntry {
        kind: kind.to_owned(),
        dest: None,
        attrs: attrs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
    }
}

/// `push=true` adds an output that pushes, or makes images push; `push=false` the reverse.
fn push(outputs: &mut Option<Vec<OutputEntry>>, on: bool) {
    let list = outputs.get_or_insert_default();
    for entry in list.iter_mut().filter(|entry| entry.kind == "image") {
        entry.attrs.insert("push".to_owned(), on.to_string());
    }
    if !on {
        list.retain(|entry| entry.kind != "registry");
    } else if list.iter().all(|entry| entry.kind == "docker") {
        list.push(output("image", &[("push", "true")]));
    }
}

/// `load=true` adds an output for the image store of Docker.
fn load(outputs: &mut Option<Vec<OutputEntry>>, on: bool) {
    let list = outputs.get_or_insert_default();
    let there = list.iter().any(|entry| {
        let known = matches!(entry.kind.as_str(), "docker" | "image" | "registry" | "oci");
        !known || (entry.kind == "docker" && entry.dest.is_none())
    });
    if on && !there {
        list.push(output("docker", &[]));
    }
}

/// Whether `name` matches a pattern with `*`, `?` and `[…]`.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    // Names of targets hold nothing that is special in a regular expression.
    let mut regex = String::from("^(?s:");
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '*' => regex.push_str(".*"),
            '?' => regex.push('.'),
            '[' => {
                regex.push('[');
                if chars.next_if_eq(&'^').is_some() {
                    regex.push('^');
                }
                for c in chars.by_ref() {
                    regex.push(c);
                    if c == ']' {
                        break;
                    }
                }
            }
            c => regex.push_str(&regex::escape(&c.to_string())),
        }
    }
    regex.push_str(")$");
    regex::Regex::new(&regex).is_ok_and(|regex| regex.is_match(name))
}
