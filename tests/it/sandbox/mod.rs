//! The sandbox with a tiny root file system made of busybox. As root all tests run
//! in tier 1, and one runs itself again as an unprivileged user for tier 2; otherwise
//! they run in the tier that the host allows, or are skipped with a message.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "test code, also outside of the test functions"
)]

mod image;

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use memobuild_ci::{
    event::Stream,
    graph::{FileOwner, NetworkMode},
    sandbox::{Exit, Mount, MountKind, SandboxError, Scratch, Step, Tier},
};

use image::{Image, block_on, run, sandbox, script, try_run};

#[test]
fn exit_codes_and_signals_are_the_process_s_own() {
    let Some(sandbox) = sandbox() else { return };
    let image = Image::new();
    let exit = |args: &[&str]| {
        let image = Image::new();
        let ran = run(&sandbox, &image.spec(args));
        (ran.finished.exit, ran.stderr)
    };
    assert_eq!(exit(&["/bin/sh", "-c", "exit 7"]).0, Exit::Code(7));
    assert_eq!(exit(&["true"]).0, Exit::Code(0));
    // PID 1 ignores signals it has no handler for, but for those from outside.
    assert_eq!(
        exit(&["sh", "-c", "sh -c 'kill -9 $$'; exit $?"]).0,
        Exit::Code(137)
    );
    let (code, said) = exit(&["/bin/none"]);
    assert_eq!(code, Exit::Code(127));
    assert_eq!(said, "exec: \"/bin/none\": no such file or directory\n");
    let (code, said) = exit(&["none"]);
    assert_eq!(code, Exit::Code(127));
    assert_eq!(said, "exec: \"none\": executable file not found in $PATH\n");
    let (code, said) = exit(&["/etc/passwd"]);
    assert_eq!(code, Exit::Code(126));
    assert_eq!(said, "exec: \"/etc/passwd\": permission denied\n");
    fs::write(image.lower().join("script"), "#!/none\n").unwrap();
    fs::set_permissions(
        image.lower().join("script"),
        fs::Permissions::from_mode(0o755),
    )
    .unwrap();
    let ran = run(&sandbox, &image.spec(&["/script"]));
    assert_eq!(ran.finished.exit, Exit::Code(127));
    assert!(ran.stderr.contains("interpreter"), "{}", ran.stderr);
}

#[test]
fn the_environment_is_exactly_the_spec_s() {
    let Some(sandbox) = sandbox() else { return };
    let image = Image::new();
    let mut spec = image.spec(&["/bin/env"]);
    spec.env = vec![
        ("Z".into(), "1".into()),
        ("A".into(), "two words\nand lines".into()),
    ];
    assert_eq!(run(&sandbox, &spec).ok(), "Z=1\nA=two words\nand lines\n");
}

#[test]
fn a_missing_working_directory_is_made_and_is_no_stub() {
    let Some(sandbox) = sandbox() else { return };
    let image = Image::new();
    let mut spec = image.shell("pwd; stat -c %a:%u .");
    spec.cwd = "/srv/app".to_owned();
    let ran = run(&sandbox, &spec);
    assert!(
        !ran.finished
            .stubs
            .iter()
            .any(|s| s.to_string().starts_with("/srv"))
    );
    assert_eq!(ran.ok(), "/srv/app\n755:0\n");
    assert!(image.upper().join("srv/app").is_dir());
}

