//! InitProducerId (22): the number by which an idempotent producer is known (KIP-98).
//!
//! There are no transactions yet. A producer that names a transactional id is told what Kafka tells while the
//! coordinator of transactions cannot be had, and asks again.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use klamm_broker::producer_ids::ProducerIds;
use klamm_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse};
use klamm_protocol::{ErrorCode, VersionRange};
use klamm_types::ProducerId;

use crate::context::RequestContext;
use crate::table::{Access, Answer, BoxFuture, Handler, Operation, Ticket};

/// How long a producer waits for the controller to give this broker more ids.
const BLOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// Gives away producer ids.
pub trait ProducerIdSource: Send + Sync + fmt::Debug + 'static {
    /// An id that nobody has been given. `None` if none can be had now: the controller gives no answer.
    fn next(self: Arc<Self>) -> BoxFuture<Option<ProducerId>>;
}

impl ProducerIdSource for ProducerIds {
    fn next(self: Arc<Self>) -> BoxFuture<Option<ProducerId>> {
        Box::pin(async move {
            let id = Self::next(&self, BLOCK_TIMEOUT).await;
            id.inspect_err(|error| tracing::warn!(%error, "there is no producer id to give away")).ok()
        })
    }
}

/// The handler.
#[derive(Debug)]
pub(crate) struct InitProducerIdHandler {
    ids: Arc<dyn ProducerIdSource>,
}

impl InitProducerIdHandler {
    /// A handler that takes the ids from there.
    pub(crate) fn new(ids: Arc<dyn ProducerIdSource>) -> Self {
        Self { ids }
    }
}

impl Handler for InitProducerIdHandler {
    type Request = InitProducerIdRequest;

    // Version 6, of two-phase commit, is unstable in 4.3.
    const VERSIONS: VersionRange = VersionRange::new(0, 5);
    const ACCESS: Access = Access::Cluster(Operation::IdempotentWrite);

    fn handle(
        &self,
        _context: RequestContext,
        request: InitProducerIdRequest,
    ) -> Ticket<InitProducerIdResponse> {
        if let Err(code) = check(&request) {
            return Ticket::ready(Answer::Response(refusal(code)));
        }
        let id = Arc::clone(&self.ids).next();
        Ticket::later(async move {
            Answer::Response(match id.await {
                Some(id) => InitProducerIdResponse {
                    producer_id: id.0,
                    producer_epoch: 0,
                    ..InitProducerIdResponse::default()
                },
                None => refusal(ErrorCode::CoordinatorLoadInProgress),
            })
        })
    }
}

fn check(request: &InitProducerIdRequest) -> Result<(), ErrorCode> {
    let is_known = request.producer_id >= 0;
    if is_known != (request.producer_epoch >= 0) {
        return Err(ErrorCode::InvalidRequest);
    }
    match request.transactional_id.as_deref() {
        None => Ok(()),
        Some("") => Err(ErrorCode::InvalidRequest),
        Some(_) => Err(ErrorCode::CoordinatorNotAvailable),
    }
}

fn refusal(code: ErrorCode) -> InitProducerIdResponse {
    InitProducerIdResponse {
        error_code: code as i16,
        producer_id: -1,
        producer_epoch: -1,
        ..InitProducerIdResponse::default()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;
    use crate::data_bed::{context, outcome};

    /// Counts up; has none below zero.
    #[derive(Debug)]
    struct Counting(AtomicI64);

    impl ProducerIdSource for Counting {
        fn next(self: Arc<Self>) -> BoxFuture<Option<ProducerId>> {
            let id = self.0.fetch_add(1, Ordering::Relaxed);
            Box::pin(async move { (id >= 0).then_some(ProducerId(id)) })
        }
    }

    async fn ask(handler: &InitProducerIdHandler, request: InitProducerIdRequest) -> InitProducerIdResponse {
        let ticket = handler.handle(context::<InitProducerIdRequest>(5), request);
        match outcome(ticket).await {
            Answer::Response(response) => response,
            Answer::WithFiles(..) | Answer::Nothing | Answer::Close => panic!("there is a response"),
        }
    }

    #[tokio::test]
    async fn idempotent_producers_get_ids() {
        let handler = InitProducerIdHandler::new(Arc::new(Counting(AtomicI64::new(-1))));
        let request = InitProducerIdRequest {
            transactional_id: None,
            producer_id: -1,
            producer_epoch: -1,
            ..Default::default()
        };
        let none_yet = ask(&handler, request.clone()).await;
        assert_eq!(none_yet.error_code, ErrorCode::CoordinatorLoadInProgress as i16);
        for id in 0..3 {
            let answer = ask(&handler, request.clone()).await;
            assert_eq!((answer.error_code, answer.producer_id, answer.producer_epoch), (0, id, 0));
        }
    }

    #[tokio::test]
    async fn what_has_no_coordinator_or_no_sense_is_refused() {
        let handler = InitProducerIdHandler::new(Arc::new(Counting(AtomicI64::new(0))));
        let request = |transactional_id: Option<&str>, producer_id, producer_epoch| InitProducerIdRequest {
            transactional_id: transactional_id.map(str::to_owned),
            producer_id,
            producer_epoch,
            ..Default::default()
        };
        let cases = [
            (request(Some("orders"), -1, -1), ErrorCode::CoordinatorNotAvailable),
            (request(Some(""), -1, -1), ErrorCode::InvalidRequest),
            (request(None, 5, -1), ErrorCode::InvalidRequest),
            (request(None, -1, 0), ErrorCode::InvalidRequest),
        ];
        for (request, code) in cases {
            let answer = ask(&handler, request).await;
            assert_eq!((answer.error_code, answer.producer_id, answer.producer_epoch), (code as i16, -1, -1));
        }
    }
}
