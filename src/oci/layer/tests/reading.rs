//! Tars of other tools, and hostile ones.

use std::{
    collections::BTreeMap,
    io::Read,
    os::unix::fs::symlink as make_symlink,
    process::{Command, Stdio},
};

use proptest::prelude::*;

use super::samples::*;
use crate::oci::layer::{Compression, EntryKind, LayerError, LayerOptions, TarEntries, scan};

const PLAIN: &str = "application/vnd.oci.image.layer.v1.tar";

/// A header block made by the `tar` crate.
fn block(name: &str, kind: u8, size: u64, edit: impl FnOnce(&mut tar::Header)) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(tar::EntryType::new(kind));
    header.set_size(size);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    edit(&mut header);
    header.set_cksum();
    header.as_bytes().to_vec()
}

fn with_data(name: &str, kind: u8, data: &[u8]) -> Vec<u8> {
    let mut bytes = block(name, kind, data.len() as u64, |_| {});
    bytes.extend_from_slice(data);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn first_error(tar: &[u8]) -> LayerError {
    let mut entries = TarEntries::new(tar);
    loop {
        match entries.next_entry() {
            Ok(Some(_)) => {}
            Ok(None) => panic!("no error"),
            Err(error) => return error,
        }
    }
}

#[test]
fn names_are_normalised_and_escapes_refused() {
    let tar = [
        block("./", b'5', 0, |_| {}),
        block("./a/", b'5', 0, |_| {}),
        block("/b//c", b'0', 0, |_| {}),
        block("old-dir/", 0, 0, |_| {}),
        block("contiguous", b'7', 0, |_| {}),
    ]
    .concat();
    let names: Vec<_> = read_tar(&tar)
        .iter()
        .map(|(entry, _)| (entry.path.to_string(), entry.kind == EntryKind::Directory))
        .collect();
    let expected = [
        ("/", true),
        ("/a", true),
        ("/b/c", false),
        ("/old-dir", true),
        ("/contiguous", false),
    ];
    assert_eq!(names, expected.map(|(name, dir)| (name.to_owned(), dir)));

    for name in ["../a", "a/../../b", ".."] {
        assert!(matches!(
            first_error(&block(name, b'0', 0, |_| {})),
            LayerError::BadPath { .. }
        ));
    }
    let link = block("a", b'1', 0, |h| {
        h.set_link_name_literal("../../etc/shadow").unwrap()
    });
    assert!(matches!(first_error(&link), LayerError::BadPath { .. }));
}

#[test]
fn deletions_are_decoded() {
    let tar = [
        block(".wh..wh..opq", b'0', 0, |_| {}),
        block("a/.wh.b", b'0', 0, |_| {}),
        block("a/.wh..wh..opq", b'0', 0, |_| {}),
        block(".wh..wh.plnk/x", b'0', 0, |_| {}),
        block(".wh..wh.aufs", b'0', 0, |_| {}),
    ]
    .concat();
    let read: Vec<_> = read_tar(&tar)
        .into_iter()
        .map(|(entry, _)| (entry.path.to_string(), entry.kind))
        .collect();
    assert_eq!(
        read,
        [
            ("/".to_owned(), EntryKind::Opaque),
            ("/a/b".to_owned(), EntryKind::Whiteout),
            ("/a".to_owned(), EntryKind::Opaque),
        ]
    );
    for name in [".wh.", ".wh..", ".wh..."] {
        assert!(matches!(
            first_error(&block(name, b'0', 0, |_| {})),
            LayerError::Damaged { .. }
        ));
    }
}

#[test]
fn gnu_names_and_numbers_are_read() {
    let long = format!("{}/{}", "d".repeat(200), "f".repeat(200));
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(3);
    header.set_mode(0o4755);
    header.set_uid(3_000_000_000);
    header.set_gid(7);
    header.set_mtime(1 << 40);
    builder
        .append_data(&mut header, &long, b"abc".as_slice())
        .unwrap();
    let mut header = tar::Header::new_gnu();
    header.set_size(0);
    header.set_entry_type(tar::EntryType::Symlink);
    builder.append_link(&mut header, "link", &long).unwrap();
    let items = read_tar(&builder.into_inner().unwrap());
    let (entry, content) = &items[0];
    assert_eq!(
        (entry.path.as_bytes(), content.as_slice()),
        (long.as_bytes(), b"abc".as_slice())
    );
    assert_eq!(
        (entry.mode, entry.uid, entry.gid),
        (0o4755, 3_000_000_000, 7)
    );
    assert_eq!(entry.mtime, 1 << 40);
    assert_eq!(
        items[1].0.kind,
        EntryKind::Symlink {
            target: long.into()
        }
    );
}

#[test]
fn negative_and_fractional_times_round_down() {
    let negative = block("a", b'0', 0, |header| {
        header.as_mut_bytes()[136..148].copy_from_slice(&[0xff; 12]);
    });
    assert_eq!(read_tar(&negative)[0].0.mtime, -1);
    for (text, expected) in [
        ("16 mtime=-1.5\n", -2),
        ("16 mtime=12.9\n", 12),
        ("16 mtime=-1.0\n", -1),
    ] {
        let text = text.replacen("16", &text.len().to_string(), 1);
        let tar = [
            with_data("x", b'x', text.as_bytes()),
            block("a", b'0', 0, |_| {}),
        ]
        .concat();
        assert_eq!(read_tar(&tar)[0].0.mtime, expected, "{text}");
    }
}

#[test]
fn global_headers_and_host_attributes_are_skipped() {
    let record = |text: &str| {
        let length = text.len() + 4;
        assert!((10..100).contains(&length));
        format!("{length} {text}\n")
    };
    let local =
        record("SCHILY.xattr.trusted.overlay.opaque=y") + &record("SCHILY.xattr.user.a=b=c");
    let tar = [
        with_data("g", b'g', record("path=elsewhere").as_bytes()),
        with_data("x", b'x', local.as_bytes()),
        with_data("a", b'0', b"abc"),
    ]
    .concat();
    let items = read_tar(&tar);
    assert_eq!(items[0].0.path, path("a"));
    assert_eq!(
        items[0].0.xattrs,
        BTreeMap::from([("user.a".to_owned(), b"b=c".to_vec())])
    );
    assert_eq!(items[0].1, b"abc");
}

#[test]
fn damaged_and_absurd_tars_are_refused() {
    let tar = tar_of(&vec![(file("a", 1000), vec![7; 1000])]);
    for end in [1, 511, 513, 1000, 1535] {
        assert!(scan(&tar[..end], PLAIN).is_err(), "cut at {end}");
    }
    // Without the zero blocks it is whole all the same.
    assert_eq!(read_tar(&tar[..1536]).len(), 1);

    let mut flipped = tar.clone();
    flipped[3] ^= 1;
    assert!(matches!(
        first_error(&flipped),
        LayerError::Damaged {
            what: "wrong checksum",
            ..
        }
    ));

    let huge = |kind| block("a", kind, 0o77_777_777_777, |_| {});
    for kind in [b'x', b'L', b'K'] {
        assert!(matches!(
            first_error(&huge(kind)),
            LayerError::TooLarge { .. }
        ));
    }
    assert!(matches!(
        first_error(&huge(b'0')),
        LayerError::Truncated { .. }
    ));
    let many = with_data("x", b'x', &[0; 600 << 10]).repeat(2);
    assert!(matches!(first_error(&many), LayerError::TooLarge { .. }));
    let name = with_data("L", b'L', &[b'n'; 5000]);
    assert!(matches!(
        first_error(&[name, block("a", b'0', 0, |_| {})].concat()),
        LayerError::TooLarge { .. }
    ));
    for text in [
        "5 a=b",
        "99999999999999999999 a=b\n",
        "x a=b\n",
        "0 a=b\n",
        "6 a=b",
    ] {
        let tar = [
            with_data("x", b'x', text.as_bytes()),
            block("a", b'0', 0, |_| {}),
        ]
        .concat();
        assert!(
            matches!(first_error(&tar), LayerError::Damaged { .. }),
            "{text}"
        );
    }
    for (kind, record) in [(b'S', ""), (b'0', "22 GNU.sparse.major=1\n")] {
        let tar = [
            with_data("x", b'x', record.as_bytes()),
            block("a", kind, 0, |_| {}),
        ]
        .concat();
        assert!(matches!(first_error(&tar), LayerError::Unsupported { .. }));
    }
    let alone = with_data("x", b'x', b"6 a=b\n");
    assert!(matches!(first_error(&alone), LayerError::Truncated { .. }));
    assert!(scan(b"".as_slice(), "text/plain").is_err());
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(
        items in any_items(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
    ) {
        let mut tar = tar_of(&items);
        for (at, with) in edits {
            let at = at.index(tar.len());
            tar[at] = with;
            // The checksum would hide everything else.
            let start = at - at % 512;
            let mut block: [u8; 512] = tar[start..start + 512].try_into().unwrap();
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
            tar[start + 148..start + 156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        let _ = scan(tar.as_slice(), PLAIN);
    }
}

#[test]
fn interrupted_and_short_reads_change_nothing() {
    /// Gives one byte at a time, every other time nothing but `EINTR`.
    struct Stutter<'a>(&'a [u8], bool);
    impl Read for Stutter<'_> {
        fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
            self.1 = !self.1;
            if self.1 {
                return Err(std::io::ErrorKind::Interrupted.into());
            }
            let most = buf.len().min(1);
            self.0.read(&mut buf[..most])
        }
    }
    let items = vec![(file("a", 700), noise(1, 700)), (symlink("b", "a"), vec![])];
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let options = LayerOptions {
            compression,
            level: None,
        };
        let (blob, layer) = build_with(&items, options, 1);
        let scanned = scan(Stutter(&blob, false), &layer.media_type).unwrap();
        assert_eq!(scanned.index, layer.index);
    }
}

