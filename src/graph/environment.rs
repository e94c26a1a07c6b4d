//! The variables of a process, cheap to hand to every step.

use std::sync::Arc;

/// Names and values in order, each name once. Steps with equal variables share them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment(Arc<Vec<Arc<(String, String)>>>);

impl Environment {
    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|pair| (pair.0.as_str(), pair.1.as_str()))
    }

    /// Names and values, to be changed.
    pub fn to_vec(&self) -> Vec<(String, String)> {
        self.0.iter().map(|pair| (**pair).clone()).collect()
    }

    /// The pair at this position.
    pub(crate) fn get(&self, position: usize) -> Option<(&str, &str)> {
        let pair = self.0.get(position)?;
        Some((&pair.0, &pair.1))
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn push(&mut self, name: &str, value: &str) {
        let pair = Arc::new((name.to_owned(), value.to_owned()));
        Arc::make_mut(&mut self.0).push(pair);
    }

    pub(crate) fn remove(&mut self, position: usize) {
        Arc::make_mut(&mut self.0).remove(position);
    }
}

impl From<Vec<(String, String)>> for Environment {
    fn from(pairs: Vec<(String, String)>) -> Self {
        Self(Arc::new(pairs.into_iter().map(Arc::new).collect()))
    }
}
