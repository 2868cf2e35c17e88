//! Writing batches.

use klamm_types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Timestamp};

use crate::compress::{CompressError, Compressor};
use crate::compression::{Codec, Compression};
use crate::header::{
    ATTRIBUTES_AT, Attributes, BASE_SEQUENCE_AT, BASE_TIMESTAMP_AT, CRC_AT, HEADER_LEN, LAST_OFFSET_DELTA_AT,
    LEADER_EPOCH_AT, LENGTH_AT, LOG_OVERHEAD, MAGIC, MAGIC_AT, MAX_TIMESTAMP_AT, PRODUCER_EPOCH_AT,
    PRODUCER_ID_AT, RECORD_COUNT_AT,
};
use crate::record::Record;
use crate::varint::{put_varlong, varlong_len};

/// The parts of a record to be written.
#[derive(Clone, Copy, Debug)]
pub struct NewRecord<'a> {
    /// Its timestamp; [`Timestamp::NONE`] is allowed.
    pub timestamp: Timestamp,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value.
    pub value: Option<&'a [u8]>,
    /// Its headers, in this order; readers expect the keys to be UTF-8.
    pub headers: &'a [(&'a [u8], Option<&'a [u8]>)],
}

impl<'a> NewRecord<'a> {
    /// A record without headers.
    #[must_use]
    pub fn new(timestamp: Timestamp, key: Option<&'a [u8]>, value: Option<&'a [u8]>) -> Self {
        Self { timestamp, key, value, headers: &[] }
    }
}

/// Why a batch cannot be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// The batch, its records, or a field would take more than 2^31 - 1 bytes.
    #[error("a record batch cannot have {size} bytes")]
    Size {
        /// The size asked for, in bytes.
        size: u64,
    },
    /// The offset is not past the one before it, or more than 2^31 - 1 past the base offset.
    #[error(
        "record at offset {offset} does not fit into a batch from {base_offset} that has come to {next_offset}"
    )]
    Offset {
        /// The record's offset.
        offset: Offset,
        /// The batch's base offset.
        base_offset: Offset,
        /// The least offset that would fit.
        next_offset: Offset,
    },
    /// The distance to the first record's timestamp passes the range of `i64`.
    #[error("timestamp {timestamp} is too far from the batch's first, {base_timestamp}")]
    Timestamp {
        /// The record's timestamp.
        timestamp: Timestamp,
        /// The first record's timestamp.
        base_timestamp: Timestamp,
    },
    /// The compressor failed.
    #[error(transparent)]
    Compress(#[from] CompressError),
}

/// Builds one batch.
///
/// The records are kept uncompressed until [`build`](Self::build), so that [`size`](Self::size) is exact for
/// uncompressed batches, and an estimate from above for compressible ones.
#[derive(Clone, Debug)]
pub struct BatchBuilder {
    compression: Compression,
    attributes: Attributes,
    base_offset: Offset,
    leader_epoch: LeaderEpoch,
    append_time: Option<Timestamp>,
    producer_id: ProducerId,
    producer_epoch: ProducerEpoch,
    base_sequence: i32,
    base_timestamp: Timestamp,
    max_timestamp: Timestamp,
    /// Distance from the base offset to the next record's.
    next_delta: i64,
    record_count: i32,
    /// The header's place, then the records.
    bytes: Vec<u8>,
}

impl BatchBuilder {
    /// An empty batch from offset 0, as a producer without idempotence would start it.
    #[must_use]
    pub fn new(compression: Compression) -> Self {
        Self {
            compression,
            attributes: Attributes::default().with_codec(compression.codec()),
            base_offset: Offset::ZERO,
            leader_epoch: LeaderEpoch::NONE,
            append_time: None,
            producer_id: ProducerId::NONE,
            producer_epoch: ProducerEpoch::NONE,
            base_sequence: -1,
            base_timestamp: Timestamp::NONE,
            max_timestamp: Timestamp::NONE,
            next_delta: 0,
            record_count: 0,
            bytes: vec![0; HEADER_LEN],
        }
    }

    /// Starts the batch at `base_offset`. Call it before the first record.
    #[must_use]
    pub fn base_offset(mut self, base_offset: Offset) -> Self {
        self.base_offset = base_offset;
        self
    }

    /// Notes the epoch of the leader that appends the batch.
    #[must_use]
    pub fn leader_epoch(mut self, leader_epoch: LeaderEpoch) -> Self {
        self.leader_epoch = leader_epoch;
        self
    }

    /// Gives all records the broker's timestamp `now`; their own are then not seen by readers.
    #[must_use]
    pub fn append_time(mut self, now: Timestamp) -> Self {
        self.append_time = Some(now);
        self.attributes.0 |= Attributes::LOG_APPEND_TIME;
        self
    }

