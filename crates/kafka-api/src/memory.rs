//! Memory for requests, handed out in bytes to whoever asked first.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::sync::oneshot;

/// A number of bytes that many connections share.
///
/// Who cannot be served waits, first come first served. Memory is taken as bytes arrive, so many connections may
/// each hold a part of a request when all is spent, and none could ever finish. The first in line is therefore let
/// in although nothing is left: one connection at a time may finish its request on the *reserve*. Until that
/// request is gone nobody else gets the reserve.
#[derive(Debug)]
pub(crate) struct MemoryPool {
    /// What all may hold together, the reserve not counted.
    capacity: i64,
    /// Whether there is a reserve.
    has_reserve: bool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Below zero by what is drawn from the reserve.
    available: i64,
    reserve_taken: bool,
    waiting: VecDeque<Waiter>,
    used_peak: i64,
}

#[derive(Debug)]
struct Waiter {
    bytes: i64,
    granted: oneshot::Sender<MemoryPermit>,
}

impl MemoryPool {
    /// A pool of `capacity` bytes; with `has_reserve` the first in line never waits for more than the reserve.
    pub(crate) fn new(capacity: u64, has_reserve: bool) -> Arc<Self> {
        let capacity = signed(capacity);
        let state =
            State { available: capacity, reserve_taken: false, waiting: VecDeque::new(), used_peak: 0 };
        Arc::new(Self { capacity, has_reserve, state: Mutex::new(state) })
    }

    /// `bytes` at once or when they are free.
    pub(crate) fn take(self: &Arc<Self>, bytes: u64) -> Acquire {
        let bytes = signed(bytes);
        let mut state = self.lock();
        // Nothing is free for everybody: who is on the reserve must not stand in the line that waits for it.
        if bytes == 0 || (state.waiting.is_empty() && bytes <= state.available) {
            state.take(self.capacity, bytes);
            return Acquire::Granted(Some(self.permit(bytes, false)));
        }
        let (granted, receiver) = oneshot::channel();
        state.waiting.push_back(Waiter { bytes, granted });
        drop(state);
        self.grant();
        Acquire::Waiting(receiver)
    }

    /// Bytes that are held now.
    pub(crate) fn used(&self) -> u64 {
        (self.capacity - self.lock().available).max(0).unsigned_abs()
    }

    /// The most bytes that were ever held.
    pub(crate) fn used_peak(&self) -> u64 {
        self.lock().used_peak.max(0).unsigned_abs()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that runs under the lock can panic between two changes that belong together.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn permit(self: &Arc<Self>, bytes: i64, on_reserve: bool) -> MemoryPermit {
        MemoryPermit { pool: self.clone(), bytes, on_reserve }
    }

    fn give_back(self: &Arc<Self>, bytes: i64, reserve: bool) {
        if bytes == 0 && !reserve {
            return;
        }
        let mut state = self.lock();
        state.available = state.available.saturating_add(bytes);
        state.reserve_taken &= !reserve;
        let somebody_waits = !state.waiting.is_empty();
        drop(state);
        if somebody_waits {
            self.grant();
        }
    }

    /// Serves those in line. Permits are handed over outside the lock: one that nobody takes returns by its drop,
    /// which locks.
    fn grant(self: &Arc<Self>) {
        loop {
            let Some((waiter, permit)) = self.next_grant() else {
                return;
            };
            // Who waited may have gone; its permit is then dropped here.
            drop(waiter.granted.send(permit));
        }
    }

    fn next_grant(self: &Arc<Self>) -> Option<(Waiter, MemoryPermit)> {
        let mut state = self.lock();
        while state.waiting.front().is_some_and(|waiter| waiter.granted.is_closed()) {
            state.waiting.pop_front();
        }
        let bytes = state.waiting.front()?.bytes;
        let on_reserve = bytes > state.available;
        if on_reserve && (state.reserve_taken || !self.has_reserve) {
            return None;
        }
        let waiter = state.waiting.pop_front()?;
        state.reserve_taken |= on_reserve;
        state.take(self.capacity, bytes);
        Some((waiter, self.permit(bytes, on_reserve)))
    }
}

impl State {
    fn take(&mut self, capacity: i64, bytes: i64) {
        self.available = self.available.saturating_sub(bytes);
        self.used_peak = self.used_peak.max(capacity.saturating_sub(self.available));
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// A wait for memory. Dropping it gives up the place in line.
#[derive(Debug)]
#[must_use]
pub(crate) enum Acquire {
    /// Already served; empty once polled.
    Granted(Option<MemoryPermit>),
    /// In line.
    Waiting(oneshot::Receiver<MemoryPermit>),
}

impl Acquire {
    /// The permit, if there was no need to wait.
    pub(crate) fn try_now(self) -> Result<MemoryPermit, Self> {
        match self {
            Self::Granted(Some(permit)) => Ok(permit),
            waiting => Err(waiting),
        }
    }
}

impl Future for Acquire {
    type Output = MemoryPermit;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<MemoryPermit> {
        match &mut *self {
            Self::Granted(permit) => permit.take().map_or(Poll::Pending, Poll::Ready),
            Self::Waiting(receiver) => match Pin::new(receiver).poll(context) {
                Poll::Ready(Ok(permit)) => Poll::Ready(permit),
                // The pool drops no waiter that still listens.
                Poll::Ready(Err(_)) | Poll::Pending => Poll::Pending,
            },
        }
    }
}

/// Bytes of a pool; they return when it is dropped.
#[derive(Debug)]
#[must_use]
pub(crate) struct MemoryPermit {
    pool: Arc<MemoryPool>,
    bytes: i64,
    on_reserve: bool,
}

impl MemoryPermit {
    /// A permit for nothing yet.
    pub(crate) fn none(pool: &Arc<MemoryPool>) -> Self {
        pool.permit(0, false)
    }

    /// How many bytes it covers.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.unsigned_abs()
    }

    /// Whether its holder is the one that may finish on the reserve.
    pub(crate) fn is_on_reserve(&self) -> bool {
        self.on_reserve
    }

    /// Takes the other's bytes over.
    pub(crate) fn merge(&mut self, mut other: Self) {
        self.bytes = self.bytes.saturating_add(std::mem::take(&mut other.bytes));
        self.on_reserve |= std::mem::take(&mut other.on_reserve);
    }

    /// Covers `bytes`, without waiting: for the holder of the reserve, and for the rounding of allocations.
    pub(crate) fn cover(&mut self, bytes: u64) {
        let more = signed(bytes).saturating_sub(self.bytes);
        if more > 0 {
            self.pool.lock().take(self.pool.capacity, more);
            self.bytes = self.bytes.saturating_add(more);
        }
    }

    /// Gives back what is above `bytes`.
    pub(crate) fn shrink_to(&mut self, bytes: u64) {
        let excess = self.bytes.saturating_sub(signed(bytes));
        if excess > 0 {
            self.bytes = self.bytes.saturating_sub(excess);
            self.pool.give_back(excess, false);
        }
    }

    /// Moves up to `bytes` into a permit of their own, and the reserve with them.
    pub(crate) fn split(&mut self, bytes: u64) -> Self {
        let moved = signed(bytes).min(self.bytes);
        self.bytes = self.bytes.saturating_sub(moved);
        self.pool.permit(moved, std::mem::take(&mut self.on_reserve))
    }
}

impl Drop for MemoryPermit {
    fn drop(&mut self) {
        self.pool.give_back(self.bytes, self.on_reserve);
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn poll(acquire: &mut Acquire) -> Option<MemoryPermit> {
        match Pin::new(acquire).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(permit) => Some(permit),
            Poll::Pending => None,
        }
    }

