//! `format` and `formatlist`: texts from a pattern with verbs, as C and Go have them.

use super::{Args, Outcome};
use crate::bake::{
    convert,
    error::Problem,
    value::{Number, Value},
};

/// The largest width and precision.
const MAX_WIDTH: usize = 10_000;

pub(super) fn format(args: &Args<'_>) -> Outcome {
    args.count(1, usize::MAX)?;
    let pattern = convert::string(&args.values[0])?;
    args.text(formatted(args, &pattern, &args.values[1..])?)
}

/// `format` for each element of the lists among the arguments.
pub(super) fn format_list(args: &Args<'_>) -> Outcome {
    args.count(1, usize::MAX)?;
    let pattern = convert::string(&args.values[0])?;
    let values = &args.values[1..];
    let mut length = None;
    for list in values.iter().filter_map(Value::elements) {
        match length {
            None => length = Some(list.len()),
            Some(known) if known == list.len() => {}
            Some(_) => return Err(args.fail("the lists have different lengths")),
        }
    }
    let mut out = Vec::new();
    for index in 0..length.unwrap_or(1) {
        let row: Vec<Value> = values
            .iter()
            .map(|value| match value.elements() {
                Some(list) => list[index].clone(),
                None => value.clone(),
            })
            .collect();
        out.push(formatted(args, &pattern, &row)?);
    }
    Ok(Value::texts(out))
}

/// One verb with its flags.
#[derive(Debug, Default)]
struct Verb {
    minus: bool,
    plus: bool,
    sharp: bool,
    space: bool,
    zero: bool,
    width: Option<usize>,
    precision: Option<usize>,
}

fn formatted(args: &Args<'_>, pattern: &str, values: &[Value]) -> Result<String, Problem> {
    let mut out = String::new();
    let mut chars = pattern.chars().peekable();
    let mut next = 0;
    let mut used = 0;
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut verb = Verb::default();
        while let Some(flag) = chars.peek() {
            match flag {
                '-' => verb.minus = true,
                '+' => verb.plus = true,
                '#' => verb.sharp = true,
                ' ' => verb.space = true,
                '0' => verb.zero = true,
                _ => break,
            }
            chars.next();
        }
        verb.width = number(&mut chars);
        if chars.next_if_eq(&'.').is_some() {
            verb.precision = Some(number(&mut chars).unwrap_or(0));
        }
        if chars.next_if_eq(&'[').is_some() {
            let index = number(&mut chars).filter(|n| *n > 0);
            let closed = chars.next_if_eq(&']').is_some();
            match (index, closed) {
                (Some(index), true) => next = index - 1,
                _ => return Err(args.fail("the pattern has a wrong argument number")),
            }
        }
        if verb.width.max(verb.precision).unwrap_or(0) > MAX_WIDTH {
            return Err(args.fail("the pattern has a width that is too large"));
        }
        match chars.next() {
            Some('%') => out.push('%'),
            Some(letter) => {
                let value = values.get(next).ok_or_else(|| {
                    args.fail(format!("there is no argument {} for `%{letter}`", next + 1))
                })?;
                next += 1;
                used = used.max(next);
                out.push_str(&verb.apply(args, letter, value)?);
            }
            None => return Err(args.fail("the pattern ends after `%`")),
        }
        if out.len() > super::MAX_TEXT {
            return Err(Problem::TooLarge {
                limit: super::MAX_TEXT,
            });
        }
    }
    if used < values.len() {
        let message = format!(
            "{} arguments are given, the pattern uses {used}",
            values.len()
        );
        return Err(args.fail(message));
    }
    Ok(out)
}

