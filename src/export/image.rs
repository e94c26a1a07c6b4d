//! An image of solved targets: configuration, manifest, index, and the layers' blobs.

use std::collections::BTreeMap;

use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::{
    ExportError, ExportedImage, ImageJob, ImageOptions, Output, Place,
    blobs::Verified,
    docker,
    push::Push,
    stream::{Sink, write_error},
};
use crate::{
    digest::Sha256Digest,
    engine::{BaseLayers, BuildError, Built, ExportCompression, ResultLayer, Session},
    graph::{GraphTarget, Op, VertexId},
    oci::{
        Descriptor, ImageConfig, ImageIndex, Manifest,
        descriptor::media,
        layer::{Compression, DiffId, LayerOptions},
        layout::{Archive, LayoutWriter},
        reference::Reference,
    },
};

/// An image whose documents are made and whose layers are at hand.
#[derive(Debug)]
pub(super) struct Image {
    archive: Archive,
    /// The entries of `index.json`.
    entries: Vec<Descriptor>,
    /// Digests of the configurations.
    configs: Vec<Sha256Digest>,
    /// The manifests, and at the end what names stand for.
    manifests: Vec<Descriptor>,
    /// How it gets to registries, if it does.
    push: Option<Push>,
    pub(super) exported: ExportedImage,
    /// Sum of the sizes of the layers, in bytes.
    pub(super) bytes: u64,
}

impl Image {
    /// Makes the documents and has the layers at hand.
    pub(super) async fn prepare(
        session: &Session,
        built: &Built,
        job: &ImageJob,
        output: &Output,
        options: &ImageOptions,
        verified: &mut Verified,
    ) -> Result<Self, BuildError> {
        let earlier = match output {
            Output::Layout { dir, .. } => Some(dir.as_path()),
            _ => None,
        };
        let annotations = options.annotations.with(&job.annotations);
        let compression = compression(options, session.engine().options.layer);
        let names = names(job, options);
        let mut image = Assembly {
            archive: Archive::default(),
            docker_types: options.docker_types,
            manifests: Vec::new(),
            bytes: 0,
        };
        let mut push = match output {
            Output::Push { .. } => {
                let registry = session.engine().registry.clone();
                let names = names.iter().filter_map(Name::reference);
                Some(Push::new(registry, session.engine().events.clone(), names))
            }
            _ => None,
        };
        let mut loads = Vec::new();
        let mut pushed = Vec::new();
        for number in &job.targets {
            let target = &session.graph().targets[*number];
            let solved = &built.targets[*number].layers;
            let mut layers = Vec::new();
            match &push {
                // Which bytes are needed shows when the registry has been asked.
                Some(_) => {
                    for layer in solved {
                        layers.push(session.exported(layer, compression).await?);
                    }
                    pushed.push((solved, layers.clone()));
                }
                None => {
                    let bytes = session.bytes();
                    bytes.prefetch(solved.iter().map(AsRef::as_ref)).await;
                    for layer in solved {
                        let found = verified.layer(session, layer, Some(compression), earlier);
                        let (layer, path) = found.await?;
                        image.archive.add_file(&layer.blob.digest, path);
                        layers.push(layer);
                    }
                }
            }
            let document = self::config(session, built, *number, job.epoch);
            let platform = Some(&target.platform);
            let manifest = annotations.at(Place::Manifest, platform);
            let descriptor = annotations.at(Place::ManifestDescriptor, platform);
            let made = image.add(target, &document, &layers, manifest, descriptor);
            loads.push(made);
        }
        let indexed = job.is_multi_platform();
        let top = match indexed {
            true => image.index(
                annotations.at(Place::Index, None),
                annotations.at(Place::IndexDescriptor, None),
            ),
            false => image.manifests[0].clone(),
        };
        if let Some(push) = &mut push {
            push.look(&top).await;
            for (solved, layers) in pushed {
                let missing = push.missing(session, &layers).await;
                let is_missing = |layer: &ResultLayer| missing.contains(&layer.blob.digest);
                let wanted = layers.iter().filter(|layer| is_missing(layer));
                session.bytes().prefetch(wanted).await;
                for (solved, layer) in solved.iter().zip(&layers) {
                    if is_missing(layer) {
                        let found = verified.layer(session, solved, Some(compression), None);
                        let (layer, path) = found.await?;
                        push.add(layer.blob.digest, path);
                    }
                }
            }
        }
        if options.docker && !indexed {
            let manifest = docker::manifest(&loads[0], &names);
            image.archive.add_document("manifest.json", &manifest);
        }
        let mut manifests = image.manifests;
        if indexed {
            manifests.push(top.clone());
        }
        let config = loads.first().map(|part| part.config);
        Ok(Self {
            configs: loads.iter().map(|part| part.config).collect(),
            manifests,
            push,
            archive: image.archive,
            entries: named(&top, &names),
            exported: ExportedImage {
                names: names.iter().map(Name::full).collect(),
                descriptor: top,
                config: config.filter(|_| !indexed),
            },
            bytes: image.bytes,
        })
    }

