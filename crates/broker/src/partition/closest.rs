//! Which follower a consumer may as well read from (KIP-392).

use klamm_types::{BrokerId, LeaderEpoch, Offset};

use super::{NotServing, PartitionHandle, ReadFrom};

impl PartitionHandle {
    /// Whether this replica answers a consumer at all, as [`read`](Self::read) would find it.
    ///
    /// # Errors
    /// [`NotServing`].
    pub fn check_serving(&self, leader_epoch: Option<LeaderEpoch>, from: ReadFrom) -> Result<(), NotServing> {
        self.shared.role.load().check(leader_epoch, from)?;
        self.check_lease(self.now())
    }

    /// The follower that is furthest of those among `candidates` that are in sync and hold `offset`: by the end of its
    /// log, then by when it last held all that this leader held, then by its id. `None` if there is none, or if this
    /// replica does not lead.
    ///
    /// A follower that is in sync goes on being told of what is committed, so that a consumer there makes progress;
    /// one that is not may stand still for ever.
    #[must_use]
    pub fn furthest_follower(&self, offset: Offset, candidates: &[BrokerId]) -> Option<BrokerId> {
        let state = self.enter().ok()?;
        let in_sync = state.replica.isr()?.committed();
        let followers = candidates.iter().filter(|broker| in_sync.contains(broker)).filter_map(|broker| {
            let progress = state.replica.follower(*broker)?;
            let fetched = progress.fetched()?;
            let holds = (fetched.log_start_offset..=fetched.end_offset).contains(&offset);
            holds.then_some((fetched.end_offset, progress.caught_up_at(), *broker))
        });
        followers.max().map(|(_, _, broker)| broker)
    }
}
