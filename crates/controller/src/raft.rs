//! What Raft needs from us: types, and a place to keep its log and its votes.
//!
//! ```text
//!   <log dir>/
//!     .metadata-log.lock              held by the process that has the store open
//!     recovery-point-offset-checkpoint
//!     __cluster_metadata-0/           a log like any other: `klamm log dump` reads it
//!       quorum-state                  vote, last purged entry, last committed entry
//!       00000000000000000000.log      one entry, one batch: offset = index, leader epoch = term
//! ```

mod entry;
mod envelope;
mod error;
mod io_thread;
mod log_reader;
mod log_store;
mod shared;
mod types;
mod vote;

pub use entry::{BLANK_CONTROL_TYPE, ENTRY_BYTES_MAX, MEMBERSHIP_CONTROL_TYPE};
pub use error::{EntryError, EnvelopeError, LogStoreError};
pub use log_reader::LogReader;
pub use log_store::{LogStore, LogStoreOptions};
pub use types::{
    AppliedEntry, CommittedLeaderId, ControllerNode, EncodedRecords, Entry, EntryPayload, LogId, Membership,
    TypeConfig, Vote,
};
pub use vote::QUORUM_STATE_FILE;
