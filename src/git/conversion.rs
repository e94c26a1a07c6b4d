//! What a checkout does to a blob before it writes it.
//!
//! The rules are those of gitattributes(5), in Git's order: `ident`, line endings,
//! `working-tree-encoding`, then a filter. Line endings, `ident` and UTF-16 are computed
//! here. What another program would do is never computed: such files are
//! [`Unknown`](super::Unknown).

/// How a file is converted, as far as that can be computed from its blob.
///
/// One byte, which the memo of blobs keeps:
///
/// | bits | meaning |
/// |---|---|
/// | 0..=1 | line endings: 0 as they are, 1 CRLF, 2 CRLF if the content is text without CR |
/// | 2 | `$Id$` is filled in |
/// | 3..=4 | encoding: 0 as it is, 1 UTF-16LE, 2 UTF-16BE, 3 UTF-16LE with a byte order mark |
/// | 6 | the content is that of the object which a Git LFS pointer names |
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(super) struct Conversion(u8);

/// Line endings that a checkout writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LineEndings {
    /// As in the blob.
    Same,
    /// Each lone LF becomes CRLF.
    Crlf,
    /// The same, if the content looks like text and has no CR.
    CrlfIfText,
}

/// Encodings that are computed here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Same = 0,
    Utf16Le = 1,
    Utf16Be = 2,
    Utf16LeMark = 3,
}

impl Encoding {
    /// The encoding of a `working-tree-encoding`; none if it isn't computed here. Whether
    /// `UTF-16` has a byte order mark, and which, depends on the machine's `iconv`.
    pub(super) fn of(name: &[u8]) -> Option<Self> {
        let name = name.to_ascii_uppercase();
        Some(match &*name {
            b"UTF-8" | b"UTF8" => Self::Same,
            b"UTF-16LE" => Self::Utf16Le,
            b"UTF-16BE" => Self::Utf16Be,
            b"UTF-16LE-BOM" => Self::Utf16LeMark,
            _ => return None,
        })
    }
}

impl Conversion {
    /// The checked-out file is the blob.
    pub(super) const NONE: Self = Self(0);

    /// The checked-out file is the object that the blob points to.
    pub(super) const LFS: Self = Self(1 << 6);

    pub(super) fn new(endings: LineEndings, ident: bool, encoding: Encoding) -> Self {
        let endings = match endings {
            LineEndings::Same => 0,
            LineEndings::Crlf => 1,
            LineEndings::CrlfIfText => 2,
        };
        Self(endings | u8::from(ident) << 2 | (encoding as u8) << 3)
    }

    /// What stands for it in the memo.
    pub(super) fn from_byte(byte: u8) -> Self {
        Self(byte)
    }

    /// Its byte.
    pub(super) fn byte(self) -> u8 {
        self.0
    }

    /// Whether the blob is a pointer.
    pub(super) fn is_lfs(self) -> bool {
        self == Self::LFS
    }

    /// The encoding, as `.gitattributes` has it.
    pub(super) fn encoding_name(self) -> &'static str {
        match self.0 >> 3 & 3 {
            0 => "UTF-8",
            1 => "UTF-16LE",
            2 => "UTF-16BE",
            _ => "UTF-16LE-BOM",
        }
    }

    fn endings(self) -> LineEndings {
        match self.0 & 3 {
            0 => LineEndings::Same,
            1 => LineEndings::Crlf,
            _ => LineEndings::CrlfIfText,
        }
    }

    /// What a checkout writes for a blob `id` with content `blob`; none if that can't be
    /// told, which only an encoding can bring about.
    pub(super) fn apply(self, id: super::ObjectId, blob: Vec<u8>) -> Option<Vec<u8>> {
        let mut content = blob;
        if self.0 & 4 != 0 {
            content = fill_in_ident(&content, &id.to_string());
        }
        let convert = match self.endings() {
            LineEndings::Same => false,
            LineEndings::Crlf => true,
            LineEndings::CrlfIfText => is_text_without_cr(&content),
        };
        if convert {
            content = with_crlf(&content);
        }
        match self.0 >> 3 & 3 {
            0 => Some(content),
            1 => to_utf16(&content, false, false),
            2 => to_utf16(&content, true, false),
            _ => to_utf16(&content, false, true),
        }
    }
}

/// Replaces each LF without a CR before it.
fn with_crlf(content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len() + content.len() / 16);
    let mut last = 0;
    for byte in content {
        if *byte == b'\n' && last != b'\r' {
            out.push(b'\r');
        }
        out.push(*byte);
        last = *byte;
    }
    out
}

