//! From physical lines to instructions: directives, comments, continuations, heredocs.

use super::{
    ast::Heredoc,
    error::{DockerfileError, Problem},
    source::{Source, Span, find_word},
    suggest::nearest,
    words,
};

/// One instruction with everything that belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// The instruction, continuations joined, without surrounding spaces.
    pub(super) text: String,
    /// All its lines, heredocs included.
    pub(super) span: Span,
    /// Its heredocs, in order.
    pub(super) heredocs: Vec<Heredoc>,
    /// The comments before it, without `#`.
    pub(super) comments: Vec<String>,
    /// The last line, heredocs aside, if there is an empty one between its lines, which
    /// will be an error one day. BuildKit reports this place.
    pub(super) empty_line: Option<usize>,
    /// For each physical line: its offset in `text`, its number, its column.
    pieces: Vec<(usize, usize, usize)>,
}

impl Line {
    /// The span with the column of this byte of `text`, and that line alone if it
    /// isn't the first.
    pub(super) fn at(&self, offset: usize) -> Span {
        let piece = self
            .pieces
            .iter()
            .rev()
            .find(|(start, ..)| *start <= offset);
        let Some((start, line, column)) = piece else {
            return self.span;
        };
        let before = self.text.get(*start..offset).unwrap_or_default();
        Span {
            start: *line,
            end: if *line == self.span.start {
                self.span.end
            } else {
                *line
            },
            column: column + before.chars().count(),
        }
    }

    /// The span for a word of `text`, wherever it stands first.
    pub(super) fn find(&self, word: &str) -> Span {
        find_word(&self.text, word).map_or(self.span, |at| self.at(at))
    }
}

/// A file taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lines {
    /// `# escape=`.
    pub(super) escape: char,
    /// `# syntax=`.
    pub(super) syntax: Option<String>,
    /// A comment at the top that was probably meant as a directive: its line, its name,
    /// the directive's.
    pub(super) misspelt: Option<(usize, String, &'static str)>,
    /// The instructions.
    pub(super) lines: Vec<Line>,
}

/// Takes the file apart.
pub(super) fn read(source: &Source) -> Result<Lines, DockerfileError> {
    let text = source.text.strip_prefix('\u{feff}').unwrap_or(&source.text);
    let mut reader = Reader {
        source,
        physical: text.split_inclusive('\n').collect(),
        next: 0,
        escape: '\\',
        directives: 0,
    };
    let syntax = reader.directives()?;
    let misspelt = reader.misspelt();
    let mut lines = Vec::new();
    while let Some(line) = reader.line()? {
        lines.push(line);
    }
    Ok(Lines {
        escape: reader.escape,
        syntax,
        misspelt,
        lines,
    })
}

struct Reader<'a> {
    source: &'a Source,
    /// With their line ends.
    physical: Vec<&'a str>,
    /// Index of the next line to read.
    next: usize,
    escape: char,
    /// Lines at the top that are directives.
    directives: usize,
}

impl<'a> Reader<'a> {
    /// Reads the directives at the top; gives the frontend's name. They end at the
    /// first line that isn't one.
    fn directives(&mut self) -> Result<Option<String>, DockerfileError> {
        let mut syntax = None;
        let mut seen: Vec<String> = Vec::new();
        self.foreign_syntax()?;
        for (number, line) in (1..).zip(&self.physical) {
            let Some((name, value)) = directive(line, "#") else {
                break;
            };
            let span = Span {
                start: number,
                end: number,
                column: 1,
            };
            let span = self.source.find(span, value.trim()).unwrap_or(span);
            let fail = |problem| Err(DockerfileError::new(self.source, span, problem));
            if seen.contains(&name) {
                return fail(Problem::DuplicateDirective { directive: name });
            }
            match name.as_str() {
                "escape" => match value {
                    "\\" => self.escape = '\\',
                    "`" => self.escape = '`',
                    _ => {
                        return fail(Problem::Escape {
                            value: value.to_owned(),
                        });
                    }
                },
                "syntax" if is_builtin_frontend(value) => syntax = Some(value.to_owned()),
                "syntax" => return Err(self.other_frontend(span, value)),
                // Which lint rules to skip: nothing that changes the image.
                _ => {}
            }
            seen.push(name);
            self.directives = number;
        }
        Ok(syntax)
    }

