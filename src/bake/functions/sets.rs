//! Sets.

use super::{Args, Outcome};
use crate::bake::{
    convert::convert,
    error::Problem,
    value::{Type, Value},
};

/// Elements that `setproduct` may make.
const MAX_PRODUCT: usize = 1 << 16;

pub(super) fn call(args: &Args<'_>) -> Option<Outcome> {
    Some(match args.name {
        "sethaselement" => args.exactly().and_then(|[set, value]| {
            let set = as_set(set)?;
            let values = set.elements().unwrap_or_default();
            Ok(Value::Bool(values.contains(value)))
        }),
        "setunion" => fold(args, |mut a, b| {
            a.extend(b);
            a
        }),
        "setintersection" => fold(args, |a, b| {
            a.into_iter().filter(|v| b.contains(v)).collect()
        }),
        "setsubtract" => args.count(2, 2).and_then(|()| {
            fold(args, |a, b| {
                a.into_iter().filter(|v| !b.contains(v)).collect()
            })
        }),
        "setsymmetricdifference" => fold(args, |a, b| {
            let only_a = a.iter().filter(|v| !b.contains(v)).cloned();
            let only_b = b.iter().filter(|v| !a.contains(v)).cloned();
            only_a.chain(only_b).collect()
        }),
        "setproduct" => product(args),
        _ => return None,
    })
}

fn as_set(value: &Value) -> Result<Value, Problem> {
    convert(value, &Type::Set(Box::new(Type::Any)))
}

fn fold(args: &Args<'_>, f: impl Fn(Vec<Value>, Vec<Value>) -> Vec<Value>) -> Outcome {
    args.count(1, usize::MAX)?;
    let mut all: Option<Vec<Value>> = None;
    let mut of = Type::Any;
    for value in args.values {
        let Value::Set(ty, values) = as_set(value)? else {
            return Err(args.fail("an argument is null"));
        };
        if of == Type::Any {
            of = ty;
        }
        all = Some(match all {
            None => values,
            Some(all) => f(all, values),
        });
    }
    Ok(Value::set(of, all.unwrap_or_default()))
}

/// All combinations; in the order of the arguments if they are lists.
fn product(args: &Args<'_>) -> Outcome {
    args.count(1, usize::MAX)?;
    let mut rows: Vec<Vec<Value>> = vec![Vec::new()];
    for list in args.values {
        let values = args.elements(list)?;
        if rows.len().saturating_mul(values.len()) > MAX_PRODUCT {
            return Err(Problem::TooLarge { limit: MAX_PRODUCT });
        }
        rows = rows
            .iter()
            .flat_map(|row| {
                values.iter().map(|value| {
                    let mut row = row.clone();
                    row.push(value.clone());
                    row
                })
            })
            .collect();
    }
    let rows: Vec<Value> = rows.into_iter().map(Value::Tuple).collect();
    let all_sets = args.values.iter().all(|v| matches!(v, Value::Set(..)));
    Ok(match all_sets {
        true => Value::set(Type::Any, rows),
        false => Value::list(Type::Any, rows),
    })
}
