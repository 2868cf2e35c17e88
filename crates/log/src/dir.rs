//! One log directory (a disk, as a rule): its health, its open files, its partitions' directories.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use klamm_types::{Offset, TopicPartition};

use crate::checkpoint::OffsetCheckpoint;
use crate::error::{Describe as _, DirOffline, LogError, StorageError};
use crate::file_cache::FileCache;
use crate::fs::LogFs;
use crate::room::Room;

/// The file with the high watermarks of a directory's partitions.
pub const HIGH_WATERMARK_FILE: &str = "replication-offset-checkpoint";

/// The file with the log starts of a directory's partitions.
pub const LOG_START_FILE: &str = "log-start-offset-checkpoint";

/// The file with the recovery points of a directory's partitions.
pub const RECOVERY_POINT_FILE: &str = "recovery-point-offset-checkpoint";

/// Is told, once, that a directory has gone out of service: on the thread whose disk call failed, which may hold a
/// log's locks. It must not call into a log.
#[derive(Clone)]
pub struct FailureListener(pub Arc<dyn Fn(&DirOffline) + Send + Sync>);

impl std::fmt::Debug for FailureListener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FailureListener")
    }
}

/// One of the directories that hold logs. It is in service until its first failed write or sync, and then never
/// again in this process (REPLICATION 2.10).
#[derive(Debug)]
pub struct LogDir {
    path: PathBuf,
    fs: Arc<dyn LogFs>,
    files: Arc<FileCache>,
    failure: OnceLock<String>,
    listener: OnceLock<FailureListener>,
    recovery_points: Mutex<Stored>,
    high_watermarks: Mutex<Stored>,
    log_starts: Mutex<Stored>,
    /// What records leave free, if they leave anything.
    room: Option<Room>,
}

/// What a directory's checkpoints keep, one file for each. Each is kept in memory as it was last read or written;
/// its lock is held by whoever changes it, from finding out what it should say until that is durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum OffsetKind {
    RecoveryPoint,
    HighWatermark,
    LogStart,
}

/// A checkpoint of the directory, as it was last read or written.
#[derive(Debug, Default)]
struct Stored {
    offsets: OffsetCheckpoint,
    /// The file is known to be there and to read.
    is_sound: bool,
}

impl Stored {
    fn new(offsets: OffsetCheckpoint) -> Self {
        Self { offsets, is_sound: true }
    }
}

impl OffsetKind {
    pub(crate) const ALL: [Self; 3] = [Self::RecoveryPoint, Self::HighWatermark, Self::LogStart];

    pub(crate) fn file(self) -> &'static str {
        match self {
            Self::RecoveryPoint => RECOVERY_POINT_FILE,
            Self::HighWatermark => HIGH_WATERMARK_FILE,
            Self::LogStart => LOG_START_FILE,
        }
    }
}

impl LogDir {
    /// The directory at `path`, whose open files count against `files`.
    #[must_use]
    pub fn new(fs: Arc<dyn LogFs>, path: &Path, files: Arc<FileCache>) -> Arc<Self> {
        Arc::new(Self::of(fs, path, files, None))
    }

    /// As [`new`](Self::new), for the logs of partitions: their records leave some room on the disk to those who cannot do
    /// without.
    pub(crate) fn for_partitions(fs: Arc<dyn LogFs>, path: &Path, files: Arc<FileCache>) -> Arc<Self> {
        Arc::new(Self::of(fs, path, files, Some(Room::default())))
    }

    fn of(fs: Arc<dyn LogFs>, path: &Path, files: Arc<FileCache>, room: Option<Room>) -> Self {
        Self {
            path: path.to_owned(),
            fs,
            files,
            failure: OnceLock::new(),
            listener: OnceLock::new(),
            recovery_points: Mutex::default(),
            high_watermarks: Mutex::default(),
            log_starts: Mutex::default(),
            room,
        }
    }

    /// The room may have changed.
    pub(crate) fn doubt_room(&self) {
        if let Some(room) = &self.room {
            room.doubt();
        }
    }

    /// Takes room for records.
    pub(crate) fn take_room(&self, bytes: u64) -> Result<(), StorageError> {
        self.room.as_ref().map_or(Ok(()), |room| room.take(self.fs.as_ref(), &self.path, bytes))
    }

    /// Where the directory is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file system that it is on.
    #[must_use]
    pub fn fs(&self) -> &Arc<dyn LogFs> {
        &self.fs
    }

    pub(crate) fn files(&self) -> &Arc<FileCache> {
        &self.files
    }

    /// Refuses if the directory is out of service.
    ///
    /// # Errors
    /// [`DirOffline`] with the failure that ended its service.
    pub fn check(&self) -> Result<(), DirOffline> {
        match self.failure.get() {
            None => Ok(()),
            Some(reason) => Err(DirOffline { dir: self.path.clone(), reason: reason.clone() }),
        }
    }

