//! What a partition knows of its producers: the state behind idempotence and transactions (KIP-98, KIP-360, KIP-890).
//!
//! Everything here follows from the batches of the log: replaying them from a [snapshot](snapshot) rebuilds it.
//! A producer takes a fixed amount of memory ([`ProducerEntry`], some 200 bytes with its place in the map), and
//! their number is bounded: past the limit those that have been silent longest are forgotten, as if expired.

use std::collections::{BTreeMap, HashMap};

use klamm_record::{BatchHeader, EndTxnMarker, TransactionResult};
use klamm_types::{CoordinatorEpoch, Offset, ProducerEpoch, ProducerId, Timestamp};

use crate::error::ProducerError;
use crate::index::AbortedTxn;

mod entry;
pub(crate) mod snapshot;

pub(crate) use entry::comes_after;
pub use entry::{BatchMetadata, ProducerEntry};

/// What a check of a batch against the producer's state found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SequenceCheck {
    /// The batch continues the sequence (or has none).
    New,
    /// The batch is in the log already, here.
    Duplicate(BatchMetadata),
    /// The batch is in the log already, somewhere before this offset.
    Forgotten(Offset),
}

/// The producers of one partition.
#[derive(Debug)]
pub(crate) struct Producers {
    entries: HashMap<ProducerId, Box<ProducerEntry>, foldhash::fast::RandomState>,
    /// Open transactions by the first offset they wrote.
    open: BTreeMap<Offset, ProducerId>,
    /// Ended transactions whose marker is not below the high watermark yet: first offset to marker offset.
    unreplicated: BTreeMap<Offset, Offset>,
    entries_max: usize,
}

impl Producers {
    pub(crate) fn new(entries_max: usize) -> Self {
        Self {
            entries: HashMap::default(),
            open: BTreeMap::new(),
            unreplicated: BTreeMap::new(),
            entries_max: entries_max.max(1),
        }
    }

