//! How long a call may take.

use std::time::Duration;

use tokio::time::Instant;
use tonic::{Request, Response, Status};

use crate::RpcError;

/// The instant at which the caller stops waiting. It does not say that the call did not happen.
///
/// A call is bound on both sides: [`request`](Self::request) tells the server how long the answer is of use, and
/// [`run`](Self::run) ends the wait here even if the connection is still being made.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Deadline(Instant);

impl Deadline {
    /// `timeout` from now.
    #[must_use]
    pub fn after(timeout: Duration) -> Self {
        let now = Instant::now();
        // Longer than anybody waits, and far from the end of the clock.
        let furthest = Duration::from_secs(365 * 24 * 3600);
        Self(now + timeout.min(furthest))
    }

    /// At `instant`.
    #[must_use]
    pub const fn at(instant: Instant) -> Self {
        Self(instant)
    }

    /// The instant.
    #[must_use]
    pub const fn instant(self) -> Instant {
        self.0
    }

    /// What is left; zero once it is over.
    #[must_use]
    pub fn remaining(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// Whether it has passed.
    #[must_use]
    pub fn is_over(self) -> bool {
        self.remaining().is_zero()
    }

    /// A request that carries what is left as its `grpc-timeout`.
    #[must_use]
    pub fn request<T>(self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        // The encoding has at most eight digits; a timeout of zero is none to some servers.
        request.set_timeout(self.remaining().max(Duration::from_millis(1)));
        request
    }

    /// The outcome of `call`, waited for until the deadline.
    ///
    /// # Errors
    /// What the status of the answer says, or [`RpcError::TimedOut`].
    pub async fn run<T>(
        self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, RpcError> {
        match tokio::time::timeout_at(self.0, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(RpcError::from(status)),
            Err(_) => Err(RpcError::TimedOut),
        }
    }
}
