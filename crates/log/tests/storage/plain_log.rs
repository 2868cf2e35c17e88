//! A log as a list of batches: what the real one must look like, whatever happens to its disk.

use std::collections::BTreeMap;
use std::sync::Arc;

use klamm_log::ProducerEntry;
use klamm_record::{ControlRecord, RecordBatch};

/// A batch with its offsets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PlainBatch {
    pub(crate) base: i64,
    pub(crate) next: i64,
    pub(crate) epoch: i32,
    pub(crate) bytes: Arc<[u8]>,
}

impl PlainBatch {
    /// Reads a batch that has its offsets, and checks it.
    pub(crate) fn read(batch: &RecordBatch<'_>) -> Self {
        batch.verify_crc().unwrap();
        Self {
            base: batch.base_offset().0,
            next: batch.next_offset().0,
            epoch: batch.leader_epoch().0,
            bytes: batch.bytes().into(),
        }
    }

    pub(crate) fn view(&self) -> RecordBatch<'_> {
        RecordBatch::parse(&self.bytes).unwrap()
    }
}

/// The whole history of a log, as far as no truncation has taken it back.
#[derive(Clone, Debug)]
pub(crate) struct PlainLog {
    /// Every batch from the beginning, those below the log start included.
    pub(crate) batches: Vec<PlainBatch>,
    /// The log start.
    pub(crate) start: i64,
    /// The log end.
    pub(crate) end: i64,
    /// Leader epochs and where they start.
    pub(crate) epochs: Vec<(i32, i64)>,
}

impl PlainLog {
    pub(crate) fn new(start: i64) -> Self {
        Self { batches: Vec::new(), start, end: start, epochs: Vec::new() }
    }

    pub(crate) fn append(&mut self, batch: PlainBatch) {
        assert!(batch.base >= self.end);
        self.assign_epoch(batch.epoch, batch.base);
        self.end = batch.next;
        self.batches.push(batch);
    }

    /// Notes that `epoch` starts at `start`, as KIP-101 and KAFKA-7415 say.
    pub(crate) fn assign_epoch(&mut self, epoch: i32, start: i64) {
        if self.epochs.last().is_none_or(|latest| latest.0 < epoch) {
            self.epochs.retain(|entry| entry.1 < start);
            self.epochs.push((epoch, start));
        }
    }

    /// Drops what lies at or past `offset`, or past the start of the batch that holds it. Epochs go with it.
    pub(crate) fn truncate_to(&mut self, offset: i64) {
        if offset >= self.end {
            // Epochs that wrote nothing go nevertheless.
            self.epochs.retain(|entry| entry.1 < self.end);
            return;
        }
        if offset < self.start || self.first_base().is_none_or(|base| offset <= base) {
            self.restart_at(offset);
            return;
        }
        let kept = self.batches.partition_point(|batch| batch.next <= offset);
        let cut = self.batches.get(kept).map_or(offset, |batch| batch.base.min(offset));
        self.batches.truncate(kept);
        // A log that is cut in a gap ends where its records do.
        let cut = self.batches.last().map_or(cut, |last| last.next.min(cut));
        self.end = cut;
        self.epochs.retain(|entry| entry.1 < cut);
    }

    pub(crate) fn restart_at(&mut self, offset: i64) {
        *self = Self::new(offset);
    }

    /// The first batch that is not wholly below the log start.
    fn first_base(&self) -> Option<i64> {
        self.batches.iter().find(|batch| batch.next > self.start).map(|batch| batch.base)
    }

    /// The batches with a record in `start..end`.
    pub(crate) fn between(&self, start: i64, end: i64) -> &[PlainBatch] {
        let from = self.batches.partition_point(|batch| batch.next <= start);
        let to = self.batches.partition_point(|batch| batch.base < end);
        &self.batches[from..to.max(from)]
    }
}

/// What a log must know of a producer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PlainProducer {
    pub(crate) epoch: i16,
    pub(crate) coordinator_epoch: i32,
    pub(crate) txn_first_offset: Option<i64>,
    /// Last sequence and last offset of the newest five batches.
    pub(crate) batches: Vec<(i32, i64)>,
}

impl PlainProducer {
    pub(crate) fn of(entry: &ProducerEntry) -> Self {
        Self {
            epoch: entry.epoch.0,
            coordinator_epoch: entry.coordinator_epoch.0,
            txn_first_offset: entry.txn_first_offset.map(|offset| offset.0),
            batches: entry.batches().iter().map(|b| (b.last_sequence, b.last_offset.0)).collect(),
        }
    }
}

/// The producers that wrote `batches`, by the rules of KIP-98.
pub(crate) fn producers_of(batches: &[PlainBatch]) -> BTreeMap<i64, PlainProducer> {
    let mut producers = BTreeMap::new();
    for plain in batches {
        let batch = plain.view();
        if !batch.has_producer_id() {
            continue;
        }
        let unknown =
            PlainProducer { epoch: -1, coordinator_epoch: -1, txn_first_offset: None, batches: Vec::new() };
        let producer = producers.entry(batch.producer_id().0).or_insert(unknown);
        if batch.producer_epoch().0 > producer.epoch {
            producer.epoch = batch.producer_epoch().0;
            producer.batches.clear();
        }
        if batch.attributes().is_control() {
            let mut records = batch.records(1 << 20).unwrap();
            let record = records.next_record().unwrap().unwrap();
            let ControlRecord::EndTxn(marker) = ControlRecord::parse(&record).unwrap() else { continue };
            producer.coordinator_epoch = producer.coordinator_epoch.max(marker.coordinator_epoch.0);
            producer.txn_first_offset = None;
            continue;
        }
        if batch.attributes().is_transactional() && producer.txn_first_offset.is_none() {
            producer.txn_first_offset = Some(plain.base);
        }
        producer.batches.push((batch.last_sequence(), plain.next - 1));
        if producer.batches.len() > 5 {
            producer.batches.remove(0);
        }
    }
    producers
}
