//! Annotations of an image's documents: where each goes, and the two ways of writing one.
//!
//! `--annotation [TYPE[PLATFORM],…:]NAME=VALUE` is that of `docker buildx build`,
//! `annotation[-TYPE][PLATFORM].NAME=VALUE` that of BuildKit's exporters. Without a type a manifest
//! is meant, without a platform all of them. What belongs to an index needs one: an image of
//! several platforms.

use std::collections::BTreeMap;

use crate::oci::Platform;

/// Which document an annotation stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// The image manifest.
    Manifest,
    /// What links to the manifest: the entry of the index, or of the layout's `index.json`.
    ManifestDescriptor,
    /// The index of an image of several platforms.
    Index,
    /// What links to that index: the entry of the layout's `index.json`.
    IndexDescriptor,
}

impl Place {
    /// The name in options.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Manifest => "manifest",
            Self::ManifestDescriptor => "manifest-descriptor",
            Self::Index => "index",
            Self::IndexDescriptor => "index-descriptor",
        }
    }

    fn of_name(name: &str) -> Option<Self> {
        [
            Self::Manifest,
            Self::ManifestDescriptor,
            Self::Index,
            Self::IndexDescriptor,
        ]
        .into_iter()
        .find(|place| place.name() == name)
    }

    const fn is_of_index(self) -> bool {
        matches!(self, Self::Index | Self::IndexDescriptor)
    }
}

/// Why a text is no annotation, or one has no place in the image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnnotationError {
    /// No `=`, or no name before it.
    #[error("annotation `{0}` is not `[TYPE:]NAME=VALUE`")]
    Form(String),
    /// A type that doesn't exist.
    #[error("annotation `{text}` has the unknown type `{kind}`")]
    Type {
        /// The whole annotation.
        text: String,
        /// The part that is no type.
        kind: String,
    },
    /// A platform that can't be read.
    #[error("annotation `{text}` names `{platform}`, which is no platform")]
    Platform {
        /// The whole annotation.
        text: String,
        /// What it names.
        platform: String,
    },
    /// A platform that is not built.
    #[error("annotation `{name}` is for platform `{platform}`, which is not built")]
    NotBuilt {
        /// The annotation's name.
        name: String,
        /// Its platform.
        platform: Platform,
    },
    /// An annotation of an index where there is none.
    #[error("annotation `{name}` is for the {}, and an image of one platform has none", place.name())]
    NoIndex {
        /// The annotation's name.
        name: String,
        /// Where it should go.
        place: Place,
    },
    /// An annotation where Docker's media types have no room for it.
    #[error("annotation `{name}` can't stand in the {} with `oci-mediatypes=false`", place.name())]
    DockerTypes {
        /// The annotation's name.
        name: String,
        /// Where it should go.
        place: Place,
    },
}

impl AnnotationError {
    /// What to write instead.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Form(_) => Some("for instance `org.opencontainers.image.title=app`"),
            Self::Type { .. } => Some(
                "the types are `manifest`, `manifest-descriptor`, `index`, `index-descriptor`, each with `[PLATFORM]` or without",
            ),
            Self::NoIndex { .. } => {
                Some("annotate the `manifest`, or build for several platforms with `--platform`")
            }
            Self::DockerTypes { .. } => Some("leave `oci-mediatypes=false` out"),
            Self::Platform { .. } | Self::NotBuilt { .. } => None,
        }
    }
}

/// Annotations by place and platform.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Annotations {
    list: BTreeMap<(Place, Option<Platform>, String), String>,
}

impl Annotations {
    /// Takes an annotation as `--annotation` has it.
    pub fn add_option(&mut self, text: &str) -> Result<(), AnnotationError> {
        let form = || AnnotationError::Form(text.to_owned());
        let (key, value) = text.split_once('=').ok_or_else(form)?;
        let (types, name) = match key.split_once(':') {
            Some((types, name)) => (types.split(',').collect(), name),
            None => (vec!["manifest"], key),
        };
        if name.is_empty() {
            return Err(form());
        }
        for kind in types {
            let (place, platform) = place(text, kind)?;
            self.list
                .insert((place, platform, name.to_owned()), value.to_owned());
        }
        Ok(())
    }

    /// Takes a field of `-o` that starts with `annotation`; false if it is none.
    pub fn add_field(&mut self, key: &str, value: &str) -> Result<bool, AnnotationError> {
        let Some(rest) = key.strip_prefix("annotation") else {
            return Ok(false);
        };
        let dot = match (rest.find('['), rest.find(']')) {
            (Some(open), Some(close)) if rest.find('.').is_none_or(|dot| open < dot) => {
                rest[close..].find('.').map(|dot| close + dot)
            }
            _ => rest.find('.'),
        };
        let Some(dot) = dot else {
            return Ok(false);
        };
        let (kind, name) = (&rest[..dot], &rest[dot + 1..]);
        let text = format!("{key}={value}");
        let kind = match kind.strip_prefix('-') {
            Some(kind) => kind.to_owned(),
            None if kind.is_empty() || kind.starts_with('[') => format!("manifest{kind}"),
            None => return Ok(false),
        };
        if name.is_empty() {
            return Err(AnnotationError::Form(text));
        }
        let (place, platform) = place(&text, &kind)?;
        self.list
            .insert((place, platform, name.to_owned()), value.to_owned());
        Ok(true)
    }

