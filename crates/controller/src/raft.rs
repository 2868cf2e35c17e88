//! What Raft needs from us: types, and a place to keep its log and its votes.
//!
//! ```text
//!   <log dir>/
//!     .metadata-log.lock              held by the process that has the store open
//!     recovery-point-offset-checkpoint
//!     __cluster_metadata-0/           a log like any other: `klamm log dump` reads it
//!       quorum-state                  vote, last purged entry, last committed entry, what was lost
//!       00000000000000000000.log      one entry, one batch: offset = index, leader epoch = term
//!       00..4711-0000000003.checkpoint    a snapshot of the image after index 4711, term 3
//! ```

mod entry;
mod envelope;
mod error;
mod io_thread;
mod log_reader;
mod log_store;
mod shared;
mod snapshot_store;
mod state_machine;
pub(crate) mod transport;
mod types;
mod vote;
pub(crate) mod wire;

pub use entry::{BLANK_CONTROL_TYPE, ENTRY_BYTES_MAX, MEMBERSHIP_CONTROL_TYPE};
pub use error::{EntryError, EnvelopeError, LogStoreError};
pub(crate) use io_thread::LostRecord;
pub use log_reader::LogReader;
pub use log_store::{LogStore, LogStoreOptions};
pub(crate) use snapshot_store::SnapshotStore;
pub use snapshot_store::{SNAPSHOT_SUFFIX, SnapshotStoreError};
pub use state_machine::ApplyError;
pub(crate) use state_machine::{MetadataStateMachine, provenance_of};
pub use types::{
    AppliedEntry, CommittedLeaderId, ControllerNode, EncodedRecords, Entry, EntryPayload, LogId, Membership,
    TypeConfig, Vote,
};
pub(crate) use vote::Lost;
pub use vote::QUORUM_STATE_FILE;
pub use wire::WireError;

/// Raft on our log and our image.
pub(crate) type Raft = openraft::Raft<TypeConfig, MetadataStateMachine>;
/// What Raft says of leader and voters.
pub(crate) type ServerMetrics = openraft::metrics::RaftServerMetrics<TypeConfig>;
/// What Raft says of everything.
pub(crate) type Metrics = openraft::RaftMetrics<TypeConfig>;

pub(crate) use openraft::async_runtime::watch::WatchReceiver;

/// A receiver of what Raft says.
pub(crate) type RaftWatch<T> = openraft::type_config::alias::WatchReceiverOf<TypeConfig, T>;

/// Waits until `wanted` holds; `None` if Raft has stopped before.
pub(crate) async fn wait_until<T: Send + Sync>(
    receiver: &mut RaftWatch<T>,
    wanted: impl Fn(&T) -> bool,
) -> Option<()> {
    while !wanted(&receiver.borrow_and_update()) {
        receiver.changed().await.ok()?;
    }
    Some(())
}
