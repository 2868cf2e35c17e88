//! What a check found: where, what, and what it means.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use klamm_record::{BatchError, ControlError};
use klamm_types::{LeaderEpoch, Offset, ProducerId, Timestamp};

use super::InspectError;
use crate::error::StorageError;

/// How bad a [`Problem`] is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Severity {
    /// Worth knowing; a log in order may show it.
    Note,
    /// Damage: a log in order does not show it.
    Error,
}

impl Severity {
    /// `note` or `error`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Error => "error",
        }
    }
}

/// One thing found in one place.
#[derive(Debug)]
pub struct Finding {
    /// The file or directory.
    pub path: PathBuf,
    /// Where in the file, in bytes from its start, if it is about one place.
    pub position: Option<u64>,
    /// The offset it is about, if it is about one.
    pub offset: Option<Offset>,
    /// How bad it is.
    pub severity: Severity,
    /// What it is.
    pub problem: Problem,
}

/// What can be found.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// A file or directory could not be read.
    #[error("cannot be read: {reason}")]
    Unreadable {
        /// Why.
        reason: InspectError,
    },
    /// Bytes are no batch.
    #[error("{bytes} bytes are no batch: {reason}")]
    NoBatch {
        /// Why the first of them starts none.
        reason: BatchError,
        /// How many bytes, up to the next whole batch or the end of the file.
        bytes: u64,
    },
    /// Past the recovery point, bytes are no batch, or one with a wrong checksum.
    #[error("{bytes} bytes are a torn write: {reason}")]
    TornWrite {
        /// Why they are no batch.
        reason: BatchError,
        /// How many bytes.
        bytes: u64,
    },
    /// A batch's checksum is wrong.
    #[error("{reason}")]
    Checksum {
        /// [`BatchError::Crc`] with both values.
        reason: BatchError,
    },
    /// The records of a batch cannot be read, though its checksum is right.
    #[error("the records do not read: {reason}")]
    Records {
        /// Why.
        reason: BatchError,
    },
    /// The records were not looked at.
    #[error("the records take more than {limit} bytes and were not looked at")]
    RecordsTooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// The offsets of the records in a batch do not rise.
    #[error("record {record} comes after record {previous}")]
    RecordOffsetOrder {
        /// The offset out of order.
        record: Offset,
        /// The offset before it.
        previous: Offset,
    },
    /// A record of a control batch is none.
    #[error("{reason}")]
    Control {
        /// Why.
        reason: ControlError,
    },
    /// The header's max timestamp is not that of the records.
    #[error("the header has max timestamp {field}, the records have {found}")]
    MaxTimestamp {
        /// The field of the header.
        field: Timestamp,
        /// The largest of the records.
        found: Timestamp,
    },
    /// A batch starts below the end of the one before it.
    #[error("the batch starts at offset {base_offset}, but the log had come to {expected}")]
    OffsetOrder {
        /// Its first offset.
        base_offset: Offset,
        /// The least it may be.
        expected: Offset,
    },
    /// A batch lies outside of the offsets that its segment's name and the next one's allow.
    #[error("the batch has offsets {first}..={last}, outside of its segment")]
    OutsideSegment {
        /// Its first offset.
        first: Offset,
        /// Its last offset.
        last: Offset,
    },
    /// The leader epoch of a batch is older than that of the one before it.
    #[error("the leader epoch goes back from {previous} to {epoch}")]
    EpochOrder {
        /// The batch's epoch.
        epoch: LeaderEpoch,
        /// The newest before it.
        previous: LeaderEpoch,
    },
    /// `leader-epoch-checkpoint` names another epoch for an offset than the batch there (INV10).
    #[error("the batch has leader epoch {batch}, but leader-epoch-checkpoint says {}", or_none(*.checkpoint))]
    EpochDisagrees {
        /// The batch's epoch.
        batch: LeaderEpoch,
        /// That of the checkpoint.
        checkpoint: Option<LeaderEpoch>,
    },
    /// `leader-epoch-checkpoint` has an epoch that starts past the end of the log.
    #[error("leader epoch {epoch} starts past the log end {log_end_offset}")]
    EpochPastEnd {
        /// The epoch.
        epoch: LeaderEpoch,
        /// The log end.
        log_end_offset: Offset,
    },
    /// Offsets are missing within a segment.
    #[error("{missing} offsets are missing in {gaps} places, first here")]
    OffsetGaps {
        /// How many places.
        gaps: u64,
        /// How many offsets in all.
        missing: u64,
    },
    /// A segment begins past the end of the one before it.
    #[error("the segment begins {missing} offsets after the end of the one before it")]
    SegmentGap {
        /// How many offsets lie between.
        missing: u64,
    },
    /// An index file ends within an entry.
    #[error("the file ends within an entry: {bytes} bytes are left over")]
    IndexSize {
        /// Bytes after the last whole entry.
        bytes: u64,
    },
    /// Bytes of an index cannot be an entry.
    #[error("the bytes cannot be an entry")]
    IndexEntryInvalid,
    /// An entry does not come after the one before it.
    #[error("the entry does not come after the one before it")]
    IndexOrder,
    /// An index ends in entries of zeros.
    #[error("the last {entries} entries are zeros")]
    IndexUnused {
        /// How many.
        entries: u64,
    },
    /// An entry of the offset index points to where no batch starts.
    #[error("the entry points to byte {target} of the segment, where no batch starts")]
    OffsetEntryNoBatch {
        /// Where it points.
        target: u64,
    },
    /// An entry of the offset index gives the wrong offset for the batch it points to.
    #[error(
        "the entry says that the batch at byte {target} ends at the given offset, but that ends at {found}"
    )]
    OffsetEntryWrong {
        /// Where it points.
        target: u64,
        /// The last offset of the batch there.
        found: Offset,
    },
    /// An entry of the time index gives another timestamp than the largest up to its offset.
    #[error("the entry says that the largest timestamp so far is {entry}, but that is {found}")]
    TimeEntryWrong {
        /// The entry's timestamp.
        entry: Timestamp,
        /// The largest of the batches up to the entry's offset.
        found: Timestamp,
    },
    /// An entry of the time index has an offset past the end of its segment.
    #[error("the entry has an offset past the end of the segment")]
    TimeEntryPastEnd,
    /// An entry of the transaction index names an offset at which there is no abort marker of that producer.
    #[error(
        "the entry says that producer {producer_id} aborted at the given offset, but no such marker is there"
    )]
    AbortWithoutMarker {
        /// The producer.
        producer_id: ProducerId,
    },
    /// An entry of the transaction index names an offset that is not in the log any more.
    #[error("the marker that the entry names is not there any more")]
    AbortMarkerGone,
    /// An entry of the transaction index gives the wrong start of a transaction.
    #[error("the entry says that the transaction began at offset {entry}, but that was {found}")]
    AbortStartWrong {
        /// The entry's first offset.
        entry: Offset,
        /// The first offset that the producer wrote.
        found: Offset,
    },
    /// An entry of the transaction index gives the wrong last stable offset.
    #[error("the entry says that the last stable offset was {entry} then, but that was {found}")]
    AbortStableOffsetWrong {
        /// The entry's last stable offset.
        entry: Offset,
        /// The first offset that was still open, or the one after the marker.
        found: Offset,
    },
    /// A transaction was aborted, and the transaction index does not know.
    #[error("producer {producer_id} aborted a transaction here that the transaction index does not have")]
    AbortNotIndexed {
        /// The producer.
        producer_id: ProducerId,
    },
    /// More transactions are open at once than are followed.
    #[error("more than {limit} transactions are open at once; later ones were not checked")]
    TooManyTransactions {
        /// The limit.
        limit: usize,
    },
    /// A producer snapshot is of an offset past the end of the log.
    #[error("the snapshot is of an offset past the log end {log_end_offset}")]
    SnapshotPastEnd {
        /// The log end.
        log_end_offset: Offset,
    },
    /// A producer snapshot knows of a batch that had not been written when it was taken.
    #[error("producer {producer_id} has offset {known}, which the snapshot is too old to know")]
    SnapshotKnowsTooMuch {
        /// The producer.
        producer_id: ProducerId,
        /// The offset.
        known: Offset,
    },
    /// A segment has no file of its own, only an index.
    #[error("there is no segment file beside the index")]
    IndexAlone,
    /// An index is missing beside a segment that has batches.
    #[error("there is no {suffix} file beside the segment")]
    IndexMissing {
        /// The ending of the file's name.
        suffix: &'static str,
    },
    /// A file that every partition has is missing.
    #[error("there is no {name}")]
    FileMissing {
        /// Its name.
        name: &'static str,
    },
    /// A file or directory that was being made, swapped in or removed when the process ended.
    #[error("it was left over when the process ended")]
    Leftover,
    /// No file of a log is called so.
    #[error("no file of a log has this name")]
    UnknownFile,
    /// No directory of a partition is called so.
    #[error("no directory of a partition has this name")]
    UnknownDirectory,
    /// A checkpoint names a partition that has no directory.
    #[error("{partition} has no directory here")]
    NoSuchPartition {
        /// The partition.
        partition: String,
    },
    /// What was durable is not there: the recovery point lies past the end of the log (INV9).
    #[error("the recovery point {recovery_point} lies past the log end {log_end_offset}")]
    RecoveryPointPastEnd {
        /// The recovery point.
        recovery_point: Offset,
        /// The log end.
        log_end_offset: Offset,
    },
    /// The directory was closed in order, and the log does not end where it did then.
    #[error("the log ends at {log_end_offset}, but was closed at {recovery_point}")]
    NotAsClosed {
        /// The recovery point.
        recovery_point: Offset,
        /// The log end.
        log_end_offset: Offset,
    },
    /// The high watermark lies past the end of the log.
    #[error("the high watermark {high_watermark} lies past the log end {log_end_offset}")]
    HighWatermarkPastEnd {
        /// The high watermark.
        high_watermark: Offset,
        /// The log end.
        log_end_offset: Offset,
    },
    /// The log start lies past the end of the log (INV9).
    #[error("the log start {log_start_offset} lies past the log end {log_end_offset}")]
    LogStartPastEnd {
        /// The log start.
        log_start_offset: Offset,
        /// The log end.
        log_end_offset: Offset,
    },
}

