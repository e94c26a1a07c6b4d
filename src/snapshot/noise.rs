//! Files that programs leave behind without anybody wanting them in an image.
//!
//! Their content differs at each run (times, inode numbers, orders of hash tables), so
//! they would make equal steps give different layers. A path of this list is dropped
//! from a step's difference: whatever the step did to it, the lower layers' state
//! stays. The list is part of the canonical form of layers; it can be turned off.
//!
//! | path | written by | why it may go |
//! |---|---|---|
//! | `var/cache/ldconfig/aux-cache` | `ldconfig` | inode numbers and times; `ldconfig` rebuilds it |
//! | `var/cache/apt/{pkgcache,srcpkgcache}.bin` | `apt` | memory image of the package lists; `apt` rebuilds it |
//! | `var/log/dpkg.log`, `var/log/alternatives.log`, `var/log/bootstrap.log` | `dpkg`, `debootstrap` | time stamps |
//! | `var/log/apt/*` | `apt` | time stamps |
//! | `var/log/{dnf,yum,hawkey,dnf.rpm,dnf.librepo}.log`, `var/lib/dnf/history.sqlite*`, `var/log/apk.log` | `dnf`, `yum`, `apk` | time stamps |
//! | `root/.wget-hsts` | `wget` | time stamps |
//! | `root/.npm/_logs/*`, `root/.cache/pip/selfcheck/*` | `npm`, `pip` | time stamps |

use crate::oci::layer::LayerPath;

/// The paths, relative to the root; a last component `*` stands for everything in that
/// directory, a trailing `*` for any rest of the name. Sorted.
const NOISE: &[&str] = &[
    "root/.cache/pip/selfcheck/*",
    "root/.npm/_logs/*",
    "root/.wget-hsts",
    "var/cache/apt/pkgcache.bin",
    "var/cache/apt/srcpkgcache.bin",
    "var/cache/ldconfig/aux-cache",
    "var/lib/dnf/history.sqlite*",
    "var/log/alternatives.log",
    "var/log/apk.log",
    "var/log/apt/*",
    "var/log/bootstrap.log",
    "var/log/dnf.librepo.log",
    "var/log/dnf.log",
    "var/log/dnf.rpm.log",
    "var/log/dpkg.log",
    "var/log/hawkey.log",
    "var/log/yum.log",
];

/// Whether the path is on the list.
pub(super) fn is_noise(path: &LayerPath) -> bool {
    let path = path.as_bytes();
    // Only these two directories are on the list: most paths need no closer look.
    if !path.starts_with(b"var/") && !path.starts_with(b"root/") {
        return false;
    }
    NOISE.iter().any(|pattern| match pattern.strip_suffix('*') {
        Some(prefix) => path.strip_prefix(prefix.as_bytes()).is_some_and(|rest| {
            !rest.contains(&b'/') && (!rest.is_empty() || !prefix.ends_with('/'))
        }),
        None => path == pattern.as_bytes(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(path: &str) -> bool {
        is_noise(&LayerPath::new(path).unwrap())
    }

    #[test]
    fn patterns_match_whole_names_in_their_directory() {
        assert!(noise("var/log/dpkg.log"));
        assert!(noise("var/log/apt/history.log"));
        assert!(noise("var/lib/dnf/history.sqlite"));
        assert!(noise("var/lib/dnf/history.sqlite-wal"));
        assert!(!noise("var/log/apt"));
        assert!(!noise("var/log/apt/sub/file"));
        assert!(!noise("var/log/dpkg.log.1"));
        assert!(!noise("srv/var/log/dpkg.log"));
        assert!(!noise("var/lib/dpkg/status"));
    }

    #[test]
    fn the_list_is_sorted_and_without_duplicates() {
        assert!(NOISE.is_sorted_by(|a, b| a < b));
    }
}
