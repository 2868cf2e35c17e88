//! What keeps the order of an idempotent producer whose first batch was refused (docs/adr/0006).
//!
//! A log that knows nothing of a producer takes any sequence from it (KIP-360): the producer's state may have expired,
//! or its topic may have been deleted and made anew. So when the first of some batches under way is refused, by a
//! broker that is about to learn that it leads, the second would be taken a moment later, and the first never again.
//! Here is remembered which batches are going to come again; whatever follows them has to wait.
//!
//! The refusal may come before there is a partition, or a topic as far as this broker knows; hence this is the
//! broker's, and the topic goes by the name or the id that the request has. What is remembered is bounded in number
//! and time; the oldest is forgotten first. A batch that is held up for nothing, because its producer has given up the
//! one before it without a new epoch, is therefore held up for [`REMEMBERED_FOR`] at most.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use klamm_broker::partition::FirstSequence;
use klamm_protocol::ErrorCode;
use klamm_record::BatchHeader;
use klamm_types::{ProducerEpoch, ProducerId};
use tokio::time::Instant;

use crate::fetch_session::PartitionKey;

/// How many batches are remembered: with the longest names they take some 3 MiB.
const ENTRIES_MAX: usize = 4096;
/// For how long after its last refusal a batch is expected to come again: as long as Java's producers try by default
/// (`delivery.timeout.ms`).
const REMEMBERED_FOR: Duration = Duration::from_secs(120);
/// For how long after its last refusal a batch is likely to be on its way: clients wait a tenth of a second, and a second at most.
const EXPECTED_FOR: Duration = Duration::from_secs(3);
/// Half of the range of sequences, which wrap from 2^31 - 1 to 0: what is nearer than this lies ahead.
const HALF_RANGE: i32 = 1 << 30;

/// Whether batches that are refused with `code` come again under the same sequence: those that clients take for
/// temporary, and those that are too large, which Java's client divides.
pub(crate) fn comes_again(code: ErrorCode) -> bool {
    code.is_retriable() || code == ErrorCode::MessageTooLarge
}

/// The place of a batch in what an idempotent producer sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Sequenced {
    pub(crate) producer_id: ProducerId,
    pub(crate) epoch: ProducerEpoch,
    /// The sequence of the first record, not negative.
    pub(crate) first: i32,
}

impl Sequenced {
    /// `None` for a batch without a sequence.
    pub(crate) fn of(header: &BatchHeader) -> Option<Self> {
        let first = header.base_sequence();
        let (producer_id, epoch) = (header.producer_id(), header.producer_epoch());
        (header.has_producer_id() && first >= 0).then_some(Self { producer_id, epoch, first })
    }
}

/// One incarnation of one producer in one partition.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Key {
    partition: PartitionKey,
    producer_id: ProducerId,
    epoch: ProducerEpoch,
}

/// The lowest sequences that were refused.
#[derive(Debug, Default)]
pub(crate) struct RefusedSequences {
    /// Whether there may be any: the one thing that a batch in the common case looks at.
    has_some: AtomicBool,
    memory: Mutex<Memory>,
}

#[derive(Debug, Default)]
struct Memory {
    refused: HashMap<Key, Refused>,
    /// By number: the order in which they were refused, and when that was.
    by_age: BTreeMap<u64, (Instant, Key)>,
    /// The number of the next refusal.
    next: u64,
}

#[derive(Clone, Copy, Debug)]
struct Refused {
    first_sequence: i32,
    number: u64,
}

impl RefusedSequences {
    /// Whether nothing is remembered. May be wrong for a batch that comes at the same time on another connection, which
    /// has no order with this one.
    pub(crate) fn is_empty(&self) -> bool {
        !self.has_some.load(Ordering::Acquire)
    }

    /// A batch was refused that will come again.
    pub(crate) fn remember(&self, partition: PartitionKey, batch: Sequenced, now: Instant) {
        let key = Key { partition, producer_id: batch.producer_id, epoch: batch.epoch };
        let mut memory = self.enter(now);
        memory.remember(key, batch.first, now);
        self.leave(memory);
    }

