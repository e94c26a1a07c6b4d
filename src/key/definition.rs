//! The recipes of definition keys and content keys.
//!
//! Both keys of a step share the parts that its own instruction gives
//! ([`exec_parts`], [`file_parts`]); they differ in what stands for the inputs.

use super::{CacheKey, KeyKind, KeyRecipe};
use crate::{
    graph::{
        BuildGraph, ExecOp, FileAction, FileOp, FileOwner, ModeChange, MountOp, NetworkMode, Op,
        SecretVariable, StepExtras, VertexId,
    },
    oci::{Platform, layer::ChainId},
};

/// Settings of a build that change what steps give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyOptions {
    /// Whether known noise is dropped from layers.
    pub normalise: bool,
}

/// The definition keys of all vertices of a graph.
#[derive(Debug, Clone)]
pub struct DefinitionKeys {
    keys: Vec<(CacheKey, KeyRecipe)>,
}

impl DefinitionKeys {
    /// Computes all keys, in the graph's order. `selection` gives the digest of the
    /// files that action number `action` of vertex `vertex` selects from a local
    /// context.
    pub fn compute<E>(
        graph: &BuildGraph,
        options: KeyOptions,
        mut selection: impl FnMut(VertexId, usize) -> Result<CacheKey, E>,
    ) -> Result<Self, E> {
        let mut this = Self {
            keys: Vec::with_capacity(graph.vertices.len()),
        };
        for (n, vertex) in graph.vertices.iter().enumerate() {
            let recipe = this.recipe(graph, VertexId(n), &vertex.op, options, &mut selection)?;
            this.keys.push((recipe.key(), recipe));
        }
        Ok(this)
    }

    /// The key of a vertex.
    pub fn key(&self, id: VertexId) -> CacheKey {
        self.keys[id.0].0
    }

    /// The recipe that gave it.
    pub fn recipe_of(&self, id: VertexId) -> &KeyRecipe {
        &self.keys[id.0].1
    }

    fn recipe<E>(
        &self,
        graph: &BuildGraph,
        id: VertexId,
        op: &Op,
        options: KeyOptions,
        selection: &mut impl FnMut(VertexId, usize) -> Result<CacheKey, E>,
    ) -> Result<KeyRecipe, E> {
        let platform = &graph.vertex(id).platform;
        let mut recipe = KeyRecipe::new(KeyKind::Definition);
        match op {
            Op::Scratch => {
                recipe.part("op", "scratch");
            }
            Op::Image(image) => {
                recipe
                    .part("op", "image")
                    .display("manifest", image.manifest);
            }
            // A context has no key of its own: what a COPY selects from it has.
            Op::Context(n) => {
                recipe.part("op", "context").display("number", n);
            }
            Op::Exec(exec) => {
                exec_parts(&mut recipe, exec, platform, options);
                recipe.display("root", self.key(exec.root));
                for (n, mount) in exec.mounts.iter().enumerate() {
                    if let Some(from) = mount.from() {
                        recipe.display(format!("mount.{n}.from"), self.key(from));
                    }
                }
            }
            Op::File(file) => {
                file_parts(&mut recipe, file, platform);
                recipe.display("root", self.key(file.root));
                for (n, action) in file.actions.iter().enumerate() {
                    let FileAction::Copy(copy) = action else {
                        continue;
                    };
                    match graph.vertex(copy.from).op {
                        Op::Context(_) => {
                            recipe.display(format!("copy.{n}.files"), selection(id, n)?);
                        }
                        _ => {
                            recipe.display(format!("copy.{n}.from"), self.key(copy.from));
                        }
                    }
                }
            }
        }
        Ok(recipe)
    }
}

/// The recipe of a RUN's content key. `mounts` holds the chain of the root file system
/// that each bind mount reads, in order.
pub fn exec_content_recipe(
    exec: &ExecOp,
    platform: &Platform,
    options: KeyOptions,
    root: ChainId,
    mounts: &[ChainId],
) -> KeyRecipe {
    let mut recipe = KeyRecipe::new(KeyKind::Content);
    exec_parts(&mut recipe, exec, platform, options);
    recipe.display("root", root.0);
    for (n, chain) in mounts.iter().enumerate() {
        recipe.display(format!("bind.{n}"), chain.0);
    }
    recipe
}

/// The recipe of a COPY's, ADD's or WORKDIR's content key: `plan` is the digest of the
/// layer's entries as decided from metadata, and nothing else matters.
pub fn file_content_recipe(plan: CacheKey) -> KeyRecipe {
    let mut recipe = KeyRecipe::new(KeyKind::Content);
    recipe.part("op", "file").display("plan", plan);
    recipe
}

