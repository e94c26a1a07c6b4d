//! The variables of a stage: what expands in words, what processes see.

use std::{fmt::Write as _, sync::Arc};

use crate::{
    dockerfile::expand::Variables,
    graph::{Environment, environment::Variable, shared_map::SharedMap},
};

/// Names and values in order of their last definition. Setting a name again moves it to the end, as in BuildKit: a process
/// sees the order.
#[derive(Debug, Clone, Default)]
pub(super) struct Env {
    list: Environment,
    /// Each name with its place in the list.
    names: SharedMap<Arc<str>, (usize, Arc<Variable>)>,
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

    pub(super) fn set(&mut self, name: &str, value: &str) -> Arc<Variable> {
        let name = match self.names.get(name) {
            Some((number, known)) => {
                self.list.remove(*number);
                Arc::clone(&known.name)
            }
            None => name.into(),
        };
        let variable = Variable::new(Arc::clone(&name), value);
        let number = self.list.push(Arc::clone(&variable));
        self.names.insert(name, (number, Arc::clone(&variable)));
        variable
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
        let (_, variable) = self.names.get(name)?;
        Some(&variable.value)
    }
}

/// Names that ARG declared, each once, with the value that the last ARG of the name gave
/// it, if it gave one.
#[derive(Debug, Clone, Default)]
pub(super) struct Args {
    /// Each name with its number in the order of declaration.
    names: SharedMap<Arc<str>, (usize, Option<Arc<str>>)>,
    /// How many there are.
    count: usize,
    /// What the history says of them, until something changes.
    shown: Option<Arc<str>>,
}

impl Args {
    pub(super) fn declare(&mut self, name: &str, value: Option<&str>) {
        let value = value.map(Arc::from);
        match self.names.get(name) {
            Some((number, _)) => {
                let number = *number;
                self.names.insert(name.into(), (number, value));
            }
            None => {
                self.names.insert(name.into(), (self.count, value));
                self.count += 1;
            }
        }
        self.shown = None;
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.names.get(name).is_some()
    }

    /// The variable of this name was set.
    pub(super) fn changed(&mut self, name: &str) {
        if self.contains(name) {
            self.shown = None;
        }
    }

    /// `|1 NAME=value `, with the values of `env` where it has one; nothing if there are none.
    pub(super) fn history(&mut self, env: &Env) -> Arc<str> {
        if let Some(shown) = &self.shown {
            return Arc::clone(shown);
        }
        let mut out = String::new();
        if self.count > 0 {
            let mut list: Vec<_> = self.names.iter().collect();
            list.sort_unstable_by_key(|(_, (number, _))| *number);
            let _ = write!(out, "|{} ", self.count);
            for (name, (_, value)) in list {
                let now = Variables::get(env, name);
                let value = now.or(value.as_deref()).unwrap_or_default();
                let _ = write!(out, "{name}={value} ");
            }
        }
        let shown: Arc<str> = out.into();
        self.shown = Some(Arc::clone(&shown));
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn setting_again_moves_to_the_end() {
        let list = ["A=1", "B", "C=3"].map(str::to_owned);
        let mut env = Env::from_config(&list);
        env.set("A", "=4");
        env.set("B", "5");
        let pairs: Vec<_> = env.list().iter().collect();
        assert_eq!(pairs, [("C", "3"), ("A", "=4"), ("B", "5")]);
        for (name, value) in [("A", "=4"), ("C", "3"), ("B", "5")] {
            assert_eq!(Variables::get(&env, name), Some(value));
        }
    }

    #[test]
    fn the_history_shows_arguments_as_they_are() {
        let (mut env, mut args) = (Env::default(), Args::default());
        assert_eq!(&*args.history(&env), "");
        args.declare("Z", None);
        args.declare("A", Some("1"));
        assert_eq!(&*args.history(&env), "|2 Z= A=1 ");
        args.declare("Z", Some("2"));
        assert_eq!(&*args.history(&env), "|2 Z=2 A=1 ");
        env.set("A", "3");
        args.changed("A");
        assert_eq!(&*args.history(&env), "|2 Z=2 A=3 ");
    }
}
