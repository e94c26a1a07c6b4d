//! Which paths a copy may take: asked where there is a path and no tree, to tell what a changed
//! file affects. Keys decide; this names.

use std::path::{Path, PathBuf};

use crate::{
    dockerfile::{
        ignore::{Ignore, clean},
        pattern::{self, Pattern},
    },
    graph::{CopyAction, LocalContext},
};

/// The paths that one copy may take of one context.
#[derive(Debug)]
pub struct Covered {
    dir: PathBuf,
    ignore: Option<Ignore>,
    exclude: Option<Ignore>,
    sources: Vec<Source>,
}

/// A source of a copy: everything at and below what the pattern matches.
#[derive(Debug)]
enum Source {
    /// All of the context.
    All,
    /// What the pattern of so many components matches.
    Pattern {
        components: usize,
        pattern: Option<Pattern>,
        text: String,
    },
}

impl Covered {
    /// The paths that `copy` may take of `context`.
    pub fn of(context: &LocalContext, copy: &CopyAction) -> Self {
        let exclude = (!copy.exclude.is_empty()).then(|| copy.exclude.join("\n"));
        Self {
            dir: context.dir.clone(),
            ignore: Ignore::parse(&context.ignore).ok(),
            exclude: exclude.and_then(|text| Ignore::parse(&text).ok()),
            sources: copy
                .sources
                .iter()
                .map(|text| Source::of(text, copy.parents))
                .collect(),
        }
    }

    /// Whether the copy takes anything at or below this absolute path, a file or a directory.
    pub fn meets(&self, path: &Path) -> bool {
        let Ok(place) = path.strip_prefix(&self.dir) else {
            return false;
        };
        // With exceptions, something below what is ignored may be seen.
        let hidden = self
            .ignore
            .as_ref()
            .is_some_and(|ignore| ignore.is_ignored(place) && !ignore.has_exceptions());
        !hidden
            && self
                .sources
                .iter()
                .any(|source| source.has(place) || source.is_below(place))
    }

    /// Whether the file at this absolute path is one of them, or would be if it were there.
    pub fn has(&self, path: &Path) -> bool {
        let Ok(path) = path.strip_prefix(&self.dir) else {
            return false;
        };
        let hides = |ignore: &Option<Ignore>| ignore.as_ref().is_some_and(|i| i.is_ignored(path));
        !hides(&self.ignore)
            && !hides(&self.exclude)
            && self.sources.iter().any(|source| source.has(path))
    }
}

impl Source {
    /// Whether what it names may lie below the directory `path`.
    fn is_below(&self, path: &Path) -> bool {
        let Self::Pattern {
            components,
            pattern,
            text,
        } = self
        else {
            return true;
        };
        // A pattern may match in any directory.
        path.components().count() < *components
            && (pattern.is_some() || Path::new(text).starts_with(path))
    }

    fn of(text: &str, parents: bool) -> Self {
        // Behind a pivot stands another kind of pattern: all below the pivot counts.
        let text = match text.split_once("/./") {
            Some((pivot, _)) if parents => pivot,
            _ => text,
        };
        let text = clean(text);
        let text = text.trim_start_matches('/');
        if text.is_empty() || text == "." || text.contains("**") || text.starts_with("..") {
            return Self::All;
        }
        Self::Pattern {
            components: text.split('/').count(),
            pattern: match pattern::is_pattern(text) {
                true => Pattern::new(text).ok(),
                false => None,
            },
            text: text.to_owned(),
        }
    }

    fn has(&self, path: &Path) -> bool {
        let Self::Pattern {
            components,
            pattern,
            text,
        } = self
        else {
            return true;
        };
        let start: PathBuf = path.components().take(*components).collect();
        if start.components().count() < *components {
            return false;
        }
        match pattern {
            Some(pattern) => pattern.matches(&start),
            None => start == Path::new(text),
        }
    }
}
