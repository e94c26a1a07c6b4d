//! The lists of an image's configuration: variables, labels, ports, volumes, history.
//!
//! They only grow, from stage to stage, and nobody looks at them before the target's
//! configuration is complete. So each stage keeps what it adds, and [`Lists`] are put
//! together once: those of the image below all stages, and what the stages add to them.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use crate::{
    graph::{VertexId, environment::Variable},
    oci::{
        ImageConfig,
        config::{Empty, History},
    },
};

/// `comment` of the history entries.
const COMMENT: &str = "memobuild-ci.dockerfile.v1";

/// What an instruction adds.
#[derive(Debug)]
pub(super) enum Addition {
    Variable(Arc<Variable>),
    Labels(Vec<(String, String)>),
    Ports(Vec<String>),
    Volumes(Vec<String>),
    /// `created_by` of an entry, and the vertex of its layer.
    History(String, Option<VertexId>),
}

/// The lists, complete up to some stage.
#[derive(Debug, Default)]
pub(super) struct Lists {
    env: Option<Vec<String>>,
    labels: Option<BTreeMap<String, String>>,
    ports: Option<BTreeMap<String, Empty>>,
    volumes: Option<BTreeMap<String, Empty>>,
    history: Vec<History>,
    /// The vertices of the last entries of the history.
    vertices: Vec<Option<VertexId>>,
}

impl Lists {
    /// Takes them from a configuration.
    pub(super) fn take(config: &mut ImageConfig, vertices: Vec<Option<VertexId>>) -> Self {
        let runtime = &mut config.config;
        Self {
            env: runtime.env.take(),
            labels: runtime.labels.take(),
            ports: runtime.exposed_ports.take(),
            volumes: runtime.volumes.take(),
            history: std::mem::take(&mut config.history),
            vertices,
        }
    }

    /// Puts them into a configuration, and gives the vertices of the last entries of its
    /// history.
    pub(super) fn put(self, config: &mut ImageConfig) -> Vec<Option<VertexId>> {
        config.config.env = self.env;
        config.config.labels = self.labels;
        config.config.exposed_ports = self.ports;
        config.config.volumes = self.volumes;
        config.history = self.history;
        self.vertices
    }

    /// Adds everything, in order.
    pub(super) fn add(&mut self, additions: impl Iterator<Item = Addition>) {
        let mut places = self.places();
        for addition in additions {
            match addition {
                Addition::Variable(variable) => self.set(&mut places, &variable),
                Addition::Labels(labels) => {
                    self.labels.get_or_insert_default().extend(labels);
                }
                Addition::Ports(ports) => {
                    let ports = ports.into_iter().map(|port| (port, Empty {}));
                    self.ports.get_or_insert_default().extend(ports);
                }
                Addition::Volumes(paths) => {
                    let paths = paths.into_iter().map(|path| (path, Empty {}));
                    self.volumes.get_or_insert_default().extend(paths);
                }
                Addition::History(created_by, vertex) => {
                    self.history.push(History {
                        created: None,
                        created_by: Some(created_by),
                        author: None,
                        comment: Some(COMMENT.to_owned()),
                        empty_layer: vertex.is_none(),
                    });
                    self.vertices.push(vertex);
                }
            }
        }
    }

    /// Where each variable is set first.
    fn places(&self) -> HashMap<Arc<str>, usize> {
        let mut places = HashMap::new();
        for (place, entry) in self.env.iter().flatten().enumerate() {
            let name = entry.split('=').next().unwrap_or_default();
            places.entry(name.into()).or_insert(place);
        }
        places
    }

    /// Sets a variable, which keeps its place.
    fn set(&mut self, places: &mut HashMap<Arc<str>, usize>, variable: &Variable) {
        let name = &variable.name;
        let entry = format!("{name}={}", variable.value);
        let list = self.env.get_or_insert_default();
        if let Some(place) = places.get(name) {
            list[*place] = entry;
            return;
        }
        // A name that has an equals sign in it is none to whoever reads the list.
        if !name.contains('=') {
            places.insert(Arc::clone(name), list.len());
        }
        list.push(entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_keep_their_places() {
        let owned = |list: &[&str]| list.iter().map(|e| (*e).to_owned()).collect::<Vec<_>>();
        let mut lists = Lists {
            env: Some(owned(&["A=1", "B", "A=2", "C=3"])),
            ..Lists::default()
        };
        let pairs = [
            ("B", "4"),
            ("D", "="),
            ("A", "5"),
            ("D", ""),
            ("E=F", "6"),
            ("E=F", "7"),
            ("E", "8"),
        ];
        let variables = pairs.map(|(name, value)| Variable::new(name.into(), value));
        lists.add(variables.into_iter().map(Addition::Variable));
        let expected = ["A=5", "B=4", "A=2", "C=3", "D=", "E=F=6", "E=F=7", "E=8"];
        assert_eq!(lists.env, Some(owned(&expected)));
    }
}
