//! The records of one batch: do they read, and does the header tell the truth about them?

use klamm_record::{BatchError, CodecError, ControlRecord, EndTxnMarker, RecordBatch, TimestampType};
use klamm_types::{Offset, Timestamp};

use super::{DECOMPRESSED_BYTES_MAX, Problem};

/// What a walk over the records found.
#[derive(Debug, Default)]
pub(super) struct RecordsSeen {
    /// How many records read.
    pub(super) count: u64,
    /// The end of a transaction, if the batch is one.
    pub(super) marker: Option<EndTxnMarker>,
    /// What is wrong.
    pub(super) problem: Option<Problem>,
}

/// Reads all records of `batch`. The checksum is the caller's business.
pub(super) fn check(batch: &RecordBatch<'_>) -> RecordsSeen {
    let mut seen = RecordsSeen::default();
    if let Err(problem) = walk(batch, &mut seen) {
        seen.problem = Some(problem);
    }
    seen
}

fn walk(batch: &RecordBatch<'_>, seen: &mut RecordsSeen) -> Result<(), Problem> {
    let mut previous = Offset(-1);
    let mut max_timestamp = Timestamp(i64::MIN);
    let mut records = batch.records(DECOMPRESSED_BYTES_MAX).map_err(Problem::records)?;
    while let Some(record) = records.next_record().map_err(Problem::records)? {
        if record.offset <= previous {
            return Err(Problem::RecordOffsetOrder { record: record.offset, previous });
        }
        previous = record.offset;
        max_timestamp = max_timestamp.max(record.timestamp);
        if batch.attributes().is_control() {
            let control = ControlRecord::parse(&record).map_err(|reason| Problem::Control { reason })?;
            if let ControlRecord::EndTxn(marker) = control {
                seen.marker = Some(marker);
            }
        }
        seen.count += 1;
    }
    let field = batch.max_timestamp();
    let is_create_time = batch.attributes().timestamp_type() == TimestampType::CreateTime;
    if is_create_time && seen.count > 0 && max_timestamp != field {
        return Err(Problem::MaxTimestamp { field, found: max_timestamp });
    }
    Ok(())
}

impl Problem {
    fn records(reason: BatchError) -> Self {
        match reason {
            BatchError::Codec(CodecError::OutputLimit { limit, .. }) => Self::RecordsTooLarge { limit },
            reason => Self::Records { reason },
        }
    }
}
