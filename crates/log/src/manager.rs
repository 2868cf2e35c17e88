//! All logs of a node, in several directories.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use klamm_types::{BrokerEpoch, BrokerId, Timestamp, TopicId, TopicPartition};

use crate::checkpoint::{CleanShutdown, MetaProperties};
use crate::config::LogConfig;
use crate::dir::LogDir;
use crate::error::{DirOffline, LogError};
use crate::file_cache::FileCache;
use crate::flusher::{FlushQueue, Flusher};
use crate::fs::LogFs;
use crate::log::{Log, ProducerLimits};
use crate::recovery::{FlushPoint, OpenOptions, RecoveryReport};

mod deletion;
mod housekeeping;
mod startup;

pub use startup::{DirContent, DirStart, StartReport};

use deletion::DeletedDir;
use housekeeping::Schedule;

/// The file with the high watermarks of a directory's partitions.
pub const HIGH_WATERMARK_FILE: &str = "replication-offset-checkpoint";

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
    deleted: Mutex<Vec<DeletedDir>>,
    schedule: Mutex<Schedule>,
    /// Makes fingerprints.
    hasher: foldhash::quality::RandomState,
}

/// A directory in service, or one that was when the manager started.
#[derive(Debug)]
struct ManagedDir {
    dir: Arc<LogDir>,
    properties: MetaProperties,
    flusher: Flusher,
    /// Fingerprints of the checkpoints as they were last written, by file name: what has not changed is not written.
    written: Mutex<BTreeMap<&'static str, u64>>,
    /// Held for as long as the manager lives.
    _lock: Lock,
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
    /// [`ManagerError::Exists`]; [`ManagerError::NoDirectory`]; the disk's errors.
    pub fn create(
        &self,
        partition: &TopicPartition,
        topic_id: TopicId,
        config: Arc<LogConfig>,
        now: Timestamp,
    ) -> Result<Arc<Log>, ManagerError> {
        let mut logs = self.logs.write().unwrap_or_else(PoisonError::into_inner);
        if logs.contains_key(partition) {
            return Err(ManagerError::Exists(partition.clone()));
        }
        let used = |managed: &&ManagedDir| {
            logs.values().filter(|log| Arc::ptr_eq(log.log_dir(), &managed.dir)).count()
        };
        let in_service = self.dirs.iter().filter(|managed| managed.dir.check().is_ok());
        let managed = match self.dirs.len() {
            1 => in_service.last(),
            _ => in_service.min_by_key(used),
        };
        let managed = managed.ok_or(ManagerError::NoDirectory)?;
        let (log, _) = Log::open(OpenOptions {
            log_dir: Arc::clone(&managed.dir),
            partition: partition.clone(),
            topic_id: Some(topic_id),
            config,
            producers: self.options.producers,
            flush_point: FlushPoint::Known(klamm_types::Offset::ZERO),
            log_start_offset: klamm_types::Offset::ZERO,
            high_watermark: klamm_types::Offset::ZERO,
            now,
        })?;
        logs.insert(partition.clone(), Arc::clone(&log));
        Ok(log)
    }

    /// Flushes and closes everything in an orderly way, and leaves the mark of it in each directory that is still in
    /// service: what `broker_epoch` closed needs no recovery. The logs must not be used any more.
    ///
    /// # Errors
    /// The first error, after everything that could be closed has been.
    pub fn shut_down(self, broker_epoch: BrokerEpoch) -> Result<(), LogError> {
        let mut result = Ok(());
        for managed in &self.dirs {
            let closed = self.close_dir(managed, broker_epoch);
            result = result.and(closed);
        }
        result
    }

    fn close_dir(&self, managed: &ManagedDir, broker_epoch: BrokerEpoch) -> Result<(), LogError> {
        managed.dir.check()?;
        for log in self.logs_in(&managed.dir) {
            log.release()?;
        }
        self.write_checkpoints(managed, &self.logs_in(&managed.dir))?;
        CleanShutdown { broker_epoch }.write(self.fs.as_ref(), managed.dir.path())
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
