//! The broker's session with the controller, as partitions see it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use klamm_types::Timestamp;

/// Until when this broker may take it that nobody else leads what it leads. Lifecycle extends it with every heartbeat
/// that the controller answered; partitions look at it with every append. Clones share it.
#[derive(Clone, Debug)]
pub struct SessionLease(Arc<AtomicI64>);

impl Default for SessionLease {
    fn default() -> Self {
        Self::expired()
    }
}

impl SessionLease {
    /// No session: nothing is appended or served.
    #[must_use]
    pub fn expired() -> Self {
        Self(Arc::new(AtomicI64::new(i64::MIN)))
    }

    /// The session lasts until `until`, on the broker's [`Clock`](crate::Clock). Counted from before the heartbeat was
    /// sent. It never gets shorter by this.
    pub fn extend(&self, until: Timestamp) {
        self.0.fetch_max(until.0, Ordering::AcqRel);
    }

    /// The session is over, known by other means than time.
    pub fn end(&self) {
        self.0.store(i64::MIN, Ordering::Release);
    }

    /// Until when the session lasts.
    #[must_use]
    pub fn until(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::Acquire))
    }
}
