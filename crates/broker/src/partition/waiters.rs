//! Who waits for a partition to change.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// What a waiter waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Interest {
    /// Something new to see for a consumer: the high watermark or the last stable offset has moved, or who leads.
    Committed,
    /// Something new to see for a follower: the log end, the log start or the high watermark has moved, or who leads.
    Anything,
}

/// A sleeper that any number of partitions may wake. A wake-up that comes while nobody sleeps is kept: check, then
/// sleep, then check again. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct WakeUp(Arc<Notify>);

impl WakeUp {
    /// A sleeper that nobody has woken.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Wakes it.
    pub fn wake(&self) {
        self.0.notify_one();
    }

    /// The sleeper, for partitions to wake.
    pub(crate) fn as_wakes(&self) -> Arc<dyn Wakes> {
        Arc::clone(&self.0) as Arc<dyn Wakes>
    }

    /// Returns once it has been woken since this last returned. Of several that wait, one returns.
    pub async fn woken(&self) {
        self.0.notified().await;
    }
}

/// Something that a partition can wake: by itself, or as one of many that share a sleeper.
pub trait Wakes: Send + Sync + fmt::Debug {
    /// Something has happened. Called with the partition's lock held: takes note of it and returns.
    fn wake(&self);
}

impl Wakes for Notify {
    fn wake(&self) {
        self.notify_one();
    }
}

type Slots = Vec<Option<(Interest, Arc<dyn Wakes>)>>;

/// The waiters of one partition. A slot is free when it is `None`.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    slots: Mutex<Slots>,
}

/// Ends the waiting when it is dropped.
#[derive(Debug)]
#[must_use = "the waiting ends when this is dropped"]
pub struct Watch {
    waiters: Arc<Waiters>,
    slot: usize,
}

impl Waiters {
    pub(crate) fn watch(self: &Arc<Self>, interest: Interest, wakes: Arc<dyn Wakes>) -> Watch {
        let mut slots = self.lock();
        let entry = Some((interest, wakes));
        let slot = match slots.iter().position(Option::is_none) {
            Some(free) => {
                slots[free] = entry;
                free
            }
            None => {
                slots.push(entry);
                slots.len() - 1
            }
        };
        Watch { waiters: Arc::clone(self), slot }
    }

    /// Wakes who waits for `what`; a change for consumers is one for followers, too.
    pub(crate) fn wake(&self, what: Interest) {
        for (interest, wakes) in self.lock().iter().flatten() {
            if what == Interest::Committed || *interest == Interest::Anything {
                wakes.wake();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut slots = self.waiters.lock();
        if let Some(slot) = slots.get_mut(self.slot) {
            *slot = None;
        }
        while slots.last().is_some_and(Option::is_none) {
            slots.pop();
        }
    }
}
