//! Images in layouts as people write them: `oci-layout://<directory>[:<tag>|@<digest>]`.

use std::{fmt, path::PathBuf, str::FromStr};

use crate::{
    digest::{ParseDigestError, Sha256Digest},
    oci::reference::is_tag,
};

/// The scheme of layouts where an image reference is expected.
const SCHEME: &str = "oci-layout://";

/// Which image of a layout is meant.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Selector {
    /// The only one.
    Only,
    /// The one with this tag.
    Tag(String),
    /// The one with this digest, listed in `index.json` or not.
    Digest(Sha256Digest),
}

/// `oci-layout://dir`, `oci-layout://dir:tag` or `oci-layout://dir@digest`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LayoutReference {
    /// The directory, as given.
    pub dir: PathBuf,
    /// Which image in it.
    pub selector: Selector,
}

/// A text that names no image in a layout.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseLayoutReferenceError {
    /// Another scheme, or no directory.
    #[error("`{0}` is not of the form `oci-layout://<directory>[:<tag>|@<digest>]`")]
    Form(String),
    /// What follows `@` is no digest.
    #[error("`{text}` names no image in a layout")]
    Digest {
        /// The whole text.
        text: String,
        /// Why.
        #[source]
        source: ParseDigestError,
    },
}

impl LayoutReference {
    /// Whether `text` names a layout rather than an image in a registry.
    pub fn is_one(text: &str) -> bool {
        text.starts_with(SCHEME)
    }
}

impl FromStr for LayoutReference {
    type Err = ParseLayoutReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rest = text
            .strip_prefix(SCHEME)
            .ok_or_else(|| ParseLayoutReferenceError::Form(text.to_owned()))?;
        let (dir, selector) = match (rest.rsplit_once('@'), rest.rsplit_once(':')) {
            (Some((dir, digest)), _) if digest.starts_with("sha256:") => {
                let digest =
                    digest
                        .parse()
                        .map_err(|source| ParseLayoutReferenceError::Digest {
                            text: text.to_owned(),
                            source,
                        })?;
                (dir, Selector::Digest(digest))
            }
            // A colon within the directory's name is followed by a slash.
            (_, Some((dir, tag))) if is_tag(tag) => (dir, Selector::Tag(tag.to_owned())),
            _ => (rest, Selector::Only),
        };
        match dir {
            "" => Err(ParseLayoutReferenceError::Form(text.to_owned())),
            dir => Ok(Self {
                dir: PathBuf::from(dir),
                selector,
            }),
        }
    }
}

impl fmt::Display for LayoutReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", self.dir.display())?;
        match &self.selector {
            Selector::Only => Ok(()),
            Selector::Tag(tag) => write!(f, ":{tag}"),
            Selector::Digest(digest) => write!(f, "@{digest}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directory_tag_and_digest_are_told_apart() {
        let digest = Sha256Digest::of(b"");
        for (text, dir, selector) in [
            ("oci-layout:///a/b", "/a/b", Selector::Only),
            ("oci-layout://a:v1.2", "a", Selector::Tag("v1.2".into())),
            ("oci-layout://a:b/c", "a:b/c", Selector::Only),
            ("oci-layout://a@b:c", "a@b", Selector::Tag("c".into())),
        ] {
            let reference: LayoutReference = text.parse().unwrap();
            assert_eq!(reference.dir, PathBuf::from(dir));
            assert_eq!(reference.selector, selector);
            assert_eq!(reference.to_string(), text);
        }
        let reference: LayoutReference = format!("oci-layout://a@{digest}").parse().unwrap();
        assert_eq!(reference.selector, Selector::Digest(digest));
        for text in [
            "debian",
            "oci-layout://",
            "oci-layout://:tag",
            "oci-layout://a@sha256:1",
        ] {
            assert!(text.parse::<LayoutReference>().is_err(), "{text}");
        }
    }
}
