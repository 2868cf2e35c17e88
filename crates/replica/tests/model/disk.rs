//! A log of one record per offset.

use klamm_replica::LogPosition;
use klamm_types::{EpochEntry, LeaderEpoch, LeaderEpochCache, Offset};

/// One record.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Entry {
    pub(crate) epoch: LeaderEpoch,
    pub(crate) value: u32,
}

/// The records of one replica, written or on disk.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Log {
    pub(crate) start: usize,
    pub(crate) entries: Vec<Entry>,
}

impl Log {
    pub(crate) fn end(&self) -> usize {
        self.start + self.entries.len()
    }

    pub(crate) fn get(&self, offset: usize) -> Option<Entry> {
        self.entries.get(offset.checked_sub(self.start)?).copied()
    }

    pub(crate) fn truncate(&mut self, end: usize) {
        self.entries.truncate(end - self.start);
    }

    pub(crate) fn restart(&mut self, start: usize) {
        *self = Self { start, entries: Vec::new() };
    }

    pub(crate) fn advance_start(&mut self, start: usize) {
        if start > self.start {
            self.entries.drain(..start - self.start);
            self.start = start;
        }
    }

    /// The epochs of these records: each with the first offset at which it appears from `from` on.
    pub(crate) fn epoch_starts(&self, from: usize, end: usize) -> Vec<EpochEntry> {
        let mut starts: Vec<EpochEntry> = Vec::new();
        for offset in from..end {
            let epoch = self.get(offset).expect("read within the log").epoch;
            if starts.last().is_none_or(|last| last.epoch != epoch) {
                starts.push(EpochEntry { epoch, start_offset: Offset(offset as i64) });
            }
        }
        starts
    }

    /// What recovery finds.
    pub(crate) fn position(&self, high_watermark: i64) -> LogPosition {
        let epochs = LeaderEpochCache::from_entries(self.epoch_starts(self.start, self.end()))
            .expect("INV10: epochs of a log grow");
        let (start, end) = (Offset(self.start as i64), Offset(self.end() as i64));
        LogPosition::recovered(start, Offset(high_watermark), end, epochs).expect("a recovered log is sound")
    }
}
