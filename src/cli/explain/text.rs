//! The answer for people: a line for each step, and the first cause in full.

use std::fmt::Write as _;

use super::Page;
use crate::{
    cache::ActionResult,
    cli::cache::time,
    engine::explain::{Cause, Miss, Outlook, Verdict},
    key::Difference,
    ui::{harmless, millis},
};

/// Most differences that are told of one step.
const TOLD: usize = 20;

impl Page<'_> {
    pub(super) fn text(&self) -> String {
        let mut out = String::new();
        if let Some(entry) = self.asked.entry {
            self.entry_asked(&mut out, entry);
        } else if self.asked.closely {
            for (n, outlook) in self.asked.steps.iter().enumerate() {
                if n > 0 {
                    out.push('\n');
                }
                self.step(&mut out, outlook);
            }
        } else {
            for outlook in &self.asked.steps {
                line(&mut out, &self.summary(outlook));
            }
            match self.first_cause() {
                Some(first) => {
                    line(&mut out, "\nfirst cause:");
                    self.step(&mut out, first);
                }
                None => line(&mut out, "\nnothing would be executed"),
            }
        }
        out
    }

    fn name(&self, outlook: &Outlook) -> String {
        harmless(&self.told.forecast.graph.vertex(outlook.id).name)
    }

    /// `run   [2/4] COPY app.py /app: file …`.
    fn summary(&self, outlook: &Outlook) -> String {
        let name = self.name(outlook);
        match &outlook.verdict {
            Verdict::Hit { by_content, .. } => match by_content {
                Some(miss) => format!("hit   {name}, by content: {}", self.why(miss)),
                None => format!("hit   {name}"),
            },
            Verdict::Run(miss) => format!("run   {name}: {}", self.why(miss)),
            Verdict::Skip => format!("skip  {name}"),
        }
    }

    fn why(&self, miss: &Miss) -> String {
        let why = miss.clone().redacted(&self.told.redactor).to_string();
        harmless(&self.told.redactor.redact(&why))
    }

    /// Everything about one step.
    fn step(&self, out: &mut String, outlook: &Outlook) {
        let vertex = self.told.forecast.graph.vertex(outlook.id);
        line(out, &self.name(outlook));
        if let Some(location) = &vertex.location {
            field(out, "at", &format!("{}:{}", location.file, location.start));
        }
        field(
            out,
            "of",
            &format!("{} ({})", vertex.target, vertex.platform),
        );
        field(out, "key", &outlook.key.to_string());
        match &outlook.verdict {
            Verdict::Skip => field(out, "skip", "nobody needs it: what reads it is a hit"),
            Verdict::Hit {
                entry,
                tier,
                by_content,
                provided,
            } => {
                let from = match tier {
                    Some(tier) => format!("in `{tier}`"),
                    None => "in the local cache".to_owned(),
                };
                let by = match by_content {
                    Some(_) => "by what it reads and stands on: its key is new",
                    None => "by its key",
                };
                field(out, "hit", &format!("{from}, {by}"));
                if let Some(id) = provided {
                    let name = &self.told.forecast.graph.vertex(*id).name;
                    let condition = format!("`{}` gives what it gave before", harmless(name));
                    field(out, "if", &condition);
                }
                if let Some(miss) = by_content {
                    field(out, "new key", &self.why(miss));
                }
                self.entry(out, entry);
            }
            Verdict::Run(miss) => {
                field(out, "run", &self.why(miss));
                self.miss(out, miss);
                self.followers(out, outlook);
            }
        }
    }

    /// What a miss was compared with, and all differences.
    fn miss(&self, out: &mut String, miss: &Miss) {
        if matches!(miss.cause, Cause::NoEntry) && !self.told.tiers.is_empty() {
            let asked = self.told.tiers.join(", ");
            field(
                out,
                "asked",
                &format!(
                    "the local cache, and {asked}: by key, for they can't be searched by step"
                ),
            );
        }
        let miss = miss.clone().redacted(&self.told.redactor);
        let Some(nearest) = &miss.nearest else {
            return;
        };
        for difference in miss.differences.iter().take(TOLD) {
            field(out, "differs", &harmless(&told(difference)));
        }
        let more = miss.differences.len().saturating_sub(TOLD);
        if more > 0 {
            field(out, "", &format!("and {more} more"));
        }
        field(
            out,
            "from",
            &format!(
                "{} of `{}`, the nearest entry in the local cache",
                nearest.key,
                harmless(&nearest.step.name)
            ),
        );
        self.entry(out, nearest);
    }

    /// Who made an entry.
    fn entry(&self, out: &mut String, entry: &ActionResult) {
        let producer = &entry.producer;
        let mut made = vec![producer.tool.clone()];
        let known = [
            ("repository", &producer.repository),
            ("ref", &producer.git_ref),
            ("event", &producer.event),
            ("run", &producer.run),
        ];
        for (name, value) in known {
            made.extend(value.as_ref().map(|value| format!("{name} {value}")));
        }
        let made = format!(
            "{}, {}, took {}",
            made.join(", "),
            time(entry.created),
            millis(entry.duration_ms)
        );
        field(out, "made by", &harmless(&made));
        let signature = self.keyring.signature(entry).name();
        let signature = match &entry.signature {
            Some(by) => format!("signature {signature}: {}", by.key_id),
            None => format!("signature {signature}"),
        };
        let scope = format!("{}, {signature}", entry.scope);
        field(out, "scope", &harmless(&scope));
    }

    /// The steps that are executed only because this one is.
    fn followers(&self, out: &mut String, outlook: &Outlook) {
        let mut because = vec![outlook.id];
        let mut names = Vec::new();
        for other in &self.told.forecast.steps {
            if let Verdict::Run(miss) = &other.verdict
                && let Cause::Follows { step, .. } = &miss.cause
                && because.contains(step)
            {
                because.push(other.id);
                names.push(format!("`{}`", self.name(other)));
            }
        }
        if !names.is_empty() {
            field(out, "then", &format!("{} follow", names.join(", ")));
        }
    }

    /// An entry that no step has now.
    fn entry_asked(&self, out: &mut String, entry: &ActionResult) {
        line(out, &harmless(&entry.step.name));
        field(out, "key", &entry.key.to_string());
        field(out, "entry", "no step has this key now");
        self.entry(out, entry);
        for outlook in &self.asked.steps {
            out.push('\n');
            line(out, &format!("now: {}", self.name(outlook)));
            field(out, "key", &outlook.key.to_string());
            let miss = self.told.forecast.compare(outlook.id, entry, None);
            let miss = miss.redacted(&self.told.redactor);
            for difference in miss.differences.iter().take(TOLD) {
                field(out, "differs", &harmless(&told(difference)));
            }
        }
    }
}

/// A difference with what is said besides.
pub(super) fn told(difference: &Difference) -> String {
    let mut text = difference.to_string();
    if let Some(commit) = &difference.commit {
        let _ = write!(text, ", by commit {commit}");
    }
    text
}

fn line(out: &mut String, text: &str) {
    out.push_str(text);
    out.push('\n');
}

fn field(out: &mut String, name: &str, value: &str) {
    // Writing to a string has no way to fail.
    let _ = writeln!(out, "  {name:<8} {value}");
}
