//! Values and types of HCL expressions.
//!
//! [`Value`] follows HCL's type system: primitives, collections whose elements have one
//! type (list, set, map), and structures that may mix them (tuple, object).
//! Source: <https://github.com/hashicorp/hcl/blob/main/spec.md> and the documentation of `cty`.

use std::{cmp::Ordering, collections::BTreeMap, fmt};

/// The type of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Type {
    Any,
    Bool,
    Number,
    String,
    List(Box<Type>),
    Set(Box<Type>),
    Map(Box<Type>),
    Tuple(Vec<Type>),
    /// The types of the attributes, and whether each may be missing.
    Object(BTreeMap<String, (Type, bool)>),
}

impl Type {
    pub(super) fn is_primitive(&self) -> bool {
        matches!(self, Self::Bool | Self::Number | Self::String)
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any value"),
            Self::Bool => f.write_str("bool"),
            Self::Number => f.write_str("number"),
            Self::String => f.write_str("string"),
            Self::List(of) => write!(f, "list of {of}"),
            Self::Set(of) => write!(f, "set of {of}"),
            Self::Map(of) => write!(f, "map of {of}"),
            Self::Tuple(_) => f.write_str("tuple"),
            Self::Object(_) => f.write_str("object"),
        }
    }
}

/// A number: whole numbers are exact.
#[derive(Debug, Clone, Copy)]
pub(super) enum Number {
    Int(i128),
    Float(f64),
}

/// Below this every float with a whole value is made a whole number.
const EXACT: f64 = 1e30;

impl Number {
    /// `value`; none for what is not a number.
    pub(super) fn float(value: f64) -> Option<Self> {
        if !value.is_finite() {
            return None;
        }
        if value.fract() == 0.0 && value.abs() < EXACT {
            #[expect(clippy::cast_possible_truncation, reason = "whole and small enough")]
            return Some(Self::Int(value as i128));
        }
        Some(Self::Float(value))
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        if let Ok(value) = text.parse() {
            return Some(Self::Int(value));
        }
        let plain = |c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.' | 'e' | 'E');
        if !text.chars().all(plain) {
            return None;
        }
        Self::float(text.parse().ok()?)
    }

    #[expect(clippy::cast_precision_loss, reason = "as near as a float gets")]
    pub(super) fn as_f64(self) -> f64 {
        match self {
            Self::Int(value) => value as f64,
            Self::Float(value) => value,
        }
    }

    /// The whole number it is.
    pub(super) fn as_int(self) -> Option<i128> {
        match self {
            Self::Int(value) => Some(value),
            Self::Float(_) => None,
        }
    }

    /// The index it is.
    pub(super) fn as_index(self) -> Option<usize> {
        usize::try_from(self.as_int()?).ok()
    }

    /// Applies `exact` to whole numbers, as far as it gives one, else `float`.
    pub(super) fn with(
        self,
        other: Self,
        exact: impl Fn(i128, i128) -> Option<i128>,
        float: impl Fn(f64, f64) -> f64,
    ) -> Option<Self> {
        if let (Self::Int(a), Self::Int(b)) = (self, other)
            && let Some(value) = exact(a, b)
        {
            return Some(Self::Int(value));
        }
        Self::float(float(self.as_f64(), other.as_f64()))
    }

    pub(super) fn order(self, other: Self) -> Ordering {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => a.cmp(&b),
            (a, b) => a.as_f64().total_cmp(&b.as_f64()),
        }
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(value) => value.fmt(f),
            Self::Float(value) => {
                // Fifteen digits are what a float keeps of a decimal number: 0.1 + 0.2 is 0.3.
                let text = format!("{value:.14e}");
                text.parse().unwrap_or(*value).fmt(f)
            }
        }
    }
}

/// A value.
#[derive(Debug, Clone)]
pub(super) enum Value {
    /// Null of a type.
    Null(Type),
    Bool(bool),
    Number(Number),
    String(String),
    /// The type of the elements, and the elements.
    List(Type, Vec<Value>),
    /// The same, sorted, each value once.
    Set(Type, Vec<Value>),
    Map(Type, BTreeMap<String, Value>),
    Tuple(Vec<Value>),
    Object(BTreeMap<String, Value>),
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null(_), Self::Null(_)) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Number(a), Self::Number(b)) => a.order(*b).is_eq(),
            (Self::String(a), Self::String(b)) => a == b,
            (Self::List(ta, a), Self::List(tb, b)) | (Self::Set(ta, a), Self::Set(tb, b)) => {
                ta == tb && a == b
            }
            (Self::Map(ta, a), Self::Map(tb, b)) => ta == tb && a == b,
            (Self::Tuple(a), Self::Tuple(b)) => a == b,
            (Self::Object(a), Self::Object(b)) => a == b,
            _ => false,
        }
    }
}

impl Value {
    pub(super) const NULL: Self = Self::Null(Type::Any);

    pub(super) fn text(value: impl Into<String>) -> Self {
        Self::String(value.into())
    }

    pub(super) fn int(value: impl Into<i128>) -> Self {
        Self::Number(Number::Int(value.into()))
    }

    /// A count.
    pub(super) fn count(value: usize) -> Self {
        Self::Number(Number::Int(value as i128))
    }

