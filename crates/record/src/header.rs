//! The 61 bytes in front of the records.

use klamm_types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Timestamp};

use crate::error::BatchError;

/// Length in bytes of the header of a batch, the [`LOG_OVERHEAD`] included.
pub const HEADER_LEN: usize = 61;

/// Length in bytes of base offset and length, which the length field does not count.
pub const LOG_OVERHEAD: usize = 12;

/// The only magic byte this crate reads and writes.
pub(crate) const MAGIC: i8 = 2;
/// Where the magic byte lies; also in the older formats.
pub(crate) const MAGIC_AT: usize = 16;
/// The smallest legal value of the length field.
pub(crate) const LENGTH_MIN: i32 = (HEADER_LEN - LOG_OVERHEAD) as i32;

pub(crate) const LENGTH_AT: usize = 8;
pub(crate) const LEADER_EPOCH_AT: usize = 12;
pub(crate) const CRC_AT: usize = 17;
pub(crate) const ATTRIBUTES_AT: usize = 21;
pub(crate) const LAST_OFFSET_DELTA_AT: usize = 23;
pub(crate) const BASE_TIMESTAMP_AT: usize = 27;
pub(crate) const MAX_TIMESTAMP_AT: usize = 35;
pub(crate) const PRODUCER_ID_AT: usize = 43;
pub(crate) const PRODUCER_EPOCH_AT: usize = 51;
pub(crate) const BASE_SEQUENCE_AT: usize = 53;
pub(crate) const RECORD_COUNT_AT: usize = 57;

/// Which clock the timestamps of a batch come from (KIP-32).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TimestampType {
    /// The producer's: each record has its own timestamp.
    CreateTime,
    /// The broker's at the moment of the append: every record has the batch's max timestamp.
    LogAppendTime,
}

/// The attribute bits of a batch.
///
/// ```text
///   0..=2 codec   3 timestamp type   4 transactional   5 control   6 delete horizon   7..=15 unused
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Attributes(pub i16);

impl Attributes {
    pub(crate) const CODEC_MASK: i16 = 0x07;
    pub(crate) const LOG_APPEND_TIME: i16 = 0x08;
    pub(crate) const TRANSACTIONAL: i16 = 0x10;
    pub(crate) const CONTROL: i16 = 0x20;
    pub(crate) const DELETE_HORIZON: i16 = 0x40;
    pub(crate) const UNUSED_MASK: i16 = !0x7f;

    /// Which clock the timestamps come from.
    #[must_use]
    pub fn timestamp_type(self) -> TimestampType {
        if self.0 & Self::LOG_APPEND_TIME == 0 {
            TimestampType::CreateTime
        } else {
            TimestampType::LogAppendTime
        }
    }

    /// Whether the batch belongs to a transaction (KIP-98); its end is told by a control batch of the same producer.
    #[must_use]
    pub fn is_transactional(self) -> bool {
        self.0 & Self::TRANSACTIONAL != 0
    }

    /// Whether the batch carries marks for the broker and the clients' libraries instead of data.
    #[must_use]
    pub fn is_control(self) -> bool {
        self.0 & Self::CONTROL != 0
    }

    /// Whether the base timestamp says until when the cleaner must keep tombstones and markers (KIP-534).
    #[must_use]
    pub fn has_delete_horizon(self) -> bool {
        self.0 & Self::DELETE_HORIZON != 0
    }
}

/// The decoded header of one batch.
///
/// **Invariants**, checked by [`parse`](Self::parse): `0 <= base_offset <= last_offset < next_offset`, all within
/// `i64`; the batch is at least [`HEADER_LEN`] bytes long. Nothing else is checked: not the CRC, not the record
/// count, not that the rest of the batch is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    base_offset: Offset,
    length: i32,
    leader_epoch: LeaderEpoch,
    crc: u32,
    attributes: Attributes,
    last_offset_delta: i32,
    base_timestamp: Timestamp,
    max_timestamp: Timestamp,
    producer_id: ProducerId,
    producer_epoch: ProducerEpoch,
    base_sequence: i32,
    record_count: i32,
}

/// The `N` bytes of a header from `at`.
fn field<const N: usize>(header: &[u8; HEADER_LEN], at: usize) -> [u8; N] {
    std::array::from_fn(|i| header[at + i])
}

