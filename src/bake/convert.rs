//! From a value of one type to a value of another, by HCL's rules.

use std::collections::BTreeMap;

use super::{
    error::Problem,
    value::{Number, Type, Value},
};

/// `value` as a value of type `to`. Null stays null.
pub(super) fn convert(value: &Value, to: &Type) -> Result<Value, Problem> {
    match (value, to) {
        (value, Type::Any) => Ok(value.clone()),
        (Value::Null(_), to) => Ok(Value::Null(to.clone())),
        (value, Type::String) => string(value).map(Value::String),
        (value, Type::Number) => number(value).map(Value::Number),
        (value, Type::Bool) => bool(value).map(Value::Bool),
        (value, Type::List(of)) => {
            let (of, values) = elements(value, of, to)?;
            Ok(Value::list(of, values))
        }
        (value, Type::Set(of)) => {
            let (of, values) = elements(value, of, to)?;
            Ok(Value::set(of, values))
        }
        (value, Type::Map(of)) => map(value, of, to),
        (value, Type::Tuple(types)) => tuple(value, types, to),
        (value, Type::Object(types)) => object(value, types, to),
    }
}

fn wrong(value: &Value, to: &Type) -> Problem {
    Problem::WrongType {
        expected: to.to_string(),
        found: value.kind().to_owned(),
    }
}

/// A primitive as text.
pub(super) fn string(value: &Value) -> Result<String, Problem> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(value) => Ok(value.to_string()),
        Value::Null(_) => Err(Problem::NullValue {
            what: "a value that must be a string",
        }),
        other => Err(wrong(other, &Type::String)),
    }
}

/// A number, or a text that is one.
pub(super) fn number(value: &Value) -> Result<Number, Problem> {
    match value {
        Value::Number(number) => Ok(*number),
        Value::String(text) => Number::parse(text).ok_or_else(|| Problem::Convert {
            expected: "a number".to_owned(),
            found: format!("`{text}`"),
            reason: "it holds more than digits".to_owned(),
        }),
        Value::Null(_) => Err(Problem::NullValue {
            what: "a value that must be a number",
        }),
        other => Err(wrong(other, &Type::Number)),
    }
}

/// A bool, or a text that is one.
pub(super) fn bool(value: &Value) -> Result<bool, Problem> {
    match value {
        Value::Bool(value) => Ok(*value),
        Value::String(text) => match text.as_str() {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err(Problem::Convert {
                expected: "a bool".to_owned(),
                found: format!("`{text}`"),
                reason: "it is neither `true` nor `false`".to_owned(),
            }),
        },
        Value::Null(_) => Err(Problem::NullValue {
            what: "a value that must be true or false",
        }),
        other => Err(wrong(other, &Type::Bool)),
    }
}

/// The elements of `value`, all as values of `of`, and their type.
fn elements(value: &Value, of: &Type, to: &Type) -> Result<(Type, Vec<Value>), Problem> {
    let values = value.elements().ok_or_else(|| wrong(value, to))?;
    unified(values.iter(), of)
}

/// `values` as values of one type: `of`, or what they have in common.
fn unified<'v>(
    values: impl Iterator<Item = &'v Value> + Clone,
    of: &Type,
) -> Result<(Type, Vec<Value>), Problem> {
    let of = match of {
        Type::Any => unify(values.clone().map(Value::ty)).unwrap_or(Type::Any),
        of => of.clone(),
    };
    let values: Result<_, _> = values.map(|v| convert(v, &of)).collect();
    Ok((of, values?))
}

fn map(value: &Value, of: &Type, to: &Type) -> Result<Value, Problem> {
    let entries = value.entries().ok_or_else(|| wrong(value, to))?;
    let (of, values) = unified(entries.values(), of)?;
    Ok(Value::Map(
        of,
        entries.keys().cloned().zip(values).collect(),
    ))
}

fn tuple(value: &Value, types: &[Type], to: &Type) -> Result<Value, Problem> {
    let values = value.elements().ok_or_else(|| wrong(value, to))?;
    if values.len() != types.len() {
        return Err(Problem::WrongType {
            expected: format!("a tuple of {} elements", types.len()),
            found: format!("{} elements", values.len()),
        });
    }
    let values: Result<_, _> = values
        .iter()
        .zip(types)
        .map(|(v, t)| convert(v, t))
        .collect();
    Ok(Value::Tuple(values?))
}

fn object(
    value: &Value,
    types: &BTreeMap<String, (Type, bool)>,
    to: &Type,
) -> Result<Value, Problem> {
    let entries = value.entries().ok_or_else(|| wrong(value, to))?;
    let mut out = BTreeMap::new();
    for (name, (ty, optional)) in types {
        let value = match entries.get(name) {
            Some(value) => convert(value, ty)?,
            None if *optional => Value::Null(ty.clone()),
            None => {
                return Err(Problem::NoAttribute {
                    what: "the object".to_owned(),
                    name: name.clone(),
                });
            }
        };
        out.insert(name.clone(), value);
    }
    Ok(Value::Object(out))
}

/// The type that values of all of `types` can be converted to.
pub(super) fn unify(types: impl Iterator<Item = Type>) -> Option<Type> {
    let mut common: Option<Type> = None;
    for ty in types {
        common = Some(match common {
            None | Some(Type::Any) => ty,
            Some(common) => pair(common, ty)?,
        });
    }
    Some(common.unwrap_or(Type::Any))
}

fn pair(a: Type, b: Type) -> Option<Type> {
    use Type::{Any, Bool, List, Map, Number, Object, Set, String, Tuple};
    Some(match (a, b) {
        (a, b) if a == b => a,
        (a, Any) => a,
        (Any, b) => b,
        (String, Number | Bool) | (Number | Bool, String) => String,
        (List(a), List(b)) => List(Box::new(pair(*a, *b)?)),
        (Set(a), Set(b)) => Set(Box::new(pair(*a, *b)?)),
        (Map(a), Map(b)) => Map(Box::new(pair(*a, *b)?)),
        (List(a), Tuple(b)) | (Tuple(b), List(a)) => {
            List(Box::new(unify(std::iter::once(*a).chain(b))?))
        }
        (Tuple(a), Tuple(b)) if a.len() == b.len() => {
            let types: Option<_> = a.into_iter().zip(b).map(|(a, b)| pair(a, b)).collect();
            Tuple(types?)
        }
        (Tuple(a), Tuple(b)) => List(Box::new(unify(a.into_iter().chain(b))?)),
        (Object(a), Object(b)) if a.keys().eq(b.keys()) => {
            let types: Option<_> = a
                .into_iter()
                .zip(b)
                .map(|((name, (a, _)), (_, (b, _)))| Some((name, (pair(a, b)?, false))))
                .collect();
            Object(types?)
        }
        (Object(a), Object(b)) => {
            let types = a.into_values().chain(b.into_values()).map(|(ty, _)| ty);
            Map(Box::new(unify(types)?))
        }
        (Map(a), Object(b)) | (Object(b), Map(a)) => {
            let types = b.into_values().map(|(ty, _)| ty);
            Map(Box::new(unify(std::iter::once(*a).chain(types))?))
        }
        _ => return None,
    })
}
