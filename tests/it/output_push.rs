//! Images pushed to registries: no byte more than the registry lacks, tags last, and a refusal that
//! says what to do.

use std::{fs, process::Output};

use memobuild_ci::{digest::Sha256Digest, oci::descriptor::media};
use serde_json::Value;

use crate::{
    build_fixture::Project,
    registry_server::{Access, Fault},
};

/// A layer of its own on the base image.
fn project(access: Access) -> Project {
    let project = Project::with(access);
    project
        .dockerfile("FROM @/base\nCOPY a /a\nLABEL x=y\n")
        .write("ctx/a", "some text");
    project
}

fn push(project: &Project, args: &[&str]) -> Output {
    let mut all = vec!["ctx", "--push"];
    all.extend(args);
    project.command(&all).output().unwrap()
}

#[track_caller]
fn pushed(project: &Project, args: &[&str]) -> String {
    let output = push(project, args);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{stderr}");
    stderr
}

/// The document under a tag.
#[track_caller]
fn tagged(project: &Project, repository: &str, tag: &str) -> (String, Value) {
    let tags = project.registry.tags(repository);
    let found = tags.into_iter().find(|(name, ..)| name == tag);
    let (_, media_type, bytes) = found.expect("the tag is there");
    (media_type, serde_json::from_slice(&bytes).unwrap())
}

#[test]
fn an_image_is_pushed_under_all_of_its_names() {
    let project = project(Access::Open);
    let host = project.registry.host();
    let names = [
        format!("{host}/acme/app:1"),
        format!("{host}/acme/app:2"),
        format!("{host}/acme/other"),
    ];
    let metadata = project.path("metadata.json");
    let told = pushed(
        &project,
        &[
            "-t",
            &names[0],
            "-t",
            &names[1],
            "-t",
            &names[2],
            "--metadata-file",
            metadata.to_str().unwrap(),
        ],
    );
    assert!(
        told.contains(&format!("{host}/acme/app:1, {host}/acme/app:2")),
        "{told}"
    );
    let (media_type, manifest) = tagged(&project, "acme/app", "1");
    assert_eq!(media_type, media::MANIFEST);
    assert_eq!(tagged(&project, "acme/app", "2").1, manifest);
    assert_eq!(tagged(&project, "acme/other", "latest").1, manifest);
    let layers = manifest["layers"].as_array().unwrap();
    for repository in ["acme/app", "acme/other"] {
        for blob in layers.iter().chain([&manifest["config"]]) {
            let digest: Sha256Digest = blob["digest"].as_str().unwrap().parse().unwrap();
            assert!(project.registry.has_blob(repository, &digest));
        }
    }
    let written: Value = serde_json::from_slice(&fs::read(metadata).unwrap()).unwrap();
    let tags = project.registry.tags("acme/app");
    let bytes = &tags.iter().find(|(tag, ..)| tag == "1").unwrap().2;
    assert_eq!(
        written["containerimage.digest"],
        Sha256Digest::of(bytes).to_string()
    );
    assert!(
        !project.path(".memobuild-output").exists(),
        "nothing else is written"
    );
}

#[test]
fn what_the_registry_has_is_not_sent_again() {
    let project = project(Access::Open);
    let name = format!("{}/acme/app:1", project.registry.host());
    pushed(&project, &["-t", &name]);
    // The base image's layer was taken over from its repository.
    let posts = project.registry.seen().into_iter();
    let posts: Vec<_> = posts.filter(|s| s.line.starts_with("POST")).collect();
    let mounts = posts.iter().filter(|s| s.query.contains("from=base"));
    assert_eq!((posts.len(), mounts.count()), (3, 1), "{posts:?}");

    project.registry.forget();
    let again = format!("{}/acme/app:2", project.registry.host());
    pushed(&project, &["-t", &again]);
    assert_eq!(project.registry.count("POST"), 0);
    assert_eq!(
        project.registry.count("PUT"),
        1,
        "the manifest under its tag"
    );

    // A new name in the same registry: only what it has nowhere near.
    project.registry.forget();
    let other = format!("{}/acme/other:1", project.registry.host());
    pushed(&project, &["-t", &other]);
    assert_eq!(
        tagged(&project, "acme/other", "1"),
        tagged(&project, "acme/app", "1")
    );
}

