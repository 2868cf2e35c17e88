//! The second pass: where the log ends.

use std::io;
use std::sync::Arc;

use klamm_record::HEADER_LEN;
use klamm_types::{EpochEntry, LeaderEpoch, LeaderEpochCache, Offset};

use super::epochs::{EpochRun, stored};
use super::names::Listing;
use super::{FlushPoint, OpenOptions, RecoveryReport, for_each_batch};
use crate::append::index_batch;
use crate::dir::PartitionDir;
use crate::error::{Describe as _, LogError};
use crate::fs::{LogFile, read_exact_at};
use crate::index::{AbortedTxn, TimeEntry};
use crate::log::{ActiveSegment, DamagedRange, floor_segment};
use crate::scan::{BatchScanner, Fit, Promise, Scanned, Sound, SoundScanner};
use crate::segment::{Place, Segment, is_out_of_reach};
use crate::truncate::truncate_indexes;

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
    /// The base of the segment whose aborted transactions have to be found again, also those below the flush point.
    pub(super) txns_lost_from: Option<Offset>,
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
    let stored_epochs = stored(dir)?;
    let mut walk = Walk {
        dir,
        segments: &segments,
        options,
        report,
        epochs: Vec::new(),
        touched: Vec::new(),
        txns_lost_from: None,
        expected: segments.first().map_or(options.log_start_offset, |first| first.base_offset()),
        epoch: LeaderEpoch::NONE,
        stored_epochs: stored_epochs.as_ref(),
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
    let Walk { expected: log_end, epochs, touched, txns_lost_from, .. } = walk;
    Ok(Tail { segments: kept, active, log_end, epochs, touched, txns_lost_from })
}

/// Disks write and lose no less than this at a time.
const SECTOR: u64 = 512;
/// So much of a batch is not all zeros: its checksum is in it.
const NOT_ZERO_LEN: u64 = 21;

/// Whether a batch that was flushed may have stood at `position`, where none is whole.
///
/// A flush covers a file's length and all bytes below it. A file that ends within the header had no batch flushed there. Zeros
/// in the sector in which the batch before ends are what a file system shows of a write that it had counted in the length
/// only; rot does not turn a checksum into zeros, and a sector that is lost takes the batch before along.
fn may_have_been_flushed(file: &dyn LogFile, position: u64, size: u64) -> io::Result<bool> {
    if size - position < HEADER_LEN as u64 {
        return Ok(false);
    }
    let in_sector = position % SECTOR;
    let rest = SECTOR - in_sector;
    if in_sector == 0 || rest < NOT_ZERO_LEN {
        return Ok(true);
    }
    let mut bytes = vec![0; rest.min(size - position) as usize];
    read_exact_at(file, &mut bytes, position)?;
    Ok(bytes.iter().any(|byte| *byte != 0))
}

/// The state of the walk through the tail.
struct Walk<'a> {
    dir: &'a Arc<PartitionDir>,
    segments: &'a [Arc<Segment>],
    options: &'a OpenOptions,
    report: &'a mut RecoveryReport,
    epochs: Vec<EpochRun>,
    touched: Vec<Arc<Segment>>,
    txns_lost_from: Option<Offset>,
    /// The offset that the next batch should not be below.
    expected: Offset,
    /// The newest leader epoch seen.
    epoch: LeaderEpoch,
    /// The leader epochs that the log's file has, if it can be read.
    stored_epochs: Option<&'a LeaderEpochCache>,
}

