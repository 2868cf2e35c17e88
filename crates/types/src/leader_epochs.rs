//! Which leader wrote which part of a log (KIP-101, KIP-279, KIP-320).

use std::fmt;

use crate::{LeaderEpoch, Offset};

/// One epoch and the first offset it may have written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EpochEntry {
    /// The epoch.
    pub epoch: LeaderEpoch,
    /// Its first offset: the log end when its leader took over.
    pub start_offset: Offset,
}

/// Where an epoch ended, as [`LeaderEpochCache::end_offset_for`] finds it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EpochEndOffset {
    /// The largest cached epoch that is not past the one asked for (or the one asked for, if it is older than all).
    pub epoch: LeaderEpoch,
    /// The exclusive end of what that epoch wrote.
    pub end_offset: Offset,
}

/// Entries that are not strictly increasing in both fields.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EpochOrderError {
    /// The entry that is not past the one before it.
    pub entry: EpochEntry,
}

/// The history of leader epochs of one replica's log.
///
/// ```text
///   epoch 0        epoch 2     epoch 3
///   |--------------|-----------|------------- ... log end
///   0              40          55
/// ```
///
/// **Invariant** INV10: entries are strictly increasing in epoch *and* in start offset. An entry may stand for
/// an epoch that wrote nothing (KAFKA-7415); it is replaced when a later epoch starts at the same offset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaderEpochCache {
    entries: Vec<EpochEntry>,
}

impl LeaderEpochCache {
    /// An empty history.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes over a stored history.
    ///
    /// # Errors
    /// [`EpochOrderError`] if the entries are not strictly increasing in both fields.
    pub fn from_entries(entries: Vec<EpochEntry>) -> Result<Self, EpochOrderError> {
        let out_of_order = |pair: &&[EpochEntry]| {
            pair[1].epoch <= pair[0].epoch || pair[1].start_offset <= pair[0].start_offset
        };
        match entries.windows(2).find(out_of_order) {
            Some(pair) => Err(EpochOrderError { entry: pair[1] }),
            None => Ok(Self { entries }),
        }
    }

    /// The entries, oldest first.
    #[must_use]
    pub fn entries(&self) -> &[EpochEntry] {
        &self.entries
    }

    /// The newest entry.
    #[must_use]
    pub fn latest(&self) -> Option<EpochEntry> {
        self.entries.last().copied()
    }

    /// Notes that `epoch` starts at `start_offset`. Returns whether anything changed: an epoch that is already
    /// known, or older than the newest, changes nothing.
    ///
    /// Entries that start at or past `start_offset` are dropped: their epochs wrote nothing that is left.
    pub fn assign(&mut self, epoch: LeaderEpoch, start_offset: Offset) -> bool {
        if epoch.0 < 0 || self.latest().is_some_and(|latest| epoch <= latest.epoch) {
            return false;
        }
        self.truncate_from_end(start_offset);
        self.entries.push(EpochEntry { epoch, start_offset });
        self.check_invariants();
        true
    }

    /// The end of the newest cached epoch that is not past `epoch`; REPLICATION 2.2.
    ///
    /// - the newest epoch ends at `log_end_offset`;
    /// - an epoch past the newest is unknown: `None`;
    /// - one between two cached ones ends where the next cached one starts;
    /// - one older than all ends where the oldest starts.
    #[must_use]
    pub fn end_offset_for(&self, epoch: LeaderEpoch, log_end_offset: Offset) -> Option<EpochEndOffset> {
        let latest = self.latest()?;
        if epoch.0 < 0 || epoch > latest.epoch {
            return None;
        }
        if epoch == latest.epoch {
            return Some(EpochEndOffset { epoch, end_offset: log_end_offset });
        }
        let next = self.entries.partition_point(|entry| entry.epoch <= epoch);
        let end_offset = self.entries[next].start_offset;
        let floor = next.checked_sub(1).map_or(epoch, |floor| self.entries[floor].epoch);
        Some(EpochEndOffset { epoch: floor, end_offset })
    }

    /// The epoch that wrote `offset`, or `None` before the first entry.
    #[must_use]
    pub fn epoch_at(&self, offset: Offset) -> Option<LeaderEpoch> {
        let next = self.entries.partition_point(|entry| entry.start_offset <= offset);
        next.checked_sub(1).map(|floor| self.entries[floor].epoch)
    }

    /// Drops the entries that start at or past `end_offset`: the log now ends there. Returns whether any did.
    pub fn truncate_from_end(&mut self, end_offset: Offset) -> bool {
        let kept = self.entries.partition_point(|entry| entry.start_offset < end_offset);
        let changed = kept < self.entries.len();
        self.entries.truncate(kept);
        changed
    }

