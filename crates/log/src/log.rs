//! The log of one partition.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use klamm_record::BatchHeader;
use klamm_types::{
    EpochEndOffset, LeaderEpoch, LeaderEpochCache, Offset, ProducerId, Timestamp, TopicId, TopicPartition,
};

use crate::config::LogConfig;
use crate::dir::{LogDir, PartitionDir};
use crate::error::{LogError, ReadError};
use crate::flush::FlushState;
use crate::producers::{ProducerEntry, Producers};
use crate::read::BoundPositions;
use crate::segment::{MaxTimestamp, Segment};

/// The log of one partition: one writer at a time, many readers.
///
/// ```text
///   log start          last stable   high watermark     flushed end      log end
///   |                  |             |                  |                |
///   +------------------+-------------+------------------+----------------+
///   0 ... deleted      | read_      | read_            | durable         | appended, may be
///                      | committed  | uncommitted      |                 | lost in a power cut
/// ```
///
/// Invariants (INV9): `log start <= last stable <= high watermark <= log end` and `flushed end <= log end`.
/// An offset that was given to a record is given to no other, also after a truncation below it has been undone by
/// new appends of the same leader epoch history.
///
/// # What a returned call promises
/// - [`append_as_leader`](Self::append_as_leader), [`append_as_follower`](Self::append_as_follower): the records are
///   readable up to the log end. Nothing is durable yet.
/// - [`flush`](Self::flush): everything that was appended before the call is durable, and
///   [`flushed_end_offset`](Self::flushed_end_offset) says so.
/// - [`truncate_to`](Self::truncate_to): the records are gone, durably.
///
/// Appends, truncations and other changes take turns under one lock; a reader takes it never, so that reads and
/// writes do not wait for one another.
#[derive(Debug)]
pub struct Log {
    pub(crate) dir: Arc<PartitionDir>,
    pub(crate) topic_id: Option<TopicId>,
    config: RwLock<Arc<LogConfig>>,
    /// Never empty; the last is the active one. Replaced as a whole.
    segments: RwLock<Arc<[Arc<Segment>]>>,
    pub(crate) offsets: Offsets,
    pub(crate) epochs: RwLock<LeaderEpochCache>,
    pub(crate) flush: FlushState,
    pub(crate) bound: Mutex<BoundPositions>,
    /// What recovery found damaged below the flush point, by offset.
    pub(crate) damage: RwLock<Vec<DamagedRange>>,
    /// Segments go only because they lie below the log start.
    keeps_all: AtomicBool,
    pub(crate) writer: Mutex<Writer>,
}

/// The published offsets of a log. Each only ever grows, but for truncation.
#[derive(Debug)]
pub(crate) struct Offsets {
    pub(crate) log_start: AtomicI64,
    pub(crate) high_watermark: AtomicI64,
    pub(crate) log_end: AtomicI64,
    pub(crate) flushed_end: AtomicI64,
    /// What recovery may rely on: durable with indexes, epochs and producer state.
    pub(crate) recovery_point: AtomicI64,
    /// The first offset of a transaction that is not decided for good; `i64::MAX` if there is none.
    pub(crate) first_unstable: AtomicI64,
    /// When something was last appended, in milliseconds of wall-clock time.
    pub(crate) last_append: AtomicI64,
}

impl Offsets {
    pub(crate) const STABLE: i64 = i64::MAX;

    pub(crate) fn load(cell: &AtomicI64) -> Offset {
        Offset(cell.load(Ordering::Acquire))
    }

    pub(crate) fn store(cell: &AtomicI64, offset: Offset) {
        cell.store(offset.0, Ordering::Release);
    }
}

/// What only the writer knows. Held by whoever changes the log.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) producers: Producers,
    pub(crate) active: ActiveSegment,
    /// Segments that were renamed to `*.deleted`, and when they may be removed.
    pub(crate) deleted: Vec<(Timestamp, Arc<Segment>)>,
    /// Bytes appended since the last checkpoint.
    pub(crate) bytes_since_checkpoint: u64,
    /// How often the log was cut: a checkpoint that began before a cut says nothing about what came after it.
    pub(crate) truncations: u64,
    /// The offset of the newest producer snapshot file that does not belong to a segment's start.
    pub(crate) stray_snapshot: Option<Offset>,
    /// The newest leader epoch was noted before it had a batch, and no file was asked to tell of it.
    pub(crate) has_silent_epoch: bool,
}

