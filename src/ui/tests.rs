//! Whole builds, as each form shows them.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
};

use super::{Progress, ProgressMode, ReportOptions, report, style::Style, tty::Tty};
use crate::{
    engine::{BuildError, FailedStep, ProcessEnd},
    event::{BuildEvent, Outcome, StepId, Stream, Totals},
    graph::{Location, lower::LowerError},
};

/// A writer whose content can be looked at.
#[derive(Clone, Default)]
struct Screen(Arc<Mutex<Vec<u8>>>);

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn show(mode: ProgressMode, color: bool, events: &[(u64, BuildEvent)]) -> String {
    let screen = Screen::default();
    let progress = Progress::new(mode, color, Box::new(screen.clone()));
    for (ms, event) in events {
        progress.event(*ms, event);
    }
    let bytes = screen.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

fn started(step: usize, name: &str) -> BuildEvent {
    BuildEvent::StepStarted {
        step: StepId(step),
        name: name.into(),
        target: "ml (cpu, linux/amd64)".into(),
        why: None,
    }
}

fn log(step: usize, line: &str) -> BuildEvent {
    BuildEvent::StepLog {
        step: StepId(step),
        stream: Stream::Stdout,
        line: line.into(),
    }
}

fn finished(step: usize, name: &str, outcome: Outcome, layer: Option<u64>) -> BuildEvent {
    BuildEvent::StepFinished {
        step: StepId(step),
        name: name.into(),
        outcome,
        ms: 1234,
        recorded_ms: (outcome != Outcome::Ran).then_some(61_000),
        tier: (outcome == Outcome::ContentHit).then(|| "https://cache.example".to_owned()),
        layer_bytes: layer,
    }
}

fn transfer(current: u64) -> BuildEvent {
    BuildEvent::Transfer {
        what: "pulling debian:12".into(),
        current,
        total: Some(30_000_000),
    }
}

fn a_build() -> Vec<(u64, BuildEvent)> {
    let pip = "[ml 2/3] RUN pip install numpy";
    let copy = "[ml 3/3] COPY src /src";
    let base = "[base 1/1] RUN apt-get update";
    vec![
        (
            0,
            BuildEvent::Planned {
                steps: 3,
                targets: vec![
                    "ml (cpu, linux/amd64)".into(),
                    "app (cpu, linux/amd64)".into(),
                ],
            },
        ),
        (1, transfer(0)),
        (2, transfer(10_000_000)),
        (6000, transfer(20_000_000)),
        (6001, transfer(30_000_000)),
        (6002, transfer(30_000_000)),
        (6002, finished(1, base, Outcome::Hit, Some(1000))),
        (6010, started(2, pip)),
        (6322, log(2, "Collecting \u{1b}[1mnumpy\u{1b}[0m")),
        (6400, log(2, "::set-output name=token::stolen")),
        (6500, log(2, " 10%\r 50%\r100%")),
        (
            6600,
            BuildEvent::StepProgress {
                step: StepId(2),
                what: "unpacking sha256:0123456789ab".into(),
                current: 5_000_000,
                total: Some(10_000_000),
            },
        ),
        (
            6700,
            BuildEvent::Warning {
                message: "the cache directory is on a slow disk".into(),
                hint: Some("set MEMOBUILD_CACHE_DIR".into()),
            },
        ),
        (7244, finished(2, pip, Outcome::Ran, Some(33_600_000))),
        (7250, finished(3, copy, Outcome::ContentHit, None)),
        (
            7300,
            BuildEvent::Exported {
                target: "ml (cpu, linux/amd64)".into(),
                dest: ".memobuild-output/service-cpu-ml".into(),
                digest: "sha256:0123456789abcdef0123".into(),
                layers: 4,
                bytes: 64_000_000,
            },
        ),
        (
            7310,
            BuildEvent::Exported {
                target: "app (cpu, linux/amd64)".into(),
                dest: ".memobuild-output/service-cpu-app".into(),
                digest: "sha256:abcdef0123456789".into(),
                layers: 12,
                bytes: 164_000_000,
            },
        ),
        (
            7315,
            BuildEvent::NotWorthSaving {
                name: copy.into(),
                tier: "https://cache.example".into(),
                bytes: 1_200_000_000,
                step_ms: 2000,
                transfer_ms: 52_100,
            },
        ),
        (
            7318,
            BuildEvent::MountTooLarge {
                id: "/root/.cache".into(),
                bytes: 734_000_000,
                limit: 536_900_000,
            },
        ),
        (
            7318,
            BuildEvent::MountRestored {
                id: "pip".into(),
                tier: "https://cache.example".into(),
                scope: "protected".into(),
                bytes: 34_000_000,
                ms: 700,
            },
        ),
        (
            7318,
            BuildEvent::MountsSaved {
                mounts: 1,
                bytes: 34_000_000,
                new_bytes: 2_000_000,
            },
        ),
        (
            7318,
            BuildEvent::Saved {
                results: 5,
                bytes: 120_000_000,
                new_bytes: 38_000_000,
                left: 1,
                ms: 2100,
                waited_ms: 3,
            },
        ),
        (
            7320,
            BuildEvent::Finished {
                ok: true,
                totals: Totals {
                    ran: 1,
                    hits: 2,
                    step_ms: 1234,
                    saved_ms: 122_000,
                    bytes_fetched: 30_000_000,
                    bytes_written: 33_600_000,
                    cache_requests: 4,
                    wall_ms: 7320,
                },
            },
        ),
    ]
}

fn a_failure() -> Vec<(u64, BuildEvent)> {
    vec![
        (10, started(1, "[1/2] RUN make")),
        (20, log(1, "make: *** [all] Error 2")),
        (
            30,
            BuildEvent::StepFailed {
                step: StepId(1),
                name: "[1/2] RUN make".into(),
                reason: "process exited with code 2".into(),
                ms: 20,
            },
        ),
        (
            40,
            BuildEvent::StepCancelled {
                step: StepId(2),
                name: "[2/2] RUN make install".into(),
            },
        ),
        (
            50,
            BuildEvent::Finished {
                ok: false,
                totals: Totals {
                    wall_ms: 50,
                    ..Totals::default()
                },
            },
        ),
    ]
}

#[test]
fn plain() {
    insta::assert_snapshot!(show(ProgressMode::Plain, false, &a_build()), @r"
    building ml (cpu, linux/amd64), app (cpu, linux/amd64): 3 steps
    pulling debian:12 0 B of 30.0 MB
    pulling debian:12 20.0 MB of 30.0 MB
    pulling debian:12 30.0 MB
    #1 [base 1/1] RUN apt-get update
    #1 hit, saved 1m 01s
    #2 [ml 2/3] RUN pip install numpy
    #2 0.312 Collecting numpy
    #2 0.390 ::set-output name=token::stolen
    #2 0.490 100%
    #2 unpacking sha256:0123456789ab 5.0 MB of 10.0 MB
    warning: the cache directory is on a slow disk
    hint: set MEMOBUILD_CACHE_DIR
    #2 ran in 1.2s, layer 33.6 MB
    #3 [ml 3/3] COPY src /src
    #3 hit by content, saved 1m 01s, from https://cache.example
    not saved to https://cache.example: [ml 3/3] COPY src /src: bringing 1.2 GB there and back takes about 52.1s, the step took 2.0s
    cache mount /root/.cache not saved: it has 734.0 MB, `cache.mounts.max-size` is 536.9 MB
    ml (cpu, linux/amd64)   4 layers    64.0 MB  sha256:0123456789ab  .memobuild-output/service-cpu-ml
    app (cpu, linux/amd64)  12 layers  164.0 MB  sha256:abcdef012345  .memobuild-output/service-cpu-app
    saved 5 results, 120.0 MB (38.0 MB new) in 2.1s; 1 result left to the next build
    restored 1 cache mount, 34.0 MB
    saved 1 cache mount, 34.0 MB (2.0 MB new)
    3 steps: 1 ran, 2 hits in 7.3s (the cache saved 2m 02s); 30.0 MB fetched, 33.6 MB written
    ");
}

#[test]
fn plain_failure() {
    insta::assert_snapshot!(show(ProgressMode::Plain, false, &a_failure()), @r"
    #1 [1/2] RUN make
    #1 0.010 make: *** [all] Error 2
    #1 failed after 0.020s: process exited with code 2
    #2 [2/2] RUN make install
    #2 cancelled
    failed, 0 steps: 0 ran, 0 hits in 0.050s; 0 B fetched, 0 B written
    ");
}

#[test]
fn quiet_says_only_what_is_wrong() {
    insta::assert_snapshot!(show(ProgressMode::Quiet, false, &a_build()), @r"
    warning: the cache directory is on a slow disk
    hint: set MEMOBUILD_CACHE_DIR
    ");
    insta::assert_snapshot!(show(ProgressMode::Quiet, false, &a_failure()), @r"
    #1 [1/2] RUN make
    #1 failed after 0.020s: process exited with code 2
    ");
}

#[test]
fn json_is_one_object_a_line() {
    insta::assert_snapshot!(show(ProgressMode::Json, false, &a_failure()), @r#"
    {"v":1,"ms":10,"event":"step-started","step":1,"name":"[1/2] RUN make","target":"ml (cpu, linux/amd64)"}
    {"v":1,"ms":20,"event":"step-log","step":1,"stream":"stdout","line":"make: *** [all] Error 2"}
    {"v":1,"ms":30,"event":"step-failed","step":1,"name":"[1/2] RUN make","reason":"process exited with code 2","took_ms":20}
    {"v":1,"ms":40,"event":"step-cancelled","step":2,"name":"[2/2] RUN make install"}
    {"v":1,"ms":50,"event":"finished","ok":false,"totals":{"ran":0,"hits":0,"step_ms":0,"saved_ms":0,"bytes_fetched":0,"bytes_written":0,"cache_requests":0,"wall_ms":50}}
    "#);
}

#[test]
fn colour_adds_nothing_but_escape_sequences() {
    for events in [a_build(), a_failure()] {
        let plain = show(ProgressMode::Plain, false, &events);
        let colored = show(ProgressMode::Plain, true, &events);
        assert_ne!(plain, colored);
        let stripped: Vec<String> = colored.lines().map(super::harmless).collect();
        assert_eq!(stripped.join("\n"), plain.trim_end());
    }
}

/// Columns of the terminal in these tests.
const COLUMNS: usize = 80;

/// The lines that bars leave on a terminal.
fn left_on_terminal(events: &[(u64, BuildEvent)]) -> String {
    let screen = Screen::default();
    let mut tty = Tty::new(Box::new(screen.clone()), Style::new(false), || (80, 24));
    for (_, event) in events {
        tty.event(event);
    }
    let bytes = screen.0.lock().unwrap().clone();
    shown(std::str::from_utf8(&bytes).unwrap())
}

/// What a terminal shows after `text`, as far as indicatif needs one.
fn shown(text: &str) -> String {
    let mut cells: Vec<Vec<char>> = vec![Vec::new()];
    let (mut row, mut column) = (0, 0);
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match c {
            '\u{1b}' => {
                let end = rest.find(|c: char| c.is_alphabetic()).unwrap();
                let n: usize = rest[1..end].parse().unwrap();
                match &rest[end..=end] {
                    "A" => row -= n,
                    "B" => row += n,
                    "C" => column += n,
                    "K" => cells[row].clear(),
                    other => panic!("unexpected sequence {other}"),
                }
                rest = &rest[end + 1..];
            }
            '\n' => (row, column) = (row + 1, 0),
            '\r' => column = 0,
            c => {
                // A full line goes on in the next one when there is more.
                if column == COLUMNS {
                    (row, column) = (row + 1, 0);
                }
                cells.resize(cells.len().max(row + 1), Vec::new());
                let width = cells[row].len().max(column + 1);
                cells[row].resize(width, ' ');
                cells[row][column] = c;
                column += 1;
            }
        }
        cells.resize(cells.len().max(row + 1), Vec::new());
    }
    let lines = cells.iter().map(|line| line.iter().collect::<String>());
    let lines: Vec<String> = lines.map(|l| l.trim_end().to_owned()).collect();
    lines.join("\n").trim_end().to_owned()
}

#[test]
fn bars_leave_only_finished_lines() {
    insta::assert_snapshot!(left_on_terminal(&a_build()), @r"
    [base 1/1] RUN apt-get update: hit, saved 1m 01s
    warning: the cache directory is on a slow disk
    hint: set MEMOBUILD_CACHE_DIR
    [ml 2/3] RUN pip install numpy: ran in 1.2s, layer 33.6 MB
    [ml 3/3] COPY src /src: hit by content, saved 1m 01s, from https://cache.example
    not saved to https://cache.example: [ml 3/3] COPY src /src: bringing 1.2 GB ther
    e and back takes about 52.1s, the step took 2.0s
    cache mount /root/.cache not saved: it has 734.0 MB, `cache.mounts.max-size` is
    536.9 MB
    ml (cpu, linux/amd64)   4 layers    64.0 MB  sha256:0123456789ab  .memobuild-out
    put/service-cpu-ml
    app (cpu, linux/amd64)  12 layers  164.0 MB  sha256:abcdef012345  .memobuild-out
    put/service-cpu-app
    saved 5 results, 120.0 MB (38.0 MB new) in 2.1s; 1 result left to the next build
    restored 1 cache mount, 34.0 MB
    saved 1 cache mount, 34.0 MB (2.0 MB new)
    3 steps: 1 ran, 2 hits in 7.3s (the cache saved 2m 02s); 30.0 MB fetched, 33.6 M
    B written
    ");
    insta::assert_snapshot!(left_on_terminal(&a_failure()), @r"
    [1/2] RUN make: failed after 0.020s: process exited with code 2
    [2/2] RUN make install: cancelled
    failed, 0 steps: 0 ran, 0 hits in 0.050s; 0 B fetched, 0 B written
    ");
}

#[test]
fn bars_show_running_steps_and_transfers() {
    let until = |ms| {
        a_build()
            .into_iter()
            .filter(move |(at, _)| *at <= ms)
            .collect::<Vec<_>>()
    };
    insta::assert_snapshot!(left_on_terminal(&until(6000)), @r"
    pulling debian:12 [█████████████░░░░░░░] 20.0 MB of 30.0 MB
    ");
    let text = left_on_terminal(&until(6600));
    assert!(text.contains("[ml 2/3] RUN pip install numpy"), "{text}");
}

#[derive(Debug, thiserror::Error)]
#[error("step `RUN make` failed\nmake: \u{1b}[2Jall gone")]
struct StepError(#[source] io::Error);

#[test]
fn a_report_has_the_causes_and_is_harmless() {
    let error = StepError(io::Error::other("process exited with code 2"));
    let text = report(
        &error,
        ReportOptions {
            hint: Some("give it more time with `--step-timeout`"),
            ..ReportOptions::default()
        },
    );
    insta::assert_snapshot!(text, @r"
    error: step `RUN make` failed
      | make: all gone
      caused by: process exited with code 2
    hint: give it more time with `--step-timeout`
    ");
}

#[test]
fn a_report_shows_where_in_the_dockerfile() {
    let error = crate::dockerfile::parse("Dockerfile", "FROM scratch\nRUNN x\n").unwrap_err();
    insta::assert_snapshot!(report(&error, ReportOptions::default()), @r"
    error: unknown instruction `RUNN`
      --> Dockerfile:2:1
     1 | FROM scratch
     2 | RUNN x
    hint: did you mean `RUN`?
    ");
}

#[test]
fn a_report_shows_where_in_the_dockerfile_when_lowering_passes_it_on() {
    let error = crate::dockerfile::parse("Dockerfile", "FROM scratch\nRUNN x\n").unwrap_err();
    let direct = report(&error, ReportOptions::default());
    let passed_on = report(&LowerError::from(error), ReportOptions::default());
    assert_eq!(passed_on, direct);
}

fn a_failed_step() -> BuildError {
    BuildError::Step {
        step: Box::new(FailedStep {
            instruction: "RUN pip install -r requirements.txt".to_owned(),
            stage: "ml".to_owned(),
            location: Some(Location {
                file: "docker/cpu/Dockerfile.ml".into(),
                start: 14,
                end: 14,
            }),
            excerpt: " 13 | COPY requirements.txt .\n 14 | RUN pip install -r requirements.txt\n"
                .to_owned(),
        }),
        tail: [
            "Collecting nunpy",
            "##[error]no such \u{1b}[1mthing\u{1b}[0m",
            "::stop",
        ]
        .map(str::to_owned)
        .to_vec(),
        end: ProcessEnd::Code(1),
    }
}

#[test]
fn a_report_of_a_step_ends_with_its_output() {
    let options = |log_lines| ReportOptions {
        log_lines,
        ..ReportOptions::default()
    };
    insta::assert_snapshot!(report(&a_failed_step(), options(25)), @r"
    error: step `RUN pip install -r requirements.txt` failed in stage `ml`
      --> docker/cpu/Dockerfile.ml:14
     13 | COPY requirements.txt .
     14 | RUN pip install -r requirements.txt
      caused by: process exited with code 1
      the last 3 lines of its output:
      | Collecting nunpy
      | # #[error]no such thing
      | ::stop
    ");
    let short = report(&a_failed_step(), options(1));
    assert!(
        short.ends_with("  the last line of its output:\n  | ::stop\n"),
        "{short}"
    );
    let none = report(&a_failed_step(), options(0));
    assert!(none.ends_with("process exited with code 1\n"), "{none}");
}

#[test]
fn layers_of_the_http_client_are_left_out() {
    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Layer {
        text: &'static str,
        source: Option<Box<Layer>>,
    }
    let texts = [
        "refused",
        "tcp connect error",
        "client error (Connect)",
        "no way",
    ];
    let chain = texts
        .into_iter()
        .fold(None, |source, text| Some(Box::new(Layer { text, source })));
    insta::assert_snapshot!(report(&*chain.unwrap(), ReportOptions::default()), @r"
    error: no way
      caused by: refused
    ");
}

#[test]
fn no_field_of_an_event_is_there_twice() {
    for (_, event) in a_build().into_iter().chain(a_failure()) {
        let fields = serde_json::to_value(&event).unwrap();
        assert!(
            fields.get("v").is_none() && fields.get("ms").is_none(),
            "{fields}"
        );
    }
}
