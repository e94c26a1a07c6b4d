//! What a build's result is written as, without privilege and without other programs.

use std::{collections::BTreeMap, fs, io::Read as _, path::Path, process::Output};

use serde_json::Value;

use crate::build_fixture::Project;

/// Three files, one of which a later layer replaces and one of which it moves away.
fn project() -> Project {
    let project = Project::new();
    project
        .dockerfile(
            "FROM scratch AS one\nARG TARGETARCH\nCOPY a b /d/\nCOPY c /d/b\nCOPY a /own-$TARGETARCH\n",
        )
        .write("ctx/a", "a")
        .write("ctx/b", "b")
        .write("ctx/c", "c");
    project
}

#[track_caller]
fn run(project: &Project, args: &[&str]) -> Output {
    let output = project.command(args).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    output
}

#[track_caller]
fn fails(project: &Project, args: &[&str], code: i32) -> String {
    let output = project.command(args).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    stderr
}

/// The entries of a tar: directories end with a slash.
fn entries(tar: &[u8]) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for entry in tar::Archive::new(tar).entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        found.insert(name, String::from_utf8_lossy(&content).into_owned());
    }
    found
}

fn tree(dir: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(at) = todo.pop() {
        for item in fs::read_dir(&at).unwrap() {
            let path = item.unwrap().path();
            let name = path.strip_prefix(dir).unwrap().display().to_string();
            if path.is_dir() {
                found.insert(format!("{name}/"), String::new());
                todo.push(path);
            } else {
                found.insert(name, fs::read_to_string(&path).unwrap());
            }
        }
    }
    found
}

fn files(list: &[(&str, &str)]) -> BTreeMap<String, String> {
    list.iter()
        .map(|(name, content)| ((*name).to_owned(), (*content).to_owned()))
        .collect()
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        _ => "arm64",
    }
}

#[test]
fn one_build_writes_all_kinds() {
    let project = project();
    let own = format!("own-{}", architecture());
    let expected = files(&[("d/", ""), ("d/a", "a"), ("d/b", "c"), (&own, "a")]);
    let args = [
        "ctx",
        "-o",
        "type=tar,dest=made/files.tar",
        "-o",
        "dir",
        "-o",
        "type=oci,dest=image.tar",
        "-o",
        "type=docker,dest=docker.tar,name=ignored:1",
        "-o",
        "type=oci,dest=layout,tar=false,compression=gzip",
        "-t",
        "acme/app",
        "-t",
        "example.com/app:2",
        "--iidfile=iid",
        "--metadata-file=metadata.json",
    ];
    run(&project, &args);
    let read = |name: &str| fs::read(project.path(name)).unwrap();
    assert_eq!(entries(&read("made/files.tar")), expected);
    assert_eq!(tree(&project.path("dir")), expected);
    let image = entries(&read("image.tar"));
    assert!(image.contains_key("oci-layout") && !image.contains_key("manifest.json"));
    let docker = entries(&read("docker.tar"));
    let manifest: Value = serde_json::from_str(&docker["manifest.json"]).unwrap();
    let tags = &manifest[0]["RepoTags"];
    assert_eq!(
        *tags,
        serde_json::json!(["acme/app:latest", "example.com/app:2"])
    );
    let id = String::from_utf8(read("iid")).unwrap();
    let config = manifest[0]["Config"].as_str().unwrap();
    assert_eq!(config.rsplit('/').next(), id.split(':').nth(1));
    assert!(docker.contains_key(config));
    for layer in manifest[0]["Layers"].as_array().unwrap() {
        assert!(docker.contains_key(layer.as_str().unwrap()));
    }
    let metadata: Value = serde_json::from_slice(&read("metadata.json")).unwrap();
    let names = "docker.io/acme/app:latest,example.com/app:2";
    assert_eq!(metadata["image.name"], names);
    assert_eq!(metadata["containerimage.config.digest"], id);
    assert_eq!(metadata["memobuild.outputs"].as_array().unwrap().len(), 5);
    let index: Value = serde_json::from_slice(&read("layout/index.json")).unwrap();
    assert_eq!(
        metadata["containerimage.digest"],
        index["manifests"][0]["digest"]
    );
    let name = "io.containerd.image.name";
    let named = &index["manifests"][0]["annotations"][name];
    assert_eq!(named, "docker.io/acme/app:latest");
}

