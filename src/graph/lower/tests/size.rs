//! Large Dockerfiles: time in proportion to their length.

use std::time::{Duration, Instant};

use super::build;

#[path = "../../../../benches/lower/text.rs"]
mod text;

/// The shortest of three runs: others may keep the processor busy.
fn seconds(lines: usize) -> Duration {
    let text = text::large_dockerfile(lines);
    let run = || {
        let start = Instant::now();
        let (graph, _) = build(&text, &[]);
        assert!(graph.vertices.len() > lines / 2);
        start.elapsed()
    };
    (0..3).map(|_| run()).min().unwrap()
}

#[test]
fn time_grows_with_the_length_not_with_its_square() {
    // 8 where it is linear, 64 where it is quadratic. A busy machine can spoil one round.
    let mut seen = Vec::new();
    for _ in 0..5 {
        let (short, long) = (seconds(1_000), seconds(8_000));
        if long.as_secs_f64() / short.as_secs_f64() < 24.0 {
            return;
        }
        seen.push((short, long));
    }
    panic!("for 1,000 and 8,000 lines: {seen:?}");
}
