//! `RUN --mount` and `RUN --device`: comma-separated `key=value` fields (RFC 4180 quoting).

use super::{error::Problem, suggest::nearest};

/// A mount as written: its values may hold variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountFlag {
    /// Keys in lower case, with their values.
    fields: Vec<(String, Option<String>)>,
}

/// A mount whose values are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// `type`.
    pub kind: MountKind,
    /// `from`: a stage, an image or a named context.
    pub from: Option<String>,
    /// `source`.
    pub source: Option<String>,
    /// `target`, as written.
    pub target: String,
    /// Whether the process may not write.
    pub readonly: bool,
    /// `size` in bytes (tmpfs).
    pub size: Option<u64>,
    /// `id` (cache, secret, ssh).
    pub id: Option<String>,
    /// `sharing` (cache): `shared`, `private` or `locked`.
    pub sharing: Option<String>,
    /// `required` (secret, ssh).
    pub required: bool,
    /// `env` (secret): the variable to set.
    pub env: Option<String>,
    /// `mode` (cache, secret, ssh).
    pub mode: Option<u32>,
    /// `uid` (cache, secret, ssh).
    pub uid: Option<u32>,
    /// `gid` (cache, secret, ssh).
    pub gid: Option<u32>,
}

/// The type of a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MountKind {
    /// Files of a stage, an image or a context.
    Bind,
    /// A directory kept between builds.
    Cache,
    /// Memory.
    Tmpfs,
    /// A secret file or variable.
    Secret,
    /// An SSH agent's socket.
    Ssh,
}

impl MountKind {
    const ALL: [(&'static str, Self); 5] = [
        ("bind", Self::Bind),
        ("cache", Self::Cache),
        ("tmpfs", Self::Tmpfs),
        ("secret", Self::Secret),
        ("ssh", Self::Ssh),
    ];

    /// As in `type=`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Cache => "cache",
            Self::Tmpfs => "tmpfs",
            Self::Secret => "secret",
            Self::Ssh => "ssh",
        }
    }
}

/// A problem with a mount, and a hint.
pub(super) type MountProblem = (Problem, Option<String>);

/// Keys, with the name that we use for them.
const KEYS: [(&str, &str); 19] = [
    ("type", "type"),
    ("from", "from"),
    ("source", "source"),
    ("src", "source"),
    ("target", "target"),
    ("dst", "target"),
    ("destination", "target"),
    ("readonly", "readonly"),
    ("ro", "readonly"),
    ("readwrite", "readwrite"),
    ("rw", "readwrite"),
    ("size", "size"),
    ("id", "id"),
    ("sharing", "sharing"),
    ("required", "required"),
    ("env", "env"),
    ("mode", "mode"),
    ("uid", "uid"),
    ("gid", "gid"),
];

impl MountFlag {
    /// Splits a flag's value and checks what can be checked before expansion.
    pub(super) fn parse(text: &str) -> Result<Self, MountProblem> {
        let mut fields = Vec::new();
        for field in csv_fields(text) {
            let (written, value) = match field.split_once('=') {
                Some((key, value)) => (key.to_ascii_lowercase(), Some(value.to_owned())),
                None => (field.to_ascii_lowercase(), None),
            };
            let Some((_, key)) = KEYS.iter().find(|(k, _)| *k == written) else {
                let hint = nearest(&written, KEYS.iter().map(|(k, _)| *k))
                    .map(|k| format!("did you mean `{k}`?"));
                return Err((Problem::MountKey { key: written }, hint));
            };
            let may_stand_alone = matches!(*key, "readonly" | "readwrite" | "required");
            if value.is_none() && !may_stand_alone {
                return Err((Problem::MountKeyWithoutValue { key: written }, None));
            }
            if *key == "from" && value.as_ref().is_some_and(|v| v.contains('$')) {
                let problem = Problem::FromVariable {
                    text: value.unwrap_or_default(),
                };
                return Err((problem, Some(FROM_HINT.to_owned())));
            }
            fields.push(((*key).to_owned(), value));
        }
        let flag = Self { fields };
        if !flag.has_variables() {
            flag.resolve(|value| Ok::<_, MountProblem>(value.to_owned()))?;
        }
        Ok(flag)
    }

    /// `from`, which never holds a variable.
    pub fn from(&self) -> Option<&str> {
        let field = self.fields.iter().rev().find(|(key, _)| key == "from")?;
        field.1.as_deref().filter(|v| !v.is_empty())
    }

    fn has_variables(&self) -> bool {
        let values = self.fields.iter().filter_map(|(_, value)| value.as_ref());
        values
            .into_iter()
            .any(|value| value.contains(['$', '\\', '"', '\'']))
    }

