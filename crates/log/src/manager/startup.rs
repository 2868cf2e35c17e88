//! Bringing the directories into service.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use klamm_types::{Offset, Timestamp, TopicPartition};
use uuid::Uuid;

use super::housekeeping::Schedule;
use super::{
    HIGH_WATERMARK_FILE, Lock, LogManager, LogStart, ManagedDir, ManagerError, ManagerOptions, deletion,
};
use crate::checkpoint::{CleanShutdown, MetaProperties, OffsetCheckpoint};
use crate::config::LogConfig;
use crate::dir::{LOG_START_FILE, LogDir};
use crate::error::{Describe as _, LogError};
use crate::file_cache::FileCache;
use crate::flusher::Flusher;
use crate::fs::LogFs;
use crate::log::Log;
use crate::recovery::{FlushPoint, OpenOptions};

/// What the start of a manager found.
#[derive(Debug)]
pub struct StartReport {
    /// Each directory, in the order of the options.
    pub dirs: Vec<DirStart>,
}

/// What the start found in one directory.
#[derive(Debug)]
pub struct DirStart {
    /// The directory.
    pub path: PathBuf,
    /// What it held, or why it is not in service.
    pub result: Result<DirContent, LogError>,
}

/// What a directory held.
#[derive(Debug)]
pub struct DirContent {
    /// The mark of an orderly shutdown; it is gone now.
    pub clean_shutdown: Option<CleanShutdown>,
    /// The logs, by partition.
    pub logs: Vec<LogStart>,
    /// Directories in it that are no partition's. They are left alone.
    pub strays: Vec<String>,
}

/// The checkpoints of a directory. A file that does not read counts as lost.
struct Checkpoints {
    recovery_points: Option<OffsetCheckpoint>,
    high_watermarks: OffsetCheckpoint,
    log_starts: OffsetCheckpoint,
}

impl LogManager {
    /// Opens every log in the directories of `options`, recovering what a crash left. `config_of` gives a topic's
    /// settings. A directory that cannot be brought into service is left out and reported.
    ///
    /// # Errors
    /// [`ManagerError::NoDirectory`] if none can be; the report is lost then, but each reason is logged by the caller's
    /// `on_failure`.
    pub fn open(
        fs: Arc<dyn LogFs>,
        options: ManagerOptions,
        config_of: &(dyn Fn(&TopicPartition) -> Arc<LogConfig> + Sync),
        now: Timestamp,
    ) -> Result<(Self, StartReport), ManagerError> {
        let mut manager = Self {
            fs,
            files: FileCache::new(options.open_files_max),
            dirs: Vec::new(),
            logs: RwLock::default(),
            deleted: Mutex::default(),
            schedule: Mutex::new(Schedule::starting(now)),
            hasher: foldhash::quality::RandomState::default(),
            options,
        };
        let mut report = StartReport { dirs: Vec::new() };
        for path in manager.options.dirs.clone() {
            let opened = manager.open_dir(&path, config_of, now);
            let result = opened.map(|(managed, logs, content)| {
                manager.dirs.push(managed);
                manager.logs.write().unwrap_or_else(PoisonError::into_inner).extend(logs);
                content
            });
            report.dirs.push(DirStart { path, result });
        }
        if manager.dirs.is_empty() {
            let first = report.dirs.into_iter().find_map(|dir| dir.result.err());
            return Err(first.map_or(ManagerError::NoDirectory, ManagerError::Log));
        }
        Ok((manager, report))
    }

    #[expect(clippy::type_complexity, reason = "used once, taken apart at once")]
    fn open_dir(
        &self,
        path: &Path,
        config_of: &(dyn Fn(&TopicPartition) -> Arc<LogConfig> + Sync),
        now: Timestamp,
    ) -> Result<(ManagedDir, BTreeMap<TopicPartition, Arc<Log>>, DirContent), LogError> {
        let fs = self.fs.as_ref();
        fs.create_dir_all(path).describe("create", path)?;
        let lock = self.lock(path)?;
        let properties = self.identify(path)?;
        let clean_shutdown = CleanShutdown::take(fs, path)?;
        let dir = LogDir::new(Arc::clone(&self.fs), path, Arc::clone(&self.files));
        let mut checkpoints = Checkpoints::read(fs, &dir)?;
        let mut strays = Vec::new();
        let mut partitions = Vec::new();
        for entry in fs.list(path).describe("list", path)?.into_iter().filter(|entry| entry.stat.is_dir) {
            if deletion::is_deleted_name(&entry.name) {
                deletion::remove_dir_all(fs, &path.join(&entry.name))?;
            } else if let Some(partition) = TopicPartition::parse_dir_name(&entry.name) {
                partitions.push(partition);
            } else {
                strays.push(entry.name);
            }
        }
        checkpoints.forget_others(fs, &dir, &partitions)?;
        let open = |partition: &TopicPartition| {
            Log::open(OpenOptions {
                log_dir: Arc::clone(&dir),
                partition: partition.clone(),
                topic_id: None,
                config: config_of(partition),
                producers: self.options.producers,
                flush_point: checkpoints.flush_point(partition),
                log_start_offset: offset_in(&checkpoints.log_starts, partition),
                high_watermark: offset_in(&checkpoints.high_watermarks, partition),
                now,
            })
        };
        let mut logs = BTreeMap::new();
        let mut starts = Vec::with_capacity(partitions.len());
        for (partition, opened) in in_parallel(partitions, self.options.recovery_threads_per_dir, open) {
            let result = opened.map(|(log, report)| {
                logs.insert(partition.clone(), log);
                report
            });
            starts.push(LogStart { partition, result });
        }
        dir.check()?;
        let name = "klamm-flush";
        let flusher =
            Flusher::start(name, self.options.flush_threads_per_dir).describe("start threads for", path)?;
        let content = DirContent { clean_shutdown, logs: starts, strays };
        Ok((ManagedDir { dir, properties, flusher, written: Mutex::default(), _lock: lock }, logs, content))
    }

