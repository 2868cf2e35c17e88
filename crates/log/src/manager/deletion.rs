//! Deleting partitions: out of sight at once, off the disk later; and setting aside what nobody knows.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use klamm_types::{Timestamp, TopicPartition};
use uuid::Uuid;

use super::{LogManager, ManagerError};
use crate::error::{Describe as _, LogError};
use crate::fs::LogFs;
use crate::log::Log;

/// Ends the name of a partition's directory that waits for its removal.
const DELETED: &str = "-delete";

/// Ends the name of a partition's directory that was set aside.
const STRAY: &str = "-stray";

/// The longest name that file systems allow, in bytes.
const NAME_LEN_MAX: usize = 255;

/// A partition's directory that has been renamed and waits for its removal.
#[derive(Debug)]
pub(super) struct DeletedDir {
    since: Timestamp,
    delay_ms: i64,
    path: PathBuf,
}

impl LogManager {
    /// Deletes a partition's log. It is gone at once, also after a crash; its directory is removed once
    /// `file.delete.delay.ms` has passed, by [`tick`](Self::tick). Whoever reads from it may read on until then.
    ///
    /// # Errors
    /// [`ManagerError::Unknown`]; the disk's errors. A full disk is none.
    pub fn delete(&self, partition: &TopicPartition, now: Timestamp) -> Result<(), ManagerError> {
        self.take_away(partition, DELETED, |log, path| {
            let delay_ms = log.config().file_delete_delay_ms;
            let deleted = DeletedDir { since: now, delay_ms, path };
            self.deleted.lock().unwrap_or_else(PoisonError::into_inner).push(deleted);
        })
    }

    /// Takes a log that belongs to no replica out of the way, as Kafka does: its directory is renamed to end with
    /// `-stray`, and stays until somebody removes it. What looks like a leftover may be all that is left, if it
    /// was the metadata that was lost. Returns where the directory is now.
    ///
    /// # Errors
    /// As [`delete`](Self::delete).
    pub fn set_aside(&self, partition: &TopicPartition) -> Result<PathBuf, ManagerError> {
        let mut place = PathBuf::new();
        self.take_away(partition, STRAY, |_, path| place = path)?;
        Ok(place)
    }

    fn take_away(
        &self,
        partition: &TopicPartition,
        ending: &str,
        taken: impl FnOnce(&Log, PathBuf),
    ) -> Result<(), ManagerError> {
        let _changing = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        let log = self.get(partition).ok_or_else(|| ManagerError::Unknown(partition.clone()))?;
        let dir = Arc::clone(log.log_dir());
        dir.check().map_err(LogError::Offline)?;
        let path = log.mark_deleted(&name_out_of_the_way(partition, ending)).map_err(LogError::Storage)?;
        self.logs.write().unwrap_or_else(PoisonError::into_inner).remove(partition);
        taken(&log, path);
        // What the directory's checkpoints say of it stays until the next tick writes them: the next start believes
        // nothing of partitions that have no directory, and a partition of that name is not made before all of it is
        // forgotten. Writing them here made deleting many partitions quadratic.
        Ok(())
    }

    /// Removes the directories of partitions that were deleted long enough ago.
    pub(super) fn remove_deleted_dirs(&self, now: Timestamp) -> Result<(), LogError> {
        let mut deleted = self.deleted.lock().unwrap_or_else(PoisonError::into_inner);
        let mut result = Ok(());
        deleted.retain(|dir| {
            if now.millis_since(dir.since) < dir.delay_ms {
                return true;
            }
            let removed = remove_dir_all(self.fs.as_ref(), &dir.path);
            let keep = removed.is_err();
            result = std::mem::replace(&mut result, Ok(())).and(removed);
            keep
        });
        result
    }
}

/// The name of the directory of a partition that was taken away: unique, so that the partition can be made and taken away
/// again meanwhile.
fn name_out_of_the_way(partition: &TopicPartition, ending: &str) -> String {
    let suffix = format!("-{}.{}{ending}", partition.partition, Uuid::new_v4().simple());
    let topic = partition.topic.as_str();
    let kept = topic.len().min(NAME_LEN_MAX - suffix.len());
    format!("{}{suffix}", &topic[..kept])
}

pub(super) fn is_deleted_name(name: &str) -> bool {
    name.ends_with(DELETED) && TopicPartition::parse_dir_name(name).is_none()
}

/// Removes a directory with all in it.
pub(super) fn remove_dir_all(fs: &dyn LogFs, path: &Path) -> Result<(), LogError> {
    for entry in fs.list(path).describe("list", path)? {
        let inner = path.join(&entry.name);
        if entry.stat.is_dir {
            remove_dir_all(fs, &inner)?;
        } else {
            fs.remove_file(&inner).describe("remove", &inner)?;
        }
    }
    Ok(fs.remove_dir(path).describe("remove", path)?)
}
