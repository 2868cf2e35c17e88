//! The thin shell around the clocks and chance of the system.

use klamm_control::Randomness;
use klamm_types::Timestamp;
use tokio::time::Instant;

/// A monotonic clock that starts at 0.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { origin: Instant::now() }
    }

    /// Milliseconds since it was started.
    pub(crate) fn now(self) -> Timestamp {
        Timestamp(i64::try_from(self.origin.elapsed().as_millis()).unwrap_or(i64::MAX))
    }
}

/// Wall-clock time: what people read, and no decision depends on.
pub(crate) fn wall_clock() -> Timestamp {
    #[expect(clippy::disallowed_methods, reason = "the shell around the system's clock")]
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(Timestamp::NONE, |since| Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX)))
}

/// Bits that nobody can predict.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SystemRandomness;

impl Randomness for SystemRandomness {
    fn next_u64(&mut self) -> u64 {
        // The six fixed bits of a version 4 identity meet random ones in the other half.
        let (high, low) = uuid::Uuid::new_v4().as_u64_pair();
        high ^ low.rotate_left(32)
    }
}
