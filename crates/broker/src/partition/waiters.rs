//! Who waits for a partition to change.

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

    /// Returns once it has been woken since this last returned. Of several that wait, one returns.
    pub async fn woken(&self) {
        self.0.notified().await;
    }
}

/// The waiters of one partition. A slot is free when it is `None`.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    slots: Mutex<Vec<Option<(Interest, WakeUp)>>>,
}

/// Ends the waiting when it is dropped.
#[derive(Debug)]
#[must_use = "the waiting ends when this is dropped"]
pub struct Watch {
    waiters: Arc<Waiters>,
    slot: usize,
}

impl Waiters {
    pub(crate) fn watch(self: &Arc<Self>, interest: Interest, wake_up: &WakeUp) -> Watch {
        let mut slots = self.lock();
        let entry = Some((interest, wake_up.clone()));
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
        for (interest, wake_up) in self.lock().iter().flatten() {
            if what == Interest::Committed || *interest == Interest::Anything {
                wake_up.wake();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Option<(Interest, WakeUp)>>> {
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
