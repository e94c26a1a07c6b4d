//! Layers that are gone or damaged, before a build and in the midst of it: the step is
//! executed again and the build succeeds.

use std::{fs, io::Write as _, os::unix::fs::PermissionsExt as _, path::PathBuf};

use crate::build_fixture::{Built, Ended, Project, wait_for};

/// The cached blob of layer number `n` of an image.
fn layer(project: &Project, built: &Built, n: usize) -> PathBuf {
    project.cached_blobs()[&built.image.layers()[n]].clone()
}

/// Puts other bytes into a blob, which other names of the same file keep.
fn replace(path: &PathBuf, bytes: &[u8]) {
    fs::remove_file(path).unwrap();
    let mut file = fs::File::create(path).unwrap();
    file.write_all(bytes).unwrap();
    file.set_permissions(fs::Permissions::from_mode(0o444))
        .unwrap();
}

fn copies() -> Project {
    let project = Project::new();
    project
        .dockerfile("FROM @/base\nCOPY a /\nCOPY b /\n")
        .write("ctx/a", "aaa")
        .write("ctx/b", "bbb");
    project
}

#[test]
fn a_layer_that_is_gone_is_made_again() {
    let project = copies();
    let first = project.build(&[]);
    fs::remove_file(layer(&project, &first, 1)).unwrap();
    let second = project.build(&[]);
    assert_eq!(second.outcome("COPY a /"), "ran");
    assert_eq!(second.outcome("COPY b /"), "hit");
    assert_eq!(second.image.digest(), first.image.digest());
    assert_eq!(project.build(&[]).ran(), 0);
}