    /// Writes the image to where the output says.
    pub(super) fn write(
        self,
        output: &Output,
        stop: &CancellationToken,
    ) -> Result<(), ExportError> {
        match output {
            Output::Layout { dir, .. } => {
                let mut writer = LayoutWriter::create(dir)?;
                self.archive.put_into(&mut writer)?;
                writer.finish(self.entries)?;
            }
            Output::Archive { to, .. } => {
                let sink = Sink::open(to, stop)?;
                let name = sink.name();
                let written = self.archive.write(self.entries, sink, &name);
                written
                    .map_err(|error| write_error(error.into(), &name))?
                    .commit()?;
            }
            Output::Load { context, .. } => {
                docker::load(&self.archive, self.entries, context.as_deref())?;
            }
            Output::Push { .. } => {
                if let Some(push) = self.push {
                    let pushed = push.run(&self.archive, &self.configs, &self.manifests, stop);
                    Handle::current().block_on(pushed)?;
                }
            }
            Output::Tar { .. } | Output::Local { .. } => {}
        }
        Ok(())
    }
}

/// The documents of an image, growing.
struct Assembly {
    archive: Archive,
    docker_types: bool,
    manifests: Vec<Descriptor>,
    bytes: u64,
}

/// One platform's part of an image.
pub(super) struct Part {
    pub(super) config: Sha256Digest,
    pub(super) layers: Vec<Sha256Digest>,
}

impl Assembly {
    /// Adds the manifest of one platform.
    fn add(
        &mut self,
        target: &GraphTarget,
        config: &ImageConfig,
        layers: &[ResultLayer],
        annotations: BTreeMap<String, String>,
        of_descriptor: BTreeMap<String, String>,
    ) -> Part {
        let descriptors = layers.iter().map(|layer| {
            self.bytes += layer.blob.size;
            let media_type = layer_type(&layer.blob.media_type, self.docker_types);
            Descriptor::new(&media_type, layer.blob.digest, layer.blob.size)
        });
        let descriptors: Vec<Descriptor> = descriptors.collect();
        let (config_type, manifest_type) = match self.docker_types {
            true => (media::DOCKER_CONFIG, media::DOCKER_MANIFEST),
            false => (media::CONFIG, media::MANIFEST),
        };
        let config_link = self.archive.add_json(config_type, config);
        let part = Part {
            config: config_link.digest,
            layers: descriptors.iter().map(|d| d.digest).collect(),
        };
        let manifest = Manifest {
            media_type: Some(manifest_type.to_owned()),
            annotations,
            ..Manifest::new(config_link, descriptors)
        };
        let manifest = self.archive.add_json(manifest_type, &manifest);
        let mut manifest = manifest.with_platform(&target.platform);
        if let Some(platform) = &mut manifest.platform {
            for name in ["os.version", "os.features"] {
                if let Some(value) = config.extra.get(name) {
                    platform.extra.insert(name.to_owned(), value.clone());
                }
            }
        }
        manifest.annotations = of_descriptor;
        self.manifests.push(manifest);
        part
    }

    /// The index of all manifests.
    fn index(
        &mut self,
        annotations: BTreeMap<String, String>,
        of_descriptor: BTreeMap<String, String>,
    ) -> Descriptor {
        let media_type = match self.docker_types {
            true => media::DOCKER_INDEX,
            false => media::INDEX,
        };
        let index = ImageIndex {
            media_type: Some(media_type.to_owned()),
            annotations,
            ..ImageIndex::new(self.manifests.clone())
        };
        let mut index = self.archive.add_json(media_type, &index);
        index.annotations = of_descriptor;
        index
    }
}

/// A name of the image, in normal form where it has one.
pub(super) enum Name {
    Reference(Box<Reference>),
    Text(String),
}

impl Name {
    fn of(text: &str) -> Self {
        match text.parse() {
            Ok(reference) => Self::Reference(Box::new(reference)),
            Err(_) => Self::Text(text.to_owned()),
        }
    }

    fn reference(&self) -> Option<&Reference> {
        match self {
            Self::Reference(reference) => Some(reference),
            Self::Text(_) => None,
        }
    }

    /// `docker.io/library/app:latest`.
    fn full(&self) -> String {
        match self {
            Self::Reference(reference) => reference.to_string(),
            Self::Text(text) => text.clone(),
        }
    }

    fn tag(&self) -> &str {
        match self {
            Self::Reference(reference) => reference.tag.as_deref().unwrap_or("latest"),
            Self::Text(_) => "latest",
        }
    }

