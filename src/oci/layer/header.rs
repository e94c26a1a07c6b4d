//! Writing tar headers.
//!
//! Format: POSIX.1-2001 `pax`. An entry is a plain `ustar` block where everything
//! fits; otherwise an extended header (type `x`, name `././@PaxHeader`, mode 0644,
//! owner and time zero, records ascending by key) stands before it. Records used:
//! `path`, `linkpath`, `size`, `uid`, `gid`, `mtime`, `SCHILY.xattr.<name>`. Bytes
//! above 0x7f stand in `ustar` fields as they are. User and group names are empty,
//! both device numbers zero where they mean nothing. Directories end with a slash,
//! the root is `./`. Version 1 of the canonical form; the whole of it is described
//! in `docs/internals/layer-format.md`.

use std::{collections::BTreeMap, os::unix::ffi::OsStrExt};

use super::{Entry, EntryKind, LayerError, LayerPath};

/// The unit of a tar.
pub(super) const BLOCK: usize = 512;

/// What whiteouts begin with.
pub(super) const WHITEOUT_PREFIX: &[u8] = b".wh.";

/// The name, inside a directory, that marks it opaque.
pub(super) const OPAQUE_MARK: &[u8] = b".wh..wh..opq";

/// What keys of extended attributes begin with.
pub(super) const XATTR_KEY: &[u8] = b"SCHILY.xattr.";

/// Extended attributes that belong to overlayfs on a host and never to an image.
const HOST_XATTRS: [&str; 2] = ["trusted.overlay.", "user.overlay."];

/// Whether the attribute belongs to overlayfs on a host.
pub(super) fn is_host_xattr(name: &str) -> bool {
    HOST_XATTRS.iter().any(|prefix| name.starts_with(prefix))
}

/// Appends the header blocks of `entry`, without its content, to `out`.
pub(super) fn write_header(out: &mut Vec<u8>, entry: &Entry) -> Result<(), LayerError> {
    let fields = Fields::of(entry)?;
    let mut records = BTreeMap::new();
    let block = ustar_block(&fields, &mut records);
    for (name, value) in &entry.xattrs {
        if name.is_empty() || name.contains(['=', '\0']) || is_host_xattr(name) {
            return Err(LayerError::Xattr {
                path: entry.path.clone(),
                name: name.clone(),
            });
        }
        records.insert([XATTR_KEY, name.as_bytes()].concat(), value.clone());
    }
    if !records.is_empty() {
        write_records(out, &records);
    }
    out.extend_from_slice(&block);
    Ok(())
}

/// Zeros up to the next block boundary after `size` bytes of content.
pub(super) fn padding(size: u64) -> usize {
    // The remainder is below 512.
    #[expect(clippy::cast_possible_truncation, reason = "a remainder below 512")]
    let rest = (size % BLOCK as u64) as usize;
    (BLOCK - rest) % BLOCK
}

/// An entry in the terms of a tar header.
struct Fields {
    name: Vec<u8>,
    link: Vec<u8>,
    type_flag: u8,
    mode: u32,
    uid: u32,
    gid: u32,
    size: u64,
    mtime: i64,
    device: (u32, u32),
}

impl Fields {
    fn of(entry: &Entry) -> Result<Self, LayerError> {
        let mut fields = Self {
            name: entry.path.as_bytes().to_vec(),
            link: Vec::new(),
            type_flag: b'0',
            mode: entry.mode & 0o7777,
            uid: entry.uid,
            gid: entry.gid,
            size: 0,
            mtime: entry.mtime,
            device: (0, 0),
        };
        match &entry.kind {
            EntryKind::Directory => {
                fields.type_flag = b'5';
                if entry.path.is_root() {
                    fields.name.push(b'.');
                }
                fields.name.push(b'/');
            }
            EntryKind::Regular { size } => fields.size = *size,
            EntryKind::Symlink { target } => {
                fields.type_flag = b'2';
                fields.link = target.as_os_str().as_bytes().to_vec();
            }
            EntryKind::Hardlink { target } => {
                fields.type_flag = b'1';
                fields.link = target.as_bytes().to_vec();
            }
            EntryKind::CharDevice { major, minor } => {
                fields.type_flag = b'3';
                fields.device = device_numbers(&entry.path, *major, *minor)?;
            }
            EntryKind::BlockDevice { major, minor } => {
                fields.type_flag = b'4';
                fields.device = device_numbers(&entry.path, *major, *minor)?;
            }
            EntryKind::Fifo => fields.type_flag = b'6',
            EntryKind::Whiteout => fields.mark(&entry.path, true),
            EntryKind::Opaque => fields.mark(&entry.path, false),
        }
        Ok(fields)
    }