    /// Has `listener` told of the directory's failure. Only the first listener counts.
    pub fn set_failure_listener(&self, listener: FailureListener) {
        // A second listener would be a mistake of the caller; the first stays in force.
        let _ = self.listener.set(listener);
    }

    /// Takes the directory out of service because of `error`, which is handed back. Later failures change nothing.
    pub fn fail(&self, error: StorageError) -> StorageError {
        let first = self.failure.set(error.to_string()).is_ok();
        if first && let (Some(FailureListener(listener)), Err(offline)) = (self.listener.get(), self.check())
        {
            listener(&offline);
        }
        error
    }

    /// Takes the directory out of service if `result` is an error.
    pub(crate) fn watch<T>(&self, result: Result<T, StorageError>) -> Result<T, StorageError> {
        result.map_err(|error| self.fail(error))
    }

    /// Takes the directory out of service if `result` is a failure of its disk. A full disk is none.
    ///
    /// # Errors
    /// Those of `result`.
    pub fn guard<T>(&self, result: Result<T, LogError>) -> Result<T, LogError> {
        result.map_err(|error| match error {
            LogError::Storage(error) if !error.is_full() => self.fail(error).into(),
            error => error,
        })
    }

    /// Reads the recovery points of the directory's partitions. Needed once, before the first log is opened.
    ///
    /// # Errors
    /// [`LogError::Damaged`] if the file does not read; the disk's errors.
    pub fn load_recovery_points(&self) -> Result<OffsetCheckpoint, LogError> {
        self.load_offsets(OffsetKind::RecoveryPoint)
    }

    /// Reads one of the checkpoints; empty if there is no such file.
    ///
    /// # Errors
    /// [`LogError::Damaged`] if the file does not read; the disk's errors.
    pub(crate) fn load_offsets(&self, kind: OffsetKind) -> Result<OffsetCheckpoint, LogError> {
        // What is read here is acted on: a power cut must not bring back an older file after that.
        self.watch(self.fs.sync_dir(&self.path).describe("sync", &self.path))?;
        let mut stored = self.lock_offsets(kind);
        let read = OffsetCheckpoint::read(self.fs.as_ref(), &self.path.join(kind.file()))?;
        // An empty one may as well be no file.
        *stored = Stored { offsets: read.clone(), is_sound: !read.0.is_empty() };
        Ok(read)
    }

    /// What a checkpoint says of `partition`, as it was last read or written; zero if nothing.
    pub(crate) fn offset_in(&self, kind: OffsetKind, partition: &TopicPartition) -> Offset {
        self.lock_offsets(kind).offsets.0.get(partition).copied().unwrap_or(Offset::ZERO)
    }

    /// Makes the recovery points of these partitions durable, as [`Log::checkpoint`](crate::Log::checkpoint)
    /// returned them; `None` forgets a partition.
    ///
    /// # Errors
    /// If the file could not be replaced; the old one then still stands.
    pub fn store_recovery_points(
        &self,
        points: impl IntoIterator<Item = (TopicPartition, Option<Offset>)>,
    ) -> Result<(), LogError> {
        self.update_recovery_points(|stored| {
            let mut changed = false;
            for (partition, point) in points {
                let before = match point {
                    Some(point) => stored.0.insert(partition, point),
                    None => stored.0.remove(&partition),
                };
                changed |= before != point;
            }
            changed
        })
    }

