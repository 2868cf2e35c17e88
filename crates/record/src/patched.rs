//! What a leader changes of a batch before it appends it. All of it is in the header.

use klamm_types::{LeaderEpoch, Offset, Timestamp};

use crate::batch::RecordBatch;
use crate::crc;
use crate::error::BatchError;
use crate::header::{
    ATTRIBUTES_AT, Attributes, BatchHeader, CRC_AT, HEADER_LEN, LEADER_EPOCH_AT, MAX_TIMESTAMP_AT,
};

/// Where the part of the CRC's range ends that a leader rewrites: attributes to max timestamp.
const PATCH_END: usize = MAX_TIMESTAMP_AT + 8;

/// A copy of a batch's header, changed. It takes the place of the first [`HEADER_LEN`] bytes of the batch; the rest stays
/// as it is, and where it is.
#[derive(Clone, Copy, Debug)]
pub struct PatchedHeader {
    header: BatchHeader,
    bytes: [u8; HEADER_LEN],
}

impl PatchedHeader {
    /// The header of `batch`, not changed yet.
    #[must_use]
    pub fn of(batch: &RecordBatch<'_>) -> Self {
        let bytes = batch.bytes();
        // A batch has all of its header.
        let bytes = std::array::from_fn(|i| bytes.get(i).copied().unwrap_or_default());
        Self { header: *batch.header(), bytes }
    }

    /// The header as patched so far.
    #[must_use]
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// What to write instead of the batch's own header.
    #[must_use]
    pub fn bytes(&self) -> &[u8; HEADER_LEN] {
        &self.bytes
    }

    /// Writes base offset and leader epoch. Neither is covered by the CRC.
    ///
    /// # Errors
    /// [`BatchError::OffsetRange`] if the offset after the batch would pass 2^63 - 1, or `base_offset` is negative;
    /// nothing is changed then.
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

    fn put<const N: usize>(&mut self, at: usize, field: [u8; N]) {
        self.bytes[at..at + N].copy_from_slice(&field);
    }
}
