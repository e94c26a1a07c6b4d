//! From arguments and a place to a [`Side`].

use std::{collections::HashMap, path::Path, sync::Arc};

use super::{Context, build, prepare};
use crate::{
    cache::TieredStore,
    cli::{CliError, build::BuildArgs, caches, images::BaseImages},
    context::{self, ScannedContext},
    engine::{
        BuildError,
        contexts::{context_copies, scan_context, selection_key},
    },
    event::Events,
    fs::{self, Disk, Files},
    git::{self, ContentIdentity, ScanOptions, Tree, Unknown},
    graph::{BuildGraph, CopyAction, LocalContext, VertexId},
    key::KeyOptions,
    oci::layer::LayerPath,
    plan::{Hits, Selected, Side, covers::Covered, files::CommitFiles},
    registry::Registry,
};

/// Where a side's files are.
#[derive(Debug, Clone)]
pub(super) enum Place {
    /// In the working directory.
    Disk,
    /// In a commit.
    Commit(Box<Tree>),
}

/// Makes sides of one command.
pub(super) struct Maker<'c> {
    context: &'c Context,
    args: &'c BuildArgs,
    bases: &'c BaseImages,
    events: &'c Events,
    /// Whether files of commits are told apart by their names in Git alone. Keys are then good for
    /// comparisons, and nothing is found in a cache under them.
    pub(super) by_object_id: bool,
}

impl<'c> Maker<'c> {
    pub(super) fn new(
        context: &'c Context,
        args: &'c BuildArgs,
        bases: &'c BaseImages,
        events: &'c Events,
    ) -> Self {
        Self {
            context,
            args,
            bases,
            events,
            by_object_id: false,
        }
    }

    /// What would be built from the files in `place`.
    pub(super) async fn side(&self, name: &str, place: &Place) -> Result<Side, CliError> {
        let files = match place {
            Place::Disk => None,
            Place::Commit(tree) => Some(CommitFiles::new(Tree::clone(tree), &fs::absolute(".")?)),
        };
        let seen: Arc<dyn Files> = match &files {
            None => Arc::new(Disk),
            Some(files) => Arc::new(files.clone()),
        };
        let context = Context {
            global: self.context.global.clone(),
            env: self.context.env.clone(),
            color: self.context.color,
            files: seen,
        };
        let configuration = prepare::configuration(&context, self.args)?;
        let source = prepare::bake::source(self.args, configuration.as_ref());
        let plan = match &source {
            Some(source) => Some(prepare::bake::plan(&context, self.args, source, None)?),
            None => None,
        };
        let prepared = prepare::prepare(
            &context,
            self.args,
            configuration.as_ref(),
            plan.as_ref(),
            self.bases,
            self.events,
        );
        let prepared = prepared.await?;
        let options = KeyOptions {
            normalise: !self.args.keep_noise,
        };
        let selections = self.selections(&prepared.graph, files.as_ref())?;
        Ok(Side::new(
            name,
            prepared.graph,
            prepared.targets,
            options,
            &selections,
        ))
    }

    /// The keys of all that is copied from local contexts.
    fn selections(
        &self,
        graph: &BuildGraph,
        files: Option<&CommitFiles>,
    ) -> Result<HashMap<(VertexId, usize), Selected>, CliError> {
        let memo_dir = self.store_dir()?.join("memo");
        let mut by_context: HashMap<usize, Vec<(VertexId, usize, &CopyAction)>> = HashMap::new();
        for (id, action, context, copy) in context_copies(graph) {
            by_context
                .entry(context)
                .or_default()
                .push((id, action, copy));
        }
        let mut found = HashMap::new();
        for (context, rows) in by_context {
            let local = &graph.contexts[context];
            let copies: Vec<&CopyAction> = rows.iter().map(|(_, _, copy)| *copy).collect();
            let mut unknown = Vec::new();
            let source = scan_context(local, &copies, |local, prefixes| {
                self.scan(local, prefixes, files, &memo_dir, &mut unknown)
            })?;
            for (id, action, copy) in rows {
                let key = selection_key(&source, copy).map_err(|error| error.to_string());
                let covered = Covered::of(local, copy);
                let untold = unknown
                    .iter()
                    .find(|u| covered.meets(&local.dir.join(u.path.as_path())));
                found.insert(
                    (id, action),
                    match untold {
                        Some(unknown) => Err(format!(
                            "`{}`: {}",
                            unknown.path.as_path().display(),
                            unknown.reason
                        )),
                        None => key,
                    },
                );
            }
        }
        Ok(found)
    }

    /// Scans a context where its files are. What can't be told of a commit is put into `unknown`.
    fn scan(
        &self,
        local: &LocalContext,
        prefixes: &[LayerPath],
        files: Option<&CommitFiles>,
        memo_dir: &Path,
        unknown: &mut Vec<Unknown>,
    ) -> Result<ScannedContext, CliError> {
        if let Some(files) = files
            && let Some(dir) = files.place(&local.dir)
        {
            let options = ScanOptions {
                identity: match self.by_object_id {
                    true => ContentIdentity::ObjectId,
                    false => ContentIdentity::Content,
                },
                memo_dir: Some(memo_dir),
            };
            let scanned = git::scan(files.tree(), &dir, local, prefixes, options)?;
            *unknown = scanned.unknown;
            return Ok(scanned.context);
        }
        Ok(context::scan(local, prefixes, Some(memo_dir)).map_err(BuildError::from)?)
    }

    /// The directory of the local store.
    fn store_dir(&self) -> Result<std::path::PathBuf, CliError> {
        let configured = prepare::configuration(self.context, self.args)
            .ok()
            .flatten();
        let dir = match &self.args.cache_dir {
            Some(dir) => dir.clone(),
            None => self
                .context
                .env
                .cache_dir(configured.and_then(|c| c.cache.dir)),
        };
        Ok(fs::absolute(dir)?)
    }

    /// What the caches have of a side's steps.
    pub(super) async fn look_up(
        &self,
        side: &Side,
        registry: &Arc<Registry>,
    ) -> Result<Hits, CliError> {
        let configuration = prepare::configuration(self.context, self.args)
            .ok()
            .flatten();
        let settings = configuration.as_ref().map(|c| c.cache.clone());
        let asked = build::asked(self.args, None);
        let caches = caches::caches(
            self.context,
            &asked,
            &settings.unwrap_or_default(),
            registry,
            self.events,
        )?;
        let (store, _temporary) =
            build::open_store(self.context, self.args, configuration.as_ref(), self.events)?;
        let tiers = TieredStore::new(
            Arc::new(store),
            caches.tiers,
            caches.scopes,
            caches.vouching,
            self.events.clone(),
        );
        let found = tiers.lookup(&side.step_keys()).await;
        let found = found.into_iter().flatten();
        Ok(found
            .map(|found| (found.result.key, found.result))
            .collect())
    }
}