impl BatchHeader {
    /// Decodes the header at the start of `bytes`.
    ///
    /// # Errors
    /// - [`BatchError::Truncated`] with fewer than [`HEADER_LEN`] bytes, unless the magic byte is there and foreign;
    /// - [`BatchError::Magic`] unless the magic byte is 2;
    /// - [`BatchError::Length`] if the length field is below 49, and so negative or too short for a header;
    /// - [`BatchError::OffsetRange`] if the base offset or the last offset delta is negative, or the offset after the
    ///   last one passes 2^63 - 1.
    pub fn parse(bytes: &[u8]) -> Result<Self, BatchError> {
        if let Some(&magic) = bytes.get(MAGIC_AT)
            && magic.cast_signed() != MAGIC
        {
            return Err(BatchError::Magic { magic: magic.cast_signed() });
        }
        let Some(header) = bytes.first_chunk::<HEADER_LEN>() else {
            return Err(BatchError::Truncated { have: bytes.len(), need: HEADER_LEN });
        };
        let length = i32::from_be_bytes(field(header, LENGTH_AT));
        if length < LENGTH_MIN {
            return Err(BatchError::Length { length });
        }
        let decoded = Self {
            base_offset: Offset(i64::from_be_bytes(field(header, 0))),
            length,
            leader_epoch: LeaderEpoch(i32::from_be_bytes(field(header, LEADER_EPOCH_AT))),
            crc: u32::from_be_bytes(field(header, CRC_AT)),
            attributes: Attributes(i16::from_be_bytes(field(header, ATTRIBUTES_AT))),
            last_offset_delta: i32::from_be_bytes(field(header, LAST_OFFSET_DELTA_AT)),
            base_timestamp: Timestamp(i64::from_be_bytes(field(header, BASE_TIMESTAMP_AT))),
            max_timestamp: Timestamp(i64::from_be_bytes(field(header, MAX_TIMESTAMP_AT))),
            producer_id: ProducerId(i64::from_be_bytes(field(header, PRODUCER_ID_AT))),
            producer_epoch: ProducerEpoch(i16::from_be_bytes(field(header, PRODUCER_EPOCH_AT))),
            base_sequence: i32::from_be_bytes(field(header, BASE_SEQUENCE_AT)),
            record_count: i32::from_be_bytes(field(header, RECORD_COUNT_AT)),
        };
        check_offset_range(decoded.base_offset, decoded.last_offset_delta)?;
        Ok(decoded)
    }

    /// Length in bytes of the whole batch, the [`LOG_OVERHEAD`] included; at least [`HEADER_LEN`].
    #[must_use]
    pub fn size(&self) -> usize {
        LOG_OVERHEAD + self.length as usize
    }

    /// The offset of the first record the batch was written with. Compaction may have removed that record.
    #[must_use]
    pub fn base_offset(&self) -> Offset {
        self.base_offset
    }

    /// The offset of the last record the batch was written with. Compaction may have removed that record.
    #[must_use]
    pub fn last_offset(&self) -> Offset {
        Offset(self.base_offset.0 + i64::from(self.last_offset_delta))
    }

    /// The offset that follows the batch.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        Offset(self.last_offset().0 + 1)
    }

    /// The distance from base offset to last offset; at least 0.
    #[must_use]
    pub fn last_offset_delta(&self) -> i32 {
        self.last_offset_delta
    }

    /// The epoch of the leader that appended the batch; -1 as a producer sends it.
    #[must_use]
    pub fn leader_epoch(&self) -> LeaderEpoch {
        self.leader_epoch
    }

    /// The stored CRC-32C; see [`RecordBatch::verify_crc`](crate::RecordBatch::verify_crc).
    #[must_use]
    pub fn crc(&self) -> u32 {
        self.crc
    }

    /// The attribute bits.
    #[must_use]
    pub fn attributes(&self) -> Attributes {
        self.attributes
    }

    /// What the timestamp deltas of the records count from; the delete horizon if that attribute bit is set.
    #[must_use]
    pub fn base_timestamp(&self) -> Timestamp {
        self.base_timestamp
    }

    /// The largest timestamp of the records, as the writer claims.
    #[must_use]
    pub fn max_timestamp(&self) -> Timestamp {
        self.max_timestamp
    }

    /// The producer's id, or -1 if it is not idempotent.
    #[must_use]
    pub fn producer_id(&self) -> ProducerId {
        self.producer_id
    }

    /// The producer's epoch, or -1 if it is not idempotent.
    #[must_use]
    pub fn producer_epoch(&self) -> ProducerEpoch {
        self.producer_epoch
    }

    /// The sequence number of the first record; -1 for none, as in control batches.
    #[must_use]
    pub fn base_sequence(&self) -> i32 {
        self.base_sequence
    }

    /// The sequence number of the last record, or -1 if the batch has none. After 2^31 - 1 comes 0.
    #[must_use]
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence < 0 {
            return -1;
        }
        let last = i64::from(self.base_sequence) + i64::from(self.last_offset_delta);
        (last & i64::from(i32::MAX)) as i32
    }

    /// How many records the batch claims to hold. Unchecked: may be negative, or more than the payload has.
    #[must_use]
    pub fn record_count(&self) -> i32 {
        self.record_count
    }

    /// Whether an idempotent producer wrote the batch.
    #[must_use]
    pub fn has_producer_id(&self) -> bool {
        self.producer_id.0 >= 0
    }

    pub(crate) fn set_base_offset(&mut self, base_offset: Offset) -> Result<(), BatchError> {
        check_offset_range(base_offset, self.last_offset_delta)?;
        self.base_offset = base_offset;
        Ok(())
    }

    pub(crate) fn set_leader_epoch(&mut self, leader_epoch: LeaderEpoch) {
        self.leader_epoch = leader_epoch;
    }

    pub(crate) fn set_timestamp(&mut self, attributes: Attributes, max_timestamp: Timestamp, crc: u32) {
        self.attributes = attributes;
        self.max_timestamp = max_timestamp;
        self.crc = crc;
    }
}

fn check_offset_range(base_offset: Offset, last_offset_delta: i32) -> Result<(), BatchError> {
    let next = i64::from(last_offset_delta) + 1;
    if base_offset.0 < 0 || last_offset_delta < 0 || base_offset.checked_plus(next).is_none() {
        return Err(BatchError::OffsetRange { base_offset, last_offset_delta });
    }
    Ok(())
}
