//! The third pass: which leader wrote which part.
//!
//! The file may be behind the batches (it is written by the flush that makes them durable), ahead of them (they were
//! lost), or beside them (a truncation took back what it says, and other epochs followed). Batches decide; what the
//! file adds are epochs that wrote nothing.

use klamm_types::{EpochEntry, LeaderEpochCache, Offset};

use super::tail::Tail;
use crate::checkpoint::{LEADER_EPOCH_FILE, read_epochs};
use crate::dir::PartitionDir;
use crate::error::{Describe as _, LogError};
use crate::log::floor_segment;
use crate::scan::{BatchScanner, Scanned, Sound};

/// An epoch of batches that follow each other.
#[derive(Clone, Copy, Debug)]
pub(super) struct EpochRun {
    pub(super) entry: EpochEntry,
    /// The end of its last batch, exclusive.
    pub(super) end: Offset,
}

/// Reads the leader epochs and makes them agree with the log. Tells whether the file must be written.
pub(super) fn pass(
    dir: &PartitionDir,
    tail: &Tail,
    log_start: Offset,
) -> Result<(LeaderEpochCache, bool), LogError> {
    let stored = stored(dir)?;
    let entries = stored.as_ref().map_or(&[][..], LeaderEpochCache::entries);
    let credible: Vec<_> = entries.iter().copied().filter(|entry| is_credible(entry, tail)).collect();
    // Batches below what was walked are looked at only if the file says nothing about them.
    let known_from = credible.first().map_or(tail.log_end, |entry| entry.start_offset);
    let unknown =
        if known_from > log_start { unknown_below(tail, known_from, log_start)? } else { Vec::new() };
    let runs = tail.epochs.iter().map(|run| run.entry);
    let mut all: Vec<_> = unknown.into_iter().chain(credible).chain(runs).collect();
    // The earliest start of an epoch first: later ones of the same epoch change nothing.
    all.sort_by_key(|entry| (entry.epoch, entry.start_offset));
    let mut epochs = LeaderEpochCache::new();
    for EpochEntry { epoch, start_offset } in all {
        epochs.assign(epoch, start_offset);
    }
    epochs.truncate_from_start(log_start);
    let changed = stored.as_ref() != Some(&epochs);
    Ok((epochs, changed))
}

/// The leader epochs as they are stored; `None` if the file does not tell.
pub(super) fn stored(dir: &PartitionDir) -> Result<Option<LeaderEpochCache>, LogError> {
    match read_epochs(dir.fs(), &dir.file(LEADER_EPOCH_FILE)) {
        Ok(stored) => Ok(Some(stored)),
        Err(LogError::Damaged { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether the log can have had this epoch from there on: no batch past its start is of an older one.
fn is_credible(entry: &EpochEntry, tail: &Tail) -> bool {
    let contradicts = |run: &EpochRun| run.entry.epoch < entry.epoch && run.end > entry.start_offset;
    entry.start_offset <= tail.log_end && !tail.epochs.iter().any(contradicts)
}

/// The epochs of the batches in `log_start..end`, by reading their headers.
fn unknown_below(tail: &Tail, end: Offset, log_start: Offset) -> Result<Vec<EpochEntry>, LogError> {
    let mut found = LeaderEpochCache::new();
    let segments = &tail.segments;
    for segment in &segments[floor_segment(segments, log_start)..] {
        if segment.base_offset() >= end || segment.size() == 0 {
            continue;
        }
        let file = segment.open_log()?;
        let mut batches = segment.batches(file.as_ref(), 0, BatchScanner::LOOKUP_BUFFER);
        while let Some(next) = batches.next().describe("read", &segment.log().path())? {
            // Damage is for the tail's pass to report, or for a reader.
            let Sound::Batch(Scanned { header, .. }) = next else { continue };
            if header.base_offset() >= end {
                break;
            }
            if header.next_offset() > log_start {
                found.assign(header.leader_epoch(), header.base_offset());
            }
        }
    }
    Ok(found.entries().to_vec())
}
