//! Bringing the directories into service.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use klamm_types::{Timestamp, TopicPartition};
use uuid::Uuid;

use super::housekeeping::Schedule;
use super::{Lock, LogManager, LogStart, ManagedDir, ManagerError, ManagerOptions, deletion};
use crate::checkpoint::{CleanShutdown, MetaProperties, OffsetCheckpoint, Siblings};
use crate::config::LogConfig;
use crate::dir::{LogDir, OffsetKind};
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
    /// A directory is not there that another one remembers: it was replaced by an empty one, was taken out of the
    /// options, or did not come into service. The logs in it are gone.
    pub lacks_dir: bool,
}

/// What the start found in one directory.
#[derive(Debug)]
pub struct DirStart {
    /// The directory.
    pub path: PathBuf,
    /// What it held, or why it is not in service.
    pub result: Result<DirContent, LogError>,
}

/// The directory within a log directory where a controller keeps its log, apart from the partitions: their checkpoints
/// have one writer.
pub const METADATA_DIR: &str = "metadata";

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

/// A directory that is this node's, before its logs are opened.
struct PreparedDir {
    dir: Arc<LogDir>,
    lock: Lock,
    properties: MetaProperties,
    siblings: Siblings,
    clean_shutdown: Option<CleanShutdown>,
    points_lost: bool,
    partitions: BTreeSet<TopicPartition>,
    strays: Vec<String>,
}

/// The partitions that are in more than one log directory, and in which.
struct Places(BTreeMap<TopicPartition, Vec<PathBuf>>);

impl LogManager {
    /// Opens every log in the directories of `options`, recovering what a crash left. `config_of` gives a topic's
    /// settings. A directory that cannot be brought into service is left out and reported. A partition that has a
    /// directory in several of them is opened in none: which of them has its records is not known here.
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
            changes: Mutex::default(),
            deleted: Mutex::default(),
            schedule: Mutex::new(Schedule::starting(now)),
            options,
        };
        let mut report = StartReport { dirs: Vec::new(), lacks_dir: false };
        let paths = manager.options.dirs.iter();
        let prepared: Vec<_> = paths.map(|path| (path.clone(), manager.prepare_dir(path))).collect();
        let places = Places::of(prepared.iter().filter_map(|(_, dir)| dir.as_ref().ok()));
        for (path, dir) in prepared {
            let opened = dir.and_then(|dir| manager.open_logs(dir, &places, config_of, now));
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
        let present = |id: &Uuid| manager.dirs.iter().any(|managed| managed.properties.directory_id == *id);
        let misses = |managed: &ManagedDir| managed.siblings().0.iter().any(|id| !present(id));
        report.lacks_dir = manager.dirs.iter().any(misses);
        Ok((manager, report))
    }

    /// Takes a directory: makes it, locks it, checks whose it is, reads its checkpoints, lists its partitions.
    fn prepare_dir(&self, path: &Path) -> Result<PreparedDir, LogError> {
        let fs = self.fs.as_ref();
        self.make_dir(path)?;
        let lock = self.lock(path)?;
        let properties = self.identify(path)?;
        let siblings = Siblings::read(fs, path)?;
        let clean_shutdown = CleanShutdown::take(fs, path)?;
        let dir = LogDir::for_partitions(Arc::clone(&self.fs), path, Arc::clone(&self.files));
        let mut strays = Vec::new();
        let mut partitions = BTreeSet::new();
        for entry in fs.list(path).describe("list", path)?.into_iter().filter(|entry| entry.stat.is_dir) {
            if deletion::is_deleted_name(&entry.name) {
                deletion::remove_dir_all(fs, &path.join(&entry.name))?;
            } else if let Some(partition) = TopicPartition::parse_dir_name(&entry.name) {
                partitions.insert(partition);
            } else if entry.name != METADATA_DIR {
                strays.push(entry.name);
            }
        }
        let points_lost = load_checkpoints(&dir, &partitions)?;
        Ok(PreparedDir { dir, lock, properties, siblings, clean_shutdown, points_lost, partitions, strays })
    }

    #[expect(clippy::type_complexity, reason = "used once, taken apart at once")]
    fn open_logs(
        &self,
        prepared: PreparedDir,
        places: &Places,
        config_of: &(dyn Fn(&TopicPartition) -> Arc<LogConfig> + Sync),
        now: Timestamp,
    ) -> Result<(ManagedDir, BTreeMap<TopicPartition, Arc<Log>>, DirContent), LogError> {
        let PreparedDir { dir, lock, properties, siblings, clean_shutdown, points_lost, partitions, strays } =
            prepared;
        let open = |partition: &TopicPartition| {
            places.check_only(partition, &dir)?;
            let flush_point = match points_lost {
                true => FlushPoint::Lost,
                false => FlushPoint::Known(dir.offset_in(OffsetKind::RecoveryPoint, partition)),
            };
            let opened = Log::open(OpenOptions {
                log_dir: Arc::clone(&dir),
                partition: partition.clone(),
                topic_id: None,
                config: config_of(partition),
                producers: self.options.producers,
                flush_point,
                log_start_offset: dir.offset_in(OffsetKind::LogStart, partition),
                high_watermark: dir.offset_in(OffsetKind::HighWatermark, partition),
                now,
            })?;
            if points_lost {
                // What has been judged without a recovery point must never be judged by a lower one.
                match opened.0.checkpoint() {
                    Err(LogError::Storage(error)) if error.is_full() => {}
                    checkpointed => _ = checkpointed?,
                }
            }
            Ok(opened)
        };
        let mut logs = BTreeMap::new();
        let mut unopened = BTreeSet::new();
        let mut starts = Vec::with_capacity(partitions.len());
        let items = partitions.into_iter().collect();
        for (partition, opened) in in_parallel(items, self.options.recovery_threads_per_dir, open) {
            let result = opened.map(|(log, report)| {
                logs.insert(partition.clone(), log);
                report
            });
            if result.is_err() {
                unopened.insert(partition.clone());
            }
            starts.push(LogStart { partition, result });
        }
        let points_lost = points_lost && !restore_recovery_points(&dir, &logs, &unopened)?;
        dir.check()?;
        let name = "klamm-flush";
        let flusher = Flusher::start(name, self.options.flush_threads_per_dir)
            .describe("start threads for", dir.path())?;
        let siblings = Mutex::new(siblings);
        let content = DirContent { clean_shutdown, logs: starts, strays };
        Ok((
            ManagedDir { dir, properties, siblings, flusher, unopened, points_lost, _lock: lock },
            logs,
            content,
        ))
    }

    /// Makes the directory if it is not there. Until it has its identity, nothing tells whether an earlier start came
    /// to making the names of what it made durable: those above it are synced then, up to the root.
    fn make_dir(&self, path: &Path) -> Result<(), LogError> {
        let fs = self.fs.as_ref();
        fs.create_dir_all(path).describe("create", path)?;
        let identity = path.join(MetaProperties::FILE);
        if fs.stat(&identity).describe("open", &identity)?.is_some() {
            return Ok(());
        }
        for above in path.ancestors().skip(1) {
            let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
            match fs.sync_dir(above) {
                // A directory that we may not even list is no place where we have made one.
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {}
                synced => synced.describe("sync", above)?,
            }
        }
        Ok(())
    }

    fn lock(&self, path: &Path) -> Result<Lock, LogError> {
        let file = path.join(".lock");
        match self.fs.try_lock(&file).describe("lock", &file)? {
            Some(lock) => Ok(Lock(lock)),
            None => Err(LogError::InUse { path: path.to_owned() }),
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
                let made =
                    MetaProperties { cluster_id: cluster_id.clone(), node_id, directory_id, quorum_id: None };
                made.write(self.fs.as_ref(), path)?;
                Ok(made)
            }
        }
    }
}

