//! The `Range` header, as RFC 9110 section 14 has it, for one range of bytes.

use std::ops::Range;

use axum::http::HeaderValue;

/// What part of something is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ranged {
    /// All of it; also where the header is of a form that is not served.
    Whole,
    /// These bytes, at least one.
    Part(Range<u64>),
    /// None of its bytes.
    Outside,
}

/// Reads the header for something of `size` bytes.
pub(super) fn ranged(header: Option<&HeaderValue>, size: u64) -> Ranged {
    let text = header.and_then(|value| value.to_str().ok());
    let range = text.and_then(|text| text.trim().strip_prefix("bytes="));
    let Some((first, last)) = range.and_then(|range| range.trim().split_once('-')) else {
        return Ranged::Whole;
    };
    // Digits alone: `parse` would take a sign.
    let number = |text: &str| match text.bytes().all(|b| b.is_ascii_digit()) {
        true => text.parse::<u64>().ok(),
        false => None,
    };
    let span = match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => first..last.saturating_add(1).min(size),
        (Some(first), None) if last.is_empty() => first..size,
        (None, Some(count)) if first.is_empty() => size.saturating_sub(count)..size,
        _ => return Ranged::Whole,
    };
    match span.start < span.end {
        true => Ranged::Part(span),
        false => Ranged::Outside,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_or_ignored() {
        let read = |text: &'static str| ranged(Some(&HeaderValue::from_static(text)), 10);
        assert_eq!(ranged(None, 10), Ranged::Whole);
        assert_eq!(read("bytes=0-0"), Ranged::Part(0..1));
        assert_eq!(read("bytes=2-5"), Ranged::Part(2..6));
        assert_eq!(read("bytes=2-"), Ranged::Part(2..10));
        assert_eq!(read("bytes=-3"), Ranged::Part(7..10));
        assert_eq!(read("bytes=-30"), Ranged::Part(0..10));
        assert_eq!(read("bytes=5-18446744073709551615"), Ranged::Part(5..10));
        for outside in ["bytes=10-", "bytes=10-20", "bytes=-0"] {
            assert_eq!(read(outside), Ranged::Outside, "{outside}");
        }
        for ignored in [
            "bytes=5-2",
            "bytes=0-1,3-4",
            "bytes=-",
            "bytes=+1-2",
            "lines=1-2",
            "bytes=x-",
            "bytes=99999999999999999999-",
        ] {
            assert_eq!(read(ignored), Ranged::Whole, "{ignored}");
        }
    }
}
