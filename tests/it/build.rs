//! Builds without privilege: COPY and its kin, the cache, destinations, targets.

use std::{fs, os::unix::fs::symlink, process::Stdio};

use serde_json::json;

use crate::build_fixture::{OciImage, Project, Tar, files_of, json, set_mode};

#[test]
fn a_second_build_executes_nothing_and_fetches_nothing() {
    let project = Project::new();
    project
        .dockerfile("FROM @/base\nWORKDIR /app\nCOPY a b ./\nCOPY --chown=app b /c\n")
        .write("ctx/a", "one")
        .write("ctx/b", "two");
    let first = project.build(&[]);
    assert_eq!(first.ran(), 3);
    assert_eq!(first.image.file("app/a"), "one");
    assert_eq!(first.image.file("c"), "two");
    project.registry.forget();
    let second = project.build(&[]);
    assert_eq!(second.ran(), 0);
    assert_eq!(second.outcome("COPY a b ./"), "hit");
    assert_eq!(second.image.digest(), first.image.digest());
    // The configuration is read, layers are not.
    let base = &second.image.layers()[0];
    assert_eq!(project.registry.count(base), 0);
    assert_eq!(second.ended.totals()["bytes_written"], 0);
}

#[test]
fn base_layers_are_fetched_by_an_all_hit_build_only_for_the_export() {
    let project = Project::new();
    project
        .dockerfile("FROM @/base AS builder\nCOPY a /\nFROM scratch\nCOPY --from=builder /a /\n")
        .write("ctx/a", "one");
    let first = project.build(&[]);
    // Everything but what the second build needs is gone.
    for (digest, path) in project.cached_blobs() {
        if !first.image.layers().contains(&digest) {
            fs::remove_file(path).unwrap();
        }
    }
    project.registry.forget();
    let second = project.build(&[]);
    assert_eq!(second.image.digest(), first.image.digest());
    let fetched = second.ended.totals()["bytes_fetched"].as_u64();
    assert_eq!(fetched, Some(0));
}

#[test]
fn a_changed_file_reaches_only_what_copies_it() {
    let project = Project::new();
    project
        .dockerfile(
            "FROM @/base AS lib\nCOPY lib /lib\n\
             FROM @/base AS app\nCOPY app /app\n\
             FROM @/base\nCOPY --from=lib /lib /lib\nCOPY --from=app /app /app\n",
        )
        .write("ctx/lib/l", "lib")
        .write("ctx/app/a", "one");
    project.build(&[]);
    project.write("ctx/app/a", "two").write("ctx/unused", "x");
    let second = project.build(&[]);
    assert_eq!(second.outcome("COPY --from=lib /lib /lib"), "hit");
    assert_eq!(second.outcome("COPY app /app"), "ran");
    assert_eq!(second.outcome("COPY --from=app /app /app"), "ran");
    assert_eq!(second.ran(), 2);
    assert_eq!(second.image.file("app/a"), "two");
    // Back to the first content, everything is there.
    project.write("ctx/app/a", "one");
    assert_eq!(project.build(&[]).ran(), 0);
}

#[test]
fn checkouts_that_git_would_make_equal_are_equal() {
    let project = Project::new();
    project
        .dockerfile("FROM @/base\nCOPY . /src\n")
        .write("ctx/dir/file", "text")
        .write("ctx/run.sh", "#!");
    set_mode(&project.path("ctx/run.sh"), 0o755);
    symlink("dir/file", project.path("ctx/link")).unwrap();
    let first = project.build(&[]);
    // Another place, another umask, other times, another cache.
    fs::rename(project.path("ctx"), project.path("other")).unwrap();
    fs::create_dir(project.path("ctx")).unwrap();
    for file in ["Dockerfile", "run.sh"] {
        fs::copy(
            project.path("other").join(file),
            project.path("ctx").join(file),
        )
        .unwrap();
    }
    project.write("ctx/dir/file", "text");
    symlink("dir/file", project.path("ctx/link")).unwrap();
    set_mode(&project.path("ctx/dir"), 0o700);
    set_mode(&project.path("ctx/dir/file"), 0o600);
    set_mode(&project.path("ctx/run.sh"), 0o711);
    let cache = project.path("another-cache");
    let second = project.build(&["--cache-dir", cache.to_str().unwrap(), "--jobs=1"]);
    assert_eq!(second.ran(), 1);
    assert_eq!(second.image.digest(), first.image.digest());
    // The executable bit counts.
    set_mode(&project.path("ctx/dir/file"), 0o755);
    assert_ne!(project.build(&[]).image.digest(), first.image.digest());
}

