//! An image to registries: what the registry lacks is mounted from where it has it, else uploaded.
//!
//! A layer that is in the destination, or in another repository of the same registry (a cache, the
//! repository of the base image), is pushed without its bytes: a build of hits alone moves none. Where
//! a tag names the image already, it is there with all that belongs to it, and nothing else is asked.
//! Blobs come first, then the manifests that name them, and tags last: a push that ends early leaves every
//! tag as it was.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio_util::sync::CancellationToken;

use super::ExportError;
use crate::{
    cache::{TierAddress, TierKind},
    digest::Sha256Digest,
    engine::{BuildError, ResultLayer, Session},
    event::{BuildEvent, Events},
    fs,
    graph::{ImageOrigin, Op},
    oci::{Descriptor, Reference, Repository, layout::Archive},
    registry::{Registry, RegistryError, Sent, Trouble, UploadSource},
};

/// Questions to a registry at a time.
const QUESTIONS: usize = 16;
/// Uploads at a time.
const UPLOADS: usize = 4;
/// Size in bytes from which an upload is told of, and how often.
const WORTH_TELLING: u64 = 1 << 20;
const TELL_EVERY: Duration = Duration::from_millis(200);

/// Where an image is pushed to, and what is missing there.
#[derive(Debug)]
pub(super) struct Push {
    registry: Arc<Registry>,
    events: Events,
    destinations: Vec<Destination>,
    /// Files of the layers that some destination lacks.
    files: BTreeMap<Sha256Digest, PathBuf>,
    /// Why nothing can be pushed.
    trouble: Option<RegistryError>,
}

/// A repository and the tags to set there.
#[derive(Debug)]
struct Destination {
    repository: Repository,
    tags: Vec<String>,
    /// Whether the image is there, under some name.
    is_whole: bool,
    lacks: BTreeSet<Sha256Digest>,
}

