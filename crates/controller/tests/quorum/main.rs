//! Controllers over loopback gRPC, each in a runtime of its own that can be killed like a process.

mod brokers;
mod cluster;
mod election;
mod feed;
mod fixture;
mod refusals;
mod voters;
