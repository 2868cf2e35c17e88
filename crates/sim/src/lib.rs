//! A deterministic world in which the real replica, control and log code runs under a seed.
//!
//! **For:** finding, in virtual time, the orders of events in which replication loses, repeats or reorders what it has
//! acknowledged, or never recovers: brokers that crash, pause, lose disks or links, controllers that fail over, partitions that move.
//!
//! **Not for:** sockets, Raft and runtimes: those are tested where they run.
//!
//! **Called by:** its own binary and the test command. **Calls:** `replica`, `control`, `metadata`, `log`, `record`.
//!
//! A run is a function of its seed: the same seed gives the same trace, byte for byte. First everything may go wrong
//! (safety), then nothing any more (liveness): within two minutes of virtual time all replicas must be in sync and alike.

mod broker;
mod chance;
mod disk;
mod hosted;
mod message;
mod network;
mod oracle;
mod producer;
mod quorum;
mod runner;
mod scenario;
mod scheduler;
mod world;

pub use runner::{Outcome, Totals, Violation, run_seed, run_seeds, trace_of};