#[test]
fn source_date_epoch_gives_the_times() {
    let project = Project::new();
    project
        .dockerfile("FROM @/base\nCOPY a /\n")
        .write("ctx/a", "x");
    let args = ["ctx", "-o", "type=oci,dest=out,tar=false"];
    let build = |epoch: &str| {
        let output = project
            .command(&args)
            .env("SOURCE_DATE_EPOCH", epoch)
            .output();
        assert!(output.unwrap().status.success());
        OciImage::read(&project.path("out")).config()
    };
    assert_eq!(build("1700000000")["created"], "2023-11-14T22:13:20Z");
    assert_eq!(build("1600000000")["created"], "2020-09-13T12:26:40Z");
}

#[test]
fn heredocs_are_files() {
    let project = Project::new();
    project.dockerfile(
        "FROM @/base\nARG NAME=world\n\
         COPY --chmod=700 <<one <<\"two\" /etc/\nhello $NAME\none\nhello $NAME\ntwo\n\
         COPY <<three /etc/other\nfour\nthree\n",
    );
    let image = project.build(&[]).image;
    assert_eq!(image.file("etc/one"), "hello world\n");
    assert_eq!(image.file("etc/two"), "hello $NAME\n");
    assert_eq!(image.file("etc/other"), "four\n");
}

#[test]
fn archives_are_unpacked_and_their_content_counts() {
    let project = Project::new();
    project.dockerfile("FROM @/base\nADD a.tar /opt/\n");
    let archive = |content: &[u8]| {
        let mut tar = Tar::new();
        tar.dir("d/");
        tar.file("d/f", 0o640, content);
        tar.symlink("d/l", "f");
        fs::write(project.path("ctx/a.tar"), tar.finish()).unwrap();
    };
    archive(b"one");
    assert_eq!(project.build(&[]).image.file("opt/d/f"), "one");
    archive(b"two");
    let second = project.build(&[]);
    assert_eq!(
        (second.ran(), second.image.file("opt/d/f").as_str()),
        (1, "two")
    );
}

#[test]
fn wildcards_follow_symlinks_to_other_places() {
    let project = Project::new();
    project
        .dockerfile("FROM scratch\nCOPY links/* /out/\n")
        .write("ctx/elsewhere/file", "one")
        .write("ctx/links/plain", "plain");
    symlink("../elsewhere/file", project.path("ctx/links/link")).unwrap();
    assert_eq!(project.build(&[]).image.file("out/link"), "one");
    project.write("ctx/elsewhere/file", "two");
    assert_eq!(project.build(&[]).image.file("out/link"), "two");
}

#[test]
fn ignored_files_are_not_there() {
    let project = Project::new();
    project
        .dockerfile("FROM scratch\nCOPY . /\n")
        .write("ctx/.dockerignore", "*.log\n!keep.log\nDockerfile\n")
        .write("ctx/a.log", "x")
        .write("ctx/keep.log", "x");
    let first = project.build(&[]);
    let files: Vec<_> = first.image.files().into_keys().collect();
    assert_eq!(files, [".dockerignore", "keep.log"]);
    project.write("ctx/a.log", "changed");
    assert_eq!(project.build(&[]).ran(), 0);
}

#[test]
fn another_compression_needs_no_execution() {
    let project = Project::new();
    project
        .dockerfile("FROM scratch\nCOPY a /\nCOPY b /\n")
        .write("ctx/a", "a")
        .write("ctx/b", "b");
    let zstd = project.build(&[]).image.config();
    let gzip = project.build(&["--compression=gzip"]);
    assert_eq!(gzip.ran(), 0);
    assert_eq!(gzip.outcome("COPY a /"), "hit");
    let manifest = gzip.image.manifest();
    let media_type = "application/vnd.oci.image.layer.v1.tar+gzip";
    assert_eq!(manifest["layers"][1]["mediaType"], media_type);
    assert_eq!(
        gzip.image.config()["rootfs"],
        zstd["rootfs"],
        "compression does not enter diff ids"
    );
    assert_eq!(gzip.image.file("b"), "b");
    // The same bytes as compressing it right after the step gives.
    let cache = project.path("another-cache");
    let cache = ["--cache-dir", cache.to_str().unwrap()];
    let fresh = project.build(&["--compression=gzip", cache[0], cache[1]]);
    assert_eq!(fresh.ran(), 2);
    assert_eq!(fresh.image.digest(), gzip.image.digest());
    // And compressed once.
    assert_eq!(
        project.build(&["--compression=gzip"]).image.digest(),
        gzip.image.digest()
    );
}

