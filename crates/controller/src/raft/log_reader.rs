//! Reading entries and the vote. Readers never wait for a flush, only for entries that are just being removed.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, PoisonError};

use openraft::{OptionalSend, RaftLogReader};

use super::error::LogStoreError;
use super::shared::Shared;
use super::types::{Entry, LogId, TypeConfig, Vote};

/// How many bytes of entries one limited read returns, past the first entry.
const LIMITED_BYTES: usize = 1 << 20;

/// A view of the store for the tasks that replicate and apply. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LogReader {
    shared: Arc<Shared>,
}

impl LogReader {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The newest entry, flushed or not; the last that was purged if the log is empty.
    ///
    /// # Errors
    /// Those of the disk.
    pub(crate) fn last_log_id(&self) -> Result<Option<LogId>, LogStoreError> {
        let _cut = self.shared.cut.read().unwrap_or_else(PoisonError::into_inner);
        self.shared.last_log_id()
    }

    /// The index of the oldest entry that the log still has; that of the next one if it is empty. `None` if it cannot be
    /// told.
    #[must_use]
    pub fn first_index(&self) -> Option<u64> {
        u64::try_from(self.shared.log.log_start_offset().0).ok()
    }
}

impl RaftLogReader<TypeConfig> for LogReader {
    /// All entries of `range` that the log holds, also those that are not flushed yet.
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let bounds = (range.start_bound().cloned(), range.end_bound().cloned());
        Ok(self.shared.entries(bounds, usize::MAX)?)
    }

    /// The vote that was last saved: one that is on the disk.
    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.shared.state().vote)
    }

    /// At least the entry `start`, and about a mebibyte of those that follow it.
    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        let bounds = (Bound::Included(start), Bound::Excluded(end));
        let entries = self.shared.entries(bounds, LIMITED_BYTES)?;
        if start < end && entries.first().is_none_or(|first| first.log_id.index != start) {
            return Err(LogStoreError::NotHeld { index: start }.into());
        }
        Ok(entries)
    }
}
