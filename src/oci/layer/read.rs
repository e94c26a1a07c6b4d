//! Reading any layer's tar.
//!
//! [`TarEntries`] reads what layers are made of in the wild: ustar, V7, GNU (long
//! names, base-256 numbers) and pax (`path`, `linkpath`, `size`, `uid`, `gid`,
//! `mtime`, `SCHILY.xattr.*` with any bytes). Names are normalised: `./a`, `/a` and
//! `a/` are all `a`; `..` is refused. Whiteouts are decoded. Records of global pax
//! headers are skipped, as container runtimes do; so are the aufs files
//! (`.wh..wh.*` other than the opaque mark), SELinux labels in other keys, and
//! extended attributes of the host's overlayfs. Sparse files are refused. The `tar`
//! crate is not used here: it ends pax records at any newline, and so breaks binary
//! attributes.
//!
//! Memory is bounded: a header's extensions have at most 1 MiB, a name 4 KiB.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    io::{self, Read},
    os::unix::ffi::OsStrExt,
    path::PathBuf,
};

use super::{
    Entry, EntryKind, LayerError, LayerPath,
    header::{BLOCK, OPAQUE_MARK, WHITEOUT_PREFIX, XATTR_KEY, checksum, is_host_xattr, padding},
};

/// The most bytes of one extended header or long name.
const MAX_EXTENSION: u64 = 1 << 20;

/// The longest path and link, in bytes (`PATH_MAX`).
const MAX_NAME: usize = 4096;

/// The entries of a tar, one after the other.
pub struct TarEntries<R> {
    reader: R,
    /// Bytes read.
    offset: u64,
    /// Bytes of the current content that have not been read, and its padding.
    content_left: u64,
    padding: usize,
    ended: bool,
}

/// An entry of a tar; reads its content.
pub struct TarEntry<'a, R> {
    /// The change. A regular file's size is the length of the content.
    pub entry: Entry,
    /// Where the content begins in the tar, in bytes.
    pub offset: u64,
    entries: &'a mut TarEntries<R>,
}

/// What extended headers say about the next entry.
#[derive(Default)]
struct Extensions {
    records: BTreeMap<Vec<u8>, Vec<u8>>,
    size: u64,
    /// Where the first of the headers stands.
    start: Option<u64>,
}

impl<R: Read> TarEntries<R> {
    /// Reads the tar `reader`.
    pub fn new(reader: R) -> Self {
        Self {
            reader,
            offset: 0,
            content_left: 0,
            padding: 0,
            ended: false,
        }
    }

    /// The next entry; none at the end of the tar. Content that was not read is skipped.
    pub fn next_entry(&mut self) -> Result<Option<TarEntry<'_, R>>, LayerError> {
        let mut extensions = Extensions::default();
        loop {
            self.skip_content()?;
            let start = self.offset;
            let Some(block) = self.next_header()? else {
                return match extensions.start {
                    Some(_) => Err(LayerError::Truncated { offset: start }),
                    None => Ok(None),
                };
            };
            let header = Header {
                block: &block,
                at: extensions.start.unwrap_or(start),
            };
            match block[156] {
                b'g' => self.set_content(header.number(124..136, "size")?, start)?,
                b'x' | b'L' | b'K' => {
                    let data = self.read_extension(header.number(124..136, "size")?, start)?;
                    extensions.add(block[156], data, start)?;
                }
                _ => {
                    let size = header.size(&extensions)?;
                    self.set_content(size, start)?;
                    if let Some(entry) = header.entry(&extensions, size)? {
                        let offset = self.offset;
                        return Ok(Some(TarEntry {
                            entry,
                            offset,
                            entries: self,
                        }));
                    }
                    extensions = Extensions::default();
                }
            }
        }
    }

    /// Reads whatever follows the end of the tar; gives the whole length in bytes.
    pub(super) fn finish(mut self) -> Result<u64, LayerError> {
        let rest = io::copy(&mut self.reader, &mut io::sink()).map_err(LayerError::Read)?;
        Ok(self.offset + rest)
    }

    fn set_content(&mut self, size: u64, at: u64) -> Result<(), LayerError> {
        if size > 1 << 60 {
            return Err(LayerError::TooLarge {
                offset: at,
                what: "a file",
            });
        }
        self.content_left = size;
        self.padding = padding(size);
        Ok(())
    }

    fn skip_content(&mut self) -> Result<(), LayerError> {
        let want = self.content_left + self.padding as u64;
        (self.content_left, self.padding) = (0, 0);
        let mut rest = (&mut self.reader).take(want);
        let got = io::copy(&mut rest, &mut io::sink()).map_err(LayerError::Read)?;
        self.offset += got;
        if got < want {
            return Err(LayerError::Truncated {
                offset: self.offset,
            });
        }
        Ok(())
    }

    /// The next block if it is a header; none at the end.
    fn next_header(&mut self) -> Result<Option<[u8; BLOCK]>, LayerError> {
        let at = self.offset;
        let Some(block) = self.next_block()? else {
            return Ok(None);
        };
        if block.iter().any(|b| *b != 0) {
            Header { block: &block, at }.check()?;
            return Ok(Some(block));
        }
        match self.next_block()? {
            Some(block) if block.iter().any(|b| *b != 0) => Err(LayerError::Damaged {
                offset: at,
                what: "one block of zeros between entries",
            }),
            _ => {
                self.ended = true;
                Ok(None)
            }
        }
    }

    fn next_block(&mut self) -> Result<Option<[u8; BLOCK]>, LayerError> {
        if self.ended {
            return Ok(None);
        }
        let mut block = Vec::with_capacity(BLOCK);
        let mut source = (&mut self.reader).take(BLOCK as u64);
        source.read_to_end(&mut block).map_err(LayerError::Read)?;
        self.offset += block.len() as u64;
        if block.is_empty() {
            self.ended = true;
            return Ok(None);
        }
        match block.try_into() {
            Ok(block) => Ok(Some(block)),
            Err(_) => Err(LayerError::Truncated {
                offset: self.offset,
            }),
        }
    }

    fn read_extension(&mut self, size: u64, at: u64) -> Result<Vec<u8>, LayerError> {
        if size > MAX_EXTENSION {
            return Err(LayerError::TooLarge {
                offset: at,
                what: "an extended header",
            });
        }
        self.set_content(size, at)?;
        let mut data = Vec::new();
        self.read_to_end(&mut data).map_err(LayerError::Read)?;
        Ok(data)
    }
}

