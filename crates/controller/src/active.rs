//! The active controller: one task that decides, one request after the other.
//!
//! ```text
//!   request -> mailbox -> decide on `latest` -> append in the term of `latest` -> `latest` grows
//!                                                   | committed and applied
//!                                                   v
//!                                       the answer leaves, also one without records
//! ```
//!
//! # Invariants
//! - Nothing is decided before all entries up to the first of the own term are applied: `latest` starts as the committed
//!   image, whose last entry is of that term.
//! - An entry is appended only in the term that `latest` is of, and `latest` grows only by entries that are known to be
//!   in the log, each at the offset that it was decided for.
//! - An answer leaves only when an entry of the own term at or past the end of what it was read from is applied: until
//!   then it may stand on entries that are never committed.
//! - When the leadership is lost, or no quorum has acknowledged it for an election timeout, `latest` is dropped.

mod appender;
mod controller;
mod handle;
mod leading;
mod parked;
mod quorum;
mod sessions;

pub(crate) use controller::{ActiveController, ActiveSettings, leader_location};
pub(crate) use handle::{ControllerHandle, Desk};
pub(crate) use quorum::{QuorumView, ReplicaView, VoterChange};
pub(crate) use sessions::SessionEvent;