    /// Forgets what lies before `log_start_offset`: the epoch that covers it now starts there. Returns whether
    /// anything changed.
    pub fn truncate_from_start(&mut self, log_start_offset: Offset) -> bool {
        let next = self.entries.partition_point(|entry| entry.start_offset <= log_start_offset);
        let Some(floor) = next.checked_sub(1) else { return false };
        if floor == 0 && self.entries[0].start_offset == log_start_offset {
            return false;
        }
        self.entries.drain(..floor);
        self.entries[0].start_offset = log_start_offset;
        self.check_invariants();
        true
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.entries.clear();
    }

    fn check_invariants(&self) {
        debug_assert!(
            self.entries.windows(2).all(|w| w[0].epoch < w[1].epoch && w[0].start_offset < w[1].start_offset),
            "INV10: leader epochs out of order: {:?}",
            self.entries
        );
    }
}

impl fmt::Display for EpochOrderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let EpochEntry { epoch, start_offset } = self.entry;
        write!(f, "leader epoch {epoch} at offset {start_offset} is not past the entry before it")
    }
}

impl std::error::Error for EpochOrderError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(entries: &[(i32, i64)]) -> LeaderEpochCache {
        let mut cache = LeaderEpochCache::new();
        for &(epoch, start) in entries {
            cache.assign(LeaderEpoch(epoch), Offset(start));
        }
        cache
    }

    fn pairs(cache: &LeaderEpochCache) -> Vec<(i32, i64)> {
        cache.entries().iter().map(|e| (e.epoch.0, e.start_offset.0)).collect()
    }

    fn end(cache: &LeaderEpochCache, epoch: i32) -> Option<(i32, i64)> {
        let found = cache.end_offset_for(LeaderEpoch(epoch), Offset(100))?;
        Some((found.epoch.0, found.end_offset.0))
    }

    #[test]
    fn end_offset_covers_every_position() {
        let cache = cache(&[(1, 10), (3, 40), (5, 55)]);
        assert_eq!(end(&cache, 5), Some((5, 100)));
        assert_eq!(end(&cache, 6), None);
        assert_eq!(end(&cache, 4), Some((3, 55)));
        assert_eq!(end(&cache, 3), Some((3, 55)));
        assert_eq!(end(&cache, 2), Some((1, 40)));
        assert_eq!(end(&cache, 0), Some((0, 10)));
        assert_eq!(end(&cache, -1), None);
        assert_eq!(LeaderEpochCache::new().end_offset_for(LeaderEpoch(0), Offset(0)), None);
    }

    #[test]
    fn an_idle_epoch_is_kept_until_the_next_starts_at_its_offset() {
        let mut cache = cache(&[(1, 0), (2, 7)]);
        assert_eq!(pairs(&cache), [(1, 0), (2, 7)]);
        assert!(cache.assign(LeaderEpoch(4), Offset(7)));
        assert_eq!(pairs(&cache), [(1, 0), (4, 7)]);
        assert!(!cache.assign(LeaderEpoch(3), Offset(9)));
        assert!(!cache.assign(LeaderEpoch(4), Offset(9)));
    }

    #[test]
    fn truncation_keeps_both_ends_consistent() {
        let mut cache = cache(&[(1, 0), (3, 40), (5, 55)]);
        assert!(cache.truncate_from_end(Offset(55)));
        assert_eq!(pairs(&cache), [(1, 0), (3, 40)]);
        assert!(!cache.truncate_from_end(Offset(41)));
        assert!(cache.truncate_from_start(Offset(20)));
        assert_eq!(pairs(&cache), [(1, 20), (3, 40)]);
        assert!(cache.truncate_from_start(Offset(40)));
        assert_eq!(pairs(&cache), [(3, 40)]);
        assert!(!cache.truncate_from_start(Offset(40)));
        assert!(!cache.truncate_from_start(Offset(10)));
    }

    #[test]
    fn the_epoch_of_an_offset_is_that_of_the_entry_below() {
        let cache = cache(&[(1, 10), (3, 40)]);
        let at = |offset| cache.epoch_at(Offset(offset)).map(|e| e.0);
        assert_eq!([at(9), at(10), at(39), at(40), at(99)], [None, Some(1), Some(1), Some(3), Some(3)]);
    }

    #[test]
    fn stored_entries_must_be_in_order() {
        let entry = |epoch, start| EpochEntry { epoch: LeaderEpoch(epoch), start_offset: Offset(start) };
        assert!(LeaderEpochCache::from_entries(vec![entry(1, 0), entry(2, 5)]).is_ok());
        for bad in [[entry(1, 0), entry(1, 5)], [entry(1, 5), entry(2, 5)]] {
            assert_eq!(LeaderEpochCache::from_entries(bad.to_vec()), Err(EpochOrderError { entry: bad[1] }));
        }
    }
}
