//! Everything a broker checks before it appends what a client sent.

use klamm_types::{Offset, ProducerEpoch, ProducerId, Timestamp};

use crate::batch::RecordBatch;
use crate::compression::Codec;
use crate::decompress::{CodecError, CodecMemory, Decompressor};
use crate::error::{BatchError, RecordError};
use crate::header::{Attributes, BatchHeader, MAGIC_AT, TimestampType};
use crate::scan::{self, Shape, Source, Stream};

/// Who wrote a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// A producer.
    Client,
    /// A coordinator of this cluster: it alone may write control batches.
    Coordinator,
}

/// What the topic and the moment demand of a batch.
#[derive(Clone, Copy, Debug)]
pub struct ValidationOptions {
    /// Who wrote the batch.
    pub origin: Origin,
    /// Whether every record needs a key: the topic is compacted.
    pub key_required: bool,
    /// The topic's `message.timestamp.type`. With [`TimestampType::LogAppendTime`] the records' own timestamps are not
    /// looked at.
    pub timestamp_type: TimestampType,
    /// The broker's clock.
    pub now: Timestamp,
    /// How many milliseconds a record may be older than `now` (`message.timestamp.before.max.ms`, KIP-937).
    pub timestamp_before_max_ms: i64,
    /// How many milliseconds a record may be newer than `now` (`message.timestamp.after.max.ms`, KIP-937).
    pub timestamp_after_max_ms: i64,
    /// The most bytes that compressed records may become.
    pub decompressed_bytes_max: u64,
}

/// What [`validate`] has found out about a good batch.
#[derive(Clone, Copy, Debug)]
pub struct Validated<'a> {
    /// The batch.
    pub batch: RecordBatch<'a>,
    /// How many records it has; at least 1.
    pub record_count: i32,
    /// The timestamp to index it by: the largest of its records, or `now` if the topic keeps append times. The field in
    /// the header is the writer's claim and may differ; see [`RecordBatchMut`](crate::RecordBatchMut).
    pub max_timestamp: Timestamp,
    /// The offset delta of the first record with that timestamp; 0 if the topic keeps append times.
    pub max_timestamp_offset_delta: i32,
    /// The size of its records in bytes, decompressed.
    pub decompressed_bytes: u64,
}

/// How a producer must be told: each is one Kafka error code of that name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// `CORRUPT_MESSAGE` (2): the bytes suffered on their way, or never were a batch. Clients send them again.
    CorruptMessage,
    /// `INVALID_TIMESTAMP` (32).
    InvalidTimestamp,
    /// `UNSUPPORTED_FOR_MESSAGE_FORMAT` (43).
    UnsupportedForMessageFormat,
    /// `UNSUPPORTED_COMPRESSION_TYPE` (76).
    UnsupportedCompressionType,
    /// `INVALID_RECORD` (87).
    InvalidRecord,
}

