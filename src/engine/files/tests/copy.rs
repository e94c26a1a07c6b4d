//! COPY, WORKDIR and heredocs: destinations, symlinks, wildcards, owners, modes.

use super::*;

const CONTEXT: &[&str] = &[
    "a", "b", "d/", "d/e", "d/s/", "d/s/f", "l -> d/e", "dl -> d", "x.c", "y.c",
];

#[track_caller]
fn gives(root: &[&str], copy: CopyAction, expected: &[&str]) {
    assert_eq!(copied(root, CONTEXT, copy).unwrap(), expected);
}

#[test]
fn a_file_goes_to_its_destination() {
    gives(&[], copy(&["a"], "/x"), &["/x = /a"]);
    gives(&[], copy(&["a"], "/"), &["/a = /a"]);
    gives(&[], copy(&["a"], "/x/"), &["/x/", "/x/a = /a"]);
    gives(&[], copy(&["a"], "/x/."), &["/x/", "/x/a = /a"]);
    gives(&[], copy(&["a"], "/x/y"), &["/x/", "/x/y = /a"]);
    gives(
        &[],
        copy(&["a", "b"], "/x/"),
        &["/x/", "/x/a = /a", "/x/b = /b"],
    );
    // An existing directory takes it, with or without a slash, and stays as it is.
    let root = ["x/ @700 1 2"];
    gives(&root, copy(&["a"], "/x"), &["/x/ 700 1:2", "/x/a = /a"]);
    // An existing file is replaced.
    gives(&["x @600 1 2"], copy(&["a"], "/x"), &["/x = /a"]);
}

#[test]
fn a_directory_gives_its_content() {
    let all = ["/x/", "/x/e = /d/e", "/x/s/", "/x/s/f = /d/s/f"];
    gives(&[], copy(&["d"], "/x"), &all);
    gives(&[], copy(&["d/"], "/x/"), &all);
    gives(&["x/"], copy(&["d"], "/x"), &all);
    gives(
        &[],
        copy(&["d"], "/"),
        &["/e = /d/e", "/s/", "/s/f = /d/s/f"],
    );
    gives(
        &[],
        copy(&["d/s", "a"], "/x/"),
        &["/x/", "/x/a = /a", "/x/f = /d/s/f"],
    );
    // A directory below that exists takes the mode and owner of the source's.
    let root = ["x/ @700 1 2", "x/s/ @700 1 2"];
    gives(
        &root,
        copy(&["d"], "/x"),
        &["/x/ 700 1:2", "/x/e = /d/e", "/x/s/", "/x/s/f = /d/s/f"],
    );
    let whole = copied(&[], &["a", "d/", "d/e"], copy(&["."], "/")).unwrap();
    assert_eq!(whole, ["/a = /a", "/d/", "/d/e = /d/e"]);
}

#[test]
fn what_does_not_fit_is_refused() {
    let is_dir = copied(&["x/", "x/a/"], CONTEXT, copy(&["a"], "/x/"));
    assert!(matches!(is_dir, Err(FileError::IsADirectory { path }) if path == "/x/a"));
    let no_dir = copied(&["x"], CONTEXT, copy(&["d"], "/x"));
    assert!(matches!(no_dir, Err(FileError::NotADirectory { path }) if path == "/x"));
    let no_dir = copied(&["x"], CONTEXT, copy(&["a"], "/x/y"));
    assert!(matches!(no_dir, Err(FileError::NotADirectory { path }) if path == "/x"));
    let inner = copied(&["x/", "x/s"], CONTEXT, copy(&["d"], "/x"));
    assert!(matches!(inner, Err(FileError::NotADirectory { path }) if path == "/x/s"));
    let none = copied(&[], CONTEXT, copy(&["none"], "/"));
    assert!(matches!(none, Err(FileError::NotFound { path, .. }) if path == "none"));
    let outside = copied(&[], CONTEXT, copy(&["d/../../a"], "/"));
    assert!(matches!(outside, Err(FileError::Outside { .. })));
    let circle = copied(&[], &["l -> m", "m -> l"], copy(&["l"], "/x"));
    assert!(matches!(circle, Err(FileError::SymlinkLoop { .. })));
    let circle = copied(&["l -> m", "m -> l"], CONTEXT, copy(&["a"], "/l/x"));
    assert!(matches!(circle, Err(FileError::SymlinkLoop { .. })));
    let pattern = copied(&[], CONTEXT, copy(&["[a"], "/"));
    assert!(matches!(pattern, Err(FileError::Pattern { .. })));
}

