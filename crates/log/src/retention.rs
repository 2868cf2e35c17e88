//! What a log no longer needs to keep: old segments, and what lies before its start.

use std::sync::{Arc, PoisonError};

use klamm_types::{Offset, Timestamp};

use crate::config::LogConfig;
use crate::error::{AppendError, LogError};
use crate::log::{Log, Offsets, Writer};
use crate::segment::Segment;

impl Log {
    /// Raises the log start to `to`, for a request to delete records or because the leader's start has moved.
    /// Whole segments below it go with the next [`apply_retention`](Self::apply_retention). Tells whether it grew.
    ///
    /// # Errors
    /// [`LogError::OutOfRange`] past the high watermark.
    pub fn advance_log_start(&self, to: Offset) -> Result<bool, LogError> {
        self.dir.log_dir.check()?;
        let _writer = self.writer();
        if to > self.high_watermark() {
            return Err(self.out_of_range("move the log start", to));
        }
        Ok(self.raise_log_start(to))
    }

    fn raise_log_start(&self, to: Offset) -> bool {
        if to <= self.log_start_offset() {
            return false;
        }
        Offsets::store(&self.offsets.log_start, to);
        self.damage.write().unwrap_or_else(PoisonError::into_inner).retain(|range| range.end > to);
        true
    }

    /// Forgets the leader epochs of segments that are gone. A log start within a segment forgets none: after a crash it
    /// may be lower again, and where an epoch began in a gap the batches could not tell.
    fn forget_epochs_below(&self, first: Offset) {
        if first == self.log_start_offset() {
            let mut unflushed = self.flush.lock();
            unflushed.epochs_changed |=
                self.epochs.write().unwrap_or_else(PoisonError::into_inner).truncate_from_start(first);
        }
    }

    /// Takes out of the log what its settings no longer keep: by age (`retention.ms`), by size (`retention.bytes`),
    /// and what lies below the log start. Only whole segments below the high watermark go; an active segment that
    /// has outlived its time is sealed first. Returns how many segments went.
    ///
    /// Readers that are in the middle of a segment read on; its files are removed once `file.delete.delay.ms` has
    /// passed, by [`remove_deleted`](Self::remove_deleted).
    ///
    /// # Errors
    /// The disk's errors.
    pub fn apply_retention(&self, now: Timestamp) -> Result<usize, LogError> {
        self.dir.log_dir.check()?;
        if self.dir.is_deleted() {
            return Ok(0);
        }
        let gone = self.retire_expired(now)?;
        if gone > 0 {
            self.tell_listener();
        }
        Ok(gone)
    }

    fn retire_expired(&self, now: Timestamp) -> Result<usize, LogError> {
        let mut writer = self.writer();
        let config = self.config();
        let mut count = self.expired(&config, now)?;
        if count == 0 {
            return Ok(0);
        }
        if count == self.segments().len() {
            let end = self.log_end_offset();
            self.roll_at(&mut writer, end, now).map_err(into_log_error)?;
        }
        // The name of the segment that goes on must not be lost together with those that go.
        self.flush_quietly()?;
        let segments = self.segments();
        count = count.min(segments.len() - 1);
        let (gone, kept) = segments.split_at(count);
        self.raise_log_start(kept[0].base_offset());
        self.publish_segments(kept.to_vec());
        self.forget_bound_position();
        self.retire(&mut writer, gone, now)?;
        self.forget_epochs_below(kept[0].base_offset());
        self.check_invariants();
        Ok(count)
    }

    /// Renames the files of segments, oldest first, so that a crash leaves a log without a hole.
    fn retire(&self, writer: &mut Writer, gone: &[Arc<Segment>], now: Timestamp) -> Result<(), LogError> {
        for segment in gone {
            segment.rename_to_deleted()?;
            writer.deleted.push((now, Arc::clone(segment)));
        }
        let start = self.segments()[0].base_offset();
        self.remove_snapshots(|offset| offset < start)?;
        Ok(self.dir.sync()?)
    }

    /// How many segments, from the oldest, need not be kept.
    fn expired(&self, config: &LogConfig, now: Timestamp) -> Result<usize, LogError> {
        let segments = self.segments();
        let high_watermark = self.high_watermark();
        let log_start = self.log_start_offset();
        let delete = config.cleanup_policy.delete && !self.keeps_all();
        let mut surplus = match config.retention_bytes {
            Some(keep) if delete => self.size_bytes().saturating_sub(keep),
            _ => 0,
        };
        let mut count = 0;
        for (i, segment) in segments.iter().enumerate() {
            let is_active = i + 1 == segments.len();
            let end = segments.get(i + 1).map_or(self.log_end_offset(), |next| next.base_offset());
            if segment.size() == 0 || end > high_watermark {
                break;
            }
            let below_start = end <= log_start;
            let oversize = !is_active && surplus >= segment.size();
            let goes = below_start || oversize || (delete && is_too_old(segment, config, now)?);
            if !goes {
                break;
            }
            surplus = surplus.saturating_sub(segment.size());
            count = i + 1;
        }
        Ok(count)
    }

    /// Removes the files of segments that left the log `file.delete.delay.ms` ago or longer. Returns how many
    /// segments still wait.
    ///
    /// # Errors
    /// The disk's errors.
    pub fn remove_deleted(&self, now: Timestamp) -> Result<usize, LogError> {
        let mut writer = self.writer();
        let delay = self.config().file_delete_delay_ms;
        let due = writer.deleted.partition_point(|(since, _)| now.millis_since(*since) >= delay);
        for (_, segment) in writer.deleted.drain(..due) {
            segment.remove_files()?;
        }
        Ok(writer.deleted.len())
    }
}

fn is_too_old(segment: &Segment, config: &LogConfig, now: Timestamp) -> Result<bool, LogError> {
    let Some(retention_ms) = config.retention_ms else { return Ok(false) };
    // Records without timestamps have no age: they go by size alone.
    let newest = segment.max_timestamp()?.timestamp;
    Ok(newest.0 >= 0 && now.millis_since(newest) > retention_ms)
}

fn into_log_error(error: AppendError) -> LogError {
    match error {
        AppendError::Storage(error) | AppendError::Full(error) => LogError::Storage(error),
        AppendError::Offline(error) => LogError::Offline(error),
        // A roll neither checks nor takes records.
        other => unreachable!("a roll cannot fail with: {other}"),
    }
}
