//! What comes from elsewhere: URLs and contexts, against a server of ours in this process.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::Stdio,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::build_fixture::{Ended, Project, wait_for};

/// What the server is asked: the path and the headers, in lower case.
struct Request {
    path: String,
    headers: Vec<(String, String)>,
}

impl Request {
    fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(known, _)| known == name);
        found.next().map(|(_, value)| value.as_str())
    }
}

/// A web server: each answer is the whole of what is sent, header and body.
struct Server {
    address: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start(answer: impl Fn(&Request, &mut TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let log = Arc::clone(&asked);
        let answer = Arc::new(answer);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
                std::thread::spawn(move || {
                    let mut stream = stream;
                    let Some(request) = read_request(&stream) else {
                        return;
                    };
                    log.lock().unwrap().push(request.path.clone());
                    answer(&request, &mut stream);
                });
            }
        });
        Self { address, asked }
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

fn read_request(stream: &TcpStream) -> Option<Request> {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let path = lines.next()?.split(' ').nth(1)?.to_owned();
    let headers = lines
        .take_while(|line| !line.is_empty())
        .filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_lowercase(), value.trim().to_owned()))
        })
        .collect();
    Some(Request { path, headers })
}

fn say(stream: &mut TcpStream, status: &str, headers: &str, body: &str) {
    let length = body.len();
    let text = format!(
        "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    );
    // The client may have gone.
    let _ = stream.write_all(text.as_bytes());
}

fn add(project: &Project, url: &str) {
    project.dockerfile(&format!("FROM scratch\nADD {url} /f\n"));
}

#[test]
fn an_unchanged_url_costs_one_conditional_request() {
    let project = Project::new();
    let changed = Arc::new(AtomicUsize::new(1));
    let now = Arc::clone(&changed);
    let server = Server::start(move |request, stream| {
        let tag = format!("\"{}\"", now.load(Ordering::SeqCst));
        match request.header("if-none-match") == Some(&tag) {
            true => say(stream, "304 Not Modified", "", ""),
            false => say(stream, "200 OK", &format!("ETag: {tag}\r\n"), &tag),
        }
    });
    add(&project, &format!("http://{}/x", server.address));
    let first = project.build(&[]);
    assert_eq!((first.ran(), server.asked()), (1, 1));
    let second = project.build(&[]);
    assert_eq!((second.ran(), server.asked()), (0, 2));
    assert_eq!(first.image.digest(), second.image.digest());
    changed.store(2, Ordering::SeqCst);
    let third = project.build(&[]);
    assert_eq!((third.ran(), server.asked()), (1, 3));
    assert_eq!(third.image.file("f"), "\"2\"");
}

#[test]
fn a_checksum_that_is_at_hand_costs_no_request() {
    let project = Project::new();
    let server = Server::start(|_, stream| say(stream, "200 OK", "", "a\n"));
    let digest = "87428fc522803d31065e7bce3cf03fe475096631e5e07bbd7a0fde60c4cf25c7";
    let url = format!("--checksum=sha256:{digest} http://{}/x", server.address);
    add(&project, &url);
    project.build(&[]);
    project.build(&["--no-cache"]);
    assert_eq!(server.asked(), 1);
}

#[test]
fn failures_that_pass_are_tried_again() {
    let project = Project::new();
    let count = AtomicUsize::new(0);
    let server = Server::start(
        move |_, stream| match count.fetch_add(1, Ordering::SeqCst) {
            0 => say(stream, "503 Service Unavailable", "Retry-After: 0\r\n", ""),
            1 => say(stream, "429 Too Many Requests", "Retry-After: 0\r\n", ""),
            // Less than was promised.
            2 => {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf");
            }
            _ => say(stream, "200 OK", "", "whole"),
        },
    );
    add(&project, &format!("http://{}/x", server.address));
    let built = project.build(&[]);
    assert_eq!(server.asked(), 4);
    assert_eq!(built.image.file("f"), "whole");
}

#[test]
fn answers_have_exit_codes_and_credentials_are_not_shown() {
    let project = Project::new();
    let server = Server::start(|request, stream| match request.path.as_str() {
        "/missing" => say(stream, "404 Not Found", "", ""),
        "/denied" => say(stream, "403 Forbidden", "", ""),
        "/wait" => say(
            stream,
            "503 Service Unavailable",
            "Retry-After: 3600\r\n",
            "",
        ),
        _ => say(stream, "418 Teapot", "", ""),
    });
    for (path, code) in [("missing", 42), ("denied", 41), ("wait", 40), ("tea", 1)] {
        add(
            &project,
            &format!("http://user:hunter2@{}/{path}", server.address),
        );
        let ended = project.try_build(&[]);
        assert_eq!(ended.code, code, "{}", ended.stderr);
        assert!(
            ended.stderr.contains("http://user:***@127.0.0.1"),
            "{}",
            ended.stderr
        );
        assert!(!ended.stderr.contains("hunter2"), "{}", ended.stderr);
        assert!(ended.stderr.contains("Dockerfile:2"), "{}", ended.stderr);
    }
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    add(
        &project,
        &format!("--checksum=sha256:abc http://{closed}/x"),
    );
    assert_eq!(project.try_build(&[]).code, 20);
}

#[test]
fn credentials_in_a_url_are_sent_and_stay_out_of_image_and_cache() {
    let project = Project::new();
    let server = Server::start(|request, stream| match request.header("authorization") {
        Some("Basic dXNlcjpodW50ZXIy") => say(stream, "200 OK", "ETag: \"1\"\r\n", "text"),
        _ => say(stream, "401 Unauthorized", "", ""),
    });
    add(
        &project,
        &format!("http://user:hunter2@{}/x", server.address),
    );
    let built = project.build(&[]);
    assert_eq!(built.image.file("f"), "text");
    assert!(!built.image.config().to_string().contains("hunter2"));
    for dir in ["cache/sources", "out"] {
        let found = std::process::Command::new("grep")
            .args(["-r", "hunter2"])
            .arg(project.path(dir))
            .output()
            .unwrap();
        assert_eq!(found.status.code(), Some(1), "{:?}", found.stdout);
    }
}

#[test]
fn two_processes_fetch_one_source_once() {
    let project = Project::new();
    let server = Server::start(|request, stream| match request.header("if-none-match") {
        Some(_) => say(stream, "304 Not Modified", "", ""),
        None => say(stream, "200 OK", "ETag: \"1\"\r\n", &"x".repeat(1 << 20)),
    });
    add(&project, &format!("http://{}/x", server.address));
    let builds: Vec<_> = ["a", "b", "c"]
        .map(|name| {
            let out = format!("type=oci,dest={name},tar=false");
            let mut command = project.command(&["ctx", "-o", &out]);
            command.stderr(Stdio::piped()).stdout(Stdio::piped());
            command.spawn().unwrap()
        })
        .into_iter()
        .map(|child| Ended::of(child.wait_with_output().unwrap()))
        .collect();
    for ended in &builds {
        assert_eq!(ended.code, 0, "{}", ended.stderr);
    }
    assert_eq!(server.asked(), 3);
    let trees = fs::read_dir(project.path("cache/sources/trees")).unwrap();
    assert_eq!(trees.count(), 1);
}

#[test]
fn a_build_that_is_killed_in_mid_fetch_leaves_nothing_that_is_used() {
    let project = Project::new();
    let first = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&first);
    let server = Server::start(move |_, stream| {
        if count.fetch_add(1, Ordering::SeqCst) > 0 {
            return say(stream, "200 OK", "", "whole");
        }
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf");
        // Until the client is gone.
        let _ = stream.read(&mut [0; 1]);
    });
    add(&project, &format!("http://{}/x", server.address));
    let mut child = project.start(&[]);
    let making = project.path("cache/sources/tmp");
    wait_for("the half of a file", || {
        let dir = fs::read_dir(&making).ok()?.next()?.ok()?.path();
        let text = fs::read(dir.join("tree/x")).ok()?;
        (text == b"half").then_some(())
    });
    child.kill().unwrap();
    child.wait().unwrap();
    let built = project.build(&[]);
    assert_eq!(built.image.file("f"), "whole");
    assert_eq!(fs::read_dir(&making).unwrap().count(), 0);
}

