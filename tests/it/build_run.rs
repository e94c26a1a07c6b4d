//! Builds with RUN: early cut-off, mounts, parallel stages, interruption. They need root.

use std::{fs, process::Stdio, time::Instant};

use crate::build_fixture::{Ended, Project, wait_for};

#[test]
fn a_second_build_executes_nothing() {
    let Some(project) = Project::runnable() else {
        return;
    };
    project
        .dockerfile(
            "FROM @/busybox\nARG WHO=world\nWORKDIR /app\nCOPY a .\n\
             RUN cat a > b && echo hello $WHO >> b\nRUN test -f b\n",
        )
        .write("ctx/a", "one\n");
    let first = project.build(&[]);
    assert_eq!(first.ran(), 4);
    assert_eq!(first.image.file("app/b"), "one\nhello world\n");
    // The last step changes nothing and has no layer.
    assert_eq!(first.image.layers().len(), 4);
    let second = project.build(&[]);
    assert_eq!(
        (second.ran(), second.image.digest()),
        (0, first.image.digest())
    );
    let third = project.build(&["--build-arg", "WHO=you"]);
    assert_eq!(third.outcome("COPY a ."), "hit");
    assert_eq!(third.ran(), 2);
    assert_eq!(third.image.file("app/b"), "one\nhello you\n");
}

#[test]
fn a_step_whose_output_is_unchanged_ends_the_rebuild() {
    let Some(project) = Project::runnable() else {
        return;
    };
    project
        .dockerfile(
            "FROM @/busybox AS gen\nCOPY in /in\nRUN sort /in > /out\n\
             FROM @/busybox\nCOPY --from=gen /out /out\nRUN cat /out > /copy\n",
        )
        .write("ctx/in", "a\nb\n");
    let first = project.build(&[]);
    project.write("ctx/in", "b\na\n");
    let second = project.build(&[]);
    assert_eq!(second.outcome("RUN sort /in > /out"), "ran");
    assert_eq!(second.outcome("COPY --from=gen /out /out"), "content-hit");
    assert_eq!(second.outcome("RUN cat /out > /copy"), "content-hit");
    assert_eq!(second.ran(), 2);
    assert_eq!(second.image.digest(), first.image.digest());
}

#[test]
fn a_filtered_stage_runs_again_and_what_it_gives_is_used() {
    let Some(project) = Project::runnable() else {
        return;
    };
    project.dockerfile(
        "FROM @/busybox AS gen\nRUN head -c 16 /dev/urandom | od -An -tx1 > /random\n\
         FROM @/busybox\nCOPY --from=gen /random /copied\n\
         RUN --mount=from=gen,target=/gen cat /gen/random > /mounted\n",
    );
    let first = project.build(&[]).image;
    let (copied, mounted) = (first.file("copied"), first.file("mounted"));
    assert_eq!(copied, mounted);
    let second = project.build(&["--no-cache-filter=gen"]).image;
    assert_ne!(second.file("copied"), copied);
    assert_eq!(second.file("copied"), second.file("mounted"));
    // That is what later builds find.
    let third = project.build(&[]);
    assert_eq!((third.ran(), third.image.digest()), (0, second.digest()));
}

#[test]
fn what_is_copied_from_one_stage_is_of_one_execution() {
    let Some(project) = Project::runnable() else {
        return;
    };
    project.dockerfile(
        "FROM @/busybox AS gen\nRUN head -c 16 /dev/urandom | od -An -tx1 > /a && cp /a /b\n\
         FROM @/busybox AS one\nCOPY --from=gen /a /a\n\
         FROM @/busybox AS two\nCOPY --from=gen /b /b\nRUN cp /b /c\n\
         FROM scratch\nCOPY --from=one /a /a\nCOPY --from=two /c /c\n",
    );
    let first = project.build(&[]);
    let old = first.image.file("a");
    assert_eq!(first.image.file("c"), old);
    // What the stage gave is gone, and what was copied from it once of two times.
    let layer_with = |path: &str| {
        let mut found = Vec::new();
        for (digest, file) in project.cached_blobs() {
            let blob = fs::File::open(&file).unwrap();
            let media_type = "application/vnd.oci.image.layer.v1.tar+zstd";
            let Ok(tar) = memobuild_ci::oci::layer::decompress(blob, media_type) else {
                continue;
            };
            let mut tar = tar::Archive::new(tar);
            let Ok(entries) = tar.entries() else { continue };
            let names: Vec<_> = entries
                .map_while(Result::ok)
                .map(|e| e.path().unwrap().to_str().unwrap().to_owned())
                // Places of the kernel's file systems, which this base image lacks.
                .filter(|name| !matches!(name.trim_end_matches('/'), "dev" | "proc" | "sys"))
                .collect();
            if names == path.split(' ').collect::<Vec<_>>() {
                found.push((digest, file));
            }
        }
        assert_eq!(found.len(), 1, "{path}: {found:?}");
        found.remove(0).1
    };
    for path in ["a b", "b", "c"] {
        fs::remove_file(layer_with(path)).unwrap();
    }
    let second = project.build(&[]);
    assert_ne!(second.image.file("c"), old);
    assert_eq!(second.image.file("a"), second.image.file("c"));
}

