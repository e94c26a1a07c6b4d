//! Blobs that come whole: cut into frames and hashed on the way to the store.

use std::sync::Arc;

use sha2::Digest as _;

use super::{
    Shared,
    answer::{Failure, blocking},
    blobs::PIECE,
    gate::Caller,
    store::{Committed, FrameWriter, Namespace, Published, Store, StoreError},
    upload::Upload,
};
use crate::{
    cache::{Trust, http::wire::Frame},
    digest::Sha256Digest,
};

/// Frames that the server cuts blobs into which come whole.
const CUT: u64 = 4 << 20;

/// Bytes of a blob, of which nobody knows before they are kept under its digest.
pub(super) struct WholeBlob {
    store: Arc<Store>,
    namespace: Namespace,
    trust: Trust,
    hasher: sha2::Sha256,
    frames: Vec<Frame>,
    current: Option<FrameWriter>,
}

impl WholeBlob {
    /// Takes in all of a body.
    pub(super) async fn receive(
        server: &Shared,
        caller: &Caller,
        upload: &mut Upload,
    ) -> Result<Self, Failure> {
        let (whole, ()) = Self::receive_with(server, caller, upload, (), |(), _| ()).await?;
        Ok(whole)
    }

    /// The same; `see` is shown all bytes in order, and hands its state on.
    pub(super) async fn receive_with<S: Send + 'static>(
        server: &Shared,
        caller: &Caller,
        upload: &mut Upload,
        state: S,
        see: fn(S, &[u8]) -> S,
    ) -> Result<(Self, S), Failure> {
        let mut whole = Self {
            store: server.store.clone(),
            namespace: caller.namespace.clone(),
            trust: caller.grant.trust(),
            hasher: sha2::Sha256::new(),
            frames: Vec::new(),
            current: None,
        };
        let mut state = state;
        while let Some(piece) = upload.piece(PIECE).await? {
            (whole, state) = blocking(move || {
                let state = see(state, &piece);
                whole.write(&piece).map(|whole| (whole, state))
            })
            .await?;
        }
        Ok((whole, state))
    }

    fn write(mut self, bytes: &[u8]) -> Result<Self, StoreError> {
        self.hasher.update(bytes);
        let mut rest = bytes;
        while !rest.is_empty() {
            let mut frame = match self.current.take() {
                Some(frame) => frame,
                None => self.store.frame_writer()?,
            };
            let room = usize::try_from(CUT - frame.size()).unwrap_or(usize::MAX);
            let (now, later) = rest.split_at(room.min(rest.len()));
            frame.write(now)?;
            rest = later;
            match frame.size() == CUT {
                true => self.publish(frame)?,
                false => self.current = Some(frame),
            }
        }
        Ok(self)
    }

    fn publish(&mut self, frame: FrameWriter) -> Result<(), StoreError> {
        let published = self
            .store
            .publish(&self.namespace, frame, None, self.trust)?;
        if let Published::Done(frame) = published {
            self.frames.push(frame);
        }
        Ok(())
    }

    /// Keeps the blob, if `digest` is its digest.
    pub(super) fn keep_as(self, digest: &Sha256Digest) -> Result<Committed, StoreError> {
        let found = self.digest();
        match found == *digest {
            true => self.keep().map(|(_, done)| done),
            false => Ok(Committed::Mismatch(found)),
        }
    }

    /// Keeps the blob under its digest.
    pub(super) fn keep(mut self) -> Result<(Sha256Digest, Committed), StoreError> {
        let digest = self.digest();
        if let Some(frame) = self.current.take() {
            self.publish(frame)?;
        }
        let done = self
            .store
            .add_blob(&self.namespace, &digest, &self.frames, self.trust)?;
        Ok((digest, done))
    }

    fn digest(&self) -> Sha256Digest {
        Sha256Digest::from_bytes(self.hasher.clone().finalize().into())
    }
}
