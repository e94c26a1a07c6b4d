//! What the CI platform says about the build: [`detect`] gives a [`CiContext`].
//!
//! One file a platform reads that platform's variables and its description of the event; nobody
//! else does. From the context follow the [`Producer`] that entries of the cache name and the
//! trust scope they are written under ([`CiContext::scopes`]):
//!
//! | build | writes | reads besides `protected` and that | saves in remote caches |
//! |---|---|---|---|
//! | of a protected branch or tag | `protected` | | yes |
//! | of another branch or tag | `branch/<name>`, `branch/tags/<name>` | | yes |
//! | of a pull or merge request | `pull/<number>` | `branch/<base>` | yes |
//! | of one from a fork, or where that isn't known | `pull/<number>` | `branch/<base>` | no |
//! | for an event whose code isn't known to be the repository's | `local` | | no |
//! | on another CI platform | `local` | | no |
//! | outside of CI | `local` | | yes |
//!
//! What the variables say is what the job says: a job that lies about itself gets another scope
//! here. That it gets nowhere with it is the business of the cache's server (`docs/internals/security.md`).

mod actions;
mod gitlab;

use crate::{
    cache::{Producer, Scope, SearchOrder, Trust},
    config::env::Env,
};

/// Name and version of the program, as entries state it.
const TOOL: &str = concat!("memobuild-ci ", env!("CARGO_PKG_VERSION"));

/// A CI platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Platform {
    /// GitHub Actions.
    GitHub,
    /// Gitea Actions.
    Gitea,
    /// Forgejo Actions.
    Forgejo,
    /// GitLab CI.
    GitLab,
    /// One that this program doesn't know: only `CI` is set.
    Other,
    /// None: somebody's machine.
    None,
}

impl Platform {
    /// Its name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::GitHub => "GitHub Actions",
            Self::Gitea => "Gitea Actions",
            Self::Forgejo => "Forgejo Actions",
            Self::GitLab => "GitLab CI",
            Self::Other => "an unknown CI platform",
            Self::None => "no CI platform",
        }
    }
}

/// What is known about the build from where it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CiContext {
    /// Where it runs.
    pub platform: Platform,
    /// The repository, as the platform names it: `acme/service`.
    pub repository: Option<String>,
    /// The Git ref that is built, in full: `refs/heads/main`.
    pub git_ref: Option<String>,
    /// Whether the platform says that only trusted people can change that ref.
    pub protected: bool,
    /// The event, in the platform's word.
    pub event: Option<String>,
    /// The address of the run, else its number.
    pub run: Option<String>,
    /// The pull or merge request that is built.
    pub pull_request: Option<PullRequest>,
    /// Whether the event may bring code of somebody else than the ref says.
    pub foreign_code: bool,
}

/// A pull or merge request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullRequest {
    /// Its number within the repository.
    pub number: Option<String>,
    /// The branch it is for, without `refs/heads/`.
    pub base: Option<String>,
    /// Whether it comes from another repository; none: that isn't known.
    pub is_fork: Option<bool>,
}

/// An explicit scope that the build may not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScopeRefused {
    /// A pull request's build with a scope that others rely on.
    #[error("a build of a pull request can't have the cache scope `{wanted}`: its own is `{own}`")]
    PullRequest {
        /// What was asked for.
        wanted: Scope,
        /// What it gets by itself.
        own: Scope,
    },
}

impl ScopeRefused {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        "set the scope only in jobs of branches and tags, not for all in `memobuild.yml`"
    }
}

/// The scopes of a build, and what it does without being asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildScopes {
    /// What it reads and what it writes.
    pub order: SearchOrder,
    /// Whether it saves results in remote caches where nobody says that it should or shouldn't.
    pub saves: bool,
}

/// What the variables in `env` say, and the files they name.
pub fn detect(env: &Env) -> CiContext {
    let is_set = |name| env.platform(name).is_some_and(|value| value != "false");
    // Forgejo says that it is Gitea, both say that they are GitHub.
    let platform = match () {
        () if is_set("FORGEJO_ACTIONS") => Platform::Forgejo,
        () if is_set("GITEA_ACTIONS") => Platform::Gitea,
        () if is_set("GITHUB_ACTIONS") => Platform::GitHub,
        // Set, to whatever: a local runner of GitLab's jobs sets it to `false`.
        () if env.platform("GITLAB_CI").is_some() => Platform::GitLab,
        () if env.ci() => Platform::Other,
        () => Platform::None,
    };
    match platform {
        Platform::GitHub | Platform::Gitea | Platform::Forgejo => actions::detect(platform, env),
        Platform::GitLab => gitlab::detect(env),
        Platform::Other | Platform::None => CiContext::unknown(platform),
    }
}

impl CiContext {
    /// A build that nothing is known about.
    fn unknown(platform: Platform) -> Self {
        Self {
            platform,
            repository: None,
            git_ref: None,
            protected: false,
            event: None,
            run: None,
            pull_request: None,
            foreign_code: platform != Platform::None,
        }
    }

    /// Who made the entries of this build.
    pub fn producer(&self) -> Producer {
        Producer {
            tool: TOOL.to_owned(),
            repository: self.repository.clone(),
            git_ref: self.git_ref.clone(),
            protected: self.protected && self.pull_request.is_none() && !self.foreign_code,
            event: self.event.clone(),
            run: self.run.clone(),
        }
    }

    /// The scope that the build has by itself.
    pub fn scope(&self) -> Scope {
        if let Some(request) = &self.pull_request {
            return match &request.number {
                Some(number) => Scope::pull(number),
                // A pull request without a number shares no scope with one that has.
                None => Scope::pull("unknown"),
            };
        }
        if self.foreign_code {
            return Scope::local();
        }
        match self.git_ref.as_deref() {
            Some(_) if self.protected => Scope::protected(),
            Some(name) => match name.strip_prefix("refs/") {
                Some(name) => Scope::branch(name.strip_prefix("heads/").unwrap_or(name)),
                None => Scope::branch(name),
            },
            None => Scope::local(),
        }
    }

    /// What the build reads and writes. `wanted` is a scope that somebody chose, `also` what
    /// they want to be read besides.
    pub fn scopes(
        &self,
        wanted: Option<Scope>,
        also: impl IntoIterator<Item = Scope>,
    ) -> Result<BuildScopes, ScopeRefused> {
        let own = self.scope();
        let request = self.pull_request.as_ref();
        if let Some(wanted) = &wanted
            && request.is_some()
            && *wanted != own
        {
            return Err(ScopeRefused::PullRequest {
                wanted: wanted.clone(),
                own,
            });
        }
        let base = request.and_then(|request| request.base.as_deref());
        let is_own_code = match request {
            Some(request) => request.is_fork == Some(false) && request.number.is_some(),
            None => !self.foreign_code,
        };
        // Somebody who chooses a scope knows what the job builds.
        let saves = is_own_code || (wanted.is_some() && request.is_none());
        let own = wanted.unwrap_or(own);
        debug_assert!(request.is_none() || own.trust() <= Trust::Pull);
        let also = also.into_iter().chain(base.map(Scope::branch));
        Ok(BuildScopes {
            order: SearchOrder::new(own, also),
            saves,
        })
    }
}

#[cfg(test)]
mod tests;
