//! The standard functions of bake files.
//!
//! They are those of buildx, which are HCL's and a few more. Three of its list are missing:
//! what `bcrypt` and `uuidv4` give is another value in every build, and `rsadecrypt` would
//! put a secret into the plan. Source: <https://docs.docker.com/build/bake/stdlib/>.

mod date;
mod encode;
mod format;
mod lists;
mod network;
mod numbers;
mod semver;
mod sets;
mod strings;

use std::time::SystemTime;

pub(super) use strings::clean;

use super::{
    convert::{self, convert},
    error::{Fault, Problem},
    eval::Scope,
    value::{Number, Type, Value},
};

/// Text that one call may make, in bytes.
const MAX_TEXT: usize = 16 << 20;

/// All names, for hints.
pub(super) const NAMES: &[&str] = &[
    "absolute",
    "add",
    "and",
    "base64decode",
    "base64encode",
    "basename",
    "can",
    "ceil",
    "chomp",
    "chunklist",
    "cidrhost",
    "cidrnetmask",
    "cidrsubnet",
    "cidrsubnets",
    "coalesce",
    "coalescelist",
    "compact",
    "concat",
    "contains",
    "convert",
    "csvdecode",
    "dirname",
    "distinct",
    "divide",
    "element",
    "equal",
    "flatten",
    "floor",
    "format",
    "formatdate",
    "formattimestamp",
    "formatlist",
    "greaterthan",
    "greaterthanorequalto",
    "hasindex",
    "homedir",
    "indent",
    "index",
    "indexof",
    "int",
    "join",
    "jsondecode",
    "jsonencode",
    "keys",
    "length",
    "lessthan",
    "lessthanorequalto",
    "log",
    "lookup",
    "lower",
    "max",
    "md5",
    "merge",
    "min",
    "modulo",
    "multiply",
    "negate",
    "not",
    "notequal",
    "or",
    "parseint",
    "pow",
    "range",
    "regex",
    "regex_replace",
    "regexall",
    "replace",
    "reverse",
    "reverselist",
    "sanitize",
    "semvercmp",
    "sethaselement",
    "setintersection",
    "setproduct",
    "setsubtract",
    "setsymmetricdifference",
    "setunion",
    "sha1",
    "sha256",
    "sha512",
    "signum",
    "slice",
    "sort",
    "split",
    "strlen",
    "substr",
    "subtract",
    "timeadd",
    "timestamp",
    "title",
    "trim",
    "trimprefix",
    "trimspace",
    "trimsuffix",
    "try",
    "unixtimestampparse",
    "upper",
    "urlencode",
    "uuidv5",
    "values",
    "zipmap",
];

/// Functions of buildx that are left out, and why.
const REFUSED: &[(&str, &str)] = &[
    ("bcrypt", "its result is another one in every build"),
    (
        "uuidv4",
        "its result is another one in every build; use `uuidv5`",
    ),
    (
        "rsadecrypt",
        "a decrypted secret would be part of the plan; use a build secret",
    ),
    ("byteslen", "no value is of the type that it takes"),
    ("bytesslice", "no value is of the type that it takes"),
];

/// Whether buildx has a function `name` that is left out here.
pub(super) fn is_refused(name: &str) -> bool {
    REFUSED.iter().any(|(refused, _)| *refused == name)
}

/// What functions know of the outside.
#[derive(Debug, Clone)]
pub(super) struct Outside {
    pub(super) now: SystemTime,
    pub(super) home: String,
}

/// The wrong number of arguments.
pub(super) fn arity(name: &str, expected: &str, given: usize) -> Problem {
    Problem::Arity {
        name: name.to_owned(),
        expected: expected.to_owned(),
        given,
    }
}

