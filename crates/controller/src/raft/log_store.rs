//! The store that openraft writes to: a log of ours, and the state file beside it.
//!
//! | call | returns when |
//! | --- | --- |
//! | `append` | the entries are in the page cache, for every reader; its callback is called once they are durable |
//! | `save_vote` | the vote is durable |
//! | `truncate_after`, `purge` | the entries are gone, durably |
//! | `save_committed` | at once; written later |

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use klamm_log::{
    DirOffline, FlushPoint, Log, LogConfig, LogDir, OpenOptions, ProducerLimits, RecoveryReport, StorageError,
};
use klamm_types::{Offset, PartitionId, TopicName, TopicPartition};
use openraft::OptionalSend;
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use tokio::sync::oneshot;

use super::entry::{self, offset_of};
use super::error::LogStoreError;
use super::io_thread::{COMMITTED_LAG_MAX, Command, Done, IoThread, LostRecord, remove_before};
use super::log_reader::LogReader;
use super::shared::{NO_TIME, Shared};
use super::types::{Entry, LogId, TypeConfig, Vote};
use super::vote::{Lost, QuorumState, StateFile};

/// The topic of the metadata log, as Kafka calls it.
const TOPIC: &str = "__cluster_metadata";
/// The name of the lock file in the log directory.
const LOCK_FILE: &str = ".metadata-log.lock";
/// How many bytes of batches go to the log in one call.
const APPEND_BYTES: usize = 64 << 20;

/// Where the store is, and how it is cut into files.
#[derive(Clone, Debug)]
pub struct LogStoreOptions {
    /// The log directory. Its recovery points are read anew, so open the store before other logs of the directory.
    pub log_dir: Arc<LogDir>,
    /// `metadata.log.segment.bytes`: the size at which a segment is rolled; purging frees whole segments.
    pub segment_bytes: u32,
}

impl LogStoreOptions {
    /// The store in `log_dir`, with segments of 64 MiB.
    #[must_use]
    pub fn new(log_dir: Arc<LogDir>) -> Self {
        Self { log_dir, segment_bytes: 64 << 20 }
    }
}

/// The metadata log of one controller. There is one per directory, and Raft owns it; [`LogReader`]s are many.
///
/// Dropping it makes durable what is under way and waits for that, for the length of a sync.
pub struct LogStore {
    shared: Arc<Shared>,
    thread: IoThread,
    /// The answer that a cancelled call did not wait for: the next one does, so that nothing overtakes it.
    unfinished: Option<oneshot::Receiver<Result<(), LogStoreError>>>,
    /// The committed index when it was last asked to be written.
    requested_committed: u64,
}

