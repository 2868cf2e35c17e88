//! The client-facing front: sockets, connections, and the table of handlers behind them.
//!
//! **For:** taking Kafka requests from sockets, handing each to the handler of its API, and sending the answers in
//! the order of the requests, within limits on memory, connections and time that no client can talk it out of.
//! **Not for:** deciding anything about partitions, replication or metadata; what lies behind a handler does that.
//!
//! **Called by:** `node`, which builds the table, chooses the runtime and starts listeners. **Calls:** `protocol`,
//! and, from the handlers, `broker`.
//!
//! - Nothing is allocated because of a declared length: memory is taken from one budget as bytes arrive, and the
//!   budget is taken before the memory.
//! - A client that holds resources must move: send its request, take its answers, or be between requests for no
//!   longer than the idle time. A parked request (a long poll) holds its connection open and little else.
//! - What ApiVersions tells follows from the handlers that there are.
//! - Bytes that are no request end their connection, after the requests before them were answered. A handler that
//!   panics ends its connection, no other.
//! - Records of answers stay in the files of their log until the client takes them. A client that takes none holds
//!   none in memory.
//! - Access is declared per row and not yet enforced: there are no principals, and listeners speak plaintext.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable
    )
)]

mod api_table;
mod closest_replica;
mod cluster;
mod config;
mod config_change;
mod config_resource;
mod config_view;
mod connection;
mod context;
#[cfg(test)]
mod data_bed;
mod data_plane;
mod data_rows;
mod deadlines;
mod dispatch;
mod errors;
mod features;
mod fetch_session;
mod file_payload;
#[cfg(test)]
mod fixture;
mod front;
mod gateway;
mod handlers;
mod intake;
mod leader_hints;
mod listener;
#[cfg(test)]
mod live_test;
#[cfg(test)]
mod malformed;
mod memory;
mod metrics;
mod outbox;
mod partition_codes;
mod ports;
#[cfg(test)]
mod protocol_page;
mod refused_sequences;
mod replica_states;
mod submission;
mod table;

pub use api_table::{ApiParts, api_table};
pub use cluster::Cluster;
pub use config::{ConfigError, FrontConfig};
pub use context::{ConnectionId, RequestContext, RequestMemory};
pub use data_plane::{DataConfig, DataPlane};
pub use data_rows::DataParts;
pub use errors::{AnswerError, CloseCause, ListenerError, RequestError, TableError};
pub use file_payload::FilePayloads;
pub use front::{Front, MemoryUse};
pub use gateway::CachedMetadata;
pub use handlers::api_versions::{FeatureSource, Features, FinalizedFeature, SupportedFeature};
pub use handlers::init_producer_id::ProducerIdSource;
pub use listener::{ConnectionSorter, Drained, Listener, RunningListener};
pub use metrics::{FrontCounts, FrontMetrics};
pub use ports::{
    ClusterMetadata, ControllerGateway, GatewayError, LogLevelError, LogLevels, QuorumDescription,
    QuorumReplica,
};
pub use table::{Access, Answer, ApiTable, ApiTableBuilder, BoxFuture, Handler, Operation, Row, Ticket};
