//! Texts.

use regex::Regex;

use super::{Args, Outcome, format};
use crate::bake::{
    convert,
    error::Problem,
    value::{Type, Value},
};

/// Size of a compiled pattern, in bytes.
const MAX_PATTERN: usize = 4 << 20;

pub(super) fn call(args: &Args<'_>) -> Option<Outcome> {
    Some(match args.name {
        "basename" => map(args, |t| base_name(&t)),
        "dirname" => map(args, |t| dir_name(&t)),
        "chomp" => map(args, |t| t.trim_end_matches(['\r', '\n']).to_owned()),
        "lower" => map(args, |t| {
            t.chars().map(|c| single(c, c.to_lowercase())).collect()
        }),
        "upper" => map(args, |t| {
            t.chars().map(|c| single(c, c.to_uppercase())).collect()
        }),
        "title" => map(args, |t| title(&t)),
        "reverse" => map(args, |t| t.chars().rev().collect()),
        "sanitize" => map(args, |t| sanitize(&t)),
        "trimspace" => map(args, |t| t.trim().to_owned()),
        "strlen" => args
            .texts()
            .map(|[t]: [String; 1]| Value::count(t.chars().count())),
        "trim" => args
            .texts()
            .map(|[text, set]| Value::text(text.trim_matches(|c| set.contains(c)))),
        "trimprefix" => args
            .texts()
            .map(|[text, part]| Value::text(text.strip_prefix(&part).unwrap_or(&text))),
        "trimsuffix" => args
            .texts()
            .map(|[text, part]| Value::text(text.strip_suffix(&part).unwrap_or(&text))),
        "replace" => args
            .texts()
            .and_then(|[text, from, to]| args.text(text.replace(&from, &to))),
        "indent" => indent(args),
        "join" => join(args),
        "split" => args
            .texts()
            .map(|[separator, text]| split(&separator, &text)),
        "substr" => substring(args),
        "regex" => regex(args),
        "regexall" => regex_all(args),
        "regex_replace" => args.texts().and_then(|[text, pattern, to]| {
            let pattern = compile(args, &pattern)?;
            args.text(pattern.replace_all(&text, to).into_owned())
        }),
        "format" => format::format(args),
        "formatlist" => format::format_list(args),
        _ => return None,
    })
}

fn map(args: &Args<'_>, f: impl Fn(String) -> String) -> Outcome {
    let [text] = args.texts()?;
    args.text(f(text))
}

/// The other case of `c`, if that is one character; Go knows no others.
fn single(c: char, mut other: impl Iterator<Item = char>) -> char {
    match (other.next(), other.next()) {
        (Some(one), None) => one,
        _ => c,
    }
}

/// The last element of a path, as Go's `path.Base`.
fn base_name(path: &str) -> String {
    if path.is_empty() {
        return ".".to_owned();
    }
    match path.trim_end_matches('/').rsplit('/').next() {
        Some("") | None => "/".to_owned(),
        Some(name) => name.to_owned(),
    }
}

/// All but the last element of a path, as Go's `path.Dir`.
fn dir_name(path: &str) -> String {
    let dir = path.rfind('/').map_or("", |at| &path[..=at]);
    clean(dir)
}

/// The shortest equal path, as Go's `path.Clean`.
pub(in crate::bake) fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    match (rooted, parts.is_empty()) {
        (true, _) => format!("/{}", parts.join("/")),
        (false, true) => ".".to_owned(),
        (false, false) => parts.join("/"),
    }
}

fn title(text: &str) -> String {
    let mut start = true;
    let mut out = String::new();
    for c in text.chars() {
        match start {
            true => out.extend(c.to_uppercase()),
            false => out.push(c),
        }
        start = !(c.is_alphanumeric() || c == '_' || c == '\'');
    }
    out
}

fn sanitize(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '_' | '-' => c,
            _ => '_',
        })
        .collect()
}

fn indent(args: &Args<'_>) -> Outcome {
    let [spaces, text] = args.exactly()?;
    let spaces = args.size(spaces)?;
    let text = convert::string(text)?;
    let lines = text.matches('\n').count();
    if spaces.saturating_mul(lines) > super::MAX_TEXT {
        return Err(Problem::TooLarge {
            limit: super::MAX_TEXT,
        });
    }
    args.text(text.replace('\n', &format!("\n{}", " ".repeat(spaces))))
}

fn join(args: &Args<'_>) -> Outcome {
    args.count(2, usize::MAX)?;
    let separator = convert::string(&args.values[0])?;
    let mut parts = Vec::new();
    for list in &args.values[1..] {
        for value in args.elements(list)? {
            parts.push(convert::string(value)?);
        }
    }
    args.text(parts.join(&separator))
}

fn split(separator: &str, text: &str) -> Value {
    if separator.is_empty() {
        return Value::texts(text.chars());
    }
    Value::texts(text.split(separator))
}

/// `substr(text, offset, length)`; a negative offset counts from the end, a negative length
/// means all.
fn substring(args: &Args<'_>) -> Outcome {
    let [text, offset, length] = args.exactly()?;
    let text = convert::string(text)?;
    let chars: Vec<char> = text.chars().collect();
    let offset = args.int(offset)?;
    let length = args.int(length)?;
    let start = match usize::try_from(offset) {
        Ok(offset) => offset.min(chars.len()),
        Err(_) => {
            let back = usize::try_from(offset.unsigned_abs()).unwrap_or(usize::MAX);
            chars.len().saturating_sub(back)
        }
    };
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let end = start.saturating_add(length).min(chars.len());
    Ok(Value::String(chars[start..end].iter().collect()))
}

fn compile(args: &Args<'_>, pattern: &str) -> Result<Regex, Problem> {
    regex::RegexBuilder::new(pattern)
        .size_limit(MAX_PATTERN)
        .build()
        .map_err(|_| args.fail(format!("`{pattern}` is not a regular expression")))
}

/// What a match gives: the text, or its groups by number or by name.
fn captured(pattern: &Regex, found: &regex::Captures<'_>) -> Value {
    let text = |part: Option<regex::Match<'_>>| match part {
        Some(part) => Value::text(part.as_str()),
        None => Value::Null(Type::String),
    };
    let names: Vec<&str> = pattern.capture_names().flatten().collect();
    if !names.is_empty() {
        let groups = names.iter().map(|n| ((*n).to_owned(), text(found.name(n))));
        return Value::Object(groups.collect());
    }
    match pattern.captures_len() {
        1 => text(found.get(0)),
        count => Value::Tuple((1..count).map(|n| text(found.get(n))).collect()),
    }
}

fn regex(args: &Args<'_>) -> Outcome {
    let [pattern, text] = args.texts()?;
    let compiled = compile(args, &pattern)?;
    match compiled.captures(&text) {
        Some(found) => Ok(captured(&compiled, &found)),
        None => Err(args.fail(format!("`{pattern}` does not match"))),
    }
}

fn regex_all(args: &Args<'_>) -> Outcome {
    let [pattern, text] = args.texts()?;
    let compiled = compile(args, &pattern)?;
    let found: Vec<Value> = compiled
        .captures_iter(&text)
        .map(|found| captured(&compiled, &found))
        .collect();
    Ok(match found.is_empty() {
        true => Value::List(Type::String, found),
        false => Args::list(found),
    })
}
