//! What a step of the metadata means for the replicas of one broker.

use std::sync::Arc;

use klamm_types::{BrokerId, PartitionId, TopicId, TopicName};

use crate::delta::PartitionStep;
use crate::{MetadataDelta, PartitionRegistration};

/// The work that one broker has with a [`MetadataDelta`]; brokers never compare metadata by hand.
///
/// A partition is in at most one of the lists. All are ordered by topic id and partition.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LocalReplicaChanges {
    /// Replicas that the broker must give up.
    pub deletes: Vec<DeletedReplica>,
    /// Replicas that lead.
    pub leaders: Vec<ReplicaChange>,
    /// Replicas that follow, or wait for a leader.
    pub followers: Vec<ReplicaChange>,
}

/// A replica that is no longer the broker's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeletedReplica {
    /// The topic.
    pub topic: TopicId,
    /// Its name.
    pub name: TopicName,
    /// The partition of it.
    pub partition: PartitionId,
    /// Whether the whole topic is gone, and not just this replica.
    pub topic_deleted: bool,
}

/// A replica of the broker whose partition was created or changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplicaChange {
    /// The topic.
    pub topic: TopicId,
    /// Its name.
    pub name: TopicName,
    /// The partition of it.
    pub partition: PartitionId,
    /// The partition before the step, whether or not the broker was one of its replicas; `None` if it is new.
    pub old: Option<Arc<PartitionRegistration>>,
    /// The partition after the step.
    pub new: Arc<PartitionRegistration>,
}

impl ReplicaChange {
    /// Whether a new leader epoch has begun. If not, the replica goes on as it is, with another ISR perhaps. A
    /// replica that was taken away and given back within one step sees a new epoch, too (mutant B06).
    #[must_use]
    pub fn is_new_leader_epoch(&self) -> bool {
        self.old.as_ref().is_none_or(|old| old.leader_epoch != self.new.leader_epoch)
    }
}

impl MetadataDelta {
    /// What this step means for `broker`.
    #[must_use]
    pub fn local_changes(&self, broker: BrokerId) -> LocalReplicaChanges {
        let mut changes = LocalReplicaChanges::default();
        for topic in self.deleted_topics() {
            let mine = topic.partitions().filter(|(_, partition)| partition.replicas.contains(&broker));
            changes.deletes.extend(mine.map(|(partition, _)| DeletedReplica {
                topic: topic.id,
                name: topic.name.clone(),
                partition,
                topic_deleted: true,
            }));
        }
        for step in self.changed_partitions() {
            changes.add(broker, step);
        }
        changes.deletes.sort_by_key(|deleted| (deleted.topic, deleted.partition));
        changes
    }
}

impl LocalReplicaChanges {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.deletes.is_empty() && self.leaders.is_empty() && self.followers.is_empty()
    }

    fn add(&mut self, broker: BrokerId, step: PartitionStep<'_>) {
        let PartitionStep { topic, partition, old, new } = step;
        let (id, name) = (topic.id, topic.name.clone());
        if !new.replicas.contains(&broker) {
            if old.is_some_and(|old| old.replicas.contains(&broker)) {
                self.deletes.push(DeletedReplica { topic: id, name, partition, topic_deleted: false });
            }
            return;
        }
        let list = if new.leader == Some(broker) { &mut self.leaders } else { &mut self.followers };
        list.push(ReplicaChange { topic: id, name, partition, old: old.cloned(), new: Arc::clone(new) });
    }
}