#[test]
fn independent_stages_run_side_by_side() {
    let Some(project) = Project::runnable() else {
        return;
    };
    // Each waits for the other's file: one after the other would never end.
    project.dockerfile(
        "FROM @/busybox AS a\n\
         RUN --mount=type=cache,id=meet,target=/m touch /m/a; until test -f /m/b; do sleep 0.05; done; touch /a\n\
         FROM @/busybox AS b\n\
         RUN --mount=type=cache,id=meet,target=/m touch /m/b; until test -f /m/a; do sleep 0.05; done; touch /b\n\
         FROM scratch\nCOPY --from=a /a /\nCOPY --from=b /b /\n",
    );
    let built = project.build(&["--jobs=2", "--step-timeout=30s"]);
    let files: Vec<_> = built.image.files().into_keys().collect();
    assert_eq!(files, ["a", "b"]);
}

#[test]
fn noise_is_kept_when_asked_for() {
    let Some(project) = Project::runnable() else {
        return;
    };
    project.dockerfile(
        "FROM @/busybox\nRUN mkdir -p /var/log && date +%N > /var/log/dpkg.log && touch /x\n",
    );
    let quiet = project.build(&[]).image;
    assert!(!quiet.files().contains_key("var/log/dpkg.log"));
    let noisy = project.build(&["--keep-noise"]);
    assert_eq!(noisy.ran(), 1);
    assert!(noisy.image.files().contains_key("var/log/dpkg.log"));
}

#[test]
fn cache_mounts_stay_between_builds_and_out_of_layers() {
    let Some(project) = Project::runnable() else {
        return;
    };
    let dockerfile = |n: usize| {
        project.dockerfile(&format!(
            "FROM @/busybox\nRUN --mount=type=cache,target=/c,sharing=locked \
             --mount=type=cache,target=/d,id=/c,sharing=locked \
             echo {n} >> /c/log; cat /d/log > /seen\n"
        ));
    };
    dockerfile(1);
    assert_eq!(project.build(&[]).image.file("seen"), "1\n");
    dockerfile(2);
    let second = project.build(&[]).image;
    assert_eq!(second.file("seen"), "1\n2\n");
    assert!(!second.files().contains_key("c/log"));
}

#[test]
fn locked_cache_mounts_are_used_one_at_a_time_in_any_order() {
    let Some(project) = Project::runnable() else {
        return;
    };
    let mount = |id: &str| format!("--mount=type=cache,id={id},target=/{id},sharing=locked");
    let mut text = String::new();
    for (stage, first, second) in [("a", "x", "y"), ("b", "y", "x"), ("c", "x", "y")] {
        text += &format!(
            "FROM @/busybox AS {stage}\nRUN {} {} mkdir /x/held && sleep 0.1 && rm -r /x/held && echo {stage} > /{stage}\n",
            mount(first),
            mount(second),
        );
    }
    text += "FROM scratch\nCOPY --from=a /a /\nCOPY --from=b /b /\nCOPY --from=c /c /\n";
    project.dockerfile(&text);
    let built = project.build(&["--jobs=3", "--step-timeout=30s"]);
    assert_eq!(built.image.files().len(), 3);
}

#[test]
fn bind_mounts_show_stages_and_contexts_and_count() {
    let Some(project) = Project::runnable() else {
        return;
    };
    project
        .dockerfile(
            "FROM @/busybox AS other\nRUN echo stage > /file\n\
             FROM @/busybox\nRUN --mount=type=bind,source=dir,target=/ctx \
             --mount=type=bind,from=other,source=/file,target=/stage \
             cat /ctx/file /stage > /out; touch /ctx/no 2> /dev/null || echo read-only >> /out\n\
             RUN --mount=type=bind,target=/all,rw echo new > /all/dir/file && cat /all/dir/file > /written\n",
        )
        .write("ctx/dir/file", "context\n")
        .write("ctx/beside", "x");
    let first = project.build(&[]);
    assert_eq!(first.image.file("out"), "context\nstage\nread-only\n");
    assert_eq!(first.image.file("written"), "new\n");
    let host = fs::read_to_string(project.path("ctx/dir/file")).unwrap();
    assert_eq!(host, "context\n", "writes are thrown away");
    let names: Vec<_> = first.image.files().into_keys().collect();
    assert!(
        !names
            .iter()
            .any(|n| n.starts_with("ctx") || n.starts_with("all"))
    );
    assert_eq!(project.build(&[]).ran(), 0);
    project.write("ctx/dir/file", "changed\n");
    let changed = project.build(&[]);
    assert_eq!(changed.image.file("out"), "changed\nstage\nread-only\n");
}

