//! RemoveRaftVoter (81): a voter of the metadata quorum votes no more (KIP-853).

use std::sync::Arc;
use std::time::Duration;

use klamm_pb::controller::v1::RemoveVoterRequest;
use klamm_protocol::VersionRange;
use klamm_protocol::messages::{RemoveRaftVoterRequest, RemoveRaftVoterResponse};

use crate::cluster::Cluster;
use crate::context::RequestContext;
use crate::submission::{Refused, told};
use crate::table::{Access, Answer, Handler, Operation, Ticket};

/// How long the quorum may take; the request cannot say it.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Serves RemoveRaftVoter.
pub(crate) struct RemoveRaftVoterHandler {
    cluster: Arc<Cluster>,
}

impl RemoveRaftVoterHandler {
    pub(crate) fn new(cluster: Arc<Cluster>) -> Self {
        Self { cluster }
    }
}

impl Handler for RemoveRaftVoterHandler {
    type Request = RemoveRaftVoterRequest;

    const VERSIONS: VersionRange = RemoveRaftVoterRequest::VERSIONS;
    const ACCESS: Access = Access::Cluster(Operation::Alter);

    fn handle(&self, _: RequestContext, request: RemoveRaftVoterRequest) -> Ticket<RemoveRaftVoterResponse> {
        let cluster = self.cluster.clone();
        Ticket::later(async move {
            let (error_code, error_message) = told(remove(&cluster, request).await);
            Answer::Response(RemoveRaftVoterResponse { throttle_time_ms: 0, error_code, error_message })
        })
    }
}

async fn remove(cluster: &Cluster, request: RemoveRaftVoterRequest) -> Result<(), Refused> {
    cluster.check_id(request.cluster_id.as_deref())?;
    let voter = RemoveVoterRequest {
        node_id: request.voter_id,
        directory_id: request.voter_directory_id.0.to_vec().into(),
        ..RemoveVoterRequest::default()
    };
    cluster.controller.remove_voter(voter, TIMEOUT).await.map_err(Refused::from)
}

#[cfg(test)]
mod tests {
    use klamm_protocol::{ErrorCode, Uuid};

    use super::*;
    use crate::fixture::{Bed, VoterChange, answer, context_of};
    use crate::ports::GatewayError;

    fn ask(bed: &Arc<Bed>, cluster_id: &str) -> (i16, Option<String>) {
        let handler = RemoveRaftVoterHandler::new(bed.cluster());
        let request = RemoveRaftVoterRequest {
            cluster_id: Some(cluster_id.to_owned()),
            voter_id: 4,
            voter_directory_id: Uuid([5; 16]),
        };
        let response = answer(handler.handle(context_of::<RemoveRaftVoterRequest>(0), request));
        (response.error_code, response.error_message)
    }

    #[test]
    fn the_quorum_decides() {
        let bed = Bed::with_brokers(&[(1, false)]);
        assert_eq!(ask(&bed, "cluster"), (0, None));
        let VoterChange::Remove(asked) = bed.voters.lock().unwrap()[0].clone() else { panic!("a removal") };
        assert_eq!((asked.node_id, &asked.directory_id[..]), (4, &[5; 16][..]));
        let code = ErrorCode::VoterNotFound.code();
        *bed.voters_refused.lock().unwrap() =
            Some(GatewayError::Refused { code: code.into(), reason: "who?".to_owned() });
        assert_eq!(ask(&bed, "cluster"), (code, Some("who?".to_owned())));
    }

    #[test]
    fn another_cluster_is_refused_without_asking() {
        let bed = Bed::with_brokers(&[(1, false)]);
        assert_eq!(ask(&bed, "other").0, ErrorCode::InconsistentClusterId.code());
        assert!(bed.voters.lock().unwrap().is_empty());
    }
}
