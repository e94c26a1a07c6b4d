//! `-o`, `--load` and `--push`: what a build's result is written as, and where to. The grammar is that of
//! `docker buildx build`.

use std::{
    io::{self, IsTerminal as _},
    path::{Path, PathBuf},
};

use super::CliError;
use crate::{
    dockerfile::csv_fields,
    export::{AnnotationError, Annotations, ImageOptions, Output, Stream},
    oci::layer::Compression,
};

/// The outputs that the options name; none if there are no such options, an empty list if
/// nothing is to be written.
pub(super) fn outputs(
    texts: &[String],
    load: bool,
    push: bool,
) -> Result<Option<Vec<Output>>, CliError> {
    if texts.is_empty() && !load && !push {
        return Ok(None);
    }
    let mut outputs: Vec<Output> = Vec::new();
    for text in texts {
        let Some(output) = parse(text, push)? else {
            continue;
        };
        if output.is_stdout() && outputs.iter().any(Output::is_stdout) {
            return Err(CliError::usage("only one output can go to standard output"));
        }
        if let Some(path) = output.path()
            && outputs.iter().any(|other| other.path() == Some(path))
        {
            return Err(CliError::usage(format!(
                "two outputs go to `{}`",
                path.display()
            )));
        }
        outputs.push(output);
    }
    let loads = outputs.iter().any(|o| matches!(o, Output::Load { .. }));
    if load && !loads {
        outputs.push(Output::Load {
            context: None,
            image: ImageOptions {
                docker: true,
                ..ImageOptions::default()
            },
        });
    }
    let pushes = outputs.iter().any(|o| matches!(o, Output::Push { .. }));
    if push && !pushes {
        outputs.push(Output::Push {
            image: ImageOptions::default(),
        });
    }
    Ok(Some(outputs))
}

/// The annotations of `--annotation`.
pub(super) fn annotations(texts: &[String]) -> Result<Annotations, CliError> {
    let mut annotations = Annotations::default();
    for text in texts {
        annotations.add_option(text).map_err(annotation_error)?;
    }
    Ok(annotations)
}

fn annotation_error(error: AnnotationError) -> CliError {
    CliError::Usage {
        message: error.to_string(),
        hint: error.hint().map(str::to_owned),
    }
}

/// Reads one `-o`; none for `type=cacheonly`. `push` is whether images are pushed that don't say.
fn parse(text: &str, push: bool) -> Result<Option<Output>, CliError> {
    let fields = csv_fields(text);
    if let [field] = fields.as_slice() {
        if field == "-" {
            return Ok(Some(Output::Tar {
                to: stdout(text)?,
                split: None,
            }));
        }
        let key = field.split_once('=').map(|(key, _)| key.trim());
        if key.is_none_or(|key| !["type", "dest"].contains(&key)) {
            if field.is_empty() {
                return Err(CliError::usage("`-o` names nothing"));
            }
            return Ok(Some(Output::Local {
                dir: PathBuf::from(field),
                split: None,
                delete: false,
            }));
        }
    }
    let mut given = Given::read(text, &fields)?;
    let kind = given.take("type").ok_or_else(|| {
        CliError::usage_hint(
            format!("`-o {text}` has no `type=`"),
            "the types are `oci`, `docker`, `registry`, `tar`, `local` and `cacheonly`; `-o DIR` is `type=local`",
        )
    })?;
    let output = match kind.as_str() {
        "oci" => given.image(false)?,
        "docker" => given.image(true)?,
        "tar" => Output::Tar {
            to: given.stream()?,
            split: given.flag("platform-split")?,
        },
        "local" => given.local()?,
        "cacheonly" => {
            given.finish(&kind)?;
            return Ok(None);
        }
        "image" | "registry" => {
            if !given.flag("push")?.unwrap_or(push || kind == "registry") {
                return Err(CliError::usage_hint(
                    format!("`-o {text}` leaves the image in a store that there is not"),
                    "push it with `push=true`, load it into Docker with `--load`, or write a layout with `-o type=oci,dest=DIR,tar=false`",
                ));
            }
            Output::Push {
                image: given.image_options(false)?,
            }
        }
        _ => {
            return Err(CliError::usage_hint(
                format!("output type `{kind}` is not known"),
                "the types are `oci`, `docker`, `registry`, `tar`, `local` and `cacheonly`",
            ));
        }
    };
    given.finish(&kind)?;
    Ok(Some(output))
}

