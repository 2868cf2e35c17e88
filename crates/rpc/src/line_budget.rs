//! Log lines that others cause, held to a number that an operator can read.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Lets one line through in an interval, and counts those between.
///
/// For lines whose number a peer decides: a stranger who sends nonsense must not fill the disk with it.
#[derive(Debug)]
pub struct LineBudget {
    interval: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// When the next line may be written; at once if there was none yet.
    next: Option<Instant>,
    held_back: u64,
}

impl LineBudget {
    /// One line per `interval`.
    #[must_use]
    pub const fn new(interval: Duration) -> Self {
        Self { interval, state: Mutex::new(State { next: None, held_back: 0 }) }
    }

    /// Whether a line may be written now: how many were held back since the last one. `None` holds this one back.
    #[must_use]
    pub fn take(&self) -> Option<u64> {
        self.take_at(Instant::now())
    }

    fn take_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.next.is_some_and(|next| now < next) {
            state.held_back += 1;
            return None;
        }
        state.next = Some(now + self.interval);
        Some(std::mem::take(&mut state.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_per_interval_tells_how_many_were_held_back() {
        let budget = LineBudget::new(Duration::from_secs(10));
        let start = Instant::now();
        let at = |seconds| budget.take_at(start + Duration::from_secs(seconds));
        assert_eq!(at(0), Some(0));
        assert_eq!([at(1), at(9)], [None, None]);
        assert_eq!(at(10), Some(2));
        assert_eq!(at(11), None);
        assert_eq!(at(70), Some(1));
    }
}
