//! Making appended records durable.
//!
//! Appending and flushing are separate. A flush takes note of the log end, syncs every file that holds bytes below
//! it, and only then publishes that end as the *flushed end offset*. What belongs to those bytes goes first: the
//! names of new files, the leader epochs, the producer snapshots at segment starts.

use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use klamm_types::{LeaderEpoch, LeaderEpochCache, Offset, Timestamp};

use crate::checkpoint::{LEADER_EPOCH_FILE, PARTITION_METADATA_FILE, render_topic_id, write_epochs};
use crate::error::{Describe as _, LogError};
use crate::fs::{put_file, write_file};
use crate::log::{Log, Offsets};
use crate::names::{FileKind, segment_file_name};
use crate::segment::Segment;

/// What a flush has to do beside syncing the active segment.
#[derive(Debug, Default)]
pub(crate) struct Unflushed {
    /// Segments that were sealed since the last flush.
    pub(crate) sealed: Vec<Arc<Segment>>,
    /// Producer snapshots at segment starts, not written yet.
    pub(crate) snapshots: Vec<(Offset, Arc<[u8]>)>,
    /// The leader epochs changed since they were last written.
    pub(crate) epochs_changed: bool,
    /// The log is new: its directory and its topic id are not durable yet.
    pub(crate) created: bool,
}

impl Unflushed {
    /// Adds a snapshot to be written, in place of one of the same offset that could not be.
    pub(crate) fn add_snapshot(&mut self, offset: Offset, bytes: Arc<[u8]>) {
        self.snapshots.retain(|(known, _)| *known != offset);
        self.snapshots.push((offset, bytes));
    }

    fn is_empty(&self) -> bool {
        self.is_blank() && !self.created
    }

    /// Whether there is nothing to do but to make the log's existence durable.
    pub(crate) fn is_blank(&self) -> bool {
        self.sealed.is_empty() && self.snapshots.is_empty() && !self.epochs_changed
    }
}

/// The part of a log that flushing works on.
#[derive(Debug)]
pub(crate) struct FlushState {
    /// Held throughout a flush or a truncation: they take turns. Taken after the writer's lock, never before it.
    running: Mutex<()>,
    unflushed: Mutex<Unflushed>,
    flushed: Condvar,
    /// The newest leader epoch that the file tells of; -1 if of none. Changes under `running`.
    stored_epoch: AtomicI32,
    /// A flush has been asked for and has not begun.
    requested: AtomicBool,
    /// A flush is wanted soon, and has not been asked for yet.
    soon: AtomicBool,
    /// A chore has been asked for and has not begun.
    chore_requested: AtomicBool,
    listener: Mutex<Option<FlushListener>>,
}

/// Is told the flushed end offset each time it has grown.
#[derive(Clone)]
pub struct FlushListener(pub Arc<dyn Fn(Offset) + Send + Sync>);

impl std::fmt::Debug for FlushListener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FlushListener")
    }
}

impl FlushState {
    /// That of a log whose file tells of these epochs.
    pub(crate) fn new(stored: &LeaderEpochCache) -> Self {
        let state = Self {
            running: Mutex::default(),
            unflushed: Mutex::default(),
            flushed: Condvar::new(),
            stored_epoch: AtomicI32::default(),
            requested: AtomicBool::default(),
            soon: AtomicBool::default(),
            chore_requested: AtomicBool::default(),
            listener: Mutex::default(),
        };
        state.set_stored_epoch(stored);
        state
    }

    /// The newest leader epoch that the file tells of, or may tell of after a crash.
    pub(crate) fn stored_epoch(&self) -> LeaderEpoch {
        LeaderEpoch(self.stored_epoch.load(Ordering::Acquire))
    }

