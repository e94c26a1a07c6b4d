//! A layer's tar in another compression, byte for byte as it is.
//!
//! Tars of other tools are not canonical, so [`LayerBuilder`](super::LayerBuilder) can't write
//! them again. Here the tar is cut into pieces of one size; the diff id stays. The bytes depend on
//! the tar and the options only.

use std::io::{Read, Write};

use super::{
    DiffId, LayerBlob, LayerError, LayerOptions, builder::MAX_THREADS, frames::FrameWriter,
};

/// Size of the pieces that are compressed by themselves, in bytes.
const PIECE: u64 = 2 << 20;

/// Compresses `tar` into `out`; gives back the writer and what was written, without an index.
pub fn compress_tar<W: Write>(
    mut tar: impl Read,
    out: W,
    options: LayerOptions,
) -> Result<(W, LayerBlob), LayerError> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut writer = FrameWriter::new(out, options, threads.min(MAX_THREADS));
    let mut piece = next_piece(&mut tar)?;
    loop {
        let following = next_piece(&mut tar)?;
        if following.is_empty() {
            break;
        }
        writer.push(std::mem::replace(&mut piece, following))?;
    }
    let written = writer.finish(piece)?;
    let blob = LayerBlob {
        diff_id: DiffId(written.tar.sha256),
        digest: written.blob.sha256,
        size: written.blob.size,
        media_type: options.compression.media_type().to_owned(),
        index: None,
    };
    Ok((written.out, blob))
}

fn next_piece(tar: &mut impl Read) -> Result<Vec<u8>, LayerError> {
    let mut piece = Vec::new();
    tar.take(PIECE)
        .read_to_end(&mut piece)
        .map_err(LayerError::Read)?;
    Ok(piece)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        digest::Sha256Digest,
        oci::layer::{Compression, decompress},
    };

    #[test]
    fn the_tar_stays_as_it_is() {
        let long: Vec<u8> = (0..5_000_000u32).map(|n| (n % 251) as u8).collect();
        for tar in [&b""[..], b"not canonical", &long] {
            for compression in [Compression::Gzip, Compression::Zstd, Compression::None] {
                let options = LayerOptions {
                    compression,
                    level: None,
                };
                let (blob, told) = compress_tar(tar, Vec::new(), options).unwrap();
                assert_eq!(told.diff_id.0, Sha256Digest::of(tar));
                assert_eq!(told.digest, Sha256Digest::of(&blob));
                assert_eq!(told.size, blob.len() as u64);
                let mut back = Vec::new();
                decompress(&blob[..], &told.media_type)
                    .unwrap()
                    .read_to_end(&mut back)
                    .unwrap();
                assert!(back == tar);
            }
        }
    }
}
