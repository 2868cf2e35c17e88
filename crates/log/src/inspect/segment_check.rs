//! One segment: its batches, and its indexes beside them.

use std::path::{Path, PathBuf};

use klamm_record::{BatchHeader, EndTxnMarker, RecordBatch};
use klamm_types::{Offset, Timestamp};

use super::finding::{Place, Problem, VerifyReport};
use super::index_check::{OffsetCheck, Ordered, TimeCheck};
use super::log_state::{LogState, Settled};
use super::segment::{Damage, FoundBatch, SegmentFile, SegmentItem};
use super::transactions::{TxnCheck, report_unknown};
use super::{BATCH_BYTES_MAX, records};
use crate::error::StorageError;
use crate::fs::LogFs;

/// A segment to be checked.
#[derive(Clone, Debug)]
pub(super) struct SegmentToCheck {
    /// Its `.log` file.
    pub(super) path: PathBuf,
    pub(super) base_offset: Offset,
    /// The base offset of the segment after it.
    pub(super) next_base: Option<Offset>,
    /// Its index files, as far as they are there: offsets, times, transactions.
    pub(super) indexes: [Option<PathBuf>; 3],
}

/// The checks beside the walk.
struct Indexes {
    offsets: Option<OffsetCheck>,
    times: Option<TimeCheck>,
    txns: Option<TxnCheck>,
}

struct Walk<'a> {
    segment: &'a SegmentToCheck,
    file: &'a SegmentFile,
    state: &'a mut LogState,
    settled: Settled,
    report: &'a mut VerifyReport,
    indexes: Indexes,
    gaps: Gaps,
}

#[derive(Default)]
struct Gaps {
    count: u64,
    missing: u64,
    first: Option<(u64, Offset)>,
}

/// Checks a segment; `state` is the log's at its start, and afterwards at its end.
pub(super) fn check(
    fs: &dyn LogFs,
    segment: &SegmentToCheck,
    state: &mut LogState,
    report: &mut VerifyReport,
) {
    let file = match SegmentFile::open(fs, &segment.path) {
        Ok(file) => file,
        Err(error) => {
            state.transactions.on_damage();
            return report.unreadable(&segment.path, error);
        }
    };
    report.segments += 1;
    report.bytes += file.len();
    if segment.base_offset > state.expected {
        let missing = state.expected.distance_to(segment.base_offset);
        let place = Place::of(&segment.path).offset(state.expected);
        report.note(place, Problem::SegmentGap { missing });
        // Markers may have been among what is missing.
        state.transactions.on_damage();
        state.expected = segment.base_offset;
    }
    let settled = state.settled.within(segment.next_base);
    let indexes = open_indexes(fs, segment, settled, report);
    let mut walk = Walk { segment, file: &file, state, settled, report, indexes, gaps: Gaps::default() };
    if let Err(error) = walk.run() {
        walk.report.unreadable(&segment.path, error);
        walk.lose_sight();
    }
    walk.finish();
}

fn open_indexes(
    fs: &dyn LogFs,
    segment: &SegmentToCheck,
    settled: Settled,
    report: &mut VerifyReport,
) -> Indexes {
    let base_offset = segment.base_offset;
    let [offsets, times, txns] = &segment.indexes;
    let offsets =
        open(fs, offsets.as_deref(), settled, report).map(|entries| OffsetCheck { entries, base_offset });
    let times = open(fs, times.as_deref(), settled, report);
    let max = Timestamp(i64::MIN);
    let times = times.map(|entries| TimeCheck { entries, base_offset, max, blind: false });
    let txns = open(fs, txns.as_deref(), settled, report).map(|entries| TxnCheck { entries });
    Indexes { offsets, times, txns }
}

fn open<E: crate::index::IndexEntry>(
    fs: &dyn LogFs,
    path: Option<&Path>,
    settled: Settled,
    report: &mut VerifyReport,
) -> Option<Ordered<E>> {
    Ordered::open(fs, path?, settled, report)
}

