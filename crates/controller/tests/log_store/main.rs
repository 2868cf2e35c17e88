//! The store of the Raft log: openraft's own suite, restarts, failing disks, and every crash of a scripted life.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod concurrency;
mod crash;
mod faults;
mod fixture;
mod quorum;
mod restart;
mod state_machine;
mod suite;
