//! Builds that must fail: the message, the place, the exit code, and what goes on.

use std::{fs, os::unix::fs::symlink};

use crate::{
    build_fixture::{Ended, Project},
    registry_server::{Access, Fault},
};

/// A build of this Dockerfile that must fail with this code; gives what it said.
#[track_caller]
fn fails(project: &Project, dockerfile: &str, code: i32, args: &[&str]) -> Ended {
    project.dockerfile(dockerfile);
    let ended = project.try_build(args);
    assert_eq!(ended.code, code, "{}", ended.stderr);
    assert!(!project.path("out").exists(), "nothing was written");
    ended
}

#[track_caller]
fn says(ended: &Ended, text: &str) {
    assert!(
        ended.stderr.contains(text),
        "no {text:?} in {}",
        ended.stderr
    );
}

#[test]
fn a_failing_step_shows_its_lines_and_its_log_and_stops_the_others() {
    let Some(project) = Project::runnable() else {
        return;
    };
    let ended = fails(
        &project,
        "FROM @/busybox AS slow\nRUN sleep 100\n\
         FROM @/busybox AS bad\nRUN echo before\nRUN echo the reason >&2; \\\n  exit 7\n\
         FROM scratch\nCOPY --from=slow / /\nCOPY --from=bad / /\n",
        30,
        &["--jobs=2"],
    );
    says(&ended, "ctx/Dockerfile:5");
    says(&ended, "  exit 7");
    says(&ended, "the reason");
    says(&ended, "process exited with code 7");
    let kinds = |event: &str| {
        let events = ended.events.iter().filter(|e| e["event"] == event);
        events
            .map(|e| e["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(kinds("step-failed").len(), 1);
    assert!(
        kinds("step-cancelled")
            .iter()
            .any(|name| name.contains("sleep 100"))
    );
    // What was done stays.
    let again = project.try_build(&[]);
    assert_eq!(again.outcome("RUN echo before"), "hit");
}

#[test]
fn a_step_may_take_only_so_long() {
    let Some(project) = Project::runnable() else {
        return;
    };
    let ended = fails(
        &project,
        "FROM @/busybox\nRUN echo waiting; sleep 100\n",
        31,
        &["--step-timeout=1s"],
    );
    says(&ended, "timed out after 1 s");
    says(&ended, "ctx/Dockerfile:2");
    says(&ended, "waiting");
}

#[test]
fn users_that_the_image_does_not_have() {
    let project = Project::new();
    project.write("ctx/a", "a");
    // As in BuildKit, which says nothing.
    project.dockerfile("FROM @/base\nCOPY --chown=nobody a /\n");
    says(
        &project.try_build(&[]),
        "no user or group `nobody`; root stands",
    );
    if let Some(project) = Project::runnable() {
        let ended = fails(&project, "FROM @/busybox\nUSER ghost\nRUN id\n", 30, &[]);
        says(&ended, "user `ghost`");
    }
}

#[test]
fn images_that_are_not_to_be_had() {
    let project = Project::new();
    let ended = fails(&project, "FROM @/nothing\n", 42, &[]);
    says(&ended, "nothing");
    let ended = fails(&project, "FROM @/base:none\n", 42, &[]);
    says(&ended, "base:none");
    // Nobody listens on this port.
    let ended = fails(&project, "FROM 127.0.0.1:1/base\n", 40, &[]);
    says(&ended, "127.0.0.1:1");
    let closed = Project::with(Access::Basic("user", "password"));
    fails(&closed, "FROM @/base\n", 41, &[]);
}

#[test]
fn base_layers_with_wrong_bytes_are_refused() {
    let project = Project::new();
    project
        .write("ctx/a", "a")
        .dockerfile("FROM @/base\nCOPY a /\n");
    project.build(&[]);
    let blobs = project.registry.seen();
    let layer = blobs.iter().rfind(|s| s.line.contains("/blobs/")).unwrap();
    let layer = layer.line.clone();
    fs::remove_dir_all(project.path("out")).unwrap();
    fs::remove_dir_all(project.path("cache")).unwrap();
    project.registry.fault(&layer, Fault::Corrupt(1000), 100);
    let ended = project.try_build(&[]);
    assert_eq!(ended.code, 43, "{}", ended.stderr);
    says(&ended, "sha256:");
    assert!(!project.path("out").exists());
}

#[test]
fn sources_that_are_not_there() {
    let project = Project::new();
    project
        .write("ctx/.dockerignore", "secret\n")
        .write("ctx/secret", "s");
    let ended = fails(&project, "FROM scratch\nCOPY missing /\n", 42, &[]);
    says(&ended, "`missing` not found in the build context");
    says(&ended, "ctx/Dockerfile:2");
    let ended = fails(&project, "FROM scratch\nCOPY secret /\n", 42, &[]);
    says(&ended, "ignore file");
    let ended = fails(
        &project,
        "FROM @/base AS x\nCOPY Dockerfile /\nFROM scratch\nCOPY --from=x /no /\n",
        42,
        &[],
    );
    says(&ended, "`no` not found in stage `x`");
}

#[test]
fn nothing_leads_out_of_the_context() {
    let project = Project::new();
    project
        .write("outside/file", "secret")
        .write("ctx/file", "inside");
    let ctx = project.path("ctx");
    // The root of the context is the root for links, as in a chroot.
    symlink("../outside/file", ctx.join("relative")).unwrap();
    symlink("/file", ctx.join("absolute")).unwrap();
    symlink("../../../../../../../..", ctx.join("up")).unwrap();
    symlink(project.path("outside"), ctx.join("out")).unwrap();
    for source in [
        "../outside/file",
        "dir/../../outside/file",
        "relative",
        "out/file",
    ] {
        project.dockerfile(&format!("FROM scratch\nCOPY {source} /\n"));
        let ended = project.try_build(&[]);
        assert!(
            ended.code != 0 || {
                let built = ended.built(&project.path("out"));
                !built
                    .image
                    .files()
                    .values()
                    .any(|content| content == "secret")
            },
            "{source}"
        );
    }
    project.dockerfile("FROM scratch\nCOPY absolute /a\nCOPY up/file /b\n");
    let image = project.build(&[]).image;
    assert_eq!(
        (image.file("a"), image.file("b")),
        ("inside".into(), "inside".into())
    );
}

#[test]
fn a_file_that_changes_while_it_is_copied_is_noticed() {
    let Some(project) = Project::runnable() else {
        return;
    };
    project
        .dockerfile(
            "FROM @/busybox\nRUN --mount=type=cache,id=change,target=/m touch /m/running; \
             until test -f /m/go; do sleep 0.05; done\nCOPY file /\nADD a.tar /\n",
        )
        .write("ctx/file", "planned")
        .write("ctx/a.tar", "no archive");
    for changed in ["file", "a.tar"] {
        let child = project.start(&["--no-cache"]);
        let mount = crate::build_fixture::wait_for("running step", || {
            let dirs = fs::read_dir(project.path("cache/mounts")).ok()?;
            dirs.map(|dir| dir.unwrap().path())
                .find(|dir| dir.join("running").exists())
        });
        let before = fs::read(project.path("ctx").join(changed)).unwrap();
        project.write(&format!("ctx/{changed}"), "changed");
        fs::write(mount.join("go"), "").unwrap();
        let ended = Ended::of(child.wait_with_output().unwrap());
        assert_eq!(ended.code, 30, "{changed}: {}", ended.stderr);
        says(
            &ended,
            &format!("`/{changed}` changed while it was being copied"),
        );
        fs::write(project.path("ctx").join(changed), before).unwrap();
        fs::remove_file(mount.join("go")).unwrap();
        fs::remove_file(mount.join("running")).unwrap();
    }
}

#[test]
fn foreign_platforms_run_nothing() {
    let project = Project::new();
    let foreign = match memobuild_ci::oci::Platform::host().architecture.as_str() {
        "arm64" => "linux/amd64",
        _ => "linux/arm64",
    };
    let ended = fails(
        &project,
        "FROM @/base\nRUN true\n",
        50,
        &["--platform", foreign],
    );
    says(&ended, foreign);
}