impl Walk<'_> {
    fn run(&mut self) -> Result<(), StorageError> {
        let file = self.file;
        let mut walk = file.walk();
        while let Some(item) = walk.next_item()? {
            match item {
                SegmentItem::Batch(batch) => self.on_batch(&batch)?,
                SegmentItem::Damage(damage) => self.on_damage(&damage),
            }
        }
        Ok(())
    }

    fn on_damage(&mut self, damage: &Damage) {
        let end = damage.resumes_at.unwrap_or(self.file.len());
        let (reason, bytes) = (damage.reason, end - damage.position);
        let place = Place::of(&self.segment.path).at(damage.position).offset(self.state.expected);
        // Whole batches may stand after a torn one: of what was not flushed, anything may survive.
        if self.settled.covers(self.state.expected) {
            self.report.error(place, Problem::NoBatch { reason, bytes });
        } else {
            self.report.note(place, Problem::TornWrite { reason, bytes });
        }
        if let Some(offsets) = &mut self.indexes.offsets {
            offsets.on_damage(end, self.report);
        }
        self.lose_sight();
    }

    /// From here on it is not known what the largest timestamp is, nor where transactions began.
    fn lose_sight(&mut self) {
        if let Some(times) = &mut self.indexes.times {
            times.blind = true;
        }
        self.state.transactions.on_damage();
    }

    fn on_batch(&mut self, batch: &FoundBatch) -> Result<(), StorageError> {
        self.report.batches += 1;
        self.check_order(batch);
        if let Some(offsets) = &mut self.indexes.offsets {
            offsets.on_batch(batch, self.settled.of_unsynced(), self.report);
        }
        if let Some(reason) = batch.crc_error {
            let place = place(self.segment, batch);
            if self.settled.covers(batch.header.base_offset()) {
                self.report.error(place, Problem::Checksum { reason });
            } else {
                let bytes = batch.header.size() as u64;
                self.report.note(place, Problem::TornWrite { reason, bytes });
            }
            self.lose_sight();
            return Ok(());
        }
        self.check_epoch(batch);
        if let Some(times) = &mut self.indexes.times {
            times.on_batch(batch, self.settled.of_unsynced(), self.report);
        }
        let marker = self.check_records(batch)?;
        self.check_transaction(batch, marker);
        Ok(())
    }

    fn check_order(&mut self, batch: &FoundBatch) {
        let header = &batch.header;
        let (first, last) = (header.base_offset(), header.last_offset());
        let expected = self.state.expected;
        let place = place(self.segment, batch);
        if first < self.segment.base_offset || self.segment.next_base.is_some_and(|next| last >= next) {
            self.report.error(place, Problem::OutsideSegment { first, last });
        } else if first < expected {
            self.report.error(place, Problem::OffsetOrder { base_offset: first, expected });
        }
        if first > expected {
            self.gaps.count += 1;
            self.gaps.missing = self.gaps.missing.saturating_add(expected.distance_to(first));
            self.gaps.first.get_or_insert((batch.position, expected));
            self.state.transactions.has_gaps = true;
        }
        self.state.expected.advance_to(header.next_offset());
    }

    fn check_epoch(&mut self, batch: &FoundBatch) {
        let header = &batch.header;
        let (epoch, previous) = (header.leader_epoch(), self.state.epoch);
        if epoch < previous {
            self.report.error(place(self.segment, batch), Problem::EpochOrder { epoch, previous });
        }
        self.state.epoch.advance_to(epoch);
        let Some(epochs) = self.state.epochs.as_ref().filter(|_| epoch.0 >= 0) else { return };
        let disagreeing = |offset: Offset| {
            let checkpoint = epochs.epoch_at(offset);
            // What lies before the first entry was there before the log start moved.
            let is_before = offset < self.state.epochs_from
                && epochs.entries().first().is_some_and(|first| offset < first.start_offset);
            (checkpoint != Some(epoch) && !is_before).then_some((offset, checkpoint))
        };
        let found = disagreeing(header.base_offset()).or_else(|| disagreeing(header.last_offset()));
        let Some((offset, checkpoint)) = found else { return };
        if self.state.disagreement != Some((epoch, checkpoint)) {
            self.state.disagreement = Some((epoch, checkpoint));
            let problem = Problem::EpochDisagrees { batch: epoch, checkpoint };
            let place = place(self.segment, batch).offset(offset);
            self.report.graded(self.settled.covers(offset), place, problem);
        }
    }

    /// Reads the records; returns the end of a transaction, if the batch is one.
    fn check_records(&mut self, batch: &FoundBatch) -> Result<Option<EndTxnMarker>, StorageError> {
        let place = place(self.segment, batch);
        let Some(bytes) = self.file.read(batch)? else {
            self.report.note(place, Problem::RecordsTooLarge { limit: BATCH_BYTES_MAX as u64 });
            return Ok(None);
        };
        let parsed = match RecordBatch::parse(&bytes) {
            Ok(parsed) => parsed,
            Err(reason) => {
                // The file was changed since the header was read.
                self.report.error(place, Problem::Records { reason });
                return Ok(None);
            }
        };
        let seen = records::check(&parsed);
        self.report.records += seen.count;
        match seen.problem {
            Some(problem @ (Problem::MaxTimestamp { .. } | Problem::RecordsTooLarge { .. })) => {
                self.report.note(place, problem);
            }
            Some(problem) => self.report.error(place, problem),
            None => {}
        }
        Ok(seen.marker)
    }

    fn check_transaction(&mut self, batch: &FoundBatch, marker: Option<EndTxnMarker>) {
        let header: &BatchHeader = &batch.header;
        let mut abort = None;
        if let Some(marker) = marker {
            abort = self.state.transactions.on_marker(header, &marker);
        } else if !header.attributes().is_control()
            && let Some(problem) = self.state.transactions.on_data(header)
        {
            self.report.note(place(self.segment, batch), problem);
        }
        let known = match &mut self.indexes.txns {
            Some(txns) => txns.on_batch(batch, abort.as_ref(), self.report),
            None => false,
        };
        if let Some(abort) = abort.filter(|_| !known) {
            report_unknown(&abort, batch, self.settled, Place::of(&self.segment.path), self.report);
        }
    }

    fn finish(&mut self) {
        if let Some((position, offset)) = self.gaps.first {
            let place = Place::of(&self.segment.path).at(position).offset(offset);
            let Gaps { count: gaps, missing, .. } = self.gaps;
            self.report.note(place, Problem::OffsetGaps { gaps, missing });
        }
        let (settled, report) = (self.settled, &mut *self.report);
        if let Some(offsets) = &mut self.indexes.offsets {
            offsets.finish(settled.of_unsynced(), report);
        }
        if let Some(times) = &mut self.indexes.times {
            times.finish(settled.of_unsynced(), report);
        }
        if let Some(txns) = &mut self.indexes.txns {
            txns.finish(settled, report);
        }
    }
}

fn place<'a>(segment: &'a SegmentToCheck, batch: &FoundBatch) -> Place<'a> {
    Place::of(&segment.path).at(batch.position).offset(batch.header.base_offset())
}
