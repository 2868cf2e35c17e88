//! Where a follower's log parts from its leader's: one pure function over two epoch histories.

use klamm_types::{EpochEndOffset, LeaderEpochCache, Offset};

/// Where a log with this history must end, given that on the leader `leader.epoch` is the largest epoch not past
/// our last one and ends at `leader.end_offset` (KIP-101, KIP-279).
///
/// - We hold that epoch too: both logs agree in it up to the lesser of its two ends.
/// - We do not: all that we hold past our largest epoch before it is foreign to the leader. What is left has
///   to be compared again, so this takes one round per epoch at most.
/// - It is newer than all of ours: the leader cannot have meant us, `None`.
///
/// ```text
///   ours    1 1 1 1 2 2 2 2            ours    1 1 1 4 4 4
///   leader  1 1 1 1 2 2 3 3 3          leader  1 1 1 2 2 5
///   (2, 6) -> 6                        (2, 5) -> 3, then it is settled
/// ```
#[must_use]
pub fn truncation_target(
    ours: &LeaderEpochCache,
    log_end_offset: Offset,
    leader: EpochEndOffset,
) -> Option<Offset> {
    let own = ours.end_offset_for(leader.epoch, log_end_offset)?;
    // B02: believes the leader's end even for an epoch that this log does not have.
    #[cfg(mutant = "B02")]
    let own = EpochEndOffset { epoch: leader.epoch, end_offset: own.end_offset.max(log_end_offset) };
    if own.epoch == leader.epoch { Some(own.end_offset.min(leader.end_offset)) } else { Some(own.end_offset) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use klamm_types::LeaderEpoch;

    fn target(ours: &[(i32, i64)], log_end: i64, leader: (i32, i64)) -> Option<i64> {
        let mut cache = LeaderEpochCache::new();
        for &(epoch, start) in ours {
            assert!(cache.assign(LeaderEpoch(epoch), Offset(start)));
        }
        let leader = EpochEndOffset { epoch: LeaderEpoch(leader.0), end_offset: Offset(leader.1) };
        truncation_target(&cache, Offset(log_end), leader).map(|offset| offset.0)
    }

    #[test]
    fn a_shared_epoch_ends_at_the_lesser_end() {
        assert_eq!(target(&[(1, 0), (2, 4)], 8, (2, 6)), Some(6));
        assert_eq!(target(&[(1, 0), (2, 4)], 8, (2, 8)), Some(8));
        assert_eq!(target(&[(1, 0), (2, 4)], 8, (1, 6)), Some(4));
        assert_eq!(target(&[(1, 0), (2, 4)], 8, (1, 3)), Some(3));
    }

    #[test]
    fn an_epoch_that_only_the_leader_has_costs_a_round() {
        assert_eq!(target(&[(1, 0), (4, 3)], 6, (2, 5)), Some(3));
        assert_eq!(target(&[(1, 0), (4, 3), (6, 9)], 12, (5, 11)), Some(9));
    }

    #[test]
    fn an_epoch_before_all_of_ours_leaves_nothing() {
        assert_eq!(target(&[(4, 3)], 6, (2, 5)), Some(3));
        assert_eq!(target(&[(4, 3)], 6, (2, 1)), Some(1));
    }

    #[test]
    fn an_epoch_past_all_of_ours_is_no_answer() {
        assert_eq!(target(&[(4, 3)], 6, (5, 5)), None);
        assert_eq!(target(&[], 0, (0, 0)), None);
    }
}
