//! What the cases lie on: a disk with one log or a manager of several, and batches to append.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use klamm_log::checkpoint::OffsetCheckpoint;
use klamm_log::fs::{CrashPlan, LogFs, MemoryFs};
use klamm_log::{
    AppendError, AppendInfo, AppendOrigin, FetchIsolation, FileCache, FlushPoint, Log, LogConfig, LogDir,
    LogManager, ManagerOptions, OpenOptions, ProducerLimits, RECOVERY_POINT_FILE, RecoveryReport,
};
use klamm_record::{BatchBuilder, Batches, Compression, EndTxnMarker, NewRecord, TransactionResult};
use klamm_types::{
    BrokerId, CoordinatorEpoch, LeaderEpoch, Offset, PartitionId, ProducerEpoch, ProducerId, Timestamp,
    TopicId, TopicName, TopicPartition,
};

use crate::hooked_fs::{HookedFs, Hooks};

pub(crate) const NOW: Timestamp = Timestamp(1_700_000_000_000);

/// The file of the first segment of the log that [`Disk::open`] opens.
pub(crate) const FIRST_SEGMENT: &str = "/data/orders-3/00000000000000000000.log";

/// A disk whose logs lie in `/data`.
pub(crate) struct Disk {
    pub(crate) fs: MemoryFs,
    pub(crate) hooks: Hooks,
    pub(crate) config: LogConfig,
}

impl Disk {
    pub(crate) fn new(config: LogConfig) -> Self {
        let fs = MemoryFs::new();
        fs.create_dir_all(Path::new("/data")).unwrap();
        fs.sync_dir(Path::new("/")).unwrap();
        Self { fs, hooks: Hooks::default(), config }
    }

    /// The disk that the next boot finds if the power goes now.
    pub(crate) fn cut(&self, plan: &CrashPlan) -> Self {
        let fs = self.fs.crash_point().power_cut(plan);
        Self { fs, hooks: Hooks::default(), config: self.config.clone() }
    }

    fn hooked(&self) -> Arc<dyn LogFs> {
        Arc::new(HookedFs::new(self.fs.clone(), self.hooks.clone()))
    }

    /// Opens the log of `orders-3`, from its recovery point on.
    pub(crate) fn open(&self) -> (Arc<Log>, RecoveryReport) {
        let dir = LogDir::new(self.hooked(), Path::new("/data"), FileCache::new(100));
        let points = dir.load_recovery_points().unwrap();
        let flush_point = points.0.get(&partition(3)).copied().unwrap_or(Offset::ZERO);
        open_in(dir, 3, flush_point, &self.config)
    }

    /// Opens all logs under a manager.
    pub(crate) fn manage(&self) -> LogManager {
        self.manage_with(Self::options())
    }

    pub(crate) fn manage_with(&self, options: ManagerOptions) -> LogManager {
        let config = Arc::new(self.config.clone());
        LogManager::open(self.hooked(), options, &|_| Arc::clone(&config), NOW).unwrap().0
    }

    /// The options that [`manage`](Self::manage) takes.
    pub(crate) fn options() -> ManagerOptions {
        ManagerOptions::new(vec![PathBuf::from("/data")], BrokerId(1), "cluster")
    }

    /// The recovery point that is written down for a partition.
    pub(crate) fn stored_recovery_point(&self, number: i32) -> Option<Offset> {
        let points = OffsetCheckpoint::read(&self.fs, &Path::new("/data").join(RECOVERY_POINT_FILE));
        points.unwrap().0.get(&partition(number)).copied()
    }
}

/// Opens a log in a directory of any file system.
pub(crate) fn open_in(
    dir: Arc<LogDir>,
    number: i32,
    flush_point: Offset,
    config: &LogConfig,
) -> (Arc<Log>, RecoveryReport) {
    Log::open(OpenOptions {
        log_dir: dir,
        partition: partition(number),
        topic_id: Some(TopicId([7; 16])),
        config: Arc::new(config.clone()),
        producers: ProducerLimits::default(),
        flush_point: FlushPoint::Known(flush_point),
        log_start_offset: Offset::ZERO,
        high_watermark: Offset::ZERO,
        now: NOW,
    })
    .unwrap()
}

