//! What ADD names: local paths, URLs, Git repositories.

use crate::{
    digest::Sha256Digest,
    dockerfile::{
        Problem, Span,
        address::{self, Address, GitAddress},
        ast::Copy,
    },
    graph::{GitSource, HttpSource, MissingSource, ModeChange, RemoteSource},
    redact,
};

use super::{
    LowerError,
    copy::relative,
    origin::Origin,
    stage::{Lowering, State},
};

/// Sources of one ADD or COPY that lie in one place.
pub(super) struct CopySources {
    pub(super) origin: Origin,
    /// As [`CopyAction::sources`](crate::graph::CopyAction::sources).
    pub(super) paths: Vec<String>,
    /// Whether they were fetched for this.
    pub(super) remote: bool,
    /// Whether they are a file from a web server.
    file: bool,
}

impl CopySources {
    /// The mode that `--chmod` asks for. A file from a web server has 0600 to begin with.
    pub(super) fn mode(&self, chmod: Option<&ModeChange>) -> Option<ModeChange> {
        const FETCHED: &str = "u=rw,go=";
        match chmod {
            None if self.file => Some(ModeChange::Symbolic(FETCHED.to_owned())),
            Some(ModeChange::Symbolic(change)) if self.file => {
                Some(ModeChange::Symbolic(format!("{FETCHED},{change}")))
            }
            chmod => chmod.cloned(),
        }
    }
}

impl Lowering<'_> {
    /// The sources `paths` (expanded) by where they lie, in order.
    pub(super) fn add_sources(
        &mut self,
        state: &State,
        copy: &Copy,
        paths: Vec<String>,
        checksum: Option<&str>,
        span: Span,
    ) -> Result<Vec<CopySources>, LowerError> {
        if checksum.is_some() && paths.len() != 1 {
            return Err(self.plan.fail(span, Problem::ChecksumOfSeveral));
        }
        let mut sources: Vec<CopySources> = Vec::new();
        for path in paths {
            let address = Address::of(&path).map_err(|cause| {
                let address = redact::url_credentials(&path).into_owned();
                self.plan.fail(span, Problem::GitAddress { address, cause })
            })?;
            let fetched = match address {
                Address::Local => None,
                _ if !copy.add => {
                    let source_path = redact::url_credentials(&path).into_owned();
                    return Err(self.plan.fail(span, Problem::CopyUrl { source_path }));
                }
                Address::Http => Some(self.http(&path, checksum, span)?),
                Address::Git(git) => Some(self.git(git, copy, checksum, span)?),
            };
            if let Some(source) = fetched {
                let file = matches!(source, RemoteSource::Http(_));
                let paths = vec![match &source {
                    RemoteSource::Http(source) => literal(&source.name),
                    RemoteSource::Git(_) => ".".to_owned(),
                }];
                sources.push(CopySources {
                    origin: Origin::Local(self.context_of(source, span)),
                    paths,
                    remote: true,
                    file,
                });
                continue;
            }
            if checksum.is_some() {
                let problem = Problem::ChecksumOfFile { source_path: path };
                return Err(self.plan.fail(span, problem));
            }
            let path = relative(&path, copy.parents);
            match sources.last_mut() {
                Some(last) if !last.remote => last.paths.push(path),
                _ => {
                    let origin = match &copy.from {
                        Some(name) => self.plan.from(state.index, "COPY --from", name, span)?,
                        None => Origin::Local(self.plan.input.context),
                    };
                    sources.push(CopySources {
                        origin,
                        paths: vec![path],
                        remote: false,
                        file: false,
                    });
                }
            }
        }
        Ok(sources)
    }

    fn http(
        &self,
        url: &str,
        checksum: Option<&str>,
        span: Span,
    ) -> Result<RemoteSource, LowerError> {
        let parse = |text: &str| {
            text.parse::<Sha256Digest>().map_err(|_| {
                let problem = Problem::Checksum {
                    text: text.to_owned(),
                    of: "an URL's content",
                    expected: "`sha256:` and 64 hexadecimal digits",
                };
                self.plan.fail(span, problem)
            })
        };
        Ok(RemoteSource::Http(HttpSource {
            url: url.to_owned(),
            name: address::file_name(url),
            checksum: checksum.map(parse).transpose()?,
        }))
    }

    fn git(
        &self,
        address: GitAddress,
        copy: &Copy,
        checksum: Option<&str>,
        span: Span,
    ) -> Result<RemoteSource, LowerError> {
        let conflict = |flag| {
            let address = redact::url_credentials(&address.remote).into_owned();
            self.plan
                .fail(span, Problem::AddressConflict { flag, address })
        };
        if let (Some(flag), Some(own)) = (copy.keep_git_dir, address.keep_git_dir)
            && flag != own
        {
            return Err(conflict("--keep-git-dir"));
        }
        if let (Some(flag), Some(own)) = (checksum, &address.checksum)
            && flag != own
        {
            return Err(conflict("--checksum"));
        }
        let checksum = checksum.map(str::to_owned).or(address.checksum.clone());
        if let Some(text) = &checksum
            && !is_commit_prefix(text, address.fetch_by_commit)
        {
            let problem = Problem::Checksum {
                text: text.clone(),
                of: "a Git repository",
                expected: match address.fetch_by_commit {
                    true => "a whole commit for `fetch-by-commit`",
                    false => "the hexadecimal digits of a commit",
                },
            };
            return Err(self.plan.fail(span, problem));
        }
        let keep_git_dir = copy.keep_git_dir.or(address.keep_git_dir);
        Ok(RemoteSource::Git(GitSource {
            keep_git_dir: keep_git_dir.unwrap_or(false),
            ..GitSource::of(address, checksum)
        }))
    }

    /// The position of a fetched source. One that is missing is noted, and stands for the
    /// main context meanwhile.
    fn context_of(&mut self, source: RemoteSource, span: Span) -> usize {
        if let Some(position) = self.plan.input.sources.get(&source) {
            return *position;
        }
        if !self.missing.iter().any(|m| m.source == source) {
            let location = self.plan.location(span);
            self.missing.push(MissingSource { source, location });
        }
        self.plan.input.context
    }
}

/// Whether `text` can be the beginning of a commit, or a whole one.
fn is_commit_prefix(text: &str, whole: bool) -> bool {
    match whole {
        true => address::is_commit(text),
        false => !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit()),
    }
}

/// A pattern that matches `name` only.
fn literal(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for c in name.chars() {
        if "*?[]\\".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}
