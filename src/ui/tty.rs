//! Bars on a terminal: running steps and transfers below, finished lines above.

use std::{collections::HashMap, io::Write, time::Duration};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{
    plain::{finished, from, missed, not_saved, warning},
    style::Style,
    summary::Summary,
    terminal::{Size, Terminal},
    text::{bytes, clip, harmless, millis},
};
use crate::event::{BuildEvent, Outcome, StepId};

/// Redraws each second at most.
const HERTZ: u8 = 10;

/// Draws bars.
pub(super) struct Tty {
    bars: MultiProgress,
    style: Style,
    size: Size,
    steps: HashMap<StepId, ProgressBar>,
    transfers: HashMap<String, ProgressBar>,
    summary: Summary,
}

impl Tty {
    /// Draws on `out`, a terminal of this size.
    pub(super) fn new(out: Box<dyn Write + Send>, style: Style, size: Size) -> Self {
        let terminal = Box::new(Terminal::new(out, size));
        let target = ProgressDrawTarget::term_like_with_hz(terminal, HERTZ);
        Self {
            bars: MultiProgress::with_draw_target(target),
            style,
            size,
            steps: HashMap::new(),
            transfers: HashMap::new(),
            summary: Summary::default(),
        }
    }

    /// Takes one event.
    pub(super) fn event(&mut self, event: &BuildEvent) {
        self.summary.note(event);
        match event {
            BuildEvent::StepStarted {
                step, name, why, ..
            } => {
                if let Some(why) = why {
                    self.say(&format!("{}: {}", harmless(name), missed(why)));
                }
                self.start(*step, name);
            }
            BuildEvent::StepLog { step, line, .. } => {
                if let Some(bar) = self.steps.get(step) {
                    bar.set_message(harmless(line));
                }
            }
            BuildEvent::StepProgress {
                step,
                what,
                current,
                total,
            } => {
                if let Some(bar) = self.steps.get(step) {
                    let amount = amount(*current, *total);
                    bar.set_message(format!("{} {amount}", harmless(what)));
                }
            }
            BuildEvent::StepFinished {
                step,
                name,
                outcome,
                ms,
                recorded_ms,
                tier,
                layer_bytes,
            } => {
                self.clear(*step);
                if *outcome != Outcome::Resolved {
                    let mut end = finished(*outcome, *ms, *recorded_ms, *layer_bytes, self.style);
                    end += &from(tier.as_deref());
                    self.say(&format!("{}: {end}", harmless(name)));
                }
            }
            BuildEvent::StepFailed {
                step,
                name,
                reason,
                ms,
            } => self.fail(*step, name, reason, *ms),
            BuildEvent::StepCancelled { step, name } => {
                self.clear(*step);
                self.say(&format!("{}: cancelled", harmless(name)));
            }
            BuildEvent::Transfer {
                what,
                current,
                total,
            } => self.transfer(what, *current, *total),
            BuildEvent::Warning { message, hint } => {
                for line in warning(message, hint.as_deref(), self.style) {
                    self.say(&line);
                }
            }
            BuildEvent::NotWorthSaving { .. } | BuildEvent::MountTooLarge { .. } => {
                if let Some(line) = not_saved(event) {
                    self.say(&line);
                }
            }
            BuildEvent::Finished { ok, totals } => {
                // Whatever was cut short must not stay as a bar.
                let steps = self.steps.drain().map(|(_, bar)| bar);
                for bar in steps.chain(self.transfers.drain().map(|(_, bar)| bar)) {
                    bar.finish_and_clear();
                }
                for line in self.summary.lines(*ok, totals, self.style) {
                    self.say(&line);
                }
            }
            _ => {}
        }
    }

    /// Writes a line that stays, above the bars.
    fn say(&self, line: &str) {
        // A terminal that is gone must not end the build.
        let _ = self.bars.println(line);
    }

    fn start(&mut self, step: StepId, name: &str) {
        if self.steps.contains_key(&step) {
            return;
        }
        let bar = self.bars.add(ProgressBar::new_spinner());
        bar.set_style(template("{prefix} {elapsed} {wide_msg}"));
        // Half of the line is left to the log.
        let width = usize::from((self.size)().0) / 2;
        bar.set_prefix(clip(&harmless(name), width));
        bar.enable_steady_tick(Duration::from_millis(500));
        self.steps.insert(step, bar);
    }

    /// Takes the bar of `step` away.
    fn clear(&mut self, step: StepId) {
        if let Some(bar) = self.steps.remove(&step) {
            bar.finish_and_clear();
            self.bars.remove(&bar);
        }
    }

    fn fail(&mut self, step: StepId, name: &str, reason: &str, ms: u64) {
        self.clear(step);
        let failed = self.style.bad("failed");
        self.say(&format!(
            "{}: {failed} after {}: {}",
            harmless(name),
            millis(ms),
            harmless(reason)
        ));
    }

    fn transfer(&mut self, what: &str, current: u64, total: Option<u64>) {
        if total == Some(current) {
            if let Some(bar) = self.transfers.remove(what) {
                bar.finish_and_clear();
                self.bars.remove(&bar);
            }
            return;
        }
        let bar = self.transfers.entry(what.to_owned()).or_insert_with(|| {
            let bar = self.bars.add(ProgressBar::new(total.unwrap_or(0)));
            bar.set_style(match total {
                Some(_) => template("{prefix} [{bar:20}] {msg}"),
                None => template("{prefix} {msg}"),
            });
            bar.set_prefix(harmless(what));
            bar
        });
        bar.set_message(amount(current, total));
        bar.set_position(current);
    }
}

/// `1.2 MB of 3.4 MB`.
fn amount(current: u64, total: Option<u64>) -> String {
    match total {
        Some(total) => format!("{} of {}", bytes(current), bytes(total)),
        None => bytes(current),
    }
}

/// The style with this template, which is one of ours.
fn template(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
