//! Reading a log's files without opening a log: what the tools show, and where they find damage.
//!
//! Nothing here writes, renames, removes or locks, and nothing recovers: a file is shown as it is. Whatever the bytes
//! are, the answer is an item, a [`Finding`] or a typed error, never a panic. A segment is read through one buffer;
//! the largest thing held in memory is one batch ([`BATCH_BYTES_MAX`]) and what becomes of it
//! ([`DECOMPRESSED_BYTES_MAX`]), or one producer snapshot ([`STATE_FILE_BYTES_MAX`]).
//!
//! - [`ContentKind`] tells by its name what a file holds;
//! - [`SegmentFile`] walks batches, [`IndexFile`] index entries, [`read_state`] reads the small files;
//! - [`verify`] holds all files of a partition, or of a whole log directory, against each other.
//!
//! The files should stand still: while a broker writes them, the newest part may look torn.

mod entries;
mod finding;
mod index_check;
mod kind;
mod log_state;
mod partition;
mod records;
mod segment;
mod segment_check;
mod state;
mod transactions;
mod verify;

pub use entries::{IndexEntryValue, IndexFile, IndexItem};
pub use finding::{Finding, Problem, Severity, VerifyReport};
pub use kind::ContentKind;
pub use segment::{Damage, FoundBatch, SegmentFile, SegmentItem, SegmentWalk};
pub use state::{StateFile, read_state};
pub use verify::verify;

use std::path::PathBuf;

use crate::error::{LogError, StorageError};

/// The largest batch whose records are looked at, in bytes. The checksum of a larger one is still computed.
pub const BATCH_BYTES_MAX: usize = 128 << 20;

/// How many bytes the records of one batch may become when they are decompressed.
pub const DECOMPRESSED_BYTES_MAX: u64 = 128 << 20;

/// The largest of the small files that is read, in bytes: a producer snapshot of some 1.5 million producers.
pub const STATE_FILE_BYTES_MAX: u64 = 256 << 20;

/// Why a file or directory could not be looked at, at all.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// The disk refused: the file is not there, may not be read, or the disk fails.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A small file does not read as what its name says.
    #[error(transparent)]
    Damaged(LogError),
    /// A file was expected, and this is a directory.
    #[error("{path} is a directory")]
    IsDirectory {
        /// The directory.
        path: PathBuf,
    },
    /// A directory was expected, and this is a file.
    #[error("{path} is not a directory")]
    NotDirectory {
        /// The file.
        path: PathBuf,
    },
    /// The name is none that a log's files have.
    #[error("{path} has no name that a file of a log has")]
    UnknownKind {
        /// The file.
        path: PathBuf,
    },
    /// The directory has nothing in it.
    #[error("{path} is empty")]
    EmptyDirectory {
        /// The directory.
        path: PathBuf,
    },
    /// The directory holds neither the files of a partition nor directories of partitions.
    #[error("{path} holds no log")]
    NoLog {
        /// The directory.
        path: PathBuf,
    },
}

impl InspectError {
    /// Whether the same call may succeed later without anybody's help. It never does: nothing is tried that waits.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        false
    }
}

impl From<LogError> for InspectError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Storage(error) => Self::Storage(error),
            other => Self::Damaged(other),
        }
    }
}
