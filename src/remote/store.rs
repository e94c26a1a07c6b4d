//! Where fetched trees are kept: `sources/` in the cache directory, or a temporary one.
//!
//! ```text
//! trees/<key>/tree/         what was fetched, never changed
//! trees/<key>/source.json   what it is; its mtime is the time of the last use
//! urls/<key>.json           what a URL gave last (`UrlRecord`)
//! locks/<key>               shared by who uses a tree, exclusive for who removes it
//! locks/<key>.make          exclusive for who makes or removes a tree
//! tmp/<key>/                in the making or going, by the holder of `<key>.make`
//! ```
//!
//! Keys are 64 hexadecimal digits. A tree gets its name by a rename, so it is whole. What
//! a killed process leaves in `tmp/` is removed by the next one that wants the same key, and
//! by garbage collection. The specification is `docs/internals/storage-format.md`.

use std::{
    io,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use crate::{
    cache::{CacheError, DerivedData, DerivedUse},
    digest::{Blake3Digest, KeyEncoder, Sha256Digest},
    fs::{self, FileLock, FsError, IoContext as _},
};

/// Version of the two JSON forms; another one is a miss.
const VERSION: u32 = 1;

/// What the identifiers of trees begin with, among those of all derived data.
const ID_PREFIX: &str = "source:";

/// Names a tree, or what a URL gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SourceKey(String);

impl SourceKey {
    /// The key of these fields, each told from the others by its name.
    pub(super) fn of(kind: &str, fields: &[(&str, &str)]) -> Self {
        let mut encoder = KeyEncoder::new("memobuild-ci 2026-11-21 source v1");
        encoder.field("kind", kind);
        for (name, value) in fields {
            encoder.field(name, value);
        }
        let digest: Blake3Digest = encoder.finish();
        Self(hex::encode(digest.as_bytes()))
    }
}

/// `source.json`.
#[derive(Debug, Serialize, Deserialize)]
struct TreeRecord {
    version: u32,
    /// The address, credentials masked.
    source: String,
    /// Bytes of all files.
    bytes: u64,
}

/// What a URL gave last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct UrlRecord {
    pub(super) version: u32,
    /// Digest of the content.
    pub(super) sha256: Sha256Digest,
    /// The `ETag` header.
    pub(super) etag: Option<String>,
    /// The `Last-Modified` header.
    pub(super) last_modified: Option<String>,
}

impl UrlRecord {
    pub(super) fn new(
        sha256: Sha256Digest,
        etag: Option<String>,
        last_modified: Option<String>,
    ) -> Self {
        Self {
            version: VERSION,
            sha256,
            etag,
            last_modified,
        }
    }
}

/// A tree in use: it stays as long as this lives.
#[derive(Debug)]
pub(super) struct UsedTree {
    pub(super) dir: PathBuf,
    _lock: FileLock,
}

/// A tree in the making; removed when dropped.
#[derive(Debug)]
pub(super) struct NewTree {
    store: SourceStore,
    /// Holds `tree`; other files in it are thrown away.
    pub(super) dir: PathBuf,
    _lock: FileLock,
}

/// What [`SourceStore::begin`] gives.
#[derive(Debug)]
pub(super) enum Begun {
    /// A tree to be made.
    New(NewTree),
    /// One that somebody has made meanwhile.
    There(UsedTree),
}

/// A directory of fetched trees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceStore {
    root: PathBuf,
}

impl SourceStore {
    /// The store in `root`, whose directories are made where they are missing.
    pub fn open(root: PathBuf) -> Result<Self, FsError> {
        for sub in ["trees", "urls", "locks", "tmp"] {
            fs::create_dir_all(root.join(sub))?;
        }
        rustix::fs::access(root.join("tmp"), rustix::fs::Access::WRITE_OK)
            .at("write to", root.join("tmp"))?;
        Ok(Self { root })
    }

    /// The store of the cache directory `cache`, if there is one.
    pub fn existing(cache: &Path) -> Option<Self> {
        let root = cache.join("sources");
        fs::exists(root.join("trees")).then_some(Self { root })
    }

    fn lock_path(&self, key: &SourceKey) -> PathBuf {
        self.root.join("locks").join(&key.0)
    }

    fn maker_path(&self, key: &SourceKey) -> PathBuf {
        self.root.join("locks").join(format!("{}.make", key.0))
    }

