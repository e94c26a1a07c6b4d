//! The reference pages under `docs/reference/` say what the code says.
//!
//! They are generated here; `UPDATE_DOCS=1 cargo test --test it reference` writes them.

use std::{fmt::Write as _, path::Path};

use memobuild_ci::{
    cli::exit::ExitCode,
    config::{self, Config},
};
use serde_json::Value;

/// Compares the page with what was generated, or writes it.
fn page(name: &str, body: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("docs/reference")
        .join(name);
    let text = format!(
        "<!-- Generated from the code by tests/it/reference.rs; UPDATE_DOCS=1 writes it. -->\n{body}"
    );
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        return;
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == text,
        "{} is not what the code says; `UPDATE_DOCS=1 cargo test --test it reference` writes it",
        path.display()
    );
}

#[test]
fn exit_codes() {
    let mut body = "# Exit codes

A script can tell from the exit code alone what to do. Codes are only added; treat one that you don't know as a failure.

| code | name | meaning |
|---|---|---|
"
    .to_owned();
    for code in ExitCode::ALL {
        let (number, name) = (code.code(), code.name());
        let _ = writeln!(body, "| {number} | {name} | {} |", code.meaning());
    }
    page("exit-codes.md", &body);
}

#[test]
fn environment() {
    let mut body = "# Environment variables

All environment variables that the program reads. An empty value counts as not set. Values marked secret are never shown.

| variable | meaning | default |
|---|---|---|
"
    .to_owned();
    for variable in config::env::VARIABLES {
        let secret = if variable.secret { " (secret)" } else { "" };
        let (name, meaning, default) = (variable.name, variable.meaning, variable.default);
        let _ = writeln!(body, "| `{name}` | {meaning}{secret} | {default} |");
    }
    page("environment.md", &body);
}

/// Shown on the page; [`the_example_is_valid`] reads it.
const EXAMPLE: &str = r#"version: 1
image: registry.example/acme/service

layers:
  base:
    dockerfile: docker/{variant}/Dockerfile.base
    args: {PYTHON: "3.12"}
    refresh: weekly
  ml:
    from: base
    dockerfile: docker/{variant}/Dockerfile.ml
  app:
    from: ml
    dockerfile: docker/Dockerfile.app
    context: .

variants:
  cpu:
    platforms: [linux/amd64, linux/arm64]
  cuda:
    platforms: [linux/amd64]
    args: {CUDA: "12.6"}
    layers:
      app: {dockerfile: docker/cuda/Dockerfile.app}

cache:
  max-size: 20GB
"#;

#[test]
fn the_example_is_valid() {
    Config::parse("memobuild.yml", EXAMPLE).unwrap();
}

#[test]
fn configuration() {
    let schema = config::schema();
    let mut body = format!(
        "# memobuild.yml

{}

```yaml
{EXAMPLE}```

Editors complete and check the file with the JSON schema that `memobuild-ci config schema` prints. Paths start at the
directory of the file. Each layer of each variant on each of its platforms is a target; its image is tagged
`<variant>-<layer>`, or `<layer>` where the file has no variants. The Dockerfile of a layer that is built on another names
it by an argument before its first `FROM`:

```dockerfile
ARG BASE_IMAGE
FROM $BASE_IMAGE
```
",
        text(&schema)
    );
    object(&mut body, "Top level", &schema, false);
    for (name, definition) in schema["$defs"].as_object().unwrap() {
        if definition.get("properties").is_some() {
            object(&mut body, name, definition, true);
        } else {
            values(&mut body, name, definition);
        }
    }
    page("configuration.md", &body);
}

/// The description in `schema`, as one paragraph.
fn text(schema: &Value) -> String {
    let text = schema["description"].as_str().unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A section with a table of keys.
fn object(body: &mut String, name: &str, schema: &Value, describe: bool) {
    let _ = write!(body, "\n## {name}\n\n");
    if describe {
        let _ = write!(body, "{}\n\n", text(schema));
    }
    body.push_str("| key | value | meaning |\n|---|---|---|\n");
    let required: Vec<&str> = schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    for (key, value) in schema["properties"].as_object().unwrap() {
        let must = if required.contains(&key.as_str()) {
            ", required"
        } else {
            ""
        };
        let kind = kind(value);
        let _ = writeln!(body, "| `{key}` | {kind}{must} | {} |", text(value));
    }
}

/// A section with a table of allowed values.
fn values(body: &mut String, name: &str, schema: &Value) {
    let _ = write!(body, "\n## {name}\n\n{}\n\n", text(schema));
    body.push_str("| value | meaning |\n|---|---|\n");
    for choice in schema["oneOf"].as_array().unwrap() {
        let value = match (choice["const"].as_str(), choice["properties"].as_object()) {
            (Some(word), _) => word.to_owned(),
            (None, Some(properties)) => {
                let key = properties.keys().next().unwrap();
                format!("{{{key}: …}}")
            }
            _ => panic!("a choice of unknown form: {choice}"),
        };
        let _ = writeln!(body, "| `{value}` | {} |", text(choice));
    }
}

/// What a value looks like, in a few words.
fn kind(schema: &Value) -> String {
    if let Some(reference) = schema["$ref"].as_str() {
        let name = reference.rsplit('/').next().unwrap();
        return format!("[{name}](#{})", name.to_lowercase());
    }
    for choice in schema["anyOf"].as_array().into_iter().flatten() {
        if choice["type"] != "null" {
            return kind(choice);
        }
    }
    let kinds = match &schema["type"] {
        Value::Array(kinds) => kinds.iter().find(|k| *k != "null").unwrap(),
        kind => kind,
    };
    match kinds.as_str().unwrap() {
        "string" => "text".to_owned(),
        "integer" => "whole number".to_owned(),
        "array" => format!("list of {}", kind(&schema["items"])),
        "object" => format!(
            "mapping of names to {}",
            kind(&schema["additionalProperties"])
        ),
        other => panic!("no word for type {other}"),
    }
}