#[test]
fn no_cache_executes_again_and_gives_the_same() {
    let project = Project::new();
    project
        .dockerfile("FROM @/base AS one\nCOPY a /\nFROM @/base\nCOPY --from=one /a /b\n")
        .write("ctx/a", "a");
    let first = project.build(&[]);
    let second = project.build(&["--no-cache"]);
    assert_eq!(second.ran(), 2);
    assert_eq!(second.image.digest(), first.image.digest());
    let third = project.build(&["--no-cache-filter=one"]);
    assert_eq!(third.outcome("COPY a /"), "ran");
    assert_eq!(third.outcome("COPY --from=one /a /b"), "content-hit");
}

#[test]
fn destinations_and_descriptions_of_the_result() {
    let project = Project::new();
    project
        .dockerfile("FROM scratch\nCOPY a /\n")
        .write("ctx/a", "a");
    let args = [
        "--iidfile=iid",
        "--metadata-file=metadata.json",
        "-t",
        "acme/app:v1",
    ];
    let built = project.build(&args);
    let digest = built.image.digest();
    let id = built.image.manifest()["config"]["digest"].clone();
    assert_eq!(fs::read_to_string(project.path("iid")).unwrap(), id);
    let metadata = json(&project.path("metadata.json"));
    assert_eq!(metadata["containerimage.digest"], digest);
    assert_eq!(metadata["containerimage.descriptor"]["digest"], digest);
    let name = "org.opencontainers.image.ref.name";
    assert_eq!(built.image.top["annotations"][name], "v1");
    // As one file.
    let output = project
        .command(&["ctx", "-o", "type=oci,dest=x.tar"])
        .output();
    assert!(output.unwrap().status.success());
    let tar = fs::File::open(project.path("x.tar")).unwrap();
    tar::Archive::new(tar)
        .unpack(project.path("unpacked"))
        .unwrap();
    assert_eq!(OciImage::read(&project.path("unpacked")).digest(), digest);
    // Without a destination.
    let output = project.command(&["ctx", "-t", "acme/app:v1"]).output();
    assert!(output.unwrap().status.success());
    let dirs = fs::read_dir(project.path(".memobuild-output")).unwrap();
    assert_eq!(dirs.count(), 1);
}

#[test]
fn several_platforms_make_an_index() {
    let project = Project::new();
    project
        .dockerfile("FROM @/base\nCOPY a /\n")
        .write("ctx/a", "a");
    let built = project.build(&["--platform=linux/amd64,linux/arm64"]);
    let index = built.image.manifest();
    let entries = index["manifests"].as_array().unwrap();
    assert_eq!(entries.len(), 2);
    for (entry, architecture) in entries.iter().zip(["amd64", "arm64"]) {
        assert_eq!(entry["platform"]["architecture"], architecture);
        let manifest = json(&built.image.blob(&entry["digest"]));
        let files = files_of(&built.image.dir, &manifest);
        assert_eq!(files["etc/platform"], format!("linux/{architecture}"));
        assert_eq!(files["a"], "a");
    }
}