    /// A list of texts.
    pub(super) fn texts(values: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self::List(Type::String, values.into_iter().map(Self::text).collect())
    }

    /// A list; the type is that of its elements.
    pub(super) fn list(of: Type, values: Vec<Self>) -> Self {
        Self::List(of, values)
    }

    /// A set of `values`.
    pub(super) fn set(of: Type, mut values: Vec<Self>) -> Self {
        values.sort_by(Self::order);
        values.dedup();
        Self::Set(of, values)
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(self, Self::Null(_))
    }

    pub(super) fn ty(&self) -> Type {
        match self {
            Self::Null(ty) => ty.clone(),
            Self::Bool(_) => Type::Bool,
            Self::Number(_) => Type::Number,
            Self::String(_) => Type::String,
            Self::List(of, _) => Type::List(Box::new(of.clone())),
            Self::Set(of, _) => Type::Set(Box::new(of.clone())),
            Self::Map(of, _) => Type::Map(Box::new(of.clone())),
            Self::Tuple(values) => Type::Tuple(values.iter().map(Self::ty).collect()),
            Self::Object(values) => Type::Object(
                values
                    .iter()
                    .map(|(name, value)| (name.clone(), (value.ty(), false)))
                    .collect(),
            ),
        }
    }

    /// What it is, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null(_) => "null",
            Self::Bool(_) => "a bool",
            Self::Number(_) => "a number",
            Self::String(_) => "a string",
            Self::List(..) => "a list",
            Self::Set(..) => "a set",
            Self::Map(..) => "a map",
            Self::Tuple(_) => "a tuple",
            Self::Object(_) => "an object",
        }
    }

    /// The elements of a list, a set or a tuple.
    pub(super) fn elements(&self) -> Option<&[Self]> {
        match self {
            Self::List(_, values) | Self::Set(_, values) | Self::Tuple(values) => Some(values),
            _ => None,
        }
    }

    /// The entries of a map or an object.
    pub(super) fn entries(&self) -> Option<&BTreeMap<String, Self>> {
        match self {
            Self::Map(_, values) | Self::Object(values) => Some(values),
            _ => None,
        }
    }

    /// A total order, by kind and then by value; that of sets.
    pub(super) fn order(&self, other: &Self) -> Ordering {
        fn rank(value: &Value) -> u8 {
            match value {
                Value::Null(_) => 0,
                Value::Bool(_) => 1,
                Value::Number(_) => 2,
                Value::String(_) => 3,
                Value::List(..) | Value::Set(..) | Value::Tuple(_) => 4,
                Value::Map(..) | Value::Object(_) => 5,
            }
        }
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => a.cmp(b),
            (Self::Number(a), Self::Number(b)) => a.order(*b),
            (Self::String(a), Self::String(b)) => a.cmp(b),
            _ => match (self.elements(), other.elements()) {
                (Some(a), Some(b)) => {
                    let pairs = a.iter().zip(b).map(|(a, b)| a.order(b));
                    pairs
                        .fold(Ordering::Equal, Ordering::then)
                        .then(a.len().cmp(&b.len()))
                }
                _ => match (self.entries(), other.entries()) {
                    (Some(a), Some(b)) => {
                        let pairs = a
                            .iter()
                            .zip(b)
                            .map(|((ka, a), (kb, b))| ka.cmp(kb).then_with(|| a.order(b)));
                        pairs
                            .fold(Ordering::Equal, Ordering::then)
                            .then(a.len().cmp(&b.len()))
                    }
                    _ => rank(self).cmp(&rank(other)),
                },
            },
        }
    }

    /// The value as JSON.
    pub(super) fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match self {
            Self::Null(_) => Json::Null,
            Self::Bool(value) => Json::Bool(*value),
            Self::Number(Number::Int(value)) => match i64::try_from(*value) {
                Ok(value) => value.into(),
                Err(_) => Number::Int(*value).as_f64().into(),
            },
            Self::Number(Number::Float(value)) => (*value).into(),
            Self::String(value) => value.as_str().into(),
            Self::List(_, values) | Self::Set(_, values) | Self::Tuple(values) => {
                values.iter().map(Self::to_json).collect()
            }
            Self::Map(_, values) | Self::Object(values) => Json::Object(
                values
                    .iter()
                    .map(|(name, value)| (name.clone(), value.to_json()))
                    .collect(),
            ),
        }
    }

    /// The value that a JSON text stands for: arrays are tuples, mappings objects.
    pub(super) fn from_json(json: &serde_json::Value) -> Self {
        use serde_json::Value as Json;
        match json {
            Json::Null => Self::NULL,
            Json::Bool(value) => Self::Bool(*value),
            Json::Number(value) => match Number::parse(&value.to_string()) {
                Some(number) => Self::Number(number),
                None => Self::NULL,
            },
            Json::String(value) => Self::text(value),
            Json::Array(values) => Self::Tuple(values.iter().map(Self::from_json).collect()),
            Json::Object(values) => Self::Object(
                values
                    .iter()
                    .map(|(name, value)| (name.clone(), Self::from_json(value)))
                    .collect(),
            ),
        }
    }
}