#[test]
fn symlinks_of_the_image_are_followed_inside_it() {
    let root = [
        "real/",
        "real/ @755 5 6",
        "bin -> real",
        "up -> ../../real",
        "abs -> /real",
    ];
    for link in ["/bin/x", "/up/x", "/abs/x"] {
        gives(&root, copy(&["a"], link), &["/real/ 5:6", "/real/x = /a"]);
    }
    gives(
        &root,
        copy(&["d/s"], "/bin"),
        &["/real/ 5:6", "/real/f = /d/s/f"],
    );
    // The last component too.
    gives(&["f", "fl -> f"], copy(&["a"], "/fl"), &["/f = /a"]);
    gives(&["fl -> gone"], copy(&["a"], "/fl"), &["/gone = /a"]);
    // But a symlink that a directory's content meets is replaced.
    gives(
        &["x/", "x/e -> /other"],
        copy(&["d"], "/x"),
        &["/x/", "/x/e = /d/e", "/x/s/", "/x/s/f = /d/s/f"],
    );
}

#[test]
fn symlinks_of_the_source_are_followed_where_they_are_named() {
    gives(&[], copy(&["l"], "/x"), &["/x = /d/e"]);
    gives(&[], copy(&["l"], "/x/"), &["/x/", "/x/l = /d/e"]);
    gives(
        &[],
        copy(&["dl"], "/x"),
        &["/x/", "/x/e = /d/e", "/x/s/", "/x/s/f = /d/s/f"],
    );
    gives(&[], copy(&["dl/s"], "/x"), &["/x/", "/x/f = /d/s/f"]);
    let inside = copied(&[], &["d/", "d/l -> ../a", "a"], copy(&["d"], "/x")).unwrap();
    assert_eq!(inside, ["/x/", "/x/l -> ../a"]);
}

#[test]
fn wildcards() {
    gives(
        &[],
        copy(&["*.c"], "/x/"),
        &["/x/", "/x/x.c = /x.c", "/x/y.c = /y.c"],
    );
    gives(
        &[],
        copy(&["?"], "/x/"),
        &[
            "/x/",
            "/x/a = /a",
            "/x/b = /b",
            "/x/e = /d/e",
            "/x/l = /d/e",
            "/x/s/",
            "/x/s/f = /d/s/f",
        ],
    );
    gives(
        &[],
        copy(&["d/*"], "/x/"),
        &["/x/", "/x/e = /d/e", "/x/f = /d/s/f"],
    );
    gives(&[], copy(&["*/e"], "/x/"), &["/x/", "/x/e = /d/e"]);
    gives(&[], copy(&["*.none"], "/x/"), &[]);
}

#[test]
fn parents_are_kept() {
    let mut action = copy(&["d/s/f", "a"], "/x/");
    action.parents = true;
    gives(
        &[],
        action,
        &["/x/", "/x/a = /a", "/x/d/", "/x/d/s/", "/x/d/s/f = /d/s/f"],
    );
    let mut action = copy(&["d/./s/f"], "/x/");
    action.parents = true;
    gives(&[], action, &["/x/", "/x/s/", "/x/s/f = /d/s/f"]);
    let mut action = copy(&["d/*/f"], "/x/");
    action.parents = true;
    gives(
        &[],
        action,
        &["/x/", "/x/d/", "/x/d/s/", "/x/d/s/f = /d/s/f"],
    );
}