    /// The first line that isn't a directive, if it looks like a misspelt one.
    fn misspelt(&self) -> Option<(usize, String, &'static str)> {
        let mut lines = (1..).zip(&self.physical);
        let (number, line) = lines.find(|(_, line)| directive(line, "#").is_none())?;
        let (name, value) = line.trim().strip_prefix('#')?.split_once('=')?;
        let name = name.trim();
        let near = nearest(name, DIRECTIVES).filter(|_| !value.trim().is_empty())?;
        Some((number, name.to_owned(), near))
    }

    /// A frontend may also be named behind `#!`, behind `//`, or in a JSON object, all in
    /// files that are no Dockerfiles to us, unless it is the built-in one.
    fn foreign_syntax(&self) -> Result<(), DockerfileError> {
        let shebang = usize::from(self.physical.first().is_some_and(|l| l.starts_with("#!")));
        let syntax = |mark| {
            let lines = (1..).zip(&self.physical).skip(shebang);
            let mut directives = lines.map_while(|(n, l)| Some((n, directive(l, mark)?)));
            directives.find(|(_, (name, _))| name == "syntax")
        };
        let (number, value) = match (syntax("#").filter(|_| shebang > 0), syntax("//")) {
            (Some((number, (_, value))), _) | (None, Some((number, (_, value)))) => {
                (number, value.to_owned())
            }
            (None, None) => match self.json_syntax(shebang) {
                Some(value) => (1 + shebang, value),
                None => return Ok(()),
            },
        };
        if is_builtin_frontend(&value) {
            return Ok(());
        }
        let span = Span {
            start: number,
            end: number,
            column: 1,
        };
        Err(self.other_frontend(span, &value))
    }

    fn json_syntax(&self, shebang: usize) -> Option<String> {
        let first = self.physical.get(shebang)?;
        if !first.trim_start().starts_with('{') {
            return None;
        }
        let text: String = self.physical[shebang..].concat();
        let value: serde_json::Value = serde_json::from_str(&text).ok()?;
        Some(value.get("syntax")?.as_str()?.to_owned())
    }

    fn other_frontend(&self, span: Span, value: &str) -> DockerfileError {
        let name = value.split(' ').next().unwrap_or_default();
        let end = name.find([':', '@']).unwrap_or(name.len());
        let hint = match nearest(&name[..end], BUILTIN_FRONTENDS) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "only `docker/dockerfile` is; take the line out if the file needs \
                     nothing else"
                .to_owned(),
        };
        let problem = Problem::Syntax {
            name: name.to_owned(),
        };
        DockerfileError::new(self.source, span, problem).with_hint(Some(hint))
    }

    /// The next instruction.
    fn line(&mut self) -> Result<Option<Line>, DockerfileError> {
        let Some(mut line) = self.joined() else {
            return Ok(None);
        };
        if may_have_heredoc(&line.text) {
            for word in words::heredoc_words(&line.text) {
                let content = self.heredoc(&line, &word)?;
                line.heredocs.push(Heredoc {
                    name: word.name,
                    content,
                    expand: word.expand,
                    chomp: word.chomp,
                });
            }
            line.span.end = self.next;
        }
        Ok(Some(line))
    }

    /// The next instruction without its heredocs: continued lines joined, comments and
    /// empty lines left out.
    fn joined(&mut self) -> Option<Line> {
        let mut line: Option<Line> = None;
        let mut comments = Vec::new();
        let mut has_empty_line = false;
        while let Some(raw) = self.physical.get(self.next) {
            self.next += 1;
            let content = raw.trim_end_matches(['\r', '\n']);
            let trimmed = content.trim_start();
            if trimmed.starts_with('#') {
                if line.is_none() && self.next > self.directives {
                    note_comment(&mut comments, content);
                }
                continue;
            }
            // Spaces at the start of a continued line are part of the instruction.
            let started = line.as_ref().is_some_and(|l| !l.text.is_empty());
            let content = if started { content } else { trimmed };
            if trimmed.is_empty() {
                has_empty_line |= line.is_some();
                continue;
            }
            let (content, continued) = self.continuation(content);
            let column =
                raw.trim_end_matches(['\r', '\n']).chars().count() - trimmed.chars().count() + 1;
            let current = line.get_or_insert_with(|| Line {
                text: String::new(),
                span: Span {
                    start: self.next,
                    end: self.next,
                    column,
                },
                heredocs: Vec::new(),
                comments: std::mem::take(&mut comments),
                empty_line: None,
                pieces: Vec::new(),
            });
            // What stands before a continued line is part of it.
            let column = if started { 1 } else { column };
            current.pieces.push((current.text.len(), self.next, column));
            current.text.push_str(content);
            current.span.end = self.next;
            if !continued {
                break;
            }
        }
        let mut line = line?;
        line.text.truncate(line.text.trim_end().len());
        line.empty_line = has_empty_line.then_some(self.next);
        Some(line)
    }

    /// The line without the escape character at its end, and whether there was one. A
    /// doubled escape character doesn't continue a line.
    fn continuation(&self, line: &'a str) -> (&'a str, bool) {
        let end = line.trim_end_matches([' ', '\t']);
        match end.strip_suffix(self.escape) {
            Some(rest) if !rest.ends_with(self.escape) => (rest, true),
            _ => (line, false),
        }
    }

    /// The lines up to the terminator.
    fn heredoc(
        &mut self,
        line: &Line,
        word: &words::HeredocWord,
    ) -> Result<String, DockerfileError> {
        let mut content = String::new();
        while let Some(raw) = self.physical.get(self.next) {
            self.next += 1;
            let text = raw.trim_end_matches(['\r', '\n']);
            let text = if word.chomp {
                text.trim_start_matches('\t')
            } else {
                text
            };
            if text == word.name {
                return Ok(content);
            }
            content.push_str(raw);
        }
        let problem = Problem::OpenHeredoc {
            name: word.name.clone(),
        };
        let hint = format!(
            "end it with a line that is `{}` and nothing else",
            word.name
        );
        Err(DockerfileError::new(self.source, line.find("<<"), problem).with_hint(Some(hint)))
    }
}

