//! `explain` names the cause: every part of a key is changed, one at a time.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
};

use memobuild_ci::{
    cache::{Access, Scope, SearchOrder, Vouching},
    engine::explain::{Cause, Forecast, Verdict},
    event::BuildEvent,
};
use serde_json::Value;

use crate::{
    build_fixture::{Project, Tar},
    registry_server::{Family, Image},
    tier_lab::{Fault, Lab, LabTier},
};

/// The Dockerfiles that are mutated. What is not kept as text in entries is there too: values of
/// more than 256 bytes.
const RUNS: &str = "\
FROM @/busybox AS tools
RUN echo tool > /tool

FROM @/busybox
ARG V=1
ENV LONG=@long LATER=x
ENV API_TOKEN=12345678
WORKDIR /work
USER 7:8
RUN --mount=type=bind,source=data,target=/data \\
    --mount=type=bind,from=tools,target=/tools \\
    --mount=type=cache,id=c,target=/c \\
    --mount=type=tmpfs,target=/t \\
    --mount=type=secret,id=s,target=/s \\
    echo first $V
RUN --network=none echo second
RUN <<END
echo third
END
SHELL [\"/bin/sh\", \"-e\", \"-c\"]
RUN echo fourth
";

const COPIES: &str = "\
FROM @/base AS other
COPY data/one /made

FROM @/base
WORKDIR /work
COPY --chown=1:2 --chmod=750 --exclude=*.log data /data/
COPY --link a /a
COPY . /all/
COPY --from=other /made /made
ADD b /b
COPY <<text.txt /text/
text
text.txt
COPY --parents data/./sub /parents/
";

/// How a build is changed: the Dockerfile, the files of the context, the arguments.
enum Change {
    Text(&'static str, &'static str),
    Files(fn(&Path)),
    Args(&'static [&'static str]),
}

/// A change, the step that is the first to be executed, and what must be named as the cause, item and all.
struct Mutation {
    change: Change,
    step: &'static str,
    causes: &'static [(&'static str, &'static str)],
}

fn text(
    old: &'static str,
    new: &'static str,
    step: &'static str,
    causes: &'static [(&'static str, &'static str)],
) -> Mutation {
    let change = Change::Text(old, new);
    Mutation {
        change,
        step,
        causes,
    }
}

fn files(
    change: fn(&Path),
    step: &'static str,
    causes: &'static [(&'static str, &'static str)],
) -> Mutation {
    let change = Change::Files(change);
    Mutation {
        change,
        step,
        causes,
    }
}

fn args(
    args: &'static [&'static str],
    step: &'static str,
    causes: &'static [(&'static str, &'static str)],
) -> Mutation {
    let change = Change::Args(args);
    Mutation {
        change,
        step,
        causes,
    }
}

