//! Results of solved targets, written: images as OCI layouts and Docker archives, root file
//! systems as tars and directories; images pushed to registries.
//!
//! [`prepare`] has all bytes at hand and verified, and may find that a step must run again; what
//! it gives is then written by [`write()`], which doesn't touch the engine any more. So
//! nothing is written twice, and nothing before everything is there.
//!
//! Everything is a function of the graph and the layers: no clock, no host name. Times
//! in the configuration are those of the layers, or `SOURCE_DATE_EPOCH` where it was
//! given. Files and directories appear whole: they are made beside their destination.

mod annotations;
mod blobs;
mod docker;
mod error;
mod files;
mod image;
mod local;
mod output;
mod push;
mod stream;
mod watch;

use std::path::PathBuf;

use tokio_util::sync::CancellationToken;

use crate::{
    digest::Sha256Digest,
    engine::{BuildError, Built, Session},
    event::{BuildEvent, Events},
    graph::BuildGraph,
    oci::{Descriptor, Platform},
};

pub use annotations::{AnnotationError, Annotations, Place};
pub use error::{DockerFailure, ExportError};
pub use output::{ImageOptions, Output, Stream};

use blobs::Verified;
use files::Files;
use image::Image;
use watch::Watch;

/// One result to write: a target, or several that are its platforms.
#[derive(Debug, Clone)]
pub struct ImageJob {
    /// Name for people.
    pub name: String,
    /// Positions among the graph's targets.
    pub targets: Vec<usize>,
    /// What to write; nothing if empty.
    pub outputs: Vec<Output>,
    /// `name:tag` references of the image; may be empty.
    pub tags: Vec<String>,
    /// Annotations of images.
    pub annotations: Annotations,
    /// Whether one platform is written like several: an index, a directory.
    pub multi_platform: bool,
    /// `SOURCE_DATE_EPOCH`, if it was given.
    pub epoch: Option<i64>,
}

impl ImageJob {
    /// Whether the result is one of several platforms, by number or by wish.
    fn is_multi_platform(&self) -> bool {
        self.multi_platform || self.targets.len() > 1
    }

    /// Whether an id will be known: not for several platforms without an image output.
    pub fn has_id(&self) -> bool {
        self.targets.len() == 1 || self.outputs.iter().any(|o| o.image().is_some())
    }

    /// Fails for what can be known to fail before anything is built.
    pub fn check(&self, graph: &BuildGraph) -> Result<(), ExportError> {
        let platforms: Vec<Platform> = self
            .targets
            .iter()
            .map(|number| graph.targets[*number].platform.clone())
            .collect();
        for output in &self.outputs {
            output.check_place()?;
            let Some(image) = output.image() else {
                continue;
            };
            if image.docker && self.is_multi_platform() {
                return Err(ExportError::Platforms);
            }
            let annotations = image.annotations.with(&self.annotations);
            annotations.check(&platforms, self.is_multi_platform(), image.docker_types)?;
            if let Output::Push { .. } = output {
                image::destinations(self, image)?;
            }
            if let Output::Load { context, .. } = output {
                docker::check(context.as_deref())?;
            }
        }
        Ok(())
    }
}

/// What was written for a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// Name for people.
    pub name: String,
    /// The image's id: the digest of its configuration, or of the index of several platforms;
    /// none for several platforms without an image output.
    pub id: Option<Sha256Digest>,
    /// The image, as the last image output has it.
    pub image: Option<ExportedImage>,
    /// Where each output went.
    pub dests: Vec<PathBuf>,
    /// Layers of all platforms.
    pub layers: usize,
}

/// An image as its registry would know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportedImage {
    /// The full names.
    pub names: Vec<String>,
    /// The manifest, or the index of several platforms.
    pub descriptor: Descriptor,
    /// Digest of the configuration, of an image of one platform.
    pub config: Option<Sha256Digest>,
}

