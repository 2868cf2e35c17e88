//! AlterPartitionReassignments (45): starts, changes or cancels the move of partitions to other brokers (KIP-455);
//! from version 1 on it may refuse to change the number of replicas (KIP-860).

use std::collections::BTreeSet;
use std::sync::Arc;

use klamm_pb::controller::v1::submit_request::Change;
use klamm_pb::controller::v1::submit_response::Outcome;
use klamm_pb::controller::v1::{AlterReassignments, PartitionReference, Reassignment};
use klamm_pb::metadata::v1::BrokerIds;
use klamm_protocol::messages::alter_partition_reassignments_request::ReassignableTopic;
use klamm_protocol::messages::alter_partition_reassignments_response::{
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use klamm_protocol::messages::{AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse};
use klamm_protocol::{ErrorCode, VersionRange};

use crate::cluster::{Cluster, timeout};
use crate::context::RequestContext;
use crate::ports::GatewayError;
use crate::submission::{Refused, item_result, submit, told};
use crate::table::{Access, Answer, Handler, Operation, Ticket};

/// Serves AlterPartitionReassignments.
pub(crate) struct AlterPartitionReassignmentsHandler {
    cluster: Arc<Cluster>,
}

impl AlterPartitionReassignmentsHandler {
    pub(crate) fn new(cluster: Arc<Cluster>) -> Self {
        Self { cluster }
    }
}

impl Handler for AlterPartitionReassignmentsHandler {
    type Request = AlterPartitionReassignmentsRequest;

    const VERSIONS: VersionRange = AlterPartitionReassignmentsRequest::VERSIONS;
    const ACCESS: Access = Access::Cluster(Operation::Alter);

    fn handle(
        &self,
        context: RequestContext,
        request: AlterPartitionReassignmentsRequest,
    ) -> Ticket<AlterPartitionReassignmentsResponse> {
        let cluster = self.cluster.clone();
        // Version 0 cannot say that the number of replicas must stay.
        let allow_change = context.version < 1 || request.allow_replication_factor_change;
        Ticket::later(async move {
            let response = match reassign(&cluster, &request, allow_change).await {
                Ok(responses) => AlterPartitionReassignmentsResponse {
                    error_message: None,
                    responses,
                    ..AlterPartitionReassignmentsResponse::default()
                },
                Err(Refused { code, message }) => AlterPartitionReassignmentsResponse {
                    error_code: code.code(),
                    error_message: message,
                    ..AlterPartitionReassignmentsResponse::default()
                },
            };
            let allow_replication_factor_change = allow_change;
            Answer::Response(AlterPartitionReassignmentsResponse {
                allow_replication_factor_change,
                ..response
            })
        })
    }
}

async fn reassign(
    cluster: &Arc<Cluster>,
    request: &AlterPartitionReassignmentsRequest,
    allow_replication_factor_change: bool,
) -> Result<Vec<ReassignableTopicResponse>, Refused> {
    let wanted = wanted(&request.topics)?;
    let count = wanted.len();
    let mut results = Vec::new().into_iter();
    if count > 0 {
        let change = AlterReassignments { partitions: wanted, allow_replication_factor_change };
        let change = Change::AlterReassignments(change);
        match submit(cluster, change, timeout(request.timeout_ms)).await? {
            Outcome::AlterReassignments(outcome) if outcome.partitions.len() == count => {
                results = outcome.partitions.into_iter();
            }
            _ => return Err(GatewayError::BadAnswer.into()),
        }
    }
    // The outcomes are in the order of the request.
    let topics = request.topics.iter().map(|topic| ReassignableTopicResponse {
        name: topic.name.clone(),
        partitions: topic
            .partitions
            .iter()
            .zip(results.by_ref())
            .map(|(partition, outcome)| {
                let (error_code, error_message) = told(item_result(outcome.refusal));
                let partition_index = partition.partition_index;
                ReassignablePartitionResponse { partition_index, error_code, error_message }
            })
            .collect(),
    });
    Ok(topics.collect())
}

fn wanted(topics: &[ReassignableTopic]) -> Result<Vec<Reassignment>, Refused> {
    let mut named = BTreeSet::new();
    let mut wanted = Vec::new();
    for topic in topics {
        for partition in &topic.partitions {
            if !named.insert((topic.name.as_str(), partition.partition_index)) {
                let reason = "a partition is named twice";
                return Err(Refused::new(ErrorCode::InvalidRequest, reason));
            }
            let reference =
                PartitionReference { topic: topic.name.clone(), partition_id: partition.partition_index };
            let replicas = partition.replicas.clone().map(|ids| BrokerIds { ids });
            wanted.push(Reassignment { partition: Some(reference), replicas });
        }
    }
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use klamm_pb::controller::v1::{AlterReassignmentsOutcome, PartitionOutcome, Refusal};
    use klamm_protocol::messages::alter_partition_reassignments_request::ReassignablePartition;

    use super::*;
    use crate::fixture::{Bed, answer, context_of};

    fn topic(name: &str, partitions: &[(i32, Option<&[i32]>)]) -> ReassignableTopic {
        let partition = |(partition_index, replicas): &(i32, Option<&[i32]>)| ReassignablePartition {
            partition_index: *partition_index,
            replicas: replicas.map(<[i32]>::to_vec),
        };
        ReassignableTopic { name: name.to_owned(), partitions: partitions.iter().map(partition).collect() }
    }

    fn ask(
        bed: &Arc<Bed>,
        version: i16,
        topics: Vec<ReassignableTopic>,
    ) -> AlterPartitionReassignmentsResponse {
        let request = AlterPartitionReassignmentsRequest {
            timeout_ms: 1_000,
            allow_replication_factor_change: false,
            topics,
        };
        let handler = AlterPartitionReassignmentsHandler::new(bed.cluster());
        answer(handler.handle(context_of::<AlterPartitionReassignmentsRequest>(version), request))
    }

    fn outcome(codes: &[ErrorCode]) -> Outcome {
        let partition = |code: &ErrorCode| PartitionOutcome {
            partition: None,
            refusal: Some(Refusal { code: i32::from(code.code()), message: String::new() }),
        };
        let partitions = codes.iter().map(partition).collect();
        Outcome::AlterReassignments(AlterReassignmentsOutcome { partitions })
    }

    #[test]
    fn outcomes_go_to_the_partitions_in_their_order() {
        let bed = Bed::with_brokers(&[(1, false)]);
        let code = ErrorCode::NoReassignmentInProgress;
        bed.reply(Ok(outcome(&[ErrorCode::None, code, ErrorCode::None])));
        let wanted = vec![
            topic("b", &[(1, Some(&[2, 3])), (0, None)]),
            topic("none", &[]),
            topic("a", &[(0, Some(&[1]))]),
        ];
        let response = ask(&bed, 1, wanted);
        assert_eq!((response.error_code, response.error_message.as_deref()), (0, None));
        assert!(!response.allow_replication_factor_change);
        let told: Vec<_> = response
            .responses
            .iter()
            .map(|t| {
                let partitions = t.partitions.iter().map(|p| (p.partition_index, p.error_code));
                (t.name.as_str(), partitions.collect::<Vec<_>>())
            })
            .collect();
        assert_eq!(told, [("b", vec![(1, 0), (0, code.code())]), ("none", vec![]), ("a", vec![(0, 0)])]);
        let [Change::AlterReassignments(change)] = &bed.changes()[..] else { panic!("one change") };
        let replicas: Vec<_> = change.partitions.iter().map(|p| p.replicas.clone().map(|r| r.ids)).collect();
        assert_eq!(replicas, [Some(vec![2, 3]), None, Some(vec![1])]);
        assert!(!change.allow_replication_factor_change);
    }

    #[test]
    fn version_0_always_allows_another_number_of_replicas() {
        let bed = Bed::with_brokers(&[(1, false)]);
        bed.reply(Ok(outcome(&[ErrorCode::None])));
        ask(&bed, 0, vec![topic("a", &[(0, Some(&[1]))])]);
        let [Change::AlterReassignments(change)] = &bed.changes()[..] else { panic!("one change") };
        assert!(change.allow_replication_factor_change);
    }

    #[test]
    fn a_request_that_fails_as_a_whole_says_so_once() {
        let bed = Bed::with_brokers(&[(1, false)]);
        bed.reply(Err(GatewayError::TimedOut));
        let response = ask(&bed, 1, vec![topic("a", &[(0, None)])]);
        assert_eq!((response.error_code, response.responses.len()), (ErrorCode::RequestTimedOut.code(), 0));
        let response = ask(&bed, 1, vec![topic("a", &[(0, None)]), topic("a", &[(0, None)])]);
        assert_eq!(response.error_code, ErrorCode::InvalidRequest.code());
        assert!(ask(&bed, 1, Vec::new()).responses.is_empty());
        assert_eq!(bed.changes().len(), 1);
    }
}
