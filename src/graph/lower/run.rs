//! RUN.

use crate::{
    dockerfile::{
        Mount, MountFlag, MountKind, Problem, Span,
        ast::{CommandLine, Instruction, Run, RunNetwork},
        expand::Variables,
        is_heredoc,
    },
    graph::{
        CacheSharing, CopyAction, ExecOp, FileAction, FileOp, ModeChange, MountOp, NetworkMode, Op,
        VertexId,
    },
};

use super::{
    LowerError,
    copy::{absolute, clean},
    origin::Origin,
    stage::{Lowering, State, commit},
};

/// Where the script of a heredoc that starts with `#!` is mounted, as in BuildKit.
const SCRIPT_DIR: &str = "/dev/pipes";

/// The problem of a mount, with a hint, or the error that it became.
enum MountFailure {
    Problem(Problem, Option<String>),
    Lower(LowerError),
}

impl From<(Problem, Option<String>)> for MountFailure {
    fn from((problem, hint): (Problem, Option<String>)) -> Self {
        Self::Problem(problem, hint)
    }
}

impl From<LowerError> for MountFailure {
    fn from(error: LowerError) -> Self {
        Self::Lower(error)
    }
}

impl Lowering<'_> {
    pub(super) fn run_step(
        &mut self,
        state: &mut State,
        run: &Run,
        instruction: &Instruction,
    ) -> Result<(), LowerError> {
        let span = instruction.span;
        self.refuse(run, span)?;
        let mut mounts = Vec::new();
        let args = self.command(state, run, span, &mut mounts)?;
        for flag in &run.mounts {
            mounts.push(self.mount(state, flag, span)?);
        }
        let input = self.plan.input;
        let history = history(state, &args);
        let op = ExecOp {
            root: state.root,
            args,
            env: state.env.list().clone(),
            cwd: working_dir(state).to_owned(),
            user: state.config.config.user.clone(),
            network: match run.network {
                None | Some(RunNetwork::Default) => input.network,
                Some(RunNetwork::Host) => NetworkMode::Host,
                Some(RunNetwork::None) => NetworkMode::None,
            },
            mounts,
            hosts: input.hosts.clone(),
            mtime: state.clock.tick(),
            epoch: state.clock.epoch,
        };
        let mut text = instruction.text.clone();
        if let Some(heredoc) = run.heredocs.first() {
            let first = heredoc.content.trim().lines().next().unwrap_or_default();
            text.push_str(&format!(" ({first}…)"));
        }
        state.root = self.step(state, Op::Exec(op), &text, span);
        commit(state, &history, true);
        Ok(())
    }

    fn refuse(&self, run: &Run, span: Span) -> Result<(), LowerError> {
        let construct = if run.insecure {
            "`RUN --security=insecure`"
        } else if !run.devices.is_empty() {
            "`RUN --device`"
        } else {
            return Ok(());
        };
        let construct = construct.to_owned();
        Err(self.plan.fail(span, Problem::Unsupported { construct }))
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

    fn mount(
        &mut self,
        state: &State,
        flag: &MountFlag,
        span: Span,
    ) -> Result<MountOp, LowerError> {
        let mount = flag.resolve(|text| self.word(state, text, span).map_err(MountFailure::from));
        let mount = match mount {
            Ok(mount) => mount,
            Err(MountFailure::Lower(error)) => return Err(error),
            Err(MountFailure::Problem(problem, hint)) => {
                return Err(self.plan.fail_with(span, problem, hint));
            }
        };
        let unsupported = |what: &str| Problem::Unsupported {
            construct: format!("`RUN --mount=type={}{what}`", mount.kind.name()),
        };
        if matches!(mount.kind, MountKind::Secret | MountKind::Ssh) {
            return Err(self.plan.fail(span, unsupported("")));
        }
        let target = absolute(working_dir(state), &mount.target);
        let target = clean(&target);
        if target == "/" {
            let problem = Problem::MountRoot {
                target: mount.target.clone(),
            };
            return Err(self.plan.fail(span, problem));
        }
        match mount.kind {
            MountKind::Tmpfs => Ok(MountOp::Tmpfs {
                target,
                size: mount.size.filter(|size| *size > 0),
            }),
            MountKind::Cache if mount.from.is_some() || mount.source.is_some() => {
                let key = if mount.from.is_some() {
                    "from"
                } else {
                    "source"
                };
                Err(self.plan.fail(span, unsupported(&format!(",{key}=…"))))
            }
            MountKind::Cache => Ok(cache_mount(&mount, target)),
            _ => {
                let origin = match &mount.from {
                    Some(name) => self.plan.from(state.index, "RUN --mount", name, span)?,
                    None => Origin::Local(self.plan.input.context),
                };
                let source = clean(&absolute("/", mount.source.as_deref().unwrap_or("/")));
                let mut from = self.origin(&origin, state, span)?;
                if let Origin::Local(_) = origin {
                    from = self.context_files(state, from, &source, span)?;
                }
                Ok(MountOp::Bind {
                    from,
                    source,
                    target,
                    writable: !mount.readonly,
                })
            }
        }
    }
}

impl Lowering<'_> {
    /// A root file system that holds `source` of a local context at its own path, so that a
    /// bind mount has an identity: what it shows is in the key of the step.
    fn context_files(
        &mut self,
        state: &State,
        context: VertexId,
        source: &str,
        span: Span,
    ) -> Result<VertexId, LowerError> {
        let root = self.origin(&Origin::Scratch, state, span)?;
        let path = source.trim_start_matches('/');
        let copy = CopyAction {
            from: context,
            sources: vec![if path.is_empty() { "." } else { path }.to_owned()],
            dest: "/".to_owned(),
            owner: None,
            mode: None,
            unpack: false,
            parents: !path.is_empty(),
            exclude: Vec::new(),
            link: false,
        };
        let op = Op::File(FileOp {
            root,
            actions: vec![FileAction::Copy(copy)],
            mtime: state.clock.epoch,
        });
        Ok(self.helper(state, op, "preparing files of the context", span))
    }
}

fn cache_mount(mount: &Mount, target: String) -> MountOp {
    MountOp::Cache {
        id: mount.id.clone().unwrap_or_else(|| clean(&mount.target)),
        target,
        readonly: mount.readonly,
        sharing: match mount.sharing.as_deref() {
            Some("private") => CacheSharing::Private,
            Some("locked") => CacheSharing::Locked,
            _ => CacheSharing::Shared,
        },
        mode: mount.mode.unwrap_or(0o755),
        uid: mount.uid.unwrap_or(0),
        gid: mount.gid.unwrap_or(0),
    }
}

/// The working directory at this point.
pub(super) fn working_dir(state: &State) -> &str {
    match state.config.config.working_dir.as_str() {
        "" => "/",
        dir => dir,
    }
}

/// The shell of the image with this line.
pub(super) fn with_shell(state: &State, line: String) -> Vec<String> {
    let default = || vec!["/bin/sh".to_owned(), "-c".to_owned()];
    let mut args = state.config.config.shell.clone().unwrap_or_else(default);
    args.push(line);
    args
}

/// `RUN |1 NAME=value /bin/sh -c make # memobuild-ci`.
fn history(state: &State, args: &[String]) -> String {
    let mut out = String::from("RUN ");
    if state.args.len() > 0 {
        out.push_str(&format!("|{} ", state.args.len()));
        for (name, value) in state.args.iter() {
            let now = Variables::get(&state.env, name);
            let value = now.or(value).unwrap_or_default();
            out.push_str(&format!("{name}={value} "));
        }
    }
    out.push_str(&args.join(" "));
    out.push_str(" # memobuild-ci");
    out
}
