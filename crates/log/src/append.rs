//! Appending: what a leader accepts from clients, and what a follower copies from its leader.

use std::cell::RefCell;
use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use klamm_record::{
    BatchError, BatchHeader, Batches, CodecMemory, ControlRecord, EndTxnMarker, Origin, RecordBatch,
    TimestampType, ValidationOptions,
};
use klamm_types::{LeaderEpoch, Offset, Timestamp};

use crate::config::LogConfig;
use crate::error::{AppendError, LogError, StorageError};
use crate::index::{AbortedTxn, OffsetEntry, TimeEntry};
use crate::log::{ActiveSegment, Log, Offsets, Writer};
use crate::producers::{BatchMetadata, SequenceCheck, snapshot};
use crate::ready::{Assigned, Place, Ready};
use crate::segment::{Segment, is_out_of_reach};

/// The most bytes that a client's compressed batch may become.
const DECOMPRESSED_BYTES_MAX: u64 = 1 << 30;
/// The most bytes that a control batch may become; it has one small record.
const CONTROL_BYTES_MAX: u64 = 64 * 1024;

thread_local! {
    /// What one decompression leaves to the next on the same thread: at most some 20 MiB.
    static CODEC_MEMORY: RefCell<CodecMemory> = RefCell::default();
}

/// Who sends the records that a leader appends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AppendOrigin {
    /// A client: one batch, no control records, sequences are checked.
    Client,
    /// A coordinator or the quorum: any number of batches, control records among them.
    Internal,
}

/// What became of an append.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AppendInfo {
    /// The offset of the first record.
    pub first_offset: Offset,
    /// The offset of the last record.
    pub last_offset: Offset,
    /// The append time that the records got, under `LogAppendTime`; [`Timestamp::NONE`] otherwise.
    pub append_time: Timestamp,
    /// Set if the records had been appended before.
    pub duplicate: Option<Duplicate>,
}

/// How well records are known that were appended before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Duplicate {
    /// The offsets given are those they have.
    Known,
    /// Their producer has appended more than the log remembers of it since: they lie at or before the offsets given.
    Forgotten,
}

/// Records that a leader may append, as far as can be told without looking at the log.
#[derive(Debug)]
pub struct PreparedAppend {
    /// The records under the topic's codec, if that is not the one they came in.
    converted: Option<Vec<u8>>,
    /// The largest timestamp of each batch.
    max_timestamps: Vec<Timestamp>,
    timestamp_type: TimestampType,
    origin: AppendOrigin,
    now: Timestamp,
    /// With which sequence an unknown producer must begin, if not with any.
    first_sequence: Option<i32>,
}

impl PreparedAppend {
    /// Has the append refused with [`ProducerError::OutOfOrderSequence`](crate::ProducerError) if the log does not know
    /// the producer and its batch starts at another sequence than `first_sequence`: the caller knows of a batch that
    /// must come before. With `None` such a producer may begin with any (KIP-360).
    #[must_use]
    pub fn beginning_at(self, first_sequence: Option<i32>) -> Self {
        Self { first_sequence, ..self }
    }
}

impl Log {
    /// Appends records as the leader of `epoch`: checks them, and writes them with the next offsets, `epoch` and, under
    /// `LogAppendTime`, the time `now`. `records` stay as they are.
    ///
    /// A batch that its producer has sent before is not appended again; the answer has the offsets it got then.
    ///
    /// # Errors
    /// [`AppendError`]; the log is then as it was before.
    pub fn append_as_leader(
        &self,
        records: &[u8],
        epoch: LeaderEpoch,
        origin: AppendOrigin,
        now: Timestamp,
    ) -> Result<AppendInfo, AppendError> {
        let prepared = self.prepare(records, origin, now)?;
        self.append_prepared(prepared, records, epoch)
    }

    /// The part of [`append_as_leader`](Self::append_as_leader) that needs nobody to wait: all checks that do not depend
    /// on what the log holds, decompression among them, and a new compression where the topic asks for one.
    ///
    /// # Errors
    /// As [`append_as_leader`](Self::append_as_leader).
    pub fn prepare(
        &self,
        records: &[u8],
        origin: AppendOrigin,
        now: Timestamp,
    ) -> Result<PreparedAppend, AppendError> {
        self.check_online()?;
        let config = self.config();
        let Checked { converted, max_timestamps } = check_records(records, &config, origin, now)?;
        let timestamp_type = config.message_timestamp_type;
        Ok(PreparedAppend { converted, max_timestamps, timestamp_type, origin, now, first_sequence: None })
    }

