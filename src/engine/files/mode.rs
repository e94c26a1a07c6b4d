//! `--chmod`: octal and symbolic modes, as `chmod(1)` reads them with an empty umask.

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

fn symbolic(text: &str, mut mode: u32, directory: bool) -> Option<u32> {
    for clause in text.split(',') {
        let actions = clause.find(['+', '-', '='])?;
        let (who, mut rest) = clause.split_at(actions);
        let who = match who {
            "" => 0o777,
            _ => who.chars().try_fold(0, |bits, c| {
                Some(
                    bits | match c {
                        'u' => 0o700,
                        'g' => 0o070,
                        'o' => 0o007,
                        'a' => 0o777,
                        _ => return None,
                    },
                )
            })?,
        };
        while let Some(operator) = rest.chars().next() {
            rest = &rest[1..];
            let end = rest.find(['+', '-', '=']).unwrap_or(rest.len());
            let (permissions, tail) = rest.split_at(end);
            rest = tail;
            let bits = permission_bits(permissions, who, mode, directory)?;
            // setuid belongs to the user, setgid to the group, sticky to all.
            let special = (if who & 0o700 != 0 { 0o4000 } else { 0 })
                | (if who & 0o070 != 0 { 0o2000 } else { 0 })
                | (if who & 0o007 != 0 { 0o1000 } else { 0 });
            match operator {
                '+' => mode |= bits,
                '-' => mode &= !bits,
                '=' => mode = (mode & !(who | special)) | bits,
                _ => return None,
            }
        }
    }
    Some(mode)
}

/// The bits that `permissions` names for the classes in `who`.
fn permission_bits(permissions: &str, who: u32, mode: u32, directory: bool) -> Option<u32> {
    // A class letter copies that class's bits to all classes of `who`.
    let copied = match permissions {
        "u" => Some(mode >> 6 & 7),
        "g" => Some(mode >> 3 & 7),
        "o" => Some(mode & 7),
        _ => None,
    };
    if let Some(class) = copied {
        return Some((class * 0o111) & who);
    }
    permissions.chars().try_fold(0, |bits, c| {
        Some(
            bits | match c {
                'r' => who & 0o444,
                'w' => who & 0o222,
                'x' => who & 0o111,
                'X' if directory || mode & 0o111 != 0 => who & 0o111,
                'X' => 0,
                's' => {
                    (if who & 0o700 != 0 { 0o4000 } else { 0 })
                        | (if who & 0o070 != 0 { 0o2000 } else { 0 })
                }
                't' => 0o1000,
                _ => return None,
            },
        )
    })
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
            ("g+s,o+t", 0o755, false, 0o3755),
            ("u=rw,u+x-w", 0o000, false, 0o500),
        ];
        for (text, mode, directory, expected) in cases {
            let change = ModeChange::Symbolic(text.to_owned());
            assert_eq!(apply(&change, mode, directory), Ok(expected), "{text}");
        }
        for text in ["", "x", "u", "q+x", "u+q", "u~x"] {
            let change = ModeChange::Symbolic(text.to_owned());
            assert!(apply(&change, 0o644, false).is_err(), "{text}");
        }
    }
}
