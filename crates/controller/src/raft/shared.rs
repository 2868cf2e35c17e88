//! What the store, its readers and its thread share: the log, and what the state file says.

use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use klamm_log::{FetchIsolation, Log};
use klamm_record::{BatchHeader, HEADER_LEN, RecordBatch};
use klamm_types::{Offset, Timestamp};

use super::entry;
use super::error::LogStoreError;
use super::types::{Entry, LogId};
use super::vote::{QuorumState, StateFile};

/// The time that the log is told. Nothing in a metadata log depends on it: segments roll by size and go when they are
/// purged.
pub(super) const NO_TIME: Timestamp = Timestamp(0);
/// How much one read takes from the log.
const READ_BYTES: usize = 1 << 20;

/// Everything but the ownership of changes, which is the thread's.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) log: Arc<Log>,
    pub(super) state_file: StateFile,
    /// As on the disk, but for `committed`, which may be newer here.
    state: Mutex<QuorumState>,
    /// Held by readers, and exclusively while entries are removed: a read sees the log before a cut or after it.
    pub(super) cut: RwLock<()>,
}

impl Shared {
    pub(super) fn new(log: Arc<Log>, state_file: StateFile, state: QuorumState) -> Self {
        Self { log, state_file, state: Mutex::new(state), cut: RwLock::default() }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, QuorumState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest entry, or the last that was purged if there is none. The caller keeps cuts out.
    pub(super) fn last_log_id(&self) -> Result<Option<LogId>, LogStoreError> {
        let last_purged = self.state().last_purged;
        let (start, end) = (self.log.log_start_offset(), self.log.log_end_offset());
        if end <= start {
            return Ok(last_purged);
        }
        let last = Offset(end.0 - 1);
        let Some(slice) = self.log.read(last, HEADER_LEN, FetchIsolation::LogEnd)?.slice else {
            return Ok(last_purged);
        };
        let bytes = slice.to_vec()?;
        let index = end.0.cast_unsigned() - 1;
        let batch = RecordBatch::parse(&bytes).map_err(|error| invalid(index, error))?;
        Ok(Some(entry::log_id_of(&batch).map_err(|source| LogStoreError::Entry { index, source })?))
    }

    /// The newest entry that is known to be committed, as far as this log still has it: what the file says may be
    /// newer than what a crash has left of entries that were committed by others before they were flushed here.
    pub(super) fn committed(&self) -> Result<Option<LogId>, LogStoreError> {
        let committed = self.state().committed;
        let _cut = self.cut.read().unwrap_or_else(PoisonError::into_inner);
        let end = self.log.log_end_offset().0.cast_unsigned();
        match committed {
            Some(log_id) if log_id.index >= end => self.last_log_id(),
            committed => Ok(committed),
        }
    }

    /// The entries of `bounds` that the log holds: all of them, or, past the first, as many as `bytes_max` allow.
    pub(super) fn entries(
        &self,
        bounds: (Bound<u64>, Bound<u64>),
        bytes_max: usize,
    ) -> Result<Vec<Entry>, LogStoreError> {
        let _cut = self.cut.read().unwrap_or_else(PoisonError::into_inner);
        let (start, end) = self.clamp(bounds);
        let mut entries = Vec::new();
        let (mut next, mut bytes_left) = (start, bytes_max);
        while next < end && (entries.is_empty() || bytes_left > 0) {
            let offset = Offset(next.cast_signed());
            let limit = bytes_left.clamp(1, READ_BYTES);
            if let Some(slice) = self.log.read(offset, limit, FetchIsolation::LogEnd)?.slice {
                let bytes = slice.to_vec()?;
                bytes_left = bytes_left.saturating_sub(bytes.len());
                self.decode_into(&bytes, next..end, &mut entries)?;
            }
            next = match entries.last() {
                Some(last) if last.log_id.index >= next => last.log_id.index + 1,
                // A log from which nothing was purged may start past the range.
                None if self.state().last_purged.is_none() => break,
                _ => return Err(LogStoreError::NotHeld { index: next }),
            };
        }
        Ok(entries)
    }

    /// Appends the entries of `bytes` that lie in `wanted`; the last batch may be cut off.
    fn decode_into(
        &self,
        mut bytes: &[u8],
        wanted: std::ops::Range<u64>,
        entries: &mut Vec<Entry>,
    ) -> Result<(), LogStoreError> {
        let mut next = wanted.start;
        while next < wanted.end && bytes.len() >= HEADER_LEN {
            let size = BatchHeader::parse(bytes).map_err(|error| invalid(next, error))?.size();
            let Some((batch, rest)) = bytes.split_at_checked(size) else { break };
            let batch = RecordBatch::parse(batch).map_err(|error| invalid(next, error))?;
            let entry =
                entry::decode(&batch).map_err(|source| LogStoreError::Entry { index: next, source })?;
            let index = entry.log_id.index;
            if index >= wanted.end {
                break;
            }
            // A log from which nothing was purged may start anywhere.
            let may_start = entries.is_empty() && index > next && self.state().last_purged.is_none();
            if index != next && !may_start {
                return Err(LogStoreError::Hole { index, expected: next });
            }
            entries.push(entry);
            (next, bytes) = (index + 1, rest);
        }
        Ok(())
    }

    /// The part of `bounds` that lies in the log, as start and exclusive end.
    fn clamp(&self, (start, end): (Bound<u64>, Bound<u64>)) -> (u64, u64) {
        let start = match start {
            Bound::Included(start) => start,
            Bound::Excluded(before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match end {
            Bound::Included(last) => last.saturating_add(1),
            Bound::Excluded(end) => end,
            Bound::Unbounded => u64::MAX,
        };
        let log_start = self.log.log_start_offset().0.cast_unsigned();
        let log_end = self.log.log_end_offset().0.cast_unsigned();
        (start.max(log_start), end.min(log_end))
    }
}

fn invalid(index: u64, error: klamm_record::BatchError) -> LogStoreError {
    LogStoreError::Entry { index, source: error.into() }
}
