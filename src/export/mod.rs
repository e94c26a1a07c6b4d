//! Images out of solved targets: configuration, manifest, index, OCI layout.
//!
//! Everything is a function of the graph and the layers: no clock, no host name. Times
//! in the configuration are those of the layers, or `SOURCE_DATE_EPOCH` where it was
//! given. Layer blobs are hard-linked from the store, each verified before its first
//! link.

use std::{
    io::{self, BufWriter, Write as _},
    path::{Path, PathBuf},
};

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    digest::{Blake3Digest, HashingReader, Sha256Digest},
    engine::{BuildError, Built, BuiltTarget, ResultLayer, Session},
    event::BuildEvent,
    fs::{self, AtomicFile, IoContext as _},
    graph::{GraphTarget, Op, VertexId},
    oci::{
        Descriptor, ImageConfig, ImageIndex, Manifest,
        descriptor::media,
        layout::{LayoutWriter, write_tar},
    },
};

/// Where an image goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// An OCI layout directory, replaced if it is one already.
    Layout(PathBuf),
    /// One tar file that holds an OCI layout.
    Tar(PathBuf),
}

/// One image to write: a target, or several that are its platforms.
#[derive(Debug, Clone)]
pub struct ImageJob {
    /// Name for people.
    pub name: String,
    /// Positions among the graph's targets.
    pub targets: Vec<usize>,
    /// Where to.
    pub dest: Destination,
    /// `name:tag` references that the layout's index carries; may be empty.
    pub tags: Vec<String>,
    /// `SOURCE_DATE_EPOCH`, if it was given.
    pub epoch: Option<i64>,
}

/// A written image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportedImage {
    /// Name for people.
    pub name: String,
    /// Directory or file.
    pub dest: PathBuf,
    /// Digest of the manifest, or of the index of several platforms.
    pub digest: Sha256Digest,
    /// Media type of what `digest` names.
    pub media_type: String,
    /// Size of what `digest` names, in bytes.
    pub size: u64,
    /// Digest of the configuration of the first platform: the image's id.
    pub config: Sha256Digest,
    /// Layers of all platforms.
    pub layers: usize,
    /// Sum of the layers' blob sizes in bytes.
    pub bytes: u64,
}

/// Writes one image.
pub async fn export(
    session: &Session,
    built: &Built,
    job: &ImageJob,
) -> Result<ExportedImage, BuildError> {
    let dir = match &job.dest {
        Destination::Layout(dir) => dir.clone(),
        Destination::Tar(file) => beside(file),
    };
    let mut writer = LayoutWriter::create(&dir)?;
    let mut manifests = Vec::new();
    let mut exported = ExportedImage {
        name: job.name.clone(),
        dest: dir.clone(),
        digest: Sha256Digest::of(b""),
        media_type: String::new(),
        size: 0,
        config: Sha256Digest::of(b""),
        layers: 0,
        bytes: 0,
    };
    for number in &job.targets {
        let target = &session.graph().targets[*number];
        let result = &built.targets[*number];
        let layers = layers(session, &mut writer, &dir, result).await?;
        let config = config(session, target, result, &layers, job.epoch);
        let config = writer.add_json(media::CONFIG, &config)?;
        if manifests.is_empty() {
            exported.config = config.digest;
        }
        exported.layers += layers.len();
        exported.bytes += layers.iter().map(|l| l.blob.size).sum::<u64>();
        let descriptors = layers
            .iter()
            .map(|l| Descriptor::new(&oci_type(&l.blob.media_type), l.blob.digest, l.blob.size))
            .collect();
        let manifest = Manifest::new(config, descriptors);
        let manifest = writer.add_json(media::MANIFEST, &manifest)?;
        manifests.push(manifest.with_platform(&target.platform));
    }
    let top = match <[Descriptor; 1]>::try_from(manifests) {
        Ok([manifest]) => manifest,
        Err(manifests) => writer.add_json(media::INDEX, &ImageIndex::new(manifests))?,
    };
    exported.digest = top.digest;
    exported.media_type = top.media_type.clone();
    exported.size = top.size;
    writer.finish(tagged(top, &job.tags))?;
    if let Destination::Tar(file) = &job.dest {
        pack(&dir, file)?;
        exported.dest = file.clone();
    }
    session.engine().events.send(BuildEvent::Exported {
        target: job.name.clone(),
        dest: exported.dest.display().to_string(),
        digest: exported.digest.to_string(),
        layers: exported.layers,
        bytes: exported.bytes,
    });
    Ok(exported)
}