#[test]
fn exclusions() {
    let mut action = copy(&["."], "/x/");
    action.exclude = vec![
        "d/s".to_owned(),
        "*.c".to_owned(),
        "?".to_owned(),
        "dl".to_owned(),
        "!b".to_owned(),
    ];
    assert_eq!(copied(&[], CONTEXT, action).unwrap(), ["/x/", "/x/b = /b"]);
    let mut action = copy(&["d"], "/x");
    action.exclude = vec!["**/f".to_owned()];
    gives(&[], action, &["/x/", "/x/e = /d/e", "/x/s/"]);
}

#[test]
fn directories_on_the_way_keep_their_owner_and_take_the_mode() {
    let stage = ["d/ @700 5 6", "d/s/", "d/s/f", "d/g"];
    let mut action = copy(&["**/f"], "/x/");
    action.parents = true;
    action.owner = Some("7:8".to_owned());
    action.mode = exact(0o640);
    let made = copied(&[], &stage, action.clone()).unwrap();
    assert_eq!(
        made,
        [
            "/x/ 640 7:8",
            "/x/d/ 640 7:8",
            "/x/d/s/ 640 7:8",
            "/x/d/s/f = /d/s/f 640 7:8"
        ]
    );
    let met = copied(&["x/", "x/d/ @711 3 4", "x/d/s/"], &stage, action).unwrap();
    assert_eq!(
        met,
        [
            "/x/",
            "/x/d/ 700 3:4",
            "/x/d/s/",
            "/x/d/s/f = /d/s/f 640 7:8"
        ]
    );
    let mut action = copy(&["/"], "/x/");
    action.exclude = vec!["**".to_owned(), "!d/g".to_owned()];
    let left = copied(&[], &stage, action).unwrap();
    assert_eq!(left, ["/x/", "/x/d/ 700 5:6", "/x/d/g = /d/g"]);
}

#[test]
fn parents_must_exist_unless_there_is_a_wildcard() {
    for (text, found) in [("d/none", false), ("dl/e", false), ("d/*none", true)] {
        let mut action = copy(&[text], "/x/");
        action.parents = true;
        assert_eq!(copied(&[], CONTEXT, action).is_ok(), found, "{text}");
    }
}

#[test]
fn setgid_directories_hand_their_group_down() {
    let root = ["g/ @2775 0 77"];
    let mut action = copy(&["a"], "/g/x/y/");
    let made = copied(&root, CONTEXT, action.clone()).unwrap();
    assert_eq!(
        made,
        [
            "/g/ 2775 0:77",
            "/g/x/ 2755 0:77",
            "/g/x/y/ 2755 0:77",
            "/g/x/y/a = /a"
        ]
    );
    action.owner = Some("1:2".to_owned());
    let owned = copied(&root, CONTEXT, action).unwrap();
    assert_eq!(owned[1], "/g/x/ 2755 1:2");
}

#[test]
fn a_link_knows_the_names_of_the_image() {
    let mut action = copy(&["a"], "/x/a");
    action.link = true;
    action.owner = Some("app".to_owned());
    let shown = copied(&["etc/", "etc/passwd", "x/ @700"], CONTEXT, action).unwrap();
    assert_eq!(shown, ["/x/ 10:20", "/x/a = /a 10:20"]);
}

