//! What is made of Dockerfiles, for `tests/e2e/language.py`, which compares it with what
//! BuildKit's frontend makes of the same.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{BufWriter, Write},
    path::Path,
};

use memobuild_ci::{
    digest::Sha256Digest,
    dockerfile,
    graph::{
        BuildGraph, ExecOp, ImageOp, ImageOrigin, ImageTable, LocalContext, LowerInput, MountOp,
        NetworkMode, Op, ResolvedImage, lower, needed_images,
    },
    oci::Platform,
};
use serde_json::{Value, json};

/// The configuration of every base image, as in `tests/oracle/main.go`.
const BASE: &str = r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]},
"config":{"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],"Cmd":["/bin/sh"]}}"#;

/// Reads all files of `MEMOBUILD_LANGUAGE_DIR` and writes `MEMOBUILD_LANGUAGE_OUT`, one line of
/// JSON each.
#[test]
#[ignore = "run by tests/e2e/language.py"]
fn answers() {
    let dir = std::env::var("MEMOBUILD_LANGUAGE_DIR").unwrap();
    let out = std::env::var("MEMOBUILD_LANGUAGE_OUT").unwrap();
    let mut out = BufWriter::new(File::create(out).unwrap());
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let mut found = answer(&path).unwrap_or_else(|error| json!({ "error": error }));
        found["name"] = json!(path.file_name().unwrap().to_str().unwrap());
        writeln!(out, "{found}").unwrap();
    }
    out.flush().unwrap();
}

fn answer(path: &Path) -> Result<Value, String> {
    let text = String::from_utf8(fs::read(path).unwrap()).map_err(|e| e.to_string())?;
    let parsed = dockerfile::parse("Dockerfile", &text).map_err(|e| e.to_string())?;
    let platform: Platform = "linux/amd64".parse().unwrap();
    let input = LowerInput::of(&parsed, platform);
    let mut graph = BuildGraph::default();
    graph.contexts.push(LocalContext {
        name: "context".to_owned(),
        dir: "/nowhere".into(),
        ignore: String::new(),
    });
    let mut images = ImageTable::new();
    loop {
        let needed = needed_images(&input, &images).map_err(|e| e.to_string())?;
        if needed.is_empty() {
            break;
        }
        for (reference, platform) in needed {
            let image = image(&reference);
            images.insert((reference, platform), image);
        }
    }
    let lowered = lower(&mut graph, &input, &images).map_err(|e| e.to_string())?;
    let target = &graph.targets[lowered.target];
    let (mut seen, mut todo, mut processes) = (BTreeSet::new(), vec![target.root], Vec::new());
    while let Some(id) = todo.pop() {
        if !seen.insert(id) {
            continue;
        }
        let op = &graph.vertex(id).op;
        todo.extend(op.inputs());
        if let Op::Exec(exec) = op {
            processes.push(process(exec));
        }
    }
    Ok(json!({ "config": target.config.config, "processes": processes }))
}

fn image(reference: &str) -> ResolvedImage {
    ResolvedImage {
        op: ImageOp {
            reference: reference.to_owned(),
            manifest: Sha256Digest::of(reference.as_bytes()),
            layers: Vec::new(),
            origin: ImageOrigin::Layout {
                dir: "/nowhere".into(),
            },
        },
        config: serde_json::from_str(BASE).unwrap(),
    }
}

fn process(exec: &ExecOp) -> Value {
    let mut env: Vec<String> = exec.env.iter().map(|(n, v)| format!("{n}={v}")).collect();
    env.sort();
    let mounts = exec.mounts.iter().map(|mount| {
        let (kind, target) = match mount {
            MountOp::Bind { target, .. } => ("bind", target),
            MountOp::Cache { target, .. } => ("cache", target),
            MountOp::Tmpfs { target, .. } => ("tmpfs", target),
            MountOp::Secret { target, .. } => ("secret", target),
            MountOp::Ssh { target, .. } => ("ssh", target),
        };
        format!("{kind} {target}")
    });
    let variables = &exec.extras.secret_variables;
    let variables = variables.iter().map(|v| format!("variable {}", v.name));
    let mut mounts: Vec<String> = mounts.chain(variables).collect();
    mounts.sort();
    json!({
        "args": exec.args, "env": env, "cwd": exec.cwd, "user": exec.user,
        "alone": exec.network == NetworkMode::None, "mounts": mounts,
    })
}
