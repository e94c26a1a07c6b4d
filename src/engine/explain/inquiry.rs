//! Why one step is no hit: [`Inquiry`].

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    fmt,
    path::Path,
};

use super::{
    history::{History, Place},
    note::{self, Selected, StepNote, inputs, old_parts, selections},
};
use crate::{
    cache::{ActionResult, DiskStore, Scope, SearchOrder},
    dockerfile::ignore::Ignore,
    engine::files::{Contents, Source},
    fs,
    graph::{BuildGraph, Op, VertexId},
    key::{CacheKey, ChangedFile, DefinitionKeys, Difference, FileChange, KeyDiff, Topic},
    redact::Redactor,
};

/// Tells which commit changed a file of a context last: given the context's directory and the
/// file's path in it.
pub type CommitOf<'a> = &'a (dyn Fn(&Path, &str) -> Option<String> + Send + Sync);

/// What everything is compared with, and what is known of the build.
pub(super) struct Inquiry<'a> {
    pub(super) graph: &'a BuildGraph,
    pub(super) keys: &'a DefinitionKeys,
    pub(super) contexts: &'a HashMap<usize, Source>,
    pub(super) store: &'a DiskStore,
    pub(super) history: &'a History,
    pub(super) scopes: &'a SearchOrder,
    /// The steps that are no hits by their definition keys.
    pub(super) missed: &'a HashSet<VertexId>,
    pub(super) commit_of: Option<CommitOf<'a>>,
}

/// What is known of a step's definition key besides the entries of the local store.
#[derive(Debug, Clone, Default)]
pub(super) enum Standing {
    /// Nothing: there is no entry that the build may read.
    #[default]
    Nothing,
    /// The cache must not be used for the step.
    Policy,
    /// It copies from or mounts what must be executed.
    Unforeseen,
    /// An entry that counts as a miss.
    Refused {
        /// The cache that has it.
        tier: String,
        /// What is wrong with it.
        why: String,
    },
    /// The entry is there, and nobody has the layer that it names.
    Lost,
    /// The entry was made on other layers than those of this build.
    OtherParent,
}

/// Why a step is executed, in the form of the first cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// The user wants it executed.
    Policy,
    /// It copies from or mounts what the user wants executed.
    Unforeseen,
    /// An entry counts as a miss: of which cache, and why.
    Refused {
        /// The cache.
        tier: String,
        /// What is wrong with the entry.
        why: String,
    },
    /// The layer is gone.
    Lost,
    /// The step below gave something else than the entry was made on.
    OtherParent,
    /// The entry is of a scope that this build doesn't read.
    OutOfScope {
        /// The entry's scope.
        scope: Scope,
    },
    /// Something is different in the step itself.
    Changed,
    /// Something is different further down, where the step is a hit nevertheless.
    ChangedBelow {
        /// The name of that step.
        at: String,
    },
    /// A step that it builds on or reads from is no hit either.
    Follows {
        /// That step.
        step: VertexId,
        /// Its name.
        name: String,
    },
    /// No step like it is known here.
    NoEntry,
}

impl Cause {
    /// The word for it in JSON.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Unforeseen => "reads-executed",
            Self::Refused { .. } => "refused",
            Self::Lost => "lost",
            Self::OtherParent => "other-parent",
            Self::OutOfScope { .. } => "out-of-scope",
            Self::Changed => "changed",
            Self::ChangedBelow { .. } => "changed-below",
            Self::Follows { .. } => "follows",
            Self::NoEntry => "no-entry",
        }
    }
}

/// Why a step is no hit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Miss {
    /// The first cause.
    pub cause: Cause,
    /// What differs from `nearest`; the first is what the cause is about.
    pub differences: Vec<Difference>,
    /// The entry that the step was compared with.
    pub nearest: Option<Box<ActionResult>>,
}

impl Miss {
    fn bare(cause: Cause) -> Self {
        Self {
            cause,
            differences: Vec::new(),
            nearest: None,
        }
    }

    /// The same without secrets. Before it is shortened for a sentence: half a secret is one too.
    #[must_use]
    pub fn redacted(mut self, redactor: &Redactor) -> Self {
        for difference in &mut self.differences {
            let values = [
                &mut difference.item,
                &mut difference.old,
                &mut difference.new,
            ];
            for value in values.into_iter().flatten() {
                if let Cow::Owned(redacted) = redactor.redact(value) {
                    *value = redacted;
                }
            }
        }
        self
    }
}

