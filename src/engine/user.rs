//! Users of an image: names from its own /etc/passwd and /etc/group.
//!
//! The forms are those of USER and `--chown`: `name`, `uid`, `name:group`,
//! `uid:gid` and their mixtures. A name must exist; a number need not.

/// Who a process runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessUser {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary group ids, the primary one among them.
    pub groups: Vec<u32>,
    /// Home directory, for `HOME`.
    pub home: String,
}

/// A user or group that the image does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    /// No line of /etc/passwd has this name.
    #[error("user `{name}` is not in the image's /etc/passwd")]
    UnknownUser {
        /// The name asked for.
        name: String,
    },
    /// No line of /etc/group has this name.
    #[error("group `{name}` is not in the image's /etc/group")]
    UnknownGroup {
        /// The name asked for.
        name: String,
    },
}

/// The user database of an image: the text of its passwd and group files, empty where
/// it has none.
#[derive(Debug, Clone, Copy, Default)]
pub struct UserDatabase<'a> {
    /// /etc/passwd.
    pub passwd: &'a [u8],
    /// /etc/group.
    pub group: &'a [u8],
}

struct PasswdLine<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

struct GroupLine<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

impl<'a> UserDatabase<'a> {
    /// Resolves USER. An empty text is root. A user without a group gets its primary
    /// group from passwd, or the root group if it has no line.
    pub fn process_user(&self, text: &str) -> Result<ProcessUser, UserError> {
        let (user, group) = split(text);
        let user = if user.is_empty() { "0" } else { user };
        let line = self.find_user(user);
        let (uid, primary, home, name) = match (&line, user.parse::<u32>()) {
            (Some(line), _) => (line.uid, line.gid, line.home, Some(line.name)),
            (None, Ok(uid)) => (uid, 0, "/", None),
            (None, Err(_)) => {
                return Err(UserError::UnknownUser {
                    name: user.to_owned(),
                });
            }
        };
        let gid = match group {
            Some(group) => self.group_id(group)?,
            None => primary,
        };
        // As in Docker, supplementary groups count only where no group was asked for.
        let mut groups: Vec<u32> = match (group, name) {
            (None, Some(name)) => self
                .groups()
                .filter(|g| g.members.split(',').any(|m| m == name))
                .map(|g| g.gid)
                .collect(),
            _ => Vec::new(),
        };
        // The primary group is among them, as in containerd.
        groups.retain(|g| *g != gid);
        groups.dedup();
        groups.insert(0, gid);
        Ok(ProcessUser {
            uid,
            gid,
            groups,
            home: home.to_owned(),
        })
    }

    /// Resolves `--chown`, as BuildKit does: a user without a group gets the group of the
    /// same number (a numeric user) or the user's primary group (a name). `root` is always
    /// 0, and so is a user that the image does not have; a group that it does not have
    /// counts as none.
    pub fn owner(&self, text: &str) -> (u32, u32) {
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (text, None),
        };
        let (uid, primary) = match owner_number(user) {
            Some(uid) => (uid, uid),
            None => self
                .users()
                .find(|line| line.name == user)
                .map_or((0, 0), |line| (line.uid, line.gid)),
        };
        let named = |group| self.groups().find(|line| line.name == group);
        let gid = group
            .and_then(|group| owner_number(group).or_else(|| named(group).map(|line| line.gid)));
        (uid, gid.unwrap_or(primary))
    }

    /// The name in a `--chown` that the image does not have.
    pub fn unknown<'t>(&self, text: &'t str) -> Option<&'t str> {
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, group),
            None => (text, ""),
        };
        let no_user = owner_number(user).is_none() && self.users().all(|line| line.name != user);
        let no_group =
            owner_number(group).is_none() && self.groups().all(|line| line.name != group);
        no_user.then_some(user).or(no_group.then_some(group))
    }

    fn find_user(&self, user: &str) -> Option<PasswdLine<'a>> {
        let number = user.parse::<u32>().ok();
        self.users()
            .find(|line| line.name == user || Some(line.uid) == number)
    }

    fn group_id(&self, group: &str) -> Result<u32, UserError> {
        if let Some(line) = self.groups().find(|line| line.name == group) {
            return Ok(line.gid);
        }
        group.parse().map_err(|_| UserError::UnknownGroup {
            name: group.to_owned(),
        })
    }

    fn users(&self) -> impl Iterator<Item = PasswdLine<'a>> {
        lines(self.passwd).filter_map(|line| {
            let mut fields = line.split(':');
            Some(PasswdLine {
                name: fields.next()?,
                uid: fields.nth(1)?.parse().ok()?,
                gid: fields.next()?.parse().ok()?,
                home: fields.nth(1).filter(|h| !h.is_empty()).unwrap_or("/"),
            })
        })
    }

    fn groups(&self) -> impl Iterator<Item = GroupLine<'a>> {
        lines(self.group).filter_map(|line| {
            let mut fields = line.split(':');
            Some(GroupLine {
                name: fields.next()?,
                gid: fields.nth(1)?.parse().ok()?,
                members: fields.next().unwrap_or(""),
            })
        })
    }
}

