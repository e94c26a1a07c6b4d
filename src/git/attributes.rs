//! `.gitattributes`: which conversion a checkout applies to which path.
//!
//! The files of attributes are those that a checkout of a tree reads: the machine's and the
//! user's, those in the tree, and `info/attributes` of the repository. A symlink is none.

use std::sync::Arc;

use gix::{
    attrs::{
        Search, StateRef,
        search::{MetadataCollection, Outcome},
    },
    bstr::BStr,
    glob::pattern::Case,
};

use super::{
    GitError, Repository, UnknownReason,
    conversion::{Conversion, Encoding, LineEndings},
};
use crate::{
    digest::{Blake3Digest, KeyEncoder},
    fs,
    oci::layer::LayerPath,
};

/// The attributes that decide what a checkout writes, in the order of [`States`].
const NAMES: [&str; 6] = [
    "text",
    "crlf",
    "eol",
    "ident",
    "filter",
    "working-tree-encoding",
];

/// Git passes by longer lines, and larger files, of attributes.
const MAX_LINE: usize = 2047;
const MAX_FILE: usize = 100 << 20;

/// What is done to a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Treatment {
    /// This, and no more.
    Converted(Conversion),
    /// Something that can't be computed here.
    Unknown(UnknownReason),
}

/// The attributes that hold in a directory.
#[derive(Debug, Clone)]
pub(super) struct Attributes {
    /// From the weakest to the strongest file.
    search: Search,
    /// `info/attributes`, stronger than all.
    info: Search,
    names: MetadataCollection,
    /// Over all that was read so far, for [`digest`](Self::digest).
    read: Blake3Digest,
    /// Whether any line may change what is written.
    matters: bool,
    settings: Settings,
}

/// What the configuration says about conversions.
#[derive(Debug, Clone, Copy)]
struct Settings {
    /// `core.autocrlf` is true.
    auto_crlf: bool,
    /// Text without a word about its line endings gets CRLF.
    text_is_crlf: bool,
    case: Case,
}

impl Attributes {
    /// Those that hold in the root of a repository, without what its tree says.
    pub(super) fn outside(repository: &Repository) -> Result<Self, GitError> {
        repository.with(|repository| {
            let config = repository.config_snapshot();
            let is = |key: &str, value: &str| {
                let found = config.string(key);
                found.is_some_and(|text| text.eq_ignore_ascii_case(value.as_bytes()))
            };
            let input = is("core.autocrlf", "input");
            let auto_crlf = !input && config.boolean("core.autocrlf").unwrap_or(false);
            let mut this = Self {
                search: Search::default(),
                info: Search::default(),
                names: MetadataCollection::default(),
                read: Blake3Digest::of(b""),
                matters: auto_crlf,
                settings: Settings {
                    auto_crlf,
                    text_is_crlf: auto_crlf || (!input && is("core.eol", "crlf")),
                    case: match config.boolean("core.ignorecase").unwrap_or(false) {
                        true => Case::Fold,
                        false => Case::Sensitive,
                    },
                },
            };
            this.add(b"[attr]binary -diff -merge -text\n", None);
            // A file that isn't there, or can't be read, has no say, as with Git.
            let paths = repository.attribute_global_paths().unwrap_or_default();
            for bytes in paths.iter().filter_map(|path| fs::read(path).ok()) {
                this.add(&bytes, None);
            }
            let info = repository.common_dir().join("info/attributes");
            if let Ok(bytes) = fs::read(info) {
                let bytes = usable(&bytes);
                this.note(&bytes);
                this.matters |= this.settings.may_matter(&bytes);
                // Bytes in memory have no way to fail.
                let _ = this.info.add_patterns_buffer(
                    &bytes,
                    "info/attributes".into(),
                    None,
                    &mut this.names,
                    true,
                );
            }
            Ok(this)
        })
    }

    /// Those that hold in directory `dir` whose own file has `bytes`.
    pub(super) fn within(self: &Arc<Self>, dir: &LayerPath, bytes: &[u8]) -> Arc<Self> {
        let mut this = Self::clone(self);
        this.add(bytes, Some(dir));
        Arc::new(this)
    }

    fn add(&mut self, bytes: &[u8], dir: Option<&LayerPath>) {
        if bytes.len() > MAX_FILE {
            return;
        }
        let bytes = usable(bytes);
        self.note(&bytes);
        self.matters |= self.settings.may_matter(&bytes);
        // The places are names only: patterns count from the directory of a source below a root.
        let root = std::path::Path::new("/");
        let source = match dir {
            Some(dir) => root.join(dir.as_path()).join(".gitattributes"),
            None => "outside".into(),
        };
        let macros = dir.is_none_or(LayerPath::is_root);
        // Bytes in memory have no way to fail.
        let _ = self.search.add_patterns_buffer(
            &bytes,
            source,
            dir.map(|_| root),
            &mut self.names,
            macros,
        );
    }

    /// Adds what was read to the digest.
    fn note(&mut self, bytes: &[u8]) {
        self.read = KeyEncoder::new("memobuild-ci 2026-11-21 git attributes v1")
            .field("before", self.read.as_bytes())
            .field("bytes", bytes)
            .finish();
    }

