//! One line an event, for CI logs and files.
//!
//! Every line starts with a word of ours or with `#` and the number of the step, so a
//! step's output can never be read as a command to the CI runner that counts at the start
//! of a line (`::set-output`); [`inert`] takes care of those that count anywhere.

use std::{collections::HashMap, io::Write};

use super::{
    style::Style,
    summary::Summary,
    text::{bytes, count, harmless, inert, millis},
};
use crate::event::{BuildEvent, Outcome, StepId};

/// Milliseconds between two lines about the same transfer or progress.
const PROGRESS_INTERVAL: u64 = 5_000;

/// Writes lines.
pub(super) struct Plain {
    out: Box<dyn Write + Send>,
    style: Style,
    quiet: bool,
    /// Steps whose header line is written, with the time they started.
    started: HashMap<StepId, u64>,
    /// When each transfer or progress was last told.
    told: HashMap<String, u64>,
    summary: Summary,
}

impl Plain {
    /// `quiet`: only what is wrong.
    pub(super) fn new(out: Box<dyn Write + Send>, style: Style, quiet: bool) -> Self {
        Self {
            out,
            style,
            quiet,
            started: HashMap::new(),
            told: HashMap::new(),
            summary: Summary::default(),
        }
    }

    /// Takes one event.
    pub(super) fn event(&mut self, ms: u64, event: &BuildEvent) {
        self.summary.note(event);
        let lines = match event {
            BuildEvent::Warning { .. } | BuildEvent::StepFailed { .. } => self.trouble(ms, event),
            _ if self.quiet => return,
            _ => self.lines(ms, event),
        };
        for line in lines {
            // A log that nobody can take must not end the build.
            let _ = writeln!(self.out, "{}", inert(&line));
        }
        let _ = self.out.flush();
    }

    /// What is written also when quiet.
    fn trouble(&mut self, ms: u64, event: &BuildEvent) -> Vec<String> {
        match event {
            BuildEvent::Warning { message, hint } => warning(message, hint.as_deref(), self.style),
            BuildEvent::StepFailed {
                step,
                name,
                reason,
                ms: took,
            } => {
                let failed = self.style.bad("failed");
                let line = format!(
                    "#{} {failed} after {}: {}",
                    step.0,
                    millis(*took),
                    harmless(reason)
                );
                let mut lines = self.header(ms, *step, name);
                lines.push(line);
                lines
            }
            _ => Vec::new(),
        }
    }

    fn lines(&mut self, ms: u64, event: &BuildEvent) -> Vec<String> {
        match event {
            BuildEvent::Planned { steps, targets } => {
                let targets: Vec<String> = targets.iter().map(|t| harmless(t)).collect();
                vec![format!(
                    "building {}: {}",
                    targets.join(", "),
                    count(*steps, "step")
                )]
            }
            BuildEvent::RemoteCaches {
                caches,
                reads,
                saves,
                ..
            } => {
                let saves = match saves {
                    Some(scope) => format!("saves as {}", harmless(scope)),
                    None => "saves nothing".to_owned(),
                };
                vec![format!(
                    "remote cache: {}: reads {}; {saves}",
                    harmless(&caches.join(", ")),
                    harmless(&reads.join(", "))
                )]
            }
            BuildEvent::StepStarted {
                step, name, why, ..
            } => {
                let mut lines = self.header(ms, *step, name);
                let why = why.as_ref().map(|why| missed(why));
                lines.extend(why.map(|why| format!("#{} {why}", step.0)));
                lines
            }
            BuildEvent::StepLog { step, line, .. } => {
                let since = ms - self.started.get(step).copied().unwrap_or(0).min(ms);
                let line = harmless(line);
                let time = format!("{}.{:03}", since / 1000, since % 1000);
                vec![format!("#{} {} {line}", step.0, self.style.faint(&time))]
            }
            BuildEvent::StepProgress {
                step,
                what,
                current,
                total,
            } => {
                let what = format!("#{} {}", step.0, harmless(what));
                self.progress(ms, &what, *current, *total)
            }
            BuildEvent::StepFinished {
                step,
                name,
                outcome,
                ms: took,
                recorded_ms,
                tier,
                layer_bytes,
            } => {
                let mut lines = self.header(ms, *step, name);
                let mut end = finished(*outcome, *took, *recorded_ms, *layer_bytes, self.style);
                end += &from(tier.as_deref());
                lines.push(format!("#{} {end}", step.0));
                lines
            }
            BuildEvent::StepCancelled { step, name } => {
                let mut lines = self.header(ms, *step, name);
                lines.push(format!("#{} cancelled", step.0));
                lines
            }
            BuildEvent::Transfer {
                what,
                current,
                total,
            } => self.progress(ms, &harmless(what), *current, *total),
            BuildEvent::NotWorthSaving { .. } | BuildEvent::MountTooLarge { .. } => {
                not_saved(event).into_iter().collect()
            }
            BuildEvent::Finished { ok, totals } => self.summary.lines(*ok, totals, self.style),
            _ => Vec::new(),
        }
    }

