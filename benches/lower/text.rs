//! Large Dockerfiles, for measuring; the tests of lowering use them too.

use std::fmt::Write as _;

/// A Dockerfile of this many lines: variables, steps, stages on stages, copies between them.
pub(crate) fn large_dockerfile(lines: usize) -> String {
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
