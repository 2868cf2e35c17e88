//! What is done for the logs from time to time.

use std::sync::{Arc, PoisonError};

use klamm_types::{Offset, Timestamp};

use super::{LogManager, ManagedDir};
use crate::checkpoint::OffsetCheckpoint;
use crate::dir::OffsetKind;
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
            managed.dir.doubt_room();
            let logs = self.logs_in(&managed.dir);
            for log in &logs {
                self.ask(managed.flusher.queue(), log, checkpoints, now);
                result = result.and(self.tend(log, retention, now));
            }
            if high_watermarks {
                // With them the recovery points that checkpoints have moved since the last time.
                result = result.and(self.write_checkpoints(managed));
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
    pub(super) fn write_checkpoints(&self, managed: &ManagedDir) -> Result<(), LogError> {
        if !managed.points_lost {
            self.write_offsets(managed, OffsetKind::RecoveryPoint, |log| Some(log.recovery_point()))?;
        }
        let past_zero = |offset| Some(offset).filter(|offset| *offset > Offset::ZERO);
        self.write_offsets(managed, OffsetKind::HighWatermark, |log| past_zero(log.high_watermark()))?;
        self.write_offsets(managed, OffsetKind::LogStart, |log| past_zero(log.log_start_offset()))
    }

    fn write_offsets(
        &self,
        managed: &ManagedDir,
        kind: OffsetKind,
        offset: impl Fn(&Log) -> Option<Offset>,
    ) -> Result<(), LogError> {
        managed.dir.replace_offsets(kind, |stored| {
            // Listed here, under the checkpoint's lock: who makes a log again after it was taken off the list comes for
            // this lock first, so that it never inherits what is written now.
            let logs = self.logs_in(&managed.dir);
            let known = logs.iter().filter_map(|log| Some((log.partition().clone(), offset(log)?)));
            let unopened = managed.unopened.iter().filter_map(|p| Some((p.clone(), *stored.0.get(p)?)));
            OffsetCheckpoint(known.chain(unopened).collect())
        })
    }
}
