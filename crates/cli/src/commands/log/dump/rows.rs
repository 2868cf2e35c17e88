//! What a dump shows, one row at a time. The field names are those of the JSON, and stable.

use klamm_log::ProducerEntry;
use klamm_log::inspect::FoundBatch;
use klamm_record::{BatchError, ControlRecord, Record, RecordBatch, TimestampType, TransactionResult};
use klamm_types::ProducerId;
use serde::Serialize;

use crate::output::bytes::Bytes;

/// One row of a dump.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Row<'a> {
    /// A batch of a segment.
    Batch(BatchRow),
    /// A record of the batch before it.
    Record(RecordRow<'a>),
    /// Bytes that are no batch, or a batch whose records do not read.
    Damage { position: u64, size: u64, reason: String },
    /// An entry of an offset index: the batch that ends at `offset` starts at `target`.
    OffsetEntry { position: u64, offset: i64, target: u32 },
    /// An entry of a time index.
    TimeEntry { position: u64, timestamp_ms: i64, offset: i64 },
    /// An entry of a transaction index.
    TxnEntry { position: u64, producer_id: i64, first_offset: i64, last_offset: i64, last_stable_offset: i64 },
    /// Bytes of an index that cannot be an entry.
    InvalidEntry { position: u64 },
    /// An entry of a producer snapshot.
    Producer(ProducerRow),
    /// An entry of a leader epoch checkpoint.
    LeaderEpoch { epoch: i32, start_offset: i64 },
    /// A topic's id.
    TopicId { topic_id: String },
    /// An entry of a checkpoint with an offset per partition.
    PartitionOffset { topic: &'a str, partition: i32, offset: i64 },
    /// The identity of a log directory.
    MetaProperties {
        cluster_id: &'a str,
        node_id: i32,
        directory_id: String,
        /// Left out in a directory of Kafka's.
        #[serde(skip_serializing_if = "Option::is_none")]
        quorum_id: Option<String>,
    },
    /// The mark of an orderly shutdown.
    CleanShutdown { broker_epoch: i64 },
}

/// A batch.
#[derive(Debug, Serialize)]
pub(crate) struct BatchRow {
    pub(crate) position: u64,
    pub(crate) size: u64,
    pub(crate) base_offset: i64,
    pub(crate) last_offset: i64,
    pub(crate) record_count: i32,
    pub(crate) leader_epoch: i32,
    /// `none`, `gzip`, ...; null if the number is of no codec.
    pub(crate) codec: Option<&'static str>,
    pub(crate) timestamp_type: &'static str,
    pub(crate) base_timestamp_ms: i64,
    pub(crate) max_timestamp_ms: i64,
    pub(crate) producer_id: i64,
    pub(crate) producer_epoch: i16,
    pub(crate) base_sequence: i32,
    pub(crate) last_sequence: i32,
    pub(crate) transactional: bool,
    pub(crate) control: bool,
    /// The base timestamp says until when tombstones are kept.
    pub(crate) delete_horizon: bool,
    pub(crate) crc: u32,
    pub(crate) crc_ok: bool,
}

/// A record.
#[derive(Debug, Serialize)]
pub(crate) struct RecordRow<'a> {
    pub(crate) offset: i64,
    pub(crate) timestamp_ms: i64,
    #[serde(flatten, serialize_with = "Bytes::as_key")]
    pub(crate) key: Bytes<'a>,
    #[serde(flatten, serialize_with = "Bytes::as_value")]
    pub(crate) value: Bytes<'a>,
    pub(crate) headers: Vec<HeaderRow<'a>>,
    /// What a record of a control batch says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) control: Option<ControlRow>,
}

/// A header of a record.
#[derive(Debug, Serialize)]
pub(crate) struct HeaderRow<'a> {
    #[serde(flatten, serialize_with = "Bytes::as_key")]
    pub(crate) key: Bytes<'a>,
    #[serde(flatten, serialize_with = "Bytes::as_value")]
    pub(crate) value: Bytes<'a>,
}

/// A control record.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum ControlRow {
    Commit { coordinator_epoch: i32 },
    Abort { coordinator_epoch: i32 },
    LeaderChange,
    SnapshotHeader,
    SnapshotFooter,
    KraftVersion,
    KraftVoters,
    Unknown { number: i16 },
    Invalid { reason: String },
}

