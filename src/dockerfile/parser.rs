//! From lines to stages.

use std::sync::Arc;

use super::{
    ast::{Dockerfile, Instruction, InstructionKind, ParseWarning, Stage, Written},
    error::{DockerfileError, Problem},
    flags::Flags,
    instruction::{self, Context},
    lines::{self, Line, Lines},
    source::{Source, Span},
    suggest::nearest,
    words,
};

/// All keywords, in lower case the way a parser table would have them.
const KEYWORDS: [&str; 18] = [
    "FROM",
    "RUN",
    "COPY",
    "ADD",
    "ARG",
    "ENV",
    "WORKDIR",
    "USER",
    "ENTRYPOINT",
    "CMD",
    "LABEL",
    "EXPOSE",
    "VOLUME",
    "HEALTHCHECK",
    "STOPSIGNAL",
    "SHELL",
    "MAINTAINER",
    "ONBUILD",
];

/// A file that can't be parsed to its end.
#[derive(Debug)]
pub(super) struct Unparsed {
    pub(super) error: DockerfileError,
    /// What stands before the error, perhaps without a stage. None if the error is one of the
    /// file's form, which is all that BuildKit sees then.
    pub(super) before: Option<Dockerfile>,
    /// The instruction with the error.
    pub(super) at: Option<(Written, Span)>,
}

/// Parses the Dockerfile `text`, which the user knows as `name`.
pub fn parse(name: &str, text: &str) -> Result<Dockerfile, DockerfileError> {
    let source = Arc::new(Source {
        name: name.to_owned(),
        text: text.to_owned(),
    });
    parse_source(&source).map_err(|unparsed| unparsed.error)
}

/// Parses a Dockerfile; what was read is not lost where that fails.
pub(super) fn parse_source(source: &Arc<Source>) -> Result<Dockerfile, Box<Unparsed>> {
    let formless = |error| {
        Box::new(Unparsed {
            error,
            before: None,
            at: None,
        })
    };
    let lines = lines::read(source).map_err(formless)?;
    let Some(first) = lines.lines.first() else {
        let whole = Span {
            start: 1,
            end: 1,
            column: 1,
        };
        let error = DockerfileError::new(source, whole, Problem::Empty);
        return Err(formless(error));
    };
    let mut parser = Parser {
        dockerfile: Dockerfile {
            source: source.clone(),
            escape: lines.escape,
            syntax: lines.syntax.clone(),
            global_args: Vec::new(),
            stages: Vec::new(),
            warnings: warnings(&lines),
        },
    };
    for line in &lines.lines {
        if let Err(error) = parser.line(line) {
            let has_form = !error.problem.is_of_form();
            return Err(Box::new(Unparsed {
                before: has_form.then_some(parser.dockerfile),
                at: Some((written(line, &words_of_from(line)), line.span)),
                error,
            }));
        }
    }
    if parser.dockerfile.stages.is_empty() {
        return Err(Box::new(Unparsed {
            error: DockerfileError::new(source, first.span, Problem::NoStage),
            before: Some(parser.dockerfile),
            at: None,
        }));
    }
    Ok(parser.dockerfile)
}

/// What is odd about the form of the file.
fn warnings(lines: &Lines) -> Vec<ParseWarning> {
    let at = |number| Span {
        start: number,
        end: number,
        column: 1,
    };
    let misspelt = lines
        .misspelt
        .iter()
        .map(|(number, name, near)| ParseWarning {
            rule: "MisspeltDirective",
            message: format!("`# {name}=` is a comment; the directive is `# {near}=`"),
            span: at(*number),
        });
    let empty_lines = lines.lines.iter().filter_map(|line| line.empty_line);
    let continued = empty_lines.map(|number| ParseWarning {
        rule: "NoEmptyContinuation",
        message: "an empty line continues an instruction".to_owned(),
        span: at(number),
    });
    misspelt.chain(continued).collect()
}

/// Parses a trigger of ONBUILD as an image's configuration has it. Places in the result
/// and in errors are those in `text`.
pub fn parse_trigger(text: &str) -> Result<Instruction, DockerfileError> {
    let source = Source {
        name: "ONBUILD".to_owned(),
        text: text.to_owned(),
    };
    let lines = lines::read(&source)?;
    let whole = Span {
        start: 1,
        end: 1,
        column: 1,
    };
    let [line] = lines.lines.as_slice() else {
        let problem = match lines.lines.get(1) {
            Some(_) => Problem::SeveralTriggers,
            None => Problem::Empty,
        };
        return Err(DockerfileError::new(&source, whole, problem));
    };
    let keyword = keyword(&source, line, 0)?;
    if keyword == "FROM" {
        let keyword = keyword.to_owned();
        let problem = Problem::OnBuildTrigger { keyword };
        return Err(DockerfileError::new(&source, whole, problem));
    }
    let context = Context {
        source: &source,
        line,
        escape: lines.escape,
    };
    let kind = instruction::parse(&context, keyword, keyword.len())?;
    Ok(Instruction {
        text: words::one_line(&line.text).into_owned(),
        span: line.span,
        written: written(line, &[]),
        kind,
    })
}