    /// The digest of all that these attributes are made of.
    pub(super) fn digest(&self) -> Blake3Digest {
        KeyEncoder::new("memobuild-ci 2026-11-21 git attributes v1")
            .field("read", self.read.as_bytes())
            .field("settings", format!("{:?}", self.settings))
            .finish()
    }

    /// What is done to the file at `path`, relative to the repository's root.
    pub(super) fn treatment(&self, path: &[u8]) -> Treatment {
        if !self.matters {
            return Treatment::Converted(Conversion::NONE);
        }
        let mut outcome = Outcome::default();
        outcome.initialize_with_selection(&self.names, NAMES);
        let path: &BStr = path.into();
        let case = self.settings.case;
        self.info
            .pattern_matching_relative_path(path, case, Some(false), &mut outcome);
        if !outcome.is_done() {
            self.search
                .pattern_matching_relative_path(path, case, Some(false), &mut outcome);
        }
        let mut states = [StateRef::Unspecified; NAMES.len()];
        for found in outcome.iter_selected() {
            let name = found.assignment.name.as_str();
            if let Some(n) = NAMES.iter().position(|known| *known == name) {
                states[n] = found.assignment.state;
            }
        }
        self.settings.treatment(states)
    }
}

/// What [`NAMES`] are set to.
type States<'a> = [StateRef<'a>; NAMES.len()];

impl Settings {
    /// Whether a file of attributes may change what is written.
    fn may_matter(&self, bytes: &[u8]) -> bool {
        let has = |name: &&str| {
            let name = name.as_bytes();
            bytes.windows(name.len()).any(|part| part == name)
        };
        // On its own, that a file is text changes nothing.
        let names = match self.text_is_crlf {
            true => &NAMES[..],
            false => &NAMES[2..],
        };
        names.iter().any(has)
    }

    fn treatment(&self, states: States<'_>) -> Treatment {
        let [text, crlf, eol, ident, filter, encoding] = states;
        let endings = self.endings(text, crlf, eol);
        let name = |state: StateRef<'_>| match state {
            StateRef::Value(name) => String::from_utf8_lossy(name.as_bstr()).into_owned(),
            state => format!("{state:?}").to_lowercase(),
        };
        let encoded = match encoding {
            StateRef::Unspecified => Some(Encoding::Same),
            StateRef::Value(value) => Encoding::of(value.as_bstr()),
            StateRef::Set | StateRef::Unset => None,
        };
        let Some(encoded) = encoded else {
            return Treatment::Unknown(UnknownReason::Encoding(name(encoding)));
        };
        let conversion = Conversion::new(endings, ident == StateRef::Set, encoded);
        match filter {
            StateRef::Value(value) => match value.as_bstr() == "lfs" {
                true if conversion == Conversion::NONE => Treatment::Converted(Conversion::LFS),
                _ => Treatment::Unknown(UnknownReason::Filter(name(filter))),
            },
            _ => Treatment::Converted(conversion),
        }
    }

    /// The line endings that `text`, its older name `crlf`, `eol` and the configuration ask for.
    fn endings(&self, text: StateRef<'_>, crlf: StateRef<'_>, eol: StateRef<'_>) -> LineEndings {
        #[derive(Clone, Copy)]
        enum Text {
            Yes,
            Input,
            Auto,
        }
        // Some(None) says that it is no text.
        let read = |state: StateRef<'_>| match state {
            StateRef::Set => Some(Some(Text::Yes)),
            StateRef::Unset => Some(None),
            StateRef::Value(value) if value.as_bstr() == "input" => Some(Some(Text::Input)),
            StateRef::Value(value) if value.as_bstr() == "auto" => Some(Some(Text::Auto)),
            StateRef::Value(_) | StateRef::Unspecified => None,
        };
        let text = match read(text).or_else(|| read(crlf)) {
            Some(None) => return LineEndings::Same,
            Some(Some(text)) => Some(text),
            None => None,
        };
        let eol = match eol {
            StateRef::Value(value) if value.as_bstr() == "lf" => Some(false),
            StateRef::Value(value) if value.as_bstr() == "crlf" => Some(true),
            _ => None,
        };
        let crlf = eol.unwrap_or(self.text_is_crlf);
        match (text, eol) {
            (Some(Text::Input), None) => LineEndings::Same,
            (Some(Text::Auto), _) if crlf => LineEndings::CrlfIfText,
            (Some(Text::Auto), _) => LineEndings::Same,
            (Some(Text::Yes), None) | (_, Some(_)) if crlf => LineEndings::Crlf,
            (None, None) if self.auto_crlf => LineEndings::CrlfIfText,
            _ => LineEndings::Same,
        }
    }
}

/// The lines that Git takes.
fn usable(bytes: &[u8]) -> Vec<u8> {
    let lines = bytes.split_inclusive(|byte| *byte == b'\n');
    let short = lines.filter(|line| line.len() <= MAX_LINE);
    short.flatten().copied().collect()
}
