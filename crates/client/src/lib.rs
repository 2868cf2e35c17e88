//! A small asynchronous Kafka client for our own tools and tests.
//!
//! **For:** administration, producing and consuming over the public protocol, against any broker that speaks it.
//! **Not for:** applications: there are no consumer groups, no transactions, no interceptors and no TLS.
//!
//! **Called by:** `cli`, tests. **Calls:** `protocol`, `record`.
//!
//! - [`Connection`]: one TCP connection; versions are negotiated, requests are pipelined, answers are matched by
//!   correlation id, every request has a deadline.
//! - [`Cluster`]: what is known of brokers and leaders, and one connection to each broker that is talked to.
//! - [`Admin`], [`Producer`], [`Consumer`]: what one does with a cluster.
//!
//! Every queue is bounded. An error says whether the request may be sent again
//! ([`ClientError::is_retryable`]); whether it *was* done is unknown whenever the connection ended first.

mod admin;
mod backoff;
mod cluster;
mod connection;
mod consumer;
mod endpoint;
mod error;
mod offsets;
mod options;
mod producer;
mod view;

pub use admin::{
    Admin, BrokerDescription, ClusterDescription, ConfigEntry, ConfigOperation, ConfigResource, ConfigSource,
    CreatedTopic, FollowerLag, FollowerLags, NewTopic, PartitionDescription, QuorumDescription, QuorumNode,
    QuorumReplica, Reassignment, TopicDescription, TopicSummary,
};
pub use cluster::Cluster;
pub use connection::{Connection, PendingAnswer};
pub use consumer::{ConsumedRecord, Consumer, ConsumerOptions, Position, Reset};
pub use endpoint::{Endpoint, EndpointError};
pub use error::{ApiError, ClientError};
pub use offsets::{Isolation, OffsetSpec, PartitionOffset};
pub use options::ClientOptions;
pub use producer::{Acks, Delivered, Delivery, OwnedRecord, ProduceError, Producer, ProducerOptions};
pub use view::{Leader, PartitionView, TopicView};