#[test]
fn users_groups_and_capabilities_are_dockers() {
    let Some(sandbox) = sandbox() else { return };
    let caps = |text: &str| {
        let line = |name: &str| {
            let line = text.lines().find(|l| l.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().to_owned()
        };
        [
            "CapInh",
            "CapPrm",
            "CapEff",
            "CapBnd",
            "CapAmb",
            "NoNewPrivs",
            "Seccomp",
        ]
        .map(line)
    };
    let (none, all) = ("0000000000000000", "00000000a80425fb");
    let status = script(&sandbox, "cat /proc/self/status");
    assert_eq!(caps(&status), [none, all, all, all, none, "0", "2"]);
    if sandbox.userns().is_some_and(|u| u.single_id().is_some()) {
        eprintln!("skipped: no other users in this user namespace");
        return;
    }
    let image = Image::new();
    let mut spec = image.shell("id; cat /proc/self/status; touch /tmp/f; ! touch /root/f");
    (spec.uid, spec.gid, spec.groups) = (1000, 1000, vec![1000, 7]);
    let text = run(&sandbox, &spec).ok();
    assert!(
        text.starts_with("uid=1000(u) gid=1000(u) groups=7,1000(u)\n"),
        "{text}"
    );
    assert_eq!(caps(&text), [none, none, none, all, none, "0", "2"]);
}

#[test]
fn setuid_programs_work() {
    let Some(sandbox) = sandbox() else { return };
    if sandbox.userns().is_some_and(|u| u.single_id().is_some()) {
        eprintln!("skipped: no other users in this user namespace");
        return;
    }
    let image = Image::new();
    let script = "rm /bin/su; cat /bin/busybox > /bin/su; chmod 4755 /bin/su; /bin/su u -c 'id -u; /bin/su -c \"id -u\"'";
    assert_eq!(run(&sandbox, &image.shell(script)).ok(), "1000\n0\n");
}

#[test]
fn the_kernel_is_out_of_reach() {
    let Some(sandbox) = sandbox() else { return };
    let refused = |command: &str| {
        let image = Image::new();
        let ran = run(&sandbox, &image.shell(command));
        assert_ne!(
            ran.finished.exit,
            Exit::Code(0),
            "{command}: {}",
            ran.stdout
        );
        ran.stderr
    };
    assert!(refused("echo 1 > /proc/sys/vm/drop_caches").contains("Read-only file system"));
    refused("echo x > /proc/sysrq-trigger");
    assert_eq!(
        script(&sandbox, "cat /proc/kcore /proc/keys 2>/dev/null | wc -c"),
        "0\n"
    );
    assert_eq!(script(&sandbox, "ls /sys/firmware 2>/dev/null; true"), "");
    assert!(refused("mkdir /sys/fs/cgroup/x || touch /sys/x").contains("Read-only file system"));
    assert!(refused("mount -t tmpfs none /tmp").contains("permission denied"));
    assert!(refused("mount -o bind /bin /tmp").contains("permission denied"));
    assert!(refused("unshare -r true").contains("not permitted"));
    assert!(refused("hostname other").contains("not permitted"));
    assert!(refused("echo 127.0.0.1 evil >> /etc/hosts").contains("Read-only file system"));
}

#[test]
fn device_nodes_are_those_of_a_container() {
    let Some(sandbox) = sandbox() else { return };
    let text = script(
        &sandbox,
        "ls /dev; echo x > /dev/null; head -c 3 /dev/zero | wc -c; head -c 3 /dev/urandom | wc -c
         readlink /dev/ptmx; readlink /dev/fd; touch /dev/shm/f; stat -c %a /dev/shm",
    );
    let expected = "fd\nfull\nmqueue\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero\n\
                    3\n3\npts/ptmx\n/proc/self/fd\n1777\n";
    assert_eq!(text, expected);
    if sandbox.tier() == Tier::Root {
        // Made, for what it is worth, but it can't be opened.
        let image = Image::new();
        let ran = run(
            &sandbox,
            &image.shell("mknod /tmp/sda b 8 0 && mknod /tmp/mem c 1 1 && head -c 1 /tmp/mem"),
        );
        assert_ne!(ran.finished.exit, Exit::Code(0));
        assert!(ran.stderr.contains("Permission denied"), "{}", ran.stderr);
    }
}

#[test]
fn it_is_alone_in_its_pid_namespace() {
    let Some(sandbox) = sandbox() else { return };
    assert_eq!(script(&sandbox, "echo $$"), "1\n");
    if sandbox.tier() != Tier::UserNamespaceBoundProc {
        // A glob, not a program: which of two programs of a pipe starts first is open.
        assert_eq!(script(&sandbox, "echo /proc/[0-9]*"), "/proc/1\n");
    }
    let host = std::process::id();
    assert_eq!(
        script(
            &sandbox,
            &format!("kill -0 {host} 2>/dev/null || echo unseen")
        ),
        "unseen\n"
    );
}

#[test]
fn background_processes_die_with_it_and_do_not_hold_the_output() {
    let Some(sandbox) = sandbox() else { return };
    let start = Instant::now();
    let marker = &marker(31);
    let text = script(
        &sandbox,
        &format!("setsid sleep {marker} & sleep {marker} & echo started"),
    );
    assert_eq!(text, "started\n");
    assert!(start.elapsed() < Duration::from_secs(5));
    assert!(!runs(marker));
}

/// An argument of `sleep` that no other process has.
fn marker(seconds: u32) -> String {
    format!("{seconds}.{}", std::process::id())
}

/// Whether a process with this argument runs on the host.
fn runs(argument: &str) -> bool {
    let lines = fs::read_dir("/proc").unwrap().flatten();
    lines
        .filter_map(|entry| fs::read(entry.path().join("cmdline")).ok())
        .any(|line| line.split(|b| *b == 0).any(|a| a == argument.as_bytes()))
}

#[test]
fn it_is_killed_within_a_second() {
    let Some(sandbox) = sandbox() else { return };
    let image = Image::new();
    let sleep = marker(27);
    let spec = image.shell(&format!(
        "trap '' TERM INT; echo up; sleep {sleep} & sleep {sleep}"
    ));
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let mut stop = Some(stop);
    let mut began = None;
    let finished = block_on(sandbox.run(
        &spec,
        &mut |_, bytes| {
            if bytes.starts_with(b"up") {
                began = Some(Instant::now());
                stop.take().unwrap().send(()).unwrap();
            }
        },
        async {
            // The sender is dropped only after it sent.
            let _ = stopped.await;
        },
        None,
    ));
    assert_eq!(finished.unwrap().exit, Exit::Stopped);
    assert!(began.unwrap().elapsed() < Duration::from_secs(1));
    assert!(!runs(&sleep));
    let image = Image::new();
    let timeout = Some(Duration::from_millis(300));
    let sleep = marker(26);
    let spec = image.shell(&format!("sleep {sleep}"));
    let finished = block_on(sandbox.run(&spec, &mut |_, _| {}, std::future::pending(), timeout));
    assert_eq!(finished.unwrap().exit, Exit::TimedOut);
    assert!(!runs(&sleep));
}

#[test]
fn a_dropped_run_is_killed_too() {
    let Some(sandbox) = sandbox() else { return };
    let image = Image::new();
    let sleep = marker(25);
    let spec = image.shell(&format!("echo up; sleep {sleep}"));
    block_on(async {
        let (up, is_up) = tokio::sync::oneshot::channel::<()>();
        let mut up = Some(up);
        let mut output = |_: Stream, bytes: &[u8]| {
            if let (false, Some(up)) = (bytes.is_empty(), up.take()) {
                up.send(()).unwrap();
            }
        };
        tokio::select! {
            _ = sandbox.run(&spec, &mut output, std::future::pending(), None) => panic!("ended"),
            _ = is_up => {}
        }
        for _ in 0..200 {
            if !runs(&sleep) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("still running");
    });
}

#[test]
fn much_output_takes_little_memory() {
    let Some(sandbox) = sandbox() else { return };
    let image = Image::new();
    let spec = image.shell("dd if=/dev/zero bs=65536 count=3200 2>/dev/null");
    let before = resident();
    let (mut size, mut most) = (0, before);
    let finished = block_on(sandbox.run(
        &spec,
        &mut |_, bytes| {
            size += bytes.len();
            if size % (16 << 20) < bytes.len() {
                most = most.max(resident());
            }
        },
        std::future::pending(),
        None,
    ));
    assert_eq!(finished.unwrap().exit, Exit::Code(0));
    assert_eq!(size, 200 << 20);
    // Other tests run in the same process.
    assert!(
        most - before < 150 << 20,
        "{} MiB more",
        (most - before) >> 20
    );
}

/// Resident memory of this process in bytes.
fn resident() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * rustix::param::page_size()
}

#[test]
fn without_network_there_is_a_loopback_only() {
    let Some(sandbox) = sandbox() else { return };
    let image = Image::new();
    let mut spec = image.shell("cat /proc/net/route | wc -l; cat /proc/net/dev | grep -c :; ip addr show lo | grep -c 'LOOPBACK,UP'; cat /etc/resolv.conf");
    spec.network = NetworkMode::None;
    assert_eq!(run(&sandbox, &spec).ok(), "1\n1\n1\n");
}

#[test]
fn names_are_as_in_dockers_builder() {
    let Some(sandbox) = sandbox() else { return };
    let image = Image::new();
    let mut spec = image.shell("hostname; cat /etc/hosts");
    spec.hosts = vec![("db".into(), "10.0.0.7".into())];
    let expected = "buildkitsandbox\n127.0.0.1\tlocalhost buildkitsandbox\n\
                    ::1\tlocalhost ip6-localhost ip6-loopback\n10.0.0.7\tdb\n";
    assert_eq!(run(&sandbox, &spec).ok(), expected);
    let host = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    assert_eq!(script(&sandbox, "cat /etc/resolv.conf"), host);
}

#[test]
fn secrets_are_files_in_memory() {
    let Some(sandbox) = sandbox() else { return };
    let image = Image::new();
    let mut spec = image.shell(
        "stat -c '%a %u:%g' /run/secrets/s; cat /run/secrets/s; ! (echo x > /run/secrets/s) 2>/dev/null",
    );
    spec.mounts = vec![Mount {
        target: "/run/secrets/s".to_owned(),
        kind: MountKind::Secret {
            content: b"hunter22\n".to_vec().into(),
            owner: FileOwner {
                mode: 0o440,
                uid: 0,
                gid: 0,
            },
        },
    }];
    assert!(!format!("{spec:?}").contains("hunter22"));
    let ran = run(&sandbox, &spec);
    let stubs: Vec<String> = ran.finished.stubs.iter().map(ToString::to_string).collect();
    assert!(stubs.contains(&"/run/secrets/s".to_owned()), "{stubs:?}");
    assert_eq!(ran.ok(), "440 0:0\nhunter22\n");
    // The file that it was mounted over, on disk.
    assert_eq!(fs::read(image.upper().join("run/secrets/s")).unwrap(), b"");
}

#[test]
fn an_insecure_process_keeps_its_capabilities() {
    let Some(sandbox) = sandbox() else { return };
    let image = Image::new();
    let mut spec = image.shell("grep -E '^(CapEff|CapBnd|Seccomp):' /proc/self/status");
    spec.extras.insecure = true;
    let said = run(&sandbox, &spec).ok();
    let values: Vec<&str> = said.split_whitespace().collect();
    assert_eq!(values[1], values[3], "{said}");
    assert_eq!(values[5], "0", "{said}");
}

#[test]
fn limits_and_shared_memory_are_as_asked_for() {
    let Some(sandbox) = sandbox() else { return };
    let image = Image::new();
    let mut spec = image.shell("ulimit -Sn; ulimit -Hn; df -k /dev/shm | awk 'END {print $2}'");
    spec.extras.limits = vec!["nofile=64:128".parse().unwrap()];
    spec.extras.shm_size = Some(3 << 20);
    assert_eq!(run(&sandbox, &spec).ok(), "64\n128\n3072\n");
}

#[test]
fn stubs_are_what_was_made_for_mount_points_and_only_that() {
    let Some(sandbox) = sandbox() else { return };
    let image = Image::new();
    fs::create_dir(image.lower().join("proc")).unwrap();
    symlink("../run/hosts", image.lower().join("etc/hosts")).unwrap();
    let cache = tempfile::tempdir().unwrap();
    fs::write(cache.path().join("kept"), "").unwrap();
    let bind = |target: &str, readonly| Mount {
        target: target.to_owned(),
        kind: MountKind::Bind {
            source: cache.path().to_owned(),
            readonly,
        },
    };
    let mut spec = image.shell("ls /var/cache/apt/kept /tmp/in/sub/ro; touch /var/cache/apt/new; ! touch /tmp/in/sub/ro/new");
    spec.mounts = vec![
        bind("/tmp/in/sub/ro", true),
        bind("/var/cache/apt", false),
        Mount {
            target: "/tmp/in".to_owned(),
            kind: MountKind::Tmpfs {
                size: Some(1 << 20),
                readonly: false,
            },
        },
    ];
    let ran = run(&sandbox, &spec);
    let stubs: Vec<String> = ran.finished.stubs.iter().map(ToString::to_string).collect();
    assert_eq!(
        stubs,
        [
            "/etc/resolv.conf",
            "/run",
            "/run/hosts",
            "/tmp/in",
            "/var",
            "/var/cache",
            "/var/cache/apt"
        ]
    );
    ran.ok();
    assert!(cache.path().join("new").exists());
    assert_eq!(
        fs::read_dir(image.upper().join("var/cache/apt"))
            .unwrap()
            .count(),
        0
    );
}

#[test]
fn layers_can_be_mounted_too() {
    let Some(sandbox) = sandbox() else { return };
    let (image, stage) = (Image::new(), tempfile::tempdir().unwrap());
    for name in ["a/src", "b/src", "upper", "work"] {
        fs::create_dir_all(stage.path().join(name)).unwrap();
    }
    fs::write(stage.path().join("a/src/one"), "1\n").unwrap();
    fs::write(stage.path().join("b/src/two"), "2\n").unwrap();
    let mount = |target: &str, lowers: &[&str], scratch| Mount {
        target: target.to_owned(),
        kind: MountKind::Overlay {
            lowers: lowers.iter().map(|l| stage.path().join(l)).collect(),
            source: "/src".to_owned(),
            scratch,
        },
    };
    let scratch = Scratch {
        upper: stage.path().join("upper"),
        work: stage.path().join("work"),
        kept: false,
    };
    let mut spec = image.shell("cat /m/one /m/two /single/one; echo x > /m/one; ! touch /single/x");
    spec.mounts = vec![
        mount("/m", &["a", "b"], Some(scratch)),
        mount("/single", &["a"], None),
    ];
    assert_eq!(run(&sandbox, &spec).ok(), "1\n2\n1\n");
    assert_eq!(
        fs::read_to_string(stage.path().join("a/src/one")).unwrap(),
        "1\n"
    );
}

#[test]
fn many_layers_with_long_names_are_merged() {
    let Some(sandbox) = sandbox() else { return };
    let image = Image::new();
    let mut spec = image.shell("ls /x | wc -l");
    for n in 0..120 {
        let layer = image.dir.path().join(format!("{n:0>64}"));
        fs::create_dir_all(layer.join("x")).unwrap();
        fs::write(layer.join("x").join(n.to_string()), "").unwrap();
        spec.rootfs.lowers.push(layer);
    }
    assert_eq!(run(&sandbox, &spec).ok(), "120\n");
}

#[test]
fn changes_end_up_in_the_upper_directory() {
    let Some(sandbox) = sandbox() else { return };
    let image = Image::new();
    run(
        &sandbox,
        &image.shell("echo new > /tmp/f; rm /etc/group; umask; [ -t 0 ] || cat"),
    )
    .ok();
    assert_eq!(
        fs::read_to_string(image.upper().join("tmp/f")).unwrap(),
        "new\n"
    );
    let whiteout = fs::metadata(image.upper().join("etc/group")).unwrap();
    assert_eq!(whiteout.rdev(), 0);
    assert_eq!(fs::read_dir(image.upper().join("proc")).unwrap().count(), 0);
}

#[test]
fn limits_are_a_container_s_and_no_descriptor_leaks() {
    let Some(sandbox) = sandbox() else { return };
    // A descriptor without close-on-exec, as a careless library would leave it.
    let file = tempfile::tempfile().unwrap();
    rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty()).unwrap();
    let text = script(
        &sandbox,
        "ulimit -c; umask; ls /proc/self/fd | wc -l; tty; cat /proc/self/status | grep -E 'SigBlk|SigIgn'",
    );
    let expected = "0\n0022\n4\nnot a tty\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n";
    assert_eq!(text, expected, "`ls` has 0, 1, 2 and the directory");
}

