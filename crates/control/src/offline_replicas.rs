//! Replicas that a broker in service cannot serve: those of a log directory that has failed or is missing.
//!
//! Each counts as one on a fenced broker: it leaves the ISR, others are elected, and until the broker registers anew it
//! may neither lead nor join. The broker's other replicas go on as they are.

use std::collections::BTreeSet;

use klamm_metadata::{METADATA_VERSION, MetadataRecord, OFFLINE_REPLICAS_LEVEL, ReplicasOffline};
use klamm_types::{BrokerEpoch, BrokerId, LeaderEpoch, PartitionId, TopicId};

use crate::draft::Draft;
use crate::replication_control::Located;
use crate::{ControlResult, Refusal, Refused, ReplicationControl};

/// A broker's report.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OfflineReport {
    /// The broker.
    pub broker: BrokerId,
    /// Its registration.
    pub epoch: BrokerEpoch,
    /// What it cannot serve. What is known already, and what it has no replica of, changes nothing.
    pub replicas: Vec<OfflineReplica>,
    /// What it cannot append to, as the disk is full. Any other replica in sync leads better, and none need wait for one that
    /// follows; these stay replicas, and join again once they hold everything.
    pub full: Vec<OfflineReplica>,
}

/// A replica that its broker cannot serve.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct OfflineReplica {
    /// The topic.
    pub topic: TopicId,
    /// The partition of it.
    pub partition: PartitionId,
    /// The leader epoch in which the broker knows the partition. In another one the replica is left alone: it may have
    /// been taken away and given back since. The broker reports it again once it knows the present epoch.
    pub leader_epoch: LeaderEpoch,
}

/// Why a report is refused as a whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OfflineReportError {
    /// `STALE_BROKER_EPOCH`: the sender is not registered, or under another epoch.
    #[error("broker {broker} is not registered under epoch {epoch}")]
    StaleBrokerEpoch {
        /// The sender.
        broker: BrokerId,
        /// The epoch it named.
        epoch: BrokerEpoch,
    },
    /// `UNSUPPORTED_VERSION`: not all nodes can be told of single replicas; the broker asks to be fenced instead.
    #[error("{METADATA_VERSION} is {level}, and offline replicas are known from {OFFLINE_REPLICAS_LEVEL} on")]
    UnsupportedLevel {
        /// The finalized level.
        level: u16,
    },
}

impl Refused for OfflineReportError {
    fn refusal(&self) -> Refusal {
        match self {
            Self::StaleBrokerEpoch { .. } => Refusal::StaleBrokerEpoch,
            Self::UnsupportedLevel { .. } => Refusal::UnsupportedVersion,
        }
    }
}

impl ReplicationControl<'_> {
    /// Takes note of replicas that cannot be served: each leaves its ISR, another leader is elected where it led, and
    /// last of all it is marked, so that no prefix of the records has a marked member in an ISR. Leaders without room hand
    /// over where another can lead, followers without room leave the ISR, and neither is marked. `newcomers` are elected
    /// last. The answer is how many replicas are newly marked.
    ///
    /// # Errors
    /// [`OfflineReportError`]; nothing is decided then.
    pub fn replicas_offline(
        &self,
        report: &OfflineReport,
        newcomers: &[BrokerId],
    ) -> Result<ControlResult<usize>, OfflineReportError> {
        let OfflineReport { broker, epoch, ref replicas, ref full } = *report;
        if self.image.cluster.broker(broker).is_none_or(|known| known.epoch != epoch) {
            return Err(OfflineReportError::StaleBrokerEpoch { broker, epoch });
        }
        let level = self.image.features.level(METADATA_VERSION);
        if level < OFFLINE_REPLICAS_LEVEL && !replicas.is_empty() {
            return Err(OfflineReportError::UnsupportedLevel { level });
        }
        let mut draft = Draft::new(self.image);
        let mut marked = BTreeSet::new();
        for replica in replicas.iter().collect::<BTreeSet<_>>() {
            let Some(located) = self.locate_replica(broker, replica) else { continue };
            if located.registration.isr.contains(&broker) {
                let record = self.without_member(located, broker, false, newcomers);
                record.into_iter().for_each(|record| draft.push(record));
            }
            marked.insert((replica.topic, replica.partition));
        }
        // A disk may fail after it was full: one decision about a partition is enough, and two would not fit together.
        let is_marked = |replica: &&OfflineReplica| marked.contains(&(replica.topic, replica.partition));
        for replica in full.iter().filter(|replica| !is_marked(replica)).collect::<BTreeSet<_>>() {
            let located = self.locate_replica(broker, replica);
            let record = located.and_then(|located| self.without_room(located, broker, newcomers));
            record.into_iter().for_each(|record| draft.push(record));
        }
        let marked: Vec<_> = marked.into_iter().collect();
        for replicas in marked.chunks(ReplicasOffline::REPLICAS_MAX) {
            let replicas = replicas.to_vec();
            draft.push(MetadataRecord::ReplicasOffline(ReplicasOffline { broker, epoch, replicas }));
        }
        Ok(ControlResult::stepwise(draft.records, marked.len()))
    }

    /// What is to be done about a replica of `broker` whose disk is full.
    fn without_room(
        self,
        located: Located<'_>,
        broker: BrokerId,
        newcomers: &[BrokerId],
    ) -> Option<MetadataRecord> {
        match located.registration.leader? {
            leader if leader == broker => self.handed_over(located, broker, newcomers),
            // Whoever waits for `acks=all` would wait for its room. With fewer than the minimum nobody could write at all, the
            // high watermark would stand still, and the replica, which has all before it, would be back at once.
            _ if located.registration.isr.contains(&broker)
                && located.registration.isr.len()
                    > located.registration.effective_min_isr(located.min_isr) =>
            {
                self.without_member(located, broker, false, newcomers)
            }
            _ => None,
        }
    }

    /// The partition, if `broker` has the replica that it means, and that is not known to be offline.
    fn locate_replica(&self, broker: BrokerId, replica: &OfflineReplica) -> Option<Located<'_>> {
        let OfflineReplica { topic, partition, leader_epoch } = *replica;
        let located = self.locate_id(topic, partition)?;
        let is_meant = located.registration.replicas.contains(&broker)
            && located.registration.leader_epoch == leader_epoch
            && !self.image.offline.contains(broker, topic, partition);
        is_meant.then_some(located)
    }
}
