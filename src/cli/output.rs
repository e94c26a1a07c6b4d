//! `-o`: where a build's result goes.

use std::path::PathBuf;

use super::CliError;
use crate::export::Destination;

/// Parses `type=oci,dest=PATH[,tar=false]`.
pub(super) fn parse(text: &str) -> Result<Destination, CliError> {
    let mut kind = None;
    let mut dest = None;
    let mut tar = true;
    for field in text.split(',') {
        let Some((name, value)) = field.split_once('=') else {
            return Err(CliError::usage_hint(
                format!("`-o {text}` is not supported"),
                "write an OCI image with `-o type=oci,dest=DIR,tar=false`",
            ));
        };
        match name.trim() {
            "type" => kind = Some(value),
            "dest" => dest = Some(PathBuf::from(value)),
            "tar" => {
                tar = match value {
                    "true" | "1" => true,
                    "false" | "0" => false,
                    _ => {
                        return Err(CliError::usage(format!(
                            "`tar={value}` in `-o {text}` is neither true nor false"
                        )));
                    }
                }
            }
            name => {
                return Err(CliError::usage(format!(
                    "`{name}` in `-o {text}` is not supported"
                )));
            }
        }
    }
    match kind {
        Some("oci") => {}
        Some(kind) => {
            return Err(CliError::usage_hint(
                format!("output type `{kind}` is not supported yet"),
                "`-o type=oci,dest=DIR,tar=false` writes an image layout",
            ));
        }
        None => return Err(CliError::usage(format!("`-o {text}` has no `type=`"))),
    }
    let dest = dest.ok_or_else(|| CliError::usage(format!("`-o {text}` has no `dest=`")))?;
    Ok(match tar {
        true => Destination::Tar(dest),
        false => Destination::Layout(dest),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs() {
        assert_eq!(
            parse("type=oci,dest=a.tar").unwrap(),
            Destination::Tar("a.tar".into())
        );
        assert_eq!(
            parse("type=oci,dest=a,tar=false").unwrap(),
            Destination::Layout("a".into())
        );
        for text in [
            "dir",
            "type=local,dest=a",
            "type=oci",
            "dest=a",
            "type=oci,dest=a,tar=x",
            "type=oci,dest=a,y=z",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
