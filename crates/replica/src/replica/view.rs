//! What a replica tells about itself, without changing.

use klamm_types::{BrokerEpoch, BrokerId, LeaderEpoch, Timestamp};

use crate::effect::ReadBounds;
use crate::event::FlushToken;
use crate::isr::IsrState;
use crate::leader::FollowerProgress;
use crate::refusal::ReadRefusal;
use crate::registration::Registration;
use crate::replica::LogPosition;
use crate::replica::{Replica, Role};

impl Replica {
    /// When a [`Event::Tick`](crate::Event::Tick) is next due if nothing else happens; `None` if time alone changes nothing. A tick
    /// that comes late delays, and one that comes early does nothing. `ticked_at` is when the last tick was: what it
    /// could not change is not due again. The answer may lie in the past: then the tick is due at once.
    #[must_use]
    pub fn next_wakeup(&self, ticked_at: Timestamp) -> Option<Timestamp> {
        match &self.role {
            Role::Leader(leader) => leader.next_wakeup(&self.partition, ticked_at),
            Role::Follower(follower) => follower.next_wakeup(),
            Role::Unassigned | Role::Failed => None,
        }
    }

    /// What a consumer may read here at `now`, on a broker whose session lasts until `lease_until`.
    ///
    /// # Errors
    /// [`ReadRefusal`] if the replica may not serve.
    pub fn read_bounds(&self, now: Timestamp, lease_until: Timestamp) -> Result<ReadBounds, ReadRefusal> {
        let log = &self.partition.log;
        let is_latest_known = match &self.role {
            Role::Failed => return Err(ReadRefusal::LogFailed),
            Role::Unassigned => return Err(ReadRefusal::NotServing),
            Role::Follower(follower) if follower.leader.is_none() => return Err(ReadRefusal::NotServing),
            Role::Follower(_) => false,
            Role::Leader(leader) => log.high_watermark >= leader.epoch_start_offset,
        };
        if now >= lease_until {
            return Err(ReadRefusal::LeaseExpired);
        }
        let (log_start_offset, high_watermark) = (log.log_start_offset, log.high_watermark);
        Ok(ReadBounds { log_start_offset, high_watermark, is_latest_known })
    }

    /// A token for a flush that begins now: for a body that flushes on its own schedule (page-cache mode).
    #[must_use]
    pub fn flush_token(&self) -> FlushToken {
        self.partition.flush_token()
    }

    /// How far the log reaches.
    #[must_use]
    pub fn log(&self) -> &LogPosition {
        &self.partition.log
    }

    /// The metadata as this replica knows it, accepted proposals included.
    #[must_use]
    pub fn registration(&self) -> Option<&Registration> {
        self.partition.registration.as_ref()
    }

    /// The leader epoch, [`LeaderEpoch::NONE`] before the first registration.
    #[must_use]
    pub fn leader_epoch(&self) -> LeaderEpoch {
        self.partition.leader_epoch()
    }

    /// This incarnation of the broker.
    #[must_use]
    pub fn broker_epoch(&self) -> BrokerEpoch {
        self.partition.broker_epoch
    }

    /// Whether this replica takes writes.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        matches!(self.role, Role::Leader(_))
    }

    /// Whether the log is out of service.
    #[must_use]
    pub fn is_failed(&self) -> bool {
        matches!(self.role, Role::Failed)
    }

    /// The in-sync set with the change under way, if this replica leads.
    #[must_use]
    pub fn isr(&self) -> Option<&IsrState> {
        match &self.role {
            Role::Leader(leader) => Some(&leader.isr),
            Role::Unassigned | Role::Follower(_) | Role::Failed => None,
        }
    }

    /// What is known of a follower, if this replica leads.
    #[must_use]
    pub fn follower(&self, broker: BrokerId) -> Option<&FollowerProgress> {
        match &self.role {
            Role::Leader(leader) => leader.followers.get(&broker),
            Role::Unassigned | Role::Follower(_) | Role::Failed => None,
        }
    }

    /// The number of `acks=all` appends that wait.
    #[must_use]
    pub fn pending_append_count(&self) -> usize {
        match &self.role {
            Role::Leader(leader) => leader.acks.len(),
            Role::Unassigned | Role::Follower(_) | Role::Failed => 0,
        }
    }
}