#[test]
fn stdout_has_the_result_and_nothing_else() {
    let project = project();
    let own = format!("own-{}", architecture());
    let tar = run(&project, &["ctx", "-o", "-"]).stdout;
    assert_eq!(entries(&tar)[&own], "a");
    let tar = run(&project, &["ctx", "-q", "-o", "type=docker,dest=-"]).stdout;
    assert!(entries(&tar).contains_key("manifest.json"));
    let tar = run(&project, &["ctx", "-o", "type=oci"]).stdout;
    assert!(entries(&tar).contains_key("index.json"));
    let stderr = fails(&project, &["ctx", "-o", "-", "-o", "type=oci"], 2);
    assert!(stderr.contains("only one output"), "{stderr}");
}

#[test]
fn quiet_prints_the_id() {
    let project = project();
    let output = run(&project, &["ctx", "-q", "-o", "out", "--iidfile=iid"]);
    let id = fs::read_to_string(project.path("iid")).unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{id}\n"));
    // The id is that of the image, whether one is written or not.
    run(
        &project,
        &["ctx", "-o", "type=oci,dest=x", "--iidfile=other"],
    );
    assert_eq!(fs::read_to_string(project.path("other")).unwrap(), id);
}

#[test]
fn a_failed_build_leaves_no_id() {
    let project = project();
    project.write("iid", "of an earlier build");
    project.dockerfile("FROM scratch\nCOPY missing /\n");
    fails(&project, &["ctx", "-o", "out", "--iidfile=iid"], 42);
    assert!(!project.path("iid").exists());
    assert!(!project.path("out").exists());
}

#[test]
fn cacheonly_writes_nothing() {
    let project = project();
    run(&project, &["ctx", "-o", "type=cacheonly"]);
    assert!(!project.path(".memobuild-output").exists());
    let again = run(&project, &["ctx", "-o", "out"]);
    let stderr = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(!stderr.contains("\"outcome\":\"ran\""), "{stderr}");
}

#[test]
fn platforms_have_directories() {
    let project = project();
    let both = "--platform=linux/amd64,linux/arm64";
    run(
        &project,
        &["ctx", both, "-o", "out", "-o", "type=tar,dest=out.tar"],
    );
    let mut expected = BTreeMap::new();
    for arch in ["amd64", "arm64"] {
        let dir = format!("linux_{arch}/");
        for (name, content) in [("", ""), ("d/", ""), ("d/a", "a"), ("d/b", "c")] {
            expected.insert(format!("{dir}{name}"), content.to_owned());
        }
        expected.insert(format!("{dir}own-{arch}"), "a".to_owned());
    }
    assert_eq!(tree(&project.path("out")), expected);
    assert_eq!(
        entries(&fs::read(project.path("out.tar")).unwrap()),
        expected
    );
    let merged = "type=local,dest=merged,platform-split=false";
    let stderr = fails(&project, &["ctx", both, "-o", merged], 2);
    assert!(stderr.contains("`/d/a` is in the results for"), "{stderr}");
    assert!(!project.path("merged").exists());
    project.dockerfile("FROM scratch\nARG TARGETARCH\nCOPY a /bin/own-$TARGETARCH\n");
    run(&project, &["ctx", both, "-o", merged]);
    let expected = files(&[("bin/", ""), ("bin/own-amd64", "a"), ("bin/own-arm64", "a")]);
    assert_eq!(tree(&project.path("merged")), expected);
    let stderr = fails(&project, &["ctx", both, "-o", "type=docker,dest=x"], 2);
    assert!(stderr.contains("one platform only"), "{stderr}");
    let stderr = fails(&project, &["ctx", both, "-o", "out", "--iidfile=x"], 2);
    assert!(stderr.contains("`--iidfile` names one image"), "{stderr}");
}

