//! From arguments and a place to a [`Side`].

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use super::{Context, build, prepare};
use crate::{
    cache::TieredStore,
    cli::{CliError, build::BuildArgs, caches, images::BaseImages},
    context::{self, ScannedContext},
    digest::{Blake3Digest, KeyEncoder},
    engine::{
        BuildError,
        contexts::{context_copies, prefixes, scan_context, selection_key},
    },
    event::Events,
    fs::{self, Disk, Files},
    git::{self, ContentIdentity, Repository, ScanOptions, Tree, Unknown},
    graph::{BuildGraph, CopyAction, LocalContext, VertexId},
    key::{CacheKey, KeyOptions},
    oci::layer::LayerPath,
    plan::{
        Hits, Selected, Side,
        covers::Covered,
        files::CommitFiles,
        remembered::{self, Remembered},
    },
    registry::Registry,
};

/// Where a side's files are.
#[derive(Debug, Clone)]
pub(in crate::cli) enum Place {
    /// In the working directory.
    Disk,
    /// In a commit.
    Commit(Box<Tree>),
}

/// Makes sides of one command.
pub(in crate::cli) struct Maker<'c> {
    context: &'c Context,
    args: &'c BuildArgs,
    bases: &'c BaseImages,
    events: &'c Events,
    /// What the working directory is the work tree of: files that are as in the commit needn't be read.
    pub(super) repository: Option<&'c Repository>,
    /// Whether files of commits are told apart by their names in Git alone. Keys are then good for
    /// comparisons, and nothing is found in a cache under them.
    pub(in crate::cli) by_object_id: bool,
    /// What is remembered of selections, where several makers share it; whoever does so saves it.
    pub(in crate::cli) remembered: Option<&'c Mutex<Remembered>>,
}

impl<'c> Maker<'c> {
    pub(in crate::cli) fn new(
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
            repository: None,
            by_object_id: false,
            remembered: None,
        }
    }

    /// What would be built from the files in `place`.
    pub(in crate::cli) async fn side(&self, name: &str, place: &Place) -> Result<Side, CliError> {
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
            simulation: self.context.simulation.clone(),
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
        let own = Mutex::new(match self.remembered {
            Some(_) => Remembered::default(),
            None => Remembered::load(&memo_dir),
        });
        let remembered = || {
            let shared = self.remembered.unwrap_or(&own);
            shared.lock().unwrap_or_else(PoisonError::into_inner)
        };
        for (context, rows) in by_context {
            let local = &graph.contexts[context];
            if local.dir.starts_with(prepare::NOT_FETCHED) {
                for (id, action, copy) in rows {
                    found.insert((id, action), Ok(not_fetched(local, copy)));
                }
                continue;
            }
            let mut open = Vec::new();
            for row in rows {
                let question = self.question(local, row.2, files)?;
                match question.and_then(|question| remembered().get(&question)) {
                    Some(key) => {
                        found.insert((row.0, row.1), Ok(key));
                    }
                    None => open.push((row, question)),
                }
            }
            if open.is_empty() {
                continue;
            }
            let copies: Vec<&CopyAction> = open.iter().map(|((_, _, copy), _)| *copy).collect();
            let mut places = Vec::new();
            let keys = self.of_context(local, &copies, files, &memo_dir, &mut places)?;
            // Where symlinks led elsewhere, more counts than was asked for.
            let asked: usize = copies.iter().map(|copy| copy.sources.len()).sum();
            let as_asked = places.len() == asked;
            for (((id, action, _), question), key) in open.into_iter().zip(keys) {
                if let (Ok(key), Some(question), true) = (&key, question, as_asked) {
                    remembered().learn(question, *key);
                }
                found.insert((id, action), key);
            }
        }
        if self.remembered.is_none()
            && let Err(error) = remembered().save()
        {
            tracing::debug!(%error, "what was selected is not remembered");
        }
        Ok(found)
    }

    /// What the selection of a copy is remembered by; none where it isn't.
    fn question(
        &self,
        local: &LocalContext,
        copy: &CopyAction,
        files: Option<&CommitFiles>,
    ) -> Result<Option<Blake3Digest>, CliError> {
        let Some(files) = files else {
            return Ok(None);
        };
        let Some(dir) = files.place(&local.dir) else {
            return Ok(None);
        };
        let inputs = git::scan_inputs(files.tree(), &dir, &prefixes(copy))?;
        Ok(inputs.map(|inputs| remembered::question(inputs, self.identity(), local, copy)))
    }

    fn identity(&self) -> ContentIdentity {
        match self.by_object_id {
            true => ContentIdentity::ObjectId,
            false => ContentIdentity::Content,
        }
    }

    /// The keys of what `copies` take of one context, in their order. Adds the places that were looked
    /// at to `places`.
    fn of_context(
        &self,
        local: &LocalContext,
        copies: &[&CopyAction],
        files: Option<&CommitFiles>,
        memo_dir: &Path,
        places: &mut Vec<LayerPath>,
    ) -> Result<Vec<Selected>, CliError> {
        let mut unknown = Vec::new();
        let source = scan_context(local, copies, |local, prefixes| {
            prefixes.clone_into(places);
            self.scan(local, prefixes, files, memo_dir, &mut unknown)
        })?;
        let key = |copy: &&CopyAction| {
            let key = selection_key(&source, copy).map_err(|error| error.to_string());
            let covered = Covered::of(local, copy);
            let untold = unknown
                .iter()
                .find(|u| covered.meets(&local.dir.join(u.path.as_path())));
            match untold {
                Some(unknown) => Err(format!(
                    "`{}`: {}",
                    unknown.path.as_path().display(),
                    unknown.reason
                )),
                None => key,
            }
        };
        Ok(copies.iter().map(key).collect())
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
                identity: self.identity(),
                memo_dir: Some(memo_dir),
            };
            let scanned = git::scan(files.tree(), &dir, local, prefixes, options)?;
            *unknown = scanned.unknown;
            return Ok(scanned.context);
        }
        if let Some(repository) = self.repository {
            return Ok(git::scan_worktree(
                repository,
                local,
                prefixes,
                Some(memo_dir),
            )?);
        }
        Ok(context::scan(local, prefixes, Some(memo_dir)).map_err(BuildError::from)?)
    }

    /// The directory of the local store.
    pub(in crate::cli) fn store_dir(&self) -> Result<std::path::PathBuf, CliError> {
        let configuration = prepare::configuration(self.context, self.args);
        build::store_dir(
            self.context,
            self.args,
            configuration.ok().flatten().as_ref(),
        )
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
        // Targets of a bake file may name caches.
        let source = prepare::bake::source(self.args, configuration.as_ref());
        let plan = match &source {
            Some(source) => Some(prepare::bake::plan(self.context, self.args, source, None)?),
            None => None,
        };
        let asked = build::asked(self.args, plan.as_ref());
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

/// What stands for the files of a source that nobody fetched: they count as the same as long as their
/// address is.
fn not_fetched(local: &LocalContext, copy: &CopyAction) -> CacheKey {
    let mut encoder = KeyEncoder::new("memobuild-ci 2026-11 source not fetched v1");
    encoder
        .field("source", local.dir.display().to_string())
        .list("paths", &copy.sources);
    CacheKey(encoder.finish())
}