/// Whether GNU tar is there; in CI it must be.
fn has_tar() -> bool {
    let found = Command::new("tar")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_ok();
    if !found {
        assert!(std::env::var_os("CI").is_none(), "`tar` is missing");
        println!("skipped: `tar` is missing");
    }
    found
}

#[test]
fn gnu_tar_lists_what_we_write() {
    if !has_tar() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let long = format!("{}/{}", "d".repeat(150), "f".repeat(150));
    let mut special = file("s", 2);
    special.mode = 0o4711;
    special.uid = 4_000_000_000;
    special.xattrs.insert("user.a".into(), b"\n=\0".to_vec());
    let link = entry("t", EntryKind::Hardlink { target: path("s") });
    let tar = tar_of(&vec![
        (entry("a", EntryKind::Directory), vec![]),
        (symlink("b", "target"), vec![]),
        (file(&long, 5), b"hello".to_vec()),
        (special, b"ab".to_vec()),
        (link, vec![]),
    ]);
    let at = dir.path().join("layer.tar");
    std::fs::write(&at, &tar).unwrap();
    let run = |args: &[&str]| {
        let output = Command::new("tar")
            .args(args)
            .arg("-f")
            .arg(&at)
            .env("TZ", "UTC0")
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        String::from_utf8(output.stdout).unwrap()
    };
    let listing = run(&["--numeric-owner", "-tv"]);
    let lines: Vec<String> = listing
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(
        lines,
        [
            "drwxr-xr-x 0/0 0 1980-01-01 00:00 a/".to_owned(),
            "lrwxrwxrwx 0/0 0 1980-01-01 00:00 b -> target".to_owned(),
            format!("-rw-r--r-- 0/0 5 1980-01-01 00:00 {long}"),
            "-rws--x--x 4000000000/0 2 1980-01-01 00:00 s".to_owned(),
            "hrw-r--r-- 0/0 0 1980-01-01 00:00 t link to s".to_owned(),
        ]
    );
    assert_eq!(run(&["-xO"]), "helloab");
}

