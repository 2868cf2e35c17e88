//! Counters of a broker, for whoever publishes them.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What has happened since the start. Each counter only grows.
        #[derive(Debug, Default)]
        pub struct BrokerMetrics {
            $($(#[$doc])* pub $name: Counter,)*
        }
    };
}

counters! {
    /// Bytes that clients appended (`BytesInPerSec`).
    bytes_in,
    /// Records that clients appended (`MessagesInPerSec`).
    records_in,
    /// Bytes that consumers were given (`BytesOutPerSec`).
    bytes_out,
    /// Bytes that this broker's followers copied (`ReplicationBytesInPerSec`).
    replication_bytes_in,
    /// Bytes that other brokers' followers were given (`ReplicationBytesOutPerSec`).
    replication_bytes_out,
    /// In-sync sets that grew (`IsrExpandsPerSec`).
    isr_expands,
    /// In-sync sets that shrank (`IsrShrinksPerSec`).
    isr_shrinks,
    /// Appends that were refused or not acknowledged (`FailedProduceRequestsPerSec`).
    failed_appends,
    /// Things that an operator must look at; each was logged.
    alarms,
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The sum so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How the partitions of a broker are, at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PartitionGauges {
    /// Replicas on this broker (`PartitionCount`).
    pub partitions: usize,
    /// Those that lead (`LeaderCount`).
    pub leaders: usize,
    /// Led here with fewer in-sync replicas than replicas (`UnderReplicatedPartitions`).
    pub under_replicated: usize,
    /// Led here with fewer in-sync replicas than the minimum (`UnderMinIsrPartitionCount`).
    pub under_min_isr: usize,
    /// Led here with as many in-sync replicas as the minimum (`AtMinIsrPartitionCount`).
    pub at_min_isr: usize,
    /// Replicas whose log is out of service (`OfflineReplicaCount`).
    pub offline: usize,
}
