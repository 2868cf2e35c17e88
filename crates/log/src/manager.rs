//! All logs of a node, in several directories.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use klamm_types::{BrokerEpoch, BrokerId, Offset, Timestamp, TopicId, TopicPartition};

use crate::checkpoint::{CleanShutdown, MetaProperties, Siblings};
use crate::config::LogConfig;
use crate::dir::LogDir;
use crate::error::{Describe as _, DirOffline, LogError};
use crate::file_cache::FileCache;
use crate::flusher::{FlushQueue, Flusher};
use crate::fs::LogFs;
use crate::log::{Log, ProducerLimits};
use crate::recovery::{FlushPoint, OpenOptions, RecoveryReport};

mod deletion;
mod housekeeping;
mod startup;

pub use crate::dir::HIGH_WATERMARK_FILE;
pub use startup::{DirContent, DirStart, METADATA_DIR, StartReport};

use deletion::DeletedDir;
use housekeeping::Schedule;

/// The settings of a [`LogManager`].
#[derive(Clone, Debug)]
pub struct ManagerOptions {
    /// `log.dirs`: where logs are kept; at least one. Directories are made if they do not exist.
    pub dirs: Vec<PathBuf>,
    /// `node.id`: directories of another node are refused.
    pub node_id: BrokerId,
    /// The cluster's id: directories of another cluster are refused.
    pub cluster_id: String,
    /// How many files may be open.
    pub open_files_max: usize,
    /// `num.recovery.threads.per.data.dir`: how many logs of a directory are opened at once.
    pub recovery_threads_per_dir: usize,
    /// How many logs of a directory are flushed at once.
    pub flush_threads_per_dir: usize,
    /// How many producers a partition remembers.
    pub producers: ProducerLimits,
    /// `log.flush.offset.checkpoint.interval.ms`: how often recovery points are brought up to date.
    pub checkpoint_interval_ms: i64,
    /// The most bytes that recovery of one log may have to read; a log that has more is checkpointed at once.
    pub checkpoint_bytes_max: u64,
    /// `replica.high.watermark.checkpoint.interval.ms`.
    pub high_watermark_interval_ms: i64,
    /// `log.retention.check.interval.ms`.
    pub retention_interval_ms: i64,
    /// After how long without an append a log gives its files and buffers back.
    pub idle_after_ms: i64,
}

impl ManagerOptions {
    /// Kafka's defaults, for a node that keeps its logs in `dirs`.
    #[must_use]
    pub fn new(dirs: Vec<PathBuf>, node_id: BrokerId, cluster_id: &str) -> Self {
        Self {
            dirs,
            node_id,
            cluster_id: cluster_id.to_owned(),
            open_files_max: 8192,
            recovery_threads_per_dir: 2,
            flush_threads_per_dir: 16,
            producers: ProducerLimits::default(),
            checkpoint_interval_ms: 60_000,
            checkpoint_bytes_max: 64 * 1024 * 1024,
            high_watermark_interval_ms: 5_000,
            retention_interval_ms: 300_000,
            idle_after_ms: 60_000,
        }
    }
}

/// Keeps the logs of a node: opens, creates and deletes them, flushes and checkpoints them, and applies retention.
/// A directory that fails takes its logs out of service and leaves the others alone.
#[derive(Debug)]
pub struct LogManager {
    fs: Arc<dyn LogFs>,
    options: ManagerOptions,
    files: Arc<FileCache>,
    dirs: Vec<ManagedDir>,
    logs: RwLock<BTreeMap<TopicPartition, Arc<Log>>>,
    /// Held by whoever creates or deletes a log, throughout.
    changes: Mutex<()>,
    deleted: Mutex<Vec<DeletedDir>>,
    schedule: Mutex<Schedule>,
}

/// A directory in service, or one that was when the manager started.
#[derive(Debug)]
struct ManagedDir {
    dir: Arc<LogDir>,
    properties: MetaProperties,
    /// Which directories there were, as this one remembers.
    siblings: Mutex<Siblings>,
    flusher: Flusher,
    /// Partitions that have a directory here and no open log. Nothing of theirs is changed, and what the checkpoints
    /// say of them is kept.
    unopened: BTreeSet<TopicPartition>,
    /// The recovery points are lost, and at least one log could not be given a new one. None is written, so that the
    /// next start finds them lost, too.
    points_lost: bool,
    /// Held for as long as the manager lives.
    _lock: Lock,
}

impl ManagedDir {
    fn siblings(&self) -> MutexGuard<'_, Siblings> {
        self.siblings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The lock of a directory.
struct Lock(#[expect(dead_code, reason = "held, not looked at")] Box<dyn Send + Sync>);

impl std::fmt::Debug for Lock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Lock")
    }
}

