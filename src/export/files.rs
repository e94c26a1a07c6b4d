//! The root file systems of solved targets as one stream of entries, from indexes.
//!
//! [`Files::send`] walks the merged trees in canonical order and reads only contents that
//! survive. Whiteouts are applied, hard links name the first of their paths that is left. With
//! a directory for each platform its entries lie below `<os>_<architecture>[_<variant>]`. Memory:
//! the indexes, the hard links, and one frame of each of [`MAX_OPEN`] layers.

use std::{
    collections::{BTreeSet, HashMap},
    io::Read,
    iter::Peekable,
    path::PathBuf,
    sync::Arc,
};

use super::{
    ExportError, ImageJob, Output,
    blobs::Verified,
    local,
    stream::{Sink, is_stopped, write_error},
    watch::Watch,
};
use crate::{
    engine::{BuildError, Built, Session},
    fs,
    oci::{
        Platform,
        layer::{
            Compression, Entry, EntryKind, Found, IndexEntry, LayerBuilder, LayerContent,
            LayerError, LayerIndex, LayerOptions, LayerPath, Tree, Walk,
        },
    },
};

/// Layers that are kept open at the same time.
const MAX_OPEN: usize = 16;

/// The root file systems of a job.
#[derive(Debug)]
pub(super) struct Files {
    roots: Vec<Root>,
    /// Sum of the sizes of the contents, in bytes.
    total: u64,
    /// Where layers without frames are decompressed to.
    spool_dir: PathBuf,
}

/// One platform's root file system.
#[derive(Debug)]
struct Root {
    platform: Platform,
    tree: Arc<Tree>,
    /// For each layer its blob, if something of it is left.
    blobs: Vec<Option<Blob>>,
}

#[derive(Debug)]
struct Blob {
    path: PathBuf,
    media_type: String,
    index: Arc<LayerIndex>,
}

/// Takes entries in canonical order, each with the content of a regular file.
pub(super) type Taker<'t> =
    dyn FnMut(&Entry, Option<&mut dyn Read>) -> Result<(), ExportError> + 't;

impl Files {
    /// Has the indexes and the blobs that are needed at hand.
    pub(super) async fn prepare(
        session: &Session,
        built: &Built,
        job: &ImageJob,
        verified: &mut Verified,
    ) -> Result<Self, BuildError> {
        let mut roots = Vec::new();
        let mut total = 0;
        for number in &job.targets {
            let layers = &built.targets[*number].layers;
            let tree = session.bytes().tree(layers).await?;
            let needed = needed(&tree, &mut total);
            let wanted = needed.iter().filter_map(|number| layers.get(*number));
            session.bytes().prefetch(wanted.map(AsRef::as_ref)).await;
            let mut blobs = Vec::with_capacity(layers.len());
            for (number, solved) in layers.iter().enumerate() {
                if !needed.contains(&number) {
                    blobs.push(None);
                    continue;
                }
                let (layer, path) = verified.layer(session, solved, None, None).await?;
                blobs.push(Some(Blob {
                    path,
                    media_type: layer.blob.media_type,
                    index: session.bytes().index(solved).await?,
                }));
            }
            roots.push(Root {
                platform: session.graph().targets[*number].platform.clone(),
                tree,
                blobs,
            });
        }
        Ok(Self {
            roots,
            total,
            spool_dir: session.engine().store.temp_dir(),
        })
    }

    /// Sum of the sizes of the contents, in bytes.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// Writes a tar or a directory.
    pub(super) fn write(
        &self,
        output: &Output,
        split: bool,
        epoch: Option<i64>,
        watch: &Watch<'_>,
    ) -> Result<(), ExportError> {
        match output {
            Output::Tar { to, split: asked } => {
                let sink = Sink::open(to, watch.stop())?;
                let name = sink.name();
                let plain = LayerOptions {
                    compression: Compression::None,
                    level: None,
                };
                let mut tar = LayerBuilder::new(sink, plain);
                self.send(
                    asked.unwrap_or(split),
                    epoch,
                    watch,
                    &mut |entry, content| Ok(tar.append(entry, content)?),
                )
                .and_then(|()| Ok(tar.finish()?.0))
                .map_err(|error| write_error(error, &name))?
                .commit()
            }
            Output::Local {
                dir,
                split: asked,
                delete,
            } => {
                let mut writer = local::Writer::create(dir)?;
                self.send(
                    asked.unwrap_or(split),
                    epoch,
                    watch,
                    &mut |entry, content| writer.append(entry, content),
                )?;
                writer.finish(*delete)
            }
            Output::Layout { .. }
            | Output::Archive { .. }
            | Output::Load { .. }
            | Output::Push { .. } => Ok(()),
        }
    }

