//! Which transactions are open at one place of a log, and what the transaction indexes say of those that were aborted.

use std::collections::BTreeMap;

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
    /// Whether `first_offset` may be later than the first batch that it wrote.
    may_begin_before: bool,
    log_first: Offset,
}

impl Transactions {
    /// As many are followed at once: each takes some 40 bytes.
    const OPEN_MAX: usize = 1_000_000;

    pub(super) fn new(log_first: Offset) -> Self {
        Self { open: BTreeMap::new(), log_first, has_gaps: false, blind: false, is_full: false }
    }

    /// Batches could not be read here.
    pub(super) fn on_damage(&mut self) {
        self.open.clear();
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
        self.open.entry(header.producer_id()).or_insert(header.base_offset());
        None
    }

    /// Takes note of a marker. Returns the transaction if it aborts one.
    pub(super) fn on_marker(&mut self, header: &BatchHeader, marker: &EndTxnMarker) -> Option<Abort> {
        let producer_id = header.producer_id();
        let first_offset = self.open.remove(&producer_id);
        (marker.result == TransactionResult::Abort).then_some(Abort {
            producer_id,
            first_offset,
            may_begin_before: self.has_gaps || self.blind,
            log_first: self.log_first,
        })
    }
}

impl Abort {
    /// Where the transaction began, if `entry` says something that cannot be.
    fn contradicts(&self, entry: &AbortedTxn) -> Option<Offset> {
        let found = self.first_offset?;
        let too_late = entry.first_offset > found;
        let too_early =
            entry.first_offset < found && entry.first_offset >= self.log_first && !self.may_begin_before;
        (too_late || too_early).then_some(found)
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
                    if let Some(found) = abort.contradicts(&entry) {
                        let problem = Problem::AbortStartWrong { entry: entry.first_offset, found };
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
