//! Replicas that their brokers cannot serve.

use klamm_types::{BrokerId, PartitionId, TopicId};

use crate::PersistentMap;

/// The replicas that their brokers, as they are registered now, cannot serve: empty almost always.
///
/// Each is a replica of a partition that exists, on a registered broker. It counts as one on a fenced broker: it may
/// neither lead nor be in an ISR.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct OfflineReplicasImage {
    replicas: PersistentMap<(BrokerId, TopicId, PartitionId), ()>,
}

impl OfflineReplicasImage {
    /// Whether `broker` cannot serve its replica of the partition.
    #[must_use]
    pub fn contains(&self, broker: BrokerId, topic: TopicId, partition: PartitionId) -> bool {
        !self.replicas.is_empty() && self.replicas.contains_key(&(broker, topic, partition))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.replicas.len()
    }

    /// Whether every broker serves all its replicas, as far as is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.replicas.is_empty()
    }

    /// All of them, ordered by broker, topic id and partition.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (BrokerId, TopicId, PartitionId)> {
        self.replicas.keys().copied()
    }

    /// The partitions of which `broker` cannot serve its replica, in order.
    pub fn of_broker(&self, broker: BrokerId) -> impl Iterator<Item = (TopicId, PartitionId)> {
        let from = self.replicas.iter_from(&(broker, TopicId::ZERO, PartitionId(i32::MIN)));
        let own = from.take_while(move |((other, ..), ())| *other == broker);
        own.map(|((_, topic, partition), ())| (*topic, *partition))
    }

    pub(crate) fn mark(&mut self, broker: BrokerId, topic: TopicId, partition: PartitionId) {
        self.replicas.insert((broker, topic, partition), ());
    }

    pub(crate) fn clear(&mut self, broker: BrokerId, topic: TopicId, partition: PartitionId) {
        if !self.is_empty() {
            self.replicas.remove(&(broker, topic, partition));
        }
    }

    /// The partitions of which the broker could not serve its replica, and about which nothing is known now.
    pub(crate) fn clear_broker(&mut self, broker: BrokerId) -> Vec<(TopicId, PartitionId)> {
        let cleared: Vec<_> = self.of_broker(broker).collect();
        for (topic, partition) in &cleared {
            self.replicas.remove(&(broker, *topic, *partition));
        }
        cleared
    }
}
