//! ISR changes that leaders propose (KIP-497, KIP-841, KIP-903).

use std::sync::Arc;

use klamm_metadata::{LeaderRecovery, PartitionRegistration, TopicImage};
use klamm_types::{BrokerEpoch, BrokerId, LeaderEpoch, PartitionEpoch, PartitionId, TopicId};

use crate::draft::Draft;
use crate::replication_control::{Located, Standing, is_unfenced};
use crate::settings::min_insync_replicas;
use crate::{ControlResult, Refusal, Refused, ReplicationControl};

/// The proposals of one leading broker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AlterPartitionRequest {
    /// The sender.
    pub broker: BrokerId,
    /// The registration it acts under.
    pub broker_epoch: BrokerEpoch,
    /// Decided one after the other; each stands or falls alone.
    pub proposals: Vec<IsrProposal>,
}

/// The ISR that a leader wants for one partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IsrProposal {
    /// The topic.
    pub topic: TopicId,
    /// The partition of it.
    pub partition: PartitionId,
    /// The epoch in which the sender leads.
    pub leader_epoch: LeaderEpoch,
    /// The state that the proposal was made from.
    pub partition_epoch: PartitionEpoch,
    /// The whole new ISR.
    pub isr: Vec<IsrMember>,
    /// `Recovered` confirms the log of an uncleanly elected leader.
    pub recovery: LeaderRecovery,
}

/// One member of a proposed ISR.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IsrMember {
    /// The broker.
    pub broker: BrokerId,
    /// The registration under which it fetched what makes it in sync: a broker that restarted since is another one.
    pub epoch: BrokerEpoch,
}

/// The answer to one proposal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum IsrAnswer {
    /// The partition is as proposed.
    Accepted(PartitionState),
    /// The proposal completed a reassignment, and that moved the leader (`NEW_LEADER_ELECTED`, with a state).
    NewLeaderElected(PartitionState),
    /// Nothing has changed.
    Refused(IsrRefusal),
}

/// A partition after a decision.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartitionState {
    /// The partition.
    pub registration: Arc<PartitionRegistration>,
    /// The effective minimum that was decided under. A leader takes the larger of this and its own until it has applied
    /// the metadata up to this partition epoch: it may not know yet that the minimum was raised, and would
    /// move its high watermark past replicas that are kept as eligible.
    pub min_insync_replicas: usize,
}

/// Why a request as a whole is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AlterPartitionError {
    /// The sender is not registered, or under another epoch: `STALE_BROKER_EPOCH`.
    #[error("broker {broker} is not registered under epoch {epoch}")]
    StaleBrokerEpoch {
        /// The sender.
        broker: BrokerId,
        /// The epoch it named.
        epoch: BrokerEpoch,
    },
}

impl Refused for AlterPartitionError {
    fn refusal(&self) -> Refusal {
        match self {
            Self::StaleBrokerEpoch { .. } => Refusal::StaleBrokerEpoch,
        }
    }
}