/// Reads the current entry's content.
impl<R: Read> Read for TarEntries<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.content_left == 0 || buf.is_empty() {
            return Ok(0);
        }
        let most = usize::try_from(self.content_left).map_or(buf.len(), |n| n.min(buf.len()));
        let n = self.reader.read(&mut buf[..most])?;
        if n == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the tar ends in the middle of a file",
            ));
        }
        self.offset += n as u64;
        self.content_left -= n as u64;
        Ok(n)
    }
}

impl<R: Read> Read for TarEntry<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.entries.read(buf)
    }
}

impl Extensions {
    fn add(&mut self, type_flag: u8, data: Vec<u8>, at: u64) -> Result<(), LayerError> {
        self.start.get_or_insert(at);
        self.size += data.len() as u64;
        if self.size > MAX_EXTENSION {
            return Err(LayerError::TooLarge {
                offset: at,
                what: "extended headers",
            });
        }
        let key: &[u8] = match type_flag {
            b'L' => b"path",
            b'K' => b"linkpath",
            _ => return self.add_records(&data, at),
        };
        self.records.insert(key.to_vec(), until_nul(&data).to_vec());
        Ok(())
    }

    /// Takes the records `<length> <key>=<value>\n`.
    fn add_records(&mut self, mut data: &[u8], at: u64) -> Result<(), LayerError> {
        let damaged = || LayerError::Damaged {
            offset: at,
            what: "its extended header",
        };
        // Some writers fill up with zeros.
        while data.first().is_some_and(|b| *b != 0) {
            let space = data
                .iter()
                .take(20)
                .position(|b| *b == b' ')
                .ok_or_else(damaged)?;
            let length = std::str::from_utf8(&data[..space])
                .ok()
                .and_then(|digits| digits.parse::<usize>().ok())
                .filter(|length| *length > space + 1 && *length <= data.len())
                .ok_or_else(damaged)?;
            let record = data[space + 1..length]
                .strip_suffix(b"\n")
                .ok_or_else(damaged)?;
            let equals = record.iter().position(|b| *b == b'=').ok_or_else(damaged)?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            if key.starts_with(b"GNU.sparse.") {
                return Err(LayerError::Unsupported {
                    offset: at,
                    what: "a sparse file",
                });
            }
            // An empty value stands for none, but an attribute may well be empty.
            if value.is_empty() && !key.starts_with(XATTR_KEY) {
                self.records.remove(key);
            } else {
                self.records.insert(key.to_vec(), value.to_vec());
            }
            data = &data[length..];
        }
        Ok(())
    }

    fn text(&self, key: &str) -> Option<&str> {
        std::str::from_utf8(self.records.get(key.as_bytes())?).ok()
    }
}