#[test]
fn annotations_stand_where_they_belong() {
    let project = project();
    let annotations = [
        "all=1",
        "manifest[linux/arm64]:all=2",
        "manifest-descriptor:link=3",
        "index:whole=4",
        "index-descriptor:top=5",
    ];
    let mut args = vec!["ctx", "--platform=linux/amd64,linux/arm64"];
    for annotation in &annotations {
        args.extend(["--annotation", annotation]);
    }
    args.extend(["-o", "type=oci,dest=out,tar=false,annotation.more=6"]);
    run(&project, &args);
    let document = |path: &str| -> Value {
        serde_json::from_slice(&fs::read(project.path("out").join(path)).unwrap()).unwrap()
    };
    let blob = |link: &Value| {
        let digest = link["digest"].as_str().unwrap().replace(':', "/");
        document(&format!("blobs/{digest}"))
    };
    let top = &document("index.json")["manifests"][0];
    assert_eq!(top["annotations"]["top"], "5");
    let index = blob(top);
    assert_eq!(index["annotations"]["whole"], "4");
    for (n, all) in ["1", "2"].into_iter().enumerate() {
        let link = &index["manifests"][n];
        assert_eq!(link["annotations"]["link"], "3");
        assert_eq!(blob(link)["annotations"]["all"], all);
        assert_eq!(blob(link)["annotations"]["more"], "6");
    }
    for (annotation, told) in [
        ("index:a=b", "an image of one platform has none"),
        ("manifest[linux/s390x]:a=b", "which is not built"),
        ("a", "is not `[TYPE:]NAME=VALUE`"),
    ] {
        let stderr = fails(&project, &["ctx", "--annotation", annotation], 2);
        assert!(stderr.contains(told), "{stderr}");
    }
}

#[test]
fn one_platform_can_be_written_like_several() {
    let project = project();
    let arg = "--build-arg=BUILDKIT_MULTI_PLATFORM=1";
    let args = ["ctx", arg, "-o", "dir", "-o", "type=oci,dest=out,tar=false"];
    run(&project, &args);
    let name = format!("linux_{}/", architecture());
    assert!(tree(&project.path("dir")).contains_key(&name));
    let index = fs::read_to_string(project.path("out/index.json")).unwrap();
    assert!(index.contains("application/vnd.oci.image.index.v1+json\",\"digest"));
}

#[test]
fn the_epoch_is_the_time_of_all_files() {
    use std::os::unix::fs::MetadataExt as _;

    let project = project();
    let mut command = project.command(&["ctx", "-o", "out"]);
    let output = command.env("SOURCE_DATE_EPOCH", "1234567890").output();
    assert!(output.unwrap().status.success());
    for name in ["d", "d/a"] {
        let meta = fs::metadata(project.path("out").join(name)).unwrap();
        assert_eq!(meta.mtime(), 1_234_567_890);
    }
}

#[test]
fn a_corrupt_layer_is_made_again_before_anything_is_written() {
    let project = project();
    run(&project, &["ctx", "-o", "type=cacheonly"]);
    // Every blob of the store, its size kept.
    let mut damaged = 0;
    for dir in fs::read_dir(project.path("cache/blobs/sha256")).unwrap() {
        for blob in fs::read_dir(dir.unwrap().path()).unwrap() {
            let path = blob.unwrap().path();
            let mut bytes = fs::read(&path).unwrap();
            let last = bytes.len() - 1;
            bytes[last] ^= 0xff;
            fs::remove_file(&path).unwrap();
            fs::write(&path, bytes).unwrap();
            damaged += 1;
        }
    }
    assert!(damaged > 0);
    let tar = run(&project, &["ctx", "-o", "-"]).stdout;
    assert_eq!(entries(&tar)["d/b"], "c");
}

