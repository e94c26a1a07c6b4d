//! The answer as JSON, version 1: fields are only ever added.

use serde_json::{Value, json};

use super::Page;
use crate::{
    cache::ActionResult,
    cli::CliError,
    engine::explain::{Cause, Miss, Outlook, Verdict},
    event::BuildEvent,
};

/// Version of the form.
const SCHEMA_VERSION: u32 = 1;

impl Page<'_> {
    pub(super) fn json(&self, warnings: &[BuildEvent]) -> Result<String, CliError> {
        let steps: Vec<Value> = self.asked.steps.iter().map(|o| self.step_json(o)).collect();
        let warnings: Vec<&str> = warnings
            .iter()
            .filter_map(|event| match event {
                BuildEvent::Warning { message, .. } => Some(message.as_str()),
                _ => None,
            })
            .collect();
        let mut page = json!({
            "schema_version": SCHEMA_VERSION,
            "first_cause": self.first_cause().map(|outlook| self.step_json(outlook)),
            "steps": steps,
            "remote_caches": self.told.tiers,
            "warnings": warnings,
        });
        if let Some(entry) = self.asked.entry {
            page["entry"] = self.entry_json(entry);
            if let Some(now) = self.asked.steps.first() {
                let miss = self.told.forecast.compare(now.id, entry, None);
                page["differences"] = json!(miss.redacted(&self.told.redactor).differences);
            }
        }
        Ok(format!("{}\n", serde_json::to_string_pretty(&page)?))
    }

    fn step_json(&self, outlook: &Outlook) -> Value {
        let vertex = self.told.forecast.graph.vertex(outlook.id);
        let mut step = json!({
            "step": outlook.id.0,
            "name": vertex.name,
            "instruction": vertex.instruction,
            "target": *vertex.target,
            "stage": *vertex.stage,
            "platform": vertex.platform.to_string(),
            "key": outlook.key,
        });
        if let Some(location) = &vertex.location {
            step["location"] = json!({"file": *location.file, "line": location.start});
        }
        match &outlook.verdict {
            Verdict::Skip => step["verdict"] = json!("skip"),
            Verdict::Hit {
                entry,
                tier,
                by_content,
                provided,
            } => {
                step["verdict"] = json!("hit");
                step["by"] = json!(match by_content {
                    Some(_) => "content",
                    None => "definition",
                });
                if let Some(miss) = by_content {
                    self.miss_json(&mut step, miss);
                }
                step["entry"] = self.entry_json(entry);
                if let Some(tier) = tier {
                    step["tier"] = json!(tier);
                }
                if let Some(id) = provided {
                    step["provided"] = json!(id.0);
                }
            }
            Verdict::Run(miss) => {
                step["verdict"] = json!("run");
                self.miss_json(&mut step, miss);
            }
        }
        step
    }

    fn miss_json(&self, step: &mut Value, miss: &Miss) {
        let miss = miss.clone().redacted(&self.told.redactor);
        step["cause"] = json!(miss.cause.name());
        step["why"] = json!(self.told.redactor.redact(&miss.to_string()));
        step["differences"] = json!(miss.differences);
        match &miss.cause {
            Cause::Follows { step: other, .. } => step["follows"] = json!(other.0),
            Cause::ChangedBelow { at } => step["at"] = json!(at),
            Cause::OutOfScope { scope } => step["scope"] = json!(scope),
            Cause::Refused { tier, why } => step["refused"] = json!({"tier": tier, "why": why}),
            _ => {}
        }
        if let Some(nearest) = &miss.nearest {
            step["nearest"] = self.entry_json(nearest);
        }
    }

    fn entry_json(&self, entry: &ActionResult) -> Value {
        json!({
            "key": entry.key,
            "kind": entry.kind,
            "step": entry.step,
            "scope": entry.scope,
            "producer": entry.producer,
            "created": entry.created,
            "duration_ms": entry.duration_ms,
            "signature": self.keyring.signature(entry).name(),
            "signed_by": entry.signature.as_ref().map(|signature| signature.key_id.clone()),
        })
    }
}
