//! DescribeCluster (60): the cluster's id and its brokers (KIP-700, KIP-919, KIP-1073).

use std::sync::Arc;

use klamm_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use klamm_protocol::messages::{DescribeClusterRequest, DescribeClusterResponse};
use klamm_protocol::{ErrorCode, VersionRange};

use crate::cluster::{CLUSTER_OPERATIONS, Cluster, OPERATIONS_NOT_ASKED};
use crate::context::RequestContext;
use crate::table::{Access, Answer, Handler, Operation, Ticket};

const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

/// Serves DescribeCluster on listeners of brokers.
pub(crate) struct DescribeClusterHandler {
    cluster: Arc<Cluster>,
}

impl DescribeClusterHandler {
    pub(crate) fn new(cluster: Arc<Cluster>) -> Self {
        Self { cluster }
    }

    fn describe(
        &self,
        context: &RequestContext,
        request: &DescribeClusterRequest,
    ) -> DescribeClusterResponse {
        let view = self.cluster.view(&context.listener);
        let with_fenced = context.version >= 2 && request.include_fenced_brokers;
        let nodes = view.nodes().filter(|node| with_fenced || !node.fenced);
        let brokers = nodes.map(|node| DescribeClusterBroker {
            broker_id: node.id.0,
            host: node.host,
            port: node.port,
            rack: node.rack,
            is_fenced: node.fenced && context.version >= 2,
        });
        let asked = request.include_cluster_authorized_operations;
        DescribeClusterResponse {
            endpoint_type: BROKERS,
            cluster_id: self.cluster.cluster_id.to_string(),
            controller_id: view.controller().map_or(-1, |id| id.0),
            brokers: brokers.collect(),
            cluster_authorized_operations: if asked { CLUSTER_OPERATIONS } else { OPERATIONS_NOT_ASKED },
            ..DescribeClusterResponse::default()
        }
    }
}

impl Handler for DescribeClusterHandler {
    type Request = DescribeClusterRequest;

    const VERSIONS: VersionRange = DescribeClusterRequest::VERSIONS;
    const ACCESS: Access = Access::Cluster(Operation::Describe);

    fn handle(
        &self,
        context: RequestContext,
        request: DescribeClusterRequest,
    ) -> Ticket<DescribeClusterResponse> {
        let response = match request.endpoint_type {
            BROKERS => self.describe(&context, &request),
            CONTROLLERS => refused(ErrorCode::MismatchedEndpointType, "this is an endpoint of brokers"),
            _ => refused(ErrorCode::UnsupportedEndpointType, "there is no such type of endpoint"),
        };
        Ticket::ready(Answer::Response(response))
    }
}

fn refused(code: ErrorCode, message: &str) -> DescribeClusterResponse {
    DescribeClusterResponse {
        error_code: code.code(),
        error_message: Some(message.to_owned()),
        ..DescribeClusterResponse::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{Bed, answer, context_of};

    fn ask(version: i16, request: DescribeClusterRequest) -> DescribeClusterResponse {
        let bed = Bed::with_brokers(&[(1, false), (2, true), (3, false)]);
        let handler = DescribeClusterHandler::new(bed.cluster());
        answer(handler.handle(context_of::<DescribeClusterRequest>(version), request))
    }

    fn brokers(response: &DescribeClusterResponse) -> Vec<(i32, &str, i32, bool)> {
        response.brokers.iter().map(|b| (b.broker_id, b.host.as_str(), b.port, b.is_fenced)).collect()
    }

    #[test]
    fn fenced_brokers_are_told_only_to_those_who_ask() {
        let request =
            DescribeClusterRequest { include_fenced_brokers: true, ..DescribeClusterRequest::default() };
        let response = ask(2, request.clone());
        let all = [(1, "host1", 9001, false), (2, "host2", 9002, true), (3, "host3", 9003, false)];
        assert_eq!(brokers(&response), all);
        assert_eq!((response.controller_id, response.cluster_id.as_str()), (1, "cluster"));
        for response in [ask(1, request), ask(2, DescribeClusterRequest::default())] {
            assert_eq!(brokers(&response), [all[0], all[2]]);
        }
    }

    #[test]
    fn operations_are_told_if_asked_for() {
        assert_eq!(ask(0, DescribeClusterRequest::default()).cluster_authorized_operations, i32::MIN);
        let request = DescribeClusterRequest {
            include_cluster_authorized_operations: true,
            ..DescribeClusterRequest::default()
        };
        assert_eq!(ask(0, request).cluster_authorized_operations, 8096);
    }

    #[test]
    fn other_endpoints_than_brokers_are_refused() {
        let code = |kind| {
            let request = DescribeClusterRequest { endpoint_type: kind, ..DescribeClusterRequest::default() };
            ask(1, request).error_code
        };
        assert_eq!(code(CONTROLLERS), ErrorCode::MismatchedEndpointType.code());
        assert_eq!(code(7), ErrorCode::UnsupportedEndpointType.code());
    }
}
