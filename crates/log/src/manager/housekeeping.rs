//! What is done for the logs from time to time.

use std::hash::BuildHasher as _;
use std::sync::{Arc, PoisonError};

use klamm_types::{Offset, Timestamp};

use super::{HIGH_WATERMARK_FILE, LogManager, ManagedDir};
use crate::checkpoint::OffsetCheckpoint;
use crate::dir::LOG_START_FILE;
use crate::error::LogError;
use crate::flusher::{FlushQueue, Task};
use crate::log::Log;

/// When each kind of work was last done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    checkpoints: Timestamp,
    high_watermarks: Timestamp,
    retention: Timestamp,
}

impl Schedule {
    pub(super) fn starting(now: Timestamp) -> Self {
        Self { checkpoints: now, high_watermarks: now, retention: now }
    }
}

/// Tells whether `interval_ms` has passed since `last`, and starts the next interval if so.
fn is_due(last: &mut Timestamp, interval_ms: i64, now: Timestamp) -> bool {
    let due = now.millis_since(*last) >= interval_ms;
    if due {
        *last = now;
    }
    due
}

impl LogManager {
    /// Does what is due at `now`: asks for flushes that topics' settings want, checkpoints logs, writes high
    /// watermarks and log starts, applies retention, removes what was deleted, lets idle logs give back their files.
    /// To be called every second or so, by one thread.
    ///
    /// # Errors
    /// The first error; the work that did not depend on it has been done. A directory whose disk failed is out of
    /// service.
    pub fn tick(&self, now: Timestamp) -> Result<(), LogError> {
        let mut schedule = self.schedule.lock().unwrap_or_else(PoisonError::into_inner);
        let options = &self.options;
        let checkpoints = is_due(&mut schedule.checkpoints, options.checkpoint_interval_ms, now);
        let high_watermarks = is_due(&mut schedule.high_watermarks, options.high_watermark_interval_ms, now);
        let retention = is_due(&mut schedule.retention, options.retention_interval_ms, now);
        let mut result = self.remove_deleted_dirs(now);
        for managed in self.dirs.iter().filter(|managed| managed.dir.check().is_ok()) {
            let logs = self.logs_in(&managed.dir);
            for log in &logs {
                self.ask(managed.flusher.queue(), log, checkpoints, now);
                result = result.and(self.tend(log, retention, now));
            }
            if high_watermarks {
                // With them the recovery points that checkpoints have moved since the last time.
                result = result.and(self.write_checkpoints(managed, &logs));
            }
        }
        result
    }

    /// Asks for what waits for the disk: the flush that the topic's settings want, a checkpoint (of every log that
    /// has changed when `all`, otherwise of those that have much to recover), or rest.
    fn ask(&self, queue: &FlushQueue, log: &Arc<Log>, all: bool, now: Timestamp) {
        if log.is_flush_due(now) {
            queue.request(log);
        }
        let bytes = log.bytes_since_checkpoint();
        if log.is_idle(now, self.options.idle_after_ms) {
            queue.request_chore(log, Task::Release);
        } else if bytes >= self.options.checkpoint_bytes_max || (all && bytes > 0) {
            queue.request_chore(log, Task::Checkpoint);
        }
    }

    /// Retention, and removal of deleted segments.
    fn tend(&self, log: &Log, retention: bool, now: Timestamp) -> Result<(), LogError> {
        if retention {
            log.apply_retention(now)?;
            log.expire_producers(now, &self.options.producers);
        }
        log.remove_deleted(now).map(|_| ())
    }

    /// Writes the recovery points, high watermarks and log starts of a directory, as far as they have changed.
    pub(super) fn write_checkpoints(&self, managed: &ManagedDir, logs: &[Arc<Log>]) -> Result<(), LogError> {
        let points = logs.iter().map(|log| (log.partition().clone(), Some(log.recovery_point())));
        managed.dir.store_recovery_points(points)?;
        self.write_checkpoint(managed, HIGH_WATERMARK_FILE, logs, Log::high_watermark)?;
        self.write_checkpoint(managed, LOG_START_FILE, logs, Log::log_start_offset)
    }

    fn write_checkpoint(
        &self,
        managed: &ManagedDir,
        name: &'static str,
        logs: &[Arc<Log>],
        offset: impl Fn(&Log) -> Offset,
    ) -> Result<(), LogError> {
        let known = logs.iter().map(|log| (log.partition().clone(), offset(log)));
        let checkpoint = OffsetCheckpoint(known.filter(|(_, offset)| *offset > Offset::ZERO).collect());
        let fingerprint = self.hasher.hash_one(&checkpoint.0);
        let mut written = managed.written.lock().unwrap_or_else(PoisonError::into_inner);
        if written.get(name) == Some(&fingerprint) {
            return Ok(());
        }
        managed.dir.guard(checkpoint.write(self.fs.as_ref(), &managed.dir.path().join(name)))?;
        written.insert(name, fingerprint);
        Ok(())
    }
}
