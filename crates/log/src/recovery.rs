//! Opening a log: from what a crash left to a log that keeps its promises.
//!
//! Named passes, in this order; each may be interrupted by a crash and run again:
//!
//! 1. [`names`](self::names): strip temporary and deleted files, settle interrupted swaps of compaction, list the
//!    segments;
//! 2. [`tail`](self::tail): walk what lies past the recovery point, batch by batch; cut a torn tail, report damage
//!    that lies below the flush point, make the indexes again;
//! 3. [`epochs`](self::epochs): read the leader epochs, drop those that the batches contradict, add those that the
//!    batches show;
//! 4. producers: load the newest usable snapshot and replay the batches after it;
//! 5. make what was found durable.
//!
//! The cost is that of the tail past the recovery point, however long the log is: segments below it are not opened.
//!
//! **Torn or rotten?** A power cut may leave anything where bytes had not been flushed: such a *torn tail* is cut
//! off, as nobody was promised those bytes. Damage below the flush point is *rot*: the bytes were promised. It is
//! reported as a [`DamagedRange`], nothing is cut, and the offsets are never used again.

use std::sync::Arc;

use klamm_types::{Offset, Timestamp, TopicId, TopicPartition};

use crate::append::marker_of;
use crate::checkpoint::{
    LEADER_EPOCH_FILE, PARTITION_METADATA_FILE, read_topic_id, render_topic_id, write_epochs,
};
use crate::config::LogConfig;
use crate::dir::{LogDir, PartitionDir};
use crate::error::{Describe as _, LogError};
use crate::fs::{LogFile, write_file};
use crate::index::{AbortedTxn, IndexEntry as _};
use crate::log::{ActiveSegment, DamagedRange, Log, Parts, ProducerLimits, floor_segment};
use crate::names::{FileKind, segment_file_name};
use crate::producers::{Producers, snapshot};
use crate::scan::{BatchScanner, Scanned, Sound, read_batch};
use crate::segment::{MaxTimestamp, Segment};

mod epochs;
pub(crate) mod names;
mod tail;

/// What is known of a log when it is opened.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// The log directory.
    pub log_dir: Arc<LogDir>,
    /// Whose log it is. Its directory is made if it does not exist.
    pub partition: TopicPartition,
    /// The topic's id: written into a new directory, compared with that of an old one.
    pub topic_id: Option<TopicId>,
    /// The topic's settings.
    pub config: Arc<LogConfig>,
    /// How many producers to remember.
    pub producers: ProducerLimits,
    /// How far the log is known to have been flushed.
    pub flush_point: FlushPoint,
    /// The log start, from the directory's checkpoint; zero if it is not there.
    pub log_start_offset: Offset,
    /// The high watermark, from the directory's checkpoint; zero if it is not there.
    pub high_watermark: Offset,
    /// The time now.
    pub now: Timestamp,
}

/// How far a log is known to have been flushed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FlushPoint {
    /// Everything below was durable, with indexes, epochs and producer state; zero if nothing is known to be.
    Known(Offset),
    /// The checkpoint is lost. Damage with whole batches after it then counts as rot, other damage as torn.
    Lost,
}

impl FlushPoint {
    fn offset(self) -> Offset {
        match self {
            Self::Known(offset) => offset,
            Self::Lost => Offset::ZERO,
        }
    }
}

/// What recovery found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Bytes read to look for damage.
    pub scanned_bytes: u64,
    /// Bytes of a torn tail that were cut off.
    pub truncated_bytes: u64,
    /// Some of the bytes that were cut off may have been flushed and have rotted since. If this is false, their place shows that
    /// no flush had covered them: the file ends within the header of a batch, or the sector that holds the end of the last
    /// whole batch goes on with nothing but zeros.
    pub cut_may_have_been_flushed: bool,
    /// Whole batches stood after the damage at which the tail was cut. They had not been flushed, but more than one
    /// torn write must have happened.
    pub batches_after_tear: bool,
    /// Damage below the flush point. Nothing was cut there.
    pub damage: Vec<DamagedRange>,
    /// Segments whose indexes were made again.
    pub reindexed_segments: usize,
    /// Files that a crash had left over and that were removed.
    pub removed_files: usize,
}