    /// `app:latest`, as Docker shows it.
    pub(super) fn familiar(&self) -> String {
        match self {
            Self::Reference(reference) => {
                format!("{}:{}", reference.repository.familiar(), self.tag())
            }
            Self::Text(text) => text.clone(),
        }
    }
}

/// The names of the build, else those of the output.
fn names(job: &ImageJob, options: &ImageOptions) -> Vec<Name> {
    let names = match job.tags.is_empty() {
        true => &options.names,
        false => &job.tags,
    };
    names.iter().map(|name| Name::of(name)).collect()
}

/// Fails unless the image can be pushed under all of its names, and has one.
pub(super) fn destinations(job: &ImageJob, options: &ImageOptions) -> Result<(), ExportError> {
    let names = names(job, options);
    if names.is_empty() {
        return Err(ExportError::Nameless);
    }
    for name in names {
        if let Name::Text(name) = name
            && let Err(source) = name.parse::<Reference>()
        {
            return Err(ExportError::Name { name, source });
        }
    }
    Ok(())
}

/// The entries of `index.json`: one for each name, or one without.
fn named(top: &Descriptor, names: &[Name]) -> Vec<Descriptor> {
    if names.is_empty() {
        return vec![top.clone()];
    }
    names
        .iter()
        .map(|name| {
            top.clone()
                .with_annotation("io.containerd.image.name", &name.full())
                .with_annotation("org.opencontainers.image.ref.name", name.tag())
        })
        .collect()
}

/// How the layers of an output are compressed.
fn compression(options: &ImageOptions, build: LayerOptions) -> ExportCompression {
    let old_formats = options.docker || options.docker_types;
    let compression = match (options.compression, build.compression) {
        (Some(compression), _) => compression,
        (None, Compression::Zstd) if old_formats => Compression::Gzip,
        (None, compression) => compression,
    };
    ExportCompression {
        options: LayerOptions {
            compression,
            level: match options.level {
                None if compression == build.compression => build.level,
                level => level,
            },
        },
        level_matters: options.level.is_some(),
        base: match (options.force, old_formats) {
            (true, _) => BaseLayers::All,
            (false, true) if compression != Compression::Zstd => BaseLayers::OldFormats,
            (false, _) => BaseLayers::Keep,
        },
    }
}

/// All layers of a manifest have media types of one kind, the OCI's or Docker's.
fn layer_type(media_type: &str, docker: bool) -> String {
    let kinds = [media::LAYER, media::DOCKER_LAYER];
    let suffix = kinds.iter().find_map(|kind| media_type.strip_prefix(kind));
    match (suffix, docker) {
        (Some(suffix), false) => format!("{}{}", media::LAYER, suffix.replace('.', "+")),
        (Some(suffix), true) => format!("{}{}", media::DOCKER_LAYER, suffix.replace('+', ".")),
        (None, _) => media_type.to_owned(),
    }
}

/// The digest of the configuration of a job's only target.
pub(super) fn id(
    session: &Session,
    built: &Built,
    job: &ImageJob,
) -> Result<Option<Sha256Digest>, BuildError> {
    let [number] = job.targets[..] else {
        return Ok(None);
    };
    let mut archive = Archive::default();
    let config = config(session, built, number, job.epoch);
    Ok(Some(archive.add_json(media::CONFIG, &config).digest))
}

/// Completes the configuration that lowering made: layers, and times.
fn config(session: &Session, built: &Built, number: usize, epoch: Option<i64>) -> ImageConfig {
    let target = &session.graph().targets[number];
    let result = &built.targets[number];
    let mut config = target.config.clone();
    let diff_ids: Vec<DiffId> = result.layers.iter().map(|l| l.blob.diff_id).collect();
    config.rootfs.diff_ids = diff_ids;
    let inherited = config.history.len() - target.history.len();
    let mut created = match inherited.checked_sub(1) {
        Some(last) => config.history[last].created.clone(),
        None => None,
    }
    .or_else(|| config.created.clone());
    for (n, vertex) in target.history.iter().enumerate() {
        let entry = &mut config.history[inherited + n];
        let time = epoch.or_else(|| vertex.and_then(|id| step_time(session, id)));
        if let Some(time) = time.and_then(rfc3339) {
            created = Some(time);
        }
        entry.created = created.clone();
        entry.empty_layer = !result.made_layer[n];
    }
    if !target.history.is_empty() {
        config.created = created.or_else(|| rfc3339(0));
    }
    config
}

fn step_time(session: &Session, id: VertexId) -> Option<i64> {
    match &session.graph().vertex(id).op {
        Op::Exec(op) => Some(op.mtime),
        Op::File(op) => Some(op.mtime),
        Op::Scratch | Op::Image(_) | Op::Context(_) => None,
    }
}

fn rfc3339(seconds: i64) -> Option<String> {
    OffsetDateTime::from_unix_timestamp(seconds)
        .ok()?
        .format(&Rfc3339)
        .ok()
}
