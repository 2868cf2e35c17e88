//! Which transactions are open at one place of a log, and what the transaction indexes say of those that were aborted.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use klamm_record::{BatchHeader, EndTxnMarker, TransactionResult};
use klamm_types::{Offset, ProducerId};

use super::finding::{Place, Problem, VerifyReport};
use super::index_check::Ordered;
use super::log_state::Settled;
use super::segment::FoundBatch;
use crate::index::AbortedTxn;

/// The transactions that are open at one place of the walk.
#[derive(Debug)]
pub(super) struct Transactions {
    /// The first offset that each wrote, as far as it is in the log.
    open: BTreeMap<ProducerId, Offset>,
    /// The same offsets, in order.
    starts: BTreeSet<Offset>,
    /// Where the log begins: what lies before it is not known.
    log_first: Offset,
    /// Compaction may have removed the first batches of transactions.
    pub(super) has_gaps: bool,
    /// Damage hides batches, so that nothing certain is known any more of where transactions began.
    blind: bool,
    is_full: bool,
}

/// A transaction that a marker aborts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Abort {
    producer_id: ProducerId,
    /// Where it began; `None` if that is not known.
    first_offset: Option<Offset>,
    /// The first offset that is still open, as far as it is in the log, or the one after the marker.
    last_stable_offset: Offset,
    /// Whether `first_offset` may be later than the first batch that it wrote.
    may_begin_before: bool,
    log_first: Offset,
}

impl Transactions {
    /// As many are followed at once: each takes some 40 bytes.
    const OPEN_MAX: usize = 1_000_000;

    pub(super) fn new(log_first: Offset) -> Self {
        Self {
            open: BTreeMap::new(),
            starts: BTreeSet::new(),
            log_first,
            has_gaps: false,
            blind: false,
            is_full: false,
        }
    }

    /// Batches are missing here, or could not be read.
    pub(super) fn on_damage(&mut self) {
        self.open.clear();
        self.starts.clear();
        self.blind = true;
    }

    /// Takes note of a batch of data. Tells of a problem once: if there are too many to follow.
    pub(super) fn on_data(&mut self, header: &BatchHeader) -> Option<Problem> {
        if !header.attributes().is_transactional() || !header.has_producer_id() {
            return None;
        }
        if self.open.len() >= Self::OPEN_MAX && !self.open.contains_key(&header.producer_id()) {
            let first = !self.is_full;
            self.is_full = true;
            self.blind = true;
            return first.then_some(Problem::TooManyTransactions { limit: Self::OPEN_MAX });
        }
        if let Entry::Vacant(vacant) = self.open.entry(header.producer_id()) {
            vacant.insert(header.base_offset());
            self.starts.insert(header.base_offset());
        }
        None
    }

    /// Takes note of a marker. Returns the transaction if it aborts one.
    pub(super) fn on_marker(&mut self, header: &BatchHeader, marker: &EndTxnMarker) -> Option<Abort> {
        let producer_id = header.producer_id();
        let first_offset = self.open.remove(&producer_id);
        if let Some(first_offset) = first_offset {
            self.starts.remove(&first_offset);
        }
        let last_stable_offset = self.starts.first().copied().unwrap_or(header.next_offset());
        (marker.result == TransactionResult::Abort).then_some(Abort {
            producer_id,
            first_offset,
            last_stable_offset,
            may_begin_before: self.has_gaps || self.blind,
            log_first: self.log_first,
        })
    }
}

impl Abort {
    /// What `entry` says that cannot be.
    fn contradiction(&self, entry: &AbortedTxn) -> Option<Problem> {
        if let Some(found) = self.first_offset.filter(|found| self.cannot_be(entry.first_offset, *found)) {
            return Some(Problem::AbortStartWrong { entry: entry.first_offset, found });
        }
        let found = self.last_stable_offset;
        let wrong = self.cannot_be(entry.last_stable_offset, found);
        wrong.then_some(Problem::AbortStableOffsetWrong { entry: entry.last_stable_offset, found })
    }

    /// Whether an entry cannot have an offset, where `found` is in the log. It may be earlier if what was there is not
    /// in the log any more.
    fn cannot_be(&self, offset: Offset, found: Offset) -> bool {
        offset > found || (offset < found && offset >= self.log_first && !self.may_begin_before)
    }
}

/// Checks the entries of one transaction index against the markers of its segment.
#[derive(Debug)]
pub(super) struct TxnCheck {
    pub(super) entries: Ordered<AbortedTxn>,
}

impl TxnCheck {
    /// A batch stands here; `abort` is the transaction that it aborts. Tells whether the index knows of it.
    pub(super) fn on_batch(
        &mut self,
        batch: &FoundBatch,
        abort: Option<&Abort>,
        report: &mut VerifyReport,
    ) -> bool {
        let header = &batch.header;
        let mut known = false;
        while let Some((position, entry)) = self.entries.peek(report) {
            if entry.last_offset > header.last_offset() {
                break;
            }
            let path = self.entries.path.clone();
            let place = Place::of(&path).at(position).offset(entry.last_offset);
            match abort {
                _ if entry.last_offset < header.base_offset() => {
                    report.note(place, Problem::AbortMarkerGone);
                }
                Some(abort) if abort.producer_id == entry.producer_id => {
                    known = true;
                    if let Some(problem) = abort.contradiction(&entry) {
                        report.error(place, problem);
                    }
                }
                _ => report.error(place, Problem::AbortWithoutMarker { producer_id: entry.producer_id }),
            }
            self.entries.accept(entry, report);
        }
        known
    }

    /// The segment ends here.
    pub(super) fn finish(&mut self, settled: Settled, report: &mut VerifyReport) {
        while let Some((position, entry)) = self.entries.peek(report) {
            let path = self.entries.path.clone();
            let place = Place::of(&path).at(position).offset(entry.last_offset);
            let problem = Problem::AbortWithoutMarker { producer_id: entry.producer_id };
            report.graded(settled.covers(entry.last_offset), place, problem);
            self.entries.accept(entry, report);
        }
    }
}

/// Reports a transaction that was aborted at `batch` and that no index has, if its data are in the log: otherwise
/// there is nothing to skip.
pub(super) fn report_unknown(
    abort: &Abort,
    batch: &FoundBatch,
    settled: Settled,
    place: Place<'_>,
    report: &mut VerifyReport,
) {
    if abort.first_offset.is_some() {
        let problem = Problem::AbortNotIndexed { producer_id: abort.producer_id };
        let offset = batch.header.last_offset();
        report.graded(settled.covers(offset), place.at(batch.position).offset(offset), problem);
    }
}