/// Calls the function `name`; none if there is no such function.
pub(super) fn call(name: &str, args: &[Value], scope: &Scope<'_>) -> Result<Option<Value>, Fault> {
    if let Some((_, reason)) = REFUSED.iter().find(|(refused, _)| *refused == name) {
        return Err(failed(name, *reason).into());
    }
    let args = Args { name, values: args };
    scope.burn(args.weight())?;
    let outside = scope.names.outside();
    let result = numbers::call(&args)
        .or_else(|| strings::call(&args))
        .or_else(|| lists::call(&args))
        .or_else(|| sets::call(&args))
        .or_else(|| encode::call(&args))
        .or_else(|| date::call(&args, outside))
        .or_else(|| network::call(&args))
        .or_else(|| (name == "homedir").then(|| Ok(Value::text(&outside.home))));
    let Some(value) = result.transpose()? else {
        return Ok(None);
    };
    if let Some(values) = value.elements() {
        scope.burn(values.len())?;
    }
    Ok(Some(value))
}

/// A failure of function `name`.
fn failed(name: &str, message: impl Into<String>) -> Problem {
    Problem::Function {
        name: name.to_owned(),
        message: message.into(),
    }
}

/// What a function gives.
type Outcome = Result<Value, Problem>;

/// The arguments of a call.
struct Args<'a> {
    name: &'a str,
    values: &'a [Value],
}

impl<'a> Args<'a> {
    /// About how much work the call is.
    fn weight(&self) -> usize {
        let of = |value: &Value| match value {
            Value::String(text) => text.len() / 256,
            value => value.elements().map_or(1, <[Value]>::len),
        };
        self.values.iter().map(of).sum::<usize>() + 1
    }

    fn fail(&self, message: impl Into<String>) -> Problem {
        failed(self.name, message)
    }

    /// Checks that there are from `least` to `most` arguments.
    fn count(&self, least: usize, most: usize) -> Result<(), Problem> {
        let given = self.values.len();
        if (least..=most).contains(&given) {
            return Ok(());
        }
        let expected = match (least, most) {
            (1, 1) => "1 argument".to_owned(),
            (least, most) if least == most => format!("{least} arguments"),
            (least, usize::MAX) => format!("{least} arguments or more"),
            (least, most) => format!("{least} to {most} arguments"),
        };
        Err(arity(self.name, &expected, given))
    }

    /// The arguments, which must be `N`.
    fn exactly<const N: usize>(&self) -> Result<&'a [Value; N], Problem> {
        self.count(N, N)?;
        self.values
            .try_into()
            .map_err(|_| arity(self.name, "other arguments", self.values.len()))
    }

    fn texts<const N: usize>(&self) -> Result<[String; N], Problem> {
        let values = self.exactly::<N>()?;
        let mut out = [const { String::new() }; N];
        for (out, value) in out.iter_mut().zip(values) {
            *out = convert::string(value)?;
        }
        Ok(out)
    }

    fn numbers<const N: usize>(&self) -> Result<[Number; N], Problem> {
        let values = self.exactly::<N>()?;
        let mut out = [Number::Int(0); N];
        for (out, value) in out.iter_mut().zip(values) {
            *out = convert::number(value)?;
        }
        Ok(out)
    }

    /// The elements of a list, a set or a tuple.
    fn elements(&self, value: &'a Value) -> Result<&'a [Value], Problem> {
        value.elements().ok_or_else(|| Problem::WrongType {
            expected: "a list".to_owned(),
            found: value.kind().to_owned(),
        })
    }

    /// A whole number that can count.
    fn size(&self, value: &Value) -> Result<usize, Problem> {
        convert::number(value)?
            .as_index()
            .ok_or_else(|| self.fail("expected a whole number, 0 or more"))
    }

    fn int(&self, value: &Value) -> Result<i64, Problem> {
        convert::number(value)?
            .as_int()
            .and_then(|n| i64::try_from(n).ok())
            .ok_or_else(|| self.fail("expected a whole number"))
    }

    /// Refuses texts that are too long.
    fn text(&self, text: String) -> Outcome {
        match text.len() {
            0..=MAX_TEXT => Ok(Value::String(text)),
            _ => Err(Problem::TooLarge { limit: MAX_TEXT }),
        }
    }

    /// `values` as a list of the type they have in common, else as a tuple.
    fn list(values: Vec<Value>) -> Value {
        match convert::unify(values.iter().map(Value::ty)) {
            Some(of) => {
                let tuple = Value::Tuple(values);
                convert(&tuple, &Type::List(Box::new(of))).unwrap_or(tuple)
            }
            None => Value::Tuple(values),
        }
    }
}