/// A producer of a snapshot.
#[derive(Debug, Serialize)]
pub(crate) struct ProducerRow {
    pub(crate) producer_id: i64,
    pub(crate) producer_epoch: i16,
    pub(crate) coordinator_epoch: i32,
    pub(crate) last_timestamp_ms: i64,
    pub(crate) last_sequence: i32,
    /// The last offset that it wrote, if one is remembered.
    pub(crate) last_offset: Option<i64>,
    /// How many batches are remembered: 0 to 5.
    pub(crate) batches: usize,
    /// The first offset of its open transaction.
    pub(crate) txn_first_offset: Option<i64>,
}

impl BatchRow {
    pub(super) fn new(batch: &FoundBatch) -> Self {
        let header = &batch.header;
        let attributes = header.attributes();
        Self {
            position: batch.position,
            size: header.size() as u64,
            base_offset: header.base_offset().0,
            last_offset: header.last_offset().0,
            record_count: header.record_count(),
            leader_epoch: header.leader_epoch().0,
            codec: attributes.compression().ok().map(|codec| codec.name()),
            timestamp_type: match attributes.timestamp_type() {
                TimestampType::CreateTime => "create_time",
                TimestampType::LogAppendTime => "log_append_time",
            },
            base_timestamp_ms: header.base_timestamp().0,
            max_timestamp_ms: header.max_timestamp().0,
            producer_id: header.producer_id().0,
            producer_epoch: header.producer_epoch().0,
            base_sequence: header.base_sequence(),
            last_sequence: header.last_sequence(),
            transactional: attributes.is_transactional(),
            control: attributes.is_control(),
            delete_horizon: attributes.has_delete_horizon(),
            crc: header.crc(),
            crc_ok: batch.crc_error.is_none(),
        }
    }
}

impl<'a> Row<'a> {
    pub(super) fn damage(position: u64, size: u64, reason: &BatchError) -> Self {
        Self::Damage { position, size, reason: reason.to_string() }
    }

    pub(super) fn record(batch: &RecordBatch<'_>, record: &Record<'a>) -> Self {
        let header = |(key, value)| HeaderRow { key: Bytes(Some(key)), value: Bytes(value) };
        Self::Record(RecordRow {
            offset: record.offset.0,
            timestamp_ms: record.timestamp.0,
            key: Bytes(record.key),
            value: Bytes(record.value),
            headers: record.headers().map(header).collect(),
            control: batch.attributes().is_control().then(|| ControlRow::new(record)),
        })
    }

    pub(super) fn producer(producer_id: ProducerId, entry: &ProducerEntry) -> Self {
        Self::Producer(ProducerRow {
            producer_id: producer_id.0,
            producer_epoch: entry.epoch.0,
            coordinator_epoch: entry.coordinator_epoch.0,
            last_timestamp_ms: entry.last_timestamp.0,
            last_sequence: entry.last_sequence(),
            last_offset: entry.batches().last().map(|batch| batch.last_offset.0),
            batches: entry.batches().len(),
            txn_first_offset: entry.txn_first_offset.map(|offset| offset.0),
        })
    }

    /// Whether the row shows damage.
    pub(crate) fn is_damage(&self) -> bool {
        match self {
            Self::Damage { .. } | Self::InvalidEntry { .. } => true,
            Self::Batch(batch) => !batch.crc_ok,
            _ => false,
        }
    }
}

impl ControlRow {
    fn new(record: &Record<'_>) -> Self {
        match ControlRecord::parse(record) {
            Ok(ControlRecord::EndTxn(marker)) => {
                let coordinator_epoch = marker.coordinator_epoch.0;
                match marker.result {
                    TransactionResult::Commit => Self::Commit { coordinator_epoch },
                    TransactionResult::Abort => Self::Abort { coordinator_epoch },
                }
            }
            Ok(ControlRecord::Other { kind }) => match kind {
                2 => Self::LeaderChange,
                3 => Self::SnapshotHeader,
                4 => Self::SnapshotFooter,
                5 => Self::KraftVersion,
                6 => Self::KraftVoters,
                number => Self::Unknown { number },
            },
            Err(error) => Self::Invalid { reason: error.to_string() },
        }
    }
}
