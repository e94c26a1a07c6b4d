//! `RUN --mount`: from a flag to a mount of the step.

use crate::{
    dockerfile::{Mount, MountFlag, MountKind, Problem, Span},
    graph::{
        CacheSharing, CopyAction, FileAction, FileOp, FileOwner, MountOp, Op, SecretVariable,
        VertexId,
    },
};

use super::{
    LowerError,
    copy::{absolute, clean},
    origin::Origin,
    run::{StepMounts, working_dir},
    stage::{Lowering, State},
};

/// Permission bits of a cache directory that was given none.
const CACHE_MODE: u32 = 0o755;

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
    /// Adds what `--mount` asks for to `step`.
    pub(super) fn mount(
        &mut self,
        state: &State,
        flag: &MountFlag,
        span: Span,
        step: &mut StepMounts,
    ) -> Result<(), LowerError> {
        let mount = flag.resolve(|text| self.word(state, text, span).map_err(MountFailure::from));
        let mount = match mount {
            Ok(mount) => mount,
            Err(MountFailure::Lower(error)) => return Err(error),
            Err(MountFailure::Problem(problem, hint)) => {
                return Err(self.plan.fail_with(span, problem, hint));
            }
        };
        match mount.kind {
            MountKind::Secret => return self.secret(state, &mount, span, step),
            MountKind::Ssh => return self.agent(state, &mount, span, step),
            MountKind::Bind | MountKind::Cache | MountKind::Tmpfs => {}
        }
        if mount.target.is_empty() && working_dir(state) == "/" {
            let problem = Problem::MountNeeds {
                kind: mount.kind.name().to_owned(),
                key: "target",
            };
            return Err(self.plan.fail(span, problem));
        }
        let target = self.target(state, &mount.target, span)?;
        let from = match (&mount.from, mount.kind) {
            (Some(name), _) => Some(self.plan.from(state.index, "RUN --mount", name, span)?),
            (None, MountKind::Bind) => Some(Origin::Local(self.plan.input.context)),
            (None, _) => None,
        };
        let source = clean(&absolute("/", mount.source.as_deref().unwrap_or("/")));
        let from = match from {
            // No file is there: the same as a mount without any.
            Some(Origin::Scratch) if mount.kind == MountKind::Cache => None,
            Some(origin) => {
                let from = self.origin(&origin, state, span)?;
                Some(match origin {
                    Origin::Local(_) => self.context_files(state, from, &source, span)?,
                    _ => from,
                })
            }
            None => None,
        };
        step.mounts.push(match (mount.kind, from) {
            (MountKind::Bind, Some(from)) => MountOp::Bind {
                from,
                source,
                target,
                writable: !mount.readonly,
            },
            (MountKind::Cache, from) => self.cache(&mount, from, source, target),
            _ => MountOp::Tmpfs {
                target,
                size: mount.size.filter(|size| *size > 0),
                readonly: mount.readonly,
            },
        });
        Ok(())
    }

    /// The absolute place of a mount, which can't be the root directory.
    fn target(&self, state: &State, text: &str, span: Span) -> Result<String, LowerError> {
        let target = clean(&absolute(&working_dir(state), text));
        if target == "/" {
            let problem = Problem::MountRoot {
                target: text.to_owned(),
            };
            return Err(self.plan.fail(span, problem));
        }
        Ok(target)
    }

    fn cache(
        &self,
        mount: &Mount,
        from: Option<VertexId>,
        source: String,
        target: String,
    ) -> MountOp {
        let id = mount
            .id
            .clone()
            .unwrap_or_else(|| default_id(&mount.target));
        let given = mount.mode.is_some() || mount.uid.is_some() || mount.gid.is_some();
        // A directory of the cache's own has the mode and owner that it was made with.
        let owner = (given && source == "/").then(|| owner(mount, CACHE_MODE));
        MountOp::Cache {
            id: match self.plan.input.build_args.get("BUILDKIT_CACHE_MOUNT_NS") {
                Some(namespace) if !namespace.is_empty() => format!("{namespace}/{id}"),
                _ => id,
            },
            // With an owner, BuildKit shows a directory beside the files of `from`.
            from: from.filter(|_| owner.is_none()),
            target,
            readonly: mount.readonly,
            sharing: match mount.sharing.as_deref() {
                Some("private") => CacheSharing::Private,
                Some("locked") => CacheSharing::Locked,
                _ => CacheSharing::Shared,
            },
            owner,
            source,
        }
    }

    fn secret(
        &self,
        state: &State,
        mount: &Mount,
        span: Span,
        step: &mut StepMounts,
    ) -> Result<(), LowerError> {
        let id = mount.source.clone().or_else(|| mount.id.clone());
        let id = id.unwrap_or_else(|| base_name(&mount.target).to_owned());
        if let Some(name) = &mount.env {
            step.secret_variables.push(SecretVariable {
                id: id.clone(),
                name: name.clone(),
                required: mount.required,
            });
            if mount.target.is_empty() {
                return Ok(());
            }
        }
        let target = match mount.target.as_str() {
            "" => format!("/run/secrets/{}", base_name(&id)),
            target => target.to_owned(),
        };
        step.mounts.push(MountOp::Secret {
            id,
            target: self.target(state, &target, span)?,
            required: mount.required,
            owner: owner(mount, 0o400),
        });
        Ok(())
    }

    fn agent(
        &self,
        state: &State,
        mount: &Mount,
        span: Span,
        step: &mut StepMounts,
    ) -> Result<(), LowerError> {
        let before = step.mounts.iter();
        let number = before.filter(|m| matches!(m, MountOp::Ssh { .. })).count();
        let target = match mount.target.as_str() {
            "" => format!("/run/buildkit/ssh_agent.{number}"),
            target => target.to_owned(),
        };
        // As written: relative to the working directory, like the mount.
        step.agent.get_or_insert(target.clone());
        step.mounts.push(MountOp::Ssh {
            id: mount.id.clone().unwrap_or_else(|| "default".to_owned()),
            target: self.target(state, &target, span)?,
            required: mount.required,
            owner: owner(mount, 0o600),
        });
        Ok(())
    }

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

/// The id of a cache that has none: its target as written, without detours.
fn default_id(target: &str) -> String {
    if target.starts_with('/') {
        return clean(target);
    }
    match clean(&absolute("/", target)).trim_start_matches('/') {
        "" => ".".to_owned(),
        path => path.to_owned(),
    }
}

fn owner(mount: &Mount, mode: u32) -> FileOwner {
    FileOwner {
        mode: mount.mode.unwrap_or(mode),
        uid: mount.uid.unwrap_or(0),
        gid: mount.gid.unwrap_or(0),
    }
}

fn base_name(path: &str) -> &str {
    let path = path.trim_end_matches('/');
    path.rsplit('/').next().unwrap_or(path)
}
