//! Virtual time: what happens next, and when.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use klamm_types::Timestamp;

/// A queue of what is going to happen. Two things at one instant happen in the order in which they were scheduled,
/// so that a run depends on its seed alone.
#[derive(Debug)]
pub(crate) struct Scheduler<T> {
    now_us: u64,
    scheduled: u64,
    queue: BinaryHeap<Reverse<Scheduled<T>>>,
}

#[derive(Debug)]
struct Scheduled<T> {
    at_us: u64,
    number: u64,
    what: T,
}

impl<T> PartialEq for Scheduled<T> {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl<T> Eq for Scheduled<T> {}

impl<T> PartialOrd for Scheduled<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Scheduled<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at_us, self.number).cmp(&(other.at_us, other.number))
    }
}

impl<T> Scheduler<T> {
    pub(crate) fn new() -> Self {
        Self { now_us: 0, scheduled: 0, queue: BinaryHeap::new() }
    }

    /// Microseconds since the run began.
    pub(crate) fn now_us(&self) -> u64 {
        self.now_us
    }

    /// The instant as the brains see it. It does not start at zero: no real clock does.
    pub(crate) fn now(&self) -> Timestamp {
        Timestamp(1_000_000 + i64::try_from(self.now_us / 1_000).unwrap_or(i64::MAX))
    }

    /// Has `what` happen in `delay_us` microseconds.
    pub(crate) fn after(&mut self, delay_us: u64, what: T) {
        self.at(self.now_us.saturating_add(delay_us), what);
    }

    /// Has `what` happen at an instant, or now if that is over.
    pub(crate) fn at(&mut self, at_us: u64, what: T) {
        self.scheduled += 1;
        self.queue.push(Reverse(Scheduled { at_us: at_us.max(self.now_us), number: self.scheduled, what }));
    }

    /// Moves time to the next thing, and hands it out.
    pub(crate) fn next(&mut self) -> Option<T> {
        let Reverse(Scheduled { at_us, what, .. }) = self.queue.pop()?;
        self.now_us = at_us;
        Some(what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_happen_in_the_order_of_time_then_of_scheduling() {
        let mut scheduler = Scheduler::new();
        scheduler.after(20, "c");
        scheduler.after(10, "a");
        scheduler.after(10, "b");
        let order: Vec<_> = std::iter::from_fn(|| scheduler.next()).collect();
        assert_eq!(order, ["a", "b", "c"]);
        assert_eq!(scheduler.now_us(), 20);
    }
}
