//! What happened in a simulated job, and when.

use std::{
    fmt::Write as _,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    event::{BuildEvent, EventSink, Outcome},
    ui,
};

/// Several sinks as one.
pub(super) struct All(pub(super) Vec<Arc<dyn EventSink>>);

impl EventSink for All {
    fn event(&self, ms: u64, event: &BuildEvent) {
        for sink in &self.0 {
            sink.event(ms, event);
        }
    }
}

/// Keeps a line for each event that says how a job went on.
#[derive(Debug, Default)]
pub(super) struct Timeline(Mutex<Vec<(u64, String)>>);

impl Timeline {
    /// Adds a line of the simulation itself.
    pub(super) fn note(&self, ms: u64, line: String) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.push((ms, line));
    }

    /// The lines in the order of their times.
    pub(super) fn text(&self) -> String {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut lines = lines.clone();
        lines.sort_by_key(|(ms, _)| *ms);
        let mut text = String::new();
        for (ms, line) in lines {
            let _ = writeln!(
                text,
                "{:>8}  {}",
                ui::millis(ms),
                ui::inert(&ui::harmless(&line))
            );
        }
        text
    }
}

/// A job's events on the clock of the simulation.
pub(super) struct Clocked {
    pub(super) timeline: Arc<Timeline>,
    /// Milliseconds at which the events' own clock started.
    pub(super) offset: u64,
}

impl EventSink for Clocked {
    fn event(&self, ms: u64, event: &BuildEvent) {
        let line = match event {
            BuildEvent::Planned { steps, targets } => {
                format!("build    {steps} steps for {}", targets.join(", "))
            }
            BuildEvent::RemoteCaches { caches, .. } => {
                format!("caches   {}", caches.join(", "))
            }
            BuildEvent::StepFinished {
                name,
                outcome,
                ms,
                tier,
                ..
            } => {
                let how = match outcome {
                    Outcome::Ran => "ran ",
                    Outcome::Hit => "hit ",
                    Outcome::ContentHit => "same",
                    Outcome::Resolved => return,
                };
                let tier = tier.iter().map(|tier| format!(" from {tier}"));
                let tier: String = tier.collect();
                format!("step     {how} {name} ({}{tier})", ui::millis(*ms))
            }
            BuildEvent::StepFailed { name, reason, .. } => format!("failed   {name}: {reason}"),
            BuildEvent::Warning { message, .. } => format!("warning  {message}"),
            BuildEvent::Exported {
                target,
                dest,
                digest,
                ..
            } => format!("export   {target} to {dest} {digest}"),
            BuildEvent::Finished { ok, totals } => format!(
                "build    {}: {} ran, {} hits",
                if *ok { "done" } else { "failed" },
                totals.ran,
                totals.hits
            ),
            _ => return,
        };
        self.timeline.note(self.offset + ms, line);
    }
}