/// What the writer keeps of the active segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ActiveSegment {
    pub(crate) bytes_since_index_entry: u64,
    pub(crate) max_timestamp: MaxTimestamp,
    /// The newest timestamp that the time index has.
    pub(crate) indexed_timestamp: Timestamp,
    /// The first timestamp of the segment, from which `segment.ms` counts.
    pub(crate) first_timestamp: Option<Timestamp>,
    /// When the segment was made, from which `segment.ms` counts without timestamps.
    pub(crate) created: Timestamp,
}

impl ActiveSegment {
    pub(crate) fn new(now: Timestamp) -> Self {
        Self {
            bytes_since_index_entry: 0,
            max_timestamp: MaxTimestamp::NONE,
            indexed_timestamp: Timestamp::NONE,
            first_timestamp: None,
            created: now,
        }
    }

    /// Takes a batch into account that stands in the segment.
    pub(crate) fn include(&mut self, header: &BatchHeader) {
        self.max_timestamp.include(header);
        self.bytes_since_index_entry += header.size() as u64;
        if self.first_timestamp.is_none() && header.max_timestamp().0 >= 0 {
            self.first_timestamp = Some(header.max_timestamp());
        }
    }
}

/// Offsets whose bytes are damaged although they had been flushed. Nothing is deleted on their account; the range
/// waits for repair from another replica.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DamagedRange {
    /// The first offset that cannot be read.
    pub start: Offset,
    /// The end, exclusive.
    pub end: Offset,
}

impl std::fmt::Display for DamagedRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}..{}", self.start, self.end)
    }
}

/// How many producers a partition remembers, and for how long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProducerLimits {
    /// The most producers; past it the longest silent are forgotten.
    pub count_max: usize,
    /// `producer.id.expiration.ms`: how long a silent producer is remembered.
    pub expiration_ms: i64,
}

impl Default for ProducerLimits {
    /// A million producers (some 200 MB), for a day.
    fn default() -> Self {
        Self { count_max: 1_000_000, expiration_ms: 86_400_000 }
    }
}

/// What a log is made of when it is opened; recovery fills this in.
pub(crate) struct Parts {
    pub(crate) dir: Arc<PartitionDir>,
    /// The topic's id, and whether the directory was just made for it.
    pub(crate) topic_id: Option<TopicId>,
    pub(crate) created: bool,
    pub(crate) config: Arc<LogConfig>,
    pub(crate) segments: Vec<Arc<Segment>>,
    pub(crate) active: ActiveSegment,
    pub(crate) epochs: LeaderEpochCache,
    pub(crate) producers: Producers,
    pub(crate) damage: Vec<DamagedRange>,
    pub(crate) stray_snapshot: Option<Offset>,
    pub(crate) log_start: Offset,
    pub(crate) high_watermark: Offset,
    pub(crate) log_end: Offset,
    pub(crate) recovery_point: Offset,
}

impl Log {
    pub(crate) fn assemble(parts: Parts) -> Arc<Self> {
        let unstable = parts.producers.first_unstable_offset().map_or(Offsets::STABLE, |offset| offset.0);
        let log = Self {
            dir: parts.dir,
            topic_id: parts.topic_id,
            config: RwLock::new(parts.config),
            segments: RwLock::new(parts.segments.into()),
            offsets: Offsets {
                log_start: AtomicI64::new(parts.log_start.0),
                high_watermark: AtomicI64::new(parts.high_watermark.0),
                log_end: AtomicI64::new(parts.log_end.0),
                flushed_end: AtomicI64::new(parts.log_end.0),
                recovery_point: AtomicI64::new(parts.recovery_point.0),
                first_unstable: AtomicI64::new(unstable),
                last_append: AtomicI64::new(parts.active.created.0),
            },
            flush: FlushState::new(&parts.epochs),
            epochs: RwLock::new(parts.epochs),
            bound: Mutex::default(),
            damage: RwLock::new(parts.damage),
            keeps_all: AtomicBool::new(false),
            writer: Mutex::new(Writer {
                producers: parts.producers,
                active: parts.active,
                deleted: Vec::new(),
                bytes_since_checkpoint: 0,
                has_silent_epoch: false,
                truncations: 0,
                stray_snapshot: parts.stray_snapshot,
            }),
        };
        log.flush.lock().created = parts.created;
        log.check_invariants();
        Arc::new(log)
    }

