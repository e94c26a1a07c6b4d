//! The program with a remote cache, a shared directory: what an empty runner has of it, and what
//! one leaves that is stopped.

use std::{fs, path::PathBuf, process::Command};

use crate::{
    build_fixture::{Built, Ended, Project, wait_for},
    tier_lab::noise,
};

/// The variable that names the cache.
fn remote(project: &Project) -> String {
    format!("file://{}", project.path("remote").display())
}

fn build(project: &Project, output: &str) -> Ended {
    let mut command = project.command(&["ctx", "-o", output]);
    command.env("MEMOBUILD_REMOTE_URL", remote(project));
    Ended::of(command.output().unwrap())
}

fn build_layout(project: &Project) -> Built {
    let ended = build(project, "type=oci,dest=out,tar=false");
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    ended.built(&project.path("out"))
}

/// The runner is thrown away.
fn wipe(project: &Project) {
    fs::remove_dir_all(project.path("cache")).unwrap();
    let _ = fs::remove_dir_all(project.path("out"));
}

fn event<'e>(ended: &'e Ended, name: &str) -> Option<&'e serde_json::Value> {
    ended.events.iter().find(|event| event["event"] == name)
}

#[test]
fn an_empty_runner_has_what_another_one_built() {
    let project = Project::new();
    project
        .dockerfile("FROM @/base\nCOPY a /\nCOPY b /\n")
        .write("ctx/a", &"a".repeat(200_000))
        .write("ctx/b", "bbb");
    let first = build_layout(&project);
    assert_eq!(first.ran(), 2);
    let saved = event(&first.ended, "saved").unwrap();
    assert_eq!((&saved["results"], &saved["left"]), (&2.into(), &0.into()));
    wipe(&project);
    let hits = build(&project, "type=cacheonly");
    assert_eq!(hits.code, 0, "{}", hits.stderr);
    let totals = &event(&hits, "finished").unwrap()["totals"];
    assert_eq!(totals["ran"], 0);
    assert!(totals["bytes_fetched"].as_u64().unwrap() < 100_000);
    assert_eq!(totals["cache_requests"], 1);
    wipe(&project);
    let second = build_layout(&project);
    assert_eq!(
        (second.ran(), second.image.digest()),
        (0, first.image.digest())
    );
    assert!(second.ended.warnings().is_empty());
    // A step that changed has its content hits above it, and what is below at hand.
    wipe(&project);
    project.write("ctx/b", "changed");
    let third = build_layout(&project);
    assert_eq!(third.outcome("COPY a /"), "hit");
    assert_eq!(third.outcome("COPY b /"), "ran");
    assert_eq!(third.image.file("b"), "changed");
}

#[test]
fn a_push_of_what_the_registry_has_reads_only_metadata() {
    let project = Project::new();
    let noise: String = noise(7, 300_000)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    project
        .dockerfile("FROM @/base\nCOPY a /\n")
        .write("ctx/a", &noise);
    let host = project.registry.host();
    let push = || {
        let output = format!("type=image,name={host}/acme/app,push=true");
        let ended = build(&project, &output);
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        ended
    };
    push();
    wipe(&project);
    let second = push();
    let totals = &event(&second, "finished").unwrap()["totals"];
    assert_eq!(totals["ran"], 0);
    assert!(
        totals["bytes_fetched"].as_u64().unwrap() < 100_000,
        "{totals}"
    );
}

#[test]
fn a_copy_onto_a_base_image_needs_its_index_and_not_its_layers() {
    let project = Project::new();
    project
        .dockerfile("FROM @/base\nCOPY --chown=app a /\n")
        .write("ctx/a", "aaa");
    assert_eq!(build(&project, "type=cacheonly").code, 0);
    wipe(&project);
    project.registry.forget();
    project.write("ctx/a", "changed");
    let second = build(&project, "type=cacheonly");
    assert_eq!(second.code, 0, "{}", second.stderr);
    let totals = |ended: &Ended| event(ended, "finished").unwrap()["totals"].clone();
    assert_eq!(totals(&second)["ran"], 1);
    // The configuration is the only blob that was pulled.
    assert_eq!(project.registry.count("/blobs/"), 1);
    assert_eq!(event(&second, "saved").unwrap()["results"], 1);
    // From now on it is local.
    project.write("ctx/a", "changed again");
    let third = build(&project, "type=cacheonly");
    assert_eq!(project.registry.count("/blobs/"), 2);
    assert_eq!(totals(&third)["bytes_fetched"], 0);
    assert_eq!(build_layout(&project).image.file("a"), "changed again");
}

#[test]
fn a_cache_that_is_damaged_or_gone_changes_no_image() {
    let project = Project::new();
    project
        .dockerfile("FROM @/base\nCOPY a /\nCOPY b /\n")
        .write("ctx/a", "aaa")
        .write("ctx/b", "bbb");
    let first = build_layout(&project);
    for file in files(&project.path("remote")) {
        wipe(&project);
        let bytes = fs::read(&file).unwrap();
        for damaged in [&bytes[..bytes.len() / 2], b"something else"] {
            fs::write(&file, damaged).unwrap();
            let again = build_layout(&project);
            assert_eq!(again.image.digest(), first.image.digest());
            wipe(&project);
        }
        let _ = fs::remove_file(&file);
        let again = build_layout(&project);
        assert_eq!(again.image.digest(), first.image.digest());
    }
}

fn files(dir: &std::path::Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found
}

#[test]
fn a_build_that_is_stopped_leaves_its_finished_steps() {
    let Some(project) = Project::runnable() else {
        return;
    };
    for signal in ["TERM", "KILL"] {
        let text = format!(
            "FROM @/busybox\nRUN echo {signal} > /first\n\
             RUN --mount=type=cache,target=/m touch /m/{signal}; sleep 600\n"
        );
        project.dockerfile(&text);
        let mut command = project.command(&["ctx", "-o", "type=cacheonly"]);
        command
            .env("MEMOBUILD_REMOTE_URL", remote(&project))
            .stderr(std::process::Stdio::piped());
        let child = command.spawn().unwrap();
        wait_for("running step", || {
            let mut dirs = fs::read_dir(project.path("cache/mounts")).ok()?;
            dirs.find(|dir| dir.as_ref().unwrap().path().join(signal).exists())
        })
        .unwrap();
        if signal == "KILL" {
            // Whatever it had time for: the journal has the rest.
            assert!(project.path("cache/pending").exists());
        }
        let id = child.id().to_string();
        let killed = Command::new("kill")
            .args([&format!("-{signal}"), &id])
            .status();
        assert!(killed.unwrap().success());
        let ended = child.wait_with_output().unwrap();
        assert!(!ended.status.success());
        if signal == "KILL" {
            // The next build has the journal.
            project.dockerfile("FROM @/busybox\n");
            assert_eq!(build(&project, "type=cacheonly").code, 0);
        }
        wipe(&project);
        project.dockerfile(&format!("FROM @/busybox\nRUN echo {signal} > /first\n"));
        let next = build_layout(&project);
        assert_eq!(next.ran(), 0, "{signal}: {}", next.ended.stderr);
    }
}