/// The entries of `index.json`: one for each tag, or one without.
fn tagged(top: Descriptor, tags: &[String]) -> Vec<Descriptor> {
    if tags.is_empty() {
        return vec![top];
    }
    tags.iter()
        .map(|reference| {
            let tag = match reference.rsplit_once(':') {
                Some((_, tag)) if !tag.contains('/') => tag,
                _ => "latest",
            };
            top.clone()
                .with_annotation("io.containerd.image.name", reference)
                .with_annotation("org.opencontainers.image.ref.name", tag)
        })
        .collect()
}

/// Puts the layers' blobs into the layout.
async fn layers(
    session: &Session,
    writer: &mut LayoutWriter,
    earlier: &Path,
    result: &BuiltTarget,
) -> Result<Vec<ResultLayer>, BuildError> {
    let mut layers = Vec::new();
    for solved in &result.layers {
        let layer = loop {
            let layer = session.exported(solved).await?;
            let file = session.bytes().ensure(&layer).await?;
            if verified(&file.path, earlier, &layer)? {
                writer.add_file(&layer.blob.digest, &file.path)?;
                break layer;
            }
            // Removing it makes the next round fetch it, compress it anew, or have its
            // step run again.
            fs::remove_file(&file.path)?;
            session.engine().events.warn(
                format!(
                    "cached blob `{}` was corrupt and has been dropped",
                    layer.blob.digest
                ),
                None,
            );
        };
        layers.push(layer);
    }
    Ok(layers)
}

/// Whether the blob's bytes are right. A blob that an earlier export to the same place
/// linked was verified then; its size is enough now.
fn verified(path: &Path, earlier: &Path, layer: &ResultLayer) -> Result<bool, BuildError> {
    let linked = earlier.join("blobs/sha256").join(layer.blob.digest.hex());
    if fs::same_file(path, &linked) {
        return Ok(fs::size(path)? == layer.blob.size);
    }
    let mut reader = HashingReader::new(fs::open(path)?);
    io::copy(&mut reader, &mut io::sink()).at("read", path)?;
    Ok(reader.hashes().sha256 == layer.blob.digest)
}

/// Docker's media types become the OCI's, so that a manifest is of one kind.
fn oci_type(media_type: &str) -> String {
    match media_type {
        "application/vnd.docker.image.rootfs.diff.tar" => media::LAYER.to_owned(),
        "application/vnd.docker.image.rootfs.diff.tar.gzip" => format!("{}+gzip", media::LAYER),
        "application/vnd.docker.image.rootfs.diff.tar.zstd" => format!("{}+zstd", media::LAYER),
        other => other.to_owned(),
    }
}

/// Completes the configuration that lowering made: layers, and times.
fn config(
    session: &Session,
    target: &GraphTarget,
    result: &BuiltTarget,
    layers: &[ResultLayer],
    epoch: Option<i64>,
) -> ImageConfig {
    let mut config = target.config.clone();
    config.rootfs.diff_ids = layers.iter().map(|l| l.blob.diff_id).collect();
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

/// A directory beside the tar file for the layout that becomes it, the same for the same
/// file so that leftovers are replaced.
fn beside(file: &Path) -> PathBuf {
    use std::os::unix::ffi::OsStrExt as _;
    let name = Blake3Digest::of(file.as_os_str().as_bytes()).short();
    file.with_file_name(format!(".layout-{name}"))
}

/// Packs the layout at `dir` into `file`, and removes it.
fn pack(dir: &Path, file: &Path) -> Result<(), BuildError> {
    let out = BufWriter::with_capacity(1 << 20, AtomicFile::create(file)?);
    let mut out = write_tar(dir, out)?;
    out.flush().at("write", file)?;
    let out = out
        .into_inner()
        .map_err(io::IntoInnerError::into_error)
        .at("write", file)?;
    out.commit()?;
    fs::remove_dir_all(dir)?;
    Ok(())
}
