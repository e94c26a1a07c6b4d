//! The merged view against a model that applies layers one by one.

use std::{collections::BTreeMap, sync::Arc};

use proptest::{collection, prelude::*};

use super::samples::*;
use crate::{
    digest::Sha256Digest,
    oci::layer::{DiffId, Entry, EntryKind, IndexEntry, LayerIndex, LayerPath, Tree, TreeError},
};

fn index(entries: Vec<Entry>) -> Arc<LayerIndex> {
    let rows = entries
        .into_iter()
        .map(|entry| IndexEntry {
            entry,
            content: None,
            offset: 0,
            inline: None,
        })
        .collect();
    Arc::new(LayerIndex::new(
        DiffId(Sha256Digest::of(b"")),
        0,
        rows,
        Vec::new(),
    ))
}

/// Path to whether it is a directory and the time of its row, zero if implied.
type Model = BTreeMap<LayerPath, (bool, i64)>;

fn ancestors(path: &LayerPath) -> Vec<LayerPath> {
    let mut up: Vec<_> = std::iter::successors(path.parent(), LayerPath::parent).collect();
    up.reverse();
    up
}

fn apply(model: &mut Model, layer: &LayerIndex) {
    let rows = || layer.entries.iter().map(|row| &row.entry);
    for row in rows() {
        let at = &row.path;
        match row.kind {
            EntryKind::Whiteout => model.retain(|path, _| !path.starts_with(at)),
            EntryKind::Opaque => model.retain(|path, _| path == at || !path.starts_with(at)),
            _ => {}
        }
    }
    let is_file = |path: &LayerPath| {
        rows().any(|row| {
            row.path == *path
                && !matches!(
                    row.kind,
                    EntryKind::Directory | EntryKind::Whiteout | EntryKind::Opaque
                )
        })
    };
    model.entry(LayerPath::ROOT).or_insert((true, 0));
    for row in rows() {
        let mut directories = ancestors(&row.path);
        if directories.iter().any(is_file) {
            continue;
        }
        if row.kind == EntryKind::Opaque && !is_file(&row.path) {
            directories.push(row.path.clone());
        }
        for directory in directories {
            if model
                .get(&directory)
                .is_none_or(|(directory, _)| !directory)
            {
                model.insert(directory, (true, 0));
            }
        }
        match row.kind {
            EntryKind::Whiteout | EntryKind::Opaque => {}
            EntryKind::Directory => {
                model.insert(row.path.clone(), (true, row.mtime));
            }
            _ => {
                model.retain(|path, _| !path.starts_with(&row.path));
                model.insert(row.path.clone(), (false, row.mtime));
            }
        }
    }
}

fn small_path() -> impl Strategy<Value = LayerPath> {
    collection::vec("[ab-]", 1..4).prop_map(|names| path(&names.join("/")))
}

