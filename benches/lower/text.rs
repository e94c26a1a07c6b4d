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

/// A Dockerfile with this many variables, each followed by a step.
pub(crate) fn many_variables(count: usize) -> String {
    let mut text = String::from("FROM scratch\n");
    for number in 0..count {
        let _ = writeln!(text, "ENV NAME{number}=value\nRUN make target{number}");
    }
    text
}

/// A Dockerfile with this many stages: each second one starts from the second before it, the
/// others stand beside these, and the last one copies from all of them.
pub(crate) fn many_stages(count: usize) -> String {
    let mut text = String::from("FROM scratch AS stage0\n");
    for number in 1..count / 2 {
        let _ = writeln!(
            text,
            "FROM stage{} AS stage{number}\nENV NAME{number}=value\nLABEL label{number}=value\n\
             FROM stage{number} AS side{number}\nENV SIDE=value\nRUN make target{number}",
            number - 1
        );
    }
    let _ = writeln!(text, "FROM stage{}", (count / 2).saturating_sub(1));
    for number in 1..count / 2 {
        let _ = writeln!(text, "COPY --from=side{number} /a /b{number}");
    }
    text
}