fn number(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<usize> {
    let mut digits = String::new();
    while let Some(digit) = chars.next_if(char::is_ascii_digit) {
        digits.push(digit);
    }
    match digits.is_empty() {
        true => None,
        false => Some(digits.parse().unwrap_or(usize::MAX)),
    }
}

impl Verb {
    fn apply(&self, args: &Args<'_>, letter: char, value: &Value) -> Result<String, Problem> {
        let is_primitive = value.is_null() || value.ty().is_primitive();
        match letter {
            'v' if self.sharp || value.is_null() || !is_primitive => {
                Ok(self.pad(&value.to_json().to_string(), false))
            }
            'v' => match value {
                Value::Number(n) => Ok(self.pad(&self.signed(&n.to_string()), true)),
                other => Ok(self.pad(&convert::string(other)?, false)),
            },
            't' => Ok(self.pad(&convert::bool(value)?.to_string(), false)),
            's' | 'q' => {
                let mut text = convert::string(value)?;
                if let Some(precision) = self.precision {
                    text = text.chars().take(precision).collect();
                }
                if letter == 'q' {
                    text = serde_json::Value::String(text).to_string();
                }
                Ok(self.pad(&text, false))
            }
            'b' | 'd' | 'o' | 'x' | 'X' => {
                let n = whole(convert::number(value)?);
                let digits = match letter {
                    'b' => format!("{:b}", n.unsigned_abs()),
                    'o' => format!("{:o}", n.unsigned_abs()),
                    'x' => format!("{:x}", n.unsigned_abs()),
                    'X' => format!("{:X}", n.unsigned_abs()),
                    _ => n.unsigned_abs().to_string(),
                };
                let prefix = match (self.sharp, letter) {
                    (true, 'b') => "0b",
                    (true, 'o') => "0",
                    (true, 'x') => "0x",
                    (true, 'X') => "0X",
                    _ => "",
                };
                let sign = if n < 0 { "-" } else { "" };
                Ok(self.pad(&self.signed(&format!("{sign}{prefix}{digits}")), true))
            }
            'e' | 'E' | 'f' | 'g' | 'G' => {
                let text = float(convert::number(value)?.as_f64(), letter, self.precision);
                Ok(self.pad(&self.signed(&text), true))
            }
            other => Err(args.fail(format!("the pattern has an unknown verb `%{other}`"))),
        }
    }

    fn signed(&self, text: &str) -> String {
        match (text.starts_with('-'), self.plus, self.space) {
            (false, true, _) => format!("+{text}"),
            (false, false, true) => format!(" {text}"),
            _ => text.to_owned(),
        }
    }

    fn pad(&self, text: &str, is_number: bool) -> String {
        let missing = self.width.unwrap_or(0).saturating_sub(text.chars().count());
        if self.minus {
            return format!("{text}{}", " ".repeat(missing));
        }
        if self.zero {
            let sign = match is_number && text.starts_with(['+', '-', ' ']) {
                true => &text[..1],
                false => "",
            };
            return format!("{sign}{}{}", "0".repeat(missing), &text[sign.len()..]);
        }
        format!("{}{text}", " ".repeat(missing))
    }
}

/// The whole part.
fn whole(n: Number) -> i128 {
    match n {
        Number::Int(n) => n,
        #[expect(clippy::cast_possible_truncation, reason = "that is what is asked for")]
        Number::Float(n) => n as i128,
    }
}

/// A number with a fraction or an exponent, as Go writes it.
fn float(value: f64, letter: char, precision: Option<usize>) -> String {
    match letter {
        'f' => format!("{value:.*}", precision.unwrap_or(6)),
        'e' | 'E' => {
            let text = format!("{value:.*e}", precision.unwrap_or(6));
            exponent(&text, letter)
        }
        _ => {
            let text = match precision {
                Some(precision) => {
                    let text = format!("{value:.*e}", precision.saturating_sub(1));
                    text.parse::<f64>().unwrap_or(value)
                }
                None => value,
            };
            let power = if text == 0.0 {
                0.0
            } else {
                text.abs().log10().floor()
            };
            let limit = precision.map_or(21.0, |p| f64::from(u32::try_from(p.max(1)).unwrap_or(0)));
            if power < -4.0 || power >= limit {
                let letter = if letter == 'G' { 'E' } else { 'e' };
                exponent(&format!("{text:e}"), letter)
            } else {
                text.to_string()
            }
        }
    }
}

/// Rust writes `1.5e3`, Go `1.5e+03`.
fn exponent(text: &str, letter: char) -> String {
    let (mantissa, power) = text.split_once('e').unwrap_or((text, "0"));
    let (sign, digits) = match power.strip_prefix('-') {
        Some(digits) => ('-', digits),
        None => ('+', power),
    };
    format!("{mantissa}{letter}{sign}{digits:0>2}")
}
