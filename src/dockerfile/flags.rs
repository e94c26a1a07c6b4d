//! The flags of an instruction: `--name` and `--name=value` before its arguments.

use super::{
    error::{DockerfileError, Problem},
    lines::Line,
    source::Source,
    suggest::nearest,
};

/// A flag as written.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Flag {
    /// With the dashes.
    name: String,
    value: Option<String>,
    /// Offset in the line.
    at: usize,
}

/// The flags of one instruction. Each accessor takes its flag out; [`Flags::finish`]
/// then complains about the rest.
pub(super) struct Flags<'a> {
    source: &'a Source,
    line: &'a Line,
    keyword: &'a str,
    flags: Vec<Flag>,
    known: Vec<&'static str>,
}

impl<'a> Flags<'a> {
    /// Splits the text of `line` from offset `at` on into flags and the offset where
    /// the arguments start.
    pub(super) fn split(
        source: &'a Source,
        line: &'a Line,
        keyword: &'a str,
        mut at: usize,
        escape: char,
    ) -> (Self, usize) {
        let mut flags = Vec::new();
        loop {
            let rest = &line.text[at..];
            at += rest.len() - rest.trim_start().len();
            let rest = &line.text[at..];
            if !rest.starts_with("--") {
                break;
            }
            let (word, length) = flag_word(rest, escape);
            if word == "--" {
                at += length;
                let rest = &line.text[at..];
                at += rest.len() - rest.trim_start().len();
                break;
            }
            let (name, value) = match word.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (word, None),
            };
            flags.push(Flag { name, value, at });
            at += length;
        }
        let flags = Self {
            source,
            line,
            keyword,
            flags,
            known: Vec::new(),
        };
        (flags, at)
    }

    fn fail(&self, at: usize, problem: Problem) -> DockerfileError {
        DockerfileError::new(self.source, self.line.at(at), problem)
    }

    fn take(&mut self, name: &'static str) -> Result<Option<Flag>, DockerfileError> {
        let mut all = self.take_all(name);
        match all.len() {
            0 | 1 => Ok(all.pop()),
            _ => Err(self.fail(
                all[1].at,
                Problem::DuplicateFlag {
                    keyword: self.keyword.to_owned(),
                    flag: name.to_owned(),
                },
            )),
        }
    }

    fn take_all(&mut self, name: &'static str) -> Vec<Flag> {
        // The known ones are told to whoever wrote an unknown one.
        if self.flags.is_empty() {
            return Vec::new();
        }
        self.known.push(name);
        let (taken, rest) = std::mem::take(&mut self.flags)
            .into_iter()
            .partition(|f| f.name == name);
        self.flags = rest;
        taken
    }

    fn value_of(&self, flag: Flag) -> Result<String, DockerfileError> {
        flag.value.ok_or_else(|| {
            self.fail(
                flag.at,
                Problem::FlagWithoutValue {
                    keyword: self.keyword.to_owned(),
                    flag: flag.name.clone(),
                },
            )
        })
    }

    /// A flag with a value, at most once.
    pub(super) fn value(&mut self, name: &'static str) -> Result<Option<String>, DockerfileError> {
        self.take(name)?.map(|f| self.value_of(f)).transpose()
    }

    /// A flag with a value that must be read.
    pub(super) fn parsed<T>(
        &mut self,
        name: &'static str,
        expected: &'static str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, DockerfileError> {
        let Some(flag) = self.take(name)? else {
            return Ok(None);
        };
        let at = flag.at;
        let value = self.value_of(flag)?;
        match read(&value) {
            Some(read) => Ok(Some(read)),
            None => Err(self.fail(
                at,
                Problem::FlagValue {
                    flag: name.to_owned(),
                    value,
                    expected,
                },
            )),
        }
    }

    /// A flag with a value, any number of times; with the offset of each.
    pub(super) fn values(
        &mut self,
        name: &'static str,
    ) -> Result<Vec<(String, usize)>, DockerfileError> {
        self.take_all(name)
            .into_iter()
            .map(|f| {
                let at = f.at;
                Ok((self.value_of(f)?, at))
            })
            .collect()
    }

    /// `--name`, `--name=true` or `--name=false`.
    pub(super) fn switch(&mut self, name: &'static str) -> Result<Option<bool>, DockerfileError> {
        let Some(flag) = self.take(name)? else {
            return Ok(None);
        };
        match flag
            .value
            .as_deref()
            .map(str::to_ascii_lowercase)
            .as_deref()
        {
            None | Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(_) => Err(self.fail(
                flag.at,
                Problem::FlagValue {
                    flag: flag.name.clone(),
                    value: flag.value.clone().unwrap_or_default(),
                    expected: "`true` or `false`",
                },
            )),
        }
    }

    /// The flags mean nothing, as BuildKit has it for a few instructions.
    pub(super) fn ignore(self) {}

    /// All flags must have been taken.
    pub(super) fn finish(self) -> Result<(), DockerfileError> {
        let Some(flag) = self.flags.first() else {
            return Ok(());
        };
        let hint = match nearest(&flag.name, self.known.iter().copied()) {
            Some(known) => Some(format!("did you mean `{known}`?")),
            None if self.known.is_empty() => Some(format!("`{}` has no flags", self.keyword)),
            None => Some(format!("it has `{}`", self.known.join("`, `"))),
        };
        let problem = Problem::UnknownFlag {
            keyword: self.keyword.to_owned(),
            flag: flag.name.clone(),
        };
        Err(self.fail(flag.at, problem).with_hint(hint))
    }
}

/// The flag at the start of `text`, unquoted, and its length in `text`.
fn flag_word(text: &str, escape: char) -> (String, usize) {
    let mut word = String::new();
    let mut quote: Option<char> = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match quote {
            None if c.is_whitespace() => return (word, at),
            Some(open) if c == open => quote = None,
            None if c == '\'' || c == '"' => quote = Some(c),
            _ if c == escape => {
                if let Some((_, next)) = chars.next() {
                    word.push(next);
                }
            }
            _ => word.push(c),
        }
    }
    (word, text.len())
}
