//! What can go wrong in the log store.

use std::io;
use std::path::PathBuf;

use klamm_log::{AppendError, DamagedRange, DirOffline, LogError, ReadError, StorageError};
use klamm_record::{BatchError, BuildError, ControlError};
use klamm_types::Offset;

/// Why bytes are not one of our envelopes, or not the one that is due.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    /// The bytes end before the envelope does.
    #[error("{len} bytes are left of an envelope of {needed}")]
    Truncated {
        /// The bytes that are there.
        len: usize,
        /// The bytes that the envelope should have; those of its header if not even that is there.
        needed: usize,
    },
    /// The bytes do not start with the magic.
    #[error("magic is {found:02x?}, not that of a quorum envelope")]
    Magic {
        /// What stands there.
        found: [u8; 4],
    },
    /// The envelope is of a version that this binary does not read.
    #[error("envelope version {version} is not known")]
    EnvelopeVersion {
        /// The version.
        version: u8,
    },
    /// The length is larger than any payload that we write.
    #[error("payload of {len} bytes, at most {max} are allowed")]
    Length {
        /// The length that the header gives, in bytes.
        len: u64,
        /// The most that is allowed, in bytes.
        max: u64,
    },
    /// The checksum does not match.
    #[error("CRC-32C is {found:08x}, computed {computed:08x}")]
    Crc {
        /// The checksum in the header.
        found: u32,
        /// That of the bytes.
        computed: u32,
    },
    /// The envelope holds something else than what is due.
    #[error("record type {found} stands where {expected} is due")]
    RecordType {
        /// The type in the header.
        found: u16,
        /// The type that is due.
        expected: u16,
    },
    /// The payload is of a schema version that this binary does not read.
    #[error("schema version {version} of record type {record_type} is not known")]
    SchemaVersion {
        /// The type of the record.
        record_type: u16,
        /// The version.
        version: u16,
    },
    /// The payload is not what its type and version say.
    #[error("payload of record type {record_type} does not decode: {source}")]
    Payload {
        /// The type of the record.
        record_type: u16,
        /// What the decoder says.
        source: bincode::Error,
    },
    /// Bytes follow the last envelope.
    #[error("{len} bytes follow the last envelope")]
    Trailing {
        /// How many.
        len: usize,
    },
}

impl EnvelopeError {
    /// Whether the same bytes may read later: never.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        false
    }
}

/// Why an entry and a batch cannot be turned into each other.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// The index passes the range of offsets.
    #[error("index {index} is larger than 2^63 - 2")]
    Index {
        /// The index.
        index: u64,
    },
    /// The term passes the range of leader epochs.
    #[error("term {term} is larger than 2^31 - 1")]
    Term {
        /// The term.
        term: u64,
    },
    /// The batch has an offset or an epoch that no entry has.
    #[error("a batch with offset {base_offset}, epoch {epoch} and {records} records is no entry")]
    Header {
        /// The batch's base offset.
        base_offset: i64,
        /// The batch's leader epoch.
        epoch: i32,
        /// How many records it says it has.
        records: i32,
    },
    /// The entry is larger than [`ENTRY_BYTES_MAX`](super::ENTRY_BYTES_MAX).
    #[error("an entry has {len} bytes, more than {max}")]
    TooLarge {
        /// Its size in bytes.
        len: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// The batch cannot be built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The bytes are no batch.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// The record of a control batch is no control record.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The control batch is of a type that means nothing in this log.
    #[error("control record type {control_type} means nothing in a metadata log")]
    ControlType {
        /// The type.
        control_type: i16,
    },
    /// The record lacks its value.
    #[error("the record has no value")]
    NoValue,
    /// The voters are in an envelope that does not read.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// A voter has no address.
    #[error("the voters and their nodes do not match: {reason}")]
    Membership {
        /// What openraft says about them.
        reason: String,
    },
}

/// Why the store could not be opened, or refused a call. After anything else than a refusal the node must stop: what
/// the disk holds past the last acknowledgement is unknown.
#[derive(Debug, thiserror::Error)]
pub enum LogStoreError {
    /// The log could not be opened or changed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The log refused entries.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The log could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The directory is out of service.
    #[error(transparent)]
    Offline(#[from] DirOffline),
    /// The disk failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Another process has the store open.
    #[error("{path} is locked: another process runs on this metadata log")]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// The file with the vote is damaged. A node that forgot its vote might vote twice in a term, so it must not
    /// start; its copy of the log can be had again by joining the quorum with an empty directory.
    #[error("{path} is damaged: {source}")]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: EnvelopeError,
    },
    /// There are entries but no file with the vote; see [`State`](Self::State).
    #[error("{path} is missing, although the metadata log has segments")]
    StateMissing {
        /// The file that should be there.
        path: PathBuf,
    },
    /// Entries that had been flushed are damaged.
    #[error("the metadata log is damaged at offsets {}", ranges.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    Damaged {
        /// The damage.
        ranges: Vec<DamagedRange>,
    },
    /// The log does not start where the last purged entry says.
    #[error("the metadata log starts at {log_start_offset}, but what precedes {expected} was purged")]
    StartMismatch {
        /// Where the log starts.
        log_start_offset: Offset,
        /// Where it should start.
        expected: Offset,
    },
    /// Entries are gone that had been flushed and were committed: damage was taken for a write that a crash had torn.
    #[error("entry {committed} was committed and flushed, but the metadata log ends at {log_end_offset}")]
    CommittedLost {
        /// The index of the last entry that the state file calls committed.
        committed: u64,
        /// Where the log ends.
        log_end_offset: Offset,
    },
    /// An entry does not follow the one before it.
    #[error("entry {index} does not follow {expected}: the log would have a hole")]
    Hole {
        /// The index that came.
        index: u64,
        /// The index that was due.
        expected: u64,
    },
    /// The entry asked for is not in the log.
    #[error("entry {index} is not in the log")]
    NotHeld {
        /// The index.
        index: u64,
    },
    /// An entry is not one.
    #[error("entry {index}: {source}")]
    Entry {
        /// The index.
        index: u64,
        /// What is wrong.
        source: EntryError,
    },
    /// A truncation would remove entries that are committed.
    #[error("truncation after {keep_end} would remove committed entry {committed}")]
    TruncatesCommitted {
        /// The end of what the truncation keeps, exclusive.
        keep_end: u64,
        /// The index of the last entry that is known to be committed.
        committed: u64,
    },
    /// A vote is of an older term than the one that was saved.
    #[error("a vote of term {term} came after one of term {saved}")]
    VoteWentBack {
        /// The term of the new vote.
        term: u64,
        /// The term of the saved vote.
        saved: u64,
    },
    /// A second vote in a term is for another node than the first, and no quorum asks for it.
    #[error("a vote for node {node_id} in term {term} came after one for node {saved_for}")]
    VotedTwice {
        /// The term.
        term: u64,
        /// The node of the new vote.
        node_id: u64,
        /// The node of the saved vote.
        saved_for: u64,
    },
    /// The thread that owns the disk is gone.
    #[error("the log store has stopped")]
    Stopped,
    /// The system gives no thread.
    #[error("cannot start the log store's thread: {0}")]
    Thread(#[source] io::Error),
}

impl LogStoreError {
    /// Whether the same call may succeed later without anybody's help.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Append(error) => error.is_retryable(),
            _ => false,
        }
    }
}

impl From<LogStoreError> for io::Error {
    fn from(error: LogStoreError) -> Self {
        Self::other(error)
    }
}
