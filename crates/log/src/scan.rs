//! Walking a segment file batch by batch, without holding a batch in memory.

use std::io;

use klamm_record::{BatchError, BatchHeader, HEADER_LEN};

use crate::fs::{LogFile, read_exact_at, read_up_to_at};

mod sound;

pub(crate) use sound::{Fit, Promise, Sound, SoundScanner};

/// Where the CRC's cover begins: at the attributes.
const CRC_START: usize = 21;

/// A batch that a [`BatchScanner`] came by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scanned {
    /// Where the batch starts, in bytes from the start of the file.
    pub(crate) position: u64,
    pub(crate) header: BatchHeader,
}

impl Scanned {
    /// Where the next batch starts.
    pub(crate) fn end(&self) -> u64 {
        self.position + self.header.size() as u64
    }
}

/// Why a scan stopped before the end of its range.
#[derive(Debug)]
pub(crate) enum ScanError {
    /// The bytes at `position` are no whole batch.
    Damaged { position: u64, reason: BatchError },
    /// The disk failed.
    Io(io::Error),
}

impl From<io::Error> for ScanError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Reads batch headers from a range of a file through one buffer of fixed size.
pub(crate) struct BatchScanner<'f> {
    file: &'f dyn LogFile,
    /// Where the next batch starts.
    position: u64,
    /// Where the range ends.
    end: u64,
    buffer: Vec<u8>,
    /// Where in the file the buffer's first byte is.
    buffer_start: u64,
    buffer_capacity: usize,
}

impl<'f> BatchScanner<'f> {
    /// Enough to see the next header, for looking up single positions.
    pub(crate) const LOOKUP_BUFFER: usize = 1024;
    /// For the checksum of one batch, most of which are smaller.
    pub(crate) const CHECK_BUFFER: usize = 32 * 1024;
    /// For reading everything.
    pub(crate) const BULK_BUFFER: usize = 256 * 1024;

    /// A scan of `position..end`, where `position` is the start of a batch.
    pub(crate) fn new(file: &'f dyn LogFile, position: u64, end: u64, buffer_capacity: usize) -> Self {
        debug_assert!(buffer_capacity >= HEADER_LEN);
        Self { file, position, end, buffer: Vec::new(), buffer_start: position, buffer_capacity }
    }

    /// Where the next batch starts, or the range ends.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// The next batch whose bytes lie within the range, or `None` at its end. Its CRC is not checked.
    pub(crate) fn next(&mut self) -> Result<Option<Scanned>, ScanError> {
        if self.position >= self.end {
            return Ok(None);
        }
        let position = self.position;
        let left = self.end - position;
        let damaged = |reason| ScanError::Damaged { position, reason };
        let head = self.bytes_at(position, HEADER_LEN)?;
        let header = BatchHeader::parse(head).map_err(damaged)?;
        if header.size() as u64 > left {
            return Err(damaged(BatchError::Truncated { have: left as usize, need: header.size() }));
        }
        self.position += header.size() as u64;
        Ok(Some(Scanned { position, header }))
    }

    /// Checks the CRC of a batch that [`next`](Self::next) gave, reading it through the buffer.
    pub(crate) fn verify_crc(&mut self, batch: &Scanned) -> Result<(), ScanError> {
        let mut computed = 0;
        let mut at = batch.position + CRC_START as u64;
        while at < batch.end() {
            let piece = self.buffer_capacity.max(Self::CHECK_BUFFER);
            let want = usize::try_from(batch.end() - at).unwrap_or(usize::MAX).min(piece);
            let bytes = self.bytes_at(at, want)?;
            if bytes.is_empty() {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            computed = crc32c::crc32c_append(computed, bytes);
            at += bytes.len() as u64;
        }
        let stored = batch.header.crc();
        if computed == stored {
            return Ok(());
        }
        Err(ScanError::Damaged { position: batch.position, reason: BatchError::Crc { stored, computed } })
    }

    /// `len` bytes at `position` (fewer at the end of the range), from the buffer if they are there.
    fn bytes_at(&mut self, position: u64, len: usize) -> io::Result<&[u8]> {
        let len = len.min(usize::try_from(self.end - position).unwrap_or(usize::MAX));
        let buffered_end = self.buffer_start + self.buffer.len() as u64;
        if position < self.buffer_start || position + len as u64 > buffered_end {
            let room = usize::try_from(self.end - position).unwrap_or(usize::MAX).min(self.buffer_capacity);
            self.buffer.resize(room.max(len), 0);
            let read = read_up_to_at(self.file, &mut self.buffer, position)?;
            self.buffer.truncate(read);
            self.buffer_start = position;
        }
        let from = (position - self.buffer_start) as usize;
        let to = (from + len).min(self.buffer.len());
        Ok(&self.buffer[from..to])
    }
}

/// The bytes of one batch.
pub(crate) fn read_batch(file: &dyn LogFile, batch: &Scanned) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; batch.header.size()];
    read_exact_at(file, &mut bytes, batch.position)?;
    Ok(bytes)
}
