//! The controller: the quorum that owns the cluster's metadata.
//!
//! **For:** running Raft between the controllers on our own log, so that a change of metadata is acknowledged only
//! when a quorum has it on disk; carrying out on it what `klamm-control` decides; noticing who is gone; telling brokers
//! what is committed.
//!
//! **Not for:** deciding what a request changes (`klamm-control`), what a record means (`klamm-metadata`), or how a
//! log lies on the disk (`klamm-log`).
//!
//! ```text
//!   gRPC -> service -> mailbox -> active controller: decide on `latest`, append in its term
//!                                      |
//!            other controllers <- transport <- Raft -> log store (disk)
//!                                      | committed
//!                                      v
//!                               state machine -> committed image -> answers, metadata feed, snapshots
//! ```
//!
//! **Called by:** the node that has the role `controller`. **Calls:** `klamm-control`, `klamm-metadata`, `klamm-rpc`,
//! `klamm-log`, `klamm-record`, `klamm-pb`, `klamm-types`, openraft. This is the only crate that names openraft, and none of
//! openraft's types is ever written to a disk.
//!
//! # Invariants
//! - RAFT-1: an entry is acknowledged only when the log has flushed it, a vote only when its file has been replaced
//!   and both the file and its directory have been synced.
//! - RAFT-2: what was acknowledged survives a crash; the term of the vote and the last purged entry never go back.
//! - RAFT-3: the log has no hole: it starts after the last purged entry and every entry has the next index.
//! - STANDING-1, STANDING-2: a voter that may have forgotten something gives no vote that only its forgetting makes possible
//!   (`standing`).

mod active;
mod clock;
mod controller;
mod detection;
mod error;
mod metrics;
mod options;
mod parts;
pub mod raft;
mod service;
mod standing;
mod status;

pub use controller::Controller;
pub use error::{ControllerError, StartError};
pub use metrics::{ClusterGauges, ControllerMetrics, Elections};
pub use options::{ControllerOptions, OptionsError, RaftTiming, Voter};
pub use status::{ControllerStatus, QuorumRole};
