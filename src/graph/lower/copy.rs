//! COPY, ADD and WORKDIR.

use crate::{
    dockerfile::{
        Problem, Span,
        address::Address,
        ast::{Copy, CopySource, Heredoc, Instruction},
        expand::Expander,
    },
    graph::{CopyAction, FileAction, FileOp, ModeChange, Op},
    redact,
};

use super::{
    LowerError,
    run::working_dir,
    stage::{Lowering, State, commit},
};

impl Lowering<'_> {
    pub(super) fn copy_step(
        &mut self,
        state: &mut State,
        copy: &Copy,
        instruction: &Instruction,
    ) -> Result<(), LowerError> {
        let span = instruction.span;
        let mut history = String::from(if copy.add { "ADD" } else { "COPY" });
        if copy.parents {
            history.push_str(" --parents");
        }
        let owner = self.optional(state, copy.chown.as_deref(), span)?;
        if let Some(owner) = &owner {
            history.push_str(&format!(" --chown={owner}"));
        }
        let mode = self.mode(state, copy, span, &mut history)?;
        let checksum = self.optional(state, copy.checksum.as_deref(), span)?;

        let (paths, heredocs) = self.sources(state, copy, span)?;
        let written = self.word(state, &copy.dest, span)?;
        let dest = absolute(&working_dir(state), &written);
        let mut actions = Vec::new();
        for path in &paths {
            history.push(' ');
            history.push_str(&redact::url_credentials(path));
        }
        let sources = self.add_sources(state, copy, paths, checksum.as_deref(), span)?;
        for source in sources {
            let (chmod, mode) = (mode.as_ref(), source.mode(mode.as_ref()));
            actions.push(FileAction::Copy(CopyAction {
                from: self.origin(&source.origin, state, span)?,
                sources: source.paths,
                dest: dest.clone(),
                owner: owner.clone(),
                mode,
                unpack: copy.unpack.unwrap_or(copy.add && !source.remote),
                parents: copy.parents && !source.remote,
                // As in BuildKit, variables in patterns are not expanded.
                exclude: copy.exclude.clone(),
                // As in BuildKit, `--chmod` looks at the image.
                link: copy.link && chmod.is_none(),
            }));
        }
        for (name, content) in heredocs {
            history.push_str(&format!(" <<{name}"));
            actions.push(FileAction::Write {
                dest: dest.clone(),
                name,
                content: content.into_bytes(),
                owner: owner.clone(),
                mode: mode.clone(),
            });
        }
        history.push_str(&format!(" {written} # memobuild-ci"));
        let op = Op::File(FileOp {
            root: state.root,
            actions,
            mtime: state.clock.tick(),
        });
        state.root = self.step(state, op, &instruction.text, span);
        commit(state, history, true);
        Ok(())
    }

    fn optional(
        &mut self,
        state: &State,
        text: Option<&str>,
        span: Span,
    ) -> Result<Option<String>, LowerError> {
        let expanded = text.map(|t| self.word(state, t, span)).transpose()?;
        Ok(expanded.filter(|t| !t.is_empty()))
    }

    fn mode(
        &mut self,
        state: &State,
        copy: &Copy,
        span: Span,
        history: &mut String,
    ) -> Result<Option<ModeChange>, LowerError> {
        let Some(text) = self.optional(state, copy.chmod.as_deref(), span)? else {
            return Ok(None);
        };
        history.push_str(&format!(" --chmod={text}"));
        match parse_mode(&text) {
            Some(mode) => Ok(Some(mode)),
            None => Err(self.plan.fail(span, Problem::Mode { text })),
        }
    }

    /// The paths, expanded, and the heredocs as names with content.
    #[expect(clippy::type_complexity, reason = "two lists")]
    fn sources(
        &mut self,
        state: &State,
        copy: &Copy,
        span: Span,
    ) -> Result<(Vec<String>, Vec<(String, String)>), LowerError> {
        let (mut paths, mut heredocs) = (Vec::new(), Vec::new());
        for source in &copy.sources {
            match source {
                CopySource::Heredoc(heredoc) => {
                    let content = self.heredoc(state, heredoc, span)?;
                    heredocs.push((heredoc.name.clone(), content));
                }
                CopySource::Path(text) => {
                    let path = self.word(state, text, span)?;
                    if copy.from.is_none() && Address::of(&path) == Ok(Address::Local) {
                        let keyword = if copy.add { "ADD" } else { "COPY" };
                        self.check_ignored(&path, keyword, span);
                    }
                    paths.push(path);
                }
            }
        }
        Ok((paths, heredocs))
    }

    fn heredoc(
        &mut self,
        state: &State,
        heredoc: &Heredoc,
        span: Span,
    ) -> Result<String, LowerError> {
        let text = heredoc.text();
        if !heredoc.expand {
            return Ok(text);
        }
        let expansion = Expander::heredoc()
            .expand(&text, &state.env)
            .and_then(|expansion| self.plan.count(expansion))
            .map_err(|cause| {
                let text = format!("<<{}", heredoc.name);
                self.plan.fail(span, Problem::Expand { text, cause })
            })?;
        self.warn_unset(state, &expansion.unset, span);
        Ok(expansion.text)
    }

    pub(super) fn workdir(
        &mut self,
        state: &mut State,
        path: &str,
        instruction: &Instruction,
    ) -> Result<(), LowerError> {
        let span = instruction.span;
        let text = self.word(state, path, span)?;
        self.check_workdir(state, &text, span);
        let dir = clean(&absolute(&working_dir(state), &text));
        // An absolute directory stands in the configuration as it was written.
        let shown = match text.starts_with('/') {
            true => text,
            false => dir.clone(),
        };
        state.config.config.working_dir.clone_from(&shown);
        let layer = dir != "/";
        if layer {
            let user = &state.config.config.user;
            let action = FileAction::MakeDir {
                path: dir.clone(),
                owner: (!user.is_empty()).then(|| user.clone()),
            };
            let op = Op::File(FileOp {
                root: state.root,
                actions: vec![action],
                mtime: state.clock.tick(),
            });
            state.root = self.step(state, op, &instruction.text, span);
        }
        commit(state, format!("WORKDIR {shown}"), layer);
        Ok(())
    }
}

