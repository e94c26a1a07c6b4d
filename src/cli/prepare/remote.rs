//! Contexts and Dockerfiles that are not in a directory: URLs, Git repositories, standard
//! input. What `docker buildx build` takes for what is taken for the same here.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use futures_util::future::try_join_all;

use super::{
    Recipe,
    contexts::{add_context, ignore_file},
};
use crate::{
    cli::{
        CliError, Context,
        build::{BuildArgs, secrets},
        caches,
    },
    config::Config,
    digest::Sha256Digest,
    dockerfile::{self, Dockerfile, Span, address::Address},
    event::Events,
    fs::{self, Disk, Files},
    graph::{
        BuildGraph, GitSource, HttpSource, LocalContext, MissingSource, RemoteSource, SourceTable,
        lower::NamedContext,
    },
    redact,
    registry::Limits,
    remote::{Content, FetchError, GitAuth, SourceOptions, Sources},
};

/// Name of a Dockerfile that came from standard input, in messages.
const STDIN: &str = "stdin";

/// What a Dockerfile is called unless it is named.
const DOCKERFILE: &str = "Dockerfile";

/// Name that BuildKit gives a file from a URL that is used as a context.
const FILE: &str = "context";

/// The main context and the Dockerfile, both read.
pub(super) struct Place {
    pub(super) context: usize,
    pub(super) dockerfile: Dockerfile,
    /// What an image without a name is named after.
    pub(super) name: PathBuf,
}

/// A context before its Dockerfile is known.
pub(super) enum Given {
    /// A directory of the user.
    Local(PathBuf),
    /// A directory that was fetched.
    Fetched(PathBuf),
    /// A Dockerfile instead of a context: its name, its text, and a directory to copy from.
    Dockerfile(String, Vec<u8>, PathBuf),
}

/// What fetches for this build. Nothing is touched before something is to be fetched. Among
/// `given` secrets, as `--secret` takes them, are those for Git servers.
pub(super) fn sources(
    context: &Context,
    args: &BuildArgs,
    configuration: Option<&Config>,
    given: &[String],
    events: &Events,
) -> Result<Arc<Sources>, CliError> {
    let configured = configuration.and_then(|c| c.cache.dir.clone());
    let dir = match &args.cache_dir {
        Some(dir) => dir.clone(),
        None => context.env.cache_dir(configured),
    };
    let secrets = secrets(given)?;
    let git_auth = GitAuth::of(secrets.iter().map(|(id, value)| (&**id, value.expose())));
    let settings = configuration.map(|c| c.cache.clone()).unwrap_or_default();
    Ok(Arc::new(Sources::new(SourceOptions {
        cache_dir: fs::absolute(dir)?,
        temp_dir: context.env.temp_dir(),
        git_env: context.env.for_git(),
        git_auth,
        authorities: caches::authorities(context, &settings)?,
        limits: Limits::default(),
        events: events.clone(),
    })))
}

/// Reads the context and the Dockerfile that the command names.
pub(super) async fn place(
    files: &dyn Files,
    args: &BuildArgs,
    keep_git_dir: bool,
    sources: &Arc<Sources>,
    graph: &mut BuildGraph,
) -> Result<Place, CliError> {
    let dir = args.context().unwrap_or(Path::new("."));
    let file = args.file.as_deref();
    let given = given(files, dir, file, keep_git_dir, sources).await?;
    let name = match &given {
        Given::Local(dir) => dir.clone(),
        _ => PathBuf::from(name_of(&dir.to_string_lossy())),
    };
    let (dockerfile, path) = given.dockerfile(files, file, sources, graph).await?;
    Ok(Place {
        context: given.enter(files, path.as_deref(), graph)?,
        dockerfile,
        name,
    })
}

impl Given {
    /// Reads the Dockerfile: `file`, a path or an address, else the usual one of the context.
    /// Gives its path too if it lies with the user.
    pub(super) async fn dockerfile(
        &self,
        files: &dyn Files,
        file: Option<&Path>,
        sources: &Arc<Sources>,
        graph: &mut BuildGraph,
    ) -> Result<(Dockerfile, Option<PathBuf>), CliError> {
        let file_address = file.and_then(Path::to_str).map(Address::of);
        let (source, text, own) = match (self, file) {
            (_, Some(file)) if file == Path::new("-") => {
                (STDIN.to_owned(), read_stdin(sources).await?, None)
            }
            (_, Some(file)) if matches!(file_address, Some(Ok(Address::Http))) => {
                let url = file.to_string_lossy();
                let shown = redact::url_credentials(&url).into_owned();
                (shown, read_url(&url, sources).await?, None)
            }
            (Self::Dockerfile(name, text, _), None) => (name.clone(), text.clone(), None),
            (Self::Dockerfile(name, text, _), Some(file)) if !file.is_absolute() => {
                (name.clone(), text.clone(), None)
            }
            (Self::Fetched(dir), file) if !file.is_some_and(Path::is_absolute) => {
                let file = file.unwrap_or(Path::new(DOCKERFILE));
                let (name, text) = in_tree(dir, file)?;
                (name, text, None)
            }
            (Self::Local(dir), None) => {
                let path = dir.join(DOCKERFILE);
                (path.display().to_string(), files.read(&path)?, Some(path))
            }
            (_, file) => {
                let path = file.unwrap_or(Path::new(DOCKERFILE)).to_owned();
                (path.display().to_string(), files.read(&path)?, Some(path))
            }
        };
        // Bytes that aren't UTF-8 become replacement characters, as in BuildKit.
        let text = String::from_utf8_lossy(&text).into_owned();
        let dockerfile = dockerfile::parse(&source, &text)?;
        graph.dockerfiles.insert(source, text);
        Ok((dockerfile, own))
    }

