//! What the cluster knows about one partition.

use klamm_types::{BrokerId, LeaderEpoch, PartitionEpoch};

/// Whether a leader's log is known to hold everything that was acknowledged before it led.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum LeaderRecovery {
    /// It was elected from the in-sync or eligible replicas, or has confirmed its log since.
    Recovered,
    /// It was elected uncleanly and has not confirmed its log; the ISR cannot grow until it does (KIP-704).
    Recovering,
}

/// One partition as registered: who has it, who leads it, who may.
///
/// Invariants (`docs/invariants.md`), checked by [`check`](Self::check):
/// - `replicas` is not empty and names no broker twice; the other sets are duplicate-free parts of it;
/// - INV7: ISR and ELR are disjoint, and neither meets the last known ELR;
/// - a leader is in the ISR, and a partition without ISR has no leader;
/// - epochs are not negative.
///
/// INV7's second half (no ELR beside a full ISR) and INV8 need `min.insync.replicas`: `control` asserts them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartitionRegistration {
    /// All replicas; the first is the preferred leader.
    pub replicas: Vec<BrokerId>,
    /// The replicas that the leader waits for.
    pub isr: Vec<BrokerId>,
    /// Replicas outside the ISR that nevertheless hold everything committed (KIP-966).
    pub elr: Vec<BrokerId>,
    /// Replicas that were in one of the two above when the ISR fell below the minimum, and may have lost something.
    pub last_known_elr: Vec<BrokerId>,
    /// Replicas that a reassignment adds.
    pub adding: Vec<BrokerId>,
    /// Replicas that a reassignment removes once it completes.
    pub removing: Vec<BrokerId>,
    /// `None` while nobody can lead.
    pub leader: Option<BrokerId>,
    /// Grows with every change of leader and with every removal of a replica; never falls.
    pub leader_epoch: LeaderEpoch,
    /// Grows by one with every change; never falls.
    pub partition_epoch: PartitionEpoch,
    /// Whether the leader was elected cleanly.
    pub recovery: LeaderRecovery,
    /// The newest leader epoch that began with an unclean election. What an older epoch committed may be lost, and a
    /// replica that was away must be able to tell; so it outlives `recovery`. `None` if there was none, or if
    /// `metadata.version` was below 2 then.
    pub last_unclean_epoch: Option<LeaderEpoch>,
}

/// Why a registration cannot be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PartitionError {
    /// There is no replica.
    #[error("the partition has no replicas")]
    NoReplicas,
    /// A broker id is negative.
    #[error("broker {broker} is no valid id")]
    BadBroker {
        /// The id.
        broker: BrokerId,
    },
    /// A broker is twice in one set.
    #[error("broker {broker} is named twice in {set}")]
    Duplicate {
        /// The broker.
        broker: BrokerId,
        /// The set's name.
        set: &'static str,
    },
    /// A member of a set is no replica.
    #[error("broker {broker} is in {set} but no replica")]
    NotAReplica {
        /// The broker.
        broker: BrokerId,
        /// The set's name.
        set: &'static str,
    },
    /// Two sets that must be disjoint share a broker.
    #[error("broker {broker} is in {first} and in {second}")]
    Overlap {
        /// The broker.
        broker: BrokerId,
        /// One set's name.
        first: &'static str,
        /// The other's.
        second: &'static str,
    },
    /// The leader is not in sync.
    #[error("leader {leader} is not in the isr")]
    LeaderNotInSync {
        /// The leader.
        leader: BrokerId,
    },
    /// The last unclean election is of no epoch that has been.
    #[error("an unclean election in epoch {last_unclean_epoch} is not of 0 to {leader_epoch}")]
    BadUncleanEpoch {
        /// Its epoch.
        last_unclean_epoch: LeaderEpoch,
        /// The leader epoch.
        leader_epoch: LeaderEpoch,
    },
    /// An epoch is negative.
    #[error("epochs {leader_epoch} and {partition_epoch} are not both from 0")]
    BadEpoch {
        /// The leader epoch.
        leader_epoch: LeaderEpoch,
        /// The partition epoch.
        partition_epoch: PartitionEpoch,
    },
}

