//! What one object of the service says about many: entries of a scope, and in which pack each
//! blob lies, at which offset.
//!
//! An index is JSON, compressed with Zstandard, under the key that [`key`] makes. It is whole: a
//! reader needs the newest one of a scope and no other. Format 1; the version of entries is part of the key
//! too, so programs that read entries otherwise don't see it.

use std::{
    collections::{BTreeMap, HashSet},
    io::Read,
};

use serde::{Deserialize, Serialize};

use crate::{
    cache::{ActionResult, RECORD_VERSION, Scope},
    digest::Sha256Digest,
    key::CacheKey,
};

/// Version of the format.
const VERSION: u32 = 1;
/// Most packs an index names. The oldest ones go first.
const MOST_PACKS: usize = 128;
/// Most entries an index holds, by when their steps were executed.
const MOST_ENTRIES: usize = 20_000;
/// Largest index in bytes, before compression.
const LARGEST: u64 = 256 << 20;
/// Level of compression.
const LEVEL: i32 = 3;

/// What the keys of all indexes of a scope begin with. No scope's text holds a `~`, so this is no
/// other scope's.
pub(super) fn prefix(scope: &Scope) -> String {
    format!("memobuild-ci/index/{VERSION}.{RECORD_VERSION}/{scope}~")
}

/// The key of the index of a scope with this number. Numbers ascend, so that of two writers who saw the same
/// index only one gets the next key.
pub(super) fn key(scope: &Scope, number: u64) -> String {
    format!("{}{number:010}", prefix(scope))
}

/// The number in a key that [`key`] made.
pub(super) fn number(scope: &Scope, key: &str) -> Option<u64> {
    key.strip_prefix(&prefix(scope))?.parse().ok()
}

/// The key of a pack.
pub(super) fn pack_key(name: &str) -> String {
    format!("memobuild-ci/pack/{VERSION}/{name}")
}

/// Where a blob lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Place {
    /// The name of the pack: the hexadecimal SHA-256 of its bytes, followed by `-` and a random number
    /// where an abandoned upload holds that name.
    pub(super) pack: String,
    /// Offset in the pack, in bytes.
    pub(super) offset: u64,
    /// Size in bytes.
    pub(super) size: u64,
}

/// The content of an index.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Index {
    /// Packs, the newest first.
    packs: Vec<String>,
    blobs: BTreeMap<Sha256Digest, Place>,
    entries: BTreeMap<CacheKey, ActionResult>,
}

/// The JSON form.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    scope: Scope,
    packs: Vec<String>,
    blobs: Vec<(Sha256Digest, Place)>,
    entries: Vec<ActionResult>,
}