    /// These and those of `other`, which win.
    #[must_use]
    pub fn with(&self, other: &Self) -> Self {
        let mut all = self.clone();
        all.list.extend(other.list.clone());
        all
    }

    /// Fails for an annotation that has no place in an image of these platforms.
    pub fn check(
        &self,
        platforms: &[Platform],
        index: bool,
        docker_types: bool,
    ) -> Result<(), AnnotationError> {
        for (place, platform, name) in self.list.keys() {
            let (name, place) = (name.clone(), *place);
            if let Some(platform) = platform
                && !platforms.contains(platform)
            {
                return Err(AnnotationError::NotBuilt {
                    name,
                    platform: platform.clone(),
                });
            }
            if docker_types && place != Place::Manifest {
                return Err(AnnotationError::DockerTypes { name, place });
            }
            if place.is_of_index() && !index {
                return Err(AnnotationError::NoIndex { name, place });
            }
        }
        Ok(())
    }

    /// What stands at `place`: of manifests those for all platforms and those for `platform`,
    /// which win.
    pub fn at(&self, place: Place, platform: Option<&Platform>) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        for ((at, only, name), value) in &self.list {
            let fits = only.is_none() || place.is_of_index() || only.as_ref() == platform;
            if *at == place && fits {
                // Those for all platforms come first.
                found.insert(name.clone(), value.clone());
            }
        }
        found
    }
}

/// `manifest[linux/arm64]`.
fn place(text: &str, kind: &str) -> Result<(Place, Option<Platform>), AnnotationError> {
    let (name, platform) = match kind.strip_suffix(']').and_then(|k| k.split_once('[')) {
        Some((name, platform)) => (name, Some(platform)),
        None => (kind, None),
    };
    let place = Place::of_name(name).ok_or_else(|| AnnotationError::Type {
        text: text.to_owned(),
        kind: kind.to_owned(),
    })?;
    let platform = match platform {
        Some(platform) => Some(platform.parse().map_err(|_| AnnotationError::Platform {
            text: text.to_owned(),
            platform: platform.to_owned(),
        })?),
        None => None,
    };
    Ok((place, platform))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn option(text: &str) -> Result<Annotations, AnnotationError> {
        let mut annotations = Annotations::default();
        annotations.add_option(text)?;
        Ok(annotations)
    }

    #[test]
    fn options_name_types_and_platforms() {
        let arm: Platform = "linux/arm64".parse().unwrap();
        let amd: Platform = "linux/amd64".parse().unwrap();
        let found = option("a.b=c=d").unwrap();
        assert_eq!(found.at(Place::Manifest, Some(&amd))["a.b"], "c=d");
        let found = option("index,manifest-descriptor[linux/arm64]:x=").unwrap();
        assert_eq!(found.at(Place::Index, None)["x"], "");
        assert_eq!(found.at(Place::ManifestDescriptor, Some(&arm)).len(), 1);
        assert_eq!(found.at(Place::ManifestDescriptor, Some(&amd)).len(), 0);
        assert_eq!(found.at(Place::Manifest, Some(&arm)).len(), 0);
        for (text, error) in [
            ("a", "annotation `a` is not `[TYPE:]NAME=VALUE`"),
            ("=b", "annotation `=b` is not `[TYPE:]NAME=VALUE`"),
            ("x:a=b", "annotation `x:a=b` has the unknown type `x`"),
            (
                "manifest[a//b]:c=d",
                "annotation `manifest[a//b]:c=d` names `a//b`, which is no platform",
            ),
        ] {
            assert_eq!(option(text).unwrap_err().to_string(), error);
        }
    }

    #[test]
    fn fields_are_those_of_buildkit() {
        let mut all = Annotations::default();
        let arm: Platform = "linux/arm64".parse().unwrap();
        for (key, taken) in [
            ("annotation.a.b", true),
            ("annotation-index.c", true),
            ("annotation[linux/arm64].d", true),
            ("annotation-manifest-descriptor[linux/arm64].e", true),
            ("annotations", false),
            ("name", false),
        ] {
            assert_eq!(all.add_field(key, "1").unwrap(), taken, "{key}");
        }
        assert!(all.add_field("annotation-x.a", "1").is_err());
        let names = |place| all.at(place, Some(&arm)).into_keys().collect::<Vec<_>>();
        assert_eq!(names(Place::Manifest), ["a.b", "d"]);
        assert_eq!(names(Place::Index), ["c"]);
        assert_eq!(names(Place::ManifestDescriptor), ["e"]);
    }

    #[test]
    fn what_has_no_place_is_refused() {
        let host = Platform::host();
        let check = |text: &str, index, docker| {
            option(text)
                .unwrap()
                .check(std::slice::from_ref(&host), index, docker)
        };
        assert!(check("a=b", false, true).is_ok());
        assert!(check("index:a=b", true, false).is_ok());
        assert!(matches!(
            check("index-descriptor:a=b", false, false),
            Err(AnnotationError::NoIndex { .. })
        ));
        assert!(matches!(
            check("manifest-descriptor:a=b", false, true),
            Err(AnnotationError::DockerTypes { .. })
        ));
        assert!(matches!(
            check("manifest[linux/s390x]:a=b", false, false),
            Err(AnnotationError::NotBuilt { .. })
        ));
    }
}
