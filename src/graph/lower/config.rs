//! Instructions that change only the image's configuration.

use std::fmt::Write as _;

use crate::{
    dockerfile::{
        Problem, Span,
        ast::{CommandLine, Healthcheck, Instruction, InstructionKind},
        expand::Expander,
    },
    oci::config::Healthcheck as HealthcheckConfig,
};

use super::{
    LowerError,
    lists::Addition,
    run::with_shell,
    stage::{Lowering, State, commit},
};

impl Lowering<'_> {
    /// An instruction without a vertex.
    pub(super) fn metadata(
        &mut self,
        state: &mut State,
        instruction: &Instruction,
    ) -> Result<(), LowerError> {
        let span = instruction.span;
        let created_by = match &instruction.kind {
            InstructionKind::Label(pairs) => {
                let mut message = String::from("LABEL");
                let pairs = self.key_values(state, pairs, span)?;
                for (key, value) in &pairs {
                    let _ = write!(message, " {key}={value}");
                }
                state.add(Addition::Labels(pairs));
                message
            }
            InstructionKind::User(user) => {
                let user = self.word(state, user, span)?;
                state.config.config.user.clone_from(&user);
                format!("USER {user}")
            }
            InstructionKind::Entrypoint(command) => {
                self.check_command(state, command, instruction);
                let args = args(state, command);
                if !state.cmd_set {
                    state.config.config.cmd = None;
                }
                let message = format!("ENTRYPOINT {}", quoted(&args));
                state.config.config.entrypoint = Some(args);
                message
            }
            InstructionKind::Cmd(command) => {
                self.check_command(state, command, instruction);
                let args = args(state, command);
                state.cmd_set = true;
                let message = format!("CMD {}", quoted(&args));
                state.config.config.cmd = Some(args);
                message
            }
            InstructionKind::Expose(words) => self.expose(state, words, span)?,
            InstructionKind::Volume(words) => self.volume(state, words, span)?,
            InstructionKind::Healthcheck(check) => {
                self.check_once(state, instruction);
                state.config.config.healthcheck = Some(healthcheck(check));
                instruction.text.clone()
            }
            InstructionKind::StopSignal(text) => {
                let signal = self.word(state, text, span)?;
                if !is_signal(&signal) {
                    let text = signal;
                    return Err(self.plan.fail(span, Problem::Signal { text }));
                }
                state.config.config.stop_signal = Some(signal.clone());
                format!("STOPSIGNAL {signal}")
            }
            InstructionKind::Shell(shell) => {
                state.config.config.shell = Some(shell.clone());
                format!("SHELL [{}]", shell.join(" "))
            }
            InstructionKind::Maintainer(name) => {
                state.config.author = Some(name.clone());
                format!("MAINTAINER {name}")
            }
            InstructionKind::OnBuild(trigger) => {
                let triggers = state.config.config.on_build.get_or_insert_default();
                triggers.push(trigger.clone());
                // BuildKit adds no history entry either.
                return Ok(());
            }
            // These have methods of their own.
            InstructionKind::Arg(_)
            | InstructionKind::Env(_)
            | InstructionKind::Run(_)
            | InstructionKind::Copy(_)
            | InstructionKind::Workdir(_) => return Ok(()),
        };
        commit(state, created_by, false);
        Ok(())
    }

    fn not_empty(
        &mut self,
        state: &State,
        keyword: &str,
        text: &str,
        span: Span,
    ) -> Result<String, LowerError> {
        let word = self.word(state, text, span)?;
        if word.is_empty() {
            let problem = Problem::EmptyWord {
                keyword: keyword.to_owned(),
                text: text.to_owned(),
            };
            return Err(self.plan.fail(span, problem));
        }
        Ok(word)
    }

    fn volume(
        &mut self,
        state: &mut State,
        words: &[String],
        span: Span,
    ) -> Result<String, LowerError> {
        let mut paths = Vec::new();
        for word in words {
            paths.push(self.not_empty(state, "VOLUME", word, span)?);
        }
        let message = format!("VOLUME [{}]", paths.join(" "));
        state.add(Addition::Volumes(paths));
        Ok(message)
    }

    fn expose(
        &mut self,
        state: &mut State,
        words: &[String],
        span: Span,
    ) -> Result<String, LowerError> {
        let mut ports = Vec::new();
        for word in words {
            let expanded = Expander::new(self.plan.input.dockerfile.escape)
                .words(word, &state.env)
                .map_err(|cause| {
                    let text = word.clone();
                    self.plan.fail(span, Problem::Expand { text, cause })
                })?;
            for text in expanded {
                self.check_port(&text, span);
                let Some(range) = parse_ports(&text) else {
                    return Err(self.plan.fail(span, Problem::Port { text }));
                };
                ports.extend(range);
            }
        }
        let message = format!("EXPOSE [{}]", ports.join(" "));
        state.add(Addition::Ports(ports));
        Ok(message)
    }
}