    /// Gives all entries but the root directory to `take`; with `split` in a directory for each
    /// platform.
    pub(super) fn send(
        &self,
        split: bool,
        epoch: Option<i64>,
        watch: &Watch<'_>,
        take: &mut Taker<'_>,
    ) -> Result<(), ExportError> {
        let mut roots: Vec<(LayerPath, &Root)> = Vec::new();
        for root in &self.roots {
            let prefix = match split {
                true => directory_of(&root.platform),
                false => LayerPath::ROOT,
            };
            roots.push((prefix, root));
        }
        roots.sort_by(|(a, _), (b, _)| a.cmp(b));
        let mut senders: Vec<Sender<'_>> = roots
            .into_iter()
            .map(|(prefix, root)| Sender::new(root, prefix, &self.spool_dir, epoch))
            .collect();
        if split {
            for sender in &mut senders {
                take(&sender.platform_directory(), None)?;
                while sender.peek().is_some() {
                    sender.send_next(watch, take)?;
                }
            }
            return Ok(());
        }
        merge(&mut senders, watch, take)
    }
}

/// Sends the entries of several trees as one, by path. Only directories may be in more than one.
fn merge(
    senders: &mut [Sender<'_>],
    watch: &Watch<'_>,
    take: &mut Taker<'_>,
) -> Result<(), ExportError> {
    loop {
        let next = senders
            .iter_mut()
            .filter_map(|s| s.peek().map(|(p, _)| p.clone()))
            .min();
        let Some(path) = next else {
            return Ok(());
        };
        let mut first: Option<(String, bool)> = None;
        for sender in senders.iter_mut() {
            let Some((_, is_directory)) = sender.peek().filter(|(p, _)| *p == path) else {
                continue;
            };
            match &first {
                None => {
                    first = Some((sender.root.platform.to_string(), is_directory));
                    sender.send_next(watch, take)?;
                }
                Some((_, true)) if is_directory => sender.skip(),
                Some((one, _)) => {
                    return Err(ExportError::Overlap {
                        path,
                        one: one.clone(),
                        other: sender.root.platform.to_string(),
                    });
                }
            }
        }
    }
}

/// The layers with content that is left; adds its size to `total`.
fn needed(tree: &Tree, total: &mut u64) -> BTreeSet<usize> {
    let mut needed = BTreeSet::new();
    for (_, found) in tree.walk(&LayerPath::ROOT) {
        // Further names of a file have no content of their own.
        if let EntryKind::Regular { size } = found.row.entry.kind {
            *total += size;
        }
        if let Some(found) = tree.source(found)
            && found.row.content.is_some()
            && found.row.inline.is_none()
        {
            needed.insert(found.layer);
        }
    }
    needed
}

/// `linux_arm_v7`, as BuildKit calls it.
fn directory_of(platform: &Platform) -> LayerPath {
    let name = platform.to_string().replace(['/', '\\', ':'], "_");
    LayerPath::new(name).unwrap_or(LayerPath::ROOT)
}

/// Sends the entries of one root file system.
struct Sender<'f> {
    root: &'f Root,
    prefix: LayerPath,
    epoch: Option<i64>,
    walk: Peekable<Walk<'f>>,
    /// Files that have more than one name in their layer, each with the name that was sent.
    linked: HashMap<*const IndexEntry, Option<LayerPath>>,
    contents: Contents<'f>,
}

impl<'f> Sender<'f> {
    fn new(
        root: &'f Root,
        prefix: LayerPath,
        spool_dir: &'f std::path::Path,
        epoch: Option<i64>,
    ) -> Self {
        let tree = root.tree.as_ref();
        let is_link = |row: &IndexEntry| matches!(row.entry.kind, EntryKind::Hardlink { .. });
        let any = tree.layers().iter().any(|l| l.entries.iter().any(is_link));
        let linked = match any {
            true => tree
                .walk(&LayerPath::ROOT)
                .filter(|(_, found)| is_link(found.row))
                .filter_map(|(_, found)| tree.source(found))
                .map(|found| (std::ptr::from_ref(found.row), None))
                .collect(),
            false => HashMap::new(),
        };
        let mut walk = tree.walk(&LayerPath::ROOT).peekable();
        // The root directory itself is that of the destination.
        walk.next_if(|(path, _)| path.is_root());
        Self {
            root,
            prefix,
            epoch,
            walk,
            linked,
            contents: Contents {
                blobs: &root.blobs,
                spool_dir,
                framed: Vec::new(),
                spooled: HashMap::new(),
            },
        }
    }

