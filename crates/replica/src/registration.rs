//! What the metadata says: the partition's registration, its brokers, its settings.

use std::collections::{BTreeMap, BTreeSet};

use klamm_types::{BrokerEpoch, BrokerId, LeaderEpoch, PartitionEpoch};

/// Whether the leader of an unclean election has yet confirmed that its log is whole (KIP-704).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum LeaderRecovery {
    /// The usual state.
    Recovered,
    /// Elected uncleanly; until the leader confirms, it is the only in-sync replica.
    Recovering,
}

/// The partition as the metadata has it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Registration {
    /// The assigned brokers, in order of preference.
    pub replicas: Vec<BrokerId>,
    /// The leader, or `None` while nobody may lead.
    pub leader: Option<BrokerId>,
    /// The *committed* in-sync set; a subset of `replicas`.
    pub in_sync_replicas: BTreeSet<BrokerId>,
    /// Counts the leaders.
    pub leader_epoch: LeaderEpoch,
    /// Counts every change of this registration.
    pub partition_epoch: PartitionEpoch,
    /// Whether the leader still has to confirm an unclean election.
    pub recovery: LeaderRecovery,
    /// The newest leader epoch that began with an unclean election. Records of older epochs may be lost even
    /// below a high watermark; those of this epoch and newer ones may not. It outlives `recovery`, so that a
    /// replica that was away during the election can still fall into line.
    pub last_unclean_epoch: Option<LeaderEpoch>,
}

/// What the metadata says of one broker.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct BrokerState {
    /// The incarnation that is registered.
    pub epoch: BrokerEpoch,
    /// Whether the controller counts it out: the broker, or its replica of this partition.
    pub fenced: bool,
    /// Whether it is leaving in a controlled way: it may neither lead nor join an in-sync set.
    pub shutting_down: bool,
}

/// The brokers that hold the partition's replicas; one that is not registered is absent.
pub type BrokerStates = BTreeMap<BrokerId, BrokerState>;

/// When a record counts as held by a replica.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Durability {
    /// Once it is flushed: what is acknowledged survives a power cut of all brokers. The default.
    Flushed,
    /// Once it is written (`write.caching=true`, Kafka's way): it survives the process, not the machine.
    PageCache,
}

/// The settings of a partition that its replicas act upon.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ReplicaConfig {
    /// When a record counts as held.
    pub durability: Durability,
    /// `min.insync.replicas`, from 1. What counts is the smaller of this and the number of replicas.
    pub min_in_sync_replicas: usize,
    /// `replica.lag.time.max.ms`: how long a member of the in-sync set may go without catching up.
    pub replica_lag_time_max_ms: i64,
}

impl Default for ReplicaConfig {
    fn default() -> Self {
        Self { durability: Durability::Flushed, min_in_sync_replicas: 2, replica_lag_time_max_ms: 10_000 }
    }
}

impl Registration {
    /// The number of in-sync replicas without which the high watermark stands still: `min.insync.replicas`,
    /// but never more than there are replicas, and at least one.
    #[must_use]
    pub fn effective_min_in_sync_replicas(&self, config: &ReplicaConfig) -> usize {
        config.min_in_sync_replicas.min(self.replicas.len()).max(1)
    }
}