/// Whether Git takes content for text whose line endings it may change by itself.
fn is_text_without_cr(content: &[u8]) -> bool {
    let (mut printable, mut other) = (0usize, 0usize);
    for (n, byte) in content.iter().enumerate() {
        match byte {
            // Any CR, alone or before a LF, and any NUL leave the file alone.
            b'\r' | 0 => return false,
            b'\n' => {}
            0x08 | b'\t' | 0x1b | 0x0c => printable += 1,
            // An end mark of DOS.
            0x1a if n + 1 == content.len() => {}
            0x7f | 0..0x20 => other += 1,
            _ => printable += 1,
        }
    }
    printable >> 7 >= other
}

/// Writes the blob's name into `$Id$` and what looks like an earlier `$Id: … $`.
fn fill_in_ident(content: &[u8], id: &str) -> Vec<u8> {
    if !has_ident(content) {
        return content.to_vec();
    }
    let mut out = Vec::with_capacity(content.len() + 64);
    let mut rest = content;
    while let Some(at) = rest.iter().position(|byte| *byte == b'$') {
        let (before, from) = rest.split_at(at);
        out.extend_from_slice(before);
        match ident_at(from) {
            Some(length) => {
                out.extend_from_slice(format!("$Id: {id} $").as_bytes());
                rest = &from[length..];
            }
            None => {
                out.push(b'$');
                rest = &from[1..];
            }
        }
    }
    out.extend_from_slice(rest);
    out
}

/// Whether Git finds a keyword at all. It overlooks `$Id: … $` at the very end of a file.
fn has_ident(content: &[u8]) -> bool {
    let mut rest = content;
    while let Some(at) = rest.iter().position(|byte| *byte == b'$') {
        rest = &rest[at + 1..];
        if rest.len() < 3 {
            return false;
        }
        let Some(behind) = rest.strip_prefix(b"Id") else {
            continue;
        };
        rest = &behind[1..];
        match behind[0] {
            b'$' => return true,
            b':' => {
                let end = rest.iter().position(|byte| matches!(byte, b'$' | b'\n'));
                match end {
                    None => return false,
                    Some(end) if rest[end] == b'$' && end + 1 < rest.len() => return true,
                    Some(end) => rest = &rest[end + 1..],
                }
            }
            _ => {}
        }
    }
    false
}

/// Bytes of the keyword at the start of `text`, if it is to be filled in. One with several
/// words is another program's and stays.
fn ident_at(text: &[u8]) -> Option<usize> {
    let rest = text.strip_prefix(b"$Id")?;
    if rest.first() == Some(&b'$') {
        return Some(4);
    }
    let rest = rest.strip_prefix(b":")?;
    let end = rest.iter().position(|byte| matches!(byte, b'$' | b'\n'))?;
    if rest[end] == b'\n' {
        return None;
    }
    // The space after the colon is part of the form; another one that is not before the
    // closing dollar makes it foreign.
    let space = rest.iter().skip(1).position(|byte| *byte == b' ');
    let foreign = space.is_some_and(|space| space + 1 < end.saturating_sub(1));
    (!foreign).then_some(4 + end + 1)
}

fn to_utf16(content: &[u8], big_endian: bool, mark: bool) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(content).ok()?;
    // An empty file stays empty: Git has nothing to encode.
    if text.is_empty() {
        return Some(Vec::new());
    }
    let mark = mark.then_some(0xfeff);
    let units = mark.into_iter().chain(text.encode_utf16());
    Some(
        units
            .flat_map(|unit| match big_endian {
                true => unit.to_be_bytes(),
                false => unit.to_le_bytes(),
            })
            .collect(),
    )
}

/// SHA-256 and size of the object that a Git LFS pointer names; none if `blob` is no pointer.
pub(super) fn lfs_pointer(blob: &[u8]) -> Option<(String, u64)> {
    // The specification of pointers: less than 1024 bytes, `version` first.
    if blob.len() >= 1024 || !blob.starts_with(b"version https://git-lfs.github.com/spec/v1\n") {
        return None;
    }
    let text = std::str::from_utf8(blob).ok()?;
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key));
    let digest = value("oid sha256:")?;
    let is_digest = digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit());
    let size = value("size ")?.parse().ok()?;
    is_digest.then(|| (digest.to_ascii_lowercase(), size))
}