impl Log {
    /// Opens the log of a partition, recovering it if need be. Its directory is created if it does not exist.
    ///
    /// On return everything in the log is durable.
    ///
    /// # Errors
    /// [`LogError::Damaged`] if the directory belongs to another topic; the disk's errors.
    pub fn open(options: OpenOptions) -> Result<(Arc<Self>, RecoveryReport), LogError> {
        options.log_dir.check()?;
        let dir = PartitionDir::new(Arc::clone(&options.log_dir), options.partition.clone());
        // Nothing of a log that was never checkpointed is known to be durable, not even its directory.
        let is_new = options.flush_point.offset() == Offset::ZERO;
        let topic_id = identify(&dir, options.topic_id, is_new)?;
        let mut report = RecoveryReport::default();
        let listing = names::pass(&dir, &mut report)?;
        let tail = tail::pass(&dir, &options, &listing, &mut report)?;
        let log_start = options.log_start_offset.clamp(tail.segments[0].base_offset(), tail.log_end);
        let (epochs, epochs_changed) = epochs::pass(&dir, &tail, log_start)?;
        let mut producers = Producers::new(options.producers.count_max);
        let listed = listing.snapshots.len();
        let mut snapshots =
            usable_snapshots(&dir, listing.snapshots, options.flush_point.offset().min(tail.log_end))?;
        let snapshots_removed = snapshots.len() < listed;
        let stray_snapshot =
            snapshots.iter().rev().find(|s| !tail.segments.iter().any(|t| t.base_offset() == **s));
        let stray_snapshot = stray_snapshot.copied();
        if let Some(lost_from) = tail.txns_lost_from {
            // Told again from before them; what is known of the producers otherwise stays.
            let older = snapshots.iter().copied().filter(|snapshot| *snapshot <= lost_from).collect();
            rebuild_producers(&dir, &tail.segments, &mut producers, older, log_start)?;
            let left = names::snapshots(&dir)?;
            snapshots.retain(|snapshot| left.contains(snapshot));
        }
        rebuild_producers(&dir, &tail.segments, &mut producers, snapshots, log_start)?;
        if epochs_changed {
            write_epochs(dir.fs(), &dir.file(LEADER_EPOCH_FILE), &epochs)?;
        }
        // A snapshot of batches that were lost must not come back once others stand in their place.
        let names_changed = report.removed_files > 0 || snapshots_removed;
        let changed = epochs_changed || names_changed || !tail.touched.is_empty();
        for segment in &tail.touched {
            segment.spill_indexes()?;
            segment.sync(true)?;
        }
        if changed {
            dir.sync()?;
        }
        let high_watermark = options.high_watermark.clamp(log_start, tail.log_end);
        producers.on_high_watermark(high_watermark);
        let log = Self::assemble(Parts {
            dir,
            topic_id,
            created: is_new,
            config: options.config,
            segments: tail.segments,
            active: tail.active,
            epochs,
            producers,
            damage: report.damage.clone(),
            stray_snapshot,
            log_start,
            high_watermark,
            log_end: tail.log_end,
            recovery_point: options.flush_point.offset().min(tail.log_end),
        });
        if is_new && log.log_end_offset() > log.log_start_offset() {
            log.flush()?;
        }
        Ok((log, report))
    }
}

/// Makes sure that the directory exists and belongs to the topic; returns the topic's id, if it is known. What is made
/// here becomes durable with the log's first flush.
fn identify(dir: &PartitionDir, wanted: Option<TopicId>, is_new: bool) -> Result<Option<TopicId>, LogError> {
    let path = dir.path();
    dir.fs().create_dir_all(&path).describe("create", &path)?;
    let metadata = path.join(PARTITION_METADATA_FILE);
    let found = match read_topic_id(dir.fs(), &metadata) {
        // Torn, as everything in a log may be that was never flushed.
        Err(LogError::Damaged { .. }) if is_new => None,
        read => read?,
    };
    match (wanted, found) {
        (Some(wanted), Some(found)) if wanted != found => Err(LogError::Damaged {
            path: metadata,
            reason: format!("it belongs to topic {found}, not {wanted}"),
        }),
        (Some(wanted), None) => {
            let text = render_topic_id(wanted);
            write_file(dir.fs(), &metadata, text.as_bytes()).describe("write", &metadata)?;
            Ok(Some(wanted))
        }
        (_, found) => Ok(found),
    }
}

/// Removes the producer snapshots past `end`: what they tell of may not have survived, or has to be told again to the
/// transaction index.
fn usable_snapshots(
    dir: &PartitionDir,
    mut snapshots: Vec<Offset>,
    end: Offset,
) -> Result<Vec<Offset>, LogError> {
    let usable = snapshots.partition_point(|offset| *offset <= end);
    for offset in snapshots.drain(usable..) {
        let path = dir.file(&segment_file_name(offset, FileKind::Snapshot));
        dir.fs().remove_file(&path).describe("remove", &path)?;
    }
    Ok(snapshots)
}

