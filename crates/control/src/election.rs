//! Elections that somebody asks for: preferred and unclean. Elections that follow from fencing and ISR changes are made
//! where those are decided.

use klamm_metadata::MetadataRecord;
use klamm_types::{BrokerId, PartitionId, TopicName, TopicPartition};

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

    /// Whether `topic` allows unclean elections.
    #[must_use]
    pub fn allows_unclean_election(&self, topic: &TopicName) -> bool {
        unclean_election_enabled(self.image, self.config, topic)
    }
}
