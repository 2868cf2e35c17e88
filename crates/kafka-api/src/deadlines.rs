//! When a connection has waited long enough.

use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// What a peer must move within each window, in bytes, unless it finishes.
const PROGRESS_BYTES_MIN: usize = 64 << 10;
/// How long a connection must wait at least for nothing; later than every real deadline.
const FAR: Duration = Duration::from_secs(24 * 3_600);

/// A peer that is expected to move bytes: enough of them in each window of time. One that moves a byte now and then
/// is cut off like one that moves none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProgressWindow {
    length: Duration,
    ends: Instant,
    moved: usize,
}

impl ProgressWindow {
    pub(crate) fn open(now: Instant, length: Duration) -> Self {
        Self { length, ends: now + length, moved: 0 }
    }

    /// When the peer is cut off.
    pub(crate) fn ends(&self) -> Instant {
        self.ends
    }

    /// The peer moved `bytes`; enough of them begin the next window.
    pub(crate) fn moved(&mut self, now: Instant, bytes: usize) {
        self.moved = self.moved.saturating_add(bytes);
        if self.moved >= PROGRESS_BYTES_MIN {
            *self = Self::open(now, self.length);
        }
    }
}

/// One timer for all deadlines of a connection. Deadlines move further with every request, so the timer is only set
/// anew when one comes nearer or when it fires: it may fire early, never late.
#[derive(Debug)]
pub(crate) struct Timer {
    sleep: Pin<Box<Sleep>>,
}

impl Timer {
    pub(crate) fn new(now: Instant) -> Self {
        Self { sleep: Box::pin(sleep_until(now + FAR)) }
    }

    /// Fires at the first of `deadlines` at the latest.
    pub(crate) fn arm(&mut self, now: Instant, deadlines: impl IntoIterator<Item = Option<Instant>>) {
        let next = deadlines.into_iter().flatten().min().unwrap_or(now + FAR);
        if next < self.sleep.deadline() || self.sleep.is_elapsed() {
            self.sleep.as_mut().reset(next);
        }
    }

    pub(crate) async fn fired(&mut self) {
        self.sleep.as_mut().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn drops_do_not_count_as_progress() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut window = ProgressWindow::open(start, 30 * second);
        for tick in 1..30 {
            window.moved(start + tick * second, 1);
        }
        assert_eq!(window.ends(), start + 30 * second);
        window.moved(start + 29 * second, 64 << 10);
        assert_eq!(window.ends(), start + 59 * second);
    }

    #[tokio::test(start_paused = true)]
    async fn the_timer_fires_at_the_first_deadline_and_again_when_armed() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut timer = Timer::new(start);
        timer.arm(start, [Some(start + 9 * second), None, Some(start + 5 * second)]);
        timer.arm(start, [Some(start + 7 * second)]);
        timer.fired().await;
        assert_eq!(start.elapsed().as_secs(), 5);
        timer.arm(Instant::now(), [Some(start + 7 * second)]);
        timer.fired().await;
        assert_eq!(start.elapsed().as_secs(), 7);
    }
}