fn runs() -> Vec<Mutation> {
    let (first, tools) = ("RUN --mount", "tools 2/2] RUN");
    vec![
        // What it executes.
        text("echo first", "echo other", first, &[("command", "")]),
        text("echo third", "echo 3", "RUN", &[("command", "")]),
        text("echo second", "echo 2", "RUN", &[("command", "")]),
        text(
            "RUN --network=none echo second",
            "RUN --network=none [\"echo\", \"second\"]",
            "RUN",
            &[("shell", ""), ("command", "")],
        ),
        text("\"-e\", \"-c\"", "\"-u\", \"-c\"", "RUN", &[("shell", "")]),
        text(
            "/bin/sh\", \"-e\"",
            "/bin/ash\", \"-e\"",
            "RUN",
            &[("shell", "")],
        ),
        text(
            "RUN <<END\necho third\nEND",
            "WORKDIR /third",
            "WORKDIR",
            &[("kind", "")],
        ),
        // Variables.
        text("ARG V=1", "ARG V=2", first, &[("environment", "V")]),
        args(&["--build-arg", "V=3"], first, &[("environment", "V")]),
        text("ARG V=1\n", "", first, &[("environment", "V")]),
        text(
            "ARG V=1\n",
            "ARG V=1\nARG W=2\n",
            first,
            &[("environment", "W")],
        ),
        text("LATER=x", "LATER=y", first, &[("environment", "LATER")]),
        text(" LATER=x", "", first, &[("environment", "LATER")]),
        text(
            "LONG=@long",
            "LONG=@longer",
            first,
            &[("environment", "LONG")],
        ),
        text(
            "LONG=@long LATER=x",
            "LATER=x LONG=@long",
            first,
            &[("environment", "order")],
        ),
        text(
            "12345678",
            "87654321",
            first,
            &[("environment", "API_TOKEN")],
        ),
        // What else it runs with.
        text("USER 7:8", "USER 7:9", first, &[("user", "")]),
        text("USER 7:8\n", "", first, &[("user", "")]),
        text("--network=none ", "", "RUN", &[("network", "")]),
        args(&["--network", "none"], tools, &[("network", "")]),
        args(&["--add-host", "a:10.0.0.1"], tools, &[("hosts", "a")]),
        args(&["--shm-size", "64m"], tools, &[("shm-size", "")]),
        args(&["--ulimit", "nofile=10:20"], tools, &[("ulimits", "")]),
        args(
            &["--build-arg", "BUILDKIT_SANDBOX_HOSTNAME=h"],
            tools,
            &[("hostname", "")],
        ),
        args(&["--keep-noise"], tools, &[("normalise", "")]),
        // Mounts.
        text(
            "target=/tools",
            "target=/other",
            first,
            &[("mount", "/other target")],
        ),
        text(
            "target=/tools",
            "target=/tools,source=/bin",
            first,
            &[("mount", "/tools source")],
        ),
        text(
            "from=tools,target=/tools",
            "from=tools,target=/tools,rw",
            first,
            &[("mount", "/tools rw")],
        ),
        text("id=c,", "id=d,", first, &[("mount", "/c id")]),
        text(
            "id=c,target=/c",
            "id=c,target=/c,ro",
            first,
            &[("mount", "/c readonly")],
        ),
        text(
            "id=c,target=/c",
            "id=c,target=/x",
            first,
            &[("mount", "/x target")],
        ),
        text("target=/t ", "target=/u ", first, &[("mount", "/u target")]),
        text(
            "id=s,target=/s",
            "id=z,target=/s",
            first,
            &[("mount", "/s id")],
        ),
        text(
            "id=s,target=/s",
            "id=s,target=/s,mode=0440",
            first,
            &[("mount", "/s mode")],
        ),
        text(
            "id=s,target=/s",
            "id=s,target=/s,uid=4",
            first,
            &[("mount", "/s uid")],
        ),
        text(
            "id=s,target=/s",
            "id=s,target=/s,gid=4",
            first,
            &[("mount", "/s gid")],
        ),
        text(
            "--mount=type=tmpfs,target=/t ",
            "--mount=type=tmpfs,target=/t --mount=type=ssh,target=/agent ",
            first,
            &[("mount", "/agent"), ("environment", "SSH_AUTH_SOCK")],
        ),
        text(
            "--mount=type=cache,id=c,target=/c ",
            "--mount=type=bind,from=tools,target=/c ",
            first,
            &[("mount", "/c type")],
        ),
        text(
            "    --mount=type=tmpfs,target=/t \\\n",
            "",
            first,
            &[("mount", "/t")],
        ),
        text(
            "--mount=type=tmpfs,target=/t ",
            "--mount=type=secret,id=v,env=SECRET --mount=type=tmpfs,target=/t ",
            first,
            &[("secret", "SECRET")],
        ),
        // What is mounted.
        text(
            "from=tools",
            "from=@/busybox",
            first,
            &[("input", "/tools")],
        ),
        text("echo tool", "echo other", tools, &[("command", "")]),
        files(
            |dir| fs::write(dir.join("data/one"), "changed").unwrap(),
            "preparing files of the context",
            &[("files", "data/one")],
        ),
        // What it stands on.
        text(
            "WORKDIR /work",
            "WORKDIR /other",
            "WORKDIR /other",
            &[("destination", "")],
        ),
        text(
            "RUN --network=none",
            "RUN echo new\nRUN --network=none",
            "RUN echo new",
            &[],
        ),
        text(
            "RUN --network=none echo second\n",
            "",
            "RUN",
            &[("parent", "")],
        ),
        args(
            &["--build-arg", "SOURCE_DATE_EPOCH=1700000000"],
            tools,
            &[("epoch", "")],
        ),
        text(
            "FROM @/busybox\n",
            "FROM @/base\n",
            "WORKDIR /work",
            &[("image", "")],
        ),
        args(&["--no-cache-filter", "tools"], tools, &[]),
    ]
}