#[test]
fn owners_and_modes() {
    const DATABASE: &[&str] = &["etc/", "etc/passwd", "etc/group"];
    let mut action = copy(&["d"], "/x");
    action.owner = Some("app:web".to_owned());
    gives(
        DATABASE,
        action,
        &[
            "/x/ 10:30",
            "/x/e = /d/e 10:30",
            "/x/s/ 10:30",
            "/x/s/f = /d/s/f 10:30",
        ],
    );
    let mut action = copy(&["a"], "/x/y");
    action.owner = Some("7".to_owned());
    action.mode = exact(0o4711);
    gives(&[], action, &["/x/ 711 7:7", "/x/y = /a 4711 7:7"]);
    let mut action = copy(&["d"], "/x");
    action.mode = Some(ModeChange::Symbolic("go=,u+X".to_owned()));
    let shown = copied(&["x/"], CONTEXT, action).unwrap();
    assert_eq!(
        shown,
        ["/x/", "/x/e = /d/e 600", "/x/s/ 700", "/x/s/f = /d/s/f 600"]
    );
    let mut action = copy(&["a"], "/");
    action.owner = Some("nobody:web".to_owned());
    let shown = copied(DATABASE, CONTEXT, action).unwrap();
    assert_eq!(shown.last().unwrap(), "/a = /a 0:30");
    // A stage's owners and modes are kept; a symlink has no mode.
    let stage = ["f @4755 3 4", "l -> f @777 3 4"];
    let mut action = copy(&["."], "/x/");
    action.mode = None;
    let kept = copied(&[], &stage, action).unwrap();
    assert_eq!(kept, ["/x/", "/x/f = /f 4755 3:4", "/x/l -> f 3:4"]);
}

#[test]
fn hard_links_stay_together_within_one_source() {
    let stage = ["d/", "d/one", "d/two => d/one", "three => d/one"];
    let both = copied(&[], &stage, copy(&["d"], "/x")).unwrap();
    assert_eq!(both, ["/x/", "/x/one = /d/one", "/x/two => /x/one"]);
    let one = copied(&[], &stage, copy(&["d/two"], "/x")).unwrap();
    assert_eq!(one, ["/x = /d/one"]);
    let apart = copied(&[], &stage, copy(&["d/one", "three"], "/x/")).unwrap();
    assert_eq!(apart, ["/x/", "/x/one = /d/one", "/x/three = /d/one"]);
}

#[test]
fn working_directories() {
    let make = |path: &str, owner: Option<&str>| FileAction::MakeDir {
        path: path.to_owned(),
        owner: owner.map(str::to_owned),
    };
    let database = ["etc/", "etc/passwd", "etc/group", "srv/", "l -> srv"];
    let made = |path, owner| done(&database, make(path, owner));
    assert_eq!(made("/a/b", None).unwrap(), ["/a/", "/a/b/"]);
    assert_eq!(made("/srv", None).unwrap(), [""; 0]);
    assert_eq!(made("/", None).unwrap(), [""; 0]);
    assert_eq!(
        made("/l/x", Some("app")).unwrap(),
        ["/srv/", "/srv/x/ 10:20"]
    );
    assert!(matches!(
        made("/etc/passwd/x", None),
        Err(FileError::NotADirectory { .. })
    ));
}

#[test]
fn heredocs() {
    let text = |dest: &str, mode| FileAction::Write {
        dest: dest.to_owned(),
        name: "EOF".to_owned(),
        content: b"hi\n".to_vec(),
        owner: None,
        mode,
    };
    let write = |root: &[&str], dest, mode| done(root, text(dest, mode)).unwrap();
    assert_eq!(write(&[], "/x", None), ["/x = \"hi\\n\""]);
    assert_eq!(write(&[], "/x/", None), ["/x/", "/x/EOF = \"hi\\n\""]);
    assert_eq!(write(&["x/"], "/x", None), ["/x/", "/x/EOF = \"hi\\n\""]);
    assert_eq!(
        write(&["l -> y"], "/l", exact(0o700)),
        ["/y = \"hi\\n\" 700"]
    );
    assert!(matches!(
        done(&["x"], text("/x/y", None)),
        Err(FileError::NotADirectory { .. })
    ));
}

#[test]
fn later_actions_see_earlier_ones() {
    let actions = ["/x", "/x"].map(|dest| FileAction::Copy(copy(&["d/s"], dest)));
    let mut actions = actions.to_vec();
    actions.push(FileAction::Copy(copy(&["a"], "/x")));
    let context = source(tree(CONTEXT));
    let sources = vec![Some(context); 3];
    let plan = plan(&op(actions), &tree(&[]), &sources).unwrap();
    assert_eq!(show(&plan), ["/x/", "/x/a = /a", "/x/f = /d/s/f"]);
}
