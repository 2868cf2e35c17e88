//! One timer for all partitions.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Arc, Mutex, PoisonError};

use klamm_types::Timestamp;
use tokio::sync::Notify;

use crate::clock::Clock;
use crate::partition::{PartitionHandle, WeakPartition};

/// When which partition wants to be ticked. A partition for which time alone changes nothing is not in it. Clones
/// share it.
#[derive(Clone, Debug)]
pub(crate) struct Wakeups(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    clock: Clock,
    heap: Mutex<BinaryHeap<Reverse<Entry>>>,
    earlier: Notify,
}

/// Ordered by time alone.
#[derive(Debug)]
struct Entry {
    at: Timestamp,
    partition: WeakPartition,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.cmp(&other.at)
    }
}

impl Wakeups {
    pub(crate) fn new(clock: Clock) -> Self {
        Self(Arc::new(Shared { clock, heap: Mutex::default(), earlier: Notify::new() }))
    }

    /// Has `partition` ticked at `at` or soon after. Called with its lock held.
    pub(crate) fn set(&self, at: Timestamp, partition: &PartitionHandle) {
        let mut heap = self.0.heap.lock().unwrap_or_else(PoisonError::into_inner);
        let is_earliest = heap.peek().is_none_or(|Reverse(first)| at < first.at);
        heap.push(Reverse(Entry { at, partition: partition.downgrade() }));
        drop(heap);
        if is_earliest {
            self.0.earlier.notify_one();
        }
    }

    /// Ticks partitions when their time has come, for as long as it is polled.
    pub(crate) async fn run(&self) {
        loop {
            while let Some(entry) = self.take_due() {
                if let Some(partition) = entry.partition.upgrade() {
                    partition.on_wakeup(entry.at);
                }
            }
            let earlier = self.0.earlier.notified();
            match self.next() {
                None => earlier.await,
                Some(at) => tokio::select! {
                    () = earlier => {}
                    () = tokio::time::sleep_until(self.0.clock.instant(at)) => {}
                },
            }
        }
    }

    fn take_due(&self) -> Option<Entry> {
        let now = self.0.clock.now();
        let mut heap = self.0.heap.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = heap.peek().is_some_and(|Reverse(first)| first.at <= now);
        if is_due { heap.pop().map(|Reverse(entry)| entry) } else { None }
    }

    fn next(&self) -> Option<Timestamp> {
        let heap = self.0.heap.lock().unwrap_or_else(PoisonError::into_inner);
        heap.peek().map(|Reverse(first)| first.at)
    }
}
