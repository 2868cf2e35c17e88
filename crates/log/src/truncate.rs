//! Cutting a log: a follower's end, a whole log, what retention no longer keeps.

use std::sync::{Arc, PoisonError};

use klamm_types::{LeaderEpoch, Offset, Timestamp};

use crate::checkpoint::{LEADER_EPOCH_FILE, write_epochs};
use crate::error::{Describe as _, LogError, ReadError, StorageError};
use crate::log::{ActiveSegment, Log, Offsets, Writer, floor_segment};
use crate::recovery::names::snapshots;
use crate::recovery::rebuild_producers;
use crate::segment::{Place, Segment};

impl Log {
    /// Removes every batch with an offset at or past `offset` and returns the new log end: `offset`, or the end
    /// of the last batch below it. Durable on return. An offset at or past the log end only makes the log forget leader
    /// epochs that wrote nothing: another leader may have written there in their stead.
    ///
    /// Leader epochs, producer state, indexes and all published offsets go back with it; whether it is right to fall
    /// behind the high watermark is the caller's to know.
    ///
    /// # Errors
    /// The disk's errors. The log may then be cut to anywhere between `offset` and its old end.
    pub fn truncate_to(&self, offset: Offset, now: Timestamp) -> Result<Offset, LogError> {
        self.check_present()?;
        let mut writer = self.writer();
        if offset >= self.log_end_offset() {
            let end = self.log_end_offset();
            self.cut_epochs(end)?;
            return Ok(end);
        }
        let segments = self.segments();
        if offset <= segments[0].base_offset() || offset < self.log_start_offset() {
            self.restart_at(&mut writer, offset, now)?;
            return Ok(offset);
        }
        let floor = floor_segment(&segments, offset);
        let (kept, dropped) = segments.split_at(floor + 1);
        let active = &kept[floor];
        let (position, end) = match active.seek(offset, active.size())? {
            Place::Batch(batch) => (batch.position, batch.header.base_offset().min(offset)),
            // What is damaged goes as a whole; the records up to `offset` stay missing.
            Place::Damage { position, .. } => (position, offset),
            Place::End => (active.size(), offset),
        };
        // Nothing on disk would tell after a crash that the log ended in a gap: it ends where its records do.
        let end = active.end_before(position)?.map_or(end, |records_end| records_end.min(end));
        writer.truncations += 1;
        self.lower_recovery_point(end)?;
        self.cut_epochs(end)?;
        let running = self.flush.exclude();
        // Readers first: whoever comes now sees nothing past the cut.
        self.lower_offsets(end);
        self.publish_segments(kept.to_vec());
        self.forget_bound_position();
        self.clip_damage(end);
        self.drop_segments(&mut writer, dropped, now)?;
        self.cut_segment(active, position, end)?;
        let mut unflushed = self.flush.lock();
        unflushed.sealed.retain(|sealed| sealed.base_offset() < active.base_offset());
        unflushed.snapshots.retain(|(snapshot, _)| *snapshot <= end);
        drop(unflushed);
        drop(running);
        let reloaded = self.reload_writer(&mut writer, end, now);
        if let Err(LogError::Storage(error) | LogError::Read(ReadError::Storage(error))) = reloaded {
            // Without what the log knows of its producers it must not go on.
            return Err(self.dir.log_dir.fail(error).into());
        }
        reloaded?;
        self.check_invariants();
        Ok(end)
    }

    /// Removes everything and starts again, empty, at `offset`: log start, high watermark and log end are there.
    /// Durable on return.
    ///
    /// # Errors
    /// The disk's errors.
    pub fn truncate_fully_and_start_at(&self, offset: Offset, now: Timestamp) -> Result<(), LogError> {
        self.check_present()?;
        self.restart_at(&mut self.writer(), offset, now)
    }

    fn check_present(&self) -> Result<(), LogError> {
        self.dir.log_dir.check()?;
        match self.dir.is_deleted() {
            true => Err(LogError::Deleted(self.partition().clone())),
            false => Ok(()),
        }
    }

    fn restart_at(&self, writer: &mut Writer, offset: Offset, now: Timestamp) -> Result<(), LogError> {
        writer.truncations += 1;
        let segments = self.segments();
        // Segments go one by one: what a crash leaves of them must not look like damage.
        let recovery_point = self.recovery_point().min(offset).min(segments[0].base_offset());
        self.lower_recovery_point(recovery_point)?;
        let goes_back = offset < self.log_start_offset();
        self.cut_epochs(Offset::ZERO)?;
        let running = self.flush.exclude();
        for published in [&self.offsets.flushed_end, &self.offsets.log_start, &self.offsets.high_watermark] {
            Offsets::store(published, offset);
        }
        Offsets::store(&self.offsets.log_end, offset);
        // Last, or the last stable offset would jump to the old high watermark.
        Offsets::store(&self.offsets.first_unstable, Offset(Offsets::STABLE));
        if goes_back {
            // Durably, before records come there: the old start would hide them after a crash. After it went down in
            // memory, or whoever writes the checkpoint meanwhile would write the old one back.
            self.dir.log_dir.lower_log_start(self.partition(), offset)?;
        }
        self.publish_segments(vec![Segment::create(&self.dir, offset)]);
        self.forget_bound_position();
        self.damage.write().unwrap_or_else(PoisonError::into_inner).clear();
        self.drop_segments(writer, &segments, now)?;
        self.remove_snapshots(|_| true)?;
        let mut unflushed = self.flush.lock();
        unflushed.sealed.clear();
        unflushed.snapshots.clear();
        drop(unflushed);
        // An empty file says where the log goes on, also after a crash.
        self.dir.log_dir.guard(self.active_segment().create_log().map_err(LogError::from))?;
        self.dir.sync()?;
        drop(running);
        writer.producers.clear();
        writer.active = ActiveSegment::new(now);
        writer.stray_snapshot = None;
        self.check_invariants();
        Ok(())
    }