#[test]
fn its_own_program_can_not_be_overwritten() {
    let Some(sandbox) = sandbox() else { return };
    let image = Image::new();
    // The kernel executes our program again, in the sandbox, as the interpreter.
    fs::write(image.lower().join("script"), "#!/proc/self/exe\n").unwrap();
    fs::set_permissions(
        image.lower().join("script"),
        fs::Permissions::from_mode(0o755),
    )
    .unwrap();
    let before = fs::metadata(env!("CARGO_BIN_EXE_memobuild-ci")).unwrap();
    run(&sandbox, &image.spec(&["/script"]));
    let after = fs::metadata(env!("CARGO_BIN_EXE_memobuild-ci")).unwrap();
    assert_eq!((before.ino(), before.mtime()), (after.ino(), after.mtime()));
}

#[test]
fn a_failed_set_up_names_the_step() {
    let Some(sandbox) = sandbox() else { return };
    let image = Image::new();
    let mut spec = image.shell("true");
    spec.mounts = vec![Mount {
        target: "/m".to_owned(),
        kind: MountKind::Bind {
            source: PathBuf::from("/nonexistent"),
            readonly: true,
        },
    }];
    let error = try_run(&sandbox, &spec).err().unwrap();
    assert_eq!(
        error.to_string(),
        "can't set the sandbox up: mounting: `/nonexistent`"
    );
    let mut spec = image.shell("true");
    spec.rootfs.lowers.push(PathBuf::from("/nonexistent-layer"));
    let error = try_run(&sandbox, &spec).err().unwrap();
    let SandboxError::Setup { step, .. } = &error else {
        panic!("{error:?}");
    };
    assert_eq!(*step, Step::Root);
    assert!(error.hint().is_some());
}

