//! What changes a key and what doesn't, and the vectors of `cache-key-spec.md`.

use std::{collections::BTreeMap, convert::Infallible, sync::Arc};

use proptest::prelude::*;

use super::{
    CacheKey, DefinitionKeys, Difference, KeyDiff, KeyKind, KeyOptions, KeyRecipe, OldPart,
    OldValue, Topic, exec_content_recipe, file_content_recipe, hidden_items,
};
use crate::{
    device::Device,
    digest::{Blake3Digest, Sha256Digest},
    graph::{
        BuildGraph, CacheSharing, CopyAction, ExecOp, FileAction, FileOp, FileOwner, ImageOp,
        ImageOrigin, Location, ModeChange, MountOp, NetworkMode, Op, SecretVariable, StepExtras,
        Vertex, VertexId,
    },
    oci::layer::{ChainId, DiffId},
};

/// The page with the vectors.
const SPECIFICATION: &str = include_str!("../../docs/internals/cache-key-spec.md");

const OPTIONS: KeyOptions = KeyOptions { normalise: true };

fn vertex(op: Op) -> Vertex {
    Vertex {
        op,
        name: "[1/2] step".to_owned(),
        instruction: "STEP".to_owned(),
        target: "app".into(),
        stage: "stage-0".into(),
        platform: Arc::new("linux/amd64".parse().unwrap()),
        location: None,
        no_cache: false,
        max_age: None,
    }
}

fn image(text: &str) -> Op {
    Op::Image(ImageOp {
        reference: "base:1".to_owned(),
        manifest: Sha256Digest::of(text.as_bytes()),
        layers: Vec::new(),
        origin: ImageOrigin::Registry {
            repository: "registry.example/base".to_owned(),
        },
    })
}

/// Scratch, two images, a context, and the step under test.
fn graph(op: Op) -> BuildGraph {
    let ops = [Op::Scratch, image("one"), image("two"), Op::Context(0), op];
    BuildGraph {
        vertices: ops.map(vertex).into(),
        ..BuildGraph::default()
    }
}

const STEP: VertexId = VertexId(4);

fn files(text: &str) -> CacheKey {
    CacheKey(Blake3Digest::of(text.as_bytes()))
}

fn definition_of(graph: &BuildGraph, options: KeyOptions, selected: &str) -> CacheKey {
    let select = |_, _| Ok::<_, Infallible>(files(selected));
    let Ok(keys) = DefinitionKeys::compute(graph, options, select);
    keys.key(STEP)
}

fn definition(op: &Op) -> CacheKey {
    definition_of(&graph(op.clone()), OPTIONS, "files")
}

fn strings<const N: usize>(items: [&str; N]) -> Vec<String> {
    items.map(str::to_owned).into()
}

fn pairs<const N: usize>(items: [(&str, &str); N]) -> Vec<(String, String)> {
    items.map(|(a, b)| (a.to_owned(), b.to_owned())).into()
}

fn exec() -> ExecOp {
    ExecOp {
        root: VertexId(1),
        args: strings(["/bin/sh", "-c", "make"]),
        env: pairs([("PATH", "/bin"), ("CC", "gcc")]).into(),
        cwd: "/src".to_owned(),
        user: String::new(),
        network: NetworkMode::Host,
        mounts: vec![
            MountOp::Bind {
                from: VertexId(2),
                source: "/a".to_owned(),
                target: "/b".to_owned(),
                writable: false,
            },
            MountOp::Cache {
                id: "pip".to_owned(),
                target: "/cache".to_owned(),
                from: None,
                source: "/".to_owned(),
                readonly: false,
                sharing: CacheSharing::Shared,
                owner: None,
            },
            MountOp::Tmpfs {
                target: "/tmp".to_owned(),
                size: None,
                readonly: false,
            },
        ],
        hosts: pairs([("db", "10.0.0.1")]),
        mtime: 1_700_000_000,
        epoch: 1_700_000_000,
        extras: StepExtras::default(),
    }
}

