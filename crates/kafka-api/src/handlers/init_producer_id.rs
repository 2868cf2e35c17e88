//! InitProducerId (22): the number by which an idempotent producer is known (KIP-98).
//!
//! There are no transactions yet. A producer that names a transactional id is told what Kafka tells while the
//! coordinator of transactions cannot be had, and asks again.

use std::fmt;
use std::sync::Arc;

use klamm_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse};
use klamm_protocol::{ErrorCode, VersionRange};
use klamm_types::ProducerId;

use crate::context::RequestContext;
use crate::table::{Access, Answer, BoxFuture, Handler, Operation, Ticket};

/// Gives away producer ids.
pub trait ProducerIdSource: Send + Sync + fmt::Debug + 'static {
    /// An id that nobody has been given. `None` if none can be had now: the controller gives no answer.
    fn next(&self) -> BoxFuture<Option<ProducerId>>;
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
        let id = self.ids.next();
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
