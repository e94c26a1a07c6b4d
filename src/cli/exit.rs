//! Exit codes: what a script can tell from the number alone.
//!
//! The numbers are an interface: they are only added, never changed. A caller treats
//! a number that it does not know as a failure. `docs/reference/exit-codes.md` is
//! generated from [`ExitCode::ALL`].

/// How the program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ExitCode {
    /// All that was asked for is done.
    Success = 0,
    /// Something that has no code of its own; a bug in memobuild-ci at worst.
    Internal = 1,
    /// The command line is wrong.
    Usage = 2,
    /// `plan --exit-code` found changes.
    ChangesFound = 10,
    /// Build checks found violations.
    ViolationsFound = 11,
    /// A Dockerfile is invalid or asks for what is not supported.
    InvalidDockerfile = 20,
    /// The configuration or an environment variable is invalid.
    InvalidConfiguration = 21,
    /// A step of the build failed.
    StepFailed = 30,
    /// A step of the build took longer than it may.
    StepTimedOut = 31,
    /// The network or a registry failed in a way that passes.
    Transient = 40,
    /// A registry or a file denies access.
    Denied = 41,
    /// An image, a file or a build context does not exist.
    NotFound = 42,
    /// Bytes are not what their digest says.
    Integrity = 43,
    /// The host cannot run steps.
    HostUnsupported = 50,
    /// Stopped by SIGINT.
    Interrupted = 130,
    /// Stopped by SIGTERM.
    Terminated = 143,
}

impl ExitCode {
    /// All codes, by number.
    pub const ALL: &[Self] = &[
        Self::Success,
        Self::Internal,
        Self::Usage,
        Self::ChangesFound,
        Self::ViolationsFound,
        Self::InvalidDockerfile,
        Self::InvalidConfiguration,
        Self::StepFailed,
        Self::StepTimedOut,
        Self::Transient,
        Self::Denied,
        Self::NotFound,
        Self::Integrity,
        Self::HostUnsupported,
        Self::Interrupted,
        Self::Terminated,
    ];

    /// The number.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// One word or two.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Internal => "internal",
            Self::Usage => "usage",
            Self::ChangesFound => "changes found",
            Self::ViolationsFound => "violations found",
            Self::InvalidDockerfile => "invalid Dockerfile",
            Self::InvalidConfiguration => "invalid configuration",
            Self::StepFailed => "step failed",
            Self::StepTimedOut => "step timed out",
            Self::Transient => "transient",
            Self::Denied => "denied",
            Self::NotFound => "not found",
            Self::Integrity => "integrity",
            Self::HostUnsupported => "host unsupported",
            Self::Interrupted => "interrupted",
            Self::Terminated => "terminated",
        }
    }

    /// What it means and what to do about it.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Success => "all that was asked for is done",
            Self::Internal => {
                "something else failed: the message says what (a full disk, for instance); `internal error` is a bug to report"
            }
            Self::Usage => "the command line is wrong: see `--help`",
            Self::ChangesFound => {
                "there is something to build; only given when `plan --exit-code` asks for it"
            }
            Self::ViolationsFound => {
                "build checks found something: with `build --check`, or in a build of a Dockerfile that says `# check=error=true`"
            }
            Self::InvalidDockerfile => {
                "a Dockerfile or `.dockerignore` is invalid, or uses what is not supported yet"
            }
            Self::InvalidConfiguration => {
                "`memobuild.yml` or an environment variable is invalid; the message says where"
            }
            Self::StepFailed => "a step failed: the command of a RUN, or a COPY that can't be done",
            Self::StepTimedOut => "a step took longer than it may",
            Self::Transient => {
                "the network failed, or a registry answered 429 or 5xx, after all retries: safe to run again"
            }
            Self::Denied => {
                "a registry refused the credentials, or the system refused access to a file"
            }
            Self::NotFound => {
                "an image, a file or a build context does not exist, or no Docker for `--load`"
            }
            Self::Integrity => {
                "bytes are not what their digest says, and no good copy could be had"
            }
            Self::HostUnsupported => "this host can't run steps: `memobuild-ci doctor` says why",
            Self::Interrupted => "stopped by SIGINT; finished steps stay in the cache",
            Self::Terminated => "stopped by SIGTERM; finished steps stay in the cache",
        }
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        code.code().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_sorted_and_without_repeats() {
        let codes: Vec<u8> = ExitCode::ALL.iter().map(|c| c.code()).collect();
        assert!(codes.is_sorted_by(|a, b| a < b), "{codes:?}");
    }
}
