//! What a RUN may ask for beyond the ordinary sandbox.

use crate::device::Device;

/// Requests that few steps have. Each that is made is in the step's key; a step that
/// makes none has the key it would have if there were no such requests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StepExtras {
    /// `--security=insecure`: all capabilities, no system call filter.
    pub insecure: bool,
    /// `--device`, resolved.
    pub devices: Vec<Device>,
    /// `--ulimit`.
    pub ulimits: Vec<Ulimit>,
    /// `--shm-size`: bytes of `/dev/shm`.
    pub shm_size: Option<u64>,
    /// The host name, if it is not the usual one (`BUILDKIT_SANDBOX_HOSTNAME`).
    pub hostname: Option<String>,
    /// `--mount=type=secret,env=…`.
    pub secret_variables: Vec<SecretVariable>,
}

/// A secret that the process gets in a variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretVariable {
    /// Which secret.
    pub id: String,
    /// Name of the variable.
    pub name: String,
    /// Whether the step fails without the secret; else the variable is empty then.
    pub required: bool,
}

/// A resource limit (`setrlimit(2)`).
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Ulimit {
    /// Docker's name: `nofile`.
    pub name: LimitName,
    /// What applies; none for unlimited.
    pub soft: Option<u64>,
    /// Up to where the process may raise it; none for unlimited.
    pub hard: Option<u64>,
}

/// The limits that can be set, by Docker's names.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "getrlimit(2) explains them")]
pub enum LimitName {
    As,
    Core,
    Cpu,
    Data,
    Fsize,
    Locks,
    Memlock,
    Msgqueue,
    Nice,
    Nofile,
    Nproc,
    Rss,
    Rtprio,
    Rttime,
    Sigpending,
    Stack,
}

impl LimitName {
    /// All of them, by name.
    pub const ALL: [(&'static str, Self); 16] = [
        ("as", Self::As),
        ("core", Self::Core),
        ("cpu", Self::Cpu),
        ("data", Self::Data),
        ("fsize", Self::Fsize),
        ("locks", Self::Locks),
        ("memlock", Self::Memlock),
        ("msgqueue", Self::Msgqueue),
        ("nice", Self::Nice),
        ("nofile", Self::Nofile),
        ("nproc", Self::Nproc),
        ("rss", Self::Rss),
        ("rtprio", Self::Rtprio),
        ("rttime", Self::Rttime),
        ("sigpending", Self::Sigpending),
        ("stack", Self::Stack),
    ];

    /// The name, as in `--ulimit`.
    pub fn name(self) -> &'static str {
        let named = Self::ALL.iter().find(|(_, limit)| *limit == self);
        named.map_or("", |(name, _)| name)
    }
}

/// Why a text is no limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UlimitError {
    /// Not of the form.
    #[error("it is not `NAME=SOFT[:HARD]`")]
    Form,
    /// No limit has this name.
    #[error("there is no limit `{name}`")]
    Name {
        /// The name.
        name: String,
    },
    /// Not a number.
    #[error("`{value}` is not a number, or -1 for unlimited")]
    Value {
        /// What stands there.
        value: String,
    },
    /// The wrong way round.
    #[error("the soft limit is above the hard limit")]
    Order,
}

impl std::str::FromStr for Ulimit {
    type Err = UlimitError;

    /// `nofile=1024:2048`, `core=-1`.
    fn from_str(text: &str) -> Result<Self, UlimitError> {
        let (name, values) = text.split_once('=').ok_or(UlimitError::Form)?;
        let known = LimitName::ALL.iter().find(|(known, _)| *known == name);
        let (_, name) = *known.ok_or_else(|| UlimitError::Name {
            name: name.to_owned(),
        })?;
        let (soft, hard) = match values.split_once(':') {
            Some((soft, hard)) => (limit(soft)?, limit(hard)?),
            None => (limit(values)?, limit(values)?),
        };
        if soft.unwrap_or(u64::MAX) > hard.unwrap_or(u64::MAX) {
            return Err(UlimitError::Order);
        }
        Ok(Self { name, soft, hard })
    }
}

fn limit(text: &str) -> Result<Option<u64>, UlimitError> {
    if text == "-1" {
        return Ok(None);
    }
    let number = text.parse::<u64>().map_err(|_| UlimitError::Value {
        value: text.to_owned(),
    })?;
    Ok(Some(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read() {
        let read = |text: &str| text.parse::<Ulimit>();
        let limit = read("nofile=100:200").unwrap();
        assert_eq!(limit.name, LimitName::Nofile);
        assert_eq!((limit.soft, limit.hard), (Some(100), Some(200)));
        let limit = read("core=-1").unwrap();
        assert_eq!((limit.soft, limit.hard), (None, None));
        assert_eq!(read("nproc=5:-1").unwrap().hard, None);
        assert_eq!(read("nofile"), Err(UlimitError::Form));
        assert_eq!(read("nofile=2:1"), Err(UlimitError::Order));
        assert_eq!(read("nofile=-1:1"), Err(UlimitError::Order));
        assert!(matches!(read("files=1"), Err(UlimitError::Name { .. })));
        assert!(matches!(read("cpu=x"), Err(UlimitError::Value { .. })));
    }

    #[test]
    fn every_limit_has_its_name() {
        for (name, limit) in LimitName::ALL {
            assert_eq!(limit.name(), name);
        }
    }
}