    /// The sequence that must come before `batch`, if it was refused under one of these names of its partition.
    pub(crate) fn before(
        &self,
        names: &[PartitionKey],
        batch: Sequenced,
        now: Instant,
    ) -> Option<FirstSequence> {
        if self.is_empty() {
            return None;
        }
        let memory = self.enter(now);
        let mut found = None;
        for name in names {
            let key = Key { partition: name.clone(), producer_id: batch.producer_id, epoch: batch.epoch };
            found = found.or_else(|| memory.before(&key, batch.first, now));
        }
        self.leave(memory);
        found
    }

    /// A batch was appended: its partition knows the producer now.
    pub(crate) fn forget(&self, names: &[PartitionKey], batch: Sequenced, now: Instant) {
        if self.is_empty() {
            return;
        }
        let mut memory = self.enter(now);
        for name in names {
            memory.forget(&Key {
                partition: name.clone(),
                producer_id: batch.producer_id,
                epoch: batch.epoch,
            });
        }
        self.leave(memory);
    }

    /// What is remembered, without what is too old.
    fn enter(&self, now: Instant) -> MutexGuard<'_, Memory> {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        while memory.is_oldest_expired(now) {
            memory.forget_oldest();
        }
        memory
    }

    fn leave(&self, memory: MutexGuard<'_, Memory>) {
        self.has_some.store(!memory.refused.is_empty(), Ordering::Release);
        drop(memory);
    }
}

impl Memory {
    fn before(&self, key: &Key, sequence: i32, now: Instant) -> Option<FirstSequence> {
        let refused = self.refused.get(key).filter(|refused| is_after(sequence, refused.first_sequence))?;
        let last = self.by_age.get(&refused.number).map(|(since, _)| *since);
        let is_expected = last.is_some_and(|last| now.saturating_duration_since(last) < EXPECTED_FOR);
        Some(FirstSequence { sequence: refused.first_sequence, is_expected })
    }

    fn remember(&mut self, key: Key, first_sequence: i32, now: Instant) {
        if let Some(known) = self.refused.get(&key).copied() {
            if is_after(first_sequence, known.first_sequence) {
                // It waits for the other one in any case.
                return;
            }
            self.by_age.remove(&known.number);
        } else if self.refused.len() >= ENTRIES_MAX {
            self.forget_oldest();
        }
        let number = self.next;
        self.next += 1;
        self.refused.insert(key.clone(), Refused { first_sequence, number });
        self.by_age.insert(number, (now, key));
    }

    fn forget(&mut self, key: &Key) {
        if let Some(refused) = self.refused.remove(key) {
            self.by_age.remove(&refused.number);
        }
    }

    fn is_oldest_expired(&self, now: Instant) -> bool {
        let oldest = self.by_age.first_key_value();
        oldest.is_some_and(|(_, (since, _))| now.saturating_duration_since(*since) >= REMEMBERED_FOR)
    }

    fn forget_oldest(&mut self) {
        if let Some((_, (_, key))) = self.by_age.pop_first() {
            self.refused.remove(&key);
        }
    }
}