/// Standard output, unless it is a terminal.
fn stdout(text: &str) -> Result<Stream, CliError> {
    match io::stdout().is_terminal() {
        true => Err(CliError::usage_hint(
            format!("`-o {text}` would write to the terminal"),
            "redirect standard output, or name a file with `dest=FILE`",
        )),
        false => Ok(Stream::Stdout),
    }
}

/// The fields of one `-o` that nobody has taken yet.
struct Given<'t> {
    text: &'t str,
    fields: Vec<(String, String)>,
}

/// Fields of images that mean nothing without attestations.
const OF_ATTESTATIONS: [&str; 2] = ["oci-artifact", "attestation-inline"];

impl<'t> Given<'t> {
    fn read(text: &'t str, fields: &[String]) -> Result<Self, CliError> {
        let fields = fields.iter().map(|field| {
            let (key, value) = field.split_once('=').ok_or_else(|| {
                CliError::usage_hint(
                    format!("`{field}` in `-o {text}` is not `KEY=VALUE`"),
                    "quote a field that has a comma in it: `\"KEY=A,B\"`",
                )
            })?;
            Ok((key.trim().to_lowercase(), value.to_owned()))
        });
        Ok(Self {
            text,
            fields: fields.collect::<Result<_, CliError>>()?,
        })
    }

    /// The last value of a field; an empty one counts as none.
    fn take(&mut self, key: &str) -> Option<String> {
        let found = self.fields.iter().rfind(|(k, _)| k == key);
        let value = found.map(|(_, value)| value.clone());
        self.fields.retain(|(k, _)| k != key);
        value.filter(|value| !value.is_empty())
    }

    /// A value that is true or false, in the ways that Go writes it.
    fn flag(&mut self, key: &str) -> Result<Option<bool>, CliError> {
        let Some(value) = self.take(key) else {
            return Ok(None);
        };
        match value.as_str() {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Some(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Some(false)),
            _ => Err(CliError::usage(format!(
                "`{key}={value}` in `-o {}` is neither true nor false",
                self.text
            ))),
        }
    }

    /// `dest=`, a file or standard output.
    fn stream(&mut self) -> Result<Stream, CliError> {
        match self.take("dest") {
            Some(dest) if dest != "-" => Ok(Stream::File(PathBuf::from(dest))),
            _ => stdout(self.text),
        }
    }

    /// `dest=`, a directory.
    fn directory(&mut self) -> Result<PathBuf, CliError> {
        match self.take("dest") {
            Some(dest) if dest != "-" => Ok(PathBuf::from(dest)),
            _ => Err(CliError::usage(format!(
                "`-o {}` needs a directory: `dest=DIR`",
                self.text
            ))),
        }
    }

    fn local(&mut self) -> Result<Output, CliError> {
        let delete = match self.take("mode").as_deref() {
            None | Some("copy") => false,
            Some("delete") => true,
            Some(mode) => {
                return Err(CliError::usage(format!(
                    "`mode={mode}` in `-o {}` is neither `copy` nor `delete`",
                    self.text
                )));
            }
        };
        Ok(Output::Local {
            dir: self.directory()?,
            split: self.flag("platform-split")?,
            delete,
        })
    }

    /// An image; without a file, one for Docker is loaded.
    fn image(&mut self, docker: bool) -> Result<Output, CliError> {
        let tar = self.flag("tar")?.unwrap_or(true);
        let image = self.image_options(docker)?;
        if !tar {
            return Ok(Output::Layout {
                dir: self.directory()?,
                image,
            });
        }
        let has_dest = self
            .fields
            .iter()
            .any(|(k, v)| k == "dest" && !v.is_empty());
        if docker && !has_dest {
            self.take("dest");
            return Ok(Output::Load {
                context: self.take("context"),
                image,
            });
        }
        Ok(Output::Archive {
            to: self.stream()?,
            image,
        })
    }

