//! A scan of a commit equals a scan of its checkout.

use proptest::prelude::*;

use super::*;
use crate::git::{Unknown, UnknownReason};

/// Scans `dir` of `commit`, both ways, and compares. Gives what was unknown.
#[track_caller]
fn compare(repo: &Path, dir: &str, ignore: &str, prefixes: &[LayerPath]) -> Vec<Unknown> {
    let repository = open(repo);
    let tree = repository
        .commit("HEAD")
        .unwrap()
        .files(&repository)
        .unwrap();
    let scanned = in_tree(&tree, dir, ignore, prefixes);
    let disk = on_disk(&repo.join(dir), ignore, prefixes);
    assert_eq!(
        rows(&scanned.context, &scanned.unknown),
        rows(&disk, &scanned.unknown),
        "unknown: {:?}",
        scanned.unknown
    );
    scanned.unknown
}

/// A new clone of `fixture`, so that all files are as a checkout writes them.
fn clone(fixture: &Fixture, settings: &[&str]) -> PathBuf {
    let to = fixture.beside("clone");
    let mut args = vec!["clone", "-q"];
    for setting in settings {
        args.extend(["-c", setting]);
    }
    args.extend([".", to.to_str().unwrap()]);
    fixture.git(&args);
    to
}

const ROOT: [LayerPath; 1] = [LayerPath::ROOT];

#[test]
fn only_the_git_directory_of_a_plain_checkout_is_unknown() {
    if !has_git() {
        return;
    }
    let fixture = Fixture::new();
    fixture.write("a/file", "x");
    fixture.write("a/empty", "");
    fixture.write("run", "#!/bin/sh\n");
    executable(&fixture.path().join("run"));
    std::os::unix::fs::symlink("a/file", fixture.path().join("link")).unwrap();
    fixture.commit("one");
    let unknown = compare(&fixture.path(), "", "", &ROOT);
    let git = Unknown {
        path: layer_path(".git"),
        reason: UnknownReason::GitDirectory,
    };
    assert_eq!(unknown, std::slice::from_ref(&git));
    assert_eq!(compare(&fixture.path(), "", ".git\n", &ROOT), []);
    assert_eq!(compare(&fixture.path(), "", "*\n!a\n", &ROOT), []);
    let part = ["a", "run", "nothing"].map(layer_path);
    assert_eq!(compare(&fixture.path(), "", "", &part), []);
    assert_eq!(compare(&fixture.path(), "a", "", &ROOT), []);
    // A prefix through a symlink takes everything.
    let through = [layer_path("link/below")];
    assert_eq!(
        compare(&fixture.path(), "", "", &through),
        std::slice::from_ref(&git)
    );
    // Something of `.git` that a pattern takes in again is unknown too.
    assert_eq!(
        compare(&fixture.path(), "", ".git\n!.git/HEAD\n", &ROOT),
        [git]
    );
}

#[test]
fn line_endings_ident_and_encodings_are_those_of_a_checkout() {
    if !has_git() {
        return;
    }
    let fixture = Fixture::new();
    let attributes = "* text=auto\n*.crlf eol=crlf\n*.lf text eol=lf\n*.bin binary\n*.id ident\n\
        *.le working-tree-encoding=UTF-16LE\n*.bom text working-tree-encoding=UTF-16LE-BOM eol=crlf\n\
        *.be working-tree-encoding=utf-16be\n*.u8 working-tree-encoding=UTF8\n\
        [attr]windows eol=crlf\nw/* windows\nold crlf\nraw/** -text\n";
    fixture.write(".gitattributes", attributes);
    let texts: [&[u8]; 10] = [
        b"one\ntwo\n",
        b"no end",
        b"one\r\ntwo\n",
        b"a\rb\n",
        b"nul\0\n",
        b"\x01\x02\x03\n",
        b"$Id$ and $Id: old $ and $Id: a b $\n$Id:x$ $Id\n$ $Id: last $",
        b"$Id: only $",
        b"dos\n\x1a",
        "\u{e9}\u{1f600}\n".as_bytes(),
    ];
    for (n, text) in texts.iter().enumerate() {
        for end in ["crlf", "lf", "bin", "id", "u8", "txt"] {
            fixture.write(&format!("{n}.{end}"), text);
        }
        fixture.write(&format!("w/{n}"), text);
        fixture.write(&format!("raw/deep/{n}.crlf"), text);
    }
    fixture.write("old", "one\ntwo\n");
    let utf16 =
        |text: &str| -> Vec<u8> { text.encode_utf16().flat_map(u16::to_le_bytes).collect() };
    fixture.write("f.le", utf16("\u{e9}\nx"));
    fixture.write("f.bom", utf16("\u{feff}\u{e9}\r\nx"));
    let big: Vec<u8> = "\u{e9}".encode_utf16().flat_map(u16::to_be_bytes).collect();
    fixture.write("f.be", big);
    fixture.write(
        "sub/.gitattributes",
        "*.crlf -text\n/only eol=crlf\n!x text\n",
    );
    fixture.write("sub/a.crlf", "a\n");
    fixture.write("sub/only", "a\n");
    fixture.write("sub/deep/only", "a\n");
    // Something odd on the way in must not stop the test.
    fixture.git(&["config", "core.safecrlf", "false"]);
    fixture.commit("one");
    for settings in [
        &[][..],
        &["core.autocrlf=true"],
        &["core.autocrlf=input"],
        &["core.eol=crlf"],
        &["core.symlinks=false"],
    ] {
        let clone = clone(&fixture, settings);
        let attributes = clone.join(".git/info/attributes");
        assert_eq!(compare(&clone, "", ".git\n", &ROOT), [], "{settings:?}");
        std::fs::create_dir_all(attributes.parent().unwrap()).unwrap();
        std::fs::write(&attributes, "*.lf eol=crlf\n").unwrap();
        for path in git(&clone, &["ls-files"]).lines() {
            std::fs::remove_file(clone.join(path.trim_matches('"'))).unwrap();
        }
        git(&clone, &["checkout", "-q", "--", "."]);
        assert_eq!(
            compare(&clone, "", ".git\n", &ROOT),
            [],
            "info, {settings:?}"
        );
        std::fs::remove_dir_all(clone).unwrap();
    }
}

