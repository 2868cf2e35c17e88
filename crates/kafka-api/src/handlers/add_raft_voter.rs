//! AddRaftVoter (80): a controller that follows the quorum becomes one of its voters (KIP-853).

use std::sync::Arc;

use klamm_pb::controller::v1::AddVoterRequest;
use klamm_protocol::messages::{AddRaftVoterRequest, AddRaftVoterResponse};
use klamm_protocol::{ErrorCode, VersionRange};

use crate::cluster::{Cluster, timeout};
use crate::context::RequestContext;
use crate::ports::GatewayError;
use crate::submission::{Refused, told};
use crate::table::{Access, Answer, Handler, Operation, Ticket};

/// Serves AddRaftVoter.
pub(crate) struct AddRaftVoterHandler {
    cluster: Arc<Cluster>,
}

impl AddRaftVoterHandler {
    pub(crate) fn new(cluster: Arc<Cluster>) -> Self {
        Self { cluster }
    }
}

impl Handler for AddRaftVoterHandler {
    type Request = AddRaftVoterRequest;

    const VERSIONS: VersionRange = AddRaftVoterRequest::VERSIONS;
    const ACCESS: Access = Access::Cluster(Operation::Alter);

    fn handle(&self, _: RequestContext, request: AddRaftVoterRequest) -> Ticket<AddRaftVoterResponse> {
        let cluster = self.cluster.clone();
        Ticket::later(async move {
            let (error_code, error_message) = told(add(&cluster, request).await);
            Answer::Response(AddRaftVoterResponse { throttle_time_ms: 0, error_code, error_message })
        })
    }
}

async fn add(cluster: &Cluster, request: AddRaftVoterRequest) -> Result<(), Refused> {
    cluster.check_id(request.cluster_id.as_deref())?;
    let names = cluster.settings.list("controller.listener.names");
    let is_ours = |name: &String| names.is_empty() || names.contains(name);
    let listener =
        request.listeners.into_iter().find(|listener| is_ours(&listener.name)).ok_or_else(|| {
            let reason = format!("the voter has no listener of {}", names.join(", "));
            Refused::new(ErrorCode::InvalidRequest, reason)
        })?;
    let voter = AddVoterRequest {
        node_id: request.voter_id,
        directory_id: request.voter_directory_id.0.to_vec().into(),
        host: listener.host,
        port: listener.port.into(),
        ..AddVoterRequest::default()
    };
    let timeout = timeout(request.timeout_ms);
    match cluster.controller.add_voter(voter, timeout).await {
        // The voter may have been added: only the answer was not waited for.
        Err(GatewayError::TimedOut) if !request.ack_when_committed => Ok(()),
        added => added.map_err(Refused::from),
    }
}

#[cfg(test)]
mod tests {
    use klamm_protocol::Uuid;
    use klamm_protocol::messages::add_raft_voter_request::Listener;

    use super::*;
    use crate::fixture::{Bed, VoterChange, answer, context_of};

    fn request() -> AddRaftVoterRequest {
        let listener = |name: &str, port| Listener { name: name.to_owned(), host: "h".to_owned(), port };
        AddRaftVoterRequest {
            cluster_id: Some("cluster".to_owned()),
            timeout_ms: 1_000,
            voter_id: 4,
            voter_directory_id: Uuid([5; 16]),
            listeners: vec![listener("OTHER", 1), listener("CONTROLLER", 9_093)],
            ack_when_committed: true,
        }
    }

    fn ask(bed: &Arc<Bed>, request: AddRaftVoterRequest) -> i16 {
        bed.start_with("controller.listener.names", "CONTROLLER");
        let handler = AddRaftVoterHandler::new(bed.cluster());
        answer(handler.handle(context_of::<AddRaftVoterRequest>(1), request)).error_code
    }

    #[test]
    fn the_voter_is_named_by_the_controllers_listener() {
        let bed = Bed::with_brokers(&[(1, false)]);
        assert_eq!(ask(&bed, request()), 0);
        assert_eq!(ask(&bed, AddRaftVoterRequest { cluster_id: None, ..request() }), 0);
        let VoterChange::Add(asked) = bed.voters.lock().unwrap()[0].clone() else { panic!("an addition") };
        assert_eq!((asked.node_id, asked.host.as_str(), asked.port), (4, "h", 9_093));
        assert_eq!(asked.directory_id[..], [5; 16]);
    }

    #[test]
    fn foreign_clusters_and_listeners_are_refused_without_asking() {
        let bed = Bed::with_brokers(&[(1, false)]);
        let foreign = AddRaftVoterRequest { cluster_id: Some("other".to_owned()), ..request() };
        assert_eq!(ask(&bed, foreign), ErrorCode::InconsistentClusterId.code());
        let silent = AddRaftVoterRequest { listeners: Vec::new(), ..request() };
        assert_eq!(ask(&bed, silent), ErrorCode::InvalidRequest.code());
        assert!(bed.voters.lock().unwrap().is_empty());
    }

    #[test]
    fn who_does_not_wait_is_not_told_that_time_ran_out() {
        let bed = Bed::with_brokers(&[(1, false)]);
        *bed.voters_refused.lock().unwrap() = Some(GatewayError::TimedOut);
        assert_eq!(ask(&bed, request()), ErrorCode::RequestTimedOut.code());
        assert_eq!(ask(&bed, AddRaftVoterRequest { ack_when_committed: false, ..request() }), 0);
    }
}