    fn image_options(&mut self, docker: bool) -> Result<ImageOptions, CliError> {
        let mut options = ImageOptions {
            docker,
            docker_types: self.flag("oci-mediatypes")? == Some(false),
            force: self.flag("force-compression")?.unwrap_or(false),
            ..ImageOptions::default()
        };
        options.compression = match self.take("compression").as_deref() {
            None => None,
            Some("gzip") => Some(Compression::Gzip),
            Some("zstd") => Some(Compression::Zstd),
            Some("uncompressed") => Some(Compression::None),
            Some(other) => {
                return Err(CliError::usage_hint(
                    format!(
                        "`compression={other}` in `-o {}` is not supported",
                        self.text
                    ),
                    "there are `zstd`, `gzip` and `uncompressed`",
                ));
            }
        };
        if options.docker_types && options.compression == Some(Compression::Zstd) {
            return Err(CliError::usage_hint(
                format!(
                    "`-o {}` asks for zstd in Docker's format, which has none",
                    self.text
                ),
                "leave `oci-mediatypes=false` out, or use `compression=gzip`",
            ));
        }
        options.level = self.level(options.compression)?;
        if let Some(names) = self.take("name") {
            options.names = names.split(',').map(str::to_owned).collect();
        }
        // What it asks for is the case anyway: no file of a step is later than the epoch.
        self.flag("rewrite-timestamp")?;
        for key in OF_ATTESTATIONS {
            self.flag(key)?;
        }
        let mut rest = Vec::new();
        for (key, value) in std::mem::take(&mut self.fields) {
            let taken = options.annotations.add_field(&key, &value);
            if !taken.map_err(annotation_error)? {
                rest.push((key, value));
            }
        }
        self.fields = rest;
        Ok(options)
    }

    fn level(&mut self, compression: Option<Compression>) -> Result<Option<i32>, CliError> {
        let Some(text) = self.take("compression-level") else {
            return Ok(None);
        };
        let most = match compression {
            Some(Compression::Gzip) => 9,
            Some(Compression::Zstd) | None => 22,
            Some(Compression::None) => 0,
        };
        match text.parse::<i32>() {
            Ok(level) if (0..=most).contains(&level) => Ok(Some(level)),
            _ => Err(CliError::usage(format!(
                "`compression-level={text}` in `-o {}` is not from 0 to {most}",
                self.text
            ))),
        }
    }

    /// Fails for a field that nobody knows.
    fn finish(self, kind: &str) -> Result<(), CliError> {
        match self.fields.first() {
            None => Ok(()),
            Some((key, _)) => Err(CliError::usage(format!(
                "`{key}` in `-o {}` is not known for `type={kind}`",
                self.text
            ))),
        }
    }
}