/// An i386 executable that does `exit(42)`.
#[cfg(target_arch = "x86_64")]
fn i386_program() -> Vec<u8> {
    let code = b"\xb8\x01\0\0\0\xbb\x2a\0\0\0\xcd\x80";
    let (base, headers) = (0x0804_8000_u32, 84_u32);
    let mut elf = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x03\0\x01\0\0\0".to_vec();
    elf.extend([base + headers, 52, 0, 0].map(u32::to_le_bytes).concat());
    elf.extend([52_u16, 32, 1, 0, 0, 0].map(u16::to_le_bytes).concat());
    let size = headers + u32::try_from(code.len()).unwrap();
    elf.extend(
        [1, 0, base, base, size, size, 5, 0x1000]
            .map(u32::to_le_bytes)
            .concat(),
    );
    elf.extend(code);
    elf
}

#[cfg(target_arch = "x86_64")]
#[test]
fn programs_of_i386_run() {
    let Some(sandbox) = sandbox() else { return };
    let image = Image::new();
    let program = image.lower().join("i386");
    fs::write(&program, i386_program()).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    if Command::new(&program).status().is_err() {
        eprintln!("skipped: this kernel runs no i386 programs");
        return;
    }
    let ran = run(&sandbox, &image.spec(&["/i386"]));
    assert_eq!(ran.finished.exit, Exit::Code(42));
}

