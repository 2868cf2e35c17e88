//! When the requests of a run are due.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, mpsc};
use tokio::time::Instant;

/// How far the clockwork may run ahead of those who send: more waits in its own time, which is not lost, as a request's
/// due time follows from its number.
const AHEAD_MAX: usize = 1024;

/// A request that is due.
#[derive(Clone, Copy, Debug)]
pub(super) struct Due {
    /// Its number in the run, from 0.
    pub(super) index: u64,
    /// Since when it has been due.
    pub(super) at: Instant,
}

/// Hands out the requests of a run, until its number or its time is used up.
#[derive(Clone)]
pub(super) struct Pace {
    shared: Arc<Shared>,
}

struct Shared {
    next: AtomicU64,
    count: u64,
    end: Instant,
    stopped: AtomicBool,
    /// The ticks of an open loop.
    ticks: Option<Mutex<mpsc::Receiver<Due>>>,
}

impl Pace {
    /// As fast as answers come: the loop is closed.
    pub(super) fn closed(count: Option<u64>, duration: Duration) -> Self {
        Self::with_ticks(count, Instant::now() + duration, None)
    }

    /// `per_second` requests in each second, whatever the answers do. The ticks come from a thread of their own, as the
    /// runtime's timers have a resolution of a millisecond.
    pub(super) fn open(count: Option<u64>, duration: Duration, per_second: f64) -> Self {
        let (sender, ticks) = mpsc::channel(AHEAD_MAX);
        let start = Instant::now();
        let pace = Self::with_ticks(count, start + duration, Some(ticks));
        let clockwork = pace.clone();
        std::thread::spawn(move || clockwork.tick(start, per_second, &sender));
        pace
    }

    fn with_ticks(count: Option<u64>, end: Instant, ticks: Option<mpsc::Receiver<Due>>) -> Self {
        let shared = Shared {
            next: AtomicU64::new(0),
            count: count.unwrap_or(u64::MAX),
            end,
            stopped: AtomicBool::new(false),
            ticks: ticks.map(Mutex::new),
        };
        Self { shared: Arc::new(shared) }
    }

    fn tick(&self, start: Instant, per_second: f64, ticks: &mpsc::Sender<Due>) {
        for index in 0..self.shared.count {
            let at = start + Duration::from_secs_f64(index as f64 / per_second);
            if at >= self.shared.end || self.is_stopped() {
                return;
            }
            std::thread::sleep(at.saturating_duration_since(Instant::now()));
            if ticks.blocking_send(Due { index, at }).is_err() {
                return;
            }
        }
    }

    /// The next request; `None` when the run is over.
    pub(super) async fn next(&self) -> Option<Due> {
        if self.is_stopped() {
            return None;
        }
        if let Some(ticks) = &self.shared.ticks {
            return ticks.lock().await.recv().await;
        }
        let now = Instant::now();
        let index = self.shared.next.fetch_add(1, Ordering::Relaxed);
        (index < self.shared.count && now < self.shared.end).then_some(Due { index, at: now })
    }

    /// Ends the run before its time.
    pub(super) fn stop(&self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.shared.stopped.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn numbers(pace: &Pace) -> Vec<u64> {
        let mut numbers = Vec::new();
        while let Some(due) = pace.next().await {
            numbers.push(due.index);
        }
        numbers
    }

    #[tokio::test]
    async fn a_run_ends_after_its_number_of_requests() {
        let long = Duration::from_secs(3600);
        assert_eq!(numbers(&Pace::closed(Some(3), long)).await, [0, 1, 2]);
        assert_eq!(numbers(&Pace::open(Some(3), long, 1e6)).await, [0, 1, 2]);
    }

    #[tokio::test]
    async fn a_run_ends_after_its_time() {
        assert_eq!(numbers(&Pace::closed(None, Duration::ZERO)).await, [0_u64; 0]);
        let open = Pace::open(None, Duration::from_millis(10), 1_000.0);
        assert_eq!(numbers(&open).await.len(), 10);
    }

    #[tokio::test]
    async fn requests_of_an_open_loop_are_due_by_the_clock() {
        let pace = Pace::open(Some(5), Duration::from_secs(3600), 1_000.0);
        let mut due = Vec::new();
        while let Some(next) = pace.next().await {
            assert!(next.at <= Instant::now());
            due.push(next.at);
        }
        for pair in due.windows(2) {
            let apart = pair[1] - pair[0];
            assert!(apart.abs_diff(Duration::from_millis(1)) < Duration::from_micros(2), "{apart:?}");
        }
    }
}
