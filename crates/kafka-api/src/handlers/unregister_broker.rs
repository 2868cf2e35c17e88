//! UnregisterBroker (64): forgets a broker that will not come back.

use std::sync::Arc;
use std::time::Duration;

use klamm_pb::controller::v1::UnregisterBroker;
use klamm_pb::controller::v1::submit_request::Change;
use klamm_pb::controller::v1::submit_response::Outcome;
use klamm_protocol::VersionRange;
use klamm_protocol::messages::{UnregisterBrokerRequest, UnregisterBrokerResponse};

use crate::cluster::Cluster;
use crate::context::RequestContext;
use crate::ports::GatewayError;
use crate::submission::{Refused, item_result, submit, told};
use crate::table::{Access, Answer, Handler, Operation, Ticket};

/// How long the controller may take; the request cannot say it.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Serves UnregisterBroker.
pub(crate) struct UnregisterBrokerHandler {
    cluster: Arc<Cluster>,
}

impl UnregisterBrokerHandler {
    pub(crate) fn new(cluster: Arc<Cluster>) -> Self {
        Self { cluster }
    }
}

impl Handler for UnregisterBrokerHandler {
    type Request = UnregisterBrokerRequest;

    const VERSIONS: VersionRange = UnregisterBrokerRequest::VERSIONS;
    const ACCESS: Access = Access::Cluster(Operation::Alter);

    fn handle(
        &self,
        _: RequestContext,
        request: UnregisterBrokerRequest,
    ) -> Ticket<UnregisterBrokerResponse> {
        let cluster = self.cluster.clone();
        Ticket::later(async move {
            let (error_code, error_message) = told(unregister(&cluster, request.broker_id).await);
            Answer::Response(UnregisterBrokerResponse { throttle_time_ms: 0, error_code, error_message })
        })
    }
}

async fn unregister(cluster: &Arc<Cluster>, broker_id: i32) -> Result<(), Refused> {
    let change = Change::UnregisterBroker(UnregisterBroker { broker_id });
    match submit(cluster, change, TIMEOUT).await? {
        Outcome::UnregisterBroker(outcome) => item_result(outcome.refusal),
        _ => Err(GatewayError::BadAnswer.into()),
    }
}

#[cfg(test)]
mod tests {
    use klamm_pb::controller::v1::{Refusal, UnregisterBrokerOutcome};
    use klamm_protocol::ErrorCode;

    use super::*;
    use crate::fixture::{Bed, answer, context_of};

    #[test]
    fn the_outcome_is_the_controllers() {
        let bed = Bed::with_brokers(&[(1, false)]);
        let handler = UnregisterBrokerHandler::new(bed.cluster());
        for code in [ErrorCode::None, ErrorCode::BrokerIdNotRegistered] {
            let refusal = Some(Refusal { code: i32::from(code.code()), message: String::new() });
            bed.reply(Ok(Outcome::UnregisterBroker(UnregisterBrokerOutcome { refusal })));
            let request = UnregisterBrokerRequest { broker_id: 4 };
            let response = answer(handler.handle(context_of::<UnregisterBrokerRequest>(0), request));
            assert_eq!(response.error_code, code.code());
        }
        let [Change::UnregisterBroker(change), _] = &bed.changes()[..] else { panic!("two changes") };
        assert_eq!(change.broker_id, 4);
    }
}
