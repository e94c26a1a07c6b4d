//! Secret values are kept out of logs.
//!
//! A [`Redactor`] knows the values that must not be shown and replaces them, and
//! their base64 and URL-encoded forms, by `***`. It works on lines: a secret that
//! spans lines is known line by line. One pass over a line is linear in its length
//! however many secrets there are.

use std::{borrow::Cow, collections::BTreeSet, fmt, sync::Arc};

use aho_corasick::AhoCorasick;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Shortest value in bytes that is redacted. Shorter ones would tear words apart and
/// be guessed from the gaps.
pub const MIN_SECRET: usize = 4;

/// What stands in a secret's place.
pub const MASK: &str = "***";

/// The value of a secret. It shows itself to nobody who prints it; serialised, which is how
/// it reaches the process that needs it, it is base64.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretBytes(Arc<[u8]>);

impl SecretBytes {
    /// The value.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for SecretBytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl Serialize for SecretBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64_STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for SecretBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match BASE64_STANDARD.decode(text) {
            Ok(bytes) => Ok(bytes.into()),
            Err(_) => Err(D::Error::custom("not base64")),
        }
    }
}

/// Replaces secret values in lines of text.
#[derive(Debug, Clone, Default)]
pub struct Redactor {
    hidden: Hidden,
}

/// What is hidden.
#[derive(Debug, Clone, Default)]
enum Hidden {
    #[default]
    Nothing,
    Matches(AhoCorasick),
    /// Whole lines: there are more secrets than a matcher has states for.
    Everything,
}

impl Redactor {
    /// A redactor for these values. Values shorter than [`MIN_SECRET`] bytes are
    /// ignored, as is white space around a value or a line of it.
    pub fn new<S: AsRef<str>>(secrets: impl IntoIterator<Item = S>) -> Self {
        let mut forms = BTreeSet::new();
        for secret in secrets {
            let secret = secret.as_ref();
            add_forms(&mut forms, secret);
            for line in secret.lines() {
                add_forms(&mut forms, line);
            }
        }
        let hidden = if forms.is_empty() {
            Hidden::Nothing
        } else {
            AhoCorasick::new(&forms).map_or(Hidden::Everything, Hidden::Matches)
        };
        Self { hidden }
    }

    /// Whether there is nothing to hide.
    pub fn is_empty(&self) -> bool {
        matches!(self.hidden, Hidden::Nothing)
    }

    /// Bytes of the longest text that is hidden.
    pub fn longest(&self) -> usize {
        match &self.hidden {
            Hidden::Nothing | Hidden::Everything => 0,
            Hidden::Matches(patterns) => patterns.max_pattern_len(),
        }
    }

    /// Where to cut a text that is too long, at `at` or before, so that no secret is divided.
    /// [`Redactor::longest`] bytes must follow `at`, else what crosses it can't be seen.
    pub fn cut(&self, text: &[u8], at: usize) -> usize {
        let Hidden::Matches(patterns) = &self.hidden else {
            return at;
        };
        let end = text.len().min(at + patterns.max_pattern_len());
        let mut found: Vec<(usize, usize)> = patterns
            .find_overlapping_iter(&text[..end])
            .map(|m| (m.start(), m.end()))
            .collect();
        found.sort_by_key(|(_, end)| std::cmp::Reverse(*end));
        let mut cut = at;
        for (start, end) in found {
            if start < cut && cut < end {
                cut = start;
            }
        }
        // Secrets that overlap all the way: any place is as good.
        if cut == 0 { at } else { cut }
    }

    /// `line` with every secret in it replaced by [`MASK`]. Secrets that overlap or
    /// touch become one mask.
    pub fn redact<'a>(&self, line: &'a str) -> Cow<'a, str> {
        let hidden = match &self.hidden {
            Hidden::Nothing => return Cow::Borrowed(line),
            Hidden::Matches(patterns) => hidden_ranges(patterns, line),
            Hidden::Everything => return Cow::Borrowed(MASK),
        };
        if hidden.is_empty() {
            return Cow::Borrowed(line);
        }
        let mut out = String::with_capacity(line.len());
        let mut shown = 0;
        for (start, end) in hidden {
            out.push_str(&line[shown..start]);
            out.push_str(MASK);
            shown = end;
        }
        out.push_str(&line[shown..]);
        Cow::Owned(out)
    }
}

