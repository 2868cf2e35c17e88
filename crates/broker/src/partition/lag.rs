//! How far the followers of a partition are, as its leader sees it.

use klamm_types::{BrokerId, LeaderEpoch, Offset, Timestamp};

use super::{NotServing, PartitionHandle, ReadFrom, State};

/// A partition and its followers at one moment, as the leader knows them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeaderView {
    /// When that was, in milliseconds since 1970.
    pub at: Timestamp,
    /// The epoch that it leads.
    pub leader_epoch: LeaderEpoch,
    /// For how long it has done so, in milliseconds.
    pub led_for_ms: u64,
    /// Where its log begins.
    pub log_start_offset: Offset,
    /// Everything before is committed.
    pub high_watermark: Offset,
    /// Exclusive end of its log.
    pub log_end_offset: Offset,
    /// The others, in the order of the replicas.
    pub followers: Vec<FollowerView>,
}

/// What a leader knows of a follower.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FollowerView {
    /// Who.
    pub broker: BrokerId,
    /// Whether it is in the committed in-sync set.
    pub is_in_sync: bool,
    /// Exclusive end of what it held as of its last fetch; `None` before its first one in this leader epoch.
    pub end_offset: Option<Offset>,
    /// How long ago its last fetch came, in milliseconds; `None` before its first one in this leader epoch. One whose
    /// partition is idle waits for the answer to a fetch that may be hours old.
    pub fetched_ms_ago: Option<u64>,
    /// For how long it has not held all that the leader holds, in milliseconds: 0 if it does, `None` if it never did in
    /// this leader epoch. It is what `replica.lag.time.max.ms` limits.
    pub behind_ms: Option<u64>,
}

/// How far a follower is behind its leader.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct ReplicaLag {
    /// For how long it has not held all that the leader holds, in milliseconds; since the leader took over, if it never
    /// did.
    pub millis: u64,
    /// How many offsets it lacks at most.
    pub records: u64,
}

impl LeaderView {
    /// How far one of the followers is behind. Before its first fetch it is taken to hold what all of its kind hold at
    /// least: a member of the in-sync set what is committed, any other nothing.
    #[must_use]
    pub fn lag_of(&self, follower: &FollowerView) -> ReplicaLag {
        let least = if follower.is_in_sync { self.high_watermark } else { self.log_start_offset };
        let end_offset = follower.end_offset.unwrap_or(least);
        let records = end_offset.distance_to(self.log_end_offset);
        let millis = if records == 0 { 0 } else { follower.behind_ms.unwrap_or(self.led_for_ms) };
        ReplicaLag { millis, records }
    }
}

impl PartitionHandle {
    /// The partition and its followers, as this replica knows them if it leads. Takes the partition's lock.
    ///
    /// # Errors
    /// [`NotServing`], if it does not lead.
    pub fn leader_view(&self) -> Result<LeaderView, NotServing> {
        self.shared.role.load().check(None, ReadFrom::Leader)?;
        let state = self.enter().map_err(|_| NotServing::LogFailed)?;
        self.view_of(&state).ok_or_else(|| {
            let leader = state.replica.registration().and_then(|registration| registration.leader);
            NotServing::NotLeader { leader, leader_epoch: state.replica.leader_epoch() }
        })
    }

    /// `None` if the replica does not lead any more.
    fn view_of(&self, state: &State) -> Option<LeaderView> {
        let (replica, now) = (&state.replica, self.now());
        let in_sync = replica.isr()?.committed();
        let log = replica.log();
        let followers = replica.registration()?.replicas.iter().filter_map(|&broker| {
            let progress = replica.follower(broker)?;
            let caught_up_at =
                if progress.holds_all(log.log_end_offset()) { Some(now) } else { progress.caught_up_at() };
            Some(FollowerView {
                broker,
                is_in_sync: in_sync.contains(&broker),
                end_offset: progress.fetched().map(|fetched| fetched.end_offset),
                fetched_ms_ago: progress.fetched().map(|fetched| millis_between(fetched.at, now)),
                behind_ms: caught_up_at.map(|at| millis_between(at, now)),
            })
        });
        Some(LeaderView {
            at: self.shared.around.clock.wall(),
            leader_epoch: replica.leader_epoch(),
            led_for_ms: millis_between(self.shared.role.load().since, now),
            log_start_offset: log.log_start_offset(),
            high_watermark: log.high_watermark(),
            log_end_offset: log.log_end_offset(),
            followers: followers.collect(),
        })
    }

    /// Whether a follower may lack something, as far as can be told without the partition's lock: not while all are in
    /// sync and all of the log is committed.
    pub(crate) fn may_have_lag(&self) -> bool {
        let role = self.shared.role.load();
        let log = &self.shared.log;
        role.is_leader
            && role.replicas > 1
            && (role.in_sync_replicas.len() < role.replicas || log.high_watermark() < log.log_end_offset())
    }
}

fn millis_between(earlier: Timestamp, now: Timestamp) -> u64 {
    u64::try_from(now.millis_since(earlier)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIEW: LeaderView = LeaderView {
        at: Timestamp(1_000),
        leader_epoch: LeaderEpoch(3),
        led_for_ms: 700,
        log_start_offset: Offset(10),
        high_watermark: Offset(90),
        log_end_offset: Offset(100),
        followers: Vec::new(),
    };

    fn lag(is_in_sync: bool, end_offset: Option<i64>, behind_ms: Option<u64>) -> (u64, u64) {
        let end_offset = end_offset.map(Offset);
        let follower =
            FollowerView { broker: BrokerId(2), is_in_sync, end_offset, fetched_ms_ago: None, behind_ms };
        let ReplicaLag { millis, records } = VIEW.lag_of(&follower);
        (records, millis)
    }

    #[test]
    fn a_follower_lacks_what_it_has_not_asked_for() {
        assert_eq!(lag(true, Some(93), Some(40)), (7, 40));
        assert_eq!(lag(false, Some(11), Some(4_000)), (89, 4_000));
        assert_eq!(lag(true, Some(100), Some(0)), (0, 0));
    }

    #[test]
    fn a_follower_that_has_not_fetched_holds_what_its_kind_holds() {
        assert_eq!(lag(true, None, Some(30)), (10, 30));
        assert_eq!(lag(false, None, None), (90, 700));
    }
}