/// A directory for an image that was given no output.
pub(super) fn default_layout(dir: &Path, reference: &str) -> Output {
    let mut name = reference.replace(['/', ':', '@'], "-");
    let last = reference.rsplit('/').next();
    if !last.is_some_and(|last| last.contains(':')) {
        name.push_str("-latest");
    }
    Output::layout(dir.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::Place;

    fn one(text: &str) -> Output {
        parse(text, false).unwrap().unwrap()
    }

    #[test]
    fn outputs_are_those_of_buildx() {
        let file = Stream::File("a.tar".into());
        let plain = ImageOptions::default();
        let docker = ImageOptions {
            docker: true,
            ..ImageOptions::default()
        };
        let local = |split, delete| Output::Local {
            dir: "out".into(),
            split,
            delete,
        };
        for (text, expected) in [
            (
                "type=oci,dest=a.tar",
                Output::Archive {
                    to: file.clone(),
                    image: plain.clone(),
                },
            ),
            ("type=oci,dest=a,tar=false", Output::layout("a")),
            (
                "type=docker,dest=a.tar",
                Output::Archive {
                    to: file.clone(),
                    image: docker.clone(),
                },
            ),
            (
                "type=docker",
                Output::Load {
                    context: None,
                    image: docker.clone(),
                },
            ),
            (
                "type=docker,context=far",
                Output::Load {
                    context: Some("far".to_owned()),
                    image: docker,
                },
            ),
            (
                "type=tar,dest=a.tar",
                Output::Tar {
                    to: file,
                    split: None,
                },
            ),
            ("out", local(None, false)),
            ("type=local,dest=out", local(None, false)),
            (
                "type=local,dest=out,platform-split=false,mode=delete",
                local(Some(false), true),
            ),
        ] {
            assert_eq!(one(text), expected, "{text}");
        }
        assert_eq!(parse("type=cacheonly", false).unwrap(), None);
    }

    #[test]
    fn images_have_options() {
        let text = r#"type=oci,dest=a,"name=x:1,y",compression=gzip,compression-level=9,force-compression=true,oci-mediatypes=0,annotation.A.b=c,"annotation-index.d=e, f",rewrite-timestamp=true"#;
        let output = one(text);
        let image = output.image().unwrap();
        assert_eq!(image.names, ["x:1", "y"]);
        assert_eq!(image.compression, Some(Compression::Gzip));
        assert_eq!((image.level, image.force), (Some(9), true));
        assert!(image.docker_types);
        assert_eq!(image.annotations.at(Place::Manifest, None)["a.b"], "c");
        assert_eq!(image.annotations.at(Place::Index, None)["d"], "e, f");
    }

    #[test]
    fn what_is_wrong_is_refused() {
        for (text, told) in [
            ("", "names nothing"),
            ("dest=a", "has no `type=`"),
            ("type=local", "needs a directory"),
            ("type=local,dest=-", "needs a directory"),
            ("type=oci,tar=false", "needs a directory"),
            ("type=oci,dest=a,tar=x", "neither true nor false"),
            ("type=oci,dest=a,y=z", "`y` in"),
            ("type=tar,dest=a,name=z", "`name` in"),
            ("type=oci,dest=a,b", "is not `KEY=VALUE`"),
            ("type=oci,dest=a,\"b", "is not `KEY=VALUE`"),
            ("type=oci,dest=a,compression=estargz", "is not supported"),
            (
                "type=oci,dest=a,compression=gzip,compression-level=10",
                "0 to 9",
            ),
            (
                "type=oci,dest=a,compression=zstd,oci-mediatypes=false",
                "zstd in Docker's",
            ),
            ("type=oci,dest=a,annotation-x.a=b", "unknown type"),
            ("type=local,dest=a,mode=move", "neither `copy` nor `delete`"),
            ("type=image,name=a", "a store that there is not"),
            ("type=registry,push=false", "a store that there is not"),
            ("type=registry,dest=a", "`dest` in"),
            ("type=qcow2,dest=a", "is not known"),
        ] {
            let error = parse(text, false).unwrap_err().to_string();
            assert!(error.contains(told), "{text}: {error}");
        }
    }

    #[test]
    fn several_outputs_have_places_of_their_own() {
        let list = |texts: &[&str], load| {
            let texts: Vec<String> = texts.iter().map(ToString::to_string).collect();
            outputs(&texts, load, false)
        };
        assert_eq!(list(&[], false).unwrap(), None);
        assert_eq!(list(&["type=cacheonly"], false).unwrap(), Some(Vec::new()));
        assert_eq!(list(&["a", "b"], true).unwrap().unwrap().len(), 3);
        assert_eq!(list(&["type=docker"], true).unwrap().unwrap().len(), 1);
        let pushes = |texts: &[&str]| {
            let texts: Vec<String> = texts.iter().map(ToString::to_string).collect();
            let outputs = outputs(&texts, false, true).unwrap().unwrap();
            let pushes = outputs.iter().filter(|o| matches!(o, Output::Push { .. }));
            (outputs.len(), pushes.count())
        };
        assert_eq!(pushes(&[]), (1, 1));
        assert_eq!(pushes(&["a"]), (2, 1));
        assert_eq!(pushes(&["type=image,name=b"]), (1, 1));
        assert_eq!(pushes(&["type=registry"]), (1, 1));
        assert!(list(&["a", "type=tar,dest=a"], false).is_err());
    }
}