fn copy() -> FileOp {
    FileOp {
        root: VertexId(1),
        actions: vec![
            FileAction::Copy(CopyAction {
                from: VertexId(3),
                sources: strings(["a", "b"]),
                dest: "/dest/".to_owned(),
                owner: None,
                mode: None,
                unpack: false,
                parents: false,
                exclude: Vec::new(),
                link: false,
            }),
            FileAction::Write {
                dest: "/etc/".to_owned(),
                name: "EOF".to_owned(),
                content: b"text\n".to_vec(),
                owner: None,
                mode: None,
            },
            FileAction::MakeDir {
                path: "/work".to_owned(),
                owner: None,
            },
        ],
        mtime: 1_700_000_000,
    }
}

/// All keys must differ from each other.
#[track_caller]
fn all_differ(keys: &[(&str, CacheKey)]) {
    let mut seen = BTreeMap::new();
    for (name, key) in keys {
        if let Some(other) = seen.insert(key, name) {
            panic!("`{name}` has the key of `{other}`");
        }
    }
}

type Change<T> = (&'static str, fn(&mut T));

fn bind(op: &mut ExecOp) -> (&mut VertexId, &mut String, &mut String, &mut bool) {
    match &mut op.mounts[0] {
        MountOp::Bind {
            from,
            source,
            target,
            writable,
        } => (from, source, target, writable),
        _ => unreachable!(),
    }
}

fn change_env(op: &mut ExecOp, change: impl FnOnce(&mut Vec<(String, String)>)) {
    let mut env = op.env.to_vec();
    change(&mut env);
    op.env = env.into();
}

fn secret(id: &str, mode: u32) -> MountOp {
    MountOp::Secret {
        id: id.to_owned(),
        target: "/run/secrets/x".to_owned(),
        required: false,
        owner: FileOwner {
            mode,
            uid: 0,
            gid: 0,
        },
    }
}

fn agent(id: &str) -> MountOp {
    MountOp::Ssh {
        id: id.to_owned(),
        target: "/run/secrets/x".to_owned(),
        required: false,
        owner: FileOwner {
            mode: 0o400,
            uid: 0,
            gid: 0,
        },
    }
}

fn variable(id: &str, required: bool) -> Vec<SecretVariable> {
    vec![SecretVariable {
        id: id.to_owned(),
        name: "TOKEN".to_owned(),
        required,
    }]
}

fn device(name: &str) -> Device {
    Device {
        name: name.to_owned(),
        ..Device::default()
    }
}

const EXEC_CHANGES: &[Change<ExecOp>] = &[
    ("nothing", |_| ()),
    ("an argument", |op| op.args[2] = "make all".to_owned()),
    ("arguments divided elsewhere", |op| {
        op.args = strings(["/bin/sh", "-cmake"]);
    }),
    ("a variable's value", |op| {
        change_env(op, |env| env[1].1 = "clang".to_owned());
    }),
    ("a variable's name", |op| {
        change_env(op, |env| env[1].0 = "CXX".to_owned());
    }),
    ("a variable more", |op| {
        change_env(op, |env| env.extend(pairs([("X", "")])));
    }),
    ("a variable less", |op| {
        change_env(op, |env| drop(env.pop()));
    }),
    ("the variables' order", |op| {
        change_env(op, |env| env.reverse());
    }),
    ("the directory", |op| op.cwd = "/".to_owned()),
    ("the user", |op| op.user = "app".to_owned()),
    ("the network", |op| op.network = NetworkMode::None),
    ("a host's address", |op| {
        op.hosts[0].1 = "10.0.0.2".to_owned()
    }),
    ("a host's name", |op| op.hosts[0].0 = "cache".to_owned()),
    ("no hosts", |op| op.hosts.clear()),
    ("the layer's time", |op| op.mtime += 1),
    ("the epoch", |op| op.epoch += 1),
    ("a mount's source", |op| *bind(op).1 = "/c".to_owned()),
    ("a mount's target", |op| *bind(op).2 = "/c".to_owned()),
    ("whether a mount is writable", |op| *bind(op).3 = true),
    ("a mount less", |op| drop(op.mounts.pop())),
    ("the mounts' order", |op| op.mounts.swap(1, 2)),
    ("a cache's id", |op| {
        if let MountOp::Cache { id, .. } = &mut op.mounts[1] {
            *id = "npm".to_owned();
        }
    }),
    ("a cache's target", |op| {
        if let MountOp::Cache { target, .. } = &mut op.mounts[1] {
            *target = "/other".to_owned();
        }
    }),
    ("whether a cache is read-only", |op| {
        if let MountOp::Cache { readonly, .. } = &mut op.mounts[1] {
            *readonly = true;
        }
    }),
    ("a cache's source", |op| {
        if let MountOp::Cache { source, .. } = &mut op.mounts[1] {
            *source = "/part".to_owned();
        }
    }),
    ("a read-only tmpfs", |op| {
        if let MountOp::Tmpfs { readonly, .. } = &mut op.mounts[2] {
            *readonly = true;
        }
    }),
    ("a secret", |op| op.mounts.push(secret("token", 0o400))),
    ("another secret", |op| {
        op.mounts.push(secret("other", 0o400))
    }),
    ("a secret's mode", |op| {
        op.mounts.push(secret("token", 0o444));
    }),
    ("an agent", |op| op.mounts.push(agent("default"))),
    ("another agent", |op| op.mounts.push(agent("other"))),
    ("a secret variable", |op| {
        op.extras.secret_variables = variable("token", false)
    }),
    ("another secret variable", |op| {
        op.extras.secret_variables = variable("other", false)
    }),
    ("a required secret variable", |op| {
        op.extras.secret_variables = variable("token", true)
    }),
    ("insecure", |op| op.extras.insecure = true),
    ("a device", |op| {
        op.extras.devices.push(device("v.example/d=0"))
    }),
    ("another device", |op| {
        op.extras.devices.push(device("v.example/d=1"))
    }),
    ("a limit", |op| {
        op.extras.ulimits.push("nofile=1:2".parse().unwrap())
    }),
    ("another limit", |op| {
        op.extras.ulimits.push("nofile=1:3".parse().unwrap())
    }),
    ("no limit", |op| {
        op.extras.ulimits.push("nofile=1:-1".parse().unwrap())
    }),
    ("the size of /dev/shm", |op| op.extras.shm_size = Some(1)),
    ("the host name", |op| {
        op.extras.hostname = Some("builder".to_owned())
    }),
    ("a tmpfs's target", |op| {
        if let MountOp::Tmpfs { target, .. } = &mut op.mounts[2] {
            *target = "/run".to_owned();
        }
    }),
];

fn chain(text: &str) -> ChainId {
    ChainId::empty().with(DiffId(Sha256Digest::of(text.as_bytes())))
}

fn exec_content(op: &ExecOp, platform: &str, options: KeyOptions, chains: [&str; 2]) -> CacheKey {
    let platform = platform.parse().unwrap();
    let [root, mounted] = chains.map(chain);
    exec_content_recipe(op, &platform, options, root, &[mounted]).key()
}

#[test]
fn everything_that_a_run_can_see_changes_its_keys() {
    let loud = KeyOptions { normalise: false };
    let changed = |change: fn(&mut ExecOp)| {
        let mut op = exec();
        change(&mut op);
        op
    };
    let mut definitions: Vec<_> = EXEC_CHANGES
        .iter()
        .map(|(name, change)| (*name, definition(&Op::Exec(changed(*change)))))
        .collect();
    let plain = graph(Op::Exec(exec()));
    let mut foreign = plain.clone();
    foreign.vertices[STEP.0].platform = Arc::new("linux/arm64".parse().unwrap());
    let root = changed(|op| op.root = VertexId(2));
    let seeded = changed(|op| {
        if let MountOp::Cache { from, .. } = &mut op.mounts[1] {
            *from = Some(VertexId(1));
        }
    });
    let mounted = changed(|op| *bind(op).0 = VertexId(1));
    definitions.extend([
        ("noise", definition_of(&plain, loud, "files")),
        ("the platform", definition_of(&foreign, OPTIONS, "files")),
        ("the root", definition(&Op::Exec(root))),
        ("what is mounted", definition(&Op::Exec(mounted))),
        ("what a cache starts with", definition(&Op::Exec(seeded))),
    ]);
    all_differ(&definitions);

    let (amd64, inputs) = ("linux/amd64", ["root", "mounted"]);
    let mut contents: Vec<_> = EXEC_CHANGES
        .iter()
        .map(|(name, change)| {
            let op = changed(*change);
            (*name, exec_content(&op, amd64, OPTIONS, inputs))
        })
        .collect();
    let key = |platform, options, chains| exec_content(&exec(), platform, options, chains);
    contents.extend([
        ("noise", key(amd64, loud, inputs)),
        ("the platform", key("linux/arm64", OPTIONS, inputs)),
        ("the root", key(amd64, OPTIONS, ["other", "mounted"])),
        ("what is mounted", key(amd64, OPTIONS, ["root", "other"])),
    ]);
    all_differ(&contents);
}

#[test]
fn what_a_run_must_not_depend_on_changes_no_key() {
    let expected = definition(&Op::Exec(exec()));
    let mut op = exec();
    op.mounts[1] = MountOp::Cache {
        id: "pip".to_owned(),
        target: "/cache".to_owned(),
        from: None,
        source: "/".to_owned(),
        readonly: false,
        sharing: CacheSharing::Locked,
        owner: Some(FileOwner {
            mode: 0o700,
            uid: 1,
            gid: 2,
        }),
    };
    op.mounts[2] = MountOp::Tmpfs {
        target: "/tmp".to_owned(),
        size: Some(1 << 20),
        readonly: false,
    };
    assert_eq!(definition(&Op::Exec(op)), expected);
    // What a device's description says is the host's business.
    let with = |device| {
        let mut op = exec();
        op.extras.devices.push(device);
        definition(&Op::Exec(op))
    };
    let described = Device {
        env: pairs([("A", "1")]),
        groups: vec![7],
        ..device("v.example/d=0")
    };
    assert_eq!(with(device("v.example/d=0")), with(described));
}

#[test]
fn names_and_places_of_steps_and_images_change_no_key() {
    let plain = graph(Op::Exec(exec()));
    let expected = definition_of(&plain, OPTIONS, "files");
    let mut graph = plain;
    for vertex in &mut graph.vertices {
        vertex.name = "[other]".to_owned();
        vertex.instruction = "OTHER".to_owned();
        vertex.target = "other".into();
        vertex.stage = "other".into();
        vertex.no_cache = true;
        vertex.location = Some(Location {
            file: "Dockerfile.other".into(),
            start: 7,
            end: 9,
        });
        if let Op::Image(image) = &mut vertex.op {
            image.reference = "other:2".to_owned();
            image.origin = ImageOrigin::Layout {
                dir: "/images".into(),
            };
        }
    }
    assert_eq!(definition_of(&graph, OPTIONS, "files"), expected);
    // But its digest does.
    graph.vertices[1].op = image("three");
    assert_ne!(definition_of(&graph, OPTIONS, "files"), expected);
}

fn first(op: &mut FileOp) -> &mut CopyAction {
    match &mut op.actions[0] {
        FileAction::Copy(copy) => copy,
        _ => unreachable!(),
    }
}

const COPY_CHANGES: &[Change<FileOp>] = &[
    ("nothing", |_| ()),
    ("a source", |op| first(op).sources[0] = "c".to_owned()),
    ("the sources' order", |op| first(op).sources.reverse()),
    ("sources run together", |op| {
        first(op).sources = strings(["ab"]);
    }),
    ("where from", |op| first(op).from = VertexId(2)),
    ("the destination", |op| first(op).dest = "/dest".to_owned()),
    ("the owner", |op| first(op).owner = Some("app".to_owned())),
    ("an empty owner", |op| first(op).owner = Some(String::new())),
    ("the mode", |op| {
        first(op).mode = Some(ModeChange::Exact(0o755));
    }),
    ("a symbolic mode", |op| {
        first(op).mode = Some(ModeChange::Symbolic("u+x".to_owned()));
    }),
    ("whether archives are unpacked", |op| {
        first(op).unpack = true
    }),
    ("whether parents are kept", |op| first(op).parents = true),
    ("whether it is linked", |op| first(op).link = true),
    ("what is excluded", |op| {
        first(op).exclude = strings(["*.o"])
    }),
    ("the root", |op| op.root = VertexId(2)),
    ("the layer's time", |op| op.mtime += 1),
    ("an action less", |op| drop(op.actions.pop())),
    ("the actions' order", |op| op.actions.swap(1, 2)),
    ("a written file's content", |op| {
        if let FileAction::Write { content, .. } = &mut op.actions[1] {
            content.push(b'!');
        }
    }),
    ("a written file's name", |op| {
        if let FileAction::Write { name, .. } = &mut op.actions[1] {
            *name = "END".to_owned();
        }
    }),
    ("a written file's place", |op| {
        if let FileAction::Write { dest, .. } = &mut op.actions[1] {
            *dest = "/opt/".to_owned();
        }
    }),
    ("a written file's owner", |op| {
        if let FileAction::Write { owner, .. } = &mut op.actions[1] {
            *owner = Some("app".to_owned());
        }
    }),
    ("a written file's mode", |op| {
        if let FileAction::Write { mode, .. } = &mut op.actions[1] {
            *mode = Some(ModeChange::Exact(0o755));
        }
    }),
    ("a directory's path", |op| {
        if let FileAction::MakeDir { path, .. } = &mut op.actions[2] {
            *path = "/other".to_owned();
        }
    }),
    ("a directory's owner", |op| {
        if let FileAction::MakeDir { owner, .. } = &mut op.actions[2] {
            *owner = Some("app".to_owned());
        }
    }),
];

#[test]
fn everything_that_a_copy_says_changes_its_definition_key() {
    let mut keys: Vec<_> = COPY_CHANGES
        .iter()
        .map(|(name, change)| {
            let mut op = copy();
            change(&mut op);
            (*name, definition(&Op::File(op)))
        })
        .collect();
    let plain = graph(Op::File(copy()));
    let mut foreign = plain.clone();
    foreign.vertices[STEP.0].platform = Arc::new("linux/arm64".parse().unwrap());
    keys.extend([
        ("the files", definition_of(&plain, OPTIONS, "others")),
        ("the platform", definition_of(&foreign, OPTIONS, "files")),
    ]);
    all_differ(&keys);
    // No process sees the noise settings.
    let loud = KeyOptions { normalise: false };
    assert_eq!(definition_of(&plain, loud, "files"), keys[0].1);
}

#[test]
fn a_changed_step_changes_the_keys_of_those_that_read_it() {
    let mut keys = Vec::new();
    for script in ["make", "make all"] {
        let mut below = exec();
        below.args[2] = script.to_owned();
        let mut graph = graph(Op::Exec(below));
        let mut above = copy();
        first(&mut above).from = STEP;
        let mut mounting = exec();
        *bind(&mut mounting).0 = STEP;
        let mut over = exec();
        over.root = STEP;
        for op in [Op::File(above), Op::Exec(mounting), Op::Exec(over)] {
            graph.vertices.push(vertex(op));
        }
        let select = |_, _| Ok::<_, Infallible>(files("files"));
        let Ok(computed) = DefinitionKeys::compute(&graph, OPTIONS, select);
        keys.extend((4..8).map(|n| computed.key(VertexId(n))));
    }
    let named: Vec<_> = keys.into_iter().map(|key| ("step", key)).collect();
    all_differ(&named);
}

fn recipe_of(op: Op, options: KeyOptions) -> KeyRecipe {
    let select = |_, _| Ok::<_, Infallible>(files("files"));
    let Ok(keys) = DefinitionKeys::compute(&graph(op), options, select);
    keys.recipe_of(STEP).clone()
}

fn old(recipe: &KeyRecipe) -> Vec<OldPart> {
    recipe.stored().iter().map(OldPart::from).collect()
}

/// The differences between two recipes, from what is stored of the first.
fn differences(before: &KeyRecipe, after: &KeyRecipe) -> Vec<Difference> {
    KeyDiff::between(&old(before), after).differences
}

#[test]
fn what_makes_another_key_makes_a_difference() {
    let before = recipe_of(Op::Exec(exec()), OPTIONS);
    for (name, change) in EXEC_CHANGES {
        let mut op = exec();
        change(&mut op);
        let after = recipe_of(Op::Exec(op), OPTIONS);
        let told = differences(&before, &after);
        assert_eq!(told.is_empty(), *name == "nothing", "{name}: {told:?}");
    }
    let before = recipe_of(Op::File(copy()), OPTIONS);
    for (name, change) in COPY_CHANGES {
        let mut op = copy();
        change(&mut op);
        let after = recipe_of(Op::File(op), OPTIONS);
        let told = differences(&before, &after);
        assert_eq!(told.is_empty(), *name == "nothing", "{name}: {told:?}");
    }
}

#[test]
fn differences_name_what_they_are_about() {
    let before = recipe_of(Op::Exec(exec()), OPTIONS);
    let first = |change: fn(&mut ExecOp)| {
        let mut op = exec();
        change(&mut op);
        differences(&before, &recipe_of(Op::Exec(op), OPTIONS))[0].to_string()
    };
    let told = [
        first(|op| op.args[2] = "make all".to_owned()),
        first(|op| op.args[0] = "/bin/bash".to_owned()),
        first(|op| change_env(op, |env| env[1].1 = "clang".to_owned())),
        first(|op| drop(op.mounts.pop())),
        first(|op| *bind(op).1 = "/c".to_owned()),
        first(|op| op.extras.devices.push(device("v.example/d=0"))),
        first(|op| op.user = "app".to_owned()),
        first(|op| op.cwd = "x".repeat(70)),
    ];
    assert_eq!(
        told,
        [
            "the command changed (`make` -> `make all`)",
            "the shell changed (`/bin/sh -c` -> `/bin/bash -c`)",
            "environment variable `CC` changed (`gcc` -> `clang`)",
            "mount `/tmp` removed (was `tmpfs`)",
            "mount `/b source` changed (`/a` -> `/c`)",
            "the devices added (`v.example/d=0`)",
            "the user changed (`` -> `app`)",
            &format!(
                "the working directory changed (`/src` -> `{}…`)",
                "x".repeat(60)
            ),
        ]
    );
}

#[test]
fn the_instruction_comes_before_what_it_stands_on() {
    let mut op = exec();
    (op.root, op.mtime, op.epoch) = (VertexId(2), 5, 5);
    op.args[2] = "make all".to_owned();
    let before = recipe_of(Op::Exec(exec()), OPTIONS);
    let other = KeyOptions { normalise: false };
    let told = differences(&before, &recipe_of(Op::Exec(op), other));
    let topics: Vec<Topic> = told.iter().map(|difference| difference.topic).collect();
    let wanted = [
        Topic::Command,
        Topic::Normalise,
        Topic::Epoch,
        Topic::Parent,
        Topic::Time,
    ];
    assert_eq!(topics, wanted);
}

#[test]
fn secrets_in_variables_are_compared_and_not_shown() {
    let recipe = |token: &str| {
        let mut op = exec();
        change_env(&mut op, |env| env.extend(pairs([("API_TOKEN", token)])));
        recipe_of(Op::Exec(op), OPTIONS)
    };
    let (one, two) = (recipe("first"), recipe("second"));
    let mut kept = old(&one);
    let env = kept.iter_mut().find(|part| part.name == "env").unwrap();
    let OldValue::Text(text) = &env.value else {
        panic!("{env:?}");
    };
    let items = hidden_items(text.as_bytes()).unwrap();
    assert!(
        items.iter().all(|item| !item.contains("first")),
        "{items:?}"
    );
    env.value = OldValue::Items(items);
    assert!(KeyDiff::between(&kept, &one).differences.is_empty());
    for kept in [kept, old(&one)] {
        let told = KeyDiff::between(&kept, &two).differences;
        assert_eq!(told.len(), 1);
        assert_eq!(
            told[0].to_string(),
            "environment variable `API_TOKEN` changed"
        );
        let shown = format!("{told:?}");
        assert!(
            !shown.contains("first") && !shown.contains("second"),
            "{shown}"
        );
    }
}

fn word() -> impl Strategy<Value = String> {
    "[ab=:\n1]{0,4}"
}

proptest! {
    #[test]
    fn runs_with_equal_keys_are_equal(
        a in prop::collection::vec(word(), 0..4),
        b in prop::collection::vec(word(), 0..4),
        cwd in prop::array::uniform2(word()),
        user in prop::array::uniform2(word()),
    ) {
        let op = |args: &[String], n: usize| ExecOp {
            args: args.to_vec(),
            cwd: cwd[n].clone(),
            user: user[n].clone(),
            ..exec()
        };
        let (one, two) = (op(&a, 0), op(&b, 1));
        prop_assert_eq!(
            definition(&Op::Exec(one.clone())) == definition(&Op::Exec(two.clone())),
            one == two
        );
    }

    #[test]
    fn copies_with_equal_keys_are_equal(
        sources in prop::array::uniform2(prop::collection::vec(word(), 0..3)),
        exclude in prop::array::uniform2(prop::collection::vec(word(), 0..3)),
        owner in prop::array::uniform2(prop::option::of(word())),
    ) {
        let op = |n: usize| {
            let mut op = copy();
            let copy = first(&mut op);
            copy.sources.clone_from(&sources[n]);
            copy.exclude.clone_from(&exclude[n]);
            copy.owner.clone_from(&owner[n]);
            op
        };
        let (one, two) = (op(0), op(1));
        prop_assert_eq!(
            definition(&Op::File(one.clone())) == definition(&Op::File(two.clone())),
            one == two
        );
    }
}

/// Names and keys of the page's vectors.
fn vectors() -> Vec<(&'static str, CacheKey)> {
    let empty = |kind| KeyRecipe::new(kind).key();
    let root = chain("root");
    let platform = "linux/amd64".parse().unwrap();
    vec![
        ("empty definition key", empty(KeyKind::Definition)),
        ("empty content key", empty(KeyKind::Content)),
        (
            "one part",
            KeyRecipe::new(KeyKind::Definition)
                .part("op", "scratch")
                .key(),
        ),
        (
            "list",
            KeyRecipe::new(KeyKind::Definition)
                .list("args", &["ab", "c"])
                .key(),
        ),
        (
            "optional",
            KeyRecipe::new(KeyKind::Definition)
                .option("copy.0.owner", Some("app"))
                .key(),
        ),
        ("RUN, definition", definition(&Op::Exec(exec()))),
        (
            "RUN, content",
            exec_content_recipe(&exec(), &platform, OPTIONS, root, &[chain("mounted")]).key(),
        ),
        ("COPY, definition", definition(&Op::File(copy()))),
        ("COPY, content", file_content_recipe(files("plan")).key()),
    ]
}

#[test]
fn the_specification_has_the_vectors() {
    let expected: Vec<String> = vectors()
        .iter()
        .map(|(name, key)| format!("| {name} | `{}` |", key.0.hex()))
        .collect();
    let (_, table) = SPECIFICATION.split_once("## Vectors").unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| "));
    let stated: Vec<&str> = rows.skip(1).collect();
    assert_eq!(
        stated,
        expected,
        "the page should have:\n{}",
        expected.join("\n")
    );
}

#[test]
fn the_specification_names_all_contexts() {
    for kind in KeyKind::ALL {
        let context = kind.context();
        assert!(SPECIFICATION.contains(&format!("`{context}`")), "{context}");
    }
}

#[test]
fn contexts_that_were_given_up_are_not_used() {
    let (_, versions) = SPECIFICATION.split_once("## Versions").unwrap();
    let (versions, _) = versions.split_once("## Vectors").unwrap();
    let rows = versions.lines().filter_map(|l| l.strip_prefix("| `"));
    let given_up: Vec<&str> = rows.filter_map(|row| row.split('`').next()).collect();
    assert!(!given_up.is_empty());
    for kind in KeyKind::ALL {
        let context = kind.context();
        assert!(!given_up.contains(&context), "{context}");
        let (name, version) = context.rsplit_once(" v").unwrap();
        // All earlier versions are in the table.
        for earlier in 1..version.parse::<u32>().unwrap() {
            let earlier = format!("{name} v{earlier}");
            assert!(given_up.contains(&earlier.as_str()), "{earlier}");
        }
    }
}
