//! A store to test, and calls of it that wait for the disk.

use std::io;
use std::path::Path;
use std::sync::Arc;

use klamm_controller::raft::{
    CommittedLeaderId, EncodedRecords, Entry, EntryPayload, LogId, LogStore, LogStoreError, LogStoreOptions,
    TypeConfig, Vote,
};
use klamm_log::fs::{LogFs, MemoryFs};
use klamm_log::{FileCache, LogDir};
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::type_config::TypeConfigExt;
use openraft::vote::RaftVote;
use openraft::{RaftLogReader, RaftTypeConfig};

pub(crate) const DATA: &str = "/data";
pub(crate) const DIRECTORY: &str = "/data/__cluster_metadata-0";

/// Small segments, so that a few entries fill several.
pub(crate) const SEGMENT_BYTES: u32 = 400;

pub(crate) fn memory() -> MemoryFs {
    let fs = MemoryFs::new();
    fs.create_dir_all(Path::new(DATA)).unwrap();
    fs.sync_dir(Path::new("/")).unwrap();
    fs
}

pub(crate) fn try_open_at(fs: Arc<dyn LogFs>, path: &Path) -> Result<LogStore, LogStoreError> {
    let log_dir = LogDir::new(fs, path, FileCache::new(100));
    let options = LogStoreOptions { segment_bytes: SEGMENT_BYTES, ..LogStoreOptions::new(log_dir) };
    LogStore::open(options).map(|(store, _)| store)
}

pub(crate) fn try_open(fs: &MemoryFs) -> Result<LogStore, LogStoreError> {
    try_open_at(Arc::new(fs.clone()), Path::new(DATA))
}

pub(crate) fn open(fs: &MemoryFs) -> LogStore {
    try_open(fs).unwrap()
}

/// Runs a test's calls.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

pub(crate) fn log_id(term: u64, index: u64) -> LogId {
    LogId { leader_id: CommittedLeaderId::new(term), index }
}

pub(crate) fn vote(term: u64, node_id: u64, committed: bool) -> Vote {
    let leader = openraft::vote::RaftLeaderId::new(term, node_id);
    <TypeConfig as RaftTypeConfig>::Vote::from_leader_id(leader, committed)
}

/// An entry whose bytes tell its term and index.
pub(crate) fn entry(term: u64, index: u64) -> Entry {
    let text = format!("term {term}, index {index}: {}", "x".repeat(40));
    Entry { log_id: log_id(term, index), payload: EntryPayload::Normal(EncodedRecords(text.into())) }
}

/// Appends entries and waits until the store says that they are durable.
pub(crate) async fn append(store: &mut LogStore, entries: Vec<Entry>) -> io::Result<()> {
    let (sender, flushed) = TypeConfig::oneshot();
    store.append(entries, IOFlushed::signal(sender)).await?;
    flushed.await.map_err(|_| io::Error::other("the callback was dropped"))?
}

pub(crate) async fn entries(store: &LogStore) -> Vec<Entry> {
    store.reader().try_get_log_entries(..).await.unwrap()
}