impl fmt::Display for Miss {
    /// One line: ``file `src/app.py` changed (`blake3:12ab…` -> `blake3:98fe…`)``.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cause {
            Cause::Policy => f.write_str("the cache is not to be used for it (`--no-cache`)"),
            Cause::Unforeseen => f.write_str("it reads from a step that must be executed"),
            Cause::Refused { tier, why } => {
                write!(f, "the entry of the cache `{tier}` counts as a miss: {why}")
            }
            Cause::Lost => f.write_str("its layer is gone from the cache"),
            Cause::OtherParent => f.write_str("what it stands on has other content than before"),
            Cause::OutOfScope { scope } => write!(
                f,
                "its entry is of the scope `{scope}`, which this build doesn't read"
            ),
            Cause::Follows { name, .. } => write!(f, "follows from `{name}`"),
            Cause::NoEntry => f.write_str("no entry: never built here, or removed since"),
            Cause::Changed | Cause::ChangedBelow { .. } => {
                let Some(first) = self.differences.first() else {
                    return f.write_str("another key");
                };
                first.fmt(f)?;
                if let Some(commit) = &first.commit {
                    write!(f, " by {}", commit.get(..12).unwrap_or(commit))?;
                }
                if let Cause::ChangedBelow { at } = &self.cause {
                    write!(f, " at `{at}`")?;
                }
                let more = self.differences.iter().skip(1);
                match more.filter(|d| d.topic <= Topic::Image).count() {
                    0 => Ok(()),
                    more => write!(f, ", and {more} more"),
                }
            }
        }
    }
}