#[test]
fn a_tag_that_names_the_image_stays_as_it_is() {
    let project = project(Access::Open);
    let names = ["1", "2"].map(|tag| format!("{}/acme/app:{tag}", project.registry.host()));
    for platforms in ["linux/amd64", "linux/amd64,linux/arm64"] {
        let platform = format!("--platform={platforms}");
        let requests = |names: &[&str]| {
            project.registry.forget();
            let mut args = vec![platform.as_str()];
            args.extend(names.iter().flat_map(|name| ["-t", name]));
            pushed(&project, &args);
            let seen = project.registry.seen().into_iter().map(|seen| seen.line);
            let seen = seen.filter(|line| line.contains("/acme/app/"));
            seen.collect::<Vec<String>>()
        };
        // What another image is named so far.
        requests(&[&names[0]]);
        let before = tagged(&project, "acme/app", "1");
        assert_eq!(
            requests(&[&names[0]]),
            ["HEAD /v2/acme/app/manifests/1"],
            "{platforms}"
        );
        let [first, second] = names.each_ref().map(String::as_str);
        let mut both = requests(&[first, second]);
        both.sort();
        assert_eq!(
            both,
            [
                "HEAD /v2/acme/app/manifests/1",
                "HEAD /v2/acme/app/manifests/2",
                "PUT /v2/acme/app/manifests/2"
            ],
            "{platforms}"
        );
        assert_eq!(tagged(&project, "acme/app", "1"), before);
        assert_eq!(tagged(&project, "acme/app", "2"), before);
    }
    project.write("ctx/a", "another text");
    pushed(&project, &["-t", &names[0]]);
    assert_ne!(
        tagged(&project, "acme/app", "1"),
        tagged(&project, "acme/app", "2")
    );
}

#[test]
fn several_platforms_are_an_index() {
    let project = project(Access::Open);
    let name = format!("{}/acme/app:1", project.registry.host());
    pushed(
        &project,
        &["-t", &name, "--platform=linux/amd64,linux/arm64"],
    );
    let (media_type, index) = tagged(&project, "acme/app", "1");
    assert_eq!(media_type, media::INDEX);
    assert_eq!(index["manifests"].as_array().unwrap().len(), 2);
}

#[test]
fn a_broken_push_is_made_whole_or_leaves_the_tag_alone() {
    let project = project(Access::Open);
    let name = format!("{}/acme/app:1", project.registry.host());
    project
        .registry
        .fault("PUT", Fault::Status(503, Some("0")), 2);
    pushed(&project, &["-t", &name]);
    let before = tagged(&project, "acme/app", "1");
    project.write("ctx/a", "other text");
    project
        .registry
        .fault("/blobs/uploads/", Fault::Status(418, None), usize::MAX);
    let output = push(&project, &["-t", &name]);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(
        stderr.contains("error: the image can't be pushed"),
        "{stderr}"
    );
    assert_eq!(tagged(&project, "acme/app", "1"), before);
}

#[test]
fn a_refused_push_says_what_to_do() {
    let project = project(Access::ReadOnly("ci", "word"));
    let name = format!("{}/acme/app:1", project.registry.host());
    let output = push(&project, &["-t", &name]);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(41), "{stderr}");
    assert!(stderr.contains("can't push `127.0.0.1:"), "{stderr}");
    assert!(
        stderr.contains("hint: log in with `docker login 127.0.0.1:"),
        "{stderr}"
    );
}

#[test]
fn a_push_needs_a_name() {
    let project = project(Access::Open);
    for args in [&[][..], &["-o", "type=image,push=true"]] {
        let output = push(&project, args);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains("no name to push it under"), "{stderr}");
    }
    let output = push(&project, &["-o", "type=registry,name=acme/a b"]);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("can't be pushed as `acme/a b`"), "{stderr}");
}
