//! The second pass: where the log ends.

use std::sync::Arc;

use klamm_record::{BatchHeader, HEADER_LEN};
use klamm_types::{EpochEntry, LeaderEpoch, Offset};

use super::epochs::EpochRun;
use super::names::Listing;
use super::{FlushPoint, OpenOptions, RecoveryReport, for_each_batch};
use crate::append::index_batch;
use crate::dir::PartitionDir;
use crate::error::{Describe as _, LogError, ReadError, StorageError};
use crate::fs::{LogFile, read_up_to_at};
use crate::index::{AbortedTxn, TimeEntry};
use crate::log::{ActiveSegment, DamagedRange};
use crate::scan::{BatchScanner, ScanError, Scanned};
use crate::segment::Segment;
use crate::truncate::truncate_indexes;

/// Where in a batch its magic byte is.
const MAGIC_AT: usize = 16;
/// The magic byte of a batch.
const MAGIC: u8 = 2;
/// A search for the next whole batch computes checksums over at most this many times the segment's size.
const SEARCH_FACTOR: u64 = 4;

/// What the pass found.
pub(super) struct Tail {
    /// Never empty.
    pub(super) segments: Vec<Arc<Segment>>,
    pub(super) active: ActiveSegment,
    pub(super) log_end: Offset,
    /// The leader epochs of the batches that were walked, in order.
    pub(super) epochs: Vec<EpochRun>,
    /// Segments whose files may hold bytes that no sync has covered.
    pub(super) touched: Vec<Arc<Segment>>,
}

pub(super) fn pass(
    dir: &Arc<PartitionDir>,
    options: &OpenOptions,
    listing: &Listing,
    report: &mut RecoveryReport,
) -> Result<Tail, LogError> {
    let segments: Vec<_> =
        listing.segments.iter().map(|listed| Segment::load(dir, listed.base_offset, listed.size)).collect();
    let flush_point = options.flush_point.offset();
    // A segment that ends right at the flush point may have been sealed since: its indexes' last entries are younger.
    let floor = segments.partition_point(|segment| segment.base_offset() < flush_point).saturating_sub(1);
    let mut walk = Walk {
        dir,
        options,
        report,
        epochs: Vec::new(),
        touched: Vec::new(),
        expected: segments.first().map_or(options.log_start_offset, |first| first.base_offset()),
        epoch: LeaderEpoch::NONE,
    };
    for (segment, listed) in segments.iter().zip(&listing.segments).take(floor) {
        if !listed.indexed {
            walk.reindex(segment)?;
        }
    }
    let kept = walk.segments_from(&segments, floor)?;
    let mut kept = segments[..kept].to_vec();
    walk.close_gap(&mut kept)?;
    let active_segment = &kept[kept.len() - 1];
    let active = ActiveSegment::load(active_segment, options.now)?;
    active_segment.set_max_timestamp(active.max_timestamp);
    let (log_end, epochs, touched) = (walk.expected, walk.epochs, walk.touched);
    Ok(Tail { segments: kept, active, log_end, epochs, touched })
}

/// The state of the walk through the tail.
struct Walk<'a> {
    dir: &'a Arc<PartitionDir>,
    options: &'a OpenOptions,
    report: &'a mut RecoveryReport,
    epochs: Vec<EpochRun>,
    touched: Vec<Arc<Segment>>,
    /// The offset that the next batch should not be below.
    expected: Offset,
    /// The newest leader epoch seen.
    epoch: LeaderEpoch,
}

/// What is done about damage.
enum Verdict {
    /// Cut here.
    Torn,
    /// Go on at this batch.
    SkipTo(Scanned),
    /// Nothing readable follows, but nothing may be cut.
    Rotten,
}