/// Makes the producers' state at the log end: from the newest of `snapshots` that reads, by replaying the batches
/// after it. Snapshots that do not read are removed. Aborted transactions that the index does not have are added.
pub(crate) fn rebuild_producers(
    dir: &PartitionDir,
    segments: &[Arc<Segment>],
    producers: &mut Producers,
    mut snapshots: Vec<Offset>,
    log_start: Offset,
) -> Result<(), LogError> {
    producers.clear();
    let mut from = log_start;
    // After one from below the first segment, batches would be missing.
    snapshots.retain(|offset| *offset >= segments[0].base_offset());
    while let Some(offset) = snapshots.pop() {
        let path = dir.file(&segment_file_name(offset, FileKind::Snapshot));
        match snapshot::read(producers, dir.fs(), &path) {
            Ok(()) => {
                from = offset;
                break;
            }
            Err(LogError::Damaged { .. }) => {
                producers.clear();
                dir.fs().remove_file(&path).describe("remove", &path)?;
            }
            Err(error) => return Err(error),
        }
    }
    for segment in &segments[floor_segment(segments, from)..] {
        let start = segment.position_of(from, segment.size())?;
        let mut aborted = Vec::new();
        for_each_batch(segment, start, |batch, file| {
            if batch.header.base_offset() >= from && batch.header.has_producer_id() {
                aborted.extend(replay(producers, batch, file)?);
            }
            Ok(())
        })?;
        for txn in aborted {
            if segment.txns.last()?.is_none_or(|last| txn.follows(&last)) {
                segment.txns.append(txn)?;
            }
        }
    }
    Ok(())
}

/// Takes a batch into account. Returns the transaction that it aborts.
fn replay(
    producers: &mut Producers,
    batch: &Scanned,
    file: &dyn LogFile,
) -> std::io::Result<Option<AbortedTxn>> {
    if !batch.header.attributes().is_control() {
        producers.on_batch(&batch.header);
        return Ok(None);
    }
    let bytes = read_batch(file, batch)?;
    let marker = klamm_record::RecordBatch::parse(&bytes).and_then(|batch| marker_of(&batch));
    // A control batch that is no marker tells nothing of producers.
    Ok(marker.ok().flatten().and_then(|marker| producers.on_marker(&batch.header, &marker)))
}

/// Calls `visit` for every batch of a segment from `position` on, past damage.
fn for_each_batch(
    segment: &Segment,
    position: u64,
    mut visit: impl FnMut(&Scanned, &dyn LogFile) -> std::io::Result<()>,
) -> Result<(), LogError> {
    if segment.size() == 0 {
        return Ok(());
    }
    let file = segment.open_log()?;
    let mut batches = segment.batches(file.as_ref(), position, BatchScanner::BULK_BUFFER);
    while let Some(next) = batches.next().describe("read", &segment.log().path())? {
        // Damage is for the tail's pass to report, or for a reader.
        if let Sound::Batch(batch) = next {
            visit(&batch, file.as_ref()).describe("read", &segment.log().path())?;
        }
    }
    Ok(())
}

impl ActiveSegment {
    /// The writer's view of a segment up to its last index entry.
    fn after_index(segment: &Segment, now: Timestamp) -> Result<Self, LogError> {
        let mut active = Self::new(now);
        if let Some(last) = segment.times.last()? {
            let offset = segment.base_offset().plus(i64::from(last.relative_offset));
            active.max_timestamp = MaxTimestamp { timestamp: last.timestamp, offset };
            active.indexed_timestamp = last.timestamp;
        }
        Ok(active)
    }

    /// The writer's view of a segment, from its indexes and the few batches after their last entry.
    pub(crate) fn load(segment: &Segment, now: Timestamp) -> Result<Self, LogError> {
        let mut active = Self::after_index(segment, now)?;
        let position = segment.offsets.last()?.map_or(0, |entry| u64::from(entry.position));
        for_each_batch(segment, position, |batch, _| {
            active.include(&batch.header);
            Ok(())
        })?;
        active.first_timestamp = None;
        if segment.size() > 0 {
            // `segment.ms` counts from the first batch.
            let file = segment.open_log()?;
            let mut scanner =
                BatchScanner::new(file.as_ref(), 0, segment.size(), BatchScanner::LOOKUP_BUFFER);
            if let Ok(Some(batch)) = scanner.next() {
                active.first_timestamp = Some(batch.header.max_timestamp()).filter(|t| t.0 >= 0);
            }
        }
        Ok(active)
    }
}

impl Log {
    /// Removes the producer snapshots of the offsets that `unwanted` names, and tells whether there were any.
    pub(crate) fn remove_snapshots(&self, unwanted: impl Fn(Offset) -> bool) -> Result<bool, LogError> {
        let mut removed = false;
        for offset in names::snapshots(&self.dir)?.into_iter().filter(|offset| unwanted(*offset)) {
            let path = self.dir.file(&segment_file_name(offset, FileKind::Snapshot));
            self.dir.log_dir.watch(self.dir.fs().remove_file(&path).describe("remove", &path))?;
            removed = true;
        }
        Ok(removed)
    }
}
