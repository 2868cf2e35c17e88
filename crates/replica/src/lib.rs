//! One replica of one partition, as a pure state machine: leading, following, the in-sync set, the high
//! watermark, and who is acknowledged when.
//!
//! **For:** every decision of replication. **Not for:** bytes (records are named, never seen), files, sockets,
//! clocks, threads.
//!
//! **Called by:** the broker's partition actor and the simulation. **Calls:** nothing but `types`.
//!
//! # Contract
//! [`Replica::step`] takes an [`Event`] at an instant and adds [`Effect`]s. The caller carries them out in order,
//! and feeds back what comes of them. Writes of the log end before the next event; see [`Event`].
//!
//! # Picture
//! ```text
//!   log_start  <=  last_stable  <=  high_watermark  <=  log_end          flushed  <=  log_end
//! ```
//! A follower's high watermark never exceeds what it holds itself. The last stable offset is the log's matter.
//!
//! # Invariants
//! Asserted after each step: R-1 (who leads), R-2 (the high watermark waits for the *maximal* in-sync set), R-4
//! (acknowledgements), R-5 (no truncation of what was committed), R-6 (one change at a time), R-7 (stale
//! incarnations do not count), R-9 (epochs only grow), INV3, INV9, INV10, INV11, INV12. Those that take more than
//! one replica (R-3, R-8, INV1, INV2, INV4, INV5, INV13) are checked by the world and the search in `tests/`.
//! `docs/protocol/replication.md` has the rules in prose.

mod acks;
mod effect;
mod event;
mod follower;
mod invariants;
mod isr;
mod leader;
mod refusal;
mod registration;
mod replica;
mod truncation;

pub use effect::{Acknowledged, Effect, Effects, FetchBounds, IsrMember, IsrProposal, ReadBounds};
pub use event::{
    Acks, AppendRequest, AppendTicket, DeletionRequest, DeletionTicket, Event, FetchAnswer, FetchId,
    FetchTicket, FetchedRecords, FlushToken, FollowerFetch, IsrAnswer, IsrRefusal, ProposalId,
};
pub use isr::{Delivery, IsrChange, IsrState, PendingIsr};
pub use leader::{Fetched, FollowerProgress};
pub use refusal::{Alarm, AppendError, DeletionError, FetchRefusal, ReadRefusal};
pub use registration::{BrokerState, BrokerStates, Durability, LeaderRecovery, Registration, ReplicaConfig};
pub use replica::{LogPosition, LogPositionError, Replica};
pub use truncation::truncation_target;