impl LogStore {
    /// Opens the store, recovering it after a crash; makes it if it does not exist. On return all that it holds is
    /// durable.
    ///
    /// # Errors
    /// [`LogStoreError::Locked`], [`State`](LogStoreError::State), [`StateMissing`](LogStoreError::StateMissing),
    /// [`Damaged`](LogStoreError::Damaged), [`StartMismatch`](LogStoreError::StartMismatch),
    /// [`CommittedLost`](LogStoreError::CommittedLost): a node that would have to forget what it promised does not
    /// start. The disk's errors.
    pub fn open(options: LogStoreOptions) -> Result<(Self, RecoveryReport), LogStoreError> {
        let LogStoreOptions { log_dir, segment_bytes } = options;
        let partition = partition();
        let directory = log_dir.path().join(partition.to_string());
        make_directory(&log_dir, &directory)?;
        let lock_path = log_dir.path().join(LOCK_FILE);
        let locked = log_dir.fs().try_lock(&lock_path);
        let lock = locked
            .map_err(|source| storage("lock", &lock_path, source))?
            .ok_or(LogStoreError::Locked { path: lock_path })?;
        let state_file = StateFile::new(Arc::clone(&log_dir), directory.clone());
        let (mut state, log_bytes) = load_state(&log_dir, &directory, &state_file)?;
        let start = start_offset(&state);
        // The log is made before the first vote is given. What a start had cut that crashed shows in the bytes.
        let has_promised = state.vote.is_some();
        if has_promised && state.opening.map_or(log_bytes.is_none(), |before| log_bytes < Some(before)) {
            state.lost = Lost::Unknown;
        }
        // Opening the log may cut its end. Once that is gone nothing else tells that it was there, and a crash before it
        // is written down would pass for a clean end.
        if has_promised {
            state.opening = Some(log_bytes.unwrap_or(0));
            state_file.write(&state)?;
        }
        let points = log_dir.load_recovery_points()?;
        let flush_point = points.0.get(&partition).copied().unwrap_or(Offset::ZERO);
        let (log, report) = Log::open(OpenOptions {
            log_dir,
            partition,
            topic_id: None,
            config: Arc::new(config(segment_bytes)),
            producers: ProducerLimits { count_max: 1, expiration_ms: 0 },
            flush_point: FlushPoint::Known(flush_point),
            log_start_offset: start,
            high_watermark: start,
            now: NO_TIME,
        })?;
        if !report.damage.is_empty() {
            return Err(LogStoreError::Damaged { ranges: report.damage });
        }
        // Whether it was acknowledged nothing here can tell. An ordinary power cut leaves what was never flushed.
        if report.cut_may_have_been_flushed {
            state.lost = Lost::Unknown;
        }
        if has_promised || report.truncated_bytes > 0 {
            state.opening = None;
            state_file.write(&state)?;
        }
        let shared = Arc::new(Shared::new(log, state_file, state));
        // A crash may have come between the file that says what is purged and the purge.
        if shared.log.log_end_offset() < start || state.last_purged.is_some() {
            remove_before(&shared, start)?;
        }
        let log_start_offset = shared.log.log_start_offset();
        if log_start_offset != start {
            return Err(LogStoreError::StartMismatch { log_start_offset, expected: start });
        }
        let log_end_offset = shared.log.log_end_offset();
        if let Some(committed) = state.committed.filter(|c| c.index >= log_end_offset.0.cast_unsigned()) {
            return Err(LogStoreError::CommittedLost { committed: committed.index, log_end_offset });
        }
        let thread = IoThread::start(Arc::clone(&shared), lock, state.committed)?;
        let requested_committed = state.committed.map_or(0, |committed| committed.index);
        Ok((Self { shared, thread, unfinished: None, requested_committed }, report))
    }

    /// The log beneath, for tools and metrics. Only this store may change it.
    #[must_use]
    pub fn log(&self) -> &Arc<Log> {
        &self.shared.log
    }

    /// The directory of the log, in which the snapshots lie too.
    #[must_use]
    pub fn directory(&self) -> PathBuf {
        self.shared.log.log_dir().path().join(partition().to_string())
    }

    /// Whether nothing was ever written here: no vote, no entry.
    #[must_use]
    pub fn is_new(&self) -> bool {
        let state = self.shared.state();
        state.vote.is_none()
            && state.last_purged.is_none()
            && self.shared.log.log_end_offset() == Offset::ZERO
    }

    /// What the log may have acknowledged and lost.
    pub(crate) fn lost(&self) -> Lost {
        self.shared.state().lost
    }

    /// The way to change that.
    pub(crate) fn lost_record(&self) -> Result<LostRecord, LogStoreError> {
        self.thread.lost_record()
    }

    /// A view for reading entries and the vote, also while this store is at work.
    #[must_use]
    pub fn reader(&self) -> LogReader {
        LogReader::new(Arc::clone(&self.shared))
    }

    /// Hands `command` to the thread and waits for its answer.
    async fn call(&mut self, command: impl FnOnce(Done) -> Command) -> Result<(), LogStoreError> {
        self.settle().await?;
        let permit = self.thread.reserve().await?;
        let (done, answer) = oneshot::channel();
        permit.send(command(done));
        self.unfinished = Some(answer);
        self.settle().await
    }

    /// Waits for the answer that is still due.
    async fn settle(&mut self) -> Result<(), LogStoreError> {
        let Some(answer) = &mut self.unfinished else { return Ok(()) };
        let answer = answer.await;
        self.unfinished = None;
        answer.unwrap_or(Err(LogStoreError::Stopped))
    }

    async fn append_entries(
        &mut self,
        entries: Vec<Entry>,
        flushed: IOFlushed<TypeConfig>,
    ) -> Result<(), LogStoreError> {
        self.settle().await?;
        self.check_consecutive(&entries)?;
        let permit = self.thread.reserve().await?;
        let mut batches = Vec::new();
        for entry in &entries {
            entry::encode(entry, &mut batches)?;
            if batches.len() >= APPEND_BYTES {
                self.shared.log.append_as_follower(&batches, NO_TIME)?;
                batches.clear();
            }
        }
        if !batches.is_empty() {
            self.shared.log.append_as_follower(&batches, NO_TIME)?;
        }
        permit.send(Command::Flush(flushed));
        Ok(())
    }