    /// Marks the batch as an idempotent producer's; `base_sequence` is that of its first record.
    #[must_use]
    pub fn producer(mut self, id: ProducerId, epoch: ProducerEpoch, base_sequence: i32) -> Self {
        self.producer_id = id;
        self.producer_epoch = epoch;
        self.base_sequence = base_sequence;
        self
    }

    /// Marks the batch as part of the producer's transaction.
    #[must_use]
    pub fn transactional(mut self) -> Self {
        self.attributes.0 |= Attributes::TRANSACTIONAL;
        self
    }

    /// Marks the batch as a control batch: clients' libraries do not show its records to applications.
    #[must_use]
    pub fn control(mut self) -> Self {
        self.attributes.0 |= Attributes::CONTROL;
        self
    }

    /// How many records have been appended.
    #[must_use]
    pub fn record_count(&self) -> i32 {
        self.record_count
    }

    /// The batch's size in bytes so far, header included, uncompressed.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// What [`size`](Self::size) would be after appending `record` at the next offset; saturates.
    #[must_use]
    pub fn size_with(&self, record: &NewRecord<'_>) -> usize {
        let timestamp_delta = record.timestamp.millis_since(self.first_timestamp(record.timestamp));
        let headers = headers_size(record.headers);
        let body =
            body_size(record.key, record.value, timestamp_delta, self.next_delta).saturating_add(headers);
        self.bytes.len().saturating_add(varlong_len(body as i64)).saturating_add(body)
    }

    /// Appends `record` at the offset after the last one.
    ///
    /// # Errors
    /// [`BuildError`]; the batch is then unchanged.
    pub fn append(&mut self, record: &NewRecord<'_>) -> Result<(), BuildError> {
        let offset = self.base_offset.checked_plus(self.next_delta).unwrap_or(Offset(i64::MAX));
        self.append_at(offset, record)
    }

    /// Appends `record` at `offset`, which must be past the last one.
    ///
    /// # Errors
    /// [`BuildError`]; the batch is then unchanged.
    pub fn append_at(&mut self, offset: Offset, record: &NewRecord<'_>) -> Result<(), BuildError> {
        let mut headers = Vec::with_capacity(headers_size(record.headers));
        put_len(&mut headers, record.headers.len());
        for (key, value) in record.headers {
            put_bytes(&mut headers, key);
            put_nullable(&mut headers, *value);
        }
        self.append_encoded(offset, record.timestamp, record.key, record.value, &headers)
    }

    /// Appends a record read from another batch, at its own offset, which must be past the last one.
    ///
    /// # Errors
    /// [`BuildError`]; the batch is then unchanged.
    pub fn append_record(&mut self, record: &Record<'_>) -> Result<(), BuildError> {
        let mut headers = Vec::with_capacity(record.headers_encoded().len() + 5);
        put_len(&mut headers, record.header_count() as usize);
        headers.extend_from_slice(record.headers_encoded());
        self.append_encoded(record.offset, record.timestamp, record.key, record.value, &headers)
    }

    fn append_encoded(
        &mut self,
        offset: Offset,
        timestamp: Timestamp,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[u8],
    ) -> Result<(), BuildError> {
        let base_offset = self.base_offset;
        let offset_delta = offset.0.checked_sub(base_offset.0).filter(|delta| {
            *delta >= self.next_delta
                && *delta <= i64::from(i32::MAX)
                && offset.0 < i64::MAX
                && base_offset.0 >= 0
        });
        let Some(offset_delta) = offset_delta else {
            let next_offset = Offset(base_offset.0.saturating_add(self.next_delta));
            return Err(BuildError::Offset { offset, base_offset, next_offset });
        };
        let base_timestamp = self.first_timestamp(timestamp);
        let Some(timestamp_delta) = timestamp.0.checked_sub(base_timestamp.0) else {
            return Err(BuildError::Timestamp { timestamp, base_timestamp });
        };
        let body = body_size(key, value, timestamp_delta, offset_delta).saturating_add(headers.len());
        let size = self.bytes.len().saturating_add(varlong_len(body as i64)).saturating_add(body);
        if size > i32::MAX as usize {
            return Err(BuildError::Size { size: size as u64 });
        }
        self.bytes.reserve(size - self.bytes.len());
        put_len(&mut self.bytes, body);
        self.bytes.push(0);
        put_varlong(&mut self.bytes, timestamp_delta);
        put_varlong(&mut self.bytes, offset_delta);
        put_nullable(&mut self.bytes, key);
        put_nullable(&mut self.bytes, value);
        self.bytes.extend_from_slice(headers);
        debug_assert_eq!(self.bytes.len(), size, "the size of a record is known before it is written");
        self.max_timestamp =
            if self.record_count == 0 { timestamp } else { self.max_timestamp.max(timestamp) };
        self.base_timestamp = base_timestamp;
        self.next_delta = offset_delta + 1;
        self.record_count += 1;
        Ok(())
    }

