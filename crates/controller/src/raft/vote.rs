//! The small file with what Raft must not forget beside its entries: the vote, and how far the log was purged. The last
//! committed entry rides along; it may be old. A log that may have lost what it had acknowledged says so here, too.
//!
//! Three envelopes in fixed order, a fourth one if something was lost, and another while the log is opened. The file is replaced as a whole: written under another name, synced, renamed, and
//! the directory synced.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use klamm_log::fs::{LogFs, read_file, replace_file};
use klamm_log::{LogDir, StorageError};
use openraft::vote::{RaftLeaderId as _, RaftVote as _};
use serde::{Deserialize, Serialize};

use super::envelope::{self, Durable};
use super::error::{EnvelopeError, LogStoreError};
use super::types::{CommittedLeaderId, LogId, TypeConfig, Vote};

/// The file's name in the directory of the metadata log.
pub const QUORUM_STATE_FILE: &str = "quorum-state";
/// The most bytes that the file can have.
const FILE_BYTES_MAX: u64 = 4096;

/// What the file says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct QuorumState {
    pub(super) vote: Option<Vote>,
    /// The newest entry that was removed from the start of the log.
    pub(super) last_purged: Option<LogId>,
    /// The newest entry that was known to be committed when the file was written.
    pub(super) committed: Option<LogId>,
    /// What the log may have acknowledged and lost.
    pub(super) lost: Lost,
    /// The log is being opened, which may cut it; so many bytes it had before.
    pub(super) opening: Option<u64>,
}

/// What a log may have acknowledged and does not hold any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Lost {
    /// Nothing.
    #[default]
    Nothing,
    /// Nobody knows how much: its end was damaged.
    Unknown,
    /// Nothing past this entry, as the other voters have told.
    UpTo(LogId),
}

impl QuorumState {
    pub(super) fn encode(&self) -> Result<Vec<u8>, EnvelopeError> {
        let mut bytes = Vec::new();
        envelope::seal(&VoteRecordV1(self.vote.as_ref().map(VoteV1::from)), &mut bytes)?;
        envelope::seal(&PurgedRecordV1(self.last_purged.map(LogIdV1::from)), &mut bytes)?;
        envelope::seal(&CommittedRecordV1(self.committed.map(LogIdV1::from)), &mut bytes)?;
        if let Some(lost) = LostRecordV1::of(self.lost) {
            envelope::seal(&lost, &mut bytes)?;
        }
        if let Some(log_bytes) = self.opening {
            envelope::seal(&OpeningRecordV1(log_bytes), &mut bytes)?;
        }
        Ok(bytes)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        let (VoteRecordV1(vote), bytes) = envelope::open(bytes)?;
        let (PurgedRecordV1(last_purged), bytes) = envelope::open(bytes)?;
        let (CommittedRecordV1(committed), bytes) = envelope::open(bytes)?;
        let (lost, bytes) = match envelope::open::<LostRecordV1>(bytes) {
            _ if bytes.is_empty() => (Lost::Nothing, bytes),
            Ok((lost, rest)) => (lost.into(), rest),
            Err(EnvelopeError::RecordType { .. }) => (Lost::Nothing, bytes),
            Err(error) => return Err(error),
        };
        let opening = if bytes.is_empty() { None } else { Some(envelope::open_only(bytes)?) };
        Ok(Self {
            vote: vote.map(Vote::from),
            last_purged: last_purged.map(LogId::from),
            committed: committed.map(LogId::from),
            lost,
            opening: opening.map(|OpeningRecordV1(log_bytes)| log_bytes),
        })
    }
}

/// The file itself.
#[derive(Debug)]
pub(super) struct StateFile {
    log_dir: Arc<LogDir>,
    path: PathBuf,
}

impl StateFile {
    /// The file in `directory`, a directory within `log_dir`.
    pub(super) fn new(log_dir: Arc<LogDir>, directory: PathBuf) -> Self {
        Self { log_dir, path: directory.join(QUORUM_STATE_FILE) }
    }

    pub(super) fn path(&self) -> &PathBuf {
        &self.path
    }