impl Inquiry<'_> {
    /// Why the step is no hit.
    pub(super) fn miss(&self, id: VertexId, standing: Standing) -> Miss {
        let cause = match standing {
            Standing::Policy => Some(Cause::Policy),
            Standing::Unforeseen => Some(Cause::Unforeseen),
            Standing::Refused { tier, why } => Some(Cause::Refused { tier, why }),
            Standing::Lost => Some(Cause::Lost),
            Standing::OtherParent => Some(Cause::OtherParent),
            Standing::Nothing => {
                let mut others = self.history.under(self.keys.key(id));
                let foreign = |entry: &&ActionResult| !self.scopes.scopes().contains(&entry.scope);
                others.find(foreign).map(|entry| Cause::OutOfScope {
                    scope: entry.scope.clone(),
                })
            }
        };
        if let Some(cause) = cause {
            return Miss::bare(cause);
        }
        let listed = selections(self.graph, self.contexts, id);
        let near =
            self.history
                .nearest(self.store, self.graph, self.keys, self.scopes, &listed, id);
        match near {
            Some((entry, note)) => self.compared(id, entry, note.as_ref(), &listed),
            None => Miss::bare(Cause::NoEntry),
        }
    }

    /// How the step differs from an entry, with everything that can be said about it.
    pub(super) fn compare_with(&self, id: VertexId, entry: &ActionResult) -> Miss {
        let note = StepNote::of(self.store, entry);
        let listed = selections(self.graph, self.contexts, id);
        self.compared(id, entry, note.as_ref(), &listed)
    }

    fn compared(
        &self,
        id: VertexId,
        entry: &ActionResult,
        note: Option<&StepNote>,
        listed: &[Selected],
    ) -> Miss {
        let (own, below) = self.differences(id, entry, note, listed);
        let (mut follows, mut cause) = (None, None);
        let mut differences = own;
        let has_own = !differences.is_empty();
        for (input, changed) in below {
            match changed {
                Below::Missed(step) => {
                    follows = follows.or(Some(step));
                    let name = Some(self.graph.vertex(step).name.clone());
                    differences.push(Difference {
                        old: None,
                        new: name,
                        ..input
                    });
                }
                Below::Changed(at, more) => {
                    differences.extend(more);
                    cause = cause.or(at.map(|at| Cause::ChangedBelow { at }));
                }
            }
        }
        let cause = match (has_own, follows, cause) {
            (false, Some(step), _) => Cause::Follows {
                step,
                name: self.graph.vertex(step).name.clone(),
            },
            (false, None, Some(below)) => below,
            _ => Cause::Changed,
        };
        Miss {
            cause,
            differences,
            nearest: Some(Box::new(entry.clone())),
        }
    }

    /// The differences of the step's own, and what has changed below it.
    fn differences(
        &self,
        id: VertexId,
        entry: &ActionResult,
        note: Option<&StepNote>,
        listed: &[Selected],
    ) -> (Vec<Difference>, Vec<(Difference, Below)>) {
        let diff = KeyDiff::between(&old_parts(entry, note), self.keys.recipe_of(id));
        let (mut own, mut below) = (Vec::new(), Vec::new());
        for difference in diff.differences {
            let (old, new) = (difference.old.as_deref(), difference.new.as_deref());
            match difference.topic {
                Topic::Files => own.extend(self.files(difference, note, listed)),
                Topic::Parent | Topic::Input => {
                    let inputs = inputs(self.graph, &self.graph.vertex(id).op);
                    let input = inputs.iter().find(|(part, _)| *part == difference.part);
                    match (input, old, new) {
                        (Some((_, input)), Some(old), Some(_)) => {
                            let changed = self.below(*input, old, note, &difference);
                            below.push((difference, changed));
                        }
                        _ => own.push(difference),
                    }
                }
                _ => own.push(difference),
            }
        }
        // Both follow from the base image and the position, where these are others.
        let stands_elsewhere = below.iter().any(|(input, _)| input.topic == Topic::Parent);
        own.retain(|difference| match difference.topic {
            Topic::Epoch | Topic::Time => !stands_elsewhere,
            _ => true,
        });
        if own.len() > 1 {
            own.retain(|difference| difference.topic != Topic::Time);
        }
        own.sort_by_key(|difference| difference.topic);
        (own, below)
    }

    /// What is behind another key of an input.
    fn below(
        &self,
        input: VertexId,
        old: &str,
        note: Option<&StepNote>,
        difference: &Difference,
    ) -> Below {
        let vertex = self.graph.vertex(input);
        if vertex.op.is_step() && self.missed.contains(&input) {
            return Below::Missed(input);
        }
        let known = note.and_then(|note| note.input(old));
        let says = |topic, item: Option<&str>, old: Option<String>, new| {
            let item = item.map(str::to_owned);
            Difference::new(&difference.part, topic, item, old, Some(new))
        };
        if let Op::Image(image) = &vertex.op {
            let before = known.and_then(|input| input.image.as_ref());
            let changed = match (before, known) {
                (Some(before), _) if before.reference == image.reference => says(
                    Topic::Image,
                    Some(&image.reference),
                    Some(before.manifest.to_string()),
                    image.manifest.to_string(),
                ),
                (Some(before), _) => says(
                    Topic::Image,
                    None,
                    Some(before.reference.clone()),
                    image.reference.clone(),
                ),
                (None, Some(other)) => says(
                    difference.topic,
                    difference.item.as_deref(),
                    Some(other.name.clone()),
                    vertex.name.clone(),
                ),
                (None, None) => says(
                    Topic::Image,
                    Some(&image.reference),
                    None,
                    image.manifest.to_string(),
                ),
            };
            return Below::Changed(None, vec![changed]);
        }
        let name = || match known {
            Some(input) => input.name.clone(),
            None => old.to_owned(),
        };
        let other = |name| {
            let item = difference.item.as_deref();
            let changed = says(difference.topic, item, Some(name), vertex.name.clone());
            Below::Changed(None, vec![changed])
        };
        let entry = old.parse::<CacheKey>().ok();
        let entry = entry.and_then(|key| self.history.under(key).next());
        let Some(entry) = entry.filter(|entry| is_same_step(entry, &vertex.name)) else {
            return other(name());
        };
        let note = StepNote::of(self.store, entry);
        let listed = selections(self.graph, self.contexts, input);
        let (mut own, below) = self.differences(input, entry, note.as_ref(), &listed);
        if own.is_empty() {
            return match below.into_iter().next() {
                Some((_, Below::Changed(None, more))) => {
                    Below::Changed(Some(vertex.name.clone()), more)
                }
                Some((_, deeper)) => deeper,
                None => other(entry.step.name.clone()),
            };
        }
        own.truncate(1);
        Below::Changed(Some(vertex.name.clone()), own)
    }

    /// The files in which a selection differs.
    fn files(
        &self,
        difference: Difference,
        note: Option<&StepNote>,
        listed: &[Selected],
    ) -> Vec<Difference> {
        let known = note.and_then(|note| note.files.get(&difference.part));
        let selected = listed.iter().find(|s| s.part == difference.part);
        let (Some(known), Some(selected)) = (known, selected) else {
            return vec![difference];
        };
        let Some(old) = note::listing(self.store, known.listing) else {
            return vec![difference];
        };
        let changes = old.changes(&selected.listing);
        let context = &self.graph.contexts[selected.context];
        let old_ignore = Ignore::parse(&known.ignore).ok();
        let on_disk = |path: &str| match self.contexts.get(&selected.context) {
            Some(Source {
                contents: Contents::Directory(dir),
                ..
            }) => fs::exists(dir.join(path)),
            _ => false,
        };
        let by_ignore = |change: FileChange, path: &str| match change {
            FileChange::Removed => on_disk(path),
            FileChange::Added => {
                let ignore = old_ignore.as_ref();
                ignore.is_some_and(|ignore| ignore.is_ignored(Path::new(path)))
            }
            _ => false,
        };
        let mut differences = Vec::new();
        let ignored = |file: &ChangedFile| by_ignore(file.change, &file.path);
        if known.ignore != context.ignore && changes.iter().any(ignored) {
            let (old, new) = (Some(known.ignore.clone()), Some(context.ignore.clone()));
            let part = &difference.part;
            differences.push(Difference::new(part, Topic::Ignore, None, old, new));
        }
        for file in changes {
            let mut changed = Difference::of_file(&difference.part, file);
            if let (Some(commit_of), Some(path)) = (self.commit_of, &changed.item) {
                changed.commit = commit_of(&context.dir, path);
            }
            differences.push(changed);
        }
        match differences.is_empty() {
            // The same paths by other names.
            true => vec![difference],
            false => differences,
        }
    }
}

/// What has changed below a step.
enum Below {
    /// This step is no hit.
    Missed(VertexId),
    /// Something else: at a step that is a hit, by its name, or at the input itself.
    Changed(Option<String>, Vec<Difference>),
}

/// Whether an entry is of the step with this name, of another version of the Dockerfile perhaps.
fn is_same_step(entry: &ActionResult, name: &str) -> bool {
    let text = |name: &str| name.split_once("] ").map(|(_, text)| text.to_owned());
    let (new, old) = (Place::of(name), Place::of(&entry.step.name));
    text(name) == text(&entry.step.name) || (new.is_some() && new == old)
}