impl Walk<'_> {
    /// Walks the segments from `floor` on; returns how many segments are kept.
    fn segments_from(&mut self, segments: &[Arc<Segment>], floor: usize) -> Result<usize, LogError> {
        for (i, segment) in segments.iter().enumerate().skip(floor) {
            let base = segment.base_offset();
            if i > floor && base > self.expected && !self.is_flushed(self.expected) {
                // The end of the segment before was lost, so that this one follows nothing.
                self.drop_from(segments, i)?;
                return Ok(i);
            }
            if i > floor && base > self.expected {
                self.note_damage(base);
            }
            let next_base = segments.get(i + 1).map(|next| next.base_offset());
            let goes_on = self.segment(segment, i == floor, next_base)?;
            // What the flush point covers is durable already, but for the indexes of a segment sealed since.
            if !goes_on || next_base.is_some() || self.expected > self.options.flush_point.offset() {
                self.touch(segment)?;
            }
            if !goes_on {
                self.drop_from(segments, i + 1)?;
                return Ok(i + 1);
            }
        }
        Ok(segments.len())
    }

    /// Notes that a segment's files must be synced.
    fn touch(&mut self, segment: &Arc<Segment>) -> Result<(), LogError> {
        if segment.log().open_existing()?.is_some() {
            segment.log().mark_dirty();
        }
        self.touched.push(Arc::clone(segment));
        Ok(())
    }

    /// Walks one segment. Returns whether the log goes on after it.
    fn segment(
        &mut self,
        segment: &Arc<Segment>,
        is_floor: bool,
        next_base: Option<Offset>,
    ) -> Result<bool, LogError> {
        let start = if is_floor { self.prepare_floor(segment)? } else { self.prepare_whole(segment)? };
        let size = segment.size();
        if size == 0 {
            self.expected.advance_to(segment.base_offset());
            return Ok(true);
        }
        let file = segment.open_log()?;
        let mut active = ActiveSegment::after_index(segment, self.options.now)?;
        let mut scanner = BatchScanner::new(file.as_ref(), start, size, BatchScanner::BULK_BUFFER);
        let mut skipped = None;
        loop {
            let position = scanner.position();
            let next = match skipped.take() {
                Some(batch) => Ok(Some(batch)),
                None => self.next_batch(&mut scanner, next_base),
            };
            match next {
                Ok(None) => break,
                Ok(Some(batch)) => {
                    self.report.scanned_bytes += batch.header.size() as u64;
                    self.accept(segment, &mut active, &batch)?;
                }
                Err(ScanError::Io(source)) => {
                    return Err(StorageError { verb: "read", path: segment.log().path(), source }.into());
                }
                Err(ScanError::Damaged { .. }) => {
                    match self.judge(segment, file.as_ref(), position, next_base)? {
                        Verdict::Torn => {
                            self.cut(segment, file.as_ref(), position)?;
                            return Ok(false);
                        }
                        Verdict::SkipTo(batch) => {
                            self.note_damage(batch.header.base_offset());
                            let from = batch.end();
                            scanner = BatchScanner::new(file.as_ref(), from, size, BatchScanner::BULK_BUFFER);
                            skipped = Some(batch);
                        }
                        Verdict::Rotten => {
                            let end = next_base.unwrap_or(self.options.flush_point.offset());
                            self.note_damage(end.max(self.expected.next()));
                            break;
                        }
                    }
                }
            }
        }
        if next_base.is_some() {
            seal_times(segment, &active)?;
        }
        Ok(true)
    }

    /// The next batch, if it is whole, in order and has the right checksum.
    fn next_batch(
        &self,
        scanner: &mut BatchScanner<'_>,
        next_base: Option<Offset>,
    ) -> Result<Option<Scanned>, ScanError> {
        let Some(batch) = scanner.next()? else { return Ok(None) };
        scanner.verify_crc(&batch)?;
        if self.in_order(&batch.header, next_base) {
            return Ok(Some(batch));
        }
        let (position, base_offset) = (batch.position, batch.header.base_offset());
        let reason = klamm_record::BatchError::OffsetRange {
            base_offset,
            last_offset_delta: batch.header.last_offset_delta(),
        };
        Err(ScanError::Damaged { position, reason })
    }

    fn in_order(&self, header: &BatchHeader, next_base: Option<Offset>) -> bool {
        header.base_offset() >= self.expected
            && next_base.is_none_or(|next_base| header.last_offset() < next_base)
            && header.leader_epoch() >= self.epoch
    }

    fn accept(
        &mut self,
        segment: &Segment,
        active: &mut ActiveSegment,
        batch: &Scanned,
    ) -> Result<(), LogError> {
        let header = &batch.header;
        if header.leader_epoch() > self.epoch {
            self.epoch = header.leader_epoch();
            let entry = EpochEntry { epoch: self.epoch, start_offset: header.base_offset() };
            self.epochs.push(EpochRun { entry, end: header.next_offset() });
        }
        self.expected = header.next_offset();
        if let Some(run) = self.epochs.last_mut() {
            run.end = self.expected;
        }
        let interval = u64::from(self.options.config.index_interval_bytes);
        Ok(index_batch(segment, active, header, batch.position, interval)?)
    }

    /// Decides what the damage at `position` is.
    fn judge(
        &mut self,
        segment: &Segment,
        file: &dyn LogFile,
        position: u64,
        next_base: Option<Offset>,
    ) -> Result<Verdict, LogError> {
        let found = self.resynchronise(file, position + 1, segment.size(), next_base);
        let found = found.describe("read", &segment.log().path())?;
        // The bug of cutting the log at any damage: everything after a flipped bit is gone.
        if cfg!(mutant = "B29") {
            return Ok(Verdict::Torn);
        }
        let rotten = match self.options.flush_point {
            FlushPoint::Known(flush_point) => self.expected < flush_point,
            FlushPoint::Lost => found.is_some(),
        };
        Ok(match found {
            Some(batch) if rotten => Verdict::SkipTo(batch),
            None if rotten => Verdict::Rotten,
            found => {
                self.report.batches_after_tear |= found.is_some();
                Verdict::Torn
            }
        })
    }

    /// Looks for the next whole batch, byte by byte.
    fn resynchronise(
        &self,
        file: &dyn LogFile,
        mut position: u64,
        size: u64,
        next_base: Option<Offset>,
    ) -> std::io::Result<Option<Scanned>> {
        let mut budget = SEARCH_FACTOR * size;
        let mut buffer = vec![0; BatchScanner::BULK_BUFFER];
        while position + HEADER_LEN as u64 <= size {
            let read = read_up_to_at(file, &mut buffer, position)?;
            let windows = buffer[..read].windows(HEADER_LEN);
            let candidates = windows.len();
            for (i, window) in windows.enumerate() {
                if window[MAGIC_AT] != MAGIC {
                    continue;
                }
                let Ok(header) = BatchHeader::parse(window) else { continue };
                let at = position + i as u64;
                let fits = at + header.size() as u64 <= size;
                let near = self.expected.distance_to(header.base_offset()) <= u64::from(u32::MAX);
                if !fits || !near || !self.in_order(&header, next_base) {
                    continue;
                }
                // Bytes that look like many overlapping batches must not make this take for ever.
                let Some(left) = budget.checked_sub(header.size() as u64) else { return Ok(None) };
                budget = left;
                let batch = Scanned { position: at, header };
                let mut scanner = BatchScanner::new(file, at, batch.end(), BatchScanner::BULK_BUFFER);
                match scanner.verify_crc(&batch) {
                    Ok(()) => return Ok(Some(batch)),
                    Err(ScanError::Io(error)) => return Err(error),
                    Err(ScanError::Damaged { .. }) => {}
                }
            }
            if candidates == 0 {
                break;
            }
            position += candidates as u64;
        }
        Ok(None)
    }

    fn is_flushed(&self, offset: Offset) -> bool {
        match self.options.flush_point {
            FlushPoint::Known(flush_point) => offset < flush_point,
            FlushPoint::Lost => true,
        }
    }

    /// Notes that `expected..end` is damaged, and goes on at `end`.
    fn note_damage(&mut self, end: Offset) {
        if end > self.expected {
            self.report.damage.push(DamagedRange { start: self.expected, end });
            self.expected = end;
        }
    }

    /// Cuts a torn tail off.
    fn cut(&mut self, segment: &Segment, file: &dyn LogFile, position: u64) -> Result<(), LogError> {
        self.report.truncated_bytes += segment.size() - position;
        file.set_len(position).describe("truncate", &segment.log().path())?;
        segment.publish_size(position);
        Ok(truncate_indexes(segment, position, self.expected)?)
    }

    /// Removes the segments from number `first` on, newest first.
    fn drop_from(&mut self, segments: &[Arc<Segment>], first: usize) -> Result<(), LogError> {
        for segment in segments.iter().skip(first).rev() {
            self.report.truncated_bytes += segment.size();
            self.report.batches_after_tear |= segment.size() > 0;
            segment.remove_files()?;
        }
        if first < segments.len() {
            self.dir.sync()?;
        }
        Ok(())
    }

    /// Sees to it that the log can be appended to: what is missing below the flush point is damage, and after damage
    /// at the very end a new segment starts.
    fn close_gap(&mut self, kept: &mut Vec<Arc<Segment>>) -> Result<(), LogError> {
        let flush_point = self.options.flush_point.offset();
        if kept.is_empty() {
            self.expected.advance_to(flush_point);
        } else {
            self.note_damage(flush_point);
        }
        let ends_in_damage = self.report.damage.last().is_some_and(|range| range.end == self.expected);
        match kept.last() {
            Some(last) if !ends_in_damage || last.base_offset() == self.expected => {}
            Some(_) => kept.push(Segment::create_file(self.dir, self.expected)?),
            // The files of a new log appear with its first append.
            None => kept.push(Segment::create(self.dir, self.expected)),
        }
        Ok(())
    }

    /// Keeps of the flushed segment's indexes what can be relied on, and tells where the walk starts: at the batch
    /// of the last entry kept.
    fn prepare_floor(&mut self, segment: &Segment) -> Result<u64, LogError> {
        let flushed = self.options.flush_point.offset().0.saturating_sub(segment.base_offset().0);
        let entries = segment.offsets.entries()?;
        // The time index is durable below the flush point; what it has past it is made again.
        let times = segment.times.entries()?;
        let durable = times.iter().take_while(|e| i64::from(e.relative_offset) < flushed).count();
        segment.times.truncate(durable as u32)?;
        let usable = |e: &&crate::index::OffsetEntry| {
            i64::from(e.relative_offset) < flushed && u64::from(e.position) < segment.size()
        };
        let mut kept = entries.iter().take_while(usable).count();
        // The last entry is believed if the batch it points to is there.
        while let Some(last) = kept.checked_sub(1) {
            let position = u64::from(entries[last].position);
            let file = segment.open_log()?;
            let mut scanner =
                BatchScanner::new(file.as_ref(), position, segment.size(), BatchScanner::LOOKUP_BUFFER);
            let wanted = segment.base_offset().plus(i64::from(entries[last].relative_offset));
            if let Ok(Some(batch)) = scanner.next()
                && batch.header.last_offset() == wanted
            {
                self.expected = batch.header.base_offset();
                self.epoch = LeaderEpoch::NONE;
                segment.offsets.truncate(kept as u32)?;
                self.keep_txns(segment)?;
                return Ok(position);
            }
            kept = last;
        }
        self.expected = segment.base_offset();
        segment.offsets.reset()?;
        self.keep_txns(segment)?;
        Ok(0)
    }

    /// Keeps the aborted transactions below the flush point whose marker is there; those past it are found again.
    /// What a torn write left in the file may look like an entry.
    fn keep_txns(&mut self, segment: &Segment) -> Result<(), LogError> {
        let flush_point = self.options.flush_point.offset();
        let mut kept = 0;
        for txn in segment.txns.entries()? {
            if txn.last_offset >= flush_point || !has_marker(segment, &txn)? {
                break;
            }
            kept += 1;
        }
        Ok(segment.txns.truncate(kept)?)
    }

    fn prepare_whole(&mut self, segment: &Segment) -> Result<u64, LogError> {
        segment.offsets.reset()?;
        segment.times.reset()?;
        segment.txns.reset()?;
        Ok(0)
    }

    /// Makes the offset and time index of a flushed segment again: their files are missing or cut short.
    fn reindex(&mut self, segment: &Arc<Segment>) -> Result<(), LogError> {
        segment.offsets.reset()?;
        segment.times.reset()?;
        let interval = u64::from(self.options.config.index_interval_bytes);
        let mut active = ActiveSegment::new(self.options.now);
        let mut result = Ok(());
        for_each_batch(segment, 0, |batch, _| {
            let indexed = index_batch(segment, &mut active, &batch.header, batch.position, interval);
            result = std::mem::replace(&mut result, Ok(())).and(indexed);
            Ok(())
        })?;
        result?;
        seal_times(segment, &active)?;
        self.touched.push(Arc::clone(segment));
        self.report.reindexed_segments += 1;
        Ok(())
    }
}

/// Whether the marker that ended a transaction stands where the index says, as far as that can be read.
fn has_marker(segment: &Segment, txn: &AbortedTxn) -> Result<bool, LogError> {
    match segment.locate(txn.last_offset, segment.size()) {
        Ok(Some(batch)) => {
            let header = &batch.header;
            Ok(header.attributes().is_control()
                && header.producer_id() == txn.producer_id
                && header.last_offset() == txn.last_offset)
        }
        Ok(None) => Ok(false),
        Err(ReadError::Storage(error)) => Err(error.into()),
        Err(_) => Ok(true),
    }
}

/// Gives a sealed segment's time index its last entry: the largest timestamp.
fn seal_times(segment: &Segment, active: &ActiveSegment) -> Result<(), LogError> {
    let max = active.max_timestamp;
    segment.set_max_timestamp(max);
    match segment.relative(max.offset) {
        Some(relative_offset) if max.timestamp > active.indexed_timestamp => {
            Ok(segment.times.append(TimeEntry { timestamp: max.timestamp, relative_offset })?)
        }
        _ => Ok(()),
    }
}
