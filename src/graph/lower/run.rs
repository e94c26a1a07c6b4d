//! RUN: the process, and what it asks for. Its mounts are in `mount`.

use std::borrow::Cow;

use crate::{
    dockerfile::{
        Problem, Span,
        ast::{CommandLine, Instruction, Run, RunNetwork},
        is_heredoc,
    },
    graph::{
        ExecOp, FileAction, FileOp, ModeChange, MountOp, NetworkMode, Op, SecretVariable,
        StepExtras, environment::Variable,
    },
};

use super::{
    LowerError,
    copy::clean,
    origin::Origin,
    stage::{Lowering, State, commit},
};

/// Where the script of a heredoc that starts with `#!` is mounted, as in BuildKit.
const SCRIPT_DIR: &str = "/dev/pipes";

/// Where programs look for the socket of an SSH agent.
const AGENT_VARIABLE: &str = "SSH_AUTH_SOCK";

/// What a RUN mounts, and the other things that `--mount` and lowering collect.
#[derive(Default)]
pub(super) struct StepMounts {
    pub(super) mounts: Vec<MountOp>,
    pub(super) secret_variables: Vec<SecretVariable>,
    /// Where the first SSH agent is.
    pub(super) agent: Option<String>,
}

impl Lowering<'_> {
    pub(super) fn run_step(
        &mut self,
        state: &mut State,
        run: &Run,
        instruction: &Instruction,
    ) -> Result<(), LowerError> {
        let span = instruction.span;
        let mut step = StepMounts::default();
        let args = self.command(state, run, span, &mut step.mounts)?;
        for flag in &run.mounts {
            self.mount(state, flag, span, &mut step)?;
        }
        let input = self.plan.input;
        let created_by = match state.in_target {
            true => history(state, &args),
            false => String::new(),
        };
        let mut env = state.env.list().clone();
        if let Some(target) = step.agent
            && !env.iter().any(|(name, _)| name == AGENT_VARIABLE)
        {
            env.push(Variable::new(AGENT_VARIABLE.into(), &target));
        }
        let op = ExecOp {
            root: state.root,
            args,
            env,
            cwd: working_dir(state),
            user: state.config.config.user.clone(),
            network: match run.network {
                None | Some(RunNetwork::Default) => input.network,
                Some(RunNetwork::Host) => NetworkMode::Host,
                Some(RunNetwork::None) => NetworkMode::None,
            },
            extras: self.extras(run, step.secret_variables, span)?,
            mounts: step.mounts,
            hosts: input.hosts.clone(),
            mtime: state.clock.tick(),
            epoch: state.clock.epoch,
        };
        let mut text = Cow::Borrowed(instruction.text.as_str());
        if let Some(heredoc) = run.heredocs.first() {
            let first = heredoc.content.trim().lines().next().unwrap_or_default();
            text = format!("{text} ({first}…)").into();
        }
        state.root = self.step(state, Op::Exec(op), &text, span);
        commit(state, created_by, true);
        Ok(())
    }

    fn extras(
        &self,
        run: &Run,
        secret_variables: Vec<SecretVariable>,
        span: Span,
    ) -> Result<StepExtras, LowerError> {
        let input = self.plan.input;
        let settings = &input.steps;
        if run.insecure && !settings.insecure {
            let problem = Problem::NotAllowed {
                construct: "`RUN --security=insecure`".to_owned(),
            };
            let hint = "build with `--allow security.insecure`".to_owned();
            return Err(self.plan.fail_with(span, problem, Some(hint)));
        }
        let wanted = run.devices.iter().map(|d| (d.name.as_str(), d.required));
        let devices = settings.devices.find(wanted, &settings.allowed_devices);
        let devices = devices.map_err(|cause| {
            let hint = cause.hint(&settings.devices);
            let problem = Problem::Device { cause };
            self.plan.fail_with(span, problem, Some(hint))
        })?;
        let argument = |name: &str| input.build_args.get(name).filter(|v| !v.is_empty());
        Ok(StepExtras {
            insecure: run.insecure,
            devices,
            ulimits: settings.ulimits.clone(),
            shm_size: settings.shm_size.filter(|size| *size > 0),
            hostname: argument("BUILDKIT_SANDBOX_HOSTNAME").cloned(),
            secret_variables,
        })
    }

    /// The process to start; a script with its own interpreter becomes a mount.
    fn command(
        &mut self,
        state: &State,
        run: &Run,
        span: Span,
        mounts: &mut Vec<MountOp>,
    ) -> Result<Vec<String>, LowerError> {
        let line = match &run.command {
            CommandLine::Exec(args) => return Ok(args.clone()),
            CommandLine::Shell(line) => line,
        };
        // `RUN <<EOF`: the heredoc is the script. Otherwise the shell reads the heredocs.
        let alone = is_heredoc(line);
        Ok(match run.heredocs.as_slice() {
            [] => with_shell(state, line.clone()),
            [heredoc, ..] if alone => {
                let script = heredoc.text();
                if !script.starts_with("#!") {
                    return Ok(with_shell(state, script));
                }
                let root = self.origin(&Origin::Scratch, state, span)?;
                let write = FileAction::Write {
                    dest: "/".to_owned(),
                    name: heredoc.name.clone(),
                    content: script.into_bytes(),
                    owner: None,
                    mode: Some(ModeChange::Exact(0o755)),
                };
                let op = Op::File(FileOp {
                    root,
                    actions: vec![write],
                    mtime: state.clock.epoch,
                });
                let from = self.helper(state, op, "preparing inline document", span);
                mounts.push(MountOp::Bind {
                    from,
                    source: "/".to_owned(),
                    target: SCRIPT_DIR.to_owned(),
                    writable: false,
                });
                with_shell(state, format!("{SCRIPT_DIR}/{}", heredoc.name))
            }
            heredocs => {
                let mut script = line.clone();
                for heredoc in heredocs {
                    script.push('\n');
                    script.push_str(&heredoc.content);
                    script.push_str(&heredoc.name);
                }
                with_shell(state, script)
            }
        })
    }
}

/// The working directory at this point.
pub(super) fn working_dir(state: &State) -> String {
    clean(&state.config.config.working_dir)
}

/// The shell of the image with this line.
pub(super) fn with_shell(state: &State, line: String) -> Vec<String> {
    const DEFAULT: [&str; 2] = ["/bin/sh", "-c"];
    let mut args = Vec::with_capacity(DEFAULT.len() + 1);
    match &state.config.config.shell {
        Some(shell) => args.extend_from_slice(shell),
        None => args.extend(DEFAULT.map(str::to_owned)),
    }
    args.push(line);
    args
}

/// `RUN |1 NAME=value /bin/sh -c make # memobuild-ci`.
fn history(state: &mut State, args: &[String]) -> String {
    let arguments = state.args.history(&state.env);
    let length = args.iter().map(|arg| arg.len() + 1).sum::<usize>();
    let mut out = String::with_capacity(arguments.len() + length + 20);
    out.push_str("RUN ");
    out.push_str(&arguments);
    for arg in args {
        out.push_str(arg);
        out.push(' ');
    }
    out.push_str("# memobuild-ci");
    out
}
