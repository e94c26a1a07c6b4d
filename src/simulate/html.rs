//! The report as one page: nothing is loaded from anywhere, nothing is executed.

use std::fmt::Write as _;

use super::history::{History, PlayedCommit, TargetHistory, percent};
use crate::{plan::Decision, ui};

/// Invalidations that are shown.
const MOST: usize = 30;

const STYLE: &str = "
:root{color-scheme:light dark;--fg:#1b1f24;--bg:#fff;--dim:#59636e;--line:#d1d9e0;--hit:#1a7f37;--run:#bc4c00;--soft:#f6f8fa}
@media(prefers-color-scheme:dark){:root{--fg:#e6edf3;--bg:#0d1117;--dim:#9198a1;--line:#3d444d;--hit:#3fb950;--run:#f0883e;--soft:#151b23}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1rem;max-width:70rem;font:16px/1.5 system-ui,sans-serif;color:var(--fg);background:var(--bg)}
h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}
code,.id{font-family:ui-monospace,monospace;font-size:.9em;overflow-wrap:anywhere}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(9rem,1fr));gap:.75rem}
.card{background:var(--soft);border:1px solid var(--line);border-radius:.5rem;padding:.75rem}
.card b{display:block;font-size:1.4rem}.dim{color:var(--dim)}
.wide{overflow-x:auto}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:.3rem .6rem .3rem 0;border-bottom:1px solid var(--line);vertical-align:top}
td.n,th.n{text-align:right;white-space:nowrap}
.bar{display:block;width:8rem;max-width:30vw;height:.6rem;background:var(--run);border-radius:.3rem;overflow:hidden}
.bar i{display:block;height:100%;background:var(--hit)}
li{margin-bottom:.8rem;overflow-wrap:anywhere}
.run{color:var(--run);font-weight:600}.hit{color:var(--hit)}
";

/// The report as an HTML page.
pub fn page(history: &History) -> String {
    let mut html =
        String::from("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n");
    html.push_str("<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n");
    html.push_str("<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n");
    let _ = writeln!(
        html,
        "<title>What CI would have rebuilt</title><style>{STYLE}</style></head><body>"
    );
    let _ = writeln!(
        html,
        "<h1>What CI would have rebuilt</h1>\n<p class=\"dim\">{} back from <span class=\"id\">{}</span>, along first parents</p>",
        count(history.totals.commits, "commit"),
        escaped(short(&history.head)),
    );
    cards(&mut html, history);
    targets(&mut html, &history.targets);
    invalidations(&mut html, history);
    commits(&mut html, &history.commits);
    html.push_str("</body></html>\n");
    html
}

fn cards(html: &mut String, history: &History) {
    let totals = &history.totals;
    let amount = &totals.amount;
    html.push_str("<div class=\"cards\">\n");
    let mut card = |value: String, what: String| {
        let _ = writeln!(
            html,
            "<div class=\"card\"><b>{}</b><span class=\"dim\">{}</span></div>",
            escaped(&value),
            escaped(&what)
        );
    };
    card(
        format!("{:.1} %", percent(totals.nothing, totals.commits)),
        "of the commits need nothing".to_owned(),
    );
    card(
        format!("{:.1} %", amount.hit_percent()),
        format!("of {} are hits", count(amount.steps, "step")),
    );
    if let Some(bytes) = amount.byte_percent() {
        let what = format!("of {} of layers are hits", ui::bytes(amount.bytes));
        card(format!("{bytes:.1} %"), what);
    }
    if amount.known > 0 {
        let without = ui::millis(amount.ms);
        let share = percent(amount.known, amount.steps);
        card(
            ui::millis(amount.ran_ms),
            format!("of steps; {without} without a cache (known of {share:.0} % of the steps)"),
        );
    }
    if totals.unreadable > 0 {
        card(
            totals.unreadable.to_string(),
            "commits could not be read".to_owned(),
        );
    }
    html.push_str("</div>\n");
}

fn targets(html: &mut String, targets: &[TargetHistory]) {
    html.push_str("<h2>Targets</h2>\n<div class=\"wide\"><table><tr><th>target</th><th class=\"n\">built</th><th class=\"n\">reused</th><th class=\"n\">unchanged</th><th class=\"n\">hits</th><th></th></tr>\n");
    for target in targets {
        let hits = target.amount.hit_percent();
        let _ = writeln!(
            html,
            "<tr><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{hits:.1} %</td><td><span class=\"bar\"><i style=\"width:{hits:.1}%\"></i></span></td></tr>",
            escaped(&target.name),
            target.builds,
            target.reuses,
            target.skips,
        );
    }
    html.push_str("</table></div>\n");
}

fn invalidations(html: &mut String, history: &History) {
    html.push_str("<h2>What made steps run</h2>\n");
    if history.invalidations.is_empty() {
        html.push_str("<p>Nothing did.</p>\n");
        return;
    }
    html.push_str("<ol>\n");
    for found in history.invalidations.iter().take(MOST) {
        let time = match found.ms {
            0 => String::new(),
            ms => format!(", {}", ui::millis(ms)),
        };
        let _ = writeln!(
            html,
            "<li>{} <span class=\"dim\">({}{time})</span><br><span class=\"dim\">fix:</span> {}</li>",
            code(&found.sentence),
            count(found.steps, "step"),
            code(&found.fix),
        );
    }
    html.push_str("</ol>\n");
    let more = history.invalidations.len().saturating_sub(MOST);
    if more > 0 {
        let _ = writeln!(html, "<p class=\"dim\">and {more} more</p>");
    }
}

fn commits(html: &mut String, commits: &[PlayedCommit]) {
    html.push_str("<h2>Commits</h2>\n<div class=\"wide\"><table><tr><th>commit</th><th>built</th><th class=\"n\">steps run</th><th>subject</th></tr>\n");
    for commit in commits {
        let built = match (&commit.error, commit.built()) {
            (Some(error), _) => format!("<span class=\"dim\">{}</span>", escaped(error)),
            (None, built) if built.is_empty() => "<span class=\"hit\">nothing</span>".to_owned(),
            (None, built) => format!("<span class=\"run\">{}</span>", escaped(&built.join(", "))),
        };
        let why: Vec<String> = commit
            .targets
            .iter()
            .filter(|target| target.decision == Decision::Build)
            .map(|target| format!("{}: {}", target.name, target.detail))
            .collect();
        let _ = writeln!(
            html,
            "<tr title=\"{}\"><td class=\"id\">{}</td><td>{built}</td><td class=\"n\">{}/{}</td><td>{}</td></tr>",
            escaped(&why.join("\n")),
            escaped(short(&commit.commit)),
            commit.amount.ran,
            commit.amount.steps,
            escaped(&commit.subject),
        );
    }
    html.push_str("</table></div>\n");
}

fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

fn count(n: usize, what: &str) -> String {
    match n {
        1 => format!("1 {what}"),
        n => format!("{n} {what}s"),
    }
}

/// The text with what stands between backticks as code.
fn code(text: &str) -> String {
    let mut html = String::new();
    for (n, part) in text.split('`').enumerate() {
        match n % 2 {
            0 => html.push_str(&escaped(part)),
            _ => {
                let _ = write!(html, "<code>{}</code>", escaped(part));
            }
        }
    }
    html
}

/// The text as a page may have it: no markup, no control characters.
fn escaped(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            '\n' => html.push('\n'),
            c if c.is_control() => html.push('\u{fffd}'),
            c => html.push(c),
        }
    }
    html
}
