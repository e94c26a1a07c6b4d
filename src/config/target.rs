//! Targets: a layer of a variant on a platform.

use std::{fmt, path::PathBuf, time::Duration};

use super::suggest;
use crate::oci::platform::Platform;

/// Name of the only variant of a configuration that has none.
pub const DEFAULT_VARIANT: &str = "default";

/// What identifies a target in one configuration.
///
/// `Display` gives `ml (cpu, linux/amd64)`, or `ml (linux/amd64)` for the default variant.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TargetName {
    /// The layer.
    pub layer: String,
    /// The variant; [`DEFAULT_VARIANT`] where the configuration has none.
    pub variant: String,
    /// The platform.
    pub platform: Platform,
}

impl fmt::Display for TargetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (", self.layer)?;
        if self.variant != DEFAULT_VARIANT {
            write!(f, "{}, ", self.variant)?;
        }
        write!(f, "{})", self.platform)
    }
}

/// One build: a Dockerfile with all that the configuration says about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetConfig {
    /// Which one.
    pub name: TargetName,
    /// Path of the Dockerfile.
    pub dockerfile: PathBuf,
    /// Path of the context directory.
    pub context: PathBuf,
    /// Build arguments, by name, each once.
    pub args: Vec<(String, String)>,
    /// The stage; none for the last.
    pub stage: Option<String>,
    /// The target whose result [`base_arg`](Self::base_arg) stands for.
    pub parent: Option<TargetName>,
    /// Name of the `ARG` before `FROM` that stands for the parent.
    pub base_arg: String,
    /// The age from which it is built anew; none for never.
    pub refresh: Option<Duration>,
    /// Tag of the image: `<layer>`, or `<variant>-<layer>` if there are variants. All
    /// platforms of a variant share it: together they are one image index.
    pub tag: String,
    /// Whether the selection names it; else a selected target is built on it.
    pub requested: bool,
}

/// Which targets of a configuration to build; an empty list means all.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Names of layers.
    pub layers: Vec<String>,
    /// Names of variants.
    pub variants: Vec<String>,
    /// Platforms.
    pub platforms: Vec<Platform>,
}

/// Why a selection selects nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectionError {
    /// No layer is called so.
    #[error("there is no layer `{name}`")]
    UnknownLayer {
        /// As asked for.
        name: String,
        /// What may help.
        hint: String,
    },
    /// No variant is called so.
    #[error("there is no variant `{name}`")]
    UnknownVariant {
        /// As asked for.
        name: String,
        /// What may help.
        hint: String,
    },
    /// None of the variants has the platform.
    #[error("no selected variant is built for `{platform}`")]
    UnknownPlatform {
        /// As asked for.
        platform: Platform,
        /// What may help.
        hint: String,
    },
}

impl SelectionError {
    /// What may help.
    pub fn hint(&self) -> &str {
        match self {
            Self::UnknownLayer { hint, .. }
            | Self::UnknownVariant { hint, .. }
            | Self::UnknownPlatform { hint, .. } => hint,
        }
    }
}

/// The targets of `all` that `selection` names and those they are built on. `all` is in
/// topological order, and so is the result.
pub(super) fn select(
    all: &[TargetConfig],
    selection: &Selection,
) -> Result<Vec<TargetConfig>, SelectionError> {
    check(all, selection)?;
    let mut needed: Vec<TargetName> = Vec::new();
    let mut selected = Vec::new();
    // Children come after their parents, so one pass from the end finds all parents.
    for target in all.iter().rev() {
        let requested = names(selection, &target.name);
        if requested || needed.contains(&target.name) {
            needed.extend(target.parent.clone());
            selected.push(TargetConfig {
                requested,
                ..target.clone()
            });
        }
    }
    selected.reverse();
    Ok(selected)
}

/// Whether `selection` names `target`.
fn names(selection: &Selection, target: &TargetName) -> bool {
    fn among<T: PartialEq>(list: &[T], value: &T) -> bool {
        list.is_empty() || list.contains(value)
    }
    among(&selection.layers, &target.layer)
        && among(&selection.variants, &target.variant)
        && among(&selection.platforms, &target.platform)
}

/// Whether each word of `selection` means something.
fn check(all: &[TargetConfig], selection: &Selection) -> Result<(), SelectionError> {
    let layers = distinct(all.iter().map(|t| t.name.layer.as_str()));
    for name in &selection.layers {
        if !layers.contains(&name.as_str()) {
            return Err(SelectionError::UnknownLayer {
                name: name.clone(),
                hint: suggest::key(name, &layers),
            });
        }
    }
    let variants = distinct(all.iter().map(|t| t.name.variant.as_str()));
    for name in &selection.variants {
        if !variants.contains(&name.as_str()) {
            return Err(SelectionError::UnknownVariant {
                name: name.clone(),
                hint: suggest::key(name, &variants),
            });
        }
    }
    let in_variants = Selection {
        platforms: Vec::new(),
        ..selection.clone()
    };
    let platforms = distinct(
        all.iter()
            .filter(|t| names(&in_variants, &t.name))
            .map(|t| &t.name.platform),
    );
    for platform in &selection.platforms {
        if !platforms.contains(&platform) {
            let known: Vec<String> = platforms.iter().map(ToString::to_string).collect();
            return Err(SelectionError::UnknownPlatform {
                platform: platform.clone(),
                hint: format!("built are {}", suggest::list(&known)),
            });
        }
    }
    Ok(())
}

/// The values of `items`, each once, in order.
fn distinct<T: PartialEq>(items: impl Iterator<Item = T>) -> Vec<T> {
    let mut seen = Vec::new();
    for item in items {
        if !seen.contains(&item) {
            seen.push(item);
        }
    }
    seen
}
