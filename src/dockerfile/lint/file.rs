//! The rules that need only the parsed file. They look at all stages, whatever the target.

use std::collections::HashSet;

use super::{Settings, Violation, rules::rule};
use crate::dockerfile::{
    ast::{ArgPair, Dockerfile, Instruction, InstructionKind, ParseWarning, Stage, Written},
    error::DockerfileError,
    parser::parse_source,
    source::Span,
};

/// Names that mean something else in FROM.
const RESERVED: [&str; 2] = ["context", "scratch"];

/// All violations in the file, by rule.
pub fn check_file(dockerfile: &Dockerfile, settings: &Settings) -> Vec<Violation> {
    let mut file = File {
        settings,
        found: Vec::new(),
    };
    file.instructions(dockerfile);
    file.stage_names(&dockerfile.stages);
    file.casing(&dockerfile.stages);
    file.found
}

/// The violations in a file that can't be parsed, as BuildKit finds them: those in what stands
/// before `error` and in the instruction that it is about; none where the error is in the form
/// of the file or of an instruction. `argument` is the build argument that replaces `# check=`.
pub fn check_unparsed(error: &DockerfileError, argument: Option<&str>) -> Vec<Violation> {
    let source = error.source();
    let directive = || Settings::directive(&source.text).map(|(_, text)| text);
    let text = argument.or_else(directive).unwrap_or_default();
    let (Ok(settings), Err(unparsed)) = (Settings::parse(text), parse_source(source)) else {
        return Vec::new();
    };
    let mut file = File {
        settings: &settings,
        found: Vec::new(),
    };
    let Some(before) = &unparsed.before else {
        return Vec::new();
    };
    file.instructions(before);
    if let Some((written, span)) = &unparsed.at {
        if written.keyword.eq_ignore_ascii_case("FROM") {
            file.casing_of_from(written, *span);
        } else if written.keyword.eq_ignore_ascii_case("MAINTAINER") {
            file.maintainer(written, *span);
        }
    }
    file.found
}

struct File<'a> {
    settings: &'a Settings,
    found: Vec<Violation>,
}

impl File<'_> {
    fn add(&mut self, settings: &Settings, name: &'static str, message: String, span: Span) {
        if rule(name).is_some_and(|rule| settings.has(rule)) {
            self.found.push(Violation {
                rule: name,
                message,
                span,
                hint: None,
            });
        }
    }

    /// What is odd about each line and each instruction by itself.
    fn instructions(&mut self, dockerfile: &Dockerfile) {
        for ParseWarning {
            rule,
            message,
            span,
        } in &dockerfile.warnings
        {
            self.add(self.settings, rule, message.clone(), *span);
        }
        for instruction in &dockerfile.global_args {
            self.instruction(instruction);
        }
        for stage in &dockerfile.stages {
            self.from(stage);
            for instruction in &stage.instructions {
                self.instruction(instruction);
            }
        }
    }

    fn instruction(&mut self, instruction: &Instruction) {
        let (written, span) = (&instruction.written, instruction.span);
        match &instruction.kind {
            InstructionKind::Maintainer(_) => self.maintainer(written, span),
            InstructionKind::Arg(pairs) => {
                let settings = self.settings.with_comments(&written.comments);
                let names: Vec<&str> = pairs.iter().map(|p: &ArgPair| p.name.as_str()).collect();
                self.description(&settings, "ARG", &names, written, span);
            }
            _ => {}
        }
    }

    fn maintainer(&mut self, written: &Written, span: Span) {
        let settings = self.settings.with_comments(&written.comments);
        let message = "MAINTAINER is deprecated; use `LABEL org.opencontainers.image.authors=…`";
        self.add(&settings, "MaintainerDeprecated", message.to_owned(), span);
    }

    fn from(&mut self, stage: &Stage) {
        let (written, span) = (&stage.written, stage.span);
        self.casing_of_from(written, span);
        if let Some(name) = &stage.name {
            let settings = self.settings.with_comments(&written.comments);
            self.description(&settings, "FROM", &[name], written, span);
        }
    }

    /// The letter case of a FROM, which may be wrong otherwise.
    fn casing_of_from(&mut self, written: &Written, span: Span) {
        let settings = self.settings.with_comments(&written.comments);
        let [r#as, name, rest @ ..] = written.words.as_slice() else {
            return;
        };
        if rest.is_empty() && *name != name.to_lowercase() {
            let message = format!("stage name `{name}` is not lower case");
            self.add(&settings, "StageNameCasing", message, span);
        }
        // A keyword in mixed case is the matter of another rule.
        let keyword = written.keyword.as_str();
        let matches = match casing(keyword) {
            Some(Casing::Lower) => *r#as == r#as.to_lowercase(),
            Some(Casing::Upper) => *r#as == r#as.to_uppercase(),
            None => true,
        };
        if !matches {
            let message = format!("`{as}` is not in the letter case of `{keyword}`");
            self.add(&settings, "FromAsCasing", message, span);
        }
    }

    /// The comment before an instruction that defines `names` describes one of them.
    fn description(
        &mut self,
        settings: &Settings,
        keyword: &str,
        names: &[&str],
        written: &Written,
        span: Span,
    ) {
        let Some(comment) = written.comments.last() else {
            return;
        };
        let word = comment.split(' ').next().unwrap_or_default();
        if names.contains(&word) {
            return;
        }
        let name = match names {
            [name] => *name,
            _ => "NAME",
        };
        let message =
            format!("the comment before {keyword} doesn't have the form `# {name} description`");
        self.add(settings, "InvalidDefinitionDescription", message, span);
    }

    fn stage_names(&mut self, stages: &[Stage]) {
        let mut seen = HashSet::new();
        for stage in stages {
            let Some(name) = stage.name.as_deref() else {
                continue;
            };
            if RESERVED.contains(&name) {
                let message = format!("stage name `{name}` means something else in FROM and COPY");
                self.add(self.settings, "ReservedStageName", message, stage.span);
            }
            if !seen.insert(name) {
                let message = format!("stage name `{name}` is given to more than one stage");
                self.add(self.settings, "DuplicateStageName", message, stage.span);
            }
        }
    }

    /// Keywords of stages are in one letter case: that of most of them.
    fn casing(&mut self, stages: &[Stage]) {
        let keywords = || {
            stages.iter().flat_map(|stage| {
                let own = [(&stage.written.keyword, stage.span)];
                let instructions = stage.instructions.iter();
                own.into_iter()
                    .chain(instructions.map(|i| (&i.written.keyword, i.span)))
            })
        };
        let count = |wanted| {
            keywords()
                .filter(|(k, _)| casing(k) == Some(wanted))
                .count()
        };
        let (wanted, word) = if count(Casing::Lower) > count(Casing::Upper) {
            (Casing::Lower, "lower")
        } else {
            (Casing::Upper, "upper")
        };
        for (keyword, span) in keywords() {
            if casing(keyword) != Some(wanted) {
                let message = format!("`{keyword}` is not in {word} case as most keywords here");
                self.add(self.settings, "ConsistentInstructionCasing", message, span);
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Casing {
    Lower,
    Upper,
}

/// The letter case of a keyword, all of whose letters are ASCII.
fn casing(keyword: &str) -> Option<Casing> {
    let has_upper = keyword.bytes().any(|b| b.is_ascii_uppercase());
    let has_lower = keyword.bytes().any(|b| b.is_ascii_lowercase());
    match (has_lower, has_upper) {
        (_, false) => Some(Casing::Lower),
        (false, true) => Some(Casing::Upper),
        (true, true) => None,
    }
}
