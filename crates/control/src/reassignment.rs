//! Moving replicas from broker to broker.
//!
//! ```text
//!   [1,2,3] --wanted [3,4,5]--> replicas [3,4,5,1,2], adding [4,5], removing [1,2]
//!           4 and 5 catch up and join the ISR, and enough of the ISR remains without 1 and 2
//!           --> replicas [3,4,5]
//! ```
//! Until the last step nobody leaves, so that the replication factor never falls below the smaller of the two.

use std::collections::BTreeSet;

use klamm_metadata::PartitionRegistration;
use klamm_types::{BrokerId, TopicPartition};

use crate::draft::Draft;
use crate::partition_change::Election;
use crate::replication_control::{Standing, is_unfenced};
use crate::{ControlResult, Refusal, Refused, ReplicationControl};

/// What shall become of one partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reassignment {
    /// The partition.
    pub partition: TopicPartition,
    /// The replicas that it shall have; `None` cancels what is under way.
    pub replicas: Option<Vec<BrokerId>>,
}

/// Why a partition is not reassigned.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReassignmentError {
    /// `UNKNOWN_TOPIC_OR_PARTITION`.
    #[error("the partition does not exist")]
    UnknownPartition,
    /// `NO_REASSIGNMENT_IN_PROGRESS`.
    #[error("there is no reassignment to cancel")]
    NotInProgress,
    /// `INVALID_REPLICA_ASSIGNMENT`.
    #[error("a partition needs replicas")]
    NoReplicas,
    /// `INVALID_REPLICA_ASSIGNMENT`: named twice, not registered, or closed for new replicas.
    #[error("broker {broker} cannot get a replica")]
    BadReplica {
        /// The broker.
        broker: BrokerId,
    },
    /// `INVALID_REPLICATION_FACTOR`: the number of replicas would change, which was not allowed (KIP-860).
    #[error("the partition has {current} replicas and would have {wanted}")]
    ReplicationFactorChange {
        /// How many there are, without those being added.
        current: usize,
        /// How many there would be.
        wanted: usize,
    },
    /// `INVALID_REPLICA_ASSIGNMENT`: every complete replica is one that would be dropped at once.
    #[error("no complete replica would be left")]
    NothingLeft,
}

impl Refused for ReassignmentError {
    fn refusal(&self) -> Refusal {
        match self {
            Self::UnknownPartition => Refusal::UnknownTopicOrPartition,
            Self::NotInProgress => Refusal::NoReassignmentInProgress,
            Self::ReplicationFactorChange { .. } => Refusal::InvalidReplicationFactor,
            Self::NoReplicas | Self::BadReplica { .. } | Self::NothingLeft => {
                Refusal::InvalidReplicaAssignment
            }
        }
    }
}

impl ReplicationControl<'_> {
    /// Starts, changes or cancels reassignments, each alone.
    pub fn alter_reassignments(
        &self,
        wanted: &[Reassignment],
        allow_replication_factor_change: bool,
    ) -> ControlResult<Vec<Result<(), ReassignmentError>>> {
        let mut draft = Draft::new(self.image);
        let outcomes = wanted
            .iter()
            .map(|reassignment| self.reassign(&mut draft, reassignment, allow_replication_factor_change));
        let outcomes = outcomes.collect();
        ControlResult::stepwise(draft.records, outcomes)
    }

    fn reassign(
        &self,
        draft: &mut Draft,
        wanted: &Reassignment,
        allow_change: bool,
    ) -> Result<(), ReassignmentError> {
        let image = draft.image().clone();
        let control = ReplicationControl::new(&image, self.config);
        let located = control.locate(&wanted.partition.topic, wanted.partition.partition);
        let located = located.map_err(|_| ReassignmentError::UnknownPartition)?;
        let old = located.registration;
        let target = match &wanted.replicas {
            None => cancelled(old)?,
            Some(replicas) => control.redirected(old, replicas, allow_change)?,
        };
        let may_lead = |broker| image.cluster.is_active(broker);
        let may_stay = |broker| is_unfenced(&image, broker);
        let mut builder = control.builder(located, &Standing { may_lead: &may_lead, may_stay: &may_stay });
        builder.election = Election::Clean;
        builder.target = target;
        builder.build().into_iter().for_each(|record| draft.push(record));
        Ok(())
    }

    fn redirected(
        &self,
        old: &PartitionRegistration,
        wanted: &[BrokerId],
        allow_change: bool,
    ) -> Result<PartitionRegistration, ReassignmentError> {
        if wanted.is_empty() {
            return Err(ReassignmentError::NoReplicas);
        }
        let base = without(&old.replicas, &old.adding);
        if let Some(broker) = repeated(wanted).or_else(|| self.first_bad_replica(&without(wanted, &base))) {
            return Err(ReassignmentError::BadReplica { broker });
        }
        if !allow_change && base.len() != wanted.len() {
            let (current, wanted) = (base.len(), wanted.len());
            return Err(ReassignmentError::ReplicationFactorChange { current, wanted });
        }
        let removing = without(&base, wanted);
        let adding = without(wanted, &base);
        let replicas = wanted.iter().chain(&removing).copied().collect();
        narrowed(old, PartitionRegistration { replicas, adding, removing, ..old.clone() })
    }
}

/// Back to the replicas that the partition had before.
fn cancelled(old: &PartitionRegistration) -> Result<PartitionRegistration, ReassignmentError> {
    if !old.is_reassigning() {
        return Err(ReassignmentError::NotInProgress);
    }
    let replicas = without(&old.replicas, &old.adding);
    let (adding, removing) = (Vec::new(), Vec::new());
    narrowed(old, PartitionRegistration { replicas, adding, removing, ..old.clone() })
}

/// Drops whoever is no replica any more from the ISR, unless nobody complete would be left.
fn narrowed(
    old: &PartitionRegistration,
    mut target: PartitionRegistration,
) -> Result<PartitionRegistration, ReassignmentError> {
    let remains = |set: &[BrokerId]| set.iter().any(|broker| target.replicas.contains(broker));
    let isr_lost = !old.isr.is_empty() && !remains(&old.isr);
    let elr_lost = old.isr.is_empty() && !old.elr.is_empty() && !remains(&old.elr);
    let all_lost = !remains(&old.isr) && !remains(&old.elr) && !remains(&old.last_known_elr);
    if isr_lost || elr_lost || all_lost {
        return Err(ReassignmentError::NothingLeft);
    }
    let replicas = target.replicas.clone();
    let sets = [&mut target.isr, &mut target.elr, &mut target.last_known_elr];
    sets.into_iter().for_each(|set| set.retain(|broker| replicas.contains(broker)));
    Ok(target)
}

fn without(brokers: &[BrokerId], others: &[BrokerId]) -> Vec<BrokerId> {
    brokers.iter().copied().filter(|broker| !others.contains(broker)).collect()
}

fn repeated(brokers: &[BrokerId]) -> Option<BrokerId> {
    let mut seen = BTreeSet::new();
    brokers.iter().copied().find(|broker| !seen.insert(*broker))
}
