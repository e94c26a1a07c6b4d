//! The steps of the set-up, for errors.

use std::{fmt, io};

use serde::{Deserialize, Serialize};

/// A step of the set-up that can fail, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// The request was not understood.
    Request,
    /// Starting PID 1.
    Fork,
    /// Making namespaces.
    Namespaces,
    /// Making all mounts private.
    Propagation,
    /// Mounting the root file system.
    Root,
    /// Making the place for generated files.
    Generated,
    /// Mounting `/proc`.
    Proc,
    /// Mounting `/sys`.
    Sys,
    /// Making `/dev`.
    Dev,
    /// Mounting what the step asked for, or a generated file.
    Mount,
    /// Hiding paths of the kernel.
    Mask,
    /// Making the working directory.
    WorkDir,
    /// Setting the host name.
    HostName,
    /// Bringing the loopback device up.
    Loopback,
    /// Changing to the new root.
    PivotRoot,
    /// Standard streams, limits, session.
    Process,
    /// Setting a limit that was asked for.
    Limit,
    /// Dropping capabilities.
    Capabilities,
    /// Loading the seccomp filters.
    Seccomp,
    /// Becoming the step's user.
    User,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Request => "reading the request",
            Self::Fork => "starting the first process",
            Self::Namespaces => "making namespaces",
            Self::Propagation => "making mounts private",
            Self::Root => "mounting the root file system",
            Self::Generated => "making generated files",
            Self::Proc => "mounting /proc",
            Self::Sys => "mounting /sys",
            Self::Dev => "making /dev",
            Self::Mount => "mounting",
            Self::Mask => "hiding paths of the kernel",
            Self::WorkDir => "making the working directory",
            Self::HostName => "setting the host name",
            Self::Loopback => "bringing the loopback device up",
            Self::PivotRoot => "changing the root",
            Self::Process => "preparing the process",
            Self::Limit => "setting a limit",
            Self::Capabilities => "dropping capabilities",
            Self::Seccomp => "loading the system call filter",
            Self::User => "becoming the user",
        })
    }
}

impl Step {
    /// What to do when this step fails with `error`.
    pub(super) fn hint(self, error: &io::Error) -> Option<String> {
        let errno = rustix::io::Errno::from_io_error(error)?;
        let text = match (self, errno) {
            (Self::User, rustix::io::Errno::INVAL) => {
                "the user namespace has no such id: give the build's user a range in `/etc/subuid` and `/etc/subgid`"
            }
            (Self::Namespaces | Self::Root | Self::Proc | Self::Sys, _) => {
                "run `memobuild-ci doctor` to see what this host allows"
            }
            (Self::PivotRoot, rustix::io::Errno::INVAL) => {
                "the host's root is an initial RAM file system, which can't be left: run in a container or on a disk"
            }
            (Self::Limit, rustix::io::Errno::PERM) => {
                "only root raises a limit above the one that the build was started with"
            }
            (Self::Mask, rustix::io::Errno::NOSYS) => "Linux 5.12 or later is needed",
            _ => return None,
        };
        Some(text.to_owned())
    }
}