    /// Whose log this is.
    #[must_use]
    pub fn partition(&self) -> &TopicPartition {
        &self.dir.partition
    }

    /// The id of its topic, if its directory says so.
    #[must_use]
    pub fn topic_id(&self) -> Option<TopicId> {
        self.topic_id
    }

    /// The log directory that holds it.
    #[must_use]
    pub fn log_dir(&self) -> &Arc<LogDir> {
        &self.dir.log_dir
    }

    /// The settings in force.
    #[must_use]
    pub fn config(&self) -> Arc<LogConfig> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts other settings in force, from the next append on.
    pub fn set_config(&self, config: Arc<LogConfig>) {
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
    }

    /// Whether age and size make segments go, as they do at first. They do not in a follower's log, whose start moves
    /// with its leader's alone.
    pub fn set_retention(&self, is_on: bool) {
        self.keeps_all.store(!is_on, Ordering::Relaxed);
    }

    pub(crate) fn keeps_all(&self) -> bool {
        self.keeps_all.load(Ordering::Relaxed)
    }

    /// The first offset that is still there.
    #[must_use]
    pub fn log_start_offset(&self) -> Offset {
        Offsets::load(&self.offsets.log_start)
    }

    /// The end of what every in-sync replica has, as the replica told with
    /// [`advance_high_watermark`](Self::advance_high_watermark).
    #[must_use]
    pub fn high_watermark(&self) -> Offset {
        Offsets::load(&self.offsets.high_watermark)
    }

    /// The end of what a `read_committed` consumer may see: the high watermark, or the start of the first
    /// transaction below it that is not decided for good.
    #[must_use]
    pub fn last_stable_offset(&self) -> Offset {
        // The high watermark first: a transaction that opens meanwhile starts at or past it.
        let high_watermark = self.high_watermark();
        let stable = Offsets::load(&self.offsets.first_unstable).min(high_watermark);
        // The start of an open transaction may have been deleted.
        stable.max(self.log_start_offset().min(high_watermark))
    }

    /// The offset that the next record gets.
    #[must_use]
    pub fn log_end_offset(&self) -> Offset {
        Offsets::load(&self.offsets.log_end)
    }

    /// The end of what survives a power cut. Acknowledge nothing past it.
    #[must_use]
    pub fn flushed_end_offset(&self) -> Offset {
        Offsets::load(&self.offsets.flushed_end)
    }

    /// The offset from which a recovery would look for damage.
    #[must_use]
    pub fn recovery_point(&self) -> Offset {
        Offsets::load(&self.offsets.recovery_point)
    }

