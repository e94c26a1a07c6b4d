//! ONBUILD: what a stage's base wants done right after FROM.

use crate::dockerfile::{
    DockerfileError, Problem, Span,
    ast::{Instruction, InstructionKind},
    parse_trigger,
};

use super::{LowerError, origin::Origin, plan::Plan};

impl Plan<'_> {
    /// The triggers that a stage's base has for it. Those of a stage stand where its
    /// ONBUILD does, those of an image where FROM does. An image that isn't resolved yet has
    /// none.
    pub(super) fn triggers(&self, index: usize) -> Result<Vec<Instruction>, LowerError> {
        let planned = &self.stages[index];
        let span = planned.stage.span;
        let written: Vec<(&str, Span)> = match &planned.base {
            Origin::Stage(base) => self.stages[*base]
                .stage
                .instructions
                .iter()
                .filter_map(|i| match &i.kind {
                    InstructionKind::OnBuild(trigger) => Some((trigger.as_str(), i.span)),
                    _ => None,
                })
                .collect(),
            // What replaces a stage does so without its triggers, as in BuildKit.
            _ if planned.replaced => Vec::new(),
            Origin::Image(reference, platform) => {
                let key = (reference.clone(), platform.clone());
                let image = self.images.get(&key);
                at(span, image.and_then(|i| i.config.config.on_build.as_ref()))
            }
            Origin::Parent(name) => {
                // One that isn't built yet is asked again when it is.
                let parent = self.input.parents.get(name);
                let config = parent.map(|p| &p.target.config.config);
                at(span, config.and_then(|c| c.on_build.as_ref()))
            }
            Origin::Scratch | Origin::Local(_) => Vec::new(),
        };
        written
            .into_iter()
            .map(|(text, span)| self.trigger(text, span))
            .collect()
    }

    fn trigger(&self, text: &str, span: Span) -> Result<Instruction, LowerError> {
        let mut instruction = parse_trigger(text).map_err(|error| {
            let problem = Problem::Trigger {
                trigger: first_line(text).to_owned(),
                cause: error.problem,
            };
            self.fail_with(span, problem, error.hint)
        })?;
        instruction.span = span;
        instruction.text = format!("ONBUILD {}", instruction.text);
        Ok(instruction)
    }

    /// The error of a trigger says that it is one.
    pub(super) fn in_trigger(&self, trigger: &Instruction, error: LowerError) -> LowerError {
        let LowerError::Dockerfile(error) = error else {
            return error;
        };
        let problem = Problem::Trigger {
            trigger: trigger.text.trim_start_matches("ONBUILD ").to_owned(),
            cause: error.problem.clone(),
        };
        let source = &self.input.dockerfile.source;
        DockerfileError::new(source, trigger.span, problem)
            .with_hint(error.hint.clone())
            .into()
    }
}

fn at(span: Span, triggers: Option<&Vec<String>>) -> Vec<(&str, Span)> {
    let triggers = triggers.into_iter().flatten();
    triggers.map(|text| (text.as_str(), span)).collect()
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
