//! Type constraints: `string`, `list(string)`, `object({a = string})`.
//!
//! Source: the `typeexpr` extension of HCL.

use std::collections::BTreeMap;

use hcl_edit::expr::{Expression, FuncCall, ObjectKey};

use super::{error::Problem, value::Type};

/// The type that `expr` names.
pub(super) fn of(expr: &Expression) -> Result<Type, Problem> {
    match expr {
        Expression::Variable(name) => match name.as_str() {
            "any" => Ok(Type::Any),
            "bool" => Ok(Type::Bool),
            "number" => Ok(Type::Number),
            "string" => Ok(Type::String),
            _ => Err(wrong(expr)),
        },
        Expression::FuncCall(call) => constructed(call).ok_or_else(|| wrong(expr))?,
        _ => Err(wrong(expr)),
    }
}

fn wrong(expr: &Expression) -> Problem {
    Problem::Type {
        text: expr.to_string().trim().to_owned(),
    }
}

/// `list(…)` and the like; none for anything else.
fn constructed(call: &FuncCall) -> Option<Result<Type, Problem>> {
    let args: Vec<&Expression> = call.args.iter().collect();
    let [arg] = args[..] else {
        return None;
    };
    let make = |wrap: fn(Box<Type>) -> Type| Some(of(arg).map(|ty| wrap(Box::new(ty))));
    match (call.name.name.as_str(), arg) {
        ("list", _) => make(Type::List),
        ("set", _) => make(Type::Set),
        ("map", _) => make(Type::Map),
        ("tuple", Expression::Array(types)) => {
            let types: Result<_, _> = types.iter().map(of).collect();
            Some(types.map(Type::Tuple))
        }
        ("object", Expression::Object(attributes)) => {
            let mut out = BTreeMap::new();
            for (key, value) in attributes {
                let name = match key {
                    ObjectKey::Ident(name) => name.as_str(),
                    ObjectKey::Expression(Expression::Variable(name)) => name.as_str(),
                    ObjectKey::Expression(Expression::String(name)) => name.as_str(),
                    ObjectKey::Expression(_) => return None,
                };
                match attribute(value.expr()) {
                    Ok(ty) => out.insert(name.to_owned(), ty),
                    Err(problem) => return Some(Err(problem)),
                };
            }
            Some(Ok(Type::Object(out)))
        }
        _ => None,
    }
}

/// The type of an attribute, and whether it is `optional(…)`.
fn attribute(expr: &Expression) -> Result<(Type, bool), Problem> {
    if let Expression::FuncCall(call) = expr
        && call.name.name.as_str() == "optional"
    {
        let args: Vec<&Expression> = call.args.iter().collect();
        return match args[..] {
            [ty] => Ok((of(ty)?, true)),
            _ => Err(wrong(expr)),
        };
    }
    Ok((of(expr)?, false))
}