#[test]
fn a_truncated_layer_is_made_again() {
    let project = copies();
    let first = project.build(&[]);
    let path = layer(&project, &first, 2);
    let bytes = fs::read(&path).unwrap();
    replace(&path, &bytes[..bytes.len() / 2]);
    let second = project.build(&[]);
    assert_eq!(second.outcome("COPY b /"), "ran");
    assert_eq!(second.image.digest(), first.image.digest());
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

#[test]
fn a_layer_with_wrong_bytes_is_made_again() {
    let project = copies();
    let first = project.build(&[]);
    let path = layer(&project, &first, 1);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    replace(&path, &bytes);
    fs::remove_dir_all(project.path("out")).unwrap();
    let second = project.build(&[]);
    assert_eq!(second.outcome("COPY a /"), "ran");
    assert_eq!(second.image.digest(), first.image.digest());
    assert!(second.ended.warnings()[0].contains("corrupt"));
}

#[test]
fn damaged_base_layers_are_fetched_again() {
    let project = copies();
    let first = project.build(&[]);
    let path = layer(&project, &first, 0);
    let bytes = fs::read(&path).unwrap();
    for damaged in [&bytes[..10], &vec![0; bytes.len()]] {
        replace(&path, damaged);
        fs::remove_dir_all(project.path("out")).unwrap();
        let again = project.build(&[]);
        assert_eq!(again.ran(), 0);
        assert_eq!(again.image.digest(), first.image.digest());
        assert_eq!(fs::read(&path).unwrap(), bytes);
    }
}

#[test]
fn a_damaged_recompressed_layer_is_compressed_again() {
    let project = copies();
    project.build(&[]);
    let gzip = project.build(&["--compression=gzip"]);
    let path = layer(&project, &gzip, 1);
    let bytes = fs::read(&path).unwrap();
    for damaged in [&bytes[..10], &vec![0; bytes.len()]] {
        replace(&path, damaged);
        fs::remove_dir_all(project.path("out")).unwrap();
        let again = project.build(&["--compression=gzip"]);
        assert_eq!(again.ran(), 0, "{}", again.ended.stderr);
        assert_eq!(again.image.digest(), gzip.image.digest());
    }
}

#[test]
fn lost_indexes_cost_no_execution() {
    let project = copies();
    let first = project.build(&[]);
    let layers = first.image.layers();
    for (digest, path) in project.cached_blobs() {
        if !layers.contains(&digest) {
            fs::remove_file(path).unwrap();
        }
    }
    project.write("ctx/b", "changed");
    let second = project.build(&[]);
    assert_eq!(second.outcome("COPY a /"), "hit");
    assert_eq!(second.outcome("COPY b /"), "ran");
    assert_eq!(second.image.file("b"), "changed");
}

#[test]
fn an_emptied_cache_directory_is_a_cold_start() {
    let project = copies();
    let first = project.build(&[]);
    fs::remove_dir_all(project.path("cache/blobs")).unwrap();
    let second = project.build(&[]);
    assert_eq!(
        (second.ran(), second.image.digest()),
        (2, first.image.digest())
    );
    for file in ["index.db", "index.db-wal", "index.db-shm"] {
        let _ = fs::remove_file(project.path("cache").join(file));
    }
    let third = project.build(&[]);
    assert_eq!(
        (third.ran(), third.image.digest()),
        (2, first.image.digest())
    );
}

/// A project in which a build can be stopped between two steps: `RUN wait` waits for
/// [`go`] where the marker says so.
fn waiting() -> Option<Project> {
    let project = Project::runnable()?;
    project
        .dockerfile(
            "FROM @/busybox AS first\nRUN echo made > /made\n\
             FROM @/busybox AS slow\nCOPY marker /marker\n\
             RUN --mount=type=cache,id=wait,target=/m touch /m/running-$(cat /marker); \
             until test -f /m/go; do sleep 0.05; done; rm /m/go; cat /marker > /slow\n\
             FROM @/busybox\nCOPY --from=slow /slow /\nCOPY --from=first /made /\nRUN cat /made /slow > /all\n",
        )
        .write("ctx/marker", "1");
    Some(project)
}

/// The cache mount of [`waiting`], once the step runs.
fn mount(project: &Project, marker: &str) -> PathBuf {
    let name = format!("running-{marker}");
    wait_for("running step", || {
        let dirs = fs::read_dir(project.path("cache/mounts")).ok()?;
        dirs.map(|dir| dir.unwrap().path())
            .find(|dir| dir.join(&name).exists())
    })
}

/// Builds, and does `harm` while the slow step runs.
fn build_with(project: &Project, marker: &str, harm: impl FnOnce()) -> Built {
    project.write("ctx/marker", marker);
    let child = project.start(&[]);
    let mount = mount(project, marker);
    harm();
    fs::write(mount.join("go"), "").unwrap();
    let ended = Ended::of(child.wait_with_output().unwrap());
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    ended.built(&project.path("out"))
}

#[test]
fn layers_that_go_while_a_step_runs_are_made_again() {
    let Some(project) = waiting() else { return };
    let first = build_with(&project, "1", || {});
    assert_eq!(first.image.file("all"), "made\n1");
    // The stage `first` was a hit when its layer went; the layer is wanted afterwards. So
    // are unpacked layers, which are derived and may go too.
    let layers = first.image.layers();
    let second = build_with(&project, "2", || {
        for (digest, path) in project.cached_blobs() {
            if digest != layers[0] {
                fs::remove_file(path).unwrap();
            }
        }
    });
    assert_eq!(second.image.file("all"), "made\n2");
    assert_eq!(second.outcome("RUN echo made > /made"), "ran");
    let slow = second.ended.events.iter().filter(|e| {
        let name = e["name"].as_str().unwrap_or_default();
        e["event"] == "step-finished"
            && e["outcome"] == "ran"
            && name.contains("/slow")
            && name.contains("RUN")
    });
    assert!(slow.count() >= 1);
}

#[test]
fn unpacked_layers_that_go_while_a_step_runs_are_unpacked_again() {
    let Some(project) = waiting() else { return };
    let first = build_with(&project, "1", || {});
    // Of those that are there now, the running step will have only the base mounted.
    let base = first.image.config()["rootfs"]["diff_ids"][0].clone();
    let base = &base.as_str().unwrap()["sha256:".len()..];
    let unpacked: Vec<_> = fs::read_dir(project.path("cache/snapshots/root/layers"))
        .unwrap()
        .map(|dir| dir.unwrap().path())
        .filter(|path| !path.ends_with(base))
        .collect();
    assert!(!unpacked.is_empty());
    let second = build_with(&project, "2", || {
        for path in &unpacked {
            fs::remove_dir_all(path).unwrap();
        }
    });
    assert_eq!(second.image.file("all"), "made\n2");
    assert_eq!(second.outcome("RUN echo made > /made"), "hit");
}

#[test]
fn base_layers_that_go_while_a_step_runs_are_fetched_again() {
    let Some(project) = waiting() else { return };
    let first = build_with(&project, "1", || {});
    let base = first.image.layers()[0].clone();
    let second = build_with(&project, "2", || {
        fs::remove_file(&project.cached_blobs()[&base]).unwrap();
    });
    assert_eq!(second.image.file("all"), "made\n2");
    assert_eq!(second.outcome("RUN echo made > /made"), "hit");
}
