//! The entries of a segment's offset and time index, held against its batches.

use std::path::{Path, PathBuf};

use klamm_types::{Offset, Timestamp};

use super::InspectError;
use super::entries::{Entries, Slot};
use super::finding::{Place, Problem, VerifyReport};
use super::log_state::Settled;
use super::segment::FoundBatch;
use crate::fs::LogFs;
use crate::index::{IndexEntry, OffsetEntry, TimeEntry};

/// The entries of one index, in order; those that are not are reported and passed over.
#[derive(Debug)]
pub(super) struct Ordered<E> {
    pub(super) path: PathBuf,
    entries: Entries<E>,
    /// Whether the file must be in order: the segment has been written out and synced.
    is_settled: bool,
    /// The last entry that was found to be right.
    previous: Option<E>,
}

impl<E: IndexEntry> Ordered<E> {
    /// Opens an index, and reports what its size tells. `None` if it cannot be read.
    pub(super) fn open(
        fs: &dyn LogFs,
        path: &Path,
        settled: Settled,
        report: &mut VerifyReport,
    ) -> Option<Self> {
        let is_settled = settled == Settled::All;
        let entries = match Entries::<E>::open(fs, path) {
            Ok(entries) => entries,
            Err(error) => {
                report.unreadable(path, error);
                return None;
            }
        };
        if entries.surplus() > 0 {
            let problem = Problem::IndexSize { bytes: entries.surplus() };
            report.graded(is_settled, Place::of(path), problem);
        }
        if entries.unused > 0 {
            report.note(Place::of(path), Problem::IndexUnused { entries: entries.unused });
        }
        Some(Self { path: path.to_owned(), entries, is_settled, previous: None })
    }

    /// The next entry that comes after the last right one, and its position.
    pub(super) fn peek(&mut self, report: &mut VerifyReport) -> Option<(u64, E)> {
        while let Some(Slot { position, entry }) = self.entries.peek() {
            let problem = match entry {
                Some(entry) if self.previous.is_none_or(|previous| entry.follows(&previous)) => {
                    return Some((position, entry));
                }
                Some(_) => Problem::IndexOrder,
                None => Problem::IndexEntryInvalid,
            };
            report.graded(self.is_settled, Place::of(&self.path).at(position), problem);
            self.advance(report);
        }
        None
    }

    /// Passes over an entry that is right.
    pub(super) fn accept(&mut self, entry: E, report: &mut VerifyReport) {
        self.previous = Some(entry);
        self.advance(report);
    }

    /// Passes over an entry that is wrong, or cannot be judged.
    pub(super) fn advance(&mut self, report: &mut VerifyReport) {
        if let Err(error) = self.entries.advance() {
            report.unreadable(&self.path, InspectError::from(error));
        }
    }
}

/// The absolute form of a relative offset; damage may lead it anywhere.
fn absolute(base_offset: Offset, relative: u32) -> Offset {
    Offset(base_offset.0.saturating_add(i64::from(relative)))
}

/// Checks that each entry of the offset index names the last offset of a batch and its position.
#[derive(Debug)]
pub(super) struct OffsetCheck {
    pub(super) entries: Ordered<OffsetEntry>,
    pub(super) base_offset: Offset,
}

impl OffsetCheck {
    /// A batch stands here.
    pub(super) fn on_batch(&mut self, batch: &FoundBatch, settled: Settled, report: &mut VerifyReport) {
        while let Some((position, entry)) = self.entries.peek(report) {
            let target = u64::from(entry.position);
            if target > batch.position {
                break;
            }
            let offset = absolute(self.base_offset, entry.relative_offset);
            let found = batch.header.last_offset();
            if target == batch.position && offset == found {
                self.entries.accept(entry, report);
                continue;
            }
            let problem = if target < batch.position {
                Problem::OffsetEntryNoBatch { target }
            } else {
                Problem::OffsetEntryWrong { target, found }
            };
            let place = Place::of(&self.entries.path).at(position).offset(offset);
            report.graded(settled.covers(offset), place, problem);
            self.entries.advance(report);
        }
    }

    /// No batch stands up to here, because of damage: entries that point there cannot be judged.
    pub(super) fn on_damage(&mut self, end: u64, report: &mut VerifyReport) {
        while let Some((_, entry)) = self.entries.peek(report) {
            if u64::from(entry.position) >= end {
                break;
            }
            self.entries.advance(report);
        }
    }

    /// The segment ends here.
    pub(super) fn finish(&mut self, settled: Settled, report: &mut VerifyReport) {
        while let Some((position, entry)) = self.entries.peek(report) {
            let offset = absolute(self.base_offset, entry.relative_offset);
            let place = Place::of(&self.entries.path).at(position).offset(offset);
            let problem = Problem::OffsetEntryNoBatch { target: u64::from(entry.position) };
            report.graded(settled.covers(offset), place, problem);
            self.entries.advance(report);
        }
    }
}

/// Checks that each entry of the time index has the largest timestamp of the batches up to its offset.
#[derive(Debug)]
pub(super) struct TimeCheck {
    pub(super) entries: Ordered<TimeEntry>,
    pub(super) base_offset: Offset,
    /// The largest timestamp of the batches so far.
    pub(super) max: Timestamp,
    /// Damage hides batches, so that the largest timestamp is not known any more.
    pub(super) blind: bool,
}

impl TimeCheck {
    /// A batch stands here.
    pub(super) fn on_batch(&mut self, batch: &FoundBatch, settled: Settled, report: &mut VerifyReport) {
        let header = &batch.header;
        let before = self.max;
        self.max = before.max(header.max_timestamp());
        while let Some((position, entry)) = self.entries.peek(report) {
            let offset = absolute(self.base_offset, entry.relative_offset);
            if offset > header.last_offset() {
                break;
            }
            // An offset within the batch may stand for it, or for what lies before it.
            let right = if offset < header.base_offset() {
                entry.timestamp == before
            } else if offset == header.last_offset() {
                entry.timestamp == self.max
            } else {
                entry.timestamp == before || entry.timestamp == self.max
            };
            if right || self.blind {
                self.entries.accept(entry, report);
                continue;
            }
            let found = if offset < header.base_offset() { before } else { self.max };
            let place = Place::of(&self.entries.path).at(position).offset(offset);
            let problem = Problem::TimeEntryWrong { entry: entry.timestamp, found };
            report.graded(settled.covers(offset), place, problem);
            self.entries.advance(report);
        }
    }

    /// The segment ends here.
    pub(super) fn finish(&mut self, settled: Settled, report: &mut VerifyReport) {
        while let Some((position, entry)) = self.entries.peek(report) {
            let offset = absolute(self.base_offset, entry.relative_offset);
            let place = Place::of(&self.entries.path).at(position).offset(offset);
            if !self.blind {
                report.graded(settled.covers(offset), place, Problem::TimeEntryPastEnd);
            }
            self.entries.advance(report);
        }
    }
}