/// Why a batch is refused. The first fault found is told; a batch is refused as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValidationError {
    /// There is no batch: the records are null or empty. `INVALID_RECORD`.
    #[error("there is no record batch")]
    Empty,
    /// More follows the batch. `INVALID_RECORD`.
    #[error("record batch is followed by {count} bytes")]
    SecondBatch {
        /// How many bytes follow.
        count: usize,
    },
    /// The batch cannot be read.
    ///
    /// `CORRUPT_MESSAGE` for [`Truncated`](BatchError::Truncated), [`Length`](BatchError::Length),
    /// [`Crc`](BatchError::Crc) and [`Codec`](BatchError::Codec); `UNSUPPORTED_FOR_MESSAGE_FORMAT` for
    /// [`Magic`](BatchError::Magic) 0 and 1; `UNSUPPORTED_COMPRESSION_TYPE` for
    /// [`UnknownCodec`](BatchError::UnknownCodec); `INVALID_TIMESTAMP` for a timestamp delta that leads out of range;
    /// `INVALID_RECORD` for all others.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// The compressed records are a batch again, as they were in the formats before magic 2. `CORRUPT_MESSAGE`.
    #[error("the compressed records are a record batch themselves")]
    NestedBatch,
    /// A producer's batch does not start at offset 0. `INVALID_RECORD`.
    #[error("record batch has base offset {base_offset}, not 0")]
    BaseOffset {
        /// The base offset field.
        base_offset: Offset,
    },
    /// The record count is not positive, or not the number of offsets. `INVALID_RECORD`.
    #[error("record batch has record count {record_count} and last offset delta {last_offset_delta}")]
    RecordCount {
        /// The record count field.
        record_count: i32,
        /// The last offset delta field.
        last_offset_delta: i32,
    },
    /// A client wrote a control batch. `INVALID_RECORD`.
    #[error("clients cannot write control batches")]
    ControlBatch,
    /// A client set the delete horizon or an unused bit. `INVALID_RECORD`.
    #[error("record batch has attributes {attributes:#06x} with bits that a client cannot set")]
    ReservedAttributes {
        /// The attributes field.
        attributes: i16,
    },
    /// A client set the timestamp type that only brokers set. `INVALID_TIMESTAMP`.
    #[error("producers cannot set the timestamp type to LogAppendTime")]
    AppendTimeFromClient,
    /// The producer fields do not go together: an id without epoch or sequence, or a transaction without id.
    /// `INVALID_RECORD`.
    #[error("producer {producer_id} has epoch {producer_epoch} and sequence {base_sequence}")]
    Producer {
        /// The producer id field.
        producer_id: ProducerId,
        /// The producer epoch field.
        producer_epoch: ProducerEpoch,
        /// The base sequence field.
        base_sequence: i32,
    },
    /// A record's offset delta is not its position. `INVALID_RECORD`.
    #[error("record {index} of the batch has offset delta {offset_delta}")]
    OffsetDelta {
        /// The record's position, from 0.
        index: u32,
        /// Its offset delta field.
        offset_delta: i32,
    },
    /// A record has no key, but the topic is compacted. `INVALID_RECORD`.
    #[error("record {index} of the batch has no key, but the topic is compacted")]
    KeyRequired {
        /// The record's position, from 0.
        index: u32,
    },
    /// A record's timestamp is negative, or too far from the broker's clock. `INVALID_TIMESTAMP`.
    #[error("record {index} of the batch has timestamp {timestamp}, out of bounds")]
    Timestamp {
        /// The record's position, from 0.
        index: u32,
        /// Its timestamp.
        timestamp: Timestamp,
    },
}

impl ValidationError {
    /// How the producer must be told.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::Batch(error) => batch_refusal(error),
            Self::NestedBatch => Refusal::CorruptMessage,
            Self::AppendTimeFromClient | Self::Timestamp { .. } => Refusal::InvalidTimestamp,
            Self::Empty
            | Self::SecondBatch { .. }
            | Self::BaseOffset { .. }
            | Self::RecordCount { .. }
            | Self::ControlBatch
            | Self::ReservedAttributes { .. }
            | Self::Producer { .. }
            | Self::OffsetDelta { .. }
            | Self::KeyRequired { .. } => Refusal::InvalidRecord,
        }
    }

    /// The position of the record at fault, if it is one record's.
    #[must_use]
    pub fn record_index(&self) -> Option<u32> {
        match self {
            Self::Batch(BatchError::Record { index, .. })
            | Self::OffsetDelta { index, .. }
            | Self::KeyRequired { index }
            | Self::Timestamp { index, .. } => Some(*index),
            _ => None,
        }
    }

    /// Whether sending the records again may help: their bytes may have suffered on the way.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.refusal() == Refusal::CorruptMessage
    }
}

fn batch_refusal(error: &BatchError) -> Refusal {
    match error {
        BatchError::Truncated { .. }
        | BatchError::Length { .. }
        | BatchError::Crc { .. }
        | BatchError::Codec(
            CodecError::Corrupt { .. }
            | CodecError::Truncated { .. }
            | CodecError::Trailing { .. }
            | CodecError::OutputLimit { .. },
        ) => Refusal::CorruptMessage,
        BatchError::Magic { magic: 0 | 1 } => Refusal::UnsupportedForMessageFormat,
        BatchError::UnknownCodec { .. } => Refusal::UnsupportedCompressionType,
        BatchError::Record { error: RecordError::TimestampDelta { .. }, .. } => Refusal::InvalidTimestamp,
        BatchError::Magic { .. }
        | BatchError::OffsetRange { .. }
        | BatchError::RecordCount { .. }
        | BatchError::Surplus { .. }
        | BatchError::Record { .. } => Refusal::InvalidRecord,
    }
}

