//! The protobuf messages of Klamm, generated from `proto/` at build time.
//!
//! **For:** the durable records of the metadata log and what nodes say to one another. `bytes` fields are
//! [`bytes::Bytes`], so that decoding shares the buffer.
//!
//! **Not for:** decisions (each crate converts at its own border into types that hold their invariants), and
//! service stubs: `rpc` generates those and takes the messages from here.
//!
//! **Called by:** `metadata`, `rpc`, `controller`, `broker`. **Calls:** nothing.

#![allow(
    missing_docs,
    clippy::allow_attributes_without_reason,
    unreachable_pub,
    reason = "the modules are generated; the .proto files carry the documentation"
)]

/// The metadata log and its feed: `proto/metadata`.
pub mod metadata {
    /// Version 1.
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/klamm.metadata.v1.rs"));
    }
}

/// The consensus protocol between controllers: `proto/raft`.
pub mod raft {
    /// Version 1.
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/klamm.raft.v1.rs"));
    }
}

/// What brokers ask of the active controller: `proto/controller`.
pub mod controller {
    /// Version 1.
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/klamm.controller.v1.rs"));
    }
}

/// How followers copy a leader's logs: `proto/replication`.
pub mod replication {
    /// Version 1.
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/klamm.replication.v1.rs"));
    }
}