impl PartitionRegistration {
    /// A new partition with everybody in `isr` in sync and the first of them leading.
    #[must_use]
    pub fn new(replicas: Vec<BrokerId>, isr: Vec<BrokerId>) -> Self {
        Self {
            leader: isr.first().copied(),
            replicas,
            isr,
            elr: Vec::new(),
            last_known_elr: Vec::new(),
            adding: Vec::new(),
            removing: Vec::new(),
            leader_epoch: LeaderEpoch(0),
            partition_epoch: PartitionEpoch(0),
            recovery: LeaderRecovery::Recovered,
            last_unclean_epoch: None,
        }
    }

    /// The replica that leads when all are well.
    #[must_use]
    pub fn preferred_leader(&self) -> Option<BrokerId> {
        self.replicas.first().copied()
    }

    /// Whether replicas are being added or removed.
    #[must_use]
    pub fn is_reassigning(&self) -> bool {
        !self.adding.is_empty() || !self.removing.is_empty()
    }

    /// Whether nobody leads, and nobody is known to have everything (KIP-966).
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.leader.is_none() && self.isr.is_empty() && self.elr.is_empty()
    }

    /// The replicas once the reassignment under way is complete, in order.
    #[must_use]
    pub fn target_replicas(&self) -> Vec<BrokerId> {
        self.replicas.iter().copied().filter(|r| !self.removing.contains(r)).collect()
    }

    /// `configured`, but never more than there are replicas nor less than one (REPLICATION I3).
    #[must_use]
    pub fn effective_min_isr(&self, configured: usize) -> usize {
        configured.min(self.replicas.len()).max(1)
    }

    /// Checks everything that needs no other knowledge.
    ///
    /// # Errors
    /// [`PartitionError`] with the first rule that is broken.
    pub fn check(&self) -> Result<(), PartitionError> {
        if self.replicas.is_empty() {
            return Err(PartitionError::NoReplicas);
        }
        let sets = [
            ("replicas", &self.replicas),
            ("isr", &self.isr),
            ("elr", &self.elr),
            ("last known elr", &self.last_known_elr),
            ("adding", &self.adding),
            ("removing", &self.removing),
        ];
        for (set, members) in sets {
            self.check_set(set, members)?;
        }
        for (first, second) in [(1, 2), (1, 3), (2, 3), (4, 5)] {
            let ((first, a), (second, b)) = (sets[first], sets[second]);
            if let Some(&broker) = a.iter().find(|broker| b.contains(broker)) {
                return Err(PartitionError::Overlap { broker, first, second });
            }
        }
        if let Some(leader) = self.leader.filter(|leader| !self.isr.contains(leader)) {
            return Err(PartitionError::LeaderNotInSync { leader });
        }
        let (leader_epoch, partition_epoch) = (self.leader_epoch, self.partition_epoch);
        if leader_epoch.0 < 0 || partition_epoch.0 < 0 {
            return Err(PartitionError::BadEpoch { leader_epoch, partition_epoch });
        }
        match self.last_unclean_epoch {
            Some(last_unclean_epoch) if last_unclean_epoch.0 < 0 || last_unclean_epoch > leader_epoch => {
                Err(PartitionError::BadUncleanEpoch { last_unclean_epoch, leader_epoch })
            }
            _ => Ok(()),
        }
    }

    fn check_set(&self, set: &'static str, members: &[BrokerId]) -> Result<(), PartitionError> {
        for (i, &broker) in members.iter().enumerate() {
            if broker.0 < 0 {
                return Err(PartitionError::BadBroker { broker });
            }
            if members.iter().skip(i + 1).any(|&other| other == broker) {
                return Err(PartitionError::Duplicate { broker, set });
            }
            if !self.replicas.contains(&broker) {
                return Err(PartitionError::NotAReplica { broker, set });
            }
        }
        Ok(())
    }
}