/// Checks the records that a produce request holds for one partition: exactly one batch, to be appended as it is.
///
/// The rules are those of Kafka's brokers for magic 2, and stricter where those let pass what no client sends: unused
/// attribute bits, lengths below -1, timestamps below -1, unordered offset deltas in uncompressed batches, bytes after
/// the end of the compressed data. The header's max timestamp is not compared: the log replaces it.
///
/// Uncompressed records are walked where they lie. Compressed ones are decompressed piece by piece and never held as a
/// whole; keys and values are passed over. Memory is that of the [`Decompressor`], whatever the batch claims.
///
/// # Errors
/// [`ValidationError`], with the first fault in the order: framing, CRC, header, records.
pub fn validate<'a>(
    records: &'a [u8],
    options: &ValidationOptions,
) -> Result<Validated<'a>, ValidationError> {
    validate_with(records, options, &mut CodecMemory::default())
}

/// Like [`validate`], with memory that it leaves to the next call: worth it for small zstd and LZ4 batches.
///
/// # Errors
/// As [`validate`].
pub fn validate_with<'a>(
    records: &'a [u8],
    options: &ValidationOptions,
    memory: &mut CodecMemory,
) -> Result<Validated<'a>, ValidationError> {
    if records.is_empty() {
        return Err(ValidationError::Empty);
    }
    let batch = RecordBatch::parse(records)?;
    if batch.size() < records.len() {
        return Err(ValidationError::SecondBatch { count: records.len() - batch.size() });
    }
    batch.verify_crc()?;
    let codec = batch.attributes().compression()?;
    check_header(&batch, options.origin)?;
    let (walk, decompressed_bytes) = walk_records(&batch, codec, options, memory)?;
    let (max_timestamp, max_timestamp_offset_delta) = match options.timestamp_type {
        TimestampType::CreateTime => (walk.max_timestamp, walk.max_timestamp_offset_delta),
        TimestampType::LogAppendTime => (options.now, 0),
    };
    let record_count = batch.record_count();
    Ok(Validated { batch, record_count, max_timestamp, max_timestamp_offset_delta, decompressed_bytes })
}

/// Checks what the header says by itself.
fn check_header(header: &BatchHeader, origin: Origin) -> Result<(), ValidationError> {
    if header.base_offset() != Offset::ZERO {
        return Err(ValidationError::BaseOffset { base_offset: header.base_offset() });
    }
    let (record_count, last_offset_delta) = (header.record_count(), header.last_offset_delta());
    if record_count <= 0 || record_count - 1 != last_offset_delta {
        return Err(ValidationError::RecordCount { record_count, last_offset_delta });
    }
    let attributes = header.attributes();
    if attributes.0 & (Attributes::UNUSED_MASK | Attributes::DELETE_HORIZON) != 0 {
        return Err(ValidationError::ReservedAttributes { attributes: attributes.0 });
    }
    if attributes.timestamp_type() == TimestampType::LogAppendTime {
        return Err(ValidationError::AppendTimeFromClient);
    }
    if origin == Origin::Client && attributes.is_control() {
        return Err(ValidationError::ControlBatch);
    }
    check_producer(header)
}

/// Control batches have no sequence; everything else of an idempotent producer has one.
fn check_producer(header: &BatchHeader) -> Result<(), ValidationError> {
    let epoch_known = header.producer_epoch().0 >= 0;
    let sequence_known = header.base_sequence() >= 0;
    let legal = if header.has_producer_id() {
        epoch_known && sequence_known != header.attributes().is_control()
    } else {
        !header.attributes().is_transactional()
    };
    if legal {
        return Ok(());
    }
    Err(ValidationError::Producer {
        producer_id: header.producer_id(),
        producer_epoch: header.producer_epoch(),
        base_sequence: header.base_sequence(),
    })
}

