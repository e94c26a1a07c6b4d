//! Figures and foreign text, in a form for people.

use std::borrow::Cow;

/// `bytes` with a decimal unit: `512 B`, `33.6 MB`.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    // In tenths of the unit, rounded, without floating point.
    let mut scale = 1000u64;
    for unit in UNITS {
        let tenths = (u128::from(bytes) * 10 + u128::from(scale) / 2) / u128::from(scale);
        if tenths < 10_000 || unit == "PB" {
            return format!("{}.{} {unit}", tenths / 10, tenths % 10);
        }
        scale *= 1000;
    }
    unreachable!("the last unit takes all")
}

/// `ms` milliseconds: `0.312s`, `12.3s`, `3m 05s`, `2h 03m`.
pub fn millis(ms: u64) -> String {
    match ms {
        0..1_000 => format!("0.{ms:03}s"),
        1_000..60_000 => format!("{}.{}s", ms / 1000, ms % 1000 / 100),
        60_000..3_600_000 => format!("{}m {:02}s", ms / 60_000, ms % 60_000 / 1000),
        _ => format!("{}h {:02}m", ms / 3_600_000, ms % 3_600_000 / 60_000),
    }
}

/// `1 step`, `2 steps`.
pub(super) fn count(number: usize, noun: &str) -> String {
    match number {
        1 => format!("1 {noun}"),
        _ => format!("{number} {noun}s"),
    }
}

/// `text` as one line that no terminal acts on: escape sequences are taken out, a tab
/// is a space, any other control character (line ends too) and every character that
/// changes the direction of text becomes U+FFFD. After a carriage return that is not at
/// the end only the last part stays, as on a terminal.
pub fn harmless(text: &str) -> String {
    let text = text.trim_end_matches(['\r', '\n']);
    let shown = text.rsplit('\r').next().unwrap_or_default();
    let mut out = String::with_capacity(shown.len());
    let mut chars = shown.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => skip_escape(&mut chars),
            '\u{9b}' => skip_control_sequence(&mut chars),
            '\t' => out.push(' '),
            c if c.is_control() || redirects(c) => out.push(char::REPLACEMENT_CHARACTER),
            c => out.push(c),
        }
    }
    out
}

/// `line` without commands that a CI runner obeys anywhere in a line: GitHub's and Azure's
/// `##[…]`, `##vso[…]` and TeamCity's `##teamcity[…]` get a space between the hashes.
pub fn inert(line: &str) -> Cow<'_, str> {
    let mut out = String::new();
    let mut copied = 0;
    for (at, _) in line.match_indices('[') {
        let head = line[..at].trim_end_matches(|c: char| c.is_ascii_alphanumeric());
        if head.ends_with("##") {
            let hash = head.len() - 1;
            out.push_str(&line[copied..hash]);
            out.push(' ');
            copied = hash;
        }
    }
    match copied {
        0 => Cow::Borrowed(line),
        _ => Cow::Owned(out + &line[copied..]),
    }
}

/// Whether `c` reorders the text around it.
fn redirects(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}')
}

type Chars<'a> = std::iter::Peekable<std::str::Chars<'a>>;

/// Skips what follows an ESC (ECMA-48, section 5).
fn skip_escape(chars: &mut Chars<'_>) {
    match chars.next_if(|c| matches!(c, ' '..='~')) {
        Some('[') => skip_control_sequence(chars),
        // Operating system command and other strings: up to BEL or ESC \.
        Some(']' | 'P' | 'X' | '^' | '_') => {
            while let Some(c) = chars.next() {
                if c == '\u{7}' || c == '\u{9c}' {
                    break;
                }
                if c == '\u{1b}' {
                    chars.next_if_eq(&'\\');
                    break;
                }
            }
        }
        // Intermediate characters and one final one.
        Some(' '..='/') => {
            while chars.next_if(|c| matches!(c, ' '..='/')).is_some() {}
            chars.next_if(|c| matches!(c, '0'..='~'));
        }
        _ => {}
    }
}

/// Skips parameters, intermediate characters and the final one of a control sequence.
fn skip_control_sequence(chars: &mut Chars<'_>) {
    while chars.next_if(|c| matches!(c, ' '..='?')).is_some() {}
    chars.next_if(|c| matches!(c, '@'..='~'));
}

/// The first `width` characters of `text`, with `…` for what is missing.
pub(super) fn clip(text: &str, width: usize) -> String {
    match text.char_indices().nth(width) {
        None => text.to_owned(),
        Some(_) if width == 0 => String::new(),
        Some(_) => text.chars().take(width - 1).chain(['…']).collect(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn figures() {
        let sizes = [0, 999, 1000, 33_560_000, 999_960_000, u64::MAX].map(bytes);
        assert_eq!(
            sizes,
            ["0 B", "999 B", "1.0 kB", "33.6 MB", "1.0 GB", "18446.7 PB"]
        );
        let times = [0, 312, 12_399, 185_000, 7_380_000].map(millis);
        assert_eq!(times, ["0.000s", "0.312s", "12.3s", "3m 05s", "2h 03m"]);
    }

    #[test]
    fn escape_sequences_are_taken_out() {
        for (text, shown) in [
            ("plain\ttext", "plain text"),
            ("\u{1b}[1;31mred\u{1b}[0m", "red"),
            ("\u{1b}]0;title\u{7}x", "x"),
            ("\u{1b}]8;;http://e\u{1b}\\link", "link"),
            ("\u{1b}(Bascii", "ascii"),
            ("\u{1b}", ""),
            ("10%\r20%\r30%", "30%"),
            ("done\r\n", "done"),
            ("a\nb\u{8}c\u{202e}d", "a\u{fffd}b\u{fffd}c\u{fffd}d"),
            ("\u{9b}31mred", "red"),
        ] {
            assert_eq!(harmless(text), shown, "{text:?}");
        }
    }

    #[test]
    fn commands_to_runners_are_inert() {
        for (line, shown) in [
            (
                "#1 0.1 ##[error]x ##vso[task.x]",
                "#1 0.1 # #[error]x # #vso[task.x]",
            ),
            ("###[a] ##teamcity[b", "## #[a] # #teamcity[b"),
            ("## a heading [x]", "## a heading [x]"),
        ] {
            assert_eq!(inert(line), shown);
        }
    }

    proptest! {
        #[test]
        fn nothing_that_a_terminal_acts_on_is_left(text: String) {
            prop_assert!(!harmless(&text).chars().any(char::is_control));
        }

        #[test]
        fn clipped_text_fits(text: String, width in 0usize..20) {
            prop_assert!(clip(&text, width).chars().count() <= width);
        }
    }
}