    /// The timestamp that deltas count from, if a record with `timestamp` comes next.
    fn first_timestamp(&self, timestamp: Timestamp) -> Timestamp {
        if self.record_count == 0 { timestamp } else { self.base_timestamp }
    }

    /// Compresses the records and completes the header, CRC included.
    ///
    /// A batch without records is legal in a log, where compaction leaves such; it has the last offset delta 0. Brokers
    /// refuse it from clients.
    ///
    /// # Errors
    /// [`BuildError::Compress`], or [`BuildError::Size`] if compression made the batch too large.
    pub fn build(mut self) -> Result<Vec<u8>, BuildError> {
        if self.compression.codec() != Codec::None {
            let records = self.bytes.get(HEADER_LEN..).unwrap_or_default();
            let mut compressor = Compressor::new(self.compression, vec![0; HEADER_LEN])?;
            compressor.expect(records.len() as u64)?;
            compressor.write(records)?;
            self.bytes = compressor.finish()?;
        }
        let last_offset_delta = (self.next_delta - 1).max(0) as i32;
        let mut bytes = std::mem::take(&mut self.bytes);
        put(&mut bytes, 0, self.base_offset.0.to_be_bytes());
        put(&mut bytes, LEADER_EPOCH_AT, self.leader_epoch.0.to_be_bytes());
        put(&mut bytes, MAGIC_AT, MAGIC.to_be_bytes());
        put(&mut bytes, ATTRIBUTES_AT, self.attributes.0.to_be_bytes());
        put(&mut bytes, LAST_OFFSET_DELTA_AT, last_offset_delta.to_be_bytes());
        put(&mut bytes, BASE_TIMESTAMP_AT, self.base_timestamp.0.to_be_bytes());
        let max_timestamp = self.append_time.unwrap_or(self.max_timestamp);
        put(&mut bytes, MAX_TIMESTAMP_AT, max_timestamp.0.to_be_bytes());
        put(&mut bytes, PRODUCER_ID_AT, self.producer_id.0.to_be_bytes());
        put(&mut bytes, PRODUCER_EPOCH_AT, self.producer_epoch.0.to_be_bytes());
        put(&mut bytes, BASE_SEQUENCE_AT, self.base_sequence.to_be_bytes());
        put(&mut bytes, RECORD_COUNT_AT, self.record_count.to_be_bytes());
        seal(&mut bytes)?;
        Ok(bytes)
    }
}

/// Writes length and CRC of a batch that is otherwise complete.
pub(crate) fn seal(bytes: &mut [u8]) -> Result<(), BuildError> {
    let Ok(length) = i32::try_from(bytes.len() - LOG_OVERHEAD) else {
        return Err(BuildError::Size { size: bytes.len() as u64 });
    };
    put(bytes, LENGTH_AT, length.to_be_bytes());
    let crc = crc32c::crc32c(bytes.get(ATTRIBUTES_AT..).unwrap_or_default());
    put(bytes, CRC_AT, crc.to_be_bytes());
    Ok(())
}

/// Overwrites a field of a header, which must be there.
pub(crate) fn put<const N: usize>(bytes: &mut [u8], at: usize, field: [u8; N]) {
    bytes[at..at + N].copy_from_slice(&field);
}

fn put_len(output: &mut Vec<u8>, len: usize) {
    put_varlong(output, len as i64);
}

fn put_bytes(output: &mut Vec<u8>, bytes: &[u8]) {
    put_len(output, bytes.len());
    output.extend_from_slice(bytes);
}

fn put_nullable(output: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => put_bytes(output, bytes),
        None => put_varlong(output, -1),
    }
}

fn nullable_size(bytes: Option<&[u8]>) -> usize {
    bytes.map_or(1, |bytes| varlong_len(bytes.len() as i64).saturating_add(bytes.len()))
}

/// The size of the encoded headers with their count.
fn headers_size(headers: &[(&[u8], Option<&[u8]>)]) -> usize {
    headers.iter().fold(varlong_len(headers.len() as i64), |size, (key, value)| {
        size.saturating_add(nullable_size(Some(key))).saturating_add(nullable_size(*value))
    })
}

/// The size of a record without its length field and its headers.
fn body_size(key: Option<&[u8]>, value: Option<&[u8]>, timestamp_delta: i64, offset_delta: i64) -> usize {
    let deltas = 1 + varlong_len(timestamp_delta) + varlong_len(offset_delta);
    deltas.saturating_add(nullable_size(key)).saturating_add(nullable_size(value))
}
