//! The generated clients and servers of every service between nodes. Their messages are those of `klamm-pb`.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::allow_attributes_without_reason,
    clippy::large_futures,
    clippy::semicolon_if_nothing_returned,
    reason = "the modules are generated; the .proto files carry the documentation"
)]

/// The consensus protocol between controllers: `proto/raft`.
pub mod raft {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("klamm.raft.v1");
    }
}

/// What brokers ask of the active controller: `proto/controller`.
pub mod controller {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("klamm.controller.v1");
    }
}

/// How a broker follows the metadata log: `proto/metadata`.
pub mod metadata {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("klamm.metadata.v1");
    }
}

/// How followers copy a leader's logs: `proto/replication`.
pub mod replication {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("klamm.replication.v1");
    }
}
