//! What a graph copies from local contexts: their trees, the selections, the definition keys.
//!
//! A context is a directory on the disk, or that of a commit that nobody has checked out: whoever
//! calls [`scan_contexts`] says how one is scanned. Equal trees give equal keys.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::{
    BuildError, FailedStep,
    files::{Contents, FileError, Source, places, select},
};
use crate::{
    context::ScannedContext,
    dockerfile::pattern,
    graph::{BuildGraph, CopyAction, FileAction, LocalContext, Op, VertexId},
    key::{CacheKey, DefinitionKeys, KeyOptions},
    oci::layer::{LayerPath, Tree},
};

/// All COPY and ADD actions of a graph that read a local context: the vertex, the number of the
/// action in it, and the number of the context.
pub fn context_copies(
    graph: &BuildGraph,
) -> impl Iterator<Item = (VertexId, usize, usize, &CopyAction)> {
    graph
        .vertices
        .iter()
        .enumerate()
        .flat_map(move |(v, vertex)| {
            let actions = match &vertex.op {
                Op::File(op) => op.actions.as_slice(),
                _ => &[],
            };
            actions.iter().enumerate().filter_map(move |(n, action)| {
                let FileAction::Copy(copy) = action else {
                    return None;
                };
                match graph.vertex(copy.from).op {
                    Op::Context(context) => Some((VertexId(v), n, context, copy)),
                    _ => None,
                }
            })
        })
}

/// Scans what the graph copies of each context, and no more. `scan` is given a context and the
/// places that are needed of it.
pub fn scan_contexts<E>(
    graph: &BuildGraph,
    mut scan: impl FnMut(&LocalContext, &[LayerPath]) -> Result<ScannedContext, E>,
) -> Result<HashMap<usize, Source>, E> {
    let mut copies: BTreeMap<usize, Vec<&CopyAction>> = BTreeMap::new();
    for (_, _, context, copy) in context_copies(graph) {
        copies.entry(context).or_default().push(copy);
    }
    let mut sources = HashMap::new();
    for (number, copies) in copies {
        let local = &graph.contexts[number];
        sources.insert(number, scan_context(local, &copies, &mut scan)?);
    }
    Ok(sources)
}

/// Scans what `copies` take of the context `local`.
pub fn scan_context<E>(
    local: &LocalContext,
    copies: &[&CopyAction],
    mut scan: impl FnMut(&LocalContext, &[LayerPath]) -> Result<ScannedContext, E>,
) -> Result<Source, E> {
    let mut prefixes: Vec<LayerPath> = copies.iter().flat_map(|copy| prefixes(copy)).collect();
    let mut source = source(local, scan(local, &prefixes)?);
    // What is named may be a symlink to somewhere else in the context, and there may be
    // another one there.
    loop {
        let elsewhere: Vec<LayerPath> = copies
            .iter()
            .flat_map(|copy| places(&source, copy))
            .filter(|at| !prefixes.iter().any(|prefix| at.starts_with(prefix)))
            .collect();
        if elsewhere.is_empty() {
            return Ok(source);
        }
        prefixes.extend(elsewhere);
        source = self::source(local, scan(local, &prefixes)?);
    }
}

fn source(local: &LocalContext, scanned: ScannedContext) -> Source {
    let name = match local.name.as_str() {
        "context" => "the build context".to_owned(),
        name => format!("build context `{name}`"),
    };
    Source {
        name,
        tree: Arc::new(Tree::new(vec![Arc::new(scanned.index)])),
        contents: Contents::Directory(local.dir.clone()),
    }
}

/// The places below which everything lies that a copy names, symlinks aside.
pub fn prefixes(copy: &CopyAction) -> Vec<LayerPath> {
    copy.sources
        .iter()
        .map(|text| literal_prefix(text))
        .collect()
}

/// The part of a source path before its first wildcard; the whole context where the path
/// climbs.
fn literal_prefix(text: &str) -> LayerPath {
    let parts: Vec<&str> = text
        .split('/')
        .take_while(|part| !pattern::is_pattern(part))
        .collect();
    LayerPath::new(parts.join("/")).unwrap_or_default()
}

/// The key of what one copy selects from a context.
pub fn selection_key(source: &Source, copy: &CopyAction) -> Result<CacheKey, FileError> {
    Ok(select(source, copy)?.key(source))
}

/// The definition keys of all vertices, with the trees of the contexts they copy from.
pub(super) fn definition_keys(
    graph: &BuildGraph,
    options: KeyOptions,
    contexts: &HashMap<usize, Source>,
) -> Result<DefinitionKeys, BuildError> {
    let mut selections: HashMap<(VertexId, usize), CacheKey> = HashMap::new();
    for (id, n, context, copy) in context_copies(graph) {
        let key = selection_key(&contexts[&context], copy).map_err(|source| BuildError::Files {
            step: FailedStep::of(graph, id),
            source,
        })?;
        selections.insert((id, n), key);
    }
    DefinitionKeys::compute(graph, options, |id, n| Ok(selections[&(id, n)]))
}