fn or_none(epoch: Option<LeaderEpoch>) -> String {
    epoch.map_or_else(|| "none".to_owned(), |epoch| epoch.to_string())
}

const BATCHES_LOST: &str = "these records are lost here: take them from another replica";
const INDEX_WRONG: &str = "no record is lost: remove the segment's .index and .timeindex files while the broker is \
                           stopped, and it makes them again";
const TXN_INDEX_WRONG: &str =
    "readers of committed data may see aborted records: take the partition from another replica";
const CHECK_ORIGIN: &str = "what wrote these bytes was wrong, or has written since: take the partition from another \
                            replica";
const EPOCHS_WRONG: &str = "a follower may cut its log in the wrong place: remove leader-epoch-checkpoint while the \
                            broker is stopped, and it makes the file again";
const SNAPSHOT_WRONG: &str =
    "a producer's records may be refused as repeated: remove the file while the broker is stopped";

impl Problem {
    /// A stable name in lower case with underscores, for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unreadable { reason: InspectError::Damaged(_) } => "damaged_file",
            Self::Unreadable { .. } => "unreadable",
            Self::NoBatch { .. } => "no_batch",
            Self::TornWrite { .. } => "torn_write",
            Self::Checksum { .. } => "checksum",
            Self::Records { .. } => "records",
            Self::RecordsTooLarge { .. } => "records_too_large",
            Self::RecordOffsetOrder { .. } => "record_offset_order",
            Self::Control { .. } => "control_record",
            Self::MaxTimestamp { .. } => "max_timestamp",
            Self::OffsetOrder { .. } => "offset_order",
            Self::OutsideSegment { .. } => "outside_segment",
            Self::EpochOrder { .. } => "epoch_order",
            Self::EpochDisagrees { .. } => "epoch_disagrees",
            Self::EpochPastEnd { .. } => "epoch_past_end",
            Self::OffsetGaps { .. } => "offset_gaps",
            Self::SegmentGap { .. } => "segment_gap",
            Self::IndexSize { .. } => "index_size",
            Self::IndexEntryInvalid => "index_entry_invalid",
            Self::IndexOrder => "index_order",
            Self::IndexUnused { .. } => "index_unused",
            Self::OffsetEntryNoBatch { .. } => "offset_entry_no_batch",
            Self::OffsetEntryWrong { .. } => "offset_entry_wrong",
            Self::TimeEntryWrong { .. } => "time_entry_wrong",
            Self::TimeEntryPastEnd => "time_entry_past_end",
            Self::AbortWithoutMarker { .. } => "abort_without_marker",
            Self::AbortMarkerGone => "abort_marker_gone",
            Self::AbortStartWrong { .. } => "abort_start_wrong",
            Self::AbortStableOffsetWrong { .. } => "abort_stable_offset_wrong",
            Self::AbortNotIndexed { .. } => "abort_not_indexed",
            Self::TooManyTransactions { .. } => "too_many_transactions",
            Self::SnapshotPastEnd { .. } => "snapshot_past_end",
            Self::SnapshotKnowsTooMuch { .. } => "snapshot_knows_too_much",
            Self::IndexAlone => "index_alone",
            Self::IndexMissing { .. } => "index_missing",
            Self::FileMissing { .. } => "file_missing",
            Self::Leftover => "leftover",
            Self::UnknownFile => "unknown_file",
            Self::UnknownDirectory => "unknown_directory",
            Self::NoSuchPartition { .. } => "no_such_partition",
            Self::RecoveryPointPastEnd { .. } => "recovery_point_past_end",
            Self::NotAsClosed { .. } => "not_as_closed",
            Self::HighWatermarkPastEnd { .. } => "high_watermark_past_end",
            Self::LogStartPastEnd { .. } => "log_start_past_end",
        }
    }

    /// What it means, and what to do about it.
    #[must_use]
    pub fn meaning(&self) -> &'static str {
        match self {
            Self::Unreadable { reason: InspectError::Damaged(_) } => {
                "recovery does without it if it can, and refuses to open the log if not"
            }
            Self::Unreadable { .. } => "look at the disk and at the file's permissions",
            Self::TornWrite { .. } => {
                "it lies past the recovery point: recovery cuts the log off here at the next start"
            }
            Self::NoBatch { .. } | Self::Checksum { .. } => BATCHES_LOST,
            Self::Records { .. }
            | Self::RecordOffsetOrder { .. }
            | Self::Control { .. }
            | Self::OffsetOrder { .. }
            | Self::OutsideSegment { .. }
            | Self::EpochOrder { .. } => CHECK_ORIGIN,
            Self::RecordsTooLarge { .. } | Self::TooManyTransactions { .. } => "the rest has been checked",
            Self::MaxTimestamp { .. } => "a look-up by time may miss the record, or stop before it",
            Self::EpochDisagrees { .. } => EPOCHS_WRONG,
            Self::EpochPastEnd { .. } => "the broker drops the entry at the next start",
            Self::OffsetGaps { .. } | Self::SegmentGap { .. } => {
                "compaction leaves gaps; a log that is not compacted has none"
            }
            Self::IndexUnused { .. } => {
                "the broker did not come to cut the file to its length; recovery does"
            }
            Self::IndexSize { .. }
            | Self::IndexEntryInvalid
            | Self::IndexOrder
            | Self::OffsetEntryNoBatch { .. }
            | Self::OffsetEntryWrong { .. }
            | Self::TimeEntryWrong { .. }
            | Self::TimeEntryPastEnd => INDEX_WRONG,
            Self::AbortMarkerGone => "compaction has removed it, or damage hides it",
            Self::AbortWithoutMarker { .. }
            | Self::AbortStartWrong { .. }
            | Self::AbortStableOffsetWrong { .. }
            | Self::AbortNotIndexed { .. } => TXN_INDEX_WRONG,
            Self::SnapshotKnowsTooMuch { .. } => SNAPSHOT_WRONG,
            Self::SnapshotPastEnd { .. } | Self::IndexAlone => "recovery removes it at the next start",
            Self::IndexMissing { .. } | Self::FileMissing { .. } => {
                "nothing is lost: the broker makes it again"
            }
            Self::Leftover => "recovery settles it at the next start",
            Self::UnknownFile | Self::UnknownDirectory => "it is not looked at",
            Self::NoSuchPartition { .. } => "deleted or moved; the entry goes with time",
            Self::RecoveryPointPastEnd { .. } => {
                "records that had been durable are gone: take them from another replica"
            }
            Self::NotAsClosed { .. } => {
                "something has written since, or offsets in the log or the checkpoint are damaged"
            }
            Self::HighWatermarkPastEnd { .. } => {
                "committed records are not here: take them from another replica"
            }
            Self::LogStartPastEnd { .. } => "the log is treated as empty",
        }
    }
}

