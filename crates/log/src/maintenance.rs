//! What a log does between appends: checkpoints, going idle, closing, leaving for good.

use std::path::PathBuf;
use std::sync::atomic::Ordering;

use klamm_types::{Offset, Timestamp};

use crate::error::{Describe as _, LogError, StorageError};
use crate::log::{Log, Offsets};
use crate::names::{FileKind, segment_file_name};
use crate::producers::snapshot;

impl Log {
    /// Flushes, and brings the recovery point up to the flushed end: leader epochs, aborted transactions and the time
    /// index below it are durable, too, because nobody could see that some of it is missing. Returns the recovery
    /// point, which the caller writes to the directory's checkpoint.
    ///
    /// Also writes what makes recovery quick, without waiting for the disk: a producer snapshot, and the entries that
    /// the active segment's offset index had in memory. If those do not survive, recovery reads more.
    ///
    /// # Errors
    /// The disk's errors.
    pub fn checkpoint(&self) -> Result<Offset, LogError> {
        self.dir.log_dir.check()?;
        if self.dir.is_deleted() {
            return Ok(self.recovery_point());
        }
        let mut writer = self.writer();
        let end = self.log_end_offset();
        if end == self.recovery_point() && writer.bytes_since_checkpoint == 0 {
            drop(writer);
            // Of a log that never had a record nothing need survive: it is made again where it is missing.
            if end > Offset::ZERO || !self.flush.lock().is_blank() {
                self.flush()?;
            }
            return Ok(self.recovery_point());
        }
        let active = self.active_segment();
        match active.spill_indexes() {
            Ok(()) => {}
            // What is in memory only cannot be counted on: the records are flushed, the point stays.
            Err(error) if error.is_full() => {
                drop(writer);
                self.flush()?;
                return Ok(self.recovery_point());
            }
            Err(error) => return Err(self.dir.log_dir.fail(error).into()),
        }
        let bytes = snapshot::encode(&writer.producers);
        writer.bytes_since_checkpoint = 0;
        let truncations = writer.truncations;
        let before = writer.stray_snapshot.replace(end);
        self.flush.lock().add_snapshot(end, bytes.into());
        drop(writer);
        self.flush()?;
        if !self.flush.lock().sealed.is_empty() {
            // The disk had no room for an index of a sealed segment (or one was sealed just now): recovery must
            // still look there.
            return Ok(self.recovery_point());
        }
        for index in [active.txns.file(), active.times.file()] {
            index.sync()?;
        }
        if active.txns.file().take_created() | active.times.file().take_created() {
            self.dir.sync()?;
        }
        let writer = self.writer();
        if writer.truncations != truncations {
            // What was brought to the disk may be gone, and what stands there now was not.
            return Ok(self.recovery_point());
        }
        let point = end.min(self.flushed_end_offset()).max(self.recovery_point());
        Offsets::store(&self.offsets.recovery_point, point);
        self.remove_stray_snapshot(before.filter(|before| *before < end))?;
        Ok(point)
    }

    /// Whether so many bytes were appended since the last checkpoint that recovery would take long.
    #[must_use]
    pub fn bytes_since_checkpoint(&self) -> u64 {
        self.writer().bytes_since_checkpoint
    }

    /// Removes the snapshot of an earlier checkpoint, unless a segment starts there.
    fn remove_stray_snapshot(&self, offset: Option<Offset>) -> Result<(), LogError> {
        let Some(offset) = offset else { return Ok(()) };
        if self.segments().iter().any(|segment| segment.base_offset() == offset) {
            return Ok(());
        }
        let path = self.dir.file(&segment_file_name(offset, FileKind::Snapshot));
        match self.dir.fs().remove_file(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            removed => Ok(self.dir.log_dir.watch(removed.describe("remove", &path))?),
        }
    }

    /// Whether nothing was appended for `idle_after_ms`, and there is something to give back.
    pub(crate) fn is_idle(&self, now: Timestamp, idle_after_ms: i64) -> bool {
        let last_append = Timestamp(self.offsets.last_append.load(Ordering::Relaxed));
        let idle = now.millis_since(last_append) >= idle_after_ms;
        idle && self.segments().iter().any(|segment| segment.has_open_files())
    }

    /// Gives the log's directory another name, under which nobody will open it as a log.
    pub(crate) fn mark_deleted(&self, name: &str) -> Result<PathBuf, StorageError> {
        let _writer = self.writer();
        let _running = self.flush.exclude();
        self.dir.rename(name)?;
        Ok(self.dir.path().to_path_buf())
    }

    /// Gives back what an idle log does not need: closes its files, once their content is durable, and writes out
    /// what its indexes keep in memory. Everything opens again at its next use.
    ///
    /// # Errors
    /// The disk's errors.
    pub fn release(&self) -> Result<(), LogError> {
        self.checkpoint()?;
        let _writer = self.writer();
        for segment in self.segments().iter() {
            segment.close_files();
        }
        Ok(())
    }
}
