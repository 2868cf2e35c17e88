//! The broker: hosts replicas of partitions, follows the metadata, replicates.
//!
//! **For:** carrying out what `replica` decides, on the logs of this node. **Not for:** deciding, and for the clients' protocol.
//!
//! **Called by:** `kafka-api`, `node`. **Calls:** `replica`, `log`, `metadata`, `rpc`.
//!
//! # Picture
//! ```text
//!   metadata feed ──▶ MetadataCache ──▶ ReplicaManager::apply ──▶ Partition ──▶ Log
//!   handlers ──▶ PartitionHandle::{append, read, ...} ──────────────▲   │ Effect
//!                     FollowerFetches, IsrProposals (ports) ◀───────────┘
//! ```
//!
//! A [`PartitionHandle`] is one replica of one partition: the decisions of `replica`, a log, and who waits. Whoever
//! calls it runs it, under its lock; no call waits for a disk's sync or for another node.

pub mod broker;
pub mod clock;
pub mod config;
pub mod controller_client;
pub mod fetcher;
pub mod isr_proposer;
pub mod lifecycle;
pub mod log_dirs;
mod log_reporter;
pub mod metadata;
pub mod metrics;
mod offline_reporter;
pub mod partition;
pub mod producer_ids;
pub mod replica_manager;
pub mod replica_service;

pub use broker::{Broker, BrokerFailure, BrokerOptions, BrokerStartError, ShutdownError};
pub use clock::Clock;
pub use config::BrokerConfig;
pub use fetcher::{FetcherConfig, MetadataPeers, Peers, ReplicaFetchers};
pub use klamm_rpc::Deadline;
pub use log_dirs::{LogDirStatus, LogDirs, RecoveryVerdict};
pub use metrics::BrokerMetrics;
pub use partition::PartitionHandle;
pub use replica_manager::{PartitionUnavailable, ReplicaManager};
pub use replica_service::{HostedPartitions, ReplicaService};
