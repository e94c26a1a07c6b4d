//! The reference pages under `docs/reference/` say what the code says.
//!
//! They are generated here; `UPDATE_DOCS=1 cargo test --test it reference` writes them.

use std::{fmt::Write as _, path::Path};

use memobuild_ci::{
    cli::{
        self,
        buildx::{FLAGS, State},
        exit::ExitCode,
    },
    config::{self, Config},
    dockerfile::lint::RULES,
    event::{BuildEvent, EVENT_VERSION},
    git::base::BaseReason,
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
fn checks() {
    let mut body = CHECKS.to_owned();
    for rule in RULES {
        let anchor = rule.name.to_ascii_lowercase();
        let when = if rule.experimental {
            " (experimental)"
        } else {
            ""
        };
        let (name, description) = (rule.name, rule.description);
        let _ = writeln!(body, "| [{name}](#{anchor}) | {description}{when} |");
    }
    for rule in RULES {
        let (name, description, reason) = (rule.name, rule.description, rule.reason);
        let mut chars = description.chars();
        let first: String = chars
            .next()
            .map(|c| c.to_uppercase().collect())
            .unwrap_or_default();
        let _ = write!(body, "\n## {name}\n\n{first}{}. {reason}\n", chars.as_str());
        if rule.experimental {
            let _ = write!(
                body,
                "\nIt is checked only when asked for: `# check=experimental={name}`.\n"
            );
        }
        for (word, example) in [("Not", rule.bad), ("But", rule.good)] {
            if !example.is_empty() {
                let _ = write!(body, "\n{word}:\n\n```dockerfile\n{example}```\n");
            }
        }
    }
    page("checks.md", &body);
}

/// What stands before the table of rules.
const CHECKS: &str = "# Build checks

`memobuild-ci build --check DIR` (the same as `--call check`) finds what works in a Dockerfile but is likely a mistake. Nothing is run. The
rules, their names and the places they are reported at are those of BuildKit 0.33, so settings for `docker build --check` count here too. An
ordinary build shows the violations in the stages it needs as warnings.

All stages are checked; with `--target` those that it needs. Without `CONTEXT` and `-f`, the Dockerfiles of the chosen layer targets of
`memobuild.yml` are. Base images are resolved, as for a build.

| option | output |
|---|---|
| `--call check` | excerpts for people |
| `--call check,format=json` | BuildKit's JSON: `warnings` with `ruleName`, `description`, `url`, `detail`, `location`; `sources`; `buildError` |
| `--call check,format=github` | annotations of GitHub Actions, Gitea and Forgejo: print them in a step |
| `--call check,format=gitlab` | a code quality report: write it to a file that `artifacts:reports:codequality` names |

The exit code is 0 without violations and 11 with some. A Dockerfile that can't be built ends with the code of that error, such as 20, after the
violations found so far: those above the error, if it can't be parsed. `--call check,ignorestatus=true` gives 0 instead of 11, for jobs
that only report. 11 is not 20, because the Dockerfile is valid and a build of it can work; and not 1, which says that something failed. All codes are on [their page](exit-codes.md).

## Settings

A line at the top of the Dockerfile, among the other directives:

```dockerfile
# check=skip=StageNameCasing,JSONArgsRecommended;error=true
FROM scratch
```

- `skip=RULE,…` turns rules off, `skip=all` all of them.
- `experimental=RULE,…` turns experimental rules on, `experimental=all` all of them. `skip` has no effect on these.
- `error=true` makes violations errors: a build fails before any step runs, with exit code 11.

There are no spaces in it: what follows the first one is ignored. The build argument `BUILDKIT_DOCKERFILE_CHECK=skip=…` replaces the line. A
comment `# check=skip=RULE` right before an instruction counts for that instruction alone; rules about the whole file (`ConsistentInstructionCasing`,
`DuplicateStageName`, `ReservedStageName`, `InvalidDefaultArgInFrom`, `NoEmptyContinuation`, `InvalidBaseImagePlatform`) don't see it.

## Outline and targets

`--call targets` lists the stages, `--call outline` the build arguments, secrets and SSH agents that a target takes (`--target` names another than the
last). Both know `format=json`, with BuildKit's fields. Descriptions are comments right before FROM or ARG that start with the name:

```dockerfile
# build compiles the program
FROM scratch AS build
# VERSION stands in the output of `--version`
ARG VERSION=dev
```

Neither needs a registry: an image that is not in an `oci-layout://` counts as empty in an outline, so variables and ONBUILD triggers of such an image
don't show.

## Rules

| rule | what it asks for |
|---|---|
";

#[test]
fn environment() {
    let mut body = "# Environment variables

All environment variables that the program reads, besides those that `--build-arg NAME` names without a value. An empty value
counts as not set. Values marked secret are never shown.

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

#[test]
fn reasons_for_bases() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/docs/reference/ci-platforms.md"
    );
    let page = std::fs::read_to_string(path).unwrap();
    let rows = page.lines().skip_while(|line| *line != "## Reasons");
    let told: Vec<_> = rows
        .filter_map(|row| row.strip_prefix("| `")?.split('`').next())
        .collect();
    let words: Vec<_> = BaseReason::ALL.map(BaseReason::word).into();
    assert_eq!(told, words);
}