/// The number that a part of `--chown` stands for; none for a name. An empty part is 0.
fn owner_number(text: &str) -> Option<u32> {
    if matches!(text, "" | "root") {
        return Some(0);
    }
    u32::try_from(text.parse::<i32>().ok()?).ok()
}

fn split(text: &str) -> (&str, Option<&str>) {
    match text.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|g| !g.is_empty())),
        None => (text, None),
    }
}

fn lines(bytes: &[u8]) -> impl Iterator<Item = &str> {
    bytes
        .split(|b| *b == b'\n')
        .filter_map(|line| std::str::from_utf8(line).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATABASE: UserDatabase<'_> = UserDatabase {
        passwd: b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\nbroken\n",
        group: b"root:x:0:\nappg:x:1001:\nextra:x:44:app,other\nweb:x:33:\n",
    };

    #[test]
    fn process_users() {
        let user = |text| DATABASE.process_user(text);
        let app = ProcessUser {
            uid: 1000,
            gid: 1001,
            groups: vec![1001, 44],
            home: "/home/app".to_owned(),
        };
        assert_eq!(user("app").unwrap(), app);
        assert_eq!(user("1000").unwrap(), app);
        assert_eq!(user("").unwrap().home, "/root");
        let other = user("4242:web").unwrap();
        assert_eq!((other.uid, other.gid), (4242, 33));
        assert_eq!(user("app:33").unwrap().groups, [33]);
        assert_eq!(user("4242").unwrap().gid, 0);
        assert!(matches!(user("nobody"), Err(UserError::UnknownUser { .. })));
        assert!(matches!(user("app:x"), Err(UserError::UnknownGroup { .. })));
    }

    #[test]
    fn owners() {
        let owner = |text| DATABASE.owner(text);
        assert_eq!(owner("app"), (1000, 1001));
        assert_eq!(owner("1000"), (1000, 1000));
        assert_eq!(owner("7:8"), (7, 8));
        assert_eq!(owner("app:web"), (1000, 33));
        assert_eq!(owner(":web"), (0, 33));
        assert_eq!(owner("7:"), (7, 0));
        assert_eq!(owner("ghost"), (0, 0));
        assert_eq!(owner("app:ghosts"), (1000, 1001));
        assert_eq!(owner("4294967295"), (0, 0));
        assert_eq!(UserDatabase::default().owner("root:5"), (0, 5));
        let unknown = |text| DATABASE.unknown(text);
        assert_eq!(unknown("ghost:1"), Some("ghost"));
        assert_eq!(unknown("app:ghosts"), Some("ghosts"));
        for known in ["app", "1000", "7:8", "app:web", ":web", "7:", "root"] {
            assert_eq!(unknown(known), None, "{known}");
        }
    }
}
