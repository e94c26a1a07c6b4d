//! What people ask for in commit messages and labels: `[memobuild rebuild=ml]`.
//!
//! In a message any number of `[memobuild WORD…]` may stand, on lines of their own or not; a trailer
//! `Memobuild: WORD…` does the same. Words: `rebuild` (everything), `rebuild=NAME,…`, `skip=NAME,…`. A
//! label is `memobuild:rebuild`, `memobuild:rebuild=NAME` or `memobuild:skip=NAME`. Whatever else
//! stands there is left alone, with a warning where it is addressed to us. Names are compared with
//! those of layers and targets, and never used for anything else.

use super::Forced;

/// What a text asks for, and what in it nobody understands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// What was understood.
    pub forced: Forced,
    /// Words that were not.
    pub unknown: Vec<String>,
}

impl Asked {
    /// Adds what a commit message asks for.
    pub fn message(&mut self, text: &str) {
        let mut rest = text;
        while let Some((_, tail)) = rest.split_once("[memobuild ") {
            let Some((words, after)) = tail.split_once(']') else {
                break;
            };
            // Over the end of a line it is text.
            if !words.contains('\n') {
                self.words(words);
            }
            rest = after;
        }
        for line in text.lines() {
            let Some((name, words)) = line.split_once(':') else {
                continue;
            };
            if name.eq_ignore_ascii_case("memobuild") {
                self.words(words);
            }
        }
    }

    /// Adds what a label asks for.
    pub fn label(&mut self, label: &str) {
        if let Some(words) = label.strip_prefix("memobuild:") {
            self.words(words);
        }
    }

    fn words(&mut self, words: &str) {
        for word in words.split_whitespace() {
            let names = |list: &str| -> Vec<String> {
                let names = list.split(',').map(str::trim);
                names
                    .filter(|name| !name.is_empty())
                    .map(str::to_owned)
                    .collect()
            };
            match word.split_once('=') {
                None if word == "rebuild" => {
                    self.forced.rebuild.insert("*".to_owned());
                }
                Some(("rebuild", list)) => self.forced.rebuild.extend(names(list)),
                Some(("skip", list)) => self.forced.skip.extend(names(list)),
                _ => self.unknown.push(word.to_owned()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(text: &str) -> Asked {
        let mut asked = Asked::default();
        asked.message(text);
        asked
    }

    #[test]
    fn words_of_a_message_are_found_wherever_they_stand() {
        let found =
            asked("fix [memobuild rebuild=ml,base] things\n\nbody\n\nMemobuild: skip=app\n");
        let names = |set: &std::collections::BTreeSet<String>| {
            set.iter().cloned().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(names(&found.forced.rebuild), "base ml");
        assert_eq!(names(&found.forced.skip), "app");
        assert!(found.unknown.is_empty());
        assert_eq!(names(&asked("[memobuild rebuild]").forced.rebuild), "*");
    }

    #[test]
    fn what_is_not_understood_is_told_and_what_is_not_ours_is_left() {
        assert_eq!(asked("[memobuild destroy=all]").unknown, ["destroy=all"]);
        assert_eq!(asked("[memobuild rebuild=a\nb]"), Asked::default());
        assert_eq!(asked("[memobuild rebuild=a"), Asked::default());
        assert_eq!(asked("a memobuild rebuild=ml"), Asked::default());
        let mut label = Asked::default();
        label.label("memobuild:rebuild=ml");
        label.label("kind/bug");
        assert_eq!(label.forced.rebuild.len(), 1);
        assert!(label.unknown.is_empty());
    }
}
