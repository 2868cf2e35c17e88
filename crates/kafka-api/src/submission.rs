//! Passing a change on to the active controller.

use std::sync::Arc;
use std::time::Duration;

use klamm_broker::controller_client::Submitted;
use klamm_pb::controller::v1::submit_response::Outcome;
use klamm_pb::controller::v1::{Refusal, submit_request};
use klamm_protocol::ErrorCode;
use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::errors::refusal_code;
use crate::ports::GatewayError;

/// A refusal as clients are told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) code: ErrorCode,
    pub(crate) message: Option<String>,
}

impl Refused {
    /// With the sentence that explains it.
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: Some(message.into()) }
    }

    /// As the controller has it.
    fn of_controller(code: i32, reason: &str) -> Self {
        let code = refusal_code(code);
        if reason.is_empty() { Self::plain(code) } else { Self::new(code, reason) }
    }

    /// With the sentence that goes with the code.
    pub(crate) fn plain(code: ErrorCode) -> Self {
        Self { code, message: Some(code.message().to_owned()) }
    }
}

impl From<GatewayError> for Refused {
    fn from(error: GatewayError) -> Self {
        let code = match &error {
            GatewayError::TimedOut => ErrorCode::RequestTimedOut,
            GatewayError::BadAnswer | GatewayError::Impossible { .. } => ErrorCode::UnknownServerError,
            GatewayError::Refused { code, reason } => return Self::of_controller(*code, reason),
        };
        Self::new(code, error.to_string())
    }
}

/// What became of one item of a request.
pub(crate) fn item_result(refusal: Option<Refusal>) -> Result<(), Refused> {
    match refusal {
        None => Ok(()),
        Some(Refusal { code: 0, .. }) => Ok(()),
        Some(Refusal { code, message }) => Err(Refused::of_controller(code, &message)),
    }
}

/// The numbers and words of an answer for an item.
pub(crate) fn told(result: Result<(), Refused>) -> (i16, Option<String>) {
    match result {
        Ok(()) => (ErrorCode::None.code(), None),
        Err(Refused { code, message }) => (code.code(), message),
    }
}

/// Asks for the change, and once it is committed waits until this broker has applied it as well, so that a client
/// that goes on asking here sees what it did. The change counts even if this broker lags past the timeout.
///
/// # Errors
/// The refusal of the request as a whole.
pub(crate) async fn submit(
    cluster: &Arc<Cluster>,
    change: submit_request::Change,
    timeout: Duration,
) -> Result<Outcome, Refused> {
    let deadline = Instant::now() + timeout;
    let Submitted { applied, outcome } = cluster.controller.submit(change, timeout).await?;
    cluster.metadata.applied(applied, deadline).await;
    Ok(outcome)
}
