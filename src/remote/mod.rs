//! What comes from elsewhere: URLs, Git repositories, archives from standard input.
//!
//! [`Sources::fetch`] makes a [`RemoteSource`] a directory of this machine. It is then a
//! context like any other, so what it holds is in the keys of the steps that read it. Trees
//! are kept in the cache directory ([`SourceStore`]) and never change: an unchanged URL
//! costs one conditional request, one whose checksum is given none, an unchanged
//! branch one question to its server. A tree stays as long as the [`Sources`] live that have
//! given it out.
//!
//! If the cache directory can't be used, a temporary one is, with a warning.

mod error;
mod git;
mod git_auth;
mod git_program;
mod http;
mod store;
mod unpack;

pub use error::{FetchError, RemoteError};
pub use git_auth::GitAuth;
pub use store::SourceStore;

use std::{
    collections::HashMap,
    ffi::OsString,
    fs::File,
    io::{self, Read, Seek as _},
    path::{Path, PathBuf},
    sync::{Mutex, OnceLock, PoisonError},
};

use crate::{
    cache::DiskStore,
    digest::{Blake3Digest, Sha256Digest},
    event::Events,
    fs::{self, FsError, IoContext as _},
    graph::{GitSource, HttpSource, RemoteSource},
    oci::layer::{self, ArchiveFormat},
    redact,
    registry::{Authorities, Limits, Trouble, pause_after},
};
use git_program::GitProgram;
use http::{Answer, HttpClient};
use store::{Begun, NewTree, SourceKey, UsedTree};

/// How to fetch.
#[derive(Debug, Clone)]
pub struct SourceOptions {
    /// The cache directory, absolute.
    pub cache_dir: PathBuf,
    /// The directory for temporary files.
    pub temp_dir: PathBuf,
    /// The environment of `git`.
    pub git_env: Vec<(OsString, OsString)>,
    /// What web servers with Git repositories are shown.
    pub git_auth: GitAuth,
    /// Certificate authorities to trust besides the system's, but not by `git`.
    pub authorities: Authorities,
    /// Times and counts.
    pub limits: Limits,
    /// Who is told of transfers and warnings.
    pub events: Events,
}

/// Fetches what comes from elsewhere, and keeps it in use.
#[derive(Debug)]
pub struct Sources {
    options: SourceOptions,
    http: OnceLock<HttpClient>,
    place: Mutex<Option<Place>>,
    used: Mutex<Vec<UsedTree>>,
    /// What was fetched already: a name means the same as long as the [`Sources`] live.
    fetched: Mutex<HashMap<RemoteSource, PathBuf>>,
}

/// Where trees go.
#[derive(Debug)]
struct Place {
    store: SourceStore,
    /// Removed at the end.
    temporary: Option<tempfile::TempDir>,
}