#[test]
fn what_programs_would_write_is_unknown_and_they_are_not_run() {
    if !has_git() {
        return;
    }
    let fixture = Fixture::new();
    let attributes = "*.x filter=x\n*.bin filter=lfs\n*.sj working-tree-encoding=SHIFT-JIS\n";
    fixture.write(".gitattributes", attributes);
    fixture.write("a.x", "x");
    let content = b"the real content";
    let oid = crate::digest::Sha256Digest::of(content).hex();
    let pointer = format!(
        "version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {}\n",
        content.len()
    );
    fixture.write("b.bin", &pointer);
    fixture.write("plain.bin", "no pointer");
    fixture.write("c.sj", "text");
    fixture.git(&["config", "filter.x.smudge", "touch ran; cat"]);
    let commit = fixture.commit("one");
    let ran = fixture.path().join("ran");
    let _ = std::fs::remove_file(&ran);
    let repository = fixture.open();
    let tree = commit.files(&repository).unwrap();
    let unknown = |path: &str, reason| Unknown {
        path: layer_path(path),
        reason,
    };
    let expected = [
        unknown("a.x", UnknownReason::Filter("x".to_owned())),
        unknown("b.bin", UnknownReason::LfsObject(oid.clone())),
        unknown("c.sj", UnknownReason::Encoding("SHIFT-JIS".to_owned())),
    ];
    assert_eq!(in_tree(&tree, "", ".git", &ROOT).unknown, expected);

    let object = format!(".git/lfs/objects/{}/{}/{oid}", &oid[..2], &oid[2..4]);
    fixture.write(&object, content);
    let scanned = in_tree(&tree, "", ".git", &ROOT);
    assert_eq!(scanned.unknown, [expected[0].clone(), expected[2].clone()]);
    fixture.write("b.bin", content);
    let disk = on_disk(&fixture.path(), ".git", &ROOT);
    assert_eq!(
        rows(&scanned.context, &scanned.unknown),
        rows(&disk, &scanned.unknown)
    );
    // A damaged object is none.
    fixture.write(&object, b"the fake content");
    assert_eq!(in_tree(&tree, "", ".git", &ROOT).unknown, expected);
    assert!(!ran.exists());
}

#[test]
fn submodules_are_read_where_they_are_at_hand() {
    if !has_git() {
        return;
    }
    let inner = Fixture::new();
    inner.write("lib/code", "x");
    inner.write(".gitattributes", "* eol=crlf\n");
    inner.write("lib/text", "a\nb\n");
    inner.commit("inner");
    let fixture = Fixture::new();
    fixture.write("own", "x");
    let url = inner.path();
    fixture.git(&[
        "submodule",
        "--quiet",
        "add",
        url.to_str().unwrap(),
        "third/party",
    ]);
    fixture.commit("with a submodule");
    assert_eq!(compare(&fixture.path(), "", ".git\n", &ROOT), []);
    assert_eq!(compare(&fixture.path(), "third/party/lib", "", &ROOT), []);
    let below = [layer_path("third/party/lib")];
    assert_eq!(compare(&fixture.path(), "", "", &below), []);

    // A clone without it.
    let clone = clone(&fixture, &[]);
    let absent = Unknown {
        path: layer_path("third/party"),
        reason: UnknownReason::Submodule,
    };
    assert_eq!(
        compare(&clone, "", ".git\n", &ROOT),
        std::slice::from_ref(&absent)
    );
    assert_eq!(compare(&clone, "", ".git\n", &below), [absent]);
    let repository = open(&clone);
    let tree = repository
        .commit("HEAD")
        .unwrap()
        .files(&repository)
        .unwrap();
    assert_eq!(
        tree.read(&layer_path("third/party/lib/code")).unwrap(),
        None
    );

    // A bare repository has it below `modules`.
    let git_dir = open(&fixture.path().join(".git"));
    let tree = git_dir.commit("HEAD").unwrap().files(&git_dir).unwrap();
    let text = tree.read(&layer_path("third/party/lib/text")).unwrap();
    assert_eq!(text.unwrap(), b"a\r\nb\r\n");
}