/// Why one proposal is refused, in the order in which the checks are made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum IsrRefusal {
    /// `UNKNOWN_TOPIC_ID`.
    #[error("topic {topic} does not exist")]
    UnknownTopic {
        /// The topic.
        topic: TopicId,
    },
    /// `UNKNOWN_TOPIC_OR_PARTITION`.
    #[error("partition {partition} does not exist")]
    UnknownPartition {
        /// The partition.
        partition: PartitionId,
    },
    /// The sender knows more than this controller, which is thus a deposed one: `NOT_CONTROLLER` (KAFKA-14154).
    #[error("epochs {leader_epoch} and {partition_epoch} are from the future")]
    FutureEpoch {
        /// The proposal's.
        leader_epoch: LeaderEpoch,
        /// The proposal's.
        partition_epoch: PartitionEpoch,
    },
    /// `FENCED_LEADER_EPOCH`.
    #[error("leader epoch {found} is over, the current one is {current}")]
    FencedLeaderEpoch {
        /// The proposal's.
        found: LeaderEpoch,
        /// The partition's.
        current: LeaderEpoch,
    },
    /// `INVALID_REQUEST`.
    #[error("broker {broker} does not lead the partition")]
    NotLeader {
        /// The sender.
        broker: BrokerId,
    },
    /// `INVALID_UPDATE_VERSION`.
    #[error("partition epoch {found} is over, the current one is {current}")]
    OldPartitionEpoch {
        /// The proposal's.
        found: PartitionEpoch,
        /// The partition's.
        current: PartitionEpoch,
    },
    /// `INVALID_REQUEST`: a member twice, or no replica.
    #[error("broker {broker} cannot be in the isr")]
    BadMember {
        /// The member.
        broker: BrokerId,
    },
    /// `INVALID_REQUEST`.
    #[error("the isr lacks the leader {leader}")]
    LeaderMissing {
        /// The leader.
        leader: BrokerId,
    },
    /// `INVALID_REQUEST`: a recovering leader is alone, and nobody goes back to recovering.
    #[error("an isr of {members} cannot go with that recovery state")]
    BadRecovery {
        /// The size of the proposed ISR.
        members: usize,
    },
    /// `INELIGIBLE_REPLICA`.
    #[error("broker {broker} is not active under epoch {epoch}, or cannot serve its replica")]
    IneligibleReplica {
        /// The member.
        broker: BrokerId,
        /// The epoch in the proposal.
        epoch: BrokerEpoch,
    },
}

impl Refused for IsrRefusal {
    fn refusal(&self) -> Refusal {
        match self {
            Self::UnknownTopic { .. } => Refusal::UnknownTopicId,
            Self::UnknownPartition { .. } => Refusal::UnknownTopicOrPartition,
            Self::FutureEpoch { .. } => Refusal::NotController,
            Self::FencedLeaderEpoch { .. } => Refusal::FencedLeaderEpoch,
            Self::OldPartitionEpoch { .. } => Refusal::InvalidUpdateVersion,
            Self::IneligibleReplica { .. } => Refusal::IneligibleReplica,
            Self::NotLeader { .. }
            | Self::BadMember { .. }
            | Self::LeaderMissing { .. }
            | Self::BadRecovery { .. } => Refusal::InvalidRequest,
        }
    }
}