/// What an archive or a file turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// An archive; this is the directory with its members.
    Archive(PathBuf),
    /// Anything else; this is its directory.
    File(PathBuf),
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sources {
    /// Nothing is touched before something is to be fetched.
    pub fn new(options: SourceOptions) -> Self {
        Self {
            options,
            http: OnceLock::new(),
            place: Mutex::new(None),
            used: Mutex::new(Vec::new()),
            fetched: Mutex::new(HashMap::new()),
        }
    }

    /// The directory with what `source` names. A URL's file stands in it under its name.
    pub async fn fetch(&self, source: &RemoteSource) -> Result<PathBuf, RemoteError> {
        if let Some(dir) = lock(&self.fetched).get(source) {
            return Ok(dir.clone());
        }
        // Sources are fetched side by side: another one may move to the temporary store at any
        // time, and what counts is where this one ran out of room.
        let store = self.store()?;
        let used = match self.fetch_to(store.clone(), source).await {
            Err(error) if error.is_no_room() && !self.is_temporary(&store) => {
                let store = self.use_temporary(&chain(&error))?;
                self.fetch_to(store, source).await?
            }
            result => result?,
        };
        let dir = self.keep(used);
        lock(&self.fetched).insert(source.clone(), dir.clone());
        Ok(dir)
    }

    /// The file that `url` gives, unpacked if it is an archive; else the file, under the
    /// name `name`.
    pub async fn fetch_content(&self, url: &str, name: &str) -> Result<Content, RemoteError> {
        let dir = self
            .fetch(&RemoteSource::Http(HttpSource {
                url: url.to_owned(),
                name: name.to_owned(),
                checksum: None,
            }))
            .await?;
        let mut file = fs::open(dir.join(name))?;
        let what = redact::url_credentials(url).into_owned();
        Ok(match self.unpack(&what, &mut file)? {
            Some(tree) => Content::Archive(tree),
            None => Content::File(dir),
        })
    }

    /// What comes from standard input: an archive, unpacked, or text that is given back.
    pub fn read_stdin(&self) -> Result<Result<PathBuf, Vec<u8>>, RemoteError> {
        let mut input = io::stdin().lock();
        let head = layer::head(&mut input).map_err(RemoteError::Stdin)?;
        if ArchiveFormat::of(&head).is_none() {
            let mut text = head;
            input.read_to_end(&mut text).map_err(RemoteError::Stdin)?;
            return Ok(Err(text));
        }
        let mut file = fs::temp_file_in(&self.options.temp_dir)?;
        let mut all = io::Cursor::new(head).chain(input);
        let path = &self.options.temp_dir;
        io::copy(&mut all, &mut file).at("copy standard input to", path)?;
        let what = "standard input";
        Ok(match self.unpack(what, &mut file)? {
            Some(tree) => Ok(tree),
            None => {
                let mut text = Vec::new();
                file.rewind().at("read", path)?;
                file.read_to_end(&mut text).at("read", path)?;
                Err(text)
            }
        })
    }

    /// All of standard input.
    pub fn read_text(&self) -> Result<Vec<u8>, RemoteError> {
        let mut text = Vec::new();
        let read = io::stdin().lock().read_to_end(&mut text);
        read.map_err(RemoteError::Stdin)?;
        Ok(text)
    }

    /// A directory with nothing in it.
    pub fn empty(&self) -> Result<PathBuf, RemoteError> {
        let key = SourceKey::of("empty", &[]);
        let used = match self.store()?.begin(&key)? {
            Begun::There(used) => used,
            Begun::New(new) => new.finish(&key, "nothing")?,
        };
        Ok(self.keep(used))
    }

    /// The members of the archive in `file`, as a directory; none if it is not one.
    fn unpack(&self, what: &str, file: &mut File) -> Result<Option<PathBuf>, RemoteError> {
        let read = |source| RemoteError::Archive {
            what: what.to_owned(),
            source: layer::LayerError::Read(source),
        };
        file.rewind().map_err(read)?;
        let head = layer::head(file).map_err(read)?;
        let Some(format) = ArchiveFormat::of(&head) else {
            return Ok(None);
        };
        file.rewind().map_err(read)?;
        if !layer::holds_tar(format, file.try_clone().map_err(read)?) {
            return Ok(None);
        }
        file.rewind().map_err(read)?;
        let (digest, _) = Blake3Digest::of_reader(&mut *file).map_err(read)?;
        let key = SourceKey::of("archive", &[("blake3", &digest.to_string())]);
        let mut store = self.store()?;
        loop {
            file.rewind().map_err(read)?;
            match unpack_to(&store, &key, what, format, file) {
                Err(error) if error.is_no_room() && !self.is_temporary(&store) => {
                    store = self.use_temporary(&chain(&error))?;
                }
                result => return Ok(Some(self.keep(result?))),
            }
        }
    }

    fn keep(&self, used: UsedTree) -> PathBuf {
        let dir = used.dir.clone();
        lock(&self.used).push(used);
        dir
    }

    /// Where trees go: the cache directory, if that can be used.
    fn store(&self) -> Result<SourceStore, RemoteError> {
        if let Some(place) = &*lock(&self.place) {
            return Ok(place.store.clone());
        }
        let dir = &self.options.cache_dir;
        let opened = match DiskStore::open(dir) {
            Ok(store) if store.is_writable() => {
                SourceStore::open(dir.join("sources")).map_err(RemoteError::from)
            }
            Ok(_) => Err(RemoteError::Fs(FsError {
                act: "write to",
                path: dir.clone(),
                source: io::ErrorKind::ReadOnlyFilesystem.into(),
            })),
            Err(error) => Err(error.into()),
        };
        match opened {
            Ok(store) => {
                let mut place = lock(&self.place);
                let place = place.get_or_insert(Place {
                    store,
                    temporary: None,
                });
                Ok(place.store.clone())
            }
            Err(error) => self.use_temporary(&chain(&error)),
        }
    }

    /// Whether `store` is the one that takes what the cache directory has no room for.
    fn is_temporary(&self, store: &SourceStore) -> bool {
        lock(&self.place)
            .as_ref()
            .is_some_and(|place| place.temporary.is_some() && place.store == *store)
    }

    /// Goes on in a temporary directory, and says so.
    fn use_temporary(&self, trouble: &str) -> Result<SourceStore, RemoteError> {
        let mut place = lock(&self.place);
        if let Some(Place {
            store,
            temporary: Some(_),
        }) = &*place
        {
            return Ok(store.clone());
        }
        let temporary = fs::temp_dir_in(&self.options.temp_dir)?;
        let store = SourceStore::open(temporary.path().join("sources"))?;
        *place = Some(Place {
            store: store.clone(),
            temporary: Some(temporary),
        });
        let message = format!(
            "what this build fetches is not kept: the cache directory can't be used ({trouble})"
        );
        self.options.events.warn(message, None);
        Ok(store)
    }

    async fn fetch_to(
        &self,
        store: SourceStore,
        source: &RemoteSource,
    ) -> Result<UsedTree, RemoteError> {
        match source {
            RemoteSource::Http(http) => self.fetch_http(store, http).await,
            RemoteSource::Git(git) => {
                let mut failures = 0;
                loop {
                    let error = match self.fetch_git(store.clone(), git).await {
                        Err(error) if error.trouble() == Trouble::Transient => error,
                        result => return result,
                    };
                    failures += 1;
                    let Some(pause) = pause_after(&self.options.limits, failures, None) else {
                        return Err(error);
                    };
                    tracing::debug!(failures, ?pause, %error, "trying again");
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }

    async fn fetch_http(
        &self,
        store: SourceStore,
        source: &HttpSource,
    ) -> Result<UsedTree, RemoteError> {
        let what = redact::url_credentials(&source.url).into_owned();
        let tree_key = |digest: &Sha256Digest| {
            let digest = digest.to_string();
            SourceKey::of("file", &[("sha256", &digest), ("name", &source.name)])
        };
        if let Some(checksum) = &source.checksum
            && let Some(used) = find(&store, tree_key(checksum)).await?
        {
            return Ok(used);
        }
        let url_key = SourceKey::of("url", &[("url", &source.url)]);
        let new = match begin(&store, url_key.clone()).await? {
            Begun::New(new) => new,
            Begun::There(used) => return Ok(used),
        };
        let record = store.url_record(&url_key);
        let known = match &record {
            Some(record) => find(&store, tree_key(&record.sha256)).await?,
            None => None,
        };
        let record = record.filter(|_| known.is_some());
        let dest = new.tree().join(&source.name);
        let answer = self
            .http()?
            .get(&source.url, record.as_ref(), &dest)
            .await?;
        let (sha256, used) = match (answer, record, known) {
            (Answer::Unchanged, Some(record), Some(used)) => (record.sha256, Some(used)),
            (Answer::New(record), ..) => {
                store.note_url(&url_key, &record)?;
                (record.sha256, None)
            }
            // There is no such answer to a request without conditions.
            (Answer::Unchanged, ..) => return Err(RemoteError::Url { what }),
        };
        if let Some(expected) = source.checksum
            && expected != sha256
        {
            return Err(RemoteError::checksum(&what, expected, sha256));
        }
        match used {
            Some(used) => Ok(used),
            None => finish(new, tree_key(&sha256), what).await,
        }
    }

    fn http(&self) -> Result<&HttpClient, RemoteError> {
        if let Some(client) = self.http.get() {
            return Ok(client);
        }
        let client = HttpClient::new(
            self.options.limits.clone(),
            &self.options.authorities,
            self.options.events.clone(),
        )?;
        Ok(self.http.get_or_init(|| client))
    }

    async fn fetch_git(
        &self,
        store: SourceStore,
        source: &GitSource,
    ) -> Result<UsedTree, RemoteError> {
        let what = source.shown().into_owned();
        let limit = self.options.limits.blob;
        let fetching = self.checkout(store, source, &what);
        match tokio::time::timeout(limit, fetching).await {
            Ok(result) => result,
            Err(_) => Err(RemoteError::Deadline { what, limit }),
        }
    }

    async fn checkout(
        &self,
        store: SourceStore,
        source: &GitSource,
        what: &str,
    ) -> Result<UsedTree, RemoteError> {
        let temp = &self.options.temp_dir;
        let auth = self.options.git_auth.setting(&source.remote);
        let git = GitProgram::new(what, self.options.git_env.clone(), &auth, temp).await?;
        // A short answer: who hasn't given it by then won't.
        let limit = self.options.limits.stall;
        let resolving = git::resolve(&git, source, Path::new("/"));
        let resolved = match tokio::time::timeout(limit, resolving).await {
            Ok(resolved) => resolved?,
            Err(_) => {
                let what = what.to_owned();
                return Err(RemoteError::Deadline { what, limit });
            }
        };
        let key = resolved.key(source);
        if let Some(used) = find(&store, key.clone()).await? {
            return Ok(used);
        }
        let new = match begin(&store, key.clone()).await? {
            Begun::New(new) => new,
            Begun::There(used) => return Ok(used),
        };
        git::checkout(&git, source, &resolved, &new).await?;
        finish(new, key, what.to_owned()).await
    }
}

fn unpack_to(
    store: &SourceStore,
    key: &SourceKey,
    what: &str,
    format: ArchiveFormat,
    file: &File,
) -> Result<UsedTree, RemoteError> {
    if let Some(used) = store.find(key)? {
        return Ok(used);
    }
    match store.begin(key)? {
        Begun::There(used) => Ok(used),
        Begun::New(new) => {
            unpack::unpack(what, format, file, &new.tree())?;
            Ok(new.finish(key, what)?)
        }
    }
}

/// `error` and its causes on one line.
fn chain(error: &RemoteError) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

/// Locks may have to be waited for, and disks be slow: not on the threads of the runtime.
async fn blocking<T: Send + 'static>(
    act: impl FnOnce() -> Result<T, FsError> + Send + 'static,
) -> Result<T, RemoteError> {
    match tokio::task::spawn_blocking(act).await {
        Ok(result) => Ok(result?),
        Err(ended) => match ended.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(RemoteError::Interrupted),
        },
    }
}

async fn find(store: &SourceStore, key: SourceKey) -> Result<Option<UsedTree>, RemoteError> {
    let store = store.clone();
    blocking(move || store.find(&key)).await
}

async fn begin(store: &SourceStore, key: SourceKey) -> Result<Begun, RemoteError> {
    let store = store.clone();
    blocking(move || store.begin(&key)).await
}

async fn finish(new: NewTree, key: SourceKey, what: String) -> Result<UsedTree, RemoteError> {
    blocking(move || new.finish(&key, &what)).await
}