/// The parts of `line` that hold secrets, in order, apart from each other.
fn hidden_ranges(patterns: &AhoCorasick, line: &str) -> Vec<(usize, usize)> {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    // Overlapping matches come in the order of their ends; a later one may start
    // before several earlier ones.
    for found in patterns.find_overlapping_iter(line) {
        let (mut start, end) = (found.start(), found.end());
        while let Some(last) = ranges.last().copied().filter(|last| last.1 >= start) {
            start = start.min(last.0);
            ranges.pop();
        }
        ranges.push((start, end));
    }
    ranges
}

/// Adds the forms in which a value may show.
fn add_forms(forms: &mut BTreeSet<String>, value: &str) {
    let value = value.trim();
    if value.len() < MIN_SECRET {
        return;
    }
    forms.insert(value.to_owned());
    for space in ["%20", "+"] {
        let encoded = percent_encode(value, space);
        forms.insert(lower_escapes(&encoded));
        forms.insert(encoded);
    }
    for alphabet in [STANDARD, URL_SAFE] {
        for offset in 0..3 {
            forms.extend(base64_core(value.as_bytes(), offset, alphabet));
        }
    }
}

/// Percent-encoding of everything but RFC 3986's unreserved characters, with `space`
/// for a space (`+` in `application/x-www-form-urlencoded`).
fn percent_encode(value: &str, space: &str) -> String {
    value
        .bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            b' ' => space.to_owned(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

/// The same with `%2f` for `%2F`, as some programs write it.
fn lower_escapes(encoded: &str) -> String {
    let mut digits = 0;
    encoded
        .chars()
        .map(|c| {
            if c == '%' {
                digits = 2;
                return c;
            }
            let in_escape = digits > 0;
            digits = i32::max(0, digits - 1);
            if in_escape { c.to_ascii_lowercase() } else { c }
        })
        .collect()
}

const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const URL_SAFE: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The base64 digits (RFC 4648) that depend on `bytes` alone when they stand `offset`
/// bytes (0 to 2) after a group's start in a longer text, such as `user:password`.
fn base64_core(bytes: &[u8], offset: usize, alphabet: &[u8; 64]) -> Option<String> {
    let bit = |at: usize| (bytes[at / 8] >> (7 - at % 8)) & 1;
    // Digits are 6 bits; the first whole one starts where 8 * offset + at is a
    // multiple of 6.
    let first = (6 - 8 * offset % 6) % 6;
    let digits: Vec<u8> = (first..)
        .step_by(6)
        .take_while(|at| at + 6 <= bytes.len() * 8)
        .map(|at| (at..at + 6).fold(0, |digit, at| digit << 1 | bit(at)))
        .map(|digit| alphabet[usize::from(digit)])
        .collect();
    String::from_utf8(digits)
        .ok()
        .filter(|text| text.len() >= MIN_SECRET)
}

/// `text` with the credentials of every URL in it masked: `https://user:***@host`. A user
/// alone is masked where it may be a token, as in `https://token@host`.
pub fn url_credentials(text: &str) -> Cow<'_, str> {
    let mut out = String::new();
    let mut shown = 0;
    for (at, _) in text.match_indices("://") {
        let start = at + 3;
        let rest = &text[start..];
        let end = rest
            .find(|c: char| c == '/' || c.is_whitespace() || "?#\"'`<>".contains(c))
            .unwrap_or(rest.len());
        let Some(length) = rest[..end].rfind('@') else {
            continue;
        };
        let is_web = text[..at].to_ascii_lowercase().ends_with("http")
            || text[..at].to_ascii_lowercase().ends_with("https");
        let hidden = match rest[..length].find(':') {
            Some(colon) => start + colon + 1,
            None if is_web => start,
            None => continue,
        };
        if hidden >= shown && hidden < start + length {
            out.push_str(&text[shown..hidden]);
            out.push_str(MASK);
            shown = start + length;
        }
    }
    if shown == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(&text[shown..]);
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_in_urls_are_masked() {
        for (text, shown) in [
            ("ADD https://u:p@h/a.tar /x", "ADD https://u:***@h/a.tar /x"),
            (
                "https://token@h and http://a:b@c@d/e",
                "https://***@h and http://a:***@d/e",
            ),
            ("ssh://git@h/x git@h:x", "ssh://git@h/x git@h:x"),
            ("ssh://git:pw@h/x", "ssh://git:***@h/x"),
            (
                "http://h/a@b http://h?x=a:b@c",
                "http://h/a@b http://h?x=a:b@c",
            ),
            ("https://:@h https://@h", "https://:@h https://@h"),
        ] {
            assert_eq!(url_credentials(text), shown);
        }
    }
    use proptest::prelude::*;

    #[test]
    fn secrets_are_masked_and_nothing_else() {
        let redactor = Redactor::new(["hunter22", "abc", "  padded\n"]);
        let redact = |line: &str| redactor.redact(line).into_owned();
        assert_eq!(redact("password hunter22!"), "password ***!");
        assert_eq!(redact("hunter22hunter22"), "***");
        assert_eq!(
            redact("abc stays, it is too short"),
            "abc stays, it is too short"
        );
        assert_eq!(redact("[padded]"), "[***]");
        assert!(matches!(redactor.redact("clean"), Cow::Borrowed("clean")));
        assert!(Redactor::new(["abc"]).is_empty());
    }

    #[test]
    fn a_secret_goes_over_a_wire_and_not_into_a_log() {
        let secret = SecretBytes::from(b"\xffhunter22".to_vec());
        assert_eq!(format!("{:?}", Some(&secret)), "Some(***)");
        let wire = serde_json::to_string(&secret).unwrap();
        let back: SecretBytes = serde_json::from_str(&wire).unwrap();
        assert_eq!(back.expose(), b"\xffhunter22");
        assert!(serde_json::from_str::<SecretBytes>("\"!\"").is_err());
    }

    #[test]
    fn overlapping_secrets_leave_no_rest() {
        let redactor = Redactor::new(["abcdef", "cdefgh", "bcdefghijk", "def1"]);
        assert_eq!(redactor.redact("xabcdefghy"), "x***y");
        assert_eq!(redactor.redact("xabcdefghijky"), "x***y");
        assert_eq!(redactor.redact("abcdef1"), "***");
    }

    #[test]
    fn encoded_forms_are_masked() {
        let redactor = Redactor::new(["s3cr3t pass/word"]);
        let redact = |line: &str| redactor.redact(line).into_owned();
        assert_eq!(redact("?k=s3cr3t%20pass%2Fword&"), "?k=***&");
        assert_eq!(redact("?k=s3cr3t+pass%2Fword&"), "?k=***&");
        assert_eq!(redact("?k=s3cr3t%20pass%2fword&"), "?k=***&");
        // printf 's3cr3t pass/word' | base64
        assert_eq!(redact("czNjcjN0IHBhc3Mvd29yZA=="), "***A==");
        // printf 'user:s3cr3t pass/word' | base64
        assert_eq!(
            redact("Basic dXNlcjpzM2NyM3QgcGFzcy93b3Jk."),
            "Basic dXNlcjp***."
        );
    }

    #[test]
    fn a_cut_divides_no_secret() {
        let redactor = Redactor::new(["hunter22", "22again"]);
        let cut = |text: &str, at| redactor.cut(text.as_bytes(), at);
        assert_eq!(cut("password hunter22 more", 5), 5);
        assert_eq!(cut("password hunter22 more", 9), 9);
        assert_eq!(cut("password hunter22 more", 12), 9);
        assert_eq!(cut("password hunter22again", 18), 9);
        assert_eq!(cut("hunter22", 4), 4);
        assert!(redactor.longest() >= "hunter22".len());
    }

    #[test]
    fn each_line_of_a_secret_is_one() {
        let redactor = Redactor::new(["-----BEGIN KEY-----\nMIIabc+/\nzz\n"]);
        assert_eq!(redactor.redact("> MIIabc+/"), "> ***");
        assert_eq!(redactor.redact("zz"), "zz");
    }

    proptest! {
        #[test]
        fn no_secret_survives(
            secrets in prop::collection::vec("[ab]{4,6}", 1..5),
            line in "[abc]{0,40}",
        ) {
            let redactor = Redactor::new(&secrets);
            let redacted = redactor.redact(&line);
            for secret in &secrets {
                prop_assert!(!redacted.contains(secret.as_str()));
            }
            // What is left is what was there, in order.
            let mut rest = line.as_str();
            for part in redacted.split(MASK) {
                let at = rest.find(part);
                prop_assert!(at.is_some());
                rest = &rest[at.unwrap() + part.len()..];
            }
        }
    }
}
