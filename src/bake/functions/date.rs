//! Times.

use std::collections::BTreeMap;

use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};

use super::{Args, Outcome, Outside};
use crate::bake::{convert, error::Problem, value::Value};

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];

pub(super) fn call(args: &Args<'_>, outside: &Outside) -> Option<Outcome> {
    Some(match args.name {
        "timestamp" => args.exactly().and_then(|[]| {
            let seconds = outside.now.duration_since(std::time::UNIX_EPOCH);
            let seconds = seconds.map_or(0, |d| d.as_secs());
            let now = unix(args, i64::try_from(seconds).unwrap_or(i64::MAX))?;
            Ok(Value::String(rfc3339(args, now)?))
        }),
        "formatdate" => args.texts().and_then(|[pattern, time]| {
            args.text(format_date(args, &pattern, parse(args, &time)?)?)
        }),
        "formattimestamp" => format_timestamp(args),
        "timeadd" => args.texts().and_then(|[time, duration]| {
            let time = parse(args, &time)?;
            let later = time.checked_add(self::duration(args, &duration)?);
            let later = later.ok_or_else(|| args.fail("the result is out of range"))?;
            Ok(Value::String(rfc3339(args, later)?))
        }),
        "unixtimestampparse" => args.exactly().and_then(|[seconds]| {
            let time = unix(args, args.int(seconds)?)?;
            parts(args, time)
        }),
        _ => return None,
    })
}

fn parse(args: &Args<'_>, text: &str) -> Result<OffsetDateTime, Problem> {
    OffsetDateTime::parse(text, &Rfc3339)
        .map_err(|_| args.fail(format!("`{text}` is not a time like 2026-01-31T12:00:00Z")))
}

fn unix(args: &Args<'_>, seconds: i64) -> Result<OffsetDateTime, Problem> {
    OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| args.fail("the time is out of range"))
}

fn rfc3339(args: &Args<'_>, time: OffsetDateTime) -> Result<String, Problem> {
    // Go writes no fraction here.
    let time = time.replace_nanosecond(0).unwrap_or(time);
    time.format(&Rfc3339)
        .map_err(|_| args.fail("the time is out of range"))
}

/// `formattimestamp(pattern, time)`: a time or seconds since 1970; `X` gives the latter.
fn format_timestamp(args: &Args<'_>) -> Outcome {
    let [pattern, time] = args.exactly()?;
    let pattern = convert::string(pattern)?;
    let time = match time {
        Value::Number(_) => unix(args, args.int(time)?)?,
        other => parse(args, &convert::string(other)?)?,
    };
    if pattern == "X" {
        return Ok(Value::String(time.unix_timestamp().to_string()));
    }
    args.text(format_date(args, &pattern, time)?)
}

/// Replaces runs of letters; what stands in single quotes is copied.
fn format_date(args: &Args<'_>, pattern: &str, time: OffsetDateTime) -> Result<String, Problem> {
    let mut out = String::new();
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '\'' {
            loop {
                match chars.next() {
                    Some('\'') if chars.next_if_eq(&'\'').is_some() => out.push('\''),
                    Some('\'') => break,
                    Some(c) => out.push(c),
                    None => return Err(args.fail("the pattern has a quote without an end")),
                }
            }
            continue;
        }
        if !c.is_ascii_alphabetic() {
            out.push(c);
            continue;
        }
        let mut verb = c.to_string();
        while chars.next_if_eq(&c).is_some() {
            verb.push(c);
        }
        out.push_str(
            &word(&verb, time)
                .ok_or_else(|| args.fail(format!("the pattern has an unknown verb `{verb}`")))?,
        );
    }
    Ok(out)
}

fn word(verb: &str, time: OffsetDateTime) -> Option<String> {
    let month = MONTHS[usize::from(u8::from(time.month())) - 1];
    let day = DAYS[usize::from(time.weekday().number_days_from_sunday())];
    let hour12 = match time.hour() % 12 {
        0 => 12,
        hour => hour,
    };
    let (hours, minutes, _) = time.offset().as_hms();
    let sign = if time.offset().is_negative() {
        '-'
    } else {
        '+'
    };
    let (hours, minutes) = (hours.unsigned_abs(), minutes.unsigned_abs());
    let is_utc = time.offset().is_utc();
    let afternoon = time.hour() >= 12;
    Some(match verb {
        "YY" => format!("{:02}", time.year().rem_euclid(100)),
        "YYYY" => format!("{:04}", time.year()),
        "M" => u8::from(time.month()).to_string(),
        "MM" => format!("{:02}", u8::from(time.month())),
        "MMM" => month[..3].to_owned(),
        "MMMM" => month.to_owned(),
        "D" => time.day().to_string(),
        "DD" => format!("{:02}", time.day()),
        "EEE" => day[..3].to_owned(),
        "EEEE" => day.to_owned(),
        "h" => time.hour().to_string(),
        "hh" => format!("{:02}", time.hour()),
        "H" => hour12.to_string(),
        "HH" => format!("{hour12:02}"),
        "AA" => if afternoon { "PM" } else { "AM" }.to_owned(),
        "aa" => if afternoon { "pm" } else { "am" }.to_owned(),
        "m" => time.minute().to_string(),
        "mm" => format!("{:02}", time.minute()),
        "s" => time.second().to_string(),
        "ss" => format!("{:02}", time.second()),
        "Z" if is_utc => "Z".to_owned(),
        "ZZZ" if is_utc => "UTC".to_owned(),
        "ZZZZ" | "ZZZ" => format!("{sign}{hours:02}{minutes:02}"),
        "ZZZZZ" | "Z" => format!("{sign}{hours:02}:{minutes:02}"),
        _ => return None,
    })
}

/// A duration as Go writes it: `1h30m`, `-2.5s`.
fn duration(args: &Args<'_>, text: &str) -> Result<Duration, Problem> {
    let wrong = || args.fail(format!("`{text}` is not a duration like `1h30m`"));
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest.is_empty() {
        return Err(wrong());
    }
    let mut total = 0.0;
    while !rest.is_empty() && rest != "0" {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(wrong)?;
        let value: f64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let unit = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        total += value
            * match &rest[..unit] {
                "ns" => 1e-9,
                "us" | "µs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return Err(wrong()),
            };
        rest = &rest[unit..];
    }
    Duration::checked_seconds_f64(if negative { -total } else { total }).ok_or_else(wrong)
}

/// The parts of a time.
fn parts(args: &Args<'_>, time: OffsetDateTime) -> Outcome {
    let month = usize::from(u8::from(time.month()));
    let weekday = usize::from(time.weekday().number_days_from_sunday());
    let (iso_year, iso_week, _) = time.to_iso_week_date();
    let numbers = [
        ("year", i128::from(time.year())),
        ("year_day", time.ordinal().into()),
        ("day", time.day().into()),
        ("month", month as i128),
        ("weekday", weekday as i128),
        ("hour", time.hour().into()),
        ("minute", time.minute().into()),
        ("second", time.second().into()),
        ("iso_year", iso_year.into()),
        ("iso_week", iso_week.into()),
    ];
    let mut out: BTreeMap<String, Value> = numbers
        .into_iter()
        .map(|(name, value)| (name.to_owned(), Value::int(value)))
        .collect();
    out.insert("month_name".to_owned(), Value::text(MONTHS[month - 1]));
    out.insert("weekday_name".to_owned(), Value::text(DAYS[weekday]));
    out.insert("rfc3339".to_owned(), Value::String(rfc3339(args, time)?));
    Ok(Value::Object(out))
}
