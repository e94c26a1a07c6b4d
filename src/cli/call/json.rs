//! The JSON that BuildKit's subrequests answer with: places and sources.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

use crate::{cli::CliError, dockerfile::Source};

/// A place: one range for each line, and the source's number if it isn't the first.
pub(super) fn location(source: usize, start: usize, end: usize) -> Value {
    let ranges: Vec<Value> = (start..=end)
        .map(|line| json!({ "start": { "line": line }, "end": { "line": line } }))
        .collect();
    let mut location = Map::new();
    if source > 0 {
        location.insert("sourceIndex".to_owned(), json!(source));
    }
    location.insert("ranges".to_owned(), Value::Array(ranges));
    Value::Object(location)
}

/// The text of a file, as Go writes bytes.
pub(super) fn data(source: &Source) -> Value {
    Value::String(STANDARD.encode(&source.text))
}

/// Sets a key that is left out when there is nothing to say.
pub(super) fn set(object: &mut Map<String, Value>, key: &str, value: impl Into<Value>) {
    let value = value.into();
    let empty = match &value {
        Value::Null => true,
        Value::Bool(set) => !set,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Number(_) | Value::Object(_) => false,
    };
    if !empty {
        object.insert(key.to_owned(), value);
    }
}

/// One answer by itself, several by name.
pub(super) fn several(answers: Vec<(String, Value)>) -> Result<String, CliError> {
    let value = match <[_; 1]>::try_from(answers) {
        Ok([(_, only)]) => only,
        Err(answers) => Value::Object(answers.into_iter().collect()),
    };
    Ok(serde_json::to_string_pretty(&value)? + "\n")
}
