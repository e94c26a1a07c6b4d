//! Variables: their types, their values from the environment, their conditions.

use std::collections::BTreeMap;

use super::{
    convert::{self, convert},
    csv,
    entries::go_bool,
    error::{AtPlace as _, Fault, Problem},
    eval::{self, Scope},
    module::Module,
    syntax::{Attribute, Block, Expr, JsonKind},
    type_constraint,
    value::{Number, Type, Value},
};

/// The type that `type = …` names; none for null.
pub(super) fn constraint(attribute: &Attribute) -> Result<Option<Type>, Fault> {
    let ty = match &attribute.expr {
        Expr::Hcl(expr) if expr.is_null() => return Ok(None),
        Expr::Hcl(expr) => type_constraint::of(expr),
        Expr::Json(expr) => match &expr.kind {
            JsonKind::Null => return Ok(None),
            JsonKind::Text(text) => match hcl_edit::parser::parse_expr(text) {
                Ok(expr) => type_constraint::of(&expr),
                Err(_) => Err(Problem::Type { text: text.clone() }),
            },
            _ => Err(Problem::Type {
                text: "this".to_owned(),
            }),
        },
    };
    ty.map(Some)
        .map_err(|problem| {
            let hint = "types are `string`, `bool`, `number`, `any`, `list(…)`, `set(…)`, \
                        `map(…)`, `tuple([…])`, `object({…})`";
            Fault::from(problem).hint(Some(hint.to_owned()))
        })
        .at(&attribute.value_place)
}

/// The value of variable `name`: that of the environment, else its default.
pub(super) fn overridden(
    name: &str,
    default: Option<Value>,
    constraint: Option<Type>,
    given: Option<(String, bool)>,
) -> Result<Value, Problem> {
    let Some((text, is_json)) = given else {
        return Ok(match (default, constraint) {
            (Some(value), _) => value,
            (None, Some(ty)) => Value::Null(ty),
            (None, None) => Value::text(""),
        });
    };
    let wrong = |reason: String| Problem::VariableValue {
        name: name.to_owned(),
        reason: format!("its value from the environment {reason}"),
    };
    match (constraint, default) {
        (Some(ty), _) if is_json => {
            let json: serde_json::Value =
                serde_json::from_str(&text).map_err(|e| wrong(format!("is not JSON: {e}")))?;
            convert(&Value::from_json(&json), &ty).map_err(|p| wrong(p.to_string()))
        }
        (Some(Type::Any), _) => Err(wrong(
            "can't be read without knowing its type; give JSON in the variable with `_JSON` \
             after its name"
                .to_owned(),
        )),
        (Some(ty), _) if ty.is_primitive() => primitive(&text, &ty).map_err(wrong),
        (Some(ty), _) => listed(&text, &ty).map_err(wrong),
        (None, None) => Ok(Value::String(text)),
        (None, Some(Value::Null(_) | Value::String(_))) => Ok(Value::String(text)),
        (None, Some(default)) if default.ty().is_primitive() => {
            primitive(&text, &default.ty()).map_err(wrong)
        }
        (None, Some(default)) => match default.ty() {
            ty @ (Type::List(_) | Type::Set(_) | Type::Map(_) | Type::Tuple(_)) => {
                listed(&text, &ty).map_err(wrong)
            }
            ty => Err(wrong(format!("can't be made {ty}"))),
        },
    }
}

fn primitive(text: &str, ty: &Type) -> Result<Value, String> {
    match ty {
        Type::Bool => go_bool(text)
            .map(Value::Bool)
            .ok_or_else(|| format!("`{text}` is not a bool")),
        Type::Number => Number::parse(text.trim_start_matches('+'))
            .map(Value::Number)
            .ok_or_else(|| format!("`{text}` is not a number")),
        _ => Ok(Value::text(text)),
    }
}

/// A list, set, tuple or map from comma-separated values.
fn listed(text: &str, ty: &Type) -> Result<Value, String> {
    let fields = csv::fields(text)?;
    let plain = |of: &Type| match of.is_primitive() {
        true => Ok(()),
        false => Err(format!(
            "can't be made {ty}; give JSON in the variable with `_JSON` after its name"
        )),
    };
    let all = |of: &Type| -> Result<Vec<Value>, String> {
        plain(of)?;
        fields.iter().map(|field| primitive(field, of)).collect()
    };
    match ty {
        Type::List(of) => Ok(Value::list((**of).clone(), all(of)?)),
        Type::Set(of) => Ok(Value::set((**of).clone(), all(of)?)),
        Type::Tuple(types) if types.len() == fields.len() => {
            let values = fields.iter().zip(types).map(|(field, of)| {
                plain(of)?;
                primitive(field, of)
            });
            Ok(Value::Tuple(values.collect::<Result<_, _>>()?))
        }
        Type::Tuple(types) => Err(format!("has {} fields, not {}", fields.len(), types.len())),
        Type::Map(of) => {
            plain(of)?;
            let mut out = BTreeMap::new();
            for field in &fields {
                let (key, value) = field
                    .split_once(':')
                    .ok_or_else(|| format!("has `{field}`, which is not `key:value`"))?;
                out.insert(key.to_owned(), primitive(value, of)?);
            }
            Ok(Value::Map((**of).clone(), out))
        }
        ty => Err(format!("can't be made {ty}")),
    }
}

/// Checks the `validation` blocks of a variable.
pub(super) fn validate(module: &Module<'_>, block: &Block) -> Result<(), Fault> {
    for rule in block.body.blocks.iter().filter(|b| b.kind == "validation") {
        let Some(condition) = rule.body.attribute("condition") else {
            let problem = Problem::VariableValue {
                name: block.label.clone(),
                reason: "a validation has no `condition`".to_owned(),
            };
            return Err(Fault::from(problem).at(&rule.place));
        };
        let place = &condition.value_place;
        let value = eval::evaluate(&condition.expr, &Scope::new(module, place))?;
        if convert::bool(&value).at(place)? {
            continue;
        }
        let message = match rule.body.attribute("error_message") {
            Some(attribute) => {
                let scope = Scope::new(module, &attribute.value_place);
                let value = eval::evaluate(&attribute.expr, &scope)?;
                convert::string(&value).at(&attribute.value_place)?
            }
            None => "its condition is not met".to_owned(),
        };
        let problem = Problem::Validation {
            name: block.label.clone(),
            message,
        };
        return Err(Fault::from(problem).at(place));
    }
    Ok(())
}
