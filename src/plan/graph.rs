//! A build graph for people and programs: text, Mermaid, DOT, JSON.
//!
//! Vertices are steps and base images; edges lead from what is needed to what needs it.

use std::{collections::BTreeSet, fmt::Write as _};

use schemars::JsonSchema;
use serde::Serialize;

use super::{Decision, Plan, Side};
use crate::graph::{Op, VertexId};

/// Version of the JSON form of a [`Drawing`].
pub const GRAPH_VERSION: u32 = 1;

/// A graph that can be shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Drawing {
    /// [`GRAPH_VERSION`].
    pub schema_version: u32,
    /// In topological order.
    pub vertices: Vec<Shown>,
    /// The targets.
    pub targets: Vec<ShownTarget>,
}

/// A vertex.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Shown {
    /// Its number.
    pub id: usize,
    /// `step`, `image` or `context`.
    pub kind: String,
    /// Its name: `[ml 2/5] RUN pip install numpy`.
    pub name: String,
    /// The definition key of a step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The vertices that it reads, its root first.
    pub inputs: Vec<usize>,
}

/// A target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ShownTarget {
    /// Its name.
    pub name: String,
    /// The vertex that gives its root file system.
    pub root: usize,
    /// What is to be done about it, where there is a plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decision>,
}

impl Drawing {
    /// The graph of a side, with what a plan decided about its targets.
    pub fn of(side: &Side, plan: Option<&Plan>) -> Self {
        let mut used: BTreeSet<VertexId> = BTreeSet::new();
        for target in 0..side.targets.len() {
            used.extend(side.vertices(target));
        }
        let vertices = used
            .into_iter()
            .filter(|id| !matches!(side.graph.vertex(*id).op, Op::Scratch))
            .map(|id| {
                let vertex = side.graph.vertex(id);
                let inputs = vertex.op.inputs().into_iter();
                Shown {
                    id: id.0,
                    kind: match &vertex.op {
                        Op::Image(_) => "image",
                        Op::Context(_) | Op::Scratch => "context",
                        Op::Exec(_) | Op::File(_) => "step",
                    }
                    .to_owned(),
                    name: match &vertex.op {
                        Op::Image(image) => image.reference.clone(),
                        _ => vertex.name.clone(),
                    },
                    key: vertex.op.is_step().then(|| side.keys.key(id).to_string()),
                    inputs: inputs
                        .filter(|input| !matches!(side.graph.vertex(*input).op, Op::Scratch))
                        .map(|input| input.0)
                        .collect(),
                }
            })
            .collect();
        let targets = side.targets.iter().zip(&side.graph.targets);
        Self {
            schema_version: GRAPH_VERSION,
            vertices,
            targets: targets
                .map(|(info, made)| ShownTarget {
                    name: info.name.clone(),
                    root: made.root.0,
                    decision: plan
                        .and_then(|plan| plan.targets.iter().find(|t| t.name == info.name))
                        .map(|target| target.decision),
                })
                .collect(),
        }
    }

    /// Lines of text: each vertex with the numbers of what it reads.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for vertex in &self.vertices {
            let inputs: Vec<String> = vertex.inputs.iter().map(|n| format!("#{n}")).collect();
            let from = match inputs.is_empty() {
                true => String::new(),
                false => format!("  <- {}", inputs.join(" ")),
            };
            let _ = writeln!(text, "#{} {}{from}", vertex.id, line(&vertex.name));
        }
        for target in &self.targets {
            let decision = target.decision.map(|d| format!(": {}", d.name()));
            let decision = decision.unwrap_or_default();
            let _ = writeln!(text, "{} = #{}{decision}", target.name, target.root);
        }
        text
    }

    /// A Mermaid flow chart.
    pub fn mermaid(&self) -> String {
        let mut text = "flowchart TD\n".to_owned();
        for vertex in &self.vertices {
            let (open, close) = match vertex.kind.as_str() {
                "step" => ("[\"", "\"]"),
                _ => ("([\"", "\"])"),
            };
            let _ = writeln!(
                text,
                "  v{}{open}{}{close}",
                vertex.id,
                mermaid(&vertex.name)
            );
            for input in &vertex.inputs {
                let _ = writeln!(text, "  v{input} --> v{}", vertex.id);
            }
        }
        for (n, target) in self.targets.iter().enumerate() {
            let _ = writeln!(text, "  t{n}{{{{\"{}\"}}}}", mermaid(&target.name));
            let _ = writeln!(text, "  v{} --> t{n}", target.root);
            if let Some(decision) = target.decision {
                let _ = writeln!(text, "  class t{n} {}", decision.name());
            }
        }
        text
    }

    /// A graph for Graphviz.
    pub fn dot(&self) -> String {
        let mut text = "digraph build {\n  rankdir=TB;\n  node [shape=box];\n".to_owned();
        for vertex in &self.vertices {
            let shape = match vertex.kind.as_str() {
                "step" => "box",
                _ => "ellipse",
            };
            let _ = writeln!(
                text,
                "  v{} [label={}, shape={shape}];",
                vertex.id,
                dot(&vertex.name)
            );
            for input in &vertex.inputs {
                let _ = writeln!(text, "  v{input} -> v{};", vertex.id);
            }
        }
        for (n, target) in self.targets.iter().enumerate() {
            let _ = writeln!(text, "  t{n} [label={}, shape=hexagon];", dot(&target.name));
            let _ = writeln!(text, "  v{} -> t{n};", target.root);
        }
        text.push_str("}\n");
        text
    }
}

/// Longest name that is shown whole, in characters.
const LONGEST: usize = 100;

/// A name on one line, cut where it is long.
fn line(name: &str) -> String {
    let clean: String = name
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    match clean.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &clean[..end]),
        None => clean,
    }
}

/// A label in quotation marks for Mermaid, which has entities for what means something to it.
fn mermaid(name: &str) -> String {
    let mut out = String::new();
    for c in line(name).chars() {
        match c {
            '"' | '#' | '<' | '>' | '&' | ';' | '`' | '\\' => {
                let _ = write!(out, "#{};", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out
}

/// A label in quotation marks for Graphviz.
fn dot(name: &str) -> String {
    let name = line(name).replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{name}\"")
}
