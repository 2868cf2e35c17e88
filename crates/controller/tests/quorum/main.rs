//! Controllers over loopback gRPC, each in a runtime of its own that can be killed like a process.

#![allow(clippy::unwrap_used, reason = "a test may unwrap")]

mod brokers;
mod cluster;
mod election;
mod failover;
mod feed;
mod fixture;
mod forgetting;
mod refusals;
mod size;
mod voters;