pub(crate) fn partition(number: i32) -> TopicPartition {
    TopicPartition::new(TopicName::new("orders").unwrap(), PartitionId(number))
}

pub(crate) fn create(manager: &LogManager, number: i32, config: &LogConfig) -> Arc<Log> {
    manager.create(&partition(number), TopicId([1; 16]), Arc::new(config.clone()), NOW).unwrap()
}

/// Segments of a few batches each.
pub(crate) fn small_segments() -> LogConfig {
    LogConfig { segment_bytes: 1000, index_interval_bytes: 200, ..LogConfig::default() }
}

/// A batch of `records` small records.
pub(crate) fn batch(records: usize) -> BatchBuilder {
    let mut builder = BatchBuilder::new(Compression::NONE);
    for i in 0..records {
        let value = format!("v{i}");
        builder.append(&NewRecord::new(NOW, Some(b"key"), Some(value.as_bytes()))).unwrap();
    }
    builder
}

/// A batch of one record with a value of `value_bytes` bytes.
pub(crate) fn large_batch(value_bytes: usize) -> BatchBuilder {
    let mut builder = BatchBuilder::new(Compression::NONE);
    builder.append(&NewRecord::new(NOW, None, Some(&vec![7; value_bytes]))).unwrap();
    builder
}

/// A batch of a producer in its first epoch.
pub(crate) fn produced(records: usize, producer: i64, sequence: i32) -> BatchBuilder {
    batch(records).producer(ProducerId(producer), ProducerEpoch(0), sequence)
}

pub(crate) fn append(log: &Log, builder: BatchBuilder) -> Result<AppendInfo, AppendError> {
    append_from(log, builder, AppendOrigin::Client)
}

pub(crate) fn append_from(
    log: &Log,
    builder: BatchBuilder,
    origin: AppendOrigin,
) -> Result<AppendInfo, AppendError> {
    let bytes = builder.build().unwrap();
    log.append_as_leader(&bytes, LeaderEpoch(1), origin, NOW)
}

/// Appends `count` batches of `records` small records each.
pub(crate) fn append_many(log: &Log, count: usize, records: usize) {
    for _ in 0..count {
        append(log, batch(records)).unwrap();
    }
}

/// Ends the transaction of a producer: aborts it.
pub(crate) fn abort(log: &Log, producer: i64) {
    let marker = EndTxnMarker { result: TransactionResult::Abort, coordinator_epoch: CoordinatorEpoch(0) };
    let batch = marker.batch(ProducerId(producer), ProducerEpoch(0), NOW, LeaderEpoch(1));
    log.append_as_leader(&batch.unwrap(), LeaderEpoch(1), AppendOrigin::Internal, NOW).unwrap();
}

/// Checkpoints the log and writes its recovery point down.
pub(crate) fn store(log: &Log) {
    let point = log.checkpoint().unwrap();
    log.log_dir().store_recovery_points([(log.partition().clone(), Some(point))]).unwrap();
}

/// The last offset that a read of at most a megabyte from `offset` shows.
pub(crate) fn last_shown(log: &Log, offset: Offset, isolation: FetchIsolation) -> Option<Offset> {
    let bytes = log.read(offset, 1 << 20, isolation).unwrap().slice?.to_vec().unwrap();
    Batches::new(&bytes).last().map(|batch| batch.unwrap().header().last_offset())
}

/// Waits until `condition` holds; fails after half a minute.
#[track_caller]
pub(crate) fn eventually(condition: impl Fn() -> bool) {
    for _ in 0..30_000 {
        if condition() {
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
    panic!("it did not come true");
}