#[test]
fn run_heredocs_are_scripts() {
    let Some(project) = Project::runnable() else {
        return;
    };
    project.dockerfile("FROM @/busybox\nRUN <<EOF\necho one > /a\necho two >> /a\nEOF\n");
    assert_eq!(project.build(&[]).image.file("a"), "one\ntwo\n");
}

#[test]
fn steps_see_the_epoch_and_not_the_host() {
    let Some(project) = Project::runnable() else {
        return;
    };
    project.dockerfile("FROM @/busybox\nENV A=1\nRUN env | sort > /env\n");
    let args = ["ctx", "-o", "type=oci,dest=out,tar=false"];
    let mut command = project.command(&args);
    command.env("SOURCE_DATE_EPOCH", "1700000000");
    command
        .env("HOST_SECRET", "s")
        .env("https_proxy", "http://p");
    let ended = Ended::of(command.output().unwrap());
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let first = ended.built(&project.path("out"));
    let env = first.image.file("env");
    assert!(env.contains("SOURCE_DATE_EPOCH=1700000000\n"), "{env}");
    assert!(
        env.contains("A=1\n") && !env.contains("HOST_SECRET"),
        "{env}"
    );
    // Neither counts.
    let mut command = project.command(&args);
    command.env("SOURCE_DATE_EPOCH", "1700000000");
    let ended = Ended::of(command.output().unwrap());
    assert_eq!(ended.ran(), 0);
}

#[test]
fn an_interrupted_build_ends_at_once_and_keeps_what_is_done() {
    let Some(project) = Project::runnable() else {
        return;
    };
    project.dockerfile(
        "FROM @/busybox\nRUN echo done > /done\n\
         RUN --mount=type=cache,id=signal,target=/m echo > /m/running; until test -f /m/go; do sleep 0.05; done\n",
    );
    let child = project.start(&[]);
    let mounts = project.path("cache/mounts");
    let running = wait_for("running step", || {
        let dirs = fs::read_dir(&mounts).ok()?;
        dirs.map(|dir| dir.unwrap().path())
            .find(|dir| dir.join("running").exists())
    });
    let pid = rustix::process::Pid::from_child(&child);
    let start = Instant::now();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let ended = Ended::of(child.wait_with_output().unwrap());
    assert_eq!(ended.code, 130, "{}", ended.stderr);
    assert!(start.elapsed().as_millis() < 2000, "{:?}", start.elapsed());
    assert!(!project.path("out").exists());
    fs::write(running.join("go"), "").unwrap();
    let second = project.build(&[]);
    assert_eq!(second.outcome("RUN echo done > /done"), "hit");
    assert_eq!(second.ran(), 1);
    let temporary = fs::read_dir(project.path("cache/tmp")).unwrap().count();
    assert_eq!(temporary, 0, "nothing half-done is left");
}

#[test]
fn two_builds_execute_the_same_steps_at_once() {
    let Some(project) = Project::runnable() else {
        return;
    };
    project.dockerfile(
        "FROM @/busybox\nRUN echo 1 > /a\nRUN echo 2 > /b\nRUN echo 3 > /c\nRUN cat /a /b /c > /d\n",
    );
    let start = |name: &str| {
        let dest = format!("type=oci,dest={name},tar=false");
        project
            .command(&["ctx", "-o", &dest])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let ended: Vec<Ended> = [start("one"), start("two")]
        .into_iter()
        .map(|child| Ended::of(child.wait_with_output().unwrap()))
        .collect();
    for ended in &ended {
        assert_eq!(
            (ended.code, ended.warnings().len()),
            (0, 0),
            "{}",
            ended.stderr
        );
    }
    let digest = |name: &str| {
        let image = crate::build_fixture::OciImage::read(&project.path(name));
        image.digest().to_owned()
    };
    assert_eq!(digest("one"), digest("two"));
    assert_eq!(project.build(&[]).ran(), 0);
}

#[test]
fn how_the_network_is_reached_and_how_fast_does_not_count() {
    let Some(project) = Project::runnable() else {
        return;
    };
    project
        .dockerfile("FROM @/busybox\nRUN echo $SSL_CERT_FILE; touch /made\n")
        .write("ca.pem", "certificates");
    let first = project.build(&["--jobs=1"]);
    let second = project.build(&[
        "--jobs=4",
        "--ca-certificates=ca.pem",
        "--step-timeout=1h",
        "--compression-level=9",
    ]);
    assert_eq!(second.ran(), 0);
    let third = project.build(&["--ca-certificates=ca.pem", "--no-cache"]);
    assert_eq!(third.image.digest(), first.image.digest());
}
