//! From arguments and a place to a [`Side`].

use std::{collections::HashMap, path::Path, sync::Arc};

use super::{Context, build, prepare};
use crate::{
    cache::TieredStore,
    cli::{CliError, build::BuildArgs, caches, images::BaseImages},
    context::{self, ScannedContext},
    digest::Blake3Digest,
    engine::{
        BuildError,
        contexts::{context_copies, prefixes, scan_context, selection_key},
    },
    event::Events,
    fs::{self, Disk, Files},
    git::{self, ContentIdentity, Repository, ScanOptions, Tree, Unknown},
    graph::{BuildGraph, CopyAction, LocalContext, VertexId},
    key::KeyOptions,
    oci::layer::LayerPath,
    plan::{
        Hits, Selected, Side,
        covers::Covered,
        files::CommitFiles,
        memo::{self, SelectionMemo},
    },
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
    /// What the working directory is the work tree of: files that are as in the commit needn't be read.
    pub(super) repository: Option<&'c Repository>,
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
            repository: None,
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
        let mut memo = SelectionMemo::load(&memo_dir);
        for (context, rows) in by_context {
            let local = &graph.contexts[context];
            let mut questions = HashMap::new();
            let mut open = Vec::new();
            for row in rows {
                let question = self.question(local, row.2, files)?;
                match question.and_then(|question| memo.get(&question)) {
                    Some(key) => {
                        found.insert((row.0, row.1), Ok(key));
                    }
                    None => {
                        questions.insert((row.0, row.1), question);
                        open.push(row);
                    }
                }
            }
            if open.is_empty() {
                continue;
            }
            let copies: Vec<&CopyAction> = open.iter().map(|(_, _, copy)| *copy).collect();
            let (mut unknown, mut rounds) = (Vec::new(), 0);
            let source = scan_context(local, &copies, |local, prefixes| {
                rounds += 1;
                self.scan(local, prefixes, files, &memo_dir, &mut unknown)
            })?;
            for (id, action, copy) in open {
                let key = selection_key(&source, copy).map_err(|error| error.to_string());
                let covered = Covered::of(local, copy);
                let is_met =
                    |unknown: &&Unknown| covered.meets(&local.dir.join(unknown.path.as_path()));
                let untold = unknown.iter().find(is_met);
                let selected = match untold {
                    Some(unknown) => {
                        let path = unknown.path.as_path().display();
                        Err(format!("`{path}`: {}", unknown.reason))
                    }
                    None => key,
                };
                // Where symlinks led elsewhere, more counts than was asked for.
                if let (Ok(key), Some(question), 1) = (&selected, questions[&(id, action)], rounds)
                {
                    memo.learn(question, *key);
                }
                found.insert((id, action), selected);
            }
        }
        if let Err(error) = memo.save() {
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
        Ok(inputs.map(|inputs| memo::question(inputs, self.identity(), local, copy)))
    }

    fn identity(&self) -> ContentIdentity {
        match self.by_object_id {
            true => ContentIdentity::ObjectId,
            false => ContentIdentity::Content,
        }
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