/// `path` seen from `dir`, absolute, without `.` and `..`. A slash at the end stays, and
/// stands for a `.` or `..` there.
pub(super) fn absolute(dir: &str, path: &str) -> String {
    let joined = if path.starts_with('/') {
        clean(path)
    } else {
        clean(&format!("{dir}/{path}"))
    };
    let last = path.rsplit('/').next().unwrap_or_default();
    let is_dir = matches!(last, "" | ".");
    if is_dir && joined != "/" {
        joined + "/"
    } else {
        joined
    }
}

/// The shortest absolute path with the same meaning; `..` stops at the root.
pub(super) fn clean(path: &str) -> String {
    let names = path.strip_prefix('/').unwrap_or_default();
    if names
        .split('/')
        .all(|part| !matches!(part, "" | "." | ".."))
    {
        return path.to_owned();
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// A source relative to its root; `.` for the root itself. With `--parents` the point
/// `/./`, from which on parents are kept, stays.
pub(super) fn relative(path: &str, parents: bool) -> String {
    let strip = |path: &str| clean(path)[1..].to_owned();
    if parents && let Some((before, after)) = path.split_once("/./") {
        return format!("{}/./{}", strip(before), strip(after))
            .trim_start_matches('/')
            .to_owned();
    }
    match strip(path) {
        path if path.is_empty() => ".".to_owned(),
        path => path,
    }
}

/// An octal or a symbolic mode.
fn parse_mode(text: &str) -> Option<ModeChange> {
    if text.bytes().all(|b| b.is_ascii_digit()) {
        let mode = u32::from_str_radix(text, 8).ok()?;
        return (mode <= 0o7777).then_some(ModeChange::Exact(mode));
    }
    let valid = text.split(',').all(|clause| {
        let who = clause.trim_start_matches(['u', 'g', 'o', 'a']);
        who.starts_with(['+', '-', '='])
            && who
                .split(['+', '-', '='])
                .all(|perms| perms.chars().all(|c| "rwxXstugo".contains(c)))
    });
    valid.then(|| ModeChange::Symbolic(text.to_owned()))
}
