//! Where a consumer reads that says which rack it is in (`client.rack`, KIP-392).
//!
//! The leader answers such a consumer with the follower that it had better ask, if one in the consumer's rack is in sync
//! and holds the offset; never where the leader is in that rack itself. The follower serves what it knows to be
//! committed. It refuses what it does not have with OFFSET_OUT_OF_RANGE, upon which clients go back to the leader.

use klamm_broker::PartitionHandle;
use klamm_config::ServerSettings;
use klamm_metadata::MetadataImage;
use klamm_types::{BrokerId, Offset};

/// The class of Kafka's that does the same.
const RACK_AWARE: &str = "org.apache.kafka.common.replica.RackAwareReplicaSelector";

/// Who is asked to answer consumers (`replica.selector.class`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ReplicaSelector {
    /// The leader, always.
    Leader,
    /// A follower in the consumer's rack, if the leader is in another one.
    SameRack,
}

impl ReplicaSelector {
    pub(crate) fn of(settings: &ServerSettings) -> Self {
        match settings.text("replica.selector.class").as_deref() {
            Some(RACK_AWARE) => Self::SameRack,
            _ => Self::Leader,
        }
    }

    /// The follower that a consumer should ask for the records from `offset` on, instead of this leader.
    pub(crate) fn select(
        self,
        consumer: &Consumer<'_>,
        image: &MetadataImage,
        partition: &PartitionHandle,
        offset: Offset,
    ) -> Option<BrokerId> {
        if self == Self::Leader || consumer.rack.is_empty() {
            return None;
        }
        let role = partition.role();
        let leader = role.leader.filter(|_| role.is_leader)?;
        let is_near = |id: BrokerId| {
            let broker = image.cluster.broker(id);
            let broker =
                broker.filter(|broker| broker.is_active() && broker.endpoint(consumer.listener).is_some());
            broker.is_some_and(|broker| broker.rack.as_deref() == Some(consumer.rack))
        };
        if is_near(leader) {
            return None;
        }
        let near: Vec<_> = role.in_sync_replicas.iter().copied().filter(|id| is_near(*id)).collect();
        // The partition's lock is taken only where there may be somebody.
        if near.is_empty() { None } else { partition.furthest_follower(offset, &near) }
    }
}

/// Who wants to read, and how it reaches brokers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Consumer<'a> {
    /// Its `client.rack`; empty if it does not say.
    pub(crate) rack: &'a str,
    /// The listener that it is connected to.
    pub(crate) listener: &'a str,
}
