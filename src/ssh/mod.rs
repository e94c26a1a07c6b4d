//! SSH agents for `RUN --mount=type=ssh`.
//!
//! [`Agents`] are the ones that a build was given, by id: a running agent's socket, or keys
//! that [`PrivateAgent`] loads into an agent of the build's own. A step never gets an agent's
//! socket itself: it belongs to another user than the step runs as, and agents turn other
//! users away. A [`Relay`] listens on a socket made for the step and passes on what a step
//! may ask: which keys there are, and signatures. All else is refused.
//!
//! Messages are those of the SSH agent protocol (draft-ietf-sshm-ssh-agent): u32 length,
//! big-endian, then that many bytes, of which the first is the type.

mod keys;
mod relay;

pub use keys::PrivateAgent;
pub use relay::Relay;

use std::{
    collections::BTreeMap,
    io,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// How long an agent may take to say which keys it has when the build starts.
const PATIENCE: Duration = Duration::from_secs(5);

/// Longest message that is passed on, in bytes, as in OpenSSH's agent.
const LONGEST: u32 = 256 << 10;

/// `SSH_AGENT_FAILURE`.
const FAILURE: u8 = 5;
/// `SSH_AGENTC_REQUEST_IDENTITIES`.
const REQUEST_IDENTITIES: u8 = 11;
/// `SSH_AGENTC_SIGN_REQUEST`.
const SIGN_REQUEST: u8 = 13;

/// Why an agent can't be used.
#[derive(Debug, thiserror::Error)]
pub enum SshError {
    /// The agent's socket is not there, or nobody listens.
    #[error("no SSH agent can be reached at `{}`", path.display())]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something listens and doesn't speak the protocol.
    #[error("what listens at `{}` does not answer as an SSH agent", path.display())]
    NoAnswer {
        /// The socket.
        path: PathBuf,
        /// How it failed.
        #[source]
        source: io::Error,
    },
    /// `ssh-agent` or `ssh-add` can't be run.
    #[error("can't run `{program}`")]
    Program {
        /// Which.
        program: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// `ssh-agent` ended.
    #[error("`ssh-agent` can't be started: {said}")]
    Start {
        /// What it said.
        said: String,
    },
    /// A key file can't be read.
    #[error(transparent)]
    Key(#[from] crate::fs::FsError),
    /// `ssh-add` refuses a key.
    #[error("`{}` can't be loaded as an SSH key: {said}", path.display())]
    BadKey {
        /// The file.
        path: PathBuf,
        /// What `ssh-add` said.
        said: String,
    },
    /// No socket for a step can be made.
    #[error("can't make a socket for the step")]
    Socket(#[source] io::Error),
}

impl SshError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Unreachable { .. } | Self::NoAnswer { .. } => {
                "start one with `eval $(ssh-agent)` and `ssh-add`, or name a key file: `--ssh default=KEY`"
            }
            Self::Program { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                "install OpenSSH's client programs, or start an agent elsewhere and give its socket"
            }
            Self::BadKey { .. } => {
                "a key with a passphrase must be in a running agent: `ssh-add KEY`, then `--ssh default`"
            }
            _ => return None,
        };
        Some(text.to_owned())
    }
}

/// The agents of a build, by id. Those of its own end when it is dropped.
#[derive(Debug, Clone, Default)]
pub struct Agents {
    sockets: BTreeMap<String, PathBuf>,
    own: Vec<Arc<PrivateAgent>>,
}

impl Agents {
    /// Adds a running agent, which must answer.
    pub fn add_socket(&mut self, id: &str, socket: &Path) -> Result<(), SshError> {
        check(socket)?;
        self.sockets.insert(id.to_owned(), socket.to_owned());
        Ok(())
    }

    /// Adds an agent with these keys; its socket is made in `temp_dir`.
    pub fn add_keys(
        &mut self,
        id: &str,
        keys: &[PathBuf],
        temp_dir: &Path,
    ) -> Result<(), SshError> {
        let agent = PrivateAgent::start(temp_dir)?;
        for key in keys {
            agent.add(key)?;
        }
        self.sockets
            .insert(id.to_owned(), agent.socket().to_owned());
        self.own.push(Arc::new(agent));
        Ok(())
    }

    /// Whether there is one of this id.
    pub fn contains(&self, id: &str) -> bool {
        self.sockets.contains_key(id)
    }

    /// The socket of the agent with this id.
    pub fn socket(&self, id: &str) -> Option<&Path> {
        self.sockets.get(id).map(PathBuf::as_path)
    }
}

/// Asks for the keys, as the first thing every program does with an agent.
fn check(path: &Path) -> Result<(), SshError> {
    use std::io::{Read, Write};

    let answers = |mut stream: UnixStream| {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.write_all(&[0, 0, 0, 1, REQUEST_IDENTITIES])?;
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        match u32::from_be_bytes(length) {
            length @ 1..=LONGEST => {
                let mut answer = Vec::new();
                let read = stream.take(length.into()).read_to_end(&mut answer)?;
                match read == length as usize {
                    true => Ok(()),
                    false => Err(io::ErrorKind::UnexpectedEof.into()),
                }
            }
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    };
    let stream = UnixStream::connect(path).map_err(|source| SshError::Unreachable {
        path: path.to_owned(),
        source,
    })?;
    answers(stream).map_err(|source| SshError::NoAnswer {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn what_is_no_agent_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent");
        let mut agents = Agents::default();
        let error = agents.add_socket("default", &path).unwrap_err();
        assert!(matches!(error, SshError::Unreachable { .. }));
        let listener = UnixListener::bind(&path).unwrap();
        let closing = std::thread::spawn(move || drop(listener.accept().unwrap()));
        let error = agents.add_socket("default", &path).unwrap_err();
        assert!(matches!(error, SshError::NoAnswer { .. }), "{error:?}");
        closing.join().unwrap();
        assert!(!agents.contains("default"));
    }
}