/// Adds a comment line to those before it. An empty one makes a new start.
fn note_comment(comments: &mut Vec<String>, line: &str) {
    // BuildKit takes the first character off, be it the `#` or a space before it.
    let comment = line.chars().skip(1).collect::<String>();
    match comment.trim() {
        "" => comments.clear(),
        comment => comments.push(comment.to_owned()),
    }
}

/// Name, in lower case, and value of a directive `# name=value`, with `#` or another mark.
pub(super) fn directive<'l>(line: &'l str, mark: &str) -> Option<(String, &'l str)> {
    let line = line.trim_end_matches(['\r', '\n']).trim_start();
    let (name, value) = line.strip_prefix(mark)?.trim_start().split_once('=')?;
    let name = name.trim_end().to_ascii_lowercase();
    if !DIRECTIVES.contains(&name.as_str()) {
        return None;
    }
    // Spaces alone are a value of one space.
    let value = match value.trim() {
        "" => value.get(value.len().checked_sub(1)?..)?,
        value => value,
    };
    Some((name, value))
}

/// The directives that there are.
const DIRECTIVES: [&str; 3] = ["syntax", "escape", "check"];

/// Frontends that mean the language that is read here.
const BUILTIN_FRONTENDS: [&str; 2] = ["docker/dockerfile", "docker/dockerfile-upstream"];

/// Whether this frontend (`docker/dockerfile:1`, options may follow) is the language that
/// is read here.
pub fn is_builtin_frontend(name: &str) -> bool {
    let name = name.split_whitespace().next().unwrap_or_default();
    let end = name.rfind('/').unwrap_or(0);
    let end = name[end..]
        .find([':', '@'])
        .map_or(name.len(), |at| end + at);
    let name = &name[..end];
    // A registry's own `…/docker/dockerfile` is a mirror of it.
    BUILTIN_FRONTENDS.iter().any(|known| {
        let host = name.strip_suffix(known);
        host.is_some_and(|host| host.is_empty() || host.ends_with('/'))
    })
}

/// Whether the instruction is one whose `<<` words start heredocs.
fn may_have_heredoc(text: &str) -> bool {
    if !text.contains("<<") {
        return false;
    }
    let mut rest = text;
    loop {
        let (keyword, arguments) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        rest = arguments.trim_start();
        match keyword.to_ascii_uppercase().as_str() {
            "ONBUILD" => {}
            "RUN" | "COPY" | "ADD" => break,
            _ => return false,
        }
    }
    while let Some(flag) = rest.strip_prefix("--") {
        rest = flag
            .split_once(char::is_whitespace)
            .map_or("", |(_, rest)| rest.trim_start());
    }
    !matches!(words::json(rest), words::Json::Strings(_))
}
