//! Reading by offset. No reader ever takes the writer's lock.

use std::sync::{Arc, PoisonError};

use klamm_types::{Offset, Timestamp};

use crate::error::{Describe as _, ReadError};
use crate::fs::{LogFile, read_up_to_at};
use crate::index::AbortedTxn;
use crate::log::{Log, floor_segment};
use crate::segment::Segment;

/// How far a read may see.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FetchIsolation {
    /// To the log end: for replicas.
    LogEnd,
    /// To the high watermark: for consumers under `read_uncommitted`.
    HighWatermark,
    /// To the last stable offset: for consumers under `read_committed`.
    LastStable,
}

/// Positions that bound reads, remembered because many readers share one bound.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct BoundPositions {
    /// Counts the times that positions were forgotten: one looked up before that is not remembered after it.
    generation: u64,
    /// That of the log end, which the writer knows without looking.
    log_end: Option<BoundPosition>,
    /// The one that was last looked up: a high watermark behind the log end, as a rule.
    looked_up: Option<BoundPosition>,
}

/// Where in a segment the first batch at or past an offset starts.
#[derive(Clone, Copy, Debug)]
struct BoundPosition {
    bound: Offset,
    segment_base: Offset,
    position: u64,
}

/// Whole batches as they lie in a segment's file. The last may be cut off, when it would pass the limit of the read
/// and is not the first.
#[derive(Clone, Debug)]
pub struct LogSlice {
    file: Arc<dyn LogFile>,
    segment: Arc<Segment>,
    position: u64,
    len: usize,
}

impl LogSlice {
    /// The open file; it stays readable whatever becomes of the segment.
    #[must_use]
    pub fn file(&self) -> &Arc<dyn LogFile> {
        &self.file
    }

    /// Where the bytes start in the file.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// How many bytes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Reads the bytes into `buffer`, replacing what it holds. Fewer bytes than [`len`](Self::len) come only if the
    /// log has been truncated since.
    ///
    /// # Errors
    /// The disk's errors.
    pub fn read_into(&self, buffer: &mut Vec<u8>) -> Result<(), ReadError> {
        buffer.resize(self.len, 0);
        let read = read_up_to_at(self.file.as_ref(), buffer, self.position);
        buffer.truncate(read.describe("read", &self.segment.log().path())?);
        Ok(())
    }

    /// The bytes, in a buffer of their own.
    ///
    /// # Errors
    /// As [`read_into`](Self::read_into).
    pub fn to_vec(&self) -> Result<Vec<u8>, ReadError> {
        let mut buffer = Vec::new();
        self.read_into(&mut buffer)?;
        Ok(buffer)
    }
}

/// What a read found.
#[derive(Clone, Debug)]
pub struct ReadOutcome {
    /// The batches from the one that holds the offset asked for; `None` if there is nothing yet to see.
    pub slice: Option<LogSlice>,
    /// The log start at the time of the read.
    pub log_start_offset: Offset,
    /// The high watermark at the time of the read.
    pub high_watermark: Offset,
    /// The last stable offset at the time of the read.
    pub last_stable_offset: Offset,
    /// The log end at the time of the read.
    pub log_end_offset: Offset,
    /// Under [`FetchIsolation::LastStable`]: the aborted transactions that the slice may have records of, by their
    /// first offset. Readers skip those records.
    pub aborted: Vec<AbortedTxn>,
}

impl Log {
    /// Reads from the batch that holds `offset` on: at least one whole batch if there is one to see, whatever its
    /// size, and otherwise at most `bytes_max` bytes, from one segment.
    ///
    /// The answer's bounds are those of one moment; nothing past them is in the slice.
    ///
    /// # Errors
    /// [`ReadError::OutOfRange`] outside of the log; [`ReadError::Damaged`] and [`ReadError::Corrupt`] where the bytes
    /// are not what was written; the disk's errors.
    pub fn read(
        &self,
        offset: Offset,
        bytes_max: usize,
        isolation: FetchIsolation,
    ) -> Result<ReadOutcome, ReadError> {
        self.dir.log_dir.check()?;
        // The bounds first, once (KAFKA-9807): segments only grow after that, so that what they bound is there.
        let log_end_offset = self.log_end_offset();
        let high_watermark = self.high_watermark().min(log_end_offset);
        let last_stable_offset = self.last_stable_offset().min(high_watermark);
        let log_start_offset = self.log_start_offset();
        let bound = match isolation {
            FetchIsolation::LogEnd => log_end_offset,
            FetchIsolation::HighWatermark => high_watermark,
            FetchIsolation::LastStable => last_stable_offset,
        };
        if offset < log_start_offset || offset > log_end_offset {
            return Err(ReadError::OutOfRange { offset, log_start_offset, log_end_offset });
        }
        self.check_damage(offset)?;
        // One list of segments for the records and for what is said about them: retention may come between.
        let segments = self.segments();
        let generation = self.bound_generation();
        let slice = match self.slice(&segments, offset, bytes_max, bound) {
            // A truncation came between: what looked corrupt was being cut.
            Err(ReadError::Corrupt { .. }) if self.bound_generation() != generation => {
                return self.read(offset, bytes_max, isolation);
            }
            slice => slice?,
        };
        let aborted = match (&slice, isolation) {
            (Some(slice), FetchIsolation::LastStable) => {
                let end = slice_end(&segments, slice, bound)?;
                aborted_in(&segments, offset, end)?
            }
            _ => Vec::new(),
        };
        // The bug of looking at the log twice for one answer (KAFKA-9807).
        let last_stable_offset =
            if cfg!(mutant = "B21") { self.last_stable_offset() } else { last_stable_offset };
        Ok(ReadOutcome {
            slice,
            log_start_offset,
            high_watermark,
            last_stable_offset,
            log_end_offset,
            aborted,
        })
    }