#[test]
fn usage_is_measured() {
    let Some(sandbox) = sandbox() else { return };
    let image = Image::new();
    let ran = run(
        &sandbox,
        &image.shell("i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"),
    );
    assert!(ran.finished.cpu_ms > 10, "{:?}", ran.finished);
    assert!(ran.finished.peak_rss > 100_000, "{:?}", ran.finished);
}

#[test]
fn starting_takes_little_time() {
    let Some(sandbox) = sandbox() else { return };
    let image = Image::new();
    let mut times = Vec::new();
    for n in 0..20 {
        let mut spec = image.spec(&["/bin/true"]);
        for (name, dir) in [
            ("upper", &mut spec.rootfs.upper),
            ("work", &mut spec.rootfs.work),
        ] {
            *dir = image.dir.path().join(format!("{name}{n}"));
            fs::create_dir(dir).unwrap();
        }
        let start = Instant::now();
        run(&sandbox, &spec).ok();
        times.push(start.elapsed());
    }
    times.sort();
    eprintln!(
        "`true` in {:?}: best {:?}, median {:?}",
        sandbox.tier(),
        times[0],
        times[10]
    );
    assert!(times[0] < Duration::from_millis(500));
}

/// What [`the_death_of_the_caller_kills_it`] runs in a process of its own.
#[test]
fn sleeping_caller() {
    let Some(sleep) = std::env::var_os("SANDBOX_TEST_SLEEP") else {
        return;
    };
    let Some(sandbox) = sandbox() else { return };
    let script = format!("sleep {}; exit", sleep.to_str().unwrap());
    run(&sandbox, &Image::new().shell(&script));
}