impl Places {
    fn of<'a>(dirs: impl Iterator<Item = &'a PreparedDir>) -> Self {
        let mut places: BTreeMap<TopicPartition, Vec<PathBuf>> = BTreeMap::new();
        for prepared in dirs {
            for partition in &prepared.partitions {
                places.entry(partition.clone()).or_default().push(prepared.dir.path().to_owned());
            }
        }
        places.retain(|_, dirs| dirs.len() > 1);
        Self(places)
    }

    /// Refuses a partition that is in another directory than `dir` too.
    fn check_only(&self, partition: &TopicPartition, dir: &LogDir) -> Result<(), LogError> {
        let mut dirs = self.0.get(partition).into_iter().flatten();
        match dirs.find(|other| *other != dir.path()) {
            None => Ok(()),
            Some(other) => Err(LogError::Damaged {
                path: dir.path().join(partition.to_string()),
                reason: format!("the partition has a directory in {} too", other.display()),
            }),
        }
    }
}

/// Reads a directory's checkpoints and removes from them what is said of other partitions than those that are there.
/// Tells whether the recovery points are lost. The other checkpoints count as empty if they do not read.
fn load_checkpoints(dir: &LogDir, partitions: &BTreeSet<TopicPartition>) -> Result<bool, LogError> {
    let path = dir.path().join(OffsetKind::RecoveryPoint.file());
    // The file is made before the first partition is.
    let mut points_lost = dir.fs().stat(&path).describe("open", &path)?.is_none();
    for kind in OffsetKind::ALL {
        match dir.load_offsets(kind) {
            Ok(_) => {}
            Err(LogError::Damaged { .. }) => points_lost |= kind == OffsetKind::RecoveryPoint,
            Err(error) => return Err(error),
        }
    }
    if points_lost && partitions.is_empty() {
        dir.replace_offsets(OffsetKind::RecoveryPoint, |_| OffsetCheckpoint::default())?;
        points_lost = false;
    }
    dir.forget_offsets(|stored| {
        stored.0.keys().filter(|partition| !partitions.contains(*partition)).cloned().collect()
    })?;
    Ok(points_lost)
}

/// Writes the lost recovery points anew, if every log has been brought to one; tells whether it did.
fn restore_recovery_points(
    dir: &LogDir,
    logs: &BTreeMap<TopicPartition, Arc<Log>>,
    unopened: &BTreeSet<TopicPartition>,
) -> Result<bool, LogError> {
    // On a full disk a checkpoint may leave the point where it was.
    let is_known = |log: &Arc<Log>| log.recovery_point() == log.log_end_offset();
    if !unopened.is_empty() || !logs.values().all(is_known) {
        return Ok(false);
    }
    let points = logs.iter().map(|(partition, log)| (partition.clone(), log.recovery_point()));
    match dir.replace_offsets(OffsetKind::RecoveryPoint, |_| OffsetCheckpoint(points.collect())) {
        Ok(()) => Ok(true),
        Err(LogError::Storage(error)) if error.is_full() => Ok(false),
        Err(error) => Err(error),
    }
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