    fn tree_path(&self, key: &SourceKey) -> PathBuf {
        self.root.join("trees").join(&key.0)
    }

    /// The tree of this key, if it is there. Waits for who removes it.
    pub(super) fn find(&self, key: &SourceKey) -> Result<Option<UsedTree>, FsError> {
        let path = self.tree_path(key);
        if !fs::exists(&path) {
            return Ok(None);
        }
        let lock = FileLock::shared(self.lock_path(key))?;
        let record = path.join("source.json");
        if !fs::exists(&record) {
            return Ok(None);
        }
        // A use that can't be noted makes the tree look older than it is.
        let _ = fs::touch(&record);
        Ok(Some(UsedTree {
            dir: fs::canonicalize(path.join("tree"))?,
            _lock: lock,
        }))
    }

    /// Begins the making of `key`, alone: waits for who else makes it, and then takes
    /// what that one has made.
    pub(super) fn begin(&self, key: &SourceKey) -> Result<Begun, FsError> {
        let lock = FileLock::exclusive(self.maker_path(key))?;
        if let Some(used) = self.find(key)? {
            return Ok(Begun::There(used));
        }
        let dir = self.root.join("tmp").join(&key.0);
        fs::remove_dir_all(&dir)?;
        fs::create_dir_all(dir.join("tree"))?;
        Ok(Begun::New(NewTree {
            store: self.clone(),
            dir,
            _lock: lock,
        }))
    }

    /// What the URL with this key gave last.
    pub(super) fn url_record(&self, key: &SourceKey) -> Option<UrlRecord> {
        let text = fs::read(self.root.join("urls").join(format!("{}.json", key.0))).ok()?;
        let record: UrlRecord = serde_json::from_slice(&text).ok()?;
        (record.version == VERSION).then_some(record)
    }

    /// Notes what a URL gave.
    pub(super) fn note_url(&self, key: &SourceKey, record: &UrlRecord) -> Result<(), FsError> {
        let path = self.root.join("urls").join(format!("{}.json", key.0));
        // It has no field that could fail.
        let text = serde_json::to_vec(record).unwrap_or_default();
        fs::write_atomic(path, &text)
    }