#[test]
fn identities_of_objects_change_with_what_a_checkout_would_write() {
    if !has_git() {
        return;
    }
    let fixture = Fixture::new();
    let options = ScanOptions {
        identity: ContentIdentity::ObjectId,
        memo_dir: None,
    };
    let digests = |commit: &Commit| -> Vec<_> {
        let tree = commit.files(&fixture.open()).unwrap();
        let context = local(Path::new("/nowhere"), ".git*");
        let scanned = scan(&tree, &LayerPath::ROOT, &context, &ROOT, options).unwrap();
        assert_eq!(scanned.context.hashed, 0);
        let rows = scanned.context.index.entries;
        rows.into_iter().map(|row| row.content).collect()
    };
    fixture.write("a", "x\n");
    fixture.write("b", "x\n");
    let one = fixture.commit("one");
    fixture.write(".gitattributes", "b eol=crlf\n");
    let two = fixture.commit("two");
    fixture.write(".gitattributes", "b filter=lfs\n");
    let three = fixture.commit("three");
    let (one, two, three) = (digests(&one), digests(&two), digests(&three));
    assert_eq!(one[0], one[1]);
    assert_eq!(one[0], two[0]);
    assert_ne!(one[1], two[1]);
    assert_ne!(two[1], three[1]);
}

/// Part of a random tree.
#[derive(Debug, Clone)]
enum Item {
    File(Vec<u8>, bool),
    Symlink(String),
}

fn items() -> impl Strategy<Value = Vec<(String, Item)>> {
    let name = prop_oneof![
        Just("a"),
        Just("b.txt"),
        Just("c.crlf"),
        Just("d.bin"),
        Just(".dockerignore"),
        Just("e f"),
        Just("\u{fc}"),
        Just("a-b"),
        Just("a.b"),
        Just(".gitattributes"),
        Just("-x"),
        Just("[y]"),
    ];
    let path = prop::collection::vec(name, 1..4).prop_map(|names| names.join("/"));
    let text = prop_oneof![
        Just(""),
        Just("x"),
        Just("a\nb\n"),
        Just("a\r\nb\n"),
        Just("\0\n"),
        Just("$Id$\n"),
        Just("* text=auto\n*.txt eol=crlf\n"),
        Just("*.crlf text eol=crlf\na -text\n"),
        Just("d.bin binary\n* ident\n"),
        Just("a/** eol=crlf\n/b.txt text\n*.b ident eol=lf\n"),
        Just("a*\n!a/b.txt\n"),
    ];
    let target = prop_oneof![
        Just("a"),
        Just("../a"),
        Just("b.txt"),
        Just("/etc"),
        Just("nowhere")
    ];
    let item = prop_oneof![
        4 => (text, any::<bool>()).prop_map(|(text, x)| Item::File(text.as_bytes().to_vec(), x)),
        1 => target.prop_map(|target| Item::Symlink(target.to_owned())),
    ];
    prop::collection::vec((path, item), 1..14)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_commit_scans_as_its_checkout_does(
        items in items(),
        ignore in prop_oneof![Just(""), Just("a\n"), Just("*\n!a/b.txt\n!**/c.crlf\n"), Just("**/*.bin\n")],
        setting in prop_oneof![
            Just("core.autocrlf=false"), Just("core.autocrlf=true"), Just("core.eol=crlf"),
            Just("core.symlinks=false"), Just("core.sharedRepository=0640"),
        ],
        prefixes in prop::collection::vec(prop_oneof![Just(""), Just("a"), Just("a/b.txt"), Just("e f")], 1..3),
    ) {
        if has_git() {
            let fixture = Fixture::new();
            fixture.git(&["config", "core.safecrlf", "false"]);
            for (path, item) in items {
                let path = fixture.path().join(path);
                // What stands in the way of an earlier item is left out, and nothing is written
                // through a symlink.
                let repository = fixture.path();
                let mut above = path.ancestors().take_while(|above| *above != repository);
                if above.any(Path::is_symlink)
                    || path.exists()
                    || std::fs::create_dir_all(path.parent().unwrap()).is_err()
                {
                    continue;
                }
                match item {
                    Item::File(content, x) => {
                        std::fs::write(&path, content).unwrap();
                        if x {
                            executable(&path);
                        }
                    }
                    Item::Symlink(target) => {
                        let _ = std::os::unix::fs::symlink(target, path);
                    }
                }
            }
            fixture.commit("random");
            let clone = clone(&fixture, &[setting]);
            let ignore = format!(".git\n{ignore}");
            let prefixes: Vec<_> = prefixes.into_iter().map(layer_path).collect();
            let unknown = compare(&clone, "", &ignore, &prefixes);
            // A pattern with `!**/` can mean something in `.git`.
            prop_assert!(unknown.iter().all(|u| u.path == layer_path(".git")));
            let inner = clone.join("a");
            if inner.is_dir() && !inner.is_symlink() {
                prop_assert_eq!(compare(&clone, "a", "", &ROOT), []);
            }
        }
    }
}
