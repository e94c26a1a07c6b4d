//! Variables in order of first definition.

use crate::dockerfile::expand::Variables;

/// Names and values; setting a name again keeps its place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Env(Vec<(String, String)>);

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
        match self.0.iter_mut().find(|(n, _)| n == name) {
            Some((_, old)) => value.clone_into(old),
            None => self.0.push((name.to_owned(), value.to_owned())),
        }
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    pub(super) fn pairs(&self) -> &[(String, String)] {
        &self.0
    }

    /// The `NAME=value` list of an image configuration; none if there is nothing.
    pub(super) fn to_config(&self) -> Option<Vec<String>> {
        let list: Vec<String> = self.0.iter().map(|(n, v)| format!("{n}={v}")).collect();
        (!list.is_empty()).then_some(list)
    }
}

impl Variables for Env {
    fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(n, _)| n == name)?;
        Some(value)
    }
}
