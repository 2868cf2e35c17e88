//! Whole batches in a slice: read, walked, patched.

use std::ops::Deref;

use klamm_types::{LeaderEpoch, Offset, Timestamp};

use crate::crc;
use crate::error::BatchError;
use crate::header::{
    ATTRIBUTES_AT, Attributes, BatchHeader, CRC_AT, HEADER_LEN, LEADER_EPOCH_AT, MAX_TIMESTAMP_AT,
};

/// Where the part of the CRC's range ends that a leader rewrites: attributes to max timestamp.
const PATCH_END: usize = MAX_TIMESTAMP_AT + 8;

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

/// One batch that a leader patches in place before it appends it.
#[derive(Debug)]
pub struct RecordBatchMut<'a> {
    header: BatchHeader,
    bytes: &'a mut [u8],
}

impl<'a> RecordBatchMut<'a> {
    /// Takes the batch at the start of `bytes`; what follows it is left alone.
    ///
    /// # Errors
    /// Those of [`RecordBatch::parse`].
    pub fn parse(bytes: &'a mut [u8]) -> Result<Self, BatchError> {
        let header = BatchHeader::parse(bytes)?;
        let have = bytes.len();
        match bytes.get_mut(..header.size()) {
            Some(bytes) => Ok(Self { header, bytes }),
            None => Err(BatchError::Truncated { have, need: header.size() }),
        }
    }

    /// The header as patched so far.
    #[must_use]
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The batch as patched so far.
    #[must_use]
    pub fn as_batch(&self) -> RecordBatch<'_> {
        RecordBatch { header: self.header, bytes: self.bytes }
    }

    /// Writes base offset and leader epoch. Neither is covered by the CRC.
    ///
    /// # Errors
    /// [`BatchError::OffsetRange`] if the offset after the batch would pass 2^63 - 1, or `base_offset` is negative;
    /// the batch is then unchanged.
    pub fn assign(&mut self, base_offset: Offset, leader_epoch: LeaderEpoch) -> Result<(), BatchError> {
        self.header.set_base_offset(base_offset)?;
        self.header.set_leader_epoch(leader_epoch);
        self.put(0, base_offset.0.to_be_bytes());
        self.put(LEADER_EPOCH_AT, leader_epoch.0.to_be_bytes());
        Ok(())
    }

    /// Gives every record the timestamp `now`, the broker's clock: sets the timestamp type to
    /// [`LogAppendTime`](crate::TimestampType::LogAppendTime) and the max timestamp to `now`.
    ///
    /// The CRC is corrected, not recomputed: the payload is not read, and a CRC that was wrong stays wrong.
    pub fn set_append_time(&mut self, now: Timestamp) {
        let attributes = self.header.attributes().0 | Attributes::LOG_APPEND_TIME;
        self.set_timestamp(Attributes(attributes), now);
    }

    /// Writes the max timestamp that the records really have, and sets the timestamp type to
    /// [`CreateTime`](crate::TimestampType::CreateTime). The CRC is corrected as by
    /// [`set_append_time`](Self::set_append_time).
    pub fn set_max_timestamp(&mut self, max_timestamp: Timestamp) {
        let attributes = self.header.attributes().0 & !Attributes::LOG_APPEND_TIME;
        self.set_timestamp(Attributes(attributes), max_timestamp);
    }

    fn set_timestamp(&mut self, attributes: Attributes, max_timestamp: Timestamp) {
        let old_head = self.patched_head();
        self.put(ATTRIBUTES_AT, attributes.0.to_be_bytes());
        self.put(MAX_TIMESTAMP_AT, max_timestamp.0.to_be_bytes());
        let tail_len = (self.header.size() - PATCH_END) as u32;
        let crc = crc::replace_head(self.header.crc(), &old_head, &self.patched_head(), tail_len);
        self.put(CRC_AT, crc.to_be_bytes());
        self.header.set_timestamp(attributes, max_timestamp, crc);
    }

    fn patched_head(&self) -> [u8; PATCH_END - ATTRIBUTES_AT] {
        std::array::from_fn(|i| self.bytes[ATTRIBUTES_AT + i])
    }

    /// Overwrites a field of the header, which `parse` has found to be there.
    fn put<const N: usize>(&mut self, at: usize, field: [u8; N]) {
        self.bytes[at..at + N].copy_from_slice(&field);
    }
}