/// What a RUN's own instruction contributes.
fn exec_parts(recipe: &mut KeyRecipe, exec: &ExecOp, platform: &Platform, options: KeyOptions) {
    let env: Vec<String> = exec
        .env
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let hosts: Vec<String> = exec
        .hosts
        .iter()
        .map(|(name, address)| format!("{name}={address}"))
        .collect();
    recipe
        .part("op", "exec")
        .display("platform", platform)
        .list("args", &exec.args)
        .list("env", &env)
        .part("cwd", &exec.cwd)
        .part("user", &exec.user)
        .part(
            "network",
            match exec.network {
                NetworkMode::Host => "host",
                NetworkMode::None => "none",
            },
        )
        .list("hosts", &hosts)
        .display("mtime", exec.mtime)
        .display("epoch", exec.epoch)
        .display("normalise", options.normalise);
    for (n, mount) in exec.mounts.iter().enumerate() {
        let text = match mount {
            MountOp::Bind {
                source,
                target,
                writable,
                ..
            } => vec![
                "bind".to_owned(),
                source.clone(),
                target.clone(),
                writable.to_string(),
            ],
            // What a cache mount holds must not decide what a step gives; that it is
            // there does.
            MountOp::Cache {
                id,
                target,
                readonly,
                source,
                ..
            } => {
                let mut text = vec![
                    "cache".to_owned(),
                    id.clone(),
                    target.clone(),
                    readonly.to_string(),
                ];
                if source != "/" {
                    text.push(source.clone());
                }
                text
            }
            MountOp::Tmpfs {
                target, readonly, ..
            } => {
                let mut text = vec!["tmpfs".to_owned(), target.clone()];
                if *readonly {
                    text.push("readonly".to_owned());
                }
                text
            }
            // What a secret is must not decide what a step gives, nor who the agent is.
            MountOp::Secret {
                id,
                target,
                required,
                owner,
            } => secret_text("secret", id, target, *required, Some(owner)),
            MountOp::Ssh {
                id,
                target,
                required,
                owner,
            } => secret_text("ssh", id, target, *required, Some(owner)),
        };
        recipe.list(&format!("mount.{n}"), &text);
    }
    extras_parts(recipe, &exec.extras);
}

fn secret_text(
    kind: &str,
    id: &str,
    target: &str,
    required: bool,
    owner: Option<&FileOwner>,
) -> Vec<String> {
    let mut text = vec![
        kind.to_owned(),
        id.to_owned(),
        target.to_owned(),
        required.to_string(),
    ];
    if let Some(FileOwner { mode, uid, gid }) = owner {
        text.extend([format!("{mode:o}"), uid.to_string(), gid.to_string()]);
    }
    text
}

/// Requests that few steps make: each part is there only where the request is.
fn extras_parts(recipe: &mut KeyRecipe, extras: &StepExtras) {
    let StepExtras {
        insecure,
        devices,
        ulimits,
        shm_size,
        hostname,
        secret_variables,
    } = extras;
    if *insecure {
        recipe.part("security", "insecure");
    }
    if !devices.is_empty() {
        let names: Vec<String> = devices.iter().map(|d| d.name.clone()).collect();
        recipe.list("devices", &names);
    }
    if !ulimits.is_empty() {
        let number = |limit: Option<u64>| limit.map_or("-1".to_owned(), |n| n.to_string());
        let limits: Vec<String> = ulimits
            .iter()
            .map(|u| format!("{}={}:{}", u.name.name(), number(u.soft), number(u.hard)))
            .collect();
        recipe.list("ulimits", &limits);
    }
    if let Some(size) = shm_size {
        recipe.display("shm", size);
    }
    if let Some(hostname) = hostname {
        recipe.part("hostname", hostname);
    }
    for (n, variable) in secret_variables.iter().enumerate() {
        let SecretVariable { id, name, required } = variable;
        let text = secret_text("env", id, name, *required, None);
        recipe.list(&format!("secret.{n}"), &text);
    }
}

/// What a COPY's, ADD's or WORKDIR's own instruction contributes.
fn file_parts(recipe: &mut KeyRecipe, file: &FileOp, platform: &Platform) {
    recipe
        .part("op", "file")
        .display("platform", platform)
        .display("mtime", file.mtime);
    for (n, action) in file.actions.iter().enumerate() {
        match action {
            FileAction::Copy(copy) => {
                recipe
                    .list(&format!("copy.{n}.sources"), &copy.sources)
                    .part(format!("copy.{n}.dest"), &copy.dest)
                    .option(&format!("copy.{n}.owner"), copy.owner.as_ref())
                    .option(&format!("copy.{n}.mode"), copy.mode.as_ref().map(mode_text))
                    .list(&format!("copy.{n}.exclude"), &copy.exclude)
                    .part(
                        format!("copy.{n}.flags"),
                        format!(
                            "unpack={} parents={} link={}",
                            copy.unpack, copy.parents, copy.link
                        ),
                    );
            }
            FileAction::Write {
                dest,
                name,
                content,
                owner,
                mode,
            } => {
                recipe
                    .part(format!("write.{n}.dest"), dest)
                    .part(format!("write.{n}.name"), name)
                    .part(format!("write.{n}.content"), content)
                    .option(&format!("write.{n}.owner"), owner.as_ref())
                    .option(&format!("write.{n}.mode"), mode.as_ref().map(mode_text));
            }
            FileAction::MakeDir { path, owner } => {
                recipe
                    .part(format!("mkdir.{n}.path"), path)
                    .option(&format!("mkdir.{n}.owner"), owner.as_ref());
            }
        }
    }
}

fn mode_text(mode: &ModeChange) -> String {
    match mode {
        ModeChange::Exact(mode) => format!("{mode:o}"),
        ModeChange::Symbolic(text) => text.clone(),
    }
}
