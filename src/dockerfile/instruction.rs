//! The meaning of one instruction other than FROM.

use std::collections::BTreeMap;

use super::{
    ast::{
        ArgPair, CommandLine, Copy, CopySource, Healthcheck, Heredoc, InstructionKind, KeyValue,
        Run, RunNetwork,
    },
    error::{DockerfileError, Problem},
    flags::Flags,
    lines::Line,
    mount::{DeviceFlag, MountFlag},
    parser,
    source::{Source, Span},
    suggest::nearest,
    words::{self, Json},
};

/// Where an instruction stands.
pub(super) struct Context<'a> {
    pub(super) source: &'a Source,
    pub(super) line: &'a Line,
    pub(super) escape: char,
}

/// The instruction `keyword` (upper case), which ends at offset `at` of the line.
pub(super) fn parse(
    context: &Context<'_>,
    keyword: &str,
    at: usize,
) -> Result<InstructionKind, DockerfileError> {
    let (flags, at) = Flags::split(context.source, context.line, keyword, at, context.escape);
    let args = Arguments {
        context,
        keyword,
        text: &context.line.text[at..],
        at,
    };
    match keyword {
        "RUN" => return args.run(flags),
        "COPY" | "ADD" => return args.copy(flags),
        "HEALTHCHECK" => return args.healthcheck(flags),
        _ => {}
    }
    match keyword {
        // BuildKit doesn't look at theirs.
        "ARG" | "STOPSIGNAL" => flags.ignore(),
        _ => flags.finish()?,
    }
    Ok(match keyword {
        "ARG" => InstructionKind::Arg(args.arg_pairs()?),
        "ENV" => InstructionKind::Env(args.key_values()?),
        "LABEL" => InstructionKind::Label(args.key_values()?),
        "WORKDIR" => InstructionKind::Workdir(args.one("a directory")?),
        "USER" => InstructionKind::User(args.one("a user")?),
        "STOPSIGNAL" => InstructionKind::StopSignal(args.one("a signal")?),
        "MAINTAINER" => InstructionKind::Maintainer(args.one("a name")?),
        "ENTRYPOINT" => InstructionKind::Entrypoint(args.command()?),
        "CMD" => InstructionKind::Cmd(args.command()?),
        "EXPOSE" => InstructionKind::Expose(args.ports()?),
        "VOLUME" => InstructionKind::Volume(args.volumes()?),
        "SHELL" => InstructionKind::Shell(args.shell()?),
        _ => InstructionKind::OnBuild(args.trigger()?),
    })
}

struct Arguments<'a> {
    context: &'a Context<'a>,
    keyword: &'a str,
    text: &'a str,
    /// Offset of `text` in the line.
    at: usize,
}