impl Walk<'_> {
    /// Walks the segments from `floor` on; returns how many segments are kept.
    fn segments_from(&mut self, segments: &[Arc<Segment>], floor: usize) -> Result<usize, LogError> {
        for (i, segment) in segments.iter().enumerate().skip(floor) {
            let base = segment.base_offset();
            if i > floor && is_out_of_reach(segments[i - 1].base_offset(), base) {
                self.cross_gap(base);
            }
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

    /// Goes on at `base`, to which the segment before cannot reach: nothing was lost in between, as such a segment is
    /// started only once everything before it is durable. What is missing below the flush point is damage even so.
    fn cross_gap(&mut self, base: Offset) {
        if let FlushPoint::Known(flush_point) = self.options.flush_point {
            self.note_damage(flush_point.min(base));
        }
        self.expected.advance_to(base);
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
        let fit = Fit { expected: self.expected, epoch: self.epoch, end: next_base };
        let promise = match self.options.flush_point {
            FlushPoint::Known(flush_point) => Promise::Below(flush_point),
            FlushPoint::Lost => Promise::IfFollowed,
        };
        let mut batches = SoundScanner::new(file.as_ref(), start..size, fit, BatchScanner::BULK_BUFFER)
            .promised(promise, self.stored_epochs);
        let mut is_damaged = false;
        while let Some(next) = batches.next().describe("read", &segment.log().path())? {
            match next {
                Sound::Batch(batch) => {
                    if std::mem::take(&mut is_damaged) {
                        self.note_damage(batch.header.base_offset());
                    }
                    self.report.scanned_bytes += batch.header.size() as u64;
                    self.accept(segment, &mut active, &batch)?;
                }
                Sound::Damage { .. } => is_damaged = true,
                Sound::Torn { position, followed } => {
                    self.report.batches_after_tear |= followed;
                    self.report.cut_may_have_been_flushed |= followed;
                    self.cut(segment, file.as_ref(), position)?;
                    return Ok(false);
                }
            }
        }
        if is_damaged {
            let end = next_base.unwrap_or(self.options.flush_point.offset());
            self.note_damage(end.max(self.expected.checked_plus(1).unwrap_or(self.expected)));
        }
        if next_base.is_some() {
            seal_times(segment, &active)?;
        }
        Ok(true)
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
        let was_flushed = may_have_been_flushed(file, position, segment.size());
        self.report.cut_may_have_been_flushed |= was_flushed.describe("read", &segment.log().path())?;
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
            self.report.cut_may_have_been_flushed |= segment.size() > 0;
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
    fn prepare_floor(&mut self, segment: &Arc<Segment>) -> Result<u64, LogError> {
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

    /// Keeps the aborted transactions below the flush point whose batches are there; those past it are found again.
    /// What a torn write left in the file may look like an entry. If one below the flush point may be lost, all are
    /// to be found again.
    fn keep_txns(&mut self, segment: &Arc<Segment>) -> Result<(), LogError> {
        let flush_point = self.options.flush_point.offset();
        let entries = segment.txns.entries()?;
        let mut kept = 0;
        for txn in &entries {
            if txn.last_offset >= flush_point || !self.is_in_log(segment, txn)? {
                break;
            }
            kept += 1;
        }
        // The first one past the flush point tells that there are none below it, if it can be believed.
        let is_past = match entries.get(kept) {
            Some(txn) => txn.last_offset >= flush_point && self.is_in_log(segment, txn)?,
            None => false,
        };
        if segment.txns.len()? as usize > kept && !is_past {
            kept = 0;
            self.txns_lost_from = Some(segment.base_offset());
            self.touched.push(Arc::clone(segment));
        }
        Ok(segment.txns.truncate(kept as u32)?)
    }

    /// Whether a transaction's marker and its first batch stand where the index says, as far as that can be read.
    fn is_in_log(&self, segment: &Segment, txn: &AbortedTxn) -> Result<bool, LogError> {
        let marker = match segment.seek(txn.last_offset, segment.size())? {
            Place::Batch(Scanned { header, .. }) => {
                header.attributes().is_control()
                    && header.producer_id() == txn.producer_id
                    && header.last_offset() == txn.last_offset
            }
            Place::Damage { .. } => true,
            Place::End => false,
        };
        let is_old = self.segments.first().is_some_and(|first| txn.first_offset < first.base_offset());
        if !marker || is_old {
            return Ok(marker);
        }
        let first = &self.segments[floor_segment(self.segments, txn.first_offset)];
        Ok(match first.seek(txn.first_offset, first.size())? {
            Place::Batch(Scanned { header, .. }) => {
                header.attributes().is_transactional()
                    && !header.attributes().is_control()
                    && header.producer_id() == txn.producer_id
                    && header.base_offset() == txn.first_offset
            }
            Place::Damage { .. } => true,
            Place::End => false,
        })
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