fn copies() -> Vec<Mutation> {
    let data = "COPY --chown=1:2";
    vec![
        text(
            "--chown=1:2",
            "--chown=1:3",
            "COPY --chown=1:3",
            &[("owner", "")],
        ),
        text("--chown=1:2 ", "", "COPY --chmod=750", &[("owner", "")]),
        text("--chmod=750", "--chmod=u+x", data, &[("mode", "")]),
        text(
            "--exclude=*.log",
            "--exclude=*.txt",
            data,
            &[("exclude", ""), ("files", "data/two.log")],
        ),
        text("data /data/", "data /other/", data, &[("destination", "")]),
        text(
            "COPY --link a /a",
            "COPY a /a",
            "COPY a /a",
            &[("flag", "link")],
        ),
        text(
            "COPY --link a /a",
            "COPY --link b /a",
            "COPY --link b",
            &[("sources", ""), ("files", "a"), ("files", "b")],
        ),
        text("ADD b /b", "COPY b /b", "COPY b /b", &[("flag", "unpack")]),
        text(
            "COPY --parents",
            "COPY",
            "COPY data/./sub",
            &[("sources", ""), ("flag", "parents"), ("files", "data")],
        ),
        text(
            "text\ntext.txt",
            "more\ntext.txt",
            "COPY <<text.txt",
            &[("heredoc", "content")],
        ),
        text(
            "<<text.txt /text/\ntext\ntext.txt",
            "<<a.txt /text/\ntext\na.txt",
            "COPY <<a.txt",
            &[("heredoc", "name")],
        ),
        text(
            "<<text.txt /text/",
            "<<text.txt /txt/",
            "COPY <<text.txt",
            &[("destination", "")],
        ),
        text(
            "<<text.txt /text/",
            "--chmod=600 <<text.txt /text/",
            "COPY --chmod=600 <<text",
            &[("mode", "")],
        ),
        text("ADD b /b", "WORKDIR /b", "WORKDIR /b", &[("kind", "")]),
        text(
            "FROM @/base\n",
            "FROM @/base\nUSER 4\n",
            "WORKDIR /work",
            &[("owner", "")],
        ),
        text(
            "data/one /made",
            "data/one /maid",
            "COPY data/one",
            &[("destination", "")],
        ),
        text(
            "--from=other /made",
            "--from=@/base /etc/group",
            "COPY --from=",
            &[("sources", ""), ("input", "")],
        ),
        files(
            |dir| fs::write(dir.join("data/one"), "changed").unwrap(),
            "COPY data/one",
            &[("files", "data/one")],
        ),
        files(
            |dir| fs::write(dir.join("data/sub/deep"), "changed").unwrap(),
            data,
            &[("files", "data/sub/deep")],
        ),
        files(
            |dir| fs::set_permissions(dir.join("a"), fs::Permissions::from_mode(0o755)).unwrap(),
            "COPY --link a",
            &[("files", "a")],
        ),
        files(
            |dir| fs::rename(dir.join("data/sub/deep"), dir.join("data/sub/deeper")).unwrap(),
            data,
            &[("files", "data/sub/deep"), ("files", "data/sub/deeper")],
        ),
        files(
            |dir| fs::write(dir.join("new"), "").unwrap(),
            "COPY . /all",
            &[("files", "new")],
        ),
        files(
            |dir| fs::create_dir(dir.join("new")).unwrap(),
            "COPY . /all",
            &[("files", "new")],
        ),
        files(
            |dir| fs::remove_file(dir.join("c")).unwrap(),
            "COPY . /all",
            &[("files", "c")],
        ),
        files(
            |dir| {
                fs::remove_file(dir.join("link")).unwrap();
                symlink("b", dir.join("link")).unwrap();
            },
            "COPY . /all",
            &[("files", "link")],
        ),
        files(
            |dir| {
                fs::remove_file(dir.join("c")).unwrap();
                symlink("b", dir.join("c")).unwrap();
            },
            "COPY . /all",
            &[("files", "c")],
        ),
        files(
            |dir| fs::write(dir.join(".dockerignore"), ".dockerignore\nDockerfile\nc\n").unwrap(),
            "COPY . /all",
            &[("ignore", ""), ("files", "c"), ("files", "ignored")],
        ),
        files(
            |dir| {
                let own = ".dockerignore\nDockerfile*\nignored\n!Dockerfile.txt\ndata/three\n";
                fs::write(dir.join("Dockerfile.dockerignore"), own).unwrap();
            },
            data,
            &[("ignore", ""), ("files", "data/three")],
        ),
        args(
            &["--platform", "linux/arm64"],
            "COPY data/one",
            &[("platform", ""), ("image", "@/base")],
        ),
        args(
            &["--build-arg", "SOURCE_DATE_EPOCH=1700000000"],
            "COPY data/one",
            &[("time", "")],
        ),
        args(&["--no-cache"], "COPY data/one", &[]),
    ]
}