    /// The next path, and whether it is a directory.
    fn peek(&mut self) -> Option<(LayerPath, bool)> {
        let (path, found) = self.walk.peek()?;
        Some((path.clone(), found.row.entry.kind == EntryKind::Directory))
    }

    fn skip(&mut self) {
        self.walk.next();
    }

    fn platform_directory(&self) -> Entry {
        Entry {
            path: self.prefix.clone(),
            kind: EntryKind::Directory,
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: self.epoch.unwrap_or(0),
            xattrs: Default::default(),
        }
    }

    fn send_next(&mut self, watch: &Watch<'_>, take: &mut Taker<'_>) -> Result<(), ExportError> {
        watch.check()?;
        let Some((path, found)) = self.walk.next() else {
            return Ok(());
        };
        let Some(source) = self.root.tree.source(found) else {
            return Err(ExportError::Layer(LayerError::LinkTarget {
                target: path.clone(),
                path,
            }));
        };
        let path = joined(&self.prefix, &path);
        let mut entry = Entry {
            path: path.clone(),
            mtime: self.epoch.unwrap_or(source.row.entry.mtime),
            ..source.row.entry.clone()
        };
        if matches!(entry.kind, EntryKind::Regular { .. })
            && let Some(first) = self.linked.get_mut(&std::ptr::from_ref(source.row))
        {
            match first {
                Some(target) => {
                    entry.kind = EntryKind::Hardlink {
                        target: target.clone(),
                    };
                    return take(&entry, None);
                }
                None => *first = Some(path),
            }
        }
        match source.row.content {
            Some(_) => {
                let content = self.contents.read(source)?;
                let mut content = watch.content(content);
                take(&entry, Some(&mut content)).map_err(stopped)
            }
            None => take(&entry, None),
        }
    }
}

fn joined(prefix: &LayerPath, path: &LayerPath) -> LayerPath {
    path.components()
        .fold(prefix.clone(), |path, name| path.join(name))
}

/// Contents of the files of one root file system.
struct Contents<'f> {
    blobs: &'f [Option<Blob>],
    spool_dir: &'f std::path::Path,
    /// Layers that are read by frames, the last used last.
    framed: Vec<(usize, LayerContent)>,
    /// Layers that had to be decompressed as a whole: once.
    spooled: HashMap<usize, LayerContent>,
}

impl Contents<'_> {
    fn read(&mut self, found: Found<'_>) -> Result<Box<dyn Read + Send>, ExportError> {
        Ok(self.layer(found.layer)?.read(found.row)?)
    }

    fn layer(&mut self, number: usize) -> Result<LayerContent, ExportError> {
        if let Some(content) = self.spooled.get(&number) {
            return Ok(content.clone());
        }
        if let Some(at) = self.framed.iter().position(|(n, _)| *n == number) {
            let last = self.framed.remove(at);
            let content = last.1.clone();
            self.framed.push(last);
            return Ok(content);
        }
        let Some(blob) = self.blobs.get(number).and_then(Option::as_ref) else {
            return Err(BuildError::Internal {
                what: format!("layer {number} of an export was not made ready"),
            }
            .into());
        };
        let file = fs::open(&blob.path)?;
        let index = Arc::clone(&blob.index);
        let content = LayerContent::open_in(file, &blob.media_type, index, self.spool_dir)?;
        if content.is_framed() {
            if self.framed.len() == MAX_OPEN {
                self.framed.remove(0);
            }
            self.framed.push((number, content.clone()));
        } else {
            self.spooled.insert(number, content.clone());
        }
        Ok(content)
    }
}

/// Takes an interruption out of the failure that it caused.
fn stopped(error: ExportError) -> ExportError {
    let interrupted = match &error {
        ExportError::Layer(LayerError::ReadContent { source, .. }) => is_stopped(source),
        ExportError::Fs(error) => is_stopped(&error.source),
        _ => false,
    };
    match interrupted {
        true => BuildError::Interrupted.into(),
        false => error,
    }
}