/// A header block and where its entry begins.
struct Header<'a> {
    block: &'a [u8; BLOCK],
    at: u64,
}

impl Header<'_> {
    fn damaged(&self, what: &'static str) -> LayerError {
        LayerError::Damaged {
            offset: self.at,
            what,
        }
    }

    fn check(&self) -> Result<(), LayerError> {
        let found = self.number(148..156, "checksum")?;
        // Some old writers added up signed bytes.
        let signed: i64 = self
            .block
            .iter()
            .map(|b| i64::from(*b) - if *b > 127 { 256 } else { 0 })
            .sum();
        let field: i64 = self.block[148..156]
            .iter()
            .map(|b| i64::from(*b) - if *b > 127 { 256 } else { 0 })
            .sum();
        let signed = signed - field + 8 * i64::from(b' ');
        if found == u64::from(checksum(self.block)) || i64::try_from(found) == Ok(signed) {
            Ok(())
        } else {
            Err(self.damaged("wrong checksum"))
        }
    }

    /// A numeric field that can't be negative.
    fn number(&self, range: std::ops::Range<usize>, what: &'static str) -> Result<u64, LayerError> {
        u64::try_from(self.signed(range, what)?).map_err(|_| self.damaged(what))
    }

    /// A numeric field: octal digits, or GNU's base 256.
    fn signed(&self, range: std::ops::Range<usize>, what: &'static str) -> Result<i64, LayerError> {
        let field = &self.block[range];
        if field[0] & 0x80 != 0 {
            // Two's complement, big endian, the highest bit taken for the mark.
            let first = i128::from(field[0] & 0x7f) - i128::from(field[0] & 0x40) * 2;
            return field[1..]
                .iter()
                .try_fold(first, |n, b| {
                    n.checked_mul(256)?.checked_add(i128::from(*b))
                })
                .and_then(|n| i64::try_from(n).ok())
                .ok_or_else(|| self.damaged(what));
        }
        let digits = until_nul(field).trim_ascii();
        if digits.is_empty() {
            return Ok(0);
        }
        std::str::from_utf8(digits)
            .ok()
            .filter(|text| !text.starts_with(['+', '-']))
            .and_then(|text| i64::from_str_radix(text, 8).ok())
            .ok_or_else(|| self.damaged(what))
    }

    /// Length of the content that follows.
    fn size(&self, extensions: &Extensions) -> Result<u64, LayerError> {
        // Links, devices, directories and pipes have none, whatever their header says.
        if matches!(self.block[156], b'1'..=b'6') {
            return Ok(0);
        }
        match extensions.text("size") {
            Some(text) => text.parse().map_err(|_| self.damaged("size")),
            None => self.number(124..136, "size"),
        }
    }

    /// The entry; none if it says nothing about the root file system.
    fn entry(&self, extensions: &Extensions, size: u64) -> Result<Option<Entry>, LayerError> {
        let name = self.name(extensions)?;
        let path = self.path(&name)?;
        if let Some(entry) = self.deletion(&path)? {
            return Ok(entry);
        }
        let link = self.link(extensions)?;
        let device = || -> Result<(u32, u32), LayerError> {
            let part = |range| {
                u32::try_from(self.number(range, "device number")?)
                    .map_err(|_| self.damaged("device number"))
            };
            Ok((part(329..337)?, part(337..345)?))
        };
        let mut mode = u32::try_from(self.number(100..108, "mode")? & 0o7777).unwrap_or(0);
        let kind = match self.block[156] {
            // Before ustar, a slash at the end made a directory.
            0 | b'0' if name.ends_with(b"/") => EntryKind::Directory,
            0 | b'0' | b'7' => EntryKind::Regular { size },
            b'1' => EntryKind::Hardlink {
                target: self.path(&link)?,
            },
            b'2' => {
                mode = 0o777;
                EntryKind::Symlink {
                    target: PathBuf::from(OsStr::from_bytes(&link)),
                }
            }
            b'3' => device().map(|(major, minor)| EntryKind::CharDevice { major, minor })?,
            b'4' => device().map(|(major, minor)| EntryKind::BlockDevice { major, minor })?,
            b'5' => EntryKind::Directory,
            b'6' => EntryKind::Fifo,
            b'S' => return Err(self.unsupported("a sparse file")),
            _ => return Err(self.unsupported("an entry of unknown type")),
        };
        if path.is_root() && kind != EntryKind::Directory {
            return Err(self.damaged("its name"));
        }
        Ok(Some(Entry {
            path,
            kind,
            mode,
            uid: self.owner(extensions, "uid", 108..116)?,
            gid: self.owner(extensions, "gid", 116..124)?,
            mtime: self.mtime(extensions)?,
            xattrs: xattrs(extensions),
        }))
    }

    /// The whiteout or opaque mark that `path` stands for: `None` if neither,
    /// `Some(None)` if it is to be skipped.
    fn deletion(&self, path: &LayerPath) -> Result<Option<Option<Entry>>, LayerError> {
        let aufs = |name: &OsStr| name.as_bytes().starts_with(b".wh..wh.");
        let Some(name) = path.file_name().map(OsStr::as_bytes) else {
            return Ok(None);
        };
        let dir = path.parent().unwrap_or(LayerPath::ROOT);
        let (path, kind) = if dir.components().any(aufs) {
            return Ok(Some(None));
        } else if name == OPAQUE_MARK {
            (dir, EntryKind::Opaque)
        } else if aufs(OsStr::from_bytes(name)) {
            return Ok(Some(None));
        } else if let Some(name) = name.strip_prefix(WHITEOUT_PREFIX) {
            if matches!(name, b"" | b"." | b"..") {
                return Err(self.damaged("a whiteout without a name"));
            }
            (dir.join(OsStr::from_bytes(name)), EntryKind::Whiteout)
        } else {
            return Ok(None);
        };
        Ok(Some(Some(Entry {
            path,
            kind,
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: self.mtime(&Extensions::default())?,
            xattrs: BTreeMap::new(),
        })))
    }

    fn name(&self, extensions: &Extensions) -> Result<Vec<u8>, LayerError> {
        if let Some(name) = extensions.records.get(b"path".as_slice()) {
            return self.bounded(name.clone());
        }
        let name = until_nul(&self.block[..100]);
        // GNU's header (`ustar  `) has times where ustar has the prefix.
        let prefix = match &self.block[257..263] == b"ustar\0" {
            true => until_nul(&self.block[345..500]),
            false => b"",
        };
        Ok(match prefix {
            b"" => name.to_vec(),
            prefix => [prefix, b"/", name].concat(),
        })
    }

    fn link(&self, extensions: &Extensions) -> Result<Vec<u8>, LayerError> {
        let link = extensions
            .records
            .get(b"linkpath".as_slice())
            .map_or(until_nul(&self.block[157..257]), Vec::as_slice);
        if link.contains(&0) {
            return Err(self.damaged("its link"));
        }
        self.bounded(link.to_vec())
    }

    fn bounded(&self, name: Vec<u8>) -> Result<Vec<u8>, LayerError> {
        if name.len() > MAX_NAME {
            return Err(LayerError::TooLarge {
                offset: self.at,
                what: "a name",
            });
        }
        Ok(name)
    }

    fn path(&self, name: &[u8]) -> Result<LayerPath, LayerError> {
        LayerPath::new(OsStr::from_bytes(name)).map_err(|source| LayerError::BadPath {
            offset: self.at,
            source,
        })
    }

    fn owner(
        &self,
        extensions: &Extensions,
        key: &'static str,
        range: std::ops::Range<usize>,
    ) -> Result<u32, LayerError> {
        let id = match extensions.text(key) {
            Some(text) => text.parse().map_err(|_| self.damaged(key))?,
            None => self.number(range, key)?,
        };
        u32::try_from(id).map_err(|_| self.damaged(key))
    }

    /// The time in whole seconds, rounded down.
    fn mtime(&self, extensions: &Extensions) -> Result<i64, LayerError> {
        let Some(text) = extensions.text("mtime") else {
            return self.signed(136..148, "mtime");
        };
        let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
        let seconds: i64 = seconds.parse().map_err(|_| self.damaged("mtime"))?;
        let part = fraction.bytes().any(|b| b != b'0');
        Ok(seconds.saturating_sub(i64::from(text.starts_with('-') && part)))
    }

    fn unsupported(&self, what: &'static str) -> LayerError {
        LayerError::Unsupported {
            offset: self.at,
            what,
        }
    }
}

fn xattrs(extensions: &Extensions) -> BTreeMap<String, Vec<u8>> {
    extensions
        .records
        .iter()
        .filter_map(|(key, value)| {
            let name = std::str::from_utf8(key.strip_prefix(XATTR_KEY)?).ok()?;
            let usable = !name.is_empty() && !name.contains('\0') && !is_host_xattr(name);
            usable.then(|| (name.to_owned(), value.clone()))
        })
        .collect()
}

fn until_nul(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|b| *b == 0).unwrap_or(field.len());
    &field[..end]
}