    /// Turns the entry into an empty file that stands for a deletion.
    fn mark(&mut self, path: &LayerPath, whiteout: bool) {
        let at = if whiteout {
            path.as_bytes()
                .iter()
                .rposition(|b| *b == b'/')
                .map_or(0, |slash| slash + 1)
        } else {
            if !path.is_root() {
                self.name.push(b'/');
            }
            self.name.len()
        };
        let mark = if whiteout {
            WHITEOUT_PREFIX
        } else {
            OPAQUE_MARK
        };
        self.name.splice(at..at, mark.iter().copied());
        (self.mode, self.uid, self.gid) = (0, 0, 0);
    }
}

/// Both numbers if a header's seven octal digits hold them.
fn device_numbers(path: &LayerPath, major: u32, minor: u32) -> Result<(u32, u32), LayerError> {
    match [major, minor].into_iter().find(|n| *n > 0o7_777_777) {
        Some(number) => Err(LayerError::DeviceNumber {
            path: path.clone(),
            number,
        }),
        None => Ok((major, minor)),
    }
}

/// The header block; what doesn't fit goes to `records`.
fn ustar_block(fields: &Fields, records: &mut BTreeMap<Vec<u8>, Vec<u8>>) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    if let Some((prefix, name)) = split_name(&fields.name) {
        block[..name.len()].copy_from_slice(name);
        block[345..345 + prefix.len()].copy_from_slice(prefix);
    } else {
        records.insert(b"path".to_vec(), fields.name.clone());
        block[..100].copy_from_slice(&fields.name[..100]);
    }
    if fields.link.len() > 100 {
        records.insert(b"linkpath".to_vec(), fields.link.clone());
    }
    let link = &fields.link[..fields.link.len().min(100)];
    block[157..157 + link.len()].copy_from_slice(link);

    let mut number = |range: std::ops::Range<usize>, value: i128, key: &str| {
        let digits = range.len() - 1;
        let fits = (0..1i128 << (3 * digits)).contains(&value);
        if !fits {
            records.insert(key.into(), value.to_string().into_bytes());
        }
        let text = format!("{:0digits$o}", if fits { value } else { 0 });
        block[range.start..range.end - 1].copy_from_slice(text.as_bytes());
    };
    number(100..108, fields.mode.into(), "");
    number(108..116, fields.uid.into(), "uid");
    number(116..124, fields.gid.into(), "gid");
    number(124..136, fields.size.into(), "size");
    number(136..148, fields.mtime.into(), "mtime");
    number(329..337, fields.device.0.into(), "");
    number(337..345, fields.device.1.into(), "");

    block[156] = fields.type_flag;
    block[257..265].copy_from_slice(b"ustar\x0000");
    let sum = checksum(&block);
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// The sum of all bytes of a header, its checksum field taken as spaces.
pub(super) fn checksum(block: &[u8; BLOCK]) -> u32 {
    let sum = |bytes: &[u8]| bytes.iter().map(|b| u32::from(*b)).sum::<u32>();
    sum(&block[..148]) + 8 * u32::from(b' ') + sum(&block[156..])
}

/// `name` as prefix and name of a ustar header: at most 155 and 100 bytes, divided at
/// the last slash that leaves a prefix short enough.
fn split_name(name: &[u8]) -> Option<(&[u8], &[u8])> {
    if name.len() <= 100 {
        return Some((b"", name));
    }
    // A directory's own slash divides nothing.
    let end = name.len().saturating_sub(1).min(156);
    let slash = name[..end].iter().rposition(|b| *b == b'/')?;
    let rest = &name[slash + 1..];
    (slash > 0 && rest.len() <= 100).then_some((&name[..slash], rest))
}

/// Appends an extended header with these records.
fn write_records(out: &mut Vec<u8>, records: &BTreeMap<Vec<u8>, Vec<u8>>) {
    let mut data = Vec::new();
    for (key, value) in records {
        // " key=value\n" and the length, which counts its own digits.
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        data.extend_from_slice(format!("{length} ").as_bytes());
        data.extend_from_slice(key);
        data.push(b'=');
        data.extend_from_slice(value);
        data.push(b'\n');
    }
    let fields = Fields {
        name: b"././@PaxHeader".to_vec(),
        link: Vec::new(),
        type_flag: b'x',
        mode: 0o644,
        uid: 0,
        gid: 0,
        size: data.len() as u64,
        mtime: 0,
        device: (0, 0),
    };
    out.extend_from_slice(&ustar_block(&fields, &mut BTreeMap::new()));
    let padding = padding(data.len() as u64);
    out.append(&mut data);
    out.resize(out.len() + padding, 0);
}