    /// Enters the context. The ignore file of a directory of the user is that of the Dockerfile
    /// with this path, else the directory's; what was fetched has none, as in BuildKit.
    pub(super) fn enter(
        &self,
        files: &dyn Files,
        dockerfile: Option<&Path>,
        graph: &mut BuildGraph,
    ) -> Result<usize, CliError> {
        let (files, dir, ignore) = match self {
            Self::Local(dir) => (files, dir, ignore_file(files, dockerfile, dir)?),
            Self::Fetched(dir) | Self::Dockerfile(_, _, dir) => {
                (&Disk as &dyn Files, dir, String::new())
            }
        };
        add_context(files, graph, "context", dir, Some(ignore))
    }
}

/// What the word CONTEXT names.
pub(super) async fn given(
    files: &dyn Files,
    dir: &Path,
    file: Option<&Path>,
    keep_git_dir: bool,
    sources: &Arc<Sources>,
) -> Result<Given, CliError> {
    if dir == Path::new("-") {
        if file == Some(Path::new("-")) {
            return Err(CliError::usage(
                "standard input can't be both the context and the Dockerfile",
            ));
        }
        let reader = Arc::clone(sources);
        return match blocking(move || Ok(reader.read_stdin()?)).await? {
            Ok(tree) => Ok(Given::Fetched(tree)),
            Err(_) if file.is_some() => Err(CliError::usage_hint(
                "standard input is a Dockerfile, and `-f` names another one",
                "leave one of them out",
            )),
            Err(text) => Ok(Given::Dockerfile(STDIN.to_owned(), text, sources.empty()?)),
        };
    }
    let Some(text) = dir.to_str().filter(|_| !files.is_dir(dir)) else {
        return Ok(Given::Local(dir.to_owned()));
    };
    match address(text)? {
        Address::Local => Ok(Given::Local(dir.to_owned())),
        Address::Git(address) => {
            let checksum = address.checksum.clone();
            let mut source = GitSource::of(address, checksum);
            source.keep_git_dir |= keep_git_dir;
            Ok(Given::Fetched(
                sources.fetch(&RemoteSource::Git(source)).await?,
            ))
        }
        Address::Http => match sources.fetch_content(text, FILE).await? {
            Content::Archive(tree) => Ok(Given::Fetched(tree)),
            Content::File(tree) => {
                let dockerfile = fs::read(tree.join(FILE))?;
                let shown = redact::url_credentials(text).into_owned();
                Ok(Given::Dockerfile(shown, dockerfile, tree))
            }
        },
    }
}

/// What `text` names as a context.
fn address(text: &str) -> Result<Address, CliError> {
    Address::of_context(text).map_err(|cause| {
        let shown = redact::url_credentials(text);
        CliError::usage(format!(
            "`{shown}` is not the address of a Git repository: {cause}"
        ))
    })
}

/// What `value` names as the context `name`: an image, a directory, the tree of a repository, or
/// the file of a URL under the name `context`.
pub(super) async fn named(
    files: &dyn Files,
    name: &str,
    value: &str,
    sources: &Sources,
    graph: &mut BuildGraph,
) -> Result<NamedContext, CliError> {
    if value.starts_with("oci-layout://") || value.starts_with("docker-image://") {
        return Ok(NamedContext::Image(value.to_owned()));
    }
    let source = match address(value)? {
        Address::Local => {
            let number = add_context(files, graph, name, Path::new(value), None)?;
            return Ok(NamedContext::Local(number));
        }
        Address::Git(address) => {
            let checksum = address.checksum.clone();
            RemoteSource::Git(GitSource::of(address, checksum))
        }
        Address::Http => RemoteSource::Http(HttpSource {
            url: value.to_owned(),
            name: FILE.to_owned(),
            checksum: None,
        }),
    };
    let tree = sources.fetch(&source).await?;
    let number = add_context(&Disk, graph, name, &tree, Some(String::new()))?;
    Ok(NamedContext::Local(number))
}