/// A project with the context that the Dockerfiles copy of.
fn context(project: &Project) {
    let dir = project.path("ctx");
    let _ = fs::remove_dir_all(&dir);
    project
        .write("ctx/data/one", "1")
        .write("ctx/data/two.log", "2")
        .write("ctx/data/three", "3")
        .write("ctx/data/sub/deep", "4")
        .write("ctx/a", "a")
        .write("ctx/b", "b")
        .write("ctx/c", "c")
        .write("ctx/ignored", "i")
        .write("ctx/.dockerignore", ".dockerignore\nDockerfile*\nignored\n");
    symlink("a", dir.join("link")).unwrap();
}

/// `@long` is a value that entries have as a digest only.
fn written(dockerfile: &str) -> String {
    let long = "long ".repeat(80);
    dockerfile.replace("@long", &format!("\"{long}\""))
}

#[track_caller]
fn explain(project: &Project, args: &[&str]) -> Value {
    let mut command = project.program();
    let output = command
        .args(["explain", "--json"])
        .args(args)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{args:?}: {stderr}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What is wrong with an explanation; nothing if it is right.
fn check(mutation: &Mutation, host: &str, page: &Value) -> Result<(), String> {
    // Some changes make a new key and the same layer.
    let new_key = |step: &&Value| !step["differences"].is_null();
    let first = match &page["first_cause"] {
        Value::Null => page["steps"].as_array().unwrap().iter().find(new_key),
        first => Some(first),
    };
    let first = first.ok_or("no step has another key")?;
    let name = first["name"].as_str().unwrap();
    if !name.contains(mutation.step) {
        return Err(format!(
            "`{name}` is said to be the first: {}",
            first["why"]
        ));
    }
    let found: Vec<(String, String)> = first["differences"]
        .as_array()
        .unwrap()
        .iter()
        .map(|difference| {
            let item = difference["item"].as_str().unwrap_or_default();
            let topic = difference["topic"].as_str().unwrap();
            (topic.to_owned(), item.replace(host, "@"))
        })
        .collect();
    let wanted: Vec<(String, String)> = mutation
        .causes
        .iter()
        .map(|(topic, item)| ((*topic).to_owned(), (*item).to_owned()))
        .collect();
    if found != wanted {
        return Err(format!("{name}: {}\n{found:?}", first["why"]));
    }
    let shown = page.to_string();
    match shown.contains("12345678") || shown.contains("87654321") {
        true => Err("it shows what is secret".to_owned()),
        false => Ok(()),
    }
}

/// Changes one thing after the other and collects what is explained wrongly.
#[track_caller]
fn mutate(project: &Project, dockerfile: &str, mutations: &[Mutation]) {
    let host = project.registry.host();
    context(project);
    project.dockerfile(&written(dockerfile));
    fs::write(project.path("s"), "secret").unwrap();
    project.build(&["--secret", "id=s,src=s"]);
    let same = explain(project, &["ctx"]);
    assert!(same["first_cause"].is_null(), "{same}");
    let mut wrong = Vec::new();
    for mutation in mutations {
        context(project);
        project.dockerfile(&written(dockerfile));
        let mut all = vec!["ctx"];
        let what = match &mutation.change {
            Change::Text(old, new) => {
                assert_eq!(dockerfile.matches(old).count(), 1, "{old}");
                project.dockerfile(&written(&dockerfile.replace(old, new)));
                format!("{old:?} -> {new:?}")
            }
            Change::Files(change) => {
                change(&project.path("ctx"));
                format!("files, {:?}", mutation.causes)
            }
            Change::Args(args) => {
                all.extend(*args);
                format!("{args:?}")
            }
        };
        let page = explain(project, &all);
        if let Err(error) = check(mutation, &host, &page) {
            wrong.push(format!("{what}: {error}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} wrong:\n{}",
        wrong.len(),
        mutations.len(),
        wrong.join("\n")
    );
}

#[test]
fn each_part_of_a_run_is_named() {
    let Some(project) = Project::runnable() else {
        return;
    };
    mutate(&project, RUNS, &runs());
}

#[test]
fn each_part_of_a_copy_is_named() {
    mutate(&Project::new(), COPIES, &copies());
}

#[test]
fn a_base_image_that_moved_is_named_with_its_digests() {
    let project = Project::new();
    context(&project);
    project.dockerfile("FROM @/base\nWORKDIR /work\nCOPY a /a\nCOPY b /b\n");
    project.build(&[]);
    let mut tar = Tar::new();
    tar.file("etc/other", 0o644, b"other");
    let platform = memobuild_ci::oci::Platform::host().to_string();
    let moved = Image::new(Family::Oci, &platform, &[&tar.finish()]);
    project.registry.push("base", "latest", &moved);
    let page = explain(&project, &["ctx"]);
    let first = &page["first_cause"];
    let difference = &first["differences"][0];
    assert_eq!(first["differences"].as_array().unwrap().len(), 1, "{first}");
    assert_eq!(difference["topic"], "image");
    assert!(
        difference["item"].as_str().unwrap().ends_with("/base"),
        "{difference}"
    );
    assert!(difference["old"].as_str().unwrap().starts_with("sha256:"));
    assert_eq!(difference["new"], moved.digest().to_string());
    let steps = page["steps"].as_array().unwrap();
    let causes: Vec<&Value> = steps.iter().map(|step| &step["cause"]).collect();
    assert_eq!(causes, ["changed", "follows", "follows"]);
}

/// Two steps, one upon the other.
const TWO: &str = "FROM scratch\nCOPY a /a\nCOPY b /b\n";

fn two(tiers: Vec<memobuild_ci::cache::Tier>) -> Lab {
    let lab = Lab::new(tiers);
    lab.write("a", "a").write("b", "b");
    lab
}

/// The causes of the steps that would be executed; none for hits.
fn causes(forecast: &Forecast) -> Vec<Option<&Cause>> {
    let steps = forecast.steps.iter();
    steps
        .map(|outlook| match &outlook.verdict {
            Verdict::Run(miss) => Some(&miss.cause),
            Verdict::Hit { .. } | Verdict::Skip => None,
        })
        .collect()
}

#[test]
fn a_scope_that_is_not_read_is_named() {
    let mut lab = two(Vec::new());
    let pull = Scope::pull("7");
    lab.scopes = SearchOrder::new(pull.clone(), []);
    lab.build(TWO);
    lab.scopes = SearchOrder::new(Scope::branch("x"), []);
    let (forecast, _) = lab.forecast(TWO);
    let outside = Cause::OutOfScope { scope: pull };
    assert_eq!(causes(&forecast), [Some(&outside), Some(&outside)]);
}

#[test]
fn an_entry_that_is_not_trusted_is_named_with_the_reason() {
    let tier = LabTier::new("lab://one");
    let mut lab = two(vec![tier.tier(Access::FULL)]);
    lab.build(TWO);
    lab.wipe();
    lab.vouching = Vouching::default().checking_with(|_| Err("it is not signed".to_owned()));
    let (forecast, _) = lab.forecast(TWO);
    let refused = Cause::Refused {
        tier: "lab://one".to_owned(),
        why: "it is not signed".to_owned(),
    };
    assert_eq!(causes(&forecast), [Some(&refused), Some(&refused)]);
}

#[test]
fn a_hit_in_a_tier_is_told_and_nothing_is_kept_of_it() {
    let tier = LabTier::new("lab://one");
    let lab = two(vec![tier.tier(Access::FULL)]);
    lab.build(TWO);
    lab.wipe();
    tier.forget_acts();
    let (forecast, warnings) = lab.forecast(TWO);
    assert_eq!(causes(&forecast), [None, None]);
    for outlook in &forecast.steps {
        let Verdict::Hit { tier, entry, .. } = &outlook.verdict else {
            panic!("{outlook:?}");
        };
        assert_eq!(tier.as_deref(), Some("lab://one"));
        assert_eq!(entry.key, outlook.key);
    }
    assert_eq!(
        (tier.acts(), warnings),
        (vec!["lookup 2".to_owned()], Vec::new())
    );
    assert!(lab.store().actions().unwrap().is_empty());
}

#[test]
fn a_tier_that_is_down_is_a_warning_beside_the_misses() {
    let tier = LabTier::new("lab://one");
    let lab = two(vec![tier.tier(Access::FULL)]);
    tier.set(Fault::Down);
    let (forecast, warnings) = lab.forecast(TWO);
    assert_eq!(
        causes(&forecast),
        [Some(&Cause::NoEntry), Some(&Cause::NoEntry)]
    );
    assert!(
        warnings.iter().any(|w| w.contains("lab://one")),
        "{warnings:?}"
    );
}

#[test]
fn a_lost_layer_and_a_removed_entry_are_told_apart() {
    let lab = two(Vec::new());
    lab.build(TWO);
    let store = lab.store();
    let entries = store.actions().unwrap();
    let first = entries
        .iter()
        .find(|e| e.result.step.name.contains("COPY a"));
    let layer = first.unwrap().result.layer.clone().unwrap();
    store.discard_blob(&layer.digest).unwrap();
    let (forecast, _) = lab.forecast(TWO);
    assert_eq!(causes(&forecast)[0], Some(&Cause::Lost));
    lab.wipe();
    let (forecast, _) = lab.forecast(TWO);
    assert_eq!(
        causes(&forecast),
        [Some(&Cause::NoEntry), Some(&Cause::NoEntry)]
    );
}

#[test]
fn a_build_says_why_it_executes_a_step() {
    let lab = two(Vec::new());
    lab.build(TWO);
    lab.write("a", "other").write("c", "not copied");
    let why = |text: &str| -> Vec<(String, Option<String>)> {
        let started = |event: BuildEvent| match event {
            BuildEvent::StepStarted { name, why, .. } => Some((name, why)),
            _ => None,
        };
        lab.build(text)
            .events
            .into_iter()
            .filter_map(started)
            .collect()
    };
    let told = why(TWO);
    assert_eq!(told.len(), 2, "{told:?}");
    let first = told[0].1.as_deref().unwrap();
    assert!(first.starts_with("file `a` changed (`blake3:"), "{first}");
    // The layer is the same whatever is below: a hit by content.
    assert_eq!(told[1].1, None);
    let told = why(TWO);
    assert!(told.iter().all(|(_, why)| why.is_none()), "{told:?}");
}

#[test]
fn steps_are_found_by_place_name_and_key() {
    let project = Project::new();
    context(&project);
    project.dockerfile(
        "FROM @/base AS one\nCOPY a /a\nFROM @/base\nCOPY --from=one /a /a\nCOPY b /b\n",
    );
    project.build(&[]);
    let name = |what: &str| -> Vec<String> {
        let page = explain(&project, &[what, "ctx"]);
        let steps = page["steps"].as_array().unwrap().iter();
        steps
            .map(|step| step["instruction"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(name("one"), ["COPY a /a"]);
    assert_eq!(name("image").len(), 3);
    assert_eq!(name("2/2"), ["COPY a /a"]);
    assert_eq!(name("one 2"), ["COPY a /a"]);
    assert_eq!(name("stage-1 3/3"), ["COPY b /b"]);
    assert_eq!(name("COPY b"), ["COPY b /b"]);
    let all = explain(&project, &["ctx"]);
    assert_eq!(all["steps"].as_array().unwrap().len(), 3);
    assert_eq!(all["steps"][0]["verdict"], "skip");
    let hit = &all["steps"][2];
    assert_eq!(
        (hit["verdict"].as_str(), hit["by"].as_str()),
        (Some("hit"), Some("definition"))
    );
    assert!(
        hit["entry"]["producer"]["tool"]
            .as_str()
            .unwrap()
            .starts_with("memobuild-ci ")
    );
    let key = hit["key"].as_str().unwrap().to_owned();
    assert_eq!(name(&key), ["COPY b /b"]);
    assert_eq!(name(&key["blake3:".len()..][..12]), ["COPY b /b"]);
    // The key of an entry that no step has any more.
    fs::write(project.path("ctx/b"), "other").unwrap();
    let page = explain(&project, &[&key, "ctx"]);
    assert_eq!(page["entry"]["key"], *key);
    assert_eq!(page["steps"][0]["instruction"], "COPY b /b");
    assert_eq!(page["differences"][0]["item"], "b");
    for (what, code, says) in [
        ("COPY", 2, "means several steps"),
        ("nothing", 42, "is called `nothing`"),
    ] {
        let mut command = project.program();
        let output = command.args(["explain", what, "ctx"]).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{stderr}");
        assert!(stderr.contains(says), "{stderr}");
    }
}

#[test]
fn explaining_changes_nothing() {
    let project = Project::new();
    context(&project);
    project.dockerfile("FROM @/base\nCOPY a /a\n");
    explain(&project, &["ctx"]);
    assert!(!project.path("cache/VERSION").exists());
    project.build(&[]);
    fs::write(project.path("ctx/a"), "other").unwrap();
    let before = project.cached_blobs();
    let first = explain(&project, &["ctx"]);
    let second = explain(&project, &["ctx"]);
    assert_eq!(first, second);
    assert_eq!(first["first_cause"]["cause"], "changed");
    assert_eq!(project.cached_blobs(), before);
    assert!(!project.path("out-2").exists());
}

/// Runs git in `dir`, as somebody whose configuration is empty.
fn git(project: &Project, dir: &str, args: &[&str]) -> String {
    let output = std::process::Command::new("git")
        .args(["-c", "user.name=n", "-c", "user.email=e@example.com"])
        .args(args)
        .current_dir(project.path(dir))
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn the_commit_that_changed_a_file_is_named() {
    let project = Project::new();
    context(&project);
    project.dockerfile("FROM @/base\nCOPY . /all\n");
    git(&project, "ctx", &["init", "-q"]);
    let commit = |what: &str| {
        git(&project, "ctx", &["add", "-A", "."]);
        git(&project, "ctx", &["commit", "-q", "-m", what]);
        git(&project, "ctx", &["rev-parse", "HEAD"])
    };
    project.write("ctx/.dockerignore", ".git\nDockerfile\n.dockerignore\n");
    commit("first");
    project.build(&[]);
    project.write("ctx/a", "changed");
    let changed = commit("second");
    fs::remove_file(project.path("ctx/c")).unwrap();
    let removed = commit("third");
    project.write("ctx/b", "not committed");
    let page = explain(&project, &["ctx"]);
    let differences = page["first_cause"]["differences"].as_array().unwrap();
    let told: Vec<_> = differences
        .iter()
        .map(|d| (d["item"].as_str().unwrap(), d["commit"].as_str()))
        .collect();
    assert_eq!(
        told,
        [
            ("a", Some(&changed[..])),
            ("b", None),
            ("c", Some(&removed[..]))
        ]
    );
    let why = page["first_cause"]["why"].as_str().unwrap();
    assert!(why.contains(&format!("by {}", &changed[..12])), "{why}");
}
