//! How long reading and lowering large Dockerfiles takes: `cargo bench --bench lower`.

#![expect(clippy::print_stdout, reason = "it is a program that prints a table")]

mod text;

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use memobuild_ci::{
    dockerfile::parse,
    graph::{BuildGraph, ImageTable, LowerInput, lower},
    oci::Platform,
};

/// The median of the runs.
fn median(runs: usize, mut run: impl FnMut()) -> Duration {
    let mut times: Vec<Duration> = (0..runs)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed()
        })
        .collect();
    times.sort();
    times[runs / 2]
}

fn main() {
    println!("| lines | parse, ms | parse and lower, ms |");
    println!("|---|---|---|");
    for lines in [1_250, 2_500, 5_000, 10_000] {
        let text = text::large_dockerfile(lines);
        let parsing = median(15, || {
            black_box(parse("Dockerfile", &text).is_ok());
        });
        let both = median(15, || {
            let dockerfile = parse("Dockerfile", &text).expect("the text is a Dockerfile");
            let input = LowerInput::of(&dockerfile, Platform::host());
            let mut graph = BuildGraph::default();
            lower(&mut graph, &input, &ImageTable::new()).expect("it can be lowered");
            black_box(graph.vertices.len());
        });
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        println!("| {lines} | {:.2} | {:.2} |", ms(parsing), ms(both));
    }
}