fn any_layers() -> impl Strategy<Value = Vec<Vec<(LayerPath, EntryKind)>>> {
    let kind = prop_oneof![
        3 => Just(EntryKind::Directory),
        3 => Just(EntryKind::Regular { size: 0 }),
        2 => Just(EntryKind::Whiteout),
        1 => Just(EntryKind::Opaque),
        1 => Just(EntryKind::Fifo),
    ];
    collection::vec(collection::vec((small_path(), kind), 0..7), 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn the_tree_is_what_applying_the_layers_gives(layers in any_layers()) {
        let mut model = Model::new();
        let mut time = 0;
        let layers: Vec<_> = layers
            .into_iter()
            .map(|entries| {
                let stamped = entries.into_iter().map(|(path, kind)| {
                    time += 1;
                    let mut entry = entry("", kind);
                    entry.path = path;
                    entry.mtime = time;
                    entry
                });
                let index = index(stamped.collect());
                apply(&mut model, &index);
                index
            })
            .collect();
        let tree = Tree::new(layers);
        let view: Model = tree
            .walk(&LayerPath::ROOT)
            .map(|(path, found)| {
                let entry = &found.row.entry;
                (path, (entry.kind == EntryKind::Directory, entry.mtime))
            })
            .collect();
        prop_assert_eq!(&view, &model);
        let walked: Vec<_> = tree.walk(&LayerPath::ROOT).map(|(path, _)| path).collect();
        prop_assert!(walked.iter().eq(model.keys()), "not in canonical order");
        for names in 1..40u32 {
            let names: Vec<_> = (0..3).map(|n| ["", "a", "b", "-"][(names as usize >> (2 * n)) % 4]).collect();
            let at = path(&names.join("/"));
            let found = tree.get(&at).map(|f| (f.row.entry.kind == EntryKind::Directory, f.row.entry.mtime));
            prop_assert_eq!(found, model.get(&at).copied(), "{}", at);
            let children: Vec<_> = model
                .keys()
                .filter(|path| path.parent().as_ref() == Some(&at))
                .filter_map(|path| path.file_name().map(ToOwned::to_owned))
                .collect();
            prop_assert_eq!(tree.children(&at), children, "{}", at);
            let below: Vec<_> = model.keys().filter(|p| p.starts_with(&at)).cloned().collect();
            let walked: Vec<_> = tree.walk(&at).map(|(path, _)| path).collect();
            prop_assert_eq!(walked, below, "{}", at);
        }
    }
}

#[test]
fn hard_links_lead_to_the_content_in_their_layer_or_below() {
    let link = |at: &str, target: &str| {
        let target = path(target);
        entry(at, EntryKind::Hardlink { target })
    };
    let tree = Tree::new(vec![
        index(vec![file("a", 1), file("b", 2)]),
        index(vec![
            link("c", "b"),
            link("d", "c"),
            file("e", 3),
            link("f", "e"),
        ]),
        index(vec![
            file("b", 4),
            link("loop", "loop"),
            link("x", "nowhere"),
        ]),
    ]);
    let source = |at: &str| {
        let found = tree.source(tree.get(&path(at)).unwrap())?;
        Some((found.layer, found.row.entry.path.to_string()))
    };
    assert_eq!(source("a"), Some((0, "/a".into())));
    // The link keeps the file of its time.
    assert_eq!(source("c"), Some((0, "/b".into())));
    assert_eq!(source("d"), Some((0, "/b".into())));
    assert_eq!(source("b"), Some((2, "/b".into())));
    assert_eq!(source("f"), Some((1, "/e".into())));
    assert_eq!(source("loop"), None);
    assert_eq!(source("x"), None);
}

#[test]
fn symbolic_links_are_followed_inside_the_root() {
    let tree = Tree::new(vec![
        index(vec![
            symlink("bin", "usr/bin"),
            symlink("etc/alternatives/vi", "/usr/bin/vim"),
            symlink("loop", "loop"),
            symlink("out", "../../../usr"),
            file("usr/bin/vim", 1),
            symlink("usr/bin/vi", "../../etc/alternatives/vi"),
        ]),
        index(vec![symlink("dangling", "/no/where")]),
    ]);
    let resolve = |at: &str| tree.resolve(&path(at), true).map(|path| path.to_string());
    assert_eq!(resolve("bin/vi").unwrap(), "/usr/bin/vim");
    assert_eq!(resolve("out/bin").unwrap(), "/usr/bin");
    assert_eq!(resolve("dangling/x").unwrap(), "/no/where/x");
    assert_eq!(resolve("new/a/b").unwrap(), "/new/a/b");
    assert_eq!(resolve("").unwrap(), "/");
    assert_eq!(tree.resolve(&path("bin"), false).unwrap(), path("bin"));
    assert_eq!(
        tree.resolve(&path("bin/vi"), false).unwrap(),
        path("usr/bin/vi")
    );
    assert!(matches!(
        tree.resolve(&path("loop"), true),
        Err(TreeError::Loop { .. })
    ));
    assert_eq!(
        tree.resolve(&path("bin/vim/x"), true),
        Err(TreeError::NotADirectory {
            path: path("bin/vim/x"),
            component: path("usr/bin/vim"),
        })
    );
}

#[test]
fn a_file_made_after_its_own_whiteout_stays() {
    let tree = Tree::new(vec![
        index(vec![file("d/old", 1), file("f", 1)]),
        index(vec![
            entry("d", EntryKind::Whiteout),
            entry("d", EntryKind::Directory),
            file("f", 2),
            entry("f", EntryKind::Whiteout),
        ]),
    ]);
    assert_eq!(tree.children(&path("d")), Vec::<std::ffi::OsString>::new());
    assert_eq!(tree.get(&path("f")).map(|found| found.layer), Some(1));
}

#[test]
fn inline_files_are_found_through_links_and_layers() {
    let passwd = |text: &[u8]| {
        let items = vec![(file("etc/passwd", text.len()), text.to_vec())];
        Arc::new(build(&items).1.index)
    };
    let tree = Tree::new(vec![
        passwd(b"root:x:0:0"),
        passwd(b"app:x:7:7"),
        index(vec![symlink("users", "/etc/passwd")]),
    ]);
    assert_eq!(
        tree.inline_file(&path("users")),
        Some(b"app:x:7:7".as_slice())
    );
    assert_eq!(tree.inline_file(&path("etc/group")), None);
}

#[test]
fn a_thousand_layers_are_walked() {
    let layer = |n: usize| index(vec![file(&format!("d{}/f{n}", n % 50), 0)]);
    let tree = Tree::new((0..1000).map(layer).collect());
    assert_eq!(tree.walk(&LayerPath::ROOT).count(), 1 + 50 + 1000);
    assert_eq!(tree.get(&path("d7/f7")).map(|found| found.layer), Some(7));
}
