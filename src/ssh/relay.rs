//! The socket that a step sees.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    task::JoinSet,
};

use super::{FAILURE, LONGEST, REQUEST_IDENTITIES, SIGN_REQUEST, SshError};
use crate::fs;

/// A listening socket whose connections lead to an agent, until it is dropped.
#[derive(Debug)]
pub struct Relay {
    path: PathBuf,
    _dir: tempfile::TempDir,
    _task: JoinSet<()>,
}

impl Relay {
    /// Listens on a new socket in `temp_dir` for the agent at `agent`. Nobody else than this
    /// process's user gets at it until somebody changes that.
    pub fn start(agent: &Path, temp_dir: &Path) -> Result<Self, SshError> {
        let dir = fs::temp_dir_in(temp_dir)?;
        let path = dir.path().join("agent");
        let listener = UnixListener::bind(&path).map_err(SshError::Socket)?;
        let mut task = JoinSet::new();
        task.spawn(serve(listener, Arc::from(agent)));
        Ok(Self {
            path,
            _dir: dir,
            _task: task,
        })
    }

    /// The socket.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

async fn serve(listener: UnixListener, agent: Arc<Path>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                // Out of descriptors, for instance: the next one may have more luck.
                let Ok((stream, _)) = accepted else {
                    tokio::task::yield_now().await;
                    continue;
                };
                let agent = Arc::clone(&agent);
                connections.spawn(async move {
                    // The end of a connection, however it comes, is all that the step sees.
                    let _ = connection(stream, &agent).await;
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Passes requests on and answers back, one after the other.
async fn connection(mut step: UnixStream, agent: &Path) -> io::Result<()> {
    let mut upstream: Option<UnixStream> = None;
    while let Some(request) = message(&mut step).await? {
        let answer = match request.first() {
            Some(&(REQUEST_IDENTITIES | SIGN_REQUEST)) => {
                let stream = match &mut upstream {
                    Some(stream) => stream,
                    None => upstream.insert(UnixStream::connect(agent).await?),
                };
                send(stream, &request).await?;
                let answer = message(stream).await?;
                answer.ok_or(io::ErrorKind::UnexpectedEof)?
            }
            _ => vec![FAILURE],
        };
        send(&mut step, &answer).await?;
    }
    Ok(())
}

/// The next message; none at the end of the stream.
async fn message(stream: &mut UnixStream) -> io::Result<Option<Vec<u8>>> {
    let length = match stream.read_u32().await {
        Ok(length @ 1..=LONGEST) => length,
        Ok(_) => return Err(io::ErrorKind::InvalidData.into()),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    let mut body = stream.take(u64::from(length));
    body.read_to_end(&mut bytes).await?;
    match bytes.len() == length as usize {
        true => Ok(Some(bytes)),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

async fn send(stream: &mut UnixStream, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    stream.write_u32(length).await?;
    stream.write_all(bytes).await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An agent that answers every message with its own type, plus one.
    async fn echo(listener: UnixListener) {
        let (mut stream, _) = listener.accept().await.unwrap();
        while let Some(request) = message(&mut stream).await.unwrap() {
            send(&mut stream, &[request[0] + 1, 7]).await.unwrap();
        }
    }

    #[tokio::test]
    async fn listing_and_signing_pass_and_the_rest_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let agent = dir.path().join("real");
        let listener = UnixListener::bind(&agent).unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(echo(listener));
        let relay = Relay::start(&agent, dir.path()).unwrap();
        let mut step = UnixStream::connect(relay.path()).await.unwrap();
        for (request, answer) in [
            (&[11][..], vec![12, 7]),
            // Adding a key, locking, an extension.
            (&[17, 0, 0], vec![FAILURE]),
            (&[22, 0], vec![FAILURE]),
            (&[27], vec![FAILURE]),
            (&[13, 1, 2], vec![14, 7]),
        ] {
            send(&mut step, request).await.unwrap();
            assert_eq!(message(&mut step).await.unwrap(), Some(answer));
        }
        step.write_u32(LONGEST + 1).await.unwrap();
        assert_eq!(message(&mut step).await.unwrap(), None);
        let path = relay.path().to_owned();
        drop(relay);
        assert!(!fs::exists(&path));
    }
}