    /// The rest of [`append_as_leader`](Self::append_as_leader). `records` are those that were prepared.
    ///
    /// # Errors
    /// As [`append_as_leader`](Self::append_as_leader).
    pub fn append_prepared(
        &self,
        prepared: PreparedAppend,
        records: &[u8],
        epoch: LeaderEpoch,
    ) -> Result<AppendInfo, AppendError> {
        let PreparedAppend { converted, max_timestamps, timestamp_type, origin, now, first_sequence } =
            prepared;
        let records = converted.as_deref().unwrap_or(records);
        let mut writer = self.writer();
        self.check_online()?;
        if let Some(latest) = self.latest_epoch().filter(|latest| epoch < *latest) {
            return Err(AppendError::EpochWentBack { epoch, latest });
        }
        if let Some(duplicate) = self.check_producers(&writer, records, origin, first_sequence)? {
            return Ok(duplicate);
        }
        let append_time = match timestamp_type {
            TimestampType::LogAppendTime => now,
            TimestampType::CreateTime => Timestamp::NONE,
        };
        let first_offset = self.log_end_offset();
        let assigned = Assigned::new(records, Place { first_offset, epoch, append_time }, &max_timestamps)?;
        let Some(last_offset) = assigned.ready.last().map(|last| last.header.last_offset()) else {
            return Err(AppendError::Empty);
        };
        self.write(&mut writer, &mut assigned.slices(), &assigned.ready, now)?;
        Ok(AppendInfo { first_offset, last_offset, append_time, duplicate: None })
    }

    /// Appends batches that the leader sent, with the offsets and epochs they have. Gaps between offsets are legal
    /// (compaction leaves them).
    ///
    /// # Errors
    /// [`AppendError`]; the log is then as it was before.
    pub fn append_as_follower(&self, records: &[u8], now: Timestamp) -> Result<AppendInfo, AppendError> {
        self.check_online()?;
        let mut ready = Vec::new();
        for batch in Batches::new(records) {
            let batch = batch?;
            batch.verify_crc()?;
            ready.push(Ready { header: *batch.header(), marker: marker_of(&batch)? });
        }
        let (Some(first), Some(last)) = (ready.first(), ready.last()) else { return Err(AppendError::Empty) };
        let (first_offset, last_offset) = (first.header.base_offset(), last.header.last_offset());
        let mut writer = self.writer();
        self.check_online()?;
        self.check_continues(&ready)?;
        self.write(&mut writer, &mut [IoSlice::new(records)], &ready, now)?;
        // The bug of knowing only the producers that this replica itself has served (Redpanda #3039).
        if cfg!(mutant = "B32") {
            writer.producers.clear();
        }
        Ok(AppendInfo { first_offset, last_offset, append_time: Timestamp::NONE, duplicate: None })
    }

    fn check_online(&self) -> Result<(), AppendError> {
        // The bug of accepting appends after the disk has failed (KAFKA-10778).
        if cfg!(mutant = "B24") {
            return Ok(());
        }
        self.dir.log_dir.check()?;
        match self.dir.is_deleted() {
            true => Err(AppendError::Deleted(self.partition().clone())),
            false => Ok(()),
        }
    }

