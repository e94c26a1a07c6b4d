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
//! | on a CI platform that isn't in [`Platform`] | `local` | | no |
//! | outside of CI | `local` | | yes |
//!
//! What is built, and what that is to be compared with, follows too: [`CiContext::base`] is a request
//! that `git::resolve` answers in the repository; each platform's file has its table.
//! Texts are as the platform gives them, which are anybody's: names of branches may hold what they like.
//!
//! What the variables say is what the job says: a job that lies about itself gets another scope
//! here. That it gets nowhere with it is the business of the cache's server (`docs/internals/security.md`).

mod actions;
mod azure;
mod bitbucket;
mod buildkite;
mod circle;
mod cloudbuild;
mod codebuild;
mod drone;
mod event;
mod gitlab;
mod jenkins;
mod payload;
mod request;
mod woodpecker;

pub use event::Event;
use payload::Payload;
pub use payload::PayloadError;

use crate::{
    cache::{Producer, Scope, SearchOrder, Trust},
    config::env::{ELSEWHERE, Env},
    git::base::{BasePlace, BaseReason, BaseRequest},
};

/// Name and version of the program, as entries state it.
const TOOL: &str = concat!("memobuild-ci ", env!("CARGO_PKG_VERSION"));

/// A CI platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Platform {
    /// Woodpecker.
    Woodpecker,
    /// Drone.
    Drone,
    /// Forgejo Actions.
    Forgejo,
    /// Gitea Actions.
    Gitea,
    /// GitHub Actions.
    GitHub,
    /// GitLab CI.
    GitLab,
    /// Azure Pipelines.
    Azure,
    /// Buildkite.
    Buildkite,
    /// CircleCI.
    Circle,
    /// AWS CodeBuild.
    CodeBuild,
    /// Jenkins.
    Jenkins,
    /// Bitbucket Pipelines.
    Bitbucket,
    /// Google Cloud Build.
    CloudBuild,
    /// One that this program doesn't know.
    Other,
    /// None: somebody's machine.
    None,
}

impl Platform {
    /// Its name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Woodpecker => "Woodpecker",
            Self::Drone => "Drone",
            Self::Forgejo => "Forgejo Actions",
            Self::Gitea => "Gitea Actions",
            Self::GitHub => "GitHub Actions",
            Self::GitLab => "GitLab CI",
            Self::Azure => "Azure Pipelines",
            Self::Buildkite => "Buildkite",
            Self::Circle => "CircleCI",
            Self::CodeBuild => "AWS CodeBuild",
            Self::Jenkins => "Jenkins",
            Self::Bitbucket => "Bitbucket Pipelines",
            Self::CloudBuild => "Google Cloud Build",
            Self::Other => "an unknown CI platform",
            Self::None => "no CI platform",
        }
    }

    /// Its name for programs.
    pub fn word(self) -> &'static str {
        match self {
            Self::Woodpecker => "woodpecker",
            Self::Drone => "drone",
            Self::Forgejo => "forgejo",
            Self::Gitea => "gitea",
            Self::GitHub => "github",
            Self::GitLab => "gitlab",
            Self::Azure => "azure",
            Self::Buildkite => "buildkite",
            Self::Circle => "circleci",
            Self::CodeBuild => "codebuild",
            Self::Jenkins => "jenkins",
            Self::Bitbucket => "bitbucket",
            Self::CloudBuild => "cloud-build",
            Self::Other => "other",
            Self::None => "none",
        }
    }

    /// The platform whose variables are set. The order matters: Forgejo says that it is Gitea, both
    /// say that they are GitHub, and Woodpecker has variables of GitLab's names.
    fn of(env: &Env) -> Self {
        let has = |name| env.platform(name).is_some();
        let is_set = |name| env.platform(name).is_some_and(|value| value != "false");
        match () {
            () if env.platform("CI") == Some("woodpecker") => Self::Woodpecker,
            () if is_set("DRONE") => Self::Drone,
            () if is_set("FORGEJO_ACTIONS") => Self::Forgejo,
            () if is_set("GITEA_ACTIONS") => Self::Gitea,
            () if is_set("GITHUB_ACTIONS") => Self::GitHub,
            // Set, to whatever: a local runner of GitLab's jobs sets it to `false`.
            () if has("GITLAB_CI") => Self::GitLab,
            () if is_set("TF_BUILD") => Self::Azure,
            () if is_set("BUILDKITE") => Self::Buildkite,
            () if is_set("CIRCLECI") => Self::Circle,
            () if has("CODEBUILD_BUILD_ID") => Self::CodeBuild,
            () if has("JENKINS_URL") => Self::Jenkins,
            () if has("BITBUCKET_BUILD_NUMBER") => Self::Bitbucket,
            () if is_set("GOOGLE_CLOUD_BUILD") => Self::CloudBuild,
            () if env.ci() || ELSEWHERE.iter().any(|name| is_set(name)) => Self::Other,
            () => Self::None,
        }
    }
}

