//! What can go wrong in a log, one type per family of operations.

use std::io;
use std::path::{Path, PathBuf};

use klamm_record::{BatchError, RecompressError, ValidationError};
use rustix::io::Errno;

use klamm_types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, TopicPartition};

use crate::producers::comes_after;

/// The disk refused an operation.
#[derive(Debug, thiserror::Error)]
#[error("cannot {verb} {path}: {source}")]
pub struct StorageError {
    /// What was tried, as a verb: "write", "sync".
    pub verb: &'static str,
    /// On which file or directory.
    pub path: PathBuf,
    /// What the disk said.
    pub source: io::Error,
}

impl StorageError {
    /// Whether something ran out: room on the disk, open files, memory. Nothing is broken; the operation may succeed
    /// once there is some again.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let shortages = [Errno::NOSPC, Errno::DQUOT, Errno::MFILE, Errno::NFILE, Errno::NOMEM];
        let kind = matches!(self.source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        kind || shortages.iter().any(|errno| Some(errno.raw_os_error()) == self.source.raw_os_error())
    }

    /// Whether the same call may succeed later: only if something had run out.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.is_full()
    }
}

/// Turns the error of a disk call into a [`StorageError`].
pub(crate) trait Describe<T> {
    fn describe(self, verb: &'static str, path: &Path) -> Result<T, StorageError>;
}

impl<T> Describe<T> for io::Result<T> {
    fn describe(self, verb: &'static str, path: &Path) -> Result<T, StorageError> {
        self.map_err(|source| StorageError { verb, path: path.to_owned(), source })
    }
}

/// The directory that holds the log is out of service, for good.
#[derive(Clone, Debug, thiserror::Error)]
#[error("log directory {dir} is out of service: {reason}")]
pub struct DirOffline {
    /// The directory.
    pub dir: PathBuf,
    /// The failure that took it out of service.
    pub reason: String,
}

/// Why [`Log::append_as_leader`](crate::Log::append_as_leader) or
/// [`append_as_follower`](crate::Log::append_as_follower) refused records. Nothing was appended, unless the
/// variant says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// A batch breaks a rule.
    #[error(transparent)]
    Invalid(#[from] ValidationError),
    /// A batch is not one.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// A batch cannot be compressed anew for the topic's `compression.type`.
    #[error(transparent)]
    Recompress(#[from] RecompressError),
    /// There is no batch at all (`INVALID_RECORD`).
    #[error("there is no batch in the records")]
    Empty,
    /// A batch is larger than `max.message.bytes` (`MESSAGE_TOO_LARGE`).
    #[error("a batch has {size} bytes, more than max.message.bytes = {max}")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
        /// The topic's limit in bytes.
        max: usize,
    },
    /// Producer state refuses the batch.
    #[error(transparent)]
    Producer(#[from] ProducerError),
    /// A follower was given records that do not continue its log.
    #[error("a batch starts at offset {base_offset}, below the log end {log_end_offset}")]
    NotAtEnd {
        /// The first offset of the batch.
        base_offset: Offset,
        /// The log end.
        log_end_offset: Offset,
    },
    /// The records are of an older leader epoch than the log's newest: their leader has been replaced.
    #[error("leader epoch {epoch} is older than the log's newest, {latest}")]
    EpochWentBack {
        /// The epoch of the records.
        epoch: LeaderEpoch,
        /// The newest epoch of the log.
        latest: LeaderEpoch,
    },
    /// Offsets are used up.
    #[error("offsets end at 2^63 - 1")]
    OffsetsExhausted,
    /// The disk is full. The log is as before; the same append may succeed once there is room.
    #[error("the disk is full: {0}")]
    Full(#[source] StorageError),
    /// The disk failed. The directory is out of service; what the file holds past the log end is unknown.
    #[error(transparent)]
    Storage(StorageError),
    /// The directory was taken out of service before (`KAFKA_STORAGE_ERROR`).
    #[error(transparent)]
    Offline(#[from] DirOffline),
    /// The log has been deleted (`UNKNOWN_TOPIC_OR_PARTITION`).
    #[error("partition {0} has been deleted")]
    Deleted(TopicPartition),
}

impl AppendError {
    /// Whether the same append may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Full(_))
    }
}

/// Why producer state refuses a batch (KIP-98, KIP-360).
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ProducerError {
    /// A newer incarnation of the producer has written (`INVALID_PRODUCER_EPOCH`).
    #[error("producer {producer_id} has epoch {epoch}, fenced by {current}")]
    Fenced {
        /// The producer.
        producer_id: ProducerId,
        /// The epoch of the batch.
        epoch: ProducerEpoch,
        /// The newest epoch seen.
        current: ProducerEpoch,
    },
    /// The batch does not continue the producer's sequence (`OUT_OF_ORDER_SEQUENCE_NUMBER`).
    #[error("producer {producer_id} sent sequence {sequence}, expected {expected}")]
    OutOfOrderSequence {
        /// The producer.
        producer_id: ProducerId,
        /// The first sequence of the batch.
        sequence: i32,
        /// The sequence that would continue.
        expected: i32,
    },
    /// A record outside a transaction came while the producer has one open (`INVALID_TXN_STATE`).
    #[error(
        "producer {producer_id} has a transaction open since offset {since} and sent a batch outside of it"
    )]
    TransactionOpen {
        /// The producer.
        producer_id: ProducerId,
        /// Where the open transaction starts.
        since: Offset,
    },
    /// A marker came from a coordinator that has been replaced (`TRANSACTION_COORDINATOR_FENCED`).
    #[error("a marker of coordinator epoch {epoch} came after one of epoch {current}")]
    CoordinatorFenced {
        /// The epoch of the marker.
        epoch: i32,
        /// The newest epoch seen for this producer.
        current: i32,
    },
}

impl ProducerError {
    /// Whether batches are missing in front of the refused one, so that it fits once they are there.
    #[must_use]
    pub fn is_gap(&self) -> bool {
        match *self {
            Self::OutOfOrderSequence { sequence, expected, .. } => comes_after(sequence, expected),
            Self::Fenced { .. } | Self::TransactionOpen { .. } | Self::CoordinatorFenced { .. } => false,
        }
    }
}

/// Why a read gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The offset lies outside of the log (`OFFSET_OUT_OF_RANGE`).
    #[error("offset {offset} lies outside of {log_start_offset}..={log_end_offset}")]
    OutOfRange {
        /// The offset asked for.
        offset: Offset,
        /// The first offset of the log.
        log_start_offset: Offset,
        /// The end of what may be read.
        log_end_offset: Offset,
    },
    /// The bytes are damaged (`CORRUPT_MESSAGE`).
    #[error("{path} is damaged at byte {position}: {reason}")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where in it, in bytes.
        position: u64,
        /// What is wrong.
        reason: BatchError,
    },
    /// The offset lies in a range that recovery found damaged and that waits for repair (`KAFKA_STORAGE_ERROR`).
    #[error("offset {offset} lies in the damaged range {range}")]
    Damaged {
        /// The offset asked for.
        offset: Offset,
        /// The damage.
        range: crate::DamagedRange,
    },
    /// The disk failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The directory is out of service (`KAFKA_STORAGE_ERROR`).
    #[error(transparent)]
    Offline(#[from] DirOffline),
}

/// Why a log could not be opened or changed (other than by an append).
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The disk failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The directory is out of service.
    #[error(transparent)]
    Offline(#[from] DirOffline),
    /// The log has been deleted.
    #[error("partition {0} has been deleted")]
    Deleted(TopicPartition),
    /// Another process holds the lock of a log directory.
    #[error("{path} is in use by another process: stop that, or give another directory")]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// A small file that cannot be rebuilt does not read as what it should be.
    #[error("{path} is damaged: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// An offset was given that the operation does not allow.
    #[error(
        "cannot {verb} to offset {offset}: the log has {log_start_offset}..{log_end_offset}, high watermark {high_watermark}"
    )]
    OutOfRange {
        /// What was tried.
        verb: &'static str,
        /// The offset given.
        offset: Offset,
        /// The log start.
        log_start_offset: Offset,
        /// The log end.
        log_end_offset: Offset,
        /// The high watermark.
        high_watermark: Offset,
    },
    /// A batch could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}
