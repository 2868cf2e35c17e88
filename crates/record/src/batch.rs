//! Whole batches in a slice: read, walked, patched.

use std::ops::Deref;

use klamm_types::{LeaderEpoch, Offset, Timestamp};

use crate::error::BatchError;
use crate::header::{ATTRIBUTES_AT, BatchHeader, HEADER_LEN};
use crate::patched::PatchedHeader;

/// One batch that lies whole in a slice. Cheap to copy; dereferences to its [`BatchHeader`].
///
/// The header's invariants hold and all bytes are there; the CRC and the records are unchecked until
/// [`verify_crc`](Self::verify_crc) and [`validate`](crate::validate) say otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordBatch<'a> {
    header: BatchHeader,
    bytes: &'a [u8],
}

impl<'a> RecordBatch<'a> {
    /// Reads the batch at the start of `bytes`; what follows it is ignored.
    ///
    /// # Errors
    /// Those of [`BatchHeader::parse`], and [`BatchError::Truncated`] if the batch does not end within `bytes`.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BatchError> {
        let header = BatchHeader::parse(bytes)?;
        match bytes.get(..header.size()) {
            Some(bytes) => Ok(Self { header, bytes }),
            None => Err(BatchError::Truncated { have: bytes.len(), need: header.size() }),
        }
    }

    /// The decoded header.
    #[must_use]
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The bytes of this batch, header included, and of no other.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The bytes after the header: the records, compressed by the codec of the attributes.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.bytes.get(HEADER_LEN..).unwrap_or_default()
    }

    /// Computes the CRC-32C of the batch and compares it with the stored one. Reads every byte.
    ///
    /// # Errors
    /// [`BatchError::Crc`] with both values.
    pub fn verify_crc(&self) -> Result<(), BatchError> {
        let computed = crc32c::crc32c(self.bytes.get(ATTRIBUTES_AT..).unwrap_or_default());
        let stored = self.header.crc();
        if computed == stored { Ok(()) } else { Err(BatchError::Crc { stored, computed }) }
    }
}

impl Deref for RecordBatch<'_> {
    type Target = BatchHeader;

    fn deref(&self) -> &BatchHeader {
        &self.header
    }
}

/// The consecutive batches of a slice.
///
/// A partial batch at the end is an error, [`BatchError::Truncated`]; nothing follows an error.
#[derive(Clone, Debug)]
pub struct Batches<'a> {
    bytes: &'a [u8],
    position: usize,
    failed: bool,
}

impl<'a> Batches<'a> {
    /// Walks `bytes` from the start.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0, failed: false }
    }

    /// How many bytes the batches returned so far take: where the next one starts, or the broken one.
    #[must_use]
    pub fn position(&self) -> usize {
        self.position
    }
}

impl<'a> Iterator for Batches<'a> {
    type Item = Result<RecordBatch<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.bytes.get(self.position..)?;
        if self.failed || rest.is_empty() {
            return None;
        }
        let batch = RecordBatch::parse(rest);
        match &batch {
            Ok(batch) => self.position += batch.size(),
            Err(_) => self.failed = true,
        }
        Some(batch)
    }
}

impl std::iter::FusedIterator for Batches<'_> {}

/// One batch that is patched in place, as a leader does before it appends it.
#[derive(Debug)]
pub struct RecordBatchMut<'a> {
    patched: PatchedHeader,
    bytes: &'a mut [u8],
}

impl<'a> RecordBatchMut<'a> {
    /// Takes the batch at the start of `bytes`; what follows it is left alone.
    ///
    /// # Errors
    /// Those of [`RecordBatch::parse`].
    pub fn parse(bytes: &'a mut [u8]) -> Result<Self, BatchError> {
        let batch = RecordBatch::parse(bytes)?;
        let (patched, size) = (PatchedHeader::of(&batch), batch.size());
        let have = bytes.len();
        match bytes.get_mut(..size) {
            Some(bytes) => Ok(Self { patched, bytes }),
            None => Err(BatchError::Truncated { have, need: size }),
        }
    }

    /// The header as patched so far.
    #[must_use]
    pub fn header(&self) -> &BatchHeader {
        self.patched.header()
    }

    /// The batch as patched so far.
    #[must_use]
    pub fn as_batch(&self) -> RecordBatch<'_> {
        RecordBatch { header: *self.header(), bytes: self.bytes }
    }

    /// [`PatchedHeader::assign`].
    ///
    /// # Errors
    /// As there.
    pub fn assign(&mut self, base_offset: Offset, leader_epoch: LeaderEpoch) -> Result<(), BatchError> {
        self.patched.assign(base_offset, leader_epoch)?;
        self.put_header();
        Ok(())
    }

    /// [`PatchedHeader::set_append_time`].
    pub fn set_append_time(&mut self, now: Timestamp) {
        self.patched.set_append_time(now);
        self.put_header();
    }

    /// [`PatchedHeader::set_max_timestamp`].
    pub fn set_max_timestamp(&mut self, max_timestamp: Timestamp) {
        self.patched.set_max_timestamp(max_timestamp);
        self.put_header();
    }

    fn put_header(&mut self) {
        self.bytes[..HEADER_LEN].copy_from_slice(self.patched.bytes());
    }
}
