//! Capabilities: Docker's default set, no more.

use rustix::thread::{CapabilitySet, CapabilitySets};

/// What root has in a container of Docker's (`moby/moby`, `oci/caps`): `00000000a80425fb`.
pub(super) const DEFAULT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::AUDIT_WRITE)
    .union(CapabilitySet::SETFCAP);

/// Removes all others from the bounding set: no setuid or file-capability program can
/// bring them back.
pub(super) fn limit() -> rustix::io::Result<()> {
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if DEFAULT.contains(capability) {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            // The first number the kernel doesn't know: all done.
            Err(rustix::io::Errno::INVAL) => break,
            result => result?,
        }
    }
    Ok(())
}

/// Sets what this process has: the default set as root, nothing as anybody else.
pub(super) fn keep(root: bool) -> rustix::io::Result<()> {
    rustix::thread::clear_ambient_capability_set()?;
    let wanted = if root {
        DEFAULT
    } else {
        CapabilitySet::empty()
    };
    // In a container some may be missing from the start.
    let wanted = wanted & rustix::thread::capabilities(None)?.permitted;
    rustix::thread::set_capabilities(
        None,
        CapabilitySets {
            effective: wanted,
            permitted: wanted,
            inheritable: CapabilitySet::empty(),
        },
    )
}

/// Keeps everything this process may have, for all that it executes, while `change_user`
/// makes it another user's.
pub(super) fn keep_all(
    change_user: impl FnOnce() -> rustix::io::Result<()>,
) -> rustix::io::Result<()> {
    rustix::thread::set_keep_capabilities(true)?;
    change_user()?;
    let all = rustix::thread::capabilities(None)?.permitted;
    rustix::thread::set_capabilities(
        None,
        CapabilitySets {
            effective: all,
            permitted: all,
            inheritable: all,
        },
    )?;
    for capability in all.iter() {
        rustix::thread::configure_capability_in_ambient_set(capability, true)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_set_is_dockers() {
        assert_eq!(super::DEFAULT.bits(), 0xa804_25fb);
    }
}