fn args(state: &State, command: &CommandLine) -> Vec<String> {
    match command {
        CommandLine::Exec(args) => args.clone(),
        CommandLine::Shell(line) => with_shell(state, line.clone()),
    }
}

fn healthcheck(check: &Healthcheck) -> HealthcheckConfig {
    match check {
        Healthcheck::None => HealthcheckConfig {
            test: vec!["NONE".to_owned()],
            ..HealthcheckConfig::default()
        },
        Healthcheck::Command {
            command,
            interval,
            timeout,
            start_period,
            start_interval,
            retries,
        } => {
            let test = match command {
                CommandLine::Exec(args) => [vec!["CMD".to_owned()], args.clone()].concat(),
                // The runtime adds the shell.
                CommandLine::Shell(line) => vec!["CMD-SHELL".to_owned(), line.clone()],
            };
            HealthcheckConfig {
                test,
                interval: *interval,
                timeout: *timeout,
                start_period: *start_period,
                start_interval: *start_interval,
                retries: *retries,
            }
        }
    }
}

/// `["a" "b c"]`, as Go prints a list of strings.
fn quoted(args: &[String]) -> String {
    let words: Vec<String> = args.iter().map(|a| format!("{a:?}")).collect();
    format!("[{}]", words.join(" "))
}

/// `port/protocol` for each port of `[[address:]host port:]port[-port][/protocol]`. Address
/// and host port, which `docker run -p` takes, are checked and dropped as BuildKit does it.
fn parse_ports(text: &str) -> Option<Vec<String>> {
    let (host, container) = match text.rsplit_once(':') {
        Some((host, container)) => (Some(host), container),
        None => (None, text),
    };
    let (range, protocol) = container.split_once('/').unwrap_or((container, "tcp"));
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "" | "tcp" => "tcp",
        "udp" => "udp",
        "sctp" => "sctp",
        _ => return None,
    };
    let (first, last) = port_range(range)?;
    if let Some(host) = host {
        let (address, ports) = host.rsplit_once(':').unwrap_or(("", host));
        let bare = address.strip_prefix('[').and_then(|a| a.strip_suffix(']'));
        let address = bare.unwrap_or(address);
        if !address.is_empty() && address.parse::<std::net::IpAddr>().is_err() {
            return None;
        }
        if !ports.is_empty() {
            let (host_first, host_last) = port_range(ports)?;
            if last - first != host_last - host_first && first != last {
                return None;
            }
        }
    }
    Some((first..=last).map(|p| format!("{p}/{protocol}")).collect())
}

/// First and last of `port[-port]`.
fn port_range(range: &str) -> Option<(u16, u16)> {
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    // A plus before the digits is allowed, as BuildKit has it.
    let (first, last) = (first.parse::<u16>().ok()?, last.parse::<u16>().ok()?);
    (first <= last).then_some((first, last))
}

/// Whether this is a signal's number or name (`SIG` may be missing), as on Linux.
fn is_signal(text: &str) -> bool {
    const NAMES: [&str; 35] = [
        "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT",
        "KILL", "PIPE", "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM",
        "TRAP", "TSTP", "TTIN", "TTOU", "UNUSED", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU",
        "XFSZ",
    ];
    // BuildKit takes any number but 0.
    if let Ok(number) = text.parse::<i64>() {
        return number != 0;
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let in_range = |text: Option<&str>, offsets: std::ops::RangeInclusive<u8>| {
        text.is_some_and(|t| t.parse().is_ok_and(|n| offsets.contains(&n)))
    };
    NAMES.contains(&name)
        || matches!(name, "RTMIN" | "RTMAX")
        || in_range(name.strip_prefix("RTMIN+"), 1..=15)
        || in_range(name.strip_prefix("RTMAX-"), 1..=14)
}
