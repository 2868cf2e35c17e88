//! A broker's disk, and the logs on it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use klamm_log::fs::{CrashPlan, Fate, FaultKind, FaultRule, LogFs as _, MemoryFs, Operation};
use klamm_log::{FileCache, FlushPoint, Log, LogConfig, LogDir, LogError, OpenOptions, ProducerLimits};
use klamm_metadata::DirectoryId;
use klamm_types::{Offset, PartitionId, Timestamp, TopicId, TopicName, TopicPartition};

use crate::chance::Chance;
use crate::quorum::TOPIC;

const DIR: &str = "/data";

/// The disk of one broker, from one start of its process to the next.
#[derive(Debug)]
pub(crate) struct Disk {
    fs: MemoryFs,
    failing: bool,
    /// Changes when the disk is lost.
    pub(crate) directory: DirectoryId,
    /// The high watermarks that were last written down.
    pub(crate) high_watermarks: BTreeMap<PartitionId, Offset>,
}

impl Disk {
    pub(crate) fn empty(chance: &mut Chance) -> Self {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&chance.bits().to_be_bytes());
        id[8..].copy_from_slice(&chance.bits().to_be_bytes());
        let fs = MemoryFs::new();
        fs.create_dir_all(Path::new(DIR)).expect("an empty disk takes a directory");
        fs.sync_dir(Path::new("/")).expect("an empty disk syncs");
        Self { fs, failing: false, directory: DirectoryId(id), high_watermarks: BTreeMap::new() }
    }

    /// The process ended; the page cache stays. A disk that failed is only trusted again after the machine was booted:
    /// what a failed sync has lost still looks fine in the page cache.
    pub(crate) fn kill_process(&mut self, chance: &mut Chance) {
        if self.failing {
            self.cut_power(chance);
        } else {
            self.fs = self.fs.crash_point().process_kill();
        }
    }

    /// The power failed: what no barrier covers survives at random.
    pub(crate) fn cut_power(&mut self, chance: &mut Chance) {
        self.failing = false;
        let point = self.fs.crash_point();
        let pending = point.pending().len();
        let plan = match chance.range(0, 4) {
            0 => CrashPlan::nothing_pending(),
            1 => CrashPlan::everything_pending(),
            2 => CrashPlan::first(chance.range(0, pending as u64) as usize),
            3 => CrashPlan::masked(chance.bits()),
            _ => CrashPlan::chosen((0..pending).map(|_| fate(chance)).collect(), Fate::Lost),
        };
        self.fs = point.power_cut(&plan);
    }

    /// From now on every operation of this kind fails, until the machine is booted again.
    pub(crate) fn start_failing(&mut self, operation: Operation) {
        self.failing = true;
        self.fs.add_fault(FaultRule::always(operation, FaultKind::Io));
    }

    pub(crate) fn is_failing(&self) -> bool {
        self.failing
    }

    /// The directory as a starting process finds it.
    pub(crate) fn open(&self) -> (Arc<LogDir>, BTreeMap<TopicPartition, Offset>) {
        let dir = LogDir::new(Arc::new(self.fs.clone()), Path::new(DIR), FileCache::new(64));
        let points = dir.load_recovery_points().expect("a crash leaves the checkpoint whole");
        (dir, points.0)
    }

    /// Opens or creates the log of a partition.
    pub(crate) fn open_log(
        &self,
        dir: &Arc<LogDir>,
        topic_id: TopicId,
        partition: PartitionId,
        now: Timestamp,
    ) -> Result<Arc<Log>, LogError> {
        let tp = topic_partition(partition);
        let points = dir.load_recovery_points()?;
        let flush_point = points.0.get(&tp).copied().unwrap_or(Offset::ZERO);
        let (log, report) = Log::open(OpenOptions {
            log_dir: Arc::clone(dir),
            partition: tp,
            topic_id: Some(topic_id),
            config: Arc::new(LogConfig::default()),
            producers: ProducerLimits::default(),
            flush_point: FlushPoint::Known(flush_point),
            log_start_offset: Offset::ZERO,
            high_watermark: self.high_watermarks.get(&partition).copied().unwrap_or(Offset::ZERO),
            now,
        })?;
        assert!(report.damage.is_empty(), "recovery reports damage where nothing rotted: {report:?}");
        Ok(log)
    }
}

/// What becomes of one operation that no barrier covers.
fn fate(chance: &mut Chance) -> Fate {
    match chance.range(0, 2) {
        0 => Fate::Lost,
        1 => Fate::Kept,
        _ => Fate::Torn { sectors: chance.bits(), extends: chance.per_mille(500) },
    }
}

pub(crate) fn topic_partition(partition: PartitionId) -> TopicPartition {
    TopicPartition::new(TopicName::new(TOPIC).expect("a legal name"), partition)
}