#[test]
fn command_line() {
    let mut root = cli::command();
    root.build();
    let mut body = "# Command line

The answer of a command goes to stdout, everything else to stderr. The number that a command ends with is one of
[exit-codes.md](exit-codes.md). Each command shows its options with `--help`.
"
    .to_owned();
    let every: Vec<_> = root.get_arguments().filter(|a| a.is_global_set()).collect();
    command(&mut body, &root, "memobuild-ci");
    body.push_str("\n## Options of every command\n\n");
    options(&mut body, &every);
    page("cli.md", &body);
}

#[test]
fn buildx_flags() {
    let mut body = "# Flags of docker buildx build

What becomes of each flag of `docker buildx build` and of the older `docker build`. A flag without effect is accepted where
ignoring it can't change the image: it chooses a daemon, cleans up after one, or limits what a step may use, which
`docker buildx build` ignores as well. Where it asks for something that isn't done, a warning says so. All others that we don't have are errors with
a hint.

| flag | here | note |
|---|---|---|
"
    .to_owned();
    for flag in FLAGS {
        let state = match flag.state {
            State::Same => "yes",
            State::NoEffect => "no effect",
            State::Refused => "error",
        };
        let _ = writeln!(body, "| `{}` | {state} | {} |", flag.name, flag.note);
    }
    body.push_str(
        "
Our own options of `build`, which `docker buildx build` doesn't have, are in [cli.md](cli.md); what `-o` and `--annotation` take
is in [the guide to outputs](../guides/outputs.md).
",
    );
    page("buildx-flags.md", &body);
}

/// The sections of a command's subcommands, which do the work.
fn command(body: &mut String, parent: &clap::Command, path: &str) {
    for child in parent.get_subcommands() {
        let path = format!("{path} {}", child.get_name());
        if child.has_subcommands() {
            command(body, child, &path);
            continue;
        }
        let about = child.get_about().map(ToString::to_string);
        let usage = child.clone().render_usage().to_string();
        let usage = usage.trim_start_matches("Usage: ");
        let _ = write!(
            body,
            "\n## {path}\n\n{}.\n\n```text\n{usage}\n```\n",
            about.unwrap_or_default()
        );
        let own: Vec<_> = child
            .get_arguments()
            .filter(|a| !a.is_global_set() && !a.is_hide_set() && a.get_id() != "help")
            .collect();
        if !own.is_empty() {
            body.push('\n');
            options(body, &own);
        }
    }
}