#[test]
fn foreign_flags_are_accepted_or_explained() {
    let project = project();
    let harmless = [
        "ctx",
        "--rm",
        "--force-rm=true",
        "--compress",
        "-m",
        "2g",
        "--memory-swap=-1",
        "-c",
        "512",
        "--cpuset-cpus=0-3",
        "--builder",
        "desktop",
        "--isolation=default",
        "--provenance=false",
        "--sbom=false",
        "--attest=type=sbom,disabled=true",
        "--disable-content-trust",
        "--pull",
        "-o",
        "out",
    ];
    let output = run(&project, &harmless);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    for warned in ["`--builder`", "limits of memory and processors"] {
        assert!(stderr.contains(warned), "{warned}: {stderr}");
    }
    assert_eq!(stderr.matches("\"warning\"").count(), 2, "{stderr}");
    for refused in ["--squash", "--policy=x", "--debug", "-D"] {
        let stderr = fails(&project, &["ctx", refused], 2);
        let flag = refused.split('=').next().unwrap();
        let told = format!("error: `{flag}` is not supported\nhint: ");
        assert!(stderr.starts_with(&told), "{stderr}");
    }
    for (refused, told) in [
        (
            "--cache-to=type=inline",
            "`inline` is not a type of `--cache-to`",
        ),
        ("--provenance=mode=max", "no attestations"),
        ("--sbom=true", "no attestations"),
        ("--attest=type=sbom", "no attestations"),
        ("--isolation=hyperv", "isolation `hyperv`"),
    ] {
        let stderr = fails(&project, &["ctx", refused], 2);
        assert!(stderr.contains(told), "{stderr}");
    }
}

#[test]
fn a_layer_can_be_built_without_the_cache() {
    let project = Project::new();
    project
        .write(
            "ctx/memobuild.yml",
            "version: 1\nimage: acme/app\nlayers:\n\
             \x20 base: {dockerfile: base.df, context: .}\n\
             \x20 app: {from: base, dockerfile: app.df, context: .}\n",
        )
        .write("ctx/base.df", "FROM scratch\nCOPY base /\n")
        .write(
            "ctx/app.df",
            "ARG BASE_IMAGE\nFROM $BASE_IMAGE\nCOPY app /\n",
        )
        .write("ctx/base", "base")
        .write("ctx/app", "app");
    let build = |args: &[&str]| {
        let mut command = project.command(args);
        let output = command.current_dir(project.path("ctx")).output();
        let ended = crate::build_fixture::Ended::of(output.unwrap());
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        ended
    };
    build(&["-o", "type=cacheonly"]);
    let ended = build(&["--no-cache-filter=base"]);
    assert_eq!(ended.outcome("COPY base /"), "ran");
    assert_eq!(ended.outcome("COPY app /"), "hit");
}

#[test]
fn what_is_no_file_is_written_to_and_stays() {
    use std::os::unix::fs::symlink;

    let project = project();
    for name in ["null", "also-null"] {
        symlink("/dev/null", project.path(name)).unwrap();
    }
    symlink("/dev/stdout", project.path("stdout")).unwrap();
    let args = [
        "ctx",
        "-o",
        "type=tar,dest=null",
        "--metadata-file=also-null",
        "--iidfile=stdout",
    ];
    let id = String::from_utf8(run(&project, &args).stdout).unwrap();
    assert!(id.starts_with("sha256:"), "{id}");
    for name in ["null", "also-null", "stdout"] {
        let meta = fs::symlink_metadata(project.path(name)).unwrap();
        assert!(meta.is_symlink(), "{name}");
    }
    // A symlink to a file stays, and the file is the new one.
    fs::write(project.path("target.tar"), "old").unwrap();
    symlink("target.tar", project.path("link.tar")).unwrap();
    run(&project, &["ctx", "-o", "type=tar,dest=link.tar"]);
    let tar = fs::read(project.path("target.tar")).unwrap();
    assert_eq!(entries(&tar)["d/b"], "c");
    let stderr = fails(&project, &["ctx", "-o", "type=tar,dest=ctx"], 2);
    assert!(stderr.contains("`ctx` is a directory"), "{stderr}");
}
