//! Tar archives that people make, as `ADD` and build contexts take them.
//!
//! [`ArchiveFormat::of`] knows them by their first bytes, as BuildKit does, never by
//! their names. Compressed bytes are an archive only if a tar comes out of them
//! ([`holds_tar`]). Decompression streams: a reader of gzip, zstd and bzip2 holds one
//! window, one of xz at most [`XZ_MEMORY`] KiB, whatever the file says it needs.
//!
//! Formats: RFC 1952 (gzip), RFC 8878 (zstd), the bzip2 and xz file formats. All may
//! be several streams in a row.

use std::io::{self, BufReader, Read};

use super::{Compression, compress::FrameReader, compress::READ_BUFFER};

/// Bytes at the start of a file that [`ArchiveFormat::of`] looks at: one header of a tar.
pub const ARCHIVE_HEAD: usize = 512;

/// Most memory for the dictionary of an xz stream in KiB. `xz -9` needs 64 MiB.
const XZ_MEMORY: u32 = 256 << 10;

/// What an archive is compressed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ArchiveFormat {
    /// A plain tar.
    Tar,
    /// gzip.
    Gzip,
    /// zstd.
    Zstd,
    /// bzip2.
    Bzip2,
    /// xz.
    Xz,
}

impl ArchiveFormat {
    /// What a file that begins with `head` may be; none if it is surely no archive.
    /// `head` is the first [`ARCHIVE_HEAD`] bytes, or all there are.
    pub fn of(head: &[u8]) -> Option<Self> {
        match head {
            [0x1f, 0x8b, 0x08, ..] => Some(Self::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Self::Zstd),
            // A skippable frame may come first.
            [first, 0x2a, 0x4d, 0x18, _, _, _, _, ..] if first & 0xf0 == 0x50 => Some(Self::Zstd),
            [b'B', b'Z', b'h', ..] => Some(Self::Bzip2),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Self::Xz),
            head if is_tar_header(head) => Some(Self::Tar),
            _ => None,
        }
    }

    /// The media type of a layer in this format, for those that layers have.
    pub fn layer_media_type(self) -> Option<&'static str> {
        match self {
            Self::Tar => Some(Compression::None.media_type()),
            Self::Gzip => Some(Compression::Gzip.media_type()),
            Self::Zstd => Some(Compression::Zstd.media_type()),
            Self::Bzip2 | Self::Xz => None,
        }
    }

    /// The tar in `archive`.
    pub fn reader<'a>(self, archive: impl Read + Send + 'a) -> Box<dyn Read + Send + 'a> {
        let archive = BufReader::with_capacity(READ_BUFFER, archive);
        match self {
            Self::Tar => Box::new(archive),
            Self::Gzip => Box::new(FrameReader::new(archive, Compression::Gzip)),
            Self::Zstd => Box::new(FrameReader::new(archive, Compression::Zstd)),
            Self::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(archive)),
            Self::Xz => Box::new(lzma_rust2::XzReader::new_mem_limit(
                archive, true, XZ_MEMORY,
            )),
        }
    }
}

/// Whether the bytes in `archive` begin with a tar's header, once decompressed.
pub fn holds_tar(format: ArchiveFormat, archive: impl Read + Send) -> bool {
    let mut head = Vec::new();
    let mut tar = format.reader(archive).take(ARCHIVE_HEAD as u64);
    tar.read_to_end(&mut head).is_ok() && is_tar_header(&head)
}

/// The first [`ARCHIVE_HEAD`] bytes of `file`, or all there are.
pub fn head(file: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(ARCHIVE_HEAD);
    file.take(ARCHIVE_HEAD as u64).read_to_end(&mut head)?;
    Ok(head)
}

/// Whether a block is the header of a tar member: its checksum is right.
fn is_tar_header(block: &[u8]) -> bool {
    let Some(block) = block.first_chunk::<512>() else {
        return false;
    };
    let field: String = block[148..156]
        .iter()
        .map(|b| char::from(*b))
        .filter(|c| c.is_digit(8))
        .collect();
    let sum: u32 = block
        .iter()
        .enumerate()
        .map(|(n, b)| {
            if (148..156).contains(&n) {
                32
            } else {
                u32::from(*b)
            }
        })
        .sum();
    // A block of zeros ends an archive; it is no header.
    sum != 256 && u32::from_str_radix(&field, 8) == Ok(sum)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn tar() -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(4);
        header.set_mode(0o644);
        tar.append_data(&mut header, "f", &b"text"[..]).unwrap();
        tar.into_inner().unwrap()
    }

    fn bzip2(bytes: &[u8]) -> Vec<u8> {
        let mut writer = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        writer.write_all(bytes).unwrap();
        writer.finish().unwrap()
    }

    #[test]
    fn formats_are_known_by_their_bytes() {
        for (head, format) in [
            (&b"\x1f\x8b\x08"[..], Some(ArchiveFormat::Gzip)),
            (b"\x1f\x8bno gzip", None),
            (b"BZh9", Some(ArchiveFormat::Bzip2)),
            (b"\xfd7zXZ\0", Some(ArchiveFormat::Xz)),
            (b"\x28\xb5\x2f\xfd", Some(ArchiveFormat::Zstd)),
            (b"\x53\x2a\x4d\x18\x04\0\0\0", Some(ArchiveFormat::Zstd)),
            (b"FROM scratch\n", None),
            (b"", None),
            (&[0; 512], None),
        ] {
            assert_eq!(ArchiveFormat::of(head), format, "{head:?}");
        }
        assert_eq!(ArchiveFormat::of(&tar()), Some(ArchiveFormat::Tar));
    }

    #[test]
    fn compressed_bytes_are_an_archive_if_they_hold_a_tar() {
        let packed = bzip2(&tar());
        assert!(holds_tar(ArchiveFormat::Bzip2, &packed[..]));
        assert!(!holds_tar(ArchiveFormat::Bzip2, &bzip2(b"text")[..]));
        assert!(!holds_tar(ArchiveFormat::Bzip2, &b"BZh9nothing"[..]));
        assert!(!holds_tar(ArchiveFormat::Xz, &b"\xfd7zXZ\0nothing"[..]));
    }

    #[test]
    fn streams_in_a_row_are_one_file() {
        let both = [bzip2(b"one "), bzip2(b"two")].concat();
        let mut text = String::new();
        let mut reader = ArchiveFormat::Bzip2.reader(&both[..]);
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "one two");
    }

    #[test]
    fn a_dictionary_that_is_too_large_is_refused() {
        // A stream header, and a block header whose LZMA2 filter asks for 4 GiB (dictionary
        // size 40), both with the right CRC32.
        let file = "fd377a585a000000ff12d9410200210128000000e6a011b3e000ff0000";
        let file = hex::decode(file).unwrap();
        let mut out = Vec::new();
        let error = ArchiveFormat::Xz.reader(&file[..]).read_to_end(&mut out);
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::OutOfMemory);
    }
}