    /// The mount, each value put through `expand`. Errors are those of `expand`, or of
    /// a value that isn't one of its key.
    pub fn resolve<E: From<(Problem, Option<String>)>>(
        &self,
        mut expand: impl FnMut(&str) -> Result<String, E>,
    ) -> Result<Mount, E> {
        let mut mount = Mount {
            kind: MountKind::Bind,
            from: None,
            source: None,
            target: String::new(),
            readonly: false,
            size: None,
            id: None,
            sharing: None,
            required: false,
            env: None,
            mode: None,
            uid: None,
            gid: None,
        };
        let mut readonly = None;
        for (key, value) in &self.fields {
            let value = match value {
                Some(value) => Some(expand(value)?),
                None => None,
            };
            mount.set(key, value, &mut readonly)?;
        }
        let kind = mount.kind;
        mount.readonly = readonly.unwrap_or(!matches!(kind, MountKind::Cache | MountKind::Tmpfs));
        self.check(&mount)?;
        Ok(mount)
    }

    /// Keys that the type doesn't take, keys that it needs.
    fn check(&self, mount: &Mount) -> Result<(), MountProblem> {
        use MountKind::{Bind, Cache, Secret, Ssh, Tmpfs};
        let kind = mount.kind;
        for (key, _) in &self.fields {
            let fits = match key.as_str() {
                "mode" | "uid" | "gid" => matches!(kind, Cache | Secret | Ssh),
                "sharing" => kind == Cache,
                "size" => kind == Tmpfs,
                "required" => matches!(kind, Secret | Ssh),
                "env" => kind == Secret,
                "from" => matches!(kind, Bind | Cache),
                "source" => kind != Ssh,
                _ => true,
            };
            if !fits {
                let problem = Problem::MountKeyType {
                    key: key.clone(),
                    kind: kind.name().to_owned(),
                };
                return Err((problem, None));
            }
        }
        if kind != Secret {
            return Ok(());
        }
        if mount.source.is_some() && mount.id.is_some() {
            return Err((Problem::MountSecretNames, None));
        }
        if mount.id.is_none() && mount.source.is_none() && mount.target.is_empty() {
            let problem = Problem::MountNeeds {
                kind: kind.name().to_owned(),
                key: "id",
            };
            return Err((problem, None));
        }
        Ok(())
    }
}

pub(super) const FROM_HINT: &str =
    "give the image a stage of its own, `FROM $NAME AS alias`, and name that";

impl Mount {
    fn set(
        &mut self,
        key: &str,
        value: Option<String>,
        readonly: &mut Option<bool>,
    ) -> Result<(), MountProblem> {
        let bad = |value: &str| {
            let problem = Problem::MountValue {
                key: key.to_owned(),
                value: value.to_owned(),
            };
            (problem, None)
        };
        let text = value.clone().unwrap_or_default();
        let switch = || match text.to_ascii_lowercase().as_str() {
            "" if value.is_none() => Ok(true),
            "true" | "1" | "t" => Ok(true),
            "false" | "0" | "f" => Ok(false),
            _ => Err(bad(&text)),
        };
        match key {
            "type" => {
                let name = text.to_ascii_lowercase();
                let known = MountKind::ALL.iter().find(|(n, _)| *n == name);
                self.kind = known.map(|(_, kind)| *kind).ok_or_else(|| {
                    let names = MountKind::ALL.iter().map(|(n, _)| *n);
                    let hint = nearest(&name, names).map(|n| format!("did you mean `{n}`?"));
                    (bad(&text).0, hint)
                })?;
            }
            "from" => self.from = value.filter(|v| !v.is_empty()),
            "source" => self.source = value.filter(|v| !v.is_empty()),
            "target" => self.target = text,
            "readonly" => *readonly = Some(switch()?),
            "readwrite" => *readonly = Some(!switch()?),
            // These two count only behind their `type`.
            "required" if !matches!(self.kind, MountKind::Secret | MountKind::Ssh) => {
                return Err(misplaced(key, self.kind));
            }
            "size" if self.kind != MountKind::Tmpfs => return Err(misplaced(key, self.kind)),
            "required" => self.required = switch()?,
            "size" => self.size = Some(bytes(&text).ok_or_else(|| bad(&text))?),
            "id" => self.id = value.filter(|v| !v.is_empty()),
            "sharing" => {
                let name = text.to_ascii_lowercase();
                if !matches!(name.as_str(), "shared" | "private" | "locked") {
                    return Err(bad(&text));
                }
                self.sharing = Some(name);
            }
            "mode" => {
                let mode = u32::from_str_radix(&text, 8).ok().filter(|m| *m <= 0o7777);
                self.mode = Some(mode.ok_or_else(|| bad(&text))?);
            }
            "uid" => self.uid = Some(text.parse().map_err(|_| bad(&text))?),
            "gid" => self.gid = Some(text.parse().map_err(|_| bad(&text))?),
            _ => self.env = Some(value.filter(|v| !v.is_empty()).ok_or_else(|| bad(""))?),
        }
        Ok(())
    }
}

