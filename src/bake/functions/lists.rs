//! Lists and maps.

use std::collections::BTreeMap;

use super::{Args, Outcome};
use crate::bake::{
    convert::{self, convert},
    error::Problem,
    eval,
    value::{Number, Type, Value},
};

/// Elements that `range` may make.
const MAX_RANGE: usize = 1 << 16;

pub(super) fn call(args: &Args<'_>) -> Option<Outcome> {
    Some(match args.name {
        "chunklist" => chunks(args),
        "coalesce" => coalesce(args),
        "coalescelist" => coalesce_list(args),
        "compact" => compact(args),
        "concat" => concat(args),
        "contains" => args
            .exactly()
            .and_then(|[list, value]| Ok(Value::Bool(position(args, list, value)?.is_some()))),
        "distinct" => distinct(args),
        "element" => element(args),
        "flatten" => args.exactly().and_then(|[list]| {
            let mut out = Vec::new();
            flatten(args.elements(list)?, &mut out);
            Ok(Value::Tuple(out))
        }),
        "hasindex" => args
            .exactly()
            .map(|[list, key]| Value::Bool(eval::get_index(list, key).is_ok())),
        "index" => args
            .exactly()
            .and_then(|[list, key]| eval::get_index(list, key)),
        "indexof" => index_of(args),
        "keys" => args.exactly().and_then(|[map]| {
            let keys = entries(map)?.keys().map(Value::text).collect();
            Ok(match map {
                Value::Object(_) => Value::Tuple(keys),
                _ => Value::list(Type::String, keys),
            })
        }),
        "values" => args.exactly().and_then(|[map]| {
            let values = entries(map)?.values().cloned().collect();
            Ok(match map {
                Value::Map(of, _) => Value::list(of.clone(), values),
                _ => Value::Tuple(values),
            })
        }),
        "length" => args.exactly().and_then(|[value]| {
            let length = value.elements().map(<[Value]>::len);
            let length = length.or_else(|| value.entries().map(BTreeMap::len));
            length.map(Value::count).ok_or_else(|| Problem::WrongType {
                expected: "a list or a map".to_owned(),
                found: value.kind().to_owned(),
            })
        }),
        "lookup" => args.exactly().and_then(|[map, key, default]| {
            let found = entries(map)?.get(&convert::string(key)?);
            Ok(found.unwrap_or(default).clone())
        }),
        "merge" => merge(args),
        "range" => range(args),
        "reverselist" => args.exactly().and_then(|[list]| {
            let values = args.elements(list)?.iter().rev().cloned().collect();
            Ok(like(list, values))
        }),
        "slice" => slice(args),
        "sort" => sort(args),
        "zipmap" => zip_map(args),
        _ => return None,
    })
}

/// `values` as a list if `list` is one, else as a tuple.
fn like(list: &Value, values: Vec<Value>) -> Value {
    match list {
        Value::List(of, _) | Value::Set(of, _) => Value::list(of.clone(), values),
        _ => Value::Tuple(values),
    }
}

fn entries(value: &Value) -> Result<&BTreeMap<String, Value>, Problem> {
    value.entries().ok_or_else(|| Problem::WrongType {
        expected: "a map".to_owned(),
        found: value.kind().to_owned(),
    })
}

fn chunks(args: &Args<'_>) -> Outcome {
    let [list, size] = args.exactly()?;
    let values = args.elements(list)?;
    let size = match args.size(size)? {
        0 => values.len().max(1),
        size => size,
    };
    let chunks = values.chunks(size).map(|chunk| Args::list(chunk.to_vec()));
    Ok(Args::list(chunks.collect()))
}

fn coalesce(args: &Args<'_>) -> Outcome {
    args.count(1, usize::MAX)?;
    let common = convert::unify(args.values.iter().map(Value::ty));
    let found = args.values.iter().find(|v| !v.is_null());
    let found = found.ok_or_else(|| args.fail("all arguments are null"))?;
    match common {
        Some(ty) => convert(found, &ty),
        None => Err(args.fail("the arguments have no type in common")),
    }
}

fn coalesce_list(args: &Args<'_>) -> Outcome {
    args.count(1, usize::MAX)?;
    for value in args.values.iter().filter(|v| !v.is_null()) {
        if !args.elements(value)?.is_empty() {
            return Ok(value.clone());
        }
    }
    Err(args.fail("all lists are empty"))
}

fn compact(args: &Args<'_>) -> Outcome {
    let [list] = args.exactly()?;
    let mut out = Vec::new();
    for value in args.elements(list)?.iter().filter(|v| !v.is_null()) {
        let text = convert::string(value)?;
        if !text.is_empty() {
            out.push(text);
        }
    }
    Ok(Value::texts(out))
}

fn concat(args: &Args<'_>) -> Outcome {
    args.count(1, usize::MAX)?;
    let mut out = Vec::new();
    for list in args.values {
        out.extend(args.elements(list)?.iter().cloned());
    }
    let all_lists = args.values.iter().all(|v| matches!(v, Value::List(..)));
    Ok(match all_lists {
        true => Args::list(out),
        false => Value::Tuple(out),
    })
}

