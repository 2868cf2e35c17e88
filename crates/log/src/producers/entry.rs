//! The state of one producer in one partition.

use klamm_types::{CoordinatorEpoch, Offset, ProducerEpoch, Timestamp};

/// A batch of a producer, as far as a repetition of it needs to be known again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BatchMetadata {
    /// The sequence of its last record.
    pub last_sequence: i32,
    /// Its last offset less its first.
    pub offset_delta: i32,
    /// Its last offset.
    pub last_offset: Offset,
    /// Its largest timestamp.
    pub timestamp: Timestamp,
}

impl BatchMetadata {
    pub(super) const NONE: Self =
        Self { last_sequence: -1, offset_delta: 0, last_offset: Offset(-1), timestamp: Timestamp::NONE };

    /// The offset of its first record.
    #[must_use]
    pub fn first_offset(&self) -> Offset {
        Offset(self.last_offset.0 - i64::from(self.offset_delta))
    }

    /// The sequence of its first record. Sequences wrap from 2^31 - 1 to 0.
    #[must_use]
    pub fn first_sequence(&self) -> i32 {
        let first = i64::from(self.last_sequence) - i64::from(self.offset_delta);
        let wrapped = if first < 0 { first + (1 << 31) } else { first };
        i32::try_from(wrapped).unwrap_or(i32::MAX)
    }
}

/// What a partition remembers of one producer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProducerEntry {
    /// The producer's newest epoch.
    pub epoch: ProducerEpoch,
    /// The newest epoch of the coordinators that wrote markers for it.
    pub coordinator_epoch: CoordinatorEpoch,
    /// When it last wrote, by its own timestamps.
    pub last_timestamp: Timestamp,
    /// The first offset of its open transaction.
    pub txn_first_offset: Option<Offset>,
    /// Its newest batches, oldest first; `len` of them count.
    pub(super) batches: [BatchMetadata; Self::BATCHES],
    pub(super) len: u8,
    /// All its batches of this epoch were appended here, from sequence 0 on, one after the other.
    pub(super) is_whole: bool,
}

impl ProducerEntry {
    /// How many batches are remembered: as many as a client may have in flight (KIP-98).
    pub const BATCHES: usize = 5;

    /// The remembered batches, oldest first; at most five.
    #[must_use]
    pub fn batches(&self) -> &[BatchMetadata] {
        &self.batches[..usize::from(self.len)]
    }

    /// The sequence of its last record; -1 if none is remembered in this epoch.
    #[must_use]
    pub fn last_sequence(&self) -> i32 {
        self.batches().last().map_or(-1, |batch| batch.last_sequence)
    }

    /// The sequence that would continue.
    pub(super) fn next_sequence(&self) -> i32 {
        self.last_sequence().checked_add(1).unwrap_or(0)
    }

    /// The remembered batch of exactly these sequences.
    pub(super) fn find(&self, first_sequence: i32, last_sequence: i32) -> Option<BatchMetadata> {
        let same =
            |b: &&BatchMetadata| b.last_sequence == last_sequence && b.first_sequence() == first_sequence;
        self.batches().iter().find(same).copied()
    }

    /// Whether the records of these sequences were appended for certain, though their batch is not remembered any more:
    /// they come before all batches that are, and nothing is missing between sequence 0 and those. Sequences wrap: one
    /// that is less by more than half of the circle comes later.
    pub(super) fn has_forgotten(&self, first_sequence: i32, last_sequence: i32) -> bool {
        let Some(oldest) = self.batches().first().map(BatchMetadata::first_sequence) else { return false };
        self.is_whole
            && first_sequence <= last_sequence
            && last_sequence < oldest
            && !comes_after(last_sequence, oldest)
    }

    /// A newer epoch starts with no batches.
    pub(super) fn advance_epoch(&mut self, epoch: ProducerEpoch) {
        if self.epoch.advance_to(epoch) {
            self.len = 0;
        }
    }

    pub(super) fn push(&mut self, batch: BatchMetadata) {
        let len = usize::from(self.len);
        let continues = if len == 0 { 0 } else { self.next_sequence() };
        self.is_whole = (self.is_whole || len == 0) && batch.first_sequence() == continues;
        if len == Self::BATCHES {
            self.batches.rotate_left(1);
            self.batches[len - 1] = batch;
        } else {
            self.batches[len] = batch;
            self.len += 1;
        }
        self.last_timestamp = batch.timestamp;
    }
}

/// Whether a sequence comes after another, on a circle of 2^31.
#[must_use]
pub(crate) fn comes_after(sequence: i32, other: i32) -> bool {
    let ahead = (i64::from(sequence) - i64::from(other)).rem_euclid(1 << 31);
    ahead > 0 && ahead < 1 << 30
}