/// A key that the type so far doesn't take.
fn misplaced(key: &str, kind: MountKind) -> MountProblem {
    let problem = Problem::MountKeyType {
        key: key.to_owned(),
        kind: kind.name().to_owned(),
    };
    let first = (kind == MountKind::Bind).then(|| "write `type=` first".to_owned());
    (problem, first)
}

/// A size such as `64m` or `1.5 GiB`: binary units, with or without `b` or `ib`.
pub fn bytes(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(lower.len());
    let (number, unit) = lower.split_at(digits);
    let shift = match unit.strip_prefix(' ').unwrap_or(unit) {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        "p" | "pb" | "pib" => 50,
        _ => return None,
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    let unit = 1u64 << shift;
    let whole = whole.parse::<u64>().ok()?.checked_mul(unit)?;
    // More digits than these say nothing more.
    let part = &part[..part.len().min(6)];
    let scale = 10u128.pow(u32::try_from(part.len()).ok()?);
    let part = u128::from(part.parse::<u32>().ok()?) * u128::from(unit) / scale;
    whole.checked_add(u64::try_from(part).ok()?)
}

/// A device of `RUN --device`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceFlag {
    /// The device's name, or that of a class.
    pub name: String,
    /// Whether the step can't do without.
    pub required: bool,
}

impl DeviceFlag {
    /// `NAME[,required]`, `name=NAME,required=true`. A name may hold `=` itself.
    pub(super) fn parse(text: &str) -> Result<Self, MountProblem> {
        let mut name = None;
        let mut required = false;
        let unknown = |field: &str| {
            let key = field.split('=').next().unwrap_or_default().to_owned();
            let hint = nearest(&key, ["name", "required"]);
            let hint = hint.map(|k| format!("did you mean `{k}`?"));
            (
                Problem::DeviceField {
                    field: field.to_owned(),
                },
                hint,
            )
        };
        for field in csv_fields(text) {
            let (key, value) = match field.split_once('=') {
                Some((key, value)) => (key.to_ascii_lowercase(), Some(value)),
                None => (field.to_ascii_lowercase(), None),
            };
            match (key.as_str(), value) {
                ("required", None | Some("1" | "t" | "T" | "true" | "True" | "TRUE")) => {
                    required = true;
                }
                ("required", Some("0" | "f" | "F" | "false" | "False" | "FALSE")) => {
                    required = false;
                }
                ("required", Some(_)) => return Err(unknown(&field)),
                ("name", Some(value)) if name.is_none() => name = Some(value.to_owned()),
                _ if name.is_none() => name = Some(field),
                _ => return Err(unknown(&field)),
            }
        }
        match name.filter(|name| !name.is_empty()) {
            Some(name) => Ok(Self { name, required }),
            None => Err((
                Problem::DeviceField {
                    field: text.to_owned(),
                },
                None,
            )),
        }
    }
}

/// The fields of one CSV record; a field in double quotes may hold commas.
pub fn csv_fields(text: &str) -> Vec<String> {
    let mut fields = Vec::new();
    let mut field = String::new();
    let mut quoted = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.next_if_eq(&'"').is_some() => field.push('"'),
            '"' if quoted => quoted = false,
            '"' if field.is_empty() => quoted = true,
            ',' if !quoted => fields.push(std::mem::take(&mut field)),
            c => field.push(c),
        }
    }
    fields.push(field);
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(bytes("64m"), Some(64 << 20));
        assert_eq!(bytes("1.5 GiB"), Some(3 << 29));
        assert_eq!(bytes("1k"), Some(1024));
        assert_eq!(bytes("77"), Some(77));
        for bad in ["", "m", "1x", "1.2.3", "99999999999t", "-1"] {
            assert_eq!(bytes(bad), None, "{bad}");
        }
    }

    #[test]
    fn devices() {
        let device = |text| DeviceFlag::parse(text);
        let named = |name: &str, required| DeviceFlag {
            name: name.to_owned(),
            required,
        };
        for (text, required) in [
            ("v.example/d=a", false),
            ("v.example/d=a,required", true),
            ("v.example/d=a,required=true", true),
            ("v.example/d=a,required=false", false),
            ("name=v.example/d=a,required", true),
        ] {
            assert_eq!(device(text), Ok(named("v.example/d=a", required)), "{text}");
        }
        assert_eq!(device("v.example/d"), Ok(named("v.example/d", false)));
        assert!(device("v.example/d=a,name=other").is_err());
        assert!(device("v.example/d=a,requird").is_err());
        assert!(device("required").is_err());
    }
}
