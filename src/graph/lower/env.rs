//! The variables of a stage: what expands in words, what processes see.

use std::collections::HashMap;

use crate::{dockerfile::expand::Variables, graph::Environment};

/// Names and values in order of their last definition. Setting a name again moves it to the end, as in BuildKit: a process
/// sees the order.
#[derive(Debug, Clone, Default)]
pub(super) struct Env {
    list: Environment,
    /// Where each name is in the list.
    positions: HashMap<String, usize>,
}

impl Env {
    /// From the `NAME=value` list of an image configuration.
    pub(super) fn from_config(list: &[String]) -> Self {
        let mut env = Self::default();
        for entry in list {
            let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
            env.set(name, value);
        }
        env
    }

    pub(super) fn set(&mut self, name: &str, value: &str) {
        if let Some(position) = self.positions.remove(name) {
            self.list.remove(position);
            for later in self.positions.values_mut().filter(|p| **p > position) {
                *later -= 1;
            }
        }
        self.positions.insert(name.to_owned(), self.list.len());
        self.list.push(name, value);
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.list.iter().map(|(name, _)| name)
    }

    pub(super) fn list(&self) -> &Environment {
        &self.list
    }
}

impl Variables for Env {
    fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.list.get(*self.positions.get(name)?)?;
        Some(value)
    }
}

/// Names that ARG declared, each once, with the value that the last ARG of the name gave
/// it, if it gave one.
#[derive(Debug, Clone, Default)]
pub(super) struct Args {
    list: Vec<(String, Option<String>)>,
    positions: HashMap<String, usize>,
}

impl Args {
    pub(super) fn declare(&mut self, name: &str, value: Option<String>) {
        match self.positions.get(name) {
            Some(position) => self.list[*position].1 = value,
            None => {
                self.positions.insert(name.to_owned(), self.list.len());
                self.list.push((name.to_owned(), value));
            }
        }
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.positions.contains_key(name)
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        let pairs = self.list.iter();
        pairs.map(|(name, value)| (name.as_str(), value.as_deref()))
    }
}

/// Sets a variable in the `NAME=value` list of an image configuration, where it keeps
/// its place.
pub(super) fn set_in_config(list: &mut Vec<String>, name: &str, value: &str) {
    let entry = format!("{name}={value}");
    let is_it = |known: &&mut String| known.split('=').next() == Some(name);
    match list.iter_mut().find(is_it) {
        Some(known) => *known = entry,
        None => list.push(entry),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn setting_again_moves_to_the_end_but_not_in_the_configuration() {
        let mut list = vec!["A=1".to_owned(), "B".to_owned(), "C=3".to_owned()];
        let mut env = Env::from_config(&list);
        env.set("A", "=4");
        env.set("B", "5");
        let pairs: Vec<_> = env.list().iter().collect();
        assert_eq!(pairs, [("C", "3"), ("A", "=4"), ("B", "5")]);
        for (name, value) in [("A", "=4"), ("C", "3"), ("B", "5")] {
            assert_eq!(Variables::get(&env, name), Some(value));
        }
        set_in_config(&mut list, "B", "5");
        set_in_config(&mut list, "D", "=");
        assert_eq!(list, ["A=1", "B=5", "C=3", "D=="]);
    }
}