    /// Removes what killed processes left, and records of URLs that nobody asked for
    /// in a month.
    fn sweep(&self) -> Result<(), FsError> {
        for name in fs::names(self.root.join("tmp"))? {
            let key = SourceKey(name.to_string_lossy().into_owned());
            if let Some(_lock) = FileLock::try_exclusive(self.maker_path(&key))? {
                fs::remove_dir_all(self.root.join("tmp").join(&name))?;
            }
        }
        for name in fs::names(self.root.join("urls"))? {
            let path = self.root.join("urls").join(name);
            let now = SystemTime::now();
            let age = fs::modified(&path).map(|time| now.duration_since(time).unwrap_or_default());
            if age.is_ok_and(|age| age.as_secs() > 30 * 24 * 3600) {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    /// Whether the identifier of derived data is that of a tree.
    pub fn owns(id: &str) -> bool {
        id.starts_with(ID_PREFIX)
    }
}

impl NewTree {
    /// The directory to fill.
    pub(super) fn tree(&self) -> PathBuf {
        self.dir.join("tree")
    }

    /// Gives the tree the name `key`, which is the one it was begun under or that of its
    /// content. If there is one already, that one is taken.
    pub(super) fn finish(self, key: &SourceKey, source: &str) -> Result<UsedTree, FsError> {
        let record = TreeRecord {
            version: VERSION,
            source: source.to_owned(),
            bytes: fs::tree_size(self.tree())?,
        };
        let text = serde_json::to_vec(&record).unwrap_or_default();
        let whole = self.dir.join("whole");
        fs::create_dir_all(&whole)?;
        fs::write_atomic(whole.join("source.json"), &text)?;
        fs::rename(self.tree(), whole.join("tree"))?;
        let dest = self.store.tree_path(key);
        // Another process may have made it meanwhile, from another URL.
        if let Err(error) = fs::rename(&whole, &dest)
            && !fs::exists(&dest)
        {
            return Err(error);
        }
        let store = self.store.clone();
        drop(self);
        match store.find(key)? {
            Some(used) => Ok(used),
            None => Err(FsError {
                act: "find",
                path: dest,
                source: io::ErrorKind::NotFound.into(),
            }),
        }
    }
}

impl Drop for NewTree {
    fn drop(&mut self) {
        // What stays is removed by whoever takes the key up.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl DerivedData for SourceStore {
    fn list(&self) -> Result<Vec<DerivedUse>, CacheError> {
        self.sweep()?;
        let mut uses = Vec::new();
        for name in fs::names(self.root.join("trees"))? {
            let dir = self.root.join("trees").join(&name);
            let record = dir.join("source.json");
            let bytes = fs::read(&record)
                .ok()
                .and_then(|text| serde_json::from_slice::<TreeRecord>(&text).ok())
                .map_or(0, |record| record.bytes);
            let used = fs::modified(&record).unwrap_or(UNIX_EPOCH);
            let used = used.duration_since(UNIX_EPOCH).unwrap_or_default();
            uses.push(DerivedUse {
                id: format!("{ID_PREFIX}{}", name.to_string_lossy()),
                bytes,
                used: i64::try_from(used.as_millis()).unwrap_or(i64::MAX),
            });
        }
        Ok(uses)
    }

    fn remove(&self, id: &str) -> Result<bool, CacheError> {
        let key = SourceKey(id.trim_start_matches(ID_PREFIX).to_owned());
        let Some(_making) = FileLock::try_exclusive(self.maker_path(&key))? else {
            return Ok(false);
        };
        // A build that uses it holds the lock.
        let Some(_using) = FileLock::try_exclusive(self.lock_path(&key))? else {
            return Ok(false);
        };
        let going = self.root.join("tmp").join(&key.0);
        fs::remove_dir_all(&going)?;
        fs::rename(self.tree_path(&key), &going)?;
        fs::remove_dir_all(&going)?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> SourceKey {
        SourceKey::of("test", &[("text", text)])
    }

    fn begin(store: &SourceStore, name: &str) -> NewTree {
        match store.begin(&key(name)).unwrap() {
            Begun::New(new) => new,
            Begun::There(used) => panic!("{used:?}"),
        }
    }

    fn make(store: &SourceStore, name: &str) -> UsedTree {
        let new = begin(store, name);
        std::fs::write(new.tree().join("f"), name).unwrap();
        new.finish(&key(name), "https://h/f").unwrap()
    }

    #[test]
    fn a_tree_is_there_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let store = SourceStore::open(dir.path().join("sources")).unwrap();
        let new = begin(&store, "a");
        std::fs::write(new.tree().join("f"), "half").unwrap();
        assert!(store.find(&key("a")).unwrap().is_none());
        drop(new);
        assert_eq!(fs::names(dir.path().join("sources/tmp")).unwrap().len(), 0);
        let used = make(&store, "a");
        assert_eq!(std::fs::read(used.dir.join("f")).unwrap(), b"a");
        // Who comes late takes what is there, also where the same process uses it.
        let again = store.begin(&key("a")).unwrap();
        assert!(matches!(again, Begun::There(again) if again.dir == used.dir));
        // The same content from elsewhere.
        let new = begin(&store, "other");
        let same = new.finish(&key("a"), "https://h/g").unwrap();
        assert_eq!(same.dir, used.dir);
    }

    #[test]
    fn what_is_used_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let store = SourceStore::open(dir.path().join("sources")).unwrap();
        let used = make(&store, "a");
        let left = store.root.join("tmp").join(&key("b").0);
        std::fs::create_dir(&left).unwrap();
        let list = DerivedData::list(&store).unwrap();
        assert!(!left.exists(), "what a killed process left is swept");
        assert_eq!((list.len(), list[0].bytes), (1, 1));
        assert!(SourceStore::owns(&list[0].id));
        assert!(!store.remove(&list[0].id).unwrap());
        drop(used);
        assert!(store.remove(&list[0].id).unwrap());
        assert!(store.find(&key("a")).unwrap().is_none());
    }

    #[test]
    fn records_of_other_versions_are_misses() {
        let dir = tempfile::tempdir().unwrap();
        let store = SourceStore::open(dir.path().to_owned()).unwrap();
        let mut record = UrlRecord::new(Sha256Digest::of(b"x"), Some("e".to_owned()), None);
        store.note_url(&key("u"), &record).unwrap();
        assert_eq!(store.url_record(&key("u")), Some(record.clone()));
        record.version = 2;
        store.note_url(&key("u"), &record).unwrap();
        assert_eq!(store.url_record(&key("u")), None);
    }
}
