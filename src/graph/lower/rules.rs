//! The build checks that need to know what words mean: when each rule of
//! `dockerfile::lint::RULES` fires, as in BuildKit.

use crate::{
    dockerfile::{
        Span,
        ast::{CommandLine, Instruction, InstructionKind, Stage},
        expand::{Expander, Expansion, Variables},
        ignore::{Ignore, clean},
        nearest,
    },
    oci::{ImageConfig, Platform, reference::Reference},
};

use super::{
    env::Env,
    plan::Plan,
    stage::{Lowering, State},
};

/// Words of a name that stand for a secret.
const SECRETS: [&str; 10] = [
    "apikey",
    "auth",
    "credential",
    "credentials",
    "key",
    "password",
    "pword",
    "passwd",
    "secret",
    "token",
];

/// Words of a name that say that it is none.
const NO_SECRETS: [&str; 3] = ["public", "file", "version"];

/// What the checks remember of a stage.
#[derive(Debug, Clone, Default)]
pub(super) struct Once {
    /// Whether it, or a stage that it starts from, had a WORKDIR.
    workdir: bool,
    entrypoint: Option<Span>,
    cmd: Option<Span>,
    healthcheck: Option<Span>,
}

impl Once {
    /// What a stage that starts from this one begins with.
    pub(super) fn inherited(&self) -> Self {
        Self {
            workdir: self.workdir,
            ..Self::default()
        }
    }
}

impl Plan<'_> {
    fn warn(&self, rule: &'static str, message: String, span: Span, hint: Option<String>) {
        self.checks.report(self.input, rule, message, span, hint);
    }

    /// Whether every FROM names something when no build argument is given. `globals` holds the
    /// platform variables by now.
    pub(super) fn check_default_bases(&self) {
        let Some(defaults) = self.default_globals() else {
            return;
        };
        let mut given = defaults.clone();
        for (name, value) in &self.input.build_args {
            given.set(name, value);
        }
        let lexer = Expander::new(self.input.dockerfile.escape);
        for stage in &self.input.dockerfile.stages {
            // What can't be expanded is an error later on.
            let Ok(expansion) = lexer.expand(&stage.base, &defaults) else {
                return;
            };
            // The layer target that an argument stands for is always given.
            let given = lexer.expand(&stage.base, &given);
            if given.is_ok_and(|base| self.input.parents.contains_key(&base.text)) {
                continue;
            }
            if expansion.text.parse::<Reference>().is_err() {
                let message = format!(
                    "`{}` names no image when no `--build-arg` is given",
                    stage.base
                );
                self.warn("InvalidDefaultArgInFrom", message, stage.span, None);
            }
        }
    }

    /// The global variables as they are without build arguments.
    fn default_globals(&self) -> Option<Env> {
        let mut env = self.globals.clone();
        let lexer = Expander::new(self.input.dockerfile.escape);
        for instruction in &self.input.dockerfile.global_args {
            let InstructionKind::Arg(pairs) = &instruction.kind else {
                continue;
            };
            for pair in pairs {
                if let Some(default) = &pair.default {
                    let value = lexer.expand(default, &env).ok()?.text;
                    env.set(&pair.name, &value);
                }
            }
        }
        Some(env)
    }

    /// Variables of a FROM that no ARG before it declares.
    pub(super) fn check_from_variables(&self, expansion: &Expansion, span: Span) {
        for name in &expansion.unset {
            if self.arguments.is_declared(name) {
                continue;
            }
            let known = self.globals.names().chain(self.arguments.names());
            let hint = nearest(name, known).map(|n| format!("did you mean `{n}`?"));
            let message = format!("no ARG before FROM declares the variable `{name}`");
            self.warn("UndefinedArgInFrom", message, span, hint);
        }
    }

    /// `FROM --platform`, expanded.
    pub(super) fn check_platform(&self, stage: &Stage, expansion: &Expansion) {
        const TARGET: &str = "TARGETPLATFORM";
        if expansion.used.is_empty() && expansion.unset.is_empty() {
            self.check_constant_platform(stage, &expansion.text);
        }
        let used: Vec<&str> = expansion.used.iter().map(String::as_str).collect();
        if used == [TARGET]
            && expansion.unset.is_empty()
            && Variables::get(&self.globals, TARGET) == Some(expansion.text.as_str())
        {
            let written = stage.platform.as_deref().unwrap_or_default();
            let message = format!("`--platform={written}` is what FROM means without it");
            self.warn("RedundantTargetPlatform", message, stage.span, None);
        }
    }

    fn check_constant_platform(&self, stage: &Stage, text: &str) {
        let Ok(platform) = text.parse::<Platform>() else {
            return;
        };
        let name = stage.name.as_deref().unwrap_or_default();
        if name.contains(&platform.os) || name.contains(&platform.architecture) {
            return;
        }
        let message = format!("`--platform={text}` is a constant");
        let rule = "FromPlatformFlagConstDisallowed";
        self.warn(rule, message, stage.span, None);
    }
}