struct Parser {
    /// What was read so far.
    dockerfile: Dockerfile,
}

impl Parser {
    fn line(&mut self, line: &Line) -> Result<(), DockerfileError> {
        let source = self.dockerfile.source.clone();
        let keyword = keyword(&source, line, 0)?;
        if keyword == "FROM" {
            let stage = self.from(line)?;
            self.dockerfile.stages.push(stage);
            return Ok(());
        }
        let context = Context {
            source: &source,
            line,
            escape: self.dockerfile.escape,
        };
        let kind = instruction::parse(&context, keyword, keyword.len())?;
        let instruction = Instruction {
            text: words::one_line(&line.text).into_owned(),
            span: line.span,
            written: written(line, &[]),
            kind,
        };
        match self.dockerfile.stages.last_mut() {
            Some(stage) => stage.instructions.push(instruction),
            None if matches!(instruction.kind, InstructionKind::Arg(_)) => {
                self.dockerfile.global_args.push(instruction);
            }
            None => {
                let keyword = keyword.to_owned();
                let problem = Problem::BeforeFrom { keyword };
                return Err(DockerfileError::new(&source, line.span, problem));
            }
        }
        Ok(())
    }

    fn from(&self, line: &Line) -> Result<Stage, DockerfileError> {
        let Dockerfile { source, escape, .. } = &self.dockerfile;
        let (mut flags, at) = Flags::split(source, line, "FROM", 4, *escape);
        let platform = flags.value("--platform")?.filter(|p| !p.is_empty());
        flags.finish()?;
        let fail = |span, problem| Err(DockerfileError::new(source, span, problem));
        let words = words::plain_words(&line.text[at..]);
        let (base, name) = match words.as_slice() {
            [base] => (base.clone(), None),
            [base, r#as, name] if r#as.eq_ignore_ascii_case("as") => {
                (base.clone(), Some(name.to_lowercase()))
            }
            [] | [_, _] => {
                return fail(
                    line.span,
                    Problem::Arguments {
                        keyword: "FROM".to_owned(),
                        expected: "`image` or `image AS name`",
                    },
                );
            }
            [_, second, rest @ ..] => {
                let word = match rest {
                    [_, word, ..] if second.eq_ignore_ascii_case("as") => word,
                    _ => second,
                };
                return fail(line.find(word), Problem::FromWord { word: word.clone() });
            }
        };
        if let Some(name) = &name
            && !is_stage_name(name)
        {
            let problem = Problem::StageName {
                name: words[2].clone(),
            };
            let hint = "it starts with a letter, followed by letters, digits, `-`, `_`, `.`";
            return fail(line.find(&words[2]), problem)
                .map_err(|e| e.with_hint(Some(hint.to_owned())));
        }
        Ok(Stage {
            base,
            name,
            platform,
            instructions: Vec::new(),
            text: words::one_line(&line.text).into_owned(),
            span: line.span,
            written: written(line, &words[1..]),
        })
    }
}

/// What follows the image in FROM, in a line that may be wrong; nothing in other instructions.
fn words_of_from(line: &Line) -> Vec<String> {
    let words = words::plain_words(&line.text);
    let is_from = words
        .first()
        .is_some_and(|w| w.eq_ignore_ascii_case("FROM"));
    let after = words.iter().skip(1).skip_while(|w| w.starts_with("--"));
    after.skip(1).filter(|_| is_from).cloned().collect()
}

/// How the instruction of `line` looks; `words` are FROM's after the image.
fn written(line: &Line, words: &[String]) -> Written {
    let keyword = line.text.split(char::is_whitespace).next();
    Written {
        keyword: keyword.unwrap_or_default().to_owned(),
        words: words.to_vec(),
        comments: line.comments.clone(),
    }
}

/// The keyword that starts at offset `at` of the line, in upper case.
pub(super) fn keyword(
    source: &Source,
    line: &Line,
    at: usize,
) -> Result<&'static str, DockerfileError> {
    let rest = &line.text[at..];
    let word = rest.split(words::is_blank).next().unwrap_or_default();
    let known = KEYWORDS.iter();
    if let Some(keyword) = known.copied().find(|k| k.eq_ignore_ascii_case(word)) {
        return Ok(keyword);
    }
    let hint = match nearest(word, KEYWORDS) {
        Some(keyword) => Some(format!("did you mean `{keyword}`?")),
        None if word.is_empty() => Some("a backslash must be followed by a line".to_owned()),
        None if at == 0 && line.span.start > 1 => {
            Some("a line that goes on needs a backslash at the end of the one before".to_owned())
        }
        None => None,
    };
    let problem = Problem::UnknownInstruction {
        keyword: word.to_owned(),
    };
    Err(DockerfileError::new(source, line.at(at), problem).with_hint(hint))
}

/// `[a-z][a-z0-9-_.]*`, letter case aside.
fn is_stage_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c))
}