/// Why the manager refuses.
#[derive(Debug, thiserror::Error)]
pub enum ManagerError {
    /// No directory is in service.
    #[error("no log directory is in service")]
    NoDirectory,
    /// The partition has a log already.
    #[error("partition {0} has a log already")]
    Exists(TopicPartition),
    /// The partition has files in a directory although it has no log: it could not be opened at the start, or its
    /// creation failed half-way. They are left alone, and need somebody who looks at them.
    #[error("partition {partition} has files in {path} that belong to no open log")]
    Occupied {
        /// The partition.
        partition: TopicPartition,
        /// Its directory.
        path: PathBuf,
    },
    /// The partition has no log here.
    #[error("partition {0} has no log here")]
    Unknown(TopicPartition),
    /// The log refused.
    #[error(transparent)]
    Log(#[from] LogError),
}

impl LogManager {
    /// The log of a partition.
    #[must_use]
    pub fn get(&self, partition: &TopicPartition) -> Option<Arc<Log>> {
        self.logs.read().unwrap_or_else(PoisonError::into_inner).get(partition).cloned()
    }

    /// All logs, by partition.
    #[must_use]
    pub fn logs(&self) -> Vec<Arc<Log>> {
        self.logs.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Where to ask for flushes of `log`.
    #[must_use]
    pub fn flush_queue(&self, log: &Log) -> Option<&FlushQueue> {
        self.managed(log.log_dir()).map(|dir| dir.flusher.queue())
    }

    /// The directories that the manager started with, each with the failure that took it out of service, if any.
    #[must_use]
    pub fn directories(&self) -> Vec<(&Arc<LogDir>, Result<(), DirOffline>)> {
        self.dirs.iter().map(|managed| (&managed.dir, managed.dir.check())).collect()
    }

    /// Makes the log of a new partition, in the directory in service that has the fewest.
    ///
    /// # Errors
    /// [`ManagerError::Exists`]; [`ManagerError::Occupied`]; [`ManagerError::NoDirectory`]; the disk's errors.
    pub fn create(
        &self,
        partition: &TopicPartition,
        topic_id: TopicId,
        config: Arc<LogConfig>,
        now: Timestamp,
    ) -> Result<Arc<Log>, ManagerError> {
        let _changing = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        if self.get(partition).is_some() {
            return Err(ManagerError::Exists(partition.clone()));
        }
        self.check_unoccupied(partition)?;
        let managed = self.dir_for_new()?;
        self.forget_deleted(managed, partition)?;
        let opened = Log::open(OpenOptions {
            log_dir: Arc::clone(&managed.dir),
            partition: partition.clone(),
            topic_id: Some(topic_id),
            config,
            producers: self.options.producers,
            flush_point: FlushPoint::Known(Offset::ZERO),
            log_start_offset: Offset::ZERO,
            high_watermark: Offset::ZERO,
            now,
        });
        let (log, _) = opened.inspect_err(|_| {
            // Half a log would be in the way of the next attempt. Should it stay, that is refused.
            let path = managed.dir.path().join(partition.to_string());
            let _ = deletion::remove_dir_all(self.fs.as_ref(), &path);
        })?;
        let mut logs = self.logs.write().unwrap_or_else(PoisonError::into_inner);
        logs.insert(partition.clone(), Arc::clone(&log));
        Ok(log)
    }

    /// Makes sure that what the checkpoints of a directory say of a deleted `partition` is not taken for that of a new
    /// one of the same name. Where they say anything, all that is deleted is forgotten with it: the next ones need no
    /// write then.
    fn forget_deleted(&self, managed: &ManagedDir, partition: &TopicPartition) -> Result<(), LogError> {
        managed.dir.forget_offsets(|stored| {
            if !stored.0.contains_key(partition) {
                return Vec::new();
            }
            let logs = self.logs.read().unwrap_or_else(PoisonError::into_inner);
            let is_deleted =
                |known: &&TopicPartition| !logs.contains_key(*known) && !managed.unopened.contains(*known);
            stored.0.keys().filter(is_deleted).cloned().collect()
        })
    }

    /// Refuses a partition that has files already: they may be what is left of its records, or another topic's.
    fn check_unoccupied(&self, partition: &TopicPartition) -> Result<(), ManagerError> {
        for managed in &self.dirs {
            let path = managed.dir.path().join(partition.to_string());
            let is_occupied = match managed.dir.check() {
                _ if managed.unopened.contains(partition) => true,
                Ok(()) => match self.fs.list(&path) {
                    Err(e) if e.kind() == io::ErrorKind::NotFound => false,
                    listed => !listed.describe("list", &path).map_err(LogError::Storage)?.is_empty(),
                },
                Err(_) => false,
            };
            if is_occupied {
                return Err(ManagerError::Occupied { partition: partition.clone(), path });
            }
        }
        Ok(())
    }

    fn dir_for_new(&self) -> Result<&ManagedDir, ManagerError> {
        let logs = self.logs.read().unwrap_or_else(PoisonError::into_inner);
        let used = |managed: &&ManagedDir| {
            logs.values().filter(|log| Arc::ptr_eq(log.log_dir(), &managed.dir)).count()
        };
        let mut in_service = self.dirs.iter().filter(|managed| managed.dir.check().is_ok());
        let managed = match self.dirs.len() {
            1 => in_service.next(),
            _ => in_service.min_by_key(used),
        };
        managed.ok_or(ManagerError::NoDirectory)
    }

    /// Flushes and closes everything in an orderly way, and leaves the mark of it in each directory where all went
    /// well: what `broker_epoch` closed needs no recovery. A directory with a log that could not be opened gets none.
    /// The logs must not be used any more.
    ///
    /// # Errors
    /// The first error, after everything that could be closed has been.
    pub fn shut_down(self, broker_epoch: BrokerEpoch) -> Result<(), LogError> {
        self.close(broker_epoch)
    }

    /// As [`shut_down`](Self::shut_down), for a manager that others still hold. They must not use its logs any more:
    /// what is appended from here on may be lost although the mark says that all was closed.
    ///
    /// # Errors
    /// As [`shut_down`](Self::shut_down).
    pub fn close(&self, broker_epoch: BrokerEpoch) -> Result<(), LogError> {
        let mut result = Ok(());
        for managed in &self.dirs {
            let closed = self.close_dir(managed, broker_epoch);
            result = result.and(closed);
        }
        result
    }

    fn close_dir(&self, managed: &ManagedDir, broker_epoch: BrokerEpoch) -> Result<(), LogError> {
        managed.dir.check()?;
        let mut result = Ok(());
        for log in self.logs_in(&managed.dir) {
            let released = log.release();
            result = result.and(released);
        }
        let written = self.write_checkpoints(managed);
        result.and(written)?;
        if !managed.unopened.is_empty() {
            return Ok(());
        }
        CleanShutdown { broker_epoch }.write(self.fs.as_ref(), managed.dir.path())
    }

    /// Has each directory remember all that there are, so that a later start notices that one was replaced: see
    /// [`StartReport::lacks_dir`]. To be called once those who should know have been told what this start found. A
    /// directory that did not come into service stays remembered. Writes nothing if all do.
    ///
    /// # Errors
    /// The first error; the other directories remember all the same. Then it is to be called again.
    pub fn remember_dirs(&self) -> Result<(), LogError> {
        let mut all: BTreeSet<_> = self.dirs.iter().map(|managed| managed.properties.directory_id).collect();
        if self.dirs.len() < self.options.dirs.len() {
            all.extend(self.dirs.iter().flat_map(|managed| managed.siblings().0.clone()));
        }
        let all = Siblings(all);
        let mut result = Ok(());
        for managed in &self.dirs {
            let mut known = managed.siblings();
            // The identity of a single directory is the broker's.
            let is_alone = self.options.dirs.len() == 1 && known.0.is_empty();
            if is_alone || *known == all {
                continue;
            }
            let checked = managed.dir.check().map_err(LogError::from);
            match checked.and_then(|()| all.write(self.fs.as_ref(), managed.dir.path())) {
                Ok(()) => *known = all.clone(),
                failed => result = result.and(failed),
            }
        }
        result
    }

    /// How many files are open.
    #[must_use]
    pub fn open_files(&self) -> usize {
        self.files.open_files()
    }

    fn logs_in(&self, dir: &Arc<LogDir>) -> Vec<Arc<Log>> {
        self.logs().into_iter().filter(|log| Arc::ptr_eq(log.log_dir(), dir)).collect()
    }

    fn managed(&self, dir: &Arc<LogDir>) -> Option<&ManagedDir> {
        self.dirs.iter().find(|managed| Arc::ptr_eq(&managed.dir, dir))
    }

    /// The identity of a directory.
    #[must_use]
    pub fn properties(&self, dir: &Arc<LogDir>) -> Option<&MetaProperties> {
        self.managed(dir).map(|managed| &managed.properties)
    }
}

/// What became of one log at the start.
#[derive(Debug)]
pub struct LogStart {
    /// Whose log it is.
    pub partition: TopicPartition,
    /// What recovery found, or why the log could not be opened. Such a log is left alone, and its directory stays
    /// in service unless its disk failed.
    pub result: Result<RecoveryReport, LogError>,
}