#[test]
fn every_format_of_gnu_tar_is_read() {
    if !has_tar() {
        return;
    }
    for format in ["v7", "ustar", "oldgnu", "gnu", "pax"] {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        // V7 has room for 99 bytes.
        let long = format!("sub/{}", "n".repeat(if format == "v7" { 93 } else { 97 }));
        std::fs::create_dir(root.join("sub")).unwrap();
        std::fs::write(root.join(&long), noise(1, 5000)).unwrap();
        std::fs::hard_link(root.join(&long), root.join("hard")).unwrap();
        make_symlink("../etc/passwd", root.join("link")).unwrap();
        let output = Command::new("tar")
            .args([
                "--sort=name",
                "--mtime=@1000000000",
                "--format",
                format,
                "-c",
                "-C",
            ])
            .arg(root)
            .arg(".")
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{format}: {stderr}");
        let mut seen = BTreeMap::new();
        let mut entries = TarEntries::new(output.stdout.as_slice());
        while let Some(mut item) = entries.next_entry().unwrap() {
            let mut content = Vec::new();
            item.read_to_end(&mut content).unwrap();
            assert_eq!(item.entry.mtime, 1_000_000_000, "{format}");
            seen.insert(item.entry.path.to_string(), (item.entry.kind, content));
        }
        let names: Vec<_> = seen.keys().cloned().collect();
        assert_eq!(
            names,
            ["/", "/hard", "/link", "/sub", &format!("/{long}")],
            "{format}"
        );
        let target = "../etc/passwd".into();
        assert_eq!(seen["/link"].0, EntryKind::Symlink { target }, "{format}");
        let contents: Vec<_> = seen.values().filter(|(_, c)| !c.is_empty()).collect();
        assert!(
            contents.len() == 1 && contents[0].1 == noise(1, 5000),
            "{format}"
        );
    }
}
