//! Large Dockerfiles: time in proportion to their length.

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use super::build;

/// A Dockerfile of this many lines: variables, steps, stages on stages, copies between them.
fn text(lines: usize) -> String {
    let mut text = String::from("FROM scratch AS stage0\n");
    let mut stage = 0;
    for line in 1..lines {
        match line % 20 {
            0 => {
                stage += 1;
                let _ = writeln!(text, "FROM stage{} AS stage{stage}", stage - 1);
            }
            1 | 11 => {
                let _ = writeln!(text, "ENV NAME{line}=value${{NAME1}}");
            }
            2 | 12 => {
                let _ = writeln!(text, "LABEL label{line}=\"${{NAME{}}}\"", line - 1);
            }
            5 if line % 200 == 5 => {
                let _ = writeln!(text, "USER $UNKNOWN{line}");
            }
            3 => {
                let _ = writeln!(text, "ARG ARGUMENT{}=1", line % 100);
            }
            4 | 8 if stage > 0 => {
                let _ = writeln!(text, "COPY --from=stage{} /a /b{line}", stage - 1);
            }
            _ => {
                let _ = writeln!(text, "RUN make target{line} && make install");
            }
        }
    }
    text
}

/// The shortest of three runs: others may keep the processor busy.
fn seconds(lines: usize) -> Duration {
    let text = text(lines);
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