    #[test]
    fn first_come_first_served_even_if_a_later_one_would_fit() {
        let pool = MemoryPool::new(100, false);
        let held = pool.take(80).try_now().unwrap();
        let mut large = pool.take(50);
        let mut small = pool.take(10);
        assert!(poll(&mut large).is_none() && poll(&mut small).is_none());
        drop(held);
        let (large, small) = (poll(&mut large).unwrap(), poll(&mut small).unwrap());
        assert_eq!((large.bytes(), small.bytes(), pool.used()), (50, 10, 60));
        drop((large, small));
        assert_eq!((pool.used(), pool.used_peak()), (0, 80));
    }

    #[test]
    fn who_gives_up_leaves_the_line_and_a_grant_that_nobody_takes_returns() {
        let pool = MemoryPool::new(100, false);
        let held = pool.take(100).try_now().unwrap();
        let first = pool.take(60);
        let mut second = pool.take(70);
        drop(first);
        drop(held);
        let taken = poll(&mut second).unwrap();
        let granted_unseen = pool.take(20);
        assert_eq!(pool.used(), 90);
        drop(granted_unseen);
        drop(taken);
        assert_eq!(pool.used(), 0);
    }

    #[test]
    fn one_at_a_time_finishes_on_the_reserve() {
        let pool = MemoryPool::new(100, true);
        let partial = [pool.take(50).try_now().unwrap(), pool.take(50).try_now().unwrap()];
        let mut waiting = [pool.take(30), pool.take(30)];
        let mut lucky = poll(&mut waiting[0]).unwrap();
        assert!(lucky.is_on_reserve());
        assert!(poll(&mut waiting[1]).is_none(), "the reserve is taken");
        lucky.cover(500);
        assert_eq!(pool.used(), 600);
        let frame = lucky.split(500);
        assert!(frame.is_on_reserve() && !lucky.is_on_reserve());
        drop(lucky);
        assert!(poll(&mut waiting[1]).is_none(), "the request on the reserve is still there");
        drop(frame);
        let next = poll(&mut waiting[1]).unwrap();
        assert!(next.is_on_reserve());
        drop((next, partial));
        assert_eq!(pool.used(), 0);
    }

    #[test]
    fn nothing_is_free_even_behind_a_line() {
        let pool = MemoryPool::new(10, false);
        let held = pool.take(10).try_now().unwrap();
        let waiting = pool.take(1);
        assert_eq!(pool.take(0).try_now().unwrap().bytes(), 0);
        drop((held, waiting));
    }

    #[test]
    fn a_permit_shrinks_grows_and_merges() {
        let pool = MemoryPool::new(100, false);
        let mut permit = MemoryPermit::none(&pool);
        permit.merge(pool.take(40).try_now().unwrap());
        permit.shrink_to(10);
        permit.shrink_to(30);
        assert_eq!((permit.bytes(), pool.used()), (10, 10));
        permit.cover(25);
        permit.cover(5);
        assert_eq!((permit.bytes(), pool.used()), (25, 25));
        let part = permit.split(100);
        assert_eq!((part.bytes(), permit.bytes()), (25, 0));
    }
}