/// Whether a producer that goes on from `earlier` comes to `sequence` later.
fn is_after(sequence: i32, earlier: i32) -> bool {
    let distance = sequence.wrapping_sub(earlier) & i32::MAX;
    distance != 0 && distance < HALF_RANGE
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use klamm_types::TopicId;

    use super::*;
    use crate::fetch_session::TopicKey;

    fn named(name: &str) -> PartitionKey {
        PartitionKey { topic: TopicKey::Name(Arc::from(name)), partition: 0 }
    }

    fn sequenced(first: i32) -> Sequenced {
        Sequenced { producer_id: ProducerId(7), epoch: ProducerEpoch(1), first }
    }

    fn before(
        memory: &RefusedSequences,
        names: &[PartitionKey],
        batch: Sequenced,
        now: Instant,
    ) -> Option<i32> {
        memory.before(names, batch, now).map(|first| first.sequence)
    }

    #[test]
    fn what_was_refused_is_expected_for_a_moment() {
        let (memory, start) = (RefusedSequences::default(), Instant::now());
        let is_expected =
            |now| memory.before(&[named("t")], sequenced(2), now).map(|first| first.is_expected);
        memory.remember(named("t"), sequenced(0), start);
        assert_eq!(is_expected(start), Some(true));
        assert_eq!(is_expected(start + EXPECTED_FOR), Some(false));
        memory.remember(named("t"), sequenced(1), start + EXPECTED_FOR);
        assert_eq!(is_expected(start + EXPECTED_FOR), Some(false), "it is the first that is waited for");
        memory.remember(named("t"), sequenced(0), start + EXPECTED_FOR);
        assert_eq!(is_expected(start + EXPECTED_FOR), Some(true));
    }

    #[test]
    fn what_comes_later_waits_and_what_comes_again_does_not() {
        let (memory, now) = (RefusedSequences::default(), Instant::now());
        assert_eq!(before(&memory, &[named("t")], sequenced(12), now), None);
        memory.remember(named("t"), sequenced(5), now);
        memory.remember(named("t"), sequenced(12), now);
        for (first, expected) in [(4, None), (5, None), (6, Some(5)), (12, Some(5)), (1 << 29, Some(5))] {
            assert_eq!(before(&memory, &[named("t")], sequenced(first), now), expected, "{first}");
        }
        memory.remember(named("t"), sequenced(2), now);
        assert_eq!(before(&memory, &[named("t")], sequenced(5), now), Some(2), "the lowest counts");
        let other_epoch = Sequenced { epoch: ProducerEpoch(2), ..sequenced(12) };
        let other_producer = Sequenced { producer_id: ProducerId(8), ..sequenced(12) };
        let other_partition = PartitionKey { partition: 1, ..named("t") };
        assert_eq!(before(&memory, &[named("t")], other_epoch, now), None);
        assert_eq!(before(&memory, &[named("t")], other_producer, now), None);
        assert_eq!(before(&memory, &[other_partition, named("u")], sequenced(12), now), None);
    }

    #[test]
    fn any_name_of_the_partition_will_do() {
        let (memory, now) = (RefusedSequences::default(), Instant::now());
        let by_id = PartitionKey { topic: TopicKey::Id(TopicId([3; 16])), partition: 0 };
        memory.remember(by_id.clone(), sequenced(0), now);
        let names = [named("t"), by_id];
        assert_eq!(before(&memory, &names, sequenced(1), now), Some(0));
        memory.forget(&names, sequenced(0), now);
        assert!(memory.is_empty());
    }

    #[test]
    fn sequences_wrap() {
        let (memory, now) = (RefusedSequences::default(), Instant::now());
        memory.remember(named("t"), sequenced(i32::MAX - 1), now);
        assert_eq!(before(&memory, &[named("t")], sequenced(0), now), Some(i32::MAX - 1));
        assert_eq!(before(&memory, &[named("t")], sequenced(i32::MAX - 2), now), None);
        // What was refused before it wraps stays the lower one.
        memory.remember(named("t"), sequenced(3), now);
        assert_eq!(before(&memory, &[named("t")], sequenced(0), now), Some(i32::MAX - 1));
    }

    #[test]
    fn memory_ends_by_number_and_by_time() {
        let (memory, start) = (RefusedSequences::default(), Instant::now());
        for i in 0..=ENTRIES_MAX {
            memory.remember(named(&i.to_string()), sequenced(0), start);
        }
        assert_eq!(memory.memory.lock().unwrap().refused.len(), ENTRIES_MAX);
        assert_eq!(memory.memory.lock().unwrap().by_age.len(), ENTRIES_MAX);
        assert_eq!(before(&memory, &[named("0")], sequenced(1), start), None, "the oldest makes way");
        assert_eq!(before(&memory, &[named("1")], sequenced(1), start), Some(0));
        let later = start + REMEMBERED_FOR / 2;
        memory.remember(named("2"), sequenced(0), later);
        memory.remember(named("3"), sequenced(1), later);
        let end = start + REMEMBERED_FOR;
        assert_eq!(before(&memory, &[named("1")], sequenced(1), end), None);
        assert_eq!(before(&memory, &[named("2")], sequenced(1), end), Some(0), "it was refused again");
        assert_eq!(before(&memory, &[named("3")], sequenced(1), end), None, "the later one does not count");
        memory.forget(&[named("2")], sequenced(0), end);
        assert!(memory.is_empty());
    }
}
