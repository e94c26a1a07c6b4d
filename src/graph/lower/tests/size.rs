//! Large Dockerfiles: time in proportion to their length.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::build;

#[path = "../../../../benches/lower/text.rs"]
mod text;

/// This thread's processor time.
fn now() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap()
}

/// The shortest of three runs: others may keep the processor's caches busy.
fn seconds(text: &str) -> f64 {
    let run = || {
        let start = now();
        let (graph, _) = build(text, &[]);
        assert!(graph.vertices.len() > text.lines().count() / 4);
        now() - start
    };
    (0..3).map(|_| run()).min().unwrap().as_secs_f64()
}

/// Lowers Dockerfiles of one kind, one eight times as long as the other: it takes eight times
/// as long where it is linear, and 64 times where it is quadratic. A busy machine can spoil one
/// round.
fn grows_with_the_length(text: fn(usize) -> String, short: usize) {
    let (small, large) = (text(short), text(short * 8));
    let mut seen = Vec::new();
    for _ in 0..5 {
        let (few, many) = (seconds(&small), seconds(&large));
        if many / few < 24.0 {
            return;
        }
        seen.push((few, many));
    }
    panic!("seconds for {short} and eight times as many: {seen:?}");
}

#[test]
fn time_grows_with_the_lines() {
    grows_with_the_length(text::large_dockerfile, 1_000);
}

#[test]
fn time_grows_with_the_variables() {
    grows_with_the_length(text::many_variables, 500);
}

#[test]
fn time_grows_with_the_stages() {
    grows_with_the_length(text::many_stages, 250);
}