    /// Refuses entries that would leave a hole. Only a log that has never held anything may start anywhere.
    fn check_consecutive(&self, entries: &[Entry]) -> Result<(), LogStoreError> {
        let log = &self.shared.log;
        let is_new = log.size_bytes() == 0 && self.shared.state().last_purged.is_none();
        let first = entries.first().map(|first| first.log_id.index).filter(|_| is_new);
        let mut expected = first.unwrap_or(log.log_end_offset().0.cast_unsigned());
        for entry in entries {
            let index = entry.log_id.index;
            if index != expected {
                return Err(LogStoreError::Hole { index, expected });
            }
            expected = index.saturating_add(1);
        }
        Ok(())
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        self.settle().await?;
        let _cut = self.shared.cut.read().unwrap_or_else(PoisonError::into_inner);
        let last_log_id = self.shared.last_log_id()?;
        Ok(LogState { last_purged_log_id: self.shared.state().last_purged, last_log_id })
    }

    async fn get_log_reader(&mut self) -> LogReader {
        self.reader()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let vote = *vote;
        Ok(self.call(|done| Command::SaveVote(vote, done)).await?)
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        let Some(committed) = committed else { return Ok(()) };
        if let Some(offset) = offset_of(committed.index) {
            self.shared.log.advance_high_watermark(offset.plus(1));
        }
        self.shared.state().committed = Some(committed);
        if committed.index.saturating_sub(self.requested_committed) >= COMMITTED_LAG_MAX {
            self.requested_committed = committed.index;
            self.thread.request_save_committed();
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.shared.committed()?)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries = entries.into_iter().collect();
        Ok(self.append_entries(entries, callback).await?)
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        let end = last_log_id.map_or(0, |last| last.index.saturating_add(1));
        Ok(self.call(|done| Command::TruncateFrom(end, done)).await?)
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        Ok(self.call(|done| Command::Purge(log_id, done)).await?)
    }
}

fn partition() -> TopicPartition {
    TopicPartition::new(TopicName::new(TOPIC).expect("the name is legal"), PartitionId(0))
}

/// The settings of a log that only its owner cuts.
fn config(segment_bytes: u32) -> LogConfig {
    LogConfig {
        segment_bytes,
        segment_ms: i64::MAX,
        retention_ms: None,
        retention_bytes: None,
        file_delete_delay_ms: 0,
        ..LogConfig::default()
    }
}

/// Makes the log's directory, and makes sure that its name and the names in it are durable: what is read there next
/// must not be lost again.
fn make_directory(log_dir: &LogDir, directory: &Path) -> Result<(), LogStoreError> {
    log_dir.check().map_err(|error: DirOffline| LogStoreError::Offline(error))?;
    let fs = log_dir.fs();
    fs.create_dir_all(directory).map_err(|source| storage("create", directory, source))?;
    for synced in [directory, log_dir.path()] {
        fs.sync_dir(synced).map_err(|source| log_dir.fail(storage("sync", synced, source)))?;
    }
    Ok(())
}

/// What the state file says, and how many bytes the log has, `None` without any file; for a new log, an empty state is
/// made first.
fn load_state(
    log_dir: &LogDir,
    directory: &Path,
    state_file: &StateFile,
) -> Result<(QuorumState, Option<u64>), LogStoreError> {
    let names = log_dir.fs().list(directory).map_err(|source| storage("list", directory, source))?;
    let mut log_bytes = None;
    for entry in names.iter().filter(|entry| entry.name.ends_with(".log")) {
        let path = directory.join(&entry.name);
        let stat = log_dir.fs().stat(&path).map_err(|source| storage("stat", &path, source))?;
        log_bytes = Some(log_bytes.unwrap_or(0) + stat.map_or(0, |stat| stat.len));
    }
    if let Some(state) = state_file.read()? {
        return Ok((state, log_bytes));
    }
    if log_bytes.is_some() {
        return Err(LogStoreError::StateMissing { path: state_file.path().clone() });
    }
    let state = QuorumState::default();
    state_file.write(&state)?;
    Ok((state, None))
}

/// Where the log starts: after what was purged.
fn start_offset(state: &QuorumState) -> Offset {
    let purged = state.last_purged.and_then(|purged| offset_of(purged.index));
    purged.map_or(Offset::ZERO, |offset| offset.plus(1))
}

fn storage(verb: &'static str, path: &Path, source: io::Error) -> StorageError {
    StorageError { verb, path: PathBuf::from(path), source }
}

#[cfg(test)]
#[path = "log_store_test.rs"]
mod tests;