/// What [`verify`](super::verify()) found.
#[derive(Debug, Default)]
pub struct VerifyReport {
    /// Partition directories looked at.
    pub partitions: u64,
    /// Segment files walked.
    pub segments: u64,
    /// Batches that lay whole in them.
    pub batches: u64,
    /// Records that read.
    pub records: u64,
    /// Bytes of all segment files.
    pub bytes: u64,
    /// How many problems are damage, the ones that are not listed included.
    pub errors: u64,
    /// How many are notes, the ones that are not listed included.
    pub notes: u64,
    /// The problems, in the order of the walk: at most [`PER_FILE_MAX`](Self::PER_FILE_MAX) per file and
    /// [`FINDINGS_MAX`](Self::FINDINGS_MAX) in all.
    pub findings: Vec<Finding>,
    /// How many problems are not listed.
    pub unlisted: u64,
    listed: BTreeMap<PathBuf, usize>,
}

impl VerifyReport {
    /// The most findings listed for one file.
    pub const PER_FILE_MAX: usize = 100;
    /// The most findings listed.
    pub const FINDINGS_MAX: usize = 10_000;

    /// Whether there is no damage. There may be notes.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.errors == 0
    }

    pub(super) fn add(&mut self, finding: Finding) {
        match finding.severity {
            Severity::Error => self.errors += 1,
            Severity::Note => self.notes += 1,
        }
        let listed = self.listed.get(&finding.path).copied().unwrap_or(0);
        if listed >= Self::PER_FILE_MAX || self.findings.len() >= Self::FINDINGS_MAX {
            self.unlisted += 1;
            return;
        }
        self.listed.insert(finding.path.clone(), listed + 1);
        self.findings.push(finding);
    }

    pub(super) fn error(&mut self, place: Place<'_>, problem: Problem) {
        self.add(place.finding(Severity::Error, problem));
    }

    pub(super) fn note(&mut self, place: Place<'_>, problem: Problem) {
        self.add(place.finding(Severity::Note, problem));
    }

    /// Damage if `is_error`, otherwise a note.
    pub(super) fn graded(&mut self, is_error: bool, place: Place<'_>, problem: Problem) {
        let severity = if is_error { Severity::Error } else { Severity::Note };
        self.add(place.finding(severity, problem));
    }

    /// Reports that something could not be read; what is not there is for the caller to tell.
    pub(super) fn unreadable(&mut self, path: &Path, reason: impl Into<InspectError>) {
        self.error(Place::of(path), Problem::Unreadable { reason: reason.into() });
    }

    /// Reports a small file that does not read: damage if `is_error`, or if the disk is to blame.
    pub(super) fn unread(&mut self, is_error: bool, path: &Path, reason: InspectError) {
        let is_error = is_error || !matches!(reason, InspectError::Damaged(_));
        self.graded(is_error, Place::of(path), Problem::Unreadable { reason });
    }

    /// Takes note of a disk error, if `result` is one.
    pub(super) fn watch<T>(&mut self, path: &Path, result: Result<T, StorageError>) -> Option<T> {
        result.map_err(|error| self.unreadable(path, error)).ok()
    }
}

/// Where something was found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    path: &'a Path,
    position: Option<u64>,
    offset: Option<Offset>,
}

impl<'a> Place<'a> {
    pub(super) fn of(path: &'a Path) -> Self {
        Self { path, position: None, offset: None }
    }

    pub(super) fn at(self, position: u64) -> Self {
        Self { position: Some(position), ..self }
    }

    pub(super) fn offset(self, offset: Offset) -> Self {
        Self { offset: Some(offset), ..self }
    }

    fn finding(self, severity: Severity, problem: Problem) -> Finding {
        let Self { path, position, offset } = self;
        Finding { path: path.to_owned(), position, offset, severity, problem }
    }
}
