//! Durations (`7d`, `1h30m`) and sizes (`10GB`, `512MiB`) as people write them.

use std::time::Duration;

/// A text that is not a duration or not a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Not a duration.
    #[error("`{text}` is not a duration such as `30s`, `15m`, `12h`, `7d` or `2w`")]
    Duration {
        /// As written.
        text: String,
    },
    /// Not a size.
    #[error("`{text}` is not a size such as `500MB`, `10GB` or `10GiB`")]
    Size {
        /// As written.
        text: String,
    },
}

/// Seconds of each unit of a duration.
const DURATIONS: &[(&str, u64)] = &[
    ("s", 1),
    ("m", 60),
    ("h", 3600),
    ("d", 86_400),
    ("w", 604_800),
];

/// Bytes of each unit of a size: decimal, and binary with `i`.
const SIZES: &[(&str, u64)] = &[
    ("B", 1),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// The duration that `text` names: one or more whole numbers, each with a unit of
/// `s`, `m`, `h`, `d` (24 hours) or `w`. `0` needs no unit.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let error = || UnitError::Duration {
        text: text.to_owned(),
    };
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut seconds = 0u64;
    let mut rest = text;
    loop {
        let (number, after) = leading_number(rest).ok_or_else(error)?;
        let end = after
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(after.len());
        let (unit, next) = after.split_at(end);
        let (_, factor) = DURATIONS
            .iter()
            .find(|(u, _)| *u == unit)
            .ok_or_else(error)?;
        seconds = number
            .checked_mul(*factor)
            .and_then(|s| s.checked_add(seconds))
            .ok_or_else(error)?;
        if next.is_empty() {
            return Ok(Duration::from_secs(seconds));
        }
        rest = next;
    }
}

/// The bytes that `text` names: a whole number, alone or with a unit, whose letter
/// case does not matter. `10GB` is 10 × 10⁹ bytes, `10GiB` is 10 × 2³⁰.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    let error = || UnitError::Size {
        text: text.to_owned(),
    };
    let (number, unit) = leading_number(text).ok_or_else(error)?;
    let unit = unit.trim_start_matches(' ');
    if unit.is_empty() {
        return Ok(number);
    }
    SIZES
        .iter()
        .find(|(u, _)| u.eq_ignore_ascii_case(unit))
        .and_then(|(_, factor)| number.checked_mul(*factor))
        .ok_or_else(error)
}

/// The whole number at the start of `text`, and what follows it.
fn leading_number(text: &str) -> Option<(u64, &str)> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    Some((text[..end].parse().ok()?, &text[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, seconds) in [
            ("0", 0),
            ("30s", 30),
            ("15m", 900),
            ("7d", 604_800),
            ("2w", 1_209_600),
            ("1h30m", 5400),
        ] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_secs(seconds)),
                "{text}"
            );
        }
        for text in [
            "",
            "7",
            "d",
            "7 days",
            "-1d",
            "1.5h",
            "7D",
            "1h30",
            "99999999999999999w",
        ] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("123", 123),
            ("10GB", 10_000_000_000),
            ("10GiB", 10 << 30),
            ("512 mib", 512 << 20),
            ("1kB", 1000),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "GB", "10G", "-1GB", "1.5GB", "10GBs", "99999999999TB"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
