//! Stages that need each other.

use crate::dockerfile::{Problem, Span, ast::InstructionKind};

use super::{LowerError, plan::Plan};

impl Plan<'_> {
    /// No stage may need itself through others, not even one that isn't built.
    pub(super) fn check_cycles(&self) -> Result<(), LowerError> {
        let needs: Vec<Vec<(usize, Span)>> = (0..self.stages.len())
            .map(|index| self.stages_of(index))
            .collect();
        let forward = |(index, needs): (usize, &Vec<(usize, Span)>)| {
            needs.iter().any(|(needed, _)| *needed >= index)
        };
        // Needs that all point backwards can't make a circle.
        if !needs.iter().enumerate().any(forward) {
            return Ok(());
        }
        let left = left_over(&needs);
        let Some(first) = left.iter().position(|left| *left) else {
            return Ok(());
        };
        // Every stage that is left needs another one that is, so this walk comes back.
        let mut path: Vec<usize> = Vec::new();
        let mut at = first;
        while !path.contains(&at) {
            path.push(at);
            match needs[at].iter().find(|(needed, _)| left[*needed]) {
                Some((needed, _)) => at = *needed,
                None => return Ok(()),
            }
        }
        let start = path.iter().position(|stage| *stage == at).unwrap_or(0);
        let circle = &path[start..];
        let names: Vec<&str> = circle
            .iter()
            .chain([&at])
            .map(|index| &*self.stages[*index].label)
            .collect();
        let (_, span) = needs[at]
            .iter()
            .find(|(n, _)| left[*n])
            .unwrap_or(&needs[at][0]);
        let problem = Problem::Circle {
            stages: names.join("` → `"),
        };
        Err(self.fail(*span, problem))
    }

    /// The stages that a stage copies from or mounts, with the place; of several with one name
    /// the last. What it starts from always comes before it; BuildKit doesn't count it here.
    fn stages_of(&self, index: usize) -> Vec<(usize, Span)> {
        let planned = &self.stages[index];
        let mut needs = Vec::new();
        for instruction in &planned.stage.instructions {
            let span = instruction.span;
            let named = |name: &str| {
                self.names
                    .get(name.to_lowercase().as_str())?
                    .last()
                    .copied()
            };
            match &instruction.kind {
                InstructionKind::Copy(copy) => {
                    let number = |name: &String| {
                        let number = name.parse().ok();
                        number.filter(|n| *n < self.stages.len())
                    };
                    let from = copy.from.iter();
                    let stages = from.filter_map(|name| named(name).or_else(|| number(name)));
                    needs.extend(stages.map(|stage| (stage, span)));
                }
                InstructionKind::Run(run) => {
                    let from = run.mounts.iter().filter_map(|m| m.from());
                    needs.extend(from.filter_map(named).map(|stage| (stage, span)));
                }
                _ => {}
            }
        }
        needs
    }
}

/// Which stages remain when those that need nothing are taken away, again and again.
fn left_over(needs: &[Vec<(usize, Span)>]) -> Vec<bool> {
    let mut needed_by: Vec<Vec<usize>> = vec![Vec::new(); needs.len()];
    let mut open: Vec<usize> = Vec::new();
    for (index, needs) in needs.iter().enumerate() {
        open.push(needs.len());
        for (needed, _) in needs {
            needed_by[*needed].push(index);
        }
    }
    let mut left = vec![true; needs.len()];
    let mut free: Vec<usize> = (0..needs.len()).filter(|i| open[*i] == 0).collect();
    while let Some(index) = free.pop() {
        left[index] = false;
        for other in &needed_by[index] {
            open[*other] -= 1;
            if open[*other] == 0 {
                free.push(*other);
            }
        }
    }
    left
}