/// Reads the Dockerfile `file` of a fetched tree, which is the root for its symlinks.
fn in_tree(tree: &Path, file: &Path) -> Result<(String, Vec<u8>), CliError> {
    let found = match fs::read_in_root(tree, file) {
        Err(error) if error.is_not_found() && file.file_name() == Some(DOCKERFILE.as_ref()) => {
            // The other spelling, as BuildKit allows it.
            let lower = file.with_file_name("dockerfile");
            fs::read_in_root(tree, &lower).map_err(|_| error)
        }
        found => found,
    };
    match found {
        Ok(text) => Ok((file.display().to_string(), text)),
        Err(error) if error.is_not_found() => Err(CliError::NoDockerfile {
            file: file.to_owned(),
        }),
        Err(error) => Err(error.into()),
    }
}

async fn read_stdin(sources: &Arc<Sources>) -> Result<Vec<u8>, CliError> {
    let reader = Arc::clone(sources);
    blocking(move || Ok(reader.read_text()?)).await
}

async fn read_url(url: &str, sources: &Sources) -> Result<Vec<u8>, CliError> {
    let source = RemoteSource::Http(HttpSource {
        url: url.to_owned(),
        name: DOCKERFILE.to_owned(),
        checksum: None,
    });
    let dir = sources.fetch(&source).await?;
    Ok(fs::read(dir.join(DOCKERFILE))?)
}

/// Standard input may keep us waiting: not on the threads of the runtime.
async fn blocking<T: Send + 'static>(
    act: impl FnOnce() -> Result<T, CliError> + Send + 'static,
) -> Result<T, CliError> {
    match tokio::task::spawn_blocking(act).await {
        Ok(result) => result,
        Err(ended) => match ended.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(CliError::Signal { signal: 2 }),
        },
    }
}

/// What an image is named after that is built from the address `text`: the last part of
/// its path.
fn name_of(text: &str) -> String {
    let path = text.split(['?', '#']).next().unwrap_or_default();
    let last = path.trim_end_matches('/').rsplit(['/', ':']).next();
    let name = last.unwrap_or_default();
    let ends = [
        ".git", ".tar.gz", ".tar.xz", ".tar.zst", ".tar.bz2", ".tgz", ".tar",
    ];
    let end = ends.iter().find_map(|end| name.strip_suffix(end));
    end.unwrap_or(name).to_owned()
}

/// Fetches what lowering misses, side by side, and enters it as contexts.
pub(super) async fn fetch_missing(
    missing: &[MissingSource],
    recipes: &[Recipe],
    sources: &Sources,
    graph: &mut BuildGraph,
    table: &mut SourceTable,
) -> Result<(), CliError> {
    let fetching = missing.iter().map(async |missing| {
        let fetched = sources.fetch(&missing.source).await;
        fetched.map_err(|source| fetch_error(missing, recipes, source))
    });
    let dirs = try_join_all(fetching).await?;
    for (missing, dir) in missing.iter().zip(dirs) {
        graph.contexts.push(LocalContext {
            name: missing.source.shown().into_owned(),
            dir,
            ignore: String::new(),
        });
        table.insert(missing.source.clone(), graph.contexts.len() - 1);
    }
    Ok(())
}

/// Where directories of sources would be that nobody fetches. Nothing can be there.
pub(in crate::cli) const NOT_FETCHED: &str = "/dev/null/not-fetched";

/// Enters what lowering misses without fetching it: a place of its own for each source, whose content
/// isn't known.
pub(super) fn stand_in_for_missing(
    missing: &[MissingSource],
    graph: &mut BuildGraph,
    table: &mut SourceTable,
) {
    for missing in missing {
        let identity = Sha256Digest::of(format!("{:?}", missing.source).as_bytes());
        graph.contexts.push(LocalContext {
            name: missing.source.shown().into_owned(),
            dir: Path::new(NOT_FETCHED).join(identity.to_string()),
            ignore: String::new(),
        });
        table.insert(missing.source.clone(), graph.contexts.len() - 1);
    }
}

/// The failure with the lines of the instruction.
fn fetch_error(
    missing: &MissingSource,
    recipes: &[Recipe],
    source: crate::remote::RemoteError,
) -> FetchError {
    let location = &missing.location;
    let text = recipes
        .iter()
        .map(|recipe| &recipe.dockerfile.source)
        .find(|source| source.name == *location.file);
    let excerpt = text.map(|source| {
        source.excerpt(Span {
            start: location.start,
            end: location.end,
            column: 1,
        })
    });
    FetchError {
        place: format!("{}:{}", location.file, location.start),
        excerpt: excerpt.unwrap_or_default(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_named_after_what_they_are_built_from() {
        for (text, name) in [
            ("https://h/a/b.git#main:dir", "b"),
            ("git@h:tool.git", "tool"),
            ("https://h/ctx.tar.gz?x=/y", "ctx"),
            ("-", "-"),
        ] {
            assert_eq!(name_of(text), name);
        }
    }
}
