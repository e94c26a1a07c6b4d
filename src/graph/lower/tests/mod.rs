//! Dockerfiles and the graphs they become.

mod checks;
mod failures;
mod onbuild;
mod remote;
mod size;

use std::collections::BTreeMap;

use crate::{
    digest::Sha256Digest,
    dockerfile::{Dockerfile, parse},
    graph::{
        BuildGraph, ExecOp, FileAction, FileOp, ImageOp, ImageOrigin, ImageTable, LocalContext,
        MountOp, Op, ResolvedImage,
    },
    oci::{ImageConfig, Platform},
};

use super::{LowerError, LowerInput, Lowered, NamedContext, NoCache, Parent, lower, needed_images};

fn platform(text: &str) -> Platform {
    text.parse().unwrap()
}

fn input(dockerfile: &Dockerfile) -> LowerInput<'_> {
    LowerInput {
        build_platform: platform("linux/arm64"),
        target_name: "app".to_owned(),
        ..LowerInput::of(dockerfile, platform("linux/amd64"))
    }
}

fn args(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = |(n, v): &(&str, &str)| ((*n).to_owned(), (*v).to_owned());
    pairs.iter().map(owned).collect()
}

fn graph() -> BuildGraph {
    let context = |name: &str| LocalContext {
        name: name.to_owned(),
        dir: format!("/{name}").into(),
        ignore: String::new(),
    };
    BuildGraph {
        contexts: vec![context("context"), context("extra")],
        ..BuildGraph::default()
    }
}

/// An image for every reference, made 2024-05-01.
fn images(needed: &[(String, Platform)]) -> ImageTable {
    let image = |(reference, platform): &(String, Platform)| {
        let text = format!(
            r#"{{"created":"2024-05-01T00:00:00Z","architecture":"{}","os":"linux",
            "config":{{"Env":["PATH=/bin","FROM_BASE=1"],"Cmd":["base-cmd"],"WorkingDir":"/base"}},
            "rootfs":{{"type":"layers","diff_ids":[]}},
            "history":[{{"created_by":"base"}}]}}"#,
            platform.architecture
        );
        let mut config: ImageConfig = serde_json::from_str(&text).unwrap();
        if reference == "triggers" {
            let triggers = ["RUN x", "COPY --from=further a /", "COPY --from=stage b /"];
            config.config.on_build = Some(triggers.map(str::to_owned).into());
        }
        if reference == "bad-triggers" {
            config.config.on_build = Some(vec!["RUN y".to_owned(), "RUNN x".to_owned()]);
        }
        let op = ImageOp {
            reference: reference.clone(),
            manifest: Sha256Digest::of(format!("{reference} {platform}").as_bytes()),
            layers: Vec::new(),
            origin: ImageOrigin::Layout {
                dir: "/layout".into(),
            },
        };
        (
            (reference.clone(), platform.clone()),
            ResolvedImage { op, config },
        )
    };
    needed.iter().map(image).collect()
}

fn try_lower(graph: &mut BuildGraph, input: &LowerInput<'_>) -> Result<Lowered, LowerError> {
    let mut table = ImageTable::new();
    loop {
        let needed = needed_images(input, &table)?;
        if needed.is_empty() {
            return lower(graph, input, &table);
        }
        table.extend(images(&needed));
    }
}

/// Lowers a Dockerfile with these build arguments.
fn build(text: &str, build_args: &[(&str, &str)]) -> (BuildGraph, Lowered) {
    let dockerfile = parse("Dockerfile", text).unwrap();
    let mut graph = graph();
    let input = LowerInput {
        build_args: args(build_args),
        ..input(&dockerfile)
    };
    let lowered = try_lower(&mut graph, &input).unwrap();
    (graph, lowered)
}

fn execs(graph: &BuildGraph) -> Vec<&ExecOp> {
    let ops = graph.vertices.iter().map(|v| &v.op);
    ops.filter_map(|op| match op {
        Op::Exec(op) => Some(op),
        _ => None,
    })
    .collect()
}

