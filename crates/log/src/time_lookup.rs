//! Finding records by their timestamps.

use std::cmp::Reverse;

use klamm_record::RecordBatch;
use klamm_types::{Offset, Timestamp};

use crate::error::{Describe as _, ReadError};
use crate::log::Log;
use crate::read::TimestampedOffset;
use crate::scan::{BatchScanner, Scanned, read_batch};
use crate::segment::Segment;

/// A batch is decompressed here only to look at its records' timestamps; more than this is not believed.
const DECOMPRESSED_BYTES_MAX: u64 = 1 << 31;

impl Log {
    /// The first record at or past the log start whose timestamp is `target` or later. `None` if there is none.
    ///
    /// # Errors
    /// [`ReadError::Corrupt`] if a batch on the way does not read; the disk's errors.
    pub fn offset_for_timestamp(&self, target: Timestamp) -> Result<Option<TimestampedOffset>, ReadError> {
        self.dir.log_dir.check()?;
        let start = self.log_start_offset();
        for segment in self.segments().iter() {
            if segment.max_timestamp()?.timestamp < target {
                continue;
            }
            let from = segment.time_floor(target)?;
            let wanted = |timestamp: Timestamp| timestamp >= target;
            let found = match first_record(segment, from, start, wanted)? {
                // The index may have pointed too far: then the segment's start knows better.
                None if from > segment.base_offset() => {
                    first_record(segment, segment.base_offset(), start, wanted)?
                }
                found => found,
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// The record with the largest timestamp; of several, the first. `None` if no record has a timestamp.
    ///
    /// # Errors
    /// As [`offset_for_timestamp`](Self::offset_for_timestamp).
    pub fn max_timestamp_offset(&self) -> Result<Option<TimestampedOffset>, ReadError> {
        self.dir.log_dir.check()?;
        let segments = self.segments();
        let mut newest = None;
        for segment in segments.iter() {
            let max = segment.max_timestamp()?;
            newest = newest.max(Some((max.timestamp, Reverse(segment.base_offset()))));
        }
        let Some((timestamp, Reverse(base))) = newest.filter(|(timestamp, _)| timestamp.0 >= 0) else {
            return Ok(None);
        };
        let Some(segment) = segments.iter().find(|segment| segment.base_offset() == base) else {
            return Ok(None);
        };
        let from = segment.max_timestamp()?.offset;
        first_record(segment, from, self.log_start_offset(), |t| t >= timestamp)
    }
}

/// The first record at or past `start` whose timestamp is `wanted`, in the batches from the one that holds `from`.
fn first_record(
    segment: &Segment,
    from: Offset,
    start: Offset,
    wanted: impl Fn(Timestamp) -> bool,
) -> Result<Option<TimestampedOffset>, ReadError> {
    let size = segment.size();
    let Some(first) = segment.locate(from, size)? else { return Ok(None) };
    let file = segment.open_log()?;
    let mut scanner = BatchScanner::new(file.as_ref(), first.position, size, BatchScanner::LOOKUP_BUFFER);
    while let Some(batch) = scanner.next().map_err(|e| segment.read_error(e))? {
        if batch.header.last_offset() < start || !wanted(batch.header.max_timestamp()) {
            continue;
        }
        let bytes = read_batch(file.as_ref(), &batch).describe("read", &segment.log().path())?;
        if let Some(found) = first_in_batch(segment, &batch, &bytes, start, &wanted)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn first_in_batch(
    segment: &Segment,
    scanned: &Scanned,
    bytes: &[u8],
    start: Offset,
    wanted: impl Fn(Timestamp) -> bool,
) -> Result<Option<TimestampedOffset>, ReadError> {
    let corrupt =
        |reason| ReadError::Corrupt { path: segment.log().path(), position: scanned.position, reason };
    let batch = RecordBatch::parse(bytes).map_err(corrupt)?;
    let mut records = batch.records(DECOMPRESSED_BYTES_MAX).map_err(corrupt)?;
    while let Some(record) = records.next_record().map_err(corrupt)? {
        if record.offset >= start && wanted(record.timestamp) {
            return Ok(Some(TimestampedOffset {
                timestamp: record.timestamp,
                offset: record.offset,
                leader_epoch: batch.leader_epoch(),
            }));
        }
    }
    Ok(None)
}