    /// What the file says; `None` if there is no file.
    pub(super) fn read(&self) -> Result<Option<QuorumState>, LogStoreError> {
        let fs: &dyn LogFs = self.log_dir.fs().as_ref();
        let bytes = match read_file(fs, &self.path, FILE_BYTES_MAX) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(|source| self.error("read", source))?,
        };
        let state = QuorumState::decode(&bytes);
        Ok(Some(state.map_err(|source| LogStoreError::State { path: self.path.clone(), source })?))
    }

    /// Makes the file say `state`; durable on return. Any failure ends the directory's service: of a file that was
    /// perhaps replaced nobody may guess which vote it holds.
    pub(super) fn write(&self, state: &QuorumState) -> Result<(), LogStoreError> {
        self.log_dir.check()?;
        let bytes =
            state.encode().map_err(|source| LogStoreError::State { path: self.path.clone(), source })?;
        replace_file(self.log_dir.fs().as_ref(), &self.path, &bytes)
            .map_err(|source| self.log_dir.fail(self.error("replace", source)).into())
    }

    fn error(&self, verb: &'static str, source: io::Error) -> StorageError {
        StorageError { verb, path: self.path.clone(), source }
    }
}

/// A vote on the disk, version 1. Frozen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct VoteV1 {
    term: u64,
    node_id: u64,
    committed: bool,
}

/// A log id on the disk, version 1. Frozen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct LogIdV1 {
    term: u64,
    index: u64,
}

#[derive(Serialize, Deserialize)]
struct VoteRecordV1(Option<VoteV1>);

#[derive(Serialize, Deserialize)]
struct PurgedRecordV1(Option<LogIdV1>);

#[derive(Serialize, Deserialize)]
struct CommittedRecordV1(Option<LogIdV1>);

/// Up to where something was lost; `None` if nobody knows.
#[derive(Serialize, Deserialize)]
struct LostRecordV1(Option<LogIdV1>);

/// How many bytes the log had before it was opened.
#[derive(Serialize, Deserialize)]
struct OpeningRecordV1(u64);

impl Durable for OpeningRecordV1 {
    const RECORD_TYPE: u16 = 7;
    const SCHEMA_VERSION: u16 = 1;
}

impl LostRecordV1 {
    fn of(lost: Lost) -> Option<Self> {
        match lost {
            Lost::Nothing => None,
            Lost::Unknown => Some(Self(None)),
            Lost::UpTo(log_id) => Some(Self(Some(log_id.into()))),
        }
    }
}

impl From<LostRecordV1> for Lost {
    fn from(LostRecordV1(stored): LostRecordV1) -> Self {
        stored.map_or(Self::Unknown, |log_id| Self::UpTo(log_id.into()))
    }
}

impl Durable for VoteRecordV1 {
    const RECORD_TYPE: u16 = 1;
    const SCHEMA_VERSION: u16 = 1;
}

impl Durable for PurgedRecordV1 {
    const RECORD_TYPE: u16 = 2;
    const SCHEMA_VERSION: u16 = 1;
}

impl Durable for CommittedRecordV1 {
    const RECORD_TYPE: u16 = 3;
    const SCHEMA_VERSION: u16 = 1;
}

impl Durable for LostRecordV1 {
    const RECORD_TYPE: u16 = 6;
    const SCHEMA_VERSION: u16 = 1;
}

type LeaderId = openraft::type_config::alias::LeaderIdOf<TypeConfig>;

impl From<&Vote> for VoteV1 {
    fn from(vote: &Vote) -> Self {
        let leader = vote.leader_id();
        Self { term: leader.term, node_id: leader.voted_for, committed: vote.is_committed() }
    }
}

impl From<VoteV1> for Vote {
    fn from(stored: VoteV1) -> Self {
        Self::from_leader_id(LeaderId::new(stored.term, stored.node_id), stored.committed)
    }
}

impl From<LogId> for LogIdV1 {
    fn from(log_id: LogId) -> Self {
        Self { term: log_id.leader_id.term, index: log_id.index }
    }
}

impl From<LogIdV1> for LogId {
    fn from(stored: LogIdV1) -> Self {
        Self { leader_id: CommittedLeaderId::new(stored.term), index: stored.index }
    }
}

#[cfg(test)]
#[path = "vote_test.rs"]
mod tests;