/// A job whose bytes are all at hand.
#[derive(Debug)]
pub struct Prepared {
    name: String,
    epoch: Option<i64>,
    split: bool,
    id: Option<Sha256Digest>,
    outputs: Vec<(Output, Content)>,
    files: Option<Files>,
    layers: usize,
    /// Sum of the sizes of the layers, in bytes.
    bytes: u64,
}

/// What an output holds.
#[derive(Debug)]
enum Content {
    Image(Box<Image>),
    Files,
}

/// Makes ready what the job writes. A step whose bytes are gone is [`BuildError::Lost`].
pub async fn prepare(
    session: &Session,
    built: &Built,
    job: &ImageJob,
) -> Result<Prepared, BuildError> {
    let mut verified = Verified::default();
    let mut prepared = Prepared {
        name: job.name.clone(),
        epoch: job.epoch,
        split: job.is_multi_platform(),
        id: image::id(session, built, job)?,
        outputs: Vec::new(),
        files: None,
        layers: 0,
        bytes: 0,
    };
    for number in &job.targets {
        let layers = &built.targets[*number].layers;
        prepared.layers += layers.len();
        prepared.bytes += layers.iter().map(|layer| layer.blob.size).sum::<u64>();
    }
    for output in &job.outputs {
        let content = match output.image() {
            Some(options) => {
                let image = Image::prepare(session, built, job, output, options, &mut verified);
                let image = image.await?;
                if job.is_multi_platform() {
                    prepared.id = Some(image.exported.descriptor.digest);
                }
                Content::Image(Box::new(image))
            }
            None => {
                if prepared.files.is_none() {
                    let files = Files::prepare(session, built, job, &mut verified).await?;
                    prepared.files = Some(files);
                }
                Content::Files
            }
        };
        prepared.outputs.push((output.clone(), content));
    }
    Ok(prepared)
}

/// Writes what was made ready, off the async threads. `stop` ends it early, with nothing half
/// written.
pub async fn write(
    prepared: Vec<Prepared>,
    events: &Events,
    stop: &CancellationToken,
) -> Result<Vec<Exported>, ExportError> {
    let (events, stop) = (events.clone(), stop.clone());
    let work = move || {
        let jobs = prepared.into_iter();
        jobs.map(|job| job.write(&events, &stop)).collect()
    };
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| {
            Err(ExportError::Build(BuildError::Internal {
                what: error.to_string(),
            }))
        })
}

impl Prepared {
    fn write(self, events: &Events, stop: &CancellationToken) -> Result<Exported, ExportError> {
        let mut exported = Exported {
            name: self.name,
            id: self.id,
            image: None,
            dests: Vec::new(),
            layers: self.layers,
        };
        for (output, content) in self.outputs {
            if stop.is_cancelled() {
                return Err(BuildError::Interrupted.into());
            }
            let mut digest = self.id;
            let mut place = output.place();
            let mut bytes = self.bytes;
            match (content, &self.files) {
                (Content::Image(image), _) => {
                    digest = Some(image.exported.descriptor.digest);
                    bytes = image.bytes;
                    exported.image = Some(image.exported.clone());
                    if let Output::Push { .. } = output {
                        place = PathBuf::from(image.exported.names.join(", "));
                    }
                    image.write(&output, stop)?;
                }
                (Content::Files, Some(files)) => {
                    let what = format!("writing {}", output.place().display());
                    let watch = Watch::new(stop, events, what, files.total());
                    files.write(&output, self.split, self.epoch, &watch)?;
                    watch.end();
                }
                (Content::Files, None) => {}
            }
            events.send(BuildEvent::Exported {
                target: exported.name.clone(),
                dest: place.display().to_string(),
                digest: digest.map(|d| d.to_string()).unwrap_or_default(),
                layers: exported.layers,
                bytes,
            });
            exported.dests.push(place);
        }
        Ok(exported)
    }
}
