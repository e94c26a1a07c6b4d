//! The end of a build: what was written, and how much work it took.

use super::{
    style::Style,
    text::{bytes, count, harmless, millis},
};
use crate::event::{BuildEvent, Totals};

/// Collects what the summary needs.
#[derive(Debug, Default)]
pub(super) struct Summary {
    images: Vec<[String; 5]>,
    saved: Option<String>,
    /// Number and bytes of the cache mounts that were restored.
    restored_mounts: (usize, u64),
    saved_mounts: Option<String>,
}

impl Summary {
    /// Takes one event.
    pub(super) fn note(&mut self, event: &BuildEvent) {
        match event {
            BuildEvent::Exported {
                target,
                dest,
                digest,
                layers,
                bytes: size,
            } => self.images.push([
                harmless(target),
                count(*layers, "layer"),
                bytes(*size),
                short(digest),
                harmless(dest),
            ]),
            BuildEvent::MountRestored { bytes: size, .. } => {
                self.restored_mounts.0 += 1;
                self.restored_mounts.1 += size;
            }
            BuildEvent::MountsSaved {
                mounts,
                bytes: size,
                new_bytes,
            } => {
                self.saved_mounts = Some(format!(
                    "saved {}, {} ({} new)",
                    count(*mounts, "cache mount"),
                    bytes(*size),
                    bytes(*new_bytes)
                ));
            }
            BuildEvent::Saved {
                results,
                bytes: size,
                new_bytes,
                left,
                ms,
                ..
            } => {
                let mut line = format!(
                    "saved {}, {} ({} new) in {}",
                    count(*results, "result"),
                    bytes(*size),
                    bytes(*new_bytes),
                    millis(*ms)
                );
                if *left > 0 {
                    line += &format!("; {} left to the next build", count(*left, "result"));
                }
                self.saved = Some(line);
            }
            _ => {}
        }
    }

    /// The lines of the summary.
    pub(super) fn lines(&self, ok: bool, totals: &Totals, style: Style) -> Vec<String> {
        let mut lines = self.table();
        lines.extend(self.saved.clone());
        if let (mounts @ 1.., size) = self.restored_mounts {
            let mounts = count(mounts, "cache mount");
            lines.push(format!("restored {mounts}, {}", bytes(size)));
        }
        lines.extend(self.saved_mounts.clone());
        let steps = totals.ran + totals.hits;
        let mut line = match ok {
            true => String::new(),
            false => format!("{}, ", style.bad("failed")),
        };
        let hits = count(totals.hits, "hit");
        line += &format!(
            "{}: {} ran, {} in {}",
            count(steps, "step"),
            totals.ran,
            style.good(&hits),
            millis(totals.wall_ms)
        );
        if totals.saved_ms > 0 {
            line += &format!(" (the cache saved {})", millis(totals.saved_ms));
        }
        line += &format!(
            "; {} fetched, {} written",
            bytes(totals.bytes_fetched),
            bytes(totals.bytes_written)
        );
        lines.push(line);
        lines
    }

    /// The images, one a line, in columns.
    fn table(&self) -> Vec<String> {
        let width = |column: usize| {
            let cells = self.images.iter().map(|row| row[column].chars().count());
            cells.max().unwrap_or(0)
        };
        let [target, layers, size, digest] = [0, 1, 2, 3].map(width);
        self.images
            .iter()
            .map(|[a, b, c, d, e]| {
                format!("{a:target$}  {b:layers$}  {c:>size$}  {d:digest$}  {e}")
            })
            .collect()
    }
}

/// The algorithm and 12 digits of `digest`.
fn short(digest: &str) -> String {
    let digest = harmless(digest);
    match digest.split_once(':') {
        Some((algorithm, hex)) => {
            format!("{algorithm}:{}", hex.chars().take(12).collect::<String>())
        }
        None => digest,
    }
}