/// Walks over all records; returns also their size in bytes.
fn walk_records(
    batch: &RecordBatch<'_>,
    codec: Codec,
    options: &ValidationOptions,
    memory: &mut CodecMemory,
) -> Result<(Walk, u64), ValidationError> {
    let payload = batch.payload();
    if codec == Codec::None {
        let mut records = payload;
        return Ok((Walk::over(&mut records, batch, options)?, payload.len() as u64));
    }
    let memory_taken = std::mem::take(memory);
    let decompressor =
        Decompressor::with_memory(codec, payload, options.decompressed_bytes_max, memory_taken)
            .map_err(BatchError::from)?;
    let mut records = Stream::new(decompressor);
    let walk = walk_stream(&mut records, batch, options);
    let decompressed_bytes = records.produced();
    *memory = records.into_memory();
    Ok((walk?, decompressed_bytes))
}

fn walk_stream(
    records: &mut Stream<'_>,
    batch: &RecordBatch<'_>,
    options: &ValidationOptions,
) -> Result<Walk, ValidationError> {
    records.refill().map_err(|fault| BatchError::at(0, fault))?;
    if starts_with_batch(records.at_hand()) {
        return Err(ValidationError::NestedBatch);
    }
    Walk::over(records, batch, options)
}

/// No record starts with a zero: that would be its length.
fn starts_with_batch(records: &[u8]) -> bool {
    records.first() == Some(&0) && records.get(MAGIC_AT).is_some_and(|magic| *magic <= 2)
}

/// What the records must be like, and what is known of those walked over so far.
struct Walk {
    key_required: bool,
    base_timestamp: Timestamp,
    /// The oldest and the newest timestamp allowed; `None` if the records' own do not matter.
    bounds: Option<(Timestamp, Timestamp)>,
    max_timestamp: Timestamp,
    max_timestamp_offset_delta: i32,
}

impl Walk {
    fn over<S: Source>(
        records: &mut S,
        header: &BatchHeader,
        options: &ValidationOptions,
    ) -> Result<Self, ValidationError> {
        let mut walk = Self::new(header, options);
        let count = header.record_count();
        for index in 0..count {
            match scan::next(records) {
                Ok(shape) => walk.check(index, &shape)?,
                Err(fault) => return Err(BatchError::at(index.cast_unsigned(), fault).into()),
            }
        }
        let more = !records.at_hand().is_empty()
            || records.refill().map_err(|fault| BatchError::at(count.cast_unsigned(), fault))?;
        if more { Err(BatchError::Surplus { count }.into()) } else { Ok(walk) }
    }

    fn new(header: &BatchHeader, options: &ValidationOptions) -> Self {
        let oldest = options.now.0.saturating_sub(options.timestamp_before_max_ms).max(0);
        let newest = options.now.0.saturating_add(options.timestamp_after_max_ms);
        let own_time = options.timestamp_type == TimestampType::CreateTime;
        Self {
            key_required: options.key_required,
            base_timestamp: header.base_timestamp(),
            bounds: own_time.then_some((Timestamp(oldest), Timestamp(newest))),
            max_timestamp: Timestamp(i64::MIN),
            max_timestamp_offset_delta: 0,
        }
    }

    #[inline]
    fn check(&mut self, position: i32, shape: &Shape) -> Result<(), ValidationError> {
        let index = position.cast_unsigned();
        if shape.offset_delta != position {
            return Err(ValidationError::OffsetDelta { index, offset_delta: shape.offset_delta });
        }
        if self.key_required && !shape.has_key {
            return Err(ValidationError::KeyRequired { index });
        }
        let Some((oldest, newest)) = self.bounds else { return Ok(()) };
        let timestamp_delta = shape.timestamp_delta;
        let Some(timestamp) = self.base_timestamp.0.checked_add(timestamp_delta).map(Timestamp) else {
            let error = RecordError::TimestampDelta { timestamp_delta };
            return Err(BatchError::Record { index, error }.into());
        };
        if !(oldest..=newest).contains(&timestamp) && timestamp != Timestamp::NONE {
            return Err(ValidationError::Timestamp { index, timestamp });
        }
        if timestamp > self.max_timestamp {
            self.max_timestamp = timestamp;
            self.max_timestamp_offset_delta = position;
        }
        Ok(())
    }
}
