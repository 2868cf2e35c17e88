//! Pauses between tries, within one deadline.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::error::ClientError;
use crate::options::ClientOptions;

/// The tries of one operation: each [`pause`](Self::pause) is twice as long as the one before it, until the deadline.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
    max: Duration,
    deadline: Instant,
}

impl Backoff {
    pub(crate) fn new(options: &ClientOptions, deadline: Instant) -> Self {
        Self { next: options.retry_backoff, max: options.retry_backoff_max, deadline }
    }

    pub(crate) fn for_operation(options: &ClientOptions) -> Self {
        Self::new(options, Instant::now() + options.operation_timeout)
    }

    /// Waits before the next try; gives `cause` back if that would begin after the deadline.
    pub(crate) async fn pause(&mut self, cause: ClientError) -> Result<(), ClientError> {
        if Instant::now() + self.next >= self.deadline {
            return Err(cause);
        }
        sleep(self.next).await;
        self.next = self.next.saturating_mul(2).min(self.max);
        Ok(())
    }
}