    /// Lowers the recovery point to `end`, durably, before any byte past `end` goes: a crash in between must not make
    /// what is missing look like damage (KAFKA-10101).
    fn lower_recovery_point(&self, end: Offset) -> Result<(), LogError> {
        // In memory first: whoever writes the checkpoint meanwhile must not write the old point back.
        Offsets::store(&self.offsets.recovery_point, self.recovery_point().min(end));
        self.dir.log_dir.update_recovery_points(|points| match points.0.get_mut(self.partition()) {
            Some(point) if *point > end => {
                *point = end;
                true
            }
            _ => false,
        })
    }

    /// Forgets the leader epochs from `end` on, durably, before any batch of theirs goes: left in the file, one that
    /// wrote nothing would come back after a crash and stand in the way of what other leaders write there. Epochs that
    /// no file tells of need none to be forgotten.
    fn cut_epochs(&self, end: Offset) -> Result<(), LogError> {
        let _running = self.flush.exclude();
        let mut epochs = self.leader_epochs();
        if !epochs.truncate_from_end(end) {
            return Ok(());
        }
        if self.flush.stored_epoch() > epochs.latest().map_or(LeaderEpoch::NONE, |latest| latest.epoch) {
            let written = write_epochs(self.dir.fs(), &self.dir.file(LEADER_EPOCH_FILE), &epochs);
            self.dir.log_dir.guard(written)?;
            self.dir.sync()?;
            self.flush.set_stored_epoch(&epochs);
        }
        *self.epochs.write().unwrap_or_else(PoisonError::into_inner) = epochs;
        Ok(())
    }

    /// What was damaged past `end` is gone; what comes there now is not.
    fn clip_damage(&self, end: Offset) {
        let mut damage = self.damage.write().unwrap_or_else(PoisonError::into_inner);
        damage.retain(|range| range.start < end);
        damage.iter_mut().for_each(|range| range.end = range.end.min(end));
    }

    fn lower_offsets(&self, end: Offset) {
        let Offsets { high_watermark, log_end, flushed_end, recovery_point, .. } = &self.offsets;
        for published in [recovery_point, flushed_end, high_watermark, log_end] {
            Offsets::store(published, Offsets::load(published).min(end));
        }
    }

    /// Renames the files of segments, newest first, so that a crash leaves a log without a hole.
    pub(crate) fn drop_segments(
        &self,
        writer: &mut Writer,
        dropped: &[Arc<Segment>],
        now: Timestamp,
    ) -> Result<(), LogError> {
        for segment in dropped.iter().rev() {
            segment.rename_to_deleted()?;
            writer.deleted.push((now, Arc::clone(segment)));
        }
        if !dropped.is_empty() {
            self.dir.sync()?;
        }
        Ok(())
    }

    /// Cuts the file of what is now the active segment, and its indexes, and makes that durable.
    fn cut_segment(&self, active: &Segment, position: u64, end: Offset) -> Result<(), LogError> {
        let watch = |result: Result<(), StorageError>| self.dir.log_dir.watch(result);
        active.publish_size(position);
        watch(truncate_indexes(active, position, end))?;
        if let Some(file) = active.log().open_existing()? {
            let cut = file.set_len(position).describe("truncate", &active.log().path());
            active.log().mark_written(&file);
            watch(cut)?;
        }
        Ok(active.sync(true)?)
    }

    /// Makes the writer's state again from the files, after a cut at `end`.
    fn reload_writer(&self, writer: &mut Writer, end: Offset, now: Timestamp) -> Result<(), LogError> {
        if self.remove_snapshots(|offset| offset > end)? {
            // They tell of batches that are gone: they must not come back once others stand in their place.
            self.dir.sync()?;
        }
        writer.stray_snapshot = writer.stray_snapshot.filter(|snapshot| *snapshot <= end);
        let segments = self.segments();
        let log_start = self.log_start_offset();
        let snapshots = snapshots(&self.dir)?;
        rebuild_producers(&self.dir, &segments, &mut writer.producers, snapshots, log_start)?;
        writer.producers.on_high_watermark(self.high_watermark());
        writer.active = ActiveSegment::load(&segments[segments.len() - 1], now)?;
        segments[segments.len() - 1].set_max_timestamp(writer.active.max_timestamp);
        self.publish_first_unstable(writer);
        Ok(())
    }
}

/// Drops the index entries that point at or past `position`, or to offsets at or past `end`.
pub(crate) fn truncate_indexes(segment: &Segment, position: u64, end: Offset) -> Result<(), StorageError> {
    let relative_end = end.0.saturating_sub(segment.base_offset().0);
    segment.offsets.truncate_where(|e| {
        u64::from(e.position) < position && i64::from(e.relative_offset) < relative_end
    })?;
    segment.times.truncate_where(|e| i64::from(e.relative_offset) < relative_end)?;
    segment.txns.truncate_where(|txn| txn.last_offset < end)
}
