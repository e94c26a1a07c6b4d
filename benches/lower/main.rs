//! How long reading and lowering large Dockerfiles takes: `cargo bench --bench lower`.
//!
//! It is processor time, which others on the machine change less than they do the clock's.

#![expect(clippy::print_stdout, reason = "it is a program that prints a table")]

mod text;

use std::hint::black_box;

use memobuild_ci::{
    dockerfile::parse,
    graph::{BuildGraph, ImageTable, LowerInput, lower},
    oci::Platform,
};
use rustix::time::{ClockId, clock_gettime};

/// This thread's processor time, in milliseconds.
fn now() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
}

/// The median of the runs, in milliseconds.
fn median(runs: usize, mut run: impl FnMut()) -> f64 {
    let mut times: Vec<f64> = (0..runs)
        .map(|_| {
            let start = now();
            run();
            now() - start
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[runs / 2]
}

fn row(name: &str, text: &str) {
    let parsing = median(15, || {
        black_box(parse("Dockerfile", text).is_ok());
    });
    let both = median(15, || {
        let dockerfile = parse("Dockerfile", text).expect("the text is a Dockerfile");
        let input = LowerInput::of(&dockerfile, Platform::host());
        let mut graph = BuildGraph::default();
        lower(&mut graph, &input, &ImageTable::new()).expect("it can be lowered");
        black_box(graph.vertices.len());
    });
    println!("| {name} | {parsing:.1} | {both:.1} |");
}

fn main() {
    println!("| Dockerfile | parse, ms | parse and lower, ms |");
    println!("|---|---|---|");
    for lines in [1_250, 2_500, 5_000, 10_000, 20_000] {
        let text = text::large_dockerfile(lines);
        row(&format!("{lines} lines"), &text);
    }
    for count in [5_000, 10_000] {
        let text = text::many_variables(count);
        row(&format!("{count} variables"), &text);
    }
    for count in [2_000, 4_000] {
        let text = text::many_stages(count);
        row(&format!("{count} stages"), &text);
    }
}
