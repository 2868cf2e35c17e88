//! From the bytes of an answer to records.

use std::collections::BTreeSet;

use bytes::Bytes;
use klamm_protocol::messages::fetch_response::{AbortedTransaction, PartitionData};
use klamm_record::{BatchError, Batches, ControlRecord, Record, RecordBatch, TransactionResult};
use klamm_types::{Offset, TopicPartition};

use super::{ConsumedRecord, ConsumerOptions};
use crate::offsets::Isolation;

/// The transactions that were aborted, and how far the walk over the log has come among them.
struct Aborted<'a> {
    /// By ascending first offset.
    ahead: std::iter::Peekable<std::vec::IntoIter<&'a AbortedTransaction>>,
    /// The producers whose records are skipped until their abort marker.
    active: BTreeSet<i64>,
}

impl<'a> Aborted<'a> {
    fn new(partition: &'a PartitionData, isolation: Isolation) -> Self {
        let list = match isolation {
            Isolation::ReadCommitted => partition.aborted_transactions.as_deref().unwrap_or_default(),
            Isolation::ReadUncommitted => &[],
        };
        let mut ahead: Vec<_> = list.iter().collect();
        ahead.sort_by_key(|aborted| aborted.first_offset);
        Self { ahead: ahead.into_iter().peekable(), active: BTreeSet::new() }
    }

    /// Whether the records of `batch` belong to an aborted transaction.
    fn covers(&mut self, batch: &RecordBatch<'_>) -> bool {
        while let Some(aborted) = self.ahead.next_if(|next| next.first_offset <= batch.last_offset().0) {
            self.active.insert(aborted.producer_id);
        }
        batch.attributes().is_transactional() && self.active.contains(&batch.producer_id().0)
    }

    fn on_marker(&mut self, batch: &RecordBatch<'_>, marker: &ControlRecord) {
        if let ControlRecord::EndTxn(end) = marker
            && end.result == TransactionResult::Abort
        {
            self.active.remove(&batch.producer_id().0);
        }
    }
}

/// Appends the records from offset `from` to `records`; gives the offset to go on with.
pub(super) fn records(
    at: &TopicPartition,
    from: Offset,
    partition: &PartitionData,
    options: &ConsumerOptions,
    records: &mut Vec<ConsumedRecord>,
) -> Result<Offset, BatchError> {
    let empty = Bytes::new();
    let bytes = partition.records.as_ref().and_then(|records| records.as_bytes()).unwrap_or(&empty);
    let mut aborted = Aborted::new(partition, options.isolation);
    let mut next = from;
    for batch in Batches::new(bytes) {
        let batch = match batch {
            Ok(batch) => batch,
            // A broker cuts the last batch where the answer's size limit lies.
            Err(BatchError::Truncated { .. }) if next > from => break,
            Err(error) => return Err(error),
        };
        batch.verify_crc()?;
        let is_aborted = aborted.covers(&batch);
        let mut walk = batch.records(options.decompressed_bytes_max)?;
        while let Some(record) = walk.next_record()? {
            if batch.attributes().is_control() {
                if let Ok(marker) = ControlRecord::parse(&record) {
                    aborted.on_marker(&batch, &marker);
                }
            } else if record.offset >= from && !is_aborted {
                records.push(owned(at, &batch, &record));
            }
        }
        next = next.max(batch.next_offset());
    }
    Ok(next)
}

fn owned(at: &TopicPartition, batch: &RecordBatch<'_>, record: &Record<'_>) -> ConsumedRecord {
    let copy = |bytes: Option<&[u8]>| bytes.map(Bytes::copy_from_slice);
    ConsumedRecord {
        partition: at.clone(),
        offset: record.offset,
        leader_epoch: batch.leader_epoch(),
        timestamp: record.timestamp,
        key: copy(record.key),
        value: copy(record.value),
        headers: record.headers().map(|(key, value)| (Bytes::copy_from_slice(key), copy(value))).collect(),
    }
}

#[cfg(test)]
#[path = "decode_test.rs"]
mod tests;
