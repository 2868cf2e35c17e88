//! Elections that somebody asks for: preferred, unclean, and the recovery of a partition that lost all its complete
//! replicas. Elections that follow from fencing and ISR changes are made where those are decided.

use std::collections::BTreeMap;

use klamm_metadata::{MetadataRecord, PartitionRegistration};
use klamm_types::{
    BrokerEpoch, BrokerId, LeaderEpoch, Offset, PartitionId, TopicId, TopicName, TopicPartition,
};

use crate::draft::Draft;
use crate::partition_change::Election;
use crate::replication_control::{Located, Standing, is_unfenced};
use crate::settings::{min_insync_replicas, unclean_election_enabled};
use crate::{ControlResult, Refusal, Refused, ReplicationControl};

/// What an administrator wants elected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ElectionKind {
    /// The first replica, if it is in sync.
    Preferred,
    /// Anybody, rather than nobody; what was acknowledged may be lost.
    Unclean,
}

/// Why a partition has no other leader.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ElectionError {
    /// `UNKNOWN_TOPIC_OR_PARTITION`.
    #[error("the partition does not exist")]
    UnknownPartition,
    /// `ELECTION_NOT_NEEDED`: the preferred replica leads already, or, for an unclean election, anybody.
    #[error("broker {leader} leads already")]
    NotNeeded {
        /// The leader.
        leader: BrokerId,
    },
    /// `PREFERRED_LEADER_NOT_AVAILABLE`: it is fenced, shutting down or not in sync.
    #[error("the preferred leader is not available")]
    PreferredNotAvailable,
    /// `ELIGIBLE_LEADERS_NOT_AVAILABLE`: no replica is active, or not all that must be asked are.
    #[error("no eligible leader is available")]
    EligibleNotAvailable,
    /// `ELECTION_NOT_NEEDED`: recovery is for a partition whose ISR and ELR are both empty.
    #[error("complete replicas of the partition exist")]
    NotLost,
}

impl Refused for ElectionError {
    fn refusal(&self) -> Refusal {
        match self {
            Self::UnknownPartition => Refusal::UnknownTopicOrPartition,
            Self::NotNeeded { .. } | Self::NotLost => Refusal::ElectionNotNeeded,
            Self::PreferredNotAvailable => Refusal::PreferredLeaderNotAvailable,
            Self::EligibleNotAvailable => Refusal::EligibleLeadersNotAvailable,
        }
    }
}

/// What one broker says about its log of a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogReport {
    /// The registration under which it was asked; a broker that restarted since must be asked again.
    pub broker_epoch: BrokerEpoch,
    /// The leader epoch of its last record.
    pub last_epoch: LeaderEpoch,
    /// Its log end.
    pub log_end_offset: Offset,
}

/// The outcome of asked-for elections, partition by partition.
pub type ElectionOutcomes = Vec<(TopicPartition, Result<(), ElectionError>)>;