/// What is known about the build from where it runs.
#[derive(Debug)]
pub struct CiContext {
    /// Where it runs.
    pub platform: Platform,
    /// The repository, as the platform names it: `acme/service`.
    pub repository: Option<String>,
    /// The Git ref that is built, in full: `refs/heads/main`.
    pub git_ref: Option<String>,
    /// Whether the platform says that only trusted people can change that ref.
    pub protected: bool,
    /// What happened.
    pub event: Event,
    /// The event, in the platform's word.
    pub event_name: Option<String>,
    /// The commit that the platform says is built. What is built is what is checked out.
    pub head: Option<String>,
    /// The repository's default branch, without `refs/heads/`.
    pub default_branch: Option<String>,
    /// The branch that the change is for: of a pull request or a merge queue.
    pub target_branch: Option<String>,
    /// The messages of the commits that the event is about, as far as the platform gives them.
    pub messages: Vec<String>,
    /// The address of the run, else its number.
    pub run: Option<String>,
    /// The pull or merge request that is built.
    pub pull_request: Option<PullRequest>,
    /// Whether the event may bring code of somebody else than the ref says.
    pub foreign_code: bool,
    /// Where the commit may be found that the build is compared with.
    pub base: BaseRequest,
    /// What the platform says that couldn't be read.
    pub trouble: Vec<PayloadError>,
}

/// A pull or merge request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PullRequest {
    /// Its number within the repository.
    pub number: Option<String>,
    /// The branch it is for, without `refs/heads/`.
    pub base: Option<String>,
    /// The branch it comes from, without `refs/heads/`; of a fork, that fork's.
    pub source: Option<String>,
    /// Whether it comes from another repository; none: that isn't known.
    pub is_fork: Option<bool>,
    /// Its labels, where the platform tells.
    pub labels: Vec<String>,
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
    let platform = Platform::of(env);
    match platform {
        Platform::Woodpecker => woodpecker::detect(env),
        Platform::Drone => drone::detect(env),
        Platform::GitHub | Platform::Gitea | Platform::Forgejo => actions::detect(platform, env),
        Platform::GitLab => gitlab::detect(env),
        Platform::Azure => azure::detect(env),
        Platform::Buildkite => buildkite::detect(env),
        Platform::Circle => circle::detect(env),
        Platform::CodeBuild => codebuild::detect(env),
        Platform::Jenkins => jenkins::detect(env),
        Platform::Bitbucket => bitbucket::detect(env),
        Platform::CloudBuild => cloudbuild::detect(env),
        Platform::Other => CiContext {
            base: BaseRequest::none(BaseReason::NoEvent)
                .or(request::left(None), BaseReason::DefaultBranch),
            ..CiContext::unknown(platform)
        },
        Platform::None => CiContext {
            base: BaseRequest::none(BaseReason::NoEvent)
                .or(request::left(None), BaseReason::DefaultBranch)
                .or(BasePlace::FirstParent, BaseReason::LastCommit),
            ..CiContext::unknown(platform)
        },
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
            event: Event::Unknown,
            event_name: None,
            head: None,
            default_branch: None,
            target_branch: None,
            messages: Vec::new(),
            run: None,
            pull_request: None,
            foreign_code: platform != Platform::None,
            base: BaseRequest::none(BaseReason::NoEvent),
            trouble: Vec::new(),
        }
    }

    /// The branch that is built, without `refs/heads/`; none for a tag or a pull request.
    pub fn branch(&self) -> Option<&str> {
        match self.pull_request {
            Some(_) => None,
            None => self.git_ref.as_deref()?.strip_prefix("refs/heads/"),
        }
    }

    /// The branch that the change comes from: that of the pull request, else the one that is built.
    pub fn source_branch(&self) -> Option<&str> {
        match &self.pull_request {
            Some(request) => request.source.as_deref(),
            None => self.branch(),
        }
    }

    /// The tag that is built, without `refs/tags/`.
    pub fn tag(&self) -> Option<&str> {
        self.git_ref.as_deref()?.strip_prefix("refs/tags/")
    }

    /// Who made the entries of this build.
    pub fn producer(&self) -> Producer {
        Producer {
            tool: TOOL.to_owned(),
            repository: self.repository.clone(),
            git_ref: self.git_ref.clone(),
            protected: self.protected && self.pull_request.is_none() && !self.foreign_code,
            event: self.event_name.clone(),
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

    /// What the build reads and writes where nobody chose anything.
    pub fn own_scopes(&self) -> BuildScopes {
        self.order(self.scope(), [], false)
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
        let chosen = wanted.is_some();
        Ok(self.order(wanted.unwrap_or(own), also, chosen))
    }

    /// The build with this scope of its own, which somebody has chosen or not.
    fn order(
        &self,
        own: Scope,
        also: impl IntoIterator<Item = Scope>,
        chosen: bool,
    ) -> BuildScopes {
        let request = self.pull_request.as_ref();
        let base = request.and_then(|request| request.base.as_deref());
        let is_own_code = match request {
            Some(request) => request.is_fork == Some(false) && request.number.is_some(),
            None => !self.foreign_code,
        };
        // Somebody who chooses a scope knows what the job builds.
        let saves = is_own_code || (chosen && request.is_none());
        debug_assert!(request.is_none() || own.trust() <= Trust::Pull);
        let also = also.into_iter().chain(base.map(Scope::branch));
        BuildScopes {
            order: SearchOrder::new(own, also),
            saves,
        }
    }
}

#[cfg(test)]
mod tests;