impl Lowering<'_> {
    /// Whether an image is for the platform it is used for. Images that an option put in place
    /// of another aren't looked at.
    pub(super) fn check_image(
        &self,
        reference: &str,
        wanted: &Platform,
        config: &ImageConfig,
        span: Span,
    ) {
        let actual = config.platform();
        let same = actual.os == wanted.os && actual.architecture == wanted.architecture;
        if !same && !reference.contains("://") {
            let message = format!("base image `{reference}` is for {actual}, not for {wanted}");
            self.warn("InvalidBaseImagePlatform", message, span, None);
        }
    }

    pub(super) fn check_secret(&self, keyword: &str, name: &str, span: Span) {
        if looks_secret(name) {
            let message = format!(
                "{keyword} `{name}` looks like a secret, which stays readable in the image"
            );
            self.warn("SecretsUsedInArgOrEnv", message, span, None);
        }
    }

    /// A CMD or ENTRYPOINT.
    pub(super) fn check_command(
        &self,
        state: &mut State,
        command: &CommandLine,
        instruction: &Instruction,
    ) {
        self.check_once(state, instruction);
        let shell = state.config.config.shell.as_deref().unwrap_or_default();
        if matches!(command, CommandLine::Shell(_)) && shell.is_empty() {
            let keyword = instruction.kind.keyword();
            let message = format!("{keyword} in shell form: the program gets no signals");
            let hint = format!("write it as a JSON array: `{keyword} [\"program\", \"argument\"]`");
            self.warn("JSONArgsRecommended", message, instruction.span, Some(hint));
        }
    }

    /// An instruction of which only the last one of a stage counts.
    pub(super) fn check_once(&self, state: &mut State, instruction: &Instruction) {
        let before = match &instruction.kind {
            InstructionKind::Entrypoint(_) => &mut state.once.entrypoint,
            InstructionKind::Cmd(_) => &mut state.once.cmd,
            _ => &mut state.once.healthcheck,
        };
        if let Some(span) = before.replace(instruction.span) {
            let keyword = instruction.kind.keyword();
            let message = format!("this {keyword} has no effect: a later one of the stage counts");
            self.warn("MultipleInstructionsDisallowed", message, span, None);
        }
    }

    pub(super) fn check_workdir(&self, state: &mut State, path: &str, span: Span) {
        let first = !std::mem::replace(&mut state.once.workdir, true);
        if first && !path.starts_with('/') {
            let message = format!("WORKDIR `{path}` depends on that of the base image");
            self.warn("WorkdirRelativePath", message, span, None);
        }
    }

    /// `[[address:]port:]port[/protocol]` of an EXPOSE.
    pub(super) fn check_port(&self, text: &str, span: Span) {
        let (host, container) = text.rsplit_once(':').unwrap_or(("", text));
        let (port, protocol) = container.split_once('/').unwrap_or((container, ""));
        let lower = protocol.to_lowercase();
        if port.is_empty() || !matches!(lower.as_str(), "" | "tcp" | "udp" | "sctp") {
            return;
        }
        if protocol != lower {
            let message = format!("the protocol in `{text}` is not in lower case");
            self.warn("ExposeProtoCasing", message, span, None);
        }
        if host.split(':').any(|part| !part.is_empty()) {
            let message = format!("`{text}` has more than a port and a protocol");
            self.warn("ExposeInvalidFormat", message, span, None);
        }
    }

    /// A path of the main context that COPY or ADD names.
    pub(super) fn check_ignored(&self, path: &str, keyword: &str, span: Span) {
        let Some(ignore) = self.ignore() else {
            return;
        };
        if ignore.is_empty() || ignore.has_exceptions() {
            return;
        }
        let path = clean(path);
        let ignored = match path.as_str() {
            "." | "/" => ignore.hides_everything(),
            path => ignore.has_match(path) || parents(path).any(|dir| ignore.has_match(dir)),
        };
        if ignored {
            let message = format!("{keyword} `{path}`: `.dockerignore` excludes it");
            self.warn("CopyIgnoredFile", message, span, None);
        }
    }

    /// The main context's patterns. An ignore file that can't be read is for the scan to refuse.
    fn ignore(&self) -> Option<&Ignore> {
        let read = || {
            let context = self.graph.contexts.get(self.plan.input.context)?;
            Ignore::parse(&context.ignore).ok()
        };
        self.ignore.get_or_init(read).as_ref()
    }
}

/// Whether a variable of this name probably holds a secret.
pub fn looks_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let has = |words: &[&str]| name.split('_').any(|part| words.contains(&part));
    has(&SECRETS) && !has(&NO_SECRETS)
}

/// The directories above a clean path, from the top; of a rooted one the first is empty, as
/// BuildKit has it.
fn parents(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| &path[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_look_like_secrets() {
        for name in ["TOKEN", "MY_KEY", "_auth_", "DB_PASSWD", "a_APIKEY_b"] {
            assert!(looks_secret(name), "{name}");
        }
        for name in [
            "TOKENS",
            "KEYBOARD",
            "MONKEY",
            "PUBLIC_KEY",
            "KEY_FILE",
            "TOKEN_VERSION",
            "",
        ] {
            assert!(!looks_secret(name), "{name}");
        }
    }

    #[test]
    fn directories_above_a_path() {
        assert_eq!(Vec::from_iter(parents("a/b/c")), ["a", "a/b"]);
        assert_eq!(Vec::from_iter(parents("/a/b")), ["", "/a"]);
        assert_eq!(parents("a").count(), 0);
    }
}