    /// Bytes of all segments.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.segments().iter().map(|segment| segment.size()).sum()
    }

    /// How many segments there are; at least one.
    #[must_use]
    pub fn segment_count(&self) -> usize {
        self.segments().len()
    }

    /// The damage that recovery found below the flush point and that has not been repaired.
    #[must_use]
    pub fn damage(&self) -> Vec<DamagedRange> {
        self.damage.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Raises the high watermark to `to`, at most to the log end. Tells whether it grew.
    pub fn advance_high_watermark(&self, to: Offset) -> bool {
        let to = to.min(self.log_end_offset());
        let before = self.offsets.high_watermark.fetch_max(to.0, Ordering::AcqRel);
        if before >= to.0 {
            return false;
        }
        if self.offsets.first_unstable.load(Ordering::Acquire) != Offsets::STABLE {
            let mut writer = self.writer();
            if writer.producers.on_high_watermark(to) {
                self.publish_first_unstable(&writer);
            }
        }
        true
    }

    pub(crate) fn publish_first_unstable(&self, writer: &Writer) {
        let unstable = writer.producers.first_unstable_offset().map_or(Offsets::STABLE, |offset| offset.0);
        self.offsets.first_unstable.store(unstable, Ordering::Release);
    }

    /// Notes that `epoch` starts at the log end: a new leader does this before its first append, also if it never
    /// appends (KAFKA-7415). Tells whether the epoch is new.
    ///
    /// In memory only, until the epoch has a batch: one that wrote nothing is asked for while its leader lives, and
    /// forgotten by the next step of the replica after that. A broker that starts would otherwise write a file for each
    /// of its partitions before it served one.
    pub fn assign_epoch_start(&self, epoch: LeaderEpoch) -> bool {
        let mut writer = self.writer();
        let mut epochs = self.epochs.write().unwrap_or_else(PoisonError::into_inner);
        let is_new = epochs.assign(epoch, self.log_end_offset());
        writer.has_silent_epoch |= is_new;
        is_new
    }

    /// Notes the epoch of a batch that was written at `base`. The first of its epoch has the epochs written with the next
    /// flush.
    pub(crate) fn note_epoch_of_batch(&self, writer: &mut Writer, epoch: LeaderEpoch, base: Offset) {
        let is_new = self.epochs.write().unwrap_or_else(PoisonError::into_inner).assign(epoch, base);
        if is_new | std::mem::take(&mut writer.has_silent_epoch) {
            self.flush.lock().epochs_changed = true;
        }
    }

    /// The newest leader epoch of the log.
    #[must_use]
    pub fn latest_epoch(&self) -> Option<LeaderEpoch> {
        let epochs = self.epochs.read().unwrap_or_else(PoisonError::into_inner);
        epochs.latest().map(|entry| entry.epoch)
    }

    /// The history of leader epochs.
    #[must_use]
    pub fn leader_epochs(&self) -> LeaderEpochCache {
        self.epochs.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where `epoch` ended in this log; see [`LeaderEpochCache::end_offset_for`].
    #[must_use]
    pub fn end_offset_for_epoch(&self, epoch: LeaderEpoch) -> Option<EpochEndOffset> {
        let epochs = self.epochs.read().unwrap_or_else(PoisonError::into_inner);
        epochs.end_offset_for(epoch, self.log_end_offset())
    }

    /// The state of each producer, by id.
    #[must_use]
    pub fn producers(&self) -> Vec<(ProducerId, ProducerEntry)> {
        self.writer().producers.entries()
    }

    /// Forgets producers that have been silent for longer than `limits` allow.
    pub fn expire_producers(&self, now: Timestamp, limits: &ProducerLimits) {
        let mut writer = self.writer();
        if !writer.producers.is_empty() {
            writer.producers.expire(now, limits.expiration_ms);
        }
    }

    pub(crate) fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn segments(&self) -> Arc<[Arc<Segment>]> {
        Arc::clone(&self.segments.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Shows readers other segments. The caller holds the writer's lock.
    pub(crate) fn publish_segments(&self, segments: Vec<Arc<Segment>>) {
        assert!(!segments.is_empty(), "a log has an active segment");
        debug_assert!(segments.is_sorted_by_key(|segment| segment.base_offset()));
        *self.segments.write().unwrap_or_else(PoisonError::into_inner) = segments.into();
    }

    /// Refuses an offset that lies in a damaged range.
    pub(crate) fn check_damage(&self, offset: Offset) -> Result<(), ReadError> {
        let damage = self.damage.read().unwrap_or_else(PoisonError::into_inner);
        match damage.iter().find(|range| range.start <= offset && offset < range.end) {
            Some(range) => Err(ReadError::Damaged { offset, range: *range }),
            None => Ok(()),
        }
    }

    pub(crate) fn out_of_range(&self, verb: &'static str, offset: Offset) -> LogError {
        LogError::OutOfRange {
            verb,
            offset,
            log_start_offset: self.log_start_offset(),
            log_end_offset: self.log_end_offset(),
            high_watermark: self.high_watermark(),
        }
    }

    /// INV9. Called with the writer's lock held, or before anybody else has the log.
    pub(crate) fn check_invariants(&self) {
        let (start, hw, end) = (self.log_start_offset(), self.high_watermark(), self.log_end_offset());
        debug_assert!(
            start <= hw && hw <= end,
            "INV9: log start {start}, high watermark {hw}, log end {end}"
        );
        let flushed = self.flushed_end_offset();
        debug_assert!(flushed <= end, "INV9: flushed end {flushed}, log end {end}");
        let recovery_point = self.recovery_point();
        debug_assert!(recovery_point <= flushed, "recovery point {recovery_point}, flushed end {flushed}");
    }
}

/// The segments of `segments` that may hold offsets from `offset` on: the index of the first.
pub(crate) fn floor_segment(segments: &[Arc<Segment>], offset: Offset) -> usize {
    segments.partition_point(|segment| segment.base_offset() <= offset).saturating_sub(1)
}