impl Arguments<'_> {
    fn fail(&self, span: Span, problem: Problem) -> DockerfileError {
        DockerfileError::new(self.context.source, span, problem)
    }

    /// An error about the whole instruction: it needs something else.
    fn needs(&self, expected: &'static str) -> DockerfileError {
        self.fail(
            self.context.line.span,
            Problem::Arguments {
                keyword: self.keyword.to_owned(),
                expected,
            },
        )
    }

    /// All of the text as one argument.
    fn one(&self, expected: &'static str) -> Result<String, DockerfileError> {
        if self.text.is_empty() {
            return Err(self.needs(expected));
        }
        Ok(self.text.to_owned())
    }

    fn json(&self) -> Result<Option<Vec<String>>, DockerfileError> {
        match words::json(self.text) {
            Json::Strings(strings) => Ok(Some(strings)),
            Json::No => Ok(None),
            Json::Mixed => Err(self.fail(
                self.context.line.at(self.at),
                Problem::NotStrings {
                    keyword: self.keyword.to_owned(),
                },
            )),
        }
    }

    /// A command; none at all is an empty line for the shell.
    fn command(&self) -> Result<CommandLine, DockerfileError> {
        Ok(match self.json()? {
            Some(args) => CommandLine::Exec(args),
            None => CommandLine::Shell(self.text.to_owned()),
        })
    }

    /// Words in JSON form, or separated by spaces.
    fn list(&self) -> Result<Vec<String>, DockerfileError> {
        Ok(match self.json()? {
            Some(list) => list,
            None => words::plain_words(self.text),
        })
    }

    fn arg_pairs(&self) -> Result<Vec<ArgPair>, DockerfileError> {
        let words = words::quoted_words(self.text, self.context.escape);
        if words.is_empty() {
            return Err(self.needs("at least one variable"));
        }
        let pair = |word: &String| {
            let (name, default) = match word.split_once('=') {
                Some((name, default)) => (name, Some(default.to_owned())),
                None => (word.as_str(), None),
            };
            if name.is_empty() {
                return Err(self.empty_name(word));
            }
            Ok(ArgPair {
                name: name.to_owned(),
                default,
            })
        };
        words.iter().map(pair).collect()
    }

    fn empty_name(&self, word: &str) -> DockerfileError {
        self.fail(
            self.context.line.find(word),
            Problem::EmptyName {
                keyword: self.keyword.to_owned(),
            },
        )
    }

    fn key_values(&self) -> Result<Vec<KeyValue>, DockerfileError> {
        let words = words::quoted_words(self.text, self.context.escape);
        let Some(first) = words.first() else {
            return Err(self.needs("at least one `name=value`"));
        };
        if !first.contains('=') {
            // The old form: one name, and all the rest is its value.
            let (key, value) = self.text.split_once(words::is_blank).ok_or_else(|| {
                let keyword = self.keyword.to_owned();
                self.fail(self.context.line.span, Problem::WithoutValue { keyword })
            })?;
            return Ok(vec![KeyValue {
                key: key.to_owned(),
                value: value.trim_start_matches(words::is_blank).to_owned(),
                legacy: true,
            }]);
        }
        let pair = |word: &String| {
            let Some((key, value)) = word.split_once('=') else {
                let problem = Problem::NotKeyValue {
                    keyword: self.keyword.to_owned(),
                    word: word.clone(),
                };
                let hint = "a value with spaces needs quotes: `name=\"a b\"`".to_owned();
                return Err(self
                    .fail(self.context.line.find(word), problem)
                    .with_hint(Some(hint)));
            };
            if key.is_empty() {
                return Err(self.empty_name(word));
            }
            Ok(KeyValue {
                key: key.to_owned(),
                value: value.to_owned(),
                legacy: false,
            })
        };
        words.iter().map(pair).collect()
    }

    fn ports(&self) -> Result<Vec<String>, DockerfileError> {
        let mut ports = words::plain_words(self.text);
        if ports.is_empty() {
            return Err(self.needs("at least one port"));
        }
        ports.sort();
        Ok(ports)
    }

    fn volumes(&self) -> Result<Vec<String>, DockerfileError> {
        let volumes: Vec<String> = self.list()?.iter().map(|v| v.trim().to_owned()).collect();
        if volumes.is_empty() || volumes.iter().any(String::is_empty) {
            return Err(self.needs("at least one directory, and none that is empty"));
        }
        Ok(volumes)
    }

    fn shell(&self) -> Result<Vec<String>, DockerfileError> {
        match self.json()? {
            Some(shell) if !shell.is_empty() => Ok(shell),
            Some(_) => Err(self.needs("at least one word")),
            None => {
                let problem = Problem::NotJson {
                    keyword: self.keyword.to_owned(),
                };
                let hint = "write it as `SHELL [\"/bin/bash\", \"-c\"]`".to_owned();
                let span = self.context.line.at(self.at);
                Err(self.fail(span, problem).with_hint(Some(hint)))
            }
        }
    }

    /// The instruction of an ONBUILD, with its heredocs, checked.
    fn trigger(&self) -> Result<String, DockerfileError> {
        if self.text.is_empty() {
            return Err(self.needs("an instruction"));
        }
        let keyword = parser::keyword(self.context.source, self.context.line, self.at)?;
        if matches!(keyword, "ONBUILD" | "FROM" | "MAINTAINER") {
            let span = self.context.line.at(self.at);
            let keyword = keyword.to_owned();
            return Err(self.fail(span, Problem::OnBuildTrigger { keyword }));
        }
        parse(self.context, keyword, self.at + keyword.len())?;
        let mut trigger = self.text.to_owned();
        for heredoc in &self.context.line.heredocs {
            trigger.push('\n');
            trigger.push_str(&heredoc.content);
            trigger.push_str(&heredoc.name);
        }
        Ok(trigger)
    }

    fn run(&self, mut flags: Flags<'_>) -> Result<InstructionKind, DockerfileError> {
        let mut mounts = Vec::new();
        for (text, at) in flags.values("--mount")? {
            let mount = MountFlag::parse(&text).map_err(|(problem, hint)| {
                self.fail(self.context.line.at(at), problem).with_hint(hint)
            })?;
            mounts.push(mount);
        }
        let network = flags.parsed("--network", "`default`, `host` or `none`", |v| match v {
            "default" => Some(RunNetwork::Default),
            "host" => Some(RunNetwork::Host),
            "none" => Some(RunNetwork::None),
            _ => None,
        })?;
        let insecure = flags.parsed("--security", "`sandbox` or `insecure`", |v| match v {
            "sandbox" => Some(false),
            "insecure" => Some(true),
            _ => None,
        })?;
        let mut devices = Vec::new();
        for (text, at) in flags.values("--device")? {
            let device = DeviceFlag::parse(&text).map_err(|(problem, hint)| {
                self.fail(self.context.line.at(at), problem).with_hint(hint)
            })?;
            devices.push(device);
        }
        flags.finish()?;
        let command = self.command()?;
        if command == CommandLine::Exec(Vec::new()) {
            return Err(self.needs("a command"));
        }
        Ok(InstructionKind::Run(Run {
            command,
            heredocs: self.context.line.heredocs.clone(),
            mounts,
            network,
            insecure: insecure.unwrap_or(false),
            devices,
        }))
    }

    fn copy(&self, mut flags: Flags<'_>) -> Result<InstructionKind, DockerfileError> {
        let add = self.keyword == "ADD";
        let any = |v: &str| (!v.is_empty()).then(|| v.to_owned());
        let chown = flags.value("--chown")?;
        let chmod = flags.value("--chmod")?;
        let link = flags.switch("--link")?.unwrap_or(false);
        let exclude = flags.values("--exclude")?;
        let (mut from, mut parents, mut unpack, mut checksum, mut keep_git_dir) =
            (None, false, None, None, None);
        if add {
            checksum = flags.parsed("--checksum", "a digest", any)?;
            keep_git_dir = flags.switch("--keep-git-dir")?;
            unpack = flags.switch("--unpack")?;
        } else {
            from = flags.value("--from")?.filter(|from| !from.is_empty());
            parents = flags.switch("--parents")?.unwrap_or(false);
        }
        flags.finish()?;
        if let Some(text) = from.as_ref().filter(|f| f.contains('$')) {
            let problem = Problem::FromVariable { text: text.clone() };
            let hint = super::mount::FROM_HINT.to_owned();
            let span = self.context.line.find("--from");
            return Err(self.fail(span, problem).with_hint(Some(hint)));
        }
        let json = self.json()?;
        let is_json = json.is_some();
        let mut list = json.unwrap_or_else(|| words::plain_words(self.text));
        let Some(dest) = list.pop().filter(|_| !list.is_empty()) else {
            return Err(self.needs("at least one source and a destination"));
        };
        if !is_json && words::heredoc(&dest).is_some() {
            let problem = Problem::HeredocDestination {
                keyword: self.keyword.to_owned(),
            };
            return Err(self.fail(self.context.line.find(&dest), problem));
        }
        let heredocs: BTreeMap<&str, &Heredoc> = self
            .context
            .line
            .heredocs
            .iter()
            .map(|h| (h.name.as_str(), h))
            .collect();
        let source = |word: String| {
            let heredoc = words::heredoc(&word).filter(|_| !is_json);
            match heredoc.and_then(|h| heredocs.get(h.name.as_str()).copied()) {
                Some(heredoc) => CopySource::Heredoc(heredoc.clone()),
                None => CopySource::Path(word),
            }
        };
        Ok(InstructionKind::Copy(Copy {
            add,
            sources: list.into_iter().map(source).collect(),
            dest,
            from,
            chown,
            chmod,
            link,
            parents,
            exclude: exclude.into_iter().map(|(pattern, _)| pattern).collect(),
            checksum,
            keep_git_dir,
            unpack,
        }))
    }

    fn healthcheck(&self, mut flags: Flags<'_>) -> Result<InstructionKind, DockerfileError> {
        const TIME: &str = "a duration of at least 1 ms, such as `30s`";
        let (kind, rest) = self
            .text
            .split_once(char::is_whitespace)
            .unwrap_or((self.text, ""));
        let rest = rest.trim_start();
        match kind.to_ascii_uppercase().as_str() {
            "NONE" if rest.is_empty() => {
                // Nothing is checked, so nothing can be set.
                flags.ignore();
                return Ok(InstructionKind::Healthcheck(Healthcheck::None));
            }
            "NONE" => return Err(self.needs("nothing after `NONE`")),
            "" => return Err(self.needs("`CMD` with a command, or `NONE`")),
            "CMD" => {}
            _ => {
                let span = self.context.line.at(self.at);
                let near = nearest(kind, ["CMD", "NONE"]);
                let hint = match near {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("write `HEALTHCHECK CMD {kind} …`"),
                };
                let kind = kind.to_owned();
                let error = self.fail(span, Problem::HealthcheckType { kind });
                return Err(error.with_hint(Some(hint)));
            }
        }
        let mut time = |name| flags.parsed(name, TIME, check_time);
        let interval = time("--interval")?.unwrap_or(0);
        let timeout = time("--timeout")?.unwrap_or(0);
        let start_period = time("--start-period")?.unwrap_or(0);
        let start_interval = time("--start-interval")?.unwrap_or(0);
        let retries = flags
            .parsed("--retries", "a number that is not negative", |v| {
                let v = if v.is_empty() { "0" } else { v };
                v.parse::<i32>().ok().filter(|n| *n >= 0)
            })?
            .unwrap_or(0);
        flags.finish()?;
        let command = Arguments {
            context: self.context,
            keyword: self.keyword,
            at: self.at + (self.text.len() - rest.len()),
            text: rest,
        }
        .command()?;
        if rest.is_empty() || command == CommandLine::Exec(Vec::new()) {
            return Err(self.needs("a command after `CMD`"));
        }
        Ok(InstructionKind::Healthcheck(Healthcheck::Command {
            command,
            interval,
            timeout,
            start_period,
            start_interval,
            retries: i64::from(retries),
        }))
    }
}

/// A time of HEALTHCHECK in nanoseconds: none or at least a millisecond.
fn check_time(text: &str) -> Option<i64> {
    if text.is_empty() {
        return Some(0);
    }
    duration(text).filter(|n| *n == 0 || *n >= 1_000_000)
}

/// A duration as Go writes it (`1m30s`, `1.5h`, `100ms`), in nanoseconds.
fn duration(text: &str) -> Option<i64> {
    let mut total: i64 = 0;
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let unit_end = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let scale: i64 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let whole: i64 = if whole.is_empty() {
            0
        } else {
            whole.parse().ok()?
        };
        total = total.checked_add(whole.checked_mul(scale)?)?;
        let mut unit = scale;
        for digit in fraction.chars() {
            unit /= 10;
            total = total.checked_add(unit * i64::from(digit.to_digit(10)?))?;
        }
        rest = tail;
    }
    Some(total)
}
