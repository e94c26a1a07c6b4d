//! Ranges of ids: `/etc/subuid`, `/proc/self/uid_map`, and the maps made from them.

use std::{fmt, str::FromStr};

/// `count` ids from `inside` on in a user namespace are those from `outside` on in
/// its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdRange {
    /// First id inside.
    pub inside: u32,
    /// First id outside.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// The ranges of one kind of id, ascending inside. Its text form, the argument of the
/// hidden subcommand, is `inside:outside:count,…`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IdMap(pub Vec<IdRange>);

impl IdMap {
    /// Root inside is `own` outside, and nobody else exists.
    pub fn single(own: u32) -> Self {
        Self(vec![IdRange {
            inside: 0,
            outside: own,
            count: 1,
        }])
    }

    /// Root inside is `own` outside; the ids from 1 on are the `subordinate` ranges
    /// (`start`, `count`) one after the other.
    pub fn with_subordinates(own: u32, subordinate: &[(u32, u32)]) -> Self {
        let mut map = Self::single(own);
        let mut inside = 1u32;
        for &(outside, count) in subordinate {
            let count = count.min(u32::MAX - inside);
            map.0.push(IdRange {
                inside,
                outside,
                count,
            });
            inside += count;
        }
        map
    }

    /// Every id of this namespace as itself, from the text of `/proc/self/uid_map`.
    pub fn identity(proc_map: &str) -> Self {
        let range = |line: &str| {
            let mut fields = line.split_whitespace();
            let inside = fields.next()?.parse().ok()?;
            let count = fields.nth(1)?.parse().ok()?;
            Some(IdRange {
                inside,
                outside: inside,
                count,
            })
        };
        Self(proc_map.lines().filter_map(range).collect())
    }

    /// Whether `id` exists inside.
    pub fn contains(&self, id: u32) -> bool {
        self.0
            .iter()
            .any(|r| id.checked_sub(r.inside).is_some_and(|n| n < r.count))
    }

    /// What to write to `/proc/<pid>/uid_map`.
    pub fn proc_text(&self) -> String {
        self.0
            .iter()
            .map(|r| format!("{} {} {}\n", r.inside, r.outside, r.count))
            .collect()
    }

    /// The arguments of `newuidmap` after the process id.
    pub fn helper_args(&self) -> impl Iterator<Item = String> {
        self.0
            .iter()
            .flat_map(|r| [r.inside, r.outside, r.count])
            .map(|n| n.to_string())
    }
}

impl fmt::Display for IdMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, r) in self.0.iter().enumerate() {
            let comma = if n == 0 { "" } else { "," };
            write!(f, "{comma}{}:{}:{}", r.inside, r.outside, r.count)?;
        }
        Ok(())
    }
}

impl FromStr for IdMap {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let range = |text: &str| {
            let mut fields = text.split(':');
            let mut number = || fields.next().unwrap_or_default().parse();
            Ok(IdRange {
                inside: number()?,
                outside: number()?,
                count: number()?,
            })
        };
        text.split(',')
            .map(range)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

/// The ranges (`start`, `count`) that a file like `/etc/subuid` gives the user of this
/// name or number (subuid(5)); lines that are not of its form are skipped.
pub(super) fn subordinate_ranges(text: &str, name: Option<&str>, uid: u32) -> Vec<(u32, u32)> {
    let uid = uid.to_string();
    let range = |line: &str| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        if Some(owner) != name && owner != uid {
            return None;
        }
        let start = fields.next()?.parse().ok()?;
        let count = fields.next()?.parse().ok()?;
        (count > 0).then_some((start, count))
    };
    text.lines().filter_map(range).collect()
}

/// The name of the user with this number, from the text of `/etc/passwd`.
pub(super) fn user_name(passwd: &str, uid: u32) -> Option<&str> {
    let uid = uid.to_string();
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subordinate_ranges_follow_root() {
        let text = "# none\nalice:100000:65536\nbob:1:2\n1000:300000:10\nalice:x:1\nalice:5:0\n";
        let ranges = subordinate_ranges(text, Some("alice"), 1000);
        assert_eq!(ranges, [(100_000, 65_536), (300_000, 10)]);
        let map = IdMap::with_subordinates(1000, &ranges);
        assert_eq!(map.to_string(), "0:1000:1,1:100000:65536,65537:300000:10");
        assert_eq!(map.to_string().parse(), Ok(map.clone()));
        assert_eq!(
            map.proc_text(),
            "0 1000 1\n1 100000 65536\n65537 300000 10\n"
        );
        assert!(map.contains(0) && map.contains(65_546) && !map.contains(65_547));
    }

    #[test]
    fn a_single_map_has_root_only() {
        let map = IdMap::single(1000);
        assert!(map.contains(0) && !map.contains(1));
    }

    #[test]
    fn the_identity_of_a_container() {
        let map = IdMap::identity("         0     100000      65536\n     70000   5  1\n");
        assert_eq!(map.to_string(), "0:0:65536,70000:70000:1");
    }

    #[test]
    fn names_are_found_by_number() {
        let passwd = "root:x:0:0::/root:/bin/sh\nbuild:x:1000:1000::/:/bin/sh\n";
        assert_eq!(user_name(passwd, 1000), Some("build"));
        assert_eq!(user_name(passwd, 1), None);
    }
}