fn position(args: &Args<'_>, list: &Value, value: &Value) -> Result<Option<usize>, Problem> {
    let elements = list
        .elements()
        .ok_or_else(|| args.fail(format!("expected a list, found {}", list.kind())))?;
    Ok(elements.iter().position(|v| v == value))
}

fn index_of(args: &Args<'_>) -> Outcome {
    let [list, value] = args.exactly()?;
    match position(args, list, value)? {
        Some(index) => Ok(Value::count(index)),
        None => Err(args.fail("the list has no such element")),
    }
}

fn distinct(args: &Args<'_>) -> Outcome {
    let [list] = args.exactly()?;
    let list = convert(list, &Type::List(Box::new(Type::Any)))?;
    let values = list.elements().unwrap_or_default();
    let mut order: Vec<usize> = (0..values.len()).collect();
    // The first of equal ones stays; sorting keeps this fast for long lists.
    order.sort_by(|a, b| values[*a].order(&values[*b]).then(a.cmp(b)));
    order.dedup_by(|a, b| values[*a] == values[*b]);
    order.sort_unstable();
    Ok(like(
        &list,
        order.into_iter().map(|i| values[i].clone()).collect(),
    ))
}

fn element(args: &Args<'_>) -> Outcome {
    let [list, index] = args.exactly()?;
    let values = args.elements(list)?;
    let index = args.int(index)?;
    let length = i64::try_from(values.len()).unwrap_or(i64::MAX);
    if length == 0 {
        return Err(args.fail("the list is empty"));
    }
    let index = usize::try_from(index.rem_euclid(length)).unwrap_or(0);
    Ok(values[index].clone())
}

fn flatten(values: &[Value], out: &mut Vec<Value>) {
    for value in values {
        match value.elements() {
            Some(values) => flatten(values, out),
            None => out.push(value.clone()),
        }
    }
}

fn merge(args: &Args<'_>) -> Outcome {
    args.count(1, usize::MAX)?;
    let mut out = BTreeMap::new();
    let mut common = None;
    let mut all_maps = true;
    for map in args.values.iter().filter(|v| !v.is_null()) {
        for (key, value) in entries(map)? {
            out.insert(key.clone(), value.clone());
        }
        match map {
            Value::Map(of, _) if common.as_ref().is_none_or(|c| c == of) => {
                common = Some(of.clone());
            }
            _ => all_maps = false,
        }
    }
    Ok(match (all_maps, common) {
        (true, Some(of)) => Value::Map(of, out),
        _ => Value::Object(out),
    })
}

/// `range(end)`, `range(start, end)`, `range(start, end, step)`.
fn range(args: &Args<'_>) -> Outcome {
    args.count(1, 3)?;
    let numbers: Result<Vec<Number>, _> = args.values.iter().map(convert::number).collect();
    let (zero, one) = (Number::Int(0), Number::Int(1));
    let (start, end, step) = match numbers?[..] {
        [end] => (
            zero,
            end,
            if end.order(zero).is_lt() {
                Number::Int(-1)
            } else {
                one
            },
        ),
        [start, end] => {
            let down = end.order(start).is_lt();
            (start, end, if down { Number::Int(-1) } else { one })
        }
        [start, end, step] => (start, end, step),
        _ => return Err(args.fail("expected 1 to 3 numbers")),
    };
    let down = end.order(start).is_lt();
    let forward = if down {
        step.order(zero).is_lt()
    } else {
        step.order(zero).is_gt()
    };
    if start.order(end).is_ne() && !forward {
        return Err(args.fail("the step does not lead to the end"));
    }
    let mut out = Vec::new();
    let mut next = start;
    while if down {
        next.order(end).is_gt()
    } else {
        next.order(end).is_lt()
    } {
        if out.len() >= MAX_RANGE {
            return Err(Problem::TooLarge { limit: MAX_RANGE });
        }
        out.push(Value::Number(next));
        next = next
            .with(step, i128::checked_add, |a, b| a + b)
            .ok_or_else(|| args.fail("the numbers are too large"))?;
    }
    Ok(Value::list(Type::Number, out))
}

fn slice(args: &Args<'_>) -> Outcome {
    let [list, start, end] = args.exactly()?;
    let values = args.elements(list)?;
    let (start, end) = (args.size(start)?, args.size(end)?);
    match values.get(start..end) {
        Some(part) => Ok(like(list, part.to_vec())),
        None => Err(args.fail(format!(
            "{start} to {end} is not a part of {} elements",
            values.len()
        ))),
    }
}

fn sort(args: &Args<'_>) -> Outcome {
    let [list] = args.exactly()?;
    let texts: Result<Vec<_>, _> = args.elements(list)?.iter().map(convert::string).collect();
    let mut texts = texts?;
    texts.sort();
    Ok(Value::texts(texts))
}

fn zip_map(args: &Args<'_>) -> Outcome {
    let [keys, values] = args.exactly()?;
    let (keys, elements) = (args.elements(keys)?, args.elements(values)?);
    if keys.len() != elements.len() {
        return Err(args.fail("there are not as many values as keys"));
    }
    let mut out = BTreeMap::new();
    for (key, value) in keys.iter().zip(elements) {
        out.insert(convert::string(key)?, value.clone());
    }
    Ok(match values {
        Value::List(of, _) => Value::Map(of.clone(), out),
        _ => Value::Object(out),
    })
}