    /// The state of each producer, by id.
    pub(crate) fn entries(&self) -> Vec<(ProducerId, ProducerEntry)> {
        let mut entries: Vec<_> = self.entries.iter().map(|(id, entry)| (*id, **entry)).collect();
        entries.sort_unstable_by_key(|(id, _)| *id);
        entries
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Checks a client's batch before it is appended. A batch without a producer id passes. A producer that is not
    /// known may begin with `first_sequence`, or with any if there is none (KIP-360).
    pub(crate) fn check(
        &self,
        batch: &BatchHeader,
        first_sequence: Option<i32>,
    ) -> Result<SequenceCheck, ProducerError> {
        if !batch.has_producer_id() {
            return Ok(SequenceCheck::New);
        }
        let (producer_id, epoch, sequence) =
            (batch.producer_id(), batch.producer_epoch(), batch.base_sequence());
        let Some(entry) = self.entries.get(&producer_id) else {
            return match first_sequence.filter(|first| *first != sequence) {
                Some(expected) => Err(ProducerError::OutOfOrderSequence { producer_id, sequence, expected }),
                None => Ok(SequenceCheck::New),
            };
        };
        if epoch < entry.epoch {
            return Err(ProducerError::Fenced { producer_id, epoch, current: entry.epoch });
        }
        if epoch == entry.epoch
            && let Some(duplicate) = entry.find(sequence, batch.last_sequence())
        {
            return Ok(SequenceCheck::Duplicate(duplicate));
        }
        if epoch == entry.epoch
            && entry.has_forgotten(sequence, batch.last_sequence())
            && let Some(oldest) = entry.batches().first()
        {
            return Ok(SequenceCheck::Forgotten(oldest.first_offset()));
        }
        let expected = if epoch == entry.epoch { entry.next_sequence() } else { 0 };
        if sequence != expected {
            return Err(ProducerError::OutOfOrderSequence { producer_id, sequence, expected });
        }
        if let Some(since) = entry.txn_first_offset
            && !batch.attributes().is_transactional()
        {
            return Err(ProducerError::TransactionOpen { producer_id, since });
        }
        Ok(SequenceCheck::New)
    }

    /// Checks that no newer incarnation of the producer has written. A coordinator's batches have no sequence to check.
    pub(crate) fn check_epoch(&self, batch: &BatchHeader) -> Result<(), ProducerError> {
        let (producer_id, epoch) = (batch.producer_id(), batch.producer_epoch());
        match self.entries.get(&producer_id) {
            Some(entry) if batch.has_producer_id() && epoch < entry.epoch => {
                Err(ProducerError::Fenced { producer_id, epoch, current: entry.epoch })
            }
            _ => Ok(()),
        }
    }

    /// Checks a transaction marker before it is appended.
    pub(crate) fn check_marker(
        &self,
        batch: &BatchHeader,
        marker: &EndTxnMarker,
    ) -> Result<(), ProducerError> {
        let producer_id = batch.producer_id();
        let Some(entry) = self.entries.get(&producer_id) else { return Ok(()) };
        if batch.producer_epoch() < entry.epoch {
            let (epoch, current) = (batch.producer_epoch(), entry.epoch);
            return Err(ProducerError::Fenced { producer_id, epoch, current });
        }
        if marker.coordinator_epoch < entry.coordinator_epoch {
            let (epoch, current) = (marker.coordinator_epoch.0, entry.coordinator_epoch.0);
            return Err(ProducerError::CoordinatorFenced { epoch, current });
        }
        Ok(())
    }

    /// Takes note of a data batch that was appended, with its offsets assigned.
    pub(crate) fn on_batch(&mut self, batch: &BatchHeader) {
        if !batch.has_producer_id() {
            return;
        }
        let entry = self.entries.entry(batch.producer_id()).or_default();
        entry.advance_epoch(batch.producer_epoch());
        entry.push(BatchMetadata {
            last_sequence: batch.last_sequence(),
            offset_delta: batch.last_offset_delta(),
            last_offset: batch.last_offset(),
            timestamp: batch.max_timestamp(),
        });
        if batch.attributes().is_transactional() && entry.txn_first_offset.is_none() {
            entry.txn_first_offset = Some(batch.base_offset());
            self.open.insert(batch.base_offset(), batch.producer_id());
        }
        self.evict();
    }

    /// Takes note of a marker that was appended. Returns the transaction if it was aborted, for the index.
    pub(crate) fn on_marker(&mut self, batch: &BatchHeader, marker: &EndTxnMarker) -> Option<AbortedTxn> {
        let (producer_id, last_offset) = (batch.producer_id(), batch.last_offset());
        let entry = self.entries.entry(producer_id).or_default();
        entry.advance_epoch(batch.producer_epoch());
        entry.coordinator_epoch = entry.coordinator_epoch.max(marker.coordinator_epoch);
        entry.last_timestamp = batch.max_timestamp();
        let first_offset = entry.txn_first_offset.take()?;
        self.open.remove(&first_offset);
        self.unreplicated.insert(first_offset, last_offset);
        let last_stable_offset = self.open.keys().next().copied().unwrap_or(last_offset.next());
        let txn = AbortedTxn { producer_id, first_offset, last_offset, last_stable_offset };
        (marker.result == TransactionResult::Abort).then_some(txn)
    }

    /// The first offset of a transaction that is open, or whose marker may still be lost.
    pub(crate) fn first_unstable_offset(&self) -> Option<Offset> {
        let open = self.open.keys().next();
        let unreplicated = self.unreplicated.keys().next();
        open.into_iter().chain(unreplicated).min().copied()
    }

    /// Forgets ended transactions whose marker lies below `high_watermark`: nothing can undo them. Tells whether
    /// there were any.
    pub(crate) fn on_high_watermark(&mut self, high_watermark: Offset) -> bool {
        let before = self.unreplicated.len();
        if before > 0 {
            self.unreplicated.retain(|_, marker| *marker >= high_watermark);
        }
        self.unreplicated.len() != before
    }

    /// Forgets producers that have written nothing for `expiration_ms`, unless they have a transaction open.
    pub(crate) fn expire(&mut self, now: Timestamp, expiration_ms: i64) {
        self.entries.retain(|_, entry| {
            entry.txn_first_offset.is_some() || now.millis_since(entry.last_timestamp) < expiration_ms
        });
        self.entries.shrink_to_fit();
    }

    /// Makes room when there are too many producers: the tenth that has been silent longest goes.
    fn evict(&mut self) {
        if self.entries.len() <= self.entries_max {
            return;
        }
        let idle = self.entries.iter().filter(|(_, entry)| entry.txn_first_offset.is_none());
        let mut oldest: Vec<(Timestamp, ProducerId)> =
            idle.map(|(id, entry)| (entry.last_timestamp, *id)).collect();
        let count = (self.entries_max / 10).max(1).min(oldest.len());
        if count < oldest.len() {
            oldest.select_nth_unstable(count);
        }
        for (_, id) in &oldest[..count] {
            self.entries.remove(id);
        }
    }

    fn insert(&mut self, producer_id: ProducerId, entry: ProducerEntry) {
        if let Some(first_offset) = entry.txn_first_offset {
            self.open.insert(first_offset, producer_id);
        }
        self.entries.insert(producer_id, Box::new(entry));
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        *self = Self::new(self.entries_max);
    }
}

impl Default for ProducerEntry {
    fn default() -> Self {
        Self {
            epoch: ProducerEpoch::NONE,
            coordinator_epoch: CoordinatorEpoch::NONE,
            last_timestamp: Timestamp::NONE,
            txn_first_offset: None,
            batches: [BatchMetadata::NONE; ProducerEntry::BATCHES],
            len: 0,
            is_whole: false,
        }
    }
}

#[cfg(test)]
#[path = "producers_test.rs"]
mod tests;
