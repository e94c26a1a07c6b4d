//! `--chmod`: octal and symbolic modes, with an empty umask.

use crate::graph::ModeChange;

/// A symbolic mode that does not parse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a mode such as `0755` or `u=rwX,go-w`")]
pub struct ModeError {
    text: String,
}

/// The permission bits that `change` makes of `mode` for a directory or another file.
pub(super) fn apply(change: &ModeChange, mode: u32, directory: bool) -> Result<u32, ModeError> {
    match change {
        ModeChange::Exact(exact) => Ok(*exact),
        ModeChange::Symbolic(text) => {
            symbolic(text, mode, directory).ok_or_else(|| ModeError { text: text.clone() })
        }
    }
}

/// A change of a symbolic mode, with the bits it may touch.
#[derive(Debug, Clone, Copy)]
enum Step {
    Set(u32),
    Clear(u32),
    /// `X`: these, if anyone may execute the file or it is a directory.
    SetIfExecutable(u32),
    /// The permissions of one class, by its shift, for the classes in `who`.
    Copy {
        from: u32,
        who: u32,
        operator: char,
    },
}

const SETUID: u32 = 0o4000;
const SETGID: u32 = 0o2000;
const STICKY: u32 = 0o1000;

/// Carries out a symbolic mode; none if it does not parse. The rules are those of BSD's
/// `setmode(3)`, as BuildKit has them: `X` looks at the file's first mode, `=` clears
/// setuid and setgid with their class but never the sticky bit, `t` without `u` or `g`
/// narrows what follows to the sticky bit, and `o` with `s` or `t` does nothing.
fn symbolic(text: &str, mode: u32, directory: bool) -> Option<u32> {
    let mut now = mode;
    for step in steps(text)? {
        match step {
            Step::Set(bits) => now |= bits,
            Step::Clear(bits) => now &= !bits,
            Step::SetIfExecutable(bits) if directory || mode & 0o111 != 0 => now |= bits,
            Step::SetIfExecutable(_) => {}
            Step::Copy {
                from,
                who,
                operator,
            } => {
                let spread = |class: u32| {
                    [0o100, 0o010, 0o001]
                        .iter()
                        .filter(|unit| who & (**unit * 4) != 0)
                        .map(|unit| class * unit)
                        .sum::<u32>()
                };
                let value = spread(now >> from & 7);
                match operator {
                    '+' => now |= value,
                    '-' => now &= !value,
                    _ => now = now & !spread(7) | value,
                }
            }
        }
    }
    Some(now)
}

fn steps(text: &str) -> Option<Vec<Step>> {
    let mut steps = Vec::new();
    for clause in text.split(',') {
        let (who, mut rest) = clause.split_at(clause.find(['+', '-', '='])?);
        let mut who = who.chars().try_fold(0, |bits, class| {
            Some(
                bits | match class {
                    'u' => SETUID | 0o700,
                    'g' => SETGID | 0o070,
                    'o' => 0o007,
                    'a' => SETUID | SETGID | 0o777,
                    _ => return None,
                },
            )
        })?;
        while let Some(operator) = rest.chars().next() {
            rest = &rest[1..];
            let end = rest.find(['+', '-', '=']).unwrap_or(rest.len());
            let (permissions, tail) = rest.split_at(end);
            rest = tail;
            who &= !STICKY;
            operation(&mut steps, operator, &mut who, permissions)?;
        }
    }
    Some(steps)
}

/// Adds what one operator and the letters behind it do. An empty `who` stands for all.
fn operation(
    steps: &mut Vec<Step>,
    operator: char,
    who: &mut u32,
    permissions: &str,
) -> Option<()> {
    let (mut bits, mut if_executable) = (0, 0);
    // Whether `=` has cleared what it replaces.
    let mut replaced = false;
    for letter in permissions.chars() {
        let special = *who == 0 || *who & !0o007 != 0;
        match letter {
            'r' => bits |= 0o444,
            'w' => bits |= 0o222,
            'x' => bits |= 0o111,
            'X' if operator == '-' => bits |= 0o111,
            'X' => if_executable = 0o111,
            's' if special => bits |= SETUID | SETGID,
            't' if special => {
                *who |= STICKY;
                bits |= STICKY;
            }
            's' | 't' => {}
            'u' | 'g' | 'o' => {
                if bits != 0 {
                    change(steps, operator, *who, bits);
                    bits = 0;
                }
                replaced = true;
                if if_executable != 0 {
                    steps.push(Step::SetIfExecutable(masked(*who, if_executable)));
                    if_executable = 0;
                }
                let from = match letter {
                    'u' => 6,
                    'g' => 3,
                    _ => 0,
                };
                let who = if *who == 0 { 0o777 } else { *who };
                steps.push(Step::Copy {
                    from,
                    who,
                    operator,
                });
            }
            _ => return None,
        }
    }
    if bits != 0 || operator == '=' && !replaced {
        change(steps, operator, *who, bits);
    }
    if if_executable != 0 {
        steps.push(Step::SetIfExecutable(masked(*who, if_executable)));
    }
    Some(())
}

fn change(steps: &mut Vec<Step>, operator: char, who: u32, bits: u32) {
    match operator {
        '-' => steps.push(Step::Clear(masked(who, bits))),
        '+' => steps.push(Step::Set(masked(who, bits))),
        _ => {
            let all = SETUID | SETGID | 0o777;
            steps.push(Step::Clear(if who == 0 { all } else { who }));
            steps.push(Step::Set(masked(who, bits)));
        }
    }
}

fn masked(who: u32, bits: u32) -> u32 {
    if who == 0 { bits } else { who & bits }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbolic_modes() {
        let cases = [
            ("u+x", 0o644, false, 0o744),
            ("go-w", 0o666, false, 0o644),
            ("a=r", 0o755, false, 0o444),
            ("+x", 0o644, false, 0o755),
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("u=rwX,go=rX", 0o700, true, 0o755),
            ("g=u", 0o750, false, 0o770),
            ("u+s", 0o755, false, 0o4755),
            ("g+s,u+t,o+t,o+s", 0o755, false, 0o3755),
            ("a=rx", 0o7644, false, 0o1555),
            ("g=gu", 0o640, false, 0o660),
            ("+xt", 0o644, false, 0o1644),
            ("u+x,go+X", 0o644, false, 0o744),
            ("=", 0o7755, false, 0o1000),
            ("u=rw,u+x-w", 0o000, false, 0o500),
        ];
        for (text, mode, directory, expected) in cases {
            let change = ModeChange::Symbolic(text.to_owned());
            assert_eq!(apply(&change, mode, directory), Ok(expected), "{text}");
        }
        for text in ["", "x", "u", "q+x", "u+q", "u~x", "u+x,"] {
            let change = ModeChange::Symbolic(text.to_owned());
            assert!(apply(&change, 0o644, false).is_err(), "{text}");
        }
    }
}
