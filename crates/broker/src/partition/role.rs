//! What readers see of a replica without its lock.

use klamm_replica::{IsrState, Registration, Replica};
use klamm_types::{BrokerId, LeaderEpoch, Offset, PartitionEpoch, Timestamp};

use super::{NotServing, PartitionHandle, ReadFrom, State};

/// The part that a replica plays, as of its last step.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Role {
    /// Who leads, as far as this replica knows; `None` while nobody does.
    pub leader: Option<BrokerId>,
    /// The leader epoch; [`LeaderEpoch::NONE`] before the first registration.
    pub leader_epoch: LeaderEpoch,
    /// The partition epoch, accepted proposals included.
    pub partition_epoch: PartitionEpoch,
    /// Whether this replica takes writes.
    pub is_leader: bool,
    /// The log end when this epoch began, if this replica leads.
    pub epoch_start_offset: Offset,
    /// Whether the log is out of service.
    pub is_failed: bool,
    /// Whether this broker holds a replica at all.
    pub is_assigned: bool,
    /// How many replicas there are.
    pub replicas: usize,
    /// The committed in-sync set, in the order of broker ids.
    pub in_sync_replicas: Vec<BrokerId>,
    /// The effective `min.insync.replicas`.
    pub min_in_sync_replicas: usize,
    /// When this replica took its part in this leader epoch, on the broker's clock.
    pub since: Timestamp,
}

impl Role {
    pub(super) fn unassigned() -> Self {
        Self {
            leader: None,
            leader_epoch: LeaderEpoch::NONE,
            partition_epoch: PartitionEpoch::NONE,
            is_leader: false,
            epoch_start_offset: Offset::ZERO,
            is_failed: false,
            is_assigned: false,
            replicas: 0,
            in_sync_replicas: Vec::new(),
            min_in_sync_replicas: 0,
            since: Timestamp::NONE,
        }
    }

    fn of(replica: &Replica, node: BrokerId, min_in_sync_replicas: usize) -> Self {
        let Some(registration) = replica.registration() else {
            return Self { is_failed: replica.is_failed(), ..Self::unassigned() };
        };
        let in_sync = replica.isr().map_or(&registration.in_sync_replicas, IsrState::committed);
        Self {
            leader: registration.leader,
            leader_epoch: registration.leader_epoch,
            partition_epoch: registration.partition_epoch,
            is_leader: replica.is_leader(),
            epoch_start_offset: epoch_start(replica, registration),
            is_failed: replica.is_failed(),
            is_assigned: registration.replicas.contains(&node),
            replicas: registration.replicas.len(),
            in_sync_replicas: in_sync.iter().copied().collect(),
            min_in_sync_replicas,
            since: Timestamp::NONE,
        }
    }

    /// Whether it is the same part in the same leader epoch.
    fn continues(&self, earlier: &Self) -> bool {
        let part = |role: &Self| (role.leader_epoch, role.is_leader, role.is_failed, role.is_assigned);
        part(self) == part(earlier)
    }

    /// Refuses a caller who believes in another leader epoch, or whom this replica may not serve.
    ///
    /// # Errors
    /// [`NotServing`], with the first check that fails.
    pub fn check(&self, leader_epoch: Option<LeaderEpoch>, from: ReadFrom) -> Result<(), NotServing> {
        let current = self.leader_epoch;
        if self.is_failed {
            return Err(NotServing::LogFailed);
        }
        match leader_epoch {
            Some(requested) if requested < current => {
                return Err(NotServing::FencedLeaderEpoch { requested, current });
            }
            Some(requested) if requested > current => {
                return Err(NotServing::UnknownLeaderEpoch { requested, current });
            }
            _ => {}
        }
        let serves = match from {
            ReadFrom::Leader => self.is_leader,
            ReadFrom::AnyReplica => self.is_assigned && self.leader.is_some(),
        };
        match serves {
            true => Ok(()),
            false => Err(NotServing::NotLeader { leader: self.leader, leader_epoch: current }),
        }
    }
}

/// Where the epoch began that this replica leads.
fn epoch_start(replica: &Replica, registration: &Registration) -> Offset {
    let latest = replica.log().epochs().latest();
    latest.filter(|latest| latest.epoch == registration.leader_epoch).map_or(Offset::ZERO, |e| e.start_offset)
}

impl PartitionHandle {
    /// Shows readers the role, if it has changed, and wakes those for whom that is news.
    pub(super) fn publish_role(&self, state: &State) {
        let config_minimum = self.effective_minimum(state);
        let node = self.shared.around.node;
        let mut new = Role::of(&state.replica, node, config_minimum);
        let old = self.shared.role.load();
        let wakes = !new.continues(&old);
        new.since = if wakes { self.now() } else { old.since };
        if **old == new {
            return;
        }
        self.count_isr_change(&old, &new);
        self.shared.role.store(std::sync::Arc::new(new));
        if wakes {
            self.shared.waiters.wake(super::Interest::Committed);
        }
    }

    fn effective_minimum(&self, state: &State) -> usize {
        let minimum = usize::try_from(self.shared.log.config().min_insync_replicas).unwrap_or(usize::MAX);
        state.replica.registration().map_or(minimum, |known| minimum.min(known.replicas.len()).max(1))
    }

    fn count_isr_change(&self, old: &Role, new: &Role) {
        if !old.is_leader || !new.is_leader {
            return;
        }
        let metrics = &self.shared.around.metrics;
        match new.in_sync_replicas.len().cmp(&old.in_sync_replicas.len()) {
            std::cmp::Ordering::Less => metrics.isr_shrinks.add(1),
            std::cmp::Ordering::Greater => metrics.isr_expands.add(1),
            std::cmp::Ordering::Equal => {}
        }
    }

    /// Refuses while the broker's session with the controller has run out.
    pub(super) fn check_lease(&self, now: Timestamp) -> Result<(), NotServing> {
        match now < self.shared.around.lease.until() {
            true => Ok(()),
            false => Err(NotServing::LeaseExpired),
        }
    }
}
