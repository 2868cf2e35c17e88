//! The broker's two clocks.

use std::time::Duration;

use klamm_types::Timestamp;
use tokio::time::Instant;

/// Tells the time. Cheap to copy; all copies agree.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    /// A clock whose [`now`](Self::now) starts at zero.
    #[must_use]
    pub fn start() -> Self {
        Self { origin: Instant::now() }
    }

    /// Milliseconds since the clock was started. Never jumps and never goes back: deadlines, lags and leases count in
    /// it. It means nothing to other nodes, nor after a restart.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        Timestamp(i64::try_from(self.origin.elapsed().as_millis()).unwrap_or(i64::MAX))
    }

    /// The instant `timeout` from now, on the clock of [`now`](Self::now).
    #[must_use]
    pub fn after(&self, timeout: Duration) -> Timestamp {
        self.now().plus_millis(i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX))
    }

    /// The same instant for timers of tokio.
    #[must_use]
    pub fn instant(&self, at: Timestamp) -> Instant {
        self.origin + Duration::from_millis(u64::try_from(at.0).unwrap_or(0))
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