/// A table of arguments.
fn options(body: &mut String, list: &[&clap::Arg]) {
    body.push_str("| option | meaning |\n|---|---|\n");
    for arg in list {
        let values: Vec<_> = arg.get_value_names().into_iter().flatten().collect();
        let value = match (values.first(), arg.get_action().takes_values()) {
            (Some(name), true) => format!(" {name}"),
            _ => String::new(),
        };
        let mut names = Vec::new();
        names.extend(arg.get_short().map(|short| format!("`-{short}`")));
        match arg.get_long() {
            Some(long) => names.push(format!("`--{long}{value}`")),
            None => names.push(format!("`{}`", value.trim())),
        }
        let mut meaning = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let possible: Vec<_> = arg
            .get_possible_values()
            .iter()
            .map(|value| format!("`{}`", value.get_name()))
            .collect();
        if !possible.is_empty() && arg.get_action().takes_values() {
            let _ = write!(meaning, " ({})", possible.join(", "));
        }
        let default: Vec<_> = arg.get_default_values().iter().collect();
        if let (Some(default), true) = (default.first(), arg.get_action().takes_values()) {
            let _ = write!(meaning, " [default: {}]", default.display());
        }
        let row = format!("| {} | {meaning} |", names.join(", "));
        // A bar ends a cell, in code too.
        let cells = row
            .trim_matches('|')
            .split(" | ")
            .map(|c| c.replace('|', "\\|"));
        let _ = writeln!(body, "|{}|", cells.collect::<Vec<_>>().join(" | "));
    }
}

#[test]
fn events() {
    let schema = serde_json::to_value(schemars::schema_for!(BuildEvent)).unwrap();
    let mut body = format!(
        "# Build events

`memobuild-ci build --progress json` writes what happens as NDJSON to stderr: one JSON object a line. A failure's report
follows the last event as text, so a reader takes only the lines that begin with `{{`. Version {EVENT_VERSION}; fields and
events are only ever added.

```json
{{\"v\":1,\"ms\":7244,\"event\":\"step-finished\",\"step\":2,\"name\":\"[ml 2/3] RUN pip install numpy\",\"outcome\":\"ran\",\"took_ms\":1234,\"layer_bytes\":33600000}}
```

Every event has

| field | value | meaning |
|---|---|---|
| `v` | whole number | version of this format |
| `ms` | whole number | milliseconds since the start of the build |
| `event` | text | which event, as in the headings below |
"
    );
    for event in schema["oneOf"].as_array().unwrap() {
        let properties = event["properties"].as_object().unwrap();
        let name = properties["event"]["const"].as_str().unwrap();
        let _ = write!(body, "\n## {name}\n\n{}\n\n", text(event));
        body.push_str("| field | value | meaning |\n|---|---|---|\n");
        let required = event["required"].as_array().unwrap();
        for (key, value) in properties.iter().filter(|(key, _)| *key != "event") {
            let may = match required.iter().any(|r| r == key) {
                true => "",
                false => ", may be missing",
            };
            let _ = writeln!(body, "| `{key}` | {}{may} | {} |", kind(value), text(value));
        }
    }
    for (name, definition) in schema["$defs"].as_object().unwrap() {
        if definition.get("properties").is_some() {
            object(&mut body, name, definition, true);
        } else if definition.get("oneOf").is_some() {
            values(&mut body, name, definition);
        } else {
            let _ = write!(body, "\n## {name}\n\n{}\n", text(definition));
        }
    }
    page("events.md", &body);
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
    if let Some(choices) = schema["anyOf"].as_array() {
        let some = choices.iter().filter(|choice| choice["type"] != "null");
        return some.map(kind).collect::<Vec<_>>().join(" or ");
    }
    if let Some(word) = schema["const"].as_str() {
        return format!("`{word}`");
    }
    let kinds = match &schema["type"] {
        Value::Array(kinds) => kinds.iter().find(|k| *k != "null").unwrap(),
        kind => kind,
    };
    match kinds.as_str().unwrap() {
        "string" => "text".to_owned(),
        "integer" => "whole number".to_owned(),
        "boolean" => "true or false".to_owned(),
        "array" => match schema["items"]["anyOf"] {
            Value::Null => format!("list of {}", kind(&schema["items"])),
            _ => format!("list of ({})", kind(&schema["items"])),
        },
        "object" => format!(
            "mapping of names to {}",
            kind(&schema["additionalProperties"])
        ),
        other => panic!("no word for type {other}"),
    }
}