    /// Makes sure that the log-start checkpoint has nothing past `offset` for `partition`. Durable on return.
    pub(crate) fn lower_log_start(&self, partition: &TopicPartition, offset: Offset) -> Result<(), LogError> {
        let mut stored = self.lock_offsets(OffsetKind::LogStart);
        let path = self.path.join(LOG_START_FILE);
        let mut starts = match OffsetCheckpoint::read(self.fs.as_ref(), &path) {
            // Whoever opens the log next will not read it either.
            Err(LogError::Damaged { .. }) => return Ok(()),
            read => read?,
        };
        match starts.0.get_mut(partition) {
            Some(start) if *start > offset => {
                *start = offset;
                self.guard(starts.write(self.fs.as_ref(), &path))?;
                *stored = Stored::new(starts);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Changes recovery points by `change` and makes the result durable before it returns.
    ///
    /// # Errors
    /// If the file could not be replaced; the old one then still stands.
    pub(crate) fn update_recovery_points(
        &self,
        change: impl FnOnce(&mut OffsetCheckpoint) -> bool,
    ) -> Result<(), LogError> {
        self.update_offsets(OffsetKind::RecoveryPoint, |stored| {
            let mut next = stored.clone();
            change(&mut next).then_some(next)
        })
    }

    /// Replaces a checkpoint by what `next` makes of it, if anything. Durable on return. `next` runs under the
    /// checkpoint's lock: what it looks up there cannot be older than what another caller has written meanwhile.
    ///
    /// # Errors
    /// If the file could not be replaced; the old one then still stands.
    pub(crate) fn update_offsets(
        &self,
        kind: OffsetKind,
        next: impl FnOnce(&OffsetCheckpoint) -> Option<OffsetCheckpoint>,
    ) -> Result<(), LogError> {
        self.check()?;
        let mut stored = self.lock_offsets(kind);
        match next(&stored.offsets) {
            Some(next) => self.store_offsets(kind, &mut stored, next),
            None => Ok(()),
        }
    }

    /// As [`update_offsets`](Self::update_offsets), but also makes the file if it is missing or damaged.
    ///
    /// # Errors
    /// If the file could not be replaced; the old one then still stands.
    pub(crate) fn replace_offsets(
        &self,
        kind: OffsetKind,
        next: impl FnOnce(&OffsetCheckpoint) -> OffsetCheckpoint,
    ) -> Result<(), LogError> {
        self.check()?;
        let mut stored = self.lock_offsets(kind);
        let next = next(&stored.offsets);
        match stored.is_sound && next == stored.offsets {
            true => Ok(()),
            false => self.store_offsets(kind, &mut stored, next),
        }
    }

    fn store_offsets(
        &self,
        kind: OffsetKind,
        stored: &mut Stored,
        offsets: OffsetCheckpoint,
    ) -> Result<(), LogError> {
        self.guard(offsets.write(self.fs.as_ref(), &self.path.join(kind.file())))?;
        *stored = Stored::new(offsets);
        Ok(())
    }

    /// Removes from all checkpoints the partitions that `stale` finds in them, so that what is said of one is never
    /// taken for another's of the same name. Durable on return.
    ///
    /// # Errors
    /// If a file could not be replaced; the old one then still stands.
    pub(crate) fn forget_offsets(
        &self,
        stale: impl Fn(&OffsetCheckpoint) -> Vec<TopicPartition>,
    ) -> Result<(), LogError> {
        for kind in OffsetKind::ALL {
            self.update_offsets(kind, |stored| {
                let stale = stale(stored);
                let mut next = (!stale.is_empty()).then(|| stored.clone())?;
                for partition in &stale {
                    next.0.remove(partition);
                }
                Some(next)
            })?;
        }
        Ok(())
    }

    fn lock_offsets(&self, kind: OffsetKind) -> MutexGuard<'_, Stored> {
        let stored = match kind {
            OffsetKind::RecoveryPoint => &self.recovery_points,
            OffsetKind::HighWatermark => &self.high_watermarks,
            OffsetKind::LogStart => &self.log_starts,
        };
        stored.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The directory of one partition within a [`LogDir`].
#[derive(Debug)]
pub(crate) struct PartitionDir {
    pub(crate) log_dir: Arc<LogDir>,
    pub(crate) partition: TopicPartition,
    /// Changes once, when the partition is deleted.
    path: RwLock<Arc<Path>>,
    deleted: AtomicBool,
}

impl PartitionDir {
    pub(crate) fn new(log_dir: Arc<LogDir>, partition: TopicPartition) -> Arc<Self> {
        let path = log_dir.path.join(partition.to_string());
        Arc::new(Self { log_dir, partition, path: RwLock::new(path.into()), deleted: AtomicBool::new(false) })
    }

    /// A partition's directory that stands under another name than its own, for tools.
    pub(crate) fn path(&self) -> Arc<Path> {
        Arc::clone(&self.path.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    pub(crate) fn fs(&self) -> &dyn LogFs {
        self.log_dir.fs.as_ref()
    }

    /// Makes the names in this directory durable. A failure ends the log directory's service.
    pub(crate) fn sync(&self) -> Result<(), StorageError> {
        let path = self.path();
        self.log_dir.watch(self.fs().sync_dir(&path).describe("sync", &path))
    }

    /// Makes the directory's own name durable. A failure ends the log directory's service.
    pub(crate) fn sync_parent(&self) -> Result<(), StorageError> {
        let parent = &self.log_dir.path;
        self.log_dir.watch(self.fs().sync_dir(parent).describe("sync", parent))
    }

    /// Whether the partition has been deleted: its files may be gone at any time.
    pub(crate) fn is_deleted(&self) -> bool {
        self.deleted.load(Ordering::Acquire)
    }

    /// Gives the directory the name `name` in the same log directory.
    pub(crate) fn rename(&self, name: &str) -> Result<(), StorageError> {
        let mut path = self.path.write().unwrap_or_else(PoisonError::into_inner);
        let to = self.log_dir.path.join(name);
        let renamed = self.fs().rename(&path, &to).describe("rename", &path);
        self.log_dir.watch(renamed)?;
        *path = to.into();
        self.deleted.store(true, Ordering::Release);
        drop(path);
        self.sync_parent()
    }
}