    fn lock(&self, path: &Path) -> Result<Lock, LogError> {
        let file = path.join(".lock");
        match self.fs.try_lock(&file).describe("lock", &file)? {
            Some(lock) => Ok(Lock(lock)),
            None => Err(LogError::Damaged {
                path: file,
                reason: "another process holds the directory's lock".to_owned(),
            }),
        }
    }

    /// Checks that a directory belongs to this node, or makes a new one its own.
    fn identify(&self, path: &Path) -> Result<MetaProperties, LogError> {
        let (cluster_id, node_id) = (&self.options.cluster_id, self.options.node_id);
        let wrong = |reason: String| LogError::Damaged { path: path.join(MetaProperties::FILE), reason };
        match MetaProperties::read(self.fs.as_ref(), path)? {
            Some(found) if found.cluster_id != *cluster_id => {
                Err(wrong(format!("the directory belongs to cluster {}, not {cluster_id}", found.cluster_id)))
            }
            Some(found) if found.node_id != node_id => {
                Err(wrong(format!("the directory belongs to node {}, not {node_id}", found.node_id)))
            }
            Some(found) => Ok(found),
            None => {
                let directory_id = Uuid::new_v4();
                let made = MetaProperties { cluster_id: cluster_id.clone(), node_id, directory_id };
                made.write(self.fs.as_ref(), path)?;
                Ok(made)
            }
        }
    }
}

impl Checkpoints {
    fn read(fs: &dyn LogFs, dir: &LogDir) -> Result<Self, LogError> {
        let lost = |result| match result {
            Ok(checkpoint) => Ok(Some(checkpoint)),
            Err(LogError::Damaged { .. }) => Ok(None),
            Err(error) => Err(error),
        };
        let read = |name| lost(OffsetCheckpoint::read(fs, &dir.path().join(name)));
        Ok(Self {
            recovery_points: lost(dir.load_recovery_points())?,
            high_watermarks: read(HIGH_WATERMARK_FILE)?.unwrap_or_default(),
            log_starts: read(LOG_START_FILE)?.unwrap_or_default(),
        })
    }

    /// Forgets partitions that have no directory here, on disk too, so that what is said of them is never taken for
    /// another partition's of the same name.
    fn forget_others(
        &mut self,
        fs: &dyn LogFs,
        dir: &LogDir,
        partitions: &[TopicPartition],
    ) -> Result<(), LogError> {
        let here: BTreeSet<&TopicPartition> = partitions.iter().collect();
        let mut gone = Vec::new();
        if let Some(points) = &mut self.recovery_points {
            gone.extend(points.0.extract_if(.., |partition, _| !here.contains(partition)));
        }
        dir.store_recovery_points(gone.into_iter().map(|(partition, _)| (partition, None)))?;
        let named =
            [(HIGH_WATERMARK_FILE, &mut self.high_watermarks), (LOG_START_FILE, &mut self.log_starts)];
        for (name, checkpoint) in named {
            let before = checkpoint.0.len();
            checkpoint.0.retain(|partition, _| here.contains(partition));
            if checkpoint.0.len() < before {
                checkpoint.write(fs, &dir.path().join(name))?;
            }
        }
        Ok(())
    }

    fn flush_point(&self, partition: &TopicPartition) -> FlushPoint {
        match &self.recovery_points {
            Some(points) => FlushPoint::Known(offset_in(points, partition)),
            None => FlushPoint::Lost,
        }
    }
}

fn offset_in(checkpoint: &OffsetCheckpoint, partition: &TopicPartition) -> Offset {
    checkpoint.0.get(partition).copied().unwrap_or(Offset::ZERO)
}

/// `work` for each of `items` on up to `threads` threads; the results in any order.
fn in_parallel<T: Send, R: Send>(
    items: Vec<T>,
    threads: usize,
    work: impl Fn(&T) -> R + Sync,
) -> Vec<(T, R)> {
    let threads = threads.clamp(1, items.len().max(1));
    let queue = Mutex::new(items);
    let results = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let item = queue.lock().unwrap_or_else(PoisonError::into_inner).pop();
                    let Some(item) = item else { break };
                    let result = work(&item);
                    results.lock().unwrap_or_else(PoisonError::into_inner).push((item, result));
                }
            });
        }
    });
    results.into_inner().unwrap_or_else(PoisonError::into_inner)
}