#[test]
fn the_death_of_the_caller_kills_it() {
    let Some(_) = sandbox() else { return };
    let sleep = marker(24);
    let mut caller = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "sandbox::sleeping_caller"])
        .env("SANDBOX_TEST_SLEEP", &sleep)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let reached = |wanted: bool| {
        let deadline = Instant::now() + Duration::from_secs(20);
        while runs(&sleep) != wanted {
            assert!(Instant::now() < deadline, "running: {}", !wanted);
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    reached(true);
    caller.kill().unwrap();
    caller.wait().unwrap();
    reached(false);
}

/// Runs all other tests of this file again as an unprivileged user, which puts them in a
/// user namespace; then where a container masks `/proc`, and as root without CAP_SYS_ADMIN.
#[test]
fn all_of_it_works_for_an_unprivileged_user() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: not root, so the other tests show it");
        return;
    }
    let have = |path: &str| Path::new(path).exists();
    if !have("/usr/bin/newuidmap") || !have("/usr/bin/setpriv") {
        eprintln!("skipped: no newuidmap or setpriv");
        return;
    }
    let _subuid = Line::add("/etc/subuid");
    let _subgid = Line::add("/etc/subgid");
    let user = "exec setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all";
    run_again("UserNamespace:", user);
    let masked = format!("mount --bind /dev/null /proc/version; {user}");
    run_again("UserNamespaceBoundProc:", &masked);
    // Root of a container that may make user namespaces, but nothing else.
    run_again(
        "UserNamespace:",
        "exec setpriv --bounding-set=-sys_admin --inh-caps=-all",
    );
}