impl Push {
    /// A push under `names`.
    pub(super) fn new<'n>(
        registry: Arc<Registry>,
        events: Events,
        names: impl IntoIterator<Item = &'n Reference>,
    ) -> Self {
        let mut destinations: Vec<Destination> = Vec::new();
        for name in names {
            let tag = name.selector();
            let known = destinations
                .iter_mut()
                .find(|known| known.repository == name.repository);
            match known {
                Some(known) => known.tags.push(tag),
                None => destinations.push(Destination {
                    repository: name.repository.clone(),
                    tags: vec![tag],
                    is_whole: false,
                    lacks: BTreeSet::new(),
                }),
            }
        }
        Self {
            registry,
            events,
            destinations,
            files: BTreeMap::new(),
            trouble: None,
        }
    }

    /// Finds out which tags name the image `top` already: they stay as they are.
    pub(super) async fn look(&mut self, top: &Descriptor) {
        let registry = &self.registry;
        for destination in &mut self.destinations {
            let repository = &destination.repository;
            let tags = std::mem::take(&mut destination.tags);
            let questions: Vec<_> = tags
                .iter()
                .map(|tag| registry.manifest_digest(repository, tag, &top.media_type))
                .collect();
            let answers: Vec<_> = stream::iter(questions).buffered(QUESTIONS).collect().await;
            for (tag, answer) in tags.into_iter().zip(answers) {
                match answer {
                    Ok(Some(digest)) if digest == top.digest => destination.is_whole = true,
                    Ok(_) => destination.tags.push(tag),
                    // Told when it is the turn of this output.
                    Err(error) if error.trouble() == Trouble::Transient => {
                        self.trouble = Some(error);
                        return;
                    }
                    // What can't be pushed shows when it is.
                    Err(error) => {
                        tracing::debug!(%error, %tag, "can't look at a tag");
                        destination.tags.push(tag);
                    }
                }
            }
        }
    }

    /// Finds out what the destinations lack of `layers` and can't take over from elsewhere. Gives
    /// the blobs whose bytes are needed.
    pub(super) async fn missing(
        &mut self,
        session: &Session,
        layers: &[ResultLayer],
    ) -> BTreeSet<Sha256Digest> {
        let mut missing = BTreeSet::new();
        if self.trouble.is_some() {
            return missing;
        }
        let registry = &self.registry;
        for destination in &mut self.destinations {
            if destination.is_whole {
                continue;
            }
            let repository = &destination.repository;
            let questions: Vec<_> = layers
                .iter()
                .map(|layer| {
                    lacks(
                        registry,
                        repository,
                        layer,
                        sources(session, repository, layer),
                    )
                })
                .collect();
            let answers: Result<Vec<bool>, RegistryError> = stream::iter(questions)
                .buffered(QUESTIONS)
                .try_collect()
                .await;
            match answers {
                Ok(answers) => {
                    let lacking = layers.iter().zip(answers).filter(|(_, lacks)| *lacks);
                    for (layer, _) in lacking {
                        destination.lacks.insert(layer.blob.digest);
                        missing.insert(layer.blob.digest);
                    }
                }
                // Told when it is the turn of this output.
                Err(error) => {
                    self.trouble = Some(error);
                    return BTreeSet::new();
                }
            }
        }
        missing
    }

    /// The verified bytes of a layer that is missing.
    pub(super) fn add(&mut self, digest: Sha256Digest, file: PathBuf) {
        self.files.insert(digest, file);
    }

    /// Pushes the image: `documents` are its configurations, then its manifests, the last one what the
    /// tags are to name.
    pub(super) async fn run(
        self,
        archive: &Archive,
        configs: &[Sha256Digest],
        manifests: &[Descriptor],
        stop: &CancellationToken,
    ) -> Result<(), ExportError> {
        if let Some(source) = self.trouble {
            return Err(ExportError::Push { source });
        }
        tokio::select! {
            pushed = self.push(archive, configs, manifests) => {
                pushed.map_err(|source| ExportError::Push { source })
            }
            () = stop.cancelled() => Err(BuildError::Interrupted.into()),
        }
    }

    async fn push(
        &self,
        archive: &Archive,
        configs: &[Sha256Digest],
        manifests: &[Descriptor],
    ) -> Result<(), RegistryError> {
        for destination in &self.destinations {
            let Some((top, parts)) = manifests.split_last() else {
                continue;
            };
            let (configs, parts) = match destination.is_whole {
                true => (&[][..], &[][..]),
                false => (configs, parts),
            };
            let repository = &destination.repository;
            let layers = destination.lacks.iter().filter_map(|digest| {
                let file = self.files.get(digest)?.clone();
                Some((*digest, UploadSource::File(file), true))
            });
            let configs = configs.iter().filter_map(|digest| {
                let bytes = archive.document(digest)?.to_vec();
                Some((*digest, UploadSource::Bytes(bytes.into()), false))
            });
            // Collected, because a stream over a borrowing iterator can't be sent to other threads.
            let uploads: Vec<_> = configs
                .chain(layers)
                .map(|(digest, source, is_missing)| {
                    self.upload(repository, digest, source, is_missing)
                })
                .collect();
            let mut uploads = stream::iter(uploads).buffer_unordered(UPLOADS);
            while uploads.try_next().await?.is_some() {}
            for part in parts {
                let selector = part.digest.to_string();
                self.put(destination, archive, part, &selector).await?;
            }
            for tag in &destination.tags {
                self.put(destination, archive, top, tag).await?;
            }
        }
        Ok(())
    }

    /// Uploads a blob; one that may well be there only if it isn't.
    async fn upload(
        &self,
        repository: &Repository,
        digest: Sha256Digest,
        source: UploadSource,
        is_missing: bool,
    ) -> Result<(), RegistryError> {
        let registry = &self.registry;
        if !is_missing && let Some(_) = registry.blob_size(repository, &digest, true).await? {
            return Ok(());
        }
        let size = match &source {
            UploadSource::Bytes(bytes) => bytes.len() as u64,
            UploadSource::File(file) => fs::size(file).unwrap_or_default(),
        };
        let sent = self.progress(format!("push {repository} {}", digest.short()), size);
        registry
            .push_blob_telling(repository, &digest, &source, &sent)
            .await
    }

    /// Tells how far an upload of `size` bytes is, if that is worth it.
    fn progress(&self, what: String, size: u64) -> Sent {
        let events = self.events.clone();
        let told = Mutex::new(Instant::now());
        Arc::new(move |current| {
            let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
            let is_due = current == size || told.elapsed() >= TELL_EVERY;
            if size >= WORTH_TELLING && is_due {
                *told = Instant::now();
                events.send(BuildEvent::Transfer {
                    what: what.clone(),
                    current,
                    total: Some(size),
                });
            }
        })
    }

    async fn put(
        &self,
        destination: &Destination,
        archive: &Archive,
        manifest: &Descriptor,
        selector: &str,
    ) -> Result<(), RegistryError> {
        let bytes = archive.document(&manifest.digest).unwrap_or_default();
        let bytes = bytes.to_vec().into();
        self.registry
            .push_manifest(
                &destination.repository,
                selector,
                &manifest.media_type,
                &bytes,
            )
            .await?;
        Ok(())
    }
}

/// Whether `repository` lacks the layer and can take it over from none of `sources`.
async fn lacks(
    registry: &Registry,
    repository: &Repository,
    layer: &ResultLayer,
    sources: Vec<Repository>,
) -> Result<bool, RegistryError> {
    let digest = &layer.blob.digest;
    if registry
        .blob_size(repository, digest, true)
        .await?
        .is_some()
    {
        return Ok(false);
    }
    for source in sources {
        match registry.mount_blob(repository, digest, &source).await {
            Ok(true) => return Ok(false),
            Ok(false) => {}
            // The bytes can be uploaded all the same.
            Err(error) => tracing::debug!(%error, from = %source, "can't mount a layer"),
        }
    }
    Ok(true)
}

/// Other repositories of the destination's registry that may have the layer.
fn sources(session: &Session, destination: &Repository, layer: &ResultLayer) -> Vec<Repository> {
    let repositories: Vec<Repository> = match &session.graph().vertex(layer.from).op {
        Op::Image(image) => match &image.origin {
            ImageOrigin::Registry { repository } => repository.parse().into_iter().collect(),
            ImageOrigin::Layout { .. } => Vec::new(),
        },
        _ => {
            let addresses = session.engine().tiers.iter();
            addresses
                .filter_map(|tier| tier.name.parse::<TierAddress>().ok())
                .filter(|address| address.kind == TierKind::Registry)
                .filter_map(|address| address.place.parse().ok())
                .collect()
        }
    };
    let is_near =
        |other: &Repository| other.host == destination.host && other.path != destination.path;
    repositories.into_iter().filter(is_near).collect()
}
