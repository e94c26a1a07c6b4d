//! What may have been meant by a wrong word.

pub(super) use crate::dockerfile::nearest;

/// A hint for an unknown key: the nearest known one, else all of them.
pub(super) fn key(key: &str, known: &[&str]) -> String {
    match nearest(&key.replace('_', "-"), known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("known here: {}", list(known)),
    }
}

/// `` `a`, `b`, `c` ``.
pub(super) fn list<S: AsRef<str>>(words: &[S]) -> String {
    let words: Vec<String> = words.iter().map(|w| format!("`{}`", w.as_ref())).collect();
    words.join(", ")
}