/// Runs the tests in a mount namespace, by what the shell `script` executes.
fn run_again(tier: &str, script: &str) {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let output = Command::new("/usr/bin/unshare")
        .args(["--mount", "--propagation=private", "/bin/sh", "-c"])
        .arg(format!("{script} \"$@\""))
        .arg("sh")
        .arg(std::env::current_exe().unwrap())
        .args([
            "sandbox::",
            "--skip=all_of_it",
            "--nocapture",
            "--test-threads=2",
        ])
        .env("TMPDIR", dir.path())
        .current_dir("/")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let text = String::from_utf8_lossy(&output.stdout);
    eprintln!("{text}{said}");
    assert!(output.status.success(), "in {tier}");
    let allowed = said.contains(&format!("in {tier}"));
    assert!(allowed || std::env::var_os("CI").is_none(), "not in {tier}");
    if !allowed {
        eprintln!("skipped: this host does not get an unprivileged user to `{tier}`");
    }
    // What belongs to ids of the namespace its user can't remove, but root can.
    fs::remove_dir_all(dir.path()).unwrap();
}

/// A line for the user 65534 in a file of id ranges; removed at the end if it was added.
struct Line(Option<&'static str>);

impl Line {
    const TEXT: &str = "65534:3000000000:65536\n";

    fn add(path: &'static str) -> Self {
        let text = fs::read_to_string(path).unwrap_or_default();
        if text
            .lines()
            .any(|l| l.starts_with("65534:") || l.starts_with("nobody:"))
        {
            return Self(None);
        }
        fs::write(path, format!("{text}{}", Self::TEXT)).unwrap();
        Self(Some(path))
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Some(path) = self.0 {
            let text = fs::read_to_string(path).unwrap();
            fs::write(path, text.replace(Self::TEXT, "")).unwrap();
        }
    }
}