    pub(crate) fn set_stored_epoch(&self, stored: &LeaderEpochCache) {
        let newest = stored.latest().map_or(LeaderEpoch::NONE, |latest| latest.epoch);
        self.stored_epoch.store(newest.0, Ordering::Release);
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Unflushed> {
        self.unflushed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a flush is asked for; tells whether one already was.
    pub(crate) fn set_requested(&self) -> bool {
        self.requested.swap(true, Ordering::AcqRel)
    }

    pub(crate) fn clear_requested(&self) {
        self.requested.store(false, Ordering::Release);
    }

    /// As [`set_requested`](Self::set_requested), for a flush that is wanted soon.
    pub(crate) fn set_soon(&self) -> bool {
        self.soon.swap(true, Ordering::AcqRel)
    }

    pub(crate) fn clear_soon(&self) {
        self.soon.store(false, Ordering::Release);
    }

    /// As [`set_requested`](Self::set_requested), for a chore.
    pub(crate) fn set_chore_requested(&self) -> bool {
        self.chore_requested.swap(true, Ordering::AcqRel)
    }

    pub(crate) fn clear_chore_requested(&self) {
        self.chore_requested.store(false, Ordering::Release);
    }

    /// Keeps flushes out while the files are cut.
    pub(crate) fn exclude(&self) -> MutexGuard<'_, ()> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of a roll. `publish` shows the new segments, so that a flush sees either both or neither.
    pub(crate) fn on_roll(
        &self,
        sealed: Option<Arc<Segment>>,
        snapshot: (Offset, Arc<[u8]>),
        publish: impl FnOnce(),
    ) {
        let mut unflushed = self.lock();
        unflushed.sealed.extend(sealed);
        unflushed.add_snapshot(snapshot.0, snapshot.1);
        publish();
    }
}

impl Log {
    /// Makes everything appended before this call durable and returns the flushed end offset.
    ///
    /// # Errors
    /// The disk's errors; the directory is then out of service, and the flushed end offset has not moved.
    pub fn flush(&self) -> Result<Offset, LogError> {
        let before = self.flushed_end_offset();
        let end = self.flush_quietly()?;
        if end > before {
            self.tell_listener();
        }
        Ok(end)
    }

    /// As [`flush`](Self::flush), for callers that hold the writer's lock: the listener is not told.
    pub(crate) fn flush_quietly(&self) -> Result<Offset, LogError> {
        self.dir.log_dir.check()?;
        let running = self.flush.exclude();
        if self.dir.is_deleted() {
            return Ok(self.flushed_end_offset());
        }
        let (end, work, active) = self.begin_flush();
        if end <= self.flushed_end_offset() && work.is_empty() {
            return Ok(self.flushed_end_offset());
        }
        if cfg!(mutant = "B39") {
            self.publish_flushed(end);
        }
        let postponed = match self.sync_all(&work, &active) {
            Ok(postponed) => postponed,
            Err(error) => return Err(self.give_back(work, error)),
        };
        self.dir.log_dir.check()?;
        self.flush.lock().sealed.splice(..0, postponed);
        self.publish_flushed(end);
        drop(running);
        Ok(end)
    }

    /// Asks the disk to start writing what a flush will have to wait for.
    pub fn start_writeback(&self) {
        self.active_segment().log().start_writeback();
    }

    /// Waits until the flushed end offset has reached `end`, and tells whether it has within `timeout`.
    #[must_use]
    pub fn wait_flushed(&self, end: Offset, timeout: Duration) -> bool {
        let unflushed = self.flush.lock();
        let waiting = |_: &mut Unflushed| self.flushed_end_offset() < end && self.dir.log_dir.check().is_ok();
        let waited = self.flush.flushed.wait_timeout_while(unflushed, timeout, waiting);
        drop(waited);
        self.flushed_end_offset() >= end
    }

    /// Whether the topic's `flush.messages` or `flush.ms` asks for a flush now.
    #[must_use]
    pub fn is_flush_due(&self, now: Timestamp) -> bool {
        let (flushed, end) = (self.flushed_end_offset(), self.log_end_offset());
        let config = self.config();
        let waited = now.0.saturating_sub(self.offsets.last_append.load(Ordering::Relaxed));
        flushed < end && (flushed.distance_to(end) >= config.flush_messages || waited >= config.flush_ms)
    }

    /// Has `listener` told of every advance of the flushed end offset, on the thread that flushes.
    pub fn set_flush_listener(&self, listener: FlushListener) {
        *self.flush.listener.lock().unwrap_or_else(PoisonError::into_inner) = Some(listener);
    }

    /// Wakes whoever waits for a flush, because the directory has failed.
    pub(crate) fn wake_flush_waiters(&self) {
        let _unflushed = self.flush.lock();
        self.flush.flushed.notify_all();
    }

    fn begin_flush(&self) -> (Offset, Unflushed, Arc<Segment>) {
        let mut unflushed = self.flush.lock();
        let end = self.log_end_offset();
        let work = std::mem::take(&mut *unflushed);
        let active = self.active_segment();
        (end, work, active)
    }

    /// Does the work of a flush. Returns the sealed segments whose indexes found no room on the disk: their records
    /// are durable, and the recovery point stays below them.
    fn sync_all(&self, work: &Unflushed, active: &Segment) -> Result<Vec<Arc<Segment>>, LogError> {
        self.dir.log_dir.check()?;
        for (offset, bytes) in &work.snapshots {
            // Never synced: a snapshot that did not survive, or found no room, only makes recovery start from an
            // older one.
            let path = self.dir.file(&segment_file_name(*offset, FileKind::Snapshot));
            match write_file(self.dir.fs(), &path, bytes).describe("write", &path) {
                Err(error) if error.is_full() => {}
                written => written?,
            }
        }
        if work.epochs_changed {
            let epochs = self.leader_epochs();
            write_epochs(self.dir.fs(), &self.dir.file(LEADER_EPOCH_FILE), &epochs)?;
            self.flush.set_stored_epoch(&epochs);
        }
        if let (true, Some(id)) = (work.created, self.topic_id) {
            let path = self.dir.file(PARTITION_METADATA_FILE);
            put_file(self.dir.fs(), &path, render_topic_id(id).as_bytes()).describe("replace", &path)?;
        }
        let mut postponed = Vec::new();
        for sealed in &work.sealed {
            sealed.sync(false)?;
            match sealed.spill_indexes() {
                Ok(()) => sealed.sync(true)?,
                Err(error) if error.is_full() => postponed.push(Arc::clone(sealed)),
                Err(error) => return Err(error.into()),
            }
        }
        active.sync(false)?;
        // A segment's file gets its name durable with its first flush. (Sealed segments that were never flushed lie
        // past the flushed end, too.)
        let new_segment = self.flushed_end_offset() <= active.base_offset();
        if new_segment || work.created || (work.epochs_changed && !cfg!(mutant = "B26")) {
            self.dir.sync()?;
        }
        if work.created {
            self.dir.sync_parent()?;
        }
        Ok(postponed)
    }

    /// After a failed flush: on a full disk the work is still to be done, and nothing was lost. Any other failure
    /// ends the directory's service.
    fn give_back(&self, work: Unflushed, error: LogError) -> LogError {
        let error = match error {
            LogError::Storage(error) if !error.is_full() => LogError::Storage(self.dir.log_dir.fail(error)),
            other => other,
        };
        let mut unflushed = self.flush.lock();
        let newer = std::mem::replace(&mut *unflushed, work);
        unflushed.sealed.extend(newer.sealed);
        unflushed.snapshots.extend(newer.snapshots);
        unflushed.epochs_changed |= newer.epochs_changed;
        unflushed.created |= newer.created;
        error
    }

    fn publish_flushed(&self, end: Offset) {
        debug_assert!(end <= self.log_end_offset(), "INV9: flushed end {end} past the log end");
        let _unflushed = self.flush.lock();
        if end > self.flushed_end_offset() {
            Offsets::store(&self.offsets.flushed_end, end);
        }
        self.flush.flushed.notify_all();
    }

    /// Tells the listener the flushed end offset. Never called with a lock of the log held.
    pub(crate) fn tell_listener(&self) {
        let listener = self.flush.listener.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(FlushListener(listener)) = listener {
            listener(self.flushed_end_offset());
        }
    }
}