#[test]
fn a_configuration_builds_chains_of_layers_in_variants() {
    let project = Project::new();
    project
        .write(
            "ctx/memobuild.yml",
            "version: 1\nimage: acme/app\nlayers:\n\
             \x20 base: {dockerfile: base.df, context: .}\n\
             \x20 ml: {from: base, dockerfile: next.df, context: ., args: {FILE: ml}}\n\
             \x20 app: {from: ml, dockerfile: next.df, context: ., args: {FILE: app}}\n\
             variants:\n  cpu: {platforms: [linux/amd64]}\n  gpu: {platforms: [linux/amd64], args: {EXTRA: gpu}}\n",
        )
        .write("ctx/base.df", "FROM @/base\nCOPY base /\n")
        .write(
            "ctx/next.df",
            "ARG BASE_IMAGE\nFROM $BASE_IMAGE\nARG FILE\nARG EXTRA=cpu\nLABEL extra=$EXTRA\nCOPY $FILE /\n",
        )
        .write("ctx/base", "base")
        .write("ctx/ml", "ml")
        .write("ctx/app", "app");
    let build = || {
        let ended = project
            .command(&[])
            .current_dir(project.path("ctx"))
            .output();
        let ended = crate::build_fixture::Ended::of(ended.unwrap());
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        ended
    };
    build();
    let image = |name: &str| {
        let dir = project.path("ctx/.memobuild-output").join(name);
        OciImage::read(&dir)
    };
    let (base, ml, app) = (
        image("acme-app-cpu-base"),
        image("acme-app-cpu-ml"),
        image("acme-app-cpu-app"),
    );
    assert_eq!(app.file("base"), "base");
    assert_eq!(app.file("app"), "app");
    assert_eq!(ml.layers(), app.layers()[..3]);
    assert_eq!(base.layers(), app.layers()[..2]);
    let labels = &image("acme-app-gpu-app").config()["config"]["Labels"];
    assert_eq!(labels, &json!({"extra": "gpu"}));
    // The variants share what is equal in them.
    assert_eq!(app.layers(), image("acme-app-gpu-app").layers());
    project.write("ctx/ml", "other");
    let second = build();
    assert_eq!(second.outcome("COPY base /"), "hit");
    assert_eq!(second.outcome("COPY ml /"), "ran");
    assert_eq!(image("acme-app-cpu-app").file("ml"), "other");
}

#[test]
fn a_cache_that_cannot_be_written_is_done_without() {
    let project = Project::new();
    project
        .dockerfile("FROM scratch\nCOPY a /\n")
        .write("ctx/a", "a");
    let first = project.build(&[]);
    // Nobody can make a directory there.
    let ended = project.try_build(&["--cache-dir", "/sys/no-cache"]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(
        ended.warnings()[0].contains("starts without a cache"),
        "{:?}",
        ended.warnings()
    );
    let second = ended.built(&project.path("out"));
    assert_eq!(second.image.digest(), first.image.digest());
}

#[test]
fn two_builds_share_a_cache_directory() {
    let project = Project::new();
    let mut dockerfile = "FROM @/base\n".to_owned();
    for n in 0..30 {
        project.write(&format!("ctx/f{n}"), &n.to_string());
        dockerfile += &format!("COPY f{n} /\n");
    }
    project.dockerfile(&dockerfile);
    let children: Vec<_> = ["one", "two", "three"]
        .into_iter()
        .map(|name| {
            let dest = format!("type=oci,dest={name},tar=false");
            project
                .command(&["ctx", "-o", &dest])
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{stderr}");
        assert!(!stderr.contains("\"warning\""), "{stderr}");
    }
    let digest = |name: &str| OciImage::read(&project.path(name)).digest().to_owned();
    assert_eq!(digest("one"), digest("two"));
    assert_eq!(digest("one"), digest("three"));
    let last = project.build(&[]);
    assert_eq!((last.ran(), last.image.digest()), (0, &*digest("one")));
}

#[test]
fn a_base_image_that_moves_is_noticed() {
    let project = Project::new();
    project
        .dockerfile("FROM @/moving\nCOPY a /\n")
        .write("ctx/a", "a");
    let push = |content: &[u8]| {
        use crate::registry_server::{Family, Image};
        let mut tar = Tar::new();
        tar.file("file", 0o644, content);
        let platform = memobuild_ci::oci::Platform::host().to_string();
        let image = Image::new(Family::Docker, &platform, &[&tar.finish()]);
        project.registry.push("moving", "latest", &image);
    };
    push(b"one");
    assert_eq!(project.build(&[]).image.file("file"), "one");
    push(b"two");
    let second = project.build(&[]);
    assert_eq!(second.image.file("file"), "two");
    // The layer on top does not depend on what is below, and was not made again.
    assert_eq!(second.outcome("COPY a /"), "content-hit");
}
