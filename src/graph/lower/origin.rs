//! Whose files an instruction uses: stages, images, contexts.

use crate::{
    dockerfile::{Problem, Span},
    oci::{Platform, reference::Reference},
};

use super::{LowerError, NamedContext, plan::Plan};

/// Whose files an instruction uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    /// Nobody's: `scratch`.
    Scratch,
    /// A stage, by number.
    Stage(usize),
    /// An image for a platform: a key of the image table.
    Image(String, Platform),
    /// A layer target: a key of `LowerInput::parents`.
    Parent(String),
    /// A local directory: a position in `BuildGraph::contexts`.
    Local(usize),
}

impl Plan<'_> {
    /// What a reference means that isn't a stage's name.
    pub(super) fn image_origin(
        &self,
        keyword: &str,
        reference: &str,
        platform: &Platform,
        span: Span,
    ) -> Result<Origin, LowerError> {
        if self.input.parents.contains_key(reference) {
            return Ok(Origin::Parent(reference.to_owned()));
        }
        if reference == "scratch" {
            return Ok(Origin::Scratch);
        }
        let named = || {
            let normal = normal_reference(reference);
            let mut contexts = self.input.named_contexts.iter();
            contexts.find(|(name, _)| *name == reference || normal_reference(name) == normal)
        };
        if !self.input.named_contexts.is_empty()
            && let Some((_, context)) = named()
        {
            return Ok(named_origin(context, platform));
        }
        if !reference.contains("://")
            && let Err(error) = reference.parse::<Reference>()
        {
            let problem = Problem::ImageName {
                text: reference.to_owned(),
                reason: error.to_string(),
            };
            let hint = self.image_name_hint(keyword, reference);
            return Err(self.fail_with(span, problem, hint));
        }
        Ok(Origin::Image(reference.to_owned(), platform.clone()))
    }

    fn image_name_hint(&self, keyword: &str, reference: &str) -> Option<String> {
        let lower = reference.to_lowercase();
        if self.names.contains_key(lower.as_str()) {
            return Some(format!(
                "stages are called in lower case by {keyword}: `{lower}`"
            ));
        }
        let is_image = lower.parse::<Reference>().is_ok();
        is_image.then(|| format!("image names are in lower case: `{lower}`"))
    }

    /// The stage that `COPY --from=2` means, if it is written as a number.
    pub(super) fn stage_number(&self, name: &str, span: Span) -> Result<Option<usize>, LowerError> {
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_digit()) {
            return Ok(None);
        }
        let count = self.stages.len();
        let index = name.parse().unwrap_or(usize::MAX);
        if index < count {
            return Ok(Some(index));
        }
        let hint = match count {
            1 => "the only stage has the number 0".to_owned(),
            _ => format!("stages are numbered from 0 to {}", count - 1),
        };
        let problem = Problem::StageIndex { index };
        let span = self.find(span, &format!("--from={name}"));
        Err(self.fail_with(span, problem, Some(hint)))
    }

    /// What `--from=name` of a COPY or mount in stage number `stage` means. Mounts know
    /// stages by name only, as in BuildKit.
    pub(super) fn from(
        &self,
        stage: usize,
        keyword: &str,
        name: &str,
        span: Span,
    ) -> Result<Origin, LowerError> {
        let number = match keyword {
            "COPY --from" => self.stage_number(name, span)?,
            _ => None,
        };
        let index = number.or_else(|| {
            // Of several with one name the last one counts, even if it comes too late.
            self.names
                .get(name.to_lowercase().as_str())?
                .last()
                .copied()
        });
        match index {
            Some(index) if index < stage => Ok(Origin::Stage(index)),
            Some(index) => {
                let problem = Problem::ForwardReference {
                    keyword: keyword.to_owned(),
                    name: name.to_owned(),
                };
                let label = &*self.stages[index].label;
                let again = self.names.get(label).is_some_and(|n| n[0] < stage);
                let line = self.stages[index].stage.span.start;
                let hint = match index == stage {
                    true => "a stage can't read itself".to_owned(),
                    false if again => format!("line {line} gives the name again; change one"),
                    false => format!("move the stage of line {line} up"),
                };
                Err(self.fail_with(span, problem, Some(hint)))
            }
            None if name.parse::<usize>().is_ok_and(|n| n < self.stages.len())
                && !self.input.named_contexts.contains_key(name) =>
            {
                let problem = Problem::StageNumber {
                    keyword: keyword.to_owned(),
                    name: name.to_owned(),
                };
                let hint = "give the stage a name: `FROM … AS name`".to_owned();
                Err(self.fail_with(span, problem, Some(hint)))
            }
            None => self.image_origin(keyword, name, &self.input.platform, span),
        }
    }
}

pub(super) fn named_origin(context: &NamedContext, platform: &Platform) -> Origin {
    match context {
        NamedContext::Local(context) => Origin::Local(*context),
        NamedContext::Image(reference) => Origin::Image(reference.clone(), platform.clone()),
        NamedContext::Target(key) => Origin::Parent(key.clone()),
    }
}

/// A reference with registry, `library/` and tag, so that two spellings compare equal.
fn normal_reference(text: &str) -> String {
    let (host, rest) = match text.split_once('/') {
        Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => (host, rest),
        _ => ("docker.io", text),
    };
    let library = if host == "docker.io" && !rest.contains('/') {
        "library/"
    } else {
        ""
    };
    let tag = if rest.contains([':', '@']) {
        ""
    } else {
        ":latest"
    };
    format!("{host}/{library}{rest}{tag}")
}