#[test]
fn a_cache_that_cant_hold_sources_is_replaced_by_a_temporary_one() {
    let project = Project::new();
    let server = Server::start(|_, stream| say(stream, "200 OK", "", "text"));
    add(&project, &format!("http://{}/x", server.address));
    // A file where the directory should be: unlike modes, root can't write there either.
    fs::create_dir_all(project.path("cache")).unwrap();
    fs::write(project.path("cache/sources"), "").unwrap();
    let ended = project.try_build(&[]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let said = ended.warnings().join("\n");
    assert!(
        said.contains("what this build fetches is not kept"),
        "{said}"
    );
}

#[test]
fn contexts_come_from_urls_and_standard_input() {
    let project = Project::new();
    let mut tar = tar::Builder::new(Vec::new());
    for (name, text) in [("Dockerfile", "FROM scratch\nCOPY . /\n"), ("a/b", "b")] {
        let mut header = tar::Header::new_ustar();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, text.as_bytes()).unwrap();
    }
    let tar = tar.into_inner().unwrap();
    let served = tar.clone();
    let server = Server::start(move |_, stream| {
        let head = format!(
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            served.len()
        );
        let _ = stream.write_all(head.as_bytes());
        let _ = stream.write_all(&served);
    });
    let build = |context: &str, more: &[&str], stdin: &[u8]| {
        let mut args = vec![context, "-o", "type=oci,dest=out,tar=false"];
        args.extend(more);
        let mut command = project.command(&args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        // Who doesn't read it doesn't need it.
        let _ = child.stdin.take().unwrap().write_all(stdin);
        Ended::of(child.wait_with_output().unwrap())
    };
    let files = |ended: Ended| {
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        ended.built(&project.path("out")).image.files()
    };
    let url = format!("http://{}/ctx.tar", server.address);
    let from_url = files(build(&url, &[], b""));
    assert_eq!(
        from_url.get("a/b").map(String::as_str),
        Some("b"),
        "{from_url:?}"
    );
    assert_eq!(files(build("-", &[], &tar)), from_url);
    let empty = files(build("-", &[], b"FROM scratch\nCOPY . /x/\n"));
    assert!(!empty.keys().any(|path| path.starts_with("a")), "{empty:?}");
    project.write("ctx/c", "c");
    // An ignore file beside nothing: that of the context counts.
    project.write(".dockerignore", "c\n");
    let local = files(build("ctx", &["-f", "-"], b"FROM scratch\nCOPY c /d\n"));
    assert_eq!(local.get("d").map(String::as_str), Some("c"));
    for (args, stdin, code) in [
        (["-f", "-"], &b""[..], 2),
        (["-f", "other"], b"FROM scratch\n", 2),
        (["-f", "nothing"], &tar, 42),
    ] {
        let ended = build("-", &args, stdin);
        assert_eq!(ended.code, code, "{args:?}: {}", ended.stderr);
    }
}
