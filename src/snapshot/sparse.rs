//! Files with holes: written without their zero blocks, read without touching holes.
//!
//! A layer's tar knows plain bytes only. Unpacking seeks over blocks of zeros;
//! reading the upper directory asks the kernel where data is (`SEEK_DATA`,
//! `SEEK_HOLE`) and gives zeros elsewhere.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
};

use rustix::{fs::SeekFrom, io::Errno};

/// Zeros are left out in units of this many bytes, the usual block size.
const BLOCK: usize = 4096;

/// Copies all of `content` to the new, empty `file`, leaving holes for aligned blocks of
/// zeros. Gives the number of bytes.
pub(super) fn write(file: &File, content: &mut dyn Read) -> io::Result<u64> {
    let mut buffer = vec![0; 32 * BLOCK];
    let mut offset = 0u64;
    let mut hole_at_end = false;
    loop {
        let filled = fill(content, &mut buffer)?;
        let chunk = &buffer[..filled];
        // The position of the run of data that is not yet written.
        let mut run = 0;
        for (number, block) in chunk.chunks(BLOCK).enumerate() {
            let at = number * BLOCK;
            if is_zero(block) {
                file.write_all_at(&chunk[run..at], offset + run as u64)?;
                run = at + block.len();
            }
        }
        file.write_all_at(&chunk[run..], offset + run as u64)?;
        hole_at_end = if filled == 0 {
            hole_at_end
        } else {
            run == filled
        };
        offset += filled as u64;
        if filled < buffer.len() {
            break;
        }
    }
    if hole_at_end {
        file.set_len(offset)?;
    }
    Ok(offset)
}

/// Reads until the buffer is full or the content ends.
fn fill(content: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match content.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn is_zero(block: &[u8]) -> bool {
    let (words, rest) = block.as_chunks::<16>();
    words.iter().all(|w| u128::from_ne_bytes(*w) == 0) && rest.iter().all(|b| *b == 0)
}

/// Reads the first `size` bytes of a file; holes give zeros without being read.
#[derive(Debug)]
pub(super) struct SparseReader<'a> {
    file: &'a File,
    size: u64,
    position: u64,
    /// Where the region that `position` lies in ends, and whether it is data.
    region: (u64, bool),
}

impl<'a> SparseReader<'a> {
    /// Starts at the beginning of `file`.
    pub(super) fn new(file: &'a File, size: u64) -> Self {
        Self {
            file,
            size,
            position: 0,
            region: (0, true),
        }
    }

    /// Finds the region that the position lies in.
    fn find_region(&self) -> io::Result<(u64, bool)> {
        let data = match rustix::fs::seek(self.file, SeekFrom::Data(self.position)) {
            Ok(data) => data,
            Err(Errno::NXIO) => return Ok((self.size, false)),
            // The file system can't tell: all is data.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok((self.size, true)),
            Err(error) => return Err(error.into()),
        };
        if data > self.position {
            return Ok((data.min(self.size), false));
        }
        let hole = rustix::fs::seek(self.file, SeekFrom::Hole(self.position))?;
        Ok((hole.min(self.size), true))
    }
}

impl Read for SparseReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.position == self.size || buffer.is_empty() {
            return Ok(0);
        }
        if self.position == self.region.0 {
            self.region = self.find_region()?;
        }
        let left = usize::try_from(self.region.0 - self.position).unwrap_or(usize::MAX);
        let length = left.min(buffer.len());
        let buffer = &mut buffer[..length];
        let n = if self.region.1 {
            self.file.read_at(buffer, self.position)?
        } else {
            buffer.fill(0);
            length
        };
        self.position += n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::MetadataExt;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_is_written_is_read(
            runs in prop::collection::vec((any::<bool>(), 1usize..20_000), 0..20)
        ) {
            let bytes: Vec<u8> = runs
                .iter()
                .flat_map(|(data, n)| std::iter::repeat_n(u8::from(*data), *n))
                .collect();
            let file = tempfile::tempfile().unwrap();
            let size = write(&file, &mut bytes.as_slice()).unwrap();
            prop_assert_eq!(size, bytes.len() as u64);
            prop_assert_eq!(file.metadata().unwrap().len(), size);
            let mut read = Vec::new();
            SparseReader::new(&file, size).read_to_end(&mut read).unwrap();
            prop_assert!(read == bytes);
        }
    }

    #[test]
    fn zeros_take_no_room() {
        let file = tempfile::tempfile().unwrap();
        let zeros = io::repeat(0).take(64 << 20);
        write(&file, &mut { zeros }).unwrap();
        let metadata = file.metadata().unwrap();
        assert_eq!(metadata.len(), 64 << 20);
        assert!(metadata.blocks() < 128);
    }
}
