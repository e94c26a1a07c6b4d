//! The nearest right word for a wrong one.

/// The candidate with the smallest edit distance from `word` (letter case aside), if
/// it is near enough to be what was meant: at most half its length, and 3.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word: Vec<char> = word.to_lowercase().chars().collect();
    let (mut chars, mut row) = (Vec::new(), Vec::new());
    candidates
        .into_iter()
        .filter_map(|candidate| {
            chars.clear();
            if candidate.is_ascii() {
                chars.extend(candidate.chars().map(|c| c.to_ascii_lowercase()));
            } else {
                chars.extend(candidate.to_lowercase().chars());
            }
            // Most words of a foreign text are out of reach by length alone.
            if word.len().abs_diff(chars.len()) > 3 {
                return None;
            }
            let limit = (chars.len() / 2).clamp(1, 3);
            Some((distance(&word, &chars, &mut row, limit)?, candidate))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance, with one row; none if it is more than `limit`.
fn distance(a: &[char], b: &[char], row: &mut Vec<usize>, limit: usize) -> Option<usize> {
    row.clear();
    row.extend(0..=b.len());
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        let mut least = row[0];
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
            least = least.min(row[j + 1]);
        }
        // It never gets less from row to row.
        if least > limit {
            return None;
        }
    }
    Some(row[b.len()]).filter(|distance| *distance <= limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_found_and_far_ones_not() {
        let words = ["RUN", "COPY", "ENTRYPOINT", "WORKDIR"];
        for (wrong, right) in [
            ("RUNN", Some("RUN")),
            ("cpoy", Some("COPY")),
            ("COPPY", Some("COPY")),
            ("ENTRYPONIT", Some("ENTRYPOINT")),
            ("WRKDIR", Some("WORKDIR")),
            ("apt-get", None),
        ] {
            assert_eq!(nearest(wrong, words), right, "{wrong}");
        }
    }
}