    /// The line that names a step, once.
    fn header(&mut self, ms: u64, step: StepId, name: &str) -> Vec<String> {
        if self.started.contains_key(&step) {
            return Vec::new();
        }
        self.started.insert(step, ms);
        vec![format!("#{} {}", step.0, harmless(name))]
    }

    /// A line about bytes on their way: the first, the last, and now and then.
    fn progress(&mut self, ms: u64, what: &str, current: u64, total: Option<u64>) -> Vec<String> {
        let done = total == Some(current);
        let due = match self.told.get(what) {
            None => true,
            // A transfer that is done was told as such.
            Some(&u64::MAX) => false,
            Some(&last) => done || ms.saturating_sub(last) >= PROGRESS_INTERVAL,
        };
        if !due {
            return Vec::new();
        }
        let told = if done { u64::MAX } else { ms };
        self.told.insert(what.to_owned(), told);
        vec![match total {
            Some(total) if done => format!("{what} {}", bytes(total)),
            Some(total) => format!("{what} {} of {}", bytes(current), bytes(total)),
            None => format!("{what} {}", bytes(current)),
        }]
    }
}

/// Why a step is executed.
pub(super) fn missed(why: &str) -> String {
    format!("miss: {}", harmless(why))
}

/// How a step ended: `ran in 1.2s, layer 33.6 MB`, `hit, saved 12.3s`.
pub(super) fn finished(
    outcome: Outcome,
    ms: u64,
    recorded_ms: Option<u64>,
    layer_bytes: Option<u64>,
    style: Style,
) -> String {
    let mut text = match outcome {
        Outcome::Ran => format!("ran in {}", millis(ms)),
        Outcome::Hit => style.good("hit"),
        Outcome::ContentHit => format!("{} by content", style.good("hit")),
        Outcome::Resolved => "resolved".to_owned(),
    };
    if let (Outcome::Hit | Outcome::ContentHit, Some(saved)) = (outcome, recorded_ms) {
        text += &format!(", saved {}", millis(saved));
    }
    if let (Outcome::Ran, Some(size)) = (outcome, layer_bytes) {
        text += &format!(", layer {}", bytes(size));
    }
    text
}

/// Where a hit came from, if not from the local cache: `, from https://cache.example`.
pub(super) fn from(tier: Option<&str>) -> String {
    tier.map_or_else(String::new, |tier| format!(", from {}", harmless(tier)))
}

/// Why a result or the tree of a cache mount is not saved.
pub(super) fn not_saved(event: &BuildEvent) -> Option<String> {
    if let BuildEvent::MountTooLarge {
        id,
        bytes: size,
        limit,
    } = event
    {
        return Some(format!(
            "cache mount {} not saved: it has {}, `cache.mounts.max-size` is {}",
            harmless(id),
            bytes(*size),
            bytes(*limit)
        ));
    }
    not_worth_saving(event)
}

/// Why a result is not saved: `not saved to NAME: [1/2] COPY . /: bringing 1.2 GB there and back takes
/// about 52.1s, the step took 2.0s`.
fn not_worth_saving(event: &BuildEvent) -> Option<String> {
    let BuildEvent::NotWorthSaving {
        name,
        tier,
        bytes: size,
        step_ms,
        transfer_ms,
    } = event
    else {
        return None;
    };
    Some(format!(
        "not saved to {}: {}: bringing {} there and back takes about {}, the step took {}",
        harmless(tier),
        harmless(name),
        bytes(*size),
        millis(*transfer_ms),
        millis(*step_ms)
    ))
}

/// The lines of a warning.
pub(super) fn warning(message: &str, hint: Option<&str>, style: Style) -> Vec<String> {
    let mut lines = vec![format!(
        "{} {}",
        style.notable("warning:"),
        harmless(message)
    )];
    if let Some(hint) = hint {
        lines.push(format!("{} {}", style.help("hint:"), harmless(hint)));
    }
    lines
}
