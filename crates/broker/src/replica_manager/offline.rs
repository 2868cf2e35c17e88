//! Replicas that cannot be served, and those that nobody can lead.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use klamm_metadata::MetadataImage;
use klamm_pb::controller::v1 as pb;
use klamm_types::{LeaderEpoch, PartitionId, TopicId};

use super::{Hosted, ReplicaManager};

/// A replica here that cannot be served, and of which the controller does not know that.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct UnreportedReplica {
    pub(crate) topic: TopicId,
    pub(crate) partition: PartitionId,
    /// The leader epoch in which this broker knows the partition.
    pub(crate) leader_epoch: LeaderEpoch,
}

impl Hosted {
    pub(super) fn is_offline(&self) -> bool {
        match self {
            // Not every partition of a directory that has failed has heard of it yet.
            Self::Online(partition) => {
                partition.role().is_failed || partition.log().log_dir().check().is_err()
            }
            Self::Offline { .. } => true,
        }
    }
}

impl ReplicaManager {
    /// Waits until more replicas may have gone offline, or something else has changed that counts for reporting them.
    pub(crate) async fn offline_news(&self) {
        self.offline_news.notified().await;
    }

    /// Has whoever reports offline replicas look again.
    pub(super) fn look_for_offline(&self) {
        self.offline_news.notify_one();
    }

    /// Whether an image from after the registration of this incarnation has been acted on: what is offline is known.
    pub(crate) fn is_caught_up(&self) -> bool {
        self.has_settings.load(Ordering::Acquire)
    }

    /// Up to `count` replicas that `image` gives to this broker, cannot be served, and are not known to be offline. They
    /// count as reported from here on: no attempt is made any more to bring them into service.
    pub(crate) fn take_unreported(&self, image: &MetadataImage, count: usize) -> Vec<UnreportedReplica> {
        let me = self.config.node_id;
        let mut hosted = self.hosted.write().unwrap_or_else(PoisonError::into_inner);
        let mut taken = Vec::new();
        for (&(topic, partition), replica) in hosted.iter_mut().filter(|(_, replica)| replica.is_offline()) {
            let registration = image.topics.partition(topic, partition);
            let Some(mine) = registration.filter(|known| known.replicas.contains(&me)) else { continue };
            if image.offline.contains(me, topic, partition) {
                continue;
            }
            if taken.len() == count {
                break;
            }
            if let Hosted::Offline { is_reported } = replica {
                *is_reported = true;
            }
            taken.push(UnreportedReplica { topic, partition, leader_epoch: mine.leader_epoch });
        }
        taken
    }

    /// Up to `count` replicas here that are in sync by `image`, and that have refused a record since this was last asked, as
    /// their disk is full. If the controller does not hear of one, the next record that it refuses has it told again.
    pub(crate) fn take_full(&self, image: &MetadataImage, count: usize) -> Vec<UnreportedReplica> {
        let me = self.config.node_id;
        let hosted = self.hosted.read().unwrap_or_else(PoisonError::into_inner);
        let full = hosted.iter().filter_map(|(&(topic, partition), replica)| {
            let Hosted::Online(handle) = replica else { return None };
            let known = image.topics.partition(topic, partition)?;
            // Nobody waits for one that is not in sync.
            let lacks_room = handle.lacks_room() && handle.take_lack_of_room();
            (lacks_room && known.isr.contains(&me)).then_some(UnreportedReplica {
                topic,
                partition,
                leader_epoch: known.leader_epoch,
            })
        });
        full.take(count).collect()
    }

    /// Waits until there may be replicas here of partitions that nobody leads.
    pub(crate) async fn leaderless_news(&self) {
        self.leaderless_news.notified().await;
    }

    /// How far the logs here reach of partitions that, by `image`, have lost all their complete replicas.
    pub(crate) fn lost_logs(&self, image: &MetadataImage) -> Vec<pb::LostLog> {
        let hosted = self.hosted.read().unwrap_or_else(PoisonError::into_inner);
        let lost = hosted.iter().filter_map(|(&(topic, partition), replica)| {
            let Hosted::Online(handle) = replica else { return None };
            let known = image.topics.partition(topic, partition)?;
            // Until it knows that nobody leads, the log may still grow.
            let knows = handle.role().leader_epoch == known.leader_epoch;
            (known.is_lost() && knows && !replica.is_offline()).then(|| pb::LostLog {
                topic_id: Bytes::copy_from_slice(&topic.0),
                partition_id: partition.0,
                leader_epoch: known.leader_epoch.0,
                last_epoch: handle.log().latest_epoch().unwrap_or(LeaderEpoch::NONE).0,
                log_end_offset: handle.log().log_end_offset().0,
            })
        });
        lost.collect()
    }

    /// What was said to the controller is void.
    pub(super) fn forget_reports(&self) {
        let mut hosted = self.hosted.write().unwrap_or_else(PoisonError::into_inner);
        for replica in hosted.values_mut() {
            if let Hosted::Offline { is_reported } = replica {
                *is_reported = false;
            }
        }
    }

    /// How many replicas cannot be served.
    pub(super) fn count_offline(&self) -> usize {
        let hosted = self.hosted.read().unwrap_or_else(PoisonError::into_inner);
        hosted.values().filter(|replica| replica.is_offline()).count()
    }
}
