//! Arithmetic, comparison and logic.

use hcl_edit::expr::BinaryOperator as Op;

use super::{Args, Outcome};
use crate::bake::{
    convert,
    error::Problem,
    eval::arithmetic,
    value::{Number, Value},
};

pub(super) fn call(args: &Args<'_>) -> Option<Outcome> {
    Some(match args.name {
        "absolute" => one(args, |n| n.with(n, |a, _| a.checked_abs(), |a, _| a.abs())),
        "add" => two(args, |a, b| arithmetic(Op::Plus, a, b)),
        "subtract" => two(args, |a, b| arithmetic(Op::Minus, a, b)),
        "multiply" => two(args, |a, b| arithmetic(Op::Mul, a, b)),
        "divide" => two(args, |a, b| arithmetic(Op::Div, a, b)),
        "modulo" => two(args, |a, b| arithmetic(Op::Mod, a, b)),
        "pow" => two(args, |a, b| power(args, a, b)),
        "log" => two(args, |a, b| {
            Number::float(a.as_f64().log2() / b.as_f64().log2())
                .ok_or_else(|| args.fail("the logarithm is not a number"))
        }),
        "negate" => one(args, |n| {
            Number::Int(0).with(n, i128::checked_sub, |a, b| a - b)
        }),
        "ceil" => one(args, |n| whole(n, f64::ceil)),
        "floor" => one(args, |n| whole(n, f64::floor)),
        "int" => one(args, |n| whole(n, f64::trunc)),
        "signum" => one(args, |n| Some(Number::Int(n.order(Number::Int(0)) as i128))),
        "max" => extreme(args, |a, b| if a.order(b).is_ge() { a } else { b }),
        "min" => extreme(args, |a, b| if a.order(b).is_le() { a } else { b }),
        "parseint" => parse_int(args),
        "equal" => args.exactly().map(|[a, b]| Value::Bool(a == b)),
        "notequal" => args.exactly().map(|[a, b]| Value::Bool(a != b)),
        "greaterthan" => compare(args, std::cmp::Ordering::is_gt),
        "greaterthanorequalto" => compare(args, std::cmp::Ordering::is_ge),
        "lessthan" => compare(args, std::cmp::Ordering::is_lt),
        "lessthanorequalto" => compare(args, std::cmp::Ordering::is_le),
        "and" => logic(args, |a, b| a && b),
        "or" => logic(args, |a, b| a || b),
        "not" => args
            .exactly()
            .and_then(|[value]| Ok(Value::Bool(!convert::bool(value)?))),
        _ => return None,
    })
}

fn one(args: &Args<'_>, f: impl Fn(Number) -> Option<Number>) -> Outcome {
    let [n] = args.numbers()?;
    let result = f(n).ok_or_else(|| args.fail("the result is out of range"))?;
    Ok(Value::Number(result))
}

fn two(args: &Args<'_>, f: impl Fn(Number, Number) -> Result<Number, Problem>) -> Outcome {
    let [a, b] = args.numbers()?;
    f(a, b).map(Value::Number)
}

fn whole(n: Number, round: fn(f64) -> f64) -> Option<Number> {
    match n {
        Number::Int(_) => Some(n),
        Number::Float(value) => Number::float(round(value)),
    }
}

fn power(args: &Args<'_>, a: Number, b: Number) -> Result<Number, Problem> {
    let exponent = b.as_int().and_then(|b| u32::try_from(b).ok());
    a.with(b, |a, _| a.checked_pow(exponent?), |a, b| a.powf(b))
        .ok_or_else(|| args.fail("the result is out of range"))
}

fn extreme(args: &Args<'_>, choose: fn(Number, Number) -> Number) -> Outcome {
    args.count(1, usize::MAX)?;
    let numbers: Result<Vec<_>, _> = args.values.iter().map(convert::number).collect();
    let best = numbers?.into_iter().reduce(choose);
    best.map(Value::Number)
        .ok_or_else(|| args.fail("there is no number"))
}

fn compare(args: &Args<'_>, f: fn(std::cmp::Ordering) -> bool) -> Outcome {
    let [a, b] = args.numbers()?;
    Ok(Value::Bool(f(a.order(b))))
}

fn logic(args: &Args<'_>, f: fn(bool, bool) -> bool) -> Outcome {
    let [a, b] = args.exactly()?;
    Ok(Value::Bool(f(convert::bool(a)?, convert::bool(b)?)))
}

/// `parseint(text, base)`.
fn parse_int(args: &Args<'_>) -> Outcome {
    let [text, base] = args.exactly()?;
    let text = convert::string(text)?;
    let base = args.size(base)?;
    if !(2..=62).contains(&base) {
        return Err(args.fail("the base must be from 2 to 62"));
    }
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.as_str()),
    };
    let wrong = || args.fail(format!("`{text}` is not a number of base {base}"));
    if digits.is_empty() {
        return Err(wrong());
    }
    let mut value: i128 = 0;
    for c in digits.chars() {
        let digit = match c {
            '0'..='9' => c as u32 - '0' as u32,
            'a'..='z' => c as u32 - 'a' as u32 + 10,
            // Up to base 36 the case of letters doesn't matter.
            'A'..='Z' if base <= 36 => c as u32 - 'A' as u32 + 10,
            'A'..='Z' => c as u32 - 'A' as u32 + 36,
            _ => return Err(wrong()),
        };
        if digit as usize >= base {
            return Err(wrong());
        }
        value = value
            .checked_mul(base as i128)
            .and_then(|v| v.checked_add(digit.into()))
            .ok_or_else(wrong)?;
    }
    Ok(Value::int(if negative { -value } else { value }))
}