    /// Checks the records against the state of their producers. `Some` if they are in the log already.
    fn check_producers(
        &self,
        writer: &Writer,
        records: &[u8],
        origin: AppendOrigin,
        first_sequence: Option<i32>,
    ) -> Result<Option<AppendInfo>, AppendError> {
        for batch in Batches::new(records) {
            let batch = batch?;
            if let Some(marker) = marker_of(&batch)? {
                writer.producers.check_marker(batch.header(), &marker)?;
            } else if origin == AppendOrigin::Internal {
                writer.producers.check_epoch(batch.header())?;
            } else {
                let found = match writer.producers.check(batch.header(), first_sequence)? {
                    SequenceCheck::New => continue,
                    SequenceCheck::Duplicate(known) => self.known(&known),
                    SequenceCheck::Forgotten(before) => {
                        let offset = Offset(before.0 - 1);
                        let duplicate = Some(Duplicate::Forgotten);
                        AppendInfo {
                            first_offset: offset,
                            last_offset: offset,
                            append_time: Timestamp::NONE,
                            duplicate,
                        }
                    }
                };
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn known(&self, batch: &BatchMetadata) -> AppendInfo {
        AppendInfo {
            first_offset: batch.first_offset(),
            last_offset: batch.last_offset,
            append_time: match self.config().message_timestamp_type {
                TimestampType::LogAppendTime => batch.timestamp,
                TimestampType::CreateTime => Timestamp::NONE,
            },
            duplicate: Some(Duplicate::Known),
        }
    }

    /// Checks that a leader's batches continue this log.
    fn check_continues(&self, ready: &[Ready]) -> Result<(), AppendError> {
        let mut log_end_offset = self.log_end_offset();
        let mut latest = self.latest_epoch().unwrap_or(LeaderEpoch::NONE);
        for Ready { header, .. } in ready {
            let (base_offset, epoch) = (header.base_offset(), header.leader_epoch());
            if base_offset < log_end_offset {
                return Err(AppendError::NotAtEnd { base_offset, log_end_offset });
            }
            if epoch < latest {
                return Err(AppendError::EpochWentBack { epoch, latest });
            }
            (log_end_offset, latest) = (header.next_offset(), epoch);
        }
        Ok(())
    }

    /// Writes batches that have their offsets, and only then shows them to readers. `records` are their bytes.
    fn write(
        &self,
        writer: &mut Writer,
        records: &mut [IoSlice<'_>],
        ready: &[Ready],
        now: Timestamp,
    ) -> Result<(), AppendError> {
        let Some(last) = ready.last() else { return Err(AppendError::Empty) };
        let bytes = ready.iter().map(|batch| batch.header.size() as u64).sum();
        self.dir.log_dir.take_room(bytes).map_err(|error| self.refuse_write(error))?;
        self.maybe_roll(writer, bytes, ready, now)?;
        let active = self.active_segment();
        if let Err(error) = active.write(records) {
            return Err(self.refuse_write(error));
        }
        let interval = u64::from(self.config().index_interval_bytes);
        let mut position = active.size();
        for Ready { header, marker } in ready {
            self.index_batch(&active, &mut writer.active, header, position, interval)?;
            self.note_epoch_of_batch(writer, header.leader_epoch(), header.base_offset());
            if let Some(aborted) = note_producer(writer, header, marker.as_ref()) {
                self.index_aborted(&active, aborted)?;
            }
            position += header.size() as u64;
        }
        active.set_max_timestamp(writer.active.max_timestamp);
        active.publish_size(position);
        writer.bytes_since_checkpoint += bytes;
        self.publish_first_unstable(writer);
        self.remember_log_end(last.header.next_offset(), &active, position);
        self.offsets.last_append.store(now.0, Ordering::Relaxed);
        Offsets::store(&self.offsets.log_end, last.header.next_offset());
        self.check_invariants();
        Ok(())
    }

    /// A full disk refuses one append; any other failed write ends the directory's service.
    fn refuse_write(&self, error: StorageError) -> AppendError {
        if error.verb != "truncate" && error.is_full() {
            return AppendError::Full(error);
        }
        AppendError::Storage(self.dir.log_dir.fail(error))
    }

    pub(crate) fn active_segment(&self) -> Arc<Segment> {
        let segments = self.segments();
        Arc::clone(&segments[segments.len() - 1])
    }

    /// Adds index entries for a batch at `position`, once `interval` bytes have passed since the last.
    fn index_batch(
        &self,
        segment: &Segment,
        active: &mut ActiveSegment,
        header: &BatchHeader,
        position: u64,
        interval: u64,
    ) -> Result<(), AppendError> {
        let result = index_batch(segment, active, header, position, interval);
        self.tolerate_full(result)
    }

    fn index_aborted(&self, segment: &Segment, aborted: AbortedTxn) -> Result<(), AppendError> {
        self.tolerate_full(segment.txns.append(aborted))
    }

    /// An index that cannot be written out for want of room stays in memory and is written out later.
    fn tolerate_full(&self, result: Result<(), StorageError>) -> Result<(), AppendError> {
        match result {
            Err(error) if error.is_full() => Ok(()),
            Err(error) => Err(AppendError::Storage(self.dir.log_dir.fail(error))),
            Ok(()) => Ok(()),
        }
    }

    /// Starts a new segment if the active one is full, too old, or cannot take the offsets.
    fn maybe_roll(
        &self,
        writer: &mut Writer,
        bytes: u64,
        ready: &[Ready],
        now: Timestamp,
    ) -> Result<(), AppendError> {
        let active = self.active_segment();
        let last_offset = ready.last().map_or(Offset::ZERO, |last| last.header.last_offset());
        let first_offset = ready.first().map_or(Offset::ZERO, |first| first.header.base_offset());
        if active.size() == 0 {
            // Nothing to seal; but a gap may put the records out of the segment's reach.
            if is_out_of_reach(active.base_offset(), first_offset) {
                self.roll_at(writer, first_offset, now)?;
            }
            return Ok(());
        }
        let config = self.config();
        let full = active.size() + bytes > u64::from(config.segment_bytes);
        let newest = ready.iter().map(|r| r.header.max_timestamp()).max().unwrap_or(Timestamp::NONE);
        let waited = match writer.active.first_timestamp {
            Some(first) if newest.0 >= 0 => newest.millis_since(first),
            _ => now.millis_since(writer.active.created),
        };
        let old = waited > config.segment_ms - self.roll_jitter(&config);
        let index_full = index_is_full(&active, &config).describe_index(self)?;
        if full || old || index_full || active.relative(last_offset).is_none() {
            let end = self.log_end_offset();
            let reach = i64::from(i32::MAX);
            // A new segment starts at the log end, so that a gap between segments always means loss; unless the
            // records themselves lie past a gap that no segment can span.
            let is_far = is_out_of_reach(active.base_offset(), first_offset);
            let base = if is_far && last_offset.0 - end.0 > reach { first_offset } else { end };
            self.roll_at(writer, base, now)?;
        }
        Ok(())
    }

    /// A part of `segment.jitter.ms`, the same for a partition at all times, so that partitions created together
    /// do not all roll together.
    fn roll_jitter(&self, config: &LogConfig) -> i64 {
        if config.segment_jitter_ms == 0 {
            return 0;
        }
        let name = self.partition().to_string();
        let share = i64::from(crc32c::crc32c(name.as_bytes()));
        share % config.segment_jitter_ms.min(config.segment_ms).max(1)
    }

    /// Seals the active segment and starts one at `base`.
    pub(crate) fn roll_at(
        &self,
        writer: &mut Writer,
        base: Offset,
        now: Timestamp,
    ) -> Result<(), AppendError> {
        let sealed = self.active_segment();
        if is_out_of_reach(sealed.base_offset(), base) {
            // Recovery takes such a gap for one, and not for a loss.
            self.flush_before_gap()?;
        }
        self.seal_indexes(&sealed, &mut writer.active)?;
        let mut segments = self.segments().to_vec();
        if sealed.size() == 0 {
            segments.pop();
        }
        segments.push(Segment::create_file(&self.dir, base).map_err(|error| self.refuse_write(error))?);
        let snapshot = snapshot::encode(&writer.producers);
        let sealed = (sealed.size() > 0).then_some(sealed);
        self.flush.on_roll(sealed, (base, snapshot.into()), || self.publish_segments(segments));
        writer.active = ActiveSegment::new(now);
        Ok(())
    }

    /// Makes all of the log durable. The listener is told of it by the next flush.
    fn flush_before_gap(&self) -> Result<(), AppendError> {
        match self.flush_quietly() {
            Ok(_) => Ok(()),
            Err(LogError::Storage(error)) => Err(self.refuse_write(error)),
            Err(LogError::Offline(error)) => Err(AppendError::Offline(error)),
            Err(error) => {
                let source = std::io::Error::other(error);
                let error = StorageError { verb: "flush", path: self.dir.path().to_path_buf(), source };
                Err(AppendError::Storage(self.dir.log_dir.fail(error)))
            }
        }
    }

    fn seal_indexes(&self, sealed: &Segment, active: &mut ActiveSegment) -> Result<(), AppendError> {
        let max = active.max_timestamp;
        let mut result = Ok(());
        if max.timestamp > active.indexed_timestamp
            && let Some(relative_offset) = sealed.relative(max.offset)
        {
            // Should the roll fail after this, the entry is not added again.
            active.indexed_timestamp = max.timestamp;
            result = sealed.times.append(TimeEntry { timestamp: max.timestamp, relative_offset });
        }
        self.tolerate_full(result.and_then(|()| sealed.spill_indexes()))
    }
}

/// Records that passed the checks that do not depend on the log's state.
struct Checked {
    /// The records under the topic's codec, if that is not the one they came in.
    converted: Option<Vec<u8>>,
    /// The largest timestamp of each batch.
    max_timestamps: Vec<Timestamp>,
}

/// Checks everything about the records that does not depend on the log's state, and compresses them anew where
/// the topic asks for another codec than the client chose.
fn check_records(
    records: &[u8],
    config: &LogConfig,
    origin: AppendOrigin,
    now: Timestamp,
) -> Result<Checked, AppendError> {
    let options = validation_options(config, origin, now);
    let (mut converted, mut max_timestamps) = (None::<Vec<u8>>, Vec::with_capacity(1));
    let mut position = 0;
    while position < records.len() {
        let rest = &records[position..];
        let candidate = match origin {
            // A client sends one batch: validation refuses what comes after it.
            AppendOrigin::Client => rest,
            AppendOrigin::Internal => RecordBatch::parse(rest)?.bytes(),
        };
        let valid = CODEC_MEMORY
            .with_borrow_mut(|memory| klamm_record::validate_with(candidate, &options, memory))?;
        max_timestamps.push(valid.max_timestamp);
        let codec = valid.batch.attributes().compression()?;
        if let Some(target) = config.compression().filter(|target| target.codec() != codec) {
            let batch = klamm_record::recompress(&valid.batch, target, options.decompressed_bytes_max)?;
            converted.get_or_insert_with(|| records[..position].to_vec()).extend_from_slice(&batch);
        } else if let Some(converted) = &mut converted {
            converted.extend_from_slice(valid.batch.bytes());
        }
        position += valid.batch.size();
    }
    if max_timestamps.is_empty() {
        return Err(AppendError::Empty);
    }
    for batch in Batches::new(converted.as_deref().unwrap_or(records)) {
        let size = batch?.size();
        let max = config.max_message_bytes as usize;
        if size > max {
            return Err(AppendError::TooLarge { size, max });
        }
    }
    Ok(Checked { converted, max_timestamps })
}

fn validation_options(config: &LogConfig, origin: AppendOrigin, now: Timestamp) -> ValidationOptions {
    ValidationOptions {
        origin: match origin {
            AppendOrigin::Client => Origin::Client,
            AppendOrigin::Internal => Origin::Coordinator,
        },
        key_required: config.cleanup_policy.compact,
        timestamp_type: config.message_timestamp_type,
        now,
        timestamp_before_max_ms: config.message_timestamp_before_max_ms,
        timestamp_after_max_ms: config.message_timestamp_after_max_ms,
        decompressed_bytes_max: DECOMPRESSED_BYTES_MAX,
    }
}

/// Adds index entries for a batch at `position` if it is time, and takes the batch into account. Shared with recovery.
pub(crate) fn index_batch(
    segment: &Segment,
    active: &mut ActiveSegment,
    header: &BatchHeader,
    position: u64,
    interval: u64,
) -> Result<(), StorageError> {
    let mut result = Ok(());
    if active.bytes_since_index_entry > interval
        && let (Some(relative_offset), Ok(position)) =
            (segment.relative(header.last_offset()), u32::try_from(position))
    {
        active.bytes_since_index_entry = 0;
        result = segment.offsets.append(OffsetEntry { relative_offset, position });
        let max = active.max_timestamp;
        if max.timestamp > active.indexed_timestamp
            && let Some(relative_offset) = segment.relative(max.offset)
        {
            active.indexed_timestamp = max.timestamp;
            result =
                result.and(segment.times.append(TimeEntry { timestamp: max.timestamp, relative_offset }));
        }
    }
    active.include(header);
    result
}

fn index_is_full(segment: &Segment, config: &LogConfig) -> Result<bool, StorageError> {
    let bytes = u64::from(config.segment_index_bytes);
    Ok(u64::from(segment.offsets.len()?) >= (bytes / 8).max(1)
        || u64::from(segment.times.len()?) >= (bytes / 12).saturating_sub(1).max(1))
}

/// Turns an index's error into that of an append.
trait DescribeIndex<T> {
    fn describe_index(self, log: &Log) -> Result<T, AppendError>;
}

impl<T> DescribeIndex<T> for Result<T, StorageError> {
    fn describe_index(self, log: &Log) -> Result<T, AppendError> {
        self.map_err(|error| AppendError::Storage(log.dir.log_dir.fail(error)))
    }
}

/// Takes note of a batch in the producers' state. Returns the transaction that it aborts.
pub(crate) fn note_producer(
    writer: &mut Writer,
    header: &BatchHeader,
    marker: Option<&EndTxnMarker>,
) -> Option<AbortedTxn> {
    match marker {
        Some(marker) => writer.producers.on_marker(header, marker),
        None => {
            if !header.attributes().is_control() {
                writer.producers.on_batch(header);
            }
            None
        }
    }
}

/// The transaction marker that a batch is, if it is one.
pub(crate) fn marker_of(batch: &RecordBatch<'_>) -> Result<Option<EndTxnMarker>, BatchError> {
    if !batch.attributes().is_control() {
        return Ok(None);
    }
    let mut records = batch.records(CONTROL_BYTES_MAX)?;
    let record = records.next_record()?;
    match record.map(|record| ControlRecord::parse(&record)) {
        Some(Ok(ControlRecord::EndTxn(marker))) => Ok(Some(marker)),
        // A control record that says nothing of producers, to this version or to any.
        Some(Ok(ControlRecord::Other { .. }) | Err(_)) | None => Ok(None),
    }
}