impl ReplicationControl<'_> {
    /// Elects leaders as an administrator asks.
    pub fn elect_leaders(
        &self,
        kind: ElectionKind,
        wanted: &[TopicPartition],
    ) -> ControlResult<ElectionOutcomes> {
        let mut draft = Draft::new(self.image);
        let outcomes = wanted.iter().map(|tp| (tp.clone(), self.elect_one(&mut draft, kind, tp))).collect();
        ControlResult::stepwise(draft.records, outcomes)
    }

    /// The same for every partition; those that need no election are left out of the answer.
    pub fn elect_all_leaders(&self, kind: ElectionKind) -> ControlResult<ElectionOutcomes> {
        let all = self.image.topics.topics_by_name();
        let all = all
            .flat_map(|topic| topic.partitions().map(|(id, _)| TopicPartition::new(topic.name.clone(), id)));
        let all: Vec<_> = all.collect();
        let needed =
            |outcome: &(TopicPartition, _)| !matches!(outcome.1, Err(ElectionError::NotNeeded { .. }));
        self.elect_leaders(kind, &all).map(|outcomes| outcomes.into_iter().filter(needed).collect())
    }

    fn elect_one(
        &self,
        draft: &mut Draft,
        kind: ElectionKind,
        wanted: &TopicPartition,
    ) -> Result<(), ElectionError> {
        let image = draft.image().clone();
        let control = ReplicationControl::new(&image, self.config);
        let located = control.locate(&wanted.topic, wanted.partition)?;
        let leader = located.registration.leader;
        let (election, not_available) = match kind {
            ElectionKind::Preferred => {
                if let Some(leader) = leader.filter(|_| leader == located.registration.preferred_leader()) {
                    return Err(ElectionError::NotNeeded { leader });
                }
                (Election::Preferred, ElectionError::PreferredNotAvailable)
            }
            ElectionKind::Unclean => {
                if let Some(leader) = leader {
                    return Err(ElectionError::NotNeeded { leader });
                }
                (Election::Unclean, ElectionError::EligibleNotAvailable)
            }
        };
        let record = control.hold(located, election).ok_or(not_available)?;
        let MetadataRecord::PartitionChanged(change) = &record else { return Err(not_available) };
        let new_leader = change.merge_into(located.registration).leader;
        let elected = match kind {
            ElectionKind::Preferred => new_leader == located.registration.preferred_leader(),
            ElectionKind::Unclean => new_leader.is_some(),
        };
        if !elected {
            return Err(not_available);
        }
        draft.push(record);
        Ok(())
    }

    pub(crate) fn locate(
        &self,
        topic: &TopicName,
        partition: PartitionId,
    ) -> Result<Located<'_>, ElectionError> {
        let topic = self.image.topics.topic_by_name(topic).ok_or(ElectionError::UnknownPartition)?;
        let registration = topic.partition(partition).ok_or(ElectionError::UnknownPartition)?;
        let min_isr = min_insync_replicas(self.image, self.config, &topic.name);
        Ok(Located { topic, partition, registration, min_isr })
    }

    /// One election of one partition.
    pub(crate) fn hold(&self, located: Located<'_>, election: Election) -> Option<MetadataRecord> {
        let may_lead = |broker| self.image.cluster.is_active(broker);
        let may_stay = |broker| is_unfenced(self.image, broker);
        let mut builder = self.builder(located, &Standing { may_lead: &may_lead, may_stay: &may_stay });
        builder.election = election;
        builder.build()
    }

    /// Elects, cleanly or not as each topic allows, wherever nobody leads: for a timer, and for the moment at which
    /// unclean elections are allowed (`unclean.leader.election.interval.ms`). Returns how many partitions got a leader.
    pub fn elect_leaderless(&self) -> ControlResult<usize> {
        let records = self.elect_where(|_| true);
        let elected = |record: &&MetadataRecord| match record {
            MetadataRecord::PartitionChanged(change) => change.leader.flatten().is_some(),
            _ => false,
        };
        let count = records.iter().filter(elected).count();
        ControlResult::stepwise(records, count)
    }

    /// The partitions that only [`recover_partition`](Self::recover_partition) or an unclean election can bring
    /// back, with the brokers to ask about their logs, and the epochs to ask them under.
    pub fn lost_partitions(
        &self,
    ) -> impl Iterator<Item = (TopicId, PartitionId, Vec<(BrokerId, Option<BrokerEpoch>)>)> + '_ {
        let lost = self.image.topics.partitions().filter(|(_, _, partition)| is_lost(partition));
        lost.map(|(topic, id, partition)| {
            let epoch = |broker: &BrokerId| self.image.cluster.broker(*broker).map(|known| known.epoch);
            (topic.id, id, partition.last_known_elr.iter().map(|broker| (*broker, epoch(broker))).collect())
        })
    }

    /// Balanced recovery (KIP-966): once *all* last known replicas are active and have reported, the one with the
    /// longest log of the newest epoch leads. Records that only a damaged replica held may be gone; the body reports
    /// that. The answer is the new leader.
    ///
    /// # Errors
    /// [`ElectionError::EligibleNotAvailable`] while a last known replica is not active or has not reported under its
    /// current epoch; the other variants if there is nothing to recover.
    pub fn recover_partition(
        &self,
        wanted: &TopicPartition,
        reports: &BTreeMap<BrokerId, LogReport>,
    ) -> Result<ControlResult<BrokerId>, ElectionError> {
        let located = self.locate(&wanted.topic, wanted.partition)?;
        let partition = located.registration;
        if !is_lost(partition) {
            return Err(ElectionError::NotLost);
        }
        let mut best: Option<((LeaderEpoch, Offset), BrokerId)> = None;
        for &broker in &partition.last_known_elr {
            let report =
                self.current_report(broker, located, reports).ok_or(ElectionError::EligibleNotAvailable)?;
            let length = (report.last_epoch, report.log_end_offset);
            if best.is_none_or(|(longest, _)| length > longest) {
                best = Some((length, broker));
            }
        }
        let (_, leader) = best.ok_or(ElectionError::EligibleNotAvailable)?;
        let (may_lead, may_stay) = (|broker| broker == leader, |_| false);
        let mut builder = self.builder(located, &Standing { may_lead: &may_lead, may_stay: &may_stay });
        builder.election = Election::Unclean;
        let record = builder.build().ok_or(ElectionError::EligibleNotAvailable)?;
        Ok(ControlResult::atomic(vec![record], leader))
    }

    /// What `broker` said, if it is active, serves its replica, and said it under its current registration.
    fn current_report(
        &self,
        broker: BrokerId,
        located: Located<'_>,
        reports: &BTreeMap<BrokerId, LogReport>,
    ) -> Option<LogReport> {
        let offline = self.image.offline.contains(broker, located.topic.id, located.partition);
        let active = !offline && self.image.cluster.is_active(broker);
        #[cfg(mutant = "B18")]
        let active = !active;
        let known = self.image.cluster.broker(broker)?.epoch;
        reports.get(&broker).copied().filter(|report| active && report.broker_epoch == known)
    }

    /// Whether `topic` allows unclean elections.
    #[must_use]
    pub fn allows_unclean_election(&self, topic: &TopicName) -> bool {
        unclean_election_enabled(self.image, self.config, topic)
    }
}

fn is_lost(partition: &PartitionRegistration) -> bool {
    partition.leader.is_none() && partition.isr.is_empty() && partition.elr.is_empty()
}