/// Bytes that are no index.
#[derive(Debug, thiserror::Error)]
pub(super) enum IndexError {
    /// They can't be decompressed, or are too large.
    #[error("it can't be decompressed")]
    Compression(#[source] std::io::Error),
    /// They have another shape.
    #[error("it has another shape")]
    Shape(#[source] serde_json::Error),
    /// Of another version, or for another scope.
    #[error("it has version {version} and is for scope `{scope}`")]
    Other {
        /// The version it states.
        version: u32,
        /// The scope it states.
        scope: Scope,
    },
}

impl Index {
    /// The entry under `key`.
    pub(super) fn entry(&self, key: &CacheKey) -> Option<&ActionResult> {
        self.entries.get(key)
    }

    /// Where a blob lies.
    pub(super) fn place(&self, digest: &Sha256Digest) -> Option<Place> {
        self.blobs.get(digest).cloned()
    }

    /// Adds an entry in place of one under its key.
    pub(super) fn add_entry(&mut self, entry: ActionResult) {
        self.entries.insert(entry.key, entry);
    }

    /// Adds where a blob lies.
    pub(super) fn add_place(&mut self, digest: Sha256Digest, place: Place) {
        if !self.packs.contains(&place.pack) {
            self.packs.insert(0, place.pack.clone());
        }
        self.blobs.insert(digest, place);
    }

    /// Whether there is no entry.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The blobs that the entries name.
    pub(super) fn named_blobs(&self) -> impl Iterator<Item = Sha256Digest> + '_ {
        self.entries.values().flat_map(ActionResult::blobs)
    }

    /// Whether `other` has all entries of this one, and their blobs in packs that are not `gone`.
    pub(super) fn is_within(&self, other: &Self, gone: &HashSet<String>) -> bool {
        let same = |(key, entry)| other.entries.get(key) == Some(entry);
        let lies = |place: Place| !gone.contains(&place.pack);
        let has = |digest| self.place(&digest).is_none() || other.place(&digest).is_some_and(lies);
        self.entries.iter().all(same) && self.named_blobs().all(has)
    }

    /// Both, with this one's where both have something, and without the packs in `gone` and what
    /// hangs on them. What is too much is left out.
    pub(super) fn joined(&self, older: &Self, gone: &HashSet<String>) -> Self {
        let mut packs = self.packs.clone();
        let others = older.packs.iter().filter(|p| !self.packs.contains(p));
        packs.extend(others.cloned());
        packs.retain(|pack| !gone.contains(pack));
        packs.truncate(MOST_PACKS);

        let mut blobs = older.blobs.clone();
        // A place in a pack that is gone doesn't hide another one.
        let mine = self.blobs.iter().filter(|(_, p)| packs.contains(&p.pack));
        blobs.extend(mine.map(|(digest, place)| (*digest, place.clone())));
        let mut lost = HashSet::new();
        blobs.retain(|digest, place| {
            let kept = packs.contains(&place.pack);
            if !kept {
                lost.insert(*digest);
            }
            kept
        });

        let mut entries = older.entries.clone();
        entries.extend(self.entries.iter().map(|(k, e)| (*k, e.clone())));
        entries.retain(|_, entry| !entry.blobs().iter().any(|blob| lost.contains(blob)));
        if let Some(surplus) = entries.len().checked_sub(MOST_ENTRIES)
            && surplus > 0
        {
            let mut ages: Vec<(u64, CacheKey)> =
                entries.iter().map(|(k, e)| (e.created, *k)).collect();
            ages.sort_unstable();
            for (_, key) in &ages[..surplus] {
                entries.remove(key);
            }
        }
        Self {
            packs,
            blobs,
            entries,
        }
    }

    /// The bytes of the index of `scope`.
    pub(super) fn encode(&self, scope: &Scope) -> std::io::Result<Vec<u8>> {
        let file = File {
            version: VERSION,
            scope: scope.clone(),
            packs: self.packs.clone(),
            blobs: self.blobs.iter().map(|(d, p)| (*d, p.clone())).collect(),
            entries: self.entries.values().cloned().collect(),
        };
        let json = serde_json::to_vec(&file)?;
        zstd::encode_all(json.as_slice(), LEVEL)
    }

    /// Reads the index of `scope`. Entries that state another scope are left out.
    pub(super) fn decode(scope: &Scope, bytes: &[u8]) -> Result<Self, IndexError> {
        let mut json = Vec::new();
        let decoder = zstd::Decoder::new(bytes).map_err(IndexError::Compression)?;
        decoder
            .take(LARGEST)
            .read_to_end(&mut json)
            .map_err(IndexError::Compression)?;
        let file: File = serde_json::from_slice(&json).map_err(IndexError::Shape)?;
        if file.version != VERSION || file.scope != *scope {
            return Err(IndexError::Other {
                version: file.version,
                scope: file.scope,
            });
        }
        let entries = file.entries.into_iter();
        let own = entries.filter(|e| e.scope == *scope && e.version == RECORD_VERSION);
        Ok(Self {
            packs: file.packs,
            blobs: file.blobs.into_iter().collect(),
            entries: own.map(|entry| (entry.key, entry)).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::conformance::sample_action;

    fn place(name: &str) -> Place {
        Place {
            pack: name.to_owned(),
            offset: 3,
            size: 5,
        }
    }

    /// An entry `number` whose blob lies in `pack`.
    fn index(number: u64, pack: &str) -> Index {
        let blob = Sha256Digest::of(&number.to_le_bytes());
        let mut index = Index::default();
        index.add_entry(sample_action(number, &[blob]));
        index.add_place(blob, place(pack));
        index
    }

    #[test]
    fn keys_are_those_of_the_specification() {
        let scope = Scope::branch("a/b");
        assert_eq!(
            key(&scope, 12),
            "memobuild-ci/index/1.1/branch/a/b~0000000012"
        );
        assert_eq!(number(&scope, &key(&scope, 12)), Some(12));
        assert_eq!(number(&Scope::branch("a"), &key(&scope, 12)), None);
        assert!(!prefix(&scope).starts_with(&prefix(&Scope::branch("a"))));
        assert!(pack_key("e3b0c442").eq("memobuild-ci/pack/1/e3b0c442"));
        // The service allows 512 characters and no comma.
        let longest = Scope::branch(&"x".repeat(193));
        assert_eq!(longest.as_str().len(), 200);
        assert!(key(&longest, u64::MAX).len() < 512);
    }

    #[test]
    fn an_index_comes_back_as_it_was() {
        let scope = Scope::local();
        let index = index(1, "p").joined(&index(2, "q"), &HashSet::new());
        let bytes = index.encode(&scope).unwrap();
        assert_eq!(Index::decode(&scope, &bytes).unwrap(), index);
        let other = Index::decode(&Scope::protected(), &bytes);
        assert!(matches!(other, Err(IndexError::Other { .. })), "{other:?}");
        assert!(matches!(
            Index::decode(&scope, &bytes[..bytes.len() / 2]),
            Err(IndexError::Compression(_))
        ));
        assert!(matches!(
            Index::decode(&scope, &zstd::encode_all(&b"{}"[..], 3).unwrap()),
            Err(IndexError::Shape(_))
        ));
    }

    #[test]
    fn joining_keeps_both_and_prefers_the_newer() {
        let (one, two) = (index(1, "p"), index(2, "q"));
        let both = one.joined(&two, &HashSet::new());
        let none = HashSet::new();
        assert!(one.is_within(&both, &none) && two.is_within(&both, &none));
        assert_eq!(both.packs, ["p", "q"]);
        let mut newer = index(1, "r");
        let mut entry = newer.entries.values().next().unwrap().clone();
        entry.duration_ms = 99;
        newer.add_entry(entry.clone());
        let joined = newer.joined(&both, &HashSet::new());
        assert_eq!(joined.entry(&entry.key), Some(&entry));
        assert!(!one.is_within(&joined, &none));
        let gone = HashSet::from(["q".to_owned()]);
        assert!(
            !two.is_within(&both, &gone),
            "what lay there is to be saved again"
        );
        assert_eq!(joined.place(&entry.blobs()[0]), Some(place("r")));
    }

    #[test]
    fn what_lay_in_a_pack_that_is_gone_is_left_out() {
        let (one, two) = (index(1, "p"), index(2, "q"));
        let joined = one.joined(&two, &HashSet::from(["q".to_owned()]));
        assert_eq!(joined, one);
        // The blob lies in another pack too.
        let again = index(2, "r").joined(&two, &HashSet::from(["q".to_owned()]));
        assert_eq!(again, index(2, "r"));
        let older = two.joined(&index(2, "r"), &HashSet::from(["q".to_owned()]));
        assert_eq!(
            older.place(&two.entries.values().next().unwrap().blobs()[0]),
            Some(place("r"))
        );
    }

    #[test]
    fn an_index_stays_small() {
        let mut all = Index::default();
        for number in 0..MOST_PACKS as u64 + 3 {
            all = index(number, &number.to_string()).joined(&all, &HashSet::new());
        }
        assert_eq!(all.packs.len(), MOST_PACKS);
        assert_eq!(
            (all.blobs.len(), all.entries.len()),
            (MOST_PACKS, MOST_PACKS)
        );
        assert_eq!(all.packs[0], (MOST_PACKS + 2).to_string());
    }
}
