//! What a leader knows of one follower.

use klamm_types::{BrokerEpoch, Offset, Timestamp};

use crate::event::FollowerFetch;

/// One follower, as its fetches *in this leader epoch* show it.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct FollowerProgress {
    /// What the last fetch said; `None` before the first one of this leader epoch.
    fetched: Option<Fetched>,
    /// When the follower last held all that the leader held; `None` if never.
    caught_up_at: Option<Timestamp>,
    /// Since when the follower is out of the in-sync set; `None` if it is in it.
    out_since: Option<Timestamp>,
}

/// One snapshot of a follower: everything of the same fetch (KAFKA-15221).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Fetched {
    /// The follower holds everything before.
    pub end_offset: Offset,
    /// The first offset of its log.
    pub log_start_offset: Offset,
    /// The incarnation that holds it.
    pub broker_epoch: BrokerEpoch,
    /// When the leader got the fetch.
    pub at: Timestamp,
    leader_end_offset: Offset,
}

impl FollowerProgress {
    /// A follower that has not fetched yet but is a member of the in-sync set: it gets a full lag window.
    pub(crate) fn in_sync_since(now: Timestamp) -> Self {
        Self { caught_up_at: Some(now), ..Self::default() }
    }

    /// The last fetch, if there was one in this leader epoch.
    #[must_use]
    pub fn fetched(&self) -> Option<Fetched> {
        self.fetched
    }

    /// When the follower last held all that the leader held.
    #[must_use]
    pub fn caught_up_at(&self) -> Option<Timestamp> {
        self.caught_up_at
    }

    /// Takes note of a fetch that passed every check. A follower is caught up *now* if it is at the leader's
    /// end, and was caught up at its previous fetch if it has now reached where the leader's end was then.
    pub(crate) fn record(&mut self, now: Timestamp, fetch: &FollowerFetch, leader_end_offset: Offset) {
        if fetch.offset >= leader_end_offset {
            self.caught_up_at = self.caught_up_at.max(Some(now));
        } else if let Some(previous) = self.fetched.filter(|p| fetch.offset >= p.leader_end_offset) {
            self.caught_up_at = self.caught_up_at.max(Some(previous.at));
        }
        self.fetched = Some(Fetched {
            end_offset: fetch.offset,
            log_start_offset: fetch.log_start_offset,
            broker_epoch: fetch.broker_epoch,
            at: now,
            leader_end_offset,
        });
    }

    /// Takes note that the leader is about to hold more than up to `end_offset`. A follower that holds all until then is
    /// caught up *now*: its last fetch, which waits for this, may be as old as the partition was idle.
    pub(crate) fn before_append(&mut self, now: Timestamp, end_offset: Offset) {
        if self.holds_all(end_offset) && self.fetched.is_some_and(|fetched| self.counts(fetched.at)) {
            self.caught_up_at = self.caught_up_at.max(Some(now));
        }
    }

    /// Whether the follower holds everything, or did so not longer than `lag_max_ms` ago. One that holds
    /// everything of an idle partition never lags: idle partitions need no clock.
    #[must_use]
    pub fn is_caught_up(&self, now: Timestamp, leader_end_offset: Offset, lag_max_ms: i64) -> bool {
        self.holds_all(leader_end_offset)
            || self.caught_up_at.is_some_and(|at| now.millis_since(at) <= lag_max_ms)
    }

    /// Takes note of whether the follower is in the in-sync set.
    pub(crate) fn set_in_sync(&mut self, now: Timestamp, is_in_sync: bool) {
        match is_in_sync {
            true => self.out_since = None,
            false => _ = self.out_since.get_or_insert(now),
        }
    }

    /// Whether the follower, which is not in the set, is so close that it will be soon. That it held everything before it
    /// left says nothing: its node may have been down since, or its disk be empty.
    pub(crate) fn is_about_to_join(
        &self,
        now: Timestamp,
        leader_end_offset: Offset,
        lag_max_ms: i64,
    ) -> bool {
        let has_shown = self.caught_up_at.is_some_and(|at| self.counts(at));
        has_shown && self.is_caught_up(now, leader_end_offset, lag_max_ms)
    }

    /// Whether what was seen then counts: it did not leave the in-sync set since.
    fn counts(&self, at: Timestamp) -> bool {
        self.out_since.is_none_or(|out_since| at >= out_since)
    }

    /// Whether the follower holds everything before `leader_end_offset`.
    #[must_use]
    pub fn holds_all(&self, leader_end_offset: Offset) -> bool {
        self.fetched.is_some_and(|fetched| fetched.end_offset >= leader_end_offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use klamm_types::{BrokerId, LeaderEpoch};

    fn fetch(offset: i64) -> FollowerFetch {
        FollowerFetch {
            broker: BrokerId(2),
            broker_epoch: BrokerEpoch(7),
            leader_epoch: LeaderEpoch(1),
            offset: Offset(offset),
            last_epoch: LeaderEpoch(1),
            log_start_offset: Offset::ZERO,
            high_watermark: Offset::ZERO,
        }
    }

    #[test]
    fn a_follower_that_keeps_reaching_the_previous_end_is_caught_up_then() {
        let mut progress = FollowerProgress::default();
        progress.record(Timestamp(100), &fetch(0), Offset(10));
        assert_eq!(progress.caught_up_at(), None);
        progress.record(Timestamp(200), &fetch(10), Offset(20));
        assert_eq!(progress.caught_up_at(), Some(Timestamp(100)));
        progress.record(Timestamp(300), &fetch(20), Offset(20));
        assert_eq!(progress.caught_up_at(), Some(Timestamp(300)));
        progress.record(Timestamp(400), &fetch(21), Offset(40));
        assert_eq!(progress.caught_up_at(), Some(Timestamp(300)));
        assert!(progress.is_caught_up(Timestamp(400), Offset(40), 100));
        assert!(!progress.is_caught_up(Timestamp(401), Offset(40), 100));
        assert!(progress.is_caught_up(Timestamp(9999), Offset(21), 100));
    }

    #[test]
    fn caught_up_time_does_not_go_back_with_the_clock() {
        let mut progress = FollowerProgress::in_sync_since(Timestamp(500));
        progress.record(Timestamp(400), &fetch(10), Offset(10));
        assert_eq!(progress.caught_up_at(), Some(Timestamp(500)));
    }
}
