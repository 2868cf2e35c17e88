//! The broker's two clocks.

use std::time::Duration;

use klamm_types::Timestamp;
use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

/// Tells the time. Cheap to copy; all copies agree.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Milliseconds since the machine was started, when the clock was.
    origin: i64,
}

impl Clock {
    /// A clock whose [`now`](Self::now) starts at zero.
    #[must_use]
    pub fn start() -> Self {
        Self { origin: since_boot() }
    }

    /// Milliseconds since the clock was started. Never jumps and never goes back: deadlines, lags and leases count in
    /// it. It means nothing to other nodes, nor after a restart.
    ///
    /// Time in which the machine was suspended counts: a lease must not outlive it, for the others went on.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        Timestamp(since_boot() - self.origin)
    }

    /// The instant `timeout` from now, on the clock of [`now`](Self::now).
    #[must_use]
    pub fn after(&self, timeout: Duration) -> Timestamp {
        self.now().plus_millis(i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX))
    }

    /// The same instant for timers of tokio; now, if it is over.
    #[must_use]
    pub fn instant(&self, at: Timestamp) -> Instant {
        let left = at.millis_since(self.now());
        Instant::now() + Duration::from_millis(u64::try_from(left).unwrap_or(0).min(FAR_MS))
    }

    /// Milliseconds since 1970, as records carry them. May jump with the machine's clock.
    #[must_use]
    pub fn wall(&self) -> Timestamp {
        #[expect(clippy::disallowed_methods, reason = "this is the place where the broker reads the clock")]
        let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let millis = since_epoch.map_or(0, |since| since.as_millis());
        Timestamp(i64::try_from(millis).unwrap_or(i64::MAX))
    }
}

/// Farther away than any timer need be: a year.
const FAR_MS: u64 = 365 * 24 * 3_600 * 1_000;

/// Milliseconds since the machine was started, suspension included.
fn since_boot() -> i64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec.saturating_mul(1_000).saturating_add(now.tv_nsec / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on_and_timers_end_no_earlier() {
        let clock = Clock::start();
        let before = clock.now();
        assert!((0..1_000).contains(&before.0), "{before}");
        let at = before.plus_millis(5);
        let timer = clock.instant(at);
        while Instant::now() < timer {
            std::thread::yield_now();
        }
        assert!(clock.now() >= at);
        let over = clock.instant(Timestamp(i64::MIN));
        assert!(over <= Instant::now());
        assert!(clock.instant(Timestamp(i64::MAX)) > Instant::now() + Duration::from_secs(3_600));
    }
}
