//! Growing pauses between attempts.

use std::time::Duration;

/// The pauses between attempts to reach a node: the first is short, each is twice the one before, up to a limit. They are
/// short because a failover waits for them: the refusal of a connection costs a peer next to nothing.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    limit: Duration,
    next: Duration,
}

impl Backoff {
    /// Pauses from `first` up to `limit`.
    #[must_use]
    pub const fn new(first: Duration, limit: Duration) -> Self {
        Self { first, limit, next: first }
    }

    /// 5 ms up to 200 ms.
    #[must_use]
    pub const fn between_nodes() -> Self {
        Self::new(Duration::from_millis(5), Duration::from_millis(200))
    }

    /// The pause before the next attempt.
    pub fn next_pause(&mut self) -> Duration {
        let pause = self.next.min(self.limit);
        self.next = pause.saturating_mul(2).min(self.limit);
        pause
    }

    /// An attempt has succeeded: the next pause is the first again.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_limit_and_start_again() {
        let mut backoff = Backoff::between_nodes();
        let pauses: Vec<_> = (0..8).map(|_| backoff.next_pause().as_millis()).collect();
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 200, 200]);
        backoff.reset();
        assert_eq!(backoff.next_pause().as_millis(), 5);
    }
}