    fn slice(
        &self,
        segments: &[Arc<Segment>],
        offset: Offset,
        bytes_max: usize,
        bound: Offset,
    ) -> Result<Option<LogSlice>, ReadError> {
        if offset >= bound {
            return Ok(None);
        }
        // The records of a segment may have been removed (compaction): then the next one has the answer.
        for (i, segment) in segments.iter().enumerate().skip(floor_segment(segments, offset)) {
            if segment.base_offset() >= bound {
                break;
            }
            let next_base = segments.get(i + 1).map(|next| next.base_offset());
            let end = match next_base {
                Some(next_base) if next_base <= bound => segment.size(),
                _ => self.bound_position(segment, bound)?,
            };
            if let Some(batch) = segment.locate(offset, end)? {
                if batch.header.last_offset() >= next_base.map_or(bound, |next_base| next_base.min(bound)) {
                    return Err(segment.displaced(&batch));
                }
                let left = usize::try_from(end - batch.position).unwrap_or(usize::MAX);
                let len = bytes_max.max(batch.header.size()).min(left);
                let file = segment.open_log()?;
                return Ok(Some(LogSlice {
                    file,
                    segment: Arc::clone(segment),
                    position: batch.position,
                    len,
                }));
            }
        }
        Ok(None)
    }

    /// Where in `segment`, the last that a read may see, the first batch at or past `bound` starts.
    fn bound_position(&self, segment: &Segment, bound: Offset) -> Result<u64, ReadError> {
        let size = segment.size();
        let known = *self.bound.lock().unwrap_or_else(PoisonError::into_inner);
        let segment_base = segment.base_offset();
        for known in known.log_end.iter().chain(&known.looked_up) {
            if known.bound == bound && known.segment_base == segment_base {
                return Ok(known.position);
            }
            // The bug of taking a position in an older segment for one past all older records (KAFKA-9196).
            if cfg!(mutant = "B22") && known.segment_base != segment_base {
                return Ok(size);
            }
        }
        let position = segment.position_of(bound, size)?;
        let found = BoundPosition { bound, segment_base, position };
        let mut remembered = self.bound.lock().unwrap_or_else(PoisonError::into_inner);
        // The files have been cut since the look-up: `found` is stale.
        if remembered.generation == known.generation {
            remembered.looked_up = Some(found);
        }
        Ok(position)
    }

    /// Remembers where the log end is. Called by the writer before it publishes `log_end`.
    pub(crate) fn remember_log_end(&self, log_end: Offset, segment: &Segment, position: u64) {
        let found = BoundPosition { bound: log_end, segment_base: segment.base_offset(), position };
        self.bound.lock().unwrap_or_else(PoisonError::into_inner).log_end = Some(found);
    }

    fn bound_generation(&self) -> u64 {
        self.bound.lock().unwrap_or_else(PoisonError::into_inner).generation
    }

    /// Forgets remembered positions: the files have been cut.
    pub(crate) fn forget_bound_position(&self) {
        let mut remembered = self.bound.lock().unwrap_or_else(PoisonError::into_inner);
        let generation = remembered.generation + 1;
        *remembered = BoundPositions { generation, ..BoundPositions::default() };
    }

    /// The aborted transactions with records in `start..end`, by first offset.
    ///
    /// # Errors
    /// The disk's errors.
    pub fn aborted_between(&self, start: Offset, end: Offset) -> Result<Vec<AbortedTxn>, ReadError> {
        aborted_in(&self.segments(), start, end)
    }
}

/// An offset at or past the end of the records in `slice`, and not past `bound`.
fn slice_end(segments: &[Arc<Segment>], slice: &LogSlice, bound: Offset) -> Result<Offset, ReadError> {
    let bytes_end = slice.position + slice.len as u64;
    let after = slice.segment.offsets.ceiling(|entry| u64::from(entry.position) < bytes_end)?;
    let base = slice.segment.base_offset();
    let next = segments.get(floor_segment(segments, base) + 1);
    let segment_end = next.map_or(bound, |next| next.base_offset());
    Ok(after.map_or(segment_end, |entry| base.plus(i64::from(entry.relative_offset))).min(bound))
}

/// The aborted transactions with records in `start..end`, by first offset.
fn aborted_in(segments: &[Arc<Segment>], start: Offset, end: Offset) -> Result<Vec<AbortedTxn>, ReadError> {
    let mut aborted: Vec<AbortedTxn> = Vec::new();
    // A transaction stands in the index of the segment that has its marker, at or past its first offset.
    for segment in segments.iter().skip(floor_segment(segments, start)) {
        let entries = segment.txns.entries()?;
        aborted.extend(entries.iter().filter(|txn| txn.last_offset >= start && txn.first_offset < end));
        if entries.iter().any(|txn| txn.last_stable_offset >= end) {
            break;
        }
    }
    aborted.sort_unstable_by_key(|txn| txn.first_offset);
    Ok(aborted)
}

/// A record found by its time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimestampedOffset {
    /// The record's timestamp.
    pub timestamp: Timestamp,
    /// The record's offset.
    pub offset: Offset,
    /// The leader epoch of its batch.
    pub leader_epoch: klamm_types::LeaderEpoch,
}