impl ReplicationControl<'_> {
    /// Decides on a leader's proposals. Every proposal that is accepted becomes a record and raises the partition epoch,
    /// also one that asks for what is there: by the epoch the leader tells whether an answer is that of its proposal.
    ///
    /// # Errors
    /// [`AlterPartitionError`] if the sender is not who it says; nothing is decided then.
    pub fn alter_partition(
        &self,
        request: &AlterPartitionRequest,
    ) -> Result<ControlResult<Vec<IsrAnswer>>, AlterPartitionError> {
        let AlterPartitionRequest { broker, broker_epoch: epoch, proposals } = request;
        if self.image.cluster.broker(*broker).is_none_or(|known| known.epoch != *epoch) {
            return Err(AlterPartitionError::StaleBrokerEpoch { broker: *broker, epoch: *epoch });
        }
        let mut draft = Draft::new(self.image);
        let answers = proposals.iter().map(|p| self.alter_one(&mut draft, *broker, p)).collect();
        Ok(ControlResult::stepwise(draft.records, answers))
    }

    fn alter_one(&self, draft: &mut Draft, sender: BrokerId, proposal: &IsrProposal) -> IsrAnswer {
        let image = draft.image().clone();
        let control = ReplicationControl::new(&image, self.config);
        let (topic, registration) = match control.validate(sender, proposal) {
            Ok(found) => found,
            Err(refusal) => return IsrAnswer::Refused(refusal),
        };
        let partition = proposal.partition;
        let min_isr = min_insync_replicas(&image, self.config, &topic.name);
        let may_lead = |broker| image.cluster.is_active(broker);
        let may_stay = |broker| is_unfenced(&image, broker);
        let standing = Standing { may_lead: &may_lead, may_stay: &may_stay };
        let mut builder = control.builder(Located { topic, partition, registration, min_isr }, &standing);
        builder.target.isr = proposal.isr.iter().map(|member| member.broker).collect();
        builder.target.recovery = proposal.recovery;
        builder.always = true;
        builder.build().into_iter().for_each(|record| draft.push(record));
        let new = draft.image().topics.partition(topic.id, partition).unwrap_or(registration);
        let min_insync_replicas = new.effective_min_isr(min_isr);
        let state = PartitionState { registration: Arc::clone(new), min_insync_replicas };
        if new.leader == Some(sender) {
            IsrAnswer::Accepted(state)
        } else {
            IsrAnswer::NewLeaderElected(state)
        }
    }

    /// The table of REPLICATION 2.6, in its order: whoever knows the least is told first.
    fn validate(
        &self,
        sender: BrokerId,
        proposal: &IsrProposal,
    ) -> Result<(&Arc<TopicImage>, &Arc<PartitionRegistration>), IsrRefusal> {
        let &IsrProposal { topic, partition, leader_epoch, partition_epoch, .. } = proposal;
        let topic = self.image.topics.topic(topic).ok_or(IsrRefusal::UnknownTopic { topic })?;
        let current = topic.partition(partition).ok_or(IsrRefusal::UnknownPartition { partition })?;
        #[cfg(not(mutant = "B11"))]
        if leader_epoch > current.leader_epoch || partition_epoch > current.partition_epoch {
            return Err(IsrRefusal::FutureEpoch { leader_epoch, partition_epoch });
        }
        if leader_epoch != current.leader_epoch {
            return Err(IsrRefusal::FencedLeaderEpoch { found: leader_epoch, current: current.leader_epoch });
        }
        if current.leader != Some(sender) {
            return Err(IsrRefusal::NotLeader { broker: sender });
        }
        if partition_epoch != current.partition_epoch {
            return Err(IsrRefusal::OldPartitionEpoch {
                found: partition_epoch,
                current: current.partition_epoch,
            });
        }
        self.validate_members(sender, proposal, current)?;
        Ok((topic, current))
    }

    fn validate_members(
        &self,
        leader: BrokerId,
        proposal: &IsrProposal,
        current: &PartitionRegistration,
    ) -> Result<(), IsrRefusal> {
        let isr = &proposal.isr;
        for (i, &IsrMember { broker, .. }) in isr.iter().enumerate() {
            let twice = isr.iter().take(i).any(|earlier| earlier.broker == broker);
            if twice || !current.replicas.contains(&broker) {
                return Err(IsrRefusal::BadMember { broker });
            }
        }
        let lacks_leader = isr.iter().all(|member| member.broker != leader);
        #[cfg(mutant = "B44")]
        let lacks_leader = lacks_leader && !isr.is_empty();
        if lacks_leader {
            return Err(IsrRefusal::LeaderMissing { leader });
        }
        let recovering = proposal.recovery == LeaderRecovery::Recovering;
        if recovering && (isr.len() > 1 || current.recovery == LeaderRecovery::Recovered) {
            return Err(IsrRefusal::BadRecovery { members: isr.len() });
        }
        let is_offline = |broker| self.image.offline.contains(broker, proposal.topic, proposal.partition);
        let ineligible =
            isr.iter().find(|member| !self.is_eligible(**member, leader) || is_offline(member.broker));
        match ineligible {
            Some(&IsrMember { broker, epoch }) => Err(IsrRefusal::IneligibleReplica { broker, epoch }),
            None => Ok(()),
        }
    }

    /// A leader on its way out may still shrink its ISR down to itself; nobody else may be in one.
    fn is_eligible(&self, member: IsrMember, leader: BrokerId) -> bool {
        let Some(registration) = self.image.cluster.broker(member.broker) else { return false };
        let active = registration.is_active() || (member.broker == leader && !registration.fenced);
        let same = registration.epoch == member.epoch;
        (active || cfg!(mutant = "B09")) && (same || cfg!(mutant = "B10"))
    }
}
