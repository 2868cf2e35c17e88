//! One partition in one log directory, kept as a node keeps it: opened from the directory's checkpoints, and
//! checkpointed into them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use klamm_log::checkpoint::OffsetCheckpoint;
use klamm_log::fs::{LogFs, MemoryFs};
use klamm_log::{
    FileCache, FlushPoint, Log, LogConfig, LogDir, LogError, OpenOptions, ProducerLimits, RecoveryReport,
    StorageError,
};
use klamm_types::{Offset, PartitionId, Timestamp, TopicId, TopicName, TopicPartition};

const DIR: &str = "/data";
const HIGH_WATERMARKS: &str = "replication-offset-checkpoint";
const LOG_STARTS: &str = "log-start-offset-checkpoint";
const TOPIC_ID: TopicId = TopicId([7; 16]);

/// Fewer than a log has files, so that some are closed and opened again.
const OPEN_FILES_MAX: usize = 6;

pub(crate) struct Node {
    dir: Arc<LogDir>,
    log: Arc<Log>,
    report: RecoveryReport,
}

pub(crate) fn partition() -> TopicPartition {
    TopicPartition::new(TopicName::new("orders").unwrap(), PartitionId(3))
}

impl Node {
    pub(crate) fn open(fs: &MemoryFs, config: LogConfig, now: Timestamp) -> Result<Self, LogError> {
        let (path, parent) = (Path::new(DIR), Path::new("/"));
        if fs.stat(path).map_err(|e| storage("stat", path, e))?.is_none() {
            fs.create_dir_all(path).map_err(|e| storage("create", path, e))?;
            fs.sync_dir(parent).map_err(|e| storage("sync", parent, e))?;
        }
        let dir = LogDir::new(Arc::new(fs.clone()), path, FileCache::new(OPEN_FILES_MAX));
        let offset = |points: OffsetCheckpoint| points.0.get(&partition()).copied().unwrap_or(Offset::ZERO);
        let flush_point = FlushPoint::Known(offset(dir.load_recovery_points()?));
        let log_start_offset = offset(OffsetCheckpoint::read(fs, &file(LOG_STARTS))?);
        let high_watermark = offset(OffsetCheckpoint::read(fs, &file(HIGH_WATERMARKS))?);
        let (log, report) = Log::open(OpenOptions {
            log_dir: Arc::clone(&dir),
            partition: partition(),
            topic_id: Some(TOPIC_ID),
            config: Arc::new(config),
            producers: ProducerLimits::default(),
            flush_point,
            log_start_offset,
            high_watermark,
            now,
        })?;
        Ok(Self { dir, log, report })
    }

    pub(crate) fn log(&self) -> &Arc<Log> {
        &self.log
    }

    pub(crate) fn report(&self) -> &RecoveryReport {
        &self.report
    }

    /// Writes all checkpoints, the recovery point first made true.
    pub(crate) fn checkpoint(&self) -> Result<(), LogError> {
        let recovery_point = self.log.checkpoint()?;
        self.dir.store_recovery_points([(partition(), Some(recovery_point))])?;
        let fs = self.dir.fs().as_ref();
        for (name, offset) in
            [(HIGH_WATERMARKS, self.log.high_watermark()), (LOG_STARTS, self.log.log_start_offset())]
        {
            self.dir.guard(OffsetCheckpoint([(partition(), offset)].into()).write(fs, &file(name)))?;
        }
        Ok(())
    }

    pub(crate) fn close(self) -> Result<(), LogError> {
        self.checkpoint()?;
        self.log.release()
    }
}

fn file(name: &str) -> PathBuf {
    Path::new(DIR).join(name)
}

fn storage(verb: &'static str, path: &Path, source: std::io::Error) -> StorageError {
    StorageError { verb, path: path.to_owned(), source }
}
