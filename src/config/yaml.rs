//! From text to [`File`]: what serde-saphyr finds wrong, in our words.

use serde_saphyr::{Error, MessageFormatter, UserMessageFormatter};

use super::{
    at::Place,
    error::{Fault, Problem},
    file::File,
    suggest,
};

/// Reads one YAML document.
pub(super) fn read(text: &str) -> Result<File, Fault> {
    let options = serde_saphyr::options! {
        strict_booleans: true,
        reject_unsupported_tags: true,
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| fault(&error))
}

/// What `error` means to the author of the file.
fn fault(error: &Error) -> Fault {
    let error = error.without_snippet();
    let place = error.location().map(Place::from).unwrap_or_default();
    let problem = match error {
        // The use of the anchor is where the reader has to look.
        Error::AliasError { error, .. } => {
            return Fault {
                place,
                ..fault(error)
            };
        }
        Error::SerdeUnknownField {
            field, expected, ..
        } => {
            let problem = Problem::UnknownKey { key: field.clone() };
            return Fault::new(place, problem).hint(suggest::key(field, expected));
        }
        Error::SerdeUnknownVariant {
            variant, expected, ..
        } => {
            let problem = Problem::NotAllowed {
                value: variant.clone(),
                allowed: suggest::list(expected),
            };
            let hint = suggest::nearest(variant, expected.iter().copied());
            return Fault {
                hint: hint.map(|h| format!("did you mean `{h}`?")),
                ..Fault::new(place, problem)
            };
        }
        Error::SerdeMissingField { field, .. } => Problem::MissingKey {
            key: (*field).to_owned(),
        },
        Error::DuplicateMappingKey { key, .. } => Problem::DuplicateKey {
            key: key.clone().unwrap_or_else(|| "?".to_owned()),
        },
        Error::SerdeInvalidType {
            unexpected,
            expected,
            ..
        }
        | Error::SerdeInvalidValue {
            unexpected,
            expected,
            ..
        } => Problem::WrongType {
            expected: expected.clone(),
            found: unexpected.clone(),
        },
        Error::Unexpected { expected, .. } => Problem::Expected {
            expected: match *expected {
                "string scalar" => "a text",
                "mapping start" => "a mapping, `key: value`",
                "sequence start" => "a list, `[a, b]`",
                other => other,
            },
        },
        Error::InvalidScalar { ty, .. } => Problem::Expected {
            expected: match *ty {
                "u64" => "a whole number, 0 or more",
                other => other,
            },
        },
        Error::NullIntoString { .. } => Problem::Expected {
            expected: "a value; an empty text is `\"\"`",
        },
        Error::UnknownAnchor { .. } => Problem::UnknownAnchor,
        other => Problem::Yaml {
            message: UserMessageFormatter.format_message(other).into_owned(),
        },
    };
    Fault::new(place, problem)
}
