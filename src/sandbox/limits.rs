//! Resource limits that a step was given.

use std::io;

use rustix::process::{Resource, Rlimit};

use crate::graph::{LimitName, Ulimit};

/// Sets them; the error names the limit.
pub(super) fn set(limits: &[Ulimit]) -> Result<(), (String, io::Error)> {
    for limit in limits {
        let wanted = Rlimit {
            current: limit.soft,
            maximum: limit.hard,
        };
        rustix::process::setrlimit(resource(limit.name), wanted)
            .map_err(|e| (limit.name.name().to_owned(), e.into()))?;
    }
    Ok(())
}

fn resource(name: LimitName) -> Resource {
    match name {
        LimitName::As => Resource::As,
        LimitName::Core => Resource::Core,
        LimitName::Cpu => Resource::Cpu,
        LimitName::Data => Resource::Data,
        LimitName::Fsize => Resource::Fsize,
        LimitName::Locks => Resource::Locks,
        LimitName::Memlock => Resource::Memlock,
        LimitName::Msgqueue => Resource::Msgqueue,
        LimitName::Nice => Resource::Nice,
        LimitName::Nofile => Resource::Nofile,
        LimitName::Nproc => Resource::Nproc,
        LimitName::Rss => Resource::Rss,
        LimitName::Rtprio => Resource::Rtprio,
        LimitName::Rttime => Resource::Rttime,
        LimitName::Sigpending => Resource::Sigpending,
        LimitName::Stack => Resource::Stack,
    }
}
