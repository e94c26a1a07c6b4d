//! The variables of a process, cheap to hand to every step.

use std::{fmt, sync::Arc};

use super::shared_map::SharedMap;

/// A variable as one definition left it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Variable {
    pub(crate) name: Arc<str>,
    pub(crate) value: String,
}

impl Variable {
    pub(crate) fn new(name: Arc<str>, value: &str) -> Arc<Self> {
        let value = value.to_owned();
        Arc::new(Self { name, value })
    }
}

/// Names and values in order, each name once. Steps share what their variables have in
/// common.
#[derive(Clone, Default)]
pub struct Environment {
    /// By the number of the definition.
    variables: SharedMap<usize, Arc<Variable>>,
    /// The number of the next definition.
    next: usize,
}

impl Environment {
    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let variables = self.variables.iter();
        variables.map(|(_, variable)| (&*variable.name, variable.value.as_str()))
    }

    /// Names and values, to be changed.
    pub fn to_vec(&self) -> Vec<(String, String)> {
        self.iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }

    /// Adds a variable at the end, and gives the number of its definition.
    pub(crate) fn push(&mut self, variable: Arc<Variable>) -> usize {
        let number = self.next;
        self.variables.insert(number, variable);
        self.next += 1;
        number
    }

    /// Takes the variable with this number away.
    pub(crate) fn remove(&mut self, number: usize) {
        self.variables.remove(&number);
    }
}

impl PartialEq for Environment {
    fn eq(&self, other: &Self) -> bool {
        self.variables.is_same(&other.variables) || self.iter().eq(other.iter())
    }
}

impl Eq for Environment {}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pairs: Vec<(&str, &str)> = self.iter().collect();
        f.debug_tuple("Environment").field(&pairs).finish()
    }
}

impl From<Vec<(String, String)>> for Environment {
    fn from(pairs: Vec<(String, String)>) -> Self {
        let mut environment = Self::default();
        for (name, value) in pairs {
            environment.push(Variable::new(name.into(), &value));
        }
        environment
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_variables_are_equal_however_they_came_about() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let wanted = Environment::from(vec![pair("B", "2"), pair("A", "3")]);
        let mut environment = Environment::from(vec![pair("A", "1"), pair("B", "2")]);
        assert_ne!(environment, wanted);
        environment.remove(0);
        environment.push(Variable::new("A".into(), "3"));
        assert_eq!(environment, wanted);
        assert_eq!(environment.to_vec(), [pair("B", "2"), pair("A", "3")]);
        let shown = r#"Environment([("B", "2"), ("A", "3")])"#;
        assert_eq!(format!("{environment:?}"), shown);
        environment.push(Variable::new("A".into(), "3"));
        assert_ne!(environment, wanted);
    }
}