fn files(graph: &BuildGraph) -> Vec<&FileOp> {
    let ops = graph.vertices.iter().map(|v| &v.op);
    ops.filter_map(|op| match op {
        Op::File(op) => Some(op),
        _ => None,
    })
    .collect()
}

fn env<'a>(exec: &'a ExecOp, name: &str) -> Option<&'a str> {
    let (_, value) = exec.env.iter().find(|(n, _)| *n == name)?;
    Some(value)
}

#[test]
fn a_whole_graph() {
    let text = "\
ARG TAG=12
FROM --platform=$BUILDPLATFORM debian:$TAG AS build
ARG TARGETARCH
ENV MODE=release
WORKDIR src
COPY --chown=1:2 . .
RUN --mount=type=cache,target=.cache make ARCH=$TARGETARCH \\
    MODE=$MODE
FROM unused AS other
RUN never
FROM debian:$TAG
COPY --from=build --link /base/src/out /usr/bin/
RUN --mount=from=busybox,target=/box,source=bin --network=none [\"/box/sh\", \"-c\", \"x\"]
LABEL a=$MODE b=\"c d\"
EXPOSE 80 90-91/udp
USER app
ENTRYPOINT [\"/usr/bin/out\"]
";
    let (graph, lowered) = build(text, &[("TYPO", "1")]);
    insta::assert_debug_snapshot!((&graph.vertices, &graph.targets, &lowered));
}

#[test]
fn without_a_platform_the_image_is_what_its_base_is() {
    let dockerfile = parse("Dockerfile", "FROM --platform=linux/arm64 base\nRUN x\n").unwrap();
    let architecture = |implicit_platform| {
        let mut graph = graph();
        let input = LowerInput {
            implicit_platform,
            ..input(&dockerfile)
        };
        try_lower(&mut graph, &input).unwrap();
        let target = &graph.targets[0];
        assert_eq!(target.platform.architecture, target.config.architecture);
        target.config.architecture.clone()
    };
    assert_eq!(
        (architecture(true), architecture(false)),
        ("arm64".into(), "amd64".into())
    );
}

#[test]
fn only_needed_images_are_asked_for() {
    let text = "\
ARG B=base
FROM $B AS one
FROM scratch AS two
COPY --from=tool:1 /x /
COPY --from=one /y /
FROM --platform=linux/arm64 elsewhere AS three
RUN --mount=from=mounted,target=/m x
FROM two
FROM named
";
    let dockerfile = parse("Dockerfile", text).unwrap();
    let list = |input: &LowerInput<'_>| -> Vec<String> {
        let images = needed_images(input, &ImageTable::new()).unwrap();
        images.iter().map(|(r, p)| format!("{r} {p}")).collect()
    };
    let target = |stage: &str| LowerInput {
        target_stage: Some(stage.to_owned()),
        ..input(&dockerfile)
    };
    assert_eq!(
        list(&target("3")),
        ["base linux/amd64", "tool:1 linux/amd64"]
    );
    assert_eq!(
        list(&target("THREE")),
        ["elsewhere linux/arm64", "mounted linux/amd64"]
    );
    let mut named = input(&dockerfile);
    for (context, expected) in [
        (NamedContext::Local(1), vec![]),
        (
            NamedContext::Image("oci-layout://dir".to_owned()),
            vec!["oci-layout://dir linux/amd64"],
        ),
    ] {
        let name = "docker.io/library/named:latest".to_owned();
        named.named_contexts = BTreeMap::from([(name, context)]);
        assert_eq!(list(&named), expected);
    }
    let error = needed_images(&target("tow"), &ImageTable::new()).unwrap_err();
    assert!(
        matches!(error, LowerError::UnknownStage { hint: Some(hint), .. } if hint.contains("two"))
    );
}

#[test]
fn arguments_are_scoped_as_in_buildkit() {
    let text = "\
ARG GLOBAL=g OTHER=$GLOBAL-2
FROM scratch AS a
ARG GLOBAL
ARG LOCAL=l-$GLOBAL UNSET
ENV SHADOW=env
ARG TARGETPLATFORM BUILDARCH
RUN one
FROM a
ARG LOCAL=again
ARG SHADOW=arg
ENV LOCAL=env-$LOCAL X=1 Y=$X
RUN two
";
    let (graph, lowered) = build(text, &[("HTTP_PROXY", "http://p"), ("UNUSED", "")]);
    let [one, two] = execs(&graph)[..] else {
        panic!("two steps")
    };
    for (name, in_one, in_two) in [
        ("GLOBAL", Some("g"), Some("g")),
        ("OTHER", None, None),
        ("LOCAL", Some("l-g"), Some("env-again")),
        ("UNSET", None, None),
        ("SHADOW", Some("env"), Some("arg")),
        ("TARGETPLATFORM", Some("linux/amd64"), Some("linux/amd64")),
        ("BUILDARCH", Some("arm64"), Some("arm64")),
        ("TARGETOS", None, None),
        ("X", None, Some("1")),
        ("Y", None, Some("")),
        ("HTTP_PROXY", None, None),
    ] {
        assert_eq!((env(one, name), env(two, name)), (in_one, in_two), "{name}");
    }
    assert_eq!(lowered.proxies, args(&[("HTTP_PROXY", "http://p")]));
    let config = &graph.targets[0].config.config;
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let expected = [path, "SHADOW=env", "LOCAL=env-again", "X=1", "Y="];
    assert_eq!(config.env.as_deref().unwrap(), expected);
    let rules: Vec<(&str, &str)> = lowered
        .warnings
        .iter()
        .map(|w| (w.rule, w.message.as_str()))
        .collect();
    assert_eq!(
        rules,
        [
            ("UnusedBuildArg", "build argument `UNUSED` is not used"),
            ("UndefinedVar", "variable `X` is not defined"),
        ]
    );
    // Given on the command line, both defaults and ARGs without one take the value.
    let given = [
        ("GLOBAL", "G"),
        ("LOCAL", "$L"),
        ("UNSET", "set"),
        ("TARGETPLATFORM", "mine"),
    ];
    let (graph, _) = build(text, &given);
    let one = execs(&graph)[0];
    for (name, value) in given {
        assert_eq!(env(one, name), Some(value));
    }
}

#[test]
fn a_change_of_an_undeclared_argument_changes_nothing() {
    let text = "FROM scratch\nARG USED\nRUN x\n";
    let with = |pairs: &[(&str, &str)]| build(text, pairs).0.vertices.pop().unwrap().op;
    assert_eq!(with(&[]), with(&[("NOT_USED", "1"), ("https_proxy", "p")]));
    assert_ne!(with(&[]), with(&[("USED", "1")]));
}

#[test]
fn configuration_follows_the_instructions() {
    let text = "\
FROM base
ENV A=\"two words\" FROM_BASE=2
SHELL [\"/bin/bash\", \"-c\"]
CMD run $A
HEALTHCHECK --interval=5s --retries=2 CMD check me
STOPSIGNAL SIGRTMIN+3
VOLUME /v $A
EXPOSE 80 $FROM_BASE-3/UDP
WORKDIR sub
WORKDIR ../other
USER me:us
LABEL x=y
ONBUILD RUN later
MAINTAINER Somebody
";
    let (graph, _) = build(text, &[]);
    let target = &graph.targets[0];
    insta::assert_snapshot!(serde_json::to_string_pretty(&target.config).unwrap());
    assert_eq!(target.history.len() + 1, target.config.history.len());
    let layers = target.history.iter().flatten().count();
    assert_eq!(layers, 2, "two WORKDIRs");
}

#[test]
fn entrypoint_resets_an_inherited_command_only() {
    let cmd = |text: &str| {
        let text = format!("FROM base\n{text}");
        build(&text, &[]).0.targets.remove(0).config.config.cmd
    };
    let list = |words: &[&str]| Some(words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>());
    assert_eq!(cmd(""), list(&["base-cmd"]));
    assert_eq!(cmd("ENTRYPOINT x"), None);
    assert_eq!(cmd("CMD [\"c\"]\nENTRYPOINT x"), list(&["c"]));
    assert_eq!(cmd("ENTRYPOINT x\nCMD [\"c\"]"), list(&["c"]));
    assert_eq!(cmd("CMD []"), list(&[]));
}

#[test]
fn heredocs_run_as_in_buildkit() {
    let text = "\
FROM scratch
RUN <<EOF
set -e
echo \"$A\"
EOF
RUN <<-EOF
\tone
\t\ttwo
EOF
RUN <<'EOF'
#!/usr/bin/env python3
print(1)
EOF
RUN cat <<A <<-B > /out
1
A
\t2
B
COPY <<EXPANDED <<'KEPT' here/
$TEXT \\$TEXT
EXPANDED
$TEXT
KEPT
";
    let text = text.replace("COPY", "ENV TEXT=value\nCOPY");
    let (graph, _) = build(&text, &[]);
    let shell = |line: &str| vec!["/bin/sh".to_owned(), "-c".to_owned(), line.to_owned()];
    let execs = execs(&graph);
    assert_eq!(execs[0].args, shell("set -e\necho \"$A\"\n"));
    assert_eq!(execs[1].args, shell("one\ntwo\n"));
    assert_eq!(execs[2].args, shell("/dev/pipes/EOF"));
    assert_eq!(execs[3].args, shell("cat <<A <<-B > /out\n1\nA\n\t2\nB"));
    let [
        MountOp::Bind {
            from,
            target,
            writable: false,
            ..
        },
    ] = &execs[2].mounts[..]
    else {
        panic!("{:?}", execs[2].mounts)
    };
    assert_eq!(target, "/dev/pipes");
    assert!(matches!(
        &graph.vertex(*from).op,
        Op::File(FileOp { actions, .. })
            if matches!(&actions[0], FileAction::Write { content, .. } if content.starts_with(b"#!/"))
    ));
    let written: Vec<(&str, &str)> = files(&graph)
        .last()
        .unwrap()
        .actions
        .iter()
        .map(|action| match action {
            FileAction::Write { dest, content, .. } => {
                (dest.as_str(), std::str::from_utf8(content).unwrap())
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        written,
        [("/here/", "value $TEXT\n"), ("/here/", "$TEXT\n")]
    );
}

#[test]
fn paths_of_copies() {
    for (line, sources, dest) in [
        ("COPY a b", vec!["a"], "/base/b"),
        ("COPY a b/", vec!["a"], "/base/b/"),
        ("COPY . .", vec!["."], "/base/"),
        ("COPY ./ /", vec!["."], "/"),
        ("COPY /a/../b ../c", vec!["b"], "/c"),
        ("COPY ../../a ../../../c/", vec!["a"], "/c/"),
        ("COPY a b c", vec!["a", "b"], "/base/c"),
        ("COPY $UNSET /all", vec!["."], "/all"),
        ("COPY $FROM_BASE* ${FROM_BASE}d/.", vec!["1*"], "/base/1d/"),
        (
            "COPY --parents ./x/./y/*.c z/",
            vec!["x/./y/*.c"],
            "/base/z/",
        ),
        ("COPY --parents x/y z/", vec!["x/y"], "/base/z/"),
        ("COPY [\"a b\", \"c d\"]", vec!["a b"], "/base/c d"),
    ] {
        let (graph, _) = build(&format!("FROM base\n{line}"), &[]);
        let files = files(&graph);
        let FileAction::Copy(copy) = &files[0].actions[0] else {
            panic!("{line}")
        };
        assert_eq!(copy.sources, sources, "{line}");
        assert_eq!(copy.dest, dest, "{line}");
    }
}

#[test]
fn equal_vertices_are_made_once() {
    let dockerfile = parse("Dockerfile", "FROM base\nRUN a\nARG B\nRUN b\n").unwrap();
    let mut graph = graph();
    let first = input(&dockerfile);
    let second = LowerInput {
        build_args: args(&[("B", "2")]),
        target_name: "second".to_owned(),
        ..input(&dockerfile)
    };
    let uncached = LowerInput {
        no_cache: NoCache::Stages(vec!["stage-0".to_owned()]),
        ..input(&dockerfile)
    };
    try_lower(&mut graph, &first).unwrap();
    assert_eq!(graph.vertices.len(), 3);
    try_lower(&mut graph, &first).unwrap();
    assert_eq!(graph.vertices.len(), 3);
    try_lower(&mut graph, &second).unwrap();
    assert_eq!(graph.vertices.len(), 4);
    try_lower(&mut graph, &uncached).unwrap();
    assert_eq!(graph.vertices.len(), 6);
    assert_eq!(&*graph.vertices[3].target, "second");
}

#[test]
fn times_go_on_from_the_base_image() {
    let times = |epoch: Option<i64>, text: &str| -> Vec<(i64, i64)> {
        let dockerfile = parse("Dockerfile", text).unwrap();
        let mut graph = graph();
        let input = LowerInput {
            epoch,
            ..input(&dockerfile)
        };
        try_lower(&mut graph, &input).unwrap();
        execs(&graph).iter().map(|e| (e.mtime, e.epoch)).collect()
    };
    let text = "FROM base\nRUN a\nWORKDIR /w\nUSER x\nRUN b\n";
    let created = 1_714_521_600;
    assert_eq!(
        times(None, text),
        [(created, created), (created + 2, created)]
    );
    assert_eq!(times(Some(5_000), text), [(4_000, 5_000), (4_002, 5_000)]);
    let scratch = 315_532_800;
    assert_eq!(times(None, "FROM scratch\nRUN a"), [(scratch, scratch)]);
    let in_file = "ARG SOURCE_DATE_EPOCH=5000\nFROM base\nRUN a";
    assert_eq!(times(None, in_file), [(4_000, 5_000)]);
}

#[test]
fn a_layer_target_is_continued() {
    let base = parse("Dockerfile", "FROM debian\nRUN base\nENV A=1\nCMD x\n").unwrap();
    let text = "\
ARG BASE_IMAGE
FROM $BASE_IMAGE AS app
RUN child $A
FROM app
COPY --from=base /x /
RUN more
";
    let child = parse("Dockerfile.ml", text).unwrap();
    let mut graph = graph();
    let lowered = try_lower(&mut graph, &input(&base)).unwrap();
    let parent = Parent {
        target: graph.targets[lowered.target].clone(),
        clock: lowered.clock,
    };
    let input = LowerInput {
        build_args: args(&[("BASE_IMAGE", "base")]),
        parents: BTreeMap::from([("base".to_owned(), parent)]),
        name_prefix: "ml".to_owned(),
        ..input(&child)
    };
    assert_eq!(needed_images(&input, &ImageTable::new()).unwrap(), []);
    let lowered = try_lower(&mut graph, &input).unwrap();
    let names: Vec<&str> = graph.vertices.iter().map(|v| v.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "[1/2] FROM debian",
            "[2/2] RUN base",
            "[ml app 2/2] RUN child 1",
            "[ml stage-1 1/2] COPY --from=base /x /",
            "[ml stage-1 2/2] RUN more",
        ]
    );
    let execs = execs(&graph);
    let mtimes: Vec<i64> = execs.iter().map(|e| e.mtime - execs[0].mtime).collect();
    assert_eq!(mtimes, [0, 1, 3]);
    assert_eq!(env(execs[1], "A"), Some("1"));
    let target = &graph.targets[lowered.target];
    let added: Vec<Option<usize>> = target.history.iter().map(|v| v.map(|id| id.0)).collect();
    assert_eq!(added, [Some(1), None, None, Some(2), Some(3), Some(4)]);
    assert_eq!(target.config.history.len(), 1 + added.len());
}

#[test]
fn a_directory_can_be_a_base() {
    let dockerfile = parse("Dockerfile", "FROM rootfs\nRUN x\n").unwrap();
    let mut graph = graph();
    let input = LowerInput {
        named_contexts: BTreeMap::from([("rootfs".to_owned(), NamedContext::Local(1))]),
        ..input(&dockerfile)
    };
    try_lower(&mut graph, &input).unwrap();
    let names: Vec<&str> = graph.vertices.iter().map(|v| v.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "[internal] load build context `extra`",
            "FROM scratch",
            "[1/2] FROM rootfs",
            "[2/2] RUN x"
        ]
    );
}
