//! From what the files define to what is built: names, groups, inheritance, links.

use std::collections::{BTreeMap, HashMap, HashSet, btree_map::Entry};

use super::{
    entries::OutputEntry,
    error::{Fault, Place, Problem},
    functions::clean,
    overrides::{self, Override},
    target::{Group, Target},
};
use crate::dockerfile::nearest;

/// What all files together define.
#[derive(Debug, Default)]
pub(super) struct Definitions {
    pub(super) groups: Vec<(String, Group)>,
    pub(super) targets: Vec<(String, Target)>,
    pub(super) places: HashMap<String, Place>,
}

/// What is built.
#[derive(Debug, Default)]
pub(super) struct Resolved {
    pub(super) groups: BTreeMap<String, Group>,
    pub(super) targets: BTreeMap<String, Target>,
}

/// Look-ups in the definitions.
struct Resolver<'d> {
    definitions: &'d Definitions,
    groups: HashMap<&'d str, &'d Group>,
    targets: HashMap<&'d str, &'d Target>,
    overrides: HashMap<String, Vec<Override>>,
    /// Targets that are resolved already.
    done: HashMap<String, Target>,
}

/// Resolves the targets and groups that `wanted` names.
pub(super) fn resolve(
    definitions: &Definitions,
    wanted: &[String],
    set: &[String],
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Resolved, Fault> {
    let mut resolver = Resolver {
        definitions,
        groups: first(&definitions.groups),
        targets: first(&definitions.targets),
        overrides: HashMap::new(),
        done: HashMap::new(),
    };
    resolver.overrides = overrides::parse(set, &definitions.targets, env)?;
    let mut names: Vec<String> = Vec::new();
    let mut seen = HashSet::new();
    for pattern in wanted {
        for name in resolver.matching(&pattern.replace('.', "_"))? {
            if seen.insert(name.clone()) {
                names.push(name);
            }
        }
    }
    let mut out = Resolved::default();
    for name in &names {
        let (targets, groups) = resolver.members(name);
        for target in targets {
            if let Entry::Vacant(entry) = out.targets.entry(target) {
                let resolved = resolver.target(entry.key())?;
                entry.insert(resolved);
            }
        }
        for group in groups {
            let found = resolver.groups[group.as_str()].clone();
            out.groups.insert(group, found);
        }
    }
    for name in &names {
        if name == "default" && out.groups.contains_key("default") {
            continue;
        }
        let group = out.groups.entry("default".to_owned()).or_default();
        group.targets.push(name.clone());
    }
    if let Some(group) = out.groups.get_mut("default") {
        group.targets.sort();
        group.targets.dedup();
    }
    resolver.link(&mut out.targets)?;
    Ok(out)
}

/// By name; of equal names the first.
fn first<T>(list: &[(String, T)]) -> HashMap<&str, &T> {
    let mut out = HashMap::new();
    for (name, item) in list {
        out.entry(name.as_str()).or_insert(item);
    }
    out
}

fn push_new(list: &mut Vec<String>, name: String) {
    if !list.contains(&name) {
        list.push(name);
    }
}

impl Resolver<'_> {
    /// The groups and targets that a word of the command line means.
    fn matching(&self, pattern: &str) -> Result<Vec<String>, Fault> {
        if !pattern.contains(['*', '?', '[', ']']) {
            return Ok(vec![pattern.to_owned()]);
        }
        let groups = self.definitions.groups.iter().map(|(name, _)| name);
        let targets = self.definitions.targets.iter().map(|(name, _)| name);
        let found: Vec<String> = groups
            .chain(targets)
            .filter(|name| overrides::matches(pattern, name))
            .cloned()
            .collect();
        match found.is_empty() {
            true => Err(Problem::NoMatch {
                pattern: pattern.to_owned(),
            }
            .into()),
            false => Ok(found),
        }
    }

    /// The targets and the groups in `name`, groups of groups included.
    fn members(&self, name: &str) -> (Vec<String>, Vec<String>) {
        let (mut targets, mut groups) = (Vec::new(), Vec::new());
        let mut seen = HashSet::new();
        // A stack of names, the next one last.
        let mut next = vec![name.to_owned()];
        while let Some(name) = next.pop() {
            if !seen.insert(name.clone()) {
                continue;
            }
            match self.groups.get(name.as_str()) {
                Some(group) => {
                    next.extend(group.targets.iter().rev().cloned());
                    groups.push(name);
                }
                None => targets.push(name),
            }
        }
        (targets, groups)
    }

    fn unknown(&self, name: &str) -> Fault {
        let names = self.targets.keys().chain(self.groups.keys()).copied();
        let hint = match nearest(name, names.clone()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => {
                let mut known: Vec<&str> = names.collect();
                known.sort_unstable();
                known.dedup();
                match known.as_slice() {
                    [] => "the files define no target".to_owned(),
                    known => format!("there are {}", listed(known)),
                }
            }
        };
        Fault::from(Problem::UnknownTarget {
            name: name.to_owned(),
        })
        .hint(Some(hint))
    }

    /// A target with all that it inherits, and with what follows where nothing is set.
    fn target(&mut self, name: &str) -> Result<Target, Fault> {
        if !self.targets.contains_key(name) {
            return Err(self.unknown(name));
        }
        let mut target = self.inherited(name, &mut Vec::new())?;
        let context = target.context.get_or_insert_with(|| ".".to_owned());
        *context = local(context);
        if target.dockerfile.as_deref().is_none_or(str::is_empty) {
            target.dockerfile = Some("Dockerfile".to_owned());
        }
        Ok(target)
    }

    fn inherited(&mut self, name: &str, path: &mut Vec<String>) -> Result<Target, Fault> {
        if let Some(done) = self.done.get(name) {
            return Ok(done.clone());
        }
        let own = self.targets[name];
        path.push(name.to_owned());
        let mut parents = Target::default();
        for parent in &own.inherits {
            if !self.targets.contains_key(parent.as_str()) {
                let names = self.targets.keys().copied();
                let near = nearest(parent, names).map(|near| format!("did you mean `{near}`?"));
                let problem = Problem::UnknownInherits {
                    target: name.to_owned(),
                    name: parent.clone(),
                };
                let fault = Fault::from(problem).hint(near);
                return Err(match self.definitions.places.get(name) {
                    Some(place) => fault.at(place),
                    None => fault,
                });
            }
            // One that is being resolved gives nothing: cycles end here.
            if !path.contains(parent) {
                let parent = self.inherited(parent, path)?;
                parents.merge(&parent);
            }
        }
        path.pop();
        let mut target = parents;
        target.merge(own);
        for change in self.overrides.get(name).into_iter().flatten() {
            change.apply(&mut target)?;
        }
        target.normalise();
        if path.is_empty() || !own.inherits.iter().any(|p| path.contains(p)) {
            self.done.insert(name.to_owned(), target.clone());
        }
        Ok(target)
    }

    /// Adds the targets that others use as contexts, and checks them.
    fn link(&mut self, targets: &mut BTreeMap<String, Target>) -> Result<(), Fault> {
        let names: Vec<String> = targets.keys().cloned().collect();
        let mut done = HashSet::new();
        for name in names {
            self.link_one(&name, targets, &mut Vec::new(), &mut done)?;
        }
        Ok(())
    }

    fn link_one(
        &mut self,
        name: &str,
        targets: &mut BTreeMap<String, Target>,
        path: &mut Vec<String>,
        done: &mut HashSet<String>,
    ) -> Result<(), Fault> {
        if path.iter().any(|known| known == name) {
            path.push(name.to_owned());
            return Err(Problem::ContextCycle {
                cycle: path.join(" -> "),
            }
            .into());
        }
        if done.contains(name) {
            return Ok(());
        }
        path.push(name.to_owned());
        let contexts = targets[name].contexts.clone();
        for linked in contexts.values().filter_map(|c| c.strip_prefix("target:")) {
            if !targets.contains_key(linked) {
                if !self.targets.contains_key(linked) {
                    return Err(self.unknown_context(name, linked));
                }
                let mut target = self.target(linked)?;
                target.outputs = Some(vec![OutputEntry {
                    kind: "cacheonly".to_owned(),
                    dest: None,
                    attrs: BTreeMap::new(),
                }]);
                target.linked = true;
                targets.insert(linked.to_owned(), target);
            }
            self.link_one(linked, targets, path, done)?;
            let needs = targets[linked].entitlements.clone().unwrap_or_default();
            let other = targets[linked].platforms.clone().unwrap_or_default();
            let Some(own) = targets.get_mut(name) else {
                continue;
            };
            for need in needs {
                let list = own.entitlements.get_or_insert_default();
                push_new(list, need);
            }
            let own = own.platforms.clone().unwrap_or_default();
            let missing: Vec<&str> = own
                .iter()
                .filter(|platform| !other.contains(platform))
                .map(String::as_str)
                .collect();
            if own.len() > 1 && other.len() > 1 && !missing.is_empty() {
                return Err(Problem::ContextPlatforms {
                    target: name.to_owned(),
                    name: linked.to_owned(),
                    platforms: listed(&missing),
                }
                .into());
            }
        }
        path.pop();
        done.insert(name.to_owned());
        Ok(())
    }

    fn unknown_context(&self, target: &str, name: &str) -> Fault {
        let near = nearest(name, self.targets.keys().copied());
        let problem = Problem::UnknownContext {
            target: target.to_owned(),
            name: name.to_owned(),
        };
        let fault = Fault::from(problem).hint(near.map(|near| format!("did you mean `{near}`?")));
        match self.definitions.places.get(target) {
            Some(place) => fault.at(place),
            None => fault,
        }
    }
}

/// A context as it is shown: a path in its shortest form, an address as it is.
fn local(context: &str) -> String {
    match context.strip_prefix("cwd://") {
        Some(path) => clean(path),
        None if is_remote(context) => context.to_owned(),
        None => clean(context),
    }
}

/// Whether `context` is an address, not a path.
pub(super) fn is_remote(context: &str) -> bool {
    const STARTS: [&str; 6] = [
        "http://",
        "https://",
        "git://",
        "ssh://",
        "git@",
        "github.com/",
    ];
    STARTS.iter().any(|start| context.starts_with(start))
}

/// `` `a`, `b` ``.
fn listed(words: &[&str]) -> String {
    let words: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    words.join(", ")
}
